/* One case on a device: guarded buffers, launch, comparison, and the same bytes again. */
#include "verify_trial.h"

#include <inttypes.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { GUARD = 4096, ALIGN = 256 };

/* A device buffer between guards, and host copies of the whole block. */
typedef struct block {
    void *device;
    unsigned char *before, *after;
    size_t bytes, start, total; /* of the data, its place in the block, the block */
    int poison;
} block;

typedef struct trial {
    moec_device *device;
    const moec_module *module;
    const moec_case *c;
    block blocks[MOEC_MAX_ARGS], scratch;
    unsigned char *first[MOEC_MAX_ARGS]; /* outputs of the first run */
} trial;

static void block_free(moec_device *device, block *b) {
    moec_free(device, b->device);
    free(b->before);
    free(b->after);
    *b = (block){0};
}

/* `shift` bytes past a 256-byte border: op.def promises kernels 16. */
static moec_status block_new(moec_device *device, block *b, size_t bytes, size_t shift, int poison,
                             moec_error *err) {
    *b = (block){.bytes = bytes, .start = GUARD + shift, .poison = poison};
    b->total = b->start + bytes + GUARD;
    b->before = malloc(b->total);
    b->after = malloc(b->total);
    if (!b->before || !b->after) return moec_fail(err, MOEC_E_NOMEM, "out of memory: a trial");
    return moec_alloc(device, b->total, "a trial of verify", &b->device, err);
}

static void *block_data(const block *b) { return (char *)b->device + b->start; }

/* Writes the starting bytes: poison all over, then the image. */
static moec_status block_reset(moec_device *device, block *b, const void *image, moec_error *err) {
    memset(b->before, b->poison, b->total);
    if (image && b->bytes) memcpy(b->before + b->start, image, b->bytes);
    return moec_upload(device, b->device, b->before, b->total, err);
}

/* ---- judging ---- */

static void fault(moec_verdict *v, const char *format, ...) MOEC_PRINTF(2, 3);
static void fault(moec_verdict *v, const char *format, ...) {
    va_list args;
    if (*v->fault) return; /* the first one is the one to read */
    va_start(args, format);
    vsnprintf(v->fault, sizeof v->fault, format, args);
    va_end(args);
}

void moec_judge(moec_verdict *v, const char *name, int64_t columns, int64_t i, double got, double want,
                double bound) {
    if (v->take) v->take(v->user, name, i, got, bound);
    double error = fabs(got - want);
    if (got == want || (isnan(got) && isnan(want))) error = 0;
    bool right = error == 0 || error <= bound; /* where NaN is right, the bound is NaN too */
    double ratio = error == 0 ? 0 : bound > 0 ? error / bound : INFINITY;
    if (isnan(ratio)) ratio = INFINITY;
    if (ratio > v->worst || !*v->where) {
        v->worst = ratio > v->worst ? ratio : v->worst;
        v->error = error;
        snprintf(v->where, sizeof v->where, "%s[%" PRId64 ",%" PRId64 "]", name, i / columns, i % columns);
    }
    if (!right)
        fault(v, "%s[%" PRId64 ",%" PRId64 "] is %.9g, expected %.9g within %.3g", name, i / columns,
              i % columns, got, want, bound);
}

/* Elements of the last dimension, to print an index as row and column. */
static int64_t columns_of(const trial *t, int at) {
    const char *shape = t->c->op->args[at].shape, *comma = strrchr(shape, ',');
    moec_sizes sizes = {.spec = &t->c->spec, .T = t->c->T, .R = t->c->R, .N = t->c->N};
    int64_t n = 1;
    if (!comma || moec_expr(comma + 1, &sizes, &n, NULL) || n < 1) return 1;
    return n;
}

static void judge_values(const trial *t, int at, moec_verdict *v) {
    const moec_case *c = t->c;
    const block *b = &t->blocks[c->alias[at] >= 0 ? c->alias[at] : at];
    const unsigned char *data = b->after + b->start;
    size_t size = moec_type_bytes(c->type[at]);
    int64_t columns = columns_of(t, at);
    const char *name = c->op->args[at].name;
    for (int64_t i = 0; i < c->count[at]; i++) {
        int64_t row = c->row_bytes[at] ? i * (int64_t)size / c->row_bytes[at] : -1;
        if (row >= 0 && !c->live[row]) {
            if (memcmp(data + (size_t)i * size, (char *)c->image[at] + (size_t)i * size, size))
                fault(v, "%s: row %" PRId64 " lies past offsets[E] and was written", name, row);
            continue;
        }
        double got = moec_load_element(data, c->type[at], i);
        const moec_ref_arg *want = &c->ref.arg[at];
        if (want->i) moec_judge(v, name, columns, i, got, want->i[i], 0);
        else moec_judge(v, name, columns, i, got, want->f[i], want->e ? want->e[i] : 0);
    }
}

static bool is_output(const moec_case *c, int at) {
    moec_arg_role role = c->op->args[at].role;
    return role == MOEC_OUT || role == MOEC_INOUT;
}

static bool holds_output(const moec_case *c, int block_of) {
    for (int i = 0; i < c->op->arg_count; i++)
        if (is_output(c, i) && (i == block_of || c->alias[i] == block_of)) return true;
    return false;
}

