/* megatron: the indexed dataset of Megatron-LM, read through memory maps.
 *
 * path.idx, little-endian, without padding: "MMIDIDX\0\0", u64 version 1, u8 element code,
 * u64 sequences, u64 documents, i32 size[sequences] (tokens), i64 pointer[sequences] (bytes into
 * path.bin), i64 document[documents] (numbers of sequences). path.bin: the tokens, nothing else.
 * Source: Megatron-LM, megatron/core/datasets/indexed_dataset.py.
 *
 * The index is checked once when opened (sizes, pointers, file length), token ids when read. */
#include "data.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

enum { HEADER_BYTES = 9 + 8 + 1 + 8 + 8 };

/* Element codes, in the order of the format; 0 is none. */
static const struct { const char *name; int bytes; } elements[] = {
    {"", 0},      {"uint8", 1},   {"int8", 1},    {"int16", 2},  {"int32", 4},
    {"int64", 8}, {"float64", 8}, {"float32", 4}, {"uint16", 2},
};
enum { ELEMENTS = sizeof elements / sizeof *elements };

static moec_status malformed(moec_error *err, const char *path, const char *field, const char *what) {
    moec_fail(err, MOEC_E_CORRUPT, "%s: field '%s' %s", path, field, what);
    return moec_hint(err, MOEC_E_CORRUPT,
                     "is it a .bin/.idx pair from Megatron's preprocess_data.py, copied in full? "
                     "Write it again, or set data.format=text for plain text");
}

static uint64_t load(const unsigned char *at, int bytes) {
    uint64_t v = 0;
    for (int i = 0; i < bytes; i++) v |= (uint64_t)at[i] << (8 * i);
    return v;
}

static moec_status map_file(const char *path, const unsigned char **map, size_t *bytes,
                            moec_error *err) {
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    struct stat st;
    if (fd < 0 || fstat(fd, &st)) {
        moec_fail(err, MOEC_E_IO, "data file %s: %s", path, strerror(errno));
        if (fd >= 0) close(fd);
        return moec_hint(err, MOEC_E_IO, "data.path is the common part of NAME.bin and NAME.idx");
    }
    *bytes = (size_t)st.st_size;
    void *p = *bytes ? mmap(NULL, *bytes, PROT_READ, MAP_PRIVATE, fd, 0) : NULL;
    close(fd);
    if (p == MAP_FAILED) return moec_fail(err, MOEC_E_IO, "%s: cannot map: %s", path, strerror(errno));
    *map = p;
    return MOEC_OK;
}

/* The fields of the header, and that the arrays they announce are there. */
static moec_status check_header(token_source *s, const char *path, moec_error *err) {
    const unsigned char *p = s->index;
    if (s->index_bytes < HEADER_BYTES || memcmp(p, "MMIDIDX\0\0", 9))
        return malformed(err, path, "magic", "is not MMIDIDX: not an indexed dataset, or cut off");
    if (load(p + 9, 8) != 1) return malformed(err, path, "version", "is not 1");
    s->code = p[17];
    if (s->code < 1 || s->code >= ELEMENTS)
        return malformed(err, path, "dtype", "is not a code from 1 (uint8) to 8 (uint16)");
    uint64_t sequences = load(p + 18, 8), documents = load(p + 26, 8), room = s->index_bytes - HEADER_BYTES;
    if (sequences == 0 || sequences > room / 12)
        return malformed(err, path, "sequence count", "is 0 or larger than the file has room for");
    if (documents > (room - sequences * 12) / 8)
        return malformed(err, path, "document count", "is larger than the file has room for");
    s->sequences = (int64_t)sequences;
    return MOEC_OK;
}

static int64_t size_of(const token_source *s, int64_t i) {
    return (int32_t)load(s->index + HEADER_BYTES + 4 * (size_t)i, 4);
}

static int64_t pointer_of(const token_source *s, int64_t i) {
    return (int64_t)load(s->index + HEADER_BYTES + 4 * (size_t)s->sequences + 8 * (size_t)i, 8);
}

