/* layer: one MoE layer, forward and backward, on any device.
 *
 * The kernels are a table of rows (layer.h); what runs, with which buffers, is two straight lists
 * of launches below. Between forward and backward live only the routing and Hpre (`saved`); every
 * other buffer is placed in the caller's workspace by one plan per pass, whose stages are the rows.
 * With column blocks, down and dx make a block of the columns of H at a time, and combine takes it from
 * there to its columns of the output: each element is the same sum as without.
 * Nothing here allocates, compiles or opens a file after moec_layer_create. */
#include "layer.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "plan.h"
#include "region.h"
#include "routing.h"

struct moec_layer {
    moec_device *device;
    moec_spec spec;
    bool recompute, inference;
    int64_t columns;                    /* of a block of down, dx and combine: H when there is one block */
    moec_module *modules[MOEC_L_COUNT]; /* NULL where the layer has no such kernel */
};

/* ---- the rows ---- */

static const moec_layer_row rows[MOEC_L_COUNT] = {
    /*                       name           op                 shared backward bias */
    [MOEC_L_ROUTE]       = {"route",        MOEC_OP_route,     false, false, false},
    [MOEC_L_SHARED_UP]   = {"shared.up",    MOEC_OP_up,        true,  false, false},
    [MOEC_L_SHARED_DOWN] = {"shared.down",  MOEC_OP_down,      true,  false, false},
    [MOEC_L_UP]          = {"up",           MOEC_OP_up,        false, false, false},
    [MOEC_L_DOWN]        = {"down",         MOEC_OP_down,      false, false, false},
    [MOEC_L_COMBINE]     = {"combine",      MOEC_OP_combine,   false, false, false},
    [MOEC_L_DH]          = {"dh",           MOEC_OP_dh,        false, true,  false},
    [MOEC_L_DW2]         = {"dw2",          MOEC_OP_dw2,       false, true,  false},
    [MOEC_L_DB2]         = {"db2",          MOEC_OP_db2,       false, true,  true},
    [MOEC_L_DW1]         = {"dw1",          MOEC_OP_dw1,       false, true,  false},
    [MOEC_L_DB1]         = {"db1",          MOEC_OP_db1,       false, true,  true},
    [MOEC_L_SHARED_DH]   = {"shared.dh",    MOEC_OP_dh,        true,  true,  false},
    [MOEC_L_SHARED_DW2]  = {"shared.dw2",   MOEC_OP_dw2,       true,  true,  false},
    [MOEC_L_SHARED_DW1]  = {"shared.dw1",   MOEC_OP_dw1,       true,  true,  false},
    [MOEC_L_SHARED_DX]   = {"shared.dx",    MOEC_OP_dx,        true,  true,  false},
    [MOEC_L_DX]          = {"dx",           MOEC_OP_dx,        false, true,  false},
    [MOEC_L_ROUTE_BWD]   = {"route_bwd",    MOEC_OP_route_bwd, false, true,  false},
};

const moec_layer_row *moec_layer_row_at(moec_layer_slot slot) {
    return slot < MOEC_L_COUNT ? &rows[slot] : NULL;
}

bool moec_layer_row_is(const char *name, size_t length) {
    for (moec_layer_slot i = 0; i < MOEC_L_COUNT; i++) {
        const char *row = moec_layer_row_at(i)->name;
        if (strlen(row) == length && !memcmp(row, name, length)) return true;
    }
    return false;
}

bool moec_layer_row_used(const moec_layer_row *row, const moec_spec *spec) {
    return (!row->shared || spec->shared) && (!row->bias || spec->bias);
}

moec_spec moec_layer_row_spec(const moec_layer_row *row, const moec_spec *spec) {
    moec_spec s = *spec;
    if (!row->shared) return s;
    s.E = s.K = 1;
    s.F = s.shared;
    s.shared = s.bias = 0;
    return s;
}

/* ---- creation ---- */

static bool in_blocks(moec_layer_slot slot) {
    return slot == MOEC_L_DOWN || slot == MOEC_L_COMBINE || slot == MOEC_L_DX;
}

/* Columns of a block when `blocks` are asked for: H divided by the largest number up to that which
 * leaves multiples of 8. */
