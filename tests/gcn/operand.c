// Sources and results of vector instructions, and the executors that wrap lane functions.
//
// Order of effects on a source, as in the manuals: DPP moves lanes, SDWA or op_sel selects part
// of the word, then |x| and -x. On a result: lane function, output multiplier, clamp, SDWA or
// half placement, exec mask.
#include "isa.h"

#include <string.h>

// Lane that lane l reads under a DPP control, or -1 when there is none.
static int dpp_source(u32 ctrl, int l)
{
    int row = l & ~15, i = l & 15, n = (int)(ctrl & 15);
    if (ctrl <= 0xff)
        return (l & ~3) + (int)(ctrl >> 2 * (l & 3) & 3);
    switch (ctrl & 0x1f0) {
    case 0x100: return i + n < 16 ? l + n : -1;    // row_shl
    case 0x110: return i - n >= 0 ? l - n : -1;    // row_shr
    case 0x120: return row + ((i - n) & 15);       // row_ror
    case 0x150: return row + n;                    // row_newbcast
    }
    switch (ctrl) {
    case 0x130: return l < 63 ? l + 1 : -1;        // wave_shl:1
    case 0x134: return (l + 1) & 63;               // wave_rol:1
    case 0x138: return l > 0 ? l - 1 : -1;         // wave_shr:1
    case 0x13c: return (l - 1) & 63;               // wave_ror:1
    case 0x140: return row + 15 - i;               // row_mirror
    case 0x141: return (l & ~7) + 7 - (l & 7);     // row_half_mirror
    case 0x142: return l >= 16 ? row - 1 : -1;     // row_bcast:15
    case 0x143: return l >= 32 ? 31 : -1;          // row_bcast:31
    }
    return -1;
}

// A lane whose source is missing or inactive reads 0 with bound_ctrl, else keeps its result.
static struct value apply_dpp(struct wave *w, const struct inst *in, struct value s, u32 *tmp,
                              u32 *utmp)
{
    u32 word = in->word[1], ctrl = word >> 8 & 0x1ff;
    bool bound = word >> 19 & 1;
    u64 exec = exec_of(w), keep = 0, un = 0;
    u32 from[LANES], ufrom[LANES];
    memcpy(from, s.x, sizeof from);
    if (s.un)
        memcpy(ufrom, s.ub, sizeof ufrom);
    for (int l = 0; l < LANES; l++) {
        int j = dpp_source(ctrl, l);
        bool there = j >= 0 && (exec >> j & 1);
        tmp[l] = there ? from[j] : 0;
        utmp[l] = 0;
        if (there && (s.un >> j & 1))
            utmp[l] = ufrom[j], un |= (u64)1 << l;
        bool on = (word >> (24 + (l >> 2 & 3)) & 1) && (word >> (28 + (l >> 4)) & 1);
        if (on && (there || bound))
            keep |= (u64)1 << l;
    }
    w->write &= keep;
    return (struct value){tmp, utmp, un};
}

static u32 select_part(u32 x, u32 sel, bool sext)
{
    if (sel < 4)
        return sext ? (u32)(i32)(int8_t)(x >> 8 * sel) : x >> 8 * sel & 0xff;
    if (sel < 6)
        return sext ? (u32)(i32)(int16_t)(x >> 16 * (sel - 4)) : x >> 16 * (sel - 4) & 0xffff;
    return x;
}

// Applies the same word function to the value and to its shadow.
static struct value map_part(struct value s, u32 sel, bool sext, u32 *tmp, u32 *utmp)
{
    for (int l = 0; l < LANES; l++)
        tmp[l] = select_part(s.x[l], sel, sext);
    u64 un = 0;
    if (s.un)
        for (int l = 0; l < LANES; l++) {
            utmp[l] = s.un >> l & 1 ? select_part(s.ub[l], sel, sext) : 0;
            un |= (u64)(utmp[l] != 0) << l;
        }
    return (struct value){tmp, utmp, un};
}

