/* config: a Lua file becomes a train_config, by one table (train.def) and the spec grammar.
 *
 * The file returns {model=, data=, train=}. Every key is first a text ("train.lr" -> "0.001"),
 * overrides replace texts, and then each text goes through one checked assignment: so a value from
 * the file and one from the command line fail in the same words. The Lua state has no io, os, load
 * or random, and stops after a fixed number of instructions. */
#include "config.h"

#include <errno.h>
#include <inttypes.h>
#include <lauxlib.h>
#include <lua.h>
#include <lualib.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { LUA_STEPS = 10 * 1000 * 1000, LUA_BYTES = 64 << 20, FILE_BYTES = 1 << 20, MAX_ITEMS = 256 };

typedef enum { KIND_INT, KIND_REAL, KIND_FLAG, KIND_TEXT } row_kind;

typedef struct row {
    row_kind kind;
    const char *group, *name;
    size_t offset, bytes;
    double dflt, min, max;
    const char *text; /* default of TEXT */
    const char *doc;
} row;

#define AT(f) offsetof(train_config, f)
static const row rows[] = {
#define INT(g, f, d, lo, hi, doc)  {KIND_INT, #g, #f, AT(f), 8, d, lo, hi, "", doc},
#define REAL(g, f, d, lo, hi, doc) {KIND_REAL, #g, #f, AT(f), 8, d, lo, hi, "", doc},
#define FLAG(g, f, d, doc)         {KIND_FLAG, #g, #f, AT(f), 8, d, 0, 1, "", doc},
#define TEXT(g, f, n, d, doc)      {KIND_TEXT, #g, #f, AT(f), n, 0, 0, 0, d, doc},
#include "train.def"
#undef INT
#undef REAL
#undef FLAG
#undef TEXT
};
enum { ROWS = sizeof rows / sizeof *rows };

/* Keys of the spec grammar, all of group "model". A ratio's second half has no name of its own. */
static const char *const spec_keys[] = {
#define INT(f, ...)  #f,
#define REAL(f, ...) #f,
#define ENUM(f, ...) #f,
#define RATIO(f, ...) #f,
#define EXTRA
#include "spec.def"
#undef INT
#undef REAL
#undef ENUM
#undef RATIO
#undef EXTRA
};
enum { SPEC_KEYS = sizeof spec_keys / sizeof *spec_keys };

/* ---- items: key texts before they are assigned ---- */

typedef struct item {
    const char *group, *key; /* static strings of the tables */
    char value[512];
} item;

typedef struct items {
    int count;
    item item[MAX_ITEMS];
} items;

static const row *find_row(const char *group, const char *key) {
    for (int i = 0; i < ROWS; i++)
        if ((!group || !strcmp(group, rows[i].group)) && !strcmp(key, rows[i].name)) return &rows[i];
    return NULL;
}

static const char *find_spec_key(const char *group, const char *key) {
    if (group && strcmp(group, "model")) return NULL;
    for (int i = 0; i < SPEC_KEYS; i++)
        if (!strcmp(key, spec_keys[i])) return spec_keys[i];
    return NULL;
}

static void list_keys(const char *group, char *text, size_t bytes) {
    size_t used = 0;
    text[0] = 0;
    for (int i = 0; i < ROWS; i++)
        if ((!group || !strcmp(group, rows[i].group)) && used + 40 < bytes)
            used += (size_t)snprintf(text + used, bytes - used, " %s", rows[i].name);
    for (int i = 0; i < SPEC_KEYS; i++)
        if ((!group || !strcmp(group, "model")) && used + 40 < bytes)
            used += (size_t)snprintf(text + used, bytes - used, " %s", spec_keys[i]);
}

static moec_status put(items *list, const char *group, const char *key, const char *value,
                       moec_error *err) {
    const row *r = find_row(group, key);
    const char *spec_key = r ? NULL : find_spec_key(group, key);
    if (!r && !spec_key) {
        char known[2048];
        list_keys(group, known, sizeof known);
        moec_fail(err, MOEC_E_SPEC, "unknown key '%s'%s%s", key, group ? " in group " : "",
                  group ? group : "");
        return moec_hint(err, MOEC_E_SPEC, "known keys:%s", known);
    }
    const char *g = r ? r->group : "model", *k = r ? r->name : spec_key;
    int at = 0;
    while (at < list->count && (strcmp(list->item[at].group, g) || strcmp(list->item[at].key, k))) at++;
    if (at == MAX_ITEMS) return moec_fail(err, MOEC_E_SPEC, "more than %d keys", MAX_ITEMS);
    if (at == list->count) list->count++;
    item *i = &list->item[at];
    i->group = g;
    i->key = k;
    if (strlen(value) >= sizeof i->value)
        return moec_fail(err, MOEC_E_SPEC, "the value of %s.%s is longer than %zu bytes", g, k,
                         sizeof i->value - 1);
    snprintf(i->value, sizeof i->value, "%s", value);
    return MOEC_OK;
}

