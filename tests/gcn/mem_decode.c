// Memory instructions: their names are built from parts, and so is their decoding.
//
//   space  global_ flat_ scratch_ buffer_ ds_
//   what   load/read, store/write, atomic
//   width  a row of the tables below
#include "isa.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct width {
    const char *name;
    u8 action, bytes;
    bool sext, d16, hi;
    u16 stride; // bytes per unit of offset0 and offset1; 0 for single accesses
};
static const struct width vmem_widths[] = {
    {"load_ubyte", MEM_LOAD, 1, false, false, false, 0},
    {"load_sbyte", MEM_LOAD, 1, true, false, false, 0},
    {"load_ushort", MEM_LOAD, 2, false, false, false, 0},
    {"load_sshort", MEM_LOAD, 2, true, false, false, 0},
    {"load_dword", MEM_LOAD, 4, false, false, false, 0},
    {"load_dwordx2", MEM_LOAD, 8, false, false, false, 0},
    {"load_dwordx3", MEM_LOAD, 12, false, false, false, 0},
    {"load_dwordx4", MEM_LOAD, 16, false, false, false, 0},
    {"load_ubyte_d16", MEM_LOAD, 1, false, true, false, 0},
    {"load_ubyte_d16_hi", MEM_LOAD, 1, false, true, true, 0},
    {"load_sbyte_d16", MEM_LOAD, 1, true, true, false, 0},
    {"load_sbyte_d16_hi", MEM_LOAD, 1, true, true, true, 0},
    {"load_short_d16", MEM_LOAD, 2, false, true, false, 0},
    {"load_short_d16_hi", MEM_LOAD, 2, false, true, true, 0},
    {"load_lds_dword", MEM_LDS_DMA, 4, false, false, false, 0},
    {"store_byte", MEM_STORE, 1, false, false, false, 0},
    {"store_byte_d16_hi", MEM_STORE, 1, false, true, true, 0},
    {"store_short", MEM_STORE, 2, false, false, false, 0},
    {"store_short_d16_hi", MEM_STORE, 2, false, true, true, 0},
    {"store_dword", MEM_STORE, 4, false, false, false, 0},
    {"store_dwordx2", MEM_STORE, 8, false, false, false, 0},
    {"store_dwordx3", MEM_STORE, 12, false, false, false, 0},
    {"store_dwordx4", MEM_STORE, 16, false, false, false, 0},
    {"wbl2", MEM_CACHE, 0, false, false, false, 0},
    {"invl2", MEM_CACHE, 0, false, false, false, 0},
    {"inv", MEM_CACHE, 0, false, false, false, 0},
    {"wbinvl1", MEM_CACHE, 0, false, false, false, 0},
    {"wbinvl1_vol", MEM_CACHE, 0, false, false, false, 0},
};
static const struct width ds_widths[] = {
    {"read_u8", MEM_LOAD, 1, false, false, false, 0},
    {"read_i8", MEM_LOAD, 1, true, false, false, 0},
    {"read_u16", MEM_LOAD, 2, false, false, false, 0},
    {"read_i16", MEM_LOAD, 2, true, false, false, 0},
    {"read_u8_d16", MEM_LOAD, 1, false, true, false, 0},
    {"read_u8_d16_hi", MEM_LOAD, 1, false, true, true, 0},
    {"read_i8_d16", MEM_LOAD, 1, true, true, false, 0},
    {"read_i8_d16_hi", MEM_LOAD, 1, true, true, true, 0},
    {"read_u16_d16", MEM_LOAD, 2, false, true, false, 0},
    {"read_u16_d16_hi", MEM_LOAD, 2, false, true, true, 0},
    {"read_b32", MEM_LOAD, 4, false, false, false, 0},
    {"read_b64", MEM_LOAD, 8, false, false, false, 0},
    {"read_b96", MEM_LOAD, 12, false, false, false, 0},
    {"read_b128", MEM_LOAD, 16, false, false, false, 0},
    {"read2_b32", MEM_LOAD, 4, false, false, false, 4},
    {"read2_b64", MEM_LOAD, 8, false, false, false, 8},
    {"read2st64_b32", MEM_LOAD, 4, false, false, false, 256},
    {"read2st64_b64", MEM_LOAD, 8, false, false, false, 512},
    {"write_b8", MEM_STORE, 1, false, false, false, 0},
    {"write_b16", MEM_STORE, 2, false, false, false, 0},
    {"write_b8_d16_hi", MEM_STORE, 1, false, true, true, 0},
    {"write_b16_d16_hi", MEM_STORE, 2, false, true, true, 0},
    {"write_b32", MEM_STORE, 4, false, false, false, 0},
    {"write_b64", MEM_STORE, 8, false, false, false, 0},
    {"write_b96", MEM_STORE, 12, false, false, false, 0},
    {"write_b128", MEM_STORE, 16, false, false, false, 0},
    {"write2_b32", MEM_STORE, 4, false, false, false, 4},
    {"write2_b64", MEM_STORE, 8, false, false, false, 8},
    {"write2st64_b32", MEM_STORE, 4, false, false, false, 256},
    {"write2st64_b64", MEM_STORE, 8, false, false, false, 512},
};

