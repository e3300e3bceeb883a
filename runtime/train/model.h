/* model: a decoder with experts, forward and backward, through the ops of a device.
 *
 *   kernels.c   the compiled kernels it needs, as one table
 *   model.c     creation, buffers, what a step reports
 *   forward.c   tokens -> loss (and the logits' gradient)
 *   backward.c  the gradient of everything
 *   optim.c     gradient norm, AdamW, selection bias
 *   inspect.c   which tensor stopped being finite first
 *
 * No arithmetic on activations happens on the host: it launches kernels, and reads back losses and
 * the expert loads. After model_create nothing is allocated, compiled or opened.
 *
 * T tokens of a micro-batch = sequences * seq. Residual stream: res[0] = embedding;
 * mid[l] = res[l] + attention(norm(res[l])); res[l+1] = mid[l] + experts(norm(mid[l])). */
#ifndef MOEC_TRAIN_MODEL_H
#define MOEC_TRAIN_MODEL_H

#include "moec.h"
#include "params.h"

/* Kernels of the model besides those of the MoE layer: rows of the table in kernels.c. */
enum {
    K_EMBED, K_EMBED_BWD, K_NORM, K_NORM_BWD, K_QNORM, K_QNORM_BWD, K_KNORM, K_KNORM_BWD,
    K_ROPE_Q, K_ROPE_K, K_ATTENTION, K_ATTENTION_BWD,
    K_Q, K_Q_DX, K_Q_DW, K_KV, K_KV_DX, K_KV_DW, K_O, K_O_DX, K_O_DW,
    K_ROUTER, K_ROUTER_DX, K_ROUTER_DW, K_HEAD, K_HEAD_DX, K_HEAD_DW, K_XENT, K_SQNORM, K_ADAMW,
    K_COUNT
};

/* What one layer keeps from forward to backward. */
typedef struct layer_state {
    void *res, *mid;        /* [T][H] residual stream before attention and before the experts */
    void *y1, *y2;          /* [T][H] their norms */
    float *rstd1, *rstd2;   /* [T] */
    void *q, *k, *v;        /* [T][heads*dim] [T][kv*dim], rotated */
    void *q0, *k0;          /* q and k before QK-norm; q, k themselves without it */
    float *rstd_q, *rstd_k; /* [T*heads] [T*kv], or [T] */
    void *att;              /* [T][heads*dim] */
    float *lse;             /* [T][heads] */
    float *logits;          /* [T][E] of the router */
    void *saved;            /* of the MoE layer */
} layer_state;

/* Sums over the micro-batches of one step. */
typedef struct step_stats {
    double loss;            /* mean over the step's tokens, nats */
    double aux, z;          /* mean over layers and micro-batches, without coefficients */
    int64_t tokens;
    int64_t dropped;        /* slots that capacity dropped */
    int64_t rows;           /* rows that experts computed */
    double flops;           /* executed, forward and backward */
    int64_t *load;          /* [layers][E] slots that chose the expert */
} step_stats;

typedef struct model {
    moec_device *device;
    train_config config;
    params params;
    bool training;
    int64_t capacity;       /* most tokens of a micro-batch */
    int64_t head_rows;      /* tokens of one chunk of the head's logits */
    moec_module *kernel[K_COUNT];
    moec_layer *experts;    /* shared by all layers: a layer object holds only kernels */
    moec_layer *dense;      /* for the leading dense layers: one expert that everyone takes */
    layer_state *layer;     /* [layers] */
    void *arena;            /* all activations */
    void *scratch, *workspace;
    int32_t *token, *target;    /* [T] */
    int32_t *zero_expert;       /* [T] 0, and */
    float *one_weight;          /* [T] 1: the routing of a dense layer */
    void *branch;           /* [T][H] output of attention or of the experts */
    void *out, *final;      /* [T][H] last residual and its norm */
    float *rstd_final;      /* [T] */
    void *head_logits;      /* [head_rows][V] f32 */
    float *loss;            /* [T] */
    void *d_res, *d_y;      /* [T][H] backward: on the residual stream, on a norm's output */
    void *d_q, *d_k, *d_v, *d_att;
    float *d_logits;        /* [T][E] */
    double *norm2;          /* [1] */
    float *host_loss;       /* [T] */
    int32_t *host_load;     /* [E+1] */
    float *host_prob;       /* [E] */
    float *host_bias;       /* [layers][E] */
    step_stats stats;
} model;

moec_status model_create(moec_device *device, const train_config *config, int64_t tokens, bool training,
                         model **out, moec_error *err);
void model_free(model *m);

/* One micro-batch of `count` (1-based `number` of it): forward, loss, backward; gradients of the
 * step's mean loss are summed. T = whole sequences of seq tokens. Host pointers. Number 1 starts
 * m->stats anew. */
moec_status model_micro_step(model *m, const int32_t *tokens, const int32_t *targets, int64_t T,
                             int64_t seq, int64_t number, int64_t count, moec_error *err);
/* Sum of the losses of T tokens, nats; no gradients, stats untouched. */
moec_status model_evaluate(model *m, const int32_t *tokens, const int32_t *targets, int64_t T,
                           int64_t seq, double *loss_sum, moec_error *err);
/* Logits [V] after the last of `count` tokens (count <= capacity). */
moec_status model_next(model *m, const int32_t *tokens, int64_t count, float *logits, moec_error *err);

/* optim.c */
moec_status model_grad_norm(model *m, double *norm, moec_error *err);
moec_status model_update(model *m, int64_t step, double lr, double gradient_scale, moec_error *err);
moec_status model_balance(model *m, moec_error *err); /* router=sigmoid_bias; else nothing */

/* inspect.c: class of the first tensor, in the order of computation, that holds a NaN or infinity:
 * "layer 3 router logits". Empty when all are finite. */
moec_status model_find_nonfinite(model *m, int64_t T, char what[160], moec_error *err);

/* ---- between the model's files ---- */

static inline moec_arg arg_p(const void *p) { return (moec_arg){.cptr = p}; }
static inline moec_arg arg_i(int64_t i) { return (moec_arg){.i64 = i}; }
static inline moec_arg arg_d(double d) { return (moec_arg){.f64 = d}; }

moec_status kernels_create(model *m, moec_error *err);
void kernels_free(model *m);
/* Launches kernel `k` for T tokens (or N elements). */
moec_status kernel_run(model *m, int k, const moec_arg *args, int count, int64_t T, moec_error *err);
#define RUN(m, k, T, err, ...)                                                                    \
    MOEC_TRY(kernel_run(m, k, (const moec_arg[]){__VA_ARGS__},                                     \
                        (int)(sizeof((const moec_arg[]){__VA_ARGS__}) / sizeof(moec_arg)), T, err))

size_t model_act_bytes(const model *m); /* of one activation: 2 or 4 */
void *model_row(const model *m, void *rows, int64_t row, int64_t columns); /* act [..][columns] */
bool model_is_dense(const model *m, int layer);
moec_weights model_expert_weights(const model *m, int layer);

/* Uploads tokens and runs all layers up to the final norm. */
moec_status forward_layers(model *m, const int32_t *tokens, int64_t T, int64_t seq, moec_error *err);
/* Losses of all T tokens into m->loss; scale != 0: also the head's gradients, with d_y of the final
 * norm's output. beta: 1 adds to the gradients that are there. */
moec_status forward_head(model *m, const int32_t *targets, int64_t T, double scale, int beta,
                         moec_error *err);
moec_status backward_layers(model *m, int64_t T, int64_t seq, int beta, double aux, double z,
                            moec_error *err);

#endif
