/* The oracle of the trainer's dense ops: linear, embedding, RMSNorm, RoPE, cross-entropy, AdamW. */
#include "ref_num.h"

/* out = beta*out + what `total` holds; the old value is one more term of the sum. */
static void start(sum *total, const moec_ref_arg *out, int64_t at, double beta) {
    *total = (sum){0};
    if (beta != 0) s_add(total, ref_get(out, at));
}

/* out[i][j] = beta*out + sum over k of a[i*ai + k*ak] * b[j*bj + k*bk] */
typedef struct product {
    moec_ref_arg *a, *b, *out;
    int64_t rows, columns, depth, ai, ak, bj, bk;
} product;

static moec_status multiply(moec_ref *ref, const product *p) {
    double beta = ref_scalar(ref, "beta"), u_out = moec_ref_arg_u(ref, p->out);
    for (int64_t i = 0; i < p->rows; i++)
        for (int64_t j = 0; j < p->columns; j++) {
            sum total;
            start(&total, p->out, i * p->columns + j, beta);
            for (int64_t k = 0; k < p->depth; k++)
                s_mul(&total, ref_get(p->a, i * p->ai + k * p->ak),
                      ref_get(p->b, j * p->bj + k * p->bk));
            ref_put(p->out, i * p->columns + j, s_get(&total, ref->u_acc), u_out);
        }
    return MOEC_OK;
}

moec_status moec_ref_op_linear(moec_ref *ref) { /* y[t][f] = <x[t], w[f]> */
    int64_t H = ref->spec->H, F = ref->spec->F;
    return multiply(ref, &(product){ref_arg(ref, "x"), ref_arg(ref, "w"), ref_arg(ref, "y"),
                                    ref->T, F, H, H, 1, H, 1});
}

moec_status moec_ref_op_linear_dx(moec_ref *ref) { /* dx[t][h] = sum_f dy[t][f] w[f][h] */
    int64_t H = ref->spec->H, F = ref->spec->F;
    return multiply(ref, &(product){ref_arg(ref, "dy"), ref_arg(ref, "w"), ref_arg(ref, "dx"),
                                    ref->T, H, F, F, 1, 1, H});
}

moec_status moec_ref_op_linear_dw(moec_ref *ref) { /* dw[f][h] = sum_t dy[t][f] x[t][h] */
    int64_t H = ref->spec->H, F = ref->spec->F;
    return multiply(ref, &(product){ref_arg(ref, "dy"), ref_arg(ref, "x"), ref_arg(ref, "dw"),
                                    F, H, ref->T, 1, F, 1, H});
}

/* ---- embedding ---- */

moec_status moec_ref_op_embed(moec_ref *ref) {
    int64_t H = ref->spec->H;
    moec_ref_arg *table = ref_arg(ref, "table"), *out = ref_arg(ref, "out");
    const int32_t *token = ref_arg(ref, "token")->i;
    for (int64_t t = 0; t < ref->T; t++)
        for (int64_t h = 0; h < H; h++)
            ref_put(out, t * H + h, ref_get(table, token[t] * H + h), 0);
    return MOEC_OK;
}

moec_status moec_ref_op_embed_bwd(moec_ref *ref) {
    int64_t H = ref->spec->H, n = ref->spec->V * H;
    moec_ref_arg *dout = ref_arg(ref, "dout"), *dtable = ref_arg(ref, "dtable");
    const int32_t *token = ref_arg(ref, "token")->i;
    double beta = ref_scalar(ref, "beta"), u_out = moec_ref_arg_u(ref, dtable);
    sum *total = moec_ref_sums(ref, n);
    if (!total) return MOEC_E_NOMEM;
    for (int64_t i = 0; i < n; i++) start(&total[i], dtable, i, beta);
    for (int64_t t = 0; t < ref->T; t++)
        for (int64_t h = 0; h < H; h++)
            s_add(&total[token[t] * H + h], ref_get(dout, t * H + h));
    for (int64_t i = 0; i < n; i++) ref_put(dtable, i, s_get(&total[i], U32), u_out);
    return MOEC_OK;
}

/* ---- RMSNorm ---- */

