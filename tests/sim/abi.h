/* abi: what a CUDA kernel compiled for this CPU and the machine that runs it agree on.
 *
 * Read as C by the machine and as C++ in front of every kernel (words.h). The kernel's library exports
 * `sim`, which the machine sets before the first launch. */
#ifndef SIM_ABI_H
#define SIM_ABI_H

enum { SIM_WARP = 32, SIM_WORDS = 8, SIM_MOST_THREADS = 1024 };
typedef unsigned sim_words[SIM_WORDS];

struct sim_host {
    int thread;                 /* that runs, in its block */
    long block;
    char *shared;               /* dynamic shared memory of the block; addresses in it are offsets */
    /* All threads of the block that have not ended; all lanes of a warp, and what each brought. */
    void (*barrier)(void);
    const sim_words *(*meet)(const unsigned *mine, int count);
    /* cp.async: one copy of 16 bytes, or of zeros; the end of a group; all but so many groups are there */
    void (*copy)(unsigned to, const void *from, int bytes);
    void (*commit)(void);
    void (*wait)(int groups);
    /* ldmatrix x4 and mma.sync m16n8k16 of bf16 */
    void (*matrices)(unsigned r[4], unsigned address, int transposed);
    void (*product)(float c[4], const unsigned a[4], unsigned b0, unsigned b1);
};

#endif
