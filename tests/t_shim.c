/* The host shim (level L1): emitted HIP text on the CPU, a fibre for each lane.
 *
 * Each builtin and matrix instruction against its definition, with the interpreter of the compiled code as
 * second witness; every op on listed ragged shapes; the same bits as the compiled code; planted faults of
 * text that must be reported, each beside the unharmed kernel; barriers taken out one by one. */
#include "folder.h"

#include <dlfcn.h>
#include <limits.h>
#include <math.h>

#include "gcn/gcn.h"
#include "shim/compile.h"
#include "shim/shim.h"
#include "toolchain.h"
#include "verify_row.h"

enum { LANES = SHIM_LANES, MACHINES = 2 };
static const char *const machines[MACHINES] = {"gfx942", "gfx90a"};

/* ---- devices ---- */

enum { SHIM, INTERPRETER, WITNESSES };

/* NULL, and the case counts as skipped, when a compiler or libLLVM is missing. */
static moec_device *device_of(int witness, int machine) {
    static const char *const plugins[WITNESSES] = {"build/libmoec-shim.so", "build/libmoec-gcn.so"};
    static moec_device *devices[WITNESSES][MACHINES];
    char id[MOEC_TOOLCHAIN_ID_BYTES];
    moec_error err = {0};
    gcn_object *none = NULL;
    if (devices[witness][machine]) return devices[witness][machine];
    const moec_target *target = moec_target_find(machines[machine]);
    const moec_toolchain *tools = witness == SHIM ? &shim_toolchain : moec_toolchain_find("hip");
    moec_status rc = tools->identify(target, id, &err);
    if (!rc && witness == INTERPRETER && gcn_open("", 0, &none, err.text, sizeof err.text) == GCN_E_LLVM)
        rc = MOEC_E_TOOL;
    setenv("MOEC_GCN", plugins[witness], 1);
    if (!rc) rc = moec_device_open(machines[machine], 0, &devices[witness][machine], &err);
    if (rc) snprintf(t_skipped, sizeof t_skipped, "%.*s", (int)strcspn(err.text, "\n"), err.text);
    return devices[witness][machine];
}

static moec_spec spec_of(const char *text) {
    moec_spec s;
    moec_error err = {0};
    if (moec_spec_parse(text, &s, &err)) T_FAIL("%s", err.text);
    return s;
}

static char *get_file(const char *path, size_t *bytes) {
    FILE *f = fopen(path, "rb");
    enum { ROOM = 1 << 20 };
    char *data = calloc(1, ROOM);
    *bytes = f && data ? fread(data, 1, ROOM - 1, f) : 0;
    if (f) fclose(f);
    if (!*bytes) T_FAIL("cannot read %s", path);
    return data;
}

/* ---- kernels of vectors.hip under both ---- */

typedef struct vectors {
    shim_machine *machine;
    void *library;
    shim_image *image;
    char path[160];
    gcn_object *object[MACHINES];
} vectors;

static bool vectors_open(vectors *v) {
    moec_error err = {0};
    char message[512];
    size_t bytes;
    *v = (vectors){0};
    if (!device_of(SHIM, 0) || !device_of(INTERPRETER, 0)) return false;
    char *text = get_file("tests/shim/vectors.hip", &bytes);
    put_file("v.hip", text, strlen(text));
    free(text);
    moec_status rc = shim_toolchain.compile(moec_target_find("gfx942"), dir, "v.hip", "v.so", &err);
    snprintf(v->path, sizeof v->path, "%s", in_dir("v.so"));
    if (!rc) v->library = dlopen(v->path, RTLD_NOW | RTLD_LOCAL);
    if (v->library) v->image = dlsym(v->library, "shim_image_of_kernel");
    for (int m = 0; m < MACHINES && v->image; m++) {
        rc = moec_toolchain_find("hip")->compile(moec_target_find(machines[m]), dir, "v.hip", "v.co", &err);
        if (rc) break;
        char *code = get_file(in_dir("v.co"), &bytes);
        if (gcn_open(code, bytes, &v->object[m], message, sizeof message)) T_FAIL("%s", message);
        free(code);
    }
    if (rc || !v->image) T_FAIL("%s", err.text);
    v->machine = shim_new();
    return v->machine && v->object[MACHINES - 1];
}

static void vectors_close(vectors *v) {
    shim_free(v->machine);
    for (int m = 0; m < MACHINES; m++)
        if (v->object[m]) gcn_close(v->object[m]);
    if (v->library) dlclose(v->library);
}

typedef struct buffer { void *data; size_t bytes; bool writable; } buffer;
enum { MOST_BUFFERS = 4 };

