// Every MFMA shape against a plain triple loop: which lane and register holds which element is
// spelled out here from the published maps, apart from the interpreter's own way of saying it.
// Also the wait states behind each: the smallest s_nop that is accepted must be the manual's.
#include "../t.h"
#include "gcn.h"
#include "tool.h"

#include <math.h>
#include <stdlib.h>

enum kind { BF16, F16, F32, I8, F64, FP8, BF8 };
static const struct shape {
    const char *gfx90a, *gfx942;
    int m, n, k, blocks;
    enum kind kind;
} shapes[] = {
    {"v_mfma_f32_32x32x8bf16_1k", "v_mfma_f32_32x32x8_bf16", 32, 32, 8, 1, BF16},
    {"v_mfma_f32_16x16x16bf16_1k", "v_mfma_f32_16x16x16_bf16", 16, 16, 16, 1, BF16},
    {"v_mfma_f32_32x32x4bf16_1k", "v_mfma_f32_32x32x4_2b_bf16", 32, 32, 4, 2, BF16},
    {"v_mfma_f32_16x16x4bf16_1k", "v_mfma_f32_16x16x4_4b_bf16", 16, 16, 4, 4, BF16},
    {"v_mfma_f32_4x4x4bf16_1k", "v_mfma_f32_4x4x4_16b_bf16", 4, 4, 4, 16, BF16},
    {"v_mfma_f32_32x32x4bf16", NULL, 32, 32, 4, 1, BF16},
    {"v_mfma_f32_16x16x8bf16", NULL, 16, 16, 8, 1, BF16},
    {"v_mfma_f32_32x32x8f16", "v_mfma_f32_32x32x8_f16", 32, 32, 8, 1, F16},
    {"v_mfma_f32_16x16x16f16", "v_mfma_f32_16x16x16_f16", 16, 16, 16, 1, F16},
    {"v_mfma_f32_4x4x4f16", "v_mfma_f32_4x4x4_16b_f16", 4, 4, 4, 16, F16},
    {"v_mfma_f32_32x32x2f32", "v_mfma_f32_32x32x2_f32", 32, 32, 2, 1, F32},
    {"v_mfma_f32_16x16x4f32", "v_mfma_f32_16x16x4_f32", 16, 16, 4, 1, F32},
    {"v_mfma_f32_32x32x1f32", "v_mfma_f32_32x32x1_2b_f32", 32, 32, 1, 2, F32},
    {"v_mfma_f32_16x16x1f32", "v_mfma_f32_16x16x1_4b_f32", 16, 16, 1, 4, F32},
    {"v_mfma_f32_4x4x1f32", "v_mfma_f32_4x4x1_16b_f32", 4, 4, 1, 16, F32},
    {NULL, "v_mfma_f32_32x32x4_xf32", 32, 32, 4, 1, F32},
    {NULL, "v_mfma_f32_16x16x8_xf32", 16, 16, 8, 1, F32},
    {"v_mfma_i32_32x32x8i8", "v_mfma_i32_32x32x16_i8", 32, 32, 0, 1, I8},
    {"v_mfma_i32_16x16x16i8", "v_mfma_i32_16x16x32_i8", 16, 16, 0, 1, I8},
    {"v_mfma_f64_16x16x4f64", "v_mfma_f64_16x16x4_f64", 16, 16, 4, 1, F64},
    {"v_mfma_f64_4x4x4f64", "v_mfma_f64_4x4x4_4b_f64", 4, 4, 4, 4, F64},
    {NULL, "v_mfma_f32_32x32x16_fp8_fp8", 32, 32, 16, 1, FP8},
    {NULL, "v_mfma_f32_16x16x32_fp8_fp8", 16, 16, 32, 1, FP8},
    {NULL, "v_mfma_f32_16x16x32_bf8_bf8", 16, 16, 32, 1, BF8},
};
enum { NSHAPES = sizeof shapes / sizeof *shapes, LANES = 64 };
static const int bytes_of[] = {2, 2, 4, 1, 8, 1, 1};

