// Vector instructions that need more than their own lane's words: carries and selects by a
// scalar mask, the pieces of division, wide multiplies, mixed precision, lane access.
#include "isa.h"

#include <math.h>
#include <string.h>

enum { CARRY_ADD, CARRY_SUB, CARRY_SUBREV, CARRY_KIND = 3, CARRY_IN = 4 };

static void set_mask(struct wave *w, const struct operand *d, u64 bits, u64 un)
{
    u64 exec = exec_of(w);
    set_s64(w, d->reg, bits & exec);
    w->su[d->reg] = (u32)(un & exec);
    w->su[d->reg + 1] = (u32)((un & exec) >> 32);
}
static u64 get_mask(const struct wave *w, const struct operand *o, u64 *un)
{
    if (o->kind != O_REG) {
        *un = 0;
        return o->value;
    }
    *un = w->su[o->reg] | (u64)w->su[o->reg + 1] << 32;
    return s64(w, o->reg);
}
static void spread(u64 un, u32 *u)
{
    for (int l = 0; l < LANES; l++)
        u[l] = (u32)-(i32)(un >> l & 1);
}

// dst, carry out, a, b [, carry in]
void x_carry(struct wave *w, const struct inst *in)
{
    u32 t[2][LANES], ut[2][LANES], r[LANES], ur[LANES];
    struct value a = src32(w, in, 2, 0, t[0], ut[0]), b = src32(w, in, 3, 0, t[1], ut[1]);
    u64 cun = 0, cin = in->op->param & CARRY_IN ? get_mask(w, &in->o[4], &cun) : 0, out = 0;
    u32 kind = in->op->param & CARRY_KIND;
    for (int l = 0; l < LANES; l++) {
        u64 x = a.x[l], y = b.x[l], c = cin >> l & 1;
        u64 s = kind == CARRY_ADD ? x + y + c : kind == CARRY_SUB ? x - y - c : y - x - c;
        r[l] = (u32)s;
        out |= (s >> 32 & 1) << l;
    }
    u64 un = a.un | b.un | cun;
    spread(un, ur);
    set_mask(w, &in->o[1], out, un);
    put32(w, in, in->o[0].reg - REG_V, r, un, ur);
}

// dst, value where the bit is 0, value where it is 1, mask
void x_cndmask(struct wave *w, const struct inst *in)
{
    u32 t[2][LANES], ut[2][LANES], r[LANES], ur[LANES];
    struct value a = src32(w, in, 1, 0, t[0], ut[0]), b = src32(w, in, 2, 0, t[1], ut[1]);
    u64 mun, m = get_mask(w, &in->o[3], &mun), un = (a.un & ~m) | (b.un & m) | mun;
    for (int l = 0; l < LANES; l++)
        r[l] = m >> l & 1 ? b.x[l] : a.x[l];
    if (un)
        for (int l = 0; l < LANES; l++) {
            const struct value *s = m >> l & 1 ? &b : &a;
            ur[l] = mun >> l & 1 ? ~0u : s->un >> l & 1 ? s->ub[l] : 0;
        }
    put32(w, in, in->o[0].reg - REG_V, r, un, ur);
}

static int exponent(float f)
{
    return (int)(as_u32(f) >> 23 & 255);
}
static bool subnormal(double f, double least)
{
    return f != 0 && fabs(f) < least;
}