static const char *run_on_shim(vectors *v, const char *kernel, int machine, const buffer *b, int count, int64_t last) {
    shim_arg args[MOST_BUFFERS + 1] = {0};
    shim_region regions[MOST_BUFFERS];
    void *entry = dlsym(v->library, kernel);
    shim_launch launch = {.image = v->image, .library = v->path, .groups = 1, .threads = LANES, .args = args,
                          .arg_count = count + 1, .regions = regions, .region_count = count,
                          .flush_subnormals = machine == 1};
    memcpy(&launch.entry, &entry, sizeof entry);
    for (int i = 0; i < count; i++) {
        args[i].as.word = (uintptr_t)b[i].data;
        regions[i] = (shim_region){.name = "a buffer", .base = b[i].data, .bytes = b[i].bytes, .writable = b[i].writable};
    }
    args[count].as.word = (uint64_t)last;
    return shim_run(v->machine, &launch) ? "" : shim_finding(v->machine);
}

static const char *run_on_interpreter(vectors *v, const char *kernel, int machine, const buffer *b, int count,
                                      int64_t last) {
    static char text[512];
    gcn_buffer buffers[MOST_BUFFERS];
    uint64_t kernarg[MOST_BUFFERS + 1];
    gcn_result result;
    for (int i = 0; i < count; i++) {
        kernarg[i] = (uintptr_t)b[i].data;
        buffers[i] = (gcn_buffer){.host = b[i].data, .bytes = b[i].bytes, .writable = b[i].writable};
    }
    kernarg[count] = (uint64_t)last;
    const gcn_report *report = gcn_find_kernel(v->object[machine], kernel);
    gcn_launch launch = {.kernel = kernel, .grid = {1, 1, 1}, .block = {LANES, 1, 1}, .kernarg = kernarg,
                         .kernarg_bytes = report ? report->kernarg_bytes : 0, .buffer = buffers,
                         .nbuffer = (size_t)count};
    *text = 0;
    if (gcn_run(v->object[machine], &launch, &result, text, sizeof text)) return text;
    if (result.findings.count) snprintf(text, sizeof text, "%.500s", result.findings.item[0].detail);
    gcn_result_free(&result);
    return text;
}

static uint32_t next(uint64_t *state) {
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(*state >> 33);
}

/* ---- builtins ---- */

enum { ROWS = 25 };
static int in[LANES], at_first[LANES + 1];

static int from(int lane) { return lane >= 0 && lane < LANES ? in[lane] : -1; }
static int votes(void) { int bits = 0; for (int l = 0; l < 32; l++) bits |= (in[l] & 1) << l; return bits; }
static int votes_high(void) {
    unsigned bits = 0;
    for (int l = 32; l < LANES; l++) bits |= (unsigned)(in[l] & 1) << (l - 32);
    return (int)bits;
}

/* What row r of the kernel `lanes` holds in lane l, by the definition of its builtin. */
static int wanted(int r, int l) {
    int row = l & ~15, at = l & 15;
    switch (r) {
    case 0:  return from(l ^ 5);
    case 1:  return from(l ^ 9);
    case 2:  return from(37);
    case 3:  return from(0);
    case 4:  return votes();
    case 5:  return votes_high();
    case 6:  return from(l ^ 1);
    case 7:  return from((l & ~3) + 3 - (l & 3));
    case 8:  return from(l & ~7);
    case 9:  return from(l ^ 1);
    case 10: return at < 15 ? from(l + 1) : -1;
    case 11: return at >= 3 ? from(l - 3) : 0;
    case 12: return from(row + ((at - 4) & 15));
    case 13: return from(row + 15 - at);
    case 14: return from((l & ~7) + 7 - (l & 7));
    case 15: return l >= 16 ? from(row - 1) : -1;
    case 16: return l >= 32 ? from(31) : -1;
    case 17: return (l / 16 == 0 || l / 16 == 2) && (at < 4 || at >= 12) ? from(row + 15 - at) : -1;
    case 18: return l;
    case 19: return __builtin_popcount((unsigned)in[l] & (l < 32 ? (1u << l) - 1 : ~0u));
    case 20: return (int)(((unsigned)l * 4 & 0xff) | ((unsigned)in[l] >> 16 & 0xff) << 8 | ((unsigned)in[l] >> 8 & 0xff) << 16 |
                          ((unsigned)l * 0x01020304u >> 24) << 24);
    case 21: return l & 1 ? from(1) : -7;
    case 22: return from(63 - l);
    case 23: return at_first[l];
    default: return (int)((unsigned)at_first[l] + (unsigned)in[l]);
    }
}

