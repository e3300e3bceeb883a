/* train: draw, forward, backward, clip, update, log, evaluate, save.
 *
 * A step's outcome is a function of the checkpoint before it: the data order of (seed, cursor), the
 * learning rate of the step number, and kernels whose sums have a fixed order. So a resumed run
 * repeats the uninterrupted one bit for bit. Nothing is applied to the weights before loss and
 * gradient norm are known to be finite. */
#include "train.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <math.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "../json_text.h"
#include "resume.h"
#include "schedule.h"
#include "trainlog.h"

typedef struct loop {
    moec_device *device;
    const train_config *config;
    const train_options *options;
    train_result *result;
    dataset data;
    model *model;
    trainlog log;
    ckpt_state state;
    int32_t *tokens, *targets;  /* [batch * seq] */
    int64_t saved_step;         /* -1 when this state is not on disk */
    bool save_failed;           /* the latest attempt */
    int lock;                   /* descriptor of RUN/lock, held while the run lasts; -1: none */
    double mark, mark_flops;    /* since the last line of the log */
    int64_t mark_tokens;
    moec_error *err;
} loop;

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static void say(const loop *l, const char *format, ...) {
    char text[2048];
    va_list args;
    if (!l->options->say) return;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    l->options->say(l->options->user, text);
}

static double bits(double nats) { return nats / 0.69314718055994530942; }

/* ---- checkpoints ---- */

/* A failed save is news, not the end: the run goes on and tries again at the next one. */
static void save(loop *l) {
    moec_error why = {0};
    double begin = now();
    ckpt_tensors tensors = params_checkpoint(&l->model->params);
    char *json = params_config_json(l->config), path[1024];
    moec_status rc = json ? ckpt_save(l->config->run, &l->state, &tensors, json, (int)l->config->keep,
                                      path, &why)
                          : moec_fail(&why, MOEC_E_NOMEM, "config.json of the checkpoint");
    free(json);
    l->save_failed = rc != MOEC_OK;
    if (rc) {
        say(l, "%s", why.text);
        trainlog_write(&l->log, json_pack("{s:s, s:I, s:o}", "event", "save_failed", "step",
                                          (json_int_t)l->state.step, "why",
                                          moec_json_text(why.text)));
        moec_fail(l->err, rc, "%s", why.text);
        return;
    }
    l->saved_step = l->state.step;
    snprintf(l->result->checkpoint, sizeof l->result->checkpoint, "%s", path);
    say(l, "saved %s (%.0f ms)", path, (now() - begin) * 1e3);
    trainlog_write(&l->log, json_pack("{s:s, s:I, s:o, s:f}", "event", "save", "step",
                                      (json_int_t)l->state.step, "path", moec_json_text(path),
                                      "ms", (now() - begin) * 1e3));
}

/* Does this checkpoint lie among this run's? Either folder may be a link. */
static bool own_checkpoint(const loop *l, const char *path) {
    char list[600], parent[1100];
    struct stat run, of;
    if (!l->options->from) return true;
    snprintf(list, sizeof list, "%s/checkpoints", l->config->run);
    snprintf(parent, sizeof parent, "%.1080s/..", path);
    return !stat(list, &run) && !stat(parent, &of) && run.st_dev == of.st_dev && run.st_ino == of.st_ino;
}

/* A run has one dataset, one cut and one model: its log and its held-out loss are of them. What begins in a
 * new folder from another run's checkpoint may have its own. */
static moec_status check_same(const loop *l, const char *path, const ckpt_state *now) {
    char what[RESUME_BYTES];
    resume_difference(&l->state, now, what);
    if (!*what) return MOEC_OK;
    if (!own_checkpoint(l, path)) {
        say(l, "another run's checkpoint, which %s", what);
        return MOEC_OK;
    }
    moec_fail(l->err, MOEC_E_INVAL, "%s %s", path, what);
    return moec_hint(l->err, MOEC_E_INVAL, "go on with what it had, or begin a new run with what is given now: "
                                           "--from %s with another train.run", path);
}