// v_div_scale_f32: brings numerator c and denominator b into range; a is the one to scale. The
// mask says where v_div_fmas has to scale back.
static float div_scale_f(float a, float b, float c, bool *flag)
{
    const double least = 0x1p-126;
    bool tiny_inverse = subnormal(1.0 / (double)b, least);
    bool tiny_quotient = subnormal((double)c / (double)b, least);
    *flag = false;
    if (c == 0 || b == 0)
        return NAN;
    if (exponent(c) - exponent(b) >= 96) {
        *flag = true;
        return a == b ? ldexpf(a, 64) : a;
    }
    if (subnormal((double)b, least))
        return ldexpf(a, 64);
    if (tiny_inverse && tiny_quotient) {
        *flag = true;
        return a == b ? ldexpf(a, 64) : a;
    }
    if (tiny_inverse)
        return ldexpf(a, -64);
    if (tiny_quotient) {
        *flag = true;
        return a == c ? ldexpf(a, 64) : a;
    }
    return exponent(c) <= 23 ? ldexpf(a, 64) : a;
}
static double div_scale_d(double a, double b, double c, bool *flag)
{
    int eb = (int)(as_u64(b) >> 52 & 2047), ec = (int)(as_u64(c) >> 52 & 2047);
    bool tiny_inverse = eb >= 2046, tiny_quotient = ec - eb < -1022;
    *flag = false;
    if (c == 0 || b == 0)
        return NAN;
    if (ec - eb >= 768) {
        *flag = true;
        return a == b ? ldexp(a, 128) : a;
    }
    if (subnormal(b, 0x1p-1022))
        return ldexp(a, 128);
    if (tiny_inverse && tiny_quotient) {
        *flag = true;
        return a == b ? ldexp(a, 128) : a;
    }
    if (tiny_inverse)
        return ldexp(a, -128);
    if (tiny_quotient) {
        *flag = true;
        return a == c ? ldexp(a, 128) : a;
    }
    return ec <= 53 ? ldexp(a, 128) : a;
}

// Sources of one or two dwords as 64-bit words. Returns the lanes with undefined bits, and which
// of them have such bits in the low dword.
static u64 wide_source(struct wave *w, const struct inst *in, int i, u64 *r, u64 *low)
{
    u32 t[LANES], ut[LANES];
    const struct operand *o = &in->o[i];
    struct value x = src32(w, in, i, 0, t, ut);
    u64 un = x.un;
    *low |= x.un;
    for (int l = 0; l < LANES; l++)
        r[l] = x.x[l];
    if (o->n != 2 && !(o->kind == O_CONST && (in->op->type == T_F64 || in->op->type == T_B64)))
        return un;
    x = src32(w, in, i, 1, t, ut);
    for (int l = 0; l < LANES; l++)
        r[l] |= (u64)x.x[l] << 32;
    return un | x.un;
}
static void put_wide(struct wave *w, const struct inst *in, const u64 *r, u64 un, u64 low)
{
    u32 t[LANES], ut[LANES];
    for (u32 part = 0; part < in->o[0].n; part++) {
        spread(part ? un : low, ut);
        for (int l = 0; l < LANES; l++)
            t[l] = (u32)(r[l] >> 32 * part);
        put32(w, in, in->o[0].reg - REG_V + part, t, part ? un : low, ut);
    }
}

// dst, mask, a, b, c
void x_div_scale(struct wave *w, const struct inst *in)
{
    u64 s[3][LANES], r[LANES], un = 0, low = 0, mask = 0;
    for (int i = 0; i < 3; i++)
        un |= wide_source(w, in, 2 + i, s[i], &low);
    for (int l = 0; l < LANES; l++) {
        bool flag;
        if (in->op->type == T_F64)
            r[l] = as_u64(div_scale_d(as_f64(s[0][l]), as_f64(s[1][l]), as_f64(s[2][l]), &flag));
        else
            r[l] = as_u32(div_scale_f(as_f32((u32)s[0][l]), as_f32((u32)s[1][l]),
                                      as_f32((u32)s[2][l]), &flag));
        mask |= (u64)flag << l;
    }
    set_mask(w, &in->o[1], mask, un);
    put_wide(w, in, r, un, un);
}

// a * b + c, scaled back where vcc says that v_div_scale scaled: up when the quotient so far is
// large, else down. (The manuals print one factor, 2^32; division only comes out right with 2^64 in
// either direction, which is also what emulators checked against hardware do.)
void x_div_fmas(struct wave *w, const struct inst *in)
{
    static const struct operand vcc = {.kind = O_REG, .n = 2, .reg = REG_VCC};
    u64 s[3][LANES], r[LANES], un, low = 0, mask = get_mask(w, &vcc, &un);
    for (int i = 0; i < 3; i++)
        un |= wide_source(w, in, 1 + i, s[i], &low);
    for (int l = 0; l < LANES; l++) {
        bool scaled = mask >> l & 1;
        if (in->op->type == T_F64) {
            double f = fma(as_f64(s[0][l]), as_f64(s[1][l]), as_f64(s[2][l]));
            int by = (s[2][l] >> 52 & 2047) > 1023 ? 128 : -128;
            r[l] = as_u64(scaled ? ldexp(f, by) : f);
        } else {
            float x = as_f32((u32)s[0][l]), y = as_f32((u32)s[1][l]), z = as_f32((u32)s[2][l]);
            int by = exponent(z) > 127 ? 64 : -64; // scaling and adding round once
            float scaled_sum = (float)ldexp(fma((double)x, (double)y, (double)z), by);
            r[l] = as_u32(scaled ? scaled_sum : fmaf(x, y, z));
        }
    }
    put_wide(w, in, r, un, un);
}

