/* The oracle of routing: logits -> choice, weights, sorted rows; and the gradient of it all.
 *
 * Choices are integers and must be exact, so the oracle also knows when they hang on rounding: a
 * score is a num, and two scores are apart only when their bounds do not meet. Scores made of equal
 * inputs are equal in every kernel; that is a tie, and ties are decided by index. */
#include "ref_num.h"

#include <string.h>

/* The score of a group of experts and the two that make it (second -1 in a group of one). */
typedef struct group_sum { num score; int64_t first, second; } group_sum;

/* One token: its E logits and what follows from them. */
typedef struct token {
    const moec_spec *spec;
    num *logit;      /* [E] */
    num *score;      /* [E] what selection compares */
    num *p;          /* [E] softmax, or sigmoids divided by their sum */
    num *s;          /* [E] sigmoids (sigmoid_bias) */
    group_sum *group; /* [groups] */
    unsigned char *open; /* [E] may still be chosen */
    double *bias;    /* [E] sel_bias, or NULL */
    num lse;         /* logsumexp of the logits */
    num total;       /* sum of the sigmoids */
    bool nan;
    bool undecided;
} token;

static moec_status token_new(moec_ref *ref, token *k) {
    int64_t E = ref->spec->E;
    *k = (token){.spec = ref->spec, .logit = moec_ref_nums(ref, E), .score = moec_ref_nums(ref, E),
                 .p = moec_ref_nums(ref, E), .s = moec_ref_nums(ref, E),
                 .group = moec_ref_temp(ref, ref->spec->groups, sizeof(group_sum)),
                 .open = moec_ref_temp(ref, E, 1)};
    return k->logit && k->score && k->p && k->s && k->group && k->open ? MOEC_OK : MOEC_E_NOMEM;
}

static void softmax(token *k) {
    double top = -INFINITY;
    sum total = {0};
    for (int64_t e = 0; e < k->spec->E; e++)
        if (k->logit[e].v > top) top = k->logit[e].v;
    for (int64_t e = 0; e < k->spec->E; e++) {
        k->p[e] = n_exp(n_sub(k->logit[e], exact(top)));
        s_add(&total, k->p[e]);
    }
    num z = s_get(&total, U32);
    for (int64_t e = 0; e < k->spec->E; e++) k->p[e] = n_div(k->p[e], z);
    k->lse = n_add(exact(top), n_log(z));
}

static void token_load(token *k, const moec_ref_arg *logits, int64_t t) {
    int64_t E = k->spec->E;
    k->nan = k->undecided = false;
    for (int64_t e = 0; e < E; e++) {
        k->logit[e] = k->score[e] = ref_get(logits, t * E + e);
        k->nan |= isnan(k->logit[e].v);
    }
    softmax(k);
    if (k->spec->router != MOEC_SIGMOID_BIAS) return;
    sum total = {0};
    for (int64_t e = 0; e < E; e++) {
        k->s[e] = moec_num_sigmoid(k->logit[e]);
        k->score[e] = k->bias ? n_add(k->s[e], exact(k->bias[e])) : k->s[e];
        s_add(&total, k->s[e]);
    }
    k->total = s_get(&total, U32);
    for (int64_t e = 0; e < E; e++) k->p[e] = n_div(k->s[e], k->total);
}

/* ---- choosing ---- */

static bool same_inputs(const token *k, int64_t a, int64_t b) {
    return k->logit[a].v == k->logit[b].v && (!k->bias || k->bias[a] == k->bias[b]);
}

/* The highest open score in [begin, end), ties to the lower index; -1 when none is open. Marks the
 * token undecided when another open score is too close to tell. */
static int64_t best(token *k, int64_t begin, int64_t end) {
    int64_t top = -1;
    for (int64_t e = begin; e < end; e++)
        if (k->open[e] && (top < 0 || k->score[e].v > k->score[top].v)) top = e;
    for (int64_t e = begin; e < end; e++)
        if (k->open[e] && e != top && !same_inputs(k, e, top) &&
            k->score[top].v - k->score[e].v <= k->score[top].e + k->score[e].e)
            k->undecided = true;
    if (top < 0) /* only NaN scores are left: any will do */
        for (int64_t e = begin; e < end && top < 0; e++)
            if (k->open[e]) top = e;
    return top;
}

