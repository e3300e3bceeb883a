/* Every check of verify is shown to fail: faults are planted, and verify must report them.
 *
 * Three ways to plant one: run the kernel of another spec (a wrong activation, a swapped layout, a
 * skipped k ...); edit the emitted text and compile that; or sabotage a launch, before (other
 * arguments) or after it (damaged memory). Beside each stands the unharmed run, which must pass.
 * When a template changes so that an edit no longer applies, the case says so: plant it anew. */
#include <stdlib.h>
#include <unistd.h>

#include "layer.h"
#include "t.h"
#include "toolchain.h"
#include "verify.h"

/* ---- the device under test: a CPU whose launches can be sabotaged ---- */

typedef struct sabotage {
    moec_op_id op;
    void (*before)(moec_arg *args, const moec_module *m, const moec_sizes *z);
    void (*after)(const moec_arg *args, const moec_module *m, const moec_sizes *z, int threads);
} sabotage;

static moec_device *device;
static moec_device_ops bad_ops;
static const moec_device_ops *good_ops;
static const sabotage *planted;

static moec_status bad_launch(moec_device *d, void *stream, const moec_module *m, const moec_arg *args,
                              const moec_sizes *z, void *scratch, moec_error *err) {
    moec_arg mine[MOEC_MAX_ARGS];
    bool here = planted && planted->op == m->kernel.op->id && z->T > 0;
    memcpy(mine, args, (size_t)m->kernel.op->arg_count * sizeof *args);
    if (here && planted->before) planted->before(mine, m, z);
    moec_status rc = good_ops->launch(d, stream, m, mine, z, scratch, err);
    if (here && planted->after) planted->after(args, m, z, d->threads);
    return rc;
}

static bool open_device(void) {
    moec_error err = {0};
    if (device) return true;
    if (moec_device_open("cpu-scalar", 2, &device, &err)) {
        T_FAIL("%s", err.text);
        return false;
    }
    good_ops = device->ops;
    bad_ops = *good_ops;
    bad_ops.launch = bad_launch;
    device->ops = &bad_ops;
    return true;
}

static moec_spec spec_of(const char *text) {
    moec_spec s;
    moec_error err = {0};
    if (moec_spec_parse(text, &s, &err)) T_FAIL("%s", err.text);
    return s;
}

/* ---- one trial ---- */

typedef struct setup { const char *op, *spec; int64_t T; const char *routing; int variant; } setup;

/* Runs `module` (NULL: the right one) on the case; the verdict's fault into text. */
static void trial(const setup *s, moec_module *module, char fault[512]) {
    moec_error err = {0};
    moec_verdict verdict = {0};
    moec_pattern pattern;
    moec_module *own = NULL;
    moec_case c = {.op = moec_op_find(s->op), .spec = spec_of(s->spec), .T = s->T, .seed = 4,
                   .variant = s->variant};
    moec_status rc = moec_pattern_parse(s->routing ? s->routing : "uniform", &pattern, &err);
    if (!rc) rc = moec_case_make(&c, &pattern, &err);
    if (!rc) rc = moec_case_solve(&c, device->target, &err);
    if (!rc && !module) rc = moec_module_create(device, c.op, &c.spec, NULL, 0, &own, &err);
    if (!rc) rc = moec_trial(device, module ? module : own, &c, &verdict, &err);
    if (rc) T_FAIL("%s: %s", s->op, err.text);
    moec_module_free(device, own);
    moec_case_free(&c);
    snprintf(fault, 512, "%s", rc ? "the trial did not run" : verdict.fault);
}

/* The unharmed kernel passes, the given one does not; its fault mentions `part`. */
static void expect_fault(const char *what, const setup *s, moec_module *module, const char *part) {
    char fault[512];
    const sabotage *kept = planted;
    planted = NULL;
    trial(s, NULL, fault);
    if (*fault) T_FAIL("%s: the unharmed run is reported: %s", what, fault);
    planted = kept;
    trial(s, module, fault);
    if (!strstr(fault, part) || !*fault) T_FAIL("%s: not noticed (\"%s\")", what, fault);
}

