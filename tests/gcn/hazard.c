// Wait states between dependent instructions: what the hardware does not check for itself.
//
// Numbers are those of "Manually Inserted Wait States" in the CDNA2 and CDNA3 ISA manuals, as
// LLVM's GCNHazardRecognizer applies them. Each instruction is one wait state, s_nop N is N + 1;
// an instruction directly after another has had none.
#include "isa.h"

#include <stdlib.h>
#include <string.h>

enum consumer {
    C_VMEM = 1, C_VALU = 2, C_MFMA = 4, C_DIV_FMAS = 8, C_LANE = 16, C_READ_LANE = 32, C_DPP = 64,
    C_NOT_TRANS = 128, C_LDS_DMA = 256
};
enum which { W_READS_SCALAR, W_READS_VECTOR, W_FIRST_SOURCE, W_EXEC, W_WRITES_VECTOR, W_M0 };

// "A wrote register r; B of class `who` touches it `need` wait states later or sooner."
static const struct rule {
    const char *text;
    size_t times; // which clock array of struct times
    int who;
    enum which which;
    u8 need[NARCH];
} rules[] = {
    {"vector memory reads a scalar register written by a VALU instruction",
     offsetof(struct times, valu), C_VMEM, W_READS_SCALAR, {5, 5}},
    {"v_div_fmas reads vcc written by a VALU instruction",
     offsetof(struct times, valu), C_DIV_FMAS, W_READS_SCALAR, {4, 4}},
    {"lane number written by a VALU instruction",
     offsetof(struct times, valu), C_LANE, W_READS_SCALAR, {4, 4}},
    {"DPP reads a vector register written by a VALU instruction",
     offsetof(struct times, valu), C_DPP, W_FIRST_SOURCE, {2, 2}},
    {"DPP after a VALU instruction wrote exec",
     offsetof(struct times, valu), C_DPP, W_EXEC, {5, 5}},
    {"MFMA after a VALU instruction wrote exec",
     offsetof(struct times, valu), C_MFMA, W_EXEC, {4, 4}},
    {"MFMA reads a vector register written by a VALU instruction",
     offsetof(struct times, valu), C_MFMA, W_READS_VECTOR, {2, 2}},
    {"VALU reads the result of a transcendental instruction",
     offsetof(struct times, trans), C_NOT_TRANS, W_READS_VECTOR, {0, 1}},
    {"VALU reads a register of which a VALU instruction wrote one part",
     offsetof(struct times, half), C_VALU, W_READS_VECTOR, {0, 1}},
    {"VALU reads a scalar register written by a VALU instruction",
     offsetof(struct times, valu), C_VALU, W_READS_SCALAR, {0, 2}},
    {"lane access after a VALU instruction wrote exec",
     offsetof(struct times, valu), C_LANE | C_READ_LANE, W_EXEC, {0, 4}},
    {"lane read of a vector register written by a VALU instruction",
     offsetof(struct times, valu), C_READ_LANE, W_FIRST_SOURCE, {0, 1}},
    {"VALU overwrites the data of a wide store",
     offsetof(struct times, wide_store), C_VALU, W_WRITES_VECTOR, {1, 2}},
};

static int classify(const struct inst *in)
{
    const struct op *op = in->op;
    int c = 0;
    if (op->exec == x_vmem)
        c |= in->mem.action == MEM_LDS_DMA ? C_VMEM | C_LDS_DMA : C_VMEM;
    if (op->flags & OF_MFMA)
        c |= C_MFMA;
    else if (op->flags & OF_VALU)
        c |= C_VALU | (op->flags & OF_TRANS ? 0 : C_NOT_TRANS);
    if (op->exec == x_div_fmas)
        c |= C_DIV_FMAS;
    if (op->exec == x_readlane || op->exec == x_writelane)
        c |= C_LANE;
    if (op->exec == x_readlane || op->exec == x_readfirstlane)
        c |= C_READ_LANE;
    if (in->dpp)
        c |= C_DPP;
    return c;
}

// Wait states between an event and the instruction about to issue.
static u32 since(const struct wave *w, u32 time)
{
    return w->clock - time - 1;
}

static bool recent(const struct wave *w, const u32 *clock, struct regs r, u32 need)
{
    for (u32 i = r.reg; i < (u32)r.reg + r.n; i++)
        if (clock[i] && since(w, clock[i]) < need)
            return true;
    return false;
}

static bool broken(const struct wave *w, const struct inst *in, const struct rule *r, u32 need)
{
    const u32 *clock = (const u32 *)((const char *)w->t + r->times);
    bool scalar = r->which == W_READS_SCALAR;
    switch (r->which) {
    case W_EXEC: return recent(w, clock, (struct regs){REG_EXEC, 2}, need);
    case W_FIRST_SOURCE: {
        const struct operand *o = &in->o[in->nd];
        return is_vector(o) && recent(w, clock, (struct regs){o->reg, o->n}, need);
    }
    case W_WRITES_VECTOR:
        for (int i = 0; i < in->nwr; i++)
            if (in->wr[i].reg >= REG_V && recent(w, clock, in->wr[i], need))
                return true;
        return false;
    default:
        for (int i = 0; i < in->nrd; i++)
            if ((in->rd[i].reg < REG_V) == scalar && recent(w, clock, in->rd[i], need))
                return true;
        return false;
    }
}

