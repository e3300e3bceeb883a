/* ref: the oracle. Every op of op.def, slow and obvious, in double, with a bound on what any
 * correct kernel may answer instead.
 *
 * Beside each value the oracle carries an error bound (ref_num.h): how far a kernel that follows
 * op.def's precision rules can be from the exact result, given the inputs. Nothing is tuned: a
 * bound follows from the length of the sums, the types, and the inputs at hand. Chaining ops
 * through their bounds gives bounds of a whole layer.
 *
 * Integer results (experts, offsets, rows) are exact. Where a choice hangs on the last bits of a
 * rounded score the oracle says so (`undecided`), and the caller draws other inputs. */
#ifndef MOEC_REF_H
#define MOEC_REF_H

#include "../gen/gen.h"

/* One argument of an op: exactly one of f, i for buffers (both NULL when the argument is NULL). */
typedef struct moec_ref_arg {
    double *f;      /* elements of a floating argument */
    double *e;      /* beside f. In: bound of the input's error, NULL when exact. Out: |kernel - f|
                     * must not pass it; NULL when not wanted */
    int32_t *i;     /* elements of an i32 argument */
    double scalar;  /* i64 and f64 scalars */
} moec_ref_arg;

typedef struct moec_ref {
    const moec_op *op;
    const moec_spec *spec;
    int64_t T, R, N;
    double u_acc;             /* unit roundoff of a GEMM's accumulation: moec_ref_u_acc */
    unsigned char *undecided; /* route: [T], 1 where a choice hangs on rounding (needs weight's e);
                               * may be NULL */
    moec_ref_arg arg[MOEC_MAX_ARGS];
    void **temp;              /* freed by moec_ref_run */
    int temp_count;
} moec_ref;

/* Computes op's outputs into arg[]. E_NOMEM, or E_INVAL when a required argument is missing. */
moec_status moec_ref_run(moec_ref *ref, moec_error *err);

/* 2^-24 where sums are IEEE f32. Tensor and matrix cores add with truncation and fewer guard bits
 * (Fasi, Higham, Mikaitis, Pranesh, "Numerical behavior of NVIDIA tensor cores", 2021): 2^-22. */
double moec_ref_u_acc(const moec_target *target);

/* Half a unit in the last place, relative: 2^-8 for bf16, 2^-24 for f32, 2^-53 for f64. */
double moec_ref_u(moec_arg_type type);

/* Formula of the activation and its derivative, in double: for tests. */
double moec_ref_act(int64_t act, double v);
double moec_ref_act_slope(int64_t act, double v);

/* aux*E*sum_e load_e/(T*K)*prob_sum_e/T + z*z_sum/T: the loss whose gradient route_bwd adds. */
double moec_ref_router_loss(const moec_spec *spec, int64_t T, const int32_t *load,
                            const double *prob_sum, double z_sum, double aux, double z);

#endif
