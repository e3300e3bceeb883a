/* params: every parameter of the model in flat device buffers (params.c), and their names and
 * slices in checkpoints (params_names.c). */
#ifndef MOEC_TRAIN_PARAMS_H
#define MOEC_TRAIN_PARAMS_H

#include "ckpt.h"
#include "config.h"
#include "device.h"

/* The kinds of tensors: rows of the table in params.c. */
enum {
    P_EMBED, P_HEAD, P_NORM_OUT,                                         /* of the model */
    P_NORM1, P_Q, P_K, P_V, P_QNORM, P_KNORM, P_O, P_NORM2,              /* of every layer */
    P_ROUTER, P_W1, P_B1, P_W2, P_B2, P_SHARED1, P_SHARED2,              /* of layers with experts */
    P_DENSE1, P_DENSE2,                                                  /* of dense layers */
    P_KINDS
};

/* One tensor as kernels see it: a slice of the flat buffers, [rows][columns]. */
typedef struct param {
    int kind, layer;        /* layer -1: of the model */
    int64_t offset, rows, columns;
} param;

/* Flat buffers of `total` elements: first those with weight decay, then those without. */
typedef struct params {
    moec_device *device;
    bool f32;               /* act is float: `act` is `master` itself */
    bool training;          /* grad, m and v exist */
    float *master, *grad, *m, *v;
    void *act;              /* what kernels read, in the spec's dtype */
    int64_t total, decayed; /* elements; those before `decayed` decay */
    int count, layers;
    param *list;
    int *index;             /* [layers + 1][P_KINDS] -> list, -1 when absent; row 0: of the model */
    float *sel_bias;        /* [layers][E], router=sigmoid_bias; else NULL */
    int64_t experts;
    st_tensor *names;       /* tensors of a checkpoint; sel_bias ones after `trained` */
    int64_t *at;            /* [name_count] offset in the flat buffers, or in sel_bias */
    int64_t name_count, trained;
} params;

moec_status params_create(moec_device *device, const train_config *config, bool training, params *p,
                          moec_error *err);
void params_free(params *p);
/* Normal weights, unit norms, zero moments: a function of the seed. */
moec_status params_init(params *p, const train_config *config, moec_error *err);

/* NULL when the model has no such tensor. layer -1: of the model. */
const param *params_get(const params *p, int kind, int layer);
const void *params_act(const params *p, int kind, int layer);
float *params_grad(const params *p, int kind, int layer);
const char *params_kind_name(int kind); /* "q", "w1": for messages */

/* Tensors of checkpoints (params_names.c). */
moec_status params_name_all(params *p, const train_config *config, moec_error *err);
ckpt_tensors params_checkpoint(params *p);
/* Architecture in the words of Hugging Face's config.json; malloc'ed, NULL when out of memory. */
char *params_config_json(const train_config *config);

#endif
