/* CUDA's compute ceiling: a square product of cuBLAS, 8192 x 8192 x 8192 in bf16 (4096 in f32), on
 * random values. Its buffers stay until the benchmark is done. */
#include "ceiling.h"

#include <stdio.h>
#include <stdlib.h>

#include "dl_cublas.h"
#include "random.h"

enum { TIMES = 2, NOISE = 1 << 20 };

static struct {
    moec_device *device;
    void *handle, *a, *b, *c;
    int64_t dtype;
} state;

static void cuda_done(moec_device *device) {
    const moec_cublas *cublas;
    if (state.device != device) return;
    if (state.handle && !moec_cublas_open(&cublas, NULL)) cublas->destroy(state.handle);
    moec_free(device, state.a), moec_free(device, state.b), moec_free(device, state.c);
    state.device = NULL;
    state.handle = state.a = state.b = state.c = NULL;
}

static int side_of(int64_t dtype) { return dtype == MOEC_BF16 ? 8192 : 4096; }

static moec_status fill(moec_device *device, void *to, size_t bytes, int64_t dtype, moec_error *err) {
    moec_random random = moec_random_new(1, 0xB1A5);
    float *noise = malloc(NOISE * sizeof *noise);
    size_t period = NOISE * (dtype == MOEC_BF16 ? sizeof(uint16_t) : sizeof(float));
    if (!noise) return moec_fail(err, MOEC_E_NOMEM, "out of memory: random values");
    for (int i = 0; i < NOISE; i++) noise[i] = (float)moec_random_normal(&random);
    for (int i = 0; dtype == MOEC_BF16 && i < NOISE; i++) ((uint16_t *)noise)[i] = ((uint16_t *)noise)[2 * i + 1];
    moec_status rc = MOEC_OK;
    for (size_t done = 0; done < bytes && !rc; done += period)
        rc = moec_upload(device, (char *)to + done, noise, bytes - done < period ? bytes - done : period, err);
    free(noise);
    return rc;
}

static moec_status prepare(moec_device *device, int64_t dtype, const moec_cublas *cublas, moec_error *err) {
    size_t n = (size_t)side_of(dtype), bytes = n * n * (dtype == MOEC_BF16 ? 2 : 4);
    if (state.device == device && state.dtype == dtype) return MOEC_OK;
    if (state.device) cuda_done(state.device);
    state.device = device;
    state.dtype = dtype;
    MOEC_TRY(moec_alloc(device, bytes, "the compute ceiling", &state.a, err));
    MOEC_TRY(moec_alloc(device, bytes, "the compute ceiling", &state.b, err));
    MOEC_TRY(moec_alloc(device, bytes, "the compute ceiling", &state.c, err));
    MOEC_TRY(fill(device, state.a, bytes, dtype, err));
    MOEC_TRY(fill(device, state.b, bytes, dtype, err));
    if (cublas->create(&state.handle)) return moec_fail(err, MOEC_E_TOOL, "cuBLAS cannot start");
    return MOEC_OK;
}

static moec_status multiply(const moec_cublas *cublas, int64_t dtype, int times, moec_error *err) {
    static const float one = 1, none = 0;
    int n = side_of(dtype), type = dtype == MOEC_BF16 ? CUBLAS_BF16 : CUBLAS_F32;
    for (int i = 0; i < times; i++)
        if (cublas->gemm(state.handle, CUBLAS_TRANSPOSED, CUBLAS_PLAIN, n, n, n, &one, state.a, type, n, state.b,
                         type, n, &none, state.c, type, n, CUBLAS_SUMS_F32, CUBLAS_DEFAULT))
            return moec_fail(err, MOEC_E_TOOL, "cuBLAS refused a product of %d", n);
    return moec_synchronize(state.device, NULL, err);
}

static moec_status cuda_compute(moec_device *device, int64_t dtype, double *flops, char what[64],
                                moec_error *err) {
    const moec_cublas *cublas;
    double n = side_of(dtype);
    MOEC_TRY(moec_cublas_open(&cublas, err));
    bool fresh = state.device != device || state.dtype != dtype;
    MOEC_TRY(prepare(device, dtype, cublas, err));
    if (fresh) MOEC_TRY(multiply(cublas, dtype, TIMES, err));
    double start = moec_seconds();
    MOEC_TRY(multiply(cublas, dtype, TIMES, err));
    *flops = TIMES * 2 * n * n * n / (moec_seconds() - start);
    snprintf(what, 64, "cuBLAS %s, %d^3", dtype == MOEC_BF16 ? "bf16" : "f32", side_of(dtype));
    return MOEC_OK;
}

const moec_ceiling_ops moec_cuda_ceiling = {.family = "cuda", .compute = cuda_compute, .done = cuda_done};
