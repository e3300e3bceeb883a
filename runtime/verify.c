/* Which cases a spec is verified on, and the walk through them.
 *
 * For each op: its module once (with each config asked for), then every T x routing x variant. What a
 * case computes is decided in verify_case.c, what counts as right in verify_trial.c. */
#include "verify.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "layer.h"
#include "random.h"
#include "verify_results.h"

/* The oracle's longest loop in multiply-adds: larger cases get fewer tokens, unless T was asked for. */
static const double MOST_WORK = 1e7;

static const int64_t token_list[] = {0, 1, 7, 127, 1000};
static const char *const routing_list[] = {"uniform", "zipf:1.2", "hot:0.9", "empty:0.3"};
enum { TOKENS = 5, ROUTINGS = 4 };

/* What stays the same while an op is verified. */
typedef struct walk {
    moec_device *device;
    const moec_spec *spec;
    const moec_verify_options *options;
    const moec_op *op; /* NULL: the whole layer */
    moec_module *ready; /* with the default config, compiled with all others at once; or NULL */
    moec_module *module;
    char config[512];
} walk;

static moec_verify_row named(const walk *w, moec_verify_row row) {
    row.op = w->op ? w->op->name : "layer";
    row.spec = w->spec;
    row.seed = w->options->seed;
    return row;
}

static void report(const walk *w, moec_verify_row row) {
    row = named(w, row);
    row.target = w->module ? w->module->kernel.target->name : w->device->target->name;
    row.config = w->config;
    if (!row.skipped) row.skipped = "";
    w->options->report(w->options->user, &row);
}

static void report_skip(const walk *w, const moec_error *err) {
    moec_verdict none = {0};
    report(w, (moec_verify_row){.T = -1, .skipped = err->text, .verdict = &none, .note = ""});
}

/* Answers to the folder, and against those of another. */
static moec_status exchange(const walk *w, moec_verify_row row, const moec_results *results,
                            moec_verdict *verdict, moec_error *err) {
    row = named(w, row);
    if (w->options->dump) MOEC_TRY(moec_results_write(results, w->options->dump, &row, err));
    if (!w->options->against || *verdict->fault) return MOEC_OK;
    return moec_results_compare(results, w->options->against, &row, verdict, err);
}

static moec_status one_case(const walk *w, int64_t T, const moec_pattern *pattern, int variant,
                            moec_error *err) {
    moec_case c = {.op = w->op, .spec = *w->spec, .T = T, .seed = w->options->seed, .variant = variant};
    moec_verdict verdict = {0};
    moec_results results = {0};
    moec_status rc = MOEC_OK;
    if (w->options->dump || w->options->against) moec_results_watch(&results, &verdict);
    if (w->op) {
        rc = moec_case_make(&c, pattern, err);
        if (!rc) rc = moec_case_solve(&c, w->device->target, err);
        if (!rc) rc = moec_trial(w->device, w->module, &c, &verdict, err);
    } else {
        rc = moec_verify_layer(w->device, w->spec, T, pattern, w->options->seed, variant, c.note,
                               &verdict, err);
    }
    if (rc == MOEC_E_MISMATCH && err) { /* a checking device found fault with the kernel itself */
        snprintf(verdict.fault, sizeof verdict.fault, "%.500s", err->text);
        rc = MOEC_OK;
    }
    moec_verify_row row = {.T = T, .pattern = pattern, .variant = variant, .note = c.note, .verdict = &verdict};
    if (!rc) rc = exchange(w, row, &results, &verdict, err);
    if (!rc) report(w, row);
    moec_results_free(&results);
    moec_case_free(&c);
    return rc;
}

/* Fewer tokens when the oracle would take long. */
static int64_t fitting_tokens(const walk *w, int64_t T) {
    if (w->options->tokens >= 0) return T;
    const moec_op *op = w->op ? w->op : moec_op_get(MOEC_OP_up);
    while (T > 1 && moec_case_work(op, w->spec, T) > MOST_WORK) T /= 2;
    return T;
}

