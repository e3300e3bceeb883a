/* forward: tokens to losses. The residual add is fused into the next norm (`add`, `sum` of rmsnorm),
 * so the stream is read and written once per half layer. The head works in chunks of tokens: its
 * logits [chunk][V] are turned into their gradient in place and never exist for the whole batch. */
#include "model.h"

static moec_status qk_norm(model *m, int layer, int64_t T, moec_error *err) {
    const train_config *c = &m->config;
    const layer_state *s = &m->layer[layer];
    if (!c->qk_norm && !c->qk_row) return MOEC_OK;
    int64_t q_rows = c->qk_row ? T : T * c->spec.heads, k_rows = c->qk_row ? T : T * c->spec.kv;
    RUN(m, K_QNORM, q_rows, err, arg_p(s->q0), arg_p(NULL), arg_p(params_act(&m->params, P_QNORM, layer)),
        arg_p(NULL), arg_p(s->q), arg_p(s->rstd_q), arg_d(c->norm_eps), arg_i(q_rows));
    RUN(m, K_KNORM, k_rows, err, arg_p(s->k0), arg_p(NULL), arg_p(params_act(&m->params, P_KNORM, layer)),
        arg_p(NULL), arg_p(s->k), arg_p(s->rstd_k), arg_d(c->norm_eps), arg_i(k_rows));
    return MOEC_OK;
}

/* m->branch = o(attention(norm(res))). Layer 0's res is the embedding; a later one is formed here
 * from the layer before: res = mid + branch. */
static moec_status attention(model *m, int layer, int64_t T, int64_t seq, moec_error *err) {
    const params *p = &m->params;
    const train_config *c = &m->config;
    const layer_state *s = &m->layer[layer];
    const void *x = layer ? m->branch : s->res, *add = layer ? m->layer[layer - 1].mid : NULL;
    RUN(m, K_NORM, T, err, arg_p(x), arg_p(add), arg_p(params_act(p, P_NORM1, layer)),
        arg_p(layer ? s->res : NULL), arg_p(s->y1), arg_p(s->rstd1), arg_d(c->norm_eps), arg_i(T));
    RUN(m, K_Q, T, err, arg_p(s->y1), arg_p(params_act(p, P_Q, layer)), arg_p(s->q0), arg_i(0), arg_i(T));
    RUN(m, K_KV, T, err, arg_p(s->y1), arg_p(params_act(p, P_K, layer)), arg_p(s->k0), arg_i(0), arg_i(T));
    RUN(m, K_KV, T, err, arg_p(s->y1), arg_p(params_act(p, P_V, layer)), arg_p(s->v), arg_i(0), arg_i(T));
    MOEC_TRY(qk_norm(m, layer, T, err));
    RUN(m, K_ROPE_Q, T, err, arg_p(s->q), arg_d(c->theta), arg_i(0), arg_i(seq), arg_i(T));
    RUN(m, K_ROPE_K, T, err, arg_p(s->k), arg_d(c->theta), arg_i(0), arg_i(seq), arg_i(T));
    RUN(m, K_ATTENTION, T, err, arg_p(s->q), arg_p(s->k), arg_p(s->v), arg_p(s->att), arg_p(s->lse),
        arg_i(seq), arg_i(T));
    RUN(m, K_O, T, err, arg_p(s->att), arg_p(params_act(p, P_O, layer)), arg_p(m->branch), arg_i(0),
        arg_i(T));
    return MOEC_OK;
}

/* mid = res + branch; m->branch = experts(norm(mid)). */
static moec_status experts(model *m, int layer, int64_t T, moec_error *err) {
    const params *p = &m->params;
    const layer_state *s = &m->layer[layer];
    bool dense = model_is_dense(m, layer);
    RUN(m, K_NORM, T, err, arg_p(m->branch), arg_p(s->res), arg_p(params_act(p, P_NORM2, layer)),
        arg_p(s->mid), arg_p(s->y2), arg_p(s->rstd2), arg_d(m->config.norm_eps), arg_i(T));
    if (!dense)
        RUN(m, K_ROUTER, T, err, arg_p(s->y2), arg_p(params_act(p, P_ROUTER, layer)), arg_p(s->logits),
            arg_i(0), arg_i(T));
    moec_forward call = {
        .T = T, .x = s->y2, .weights = model_expert_weights(m, layer), .out = m->branch,
        .saved = s->saved, .workspace = m->workspace,
        .logits = dense ? NULL : s->logits,
        .sel_bias = dense || !p->sel_bias ? NULL : p->sel_bias + layer * p->experts,
        .expert = dense ? m->zero_expert : NULL,
        .weight = dense ? m->one_weight : NULL,
    };
    return moec_layer_forward(dense ? m->dense : m->experts, &call, err);
}

