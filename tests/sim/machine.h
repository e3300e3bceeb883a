/* machine: runs CUDA kernels that were compiled for this CPU, one thread of a block after the other. */
#ifndef SIM_MACHINE_H
#define SIM_MACHINE_H

#include <stdbool.h>
#include <stddef.h>

#include "abi.h"

extern struct sim_host sim_machine;

/* Runs a grid of clusters: entry(params) once for each thread. False when a check failed: see sim_report. */
bool sim_run(void (*entry)(void **), void **params, long blocks, int cluster, int threads, unsigned shared_bytes);

/* Ends the launch from inside a kernel, with words about what is wrong on standard error. */
_Noreturn void sim_report(const char *what, unsigned long where);

/* The offset in a block's window of the bytes at an address of shared::cta, naturally aligned: an address of another
 * block, or of what is not there, ends the launch. Then the same for an offset. */
unsigned sim_own(const char *what, unsigned address, unsigned bytes);
unsigned sim_offset(const char *what, unsigned offset, unsigned bytes);

/* Where a block's window ends; the blocks of the cluster that runs, and their windows. */
extern unsigned sim_shared_end;
extern int sim_cluster, sim_threads; /* sim_threads: of a block */
extern char *sim_shared[SIM_MOST_CLUSTER];

/* The running thread among all of its cluster. */
static inline int sim_slot(void) { return sim_machine.rank * SIM_MOST_THREADS + sim_machine.thread; }

/* The driver's memory: does one allocation hold all of these bytes? (tests/fake/cuda.c) */
bool fake_holds(const void *p, size_t bytes);

/* The running thread lets others run; what it did may let them go on. */
void sim_leave(void);
void sim_progress(void);
/* SIM_COPIES=early: copies happen at once. */
extern bool sim_early;

/* hopper.c: before a cluster; behind it, has everybody who arrived at a barrier been waited for? The oldest copy in
 * flight happens, if there is one. */
void sim_hopper_begin(void);
bool sim_hopper_met(void);
bool sim_deliver(void);

/* Takes the copies of the running thread that are in no group yet, or (take NULL) performs those taken: at most
 * SIM_MOST_TAKEN. machine.c */
enum { SIM_MOST_TAKEN = 16 };
typedef struct sim_taken { unsigned to; const void *from; int bytes; } sim_taken;
int sim_take_copies(sim_taken taken[SIM_MOST_TAKEN]);
void sim_perform_copies(const sim_taken *taken, int count);

/* tensor.c */
void sim_matrices(unsigned r[4], unsigned address, int transposed);
void sim_product(float c[4], const unsigned a[4], unsigned b0, unsigned b1);

#endif
