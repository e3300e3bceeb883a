/* What must hold whatever the numbers are: bijections, adjoints, gradients by finite differences,
 * invariances. They judge the oracle, in double; verify then holds every kernel to the oracle.
 *
 * Cases come from verify_case.c: equal (seed, spec, T) give equal routing to every op, so cases of
 * different ops fit together. */
#include <math.h>
#include <stdlib.h>

#include "random.h"
#include "t.h"
#include "verify.h"

/* ---- cases ---- */

static moec_pattern uniform = {.kind = MOEC_UNIFORM, .text = "uniform"};

/* A case of `op` with all optional arguments. f32, so that inputs are not coarse. */
static moec_case make(moec_op_id op, const moec_spec *spec, int64_t T, uint64_t seed) {
    moec_case c = {.op = moec_op_get(op), .spec = *spec, .T = T, .seed = seed};
    moec_error err = {0};
    if (moec_case_make(&c, &uniform, &err)) {
        char text[MOEC_SPEC_BYTES];
        moec_spec_print(spec, NULL, text, sizeof text);
        T_FAIL("%s of %s: %s", c.op->name, text, err.text);
        exit(1);
    }
    return c;
}

static void run(moec_case *c) {
    moec_error err = {0};
    c->ref.spec = &c->spec; /* the case may have been copied */
    if (moec_ref_run(&c->ref, &err)) T_FAIL("%s", err.text);
}

static int at(const moec_case *c, const char *arg) {
    int i = moec_op_arg(c->op, arg);
    if (i < 0) abort();
    return i;
}
static double *F(const moec_case *c, const char *arg) { return c->ref.arg[at(c, arg)].f; }
static int32_t *I(const moec_case *c, const char *arg) { return c->ref.arg[at(c, arg)].i; }
static int64_t count(const moec_case *c, const char *arg) { return c->count[at(c, arg)]; }
static void absent(moec_case *c, const char *arg) {
    c->ref.arg[at(c, arg)] = (moec_ref_arg){0};
}
static void scalar(moec_case *c, const char *arg, double value) { c->ref.arg[at(c, arg)].scalar = value; }

static void copy(moec_case *to, const char *arg, const moec_case *from, const char *source) {
    T_EQ(count(to, arg), count(from, source));
    memcpy(F(to, arg), F(from, source), (size_t)count(to, arg) * sizeof(double));
}

static double inner(const double *a, const double *b, int64_t n) {
    double s = 0;
    for (int64_t i = 0; i < n; i++) s += a[i] * b[i];
    return s;
}

static double size_of(const double *a, int64_t n) { return sqrt(inner(a, a, n)) + 1e-30; }

static void noise(double *a, int64_t n, uint64_t seed) {
    moec_random r = moec_random_new(seed, 4242);
    for (int64_t i = 0; i < n; i++) a[i] = moec_random_normal(&r);
}

static moec_spec spec_of(const char *text) {
    moec_spec s;
    moec_error err = {0};
    if (moec_spec_parse(text, &s, &err)) T_FAIL("%s", err.text);
    return s;
}

/* ---- routing ---- */

static void check_routing(const moec_case *c) {
    const int32_t *offsets = I(c, "offsets"), *row_slot = I(c, "row_slot"), *slot_row = I(c, "slot_row");
    const int32_t *expert = I(c, "expert"), *load = I(c, "load");
    int64_t slots = c->T * c->spec.K, kept = 0;
    for (int64_t s = 0; s < slots; s++) {
        if (slot_row[s] < 0) continue;
        kept++;
        if (row_slot[slot_row[s]] != s) T_FAIL("slot %" PRId64 " and its row disagree", s);
    }
    T_EQ(offsets[0], 0);
    T_EQ(offsets[c->spec.E], kept);
    for (int64_t e = 0; e < c->spec.E; e++) {
        T_OK(offsets[e + 1] - offsets[e] <= load[e]);
        for (int64_t r = offsets[e]; r < offsets[e + 1]; r++) {
            T_EQ(expert[row_slot[r]], e);
            if (r > offsets[e]) T_OK(row_slot[r - 1] < row_slot[r]);
        }
    }
    for (int64_t r = kept; r < slots; r++) T_EQ(row_slot[r], -1);
    for (int64_t t = 0; t < c->T; t++)
        for (int64_t a = 0; a < c->spec.K; a++)
            for (int64_t b = 0; b < a; b++) T_OK(expert[t * c->spec.K + a] != expert[t * c->spec.K + b]);
}

