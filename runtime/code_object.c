/* Reads ELF and MessagePack by hand, every access bounded. */
#include "code_object.h"

#include <elf.h>
#include <stdlib.h>
#include <string.h>

#include "fs.h"

enum { AMDGPU_METADATA = 32, MACHINE_MASK = 0xff, MAX_DEPTH = 16, SIMD_REGISTERS = 512 };

/* ---- MessagePack ---- */

typedef struct reader { const uint8_t *at, *end; int bad; } reader;
typedef enum { OTHER, INTEGER, TEXT, ARRAY, MAP } kind;
typedef struct item { kind kind; uint64_t n; const char *text; } item; /* value, length or elements */

static uint64_t take(reader *r, int bytes) {
    uint64_t x = 0;
    if (r->end - r->at < bytes) {
        r->bad = 1;
        r->at = r->end;
        return 0;
    }
    while (bytes--) x = x << 8 | *r->at++;
    return x;
}

static const char *take_text(reader *r, uint64_t n) {
    const char *text = (const char *)r->at;
    if ((uint64_t)(r->end - r->at) < n) {
        r->bad = 1;
        r->at = r->end;
        return "";
    }
    r->at += n;
    return text;
}

static item next(reader *r) {
    static const struct { uint8_t low, high; kind kind; uint8_t mask; } small[] = {
        {0x00, 0x7f, INTEGER, 0x7f}, {0x80, 0x8f, MAP, 15}, {0x90, 0x9f, ARRAY, 15}, {0xa0, 0xbf, TEXT, 31},
        {0xc0, 0xc0, OTHER, 0}, {0xc2, 0xc3, INTEGER, 1}, {0xe0, 0xff, INTEGER, 0xff},
    };
    static const struct { uint8_t tag; kind kind; int bytes; } sized[] = {
        {0xcc, INTEGER, 1}, {0xcd, INTEGER, 2}, {0xce, INTEGER, 4}, {0xcf, INTEGER, 8}, {0xd9, TEXT, 1},
        {0xda, TEXT, 2}, {0xdb, TEXT, 4}, {0xdc, ARRAY, 2}, {0xdd, ARRAY, 4}, {0xde, MAP, 2}, {0xdf, MAP, 4},
    };
    uint8_t tag = (uint8_t)take(r, 1);
    item x = {OTHER, 0, ""};
    int known = 0;
    for (size_t i = 0; i < sizeof small / sizeof *small; i++)
        if (tag >= small[i].low && tag <= small[i].high)
            x.kind = small[i].kind, x.n = tag & small[i].mask, known = 1;
    for (size_t i = 0; i < sizeof sized / sizeof *sized; i++)
        if (tag == sized[i].tag) x.kind = sized[i].kind, x.n = take(r, sized[i].bytes), known = 1;
    if (x.kind == TEXT) x.text = take_text(r, x.n);
    r->bad |= !known;
    return x;
}

static void skip(reader *r, const item *x, int depth) {
    uint64_t n = x->kind == MAP ? 2 * x->n : x->kind == ARRAY ? x->n : 0;
    r->bad |= depth > MAX_DEPTH;
    for (uint64_t i = 0; i < n && !r->bad; i++) {
        item inner = next(r);
        skip(r, &inner, depth + 1);
    }
}

static int is(const item *x, const char *name) {
    return x->kind == TEXT && x->n == strlen(name) && !memcmp(x->text, name, x->n);
}

/* ---- metadata ---- */

static const struct { const char *key; size_t at; } fields[] = {
    {".vgpr_count", offsetof(moec_code_object, vgprs)},
    {".agpr_count", offsetof(moec_code_object, agprs)},
    {".sgpr_count", offsetof(moec_code_object, sgprs)},
    {".vgpr_spill_count", offsetof(moec_code_object, vgpr_spills)},
    {".sgpr_spill_count", offsetof(moec_code_object, sgpr_spills)},
    {".private_segment_fixed_size", offsetof(moec_code_object, scratch_bytes)},
    {".group_segment_fixed_size", offsetof(moec_code_object, lds_bytes)},
};

static void read_kernel(reader *r, uint64_t keys, moec_code_object *out) {
    for (uint64_t i = 0; i < keys && !r->bad; i++) {
        item key = next(r), value = next(r);
        for (size_t f = 0; f < sizeof fields / sizeof *fields; f++)
            if (is(&key, fields[f].key) && value.kind == INTEGER)
                *(int64_t *)((char *)out + fields[f].at) = (int64_t)value.n;
        skip(r, &value, 0);
    }
}

/* The first entry of amdhsa.kernels; false when there is none. */
static int read_metadata(const uint8_t *note, size_t bytes, moec_code_object *out) {
    reader r = {note, note + bytes, 0};
    item top = next(&r);
    for (uint64_t i = 0; top.kind == MAP && i < top.n && !r.bad; i++) {
        item key = next(&r), value = next(&r);
        if (!is(&key, "amdhsa.kernels")) {
            skip(&r, &value, 0);
            continue;
        }
        item kernel = value.kind == ARRAY && value.n ? next(&r) : (item){OTHER, 0, ""};
        if (kernel.kind != MAP) return 0;
        read_kernel(&r, kernel.n, out);
        return !r.bad;
    }
    return 0;
}

