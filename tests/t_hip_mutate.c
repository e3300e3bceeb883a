/* The compiled kernels of the HIP target, mutated: each barrier on the executed path is removed in turn,
 * and each wait is made not to wait for one of its counters, then for none. The interpreter must report
 * it, or the results must be wrong, exactly when gcn/needed.c says from the trace of the unharmed kernel
 * that it was needed. And no barrier of a kernel may be one that never was.
 *
 * Ops alternate between the two architectures; MOEC_HIP_MUTATE=all runs each on both. */
#include "gcn/needed.h"
#include "hip_trial.h"

static const char tiny[] = "E=3 K=2 H=72 F=40 heads=4 kv=2 dim=16 V=100 bias=1";

/* Kernels that need some of their barriers for more experts or tokens than are affordable while each wait is
 * taken away in turn. */
static const struct { setup s; int least; } large[] = {
    {{"route", "E=200 K=4", "window=1", 8192}, 5},
    {{"route", "E=200 K=4 capacity=0.5", "window=1", 8192}, 5},
    {{"route", "E=100 K=4", "window=1", 8192}, 5},
    {{"route", "E=100 K=4 capacity=0.5", "window=1", 8192}, 5},
    {{"embed_bwd", "H=72 V=32", "list=256", 8300}, 5},
};

static bool is_large(const char *op) {
    for (size_t i = 0; i < sizeof large / sizeof *large; i++)
        if (!strcmp(large[i].s.op, op)) return true;
    return false;
}

typedef struct tally { int waits, waits_caught, barriers, barriers_caught; } tally;

/* One kernel on one case, and what its unharmed run needed. */
typedef struct bench {
    moec_device *device;
    const setup *s;
    moec_module *m;
    moec_case c;
    gcn_object *code;
    needed *needed;
    object right;
    char fault[512];
    tally sum;
} bench;

/* Is the kernel with `word` as its i-th instruction noticed? */
static bool caught(bench *b, size_t i, uint32_t word) {
    static object wrong;
    size_t offset;
    gcn_instruction(b->code, i, NULL, &offset, NULL);
    wrong = b->right;
    memcpy(wrong.bytes + offset, &word, sizeof word);
    if (!put_file("k.co", wrong.bytes, wrong.n)) return false;
    run_case(b->device, &b->c, b->m, b->fault);
    return *b->fault;
}

static void agree(const bench *b, size_t i, const char *what, bool seen, bool need) {
    uint64_t address = 0;
    const char *text = gcn_instruction(b->code, i, &address, NULL, NULL);
    if (seen == need) return;
    T_FAIL("%s %s on %s: %#" PRIx64 " %s without %s is %s, yet %s: %s", b->s->op,
           b->s->config ? b->s->config : "", b->device->target->name, address, text, what,
           need ? "wrong" : "right", seen ? "reported" : "not reported", b->fault);
}

static void mutate_wait(bench *b, size_t i) {
    static const char *const name[] = {"", "vmcnt", "lgkmcnt", "both counters"};
    int all = needed_counters(b->needed, i);
    for (int counters = 1; counters <= all; counters++) {
        if (counters & ~all) continue;
        bool seen = caught(b, i, needed_relaxed(b->needed, i, counters));
        agree(b, i, name[counters], seen, needed_wait(b->needed, i, counters));
        b->sum.waits++;
        b->sum.waits_caught += seen;
    }
}

static void mutate_barrier(bench *b, size_t i) {
    const uint32_t s_nop = 0xbf800000;
    uint64_t address = 0;
    bool seen = caught(b, i, s_nop), need = needed_barrier(b->needed, i);
    gcn_instruction(b->code, i, &address, NULL, NULL);
    agree(b, i, "it", seen, need);
    if (!need && !is_large(b->s->op)) T_FAIL("%s: the barrier at %#" PRIx64 " is not needed", b->s->op, address);
    b->sum.barriers++;
    b->sum.barriers_caught += seen;
}

/* Runs the unharmed kernel under the trace; false when it is not right as it is. */
static bool observe(bench *b) {
    char fault[512], message[512];
    gcn_machine *machine = b->device->state;
    if (!read_object(&b->right) || gcn_open(b->right.bytes, b->right.n, &b->code, message, sizeof message))
        return false;
    b->needed = needed_new(b->code);
    if (!b->needed) return false;
    machine->trace = needed_trace(b->needed);
    run_case(b->device, &b->c, b->m, fault);
    machine->trace = NULL;
    if (*fault) T_FAIL("%s: the unharmed kernel is reported: %s", b->s->op, fault);
    return !*fault;
}

