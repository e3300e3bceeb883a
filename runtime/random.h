/* Seeded random numbers (SplitMix64, Steele, Lea, Flood 2014): the same on every machine. */
#ifndef MOEC_RANDOM_H
#define MOEC_RANDOM_H

#include <math.h>
#include <stdint.h>

typedef struct moec_random { uint64_t state; } moec_random;

/* Independent streams: one for each (seed, stream). */
static inline moec_random moec_random_new(uint64_t seed, uint64_t stream) {
    return (moec_random){seed * UINT64_C(0x9E3779B97F4A7C15) + stream * UINT64_C(0xD1342543DE82EF95)};
}

static inline uint64_t moec_random_bits(moec_random *r) {
    uint64_t z = r->state += UINT64_C(0x9E3779B97F4A7C15);
    z = (z ^ z >> 30) * UINT64_C(0xBF58476D1CE4E5B9);
    z = (z ^ z >> 27) * UINT64_C(0x94D049BB133111EB);
    return z ^ z >> 31;
}

/* In (0, 1). */
static inline double moec_random_unit(moec_random *r) {
    return ((double)(moec_random_bits(r) >> 11) + 0.5) * 0x1p-53;
}

/* A whole number in [0, n). */
static inline int64_t moec_random_below(moec_random *r, int64_t n) {
    return (int64_t)(moec_random_unit(r) * (double)n);
}

/* Mean 0, variance 1 (Box and Muller). */
static inline double moec_random_normal(moec_random *r) {
    double radius = sqrt(-2 * log(moec_random_unit(r)));
    return radius * cos(6.283185307179586 * moec_random_unit(r));
}

static inline double moec_random_gumbel(moec_random *r) { return -log(-log(moec_random_unit(r))); }

#endif
