/* The layer of moec.h against a layer put together from the oracle's ops, forward and backward,
 * element by element within the bounds that the oracle carries through the whole chain. Then what
 * the interface promises: flat counters, recompute equals saving, T = 0, and named mistakes. */
#include "t.h"

#include <math.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "device.h"
#include "layer.h"
#include "ref.h"

/* ---- numbers ---- */

/* A buffer as the oracle sees it (f with bound e, or i) and as the layer sees it (data). */
typedef struct buf { int64_t n; moec_arg_type type; double *f, *e; int32_t *i; char *data; } buf;

static uint64_t random_state;

static double random_unit(void) { /* in [-1, 1) */
    random_state = random_state * 6364136223846793005u + 1442695040888963407u;
    return (double)(int64_t)(random_state >> 11) / (double)(INT64_C(1) << 52) - 1;
}

static float to_bf16(float v) { /* to nearest even */
    uint32_t u;
    memcpy(&u, &v, 4);
    u = (u + 0x7fff + (u >> 16 & 1)) & 0xffff0000u;
    memcpy(&v, &u, 4);
    return v;
}

static void put(const buf *b, int64_t at) { /* f -> data */
    float v = (float)b->f[at];
    if (b->type == MOEC_T_BF16) memcpy(b->data + 2 * at, (char *)&v + 2, 2);
    else memcpy(b->data + 4 * at, &v, 4);
}

static double got(const buf *b, int64_t at) { /* from data */
    float v = 0;
    if (b->type == MOEC_T_BF16) memcpy((char *)&v + 2, b->data + 2 * at, 2);
    else memcpy(&v, b->data + 4 * at, 4);
    return (double)v;
}

static void *zeros(size_t bytes) {
    void *p = aligned_alloc(256, (bytes + 511) / 256 * 256);
    if (!p) abort();
    return memset(p, 0, (bytes + 511) / 256 * 256);
}

static buf *make(int64_t n, moec_arg_type type) {
    buf *b = zeros(sizeof *b);
    *b = (buf){.n = n, .type = type, .data = zeros((size_t)n * 4)};
    if (type == MOEC_T_I32) b->i = (int32_t *)b->data;
    else b->f = zeros((size_t)n * 8), b->e = zeros((size_t)n * 8);
    memset(b->data, 0xff, (size_t)n * (type == MOEC_T_BF16 ? 2 : 4)); /* poison: NaN */
    return b;
}

/* Random values that the type holds exactly. */
static buf *input(int64_t n, moec_arg_type type, double scale) {
    buf *b = make(n, type);
    for (int64_t k = 0; k < n; k++) {
        float v = (float)(random_unit() * scale);
        b->f[k] = (double)(type == MOEC_T_BF16 ? to_bf16(v) : v);
        put(b, k);
    }
    return b;
}

static void release(buf *b) {
    if (!b) return;
    if (b->f) free(b->f), free(b->e);
    free(b->data);
    free(b);
}

/* ---- one case ---- */

/* Every buffer of one case, inputs and both sides' results. */
typedef struct layer_case {
    moec_spec spec, shared;
    int64_t T, R;
    bool given;                 /* experts and weights come from the caller, not from logits */
    buf *x, *w1, *b1, *w2, *b2, *sw1, *sw2, *logits, *sel_bias, *dout;
    buf *expert, *weight, *offsets, *row_slot, *slot_row, *load, *prob_sum, *z_sum;
    buf *hpre, *a, *y, *shpre, *sa, *sy, *out;
    buf *dhpre, *a_w, *dx_row, *sdhpre, *sa_w, *sdx, *dx, *dw1, *db1, *dw2, *db2, *sdw1, *sdw2;
    buf *dweight, *dlogits;
    unsigned char *undecided;
} layer_case;

