// Memory behind vector and scalar memory instructions: the caller's buffers, scratch, and the
// element-wise moves between registers and bytes that LDS shares.
#include "isa.h"

#include <math.h>
#include <string.h>

// ---- elements ----

static float bf16_up(u32 h)
{
    return as_f32(h << 16);
}
static u32 bf16_down(float f)
{
    u32 u = as_u32(f);
    if (f != f)
        return u >> 16 | 0x40;
    return (u + 0x7fff + (u >> 16 & 1)) >> 16;
}
static u32 packed_add(u32 a, u32 b, float (*up)(u32), u32 (*down)(float))
{
    u32 lo = down(up(a & 0xffff) + up(b & 0xffff)), hi = down(up(a >> 16) + up(b >> 16));
    return (lo & 0xffff) | hi << 16;
}

static u64 float_atomic(u8 kind, u8 bytes, u64 old, u64 x)
{
    if (bytes == 8) {
        double a = as_f64(old), b = as_f64(x);
        return as_u64(kind == AT_FADD ? a + b : kind == AT_FMIN ? fmin(a, b) : fmax(a, b));
    }
    float a = as_f32((u32)old), b = as_f32((u32)x);
    return as_u32(kind == AT_FADD ? a + b : kind == AT_FMIN ? fminf(a, b) : fmaxf(a, b));
}

u64 atomic_result(u8 kind, u8 bytes, u64 old, u64 x, u64 compare)
{
    i64 so = bytes == 8 ? (i64)old : (i32)old, sx = bytes == 8 ? (i64)x : (i32)x;
    switch (kind) {
    case AT_ADD: return old + x;
    case AT_SUB: return old - x;
    case AT_RSUB: return x - old;
    case AT_SMIN: return so < sx ? old : x;
    case AT_UMIN: return old < x ? old : x;
    case AT_SMAX: return so > sx ? old : x;
    case AT_UMAX: return old > x ? old : x;
    case AT_AND: return old & x;
    case AT_OR: return old | x;
    case AT_XOR: return old ^ x;
    case AT_INC: return old >= x ? 0 : old + 1;
    case AT_DEC: return old == 0 || old > x ? x : old - 1;
    case AT_SWAP: return x;
    case AT_CMPSWAP: return old == compare ? x : old;
    case AT_PK_ADD_F16: return packed_add((u32)old, (u32)x, half_up, half_down);
    case AT_PK_ADD_BF16: return packed_add((u32)old, (u32)x, bf16_up, bf16_down);
    default: return float_atomic(kind, bytes, old, x);
    }
}

static void set_lane(struct wave *w, u32 row, int lane, u32 x, u32 un)
{
    u64 bit = (u64)1 << lane;
    w->v[row][lane] = x;
    if (un) {
        if (!w->vu[row])
            memset(w->vub[row], 0, sizeof w->vub[row]);
        w->vub[row][lane] = un;
        w->vu[row] |= bit;
    } else if (w->vu[row] & bit) {
        w->vub[row][lane] = 0;
        w->vu[row] &= ~bit;
    }
}

static u32 narrow_value(const struct mem *m, u32 x)
{
    if (!m->sext)
        return x;
    return m->bytes == 1 ? (u32)(i32)(int8_t)x : (u32)(i32)(int16_t)x;
}

// Moves one lane's element into registers from `row` on. `undef` shadows the bytes, or is NULL.
void load_lane(struct wave *w, const struct mem *m, u32 row, int lane, const u8 *from,
               const u8 *undef)
{
    if (m->bytes >= 4) {
        for (u32 i = 0; i < m->bytes / 4u; i++) {
            u32 x, u = 0;
            memcpy(&x, from + 4 * i, 4);
            if (undef)
                memcpy(&u, undef + 4 * i, 4);
            set_lane(w, row + i, lane, x, u);
        }
        return;
    }
    u32 x = 0, u = 0;
    memcpy(&x, from, m->bytes);
    if (undef)
        memcpy(&u, undef, m->bytes);
    x = narrow_value(m, x);
    u = u ? ~0u : 0;
    if (m->d16) {
        u32 old = w->v[row][lane], old_u = w->vu[row] >> lane & 1 ? w->vub[row][lane] : 0;
        x = m->hi ? (old & 0xffff) | x << 16 : (old & 0xffff0000u) | (x & 0xffff);
        u = m->hi ? (old_u & 0xffff) | u << 16 : (old_u & 0xffff0000u) | (u & 0xffff);
    }
    set_lane(w, row, lane, x, u);
}

