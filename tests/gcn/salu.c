// Scalar instructions: arithmetic on the wave's scalar registers, branches, exec, mode.
//
// A scalar function sees both sources at 64 bits and scc; rows say how wide the result is and
// whether scc is written. Definedness is exact for bitwise operations, else all or nothing.
#include "isa.h"

#include <math.h>
#include <string.h>

struct scalar {
    u64 a, b, old;
    u32 scc;
};
typedef u64 scalar_fn(struct scalar *s);

enum { SCC_OUT = 1, SCC_IN = 2, BITWISE_AND = 4, BITWISE_OR = 8, BITWISE = 16, MOVES = 32,
       BITWISE_ANDN2 = 64 };

static u64 operand64(struct wave *w, const struct operand *o, u64 *un)
{
    *un = 0;
    if (o->kind != O_REG)
        return o->value;
    *un = w->su[o->reg] | (o->n > 1 ? (u64)w->su[o->reg + 1] << 32 : 0);
    return w->s[o->reg] | (o->n > 1 ? (u64)w->s[o->reg + 1] << 32 : 0);
}

static void set_scalar(struct wave *w, const struct operand *d, u64 x, u64 un)
{
    w->s[d->reg] = (u32)x;
    w->su[d->reg] = (u32)un;
    if (d->n > 1) {
        w->s[d->reg + 1] = (u32)(x >> 32);
        w->su[d->reg + 1] = (u32)(un >> 32);
    }
    if (un && d->reg <= REG_EXEC + 1 && d->reg + d->n > REG_EXEC)
        report(w, GCN_UNDEFINED, -1, "exec is set from an undefined value");
}

static u64 brev(u64 x, int n)
{
    u64 r = 0;
    for (int i = 0; i < n; i++)
        r |= (x >> i & 1) << (n - 1 - i);
    return r;
}
static u64 ones(u64 x)
{
    return (u64)__builtin_popcountll(x);
}
static u64 sign32(u64 x)
{
    return (u64)(i64)(i32)x;
}
static u64 flbit_i(u64 x, int n)
{
    u64 sign = x >> (n - 1) & 1;
    for (int i = n - 2; i >= 0; i--)
        if ((x >> i & 1) != sign)
            return (u64)(n - 1 - i);
    return ~(u64)0;
}
static u64 bfe(u64 x, u64 ctl, int width, bool sext)
{
    u64 at = ctl & (u64)(width - 1), n = ctl >> 16 & 127;
    if (!n)
        return 0;
    x >>= at;
    if (n >= 64)
        return x;
    x &= ((u64)1 << n) - 1;
    return sext && x >> (n - 1) & 1 ? x | ~(u64)0 << n : x;
}
static u64 overflow(u64 a, u64 b, u64 r) // of a + b at 32 bits
{
    return (~(a ^ b) & (a ^ r)) >> 31 & 1;
}