// The same operations under the names of both families; bytes of the element.
static const struct {
    const char *vmem, *ds;
    u8 atomic, bytes;
} atomics[] = {
    {"add", "add_u32", AT_ADD, 4}, {"add_x2", "add_u64", AT_ADD, 8},
    {"sub", "sub_u32", AT_SUB, 4}, {"sub_x2", "sub_u64", AT_SUB, 8},
    {NULL, "rsub_u32", AT_RSUB, 4},
    {"smin", "min_i32", AT_SMIN, 4}, {"smin_x2", "min_i64", AT_SMIN, 8},
    {"umin", "min_u32", AT_UMIN, 4}, {"umin_x2", "min_u64", AT_UMIN, 8},
    {"smax", "max_i32", AT_SMAX, 4}, {"smax_x2", "max_i64", AT_SMAX, 8},
    {"umax", "max_u32", AT_UMAX, 4}, {"umax_x2", "max_u64", AT_UMAX, 8},
    {"and", "and_b32", AT_AND, 4}, {"and_x2", "and_b64", AT_AND, 8},
    {"or", "or_b32", AT_OR, 4}, {"or_x2", "or_b64", AT_OR, 8},
    {"xor", "xor_b32", AT_XOR, 4}, {"xor_x2", "xor_b64", AT_XOR, 8},
    {"inc", "inc_u32", AT_INC, 4}, {"inc_x2", "inc_u64", AT_INC, 8},
    {"dec", "dec_u32", AT_DEC, 4}, {"dec_x2", "dec_u64", AT_DEC, 8},
    {"swap", "wrxchg_b32", AT_SWAP, 4}, {"swap_x2", "wrxchg_b64", AT_SWAP, 8},
    {"cmpswap", "cmpst_b32", AT_CMPSWAP, 4}, {"cmpswap_x2", "cmpst_b64", AT_CMPSWAP, 8},
    {"add_f32", "add_f32", AT_FADD, 4}, {"add_f64", "add_f64", AT_FADD, 8},
    {"min_f64", "min_f64", AT_FMIN, 8}, {"max_f64", "max_f64", AT_FMAX, 8},
    {NULL, "min_f32", AT_FMIN, 4}, {NULL, "max_f32", AT_FMAX, 4},
    {"pk_add_f16", "pk_add_f16", AT_PK_ADD_F16, 4},
    {"pk_add_bf16", "pk_add_bf16", AT_PK_ADD_BF16, 4},
};

#define ROW(name, exec) {name, NULL, exec, NULL, T_B32, T_B32, U_ANY, 0, 0, NULL}
static const struct {
    const char *prefix;
    u8 space;
    struct op op;
} spaces[] = {
    {"global_", SP_GLOBAL, ROW("global", x_vmem)}, {"flat_", SP_FLAT, ROW("flat", x_vmem)},
    {"scratch_", SP_SCRATCH, ROW("scratch", x_vmem)}, {"buffer_", SP_BUFFER, ROW("buffer", x_vmem)},
    {"ds_", SP_LDS, ROW("ds", x_ds)},
};
static const struct op ds_lane_op = ROW("ds_lane", x_ds_lane);
static const struct op ds_nop_op = ROW("ds_nop", x_nop);
static const struct op sload_op = ROW("s_load", x_smem), sbuffer_op = ROW("s_buffer", x_sbuffer);

