/* The whole layer through moec.h, forward and backward, against a chain of oracle ops.
 *
 * The chain runs the same ops in the same order on exact values; each op's bound becomes the input
 * error of the next, so the bound at the end covers every rounding in between (a in bf16, y in bf16,
 * ...). It is a worst case, wider than one op's, yet far below what a wrong row or weight gives. */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "layer.h"
#include "random.h"
#include "verify.h"

/* One named array: the oracle's view, and for what moec.h reads or writes the device's. */
typedef struct array {
    const char *name;
    int64_t rows, columns;
    moec_arg_type type;
    bool out;              /* judged; starts poisoned, or holds `f` when gradients accumulate */
    moec_ref_arg ref;
    void *host, *device;
    size_t bytes;
} array;

enum { MOST_ARRAYS = 48 };

typedef struct layer_case {
    moec_device *device;
    const moec_spec *spec;
    int64_t T, R, U;
    moec_arg_type act, wgrad;
    bool given;            /* expert and weight instead of logits */
    bool accumulate, recompute;
    int column_blocks;
    double aux, z;
    array arrays[MOST_ARRAYS];
    int count;
    moec_random random;
    moec_error *err;
    moec_status rc;
} layer_case;

/* ---- arrays ---- */

static array *find(layer_case *c, const char *name) {
    for (int i = 0; i < c->count; i++)
        if (!strcmp(c->arrays[i].name, name)) return &c->arrays[i];
    return NULL;
}

static array *add(layer_case *c, const char *name, int64_t rows, int64_t columns, moec_arg_type type) {
    array *a = &c->arrays[c->count++];
    *a = (array){.name = name, .rows = rows, .columns = columns, .type = type};
    size_t n = (size_t)(rows * columns) + 1;
    a->bytes = (n - 1) * moec_type_bytes(type);
    if (type == MOEC_T_I32) a->ref.i = calloc(n, sizeof *a->ref.i);
    else a->ref.f = calloc(n, sizeof *a->ref.f);
    if (type != MOEC_T_I32) a->ref.e = calloc(n, sizeof *a->ref.e);
    a->host = malloc(a->bytes + 1);
    if (!a->host || (!a->ref.i && (!a->ref.f || !a->ref.e)))
        c->rc = moec_fail(c->err, MOEC_E_NOMEM, "out of memory: array %s of a layer", name);
    return a;
}

/* Random values of a type; exact for the oracle. */
static void input(layer_case *c, const char *name, int64_t rows, int64_t columns, moec_arg_type type,
                  double scale) {
    array *a = add(c, name, rows, columns, type);
    for (int64_t i = 0; !c->rc && i < rows * columns; i++)
        a->ref.f[i] = moec_round_to(type, scale * moec_random_normal(&c->random));
}

static void output(layer_case *c, const char *name, int64_t rows, int64_t columns, moec_arg_type type,
                   bool accumulates) {
    array *a = add(c, name, rows, columns, type);
    a->out = true;
    for (int64_t i = 0; !c->rc && accumulates && c->accumulate && i < rows * columns; i++)
        a->ref.f[i] = moec_round_to(type, 0.1 * moec_random_normal(&c->random));
}

/* ---- the chain of oracle ops ---- */

typedef struct bind { const char *arg, *array; } bind;

/* Runs one op of the chain: arguments by name, NULL-ended; those not bound are NULL. */
static void step(layer_case *c, moec_op_id id, const moec_spec *spec, int64_t R, double beta,
                 const bind *binds) {
    moec_ref ref = {.op = moec_op_get(id), .spec = spec, .T = c->T, .R = R,
                    .u_acc = moec_ref_u_acc(c->device->target)};
    for (; binds->arg; binds++) {
        array *a = find(c, binds->array);
        if (a) ref.arg[moec_op_arg(ref.op, binds->arg)] = a->ref;
    }
    const struct { const char *name; double value; } scalars[] = {
        {"T", (double)c->T}, {"beta", beta}, {"aux", c->aux}, {"z", c->z},
    };
    for (int i = 0; i < 4; i++) {
        int at = moec_op_arg(ref.op, scalars[i].name);
        if (at >= 0) ref.arg[at].scalar = scalars[i].value;
    }
    if (!c->rc) c->rc = moec_ref_run(&ref, c->err);
}
#define STEP(c, id, spec, R, beta, ...) \
    step(c, id, spec, R, beta, (const bind[]){__VA_ARGS__, {NULL, NULL}})