/* ---- kernels of another spec ---- */

T_CASE(kernel_of_another_spec) {
    static const struct { setup right; const char *wrong; } list[] = {
        /* wrong activation */
        {{"up", "E=4 K=2 H=16 F=24 dtype=f32 act=swiglu", 9, NULL, 0}, "E=4 K=2 H=16 F=24 dtype=f32 act=geglu"},
        {{"up", "E=4 K=2 H=16 F=24 act=silu", 9, NULL, 0}, "E=4 K=2 H=16 F=24 act=gelu"},
        {{"dh", "E=4 K=2 H=16 F=24 act=swiglu", 9, NULL, 0}, "E=4 K=2 H=16 F=24 act=geglu"},
        {{"dh", "E=4 K=2 H=16 F=24 act=relu2", 9, NULL, 0}, "E=4 K=2 H=16 F=24 act=relu"},
        /* gate and up in each other's place */
        {{"up", "E=4 K=2 H=16 F=24", 9, NULL, 0}, "E=4 K=2 H=16 F=24 layout=interleaved"},
        {{"dh", "E=4 K=2 H=16 F=24", 9, NULL, 0}, "E=4 K=2 H=16 F=24 layout=interleaved"},
        /* a bias left out */
        {{"up", "E=4 K=2 H=16 F=24 bias=1", 9, NULL, 0}, "E=4 K=2 H=16 F=24"},
        {{"down", "E=4 K=2 H=16 F=24 bias=1", 9, NULL, 0}, "E=4 K=2 H=16 F=24"},
        {{"dh", "E=4 K=2 H=16 F=24 bias=1", 9, NULL, 0}, "E=4 K=2 H=16 F=24"},
        /* the last expert forgotten */
        {{"down", "E=4 K=2 H=16 F=24", 30, NULL, 0}, "E=3 K=2 H=16 F=24"},
        {{"dw2", "E=4 K=2 H=16 F=24", 30, NULL, 0}, "E=3 K=2 H=16 F=24"},
        {{"db1", "E=4 K=2 F=24 bias=1", 30, NULL, 0}, "E=3 K=2 F=24 bias=1"},
        /* tokens found with another k */
        {{"up", "E=4 K=2 H=16 F=24", 9, NULL, 0}, "E=4 K=3 H=16 F=24"},
        {{"dw1", "E=4 K=2 H=16 F=24", 9, NULL, 0}, "E=4 K=3 H=16 F=24"},
        /* routers */
        {{"route", "E=8 K=2 norm=0", 30, NULL, 0}, "E=8 K=2 norm=1"},
        {{"route", "E=8 K=2 router=softmax_topk", 30, NULL, 0}, "E=8 K=2 router=logits"},
        {{"route", "E=8 K=2 router=sigmoid_bias groups=4/2", 30, NULL, 0}, "E=8 K=2 router=sigmoid_bias"},
        {{"route", "E=8 K=2 capacity=0.5", 30, NULL, 0}, "E=8 K=2"},
        {{"route", "E=8 K=2 capacity=0.5", 30, NULL, 0}, "E=8 K=2 capacity=0.6"},
        {{"route", "E=8 K=2 scale=2.5", 30, NULL, 0}, "E=8 K=2"},
        {{"route_bwd", "E=8 K=2 norm=1", 30, NULL, 0}, "E=8 K=2 norm=0"},
        {{"route_bwd", "E=8 K=2 scale=2.5", 30, NULL, 0}, "E=8 K=2"},
        {{"rope", "heads=4 kv=2 dim=16", 9, NULL, 0}, "heads=2 kv=2 dim=32"},
    };
    if (!open_device()) return;
    for (size_t i = 0; i < sizeof list / sizeof *list; i++) {
        moec_error err = {0};
        moec_module *module;
        moec_spec wrong = spec_of(list[i].wrong);
        const moec_op *op = moec_op_find(list[i].right.op);
        if (moec_module_create(device, op, &wrong, NULL, 0, &module, &err)) {
            T_FAIL("%s", err.text);
            continue;
        }
        expect_fault(list[i].wrong, &list[i].right, module, "");
        moec_module_free(device, module);
    }
}

