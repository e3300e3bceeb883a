/* What only Hopper has: mbarriers, the copy engine's boxes, wgmma by the tables of the PTX ISA, barriers of some
 * of a block's threads.
 *
 * Asynchronous work happens as late as it may: a product when its thread waits for its group, a copy when no
 * thread can go on without it, or at once with SIM_COPIES=early. A kernel that reads too early finds other
 * numbers; one that lets go of a stage too early does so with early copies.
 *
 * Not here: fences between proxies and of barriers' birth, setmaxnreg, waits for the kernel before. Who leaves
 * one out is not found. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "machine.h"

enum { MOST_BOXES = 4096, MOST_PRODUCTS = 64, MOST_NAMED = 16, MOST_OUT = 8 };

/* ---- mbarriers ---- */

typedef struct mbarrier { unsigned short expected, pending; int state; } mbarrier; /* state: bytes to come * 2 + phase */

/* At an offset in the block that sim_machine.shared is of; at an address of the running block. */
static mbarrier *bar_at(unsigned offset) {
    return (mbarrier *)(void *)(sim_machine.shared + sim_offset("mbarrier", offset, 8));
}
static mbarrier *own_bar(unsigned bar) { return bar_at(sim_own("mbarrier", bar, 8)); }
static void turn(mbarrier *b) {
    if (b->pending || b->state >> 1) return;
    b->state ^= 1;
    b->pending = b->expected;
}
static void bar_init(unsigned bar, unsigned arrivals) {
    *own_bar(bar) = (mbarrier){(unsigned short)arrivals, (unsigned short)arrivals, 0};
}
static void arrive(unsigned offset) {
    mbarrier *b = bar_at(offset);
    if (!b->pending) sim_report("one arrival too many", offset);
    b->pending--;
    turn(b);
    sim_progress();
}
static void bar_arrive(unsigned bar) { arrive(sim_own("mbarrier", bar, 8)); }
static void bar_arrive_in(unsigned bar, unsigned rank) { /* mapa takes an address of the block's own */
    char *own = sim_machine.shared;
    const unsigned offset = sim_own("mbarrier", bar, 8);
    if ((int)rank >= sim_cluster) sim_report("a barrier of no block of the cluster", rank);
    sim_machine.shared = sim_shared[rank];
    arrive(offset);
    sim_machine.shared = own;
}
static void bar_expect(unsigned bar, unsigned bytes) {
    own_bar(bar)->state += (int)bytes * 2;
    bar_arrive(bar);
}
static void bar_wait(unsigned bar, unsigned parity) {
    mbarrier *b = own_bar(bar);
    if ((unsigned)(b->state & 1) != parity) return;
    while ((unsigned)(b->state & 1) == parity) sim_leave();
    sim_progress();
}

/* ---- the copy engine ---- */

/* On its way in: a box, plain bytes, or (map and from NULL) a thread's copies with the arrival behind them. */
typedef struct box {
    int rank; /* of the block that gets it */
    unsigned to, bar, bytes; /* offsets in its window */
    const void *from;
    const struct sim_map *map;
    long at[4];
    sim_taken copies[SIM_MOST_TAKEN];
    int count;
} box;
static box boxes[MOST_BOXES];
static int boxes_waiting;

/* 128-byte swizzle: 16-byte chunk of a row of 128 bytes by the row's number. */
static unsigned swizzled(unsigned address) { return address ^ (address >> 7 & 7) << 4; }

/* Where an element is, by arithmetic modulo 2^64; NULL outside of the tensor. */
static char *element_at(const struct sim_map *m, const long at[4]) {
    unsigned long offset = (unsigned long)at[0] * 2;
    for (int i = 0; i < 4 && (!i || m->dim[i]); i++) {
        if (at[i] < 0 || (unsigned long)at[i] >= m->dim[i]) return NULL;
        if (i) offset += (unsigned long)at[i] * m->stride[i - 1];
    }
    return (char *)((unsigned long)m->base + offset);
}

static unsigned depth(const struct sim_map *m, int i) { return m->box[i] ? m->box[i] : 1; }
/* Rows of 64 columns in a box, over all dimensions but the first. */
static unsigned rows_of(const struct sim_map *m) { return depth(m, 1) * depth(m, 2) * depth(m, 3); }

