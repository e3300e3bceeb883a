/* One wave's way through a loop, in clocks.
 *
 * A wave issues one instruction every ISSUE clocks, in order. Beyond that:
 *   matrix      waits for the matrix unit, which works FLOP / rate clocks on it while the wave goes on
 *   LDS         served in order at LDS_RATE bytes a clock for the four waves together, each taken to be the last of
 *               them, without bank conflicts; done LDS_LATENCY after that
 *   load        the same at the vector cache: CACHE_RATE, and CACHE_LATENCY as if L2 always had it
 *   s_waitcnt   until all but so many of the wave's LDS accesses, or loads, are done
 *   s_barrier   BARRIER: the last wave's way there. Matrix instructions issued before go on meanwhile
 *   s_nop       as many more issues; quarter-rate multiplications 4, a branch taken BRANCH
 * Loads beyond L2, stores, and the clock under load are not in it. */
#include "model_walk.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SIMDS = 4, LANES = 64, ISSUE = 4, BRANCH = 20, LDS_RATE = 128, CACHE_RATE = 64, LDS_LATENCY = 64,
       CACHE_LATENCY = 500, BARRIER = 50, TURNS = 12, QUEUE = 256 };

/* Accesses that one unit serves in order. */
typedef struct unit { double free, done[QUEUE]; int count, bytes_a_clock, latency; } unit;

typedef struct wave { double now, matrix_free, busy, rate; unit lds, cache; } wave;

static void serve(wave *w, unit *u, int bytes) { /* of a lane */
    double start = u->free > w->now ? u->free : w->now;
    u->free = start + (double)SIMDS * LANES * bytes / u->bytes_a_clock;
    u->done[u->count++ % QUEUE] = u->free + u->latency;
}

/* Waits until at most `left` accesses are outstanding. */
static void wait_for(wave *w, const unit *u, int left) {
    if (u->count <= left || left >= QUEUE) return;
    double done = u->done[(u->count - left - 1) % QUEUE];
    if (done > w->now) w->now = done;
}

static void multiply(wave *w, const char *name) {
    int m = 0, n = 0, k = 0;
    if (sscanf(name, "v_mfma_f32_%dx%dx%d", &m, &n, &k) != 3) return;
    double clocks = 2.0 * m * n * k * SIMDS / w->rate;
    if (w->matrix_free > w->now) w->now = w->matrix_free;
    w->matrix_free = w->now + clocks;
    w->busy += clocks;
}

static int number_after(const char *text, const char *what, int otherwise) {
    const char *at = strstr(text, what);
    return at ? atoi(at + strlen(what)) : otherwise;
}

static bool begins(const char *text, const char *with) { return !strncmp(text, with, strlen(with)); }

/* Bytes that an LDS instruction moves a lane: ds_read2st64_b64 is two of 8. */
static int lds_bytes(const char *name) {
    int bits = number_after(name, "_b", 32);
    return bits / 8 * (strstr(name, "read2") || strstr(name, "write2") ? 2 : 1);
}

static int load_bytes(const char *name) { return 4 * number_after(name, "dwordx", 1); }

static void take(wave *w, const char *line) {
    char name[64] = "";
    sscanf(line, "%63s", name);
    if (begins(name, "v_mfma")) multiply(w, name);
    else if (begins(name, "ds_")) serve(w, &w->lds, lds_bytes(name));
    else if (begins(name, "buffer_load") || begins(name, "global_load")) serve(w, &w->cache, load_bytes(name));
    else if (begins(name, "s_waitcnt")) {
        wait_for(w, &w->lds, number_after(line, "lgkmcnt(", QUEUE));
        wait_for(w, &w->cache, number_after(line, "vmcnt(", QUEUE));
    } else if (begins(name, "s_barrier")) w->now += BARRIER;
    else if (begins(name, "s_nop")) w->now += ISSUE * atoi(line + strcspn(line, " "));
    else if (strstr(name, "mul_hi_u32") || strstr(name, "mul_lo_u32") || strstr(name, "mad_u64")) {
        if (*name == 'v') w->now += 3 * ISSUE;
    } else if (begins(name, "s_cbranch")) w->now += BRANCH - ISSUE;
    w->now += ISSUE;
}

/* ---- the loop ---- */

static const char *next_line(const char *line) {
    const char *end = strchr(line, '\n');
    return end ? end + 1 : NULL;
}

static bool is_instruction(const char *line) { return *line == '\t' && line[1] >= 'a' && line[1] <= 'z'; }

typedef struct loop { const char *first, *end; int matrix; } loop;

/* Blocks of code that end with a branch back to the label they begin with; the one with the most matrix
 * instructions. */
static loop find_loop(const char *assembly) {
    loop best = {0}, now = {0};
    char label[32] = "", target[32];
    for (const char *line = assembly; line; line = next_line(line)) {
        if (begins(line, ".LBB")) {
            sscanf(line, "%31[^:]", label);
            now = (loop){.first = next_line(line)};
        } else if (begins(line, "\tv_mfma")) now.matrix++;
        else if (sscanf(line, "\ts_cbranch_%*s %31s", target) == 1) {
            now.end = next_line(line);
            if (now.first && !strcmp(target, label) && now.matrix > best.matrix) best = now;
            *label = 0; /* what follows is another block */
        }
    }
    return best;
}

bool moec_walk_loop(const char *assembly, double rate, moec_walk *out) {
    wave w = {.rate = rate, .lds = {.bytes_a_clock = LDS_RATE, .latency = LDS_LATENCY},
              .cache = {.bytes_a_clock = CACHE_RATE, .latency = CACHE_LATENCY}};
    loop l = find_loop(assembly);
    double began = 0, busy = 0;
    *out = (moec_walk){.matrix = l.matrix};
    if (!l.matrix) return false;
    for (int turn = 0; turn < TURNS; turn++) { /* the last one counts: it has got into step */
        began = w.now, busy = w.busy;
        for (const char *line = l.first; line != l.end; line = next_line(line))
            if (is_instruction(line)) take(&w, line + 1);
    }
    out->clocks = w.now - began;
    out->busy = w.busy - busy;
    return true;
}
