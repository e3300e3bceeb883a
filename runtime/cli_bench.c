/* moec bench: a table of times, ratios to ceilings, and ratios to other libraries. */
#include "cli.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "bench.h"
#include "model.h"

/* ---- text ---- */

static void print_ratio(const char *format, double value, const char *none) {
    if (value > 0) printf(format, value);
    else printf("%s", none);
}

/* The compute ceiling moves with the clocks: the lowest and the highest of the rows' own. */
static void print_ceilings(const moec_bench *b) {
    double low = 0, high = 0;
    for (int i = 0; i < b->count; i++) {
        double peak = b->row[i].peak * 1e-12;
        if (peak > 0 && (low <= 0 || peak < low)) low = peak;
        if (peak > high) high = peak;
    }
    if (b->copy > 0) printf("copy ceiling: %.1f GB/s (read + written)\n", b->copy * 1e-9);
    if (high > 0) printf("compute ceiling: %s, beside every run: %.4g to %.4g TFLOP/s\n", b->unit, low, high);
    else if (b->count) printf("compute ceiling: not measured%s%s\n", *b->no_unit ? ": " : "", b->no_unit);
}

static void print_head(const moec_bench *b, const moec_spec *spec) {
    bool peers = false;
    printf("%" PRId64 " rows, the fullest of %" PRId64 " experts has %" PRId64 ", %" PRId64 " have none\n", b->rows,
           spec->E, b->most_rows, spec->E - b->experts_used);
    if (b->sets > 1) printf("weights: %d sets in turn\n", b->sets);
    else printf("weights: one set, warm where a cache holds it\n");
    print_ceilings(b);
    for (int i = 0; i < MOEC_BENCH_PEERS && b->peer[i]; i++) {
        printf("%s %s\n", b->peer[i]->name, b->peer_note[i]);
        peers |= b->peer_there[i];
    }
    if (!b->count) return;
    printf("ms: median; GB/s: every operand once; %% peak: of the compute ceiling; %% copy: of the copy ceiling, more than\n"
           "100 where a cache helps; %% bound: the least time by both ceilings, of ms%s\n",
           peers ? "; ratio: a library's ms over ms" : "");
    printf("\n%-11s %9s %9s %8s %7s %7s %7s", "kernel", "ms", "TFLOP/s", "GB/s", "% peak", "% copy", "% bound");
    for (int i = 0; i < MOEC_BENCH_PEERS && b->peer[i]; i++)
        if (b->peer_there[i]) printf(" %9s ms %6s", b->peer[i]->name, "ratio");
    printf("  %s\n", "config");
}

static void print_row(const moec_bench *b, const moec_bench_row *r, const char *target) {
    double seconds = r->ms * 1e-3;
    printf("%-11s %9.3f ", r->name, r->ms);
    print_ratio("%9.3f ", r->flops / seconds * 1e-12, "        - ");
    print_ratio("%8.1f ", r->bytes / seconds * 1e-9, "       - ");
    print_ratio("%7.1f ", r->peak > 0 ? 100 * r->flops / seconds / r->peak : 0, "      - ");
    print_ratio("%7.1f ", b->copy > 0 ? 100 * r->bytes / seconds / b->copy : 0, "      - ");
    print_ratio("%7.1f", 100 * r->bound_ms / r->ms, "      -");
    for (int i = 0; i < MOEC_BENCH_PEERS && b->peer[i]; i++) {
        if (!b->peer_there[i]) continue;
        if (r->peer_ms[i] > 0) printf(" %12.3f %5.2fx", r->peer_ms[i], r->peer_ms[i] / r->ms);
        else printf(" %12s %6s", "-", "-");
    }
    if (strcmp(r->target, target)) printf("  %s", r->target);
    printf("  %s\n", r->config);
}

/* peak: was there a compute ceiling? */
static void print_layer(const moec_bench_layer *l, bool peak) {
    double ms = l->forward_ms + l->backward_ms;
    printf("\nlayer: forward %.3f ms, backward %.3f ms, together %.3f ms%s\n", l->forward_ms, l->backward_ms, ms,
           l->difference ? " (backward: both passes less forward alone)" : "");
    printf("FLOPs of the products alone over these times: forward %.4g, backward %.4g, together %.4g TFLOP/s\n",
           l->gemm_flops / l->forward_ms * 1e-9, 2 * l->gemm_flops / l->backward_ms * 1e-9, 3 * l->gemm_flops / ms * 1e-9);
    printf("without the router (choice and weights given): forward %.3f ms, backward %.3f ms\n", l->given_forward_ms,
           l->given_backward_ms);
    if (l->kernels_ms > 0) printf("its kernels one by one, combine twice: %.3f ms\n", l->kernels_ms);
    if (l->bound_ms > 0)
        printf("bound %.3f ms (each kernel at %s): the layer reaches %.1f %%\n", l->bound_ms,
               peak ? "the nearer of its two ceilings" : "the copy ceiling: the other is not measured",
               100 * l->bound_ms / ms);
    printf("saved %.1f MiB, workspace %.1f MiB\n", (double)l->saved_bytes / 1048576,
           (double)l->workspace_bytes / 1048576);
}

