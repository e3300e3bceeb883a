// Inputs and references for the kernels of kernels.hip. Matrix data are small integers, so that
// sums are exact in any order and compare bit by bit; the rest has bounds from its own length.
#include "jobs.h"

#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static uint32_t state;
static int random_below(int n)
{
    state = state * 1664525u + 1013904223u;
    return (int)((uint64_t)state * (uint32_t)n >> 32);
}
static uint16_t bf16(float f)
{
    uint32_t u;
    memcpy(&u, &f, 4);
    return (uint16_t)((u + 0x7fff + (u >> 16 & 1)) >> 16);
}
static float wide(uint16_t h)
{
    uint32_t u = (uint32_t)h << 16;
    float f;
    memcpy(&f, &u, 4);
    return f;
}

#define VA(i) (0x100000000000ull * (unsigned)((i) + 1))

// Adds a buffer and, as the next argument, its device address.
static void *add(job *j, size_t bytes, bool writable)
{
    unsigned char *p = calloc(1, bytes ? bytes : 1);
    uint64_t va = VA(j->nbuffer);
    if (!p)
        abort();
    memcpy(j->args + j->args_bytes, &va, 8);
    j->args_bytes += 8;
    j->buffer[j->nbuffer].host = p;
    j->buffer[j->nbuffer].bytes = bytes;
    j->buffer[j->nbuffer++].writable = writable;
    return p;
}
static void scalar(job *j, int x)
{
    memcpy(j->args + j->args_bytes, &x, 4);
    j->args_bytes += 4;
}
static void align8(job *j)
{
    j->args_bytes = (j->args_bytes + 7) / 8 * 8;
}

static long gemm_wrong(const job *j)
{
    const uint16_t *a = (void *)j->buffer[0].host, *b = (void *)j->buffer[1].host;
    const float *c = (void *)j->buffer[2].host;
    int m = j->n[0], n = j->n[1], k = j->n[2];
    long bad = 0;
    for (int r = 0; r < m; r++)
        for (int q = 0; q < n; q++) {
            float s = 0;
            for (int i = 0; i < k; i++)
                s += wide(a[r * k + i]) * wide(b[q * k + i]);
            bad += s != c[r * n + q];
        }
    return bad;
}
static void gemm(job *j, int m, int n, int k)
{
    j->kernel = "gemm", j->block = 256, j->wrong = gemm_wrong;
    j->grid[0] = (unsigned)(m + 63) / 64, j->grid[1] = (unsigned)(n + 63) / 64;
    j->n[0] = m, j->n[1] = n, j->n[2] = k;
    uint16_t *a = add(j, (size_t)m * (size_t)k * 2, false);
    uint16_t *b = add(j, (size_t)n * (size_t)k * 2, false);
    add(j, (size_t)m * (size_t)n * 4, true);
    for (int i = 0; i < m * k; i++)
        a[i] = bf16((float)(random_below(17) - 8));
    for (int i = 0; i < n * k; i++)
        b[i] = bf16((float)(random_below(17) - 8));
    scalar(j, m), scalar(j, n), scalar(j, k);
}

static long histogram_wrong(const job *j)
{
    const int *e = (void *)j->buffer[0].host, *c = (void *)j->buffer[1].host;
    int want[256] = {0};
    long bad = 0;
    for (int i = 0; i < j->n[0]; i++)
        want[e[i]]++;
    for (int i = 0; i < j->n[1]; i++)
        bad += want[i] + 0 != c[i];
    return bad;
}
static void histogram(job *j)
{
    j->kernel = "histogram", j->grid[0] = 4, j->block = 256, j->wrong = histogram_wrong;
    j->n[0] = 3000, j->n[1] = 37;
    int *e = add(j, 3000 * 4, false);
    for (int i = 0; i < 3000; i++)
        e[i] = random_below(37);
    scalar(j, 3000), scalar(j, 37);
    add(j, 37 * 4, true);
}

static long scan_wrong(const job *j)
{
    const int *c = (void *)j->buffer[0].host, *o = (void *)j->buffer[1].host;
    long bad = 0;
    for (int i = 0, s = 0; i < j->n[0]; s += c[i++])
        bad += o[i] != s;
    return bad;
}
static void scan(job *j)
{
    j->kernel = "scan", j->grid[0] = 1, j->block = 1024, j->wrong = scan_wrong, j->n[0] = 777;
    int *c = add(j, 777 * 4, false);
    for (int i = 0; i < 777; i++)
        c[i] = random_below(50);
    scalar(j, 777);
    align8(j);
    add(j, 777 * 4, true);
}