T_CASE(permutation_is_a_bijection_on_kept_slots) {
    for (uint64_t seed = 0; seed < 60; seed++) {
        moec_spec s;
        int64_t T;
        const char *routing;
        moec_verify_random(seed, &s, &T, &routing);
        moec_case c = make(MOEC_OP_route, &s, T < 200 ? T : 200, seed);
        run(&c);
        check_routing(&c);
        moec_case_free(&c);
    }
}

T_CASE(capacity_keeps_the_heaviest) {
    moec_spec s = spec_of("E=4 K=2 capacity=0.6 router=softmax_topk norm=0");
    moec_case c = make(MOEC_OP_route, &s, 50, 3);
    run(&c);
    const int32_t *slot_row = I(&c, "slot_row"), *expert = I(&c, "expert");
    const double *w = F(&c, "weight");
    for (int64_t e = 0; e < 4; e++) {
        double lightest_kept = INFINITY, heaviest_dropped = -INFINITY;
        int64_t kept = 0, chosen = 0;
        for (int64_t slot = 0; slot < 100; slot++) {
            if (expert[slot] != e) continue;
            chosen++;
            kept += slot_row[slot] >= 0;
            if (slot_row[slot] >= 0) lightest_kept = fmin(lightest_kept, w[slot]);
            else heaviest_dropped = fmax(heaviest_dropped, w[slot]);
        }
        T_EQ(kept, chosen < 15 ? chosen : 15); /* ceil(0.6 * 100 / 4) */
        T_OK(heaviest_dropped <= lightest_kept);
    }
    moec_case_free(&c);
}

T_CASE(weights_sum_to_one_when_normalised) {
    static const char *const specs[] = {"E=9 K=4 norm=1", "E=9 K=4 router=topk_softmax",
                                        "E=8 K=4 router=sigmoid_bias norm=1 groups=4/2"};
    for (int i = 0; i < 3; i++) {
        moec_spec s = spec_of(specs[i]);
        moec_case c = make(MOEC_OP_route, &s, 40, 5);
        run(&c);
        for (int64_t t = 0; t < 40; t++) {
            double sum = 0;
            for (int64_t k = 0; k < 4; k++) sum += F(&c, "weight")[t * 4 + k];
            T_NEAR(sum, 1, 1e-9);
        }
        moec_case_free(&c);
    }
}

T_CASE(ties_go_to_the_lower_expert_and_slot) {
    moec_spec s = spec_of("E=6 K=3 capacity=0.5");
    moec_case c = make(MOEC_OP_route, &s, 12, 1);
    for (int64_t i = 0; i < 72; i++) F(&c, "logits")[i] = 1;
    run(&c);
    for (int64_t slot = 0; slot < 36; slot++) {
        T_EQ(I(&c, "expert")[slot], slot % 3);
        T_EQ(I(&c, "slot_row")[slot] >= 0, slot / 3 < 3); /* 0.5*36/6 = 3 rows for each expert */
    }
    moec_case_free(&c);
}

T_CASE(one_hot_combine_is_a_gather) {
    moec_spec s = spec_of("E=8 K=4 H=24 dtype=f32");
    moec_case c = make(MOEC_OP_combine, &s, 20, 7);
    absent(&c, "add");
    for (int64_t slot = 0; slot < 80; slot++) F(&c, "weight")[slot] = slot % 4 == (slot / 4) % 4;
    run(&c);
    for (int64_t t = 0; t < 20; t++)
        for (int64_t h = 0; h < 24; h++)
            T_NEAR(F(&c, "out")[t * 24 + h],
                   F(&c, "y")[I(&c, "slot_row")[t * 4 + t % 4] * 24 + h], 0);
    moec_case_free(&c);
}

/* ---- adjoints: <A x, y> = <x, A^T y> ---- */

static void adjoint(const char *what, double left, double right, double scale) {
    if (!(fabs(left - right) <= 1e-11 * scale)) T_FAIL("%s: %.17g and %.17g", what, left, right);
}

