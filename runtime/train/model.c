/* model: creation, the plan of its buffers, one micro-batch, and what it reports.
 *
 * All activations live in one block. A table lists them once; the same walk first adds up the bytes
 * and then hands out the pointers, so size and layout cannot disagree. */
#include "model.h"

#include <stdlib.h>
#include <string.h>

#include "schedule.h"

enum { ALIGN_BYTES = 256, HEAD_BYTES = 32 << 20 };

size_t model_act_bytes(const model *m) { return m->params.f32 ? 4 : 2; }

void *model_row(const model *m, void *rows, int64_t row, int64_t columns) {
    return (char *)rows + (size_t)(row * columns) * model_act_bytes(m);
}

bool model_is_dense(const model *m, int layer) { return layer < m->config.dense; }

moec_weights model_expert_weights(const model *m, int layer) {
    const params *p = &m->params;
    bool dense = model_is_dense(m, layer);
    return (moec_weights){
        .w1 = params_act(p, dense ? P_DENSE1 : P_W1, layer), .b1 = params_act(p, P_B1, layer),
        .w2 = params_act(p, dense ? P_DENSE2 : P_W2, layer), .b2 = params_act(p, P_B2, layer),
        .shared_w1 = params_act(p, P_SHARED1, layer), .shared_w2 = params_act(p, P_SHARED2, layer),
    };
}

/* ---- buffers ---- */

/* base NULL: only counts. */
typedef struct planner { char *base; size_t used; } planner;

static void *take(planner *plan, int64_t count, size_t bytes) {
    void *p = plan->base ? plan->base + plan->used : NULL;
    plan->used += ((size_t)count * bytes + ALIGN_BYTES - 1) / ALIGN_BYTES * ALIGN_BYTES;
    return p;
}

static void plan_layer(model *m, planner *plan, int layer) {
    const moec_spec *s = &m->config.spec;
    layer_state *l = &m->layer[layer];
    size_t act = model_act_bytes(m);
    int64_t T = m->capacity, q = s->heads * s->dim, kv = s->kv * s->dim;
    bool norm = m->config.qk_norm || m->config.qk_row, dense = model_is_dense(m, layer);
    l->res = take(plan, T * s->H, act);
    l->mid = take(plan, T * s->H, act);
    l->y1 = take(plan, T * s->H, act);
    l->y2 = take(plan, T * s->H, act);
    l->rstd1 = take(plan, T, 4);
    l->rstd2 = take(plan, T, 4);
    l->q = take(plan, T * q, act);
    l->k = take(plan, T * kv, act);
    l->v = take(plan, T * kv, act);
    l->q0 = norm ? take(plan, T * q, act) : l->q;
    l->k0 = norm ? take(plan, T * kv, act) : l->k;
    l->rstd_q = norm ? take(plan, T * s->heads, 4) : NULL;
    l->rstd_k = norm ? take(plan, T * s->kv, 4) : NULL;
    l->att = take(plan, T * q, act);
    l->lse = take(plan, T * s->heads, 4);
    l->logits = dense ? NULL : take(plan, T * s->E, 4);
    l->saved = take(plan, (int64_t)moec_layer_saved_bytes(dense ? m->dense : m->experts, T), 1);
}

static size_t workspace_bytes(const model *m) {
    size_t a = m->experts ? moec_layer_workspace_bytes(m->experts, m->capacity) : 0;
    size_t b = m->dense ? moec_layer_workspace_bytes(m->dense, m->capacity) : 0;
    return a > b ? a : b;
}

static void plan_backward(model *m, planner *plan) {
    const moec_spec *s = &m->config.spec;
    size_t act = model_act_bytes(m);
    int64_t T = m->capacity;
    m->d_res = take(plan, T * s->H, act);
    m->d_y = take(plan, T * s->H, act);
    m->d_q = take(plan, T * s->heads * s->dim, act);
    m->d_k = take(plan, T * s->kv * s->dim, act);
    m->d_v = take(plan, T * s->kv * s->dim, act);
    m->d_att = take(plan, T * s->heads * s->dim, act);
    m->d_logits = take(plan, T * s->E, 4);
    m->norm2 = take(plan, 1, 8);
}

static void plan_all(model *m, planner *plan) {
    const moec_spec *s = &m->config.spec;
    size_t act = model_act_bytes(m);
    int64_t T = m->capacity;
    for (int layer = 0; layer < m->params.layers; layer++) plan_layer(m, plan, layer);
    m->token = take(plan, T, 4);
    m->target = take(plan, T, 4);
    m->zero_expert = take(plan, T, 4);
    m->one_weight = take(plan, T, 4);
    m->branch = take(plan, T * s->H, act);
    m->out = take(plan, T * s->H, act);
    m->final = take(plan, T * s->H, act);
    m->rstd_final = take(plan, T, 4);
    m->head_logits = take(plan, m->head_rows * s->V, 4);
    m->loss = take(plan, T, 4);
    m->workspace = take(plan, (int64_t)workspace_bytes(m), 1);
    if (m->training) plan_backward(m, plan);
}

