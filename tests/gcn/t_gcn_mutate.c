// Mutations: every s_barrier on an executed path is replaced by s_nop, and every s_waitcnt is made not to
// wait for one of its counters, then for none; one at a time. The interpreter must report it, or the
// results must be wrong, exactly when needed.c says from the trace of the unchanged program that it
// was needed: both verdicts must agree in both directions.
#include "../t.h"
#include "jobs.h"
#include "needed.h"
#include "tool.h"

#include <stdlib.h>

struct program {
    unsigned char *co;
    size_t bytes;
    gcn_object *o;
    needed *needed;
};
struct tally {
    int waits, waits_caught, barriers, barriers_caught;
};

static bool load_program(struct program *p, const char *definitions, const char *arch)
{
    char why[4000] = "tests/gcn/kernels.hip not found: run from the repository's root";
    char *src = job_source(definitions);
    memset(p, 0, sizeof *p);
    p->co = src ? tool_compile(src, true, arch, &p->bytes, why, sizeof why) : NULL;
    free(src);
    if (!p->co || gcn_open(p->co, p->bytes, &p->o, why, sizeof why)) {
        T_FAIL("%s", why);
        return false;
    }
    p->needed = needed_new(p->o);
    return p->needed != NULL;
}
static void drop_program(struct program *p)
{
    needed_free(p->needed);
    gcn_close(p->o);
    free(p->co);
}

// True when the program with `word` as its i-th instruction is reported or computes something wrong.
static bool caught(const struct program *p, size_t i, uint32_t word, job *j)
{
    unsigned char saved[4];
    char why[256];
    size_t offset;
    gcn_object *o = NULL;
    gcn_result r;
    gcn_instruction(p->o, i, NULL, &offset, NULL);
    memcpy(saved, p->co + offset, 4);
    memcpy(p->co + offset, &word, 4);
    gcn_status st = gcn_open(p->co, p->bytes, &o, why, sizeof why);
    memcpy(p->co + offset, saved, 4);
    if (st) {
        T_FAIL("%s", why);
        return false;
    }
    job_reset(j);
    T_EQ(job_run(o, j, 0, &r, NULL), GCN_OK);
    bool seen = r.findings.count || j->wrong(j);
    gcn_result_free(&r);
    gcn_close(o);
    return seen;
}

static void agree(const struct program *p, size_t i, const job *j, const char *what, bool seen, bool need)
{
    uint64_t address = 0;
    const char *text = gcn_instruction(p->o, i, &address, NULL, NULL);
    if (seen != need)
        T_FAIL("%s: 0x%x %s without %s is %s, yet %s", j->kernel, (unsigned)address, text, what,
               need ? "wrong" : "right", seen ? "reported" : "not reported");
}

static void mutate_wait(const struct program *p, size_t i, job *j, struct tally *sum)
{
    static const char *const name[] = {"", "vmcnt", "lgkmcnt", "both counters"};
    int all = needed_counters(p->needed, i);
    for (int counters = 1; counters <= all; counters++) {
        if (counters & ~all)
            continue;
        bool seen = caught(p, i, needed_relaxed(p->needed, i, counters), j);
        agree(p, i, j, name[counters], seen, needed_wait(p->needed, i, counters));
        sum->waits++;
        sum->waits_caught += seen;
    }
}

static void mutate(const struct program *p, int which, struct tally *sum)
{
    const uint32_t s_nop = 0xbf800000;
    job j;
    gcn_result r;
    job_make(which, &j);
    needed_forget(p->needed);
    T_EQ(job_run(p->o, &j, 0, &r, needed_trace(p->needed)), GCN_OK);
    T_EQ(r.findings.count, 0);
    T_EQ(j.wrong(&j), 0);
    gcn_result_free(&r);
    for (size_t i = 0; i < needed_count(p->needed); i++) {
        if (!needed_executed(p->needed, i))
            continue;
        mutate_wait(p, i, &j, sum);
        if (!needed_is_barrier(p->needed, i))
            continue;
        bool seen = caught(p, i, s_nop, &j);
        agree(p, i, &j, "it", seen, needed_barrier(p->needed, i));
        sum->barriers++;
        sum->barriers_caught += seen;
    }
    job_free(&j);
}

static void all(const char *arch)
{
    static const char *const defs[] = {"#define MI 16\n#define SWIZZLE 1\n",
                                       "#define MI 32\n#define SWIZZLE 0\n#define VGPR_ACC 1\n"};
    struct tally sum = {0};
    if (tool_missing())
        T_SKIP("clang-19 or lld-19 not found");
    for (int v = 0; v < 2; v++) {
        static struct program p;
        T_NEED(load_program(&p, defs[v], arch));
        for (int i = 0; i < (v ? 1 : NJOBS); i++)
            mutate(&p, i, &sum);
        drop_program(&p);
    }
    printf("# %s: %d waits weakened, %d reported, the others not needed; %d barriers removed, %d "
           "reported, the others not needed\n", arch, sum.waits, sum.waits_caught, sum.barriers,
           sum.barriers_caught);
    T_OK(sum.waits_caught > 30 && sum.barriers_caught > 5);
}
T_CASE(removed_waits_and_barriers_gfx90a) { all("gfx90a"); }
T_CASE(removed_waits_and_barriers_gfx942) { all("gfx942"); }
T_MAIN
