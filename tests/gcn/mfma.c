// Matrix instructions: D = A B + C, for one to sixteen independent blocks per wave.
//
// Lane maps (AMD matrix instruction calculator). With l the lane and G = 64 / (M * blocks)
// groups of lanes along k, each lane holds E = K / G consecutive k of one row of A:
//   A[i][k]: i = l % M, block = l / M % blocks, k = E * (l / (M * blocks)) + e
//   B[k][j]: the same with j in place of i
//   D, 4-byte: j = l % N; register r holds row 4 * (l / N) + r % 4 + (256 / N) * (r / 4), and
//   blocks follow one another in registers (in lanes for the 4x4 shapes).
//   D, f64 16x16: i = 4 * r + l / 16. f64 4x4: one element a lane, i = l / 16, block l / 4 % 4.
// The order in which products are summed is not documented. This file sums in ascending k with
// a fused multiply-add of floats; tests use sums that are exact, or bounds that hold for any order.
#include "isa.h"

#include <math.h>
#include <string.h>

enum element { E_F32, E_BF16, E_F16, E_XF32, E_I8, E_F64, E_FP8, E_BF8 };
enum { P_A = 0xf, P_B = 0xf0, P_INT = 0x100 };
#define AB(a, b) ((u32)(a) | (u32)(b) << 4)

static const u8 element_bytes[] = {4, 2, 2, 4, 1, 8, 1, 1};

// fp8 e4m3 and bf8 e5m2 of gfx942 ("fnuz": bias one higher, one NaN, no infinity, no -0).
static float small_float(u32 x, int mantissa, int bias)
{
    if (x == 0x80)
        return NAN;
    int e = (int)((x & 0x7f) >> mantissa), m = (int)(x & ((1u << mantissa) - 1));
    float f = e ? ldexpf((float)(m + (1 << mantissa)), e - bias - mantissa)
                : ldexpf((float)m, 1 - bias - mantissa);
    return x & 0x80 ? -f : f;
}

// One block's operands by k, so that a row of either is contiguous, and its result by row.
struct tile {
    union {
        float f[32][32];
        double d[4][32];
        i32 i[32][32];
    } a, b, c;
    double cd[16][32];
};

// Lane 0 of a run of `n` lanes holding consecutive elements, and the register they sit in.
struct run {
    int lane;
    u32 row;
};

static void load_run(const struct wave *w, enum element kind, struct run at, int e, int n,
                     struct tile *t, bool is_a, int k)
{
    float *f = is_a ? t->a.f[k] : t->b.f[k];
    const u32 *v = w->v[at.row + (u32)(e * element_bytes[kind] / 4)] + at.lane;
    u32 shift = 8 * ((u32)e * element_bytes[kind] % 4);
    switch (kind) {
    case E_BF16:
        for (int i = 0; i < n; i++)
            f[i] = as_f32(v[i] >> shift << 16);
        break;
    case E_F16:
        for (int i = 0; i < n; i++)
            f[i] = half_up(v[i] >> shift & 0xffff);
        break;
    case E_F32:
        memcpy(f, v, sizeof *f * (size_t)n);
        break;
    case E_XF32: // 10 bits of mantissa
        for (int i = 0; i < n; i++)
            f[i] = as_f32(v[i] & 0xffffe000u);
        break;
    case E_FP8:
    case E_BF8:
        for (int i = 0; i < n; i++)
            f[i] = kind == E_FP8 ? small_float(v[i] >> shift & 255, 3, 8)
                                 : small_float(v[i] >> shift & 255, 2, 16);
        break;
    case E_I8:
        for (int i = 0; i < n; i++)
            (is_a ? t->a.i : t->b.i)[k][i] = (int8_t)(v[i] >> shift);
        break;
    case E_F64:
        for (int i = 0; i < n; i++)
            (is_a ? t->a.d : t->b.d)[k][i] = as_f64(v[i] | (u64)v[i + LANES] << 32);
        break;
    }
}

// gfx90a's matrix unit treats subnormal bf16 and f16 inputs, and subnormal results, as zero.
static void flush_run(struct wave *w, float *f, int n, float least)
{
    int hits = 0;
    for (int i = 0; i < n; i++)
        hits += f[i] != 0 && fabsf(f[i]) < least;
    if (!hits)
        return;
    w->g->result->flushed += (u64)hits;
    for (int i = 0; i < n; i++)
        f[i] = fabsf(f[i]) < least ? copysignf(0.0f, f[i]) : f[i];
}

static bool flushes(const struct wave *w, enum element kind)
{
    return w->g->obj->arch == ARCH_GFX90A && (kind == E_BF16 || kind == E_F16);
}