/* up without activation is linear in x and in W1; its adjoints are dx with combine, and dw1. */
static void adjoint_up(const char *text, int64_t T) {
    moec_spec s = spec_of(text);
    moec_case up = make(MOEC_OP_up, &s, T, 11), dx = make(MOEC_OP_dx, &s, T, 11);
    moec_case join = make(MOEC_OP_combine, &s, T, 11), dw = make(MOEC_OP_dw1, &s, T, 11);
    int64_t live = I(&up, "offsets")[s.E] * moec_spec_U(&s);
    absent(&up, "b1");
    run(&up);
    copy(&dx, "w1", &up, "w1");
    run(&dx);
    copy(&join, "y", &dx, "dx_row");
    absent(&join, "weight"), absent(&join, "add");
    run(&join);
    copy(&dw, "dhpre", &dx, "dhpre");
    copy(&dw, "x", &up, "x");
    scalar(&dw, "beta", 0);
    run(&dw);
    double left = inner(F(&up, "hpre"), F(&dx, "dhpre"), live);
    double scale = size_of(F(&up, "hpre"), live) * size_of(F(&dx, "dhpre"), live);
    adjoint("up and dx", left, inner(F(&up, "x"), F(&join, "out"), count(&up, "x")), scale);
    adjoint("up and dw1", left, inner(F(&up, "w1"), F(&dw, "dw1"), count(&up, "w1")), scale);
    moec_case_free(&up), moec_case_free(&dx), moec_case_free(&join), moec_case_free(&dw);
}

T_CASE(adjoint_of_up) {
    adjoint_up("E=5 K=2 H=16 F=24 act=none dtype=f32", 9);
    adjoint_up("E=5 K=2 H=16 F=24 act=none dtype=f32 capacity=0.5", 31);
    adjoint_up("E=64 K=1 H=8 F=8 act=swiglu dtype=f32 layout=interleaved", 7); /* hpre is linear too */
}

/* combine(down(a)) is linear in a and in W2; its adjoints are dh without activation, and dw2. */
static void adjoint_down(const char *text, int64_t T) {
    moec_spec s = spec_of(text);
    moec_case down = make(MOEC_OP_down, &s, T, 12), join = make(MOEC_OP_combine, &s, T, 12);
    moec_case dh = make(MOEC_OP_dh, &s, T, 12), dw = make(MOEC_OP_dw2, &s, T, 12);
    int64_t live = I(&down, "offsets")[s.E] * s.F, n = count(&join, "out");
    absent(&down, "b2"), absent(&join, "add"), absent(&dh, "b2");
    run(&down);
    copy(&join, "y", &down, "y");
    run(&join);
    copy(&dh, "w2", &down, "w2");
    copy(&dh, "hpre", &down, "a");
    copy(&dh, "weight", &join, "weight");
    run(&dh);
    copy(&dw, "dout", &dh, "dout");
    copy(&dw, "a_w", &dh, "a_w");
    scalar(&dw, "beta", 0);
    run(&dw);
    double left = inner(F(&join, "out"), F(&dh, "dout"), n);
    double scale = size_of(F(&join, "out"), n) * size_of(F(&dh, "dout"), n);
    adjoint("down and dh", left, inner(F(&down, "a"), F(&dh, "dhpre"), live), scale);
    adjoint("down and dw2", left, inner(F(&down, "w2"), F(&dw, "dw2"), count(&dw, "dw2")), scale);
    adjoint("combine and dweight", left,
            inner(F(&join, "weight"), F(&dh, "dweight"), count(&join, "weight")), scale);
    moec_case_free(&down), moec_case_free(&join), moec_case_free(&dh), moec_case_free(&dw);
}

T_CASE(adjoint_of_down_and_combine) {
    adjoint_down("E=5 K=2 H=16 F=24 act=none dtype=f32", 9);
    adjoint_down("E=5 K=3 H=8 F=16 act=none dtype=f32 capacity=0.7", 40);
}

T_CASE(adjoint_of_linear) {
    moec_spec s = spec_of("H=24 F=40 dtype=f32");
    moec_case y = make(MOEC_OP_linear, &s, 9, 13), dx = make(MOEC_OP_linear_dx, &s, 9, 13);
    moec_case dw = make(MOEC_OP_linear_dw, &s, 9, 13);
    scalar(&y, "beta", 0), scalar(&dx, "beta", 0), scalar(&dw, "beta", 0);
    copy(&dx, "w", &y, "w"), copy(&dw, "x", &y, "x"), copy(&dw, "dy", &dx, "dy");
    run(&y), run(&dx), run(&dw);
    double left = inner(F(&y, "y"), F(&dx, "dy"), 9 * 40);
    adjoint("linear and linear_dx", left, inner(F(&y, "x"), F(&dx, "dx"), 9 * 24), 1000);
    adjoint("linear and linear_dw", left, inner(F(&y, "w"), F(&dw, "dw"), 40 * 24), 1000);
    moec_case_free(&y), moec_case_free(&dx), moec_case_free(&dw);
}