/* A box, 16 bytes at a time, in or out. */
static void copy_box(const struct sim_map *m, unsigned shared, const long first[4], bool out) {
    for (unsigned r = 0; r < rows_of(m); r++)
        for (unsigned c = 0; c < m->box[0]; c += 8) {
            char *here = sim_machine.shared + swizzled(shared + r * 128 + c * 2);
            const long at[4] = {first[0] + (long)c, first[1] + (long)(r % depth(m, 1)),
                                first[2] + (long)(r / depth(m, 1) % depth(m, 2)),
                                first[3] + (long)(r / depth(m, 1) / depth(m, 2))};
            char *there = element_at(m, at);
            if (there && !fake_holds(there, 16)) sim_report("a box of what nobody has", shared);
            if (out && there) memcpy(there, here, 16);
            else if (there) memcpy(here, there, 16);
            else if (!out) memset(here, 0, 16);
        }
}
static void perform_here(const box *b) {
    mbarrier *bar = bar_at(b->bar);
    if (b->map) copy_box(b->map, b->to, b->at, false);
    else if (b->from) memcpy(sim_machine.shared + b->to, b->from, b->bytes);
    else {
        sim_perform_copies(b->copies, b->count);
        arrive(b->bar);
        return;
    }
    bar->state -= (int)b->bytes * 2;
    /* In a cluster bytes may come before they are expected, but not after all that do expect. */
    if (bar->state < 0 && !bar->pending) sim_report("more bytes than expected", b->bar);
    turn(bar);
    sim_progress();
}
static void perform(const box *b) {
    char *own = sim_machine.shared;
    sim_machine.shared = sim_shared[b->rank];
    perform_here(b);
    sim_machine.shared = own;
}
static void start(const box *b) {
    if (boxes_waiting == MOST_BOXES) sim_report("too many copies in flight", MOST_BOXES);
    if (sim_early) perform(b);
    else boxes[boxes_waiting++] = *b;
}
/* Addresses of shared::cluster: the rank in them says which block gets the bytes, and counts them. */
static box goal(unsigned to, unsigned bytes, unsigned bar) {
    const unsigned rank = to >> SIM_RANK_BIT, below = (1u << SIM_RANK_BIT) - 1;
    if ((int)rank >= sim_cluster) sim_report("a copy into no block of the cluster", to);
    if (bar >> SIM_RANK_BIT != rank) sim_report("a copy that counts in another block", bar);
    return (box){.rank = (int)rank, .to = sim_offset("a copy", to & below, bytes), .bytes = bytes,
                 .bar = sim_offset("mbarrier", bar & below, 8)};
}
static void check_box(unsigned shared, const struct sim_map *m) {
    const unsigned unit = rows_of(m) == 1 ? 128 : 1024; /* the swizzle goes by the address: seen with boxes of one row */
    if (shared % unit || m->box[0] != 64) sim_report("a swizzled box begins on 1024 bytes, 64 columns wide", shared);
}
static void copy_start(unsigned to, const void *map, unsigned bar, int c0, int c1, int c2, int c3, int all) {
    const struct sim_map *m = map;
    check_box(to, m);
    box b = goal(to, rows_of(m) * 128, bar);
    b.map = m;
    memcpy(b.at, (const long[4]){c0, c1, c2, c3}, sizeof b.at);
    if (!all) start(&b);
    for (b.rank = 0; all && b.rank < sim_cluster; b.rank++) start(&b);
}
static void bar_arrive_after_copies(unsigned bar) {
    box b = {.rank = sim_machine.rank, .bar = sim_own("mbarrier", bar, 8)};
    b.count = sim_take_copies(b.copies);
    start(&b);
}
static void bulk(unsigned to, const void *from, unsigned bytes, unsigned bar) {
    box b = goal(to, bytes, bar);
    if (bytes % 16 || (size_t)from % 16 || !fake_holds(from, bytes)) sim_report("bulk copy", to);
    b.from = from;
    start(&b);
}

/* The oldest; arrivals behind copies come in crowds. */
bool sim_deliver(void) {
    if (!boxes_waiting) return false;
    int count = 0;
    do perform(&boxes[count++]);
    while (count < boxes_waiting && boxes[count - 1].count && boxes[count].count);
    boxes_waiting -= count;
    memmove(boxes, boxes + count, (size_t)boxes_waiting * sizeof *boxes);
    return true;
}

/* On the way out: a box leaves when its thread waits until it has been read, as late as it may. */
static struct { struct { unsigned from; const struct sim_map *map; long at[4]; int group; } list[MOST_OUT]; int count, open; }
    leaving[SIM_MOST_CLUSTER * SIM_MOST_THREADS];

static void box_wait(int groups) {
    int t = sim_slot(), done = 0;
    while (done < leaving[t].count && leaving[t].list[done].group < leaving[t].open - groups) {
        copy_box(leaving[t].list[done].map, leaving[t].list[done].from, leaving[t].list[done].at, true);
        done++;
    }
    leaving[t].count -= done;
    memmove(leaving[t].list, leaving[t].list + done, (size_t)leaving[t].count * sizeof *leaving[t].list);
}
static void box_out(unsigned from, const void *map, int c0, int c1, int c2, int c3) {
    int t = sim_slot(), n = leaving[t].count++;
    check_box(from, map);
    from = sim_own("a box", from, rows_of(map) * 128);
    if (n == MOST_OUT) sim_report("too many boxes on their way out", MOST_OUT);
    leaving[t].list[n].from = from, leaving[t].list[n].map = map, leaving[t].list[n].group = leaving[t].open;
    memcpy(leaving[t].list[n].at, (const long[4]){c0, c1, c2, c3}, sizeof leaving[t].list[n].at);
}
static void box_commit(void) {
    leaving[sim_slot()].open++;
    if (sim_early) box_wait(0);
}