static int64_t block_columns(int64_t H, int blocks) {
    int64_t n = blocks < 1 ? 1 : blocks < H / 8 ? blocks : H / 8;
    while (H / 8 % n) n--;
    return H / n;
}

static bool has_row(const moec_layer *layer, const moec_layer_row *row) {
    return moec_layer_row_used(row, &layer->spec) && !(layer->inference && row->backward);
}

static moec_status fill_requests(moec_layer *layer, const moec_layer_options *options,
                                 const moec_plan *plan, moec_spec *specs, moec_config *configs,
                                 moec_request *requests, moec_error *err) {
    for (int i = 0, n = 0; i < MOEC_L_COUNT; i++) {
        const moec_layer_row *row = &rows[i];
        char text[512];
        if (!has_row(layer, row)) continue;
        specs[n] = moec_layer_row_spec(row, &layer->spec);
        if (in_blocks((moec_layer_slot)i) && layer->columns < layer->spec.H)
            specs[n].columns = layer->columns;
        requests[n] = (moec_request){.op = moec_op_get(row->op),
                                     .spec = &specs[n],
                                     .target = layer->device->target,
                                     .tokens = options->tokens_hint};
        if (moec_plan_find(plan, row->name, text, sizeof text)) {
            moec_status rc =
                moec_device_config(layer->device, &requests[n], text, &configs[n], err);
            if (rc) return moec_context(err, rc, "plan %s, line %s", options->plan, row->name);
            requests[n].config = &configs[n];
        }
        n++;
    }
    return MOEC_OK;
}

static int used_rows(const moec_layer *layer) {
    int n = 0;
    for (int i = 0; i < MOEC_L_COUNT; i++) n += has_row(layer, &rows[i]);
    return n;
}

static moec_status create_modules(moec_layer *layer, const moec_layer_options *options,
                                  moec_error *err) {
    struct work {
        moec_spec specs[MOEC_L_COUNT];
        moec_config configs[MOEC_L_COUNT];
        moec_request requests[MOEC_L_COUNT];
        moec_module *modules[MOEC_L_COUNT];
    } *w = calloc(1, sizeof *w);
    if (!w) return moec_fail(err, MOEC_E_NOMEM, "out of memory: layer requests");
    moec_plan plan;
    moec_status rc = moec_plan_read(options->plan, &layer->spec, layer->device->target, &plan, err);
    if (!rc) rc = fill_requests(layer, options, &plan, w->specs, w->configs, w->requests, err);
    if (!rc)
        rc = moec_module_create_all(layer->device, w->requests, used_rows(layer), w->modules, err);
    for (int i = 0, n = 0; i < MOEC_L_COUNT && !rc; i++)
        if (has_row(layer, &rows[i])) layer->modules[i] = w->modules[n++];
    moec_plan_free(&plan);
    free(w);
    return rc;
}

moec_status moec_layer_create(moec_device *device, const char *spec,
                              const moec_layer_options *options, moec_layer **out,
                              moec_error *err) {
    moec_layer_options none = {0};
    *out = NULL;
    if (!options) options = &none;
    moec_layer *layer = calloc(1, sizeof *layer);
    if (!layer) return moec_fail(err, MOEC_E_NOMEM, "out of memory: layer");
    moec_count(MOEC_COUNT_ALLOC);
    layer->device = device;
    layer->recompute = options->recompute != 0;
    layer->inference = options->inference != 0;
    moec_status rc = moec_spec_parse(spec, &layer->spec, err);
    if (!rc && layer->spec.columns)
        rc = moec_fail(err, MOEC_E_SPEC, "columns= is for single kernels; a layer takes column_blocks");
    layer->columns = block_columns(layer->spec.H, options->column_blocks);
    if (!rc) rc = create_modules(layer, options, err);
    if (rc) moec_layer_free(layer);
    else *out = layer;
    return rc;
}

void moec_layer_free(moec_layer *layer) {
    if (!layer) return;
    for (int i = 0; i < MOEC_L_COUNT; i++) moec_module_free(layer->device, layer->modules[i]);
    free(layer);
}

/* ---- saved: routing, then Hpre [R][U], then the shared expert's Hpre [T][U_s] ---- */

typedef struct saved { moec_routing routing; void *hpre, *shared_hpre; size_t bytes; } saved;

