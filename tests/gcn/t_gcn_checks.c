// Each check of the interpreter, shown to fire on a planted fault and to stay silent on the
// correct program beside it.
#include "../t.h"
#include "gcn.h"
#include "tool.h"

#include <stdlib.h>

enum { CLEAN = -1, BOTH = 3, CDNA2 = 1, CDNA3 = 2, LDS_BYTES = 4096, DATA_BYTES = 4096 };

// A row runs in a workgroup of `items`. v127 holds 4 * lane, s[88:89] a read-only and s[90:91] a
// writable buffer of 4 KB, v126 the id of the work-item, s87 the wave's number in the group.
static const struct row {
    int archs, items, want; // want: a gcn_kind, or CLEAN
    const char *code;
} rows[] = {
#define R(archs, items, want, code) {archs, items, want, code},
#include "checks.def"
};
enum { NROWS = sizeof rows / sizeof *rows };

// Device addresses far apart: an access past one buffer cannot land in the other.
#define IN_VA 0x100000000000ull
#define OUT_VA 0x200000000000ull
static unsigned char in_data[DATA_BYTES], out_data[DATA_BYTES];

static void emit(struct text *t, const struct row *r, bool cdna3, const char *name)
{
    char code[1024];
    asm_kernel(t, name);
    text_add(t, "  s_load_dwordx4 s[88:91], s[0:1], 0\n  s_waitcnt lgkmcnt(0)\n"
                "  v_mov_b32 v126, v0\n  v_mbcnt_lo_u32_b32 v127, -1, 0\n"
                "  v_mbcnt_hi_u32_b32 v127, -1, v127\n  v_lshlrev_b32 v127, 2, v127\n"
                "  s_nop 0\n  v_readfirstlane_b32 s87, v126\n  s_lshr_b32 s87, s87, 6\n  s_nop 4\n");
    snprintf(code, sizeof code, "%s", r->code);
    for (char *p = strtok(code, ";"); p; p = strtok(NULL, ";")) {
        char *f32 = strstr(p, "4x4x1_16b_f32"); // one name in the table, two in the assembler
        if (f32 && !cdna3)
            text_add(t, "  %.*s4x4x1f32%s\n", (int)(f32 - p), p, f32 + 13);
        else
            text_add(t, "  %s\n", p);
    }
    asm_kernel_end(t, name);
}

static void judge(gcn_object *o, const struct row *r, const char *name)
{
    uint64_t args[3] = {IN_VA, OUT_VA, 0};
    gcn_buffer buf[] = {{in_data, IN_VA, DATA_BYTES, false, "in"},
                        {out_data, OUT_VA, DATA_BYTES, true, "out"}};
    gcn_launch l = {.kernel = name, .block = {(unsigned)r->items}, .kernarg = args,
                    .kernarg_bytes = 24, .buffer = buf, .nbuffer = 2, .max_instructions = 10000};
    gcn_result x;
    bool seen = false;
    T_EQ(gcn_run(o, &l, &x, NULL, 0), GCN_OK);
    for (size_t i = 0; i < x.findings.count; i++) {
        const gcn_finding *f = &x.findings.item[i];
        seen |= (int)f->kind == r->want;
        if ((int)f->kind != r->want)
            T_FAIL("%s: %s: %s: %s", r->code, gcn_kind_name(f->kind), f->text, f->detail);
        T_OK(f->count > 0 && *f->text && *f->detail && f->address);
    }
    if (r->want != CLEAN && !seen)
        T_FAIL("%s: not reported: %s", r->code, gcn_kind_name((gcn_kind)r->want));
    gcn_result_free(&x);
}

static gcn_object *assemble(struct text *t, const char *arch)
{
    char why[4000];
    size_t bytes;
    gcn_object *o = NULL;
    void *co = tool_compile(t->s, false, arch, &bytes, why, sizeof why);
    if (!co || gcn_open(co, bytes, &o, why, sizeof why))
        T_FAIL("%s", why);
    free(co);
    text_free(t);
    return o;
}

