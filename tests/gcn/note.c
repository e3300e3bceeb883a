// Kernel metadata: the AMDGPU note of a code object, a MessagePack map.
//
// A small reader walks the tree by recursive descent with a depth limit. Unknown keys are
// skipped, so that later metadata versions still load. Key names: "User Guide for AMDGPU
// Backend", code object V3 to V5 metadata.
#include "isa.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { NT_AMDGPU_METADATA_ID = 32, MAX_DEPTH = 16 };

struct pack {
    const u8 *p, *end;
    bool bad;
};
enum pack_kind { PK_OTHER, PK_INT, PK_STR, PK_ARRAY, PK_MAP };
struct item {
    enum pack_kind kind;
    u64 n; // value, length or element count
    const char *str;
};

static u64 take(struct pack *m, int bytes)
{
    if (m->end - m->p < bytes) {
        m->bad = true;
        m->p = m->end;
        return 0;
    }
    u64 x = 0;
    for (int i = 0; i < bytes; i++)
        x = x << 8 | *m->p++;
    return x;
}

static void take_bytes(struct pack *m, struct item *t)
{
    t->str = (const char *)m->p;
    if ((u64)(m->end - m->p) < t->n) {
        m->bad = true;
        t->n = 0;
    }
    m->p += t->n;
}

static struct item next(struct pack *m)
{
    struct item t = {PK_OTHER, 0, ""};
    u32 c = (u32)take(m, 1);
    if (c < 0x80 || c >= 0xe0)
        t.kind = PK_INT, t.n = (u64)(i64)(int8_t)c;
    else if (c < 0x90)
        t.kind = PK_MAP, t.n = c & 15;
    else if (c < 0xa0)
        t.kind = PK_ARRAY, t.n = c & 15;
    else if (c < 0xc0)
        t.kind = PK_STR, t.n = c & 31;
    else if (c == 0xc2 || c == 0xc3)
        t.kind = PK_INT, t.n = c & 1;
    else if (c >= 0xc4 && c <= 0xc6) // binary
        t.n = take(m, 1 << (c - 0xc4)), take_bytes(m, &t);
    else if (c == 0xca || c == 0xcb) // float
        take(m, c == 0xca ? 4 : 8);
    else if (c >= 0xcc && c <= 0xcf)
        t.kind = PK_INT, t.n = take(m, 1 << (c - 0xcc));
    else if (c >= 0xd0 && c <= 0xd3) {
        int bytes = 1 << (c - 0xd0), shift = 64 - 8 * bytes;
        t.kind = PK_INT, t.n = (u64)((i64)(take(m, bytes) << shift) >> shift);
    } else if (c >= 0xd9 && c <= 0xdb)
        t.kind = PK_STR, t.n = take(m, 1 << (c - 0xd9));
    else if (c == 0xdc || c == 0xdd)
        t.kind = PK_ARRAY, t.n = take(m, c == 0xdc ? 2 : 4);
    else if (c == 0xde || c == 0xdf)
        t.kind = PK_MAP, t.n = take(m, c == 0xde ? 2 : 4);
    else if (c != 0xc0)
        m->bad = true;
    if (t.kind == PK_STR)
        take_bytes(m, &t);
    return t;
}

static void skip(struct pack *m, const struct item *t, int depth)
{
    if (depth > MAX_DEPTH)
        m->bad = true;
    u64 n = t->kind == PK_MAP ? 2 * t->n : t->kind == PK_ARRAY ? t->n : 0;
    for (u64 i = 0; i < n && !m->bad; i++) {
        struct item x = next(m);
        skip(m, &x, depth + 1);
    }
}

static bool is(const struct item *t, const char *s)
{
    return t->kind == PK_STR && t->n == strlen(s) && !memcmp(t->str, s, t->n);
}

static const struct {
    const char *key;
    size_t offset;
} int_keys[] = {
    {".vgpr_count", offsetof(gcn_report, vgpr_count)},
    {".agpr_count", offsetof(gcn_report, agpr_count)},
    {".sgpr_count", offsetof(gcn_report, sgpr_count)},
    {".vgpr_spill_count", offsetof(gcn_report, vgpr_spills)},
    {".sgpr_spill_count", offsetof(gcn_report, sgpr_spills)},
    {".private_segment_fixed_size", offsetof(gcn_report, scratch_bytes)},
    {".group_segment_fixed_size", offsetof(gcn_report, lds_bytes)},
    {".kernarg_segment_size", offsetof(gcn_report, kernarg_bytes)},
    {".max_flat_workgroup_size", offsetof(gcn_report, max_workgroup)},
    {".wavefront_size", offsetof(gcn_report, wavefront_size)},
};

