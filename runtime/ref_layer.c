/* The oracle of the MoE layer's GEMMs and combine, forward and backward: one loop per index of the
 * formula in op.def, and nothing clever. */
#include "ref_num.h"

/* Columns of a row of hpre that hold gate and up of unit f (equal when there is no gate). */
static int64_t gate_column(const moec_spec *s, int64_t f) {
    return s->layout == MOEC_INTERLEAVED ? 2 * f : f;
}
static int64_t up_column(const moec_spec *s, int64_t f) {
    if (!moec_spec_gated(s)) return f;
    return s->layout == MOEC_INTERLEAVED ? 2 * f + 1 : s->F + f;
}

/* act(g) * u, or act(g) without a gate */
static num activate(const moec_spec *s, num g, num u) {
    num a = moec_num_act(s->act, g);
    return moec_spec_gated(s) ? n_mul(a, u) : a;
}

moec_status moec_ref_op_up(moec_ref *ref) {
    const moec_spec *s = ref->spec;
    int64_t H = s->H, F = s->F, U = moec_spec_U(s);
    moec_ref_arg *x = ref_arg(ref, "x"), *w1 = ref_arg(ref, "w1"), *b1 = ref_arg(ref, "b1");
    moec_ref_arg *hpre = ref_arg(ref, "hpre"), *a = ref_arg(ref, "a");
    double u_act = moec_ref_arg_u(ref, a);
    rows g = ref_rows(ref);
    num *h = moec_ref_nums(ref, U); /* a row of hpre, as it may be after rounding */
    if (!h) return MOEC_E_NOMEM;
    for (int64_t e = 0; e < s->E; e++)
        for (int64_t r = row_begin(&g, e); r < row_end(&g, e); r++) {
            for (int64_t c = 0; c < U; c++) {
                sum dot = {0};
                for (int64_t i = 0; i < H; i++)
                    s_mul(&dot, ref_get(w1, (e * U + c) * H + i),
                          ref_get(x, row_token(&g, r) * H + i));
                if (b1->f) s_add(&dot, ref_get(b1, e * U + c));
                num v = s_get(&dot, ref->u_acc);
                if (hpre->f) ref_put(hpre, r * U + c, v, u_act);
                h[c] = rounded(v.v, v.e, u_act);
            }
            for (int64_t f = 0; f < F; f++)
                ref_put(a, r * F + f, activate(s, h[gate_column(s, f)], h[up_column(s, f)]), u_act);
        }
    return MOEC_OK;
}

moec_status moec_ref_op_down(moec_ref *ref) {
    const moec_spec *s = ref->spec;
    int64_t H = s->H, F = s->F;
    moec_ref_arg *a = ref_arg(ref, "a"), *w2 = ref_arg(ref, "w2"), *b2 = ref_arg(ref, "b2");
    moec_ref_arg *y = ref_arg(ref, "y");
    double u_out = moec_ref_arg_u(ref, y);
    rows g = ref_rows(ref);
    for (int64_t e = 0; e < s->E; e++)
        for (int64_t r = row_begin(&g, e); r < row_end(&g, e); r++)
            for (int64_t h = 0; h < H; h++) {
                sum dot = {0};
                for (int64_t f = 0; f < F; f++)
                    s_mul(&dot, ref_get(w2, (e * H + h) * F + f), ref_get(a, r * F + f));
                if (b2->f) s_add(&dot, ref_get(b2, e * H + h));
                ref_put(y, r * H + h, s_get(&dot, ref->u_acc), u_out);
            }
    return MOEC_OK;
}

