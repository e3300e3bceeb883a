/* pattern: which experts tokens choose, as text: uniform, zipf:S, hot:P, empty:P, file:PATH.
 * Shared by verify and bench, so that a load seen in one can be repeated in the other. */
#ifndef MOEC_PATTERN_H
#define MOEC_PATTERN_H

#include <stdint.h>

#include "status.h"

typedef struct moec_pattern {
    enum { MOEC_UNIFORM, MOEC_ZIPF, MOEC_HOT, MOEC_EMPTY, MOEC_FILE } kind;
    double value;   /* S of zipf, P of hot and empty */
    char text[512]; /* as given; of file: the path follows the colon */
} moec_pattern;

/* uniform   every expert is as likely
 * zipf:S    the expert of rank r (ranks are shuffled by seed) is chosen in proportion to 1/(r+1)^S
 * hot:P     one expert is chosen with probability P, the others share the rest
 * empty:P   a fraction P of the experts (rounded down) is chosen only when nothing else is left
 * file:PATH one number for each expert, separated by white space: relative popularity */
moec_status moec_pattern_parse(const char *text, moec_pattern *pattern, moec_error *err);

/* Relative popularity of E experts into popularity[E]; 0 means never by choice. */
moec_status moec_pattern_popularity(const moec_pattern *pattern, int64_t E, uint64_t seed,
                                    double *popularity, moec_error *err);

/* Router logits [T][E] whose top-K follows the popularity: log(popularity) + Gumbel noise, so that
 * the first choice is drawn in proportion. */
void moec_pattern_logits(const double *popularity, int64_t T, int64_t E, uint64_t seed, float *logits);

#endif
