// See needed.h. Traces are kept whole: one event per executed instruction with the accesses it made.
// Groups run one after another, so the events of a group are a contiguous range.
#include "needed.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { WORDS = 10, MAX_OUT = 64, VM_MOST = 63, LGKM_MOST = 15 }; // registers: s at 0, v at 128, a at 384
enum { GRANULE = 2, MAX_WAVES = 16 }; // bytes: no element of a buffer or of LDS is smaller
enum what { OTHER, VMEM, DS, DS_LANE, SMEM, WAIT, BARRIER };

typedef struct bits { uint64_t w[WORDS]; } bits;
struct names { // registers an instruction names beside those it loads into, and these
    bits others, result;
    enum what what;
    int vm, lgkm;
};
struct touch {
    uint64_t at;
    uint8_t bytes, how;
    bool lds;
};
struct event {
    uint32_t group, inst, touch;
    uint16_t epoch; // barriers the wave had passed
    uint8_t wave;
};
struct needed {
    const gcn_object *object;
    size_t n;
    struct names *in;
    int *of_address; // address / 4 -> index + 1
    size_t addresses;
    gcn_trace trace;
    struct event *event;
    struct touch *touch;
    size_t events, touches, event_room, touch_room;
    uint32_t group, id[3];
    uint16_t passed[MAX_WAVES];
    bool *executed;
    bool broken; // out of memory
};

// ---- what instructions name ----

static void set(bits *b, int lo, int hi)
{
    for (int i = lo; i <= hi && i < 64 * WORDS; i++)
        b->w[i / 64] |= (uint64_t)1 << i % 64;
}
static bool meet(const bits *a, const bits *b)
{
    uint64_t any = 0;
    for (int i = 0; i < WORDS; i++)
        any |= a->w[i] & b->w[i];
    return any;
}
static bits join(bits a, const bits *b)
{
    for (int i = 0; i < WORDS; i++)
        a.w[i] |= b->w[i];
    return a;
}

static bool begins(const char *text, const char *with)
{
    return !strncmp(text, with, strlen(with));
}

static enum what what_of(const char *text)
{
    static const struct { const char *prefix; enum what what; } list[] = {
        {"s_waitcnt ", WAIT}, {"s_barrier", BARRIER}, {"s_load", SMEM}, {"s_buffer_load", SMEM},
        {"s_memtime", SMEM}, {"ds_bpermute", DS_LANE}, {"ds_permute", DS_LANE},
        {"ds_swizzle", DS_LANE}, {"ds_", DS}, {"global_", VMEM}, {"buffer_", VMEM},
        {"scratch_", VMEM}, {"flat_", VMEM},
    };
    for (size_t i = 0; i < sizeof list / sizeof *list; i++)
        if (begins(text, list[i].prefix))
            return list[i].what;
    return OTHER;
}

// Is the first operand what the instruction loads into?
static bool loads(const char *text, enum what what)
{
    bool atomic = strstr(text, "_atomic_");
    if (what == SMEM || what == DS_LANE)
        return true;
    if (what == DS)
        return begins(text, "ds_read") || strstr(text, "_rtn");
    return what == VMEM && (atomic ? strstr(text, " glc") || strstr(text, " sc0") : strstr(text, "_load") != NULL);
}

static void read_registers(const char *text, bool load, struct names *x)
{
    bool first = true;
    for (const char *p = text + strcspn(text, " "); *p; p++) {
        bool start = !isalnum((unsigned char)p[-1]) && p[-1] != '_';
        int base = *p == 's' ? 0 : *p == 'v' ? 128 : *p == 'a' ? 384 : -1, lo, hi;
        if (*p == ',')
            first = false;
        if (!start || base < 0)
            continue;
        if (begins(p, "vcc"))
            lo = 106, hi = 107, base = 0;
        else if (sscanf(p + 1, "[%d:%d]", &lo, &hi) != 2) {
            if (!isdigit((unsigned char)p[1]))
                continue;
            lo = hi = atoi(p + 1);
        }
        set(first && load ? &x->result : &x->others, base + lo, base + hi);
    }
}

static void read_names(const char *text, struct names *x)
{
    const char *v = strstr(text, "vmcnt("), *l = strstr(text, "lgkmcnt(");
    memset(x, 0, sizeof *x);
    x->what = what_of(text);
    x->vm = v && x->what == WAIT ? atoi(v + 6) : VM_MOST;
    x->lgkm = l && x->what == WAIT ? atoi(l + 8) : LGKM_MOST;
    if (x->what != WAIT)
        read_registers(text, loads(text, x->what), x);
}