static size_t act_bytes(const moec_spec *s) { return s->dtype == MOEC_BF16 ? 2 : 4; }

static size_t shared_U(const moec_spec *s) {
    return (size_t)(moec_spec_gated(s) ? 2 * s->shared : s->shared);
}

static saved saved_at(const moec_layer *layer, int64_t T, const void *base) {
    const moec_spec *s = &layer->spec;
    saved v = {0};
    moec_region r = {0};
    char *at = (char *)(uintptr_t)base;
    size_t keep = layer->recompute ? 0 : act_bytes(s);
    moec_region_add(&r, moec_routing_place(s, T, at, &v.routing), 0, 0);
    int hpre = moec_region_add(&r, (size_t)(T * s->K * moec_spec_U(s)) * keep, 0, 0);
    int shared_hpre = moec_region_add(&r, (size_t)T * shared_U(s) * keep, 0, 0);
    v.hpre = keep ? moec_region_at(&r, at, hpre) : NULL;
    v.shared_hpre = keep && s->shared ? moec_region_at(&r, at, shared_hpre) : NULL;
    v.bytes = r.bytes;
    return v;
}

size_t moec_layer_saved_bytes(const moec_layer *layer, int64_t T) {
    return saved_at(layer, T, NULL).bytes;
}

void moec_layer_routing(const moec_layer *layer, const void *base, int64_t T,
                        moec_routing *routing) {
    *routing = saved_at(layer, T, base).routing;
}

/* ---- workspace: one plan per pass; the stages are the rows of the table ---- */

enum { NONE = -1 };

typedef struct forward_plan {
    moec_region region;
    int routing, shared_a, a, y, scratch[MOEC_L_COUNT];
} forward_plan;

typedef struct backward_plan {
    moec_region region;
    int hpre, a_w, dhpre, dx_row, dweight, shared_hpre, shared_a_w, shared_dhpre;
    int scratch[MOEC_L_COUNT];
} backward_plan;

static moec_status add_scratch(const moec_layer *layer, moec_region *r, int64_t T, bool backward,
                               int scratch[MOEC_L_COUNT], moec_error *err) {
    for (int i = 0; i < MOEC_L_COUNT; i++) {
        bool again = layer->recompute && (i == MOEC_L_UP || i == MOEC_L_SHARED_UP);
        size_t bytes = 0;
        scratch[i] = NONE;
        if (!layer->modules[i]) continue;
        if (rows[i].backward != backward && !(backward && (again || i == MOEC_L_COMBINE))) continue;
        int64_t R = rows[i].shared ? T : T * layer->spec.K;
        MOEC_TRY(moec_module_scratch(layer->device, layer->modules[i], T, R, 0, &bytes, err));
        if (!bytes) continue;
        /* In backward, recomputed kernels and combine run between the rows: alive all the time. */
        bool between = rows[i].backward != backward;
        scratch[i] = moec_region_add(r, bytes, between ? 0 : i, between ? MOEC_L_COUNT : i);
    }
    return MOEC_OK;
}

static moec_status plan_forward(const moec_layer *layer, int64_t T, bool inference, forward_plan *p,
                                moec_error *err) {
    const moec_spec *s = &layer->spec;
    moec_routing routing;
    size_t e = act_bytes(s), R = (size_t)(T * s->K);
    *p = (forward_plan){.routing = NONE, .shared_a = NONE};
    if (inference)
        p->routing = moec_region_add(&p->region, moec_routing_place(s, T, NULL, &routing),
                                     MOEC_L_ROUTE, MOEC_L_COMBINE);
    if (s->shared)
        p->shared_a = moec_region_add(&p->region, (size_t)(T * s->shared) * e, MOEC_L_SHARED_UP,
                                      MOEC_L_SHARED_DOWN);
    p->a = moec_region_add(&p->region, R * (size_t)s->F * e, MOEC_L_UP, MOEC_L_DOWN);
    p->y = moec_region_add(&p->region, R * (size_t)layer->columns * e, MOEC_L_DOWN, MOEC_L_COMBINE);
    return add_scratch(layer, &p->region, T, false, p->scratch, err);
}

