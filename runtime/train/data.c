/* data: windows of a token stream in a shuffled order that needs no state but a cursor.
 *
 * Each epoch permutes the windows with a keyed Feistel network and shifts all of them by an offset
 * below seq, so that epochs cut the text at different places. Nothing is stored: window number c of
 * a run is a function of (seed, c), which makes a resumed run see exactly the remaining data. */
#include "data.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "../../gen/gen.h"

uint64_t mix64(uint64_t x) {
    x += 0x9e3779b97f4a7c15u;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return x ^ (x >> 31);
}

/* Four rounds over 2*half bits, half chosen so that at most 4*count values are walked. */
int64_t shuffle_index(int64_t index, int64_t count, uint64_t key) {
    int half = 1;
    while (half < 31 && ((int64_t)1 << (2 * half)) < count) half++;
    uint64_t mask = ((uint64_t)1 << half) - 1, x = (uint64_t)index;
    do {
        uint64_t left = x >> half, right = x & mask;
        for (uint64_t round = 0; round < 4; round++) {
            uint64_t next = left ^ (mix64(key ^ mix64(right + (round << 56))) & mask);
            left = right;
            right = next;
        }
        x = left << half | right;
    } while (x >= (uint64_t)count);
    return (int64_t)x;
}

/* ---- text ---- */

moec_status text_open(token_source *source, const char *path, int64_t vocabulary, moec_error *err) {
    memset(source, 0, sizeof *source);
    snprintf(source->path, sizeof source->path, "%s", path);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    struct stat st;
    if (fd < 0 || fstat(fd, &st)) {
        moec_fail(err, MOEC_E_IO, "data file %s: %s", path, strerror(errno));
        if (fd >= 0) close(fd);
        return moec_hint(err, MOEC_E_IO, "set data.path to a readable text file");
    }
    if (!S_ISREG(st.st_mode) || st.st_size == 0) {
        close(fd);
        moec_fail(err, MOEC_E_IO, "data file %s is %s", path, st.st_size ? "not a plain file" : "empty");
        return moec_hint(err, MOEC_E_IO, "set data.path to a readable text file");
    }
    void *map = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
    close(fd);
    if (map == MAP_FAILED)
        return moec_fail(err, MOEC_E_IO, "data file %s: cannot map: %s", path, strerror(errno));
    source->map = map;
    source->map_bytes = (size_t)st.st_size;
    source->tokens = st.st_size;
    source->vocabulary = vocabulary;
    source->code = 1;
    return MOEC_OK;
}

void source_close(token_source *source) {
    if (source->map) munmap((void *)(uintptr_t)source->map, source->map_bytes);
    if (source->index) munmap((void *)(uintptr_t)source->index, source->index_bytes);
    free(source->starts);
    memset(source, 0, sizeof *source);
}

/* ---- identity ---- */

enum { PIECES = 64, PIECE_BYTES = 1 << 20 };

/* A line for one file: its size and the hash of each piece, 33 characters. */
static size_t describe(char *text, const unsigned char *map, size_t bytes) {
    bool large = bytes > (size_t)PIECES * PIECE_BYTES;
    size_t count = large ? PIECES : 1, piece = large ? PIECE_BYTES : bytes;
    size_t used = (size_t)sprintf(text, "%zu", bytes);
    for (size_t i = 0; i < count; i++) {
        size_t at = i + 1 == count ? bytes - piece : (bytes - piece) / (PIECES - 1) * i;
        text[used++] = ' ';
        moec_hash_hex(map + at, piece, text + used);
        used += 32;
    }
    text[used++] = '\n';
    return used;
}

void source_identity(const token_source *source, int64_t *bytes, char hash[33]) {
    char text[2 * (32 + 33 * PIECES)];
    size_t used = describe(text, source->map, source->map_bytes);
    if (source->index) used += describe(text + used, source->index, source->index_bytes);
    *bytes = (int64_t)(source->map_bytes + source->index_bytes);
    moec_hash_hex(text, used, hash);
}