T_CASE(builtins_by_their_definitions) {
    vectors v;
    uint64_t seed = 5;
    if (!vectors_open(&v)) return;
    for (int l = 0; l < LANES; l++) in[l] = (int)next(&seed) - (1 << 30), at_first[l] = (int)next(&seed);
    for (int who = 0; who < 3; who++) { /* the shim, then the compiled code of both machines */
        int out[ROWS * LANES], atomics[LANES + 1];
        memcpy(atomics, at_first, sizeof atomics);
        buffer b[] = {{in, sizeof in, false}, {out, sizeof out, true}, {atomics, sizeof atomics, true}};
        const char *fault = who ? run_on_interpreter(&v, "lanes", who - 1, b, 3, 0) : run_on_shim(&v, "lanes", 0, b, 3, 0);
        T_STR(fault, "");
        for (int r = 0; r < ROWS && !*fault; r++)
            for (int l = 0; l < LANES; l++)
                if (out[r * LANES + l] != wanted(r, l))
                    T_FAIL("witness %d: row %d lane %d is %d, expected %d", who, r, l, out[r * LANES + l], wanted(r, l));
        unsigned sum = 0;
        for (int l = 0; l < LANES; l++) sum += (unsigned)in[l];
        T_EQ((unsigned)atomics[LANES], (unsigned)at_first[LANES] + sum);
    }
    vectors_close(&v);
}

/* A load past the end gives 0, a store there is dropped; an access that the end cuts is reported. */
T_CASE(buffers_end_where_they_end) {
    vectors v;
    uint64_t seed = 8;
    if (!vectors_open(&v)) return;
    for (int bytes = 0; bytes <= 1024; bytes += bytes < 64 ? 4 : 116) {
        uint32_t from_memory[256], out[256];
        for (int i = 0; i < 256; i++) from_memory[i] = next(&seed);
        for (int who = 0; who < 3; who++) {
            memset(out, 0xAB, sizeof out);
            buffer b[] = {{from_memory, sizeof from_memory, false}, {out, sizeof out, true}};
            const char *fault = who ? run_on_interpreter(&v, "buffers", who - 1, b, 2, bytes)
                                    : run_on_shim(&v, "buffers", 0, b, 2, bytes);
            if (!*fault != (bytes % 16 == 0)) T_FAIL("witness %d: %d bytes: \"%s\"", who, bytes, fault);
            for (int i = 0; i < 256 && !*fault; i++) {
                int word = i / 4 + 32; /* of the narrow load */
                uint32_t more = i % 4 == 0 && 4 * word < bytes ? from_memory[word] : 0;
                uint32_t want = 4 * i < bytes ? from_memory[i] + more : 0xABABABABu;
                if (out[i] != want) T_FAIL("witness %d: %d bytes, word %d", who, bytes, i);
            }
        }
    }
    vectors_close(&v);
}

/* ---- matrix instructions ---- */

typedef struct shape { const char *name; int m, n, k, blocks, type; } shape;
enum { OF_BF16, OF_F16, OF_F32 };
static const shape shapes[] = {
    {"f32_32x32x8bf16_1k", 32, 32, 8, 1, OF_BF16}, {"f32_16x16x16bf16_1k", 16, 16, 16, 1, OF_BF16},
    {"f32_32x32x4bf16_1k", 32, 32, 4, 2, OF_BF16}, {"f32_16x16x4bf16_1k", 16, 16, 4, 4, OF_BF16},
    {"f32_4x4x4bf16_1k", 4, 4, 4, 16, OF_BF16},    {"f32_32x32x8f16", 32, 32, 8, 1, OF_F16},
    {"f32_16x16x16f16", 16, 16, 16, 1, OF_F16},    {"f32_32x32x2f32", 32, 32, 2, 1, OF_F32},
    {"f32_16x16x4f32", 16, 16, 4, 1, OF_F32},
};
enum { SHAPES = sizeof shapes / sizeof *shapes };

/* Element (row, k) of an operand with `side` rows: its index among all lanes' elements, lane by lane. */
static int operand_at(const shape *s, int side, int block, int row, int k) {
    int each = s->k * side * s->blocks / LANES;
    return (k / each * side * s->blocks + block * side + row) * each + k % each;
}

/* Element (i, j) of the result likewise: a group of n lanes holds runs of four rows, the groups in turn. */
static int result_at(const shape *s, int block, int i, int j) {
    int registers = s->m * s->n * s->blocks / LANES, per_block = s->m * s->n / LANES;
    if (s->n == 4) return (4 * block + j) * registers + i;
    int groups = LANES / s->n, run = i / 4;
    return (run % groups * s->n + j) * registers + block * per_block + run / groups * 4 + i % 4;
}

