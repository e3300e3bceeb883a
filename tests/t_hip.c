/* The HIP target without an AMD GPU: every emitted kernel is compiled for both architectures and the
 * binary runs under the instruction-set interpreter with every check on (levels L0 and L2).
 *
 * Random specs: a sample here; "moec verify --random 100 -t gfx942" runs more. Planted faults: edits of
 * the emitted text; each must be reported, and beside each stands the unharmed kernel (t_hip_mutate edits
 * the compiled code). MOEC_HIP_SPECS=N: random specs per architecture. */
#include <stdlib.h>
#include <unistd.h>

#include "code_object.h"
#include "hip_trial.h"
#include "model.h"
#include "model_walk.h"
#include "verify_row.h"

/* ---- every op, element by element ---- */

static void verify(moec_device *device, moec_spec *spec, moec_verify_options o) {
    moec_error err = {0};
    char text[MOEC_SPEC_BYTES];
    moec_spec_print(spec, NULL, text, sizeof text);
    o.report = take_row;
    o.variants = 1;
    if (moec_verify_spec(device, spec, &o, &err)) T_FAIL("%s: %s", text, err.text);
}

T_CASE(random_specs) {
    const char *wish = getenv("MOEC_HIP_SPECS");
    uint64_t n = wish ? strtoull(wish, NULL, 10) : 4;
    for (int m = 0; m < MACHINES; m++) {
        moec_device *device = device_of(m);
        if (!device) return;
        for (uint64_t seed = 1000 + (uint64_t)m * n; seed < 1000 + (uint64_t)(m + 1) * n; seed++) {
            moec_spec spec;
            moec_verify_options o = {.seed = seed, .layer_only = true};
            moec_verify_random(seed, &spec, &o.tokens, &o.routing);
            verify(device, &spec, o);
        }
    }
    T_OK(cases > 40);
}

T_CASE(listed_specs) {
    static const struct { const char *spec; int64_t tokens; const char *routing; } list[] = {
        {"E=8 K=2 H=64 F=96 bias=1 heads=4 kv=2 dim=16 V=300", 150, "zipf:1"},
        {"E=5 K=3 H=136 F=72 act=geglu layout=interleaved router=sigmoid_bias capacity=1.25", 131, "hot:0.9"},
    };
    for (int m = 0; m < MACHINES; m++) {
        moec_spec spec = spec_of(list[m].spec);
        moec_device *device = device_of(m);
        if (!device) return;
        verify(device, &spec, (moec_verify_options){.seed = 1, .tokens = list[m].tokens,
                                                     .routing = list[m].routing});
    }
}

/* ---- edited text ---- */

static void run_file(moec_device *device, const setup *s, moec_module *m, char fault[512]) {
    moec_case c;
    if (make_case(device, s, &c)) run_case(device, &c, m, fault);
    moec_case_free(&c);
}

static const char small[] = "E=3 K=2 H=136 F=72";