// R is the result, s->scc the flag; A and B are the sources zero-extended from their width.
// The type is that of the sources; it decides how constants widen.
#define SCALAR_ROWS(X) \
    X(s_mov_b32, T_B32, "ds", BITWISE, R = A) \
    X(s_mov_b64, T_B64, "ds", BITWISE, R = A) \
    X(s_not_b32, T_B32, "ds", BITWISE | SCC_OUT, R = (u32)~A; s->scc = R != 0) \
    X(s_not_b64, T_B64, "ds", BITWISE | SCC_OUT, R = ~A; s->scc = R != 0) \
    X(s_brev_b32, T_B32, "ds", MOVES, R = brev(A, 32)) \
    X(s_brev_b64, T_B64, "ds", MOVES, R = brev(A, 64)) \
    X(s_bcnt0_i32_b32, T_B32, "ds", SCC_OUT, R = 32 - ones(A); s->scc = R != 0) \
    X(s_bcnt0_i32_b64, T_B64, "ds", SCC_OUT, R = 64 - ones(A); s->scc = R != 0) \
    X(s_bcnt1_i32_b32, T_B32, "ds", SCC_OUT, R = ones(A); s->scc = R != 0) \
    X(s_bcnt1_i32_b64, T_B64, "ds", SCC_OUT, R = ones(A); s->scc = R != 0) \
    X(s_ff1_i32_b32, T_B32, "ds", 0, R = A ? (u64)__builtin_ctzll(A) : ~(u64)0) \
    X(s_ff1_i32_b64, T_B64, "ds", 0, R = A ? (u64)__builtin_ctzll(A) : ~(u64)0) \
    X(s_ff0_i32_b32, T_B32, "ds", 0, R = (u32)~A ? (u64)__builtin_ctzll(~A) : ~(u64)0) \
    X(s_ff0_i32_b64, T_B64, "ds", 0, R = ~A ? (u64)__builtin_ctzll(~A) : ~(u64)0) \
    X(s_flbit_i32_b32, T_B32, "ds", 0, R = A ? (u64)__builtin_clzll(A) - 32 : ~(u64)0) \
    X(s_flbit_i32_b64, T_B64, "ds", 0, R = A ? (u64)__builtin_clzll(A) : ~(u64)0) \
    X(s_flbit_i32, T_B32, "ds", 0, R = flbit_i(A, 32)) \
    X(s_flbit_i32_i64, T_B64, "ds", 0, R = flbit_i(A, 64)) \
    X(s_sext_i32_i8, T_B32, "ds", MOVES, R = (u64)(i64)(int8_t)A) \
    X(s_sext_i32_i16, T_B32, "ds", MOVES, R = (u64)(i64)(int16_t)A) \
    X(s_abs_i32, T_B32, "ds", SCC_OUT, R = (i32)A < 0 ? (u32)-A : A; s->scc = R != 0) \
    X(s_add_u32, T_B32, "dss", SCC_OUT, R = A + B; s->scc = R >> 32 & 1) \
    X(s_sub_u32, T_B32, "dss", SCC_OUT, R = A - B; s->scc = R >> 32 & 1) \
    X(s_add_i32, T_B32, "dss", SCC_OUT, R = A + B; s->scc = (u32)overflow(A, B, R)) \
    X(s_sub_i32, T_B32, "dss", SCC_OUT, R = A - B; s->scc = (u32)((A ^ B) & (A ^ R)) >> 31) \
    X(s_addc_u32, T_B32, "dss", SCC_OUT | SCC_IN, R = A + B + s->scc; s->scc = R >> 32 & 1) \
    X(s_subb_u32, T_B32, "dss", SCC_OUT | SCC_IN, R = A - B - s->scc; s->scc = R >> 32 & 1) \
    X(s_min_i32, T_B32, "dss", SCC_OUT, s->scc = (i32)A < (i32)B; R = s->scc ? A : B) \
    X(s_max_i32, T_B32, "dss", SCC_OUT, s->scc = (i32)A > (i32)B; R = s->scc ? A : B) \
    X(s_min_u32, T_B32, "dss", SCC_OUT, s->scc = A < B; R = s->scc ? A : B) \
    X(s_max_u32, T_B32, "dss", SCC_OUT, s->scc = A > B; R = s->scc ? A : B) \
    X(s_and_b32, T_B32, "dss", BITWISE_AND | SCC_OUT, R = A & B; s->scc = R != 0) \
    X(s_and_b64, T_B64, "dss", BITWISE_AND | SCC_OUT, R = A & B; s->scc = R != 0) \
    X(s_or_b32, T_B32, "dss", BITWISE_OR | SCC_OUT, R = A | B; s->scc = R != 0) \
    X(s_or_b64, T_B64, "dss", BITWISE_OR | SCC_OUT, R = A | B; s->scc = R != 0) \
    X(s_xor_b32, T_B32, "dss", BITWISE | SCC_OUT, R = A ^ B; s->scc = R != 0) \
    X(s_xor_b64, T_B64, "dss", BITWISE | SCC_OUT, R = A ^ B; s->scc = R != 0) \
    X(s_andn2_b32, T_B32, "dss", BITWISE_ANDN2 | SCC_OUT, R = A & (u32)~B; s->scc = R != 0) \
    X(s_andn2_b64, T_B64, "dss", BITWISE_ANDN2 | SCC_OUT, R = A & ~B; s->scc = R != 0) \
    X(s_orn2_b32, T_B32, "dss", BITWISE | SCC_OUT, R = A | (u32)~B; s->scc = R != 0) \
    X(s_orn2_b64, T_B64, "dss", BITWISE | SCC_OUT, R = A | ~B; s->scc = R != 0) \
    X(s_nand_b32, T_B32, "dss", BITWISE | SCC_OUT, R = (u32)~(A & B); s->scc = R != 0) \
    X(s_nand_b64, T_B64, "dss", BITWISE | SCC_OUT, R = ~(A & B); s->scc = R != 0) \
    X(s_nor_b32, T_B32, "dss", BITWISE | SCC_OUT, R = (u32)~(A | B); s->scc = R != 0) \
    X(s_nor_b64, T_B64, "dss", BITWISE | SCC_OUT, R = ~(A | B); s->scc = R != 0) \
    X(s_xnor_b32, T_B32, "dss", BITWISE | SCC_OUT, R = (u32)~(A ^ B); s->scc = R != 0) \
    X(s_xnor_b64, T_B64, "dss", BITWISE | SCC_OUT, R = ~(A ^ B); s->scc = R != 0) \
    X(s_lshl_b32, T_B32, "dss", MOVES | SCC_OUT, R = (u32)(A << (B & 31)); s->scc = R != 0) \
    X(s_lshl_b64, T_B64, "dss", MOVES | SCC_OUT, R = A << (B & 63); s->scc = R != 0) \
    X(s_lshr_b32, T_B32, "dss", MOVES | SCC_OUT, R = (u32)A >> (B & 31); s->scc = R != 0) \
    X(s_lshr_b64, T_B64, "dss", MOVES | SCC_OUT, R = A >> (B & 63); s->scc = R != 0) \
    X(s_ashr_i32, T_B32, "dss", MOVES | SCC_OUT, R = (u32)((i32)A >> (B & 31)); s->scc = R != 0) \
    X(s_ashr_i64, T_B64, "dss", MOVES | SCC_OUT, R = (u64)((i64)A >> (B & 63)); s->scc = R != 0) \
    X(s_bfm_b32, T_B32, "dss", 0, R = (((u64)1 << (A & 31)) - 1) << (B & 31)) \
    X(s_bfm_b64, T_B64, "dss", 0, R = (((u64)1 << (A & 63)) - 1) << (B & 63)) \
    X(s_mul_i32, T_B32, "dss", 0, R = A * B) \
    X(s_mul_hi_u32, T_B32, "dss", 0, R = (u64)(u32)A * (u32)B >> 32) \
    X(s_mul_hi_i32, T_B32, "dss", 0, R = sign32(A) * sign32(B) >> 32) \
    X(s_bfe_u32, T_B32, "dss", MOVES | SCC_OUT, R = bfe((u32)A, B, 32, false); s->scc = R != 0) \
    X(s_bfe_i32, T_B32, "dss", MOVES | SCC_OUT, \
      R = (u32)bfe((u32)A, B, 32, true); s->scc = R != 0) \
    X(s_bfe_u64, T_B64, "dss", MOVES | SCC_OUT, R = bfe(A, B, 64, false); s->scc = R != 0) \
    X(s_bfe_i64, T_B64, "dss", MOVES | SCC_OUT, R = bfe(A, B, 64, true); s->scc = R != 0) \
    X(s_absdiff_i32, T_B32, "dss", SCC_OUT, \
      R = (u32)((i32)A > (i32)B ? A - B : B - A); s->scc = R != 0) \
    X(s_lshl1_add_u32, T_B32, "dss", SCC_OUT, R = (A << 1) + B; s->scc = R >> 32 != 0) \
    X(s_lshl2_add_u32, T_B32, "dss", SCC_OUT, R = (A << 2) + B; s->scc = R >> 32 != 0) \
    X(s_lshl3_add_u32, T_B32, "dss", SCC_OUT, R = (A << 3) + B; s->scc = R >> 32 != 0) \
    X(s_lshl4_add_u32, T_B32, "dss", SCC_OUT, R = (A << 4) + B; s->scc = R >> 32 != 0) \
    X(s_pack_ll_b32_b16, T_B32, "dss", 0, R = (A & 0xffff) | (B & 0xffff) << 16) \
    X(s_pack_lh_b32_b16, T_B32, "dss", 0, R = (A & 0xffff) | (B & 0xffff0000)) \
    X(s_pack_hh_b32_b16, T_B32, "dss", 0, R = A >> 16 | (B & 0xffff0000)) \
    X(s_bitset0_b32, T_B32, "xs", 0, R = s->old & ~((u64)1 << (A & 31))) \
    X(s_bitset1_b32, T_B32, "xs", 0, R = s->old | (u64)1 << (A & 31)) \
    X(s_bitset0_b64, T_B64, "xs", 0, R = s->old & ~((u64)1 << (A & 63))) \
    X(s_bitset1_b64, T_B64, "xs", 0, R = s->old | (u64)1 << (A & 63)) \
    X(s_cmov_b32, T_B32, "xs", SCC_IN, R = s->scc ? A : s->old) \
    X(s_cmov_b64, T_B64, "xs", SCC_IN, R = s->scc ? A : s->old)

