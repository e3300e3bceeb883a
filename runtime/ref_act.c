/* The oracle's activations: op.def's formulas, written once with error bounds. */
#include "ref_num.h"

#define GELU_SCALE 1.5957691216057308 /* 2*sqrt(2/pi) */
#define GELU_CUBIC 0.044715

num moec_num_sigmoid(num v) { return n_div(exact(1), n_add(exact(1), n_exp(n_neg(v)))); }

static num silu(num v) { return n_mul(v, moec_num_sigmoid(v)); }

/* s + v*s*(1-s), s = sigmoid(v) */
static num silu_slope(num v) {
    num s = moec_num_sigmoid(v);
    return n_mul(s, n_add(exact(1), n_mul(v, n_sub(exact(1), s))));
}

static num constant(double v) { return rounded(v, 0, U32); }

static num gelu_inner(num v) {
    num cube = n_mul(n_mul(v, v), v);
    return n_mul(constant(GELU_SCALE), n_add(v, n_mul(constant(GELU_CUBIC), cube)));
}

static num gelu(num v) { return n_mul(v, moec_num_sigmoid(gelu_inner(v))); }

/* s + v*s*(1-s)*inner'(v), s = sigmoid(inner(v)) */
static num gelu_slope(num v) {
    num s = moec_num_sigmoid(gelu_inner(v));
    num curve = n_mul(constant(3 * GELU_CUBIC), n_mul(v, v));
    num inner_slope = n_mul(constant(GELU_SCALE), n_add(exact(1), curve));
    return n_add(s, n_mul(n_mul(v, inner_slope), n_mul(s, n_sub(exact(1), s))));
}

static num relu2(num v) { return n_mul(n_max0(v), n_max0(v)); }
static num relu2_slope(num v) { return n_mul(exact(2), n_max0(v)); }
static num same(num v) { return v; }
static num one(num v) { return (void)v, exact(1); } /* also of a NaN: nothing depends on it */

static const struct { num (*value)(num), (*slope)(num); } table[] = {
    [MOEC_ACT_SWIGLU] = {silu, silu_slope}, [MOEC_ACT_SILU] = {silu, silu_slope},
    [MOEC_ACT_GEGLU] = {gelu, gelu_slope},  [MOEC_ACT_GELU] = {gelu, gelu_slope},
    [MOEC_ACT_REGLU] = {n_max0, n_step},    [MOEC_ACT_RELU] = {n_max0, n_step},
    [MOEC_ACT_RELU2] = {relu2, relu2_slope}, [MOEC_ACT_NONE] = {same, one},
};

num moec_num_act(int64_t act, num v) { return table[act].value(v); }
num moec_num_act_slope(int64_t act, num v) { return table[act].slope(v); }
double moec_ref_act(int64_t act, double v) { return table[act].value(exact(v)).v; }
double moec_ref_act_slope(int64_t act, double v) { return table[act].slope(exact(v)).v; }
