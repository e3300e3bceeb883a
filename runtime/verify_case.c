/* Inputs of one op call: sizes, routing tables, values, and the bytes to upload.
 *
 * Order of work: which optional arguments are there (the variant); routing, made by the oracle's own
 * route from logits that follow the pattern, redrawn where a choice hangs on rounding; then each
 * argument by the row of `fills` that names it, normal noise when none does. */
#include "verify_case.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "random.h"

/* ---- elements ---- */

double moec_load_element(const void *data, moec_arg_type type, int64_t i) {
    uint32_t bits;
    float f;
    switch (type) {
    case MOEC_T_BF16:
        bits = (uint32_t)((const uint16_t *)data)[i] << 16;
        memcpy(&f, &bits, sizeof f);
        return (double)f;
    case MOEC_T_F32: return (double)((const float *)data)[i];
    case MOEC_T_F64: return ((const double *)data)[i];
    case MOEC_T_I32: return ((const int32_t *)data)[i];
    default: return NAN;
    }
}

static uint16_t to_bf16(double value) {
    float f = (float)value;
    uint32_t bits;
    memcpy(&bits, &f, sizeof bits);
    if (isnan(f)) return (uint16_t)(bits >> 16 | 0x40);
    return (uint16_t)((bits + 0x7FFF + (bits >> 16 & 1)) >> 16);
}

void moec_store_element(void *data, moec_arg_type type, int64_t i, double value) {
    switch (type) {
    case MOEC_T_BF16: ((uint16_t *)data)[i] = to_bf16(value); break;
    case MOEC_T_F32: ((float *)data)[i] = (float)value; break;
    case MOEC_T_F64: ((double *)data)[i] = value; break;
    case MOEC_T_I32: ((int32_t *)data)[i] = (int32_t)value; break;
    default: break;
    }
}

double moec_round_to(moec_arg_type type, double value) {
    double room;
    moec_store_element(&room, type, 0, value);
    return moec_load_element(&room, type, 0);
}

int moec_poison_byte(moec_arg_type type) { return type == MOEC_T_I32 ? 0x6B : 0xFF; }

/* ---- memory ---- */

void *moec_case_room(moec_case *c, size_t bytes) {
    void **list = realloc(c->owned, (size_t)(c->owned_count + 1) * sizeof *list);
    if (!list) return NULL;
    c->owned = list;
    void *block = calloc(bytes ? bytes : 1, 1);
    if (block) list[c->owned_count++] = block;
    return block;
}

void moec_case_free(moec_case *c) {
    for (int i = 0; i < c->owned_count; i++) free(c->owned[i]);
    free(c->owned);
    c->owned = NULL;
    c->owned_count = 0;
}

/* ---- variants: which optional arguments are NULL, which outputs share an input's buffer ---- */

static bool has_arg(const moec_op *op, const char *name) { return moec_op_arg(op, name) >= 0; }

/* Aliases that op.def allows: op, output, input. */
static const struct { moec_op_id op; const char *out, *in; } aliases[] = {
    {MOEC_OP_combine, "out", "add"},     {MOEC_OP_rmsnorm_bwd, "dx", "dres"},
    {MOEC_OP_rmsnorm_bwd, "dx", "dy"},   {MOEC_OP_add, "out", "a"},
    {MOEC_OP_add, "out", "b"},
};

typedef struct plan {
    moec_random random;
    bool dense;   /* offsets and row_slot NULL: one group of T rows */
    bool sorted;  /* row_slot NULL: the tokens themselves are sorted by expert */
    bool null[MOEC_MAX_ARGS];
} plan;

static void drop_arg(moec_case *c, plan *p, const char *name) {
    int i = moec_op_arg(c->op, name);
    if (i < 0) return;
    p->null[i] = true;
    snprintf(c->note + strlen(c->note), sizeof c->note - strlen(c->note), "%s%s=NULL",
             *c->note ? ", " : "", name);
}

