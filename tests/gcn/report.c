// Level 0: what a code object says about itself, counted and compared with what was planned.
#include "isa.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SIMD_REGISTERS = 512, MAX_WAVES_PER_SIMD = 8, SIMDS = 4, MAX_GROUPS = 16 };

static int by_name(const void *a, const void *b)
{
    return strcmp(((const gcn_mnemonic *)a)->name, ((const gcn_mnemonic *)b)->name);
}

static void count(gcn_report *r, const char *name)
{
    for (size_t i = 0; i < r->nmnemonic; i++)
        if (!strcmp(r->mnemonic[i].name, name)) {
            r->mnemonic[i].count++;
            return;
        }
    snprintf(r->mnemonic[r->nmnemonic].name, sizeof r->mnemonic->name, "%s", name);
    r->mnemonic[r->nmnemonic++].count = 1;
}

// Registers are allocated in units of 8 from 512 per lane (a limit on occupancy makes the compiler allocate
// more than it names); scalar registers from 800 per SIMD, which only
// matters above 100 of them.
static u32 waves_per_simd(const gcn_report *r)
{
    u32 v = (r->vgpr_alloc + r->agpr_alloc + 7) / 8 * 8, n = v ? SIMD_REGISTERS / v : MAX_WAVES_PER_SIMD;
    u32 s = r->sgpr_count <= 100 ? 8 : 7;
    n = n < s ? n : s;
    return n < MAX_WAVES_PER_SIMD ? n : MAX_WAVES_PER_SIMD;
}

// The older bf16 forms do half the work of the _1k ones in the same time.
static bool half_rate(const char *name)
{
    size_t n = strlen(name);
    return n > 4 && !strcmp(name + n - 4, "bf16") && name[n - 5] != '_' && strstr(name, "mfma");
}

static void most(u32 *n, u32 x)
{
    *n = *n > x ? *n : x;
}

static void count_registers(gcn_report *r, struct regs x)
{
    u32 end = (u32)x.reg + x.n;
    if (x.reg >= REG_A)
        most(&r->agpr_named, end - REG_A);
    else if (x.reg >= REG_V)
        most(&r->vgpr_named, end - REG_V);
    else if (x.reg < REG_FLAT_SCRATCH)
        most(&r->sgpr_named, end);
}

static void count_lds(gcn_report *r, const struct inst *in)
{
    const struct mem *m = &in->mem;
    u32 far = m->offset0 > m->offset1 ? m->offset0 : m->offset1;
    if (in->op->exec == x_ds)
        most(&r->lds_named, (m->stride ? far * m->stride : (u32)m->offset) + m->bytes);
}

static void count_instruction(gcn_report *r, const struct inst *in)
{
    char name[40];
    snprintf(name, sizeof name, "%.*s", (int)strcspn(in->text, " "), in->text);
    count(r, name);
    r->instructions++;
    count_lds(r, in);
    for (int i = 0; i < in->nrd; i++)
        count_registers(r, in->rd[i]);
    for (int i = 0; i < in->nwr; i++)
        count_registers(r, in->wr[i]);
    if (in->op->flags & OF_MFMA)
        r->mfma++;
    r->mfma_half_rate += half_rate(name);
    r->barriers += !strcmp(name, "s_barrier");
    r->waitcnts += !strcmp(name, "s_waitcnt");
    r->lds_reads_b128 += !strcmp(name, "ds_read_b128");
    r->accvgpr_moves += !strncmp(name, "v_accvgpr_", 10);
    r->flat_accesses += in->op->exec == x_vmem && in->mem.space == SP_FLAT;
    // MUBUF scratch goes through the private segment's resource in s[0:3].
    bool private = in->op->exec == x_vmem && in->mem.space == SP_BUFFER &&
                   in->mem.action != MEM_CACHE && in->mem.base.reg == 0 && r->scratch_bytes;
    r->scratch_accesses += private || (in->op->exec == x_vmem && in->mem.space == SP_SCRATCH);
}

gcn_status report_kernels(gcn_object *o)
{
    for (size_t i = 0; i < o->nkernel; i++) {
        struct kernel *k = &o->kernel[i];
        gcn_report *r = &k->report;
        if (!(r->mnemonic = calloc(k->last - k->first, sizeof *r->mnemonic)))
            return GCN_E_NOMEM;
        r->vgpr_alloc = k->vgprs, r->agpr_alloc = k->agprs;
        snprintf(r->target, sizeof r->target, "%s", o->arch == ARCH_GFX90A ? "gfx90a" : "gfx942");
        for (u32 j = k->first; j < k->last; j++)
            count_instruction(r, &o->inst[j]);
        qsort(r->mnemonic, r->nmnemonic, sizeof *r->mnemonic, by_name);
        r->waves_per_simd = waves_per_simd(r);
    }
    return GCN_OK;
}

size_t gcn_kernel_count(const gcn_object *o)
{
    return o->nkernel;
}
const gcn_report *gcn_kernel_report(const gcn_object *o, size_t i)
{
    return i < o->nkernel ? &o->kernel[i].report : NULL;
}
const gcn_report *gcn_find_kernel(const gcn_object *o, const char *name)
{
    for (size_t i = 0; i < o->nkernel; i++)
        if (!strcmp(o->kernel[i].report.name, name))
            return &o->kernel[i].report;
    return NULL;
}

