/* kernels: what the model needs compiled, one row each, requested all at once so that compilers run
 * side by side. A row gives the op and its sizes in the model's terms; equal kernels are loaded once
 * by the device's registry. */
#include "model.h"

#include <string.h>

/* Sizes of a row's spec: expressions over the model's spec; "" leaves the default. N is the row
 * width of QK-norm. rows: how many tokens the kernel sees per token of the batch. */
static const struct kernel_row {
    moec_op_id op;
    const char *H, *F;      /* linear: in and out */
    bool out_f32;
    const char *rows;
    bool backward;
} table[K_COUNT] = {
    [K_EMBED]         = {MOEC_OP_embed, "H", "", false, "T", false},
    [K_EMBED_BWD]     = {MOEC_OP_embed_bwd, "H", "", false, "T", true},
    [K_NORM]          = {MOEC_OP_rmsnorm, "H", "", false, "T", false},
    [K_NORM_BWD]      = {MOEC_OP_rmsnorm_bwd, "H", "", false, "T", true},
    [K_QNORM]         = {MOEC_OP_rmsnorm, "q", "", false, "T*heads", false},
    [K_QNORM_BWD]     = {MOEC_OP_rmsnorm_bwd, "q", "", false, "T*heads", true},
    [K_KNORM]         = {MOEC_OP_rmsnorm, "k", "", false, "T*kv", false},
    [K_KNORM_BWD]     = {MOEC_OP_rmsnorm_bwd, "k", "", false, "T*kv", true},
    [K_ROPE_Q]        = {MOEC_OP_rope, "", "", false, "T", false},
    [K_ROPE_K]        = {MOEC_OP_rope, "", "", false, "T", false},
    [K_ATTENTION]     = {MOEC_OP_attention, "", "", false, "T", false},
    [K_ATTENTION_BWD] = {MOEC_OP_attention_bwd, "", "", false, "T", true},
    [K_Q]             = {MOEC_OP_linear, "H", "heads*dim", false, "T", false},
    [K_Q_DX]          = {MOEC_OP_linear_dx, "H", "heads*dim", false, "T", true},
    [K_Q_DW]          = {MOEC_OP_linear_dw, "H", "heads*dim", false, "T", true},
    [K_KV]            = {MOEC_OP_linear, "H", "kv*dim", false, "T", false},
    [K_KV_DX]         = {MOEC_OP_linear_dx, "H", "kv*dim", false, "T", true},
    [K_KV_DW]         = {MOEC_OP_linear_dw, "H", "kv*dim", false, "T", true},
    [K_O]             = {MOEC_OP_linear, "heads*dim", "H", false, "T", false},
    [K_O_DX]          = {MOEC_OP_linear_dx, "heads*dim", "H", false, "T", true},
    [K_O_DW]          = {MOEC_OP_linear_dw, "heads*dim", "H", false, "T", true},
    [K_ROUTER]        = {MOEC_OP_linear, "H", "E", true, "T", false},
    [K_ROUTER_DX]     = {MOEC_OP_linear_dx, "H", "E", true, "T", true},
    [K_ROUTER_DW]     = {MOEC_OP_linear_dw, "H", "E", true, "T", true},
    [K_HEAD]          = {MOEC_OP_linear, "H", "V", true, "T", false},
    [K_HEAD_DX]       = {MOEC_OP_linear_dx, "H", "V", true, "T", true},
    [K_HEAD_DW]       = {MOEC_OP_linear_dw, "H", "V", true, "T", true},
    [K_XENT]          = {MOEC_OP_xent, "", "", true, "T", false},
    [K_SQNORM]        = {MOEC_OP_sqnorm, "", "", false, "0", true},
    [K_ADAMW]         = {MOEC_OP_adamw, "", "", false, "0", true},
};

static bool wanted(const model *m, int k) {
    const train_config *c = &m->config;
    if (table[k].backward && !m->training) return false;
    if (k >= K_QNORM && k <= K_KNORM_BWD) return c->qk_norm || c->qk_row;
    if (k >= K_ROUTER && k <= K_ROUTER_DW) return c->dense < c->layers;
    return true;
}

/* Width of a row of QK-norm: a head, or the whole projection. */
static int64_t norm_width(const train_config *c, bool query) {
    return c->qk_row ? c->spec.dim * (query ? c->spec.heads : c->spec.kv) : c->spec.dim;
}

static moec_status size(const model *m, const char *text, int64_t T, int64_t *value, moec_error *err) {
    moec_sizes sizes = {.spec = &m->config.spec, .T = T};
    if (!strcmp(text, "q") || !strcmp(text, "k")) {
        *value = norm_width(&m->config, *text == 'q');
        return MOEC_OK;
    }
    return *text ? moec_expr(text, &sizes, value, err) : MOEC_OK;
}

static moec_status make_spec(const model *m, int k, moec_spec *spec, moec_error *err) {
    const moec_spec *s = &m->config.spec;
    moec_spec_default(spec);
    spec->dtype = s->dtype;
    spec->out = table[k].out_f32 ? MOEC_OUT_F32 : MOEC_OUT_SAME;
    spec->V = s->V;
    spec->dim = s->dim;
    spec->heads = k == K_ROPE_K ? s->kv : s->heads;
    spec->kv = k == K_ROPE_K || k == K_ROPE_Q ? spec->heads : s->kv;
    MOEC_TRY(size(m, table[k].H, 0, &spec->H, err));
    return size(m, table[k].F, 0, &spec->F, err);
}

/* Scratch is shared: one buffer of the largest need at full capacity. */
static moec_status make_scratch(model *m, moec_error *err) {
    size_t most = 0;
    for (int k = 0; k < K_COUNT; k++) {
        if (!m->kernel[k]) continue;
        size_t bytes = 0;
        int64_t T = 0, N = m->params.total;
        MOEC_TRY(size(m, table[k].rows, m->capacity, &T, err));
        MOEC_TRY(moec_module_scratch(m->device, m->kernel[k], T, T, N, &bytes, err));
        if (bytes > most) most = bytes;
    }
    return most ? moec_alloc(m->device, most, "scratch of the trainer's kernels", &m->scratch, err)
                : MOEC_OK;
}

moec_status kernels_create(model *m, moec_error *err) {
    moec_spec specs[K_COUNT];
    moec_request requests[K_COUNT];
    moec_module *made[K_COUNT] = {NULL};
    int count = 0, slot[K_COUNT];
    for (int k = 0; k < K_COUNT; k++) {
        if (!wanted(m, k)) continue;
        MOEC_TRY(make_spec(m, k, &specs[count], err));
        requests[count] = (moec_request){.op = moec_op_get(table[k].op), .spec = &specs[count],
                                         .tokens = m->capacity};
        slot[count++] = k;
    }
    MOEC_TRY(moec_module_create_all(m->device, requests, count, made, err));
    for (int i = 0; i < count; i++) m->kernel[slot[i]] = made[i];
    return make_scratch(m, err);
}

void kernels_free(model *m) {
    for (int k = 0; k < K_COUNT; k++)
        if (m->kernel[k]) moec_module_free(m->device, m->kernel[k]);
    moec_free(m->device, m->scratch);
}

moec_status kernel_run(model *m, int k, const moec_arg *args, int count, int64_t T, moec_error *err) {
    const moec_op *op = moec_op_get(table[k].op);
    if (!m->kernel[k] || count != op->arg_count)
        return moec_fail(err, MOEC_E_INVAL, "op %s: called with %d of its %d arguments", op->name, count,
                         op->arg_count);
    return moec_module_launch(m->device, NULL, m->kernel[k], args, T, T, T, m->scratch, err);
}