/* Sum of the two highest scores of a group (of its only one when it has one). */
static group_sum group_score(token *k, int64_t begin, int64_t end) {
    bool undecided = k->undecided; /* which two matters little: only their sum does */
    group_sum g = {.first = best(k, begin, end)};
    k->open[g.first] = 0;
    g.second = best(k, begin, end);
    k->open[g.first] = 1;
    k->undecided = undecided;
    g.score = g.second < 0 ? k->score[g.first] : n_add(k->score[g.first], k->score[g.second]);
    return g;
}

static bool same_group_inputs(const token *k, const group_sum *a, const group_sum *b) {
    return same_inputs(k, a->first, b->first) &&
           (a->second < 0 || same_inputs(k, a->second, b->second));
}

/* Closes the experts of all but the best top_groups groups, ties to the lower group. */
static void keep_best_groups(token *k) {
    const moec_spec *s = k->spec;
    int64_t G = s->groups, size = s->E / G;
    for (int64_t g = 0; g < G; g++) k->group[g] = group_score(k, g * size, (g + 1) * size);
    for (int64_t g = 0; g < G; g++) {
        int64_t better = 0;
        double v = k->group[g].score.v;
        for (int64_t o = 0; o < G; o++)
            better += k->group[o].score.v > v || (k->group[o].score.v == v && o < g);
        if (better >= s->top_groups) memset(k->open + g * size, 0, (size_t)size);
    }
    for (int64_t g = 0; g < G; g++)     /* a kept group ... */
        for (int64_t o = 0; o < G; o++) /* ... too near to a closed one? */
            if (k->open[g * size] && !k->open[o * size] &&
                !same_group_inputs(k, &k->group[g], &k->group[o]) &&
                k->group[g].score.v - k->group[o].score.v <=
                    k->group[g].score.e + k->group[o].score.e)
                k->undecided = true;
}

/* Weight of the j-th chosen expert, before scale. */
static num weight_of(const token *k, const int32_t *chosen, int64_t j) {
    const moec_spec *s = k->spec;
    num top = k->logit[chosen[0]];
    sum total = {0};
    switch (s->router) {
    case MOEC_LOGITS: return k->logit[chosen[j]];
    case MOEC_TOPK_SOFTMAX:
        for (int64_t i = 0; i < s->K; i++) s_add(&total, n_exp(n_sub(k->logit[chosen[i]], top)));
        return n_div(n_exp(n_sub(k->logit[chosen[j]], top)), s_get(&total, U32));
    case MOEC_SIGMOID_BIAS:
        if (!s->norm) return k->s[chosen[j]];
        s_add(&total, exact(1e-20));
        for (int64_t i = 0; i < s->K; i++) s_add(&total, k->s[chosen[i]]);
        return n_div(k->s[chosen[j]], s_get(&total, U32));
    default:
        if (!s->norm) return k->p[chosen[j]];
        for (int64_t i = 0; i < s->K; i++) s_add(&total, k->p[chosen[i]]);
        return n_div(k->p[chosen[j]], s_get(&total, U32));
    }
}

static num scale_of(const moec_spec *s) { return rounded(s->scale == 0 ? 1 : s->scale, 0, U32); }

static void choose(moec_ref *ref, token *k, int64_t t) {
    const moec_spec *s = ref->spec;
    moec_ref_arg *expert = ref_arg(ref, "expert"), *weight = ref_arg(ref, "weight");
    int32_t *chosen = expert->i + t * s->K;
    memset(k->open, 1, (size_t)s->E);
    if (s->groups) keep_best_groups(k);
    for (int64_t j = 0; j < s->K; j++) {
        chosen[j] = (int32_t)best(k, 0, s->E);
        k->open[chosen[j]] = 0;
    }
    for (int64_t j = 0; j < s->K; j++)
        ref_put(weight, t * s->K + j, n_mul(weight_of(k, chosen, j), scale_of(s)), U32);
}

/* ---- sorting and dropping ---- */

/* Does slot a go before slot b? Weights are f32: there 1 - 1e-14 is 1. */
static bool heavier(const moec_ref_arg *weight, int64_t a, int64_t b) {
    float wa = (float)weight->f[a], wb = (float)weight->f[b];
    return wa > wb || (wa == wb && a < b);
}

/* Weights that every kernel computes alike: given ones, and `scale` when K = 1 is normalised. */
static bool weights_exact(moec_ref *ref) {
    const moec_spec *s = ref->spec;
    bool always_one = s->K == 1 && (s->router == MOEC_TOPK_SOFTMAX ||
                                    (s->router != MOEC_LOGITS && s->norm));
    return !ref_arg(ref, "logits")->f || always_one || s->router == MOEC_LOGITS;
}

