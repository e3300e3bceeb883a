/* Matrix instructions of a wave, by the documented lane maps (AMD matrix instruction calculator).
 *
 * With l the lane, G = 64 / (m * blocks) the groups of lanes along k and e the element of a lane's K / G:
 *   A[i][k]: i = l % m, block l / m % blocks, k = (K / G) * (l / (m * blocks)) + e;  B[k][j] alike, j for i
 *   D, C: shapes of 16 and 32 hold column j = l % n; register r of a block holds row
 *     4 * (l / n) + r % 4 + (256 / n) * (r / 4), blocks one after another in the registers;
 *     shapes of 4 hold column l % 4 of block l / 4, register r its row r.
 * The order of the sum is not documented: here k rises, each product added by itself, in single precision
 * (products of bf16 and f16 are exact there). */
#include <math.h>
#include <string.h>

#include "machine.h"

enum { SIDE = 32, MOST_K = 16, MOST_SHAPES = 16, MOST_EACH = 4, MOST_REGISTERS = 32 };

typedef struct operand { float at[16][MOST_K][SIDE]; } operand; /* [block][k][row or column] */
typedef struct result { float at[16][SIDE][SIDE]; } result;     /* [block][i][j] */

/* Where the elements of a lane lie in operand and result, made from the formulas once for each shape. */
typedef struct maps {
    int m, n, k, blocks, each, registers;
    uint16_t a[SHIM_LANES][MOST_EACH], b[SHIM_LANES][MOST_EACH], d[SHIM_LANES][MOST_REGISTERS];
} maps;

/* Element e of an operand with `side` rows. */
static uint16_t operand_place(const maps *s, int side, int l, int e) {
    int across = side * s->blocks, block = l / side % s->blocks, k = s->k * across / SHIM_LANES * (l / across) + e;
    return (uint16_t)((block * MOST_K + k) * SIDE + l % side);
}

/* Register r of a result. */
static uint16_t result_place(const maps *s, int l, int r) {
    if (s->n == 4) return (uint16_t)((l / 4 * SIDE + r) * SIDE + l % 4);
    int of_block = s->m * s->n / SHIM_LANES, block = r / of_block, i = r % of_block;
    return (uint16_t)((block * SIDE + 4 * (l / s->n) + i % 4 + 256 / s->n * (i / 4)) * SIDE + l % s->n);
}

static void make_maps(maps *s, const struct shim_operands *o) {
    *s = (maps){.m = o->m, .n = o->n, .k = o->k, .blocks = o->blocks, .each = o->k * o->m * o->blocks / SHIM_LANES,
                .registers = o->m * o->n * o->blocks / SHIM_LANES};
    for (int l = 0; l < SHIM_LANES; l++) {
        for (int e = 0; e < s->each; e++) s->a[l][e] = operand_place(s, s->m, l, e);
        for (int e = 0; e < s->each; e++) s->b[l][e] = operand_place(s, s->n, l, e);
        for (int r = 0; r < s->registers; r++) s->d[l][r] = result_place(s, l, r);
    }
}

static const maps *maps_of(const struct shim_operands *o) {
    static maps known[MOST_SHAPES];
    static int count;
    for (int i = 0; i < count; i++) {
        const maps *s = &known[i];
        if (s->m == o->m && s->n == o->n && s->k == o->k && s->blocks == o->blocks) return s;
    }
    maps *s = &known[count < MOST_SHAPES ? count++ : 0];
    make_maps(s, o);
    return s;
}

static float bf16_to_f32(uint16_t v) {
    uint32_t bits = (uint32_t)v << 16;
    float f;
    memcpy(&f, &bits, sizeof f);
    return f;
}

static float f16_to_f32(uint16_t v) {
    int exponent = v >> 10 & 31, mantissa = v & 1023;
    float f = exponent == 31 ? (mantissa ? NAN : INFINITY)
            : exponent ? ldexpf((float)(1024 + mantissa), exponent - 25) : ldexpf((float)mantissa, -24);
    return v >> 15 ? -f : f;
}

static float element(const void *vector, int e, int type) {
    uint16_t half;
    float f;
    if (type == SHIM_F32) {
        memcpy(&f, (const char *)vector + 4 * e, sizeof f);
        return f;
    }
    memcpy(&half, (const char *)vector + 2 * e, sizeof half);
    return type == SHIM_BF16 ? bf16_to_f32(half) : f16_to_f32(half);
}

/* gfx90a: what is too small for a normal number counts as 0 of its sign. */
static float flushed(float v, float least) { return fabsf(v) < least ? copysignf(0.0f, v) : v; }

static void take(const struct shim_operands *o, const void *vector, const uint16_t *places, int each, bool flush,
                 operand *to) {
    float least = !flush ? 0 : o->element == SHIM_F16 ? 0x1p-14f : 0x1p-126f;
    for (int e = 0; e < each; e++) {
        float v = element(vector, e, o->element);
        (&to->at[0][0][0])[places[e]] = flush ? flushed(v, least) : v;
    }
}

static void multiply(const struct shim_operands *o, int block, const operand *a, const operand *b, result *c) {
    for (int i = 0; i < o->m; i++)
        for (int k = 0; k < o->k; k++) {
            float v = a->at[block][k][i];
            const float *row = b->at[block][k];
            float *sum = c->at[block][i];
            if (o->element == SHIM_F32)
                for (int j = 0; j < o->n; j++) sum[j] = fmaf(v, row[j], sum[j]);
            else
                for (int j = 0; j < o->n; j++) sum[j] += v * row[j];
        }
}

void mfma_compute(struct shim_operands *const lanes[SHIM_LANES], bool flush) {
    static operand a, b;
    static result c;
    const struct shim_operands *o = lanes[0];
    const maps *s = maps_of(o);
    float *sums = &c.at[0][0][0];
    flush = flush && o->element != SHIM_F32;
    for (int l = 0; l < SHIM_LANES; l++) {
        take(o, lanes[l]->A, s->a[l], s->each, flush, &a);
        take(o, lanes[l]->B, s->b[l], s->each, flush, &b);
        for (int r = 0; r < s->registers; r++) memcpy(sums + s->d[l][r], (const float *)lanes[l]->C + r, sizeof *sums);
    }
    for (int n = 0; n < o->blocks; n++) multiply(o, n, &a, &b, &c);
    for (int l = 0; l < SHIM_LANES; l++)
        for (int r = 0; r < s->registers; r++) {
            float v = flush ? flushed(sums[s->d[l][r]], 0x1p-126f) : sums[s->d[l][r]];
            memcpy((float *)lanes[l]->D + r, &v, sizeof v);
        }
}
