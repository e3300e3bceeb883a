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

enum { SIDE = 32, MOST_K = 16 };

typedef struct operand { float at[16][MOST_K][SIDE]; } operand; /* [block][k][row or column] */
typedef struct result { float at[16][SIDE][SIDE]; } result;     /* [block][i][j] */

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

static void take(const struct shim_operands *o, int l, const void *vector, int side, bool flush, operand *to) {
    int across = side * o->blocks, each = o->k * across / SHIM_LANES;
    float least = !flush ? 0 : o->element == SHIM_F16 ? 0x1p-14f : 0x1p-126f;
    for (int e = 0; e < each; e++)
        to->at[l / side % o->blocks][each * (l / across) + e][l % side] =
            flushed(element(vector, e, o->element), least);
}

/* Block, row and column of register r of a lane. */
static void place(const struct shim_operands *o, int l, int r, int *block, int *i, int *j) {
    int registers = o->m * o->n / SHIM_LANES; /* of a block */
    *j = l % o->n;
    if (o->n == 4) {
        *block = l / 4, *i = r;
        return;
    }
    *block = r / registers;
    r %= registers;
    *i = 4 * (l / o->n) + r % 4 + 256 / o->n * (r / 4);
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
    int registers = o->m * o->n * o->blocks / SHIM_LANES, block, i, j;
    flush = flush && o->element != SHIM_F32;
    for (int l = 0; l < SHIM_LANES; l++) {
        take(o, l, lanes[l]->A, o->m, flush, &a);
        take(o, l, lanes[l]->B, o->n, flush, &b);
        for (int r = 0; r < registers; r++) {
            place(o, l, r, &block, &i, &j);
            memcpy(&c.at[block][i][j], (const float *)lanes[l]->C + r, sizeof(float));
        }
    }
    for (int n = 0; n < o->blocks; n++) multiply(o, n, &a, &b, &c);
    for (int l = 0; l < SHIM_LANES; l++)
        for (int r = 0; r < registers; r++) {
            place(o, l, r, &block, &i, &j);
            float v = flush ? flushed(c.at[block][i][j], 0x1p-126f) : c.at[block][i][j];
            memcpy((float *)lanes[l]->D + r, &v, sizeof v);
        }
}