/* Optional arguments whose absence is a matter of the spec or goes with another's. */
static void drop_by_rule(moec_case *c, plan *p) {
    const moec_spec *s = &c->spec;
    if (!s->bias && has_arg(c->op, "b1")) p->null[moec_op_arg(c->op, "b1")] = true;
    if (!s->bias && has_arg(c->op, "b2")) p->null[moec_op_arg(c->op, "b2")] = true;
    if (s->router != MOEC_SIGMOID_BIAS && has_arg(c->op, "sel_bias"))
        p->null[moec_op_arg(c->op, "sel_bias")] = true;
    if (c->op->id == MOEC_OP_rmsnorm)
        p->null[moec_op_arg(c->op, "sum")] |= p->null[moec_op_arg(c->op, "add")];
}

static const char *const routing_args[] = {"offsets", "row_slot", "slot_row", "b1", "b2", "sum", NULL};

static bool is_routing(const char *name) {
    for (int i = 0; routing_args[i]; i++)
        if (!strcmp(name, routing_args[i])) return true;
    return false;
}

static void plan_variant(moec_case *c, plan *p) {
    const moec_op *op = c->op;
    *p = (plan){.random = moec_random_new(c->seed, 1)};
    bool routed = has_arg(op, "offsets") && op->id != MOEC_OP_route;
    for (int i = 0; i < op->arg_count; i++) c->alias[i] = -1;
    if (c->variant) {
        p->dense = routed && c->spec.E == 1 && moec_random_below(&p->random, 2);
        p->sorted = routed && c->spec.K == 1 && !p->dense && moec_random_below(&p->random, 2);
        if (op->id == MOEC_OP_combine) p->sorted = moec_random_below(&p->random, 3) == 0;
        for (int i = 0; i < op->arg_count; i++)
            if (op->args[i].optional && !is_routing(op->args[i].name) && moec_random_below(&p->random, 2))
                drop_arg(c, p, op->args[i].name);
        for (size_t i = 0; i < sizeof aliases / sizeof *aliases; i++) {
            if (aliases[i].op != op->id || moec_random_below(&p->random, 2)) continue;
            int in = moec_op_arg(op, aliases[i].in), out = moec_op_arg(op, aliases[i].out);
            if (p->null[in] || c->alias[out] >= 0) continue;
            c->alias[out] = in;
            snprintf(c->note + strlen(c->note), sizeof c->note - strlen(c->note), "%s%s is %s",
                     *c->note ? ", " : "", aliases[i].out, aliases[i].in);
        }
    }
    if (p->dense) drop_arg(c, p, "offsets");
    if (p->dense || p->sorted) drop_arg(c, p, "row_slot");
    if (p->dense || p->sorted) drop_arg(c, p, "slot_row");
    drop_by_rule(c, p);
}

/* ---- routing ---- */

typedef struct routing {
    float *logits;
    double *wide, *sel_bias, *weight, *weight_e, *prob_sum, z_sum;
    int32_t *expert, *offsets, *row_slot, *slot_row, *load;
    unsigned char *undecided;
} routing;

static void *room(moec_case *c, int64_t n, size_t size) { return moec_case_room(c, (size_t)n * size); }

static bool routing_rooms(moec_case *c, routing *g) {
    int64_t T = c->T, E = c->spec.E, S = T * c->spec.K;
    g->logits = room(c, T * E, sizeof *g->logits);
    g->wide = room(c, T * E, sizeof *g->wide);
    g->sel_bias = room(c, E, sizeof *g->sel_bias);
    g->weight = room(c, S, sizeof *g->weight);
    g->weight_e = room(c, S, sizeof *g->weight_e);
    g->prob_sum = room(c, E, sizeof *g->prob_sum);
    g->expert = room(c, S, sizeof *g->expert);
    g->offsets = room(c, E + 1, sizeof *g->offsets);
    g->row_slot = room(c, S, sizeof *g->row_slot);
    g->slot_row = room(c, S, sizeof *g->slot_row);
    g->load = room(c, E, sizeof *g->load);
    g->undecided = room(c, T, 1);
    return g->logits && g->wide && g->sel_bias && g->weight && g->weight_e && g->prob_sum &&
           g->expert && g->offsets && g->row_slot && g->slot_row && g->load && g->undecided;
}

