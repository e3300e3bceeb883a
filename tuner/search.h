/* search: the fastest config of each kernel of a layer, found by timing.
 *
 * For each row of the layer: the legal configs of its space, nearest to the default first, are compiled
 * (what the compiler rejects is counted with its reason), timed in turn and halved until a few are left;
 * those and the default are then timed again, interleaved, and compared by their medians. So the default
 * is always among the finalists, and what is reported is a ratio of two times taken side by side.
 * A search says nothing about results: every legal config gives the right ones, which verify checks. */
#ifndef MOEC_SEARCH_H
#define MOEC_SEARCH_H

#include <signal.h>

#include "bench.h"

typedef struct moec_search_options {
    moec_bench_options bench; /* tokens, routing, seed, repeat, sets, ops, progress as in moec bench */
    int candidates;           /* configs of a kernel that are tried, at most, beside the default */
    double seconds;           /* for one kernel, compilers included; then it is decided on what is known */
    void (*found)(void *user, int count);  /* after each kernel: rows[0 .. count) are known; or NULL */
    const volatile sig_atomic_t *stop;     /* set: decide the kernel at hand and end there; or NULL */
} moec_search_options;

typedef struct moec_search_row {
    char name[24], target[32];
    int legal, tried, rejected;           /* configs: of the space, compiled and timed, refused */
    bool in_time;                         /* false: seconds ran out before all candidates were timed */
    char reason[512];                     /* of the first that was refused, "" when none was */
    double default_ms, best_ms;           /* medians of the last rounds */
    char default_config[160], best_config[160];
} moec_search_row;

/* Searches every row of the layer that has more than one legal config, or those of options->bench.ops.
 * Fills rows[*count], at most MOEC_L_COUNT; those that were found before an error are valid. */
moec_status moec_search_run(moec_device *device, const moec_spec *spec, const moec_search_options *options,
                            moec_search_row *rows, int *count, moec_error *err);

/* Can a plan be written there? Asked before the search, which may take hours. */
moec_status moec_search_can_write(const char *path, moec_error *err);
/* Writes the best configs as a plan (docs/plan.md), in place of one that is there, by one rename. */
moec_status moec_search_write(const char *path, const moec_spec *spec, const moec_target *target,
                              const moec_search_row *rows, int count, moec_error *err);

#endif
