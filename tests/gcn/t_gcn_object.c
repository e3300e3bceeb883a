// Code objects that are not what they should be: every damaged file ends in an error with a
// message, never in a crash or a read outside the bytes given (the suite also runs this under
// address sanitiser).
#include "../t.h"
#include "gcn.h"
#include "tool.h"

#include <stdlib.h>

static const char source[] =
    "extern \"C\" __attribute__((global)) void k(float *x, int n) {\n"
    "  int i = __builtin_amdgcn_workgroup_id_x() * 64 + __builtin_amdgcn_workitem_id_x();\n"
    "  if (i < n) x[i] = x[i] * 2.0f + 1.0f; }\n";

static unsigned char *co;
static size_t co_bytes;

static bool ready(void)
{
    char why[2000];
    if (!co && !tool_missing())
        co = tool_compile(source, true, "gfx90a", &co_bytes, why, sizeof why);
    return co != NULL;
}

static gcn_status open_bytes(const void *p, size_t n, char *msg, size_t room)
{
    gcn_object *o = NULL;
    gcn_status st = gcn_open(p, n, &o, msg, room);
    if ((st == GCN_OK) != (o != NULL))
        T_FAIL("status %d with object %p", st, (void *)o);
    if (st && !*msg)
        T_FAIL("status %d without a message", st);
    gcn_close(o);
    return st;
}

T_CASE(whole_object_opens_and_runs)
{
    char msg[256];
    gcn_object *o;
    if (!ready())
        T_SKIP("clang-19 or lld-19 not found");
    T_EQ(gcn_open(co, co_bytes, &o, msg, sizeof msg), GCN_OK);
    float x[100];
    for (int i = 0; i < 100; i++)
        x[i] = (float)i;
    struct { float *x; int n; } args = {x, 100};
    gcn_buffer buf = {x, 0, sizeof x, true, "x"};
    gcn_launch l = {.kernel = "k", .grid = {2}, .block = {64}, .kernarg = &args,
                    .kernarg_bytes = 12, .buffer = &buf, .nbuffer = 1};
    gcn_result r;
    T_EQ(gcn_run(o, &l, &r, msg, sizeof msg), GCN_OK);
    T_EQ(r.findings.count, 0);
    for (int i = 0; i < 100; i++)
        T_OK(x[i] == 2 * (float)i + 1);
    gcn_result_free(&r);
    gcn_close(o);
}

// Two buffers side by side in the host's memory are not side by side for the kernel.
T_CASE(running_into_the_next_buffer_is_reported)
{
    char msg[256];
    gcn_object *o;
    gcn_result r;
    float x[128] = {0};
    if (!ready())
        T_SKIP("clang-19 not found");
    T_EQ(gcn_open(co, co_bytes, &o, msg, sizeof msg), GCN_OK);
    struct { float *x; int n; } args = {x, 65};
    gcn_buffer buf[] = {{x, 0, 256, true, "x"}, {x + 64, 0, 256, true, "next"}};
    gcn_launch l = {.kernel = "k", .grid = {2}, .block = {64}, .kernarg = &args,
                    .kernarg_bytes = 12, .buffer = buf, .nbuffer = 2};
    T_EQ(gcn_run(o, &l, &r, msg, sizeof msg), GCN_OK);
    T_NEED(r.findings.count > 0);
    T_EQ(r.findings.item[0].kind, GCN_GLOBAL_BOUNDS);
    T_HAS(r.findings.item[0].detail, "4 bytes at 256 of buffer x, which has 256");
    T_OK(x[64] == 0);
    gcn_result_free(&r);
    args.n = 64, args.x = x + 64; // the second one, and a pointer into the middle of the first
    T_EQ(gcn_run(o, &l, &r, msg, sizeof msg), GCN_OK);
    T_EQ(r.findings.count, 0);
    gcn_result_free(&r);
    args.n = 32, args.x = x + 32;
    T_EQ(gcn_run(o, &l, &r, msg, sizeof msg), GCN_OK);
    T_EQ(r.findings.count, 0);
    T_OK(x[31] == 1 && x[32] == 3 && x[63] == 3 && x[64] == 1);
    gcn_result_free(&r);
    gcn_close(o);
}