static moec_status route_once(moec_case *c, routing *g, moec_error *err) {
    moec_ref ref = {.op = moec_op_get(MOEC_OP_route), .spec = &c->spec, .T = c->T,
                    .u_acc = 0x1p-24, .undecided = g->undecided};
    const struct { const char *name; moec_ref_arg arg; } args[] = {
        {"logits", {.f = g->wide}},       {"sel_bias", {.f = g->sel_bias}},
        {"expert", {.i = g->expert}},     {"weight", {.f = g->weight, .e = g->weight_e}},
        {"offsets", {.i = g->offsets}},   {"row_slot", {.i = g->row_slot}},
        {"slot_row", {.i = g->slot_row}}, {"load", {.i = g->load}},
        {"prob_sum", {.f = g->prob_sum}}, {"z_sum", {.f = &g->z_sum}},
        {"T", {.scalar = (double)c->T}},
    };
    for (size_t i = 0; i < sizeof args / sizeof *args; i++)
        ref.arg[moec_op_arg(ref.op, args[i].name)] = args[i].arg;
    return moec_ref_run(&ref, err);
}

/* One token in eight gets two equal logits: a tie, which goes to the lower expert. */
static void plant_ties(moec_case *c, routing *g) {
    int64_t E = c->spec.E;
    for (int64_t t = 0; E > 1 && t < c->T; t += 8) {
        moec_random r = moec_random_new(c->seed, 5000 + (uint64_t)t);
        int64_t a = moec_random_below(&r, E), b = moec_random_below(&r, E);
        g->logits[t * E + a] = g->logits[t * E + b];
        g->sel_bias[a] = g->sel_bias[b];
    }
}

/* Draws logits until no choice hangs on the last bits of a score or weight. */
static moec_status make_routing(moec_case *c, const moec_pattern *pattern, const plan *p, routing *g,
                                moec_error *err) {
    enum { ROUNDS = 200 };
    int64_t T = c->T, E = c->spec.E, left = 1;
    if (!routing_rooms(c, g)) return moec_fail(err, MOEC_E_NOMEM, "out of memory: routing of a case");
    moec_random r = moec_random_new(c->seed, 2);
    moec_status rc = moec_pattern_popularity(pattern, E, c->seed, g->prob_sum, err);
    if (rc) return rc;
    int bias = moec_op_arg(c->op, "sel_bias");
    if (c->spec.router == MOEC_SIGMOID_BIAS && (bias < 0 || !p->null[bias]))
        for (int64_t e = 0; e < E; e++) g->sel_bias[e] = (double)(float)(0.05 * moec_random_normal(&r));
    moec_pattern_logits(g->prob_sum, T, E, c->seed, g->logits);
    plant_ties(c, g);
    for (int round = 0; left && round < ROUNDS; round++) {
        for (int64_t i = 0; i < T * E; i++) g->wide[i] = (double)g->logits[i];
        memset(g->undecided, 0, (size_t)T);
        MOEC_TRY(route_once(c, g, err));
        left = 0;
        for (int64_t t = 0; t < T; t++) {
            if (!g->undecided[t]) continue;
            left++;
            for (int64_t e = 0; e < E; e++)
                g->logits[t * E + e] += (float)(0.1 * moec_random_normal(&r));
        }
    }
    if (!left) return MOEC_OK;
    return moec_fail(err, MOEC_E_NUMERIC, "%" PRId64 " tokens stay undecided after %d draws", left, ROUNDS);
}

/* Does the kernel read what the argument holds before? */
static bool is_input(const moec_case *c, int at) {
    const moec_arg_info *info = &c->op->args[at];
    int beta = moec_op_arg(c->op, "beta"), logits = moec_op_arg(c->op, "logits");
    if (info->role == MOEC_IN) return true;
    if (info->role != MOEC_INOUT) return false;
    if (beta >= 0 && c->ref.arg[beta].scalar == 0) return false;           /* overwritten */
    if (c->op->id == MOEC_OP_route && c->ref.arg[logits].f) return false;  /* chosen, not given */
    return true;
}

