/* ckpt_load: reading. COMPLETE vouches for state.json, state.json for every header and tensor, and
 * the model's own list for names and shapes. All of it is checked before the first tensor is handed
 * out, so a damaged or foreign checkpoint leaves the model untouched; the error names the file and
 * the tensor. */
#include "ckpt.h"

#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "../../gen/gen.h"

typedef struct reader {
    const char *path;
    json_t *state;
    st_file model, optimizer;
    moec_error *err;
} reader;

static moec_status damaged(const reader *r, const char *file, const char *what, const char *name) {
    moec_fail(r->err, MOEC_E_CORRUPT, "checkpoint %s/%s: %s%s%s", r->path, file, what, name ? " " : "",
              name ? name : "");
    return moec_hint(r->err, MOEC_E_CORRUPT,
                     "do not train on from it: `moec ckpt RUN` lists and checks the others, "
                     "`moec train ... --from PATH` goes on from one of them");
}

static char *read_small(const char *folder, const char *name, size_t *bytes) {
    char path[1400];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *f = fopen(path, "rb");
    if (!f) return NULL;
    long size = fseek(f, 0, SEEK_END) ? -1 : ftell(f);
    char *text = size >= 0 ? malloc((size_t)size + 1) : NULL;
    rewind(f);
    *bytes = text ? fread(text, 1, (size_t)size, f) : 0;
    if (text) text[*bytes] = 0;
    fclose(f);
    return text;
}

static moec_status read_state(reader *r) {
    size_t n = 0, m = 0;
    char *text = read_small(r->path, "state.json", &n), *seal = read_small(r->path, "COMPLETE", &m);
    char hex[33] = "";
    moec_status rc = MOEC_OK;
    if (text) moec_hash_hex(text, n, hex);
    if (!text || !seal) {
        moec_fail(r->err, MOEC_E_IO, "%s is not a complete checkpoint: state.json or COMPLETE is missing",
                  r->path);
        rc = moec_hint(r->err, MOEC_E_IO, "give a folder named step-N; `moec ckpt RUN` lists them");
    } else if (m < 32 || strncmp(seal, hex, 32))
        rc = damaged(r, "state.json", "its content does not have the hash in COMPLETE", NULL);
    if (!rc) r->state = json_loadb(text, n, 0, NULL);
    if (!rc && !json_is_object(r->state)) rc = damaged(r, "state.json", "not JSON", NULL);
    if (!rc && json_integer_value(json_object_get(r->state, "format")) != 1)
        rc = damaged(r, "state.json", "written in a format that this version does not know", NULL);
    free(text);
    free(seal);
    return rc;
}

static moec_status check_file(reader *r, st_file *file, const char *name) {
    char path[1400], hex[33];
    snprintf(path, sizeof path, "%s/%s", r->path, name);
    MOEC_TRY(st_open(file, path, r->err));
    json_t *entry = json_object_get(json_object_get(r->state, "files"), name);
    json_t *hashes = json_object_get(entry, "tensors");
    const char *header = json_string_value(json_object_get(entry, "header"));
    st_header_hash(file, hex);
    if (!header || strcmp(header, hex)) return damaged(r, name, "the header has a flipped bit", NULL);
    if ((int64_t)json_object_size(hashes) != file->count)
        return damaged(r, name, "the number of tensors is not the one saved", NULL);
    for (int64_t i = 0; i < file->count; i++) {
        const st_tensor *t = &file->tensors[i];
        const char *want = json_string_value(json_object_get(hashes, t->name));
        moec_hash_hex(st_data(file, t), (size_t)t->count * 4, hex);
        if (!want || strcmp(want, hex))
            return damaged(r, name, "wrong checksum (a flipped bit or a partial copy) in tensor", t->name);
    }
    return MOEC_OK;
}

static void get_data(const json_t *row, ckpt_data *data) {
    const char *path = json_string_value(json_object_get(row, "path"));
    const char *hash = json_string_value(json_object_get(row, "hash"));
    snprintf(data->path, sizeof data->path, "%s", path ? path : "");
    snprintf(data->hash, sizeof data->hash, "%s", hash ? hash : "");
    data->bytes = json_integer_value(json_object_get(row, "bytes"));
    data->seq = json_integer_value(json_object_get(row, "seq"));
    data->train_tokens = json_integer_value(json_object_get(row, "train_tokens"));
}

static void get_state(const reader *r, ckpt_state *s) {
    memset(s, 0, sizeof *s);
    s->step = json_integer_value(json_object_get(r->state, "step"));
    s->cursor = json_integer_value(json_object_get(r->state, "cursor"));
    s->seed = json_integer_value(json_object_get(r->state, "seed"));
    s->tokens = json_integer_value(json_object_get(r->state, "tokens"));
    const char *settings = json_string_value(json_object_get(r->state, "settings"));
    snprintf(s->settings, sizeof s->settings, "%s", settings ? settings : "");
    get_data(json_object_get(r->state, "data"), &s->data);
}