T_CASE(adjoint_of_embed_and_rope) {
    moec_spec s = spec_of("H=8 V=17 heads=3 kv=1 dim=8 dtype=f32");
    moec_case e = make(MOEC_OP_embed, &s, 40, 14), b = make(MOEC_OP_embed_bwd, &s, 40, 14);
    scalar(&b, "beta", 0);
    memcpy(I(&b, "token"), I(&e, "token"), 40 * sizeof(int32_t));
    run(&e), run(&b);
    adjoint("embed", inner(F(&e, "out"), F(&b, "dout"), 320), inner(F(&e, "table"), F(&b, "dtable"), 136),
            1000);
    moec_case x = make(MOEC_OP_rope, &s, 40, 15), y = make(MOEC_OP_rope, &s, 40, 16);
    double before[960], back[960];
    scalar(&x, "seq", 11), scalar(&y, "seq", 11), scalar(&y, "inverse", 1), scalar(&x, "inverse", 0);
    memcpy(before, F(&x, "x"), sizeof before);
    memcpy(back, F(&y, "x"), sizeof back);
    run(&x), run(&y);
    adjoint("rope", inner(F(&x, "x"), back, 960), inner(before, F(&y, "x"), 960), 1000);
    copy(&y, "x", &x, "x");
    run(&y);
    for (int i = 0; i < 960; i++) T_NEAR(F(&y, "x")[i], before[i], 1e-12); /* and the inverse */
    moec_case_free(&e), moec_case_free(&b), moec_case_free(&x), moec_case_free(&y);
}

T_CASE(gemms_are_linear_in_each_operand) {
    moec_spec s = spec_of("E=5 K=2 H=16 F=24 act=none dtype=f32");
    for (int operand = 0; operand < 2; operand++) {
        const char *name = operand ? "w1" : "x";
        moec_case a = make(MOEC_OP_up, &s, 9, 21), b = make(MOEC_OP_up, &s, 9, 21);
        moec_case c = make(MOEC_OP_up, &s, 9, 21);
        absent(&a, "b1"), absent(&b, "b1"), absent(&c, "b1");
        noise(F(&b, name), count(&b, name), 1);
        for (int64_t i = 0; i < count(&c, name); i++) F(&c, name)[i] = 2 * F(&a, name)[i] - F(&b, name)[i];
        run(&a), run(&b), run(&c);
        for (int64_t i = 0; i < count(&c, "hpre"); i++)
            T_NEAR(F(&c, "hpre")[i], 2 * F(&a, "hpre")[i] - F(&b, "hpre")[i], 1e-12);
        moec_case_free(&a), moec_case_free(&b), moec_case_free(&c);
    }
}

/* ---- finite differences ---- */

T_CASE(slopes_of_activations) {
    for (int64_t act = MOEC_ACT_SWIGLU; act <= MOEC_ACT_NONE; act++)
        for (double v = -6.03; v < 6; v += 0.1) {
            double h = 1e-5;
            double slope = (moec_ref_act(act, v + h) - moec_ref_act(act, v - h)) / (2 * h);
            T_NEAR(moec_ref_act_slope(act, v), slope, 1e-8);
        }
}

/* A differentiable program of cases: loss() runs it forward, grad points at the analytic gradient of
 * `n` inputs at `value`. Ten inputs are nudged. */
static void compare_slopes(const char *what, double (*loss)(void *), void *user, double *value,
                           const double *grad, int64_t n, double scale) {
    moec_random r = moec_random_new((uint64_t)n, 17);
    for (int i = 0; i < 10 && n; i++) {
        int64_t k = moec_random_below(&r, n);
        double kept = value[k], h = 1e-5;
        value[k] = kept + h;
        double up = loss(user);
        value[k] = kept - h;
        double down = loss(user);
        value[k] = kept;
        double slope = (up - down) / (2 * h);
        if (!(fabs(slope - grad[k]) <= 2e-6 * (scale + fabs(slope))))
            T_FAIL("%s[%" PRId64 "]: slope %.9g, gradient %.9g", what, k, slope, grad[k]);
    }
}