/* ---- edited text ---- */

/* `text` with the first `old` replaced; malloc'ed, NULL when `old` does not occur. */
static char *edited(const char *text, const char *old, const char *new) {
    const char *at = strstr(text, old);
    if (!at) return NULL;
    size_t bytes = strlen(text) + strlen(new) + 1, head = (size_t)(at - text);
    char *out = malloc(bytes);
    snprintf(out, bytes, "%.*s%s%s", (int)head, text, new, at + strlen(old));
    return out;
}

static void write_text(const char *path, const char *text) {
    FILE *f = fopen(path, "w");
    if (!f || fputs(text, f) < 0) T_FAIL("cannot write %s", path);
    if (f) fclose(f);
}

/* Emits op for spec, edits the text, compiles and loads it. NULL when the edit does not apply. */
static moec_module *module_of_edit(const setup *s, const char *old, const char *new, const char *dir) {
    char path[512], id[MOEC_TOOLCHAIN_ID_BYTES];
    moec_error err = {0};
    moec_spec spec = spec_of(s->spec);
    moec_request request = {.op = moec_op_find(s->op), .spec = &spec, .target = device->target};
    moec_module *m = calloc(1, sizeof *m);
    const moec_toolchain *tools = moec_toolchain_find("cpu");
    moec_status rc = device->gen ? MOEC_OK : moec_gen_new(&device->gen, &err);
    if (!rc) rc = moec_emit(device->gen, &request, &m->kernel, &err);
    char *text = rc ? NULL : edited(m->kernel.source, old, new);
    if (!rc && !text) rc = moec_fail(&err, MOEC_E_TEMPLATE, "the text \"%s\" is not there any more", old);
    snprintf(path, sizeof path, "%s/bad.c", dir);
    if (!rc) write_text(path, text);
    if (!rc) rc = tools->identify(device->target, id, &err);
    if (!rc) rc = tools->compile(device->target, dir, "bad.c", "bad.so", &err);
    snprintf(path, sizeof path, "%s/bad.so", dir);
    if (!rc) rc = good_ops->load(device, path, m, &err);
    free(text);
    if (!rc) return m;
    T_FAIL("%s: %s", s->op, err.text);
    moec_kernel_free(&m->kernel);
    free(m);
    return NULL;
}

static void remove_edit(moec_module *m, const char *dir) {
    static const char *const files[] = {"bad.c", "bad.so", "log.txt"};
    good_ops->unload(device, m);
    moec_kernel_free(&m->kernel);
    free(m);
    for (int i = 0; i < 3; i++) {
        char path[512];
        snprintf(path, sizeof path, "%s/%s", dir, files[i]);
        unlink(path);
    }
}

