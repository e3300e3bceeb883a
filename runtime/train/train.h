/* train: the loop. A run is a folder: log.jsonl, checkpoints/, kernels/, sample.txt, report.html. */
#ifndef MOEC_TRAIN_TRAIN_H
#define MOEC_TRAIN_TRAIN_H

#include <signal.h>

#include "data.h"
#include "model.h"

typedef enum {
    TRAIN_NEW,      /* an error when the folder already holds checkpoints */
    TRAIN_RESUME,   /* goes on from the newest checkpoint; starts when there is none */
    TRAIN_FRESH     /* removes what an earlier run left */
} train_mode;

/* What the caller may show after a step. */
typedef struct train_progress {
    int64_t step, steps;
    double loss, lr, grad_norm, tokens_s, tflops, load_ratio, ms;
    int64_t dropped;
    bool logged;            /* this step also became a line of the log */
} train_progress;

typedef struct train_options {
    train_mode mode;
    const char *from;                   /* TRAIN_RESUME: this checkpoint instead; NULL: the newest */
    const volatile sig_atomic_t *stop;  /* set by a signal: finish the step, save, return. May be NULL */
    /* Called from the training thread. `say` is one line of news (loaded, saved, held-out loss). */
    void (*progress)(void *user, const train_progress *progress);
    void (*say)(void *user, const char *text);
    void *user;
} train_options;

typedef struct train_result {
    int64_t steps;          /* done in all */
    double loss;            /* of the last step, nats per token */
    double held_out;        /* nats per token, NaN without a held-out part */
    double unigram_bits;    /* entropy of the training tokens one by one */
    double seconds;         /* in steps of this call */
    double tokens_s;        /* over them */
    bool stopped;           /* by options->stop */
    char checkpoint[1024];  /* the last complete one, "" when there is none */
    char *sample;           /* generated text, malloc'ed; NULL without */
    model_size size;
} train_result;

/* Trains as `config` says on `device`. E_NUMERIC when the loss or gradient is not finite: the weights
 * are as before that step and the last checkpoint is intact. E_IO when the last checkpoint could not
 * be saved; a failed save before that is reported through `say` and tried again at the next one. */
moec_status train_run(moec_device *device, const train_config *config, const train_options *options,
                      train_result *result, moec_error *err);

/* Continues `prompt` by `count` tokens (bytes): malloc'ed text of them. sample.c */
moec_status sample_text(model *m, const char *prompt, int64_t count, double temperature, int64_t seed,
                        char **text, moec_error *err);

/* Writes the source of every kernel that the device has loaded into `folder`. kernels_dump.c */
moec_status train_write_kernels(moec_device *device, const char *folder, int *count, moec_error *err);

#endif
