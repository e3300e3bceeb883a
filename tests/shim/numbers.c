/* exp and log as clang expands them for AMD GPUs, over v_exp_f32 and v_log_f32, whose results are taken as
 * libm's: so the shim and the compiled code have the same bits. The hardware's two instructions are within
 * one unit in the last place; which way they round is not documented. */
#include <math.h>
#include <string.h>

#include "machine.h"

static float of_bits(uint32_t bits) {
    float f;
    memcpy(&f, &bits, sizeof f);
    return f;
}

/* The two instructions take and give subnormal numbers as zero. */
static float normal(float v) { return fabsf(v) < 0x1p-126f ? copysignf(0.0f, v) : v; }

float number_exp2(float v) { return normal(exp2f(normal(v))); }
float number_log2(float v) { return normal(log2f(normal(v))); }

/* x log2(e) in two floats; its whole part becomes the exponent. */
float number_exp(float x) {
    const float c = of_bits(0x3fb8aa3b), rest = of_bits(0x32a5705f); /* log2(e) and what c lacks */
    float high = x * c, low = fmaf(x, rest, fmaf(x, c, -high));
    float whole = rintf(high), v = number_exp2(high - whole + low);
    v = ldexpf(v, isfinite(whole) ? (int)whole : 0);
    if (x < of_bits(0xc2ce8ed0)) v = 0;             /* below the smallest subnormal */
    return x > of_bits(0x42b17218) ? INFINITY : v;  /* above the largest float */
}

/* log2(x) ln(2) in two floats; subnormal numbers are scaled first. */
float number_log(float x) {
    const float c = of_bits(0x3f317217), rest = of_bits(0x3377d1cf); /* ln(2) and what c lacks */
    bool small = x < 0x1p-126f;
    float y = number_log2(small ? x * 0x1p32f : x);
    float high = y * c, v = high + fmaf(y, rest, fmaf(y, c, -high));
    if (!(fabsf(y) < INFINITY)) v = y;
    return v - (small ? of_bits(0x41b17218) : 0.0f); /* 32 ln(2) */
}