T_CASE(edited_text) {
    static const struct { setup right; const char *what, *old, *new; } list[] = {
        {{"up", small, NULL, 150}, "a removed barrier", "barrier(); // the next step is in LDS", "//"},
        {{"dw2", small, NULL, 150}, "a removed barrier", "barrier(); // the next step is in LDS", "//"},
        {{"down", small, NULL, 150}, "a removed barrier", "barrier(); // the first two steps are in LDS", ""},
        {{"up", small, NULL, 150}, "a wrong lane map", "4 * (lane_id() / 32)", "4 * (lane_id() / 16 % 2)"},
        {{"dx", small, NULL, 150}, "a wrong lane map", "return lane_id() % MI;", "return (lane_id() ^ 1) % MI;"},
        {{"dw1", small, NULL, 150}, "a wrong lane map", "8 * q + 4", "4 * q + 16"},
        {{"down", small, NULL, 150}, "stores a row too far", "(u32)rows * COLUMNS *", "(u32)(rows + 1) * COLUMNS *"},
        {{"dx", small, NULL, 150}, "loads a row too far", "(u32)(tile.end - tile.first) *",
         "(u32)(tile.end - tile.first + 1) *"},
        {{"up", small, NULL, 150}, "a gathered array a row too long", "(u32)(T * INNER) * 2", "(u32)(T * INNER + INNER) * 2"},
        {{"up", small, NULL, 150}, "a k too many", "k0 + k_of() < INNER;", "k0 + k_of() < INNER + 8;"},
        {{"dw1", small, NULL, 150}, "an off-by-one tail", "(u32)left * 4", "(u32)(left + 1) * 4"},
        {{"dw1", small, NULL, 150}, "a line too many", "less(BK, lines - k0)", "less(BK, lines + 1 - k0)"},
        {{"dw2", small, NULL, 150}, "stores a row too far", "(u32)height * WIDTH", "(u32)(height + 1) * WIDTH"},
        {{"up", small, NULL, 150}, "a step of k too few", "STEPS = (INNER + BK - 1) / BK", "STEPS = INNER / BK"},
        {{"up", small, NULL, 150}, "swapped operands", "mfma(by.b[j].lo, by.a[i].lo,", "mfma(by.a[i].lo, by.b[j].lo,"},
        {{"dw2", small, NULL, 150}, "swapped operands", "mfma(by.b[j].hi, by.a[i].hi,", "mfma(by.a[i].hi, by.b[j].hi,"},
        {{"dh", small, NULL, 150}, "a removed barrier", "barrier(); // pull is complete", ""},
        {{"route", "E=8 K=2", NULL, 70}, "a removed barrier", "barrier(); // all warps have counted", ""},
        {{"route", "E=8 K=2", NULL, 70}, "an off-by-one tail", "for (; e < E; e += WARPS * BLOCKS)",
         "for (; e <= E; e += WARPS * BLOCKS)"},
        {{"route", "E=8 K=2", NULL, 70}, "a slot's rank off", "((1u << token % TILE) - 1));",
         "((2u << token % TILE) - 1));"},
    };
    for (size_t i = 0; i < sizeof list / sizeof *list; i++) {
        moec_device *device = device_of((int)i % MACHINES);
        char fault[512];
        if (!device) return;
        moec_module *good = compile(device, &list[i].right, NULL, NULL);
        if (!good) continue;
        run_file(device, &list[i].right, good, fault);
        if (*fault) T_FAIL("%s: the unharmed kernel is reported: %s", list[i].right.op, fault);
        drop(good);
        moec_module *bad = compile(device, &list[i].right, list[i].old, list[i].new);
        if (!bad) continue;
        run_file(device, &list[i].right, bad, fault);
        if (!*fault) T_FAIL("%s: %s is not noticed", list[i].right.op, list[i].what);
        drop(bad);
    }
}

/* Paths that no case here takes by itself: arrays of 4 GiB, which every array counts as, and what older
 * compilers get. */
T_CASE(far_arrays_and_older_compilers) {
    static const struct { setup s; const char *old, *new; } list[] = {
        {{"up", small, NULL, 150}, "T * INNER < (long)OUTSIDE / 2", "T < 0"},
        {{"dh", small, NULL, 150}, "T * INNER < (long)OUTSIDE / 2", "T < 0"},
        {{"dw2", small, NULL, 150}, "T * HEIGHT < (long)OUTSIDE / 2", "T < 0"},
        {{"dw1", small, NULL, 150}, "T * WIDTH < (long)OUTSIDE / 2", "T < 0"},
        {{"dh", small, NULL, 150}, "__clang_major__ >= 19", "__clang_major__ >= 99"},
        {{"dw1", small, NULL, 150}, "__clang_major__ >= 19", "__clang_major__ >= 99"},
        {{"linear", small, NULL, 150}, "__clang_major__ >= 17", "__clang_major__ >= 99"},
        {{"up", small, NULL, 150}, "__clang_major__ < 17 //", "__clang_major__ < 99 //"},
    };
    for (int i = 0; i < (int)(sizeof list / sizeof *list); i++) {
        char fault[512];
        moec_device *device = device_of(i % MACHINES);
        if (!device) return;
        moec_module *m = compile(device, &list[i].s, list[i].old, list[i].new);
        if (!m) continue;
        run_file(device, &list[i].s, m, fault);
        T_STR(fault, "");
        drop(m);
    }
}

/* ---- level 0: what the machine code says about itself against what the template promises ---- */

static const setup l0 = {"up", "E=3 K=2 H=136 F=136", NULL, 150};