static void store(const shape *s, void *to, int at, float v) {
    uint32_t bits;
    memcpy(&bits, &v, sizeof bits);
    if (s->type == OF_BF16) ((uint16_t *)to)[at] = (uint16_t)(bits >> 16);
    else if (s->type == OF_F32) ((float *)to)[at] = v;
    else { /* small integers only */
        int e;
        float f = frexpf(fabsf(v), &e);
        ((uint16_t *)to)[at] = (uint16_t)((v < 0) << 15 | (v != 0 ? (e + 14) << 10 | ((int)(f * 2048) & 1023) : 0));
    }
}

/* Small integers: every order of the sum gives the same. A faulty map puts a product elsewhere. */
static void exact_product(vectors *v, const shape *s, int who) {
    static float a[16][32][16], b[16][32][16];
    static _Alignas(256) float c[2048], d[2048], packed_a[2048], packed_b[2048]; /* as a device aligns its memory */
    uint64_t seed = 77;
    int results = s->m * s->n * s->blocks;
    for (int n = 0; n < s->blocks; n++)
        for (int k = 0; k < s->k; k++)
            for (int i = 0; i < s->m; i++) {
                a[n][i][k] = (float)((int)(next(&seed) % 9) - 4), b[n][i][k] = (float)((int)(next(&seed) % 9) - 4);
                store(s, packed_a, operand_at(s, s->m, n, i, k), a[n][i][k]);
                store(s, packed_b, operand_at(s, s->n, n, i, k), b[n][i][k]);
            }
    for (int i = 0; i < results; i++) c[i] = (float)(next(&seed) % 99);
    buffer buffers[] = {{packed_a, sizeof packed_a, false}, {packed_b, sizeof packed_b, false}, {c, sizeof c, false},
                        {d, sizeof d, true}};
    T_STR(who ? run_on_interpreter(v, s->name, who - 1, buffers, 4, 0) : run_on_shim(v, s->name, 0, buffers, 4, 0), "");
    int wrong = 0;
    for (int n = 0; n < s->blocks; n++)
        for (int i = 0; i < s->m; i++)
            for (int j = 0; j < s->n; j++) {
                float want = c[result_at(s, n, i, j)];
                for (int k = 0; k < s->k; k++) want += a[n][i][k] * b[n][j][k];
                wrong += d[result_at(s, n, i, j)] != want;
            }
    if (wrong) T_FAIL("witness %d: %s: %d of %d elements", who, s->name, wrong, results);
}

T_CASE(lane_maps_by_the_documented_formula) {
    vectors v;
    if (!vectors_open(&v)) return;
    for (int i = 0; i < SHAPES; i++)
        for (int who = 0; who < 3; who++) exact_product(&v, &shapes[i], who);
    vectors_close(&v);
}

/* Any bits, subnormals, infinities and NaN among them: the shim and the interpreter give the same. */
T_CASE(matrix_bits_agree_with_the_interpreter) {
    vectors v;
    uint64_t seed = 3;
    if (!vectors_open(&v)) return;
    for (int n = 0; n < SHAPES * MACHINES * 4; n++) {
        const shape *s = &shapes[n / MACHINES % SHAPES];
        static _Alignas(256) uint32_t a[2048], b[2048], c[2048], d[WITNESSES][2048];
        for (int i = 0; i < 2048; i++) {
            a[i] = next(&seed) ^ next(&seed) << 8, b[i] = next(&seed) ^ next(&seed) << 8, c[i] = next(&seed) << 1;
            if (n % 4) a[i] = (a[i] & 0x9fff9fffu) | 0x20002000u, b[i] = (b[i] & 0x9fff9fffu) | 0x20002000u;
        }
        memset(d, 0, sizeof d);
        for (int w = 0; w < WITNESSES; w++) {
            buffer buffers[] = {{a, sizeof a, false}, {b, sizeof b, false}, {c, sizeof c, false}, {d[w], sizeof d[w], true}};
            T_STR(w ? run_on_interpreter(&v, s->name, n % MACHINES, buffers, 4, 0)
                    : run_on_shim(&v, s->name, n % MACHINES, buffers, 4, 0), "");
        }
        for (int i = 0; i < s->m * s->n * s->blocks; i++) {
            float x, y;
            memcpy(&x, &d[0][i], sizeof x), memcpy(&y, &d[1][i], sizeof y);
            if (d[0][i] != d[1][i] && !(isnan(x) && isnan(y)))
                T_FAIL("%s on %s, element %d: %a and %a", s->name, machines[n % MACHINES], i, x, y);
        }
    }
    vectors_close(&v);
}

/* ---- every op, element by element, against the oracle ---- */