static moec_status plan_backward(const moec_layer *layer, int64_t T, backward_plan *p,
                                 moec_error *err) {
    const moec_spec *s = &layer->spec;
    moec_region *r = &p->region;
    size_t e = act_bytes(s), R = (size_t)(T * s->K), S = (size_t)(T * s->shared);
    size_t hpre = R * (size_t)moec_spec_U(s) * e, shared_hpre = (size_t)T * shared_U(s) * e;
    *p = (backward_plan){
        .hpre = NONE, .shared_hpre = NONE, .shared_a_w = NONE, .shared_dhpre = NONE};
    if (layer->recompute) p->hpre = moec_region_add(r, hpre, MOEC_L_DH, MOEC_L_DH);
    p->dweight = moec_region_add(r, R * sizeof(float), MOEC_L_DH, MOEC_L_ROUTE_BWD);
    p->a_w = moec_region_add(r, R * (size_t)s->F * e, MOEC_L_DH, MOEC_L_DW2);
    p->dhpre = moec_region_add(r, hpre, MOEC_L_DH, MOEC_L_DX);
    p->dx_row = moec_region_add(r, R * (size_t)layer->columns * e, MOEC_L_DX, MOEC_L_ROUTE_BWD);
    if (s->shared) {
        if (layer->recompute)
            p->shared_hpre = moec_region_add(r, shared_hpre, MOEC_L_SHARED_DH, MOEC_L_SHARED_DH);
        p->shared_a_w = moec_region_add(r, S * e, MOEC_L_SHARED_DH, MOEC_L_SHARED_DW2);
        p->shared_dhpre = moec_region_add(r, shared_hpre, MOEC_L_SHARED_DH, MOEC_L_SHARED_DX);
    }
    return add_scratch(layer, r, T, true, p->scratch, err);
}

size_t moec_layer_workspace_bytes(const moec_layer *layer, int64_t T) {
    forward_plan f;
    backward_plan b;
    if (plan_forward(layer, T, true, &f, NULL)) return 0;
    if (layer->inference) return f.region.bytes;
    if (plan_backward(layer, T, &b, NULL)) return 0;
    return f.region.bytes > b.region.bytes ? f.region.bytes : b.region.bytes;
}

/* ---- running ---- */

/* One pass: what every launch of it shares. */
typedef struct pass {
    moec_layer *layer;
    void *stream, *workspace;
    const moec_region *region;
    const int *scratch;
    int64_t T;
    moec_error *err;
} pass;

static moec_status run(const pass *p, moec_layer_slot slot, const moec_arg *args) {
    int64_t R = rows[slot].shared ? p->T : p->T * p->layer->spec.K;
    void *scratch = moec_region_at(p->region, p->workspace, p->scratch[slot]);
    moec_status rc = moec_module_launch(p->layer->device, p->stream, p->layer->modules[slot], args,
                                        p->T, R, 0, scratch, p->err);
    return rc ? moec_context(p->err, rc, "layer kernel %s", rows[slot].name) : MOEC_OK;
}

#define RUN(pass, slot, ...) MOEC_TRY(run(pass, slot, (const moec_arg[]){__VA_ARGS__}))
#define P(pointer) {.cptr = (pointer)}
#define I(value)   {.i64 = (value)}
#define D(value)   {.f64 = (value)}

static moec_status check_T(const moec_layer *layer, int64_t T, moec_error *err) {
    int64_t most = moec_routing_most_tokens(&layer->spec);
    if (T >= 0 && T <= most) return MOEC_OK;
    return moec_fail(err, MOEC_E_INVAL, "T=%" PRId64 " is not from 0 to %" PRId64
                     " (rows are numbered by 32-bit integers)", T, most);
}

static moec_status need(const void *pointer, bool needed, const char *name, moec_error *err) {
    if (pointer || !needed) return MOEC_OK;
    return moec_fail(err, MOEC_E_INVAL, "%s is NULL, but this spec needs it", name);
}

static moec_status check_weights(const moec_spec *s, const moec_weights *w, moec_error *err) {
    MOEC_TRY(need(w->w1, true, "weights.w1", err));
    MOEC_TRY(need(w->w2, true, "weights.w2", err));
    MOEC_TRY(need(w->b1, s->bias, "weights.b1", err));
    MOEC_TRY(need(w->b2, s->bias, "weights.b2", err));
    MOEC_TRY(need(w->shared_w1, s->shared, "weights.shared_w1", err));
    return need(w->shared_w2, s->shared, "weights.shared_w2", err);
}

