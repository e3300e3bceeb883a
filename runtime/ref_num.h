/* Numbers with an error bound, for the oracle: running error analysis (Wilkinson; Higham, "Accuracy
 * and Stability of Numerical Algorithms", section 3.3).
 *
 * A num is an exact value v (in double) and a bound e: a kernel that works in f32 and follows the
 * precision rules of op.def holds a value within e of v. Every operation here moves both: the error
 * of the operands to first order and beyond, then the rounding of the operation itself.
 *     u = 2^-24      one f32 operation: relative error u of the kernel's own result
 *     FN_ULPS * u    exp, log, sin, cos, sqrt, division (op.def promises that)
 *     TINY = 2^-126  what a unit that flushes subnormals to zero may lose
 * Sums have no order: n terms err by at most gamma(n) * sum of magnitudes,
 * gamma(n) = n*u/(1 - n*u). */
#ifndef MOEC_REF_NUM_H
#define MOEC_REF_NUM_H

#include <math.h>
#include <stdlib.h>

#include "ref.h"

typedef struct num { double v, e; } num;

#define U32 0x1p-24
#define TINY 0x1p-126
enum { FN_ULPS = 8 };

static inline num exact(double v) { return (num){v, 0}; }

/* One rounding of relative size `u` after an operation whose operands already cost e. */
static inline num rounded(double v, double e, double u) {
    return (num){v, e + u * (fabs(v) + e) + TINY};
}

static inline num n_neg(num a) { return (num){-a.v, a.e}; }
static inline num n_add(num a, num b) { return rounded(a.v + b.v, a.e + b.e, U32); }
static inline num n_sub(num a, num b) { return n_add(a, n_neg(b)); }
static inline num n_mul(num a, num b) {
    return rounded(a.v * b.v, fabs(a.v) * b.e + fabs(b.v) * a.e + a.e * b.e, U32);
}

static inline num n_div(num a, num b) {
    double q = a.v / b.v, room = fabs(b.v) - b.e; /* how near the divisor may come to 0 */
    return rounded(q, room > 0 ? (a.e + fabs(q) * b.e) / room : INFINITY, FN_ULPS * U32);
}

/* The argument may be scaled to base 2 first, which costs |v| more units. */
static inline num n_exp(num a) {
    double v = exp(a.v);
    return rounded(v, v * expm1(a.e), (FN_ULPS + fabs(a.v)) * U32);
}

/* Near 1 the error is absolute: one more FN_ULPS. */
static inline num n_log(num a) {
    double v = log(a.v), room = a.v - a.e;
    double e = room > 0 ? a.e / room : INFINITY;
    return rounded(v, e + FN_ULPS * U32, FN_ULPS * U32);
}

static inline num n_sqrt(num a) {
    double v = sqrt(a.v), low = a.v > a.e ? sqrt(a.v - a.e) : 0;
    return rounded(v, v - low > sqrt(a.v + a.e) - v ? v - low : sqrt(a.v + a.e) - v, FN_ULPS * U32);
}

static inline num n_max0(num a) { return (num){a.v > 0 || isnan(a.v) ? a.v : 0, a.e}; }
/* 1 where a > 0: either answer is right when a's error reaches across 0. */
static inline num n_step(num a) {
    return (num){isnan(a.v) ? a.v : a.v > 0, a.e > 0 && fabs(a.v) <= a.e};
}

/* ---- sums in any order ---- */

typedef struct sum { double v, magnitude, e; int64_t n; } sum;

static inline void s_add(sum *s, num x) {
    s->v += x.v;
    s->magnitude += fabs(x.v) + x.e;
    s->e += x.e;
    s->n++;
}

/* A product whose rounding is counted with the sum's: terms of a dot product. */
static inline void s_mul(sum *s, num a, num b) {
    double p = a.v * b.v, e = fabs(a.v) * b.e + fabs(b.v) * a.e + a.e * b.e;
    s->v += p;
    s->magnitude += fabs(p) + e;
    s->e += e;
    s->n++;
}

/* n terms: n-1 additions and one rounding of each product, and one for what follows (scaling,
 * joining partial sums that started from 0). */
static inline num s_get(const sum *s, double u) {
    double nu = (double)(s->n + 1) * u;
    return (num){s->v, s->e + nu / (1 - nu) * s->magnitude + (double)s->n * TINY};
}

/* ---- arguments ---- */

/* The argument of this name. A name that the op has not got is a bug of the oracle. */
static inline moec_ref_arg *ref_arg(moec_ref *ref, const char *name) {
    int index = moec_op_arg(ref->op, name);
    if (index < 0) abort();
    return &ref->arg[index];
}

static inline double ref_scalar(moec_ref *ref, const char *name) {
    return ref_arg(ref, name)->scalar;
}
static inline num ref_get(const moec_ref_arg *a, int64_t i) {
    return (num){a->f[i], a->e ? a->e[i] : 0};
}

/* Unit roundoff of an argument's element type. */
double moec_ref_arg_u(const moec_ref *ref, const moec_ref_arg *arg);

/* Stores a result, rounded to the argument's type. */
static inline void ref_put(moec_ref_arg *a, int64_t i, num x, double u_out) {
    a->f[i] = x.v;
    if (a->e) a->e[i] = rounded(x.v, x.e, u_out).e;
}

/* n zeroed things that live until the op ends; NULL when out of memory. */
void *moec_ref_temp(moec_ref *ref, int64_t n, size_t bytes_each);
static inline num *moec_ref_nums(moec_ref *ref, int64_t n) {
    return moec_ref_temp(ref, n, sizeof(num));
}
static inline sum *moec_ref_sums(moec_ref *ref, int64_t n) {
    return moec_ref_temp(ref, n, sizeof(sum));
}

/* ---- which rows belong to which expert ---- */

typedef struct rows {
    const int32_t *offsets, *row_slot; /* both may be NULL: see op.def */
    int64_t T, K;
} rows;

static inline rows ref_rows(moec_ref *ref) {
    int s = moec_op_arg(ref->op, "row_slot");
    return (rows){ref_arg(ref, "offsets")->i, s < 0 ? NULL : ref->arg[s].i, ref->T, ref->spec->K};
}
static inline int64_t row_begin(const rows *g, int64_t e) {
    return g->offsets ? g->offsets[e] : 0;
}
static inline int64_t row_end(const rows *g, int64_t e) {
    return g->offsets ? g->offsets[e + 1] : g->T;
}
static inline int64_t row_slot(const rows *g, int64_t r) {
    return g->row_slot ? g->row_slot[r] : r;
}
static inline int64_t row_token(const rows *g, int64_t r) {
    return g->row_slot ? g->row_slot[r] / g->K : r;
}

/* ---- activations, with bounds (ref_act.c) ---- */

num moec_num_act(int64_t act, num v);
num moec_num_act_slope(int64_t act, num v);
num moec_num_sigmoid(num v);

#define OP(name, ...) moec_status moec_ref_op_##name(moec_ref *ref);
#include "op.def"
#undef OP

#endif