static void case_new(layer_case *c, const char *text, int64_t T, bool given, uint64_t seed) {
    moec_error err = {0};
    memset(c, 0, sizeof *c);
    if (moec_spec_parse(text, &c->spec, &err)) printf("# %s\n", err.text), abort();
    const moec_spec *s = &c->spec;
    moec_arg_type act = s->dtype == MOEC_BF16 ? MOEC_T_BF16 : MOEC_T_F32;
    moec_arg_type grad = s->wgrad == MOEC_WGRAD_SAME ? act : MOEC_T_F32;
    int64_t E = s->E, K = s->K, H = s->H, F = s->F, U = moec_spec_U(s), S = s->shared;
    int64_t R = T * K, US = U / F * S;
    c->T = T, c->R = R, c->given = given;
    c->shared = moec_layer_row_spec(moec_layer_row_at(MOEC_L_SHARED_UP), s);
    random_state = seed;
    c->x = input(T * H, act, 1), c->dout = input(T * H, act, 1);
    c->w1 = input(E * U * H, act, 1 / sqrt((double)H)), c->w2 = input(E * H * F, act, 1 / sqrt((double)F));
    c->logits = input(T * E, MOEC_T_F32, 3), c->sel_bias = input(E, MOEC_T_F32, 0.1);
    if (s->bias) c->b1 = input(E * U, act, 0.5), c->b2 = input(E * H, act, 0.5);
    if (S) c->sw1 = input(US * H, act, 1 / sqrt((double)H)), c->sw2 = input(H * S, act, 1 / sqrt((double)S));
    c->expert = make(R, MOEC_T_I32), c->weight = make(R, MOEC_T_F32);
    c->offsets = make(E + 1, MOEC_T_I32), c->row_slot = make(R, MOEC_T_I32);
    c->slot_row = make(R, MOEC_T_I32), c->load = make(E, MOEC_T_I32);
    c->prob_sum = make(E, MOEC_T_F32), c->z_sum = make(1, MOEC_T_F32);
    c->hpre = make(R * U, act), c->a = make(R * F, act), c->y = make(R * H, act), c->out = make(T * H, act);
    c->dhpre = make(R * U, act), c->a_w = make(R * F, act), c->dx_row = make(R * H, act);
    c->dx = make(T * H, act), c->dw1 = make(E * U * H, grad), c->dw2 = make(E * H * F, grad);
    c->dweight = make(R, MOEC_T_F32), c->dlogits = make(T * E, MOEC_T_F32);
    if (s->bias) c->db1 = make(E * U, grad), c->db2 = make(E * H, grad);
    if (S) {
        c->shpre = make(T * US, act), c->sa = make(T * S, act), c->sy = make(T * H, act);
        c->sdhpre = make(T * US, act), c->sa_w = make(T * S, act), c->sdx = make(T * H, act);
        c->sdw1 = make(US * H, grad), c->sdw2 = make(H * S, grad);
    }
    c->undecided = zeros((size_t)T);
    for (int64_t k = 0; given && k < R; k++) { /* distinct experts of a token, any weights */
        c->expert->i[k] = (int32_t)((k / K * 7 + k % K * (E / K)) % E);
        c->weight->f[k] = (double)(float)random_unit();
        put(c->weight, k);
    }
}

static void case_free(layer_case *c) {
    for (buf **b = &c->x; b <= &c->dlogits; b++) release(*b);
    free(c->undecided);
}

/* ---- the oracle's side ---- */

static moec_ref_arg B(const buf *b) {
    return b ? (moec_ref_arg){.f = b->f, .e = b->e, .i = b->i} : (moec_ref_arg){0};
}
static moec_ref_arg V(double scalar) { return (moec_ref_arg){.scalar = scalar}; }

static void ref_run(const layer_case *c, bool shared, moec_op_id op, const moec_ref_arg *args) {
    moec_error err = {0};
    moec_ref ref = {.op = moec_op_get(op), .spec = shared ? &c->shared : &c->spec, .T = c->T,
                    .R = shared ? c->T : c->R, .u_acc = 0x1p-24};
    if (op == MOEC_OP_route) ref.undecided = c->undecided;
    memcpy(ref.arg, args, (size_t)ref.op->arg_count * sizeof *args);
    if (moec_ref_run(&ref, &err)) T_FAIL("%s", err.text);
}
#define REF(shared, op, ...) ref_run(c, shared, MOEC_OP_##op, (const moec_ref_arg[]){__VA_ARGS__})