moec_status moec_ref_op_rmsnorm(moec_ref *ref) {
    int64_t H = ref->spec->H;
    moec_ref_arg *x = ref_arg(ref, "x"), *add = ref_arg(ref, "add"), *gain = ref_arg(ref, "gain");
    moec_ref_arg *out = ref_arg(ref, "sum"), *y = ref_arg(ref, "y"), *rstd = ref_arg(ref, "rstd");
    double u_act = moec_ref_arg_u(ref, y);
    num *s = moec_ref_nums(ref, H), eps = rounded(ref_scalar(ref, "eps"), 0, U32);
    if (!s) return MOEC_E_NOMEM;
    for (int64_t t = 0; t < ref->T; t++) {
        sum square = {0};
        for (int64_t h = 0; h < H; h++) {
            s[h] = ref_get(x, t * H + h);
            if (add->f) s[h] = n_add(s[h], ref_get(add, t * H + h));
            if (out->f) ref_put(out, t * H + h, s[h], u_act);
            if (add->f) s[h] = rounded(s[h].v, s[h].e, u_act); /* y may come from the rounded s */
            s_mul(&square, s[h], s[h]);
        }
        num mean = n_div(s_get(&square, U32), exact((double)H));
        num r = n_div(exact(1), n_sqrt(n_add(mean, eps)));
        ref_put(rstd, t, r, U32);
        for (int64_t h = 0; h < H; h++)
            ref_put(y, t * H + h, n_mul(n_mul(s[h], r), ref_get(gain, h)), u_act);
    }
    return MOEC_OK;
}

moec_status moec_ref_op_rmsnorm_bwd(moec_ref *ref) {
    int64_t H = ref->spec->H;
    moec_ref_arg *dy = ref_arg(ref, "dy"), *s = ref_arg(ref, "s"), *gain = ref_arg(ref, "gain");
    moec_ref_arg *rstd = ref_arg(ref, "rstd"), *dres = ref_arg(ref, "dres");
    moec_ref_arg *dx = ref_arg(ref, "dx"), *dgain = ref_arg(ref, "dgain");
    double beta = ref_scalar(ref, "beta");
    for (int64_t h = 0; h < H; h++) {
        sum total;
        start(&total, dgain, h, beta);
        for (int64_t t = 0; t < ref->T; t++)
            s_add(&total, n_mul(n_mul(ref_get(dy, t * H + h), ref_get(s, t * H + h)),
                                ref_get(rstd, t)));
        ref_put(dgain, h, s_get(&total, U32), moec_ref_arg_u(ref, dgain));
    }
    for (int64_t t = 0; t < ref->T; t++) {
        num r = ref_get(rstd, t);
        sum dot = {0};
        for (int64_t h = 0; h < H; h++)
            s_mul(&dot, n_mul(ref_get(gain, h), ref_get(dy, t * H + h)), ref_get(s, t * H + h));
        num mean = n_div(s_get(&dot, U32), exact((double)H));
        num pull = n_mul(n_mul(r, r), mean); /* how far the gradient along s is taken back */
        for (int64_t h = 0; h < H; h++) {
            int64_t at = t * H + h;
            num d = n_mul(ref_get(gain, h), ref_get(dy, at));
            d = n_mul(r, n_sub(d, n_mul(ref_get(s, at), pull)));
            if (dres->f) d = n_add(ref_get(dres, at), d);
            ref_put(dx, at, d, moec_ref_arg_u(ref, dx));
        }
    }
    return MOEC_OK;
}

/* ---- RoPE ---- */

moec_status moec_ref_op_rope(moec_ref *ref) {
    int64_t heads = ref->spec->heads, dim = ref->spec->dim, half = dim / 2;
    int64_t seq = (int64_t)ref_scalar(ref, "seq");
    double theta = ref_scalar(ref, "theta"), sign = ref_scalar(ref, "inverse") != 0 ? -1 : 1;
    moec_ref_arg *x = ref_arg(ref, "x");
    double u_act = moec_ref_arg_u(ref, x);
    for (int64_t t = 0; t < ref->T; t++)
        for (int64_t head = 0; head < heads; head++)
            for (int64_t i = 0; i < half; i++) {
                int64_t a = (t * heads + head) * dim + i, b = a + half;
                double angle = (double)(t % seq) * pow(theta, -2.0 * (double)i / (double)dim);
                double e = 2 * U32 * angle; /* of the f32 frequency and of its product with pos */
                num c = rounded(cos(angle), e, FN_ULPS * U32);
                num s = rounded(sign * sin(angle), e, FN_ULPS * U32);
                num xa = ref_get(x, a), xb = ref_get(x, b);
                ref_put(x, a, n_sub(n_mul(xa, c), n_mul(xb, s)), u_act);
                ref_put(x, b, n_add(n_mul(xb, c), n_mul(xa, s)), u_act);
            }
    return MOEC_OK;
}

/* ---- cross-entropy ---- */

