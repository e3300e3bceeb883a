// ELF side of a code object: loads its segments, finds kernels and their descriptors.
//
// The layout of the kernel descriptor (64 bytes) and of the e_flags is that of "User Guide for
// AMDGPU Backend" (LLVM documentation). Nothing in the file is trusted: every offset is checked
// against the file before use, since a truncated cache entry is a case the caller must survive.
#include "isa.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { EM_AMDGPU_ID = 224, MACH_GFX90A = 0x3f, MACH_GFX942 = 0x4c };
enum { PT_LOAD_ID = 1, PT_NOTE_ID = 4, SHT_DYNSYM_ID = 11, SHT_SYMTAB_ID = 2, STT_FUNC_ID = 2 };
enum { MAX_IMAGE = 64 << 20 };

static gcn_status fail(gcn_status st, char *msg, size_t room, const char *fmt, ...)
{
    if (msg && room) {
        va_list ap;
        va_start(ap, fmt);
        vsnprintf(msg, room, fmt, ap);
        va_end(ap);
    }
    return st;
}

static u64 get(const u8 *p, int n)
{
    u64 x = 0;
    for (int i = n - 1; i >= 0; i--)
        x = x << 8 | p[i];
    return x;
}

static bool inside(const gcn_object *o, u64 off, u64 n)
{
    return off <= o->elf_bytes && n <= o->elf_bytes - off;
}

static gcn_status read_header(gcn_object *o, char *msg, size_t room)
{
    const u8 *e = o->elf;
    if (o->elf_bytes < 64 || memcmp(e, "\177ELF\2\1", 6))
        return fail(GCN_E_OBJECT, msg, room, "not a 64-bit little-endian ELF file "
                    "(a fat binary? compile with --no-gpu-bundle-output)");
    if (get(e + 18, 2) != EM_AMDGPU_ID)
        return fail(GCN_E_ARCH, msg, room, "ELF machine %u is not AMDGPU", (u32)get(e + 18, 2));
    u32 mach = (u32)get(e + 48, 4) & 0xff;
    if (mach == MACH_GFX90A)
        o->arch = ARCH_GFX90A;
    else if (mach == MACH_GFX942)
        o->arch = ARCH_GFX942;
    else
        return fail(GCN_E_ARCH, msg, room,
                    "code object for machine 0x%x; known are gfx90a (0x3f) and gfx942 (0x4c)",
                    mach);
    return GCN_OK;
}

// Copies PT_LOAD segments to their addresses and reads PT_NOTE.
static gcn_status read_segments(gcn_object *o, char *msg, size_t room)
{
    u64 ph = get(o->elf + 32, 8), n = get(o->elf + 56, 2), size = get(o->elf + 54, 2);
    if (size < 56 || !inside(o, ph, n * size))
        return fail(GCN_E_OBJECT, msg, room, "program headers lie outside the file");
    for (u64 i = 0; i < n; i++) {
        const u8 *p = o->elf + ph + i * size;
        u64 end = get(p + 16, 8) + get(p + 40, 8);
        if (get(p, 4) == PT_LOAD_ID && end > o->image_bytes)
            o->image_bytes = end;
    }
    if (!o->image_bytes || o->image_bytes > MAX_IMAGE)
        return fail(GCN_E_OBJECT, msg, room, "segments need %llu bytes",
                    (unsigned long long)o->image_bytes);
    if (!(o->image = calloc(1, o->image_bytes)))
        return fail(GCN_E_NOMEM, msg, room, "out of memory");
    gcn_status st = GCN_OK;
    bool note = false;
    for (u64 i = 0; i < n && !st; i++) {
        const u8 *p = o->elf + ph + i * size;
        u64 off = get(p + 8, 8), at = get(p + 16, 8), bytes = get(p + 32, 8);
        u32 type = (u32)get(p, 4);
        if (type != PT_LOAD_ID && type != PT_NOTE_ID)
            continue;
        if (!inside(o, off, bytes))
            return fail(GCN_E_OBJECT, msg, room, "a segment lies outside the file: truncated?");
        if (type == PT_LOAD_ID) {
            if (at > o->image_bytes || bytes > o->image_bytes - at)
                return fail(GCN_E_OBJECT, msg, room, "a segment is larger than its memory");
            memcpy(o->image + at, o->elf + off, bytes);
            if (get(p + 4, 4) & 1) { // executable
                o->text_lo = at;
                o->text_hi = at + bytes;
                o->text_offset = off;
            }
        } else {
            note = true;
            st = note_read(o, o->elf + off, bytes, msg, room);
        }
    }
    if (!st && (!note || !o->nkernel))
        return fail(GCN_E_OBJECT, msg, room, "no kernel metadata note");
    if (!st && !o->text_hi)
        return fail(GCN_E_OBJECT, msg, room, "no executable segment");
    return st;
}

