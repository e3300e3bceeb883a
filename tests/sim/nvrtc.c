/* NVRTC for this CPU: emitted CUDA becomes a library that the machine of this folder runs.
 *
 * The text stays as it is, but for functions that hold instructions: their bodies are replaced by what
 * those do. One with an instruction that is not in the table ends the launch when it is called. SIM_PLANT=OLD=>NEW changes the
 * text first: for tests that must fail; text without OLD does not compile. */
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Function with an instruction, words in it that tell which one ("": any), what its body becomes; $ stands for
 * its first parameter. */
static const struct { const char *name, *with, *body; } instructions[] = {
    {"shared_address", "", "return sim->address(p);"},
    {"multiply", "", "sim->product(c, a, b0, b1);"},
    {"load_matrices", "", "sim->matrices(r, address, 0);"},
    {"load_matrices_transposed", "", "sim->matrices(r, address, 1);"},
    {"copy_16", "", "sim->copy(to, from, bytes);"},
    {"end_copies", "", "sim->commit();"},
    {"wait_copies", "", "sim->wait(N);"},
    {"pack", "", "return sim_pair(low, high);"},
    {"bf16_of", "", "return (bf16)sim_bf16(v);"},
    {"exp2_of", "", "return exp2f($);"},
    {"reciprocal", "", "return 1.0f / $;"},
    {"afresh", "", "return $;"},
    {"quick_exp", "", "return exp2f($ * 1.4426950408889634f);"},
    {"quick_inverse", "", "return 1.0f / $;"},
    {"copy_async", ", 16;", "memcpy(to, from, 16);"}, /* at once */
    {"copy_async", ", 4;", "memcpy(to, from, 4);"},
    {"wait_for_previous_kernel", "", ""},
    {"wait_for_predecessor", "", ""},
    {"dependents_may_launch", "", ""},
    {"settle", "", ""},
    {"cycles", "", "static unsigned now; return now += 1000;"},
    {"fence_barrier_init", "", ""},
    {"fence_proxy_async", "", ""},
    {"barrier_init", "", "sim->bar_init(bar, arrivals);"},
    {"barrier_arrive", "", "sim->bar_arrive(bar);"},
    {"barrier_expect", "", "sim->bar_expect(bar, bytes);"},
    {"barrier_wait", "", "sim->bar_wait(bar, parity);"},
    {"barrier_arrive_in", "", "sim->bar_arrive_in(bar, cta);"},
    {"cluster_rank", "", "return sim->rank;"},
    {"elected", "", "return sim->thread % SIM_WARP == 0;"},
    {"cluster_arrive", "", "sim->cluster_arrive();"},
    {"cluster_wait", "", "sim->cluster_wait();"},
    {"barrier_arrive_after_copies", "", "sim->bar_arrive_after_copies(bar);"},
    {"copy16_async", "", "sim->copy(dst, src, bytes);"},
    {"copy_row16_async", "", "sim->copy(dst, src, row < 0 ? 0 : 16);"},
    {"tma_load", ".2d.", "sim->box(dst, m, bar, c0, c1, 0, 0, 0);"},
    {"tma_load", ".3d.", "sim->box(dst, m, bar, c0, c1, c2, 0, 0);"},
    {"tma_load", ".4d.", "sim->box(dst, m, bar, c0, c1, c2, c3, 0);"},
    {"tma_load_both", ".2d.", "sim->box(dst, m, bar, c0, c1, 0, 0, 1);"},
    {"tma_load_both", ".3d.", "sim->box(dst, m, bar, c0, c1, c2, 0, 1);"},
    {"tma_load_both", ".4d.", "sim->box(dst, m, bar, c0, c1, c2, c3, 1);"},
    {"tma_store", ".2d.", "sim->box_out(src, m, c0, c1, 0, 0);"},
    {"tma_store", ".3d.", "sim->box_out(src, m, c0, c1, c2, 0);"},
    {"tma_store", ".4d.", "sim->box_out(src, m, c0, c1, c2, c3);"},
    {"tma_store_commit", "", "sim->box_commit();"},
    {"tma_store_wait_read", "", "sim->box_wait(PENDING);"},
    {"copy_bytes", "", "sim->bulk(to, from, bytes, bar);"},
    {"mma_fence", "", ""},
    {"mma_commit", "", "sim->mma_commit();"},
    {"mma_wait", "", "sim->mma_wait(PENDING);"},
    {"mma_step", "p, 1, 1, 0, 0;", "sim->mma(d, sizeof d / 4, sim_wide(a), 0, sim_wide(b), keep, 0, 0);"},
    {"mma_step", "p, 1, 1, 0, 1;", "sim->mma(d, sizeof d / 4, sim_wide(a), 0, sim_wide(b), keep, 0, 1);"},
    {"mma_step", "p, 1, 1, 1, 1;", "sim->mma(d, sizeof d / 4, sim_wide(a), 0, sim_wide(b), keep, 1, 1);"},
    {"mma_registers", ", 1, 1, 1, 1;", "sim->mma(d, sizeof d / 4, 0, a, sim_wide(b), 1, 0, 1);"},
    {"pack_bf16", "", "return sim_pair(lo, hi);"},
    {"store_matrices", "", "unsigned v[4] = {a, b, c, d}; sim->store_matrices(address, v, 0);"},
    {"store_matrices_transposed", "", "unsigned v[4] = {a, b, c, d}; sim->store_matrices(address, v, 1);"},
    {"load_shared", "", "return sim_load(address);"},
    {"load_shared_int4", "", "int4_ v; memcpy(&v, sim->at(address, 16), 16); return v;"},
    {"store_shared", "", "memcpy(sim->at(address, 4), &v, 4);"},
    {"store_shared_int4", "", "memcpy(sim->at(address, 16), &v, 16);"},
    {"store_shared_u16", "", "memcpy(sim->at(address, 2), &v, 2);"},
    {"load_shared_u16", "", "u16 v; memcpy(&v, sim->at(address, 2), 2); return v;"},
    {"warpgroup_sync", "", "sim->meet_some(id, 128, 1, 0);"},
    {"turn_take", "", "sim->meet_some(1 + consumer, 256, 1, 0);"},
    {"turn_over", "", "sim->meet_some(1 + consumer, 256, 0, 0);"},
    {"warpgroup_any", "", "return sim->meet_some(3 + consumer, 128, 1, mine);"},
};