// ---- recording ----

static bool grow(void **p, size_t *room, size_t count, size_t each)
{
    if (count < *room)
        return true;
    size_t more = *room ? 2 * *room : 4096;
    void *q = realloc(*p, more * each);
    if (!q)
        return false;
    *p = q;
    *room = more;
    return true;
}

static void record_begin(void *user)
{
    needed *n = user;
    memset(n->id, 255, sizeof n->id); // the next group is a new one, whatever its number
}

static void record_step(void *user, const uint32_t id[3], int wave, uint64_t address)
{
    needed *n = user;
    if (memcmp(n->id, id, sizeof n->id)) {
        memcpy(n->id, id, sizeof n->id);
        memset(n->passed, 0, sizeof n->passed);
        n->group++;
    }
    int i = address / 4 < n->addresses ? n->of_address[address / 4] - 1 : -1;
    if (i < 0 || wave >= MAX_WAVES ||
        !grow((void **)&n->event, &n->event_room, n->events, sizeof *n->event)) {
        n->broken = true;
        return;
    }
    n->executed[i] = true;
    n->event[n->events++] = (struct event){n->group, (uint32_t)i, (uint32_t)n->touches,
                                           n->passed[wave], (uint8_t)wave};
    n->passed[wave] += n->in[i].what == BARRIER;
}

static void record_touch(void *user, bool lds, uint64_t at, uint32_t bytes, gcn_access how)
{
    needed *n = user;
    if (!grow((void **)&n->touch, &n->touch_room, n->touches, sizeof *n->touch)) {
        n->broken = true;
        return;
    }
    n->touch[n->touches++] = (struct touch){at, (uint8_t)bytes, (uint8_t)how, lds};
}

const gcn_trace *needed_trace(const needed *n)
{
    return &n->trace;
}

void needed_forget(needed *n)
{
    n->events = n->touches = 0;
    n->group = 0;
    memset(n->executed, 0, n->n * sizeof *n->executed);
}

static bool read_object(needed *n)
{
    uint64_t address, last = 0;
    const char *text;
    while ((text = gcn_instruction(n->object, n->n, &address, NULL, NULL)))
        n->n++, last = address;
    n->addresses = last / 4 + 1;
    n->in = calloc(n->n + 1, sizeof *n->in);
    n->of_address = calloc(n->addresses, sizeof *n->of_address);
    n->executed = calloc(n->n + 1, sizeof *n->executed);
    if (!n->in || !n->of_address || !n->executed)
        return false;
    for (size_t i = 0; i < n->n; i++) {
        read_names(gcn_instruction(n->object, i, &address, NULL, NULL), &n->in[i]);
        n->of_address[address / 4] = (int)i + 1;
    }
    return true;
}

needed *needed_new(const gcn_object *object)
{
    needed *n = calloc(1, sizeof *n);
    if (!n)
        return NULL;
    n->object = object;
    n->trace = (gcn_trace){n, record_begin, record_step, record_touch};
    if (read_object(n))
        return n;
    needed_free(n);
    return NULL;
}

void needed_free(needed *n)
{
    if (!n)
        return;
    free(n->in), free(n->of_address), free(n->executed), free(n->event), free(n->touch);
    free(n);
}

size_t needed_count(const needed *n)
{
    return n->n;
}
bool needed_executed(const needed *n, size_t i)
{
    return n->executed[i];
}
bool needed_is_barrier(const needed *n, size_t i)
{
    return n->in[i].what == BARRIER;
}
int needed_counters(const needed *n, size_t i)
{
    const struct names *in = &n->in[i];
    if (in->what != WAIT)
        return 0;
    return (in->vm < VM_MOST ? NEEDED_VM : 0) | (in->lgkm < LGKM_MOST ? NEEDED_LGKM : 0);
}

// s_waitcnt: vmcnt in bits 3:0 and 15:14, expcnt in 6:4, lgkmcnt in 11:8.
uint32_t needed_relaxed(const needed *n, size_t i, int counters)
{
    uint32_t vm = counters & NEEDED_VM ? VM_MOST : (uint32_t)n->in[i].vm;
    uint32_t lgkm = counters & NEEDED_LGKM ? LGKM_MOST : (uint32_t)n->in[i].lgkm;
    return 0xbf8c0000u | vm >> 4 << 14 | lgkm << 8 | 7 << 4 | (vm & 15);
}