static void ref_forward(const layer_case *c) {
    bool S = c->spec.shared != 0;
    moec_ref_arg T = V((double)c->T), none = {0};
    REF(0, route, c->given ? none : B(c->logits), B(c->sel_bias), B(c->expert), B(c->weight),
        B(c->offsets), B(c->row_slot), B(c->slot_row), B(c->load), B(c->prob_sum), B(c->z_sum), T);
    if (S) {
        REF(1, up, B(c->x), B(c->sw1), none, none, none, B(c->shpre), B(c->sa), T);
        REF(1, down, B(c->sa), B(c->sw2), none, none, B(c->sy), T);
    }
    REF(0, up, B(c->x), B(c->w1), B(c->b1), B(c->offsets), B(c->row_slot), B(c->hpre), B(c->a), T);
    REF(0, down, B(c->a), B(c->w2), B(c->b2), B(c->offsets), B(c->y), T);
    REF(0, combine, B(c->y), B(c->weight), B(c->slot_row), B(c->sy), B(c->out), T);
}

static void ref_backward(const layer_case *c, double beta, double aux, double z) {
    bool S = c->spec.shared != 0;
    moec_ref_arg T = V((double)c->T), b = V(beta), none = {0};
    REF(0, dh, B(c->dout), B(c->w2), B(c->b2), B(c->hpre), B(c->weight), B(c->offsets), B(c->row_slot),
        B(c->dhpre), B(c->a_w), B(c->dweight), B(c->slot_row), T);
    REF(0, dw2, B(c->dout), B(c->a_w), B(c->offsets), B(c->row_slot), B(c->dw2), b, T);
    REF(0, dw1, B(c->dhpre), B(c->x), B(c->offsets), B(c->row_slot), B(c->dw1), b, T);
    REF(0, dx, B(c->dhpre), B(c->w1), B(c->offsets), B(c->dx_row), T);
    if (c->spec.bias) {
        REF(0, db2, B(c->dout), B(c->weight), B(c->offsets), B(c->row_slot), B(c->db2), b, T);
        REF(0, db1, B(c->dhpre), B(c->offsets), B(c->db1), b, T);
    }
    if (S) {
        REF(1, dh, B(c->dout), B(c->sw2), none, B(c->shpre), none, none, none, B(c->sdhpre), B(c->sa_w),
            none, none, T);
        REF(1, dw2, B(c->dout), B(c->sa_w), none, none, B(c->sdw2), b, T);
        REF(1, dw1, B(c->sdhpre), B(c->x), none, none, B(c->sdw1), b, T);
        REF(1, dx, B(c->sdhpre), B(c->sw1), none, B(c->sdx), T);
    }
    REF(0, combine, B(c->dx_row), none, B(c->slot_row), B(c->sdx), B(c->dx), T);
    if (!c->given)
        REF(0, route_bwd, B(c->logits), B(c->expert), B(c->weight), B(c->dweight), B(c->load),
            B(c->dlogits), V(aux), V(z), T);
}

/* ---- the layer's side ---- */

static const void *data(const buf *b) { return b ? b->data : NULL; }
static void *room(const buf *b) { return b ? b->data : NULL; }

static moec_weights weights_of(const layer_case *c) {
    return (moec_weights){data(c->w1), data(c->b1), data(c->w2), data(c->b2), data(c->sw1), data(c->sw2)};
}

static moec_forward forward_of(const layer_case *c, void *saved, void *workspace) {
    return (moec_forward){
        .T = c->T, .x = data(c->x), .logits = c->given ? NULL : data(c->logits),
        .sel_bias = data(c->sel_bias), .expert = c->given ? data(c->expert) : NULL,
        .weight = c->given ? data(c->weight) : NULL, .weights = weights_of(c), .out = room(c->out),
        .saved = saved, .workspace = workspace};
}

static moec_backward backward_of(const layer_case *c, const void *saved, void *workspace) {
    return (moec_backward){
        .T = c->T, .x = data(c->x), .logits = c->given ? NULL : data(c->logits),
        .weights = weights_of(c), .saved = saved, .dout = data(c->dout), .dx = room(c->dx),
        .dw1 = room(c->dw1), .db1 = room(c->db1), .dw2 = room(c->dw2), .db2 = room(c->db2),
        .dshared_w1 = room(c->sdw1), .dshared_w2 = room(c->sdw2),
        .dlogits = c->given ? NULL : room(c->dlogits), .dweight = room(c->dweight),
        .workspace = workspace};
}

/* ---- comparing ---- */

