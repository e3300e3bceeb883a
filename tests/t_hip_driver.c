/* What a user of the HIP target meets when a compiler, a library or the GPU is missing, of another version,
 * aborts, hangs or does something else than it was asked: exit code, reason, remedy, and nothing lost. hiprtc
 * and the HIP runtime are stand-ins (tests/fake), so that all of it runs on any machine. */
#include "user.h"

#include <sys/stat.h>

/* No setting of the user's counts, and the cache is the test's own. */
static void fresh(void) {
    static const char *const settings[] = {"MOEC_HIPCC", "MOEC_HIPRTC", "MOEC_HIPRTC_WORKER", "MOEC_HIP", "MOEC_GCN",
                                           "FAKE_HIPRTC", "FAKE_HIPRTC_VERSION", "FAKE_HIP_INIT", "FAKE_HIP_COUNT",
                                           "FAKE_HIP_GFX", "FAKE_HIP_LAUNCH", "FAKE_HIP_BYTES", "MOEC_KFD",
                                           "MOEC_COMPILE_TIMEOUT"};
    static char path[4096];
    if (!*path) snprintf(path, sizeof path, "%s", getenv("PATH"));
    fresh_cache(settings, sizeof settings / sizeof *settings);
    setenv("PATH", path, 1);
}

static void fresh_hiprtc(const char *does) {
    char here[3000], library[4000];
    fresh();
    if (!getcwd(here, sizeof here)) abort();
    snprintf(library, sizeof library, "%s/build/tests/libfakehiprtc.so", here);
    setenv("MOEC_HIPRTC", library, 1);
    setenv("FAKE_HIPRTC", does, 1);
}

static bool have_clang(void) {
    char path[MOEC_PATH_BYTES];
    return moec_program_find("clang-19", path);
}

static char *read_out(const char *name) {
    char *text = NULL;
    size_t bytes;
    return moec_file_read(in_dir(name), &text, &bytes, NULL) ? NULL : text;
}

#define GEN "gen E=4 -t gfx942 --op add --compile -o @/out"

/* ---- hiprtc ---- */

T_CASE(hiprtc_compiles_what_the_interpreter_runs) {
    fresh_hiprtc("");
    if (!have_clang()) T_SKIP("clang-19 not found");
    T_EQ(moec(GEN), 0);
    char *manifest = read_out("out/manifest.json");
    T_HAS(manifest ? manifest : "", "hiprtc 9.0");
    free(manifest);
    setenv("MOEC_GCN", "1", 1);
    int rc = moec("verify E=4 -t gfx90a --op add --tokens 5");
    if (rc == 4 && strstr(output, "LLVM")) T_SKIP("libLLVM not found");
    T_EQ(rc, 0);
    T_EQ(moec("doctor"), 0);
    T_HAS(output, "hiprtc 9.0");
}

T_CASE(hiprtc_that_fails_costs_nothing_but_the_call) {
    fresh_hiprtc("");
    if (!have_clang()) T_SKIP("clang-19 not found");
    moec_dir_remove(dir), mkdir(dir, 0700);
    T_EQ(moec(GEN), 0);
    char *before = read_out("out/manifest.json");
    T_NEED(before);
    static const struct { const char *does; int code; const char *says; } list[] = {
        {"abort", 4, "hiprtc took its process down (signal 6)"},
        {"hang", 5, "hiprtc hangs"},
        {"empty", 1, "hiprtc rejected the kernel"},
        {"log", 1, "use of undeclared identifier 'mfma'"},
    };
    setenv("MOEC_COMPILE_TIMEOUT", "2", 1);
    for (size_t i = 0; i < sizeof list / sizeof *list; i++) {
        setenv("FAKE_HIPRTC", list[i].does, 1);
        int rc = moec(GEN);
        if (rc != list[i].code) T_FAIL("%s: exit code %d\n%s", list[i].does, rc, output);
        T_HAS(output, list[i].says);
        if (list[i].code != 1) T_HAS(output, "hint: ");
        char *after = read_out("out/manifest.json"); /* what was there stays */
        T_STR(after ? after : "", before);
        free(after);
    }
    unsetenv("MOEC_HIPRTC"); /* and the next compiler starts clean */
    T_EQ(moec(GEN), 0);
    free(before);
}

T_CASE(hiprtc_missing_or_of_another_version) {
    fresh_hiprtc("");
    setenv("FAKE_HIPRTC_VERSION", "12.3", 1);
    REFUSED(GEN, 4, "is hiprtc 12.3; moec knows 9.x");
    setenv("MOEC_HIPRTC", "build/tests/libfakehip.so", 1);
    REFUSED(GEN, 4, "is no usable hiprtc: it has no hiprtcVersion");
    setenv("MOEC_HIPRTC", "/nowhere/libhiprtc.so", 1);
    REFUSED(GEN, 4, "MOEC_HIPRTC=/nowhere/libhiprtc.so cannot be opened");
    setenv("MOEC_HIPRTC_WORKER", "/nowhere/moec-hiprtc", 1);
    REFUSED(GEN, 4, "/nowhere/moec-hiprtc, was not found");
    fresh();
    setenv("PATH", "/nowhere", 1);
    REFUSED(GEN, 4, "no clang that knows gfx942 was found", "install clang-19");
    setenv("MOEC_HIPCC", "clang-0", 1);
    REFUSED(GEN, 4, "MOEC_HIPCC=clang-0: no such compiler");
}

/* ---- machines ---- */

