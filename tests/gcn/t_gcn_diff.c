// The interpreter against the host's own arithmetic: the functions of diff.h, compiled for the GPU
// and run on vector and on scalar registers, give the bits that the host computes.
#include "../t.h"
#include "gcn.h"
#include "tool.h"

#include <stdlib.h>

typedef uint8_t u8;
typedef int8_t i8;
typedef uint16_t u16;
typedef int16_t i16;
typedef uint32_t u32;
typedef int32_t i32;
typedef uint64_t u64;
typedef int64_t i64;

// Shared by both sides; the text below repeats it for the GPU.
#define SHARED(fn)                                                                              \
    fn float real(u64 x) { u32 u = (u32)x; float f; __builtin_memcpy(&f, &u, 4); return f; }     \
    fn double wide(u64 x) { double f; __builtin_memcpy(&f, &x, 8); return f; }                   \
    fn _Float16 half(u64 x)                                                                     \
    { u16 u = (u16)x; _Float16 h; __builtin_memcpy(&h, &u, 2); return h; }                       \
    fn float small(u64 x) { return (float)((i32)(x & 0xfffff) - 0x80000) * 0.01f; }              \
    fn u64 f32(float f) { u32 u; __builtin_memcpy(&u, &f, 4); return f != f ? 0x7fc00000 : u; }  \
    fn u64 f64(double f)                                                                        \
    { u64 u; __builtin_memcpy(&u, &f, 8); return f != f ? 0x7ff8000000000000 : u; }              \
    fn u64 f16(_Float16 f) { u16 u; __builtin_memcpy(&u, &f, 2); return f != f ? 0x7e00 : u; }
#define TEXT_(x) #x
#define TEXT(x) TEXT_(x)

#pragma GCC diagnostic ignored "-Wunused-parameter"
SHARED(static inline)
#define FN(name, ...) static u64 h_##name(u64 a, u64 b, u64 c) __VA_ARGS__
#include "diff.h"
#undef FN

static const struct {
    const char *name;
    u64 (*host)(u64, u64, u64);
} functions[] = {
#define FN(name, ...) {#name, h_##name},
#include "diff.h"
#undef FN
};
enum { NFUNCTIONS = sizeof functions / sizeof *functions, N = 256, UNIFORM = 48 };

static const char prelude[] =
    "typedef unsigned char u8; typedef signed char i8; typedef unsigned short u16;\n"
    "typedef short i16; typedef unsigned u32; typedef int i32; typedef unsigned long u64;\n"
    "typedef long i64;\n"
    TEXT(SHARED(static __attribute__((device)) inline)) "\n"
    "#define FN(name, ...) static __attribute__((device)) inline u64 f_##name(u64 a, u64 b, u64 c)\\\n"
    "  __VA_ARGS__ \\\n"
    "  extern \"C\" __attribute__((global, amdgpu_flat_work_group_size(64, 64))) void \\\n"
    "  v_##name(const u64 *in, u64 *out) { \\\n"
    "    int i = __builtin_amdgcn_workgroup_id_x() * 64 + __builtin_amdgcn_workitem_id_x(); \\\n"
    "    out[i] = f_##name(in[3 * i], in[3 * i + 1], in[3 * i + 2]); } \\\n"
    "  extern \"C\" __attribute__((global, amdgpu_flat_work_group_size(64, 64))) void \\\n"
    "  s_##name(const u64 *__restrict__ in, u64 *__restrict__ out) { \\\n"
    "    int i = __builtin_amdgcn_workgroup_id_x(); \\\n"
    "    out[i] = f_##name(in[3 * i], in[3 * i + 1], in[3 * i + 2]); }\n";

static u64 in[3 * N], out[N];

// Words of every flavour: small, all sizes of magnitude, floats near 1, patterns.
static void fill(void)
{
    u64 x = 88172645463325252ull;
    for (int i = 0; i < 3 * N; i++) {
        x ^= x << 13, x ^= x >> 7, x ^= x << 17;
        switch (i % 5) {
        case 0: in[i] = x; break;
        case 1: in[i] = x & 0xff; break;
        case 2: in[i] = x >> (x & 63); break;
        case 3: { // an ordinary float in the low word, an ordinary double as a whole
            float f = (float)((i32)(x & 0xffff) - 0x8000) * 0.0078125f;
            u32 u;
            memcpy(&u, &f, 4);
            in[i] = (u64)(0x3ff00000u + (u32)(x >> 40 & 0xfffff)) << 32 | u;
            break;
        }
        default: in[i] = (u64)-(i64)(x & 3); break;
        }
    }
}

static void compare(gcn_object *o, int f, char kind)
{
    char name[64];
    snprintf(name, sizeof name, "%c_%s", kind, functions[f].name);
    u64 *args[2] = {in, out};
    int n = kind == 'v' ? N : UNIFORM;
    gcn_buffer buf[] = {{in, 0, sizeof in, false, "in"}, {out, 0, sizeof out, true, "out"}};
    gcn_launch l = {.kernel = name, .grid = {(u32)(kind == 'v' ? N / 64 : UNIFORM)},
                    .block = {64}, .kernarg = args, .kernarg_bytes = 16, .buffer = buf,
                    .nbuffer = 2};
    gcn_result r;
    char msg[256] = "";
    memset(out, 0xab, sizeof out);
    if (gcn_run(o, &l, &r, msg, sizeof msg))
        T_FAIL("%s: %s", name, msg);
    for (size_t i = 0; i < r.findings.count && i < 2; i++)
        T_FAIL("%s: %s: %s: %s", name, gcn_kind_name(r.findings.item[i].kind),
               r.findings.item[i].text, r.findings.item[i].detail);
    gcn_result_free(&r);
    int bad = 0;
    for (int i = 0; i < n; i++) {
        u64 want = functions[f].host(in[3 * i], in[3 * i + 1], in[3 * i + 2]);
        if (out[i] != want && !bad++)
            T_FAIL("%s(0x%" PRIx64 ", 0x%" PRIx64 ", 0x%" PRIx64 ") is 0x%" PRIx64
                   ", expected 0x%" PRIx64, name, in[3 * i], in[3 * i + 1], in[3 * i + 2], out[i],
                   want);
    }
}

static void all(const char *arch)
{
    struct text t = {0};
    char why[4000], line[4096];
    size_t bytes;
    gcn_object *o = NULL;
    if (tool_missing())
        T_SKIP("clang-19 not found");
    FILE *f = fopen("tests/gcn/diff.h", "r");
    T_NEED(f);
    text_add(&t, "%s", prelude);
    while (fgets(line, sizeof line, f))
        text_add(&t, "%s", line);
    fclose(f);
    void *co = tool_compile(t.s, true, arch, &bytes, why, sizeof why);
    if (!co || gcn_open(co, bytes, &o, why, sizeof why))
        T_FAIL("%s", why);
    fill();
    for (int i = 0; o && i < NFUNCTIONS; i++) {
        compare(o, i, 'v');
        compare(o, i, 's');
    }
    printf("# %s: %d functions on vector and scalar registers\n", arch, NFUNCTIONS);
    gcn_close(o);
    free(co);
    text_free(&t);
}
T_CASE(host_and_gfx90a_agree) { all("gfx90a"); }
T_CASE(host_and_gfx942_agree) { all("gfx942"); }
T_MAIN