/* Elements of b->data outside of the oracle's bound. */
static int64_t misses(const buf *b, const char *name, bool quiet) {
    int64_t bad = 0;
    for (int64_t k = 0; b && k < b->n; k++) {
        double d = fabs(got(b, k) - b->f[k]);
        if (d <= b->e[k]) continue;
        if (!bad++ && !quiet)
            T_FAIL("%s[%" PRId64 "] is %.9g, the oracle says %.9g within %.3g", name, k, got(b, k), b->f[k],
                   b->e[k]);
    }
    return bad;
}

static void compare_routing(const layer_case *c, const moec_layer *layer, const void *saved) {
    moec_routing g;
    moec_layer_routing(layer, saved, c->T, &g);
    T_OK(!memcmp(g.offsets, c->offsets->i, sizeof(int32_t) * (size_t)(c->spec.E + 1)));
    T_OK(!memcmp(g.expert, c->expert->i, sizeof(int32_t) * (size_t)c->R));
    T_OK(!memcmp(g.slot_row, c->slot_row->i, sizeof(int32_t) * (size_t)c->R));
    T_OK(!memcmp(g.load, c->load->i, sizeof(int32_t) * (size_t)c->spec.E));
}

#define SAME(field) misses(c.field, #field, false)

/* A layer and its blocks for T tokens. */
typedef struct rig { moec_device *device; moec_layer *layer; void *saved, *workspace; size_t saved_bytes; } rig;

static bool rig_open_with(rig *r, const char *target, const char *spec, const moec_layer_options *options,
                          int64_t T) {
    moec_error err = {0};
    memset(r, 0, sizeof *r);
    if (moec_device_open(target, 2, &r->device, &err) ||
        moec_layer_create(r->device, spec, options, &r->layer, &err)) {
        T_FAIL("%s: %s", spec, err.text);
        return false;
    }
    r->saved_bytes = moec_layer_saved_bytes(r->layer, T);
    size_t workspace = moec_layer_workspace_bytes(r->layer, T);
    r->saved = zeros(r->saved_bytes), r->workspace = zeros(workspace);
    memset(r->saved, 0xff, r->saved_bytes), memset(r->workspace, 0xff, workspace);
    return true;
}

static bool rig_open(rig *r, const char *target, const char *spec, bool recompute, int64_t T) {
    moec_layer_options options = {.recompute = recompute};
    return rig_open_with(r, target, spec, &options, T);
}

static void rig_close(rig *r) {
    moec_layer_free(r->layer);
    moec_device_close(r->device);
    free(r->saved), free(r->workspace);
}

/* Seeds until the oracle can tell every choice apart. */
static void case_decided(layer_case *c, const char *spec, int64_t T, bool given) {
    for (uint64_t seed = 1;; seed++) {
        bool open = false;
        case_new(c, spec, T, given, seed * 7919);
        ref_forward(c);
        for (int64_t t = 0; t < T; t++) open |= c->undecided[t] != 0;
        if (!open || given) return;
        case_free(c);
    }
}

static void check(const char *target, const char *spec, int64_t T, bool given, bool recompute) {
    static const double aux = 0.01, z = 0.001;
    layer_case c;
    rig r;
    moec_error err = {0};
    if (!rig_open(&r, target, spec, recompute, T)) return;
    case_decided(&c, spec, T, given);
    ref_backward(&c, 0, aux, z);
    moec_forward f = forward_of(&c, r.saved, r.workspace);
    moec_backward b = backward_of(&c, r.saved, r.workspace);
    b.aux_coef = aux, b.z_coef = z;
    int before = t_bad;
    if (moec_layer_forward(r.layer, &f, &err)) T_FAIL("forward: %s", err.text);
    compare_routing(&c, r.layer, r.saved);
    SAME(out);
    if (moec_layer_backward(r.layer, &b, &err)) T_FAIL("backward: %s", err.text);
    SAME(dx), SAME(dw1), SAME(dw2), SAME(db1), SAME(db2), SAME(sdw1), SAME(sdw2), SAME(dweight);
    if (!given) SAME(dlogits);
    f.saved = NULL; /* inference gives the same bits */
    buf *again = make(c.out->n, c.out->type);
    f.out = again->data;
    if (moec_layer_forward(r.layer, &f, &err)) T_FAIL("inference: %s", err.text);
    T_OK(!memcmp(again->data, c.out->data, (size_t)c.out->n * moec_type_bytes(c.out->type)));
    if (t_bad > before) printf("# ... in %s on %s, T=%d\n", spec, target, (int)T);
    release(again);
    case_free(&c);
    rig_close(&r);
}