// Calls for each symbol; stops early when `each` says so.
typedef void symbol_fn(gcn_object *o, const char *name, u64 value, u64 size, int type);
static gcn_status each_symbol(gcn_object *o, symbol_fn *each, char *msg, size_t room)
{
    u64 sh = get(o->elf + 40, 8), n = get(o->elf + 60, 2);
    if (!inside(o, sh, n * 64))
        return fail(GCN_E_OBJECT, msg, room, "section headers lie outside the file: truncated?");
    for (u64 i = 0; i < n; i++) {
        const u8 *s = o->elf + sh + 64 * i;
        if (get(s + 4, 4) != SHT_DYNSYM_ID)
            continue;
        u64 off = get(s + 24, 8), size = get(s + 32, 8), link = get(s + 40, 4);
        if (link >= n || !inside(o, off, size))
            return fail(GCN_E_OBJECT, msg, room, "symbol table lies outside the file");
        const u8 *t = o->elf + sh + 64 * link;
        u64 str = get(t + 24, 8), str_size = get(t + 32, 8);
        if (!str_size || !inside(o, str, str_size) || o->elf[str + str_size - 1])
            return fail(GCN_E_OBJECT, msg, room, "string table is damaged");
        for (u64 j = 0; j < size / 24; j++) {
            const u8 *y = o->elf + off + 24 * j;
            u64 name = get(y, 4);
            if (name < str_size)
                each(o, (const char *)o->elf + str + name, get(y + 8, 8), get(y + 16, 8),
                     y[4] & 15);
        }
    }
    return GCN_OK;
}

static void match_symbol(gcn_object *o, const char *name, u64 value, u64 size, int type)
{
    for (size_t i = 0; i < o->nkernel; i++) {
        struct kernel *k = &o->kernel[i];
        size_t n = strlen(k->report.name);
        if (strncmp(name, k->report.name, n))
            continue;
        if (!strcmp(name + n, ".kd"))
            k->descriptor = value;
        else if (!name[n] && type == STT_FUNC_ID) {
            k->first = (u32)value; // addresses for now; decode turns them into indices
            k->last = (u32)(value + size);
        }
    }
}

// Register allocation as the descriptor encodes it: vector registers in units of 8, and on
// gfx90a and gfx942 the accumulation registers begin at accum_offset.
static gcn_status read_descriptor(gcn_object *o, struct kernel *k, char *msg, size_t room)
{
    if (!k->descriptor || k->descriptor + 64 > o->image_bytes || !k->last)
        return fail(GCN_E_OBJECT, msg, room, "kernel %s: no descriptor or no code",
                    k->report.name);
    const u8 *d = o->image + k->descriptor;
    k->entry = k->descriptor + get(d + 16, 8);
    k->rsrc3 = (u32)get(d + 44, 4);
    k->rsrc1 = (u32)get(d + 48, 4);
    k->rsrc2 = (u32)get(d + 52, 4);
    k->properties = (u32)get(d + 56, 2);
    u32 total = ((k->rsrc1 & 63) + 1) * 8;
    k->accum_offset = ((k->rsrc3 & 63) + 1) * 4;
    k->vgprs = total < k->accum_offset ? total : k->accum_offset;
    k->agprs = total - k->vgprs;
    k->sgprs = 102;
    if (k->entry < o->text_lo || k->entry >= o->text_hi || k->entry & 3)
        return fail(GCN_E_OBJECT, msg, room, "kernel %s: entry point 0x%llx outside the code",
                    k->report.name, (unsigned long long)k->entry);
    if (get(d, 4) != k->report.lds_bytes || get(d + 4, 4) != k->report.scratch_bytes)
        return fail(GCN_E_OBJECT, msg, room, "kernel %s: descriptor and metadata disagree",
                    k->report.name);
    return GCN_OK;
}

gcn_status object_load(gcn_object *o, const void *elf, size_t bytes, char *msg, size_t room)
{
    if (!elf || !(o->elf = malloc(bytes ? bytes : 1)))
        return fail(elf ? GCN_E_NOMEM : GCN_E_ARGS, msg, room, "no code object given");
    memcpy(o->elf, elf, bytes);
    o->elf_bytes = bytes;
    gcn_status st = read_header(o, msg, room);
    if (!st)
        st = read_segments(o, msg, room);
    if (!st)
        st = each_symbol(o, match_symbol, msg, room);
    for (size_t i = 0; i < o->nkernel && !st; i++)
        st = read_descriptor(o, &o->kernel[i], msg, room);
    return st;
}