typedef struct net {
    moec_case route, up, down, join, dh, dw1, dw2, db1, db2, dx, back, droute;
    double *dout, aux, z;
    int32_t *expert0;
} net;

static void share(moec_case *to, const moec_case *route) { /* routing data by reference */
    static const char *const names[] = {"offsets", "row_slot", "slot_row", "weight", "expert", "load"};
    for (int i = 0; i < 6; i++) {
        int mine = moec_op_arg(to->op, names[i]);
        if (mine >= 0) to->ref.arg[mine] = route->ref.arg[at(route, names[i])];
    }
}

static void bind(moec_case *to, const char *arg, const moec_case *from, const char *source) {
    to->ref.arg[at(to, arg)] = from->ref.arg[at(from, source)];
}

static net net_new(const moec_spec *s, int64_t T, uint64_t seed) {
    net n = {.aux = 0.3, .z = 0.2};
    struct { moec_case *c; moec_op_id op; } all[] = {
        {&n.route, MOEC_OP_route}, {&n.up, MOEC_OP_up}, {&n.down, MOEC_OP_down}, {&n.join, MOEC_OP_combine},
        {&n.dh, MOEC_OP_dh}, {&n.dw1, MOEC_OP_dw1}, {&n.dw2, MOEC_OP_dw2}, {&n.dx, MOEC_OP_dx},
        {&n.back, MOEC_OP_combine}, {&n.droute, MOEC_OP_route_bwd}, {&n.db1, MOEC_OP_db1},
        {&n.db2, MOEC_OP_db2},
    };
    for (size_t i = 0; i < sizeof all / sizeof *all - (s->bias ? 0 : 2); i++) {
        *all[i].c = make(all[i].op, s, T, seed);
        if (i) share(all[i].c, &n.route);
    }
    bind(&n.down, "a", &n.up, "a"), bind(&n.join, "y", &n.down, "y");
    bind(&n.dh, "w2", &n.down, "w2"), bind(&n.dh, "hpre", &n.up, "hpre");
    bind(&n.dh, "b2", &n.down, "b2");
    bind(&n.dw2, "dout", &n.dh, "dout"), bind(&n.dw2, "a_w", &n.dh, "a_w");
    bind(&n.dw1, "dhpre", &n.dh, "dhpre"), bind(&n.dw1, "x", &n.up, "x");
    bind(&n.dx, "dhpre", &n.dh, "dhpre"), bind(&n.dx, "w1", &n.up, "w1");
    bind(&n.back, "y", &n.dx, "dx_row"), bind(&n.droute, "dweight", &n.dh, "dweight");
    bind(&n.droute, "logits", &n.route, "logits");
    absent(&n.join, "add"), absent(&n.back, "add"), absent(&n.back, "weight");
    scalar(&n.dw1, "beta", 0), scalar(&n.dw2, "beta", 0);
    scalar(&n.droute, "aux", n.aux), scalar(&n.droute, "z", n.z);
    if (!s->bias) return n;
    bind(&n.db1, "dhpre", &n.dh, "dhpre"), bind(&n.db2, "dout", &n.dh, "dout");
    scalar(&n.db1, "beta", 0), scalar(&n.db2, "beta", 0);
    return n;
}

static void net_free(net *n) {
    moec_case *all[] = {&n->route, &n->up, &n->down, &n->join, &n->dh, &n->dw1,
                        &n->dw2, &n->db1, &n->db2, &n->dx, &n->back, &n->droute};
    for (int i = 0; i < 12; i++) moec_case_free(all[i]);
    free(n->expert0);
}

static double net_loss(void *user) {
    net *n = user;
    int64_t slots = n->route.T * n->route.spec.K;
    run(&n->route), run(&n->up), run(&n->down), run(&n->join);
    if (n->expert0 && memcmp(n->expert0, I(&n->route, "expert"), (size_t)slots * sizeof(int32_t)))
        T_FAIL("a nudge changed a choice: draw another seed");
    return inner(F(&n->join, "out"), F(&n->dh, "dout"), count(&n->join, "out")) +
           moec_ref_router_loss(&n->route.spec, n->route.T, I(&n->route, "load"),
                                F(&n->route, "prob_sum"), F(&n->route, "z_sum")[0], n->aux, n->z);
}