static long permute_wrong(const job *j)
{
    const uint16_t *x = (void *)j->buffer[0].host, *y = (void *)j->buffer[2].host;
    const int *s = (void *)j->buffer[1].host;
    int rows = j->n[1], width = j->n[2];
    long bad = 0;
    for (int r = 0; r < rows; r++)
        for (int i = 0; i < width; i++)
            bad += y[r * width + i] != (s[r] < 0 ? 0 : x[s[r] * width + i]);
    return bad;
}
static void permute(job *j)
{
    int tokens = 11, rows = 23, width = 520;
    j->kernel = "permute", j->grid[0] = (unsigned)rows, j->block = 64, j->wrong = permute_wrong;
    j->n[0] = tokens, j->n[1] = rows, j->n[2] = width;
    uint16_t *x = add(j, (size_t)(tokens * width) * 2, false);
    int *s = add(j, (size_t)rows * 4, false);
    add(j, (size_t)(rows * width) * 2, true);
    for (int i = 0; i < tokens * width; i++)
        x[i] = (uint16_t)random_below(65536);
    for (int i = 0; i < rows; i++)
        s[i] = random_below(tokens + 1) - 1;
    scalar(j, tokens), scalar(j, rows), scalar(j, width);
}

static long combine_wrong(const job *j)
{
    const uint16_t *y = (void *)j->buffer[0].host, *o = (void *)j->buffer[3].host;
    const int *pos = (void *)j->buffer[1].host;
    const float *w = (void *)j->buffer[2].host;
    int t = j->n[0], width = j->n[1], k = j->n[2];
    long bad = 0;
    for (int r = 0; r < t; r++)
        for (int i = 0; i < width; i++) {
            double s = 0, size = 0;
            for (int q = 0; q < k; q++) {
                double v = (double)w[r * k + q] * (double)wide(y[pos[r * k + q] * width + i]);
                s += v, size += fabs(v);
            }
            // k roundings in single precision, then one to bf16
            double bound = k * 0x1p-24 * size + (fabs(s) + k * 0x1p-24 * size) * 0x1p-8;
            bad += !(fabs((double)wide(o[r * width + i]) - s) <= bound);
        }
    return bad;
}
static void combine(job *j)
{
    int t = 9, width = 520, k = 3;
    j->kernel = "combine", j->grid[0] = (unsigned)t, j->block = 64, j->wrong = combine_wrong;
    j->n[0] = t, j->n[1] = width, j->n[2] = k;
    uint16_t *y = add(j, (size_t)(t * k * width) * 2, false);
    int *pos = add(j, (size_t)(t * k) * 4, false);
    float *w = add(j, (size_t)(t * k) * 4, false);
    add(j, (size_t)(t * width) * 2, true);
    for (int i = 0; i < t * k * width; i++)
        y[i] = bf16((float)(random_below(2001) - 1000) * 1e-3f);
    for (int i = 0; i < t * k; i++)
        pos[i] = t * k - 1 - i, w[i] = (float)random_below(1000) * 1e-3f;
    scalar(j, width), scalar(j, k);
}

static long topk_wrong(const job *j)
{
    const float *logit = (void *)j->buffer[0].host, *w = (void *)j->buffer[1].host;
    const int *id = (void *)j->buffer[2].host;
    int t = j->n[0], e = j->n[1], k = j->n[2];
    long bad = 0;
    for (int r = 0; r < t; r++) {
        double p[64], sum = 0;
        for (int i = 0; i < e; i++)
            sum += p[i] = exp((double)logit[r * e + i]);
        for (int q = 0; q < k; q++) {
            int at = 0;
            for (int i = 1; i < e; i++)
                if (p[i] > p[at])
                    at = i;
            bad += id[r * k + q] != at;
            // exp, 6 sums and a division, each within a few ulp
            bad += !(fabs((double)w[r * k + q] - p[at] / sum) <= 32 * 0x1p-24 * p[at] / sum);
            p[at] = -1;
        }
    }
    return bad;
}
static void topk(job *j)
{
    int t = 13, e = 60, k = 6;
    j->kernel = "topk", j->grid[0] = (unsigned)(t + 3) / 4, j->block = 256, j->wrong = topk_wrong;
    j->n[0] = t, j->n[1] = e, j->n[2] = k;
    float *logit = add(j, (size_t)(t * e) * 4, false);
    for (int i = 0; i < t * e; i++)
        logit[i] = (float)(random_below(20001) - 10000) * 3e-4f;
    scalar(j, e), scalar(j, k), scalar(j, t);
    align8(j);
    add(j, (size_t)(t * k) * 4, true), add(j, (size_t)(t * k) * 4, true);
}

