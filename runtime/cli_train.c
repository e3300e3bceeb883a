/* moec train: the main job. Prints settings, news and a summary to stdout, progress to stderr: a bar
 * on a terminal, a line every twentieth of the run otherwise. SIGINT and SIGTERM finish the step,
 * save and leave; a second one leaves at once. */
#include "cli.h"

#include <inttypes.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "json_text.h"
#include "train/train.h"
#include "train/trainlog.h"

typedef struct view { bool json, terminal, bar; int64_t shown; } view;

static volatile sig_atomic_t stop_asked;

static void on_signal(int number) {
    stop_asked = 1;
    signal(number, SIG_DFL);
}

/* ---- what is printed ---- */

static double bits(double nats) { return nats / 0.69314718055994530942; }

static void human(double v, char *text, size_t bytes) {
    const char *unit = " kMGT";
    int i = 0;
    while (v >= 1000 && unit[i + 1]) v /= 1000, i++;
    if (i) snprintf(text, bytes, "%.3g%c", v, unit[i]);
    else snprintf(text, bytes, "%.3g", v);
}

static void print_setting(void *user, const char *group, const char *key, const char *value,
                          bool is_default) {
    char name[64];
    (void)user;
    snprintf(name, sizeof name, "%s.%s", group, key);
    if (!is_default) printf("  %-20s %s\n", name, value);
}

static void clear_bar(view *v) {
    if (!v->bar) return;
    fprintf(stderr, "\r%*s\r", 110, "");
    v->bar = false;
}

static void say(void *user, const char *text) {
    view *v = user;
    clear_bar(v);
    if (v->json) return;
    printf("%s\n", text);
    fflush(stdout);
}

static void numbers(const train_progress *p, char *text, size_t bytes) {
    char speed[32];
    human(p->tokens_s, speed, sizeof speed);
    snprintf(text, bytes, "loss %.4f (%.3f bits)  norm %.2f  lr %.2e  %s tok/s  %.3f TFLOP/s  load %.2f",
             p->loss, bits(p->loss), p->grad_norm, p->lr, speed, p->tflops, p->load_ratio);
}

static void draw_bar(view *v, const train_progress *p) {
    enum { WIDTH = 20 };
    char text[200], speed[32];
    int filled = (int)(p->step * WIDTH / p->steps);
    double left = (double)(p->steps - p->step) * p->ms / 1e3;
    human(p->tokens_s, speed, sizeof speed);
    snprintf(text, sizeof text, "loss %.4f  %.2f bits  %s tok/s  %.3f TFLOP/s  %d:%02d left", p->loss,
             bits(p->loss), speed, p->tflops, (int)(left / 60), (int)fmod(left, 60));
    fprintf(stderr, "\r%.*s%.*s %" PRId64 "/%" PRId64 "  %-70s", filled, "####################",
            WIDTH - filled, "....................", p->step, p->steps, text);
    v->bar = true;
}

static void progress(void *user, const train_progress *p) {
    view *v = user;
    if (v->terminal) {
        draw_bar(v, p);
        if (p->step == p->steps) clear_bar(v);
    }
    int64_t twentieth = p->step * 20 / p->steps;
    if (v->json || (twentieth == v->shown && p->step != 1)) return;
    v->shown = twentieth;
    char text[300];
    numbers(p, text, sizeof text);
    clear_bar(v);
    printf("step %6" PRId64 "/%" PRId64 "  %s\n", p->step, p->steps, text);
    fflush(stdout);
}

static void print_head(const train_config *c, const moec_device *device) {
    char total[32], active[32];
    model_size size;
    config_model_size(c, c->seq, &size);
    human((double)size.total, total, sizeof total);
    human((double)size.active, active, sizeof active);
    printf("# moec train %s\n", c->file);
    config_each(c, print_setting, NULL);
    printf("device: %s, %d threads\nmodel: %s parameters, %s active for a token\n",
           moec_device_target(device), device->threads, total, active);
    fflush(stdout);
}

static void print_result(const train_config *c, const train_result *r) {
    if (r->sample) printf("\n---- %s%s\n----\n\n", c->prompt, r->sample);
    char speed[32];
    human(r->tokens_s, speed, sizeof speed);
    printf("%s after %" PRId64 " steps, %.0f s, %s tokens/s\n", r->stopped ? "stopped" : "done", r->steps,
           r->seconds, speed);
    if (isfinite(r->loss)) printf("last training loss %.3f bits per token, ", bits(r->loss));
    if (isfinite(r->held_out)) printf("held out %.3f, ", bits(r->held_out));
    printf("unigram entropy %.3f\n", r->unigram_bits);
    if (*r->checkpoint) printf("checkpoint: %s\n", r->checkpoint);
    printf("log: %s/log.jsonl, and `moec report %s` draws it\n", c->run, c->run);
}