// ---- conflicts: who touched a granule, and how ----

struct cell {
    uint64_t key;
    uint32_t stamp;
    uint16_t by[3]; // waves, per kind of access
};
struct table {
    struct cell *cell;
    size_t size, used; // a power of two
    uint32_t stamp;
};

static bool rehash(struct table *t, size_t size);

// NULL when out of memory; `add`: makes the cell where there is none.
static struct cell *find(struct table *t, uint64_t key, bool add)
{
    if (add && 2 * t->used >= t->size && !rehash(t, t->size ? 2 * t->size : 1 << 14))
        return NULL;
    if (!t->size)
        return NULL;
    size_t at = (size_t)(key * 0x9e3779b97f4a7c15ull >> 20) & (t->size - 1);
    for (;; at = (at + 1) & (t->size - 1)) {
        struct cell *c = &t->cell[at];
        if (c->stamp == t->stamp && c->key == key)
            return c;
        if (c->stamp == t->stamp)
            continue;
        if (!add)
            return NULL;
        *c = (struct cell){.key = key, .stamp = t->stamp};
        t->used++;
        return c;
    }
}

static bool rehash(struct table *t, size_t size)
{
    struct table old = *t;
    t->cell = calloc(size, sizeof *t->cell);
    t->size = size, t->used = 0, t->stamp = 1;
    if (!t->cell) {
        *t = old;
        return false;
    }
    for (size_t i = 0; i < old.size; i++)
        if (old.cell[i].stamp == old.stamp)
            memcpy(find(t, old.cell[i].key, true)->by, old.cell[i].by, sizeof old.cell->by);
    free(old.cell);
    return true;
}
static void empty(struct table *t)
{
    t->stamp++;
    t->used = 0;
}

static uint64_t key_of(const struct touch *x, uint32_t granule)
{
    return (x->at / GRANULE + granule) << 1 | x->lds;
}
static uint32_t granules(const struct touch *x)
{
    return (uint32_t)((x->at + x->bytes + GRANULE - 1) / GRANULE - x->at / GRANULE);
}

static void mark(struct table *t, const struct touch *x, int wave)
{
    for (uint32_t i = 0; i < granules(x); i++) {
        struct cell *c = find(t, key_of(x, i), true);
        if (c)
            c->by[x->how] |= (uint16_t)(1u << wave);
    }
}
static bool conflicts(struct table *t, const struct touch *x, int wave)
{
    for (uint32_t i = 0; i < granules(x); i++) {
        const struct cell *c = find(t, key_of(x, i), false);
        if (!c)
            continue;
        unsigned against = c->by[GCN_WRITE];
        if (x->how != GCN_ATOMIC)
            against |= c->by[GCN_ATOMIC];
        if (x->how != GCN_READ)
            against |= c->by[GCN_READ];
        if (against & ~(1u << wave))
            return true;
    }
    return false;
}

static size_t touches_end(const needed *n, size_t event)
{
    return event + 1 < n->events ? n->event[event + 1].touch : n->touches;
}

// ---- waits ----

struct queue {
    size_t event[MAX_OUT];
    int n;
    bits result; // of all
};
static void settle(const needed *n, struct queue *q)
{
    memset(&q->result, 0, sizeof q->result);
    for (int i = 0; i < q->n; i++)
        q->result = join(q->result, &n->in[n->event[q->event[i]].inst].result);
}
static void keep(const needed *n, struct queue *q, int count)
{
    int drop = q->n - count;
    if (drop <= 0)
        return;
    memmove(q->event, q->event + drop, (size_t)count * sizeof *q->event);
    q->n = count;
    settle(n, q);
}
static void push(const needed *n, struct queue *q, size_t event, int most)
{
    keep(n, q, most - 1); // a full counter holds up issue
    q->event[q->n++] = event;
    q->result = join(q->result, &n->in[n->event[event].inst].result);
}
static bool holds(const needed *n, const struct queue *q, enum what what)
{
    for (int i = 0; i < q->n; i++)
        if (n->in[n->event[q->event[i]].inst].what == what)
            return true;
    return false;
}

struct range { size_t first, end; }; // the events of one group