static moec_status load(loop *l, const char *path) {
    ckpt_tensors tensors = params_checkpoint(&l->model->params);
    ckpt_state now = l->state;
    MOEC_TRY(ckpt_load(path, &l->state, &tensors, l->err));
    MOEC_TRY(check_same(l, path, &now));
    l->state.data = now.data;
    memcpy(l->state.settings, now.settings, sizeof now.settings);
    l->saved_step = l->state.step;
    l->data.seed = l->state.seed;
    snprintf(l->result->checkpoint, sizeof l->result->checkpoint, "%s", path);
    say(l, "resumed from %s: %" PRId64 " steps done", path, l->state.step);
    return MOEC_OK;
}

static moec_status exists(const loop *l, const char *path) {
    moec_fail(l->err, MOEC_E_INVAL, "the run %s already has a checkpoint: %s", l->config->run, path);
    return moec_hint(l->err, MOEC_E_INVAL,
                     "--resume goes on from it, --fresh starts over (and removes it), or give another "
                     "train.run");
}

static void remove_old(const train_config *c) {
    char path[600];
    ckpt_remove_all(c->run);
    snprintf(path, sizeof path, "%s/log.jsonl", c->run);
    unlink(path);
}

/* Initial weights, or those of a checkpoint. */
static moec_status initialise(loop *l) {
    const train_config *c = l->config;
    char path[1024];
    int found = 0;
    ckpt_clean(c->run);
    if (l->options->mode == TRAIN_RESUME && l->options->from) return load(l, l->options->from);
    MOEC_TRY(ckpt_newest(c->run, path, &found, l->err));
    if (found && l->options->mode == TRAIN_NEW) return exists(l, path);
    if (found && l->options->mode == TRAIN_RESUME) return load(l, path);
    if (l->options->mode == TRAIN_FRESH) remove_old(c);
    return params_init(&l->model->params, c, l->err);
}

/* One process trains in a run at a time: a job that was queued again while the first still lives is told
 * so. The lock ends with its process. Where the file system has no locks, nothing is checked. */
static moec_status lock_run(loop *l) {
    char path[600], host[64] = "?", holder[128] = "";
    snprintf(path, sizeof path, "%s/lock", l->config->run);
    l->lock = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
    if (l->lock < 0) return MOEC_OK; /* what cannot be written is said by the log and the checkpoints */
    if (flock(l->lock, LOCK_EX | LOCK_NB) && errno == EWOULDBLOCK) {
        ssize_t n = pread(l->lock, holder, sizeof holder - 1, 0);
        holder[n > 0 ? strcspn(holder, "\n") : 0] = 0;
        /* It has the lock a moment before it has written who it is. */
        moec_fail(l->err, MOEC_E_IO, "the run %s is being trained by another process%s%s", l->config->run,
                  *holder ? ": " : "", holder);
        return moec_hint(l->err, MOEC_E_IO, "wait for it or end it, or give another train.run");
    }
    gethostname(host, sizeof host - 1);
    int n = snprintf(holder, sizeof holder, "process %ld on %s\n", (long)getpid(), host);
    if (ftruncate(l->lock, 0) || pwrite(l->lock, holder, (size_t)n, 0) < 0) return MOEC_OK; /* a courtesy */
    return MOEC_OK;
}

/* ---- one step ---- */

static moec_status not_finite(loop *l, const char *what, double value) {
    char first[160] = "";
    int64_t step = l->state.step + 1, T = l->config->batch * l->config->seq;
    MOEC_TRY(model_find_nonfinite(l->model, T, first, l->err));
    moec_fail(l->err, MOEC_E_NUMERIC, "step %" PRId64 ": the %s is %g; the first tensor that is not finite: %s",
              step, what, value, first[0] ? first : "none (the sum itself overflowed)");
    trainlog_write(&l->log, json_pack("{s:s, s:I, s:s, s:s}", "event", "not_finite", "step",
                                      (json_int_t)step, "what", what, "first", first));
    if (l->result->checkpoint[0])
        return moec_hint(l->err, MOEC_E_NUMERIC,
                         "the checkpoint %s is intact: --resume with a lower train.lr, a longer "
                         "train.warmup or a smaller train.clip", l->result->checkpoint);
    return moec_hint(l->err, MOEC_E_NUMERIC, "start again with a lower train.lr, a longer train.warmup, a "
                                             "smaller train.clip, or model.dtype=f32");
}