T_CASE(softmax_bf16) { check("cpu", "E=8 K=2 H=64 F=72 dtype=bf16", 37, false, false); }
T_CASE(softmax_f32) { check("cpu", "E=5 K=3 H=40 F=24 dtype=f32 norm=0 act=geglu", 33, false, false); }
T_CASE(experts_of_the_caller) { check("cpu", "E=5 K=3 H=40 F=24 dtype=f32 norm=0 act=geglu", 20, true, false); }
T_CASE(bias_and_shared_expert) {
    check("cpu", "E=4 K=2 H=48 F=32 shared=40 bias=1 dtype=bf16 wgrad=same", 29, false, false);
}
T_CASE(recomputed_shared_and_biased) {
    check("cpu", "E=4 K=2 H=48 F=32 shared=40 bias=1 dtype=f32 layout=interleaved", 29, false, true);
}
T_CASE(capacity_drops_rows) {
    check("cpu", "E=4 K=2 H=32 F=32 dtype=f32 capacity=0.6 shared=8", 40, false, false);
}
T_CASE(sigmoid_groups_not_gated) {
    check("cpu", "E=16 K=3 H=32 F=16 act=relu2 dtype=f32 router=sigmoid_bias groups=4/2 scale=2.5", 21,
          false, false);
}
T_CASE(the_portable_floor) { check("cpu-scalar", "E=4 K=2 H=32 F=24 dtype=bf16", 13, false, false); }

/* Runs a case with `blocks` column blocks; workspace bytes of a batch that is large beside scratch. */
static size_t run_blocks(const char *target, const char *spec, int64_t T, int blocks, layer_case *c) {
    moec_layer_options options = {.column_blocks = blocks};
    moec_error err = {0};
    rig r;
    case_new(c, spec, T, false, 4711);
    if (!rig_open_with(&r, target, spec, &options, T)) return 0;
    moec_forward f = forward_of(c, r.saved, r.workspace);
    moec_backward b = backward_of(c, r.saved, r.workspace);
    if (moec_layer_forward(r.layer, &f, &err)) T_FAIL("forward: %s", err.text);
    if (moec_layer_backward(r.layer, &b, &err)) T_FAIL("backward: %s", err.text);
    size_t bytes = moec_layer_workspace_bytes(r.layer, 100000);
    rig_close(&r);
    return bytes;
}

static bool equal(const buf *a, const buf *b) {
    return !memcmp(a->data, b->data, (size_t)a->n * moec_type_bytes(a->type));
}

/* `blocks` asked for gives the bits of none, and less workspace when `less`. */
static void same_in_blocks(const char *target, const char *spec, int blocks, bool less) {
    layer_case whole, parts;
    int before = t_bad;
    size_t most = run_blocks(target, spec, 61, 1, &whole), bytes = run_blocks(target, spec, 61, blocks, &parts);
    T_OK(equal(whole.out, parts.out));
    T_OK(equal(whole.dx, parts.dx));
    T_OK(equal(whole.dw1, parts.dw1));
    T_OK(equal(whole.dlogits, parts.dlogits));
    if (less) T_OK(bytes < most * 9 / 10);
    else T_EQ(bytes, most);
    if (t_bad > before) printf("# ... in %s on %s, %d blocks\n", spec, target, blocks);
    case_free(&whole);
    case_free(&parts);
}