static void run_arch(const char *arch, int bit)
{
    static char names[NROWS][8];
    const char *list[NROWS];
    struct text t = {0};
    size_t n = 0;
    if (tool_missing())
        T_SKIP("clang-19 or lld-19 not found");
    asm_begin(&t, arch);
    for (int i = 0; i < NROWS; i++) {
        sprintf(names[i], "c%d", i);
        if (!(rows[i].archs & bit))
            continue;
        emit(&t, &rows[i], bit == CDNA3, names[i]);
        list[n++] = names[i];
    }
    asm_finish(&t, list, n, LDS_BYTES);
    gcn_object *o = assemble(&t, arch);
    for (int i = 0; o && i < NROWS; i++)
        if (rows[i].archs & bit)
            judge(o, &rows[i], names[i]);
    printf("# %s: %zu rows\n", arch, n);
    gcn_close(o);
}
T_CASE(checks_gfx90a) { run_arch("gfx90a", CDNA2); }
T_CASE(checks_gfx942) { run_arch("gfx942", CDNA3); }

// gfx90a's matrix unit flushes subnormal bf16 inputs; gfx942's keeps them.
static void subnormals(const char *arch, const char *mfma, bool flushes)
{
    static const char *const name[] = {"k"};
    struct text t = {0};
    if (tool_missing())
        T_SKIP("clang-19 or lld-19 not found");
    asm_begin(&t, arch);
    asm_kernel(&t, "k");
    text_add(&t, "  s_load_dwordx4 s[88:91], s[0:1], 0\n  v_mov_b32 v2, 0x00010001\n"
                 "  v_mov_b32 v3, v2\n  v_mov_b32 v4, 0x7f007f00\n  v_mov_b32 v5, v4\n"
                 "  v_lshlrev_b32 v127, 2, v0\n  s_waitcnt lgkmcnt(0)\n  s_nop 1\n"
                 "  %s v[8:11], v[2:3], v[4:5], 0\n  s_nop 15\n"
                 "  global_store_dword v127, v8, s[90:91]\n", mfma);
    asm_kernel_end(&t, "k");
    asm_finish(&t, name, 1, 0);
    gcn_object *o = assemble(&t, arch);
    T_NEED(o);
    uint64_t args[3] = {IN_VA, OUT_VA, 0};
    gcn_buffer buf[] = {{in_data, IN_VA, DATA_BYTES, false, "in"},
                        {out_data, OUT_VA, DATA_BYTES, true, "out"}};
    gcn_launch l = {.kernel = "k", .block = {64}, .kernarg = args, .kernarg_bytes = 24,
                    .buffer = buf, .nbuffer = 2};
    gcn_result r;
    float got;
    T_EQ(gcn_run(o, &l, &r, NULL, 0), GCN_OK);
    T_EQ(r.findings.count, 0);
    T_OK(flushes == (r.flushed > 0));
    memcpy(&got, out_data, 4);
    T_NEAR(got, flushes ? 0 : 16 * 0x1p-133 * 0x1p127, 0); // 16 products of two bf16
    gcn_result_free(&r);
    gcn_close(o);
}
T_CASE(subnormals_gfx90a) { subnormals("gfx90a", "v_mfma_f32_16x16x16bf16_1k", true); }
T_CASE(subnormals_gfx942) { subnormals("gfx942", "v_mfma_f32_16x16x16_bf16", false); }

T_CASE(unknown_instructions_are_listed)
{
    static const char *const name[] = {"k"};
    struct text t = {0};
    char why[2000];
    size_t bytes;
    gcn_object *o;
    if (tool_missing())
        T_SKIP("clang-19 or lld-19 not found");
    asm_begin(&t, "gfx90a");
    asm_kernel(&t, "k");
    text_add(&t, "  s_sendmsg sendmsg(MSG_INTERRUPT)\n  v_mov_b32 v1, 0\n  v_cubeid_f32 v1, v1, v1, v1\n"
                 "  v_add_i32 v1, v1, v1 clamp\n");
    asm_kernel_end(&t, "k");
    asm_finish(&t, name, 1, 0);
    void *co = tool_compile(t.s, false, "gfx90a", &bytes, why, sizeof why);
    T_NEED(co);
    T_EQ(gcn_open(co, bytes, &o, why, sizeof why), GCN_E_UNKNOWN);
    T_HAS(why, "s_sendmsg");
    T_HAS(why, "v_cubeid_f32");
    T_HAS(why, "clamp");
    T_OK(!strstr(why, "v_mov_b32"));
    free(co);
    text_free(&t);
}
T_MAIN