/* Does the op look at routing at all? If not, one pattern is enough. */
static bool routed(const moec_op *op) {
    return !op || moec_op_arg(op, "offsets") >= 0 || moec_op_arg(op, "slot_row") >= 0;
}

static moec_status each_routing(const walk *w, int64_t T, moec_error *err) {
    int n = w->options->routing || !routed(w->op) || T == 0 ? 1 : ROUTINGS;
    for (int i = 0; i < n; i++) {
        moec_pattern pattern;
        const char *text = w->options->routing ? w->options->routing : routing_list[i];
        MOEC_TRY(moec_pattern_parse(text, &pattern, err));
        for (int v = 0; v < w->options->variants; v++)
            MOEC_TRY(one_case(w, T, &pattern, w->options->variant + v, err));
    }
    return MOEC_OK;
}

static moec_status each_case(const walk *w, moec_error *err) {
    int64_t last = -1;
    if (w->options->tokens >= 0) return each_routing(w, w->options->tokens, err);
    for (int i = 0; i < TOKENS; i++) {
        int64_t T = fitting_tokens(w, token_list[i]);
        if (T > last) MOEC_TRY(each_routing(w, T, err));
        last = T > last ? T : last;
    }
    return MOEC_OK;
}

/* ---- configs ---- */

enum { MOST_CONFIGS = 4096 };

typedef struct config_list { moec_config *config; int count; } config_list;

static bool collect(void *user, const moec_config *config, const char *why) {
    config_list *list = user;
    if (!why && list->count < MOST_CONFIGS) list->config[list->count++] = *config;
    return list->count < MOST_CONFIGS;
}

static moec_status with_config(walk *w, const moec_config *config, moec_error *err) {
    moec_error why = {0};
    moec_status rc = MOEC_OK;
    if (!config && w->ready) {
        w->module = w->ready;
        w->module->references++;
    } else {
        rc = moec_module_create(w->device, w->op, w->spec, config, 0, &w->module, &why);
    }
    if (rc == MOEC_E_UNSUPPORTED) {
        report_skip(w, &why);
        return MOEC_OK;
    }
    if (rc) return moec_fail(err, rc, "%s", why.text);
    if (config) moec_config_print(config, w->config, sizeof w->config);
    rc = each_case(w, err);
    moec_module_free(w->device, w->module);
    w->module = NULL;
    w->config[0] = 0;
    return rc;
}

static moec_status random_configs(walk *w, const moec_request *request, moec_error *err) {
    config_list list = {.config = malloc(MOST_CONFIGS * sizeof *list.config)};
    moec_random r = moec_random_new(w->options->seed, 9);
    if (!list.config) return moec_fail(err, MOEC_E_NOMEM, "out of memory: configs");
    moec_status rc = moec_space_each(w->device->gen, request, collect, &list, err);
    for (int i = 0; !rc && list.count && i < w->options->random_configs; i++)
        rc = with_config(w, &list.config[moec_random_below(&r, list.count)], err);
    free(list.config);
    return rc;
}

static moec_status verify_op(walk *w, moec_error *err) {
    moec_error why = {0};
    moec_status rc = moec_case_applies(w->op, w->spec, &why);
    if (rc == MOEC_E_UNSUPPORTED) {
        report_skip(w, &why);
        return MOEC_OK;
    }
    if (!w->device->gen) MOEC_TRY(moec_gen_new(&w->device->gen, err));
    moec_request request = {.op = w->op, .spec = w->spec, .target = w->device->target};
    request.target = moec_serving_target(w->device->gen, &request);
    moec_config config;
    if (w->options->config) {
        MOEC_TRY(moec_device_config(w->device, &request, w->options->config, &config, err));
        return with_config(w, &config, err);
    }
    MOEC_TRY(with_config(w, NULL, err));
    return w->options->random_configs && request.target ? random_configs(w, &request, err) : MOEC_OK;
}

