/* safetensors: read and write, float32 tensors only.
 *
 * Format: github.com/huggingface/safetensors, README "Format". Invariants kept on writing and
 * checked on reading: offsets are contiguous from 0 in file order and end at the file's end; each
 * tensor's length is its shape's product times 4; names are unique. Data begins at a multiple of 8. */
#include "safetensors.h"

#include "../../gen/gen.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

enum { MAX_HEADER = 1 << 30 };

/* ---- writing ---- */

static size_t print_tensor(char *text, size_t bytes, const st_tensor *t) {
    size_t n = (size_t)snprintf(text, bytes, ",\"%s\":{\"dtype\":\"F32\",\"shape\":[", t->name);
    for (int d = 0; d < t->rank; d++)
        n += (size_t)snprintf(text + n, bytes - n, "%s%" PRId64, d ? "," : "", t->shape[d]);
    n += (size_t)snprintf(text + n, bytes - n, "],\"data_offsets\":[%" PRIu64 ",%" PRIu64 "]}",
                          t->offset, t->offset + (uint64_t)t->count * 4);
    return n;
}

moec_status st_create(durable_file *file, const char *path, st_tensor *tensors, int64_t count,
                      char header_hash[33], moec_error *err) {
    enum { ROW = ST_NAME_BYTES + 160 };
    size_t room = (size_t)(count + 1) * ROW, used = 0;
    char *header = malloc(room);
    if (!header) return moec_fail(err, MOEC_E_NOMEM, "header of %s", path);
    used = (size_t)snprintf(header, room, "{\"__metadata__\":{\"format\":\"pt\"}");
    uint64_t offset = 0;
    for (int64_t i = 0; i < count; i++) {
        tensors[i].offset = offset;
        used += print_tensor(header + used, room - used, &tensors[i]);
        offset += (uint64_t)tensors[i].count * 4;
    }
    header[used++] = '}';
    while (used % 8) header[used++] = ' ';
    moec_hash_hex(header, used, header_hash);
    moec_status rc = durable_create(file, path, err);
    if (!rc) {
        uint64_t size = used;
        unsigned char le[8];
        for (int i = 0; i < 8; i++) le[i] = (unsigned char)(size >> (8 * i));
        durable_write(file, le, sizeof le);
        durable_write(file, header, used);
    }
    free(header);
    return rc;
}

/* ---- reading ---- */

static moec_status corrupt(const st_file *f, moec_error *err, const char *what, const char *name) {
    moec_fail(err, MOEC_E_CORRUPT, "%s: %s%s%s", f->path, what, name ? " " : "", name ? name : "");
    return moec_hint(err, MOEC_E_CORRUPT,
                     "the file is damaged or was not written by this program: use another checkpoint "
                     "(`moec ckpt RUN` lists them)");
}

static moec_status read_tensor(const st_file *f, const char *name, json_t *value, st_tensor *t,
                               moec_error *err) {
    json_t *shape = json_object_get(value, "shape"), *span = json_object_get(value, "data_offsets");
    const char *dtype = json_string_value(json_object_get(value, "dtype"));
    if (!dtype || strcmp(dtype, "F32")) return corrupt(f, err, "the dtype is not F32 in", name);
    if (!json_is_array(shape) || json_array_size(shape) > ST_MAX_RANK || json_array_size(span) != 2 ||
        strlen(name) >= ST_NAME_BYTES)
        return corrupt(f, err, "the header is malformed at", name);
    memset(t, 0, sizeof *t);
    snprintf(t->name, sizeof t->name, "%s", name);
    t->rank = (int)json_array_size(shape);
    t->count = 1;
    for (int d = 0; d < t->rank; d++) {
        t->shape[d] = json_integer_value(json_array_get(shape, (size_t)d));
        if (t->shape[d] < 0 || (t->shape[d] && t->count > INT64_MAX / 8 / t->shape[d]))
            return corrupt(f, err, "impossible shape of", name);
        t->count *= t->shape[d];
    }
    json_int_t from = json_integer_value(json_array_get(span, 0));
    json_int_t to = json_integer_value(json_array_get(span, 1));
    if (from < 0 || to < from || (uint64_t)to > f->bytes - f->data || to - from != t->count * 4)
        return corrupt(f, err, "offsets do not fit the shape or the file at", name);
    t->offset = (uint64_t)from;
    return MOEC_OK;
}

