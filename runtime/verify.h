/* verify: does what a target computes agree with the oracle?
 *
 * Runs each op alone, and the whole layer forward and backward, on inputs made from a seed. A case is
 * determined by (spec, op, T, routing, seed, variant, config): the row that reports a fault carries
 * all of them, and moec_verify_command prints them as one command line. */
#ifndef MOEC_VERIFY_H
#define MOEC_VERIFY_H

#include "verify_trial.h"

typedef struct moec_verify_row {
    const char *op;            /* "up"; "layer" for the whole */
    const char *target;        /* that served it: the device's or a fallback */
    const moec_spec *spec;
    int64_t T;
    const moec_pattern *pattern;
    uint64_t seed;
    int variant;
    const char *note;          /* what the variant changed */
    const char *config;        /* "" for the default */
    const char *skipped;       /* why it did not run, "" when it did */
    const moec_verdict *verdict;
} moec_verify_row;

typedef struct moec_verify_options {
    const char *op;            /* only this one; NULL: all and the layer */
    int64_t tokens;            /* -1: 0, 1, 7, 127 and 1000 */
    const char *routing;       /* NULL: uniform, zipf:1.2, hot:0.9, empty:0.3 */
    uint64_t seed;
    int variants;              /* how many variants of each case, from `variant` on */
    int variant;
    const char *config;        /* of `op`, NULL for the default */
    bool layer_only;           /* the layer and its ops, not the dense helpers of the trainer */
    const char *dump;          /* folder to write every case's answers to, NULL for none */
    const char *against;       /* folder that another target's run wrote: answers must agree */
    int random_configs;        /* beside the default, so many legal configs drawn from seed */
    void (*report)(void *user, const moec_verify_row *row);
    void *user;
} moec_verify_options;

/* Verifies one spec. OK when it ran, right or wrong: report gets every case. A status otherwise. */
moec_status moec_verify_spec(moec_device *device, const moec_spec *spec,
                             const moec_verify_options *options, moec_error *err);

/* The random spec number `seed`, with a T and a routing that suit it (verify_random.c). */
void moec_verify_random(uint64_t seed, moec_spec *spec, int64_t *T, const char **routing);

/* "moec verify 'E=8 ...' -t cpu-avx2 --op up ..." */
void moec_verify_command(const moec_verify_row *row, const char *device, char *buf, size_t bytes);

/* Whole layer through moec.h (verify_layer.c). */
moec_status moec_verify_layer(moec_device *device, const moec_spec *spec, int64_t T,
                              const moec_pattern *pattern, uint64_t seed, int variant, char note[160],
                              moec_verdict *verdict, moec_error *err);

#endif
