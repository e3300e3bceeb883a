/* oneDNN as a peer: one matmul primitive for each group, weights in the layout it likes best.
 *
 * Opened at run time; major versions 2 and 3 of its C interface. They differ in descriptors: version
 * 2 has structs that the caller owns (here: blocks that are surely large enough), version 3 handles.
 * Values of constants are those of dnnl_types.h, the same in both. */
#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "peer.h"

enum { KIND_CPU = 1, TYPE_BF16 = 2, TYPE_F32 = 3, TAG_ANY = 1, QUERY_WEIGHTS_MD = 131,
       ARG_SRC = 1, ARG_DST = 17, ARG_WEIGHTS = 33, IN_ORDER = 1 };
enum { DESC_BYTES = 8192, MOST_DIMS = 12 }; /* above sizeof(dnnl_memory_desc_t), dnnl_matmul_desc_t */

typedef int64_t dims[MOST_DIMS];
typedef struct exec_arg { int arg; void *memory; } exec_arg;
typedef struct dnnl_version_words { int major, minor, patch; } dnnl_version_words;

/* name, type of the function, required in version 2, in version 3 */
#define FUNCTIONS(X)                                                                            \
    X(version, const dnnl_version_words *, (void), 1, 1)                                        \
    X(engine_create, int, (void **engine, int kind, size_t index), 1, 1)                        \
    X(stream_create, int, (void **stream, void *engine, unsigned flags), 1, 1)                  \
    X(stream_wait, int, (void *stream), 1, 1)                                                   \
    X(memory_desc_init_by_strides, int,                                                         \
      (void *desc, int count, const int64_t *sizes, int type, const int64_t *strides), 1, 0)    \
    X(memory_desc_init_by_tag, int, (void *desc, int count, const int64_t *sizes, int type, int tag), 1, 0) \
    X(matmul_desc_init, int,                                                                    \
      (void *matmul, const void *src, const void *weights, const void *bias, const void *dst), 1, 0) \
    X(primitive_desc_create, int,                                                               \
      (void **pd, const void *op, const void *attr, void *engine, const void *hint), 1, 0)      \
    X(memory_desc_create_with_strides, int,                                                     \
      (void **desc, int count, const int64_t *sizes, int type, const int64_t *strides), 0, 1)   \
    X(memory_desc_create_with_tag, int,                                                         \
      (void **desc, int count, const int64_t *sizes, int type, int tag), 0, 1)                  \
    X(memory_desc_destroy, int, (void *desc), 0, 1)                                             \
    X(matmul_primitive_desc_create, int, (void **pd, void *engine, const void *src, const void *weights, \
      const void *bias, const void *dst, const void *attr), 0, 1)                               \
    X(primitive_desc_query_md, const void *, (const void *pd, int what, int index), 1, 1)       \
    X(primitive_desc_destroy, int, (void *pd), 1, 1)                                            \
    X(memory_desc_get_size, size_t, (const void *desc), 1, 1)                                   \
    X(primitive_create, int, (void **primitive, const void *pd), 1, 1)                          \
    X(primitive_destroy, int, (void *primitive), 1, 1)                                          \
    X(primitive_execute, int, (const void *primitive, void *stream, int count, const exec_arg *args), 1, 1) \
    X(memory_create, int, (void **memory, const void *desc, void *engine, void *handle), 1, 1)  \
    X(memory_set_data_handle, int, (void *memory, void *handle), 1, 1)                          \
    X(memory_destroy, int, (void *memory), 1, 1)

static struct {
#define X(name, type, params, v2, v3) type (*name) params;
    FUNCTIONS(X)
#undef X
    void (*set_threads)(int threads); /* of the OpenMP runtime that oneDNN came with, not moec's */
    void *engine, *stream;
    int major;
} dnnl;
static moec_status opened;
static moec_error reason;
static pthread_once_t once = PTHREAD_ONCE_INIT;

