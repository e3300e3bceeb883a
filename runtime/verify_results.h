/* verify_results: what a target made of a case, in a file, so that another target's answers to the same case can
 * be held against it: CPU, CUDA on a GPU and HIP under its stand-ins must agree on the same routing and seed.
 *
 * A case's file is DIR/OP-HASH.results, the hash being that of spec, op, T, routing, seed and variant; it holds a
 * record for each element that was judged. Inputs depend on nothing but the case, so files of any two
 * machines (little-endian both) compare. */
#ifndef MOEC_VERIFY_RESULTS_H
#define MOEC_VERIFY_RESULTS_H

#include "verify.h"

/* An element: its array, its place there, its value, how far from the oracle it may be on that target. */
typedef struct moec_result { char name[32]; double got, bound; int64_t i; } moec_result;

typedef struct moec_results {
    moec_result *item;
    size_t count, room;
    bool failed;           /* out of memory */
} moec_results;

/* Makes the verdict give every element that is judged to `results`. */
void moec_results_watch(moec_results *results, moec_verdict *verdict);

/* Writes DIR's file of the case. */
moec_status moec_results_write(const moec_results *results, const char *dir, const moec_verify_row *row,
                               moec_error *err);

/* Reads DIR's file of the case and adds to the verdict: every element must be apart by no more than both
 * bounds together, every integer equal; NaN stays NaN. A case that DIR does not have is a fault. */
moec_status moec_results_compare(const moec_results *results, const char *dir, const moec_verify_row *row,
                                 moec_verdict *verdict, moec_error *err);

void moec_results_free(moec_results *results);

#endif