static moec_status check_block(const void *block, size_t bytes, const char *name, moec_error *err) {
    if (bytes && !block)
        return moec_fail(err, MOEC_E_INVAL, "%s is NULL, %zu bytes are needed", name, bytes);
    if ((uintptr_t)block % MOEC_REGION_ALIGN)
        return moec_fail(err, MOEC_E_INVAL, "%s is not aligned to %d bytes", name,
                         MOEC_REGION_ALIGN);
    return MOEC_OK;
}

static moec_status check_forward(const moec_layer *layer, const moec_forward *c, moec_error *err) {
    MOEC_TRY(check_T(layer, c->T, err));
    if (!c->T) return MOEC_OK;
    MOEC_TRY(need(c->x, true, "x", err));
    MOEC_TRY(need(c->out, true, "out", err));
    MOEC_TRY(need(c->expert, !c->logits, "expert (logits is NULL)", err));
    MOEC_TRY(need(c->weight, !c->logits, "weight (logits is NULL)", err));
    return check_weights(&layer->spec, &c->weights, err);
}

/* route sorts in place, so experts and weights that the caller chose are copied first. */
static moec_status copy_choice(const pass *p, const moec_forward *c, const moec_routing *g) {
    size_t slots = (size_t)(c->T * p->layer->spec.K);
    if (c->logits) return MOEC_OK;
    MOEC_TRY(moec_device_copy(p->layer->device, p->stream, (void *)(uintptr_t)g->expert, c->expert,
                              slots * sizeof(int32_t), p->err));
    return moec_device_copy(p->layer->device, p->stream, (void *)(uintptr_t)g->weight, c->weight,
                            slots * sizeof(float), p->err);
}

/* Column h of the first row of an array of the layer's type. */
static const void *column(const pass *p, const void *array, int64_t h) {
    return array ? (const char *)array + (size_t)h * act_bytes(&p->layer->spec) : NULL;
}

/* One block of columns after the other through y. Without tokens there is no column to point at. */
static moec_status run_down(const pass *p, const moec_forward *c, const moec_routing *g, void *a, void *y) {
    const moec_spec *s = &p->layer->spec;
    bool shared = s->shared != 0;
    for (int64_t h = 0; h < s->H && c->T; h += p->layer->columns) {
        const void *out = column(p, c->out, h);
        RUN(p, MOEC_L_DOWN, P(a), P(column(p, c->weights.w2, h * s->F)), P(column(p, c->weights.b2, h)),
            P(g->offsets), P(y), I(c->T));
        RUN(p, MOEC_L_COMBINE, P(y), P(g->weight), P(g->slot_row), P(shared ? out : NULL), P(out), I(c->T));
    }
    return MOEC_OK;
}

static moec_status run_forward(const pass *p, const moec_forward *c, const saved *v, void *shared_a,
                               void *a, void *y) {
    const moec_routing *g = &v->routing;
    const moec_weights *w = &c->weights;
    bool shared = p->layer->spec.shared != 0;
    MOEC_TRY(copy_choice(p, c, g));
    RUN(p, MOEC_L_ROUTE, P(c->logits), P(c->sel_bias), P(g->expert), P(g->weight), P(g->offsets),
        P(g->row_slot), P(g->slot_row), P(g->load), P(g->prob_sum), P(g->z_sum), I(c->T));
    if (shared) { /* its output waits in `out`, combine adds to it */
        RUN(p, MOEC_L_SHARED_UP, P(c->x), P(w->shared_w1), P(NULL), P(NULL), P(NULL),
            P(v->shared_hpre), P(shared_a), I(c->T));
        RUN(p, MOEC_L_SHARED_DOWN, P(shared_a), P(w->shared_w2), P(NULL), P(NULL), P(c->out),
            I(c->T));
    }
    RUN(p, MOEC_L_UP, P(c->x), P(w->w1), P(w->b1), P(g->offsets), P(g->row_slot), P(v->hpre), P(a),
        I(c->T));
    return run_down(p, c, g, a, y);
}