// Does an LDS access still in `q` when its wave passes barrier `at` conflict behind it?
static bool crosses(const needed *n, struct range g, const struct queue *q, size_t at)
{
    struct table t = {0};
    const struct event *barrier = &n->event[at];
    bool any = false, found = false;
    for (int i = 0; i < q->n; i++) {
        if (n->in[n->event[q->event[i]].inst].what != DS)
            continue;
        any = true;
        for (size_t x = n->event[q->event[i]].touch; x < touches_end(n, q->event[i]); x++)
            mark(&t, &n->touch[x], barrier->wave);
    }
    for (size_t e = g.first; e < g.end && any && !found; e++) {
        if (n->event[e].wave == barrier->wave || n->event[e].epoch != barrier->epoch + 1)
            continue;
        for (size_t x = n->event[e].touch; x < touches_end(n, e) && !found; x++)
            found = n->touch[x].lds && conflicts(&t, &n->touch[x], n->event[e].wave);
    }
    free(t.cell);
    return found;
}

// Would this wave go wrong if instruction `gone` did not wait for `counters`?
static bool wave_needs(const needed *n, struct range g, int wave, size_t gone, int counters)
{
    struct queue vm = {.n = 0}, lgkm = {.n = 0};
    for (size_t e = g.first; e < g.end; e++) {
        const struct names *in = &n->in[n->event[e].inst];
        if (n->event[e].wave != wave)
            continue;
        bool here = n->event[e].inst == gone, scalars = holds(n, &lgkm, SMEM);
        if (meet(&in->others, &vm.result) || meet(&in->others, &lgkm.result))
            return true;
        if (in->what != VMEM && meet(&in->result, &vm.result))
            return true;
        if ((scalars || (in->what != DS && in->what != DS_LANE)) && meet(&in->result, &lgkm.result))
            return true;
        if (in->what == BARRIER && crosses(n, g, &lgkm, e))
            return true;
        if (in->what == WAIT) {
            if (!here || !(counters & NEEDED_VM))
                keep(n, &vm, in->vm);
            if ((!here || !(counters & NEEDED_LGKM)) && (!in->lgkm || !scalars))
                keep(n, &lgkm, in->lgkm);
        } else if (in->what == VMEM)
            push(n, &vm, e, VM_MOST);
        else if (in->what == DS || in->what == DS_LANE || in->what == SMEM)
            push(n, &lgkm, e, LGKM_MOST);
    }
    return false;
}

// The next group's events, and the waves that executed instruction i there.
static struct range next_group(const needed *n, size_t from, size_t i, unsigned *waves)
{
    struct range g = {from, from};
    *waves = 0;
    for (; g.end < n->events && n->event[g.end].group == n->event[from].group; g.end++)
        if (n->event[g.end].inst == i)
            *waves |= 1u << n->event[g.end].wave;
    return g;
}

bool needed_wait(const needed *n, size_t i, int counters)
{
    unsigned waves;
    for (struct range g = {0, 0}; g.end < n->events;) {
        g = next_group(n, g.end, i, &waves);
        for (int w = 0; w < MAX_WAVES; w++)
            if (waves >> w & 1 && wave_needs(n, g, w, i, counters))
                return true;
    }
    return n->broken;
}

// ---- barriers ----

// Accesses of one group while each wave has passed `epoch` barriers, instruction `gone` not counted.
// Within the program as it is no two of them conflict, so a conflict lies across `gone`.
static bool epoch_conflicts(const needed *n, struct range g, size_t gone, unsigned epoch, struct table *t,
                            bool *more)
{
    unsigned passed[MAX_WAVES] = {0};
    bool found = false;
    empty(t);
    *more = false;
    for (size_t e = g.first; e < g.end && !found; e++) {
        const struct event *x = &n->event[e];
        if (n->in[x->inst].what == BARRIER)
            passed[x->wave] += x->inst != gone;
        *more |= passed[x->wave] > epoch;
        if (passed[x->wave] != epoch)
            continue;
        for (size_t k = x->touch; k < touches_end(n, e) && !found; k++) {
            found = conflicts(t, &n->touch[k], x->wave);
            mark(t, &n->touch[k], x->wave);
        }
    }
    return found;
}

bool needed_barrier(const needed *n, size_t i)
{
    struct table t = {0};
    bool found = false;
    unsigned waves;
    for (struct range g = {0, 0}; g.end < n->events && !found;) {
        g = next_group(n, g.end, i, &waves);
        bool more = waves != 0;
        for (unsigned epoch = 0; more && !found; epoch++)
            found = epoch_conflicts(n, g, i, epoch, &t, &more);
    }
    free(t.cell);
    return found || n->broken;
}