/* Loads the kernel as `m` promises it; the fault must name `what`. */
static void refused(moec_device *device, moec_module *m, const char *what) {
    char fault[512];
    run_file(device, &l0, m, fault);
    T_HAS(fault, "level 0");
    T_HAS(fault, what);
}

T_CASE(level_0_broken_promises) {
    static const struct { const char *what, *old, *new, *says; } list[] = {
        {"more LDS", "bf16 a[2][BM * BK]", "bf16 a[3][BM * BK]", "LDS bytes"},
        {"a lost matrix instruction", "acc[i][j] = mfma(by.b[j].hi,", "if (i + j) acc[i][j] = mfma(by.b[j].hi,",
         "MFMA instructions beyond whole turns"},
        {"a smaller block", "KERNEL(THREADS)", "KERNEL(128)", "largest workgroup"},
        {"one argument more", "void *scratch", "void *scratch, long more", "kernel argument bytes"},
        {"a flat access", "row[n] = from +", "row[n] = token < 0 ? (const bf16 *)0 : from +", "flat accesses"},
    };
    for (size_t i = 0; i < sizeof list / sizeof *list; i++) {
        moec_device *device = device_of((int)i % MACHINES);
        if (!device) return;
        moec_module *m = compile(device, &l0, list[i].old, list[i].new);
        if (m) refused(device, m, list[i].says);
        drop(m);
    }
}

T_CASE(level_0_other_instructions_and_occupancy) {
    for (int i = 0; i < MACHINES; i++) {
        moec_device *device = device_of(i);
        if (!device) return;
        moec_module *m = compile(device, &l0, NULL, NULL);
        T_NEED(m);
        moec_promise promise = m->kernel.promise;
        T_EQ(promise.lds_bytes, 32768);
        T_EQ(promise.matrix_count, 16);
        strcpy(m->kernel.promise.matrix, "16x16x16");
        refused(device, m, "in place of");
        m->kernel.promise = promise;
        m->kernel.promise.waves = 3; /* two blocks fit, by LDS */
        refused(device, m, "too few waves");
        drop(m);
    }
}

/* Writes `o` with `bytes` at `at`, and loads it. */
static void refused_bytes(moec_device *device, moec_module *m, const object *o, size_t at, const void *bytes,
                          size_t count, const char *what) {
    static object wrong;
    wrong = *o;
    memcpy(wrong.bytes + at, bytes, count);
    if (put_file("k.co", wrong.bytes, wrong.n)) refused(device, m, what);
}

/* Where the descriptor begins: LDS bytes, no scratch, kernel argument bytes. */
static size_t descriptor_in(const object *o, uint32_t lds, uint32_t kernarg) {
    uint32_t head[3] = {lds, 0, kernarg};
    for (size_t at = 0; at + 64 <= o->n; at += 64)
        if (!memcmp(o->bytes + at, head, sizeof head)) return at;
    return 0;
}

/* Where the value of a key of the metadata begins. */
static size_t value_in(const object *o, const char *key) {
    for (size_t at = 0; at + strlen(key) < o->n; at++)
        if (!memcmp(o->bytes + at, key, strlen(key))) return at + strlen(key);
    return 0;
}

T_CASE(level_0_accounts_that_disagree) {
    static object o;
    moec_device *device = device_of(0);
    gcn_object *code;
    char message[512];
    if (!device) return;
    moec_module *m = compile(device, &l0, NULL, NULL);
    T_NEED(m && read_object(&o) && !gcn_open(o.bytes, o.n, &code, message, sizeof message));
    const gcn_report *r = gcn_find_kernel(code, m->kernel.symbol);
    T_NEED(r && r->vgpr_count > 127 && r->vgpr_named <= r->vgpr_count); /* its metadata: 0xcc, count */
    size_t descriptor = descriptor_in(&o, r->lds_bytes, r->kernarg_bytes);
    size_t vgprs = value_in(&o, ".vgpr_count");
    T_NEED(descriptor && o.bytes[vgprs] == 0xcc && o.bytes[vgprs + 1] == r->vgpr_count);
    unsigned char few = (unsigned char)(r->vgpr_named - 1), rsrc1 = o.bytes[descriptor + 48];
    refused_bytes(device, m, &o, vgprs + 1, &few, 1, "vector registers named, by metadata");
    unsigned char less = (unsigned char)((rsrc1 & 0xc0) | ((r->vgpr_named - 1) / 8 - 1)); /* in eights, less one */
    refused_bytes(device, m, &o, descriptor + 48, &less, 1, "vector registers named, by allocation");
    const char *text;
    size_t offset;
    for (size_t i = 0; (text = gcn_instruction(code, i, NULL, &offset, NULL)); i++)
        if (!strncmp(text, "ds_read_b128", 12)) break;
    T_NEED(text);
    refused_bytes(device, m, &o, offset, "\xf0\xff", 2, "LDS bytes that constant offsets reach");
    gcn_close(code);
    drop(m);
}