static int by_offset(const void *a, const void *b) {
    const st_tensor *x = a, *y = b;
    if (x->offset != y->offset) return x->offset < y->offset ? -1 : 1;
    return (x->count > y->count) - (x->count < y->count);
}

static int by_name(const void *a, const void *b) {
    return strcmp(((const st_tensor *)a)->name, ((const st_tensor *)b)->name);
}

static moec_status check_cover(st_file *f, moec_error *err) {
    uint64_t end = 0;
    qsort(f->tensors, (size_t)f->count, sizeof *f->tensors, by_offset);
    for (int64_t i = 0; i < f->count; i++) {
        if (f->tensors[i].offset != end)
            return corrupt(f, err, "data overlaps or has a hole at", f->tensors[i].name);
        end += (uint64_t)f->tensors[i].count * 4;
    }
    if (end != f->bytes - f->data) return corrupt(f, err, "the file is longer than its tensors", NULL);
    qsort(f->tensors, (size_t)f->count, sizeof *f->tensors, by_name);
    return MOEC_OK;
}

static moec_status read_header(st_file *f, json_t *root, moec_error *err) {
    f->tensors = calloc(json_object_size(root) + 1, sizeof *f->tensors);
    if (!f->tensors) return moec_fail(err, MOEC_E_NOMEM, "header of %s", f->path);
    const char *name;
    json_t *value;
    json_object_foreach(root, name, value) {
        if (!strcmp(name, "__metadata__")) continue;
        MOEC_TRY(read_tensor(f, name, value, &f->tensors[f->count], err));
        f->count++;
    }
    return check_cover(f, err);
}

static moec_status parse(st_file *f, moec_error *err) {
    uint64_t size = 0;
    if (f->bytes < 8) return corrupt(f, err, "shorter than its 8-byte header size", NULL);
    for (int i = 0; i < 8; i++) size |= (uint64_t)f->map[i] << (8 * i);
    if (size > MAX_HEADER || size > f->bytes - 8)
        return corrupt(f, err, "the header is said to be longer than the file (truncated?)", NULL);
    f->data = 8 + size;
    json_error_t why;
    json_t *root = json_loadb((const char *)f->map + 8, size, JSON_REJECT_DUPLICATES, &why);
    if (!json_is_object(root)) {
        json_decref(root);
        return corrupt(f, err, "the header is not JSON:", why.text);
    }
    moec_status rc = read_header(f, root, err);
    json_decref(root);
    return rc;
}

moec_status st_open(st_file *file, const char *path, moec_error *err) {
    memset(file, 0, sizeof *file);
    snprintf(file->path, sizeof file->path, "%s", path);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    struct stat st;
    if (fd < 0 || fstat(fd, &st)) {
        moec_status rc = moec_fail(err, MOEC_E_IO, "%s: %s", path, strerror(errno));
        if (fd >= 0) close(fd);
        return rc;
    }
    file->bytes = (uint64_t)st.st_size;
    void *map = file->bytes ? mmap(NULL, file->bytes, PROT_READ, MAP_PRIVATE, fd, 0) : NULL;
    close(fd);
    if (map == MAP_FAILED) return moec_fail(err, MOEC_E_IO, "%s: cannot map: %s", path, strerror(errno));
    file->map = map;
    moec_status rc = parse(file, err);
    if (rc) st_close(file);
    return rc;
}

void st_close(st_file *file) {
    if (file->map) munmap((void *)(uintptr_t)file->map, file->bytes);
    free(file->tensors);
    file->map = NULL;
    file->tensors = NULL;
    file->count = 0;
}

const st_tensor *st_find(const st_file *file, const char *name) {
    st_tensor key;
    snprintf(key.name, sizeof key.name, "%s", name);
    return file->count ? bsearch(&key, file->tensors, (size_t)file->count, sizeof key, by_name) : NULL;
}

const float *st_data(const st_file *file, const st_tensor *tensor) {
    return (const float *)(const void *)(file->map + file->data + tensor->offset);
}

void st_header_hash(const st_file *file, char hex[33]) {
    moec_hash_hex(file->map + 8, file->data - 8, hex);
}