static bool is_dgemm(const struct inst *in)
{
    return in->op->type == T_F64;
}
static u32 passes(const struct wave *w, const struct inst *in)
{
    return in->op->mfma->passes[w->g->obj->arch];
}
static bool same_regs(const struct operand *a, const struct operand *b)
{
    return a->kind == b->kind && a->reg == b->reg && a->n == b->n;
}

// MFMA `p` wrote registers that MFMA `in` adds to.
static u32 need_addend(const struct wave *w, const struct inst *p, const struct inst *in)
{
    bool cdna3 = w->g->obj->arch == ARCH_GFX942, xdl = in->op->mfma->xdl;
    u32 n = passes(w, p);
    if (!cdna3 && is_dgemm(p) && !is_dgemm(in))
        return 0;
    if (same_regs(&p->o[0], &in->o[3])) {
        if (is_dgemm(p) && n == 4 && is_dgemm(in) && passes(w, in) == 4)
            return 4;
        return cdna3 && n == 2 ? 2 : 0;
    }
    if (is_dgemm(p))
        return xdl ? 0 : n == 4 ? 4 : 9;
    if (cdna3)
        return p->op->mfma->xdl ? n + 1 : xdl ? 0 : n;
    return is_dgemm(in) ? n + 1 : n;
}
enum mfma_use { USE_AB, USE_VALU, USE_MEMORY, USE_WRITE };
static u32 need_result(const struct wave *w, const struct inst *p, enum mfma_use use)
{
    u32 n = passes(w, p);
    if (is_dgemm(p))
        return use == USE_MEMORY ? (n == 4 ? 9 : 18) : n == 4 ? 6 : 11;
    return n + (p->op->mfma->xdl ? 3 : 2);
}

static void too_soon(struct wave *w, const struct inst *p, u32 need, u32 had, const char *what)
{
    report(w, GCN_WAIT_STATES, -1, "%s %u wait states after 0x%x, needs %u: %.80s", what, had,
           p->address, need, p->text);
}

static void mfma_reads(struct wave *w, const struct inst *in, const struct operand *o, bool addend)
{
    for (u32 i = o->reg; is_vector(o) && i < (u32)o->reg + o->n; i++) {
        const struct inst *p = w->t->mfma_by[i];
        if (!p || !w->t->mfma[i])
            continue;
        u32 need = addend ? need_addend(w, p, in) : need_result(w, p, USE_AB);
        if (since(w, w->t->mfma[i]) < need) {
            too_soon(w, p, need, since(w, w->t->mfma[i]),
                     addend ? "adds to an MFMA result" : "multiplies an MFMA result");
            return;
        }
    }
}

static void others_touch(struct wave *w, const struct inst *in)
{
    bool memory = in->op->exec == x_vmem || in->op->exec == x_ds || in->op->exec == x_ds_lane;
    for (int i = 0; i < in->nrd; i++)
        for (u32 r = in->rd[i].reg; r >= REG_V && r < (u32)in->rd[i].reg + in->rd[i].n; r++) {
            const struct inst *p = w->t->mfma_by[r];
            u32 need = p && w->t->mfma[r] ? need_result(w, p, memory ? USE_MEMORY : USE_VALU) : 0;
            if (need && since(w, w->t->mfma[r]) < need) {
                too_soon(w, p, need, since(w, w->t->mfma[r]), "reads an MFMA result");
                return;
            }
        }
    for (int i = 0; i < in->nwr; i++)
        for (u32 r = in->wr[i].reg; r >= REG_V && r < (u32)in->wr[i].reg + in->wr[i].n; r++) {
            const struct inst *p = w->t->mfma_by[r], *c = w->t->mfma_c_by[r];
            u32 need = p && w->t->mfma[r] ? need_result(w, p, USE_WRITE) : 0;
            if (need && since(w, w->t->mfma[r]) < need) {
                too_soon(w, p, need, since(w, w->t->mfma[r]), "overwrites an MFMA result");
                return;
            }
            // The addend is read late: all but the first pass must be over.
            bool late = c && w->t->mfma_c[r] && !is_dgemm(c) && c->op->mfma->xdl;
            need = late ? passes(w, c) - 1 : 0;
            if (need && since(w, w->t->mfma_c[r]) < need) {
                too_soon(w, c, need, since(w, w->t->mfma_c[r]), "overwrites an MFMA's addend");
                return;
            }
        }
}