static struct value raw_source(struct wave *w, const struct operand *o, int part, u32 *tmp,
                               u32 *utmp)
{
    if (is_vector(o)) {
        u32 row = o->reg - REG_V + (u32)part;
        return (struct value){w->v[row], w->vub[row], w->vu[row]};
    }
    u32 x = 0, u = 0;
    if (o->kind == O_REG)
        x = w->s[o->reg + part], u = w->su[o->reg + part];
    else
        x = (u32)(o->value >> 32 * part);
    for (int l = 0; l < LANES; l++)
        tmp[l] = x;
    if (!u)
        return (struct value){tmp, tmp, 0};
    for (int l = 0; l < LANES; l++)
        utmp[l] = u;
    return (struct value){tmp, utmp, ~(u64)0};
}

// Rows further on that s_set_gpr_idx asks for, where bit `which` of the mode is set.
static u32 row_offset(struct wave *w, u32 row, u32 which)
{
    if (!(w->indexed >> which & 1))
        return 0;
    u32 by = w->s[REG_M0] & 255;
    if (row < 256 && row + by < w->g->k->vgprs)
        return by;
    report(w, GCN_REGISTER, -1, "register index %u + %u is not allocated", row, by);
    w->g->stop = true;
    return 0;
}

// Dword `part` of text operand i, with everything the instruction asks to be done to it.
struct value src32(struct wave *w, const struct inst *in, int i, int part, u32 *tmp, u32 *utmp)
{
    const struct operand *o = &in->o[i];
    int which = i - in->nd, type = in->op->type;
    struct operand moved;
    if (w->indexed && which >= 0 && which < 3 && is_vector(o)) {
        moved = *o;
        moved.reg += (u16)row_offset(w, o->reg - REG_V, (u32)which);
        o = &moved;
    }
    struct value s = raw_source(w, o, part, tmp, utmp);
    if (in->dpp && which == 0)
        s = apply_dpp(w, in, s, tmp, utmp);
    if (in->sdwa && (which == 0 || which == 1)) {
        int at = which ? 24 : 16;
        s = map_part(s, in->word[1] >> at & 7, in->word[1] >> (at + 3) & 1, tmp, utmp);
    }
    bool narrow = type == T_F16 || type == T_B16;
    if (narrow && which >= 0 && in->op_sel >> which & 1)
        s = map_part(s, 5, false, tmp, utmp);
    else if (narrow && s.un)
        s = map_part(s, 4, false, tmp, utmp);
    if (o->neg || o->abs) {
        u32 bit = narrow ? 0x8000u : 0x80000000u;
        if (o->n == 2 && part == 0)
            bit = 0; // the sign of a double sits in its high half
        for (int l = 0; l < LANES; l++) {
            u32 x = s.x[l];
            x = o->abs ? x & ~bit : x;
            tmp[l] = o->neg ? x ^ bit : x;
        }
        s.x = tmp;
    }
    return s;
}

static void expand(u64 mask, u32 *m)
{
    for (int l = 0; l < LANES; l++)
        m[l] = (u32)-(i32)(mask >> l & 1);
}

static void put_undefined(struct wave *w, u32 row, const u32 *m, u64 un, const u32 *ub)
{
    if (!w->vu[row])
        memset(w->vub[row], 0, sizeof w->vub[row]);
    u64 sum = 0;
    for (int l = 0; l < LANES; l++) {
        u32 u = un >> l & 1 ? ub[l] : 0;
        w->vub[row][l] = (u & m[l]) | (w->vub[row][l] & ~m[l]);
        sum |= (u64)(w->vub[row][l] != 0) << l;
    }
    w->vu[row] = sum;
}

// Places a narrow SDWA result in the old destination word.
static u32 place(u32 x, u32 old, u32 sel, u32 unused)
{
    u32 shift = sel < 4 ? 8 * sel : 16 * (sel - 4), mask = sel < 4 ? 0xffu : 0xffffu;
    if (unused == 2)
        return (old & ~(mask << shift)) | (x & mask) << shift;
    u32 r = (x & mask) << shift;
    if (unused == 1 && x & (mask + 1) >> 1)
        r |= shift == 24 || (shift == 16 && sel > 3) ? 0 : ~0u << (shift + (sel < 4 ? 8 : 16));
    return r;
}