static void check_net(const char *text, uint64_t seed) {
    moec_spec s = spec_of(text);
    net n = net_new(&s, 12, seed);
    noise(F(&n.route, "logits"), 12 * s.E, seed); /* without the ties of a case: a nudge breaks them */
    net_loss(&n);
    size_t bytes = (size_t)count(&n.route, "expert") * sizeof(int32_t);
    n.expert0 = malloc(bytes);
    memcpy(n.expert0, I(&n.route, "expert"), bytes);
    run(&n.dh), run(&n.dw1), run(&n.dw2), run(&n.dx), run(&n.back), run(&n.droute);
    if (s.bias) run(&n.db1), run(&n.db2);
    const struct { const char *name; moec_case *in; const char *arg; moec_case *out; const char *grad; } g[] = {
        {"x", &n.up, "x", &n.back, "out"},     {"w1", &n.up, "w1", &n.dw1, "dw1"},
        {"w2", &n.down, "w2", &n.dw2, "dw2"},  {"logits", &n.route, "logits", &n.droute, "dlogits"},
        {"b1", &n.up, "b1", &n.db1, "db1"},    {"b2", &n.down, "b2", &n.db2, "db2"},
    };
    for (int i = 0; i < (s.bias ? 6 : 4); i++) {
        int64_t size = count(g[i].in, g[i].arg);
        double *grad = malloc((size_t)size * sizeof *grad); /* losses run over the same arrays */
        memcpy(grad, F(g[i].out, g[i].grad), (size_t)size * sizeof *grad);
        compare_slopes(g[i].name, net_loss, &n, F(g[i].in, g[i].arg), grad, size,
                       size_of(grad, size) / sqrt((double)size));
        free(grad);
    }
    net_free(&n);
}

T_CASE(layer_gradients) {
    check_net("E=6 K=2 H=8 F=16 dtype=f32", 31);
    check_net("E=6 K=2 H=8 F=16 dtype=f32 layout=interleaved act=geglu bias=1", 32);
    check_net("E=6 K=3 H=16 F=8 dtype=f32 act=gelu bias=1 norm=0 scale=2.5", 33);
    check_net("E=6 K=3 H=16 F=8 dtype=f32 act=relu2 router=topk_softmax", 34);
    check_net("E=8 K=3 H=8 F=8 dtype=f32 act=silu router=sigmoid_bias groups=4/2 scale=1.5", 35);
    check_net("E=8 K=3 H=8 F=8 dtype=f32 act=reglu router=sigmoid_bias norm=0", 36);
    check_net("E=8 K=2 H=8 F=8 dtype=f32 act=none router=logits bias=1", 37);
    check_net("E=4 K=2 H=8 F=8 dtype=f32 act=swiglu capacity=0.7 bias=1", 38);
    check_net("E=1 K=1 H=8 F=8 dtype=f32 act=relu", 39);
}

typedef struct pair { moec_case *forward; const char *out; const double *dout; int64_t n; } pair;
static double pair_loss(void *user) {
    pair *p = user;
    run(p->forward);
    return inner(F(p->forward, p->out), p->dout, p->n);
}

T_CASE(rmsnorm_gradients) {
    moec_spec s = spec_of("H=24 dtype=f32");
    moec_case f = make(MOEC_OP_rmsnorm, &s, 7, 41), b = make(MOEC_OP_rmsnorm_bwd, &s, 7, 41);
    absent(&b, "dres"), scalar(&b, "beta", 0);
    run(&f);
    copy(&b, "s", &f, "sum"), copy(&b, "gain", &f, "gain"), copy(&b, "rstd", &f, "rstd");
    run(&b);
    pair p = {&f, "y", F(&b, "dy"), 7 * 24};
    compare_slopes("x", pair_loss, &p, F(&f, "x"), F(&b, "dx"), 7 * 24, 1);
    compare_slopes("add", pair_loss, &p, F(&f, "add"), F(&b, "dx"), 7 * 24, 1);
    compare_slopes("gain", pair_loss, &p, F(&f, "gain"), F(&b, "dgain"), 24, 1);
    moec_case_free(&f), moec_case_free(&b);
}

