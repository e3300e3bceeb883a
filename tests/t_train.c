/* t_train: the model's gradients against finite differences, learning, resuming bit for bit, and what
 * a run says when it goes wrong. Small models, whole stack, on the best CPU target. */
#include <math.h>
#include <stdlib.h>

#include "train/schedule.h"
#include "train/train.h"
#include "train_trial.h"

static moec_device *device;
static moec_error err;

static void setup(void) {
    if (device) return;
    write_corpus();
    if (moec_device_open("cpu", 2, &device, &err)) printf("# %s\n", err.text);
}

static moec_status configure(train_config *c, const char *keys, const char *settings) {
    char text[2000];
    snprintf(text, sizeof text,
             "return {model={%s,%s}, data={path='%s', held_out=0.1}, train={run='%s', seq=16, batch=4, %s}}",
             base_model, keys, at("corpus.txt"), at("run"), settings);
    put_file("config.lua", text, strlen(text));
    return config_load(at("config.lua"), NULL, 0, c, &err);
}

/* ---- gradients ---- */

typedef struct probe { model *m; int32_t *tokens, *targets; int64_t T, seq; } probe;

static double objective(const probe *p) {
    const train_config *c = &p->m->config;
    double layers = (double)(c->layers - c->dense);
    if (model_micro_step(p->m, p->tokens, p->targets, p->T, p->seq, 1, 1, &err)) return (double)NAN;
    const step_stats *s = &p->m->stats;
    return s->loss + c->aux * s->aux * layers + c->z * s->z * layers;
}

/* Moves a tensor by step*direction and back; returns the central difference. */
static double difference(const probe *p, const param *t, const float *direction, double step) {
    int64_t n = t->rows * t->columns;
    float *old = malloc((size_t)n * 4), *now = malloc((size_t)n * 4), *where = p->m->params.master + t->offset;
    double value[2];
    if (!old || !now || moec_download(device, old, where, (size_t)n * 4, &err)) abort();
    for (int side = 0; side < 2; side++) {
        for (int64_t i = 0; i < n; i++) now[i] = (float)((double)old[i] + (side ? -step : step) * (double)direction[i]);
        if (moec_upload(device, where, now, (size_t)n * 4, &err)) abort();
        value[side] = objective(p);
    }
    if (moec_upload(device, where, old, (size_t)n * 4, &err)) abort();
    free(old);
    free(now);
    return (value[0] - value[1]) / (2 * step);
}

/* Largest |difference - <gradient, direction>| / (|gradient| |direction|) over all tensors, for a
 * random direction and for the gradient itself. fault scales one tensor's gradient, as a control. */
static double worst_gradient(const probe *p, double fault, char worst[160]) {
    double most = 0;
    for (int i = 0; i < p->m->params.count; i++) {
        const param *t = &p->m->params.list[i];
        int64_t n = t->rows * t->columns;
        float *g = malloc((size_t)n * 4), *d = malloc((size_t)n * 4);
        if (!g || !d) abort();
        if (isnan(objective(p))) {
            T_FAIL("%s", err.text);
            return 1;
        }
        if (moec_download(device, g, p->m->params.grad + t->offset, (size_t)n * 4, &err)) abort();
        for (int along = 0; along < 2; along++) {
            double gg = 0, dd = 0, gd = 0;
            for (int64_t k = 0; k < n; k++) {
                if (fault != 1 && t->kind == P_V) g[k] *= (float)fault;
                d[k] = along ? g[k] : mix64((uint64_t)(i * 100000 + k)) & 1 ? 1.0f : -1.0f;
                gg += (double)g[k] * (double)g[k];
                dd += (double)d[k] * (double)d[k];
                gd += (double)g[k] * (double)d[k];
            }
            /* The step moves the objective by about 1e-3: far above f32 noise (1e-6), and short of
             * the next change of a routing decision. */
            double scale = sqrt(gg) * sqrt(dd) + 1e-12, step = 1e-3 / scale;
            if (step * sqrt(dd) > 0.02) step = 0.02 / sqrt(dd);
            double gap = fabs(difference(p, t, d, step) - gd) / scale;
            if (gap > most) {
                most = gap;
                snprintf(worst, 160, "layer %d %s: %g of |g| %g", t->layer, params_kind_name(t->kind), gap, sqrt(gg));
            }
        }
        free(g);
        free(d);
    }
    return most;
}

