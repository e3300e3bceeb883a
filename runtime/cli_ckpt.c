/* moec ckpt: lists a run's checkpoints and checks every byte of them, or of one. */
#include "cli.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "json_text.h"
#include "train/ckpt.h"

enum { MOST = 4096 };

static json_t *describe(const char *path, const ckpt_summary *s, moec_status rc, const char *why) {
    if (rc) return json_pack("{s:o, s:b, s:o}", "path", moec_json_text(path), "sound", 0, "why", moec_json_text(why));
    return json_pack("{s:o, s:b, s:I, s:I, s:I, s:I, s:I}", "path", moec_json_text(path), "sound", 1, "step",
                     (json_int_t)s->state.step, "tokens", (json_int_t)s->state.tokens, "tensors",
                     (json_int_t)s->tensors, "parameters", (json_int_t)s->elements, "bytes",
                     (json_int_t)s->bytes);
}

static void print_line(const char *path, const ckpt_summary *s, moec_status rc, const char *why) {
    if (rc) printf("DAMAGED %s\n%s\n", path, why);
    else
        printf("sound   %s  step %" PRId64 ", %" PRId64 " tokens trained, %" PRId64 " tensors, %" PRId64
               " parameters, %.1f MB\n", path, s->state.step, s->state.tokens, s->tensors, s->elements,
               (double)s->bytes / 1e6);
}

static moec_status check(const cli_call *call, const char *path, json_t *list, moec_error *err) {
    ckpt_summary summary;
    moec_error why = {0};
    moec_status rc = ckpt_verify(path, &summary, &why);
    if (!call->json) print_line(path, &summary, rc, why.text);
    json_array_append_new(list, describe(path, &summary, rc, why.text));
    return rc ? moec_fail(err, rc, "%s", why.text) : MOEC_OK;
}

static bool is_checkpoint(const char *path) {
    char file[1200];
    struct stat st;
    snprintf(file, sizeof file, "%.1100s/state.json", path);
    return stat(file, &st) == 0;
}

/* All checkpoints are looked at; the first bad one decides the exit code. */
static moec_status check_run(const cli_call *call, const char *run, json_t *list, moec_error *err) {
    int64_t *steps = malloc(MOST * sizeof *steps);
    if (!steps) return moec_fail(err, MOEC_E_NOMEM, "list of checkpoints");
    int n = ckpt_list(run, steps, MOST);
    moec_status rc = MOEC_OK;
    for (int i = 0; i < n; i++) {
        char path[1024];
        ckpt_path(run, steps[i], path);
        moec_status one = check(call, path, list, rc ? NULL : err);
        if (!rc) rc = one;
    }
    free(steps);
    if (n) return rc;
    moec_fail(err, MOEC_E_IO, "%s holds no complete checkpoint", run);
    return moec_hint(err, MOEC_E_IO, "give a run's folder (train.run) or one of its step-N folders");
}

static moec_status run(cli_call *call, moec_error *err) {
    if (call->operand_count != 1) return cli_usage(call, err, "one run or checkpoint is needed");
    json_t *list = json_array();
    const char *path = call->operands[0];
    moec_status rc = is_checkpoint(path) ? check(call, path, list, err) : check_run(call, path, list, err);
    if (call->json && json_array_size(list)) cli_print_json(json_incref(list));
    json_decref(list);
    return rc;
}

const cli_verb cli_ckpt_verb = {
    .name = "ckpt",
    .summary = "list and check the checkpoints of a run",
    .operands = "RUN|CHECKPOINT",
    .common = "",
    .examples = {"moec ckpt runs/demo", "moec ckpt runs/demo/checkpoints/step-000000400 --json", NULL},
    .run = run,
};