static bool is_prefix(const char *name, const char *prefix)
{
    return !strncmp(name, prefix, strlen(prefix));
}

static bool ds_lane_name(const char *name, u8 *which)
{
    static const char *const names[] = {"ds_bpermute_b32", "ds_permute_b32", "ds_swizzle_b32"};
    for (u8 i = 0; i < 3; i++)
        if (!strcmp(name, names[i])) {
            *which = i;
            return true;
        }
    return false;
}

// "ds_add_rtn_u32" is "add_u32" with a result.
static void ds_atomic_name(const char *name, char *plain, size_t room, bool *ret)
{
    const char *rtn = strstr(name, "_rtn_");
    *ret = rtn != NULL;
    if (rtn)
        snprintf(plain, room, "%.*s%s", (int)(rtn - name), name, rtn + 4);
    else
        snprintf(plain, room, "%s", name);
}

static bool parse_what(const char *name, u8 space, struct mem *m)
{
    const struct width *t = space == SP_LDS ? ds_widths : vmem_widths;
    size_t n = space == SP_LDS ? sizeof ds_widths / sizeof *t : sizeof vmem_widths / sizeof *t;
    char plain[40];
    m->space = space;
    for (size_t i = 0; i < n; i++)
        if (!strcmp(name, t[i].name)) {
            m->action = t[i].action, m->bytes = t[i].bytes, m->sext = t[i].sext;
            m->d16 = t[i].d16, m->hi = t[i].hi;
            m->stride = t[i].stride;
            return true;
        }
    if (space == SP_LDS)
        ds_atomic_name(name, plain, sizeof plain, &m->ret);
    else if (is_prefix(name, "atomic_"))
        snprintf(plain, sizeof plain, "%s", name + 7);
    else
        return false;
    for (size_t i = 0; i < sizeof atomics / sizeof *atomics; i++) {
        const char *s = space == SP_LDS ? atomics[i].ds : atomics[i].vmem;
        if (s && !strcmp(plain, s)) {
            m->action = MEM_ATOMIC, m->atomic = atomics[i].atomic, m->bytes = atomics[i].bytes;
            return true;
        }
    }
    return false;
}

const struct op *mem_op(const char *name)
{
    struct mem m = {0};
    u8 which;
    if (ds_lane_name(name, &which))
        return &ds_lane_op;
    if (!strcmp(name, "ds_nop"))
        return &ds_nop_op;
    if (is_prefix(name, "s_load_dword"))
        return &sload_op;
    if (is_prefix(name, "s_buffer_load_dword"))
        return &sbuffer_op;
    for (size_t i = 0; i < sizeof spaces / sizeof *spaces; i++)
        if (is_prefix(name, spaces[i].prefix) &&
            parse_what(name + strlen(spaces[i].prefix), spaces[i].space, &m))
            return &spaces[i].op;
    return NULL;
}

static void reads(struct inst *in, const struct operand *o)
{
    if (o->kind == O_REG && in->nrd < 10)
        in->rd[in->nrd++] = (struct regs){o->reg, o->n};
}
static void writes(struct inst *in, const struct operand *o)
{
    if (o->kind == O_REG && in->nwr < 5)
        in->wr[in->nwr++] = (struct regs){o->reg, o->n};
}

static int number_after(const char *mods, const char *key)
{
    const char *p = strstr(mods, key);
    return p ? (int)strtol(p + strlen(key), NULL, 0) : 0;
}

