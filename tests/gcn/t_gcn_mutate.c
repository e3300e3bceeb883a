// Mutations: every s_waitcnt and every s_barrier on an executed path is replaced by s_nop, one at
// a time, and the interpreter must report it, or the results must be wrong.
//
// A wait may be redundant on the path taken. That is decided here from the trace of the unchanged
// program, apart from the interpreter's own bookkeeping, by this criterion: with the wait left out,
// no instruction names the result register of a memory operation before some other wait has
// retired it, and no LDS access is outstanding when its wave passes a barrier. A barrier is
// redundant when no wave accesses LDS between it and the next barrier or the end.
#include "../t.h"
#include "jobs.h"
#include "tool.h"

#include <ctype.h>
#include <stdlib.h>

enum { MAX_INST = 4096, MAX_OUT = 64, REGS = 640 }; // s at 0, v at 128, a at 384
enum what { OTHER, VMEM, DS, DS_LANE, SMEM, WAIT, BARRIER };
struct names { // registers an instruction names, and those it loads into
    unsigned char all[REGS / 8], result[REGS / 8];
    enum what what;
    int vm, lgkm;
};
struct program {
    unsigned char *co;
    size_t bytes, n;
    gcn_object *o;
    struct names *in;
    size_t *offset;
    int of_address[1 << 16]; // address / 4 -> index + 1
};
struct trace { // what one wave executed
    unsigned group[2];
    int wave;
    int *at;
    size_t n, room;
};
static struct trace *traces;
static size_t ntraces;
static const struct program *tracing;

static void set(unsigned char *bits, int lo, int hi)
{
    for (int i = lo; i <= hi && i < REGS; i++)
        bits[i / 8] |= (unsigned char)(1 << i % 8);
}
static bool meet(const unsigned char *a, const unsigned char *b)
{
    for (int i = 0; i < REGS / 8; i++)
        if (a[i] & b[i])
            return true;
    return false;
}

static void read_names(const char *text, struct names *x)
{
    const char *p = text + strcspn(text, " ");
    bool first = true, load = strstr(text, "load") || strstr(text, "ds_read") ||
                              strstr(text, "permute") || strstr(text, "swizzle") ||
                              strstr(text, "_rtn");
    memset(x, 0, sizeof *x);
    x->what = !strncmp(text, "s_waitcnt", 9)                         ? WAIT
              : !strncmp(text, "s_barrier", 9)                       ? BARRIER
              : !strncmp(text, "s_load", 6) || !strncmp(text, "s_buffer", 8) ? SMEM
              : strstr(text, "permute") || strstr(text, "swizzle")   ? DS_LANE
              : !strncmp(text, "ds_", 3)                             ? DS
              : !strncmp(text, "global_", 7) || !strncmp(text, "buffer_", 7) ? VMEM
                                                                     : OTHER;
    if (x->what == WAIT) {
        const char *v = strstr(text, "vmcnt("), *l = strstr(text, "lgkmcnt(");
        x->vm = v ? atoi(v + 6) : 63;
        x->lgkm = l ? atoi(l + 8) : 15;
        return;
    }
    for (; *p; p++) {
        bool start = !isalnum((unsigned char)p[-1]) && p[-1] != '_';
        int base = *p == 's' ? 0 : *p == 'v' ? 128 : *p == 'a' ? 384 : -1, lo, hi;
        if (*p == ',')
            first = false;
        if (!start || base < 0)
            continue;
        if (!strncmp(p, "vcc", 3))
            lo = 106, hi = 107, base = 0;
        else if (sscanf(p + 1, "[%d:%d]", &lo, &hi) != 2) {
            if (!isdigit((unsigned char)p[1]))
                continue;
            lo = hi = atoi(p + 1);
        }
        set(x->all, base + lo, base + hi);
        if (first && load && x->what != OTHER)
            set(x->result, base + lo, base + hi);
    }
}

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
    p->in = calloc(MAX_INST, sizeof *p->in);
    p->offset = calloc(MAX_INST, sizeof *p->offset);
    uint64_t address;
    const char *text;
    while (p->n < MAX_INST &&
           (text = gcn_instruction(p->o, p->n, &address, &p->offset[p->n], NULL))) {
        read_names(text, &p->in[p->n]);
        p->of_address[address / 4 & 0xffff] = (int)++p->n;
    }
    return true;
}
static void drop_program(struct program *p)
{
    gcn_close(p->o);
    free(p->co), free(p->in), free(p->offset);
}

static void record(void *user, const uint32_t *group, int wave, uint64_t address)
{
    struct trace *t = NULL;
    (void)user;
    for (size_t i = ntraces; i-- > 0 && !t;)
        if (traces[i].wave == wave && traces[i].group[0] == group[0] &&
            traces[i].group[1] == group[1])
            t = &traces[i];
    if (!t) {
        traces = realloc(traces, (ntraces + 1) * sizeof *traces);
        t = &traces[ntraces++];
        *t = (struct trace){{group[0], group[1]}, wave, NULL, 0, 0};
    }
    if (t->n == t->room)
        t->at = realloc(t->at, (t->room = 2 * t->room + 256) * sizeof *t->at);
    t->at[t->n++] = tracing->of_address[address / 4 & 0xffff] - 1;
}
static void forget(void)
{
    for (size_t i = 0; i < ntraces; i++)
        free(traces[i].at);
    free(traces);
    traces = NULL;
    ntraces = 0;
}

