/* sample: text from a model of bytes. Each token is drawn from softmax(logits / temperature) with a
 * random number that is a function of (seed, position). The context is the last seq tokens; it is
 * run anew for every token, which is simple and fast enough for a page of text. */
#include "train.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static int32_t likeliest(const float *logits, int64_t V) {
    int64_t best = 0;
    for (int64_t v = 1; v < V; v++)
        if (logits[v] > logits[best]) best = v;
    return (int32_t)best;
}

static int32_t draw(const float *logits, int64_t V, double temperature, uint64_t random) {
    int32_t top = likeliest(logits, V);
    if (temperature <= 0) return top;
    double sum = 0, at = 0, u = (double)(random >> 11) / 9007199254740992.0; /* [0, 1) */
    for (int64_t v = 0; v < V; v++) sum += exp((double)(logits[v] - logits[top]) / temperature);
    for (int64_t v = 0; v < V; v++) {
        at += exp((double)(logits[v] - logits[top]) / temperature);
        if (at > u * sum) return (int32_t)v;
    }
    return top;
}

static moec_status generate(model *m, int32_t *tokens, int64_t have, int64_t total, double temperature,
                            int64_t seed, float *logits, moec_error *err) {
    int64_t window = m->config.seq < m->capacity ? m->config.seq : m->capacity;
    for (int64_t i = have; i < total; i++) {
        int64_t from = i > window ? i - window : 0;
        MOEC_TRY(model_next(m, tokens + from, i - from, logits, err));
        tokens[i] = draw(logits, m->config.spec.V, temperature, mix64(mix64((uint64_t)seed) ^ (uint64_t)i));
    }
    return MOEC_OK;
}

moec_status sample_text(model *m, const char *prompt, int64_t count, double temperature, int64_t seed,
                        char **text, moec_error *err) {
    int64_t have = (int64_t)strlen(prompt), first = have ? have : 1;
    int32_t *tokens = malloc((size_t)(first + count) * sizeof *tokens);
    float *logits = malloc((size_t)m->config.spec.V * sizeof *logits);
    *text = malloc((size_t)count + 1);
    moec_status rc = tokens && logits && *text ? MOEC_OK : moec_fail(err, MOEC_E_NOMEM, "sample");
    for (int64_t i = 0; i < have && !rc; i++) tokens[i] = (unsigned char)prompt[i];
    if (!rc && !have) tokens[0] = '\n';
    if (!rc) rc = generate(m, tokens, first, first + count, temperature, seed, logits, err);
    for (int64_t i = 0; i < count && !rc; i++) (*text)[i] = (char)(tokens[first + i] & 0xff);
    if (!rc) (*text)[count] = 0;
    else {
        free(*text);
        *text = NULL;
    }
    free(tokens);
    free(logits);
    return rc;
}
