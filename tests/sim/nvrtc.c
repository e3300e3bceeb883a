/* NVRTC for this CPU: emitted CUDA of the generic target becomes a library that the machine of this folder runs.
 *
 * The text stays as it is, but for functions that hold instructions: their bodies are replaced by what
 * those do. Kernels with other instructions (wgmma, TMA) do not compile. SIM_PLANT=OLD=>NEW changes the
 * text first: for tests that must fail; text without OLD does not compile. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Function, what its body becomes; $ stands for its first parameter. */
static const struct { const char *name, *body; } instructions[] = {
    {"shared_address", "return sim_address(p);"},
    {"multiply", "sim->product(c, a, b0, b1);"},
    {"load_matrices", "sim->matrices(r, address, 0);"},
    {"load_matrices_transposed", "sim->matrices(r, address, 1);"},
    {"copy_16", "sim->copy(to, from, bytes);"},
    {"end_copies", "sim->commit();"},
    {"wait_copies", "sim->wait(N);"},
    {"pack", "return sim_pair(low, high);"},
    {"bf16_pair", "return sim_pair(low, high);"},
    {"bf16_of", "return (bf16)sim_bf16(v);"},
    {"exp2_of", "return exp2f($);"},
    {"reciprocal", "return 1.0f / $;"},
    {"afresh", "return $;"},
    {"wait_for_previous_kernel", ""},
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

/* `from` with every OLD as NEW; NULL when there is none. */
static char *replaced(const char *from, const char *old, size_t old_bytes, const char *new) {
    text out = {0};
    bool_fast: ;
    const char *hit;
    int count = 0;
    while ((hit = memmem(from, strlen(from), old, old_bytes))) {
        put(&out, from, (size_t)(hit - from));
        say(&out, new);
        from = hit + old_bytes;
        count++;
    }
    say(&out, from);
    if (count) return out.at;
    free(out.at);
    return NULL;
}
