/* Emission: asks host.lua for the body and the launch rule, writes the header, fills the kernel.
 *
 * The header says everything needed to understand and reproduce the text: spec, config, derived
 * numbers, cost, template hash, command, arguments with shapes, and the data flow in prose.
 * It holds no date, host, path or user: equal requests give equal bytes. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#define XXH_INLINE_ALL
#include <xxhash.h>

#include "lhost.h"
#include "moec_version.h"
#include "prune.h"

const char *moec_version(void) { return MOEC_VERSION; }

void moec_hash_hex(const void *data, size_t bytes, char hex[33]) {
    XXH128_hash_t h = XXH3_128bits(data, bytes);
    snprintf(hex, 33, "%016llx%016llx", (unsigned long long)h.high64, (unsigned long long)h.low64);
}

static int hash8(lua_State *L) {
    size_t bytes;
    const char *text = luaL_checklstring(L, 1, &bytes);
    char hex[33];
    moec_hash_hex(text, bytes, hex);
    lua_pushlstring(L, hex, 8);
    return 1;
}

/* ---- a growing text ---- */

typedef struct text {
    char *data;
    size_t used, room;
    bool failed;
} text;

static void add(text *t, const char *s, size_t n) {
    if (t->used + n + 1 > t->room) {
        size_t room = (t->used + n + 1) * 2;
        char *data = realloc(t->data, room);
        if (!data) {
            t->failed = true;
            return;
        }
        t->data = data;
        t->room = room;
    }
    memcpy(t->data + t->used, s, n);
    t->used += n;
    t->data[t->used] = 0;
}

static void addf(text *t, const char *format, ...) MOEC_PRINTF(2, 3);
static void addf(text *t, const char *format, ...) {
    char line[4096];
    va_list args;
    va_start(args, format);
    vsnprintf(line, sizeof line, format, args);
    va_end(args);
    add(t, line, strlen(line));
}

/* " * label    : value", wrapped at word borders to 110 columns. */
static void add_field(text *t, const char *label, const char *value) {
    enum { WIDTH = 94 };
    addf(t, " * %-9s%s", label, *label ? ": " : "  ");
    while (strlen(value) > WIDTH) {
        int cut = WIDTH;
        while (cut > 0 && value[cut] != ' ') cut--;
        if (!cut) cut = WIDTH;
        addf(t, "%.*s\n *            ", cut, value);
        value += cut + (value[cut] == ' ');
    }
    addf(t, "%s", value);
    while (t->used && t->data[t->used - 1] == ' ') t->used--;
    add(t, "\n", 1);
}

/* ---- reading host.emit's answer ---- */

static const char *field(lua_State *L, const char *name) {
    lua_getfield(L, -1, name);
    const char *value = lua_tostring(L, -1);
    lua_pop(L, 1); /* still referenced by the table */
    return value ? value : "";
}

static int int_field(lua_State *L, const char *name) {
    lua_getfield(L, -1, name);
    int value = (int)lua_tointeger(L, -1);
    lua_pop(L, 1);
    return value;
}

static void add_lines(text *t, lua_State *L, const char *name, const char *label) {
    lua_getfield(L, -1, name);
    for (int i = 1, n = (int)lua_rawlen(L, -1); i <= n; i++) {
        lua_rawgeti(L, -1, i);
        add_field(t, i == 1 ? label : "", luaL_tolstring(L, -1, NULL));
        lua_pop(L, 2);
    }
    lua_pop(L, 1);
}

static void add_args(text *t, const moec_op *op, const moec_spec *spec) {
    static const char *const roles[] = {"in", "out", "in/out", "scalar"};
    for (int i = 0; i < op->arg_count; i++) {
        const moec_arg_info *arg = &op->args[i];
        char line[160];
        snprintf(line, sizeof line, "%-9s %-6s %-4s %s%s%s%s", arg->name, roles[arg->role],
                 moec_type_name(moec_arg_dtype(arg, spec)), *arg->shape ? "[" : "", arg->shape,
                 *arg->shape ? "]" : "", arg->optional ? " or NULL" : "");
        add_field(t, i ? "" : "arguments", line);
    }
}

