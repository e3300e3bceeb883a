/* params: one table says which tensors a model has; all of them live in flat buffers.
 *
 * Flat buffers make the optimizer two launches (with and without weight decay), the gradient norm
 * one, and a checkpoint a list of offsets. Each tensor begins at a multiple of 64 elements; the
 * padding between is zero in every buffer and stays so (zero gradient, zero moments, zero decay). */
#include "params.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "data.h"

enum { ALIGN = 64 };
typedef enum { OF_MODEL, OF_LAYER, OF_EXPERTS, OF_DENSE } owner;
typedef enum { INIT_NORMAL, INIT_RESIDUAL, INIT_ONE, INIT_ZERO } init_kind;

/* kind, name, whose, shape (expressions; S is the shared or dense width times 2 when gated), decays,
 * initial values. INIT_RESIDUAL: what writes to the residual stream starts smaller by sqrt(2 layers). */
static const struct kind_row {
    const char *name;
    owner of;
    const char *rows, *columns;
    bool decays;
    init_kind init;
} kinds[P_KINDS] = {
    [P_EMBED]    = {"embedding", OF_MODEL, "V", "H", true, INIT_NORMAL},
    [P_HEAD]     = {"head", OF_MODEL, "V", "H", true, INIT_NORMAL},
    [P_NORM_OUT] = {"final norm", OF_MODEL, "1", "H", false, INIT_ONE},
    [P_NORM1]    = {"attention norm", OF_LAYER, "1", "H", false, INIT_ONE},
    [P_Q]        = {"q", OF_LAYER, "heads*dim", "H", true, INIT_NORMAL},
    [P_K]        = {"k", OF_LAYER, "kv*dim", "H", true, INIT_NORMAL},
    [P_V]        = {"v", OF_LAYER, "kv*dim", "H", true, INIT_NORMAL},
    [P_QNORM]    = {"q norm", OF_LAYER, "1", "dim", false, INIT_ONE},
    [P_KNORM]    = {"k norm", OF_LAYER, "1", "dim", false, INIT_ONE},
    [P_O]        = {"o", OF_LAYER, "H", "heads*dim", true, INIT_RESIDUAL},
    [P_NORM2]    = {"expert norm", OF_LAYER, "1", "H", false, INIT_ONE},
    [P_ROUTER]   = {"router", OF_EXPERTS, "E", "H", true, INIT_NORMAL},
    [P_W1]       = {"experts w1", OF_EXPERTS, "E*U", "H", true, INIT_NORMAL},
    [P_B1]       = {"experts b1", OF_EXPERTS, "E", "U", false, INIT_ZERO},
    [P_W2]       = {"experts w2", OF_EXPERTS, "E*H", "F", true, INIT_RESIDUAL},
    [P_B2]       = {"experts b2", OF_EXPERTS, "E", "H", false, INIT_ZERO},
    [P_SHARED1]  = {"shared w1", OF_EXPERTS, "U", "H", true, INIT_NORMAL},
    [P_SHARED2]  = {"shared w2", OF_EXPERTS, "H", "F", true, INIT_RESIDUAL},
    [P_DENSE1]   = {"dense w1", OF_DENSE, "U", "H", true, INIT_NORMAL},
    [P_DENSE2]   = {"dense w2", OF_DENSE, "H", "F", true, INIT_RESIDUAL},
};

const char *params_kind_name(int kind) { return kinds[kind].name; }

/* ---- which tensors ---- */

static bool wanted(const train_config *c, int kind, int layer) {
    owner of = kinds[kind].of;
    if ((of == OF_MODEL) != (layer < 0)) return false;
    if (of == OF_EXPERTS && layer < c->dense) return false;
    if (of == OF_DENSE && layer >= c->dense) return false;
    switch (kind) {
    case P_HEAD: return !c->tied;
    case P_QNORM: case P_KNORM: return c->qk_norm || c->qk_row;
    case P_B1: case P_B2: return c->spec.bias;
    case P_SHARED1: case P_SHARED2: return c->spec.shared > 0;
    default: return true;
    }
}

/* Sizes of a tensor. Shared and dense feed-forwards are the expert's shapes at another width. */
static moec_status shape(const train_config *c, int kind, int64_t *rows, int64_t *columns,
                         moec_error *err) {
    moec_spec spec = c->spec;
    moec_sizes sizes = {.spec = &spec};
    if (kind == P_SHARED1 || kind == P_SHARED2) spec.F = spec.shared;
    if (kinds[kind].of == OF_DENSE) spec.F = c->dense_F;
    if (kind == P_QNORM && c->qk_row) spec.dim *= spec.heads;
    if (kind == P_KNORM && c->qk_row) spec.dim *= spec.kv;
    MOEC_TRY(moec_expr(kinds[kind].rows, &sizes, rows, err));
    return moec_expr(kinds[kind].columns, &sizes, columns, err);
}