static void print_json(const train_config *c, const train_result *r) {
    cli_print_json(json_pack("{s:o, s:I, s:b, s:o, s:o, s:o, s:o, s:o, s:o}", "run", moec_json_text(c->run), "steps",
                             (json_int_t)r->steps, "stopped", (int)r->stopped, "loss_bits",
                             trainlog_real(bits(r->loss)), "held_out_bits", trainlog_real(bits(r->held_out)),
                             "unigram_bits", trainlog_real(r->unigram_bits), "seconds", trainlog_real(r->seconds),
                             "tokens_s", trainlog_real(r->tokens_s), "checkpoint", moec_json_text(r->checkpoint)));
}

/* ---- the verb ---- */

static moec_status read_config(const cli_call *call, train_config *config, moec_error *err) {
    if (call->operand_count < 1) return cli_usage(call, err, "a config file is needed");
    return config_load(call->operands[0], call->operands + 1, call->operand_count - 1, config, err);
}

static moec_status read_mode(const cli_call *call, train_options *options, moec_error *err) {
    const char *from = cli_text(call, "from");
    if (cli_flag(call, "fresh") && (cli_flag(call, "resume") || from))
        return cli_usage(call, err, "--fresh and --resume exclude each other");
    options->mode = cli_flag(call, "fresh") ? TRAIN_FRESH
                    : cli_flag(call, "resume") || from ? TRAIN_RESUME : TRAIN_NEW;
    options->from = from;
    return MOEC_OK;
}

static void catch_signals(void) {
    signal(SIGINT, on_signal);
    signal(SIGTERM, on_signal);
}

static void print_key(void *user, const char *group, const char *key, const char *dflt, const char *doc) {
    char name[64];
    json_t *list = user;
    snprintf(name, sizeof name, "%s.%s", group, key);
    if (list)
        json_array_append_new(list, json_pack("{s:s, s:s, s:s}", "key", name, "default", dflt, "doc", doc));
    else printf("  %-20s %-10s %s\n", name, *dflt ? dflt : "-", doc);
}

/* The keys of group model that are a spec's stand in the help of `moec spec`. */
static void print_spec_key(void *user, const char *name, const char *doc, const char *dflt) {
    print_key(user, "model", name, dflt, doc);
}

static moec_status print_keys(const cli_call *call) {
    json_t *list = call->json ? json_array() : NULL;
    if (!list) printf("keys of a config, their defaults and meaning:\n");
    moec_spec_keys(print_spec_key, list);
    config_keys(print_key, list);
    if (list) cli_print_json(list);
    return MOEC_OK;
}

static moec_status run(cli_call *call, moec_error *err) {
    if (cli_flag(call, "keys")) return print_keys(call);
    train_config config;
    train_result result = {0};
    moec_device *device = NULL;
    view v = {.json = call->json, .terminal = isatty(STDERR_FILENO), .shown = -1};
    train_options options = {.stop = &stop_asked, .progress = progress, .say = say, .user = &v};
    MOEC_TRY(read_config(call, &config, err));
    MOEC_TRY(read_mode(call, &options, err));
    MOEC_TRY(cli_device(call, &device, err));
    catch_signals();
    if (!call->json) print_head(&config, device);
    moec_status rc = MOEC_OK;
    if (!cli_flag(call, "dry-run")) rc = train_run(device, &config, &options, &result, err);
    clear_bar(&v);
    if (!rc && !cli_flag(call, "dry-run")) {
        if (call->json) print_json(&config, &result);
        else print_result(&config, &result);
    }
    free(result.sample);
    moec_device_close(device);
    return rc;
}

static const cli_option options[] = {
    {"resume", 0, CLI_FLAG, "", NULL, "go on from the run's newest checkpoint, if there is one"},
    {"from", 0, CLI_TEXT, "PATH", NULL, "go on from this checkpoint instead"},
    {"fresh", 0, CLI_FLAG, "", NULL, "remove the run's checkpoints and log first"},
    {"keys", 0, CLI_FLAG, "", NULL, "list the keys of a config and stop"},
    {"dry-run", 0, CLI_FLAG, "", NULL, "check the config and print the settings, then stop"},
    {0},
};

const cli_verb cli_train_verb = {
    .name = "train",
    .summary = "train a model described by a Lua file",
    .operands = "CONFIG.lua [key=value ...]",
    .common = "target threads",
    .options = options,
    .examples = {"moec train examples/demo.lua", "moec train examples/demo.lua lr=2e-3 steps=200 run=runs/b",
                 "moec train examples/demo.lua --resume", NULL},
    .run = run,
};