moec_status moec_ref_op_xent(moec_ref *ref) {
    int64_t V = ref->spec->V;
    double scale = ref_scalar(ref, "scale");
    moec_ref_arg *logits = ref_arg(ref, "logits"), *loss = ref_arg(ref, "loss");
    const int32_t *target = ref_arg(ref, "target")->i;
    double u_out = moec_ref_arg_u(ref, logits);
    for (int64_t t = 0; t < ref->T; t++) {
        double top = -INFINITY;
        sum total = {0};
        for (int64_t v = 0; v < V; v++)
            if (logits->f[t * V + v] > top) top = logits->f[t * V + v];
        for (int64_t v = 0; v < V; v++)
            s_add(&total, n_exp(n_sub(ref_get(logits, t * V + v), exact(top))));
        num z = s_get(&total, U32), lse = n_add(exact(top), n_log(z));
        bool counts = target[t] >= 0;
        num l = counts ? n_sub(lse, ref_get(logits, t * V + target[t])) : exact(0);
        ref_put(loss, t, l, U32);
        for (int64_t v = 0; v < V; v++) {
            int64_t at = t * V + v;
            if (scale == 0) {
                ref_put(logits, at, ref_get(logits, at), 0);
                continue;
            }
            num p = n_exp(n_sub(ref_get(logits, at), lse)); /* or exp(x - top)/z: as good */
            num d = n_sub(p, exact(v == target[t]));
            ref_put(logits, at, counts ? n_mul(rounded(scale, 0, U32), d) : exact(0), u_out);
        }
    }
    return MOEC_OK;
}

/* ---- optimiser ---- */

moec_status moec_ref_op_sqnorm(moec_ref *ref) {
    moec_ref_arg *x = ref_arg(ref, "x"), *out = ref_arg(ref, "out");
    sum total;
    start(&total, out, 0, ref_scalar(ref, "beta"));
    for (int64_t i = 0; i < ref->N; i++) s_mul(&total, ref_get(x, i), ref_get(x, i));
    /* both sides sum in double here: twice the bound of one */
    num v = s_get(&total, 0x1p-53);
    ref_put(out, 0, (num){v.v, 2 * v.e}, 0x1p-53);
    return MOEC_OK;
}

moec_status moec_ref_op_adamw(moec_ref *ref) {
    double beta1 = ref_scalar(ref, "beta1"), beta2 = ref_scalar(ref, "beta2");
    double step = ref_scalar(ref, "step");
    num b1 = rounded(beta1, 0, U32), c1 = rounded(1 - beta1, 0, U32);
    num b2 = rounded(beta2, 0, U32), c2 = rounded(1 - beta2, 0, U32);
    num fix1 = rounded(1 - pow(beta1, step), 0, U32), fix2 = rounded(1 - pow(beta2, step), 0, U32);
    num lr = rounded(ref_scalar(ref, "lr"), 0, U32), wd = rounded(ref_scalar(ref, "wd"), 0, U32);
    num eps = rounded(ref_scalar(ref, "eps"), 0, U32);
    num gscale = rounded(ref_scalar(ref, "gscale"), 0, U32);
    moec_ref_arg *grad = ref_arg(ref, "grad"), *master = ref_arg(ref, "master");
    moec_ref_arg *m = ref_arg(ref, "m"), *v = ref_arg(ref, "v"), *param = ref_arg(ref, "param");
    for (int64_t i = 0; i < ref->N; i++) {
        num g = n_mul(gscale, ref_get(grad, i)), w = ref_get(master, i);
        num m1 = n_add(n_mul(b1, ref_get(m, i)), n_mul(c1, g));
        num v1 = n_add(n_mul(b2, ref_get(v, i)), n_mul(c2, n_mul(g, g)));
        num root = n_sqrt(n_div(v1, fix2));
        num update = n_add(n_div(n_div(m1, fix1), n_add(root, eps)), n_mul(wd, w));
        num w1 = n_sub(w, n_mul(lr, update));
        ref_put(m, i, m1, U32);
        ref_put(v, i, v1, U32);
        ref_put(master, i, w1, U32);
        ref_put(param, i, w1, moec_ref_arg_u(ref, param));
    }
    return MOEC_OK;
}

moec_status moec_ref_op_add(moec_ref *ref) {
    moec_ref_arg *a = ref_arg(ref, "a"), *b = ref_arg(ref, "b"), *out = ref_arg(ref, "out");
    for (int64_t i = 0; i < ref->N; i++)
        ref_put(out, i, n_add(ref_get(a, i), ref_get(b, i)), moec_ref_arg_u(ref, out));
    return MOEC_OK;
}
