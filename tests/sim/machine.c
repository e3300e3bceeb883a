/* Threads of a block are fibres that take turns where they meet: at barriers, in operations of a warp. One
 * warp runs as far as barriers let it before the next one does, so that a missing barrier is seen.
 *
 * Copies of cp.async happen as late as they may: when their thread waits for their group. A kernel that
 * reads too early finds NaN, or the step before. With SIM_COPIES=early they happen at once, so that one
 * that overwrites too early is found. SIM_WARPS=backwards turns the order of the warps. */
#include "machine.h"

#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <ucontext.h>

enum { STACK_BYTES = 128 << 10, MOST_COPIES = 64, MOST_GROUPS = 8 };

typedef sim_taken copy;
typedef struct group { copy copies[MOST_COPIES]; int count; } group;

typedef struct fibre {
    ucontext_t context;         /* where it begins */
    jmp_buf place;              /* where it goes on, once it has begun */
    char *stack;
    bool begun, ended;
    int met;                    /* operations of the warp so far */
    group groups[MOST_GROUPS];  /* a ring: [first], ..., the open one */
    int first, closed;          /* closed ones; the open one is behind them */
} fibre;

typedef struct warp {
    sim_words brought[2][SIM_WARP]; /* of this operation and the one before: nobody is two behind */
    int there, passed;
} warp;

/* A block of the cluster that runs. */
typedef struct block {
    warp warps[SIM_MOST_THREADS / SIM_WARP];
    int alive, waiting, barriers;
} block;

static fibre fibres[SIM_MOST_CLUSTER * SIM_MOST_THREADS];
static block blocks[SIM_MOST_CLUSTER];
static jmp_buf outside;         /* run_cluster */
int sim_threads;
static long arrivals;           /* of threads: at barriers, at operations of their warp, at their end */
static bool failed;
bool sim_early;
static void (*kernel)(void **);
static void **kernel_params;
unsigned sim_shared_end;
int sim_cluster;
char *sim_shared[SIM_MOST_CLUSTER];

void sim_leave(void) {
    if (!_setjmp(fibres[sim_slot()].place)) _longjmp(outside, 1);
}

/* Lets the thread run until it leaves. */
static void enter(fibre *f) {
    if (_setjmp(outside)) return;
    if (f->begun) _longjmp(f->place, 1);
    f->begun = true;
    setcontext(&f->context);
}

_Noreturn void sim_report(const char *what, unsigned long where) {
    fprintf(stderr, "simulated GPU: %s (%#lx) in block %ld, thread %d\n", what, where, sim_machine.block,
            sim_machine.thread);
    failed = true;
    for (;;) sim_leave();
}

void sim_progress(void) { arrivals++; }

/* ---- addresses in shared memory ---- */

static _Noreturn void report_address(const char *what, const char *fault, unsigned address) {
    char words[120];
    snprintf(words, sizeof words, "%s %s", what, fault);
    sim_report(words, address);
}
unsigned sim_offset(const char *what, unsigned offset, unsigned bytes) {
    if (offset % (bytes && bytes < 16 ? bytes : 16)) report_address(what, "off its alignment", offset);
    if (offset < SIM_SHARED_AT || (unsigned long)offset + bytes > sim_shared_end)
        report_address(what, "outside of shared memory", offset);
    return offset;
}
unsigned sim_own(const char *what, unsigned address, unsigned bytes) {
    if (address >> SIM_RANK_BIT != (unsigned)sim_machine.rank)
        report_address(what, "in shared memory of another block", address);
    return sim_offset(what, address % (1u << SIM_RANK_BIT), bytes);
}
static char *at(unsigned address, unsigned bytes) {
    return sim_machine.shared + sim_own("a load or store", address, bytes);
}
static unsigned address_of(const void *p) {
    size_t offset = (size_t)p - (size_t)sim_machine.shared;
    if (offset < SIM_SHARED_AT || offset > sim_shared_end)
        sim_report("the address of what is not in dynamic shared memory", (size_t)p);
    return (unsigned)offset | (unsigned)sim_machine.rank << SIM_RANK_BIT;
}

/* ---- where threads meet ---- */

static void open_barrier(block *b) {
    b->waiting = 0;
    b->barriers++;
}

static void barrier(void) {
    block *b = &blocks[sim_machine.rank];
    int this_one = b->barriers;
    arrivals++;
    if (++b->waiting == b->alive) open_barrier(b);
    while (b->barriers == this_one) sim_leave();
}

static const sim_words *meet(const unsigned *mine, int count) {
    fibre *f = &fibres[sim_slot()];
    warp *w = &blocks[sim_machine.rank].warps[sim_machine.thread / SIM_WARP];
    int turn = f->met++;
    arrivals++;
    memcpy(w->brought[turn % 2][sim_machine.thread % SIM_WARP], mine, (size_t)count * sizeof *mine);
    if (++w->there == SIM_WARP) w->there = 0, w->passed = turn + 1;
    while (w->passed <= turn) sim_leave();
    return w->brought[turn % 2];
}

/* ---- copies ---- */

static void perform(const copy *c) {
    if (c->bytes) memcpy(sim_machine.shared + c->to, c->from, 16);
    else memset(sim_machine.shared + c->to, 0, 16);
}

static void start_copy(unsigned to, const void *from, int bytes) {
    fibre *f = &fibres[sim_slot()];
    group *open = &f->groups[(f->first + f->closed) % MOST_GROUPS];
    copy c = {sim_own("cp.async", to, 16), from, bytes};
    if (bytes != 0 && bytes != 16) sim_report("cp.async of so many bytes", (unsigned long)bytes);
    if (bytes && ((size_t)from % 16 || !fake_holds(from, 16))) sim_report("cp.async from nowhere", (size_t)from);
    if (open->count == MOST_COPIES) sim_report("too many copies in a group", MOST_COPIES);
    if (sim_early) perform(&c);
    else open->copies[open->count++] = c;
}

