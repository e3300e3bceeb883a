// Compiled kernels under the interpreter: right results, no findings, the same bits on both
// architectures and in any order of waves; planted faults in the source are caught.
#include "../t.h"
#include "jobs.h"
#include "tool.h"

#include <stdlib.h>
#include <time.h>

static gcn_object *build(const char *definitions, const char *arch)
{
    char why[4000] = "tests/gcn/kernels.hip not found: run from the repository's root";
    size_t bytes;
    gcn_object *o = NULL;
    char *src = job_source(definitions);
    void *co = src ? tool_compile(src, true, arch, &bytes, why, sizeof why) : NULL;
    if (!co || gcn_open(co, bytes, &o, why, sizeof why))
        T_FAIL("%s", why);
    free(src), free(co);
    return o;
}

static long run_job(gcn_object *o, job *j, unsigned seed, size_t *findings, uint64_t *insts)
{
    gcn_result r;
    job_reset(j);
    T_EQ(job_run(o, j, seed, &r, NULL), GCN_OK);
    *findings = r.findings.count;
    for (size_t i = 0; i < r.findings.count && i < 3; i++)
        printf("# %s: %s: %s: %s\n", j->kernel, gcn_kind_name(r.findings.item[i].kind),
               r.findings.item[i].text, r.findings.item[i].detail);
    if (insts)
        *insts += r.instructions;
    gcn_result_free(&r);
    return j->wrong(j);
}

static const struct variant {
    const char *define, *mfma[2];
    unsigned count;
} variants[] = {
    {"#define MI 16\n#define SWIZZLE 1\n",
     {"v_mfma_f32_16x16x16bf16_1k", "v_mfma_f32_16x16x16_bf16"}, 16},
    {"#define MI 16\n#define SWIZZLE 0\n#define VGPR_ACC 1\n",
     {"v_mfma_f32_16x16x16bf16_1k", "v_mfma_f32_16x16x16_bf16"}, 16},
    {"#define MI 32\n#define SWIZZLE 1\n",
     {"v_mfma_f32_32x32x8bf16_1k", "v_mfma_f32_32x32x8_bf16"}, 8},
    {"#define MI 32\n#define SWIZZLE 0\n#define VGPR_ACC 1\n",
     {"v_mfma_f32_32x32x8bf16_1k", "v_mfma_f32_32x32x8_bf16"}, 8},
};
enum { NVARIANTS = sizeof variants / sizeof *variants };
static const char *const archs[] = {"gfx90a", "gfx942"};

static void all_jobs(int arch)
{
    uint64_t insts = 0;
    if (tool_missing())
        T_SKIP("clang-19 or lld-19 not found");
    clock_t start = 0, spent = 0;
    for (int v = 0; v < NVARIANTS; v++) {
        gcn_object *o = build(variants[v].define, archs[arch]);
        T_NEED(o);
        for (int i = 0; i < (v ? 2 : NJOBS); i++)
            for (unsigned seed = 0; seed < 3; seed++) {
                job j;
                size_t findings;
                job_make(i, &j);
                start = clock();
                long wrong = run_job(o, &j, seed, &findings, &insts);
                spent += clock() - start;
                if (wrong || findings)
                    T_FAIL("%s on %s, variant %d, seed %u: %ld wrong, %zu findings", j.kernel,
                           archs[arch], v, seed, wrong, findings);
                job_free(&j);
            }
        gcn_expect want = {.mfma = variants[v].mfma[arch], .mfma_count = variants[v].count,
                           .max_vgprs = 128, .workgroup = 256, .kernarg_bytes = 36};
        gcn_findings f = {0};
        T_EQ(gcn_check_static(gcn_find_kernel(o, "gemm"), &want, &f), GCN_OK);
        for (size_t i = 0; i < f.count; i++)
            T_FAIL("variant %d: %s", v, f.item[i].detail);
        gcn_findings_free(&f);
        gcn_close(o);
    }
    double s = (double)spent / CLOCKS_PER_SEC;
    printf("# %s: %.2f million wave-instructions a second\n", archs[arch],
           (double)insts / s * 1e-6);
}
T_CASE(kernels_gfx90a) { all_jobs(0); }
T_CASE(kernels_gfx942) { all_jobs(1); }

T_CASE(architectures_agree_bit_by_bit)
{
    if (tool_missing())
        T_SKIP("clang-19 or lld-19 not found");
    gcn_object *o[2] = {build(variants[0].define, archs[0]), build(variants[0].define, archs[1])};
    T_NEED(o[0] && o[1]);
    for (int i = 0; i < NJOBS; i++) {
        job j[2];
        for (int a = 0; a < 2; a++) {
            size_t findings;
            job_make(i, &j[a]);
            run_job(o[a], &j[a], 0, &findings, NULL);
        }
        for (int b = 0; b < j[0].nbuffer; b++)
            if (memcmp(j[0].buffer[b].host, j[1].buffer[b].host, j[0].buffer[b].bytes))
                T_FAIL("%s: buffer %d differs", j[0].kernel, b);
        job_free(&j[0]), job_free(&j[1]);
    }
    gcn_close(o[0]), gcn_close(o[1]);
}