// dst pair, carry out, a, b, c pair: a * b + c at 64 bits, signed when param is set
void x_mad64(struct wave *w, const struct inst *in)
{
    u64 a[LANES], b[LANES], c[LANES], r[LANES], carry = 0, low = 0;
    u64 un = wide_source(w, in, 2, a, &low) | wide_source(w, in, 3, b, &low) |
             wide_source(w, in, 4, c, &low);
    for (int l = 0; l < LANES; l++) {
        u64 p = in->op->param ? (u64)((i64)(i32)a[l] * (i32)b[l]) : (u64)(u32)a[l] * (u32)b[l];
        r[l] = p + c[l];
        carry |= (u64)(r[l] < p) << l;
    }
    set_mask(w, &in->o[1], carry, un);
    put_wide(w, in, r, un, low); // carries only go up
}

// v_fma_mix_f32 / mixlo / mixhi: op_sel_hi says that a source is half precision, op_sel which
// half of it. param: 0 full result, 1 low half, 2 high half.
void x_mix(struct wave *w, const struct inst *in)
{
    float s[3][LANES];
    u32 r[LANES], ur[LANES];
    u64 un = 0;
    for (int i = 0; i < 3; i++) {
        u32 t[LANES], ut[LANES];
        struct operand o = in->o[1 + i];
        struct inst plain = *in; // neg_hi acts as |x| here; neither is a packed modifier
        plain.o[1 + i].neg = plain.o[1 + i].abs = false;
        struct value x = src32(w, &plain, 1 + i, 0, t, ut);
        bool half = in->op_sel_hi >> i & 1;
        u32 shift = half && in->op_sel >> i & 1 ? 16 : 0;
        for (int l = 0; l < LANES; l++) {
            float f = half ? half_up(x.x[l] >> shift & 0xffff) : as_f32(x.x[l]);
            f = o.abs || in->neg_hi >> i & 1 ? fabsf(f) : f;
            s[i][l] = o.neg || in->neg_lo >> i & 1 ? -f : f;
            u32 part = half ? 0xffffu << shift : ~0u;
            if (x.un >> l & 1 && x.ub[l] & part)
                un |= (u64)1 << l;
        }
    }
    u32 row = in->o[0].reg - REG_V, p = in->op->param;
    for (int l = 0; l < LANES; l++) {
        float f = fmaf(s[0][l], s[1][l], s[2][l]);
        if (in->clamp)
            f = f > 0 ? (f < 1 ? f : 1) : 0;
        u32 old = w->v[row][l], h = half_down(f);
        u32 old_u = w->vu[row] >> l & 1 ? w->vub[row][l] : 0, all = un >> l & 1 ? ~0u : 0;
        r[l] = p == 0 ? as_u32(f) : p == 1 ? (old & 0xffff0000u) | h : (old & 0xffff) | h << 16;
        ur[l] = p == 0 ? all : p == 1 ? (old_u & 0xffff0000u) | (all & 0xffff)
                                      : (old_u & 0xffff) | (all & 0xffff0000u);
    }
    put32(w, in, row, r, p ? ~(u64)0 : un, ur);
}

void x_swap(struct wave *w, const struct inst *in)
{
    u32 r[2][LANES], ur[2][LANES];
    u64 un[2];
    for (int i = 0; i < 2; i++) {
        u32 row = in->o[i].reg - REG_V;
        memcpy(r[i], w->v[row], sizeof r[i]);
        memcpy(ur[i], w->vub[row], sizeof ur[i]);
        un[i] = w->vu[row];
    }
    put32(w, in, in->o[0].reg - REG_V, r[1], un[1], ur[1]);
    put32(w, in, in->o[1].reg - REG_V, r[0], un[0], ur[0]);
}