static moec_status constants(model *m, moec_error *err) {
    size_t bytes = (size_t)m->capacity * 4;
    int32_t *zero = calloc(1, bytes);
    float *one = malloc(bytes);
    moec_status rc = zero && one ? MOEC_OK : moec_fail(err, MOEC_E_NOMEM, "constants");
    for (int64_t t = 0; t < m->capacity && !rc; t++) one[t] = 1;
    if (!rc) rc = moec_upload(m->device, m->zero_expert, zero, bytes, err);
    if (!rc) rc = moec_upload(m->device, m->one_weight, one, bytes, err);
    free(zero);
    free(one);
    return rc;
}

static moec_status make_buffers(model *m, moec_error *err) {
    const moec_spec *s = &m->config.spec;
    size_t layers = (size_t)m->params.layers, E = (size_t)s->E;
    m->host_loss = malloc((size_t)m->capacity * sizeof(float));
    m->host_load = malloc((E + 1) * sizeof(int32_t));
    m->host_prob = malloc(E * sizeof(float));
    m->host_bias = malloc(layers * E * sizeof(float));
    m->stats.load = calloc(layers * E, sizeof(int64_t));
    if (!m->host_loss || !m->host_load || !m->host_prob || !m->host_bias || !m->stats.load)
        return moec_fail(err, MOEC_E_NOMEM, "host buffers of the model");
    planner plan = {NULL, 0};
    plan_all(m, &plan);
    MOEC_TRY(moec_alloc(m->device, plan.used, "activations", &m->arena, err));
    plan = (planner){m->arena, 0};
    plan_all(m, &plan);
    return m->dense ? constants(m, err) : MOEC_OK;
}

/* ---- creation ---- */

static moec_status make_layers(model *m, moec_error *err) {
    char text[MOEC_SPEC_BYTES];
    const train_config *c = &m->config;
    moec_layer_options options = {.tokens_hint = m->capacity, .recompute = (int)c->recompute,
                                  .column_blocks = (int)c->column_blocks};
    if (c->dense < c->layers) {
        config_layer_spec(c, text);
        MOEC_TRY(moec_layer_create(m->device, text, &options, &m->experts, err));
    }
    if (c->dense == 0) return MOEC_OK;
    moec_spec s;
    moec_spec_default(&s);
    s.H = c->spec.H;
    s.F = c->dense_F;
    s.act = c->spec.act;
    s.dtype = c->spec.dtype;
    moec_spec_print(&s, NULL, text, sizeof text);
    return moec_layer_create(m->device, text, &options, &m->dense, err);
}

static moec_status create(model *m, moec_error *err) {
    const moec_spec *s = &m->config.spec;
    m->head_rows = HEAD_BYTES / (4 * s->V);
    if (m->head_rows < 64) m->head_rows = 64;
    if (m->head_rows > m->capacity) m->head_rows = m->capacity;
    m->layer = calloc((size_t)m->config.layers, sizeof *m->layer);
    if (!m->layer) return moec_fail(err, MOEC_E_NOMEM, "model");
    MOEC_TRY(params_create(m->device, &m->config, m->training, &m->params, err));
    MOEC_TRY(make_layers(m, err));
    MOEC_TRY(kernels_create(m, err));
    return make_buffers(m, err);
}

moec_status model_create(moec_device *device, const train_config *config, int64_t tokens, bool training,
                         model **out, moec_error *err) {
    model *m = calloc(1, sizeof *m);
    if (!m) return moec_fail(err, MOEC_E_NOMEM, "model");
    m->device = device;
    m->config = *config;
    m->training = training;
    m->capacity = tokens;
    moec_status rc = create(m, err);
    if (rc) {
        model_free(m);
        return moec_context(err, rc, "model of %s", config->file);
    }
    *out = m;
    return MOEC_OK;
}

void model_free(model *m) {
    if (!m) return;
    kernels_free(m);
    if (m->experts) moec_layer_free(m->experts);
    if (m->dense) moec_layer_free(m->dense);
    moec_free(m->device, m->arena);
    params_free(&m->params);
    free(m->layer);
    free(m->host_loss);
    free(m->host_load);
    free(m->host_prob);
    free(m->host_bias);
    free(m->stats.load);
    free(m);
}

/* ---- one micro-batch ---- */

