/* Watch: every load and store of a kernel, before it happens.
 *
 * Bounds: an access lies wholly inside LDS, inside one argument's memory (by the shapes of the op table),
 * inside the scratch, or reads constants of the kernel. Races: two accesses of one pair of bytes, one of
 * them a write, need an order between them: a barrier with its fences for different waves of a block, a
 * wavefront fence for different lanes of a wave; different blocks of a launch have none, but for atomics.
 * It does not matter in which order the accesses happened to come: what is unordered is reported.
 * LDS of a block starts as NaN and -1; reading it so is no finding, as copies take padding along. */
#include <inttypes.h>
#include <string.h>
#include <sys/mman.h>

#include "machine.h"

enum { PAIR = 2 }; /* bytes of a cell */

/* ---- areas ---- */

static bool reserve(shim_machine *m) {
    if (m->cells) return true;
    void *p = mmap(NULL, SHIM_CELLS_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p != MAP_FAILED) m->cells = p;
    return p != MAP_FAILED;
}

/* Memory that two arguments name is one area: the first of them, which writes if one does. */
static bool add_area(shim_machine *m, const shim_region *r) {
    size_t cells = (r->bytes + 2 * PAIR) / PAIR;
    uintptr_t low = (uintptr_t)r->base;
    for (int i = 1; i < m->area_count; i++)
        if (low >= m->areas[i].low && low + r->bytes <= m->areas[i].high) return true;
    if ((m->cells_used + cells) * sizeof(cell) > SHIM_CELLS_BYTES) return false;
    m->areas[m->area_count++] = (area){.name = r->name, .low = low, .high = low + r->bytes,
                                       .cells = m->cells + m->cells_used, .writable = r->writable};
    m->cells_used += cells;
    return true;
}

bool watch_begin(shim_machine *m) {
    const shim_image *image = m->launch->image;
    size_t lds = (size_t)(image->lds_end - image->lds);
    m->area_count = 1;
    m->last_area = 0;
    m->areas[0] = (area){.name = "LDS", .low = (uintptr_t)image->lds, .high = (uintptr_t)image->lds_end,
                         .cells = m->lds_cells, .writable = true, .lds = true};
    if (lds > SHIM_LDS_BYTES) {
        shim_report_outside(m, "%zu bytes of LDS, more than the %d there are", lds, SHIM_LDS_BYTES);
        return false;
    }
    m->cells_used = 0;
    for (int i = 0; i < m->launch->region_count; i++)
        if (!reserve(m) || !add_area(m, &m->launch->regions[i])) {
            shim_report_outside(m, "no memory to watch %zu bytes of %s", m->launch->regions[i].bytes,
                           m->launch->regions[i].name);
            return false;
        }
    return true;
}

/* ---- findings ---- */

static const char *verb(int access) { return access == SHIM_READ ? "reads" : access == SHIM_WRITE ? "writes" : "adds to"; }

/* The area nearest to an address that is in none. */
static const area *nearest(const shim_machine *m, uintptr_t p, intptr_t *past) {
    const area *best = NULL;
    uintptr_t least = UINTPTR_MAX;
    for (int i = 0; i < m->area_count; i++) {
        const area *a = &m->areas[i];
        uintptr_t away = p >= a->high ? p - a->high : p < a->low ? a->low - p : 0;
        if (a->high > a->low && away < least) least = away, best = a;
    }
    if (best) *past = (intptr_t)(p - best->low);
    return best;
}

static _Noreturn void outside(shim_machine *m, uintptr_t p, size_t bytes, int access, const void *where) {
    intptr_t at = 0;
    const area *a = nearest(m, p, &at);
    const char *place = name_of_place(m, place_of(m, where)), *who = name_of_thread(m->running);
    if (p < 4096) shim_report(m, "out of bounds: %s %s %zu bytes at address %zu, a null pointer, at %s", who, verb(access),
                         bytes, (size_t)p, place);
    shim_report(m, "out of bounds: %s %s %zu bytes at offset %" PRIdPTR " of %s, which has %zu, at %s", who, verb(access),
           bytes, at, a ? a->name : "nothing", a ? (size_t)(a->high - a->low) : 0, place);
}

typedef struct access_by { uint32_t stamp, at; uint16_t thread; const char *did; } access_by;