static void add_header(text *t, lua_State *L, const moec_request *q, const moec_config *config) {
    char spec[MOEC_SPEC_BYTES], cfg[512], line[2048];
    moec_spec_print(q->spec, q->op->keys, spec, sizeof spec);
    moec_config_print(config, cfg, sizeof cfg);
    addf(t, "/* moec %s: generated, do not edit\n", moec_version());
    snprintf(line, sizeof line, "%s: %s", q->op->name, q->op->doc);
    add_field(t, "op", line);
    add_field(t, "spec", spec);
    snprintf(line, sizeof line, "%s, needs %s", q->target->name, q->target->needs);
    add_field(t, "target", line);
    add_field(t, "config", *cfg ? cfg : "none");
    add_lines(t, L, "derived", "derived");
    snprintf(line, sizeof line, "flops = %s; bytes = %s", field(L, "flops"), field(L, "bytes"));
    add_field(t, "cost", line);
    snprintf(line, sizeof line, "%s bytes", field(L, "scratch"));
    add_field(t, "scratch", line);
    add_field(t, "template", field(L, "template"));
    snprintf(line, sizeof line, "moec gen \"%s\" -t %s --op %s%s%s%s -o DIR", spec, q->target->name,
             q->op->name, *cfg ? " --config \"" : "", cfg, *cfg ? "\"" : "");
    add_field(t, "reproduce", line);
    add_args(t, q->op, q->spec);
    add(t, " *\n", 3);
    lua_getfield(L, -1, "prose");
    for (int i = 1, n = (int)lua_rawlen(L, -1); i <= n; i++) {
        lua_rawgeti(L, -1, i);
        addf(t, " * %s\n", lua_tostring(L, -1));
        lua_pop(L, 1);
    }
    lua_pop(L, 1);
    add(t, " */\n", 4);
}

/* ---- launch rule ---- */

static void copy_expr(char *dst, const char *src) { snprintf(dst, MOEC_EXPR_BYTES, "%s", src); }

static void read_list(lua_State *L, const char *name, char dst[5][MOEC_EXPR_BYTES]) {
    lua_getfield(L, -1, name);
    for (int i = 0; i < 5 && lua_istable(L, -1); i++) {
        lua_rawgeti(L, -1, i + 1);
        copy_expr(dst[i], lua_isnil(L, -1) ? "" : lua_tostring(L, -1));
        lua_pop(L, 1);
    }
    lua_pop(L, 1);
}

static void read_tmap(lua_State *L, moec_tmap *map) {
    snprintf(map->arg, sizeof map->arg, "%s", field(L, "arg"));
    read_list(L, "dim", map->dim);
    read_list(L, "stride", map->stride);
    copy_expr(map->offset, field(L, "offset"));
    map->swizzle = int_field(L, "swizzle");
    map->l2 = int_field(L, "l2");
    lua_getfield(L, -1, "box");
    map->rank = lua_istable(L, -1) ? (int)lua_rawlen(L, -1) : 0;
    for (int i = 0; i < map->rank && i < 5; i++) {
        lua_rawgeti(L, -1, i + 1);
        map->box[i] = (int)lua_tointeger(L, -1);
        lua_pop(L, 1);
    }
    lua_pop(L, 1);
}

static moec_status read_launch(lua_State *L, moec_launch *launch, moec_error *err) {
    copy_expr(launch->scratch, field(L, "scratch"));
    copy_expr(launch->grid, field(L, "grid"));
    launch->block = int_field(L, "block");
    launch->cluster = int_field(L, "cluster");
    launch->shared_bytes = int_field(L, "shared_bytes");
    launch->pdl = int_field(L, "pdl");
    launch->phases = int_field(L, "phases");
    lua_getfield(L, -1, "tmaps");
    launch->tmap_count = (int)lua_rawlen(L, -1);
    for (int i = 0; i < launch->tmap_count && i < MOEC_MAX_TMAPS; i++) {
        lua_rawgeti(L, -1, i + 1);
        read_tmap(L, &launch->tmap[i]);
        lua_pop(L, 1);
    }
    lua_pop(L, 1);
    return launch->tmap_count <= MOEC_MAX_TMAPS
               ? MOEC_OK
               : moec_fail(err, MOEC_E_TEMPLATE, "a kernel has more than %d tensor maps",
                           MOEC_MAX_TMAPS);
}

static void read_promise(lua_State *L, moec_promise *promise) {
    lua_getfield(L, -1, "promise");
    promise->lds_bytes = int_field(L, "lds");
    promise->waves = int_field(L, "waves");
    promise->matrix_count = int_field(L, "matrix_count");
    snprintf(promise->matrix, sizeof promise->matrix, "%s", field(L, "matrix"));
    lua_pop(L, 1);
}