static moec_status open_all(reader *r) {
    MOEC_TRY(read_state(r));
    MOEC_TRY(check_file(r, &r->model, "model.safetensors"));
    return check_file(r, &r->optimizer, "optimizer.safetensors");
}

static void close_all(reader *r) {
    st_close(&r->model);
    st_close(&r->optimizer);
    json_decref(r->state);
}

/* ---- against the model ---- */

static void print_shape(const st_tensor *t, char text[96]) {
    int n = snprintf(text, 96, "[");
    for (int d = 0; d < t->rank; d++)
        n += snprintf(text + n, (size_t)(96 - n), "%s%" PRId64, d ? ", " : "", t->shape[d]);
    snprintf(text + n, (size_t)(96 - n), "]");
}

static moec_status other_model(const reader *r, const char *what) {
    moec_fail(r->err, MOEC_E_CORRUPT, "checkpoint %s is of another model: %s", r->path, what);
    return moec_hint(r->err, MOEC_E_CORRUPT,
                     "train with the config that wrote it, or start anew in another train.run");
}

static moec_status match(const reader *r, const st_file *file, const char *name, const st_tensor *want) {
    char what[512], have[96], need[96];
    const st_tensor *t = st_find(file, name);
    if (!t) {
        snprintf(what, sizeof what, "it has no tensor %s", name);
        return other_model(r, what);
    }
    if (t->rank == want->rank && !memcmp(t->shape, want->shape, sizeof t->shape)) return MOEC_OK;
    print_shape(t, have);
    print_shape(want, need);
    snprintf(what, sizeof what, "%s has shape %s, the config asks for %s", name, have, need);
    return other_model(r, what);
}

static void moment_name(char name[ST_NAME_BYTES], char kind, const st_tensor *t) {
    snprintf(name, ST_NAME_BYTES, "%c.%.*s", kind, ST_NAME_BYTES - 3, t->name);
}

static moec_status match_all(const reader *r, const ckpt_tensors *tensors) {
    char name[ST_NAME_BYTES], what[200];
    for (int64_t i = 0; i < tensors->count; i++) {
        const st_tensor *t = &tensors->list[i];
        MOEC_TRY(match(r, &r->model, t->name, t));
        for (int k = 0; k < 2 && i < tensors->trained; k++) {
            moment_name(name, "mv"[k], t);
            MOEC_TRY(match(r, &r->optimizer, name, t));
        }
    }
    if (r->model.count == tensors->count && r->optimizer.count == 2 * tensors->trained) return MOEC_OK;
    snprintf(what, sizeof what, "it has %" PRId64 " tensors, the config asks for %" PRId64,
             r->model.count, tensors->count);
    return other_model(r, what);
}

static moec_status store_all(const reader *r, const ckpt_tensors *tensors) {
    char name[ST_NAME_BYTES];
    for (int64_t i = 0; i < tensors->count; i++) {
        const st_tensor *t = &tensors->list[i];
        MOEC_TRY(tensors->store(tensors->user, CKPT_WEIGHT, i,
                                st_data(&r->model, st_find(&r->model, t->name)), r->err));
        for (int k = 0; k < 2 && i < tensors->trained; k++) {
            moment_name(name, "mv"[k], t);
            MOEC_TRY(tensors->store(tensors->user, k ? CKPT_V : CKPT_M, i,
                                    st_data(&r->optimizer, st_find(&r->optimizer, name)), r->err));
        }
    }
    return MOEC_OK;
}

moec_status ckpt_load(const char *path, ckpt_state *state, const ckpt_tensors *tensors,
                      moec_error *err) {
    reader r = {.path = path, .err = err};
    moec_status rc = open_all(&r);
    if (!rc) rc = match_all(&r, tensors);
    if (!rc) rc = store_all(&r, tensors);
    if (!rc) get_state(&r, state);
    close_all(&r);
    return rc;
}

moec_status ckpt_verify(const char *path, ckpt_summary *summary, moec_error *err) {
    reader r = {.path = path, .err = err};
    moec_status rc = open_all(&r);
    if (!rc) {
        memset(summary, 0, sizeof *summary);
        get_state(&r, &summary->state);
        summary->tensors = r.model.count;
        for (int64_t i = 0; i < r.model.count; i++) summary->elements += r.model.tensors[i].count;
        summary->bytes = r.model.bytes + r.optimizer.bytes;
    }
    close_all(&r);
    return rc;
}