static void gradient_case(const char *keys, const char *settings) {
    enum { SEQ = 12, T = 2 * SEQ };
    train_config c;
    model *m = NULL;
    char worst[160] = "";
    int32_t tokens[T], targets[T];
    setup();
    T_NEED(device);
    T_NEED(!configure(&c, keys, settings));
    if (model_create(device, &c, T, true, &m, &err)) T_FAIL("%s", err.text);
    T_NEED(m && !params_init(&m->params, &c, &err));
    for (int t = 0; t < T; t++) {
        tokens[t] = (int32_t)(mix64((uint64_t)t) % 29);
        targets[t] = (int32_t)(mix64((uint64_t)t + 99) % 29);
    }
    probe p = {m, tokens, targets, T, SEQ};
    double gap = worst_gradient(&p, 1, worst);
    printf("# largest gap %s\n", worst);
    /* f32: noise 1e-6*loss over a change of 2e-3, and curvature of the same order. */
    T_OK(gap < 0.01);
    T_OK(worst_gradient(&p, 1.05, worst) > 0.02); /* control: v's gradient 5 % too large */
    model_free(m);
}

static const char both_losses[] = "aux=0.1, z=0.01";

T_CASE(gradients_softmax) { gradient_case("dtype='f32'", both_losses); }
T_CASE(gradients_sigmoid_shared) {
    gradient_case("dtype='f32', router='sigmoid_bias', shared=16, tied=false", both_losses);
}
T_CASE(gradients_dense_first_whole_row_norm) {
    gradient_case("dtype='f32', dense=1, dense_F=40, qk_norm=false, qk_row=true", both_losses);
}
T_CASE(gradients_biased_ungated_grouped) {
    gradient_case("dtype='f32', act='gelu', bias=1, router='sigmoid_bias', groups='2/1', scale=1.5", both_losses);
}
T_CASE(gradients_in_column_blocks) { gradient_case("dtype='f32'", "column_blocks=2, aux=0.1, z=0.01"); }
T_CASE(gradients_recomputed) { gradient_case("dtype='f32'", "recompute=true, aux=0.1, z=0.01"); }
T_CASE(gradients_all_experts) { gradient_case("dtype='f32', K=4, router='topk_softmax'", both_losses); }

T_CASE(accumulation_is_one_larger_batch) {
    enum { SEQ = 8, T = 4 * SEQ };
    train_config c;
    model *m = NULL;
    int32_t tokens[T], targets[T];
    setup();
    T_NEED(device);
    T_NEED(!configure(&c, "dtype='f32'", "aux=0, z=0, recompute=true"));
    T_NEED(!model_create(device, &c, T, true, &m, &err) && !params_init(&m->params, &c, &err));
    for (int t = 0; t < T; t++) {
        tokens[t] = t * 7 % 29;
        targets[t] = t * 5 % 31;
    }
    double whole = 0, parts = 0;
    T_NEED(!model_micro_step(m, tokens, targets, T, SEQ, 1, 1, &err) && !model_grad_norm(m, &whole, &err));
    double loss = m->stats.loss;
    for (int n = 0; n < 2; n++)
        T_NEED(!model_micro_step(m, tokens + n * T / 2, targets + n * T / 2, T / 2, SEQ, n + 1, 2, &err));
    T_NEED(!model_grad_norm(m, &parts, &err));
    T_NEAR(m->stats.loss, loss, 1e-5);
    T_NEAR(parts, whole, 1e-5 * whole);
    model_free(m);
}

/* ---- runs ---- */

static moec_status train(const char *keys, const char *settings, train_options *options, const char *run,
                         train_result *result) {
    train_config c;
    MOEC_TRY(configure(&c, keys, settings));
    snprintf(c.run, sizeof c.run, "%s", run);
    moec_status rc = train_run(device, &c, options, result, &err);
    free(result->sample);
    result->sample = NULL;
    return rc;
}