/* Each spec on one machine, each machine with every op; MOEC_SHIM=all: each on both. */
T_CASE(listed_ragged_shapes) {
    static const char concat[] = "E=8 K=2 H=64 F=96 bias=1 heads=4 kv=2 dim=16 V=300";
    static const char interleaved[] = "E=5 K=3 H=136 F=72 act=geglu layout=interleaved router=sigmoid_bias capacity=1.25 "
                                      "bias=1 heads=2 kv=1 dim=24 V=77";
    static const struct { const char *spec; int64_t tokens; const char *routing; int machine; } list[] = {
        {concat, 150, "zipf:1", 0}, {concat, 1, "uniform", 0}, {concat, 0, "uniform", 0},
        {interleaved, 131, "hot:0.9", 1}, {interleaved, 7, "empty:0.5", 1},
    };
    int count = sizeof list / sizeof *list;
    bool all = getenv("MOEC_SHIM") && !strcmp(getenv("MOEC_SHIM"), "all");
    for (int i = 0; i < count * (all ? MACHINES : 1); i++) {
        moec_device *device = device_of(SHIM, i < count ? list[i].machine : !list[i % count].machine);
        moec_error err = {0};
        moec_spec spec = spec_of(list[i % count].spec);
        moec_verify_options o = {.seed = (uint64_t)i + 1, .tokens = list[i % count].tokens, .variants = 1,
                                 .routing = list[i % count].routing, .report = take_row};
        if (!device) return;
        if (moec_verify_spec(device, &spec, &o, &err)) T_FAIL("%s: %s", list[i % count].spec, err.text);
    }
    T_OK(cases > 120);
}

/* ---- one kernel on one case ---- */

typedef struct setup { const char *op, *spec; int64_t T; const char *config; } setup; /* config NULL: the default */

/* `text` with the first `old` replaced; NULL when `old` does not occur. */
static char *edited(const char *text, const char *old, const char *new) {
    const char *at = strstr(text, old);
    if (!at) return NULL;
    size_t bytes = strlen(text) + strlen(new) + 1;
    char *out = malloc(bytes);
    snprintf(out, bytes, "%.*s%s%s", (int)(at - text), text, new, at + strlen(old));
    return out;
}

static bool make_case(moec_device *device, const setup *s, moec_case *c) {
    moec_error err = {0};
    moec_pattern pattern;
    *c = (moec_case){.op = moec_op_find(s->op), .spec = spec_of(s->spec), .T = s->T, .seed = 4};
    moec_status rc = moec_pattern_parse("uniform", &pattern, &err);
    if (!rc) rc = moec_case_make(c, &pattern, &err);
    if (!rc) rc = moec_case_solve(c, device->target, &err);
    if (rc) T_FAIL("%s: %s", s->op, err.text);
    return !rc;
}

/* The kernel of a request; source NULL when it cannot be emitted. */
static moec_kernel emit(moec_device *device, const setup *s) {
    moec_error err = {0};
    moec_kernel kernel = {0};
    moec_spec spec = spec_of(s->spec);
    moec_config config;
    moec_request request = {.op = moec_op_find(s->op), .spec = &spec, .target = device->target};
    moec_status rc = device->gen ? MOEC_OK : moec_gen_new(&device->gen, &err);
    if (!rc && s->config) rc = moec_config_parse(device->gen, &request, s->config, &config, &err);
    if (!rc && s->config) request.config = &config;
    if (!rc) rc = moec_emit(device->gen, &request, &kernel, &err);
    if (rc) T_FAIL("%s: %s", s->op, err.text);
    return kernel;
}

/* Compiles `text` in place of the kernel's own and runs the case. The fault found, "" when none. */
static void run_text(moec_device *device, const moec_kernel *kernel, const char *text, const moec_case *c,
                     char fault[512]) {
    static int serial;
    char library[32];
    moec_error err = {0};
    moec_verdict verdict = {0};
    moec_module m = {.kernel = *kernel};
    snprintf(library, sizeof library, "k%d.so", serial++);
    moec_status rc = put_file("k.hip", text, strlen(text)) ? MOEC_OK : MOEC_E_IO;
    if (!rc) rc = shim_toolchain.compile(device->target, dir, "k.hip", library, &err);
    if (!rc) rc = device->ops->load(device, in_dir(library), &m, &err);
    if (rc) T_FAIL("%s: %s", kernel->symbol, err.text);
    if (!rc) rc = moec_trial(device, &m, c, &verdict, &err);
    if (m.handle) device->ops->unload(device, &m);
    unlink(in_dir(library));
    snprintf(fault, 512, "%.500s", rc ? err.text : verdict.fault);
}