// i8 shapes differ between the architectures in k alone.
static int depth(const struct shape *s, bool cdna3)
{
    return s->k ? s->k : (s->m == 32 ? 8 : 16) * (cdna3 ? 2 : 1);
}
static int regs_ab(const struct shape *s, bool cdna3)
{
    int bytes = s->m * depth(s, cdna3) * s->blocks / LANES * bytes_of[s->kind];
    return bytes < 4 ? 1 : bytes / 4;
}
static int regs_c(const struct shape *s)
{
    return s->m * s->n * s->blocks / LANES * (s->kind == F64 ? 2 : 1);
}

static void range(struct text *t, char file, int at, int n)
{
    if (n == 1)
        text_add(t, "%c%d", file, at);
    else
        text_add(t, "%c[%d:%d]", file, at, at + n - 1);
}

// A in v[2..], B in v[10..], C and D in a[0..]; one dword per lane and register in the buffers.
static void emit(struct text *t, const struct shape *s, bool cdna3, const char *name)
{
    int nab = regs_ab(s, cdna3), nc = regs_c(s);
    asm_kernel(t, name);
    text_add(t, "  s_load_dwordx4 s[88:91], s[0:1], 0\n  s_waitcnt lgkmcnt(0)\n"
                "  v_lshlrev_b32 v127, 2, v0\n");
    for (int i = 0; i < 2 * nab + nc; i++) {
        char file = i < 2 * nab ? 'v' : 'a';
        int r = i < nab ? 2 + i : i < 2 * nab ? 10 + i - nab : i - 2 * nab;
        text_add(t, "  global_load_dword %c%d, v127, s[88:89]\n  s_add_u32 s88, s88, 256\n"
                    "  s_addc_u32 s89, s89, 0\n", file, r);
    }
    text_add(t, "  s_waitcnt vmcnt(0)\n  %s ", cdna3 ? s->gfx942 : s->gfx90a);
    range(t, 'a', 0, nc), text_add(t, ", ");
    range(t, 'v', 2, nab), text_add(t, ", ");
    range(t, 'v', 10, nab), text_add(t, ", ");
    range(t, 'a', 0, nc);
    text_add(t, "\n  s_nop 15\n  s_nop 15\n");
    for (int i = 0; i < nc; i++)
        text_add(t, "  global_store_dword v127, a%d, s[90:91]\n  s_add_u32 s90, s90, 256\n"
                    "  s_addc_u32 s91, s91, 0\n", i);
    asm_kernel_end(t, name);
}

static uint64_t encode(enum kind kind, int x)
{
    float f = (float)x;
    double d = x;
    uint32_t u;
    uint64_t r = 0;
    _Float16 h = (_Float16)x;
    memcpy(&u, &f, 4);
    switch (kind) {
    case BF16: return u >> 16;
    case F16: memcpy(&r, &h, 2); return r;
    case F32: return u;
    case I8: return (uint8_t)x;
    case F64: memcpy(&r, &d, 8); return r;
    case FP8: // sign, 4 bits of exponent with bias 8, 3 of mantissa
        return x ? (x < 0 ? 0x80 : 0) | ((u >> 23 & 255) - 127 + 8) << 3 | (u >> 20 & 7) : 0;
    default: // sign, 5 bits with bias 16, 2 of mantissa
        return x ? (x < 0 ? 0x80 : 0) | ((u >> 23 & 255) - 127 + 16) << 2 | (u >> 21 & 3) : 0;
    }
}

static uint8_t input[80 * 256], output[64 * 256];

static void put(int reg, int lane, int at_byte, int bytes, uint64_t x)
{
    for (int b = 0; b < bytes; b += bytes < 4 ? bytes : 4) {
        int r = reg + (at_byte + b) / 4, within = (at_byte + b) % 4;
        memcpy(input + 256 * r + 4 * lane + within, (uint8_t *)&x + b, bytes < 4 ? bytes : 4);
    }
}

