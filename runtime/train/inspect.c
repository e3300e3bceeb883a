/* inspect: after a NaN, which tensor was the first. Runs only when a step has failed: it reads every
 * tensor back in the order of computation and names the first that is not finite. Weights come first:
 * a bad weight explains everything after it. */
#include "model.h"

#include <stdlib.h>
#include <string.h>

typedef struct scan {
    model *m;
    void *buffer;
    size_t room;
    char *what;             /* [160], "" until something is found */
    moec_error *err;
} scan;

static bool all_finite(const void *data, int64_t count, size_t bytes) {
    if (bytes == 2) {
        const uint16_t *h = data;
        for (int64_t i = 0; i < count; i++)
            if ((h[i] & 0x7f80) == 0x7f80) return false;
        return true;
    }
    const uint32_t *f = data;
    for (int64_t i = 0; i < count; i++)
        if ((f[i] & 0x7f800000) == 0x7f800000) return false;
    return true;
}

static moec_status look(scan *s, const void *data, int64_t count, size_t bytes, int layer,
                        const char *name) {
    size_t total = (size_t)count * bytes;
    if (s->what[0] || !data) return MOEC_OK;
    if (total > s->room) {
        void *grown = realloc(s->buffer, total);
        if (!grown) return moec_fail(s->err, MOEC_E_NOMEM, "inspection of %s", name);
        s->buffer = grown;
        s->room = total;
    }
    MOEC_TRY(moec_download(s->m->device, s->buffer, data, total, s->err));
    if (all_finite(s->buffer, count, bytes)) return MOEC_OK;
    if (layer < 0) snprintf(s->what, 160, "%s", name);
    else snprintf(s->what, 160, "layer %d %s", layer, name);
    return MOEC_OK;
}

static moec_status look_params(scan *s, const float *flat, const char *class) {
    const params *p = &s->m->params;
    for (int i = 0; i < p->count && flat; i++) {
        char name[120];
        const param *t = &p->list[i];
        snprintf(name, sizeof name, "%s of %s", class, params_kind_name(t->kind));
        MOEC_TRY(look(s, flat + t->offset, t->rows * t->columns, 4, t->layer, name));
    }
    return MOEC_OK;
}

static moec_status look_layer(scan *s, int layer, int64_t T) {
    const moec_spec *spec = &s->m->config.spec;
    const layer_state *l = &s->m->layer[layer];
    size_t act = model_act_bytes(s->m);
    int64_t q = T * spec->heads * spec->dim, kv = T * spec->kv * spec->dim;
    const struct { const void *data; int64_t count; size_t bytes; const char *name; } rows[] = {
        {l->res, T * spec->H, act, "input (residual stream)"},
        {l->y1, T * spec->H, act, "attention norm output"},
        {l->q0, q, act, "q"}, {l->k0, kv, act, "k"}, {l->v, kv, act, "v"},
        {l->q, q, act, "rotated q"}, {l->k, kv, act, "rotated k"},
        {l->att, q, act, "attention output"},
        {l->mid, T * spec->H, act, "residual stream before the experts"},
        {l->y2, T * spec->H, act, "expert norm output"},
        {l->logits, T * spec->E, 4, "router logits"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        MOEC_TRY(look(s, rows[i].data, rows[i].count, rows[i].bytes, layer, rows[i].name));
    return MOEC_OK;
}

static moec_status look_all(scan *s, int64_t T) {
    model *m = s->m;
    int64_t H = m->config.spec.H;
    MOEC_TRY(look_params(s, m->params.master, "weights"));
    for (int layer = 0; layer < m->params.layers; layer++) MOEC_TRY(look_layer(s, layer, T));
    MOEC_TRY(look(s, m->out, T * H, model_act_bytes(m), -1, "output of the last layer's experts"));
    MOEC_TRY(look(s, m->final, T * H, model_act_bytes(m), -1, "final norm output"));
    MOEC_TRY(look(s, m->loss, T, 4, -1, "loss"));
    return look_params(s, m->params.grad, "gradient");
}

moec_status model_find_nonfinite(model *m, int64_t T, char what[160], moec_error *err) {
    scan s = {.m = m, .what = what, .err = err};
    what[0] = 0;
    moec_status rc = look_all(&s, T);
    free(s.buffer);
    return rc;
}
