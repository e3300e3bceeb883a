/* The sandbox: one Lua state whose scripts see strings, tables and whole-number maths, nothing else.
 *
 * A bad template cannot hang or swell the process: an instruction budget and a heap limit end it
 * with an error that names template and line. host.lua alone runs outside the sandbox. */
#include "lhost.h"

#include <lualib.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { HEAP_LIMIT = 256 << 20, HOOK_STEP = 1000000, HOOK_BUDGET = 100 };

/* ---- limits ---- */

static void *limited_alloc(void *user, void *ptr, size_t old_bytes, size_t new_bytes) {
    moec_gen *gen = user;
    if (!ptr) old_bytes = 0; /* then it is a type tag */
    if (!new_bytes) {
        free(ptr);
        gen->used_bytes -= old_bytes;
        return NULL;
    }
    if (gen->used_bytes - old_bytes + new_bytes > gen->limit_bytes) return NULL;
    void *grown = realloc(ptr, new_bytes);
    if (grown) gen->used_bytes += new_bytes - old_bytes;
    return grown;
}

static void count_hook(lua_State *L, lua_Debug *event) {
    (void)event;
    int *left = *(int **)lua_getextraspace(L);
    if (left && --*left < 0) luaL_error(L, "instruction limit reached: an endless loop?");
}

/* ---- what a sandboxed script may use ---- */

static const char *const safe_names[] = {"assert", "error", "ipairs", "next", "pairs", "select",
                                         "setmetatable", "tonumber", "tostring", "type", NULL};

static void push_safe(lua_State *L) {
    lua_newtable(L);
    for (const char *const *name = safe_names; *name; name++) {
        lua_getglobal(L, *name);
        lua_setfield(L, -2, *name);
    }
    lua_getglobal(L, "string");
    lua_setfield(L, -2, "string");
    lua_getglobal(L, "table");
    lua_setfield(L, -2, "table");
    lua_getglobal(L, "math");
    lua_pushnil(L);
    lua_setfield(L, -2, "random");
    lua_pushnil(L);
    lua_setfield(L, -2, "randomseed");
    lua_setfield(L, -2, "math");
}

static void push_files(lua_State *L) {
    lua_createtable(L, 0, moec_template_file_count);
    for (int i = 0; i < moec_template_file_count; i++) {
        const moec_template_file *f = &moec_template_files[i];
        lua_pushlstring(L, f->text, f->bytes);
        lua_setfield(L, -2, f->name);
    }
}

static int open_state(lua_State *L) {
    luaL_requiref(L, "_G", luaopen_base, 1);
    luaL_requiref(L, "string", luaopen_string, 1);
    luaL_requiref(L, "table", luaopen_table, 1);
    luaL_requiref(L, "math", luaopen_math, 1);
    lua_settop(L, 0);
    push_files(L);
    lua_getfield(L, 1, "host.lua");
    size_t bytes;
    const char *text = lua_tolstring(L, -1, &bytes);
    if (!text) luaL_error(L, "host.lua is not embedded");
    if (luaL_loadbufferx(L, text, bytes, "@gen/host.lua", "t")) lua_error(L);
    lua_pushvalue(L, 1);
    push_safe(L);
    lua_call(L, 2, 1);
    lua_pushinteger(L, luaL_ref(L, LUA_REGISTRYINDEX));
    return 1;
}

moec_status moec_gen_new(moec_gen **out, moec_error *err) {
    moec_gen *gen = calloc(1, sizeof *gen);
    if (!gen) return moec_fail(err, MOEC_E_NOMEM, "out of memory for a generator");
    gen->limit_bytes = HEAP_LIMIT;
    gen->L = lua_newstate(limited_alloc, gen);
    if (!gen->L) {
        free(gen);
        return moec_fail(err, MOEC_E_NOMEM, "out of memory for a Lua state");
    }
    *(int **)lua_getextraspace(gen->L) = NULL;
    lua_pushcfunction(gen->L, open_state);
    if (lua_pcall(gen->L, 0, 1, 0)) {
        moec_status rc = moec_fail(err, MOEC_E_TEMPLATE, "cannot start the generator: %s",
                                   lua_tostring(gen->L, -1));
        moec_gen_free(gen);
        return rc;
    }
    gen->host = (int)lua_tointeger(gen->L, -1);
    lua_settop(gen->L, 0);
    *out = gen;
    return MOEC_OK;
}

void moec_gen_free(moec_gen *gen) {
    if (!gen) return;
    lua_close(gen->L);
    free(gen);
}

/* ---- the request as a Lua table ---- */

static void set_str(lua_State *L, const char *name, const char *value) {
    lua_pushstring(L, value);
    lua_setfield(L, -2, name);
}

static void set_int(lua_State *L, const char *name, int64_t value) {
    lua_pushinteger(L, value);
    lua_setfield(L, -2, name);
}

static void set_bool(lua_State *L, const char *name, bool value) {
    lua_pushboolean(L, value);
    lua_setfield(L, -2, name);
}

static void push_args(lua_State *L, const moec_op *op, const moec_spec *spec) {
    static const char *const roles[] = {"in", "out", "inout", "scalar"};
    lua_createtable(L, op->arg_count, 0);
    for (int i = 0; i < op->arg_count; i++) {
        const moec_arg_info *arg = &op->args[i];
        lua_createtable(L, 0, 5);
        set_str(L, "name", arg->name);
        set_str(L, "role", roles[arg->role]);
        set_str(L, "type", moec_type_name(moec_arg_dtype(arg, spec)));
        set_bool(L, "optional", arg->optional);
        set_str(L, "shape", arg->shape);
        lua_rawseti(L, -2, i + 1);
    }
}