// Lane and register of D[block][i][j].
static void where(const struct shape *s, int block, int i, int j, int *lane, int *reg)
{
    if (s->kind == F64 && s->m == 16)
        *lane = j + 16 * (i % 4), *reg = 2 * (i / 4);
    else if (s->kind == F64)
        *lane = j + 4 * block + 16 * i, *reg = 0;
    else if (s->m == 32)
        *lane = j + 32 * (i / 4 % 2), *reg = 16 * block + 4 * (i / 8) + i % 4;
    else if (s->m == 16)
        *lane = j + 16 * (i / 4), *reg = 4 * block + i % 4;
    else
        *lane = j + 4 * block, *reg = i;
}

static void check(gcn_object *o, const struct shape *s, bool cdna3, const char *name)
{
    static int a[16][32][32], b[16][32][32], c[16][32][32];
    int k = depth(s, cdna3), nab = regs_ab(s, cdna3), nc = regs_c(s), bytes = bytes_of[s->kind];
    int group = s->m * s->blocks, each = k * group / LANES, lane, reg;
    memset(input, 0, sizeof input);
    for (int blk = 0; blk < s->blocks; blk++)
        for (int i = 0; i < s->m; i++) {
            for (int q = 0; q < k; q++) {
                a[blk][i][q] = rand() % 15 - 7, b[blk][q][i] = rand() % 15 - 7;
                lane = i + s->m * blk + group * (q / each);
                put(0, lane, q % each * bytes, bytes, encode(s->kind, a[blk][i][q]));
                put(nab, lane, q % each * bytes, bytes, encode(s->kind, b[blk][q][i]));
            }
            for (int j = 0; j < s->n; j++) {
                where(s, blk, i, j, &lane, &reg);
                c[blk][i][j] = rand() % 100;
                enum kind kc = s->kind == F64 ? F64 : F32;
                uint64_t x = s->kind == I8 ? (uint32_t)c[blk][i][j] : encode(kc, c[blk][i][j]);
                put(2 * nab + reg, lane, 0, kc == F64 ? 8 : 4, x);
            }
        }
    struct { void *in, *out, *unused; } args = {input, output, NULL};
    gcn_buffer buf[] = {{input, 0, sizeof input, false, "in"},
                        {output, 0, (size_t)nc * 256, true, "out"}};
    gcn_launch l = {.kernel = name, .block = {64}, .kernarg = &args, .kernarg_bytes = 24,
                    .buffer = buf, .nbuffer = 2};
    gcn_result r;
    T_EQ(gcn_run(o, &l, &r, NULL, 0), GCN_OK);
    T_EQ(r.mfma, 1);
    for (size_t i = 0; i < r.findings.count; i++)
        T_FAIL("%s: %s: %s", name, gcn_kind_name(r.findings.item[i].kind),
               r.findings.item[i].detail);
    gcn_result_free(&r);
    int bad = 0;
    for (int blk = 0; blk < s->blocks; blk++)
        for (int i = 0; i < s->m; i++)
            for (int j = 0; j < s->n; j++) {
                int want = c[blk][i][j];
                for (int q = 0; q < k; q++)
                    want += a[blk][i][q] * b[blk][q][j];
                where(s, blk, i, j, &lane, &reg);
                uint64_t x = s->kind == I8 ? (uint32_t)want
                                           : encode(s->kind == F64 ? F64 : F32, want), got = 0;
                memcpy(&got, output + 256 * reg + 4 * lane, 4);
                if (s->kind == F64)
                    memcpy((uint8_t *)&got + 4, output + 256 * (reg + 1) + 4 * lane, 4);
                bad += got != x;
            }
    if (bad)
        T_FAIL("%s: %d of %d elements wrong", cdna3 ? s->gfx942 : s->gfx90a, bad,
               s->blocks * s->m * s->n);
}

