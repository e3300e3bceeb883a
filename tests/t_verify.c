/* moec verify in the suite: listed and random specs on every CPU target that runs here.
 *
 * MOEC_VERIFY_SPECS=N asks for N random specs on each target (default 3; 200 is a release). cpu-amx
 * without the hardware runs with its tile instructions emulated, and the case says so. */
#include <math.h>
#include <stdlib.h>

#include "t.h"
#include "verify.h"

static const char *const listed[] = {
    "E=8 K=2 H=64 F=96 bias=1 shared=32 heads=4 kv=2 dim=16 V=300",
    "E=60 K=4 H=40 F=24 dtype=f32 layout=interleaved act=geglu capacity=1.25 heads=6 kv=3 dim=8 V=100",
    "E=16 K=6 H=32 F=16 router=sigmoid_bias groups=4/2 scale=2.5 wgrad=same shared=16",
    "E=1 K=1 H=24 F=136 act=relu2 out=f32",
};
enum { LISTED = 4 };

typedef struct totals { int64_t cases, wrong, skipped; int shown; const char *target; } totals;

static void take(void *user, const moec_verify_row *row) {
    totals *t = user;
    char command[4096];
    if (*row->skipped) {
        t->skipped++;
        return;
    }
    t->cases++;
    if (!*row->verdict->fault) return;
    t->wrong++;
    if (t->shown++ >= 10) return;
    moec_verify_command(row, t->target, command, sizeof command);
    T_FAIL("%s\n#   %s", row->verdict->fault, command);
}

/* Each with a few tokens, and each time another routing. */
static void listed_specs(moec_device *device, moec_verify_options *o) {
    static const char *const routings[] = {"uniform", "empty:0.3", "hot:0.9", "zipf:1.2"};
    static const int64_t tokens[] = {0, 1, 7, 127};
    for (int i = 0; i < LISTED * 4; i++) {
        moec_error err = {0};
        moec_spec spec;
        o->seed = 1 + (uint64_t)i;
        o->tokens = tokens[i % 4];
        o->routing = routings[(i + i / 4) % 4];
        o->layer_only = i >= 4; /* the dense helpers once */
        if (moec_spec_parse(listed[i / 4], &spec, &err) || moec_verify_spec(device, &spec, o, &err))
            T_FAIL("%s: %s", listed[i / 4], err.text);
    }
}

static void random_specs(moec_device *device, moec_verify_options *o) {
    const char *wanted = getenv("MOEC_VERIFY_SPECS");
    int64_t n = wanted ? strtoll(wanted, NULL, 10) : 3;
    for (int64_t i = 0; i < n; i++) {
        moec_error err = {0};
        moec_spec spec;
        o->seed = 1 + (uint64_t)i;
        o->layer_only = i % 4 != 0;
        moec_verify_random(o->seed, &spec, &o->tokens, &o->routing);
        if (moec_verify_spec(device, &spec, o, &err)) T_FAIL("random spec %" PRId64 ": %s", i, err.text);
    }
}

/* A NaN among the logits: no hang, distinct experts in range, and tables that still fit together. */
static void route_with_nan(moec_device *device) {
    enum { T = 9, E = 12, K = 3 };
    float logits[T * E], weight[T * K], prob_sum[E];
    int32_t expert[T * K], offsets[E + 1], row_slot[T * K], slot_row[T * K], load[E];
    double z_sum;
    moec_error err = {0};
    moec_spec spec;
    moec_module *module;
    moec_pattern uniform;
    double even[E];
    size_t bytes = 0;
    void *scratch = NULL;
    moec_pattern_parse("uniform", &uniform, &err);
    moec_pattern_popularity(&uniform, E, 1, even, &err);
    moec_pattern_logits(even, T, E, 1, logits);
    logits[2 * E + 5] = logits[7 * E] = (float)NAN;
    for (int e = 0; e < E; e++) logits[4 * E + e] = (float)NAN;
    moec_arg args[] = {{.ptr = logits}, {.ptr = NULL}, {.ptr = expert}, {.ptr = weight}, {.ptr = offsets},
                       {.ptr = row_slot}, {.ptr = slot_row}, {.ptr = load}, {.ptr = prob_sum},
                       {.ptr = &z_sum}, {.i64 = T}};
    if (moec_spec_parse("E=12 K=3", &spec, &err) ||
        moec_module_create(device, moec_op_find("route"), &spec, NULL, 0, &module, &err) ||
        moec_module_scratch(device, module, T, T * K, 0, &bytes, &err) ||
        moec_alloc(device, bytes + 64, "test", &scratch, &err) ||
        moec_module_launch(device, NULL, module, args, T, T * K, 0, scratch, &err)) {
        T_FAIL("%s", err.text);
        return;
    }
    T_EQ(offsets[E], T * K);
    T_OK(z_sum != z_sum);
    for (int s = 0; s < T * K; s++) {
        T_OK(expert[s] >= 0 && expert[s] < E);
        for (int o = s / K * K; o < s; o++) T_OK(expert[o] != expert[s]);
        T_OK(slot_row[s] >= offsets[expert[s]] && slot_row[s] < offsets[expert[s] + 1]);
        T_EQ(row_slot[slot_row[s]], s);
        if (s / K != 2 && s / K != 4 && s / K != 7) T_OK(weight[s] > 0 && weight[s] < 1);
    }
    moec_free(device, scratch);
    moec_module_free(device, module);
}

static void verify(const char *target) {
    totals t = {.target = target};
    moec_verify_options o = {.report = take, .user = &t, .variants = 3};
    moec_device *device;
    moec_error err = {0};
    moec_status rc = moec_device_open(target, 2, &device, &err);
    if (rc == MOEC_E_DEVICE) T_SKIP("%.*s", (int)strcspn(err.text, "\n"), err.text);
    if (rc) {
        T_FAIL("%s", err.text);
        return;
    }
    if (moec_cpu_emulates(device->target)) printf("# %s: tile instructions are emulated in C\n", target);
    route_with_nan(device);
    listed_specs(device, &o);
    random_specs(device, &o);
    printf("# %s: %" PRId64 " cases, %" PRId64 " ops left out (not in their spec)\n", target, t.cases,
           t.skipped);
    T_EQ(t.wrong, 0);
    T_OK(t.cases > 0);
    moec_device_close(device);
}

T_CASE(cpu_scalar) { verify("cpu-scalar"); }
T_CASE(cpu_avx2) { verify("cpu-avx2"); }
T_CASE(cpu_avx512) { verify("cpu-avx512"); }
T_CASE(cpu_amx) {
    setenv("MOEC_EMULATE_TILES", "1", 0); /* where there is no AMX */
    verify("cpu-amx");
}

T_MAIN
