// Kernels of kernels.hip with inputs, launch parameters and a check of the results: shared by the
// tests that run them as they are and those that run them mutated.
#ifndef GCN_JOBS_H
#define GCN_JOBS_H
#include "gcn.h"

enum { JOB_BUFFERS = 6 };
typedef struct job {
    const char *kernel;
    unsigned grid[2], block;
    // Six 64-bit words: device addresses of buffers first, then packed 32-bit scalars.
    unsigned char args[64];
    size_t args_bytes;
    struct {
        unsigned char *host;
        size_t bytes;
        bool writable;
    } buffer[JOB_BUFFERS];
    int nbuffer;
    int n[4]; // sizes, meaning by kernel
    long (*wrong)(const struct job *j); // results that differ from what they should be
} job;

enum { NJOBS = 10 };
// Fills jobs[i] with fresh inputs (outputs poisoned); free with job_free.
void job_make(int i, job *j);
void job_reset(job *j); // poisons the outputs again
void job_free(job *j);
gcn_status job_run(gcn_object *o, const job *j, unsigned seed, gcn_result *r,
                   const gcn_trace *trace);
// The text of kernels.hip behind the given definitions; the caller frees it.
char *job_source(const char *definitions);
#endif