static void scalar_from_lane(struct wave *w, const struct inst *in, int lane)
{
    u32 row = in->o[1].reg - REG_V;
    w->s[in->o[0].reg] = w->v[row][lane];
    w->su[in->o[0].reg] = w->vu[row] >> lane & 1 ? w->vub[row][lane] : 0;
}

void x_readfirstlane(struct wave *w, const struct inst *in)
{
    u64 exec = exec_of(w);
    scalar_from_lane(w, in, exec ? __builtin_ctzll(exec) : 0);
}

static int lane_select(struct wave *w, const struct operand *o)
{
    need_defined(w, o, 1, "lane number");
    return (int)((o->kind == O_REG ? w->s[o->reg] : (u32)o->value) & 63);
}

// dst scalar, source vector, lane; ignores exec
void x_readlane(struct wave *w, const struct inst *in)
{
    scalar_from_lane(w, in, lane_select(w, &in->o[2]));
}

// dst vector, value, lane; ignores exec
void x_writelane(struct wave *w, const struct inst *in)
{
    u32 t[LANES], ut[LANES];
    int lane = lane_select(w, &in->o[2]);
    struct value x = src32(w, in, 1, 0, t, ut);
    w->write = (u64)1 << lane;
    put32(w, in, in->o[0].reg - REG_V, x.x, x.un, x.ub);
}

#define ROW(name, sig, exec, type, flags, param) \
    {name, sig, exec, NULL, type, type, U_ANY, OF_VALU | (flags), param, NULL}
const struct op special_ops[] = {
    ROW("v_nop", "", x_nop, T_B32, 0, 0),
    ROW("v_cndmask_b32", "dsss", x_cndmask, T_B32, 0, 0),
    ROW("v_add_co_u32", "ddss", x_carry, T_B32, 0, CARRY_ADD),
    ROW("v_sub_co_u32", "ddss", x_carry, T_B32, 0, CARRY_SUB),
    ROW("v_subrev_co_u32", "ddss", x_carry, T_B32, 0, CARRY_SUBREV),
    ROW("v_addc_co_u32", "ddsss", x_carry, T_B32, 0, CARRY_ADD | CARRY_IN),
    ROW("v_subb_co_u32", "ddsss", x_carry, T_B32, 0, CARRY_SUB | CARRY_IN),
    ROW("v_subbrev_co_u32", "ddsss", x_carry, T_B32, 0, CARRY_SUBREV | CARRY_IN),
    ROW("v_div_scale_f32", "ddsss", x_div_scale, T_F32, 0, 0),
    ROW("v_div_scale_f64", "ddsss", x_div_scale, T_F64, 0, 0),
    ROW("v_div_fmas_f32", "dsss", x_div_fmas, T_F32, OF_VCC_IN, 0),
    ROW("v_div_fmas_f64", "dsss", x_div_fmas, T_F64, OF_VCC_IN, 0),
    ROW("v_mad_u64_u32", "ddsss", x_mad64, T_B64, 0, 0),
    ROW("v_mad_i64_i32", "ddsss", x_mad64, T_B64, 0, 1),
    ROW("v_fma_mix_f32", "dsss", x_mix, T_F32, 0, 0),
    ROW("v_fma_mixlo_f16", "xsss", x_mix, T_F32, 0, 1),
    ROW("v_fma_mixhi_f16", "xsss", x_mix, T_F32, 0, 2),
    ROW("v_swap_b32", "xx", x_swap, T_B32, 0, 0),
    ROW("v_pk_mov_b32", "dss", x_pk_mov, T_B32, 0, 0),
    ROW("v_readlane_b32", "dss", x_readlane, T_B32, 0, 0),
    ROW("v_readfirstlane_b32", "ds", x_readfirstlane, T_B32, 0, 0),
    ROW("v_writelane_b32", "xss", x_writelane, T_B32, 0, 0),
    {NULL, NULL, NULL, NULL, 0, 0, 0, 0, 0, NULL}
};