T_CASE(edited_text) {
    static const struct { setup right; const char *what, *old, *new; } list[] = {
        {{"down", "E=4 K=2 H=16 F=24 dtype=f32", 9, NULL, 0}, "rows of the wrong expert",
         "p->w2 + e *", "p->w2 + (e + 1) % EXPERTS *"},
        {{"down", "E=4 K=2 H=16 F=24 dtype=f32", 9, NULL, 0}, "the last row of a block missing",
         "finish(p, w, e, r0, rows, j0, cols);", "finish(p, w, e, r0, rows - 1, j0, cols);"},
        {{"down", "E=4 K=2 H=16 F=24 dtype=f32", 9, NULL, 0}, "a dot product one element short",
         "for (long k = 0; k < depth; k++", "for (long k = 1; k < depth; k++"},
        {{"down", "E=4 K=2 H=16 F=24 dtype=f32", 9, NULL, 0}, "a column not stored",
         "for (long j = 0; j < cols; j += LANES)", "for (long j = LANES; j < cols; j += LANES)"},
        {{"down", "E=4 K=2 H=16 F=24 dtype=f32", 9, NULL, 0}, "rows counted off by one",
         "p->offsets ? p->offsets[e] :", "p->offsets ? p->offsets[e] - (e == 1) :"},
        {{"up", "E=4 K=2 H=16 F=24", 9, NULL, 0}, "bf16 rounded by cutting",
         "(u + 0x7fff + (u >> 16 & 1)) >> 16", "u >> 16"},
        {{"up", "E=4 K=2 H=16 F=24 dtype=f32", 9, NULL, 0}, "hpre not saved", "if (p->hpre) put_gates(",
         "if (0) put_gates("},
        {{"combine", "E=4 K=3 H=16 dtype=f32", 9, NULL, 0}, "a k skipped",
         "for (long k = 0; k < n; k++) sum +=", "for (long k = 1; k < n; k++) sum +="},
    };
    char dir[] = "/tmp/moec-faults.XXXXXX";
    if (!open_device()) return;
    T_NEED(mkdtemp(dir) != NULL);
    for (size_t i = 0; i < sizeof list / sizeof *list; i++) {
        moec_module *m = module_of_edit(&list[i].right, list[i].old, list[i].new, dir);
        if (!m) continue;
        expect_fault(list[i].what, &list[i].right, m, "");
        remove_edit(m, dir);
    }
    rmdir(dir);
}

/* ---- sabotaged launches ---- */

static void *arg_of(const moec_arg *args, const moec_module *m, const char *name) {
    return args[moec_op_arg(m->kernel.op, name)].ptr;
}

#define AFTER(name) \
    static void name(const moec_arg *args, const moec_module *m, const moec_sizes *z, int threads)
#define BEFORE(name) static void name(moec_arg *args, const moec_module *m, const moec_sizes *z)
#define UNUSED (void)args, (void)m, (void)z, (void)threads

AFTER(past_the_end) { UNUSED; ((float *)arg_of(args, m, "y"))[z->R * m->kernel.spec.H] = 1; }
AFTER(far_past_the_end) { UNUSED; ((float *)arg_of(args, m, "y"))[z->R * m->kernel.spec.H + 1000] = 1; }
AFTER(before_the_start) { UNUSED; ((float *)arg_of(args, m, "y"))[-1] = 1; }
AFTER(into_an_input) { UNUSED; ((float *)arg_of(args, m, "w2"))[5] += 1; }
AFTER(into_offsets) { UNUSED; ((int *)arg_of(args, m, "offsets"))[2] += 1; }
AFTER(one_element_untouched) { UNUSED; memset((float *)arg_of(args, m, "y") + 7, 0xFF, 4); }
AFTER(one_row_stale) {
    UNUSED;
    int64_t H = m->kernel.spec.H;
    float *y = arg_of(args, m, "y");
    memcpy(y, y + H, (size_t)H * sizeof *y);
}
AFTER(twelve_bits_only) { /* as if products had been taken in half precision */
    UNUSED;
    unsigned *y = arg_of(args, m, "y");
    y[3] ^= 0x800;
}
AFTER(other_bits_with_one_thread) { /* within the bound, but not the same */
    UNUSED;
    if (threads == 1) ((unsigned *)arg_of(args, m, "y"))[3] ^= 1;
}
AFTER(dead_row) {
    UNUSED;
    int64_t H = m->kernel.spec.H, rows = ((int *)arg_of(args, m, "offsets"))[m->kernel.spec.E];
    ((float *)arg_of(args, m, "y"))[rows * H] = 0;
}
AFTER(last_bit_of_bf16) { UNUSED; for (int i = 0; i < 64; i++) ((unsigned short *)arg_of(args, m, "y"))[i] ^= 1; }
AFTER(nan_swallowed) {
    UNUSED;
    float *y = arg_of(args, m, "y");
    for (int64_t i = 0; i < z->R * m->kernel.spec.H; i++)
        if (y[i] != y[i]) y[i] = 0;
}
AFTER(nan_spread) { /* a NaN where none belongs */
    UNUSED;
    float *y = arg_of(args, m, "y");
    for (int i = 0; i < 2; i++) y[i] = __builtin_nanf("");
}
BEFORE(next_row) { (void)z; args[0].ptr = (float *)args[0].ptr + m->kernel.spec.H; }
BEFORE(one_token_less) { (void)z; args[moec_op_arg(m->kernel.op, "T")].i64--; }
BEFORE(no_weight) { (void)z; args[moec_op_arg(m->kernel.op, "weight")].ptr = NULL; }
BEFORE(beta_flipped) { (void)z; args[moec_op_arg(m->kernel.op, "beta")].i64 ^= 1; }
AFTER(swapped_choice) { /* experts of a token in the wrong order */
    UNUSED;
    int *e = arg_of(args, m, "expert"), t = e[0];
    e[0] = e[1];
    e[1] = t;
}