static bool in_layer(moec_op_id op, const moec_spec *spec) {
    for (int i = 0; i < MOEC_L_COUNT; i++) {
        const moec_layer_row *row = moec_layer_row_at((moec_layer_slot)i);
        if (row->op == op && moec_layer_row_used(row, spec)) return true;
    }
    return false;
}

/* Is the op worth a kernel for this spec and these options? */
static bool wanted(const moec_op *op, const moec_spec *spec, const moec_verify_options *o) {
    if (o->op) return !strcmp(o->op, op->name);
    return !o->layer_only || in_layer(op->id, spec);
}

/* Compiles everything at once, in parallel, into modules[op]. What cannot be made is NULL: the walk
 * meets the reason when it comes to that op. */
static void warm(moec_device *device, const moec_spec *spec, const moec_verify_options *o,
                 moec_module *modules[MOEC_OP_COUNT]) {
    moec_request requests[MOEC_OP_COUNT];
    moec_module *made[MOEC_OP_COUNT];
    moec_error ignored = {0};
    int n = 0, op_of[MOEC_OP_COUNT];
    if (!device->gen && moec_gen_new(&device->gen, &ignored)) return;
    for (int i = 0; i < MOEC_OP_COUNT; i++) {
        const moec_op *op = moec_op_get((moec_op_id)i);
        moec_request request = {.op = op, .spec = spec, .target = device->target};
        if (!wanted(op, spec, o) || !moec_serving_target(device->gen, &request)) continue;
        if (moec_case_applies(op, spec, &ignored)) continue;
        op_of[n] = i;
        requests[n++] = request;
    }
    if (moec_module_create_all(device, requests, n, made, &ignored)) return;
    for (int i = 0; i < n; i++) modules[op_of[i]] = made[i];
}

static moec_status each_op(moec_device *device, const moec_spec *spec, const moec_verify_options *o,
                           moec_module *modules[MOEC_OP_COUNT], moec_error *err) {
    for (int i = 0; i < MOEC_OP_COUNT; i++) {
        walk w = {.device = device, .spec = spec, .options = o, .op = moec_op_get((moec_op_id)i),
                  .ready = modules[i]};
        if (!wanted(w.op, spec, o)) continue;
        moec_status rc = verify_op(&w, err);
        if (rc) return moec_context(err, rc, "verifying op %s", w.op->name);
    }
    return MOEC_OK;
}

moec_status moec_verify_spec(moec_device *device, const moec_spec *spec,
                             const moec_verify_options *options, moec_error *err) {
    moec_module *modules[MOEC_OP_COUNT] = {NULL};
    walk layer = {.device = device, .spec = spec, .options = options};
    bool with_layer = !options->op || !strcmp(options->op, "layer");
    if (!with_layer && !moec_op_find(options->op))
        return moec_fail(err, MOEC_E_SPEC, "--op %s: no such op", options->op);
    if (!options->config) warm(device, spec, options, modules);
    moec_status rc = each_op(device, spec, options, modules, err);
    if (!rc && with_layer) rc = each_case(&layer, err);
    for (int i = 0; i < MOEC_OP_COUNT; i++) moec_module_free(device, modules[i]);
    return rc;
}

void moec_verify_command(const moec_verify_row *row, const char *device, char *buf, size_t bytes) {
    char spec[MOEC_SPEC_BYTES], config[600] = "";
    moec_spec_print(row->spec, NULL, spec, sizeof spec);
    if (*row->config) snprintf(config, sizeof config, " --config '%s'", row->config);
    snprintf(buf, bytes, "moec verify %s -t %s --op %s --tokens %" PRId64 " --routing %s --seed %" PRIu64
             " --variant %d%s", spec, device, row->op, row->T, row->pattern ? row->pattern->text : "uniform",
             row->seed, row->variant, config);
}
