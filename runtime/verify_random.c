/* Random specs: every key within its limits, sizes small enough for the oracle.
 *
 * T comes from {0, 1, 7, 127, 1000}; E and K cover their ranges; H and F are random multiples of 8,
 * cut down until the longest loop fits. The same seed gives the same spec on every machine. */
#include <string.h>

#include "random.h"
#include "verify.h"

static const double MOST_WORK = 4e6;        /* rows * H * U */
static const double MOST_WEIGHTS = 1.5e6;   /* E * U * H */

static int64_t pick(moec_random *r, const int64_t *list, int64_t n) {
    return list[moec_random_below(r, n)];
}
#define PICK(r, ...) \
    pick(r, (const int64_t[]){__VA_ARGS__}, sizeof (const int64_t[]){__VA_ARGS__} / sizeof(int64_t))

/* A multiple of 8, small ones more often. */
static int64_t eights(moec_random *r) {
    return 8 * (1 + moec_random_below(r, PICK(r, 4, 12, 33, 66)));
}

static void experts(moec_random *r, moec_spec *s) {
    s->E = PICK(r, 1, 2, 3, 4, 8, 8, 16, 60, 64, 128, 256, 512, 1 + moec_random_below(r, 512));
    int64_t most = s->E < 16 ? s->E : 16;
    s->K = PICK(r, 1, 1, 2, 2, 4, 6, 8, most, 1 + moec_random_below(r, most));
    if (s->K > most) s->K = most;
}

static void router(moec_random *r, moec_spec *s) {
    s->router = moec_random_below(r, 4);
    s->norm = moec_random_below(r, 2);
    if (moec_random_below(r, 4) == 0) s->scale = 2.5;
    if (moec_random_below(r, 3) == 0) s->capacity = moec_random_below(r, 2) ? 1.25 : 0.5;
    if (s->router != MOEC_SIGMOID_BIAS) return;
    int64_t G = PICK(r, 2, 4, 8), g = 1 + moec_random_below(r, G);
    if (s->E % G || s->K > s->E / G * g) return;
    s->groups = G;
    s->top_groups = g;
}

static void shrink(moec_random *r, moec_spec *s, int64_t T) {
    double rows = (double)(T * s->K), experts_n = (double)s->E;
    for (;;) {
        double HU = (double)s->H * (double)moec_spec_U(s);
        if ((rows * HU <= MOST_WORK && experts_n * HU <= MOST_WEIGHTS) || (s->H == 8 && s->F == 8))
            return;
        int64_t *side = s->H == 8 || (s->F > 8 && moec_random_below(r, 2)) ? &s->F : &s->H;
        *side = (*side / 8 + 1) / 2 * 8;
    }
}

void moec_verify_random(uint64_t seed, moec_spec *s, int64_t *T, const char **routing) {
    static const char *const patterns[] = {"uniform", "zipf:1.2", "hot:0.9", "empty:0.3"};
    moec_random r = moec_random_new(seed, 3);
    moec_spec_default(s);
    *T = PICK(&r, 0, 1, 7, 127, 127, 1000, 1000);
    *routing = patterns[moec_random_below(&r, 4)];
    experts(&r, s);
    router(&r, s);
    s->act = moec_random_below(&r, 8);
    s->dtype = moec_random_below(&r, 2);
    s->layout = moec_spec_gated(s) && moec_random_below(&r, 2);
    s->bias = moec_random_below(&r, 3) == 0;
    s->wgrad = moec_random_below(&r, 3) == 0;
    s->out = moec_random_below(&r, 3) == 0;
    s->H = eights(&r);
    s->F = eights(&r);
    s->kv = PICK(&r, 1, 2, 3);
    s->heads = s->kv * PICK(&r, 1, 2, 4);
    s->dim = PICK(&r, 8, 16, 32, 64, 24, 6);
    s->V = PICK(&r, 256, 300, 17, 1000);
    shrink(&r, s, *T);
    if (moec_random_below(&r, 4) == 0) s->shared = s->F < 64 ? s->F : 64;
}