static void gather(struct wave *w, const struct inst *in, int block, bool is_a, struct tile *t)
{
    const struct mfma_shape *s = in->op->mfma;
    enum element kind = is_a ? in->op->param & P_A : (in->op->param & P_B) >> 4;
    int m = is_a ? s->m : s->n, per_group = m * s->blocks, each = s->k * per_group / LANES;
    u32 row = in->o[is_a ? 1 : 2].reg - REG_V;
    for (int k = 0; k < s->k; k++) {
        struct run at = {k / each * per_group + block * m, row};
        load_run(w, kind, at, k % each, m, t, is_a, k);
        if (flushes(w, kind))
            flush_run(w, is_a ? t->a.f[k] : t->b.f[k], m, kind == E_F16 ? 0x1p-14f : 0x1p-126f);
    }
}

// Where row i of a block of D lives: a run of N lanes of one register (a pair for f64).
static struct run run_of(const struct mfma_shape *s, bool f64, int block, int i)
{
    if (f64 && s->m == 16)
        return (struct run){16 * (i % 4), 2 * (u32)(i / 4)};
    if (f64)
        return (struct run){16 * i + 4 * block, 0};
    if (s->m == 4)
        return (struct run){4 * block, (u32)i};
    int step = 256 / s->n, per_block = s->m * s->n / LANES; // rows covered by 4 registers
    return (struct run){s->n * (i % step / 4), (u32)(per_block * block + 4 * (i / step) + i % 4)};
}

// Products of 8- and 16-bit floats are exact in single precision, so that multiplying and adding
// is the same as a fused operation there.
static void multiply(const struct mfma_shape *s, enum element kind, struct tile *t)
{
    for (int i = 0; i < s->m; i++)
        for (int k = 0; k < s->k; k++) {
            int n = s->n;
            if (kind == E_F64)
                for (int j = 0; j < n; j++)
                    t->cd[i][j] = fma(t->a.d[k][i], t->b.d[k][j], t->cd[i][j]);
            else if (kind == E_I8)
                for (int j = 0; j < n; j++)
                    t->c.i[i][j] = (i32)((u32)t->c.i[i][j] + (u32)(t->a.i[k][i] * t->b.i[k][j]));
            else if (kind == E_F32)
                for (int j = 0; j < n; j++)
                    t->c.f[i][j] = __builtin_fmaf(t->a.f[k][i], t->b.f[k][j], t->c.f[i][j]);
            else
                for (int j = 0; j < n; j++)
                    t->c.f[i][j] += t->a.f[k][i] * t->b.f[k][j];
        }
}

// The addend: a register per run, or a constant.
static void load_addend(const struct wave *w, const struct inst *in, int block, bool f64,
                        struct tile *t)
{
    const struct mfma_shape *s = in->op->mfma;
    const struct operand *c = &in->o[3];
    for (int i = 0; i < s->m; i++) {
        struct run at = run_of(s, f64, block, i);
        if (c->kind != O_REG) {
            for (int j = 0; j < s->n; j++) {
                if (f64)
                    t->cd[i][j] = as_f64(c->value);
                else
                    t->c.i[i][j] = (i32)c->value;
            }
            continue;
        }
        const u32 *v = w->v[c->reg - REG_V + at.row] + at.lane;
        if (!f64)
            memcpy(t->c.f[i], v, 4 * (size_t)s->n);
        for (int j = 0; f64 && j < s->n; j++)
            t->cd[i][j] = as_f64(v[j] | (u64)v[j + LANES] << 32);
    }
}

static void store_result(const struct mfma_shape *s, int block, bool f64, const struct tile *t,
                         u32 (*out)[LANES])
{
    for (int i = 0; i < s->m; i++) {
        struct run at = run_of(s, f64, block, i);
        if (!f64)
            memcpy(out[at.row] + at.lane, t->c.f[i], 4 * (size_t)s->n);
        for (int j = 0; f64 && j < s->n; j++) {
            out[at.row][at.lane + j] = (u32)as_u64(t->cd[i][j]);
            out[at.row + 1][at.lane + j] = (u32)(as_u64(t->cd[i][j]) >> 32);
        }
    }
}

static bool lane_undefined(const struct wave *w, const struct operand *o, int lane)
{
    for (u32 i = 0; i < o->n; i++)
        if (w->vu[o->reg - REG_V + i] >> lane & 1)
            return true;
    return false;
}