/* Emits, edits (old NULL: not at all), compiles, runs. */
static void run_edited(moec_device *device, const setup *s, const char *old, const char *new, char fault[512]) {
    moec_case c;
    moec_kernel kernel = emit(device, s);
    char *text = kernel.source ? edited(kernel.source, old ? old : "\n", old ? new : "\n") : NULL;
    *fault = 0;
    if (!text) T_FAIL("%s: the text \"%s\" is not there any more", s->op, old ? old : "");
    if (text && make_case(device, s, &c)) run_text(device, &kernel, text, &c, fault);
    if (text) moec_case_free(&c);
    free(text);
    moec_kernel_free(&kernel);
}

static const char small[] = "E=3 K=2 H=136 F=72";

T_CASE(edited_text) {
    static const struct { setup right; const char *what, *old, *new, *says; } list[] = {
        {{"up", small, 150, NULL}, "a removed barrier", "barrier(); // the next step is in LDS", "//", "race on LDS"},
        {{"dw2", small, 150, NULL}, "a removed barrier", "barrier(); // the next step is in LDS", "//", "race on LDS"},
        {{"down", small, 150, NULL}, "a removed barrier", "barrier(); // the first two steps are in LDS", "", "race on LDS"},
        {{"dh", small, 150, NULL}, "a removed barrier", "barrier(); // pull is complete", "", "race on LDS"},
        {{"route", "E=8 K=2", 70, NULL}, "a removed barrier", "barrier(); // all warps have counted", "", "race on LDS"},
        {{"route", "E=3 K=2", 70, NULL}, "a removed wave fence", "warp_barrier(); // z is complete", "",
         "without a wavefront fence"},
        {{"up", small, 150, NULL}, "a removed release", "__builtin_amdgcn_fence(__ATOMIC_RELEASE, \"workgroup\");", "",
         "without a release fence"},
        {{"up", small, 150, NULL}, "a removed acquire", "__builtin_amdgcn_fence(__ATOMIC_ACQUIRE, \"workgroup\");", "",
         "without an acquire fence"},
        {{"db1", "E=3 K=2 H=136 F=72 bias=1", 150, NULL}, "a barrier that one lane misses", "barrier(); // room is complete",
         "if (thread_id() == 3) return; barrier();", "not all threads reach"},
        {{"route_bwd", "E=8 K=2", 70, NULL}, "a sum without a lane", "if (t >= T) return; // a whole warp",
         "if (t >= T || lane_id() == 5) return;", "from lane 5, which is not there"},
        {{"adamw", small, 150, NULL}, "blocks that overlap", "block_id() * EACH * THREADS",
         "block_id() * EACH * (THREADS - 8)", "race on "},
        {{"up", small, 150, NULL}, "a wrong lane map", "4 * (lane_id() / 32)", "4 * (lane_id() / 16 % 2)", "race on hpre"},
        {{"dx", small, 150, NULL}, "a wrong lane map", "return lane_id() % MI;", "return (lane_id() ^ 1) % MI;", "expected"},
        {{"dw1", small, 150, NULL}, "a wrong lane map", "8 * q + 4", "4 * q + 16", ""},
        {{"up", small, 150, NULL}, "swapped operands", "mfma(by.b[j].lo, by.a[i].lo,", "mfma(by.a[i].lo, by.b[j].lo,",
         "expected"},
        {{"dw2", small, 150, NULL}, "swapped operands", "mfma(by.b[j].hi, by.a[i].hi,", "mfma(by.a[i].hi, by.b[j].hi,",
         "expected"},
        {{"up", small, 150, NULL}, "a step of k too few", "STEPS = (INNER + BK - 1) / BK", "STEPS = INNER / BK", ""},
        {{"down", small, 150, NULL}, "stores a row too far", "(u32)rows * COLUMNS *", "(u32)(rows + 1) * COLUMNS *", "race on y"},
        {{"down", "E=1 K=1 H=136 F=72", 150, NULL}, "stores a row too far", "(u32)rows * COLUMNS *",
         "(u32)(rows + 1) * COLUMNS *", "makes a buffer resource"},
        {{"dx", small, 150, NULL}, "loads a row too far", "(u32)(tile.end - tile.first) *",
         "(u32)(tile.end - tile.first + 1) *", "makes a buffer resource"},
        {{"up", small, 150, NULL}, "a gathered array a row too long", "(u32)(T * INNER) * 2", "(u32)(T * INNER + INNER) * 2",
         "makes a buffer resource"},
        {{"up", small, 150, NULL}, "a k too many", "k0 + k_of() < INNER;", "k0 + k_of() < INNER + 8;", "expected"},
        {{"dw1", small, 150, NULL}, "an off-by-one tail", "(u32)left * 4", "(u32)(left + 1) * 4", "makes a buffer resource"},
        {{"dw1", small, 150, NULL}, "a line too many", "less(BK, lines - k0)", "less(BK, lines + 1 - k0)", "makes a buffer resource"},
        {{"dw2", small, 150, NULL}, "stores a row too far", "(u32)height * WIDTH", "(u32)(height + 1) * WIDTH", "race on dw2"},
        {{"combine", small, 150, NULL}, "an off-by-one tail", "if (t >= T) return;", "if (t > T) return;", "out of bounds"},
        {{"rmsnorm", small, 150, NULL}, "an off-by-one tail", "if (t >= T) return;", "if (t > T) return;", "out of bounds"},
        {{"combine", small, 150, NULL}, "an index past an array", "for (int k = 0; k < FLIGHT; k++) {",
         "for (int k = 0; k <= FLIGHT; k++) {", "past the end of an array"},
        {{"combine", small, 150, NULL}, "a misaligned access", "int column = (int)(item % GROUPS) * 8;",
         "int column = (int)(item % GROUPS) * 8 - (item % GROUPS == 1);", "not a multiple"},
        {{"route", "E=8 K=2", 70, NULL}, "a shift too far", "[mine[i]], 1u << token % TILE);",
         "[mine[i]], 1u << (token % TILE + 32));", "more bits than there are"},
        {{"route", "E=8 K=2", 70, NULL}, "an off-by-one tail", "for (; e < E; e += WARPS * BLOCKS)",
         "for (; e <= E; e += WARPS * BLOCKS)", ""},
    };
    int caught = 0, count = sizeof list / sizeof *list;
    for (int i = 0; i < count; i++) {
        moec_device *device = device_of(SHIM, i % MACHINES);
        char fault[512];
        bool again = i && !strcmp(list[i].right.op, list[i - 1].right.op) && i >= MACHINES;
        if (!device) return;
        if (!again) {
            run_edited(device, &list[i].right, NULL, NULL, fault);
            if (*fault) T_FAIL("%s: the unharmed kernel is reported: %s", list[i].right.op, fault);
        }
        run_edited(device, &list[i].right, list[i].old, list[i].new, fault);
        if (!*fault) T_FAIL("%s: %s is not noticed", list[i].right.op, list[i].what);
        else if (!strstr(fault, list[i].says)) T_FAIL("%s: %s: another fault is reported: %s", list[i].right.op, list[i].what, fault);
        else caught++;
    }
    printf("# %d of %d planted faults are reported\n", caught, count);
}