typedef struct program { char *source, *image, *log; size_t bytes; } program;

/* ---- text ---- */

typedef struct text { char *at; size_t length, room; } text;

static void put(text *t, const char *from, size_t n) {
    if (t->length + n + 1 > t->room) t->at = realloc(t->at, t->room = 2 * (t->length + n + 1));
    memcpy(t->at + t->length, from, n);
    t->at[t->length += n] = 0;
}
static void say(text *t, const char *words) { put(t, words, strlen(words)); }

/* `from` with every `old` as `new`; NULL when there is none. malloc'ed. */
static char *replaced(const char *from, const char *old, const char *new) {
    text out = {0};
    const char *hit = strstr(from, old);
    if (!hit) return NULL;
    for (; hit; from = hit + strlen(old), hit = strstr(from, old)) {
        put(&out, from, (size_t)(hit - from));
        say(&out, new);
    }
    say(&out, from);
    return out.at;
}

/* The name in "DEVICE type name(" or "template <...> DEVICE type name(" at `line`; its length, else 0. */
static size_t function_at(const char *line, const char **name) {
    const char *end = line + strcspn(line, "(\n"), *begin = end;
    if (strncmp(line, "DEVICE ", 7) && !(strncmp(line, "template ", 9) == 0 && strstr(line, " DEVICE "))) return 0;
    while (begin > line && begin[-1] != ' ' && begin[-1] != '*') begin--;
    *name = begin;
    return *end == '(' ? (size_t)(end - begin) : 0;
}


/* Behind the function at `line`, which ends on its own line or at one that is a brace alone. */
static const char *end_of(const char *line) {
    const char *open = strstr(line, ") {"), *after = strchr(open, '\n');
    return memchr(open, '}', (size_t)(after - open)) ? after + 1 : strstr(after, "\n}\n") + 3;
}

/* Is `words` somewhere before `end`? */
static int has(const char *from, const char *words, const char *end) {
    const char *hit = strstr(from, words);
    return hit && hit < end;
}

/* A statement that only tells the compiler or waits for copies that are there already? */
static int is_idle(const char *line) {
    static const char *const idle[] = {"asm volatile(\"\" ", "asm volatile(\"setmaxnreg", "asm volatile(\"cp.async.wait_all;\""};
    line += strspn(line, " ");
    for (size_t i = 0; i < sizeof idle / sizeof *idle; i++)
        if (!strncmp(line, idle[i], strlen(idle[i]))) return 1;
    return 0;
}

