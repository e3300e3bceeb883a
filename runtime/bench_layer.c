/* Forward and backward through moec.h on cold weights, and what they could take at best: the sum of
 * the bounds of their kernels, combine counted for both passes.
 *
 * On a GPU as published figures are measured, because its clock follows the power of what ran before: half a
 * second of rest, then forward alone for half a second; again a rest, then both passes together; backward is
 * the difference. On a CPU the passes run in turn, each with its own time. */
#include "bench_layer.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "ceiling.h"

enum { MOST_RUNS = 512 };
static const double layer_seconds = 6, busy_seconds = 0.5;
static const long rest_nanoseconds = 500000000;

typedef struct passes {
    bench_data *data;
    moec_layer *layer;
    moec_forward forward;
    moec_backward backward;
    bench_buffer *w1, *w2, *shared_w1, *shared_w2;
    moec_error *err;
    moec_status rc;
} passes;

static bench_buffer *get(passes *p, const char *name, moec_arg_type type, int64_t n, int sets) {
    bench_buffer *b = NULL;
    if (!p->rc)
        p->rc = bench_buffer_get(p->data, name, type, (size_t)n * moec_type_bytes(type), sets, &b, p->err);
    return p->rc ? NULL : b;
}

static void *one(passes *p, const char *name, moec_arg_type type, int64_t n) {
    bench_buffer *b = get(p, name, type, n, 1);
    return b ? b->at[0] : NULL;
}

static void use_weights(passes *p, int turn) {
    bool shared = p->data->spec->shared != 0;
    moec_weights *w = &p->forward.weights;
    w->w1 = p->w1->at[turn % p->w1->sets];
    w->w2 = p->w2->at[turn % p->w2->sets];
    if (shared) w->shared_w1 = p->shared_w1->at[turn % p->shared_w1->sets];
    if (shared) w->shared_w2 = p->shared_w2->at[turn % p->shared_w2->sets];
    p->backward.weights = *w;
}

static moec_status prepare(passes *p) {
    bench_data *d = p->data;
    const moec_spec *s = d->spec;
    moec_arg_type act = s->dtype == MOEC_BF16 ? MOEC_T_BF16 : MOEC_T_F32;
    moec_arg_type grad = s->wgrad == MOEC_WGRAD_F32 ? MOEC_T_F32 : act;
    int64_t T = d->T, U = moec_spec_U(s), SU = moec_spec_gated(s) ? 2 * s->shared : s->shared;
    moec_forward *f = &p->forward;
    moec_backward *b = &p->backward;
    p->w1 = get(p, "w1", act, s->E * U * s->H, 0);
    p->w2 = get(p, "w2", act, s->E * s->H * s->F, 0);
    if (s->shared) p->shared_w1 = get(p, "w1.shared", act, SU * s->H, 0);
    if (s->shared) p->shared_w2 = get(p, "w2.shared", act, s->H * s->shared, 0);
    if (s->bias) f->weights.b1 = one(p, "b1", act, s->E * U), f->weights.b2 = one(p, "b2", act, s->E * s->H);
    f->T = b->T = T;
    f->x = b->x = one(p, "x", act, T * s->H);
    f->logits = b->logits = one(p, "logits", MOEC_T_F32, T * s->E);
    f->out = one(p, "out", act, T * s->H);
    b->dout = one(p, "dout", act, T * s->H);
    b->dx = one(p, "dx", act, T * s->H);
    b->dw1 = one(p, "dw1", grad, s->E * U * s->H);
    b->dw2 = one(p, "dw2", grad, s->E * s->H * s->F);
    if (s->bias) b->db1 = one(p, "db1", grad, s->E * U), b->db2 = one(p, "db2", grad, s->E * s->H);
    if (s->shared) b->dshared_w1 = one(p, "dw1.shared", grad, SU * s->H);
    if (s->shared) b->dshared_w2 = one(p, "dw2.shared", grad, s->H * s->shared);
    b->dlogits = one(p, "dlogits", MOEC_T_F32, T * s->E);
    size_t saved = moec_layer_saved_bytes(p->layer, T), workspace = moec_layer_workspace_bytes(p->layer, T);
    f->saved = one(p, "saved", MOEC_T_BYTE, (int64_t)saved);
    b->saved = f->saved;
    f->workspace = b->workspace = one(p, "workspace", MOEC_T_BYTE, (int64_t)workspace);
    b->aux_coef = 0.01;
    b->z_coef = 0.001;
    return p->rc;
}

