/* OpenBLAS as a peer: cblas_sgemm for each group. Opened at run time; f32 only (Debian's build has no
 * bf16 product). Interface: cblas.h of the reference BLAS. */
#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

#include "peer.h"

enum { ROW_MAJOR = 101, PLAIN = 111, TRANSPOSED = 112 };

typedef void sgemm_fn(int order, int trans_a, int trans_b, int m, int n, int k, float alpha,
                      const float *a, int lda, const float *b, int ldb, float beta, float *c, int ldc);

static struct {
    sgemm_fn *sgemm;
    void (*set_threads)(int);
    char *(*config)(void);
} blas;
static moec_status opened;
static pthread_once_t once = PTHREAD_ONCE_INIT;

static void *symbol(void *library, const char *name) {
    void *at = dlsym(library, name);
    if (!at) opened = MOEC_E_TOOL;
    return at;
}

static void open_library(void) {
    static const char *const names[] = {"libopenblas.so.0", "libopenblas.so"};
    void *library = NULL;
    for (size_t i = 0; i < sizeof names / sizeof *names && !library; i++)
        library = dlopen(names[i], RTLD_NOW | RTLD_LOCAL);
    if (!library) {
        opened = MOEC_E_TOOL;
        return;
    }
    *(void **)(void *)&blas.sgemm = symbol(library, "cblas_sgemm");
    *(void **)(void *)&blas.set_threads = symbol(library, "openblas_set_num_threads");
    *(void **)(void *)&blas.config = symbol(library, "openblas_get_config");
}

static moec_status blas_open(char version[64], moec_error *err) {
    pthread_once(&once, open_library);
    if (opened) {
        moec_status rc = moec_fail(err, opened, "OpenBLAS was not found (libopenblas.so.0)");
        return moec_hint(err, rc, "%s", moec_openblas_peer.needs);
    }
    snprintf(version, 64, "%.63s", blas.config());
    return MOEC_OK;
}

static bool blas_takes(int64_t dtype) { return dtype == MOEC_F32; }

static moec_status blas_plan(const moec_peer_gemm *gemm, void **plan, moec_error *err) {
    moec_peer_gemm *copy = malloc(sizeof *copy);
    if (!copy) return moec_fail(err, MOEC_E_NOMEM, "out of memory: plan of OpenBLAS");
    *copy = *gemm;
    *plan = copy;
    return MOEC_OK;
}

static size_t blas_weight_bytes(const void *plan) {
    const moec_peer_gemm *g = plan;
    return g->kind == MOEC_PEER_TN ? 0 : (size_t)g->groups * (size_t)(g->n * g->k) * sizeof(float);
}

static moec_status blas_run(void *plan, const void *left, const void *right, void *out,
                            moec_error *err) {
    const moec_peer_gemm *g = plan;
    int n = (int)g->n, k = (int)g->k;
    (void)err;
    blas.set_threads(g->threads);
    for (int i = 0; i < g->groups; i++) {
        int64_t first = g->offsets[i];
        int m = (int)(g->offsets[i + 1] - first);
        const float *w = (const float *)right + (int64_t)i * n * k;
        if (g->kind == MOEC_PEER_TN)
            blas.sgemm(ROW_MAJOR, TRANSPOSED, PLAIN, n, k, m, 1, (const float *)left + first * n, n,
                       (const float *)right + first * k, k, 0, (float *)out + (int64_t)i * n * k, k);
        else if (m)
            blas.sgemm(ROW_MAJOR, PLAIN, g->kind == MOEC_PEER_NT ? TRANSPOSED : PLAIN, m, n, k, 1,
                       (const float *)left + first * k, k, w, g->kind == MOEC_PEER_NT ? k : n, 0,
                       (float *)out + first * n, n);
    }
    return MOEC_OK;
}

const moec_peer moec_openblas_peer = {
    .name = "OpenBLAS", .needs = "apt install libopenblas0-pthread", .open = blas_open,
    .takes = blas_takes, .plan = blas_plan, .weight_bytes = blas_weight_bytes, .run = blas_run,
    .free = free,
};