moec_status moec_ref_op_combine(moec_ref *ref) {
    int64_t H = ref->spec->H, K = ref->spec->K;
    moec_ref_arg *y = ref_arg(ref, "y"), *weight = ref_arg(ref, "weight");
    moec_ref_arg *add = ref_arg(ref, "add"), *out = ref_arg(ref, "out");
    const int32_t *slot_row = ref_arg(ref, "slot_row")->i;
    double u_out = moec_ref_arg_u(ref, out);
    for (int64_t t = 0; t < ref->T; t++)
        for (int64_t h = 0; h < H; h++) {
            sum total = {0};
            if (add->f) s_add(&total, ref_get(add, t * H + h));
            for (int64_t slot = t * K; slot < (t + 1) * K; slot++) {
                int64_t r = slot_row ? slot_row[slot] : slot;
                if (r < 0) continue;
                num w = weight->f ? ref_get(weight, slot) : exact(1);
                s_mul(&total, w, ref_get(y, r * H + h));
            }
            ref_put(out, t * H + h, s_get(&total, U32), u_out);
        }
    return MOEC_OK;
}

/* ---- backward ---- */

/* What one row of dh reads and writes. */
typedef struct dh_row { moec_ref_arg *dout, *w2, *b2, *hpre, *dhpre, *a_w, *dweight; } dh_row;

/* dhpre and a_w of unit f; returns d*a, its part of dweight. d: gradient of a, w: row's weight. */
static num dh_unit(moec_ref *ref, const dh_row *p, int64_t r, int64_t f, num d, num w) {
    const moec_spec *s = ref->spec;
    int64_t U = moec_spec_U(s), gc = r * U + gate_column(s, f), uc = r * U + up_column(s, f);
    double u_act = moec_ref_arg_u(ref, p->a_w);
    num g = ref_get(p->hpre, gc), u = ref_get(p->hpre, uc);
    num a = activate(s, g, u), wd = n_mul(w, d);
    num slope = moec_num_act_slope(s->act, g);
    ref_put(p->a_w, r * s->F + f, n_mul(w, a), u_act);
    if (moec_spec_gated(s)) {
        ref_put(p->dhpre, gc, n_mul(n_mul(slope, u), wd), u_act);
        ref_put(p->dhpre, uc, n_mul(moec_num_act(s->act, g), wd), u_act);
    } else {
        ref_put(p->dhpre, gc, n_mul(slope, wd), u_act);
    }
    return n_mul(d, a);
}

moec_status moec_ref_op_dh(moec_ref *ref) {
    const moec_spec *s = ref->spec;
    int64_t H = s->H, F = s->F;
    dh_row p = {ref_arg(ref, "dout"), ref_arg(ref, "w2"), ref_arg(ref, "b2"), ref_arg(ref, "hpre"),
                ref_arg(ref, "dhpre"), ref_arg(ref, "a_w"), ref_arg(ref, "dweight")};
    moec_ref_arg *weight = ref_arg(ref, "weight");
    const int32_t *slot_row = ref_arg(ref, "slot_row")->i;
    rows g = ref_rows(ref);
    for (int64_t e = 0; e < s->E; e++)
        for (int64_t r = row_begin(&g, e); r < row_end(&g, e); r++) {
            int64_t t = row_token(&g, r), slot = row_slot(&g, r);
            num w = weight->f ? ref_get(weight, slot) : exact(1);
            sum dw = {0};
            for (int64_t f = 0; f < F; f++) {
                sum d = {0};
                for (int64_t h = 0; h < H; h++)
                    s_mul(&d, ref_get(p.w2, (e * H + h) * F + f), ref_get(p.dout, t * H + h));
                s_add(&dw, dh_unit(ref, &p, r, f, s_get(&d, ref->u_acc), w));
            }
            for (int64_t h = 0; p.b2->f && h < H; h++)
                s_mul(&dw, ref_get(p.b2, e * H + h), ref_get(p.dout, t * H + h));
            if (p.dweight->f) ref_put(p.dweight, slot, s_get(&dw, ref->u_acc), U32);
        }
    for (int64_t slot = 0; p.dweight->f && slot_row && slot < ref->T * s->K; slot++)
        if (slot_row[slot] < 0) ref_put(p.dweight, slot, exact(0), 0);
    return MOEC_OK;
}

