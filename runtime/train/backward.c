/* backward: forward's steps in reverse. d_res is the gradient on the residual stream; each half
 * layer turns it into d_y through its branch and adds it back inside rmsnorm_bwd (`dres`). Weight
 * gradients are summed in place with beta, so accumulation costs nothing. */
#include "model.h"

/* d_res (on the stream after the experts) -> d_res on mid. */
static moec_status experts(model *m, int layer, int64_t T, int beta, double aux, double z, moec_error *err) {
    const params *p = &m->params;
    const layer_state *s = &m->layer[layer];
    bool dense = model_is_dense(m, layer);
    moec_backward call = {
        .T = T, .x = s->y2, .weights = model_expert_weights(m, layer), .saved = s->saved,
        .logits = dense ? NULL : s->logits, .dout = m->d_res, .dx = m->d_y,
        .dw1 = params_grad(p, dense ? P_DENSE1 : P_W1, layer), .db1 = params_grad(p, P_B1, layer),
        .dw2 = params_grad(p, dense ? P_DENSE2 : P_W2, layer), .db2 = params_grad(p, P_B2, layer),
        .dshared_w1 = params_grad(p, P_SHARED1, layer), .dshared_w2 = params_grad(p, P_SHARED2, layer),
        .dlogits = dense ? NULL : m->d_logits, .accumulate = beta,
        .dweight = dense ? m->d_logits : NULL, /* of no use: the one expert's weight is fixed at 1 */
        .aux_coef = dense ? 0 : aux, .z_coef = dense ? 0 : z, .workspace = m->workspace,
    };
    MOEC_TRY(moec_layer_backward(dense ? m->dense : m->experts, &call, err));
    if (!dense) {
        RUN(m, K_ROUTER_DX, T, err, arg_p(m->d_logits), arg_p(params_act(p, P_ROUTER, layer)),
            arg_p(m->d_y), arg_i(1), arg_i(T));
        RUN(m, K_ROUTER_DW, T, err, arg_p(m->d_logits), arg_p(s->y2),
            arg_p(params_grad(p, P_ROUTER, layer)), arg_i(beta), arg_i(T));
    }
    RUN(m, K_NORM_BWD, T, err, arg_p(m->d_y), arg_p(s->mid), arg_p(params_act(p, P_NORM2, layer)),
        arg_p(s->rstd2), arg_p(m->d_res), arg_p(m->d_res), arg_p(params_grad(p, P_NORM2, layer)),
        arg_i(beta), arg_i(T));
    return MOEC_OK;
}

/* Gradients on rotated q and k -> on the projections' outputs, in place. */
static moec_status rotation_and_norm(model *m, int layer, int64_t T, int64_t seq, int beta, moec_error *err) {
    const params *p = &m->params;
    const train_config *c = &m->config;
    const layer_state *s = &m->layer[layer];
    RUN(m, K_ROPE_Q, T, err, arg_p(m->d_q), arg_d(c->theta), arg_i(1), arg_i(seq), arg_i(T));
    RUN(m, K_ROPE_K, T, err, arg_p(m->d_k), arg_d(c->theta), arg_i(1), arg_i(seq), arg_i(T));
    if (!c->qk_norm && !c->qk_row) return MOEC_OK;
    int64_t q_rows = c->qk_row ? T : T * c->spec.heads, k_rows = c->qk_row ? T : T * c->spec.kv;
    RUN(m, K_QNORM_BWD, q_rows, err, arg_p(m->d_q), arg_p(s->q0), arg_p(params_act(p, P_QNORM, layer)),
        arg_p(s->rstd_q), arg_p(NULL), arg_p(m->d_q), arg_p(params_grad(p, P_QNORM, layer)), arg_i(beta),
        arg_i(q_rows));
    RUN(m, K_KNORM_BWD, k_rows, err, arg_p(m->d_k), arg_p(s->k0), arg_p(params_act(p, P_KNORM, layer)),
        arg_p(s->rstd_k), arg_p(NULL), arg_p(m->d_k), arg_p(params_grad(p, P_KNORM, layer)), arg_i(beta),
        arg_i(k_rows));
    return MOEC_OK;
}