T_CASE(column_blocks_give_the_same_bits_in_less_memory) {
    same_in_blocks("cpu", "E=8 K=4 H=512 F=32 dtype=bf16", 4, true);
    same_in_blocks("cpu", "E=8 K=4 H=520 F=40 dtype=f32", 5, true);
    same_in_blocks("cpu", "E=4 K=2 H=96 F=24 shared=40 bias=1 dtype=bf16", 3, true);
    same_in_blocks("cpu", "E=4 K=2 H=96 F=24 bias=1 dtype=f32 layout=interleaved capacity=0.6", 100, true);
    same_in_blocks("cpu-avx2", "E=4 K=2 H=96 F=24 shared=16 dtype=f32", 2, true);
    same_in_blocks("cpu-scalar", "E=4 K=2 H=80 F=24 dtype=bf16 bias=1", 2, true);
}
T_CASE(column_blocks_on_amx) {
    setenv("MOEC_EMULATE_TILES", "1", 0);
    same_in_blocks("cpu-amx", "E=4 K=2 H=160 F=40 shared=32 bias=1 dtype=bf16", 2, true);
    same_in_blocks("cpu-amx", "E=4 K=2 H=256 F=64 dtype=bf16", 4, true);
    unsetenv("MOEC_EMULATE_TILES");
}
T_CASE(a_width_that_cannot_be_cut_stays_whole) { same_in_blocks("cpu", "E=4 K=2 H=56 F=24 dtype=f32", 4, false); }

/* A planted fault: the comparison sees one wrong element. */
T_CASE(a_wrong_element_is_seen) {
    static const char spec[] = "E=8 K=2 H=64 F=72 dtype=bf16";
    layer_case c;
    rig r;
    moec_error err = {0};
    if (!rig_open(&r, "cpu", spec, false, 9)) return;
    case_decided(&c, spec, 9, false);
    moec_forward f = forward_of(&c, r.saved, r.workspace);
    T_EQ(moec_layer_forward(r.layer, &f, &err), MOEC_OK);
    T_EQ(misses(c.out, "out", true), 0);
    c.out->data[2 * 100 + 1] ^= 0x02; /* element 100: a bit of the exponent */
    T_EQ(misses(c.out, "out", true), 1);
    case_free(&c);
    rig_close(&r);
}

/* Accumulating onto an earlier gradient equals the gradient of twice the loss, bit for bit in f32
 * powers of two: g + g == 2g. */
T_CASE(gradients_accumulate) {
    static const char spec[] = "E=4 K=2 H=48 F=32 shared=40 bias=1 dtype=f32 layout=interleaved";
    layer_case c;
    rig r;
    moec_error err = {0};
    if (!rig_open(&r, "cpu", spec, false, 17)) return;
    case_decided(&c, spec, 17, false);
    moec_forward f = forward_of(&c, r.saved, r.workspace);
    moec_backward b = backward_of(&c, r.saved, r.workspace);
    T_EQ(moec_layer_forward(r.layer, &f, &err), MOEC_OK);
    T_EQ(moec_layer_backward(r.layer, &b, &err), MOEC_OK);
    buf *sides[] = {c.dw1, c.dw2, c.db1, c.db2, c.sdw1, c.sdw2};
    for (int i = 0; i < 6; i++)
        for (int64_t k = 0; k < sides[i]->n; k++) sides[i]->f[k] = 2 * got(sides[i], k), sides[i]->e[k] = 0;
    b.accumulate = 1;
    T_EQ(moec_layer_backward(r.layer, &b, &err), MOEC_OK);
    for (int i = 0; i < 6; i++) T_EQ(misses(sides[i], "accumulated gradient", false), 0);
    case_free(&c);
    rig_close(&r);
}

T_CASE(no_tokens) {
    static const char spec[] = "E=4 K=2 H=48 F=32 shared=40 bias=1 dtype=f32 layout=interleaved";
    layer_case c;
    rig r;
    moec_error err = {0};
    if (!rig_open(&r, "cpu", spec, false, 0)) return;
    case_new(&c, spec, 0, false, 1);
    moec_forward f = forward_of(&c, r.saved, r.workspace);
    moec_backward b = backward_of(&c, r.saved, r.workspace);
    T_EQ(moec_layer_forward(r.layer, &f, &err), MOEC_OK);
    T_EQ(moec_layer_backward(r.layer, &b, &err), MOEC_OK);
    SAME(dw1), SAME(dw2), SAME(db1), SAME(db2), SAME(sdw1), SAME(sdw2); /* the oracle's f is 0 here */
    moec_routing g;
    moec_layer_routing(r.layer, r.saved, 0, &g);
    for (int e = 0; e <= 4; e++) T_EQ(g.offsets[e], 0);
    case_free(&c);
    rig_close(&r);
}

