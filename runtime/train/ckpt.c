/* ckpt: saving. Everything is written into a hidden folder and fsynced; one rename publishes it.
 *
 * Order: tensors, config.json, state.json (with the hashes of what came before), COMPLETE (hash of
 * state.json), fsync of the folder, rename to step-N, fsync of the parent, `latest`, and only then
 * are older checkpoints removed. So at every instant every step-N folder is complete, and `latest`
 * names one of the last two.
 * Tensors pass one at a time through one host buffer. */
#include "ckpt.h"

#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "../../gen/gen.h"
#include "../json_text.h"

#define TEMPORARY ".saving-"

static void folder_of(const char *run, char folder[900]) { snprintf(folder, 900, "%s/checkpoints", run); }

void ckpt_path(const char *run, int64_t step, char path[1024]) {
    snprintf(path, 1024, "%.880s/checkpoints/step-%09" PRId64, run, step);
}

/* ---- one file of tensors ---- */

typedef struct writer {
    const ckpt_tensors *tensors;
    float *buffer;      /* of the largest tensor */
    FILE *state;        /* state.json as it grows, in memory */
    const char *folder;
    moec_error *err;
} writer;

/* tensors[i] of `list` is number source[i] of the caller's, of this kind. */
typedef struct part { ckpt_kind kind; int64_t index; } part;

static moec_status write_data(writer *w, durable_file *file, const st_tensor *list, const part *parts,
                              int64_t count) {
    for (int64_t i = 0; i < count; i++) {
        char hex[33];
        size_t bytes = (size_t)list[i].count * 4;
        MOEC_TRY(w->tensors->fetch(w->tensors->user, parts[i].kind, parts[i].index, w->buffer, w->err));
        durable_write(file, w->buffer, bytes);
        moec_hash_hex(w->buffer, bytes, hex);
        fprintf(w->state, "%s\n      \"%s\": \"%s\"", i ? "," : "", list[i].name, hex);
    }
    return MOEC_OK;
}

static moec_status write_file(writer *w, const char *name, st_tensor *list, const part *parts,
                              int64_t count) {
    char path[1400], header[33];
    durable_file file;
    snprintf(path, sizeof path, "%s/%s", w->folder, name);
    MOEC_TRY(st_create(&file, path, list, count, header, w->err));
    fprintf(w->state, "    \"%s\": {\"header\": \"%s\", \"tensors\": {", name, header);
    moec_status rc = write_data(w, &file, list, parts, count);
    fprintf(w->state, "}}");
    moec_status closed = durable_close(&file, rc ? NULL : w->err);
    return rc ? rc : closed;
}

static moec_status write_model(writer *w) {
    int64_t n = w->tensors->count;
    st_tensor *list = malloc((size_t)(n + 1) * sizeof *list);
    part *parts = malloc((size_t)(n + 1) * sizeof *parts);
    moec_status rc = list && parts ? MOEC_OK : moec_fail(w->err, MOEC_E_NOMEM, "checkpoint");
    for (int64_t i = 0; i < n && !rc; i++) {
        list[i] = w->tensors->list[i];
        parts[i] = (part){CKPT_WEIGHT, i};
    }
    if (!rc) rc = write_file(w, "model.safetensors", list, parts, n);
    free(list);
    free(parts);
    return rc;
}

static moec_status write_moments(writer *w) {
    int64_t n = w->tensors->trained;
    st_tensor *list = malloc((size_t)(2 * n + 1) * sizeof *list);
    part *parts = malloc((size_t)(2 * n + 1) * sizeof *parts);
    moec_status rc = list && parts ? MOEC_OK : moec_fail(w->err, MOEC_E_NOMEM, "checkpoint");
    for (int64_t i = 0; i < 2 * n && !rc; i++) {
        bool first = i < n;
        const st_tensor *source = &w->tensors->list[first ? i : i - n];
        list[i] = *source;
        snprintf(list[i].name, sizeof list[i].name, "%c.%.*s", first ? 'm' : 'v', ST_NAME_BYTES - 3,
                 source->name);
        parts[i] = (part){first ? CKPT_M : CKPT_V, first ? i : i - n};
    }
    if (!rc) rc = write_file(w, "optimizer.safetensors", list, parts, 2 * n);
    free(list);
    free(parts);
    return rc;
}

