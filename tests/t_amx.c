/* The AMX kernels, their tile instructions emulated so that any machine can check them: every GEMM op
 * against the oracle on shapes with ragged ends, other configs, and the same bits from 1, 2 and 5
 * workers. */
#include <stdlib.h>

#include "device.h"
#include "t.h"
#include "verify.h"

static const char *const ops[] = {"up", "down", "dh", "dx", "dw1", "dw2", "linear", "linear_dx", "linear_dw"};
enum { OPS = sizeof ops / sizeof *ops };

static moec_error err;

static moec_device *open_emulated(int threads) {
    moec_device *device = NULL;
    setenv("MOEC_EMULATE_TILES", "1", 1);
    if (moec_device_open("cpu-amx", threads, &device, &err)) T_FAIL("%s", err.text);
    return device;
}

static void judge(void *user, const moec_verify_row *row) {
    int *cases = user;
    *cases += !*row->skipped;
    T_STR(row->target, "cpu-amx");
    if (!*row->skipped && *row->verdict->fault) T_FAIL("%s: %s", row->op, row->verdict->fault);
}

static void check(const char *text, int64_t tokens, const char *routing, int configs) {
    moec_device *device = open_emulated(2);
    moec_spec spec;
    int cases = 0;
    T_NEED(device);
    T_EQ(moec_spec_parse(text, &spec, &err), MOEC_OK);
    for (int i = 0; i < OPS; i++) {
        moec_verify_options o = {.op = ops[i], .tokens = tokens, .routing = routing, .seed = 7, .variants = 1,
                                 .random_configs = configs, .report = judge, .user = &cases};
        if (moec_verify_spec(device, &spec, &o, &err)) T_FAIL("%s of %s: %s", ops[i], text, err.text);
    }
    T_OK(cases >= OPS);
    moec_device_close(device);
}

T_CASE(ragged_everything) { check("E=5 K=3 H=72 F=40 bias=1", 61, "zipf:1.2", 0); }
T_CASE(long_sums_and_configs) { check("E=2 K=1 H=552 F=296 layout=interleaved act=geglu", 45, "uniform", 2); }
T_CASE(many_rows_of_one_expert) { check("E=3 K=1 H=40 F=24 act=relu2 wgrad=same", 700, "hot:0.9", 0); }
T_CASE(f32_logits_as_three_planes) { check("H=40 F=104 out=f32", 70, "uniform", 1); }
T_CASE(no_tokens) { check("E=2 K=1 H=40 F=24", 0, "uniform", 0); }

/* ---- bits ---- */

/* Runs the case on `threads` workers and returns what it wrote, outputs one after another. */
static char *written(const moec_case *c, int threads, size_t *bytes) {
    moec_device *device = open_emulated(threads);
    moec_module *module;
    moec_arg args[MOEC_MAX_ARGS];
    size_t scratch_bytes, used = 0, size[MOEC_MAX_ARGS] = {0};
    void *scratch = NULL;
    *bytes = 0;
    for (int i = 0; i < c->op->arg_count; i++) {
        const moec_arg_info *info = &c->op->args[i];
        args[i].i64 = 0;
        if (info->role == MOEC_SCALAR) args[i].i64 = (int64_t)c->ref.arg[i].scalar;
        if (info->role == MOEC_SCALAR || !c->count[i]) continue;
        size[i] = (size_t)c->count[i] * moec_type_bytes(c->type[i]);
        if (moec_alloc(device, size[i] + 64, info->name, &args[i].ptr, &err)) abort();
        memcpy(args[i].ptr, c->image[i], size[i]);
        if (info->role != MOEC_IN) *bytes += size[i];
    }
    char *out = calloc(*bytes + 1, 1);
    if (!out || moec_module_create(device, c->op, &c->spec, NULL, c->T, &module, &err) ||
        moec_module_scratch(device, module, c->T, c->R, c->N, &scratch_bytes, &err) ||
        moec_alloc(device, scratch_bytes + 64, "scratch", &scratch, &err) ||
        moec_module_launch(device, NULL, module, args, c->T, c->R, c->N, scratch, &err))
        T_FAIL("%s", err.text);
    for (int i = 0; i < c->op->arg_count; i++) {
        if (size[i] && c->op->args[i].role != MOEC_IN) {
            memcpy(out + used, args[i].ptr, size[i]);
            used += size[i];
        }
        if (size[i]) moec_free(device, args[i].ptr);
    }
    moec_free(device, scratch);
    moec_device_close(device);
    return out;
}

T_CASE(same_bits_for_any_number_of_workers) {
    moec_pattern pattern;
    T_EQ(moec_pattern_parse("zipf:1.2", &pattern, &err), MOEC_OK);
    for (int i = 0; i < OPS; i++) {
        moec_case c = {.op = moec_op_find(ops[i]), .T = 90, .seed = 3};
        T_EQ(moec_spec_parse("E=4 K=2 H=136 F=72", &c.spec, &err), MOEC_OK);
        if (!strncmp(ops[i], "linear", 6)) c.spec.E = c.spec.K = 1;
        if (moec_case_make(&c, &pattern, &err)) T_FAIL("%s", err.text);
        size_t bytes;
        char *one = written(&c, 1, &bytes), *two = written(&c, 2, &bytes), *five = written(&c, 5, &bytes);
        T_OK(bytes > 0 && !memcmp(one, two, bytes) && !memcmp(one, five, bytes));
        free(one), free(two), free(five);
        moec_case_free(&c);
    }
}

T_MAIN