/* slot_row of one expert's slots: -1 where capacity drops, 0 elsewhere for now. */
static void drop(moec_ref *ref, const int64_t *slots, int64_t n, int64_t capacity) {
    moec_ref_arg *weight = ref_arg(ref, "weight");
    int32_t *slot_row = ref_arg(ref, "slot_row")->i;
    for (int64_t i = 0; i < n; i++) {
        int64_t before = 0;
        for (int64_t j = 0; j < n; j++) before += heavier(weight, slots[j], slots[i]);
        slot_row[slots[i]] = before < capacity ? 0 : -1;
    }
    if (!ref->undecided || weights_exact(ref)) return;
    for (int64_t i = 0; i < n; i++)     /* a kept slot ... */
        for (int64_t j = 0; j < n; j++) /* ... too near to a dropped one? */
            if (slot_row[slots[i]] == 0 && slot_row[slots[j]] < 0 &&
                weight->f[slots[i]] - weight->f[slots[j]] <=
                    weight->e[slots[i]] + weight->e[slots[j]])
                ref->undecided[slots[j] / ref->spec->K] = 1;
}

static moec_status sort_slots(moec_ref *ref) {
    const moec_spec *s = ref->spec;
    int64_t slots = ref->T * s->K, row = 0;
    const int32_t *expert = ref_arg(ref, "expert")->i;
    int32_t *offsets = ref_arg(ref, "offsets")->i, *load = ref_arg(ref, "load")->i;
    int32_t *row_slot = ref_arg(ref, "row_slot")->i, *slot_row = ref_arg(ref, "slot_row")->i;
    int64_t capacity = slots;
    if (s->capacity > 0) capacity = (int64_t)ceil(s->capacity * (double)slots / (double)s->E);
    int64_t *mine = moec_ref_temp(ref, slots, sizeof *mine);
    if (!mine) return MOEC_E_NOMEM;
    for (int64_t e = 0; e < s->E; e++) {
        int64_t n = 0;
        for (int64_t slot = 0; slot < slots; slot++)
            if (expert[slot] == e) mine[n++] = slot;
        load[e] = (int32_t)n;
        offsets[e] = (int32_t)row;
        for (int64_t i = 0; i < n; i++) slot_row[mine[i]] = 0;
        if (n > capacity) drop(ref, mine, n, capacity);
        for (int64_t i = 0; i < n; i++) {
            if (slot_row[mine[i]] < 0) continue;
            row_slot[row] = (int32_t)mine[i];
            slot_row[mine[i]] = (int32_t)row++;
        }
    }
    offsets[s->E] = (int32_t)row;
    while (row < slots) row_slot[row++] = -1;
    return MOEC_OK;
}

moec_status moec_ref_op_route(moec_ref *ref) {
    int64_t E = ref->spec->E;
    moec_ref_arg *logits = ref_arg(ref, "logits");
    moec_ref_arg *prob_sum = ref_arg(ref, "prob_sum"), *z_sum = ref_arg(ref, "z_sum");
    sum *total = moec_ref_sums(ref, E), z = {0};
    token k;
    if (!total || token_new(ref, &k)) return MOEC_E_NOMEM;
    k.bias = ref_arg(ref, "sel_bias")->f;
    for (int64_t t = 0; logits->f && t < ref->T; t++) {
        token_load(&k, logits, t);
        choose(ref, &k, t);
        for (int64_t e = 0; e < E; e++) s_add(&total[e], k.p[e]);
        s_add(&z, n_mul(k.lse, k.lse));
        if (ref->undecided) ref->undecided[t] = k.undecided;
    }
    for (int64_t e = 0; e < E; e++) ref_put(prob_sum, e, s_get(&total[e], U32), U32);
    ref_put(z_sum, 0, s_get(&z, U32), U32);
    return sort_slots(ref);
}

/* ---- backward ---- */

double moec_ref_router_loss(const moec_spec *s, int64_t T, const int32_t *load,
                            const double *prob_sum, double z_sum, double aux, double z) {
    double balance = 0;
    if (T == 0) return 0;
    for (int64_t e = 0; e < s->E; e++)
        balance += (double)load[e] / (double)(T * s->K) * prob_sum[e] / (double)T;
    return aux * (double)s->E * balance + z * z_sum / (double)T;
}