static moec_status put_override(items *list, const char *text, moec_error *err) {
    const char *equals = strchr(text, '='), *dot = strchr(text, '.');
    char group[64] = "", key[64] = "";
    if (!equals || equals == text)
        return moec_hint(err, moec_fail(err, MOEC_E_SPEC, "'%s' is not key=value", text),
                         "moec train --keys lists the keys");
    if (dot && dot > equals) dot = NULL;
    const char *name = dot ? dot + 1 : text;
    snprintf(group, sizeof group, "%.*s", dot ? (int)(dot - text) : 0, text);
    snprintf(key, sizeof key, "%.*s", (int)(equals - name), name);
    moec_status rc = put(list, dot ? group : NULL, key, equals + 1, err);
    return rc ? moec_context(err, rc, "in the override '%s'", text) : MOEC_OK;
}

/* ---- Lua ---- */

typedef struct limits { size_t used; } limits;

static void *limited_alloc(void *user, void *ptr, size_t old, size_t bytes) {
    limits *l = user;
    size_t before = ptr ? old : 0;
    if (bytes == 0) {
        free(ptr);
        l->used -= before;
        return NULL;
    }
    if (l->used - before + bytes > LUA_BYTES) return NULL;
    void *p = realloc(ptr, bytes);
    if (p) l->used += bytes - before;
    return p;
}

static void too_long(lua_State *L, lua_Debug *debug) {
    (void)debug;
    luaL_error(L, "the config runs for more than %d instructions", LUA_STEPS);
}

/* Only what computing a table needs: no io, os, debug, require, load, print or random. */
static int open_sandbox(lua_State *L) {
    static const char *const removed[] = {"dofile", "loadfile", "load", "require", "print",
                                          "collectgarbage", "rawset", "setmetatable"};
    luaL_requiref(L, "_G", luaopen_base, 1);
    luaL_requiref(L, LUA_STRLIBNAME, luaopen_string, 1);
    luaL_requiref(L, LUA_TABLIBNAME, luaopen_table, 1);
    luaL_requiref(L, LUA_MATHLIBNAME, luaopen_math, 1);
    lua_pushnil(L);
    lua_setfield(L, -2, "random");
    lua_pushnil(L);
    lua_setfield(L, -2, "randomseed");
    for (size_t i = 0; i < sizeof removed / sizeof *removed; i++) {
        lua_pushnil(L);
        lua_setglobal(L, removed[i]);
    }
    lua_settop(L, 0);
    return 0;
}

static moec_status read_file(const char *path, char **text, size_t *bytes, moec_error *err) {
    FILE *f = fopen(path, "rb");
    if (!f) {
        moec_fail(err, MOEC_E_IO, "config %s: %s", path, strerror(errno));
        return moec_hint(err, MOEC_E_IO, "give the path of a Lua file; examples/ has some");
    }
    char *buf = malloc(FILE_BYTES);
    moec_status rc = buf ? MOEC_OK : moec_fail(err, MOEC_E_NOMEM, "config %s", path);
    size_t n = buf ? fread(buf, 1, FILE_BYTES, f) : 0;
    if (!rc && ferror(f))
        rc = moec_hint(err, moec_fail(err, MOEC_E_IO, "config %s: %s", path, strerror(errno)), "give a Lua file");
    if (!rc && n == FILE_BYTES)
        rc = moec_fail(err, MOEC_E_SPEC, "config %s is larger than %d bytes", path, FILE_BYTES);
    fclose(f);
    if (rc) free(buf);
    else *text = buf, *bytes = n;
    return rc;
}