static void chain_forward(layer_case *c, const moec_spec *shared) {
    const moec_spec *s = c->spec;
    if (s->shared) {
        STEP(c, MOEC_OP_up, shared, c->T, 0, {"x", "x"}, {"w1", "shared_w1"}, {"hpre", "shared_hpre"},
             {"a", "shared_a"});
        STEP(c, MOEC_OP_down, shared, c->T, 0, {"a", "shared_a"}, {"w2", "shared_w2"}, {"y", "out"});
    }
    STEP(c, MOEC_OP_up, s, c->R, 0, {"x", "x"}, {"w1", "w1"}, {"b1", "b1"}, {"offsets", "offsets"},
         {"row_slot", "row_slot"}, {"hpre", "hpre"}, {"a", "a"});
    STEP(c, MOEC_OP_down, s, c->R, 0, {"a", "a"}, {"w2", "w2"}, {"b2", "b2"}, {"offsets", "offsets"},
         {"y", "y"});
    STEP(c, MOEC_OP_combine, s, c->R, 0, {"y", "y"}, {"weight", "weight"}, {"slot_row", "slot_row"},
         {"add", s->shared ? "out" : ""}, {"out", "out"});
}

static void chain_backward(layer_case *c, const moec_spec *shared) {
    const moec_spec *s = c->spec;
    double beta = c->accumulate;
    STEP(c, MOEC_OP_dh, s, c->R, 0, {"dout", "dout"}, {"w2", "w2"}, {"b2", "b2"}, {"hpre", "hpre"},
         {"weight", "weight"}, {"offsets", "offsets"}, {"row_slot", "row_slot"}, {"dhpre", "dhpre"},
         {"a_w", "a"}, {"dweight", "dweight"}, {"slot_row", "slot_row"});
    STEP(c, MOEC_OP_dw2, s, c->R, beta, {"dout", "dout"}, {"a_w", "a"}, {"offsets", "offsets"},
         {"row_slot", "row_slot"}, {"dw2", "dw2"});
    STEP(c, MOEC_OP_dw1, s, c->R, beta, {"dhpre", "dhpre"}, {"x", "x"}, {"offsets", "offsets"},
         {"row_slot", "row_slot"}, {"dw1", "dw1"});
    STEP(c, MOEC_OP_dx, s, c->R, 0, {"dhpre", "dhpre"}, {"w1", "w1"}, {"offsets", "offsets"},
         {"dx_row", "y"});
    if (s->bias) {
        STEP(c, MOEC_OP_db2, s, c->R, beta, {"dout", "dout"}, {"weight", "weight"},
             {"offsets", "offsets"}, {"row_slot", "row_slot"}, {"db2", "db2"});
        STEP(c, MOEC_OP_db1, s, c->R, beta, {"dhpre", "dhpre"}, {"offsets", "offsets"}, {"db1", "db1"});
    }
    if (s->shared) {
        STEP(c, MOEC_OP_dh, shared, c->T, 0, {"dout", "dout"}, {"w2", "shared_w2"},
             {"hpre", "shared_hpre"}, {"dhpre", "shared_dhpre"}, {"a_w", "shared_a"});
        STEP(c, MOEC_OP_dw2, shared, c->T, beta, {"dout", "dout"}, {"a_w", "shared_a"},
             {"dw2", "dshared_w2"});
        STEP(c, MOEC_OP_dw1, shared, c->T, beta, {"dhpre", "shared_dhpre"}, {"x", "x"},
             {"dw1", "dshared_w1"});
        STEP(c, MOEC_OP_dx, shared, c->T, 0, {"dhpre", "shared_dhpre"}, {"w1", "shared_w1"},
             {"dx_row", "dx"});
    }
    STEP(c, MOEC_OP_combine, s, c->R, 0, {"y", "y"}, {"slot_row", "slot_row"},
         {"add", s->shared ? "dx" : ""}, {"out", "dx"});
    if (!c->given)
        STEP(c, MOEC_OP_route_bwd, s, c->R, 0, {"logits", "logits"}, {"expert", "expert"},
             {"weight", "weight"}, {"dweight", "dweight"}, {"load", "load"}, {"dlogits", "dlogits"});
}

/* ---- arrays of a case ---- */

/* Routing comes from a route case of the same seed, whose choices are sure; the layer's own route
 * must come to the same. */
static void take_routing(layer_case *c, const moec_case *route) {
    static const char *const names[] = {"logits", "sel_bias", "expert", "weight", "offsets", "row_slot",
                                        "slot_row", "load", NULL};
    for (int i = 0; names[i]; i++) {
        int at = moec_op_arg(route->op, names[i]);
        const moec_ref_arg *from = &route->ref.arg[at];
        if (!from->f && !from->i) continue;
        array *a = add(c, names[i], 1, route->count[at], route->type[at]);
        for (int64_t k = 0; !c->rc && k < route->count[at]; k++) {
            if (a->ref.i) a->ref.i[k] = from->i[k];
            else a->ref.f[k] = from->f[k];
            if (a->ref.e && from->e) a->ref.e[k] = from->e[k];
        }
    }
    if (c->given) { /* the layer reads these very weights: exact, in f32 */
        array *w = find(c, "weight");
        for (int64_t k = 0; !c->rc && k < w->columns; k++) {
            w->ref.f[k] = moec_round_to(MOEC_T_F32, w->ref.f[k]);
            w->ref.e[k] = 0;
        }
    }
}