static long silu_wrong(const job *j)
{
    const uint16_t *g = (void *)j->buffer[0].host, *u = (void *)j->buffer[1].host;
    const uint16_t *d = (void *)j->buffer[2].host, *dg = (void *)j->buffer[3].host;
    const uint16_t *du = (void *)j->buffer[4].host;
    long bad = 0;
    for (int i = 0; i < j->n[0]; i++) {
        double a = (double)wide(g[i]), b = (double)wide(u[i]), x = (double)wide(d[i]);
        double s = 1 / (1 + exp(-a)), want_u = x * a * s, size = fabs(x * b) * (s + fabs(a) * s);
        double want_g = x * b * (s + a * s * (1 - s));
        bad += !(fabs((double)wide(du[i]) - want_u) <= fabs(want_u) * (0x1p-8 + 0x1p-20));
        bad += !(fabs((double)wide(dg[i]) - want_g) <= fabs(want_g) * 0x1p-8 + size * 0x1p-20);
    }
    return bad;
}
static void silu(job *j)
{
    int n = 777;
    j->kernel = "silu_bwd", j->grid[0] = 4, j->block = 256, j->wrong = silu_wrong, j->n[0] = n;
    for (int b = 0; b < 5; b++) {
        uint16_t *p = add(j, (size_t)n * 2, b > 2);
        for (int i = 0; i < n && b < 3; i++)
            p[i] = bf16((float)(random_below(2001) - 1000) * 4e-3f);
    }
    scalar(j, n);
}

static long column_wrong(const job *j)
{
    const float *x = (void *)j->buffer[0].host, *s = (void *)j->buffer[1].host;
    long bad = 0;
    for (int c = 0; c < 64; c++) {
        float want = 0;
        for (int r = 0; r < j->n[0]; r++)
            want += x[r * 64 + c];
        bad += want != s[c];
    }
    return bad;
}
static void column(job *j)
{
    int rows = 37;
    j->kernel = "column_sum", j->grid[0] = 1, j->block = 256, j->wrong = column_wrong;
    j->n[0] = rows;
    float *x = add(j, (size_t)rows * 256, false);
    for (int i = 0; i < rows * 64; i++)
        x[i] = (float)(random_below(201) - 100);
    scalar(j, rows);
    align8(j);
    add(j, 256, true);
}

static long transpose_wrong(const job *j)
{
    const uint32_t *x = (void *)j->buffer[0].host, *y = (void *)j->buffer[1].host;
    long bad = 0;
    for (int t = 0; t < j->n[0]; t++)
        for (int i = 0; i < 4096; i++)
            bad += y[t * 4096 + i] != x[t * 4096 + i % 64 * 64 + i / 64];
    return bad;
}
static void transpose(job *j)
{
    int tiles = 4;
    j->kernel = "transpose", j->grid[0] = 1, j->block = 256, j->wrong = transpose_wrong;
    j->n[0] = tiles;
    uint32_t *x = add(j, (size_t)tiles * 16384, false);
    for (int i = 0; i < tiles * 4096; i++)
        x[i] = (uint32_t)i * 2654435761u;
    add(j, (size_t)tiles * 16384, true);
    scalar(j, tiles);
}

void job_make(int i, job *j)
{
    memset(j, 0, sizeof *j);
    state = 12345 + (uint32_t)i;
    j->grid[0] = j->grid[1] = 1;
    switch (i) {
    case 0: gemm(j, 70, 45, 192); break; // ragged in both, three steps of k
    case 1: gemm(j, 64, 128, 64); break; // whole tiles, one step
    case 2: histogram(j); break;
    case 3: scan(j); break;
    case 4: permute(j); break;
    case 5: combine(j); break;
    case 6: topk(j); break;
    case 7: silu(j); break;
    case 8: column(j); break;
    default: transpose(j); break;
    }
    job_reset(j);
}
void job_reset(job *j)
{
    bool counts = j->wrong == histogram_wrong; // adds to what is there
    for (int b = 0; b < j->nbuffer; b++)
        if (j->buffer[b].writable)
            memset(j->buffer[b].host, counts ? 0 : 0xab, j->buffer[b].bytes);
}
void job_free(job *j)
{
    for (int b = 0; b < j->nbuffer; b++)
        free(j->buffer[b].host);
}

gcn_status job_run(gcn_object *o, const job *j, unsigned seed, gcn_result *r,
                   const gcn_trace *trace)
{
    gcn_buffer buf[JOB_BUFFERS];
    for (int b = 0; b < j->nbuffer; b++)
        buf[b] = (gcn_buffer){j->buffer[b].host, VA(b), j->buffer[b].bytes,
                              j->buffer[b].writable, NULL};
    gcn_launch l = {.kernel = j->kernel, .grid = {j->grid[0], j->grid[1]}, .block = {j->block},
                    .kernarg = j->args, .kernarg_bytes = j->args_bytes, .buffer = buf,
                    .nbuffer = (size_t)j->nbuffer, .seed = seed, .trace = trace,
                    .max_instructions = 10000000};
    return gcn_run(o, &l, r, NULL, 0);
}

char *job_source(const char *definitions)
{
    FILE *f = fopen("tests/gcn/kernels.hip", "rb");
    if (!f)
        return NULL;
    size_t n = strlen(definitions), room = 1 << 16;
    char *s = malloc(room);
    if (s) {
        memcpy(s, definitions, n);
        n += fread(s + n, 1, room - n - 1, f);
        s[n] = 0;
    }
    fclose(f);
    return s;
}