static moec_status draw(loop *l) {
    int64_t seq = l->config->seq;
    for (int64_t b = 0; b < l->config->batch; b++)
        MOEC_TRY(dataset_train(&l->data, l->state.cursor++, l->tokens + b * seq, l->targets + b * seq,
                               l->err));
    return MOEC_OK;
}

static moec_status gradients(loop *l) {
    const train_config *c = l->config;
    for (int64_t n = 1; n <= c->accumulate; n++) {
        MOEC_TRY(draw(l));
        MOEC_TRY(model_micro_step(l->model, l->tokens, l->targets, c->batch * c->seq, c->seq, n,
                                  c->accumulate, l->err));
    }
    double loss = l->model->stats.loss;
    return isfinite(loss) ? MOEC_OK : not_finite(l, "loss", loss);
}

static moec_status take_step(loop *l, train_progress *p) {
    const train_config *c = l->config;
    MOEC_TRY(gradients(l));
    MOEC_TRY(model_grad_norm(l->model, &p->grad_norm, l->err));
    if (!isfinite(p->grad_norm)) return not_finite(l, "gradient norm", p->grad_norm);
    p->step = l->state.step + 1;
    p->lr = schedule_lr(p->step, c->warmup, c->steps, c->lr, c->min_lr);
    MOEC_TRY(model_update(l->model, p->step, p->lr, schedule_clip(p->grad_norm, c->clip), l->err));
    MOEC_TRY(model_balance(l->model, l->err));
    MOEC_TRY(moec_synchronize(l->device, NULL, l->err));
    p->loss = l->result->loss = l->model->stats.loss;
    p->dropped = l->model->stats.dropped;
    l->state.step = p->step;
    l->state.tokens += l->model->stats.tokens;
    l->mark_tokens += l->model->stats.tokens;
    l->mark_flops += l->model->stats.flops;
    return MOEC_OK;
}

/* Largest load over the mean, averaged over layers with experts: 1 is perfect balance. */
static double load_ratio(const loop *l) {
    int64_t E = l->config->spec.E, layers = l->config->layers - l->config->dense;
    double ratio = 0;
    for (int64_t layer = l->config->dense; layer < l->config->layers; layer++) {
        const int64_t *load = l->model->stats.load + layer * E;
        int64_t most = 0, sum = 0;
        for (int64_t e = 0; e < E; e++) {
            sum += load[e];
            if (load[e] > most) most = load[e];
        }
        if (sum) ratio += (double)most * (double)E / (double)sum / (double)layers;
    }
    return ratio;
}

/* [layer][expert] share of the layer's slots times E, so 1 is the mean. About 200 lines of a run. */
static json_t *loads(const loop *l) {
    int64_t E = l->config->spec.E;
    json_t *rows = json_array();
    for (int64_t layer = l->config->dense; layer < l->config->layers; layer++) {
        const int64_t *load = l->model->stats.load + layer * E;
        double sum = 0;
        json_t *row = json_array();
        for (int64_t e = 0; e < E; e++) sum += (double)load[e];
        for (int64_t e = 0; e < E; e++)
            json_array_append_new(row, json_real(round((double)load[e] * (double)E / sum * 1e4) / 1e4));
        json_array_append_new(rows, row);
    }
    return rows;
}

static void log_step(loop *l, train_progress *p) {
    const train_config *c = l->config;
    double elapsed = now() - l->mark;
    p->tokens_s = (double)l->mark_tokens / elapsed;
    p->tflops = l->mark_flops / elapsed * 1e-12;
    p->ms = elapsed * 1e3 / (double)(l->mark_tokens / (c->batch * c->seq * c->accumulate));
    p->load_ratio = load_ratio(l);
    p->logged = p->step % c->log_every == 0 || p->step == c->steps || p->step == 1;
    if (!p->logged) return;
    const step_stats *s = &l->model->stats;
    json_t *event = json_pack("{s:s, s:I, s:o, s:f, s:o, s:I, s:f, s:f, s:f, s:I, s:o, s:o, s:f}", "event",
                              "step", "step", (json_int_t)p->step, "loss", trainlog_real(p->loss), "lr",
                              p->lr, "grad_norm", trainlog_real(p->grad_norm), "tokens",
                              (json_int_t)l->state.tokens, "tokens_s", p->tokens_s, "tflops", p->tflops,
                              "load", p->load_ratio, "dropped", (json_int_t)p->dropped, "aux",
                              trainlog_real(s->aux), "z", trainlog_real(s->z), "ms", p->ms);
    int64_t every = c->steps / 200 > 0 ? c->steps / 200 : 1;
    if (p->step % every == 0 || p->step == c->steps) json_object_set_new(event, "loads", loads(l));
    trainlog_write(&l->log, event);
    l->mark = now();
    l->mark_tokens = 0;
    l->mark_flops = 0;
}