T_CASE(sabotaged_launches) {
    static const char plain[] = "E=4 K=2 H=16 F=24 dtype=f32", drop[] = "E=4 K=2 H=16 F=24 dtype=f32 capacity=0.5";
    static const struct { const char *what; setup right; sabotage how; const char *part; } list[] = {
        {"a write past the end", {"down", plain, 9, NULL, 0}, {MOEC_OP_down, NULL, past_the_end}, "memory after y"},
        {"a write far past the end", {"down", plain, 9, NULL, 0}, {MOEC_OP_down, NULL, far_past_the_end},
         "memory after y"},
        {"a write before the start", {"down", plain, 9, NULL, 0}, {MOEC_OP_down, NULL, before_the_start},
         "memory before y"},
        {"a damaged input", {"down", plain, 9, NULL, 0}, {MOEC_OP_down, NULL, into_an_input}, "input w2"},
        {"damaged offsets", {"down", plain, 9, NULL, 0}, {MOEC_OP_down, NULL, into_offsets}, "input offsets"},
        {"an element not written", {"down", plain, 9, NULL, 0}, {MOEC_OP_down, NULL, one_element_untouched},
         "y[0,7] is"},
        {"a stale row", {"down", plain, 9, NULL, 0}, {MOEC_OP_down, NULL, one_row_stale}, "y[0,"},
        {"twelve bits", {"down", plain, 9, NULL, 0}, {MOEC_OP_down, NULL, twelve_bits_only}, "y[0,3]"},
        {"a NaN swallowed", {"down", plain, 9, NULL, 2}, {MOEC_OP_down, NULL, nan_swallowed}, "expected nan"},
        {"a NaN too many", {"down", plain, 9, NULL, 2}, {MOEC_OP_down, NULL, nan_spread}, "is nan, expected"},
        {"one bf16 step", {"down", "E=4 K=2 H=16 F=24", 9, NULL, 0}, {MOEC_OP_down, NULL, last_bit_of_bf16}, "y["},
        {"bits that depend on the thread count", {"down", plain, 9, NULL, 0},
         {MOEC_OP_down, NULL, other_bits_with_one_thread}, "differs between a run with 2 threads and one with 1"},
        {"a dead row written", {"down", drop, 30, "hot:0.9", 0}, {MOEC_OP_down, NULL, dead_row},
         "past offsets[E]"},
        {"rows shifted by one", {"up", plain, 9, NULL, 0}, {MOEC_OP_up, next_row, NULL}, ""},
        {"a token forgotten", {"combine", plain, 9, NULL, 0}, {MOEC_OP_combine, one_token_less, NULL}, "out[8,0]"},
        {"weights ignored", {"combine", plain, 9, NULL, 0}, {MOEC_OP_combine, no_weight, NULL}, "out["},
        {"weights ignored in dh", {"dh", plain, 9, NULL, 0}, {MOEC_OP_dh, no_weight, NULL}, ""},
        {"accumulation instead of overwriting", {"dw2", plain, 9, NULL, 0}, {MOEC_OP_dw2, beta_flipped, NULL},
         "dw2["},
        {"choices in the wrong order", {"route", plain, 9, NULL, 0}, {MOEC_OP_route, NULL, swapped_choice},
         "expert[0,0]"},
    };
    if (!open_device()) return;
    for (size_t i = 0; i < sizeof list / sizeof *list; i++) {
        planted = &list[i].how;
        expect_fault(list[i].what, &list[i].right, NULL, list[i].part);
        planted = NULL;
    }
}