// The bytes one lane stores; returns the undefined bits, and their bytes in `undef`.
u32 store_lane(const struct wave *w, const struct mem *m, u32 row, int lane, u8 *to, u8 *undef)
{
    u32 any = 0;
    for (u32 i = 0; i < (m->bytes + 3u) / 4; i++) {
        u32 x = w->v[row + i][lane], u = w->vu[row + i] >> lane & 1 ? w->vub[row + i][lane] : 0;
        u32 n = m->bytes < 4 ? m->bytes : 4;
        if (m->d16 && m->hi)
            x >>= 16, u >>= 16;
        if (n < 4)
            u &= (1u << 8 * n) - 1;
        memcpy(to + 4 * i, &x, n);
        memcpy(undef + 4 * i, &u, n);
        any |= u;
    }
    return any;
}

// ---- addresses ----

u8 *global_at(struct wave *w, u64 va, u32 bytes, bool write, int lane)
{
    struct group *g = w->g;
    const gcn_buffer *b = g->last_buffer;
    if (!b || va - b->va >= b->bytes || b->bytes - (va - b->va) < bytes) {
        for (b = g->buffer; b < g->buffer + g->nbuffer; b++)
            if (va - b->va < b->bytes && b->bytes - (va - b->va) >= bytes)
                break;
        if (b == g->buffer + g->nbuffer) {
            const gcn_buffer *near = NULL; // the buffer that ends closest below
            for (const gcn_buffer *c = g->buffer; c < b; c++)
                if (va >= c->va && (!near || c->va > near->va))
                    near = c;
            if (near)
                report(w, GCN_GLOBAL_BOUNDS, lane, "%u bytes at %llu of buffer %s, which has %llu",
                       bytes, (unsigned long long)(va - near->va), near->name ? near->name : "?",
                       (unsigned long long)near->bytes);
            else
                report(w, GCN_GLOBAL_BOUNDS, lane, "%u bytes at 0x%llx, below every buffer", bytes,
                       (unsigned long long)va);
            return NULL;
        }
        g->last_buffer = b;
    }
    if (write && !b->writable) {
        report(w, GCN_READ_ONLY, lane, "%u bytes at %llu of buffer %s", bytes,
               (unsigned long long)(va - b->va), b->name ? b->name : "?");
        return NULL;
    }
    return (u8 *)b->host + (va - b->va);
}

struct target { // where one lane's access goes
    enum { TO_GLOBAL, TO_LDS, TO_SCRATCH, TO_NOWHERE } kind;
    u64 at;
};

static u64 base64(const struct wave *w, const struct operand *o)
{
    return o->kind == O_REG && o->n == 2 ? s64(w, o->reg) : 0;
}
static u32 scalar(const struct wave *w, const struct operand *o)
{
    return o->kind == O_REG ? w->s[o->reg] : o->kind == O_CONST ? (u32)o->value : 0;
}
static u64 vector_address(const struct wave *w, const struct operand *o, int lane)
{
    u32 row = o->reg - REG_V;
    return w->v[row][lane] | (o->n == 2 ? (u64)w->v[row + 1][lane] << 32 : 0);
}

// A raw resource reaches no further than the caller's buffer that it begins in: else what lies past
// the end would not be dropped, and no access need go there to show it.
static void need_resource(struct wave *w, const struct inst *in, const struct operand *o)
{
    const u32 *r = &w->s[o->reg];
    u64 va = r[0] | (u64)(r[1] & 0xffff) << 32;
    const struct group *g = w->g;
    if (in->mem.space != SP_BUFFER || r[3] >> 23 & 1 || r[1] >> 16 & 0x3fff || !r[2])
        return;
    for (const gcn_buffer *b = g->buffer; b < g->buffer + g->nbuffer; b++) {
        if (va - b->va >= b->bytes)
            continue;
        if (r[2] > b->bytes - (va - b->va))
            report(w, GCN_GLOBAL_BOUNDS, -1, "a resource of %u bytes at %llu of buffer %s, which has %llu",
                   r[2], (unsigned long long)(va - b->va), b->name ? b->name : "?",
                   (unsigned long long)b->bytes);
        return;
    }
    report(w, GCN_GLOBAL_BOUNDS, -1, "a resource of %u bytes at 0x%llx, in no buffer", r[2],
           (unsigned long long)va);
}