static void learning_case(const char *keys) {
    train_result r;
    train_options o = {.mode = TRAIN_FRESH};
    setup();
    T_NEED(device);
    moec_status rc = train(keys, "steps=60, warmup=5, lr=5e-3, sample=20", &o, at("learn"), &r);
    if (rc) T_FAIL("%s", err.text);
    printf("# loss %.3f bits, held out %.3f, unigram %.3f\n", r.loss / log(2), r.held_out / log(2), r.unigram_bits);
    T_OK(r.loss / log(2) < 0.7 * r.unigram_bits);
    T_OK(r.held_out / log(2) < 0.7 * r.unigram_bits);
}

T_CASE(learns_f32) { learning_case("dtype='f32'"); }
T_CASE(learns_bf16) { learning_case("dtype='bf16'"); }

/* One run of 12 steps against its own second half begun from the checkpoint at 6. */
static void resume_case(const char *keys) {
    const char *settings = "steps=12, warmup=2, lr=3e-3, save_every=6, keep=9, accumulate=2, bias_rate=0.01";
    train_result r;
    train_options whole = {.mode = TRAIN_FRESH}, half = {.mode = TRAIN_RESUME};
    char a[600], b[600], from[1024], end_a[1024], end_b[1024];
    setup();
    T_NEED(device);
    snprintf(a, sizeof a, "%s", at("whole"));
    snprintf(b, sizeof b, "%s", at("half"));
    T_NEED(!train(keys, settings, &whole, a, &r));
    double loss = r.loss;
    ckpt_remove_all(b);
    ckpt_path(a, 6, from);
    half.from = from;
    if (train(keys, settings, &half, b, &r)) T_FAIL("%s", err.text);
    ckpt_path(a, 12, end_a);
    ckpt_path(b, 12, end_b);
    T_NEAR(r.loss, loss, 0);
    T_OK(same_files(end_a, end_b, "model.safetensors"));
    T_OK(same_files(end_a, end_b, "optimizer.safetensors"));
    T_OK(same_files(end_a, end_b, "state.json"));
    T_OK(!same_files(from, end_b, "model.safetensors")); /* control: it can differ */
}

T_CASE(resume_is_bit_exact_bf16) { resume_case("dtype='bf16'"); }
T_CASE(resume_is_bit_exact_sigmoid_bias) { resume_case("dtype='f32', router='sigmoid_bias', shared=16, tied=false"); }

T_CASE(threads_do_not_change_the_result) {
    const char *settings = "steps=3, warmup=1, lr=3e-3";
    train_result r;
    train_options o = {.mode = TRAIN_FRESH};
    char two[1024], one[1024];
    setup();
    T_NEED(device);
    moec_device *pair = device;
    T_NEED(!train("dtype='bf16'", settings, &o, at("two"), &r));
    snprintf(two, sizeof two, "%s", r.checkpoint);
    T_NEED(!moec_device_open("cpu", 1, &device, &err));
    moec_status rc = train("dtype='bf16'", settings, &o, at("one"), &r);
    moec_device_close(device);
    device = pair;
    T_EQ(rc, MOEC_OK);
    snprintf(one, sizeof one, "%s", r.checkpoint);
    T_OK(same_files(two, one, "model.safetensors"));
    T_OK(same_files(two, one, "optimizer.safetensors"));
}

/* Two targets round differently, and nothing of it may grow: in f32 a run ends with the same loss on both. */
T_CASE(targets_train_alike) {
    const char *settings = "steps=60, warmup=5, lr=1e-3";
    train_result best, plain, bf16;
    train_options o = {.mode = TRAIN_FRESH};
    setup();
    T_NEED(device);
    moec_device *here = device;
    T_NEED(!train("dtype='f32'", settings, &o, at("best"), &best));
    T_NEED(!train("dtype='bf16'", settings, &o, at("bf16"), &bf16));
    T_NEED(!moec_device_open("cpu-scalar", 2, &device, &err));
    moec_status rc = train("dtype='f32'", settings, &o, at("plain"), &plain);
    moec_device_close(device);
    device = here;
    T_EQ(rc, MOEC_OK);
    printf("# held out %.9f and %.9f, in bf16 %.9f\n", best.held_out, plain.held_out, bf16.held_out);
    T_NEAR(best.loss, plain.loss, 1e-6 * plain.loss);
    T_NEAR(best.held_out, plain.held_out, 1e-6 * plain.held_out);
    T_OK(fabs(bf16.held_out - plain.held_out) > 1e-6 * plain.held_out); /* control: it can differ */
}

