/* Routing patterns: parsed once, turned into popularity, then into router logits. */
#include "pattern.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "random.h"

static const struct { const char *name; double low, high; } kinds[] = {
    [MOEC_UNIFORM] = {"uniform", 0, 0}, [MOEC_ZIPF] = {"zipf", 0, 10}, [MOEC_HOT] = {"hot", 0, 1},
    [MOEC_EMPTY] = {"empty", 0, 1},     [MOEC_FILE] = {"file", 0, 0},
};
enum { KIND_COUNT = sizeof kinds / sizeof *kinds };

static moec_status bad(const char *text, const char *why, moec_error *err) {
    moec_status rc = moec_fail(err, MOEC_E_SPEC, "routing \"%s\": %s", text, why);
    return moec_hint(err, rc, "uniform, zipf:S (0 to 10), hot:P, empty:P (0 to 1) or file:PATH");
}

moec_status moec_pattern_parse(const char *text, moec_pattern *p, moec_error *err) {
    size_t n = strcspn(text, ":");
    int kind = 0;
    while (kind < KIND_COUNT && (strlen(kinds[kind].name) != n || memcmp(kinds[kind].name, text, n)))
        kind++;
    if (kind == KIND_COUNT) return bad(text, "unknown pattern", err);
    if (strlen(text) >= sizeof p->text) return bad("", "the text is too long", err);
    memset(p, 0, sizeof *p);
    p->kind = (__typeof__(p->kind))kind;
    strcpy(p->text, text);
    const char *value = text[n] ? text + n + 1 : "";
    if (kind == MOEC_UNIFORM) return text[n] ? bad(text, "uniform takes no value", err) : MOEC_OK;
    if (!*value) return bad(text, "a value follows the colon", err);
    if (kind == MOEC_FILE) return MOEC_OK;
    char *end;
    p->value = strtod(value, &end);
    if (*end || !(p->value >= kinds[kind].low && p->value <= kinds[kind].high))
        return bad(text, "the value is out of range", err);
    return MOEC_OK;
}

static moec_status from_file(const moec_pattern *p, int64_t E, double *popularity, moec_error *err) {
    const char *path = strchr(p->text, ':') + 1;
    FILE *file = fopen(path, "r");
    double v = 0, total = 0;
    int64_t n = 0;
    if (!file)
        return moec_hint(err, moec_fail(err, MOEC_E_IO, "routing: cannot open %s: %s", path, strerror(errno)),
                         "file:PATH names a text file with one number for each expert");
    for (; fscanf(file, "%lf", &v) == 1 && v >= 0; n++) {
        if (n < E) popularity[n] = v;
        total += v;
    }
    int whole = feof(file);
    fclose(file);
    if (whole && n == E && total > 0 && isfinite(total)) return MOEC_OK;
    moec_status rc = moec_fail(err, MOEC_E_CORRUPT, "routing: %s holds %" PRId64 " good numbers%s", path,
                               n, whole ? "" : " and then something else");
    return moec_hint(err, rc, "E=%" PRId64 " numbers >= 0, not all 0, separated by white space", E);
}

/* A random order of 0..E-1. */
static void shuffle(int64_t E, uint64_t seed, double *order) {
    moec_random r = moec_random_new(seed, 77);
    for (int64_t e = 0; e < E; e++) {
        int64_t other = moec_random_below(&r, e + 1);
        order[e] = order[other];
        order[other] = (double)e;
    }
}

moec_status moec_pattern_popularity(const moec_pattern *p, int64_t E, uint64_t seed, double *popularity,
                                    moec_error *err) {
    if (p->kind == MOEC_FILE) return from_file(p, E, popularity, err);
    shuffle(E, seed, popularity);
    for (int64_t e = 0; e < E; e++) {
        double rank = popularity[e];
        double rest = E > 1 ? (1 - p->value) / (double)(E - 1) : 0;
        popularity[e] = p->kind == MOEC_ZIPF    ? pow(rank + 1, -p->value)
                        : p->kind == MOEC_HOT   ? (rank == 0 ? p->value : rest)
                        : p->kind == MOEC_EMPTY ? rank >= floor(p->value * (double)E)
                                                : 1;
    }
    return MOEC_OK;
}

void moec_pattern_logits(const double *popularity, int64_t T, int64_t E, uint64_t seed, float *logits) {
    double total = 0;
    for (int64_t e = 0; e < E; e++) total += popularity[e];
    for (int64_t t = 0; t < T; t++) {
        moec_random r = moec_random_new(seed, 1000 + (uint64_t)t);
        for (int64_t e = 0; e < E; e++) {
            double share = popularity[e] * (double)E / total;
            double base = share > 0 ? log(share) : -14; /* below any noise of an expert that is chosen */
            logits[t * E + e] = (float)(base + moec_random_gumbel(&r));
        }
    }
}