/* ---- JSON ---- */

static json_t *row_json(const moec_bench *b, const moec_bench_row *r) {
    json_t *o = json_pack("{s:s, s:s, s:s, s:i, s:f, s:f, s:f, s:f, s:f, s:f, s:f}", "kernel", r->name,
                          "target", r->target, "config", r->config, "runs", r->runs, "ms", r->ms, "low_ms",
                          r->low_ms, "high_ms", r->high_ms, "flops", r->flops, "bytes", r->bytes,
                          "peak_flops", r->peak, "bound_ms", r->bound_ms);
    json_t *peers = json_object();
    for (int i = 0; i < MOEC_BENCH_PEERS && b->peer[i]; i++)
        if (r->peer_ms[i] > 0) json_object_set_new(peers, b->peer[i]->name, json_real(r->peer_ms[i]));
    json_object_set_new(o, "peer_ms", peers);
    return o;
}

static void print_json(const moec_bench *b, json_t *object) {
    json_t *rows = json_array(), *peers = json_object();
    const moec_bench_layer *l = &b->layer;
    for (int i = 0; i < b->count; i++) json_array_append_new(rows, row_json(b, &b->row[i]));
    for (int i = 0; i < MOEC_BENCH_PEERS && b->peer[i]; i++)
        json_object_set_new(peers, b->peer[i]->name, json_string(b->peer_note[i]));
    json_object_set_new(object, "rows_routed", json_integer(b->rows));
    json_object_set_new(object, "rows_fullest", json_integer(b->most_rows));
    json_object_set_new(object, "compute_unit", json_string(b->unit));
    json_object_set_new(object, "copy_bytes", json_real(b->copy));
    json_object_set_new(object, "peers", peers);
    json_object_set_new(object, "kernels", rows);
    if (l->measured)
        json_object_set_new(object, "layer", json_pack("{s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:I, s:I}", "forward_ms",
                            l->forward_ms, "backward_ms", l->backward_ms, "given_forward_ms", l->given_forward_ms,
                            "given_backward_ms", l->given_backward_ms, "gemm_flops", l->gemm_flops, "flops", l->flops, "kernels_ms",
                            l->kernels_ms, "bound_ms", l->bound_ms, "saved_bytes", (json_int_t)l->saved_bytes,
                            "workspace_bytes", (json_int_t)l->workspace_bytes));
    cli_print_json(object);
}

/* ---- a model in place of times, for GPUs that are not here ---- */

static void print_model(const moec_model_row *r) {
    printf("%-11s %5" PRId64 " %6" PRId64 " %6" PRId64 " ", r->name, r->registers, r->lds_bytes, r->spills);
    if (r->mfma_alone > 0) printf("%8.1f ", 100 * r->mfma_alone);
    else printf("%8s ", "-");
    if (r->mfma > 0) printf("%6d %10.1f %6.1f %7.1f ", r->blocks, 100 * r->mfma, 100 * r->lds, 100 * r->cache);
    else printf("%6s %10s %6s %7s ", "-", "-", "-", "-");
    printf("%9.3f %10.3f %8.2f  %s\n", r->bytes * 1e-9, r->roofline_ms, r->compile_s, r->config);
}

static json_t *model_json(const moec_model_row *r) {
    return json_pack("{s:s, s:s, s:I, s:I, s:I, s:i, s:f, s:f, s:f, s:f, s:f, s:f, s:f}", "kernel", r->name, "config",
                     r->config, "registers", (json_int_t)r->registers, "lds_bytes", (json_int_t)r->lds_bytes,
                     "spills", (json_int_t)r->spills, "blocks_per_cu", r->blocks, "mfma_bound_alone", r->mfma_alone, "mfma_bound_together", r->mfma,
                     "lds_load", r->lds, "cache_load", r->cache, "flops", r->flops, "bytes", r->bytes,
                     "roofline_ms", r->roofline_ms);
}

static moec_status model_rows(cli_call *call, moec_gen *gen, const moec_target *target, const moec_spec *spec,
                              json_t *rows, moec_error *err) {
    for (moec_layer_slot i = 0; i < MOEC_L_COUNT; i++) {
        const moec_layer_row *row = moec_layer_row_at(i);
        moec_model_row r;
        if (!moec_layer_row_used(row, spec)) continue;
        MOEC_TRY(moec_model(gen, target, row, spec, cli_int(call, "tokens"), &r, err));
        if (call->json) json_array_append_new(rows, model_json(&r));
        else print_model(&r);
    }
    return MOEC_OK;
}