/* The corpus once more as Megatron's pair: three sequences of uint16. */
static void write_megatron(int32_t bad_token) {
    size_t n;
    unsigned char *text = slurp(at("corpus.txt"), &n);
    uint16_t *tokens = malloc(n * 2);
    if (!text || !tokens) abort();
    for (size_t i = 0; i < n; i++) tokens[i] = text[i];
    if (bad_token) tokens[n / 2] = (uint16_t)bad_token;
    put_file("pair.bin", (const char *)tokens, n * 2);
    char index[200] = "MMIDIDX\0";
    const uint64_t head[3] = {1, 3, 1};
    const int32_t sizes[3] = {1000, 5, (int32_t)n - 1005};
    const int64_t pointers[3] = {0, 2000, 2010}, documents[1] = {0};
    memcpy(index + 9, &head[0], 8);
    index[17] = 8;
    memcpy(index + 18, &head[1], 16);
    memcpy(index + 34, sizes, 12);
    memcpy(index + 46, pointers, 24);
    memcpy(index + 70, documents, 8);
    put_file("pair.idx", index, 78);
    free(tokens);
    free(text);
}

static moec_status train_on(const char *path, const char *format, train_result *r) {
    train_config c;
    train_options o = {.mode = TRAIN_FRESH};
    MOEC_TRY(configure(&c, "dtype='bf16'", "steps=4, warmup=1"));
    snprintf(c.path, sizeof c.path, "%s", path);
    snprintf(c.format, sizeof c.format, "%s", format);
    snprintf(c.run, sizeof c.run, "%s", at("formats"));
    return train_run(device, &c, &o, r, &err);
}

T_CASE(megatron_and_text_train_alike) {
    train_result text, pair;
    setup();
    T_NEED(device);
    write_megatron(0);
    T_NEED(!train_on(at("corpus.txt"), "text", &text));
    if (train_on(at("pair"), "megatron", &pair)) T_FAIL("%s", err.text);
    T_NEAR(pair.loss, text.loss, 0);
    T_NEAR(pair.held_out, text.held_out, 0);
    write_megatron(300);
    T_EQ(train_on(at("pair"), "megatron", &pair), MOEC_E_CORRUPT);
    T_HAS(err.text, "token 300 at position");
    T_HAS(err.text, "model.V");
}

T_CASE(capacity_drops_are_counted) {
    char line[4096];
    train_result r;
    train_options o = {.mode = TRAIN_FRESH};
    setup();
    T_NEED(device);
    if (train("dtype='bf16', capacity=0.5", "steps=2, warmup=1", &o, at("drops"), &r)) T_FAIL("%s", err.text);
    FILE *f = fopen(at("drops/log.jsonl"), "r");
    int steps = 0;
    while (f && fgets(line, sizeof line, f))
        if (strstr(line, "\"event\":\"step\"")) {
            steps++;
            /* Each of 2 layers: 128 slots, 4 experts keep ceil(0.5*128/4) = 16 at most. */
            int dropped = atoi(strstr(line, "\"dropped\":") + 10);
            T_OK(dropped >= 128 && dropped < 256);
        }
    T_EQ(steps, 2);
    if (f) fclose(f);
}

T_CASE(a_run_is_not_overwritten) {
    train_result r;
    train_options fresh = {.mode = TRAIN_FRESH}, plain = {.mode = TRAIN_NEW};
    setup();
    T_NEED(device);
    T_NEED(!train("dtype='f32'", "steps=2, warmup=1", &fresh, at("twice"), &r));
    T_EQ(train("dtype='f32'", "steps=2, warmup=1", &plain, at("twice"), &r), MOEC_E_INVAL);
    T_HAS(err.text, "--resume");
    T_HAS(err.text, "--fresh");
}