// A fault in the source shows as wrong results, findings, or both.
static void planted(const char *bug)
{
    if (tool_missing())
        T_SKIP("clang-19 or lld-19 not found");
    for (int a = 0; a < 2; a++) { // 16x16 on gfx90a, 32x32 on gfx942
        char define[200];
        snprintf(define, sizeof define, "%s#define %s 1\n", variants[2 * a].define, bug);
        gcn_object *o = build(define, archs[a]);
        T_NEED(o);
        job j;
        size_t findings;
        job_make(0, &j);
        long wrong = run_job(o, &j, 0, &findings, NULL);
        printf("# %s on %s: %ld wrong results, %zu findings\n", bug, archs[a], wrong, findings);
        T_OK(wrong || findings);
        job_free(&j);
        gcn_close(o);
    }
}
T_CASE(wrong_lane_map_is_caught) { planted("BUG_LANE"); }
T_CASE(off_by_one_tail_is_caught) { planted("BUG_TAIL"); }
T_CASE(swapped_operand_is_caught) { planted("BUG_SWAP"); }

// Level 0: each declared number, changed by one, is reported.
T_CASE(static_differences_are_reported)
{
    if (tool_missing())
        T_SKIP("clang-19 or lld-19 not found");
    gcn_object *o = build(variants[0].define, "gfx90a");
    T_NEED(o);
    const gcn_report *r = gcn_find_kernel(o, "gemm");
    T_NEED(r);
    T_EQ(r->wavefront_size, 64);
    T_EQ(r->barriers, 2);
    T_EQ(r->scratch_bytes, 0);
    T_STR(r->target, "gfx90a");
    T_OK(gcn_find_kernel(o, "nothing") == NULL);
    T_OK(gcn_kernel_report(o, gcn_kernel_count(o)) == NULL);
    T_EQ(gcn_groups_per_cu(r, 256, 0), 65536 / r->lds_bytes < r->waves_per_simd
                                           ? 65536 / r->lds_bytes : r->waves_per_simd);
    gcn_expect bad[] = {
        {.mfma = "v_mfma_f32_32x32x8bf16_1k"}, {.mfma_count = r->mfma + 1},
        {.max_vgprs = r->vgpr_count - 1}, {.max_agprs = r->agpr_count - 1},
        {.lds_bytes = r->lds_bytes + 1}, {.kernarg_bytes = r->kernarg_bytes + 1},
        {.workgroup = 128}, {.waves_per_simd = r->waves_per_simd + 1},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        gcn_findings f = {0};
        T_EQ(gcn_check_static(r, &bad[i], &f), GCN_OK);
        T_EQ(f.count, 1);
        T_EQ(f.count ? f.item[0].kind : 0, GCN_STATIC);
        gcn_findings_free(&f);
    }
    gcn_close(o);
}

// Scratch and half-rate bf16 fail level 0, and scratch still computes.
T_CASE(spills_are_reported)
{
    static const char text[] =
        "extern \"C\" __attribute__((global, amdgpu_flat_work_group_size(64, 64)))\n"
        "void k(const int *x, int *y, int n) {\n"
        "  volatile int t[40]; int l = __builtin_amdgcn_workitem_id_x(), s = 0;\n"
        "  for (int i = 0; i < 40; i++) t[i] = x[l] * i;\n"
        "  for (int i = 0; i < n; i++) s += t[(i * 7 + l) % 40];\n"
        "  y[l] = s; }\n";
    if (tool_missing())
        T_SKIP("clang-19 or lld-19 not found");
    for (int a = 0; a < 2; a++) {
        char why[2000];
        size_t bytes;
        gcn_object *o = NULL;
        void *co = tool_compile(text, true, archs[a], &bytes, why, sizeof why);
        if (!co || gcn_open(co, bytes, &o, why, sizeof why))
            T_FAIL("%s", why);
        T_NEED(o);
        int x[64], y[64];
        for (int i = 0; i < 64; i++)
            x[i] = 3 * i + 1;
        struct { int *x, *y; int n; } args = {x, y, 100};
        gcn_buffer buf[] = {{x, 0, sizeof x, false, "x"}, {y, 0, sizeof y, true, "y"}};
        gcn_launch l = {.kernel = "k", .block = {64}, .kernarg = &args, .kernarg_bytes = 20,
                        .buffer = buf, .nbuffer = 2};
        gcn_result r;
        T_EQ(gcn_run(o, &l, &r, NULL, 0), GCN_OK);
        for (size_t i = 0; i < r.findings.count; i++)
            T_FAIL("%s: %s", r.findings.item[i].text, r.findings.item[i].detail);
        for (int i = 0; i < 64; i++) {
            int s = 0;
            for (int q = 0; q < 100; q++)
                s += x[i] * ((q * 7 + i) % 40);
            T_EQ(y[i], s);
        }
        gcn_findings f = {0};
        gcn_expect want = {0};
        T_EQ(gcn_check_static(gcn_find_kernel(o, "k"), &want, &f), GCN_OK);
        T_OK(f.count >= 2); // bytes per lane, accesses
        gcn_findings_free(&f);
        gcn_result_free(&r);
        gcn_close(o);
        free(co);
    }
}
T_MAIN