static gcn_object *assemble(struct text *t, const char *arch)
{
    char why[2000];
    size_t bytes;
    gcn_object *o = NULL;
    void *co = tool_compile(t->s, false, arch, &bytes, why, sizeof why);
    if (!co || gcn_open(co, bytes, &o, why, sizeof why))
        T_FAIL("%s", why);
    free(co);
    text_free(t);
    return o;
}

static void all_shapes(const char *arch, bool cdna3)
{
    static char names[NSHAPES][8];
    const char *list[NSHAPES];
    struct text t = {0};
    size_t n = 0;
    if (tool_missing())
        T_SKIP("clang-19 or lld-19 not found");
    asm_begin(&t, arch);
    for (int i = 0; i < NSHAPES; i++) {
        sprintf(names[i], "m%d", i);
        if (!(cdna3 ? shapes[i].gfx942 : shapes[i].gfx90a))
            continue;
        emit(&t, &shapes[i], cdna3, names[i]);
        list[n++] = names[i];
    }
    asm_finish(&t, list, n, 0);
    gcn_object *o = assemble(&t, arch);
    srand(7);
    for (int i = 0; o && i < NSHAPES; i++)
        if (cdna3 ? shapes[i].gfx942 : shapes[i].gfx90a)
            check(o, &shapes[i], cdna3, names[i]);
    gcn_close(o);
}
T_CASE(shapes_gfx90a) { all_shapes("gfx90a", false); }
T_CASE(shapes_gfx942) { all_shapes("gfx942", true); }

// ---- wait states ----

// What follows an MFMA that writes a[0:n-1] from v[2:3], v[4:5], and how soon it may.
static const struct use {
    const char *what, *code;
    bool cdna3; // which spelling the code has
    int need;
} uses[] = {
    // gfx90a: 4x4 2 passes, 16x16 8 passes, 32x32 16 passes
    {"v_mfma_f32_4x4x4bf16_1k a[0:3]", "v_mov_b32 v10, 0; v_accvgpr_read_b32 v11, a3", false, 4},
    {"v_mfma_f32_16x16x16bf16_1k a[0:3]", "v_accvgpr_read_b32 v11, a3", false, 11},
    {"v_mfma_f32_32x32x8bf16_1k a[0:15]", "v_accvgpr_read_b32 v11, a3", false, 19},
    {"v_mfma_f32_32x32x8bf16_1k a[0:15]", "global_store_dword v127, a0, s[90:91]", false, 19},
    {"v_mfma_f32_32x32x8bf16_1k a[0:15]", "v_accvgpr_write_b32 a0, 0", false, 19},
    {"v_mfma_f32_16x16x16bf16_1k a[0:3]",
     "v_mfma_f32_16x16x16bf16_1k a[4:7], a[0:1], v[4:5], a[4:7]", false, 11},
    {"v_mfma_f32_16x16x16bf16_1k a[0:3]",
     "v_mfma_f32_16x16x16bf16_1k a[0:3], v[2:3], v[4:5], a[0:3]", false, 0},
    {"v_mfma_f32_16x16x16bf16_1k a[0:3]",
     "v_mfma_f32_16x16x16bf16_1k a[8:11], v[2:3], v[4:5], a[2:5]", false, 8},
    {"v_mfma_f32_32x32x8bf16_1k a[0:15]",
     "v_mfma_f32_16x16x16bf16_1k a[0:3], v[2:3], v[4:5], a[0:3]", false, 16},
    // gfx942: 4x4 2 passes, 16x16 4 passes, 32x32 8 passes; f32 is not on the same unit
    {"v_mfma_f32_4x4x4_16b_bf16 a[0:3]", "v_accvgpr_read_b32 v11, a3", true, 5},
    {"v_mfma_f32_16x16x16_bf16 a[0:3]", "v_accvgpr_read_b32 v11, a3", true, 7},
    {"v_mfma_f32_32x32x8_bf16 a[0:15]", "v_accvgpr_read_b32 v11, a3", true, 11},
    {"v_mfma_f32_32x32x8_bf16 a[0:15]", "ds_write_b32 v127, a0", true, 11},
    {"v_mfma_f32_32x32x8_bf16 a[0:15]", "v_accvgpr_write_b32 a0, 0", true, 11},
    {"v_mfma_f32_16x16x16_bf16 a[0:3]",
     "v_mfma_f32_16x16x16_bf16 a[8:11], v[2:3], v[4:5], a[2:5]", true, 5},
    {"v_mfma_f32_4x4x4_16b_bf16 a[0:3]",
     "v_mfma_f32_4x4x4_16b_bf16 a[0:3], v[2:3], v[4:5], a[0:3]", true, 2},
    {"v_mfma_f32_16x16x16_bf16 a[0:3]",
     "v_mfma_f32_16x16x16_bf16 a[0:3], v[2:3], v[4:5], a[0:3]", true, 0},
};
enum { NUSES = sizeof uses / sizeof *uses, MAX_NOPS = 20 };

