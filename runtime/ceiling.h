/* ceiling: what a machine could do at best, measured beside what is to be judged.
 *
 * Machines share caches, memory and (AMX among hyper-threads) arithmetic units with others, so a
 * ceiling is worth something only when taken in the same second. */
#ifndef MOEC_CEILING_H
#define MOEC_CEILING_H

#include "device.h"

typedef struct moec_ceiling_ops {
    const char *family;
    /* Products and sums per second of the unit that GEMMs of this dtype use, from registers, on all
     * workers: FLOP/s. what[64] names it. Takes about 2 ms. */
    moec_status (*compute)(moec_device *device, int64_t dtype, double *flops, char what[64],
                           moec_error *err);
    /* Bytes read plus bytes written per second of a large copy on all workers. Takes about 50 ms.
     * NULL: the device's own copy is timed. */
    moec_status (*copy)(moec_device *device, double *bytes, moec_error *err);
    /* Releases what compute kept; may be NULL. */
    void (*done)(moec_device *device);
} moec_ceiling_ops;

extern const moec_ceiling_ops moec_cpu_ceiling;  /* ceiling_cpu.c */
extern const moec_ceiling_ops moec_cuda_ceiling; /* ceiling_cuda.c */

/* The family's measurements; NULL when this build has none for it. */
const moec_ceiling_ops *moec_ceiling_find(const char *family);

/* The copy ceiling of any device: its family's, or a timed copy inside device memory. */
moec_status moec_ceiling_copy(moec_device *device, double *bytes, moec_error *err);
/* A timed copy inside device memory. */
moec_status moec_ceiling_plain_copy(moec_device *device, double *bytes, moec_error *err);

/* Seconds on a clock that only moves forward. */
double moec_seconds(void);
/* True: moec_seconds counts only while the calling thread runs, which a busy machine hardly disturbs.
 * Process-wide; for measuring one worker. */
void moec_seconds_of_thread(bool own);

#endif