static int compare(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(double *values, int n) {
    qsort(values, (size_t)n, sizeof *values, compare);
    return values[n / 2];
}

static moec_status run_once(passes *p, int turn, bool backward, double *seconds) {
    double start = moec_seconds();
    use_weights(p, turn);
    MOEC_TRY(moec_layer_forward(p->layer, &p->forward, p->err));
    if (backward) MOEC_TRY(moec_layer_backward(p->layer, &p->backward, p->err));
    MOEC_TRY(moec_synchronize(p->data->device, NULL, p->err));
    *seconds = moec_seconds() - start;
    return MOEC_OK;
}

/* Median of runs back to back: at least `repeat`, and for half a second. */
static moec_status time_alone(passes *p, bool backward, double *ms) {
    double seconds[MOST_RUNS], warm;
    int runs = 0, repeat = p->data->options->repeat;
    nanosleep(&(struct timespec){.tv_nsec = rest_nanoseconds}, NULL);
    MOEC_TRY(run_once(p, 0, backward, &warm));
    double begin = moec_seconds(), passed = 0;
    while (runs < MOST_RUNS && (runs < 3 || passed < busy_seconds || (runs < repeat && passed < layer_seconds))) {
        MOEC_TRY(run_once(p, runs + 1, backward, &seconds[runs]));
        runs++;
        passed = moec_seconds() - begin;
    }
    *ms = 1e3 * median(seconds, runs);
    return MOEC_OK;
}

static moec_status time_in_turn(passes *p, double *forward_ms, double *backward_ms) {
    bench_data *d = p->data;
    double forward[MOST_RUNS], backward[MOST_RUNS], begin = moec_seconds();
    int runs = 0, repeat = d->options->repeat < MOST_RUNS ? d->options->repeat : MOST_RUNS;
    for (int turn = 0; runs < repeat && (runs < 3 || moec_seconds() - begin < layer_seconds); turn++) {
        MOEC_TRY(run_once(p, turn, false, &forward[runs]));
        double middle = moec_seconds();
        MOEC_TRY(moec_layer_backward(p->layer, &p->backward, p->err));
        MOEC_TRY(moec_synchronize(d->device, NULL, p->err));
        backward[runs] = moec_seconds() - middle;
        runs += turn > 0; /* the first turn warms up */
    }
    *forward_ms = 1e3 * median(forward, runs);
    *backward_ms = 1e3 * median(backward, runs);
    return MOEC_OK;
}

static moec_status time_passes(passes *p, double *forward_ms, double *backward_ms, bool *difference) {
    *difference = false;
    if (!strcmp(p->data->device->target->family, "cpu")) return time_in_turn(p, forward_ms, backward_ms);
    MOEC_TRY(time_alone(p, false, forward_ms));
    MOEC_TRY(time_alone(p, true, backward_ms));
    *backward_ms -= *forward_ms;
    if (*backward_ms <= 0) return time_in_turn(p, forward_ms, backward_ms); /* too short for a difference */
    *difference = true;
    return MOEC_OK;
}

/* What the router chose last becomes the caller's choice: route only sorts then, route_bwd rests. */
static moec_status give_choice(passes *p) {
    bench_data *d = p->data;
    moec_routing chosen;
    int64_t slots = d->T * d->spec->K;
    void *expert = one(p, "given.expert", MOEC_T_I32, slots), *weight = one(p, "given.weight", MOEC_T_F32, slots);
    p->backward.dweight = one(p, "given.dweight", MOEC_T_F32, slots);
    if (p->rc) return p->rc;
    moec_layer_routing(p->layer, p->forward.saved, d->T, &chosen);
    MOEC_TRY(moec_device_copy(d->device, NULL, expert, chosen.expert, (size_t)slots * sizeof(int32_t), p->err));
    MOEC_TRY(moec_device_copy(d->device, NULL, weight, chosen.weight, (size_t)slots * sizeof(float), p->err));
    p->forward.logits = p->backward.logits = NULL;
    p->backward.dlogits = NULL;
    p->forward.expert = expert;
    p->forward.weight = weight;
    return MOEC_OK;
}

static double gemm_flops(const moec_bench *bench, const moec_spec *s, int64_t T) {
    double wide = (double)(moec_spec_U(s) + s->F);
    double shared = (moec_spec_gated(s) ? 3 : 2) * (double)s->shared;
    return 2 * (double)s->H * ((double)bench->rows * wide + (double)T * shared);
}

static void add_up(const moec_bench *bench, moec_bench_layer *out) {
    for (int i = 0; i < bench->count; i++) {
        const moec_bench_row *row = &bench->row[i];
        double times = strcmp(row->name, "combine") ? 1 : 2;
        out->flops += times * row->flops;
        out->kernels_ms += times * row->ms;
        out->bound_ms += times * row->bound_ms;
    }
}

moec_status bench_layer(bench_data *d, moec_bench *bench, moec_error *err) {
    char text[MOEC_SPEC_BYTES];
    passes p = {.data = d, .err = err};
    moec_layer_options options = {.plan = d->options->plan, .tokens_hint = d->T,
                                  .column_blocks = d->options->column_blocks};
    moec_spec_print(d->spec, NULL, text, sizeof text);
    MOEC_TRY(moec_layer_create(d->device, text, &options, &p.layer, err));
    moec_status rc = prepare(&p);
    moec_bench_layer *out = &bench->layer;
    if (!rc) rc = time_passes(&p, &out->forward_ms, &out->backward_ms, &out->difference);
    if (!rc) rc = give_choice(&p);
    if (!rc) rc = time_passes(&p, &out->given_forward_ms, &out->given_backward_ms, &(bool){false});
    out->gemm_flops = gemm_flops(bench, d->spec, d->T);
    bench->layer.saved_bytes = moec_layer_saved_bytes(p.layer, d->T);
    bench->layer.workspace_bytes = moec_layer_workspace_bytes(p.layer, d->T);
    bench->layer.measured = !rc;
    if (!d->options->ops) add_up(bench, &bench->layer);
    moec_layer_free(p.layer);
    return rc ? moec_context(err, rc, "bench of the layer") : MOEC_OK;
}