// Writes row (register - REG_V) in the lanes w->write.
void put32(struct wave *w, const struct inst *in, u32 row, const u32 *r, u64 un, const u32 *ub)
{
    u32 mask[LANES], merged[LANES], umerged[LANES];
    const u32 *m = w->lane;
    if (w->write != w->lane_exec) {
        expand(w->write, mask);
        m = mask;
    }
    u32 sel = in->word[1] >> 8 & 7, unused = in->word[1] >> 11 & 3;
    bool sdwa = in->sdwa && sel < 6, half = in->op->flags & OF_HALF_DST;
    if (sdwa || half) {
        if (half && !sdwa)
            sel = in->op_sel & 8 ? 5 : 4, unused = 2;
        for (int l = 0; l < LANES; l++) {
            u32 old_u = w->vu[row] >> l & 1 ? w->vub[row][l] : 0;
            merged[l] = place(r[l], w->v[row][l], sel, unused);
            umerged[l] = place(un >> l & 1 ? ub[l] : 0, old_u, sel, unused);
        }
        r = merged, ub = umerged, un = ~(u64)0;
    }
    if (w->indexed && in->op->flags & OF_VALU)
        row += row_offset(w, row, 3);
    u32 *d = w->v[row];
    for (int l = 0; l < LANES; l++)
        d[l] = (r[l] & m[l]) | (d[l] & ~m[l]);
    if ((un & w->write) | w->vu[row])
        put_undefined(w, row, m, un, ub);
}

// The shadow of a lane function's result, by the row's rule.
static u64 undefined_result(const struct op *op, const struct value *s, int ns, u32 *out)
{
    u32 u[3][LANES], all = op->dtype == T_F16 || op->dtype == T_B16 ? 0xffffu : ~0u;
    u64 any = 0, control = 0, sum = 0;
    for (int i = 0; i < 3; i++) {
        u64 un = i < ns ? s[i].un : 0;
        any |= un;
        if (!(op->undef & U_MOVE && op->undef >> i & 1))
            control |= un;
        for (int l = 0; l < LANES; l++)
            u[i][l] = un >> l & 1 ? s[i].ub[l] : 0;
    }
    if (op->undef & U_MOVE) {
        const u32 *arg[3];
        for (int i = 0; i < 3; i++)
            arg[i] = i >= ns ? s[0].x : op->undef >> i & 1 ? u[i] : s[i].x;
        ((lane_fn *)op->fn)(out, arg[0], arg[1], arg[2]);
        for (int l = 0; l < LANES; l++)
            out[l] = control >> l & 1 ? ~0u : out[l];
    }
    for (int l = 0; l < LANES; l++) {
        u32 a = s[0].x[l], b = ns > 1 ? s[1].x[l] : 0, ua = u[0][l], ub = u[1][l];
        u32 and = (ua | ub) & (ua | a) & (ub | b);
        switch (op->undef) {
        case U_ANY: out[l] = any >> l & 1 ? all : 0; break;
        case U_AND: out[l] = and; break;
        case U_OR: out[l] = (ua | ub) & (ua | ~a) & (ub | ~b); break;
        case U_BITS: out[l] = ua | ub | u[2][l]; break;
        case U_AND_OR: out[l] = and | u[2][l]; break;
        case U_CARRY: out[l] = (u32)from_lowest(ua | ub | u[2][l]); break;
        }
        sum |= (u64)(out[l] != 0) << l;
    }
    return sum;
}

static const float omod_scale[] = {1.0f, 2.0f, 4.0f, 0.5f};

static void output_modifiers(const struct inst *in, u32 *r)
{
    bool half = in->op->dtype == T_F16;
    for (int l = 0; l < LANES; l++) {
        float f = half ? half_up(r[l] & 0xffff) : as_f32(r[l]);
        f *= omod_scale[in->omod];
        if (in->clamp)
            f = f > 0 ? (f < 1 ? f : 1) : 0;
        r[l] = half ? half_down(f) : as_u32(f);
    }
}

// Subnormal single-precision values are flushed when the kernel's mode says so.
void flush_words(u32 *r)
{
    for (int l = 0; l < LANES; l++)
        r[l] = r[l] & 0x7f800000u ? r[l] : r[l] & 0x80000000u;
}

// Text operand of source i: sources follow the results, a read result comes last.
static int source_operand(const struct inst *in, int i)
{
    int at = in->nd + i;
    return at < in->no ? at : 0;
}

