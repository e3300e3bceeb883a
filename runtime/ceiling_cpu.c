/* CPU ceilings: loops of independent products in registers, and a threaded copy.
 *
 * Every worker times itself over the same number of instructions; the rates are added. Assembly,
 * because this file is compiled for any x86-64 while the loops need what cpuid promised. */
#include "ceiling.h"

#include <stdlib.h>
#include <string.h>

void GOMP_parallel(void (*body)(void *), void *data, unsigned threads, unsigned flags);
void GOMP_barrier(void);
int omp_get_thread_num(void);

enum { MOST_WORKERS = 4096, COPY_BYTES = 256 << 20 };

typedef void loop(long count);

typedef struct unit {
    const char *what;
    loop *run;
    double flops;     /* of one turn of the loop */
    long turns;       /* about 1 ms */
} unit;

#if defined(__x86_64__)

#define VECTORS "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10", \
                "xmm11", "xmm12", "xmm13", "xmm14", "xmm15"
static const unsigned ones_f32 = 0x3f800000, ones_bf16 = 0x3f803f80; /* zeros may run at a higher clock */

/* `op` on 12 independent sums hides its latency; register 15 times register 14, both 1. */
#define TWELVE(op, r)                                                                             \
    op " %%" r "15, %%" r "14, %%" r "0\n" op " %%" r "15, %%" r "14, %%" r "1\n"                 \
    op " %%" r "15, %%" r "14, %%" r "2\n" op " %%" r "15, %%" r "14, %%" r "3\n"                 \
    op " %%" r "15, %%" r "14, %%" r "4\n" op " %%" r "15, %%" r "14, %%" r "5\n"                 \
    op " %%" r "15, %%" r "14, %%" r "6\n" op " %%" r "15, %%" r "14, %%" r "7\n"                 \
    op " %%" r "15, %%" r "14, %%" r "8\n" op " %%" r "15, %%" r "14, %%" r "9\n"                 \
    op " %%" r "15, %%" r "14, %%" r "10\n" op " %%" r "15, %%" r "14, %%" r "11\n"
#define VECTOR_LOOP(name, op, r, ones)                                                            \
    static void name(long count) {                                                                \
        __asm__ volatile("vzeroall\n"                                                             \
                         "vbroadcastss %1, %%" r "14\nvbroadcastss %1, %%" r "15\n"               \
                         "1:\n" TWELVE(op, r) "dec %0\njnz 1b\nvzeroupper"                        \
                         : "+r"(count) : "m"(ones) : VECTORS, "memory", "cc");                    \
    }
VECTOR_LOOP(fma_zmm, "vfmadd231ps", "zmm", ones_f32)
VECTOR_LOOP(fma_ymm, "vfmadd231ps", "ymm", ones_f32)
VECTOR_LOOP(dot_zmm, "vdpbf16ps", "zmm", ones_bf16)

/* SSE has no fused product: six products and six sums. */
static void mul_add_xmm(long count) {
    __asm__ volatile("1:\n"
                     "mulps %%xmm12, %%xmm0\nmulps %%xmm12, %%xmm1\nmulps %%xmm12, %%xmm2\n"
                     "mulps %%xmm12, %%xmm3\nmulps %%xmm12, %%xmm4\nmulps %%xmm12, %%xmm5\n"
                     "addps %%xmm13, %%xmm6\naddps %%xmm13, %%xmm7\naddps %%xmm13, %%xmm8\n"
                     "addps %%xmm13, %%xmm9\naddps %%xmm13, %%xmm10\naddps %%xmm13, %%xmm11\n"
                     "dec %0\njnz 1b"
                     : "+r"(count)::VECTORS, "memory", "cc");
}

/* Four sums of 16 x 16, as the kernels keep them. */
static void tiles(long count) {
    struct { unsigned char palette, start, zero[14]; unsigned short bytes[16]; unsigned char rows[16]; } config;
    unsigned short ones[512] __attribute__((aligned(64)));
    for (int i = 0; i < 512; i++) ones[i] = 0x3f80;
    memset(&config, 0, sizeof config);
    config.palette = 1;
    for (int i = 0; i < 8; i++) config.bytes[i] = 64, config.rows[i] = 16;
    __asm__ volatile("ldtilecfg %1\n"
                     "tileloadd (%2,%3,1), %%tmm4\ntileloadd (%2,%3,1), %%tmm5\n"
                     "tileloadd (%2,%3,1), %%tmm6\ntileloadd (%2,%3,1), %%tmm7\n"
                     "tilezero %%tmm0\ntilezero %%tmm1\ntilezero %%tmm2\ntilezero %%tmm3\n"
                     "1:\n"
                     "tdpbf16ps %%tmm6, %%tmm4, %%tmm0\ntdpbf16ps %%tmm7, %%tmm4, %%tmm1\n"
                     "tdpbf16ps %%tmm6, %%tmm5, %%tmm2\ntdpbf16ps %%tmm7, %%tmm5, %%tmm3\n"
                     "dec %0\njnz 1b\ntilerelease"
                     : "+r"(count) : "m"(config), "r"(ones), "r"(64L) : "memory", "cc");
}