/* Leaves the file's table on the stack. */
static moec_status run_file(lua_State *L, const char *path, moec_error *err) {
    char *text = NULL, chunk[600];
    size_t bytes = 0;
    MOEC_TRY(read_file(path, &text, &bytes, err));
    snprintf(chunk, sizeof chunk, "@%s", path);
    int bad = luaL_loadbufferx(L, text, bytes, chunk, "t");
    free(text);
    lua_sethook(L, too_long, LUA_MASKCOUNT, LUA_STEPS);
    if (bad || lua_pcall(L, 0, 1, 0)) {
        const char *why = lua_tostring(L, -1);
        moec_fail(err, MOEC_E_SPEC, "config %s", why ? why : "failed without a message");
        return moec_hint(err, MOEC_E_SPEC, "a config is a Lua file that returns a table: examples/demo.lua is one");
    }
    if (!lua_istable(L, -1)) {
        moec_fail(err, MOEC_E_SPEC, "config %s returns a %s, not a table", path,
                  luaL_typename(L, -1));
        return moec_hint(err, MOEC_E_SPEC, "the last line is: return { model = {...}, ... }");
    }
    return MOEC_OK;
}

/* The value on top of the stack as text. */
static moec_status value_text(lua_State *L, const char *group, const char *key, char *text,
                              size_t bytes, moec_error *err) {
    size_t n = 0;
    const char *s = NULL;
    switch (lua_type(L, -1)) {
    case LUA_TBOOLEAN: s = lua_toboolean(L, -1) ? "true" : "false"; n = strlen(s); break;
    case LUA_TNUMBER:
        if (lua_isinteger(L, -1)) snprintf(text, bytes, "%lld", (long long)lua_tointeger(L, -1));
        else snprintf(text, bytes, "%.17g", lua_tonumber(L, -1));
        return MOEC_OK;
    case LUA_TSTRING: s = lua_tolstring(L, -1, &n); break;
    default:
        return moec_fail(err, MOEC_E_SPEC, "%s.%s is a %s; a number, text or true/false belongs here",
                         group, key, luaL_typename(L, -1));
    }
    if (n >= bytes || strlen(s) != n)
        return moec_fail(err, MOEC_E_SPEC, "the text of %s.%s is too long or has a zero byte", group,
                         key);
    memcpy(text, s, n + 1);
    return MOEC_OK;
}

/* All keys of the table on top of the stack. */
static moec_status put_table(lua_State *L, const char *group, items *list, moec_error *err) {
    lua_pushnil(L);
    while (lua_next(L, -2)) {
        char value[512];
        if (lua_type(L, -2) != LUA_TSTRING)
            return moec_fail(err, MOEC_E_SPEC, "group %s has an entry without a name", group);
        const char *key = lua_tostring(L, -2);
        MOEC_TRY(value_text(L, group, key, value, sizeof value, err));
        MOEC_TRY(put(list, group, key, value, err));
        lua_pop(L, 1);
    }
    return MOEC_OK;
}

static moec_status put_model_file(lua_State *L, const char *config, const char *name, items *list,
                                  moec_error *err) {
    char path[1024];
    const char *slash = strrchr(config, '/');
    int folder = slash && name[0] != '/' ? (int)(slash - config) + 1 : 0;
    snprintf(path, sizeof path, "%.*s%s", folder, config, name);
    MOEC_TRY(run_file(L, path, err));
    moec_status rc = put_table(L, "model", list, err);
    lua_pop(L, 1);
    return rc ? moec_context(err, rc, "in the model file %s", path) : MOEC_OK;
}

/* The config's table is on top: its groups, and nothing else. */
static moec_status put_groups(lua_State *L, const char *path, items *list, moec_error *err) {
    static const char *const groups[] = {"model", "data", "train"};
    for (int i = 0; i < 3; i++) {
        lua_getfield(L, -1, groups[i]);
        moec_status rc = MOEC_OK;
        if (lua_istable(L, -1)) rc = put_table(L, groups[i], list, err);
        else if (i == 0 && lua_isstring(L, -1))
            rc = put_model_file(L, path, lua_tostring(L, -1), list, err);
        else if (!lua_isnil(L, -1))
            rc = moec_fail(err, MOEC_E_SPEC, "%s is a %s, not a table", groups[i],
                           luaL_typename(L, -1));
        MOEC_TRY(rc);
        lua_pop(L, 1);
    }
    lua_pushnil(L);
    while (lua_next(L, -2)) {
        const char *key = lua_type(L, -2) == LUA_TSTRING ? lua_tostring(L, -2) : "[number]";
        if (strcmp(key, "model") && strcmp(key, "data") && strcmp(key, "train"))
            return moec_fail(err, MOEC_E_SPEC,
                             "unknown group '%s'; a config has model, data and train", key);
        lua_pop(L, 1);
    }
    return MOEC_OK;
}