/* ---- the whole layer ---- */

/* Sets the first row of the op's first output to another one's. */
AFTER(first_output_damaged) {
    UNUSED;
    const moec_op *op = m->kernel.op;
    for (int i = 0; i < op->arg_count; i++) {
        if (op->args[i].role != MOEC_OUT && op->args[i].role != MOEC_INOUT) continue;
        if (!args[i].ptr) continue;
        float *f = args[i].ptr;
        for (int k = 0; k < 8; k++) f[k] = f[k] * 0.5f + 0.25f;
        return;
    }
}

static void layer_fault(const char *text, char fault[512]) {
    moec_error err = {0};
    moec_verdict verdict = {0};
    moec_pattern pattern;
    char note[160];
    moec_spec s = spec_of(text);
    moec_status rc = moec_pattern_parse("uniform", &pattern, &err);
    if (!rc) rc = moec_verify_layer(device, &s, 9, &pattern, 5, 0, note, &verdict, &err);
    if (rc) T_FAIL("%s", err.text);
    snprintf(fault, 512, "%s", verdict.fault);
}

T_CASE(damage_inside_a_layer) {
    static const moec_op_id ops[] = {MOEC_OP_up, MOEC_OP_down, MOEC_OP_combine, MOEC_OP_dh, MOEC_OP_dw2,
                                     MOEC_OP_dx, MOEC_OP_dw1, MOEC_OP_db1, MOEC_OP_db2, MOEC_OP_route_bwd};
    static const char text[] = "E=4 K=2 H=16 F=24 dtype=f32 bias=1 shared=16";
    char fault[512];
    if (!open_device()) return;
    layer_fault(text, fault);
    T_STR(fault, "");
    for (size_t i = 0; i < sizeof ops / sizeof *ops; i++) {
        sabotage s = {ops[i], NULL, first_output_damaged};
        planted = &s;
        layer_fault(text, fault);
        planted = NULL;
        if (!*fault) T_FAIL("damage by %s is not noticed", moec_op_get(ops[i])->name);
    }
}

/* ---- the walk reports, with a command that repeats the case ---- */

static int wrong_rows;
static char command[4096];
static void count_rows(void *user, const moec_verify_row *row) {
    (void)user;
    if (!*row->verdict->fault) return;
    wrong_rows++;
    moec_verify_command(row, "cpu-scalar", command, sizeof command);
}

T_CASE(a_fault_comes_with_its_command) {
    sabotage s = {MOEC_OP_down, NULL, one_element_untouched};
    moec_spec spec = spec_of("E=4 K=2 H=16 F=24 dtype=f32");
    moec_verify_options o = {.op = "down", .tokens = 9, .routing = "zipf:1.2", .seed = 6, .variants = 1,
                             .report = count_rows};
    moec_error err = {0};
    if (!open_device()) return;
    wrong_rows = 0;
    T_EQ(moec_verify_spec(device, &spec, &o, &err), MOEC_OK);
    T_EQ(wrong_rows, 0);
    planted = &s;
    T_EQ(moec_verify_spec(device, &spec, &o, &err), MOEC_OK);
    planted = NULL;
    T_EQ(wrong_rows, 1);
    T_STR(command, "moec verify E=4 K=2 H=16 F=24 act=swiglu dtype=f32 router=softmax_topk norm=1 "
                   "layout=concat shared=0 capacity=0 -t cpu-scalar --op down --tokens 9 --routing zipf:1.2 "
                   "--seed 6 --variant 0");
}

T_CASE(device_closes) { moec_device_close(device); }

T_MAIN
