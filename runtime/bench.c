/* Times kernels one by one, each interleaved with its peers and a fresh ceiling.
 *
 * A round measures the compute ceiling, the kernel, then each peer once; the first round warms up
 * and is dropped. Rounds stop at `repeat` or when a row has taken its share of time. On a GPU a
 * sample is a run of launches between two synchronisations, long enough that their cost vanishes. */
#include "bench.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "bench_data.h"
#include "bench_layer.h"
#include "ceiling.h"

enum { MOST_RUNS = 256, FEWEST_RUNS = 3 };
static const double row_seconds = 4, gpu_sample_seconds = 2e-3;
static const long spin_nanoseconds = 25000000;

/* ---- statistics ---- */

static int compare(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double quantile(double *sorted, int n, double q) { return n ? sorted[(int)(q * (n - 1) + 0.5)] : 0; }

static double median(double *values, int n) {
    qsort(values, (size_t)n, sizeof *values, compare);
    return quantile(values, n, 0.5);
}

/* ---- one kernel ---- */

typedef struct subject {
    bench_data *data;
    const moec_op *op;
    moec_spec spec;
    bool dense, packed;        /* packed: rows lie one after the other, nothing is gathered */
    moec_module *module;
    void *scratch;
    int inner, turn;           /* launches of a sample; runs so far */
} subject;

/* The operand that is gathered by token becomes a buffer of R rows, read in order. */
static moec_status pack_rows(subject *s, moec_arg *args, moec_error *err) {
    int x = moec_op_arg(s->op, "x"), dout = moec_op_arg(s->op, "dout");
    bench_buffer *rows;
    moec_arg_type type = s->spec.dtype == MOEC_BF16 ? MOEC_T_BF16 : MOEC_T_F32;
    size_t bytes = (size_t)(s->data->R * s->spec.H) * moec_type_bytes(type);
    MOEC_TRY(bench_buffer_get(s->data, "packed", type, bytes, 1, &rows, err));
    args[x >= 0 ? x : dout].ptr = rows->at[0];
    args[moec_op_arg(s->op, "row_slot")].ptr = NULL;
    return MOEC_OK;
}

static moec_status launch(subject *s, moec_error *err) {
    moec_arg args[MOEC_MAX_ARGS];
    moec_sizes sizes = bench_sizes(s->data, &s->spec, s->dense);
    MOEC_TRY(bench_args(s->data, s->op, &s->spec, s->dense, s->turn++, args, err));
    if (s->packed) MOEC_TRY(pack_rows(s, args, err));
    return moec_module_launch(s->data->device, NULL, s->module, args, sizes.T, sizes.R, sizes.N, s->scratch,
                              err);
}

static moec_status sample(subject *s, double *seconds, moec_error *err) {
    double start = moec_seconds();
    for (int i = 0; i < s->inner; i++) MOEC_TRY(launch(s, err));
    MOEC_TRY(moec_synchronize(s->data->device, NULL, err));
    *seconds = (moec_seconds() - start) / s->inner;
    return MOEC_OK;
}

static moec_status prepare(subject *s, const char *config_text, moec_error *err) {
    bench_data *d = s->data;
    moec_request request = {.op = s->op, .spec = &s->spec, .tokens = d->T};
    moec_config config;
    moec_sizes sizes = bench_sizes(d, &s->spec, s->dense);
    bench_buffer *b;
    size_t bytes;
    double seconds;
    if (*config_text) MOEC_TRY(moec_device_config(d->device, &request, config_text, &config, err));
    MOEC_TRY(moec_module_create(d->device, s->op, &s->spec, *config_text ? &config : NULL, d->T, &s->module,
                                err));
    MOEC_TRY(moec_module_scratch(d->device, s->module, sizes.T, sizes.R, sizes.N, &bytes, err));
    if (bytes) MOEC_TRY(bench_buffer_get(d, "scratch", MOEC_T_F32, bytes, 1, &b, err));
    s->scratch = bytes ? b->at[0] : NULL;
    s->inner = 1;
    MOEC_TRY(sample(s, &seconds, err));
    if (!strcmp(d->device->target->family, "cpu")) return MOEC_OK;
    MOEC_TRY(sample(s, &seconds, err));
    s->inner = seconds > gpu_sample_seconds ? 1 : (int)(gpu_sample_seconds / (seconds + 1e-9)) + 1;
    if (s->inner > 1000) s->inner = 1000;
    return MOEC_OK;
}

/* Cost of this batch: the kernel's own formulas with the rows that experts really have. */
static moec_status cost(const subject *s, moec_bench_row *row, moec_error *err) {
    moec_sizes sizes = bench_sizes(s->data, &s->spec, s->dense);
    const moec_kernel *k = &s->module->kernel;
    int64_t flops, bytes;
    if (!s->dense) sizes.R = s->data->offsets[s->data->spec->E];
    double sequences = 1; /* attention's formula is that of one sequence */
    if (moec_op_arg(s->op, "seq") >= 0 && strstr(k->flops, "T*T")) {
        sequences = (double)sizes.T / (double)bench_sequence(s->data);
        sizes.T = bench_sequence(s->data);
    }
    MOEC_TRY(moec_expr(k->flops, &sizes, &flops, err));
    sizes.T = s->data->T;
    MOEC_TRY(moec_expr(k->bytes, &sizes, &bytes, err));
    row->flops = sequences * (double)flops;
    row->bytes = (double)bytes;
    return MOEC_OK;
}

/* ---- its peers ---- */

typedef struct rival {
    const moec_peer *peer;
    void *plan, *out;
    bench_buffer *left, *right;
    int32_t dense_offsets[2];
} rival;

/* The plain product inside an op: kind, n, k in terms of the spec. */
static bool product_of(const moec_op *op, const moec_spec *spec, moec_peer_gemm *g) {
    const struct { moec_op_id op; moec_peer_kind kind; int64_t n, k; } rows[] = {
        {MOEC_OP_up, MOEC_PEER_NT, moec_spec_U(spec), spec->H},
        {MOEC_OP_down, MOEC_PEER_NT, spec->H, spec->F},
        {MOEC_OP_dh, MOEC_PEER_NN, spec->F, spec->H},
        {MOEC_OP_dx, MOEC_PEER_NN, spec->H, moec_spec_U(spec)},
        {MOEC_OP_dw1, MOEC_PEER_TN, moec_spec_U(spec), spec->H},
        {MOEC_OP_dw2, MOEC_PEER_TN, spec->H, spec->F},
        {MOEC_OP_linear, MOEC_PEER_NT, spec->F, spec->H},
        {MOEC_OP_linear_dx, MOEC_PEER_NN, spec->H, spec->F},
        {MOEC_OP_linear_dw, MOEC_PEER_TN, spec->F, spec->H},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        if (rows[i].op != op->id) continue;
        g->kind = rows[i].kind, g->n = rows[i].n, g->k = rows[i].k;
        return spec->out == MOEC_OUT_SAME;
    }
    return false;
}

static moec_status rival_open(subject *s, rival *r, bool *takes, moec_error *err) {
    bench_data *d = s->data;
    moec_peer_gemm g = {.dtype = s->spec.dtype, .groups = 1, .threads = d->device->threads};
    bool grouped = moec_op_arg(s->op, "offsets") >= 0 && !s->dense;
    *takes = product_of(s->op, &s->spec, &g) && r->peer->takes(s->spec.dtype);
    if (!*takes) return MOEC_OK;
    r->dense_offsets[1] = (int32_t)d->T;
    g.offsets = grouped ? d->offsets : r->dense_offsets;
    if (grouped) g.groups = (int)d->spec->E;
    moec_arg_type type = g.dtype == MOEC_BF16 ? MOEC_T_BF16 : MOEC_T_F32;
    size_t rows = (size_t)g.offsets[g.groups], e = moec_type_bytes(type);
    bool reduce = g.kind == MOEC_PEER_TN;
    bench_buffer *out;
    MOEC_TRY(r->peer->plan(&g, &r->plan, err));
    size_t weights = r->peer->weight_bytes(r->plan);
    size_t result = reduce ? (size_t)g.groups * (size_t)(g.n * g.k) * 4 : rows * (size_t)g.n * e;
    MOEC_TRY(bench_buffer_get(d, "peer.left", type, rows * (size_t)(reduce ? g.n : g.k) * e, 1, &r->left, err));
    if (reduce) MOEC_TRY(bench_buffer_get(d, "peer.rows", type, rows * (size_t)g.k * e, 1, &r->right, err));
    else MOEC_TRY(bench_buffer_get(d, "w.peer", type, weights, 0, &r->right, err));
    MOEC_TRY(bench_buffer_get(d, "peer.out", MOEC_T_F32, result, 1, &out, err));
    r->out = out->at[0];
    return MOEC_OK;
}

static moec_status rival_run(rival *r, int turn, moec_error *err) {
    return r->peer->run(r->plan, r->left->at[0], r->right->at[turn % r->right->sets], r->out, err);
}

/* A peer has worker threads of its own. Idle ones of whoever ran before spin for some milliseconds:
 * they get time to fall asleep, then an untimed run wakes the peer's. */
static moec_status rival_sample(rival *r, int threads, int turn, double *seconds, moec_error *err) {
    if (threads > 1) {
        nanosleep(&(struct timespec){.tv_nsec = spin_nanoseconds}, NULL);
        MOEC_TRY(rival_run(r, turn + 1, err));
    }
    double start = moec_seconds();
    MOEC_TRY(rival_run(r, turn, err));
    *seconds = moec_seconds() - start;
    return MOEC_OK;
}

/* A peer that cannot take this row is left out; why is in the note when it cannot take any. */
static int rivals_open(subject *s, moec_bench *bench, rival *rivals) {
    int count = 0;
    for (int i = 0; i < MOEC_BENCH_PEERS && bench->peer[i]; i++) {
        bool takes = false;
        rivals[i] = (rival){.peer = bench->peer[i]};
        if (!bench->peer_there[i] || rival_open(s, &rivals[i], &takes, NULL) || !takes) {
            if (rivals[i].plan) rivals[i].peer->free(rivals[i].plan);
            rivals[i].plan = NULL;
        }
        count = i + 1;
    }
    return count;
}

/* ---- a row ---- */

typedef struct times { double own[MOST_RUNS], peak[MOST_RUNS], peer[MOEC_BENCH_PEERS][MOST_RUNS]; } times;

/* 0 where the ceiling's library is not here: the first line of why is kept. */
static void measure_peak(const subject *s, const moec_ceiling_ops *ceiling, moec_bench *bench, double *peak) {
    static moec_error why;
    why = (moec_error){0};
    if (!ceiling->compute(s->data->device, s->spec.dtype, peak, bench->unit, &why)) return;
    *peak = 0;
    bench->unit[0] = 0;
    snprintf(bench->no_unit, sizeof bench->no_unit, "%.*s", (int)strcspn(why.text, "\n"), why.text);
}

static moec_status one_round(subject *s, const moec_ceiling_ops *ceiling, moec_bench *bench, rival *rivals,
                             int count, times *t, int at, moec_error *err) {
    bool peers = false;
    for (int i = 0; i < count; i++) peers |= rivals[i].plan != NULL;
    if (peers && s->data->device->threads > 1) nanosleep(&(struct timespec){.tv_nsec = spin_nanoseconds}, NULL);
    t->peak[at] = 0;
    if (ceiling && ceiling->compute) measure_peak(s, ceiling, bench, &t->peak[at]);
    MOEC_TRY(sample(s, &t->own[at], err));
    for (int i = 0; i < count; i++)
        if (rivals[i].plan) MOEC_TRY(rival_sample(&rivals[i], s->data->device->threads, s->turn, &t->peer[i][at], err));
    return MOEC_OK;
}

static moec_status rounds(subject *s, moec_bench *bench, moec_bench_row *row, rival *rivals, int count,
                          times *t, moec_error *err) {
    const moec_ceiling_ops *ceiling = moec_ceiling_find(s->data->device->target->family);
    int repeat = s->data->options->repeat, runs = 0;
    if (repeat > MOST_RUNS) repeat = MOST_RUNS;
    MOEC_TRY(one_round(s, ceiling, bench, rivals, count, t, 0, err));
    double start = moec_seconds();
    while (runs < repeat && (runs < FEWEST_RUNS || moec_seconds() - start < row_seconds))
        MOEC_TRY(one_round(s, ceiling, bench, rivals, count, t, runs++, err));
    row->runs = runs;
    row->ms = 1e3 * median(t->own, runs);
    row->low_ms = 1e3 * quantile(t->own, runs, 0.1);
    row->high_ms = 1e3 * quantile(t->own, runs, 0.9);
    row->peak = *bench->unit ? median(t->peak, runs) : 0;
    for (int i = 0; i < count; i++)
        if (rivals[i].plan) row->peer_ms[i] = 1e3 * median(t->peer[i], runs);
    double compute = row->peak > 0 ? row->flops / row->peak : 0;
    double memory = bench->copy > 0 ? row->bytes / bench->copy : 0;
    row->bound_ms = 1e3 * (compute > memory ? compute : memory);
    return MOEC_OK;
}

/* wanted: op, spec, dense, packed. */
static moec_status time_row(bench_data *d, moec_bench *bench, const char *name, const subject *wanted,
                            const char *config, moec_error *err) {
    if (bench->count == MOEC_BENCH_ROWS) return moec_fail(err, MOEC_E_INVAL, "too many rows to time");
    moec_bench_row *row = &bench->row[bench->count];
    subject s = *wanted;
    rival rivals[MOEC_BENCH_PEERS] = {0};
    int count = 0;
    times *t = calloc(1, sizeof *t);
    if (!t) return moec_fail(err, MOEC_E_NOMEM, "out of memory: times");
    s.data = d;
    snprintf(row->name, sizeof row->name, "%s", name);
    if (d->options->progress) d->options->progress(d->options->user, name);
    moec_status rc = prepare(&s, config, err);
    if (!rc) rc = cost(&s, row, err);
    if (!rc) count = rivals_open(&s, bench, rivals);
    if (!rc) rc = rounds(&s, bench, row, rivals, count, t, err);
    if (!rc) {
        snprintf(row->target, sizeof row->target, "%s", s.module->kernel.target->name);
        moec_config_print(&s.module->kernel.config, row->config, sizeof row->config);
        bench->count++;
    }
    for (int i = 0; i < count; i++)
        if (rivals[i].plan) rivals[i].peer->free(rivals[i].plan);
    moec_module_free(d->device, s.module);
    free(t);
    return rc ? moec_context(err, rc, "bench of %s", name) : MOEC_OK;
}

/* ---- which rows ---- */

bool moec_bench_asked(const char *list, const char *name) {
    size_t n = strlen(name);
    for (const char *at = list; (at = strstr(at, name)); at += n)
        if ((at == list || at[-1] == ',') && (at[n] == ',' || !at[n])) return true;
    return false;
}

static moec_status layer_rows(bench_data *d, moec_bench *bench, const moec_plan *plan, moec_error *err) {
    const char *ops = d->options->ops;
    for (moec_layer_slot i = 0; i < MOEC_L_COUNT; i++) {
        const moec_layer_row *row = moec_layer_row_at(i);
        char config[512] = "";
        if (!moec_layer_row_used(row, d->spec) || (ops && !moec_bench_asked(ops, row->name))) continue;
        subject wanted = {.op = moec_op_get(row->op), .spec = moec_layer_row_spec(row, d->spec),
                          .dense = row->shared};
        bool planned = moec_plan_find(plan, row->name, config, sizeof config);
        moec_status rc = time_row(d, bench, row->name, &wanted, config, err);
        if (rc) return planned ? moec_context(err, rc, "plan %s, line %s", d->options->plan, row->name) : rc;
    }
    return MOEC_OK;
}

/* Rows that no layer has, to compare with libraries of grouped products: "up.packed" (dh, dw1, dw2)
 * reads rows that lie packed, expert after expert, as those libraries want them; "up.plain" is up's
 * product alone, [R][H] by [2F][H], which is what `down` does with H and F in other places. */
static bool packed_row(const char *name, const moec_spec *spec, subject *wanted) {
    const char *dot = strchr(name, '.');
    char op[16];
    if (!dot || dot - name >= (ptrdiff_t)sizeof op) return false;
    snprintf(op, sizeof op, "%.*s", (int)(dot - name), name);
    *wanted = (subject){.op = moec_op_find(op), .spec = *spec, .packed = true};
    if (!strcmp(dot, ".packed")) return wanted->op && moec_op_arg(wanted->op, "row_slot") >= 0;
    *wanted = (subject){.op = moec_op_get(MOEC_OP_down), .spec = *spec};
    wanted->spec.H = moec_spec_U(spec), wanted->spec.F = spec->H;
    wanted->spec.bias = 0;
    return !strcmp(name, "up.plain");
}

/* Ops that are no row of the layer: the trainer's dense helpers and packed rows, by name. */
static moec_status other_ops(bench_data *d, moec_bench *bench, moec_error *err) {
    char list[512];
    snprintf(list, sizeof list, "%s", d->options->ops ? d->options->ops : "");
    for (char *rest = list, *name; (name = strtok_r(rest, ",", &rest));) {
        const moec_op *op = moec_op_find(name);
        subject wanted = {.op = op, .spec = *d->spec, .dense = op && moec_op_arg(op, "offsets") < 0};
        if (!strcmp(name, "layer") || moec_layer_row_is(name, strlen(name))) continue;
        if (!op && !packed_row(name, d->spec, &wanted)) {
            moec_status rc = moec_fail(err, MOEC_E_SPEC, "--op %s: no such op or layer row", name);
            return moec_hint(err, rc, "rows: route up down combine dh dw2 dw1 dx route_bwd layer; packed: up.plain "
                             "up.packed dh.packed dw2.packed dw1.packed; ops: those of gen/op.def (linear, adamw ...)");
        }
        MOEC_TRY(time_row(d, bench, name, &wanted, "", err));
    }
    return MOEC_OK;
}

/* ---- the whole run ---- */

static void find_peers(const moec_device *device, const moec_bench_options *o, moec_bench *bench) {
    for (int i = 0; i < MOEC_BENCH_PEERS && o->peers; i++) {
        static moec_error err;
        char version[64] = "";
        bench->peer[i] = moec_peer_at(device->target->family, i);
        if (!bench->peer[i]) return;
        bench->peer_there[i] = !bench->peer[i]->open(version, &err);
        if (bench->peer_there[i]) snprintf(bench->peer_note[i], sizeof bench->peer_note[i], "%s", version);
        else snprintf(bench->peer_note[i], sizeof bench->peer_note[i], "missing: %s", bench->peer[i]->needs);
    }
}

static void count_rows(const bench_data *d, moec_bench *bench) {
    bench->rows = d->offsets[d->spec->E];
    for (int64_t e = 0; e < d->spec->E; e++) {
        int64_t n = d->offsets[e + 1] - d->offsets[e];
        if (n > bench->most_rows) bench->most_rows = n;
        bench->experts_used += n > 0;
    }
}

static moec_status run(bench_data *d, moec_bench *bench, const moec_plan *plan, moec_error *err) {
    const char *ops = d->options->ops;
    MOEC_TRY(bench_data_open(d, err));
    MOEC_TRY(moec_ceiling_copy(d->device, &bench->copy, err));
    MOEC_TRY(bench_route(d, err));
    count_rows(d, bench);
    MOEC_TRY(layer_rows(d, bench, plan, err));
    MOEC_TRY(other_ops(d, bench, err));
    if (!ops || moec_bench_asked(ops, "layer")) {
        if (d->options->progress) d->options->progress(d->options->user, "layer");
        MOEC_TRY(bench_layer(d, bench, err));
    }
    for (int i = 0; i < d->count; i++)
        if (d->buffers[i].sets > bench->sets) bench->sets = d->buffers[i].sets;
    return MOEC_OK;
}

moec_status moec_bench_check_cpu_time(const moec_device *device, const moec_bench_options *options, moec_error *err) {
    if (!options->cpu_time || (!strcmp(device->target->family, "cpu") && device->threads == 1)) return MOEC_OK;
    moec_status rc = moec_fail(err, MOEC_E_INVAL, "CPU time is that of one worker on a CPU target");
    return moec_hint(err, rc, "add --threads 1, or leave --cpu-time out");
}

moec_status moec_bench_run(moec_device *device, const moec_spec *spec, const moec_bench_options *options,
                           moec_bench *bench, moec_error *err) {
    moec_plan plan;
    memset(bench, 0, sizeof *bench);
    if (options->tokens < 1) return moec_fail(err, MOEC_E_INVAL, "tokens must be at least 1 to time anything");
    if (options->repeat < 1) return moec_fail(err, MOEC_E_INVAL, "repeat must be at least 1");
    if (options->tokens > moec_routing_most_tokens(spec))
        return moec_fail(err, MOEC_E_INVAL, "too many tokens: rows are numbered by 32-bit integers");
    MOEC_TRY(moec_bench_check_cpu_time(device, options, err));
    MOEC_TRY(moec_plan_read(options->plan, spec, device->target, &plan, err));
    bench_data d = {.device = device, .spec = spec, .options = options, .T = options->tokens,
                    .R = options->tokens * spec->K};
    find_peers(device, options, bench);
    moec_seconds_of_thread(options->cpu_time);
    moec_status rc = run(&d, bench, &plan, err);
    const moec_ceiling_ops *ceiling = moec_ceiling_find(device->target->family);
    if (ceiling && ceiling->done) ceiling->done(device);
    moec_seconds_of_thread(false);
    bench_data_close(&d);
    moec_plan_free(&plan);
    return rc;
}
