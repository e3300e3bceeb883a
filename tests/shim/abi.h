/* abi: what a kernel compiled for the host and the machine that runs it agree on.
 *
 * Read as C by the machine and as C++ in front of every kernel (prelude.h). The kernel's library
 * exports one shim_image; the machine writes its shim_host into it before the first launch. */
#ifndef SHIM_ABI_H
#define SHIM_ABI_H

enum { SHIM_LANES = 64, SHIM_LDS_BYTES = 65536, SHIM_ABI = 3 };

/* Operations in which the lanes of a wave meet. Each waits until every lane of the wave is there, or
 * has ended, or waits at a barrier. */
enum shim_op {
    SHIM_SYNC,           /* a wavefront fence: what a lane wrote before, the others see after */
    SHIM_BALLOT,         /* bit l of result: lane l is there and its a != 0 */
    SHIM_READLANE,       /* a of lane b */
    SHIM_READFIRSTLANE,  /* a of the lowest lane that is there */
    SHIM_BPERMUTE,       /* a of lane b / 4 % 64 */
    SHIM_PERMUTE,        /* a goes to lane b / 4 % 64; the highest lane wins, 0 where none sends */
    SHIM_DPP,            /* a of the lane that dpp_ctrl b names, c (old) where there is none */
    SHIM_SWIZZLE,        /* a of the lane that the ds_swizzle pattern b names */
    SHIM_MFMA
};

/* Element types of matrix instructions. */
enum shim_element { SHIM_BF16, SHIM_F16, SHIM_F32 };

struct shim_operands {
    int op;
    unsigned a, b, c;
    unsigned row_mask, bank_mask, bound_ctrl;    /* DPP */
    unsigned long long result;
    /* MFMA: a lane's part of A, B, C and D; m x n x k, `blocks` products at once, of `element`s */
    int m, n, k, blocks, element;
    const void *A, *B, *C;
    void *D;
    const void *where;
};

/* ATOMIC: ordered against other atomics of the block; ATOMIC_ALL: of the whole grid. */
enum shim_access { SHIM_READ, SHIM_WRITE, SHIM_ATOMIC, SHIM_ATOMIC_ALL };

/* What a kernel asks for. `where` is a code address in the kernel. */
typedef struct shim_host {
    unsigned long private_low, private_bytes;    /* stacks of the lanes: not watched */
    unsigned thread[3], group[3];                /* ids of the lane that runs */
    void (*access)(unsigned long address, unsigned long bytes, int access, const void *where);
    void (*meet)(struct shim_operands *operands);
    void (*fence)(int order, const char *scope, const void *where);
    void (*barrier)(const void *where);
    void (*resource)(unsigned long base, unsigned long bytes, const void *where); /* one is made */
    void (*fault)(const char *what, const void *where); /* ends the launch with a finding */
    float (*exp)(float);
    float (*exp2)(float);
    float (*log)(float);
    float (*log2)(float);
} shim_host;

typedef struct shim_image {
    int abi;
    char *lds, *lds_end;         /* every __shared__ variable of the library */
    char *low, *high;            /* the library itself */
    const shim_host **host;
} shim_image;

#endif