static int broken(gcn_object *o, const char *name)
{
    struct { void *in, *out, *unused; } args = {input, output, NULL};
    gcn_buffer buf[] = {{input, 0, sizeof input, false, "in"},
                        {output, 0, sizeof output, true, "out"}};
    gcn_launch l = {.kernel = name, .block = {64}, .kernarg = &args, .kernarg_bytes = 24,
                    .buffer = buf, .nbuffer = 2};
    gcn_result r;
    int n = 0;
    T_EQ(gcn_run(o, &l, &r, NULL, 0), GCN_OK);
    for (size_t i = 0; i < r.findings.count; i++)
        n += r.findings.item[i].kind == GCN_WAIT_STATES;
    gcn_result_free(&r);
    return n;
}

static void all_uses(const char *arch, bool cdna3)
{
    static char names[NUSES * MAX_NOPS][16];
    const char *list[NUSES * MAX_NOPS];
    struct text t = {0};
    size_t n = 0;
    if (tool_missing())
        T_SKIP("clang-19 or lld-19 not found");
    asm_begin(&t, arch);
    for (int u = 0; u < NUSES; u++)
        for (int nops = 0; nops < MAX_NOPS && uses[u].cdna3 == cdna3; nops++) {
            char *name = names[u * MAX_NOPS + nops], code[256];
            sprintf(name, "u%d_%d", u, nops);
            asm_kernel(&t, name);
            text_add(&t, "  s_load_dwordx4 s[88:91], s[0:1], 0\n  s_waitcnt lgkmcnt(0)\n"
                         "  v_lshlrev_b32 v127, 2, v0\n  s_nop 4\n");
            for (int i = 0; i < 32; i++)
                text_add(&t, "  v_mov_b32 v%d, 0\n  v_accvgpr_write_b32 a%d, 0\n", 2 + i, i);
            const char *regs = strchr(uses[u].what, ' ') + 1;
            text_add(&t, "  s_nop 4\n  %s, v[2:3], v[4:5], %s\n", uses[u].what, regs);
            for (int i = 0; i < nops; i++)
                text_add(&t, "  s_nop 0\n");
            snprintf(code, sizeof code, "%s", uses[u].code);
            for (char *p = strtok(code, ";"); p; p = strtok(NULL, ";"))
                text_add(&t, "  %s\n", p);
            asm_kernel_end(&t, name);
            list[n++] = name;
        }
    asm_finish(&t, list, n, 4096);
    gcn_object *o = assemble(&t, arch);
    for (int u = 0; o && u < NUSES; u++) {
        int first = 0;
        if (uses[u].cdna3 != cdna3)
            continue;
        while (first < MAX_NOPS && broken(o, names[u * MAX_NOPS + first]))
            first++;
        if (first != uses[u].need)
            T_FAIL("%s then %s: accepted after %d wait states, the manual says %d", uses[u].what,
                   uses[u].code, first, uses[u].need);
    }
    gcn_close(o);
}
T_CASE(wait_states_gfx90a) { all_uses("gfx90a", false); }
T_CASE(wait_states_gfx942) { all_uses("gfx942", true); }
T_MAIN
