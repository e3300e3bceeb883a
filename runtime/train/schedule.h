/* schedule: learning rate by step, and the other small formulas of a step. Pure. */
#ifndef MOEC_TRAIN_SCHEDULE_H
#define MOEC_TRAIN_SCHEDULE_H

#include <stdint.h>

/* Rate of update `step` (1 is the first): linear up to `peak` at `warmup`, then half a cosine down
 * to `floor` at `steps`, and `floor` beyond. */
double schedule_lr(int64_t step, int64_t warmup, int64_t steps, double peak, double floor);

/* Factor on the gradient that brings a global norm down to `limit`; 1 below it or when limit is 0. */
double schedule_clip(double norm, double limit);

/* Aux-free balancing: bias[e] += rate * sign(mean load - load[e]), then the mean is taken out, which
 * changes no selection. load: slots per expert of one optimizer step. */
void schedule_balance(float *bias, const int64_t *load, int64_t experts, double rate);

/* Load-balance loss of one layer, without its coefficient: E * sum_e f_e * p_e, 1 when balanced;
 * f_e = load_e / (T*K), p_e = prob_sum_e / T. Source: Switch Transformers, section 2.2. */
double schedule_aux_loss(const int32_t *load, const float *prob_sum, int64_t experts, int64_t top_k,
                         int64_t tokens);

#endif