#define DEFINE(name, type, sig, flags, body) \
    static u64 f_##name(struct scalar *s) \
    { \
        u64 A = s->a, B = s->b, R; \
        (void)A, (void)B; \
        body; \
        return R; \
    }
SCALAR_ROWS(DEFINE)

static u64 undefined_scalar(const struct inst *in, const struct scalar *s, u64 ua, u64 ub)
{
    u32 rule = in->op->param;
    if (!(ua | ub))
        return 0;
    if (rule & BITWISE)
        return ua | ub;
    if (rule & BITWISE_AND)
        return (ua | ub) & (ua | s->a) & (ub | s->b);
    if (rule & BITWISE_ANDN2)
        return (ua | ub) & (ua | s->a) & (ub | ~s->b);
    if (rule & BITWISE_OR)
        return (ua | ub) & (ua | ~s->a) & (ub | ~s->b);
    if (rule & MOVES && !ub) {
        struct scalar t = {ua, s->b, 0, 0};
        return ((scalar_fn *)in->op->fn)(&t);
    }
    return ~(u64)0;
}

void x_salu(struct wave *w, const struct inst *in)
{
    u64 ua = 0, ub = 0, uold = 0;
    bool keeps = in->op->sig[0] == 'x';
    struct scalar s = {0, 0, 0, w->scc};
    bool wide = in->op->type == T_B64;
    s.a = operand64(w, &in->o[1], &ua);
    if (in->no > 2)
        s.b = operand64(w, &in->o[2], &ub);
    if (keeps)
        s.old = operand64(w, &in->o[0], &uold);
    if (!wide) // constants are sign-extended; 32-bit operations see 32 bits
        s.a = (u32)s.a, s.b = (u32)s.b;
    u64 r = ((scalar_fn *)in->op->fn)(&s), un = undefined_scalar(in, &s, ua, ub) | uold;
    if (in->op->param & SCC_IN && w->scc_u)
        un = ~(u64)0;
    if (in->op->param & SCC_OUT)
        w->scc = s.scc, w->scc_u = un != 0;
    set_scalar(w, &in->o[0], r, un);
}

