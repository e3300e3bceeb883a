/* data: a stream of tokens, split into training and held-out windows (data.c, megatron.c). */
#ifndef MOEC_TRAIN_DATA_H
#define MOEC_TRAIN_DATA_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "../../gen/status.h"

/* Tokens of a memory-mapped dataset, in document order. */
typedef struct token_source {
    char path[1024];
    const unsigned char *map;   /* token data */
    size_t map_bytes;
    const unsigned char *index; /* megatron: the .idx */
    size_t index_bytes;
    int64_t tokens;             /* in all */
    int64_t vocabulary;         /* ids are below it */
    int code;                   /* megatron's element code; 1 (uint8) for text */
    int64_t sequences;          /* megatron */
    int64_t *starts;            /* token number of each sequence's begin, NULL when they follow
                                   each other without a gap */
} token_source;

/* Bytes of a text are tokens. */
moec_status text_open(token_source *source, const char *path, int64_t vocabulary, moec_error *err);
/* Megatron's indexed dataset: path.bin and path.idx. */
moec_status megatron_open(token_source *source, const char *path, int64_t vocabulary, moec_error *err);
void source_close(token_source *source);
/* What tells one dataset from another: its bytes on disk and a hash of them, 32 hex digits. The path is not
 * part of it. Files up to 64 MiB count whole; of a larger one its size and 64 pieces of 1 MiB, spread
 * evenly from its first byte to its last: a change between them at the same size is not seen. */
void source_identity(const token_source *source, int64_t *bytes, char hash[33]);
/* Tokens [at, at+count) into out. E_CORRUPT names the file and position of an id out of range. */
moec_status source_read(const token_source *source, int64_t at, int64_t count, int32_t *out,
                        moec_error *err);

/* A dataset cut into windows of seq+1 tokens (a window's last token is only a target). */
typedef struct dataset {
    token_source source;
    int64_t seq, seed;
    int64_t train_tokens, held_tokens; /* the held-out ones are the last of the stream */
    int64_t train_windows, held_windows;
} dataset;

moec_status dataset_open(dataset *set, const char *path, const char *format, int64_t vocabulary,
                         int64_t seq, double held_out, int64_t seed, moec_error *err);
void dataset_close(dataset *set);

/* Window number `cursor` of the shuffled, endless training order: a pure function of (seed, cursor),
 * every window once per epoch. tokens[seq], targets[seq]. */
moec_status dataset_train(const dataset *set, int64_t cursor, int32_t *tokens, int32_t *targets,
                          moec_error *err);
/* Held-out window `number`, modulo their count, in file order. */
moec_status dataset_held(const dataset *set, int64_t number, int32_t *tokens, int32_t *targets,
                         moec_error *err);
/* Entropy in bits of the training tokens taken one by one: what a model without context can reach. */
moec_status dataset_unigram_bits(const dataset *set, double *bits, moec_error *err);

/* Position of `index` in the keyed permutation of 0..count-1 (a Feistel network with cycle walking). */
int64_t shuffle_index(int64_t index, int64_t count, uint64_t key);
/* 64 well-mixed bits of a counter (splitmix64). */
uint64_t mix64(uint64_t x);

#endif