moec_status moec_ref_op_dx(moec_ref *ref) {
    const moec_spec *s = ref->spec;
    int64_t H = s->H, U = moec_spec_U(s);
    moec_ref_arg *dhpre = ref_arg(ref, "dhpre"), *w1 = ref_arg(ref, "w1");
    moec_ref_arg *dx = ref_arg(ref, "dx_row");
    double u_out = moec_ref_arg_u(ref, dx);
    rows g = ref_rows(ref);
    for (int64_t e = 0; e < s->E; e++)
        for (int64_t r = row_begin(&g, e); r < row_end(&g, e); r++)
            for (int64_t h = 0; h < H; h++) {
                sum dot = {0};
                for (int64_t c = 0; c < U; c++)
                    s_mul(&dot, ref_get(w1, (e * U + c) * H + h), ref_get(dhpre, r * U + c));
                ref_put(dx, r * H + h, s_get(&dot, ref->u_acc), u_out);
            }
    return MOEC_OK;
}

/* dw[e][i][j] = beta*dw + sum over the expert's rows of left[.][i] * right[.][j]. Each side's row
 * is the routed row itself or its token. right NULL: sum of left, times `weight` when given. */
typedef struct reduction {
    moec_ref_arg *left, *right, *weight, *dw;
    int64_t rows_i, rows_j;
    bool left_token, right_token;
} reduction;

static void reduce(moec_ref *ref, const reduction *p) {
    double beta = ref_scalar(ref, "beta"), u_out = moec_ref_arg_u(ref, p->dw);
    rows g = ref_rows(ref);
    for (int64_t e = 0; e < ref->spec->E; e++)
        for (int64_t i = 0; i < p->rows_i; i++)
            for (int64_t j = 0; j < p->rows_j; j++) {
                int64_t at = (e * p->rows_i + i) * p->rows_j + j;
                sum total = {0};
                if (beta != 0) s_add(&total, ref_get(p->dw, at));
                for (int64_t r = row_begin(&g, e); r < row_end(&g, e); r++) {
                    int64_t t = row_token(&g, r);
                    num left = ref_get(p->left, (p->left_token ? t : r) * p->rows_i + i);
                    num right = exact(1);
                    if (p->right)
                        right = ref_get(p->right, (p->right_token ? t : r) * p->rows_j + j);
                    else if (p->weight && p->weight->f)
                        right = ref_get(p->weight, row_slot(&g, r));
                    s_mul(&total, left, right);
                }
                ref_put(p->dw, at, s_get(&total, ref->u_acc), u_out);
            }
}

moec_status moec_ref_op_dw2(moec_ref *ref) {
    reduce(ref, &(reduction){.left = ref_arg(ref, "dout"), .left_token = true,
                             .right = ref_arg(ref, "a_w"), .dw = ref_arg(ref, "dw2"),
                             .rows_i = ref->spec->H, .rows_j = ref->spec->F});
    return MOEC_OK;
}

moec_status moec_ref_op_dw1(moec_ref *ref) {
    reduce(ref, &(reduction){.left = ref_arg(ref, "dhpre"), .right = ref_arg(ref, "x"),
                             .right_token = true, .dw = ref_arg(ref, "dw1"),
                             .rows_i = moec_spec_U(ref->spec), .rows_j = ref->spec->H});
    return MOEC_OK;
}

moec_status moec_ref_op_db1(moec_ref *ref) {
    reduce(ref, &(reduction){.left = ref_arg(ref, "dhpre"), .dw = ref_arg(ref, "db1"),
                             .rows_i = moec_spec_U(ref->spec), .rows_j = 1});
    return MOEC_OK;
}

moec_status moec_ref_op_db2(moec_ref *ref) {
    reduce(ref, &(reduction){.left = ref_arg(ref, "dout"), .left_token = true,
                             .weight = ref_arg(ref, "weight"), .dw = ref_arg(ref, "db2"),
                             .rows_i = ref->spec->H, .rows_j = 1});
    return MOEC_OK;
}
