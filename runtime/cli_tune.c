/* moec tune: the fastest config of each kernel of a layer, and how near the defaults come to it.
 *
 * Prints one row per kernel and, with -o, writes a plan that layers and bench load: after each kernel, so
 * that what was found survives whatever comes. SIGINT and SIGTERM decide the kernel at hand and end there. */
#include "cli.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "search.h"

typedef struct tuning {
    cli_progress progress;
    const moec_spec *spec;
    const moec_target *target;
    const char *output;     /* the plan's path, or NULL */
    moec_search_row rows[MOEC_L_COUNT];
    int count;
} tuning;

static void step(void *user, const char *now) { cli_progress_step(&((tuning *)user)->progress, now); }

/* The plan as far as it is known; what keeps it from being written is said at the end. */
static void found(void *user, int count) {
    const tuning *t = user;
    if (t->output) (void)moec_search_write(t->output, t->spec, t->target, t->rows, count, NULL);
}

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

static void print(const cli_call *call, const tuning *t) {
    if (!call->json) {
        print_rows(t->rows, t->count);
        return;
    }
    json_t *object = cli_settings_json(call, t->spec, t->target->name);
    json_object_set_new(object, "kernels", rows_json(t->rows, t->count));
    cli_print_json(object);
}

static moec_status search(const cli_call *call, moec_device *device, tuning *t, moec_error *err) {
    moec_search_options options = {
        .bench = {.tokens = cli_int(call, "tokens"), .routing = cli_text(call, "routing"),
                  .seed = (uint64_t)cli_int(call, "seed"), .repeat = (int)cli_int(call, "repeat"),
                  .sets = (int)cli_int(call, "sets"), .ops = cli_text(call, "op"),
                  .cpu_time = cli_flag(call, "cpu-time"), .progress = step, .user = t},
        .candidates = (int)cli_int(call, "candidates"), .seconds = cli_real(call, "seconds"),
        .found = found, .stop = cli_stop(),
    };
    cli_settings(call, t->spec, t->target->name);
    moec_status rc = moec_search_run(device, t->spec, &options, t->rows, &t->count, err);
    cli_progress_end(&t->progress);
    if (t->count && (!rc || !call->json)) print(call, t);
    if (rc || !t->output || !t->count) return rc;
    MOEC_TRY(moec_search_write(t->output, t->spec, t->target, t->rows, t->count, err));
    if (!call->json) printf("plan: %s\n", t->output);
    return MOEC_OK;
}

static moec_status run(cli_call *call, moec_error *err) {
    static tuning t;
    moec_spec spec;
    moec_device *device;
    MOEC_TRY(cli_spec(call, 0, &spec, err));
    t.output = cli_text(call, "output");
    if (t.output) MOEC_TRY(moec_search_can_write(t.output, err));
    MOEC_TRY(cli_device(call, &device, err));
    t.progress = (cli_progress){.what = "tune", .total = MOEC_L_COUNT};
    t.spec = &spec;
    t.target = device->target;
    moec_status rc = search(call, device, &t, err);
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