static moec_status run_model(cli_call *call, moec_error *err) {
    moec_spec spec;
    moec_gen *gen;
    const moec_target *target = moec_target_find(cli_text(call, "target"));
    if (!target || strcmp(target->family, "hip"))
        return cli_usage(call, err, "--model is for the AMD targets: -t gfx942 or -t gfx90a");
    MOEC_TRY(cli_spec(call, 0, &spec, err));
    MOEC_TRY(moec_gen_new(&gen, err));
    cli_settings(call, &spec, target->name);
    json_t *rows = json_array();
    if (!call->json) {
        printf("# a MODEL, no measurement: bounds on the matrix units' share of a step of the main loop, at peak clocks\n"
               "# alone: one block on a compute unit, its main loop walked instruction by instruction, operands in L2\n"
               "# together: blk/CU of them, one working while another waits, until the busiest unit sets the pace; it\n"
               "#   supposes that they fall out of step. Tiles' first loads and epilogues and ragged ends come on top\n");
        printf("%-11s %5s %6s %6s %8s %6s %10s %6s %7s %9s %10s %8s  %s\n", "kernel", "regs", "LDS", "spills",
               "% alone", "blk/CU", "% together", "% LDS", "% cache", "GB", "roofline ms", "compile s", "config");
    }
    moec_status rc = model_rows(call, gen, target, &spec, rows, err);
    if (!rc && call->json) {
        json_t *object = cli_settings_json(call, &spec, target->name);
        json_object_set_new(object, "model", json_true());
        json_object_set(object, "kernels", rows);
        cli_print_json(object);
    }
    json_decref(rows);
    moec_gen_free(gen);
    return rc;
}

/* ---- the verb ---- */

static void step(void *user, const char *now) { cli_progress_step(user, now); }

static int64_t count_rows(const moec_spec *spec, const char *ops) {
    int64_t n = 1;
    for (moec_layer_slot i = 0; i < MOEC_L_COUNT && !ops; i++)
        n += moec_layer_row_used(moec_layer_row_at(i), spec);
    for (const char *at = ops; at && (at = strchr(at, ',')); at++) n++;
    return n;
}

static moec_status run(cli_call *call, moec_error *err) {
    static moec_bench bench;
    moec_spec spec;
    moec_device *device;
    const char *ops = cli_text(call, "op");
    if (cli_flag(call, "model") && (cli_given(call, "plan") || cli_given(call, "op")))
        return cli_usage(call, err, "--model is about the layer and its default configs: it takes no --plan and no --op");
    if (cli_flag(call, "model")) return run_model(call, err);
    MOEC_TRY(cli_spec(call, 0, &spec, err));
    MOEC_TRY(cli_device(call, &device, err));
    cli_progress progress = {.what = "bench", .total = count_rows(&spec, ops)};
    moec_bench_options options = {
        .tokens = cli_int(call, "tokens"), .routing = cli_text(call, "routing"),
        .seed = (uint64_t)cli_int(call, "seed"), .repeat = (int)cli_int(call, "repeat"),
        .sets = (int)cli_int(call, "sets"), .ops = ops, .peers = !cli_flag(call, "no-peers"),
        .cpu_time = cli_flag(call, "cpu-time"), .column_blocks = (int)cli_int(call, "column-blocks"),
        .plan = cli_text(call, "plan"), .progress = step, .user = &progress,
    };
    const char *target = moec_device_target(device);
    cli_settings(call, &spec, target);
    moec_status rc = moec_bench_run(device, &spec, &options, &bench, err);
    cli_progress_end(&progress);
    if (!rc && call->json) {
        print_json(&bench, cli_settings_json(call, &spec, target));
    } else if (!rc) {
        print_head(&bench, &spec);
        for (int i = 0; i < bench.count; i++) print_row(&bench, &bench.row[i], target);
        if (bench.layer.measured) print_layer(&bench.layer, bench.count && bench.row[0].peak > 0);
    }
    moec_device_close(device);
    return rc;
}

static const cli_option options[] = {
    {"op",       0, CLI_TEXT, "NAMES", NULL, "rows of the layer or ops to time, separated by commas; \"layer\" is the whole"},
    {"repeat",   0, CLI_INT,  "N",     "20", "timed runs of each at most; slow ones get fewer"},
    {"sets",     0, CLI_INT,  "N",     "0",  "sets of weights used in turn: 1 is warm, 0 enough to pass the caches"},
    {"column-blocks", 0, CLI_INT, "N", "1", "the layer with down and dx in N column blocks: less workspace"},
    {"plan",     0, CLI_TEXT, "FILE",  NULL, "configs of the kernels, as moec tune writes them"},
    {"model",    0, CLI_FLAG, "",      NULL, "AMD targets, no GPU needed: bounds from a static model instead of times"},
    {"no-peers", 0, CLI_FLAG, "",      NULL, "do not time other libraries"},
    {"cpu-time", 0, CLI_FLAG, "",      NULL, "count the time the one worker ran: for a busy machine, with --threads 1"},
    {NULL, 0, CLI_FLAG, NULL, NULL, NULL},
};

const cli_verb cli_bench_verb = {
    .name = "bench",
    .summary = "times kernels and the whole layer, beside ceilings and other libraries",
    .operands = "SPEC",
    .common = "target threads tokens routing seed",
    .options = options,
    .examples = {"moec bench E=64 K=6 H=2048 F=1408 --tokens 4096",
                 "moec bench E=8 K=2 H=2048 F=768 -t cpu-avx512 --threads 1 --op up,down --sets 1",
                 "moec bench E=1 H=2048 F=2048 --op linear,linear_dx,linear_dw --json", NULL},
    .run = run,
};