/* Every sequence lies in the .bin; counts tokens and notices whether they simply follow each other. */
static moec_status check_sequences(token_source *s, const char *idx, const char *bin, bool *gapless,
                                   moec_error *err) {
    char what[1400];
    int64_t width = elements[s->code].bytes, end = 0;
    *gapless = true;
    for (int64_t i = 0; i < s->sequences; i++) {
        int64_t n = size_of(s, i), at = pointer_of(s, i);
        snprintf(what, sizeof what, "of sequence %" PRId64 " is negative", i);
        if (n < 0) return malformed(err, idx, "size", what);
        if (at < 0 || at % width || (uint64_t)at > s->map_bytes ||
            (uint64_t)(n * width) > s->map_bytes - (uint64_t)at) {
            snprintf(what, sizeof what, "of sequence %" PRId64 " (byte %" PRId64 ", %" PRId64
                     " tokens of %s) is outside the %zu bytes of %s", i, at, n,
                     elements[s->code].name, s->map_bytes, bin);
            return malformed(err, idx, "pointer", what);
        }
        *gapless = *gapless && at == end;
        end = at + n * width;
        s->tokens += n;
    }
    return MOEC_OK;
}

static moec_status make_starts(token_source *s, moec_error *err) {
    s->starts = malloc((size_t)(s->sequences + 1) * sizeof *s->starts);
    if (!s->starts) return moec_fail(err, MOEC_E_NOMEM, "index of %s", s->path);
    int64_t total = 0;
    for (int64_t i = 0; i < s->sequences; i++) {
        s->starts[i] = total;
        total += size_of(s, i);
    }
    s->starts[s->sequences] = total;
    return MOEC_OK;
}

moec_status megatron_open(token_source *source, const char *path, int64_t vocabulary, moec_error *err) {
    char idx[1100], bin[1100];
    bool gapless = true;
    memset(source, 0, sizeof *source);
    snprintf(source->path, sizeof source->path, "%s", path);
    snprintf(idx, sizeof idx, "%s.idx", source->path);
    snprintf(bin, sizeof bin, "%s.bin", source->path);
    source->vocabulary = vocabulary;
    moec_status rc = map_file(idx, &source->index, &source->index_bytes, err);
    if (!rc) rc = map_file(bin, &source->map, &source->map_bytes, err);
    if (!rc) rc = check_header(source, idx, err);
    if (!rc) rc = check_sequences(source, idx, bin, &gapless, err);
    if (!rc && !gapless) rc = make_starts(source, err);
    if (rc) source_close(source);
    return rc;
}

/* ---- reading ---- */

/* One element as a token id; anything that is not a whole number becomes -1. */
static int64_t element(const token_source *s, size_t byte) {
    const unsigned char *p = s->map + byte;
    double d;
    float f;
    switch (s->code) {
    case 1: return p[0];
    case 2: return (int8_t)p[0];
    case 3: return (int16_t)load(p, 2);
    case 4: return (int32_t)load(p, 4);
    case 5: return (int64_t)load(p, 8);
    case 6: memcpy(&d, p, 8); break;
    case 7: memcpy(&f, p, 4); d = (double)f; break;
    default: return (int64_t)load(p, 2);
    }
    return d >= 0 && d < 1e15 && d == (double)(int64_t)d ? (int64_t)d : -1;
}

static moec_status bad_token(const token_source *s, int64_t position, int64_t id, moec_error *err) {
    moec_fail(err, MOEC_E_CORRUPT, "%s: token %" PRId64 " at position %" PRId64
              " is not in the vocabulary 0..%" PRId64, s->path, id, position, s->vocabulary - 1);
    return moec_hint(err, MOEC_E_CORRUPT,
                     "the data was made with another tokenizer: set model.V to its size, rounded up "
                     "to a multiple of 8");
}

/* Number of the sequence that holds token `at`. */
static int64_t sequence_at(const token_source *s, int64_t at) {
    int64_t low = 0, high = s->sequences; /* starts[low] <= at < starts[high] */
    while (high - low > 1) {
        int64_t mid = low + (high - low) / 2;
        if (s->starts[mid] <= at) low = mid;
        else high = mid;
    }
    return low;
}

moec_status source_read(const token_source *source, int64_t at, int64_t count, int32_t *out,
                        moec_error *err) {
    int64_t width = elements[source->code].bytes, sequence = 0;
    if (at < 0 || count < 0 || at + count > source->tokens)
        return moec_fail(err, MOEC_E_INVAL, "%s: tokens %" PRId64 " to %" PRId64 " of %" PRId64,
                         source->path, at, at + count, source->tokens);
    if (source->starts) sequence = sequence_at(source, at);
    for (int64_t i = 0; i < count; i++) {
        int64_t t = at + i, byte = t * width;
        if (source->starts) {
            while (source->starts[sequence + 1] <= t) sequence++;
            byte = pointer_of(source, sequence) + (t - source->starts[sequence]) * width;
        }
        int64_t id = element(source, (size_t)byte);
        if (id < 0 || id >= source->vocabulary) return bad_token(source, t, id, err);
        out[i] = (int32_t)id;
    }
    return MOEC_OK;
}
