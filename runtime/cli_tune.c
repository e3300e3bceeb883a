/* moec tune: the fastest config of each kernel of a layer, and how near the defaults come to it.
 *
 * Prints one row per kernel and, with -o, writes a plan that layers and bench load. */
#include "cli.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "search.h"

static void step(void *user, const char *now) { cli_progress_step(user, now); }

static void print_rows(const moec_search_row *rows, int count) {
    double default_ms = 0, best_ms = 0;
    printf("%-11s %6s %6s %8s %11s %9s %9s  %s\n", "kernel", "legal", "tried", "rejected", "default ms", "best ms",
           "default %", "best config");
    for (int i = 0; i < count; i++) {
        const moec_search_row *r = &rows[i];
        printf("%-11s %6d %6d %8d %11.4f %9.4f %9.1f  %s%s\n", r->name, r->legal, r->tried, r->rejected, r->default_ms,
               r->best_ms, 100 * r->best_ms / r->default_ms, r->best_config, r->in_time ? "" : "  (time ran out)");
        default_ms += r->default_ms;
        best_ms += r->best_ms;
    }
    for (int i = 0; i < count; i++)
        if (rows[i].rejected) printf("# %s rejected, first of %d: %s\n", rows[i].name, rows[i].rejected, rows[i].reason);
    printf("together: defaults %.4f ms, best %.4f ms: the defaults reach %.1f %% of the best found\n", default_ms,
           best_ms, 100 * best_ms / default_ms);
}

static json_t *rows_json(const moec_search_row *rows, int count) {
    json_t *list = json_array();
    for (int i = 0; i < count; i++) {
        const moec_search_row *r = &rows[i];
        json_array_append_new(
            list, json_pack("{s:s, s:s, s:i, s:i, s:i, s:b, s:s, s:f, s:f, s:s, s:s}", "kernel", r->name, "target",
                            r->target, "legal", r->legal, "tried", r->tried, "rejected", r->rejected, "in_time",
                            r->in_time, "reason", r->reason, "default_ms", r->default_ms, "best_ms", r->best_ms,
                            "default_config", r->default_config, "best_config", r->best_config));
    }
    return list;
}

static moec_status run(cli_call *call, moec_error *err) {
    static moec_search_row rows[MOEC_L_COUNT];
    moec_spec spec;
    moec_device *device;
    int count = 0;
    MOEC_TRY(cli_spec(call, 0, &spec, err));
    MOEC_TRY(cli_device(call, &device, err));
    cli_progress progress = {.what = "tune", .total = MOEC_L_COUNT};
    const char *ops = cli_text(call, "op"), *output = cli_text(call, "output");
    moec_search_options options = {
        .bench = {.tokens = cli_int(call, "tokens"), .routing = cli_text(call, "routing"),
                  .seed = (uint64_t)cli_int(call, "seed"), .repeat = (int)cli_int(call, "repeat"),
                  .sets = (int)cli_int(call, "sets"), .ops = ops,
                  .cpu_time = cli_flag(call, "cpu-time"), .progress = step, .user = &progress},
        .candidates = (int)cli_int(call, "candidates"), .seconds = cli_real(call, "seconds"),
    };
    cli_settings(call, &spec, device->target->name);
    moec_status rc = moec_search_run(device, &spec, &options, rows, &count, err);
    cli_progress_end(&progress);
    if (!rc && output) rc = moec_search_write(output, &spec, device->target, rows, count, err);
    if (!rc && call->json) {
        json_t *object = cli_settings_json(call, &spec, device->target->name);
        json_object_set_new(object, "kernels", rows_json(rows, count));
        cli_print_json(object);
    } else if (!rc) {
        print_rows(rows, count);
        if (output) printf("plan: %s\n", output);
    }
    moec_device_close(device);
    return rc;
}

static const cli_option options[] = {
    {"op",         0, CLI_TEXT, "NAMES", NULL, "rows of the layer to search, separated by commas; default: all with a choice"},
    {"output",   'o', CLI_TEXT, "PLAN",  NULL, "write the best configs to this plan file"},
    {"candidates", 0, CLI_INT,  "N",     "32", "configs of a kernel to try beside the default, the nearest to it first"},
    {"seconds",    0, CLI_REAL, "S",     "60", "for one kernel, compilers included"},
    {"repeat",     0, CLI_INT,  "N",     "15", "timed runs of each finalist"},
    {"sets",       0, CLI_INT,  "N",     "0",  "sets of weights used in turn: 1 is warm, 0 enough to pass the caches"},
    {"cpu-time",   0, CLI_FLAG, "",      NULL, "count the time the one worker ran: for a busy machine, with --threads 1"},
    {NULL, 0, CLI_FLAG, NULL, NULL, NULL},
};

const cli_verb cli_tune_verb = {
    .name = "tune",
    .summary = "searches the configs of a layer's kernels by timing, writes a plan",
    .operands = "SPEC",
    .common = "target threads tokens routing seed",
    .options = options,
    .examples = {"moec tune E=8 K=2 H=512 F=256 --tokens 1024 -o layer.plan",
                 "moec tune E=128 K=8 H=2048 F=768 --tokens 32768 -t sm_90a --op up,down --candidates 20",
                 "moec bench E=8 K=2 H=512 F=256 --tokens 1024 --plan layer.plan", NULL},
    .run = run,
};