/* ---- values ---- */

typedef struct maker {
    moec_case *c;
    plan *plan;
    routing *routing;
    moec_random random;
} maker;

typedef enum { NORMAL, TOKEN, TARGET, POSITIVE, SQUARE, ONE_PLUS, DROPPED_ZERO } how;

/* What values look like: op ("" for any), argument, kind, scale; depth: the scale is divided by the
 * square root of this size, so that sums over it have size 1. */
static const struct { const char *op, *arg; how how; double scale; const char *depth; } fills[] = {
    {"", "w1", NORMAL, 1, "H"},        {"", "w2", NORMAL, 1, "F"},
    {"", "w", NORMAL, 1, "H"},         {"", "b1", NORMAL, 0.5, "1"},
    {"", "b2", NORMAL, 0.5, "1"},      {"", "gain", ONE_PLUS, 0.1, "1"},
    {"", "token", TOKEN, 1, "1"},      {"", "target", TARGET, 1, "1"},
    {"", "rstd", POSITIVE, 1, "1"},    {"xent", "logits", NORMAL, 3, "1"},
    {"adamw", "v", SQUARE, 0.01, "1"}, {"adamw", "m", NORMAL, 0.01, "1"},
    {"adamw", "grad", NORMAL, 0.01, "1"}, {"adamw", "master", NORMAL, 0.1, "1"},
    {"route_bwd", "dweight", DROPPED_ZERO, 1, "1"},
    {"route", "weight", POSITIVE, 1, "1"},
};

/* Values of scalars: several mean that the seed picks one. T, N and seq are sizes, see below. */
static const struct { const char *op, *arg; int n; double value[3]; } scalars[] = {
    {"", "beta", 2, {0, 1}},           {"", "eps", 1, {1e-5}},
    {"", "aux", 2, {0.01, 0}},         {"", "z", 2, {1e-3, 0}},
    {"", "theta", 2, {10000, 500000}}, {"", "inverse", 2, {0, 1}},
    {"", "scale", 3, {1, 0.0078125, 0}},
    {"", "lr", 1, {1e-3}},             {"", "beta1", 1, {0.9}},
    {"", "beta2", 2, {0.95, 0.999}},   {"adamw", "eps", 1, {1e-8}},
    {"", "wd", 2, {0.1, 0}},           {"", "gscale", 2, {0.5, 1}},
    {"", "step", 3, {1, 2, 1000}},
};

enum { SHORT_SEQ = 96, LONG_SEQ = 400 }; /* tokens of a sequence: most cases, variant 1 */

static double draw(maker *m, how kind, double scale, int64_t i) {
    double n = moec_random_normal(&m->random);
    switch (kind) {
    case TOKEN: return (double)moec_random_below(&m->random, m->c->spec.V);
    case TARGET: return i % 5 == 4 ? -1 : (double)moec_random_below(&m->random, m->c->spec.V);
    case POSITIVE: return 0.5 + 1.5 * moec_random_unit(&m->random);
    case SQUARE: return scale * scale * n * n;
    case ONE_PLUS: return 1 + scale * n;
    case DROPPED_ZERO: return m->routing->slot_row[i] < 0 ? 0 : scale * n;
    case NORMAL: break;
    }
    return scale * n;
}

static bool for_op(const char *row_op, const char *row_arg, const moec_op *op, const char *arg) {
    return (!*row_op || !strcmp(row_op, op->name)) && !strcmp(row_arg, arg);
}

