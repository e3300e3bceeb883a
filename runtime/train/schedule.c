/* schedule: closed formulas, so that a resumed run needs nothing but the step number. */
#include "schedule.h"

#include <math.h>

double schedule_lr(int64_t step, int64_t warmup, int64_t steps, double peak, double floor) {
    const double pi = 3.14159265358979323846;
    if (step < warmup) return peak * (double)step / (double)warmup;
    if (step >= steps || steps <= warmup) return step >= steps && steps > warmup ? floor : peak;
    double done = (double)(step - warmup) / (double)(steps - warmup);
    return floor + (peak - floor) * 0.5 * (1 + cos(pi * done));
}

double schedule_clip(double norm, double limit) {
    return limit > 0 && norm > limit ? limit / norm : 1;
}

void schedule_balance(float *bias, const int64_t *load, int64_t experts, double rate) {
    double total = 0, mean = 0;
    for (int64_t e = 0; e < experts; e++) total += (double)load[e];
    for (int64_t e = 0; e < experts; e++) {
        double gap = total / (double)experts - (double)load[e];
        bias[e] += (float)(gap > 0 ? rate : gap < 0 ? -rate : 0);
        mean += (double)bias[e] / (double)experts;
    }
    for (int64_t e = 0; e < experts; e++) bias[e] -= (float)mean;
}

double schedule_aux_loss(const int32_t *load, const float *prob_sum, int64_t experts, int64_t top_k,
                         int64_t tokens) {
    double sum = 0;
    if (tokens == 0) return 0;
    for (int64_t e = 0; e < experts; e++) sum += (double)load[e] * (double)prob_sum[e];
    return (double)experts * sum / ((double)tokens * (double)top_k * (double)tokens);
}
