/* peer: libraries that compute the same products, to compare with. Opened at run time if present.
 *
 * A peer computes the plain grouped product only: no gather, activation, bias or routing gradient.
 * Weights it may lay out as it likes beforehand (weight_bytes), which kernels of moec may not. */
#ifndef MOEC_PEER_H
#define MOEC_PEER_H

#include "../gen/gen.h"

typedef enum moec_peer_kind {
    MOEC_PEER_NT, /* out[m][n] = sum over k of left[m][k] * right[n][k]: right is weights */
    MOEC_PEER_NN, /* out[m][n] = sum over k of left[m][k] * right[k][n]: right is weights */
    MOEC_PEER_TN, /* out[n][k] = sum over m of left[m][n] * right[m][k], f32: right is rows */
} moec_peer_kind;

typedef struct moec_peer_gemm {
    moec_peer_kind kind;
    int64_t dtype;          /* MOEC_BF16, MOEC_F32 */
    int groups;
    const int32_t *offsets; /* [groups + 1] rows m of group g; lives as long as the plan */
    int64_t n, k;
    int threads;
} moec_peer_gemm;

typedef struct moec_peer {
    const char *name;       /* "oneDNN" */
    const char *needs;      /* what to install when it is missing */
    /* E_TOOL when the library is not there; version[64] says which one it is. */
    moec_status (*open)(char version[64], moec_error *err);
    bool (*takes)(int64_t dtype);
    moec_status (*plan)(const moec_peer_gemm *gemm, void **plan, moec_error *err);
    size_t (*weight_bytes)(const void *plan); /* of `right` of all groups; 0 for TN */
    moec_status (*run)(void *plan, const void *left, const void *right, void *out, moec_error *err);
    void (*free)(void *plan);
} moec_peer;

extern const moec_peer moec_dnnl_peer;     /* dl_dnnl.c */
extern const moec_peer moec_openblas_peer; /* dl_openblas.c */

/* Peers of a family of targets in a fixed order; NULL past the end. */
const moec_peer *moec_peer_at(const char *family, int index);

#endif