void x_cselect(struct wave *w, const struct inst *in)
{
    u64 un, x = operand64(w, &in->o[w->scc ? 1 : 2], &un);
    set_scalar(w, &in->o[0], x, w->scc_u ? ~(u64)0 : un);
}

enum { SE_AND, SE_OR, SE_XOR, SE_ANDN2, SE_ORN2, SE_NAND, SE_NOR, SE_XNOR, SE_ANDN1, SE_ORN1 };
enum { SE_WREXEC = 16 }; // the result goes to dst as well as to exec

static u64 exec_function(u32 kind, u64 s, u64 exec)
{
    switch (kind & 15) {
    case SE_AND: return s & exec;
    case SE_OR: return s | exec;
    case SE_XOR: return s ^ exec;
    case SE_ANDN2: return s & ~exec;
    case SE_ORN2: return s | ~exec;
    case SE_NAND: return ~(s & exec);
    case SE_NOR: return ~(s | exec);
    case SE_XNOR: return ~(s ^ exec);
    case SE_ANDN1: return ~s & exec;
    default: return ~s | exec;
    }
}

void x_saveexec(struct wave *w, const struct inst *in)
{
    u64 un, s = operand64(w, &in->o[1], &un), exec = exec_of(w);
    u64 r = exec_function(in->op->param, s, exec);
    un &= exec | (in->op->param & 15 ? ~(u64)0 : 0); // "and" with 0 is defined
    if (un)
        report(w, GCN_UNDEFINED, __builtin_ctzll(un), "exec is set from an undefined value");
    set_scalar(w, &in->o[0], in->op->param & SE_WREXEC ? r : exec, 0);
    set_s64(w, REG_EXEC, r);
    w->scc = r != 0;
    w->scc_u = 0;
}

