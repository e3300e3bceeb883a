// What the interpreter watches beside computing: outstanding memory operations, LDS sharing,
// definedness. Every check reports through report(), which folds repeats of one instruction.
#include "isa.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_FINDINGS = 1024 };

gcn_status findings_add(gcn_findings *f, const gcn_finding *x)
{
    if (f->count == f->room) {
        size_t room = f->room ? 2 * f->room : 16;
        gcn_finding *p = realloc(f->item, room * sizeof *p);
        if (!p)
            return GCN_E_NOMEM;
        f->item = p;
        f->room = room;
    }
    f->item[f->count++] = *x;
    return GCN_OK;
}

void report(struct wave *w, gcn_kind kind, int lane, const char *fmt, ...)
{
    struct group *g = w->g;
    gcn_findings *f = &g->result->findings;
    for (size_t i = 0; i < f->count; i++)
        if (f->item[i].kind == kind && f->item[i].address == g->at->address) {
            f->item[i].count++;
            return;
        }
    if (f->count >= MAX_FINDINGS)
        return;
    gcn_finding x = {.kind = kind, .address = g->at->address, .count = 1, .wave = w->id,
                     .lane = lane};
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(x.detail, sizeof x.detail, fmt, ap);
    va_end(ap);
    snprintf(x.text, sizeof x.text, "%s", g->at->text);
    memcpy(x.group, g->id, sizeof x.group);
    if (findings_add(f, &x))
        g->oom = true;
}

const char *gcn_kind_name(gcn_kind kind)
{
    static const char *const name[GCN_NKINDS] = {
        "vmcnt wait missing", "lgkmcnt wait missing", "wait states missing", "LDS race",
        "LDS out of bounds", "memory out of bounds", "store to read-only buffer", "misaligned",
        "undefined value", "hang", "divergent barrier", "register not allocated", "static check",
    };
    return kind < GCN_NKINDS ? name[kind] : "?";
}

static void register_name(u32 r, char *out, size_t room)
{
    if (r >= REG_V)
        snprintf(out, room, "%c%u", r >= REG_A ? 'a' : 'v', (r - REG_V) % 256);
    else if (r == REG_VCC || r == REG_VCC + 1)
        snprintf(out, room, "vcc");
    else
        snprintf(out, room, "s%u", r);
}

// ---- outstanding memory operations ----

static const struct pending *holder(const struct fifo *f, u32 reg)
{
    for (int i = 0; i < f->count; i++)
        for (int j = 0; j < f->item[i].nwr; j++)
            if (reg - f->item[i].wr[j].reg < f->item[i].wr[j].n)
                return &f->item[i];
    return NULL;
}

// Writing the target of an older load is harmless where both return in order: vector memory
// after vector memory, LDS after LDS.
static bool ordered_write(const struct inst *in, const struct pending *p, bool vm)
{
    if (vm)
        return in->op->exec == x_vmem && !p->flat && in->mem.space != SP_FLAT;
    return (in->op->exec == x_ds || in->op->exec == x_ds_lane) && !p->smem && !p->flat;
}

static void touch(struct wave *w, const struct inst *in, struct regs r, bool write)
{
    for (u32 i = r.reg; i < (u32)r.reg + r.n; i++)
        for (int vm = 0; vm < 2; vm++) {
            if (!(vm ? w->busy_vm : w->busy_lgkm)[i])
                continue;
            const struct pending *p = holder(vm ? &w->vm : &w->lgkm, i);
            if (!p || (write && ordered_write(in, p, vm)))
                continue;
            char name[16];
            register_name(i, name, sizeof name);
            report(w, vm ? GCN_WAIT_VM : GCN_WAIT_LGKM, -1, "%s %s, the result of 0x%x: %.90s",
                   write ? "overwrites" : "reads", name, p->in->address, p->in->text);
            return;
        }
}

void check_pending(struct wave *w, const struct inst *in)
{
    if (!w->vm.count && !w->lgkm.count)
        return;
    for (int i = 0; i < in->nrd; i++)
        touch(w, in, in->rd[i], false);
    for (int i = 0; i < in->nwr; i++)
        touch(w, in, in->wr[i], true);
}