T_CASE(bad_launches_are_refused)
{
    char msg[256];
    gcn_object *o;
    gcn_result r;
    if (!ready())
        T_SKIP("clang-19 or lld-19 not found");
    T_EQ(gcn_open(co, co_bytes, &o, msg, sizeof msg), GCN_OK);
    unsigned char args[512] = {0};
    gcn_launch l = {.kernel = "nothing", .kernarg = args, .kernarg_bytes = 12};
    T_EQ(gcn_run(o, &l, &r, msg, sizeof msg), GCN_E_KERNEL);
    T_HAS(msg, "nothing");
    l.kernel = "k", l.block[0] = 2048;
    T_EQ(gcn_run(o, &l, &r, msg, sizeof msg), GCN_E_ARGS);
    l.block[0] = 64, l.kernarg_bytes = sizeof args;
    T_EQ(gcn_run(o, &l, &r, msg, sizeof msg), GCN_E_ARGS);
    l.kernarg_bytes = 12, l.dynamic_lds = 1 << 20;
    T_EQ(gcn_run(o, &l, &r, msg, sizeof msg), GCN_E_ARGS);
    gcn_close(o);
}

T_CASE(foreign_files_are_refused)
{
    char msg[256];
    unsigned char *p;
    if (!ready())
        T_SKIP("clang-19 or lld-19 not found");
    T_EQ(open_bytes("", 0, msg, sizeof msg), GCN_E_OBJECT);
    T_EQ(open_bytes("__CLANG_OFFLOAD_BUNDLE__ and so on, and so on, and so on, to 64 bytes", 64,
                    msg, sizeof msg), GCN_E_OBJECT);
    T_EQ(gcn_open(NULL, 0, &(gcn_object *){NULL}, msg, sizeof msg), GCN_E_ARGS);
    T_NEED(p = malloc(co_bytes));
    memcpy(p, co, co_bytes);
    p[18] = 62; // x86-64
    T_EQ(open_bytes(p, co_bytes, msg, sizeof msg), GCN_E_ARCH);
    p[18] = co[18];
    p[48] = 0x41; // gfx1100
    T_EQ(open_bytes(p, co_bytes, msg, sizeof msg), GCN_E_ARCH);
    T_HAS(msg, "gfx90a");
    free(p);
}

T_CASE(truncated_files_are_refused)
{
    char msg[256];
    if (!ready())
        T_SKIP("clang-19 or lld-19 not found");
    for (size_t n = 0; n < co_bytes; n += n < 512 ? 1 : 61) {
        unsigned char *p = malloc(n ? n : 1); // its own allocation: overruns are visible
        T_NEED(p);
        memcpy(p, co, n);
        if (open_bytes(p, n, msg, sizeof msg) == GCN_OK)
            T_FAIL("%zu of %zu bytes accepted", n, co_bytes);
        free(p);
    }
}

// Flipped bits may leave a valid object; what counts is that nothing worse than an error happens,
// on opening or on running.
T_CASE(flipped_bits_do_no_harm)
{
    char msg[512];
    unsigned seed = 1;
    int opened = 0, refused = 0;
    if (!ready())
        T_SKIP("clang-19 or lld-19 not found");
    unsigned char *p = malloc(co_bytes);
    T_NEED(p);
    for (int round = 0; round < 400; round++) {
        memcpy(p, co, co_bytes);
        for (int i = 0; i < 1 + round % 4; i++) {
            seed = seed * 1664525u + 1013904223u;
            // half of them in the headers and notes, where structure lives
            size_t at = (seed >> 8) % (round & 1 ? 1024 : co_bytes);
            p[at] ^= (unsigned char)(1 << (seed >> 4 & 7));
        }
        gcn_object *o = NULL;
        if (gcn_open(p, co_bytes, &o, msg, sizeof msg)) {
            refused++;
            continue;
        }
        opened++;
        float x[64] = {0};
        struct { float *x; int n; } args = {x, 64};
        gcn_buffer buf = {x, 0, sizeof x, true, "x"};
        const gcn_report *k = gcn_kernel_report(o, 0);
        gcn_launch l = {.kernel = k->name, .block = {64}, .kernarg = &args, .kernarg_bytes = 12,
                        .buffer = &buf, .nbuffer = 1, .max_instructions = 10000};
        gcn_result r;
        gcn_run(o, &l, &r, msg, sizeof msg);
        gcn_result_free(&r);
        gcn_close(o);
    }
    printf("# 400 damaged objects: %d refused, %d opened and run\n", refused, opened);
    free(p);
}
T_MAIN