static moec_status add(params *p, const train_config *c, int kind, int layer, moec_error *err) {
    param *t = &p->list[p->count];
    *t = (param){.kind = kind, .layer = layer, .offset = p->total};
    MOEC_TRY(shape(c, kind, &t->rows, &t->columns, err));
    p->index[(layer + 1) * P_KINDS + kind] = p->count++;
    p->total += (t->rows * t->columns + ALIGN - 1) / ALIGN * ALIGN;
    return MOEC_OK;
}

static moec_status list_all(params *p, const train_config *c, moec_error *err) {
    int slots = (p->layers + 1) * P_KINDS;
    p->list = calloc((size_t)slots, sizeof *p->list);
    p->index = malloc((size_t)slots * sizeof *p->index);
    if (!p->list || !p->index) return moec_fail(err, MOEC_E_NOMEM, "list of parameters");
    for (int i = 0; i < slots; i++) p->index[i] = -1;
    for (int decays = 1; decays >= 0; decays--) {
        for (int layer = -1; layer < p->layers; layer++)
            for (int kind = 0; kind < P_KINDS; kind++)
                if (kinds[kind].decays == decays && wanted(c, kind, layer))
                    MOEC_TRY(add(p, c, kind, layer, err));
        if (decays) p->decayed = p->total;
    }
    return MOEC_OK;
}

/* ---- memory ---- */

static moec_status zeroed(params *p, int64_t count, const char *who, float **out, moec_error *err) {
    enum { CHUNK = 1 << 20 };
    size_t bytes = (size_t)(count ? count : 1) * sizeof(float);
    MOEC_TRY(moec_alloc(p->device, bytes, who, (void **)out, err));
    void *zero = calloc(1, CHUNK);
    if (!zero) return moec_fail(err, MOEC_E_NOMEM, "zeros");
    moec_status rc = MOEC_OK;
    for (size_t at = 0; at < bytes && !rc; at += CHUNK)
        rc = moec_upload(p->device, (char *)*out + at, zero, bytes - at < CHUNK ? bytes - at : CHUNK, err);
    free(zero);
    return rc;
}

static moec_status allocate(params *p, const train_config *c, moec_error *err) {
    MOEC_TRY(zeroed(p, p->total, "master weights", &p->master, err));
    p->act = p->master;
    if (!p->f32) { /* total is a multiple of 64: two bf16 to a float */
        float *half = NULL;
        MOEC_TRY(zeroed(p, p->total / 2, "weights", &half, err));
        p->act = half;
    }
    if (c->spec.router == MOEC_SIGMOID_BIAS)
        MOEC_TRY(zeroed(p, p->layers * c->spec.E, "selection bias", &p->sel_bias, err));
    if (!p->training) return MOEC_OK;
    MOEC_TRY(zeroed(p, p->total, "gradients", &p->grad, err));
    MOEC_TRY(zeroed(p, p->total, "first moments", &p->m, err));
    return zeroed(p, p->total, "second moments", &p->v, err);
}

moec_status params_create(moec_device *device, const train_config *config, bool training, params *p,
                          moec_error *err) {
    memset(p, 0, sizeof *p);
    p->device = device;
    p->f32 = config->spec.dtype == MOEC_F32;
    p->training = training;
    p->layers = (int)config->layers;
    p->experts = config->spec.E;
    moec_status rc = list_all(p, config, err);
    if (!rc) rc = allocate(p, config, err);
    if (!rc) rc = params_name_all(p, config, err);
    if (rc) params_free(p);
    return rc;
}

void params_free(params *p) {
    if (!p->device) return;
    if (p->act != p->master) moec_free(p->device, p->act);
    moec_free(p->device, p->master);
    moec_free(p->device, p->grad);
    moec_free(p->device, p->m);
    moec_free(p->device, p->v);
    moec_free(p->device, p->sel_bias);
    free(p->list);
    free(p->index);
    free(p->names);
    free(p->at);
    memset(p, 0, sizeof *p);
}

/* ---- initial values ---- */

/* Two normal numbers from one counter: Box and Muller. */
static void normal_pair(uint64_t counter, double *a, double *b) {
    const double tau = 6.28318530717958647692, unit = 1.0 / 9007199254740992.0; /* 2^-53 */
    double u = ((double)(mix64(counter) >> 11) + 1) * unit;
    double v = (double)(mix64(counter ^ 0x5851f42d4c957f2du) >> 11) * unit;
    double r = sqrt(-2 * log(u));
    *a = r * cos(tau * v);
    *b = r * sin(tau * v);
}