/* Adds to grad[E] the gradient of sum_j g_j * weight_j, g = scale * dweight. */
static void weight_gradient(const token *k, const int32_t *chosen, const num *g, num *grad) {
    const moec_spec *s = k->spec;
    bool over_all = s->router == MOEC_SOFTMAX_TOPK && !s->norm;
    bool divided = s->router == MOEC_TOPK_SOFTMAX || (s->router != MOEC_LOGITS && s->norm);
    sum mean = {0}, total = {0}; /* <g, weight>, and the divisor of sigmoid_bias with norm=1 */
    if (s->router == MOEC_SIGMOID_BIAS) s_add(&total, exact(1e-20));
    for (int64_t j = 0; j < s->K; j++) {
        if (over_all || divided) s_mul(&mean, g[j], weight_of(k, chosen, j));
        if (s->router == MOEC_SIGMOID_BIAS) s_add(&total, k->s[chosen[j]]);
    }
    num m = s_get(&mean, U32);
    for (int64_t e = 0; over_all && e < s->E; e++)
        grad[e] = n_sub(grad[e], n_mul(k->p[e], m));
    for (int64_t j = 0; j < s->K; j++) {
        num *out = &grad[chosen[j]], d = g[j];
        if (divided) d = n_sub(d, m);
        if (s->router == MOEC_SIGMOID_BIAS) {
            num v = k->s[chosen[j]];
            d = n_mul(d, n_mul(v, n_sub(exact(1), v)));
            if (divided) d = n_div(d, s_get(&total, U32));
        } else if (s->router != MOEC_LOGITS) {
            d = n_mul(d, weight_of(k, chosen, j));
        }
        *out = n_add(*out, d);
    }
}

/* Adds to grad[E] the gradient of sum_e c_e * p_e, p the probabilities of the balance loss. */
static void balance_gradient(const token *k, const num *c, num *grad) {
    const moec_spec *s = k->spec;
    sum mean = {0};
    for (int64_t e = 0; e < s->E; e++) s_mul(&mean, c[e], k->p[e]);
    num m = s_get(&mean, U32);
    for (int64_t e = 0; e < s->E; e++) {
        num d = n_mul(k->p[e], n_sub(c[e], m));
        if (s->router == MOEC_SIGMOID_BIAS) d = n_mul(d, n_sub(exact(1), k->s[e]));
        grad[e] = n_add(grad[e], d);
    }
}

/* softmax of the logits, which k->p is not with sigmoid_bias */
static num softmax_of(const token *k, int64_t e) { return n_exp(n_sub(k->logit[e], k->lse)); }

moec_status moec_ref_op_route_bwd(moec_ref *ref) {
    const moec_spec *s = ref->spec;
    int64_t E = s->E, K = s->K;
    moec_ref_arg *logits = ref_arg(ref, "logits"), *dlogits = ref_arg(ref, "dlogits");
    moec_ref_arg *dweight = ref_arg(ref, "dweight");
    const int32_t *expert = ref_arg(ref, "expert")->i, *load = ref_arg(ref, "load")->i;
    double aux = ref_scalar(ref, "aux"), z = ref_scalar(ref, "z"), T = (double)ref->T;
    num *grad = moec_ref_nums(ref, E), *c = moec_ref_nums(ref, E), *g = moec_ref_nums(ref, K);
    token k;
    if (!grad || !c || !g || token_new(ref, &k)) return MOEC_E_NOMEM;
    for (int64_t e = 0; e < E; e++)
        c[e] = rounded(aux * (double)E * load[e] / (T * (double)K * T), 0, FN_ULPS * U32);
    for (int64_t t = 0; t < ref->T; t++) {
        token_load(&k, logits, t);
        for (int64_t j = 0; j < K; j++) g[j] = n_mul(scale_of(s), ref_get(dweight, t * K + j));
        for (int64_t e = 0; e < E; e++) grad[e] = exact(0);
        weight_gradient(&k, expert + t * K, g, grad);
        balance_gradient(&k, c, grad);
        num zt = n_mul(rounded(2 * z / T, 0, U32), k.lse);
        for (int64_t e = 0; e < E; e++) {
            num d = n_add(grad[e], n_mul(zt, softmax_of(&k, e)));
            ref_put(dlogits, t * E + e, d, U32);
        }
    }
    return MOEC_OK;
}