static void make_arrays(layer_case *c) {
    const moec_spec *s = c->spec;
    int64_t E = s->E, H = s->H, F = s->F, U = c->U, T = c->T, R = c->R, S = s->shared;
    int64_t SU = moec_spec_gated(s) ? 2 * S : S;
    double h = 1 / sqrt((double)H), f = 1 / sqrt((double)F);
    input(c, "x", T, H, c->act, 1);
    input(c, "dout", T, H, c->act, 1);
    input(c, "w1", E * U, H, c->act, h);
    input(c, "w2", E * H, F, c->act, f);
    output(c, "out", T, H, c->act, false);
    output(c, "dx", T, H, c->act, false);
    output(c, "dw1", E * U, H, c->wgrad, true);
    output(c, "dw2", E * H, F, c->wgrad, true);
    output(c, "dweight", T, s->K, MOEC_T_F32, false);
    if (!c->given) output(c, "dlogits", T, E, MOEC_T_F32, false);
    if (s->bias) {
        input(c, "b1", E, U, c->act, 0.5);
        input(c, "b2", E, H, c->act, 0.5);
        output(c, "db1", E, U, c->wgrad, true);
        output(c, "db2", E, H, c->wgrad, true);
    }
    if (S) {
        input(c, "shared_w1", SU, H, c->act, h);
        input(c, "shared_w2", H, S, c->act, 1 / sqrt((double)S));
        output(c, "dshared_w1", SU, H, c->wgrad, true);
        output(c, "dshared_w2", H, S, c->wgrad, true);
        add(c, "shared_hpre", T, SU, c->act);
        add(c, "shared_dhpre", T, SU, c->act);
        add(c, "shared_a", T, S, c->act);
    }
    add(c, "hpre", R, U, c->act);
    add(c, "dhpre", R, U, c->act);
    add(c, "a", R, F, c->act);
    add(c, "y", R, H, c->act);
}

/* ---- the device's side ---- */

static void to_device(layer_case *c) {
    for (int i = 0; i < c->count && !c->rc; i++) {
        array *a = &c->arrays[i];
        int64_t n = a->rows * a->columns;
        bool poison = a->out && !(c->accumulate && a->name[0] == 'd' && strcmp(a->name, "dx") &&
                                  strcmp(a->name, "dweight") && strcmp(a->name, "dlogits"));
        memset(a->host, moec_poison_byte(a->type), a->bytes + 1);
        for (int64_t k = 0; !poison && k < n; k++)
            moec_store_element(a->host, a->type, k, a->ref.i ? a->ref.i[k] : a->ref.f[k]);
        c->rc = moec_alloc(c->device, a->bytes + 64, "verify of a layer", &a->device, c->err);
        if (!c->rc) c->rc = moec_upload(c->device, a->device, a->host, a->bytes, c->err);
    }
}

static void *at(layer_case *c, const char *name) {
    array *a = find(c, name);
    return a ? a->device : NULL;
}

static moec_status block(layer_case *c, size_t bytes, void **out) {
    MOEC_TRY(moec_alloc(c->device, bytes + 256, "verify of a layer", out, c->err));
    void *poison = malloc(bytes + 256);
    if (!poison) return moec_fail(c->err, MOEC_E_NOMEM, "out of memory: verify of a layer");
    memset(poison, 0xFF, bytes + 256);
    moec_status rc = moec_upload(c->device, *out, poison, bytes, c->err);
    free(poison);
    return rc;
}

static moec_status launch(layer_case *c, moec_layer *layer, void *saved, void *workspace) {
    moec_weights w = {at(c, "w1"), at(c, "b1"), at(c, "w2"), at(c, "b2"), at(c, "shared_w1"),
                      at(c, "shared_w2")};
    moec_forward f = {.T = c->T, .x = at(c, "x"), .logits = c->given ? NULL : at(c, "logits"),
                      .sel_bias = at(c, "sel_bias"), .expert = c->given ? at(c, "expert") : NULL,
                      .weight = c->given ? at(c, "weight") : NULL, .weights = w, .out = at(c, "out"),
                      .saved = saved, .workspace = workspace};
    moec_backward b = {.T = c->T, .x = f.x, .logits = f.logits, .weights = w, .saved = saved,
                       .dout = at(c, "dout"), .dx = at(c, "dx"), .dw1 = at(c, "dw1"),
                       .db1 = at(c, "db1"), .dw2 = at(c, "dw2"), .db2 = at(c, "db2"),
                       .dshared_w1 = at(c, "dshared_w1"), .dshared_w2 = at(c, "dshared_w2"),
                       .dlogits = at(c, "dlogits"), .dweight = at(c, "dweight"),
                       .accumulate = c->accumulate, .aux_coef = c->aux, .z_coef = c->z,
                       .workspace = workspace};
    MOEC_TRY(moec_layer_forward(layer, &f, c->err));
    MOEC_TRY(moec_layer_backward(layer, &b, c->err));
    return moec_synchronize(c->device, NULL, c->err);
}