static moec_status fill(maker *m, int at, const moec_sizes *sizes, moec_error *err) {
    moec_case *c = m->c;
    const char *name = c->op->args[at].name;
    how kind = NORMAL;
    double scale = 1;
    for (size_t i = 0; i < sizeof fills / sizeof *fills; i++) {
        int64_t depth = 1;
        if (!for_op(fills[i].op, fills[i].arg, c->op, name)) continue;
        MOEC_TRY(moec_expr(fills[i].depth, sizes, &depth, err));
        kind = fills[i].how;
        scale = fills[i].scale / sqrt((double)depth);
    }
    m->random = moec_random_new(c->seed, 100 + (uint64_t)at);
    for (int64_t i = 0; i < c->count[at]; i++) {
        double v = draw(m, kind, scale, i);
        if (c->type[at] == MOEC_T_I32) c->ref.arg[at].i[i] = (int32_t)v;
        else c->ref.arg[at].f[i] = moec_round_to(c->type[at], v);
    }
    return MOEC_OK;
}

/* Arguments that are routing data: copied from the routing. False when `name` is none of them. */
static bool fill_routing(maker *m, int at) {
    const moec_case *c = m->c;
    const routing *g = m->routing;
    const char *name = c->op->args[at].name;
    const moec_ref_arg *a = &c->ref.arg[at];
    bool given = c->op->id == MOEC_OP_route && m->plan->null[moec_op_arg(c->op, "logits")];
    const struct { const char *name; const int32_t *i; const double *f; } table[] = {
        {"offsets", g->offsets, NULL}, {"row_slot", g->row_slot, NULL}, {"slot_row", g->slot_row, NULL},
        {"expert", g->expert, NULL},   {"load", g->load, NULL},         {"sel_bias", NULL, g->sel_bias},
        {"weight", NULL, g->weight},   {"logits", NULL, g->wide},
    };
    if (given && !strcmp(name, "weight")) return false;
    if (c->op->id == MOEC_OP_xent) return false;
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        if (strcmp(table[i].name, name)) continue;
        for (int64_t k = 0; k < c->count[at]; k++) {
            if (table[i].i) a->i[k] = table[i].i[k];
            else a->f[k] = moec_round_to(c->type[at], table[i].f[k]);
        }
        return true;
    }
    return false;
}

/* Tokens of a sequence. Long ones are cut to whole 64s half of the time: kernels' tiles end with them then. */
static int64_t draw_sequence(maker *m) {
    int64_t most = m->c->variant == 1 ? LONG_SEQ : SHORT_SEQ, longest = m->c->T + 1 < most ? m->c->T + 1 : most;
    int64_t seq = 1 + moec_random_below(&m->plan->random, longest);
    return seq > SHORT_SEQ && seq % 2 ? seq / 64 * 64 : seq;
}

static void fill_scalar(maker *m, int at) {
    moec_case *c = m->c;
    const char *name = c->op->args[at].name;
    double *out = &c->ref.arg[at].scalar;
    if (!strcmp(name, "T")) *out = (double)c->T;
    if (!strcmp(name, "N")) *out = (double)c->N;
    if (!strcmp(name, "seq")) *out = (double)draw_sequence(m);
    for (size_t i = 0; i < sizeof scalars / sizeof *scalars; i++)
        if (for_op(scalars[i].op, scalars[i].arg, c->op, name))
            *out = scalars[i].value[c->variant ? moec_random_below(&m->plan->random, scalars[i].n) : 0];
}

/* Variant 2: one element of one floating input is NaN. It must reach every output that depends on it
 * and no other. What route chooses is then unspecified, and route_bwd may read p back from weight. */
static void plant_nan(maker *m) {
    moec_case *c = m->c;
    int able[MOEC_MAX_ARGS], n = 0;
    for (int i = 0; i < c->op->arg_count; i++) {
        bool weight = c->op->id == MOEC_OP_route_bwd && !strcmp(c->op->args[i].name, "weight");
        if (c->ref.arg[i].f && c->count[i] && is_input(c, i) && !weight) able[n++] = i;
    }
    if (c->variant != 2 || !n || c->op->id == MOEC_OP_route) return;
    int at = able[moec_random_below(&m->plan->random, n)];
    c->ref.arg[at].f[moec_random_below(&m->plan->random, c->count[at])] = NAN;
    snprintf(c->note + strlen(c->note), sizeof c->note - strlen(c->note), "%sa NaN in %s",
             *c->note ? ", " : "", c->op->args[at].name);
}