/* ---- the same bits as the compiled code ---- */

/* What the first launch of a trial left in the outputs: devices here have host memory. */
static struct { char *bytes; size_t n; const moec_device_ops *ops; } tap;

static moec_status tapped_launch(moec_device *device, void *stream, const moec_module *module, const moec_arg *args,
                                 const moec_sizes *sizes, void *scratch, moec_error *err) {
    const moec_op *op = module->kernel.op;
    MOEC_TRY(tap.ops->launch(device, stream, module, args, sizes, scratch, err));
    if (tap.bytes) return MOEC_OK;
    for (int i = 0; i < op->arg_count; i++) {
        int64_t elements;
        if ((op->args[i].role != MOEC_OUT && op->args[i].role != MOEC_INOUT) || !args[i].ptr) continue;
        MOEC_TRY(moec_arg_count(&op->args[i], sizes, &elements, err));
        size_t bytes = (size_t)elements * moec_type_bytes(moec_arg_dtype(&op->args[i], sizes->spec));
        tap.bytes = realloc(tap.bytes, tap.n + bytes + 1);
        memcpy(tap.bytes + tap.n, args[i].ptr, bytes);
        tap.n += bytes;
    }
    return MOEC_OK;
}

/* All outputs of an op on a case, one after another; NULL when it cannot run. */
static char *outputs_of(moec_device *device, const moec_op *op, const char *text, int64_t T, size_t *bytes) {
    moec_error err = {0};
    moec_verdict verdict = {0};
    moec_module *module = NULL;
    moec_device_ops ops = *device->ops;
    setup s = {op->name, text, T, NULL};
    moec_case c = {0};
    moec_spec spec = spec_of(text);
    tap.ops = device->ops, tap.bytes = NULL, tap.n = 0;
    moec_status rc = moec_module_create(device, op, &spec, NULL, T, &module, &err);
    if (!rc && !make_case(device, &s, &c)) rc = MOEC_E_INVAL;
    ops.launch = tapped_launch;
    device->ops = &ops;
    if (!rc) rc = moec_trial(device, module, &c, &verdict, &err);
    device->ops = tap.ops;
    if (rc) T_FAIL("%s: %s", op->name, err.text);
    if (*verdict.fault) T_FAIL("%s: %s", op->name, verdict.fault);
    moec_case_free(&c);
    moec_module_free(device, module);
    *bytes = tap.n;
    return tap.bytes;
}

