/* Waves: where lanes meet.
 *
 * A lane that reaches a wave operation waits, and the next lane of the wave runs. When none can run, the
 * lanes that wait in one operation, at one place in the code, are its active lanes: it is done for all of
 * them and they go on. Lanes that ended, or wait at a barrier, take no part. Lanes that wait in two
 * different operations mean that the operation is reached under a condition that differs between lanes
 * while others are in another one: no order between them is right on every machine, so that is a finding. */
#include <string.h>

#include "machine.h"


static void resume(shim_machine *m, int thread) {
    m->running = thread;
    m->host.thread[0] = (unsigned)thread;
}

/* Bit l: lane l of the wave is in `state`. */
static uint64_t lanes_in(const shim_machine *m, int wave, int state) {
    uint64_t mask = 0;
    const lane *first = m->lanes + wave * SHIM_LANES;
    for (int l = 0; l < SHIM_LANES; l++) mask |= (uint64_t)(first[l].state == state) << l;
    return mask;
}

static void check_one_place(shim_machine *m, int wave, uint64_t active) {
    const lane *first = m->lanes + wave * SHIM_LANES;
    int a = __builtin_ctzll(active);
    for (int l = a + 1; l < SHIM_LANES; l++) {
        if (!(active >> l & 1) || first[l].where == first[a].where) continue;
        shim_report(m, "lanes of a wave are apart: %s is in the wave operation at %s",
               name_of_thread(wave * SHIM_LANES + a), name_of_place(m, place_of(m, first[a].where)));
    }
}

/* Does what the wave's lanes wait for; false when none waits in an operation. */
static bool complete(shim_machine *m, int wave) {
    uint64_t active = lanes_in(m, wave, LANE_MEETS);
    lane *first = m->lanes + wave * SHIM_LANES;
    if (!active) return false;
    check_one_place(m, wave, active);
    m->counts.meetings++;
    lanes_exchange(m, wave, active);
    for (int l = 0; l < SHIM_LANES; l++)
        if (active >> l & 1) first[l].state = LANE_RUNS;
    return true;
}

/* The next lane of the wave that can run, from the one after `thread` on; -1: none. */
static int next_lane(const shim_machine *m, int thread) {
    int base = thread - thread % SHIM_LANES;
    for (int i = 1; i <= SHIM_LANES; i++) {
        int t = base + (thread + i) % SHIM_LANES;
        if (m->lanes[t].state == LANE_RUNS) return t;
    }
    return -1;
}

void wave_leave(shim_machine *m) {
    int from = m->running, to = next_lane(m, from);
    if (to < 0 && complete(m, shim_wave_of(from))) to = next_lane(m, from);
    if (to == from) return;
    if (to >= 0) resume(m, to);
    fibre_switch(&m->lanes[from].stack, to < 0 ? m->scheduler : m->lanes[to].stack);
}

void wave_meet(struct shim_operands *operands) {
    shim_machine *m = shim_current;
    lane *me = &m->lanes[m->running];
    me->operands = operands;
    me->where = operands->where;
    me->state = LANE_MEETS;
    wave_leave(m);
}

/* ---- memory order ---- */

/* Between lanes of a wave, a fence of the wavefront that all of them pass. Towards other waves: release
 * before the barrier, acquire after it. */
void wave_fence(int order, const char *scope, const void *where) {
    shim_machine *m = shim_current;
    lane *me = &m->lanes[m->running];
    bool both = order == __ATOMIC_ACQ_REL || order == __ATOMIC_SEQ_CST;
    bool wide = strcmp(scope, "wavefront") && strcmp(scope, "singlethread");
    if (wide && (both || order == __ATOMIC_RELEASE)) me->owes &= (uint8_t)~OWES_RELEASE;
    if (wide && (both || order == __ATOMIC_ACQUIRE)) me->owes &= (uint8_t)~OWES_ACQUIRE;
    if (!both || !strcmp(scope, "singlethread")) return;
    struct shim_operands o = {.op = SHIM_SYNC, .where = where};
    wave_meet(&o);
}

void wave_barrier(const void *where) {
    shim_machine *m = shim_current;
    lane *me = &m->lanes[m->running];
    if (me->owes & OWES_RELEASE)
        shim_report(m, "a barrier without a release fence before it: writes of %s may not have arrived, at %s",
               name_of_thread(m->running), name_of_place(m, place_of(m, where)));
    me->where = where;
    me->state = LANE_AT_BARRIER;
    wave_leave(m);
    me->owes |= OWES_ACQUIRE;
}
