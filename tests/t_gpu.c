/* What only a GPU can show of the CUDA family; every case is skipped with the reason where there is
 * none. A layer in a CUDA graph on the caller's stream, wrong pointers, memory that does not fit,
 * more than 2^32 elements in one buffer, the time from a spec to loaded kernels, and, last because
 * nothing runs after it, a kernel that faults.
 *
 * Sampled tokens of a batch that is too large for the oracle are judged as a small batch of their
 * own; the same judge runs on the CPU here, once as it is and once with a planted fault. */
#include "t.h"

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "device.h"
#include "dl_cuda.h"
#include "fs.h"
#include "random.h"
#include "verify.h"

static moec_error err;

/* The innermost line of an error before its hint. */
static const char *no_gpu(void) {
    static char line[200];
    const char *second = strchr(err.text, '\n');
    snprintf(line, sizeof line, "no GPU: %.*s", second ? (int)strcspn(second + 1, "\n") : 0,
             second ? second + 1 : "");
    return line;
}

#define OPEN_TARGET(target, device) \
    if (moec_device_open(target, 0, &device, &err)) T_SKIP("%s", no_gpu())
#define OPEN(device) OPEN_TARGET("cuda", device)
#define TRY(call) \
    do { if (call) { T_FAIL("%s: %s", #call, err.text); return; } } while (0)

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* ---- a layer with buffers of its own; weights and activations in bf16 ---- */

enum { X, DOUT, W1, W2, EXPERT, WEIGHT, OUT, DX, DW1, DW2, DWEIGHT, SAVED, WORKSPACE, BUFFERS };
enum { PERIOD = 1048573 }; /* a prime: repeated noise never lines up with rows */

typedef struct batch {
    moec_device *device;
    moec_layer *layer;
    moec_spec spec;
    int64_t T;
    void *at[BUFFERS];
    size_t bytes[BUFFERS];
    moec_forward forward;
    moec_backward backward;
} batch;

/* Element i of bf16 buffers of noise, the same on host and device: activations, and weights, which are
 * small so that sums over thousands of them stay within what an activation function bends. */
static uint16_t noise[2][PERIOD];

static int is_weights(int which) { return which == W1 || which == W2; }

static void make_noise(void) {
    moec_random r = moec_random_new(1, 77);
    if (noise[0][0]) return;
    for (int i = 0; i < PERIOD; i++) {
        double v = moec_random_normal(&r);
        moec_store_element(noise[0], MOEC_T_BF16, i, v);
        moec_store_element(noise[1], MOEC_T_BF16, i, v / 64);
    }
}

static moec_status upload_noise(batch *b, int which) {
    size_t total = b->bytes[which], step = sizeof noise[0];
    for (size_t done = 0; done < total; done += step)
        MOEC_TRY(moec_upload(b->device, (char *)b->at[which] + done, noise[is_weights(which)],
                             total - done < step ? total - done : step, &err));
    return MOEC_OK;
}

static double value(int which, int64_t i) {
    return moec_load_element(noise[is_weights(which)], MOEC_T_BF16, i % PERIOD);
}

/* Distinct experts of a token: an odd stride through a power of two of them. */
static int32_t expert_of(const moec_spec *s, int64_t t, int64_t k) {
    uint64_t h = (uint64_t)t * 0x9E3779B97F4A7C15u >> 20;
    return (int32_t)((h + (uint64_t)k * (2 * (h >> 9) + 1)) % (uint64_t)s->E);
}

static float weight_of(int64_t t, int64_t k) { return 0.03125f * (float)(1 + (t * 7 + k * 3) % 31); }

static moec_status upload_choice(batch *b) {
    int64_t K = b->spec.K, n = b->T * K;
    int32_t *expert = malloc((size_t)n * sizeof *expert);
    float *weight = malloc((size_t)n * sizeof *weight);
    for (int64_t i = 0; i < n; i++) {
        expert[i] = expert_of(&b->spec, i / K, i % K);
        weight[i] = weight_of(i / K, i % K);
    }
    moec_status rc = moec_upload(b->device, b->at[EXPERT], expert, b->bytes[EXPERT], &err);
    if (!rc) rc = moec_upload(b->device, b->at[WEIGHT], weight, b->bytes[WEIGHT], &err);
    free(expert);
    free(weight);
    return rc;
}

static moec_status open_batch(batch *b, moec_device *device, const char *spec, int64_t T) {
    *b = (batch){.device = device, .T = T};
    MOEC_TRY(moec_spec_parse(spec, &b->spec, &err));
    MOEC_TRY(moec_layer_create(device, spec, NULL, &b->layer, &err));
    size_t t = (size_t)T, H = (size_t)b->spec.H, F = (size_t)b->spec.F, E = (size_t)b->spec.E;
    size_t U = (size_t)moec_spec_U(&b->spec), slots = t * (size_t)b->spec.K;
    const size_t bytes[BUFFERS] = {
        [X] = 2 * t * H, [DOUT] = 2 * t * H, [W1] = 2 * E * U * H, [W2] = 2 * E * H * F, [EXPERT] = 4 * slots,
        [WEIGHT] = 4 * slots, [OUT] = 2 * t * H, [DX] = 2 * t * H, [DW1] = 4 * E * U * H,
        [DW2] = 4 * E * H * F, [DWEIGHT] = 4 * slots, [SAVED] = moec_layer_saved_bytes(b->layer, T),
        [WORKSPACE] = moec_layer_workspace_bytes(b->layer, T)};
    memcpy(b->bytes, bytes, sizeof bytes);
    for (int i = 0; i < BUFFERS; i++)
        MOEC_TRY(moec_alloc(device, bytes[i], "the test's batch", &b->at[i], &err));
    make_noise();
    for (int i = X; i <= W2; i++) MOEC_TRY(upload_noise(b, i));
    MOEC_TRY(upload_choice(b));
    moec_weights w = {.w1 = b->at[W1], .w2 = b->at[W2]};
    b->forward = (moec_forward){.T = T, .x = b->at[X], .expert = b->at[EXPERT], .weight = b->at[WEIGHT],
                                .weights = w, .out = b->at[OUT], .saved = b->at[SAVED],
                                .workspace = b->at[WORKSPACE]};
    b->backward = (moec_backward){.T = T, .x = b->at[X], .weights = w, .saved = b->at[SAVED],
                                  .dout = b->at[DOUT], .dx = b->at[DX], .dw1 = b->at[DW1],
                                  .dw2 = b->at[DW2], .dweight = b->at[DWEIGHT],
                                  .workspace = b->at[WORKSPACE]};
    return MOEC_OK;
}

static void close_batch(batch *b) {
    for (int i = 0; i < BUFFERS; i++) moec_free(b->device, b->at[i]);
    moec_layer_free(b->layer);
}

static moec_status both(batch *b, void *stream) {
    b->forward.stream = b->backward.stream = stream;
    MOEC_TRY(moec_layer_forward(b->layer, &b->forward, &err));
    return moec_layer_backward(b->layer, &b->backward, &err);
}

/* ---- sampled tokens against the oracle ---- */

/* The sample as a batch of its own: n tokens, their experts sorted as route would. */
typedef struct sample {
    const batch *b;
    int64_t n, *token;
    double *field[BUFFERS + 8], *bound[BUFFERS + 8];
    int32_t *offsets, *row_slot, *slot_row;
    double worst;
    int64_t wrong;
} sample;

enum { HPRE = BUFFERS, A, Y, DHPRE, A_W, DX_ROW };

static double *room(int64_t n) { return calloc((size_t)n + 1, sizeof(double)); }

static void take(sample *s, int which, int64_t rows, int64_t columns, bool gathered) {
    s->field[which] = room(rows * columns);
    for (int64_t r = 0; r < rows; r++)
        for (int64_t c = 0; c < columns; c++)
            s->field[which][r * columns + c] = value(which, (gathered ? s->token[r] : r) * columns + c);
}

static void give(sample *s, int which, int64_t count) {
    s->field[which] = room(count);
    s->bound[which] = room(count);
}

static void sort_slots(sample *s) {
    const moec_spec *spec = &s->b->spec;
    int64_t slots = s->n * spec->K, row = 0;
    s->offsets = calloc((size_t)spec->E + 1, 4);
    s->row_slot = calloc((size_t)slots + 1, 4);
    s->slot_row = calloc((size_t)slots + 1, 4);
    for (int32_t e = 0; e < spec->E; e++) {
        for (int64_t i = 0; i < slots; i++)
            if (expert_of(spec, s->token[i / spec->K], i % spec->K) == e) {
                s->row_slot[row] = (int32_t)i;
                s->slot_row[i] = (int32_t)row++;
            }
        s->offsets[e + 1] = (int32_t)row;
    }
}

static moec_status solve(sample *s, moec_op_id id, const int *which /* by argument; -1 NULL */) {
    moec_ref ref = {.op = moec_op_get(id), .spec = &s->b->spec, .T = s->n, .R = s->n * s->b->spec.K,
                    .u_acc = moec_ref_u_acc(s->b->device->target)};
    for (int i = 0; i < ref.op->arg_count; i++) {
        const char *name = ref.op->args[i].name;
        moec_ref_arg *a = &ref.arg[i];
        if (!strcmp(name, "offsets")) a->i = s->offsets;
        else if (!strcmp(name, "row_slot")) a->i = s->row_slot;
        else if (!strcmp(name, "slot_row")) a->i = s->slot_row;
        else if (!strcmp(name, "T")) a->scalar = (double)s->n;
        else if (which[i] >= 0) *a = (moec_ref_arg){.f = s->field[which[i]], .e = s->bound[which[i]]};
    }
    return moec_ref_run(&ref, &err);
}
#define SOLVE(s, id, ...) MOEC_TRY(solve(s, id, (const int[MOEC_MAX_ARGS]){__VA_ARGS__}))

static moec_status chain(sample *s) {
    SOLVE(s, MOEC_OP_up, X, W1, -1, -1, -1, HPRE, A);
    SOLVE(s, MOEC_OP_down, A, W2, -1, -1, Y);
    SOLVE(s, MOEC_OP_combine, Y, WEIGHT, -1, -1, OUT);
    SOLVE(s, MOEC_OP_dh, DOUT, W2, -1, HPRE, WEIGHT, -1, -1, DHPRE, A_W, DWEIGHT);
    SOLVE(s, MOEC_OP_dx, DHPRE, W1, -1, DX_ROW);
    SOLVE(s, MOEC_OP_combine, DX_ROW, -1, -1, -1, DX);
    return MOEC_OK;
}

static moec_status judge(sample *s, int which, moec_arg_type type, int64_t columns) {
    size_t bytes = (size_t)columns * moec_type_bytes(type);
    void *got = malloc(bytes);
    moec_status rc = MOEC_OK;
    for (int64_t r = 0; r < s->n && !rc; r++) {
        const char *row = (const char *)s->b->at[which] + (size_t)s->token[r] * bytes;
        rc = moec_download(s->b->device, got, row, bytes, &err);
        for (int64_t c = 0; c < columns && !rc; c++) {
            double want = s->field[which][r * columns + c], bound = s->bound[which][r * columns + c];
            double ratio = fabs(moec_load_element(got, type, c) - want) / (bound > 0 ? bound : 1e-300);
            if (!(ratio <= 1)) s->wrong++;
            if (ratio > s->worst) s->worst = ratio;
        }
    }
    free(got);
    return rc;
}

static moec_status judge_tokens(sample *s) {
    const moec_spec *spec = &s->b->spec;
    int64_t n = s->n, R = n * spec->K, H = spec->H, F = spec->F, U = moec_spec_U(spec);
    take(s, X, n, H, true), take(s, DOUT, n, H, true);
    take(s, W1, spec->E * U, H, false), take(s, W2, spec->E * H, F, false);
    s->field[WEIGHT] = room(R);
    for (int64_t i = 0; i < R; i++)
        s->field[WEIGHT][i] = (double)weight_of(s->token[i / spec->K], i % spec->K);
    give(s, HPRE, R * U), give(s, A, R * F), give(s, Y, R * H), give(s, OUT, n * H);
    give(s, DHPRE, R * U), give(s, A_W, R * F), give(s, DX_ROW, R * H), give(s, DX, n * H);
    give(s, DWEIGHT, R);
    sort_slots(s);
    moec_status rc = chain(s);
    if (!rc) rc = judge(s, OUT, MOEC_T_BF16, H);
    if (!rc) rc = judge(s, DX, MOEC_T_BF16, H);
    if (!rc) rc = judge(s, DWEIGHT, MOEC_T_F32, spec->K);
    for (int i = 0; i < BUFFERS + 8; i++) free(s->field[i]), free(s->bound[i]);
    free(s->offsets), free(s->row_slot), free(s->slot_row);
    return rc;
}

/* The sampled tokens alone must give the bits that they gave among all others: no row's sums depend on
 * where it lies. The oracle's bounds are worst cases; this sees any other row's data. */
static void copy_rows(batch *small, const batch *b, int which, size_t row, const int64_t *token) {
    char *data = malloc(row);
    for (int64_t i = 0; i < small->T; i++) {
        TRY(moec_download(b->device, data, (char *)b->at[which] + (size_t)token[i] * row, row, &err));
        TRY(moec_upload(b->device, (char *)small->at[which] + (size_t)i * row, data, row, &err));
    }
    free(data);
}

static int64_t differences(const batch *small, const batch *b, int which, size_t row, const int64_t *token) {
    char *one = malloc(row), *all = malloc(row);
    int64_t count = 0;
    for (int64_t i = 0; i < small->T; i++) {
        if (moec_download(b->device, one, (char *)small->at[which] + (size_t)i * row, row, &err) ||
            moec_download(b->device, all, (char *)b->at[which] + (size_t)token[i] * row, row, &err))
            count++;
        count += memcmp(one, all, row) != 0;
    }
    free(one), free(all);
    return count;
}

/* Rows of out, dx and dweight that are not the same alone. */
static int64_t alone(const batch *b, int64_t n, const int64_t *token) {
    char spec[MOEC_SPEC_BYTES];
    size_t act = 2 * (size_t)b->spec.H, slots = 4 * (size_t)b->spec.K;
    int64_t count = -1;
    batch small;
    moec_spec_print(&b->spec, NULL, spec, sizeof spec);
    moec_status rc = open_batch(&small, b->device, spec, n);
    if (!rc) {
        copy_rows(&small, b, X, act, token), copy_rows(&small, b, DOUT, act, token);
        copy_rows(&small, b, EXPERT, slots, token), copy_rows(&small, b, WEIGHT, slots, token);
        rc = both(&small, NULL);
    }
    if (!rc) rc = moec_synchronize(b->device, NULL, &err);
    if (rc) T_FAIL("%s", err.text);
    else
        count = differences(&small, b, OUT, act, token) + differences(&small, b, DX, act, token) +
                differences(&small, b, DWEIGHT, slots, token);
    close_batch(&small);
    return count;
}

/* The token of row `row` when all T*K slots are sorted by expert. */
static int64_t token_of_row(const batch *b, int64_t row) {
    int64_t slots = b->T * b->spec.K;
    for (int32_t e = 0; e < b->spec.E; e++)
        for (int64_t i = 0; i < slots; i++)
            if (expert_of(&b->spec, i / b->spec.K, i % b->spec.K) == e && row-- == 0) return i / b->spec.K;
    return b->T - 1;
}

/* Runs both passes and judges tokens at the ends and those whose rows of `columns` elements lie where
 * 32-bit offsets end. `fault` spoils one output first. */
static void judge_large(batch *b, int64_t columns, bool fault) {
    int64_t past31 = ((int64_t)1 << 31) / columns, last = b->T * b->spec.K - 1;
    int64_t row[6] = {0, last, past31 - 1, past31, 2 * past31 - 1, 2 * past31}, token[6];
    sample s = {.b = b, .n = 6, .token = token};
    int64_t spoilt = 0;
    for (int i = 0; i < 6; i++) token[i] = token_of_row(b, row[i] < last ? row[i] : last - i);
    for (int i = 0; i < 6; i++) spoilt += fault && token[i] == token[1];
    TRY(both(b, NULL));
    TRY(moec_synchronize(b->device, NULL, &err));
    if (fault) {
        uint16_t nan = 0x7FC0;
        TRY(moec_upload(b->device, (char *)b->at[DX] + (size_t)(2 * (token[1] * b->spec.H + 3)), &nan, 2, &err));
    }
    TRY(judge_tokens(&s));
    T_EQ(s.wrong, spoilt);
    T_EQ(alone(b, s.n, token), spoilt);
    if (!fault) printf("# worst |error| / bound %.3f\n", s.worst);
}

static void judge_small(bool fault) {
    moec_device *device;
    batch b;
    TRY(moec_device_open("cpu", 0, &device, &err));
    TRY(open_batch(&b, device, "E=8 K=4 H=64 F=32", 50));
    judge_large(&b, 64, fault);
    close_batch(&b);
    moec_device_close(device);
}

T_CASE(sampled_tokens_are_judged_on_the_cpu) { judge_small(false); }
T_CASE(a_spoilt_output_is_seen) { judge_small(true); }

static void past_2_to_32(const char *spec, int64_t T, int64_t columns) {
    moec_device *device;
    batch b;
    OPEN(device);
    moec_status rc = open_batch(&b, device, spec, T);
    if (rc) T_FAIL("%s", err.text);
    else T_OK(T * b.spec.K * columns > (int64_t)1 << 32);
    if (!rc) judge_large(&b, columns, false);
    close_batch(&b);
    moec_device_close(device);
}

T_CASE(more_than_2_to_32_elements_of_down_and_dx) {
    past_2_to_32("E=32 K=16 H=4096 F=64", 65600, 4096);
}
T_CASE(more_than_2_to_32_elements_of_hpre) { past_2_to_32("E=32 K=16 H=64 F=2048", 65600, 4096); }

/* ---- a CUDA graph on the caller's stream ---- */

static const int outputs[] = {OUT, DX, DW1, DW2, DWEIGHT};
enum { OUTPUTS = sizeof outputs / sizeof *outputs };

static moec_status poison(batch *b) {
    for (int i = 0; i < OUTPUTS; i++) {
        size_t bytes = b->bytes[outputs[i]];
        void *nan = malloc(bytes);
        memset(nan, 0xFF, bytes);
        moec_status rc = moec_upload(b->device, b->at[outputs[i]], nan, bytes, &err);
        free(nan);
        if (rc) return rc;
    }
    return MOEC_OK;
}

static moec_status fetch(batch *b, void *into[OUTPUTS]) {
    for (int i = 0; i < OUTPUTS; i++) {
        if (!into[i]) into[i] = malloc(b->bytes[outputs[i]]);
        MOEC_TRY(moec_download(b->device, into[i], b->at[outputs[i]], b->bytes[outputs[i]], &err));
    }
    return MOEC_OK;
}

static moec_status capture(batch *b, const moec_cuda *cuda, CUstream stream, CUgraphExec *exec) {
    CUgraph graph;
    CUresult result = cuda->capture_begin(stream, 0); /* mode global: any forbidden call ends it */
    if (result) return moec_cuda_fail(cuda, result, "cuStreamBeginCapture", &err);
    MOEC_TRY(both(b, stream));
    result = cuda->capture_end(stream, &graph);
    if (result) return moec_cuda_fail(cuda, result, "cuStreamEndCapture", &err);
    result = cuda->graph_instantiate(exec, graph, 0);
    cuda->graph_destroy(graph);
    return result ? moec_cuda_fail(cuda, result, "cuGraphInstantiate", &err) : MOEC_OK;
}

static void replay(batch *b, const moec_cuda *cuda, CUstream stream) {
    void *plain[OUTPUTS] = {NULL}, *again[OUTPUTS] = {NULL};
    moec_counters before, after;
    CUgraphExec exec;
    TRY(poison(b));
    TRY(both(b, stream));
    TRY(moec_synchronize(b->device, stream, &err));
    TRY(fetch(b, plain));
    moec_counters_read(&before);
    TRY(capture(b, cuda, stream, &exec));
    moec_counters_read(&after);
    T_EQ(after.allocations + after.compiles + after.files_opened,
         before.allocations + before.compiles + before.files_opened);
    for (int turn = 0; turn < 2; turn++) {
        TRY(poison(b));
        T_EQ(cuda->graph_launch(exec, stream), 0);
        TRY(moec_synchronize(b->device, stream, &err));
        TRY(fetch(b, again));
        for (int i = 0; i < OUTPUTS; i++) T_OK(!memcmp(plain[i], again[i], b->bytes[outputs[i]]));
    }
    cuda->graph_exec_destroy(exec);
    for (int i = 0; i < OUTPUTS; i++) free(plain[i]), free(again[i]);
}

static void graph_of(const char *target, const char *spec, int64_t T) {
    moec_device *device;
    const moec_cuda *cuda;
    CUstream stream;
    batch b;
    OPEN_TARGET(target, device);
    TRY(moec_cuda_open(&cuda, &err));
    TRY(open_batch(&b, device, spec, T));
    T_NEED(!cuda->stream_create(&stream, 1)); /* non-blocking: not ordered with the default stream */
    replay(&b, cuda, stream);
    cuda->stream_destroy(stream);
    close_batch(&b);
    moec_device_close(device);
}

T_CASE(a_graph_replays_a_layer_bit_by_bit) { graph_of("cuda", "E=64 K=8 H=1024 F=512", 2048); }
T_CASE(a_graph_replays_ragged_sizes) { graph_of("cuda", "E=8 K=2 H=264 F=136", 300); }
T_CASE(a_graph_replays_the_generic_kernels) { graph_of("sm_80", "E=8 K=2 H=264 F=136", 300); }

/* ---- column blocks ---- */

/* The layer in blocks writes the bits that it writes whole. Blocks make y smaller: tokens are so many that y, and no
 * kernel's scratch (which grows with threads and SMs), is what the workspace must hold. */
static void blocks_of(const char *target, const char *spec, int64_t T, int blocks) {
    moec_device *device;
    moec_layer *parts;
    moec_layer_options options = {.column_blocks = blocks};
    void *whole[OUTPUTS] = {NULL}, *again[OUTPUTS] = {NULL};
    batch b;
    OPEN_TARGET(target, device);
    TRY(open_batch(&b, device, spec, T));
    TRY(moec_layer_create(device, spec, &options, &parts, &err));
    size_t bytes = moec_layer_workspace_bytes(b.layer, T), less = moec_layer_workspace_bytes(parts, T);
    printf("# workspace %.1f MiB, in %d blocks %.1f MiB\n", (double)bytes / 1048576, blocks, (double)less / 1048576);
    T_OK(less < bytes || !T);
    TRY(poison(&b));
    TRY(both(&b, NULL));
    TRY(moec_synchronize(device, NULL, &err));
    TRY(fetch(&b, whole));
    moec_layer *kept = b.layer;
    b.layer = parts;
    TRY(poison(&b));
    TRY(both(&b, NULL));
    TRY(moec_synchronize(device, NULL, &err));
    TRY(fetch(&b, again));
    for (int i = 0; i < OUTPUTS; i++) {
        T_OK(!memcmp(whole[i], again[i], b.bytes[outputs[i]]));
        free(whole[i]), free(again[i]);
    }
    b.layer = kept;
    moec_layer_free(parts);
    close_batch(&b);
    moec_device_close(device);
}

T_CASE(column_blocks_give_the_same_bits) { blocks_of("cuda", "E=64 K=8 H=1024 F=512", 2048, 4); }
T_CASE(column_blocks_of_ragged_sizes) { blocks_of("cuda", "E=8 K=4 H=264 F=72", 40000, 3); }
T_CASE(column_blocks_of_the_generic_kernels) { blocks_of("sm_80", "E=8 K=4 H=264 F=72", 300, 3); }
T_CASE(column_blocks_without_tokens) { blocks_of("cuda", "E=8 K=4 H=264 F=72", 0, 3); }
T_CASE(column_blocks_on_the_cpu) {
    char *threads = getenv("OMP_NUM_THREADS"), *old = threads ? strdup(threads) : NULL;
    setenv("OMP_NUM_THREADS", "4", 1);
    blocks_of("cpu", "E=8 K=4 H=1024 F=64", 4000, 4);
    if (old) setenv("OMP_NUM_THREADS", old, 1);
    else unsetenv("OMP_NUM_THREADS");
    free(old);
}

/* ---- from a spec to loaded kernels ---- */

static double time_to_layer(void) {
    moec_device *device;
    moec_layer *layer;
    if (moec_device_open("cuda", 0, &device, &err)) return -1;
    double start = now();
    moec_status rc = moec_layer_create(device, "E=128 K=8 H=2048 F=768", NULL, &layer, &err);
    double seconds = rc ? -1 : now() - start;
    if (!rc) moec_layer_free(layer);
    moec_device_close(device);
    return seconds;
}

T_CASE(a_layer_compiles_in_seconds_and_loads_in_milliseconds) {
    moec_device *device;
    char dir[] = "/tmp/moec-t-gpu.XXXXXX", *old = getenv("MOEC_CACHE");
    OPEN(device);
    moec_device_close(device);
    T_NEED(mkdtemp(dir) != NULL);
    setenv("MOEC_CACHE", dir, 1);
    double cold = time_to_layer(), warm = time_to_layer();
    if (cold < 0 || warm < 0) T_FAIL("%s", err.text);
    printf("# cold %.2f s, warm %.3f s\n", cold, warm);
    T_OK(cold < 15);
    T_OK(warm < 0.5);
    if (old) setenv("MOEC_CACHE", old, 1);
    else unsetenv("MOEC_CACHE");
    moec_dir_remove(dir);
}

/* PTX of sm_80 is finished by the driver, which reports nothing: what it made must keep to registers. */
static void in_registers(const char *spec) {
    moec_device *device;
    const moec_cuda *cuda;
    moec_layer *layer;
    int count = 0;
    OPEN_TARGET("sm_80", device);
    TRY(moec_cuda_open(&cuda, &err));
    TRY(moec_layer_create(device, spec, NULL, &layer, &err));
    for (const moec_module *m = device->modules; m; m = m->next, count++) {
        int local = -1, registers = -1;
        T_EQ(cuda->function_get(&local, CU_FUNC_LOCAL_BYTES, m->entry), 0);
        T_EQ(cuda->function_get(&registers, CU_FUNC_REGISTERS, m->entry), 0);
        if (local) T_FAIL("%s: %d bytes of local memory, %d registers", m->kernel.symbol, local, registers);
    }
    T_OK(count >= 9);
    moec_layer_free(layer);
    moec_device_close(device);
}

T_CASE(the_driver_spills_nothing_in_bf16) { in_registers("E=64 K=8 H=1024 F=512"); }
T_CASE(the_driver_spills_nothing_in_f32) { in_registers("E=64 K=8 H=1024 F=512 dtype=f32"); }

/* ---- bad input ---- */

T_CASE(a_layer_refuses_host_pointers_and_lives_on) {
    moec_device *device;
    batch b;
    OPEN(device);
    TRY(open_batch(&b, device, "E=8 K=2 H=64 F=64", 100));
    moec_forward call = b.forward;
    call.x = noise[0];
    T_EQ(moec_layer_forward(b.layer, &call, &err), MOEC_E_INVAL);
    T_HAS(err.text, "argument x of op up");
    T_HAS(err.text, "hint: ");
    TRY(moec_synchronize(device, NULL, &err));
    judge_large(&b, 64, false);
    close_batch(&b);
    moec_device_close(device);
}

T_CASE(memory_that_does_not_fit_names_who_asked) {
    moec_device *device;
    void *p;
    OPEN(device);
    T_EQ(moec_alloc(device, (size_t)1 << 42, "weights of layer 7", &p, &err), MOEC_E_NOMEM);
    T_HAS(err.text, "4398046511104 bytes for weights of layer 7");
    T_HAS(err.text, "bytes are free");
    T_EQ(moec_alloc(device, 4096, "a page", &p, &err), MOEC_OK);
    moec_free(device, p);
    moec_device_close(device);
}

static const char fault_ptx[] =
    ".version 7.0\n.target sm_80\n.address_size 64\n"
    ".visible .entry fault()\n{\n  .reg .b64 %a;\n  .reg .b32 %v;\n"
    "  mov.u64 %a, 16;\n  mov.u32 %v, 1;\n  st.global.u32 [%a], %v;\n  ret;\n}\n";

/* Last: the process' context is lost. */
T_CASE(z_a_faulting_kernel_marks_the_device_dead) {
    moec_device *device;
    const moec_cuda *cuda;
    CUmodule module;
    CUfunction function;
    batch b;
    void *p;
    OPEN(device);
    TRY(moec_cuda_open(&cuda, &err));
    TRY(open_batch(&b, device, "E=8 K=2 H=64 F=64", 100));
    T_NEED(!cuda->module_load(&module, fault_ptx) && !cuda->module_function(&function, module, "fault"));
    CUlaunchConfig config = {.grid = {1, 1, 1}, .block = {1, 1, 1}};
    T_NEED(!cuda->launch(&config, function, NULL, NULL));
    T_EQ(moec_synchronize(device, NULL, &err), MOEC_E_DEVICE);
    T_HAS(err.text, "CUDA_ERROR_ILLEGAL_ADDRESS");
    T_HAS(err.text, "the context is lost");
    T_EQ(moec_layer_forward(b.layer, &b.forward, &err), MOEC_E_DEVICE);
    T_HAS(err.text, "the device failed earlier");
    T_HAS(err.text, "restart the process");
    T_EQ(moec_alloc(device, 64, "nobody", &p, &err), MOEC_E_DEVICE);
    T_HAS(err.text, "the device failed earlier");
    T_EQ(moec_exit_code(MOEC_E_DEVICE), 4);
    close_batch(&b);
    moec_device_close(device);
}

T_MAIN