static void judge_memory(const block *b, const char *name, bool output, moec_verdict *v) {
    size_t end = b->start + b->bytes;
    if (memcmp(b->before, b->after, b->start)) fault(v, "memory before %s was written", name);
    if (memcmp(b->before + end, b->after + end, b->total - end))
        fault(v, "memory after %s was written", name);
    if (!output && memcmp(b->before + b->start, b->after + b->start, b->bytes))
        fault(v, "input %s was written", name);
}

/* ---- running ---- */

static moec_status download(trial *t, block *b, moec_error *err) {
    return b->device ? moec_download(t->device, b->after, b->device, b->total, err) : MOEC_OK;
}

static moec_status run(trial *t, moec_error *err) {
    const moec_case *c = t->c;
    moec_arg args[MOEC_MAX_ARGS] = {{0}};
    for (int i = 0; i < c->op->arg_count; i++) {
        const moec_arg_info *info = &c->op->args[i];
        if (t->blocks[i].device) MOEC_TRY(block_reset(t->device, &t->blocks[i], c->image[i], err));
        const block *b = &t->blocks[c->alias[i] >= 0 ? c->alias[i] : i];
        if (info->role != MOEC_SCALAR) args[i].ptr = b->device ? block_data(b) : NULL;
        else if (info->type == MOEC_T_F64) args[i].f64 = c->ref.arg[i].scalar;
        else args[i].i64 = (int64_t)c->ref.arg[i].scalar;
    }
    size_t bytes = 0;
    MOEC_TRY(moec_module_scratch(t->device, t->module, c->T, c->R, c->N, &bytes, err));
    block_free(t->device, &t->scratch);
    MOEC_TRY(block_new(t->device, &t->scratch, bytes, 0, 0xFF, err));
    MOEC_TRY(block_reset(t->device, &t->scratch, NULL, err));
    MOEC_TRY(moec_module_launch(t->device, NULL, t->module, args, c->T, c->R, c->N,
                                bytes ? block_data(&t->scratch) : NULL, err));
    MOEC_TRY(moec_synchronize(t->device, NULL, err));
    for (int i = 0; i < c->op->arg_count; i++) MOEC_TRY(download(t, &t->blocks[i], err));
    return download(t, &t->scratch, err);
}

static void judge(trial *t, moec_verdict *v) {
    const moec_case *c = t->c;
    for (int i = 0; i < c->op->arg_count; i++) {
        if (t->blocks[i].device)
            judge_memory(&t->blocks[i], c->op->args[i].name, holds_output(c, i), v);
        if (is_output(c, i) && c->image[i]) judge_values(t, i, v);
    }
    judge_memory(&t->scratch, "scratch", true, v);
}

/* The scalars first: small and big worker counts give the same bytes, and so does a second run. */
static moec_status again(trial *t, int threads, moec_verdict *v, moec_error *err) {
    int usual = t->device->threads;
    t->device->threads = threads;
    moec_status rc = run(t, err);
    t->device->threads = usual;
    if (rc) return rc;
    for (int i = 0; i < t->c->op->arg_count; i++) {
        const block *b = &t->blocks[i];
        if (!t->first[i] || !memcmp(t->first[i], b->after + b->start, b->bytes)) continue;
        fault(v, "%s differs between a run with %d threads and one with %d", t->c->op->args[i].name,
              usual, threads);
    }
    return MOEC_OK;
}

static moec_status keep_first(trial *t, moec_error *err) {
    for (int i = 0; i < t->c->op->arg_count; i++) {
        const block *b = &t->blocks[i];
        if (!b->device || !holds_output(t->c, i)) continue;
        t->first[i] = malloc(b->bytes + 1);
        if (!t->first[i]) return moec_fail(err, MOEC_E_NOMEM, "out of memory: a trial");
        memcpy(t->first[i], b->after + b->start, b->bytes);
    }
    return MOEC_OK;
}

static moec_status prepare(trial *t, moec_error *err) {
    const moec_case *c = t->c;
    for (int i = 0; i < c->op->arg_count; i++) {
        size_t shift = c->variant ? 16 * (size_t)((c->seed + (uint64_t)i) % 4) : 0;
        if (!c->image[i] || c->alias[i] >= 0) continue;
        MOEC_TRY(block_new(t->device, &t->blocks[i], (size_t)c->count[i] * moec_type_bytes(c->type[i]),
                           shift, moec_poison_byte(c->type[i]), err));
    }
    return MOEC_OK;
}

moec_status moec_trial(moec_device *device, const moec_module *module, const moec_case *c,
                       moec_verdict *verdict, moec_error *err) {
    trial t = {.device = device, .module = module, .c = c};
    *verdict = (moec_verdict){.take = verdict->take, .user = verdict->user};
    bool cpu = !strcmp(device->target->family, "cpu");
    moec_status rc = prepare(&t, err);
    if (!rc) rc = run(&t, err);
    if (!rc) judge(&t, verdict);
    if (!rc) rc = keep_first(&t, err);
    if (!rc) rc = again(&t, cpu ? 1 : device->threads, verdict, err);
    if (!rc && cpu) rc = again(&t, 3, verdict, err);
    for (int i = 0; i < MOEC_MAX_ARGS; i++) {
        block_free(device, &t.blocks[i]);
        free(t.first[i]);
    }
    block_free(device, &t.scratch);
    return rc;
}
