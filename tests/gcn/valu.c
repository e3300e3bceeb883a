// Vector ALU: fetching sources with their modifiers, lane functions, storing results.
//
// A lane function is pure: 64 words in, 64 words out. Everything around it (constants, negation,
// DPP, SDWA, halves, clamping, the exec mask, definedness) is done once, here, for all of them.
#include "isa.h"

#include <math.h>
#include <string.h>

// Helpers of the lane functions; names follow valu.def.
static inline u64 below(int l)
{
    return ((u64)1 << l) - 1;
}
static inline u32 low24(u32 a)
{
    return a & 0xffffff;
}
static inline i64 signed24(u32 a)
{
    return (i32)(a << 8) >> 8;
}
static inline u32 min_u(u32 a, u32 b)
{
    return a < b ? a : b;
}
static inline u32 max_u(u32 a, u32 b)
{
    return a > b ? a : b;
}
static inline u32 min_i(u32 a, u32 b)
{
    return (i32)a < (i32)b ? a : b;
}
static inline u32 max_i(u32 a, u32 b)
{
    return (i32)a > (i32)b ? a : b;
}
static inline u32 sign16(u32 a)
{
    return (u32)(i32)(int16_t)a;
}
static inline u32 clamp16(u32 a)
{
    return max_i(min_i(a, 0x7fff), (u32)-0x8000);
}
static inline u32 field(u32 a, u32 at, u32 n)
{
    return a >> at & ((1u << n) - 1);
}
static inline u32 signed_field(u32 a, u32 at, u32 n)
{
    return n ? (u32)((i32)(field(a, at, n) << (32 - n)) >> (32 - n)) : 0;
}
static u32 reverse_bits(u32 a)
{
    u32 r = 0;
    for (int i = 0; i < 32; i++)
        r |= (a >> i & 1) << (31 - i);
    return r;
}
static u32 first_unlike_sign(u32 a)
{
    u32 x = (i32)a < 0 ? ~a : a;
    return x ? (u32)__builtin_clz(x) : ~0u;
}
// Selector 0-3: bytes of b, 4-7: bytes of a, 8-11: sign of a 16-bit half, 12: 0, above: 0xff.
static u32 permute_bytes(u32 a, u32 b, u32 sel)
{
    u64 both = (u64)a << 32 | b;
    u32 r = 0;
    for (int i = 0; i < 4; i++) {
        u32 s = sel >> 8 * i & 255, byte;
        if (s < 8)
            byte = (u32)(both >> 8 * s) & 255;
        else if (s < 12)
            byte = both >> (16 * (s - 8) + 15) & 1 ? 255 : 0;
        else
            byte = s == 12 ? 0 : 255;
        r |= byte << 8 * i;
    }
    return r;
}
static u32 sad_bytes(u32 a, u32 b)
{
    u32 r = 0;
    for (int i = 0; i < 32; i += 8) {
        u32 x = a >> i & 255, y = b >> i & 255;
        r += x > y ? x - y : y - x;
    }
    return r;
}
static u32 dot4(u32 a, u32 b)
{
    i32 r = 0;
    for (int i = 0; i < 32; i += 8)
        r += (int8_t)(a >> i) * (int8_t)(b >> i);
    return (u32)r;
}
static u32 dot4u(u32 a, u32 b)
{
    u32 r = 0;
    for (int i = 0; i < 32; i += 8)
        r += (a >> i & 255) * (b >> i & 255);
    return r;
}
static u32 dot2(u32 a, u32 b)
{
    return (u32)((int16_t)a * (int16_t)b) + (u32)((int16_t)(a >> 16) * (int16_t)(b >> 16));
}
static u32 dot2_half(u32 a, u32 b, u32 c)
{
    float lo = half_up(a & 0xffff) * half_up(b & 0xffff), hi = half_up(a >> 16) * half_up(b >> 16);
    return as_u32(lo + hi + as_f32(c));
}
// Equal operands differ at most in the sign of zero: the minimum is the negative one.
static inline float min_f(float a, float b)
{
    return a < b ? a : b < a ? b : a != a ? b : b != b ? a : as_f32(as_u32(a) | as_u32(b));
}
static inline float max_f(float a, float b)
{
    return a > b ? a : b > a ? b : a != a ? b : b != b ? a : as_f32(as_u32(a) & as_u32(b));
}
static float med3_f(float a, float b, float c)
{
    if (a != a || b != b || c != c)
        return min_f(min_f(a, b), c);
    return max_f(min_f(a, b), min_f(max_f(a, b), c));
}
static inline float ftz(float a)
{
    return as_u32(a) & 0x7f800000u ? a : as_f32(as_u32(a) & 0x80000000u);
}
static float fract_f(float a)
{
    float r = a - floorf(a);
    return r < 0x1.fffffep-1f ? r : a != a ? a : 0x1.fffffep-1f;
}
static float frexp_mant(float a)
{
    int e;
    return isfinite(a) ? frexpf(a, &e) : a;
}
static u32 frexp_exp(float a)
{
    int e = 0;
    if (isfinite(a) && a != 0)
        frexpf(a, &e);
    return (u32)e;
}
static double frexp_mant_d(double a)
{
    int e;
    return isfinite(a) ? frexp(a, &e) : a;
}
static u64 frexp_exp_d(double a)
{
    int e = 0;
    if (isfinite(a) && a != 0)
        frexp(a, &e);
    return (u32)e;
}
static inline int clamp_exp(i32 e)
{
    return e < -5000 ? -5000 : e > 5000 ? 5000 : e;
}
static inline u32 to_u32(float f)
{
    return f >= 4294967296.0f ? ~0u : f > 0 ? (u32)f : 0;
}
static inline u32 to_i32(float f)
{
    return f != f ? 0 : f >= 2147483648.0f ? 0x7fffffffu : f <= -2147483648.0f ? 0x80000000u
                                                                                : (u32)(i32)f;
}
static u64 to_u32_d(double f)
{
    return f >= 4294967296.0 ? 0xffffffffu : f > 0 ? (u32)f : 0;
}
static u64 to_i32_d(double f)
{
    return f != f ? 0 : f >= 2147483647.0 ? 0x7fffffffu : f <= -2147483648.0 ? 0x80000000u
                                                                              : (u32)(i32)f;
}
static u32 half_toward_zero(u32 bits)
{
    float f = as_f32(bits), a = fabsf(f);
    if (a != a || isinf(a))
        return half_down(f);
    if (a >= 65504.0f)
        return (bits >> 16 & 0x8000u) | 0x7bffu;
    u32 h = half_down(f);
    return fabsf(half_up(h)) > a ? h - 1 : h;
}
// Puts right what the division sequence gets wrong for zeros, infinities and NaN.
static float div_fixup_f(float q, float d, float n)
{
    u32 sign = (as_u32(d) ^ as_u32(n)) & 0x80000000u;
    if (n != n)
        return as_f32(as_u32(n) | 0x400000u);
    if (d != d)
        return as_f32(as_u32(d) | 0x400000u);
    if ((d == 0 && n == 0) || (isinf(d) && isinf(n)))
        return as_f32(0xffc00000u);
    if (d == 0 || isinf(n))
        return as_f32(sign | 0x7f800000u);
    if (isinf(d) || n == 0)
        return as_f32(sign);
    if ((int)(as_u32(n) >> 23 & 255) - (int)(as_u32(d) >> 23 & 255) < -150)
        return as_f32(sign); // underflow
    if (q != q) // the sequence overflowed on the way
        return as_f32(sign | 0x7f800000u);
    return as_f32((as_u32(q) & 0x7fffffffu) | sign);
}
static double div_fixup_d(double q, double d, double n)
{
    u64 sign = (as_u64(d) ^ as_u64(n)) & (u64)1 << 63;
    if (n != n || d != d)
        return n != n ? n : d;
    if ((d == 0 && n == 0) || (isinf(d) && isinf(n)))
        return as_f64(0xfff8000000000000ull);
    if (d == 0 || isinf(n))
        return as_f64(sign | 0x7ff0000000000000ull);
    if (isinf(d) || n == 0)
        return as_f64(sign);
    if ((int)(as_u64(n) >> 52 & 2047) - (int)(as_u64(d) >> 52 & 2047) < -1075)
        return as_f64(sign);
    if (q != q)
        return as_f64(sign | 0x7ff0000000000000ull);
    return as_f64((as_u64(q) & ~((u64)1 << 63)) | sign);
}