/* attention_bwd reads what attention wrote. */
static moec_status fill_attention(moec_case *c, moec_error *err) {
    moec_ref forward = {.op = moec_op_get(MOEC_OP_attention), .spec = &c->spec, .T = c->T,
                        .u_acc = c->ref.u_acc};
    for (int i = 0; i < forward.op->arg_count; i++)
        forward.arg[i] = c->ref.arg[moec_op_arg(c->op, forward.op->args[i].name)];
    MOEC_TRY(moec_ref_run(&forward, err));
    for (int k = 0; k < 2; k++) {
        int at = moec_op_arg(c->op, k ? "lse" : "out");
        for (int64_t i = 0; i < c->count[at]; i++)
            c->ref.arg[at].f[i] = moec_round_to(c->type[at], c->ref.arg[at].f[i]);
    }
    return MOEC_OK;
}

/* ---- images ---- */

/* Rows that hold data: below offsets[E], or (combine) those that some slot points to. */
static void mark_live(moec_case *c, const routing *g, const plan *p) {
    int64_t rows = p->dense || p->sorted ? c->R : g->offsets[c->spec.E];
    for (int64_t r = 0; r < rows; r++) c->live[r] = 1;
}

static moec_status make_image(moec_case *c, int at, moec_error *err) {
    size_t size = moec_type_bytes(c->type[at]);
    const moec_ref_arg *a = &c->ref.arg[at];
    unsigned char *image = moec_case_room(c, (size_t)c->count[at] * size);
    if (!image) return moec_fail(err, MOEC_E_NOMEM, "out of memory: bytes of %s", c->op->args[at].name);
    c->image[at] = image;
    memset(image, moec_poison_byte(c->type[at]), (size_t)c->count[at] * size);
    if (!is_input(c, at)) return MOEC_OK;
    for (int64_t i = 0; i < c->count[at]; i++) {
        int64_t row = c->row_bytes[at] ? i * (int64_t)size / c->row_bytes[at] : -1;
        if (row >= 0 && !c->live[row]) continue; /* dead rows stay poisoned */
        moec_store_element(image, c->type[at], i, a->i ? a->i[i] : a->f[i]);
    }
    return MOEC_OK;
}

/* ---- the whole case ---- */

moec_status moec_case_applies(const moec_op *op, const moec_spec *spec, moec_error *err) {
    const char *needs = moec_op_lacks(op, spec);
    if (!strncmp(op->name, "db", 2) && !spec->bias) needs = "bias=1";
    if (strstr(op->keys, "columns") && spec->columns) needs = "columns=0: blocks of columns are verified through "
                                                              "the layer, and not";
    if (!needs) return MOEC_OK;
    return moec_fail(err, MOEC_E_UNSUPPORTED, "op %s needs %s in the spec", op->name, needs);
}

/* The oracle keeps a value and a bound of 8 bytes for every element. */
static const int64_t MOST_ELEMENTS = INT64_C(1) << 26;

static moec_status make_rooms(moec_case *c, const plan *p, const moec_sizes *sizes, moec_error *err) {
    for (int i = 0; i < c->op->arg_count; i++) {
        const moec_arg_info *info = &c->op->args[i];
        moec_ref_arg *a = &c->ref.arg[i];
        c->type[i] = moec_arg_dtype(info, &c->spec);
        if (info->role == MOEC_SCALAR || p->null[i]) continue;
        MOEC_TRY(moec_arg_count(info, sizes, &c->count[i], err));
        if (c->count[i] > MOST_ELEMENTS)
            return moec_fail(err, MOEC_E_UNSUPPORTED, "%s has %" PRId64 " elements, more than the "
                             "oracle takes (2^26); fewer experts or a smaller H or F have the same "
                             "code paths", info->name, c->count[i]);
        if (c->type[i] == MOEC_T_I32) a->i = room(c, c->count[i], sizeof *a->i);
        else a->f = room(c, c->count[i], sizeof *a->f);
        if (info->role != MOEC_IN && a->f) a->e = room(c, c->count[i], sizeof *a->e);
        if (!a->i && !a->f) return moec_fail(err, MOEC_E_NOMEM, "out of memory: argument %s", info->name);
        bool by_row = info->shape[0] == 'R' && info->shape[1] == ',';
        if (by_row && c->R)
            c->row_bytes[i] = c->count[i] / c->R * (int64_t)moec_type_bytes(c->type[i]);
    }
    return MOEC_OK;
}