/* ---- held-out loss ---- */

static moec_status evaluate(loop *l, bool whole) {
    const train_config *c = l->config;
    int64_t seq = c->seq, T = c->batch * seq, batches = c->eval_batches, done = 0;
    double sum = 0, begin = now();
    if (!l->data.held_windows) return MOEC_OK;
    int64_t most = (l->data.held_windows + c->batch - 1) / c->batch;
    if (batches > most || (whole && most <= 8 * batches)) batches = most;
    for (int64_t n = 0; n < batches; n++) {
        double part = 0;
        int64_t rows = 0;
        for (; rows < c->batch && n * c->batch + rows < l->data.held_windows; rows++)
            MOEC_TRY(dataset_held(&l->data, n * c->batch + rows, l->tokens + rows * seq,
                                  l->targets + rows * seq, l->err));
        T = rows * seq;
        MOEC_TRY(model_evaluate(l->model, l->tokens, l->targets, T, seq, &part, l->err));
        sum += part;
        done += T;
    }
    l->result->held_out = sum / (double)done;
    say(l, "step %" PRId64 ": held-out loss %.4f (%.3f bits per token, %" PRId64 " tokens)", l->state.step,
        l->result->held_out, bits(l->result->held_out), done);
    trainlog_write(&l->log, json_pack("{s:s, s:I, s:o, s:o, s:I, s:f}", "event", "eval", "step",
                                      (json_int_t)l->state.step, "loss", trainlog_real(l->result->held_out),
                                      "bits", trainlog_real(bits(l->result->held_out)), "tokens",
                                      (json_int_t)done, "ms", (now() - begin) * 1e3));
    l->mark += now() - begin; /* throughput counts training only */
    return MOEC_OK;
}

/* ---- the run ---- */

static bool due(int64_t step, int64_t every) { return every > 0 && step % every == 0; }

static bool stop_asked(const loop *l) { return l->options->stop && *l->options->stop; }

static moec_status steps(loop *l) {
    const train_config *c = l->config;
    double begin = now();
    int64_t tokens = l->state.tokens;
    l->mark = begin;
    while (l->state.step < c->steps && !stop_asked(l)) {
        train_progress p = {.steps = c->steps};
        MOEC_TRY(take_step(l, &p));
        log_step(l, &p);
        if (l->options->progress) l->options->progress(l->options->user, &p);
        if (due(p.step, c->eval_every) && p.step < c->steps) MOEC_TRY(evaluate(l, false));
        double pause = now();
        if (due(p.step, c->save_every) && p.step < c->steps) save(l);
        l->mark += now() - pause;
    }
    l->result->stopped = l->state.step < c->steps;
    l->result->seconds = now() - begin;
    l->result->tokens_s = (double)(l->state.tokens - tokens) / (l->result->seconds + 1e-9);
    return MOEC_OK;
}

static moec_status write_sample(loop *l) {
    const train_config *c = l->config;
    char path[600];
    if (!c->sample || strcmp(c->format, "text") || l->result->stopped) return MOEC_OK;
    MOEC_TRY(sample_text(l->model, c->prompt, c->sample, c->temperature, c->seed, &l->result->sample,
                         l->err));
    const char *text = l->result->sample;
    trainlog_write(&l->log, json_pack("{s:s, s:I, s:o, s:o}", "event", "sample", "step",
                                      (json_int_t)l->state.step, "prompt",
                                      moec_json_text(c->prompt), "text",
                                      moec_json_ascii(text, strlen(text))));
    snprintf(path, sizeof path, "%s/sample.txt", c->run);
    return durable_replace(path, c->run, text, strlen(text), l->err);
}