// Buffer resource: base 48 bits, stride, number of records. Raw buffers compare bytes with the
// number of records less the scalar offset; structured ones compare the index.
static struct target buffer_target(struct wave *w, const struct inst *in, int lane)
{
    const struct mem *m = &in->mem;
    const u32 *r = &w->s[m->base.reg];
    u64 base = r[0] | (u64)(r[1] & 0xffff) << 32;
    u32 stride = r[1] >> 16 & 0x3fff, records = r[2], soffset = scalar(w, &m->soffset);
    u32 row = m->addr.reg - REG_V, index = 0, offset = (u32)m->offset;
    if (m->idxen)
        index = w->v[row][lane];
    if (m->offen)
        offset += w->v[row + m->idxen][lane];
    if (r[3] >> 23 & 1) // add_tid: the private segment of gfx90a, swizzled by lane
        return (struct target){TO_SCRATCH, offset + (u64)(i64)((i32)soffset / LANES) +
                                               (u32)base / LANES};
    if (soffset > records)
        report(w, GCN_GLOBAL_BOUNDS, lane, "scalar offset %u past the %u bytes of the resource",
               soffset, records);
    bool out = stride && m->idxen ? index >= records
                                  : (u64)offset + m->bytes > (u64)records - soffset;
    if (out && !stride && m->bytes > 4 && (u64)offset + 4 <= (u64)records - soffset)
        report(w, GCN_GLOBAL_BOUNDS, lane, "wide access straddles the end of the resource: "
               "offset %u of %u bytes", offset + soffset, records);
    if (out)
        return (struct target){TO_NOWHERE, 0};
    return (struct target){TO_GLOBAL, base + soffset + (u64)index * stride + offset};
}

static struct target resolve(struct wave *w, const struct inst *in, int lane)
{
    const struct mem *m = &in->mem;
    u64 va;
    switch (m->space) {
    case SP_BUFFER: return buffer_target(w, in, lane);
    case SP_SCRATCH:
        va = scalar(w, &m->base) + (m->addr.kind == O_REG ? vector_address(w, &m->addr, lane) : 0);
        return (struct target){TO_SCRATCH, va + (u64)(i64)m->offset};
    default:
        va = base64(w, &m->base) + vector_address(w, &m->addr, lane) + (u64)(i64)m->offset;
        if (m->space == SP_FLAT && va >> 32 == SHARED_APERTURE >> 32)
            return (struct target){TO_LDS, (u32)va};
        if (m->space == SP_FLAT && va >> 32 == PRIVATE_APERTURE >> 32)
            return (struct target){TO_SCRATCH, (u32)va};
        return (struct target){TO_GLOBAL, va};
    }
}