static bool start(bench *b, moec_device *device, const setup *s) {
    *b = (bench){.device = device, .s = s, .m = compile(device, s, NULL, NULL)};
    return b->m && make_case(device, s, &b->c) && observe(b);
}

static void stop(bench *b) {
    needed_free(b->needed);
    gcn_close(b->code);
    moec_case_free(&b->c);
    drop(b->m);
}

static void mutate(moec_device *device, const setup *s, tally *sum) {
    static bench b; /* it holds a whole object */
    bool ready = start(&b, device, s);
    for (size_t i = 0; ready && i < needed_count(b.needed); i++) {
        if (!needed_executed(b.needed, i)) continue;
        mutate_wait(&b, i);
        if (needed_is_barrier(b.needed, i)) mutate_barrier(&b, i);
    }
    printf("# %-14s %-20s %s: waits %3d of %3d reported, barriers %2d of %2d\n", s->op, s->config ? s->config : "",
           device->target->name, b.sum.waits_caught, b.sum.waits, b.sum.barriers_caught, b.sum.barriers);
    sum->waits += b.sum.waits, sum->waits_caught += b.sum.waits_caught;
    sum->barriers += b.sum.barriers, sum->barriers_caught += b.sum.barriers_caught;
    stop(&b);
}

static void on_machines(const setup *s, int turn, tally *sum) {
    const char *wish = getenv("MOEC_HIP_MUTATE");
    for (int m = 0; m < MACHINES; m++) {
        if (!(wish && !strcmp(wish, "all")) && m != turn % MACHINES) continue;
        moec_device *device = device_of(m);
        if (device) mutate(device, s, sum);
    }
}

T_CASE(every_op) {
    tally sum = {0};
    const char *only = getenv("MOEC_HIP_OP");
    for (int i = 0; i < MOEC_OP_COUNT; i++) {
        moec_error ignored = {0};
        setup s = {moec_op_get((moec_op_id)i)->name, tiny, NULL, 70};
        moec_spec spec = spec_of(tiny);
        if (!device_of(0) || (only && strcmp(only, s.op))) continue;
        if (!moec_case_applies(moec_op_get((moec_op_id)i), &spec, &ignored)) on_machines(&s, i, &sum);
    }
    printf("# waits: %d of %d reported; barriers: %d of %d\n", sum.waits_caught, sum.waits, sum.barriers_caught,
           sum.barriers);
    T_OK(*t_skipped || only || (sum.waits_caught > 100 && sum.barriers_caught > 20));
}

T_CASE(other_configs) {
    static const setup list[] = {
        {"up", tiny, "bk=64 waves=1", 70}, {"down", tiny, "mi=16 waves=1", 70}, {"dh", tiny, "bm=64", 70},
        {"dx", tiny, "bm=64 bn=64", 70}, {"dw2", tiny, "bk=64 waves=1", 70}, {"dw1", tiny, "bm=64 bn=64 mi=16", 70},
    };
    tally sum = {0};
    for (size_t i = 0; i < sizeof list / sizeof *list; i++) on_machines(&list[i], (int)i, &sum);
}

/* Here all barriers of a kernel are executed, and every one of them is needed. */
T_CASE(every_barrier) {
    for (size_t i = 0; i < sizeof large / sizeof *large; i++) {
        static bench b;
        moec_device *device = device_of((int)i % MACHINES);
        int there = 0;
        if (!device) return;
        bool ready = start(&b, device, &large[i].s);
        for (size_t k = 0; ready && k < needed_count(b.needed); k++) {
            uint64_t address = 0;
            if (!needed_is_barrier(b.needed, k)) continue;
            gcn_instruction(b.code, k, &address, NULL, NULL);
            there++;
            if (!needed_executed(b.needed, k))
                T_FAIL("%s: the barrier at %#" PRIx64 " is not executed", b.s->op, address);
            else if (!needed_barrier(b.needed, k))
                T_FAIL("%s: the barrier at %#" PRIx64 " is not needed", b.s->op, address);
        }
        T_OK(there >= large[i].least);
        printf("# %s %s: %d barriers\n", large[i].s.op, large[i].s.spec, there);
        stop(&b);
    }
}

T_MAIN