// Which text operand is what, by space and action.
static bool assign(struct inst *in)
{
    struct mem *m = &in->mem;
    const struct operand *o = in->o;
    int n = in->no, i = 0;
    bool buffer = m->space == SP_BUFFER, ds = m->space == SP_LDS;
    int base = ds ? 1 : m->space == SP_FLAT ? 1 : buffer ? 3 : 2; // operands that form an address
    int data = m->action == MEM_LDS_DMA ? 0 : 1;
    if (ds && m->action == MEM_STORE && m->stride)
        data = 2;
    if (ds && m->action == MEM_ATOMIC && m->atomic == AT_CMPSWAP)
        data = 2;
    if (m->action == MEM_ATOMIC && !ds && !buffer)
        m->ret = n == base + data + 1;
    int want = base + data + (m->action == MEM_ATOMIC && m->ret && !buffer);
    if (n != want)
        return false;
    if (m->action == MEM_LOAD || (m->action == MEM_ATOMIC && m->ret && !buffer))
        m->dst = o[i++];
    if (buffer && m->action != MEM_LOAD && data)
        m->data = o[i++];
    m->addr = o[i++];
    if (!buffer && m->action != MEM_LOAD && data)
        m->data = o[i++];
    if (data == 2)
        m->data2 = o[i++];
    if (m->space == SP_GLOBAL || m->space == SP_SCRATCH)
        m->base = o[i++];
    if (buffer) {
        m->base = o[i++];
        m->soffset = o[i++];
        if (m->ret)
            m->dst = m->data;
    }
    return i == n;
}

static bool ds_lane_decode(struct inst *in, const char *name)
{
    ds_lane_name(name, &in->mem.atomic);
    in->mem.offset = (i32)(in->word[0] & 0xffff);
    bool swizzle = in->mem.atomic == 2;
    if (in->no != (swizzle ? 2 : 3))
        return false;
    writes(in, &in->o[0]);
    for (int i = 1; i < in->no; i++)
        reads(in, &in->o[i]);
    in->mem.space = SP_LDS;
    in->nd = 1;
    return true;
}

static bool smem_decode(struct inst *in, const char *mods)
{
    if (in->no != 3)
        return false;
    in->mem.offset = number_after(mods, "offset:");
    in->nd = 1;
    writes(in, &in->o[0]);
    reads(in, &in->o[1]);
    reads(in, &in->o[2]);
    return true;
}

static const struct operand reg_m0 = {.kind = O_REG, .n = 1, .reg = REG_M0};

bool mem_decode(struct inst *in, const char *mods)
{
    struct mem *m = &in->mem;
    char name[40];
    snprintf(name, sizeof name, "%.*s", (int)strcspn(in->text, " "), in->text);
    if (in->op == &ds_nop_op)
        return true;
    if (in->op == &ds_lane_op)
        return ds_lane_decode(in, name);
    if (in->op == &sload_op || in->op == &sbuffer_op)
        return smem_decode(in, mods);
    const char *rest = strchr(name, '_') + 1;
    for (size_t i = 0; i < sizeof spaces / sizeof *spaces; i++)
        if (in->op == &spaces[i].op)
            parse_what(rest, spaces[i].space, m);
    if (strstr(mods, "gds") || strstr(mods, "tfe"))
        return false;
    if (m->action == MEM_CACHE)
        return true;
    if (m->space == SP_BUFFER && strstr(mods, "lds"))
        m->action = MEM_LDS_DMA;
    m->offset = number_after(mods, "offset:");
    m->offset0 = (u8)number_after(mods, "offset0:");
    m->offset1 = (u8)number_after(mods, "offset1:");
    m->offen = strstr(mods, "offen") != NULL;
    m->idxen = strstr(mods, "idxen") != NULL;
    if (m->space == SP_BUFFER && m->action == MEM_ATOMIC)
        m->ret = strstr(mods, "glc") || strstr(mods, "sc0");
    if (!assign(in))
        return false;
    reads(in, &m->data); // data first: ndata counts it
    reads(in, &m->data2);
    in->ndata = in->nrd;
    reads(in, &m->addr);
    reads(in, &m->base);
    reads(in, &m->soffset);
    if (m->action == MEM_LDS_DMA)
        reads(in, &reg_m0);
    if (m->dst.kind == O_REG)
        writes(in, &m->dst);
    if (m->d16 && m->action == MEM_LOAD)
        reads(in, &m->dst);
    return true;
}
