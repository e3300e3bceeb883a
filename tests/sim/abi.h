/* abi: what a CUDA kernel compiled for this CPU and the machine that runs it agree on.
 *
 * Read as C by the machine and as C++ in front of every kernel (words.h). The kernel's library exports
 * `sim`, which the machine sets before the first launch. */
#ifndef SIM_ABI_H
#define SIM_ABI_H

enum { SIM_WARP = 32, SIM_WORDS = 8, SIM_MOST_THREADS = 1024, SIM_MOST_CLUSTER = 2 };
/* Addresses in shared memory are as H100's: the block's rank in its cluster from this bit, below it the offset in the
 * window of the block, whose first bytes belong to the system; dynamic shared memory is behind them. */
enum { SIM_RANK_BIT = 24, SIM_SHARED_AT = 1024 };
typedef unsigned sim_words[SIM_WORDS];

struct sim_host {
    int thread;                 /* that runs, in its block */
    long block, blocks;
    int rank;                   /* of the block in its cluster */
    char *shared;               /* the window of the block */
    unsigned (*address)(const void *p);
    char *(*at)(unsigned address, unsigned bytes); /* where so many bytes of this block are, naturally aligned */
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

    /* ---- Hopper ---- */
    /* mbarriers: `bytes` more are to come; wait until the phase of this parity is complete */
    void (*bar_init)(unsigned bar, unsigned arrivals);
    void (*bar_arrive)(unsigned bar);
    void (*bar_arrive_in)(unsigned bar, unsigned rank); /* in a block of the cluster */
    void (*bar_expect)(unsigned bar, unsigned bytes);
    void (*bar_wait)(unsigned bar, unsigned parity);
    /* cp.async.mbarrier.arrive.noinc: an arrival once this thread's copies so far are there */
    void (*bar_arrive_after_copies)(unsigned bar);
    /* The copy engine: a box, 64 wide, of a tensor of up to four dimensions (into every block of the cluster when
     * `all`), contiguous bytes; both count at `bar`. */
    void (*box)(unsigned to, const void *map, unsigned bar, int c0, int c1, int c2, int c3, int all);
    void (*bulk)(unsigned to, const void *from, unsigned bytes, unsigned bar);
    /* A box on its way out; this thread's boxes since the last group; all but so many groups have been read */
    void (*box_out)(unsigned from, const void *map, int c0, int c1, int c2, int c3);
    void (*box_commit)(void);
    void (*box_wait)(int groups);
    /* wgmma m64nNk16 of bf16, d: N/2 sums of this thread; a: four registers, or NULL and a descriptor */
    void (*mma)(float *d, int sums, unsigned long a, const unsigned *a_registers, unsigned long b, unsigned keep,
                int a_columns, int b_columns);
    void (*mma_commit)(void);
    void (*mma_wait)(int groups);
    void (*store_matrices)(unsigned address, const unsigned v[4], int transposed);
    /* bar.sync, bar.arrive and barrier.red.or of `threads` threads: do any of them say yes? */
    unsigned (*meet_some)(int id, int threads, int stay, unsigned yes);
    void (*cluster_arrive)(void);
    void (*cluster_wait)(void);
    void (*missing)(const char *name); /* an instruction that this machine does not know */
};

/* What the driver makes of a tensor map (128 bytes). */
struct sim_map {
    const char *base;
    unsigned long dim[5], stride[4];    /* elements; bytes of the dimensions after the first */
    unsigned box[5];
};

#endif