/* Without contraction, and with exp and log as the compiler expands them, every bit of every output is the
 * same: two ways from the text to the result that share only the text. */
T_CASE(same_bits_as_the_compiled_code) {
    static const struct { const char *spec; int64_t T; } list[MACHINES] = {
        {"E=5 K=2 H=72 F=40 act=swiglu bias=1 heads=4 kv=2 dim=16 V=96", 61},
        {"E=7 K=3 H=136 F=24 act=geglu layout=interleaved router=sigmoid_bias capacity=1.5", 130},
    };
    char exact[PATH_MAX];
    int same = 0;
    if (!device_of(SHIM, 0) || !device_of(INTERPRETER, 0)) return;
    T_NEED(realpath("tests/shim/clang-exact", exact));
    setenv("MOEC_HIPCC", exact, 1);
    for (int i = 0; i < MACHINES; i++)
        for (moec_op_id id = 0; id < MOEC_OP_COUNT; id++) {
            const moec_op *op = moec_op_get(id);
            moec_spec spec = spec_of(list[i].spec);
            size_t n[WITNESSES];
            if (moec_case_applies(op, &spec, NULL)) continue;
            char *a = outputs_of(device_of(SHIM, i), op, list[i].spec, list[i].T, &n[SHIM]);
            char *b = outputs_of(device_of(INTERPRETER, i), op, list[i].spec, list[i].T, &n[INTERPRETER]);
            size_t at = 0;
            while (a && b && at < n[0] && at < n[1] && a[at] == b[at]) at++;
            if (!a || at < n[0] || n[0] != n[1]) T_FAIL("%s on %s: byte %zu of %zu differs", op->name, machines[i], at, n[0]);
            else same++;
            free(a), free(b);
        }
    unsetenv("MOEC_HIPCC");
    printf("# %d ops give the same bits\n", same);
}

/* ---- every barrier of every kernel ---- */

static const char tiny[] = "E=3 K=2 H=72 F=40 heads=4 kv=2 dim=16 V=100 bias=1";

/* The next call of barrier() or warp_barrier() in a text, not its definition; NULL: none. */
static char *next_barrier(char *at) {
    while ((at = strstr(at, "barrier();"))) {
        char *line = at;
        while (line[-1] != '\n') line--;
        bool comment = memchr(line, '/', (size_t)(at - line)) != NULL;
        if (!comment && strncmp(line, "DEVICE", 6) && !(at > line && at[-1] == '_' && strncmp(at - 5, "warp_", 5))) return at;
        at++;
    }
    return NULL;
}

/* Takes each barrier out of the text in turn: each must be noticed. */
static void remove_each(moec_device *device, const setup *s, int *there, int *caught) {
    moec_case c;
    moec_kernel kernel = emit(device, s);
    if (!kernel.source || !make_case(device, s, &c)) return;
    for (char *at = kernel.source; (at = next_barrier(at)); at++) {
        char fault[512], *call = at[-1] == '_' ? at - 5 : at, *end = strchr(at, ';'), saved[32];
        size_t n = (size_t)(end - call);
        memcpy(saved, call, n);
        memset(call, ' ', n);
        run_text(device, &kernel, kernel.source, &c, fault);
        memcpy(call, saved, n);
        ++*there;
        *caught += *fault != 0;
        if (!*fault) T_FAIL("%s %s: not noticed: without %.60s", s->op, s->spec, call);
    }
    moec_case_free(&c);
    moec_kernel_free(&kernel);
}

T_CASE(removed_barriers) {
    static const setup list[] = {
        {"up", tiny, 150, NULL}, {"dh", tiny, 150, NULL}, {"dw1", tiny, 150, NULL}, {"db1", tiny, 150, NULL}, {"rmsnorm_bwd", tiny, 70, NULL},
        {"attention", tiny, 70, NULL}, {"attention_bwd", tiny, 70, NULL}, {"xent", tiny, 7, NULL}, {"sqnorm", tiny, 1000, NULL},
        {"embed_bwd", "H=72 V=32", 8300, "list=256"}, {"route", "E=70 K=4 capacity=0.5", 6400, "window=1"},
    };
    int there = 0, caught = 0;
    for (int i = 0; i < (int)(sizeof list / sizeof *list); i++) {
        moec_device *device = device_of(SHIM, i % MACHINES);
        int before = there, old = caught;
        if (!device) return;
        remove_each(device, &list[i], &there, &caught);
        printf("# %s: %d of %d\n", list[i].op, caught - old, there - before);
    }
    printf("# %d of %d removed barriers and wave fences are reported\n", caught, there);
    T_OK(there > 40);
}

T_MAIN
