// LDS instructions: reads, writes, pairs, atomics, and the lane exchanges that share their
// datapath (ds_bpermute, ds_permute, ds_swizzle) without touching LDS memory.
#include "isa.h"

#include <string.h>

static bool in_bounds(struct wave *w, u32 at, u32 bytes, int lane)
{
    if ((u64)at + bytes <= w->g->lds_bytes)
        return true;
    report(w, GCN_LDS_BOUNDS, lane, "%u bytes at %u of %u", bytes, at, w->g->lds_bytes);
    return false;
}

static const u8 nothing[16], all_undefined[16] = {255, 255, 255, 255, 255, 255, 255, 255,
                                                  255, 255, 255, 255, 255, 255, 255, 255};

static void read_lane(struct wave *w, const struct mem *m, u32 row, u32 at, int l)
{
    struct group *g = w->g;
    if (!in_bounds(w, at, m->bytes, l)) {
        load_lane(w, m, row, l, nothing, all_undefined);
        return;
    }
    lds_touch(w, at, m->bytes, LDS_READ, l);
    load_lane(w, m, row, l, g->lds + at, g->lds_undef + at);
}

static void write_lane(struct wave *w, const struct mem *m, u32 row, u32 at, int l)
{
    u8 data[16], undef[16];
    if (!in_bounds(w, at, m->bytes, l))
        return;
    lds_touch(w, at, m->bytes, LDS_WRITE, l);
    store_lane(w, m, row, l, data, undef);
    memcpy(w->g->lds + at, data, m->bytes);
    memcpy(w->g->lds_undef + at, undef, m->bytes);
}

static u64 lane64(const struct wave *w, const struct operand *o, int l, u32 bytes)
{
    u32 row = o->reg - REG_V;
    return w->v[row][l] | (bytes == 8 ? (u64)w->v[row + 1][l] << 32 : 0);
}

static void atomic_lane(struct wave *w, const struct mem *m, u32 at, int l)
{
    struct group *g = w->g;
    u64 old = 0;
    u8 undef[8] = {0};
    if (in_bounds(w, at, m->bytes, l)) {
        lds_touch(w, at, m->bytes, LDS_ATOMIC, l);
        memcpy(&old, g->lds + at, m->bytes);
        memcpy(undef, g->lds_undef + at, m->bytes);
        // ds_cmpst has the comparison first, the new value second
        bool cas = m->atomic == AT_CMPSWAP;
        u64 x = lane64(w, cas ? &m->data2 : &m->data, l, m->bytes);
        u64 r = atomic_result(m->atomic, m->bytes, old, x, lane64(w, &m->data, l, m->bytes));
        memcpy(g->lds + at, &r, m->bytes);
        if (m->atomic == AT_SWAP)
            memset(g->lds_undef + at, 0, m->bytes);
    }
    if (m->ret) {
        struct mem plain = *m; // a load of the old value
        u8 bytes[8];
        memcpy(bytes, &old, 8);
        load_lane(w, &plain, m->dst.reg - REG_V, l, bytes, undef);
    }
}

void x_ds(struct wave *w, const struct inst *in)
{
    const struct mem *m = &in->mem;
    u64 lanes = exec_of(w);
    u32 addr_row = m->addr.reg - REG_V, addr[LANES], words = (m->bytes + 3u) / 4;
    u32 align = m->action == MEM_ATOMIC || m->bytes < 4 ? m->bytes : 4;
    u64 lost = need_defined(w, &m->addr, lanes, "LDS address");
    if (m->action == MEM_ATOMIC)
        need_defined(w, &m->data, lanes, "atomic operand");
    memcpy(addr, w->v[addr_row], sizeof addr); // the result may overwrite it
    struct pending *p = pend_lgkm(w, in);
    p->lanes = lanes;
    p->lds_bytes = m->bytes;
    p->nspan = m->stride ? 2 : 1;
    p->lds_read = m->action != MEM_STORE;
    p->lds_write = m->action != MEM_LOAD;
    for (int l = 0; l < LANES; l++)
        for (u32 s = 0; s < p->nspan; s++) {
            u32 off = m->stride ? (s ? m->offset1 : m->offset0) * (u32)m->stride : (u32)m->offset;
            u32 at = addr[l] + off;
            p->lds_addr[s][l] = at;
            if (!(lanes >> l & 1))
                continue;
            if (lost >> l & 1) {
                if (m->dst.kind == O_REG)
                    load_lane(w, m, m->dst.reg - REG_V + s * words, l, nothing, all_undefined);
                p->lanes &= ~((u64)1 << l);
                continue;
            }
            if (at & (align - 1))
                report(w, GCN_MISALIGNED, l, "LDS address %u for %u-byte elements", at, align);
            if (m->action == MEM_LOAD)
                read_lane(w, m, m->dst.reg - REG_V + s * words, at, l);
            else if (m->action == MEM_STORE)
                write_lane(w, m, (s ? m->data2.reg : m->data.reg) - REG_V, at, l);
            else
                atomic_lane(w, m, at, l);
            if ((u64)at + m->bytes > w->g->lds_bytes)
                p->lanes &= ~((u64)1 << l);
        }
    for (u32 s = 0; s < p->nspan && m->bytes >= 8 && m->action != MEM_ATOMIC; s++)
        bank_clocks(p->lds_addr[s], lanes, m->bytes, m->action == MEM_LOAD, &w->g->result->lds_clocks,
                    &w->g->result->lds_least);
    pend_writes(w, p, m->dst, false);
}

// Lane that lane l reads under a ds_swizzle offset: quads, or masks within 32 lanes.
static int swizzle_source(u32 offset, int l)
{
    if (offset & 0x8000)
        return (l & ~3) + (int)(offset >> 2 * (l & 3) & 3);
    u32 and = offset & 31, or = offset >> 5 & 31, xor = offset >> 10 & 31;
    return (l & 32) + (int)((((u32)l & 31 & and) | or) ^ xor);
}

enum { LANE_BPERMUTE, LANE_PERMUTE, LANE_SWIZZLE };

void x_ds_lane(struct wave *w, const struct inst *in)
{
    u32 r[LANES], ur[LANES], t[2][LANES], ut[2][LANES];
    u64 exec = exec_of(w), un = 0;
    bool swizzle = in->mem.atomic == LANE_SWIZZLE;
    struct value a = src32(w, in, 1, 0, t[0], ut[0]);
    struct value x = swizzle ? a : src32(w, in, 2, 0, t[1], ut[1]);
    if (!swizzle)
        need_defined(w, &in->o[1], exec, "lane number");
    memset(r, 0, sizeof r);
    memset(ur, 0, sizeof ur);
    for (int l = 0; l < LANES; l++) {
        if (!(exec >> l & 1))
            continue;
        int j = swizzle ? swizzle_source((u32)in->mem.offset, l)
                        : (int)((a.x[l] + (u32)in->mem.offset) >> 2 & 63);
        int from = in->mem.atomic == LANE_PERMUTE ? l : j;
        int to = in->mem.atomic == LANE_PERMUTE ? j : l;
        bool there = exec >> from & 1;
        r[to] = there ? x.x[from] : 0;
        ur[to] = there && (x.un >> from & 1) ? x.ub[from] : 0;
    }
    for (int l = 0; l < LANES; l++)
        un |= (u64)(ur[l] != 0) << l;
    put32(w, in, in->o[0].reg - REG_V, r, un, ur);
    pend_writes(w, pend_lgkm(w, in), in->o[0], false);
}
