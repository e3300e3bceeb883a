/* Configs: defaults, parsing, legality and enumeration of a descriptor's tunables. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lhost.h"

void moec_config_print(const moec_config *config, char *buf, size_t bytes) {
    size_t used = 0;
    if (bytes) buf[0] = 0;
    for (int i = 0; i < config->count && used < bytes; i++)
        used += (size_t)snprintf(buf + used, bytes - used, "%s%s=%" PRId64, i ? " " : "",
                                 config->item[i].name, config->item[i].value);
}

static int64_t *config_at(moec_config *config, const char *name, size_t length) {
    for (int i = 0; i < config->count; i++)
        if (strlen(config->item[i].name) == length && !memcmp(config->item[i].name, name, length))
            return &config->item[i].value;
    return NULL;
}

/* Names in the descriptor's order, so that equal configs print alike. Table stays on the stack. */
static moec_status read_names(moec_gen *gen, const moec_request *q, moec_config *config,
                              moec_error *err) {
    lua_State *L = gen->L;
    lhost_begin(gen, "tunables", q);
    MOEC_TRY(lhost_call(gen, q, 0, 1, err));
    config->count = (int)lua_rawlen(L, -1);
    if (config->count > MOEC_MAX_TUNABLES) {
        lua_pop(L, 1);
        return moec_fail(err, MOEC_E_TEMPLATE, "op %s has more than %d tunables", q->op->name,
                         MOEC_MAX_TUNABLES);
    }
    for (int i = 0; i < config->count; i++) {
        lua_rawgeti(L, -1, i + 1);
        snprintf(config->item[i].name, sizeof config->item[i].name, "%s", lua_tostring(L, -1));
        lua_pop(L, 1);
    }
    lua_pop(L, 1);
    return MOEC_OK;
}

/* Fills the values from the table on top of the stack. */
static void read_values(lua_State *L, moec_config *config) {
    for (int i = 0; i < config->count; i++) {
        lua_getfield(L, -1, config->item[i].name);
        config->item[i].value = lua_tointeger(L, -1);
        lua_pop(L, 1);
    }
}

moec_status lhost_read_config(moec_gen *gen, const moec_request *q, moec_config *config,
                              moec_error *err) {
    memset(config, 0, sizeof *config);
    MOEC_TRY(read_names(gen, q, config, err));
    read_values(gen->L, config);
    return MOEC_OK;
}

moec_status moec_config_default(moec_gen *gen, const moec_request *q, moec_config *config,
                                moec_error *err) {
    moec_request bare = *q;
    const char *lacks = moec_op_lacks(q->op, q->spec);
    bare.config = NULL;
    if (lacks) {
        moec_status rc = moec_fail(err, MOEC_E_SPEC, "op %s needs %s in the spec", q->op->name, lacks);
        return moec_hint(err, rc, "for instance heads=8 kv=2 dim=64 V=1024");
    }
    lhost_begin(gen, "default", &bare);
    MOEC_TRY(lhost_call(gen, &bare, 0, 1, err));
    moec_status rc = lhost_read_config(gen, &bare, config, err);
    lua_pop(gen->L, 1);
    return rc;
}

bool moec_gen_serves(moec_gen *gen, const moec_request *q) {
    lhost_begin(gen, "find", q);
    if (lhost_call(gen, q, 0, 1, NULL)) return false;
    bool serves = lua_istable(gen->L, -1);
    lua_pop(gen->L, 1);
    return serves;
}

bool moec_gen_has(moec_gen *gen, const moec_op *op, const moec_target *target) {
    moec_spec spec;
    bool has = false;
    for (int64_t dtype = MOEC_BF16; dtype <= MOEC_F32 && !has; dtype++) {
        moec_spec_default(&spec);
        spec.dtype = dtype;
        has = moec_gen_serves(gen, &(moec_request){.op = op, .spec = &spec, .target = target});
    }
    return has;
}

bool moec_config_legal(moec_gen *gen, const moec_request *q, const moec_config *config, char *why,
                       size_t bytes) {
    moec_request with = *q;
    moec_error err = {0};
    with.config = config;
    lhost_begin(gen, "legal", &with);
    if (lhost_call(gen, &with, 0, 1, &err)) {
        snprintf(why, bytes, "%s", err.text);
        return false;
    }
    const char *reason = lua_tostring(gen->L, -1);
    if (reason) snprintf(why, bytes, "%s", reason);
    lua_pop(gen->L, 1);
    return reason == NULL;
}

static moec_status default_hint(const moec_request *q, const moec_config *base, moec_status rc, moec_error *err) {
    char names[MOEC_SPEC_BYTES];
    moec_config_print(base, names, sizeof names);
    return moec_hint(err, rc, "%s on %s has: %s", q->op->name, q->target->name, *names ? names : "no tunables");
}

/* One "name=value" at text[at..at+length). */
static moec_status set_item(const moec_request *q, const char *text, const char *at, size_t length,
                            moec_config *config, moec_error *err) {
    const moec_config base = *config;
    const char *equals = memchr(at, '=', length);
    int64_t *value = equals ? config_at(config, at, (size_t)(equals - at)) : NULL;
    char *end = NULL;
    if (value) *value = strtoll(equals + 1, &end, 10);
    if (value && end == at + length && end != equals + 1) return MOEC_OK;
    moec_status rc = moec_fail(err, MOEC_E_SPEC, "%s\n  %s\n  %*s^",
                               value ? "expected a whole number" : "no such tunable", text,
                               (int)((value ? equals + 1 : at) - text), "");
    return default_hint(q, &base, rc, err);
}

moec_status moec_config_parse(moec_gen *gen, const moec_request *q, const char *text,
                              moec_config *config, moec_error *err) {
    char why[512];
    MOEC_TRY(moec_config_default(gen, q, config, err));
    const moec_config base = *config;
    for (const char *at = text + strspn(text, " "); *at;) {
        size_t n = strcspn(at, " ");
        MOEC_TRY(set_item(q, text, at, n, config, err));
        at += n;
        at += strspn(at, " ");
    }
    if (moec_config_legal(gen, q, config, why, sizeof why)) return MOEC_OK;
    moec_status rc = moec_fail(err, MOEC_E_SPEC, "config \"%s\" of %s on %s is not legal: %s", text, q->op->name,
                               q->target->name, why);
    return default_hint(q, &base, rc, err);
}

/* ---- enumeration: host.each calls back for every point ---- */

typedef struct walk {
    moec_config config;
    bool (*visit)(void *user, const moec_config *config, const char *why);
    void *user;
} walk;

static int visit_point(lua_State *L) {
    walk *w = lua_touserdata(L, lua_upvalueindex(1));
    const char *why = lua_tostring(L, 2);
    lua_pushvalue(L, 1);
    read_values(L, &w->config);
    lua_pushboolean(L, w->visit(w->user, &w->config, why));
    return 1;
}

moec_status moec_space_each(moec_gen *gen, const moec_request *q,
                            bool (*visit)(void *, const moec_config *, const char *), void *user,
                            moec_error *err) {
    walk w = {.visit = visit, .user = user};
    MOEC_TRY(read_names(gen, q, &w.config, err));
    lhost_begin(gen, "each", q);
    lua_pushlightuserdata(gen->L, &w);
    lua_pushcclosure(gen->L, visit_point, 1);
    return lhost_call(gen, q, 1, 0, err);
}