/* ---- what the toolchain and the loader refuse ---- */

T_CASE(spills_are_refused) {
    static const setup s = {"up", small, NULL, 100};
    moec_device *device = device_of(0);
    moec_error err = {0};
    if (!device) return;
    moec_module *m = compile(device, &s, NULL, NULL);
    T_NEED(m);
    char *bad = edited(m->kernel.source, "amdgpu_waves_per_eu(2, 2)", "amdgpu_waves_per_eu(8, 8)");
    T_NEED(bad && put_file("k.hip", bad, strlen(bad)));
    moec_status rc = moec_toolchain_find("hip")->compile(device->target, dir, "k.hip", "k.co", &err);
    T_EQ(rc, MOEC_E_COMPILE);
    T_HAS(err.text, "ran out of registers");
    free(bad);
    drop(m);
}

T_CASE(damaged_and_foreign_objects_are_refused) {
    static const setup s = {"add", small, NULL, 100};
    static object o;
    moec_device *device = device_of(0);
    moec_error err = {0};
    moec_code_object is;
    if (!device) return;
    moec_module *m = compile(device, &s, NULL, NULL);
    T_NEED(m && read_object(&o));
    T_EQ(moec_code_object_read(o.bytes, o.n, moec_target_find("gfx942"), &is, &err), MOEC_OK);
    T_OK(is.vgprs > 0 && is.sgprs > 0);
    T_EQ(moec_code_object_keeps(&is, &(moec_promise){.waves = 1}, &err), MOEC_OK);
    T_EQ(moec_code_object_keeps(&is, &(moec_promise){.lds_bytes = 512}, &err), MOEC_E_COMPILE);
    is.vgprs = 257;
    T_EQ(moec_code_object_keeps(&is, &(moec_promise){.waves = 2}, &err), MOEC_E_COMPILE);
    T_EQ(moec_code_object_read(o.bytes, o.n, moec_target_find("gfx90a"), &is, &err), MOEC_E_TOOL);
    T_HAS(err.text, "another machine (gfx942)");
    for (size_t n = 0; n < o.n; n += 1 + n / 16) { /* cut short: an error or an answer, no crash */
        unsigned char *cut = malloc(n + 1);
        memcpy(cut, o.bytes, n);
        moec_status rc = moec_code_object_read(cut, n, moec_target_find("gfx942"), &is, &err);
        T_OK(rc == MOEC_OK || rc == MOEC_E_CORRUPT);
        free(cut);
    }
    drop(m);
}

/* ---- LDS without bank conflicts, as the model assumes ---- */

T_CASE(no_bank_conflicts) {
    static const setup list[] = {
        {"up", small, NULL, 150}, {"dx", small, NULL, 150}, {"dw1", small, NULL, 150},
        {"up", small, "bk=64 mi=16 waves=1", 150}, {"dx", small, "bk=64 waves=1", 150}, {"dw1", small, "bk=64 waves=1", 150},
        {"down", small, "mi=16 waves=1", 150}, {"linear_dw", small, "mi=16 waves=1", 150},
    };
    for (int i = 0; i < (int)(sizeof list / sizeof *list); i++) {
        moec_device *device = device_of(i % MACHINES);
        char fault[512];
        if (!device) return;
        gcn_machine *machine = device->state;
        moec_module *m = compile(device, &list[i], NULL, NULL);
        if (!m) continue;
        *machine = (gcn_machine){0};
        run_file(device, &list[i], m, fault);
        T_STR(fault, "");
        printf("# %s %s: LDS busy %.3f of the least\n", list[i].op, list[i].config ? list[i].config : "",
               (double)machine->lds_clocks / (double)machine->lds_least);
        T_OK(machine->mfma > 0 && machine->lds_clocks * 100 <= machine->lds_least * 102);
        drop(m);
    }
}