// Row i of D is undefined when a lane holding part of row i of A is, column j likewise for B,
// and each element when its addend is.
static void shadow_block(const struct wave *w, const struct inst *in, int block,
                         u32 (*uout)[LANES])
{
    const struct mfma_shape *s = in->op->mfma;
    const struct operand *c = &in->o[3];
    bool f64 = (in->op->param & P_A) == E_F64, row[32] = {0}, col[32] = {0};
    for (int l = 0; l < LANES; l++) {
        if (l / s->m % s->blocks == block && lane_undefined(w, &in->o[1], l))
            row[l % s->m] = true;
        if (l / s->n % s->blocks == block && lane_undefined(w, &in->o[2], l))
            col[l % s->n] = true;
    }
    for (int i = 0; i < s->m; i++)
        for (int j = 0; j < s->n; j++) {
            struct run at = run_of(s, f64, block, i);
            struct operand part = {.reg = (u16)(c->reg + at.row), .n = f64 ? 2 : 1};
            bool u = row[i] || col[j] ||
                     (is_vector(c) && lane_undefined(w, &part, at.lane + j));
            uout[at.row][at.lane + j] = u ? ~0u : 0;
            if (f64)
                uout[at.row + 1][at.lane + j] = u ? ~0u : 0;
        }
}

static bool sources_undefined(const struct wave *w, const struct inst *in)
{
    u64 un = 0;
    for (int i = 1; i < 4; i++)
        for (u32 r = 0; r < in->o[i].n && is_vector(&in->o[i]); r++)
            un |= w->vu[in->o[i].reg - REG_V + r];
    return un != 0;
}

// The matrix unit ignores exec.
void x_mfma(struct wave *w, const struct inst *in)
{
    const struct mfma_shape *s = in->op->mfma;
    u32 out[32][LANES], uout[32][LANES];
    bool doubtful = sources_undefined(w, in);
    enum element kind = in->op->param & P_A;
    for (int b = 0; b < s->blocks; b++) {
        struct tile t;
        gather(w, in, b, true, &t);
        gather(w, in, b, false, &t);
        load_addend(w, in, b, kind == E_F64, &t);
        multiply(s, kind, &t);
        for (int i = 0; i < s->m && flushes(w, kind); i++)
            flush_run(w, t.c.f[i], s->n, 0x1p-126f);
        store_result(s, b, kind == E_F64, &t, out);
        if (doubtful)
            shadow_block(w, in, b, uout);
    }
    w->g->result->mfma++;
    for (u32 r = 0; r < in->o[0].n; r++) {
        u32 row = in->o[0].reg - REG_V + r;
        memcpy(w->v[row], out[r], sizeof out[r]);
        u64 un = 0;
        for (int l = 0; doubtful && l < LANES; l++)
            un |= (u64)(uout[r][l] != 0) << l;
        w->vu[row] = un;
        if (un)
            memcpy(w->vub[row], uout[r], sizeof uout[r]);
    }
}

// Passes of 4 cycles (gfx90a, gfx942): CDNA2/CDNA3 ISA manuals, table of MFMA instructions.
#define M(name, m, n, k, blocks, p90a, p942, xdl, a, b) \
    {#name, "dsss", x_mfma, NULL, (a) == E_F64 ? T_F64 : T_F32, T_F32, U_ANY, OF_VALU | OF_MFMA, \
     AB(a, b), &(const struct mfma_shape){m, n, k, blocks, {p90a, p942}, xdl}},