uint32_t gcn_groups_per_cu(const gcn_report *r, uint32_t items, uint32_t dynamic_lds)
{
    u32 waves = (items + LANES - 1) / LANES, lds = r->lds_bytes + dynamic_lds;
    if (!waves)
        return 0;
    u32 n = r->waves_per_simd * SIMDS / waves;
    u32 by_lds = lds ? LDS_MAX / ((lds + 511) / 512 * 512) : MAX_GROUPS;
    n = n < by_lds ? n : by_lds;
    return n < MAX_GROUPS || waves == 1 ? n : MAX_GROUPS;
}

static gcn_status differ(gcn_findings *f, const gcn_report *r, const char *what, u64 is, u64 want)
{
    gcn_finding x = {.kind = GCN_STATIC, .count = 1, .wave = -1, .lane = -1};
    snprintf(x.text, sizeof x.text, "%.100s", r->name);
    snprintf(x.detail, sizeof x.detail, "%s: %llu, expected %llu", what, (unsigned long long)is,
             (unsigned long long)want);
    return findings_add(f, &x);
}

static gcn_status check_mfma(const gcn_report *r, const gcn_expect *e, gcn_findings *f)
{
    gcn_status st = GCN_OK;
    for (size_t i = 0; i < r->nmnemonic && e->mfma && !st; i++) {
        const gcn_mnemonic *m = &r->mnemonic[i];
        if (strncmp(m->name, "v_mfma", 6) || !strcmp(m->name, e->mfma))
            continue;
        char what[96];
        snprintf(what, sizeof what, "%s in place of %s", m->name, e->mfma);
        st = differ(f, r, what, m->count, 0);
    }
    if (!st && e->mfma && !r->mfma)
        st = differ(f, r, "MFMA instructions", 0, 1);
    return st;
}

// Of a SIMD, with as many workgroups of `items` as fit on the compute unit.
static u32 resident_waves(const gcn_report *r, u32 items, u32 dynamic_lds)
{
    return gcn_groups_per_cu(r, items, dynamic_lds) * ((items + LANES - 1) / LANES) / SIMDS;
}

// What the three accounts of a kernel must not contradict: "what", how much, at most how much.
static gcn_status check_accounts(const gcn_report *r, const gcn_expect *e, gcn_findings *f)
{
    // Where accumulation registers are in use, the metadata's count begins with the others, in fours.
    u32 vgprs = r->agpr_count ? r->vgpr_count - r->agpr_count : r->vgpr_count;
    const struct {
        const char *what;
        u64 is, most;
    } row[] = {
        {"vector registers named, by allocation", r->vgpr_named, r->vgpr_alloc},
        {"vector registers named, by metadata", r->vgpr_named, vgprs},
        {"vector registers in metadata, by allocation", r->vgpr_count, r->vgpr_alloc + r->agpr_alloc},
        {"accumulation registers named, by allocation", r->agpr_named, r->agpr_alloc},
        {"accumulation registers named, by metadata", r->agpr_named, r->agpr_count},
        {"scalar registers named, by metadata", r->sgpr_named, r->sgpr_count},
        {"LDS bytes that constant offsets reach", r->lds_named, (u64)r->lds_bytes + e->dynamic_lds},
    };
    gcn_status st = GCN_OK;
    for (size_t i = 0; i < sizeof row / sizeof *row && !st; i++)
        if (row[i].is > row[i].most)
            st = differ(f, r, row[i].what, row[i].is, row[i].most);
    return st;
}

gcn_status gcn_check_static(const gcn_report *r, const gcn_expect *e, gcn_findings *f)
{
    u32 waves = resident_waves(r, e->workgroup ? e->workgroup : r->max_workgroup, e->dynamic_lds);
    const struct {
        const char *what;
        u64 is, want;
        bool exact, on;
    } row[] = {
        {"scratch bytes per lane", r->scratch_bytes, 0, true, !e->allow_scratch},
        {"spilled vector registers", r->vgpr_spills, 0, true, !e->allow_scratch},
        {"spilled scalar registers", r->sgpr_spills, 0, true, !e->allow_scratch},
        {"scratch accesses", r->scratch_accesses, 0, true, !e->allow_scratch},
        {"flat accesses", r->flat_accesses, 0, true, !e->allow_flat},
        {"half-rate bf16 MFMA", r->mfma_half_rate, 0, true, true},
        {"wavefront size", r->wavefront_size, LANES, true, true},
        {"MFMA instructions", r->mfma, e->mfma_count, true, e->mfma_count},
        {"MFMA instructions beyond whole turns of the loop",
         e->mfma_each ? r->mfma % e->mfma_each : 0, 0, true, e->mfma_each},
        {"vector registers", r->vgpr_count, e->max_vgprs, false, e->max_vgprs},
        {"accumulation registers", r->agpr_count, e->max_agprs, false, e->max_agprs},
        {"LDS bytes", r->lds_bytes, e->lds_bytes, true, e->lds_bytes},
        {"kernel argument bytes", r->kernarg_bytes, e->kernarg_bytes, true, e->kernarg_bytes},
        {"largest workgroup", r->max_workgroup, e->workgroup, true, e->workgroup},
        {"waves per SIMD by registers", r->waves_per_simd, e->waves_per_simd, true,
         e->waves_per_simd},
        {"too few waves of a SIMD fit, by registers and LDS", waves, e->least_waves, true,
         waves < e->least_waves},
    };
    gcn_status st = check_mfma(r, e, f);
    if (!st)
        st = check_accounts(r, e, f);
    for (size_t i = 0; i < sizeof row / sizeof *row && !st; i++)
        if (row[i].on && (row[i].exact ? row[i].is != row[i].want : row[i].is > row[i].want))
            st = differ(f, r, row[i].what, row[i].is, row[i].want);
    return st;
}