// Hidden arguments the runtime supplies; the index is what run.c fills in.
static const char *const hidden_kinds[] = {
    "hidden_block_count_x", "hidden_block_count_y", "hidden_block_count_z",
    "hidden_group_size_x", "hidden_group_size_y", "hidden_group_size_z",
    "hidden_remainder_x", "hidden_remainder_y", "hidden_remainder_z",
    "hidden_grid_dims", "hidden_dynamic_lds_size",
};

static void read_arg(struct pack *m, struct kernel *k, u64 n)
{
    struct hidden h = {0, 0, 0xffff};
    bool buffer = false;
    for (u64 i = 0; i < n && !m->bad; i++) {
        struct item key = next(m), val = next(m);
        if (is(&key, ".offset"))
            h.offset = (u16)val.n;
        else if (is(&key, ".size"))
            h.size = (u16)val.n;
        else if (is(&key, ".value_kind")) {
            buffer = is(&val, "global_buffer");
            for (u16 j = 0; j < sizeof hidden_kinds / sizeof *hidden_kinds; j++)
                if (is(&val, hidden_kinds[j]))
                    h.kind = j;
        }
        skip(m, &val, 0);
    }
    if (buffer && h.size == 8 && k->npointer < sizeof k->pointer / sizeof *k->pointer)
        k->pointer[k->npointer++] = h.offset;
    if (h.kind != 0xffff && k->nhidden < sizeof k->hidden / sizeof *k->hidden)
        k->hidden[k->nhidden++] = h;
}

static void read_kernel(struct pack *m, struct kernel *k, u64 n)
{
    for (u64 i = 0; i < n && !m->bad; i++) {
        struct item key = next(m), val = next(m);
        if (is(&key, ".args") && val.kind == PK_ARRAY) {
            for (u64 j = 0; j < val.n && !m->bad; j++) {
                struct item a = next(m);
                if (a.kind == PK_MAP)
                    read_arg(m, k, a.n);
            }
            continue;
        }
        if (is(&key, ".name") && val.kind == PK_STR)
            snprintf(k->report.name, sizeof k->report.name, "%.*s", (int)val.n, val.str);
        for (size_t j = 0; j < sizeof int_keys / sizeof *int_keys; j++)
            if (is(&key, int_keys[j].key))
                *(u32 *)((char *)&k->report + int_keys[j].offset) = (u32)val.n;
        skip(m, &val, 0);
    }
}

static gcn_status read_root(gcn_object *o, struct pack *m)
{
    struct item root = next(m);
    for (u64 i = 0; root.kind == PK_MAP && i < root.n && !m->bad; i++) {
        struct item key = next(m), val = next(m);
        if (!is(&key, "amdhsa.kernels") || val.kind != PK_ARRAY || val.n > 4096) {
            skip(m, &val, 0);
            continue;
        }
        if (!(o->kernel = calloc(val.n ? val.n : 1, sizeof *o->kernel)))
            return GCN_E_NOMEM;
        for (u64 j = 0; j < val.n && !m->bad; j++) {
            struct item k = next(m);
            if (k.kind != PK_MAP)
                return GCN_E_OBJECT;
            read_kernel(m, &o->kernel[j], k.n);
            o->nkernel = j + 1;
        }
    }
    return m->bad ? GCN_E_OBJECT : GCN_OK;
}

static u32 word_at(const u8 *p)
{
    return (u32)p[0] | (u32)p[1] << 8 | (u32)p[2] << 16 | (u32)p[3] << 24;
}

gcn_status note_read(gcn_object *o, const u8 *note, size_t bytes, char *msg, size_t room)
{
    size_t at = 0;
    while (bytes - at >= 12) {
        u64 name = word_at(note + at), size = word_at(note + at + 4);
        u64 desc = at + 12 + (name + 3) / 4 * 4;
        if (desc > bytes || size > bytes - desc)
            break;
        if (word_at(note + at + 8) == NT_AMDGPU_METADATA_ID && !o->kernel) {
            struct pack m = {note + desc, note + desc + size, false};
            gcn_status st = read_root(o, &m);
            if (st && msg)
                snprintf(msg, room, "kernel metadata is damaged");
            return st;
        }
        u64 next_at = desc + (size + 3) / 4 * 4;
        if (next_at > bytes)
            break;
        at = (size_t)next_at;
    }
    return GCN_OK;
}