#define M8(a8, b8, ea, eb) \
    M(v_mfma_f32_16x16x32_##a8##_##b8, 16, 16, 32, 1, 0, 4, true, ea, eb) \
    M(v_mfma_f32_32x32x16_##a8##_##b8, 32, 32, 16, 1, 0, 8, true, ea, eb)
const struct op mfma_ops[] = {
    // gfx90a spelling
    M(v_mfma_f32_32x32x8bf16_1k, 32, 32, 8, 1, 16, 0, true, E_BF16, E_BF16)
    M(v_mfma_f32_16x16x16bf16_1k, 16, 16, 16, 1, 8, 0, true, E_BF16, E_BF16)
    M(v_mfma_f32_32x32x4bf16_1k, 32, 32, 4, 2, 16, 0, true, E_BF16, E_BF16)
    M(v_mfma_f32_16x16x4bf16_1k, 16, 16, 4, 4, 8, 0, true, E_BF16, E_BF16)
    M(v_mfma_f32_4x4x4bf16_1k, 4, 4, 4, 16, 2, 0, true, E_BF16, E_BF16)
    M(v_mfma_f32_32x32x4bf16, 32, 32, 4, 1, 16, 0, true, E_BF16, E_BF16)
    M(v_mfma_f32_16x16x8bf16, 16, 16, 8, 1, 8, 0, true, E_BF16, E_BF16)
    M(v_mfma_f32_32x32x2bf16, 32, 32, 2, 2, 16, 0, true, E_BF16, E_BF16)
    M(v_mfma_f32_16x16x2bf16, 16, 16, 2, 4, 8, 0, true, E_BF16, E_BF16)
    M(v_mfma_f32_4x4x2bf16, 4, 4, 2, 16, 2, 0, true, E_BF16, E_BF16)
    M(v_mfma_f32_32x32x8f16, 32, 32, 8, 1, 16, 0, true, E_F16, E_F16)
    M(v_mfma_f32_16x16x16f16, 16, 16, 16, 1, 8, 0, true, E_F16, E_F16)
    M(v_mfma_f32_32x32x4f16, 32, 32, 4, 2, 16, 0, true, E_F16, E_F16)
    M(v_mfma_f32_16x16x4f16, 16, 16, 4, 4, 8, 0, true, E_F16, E_F16)
    M(v_mfma_f32_4x4x4f16, 4, 4, 4, 16, 2, 0, true, E_F16, E_F16)
    M(v_mfma_f32_32x32x2f32, 32, 32, 2, 1, 16, 0, true, E_F32, E_F32)
    M(v_mfma_f32_16x16x4f32, 16, 16, 4, 1, 8, 0, true, E_F32, E_F32)
    M(v_mfma_f32_32x32x1f32, 32, 32, 1, 2, 16, 0, true, E_F32, E_F32)
    M(v_mfma_f32_16x16x1f32, 16, 16, 1, 4, 8, 0, true, E_F32, E_F32)
    M(v_mfma_f32_4x4x1f32, 4, 4, 1, 16, 2, 0, true, E_F32, E_F32)
    M(v_mfma_i32_32x32x8i8, 32, 32, 8, 1, 16, 0, true, E_I8, E_I8)
    M(v_mfma_i32_16x16x16i8, 16, 16, 16, 1, 8, 0, true, E_I8, E_I8)
    M(v_mfma_f64_16x16x4f64, 16, 16, 4, 1, 8, 0, false, E_F64, E_F64)
    M(v_mfma_f64_4x4x4f64, 4, 4, 4, 4, 4, 0, false, E_F64, E_F64)
    // gfx942 spelling
    M(v_mfma_f32_32x32x8_bf16, 32, 32, 8, 1, 0, 8, true, E_BF16, E_BF16)
    M(v_mfma_f32_16x16x16_bf16, 16, 16, 16, 1, 0, 4, true, E_BF16, E_BF16)
    M(v_mfma_f32_32x32x4_2b_bf16, 32, 32, 4, 2, 0, 16, true, E_BF16, E_BF16)
    M(v_mfma_f32_16x16x4_4b_bf16, 16, 16, 4, 4, 0, 8, true, E_BF16, E_BF16)
    M(v_mfma_f32_4x4x4_16b_bf16, 4, 4, 4, 16, 0, 2, true, E_BF16, E_BF16)
    M(v_mfma_f32_32x32x8_f16, 32, 32, 8, 1, 0, 8, true, E_F16, E_F16)
    M(v_mfma_f32_16x16x16_f16, 16, 16, 16, 1, 0, 4, true, E_F16, E_F16)
    M(v_mfma_f32_32x32x4_2b_f16, 32, 32, 4, 2, 0, 16, true, E_F16, E_F16)
    M(v_mfma_f32_16x16x4_4b_f16, 16, 16, 4, 4, 0, 8, true, E_F16, E_F16)
    M(v_mfma_f32_4x4x4_16b_f16, 4, 4, 4, 16, 0, 2, true, E_F16, E_F16)
    M(v_mfma_f32_32x32x2_f32, 32, 32, 2, 1, 0, 16, false, E_F32, E_F32)
    M(v_mfma_f32_16x16x4_f32, 16, 16, 4, 1, 0, 8, false, E_F32, E_F32)
    M(v_mfma_f32_32x32x1_2b_f32, 32, 32, 1, 2, 0, 16, false, E_F32, E_F32)
    M(v_mfma_f32_16x16x1_4b_f32, 16, 16, 1, 4, 0, 8, false, E_F32, E_F32)
    M(v_mfma_f32_4x4x1_16b_f32, 4, 4, 1, 16, 0, 2, false, E_F32, E_F32)
    M(v_mfma_f32_32x32x4_xf32, 32, 32, 4, 1, 0, 8, true, E_XF32, E_XF32)
    M(v_mfma_f32_16x16x8_xf32, 16, 16, 8, 1, 0, 4, true, E_XF32, E_XF32)
    M(v_mfma_i32_32x32x16_i8, 32, 32, 16, 1, 0, 8, true, E_I8, E_I8)
    M(v_mfma_i32_16x16x32_i8, 16, 16, 32, 1, 0, 4, true, E_I8, E_I8)
    M(v_mfma_f64_16x16x4_f64, 16, 16, 4, 1, 0, 8, false, E_F64, E_F64)
    M(v_mfma_f64_4x4x4_4b_f64, 4, 4, 4, 4, 0, 4, false, E_F64, E_F64)
    M8(fp8, fp8, E_FP8, E_FP8) M8(fp8, bf8, E_FP8, E_BF8)
    M8(bf8, fp8, E_BF8, E_FP8) M8(bf8, bf8, E_BF8, E_BF8)
    {NULL, NULL, NULL, NULL, 0, 0, 0, 0, 0, NULL}
};