moec_status moec_layer_forward(moec_layer *layer, const moec_forward *c, moec_error *err) {
    forward_plan plan;
    MOEC_TRY(check_forward(layer, c, err));
    MOEC_TRY(plan_forward(layer, c->T, !c->saved, &plan, err));
    MOEC_TRY(check_block(c->workspace, plan.region.bytes, "workspace", err));
    MOEC_TRY(check_block(c->saved, 0, "saved", err));
    pass p = {.layer = layer, .stream = c->stream, .workspace = c->workspace,
              .region = &plan.region, .scratch = plan.scratch, .T = c->T, .err = err};
    saved v = {0};
    if (c->saved) v = saved_at(layer, c->T, c->saved);
    else
        moec_routing_place(&layer->spec, c->T,
                           moec_region_at(&plan.region, c->workspace, plan.routing), &v.routing);
    return run_forward(&p, c, &v, moec_region_at(&plan.region, c->workspace, plan.shared_a),
                       moec_region_at(&plan.region, c->workspace, plan.a),
                       moec_region_at(&plan.region, c->workspace, plan.y));
}

/* ---- backward ---- */

static moec_status check_backward(const moec_layer *layer, const moec_backward *c,
                                  moec_error *err) {
    const moec_spec *s = &layer->spec;
    if (layer->inference)
        return moec_fail(err, MOEC_E_INVAL,
                         "the layer was created with options.inference: it has no backward");
    MOEC_TRY(check_T(layer, c->T, err));
    MOEC_TRY(need(c->dw1, true, "dw1", err));
    MOEC_TRY(need(c->dw2, true, "dw2", err));
    MOEC_TRY(need(c->db1, s->bias, "db1", err));
    MOEC_TRY(need(c->db2, s->bias, "db2", err));
    MOEC_TRY(need(c->dshared_w1, s->shared, "dshared_w1", err));
    MOEC_TRY(need(c->dshared_w2, s->shared, "dshared_w2", err));
    MOEC_TRY(need(c->saved, true, "saved", err)); /* T=0 too: it says that no expert has rows */
    if (!c->T) return MOEC_OK;
    MOEC_TRY(need(c->x, true, "x", err));
    MOEC_TRY(need(c->dout, true, "dout", err));
    MOEC_TRY(need(c->dx, true, "dx", err));
    MOEC_TRY(need(c->dlogits, c->logits != NULL, "dlogits (logits is given)", err));
    MOEC_TRY(need(c->dweight, !c->logits, "dweight (logits is NULL)", err));
    return check_weights(s, &c->weights, err);
}

/* The routed experts: gradients of weights and of Hpre. */
static moec_status run_routed(const pass *p, const moec_backward *c, const saved *v,
                              const backward_plan *plan, float *dweight) {
    const moec_routing *g = &v->routing;
    const moec_weights *w = &c->weights;
    void *a_w = moec_region_at(p->region, p->workspace, plan->a_w);
    void *dhpre = moec_region_at(p->region, p->workspace, plan->dhpre);
    void *hpre = v->hpre;
    int64_t beta = c->accumulate != 0;
    if (p->layer->recompute) {
        hpre = moec_region_at(p->region, p->workspace, plan->hpre);
        RUN(p, MOEC_L_UP, P(c->x), P(w->w1), P(w->b1), P(g->offsets), P(g->row_slot), P(hpre),
            P(a_w), I(c->T));
    }
    RUN(p, MOEC_L_DH, P(c->dout), P(w->w2), P(w->b2), P(hpre), P(g->weight), P(g->offsets),
        P(g->row_slot), P(dhpre), P(a_w), P(dweight), P(g->slot_row), I(c->T));
    RUN(p, MOEC_L_DW2, P(c->dout), P(a_w), P(g->offsets), P(g->row_slot), P(c->dw2), I(beta),
        I(c->T));
    if (p->layer->spec.bias)
        RUN(p, MOEC_L_DB2, P(c->dout), P(g->weight), P(g->offsets), P(g->row_slot), P(c->db2),
            I(beta), I(c->T));
    RUN(p, MOEC_L_DW1, P(dhpre), P(c->x), P(g->offsets), P(g->row_slot), P(c->dw1), I(beta),
        I(c->T));
    if (p->layer->spec.bias)
        RUN(p, MOEC_L_DB1, P(dhpre), P(g->offsets), P(c->db1), I(beta), I(c->T));
    return MOEC_OK;
}