static moec_status read_items(const char *path, bool model_only, items *list, moec_error *err) {
    limits memory = {0};
    lua_State *L = lua_newstate(limited_alloc, &memory);
    if (!L) return moec_fail(err, MOEC_E_NOMEM, "config %s: no Lua state", path);
    lua_pushcfunction(L, open_sandbox);
    moec_status rc = lua_pcall(L, 0, 0, 0) ? moec_fail(err, MOEC_E_NOMEM, "config: no sandbox")
                                           : run_file(L, path, err);
    if (!rc) {
        rc = model_only ? put_table(L, "model", list, err) : put_groups(L, path, list, err);
        if (rc) moec_context(err, rc, "config %s", path);
    }
    lua_close(L);
    return rc;
}

/* ---- assignment ---- */

static moec_status out_of_range(const row *r, const char *value, moec_error *err) {
    return moec_fail(err, MOEC_E_SPEC, "%s.%s = %s: a %s from %.15g to %.15g belongs here (%s)",
                     r->group, r->name, value, r->kind == KIND_INT ? "whole number" : "number", r->min,
                     r->max, r->doc);
}

static moec_status assign(train_config *c, const row *r, const char *value, moec_error *err) {
    void *field = (char *)c + r->offset;
    char *end;
    if (r->kind == KIND_TEXT) {
        if (strlen(value) >= r->bytes)
            return moec_fail(err, MOEC_E_SPEC, "%s.%s is longer than %zu bytes", r->group, r->name,
                             r->bytes - 1);
        snprintf(field, r->bytes, "%s", value);
        return MOEC_OK;
    }
    if (r->kind == KIND_FLAG) {
        bool yes = !strcmp(value, "true") || !strcmp(value, "1");
        if (!yes && strcmp(value, "false") && strcmp(value, "0"))
            return moec_fail(err, MOEC_E_SPEC, "%s.%s = %s: true or false belongs here (%s)",
                             r->group, r->name, value, r->doc);
        *(int64_t *)field = yes;
        return MOEC_OK;
    }
    double v = strtod(value, &end);
    if (end == value || *end || !(v >= r->min && v <= r->max)) return out_of_range(r, value, err);
    if (r->kind == KIND_INT) {
        if (v != (double)(int64_t)v) return out_of_range(r, value, err);
        *(int64_t *)field = (int64_t)v;
    } else *(double *)field = v;
    return MOEC_OK;
}

static const item *find_item(const items *list, const char *key) {
    for (int i = 0; i < list->count; i++)
        if (!strcmp(list->item[i].key, key)) return &list->item[i];
    return NULL;
}

/* Sizes of the model in the grammar's order: Lua gives them in none, and errors show the text. */
static moec_status assign_spec(train_config *c, const items *list, moec_error *err) {
    char text[MOEC_SPEC_BYTES] = "";
    size_t used = 0;
    for (int i = 0; i < SPEC_KEYS; i++) {
        const item *it = find_item(list, spec_keys[i]);
        if (!it) continue;
        if (used + strlen(it->key) + strlen(it->value) + 3 > sizeof text)
            return moec_fail(err, MOEC_E_SPEC, "the sizes are longer than %d bytes", MOEC_SPEC_BYTES);
        used += (size_t)snprintf(text + used, sizeof text - used, "%s%s=%s", used ? " " : "", it->key,
                                 it->value);
    }
    return moec_spec_parse(text, &c->spec, err);
}

static moec_status assign_all(train_config *c, const items *list, moec_error *err) {
    for (int i = 0; i < list->count; i++) {
        const row *r = find_row(list->item[i].group, list->item[i].key);
        if (r) MOEC_TRY(assign(c, r, list->item[i].value, err));
    }
    moec_status rc = assign_spec(c, list, err);
    return rc ? moec_context(err, rc, "sizes of the model") : MOEC_OK;
}

