/* dl_cublas: NVIDIA's matrix products, opened at run time: the compute ceiling of `moec bench`. */
#ifndef MOEC_DL_CUBLAS_H
#define MOEC_DL_CUBLAS_H

#include "../gen/status.h"

enum { CUBLAS_PLAIN = 0, CUBLAS_TRANSPOSED = 1, CUBLAS_BF16 = 14, CUBLAS_F32 = 0, CUBLAS_SUMS_F32 = 68,
       CUBLAS_DEFAULT = -1 };

#define CUBLAS_FUNCTIONS(F)                                                                        \
    F(create, "cublasCreate_v2", (void **handle))                                                  \
    F(destroy, "cublasDestroy_v2", (void *handle))                                                 \
    F(gemm, "cublasGemmEx",                                                                        \
      (void *handle, int op_a, int op_b, int m, int n, int k, const void *alpha, const void *a,    \
       int type_a, int ld_a, const void *b, int type_b, int ld_b, const void *beta, void *c,       \
       int type_c, int ld_c, int sums, int algorithm))

typedef struct moec_cublas {
#define FIELD(name, symbol, params) int(*name) params;
    CUBLAS_FUNCTIONS(FIELD)
#undef FIELD
    char path[512];     /* what was opened */
} moec_cublas;

/* Opens cuBLAS once per process: $MOEC_CUBLAS, the linker's path, /usr/local/cuda*, then the pip
 * packages' folders. E_TOOL when it is not there. */
moec_status moec_cublas_open(const moec_cublas **cublas, moec_error *err);

#endif
