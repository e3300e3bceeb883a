/* report_log: log.jsonl to curves. A run that was resumed from step S repeats the steps after S: the
 * line that says so ("start") takes back what was recorded beyond it. Lines that are not JSON, which
 * a kill may leave, are counted and skipped. */
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "report.h"

moec_status curve_add(curve *c, double x, double y, moec_error *err) {
    if (!isfinite(y)) return MOEC_OK;
    if (c->count == c->room) {
        int room = c->room ? 2 * c->room : 256;
        double *nx = realloc(c->x, (size_t)room * sizeof *nx);
        if (nx) c->x = nx;
        double *ny = realloc(c->y, (size_t)room * sizeof *ny);
        if (ny) c->y = ny;
        if (!nx || !ny) return moec_fail(err, MOEC_E_NOMEM, "curve of the report");
        c->room = room;
    }
    c->x[c->count] = x;
    c->y[c->count++] = y;
    return MOEC_OK;
}

void curve_free(curve *c) {
    free(c->x);
    free(c->y);
    *c = (curve){0};
}

moec_status curve_smooth(const curve *source, int span, curve *out, moec_error *err) {
    double keep = span > 1 ? 1 - 2.0 / (span + 1) : 0, sum = 0, weight = 0;
    for (int i = 0; i < source->count; i++) {
        sum = keep * sum + (1 - keep) * source->y[i];
        weight = keep * weight + (1 - keep);
        MOEC_TRY(curve_add(out, source->x[i], sum / weight, err));
    }
    return MOEC_OK;
}

static void cut(curve *c, double step) {
    while (c->count && c->x[c->count - 1] > step) c->count--;
}

static double number(const json_t *event, const char *key) {
    const json_t *v = json_object_get(event, key);
    return json_is_number(v) ? json_number_value(v) : (double)NAN;
}

static double bits(double nats) { return nats / 0.69314718055994530942; }

static void copy_text(char *to, size_t bytes, const json_t *event, const char *key) {
    const char *s = json_string_value(json_object_get(event, key));
    snprintf(to, bytes, "%s", s ? s : "");
}

static moec_status on_start(run_log *r, const json_t *e, moec_error *err) {
    double step = number(e, "step");
    curve *all[] = {&r->loss, &r->held_out, &r->lr, &r->norm, &r->tokens_s, &r->tflops, &r->balance,
                    &r->dropped};
    (void)err;
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) cut(all[i], step);
    while (r->map_count && r->maps[r->map_count - 1].step > step) free(r->maps[--r->map_count].share);
    r->unigram_bits = number(e, "unigram_bits");
    r->parameters = number(e, "parameters");
    r->active = number(e, "active");
    copy_text(r->target, sizeof r->target, e, "target");
    copy_text(r->version, sizeof r->version, e, "version");
    json_decref(r->settings);
    r->settings = json_incref(json_object_get(e, "settings"));
    return MOEC_OK;
}

static moec_status add_map(run_log *r, double step, const json_t *rows, moec_error *err) {
    size_t layers = json_array_size(rows), experts = json_array_size(json_array_get(rows, 0));
    if (!layers || !experts || layers > 65536 || experts > 65536) return MOEC_OK;
    if (r->map_count == r->map_room) {
        int room = r->map_room ? 2 * r->map_room : 64;
        load_map *grown = realloc(r->maps, (size_t)room * sizeof *grown);
        if (!grown) return moec_fail(err, MOEC_E_NOMEM, "load map");
        r->maps = grown;
        r->map_room = room;
    }
    float *share = calloc(layers * experts, sizeof *share);
    if (!share) return moec_fail(err, MOEC_E_NOMEM, "load map");
    for (size_t l = 0; l < layers; l++)
        for (size_t x = 0; x < experts; x++)
            share[l * experts + x] =
                (float)json_number_value(json_array_get(json_array_get(rows, l), x));
    r->maps[r->map_count++] = (load_map){step, (int)layers, (int)experts, share};
    return MOEC_OK;
}