static moec_status projections(model *m, int layer, int64_t T, int beta, moec_error *err) {
    const params *p = &m->params;
    const void *y = m->layer[layer].y1;
    RUN(m, K_Q_DX, T, err, arg_p(m->d_q), arg_p(params_act(p, P_Q, layer)), arg_p(m->d_y), arg_i(0), arg_i(T));
    RUN(m, K_KV_DX, T, err, arg_p(m->d_k), arg_p(params_act(p, P_K, layer)), arg_p(m->d_y), arg_i(1), arg_i(T));
    RUN(m, K_KV_DX, T, err, arg_p(m->d_v), arg_p(params_act(p, P_V, layer)), arg_p(m->d_y), arg_i(1), arg_i(T));
    RUN(m, K_Q_DW, T, err, arg_p(m->d_q), arg_p(y), arg_p(params_grad(p, P_Q, layer)), arg_i(beta), arg_i(T));
    RUN(m, K_KV_DW, T, err, arg_p(m->d_k), arg_p(y), arg_p(params_grad(p, P_K, layer)), arg_i(beta), arg_i(T));
    RUN(m, K_KV_DW, T, err, arg_p(m->d_v), arg_p(y), arg_p(params_grad(p, P_V, layer)), arg_i(beta), arg_i(T));
    return MOEC_OK;
}

/* d_res on mid -> d_res on res. */
static moec_status attention(model *m, int layer, int64_t T, int64_t seq, int beta, moec_error *err) {
    const params *p = &m->params;
    const layer_state *s = &m->layer[layer];
    RUN(m, K_O_DX, T, err, arg_p(m->d_res), arg_p(params_act(p, P_O, layer)), arg_p(m->d_att), arg_i(0),
        arg_i(T));
    RUN(m, K_O_DW, T, err, arg_p(m->d_res), arg_p(s->att), arg_p(params_grad(p, P_O, layer)), arg_i(beta),
        arg_i(T));
    RUN(m, K_ATTENTION_BWD, T, err, arg_p(s->q), arg_p(s->k), arg_p(s->v), arg_p(s->att), arg_p(s->lse),
        arg_p(m->d_att), arg_p(m->d_q), arg_p(m->d_k), arg_p(m->d_v), arg_i(seq), arg_i(T));
    MOEC_TRY(rotation_and_norm(m, layer, T, seq, beta, err));
    MOEC_TRY(projections(m, layer, T, beta, err));
    RUN(m, K_NORM_BWD, T, err, arg_p(m->d_y), arg_p(s->res), arg_p(params_act(p, P_NORM1, layer)),
        arg_p(s->rstd1), arg_p(m->d_res), arg_p(m->d_res), arg_p(params_grad(p, P_NORM1, layer)),
        arg_i(beta), arg_i(T));
    return MOEC_OK;
}

moec_status backward_layers(model *m, int64_t T, int64_t seq, int beta, double aux, double z,
                            moec_error *err) {
    const params *p = &m->params;
    RUN(m, K_NORM_BWD, T, err, arg_p(m->d_y), arg_p(m->out), arg_p(params_act(p, P_NORM_OUT, -1)),
        arg_p(m->rstd_final), arg_p(NULL), arg_p(m->d_res), arg_p(params_grad(p, P_NORM_OUT, -1)),
        arg_i(beta), arg_i(T));
    for (int layer = p->layers - 1; layer >= 0; layer--) {
        moec_status rc = experts(m, layer, T, beta, aux, z, err);
        if (!rc) rc = attention(m, layer, T, seq, beta, err);
        if (rc) return moec_context(err, rc, "backward of layer %d", layer);
    }
    /* A tied table already holds the head's gradient of this micro-batch. */
    RUN(m, K_EMBED_BWD, T, err, arg_p(m->d_res), arg_p(m->token), arg_p(params_grad(p, P_EMBED, -1)),
        arg_i(m->config.tied ? 1 : beta), arg_i(T));
    return MOEC_OK;
}