/* ---- the whole ---- */

static void symbol_prefix(const moec_request *q, char *out, size_t bytes) {
    int n = snprintf(out, bytes, "moec_%s_%s_%s", q->op->name, moec_spec_enum("dtype", q->spec->dtype),
                     q->target->name);
    for (int i = 0; i < n; i++)
        if (out[i] == '-') out[i] = '_';
}

static moec_status call_host(moec_gen *gen, const moec_request *q, moec_error *err) {
    char prefix[96], key[MOEC_SPEC_BYTES + 512];
    symbol_prefix(q, prefix, sizeof prefix);
    moec_spec_print(q->spec, q->op->keys, key, MOEC_SPEC_BYTES);
    strcat(key, " | ");
    moec_config_print(q->config, key + strlen(key), 500);
    lhost_begin(gen, "emit", q);
    lua_pushstring(gen->L, prefix);
    lua_pushstring(gen->L, key);
    lua_pushcfunction(gen->L, hash8);
    return lhost_call(gen, q, 3, 1, err);
}

static moec_status fill(lua_State *L, const moec_request *q, moec_kernel *kernel, moec_error *err) {
    text t = {0};
    add_header(&t, L, q, q->config);
    lua_getfield(L, -1, "body");
    size_t bytes;
    const char *body = lua_tolstring(L, -1, &bytes);
    size_t head = t.used;
    add(&t, body, bytes);
    lua_pop(L, 1);
    if (!t.failed && !strcmp(q->target->family, "cuda")) t.used = head + moec_prune(t.data + head);
    kernel->source = t.data;
    kernel->source_bytes = t.used;
    kernel->symbol = strdup(field(L, "symbol"));
    if (t.failed || !kernel->symbol) return moec_fail(err, MOEC_E_NOMEM, "out of memory for a kernel");
    copy_expr(kernel->flops, field(L, "flops"));
    copy_expr(kernel->bytes, field(L, "bytes"));
    moec_hash_hex(t.data, t.used, kernel->hash);
    read_promise(L, &kernel->promise);
    MOEC_TRY(read_launch(L, &kernel->launch, err));
    moec_status rc = moec_lint(t.data, err);
    return rc ? moec_context(err, rc, "emitted text of %s", kernel->symbol) : MOEC_OK;
}

moec_status moec_emit(moec_gen *gen, const moec_request *request, moec_kernel *kernel,
                      moec_error *err) {
    moec_request q = *request;
    memset(kernel, 0, sizeof *kernel);
    if (request->config) kernel->config = *request->config;
    else MOEC_TRY(moec_config_default(gen, request, &kernel->config, err));
    q.config = &kernel->config;
    kernel->op = q.op;
    kernel->target = q.target;
    kernel->spec = *q.spec;
    MOEC_TRY(call_host(gen, &q, err));
    moec_status rc = fill(gen->L, &q, kernel, err);
    lua_pop(gen->L, 1);
    if (rc) moec_kernel_free(kernel);
    return rc;
}

void moec_kernel_free(moec_kernel *kernel) {
    free(kernel->symbol);
    free(kernel->source);
    kernel->symbol = kernel->source = NULL;
}

/* ---- the engine alone, for its tests ---- */

moec_status moec_render(moec_gen *gen, const char *name, const char *template_text, const char *env,
                        char **out, moec_error *err) {
    lua_State *L = gen->L;
    int top = lua_gettop(L);
    moec_status rc = MOEC_OK;
    lua_rawgeti(L, LUA_REGISTRYINDEX, gen->host);
    lua_getfield(L, -1, "render");
    lua_pushstring(L, name);
    lua_pushstring(L, template_text);
    int bad = luaL_loadstring(L, env) || lua_pcall(L, 0, 1, 0);
    if (!bad) {
        lua_newtable(L);
        bad = lhost_limited_pcall(gen, 4, 1);
    }
    if (bad) rc = moec_fail(err, MOEC_E_TEMPLATE, "%s", lua_tostring(L, -1));
    else *out = strdup(lua_tostring(L, -1));
    lua_settop(L, top);
    return rc || *out ? rc : moec_fail(err, MOEC_E_NOMEM, "out of memory for a text");
}