static void fill(float *data, const param *t, uint64_t key, double std) {
    int64_t n = t->rows * t->columns;
    init_kind init = kinds[t->kind].init;
    if (init == INIT_ONE || init == INIT_ZERO) {
        for (int64_t i = 0; i < n; i++) data[i] = init == INIT_ONE;
        return;
    }
    for (int64_t i = 0; i < n; i += 2) {
        double a, b;
        normal_pair(key + (uint64_t)i, &a, &b);
        data[i] = (float)(std * a);
        if (i + 1 < n) data[i + 1] = (float)(std * b);
    }
}

/* bf16 of the same values, to nearest even; what the optimizer's kernel writes after each step. */
static moec_status put_act(params *p, int64_t offset, const float *data, int64_t count, moec_error *err) {
    if (p->f32) return MOEC_OK;
    uint16_t *half = malloc((size_t)count * sizeof *half);
    if (!half) return moec_fail(err, MOEC_E_NOMEM, "bf16 weights");
    for (int64_t i = 0; i < count; i++) {
        uint32_t bits;
        memcpy(&bits, &data[i], 4);
        bool nan = (bits & 0x7fffffff) > 0x7f800000;
        half[i] = (uint16_t)(nan ? (bits >> 16) | 0x40 : (bits + 0x7fff + (bits >> 16 & 1)) >> 16);
    }
    moec_status rc = moec_upload(p->device, (char *)p->act + offset * 2, half, (size_t)count * 2, err);
    free(half);
    return rc;
}

static moec_status put_master(params *p, int64_t offset, const float *data, int64_t count,
                              moec_error *err) {
    MOEC_TRY(moec_upload(p->device, p->master + offset, data, (size_t)count * 4, err));
    return put_act(p, offset, data, count, err);
}

moec_status params_init(params *p, const train_config *config, moec_error *err) {
    moec_status rc = MOEC_OK;
    for (int i = 0; i < p->count && !rc; i++) {
        const param *t = &p->list[i];
        int64_t n = t->rows * t->columns;
        double std = config->init_std;
        if (kinds[t->kind].init == INIT_RESIDUAL) std /= sqrt(2 * (double)config->layers);
        float *data = malloc((size_t)n * sizeof *data);
        if (!data) return moec_fail(err, MOEC_E_NOMEM, "initial weights");
        fill(data, t, mix64(mix64((uint64_t)config->seed) + (uint64_t)i) , std);
        rc = put_master(p, t->offset, data, n, err);
        free(data);
    }
    return rc;
}

/* ---- access ---- */

const param *params_get(const params *p, int kind, int layer) {
    int i = p->index[(layer + 1) * P_KINDS + kind];
    return i < 0 ? NULL : &p->list[i];
}

const void *params_act(const params *p, int kind, int layer) {
    const param *t = params_get(p, kind, layer);
    return t ? (const char *)p->act + t->offset * (p->f32 ? 4 : 2) : NULL;
}

float *params_grad(const params *p, int kind, int layer) {
    const param *t = params_get(p, kind, layer);
    return t && p->grad ? p->grad + t->offset : NULL;
}

/* ---- checkpoints ---- */

static moec_status fetch(void *user, ckpt_kind kind, int64_t index, float *data, moec_error *err) {
    params *p = user;
    const float *source = kind == CKPT_M ? p->m : kind == CKPT_V ? p->v : p->master;
    if (index >= p->trained) source = p->sel_bias;
    return moec_download(p->device, data, source + p->at[index], (size_t)p->names[index].count * 4, err);
}

static moec_status store(void *user, ckpt_kind kind, int64_t index, const float *data, moec_error *err) {
    params *p = user;
    int64_t at = p->at[index], count = p->names[index].count;
    size_t bytes = (size_t)count * 4;
    if (index >= p->trained) return moec_upload(p->device, p->sel_bias + at, data, bytes, err);
    if (kind == CKPT_WEIGHT) return put_master(p, at, data, count, err);
    if (!p->training) return MOEC_OK;
    return moec_upload(p->device, (kind == CKPT_M ? p->m : p->v) + at, data, bytes, err);
}

ckpt_tensors params_checkpoint(params *p) {
    return (ckpt_tensors){.list = p->names, .count = p->name_count, .trained = p->trained,
                          .fetch = fetch, .store = store, .user = p};
}