static moec_status bind(void *library) {
    *(void **)(void *)&dnnl.version = dlsym(library, "dnnl_version");
    dnnl.major = dnnl.version ? dnnl.version()->major : 0;
    if (dnnl.major != 2 && dnnl.major != 3)
        return moec_fail(&reason, MOEC_E_TOOL, "oneDNN of major version %d is not known here", dnnl.major);
#define X(name, type, params, v2, v3)                                                   \
    *(void **)(void *)&dnnl.name = dlsym(library, "dnnl_" #name);                       \
    if (!dnnl.name && (dnnl.major == 2 ? v2 : v3))                                      \
        return moec_fail(&reason, MOEC_E_TOOL, "oneDNN lacks the function dnnl_" #name);
    FUNCTIONS(X)
#undef X
    *(void **)(void *)&dnnl.set_threads = dlsym(library, "omp_set_num_threads");
    if (!dnnl.set_threads) return moec_fail(&reason, MOEC_E_TOOL, "this oneDNN does not run on OpenMP");
    if (dnnl.engine_create(&dnnl.engine, KIND_CPU, 0) ||
        dnnl.stream_create(&dnnl.stream, dnnl.engine, IN_ORDER))
        return moec_fail(&reason, MOEC_E_TOOL, "oneDNN cannot make a CPU engine");
    return MOEC_OK;
}

static void open_library(void) {
    static const char *const names[] = {"libdnnl.so.3", "libdnnl.so.2", "libdnnl.so"};
    void *library = NULL;
    for (size_t i = 0; i < sizeof names / sizeof *names && !library; i++)
        library = dlopen(names[i], RTLD_NOW | RTLD_LOCAL);
    opened = library ? bind(library)
                     : moec_fail(&reason, MOEC_E_TOOL, "oneDNN was not found (libdnnl.so.3, libdnnl.so.2)");
}

static moec_status dnnl_open(char version[64], moec_error *err) {
    pthread_once(&once, open_library);
    if (opened) {
        moec_status rc = moec_fail(err, opened, "%s", reason.text);
        return moec_hint(err, rc, "%s", moec_dnnl_peer.needs);
    }
    const dnnl_version_words *v = dnnl.version();
    snprintf(version, 64, "%d.%d.%d", v->major, v->minor, v->patch);
    return MOEC_OK;
}

static bool dnnl_takes(int64_t dtype) { return dtype == MOEC_BF16 || dtype == MOEC_F32; }

/* ---- descriptors of both versions ---- */

typedef struct desc {
    void *handle;            /* version 3 */
    char block[DESC_BYTES];  /* version 2 */
} desc;

static const void *of(const desc *d) { return dnnl.major == 2 ? d->block : d->handle; }

/* A matrix with the given strides, or in any layout when row_stride is 0. */
static int describe(desc *d, int64_t rows, int64_t columns, int type, int64_t row_stride,
                    int64_t column_stride) {
    dims sizes = {rows, columns}, strides = {row_stride, column_stride};
    d->handle = NULL;
    if (row_stride == 0)
        return dnnl.major == 2 ? dnnl.memory_desc_init_by_tag(d->block, 2, sizes, type, TAG_ANY)
                               : dnnl.memory_desc_create_with_tag(&d->handle, 2, sizes, type, TAG_ANY);
    return dnnl.major == 2
               ? dnnl.memory_desc_init_by_strides(d->block, 2, sizes, type, strides)
               : dnnl.memory_desc_create_with_strides(&d->handle, 2, sizes, type, strides);
}

static int matmul_desc(void **pd, const desc *src, const desc *weights, const desc *dst) {
    char op[DESC_BYTES];
    if (dnnl.major == 3)
        return dnnl.matmul_primitive_desc_create(pd, dnnl.engine, of(src), of(weights), NULL, of(dst), NULL);
    int rc = dnnl.matmul_desc_init(op, of(src), of(weights), NULL, of(dst));
    return rc ? rc : dnnl.primitive_desc_create(pd, op, NULL, dnnl.engine, NULL);
}

/* ---- plans ---- */

typedef struct product { void *primitive, *src, *weights, *dst; } product;

typedef struct plan {
    moec_peer_gemm gemm;
    product *products;       /* [groups]; primitive NULL: the group has no rows */
    size_t group_bytes;      /* of the weights of one group in oneDNN's layout */
} plan;

static void dnnl_free(void *data) {
    plan *p = data;
    if (!p) return;
    for (int i = 0; p->products && i < p->gemm.groups; i++) {
        product *q = &p->products[i];
        if (q->primitive) dnnl.primitive_destroy(q->primitive);
        if (q->src) dnnl.memory_destroy(q->src);
        if (q->weights) dnnl.memory_destroy(q->weights);
        if (q->dst) dnnl.memory_destroy(q->dst);
    }
    free(p->products);
    free(p);
}

/* The three matrices of a group of m rows as matmul sees them. */
static int describe_group(const moec_peer_gemm *g, int64_t m, desc *src, desc *weights, desc *dst) {
    int type = g->dtype == MOEC_BF16 ? TYPE_BF16 : TYPE_F32;
    if (g->kind == MOEC_PEER_TN)
        return describe(src, g->n, m, type, 1, g->n) || describe(weights, m, g->k, type, g->k, 1) ||
               describe(dst, g->n, g->k, TYPE_F32, g->k, 1);
    return describe(src, m, g->k, type, g->k, 1) || describe(weights, g->k, g->n, type, 0, 0) ||
           describe(dst, m, g->n, type, g->n, 1);
}

static int plan_group(plan *p, product *q, int64_t m) {
    desc src = {0}, weights = {0}, dst = {0};
    void *pd = NULL;
    int rc = describe_group(&p->gemm, m, &src, &weights, &dst);
    if (!rc) rc = matmul_desc(&pd, &src, &weights, &dst);
    if (!rc) {
        const void *layout = p->gemm.kind == MOEC_PEER_TN
                                 ? of(&weights)
                                 : dnnl.primitive_desc_query_md(pd, QUERY_WEIGHTS_MD, 0);
        size_t bytes = dnnl.memory_desc_get_size(layout);
        if (bytes > p->group_bytes) p->group_bytes = bytes;
        rc = dnnl.primitive_create(&q->primitive, pd) ||
             dnnl.memory_create(&q->src, of(&src), dnnl.engine, NULL) ||
             dnnl.memory_create(&q->weights, layout, dnnl.engine, NULL) ||
             dnnl.memory_create(&q->dst, of(&dst), dnnl.engine, NULL);
    }
    if (pd) dnnl.primitive_desc_destroy(pd);
    if (src.handle) dnnl.memory_desc_destroy(src.handle);
    if (weights.handle) dnnl.memory_desc_destroy(weights.handle);
    if (dst.handle) dnnl.memory_desc_destroy(dst.handle);
    return rc;
}

static moec_status dnnl_plan(const moec_peer_gemm *gemm, void **out, moec_error *err) {
    plan *p = calloc(1, sizeof *p);
    if (p) p->products = calloc((size_t)gemm->groups, sizeof *p->products);
    if (!p || !p->products) {
        free(p);
        return moec_fail(err, MOEC_E_NOMEM, "out of memory: plan of oneDNN");
    }
    p->gemm = *gemm;
    dnnl.set_threads(gemm->threads);
    for (int i = 0; i < gemm->groups; i++) {
        int64_t m = gemm->offsets[i + 1] - gemm->offsets[i];
        if (m && plan_group(p, &p->products[i], m)) {
            dnnl_free(p);
            return moec_fail(err, MOEC_E_UNSUPPORTED, "oneDNN has no matmul for this type and shape");
        }
    }
    *out = p;
    return MOEC_OK;
}

static size_t dnnl_weight_bytes(const void *data) {
    const plan *p = data;
    return p->gemm.kind == MOEC_PEER_TN ? 0 : p->group_bytes * (size_t)p->gemm.groups;
}

static moec_status dnnl_run(void *data, const void *left, const void *right, void *out, moec_error *err) {
    plan *p = data;
    const moec_peer_gemm *g = &p->gemm;
    bool reduce = g->kind == MOEC_PEER_TN;
    int64_t bytes = g->dtype == MOEC_BF16 ? 2 : 4;
    dnnl.set_threads(g->threads);
    for (int i = 0; i < g->groups; i++) {
        product *q = &p->products[i];
        int64_t first = g->offsets[i];
        if (!q->primitive) continue;
        char *l = (char *)(uintptr_t)left + first * (reduce ? g->n : g->k) * bytes;
        char *r = (char *)(uintptr_t)right +
                  (reduce ? first * g->k * bytes : (int64_t)p->group_bytes * i);
        char *o = (char *)out + (reduce ? (int64_t)i * g->n * g->k * 4 : first * g->n * bytes);
        exec_arg args[3] = {{ARG_SRC, q->src}, {ARG_WEIGHTS, q->weights}, {ARG_DST, q->dst}};
        if (dnnl.memory_set_data_handle(q->src, l) || dnnl.memory_set_data_handle(q->weights, r) ||
            dnnl.memory_set_data_handle(q->dst, o) ||
            dnnl.primitive_execute(q->primitive, dnnl.stream, 3, args))
            return moec_fail(err, MOEC_E_TOOL, "oneDNN failed in group %d", i);
    }
    if (dnnl.stream_wait(dnnl.stream)) return moec_fail(err, MOEC_E_TOOL, "oneDNN failed");
    return MOEC_OK;
}

const moec_peer moec_dnnl_peer = {
    .name = "oneDNN", .needs = "apt install libdnnl2 (or libdnnl3)", .open = dnnl_open,
    .takes = dnnl_takes, .plan = dnnl_plan, .weight_bytes = dnnl_weight_bytes, .run = dnnl_run,
    .free = dnnl_free,
};