moec_status moec_case_make(moec_case *c, const moec_pattern *pattern, moec_error *err) {
    plan p;
    routing g = {0};
    MOEC_TRY(moec_case_applies(c->op, &c->spec, err));
    plan_variant(c, &p);
    c->N = c->T * 37;
    c->R = p.dense || (p.sorted && c->op->id != MOEC_OP_combine) ? c->T : c->T * c->spec.K;
    c->ref = (moec_ref){.op = c->op, .spec = &c->spec, .T = c->T, .R = c->R, .N = c->N, .u_acc = 0x1p-24};
    moec_sizes sizes = {.spec = &c->spec, .T = c->T, .R = c->R, .N = c->N};
    c->live = moec_case_room(c, (size_t)c->R);
    if (!c->live) return moec_fail(err, MOEC_E_NOMEM, "out of memory: rows of a case");
    moec_spec spec = c->spec;
    if (p.sorted) c->spec.capacity = 0; /* every row is there */
    bool routed = has_arg(c->op, "offsets") || has_arg(c->op, "slot_row") || has_arg(c->op, "expert");
    moec_status rc = routed ? make_routing(c, pattern, &p, &g, err) : MOEC_OK;
    c->spec = spec;
    MOEC_TRY(rc);
    if (g.offsets) mark_live(c, &g, &p);
    MOEC_TRY(make_rooms(c, &p, &sizes, err));
    maker m = {.c = c, .plan = &p, .routing = &g};
    for (int i = 0; i < c->op->arg_count; i++) {
        if (c->op->args[i].role == MOEC_SCALAR) fill_scalar(&m, i);
        else if (c->count[i] && !fill_routing(&m, i)) MOEC_TRY(fill(&m, i, &sizes, err));
    }
    plant_nan(&m);
    if (c->op->id == MOEC_OP_attention_bwd) MOEC_TRY(fill_attention(c, err));
    for (int i = 0; i < c->op->arg_count; i++)
        if (c->ref.arg[i].f || c->ref.arg[i].i) MOEC_TRY(make_image(c, i, err));
    return MOEC_OK;
}

moec_status moec_case_solve(moec_case *c, const moec_target *target, moec_error *err) {
    c->ref.u_acc = moec_ref_u_acc(target);
    return moec_ref_run(&c->ref, err);
}

double moec_case_work(const moec_op *op, const moec_spec *s, int64_t T) {
    double rows = (double)T * (double)s->K, HU = (double)s->H * (double)moec_spec_U(s);
    /* A query meets half of its sequence, on average; two products forward, five backward. */
    double pairs = (double)T * (double)(T < LONG_SEQ ? T : LONG_SEQ) / 2 * (double)(s->heads * s->dim);
    if (op->id == MOEC_OP_attention) return 2 * pairs;
    if (op->id == MOEC_OP_attention_bwd) return 5 * pairs;
    if (strstr(op->name, "linear")) return (double)T * (double)s->H * (double)s->F;
    if (!strcmp(op->name, "xent")) return (double)T * (double)s->V;
    if (!strcmp(op->name, "embed_bwd")) return (double)T * (double)(s->V * s->H);
    if (strstr(op->name, "route")) return (double)T * (double)(s->E * s->K);
    if (strchr(op->keys, 'F') && op->keys[0] == 'E') return rows * HU;
    return rows * (double)s->H;
}