static void check_dot(struct wave *w, const struct inst *in)
{
    const struct times *t = w->t;
    for (int i = 0; i < in->nrd + in->nwr; i++) {
        struct regs r = i < in->nrd ? in->rd[i] : in->wr[i - in->nrd];
        const struct inst *p = r.reg >= REG_V ? t->dot_by[r.reg] : NULL;
        if (!p || !t->dot[r.reg] || since(w, t->dot[r.reg]) >= 3)
            continue;
        bool addend = in->no > 3 && in->o[3].reg == r.reg;
        if (p->op != in->op || (i < in->nrd && !addend && in->op->sig[0] != 'x'))
            too_soon(w, p, 3, since(w, t->dot[r.reg]), "touches a dot product");
    }
}

void check_wait_states(struct wave *w, const struct inst *in)
{
    int who = classify(in), arch = w->g->obj->arch;
    bool memory = in->op->exec == x_vmem || in->op->exec == x_ds || in->op->exec == x_ds_lane;
    for (size_t i = 0; i < sizeof rules / sizeof *rules; i++)
        if (rules[i].who & who && rules[i].need[arch] &&
            broken(w, in, &rules[i], rules[i].need[arch]))
            report(w, GCN_WAIT_STATES, -1, "%s; needs %u wait states between", rules[i].text,
                   rules[i].need[arch]);
    if (who & C_LDS_DMA && w->t->last_salu_m0 && since(w, w->t->last_salu_m0) < 1)
        report(w, GCN_WAIT_STATES, -1, "load to LDS right after m0 was written; needs 1");
    if ((in->op->exec == x_getreg || in->op->exec == x_setreg) && w->t->last_setreg &&
        since(w, w->t->last_setreg) < 2)
        report(w, GCN_WAIT_STATES, -1, "hardware register used after s_setreg; needs 2");
    if (in->op->exec == x_w && w->t->last_dgemm && since(w, w->t->last_dgemm) < 2 &&
        strstr(in->op->name, "fma"))
        report(w, GCN_WAIT_STATES, -1, "double precision FMA after a double MFMA; needs 2");
    if (w->t->last_mfma && since(w, w->t->last_mfma) < 20) {
        if (who & C_MFMA) {
            mfma_reads(w, in, &in->o[1], false);
            mfma_reads(w, in, &in->o[2], false);
            mfma_reads(w, in, &in->o[3], true);
        } else if (memory || who & C_VALU)
            others_touch(w, in);
    }
    if (w->t->dot[0] && (memory || who & C_VALU)) // entry 0: the last one anywhere
        check_dot(w, in);
}

static void stamp(u32 *clock, struct regs r, u32 now)
{
    for (u32 i = 0; i < r.n; i++)
        clock[r.reg + i] = now;
}

static void note_mfma(struct wave *w, const struct inst *in)
{
    struct times *t = w->t;
    for (u32 i = in->o[0].reg; i < (u32)in->o[0].reg + in->o[0].n; i++)
        t->mfma[i] = w->clock, t->mfma_by[i] = in, t->valu[i] = 0;
    for (u32 i = in->o[3].reg; is_vector(&in->o[3]) && i < (u32)in->o[3].reg + in->o[3].n; i++)
        t->mfma_c[i] = w->clock, t->mfma_c_by[i] = in;
    t->last_mfma = w->clock;
    if (is_dgemm(in))
        t->last_dgemm = w->clock;
}

static bool partial_write(const struct inst *in)
{
    if (in->sdwa)
        return (in->word[1] >> 8 & 7) != 6;
    return in->op->flags & OF_HALF_DST && in->op_sel & 8;
}

// Called after an instruction has run, before the clock moves on.
void note_wait_states(struct wave *w, const struct inst *in)
{
    struct times *t = w->t;
    u32 flags = in->op->flags, now = w->clock;
    if (flags & OF_MFMA) {
        note_mfma(w, in);
        return;
    }
    bool valu = flags & OF_VALU;
    for (int i = 0; i < in->nwr; i++) {
        struct regs r = in->wr[i];
        stamp(t->valu, r, valu && !(flags & OF_DOT) ? now : 0);
        if (valu && r.reg >= REG_V) {
            stamp(t->trans, r, flags & OF_TRANS ? now : 0);
            stamp(t->half, r, partial_write(in) ? now : 0);
            stamp(t->dot, r, flags & OF_DOT ? now : 0);
            stamp(t->mfma, r, 0);
            if (flags & OF_DOT)
                t->dot_by[r.reg] = in, t->dot[0] = now;
        }
        if (flags & OF_SALU && r.reg == REG_M0)
            t->last_salu_m0 = now;
    }
    if (in->op->exec == x_vmem && in->ndata && in->mem.bytes > 8 &&
        !(in->mem.space == SP_BUFFER && in->mem.soffset.kind == O_REG))
        for (int i = 0; i < in->ndata; i++)
            stamp(t->wide_store, in->rd[i], now);
}