static const unit amx = {"AMX bf16 tiles", tiles, 4 * 16384, 30000};
static const unit avx512_bf16 = {"AVX-512 bf16 dot", dot_zmm, 12 * 64, 200000};
static const unit avx512 = {"AVX-512 f32 FMA", fma_zmm, 12 * 32, 300000};
static const unit avx2 = {"AVX2 f32 FMA", fma_ymm, 12 * 16, 300000};
static const unit sse = {"SSE f32 product and sum", mul_add_xmm, 12 * 4, 300000};

/* Emulated tiles are judged by the vectors that they run on. */
static const unit *unit_of(const moec_target *target, int64_t dtype) {
    if (moec_cpu_emulates(target)) target = moec_cpu_best();
    if (target->amx && dtype == MOEC_BF16) return &amx;
    if (target->bf16_dot && dtype == MOEC_BF16) return &avx512_bf16;
    if (target->vector_bits == 512) return &avx512;
    return target->vector_bits == 256 ? &avx2 : &sse;
}
#else
static void plain(long count) {
    volatile float sum = 0;
    for (long i = 0; i < count; i++) sum = sum + 1.0f;
}
static const unit scalar = {"scalar sums", plain, 1, 300000};
static const unit *unit_of(const moec_target *target, int64_t dtype) {
    (void)target, (void)dtype;
    return &scalar;
}
#endif

typedef struct race {
    const unit *unit;
    char *from, *to;
    size_t share;
    double rate[MOST_WORKERS];
} race;

static void compute_body(void *data) {
    race *r = data;
    r->unit->run(r->unit->turns / 4); /* clocks and licences settle */
    GOMP_barrier();
    double start = moec_seconds();
    r->unit->run(r->unit->turns);
    r->rate[omp_get_thread_num()] = r->unit->flops * (double)r->unit->turns / (moec_seconds() - start);
}

static double sum(const race *r, int workers) {
    double all = 0;
    for (int i = 0; i < workers; i++) all += r->rate[i];
    return all;
}

static moec_status cpu_compute(moec_device *device, int64_t dtype, double *flops, char what[64],
                               moec_error *err) {
    race *r = calloc(1, sizeof *r);
    if (!r) return moec_fail(err, MOEC_E_NOMEM, "out of memory: ceiling");
    r->unit = unit_of(device->target, dtype);
    GOMP_parallel(compute_body, r, (unsigned)device->threads, 0);
    *flops = sum(r, device->threads);
    strncpy(what, r->unit->what, 63);
    what[63] = 0;
    free(r);
    return MOEC_OK;
}

static void copy_body(void *data) {
    race *r = data;
    int worker = omp_get_thread_num();
    char *from = r->from + r->share * (size_t)worker, *to = r->to + r->share * (size_t)worker;
    memset(from, 1, r->share); /* this worker's memory, touched by it first */
    memset(to, 2, r->share);
    GOMP_barrier();
    double start = moec_seconds();
    memcpy(to, from, r->share);
    r->rate[worker] = 2 * (double)r->share / (moec_seconds() - start);
}

static moec_status cpu_copy(moec_device *device, double *bytes, moec_error *err) {
    race *r = calloc(1, sizeof *r);
    if (!r) return moec_fail(err, MOEC_E_NOMEM, "out of memory: ceiling");
    r->share = COPY_BYTES / (size_t)device->threads / 4096 * 4096;
    void *from = NULL, *to = NULL;
    moec_status rc = moec_alloc(device, COPY_BYTES, "the copy ceiling", &from, err);
    if (!rc) rc = moec_alloc(device, COPY_BYTES, "the copy ceiling", &to, err);
    r->from = from, r->to = to;
    *bytes = 0;
    for (int i = 0; i < 3 && !rc; i++) { /* the best of three: a ceiling */
        GOMP_parallel(copy_body, r, (unsigned)device->threads, 0);
        double now = sum(r, device->threads);
        if (now > *bytes) *bytes = now;
    }
    moec_free(device, from);
    moec_free(device, to);
    free(r);
    return rc;
}

const moec_ceiling_ops moec_cpu_ceiling = {.family = "cpu", .compute = cpu_compute, .copy = cpu_copy};
