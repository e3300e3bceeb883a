// Vector comparisons: one bit per lane into a scalar pair (and into exec for v_cmpx).
//
// The rows are made by macros from lists of conditions and types, as the instruction set is.
#include "isa.h"

#include <math.h>
#include <string.h>

typedef u64 compare_fn(const u64 *a, const u64 *b);

// Gathers 64 bytes of 0 or 1 into 64 bits, eight at a time.
static u64 pack_bits(const u8 *t)
{
    u64 r = 0;
    for (int i = 0; i < 8; i++) {
        u64 x;
        memcpy(&x, t + 8 * i, 8);
        r |= (x * 0x0102040810204080ull >> 56) << 8 * i;
    }
    return r;
}

#define COMPARE(name, T, conv, cond) \
    static u64 c_##name(const u64 *x, const u64 *y) \
    { \
        u8 t[LANES]; \
        for (int l = 0; l < LANES; l++) { \
            T a = conv(x[l]), b = conv(y[l]); \
            (void)a, (void)b; \
            t[l] = (cond); \
        } \
        return pack_bits(t); \
    }
#define INT_CONDITIONS(X, t, T, conv) \
    X(f_##t, T, conv, 0) X(lt_##t, T, conv, a < b) X(eq_##t, T, conv, a == b) \
    X(le_##t, T, conv, a <= b) X(gt_##t, T, conv, a > b) X(ne_##t, T, conv, a != b) \
    X(ge_##t, T, conv, a >= b) X(t_##t, T, conv, 1)
#define FLOAT_CONDITIONS(X, t, T, conv) \
    X(f_##t, T, conv, 0) X(lt_##t, T, conv, a < b) X(eq_##t, T, conv, a == b) \
    X(le_##t, T, conv, a <= b) X(gt_##t, T, conv, a > b) X(lg_##t, T, conv, a < b || a > b) \
    X(ge_##t, T, conv, a >= b) X(o_##t, T, conv, a == a && b == b) \
    X(u_##t, T, conv, a != a || b != b) X(nge_##t, T, conv, !(a >= b)) \
    X(nlg_##t, T, conv, !(a < b || a > b)) X(ngt_##t, T, conv, !(a > b)) \
    X(nle_##t, T, conv, !(a <= b)) X(neq_##t, T, conv, !(a == b)) \
    X(nlt_##t, T, conv, !(a < b)) X(tru_##t, T, conv, 1)

#define TO_F32(x) as_f32((u32)(x))
#define TO_F16(x) half_up((u32)(x) & 0xffff)
INT_CONDITIONS(COMPARE, i16, int16_t, (int16_t))
INT_CONDITIONS(COMPARE, u16, u16, (u16))
INT_CONDITIONS(COMPARE, i32, i32, (i32))
INT_CONDITIONS(COMPARE, u32, u32, (u32))
INT_CONDITIONS(COMPARE, i64, i64, (i64))
INT_CONDITIONS(COMPARE, u64, u64, (u64))
FLOAT_CONDITIONS(COMPARE, f16, float, TO_F16)
FLOAT_CONDITIONS(COMPARE, f32, float, TO_F32)
FLOAT_CONDITIONS(COMPARE, f64, double, as_f64)

// Class mask: bit 0 signalling NaN, 1 quiet NaN, 2 -inf, 3 -normal, 4 -subnormal, 5 -0, 6 +0,
// 7 +subnormal, 8 +normal, 9 +inf.
static u32 class_of(bool sign, bool nan, bool quiet, bool inf, bool zero, bool subnormal)
{
    if (nan)
        return quiet ? 2 : 1;
    int from_zero = inf ? 3 : zero ? 0 : subnormal ? 1 : 2;
    return sign ? 32u >> from_zero : 64u << from_zero;
}
static u32 class32(u64 x)
{
    u32 e = (u32)x >> 23 & 255, m = (u32)x & 0x7fffff;
    return class_of(x >> 31 & 1, e == 255 && m, m >> 22, e == 255, !e && !m, !e);
}
static u32 class16(u64 x)
{
    u32 e = (u32)x >> 10 & 31, m = (u32)x & 0x3ff;
    return class_of(x >> 15 & 1, e == 31 && m, m >> 9, e == 31, !e && !m, !e);
}
static u32 class64(u64 x)
{
    u32 e = (u32)(x >> 52) & 2047;
    u64 m = x & 0xfffffffffffffull;
    return class_of(x >> 63, e == 2047 && m, m >> 51, e == 2047, !e && !m, !e);
}
COMPARE(class_f32, u64, , (class32(a) & (u32)b) != 0)
COMPARE(class_f16, u64, , (class16(a) & (u32)b) != 0)
COMPARE(class_f64, u64, , (class64(a) & (u32)b) != 0)

#define ROW(t, type) \
    {"v_cmp_" #t, "dss", x_cmp, (any_fn *)c_##t, type, T_B64, U_ANY, OF_VALU, 0, NULL}, \
    {"v_cmpx_" #t, "dss", x_cmp, (any_fn *)c_##t, type, T_B64, U_ANY, OF_VALU | OF_EXEC_OUT, 0, \
     NULL},
#define ROW_B16(name, T, conv, cond) ROW(name, T_B16)
#define ROW_B32(name, T, conv, cond) ROW(name, T_B32)
#define ROW_B64(name, T, conv, cond) ROW(name, T_B64)
#define ROW_F16(name, T, conv, cond) ROW(name, T_F16)
#define ROW_F32(name, T, conv, cond) ROW(name, T_F32)
#define ROW_F64(name, T, conv, cond) ROW(name, T_F64)
const struct op compare_ops[] = {
    INT_CONDITIONS(ROW_B16, i16, , ) INT_CONDITIONS(ROW_B16, u16, , )
    INT_CONDITIONS(ROW_B32, i32, , ) INT_CONDITIONS(ROW_B32, u32, , )
    INT_CONDITIONS(ROW_B64, i64, , ) INT_CONDITIONS(ROW_B64, u64, , )
    FLOAT_CONDITIONS(ROW_F16, f16, , ) FLOAT_CONDITIONS(ROW_F32, f32, , )
    FLOAT_CONDITIONS(ROW_F64, f64, , )
    {"v_cmp_class_f32", "dss", x_cmp, (any_fn *)c_class_f32, T_F32, T_B64, U_ANY,
     OF_VALU | OF_INT_LAST, 0, NULL},
    {"v_cmpx_class_f32", "dss", x_cmp, (any_fn *)c_class_f32, T_F32, T_B64, U_ANY,
     OF_VALU | OF_INT_LAST | OF_EXEC_OUT, 0, NULL},
    ROW(class_f16, T_F16) ROW(class_f64, T_F64)
    {NULL, NULL, NULL, NULL, 0, 0, 0, 0, 0, NULL}
};

// Inactive lanes give 0. The result may name exec's own pair; then it is exec that changes.
void x_cmp(struct wave *w, const struct inst *in)
{
    u64 s[2][LANES], un = 0, exec = exec_of(w);
    for (int i = 0; i < 2; i++) {
        u32 t[LANES], ut[LANES];
        const struct operand *o = &in->o[1 + i];
        bool wide = (in->op->type == T_B64 || in->op->type == T_F64) &&
                    (o->n == 2 || o->kind == O_CONST);
        struct value x = src32(w, in, 1 + i, 0, t, ut);
        if (in->op->type == T_F32 && !(w->mode & MODE_F32_DENORM) &&
            !(in->op->flags & OF_INT_LAST)) {
            memmove(t, x.x, sizeof t);
            flush_words(t);
            x.x = t;
        }
        for (int l = 0; l < LANES; l++)
            s[i][l] = x.x[l];
        un |= x.un;
        if (!wide)
            continue;
        x = src32(w, in, 1 + i, 1, t, ut);
        for (int l = 0; l < LANES; l++)
            s[i][l] |= (u64)x.x[l] << 32;
        un |= x.un;
    }
    u64 r = ((compare_fn *)in->op->fn)(s[0], s[1]) & exec;
    un &= exec;
    u16 d = in->o[0].reg;
    set_s64(w, d, r);
    w->su[d] = (u32)un;
    w->su[d + 1] = (u32)(un >> 32);
    if (in->op->flags & OF_EXEC_OUT) {
        set_s64(w, REG_EXEC, r);
        if (un)
            report(w, GCN_UNDEFINED, __builtin_ctzll(un), "exec is set from an undefined value");
    }
}