static void set_defaults(train_config *c, const char *path) {
    memset(c, 0, sizeof *c);
    snprintf(c->file, sizeof c->file, "%s", path);
    moec_spec_default(&c->spec);
    for (int i = 0; i < ROWS; i++) {
        void *field = (char *)c + rows[i].offset;
        if (rows[i].kind == KIND_TEXT) snprintf(field, rows[i].bytes, "%s", rows[i].text);
        else if (rows[i].kind == KIND_REAL) *(double *)field = rows[i].dflt;
        else *(int64_t *)field = (int64_t)rows[i].dflt;
    }
}

/* ---- relations between keys ---- */

static moec_status bad(moec_error *err, const char *what, const char *hint) {
    moec_fail(err, MOEC_E_SPEC, "%s", what);
    return moec_hint(err, MOEC_E_SPEC, "%s", hint);
}

static bool one_of(const char *word, const char *const *list) {
    for (; *list; list++)
        if (!strcmp(word, *list)) return true;
    return false;
}

static moec_status check_model(const train_config *c, moec_error *err) {
    const moec_spec *s = &c->spec;
    static const char *const names[] = {"qwen3_moe", "mixtral", "olmoe", "deepseek", NULL};
    if (s->heads < 1 || s->kv < 1 || s->heads % s->kv)
        return bad(err, "model.kv does not divide model.heads",
                   "each key/value head serves heads/kv query heads; set both, kv <= heads");
    if (s->dim < 8 || s->dim % 8)
        return bad(err, "model.dim, the size of one head, is not a positive multiple of 8",
                   "usual values are 32, 64 and 128");
    if (s->V < 2 || s->V % 8)
        return bad(err, "model.V, the vocabulary, is not a positive multiple of 8",
                   "round it up; the rows past the last token are never chosen. Text needs V=256");
    if (c->dense > c->layers || (c->dense && (c->dense_F < 8 || c->dense_F % 8)))
        return bad(err, "model.dense_F is not a positive multiple of 8, or dense exceeds layers",
                   "dense counts the leading layers without experts; dense_F is their width");
    if (s->router == MOEC_LOGITS)
        return bad(err, "router=logits has no gradient that keeps experts balanced in a trainer",
                   "use softmax_topk, topk_softmax or sigmoid_bias");
    if (!one_of(c->names, names))
        return bad(err, "model.names is not one of qwen3_moe, mixtral, olmoe, deepseek",
                   "it chooses the parameter names of checkpoints");
    if (s->wgrad != MOEC_WGRAD_F32 || s->layout != MOEC_CONCAT || s->out != MOEC_OUT_SAME)
        return bad(err, "the trainer keeps layout=concat, wgrad=f32 and out=same",
                   "leave these keys out of the model");
    return MOEC_OK;
}

static moec_status check_run(const train_config *c, moec_error *err) {
    bool text = !strcmp(c->format, "text");
    if (!text && strcmp(c->format, "megatron"))
        return bad(err, "data.format is neither text nor megatron",
                   "text: bytes of a file; megatron: an indexed .bin/.idx pair");
    if (!c->path[0]) return bad(err, "data.path is missing", "name the file to train on");
    if (!c->run[0]) return bad(err, "train.run is empty", "name a folder for log and checkpoints");
    if (text && c->spec.V < 256)
        return bad(err, "text has 256 byte values, more than model.V", "set V=256");
    if (c->warmup > c->steps)
        return bad(err, "train.warmup is longer than train.steps", "shorten it");
    if (c->batch * c->seq > INT32_MAX / 16)
        return bad(err, "train.batch * train.seq is more tokens than one micro-batch can hold",
                   "use a smaller batch and train.accumulate");
    return MOEC_OK;
}

moec_status config_load(const char *path, const char *const *overrides, int count,
                        train_config *config, moec_error *err) {
    items *list = calloc(1, sizeof *list);
    if (!list) return moec_fail(err, MOEC_E_NOMEM, "config %s", path);
    set_defaults(config, path);
    moec_status rc = read_items(path, false, list, err);
    for (int i = 0; i < count && !rc; i++) rc = put_override(list, overrides[i], err);
    if (!rc) rc = assign_all(config, list, err);
    free(list);
    if (!rc) rc = check_model(config, err);
    if (!rc) rc = check_run(config, err);
    return rc;
}

moec_status config_load_model(const char *path, train_config *config, moec_error *err) {
    items *list = calloc(1, sizeof *list);
    if (!list) return moec_fail(err, MOEC_E_NOMEM, "model %s", path);
    set_defaults(config, path);
    moec_status rc = read_items(path, true, list, err);
    if (!rc) rc = assign_all(config, list, err);
    free(list);
    return rc ? rc : check_model(config, err);
}