static void retire(struct fifo *f, u8 *busy, int count)
{
    int drop = f->count - count;
    for (int i = 0; i < drop; i++) {
        struct pending *p = &f->item[i];
        f->nsmem -= p->smem;
        f->nflat -= p->flat;
        for (int j = 0; j < p->nwr; j++)
            for (u32 r = 0; r < p->wr[j].n; r++)
                busy[p->wr[j].reg + r]--;
    }
    if (drop > 0) {
        memmove(f->item, f->item + drop, (size_t)count * sizeof *f->item);
        f->count = count;
    }
}

// A counter that is full holds up issue until its oldest operation is done.
static struct pending *push(struct fifo *f, u8 *busy, int max, const struct inst *in)
{
    if (f->count == max)
        retire(f, busy, max - 1);
    struct pending *p = &f->item[f->count++];
    p->in = in;
    p->nwr = p->nspan = p->lds_bytes = 0;
    p->smem = p->flat = p->lds_read = p->lds_write = false;
    p->lanes = 0;
    return p;
}
struct pending *pend_vm(struct wave *w, const struct inst *in)
{
    return push(&w->vm, w->busy_vm, VM_MAX, in);
}
struct pending *pend_lgkm(struct wave *w, const struct inst *in)
{
    return push(&w->lgkm, w->busy_lgkm, LGKM_MAX, in);
}
void pend_writes(struct wave *w, struct pending *p, struct operand dst, bool vm)
{
    if (dst.kind != O_REG)
        return;
    p->wr[p->nwr++] = (struct regs){dst.reg, dst.n};
    for (u32 i = 0; i < dst.n; i++)
        (vm ? w->busy_vm : w->busy_lgkm)[dst.reg + i]++;
}

// Flat accesses may return out of order with the others, scalar loads always: then only a wait
// for zero says anything.
void wait_vm(struct wave *w, int count)
{
    if (w->vm.count > count && (!count || !w->vm.nflat))
        retire(&w->vm, w->busy_vm, count);
}
void wait_lgkm(struct wave *w, int count)
{
    if (w->lgkm.count > count && (!count || !(w->lgkm.nsmem + w->lgkm.nflat)))
        retire(&w->lgkm, w->busy_lgkm, count);
}

// ---- LDS ----

static inline u32 other(u32 tag, u32 epoch, u32 id)
{
    return (tag >> 8 == epoch) & ((tag & 0xff) != id);
}
static inline u32 join(u32 tag, u32 epoch, u32 id)
{
    return other(tag, epoch, id) ? epoch << 8 | 0xff : epoch << 8 | id;
}

static void race(struct wave *w, u32 at, u32 tag, const char *what, int lane)
{
    if ((tag & 0xff) == 0xff)
        report(w, GCN_LDS_RACE, lane, "LDS byte %u: %s by several waves", at, what);
    else
        report(w, GCN_LDS_RACE, lane, "LDS byte %u: %s by wave %u", at, what, tag & 0xff);
}

// Records an access and says whether it conflicts with one of another wave since the last barrier.
// Without branches, so that the usual widths become a few vector instructions.
static inline __attribute__((always_inline)) u32 mark(struct group *g, u32 id, u32 at, u32 bytes,
                                                      int how)
{
    u32 *wr = g->tag->wr + at, *rd = g->tag->rd + at, *atomic = g->tag->at + at;
    u32 epoch = g->epoch, mine = epoch << 8 | id, clash = 0;
    for (u32 i = 0; i < bytes; i++) {
        clash |= other(wr[i], epoch, id);
        if (how != LDS_ATOMIC)
            clash |= other(atomic[i], epoch, id);
        if (how != LDS_READ)
            clash |= other(rd[i], epoch, id);
        if (how == LDS_READ)
            rd[i] = join(rd[i], epoch, id);
        else if (how == LDS_WRITE)
            wr[i] = mine;
        else
            atomic[i] = join(atomic[i], epoch, id);
    }
    return clash;
}

static void name_race(struct wave *w, u32 at, u32 bytes, int how, int lane)
{
    struct lds_tag *t = w->g->tag;
    u32 id = (u32)w->id, epoch = w->g->epoch;
    for (u32 i = at; i < at + bytes; i++) {
        if (other(t->wr[i], epoch, id))
            race(w, i, t->wr[i], how == LDS_READ ? "written, then read" : "written twice", lane);
        else if (how != LDS_ATOMIC && other(t->at[i], epoch, id))
            race(w, i, t->at[i], "atomic and plain access", lane);
        else if (how != LDS_READ && other(t->rd[i], epoch, id))
            race(w, i, t->rd[i], "read, then written", lane);
        else
            continue;
        return;
    }
    report(w, GCN_LDS_RACE, lane, "LDS byte %u: written by several waves", at);
}