moec_status forward_layers(model *m, const int32_t *tokens, int64_t T, int64_t seq, moec_error *err) {
    int layers = m->params.layers;
    if (T > m->capacity)
        return moec_fail(err, MOEC_E_INVAL, "%lld tokens are more than the model's buffers hold (%lld)",
                         (long long)T, (long long)m->capacity);
    MOEC_TRY(moec_upload(m->device, m->token, tokens, (size_t)T * sizeof *tokens, err));
    RUN(m, K_EMBED, T, err, arg_p(params_act(&m->params, P_EMBED, -1)), arg_p(m->token),
        arg_p(m->layer[0].res), arg_i(T));
    for (int layer = 0; layer < layers; layer++) {
        moec_status rc = attention(m, layer, T, seq, err);
        if (!rc) rc = experts(m, layer, T, err);
        if (rc) return moec_context(err, rc, "forward of layer %d", layer);
    }
    RUN(m, K_NORM, T, err, arg_p(m->branch), arg_p(m->layer[layers - 1].mid),
        arg_p(params_act(&m->params, P_NORM_OUT, -1)), arg_p(m->out), arg_p(m->final),
        arg_p(m->rstd_final), arg_d(m->config.norm_eps), arg_i(T));
    return MOEC_OK;
}

/* Tokens [from, from+n) of the head. */
static moec_status head_chunk(model *m, int64_t from, int64_t n, double scale, int beta, moec_error *err) {
    const params *p = &m->params;
    int kind = m->config.tied ? P_EMBED : P_HEAD;
    void *x = model_row(m, m->final, from, m->config.spec.H);
    RUN(m, K_HEAD, n, err, arg_p(x), arg_p(params_act(p, kind, -1)), arg_p(m->head_logits), arg_i(0),
        arg_i(n));
    RUN(m, K_XENT, n, err, arg_p(m->head_logits), arg_p(m->target + from), arg_p(m->loss + from),
        arg_d(scale), arg_i(n));
    if (scale == 0) return MOEC_OK;
    void *dx = model_row(m, m->d_y, from, m->config.spec.H);
    RUN(m, K_HEAD_DX, n, err, arg_p(m->head_logits), arg_p(params_act(p, kind, -1)), arg_p(dx), arg_i(0),
        arg_i(n));
    RUN(m, K_HEAD_DW, n, err, arg_p(m->head_logits), arg_p(x), arg_p(params_grad(p, kind, -1)),
        arg_i(from ? 1 : beta), arg_i(n));
    return MOEC_OK;
}

moec_status forward_head(model *m, const int32_t *targets, int64_t T, double scale, int beta,
                         moec_error *err) {
    MOEC_TRY(moec_upload(m->device, m->target, targets, (size_t)T * sizeof *targets, err));
    for (int64_t from = 0; from < T; from += m->head_rows) {
        int64_t n = T - from < m->head_rows ? T - from : m->head_rows;
        moec_status rc = head_chunk(m, from, n, scale, beta, err);
        if (rc) return moec_context(err, rc, "head");
    }
    return MOEC_OK;
}

moec_status model_next(model *m, const int32_t *tokens, int64_t count, float *logits, moec_error *err) {
    int kind = m->config.tied ? P_EMBED : P_HEAD;
    MOEC_TRY(forward_layers(m, tokens, count, count, err));
    void *x = model_row(m, m->final, count - 1, m->config.spec.H);
    RUN(m, K_HEAD, 1, err, arg_p(x), arg_p(params_act(&m->params, kind, -1)), arg_p(m->head_logits),
        arg_i(0), arg_i(1));
    MOEC_TRY(moec_synchronize(m->device, NULL, err));
    return moec_download(m->device, logits, m->head_logits, (size_t)m->config.spec.V * sizeof *logits, err);
}