enum { CMP_EQ, CMP_LG, CMP_GT, CMP_GE, CMP_LT, CMP_LE, CMP_BIT0, CMP_BIT1, CMP_KIND = 15 };
enum { CMP_SIGNED = 16, CMP_IMM = 32 };

static bool scalar_compare(u32 how, u64 a, u64 b, bool wide)
{
    i64 x = how & CMP_SIGNED ? (i64)(i32)a : 0, y = how & CMP_SIGNED ? (i64)(i32)b : 0;
    bool less = how & CMP_SIGNED ? x < y : a < b;
    switch (how & CMP_KIND) {
    case CMP_EQ: return a == b;
    case CMP_LG: return a != b;
    case CMP_GT: return !less && a != b;
    case CMP_GE: return !less;
    case CMP_LT: return less;
    case CMP_LE: return less || a == b;
    case CMP_BIT0: return !(a >> (b & (wide ? 63 : 31)) & 1);
    default: return a >> (b & (wide ? 63 : 31)) & 1;
    }
}

static u64 simm16(const struct inst *in, bool sext)
{
    u32 x = in->word[0] & 0xffff;
    return sext ? (u32)(i32)(int16_t)x : x;
}

void x_sopc(struct wave *w, const struct inst *in)
{
    u64 ua, ub = 0, a = operand64(w, &in->o[0], &ua), b;
    if (in->op->param & CMP_IMM)
        b = simm16(in, in->op->param & CMP_SIGNED);
    else
        b = operand64(w, &in->o[1], &ub);
    bool wide = in->op->type == T_B64;
    if (!wide)
        a = (u32)a, b = (u32)b;
    w->scc = scalar_compare(in->op->param, a, b, wide);
    w->scc_u = (ua | ub) != 0;
}

enum { K_MOV, K_CMOV, K_ADD, K_MUL };
void x_sopk(struct wave *w, const struct inst *in)
{
    u64 un, old = operand64(w, &in->o[0], &un), k = simm16(in, true), r = k;
    switch (in->op->param) {
    case K_MOV: un = 0; break;
    case K_CMOV:
        r = w->scc ? k : old;
        un = w->scc_u ? ~(u64)0 : w->scc ? 0 : un;
        break;
    case K_ADD:
        r = old + k;
        w->scc = (u32)overflow(old, k, r);
        w->scc_u = un != 0;
        break;
    case K_MUL: r = old * k; break;
    }
    set_scalar(w, &in->o[0], (u32)r, un ? ~(u64)0 : 0);
}