static void lds_mark(struct wave *w, u32 at, u32 bytes, int how, int lane)
{
    struct group *g = w->g;
    u32 id = (u32)w->id, clash;
    if (g->nwaves == 1)
        return;
    if (bytes == 4 && how == LDS_READ)
        clash = mark(g, id, at, 4, LDS_READ);
    else if (bytes == 8 && how == LDS_READ)
        clash = mark(g, id, at, 8, LDS_READ);
    else if (bytes == 16 && how == LDS_READ)
        clash = mark(g, id, at, 16, LDS_READ);
    else if (bytes == 4 && how == LDS_WRITE)
        clash = mark(g, id, at, 4, LDS_WRITE);
    else if (bytes == 16 && how == LDS_WRITE)
        clash = mark(g, id, at, 16, LDS_WRITE);
    else
        clash = mark(g, id, at, bytes, how);
    if (clash)
        name_race(w, at, bytes, how, lane);
}

static void traced(const struct wave *w, bool lds, u64 at, u32 bytes, int how)
{
    const gcn_trace *trace = w->g->launch->trace;
    if (trace && trace->touch)
        trace->touch(trace->user, lds, at, bytes, (gcn_access)how);
}
void lds_touch(struct wave *w, u32 at, u32 bytes, int how, int lane)
{
    traced(w, true, at, bytes, how);
    lds_mark(w, at, bytes, how, lane);
}
void global_touch(struct wave *w, u64 va, u32 bytes, int how, int lane)
{
    (void)lane;
    traced(w, false, va, bytes, how);
}

// Operations still outstanding when their wave passes a barrier may as well happen after it:
// they count in the new epoch too, so that an access by another wave there is a race.
static void carry_fifo(struct wave *w, const struct fifo *f)
{
    for (int i = 0; i < f->count; i++) {
        const struct pending *p = &f->item[i];
        if (!p->lds_read && !p->lds_write)
            continue;
        w->g->at = p->in;
        for (int s = 0; s < p->nspan; s++)
            for (int l = 0; l < LANES; l++)
                if (p->lanes >> l & 1)
                    lds_mark(w, p->lds_addr[s][l], p->lds_bytes,
                              p->lds_write && p->lds_read ? LDS_ATOMIC
                              : p->lds_write              ? LDS_WRITE
                                                          : LDS_READ, l);
    }
}
void lds_carry_over(struct group *g)
{
    for (int i = 0; i < g->nwaves; i++) {
        carry_fifo(&g->wave[i], &g->wave[i].lgkm);
        carry_fifo(&g->wave[i], &g->wave[i].vm);
    }
}

// ---- definedness and allocation ----

// Reports and returns the lanes of `lanes` in which the operand is undefined (all for a scalar).
u64 need_defined(struct wave *w, const struct operand *o, u64 lanes, const char *what)
{
    u64 all = 0;
    if (o->kind != O_REG)
        return 0;
    for (u32 i = 0; i < o->n; i++) {
        u32 r = o->reg + i;
        u64 un = r >= REG_V ? w->vu[r - REG_V] & lanes : w->su[r];
        if (!un)
            continue;
        char name[16];
        register_name(r, name, sizeof name);
        report(w, GCN_UNDEFINED, r >= REG_V ? __builtin_ctzll(un) : -1, "%s: %s is undefined",
               what, name);
        all |= r >= REG_V ? un : ~(u64)0;
    }
    return all;
}

static void check_list(struct wave *w, const struct regs *list, int n)
{
    const struct kernel *k = w->g->k;
    for (int i = 0; i < n; i++) {
        u32 last = (u32)list[i].reg + list[i].n - 1;
        bool bad = last >= REG_A   ? last - REG_A >= k->agprs
                   : last >= REG_V ? last - REG_V >= k->vgprs
                                   : false;
        if (!bad)
            continue;
        char name[16];
        register_name(last, name, sizeof name);
        report(w, GCN_REGISTER, -1, "%s; the kernel allocates %u + %u", name, k->vgprs, k->agprs);
        w->g->stop = true;
    }
}
void check_registers(struct wave *w, const struct inst *in)
{
    w->g->at = in;
    check_list(w, in->rd, in->nrd);
    check_list(w, in->wr, in->nwr);
}