int sim_take_copies(sim_taken taken[SIM_MOST_TAKEN]) {
    fibre *f = &fibres[sim_slot()];
    group *open = &f->groups[(f->first + f->closed) % MOST_GROUPS];
    int count = open->count;
    if (count > SIM_MOST_TAKEN) sim_report("too many copies before an arrival", (unsigned long)count);
    memcpy(taken, open->copies, (size_t)count * sizeof *taken);
    open->count = 0;
    return count;
}
void sim_perform_copies(const sim_taken *taken, int count) {
    for (int i = 0; i < count; i++) perform(&taken[i]);
}

static void commit(void) {
    fibre *f = &fibres[sim_slot()];
    if (++f->closed == MOST_GROUPS) sim_report("too many groups of copies", MOST_GROUPS);
    f->groups[(f->first + f->closed) % MOST_GROUPS].count = 0;
}

static void wait(int groups) {
    fibre *f = &fibres[sim_slot()];
    for (; f->closed > groups; f->closed--, f->first = (f->first + 1) % MOST_GROUPS)
        for (int i = 0; i < f->groups[f->first].count; i++) perform(&f->groups[f->first].copies[i]);
}

struct sim_host sim_machine = {.address = address_of, .at = at, .barrier = barrier, .meet = meet, .copy = start_copy,
                               .commit = commit, .wait = wait, .matrices = sim_matrices, .product = sim_product};

/* ---- a grid ---- */

static void thread_main(void) {
    kernel(kernel_params);
    block *b = &blocks[sim_machine.rank];
    fibres[sim_slot()].ended = true;
    arrivals++;
    if (--b->alive && b->waiting == b->alive) open_barrier(b);
    for (;;) sim_leave();
}

static void begin_thread(fibre *f) {
    if (!f->stack) f->stack = malloc(STACK_BYTES);
    f->begun = f->ended = false;
    f->met = f->first = f->closed = f->groups[0].count = 0;
    getcontext(&f->context);
    f->context.uc_stack.ss_sp = f->stack;
    f->context.uc_stack.ss_size = STACK_BYTES;
    makecontext(&f->context, thread_main, 0);
}

/* A warp goes on alone until it can do no more: as far ahead of the others as barriers allow. */
static bool run_warp(int number) {
    long begin = arrivals, before;
    do {
        before = arrivals;
        for (int lane = 0; lane < SIM_WARP && !failed; lane++) {
            sim_machine.thread = number * SIM_WARP + lane;
            if (!fibres[sim_slot()].ended) enter(&fibres[sim_slot()]);
        }
    } while (!failed && arrivals != before);
    return arrivals != begin;
}

/* The running block becomes the one of this rank. */
static void go_to(int rank) {
    sim_machine.block += rank - sim_machine.rank;
    sim_machine.rank = rank;
    sim_machine.shared = sim_shared[rank];
}

static bool some_alive(void) {
    int alive = 0;
    for (int r = 0; r < sim_cluster; r++) alive += blocks[r].alive;
    return alive > 0;
}

static void run_cluster(bool backwards) {
    int count = sim_threads / SIM_WARP;
    while (some_alive() && !failed) {
        bool moved = false;
        for (int r = 0; r < sim_cluster && !failed; r++) {
            go_to(backwards ? sim_cluster - 1 - r : r);
            for (int i = 0; i < count; i++) moved |= run_warp(backwards ? count - 1 - i : i);
        }
        if (moved || failed || !some_alive() || sim_deliver()) continue;
        fprintf(stderr, "simulated GPU: threads of block %ld wait for each other\n", sim_machine.block);
        failed = true;
    }
    if (!failed) failed = !sim_hopper_met();
}

static void begin_cluster(void) {
    for (int r = 0; r < sim_cluster; r++) {
        memset(sim_shared[r], 0xff, sim_shared_end); /* NaN, -1 */
        memset(&blocks[r], 0, sizeof blocks[r]);
        blocks[r].alive = sim_threads;
        for (int t = 0; t < sim_threads; t++) begin_thread(&fibres[r * SIM_MOST_THREADS + t]);
    }
    sim_hopper_begin();
    sim_machine.rank = 0;
}

bool sim_run(void (*entry)(void **), void **params, long grid, int cluster, int threads, unsigned shared_bytes) {
    const char *copies = getenv("SIM_COPIES"), *order = getenv("SIM_WARPS");
    sim_early = copies && !strcmp(copies, "early");
    kernel = entry, kernel_params = params;
    sim_machine.blocks = grid;
    sim_threads = threads, sim_cluster = cluster;
    sim_shared_end = SIM_SHARED_AT + shared_bytes;
    failed = threads > SIM_MOST_THREADS || cluster > SIM_MOST_CLUSTER || grid % cluster;
    for (int r = 0; r < cluster && !failed; r++) {
        sim_shared[r] = aligned_alloc(1024, sim_shared_end / 1024 * 1024 + 1024);
        failed = !sim_shared[r];
    }
    for (long first = 0; first < grid && !failed; first += cluster) {
        begin_cluster();
        sim_machine.block = first;
        run_cluster(order && !strcmp(order, "backwards"));
    }
    for (int r = 0; r < cluster && r < SIM_MOST_CLUSTER; r++) free(sim_shared[r]), sim_shared[r] = NULL;
    return !failed;
}