enum { BR_ALWAYS, BR_SCC0, BR_SCC1, BR_VCCZ, BR_VCCNZ, BR_EXECZ, BR_EXECNZ };

static void jump(struct wave *w, u64 address)
{
    const gcn_object *o = w->g->obj;
    u32 at = address < o->image_bytes && !(address & 3) ? o->inst_at[address / 4] : 0;
    if (!at) {
        report(w, GCN_HANG, -1, "jump to 0x%llx, which is not an instruction",
               (unsigned long long)address);
        w->g->stop = true;
        return;
    }
    w->next = at - 1;
}

void x_branch(struct wave *w, const struct inst *in)
{
    u64 vcc = s64(w, REG_VCC), uvcc = w->su[REG_VCC] | w->su[REG_VCC + 1], exec = exec_of(w);
    bool taken = false, undefined = false;
    switch (in->op->param) {
    case BR_ALWAYS: taken = true; break;
    case BR_SCC0: taken = !w->scc, undefined = w->scc_u; break;
    case BR_SCC1: taken = w->scc, undefined = w->scc_u; break;
    case BR_VCCZ: taken = !vcc, undefined = uvcc; break;
    case BR_VCCNZ: taken = vcc, undefined = uvcc; break;
    case BR_EXECZ: taken = !exec; break;
    case BR_EXECNZ: taken = exec; break;
    }
    if (undefined)
        report(w, GCN_UNDEFINED, -1, "branch on an undefined condition");
    if (taken)
        jump(w, in->address + 4 + (u64)(4 * (i64)(int16_t)in->word[0]));
}

enum { P_NOP, P_END, P_BARRIER, P_WAITCNT };
void x_sopp(struct wave *w, const struct inst *in)
{
    u32 k = in->word[0] & 0xffff;
    switch (in->op->param) {
    case P_END: w->state = W_END; break;
    case P_BARRIER:
        w->state = W_BARRIER;
        w->barrier_at = in;
        break;
    case P_WAITCNT:
        wait_vm(w, (int)((k & 15) | (k >> 14 & 3) << 4));
        wait_lgkm(w, (int)(k >> 8 & 15));
        break;
    }
}
void x_nop(struct wave *w, const struct inst *in)
{
    (void)w, (void)in;
}

// Code addresses as the program sees them: the image has a home in the registered buffers.
static u64 image_va(const struct wave *w)
{
    return (u64)(uintptr_t)w->g->obj->image;
}
void x_getpc(struct wave *w, const struct inst *in)
{
    set_scalar(w, &in->o[0], image_va(w) + in->address + 4, 0);
}
void x_setpc(struct wave *w, const struct inst *in)
{
    u64 un, to = operand64(w, &in->o[in->no - 1], &un);
    if (un)
        report(w, GCN_UNDEFINED, -1, "jump to an undefined address");
    if (in->no == 2)
        set_scalar(w, &in->o[0], image_va(w) + in->address + 4, 0);
    jump(w, to - image_va(w));
}