T_CASE(another_shape_is_refused) {
    train_result r;
    train_options fresh = {.mode = TRAIN_FRESH}, resume = {.mode = TRAIN_RESUME};
    setup();
    T_NEED(device);
    T_NEED(!train("dtype='f32'", "steps=2, warmup=1", &fresh, at("shape"), &r));
    T_EQ(train("dtype='f32', router='sigmoid_bias', shared=16, tied=false", "steps=3, warmup=1", &resume,
               at("shape"), &r), MOEC_E_CORRUPT);
    T_HAS(err.text, "another model");
    T_HAS(err.text, "lm_head.weight");
}

/* ---- what is not finite ---- */

T_CASE(an_exploding_loss_stops_the_run) {
    train_result r;
    train_options o = {.mode = TRAIN_FRESH};
    char path[1024];
    int found = 0;
    setup();
    T_NEED(device);
    T_EQ(train("dtype='f32'", "steps=40, warmup=0, lr=1e30, save_every=1, weight_decay=0", &o, at("nan"), &r),
         MOEC_E_NUMERIC);
    T_HAS(err.text, "step 2");
    T_HAS(err.text, "first tensor that is not finite");
    T_HAS(err.text, "is intact");
    T_EQ(moec_exit_code(MOEC_E_NUMERIC), 1);
    T_NEED(!ckpt_newest(at("nan"), path, &found, &err) && found);
    ckpt_summary s;
    T_EQ(ckpt_verify(path, &s, &err), MOEC_OK);
    T_EQ(s.state.step, 1);
}

T_CASE(the_first_bad_tensor_is_named) {
    enum { T = 16 };
    train_config c;
    model *m = NULL;
    int32_t tokens[T] = {0}, targets[T] = {0};
    char what[160];
    float nan = NAN;
    uint16_t half_nan = 0x7fc0;
    setup();
    T_NEED(device);
    T_NEED(!configure(&c, "dtype='bf16'", "steps=1, warmup=1"));
    T_NEED(!model_create(device, &c, T, true, &m, &err) && !params_init(&m->params, &c, &err));
    T_NEED(!model_micro_step(m, tokens, targets, T, T, 1, 1, &err));
    T_NEED(!model_find_nonfinite(m, T, what, &err));
    T_STR(what, "");
    /* In bf16 the kernels' copy of a weight goes bad, the master does not: seen in what it makes. */
    const param *q = params_get(&m->params, P_Q, 1);
    T_NEED(!moec_upload(device, (char *)m->params.act + q->offset * 2, &half_nan, 2, &err));
    T_NEED(!model_micro_step(m, tokens, targets, T, T, 1, 1, &err));
    T_OK(isnan(m->stats.loss));
    T_NEED(!model_find_nonfinite(m, T, what, &err));
    T_STR(what, "layer 1 q");
    T_NEED(!moec_upload(device, m->params.master + params_get(&m->params, P_ROUTER, 0)->offset, &nan, 4, &err));
    T_NEED(!model_find_nonfinite(m, T, what, &err));
    T_STR(what, "layer 0 weights of router");
    model_free(m);
}

T_CASE(a_warm_step_allocates_nothing) {
    enum { T = 64 };
    train_config c;
    model *m = NULL;
    int32_t tokens[T] = {0}, targets[T] = {0};
    moec_counters before, after;
    double norm;
    setup();
    T_NEED(device);
    T_NEED(!configure(&c, "dtype='bf16'", "steps=1, warmup=1"));
    T_NEED(!model_create(device, &c, T, true, &m, &err) && !params_init(&m->params, &c, &err));
    for (int step = 0; step < 4; step++) {
        if (step == 1) moec_counters_read(&before);
        T_NEED(!model_micro_step(m, tokens, targets, T, 16, 1, 1, &err) && !model_grad_norm(m, &norm, &err) &&
               !model_update(m, step + 1, 1e-3, 1, &err));
    }
    moec_counters_read(&after);
    T_EQ(after.allocations, before.allocations);
    T_EQ(after.compiles, before.compiles);
    T_EQ(after.files_opened, before.files_opened);
    T_OK(after.launches > before.launches);
    model_free(m);
}

T_MAIN