T_CASE(a_name_nobody_knows) {
    fresh();
    REFUSED("gen E=4 -t gfx900 -o @/x", 4, "unknown target \"gfx900\"", "gfx942 gfx90a");
    REFUSED("verify E=4 -t gfx1100", 4, "unknown target \"gfx1100\"", "gfx942 gfx90a");
    REFUSED("bench E=4 -t gfx908", 4, "unknown target \"gfx908\"", "gfx942 gfx90a");
}

/* A compiler that makes something for another machine, whatever it is asked. */
T_CASE(a_code_object_for_another_machine) {
    static const char script[] = "#!/bin/sh\nexec clang-19 \"$@\" --offload-arch=gfx90a --no-offload-arch=gfx942\n";
    char path[128];
    fresh();
    if (!have_clang()) T_SKIP("clang-19 not found");
    snprintf(path, sizeof path, "%s/stubborn", dir);
    T_EQ(moec_file_write(path, script, sizeof script - 1, false, NULL), 0);
    chmod(path, 0700);
    setenv("MOEC_HIPCC", path, 1);
    REFUSED(GEN, 4, "a code object for another machine (gfx90a) than gfx942");
}

T_CASE(no_gpu) {
    fresh();
    setenv("MOEC_HIP", "/nowhere/libamdhip64.so", 1);
    REFUSED("bench E=4 -t gfx942 --op add", 4, "MOEC_HIP=/nowhere/libamdhip64.so cannot be opened");
    setenv("MOEC_HIP", "build/tests/libfakehip.so", 1);
    setenv("FAKE_HIP_INIT", "100", 1);
    REFUSED("bench E=4 -t gfx942 --op add", 4, "hipInit: hipErrorNoDevice");
    unsetenv("FAKE_HIP_INIT");
    REFUSED("bench E=4 -t gfx942 --op add", 4, "there is no GPU 0: HIP sees 0");
    setenv("FAKE_HIP_COUNT", "1", 1);
    setenv("MOEC_KFD", "/nowhere", 1);
    REFUSED("bench E=4 -t gfx90a --op add", 4, "a GPU of the tests (gfx version 0) is no GPU that moec has kernels for",
            "known: gfx90a (MI250X), gfx942 (MI300X)");
    T_EQ(moec("doctor"), 0);
}

/* ---- an AMD GPU: a HIP runtime whose launches run under the interpreter ---- */

/* Node 0 is the CPU, node 1 a GPU of `version` with 304 compute units. */
static bool fresh_gpu(const char *version) {
    char path[256], text[128];
    fresh();
    for (int node = 0; node < 2; node++) {
        snprintf(path, sizeof path, "%s/nodes/%d", dir, node);
        if (moec_dir_make(path, NULL)) return false;
        snprintf(path, sizeof path, "%s/nodes/%d/properties", dir, node);
        snprintf(text, sizeof text, "cpu_cores_count 8\nsimd_count %d\nsimd_per_cu 4\ngfx_target_version %s\n",
                 node ? 1216 : 0, node ? version : "0");
        if (moec_file_write(path, text, strlen(text), false, NULL)) return false;
    }
    snprintf(path, sizeof path, "%s/nodes", dir);
    setenv("MOEC_KFD", path, 1);
    setenv("MOEC_HIP", "build/tests/libfakehip.so", 1);
    setenv("FAKE_HIP_COUNT", "1", 1);
    return have_clang();
}

#define LAYER "verify E=4 K=2 H=72 F=40 bias=1 shared=24 --tokens 40 --routing uniform -t "

T_CASE(the_stand_in_runs_a_layer) {
    if (!fresh_gpu("90402")) T_SKIP("clang-19 not found");
    int rc = moec(LAYER "gfx942");
    if (rc && strstr(output, "hipErrorNoBinaryForGpu")) T_SKIP("libLLVM not found");
    if (rc) T_FAIL("exit code %d\n%s", rc, output);
    T_OK(!strstr(output, "no AMD GPU is used")); /* as far as moec can tell it is one */
    T_HAS(output, " 0 wrong");
    fresh_gpu("90010");
    setenv("FAKE_HIP_GFX", "gfx90a", 1);
    T_EQ(moec(LAYER "gfx90a"), 0);
    T_EQ(moec("doctor"), 0);
    T_HAS(output, "gfx90a         ok");
}

T_CASE(a_gpu_that_fails) {
    if (!fresh_gpu("90402")) T_SKIP("clang-19 not found");
    REFUSED("bench E=4 -t gfx90a --op add", 4, "a GPU of the tests is gfx942 and cannot run gfx90a");
    REFUSED("bench E=4 -t gfx942:3 --op add", 4, "there is no GPU 3: HIP sees 1");
    setenv("FAKE_HIP_GFX", "gfx90a", 1);
    REFUSED("verify E=4 -t gfx942 --op add --tokens 9", 4, "hipErrorNoBinaryForGpu", "a code object for gfx942");
    setenv("FAKE_HIP_GFX", "gfx942", 1);
    setenv("FAKE_HIP_LAUNCH", "719", 1);
    REFUSED("verify E=4 -t gfx942 --op add --tokens 9", 4, "hipErrorLaunchFailure", "the device's state is lost");
    unsetenv("FAKE_HIP_LAUNCH");
    setenv("FAKE_HIP_BYTES", "10000", 1);
    REFUSED("verify E=4 -t gfx942 --op add --tokens 90", 1, "hipErrorOutOfMemory", "of 10000 bytes are free",
            "fewer tokens");
}

T_MAIN