// The lane functions themselves.
#define HEAD(name) \
    static void f_##name(u32 *restrict d, const u32 *x, const u32 *y, const u32 *z)
#define USE (void)a, (void)b, (void)c
#define V(name, sig, undef, flags, expr) \
    HEAD(name) \
    { \
        for (int l = 0; l < LANES; l++) { \
            u32 a = x[l], b = y[l], c = z[l]; \
            USE; \
            d[l] = (expr); \
        } \
    }
#define F(name, sig, flags, expr) \
    HEAD(name) \
    { \
        for (int l = 0; l < LANES; l++) { \
            float a = as_f32(x[l]), b = as_f32(y[l]), c = as_f32(z[l]); \
            USE; \
            d[l] = as_u32(expr); \
        } \
    }
#define C(name, sig, st, dt, flags, expr) V(name, sig, U_ANY, flags, expr)
#define H(name, sig, flags, expr) \
    HEAD(name) \
    { \
        for (int l = 0; l < LANES; l++) { \
            float a = half_up(x[l] & 0xffff), b = half_up(y[l] & 0xffff), \
                  c = half_up(z[l] & 0xffff); \
            USE; \
            d[l] = half_down(expr); \
        } \
    }
#define S(name, sig, flags, expr) V(name, sig, U_ANY, flags, (expr) & 0xffff)
#define W(name, sig, undef, expr) \
    static void f_##name(u64 *restrict d, const u64 *x, const u64 *y, const u64 *z) \
    { \
        for (int l = 0; l < LANES; l++) { \
            u64 a = x[l], b = y[l], c = z[l]; \
            USE; \
            d[l] = (expr); \
        } \
    }