void x_v(struct wave *w, const struct inst *in)
{
    u32 tmp[3][LANES], utmp[3][LANES], r[LANES], ur[LANES];
    struct value s[3];
    int ns = in->no - in->nd + (in->op->sig[0] == 'x');
    bool flushes = in->op->type == T_F32 && !(w->mode & MODE_F32_DENORM);
    u64 un = 0;
    for (int i = 0; i == 0 || i < ns; i++) {
        s[i] = src32(w, in, source_operand(in, i), 0, tmp[i], utmp[i]);
        un |= s[i].un;
        if (flushes && !(in->op->flags & OF_INT_LAST && i == ns - 1)) {
            memmove(tmp[i], s[i].x, sizeof tmp[i]);
            flush_words(tmp[i]);
            s[i].x = tmp[i];
        }
    }
    ((lane_fn *)in->op->fn)(r, s[0].x, ns > 1 ? s[1].x : s[0].x, ns > 2 ? s[2].x : s[0].x);
    if (in->omod || (in->clamp && in->op->dtype != T_B32))
        output_modifiers(in, r);
    if (flushes && in->op->dtype == T_F32)
        flush_words(r);
    if (un & w->write)
        un = undefined_result(in->op, s, ns, ur);
    put32(w, in, in->o[0].reg - REG_V, r, un, ur);
}

static u64 undefined_result64(const struct op *op, u64 s[3][LANES], u64 u[3][LANES], int ns,
                              u64 *out)
{
    u64 sum = 0, all[LANES];
    for (int l = 0; l < LANES; l++)
        all[l] = u[0][l] | (ns > 1 ? u[1][l] : 0) | (ns > 2 ? u[2][l] : 0);
    if (op->undef & U_MOVE) { // shifts: operand 1 moves, operand 0 controls
        ((lane64_fn *)op->fn)(out, s[0], u[1], s[0]);
        for (int l = 0; l < LANES; l++)
            out[l] = u[0][l] ? ~(u64)0 : out[l];
    } else
        for (int l = 0; l < LANES; l++)
            out[l] = op->undef == U_BITS    ? all[l]
                     : op->undef == U_CARRY ? from_lowest(all[l])
                     : all[l]               ? ~(u64)0
                                            : 0;
    for (int l = 0; l < LANES; l++)
        sum |= (u64)(out[l] != 0) << l;
    return sum;
}

// Operands of one or two dwords, results likewise.
void x_w(struct wave *w, const struct inst *in)
{
    u64 s[3][LANES], u[3][LANES], r[LANES], ur[LANES], un = 0;
    int ns = in->no - in->nd + (in->op->sig[0] == 'x');
    for (int i = 0; i == 0 || i < ns; i++) {
        int at = source_operand(in, i);
        const struct operand *o = &in->o[at];
        bool wide = o->n == 2 || o->kind == O_CONST;
        u32 t[LANES], ut[LANES];
        struct value x = src32(w, in, at, 0, t, ut);
        for (int l = 0; l < LANES; l++) {
            s[i][l] = x.x[l];
            u[i][l] = x.un >> l & 1 ? x.ub[l] : 0;
        }
        un |= x.un;
        if (wide) {
            x = src32(w, in, at, 1, t, ut);
            for (int l = 0; l < LANES; l++) {
                s[i][l] |= (u64)x.x[l] << 32;
                u[i][l] |= (u64)(x.un >> l & 1 ? x.ub[l] : 0) << 32;
            }
            un |= x.un;
        }
    }
    ((lane64_fn *)in->op->fn)(r, s[0], ns > 1 ? s[1] : s[0], ns > 2 ? s[2] : s[0]);
    if (un & w->write)
        un = undefined_result64(in->op, s, u, ns, ur);
    for (u32 part = 0; part < in->o[0].n; part++) {
        u32 t[LANES], ut[LANES];
        for (int l = 0; l < LANES; l++) {
            t[l] = (u32)(r[l] >> 32 * part);
            ut[l] = un >> l & 1 ? (u32)(ur[l] >> 32 * part) : 0;
        }
        put32(w, in, in->o[0].reg - REG_V + part, t, un, ut);
    }
}

