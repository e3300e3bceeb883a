/* shim: runs emitted HIP kernels on the CPU, level 1 of the ladder of proof. The whole interface.
 *
 * The kernel's own text, compiled for the host behind prelude.h, runs with one fibre a lane: all waves
 * of a block, block after block, on one thread. Lanes of a wave meet in wave operations, threads of a
 * block at barriers. Every load and store is checked before it happens; the first finding ends the
 * launch. Not for concurrent use: one launch at a time in a process. */
#ifndef SHIM_H
#define SHIM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "abi.h"

/* Memory that a kernel may touch. */
typedef struct shim_region {
    const char *name;
    void *base;
    size_t bytes;
    bool writable;
} shim_region;

enum { SHIM_MOST_REGIONS = 32, SHIM_MOST_ARGS = 32, SHIM_MOST_THREADS = 1024, SHIM_TEXT_BYTES = 1024 };

/* An argument of the kernel, in order: doubles travel in other registers than the rest. */
typedef struct shim_arg {
    bool is_double;
    union { uint64_t word; double real; } as;
} shim_arg;

typedef struct shim_launch {
    void (*entry)(void);
    shim_image *image;
    const char *library;    /* the file it was loaded from: for source lines in findings */
    uint32_t groups, threads;
    const shim_arg *args;
    int arg_count;
    const shim_region *regions;
    int region_count;
    bool flush_subnormals;  /* gfx90a's matrix unit takes and gives bf16 and f16 ones as zero */
    unsigned seed;          /* order of waves and lanes; 0: as they are numbered */
} shim_launch;

/* What a launch did. */
typedef struct shim_counts { uint64_t accesses, meetings, mfma, barriers; } shim_counts;

typedef struct shim_machine shim_machine;

shim_machine *shim_new(void); /* NULL: out of memory */
void shim_free(shim_machine *machine);

/* Runs a grid. True without a finding; else it is described in shim_finding(machine). */
bool shim_run(shim_machine *machine, const shim_launch *launch);
const char *shim_finding(const shim_machine *machine);
shim_counts shim_counted(const shim_machine *machine);

#endif