static moec_status finish(loop *l) {
    if (!l->result->stopped) MOEC_TRY(evaluate(l, true));
    if (l->saved_step != l->state.step) save(l);
    if (l->save_failed) return l->err ? l->err->status : MOEC_E_IO;
    MOEC_TRY(write_sample(l));
    if (l->log.lost) say(l, "%d lines of the log could not be written: is the disk full?", l->log.lost);
    trainlog_write(&l->log, json_pack("{s:s, s:I, s:f, s:b}", "event", "end", "step",
                                      (json_int_t)l->state.step, "seconds", l->result->seconds, "stopped",
                                      (int)l->result->stopped));
    return MOEC_OK;
}

static void log_start(loop *l) {
    const model_size *size = &l->result->size;
    trainlog_write(&l->log,
                   json_pack("{s:s, s:I, s:s, s:s, s:I, s:I, s:f, s:I, s:I, s:I, s:s, s:o}", "event", "start", "step",
                             (json_int_t)l->state.step, "version", moec_version(), "target",
                             moec_device_target(l->device), "parameters", (json_int_t)size->total, "active",
                             (json_int_t)size->active, "unigram_bits", l->result->unigram_bits,
                             "train_tokens", (json_int_t)l->data.train_tokens, "held_tokens",
                             (json_int_t)l->data.held_tokens, "data_bytes", (json_int_t)l->state.data.bytes,
                             "data_hash", l->state.data.hash, "settings", trainlog_settings(l->config)));
}

/* To be read by people: a run does not fail for want of them. */
static void dump_kernels(loop *l, const char *folder, double ready) {
    moec_error why = {0};
    int kernels = 0;
    durable_remove_dir(folder);
    if (train_write_kernels(l->device, folder, &kernels, &why)) say(l, "%s", why.text);
    say(l, "kernels: %d, their source is in %s (ready after %.1f s)", kernels, folder, ready);
}

static void describe_data(loop *l) {
    ckpt_data *data = &l->state.data;
    snprintf(data->path, sizeof data->path, "%s", l->config->path);
    source_identity(&l->data.source, &data->bytes, data->hash);
    data->seq = l->data.seq;
    data->train_tokens = l->data.train_tokens;
}

static moec_status prepare(loop *l) {
    const train_config *c = l->config;
    char folder[600];
    double begin = now();
    size_t bytes = (size_t)(c->batch * c->seq) * sizeof(int32_t);
    l->tokens = malloc(bytes);
    l->targets = malloc(bytes);
    if (!l->tokens || !l->targets) return moec_fail(l->err, MOEC_E_NOMEM, "batch");
    MOEC_TRY(dataset_open(&l->data, c->path, c->format, c->spec.V, c->seq, c->held_out, c->seed, l->err));
    describe_data(l);
    MOEC_TRY(dataset_unigram_bits(&l->data, &l->result->unigram_bits, l->err));
    say(l, "data: %s, %" PRId64 " training and %" PRId64 " held-out tokens, unigram entropy %.3f bits", c->path,
        l->data.train_tokens, l->data.held_tokens, l->result->unigram_bits);
    MOEC_TRY(durable_mkdir(c->run, l->err));
    MOEC_TRY(lock_run(l));
    MOEC_TRY(model_create(l->device, c, c->batch * c->seq, true, &l->model, l->err));
    MOEC_TRY(initialise(l));
    MOEC_TRY(trainlog_open(&l->log, c->run, l->err));
    snprintf(folder, sizeof folder, "%s/kernels", c->run);
    dump_kernels(l, folder, now() - begin);
    log_start(l);
    return MOEC_OK;
}

moec_status train_run(moec_device *device, const train_config *config, const train_options *options,
                      train_result *result, moec_error *err) {
    moec_error own = {0};
    loop l = {.device = device, .config = config, .options = options, .result = result,
              .saved_step = -1, .lock = -1, .err = err ? err : &own};
    memset(result, 0, sizeof *result);
    result->loss = result->held_out = (double)NAN; /* until there is one */
    l.state.seed = config->seed;
    config_model_settings(config, l.state.settings, sizeof l.state.settings);
    config_model_size(config, config->seq, &result->size);
    moec_status rc = prepare(&l);
    if (!rc) rc = steps(&l);
    if (!rc) rc = finish(&l);
    result->steps = l.state.step;
    trainlog_close(&l.log);
    model_free(l.model);
    dataset_close(&l.data);
    free(l.tokens);
    free(l.targets);
    if (l.lock >= 0) close(l.lock);
    return rc;
}