static _Noreturn void race(shim_machine *m, const area *a, uintptr_t p, int access, const void *where, access_by o,
                           const char *missing) {
    const char *other = o.stamp < m->block_began ? "another block" : name_of_thread(o.thread);
    shim_report(m, "race on %s at offset %zu: %s %s at %s what %s %s at %s, %s", a->name, (size_t)(p - a->low),
           name_of_thread(m->running), verb(access), name_of_place(m, place_of(m, where)), other, o.did,
           name_of_place(m, o.at), missing);
}

/* ---- order ---- */

/* Since when stamps of an area count: every block has LDS of its own. */
static uint32_t since(const shim_machine *m, const area *a) { return a->lds ? m->block_began : m->launch_began; }

/* What is missing between an earlier access and this one; NULL when they are ordered. */
static const char *unordered(const shim_machine *m, const area *a, uint32_t stamp, int thread) {
    int wave = shim_wave_of(m->running);
    if (stamp < since(m, a)) return NULL;
    if (stamp < m->block_began) return "and blocks of a launch have no order";
    if (stamp < m->barrier_passed) return NULL;
    if (shim_wave_of(thread) != wave) return "without a barrier between";
    if (stamp < m->fence_passed[wave] || thread == m->running) return NULL;
    return "without a wavefront fence between";
}

static const char *unordered_write(const shim_machine *m, const area *a, const cell *c, int access) {
    bool both_atomic = access >= SHIM_ATOMIC && c->write_flags & BY_ATOMIC;
    if (both_atomic && (c->write >= m->block_began || (access == SHIM_ATOMIC_ALL && c->write_flags & BY_ATOMIC_ALL)))
        return NULL;
    if (access < SHIM_ATOMIC && c->write >= m->barrier_passed && c->write_flags & MANY_WAVES)
        return "without a barrier between";
    if (access < SHIM_ATOMIC && c->write >= m->barrier_passed && c->write_flags & MANY_LANES &&
        c->write >= m->fence_passed[shim_wave_of(m->running)])
        return "without a wavefront fence between";
    return unordered(m, a, c->write, c->writer);
}

static const char *unordered_read(const shim_machine *m, const area *a, const cell *c) {
    int wave = shim_wave_of(m->running);
    if (c->read < since(m, a)) return NULL;
    if (c->read_flags & MANY_GROUPS) return "and blocks of a launch have no order";
    if (c->read >= m->barrier_passed && c->read_flags & MANY_WAVES) return "without a barrier between";
    if (c->read >= m->barrier_passed && c->read_flags & MANY_LANES && c->read >= m->fence_passed[wave])
        return "without a wavefront fence between";
    return unordered(m, a, c->read, c->reader);
}

static void note_read(const shim_machine *m, const area *a, cell *c, uint32_t at) {
    uint8_t flags = 0;
    if (c->read >= since(m, a)) {
        flags = c->read_flags & MANY_GROUPS;
        if (c->read < m->block_began) flags |= MANY_GROUPS;
        if (c->read >= m->barrier_passed && c->read >= m->block_began) {
            int wave = shim_wave_of(m->running);
            flags |= c->read_flags & MANY_WAVES;
            if (shim_wave_of(c->reader) != wave) flags |= MANY_WAVES;
            else if (c->read >= m->fence_passed[wave] && (c->reader != m->running || c->read_flags & MANY_LANES))
                flags |= MANY_LANES;
        }
    }
    c->read = m->clock, c->read_at = at, c->reader = (uint16_t)m->running, c->read_flags = flags;
}

/* Several atomics in a row: a plain access later is unordered with the last of them, or another. */
static void note_write(const shim_machine *m, cell *c, uint32_t at, int access) {
    uint8_t flags = access == SHIM_ATOMIC ? BY_ATOMIC : access == SHIM_ATOMIC_ALL ? BY_ATOMIC | BY_ATOMIC_ALL : 0;
    int wave = shim_wave_of(m->running);
    if (flags && c->write_flags & BY_ATOMIC && c->write >= m->barrier_passed) {
        flags |= c->write_flags & MANY_WAVES;
        if (shim_wave_of(c->writer) != wave) flags |= MANY_WAVES;
        else if (c->write >= m->fence_passed[wave] && (c->writer != m->running || c->write_flags & MANY_LANES))
            flags |= MANY_LANES;
    }
    c->write = m->clock, c->write_at = at, c->writer = (uint16_t)m->running, c->write_flags = flags;
}