/* Runs the layer and brings its outputs to `host`. */
static moec_status run(layer_case *c) {
    char text[MOEC_SPEC_BYTES];
    moec_layer *layer;
    void *saved = NULL, *workspace = NULL;
    moec_spec_print(c->spec, NULL, text, sizeof text);
    moec_layer_options options = {.recompute = c->recompute, .column_blocks = c->column_blocks};
    MOEC_TRY(moec_layer_create(c->device, text, &options, &layer, c->err));
    moec_status rc = block(c, moec_layer_saved_bytes(layer, c->T), &saved);
    if (!rc) rc = block(c, moec_layer_workspace_bytes(layer, c->T), &workspace);
    if (!rc) rc = launch(c, layer, saved, workspace);
    for (int i = 0; !rc && i < c->count; i++)
        if (c->arrays[i].out)
            rc = moec_download(c->device, c->arrays[i].host, c->arrays[i].device, c->arrays[i].bytes,
                               c->err);
    moec_free(c->device, saved);
    moec_free(c->device, workspace);
    moec_layer_free(layer);
    return rc;
}

static void judge(const layer_case *c, moec_verdict *verdict) {
    for (int i = 0; i < c->count; i++) {
        const array *a = &c->arrays[i];
        for (int64_t k = 0; a->out && k < a->rows * a->columns; k++)
            moec_judge(verdict, a->name, a->columns, k, moec_load_element(a->host, a->type, k),
                       a->ref.f[k], a->ref.e[k]);
    }
}

/* variant 0: logits, gradients overwritten. Others: some of given routing, accumulation, recompute, and
 * column blocks. */
static void plan(layer_case *c, int variant, char note[160]) {
    if (variant) {
        c->given = moec_random_below(&c->random, 2);
        c->accumulate = moec_random_below(&c->random, 2);
        c->recompute = moec_random_below(&c->random, 2);
        c->column_blocks = 1 + (int)moec_random_below(&c->random, 4);
    }
    c->aux = 0.01;
    c->z = 1e-3;
    int n = snprintf(note, 160, "%s%s%s", c->given ? "experts given " : "",
                     c->accumulate ? "gradients accumulate " : "", c->recompute ? "recompute " : "");
    if (c->column_blocks > 1) snprintf(note + n, (size_t)(160 - n), "%d column blocks", c->column_blocks);
}

moec_status moec_verify_layer(moec_device *device, const moec_spec *spec, int64_t T,
                              const moec_pattern *pattern, uint64_t seed, int variant, char note[160],
                              moec_verdict *verdict, moec_error *err) {
    layer_case *c = calloc(1, sizeof *c);
    if (!c) return moec_fail(err, MOEC_E_NOMEM, "out of memory: verify of a layer");
    *c = (layer_case){.device = device, .spec = spec, .T = T, .R = T * spec->K, .U = moec_spec_U(spec),
                      .random = moec_random_new(seed, 50 + (uint64_t)variant), .err = err};
    c->act = spec->dtype == MOEC_BF16 ? MOEC_T_BF16 : MOEC_T_F32;
    c->wgrad = spec->wgrad == MOEC_WGRAD_SAME ? c->act : MOEC_T_F32;
    plan(c, variant, note);
    moec_case route = {.op = moec_op_get(MOEC_OP_route), .spec = *spec, .T = T, .seed = seed};
    c->rc = moec_case_make(&route, pattern, err);
    if (!c->rc) c->rc = moec_case_solve(&route, device->target, err);
    if (!c->rc) take_routing(c, &route);
    moec_case_free(&route);
    if (!c->rc) make_arrays(c);
    to_device(c); /* before the chain: it overwrites the gradients that accumulate */
    moec_spec shared = moec_layer_row_spec(moec_layer_row_at(MOEC_L_SHARED_UP), spec);
    if (!c->rc) chain_forward(c, &shared);
    if (!c->rc) chain_backward(c, &shared);
    if (!c->rc) c->rc = run(c);
    if (!c->rc) judge(c, verdict);
    moec_status rc = c->rc;
    for (int i = 0; i < c->count; i++) {
        array *a = &c->arrays[i];
        moec_free(device, a->device);
        free(a->ref.f), free(a->ref.e), free(a->ref.i), free(a->host);
    }
    free(c);
    return rc;
}