// Host bytes of an access, or NULL after reporting (or where the hardware drops it).
static u8 *bytes_at(struct wave *w, const struct inst *in, struct target t, bool write, int lane)
{
    u32 n = in->mem.bytes, align = n < 4 ? n : 4;
    if (in->mem.action == MEM_ATOMIC)
        align = n;
    if (t.kind != TO_NOWHERE && t.at & (align - 1))
        report(w, GCN_MISALIGNED, lane, "address 0x%llx for %u-byte elements",
               (unsigned long long)t.at, align);
    struct group *g = w->g;
    switch (t.kind) {
    case TO_GLOBAL: {
        u8 *p = global_at(w, t.at, n, write, lane);
        if (p)
            global_touch(w, t.at, n, in->mem.action == MEM_ATOMIC ? LDS_ATOMIC
                                     : write                      ? LDS_WRITE
                                                                  : LDS_READ, lane);
        return p;
    }
    case TO_LDS:
        if (t.at + n > g->lds_bytes) {
            report(w, GCN_LDS_BOUNDS, lane, "%u bytes at %llu of %u", n, (unsigned long long)t.at,
                   g->lds_bytes);
            return NULL;
        }
        lds_touch(w, (u32)t.at, n, in->mem.action == MEM_ATOMIC ? LDS_ATOMIC
                                   : write                      ? LDS_WRITE
                                                                : LDS_READ, lane);
        if (write)
            memset(g->lds_undef + t.at, 0, n);
        return g->lds + t.at;
    case TO_SCRATCH:
        if (t.at + n > g->scratch_bytes) {
            report(w, GCN_GLOBAL_BOUNDS, lane, "scratch: %u bytes at %llu of %u", n,
                   (unsigned long long)t.at, g->scratch_bytes);
            return NULL;
        }
        return w->scratch + (size_t)lane * g->scratch_bytes + t.at;
    default: return NULL;
    }
}

static const u8 all_undefined[16] = {255, 255, 255, 255, 255, 255, 255, 255,
                                     255, 255, 255, 255, 255, 255, 255, 255};
static const u8 zeros[16];

static void load(struct wave *w, const struct inst *in, int l, bool known)
{
    struct target t = known ? resolve(w, in, l) : (struct target){TO_GLOBAL, 0};
    const u8 *p = known ? bytes_at(w, in, t, false, l) : NULL;
    u32 row = in->mem.dst.reg - REG_V;
    if (p)
        load_lane(w, &in->mem, row, l, p, t.kind == TO_LDS ? w->g->lds_undef + t.at : NULL);
    else
        load_lane(w, &in->mem, row, l, zeros, t.kind == TO_NOWHERE ? NULL : all_undefined);
}

static void store(struct wave *w, const struct inst *in, int l)
{
    u8 data[16], undef[16];
    struct target t = resolve(w, in, l);
    u8 *p = bytes_at(w, in, t, true, l);
    if (!p)
        return;
    if (store_lane(w, &in->mem, in->mem.data.reg - REG_V, l, data, undef) && t.kind == TO_GLOBAL)
        report(w, GCN_UNDEFINED, l, "stores an undefined value");
    memcpy(p, data, in->mem.bytes);
}

static u64 wide_lane(const struct wave *w, u32 row, int l, u32 bytes)
{
    return w->v[row][l] | (bytes == 8 ? (u64)w->v[row + 1][l] << 32 : 0);
}

static void atomic(struct wave *w, const struct inst *in, int l)
{
    const struct mem *m = &in->mem;
    u8 *p = bytes_at(w, in, resolve(w, in, l), true, l);
    u32 row = m->data.reg - REG_V;
    u64 old = 0, x = wide_lane(w, row, l, m->bytes);
    if (p) {
        memcpy(&old, p, m->bytes);
        u64 cmp = m->atomic == AT_CMPSWAP ? wide_lane(w, row + m->bytes / 4, l, m->bytes) : 0;
        u64 r = atomic_result(m->atomic, m->bytes, old, x, cmp);
        memcpy(p, &r, m->bytes);
    }
    for (u32 i = 0; m->ret && i < m->bytes / 4u; i++)
        set_lane(w, m->dst.reg - REG_V + i, l, (u32)(old >> 32 * i), 0);
}

// Loads that bypass registers: lane l of the wave goes to LDS byte m0 + offset + 4 l.
static void lds_dma(struct wave *w, const struct inst *in, u64 lanes, struct pending *p)
{
    struct group *g = w->g;
    need_defined(w, &(struct operand){.kind = O_REG, .n = 1, .reg = REG_M0}, 1, "LDS base m0");
    p->lds_write = true;
    p->lds_bytes = in->mem.bytes;
    p->nspan = 1;
    p->lanes = 0;
    for (int l = 0; l < LANES; l++) {
        if (!(lanes >> l & 1))
            continue;
        u32 at = (w->s[REG_M0] & 0xffff) + (u32)in->mem.offset + 4 * (u32)l;
        struct target t = resolve(w, in, l);
        const u8 *from = bytes_at(w, in, t, false, l);
        if (at + 4 > g->lds_bytes) {
            report(w, GCN_LDS_BOUNDS, l, "4 bytes at %u of %u", at, g->lds_bytes);
            continue;
        }
        lds_touch(w, at, 4, LDS_WRITE, l);
        memcpy(g->lds + at, from ? from : zeros, 4);
        memset(g->lds_undef + at, from || t.kind == TO_NOWHERE ? 0 : 255, 4);
        p->lds_addr[0][l] = at;
        p->lanes |= (u64)1 << l;
    }
}

