/* The oracle of causal attention with grouped key/value heads, forward and backward. */
#include "ref_num.h"

/* One call: sizes, and a row of probabilities that lives while one query is worked on. */
typedef struct attention {
    moec_ref *ref;
    moec_ref_arg *q, *k, *v;
    int64_t heads, kv, dim, seq;
    double u_act;  /* probabilities may be rounded to act before the second product */
    num scale;     /* 1/sqrt(dim) */
    num *score, *p; /* [seq], of keys first(t)..t */
} attention;

static moec_status begin(moec_ref *ref, attention *a) {
    const moec_spec *s = ref->spec;
    *a = (attention){.ref = ref, .q = ref_arg(ref, "q"), .k = ref_arg(ref, "k"),
                     .v = ref_arg(ref, "v"), .heads = s->heads, .kv = s->kv, .dim = s->dim,
                     .seq = (int64_t)ref_scalar(ref, "seq")};
    a->u_act = moec_ref_arg_u(ref, a->q);
    a->scale = rounded(1 / sqrt((double)s->dim), 0, FN_ULPS * U32);
    int64_t room = a->seq < ref->T ? a->seq : ref->T;
    a->score = moec_ref_nums(ref, room);
    a->p = moec_ref_nums(ref, room);
    return a->score && a->p ? MOEC_OK : MOEC_E_NOMEM;
}

static int64_t first(const attention *a, int64_t t) { return t - t % a->seq; }
static int64_t q_at(const attention *a, int64_t t, int64_t h) {
    return (t * a->heads + h) * a->dim;
}
static int64_t kv_at(const attention *a, int64_t t, int64_t h) { /* h: the query head */
    return (t * a->kv + h / (a->heads / a->kv)) * a->dim;
}

static num dot(const attention *a, const moec_ref_arg *x, int64_t i, const moec_ref_arg *y,
               int64_t j) {
    sum total = {0};
    for (int64_t d = 0; d < a->dim; d++) s_mul(&total, ref_get(x, i + d), ref_get(y, j + d));
    return s_get(&total, a->ref->u_acc);
}

static void scores(attention *a, int64_t t, int64_t h) {
    int64_t begin = first(a, t);
    for (int64_t s = begin; s <= t; s++)
        a->score[s - begin] = n_mul(a->scale, dot(a, a->q, q_at(a, t, h), a->k, kv_at(a, s, h)));
}

/* A streaming kernel rescales its partial sums when a larger score arrives: each rescaling is one
 * more multiplication by an exp, at most one a key. */
moec_status moec_ref_op_attention(moec_ref *ref) {
    attention a;
    moec_ref_arg *out = ref_arg(ref, "out"), *lse = ref_arg(ref, "lse");
    MOEC_TRY(begin(ref, &a));
    for (int64_t t = 0; t < ref->T; t++)
        for (int64_t h = 0; h < a.heads; h++) {
            int64_t n = t - first(&a, t) + 1;
            double top = -INFINITY;
            sum total = {0};
            scores(&a, t, h);
            for (int64_t j = 0; j < n; j++)
                if (a.score[j].v > top) top = a.score[j].v;
            for (int64_t j = 0; j < n; j++) {
                a.p[j] = n_exp(n_sub(a.score[j], exact(top)));
                a.p[j].e += (double)(n + FN_ULPS) * U32 * a.p[j].v; /* rescaling */
                s_add(&total, a.p[j]);
            }
            num z = s_get(&total, U32);
            ref_put(lse, t * a.heads + h, n_add(exact(top), n_log(z)), U32);
            for (int64_t d = 0; d < a.dim; d++) {
                sum mix = {0};
                for (int64_t j = 0; j < n; j++)
                    s_mul(&mix, rounded(a.p[j].v, a.p[j].e, a.u_act),
                          ref_get(a.v, kv_at(&a, first(&a, t) + j, h) + d));
                ref_put(out, q_at(&a, t, h) + d, n_div(s_get(&mix, ref->u_acc), z), a.u_act);
            }
        }
    return MOEC_OK;
}

/* ---- backward ---- */

/* dv += p^T dout, dk += scale * ds^T q, dq = scale * ds k, ds = p * (<dout, v> - <dout, out>).
 * dk and dv of one key gather over the queries of its sequence and the query heads of its group. */
typedef struct gather { sum *dk, *dv, *dq; } gather;

static void backward_query(attention *a, gather *to, int64_t t, int64_t h) {
    moec_ref *ref = a->ref;
    moec_ref_arg *dout = ref_arg(ref, "dout");
    int64_t q = q_at(a, t, h);
    num lse = ref_get(ref_arg(ref, "lse"), t * a->heads + h);
    num delta = dot(a, dout, q, ref_arg(ref, "out"), q);
    scores(a, t, h);
    for (int64_t s = first(a, t); s <= t; s++) {
        int64_t k = kv_at(a, s, h);
        num p = n_exp(n_sub(a->score[s - first(a, t)], lse));
        num ds = n_mul(p, n_sub(dot(a, dout, q, a->v, k), delta));
        num p_in = rounded(p.v, p.e, a->u_act);
        num ds_in = n_mul(a->scale, rounded(ds.v, ds.e, a->u_act));
        for (int64_t d = 0; d < a->dim; d++) {
            s_mul(&to->dv[k + d], p_in, ref_get(dout, q + d));
            s_mul(&to->dk[k + d], ds_in, ref_get(a->q, q + d));
            s_mul(&to->dq[q + d], ds_in, ref_get(a->k, k + d));
        }
    }
}

moec_status moec_ref_op_attention_bwd(moec_ref *ref) {
    attention a;
    MOEC_TRY(begin(ref, &a));
    int64_t nq = ref->T * a.heads * a.dim, nk = ref->T * a.kv * a.dim;
    gather to = {moec_ref_sums(ref, nk), moec_ref_sums(ref, nk),
                 moec_ref_sums(ref, nq)};
    if (!to.dk || !to.dv || !to.dq) return MOEC_E_NOMEM;
    for (int64_t t = 0; t < ref->T; t++)
        for (int64_t h = 0; h < a.heads; h++) backward_query(&a, &to, t, h);
    moec_ref_arg *dq = ref_arg(ref, "dq"), *dk = ref_arg(ref, "dk"), *dv = ref_arg(ref, "dv");
    for (int64_t i = 0; i < nq; i++) ref_put(dq, i, s_get(&to.dq[i], ref->u_acc), a.u_act);
    for (int64_t i = 0; i < nk; i++) {
        ref_put(dk, i, s_get(&to.dk[i], ref->u_acc), a.u_act);
        ref_put(dv, i, s_get(&to.dv[i], ref->u_acc), a.u_act);
    }
    return MOEC_OK;
}