/* ---- the model ---- */

#define M "\tv_mfma_f32_32x32x8_bf16 v[0:15], v[16:17], v[18:19], v[0:15]\n" /* 32 clocks at 2048 FLOP a clock */
#define M7 M M M M M M M
#define READ "\tds_read_b128 v[20:23], v24\n"
#define LOAD "\tbuffer_load_dwordx4 v[20:23], v24, s[0:3], 0 offen\n"
#define TURN(body) "\ts_nop 0\n.LBB0_1:\n" body "\ts_cbranch_scc1 .LBB0_1\n\ts_endpgm\n"

T_CASE(walk_charges) {
    static const struct { const char *text; double clocks; } list[] = {
        {TURN(M M7), 256},
        {TURN(M M7 "\ts_barrier\n"), 7 * 32 + 4 + 54 + 20},
        {TURN(M M7 READ "\ts_waitcnt lgkmcnt(0)\n"), 7 * 32 + 4 + 32 + 64 + 4 + 20}, /* nothing hides it */
        {TURN(M READ M7 "\ts_waitcnt lgkmcnt(0)\n"), 256},
        {TURN(M M7 READ "\ts_waitcnt lgkmcnt(1)\n"), 256}, /* one may be outstanding */
        {TURN(M LOAD M7 "\ts_waitcnt vmcnt(0)\n"), 4 + 64 + 500 + 4 + 20},
        {TURN(M "\tds_write2_b64 v0, v[2:3], v[4:5]\n" "\ts_waitcnt lgkmcnt(0)\n" M7), 4 + 32 + 64 + 4 + 7 * 32},
        {TURN(M "\ts_nop 15\n" M7), 4 + 64 + 7 * 32},
        {TURN(M "\tv_mul_lo_u32 v0, v1, v2\n" M7), 256},
    };
    moec_walk w;
    for (size_t i = 0; i < sizeof list / sizeof *list; i++) {
        if (!moec_walk_loop(list[i].text, 2048, &w)) T_FAIL("walk %zu: no loop", i);
        else if (w.clocks != list[i].clocks || w.busy != 256 || w.matrix != 8)
            T_FAIL("walk %zu: %g clocks, %g busy, %d", i, w.clocks, w.busy, w.matrix);
    }
    T_OK(moec_walk_loop(TURN(M M7), 1024, &w) && w.busy == 512);
    T_OK(!moec_walk_loop(TURN(M ".LBB0_2:\n" M7), 2048, &w)); /* not one block of code */
    T_OK(!moec_walk_loop(TURN("\ts_nop 1\n"), 2048, &w));
}

T_CASE(model_of_defaults) {
    static const double least[MACHINES] = {0.80, 0.75}; /* of up and dx, a block alone */
    moec_spec spec = spec_of("E=128 K=8 H=4096 F=1536");
    for (int m = 0; m < MACHINES; m++) {
        moec_error err = {0};
        moec_device *device = device_of(m);
        if (!device) return;
        T_NEED(device->gen || !moec_gen_new(&device->gen, &err));
        double compile_s = 0;
        for (moec_layer_slot i = 0; i < MOEC_L_COUNT; i++) {
            const moec_layer_row *row = moec_layer_row_at(i);
            moec_model_row r;
            if (!moec_layer_row_used(row, &spec)) continue;
            if (moec_model(device->gen, device->target, row, &spec, 32768, &r, &err)) T_FAIL("%s", err.text);
            T_EQ(r.spills, 0);
            compile_s += r.compile_s;
            if (!strcmp(row->name, "up") || !strcmp(row->name, "dx")) T_OK(r.mfma_alone >= least[m]);
            T_OK(r.mfma_alone <= r.mfma && (r.mfma == 0 || r.mfma_alone > 0.7));
        }
        printf("# %s: all kernels of the layer compiled one after another in %.1f s\n", machines[m], compile_s);
    }
}

T_MAIN
