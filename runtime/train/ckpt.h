/* ckpt: checkpoints of a run (ckpt.c, ckpt_load.c). Format: docs/checkpoint.md.
 *
 *   RUN/checkpoints/step-000000100/   one complete checkpoint; its name appears by one rename
 *       model.safetensors             float32 master weights under Hugging Face names
 *       optimizer.safetensors         moments: m.NAME and v.NAME
 *       config.json                   the architecture in Hugging Face's words
 *       state.json                    step, data cursor, seed, data, settings, a hash of every tensor
 *       COMPLETE                      hash of state.json
 *   RUN/checkpoints/latest            name of the last one saved */
#ifndef MOEC_TRAIN_CKPT_H
#define MOEC_TRAIN_CKPT_H

#include "safetensors.h"

/* The data that a run is trained on, and how it is cut. hash "" and seq 0 are not known: a checkpoint from
 * before they were recorded. */
typedef struct ckpt_data {
    char path[512];      /* data.path: for people */
    int64_t bytes;       /* of its files together */
    char hash[33];       /* source_identity */
    int64_t seq;         /* tokens of a window */
    int64_t train_tokens; /* the first ones; those behind them are held out */
} ckpt_data;

enum { CKPT_SETTINGS_BYTES = 2048 };

/* What besides tensors makes the next step the same as without the interruption. */
typedef struct ckpt_state {
    int64_t step;        /* optimizer steps done */
    int64_t cursor;      /* training windows drawn: the whole state of the data order */
    int64_t seed;        /* of data order; the generator is a function of (seed, cursor) */
    int64_t tokens;      /* trained on so far */
    char settings[CKPT_SETTINGS_BYTES]; /* config_model_settings of the run that wrote it; "" is not known */
    ckpt_data data;
} ckpt_state;

typedef enum { CKPT_WEIGHT, CKPT_M, CKPT_V } ckpt_kind;

/* Where tensors come from and go to: `list` of `count`; the first `trained` have moments. */
typedef struct ckpt_tensors {
    const st_tensor *list;
    int64_t count, trained;
    /* Copies tensor `index` to (fetch) or from (store) `data`. */
    moec_status (*fetch)(void *user, ckpt_kind kind, int64_t index, float *data, moec_error *err);
    moec_status (*store)(void *user, ckpt_kind kind, int64_t index, const float *data, moec_error *err);
    void *user;
} ckpt_tensors;

/* Writes RUN/checkpoints/step-N and then removes all but the newest `keep`. A failure or a kill at
 * any moment leaves earlier checkpoints as they were. path[1024] receives the folder. */
moec_status ckpt_save(const char *run, const ckpt_state *state, const ckpt_tensors *tensors,
                      const char *config_json, int keep, char path[1024], moec_error *err);

/* Newest complete checkpoint of a run; found = 0 when there is none. Leftovers of killed saves are
 * not looked at (ckpt_clean removes them). */
moec_status ckpt_newest(const char *run, char path[1024], int *found, moec_error *err);
void ckpt_clean(const char *run);
/* Removes every checkpoint of a run. */
void ckpt_remove_all(const char *run);
/* Steps of the complete checkpoints, rising; at most `room`. Returns how many there are. */
int ckpt_list(const char *run, int64_t *steps, int room);
void ckpt_path(const char *run, int64_t step, char path[1024]);

/* Verifies everything, then stores every tensor. Nothing is stored unless all of it is sound. */
moec_status ckpt_load(const char *path, ckpt_state *state, const ckpt_tensors *tensors, moec_error *err);

/* Reads and checks a checkpoint without a model: every hash. For `moec ckpt`. */
typedef struct ckpt_summary {
    ckpt_state state;
    int64_t tensors, elements;
    uint64_t bytes;
} ckpt_summary;
moec_status ckpt_verify(const char *path, ckpt_summary *summary, moec_error *err);

#endif