static void check_cell(shim_machine *m, const area *a, cell *c, uintptr_t p, int access, const void *where) {
    const char *missing = unordered_write(m, a, c, access);
    if (missing) race(m, a, p, access, where, (access_by){c->write, c->write_at, c->writer, "writes"}, missing);
    if (access == SHIM_READ) return;
    missing = unordered_read(m, a, c);
    if (missing) race(m, a, p, access, where, (access_by){c->read, c->read_at, c->reader, "reads"}, missing);
}

/* The common case of a read: whatever was written is ordered, and several waves have read since the last
 * barrier, so that one more changes nothing. Then all is well, and there is nothing to note. */
static bool nothing_new(const shim_machine *m, const area *a, const cell *c) {
    bool ordered = c->write < m->barrier_passed &&
                   (a->lds || c->write < m->launch_began || c->write >= m->block_began);
    return ordered && c->read >= m->barrier_passed && c->read_flags & MANY_WAVES;
}

static void check_area(shim_machine *m, const area *a, uintptr_t p, size_t bytes, int access, const void *where) {
    uint32_t at = place_of(m, where);
    if (access == SHIM_READ && !a->writable) return; /* nobody writes there */
    if (access != SHIM_READ && !a->writable)
        shim_report(m, "%s writes to the input %s at offset %zu, at %s", name_of_thread(m->running), a->name,
               (size_t)(p - a->low), name_of_place(m, at));
    uintptr_t first = a->low / PAIR;
    cell *c = a->cells + (p / PAIR - first), *last = a->cells + ((p + bytes - 1) / PAIR - first);
    for (; c <= last; c++, p += PAIR) {
        if (access == SHIM_READ && nothing_new(m, a, c)) continue;
        check_cell(m, a, c, p, access, where);
        if (access == SHIM_READ) note_read(m, a, c, at);
        else note_write(m, c, at, access);
    }
}

/* A buffer resource reaches no further than the memory it begins in: else what lies past the end would not be
 * dropped, and no access need go there to show it. */
void watch_resource(unsigned long base, unsigned long bytes, const void *where) {
    shim_machine *m = shim_current;
    intptr_t at = 0;
    for (int i = 1; i < m->area_count; i++) {
        const area *a = &m->areas[i];
        if (base >= a->low && base < a->high && bytes <= a->high - base) return;
    }
    if (!bytes) return;
    const area *a = nearest(m, base, &at);
    shim_report(m, "out of bounds: %s makes a buffer resource of %lu bytes at offset %" PRIdPTR " of %s, which has %zu, at %s",
                name_of_thread(m->running), bytes, at, a ? a->name : "nothing", a ? (size_t)(a->high - a->low) : 0,
                name_of_place(m, place_of(m, where)));
}

void watch_access(unsigned long address, unsigned long bytes, int access, const void *where) {
    shim_machine *m = shim_current;
    lane *me = &m->lanes[m->running];
    const shim_image *image = m->launch->image;
    m->counts.accesses++;
    if (!bytes) return;
    for (int i = 0, n = m->last_area; i < m->area_count; i++, n = n + 1 < m->area_count ? n + 1 : 0) {
        const area *a = &m->areas[n];
        if (address < a->low || address >= a->high || bytes > a->high - address) continue;
        if (me->owes & OWES_ACQUIRE)
            shim_report(m, "%s %s %s after a barrier without an acquire fence, at %s", name_of_thread(m->running),
                   verb(access), a->name, name_of_place(m, place_of(m, where)));
        if (access != SHIM_READ) me->owes |= OWES_RELEASE;
        m->last_area = n;
        check_area(m, a, address, bytes, access, where);
        return;
    }
    bool constant = address >= (uintptr_t)image->low && address + bytes <= (uintptr_t)image->high;
    bool beside = address + bytes > (uintptr_t)image->lds && address < (uintptr_t)image->lds_end;
    if (!constant || beside || access != SHIM_READ) outside(m, address, bytes, access, where);
}