static void push_op(lua_State *L, const moec_op *op, const moec_spec *spec) {
    lua_newtable(L);
    set_str(L, "name", op->name);
    set_str(L, "keys", op->keys);
    set_str(L, "doc", op->doc);
    push_args(L, op, spec);
    lua_setfield(L, -2, "args");
}

static void push_spec(lua_State *L, const moec_spec *s) {
    lua_newtable(L);
#define INT(f, ...)      set_int(L, #f, s->f);
#define ENUM(f, ...)     set_str(L, #f, moec_spec_enum(#f, s->f));
#define REAL(f, ...)     lua_pushnumber(L, s->f); lua_setfield(L, -2, #f);
#define RATIO(f, g, ...) set_int(L, #f, s->f); set_int(L, #g, s->g);
#define EXTRA
#include "spec.def"
#undef INT
#undef ENUM
#undef REAL
#undef RATIO
#undef EXTRA
    set_bool(L, "gated", moec_spec_gated(s));
    set_int(L, "U", moec_spec_U(s));
}

static void push_target(lua_State *L, const moec_target *t) {
    lua_newtable(L);
    set_str(L, "name", t->name);
    set_str(L, "family", t->family);
    set_str(L, "dialect", t->dialect);
    set_int(L, "vector_bits", t->vector_bits);
    set_bool(L, "bf16_dot", t->bf16_dot);
    set_bool(L, "amx", t->amx);
    set_int(L, "warp", t->warp);
    set_int(L, "shared_bytes", t->shared_bytes);
    set_int(L, "registers", t->registers);
}

void lhost_push_config(lua_State *L, const moec_config *config) {
    lua_newtable(L);
    for (int i = 0; i < config->count; i++) set_int(L, config->item[i].name, config->item[i].value);
}

void lhost_begin(moec_gen *gen, const char *function, const moec_request *q) {
    lua_State *L = gen->L;
    lua_rawgeti(L, LUA_REGISTRYINDEX, gen->host);
    lua_getfield(L, -1, function);
    lua_remove(L, -2);
    lua_newtable(L);
    push_op(L, q->op, q->spec);
    lua_setfield(L, -2, "op");
    push_spec(L, q->spec);
    lua_setfield(L, -2, "spec");
    push_target(L, q->target);
    lua_setfield(L, -2, "target");
    set_int(L, "tokens", q->tokens);
    if (!q->config) return;
    lhost_push_config(L, q->config);
    lua_setfield(L, -2, "config");
}

/* ---- calls ---- */

/* Pushes "templates/x.tmpl:12: " of the innermost frame that is template or descriptor text. */
static void push_template_position(lua_State *L) {
    lua_Debug frame;
    for (int level = 1; lua_getstack(L, level, &frame); level++) {
        lua_getinfo(L, "Sl", &frame);
        if (strncmp(frame.short_src, "templates/", 10)) continue;
        lua_pushfstring(L, "%s:%d: ", frame.short_src, frame.currentline);
        return;
    }
    lua_pushliteral(L, "");
}

/* Keeps error tables (they say "unsupported" or "illegal"); makes strings that begin with the
 * template's position of the rest. */
static int handler(lua_State *L) {
    if (lua_istable(L, 1)) return 1;
    const char *message = luaL_tolstring(L, 1, NULL);
    if (!strncmp(message, "templates/", 10)) return 1;
    push_template_position(L);
    lua_insert(L, -2);
    lua_concat(L, 2);
    return 1;
}

static bool error_field(lua_State *L, const char *name, char *text, size_t bytes) {
    if (!lua_istable(L, -1)) return false;
    lua_getfield(L, -1, name);
    const char *value = lua_tostring(L, -1);
    if (value) snprintf(text, bytes, "%s", value);
    lua_pop(L, 1);
    return value != NULL;
}

static moec_status explain(moec_gen *gen, const moec_request *q, moec_error *err) {
    char text[2048], spec[MOEC_SPEC_BYTES];
    moec_spec_print(q->spec, q->op->keys, spec, sizeof spec);
    if (error_field(gen->L, "unsupported", text, sizeof text)) {
        moec_status rc = moec_fail(err, MOEC_E_UNSUPPORTED, "%s", text);
        return *q->target->fallback
                   ? moec_hint(err, rc, "the next best target is %s", q->target->fallback)
                   : rc;
    }
    if (error_field(gen->L, "illegal", text, sizeof text))
        return moec_fail(err, MOEC_E_SPEC, "config of %s on %s is not legal: %s", q->op->name,
                         q->target->name, text);
    const char *message = lua_tostring(gen->L, -1);
    return moec_fail(err, MOEC_E_TEMPLATE, "%s\nwhile emitting %s on %s for \"%s\"",
                     message ? message : "error without a message", q->op->name, q->target->name,
                     spec);
}

int lhost_limited_pcall(moec_gen *gen, int args, int results) {
    lua_State *L = gen->L;
    int base = lua_gettop(L) - args;
    int budget = HOOK_BUDGET;
    lua_pushcfunction(L, handler);
    lua_insert(L, base);
    *(int **)lua_getextraspace(L) = &budget;
    lua_sethook(L, count_hook, LUA_MASKCOUNT, HOOK_STEP);
    int failed = lua_pcall(L, args, results, base);
    lua_sethook(L, NULL, 0, 0);
    *(int **)lua_getextraspace(L) = NULL;
    lua_remove(L, base);
    return failed;
}

moec_status lhost_call(moec_gen *gen, const moec_request *q, int extra, int results,
                       moec_error *err) {
    lua_State *L = gen->L;
    int base = lua_gettop(L) - extra - 1;
    if (!lhost_limited_pcall(gen, extra + 1, results)) return MOEC_OK;
    moec_status rc = explain(gen, q, err);
    lua_settop(L, base - 1);
    return rc;
}
