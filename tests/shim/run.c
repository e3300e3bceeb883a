/* Runs a grid: block after block; in a block, wave after wave until all wait at a barrier or have ended. */
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "machine.h"

shim_machine *shim_current;

shim_machine *shim_new(void) {
    shim_machine *m = calloc(1, sizeof *m);
    if (!m) return NULL;
    m->host = (shim_host){.access = watch_access, .resource = watch_resource, .meet = wave_meet,
                          .fence = wave_fence, .barrier = wave_barrier,
                          .fault = shim_fault, .exp = number_exp, .exp2 = number_exp2, .log = number_log, .log2 = number_log2};
    m->clock = 1;
    if (fibre_stacks_make(m)) return m;
    free(m);
    return NULL;
}

void shim_free(shim_machine *m) {
    if (!m) return;
    if (m->cells) munmap(m->cells, SHIM_CELLS_BYTES);
    fibre_stacks_free(m);
    free(m);
}

const char *shim_finding(const shim_machine *m) { return m->finding; }
shim_counts shim_counted(const shim_machine *m) { return m->counts; }

void shim_lane_begin(void) {
    shim_machine *m = shim_current;
    fibre_call(m->launch->entry, m->launch->args, m->launch->arg_count);
    m->lanes[m->running].state = LANE_ENDED;
    wave_leave(m);
    __builtin_unreachable();
}

/* ---- order ---- */

/* A permutation of 0 .. n-1: multiples of a prime step that does not divide n, from some place on. */
static uint32_t nth(uint32_t i, uint32_t n, unsigned seed) {
    static const uint32_t primes[] = {1, 7, 11, 13, 17, 19, 23, 29};
    uint32_t step = primes[seed % 8];
    if (step > 1 && n % step == 0) step = 1;
    return (i * step + seed / 8) % n;
}

/* ---- a block ---- */

static void begin_block(shim_machine *m, uint32_t group) {
    const shim_image *image = m->launch->image;
    m->host.group[0] = group;
    memset(image->lds, 0xff, (size_t)(image->lds_end - image->lds));   /* NaN, -1 */
    m->block_began = m->barrier_passed = ++m->clock;
    for (uint32_t w = 0; w < m->wave_count; w++) m->fence_passed[w] = m->clock;
    for (uint32_t t = 0; t < m->wave_count * SHIM_LANES; t++) {
        m->lanes[t] = (lane){.state = t < m->launch->threads ? LANE_RUNS : LANE_ENDED};
        if (t < m->launch->threads) fibre_prepare(m, (int)t);
    }
}

/* Lets a wave run until no lane of it can. Lanes begin in an order by seed. */
static void run_wave(shim_machine *m, uint32_t wave) {
    for (uint32_t i = 0; i < SHIM_LANES && !m->found; i++) {
        uint32_t t = wave * SHIM_LANES + nth(i, SHIM_LANES, m->launch->seed);
        if (m->lanes[t].state != LANE_RUNS) continue;
        m->running = (int)t;
        m->host.thread[0] = t;
        fibre_switch(&m->scheduler, m->lanes[t].stack);
        return; /* it came back when the whole wave waited */
    }
}

static int threads_in(const shim_machine *m, int state, int *one) {
    int n = 0;
    for (uint32_t t = 0; t < m->launch->threads; t++)
        if (m->lanes[t].state == state) n++, *one = (int)t;
    return n;
}

static bool same_barrier_in_waves(shim_machine *m) {
    for (uint32_t t = 1; t < m->launch->threads; t++)
        if (t % SHIM_LANES && m->lanes[t].where != m->lanes[t - 1].where) {
            shim_report_outside(m, "lanes of a wave wait at two barriers: %s at %s, the next at %s", name_of_thread((int)t - 1),
                           name_of_place(m, place_of(m, m->lanes[t - 1].where)),
                           name_of_place(m, place_of(m, m->lanes[t].where)));
            return false;
        }
    return true;
}

/* All threads wait at a barrier, or have ended. True when there is more to run. */
static bool pass_barrier(shim_machine *m) {
    int ended = 0, waiting = 0;
    if (m->found || !threads_in(m, LANE_AT_BARRIER, &waiting)) return false;
    if (threads_in(m, LANE_ENDED, &ended)) {
        shim_report_outside(m, "a barrier that not all threads reach: %s waits at %s, %s has ended", name_of_thread(waiting),
                       name_of_place(m, place_of(m, m->lanes[waiting].where)), name_of_thread(ended));
        return false;
    }
    if (!same_barrier_in_waves(m)) return false;
    for (uint32_t t = 0; t < m->launch->threads; t++) m->lanes[t].state = LANE_RUNS;
    m->barrier_passed = ++m->clock;
    m->counts.barriers++;
    return true;
}

static void run_block(shim_machine *m, uint32_t group) {
    begin_block(m, group);
    do
        for (uint32_t i = 0; i < m->wave_count && !m->found; i++) run_wave(m, nth(i, m->wave_count, m->launch->seed));
    while (pass_barrier(m));
}

/* ---- a grid ---- */

/* Stamps of 32 bits last for billions of barriers; then all cells are forgotten. */
static void begin_time(shim_machine *m) {
    if (m->clock > 3000000000u) {
        memset(m->lds_cells, 0, sizeof m->lds_cells);
        if (m->cells) madvise(m->cells, SHIM_CELLS_BYTES, MADV_DONTNEED);
        m->clock = 1;
    }
    m->launch_began = ++m->clock;
}

bool shim_run(shim_machine *m, const shim_launch *launch) {
    m->launch = launch;
    m->found = false;
    m->finding[0] = 0;
    m->wave_count = (launch->threads + SHIM_LANES - 1) / SHIM_LANES;
    m->host.group[0] = 0;
    if (!launch->threads || launch->threads > SHIM_MOST_THREADS || launch->region_count > SHIM_MOST_REGIONS) {
        shim_report_outside(m, "a launch of %u threads a block with %d buffers", launch->threads, launch->region_count);
        return false;
    }
    shim_current = m;
    *launch->image->host = &m->host;
    begin_time(m);
    if (!watch_begin(m)) return false;
    for (uint32_t i = 0; i < launch->groups && !m->found; i++) run_block(m, i);
    return !m->found;
}