/* ---- ELF ---- */

static int in_range(uint64_t at, uint64_t bytes, size_t count) { return at <= count && bytes <= count - at; }

/* Notes of one segment: {name bytes, data bytes, type} as 32-bit words, name, data, both padded to 4. */
static int read_notes(const uint8_t *at, uint64_t bytes, moec_code_object *out) {
    uint64_t p = 0;
    while (bytes - p >= 12) {
        uint32_t head[3];
        memcpy(head, at + p, sizeof head);
        uint64_t name = (head[0] + 3ull) & ~3ull, data = (head[1] + 3ull) & ~3ull;
        p += 12;
        if (name > bytes - p || head[1] > bytes - p - name) return 0;
        if (head[2] == AMDGPU_METADATA && head[0] == 7 && !memcmp(at + p, "AMDGPU", 7))
            return read_metadata(at + p + name, head[1], out);
        if (data > bytes - p - name) return 0;
        p += name + data;
    }
    return 0;
}

static const struct { int number; const char *name; } machines[] = {
    {0x4c, "gfx942"}, {0x3f, "gfx90a"}, {0x30, "gfx908"}, {0x2c, "gfx900"}, {0x2f, "gfx906"}, {0x40, "gfx940"},
    {0x4b, "gfx941"}, {0x4f, "gfx950"}, {0x41, "gfx1100"}, {0x36, "gfx1030"},
};

static const char *machine_name(int number) {
    for (size_t i = 0; i < sizeof machines / sizeof *machines; i++)
        if (machines[i].number == number) return machines[i].name;
    return "one without a name here";
}

static int machine_of(const moec_target *target) {
    for (size_t i = 0; i < sizeof machines / sizeof *machines; i++)
        if (!strcmp(machines[i].name, target->name)) return machines[i].number;
    return -1;
}

moec_status moec_code_object_read(const void *bytes, size_t count, const moec_target *target,
                                  moec_code_object *out, moec_error *err) {
    const uint8_t *file = bytes;
    Elf64_Ehdr head;
    *out = (moec_code_object){0};
    if (count < sizeof head) return moec_fail(err, MOEC_E_CORRUPT, "not a code object: %zu bytes", count);
    memcpy(&head, file, sizeof head);
    if (memcmp(head.e_ident, ELFMAG, SELFMAG) || head.e_ident[EI_CLASS] != ELFCLASS64 ||
        head.e_machine != EM_AMDGPU)
        return moec_fail(err, MOEC_E_CORRUPT, "not an AMD code object");
    int machine = (int)(head.e_flags & MACHINE_MASK);
    if (machine != machine_of(target)) {
        moec_status rc = moec_fail(err, MOEC_E_TOOL, "a code object for another machine (%s) than %s",
                                   machine_name(machine), target->name);
        return moec_hint(err, rc, "compile it again with moec gen -t %s --compile; a compiler that made it does not "
                         "heed %s", target->name, target->flags);
    }
    for (int i = 0; i < head.e_phnum; i++) {
        Elf64_Phdr segment;
        uint64_t at = head.e_phoff + (uint64_t)i * sizeof segment;
        if (!in_range(head.e_phoff, (uint64_t)(i + 1) * sizeof segment, count)) break;
        memcpy(&segment, file + at, sizeof segment);
        if (segment.p_type == PT_NOTE && in_range(segment.p_offset, segment.p_filesz, count) &&
            read_notes(file + segment.p_offset, segment.p_filesz, out))
            return MOEC_OK;
    }
    return moec_fail(err, MOEC_E_CORRUPT, "a code object without the metadata of a kernel");
}

moec_status moec_code_object_keeps(const moec_code_object *o, const moec_promise *promise, moec_error *err) {
    int64_t registers = (o->vgprs + 7) / 8 * 8;
    if (promise->lds_bytes && o->lds_bytes != promise->lds_bytes)
        return moec_fail(err, MOEC_E_COMPILE, "the code object takes %lld bytes of LDS; the template promises %d",
                         (long long)o->lds_bytes, promise->lds_bytes);
    if (promise->waves && registers && SIMD_REGISTERS / registers < promise->waves)
        return moec_fail(err, MOEC_E_COMPILE, "%lld vector registers leave no room for the %d waves of a SIMD "
                         "that the template promises", (long long)o->vgprs, promise->waves);
    return MOEC_OK;
}

moec_status moec_code_object_check(const char *path, const moec_target *target, moec_error *err) {
    moec_code_object o;
    char *image;
    size_t bytes;
    MOEC_TRY(moec_file_read(path, &image, &bytes, err));
    moec_status rc = moec_code_object_read(image, bytes, target, &o, err);
    free(image);
    MOEC_TRY(rc);
    if (!o.scratch_bytes && !o.vgpr_spills && !o.sgpr_spills) return MOEC_OK;
    rc = moec_fail(err, MOEC_E_COMPILE, "the compiler ran out of registers: %lld vector and %lld scalar ones "
                   "spilled, %lld bytes of scratch a lane", (long long)o.vgpr_spills,
                   (long long)o.sgpr_spills, (long long)o.scratch_bytes);
    return moec_hint(err, rc, "choose a smaller tile, or waves=1");
}