/* ---- wgmma ---- */

typedef struct product {
    float *d;
    unsigned long a, b;
    unsigned registers[SIM_WARP][4];
    unsigned keep;
    int sums, a_columns, b_columns, from_registers, group;
} product;
static struct { product *list; int count, open; } queues[SIM_MOST_CLUSTER * SIM_MOST_THREADS];

static float bf16_at(unsigned address) {
    unsigned short half;
    float v;
    if (address < SIM_SHARED_AT || address + 2 > sim_shared_end)
        sim_report("wgmma reads outside of shared memory", address);
    memcpy(&half, sim_machine.shared + address, 2);
    unsigned bits = (unsigned)half << 16;
    memcpy(&v, &bits, 4);
    return v;
}
/* A descriptor's fields: start 0-13, leading offset 16-29, stride 32-45, base offset 49-51, swizzle 62-63. K-major
 * rows of 128 bytes have no leading offset: it is 1 (PTX ISA, matrix descriptor). */
static void check_descriptor(unsigned long descriptor, int columns) {
    const unsigned long fields = 0x3fffUL | 0x3fffUL << 16 | 0x3fffUL << 32 | 7UL << 49 | 3UL << 62;
    if (descriptor & ~fields) sim_report("a wgmma descriptor with bits outside of its fields", descriptor);
    if (descriptor >> 62 != 1) sim_report("wgmma without 128-byte swizzle", descriptor);
    if (descriptor >> 49 & 7) sim_report("wgmma with rows that begin between 1024 bytes", descriptor);
    if (!columns && (descriptor >> 16 & 0x3fff) != 1) sim_report("a K-major wgmma descriptor leads on", descriptor);
}
/* Element (line, k) of an operand: lines are rows of A, columns of B. */
static float element(unsigned long descriptor, int columns, int line, int k) {
    unsigned start = (unsigned)(descriptor & 0x3fff) << 4, leading = (unsigned)(descriptor >> 16 & 0x3fff) << 4;
    unsigned stride = (unsigned)(descriptor >> 32 & 0x3fff) << 4;
    unsigned l = (unsigned)line, d = (unsigned)k;
    if (columns) return bf16_at(swizzled(start + l / 64 * leading + d / 8 * stride + d % 8 * 128 + l % 64 * 2));
    return bf16_at(swizzled(start + l / 8 * stride + l % 8 * 128 + d * 2));
}
static float from_lane(const product *p, int row, int k) { /* of this warp's 16 rows */
    unsigned pair = p->registers[row % 8 * 4 + k % 8 / 2][row / 8 + k / 8 * 2];
    unsigned bits = k % 2 ? pair & 0xffff0000u : pair << 16;
    float v;
    memcpy(&v, &bits, 4);
    return v;
}
static void multiply(const product *p) {
    int lane = sim_machine.thread % SIM_WARP, warp = sim_machine.thread / SIM_WARP % 4;
    float a[2][16];
    for (int i = 0; i < 2; i++)
        for (int k = 0; k < 16; k++) {
            int row = lane / 4 + 8 * i;
            a[i][k] = p->from_registers ? from_lane(p, row, k) : element(p->a, p->a_columns, warp * 16 + row, k);
        }
    for (int j = 0; j < p->sums; j++) {
        int column = j / 4 * 8 + lane % 4 * 2 + j % 2;
        double sum = p->keep ? p->d[j] : 0;
        for (int k = 0; k < 16; k++) sum += (double)a[j / 2 % 2][k] * (double)element(p->b, p->b_columns, column, k);
        p->d[j] = (float)sum;
    }
}
static void mma(float *d, int sums, unsigned long a, const unsigned *registers, unsigned long b, unsigned keep,
                int a_columns, int b_columns) {
    const unsigned none[4] = {0};
    int thread = sim_slot();
    if (!registers) check_descriptor(a, a_columns);
    check_descriptor(b, b_columns);
    if (!queues[thread].list) queues[thread].list = malloc(MOST_PRODUCTS * sizeof(product));
    if (queues[thread].count == MOST_PRODUCTS) sim_report("too many products in flight", MOST_PRODUCTS);
    product p = {.d = d, .a = a, .b = b, .keep = keep, .sums = sums, .a_columns = a_columns, .b_columns = b_columns,
                 .from_registers = registers != NULL, .group = queues[thread].open};
    const sim_words *all = sim_machine.meet(registers ? registers : none, 4);
    for (int l = 0; l < SIM_WARP; l++) memcpy(p.registers[l], all[l], sizeof p.registers[l]);
    queues[thread].list[queues[thread].count++] = p;
}
static void mma_commit(void) { queues[sim_slot()].open++; }
static void mma_wait(int groups) {
    int thread = sim_slot(), done = 0;
    product *list = queues[thread].list;
    while (done < queues[thread].count && list[done].group < queues[thread].open - groups) multiply(&list[done++]);
    queues[thread].count -= done;
    if (done) memmove(list, list + done, (size_t)queues[thread].count * sizeof *list);
}