// Packed 16-bit: op_sel picks the half that feeds the low result, op_sel_hi the high one.
void x_pk16(struct wave *w, const struct inst *in)
{
    u32 r[2][LANES], ur[LANES], out[LANES];
    int ns = in->no - in->nd;
    u64 un = 0;
    memset(ur, 0, sizeof ur);
    for (int h = 0; h < 2; h++) {
        u32 part[3][LANES];
        u8 sel = h ? in->op_sel_hi : in->op_sel, neg = h ? in->neg_hi : in->neg_lo;
        for (int i = 0; i < ns; i++) {
            u32 t[LANES], ut[LANES];
            struct value s = raw_source(w, &in->o[in->nd + i], 0, t, ut);
            u32 shift = sel >> i & 1 ? 16 : 0;
            u32 sign = neg >> i & 1 && in->op->type == T_F16 ? 0x8000u : 0;
            for (int l = 0; l < LANES; l++) {
                part[i][l] = (s.x[l] >> shift & 0xffff) ^ sign;
                if (s.un >> l & 1 && s.ub[l] >> shift & 0xffff)
                    ur[l] |= 0xffffu << 16 * h, un |= (u64)1 << l;
            }
        }
        ((lane_fn *)in->op->fn)(r[h], part[0], part[1], ns > 2 ? part[2] : part[0]);
        if (in->clamp)
            output_modifiers(in, r[h]);
    }
    for (int l = 0; l < LANES; l++)
        out[l] = (r[0][l] & 0xffff) | r[1][l] << 16;
    struct inst plain = *in; // op_sel has been used up; the result is a whole word
    plain.op_sel = 0;
    put32(w, &plain, in->o[0].reg - REG_V, out, un, ur);
}

// Packed 32-bit: the same with registers of a pair in place of halves of a word.
static void packed32(struct wave *w, const struct inst *in, lane_fn *fn)
{
    u32 r[2][LANES], ur[2][LANES];
    u64 un[2] = {0, 0};
    int ns = in->no - in->nd;
    for (int h = 0; h < 2; h++) {
        u32 tmp[3][LANES], utmp[3][LANES];
        struct value s[3];
        u8 sel = h ? in->op_sel_hi : in->op_sel, neg = h ? in->neg_hi : in->neg_lo;
        for (int i = 0; i < ns; i++) {
            const struct operand *o = &in->o[in->nd + i];
            int part = o->kind == O_CONST ? 0 : sel >> i & 1;
            s[i] = raw_source(w, o, part, tmp[i], utmp[i]);
            un[h] |= s[i].un;
            if (neg >> i & 1) {
                for (int l = 0; l < LANES; l++)
                    tmp[i][l] = s[i].x[l] ^ 0x80000000u;
                s[i].x = tmp[i];
            }
            if (!(w->mode & MODE_F32_DENORM)) {
                memmove(tmp[i], s[i].x, sizeof tmp[i]);
                flush_words(tmp[i]);
                s[i].x = tmp[i];
            }
        }
        fn(r[h], s[0].x, s[1].x, ns > 2 ? s[2].x : s[0].x);
        if (in->clamp)
            output_modifiers(in, r[h]);
        if (!(w->mode & MODE_F32_DENORM))
            flush_words(r[h]);
        if (un[h] & w->write)
            un[h] = undefined_result(in->op, s, ns, ur[h]);
    }
    for (u32 h = 0; h < 2; h++)
        put32(w, in, in->o[0].reg - REG_V + h, r[h], un[h], ur[h]);
}

void x_pk32(struct wave *w, const struct inst *in)
{
    packed32(w, in, (lane_fn *)in->op->fn);
}

// v_pk_mov_b32: op_sel[0] picks the low result from source 0, op_sel[1] the high from source 1.
void x_pk_mov(struct wave *w, const struct inst *in)
{
    u32 r[2][LANES], ur[2][LANES];
    u64 un[2];
    for (int h = 0; h < 2; h++) {
        u32 t[LANES], ut[LANES];
        const struct operand *o = &in->o[1 + h];
        struct value s = raw_source(w, o, o->kind == O_CONST ? 0 : in->op_sel >> h & 1, t, ut);
        memcpy(r[h], s.x, sizeof r[h]);
        un[h] = s.un;
        if (s.un)
            memcpy(ur[h], s.ub, sizeof ur[h]);
    }
    for (u32 h = 0; h < 2; h++)
        put32(w, in, in->o[0].reg - REG_V + h, r[h], un[h], ur[h]);
}