enum { HWREG_MODE = 1 };
void x_getreg(struct wave *w, const struct inst *in)
{
    u32 k = in->word[0] & 0xffff, at = k >> 6 & 31, n = (k >> 11 & 31) + 1;
    u32 x = (k & 63) == HWREG_MODE ? w->mode : 0;
    set_scalar(w, &in->o[0], x >> at & (u32)(((u64)1 << n) - 1), 0);
}
void x_setreg(struct wave *w, const struct inst *in)
{
    u32 k = in->word[0] & 0xffff, at = k >> 6 & 31, n = (k >> 11 & 31) + 1;
    u64 un = 0, x = in->op->param ? in->word[1] : operand64(w, &in->o[1], &un);
    u32 mask = (u32)(((u64)1 << n) - 1) << at;
    if (un)
        report(w, GCN_UNDEFINED, -1, "hardware register set from an undefined value");
    if ((k & 63) == HWREG_MODE)
        w->mode = (w->mode & ~mask) | ((u32)x << at & mask);
    w->t->last_setreg = w->clock;
}
// Register indexing: the mode's bits say which operands of vector instructions move by m0[7:0].
enum { GI_ON, GI_OFF, GI_MODE, GI_INDEX };
void x_gpr_index(struct wave *w, const struct inst *in)
{
    u32 mode = in->op->param == GI_ON ? in->word[0] >> 8 & 15 : in->word[0] & 15;
    if (in->op->param == GI_ON || in->op->param == GI_INDEX) {
        need_defined(w, &in->o[0], 1, "register index");
        u64 un, x = operand64(w, &in->o[0], &un);
        w->s[REG_M0] = (w->s[REG_M0] & ~255u) | ((u32)x & 255);
        w->su[REG_M0] = 0;
    }
    if (in->op->param != GI_INDEX)
        w->indexed = in->op->param == GI_OFF ? 0 : mode;
}

void x_memtime(struct wave *w, const struct inst *in)
{
    set_scalar(w, &in->o[0], w->g->result->instructions, 0);
    struct pending *p = pend_lgkm(w, in);
    if (p) {
        p->smem = true;
        w->lgkm.nsmem++;
        pend_writes(w, p, in->o[0], false);
    }
}