/* stmatrix x4: lane l gives the address of line l % 8 of block l / 8, and has numbers 2(l%4) + 0,1 of line l / 4;
 * transposed, number l / 4 of lines 2(l%4) + 0,1. */
static void store_matrices(unsigned address, const unsigned v[4], int transposed) {
    const unsigned mine[5] = {sim_own("stmatrix", address, 16), v[0], v[1], v[2], v[3]};
    const sim_words *all = sim_machine.meet(mine, 5);
    int l = sim_machine.thread % SIM_WARP;
    for (int block = 0; block < 4; block++)
        for (int i = 0; i < 2; i++) {
            int line = transposed ? l % 4 * 2 + i : l / 4, place = transposed ? l / 4 : l % 4 * 2 + i;
            memcpy(sim_machine.shared + all[block * 8 + line][0] + 2 * place, (const char *)&v[block] + 2 * i, 2);
        }
}

/* ---- barriers of some threads ---- */

typedef struct named_barrier { int there, opened; unsigned any[2]; } named_barrier;
static named_barrier all_named[SIM_MOST_CLUSTER][MOST_NAMED];

static unsigned meet_some(int id, int threads, int stay, unsigned yes) {
    named_barrier *named = all_named[sim_machine.rank];
    if (id < 1 || id >= MOST_NAMED) sim_report("a barrier that is not there", (unsigned long)id);
    int this_one = named[id].opened;
    named[id].any[this_one % 2] |= yes;
    sim_progress();
    if (++named[id].there == threads) {
        named[id].there = 0;
        named[id].any[++named[id].opened % 2] = 0;
    }
    while (stay && named[id].opened == this_one) sim_leave();
    return named[id].any[this_one % 2];
}

bool sim_hopper_met(void) {
    for (int r = 0; r < sim_cluster; r++)
        for (int id = 1; id < MOST_NAMED; id++) {
            if (!all_named[r][id].there) continue;
            fprintf(stderr, "simulated GPU: %d threads of block %ld arrived at barrier %d, and nobody waits there\n",
                    all_named[r][id].there, sim_machine.block - sim_machine.rank + r, id);
            return false;
        }
    return true;
}

/* All threads of a cluster; nobody ends before the last one of these. */
static int cluster_there, clusters_met, met_before[SIM_MOST_CLUSTER * SIM_MOST_THREADS];
static void cluster_arrive(void) {
    met_before[sim_slot()] = clusters_met;
    sim_progress();
    if (++cluster_there == sim_cluster * sim_threads) cluster_there = 0, clusters_met++;
}
static void cluster_wait(void) {
    while (clusters_met == met_before[sim_slot()]) sim_leave();
}

static void missing(const char *name) {
    fprintf(stderr, "simulated GPU: no %s\n", name);
    sim_report("an instruction that is not known here", 0);
}

void sim_hopper_begin(void) { /* of a cluster */
    sim_machine.bar_init = bar_init, sim_machine.bar_arrive = bar_arrive, sim_machine.bar_arrive_in = bar_arrive_in;
    sim_machine.cluster_arrive = cluster_arrive, sim_machine.cluster_wait = cluster_wait;
    sim_machine.bar_expect = bar_expect, sim_machine.bar_wait = bar_wait;
    sim_machine.bar_arrive_after_copies = bar_arrive_after_copies;
    sim_machine.box = copy_start, sim_machine.bulk = bulk;
    sim_machine.box_out = box_out, sim_machine.box_commit = box_commit, sim_machine.box_wait = box_wait;
    sim_machine.mma = mma, sim_machine.mma_commit = mma_commit, sim_machine.mma_wait = mma_wait;
    sim_machine.store_matrices = store_matrices, sim_machine.meet_some = meet_some, sim_machine.missing = missing;
    boxes_waiting = 0;
    memset(all_named, 0, sizeof all_named);
    cluster_there = clusters_met = 0;
    for (int t = 0; t < SIM_MOST_CLUSTER * SIM_MOST_THREADS; t++) queues[t].count = queues[t].open = leaving[t].count = leaving[t].open = 0;
}