T_CASE(attention_gradients) {
    moec_spec s = spec_of("heads=4 kv=2 dim=6 dtype=f32");
    moec_case f = make(MOEC_OP_attention, &s, 17, 43), b = make(MOEC_OP_attention_bwd, &s, 17, 43);
    scalar(&f, "seq", 7), scalar(&b, "seq", 7);
    run(&f);
    copy(&b, "q", &f, "q"), copy(&b, "k", &f, "k"), copy(&b, "v", &f, "v");
    copy(&b, "out", &f, "out"), copy(&b, "lse", &f, "lse");
    run(&b);
    pair p = {&f, "out", F(&b, "dout"), count(&f, "out")};
    compare_slopes("q", pair_loss, &p, F(&f, "q"), F(&b, "dq"), count(&f, "q"), 1);
    compare_slopes("k", pair_loss, &p, F(&f, "k"), F(&b, "dk"), count(&f, "k"), 1);
    compare_slopes("v", pair_loss, &p, F(&f, "v"), F(&b, "dv"), count(&f, "v"), 1);
    moec_case_free(&f), moec_case_free(&b);
}

/* Attention is causal, within sequences, and a lone token attends to itself. */
T_CASE(attention_sees_no_future) {
    moec_spec s = spec_of("heads=2 kv=1 dim=4 dtype=f32");
    moec_case a = make(MOEC_OP_attention, &s, 12, 44), b = make(MOEC_OP_attention, &s, 12, 44);
    scalar(&a, "seq", 5), scalar(&b, "seq", 5);
    for (int d = 0; d < 4; d++) F(&b, "k")[7 * 4 + d] = F(&b, "v")[7 * 4 + d] = 9;
    run(&a), run(&b);
    for (int t = 0; t < 12; t++) {
        bool same = !memcmp(F(&a, "out") + t * 8, F(&b, "out") + t * 8, 8 * sizeof(double));
        T_EQ(same, t < 7 || t >= 10); /* token 7 is in the sequence 5..9 */
    }
    for (int d = 0; d < 4; d++) T_NEAR(F(&a, "out")[10 * 8 + d], F(&a, "v")[10 * 4 + d], 1e-15);
    moec_case_free(&a), moec_case_free(&b);
}

static double xent_loss(void *user) {
    moec_case *c = user;
    double kept[5 * 17], total = 0;
    memcpy(kept, F(c, "logits"), sizeof kept);
    run(c);
    for (int t = 0; t < 5; t++) total += F(c, "loss")[t];
    memcpy(F(c, "logits"), kept, sizeof kept);
    return 0.25 * total;
}

T_CASE(xent_gradients) {
    moec_spec s = spec_of("V=17 dtype=f32");
    moec_case c = make(MOEC_OP_xent, &s, 5, 45), d = make(MOEC_OP_xent, &s, 5, 45);
    scalar(&c, "scale", 0), scalar(&d, "scale", 0.25);
    run(&d);
    compare_slopes("logits", xent_loss, &c, F(&c, "logits"), F(&d, "logits"), 85, 1);
    T_EQ(I(&c, "target")[4], -1);
    for (int v = 0; v < 17; v++) T_NEAR(F(&d, "logits")[4 * 17 + v], 0, 0);
    moec_case_free(&c), moec_case_free(&d);
}

/* AdamW with one parameter, by its textbook definition. */
T_CASE(adamw_by_hand) {
    moec_spec s = spec_of("dtype=f32");
    moec_case c = make(MOEC_OP_adamw, &s, 1, 46);
    F(&c, "grad")[0] = 2, F(&c, "master")[0] = 1, F(&c, "m")[0] = 0, F(&c, "v")[0] = 0;
    scalar(&c, "lr", 0.1), scalar(&c, "beta1", 0.9), scalar(&c, "beta2", 0.99), scalar(&c, "eps", 0);
    scalar(&c, "wd", 0.5), scalar(&c, "gscale", 0.5), scalar(&c, "step", 1);
    run(&c); /* g = 1, mhat = 1, vhat = 1: master = 1 - 0.1*(1 + 0.5) */
    T_NEAR(F(&c, "master")[0], 0.85, 1e-12);
    T_NEAR(F(&c, "m")[0], 0.1, 1e-12);
    T_NEAR(F(&c, "v")[0], 0.01, 1e-12);
    moec_case_free(&c);
}

/* ---- invariance ---- */

