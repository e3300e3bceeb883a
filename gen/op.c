/* The op table: op.def's rows, their argument text parsed once on first use. */
#include "gen.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct { const char *name, *keys, *doc, *args; } rows[] = {
#define OP(name, keys, doc, args) {#name, keys, doc, args},
#include "op.def"
#undef OP
};

static moec_op ops[MOEC_OP_COUNT];
static pthread_once_t once = PTHREAD_ONCE_INIT;

static const struct { const char *name; size_t bytes; } types[] = {
    [MOEC_T_ACT] = {"act", 0}, [MOEC_T_WGRAD] = {"wgrad", 0}, [MOEC_T_OUT] = {"out", 0},
    [MOEC_T_BF16] = {"bf16", 2}, [MOEC_T_F32] = {"f32", 4}, [MOEC_T_F64] = {"f64", 8},
    [MOEC_T_I32] = {"i32", 4}, [MOEC_T_I64] = {"i64", 8}, [MOEC_T_BYTE] = {"byte", 1},
};
enum { TYPE_COUNT = sizeof types / sizeof *types };

static moec_arg_type type_of(const char *word) {
    for (int i = 0; i < TYPE_COUNT; i++)
        if (!strcmp(types[i].name, word)) return (moec_arg_type)i;
    abort(); /* op.def is wrong: the first run of any test shows it */
}

static moec_arg_role role_of(const char *word) {
    static const char *const names[] = {"in", "out", "inout", "scalar"};
    size_t n = strcspn(word, "?");
    for (int i = 0; i < 4; i++)
        if (strlen(names[i]) == n && !memcmp(names[i], word, n)) return (moec_arg_role)i;
    abort();
}

static void parse_line(const char *line, moec_arg_info *arg) {
    char role[16] = "", type[16] = "";
    int fields = sscanf(line, "%15s %15s %15s %31s", arg->name, role, type, arg->shape);
    arg->role = role_of(role);
    arg->optional = strchr(role, '?') != NULL;
    arg->type = type_of(type);
    if (fields < (arg->role == MOEC_SCALAR ? 3 : 4)) abort();
    if (arg->role == MOEC_SCALAR) *arg->shape = 0; /* sscanf went on into the next line */
}

static void parse_all(void) {
    for (int i = 0; i < MOEC_OP_COUNT; i++) {
        moec_op *op = &ops[i];
        *op = (moec_op){.id = (moec_op_id)i, .name = rows[i].name, .keys = rows[i].keys,
                        .doc = rows[i].doc};
        for (const char *at = rows[i].args; *at; at += strcspn(at, "\n") + 1) {
            if (op->arg_count == MOEC_MAX_ARGS) abort();
            parse_line(at, &op->args[op->arg_count++]);
        }
    }
}

const moec_op *moec_op_get(moec_op_id id) {
    pthread_once(&once, parse_all);
    return &ops[id];
}

const moec_op *moec_op_find(const char *name) {
    for (int i = 0; i < MOEC_OP_COUNT; i++)
        if (!strcmp(rows[i].name, name)) return moec_op_get((moec_op_id)i);
    return NULL;
}

const char *moec_op_lacks(const moec_op *op, const moec_spec *spec) {
    if (strstr(op->keys, "heads") && !spec->heads) return "heads, kv and dim";
    if (op->keys[0] == 'V' && !spec->V) return "V";
    return NULL;
}

int moec_op_arg(const moec_op *op, const char *name) {
    for (int i = 0; i < op->arg_count; i++)
        if (!strcmp(op->args[i].name, name)) return i;
    return -1;
}

moec_arg_type moec_arg_dtype(const moec_arg_info *arg, const moec_spec *spec) {
    moec_arg_type act = spec->dtype == MOEC_BF16 ? MOEC_T_BF16 : MOEC_T_F32;
    if (arg->type == MOEC_T_ACT) return act;
    if (arg->type == MOEC_T_WGRAD) return spec->wgrad == MOEC_WGRAD_SAME ? act : MOEC_T_F32;
    if (arg->type == MOEC_T_OUT) return spec->out == MOEC_OUT_SAME ? act : MOEC_T_F32;
    return arg->type;
}

size_t moec_type_bytes(moec_arg_type type) { return types[type].bytes; }
const char *moec_type_name(moec_arg_type type) { return types[type].name; }

moec_status moec_arg_count(const moec_arg_info *arg, const moec_sizes *sizes, int64_t *count,
                           moec_error *err) {
    char dim[32];
    *count = 1;
    for (const char *at = arg->shape; *at; at += *at == ',') {
        int64_t extent = 0;
        size_t n = strcspn(at, ",");
        snprintf(dim, sizeof dim, "%.*s", (int)n, at);
        moec_status rc = moec_expr(dim, sizes, &extent, err);
        if (rc) return moec_context(err, rc, "shape of argument %s", arg->name);
        if (__builtin_mul_overflow(*count, extent, count))
            return moec_fail(err, MOEC_E_INVAL, "argument %s has more than 2^63 elements", arg->name);
        at += n;
    }
    return MOEC_OK;
}