/* Has the function at `line` an instruction that must become something else? */
static int must_change(const char *line, const char *end) {
    for (const char *at = line; at < end; at += strcspn(at, "\n") + 1)
        if (!is_idle(at) && has(at, "asm", at + strcspn(at, "\n"))) return 1;
    return 0;
}

/* What the body of the function at `line` becomes, if it holds an instruction; else NULL. */
static const char *body_of(const char *line, const char *name, size_t length) {
    const char *end = end_of(line);
    for (size_t i = 0; i < sizeof instructions / sizeof *instructions; i++)
        if (strlen(instructions[i].name) == length && !strncmp(instructions[i].name, name, length) &&
            has(line, "asm", end) && has(line, instructions[i].with, end))
            return instructions[i].body;
    return must_change(line, end) ? "sim->missing(__func__); __builtin_unreachable();" : NULL;
}

/* Writes the function at `line` with another body. */
static void put_function(text *out, const char *line, const char *body) {
    const char *open = strstr(line, ") {") + 3;
    const char *word = strchr(line, '('), *end = word + strcspn(word, ",)");
    for (word = end; isalnum((unsigned char)word[-1]) || word[-1] == '_';) word--;
    put(out, line, (size_t)(open - line));
    for (const char *c = body; *c; c++) {
        if (*c == '$') put(out, word, (size_t)(end - word));
        else put(out, c, 1);
    }
    say(out, "}\n");
}

/* ---- parameters: "SYMBOL_run" takes them as the driver does, by address ---- */

/* "*(type *)p[i], ..." from the lines between the kernel's parentheses. */
static void put_arguments(text *out, const char *line) {
    for (int i = 0; *line != ')'; i++, line = strchr(line, '\n') + 1) {
        char one[256], place[32];
        size_t n = strcspn(line, ",/\n");
        snprintf(one, sizeof one, "%.*s", (int)n, line);
        while (n && one[n - 1] == ' ') one[--n] = 0;
        while (n && one[n - 1] != ' ' && one[n - 1] != '*') one[--n] = 0;
        snprintf(place, sizeof place, " *)p[%d]", i);
        say(out, i ? ", *(" : "*(");
        say(out, one);
        say(out, place);
    }
}

static int put_entry(text *out) {
    const char *kernel = strstr(out->at, "\nKERNEL"), *open;
    if (!kernel) kernel = strstr(out->at, "\nextern \"C\" __global__");
    open = kernel ? strstr(kernel, "(\n") : NULL;
    if (!open) return 1;
    const char *name = open;
    while (name[-1] != ' ' && name[-1] != '\n') name--;
    char symbol[256];
    snprintf(symbol, sizeof symbol, "%.*s", (int)(open - name), name);
    text call = {0};
    put_arguments(&call, open + 2);
    say(out, "extern \"C\" void ");
    say(out, symbol);
    say(out, "_run(void **p) { ");
    say(out, symbol);
    say(out, "(");
    say(out, call.at);
    say(out, "); }\n");
    free(call.at);
    return 0;
}

/* The kernel for this CPU; NULL with a reason. */
static char *rewrite(const char *source, const char **why) {
    static const char shared[] = "extern __shared__ ";
    const char *plant = getenv("SIM_PLANT"), *arrow = plant ? strstr(plant, "=>") : NULL;
    char *planted = NULL, *old = arrow ? strndup(plant, (size_t)(arrow - plant)) : NULL;
    text out = {0};
    if (arrow) planted = replaced(source, old, arrow + 2);
    *why = "the text has no place for what SIM_PLANT plants";
    if (arrow && !planted) return NULL;
    say(&out, "#include \"words.h\"\n");
    for (const char *line = planted ? planted : source; *line;) {
        const char *name, *next = line + strcspn(line, "\n");
        size_t length = function_at(line, &name);
        const char *body = length ? body_of(line, name, length) : NULL;
        next += *next == '\n';
        if (body) put_function(&out, line, body), next = end_of(line);
        else if (is_idle(line)) say(&out, ";\n");
        else if (!strncmp(line, "#pragma", 7)) say(&out, "\n"); /* unrolled code only takes longer to compile */
        else if (!strncmp(line + strspn(line, " "), shared, sizeof shared - 1)) {
            /* extern __shared__ TYPE NAME[]; */
            const char *type = strstr(line, shared) + sizeof shared - 1, *space;
            if (!strncmp(type, "__align__", 9)) type = strchr(type, ' ') + 1;
            space = strchr(type, ' ');
            char words[256];
            snprintf(words, sizeof words, "%.*s *const %.*s = (%.*s *)(sim->shared + SIM_SHARED_AT);\n",
                     (int)(space - type), type, (int)strcspn(space + 1, "["), space + 1, (int)(space - type), type);
            say(&out, words);
        } else put(&out, line, (size_t)(next - line));
        line = next;
    }
    free(old);
    free(planted);
    *why = "the text has no kernel";
    if (!put_entry(&out)) return out.at;
    free(out.at);
    return NULL;
}