#define ROW(name, type, sig, flags, body) \
    {#name, sig, x_salu, (any_fn *)f_##name, type, T_B32, U_ANY, OF_SALU, flags, NULL},
#define R(name, sig, exec, type, param) \
    {name, sig, exec, NULL, type, T_B32, U_ANY, OF_SALU, param, NULL}
#define SAVEEXEC(name, kind) R("s_" name "_b64", "ds", x_saveexec, T_B64, kind)
#define CMP(name, how) R("s_cmp_" name, "ss", x_sopc, T_B32, how)
#define CMPK(name, how) R("s_cmpk_" name, "si", x_sopc, T_B32, (how) | CMP_IMM)
#define SOPP(name, param) R(name, "", x_sopp, T_B32, param)
#define BRANCH(name, param) R(name, "", x_branch, T_B32, param)
const struct op salu_ops[] = {
    SCALAR_ROWS(ROW)
    R("s_cselect_b32", "dss", x_cselect, T_B32, 0),
    R("s_cselect_b64", "dss", x_cselect, T_B64, 0),
    SAVEEXEC("and_saveexec", SE_AND), SAVEEXEC("or_saveexec", SE_OR),
    SAVEEXEC("xor_saveexec", SE_XOR), SAVEEXEC("andn2_saveexec", SE_ANDN2),
    SAVEEXEC("orn2_saveexec", SE_ORN2), SAVEEXEC("nand_saveexec", SE_NAND),
    SAVEEXEC("nor_saveexec", SE_NOR), SAVEEXEC("xnor_saveexec", SE_XNOR),
    SAVEEXEC("andn1_saveexec", SE_ANDN1), SAVEEXEC("orn1_saveexec", SE_ORN1),
    SAVEEXEC("andn1_wrexec", SE_ANDN1 | SE_WREXEC), SAVEEXEC("andn2_wrexec", SE_ANDN2 | SE_WREXEC),
    CMP("eq_i32", CMP_EQ), CMP("lg_i32", CMP_LG), CMP("gt_i32", CMP_GT | CMP_SIGNED),
    CMP("ge_i32", CMP_GE | CMP_SIGNED), CMP("lt_i32", CMP_LT | CMP_SIGNED),
    CMP("le_i32", CMP_LE | CMP_SIGNED), CMP("eq_u32", CMP_EQ), CMP("lg_u32", CMP_LG),
    CMP("gt_u32", CMP_GT), CMP("ge_u32", CMP_GE), CMP("lt_u32", CMP_LT), CMP("le_u32", CMP_LE),
    R("s_cmp_eq_u64", "ss", x_sopc, T_B64, CMP_EQ), R("s_cmp_lg_u64", "ss", x_sopc, T_B64, CMP_LG),
    R("s_bitcmp0_b32", "ss", x_sopc, T_B32, CMP_BIT0),
    R("s_bitcmp1_b32", "ss", x_sopc, T_B32, CMP_BIT1),
    R("s_bitcmp0_b64", "ss", x_sopc, T_B64, CMP_BIT0),
    R("s_bitcmp1_b64", "ss", x_sopc, T_B64, CMP_BIT1),
    CMPK("eq_i32", CMP_EQ | CMP_SIGNED), CMPK("lg_i32", CMP_LG | CMP_SIGNED),
    CMPK("gt_i32", CMP_GT | CMP_SIGNED), CMPK("ge_i32", CMP_GE | CMP_SIGNED),
    CMPK("lt_i32", CMP_LT | CMP_SIGNED), CMPK("le_i32", CMP_LE | CMP_SIGNED),
    CMPK("eq_u32", CMP_EQ), CMPK("lg_u32", CMP_LG), CMPK("gt_u32", CMP_GT),
    CMPK("ge_u32", CMP_GE), CMPK("lt_u32", CMP_LT), CMPK("le_u32", CMP_LE),
    R("s_movk_i32", "di", x_sopk, T_B32, K_MOV), R("s_cmovk_i32", "xi", x_sopk, T_B32, K_CMOV),
    R("s_addk_i32", "xi", x_sopk, T_B32, K_ADD), R("s_mulk_i32", "xi", x_sopk, T_B32, K_MUL),
    R("s_getreg_b32", "di", x_getreg, T_B32, 0), R("s_setreg_b32", "is", x_setreg, T_B32, 0),
    R("s_setreg_imm32_b32", "ii", x_setreg, T_B32, 1),
    BRANCH("s_branch", BR_ALWAYS), BRANCH("s_cbranch_scc0", BR_SCC0),
    BRANCH("s_cbranch_scc1", BR_SCC1), BRANCH("s_cbranch_vccz", BR_VCCZ),
    BRANCH("s_cbranch_vccnz", BR_VCCNZ), BRANCH("s_cbranch_execz", BR_EXECZ),
    BRANCH("s_cbranch_execnz", BR_EXECNZ),
    SOPP("s_nop", P_NOP), SOPP("s_endpgm", P_END), SOPP("s_barrier", P_BARRIER),
    SOPP("s_waitcnt", P_WAITCNT), SOPP("s_setprio", P_NOP), SOPP("s_sleep", P_NOP),
    SOPP("s_inst_prefetch", P_NOP), SOPP("s_icache_inv", P_NOP), SOPP("s_code_end", P_NOP),
    SOPP("s_dcache_inv", P_NOP), SOPP("s_dcache_wb", P_NOP), SOPP("s_ttracedata", P_NOP),
    R("s_set_gpr_idx_on", "si", x_gpr_index, T_B32, GI_ON),
    R("s_set_gpr_idx_off", "", x_gpr_index, T_B32, GI_OFF),
    R("s_set_gpr_idx_mode", "i", x_gpr_index, T_B32, GI_MODE),
    R("s_set_gpr_idx_idx", "s", x_gpr_index, T_B32, GI_INDEX),
    R("s_getpc_b64", "d", x_getpc, T_B64, 0), R("s_setpc_b64", "s", x_setpc, T_B64, 0),
    R("s_swappc_b64", "ds", x_setpc, T_B64, 0), R("s_memtime", "d", x_memtime, T_B64, 0),
    R("s_memrealtime", "d", x_memtime, T_B64, 0),
    {NULL, NULL, NULL, NULL, 0, 0, 0, 0, 0, NULL}
};