/* ---- windows ---- */

static int64_t windows(int64_t tokens, int64_t seq) { return tokens > seq ? (tokens - 1) / seq : 0; }

static moec_status too_short(const dataset *set, moec_error *err) {
    moec_fail(err, MOEC_E_INVAL,
              "%s has %" PRId64 " tokens: too few for a window of seq=%" PRId64
              " in both the training part (%" PRId64 ") and the held-out part (%" PRId64 ")",
              set->source.path, set->source.tokens, set->seq, set->train_tokens, set->held_tokens);
    return moec_hint(err, MOEC_E_INVAL, "use more text, a smaller train.seq, or data.held_out=0");
}

moec_status dataset_open(dataset *set, const char *path, const char *format, int64_t vocabulary,
                         int64_t seq, double held_out, int64_t seed, moec_error *err) {
    memset(set, 0, sizeof *set);
    bool text = !strcmp(format, "text");
    MOEC_TRY(text ? text_open(&set->source, path, vocabulary, err)
                  : megatron_open(&set->source, path, vocabulary, err));
    set->seq = seq;
    set->seed = seed;
    set->held_tokens = (int64_t)((double)set->source.tokens * held_out);
    set->train_tokens = set->source.tokens - set->held_tokens;
    set->train_windows = windows(set->train_tokens, seq);
    if (set->train_windows > 1) set->train_windows--; /* room to shift the cuts */
    set->held_windows = windows(set->held_tokens, seq);
    if (set->train_windows > 0 && (held_out == 0 || set->held_windows > 0)) return MOEC_OK;
    moec_status rc = too_short(set, err);
    source_close(&set->source);
    return rc;
}

void dataset_close(dataset *set) { source_close(&set->source); }

static moec_status read_window(const dataset *set, int64_t at, int32_t *tokens, int32_t *targets,
                               moec_error *err) {
    MOEC_TRY(source_read(&set->source, at, set->seq, tokens, err));
    return source_read(&set->source, at + 1, set->seq, targets, err);
}

moec_status dataset_train(const dataset *set, int64_t cursor, int32_t *tokens, int32_t *targets,
                          moec_error *err) {
    int64_t epoch = cursor / set->train_windows, n = cursor % set->train_windows;
    uint64_t key = mix64(mix64((uint64_t)set->seed) + (uint64_t)epoch);
    int64_t room = set->train_tokens - set->train_windows * set->seq; /* at least 1 */
    if (room > set->seq) room = set->seq;
    int64_t shift = (int64_t)(mix64(key + 1) % (uint64_t)room);
    int64_t window = shuffle_index(n, set->train_windows, key);
    return read_window(set, window * set->seq + shift, tokens, targets, err);
}

moec_status dataset_held(const dataset *set, int64_t number, int32_t *tokens, int32_t *targets,
                         moec_error *err) {
    int64_t at = set->train_tokens + number % set->held_windows * set->seq;
    return read_window(set, at, tokens, targets, err);
}

moec_status dataset_unigram_bits(const dataset *set, double *bits, moec_error *err) {
    enum { CHUNK = 4096 };
    int32_t chunk[CHUNK];
    int64_t *count = calloc((size_t)set->source.vocabulary, sizeof *count);
    if (!count) return moec_fail(err, MOEC_E_NOMEM, "token counts");
    moec_status rc = MOEC_OK;
    for (int64_t at = 0; at < set->train_tokens && !rc; at += CHUNK) {
        int64_t n = set->train_tokens - at < CHUNK ? set->train_tokens - at : CHUNK;
        rc = source_read(&set->source, at, n, chunk, err);
        for (int64_t i = 0; i < n && !rc; i++) count[chunk[i]]++;
    }
    *bits = 0;
    for (int64_t v = 0; v < set->source.vocabulary; v++) {
        double p = (double)count[v] / (double)set->train_tokens;
        if (p > 0) *bits -= p * log2(p);
    }
    free(count);
    return rc;
}