bool config_is_file(const char *argument) {
    size_t n = strlen(argument);
    return n > 4 && !strcmp(argument + n - 4, ".lua") && !strchr(argument, '=');
}

/* ---- views ---- */

void config_layer_spec(const train_config *config, char text[MOEC_SPEC_BYTES]) {
    moec_spec s = config->spec;
    s.heads = s.kv = s.dim = s.V = 0;
    moec_spec_print(&s, NULL, text, MOEC_SPEC_BYTES);
}

static bool show(const train_config *c, const row *r, char *text, size_t bytes) {
    const void *field = (const char *)c + r->offset;
    if (r->kind == KIND_TEXT) {
        snprintf(text, bytes, "%s", (const char *)field);
        return !strcmp(text, r->text);
    }
    if (r->kind == KIND_REAL) {
        snprintf(text, bytes, "%.9g", *(const double *)field);
        return *(const double *)field == r->dflt;
    }
    int64_t v = *(const int64_t *)field;
    if (r->kind == KIND_FLAG) snprintf(text, bytes, "%s", v ? "true" : "false");
    else snprintf(text, bytes, "%" PRId64, v);
    return v == (int64_t)r->dflt;
}

void config_each(const train_config *config,
                 void (*visit)(void *user, const char *group, const char *key, const char *value,
                               bool is_default),
                 void *user) {
    char text[MOEC_SPEC_BYTES];
    moec_spec_print(&config->spec, NULL, text, sizeof text);
    visit(user, "model", "sizes", text, false);
    for (int i = 0; i < ROWS; i++) {
        bool dflt = show(config, &rows[i], text, sizeof text);
        visit(user, rows[i].group, rows[i].name, text, dflt);
    }
}

void config_keys(void (*visit)(void *user, const char *group, const char *key, const char *dflt,
                               const char *doc),
                 void *user) {
    char text[512];
    train_config defaults;
    set_defaults(&defaults, "");
    for (int i = 0; i < ROWS; i++) {
        show(&defaults, &rows[i], text, sizeof text);
        visit(user, rows[i].group, rows[i].name, text, rows[i].doc);
    }
}

typedef struct text_sink { char *text; size_t used, bytes; } text_sink;

static void append_model(void *user, const char *group, const char *key, const char *value,
                         bool is_default) {
    text_sink *s = user;
    bool sizes = !strcmp(key, "sizes"); /* a list in itself */
    if (strcmp(group, "model") || is_default || s->used + strlen(key) + strlen(value) + 3 > s->bytes) return;
    s->used += (size_t)snprintf(s->text + s->used, s->bytes - s->used, "%s%s%s%s", s->used ? " " : "",
                                sizes ? "" : key, sizes ? "" : "=", value);
}

void config_model_settings(const train_config *config, char *text, size_t bytes) {
    text_sink sink = {text, 0, bytes};
    text[0] = 0;
    config_each(config, append_model, &sink);
}

void config_model_size(const train_config *config, int64_t seq, model_size *size) {
    const moec_spec *s = &config->spec;
    int64_t U = moec_spec_U(s), gated = moec_spec_gated(s) ? 2 : 1;
    int64_t q = s->heads * s->dim, kv = s->kv * s->dim;
    int64_t attention = s->H * (2 * q + 2 * kv);
    int64_t norms = 2 * s->H + (config->qk_row ? q + kv : config->qk_norm ? 2 * s->dim : 0);
    int64_t expert = s->H * (U + s->F) + (s->bias ? U + s->H : 0);
    int64_t shared = s->H * s->shared * (gated + 1), router = s->E * s->H;
    int64_t dense = s->H * config->dense_F * (gated + 1);
    int64_t moe_layers = config->layers - config->dense, head = s->V * s->H;
    int64_t common = config->layers * (attention + norms) + moe_layers * (router + shared) +
                     config->dense * dense + s->H + head * (config->tied ? 1 : 2);
    size->layer_experts = s->E * expert;
    size->total = common + moe_layers * s->E * expert;
    size->active = common + moe_layers * s->K * expert;
    double multiply = (double)(config->layers * attention + config->dense * dense + head) +
                      (double)moe_layers * (double)(router + shared + s->K * s->H * (U + s->F));
    size->flops_token = 2 * multiply + 2 * (double)(config->layers * q) * (double)seq;
}