/* The shared expert: one dense group without routing; its dx goes to `dx`, where combine adds. */
static moec_status run_shared(const pass *p, const moec_backward *c, const saved *v,
                              const backward_plan *plan) {
    const moec_weights *w = &c->weights;
    void *a_w = moec_region_at(p->region, p->workspace, plan->shared_a_w);
    void *dhpre = moec_region_at(p->region, p->workspace, plan->shared_dhpre);
    void *hpre = v->shared_hpre;
    int64_t beta = c->accumulate != 0;
    if (p->layer->recompute) {
        hpre = moec_region_at(p->region, p->workspace, plan->shared_hpre);
        RUN(p, MOEC_L_SHARED_UP, P(c->x), P(w->shared_w1), P(NULL), P(NULL), P(NULL), P(hpre),
            P(a_w), I(c->T));
    }
    RUN(p, MOEC_L_SHARED_DH, P(c->dout), P(w->shared_w2), P(NULL), P(hpre), P(NULL), P(NULL),
        P(NULL), P(dhpre), P(a_w), P(NULL), P(NULL), I(c->T));
    RUN(p, MOEC_L_SHARED_DW2, P(c->dout), P(a_w), P(NULL), P(NULL), P(c->dshared_w2), I(beta),
        I(c->T));
    RUN(p, MOEC_L_SHARED_DW1, P(dhpre), P(c->x), P(NULL), P(NULL), P(c->dshared_w1), I(beta),
        I(c->T));
    RUN(p, MOEC_L_SHARED_DX, P(dhpre), P(w->shared_w1), P(NULL), P(c->dx), I(c->T));
    return MOEC_OK;
}

/* dx of the routed experts, one block of columns after the other through dx_row [R][block]. */
static moec_status run_dx(const pass *p, const moec_backward *c, const moec_routing *g,
                          const backward_plan *plan) {
    const moec_spec *s = &p->layer->spec;
    void *dhpre = moec_region_at(p->region, p->workspace, plan->dhpre);
    void *dx_row = moec_region_at(p->region, p->workspace, plan->dx_row);
    for (int64_t h = 0; h < s->H && c->T; h += p->layer->columns) {
        const void *dx = column(p, c->dx, h);
        RUN(p, MOEC_L_DX, P(dhpre), P(column(p, c->weights.w1, h)), P(g->offsets), P(dx_row), I(c->T));
        RUN(p, MOEC_L_COMBINE, P(dx_row), P(NULL), P(g->slot_row), P(s->shared ? dx : NULL), P(dx), I(c->T));
    }
    return MOEC_OK;
}

static moec_status run_backward(const pass *p, const moec_backward *c, const backward_plan *plan) {
    saved v = saved_at(p->layer, c->T, c->saved);
    const moec_routing *g = &v.routing;
    float *dweight =
        c->dweight ? c->dweight : moec_region_at(p->region, p->workspace, plan->dweight);
    MOEC_TRY(run_routed(p, c, &v, plan, dweight));
    if (p->layer->spec.shared) MOEC_TRY(run_shared(p, c, &v, plan));
    MOEC_TRY(run_dx(p, c, g, plan));
    if (c->logits)
        RUN(p, MOEC_L_ROUTE_BWD, P(c->logits), P(g->expert), P(g->weight), P(dweight), P(g->load),
            P(c->dlogits), D(c->aux_coef), D(c->z_coef), I(c->T));
    return MOEC_OK;
}

moec_status moec_layer_backward(moec_layer *layer, const moec_backward *c, moec_error *err) {
    backward_plan plan;
    MOEC_TRY(check_backward(layer, c, err));
    MOEC_TRY(plan_backward(layer, c->T, &plan, err));
    MOEC_TRY(check_block(c->workspace, plan.region.bytes, "workspace", err));
    MOEC_TRY(check_block(c->saved, 0, "saved", err));
    pass p = {.layer = layer, .stream = c->stream, .workspace = c->workspace,
              .region = &plan.region, .scratch = plan.scratch, .T = c->T, .err = err};
    return run_backward(&p, c, &plan);
}