static moec_status on_step(run_log *r, const json_t *e, moec_error *err) {
    double step = number(e, "step");
    MOEC_TRY(curve_add(&r->loss, step, bits(number(e, "loss")), err));
    MOEC_TRY(curve_add(&r->lr, step, number(e, "lr"), err));
    MOEC_TRY(curve_add(&r->norm, step, number(e, "grad_norm"), err));
    MOEC_TRY(curve_add(&r->tokens_s, step, number(e, "tokens_s"), err));
    MOEC_TRY(curve_add(&r->tflops, step, number(e, "tflops"), err));
    MOEC_TRY(curve_add(&r->balance, step, number(e, "load"), err));
    MOEC_TRY(curve_add(&r->dropped, step, number(e, "dropped"), err));
    r->tokens = number(e, "tokens");
    const json_t *loads = json_object_get(e, "loads");
    return loads ? add_map(r, step, loads, err) : MOEC_OK;
}

static moec_status on_eval(run_log *r, const json_t *e, moec_error *err) {
    cut(&r->held_out, number(e, "step") - 1);
    return curve_add(&r->held_out, number(e, "step"), number(e, "bits"), err);
}

static moec_status on_sample(run_log *r, const json_t *e, moec_error *err) {
    const char *prompt = json_string_value(json_object_get(e, "prompt"));
    const char *text = json_string_value(json_object_get(e, "text"));
    free(r->prompt);
    free(r->sample);
    r->prompt = strdup(prompt ? prompt : "");
    r->sample = strdup(text ? text : "");
    return r->prompt && r->sample ? MOEC_OK : moec_fail(err, MOEC_E_NOMEM, "sample");
}

static moec_status on_end(run_log *r, const json_t *e, moec_error *err) {
    (void)err;
    r->seconds += number(e, "seconds");
    r->ended = true;
    return MOEC_OK;
}

static const struct { const char *event; moec_status (*take)(run_log *, const json_t *, moec_error *); } takers[] = {
    {"start", on_start}, {"step", on_step}, {"eval", on_eval}, {"sample", on_sample}, {"end", on_end},
};

static moec_status take_line(run_log *r, const char *line, size_t bytes, moec_error *err) {
    json_t *e = json_loadb(line, bytes, 0, NULL);
    const char *name = json_string_value(json_object_get(e, "event"));
    moec_status rc = MOEC_OK;
    if (!name) r->skipped++;
    for (size_t i = 0; name && i < sizeof takers / sizeof *takers; i++)
        if (!strcmp(name, takers[i].event)) rc = takers[i].take(r, e, err);
    json_decref(e);
    return rc;
}

moec_status run_log_read(const char *run, run_log *log, moec_error *err) {
    char path[1100], *line = NULL;
    size_t room = 0;
    memset(log, 0, sizeof *log);
    snprintf(path, sizeof path, "%.1000s/log.jsonl", run);
    FILE *f = fopen(path, "r");
    if (!f) {
        moec_fail(err, MOEC_E_IO, "log %s: %s", path, strerror(errno));
        return moec_hint(err, MOEC_E_IO, "give the folder of a run: the train.run of its config");
    }
    moec_status rc = MOEC_OK;
    for (ssize_t n; !rc && (n = getline(&line, &room, f)) > 0;) rc = take_line(log, line, (size_t)n, err);
    free(line);
    fclose(f);
    if (!rc && !log->loss.count) {
        moec_fail(err, MOEC_E_CORRUPT, "log %s has no step yet", path);
        rc = moec_hint(err, MOEC_E_CORRUPT, "wait for the first line of the run, or give another folder");
    }
    if (rc) run_log_free(log);
    return rc;
}

void run_log_free(run_log *log) {
    curve *all[] = {&log->loss, &log->held_out, &log->lr, &log->norm, &log->tokens_s, &log->tflops,
                    &log->balance, &log->dropped};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) curve_free(all[i]);
    for (int i = 0; i < log->map_count; i++) free(log->maps[i].share);
    free(log->maps);
    free(log->prompt);
    free(log->sample);
    json_decref(log->settings);
    memset(log, 0, sizeof *log);
}