static moec_status read_losses(model *m, int64_t T, double *sum, moec_error *err) {
    MOEC_TRY(moec_synchronize(m->device, NULL, err));
    MOEC_TRY(moec_download(m->device, m->host_loss, m->loss, (size_t)T * sizeof(float), err));
    *sum = 0;
    for (int64_t t = 0; t < T; t++) *sum += (double)m->host_loss[t];
    return MOEC_OK;
}

/* What routing of one layer did in this micro-batch. */
static moec_status read_layer(model *m, int layer, int64_t T, double weight, moec_error *err) {
    const moec_spec *s = &m->config.spec;
    int64_t E = s->E, *load = m->stats.load + layer * E;
    moec_routing r;
    double z_sum;
    int32_t rows;
    moec_layer_routing(m->experts, m->layer[layer].saved, T, &r);
    MOEC_TRY(moec_download(m->device, &rows, r.offsets + E, sizeof rows, err));
    MOEC_TRY(moec_download(m->device, m->host_load, r.load, (size_t)E * 4, err));
    MOEC_TRY(moec_download(m->device, m->host_prob, r.prob_sum, (size_t)E * 4, err));
    MOEC_TRY(moec_download(m->device, &z_sum, r.z_sum, sizeof z_sum, err));
    for (int64_t e = 0; e < E; e++) load[e] += m->host_load[e];
    m->stats.rows += rows;
    m->stats.dropped += T * s->K - rows;
    m->stats.aux += weight * schedule_aux_loss(m->host_load, m->host_prob, E, s->K, T);
    m->stats.z += weight * z_sum / (double)T;
    return MOEC_OK;
}

/* Floating-point operations executed for T tokens: 2 per multiply-add, 3 GEMMs for each of forward,
 * causal attention at half of seq (forward 2 products, backward 5), experts by their rows. */
static double executed_flops(const model *m, int64_t T, int64_t seq, int64_t rows) {
    const train_config *c = &m->config;
    const moec_spec *s = &c->spec;
    double t = (double)T, q = (double)(s->heads * s->dim), kv = (double)(s->kv * s->dim), H = (double)s->H;
    double U = (double)moec_spec_U(s), gated = moec_spec_gated(s) ? 2 : 1, layers = (double)c->layers;
    double linear = layers * H * (2 * q + 2 * kv) + (double)(c->layers - c->dense) * H *
                    ((double)s->E + (double)s->shared * (gated + 1)) +
                    (double)c->dense * H * (double)c->dense_F * (gated + 1) + (double)s->V * H;
    double experts = (double)rows * H * (3 * (U + (double)s->F) + (c->recompute ? U : 0));
    return 6 * t * linear + 2 * experts + 7 * t * (double)seq * q * layers;
}

static moec_status read_stats(model *m, int64_t T, int64_t seq, int64_t count, moec_error *err) {
    int64_t before = m->stats.rows, layers = m->config.layers - m->config.dense;
    double sum = 0, weight = 1.0 / (double)((layers ? layers : 1) * count);
    MOEC_TRY(read_losses(m, T, &sum, err));
    for (int layer = (int)m->config.dense; layer < m->params.layers; layer++)
        MOEC_TRY(read_layer(m, layer, T, weight, err));
    m->stats.loss += sum / (double)(T * count);
    m->stats.tokens += T;
    m->stats.flops += executed_flops(m, T, seq, m->stats.rows - before);
    return MOEC_OK;
}

static void clear_stats(model *m) {
    int64_t *load = m->stats.load;
    memset(load, 0, (size_t)(m->config.layers * m->config.spec.E) * sizeof *load);
    m->stats = (step_stats){.load = load};
}

moec_status model_micro_step(model *m, const int32_t *tokens, const int32_t *targets, int64_t T,
                             int64_t seq, int64_t number, int64_t count, moec_error *err) {
    int beta = number > 1;
    double scale = 1.0 / (double)(T * count), share = 1.0 / (double)count;
    if (number == 1) clear_stats(m);
    MOEC_TRY(forward_layers(m, tokens, T, seq, err));
    MOEC_TRY(forward_head(m, targets, T, scale, beta, err));
    MOEC_TRY(backward_layers(m, T, seq, beta, m->config.aux * share, m->config.z * share, err));
    return read_stats(m, T, seq, count, err);
}

moec_status model_evaluate(model *m, const int32_t *tokens, const int32_t *targets, int64_t T,
                           int64_t seq, double *loss_sum, moec_error *err) {
    MOEC_TRY(forward_layers(m, tokens, T, seq, err));
    MOEC_TRY(forward_head(m, targets, T, 0, 0, err));
    return read_losses(m, T, loss_sum, err);
}