static moec_status write_text(const writer *w, const char *name, const void *data, size_t bytes) {
    char path[1400];
    durable_file file;
    snprintf(path, sizeof path, "%s/%s", w->folder, name);
    MOEC_TRY(durable_create(&file, path, w->err));
    durable_write(&file, data, bytes);
    return durable_close(&file, w->err);
}

static void write_data_row(const writer *w, const ckpt_data *data) {
    json_t *path = moec_json_text(data->path);
    char *quoted = json_dumps(path, JSON_ENCODE_ANY);
    if (data->hash[0])
        fprintf(w->state, "  \"data\": {\"path\": %s, \"bytes\": %" PRId64 ", \"hash\": \"%s\", \"seq\": %" PRId64
                          ", \"train_tokens\": %" PRId64 "},\n",
                quoted ? quoted : "null", data->bytes, data->hash, data->seq, data->train_tokens);
    free(quoted);
    json_decref(path);
}

static moec_status write_all(writer *w, const ckpt_state *state, const char *config_json, char **text,
                             size_t *bytes) {
    fprintf(w->state, "{\n  \"format\": 1,\n  \"step\": %" PRId64 ",\n  \"cursor\": %" PRId64
                      ",\n  \"seed\": %" PRId64 ",\n  \"tokens\": %" PRId64
                      ",\n  \"settings\": \"%s\",\n",
            state->step, state->cursor, state->seed, state->tokens, state->settings);
    write_data_row(w, &state->data);
    fprintf(w->state, "  \"files\": {\n");
    MOEC_TRY(write_model(w));
    fprintf(w->state, ",\n");
    MOEC_TRY(write_moments(w));
    fprintf(w->state, "\n  }\n}\n");
    MOEC_TRY(write_text(w, "config.json", config_json, strlen(config_json)));
    if (fflush(w->state) || ferror(w->state))
        return moec_fail(w->err, MOEC_E_NOMEM, "state of the checkpoint");
    char hex[34];
    moec_hash_hex(*text, *bytes, hex);
    MOEC_TRY(write_text(w, "state.json", *text, *bytes));
    hex[32] = '\n';
    MOEC_TRY(write_text(w, "COMPLETE", hex, 33));
    return durable_sync_dir(w->folder, w->err);
}

static moec_status write_folder(const char *folder, const ckpt_state *state, const ckpt_tensors *tensors,
                                const char *config_json, moec_error *err) {
    int64_t largest = 1;
    for (int64_t i = 0; i < tensors->count; i++)
        if (tensors->list[i].count > largest) largest = tensors->list[i].count;
    char *text = NULL;
    size_t bytes = 0;
    writer w = {.tensors = tensors, .folder = folder, .err = err,
                .buffer = malloc((size_t)largest * 4), .state = open_memstream(&text, &bytes)};
    moec_status rc = w.buffer && w.state ? write_all(&w, state, config_json, &text, &bytes)
                                         : moec_fail(err, MOEC_E_NOMEM, "checkpoint buffer");
    if (w.state) fclose(w.state);
    free(text);
    free(w.buffer);
    return rc;
}

/* ---- publishing and keeping ---- */

/* A step that is already there (a run that went back and came here again) moves aside first. */
static moec_status publish(const char *parent, const char *temporary, const char *path, moec_error *err) {
    char old[1100];
    snprintf(old, sizeof old, "%s/%sreplaced-%ld", parent, TEMPORARY, (long)getpid());
    bool replaced = rename(path, old) == 0;
    moec_status rc = durable_rename(temporary, path, parent, err);
    if (rc && replaced) rename(old, path);
    if (!rc && replaced) durable_remove_dir(old);
    return rc;
}

/* Of the checkpoints up to the one just saved the last `keep` stay. Later ones, of a future that the
 * run left when it went back, are not this run's to remove and do not count. */
static void prune(const char *run, int64_t saved, int keep) {
    int64_t steps[1024];
    char path[1024];
    int n = ckpt_list(run, steps, 1024);
    while (n > 0 && steps[n - 1] > saved) n--;
    for (int i = 0; i < n - keep; i++) {
        ckpt_path(run, steps[i], path);
        durable_remove_dir(path);
    }
}

