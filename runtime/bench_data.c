/* Buffers are shared by name: what one op writes the next reads, as in the layer. Only weights have
 * several sets. Values are noise of realistic size, so that no unit runs on zeros or NaN. */
#include "bench_data.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "pattern.h"
#include "random.h"

enum { NOISE = 1 << 18 }; /* elements of each kind of noise */

static const int64_t longest_sequence = 4096; /* tokens that attention sees at once */
static const size_t cold_bytes = (size_t)768 << 20; /* more than any cache that weights could stay in */

/* ---- noise: bf16, f32, f64 of variance 1, then small bf16 and f32 for weights ---- */

typedef struct noise {
    uint16_t bf16[NOISE], small_bf16[NOISE];
    float f32[NOISE], small_f32[NOISE];
    double f64[NOISE];
    int32_t below[NOISE]; /* random bits, 31 of them */
} noise;

static uint16_t to_bf16(float f) {
    uint32_t bits;
    memcpy(&bits, &f, sizeof bits);
    return (uint16_t)((bits + 0x7FFF + (bits >> 16 & 1)) >> 16);
}

moec_status bench_data_open(bench_data *d, moec_error *err) {
    moec_random random = moec_random_new(d->options->seed, 0xBE7C);
    noise *n = malloc(sizeof *n);
    d->offsets = calloc((size_t)d->spec->E + 1, sizeof *d->offsets);
    d->noise = n;
    if (!n || !d->offsets) return moec_fail(err, MOEC_E_NOMEM, "out of memory: random values");
    for (int i = 0; i < NOISE; i++) {
        double v = moec_random_normal(&random);
        n->f64[i] = v;
        n->f32[i] = (float)v, n->small_f32[i] = (float)(0.02 * v);
        n->bf16[i] = to_bf16((float)v), n->small_bf16[i] = to_bf16((float)(0.02 * v));
        n->below[i] = (int32_t)moec_random_below(&random, INT32_MAX);
    }
    return MOEC_OK;
}

void bench_data_close(bench_data *d) {
    for (int i = 0; i < d->count; i++)
        for (int s = 0; s < d->buffers[i].sets; s++) moec_free(d->device, d->buffers[i].at[s]);
    free(d->offsets);
    free(d->noise);
}

static const void *noise_of(const bench_data *d, const char *name, moec_arg_type type, size_t *bytes) {
    const noise *n = d->noise;
    bool small = name[0] == 'w';
    *bytes = NOISE * moec_type_bytes(type);
    switch (type) {
    case MOEC_T_BF16: return small ? n->small_bf16 : n->bf16;
    case MOEC_T_F32: return small ? n->small_f32 : n->f32;
    case MOEC_T_F64: return n->f64;
    default: return n->below;
    }
}

static moec_status fill(bench_data *d, const char *name, moec_arg_type type, void *at, size_t bytes,
                        moec_error *err) {
    size_t period;
    const char *from = noise_of(d, name, type, &period);
    for (size_t done = 0; done < bytes; done += period) {
        size_t n = bytes - done < period ? bytes - done : period;
        MOEC_TRY(moec_upload(d->device, (char *)at + done, from, n, err));
    }
    return MOEC_OK;
}

/* ---- buffers ---- */

static void drop(bench_data *d, bench_buffer *b) {
    for (int s = 0; s < b->sets; s++) moec_free(d->device, b->at[s]);
    b->sets = 0;
    b->bytes = 0;
}

static int enough_sets(const bench_data *d, size_t bytes) {
    int wanted = d->options->sets;
    if (!wanted) wanted = (int)(cold_bytes / (bytes ? bytes : 1)) + 1;
    return wanted < 1 ? 1 : wanted > BENCH_MOST_SETS ? BENCH_MOST_SETS : wanted;
}

moec_status bench_buffer_get(bench_data *d, const char *name, moec_arg_type type, size_t bytes, int sets,
                             bench_buffer **out, moec_error *err) {
    bench_buffer *b = NULL;
    for (int i = 0; i < d->count && !b; i++)
        if (!strcmp(d->buffers[i].name, name)) b = &d->buffers[i];
    if (!b) {
        if (d->count == BENCH_BUFFERS) return moec_fail(err, MOEC_E_INVAL, "too many buffers to time");
        b = &d->buffers[d->count++];
        snprintf(b->name, sizeof b->name, "%s", name);
    }
    *out = b;
    if (b->sets && b->bytes >= bytes) return MOEC_OK;
    drop(d, b);
    b->bytes = bytes;
    for (int wanted = sets ? sets : enough_sets(d, bytes); b->sets < wanted; b->sets++) {
        MOEC_TRY(moec_alloc(d->device, bytes + 64, name, &b->at[b->sets], err));
        moec_status rc = fill(d, name, type, b->at[b->sets], bytes, err);
        if (rc) {
            moec_free(d->device, b->at[b->sets]);
            return rc;
        }
    }
    return MOEC_OK;
}

/* ---- arguments ---- */

moec_sizes bench_sizes(const bench_data *d, const moec_spec *spec, bool dense) {
    return (moec_sizes){.spec = spec, .T = d->T, .R = dense ? d->T : d->R, .N = d->T * spec->H,
                        .threads = d->device->threads, .sms = d->device->sms};
}

int64_t bench_sequence(const bench_data *d) { return d->T < longest_sequence ? d->T : longest_sequence; }

static const struct { const char *name; double value; } scalars[] = {
    {"beta", 0},   {"aux", 0.01}, {"z", 0.001},  {"eps", 1e-6},    {"theta", 10000}, {"lr", 1e-3},
    {"beta1", .9}, {"beta2", .95}, {"wd", 0.1},  {"gscale", 1},    {"step", 10},     {"scale", 1},
    {"inverse", 0},
};