void x_vmem(struct wave *w, const struct inst *in)
{
    const struct mem *m = &in->mem;
    u64 lanes = exec_of(w), lost = 0; // lost: lanes whose address means nothing
    if (lanes && m->action != MEM_CACHE) {
        lost |= need_defined(w, &m->addr, lanes, "address");
        lost |= need_defined(w, &m->base, 1, "base address");
        if (!lost)
            need_resource(w, in, &m->base);
        lost |= need_defined(w, &m->soffset, 1, "offset");
        if (m->action == MEM_ATOMIC)
            need_defined(w, &m->data, lanes, "atomic operand");
    }
    struct pending *p = pend_vm(w, in);
    for (int l = 0; l < LANES && m->action < MEM_LDS_DMA; l++) {
        bool known = !(lost >> l & 1);
        if (!(lanes >> l & 1))
            continue;
        if (m->action == MEM_LOAD)
            load(w, in, l, known);
        else if (known)
            (m->action == MEM_STORE ? store : atomic)(w, in, l);
    }
    if (m->action == MEM_LDS_DMA)
        lds_dma(w, in, lanes & ~lost, p);
    pend_writes(w, p, m->dst, true);
    if (m->space == SP_FLAT) {
        p->flat = true;
        w->vm.nflat++;
        struct pending *q = pend_lgkm(w, in);
        q->flat = true;
        w->lgkm.nflat++;
        pend_writes(w, q, m->dst, false);
    }
}

// ---- scalar loads ----

// `dropped` says which dwords lie outside a buffer resource and read 0.
static void scalar_load(struct wave *w, const struct inst *in, u64 va, const bool *dropped,
                        bool known)
{
    const struct operand *d = &in->o[0];
    for (u32 i = 0; i < d->n; i++) {
        bool none = dropped && dropped[i];
        u8 *p = none || !known ? NULL : global_at(w, va + 4 * i, 4, false, -1);
        u32 x = 0;
        if (p) {
            global_touch(w, va + 4 * i, 4, LDS_READ, -1);
            memcpy(&x, p, 4);
        }
        w->s[d->reg + i] = x;
        w->su[d->reg + i] = p || (none && known) ? 0 : ~0u;
    }
    struct pending *p = pend_lgkm(w, in);
    p->smem = true;
    w->lgkm.nsmem++;
    pend_writes(w, p, *d, false);
}

void x_smem(struct wave *w, const struct inst *in)
{
    u64 lost = need_defined(w, &in->o[1], 1, "base address") |
               need_defined(w, &in->o[2], 1, "offset");
    u64 off = in->o[2].kind == O_CONST ? in->o[2].value : scalar(w, &in->o[2]);
    u64 va = s64(w, in->o[1].reg) + off + (u64)(i64)in->mem.offset;
    scalar_load(w, in, va & ~(u64)3, NULL, !lost);
}

void x_sbuffer(struct wave *w, const struct inst *in)
{
    u64 lost = need_defined(w, &in->o[1], 1, "resource") |
               need_defined(w, &in->o[2], 1, "offset");
    const u32 *r = &w->s[in->o[1].reg];
    u64 base = r[0] | (u64)(r[1] & 0xffff) << 32, stride = r[1] >> 16 & 0x3fff;
    u64 limit = stride ? stride * r[2] : r[2];
    u64 off = (scalar(w, &in->o[2]) + (u64)(i64)in->mem.offset) & ~(u64)3;
    bool dropped[16];
    for (u32 i = 0; i < 16; i++)
        dropped[i] = off + 4 * i + 4 > limit;
    scalar_load(w, in, base + off, dropped, !lost);
}