#define D(name, sig, expr) \
    static void f_##name(u64 *restrict d, const u64 *x, const u64 *y, const u64 *z) \
    { \
        for (int l = 0; l < LANES; l++) { \
            u64 a = x[l], b = y[l]; \
            double A = as_f64(a), B = as_f64(b), C_ = as_f64(z[l]); \
            (void)A, (void)B, (void)C_, (void)a, (void)b; \
            d[l] = (expr); \
        } \
    }
#define P(name, sig, fn, type)
#define Q(name, sig, fn)
#include "valu.def"
#undef V
#undef F
#undef C
#undef H
#undef S
#undef W
#undef D
#undef P
#undef Q

#define FN(name) (any_fn *)f_##name
#define V(name, sig, undef, flags, expr) \
    {#name, sig, x_v, FN(name), T_B32, T_B32, undef, OF_VALU | flags, 0, NULL},
#define F(name, sig, flags, expr) \
    {#name, sig, x_v, FN(name), T_F32, T_F32, U_ANY, OF_VALU | flags, 0, NULL},
#define C(name, sig, st, dt, flags, expr) \
    {#name, sig, x_v, FN(name), st, dt, U_ANY, OF_VALU | flags, 0, NULL},
#define H(name, sig, flags, expr) \
    {#name, sig, x_v, FN(name), T_F16, T_F16, U_ANY, OF_VALU | flags, 0, NULL},
#define S(name, sig, flags, expr) \
    {#name, sig, x_v, FN(name), T_B16, T_B16, U_ANY, OF_VALU | flags, 0, NULL},
#define W(name, sig, undef, expr) \
    {#name, sig, x_w, FN(name), T_B64, T_B64, undef, OF_VALU, 0, NULL},
#define D(name, sig, expr) {#name, sig, x_w, FN(name), T_F64, T_F64, U_ANY, OF_VALU, 0, NULL},
#define P(name, sig, fn, type) {#name, sig, x_pk16, FN(fn), type, type, U_ANY, OF_VALU, 0, NULL},
#define Q(name, sig, fn) {#name, sig, x_pk32, FN(fn), T_F32, T_F32, U_ANY, OF_VALU, 0, NULL},
const struct op valu_ops[] = {
#include "valu.def"
    {NULL, NULL, NULL, NULL, 0, 0, 0, 0, 0, NULL}
};
