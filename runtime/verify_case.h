/* verify_case: one call of one op with inputs made from a seed, and the oracle's answer to it.
 *
 * Values are rounded to the op's types before the oracle sees them, so both sides read the same
 * numbers. Everything about an argument comes from op.def; what its values should look like (scale,
 * meaning of an index) from one table in verify_case.c. */
#ifndef MOEC_VERIFY_CASE_H
#define MOEC_VERIFY_CASE_H

#include "pattern.h"
#include "ref.h"

typedef struct moec_case {
    const moec_op *op;
    moec_spec spec;
    int64_t T, R, N;
    uint64_t seed;
    int variant;      /* 0: every optional argument given; others drop some and alias some, from
                       * seed; 2 puts a NaN into one input */
    char note[160];   /* what the variant changed: "hpre=NULL, out is add" */
    int alias[MOEC_MAX_ARGS];        /* the input whose buffer this output shares, -1 for its own */
    int64_t count[MOEC_MAX_ARGS];    /* elements; 0 for NULL and scalars */
    moec_arg_type type[MOEC_MAX_ARGS];
    void *image[MOEC_MAX_ARGS];      /* bytes to upload: inputs; poison in outputs and dead rows */
    int64_t row_bytes[MOEC_MAX_ARGS]; /* of arguments with R rows, else 0 */
    unsigned char *live;             /* [R] rows that hold data */
    moec_ref ref;                    /* inputs, then (moec_case_solve) outputs and bounds */
    void **owned;
    int owned_count;
} moec_case;

/* Fills a case whose op, spec, T, seed and variant are set. E_UNSUPPORTED with the reason when the
 * spec has no such op (heads=0, V=0). */
moec_status moec_case_make(moec_case *c, const moec_pattern *pattern, moec_error *err);
/* OK, or E_UNSUPPORTED with the key that the spec lacks for this op. */
moec_status moec_case_applies(const moec_op *op, const moec_spec *spec, moec_error *err);
/* Runs the oracle: ref holds outputs and bounds for kernels of this target. */
moec_status moec_case_solve(moec_case *c, const moec_target *target, moec_error *err);
void moec_case_free(moec_case *c);

/* Multiply-adds of the oracle's longest loop: callers keep this small. */
double moec_case_work(const moec_op *op, const moec_spec *spec, int64_t T);

/* n zeroed bytes that live as long as the case; NULL when out of memory. */
void *moec_case_room(moec_case *c, size_t bytes);

/* Element conversions, round to nearest even. Integer types come and go exactly. */
double moec_load_element(const void *data, moec_arg_type type, int64_t i);
void moec_store_element(void *data, moec_arg_type type, int64_t i, double value);
double moec_round_to(moec_arg_type type, double value);
/* The byte that untouched memory of a type holds: NaN in floats, an absurd index in integers. */
int moec_poison_byte(moec_arg_type type);

#endif