/* A warm step allocates nothing, compiles nothing, opens no file. */
T_CASE(a_warm_step_is_flat) {
    static const char spec[] = "E=8 K=2 H=64 F=72 dtype=bf16";
    layer_case c;
    rig r;
    moec_error err = {0};
    moec_counters before, after;
    if (!rig_open(&r, "cpu", spec, false, 37)) return;
    case_decided(&c, spec, 37, false);
    moec_forward f = forward_of(&c, r.saved, r.workspace);
    moec_backward b = backward_of(&c, r.saved, r.workspace);
    moec_counters_read(&before);
    for (int step = 0; step < 5; step++) {
        T_EQ(moec_layer_forward(r.layer, &f, &err), MOEC_OK);
        T_EQ(moec_layer_backward(r.layer, &b, &err), MOEC_OK);
    }
    moec_counters_read(&after);
    T_EQ(after.allocations, before.allocations);
    T_EQ(after.compiles, before.compiles);
    T_EQ(after.files_opened, before.files_opened);
    T_EQ(after.launches - before.launches, 5 * 10); /* 4 forward, 6 backward */
    case_free(&c);
    rig_close(&r);
}

static double cpu_seconds(void) {
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* With every kernel in the cache a layer starts in a blink. CPU time: the machine may be busy. */
T_CASE(a_warm_start_is_quick) {
    static const char spec[] = "E=4 K=2 H=48 F=32 shared=40 bias=1 dtype=f32 layout=interleaved";
    moec_counters before, after;
    rig r;
    if (!rig_open(&r, "cpu", spec, false, 8)) return;
    rig_close(&r);
    moec_counters_read(&before);
    double start = cpu_seconds();
    if (!rig_open(&r, "cpu", spec, false, 8)) return;
    T_NEAR(cpu_seconds() - start, 0, 0.3);
    moec_counters_read(&after);
    T_EQ(after.compiles, before.compiles);
    rig_close(&r);
}

/* Saved state is Hpre and the routing, and nothing of Hpre with recompute. */
T_CASE(saved_bytes_are_what_was_promised) {
    static const char spec[] = "E=8 K=2 H=64 F=72 dtype=bf16";
    rig keep, again;
    enum { T = 1024 };
    if (!rig_open(&keep, "cpu", spec, false, T) || !rig_open(&again, "cpu", spec, true, T)) return;
    T_EQ(keep.saved_bytes - again.saved_bytes, T * 2 * 2 * 72 * 2); /* T K U bf16 */
    T_OK(again.saved_bytes < T * 2 * 4 * 4 + 8 * 1024);             /* four words a slot, and [E] */
    rig_close(&keep);
    rig_close(&again);
}

T_CASE(mistakes_are_named) {
    static const char spec[] = "E=4 K=2 H=48 F=32 shared=40 bias=1 dtype=f32 layout=interleaved";
    layer_case c;
    rig r;
    moec_error err = {0};
    if (!rig_open(&r, "cpu", spec, false, 8)) return;
    case_decided(&c, spec, 8, false);
    const moec_forward good = forward_of(&c, r.saved, r.workspace);
    const moec_backward fine = backward_of(&c, r.saved, r.workspace);
    moec_forward f;
    moec_backward b;
#define BAD_FORWARD(change, words)                                            \
    do {                                                                      \
        f = good;                                                             \
        change;                                                               \
        T_EQ(moec_layer_forward(r.layer, &f, &err), MOEC_E_INVAL);            \
        T_HAS(err.text, words);                                               \
    } while (0)
#define BAD_BACKWARD(change, words)                                           \
    do {                                                                      \
        b = fine;                                                             \
        change;                                                               \
        T_EQ(moec_layer_backward(r.layer, &b, &err), MOEC_E_INVAL);           \
        T_HAS(err.text, words);                                               \
    } while (0)
    BAD_FORWARD(f.T = -1, "T=-1");
    BAD_FORWARD(f.T = INT64_C(1) << 31, "T=2147483648");
    BAD_FORWARD(f.x = NULL, "x is NULL");
    BAD_FORWARD(f.out = NULL, "out is NULL");
    BAD_FORWARD(f.logits = NULL, "expert (logits is NULL)");
    BAD_FORWARD(f.weights.b1 = NULL, "weights.b1");
    BAD_FORWARD(f.weights.shared_w2 = NULL, "weights.shared_w2");
    BAD_FORWARD(f.workspace = NULL, "workspace is NULL");
    BAD_FORWARD(f.workspace = (char *)f.workspace + 4, "not aligned to 256");
    BAD_BACKWARD(b.saved = NULL, "saved is NULL");
    BAD_BACKWARD(b.db2 = NULL, "db2 is NULL");
    BAD_BACKWARD(b.dlogits = NULL, "dlogits (logits is given)");
    case_free(&c);
    rig_close(&r);
}

/* Creates a layer with a plan of this text; the status, and the message in *err. */
static moec_status with_plan(moec_device *device, const char *text, moec_error *err) {
    char path[] = "/tmp/moec-t-plan.XXXXXX";
    int fd = mkstemp(path);
    if (fd < 0 || write(fd, text, strlen(text)) != (ssize_t)strlen(text)) abort();
    close(fd);
    moec_layer *layer;
    moec_layer_options options = {.plan = path, .inference = 1};
    moec_status rc = moec_layer_create(device, "E=8 K=2 H=64 F=72 dtype=bf16", &options, &layer, err);
    moec_layer_free(layer);
    unlink(path);
    return rc;
}

T_CASE(plans_are_read_and_checked) {
    char spec[MOEC_SPEC_BYTES], text[4096], config_text[512];
    moec_device *device;
    moec_spec s;
    moec_config config;
    moec_error err = {0};
    T_NEED(!moec_device_open("cpu", 1, &device, &err) && !moec_device_ready(device, &err));
    T_NEED(!moec_spec_parse("E=8 K=2 H=64 F=72 dtype=bf16", &s, &err));
    moec_request up = {.op = moec_op_find("up"), .spec = &s, .target = device->target};
    T_NEED(!moec_config_default(device->gen, &up, &config, &err));
    strcpy(config_text, "up : ");
    moec_config_print(&config, config_text + 5, sizeof config_text - 5);
    moec_spec_print(&s, NULL, spec, sizeof spec);
#define PLAN(target, spec, line) \
    (snprintf(text, sizeof text, "moec plan 1\ntarget : %s\nspec : %s\n%s\n", target, spec, line), text)
    const char *here = device->target->name;
    T_EQ(with_plan(device, PLAN(here, spec, config_text), &err), MOEC_OK);
    T_EQ(with_plan(device, PLAN(here, spec, "a name from the future : x=1"), &err), MOEC_OK);
    T_EQ(with_plan(device, PLAN(here, spec, "up : no_such_tunable=1"), &err), MOEC_E_SPEC);
    T_HAS(err.text, "line up");
    T_HAS(err.text, "no_such_tunable");
    T_EQ(with_plan(device, PLAN("sm_90a", spec, ""), &err), MOEC_E_SPEC);
    T_HAS(err.text, "it is for target sm_90a");
    T_EQ(with_plan(device, PLAN(here, "E=9", ""), &err), MOEC_E_SPEC);
    T_EQ(with_plan(device, "something else\n", &err), MOEC_E_CORRUPT);
    T_EQ(with_plan(device, "", &err), MOEC_E_CORRUPT);
    moec_device_close(device);
}

T_CASE(an_inference_layer_has_no_backward) {
    moec_device *device;
    moec_layer *layer;
    moec_error err = {0};
    moec_layer_options options = {.inference = 1};
    moec_backward b = {0};
    T_NEED(!moec_device_open("cpu", 1, &device, &err));
    T_NEED(!moec_layer_create(device, "E=8 K=2 H=64 F=72 dtype=bf16", &options, &layer, &err));
    T_EQ(moec_layer_backward(layer, &b, &err), MOEC_E_INVAL);
    T_HAS(err.text, "options.inference");
    moec_layer_free(layer);
    moec_device_close(device);
}

T_CASE(bad_specs_and_plans) {
    moec_device *device;
    moec_layer *layer;
    moec_error err = {0};
    moec_layer_options options = {.plan = "/nonexistent.plan"};
    T_NEED(!moec_device_open("cpu", 1, &device, &err));
    T_EQ(moec_layer_create(device, "E=4 K=5", NULL, &layer, &err), MOEC_E_SPEC);
    T_OK(layer == NULL);
    T_EQ(moec_layer_create(device, "E=4", &options, &layer, &err), MOEC_E_IO);
    T_HAS(err.text, "/nonexistent.plan");
    moec_device_close(device);
}

T_MAIN