/* ---- the compiler ---- */

static char *read_all(const char *path, size_t *bytes) {
    FILE *f = fopen(path, "rb");
    char *data = NULL;
    *bytes = 0;
    if (!f) return NULL;
    fseek(f, 0, SEEK_END);
    long n = ftell(f);
    rewind(f);
    if (n >= 0 && (data = calloc(1, (size_t)n + 1))) *bytes = fread(data, 1, (size_t)n, f);
    fclose(f);
    return data;
}

/* Result codes as NVRTC's: 6 is an error in the text. SIM_DIR is the folder of words.h. */
static int compile(program *p, const char *dir) {
    char path[128], command[512];
    const char *why;
    char *text = rewrite(p->source, &why);
    if (!text) return p->log = strdup(why), 6;
    snprintf(path, sizeof path, "%s/kernel.cpp", dir);
    FILE *f = fopen(path, "wb");
    if (f) fputs(text, f), fclose(f);
    free(text);
    snprintf(command, sizeof command, "${SIM_CXX:-clang-19} -x c++ -std=c++17 -O1 -w -fPIC -shared -I" SIM_DIR
             " -o %s/kernel.so %s/kernel.cpp -lm >%s/log 2>&1", dir, dir, dir);
    int failed = system(command);
    snprintf(path, sizeof path, "%s/log", dir);
    size_t bytes;
    p->log = read_all(path, &bytes);
    if (failed) return 6;
    snprintf(path, sizeof path, "%s/kernel.so", dir);
    char *library = read_all(path, &p->bytes);
    p->image = malloc(p->bytes + sizeof p->bytes);
    memcpy(p->image, &p->bytes, sizeof p->bytes);
    memcpy(p->image + sizeof p->bytes, library, p->bytes);
    p->bytes += sizeof p->bytes;
    free(library);
    return 0;
}

/* ---- NVRTC's functions, as far as moec calls them ---- */

#define CALL(type, name, ...) \
    type name(__VA_ARGS__);   \
    type name(__VA_ARGS__)

CALL(int, nvrtcVersion, int *major, int *minor) { *major = 13, *minor = 0; return 0; }
CALL(int, nvrtcCreateProgram, program **p, const char *source, const char *name, int headers,
     const char *const *texts, const char *const *names) {
    (void)name, (void)headers, (void)texts, (void)names;
    *p = calloc(1, sizeof **p);
    (*p)->source = strdup(source);
    return 0;
}
CALL(int, nvrtcDestroyProgram, program **p) {
    free((*p)->source), free((*p)->image), free((*p)->log), free(*p);
    *p = NULL;
    return 0;
}
CALL(int, nvrtcCompileProgram, program *p, int count, const char *const *options) {
    char dir[] = "/tmp/moec-sim.XXXXXX", command[64];
    (void)count, (void)options;
    if (!mkdtemp(dir)) return 1;
    int result = compile(p, dir);
    snprintf(command, sizeof command, "rm -r %s", dir);
    return system(command) && !result ? 1 : result;
}
CALL(int, nvrtcGetProgramLogSize, program *p, size_t *bytes) { *bytes = (p->log ? strlen(p->log) : 0) + 1; return 0; }
CALL(int, nvrtcGetProgramLog, program *p, char *text) { strcpy(text, p->log ? p->log : ""); return 0; }
CALL(int, nvrtcGetCUBINSize, program *p, size_t *bytes) { *bytes = p->bytes; return 0; }
CALL(int, nvrtcGetCUBIN, program *p, char *to) { memcpy(to, p->image, p->bytes); return 0; }
CALL(int, nvrtcGetPTXSize, program *p, size_t *bytes) { *bytes = p->bytes; return 0; }
CALL(int, nvrtcGetPTX, program *p, char *to) { memcpy(to, p->image, p->bytes); return 0; }
CALL(const char *, nvrtcGetErrorString, int result) {
    return result == 6 ? "NVRTC_ERROR_COMPILATION" : "NVRTC_ERROR_INTERNAL_ERROR";
}