struct queue {
    const struct names *op[MAX_OUT];
    int n;
};
static void keep(struct queue *q, int count)
{
    int drop = q->n - count;
    if (drop > 0) {
        memmove(q->op, q->op + drop, (size_t)count * sizeof *q->op);
        q->n = count;
    }
}
static bool waits_for(const struct queue *q, const struct names *in)
{
    for (int i = 0; i < q->n; i++)
        if (meet(in->all, q->op[i]->result))
            return true;
    return false;
}
static bool holds(const struct queue *q, enum what what)
{
    for (int i = 0; i < q->n; i++)
        if (q->op[i]->what == what)
            return true;
    return false;
}

// The criterion, for one wave with instruction `gone` left out.
static bool redundant(const struct program *p, const struct trace *t, int gone)
{
    struct queue vm = {.n = 0}, lgkm = {.n = 0};
    for (size_t i = 0; i < t->n; i++) {
        const struct names *in = &p->in[t->at[i]];
        if (t->at[i] == gone)
            continue;
        if (waits_for(&vm, in) || waits_for(&lgkm, in))
            return false;
        if (in->what == BARRIER && holds(&lgkm, DS))
            return false;
        if (in->what == WAIT) {
            keep(&vm, in->vm);
            if (!in->lgkm || !holds(&lgkm, SMEM))
                keep(&lgkm, in->lgkm);
        } else if (in->what == VMEM) {
            if (vm.n == MAX_OUT)
                keep(&vm, MAX_OUT - 1);
            vm.op[vm.n++] = in;
        } else if (in->what == DS || in->what == DS_LANE || in->what == SMEM) {
            if (lgkm.n == 15)
                keep(&lgkm, 14);
            lgkm.op[lgkm.n++] = in;
        }
    }
    return true;
}

static bool barrier_redundant(const struct program *p, const struct trace *t, int gone)
{
    bool after = false;
    for (size_t i = 0; i < t->n; i++) {
        enum what what = p->in[t->at[i]].what;
        if (what == BARRIER)
            after = t->at[i] == gone;
        else if (after && what == DS)
            return false;
    }
    return true;
}

static bool executed(int at)
{
    for (size_t i = 0; i < ntraces; i++)
        for (size_t k = 0; k < traces[i].n; k++)
            if (traces[i].at[k] == at)
                return true;
    return false;
}

// True when the program without instruction `gone` is reported or computes something wrong.
static bool caught(const struct program *p, int gone, job *j)
{
    static const unsigned char s_nop[4] = {0x00, 0x00, 0x80, 0xbf};
    unsigned char saved[4];
    char why[256];
    gcn_object *o = NULL;
    gcn_result r;
    memcpy(saved, p->co + p->offset[gone], 4);
    memcpy(p->co + p->offset[gone], s_nop, 4);
    gcn_status st = gcn_open(p->co, p->bytes, &o, why, sizeof why);
    memcpy(p->co + p->offset[gone], saved, 4);
    if (st) {
        T_FAIL("%s", why);
        return false;
    }
    job_reset(j);
    T_EQ(job_run(o, j, 0, &r, NULL, NULL), GCN_OK);
    bool seen = r.findings.count || j->wrong(j);
    gcn_result_free(&r);
    gcn_close(o);
    return seen;
}

struct tally {
    int waits, waits_caught, waits_redundant, barriers, barriers_caught, barriers_redundant;
};

static void mutate(const struct program *p, int which, struct tally *sum)
{
    job j;
    gcn_result r;
    job_make(which, &j);
    tracing = p;
    T_EQ(job_run(p->o, &j, 0, &r, record, NULL), GCN_OK);
    T_EQ(r.findings.count, 0);
    T_EQ(j.wrong(&j), 0);
    gcn_result_free(&r);
    for (int at = 0; at < (int)p->n; at++) {
        enum what what = p->in[at].what;
        if ((what != WAIT && what != BARRIER) || !executed(at))
            continue;
        bool seen = caught(p, at, &j), spare = true;
        for (size_t i = 0; i < ntraces && spare; i++)
            spare = (what == WAIT ? redundant : barrier_redundant)(p, &traces[i], at);
        if (what == WAIT)
            sum->waits++, sum->waits_caught += seen, sum->waits_redundant += !seen && spare;
        else
            sum->barriers++, sum->barriers_caught += seen, sum->barriers_redundant += !seen && spare;
        uint64_t address = 0;
        const char *text = gcn_instruction(p->o, (size_t)at, &address, NULL, NULL);
        if (!seen && !spare)
            T_FAIL("%s: removing 0x%x %s is not reported", j.kernel, (unsigned)address, text);
        if (seen && spare)
            T_FAIL("%s: 0x%x %s is redundant, yet its removal is reported", j.kernel,
                   (unsigned)address, text);
    }
    forget();
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
    printf("# %s: %d waits removed: %d reported, %d redundant on the path; "
           "%d barriers removed: %d reported, %d redundant\n", arch, sum.waits, sum.waits_caught,
           sum.waits_redundant, sum.barriers, sum.barriers_caught, sum.barriers_redundant);
    T_OK(sum.waits > 30 && sum.barriers > 5);
}
T_CASE(removed_waits_and_barriers_gfx90a) { all("gfx90a"); }
T_CASE(removed_waits_and_barriers_gfx942) { all("gfx942"); }
T_MAIN
