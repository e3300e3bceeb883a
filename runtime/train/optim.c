/* optim: one gradient norm, two launches of AdamW, and the selection bias.
 *
 * Weights with decay lie before those without in the flat buffers. The bias of sigmoid_bias routing
 * is not trained by gradients: E numbers a layer, moved on the host by the step's loads. */
#include "model.h"

#include <math.h>

#include "schedule.h"

moec_status model_grad_norm(model *m, double *norm, moec_error *err) {
    int64_t N = m->params.total;
    RUN(m, K_SQNORM, N, err, arg_p(m->params.grad), arg_p(m->norm2), arg_i(0), arg_i(N));
    MOEC_TRY(moec_synchronize(m->device, NULL, err));
    double sum = 0;
    MOEC_TRY(moec_download(m->device, &sum, m->norm2, sizeof sum, err));
    *norm = sqrt(sum);
    return MOEC_OK;
}

static moec_status update(model *m, int64_t from, int64_t to, double decay, int64_t step, double lr,
                          double scale, moec_error *err) {
    const params *p = &m->params;
    const train_config *c = &m->config;
    int64_t N = to - from;
    if (N == 0) return MOEC_OK;
    void *act = (char *)p->act + from * (p->f32 ? 4 : 2);
    RUN(m, K_ADAMW, N, err, arg_p(p->grad + from), arg_p(p->master + from), arg_p(p->m + from),
        arg_p(p->v + from), arg_p(act), arg_d(lr), arg_d(c->beta1), arg_d(c->beta2), arg_d(c->adam_eps),
        arg_d(decay), arg_d(scale), arg_i(step), arg_i(N));
    return MOEC_OK;
}

moec_status model_update(model *m, int64_t step, double lr, double gradient_scale, moec_error *err) {
    const params *p = &m->params;
    MOEC_TRY(update(m, 0, p->decayed, m->config.weight_decay, step, lr, gradient_scale, err));
    return update(m, p->decayed, p->total, 0, step, lr, gradient_scale, err);
}

moec_status model_balance(model *m, moec_error *err) {
    params *p = &m->params;
    if (!p->sel_bias || m->config.bias_rate == 0) return MOEC_OK;
    size_t bytes = (size_t)(p->layers * p->experts) * sizeof(float);
    MOEC_TRY(moec_download(m->device, m->host_bias, p->sel_bias, bytes, err));
    for (int layer = (int)m->config.dense; layer < p->layers; layer++)
        schedule_balance(m->host_bias + layer * p->experts, m->stats.load + layer * p->experts, p->experts,
                         m->config.bias_rate);
    return moec_upload(m->device, p->sel_bias, m->host_bias, bytes, err);
}