/* Experts renamed by a rotation, in logits and weights: the layer's output does not change. */
T_CASE(experts_may_be_relabelled) {
    static const char *const specs[] = {
        "E=6 K=2 H=8 F=16 dtype=f32 bias=1", "E=6 K=3 H=8 F=8 dtype=f32 capacity=0.8 router=logits act=gelu",
        "E=6 K=2 H=8 F=8 dtype=f32 router=sigmoid_bias"};
    for (int i = 0; i < 3; i++) {
        moec_spec s = spec_of(specs[i]);
        int64_t E = s.E, T = 15;
        net a = net_new(&s, T, 50 + (uint64_t)i), b = net_new(&s, T, 50 + (uint64_t)i);
        const struct { moec_case *from, *to; const char *arg; } tables[] = {
            {&a.up, &b.up, "w1"}, {&a.up, &b.up, "b1"}, {&a.down, &b.down, "w2"}, {&a.down, &b.down, "b2"},
            {&a.route, &b.route, "sel_bias"},
        };
        for (int k = 0; k < 5; k++) {
            if (!F(tables[k].from, tables[k].arg)) continue;
            int64_t block = count(tables[k].from, tables[k].arg) / E;
            for (int64_t e = 0; e < E; e++)
                memcpy(F(tables[k].to, tables[k].arg) + (e + 1) % E * block,
                       F(tables[k].from, tables[k].arg) + e * block, (size_t)block * sizeof(double));
        }
        noise(F(&a.route, "logits"), T * E, 60); /* no ties: they depend on names */
        for (int64_t k = 0; k < T * E; k++)
            F(&b.route, "logits")[k / E * E + (k % E + 1) % E] = F(&a.route, "logits")[k];
        net_loss(&a), net_loss(&b);
        run(&a.dh), run(&a.dx), run(&a.back), run(&b.dh), run(&b.dx), run(&b.back);
        for (int64_t k = 0; k < T * s.H; k++) {
            T_NEAR(F(&b.join, "out")[k], F(&a.join, "out")[k], 1e-12);
            T_NEAR(F(&b.back, "out")[k], F(&a.back, "out")[k], 1e-12);
        }
        for (int64_t slot = 0; slot < T * s.K; slot++)
            T_EQ(I(&b.route, "expert")[slot], (I(&a.route, "expert")[slot] + 1) % E);
        net_free(&a), net_free(&b);
    }
}

/* Without capacity a token's output depends on that token only: a batch in another order. */
T_CASE(tokens_do_not_see_each_other) {
    moec_spec s = spec_of("E=6 K=2 H=8 F=16 dtype=f32");
    net a = net_new(&s, 10, 70), b = net_new(&s, 10, 70);
    for (int64_t t = 0; t < 10; t++) {
        memcpy(F(&b.up, "x") + (9 - t) * 8, F(&a.up, "x") + t * 8, 8 * sizeof(double));
        memcpy(F(&b.route, "logits") + (9 - t) * 6, F(&a.route, "logits") + t * 6, 6 * sizeof(double));
    }
    net_loss(&a), net_loss(&b);
    for (int64_t t = 0; t < 10; t++)
        for (int64_t h = 0; h < 8; h++)
            T_NEAR(F(&b.join, "out")[(9 - t) * 8 + h], F(&a.join, "out")[t * 8 + h], 0);
    net_free(&a), net_free(&b);
}

/* ---- bounds ---- */

/* A bound must hold what it promises: a plain f32 dot product in another order stays inside, and a
 * bound is not so wide that a dropped term of typical size fits in. */
T_CASE(bounds_hold_and_bite) {
    moec_spec s = spec_of("E=3 K=1 H=512 F=64 dtype=f32 act=none");
    moec_case c = make(MOEC_OP_up, &s, 40, 80);
    run(&c);
    moec_ref_arg hpre = c.ref.arg[at(&c, "hpre")];
    double *x = F(&c, "x"), *w = F(&c, "w1"), *b1 = F(&c, "b1");
    int64_t caught = 0, total = 0;
    T_OK(b1 == NULL);
    for (int64_t e = 0; e < 3; e++)
        for (int64_t r = I(&c, "offsets")[e]; r < I(&c, "offsets")[e + 1]; r++)
            for (int64_t u = 0; u < 64; u++) {
                int64_t t = I(&c, "row_slot")[r], i = r * 64 + u;
                float sum = 0;
                for (int64_t h = 511; h >= 0; h--) sum += (float)(x[t * 512 + h] * w[(e * 64 + u) * 512 + h]);
                T_NEAR((double)sum, hpre.f[i], hpre.e[i]);
                double missing = x[t * 512 + 3] * w[(e * 64 + u) * 512 + 3];
                caught += fabs(missing) > hpre.e[i];
                total++;
            }
    T_OK(total > 1000 && caught > total * 95 / 100);
    moec_case_free(&c);
}

T_MAIN