moec_status ckpt_save(const char *run, const ckpt_state *state, const ckpt_tensors *tensors,
                      const char *config_json, int keep, char path[1024], moec_error *err) {
    char parent[900], temporary[1024], latest[1000];
    folder_of(run, parent);
    snprintf(temporary, sizeof temporary, "%s/%sstep-%" PRId64 "-%ld", parent, TEMPORARY, state->step,
             (long)getpid());
    ckpt_path(run, state->step, path);
    moec_status rc = durable_mkdir(temporary, err);
    if (!rc) rc = write_folder(temporary, state, tensors, config_json, err);
    if (!rc) rc = publish(parent, temporary, path, err);
    if (rc) {
        durable_remove_dir(temporary);
        return moec_context(err, rc, "checkpoint of step %" PRId64 " was not saved; earlier ones are intact",
                            state->step);
    }
    snprintf(latest, sizeof latest, "%s/latest", parent);
    char name[64];
    int n = snprintf(name, sizeof name, "step-%09" PRId64 "\n", state->step);
    rc = durable_replace(latest, parent, name, (size_t)n, err);
    if (!rc) prune(run, state->step, keep);
    return rc ? moec_context(err, rc, "checkpoint %s is complete, but not its pointer", path) : MOEC_OK;
}

/* ---- finding ---- */

static int by_step(const void *a, const void *b) {
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

static bool complete(const char *run, int64_t step) {
    char path[1024], file[1100];
    ckpt_path(run, step, path);
    snprintf(file, sizeof file, "%s/COMPLETE", path);
    return access(file, R_OK) == 0;
}

int ckpt_list(const char *run, int64_t *steps, int room) {
    char parent[900];
    folder_of(run, parent);
    DIR *dir = opendir(parent);
    int n = 0;
    for (struct dirent *e; dir && (e = readdir(dir));) {
        int64_t step;
        int used = 0;
        if (sscanf(e->d_name, "step-%" SCNd64 "%n", &step, &used) != 1 || e->d_name[used]) continue;
        if (n < room && complete(run, step)) steps[n++] = step;
    }
    if (dir) closedir(dir);
    qsort(steps, (size_t)n, sizeof *steps, by_step);
    return n;
}

/* The step that `latest` names, when it is there and whole; else -1. */
static int64_t pointed_at(const char *run) {
    char path[1000];
    int64_t step = -1;
    snprintf(path, sizeof path, "%.880s/checkpoints/latest", run);
    FILE *f = fopen(path, "re");
    if (!f) return -1;
    bool good = fscanf(f, "step-%" SCNd64, &step) == 1 && complete(run, step);
    fclose(f);
    return good ? step : -1;
}

/* The last one saved: after going back it has a lower number than those of the future left behind. */
moec_status ckpt_newest(const char *run, char path[1024], int *found, moec_error *err) {
    int64_t step = pointed_at(run);
    *found = step >= 0;
    if (*found) return ckpt_path(run, step, path), MOEC_OK;
    int64_t *steps = malloc(65536 * sizeof *steps);
    if (!steps) return moec_fail(err, MOEC_E_NOMEM, "list of checkpoints");
    int n = ckpt_list(run, steps, 65536);
    *found = n > 0;
    if (n) ckpt_path(run, steps[n - 1], path);
    free(steps);
    return MOEC_OK;
}

static void remove_matching(const char *run, const char *prefix) {
    char parent[900], path[1400];
    folder_of(run, parent);
    DIR *dir = opendir(parent);
    for (struct dirent *e; dir && (e = readdir(dir));) {
        if (strncmp(e->d_name, prefix, strlen(prefix))) continue;
        snprintf(path, sizeof path, "%s/%s", parent, e->d_name);
        durable_remove_dir(path);
    }
    if (dir) closedir(dir);
}

void ckpt_clean(const char *run) { remove_matching(run, TEMPORARY); }

void ckpt_remove_all(const char *run) {
    char latest[1000];
    remove_matching(run, TEMPORARY);
    remove_matching(run, "step-");
    snprintf(latest, sizeof latest, "%.880s/checkpoints/latest", run);
    unlink(latest);
}