static void scalar(const bench_data *d, const moec_sizes *sizes, const moec_arg_info *info, moec_arg *arg) {
    double value = 0;
    for (size_t i = 0; i < sizeof scalars / sizeof *scalars; i++)
        if (!strcmp(scalars[i].name, info->name)) value = scalars[i].value;
    if (!strcmp(info->name, "T")) value = (double)d->T;
    if (!strcmp(info->name, "N")) value = (double)sizes->N;
    if (!strcmp(info->name, "seq")) value = (double)bench_sequence(d);
    if (info->type == MOEC_T_F64) arg->f64 = value;
    else arg->i64 = (int64_t)value;
}

static bool named(const char *name, const char *list) {
    size_t n = strlen(name);
    for (const char *at = list; (at = strstr(at, name)); at += n)
        if ((at == list || at[-1] == ' ') && (at[n] == ' ' || !at[n])) return true;
    return false;
}

/* Optional arguments that a training step of this spec does not pass. */
static bool absent(const moec_arg_info *info, const moec_spec *spec, bool dense) {
    if (!info->optional) return false;
    if (named(info->name, "sel_bias add")) return true;
    if (named(info->name, "b1 b2")) return !spec->bias;
    return dense && named(info->name, "offsets row_slot slot_row weight dweight");
}

/* Indices below V; the noise is of 31 bits. */
static moec_status fill_indices(bench_data *d, const moec_spec *spec, void *at, int64_t n, moec_error *err) {
    int32_t *host = malloc((size_t)n * sizeof *host + 1);
    const noise *source = d->noise;
    if (!host) return moec_fail(err, MOEC_E_NOMEM, "out of memory: indices");
    for (int64_t i = 0; i < n; i++) host[i] = source->below[i % NOISE] % (int32_t)spec->V;
    moec_status rc = moec_upload(d->device, at, host, (size_t)n * sizeof *host, err);
    free(host);
    return rc;
}

moec_status bench_args(bench_data *d, const moec_op *op, const moec_spec *spec, bool dense, int turn,
                       moec_arg *args, moec_error *err) {
    moec_sizes sizes = bench_sizes(d, spec, dense);
    for (int i = 0; i < op->arg_count; i++) {
        const moec_arg_info *info = &op->args[i];
        moec_arg_type type = moec_arg_dtype(info, spec);
        bench_buffer *b;
        int64_t n;
        args[i].i64 = 0;
        if (info->role == MOEC_SCALAR) {
            scalar(d, &sizes, info, &args[i]);
            continue;
        }
        if (absent(info, spec, dense)) continue;
        MOEC_TRY(moec_arg_count(info, &sizes, &n, err));
        bool weights = info->role == MOEC_IN && named(info->name, "w1 w2 w table");
        MOEC_TRY(bench_buffer_get(d, info->name, type, (size_t)n * moec_type_bytes(type), weights ? 0 : 1,
                                  &b, err));
        if (turn == 0 && named(info->name, "token target")) MOEC_TRY(fill_indices(d, spec, b->at[0], n, err));
        args[i].ptr = b->at[turn % b->sets];
    }
    return MOEC_OK;
}

/* ---- routing ---- */

static moec_status upload_logits(bench_data *d, moec_error *err) {
    moec_pattern pattern;
    bench_buffer *b;
    size_t E = (size_t)d->spec->E, bytes = (size_t)d->T * E * sizeof(float);
    MOEC_TRY(moec_pattern_parse(d->options->routing, &pattern, err));
    double *popularity = malloc(E * sizeof *popularity);
    float *logits = malloc(bytes + 1);
    moec_status rc = popularity && logits ? MOEC_OK : moec_fail(err, MOEC_E_NOMEM, "out of memory: logits");
    if (!rc) rc = moec_pattern_popularity(&pattern, d->spec->E, d->options->seed, popularity, err);
    if (!rc) {
        moec_pattern_logits(popularity, d->T, d->spec->E, d->options->seed, logits);
        rc = bench_buffer_get(d, "logits", MOEC_T_F32, bytes, 1, &b, err);
    }
    if (!rc) rc = moec_upload(d->device, b->at[0], logits, bytes, err);
    free(popularity);
    free(logits);
    return rc;
}

moec_status bench_route(bench_data *d, moec_error *err) {
    const moec_op *op = moec_op_get(MOEC_OP_route);
    moec_arg args[MOEC_MAX_ARGS];
    moec_module *module;
    bench_buffer *scratch = NULL, *offsets;
    size_t bytes;
    MOEC_TRY(upload_logits(d, err));
    MOEC_TRY(bench_args(d, op, d->spec, false, 0, args, err));
    MOEC_TRY(moec_module_create(d->device, op, d->spec, NULL, d->T, &module, err));
    moec_status rc = moec_module_scratch(d->device, module, d->T, d->R, 0, &bytes, err);
    if (!rc && bytes) rc = bench_buffer_get(d, "scratch", MOEC_T_F32, bytes, 1, &scratch, err);
    if (!rc) rc = moec_module_launch(d->device, NULL, module, args, d->T, d->R, 0,
                                     scratch ? scratch->at[0] : NULL, err);
    if (!rc) rc = moec_synchronize(d->device, NULL, err);
    size_t table = ((size_t)d->spec->E + 1) * sizeof(int32_t);
    if (!rc) rc = bench_buffer_get(d, "offsets", MOEC_T_I32, table, 1, &offsets, err);
    if (!rc) rc = moec_download(d->device, d->offsets, offsets->at[0], table, err);
    moec_module_free(d->device, module);
    return rc;
}
