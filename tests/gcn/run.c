// Runs a kernel: workgroups one after another, waves up to their next barrier, one instruction
// at a time through fetch, checks, execution.
#include "isa.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { KERNARG_ALIGN = 16, DISPATCH_BYTES = 64, KEEP_BUFFERS = 3, FIRST_CLOCK = 64 };
enum { MAX_SPREAD = 64 }; // buffers that get addresses of their own, below those of the host
#define SPREAD(i) ((u64)((i) + 1) << 40)
#define DEFAULT_BUDGET 100000000ull

static gcn_status bad(gcn_status st, char *msg, size_t room, const char *fmt, ...)
{
    if (msg && room) {
        va_list ap;
        va_start(ap, fmt);
        vsnprintf(msg, room, fmt, ap);
        va_end(ap);
    }
    return st;
}

gcn_status gcn_open(const void *elf, size_t bytes, gcn_object **out, char *message, size_t room)
{
    if (message && room)
        *message = 0;
    *out = NULL;
    gcn_object *o = calloc(1, sizeof *o);
    if (!o)
        return bad(GCN_E_NOMEM, message, room, "out of memory");
    gcn_status st = object_load(o, elf, bytes, message, room);
    if (!st)
        st = decode_text(o, message, room);
    if (!st)
        st = report_kernels(o);
    if (st) {
        gcn_close(o);
        return st;
    }
    *out = o;
    return GCN_OK;
}

void gcn_close(gcn_object *o)
{
    if (!o)
        return;
    for (size_t i = 0; i < o->nkernel; i++)
        free(o->kernel[i].report.mnemonic);
    free(o->kernel);
    free(o->inst);
    free(o->inst_at);
    free(o->image);
    free(o->elf);
    free(o);
}

const char *gcn_instruction(const gcn_object *o, size_t i, uint64_t *address, size_t *offset,
                            size_t *bytes)
{
    if (i >= o->ninst)
        return NULL;
    const struct inst *in = &o->inst[i];
    if (address)
        *address = in->address;
    if (offset)
        *offset = o->text_offset + (in->address - o->text_lo);
    if (bytes)
        *bytes = in->bytes;
    return in->text;
}

void gcn_findings_free(gcn_findings *f)
{
    free(f->item);
    memset(f, 0, sizeof *f);
}
void gcn_result_free(gcn_result *r)
{
    gcn_findings_free(&r->findings);
}

// ---- one instruction ----

static void refresh_lanes(struct wave *w, u64 exec)
{
    for (int l = 0; l < LANES; l++)
        w->lane[l] = (u32)-(i32)(exec >> l & 1);
    w->lane_exec = exec;
}

static void step(struct wave *w)
{
    struct group *g = w->g;
    const struct inst *in = &g->obj->inst[w->pc];
    g->at = in;
    const gcn_trace *trace = g->launch->trace;
    if (trace && trace->step)
        trace->step(trace->user, g->id, w->id, in->address);
    check_pending(w, in);
    check_wait_states(w, in);
    u64 exec = exec_of(w);
    if (exec != w->lane_exec)
        refresh_lanes(w, exec);
    w->write = exec;
    w->next = w->pc + 1;
    in->op->exec(w, in);
    note_wait_states(w, in);
    w->clock += in->op->exec == x_sopp && !strcmp(in->op->name, "s_nop")
                    ? (in->word[0] & 0xffff) + 1
                    : 1;
    w->pc = w->next;
    g->result->instructions++;
    if (w->pc >= g->obj->ninst && w->state != W_END) {
        report(w, GCN_HANG, -1, "runs past the end of the code");
        g->stop = true;
    }
}

static void run_to_stop(struct wave *w)
{
    struct group *g = w->g;
    w->state = W_RUN;
    while (w->state == W_RUN && !g->stop) {
        if (!g->budget--) {
            g->at = &g->obj->inst[w->pc];
            report(w, GCN_HANG, -1, "instruction budget of the workgroup used up");
            g->stop = true;
            return;
        }
        step(w);
    }
    if (w->state == W_BARRIER && exec_of(w) != w->first_exec && !g->stop)
        report(w, GCN_BARRIER, -1, "barrier with exec %016llx; the wave began with %016llx",
               (unsigned long long)exec_of(w), (unsigned long long)w->first_exec);
}

// ---- one workgroup ----

// A permutation of the waves that changes from barrier to barrier.
static void wave_order(u32 *seed, int n, int *order)
{
    for (int i = 0; i < n; i++)
        order[i] = i;
    for (int i = n - 1; i > 0 && *seed; i--) {
        *seed = *seed * 1664525u + 1013904223u;
        int j = (int)(((u64)*seed * (u32)(i + 1)) >> 32), t = order[i];
        order[i] = order[j];
        order[j] = t;
    }
}

// Waves that have ended no longer count at a barrier, on the hardware as here; but a program
// that lets some waves skip one is wrong.
static void check_barrier(struct group *g)
{
    const struct wave *first = NULL;
    int ended = 0;
    for (int i = 0; i < g->nwaves; i++) {
        if (g->wave[i].state == W_END)
            ended++;
        else if (!first)
            first = &g->wave[i];
    }
    if (!first)
        return;
    struct wave *w = &g->wave[first->id];
    g->at = first->barrier_at;
    if (ended)
        report(w, GCN_BARRIER, -1, "%d of %d waves have ended without reaching it", ended,
               g->nwaves);
    for (int i = 0; i < g->nwaves; i++)
        if (g->wave[i].state == W_BARRIER && g->wave[i].barrier_at != first->barrier_at) {
            report(w, GCN_BARRIER, -1, "wave %d waits at 0x%x instead", i,
                   g->wave[i].barrier_at->address);
            return;
        }
}

static void run_group(struct group *g, u32 *seed)
{
    int order[MAX_WAVES], alive;
    do {
        alive = 0;
        wave_order(seed, g->nwaves, order);
        for (int i = 0; i < g->nwaves && !g->stop; i++) {
            struct wave *w = &g->wave[order[i]];
            if (w->state == W_END)
                continue;
            run_to_stop(w);
            alive += w->state == W_BARRIER;
        }
        if (alive && !g->stop)
            check_barrier(g);
        g->epoch++;
        if (alive && !g->stop)
            lds_carry_over(g);
    } while (alive && !g->stop);
}

static void user_sgpr(struct wave *w, int *at, int n, u64 x)
{
    for (int i = 0; i < n; i++) {
        w->s[*at + i] = i < 2 ? (u32)(x >> 32 * i) : 0;
        w->su[*at + i] = 0;
    }
    *at += n;
}

// Registers as the command processor leaves them, in the order of the descriptor's bits.
static void initial_scalars(struct wave *w)
{
    struct group *g = w->g;
    u32 p = g->k->properties, r2 = g->k->rsrc2;
    int at = 0;
    if (p & 1) { // private segment buffer: swizzled by lane, all of it in range
        user_sgpr(w, &at, 4, (u64)1 << 63);
        w->s[2] = ~0u;
        w->s[3] = 1u << 23;
    }
    if (p & 2)
        user_sgpr(w, &at, 2, g->dispatch_va);
    if (p & 4)
        user_sgpr(w, &at, 2, 0); // queue pointer
    if (p & 8)
        user_sgpr(w, &at, 2, g->kernarg_va);
    if (p & 16)
        user_sgpr(w, &at, 2, 0); // dispatch id
    if (p & 32)
        user_sgpr(w, &at, 2, 0); // flat scratch
    if (p & 64)
        user_sgpr(w, &at, 1, g->scratch_bytes);
    at = (int)(r2 >> 1 & 31);
    for (int i = 0; i < 3; i++)
        if (r2 >> (7 + i) & 1)
            user_sgpr(w, &at, 1, g->id[i]);
    if (r2 >> 10 & 1)
        user_sgpr(w, &at, 1, 0); // workgroup info
    if (r2 & 1 && g->obj->arch == ARCH_GFX90A)
        user_sgpr(w, &at, 1, 0); // this wave's scratch begins at its own base
}

static void define_row(struct wave *w, u32 row, u64 lanes)
{
    w->vu[row] &= ~lanes;
    for (int l = 0; l < LANES; l++)
        if (lanes >> l & 1)
            w->vub[row][l] = 0;
}

// Work-item ids, ten bits each, packed into v0.
static void initial_vectors(struct wave *w, const u32 block[3])
{
    u32 n = block[0] * block[1] * block[2], first = (u32)w->id * LANES;
    u64 exec = 0;
    for (u32 l = 0; l < LANES; l++) {
        u32 i = first + l, x = i % block[0], y = i / block[0] % block[1];
        u32 z = i / block[0] / block[1];
        w->v[0][l] = x | y << 10 | z << 20;
        exec |= (u64)(i < n) << l;
    }
    set_s64(w, REG_EXEC, exec);
    w->su[REG_EXEC] = w->su[REG_EXEC + 1] = 0;
    define_row(w, 0, exec);
    w->first_exec = exec;
}

// Everything not set by the hardware starts as an odd bit pattern and undefined.
static void reset_wave(struct wave *w, struct group *g, int id, const u32 block[3])
{
    const struct kernel *k = g->k;
    w->g = g;
    w->id = id;
    for (u32 r = 0; r < 512; r++) {
        if (r < 256 ? r >= k->vgprs : r - 256 >= k->agprs)
            continue;
        for (int l = 0; l < LANES; l++)
            w->v[r][l] = 0x7fc0dead;
        memset(w->vub[r], 255, sizeof w->vub[r]);
        w->vu[r] = ~(u64)0;
    }
    for (u32 r = 0; r < 128; r++)
        w->s[r] = 0xdead0000u + r, w->su[r] = ~0u;
    w->scc = 0;
    w->scc_u = 1;
    w->mode = k->rsrc1 >> 12 & 0xff;
    w->indexed = 0;
    w->state = W_RUN;
    w->vm.count = w->vm.nsmem = w->vm.nflat = 0;
    w->lgkm.count = w->lgkm.nsmem = w->lgkm.nflat = 0;
    memset(w->busy_vm, 0, sizeof w->busy_vm);
    memset(w->busy_lgkm, 0, sizeof w->busy_lgkm);
    memset(w->t, 0, sizeof *w->t);
    w->clock = FIRST_CLOCK;
    w->pc = g->obj->inst_at[k->entry / 4] - 1;
    initial_scalars(w);
    initial_vectors(w, block);
    refresh_lanes(w, exec_of(w));
}

// ---- the launch ----

static u32 one(u32 x)
{
    return x ? x : 1;
}

static void put_hidden(u8 *kernarg, const struct hidden *h, const u32 grid[3], const u32 block[3],
                       u32 dynamic_lds)
{
    u32 x = 0, i = h->kind;
    if (i < 3)
        x = grid[i];
    else if (i < 6)
        x = block[i - 3];
    else if (i == 9)
        x = grid[2] > 1 || block[2] > 1 ? 3 : grid[1] > 1 || block[1] > 1 ? 2 : 1;
    else if (i == 10)
        x = dynamic_lds;
    memcpy(kernarg + h->offset, &x, h->size < 4 ? h->size : 4);
}

// AQL dispatch packet: the few fields a kernel reads.
static void put_dispatch(u8 *p, const u32 grid[3], const u32 block[3])
{
    for (int i = 0; i < 3; i++) {
        u16 b = (u16)block[i];
        u32 n = grid[i] * block[i];
        memcpy(p + 4 + 2 * i, &b, 2);
        memcpy(p + 12 + 4 * i, &n, 4);
    }
}

struct memory { // one allocation for everything a launch needs
    struct wave *wave;
    struct times *times;
    struct pending *pending;
    u8 *lds, *lds_undef, *kernarg, *dispatch, *scratch;
    struct lds_tag *tag;
    gcn_buffer *buffer;
};

static void release(struct memory *m)
{
    free(m->wave), free(m->times), free(m->pending), free(m->lds), free(m->lds_undef);
    free(m->kernarg), free(m->dispatch), free(m->scratch), free(m->tag), free(m->buffer);
}

static bool acquire(struct memory *m, const struct kernel *k, int nwaves, size_t nbuffer,
                    u32 scratch)
{
    size_t n = (size_t)nwaves;
    u32 kernarg = (k->report.kernarg_bytes + KERNARG_ALIGN) / KERNARG_ALIGN * KERNARG_ALIGN;
    m->wave = calloc(n, sizeof *m->wave);
    m->times = calloc(n, sizeof *m->times);
    m->pending = calloc(n * (VM_MAX + LGKM_MAX + 2), sizeof *m->pending);
    m->lds = calloc(1, LDS_MAX);
    m->lds_undef = calloc(1, LDS_MAX);
    m->kernarg = calloc(1, kernarg);
    m->dispatch = calloc(1, DISPATCH_BYTES);
    m->scratch = calloc(n * LANES, scratch ? scratch : 1);
    m->tag = calloc(1, sizeof *m->tag);
    m->buffer = calloc(2 * nbuffer + KEEP_BUFFERS, sizeof *m->buffer);
    return m->wave && m->times && m->pending && m->lds && m->lds_undef && m->kernarg &&
           m->dispatch && m->scratch && m->tag && m->buffer;
}

static void wire(struct group *g, struct memory *m)
{
    g->wave = m->wave;
    g->lds = m->lds, g->lds_undef = m->lds_undef, g->tag = m->tag;
    for (int i = 0; i < g->nwaves; i++) {
        struct wave *w = &g->wave[i];
        w->t = &m->times[i];
        w->vm.item = m->pending + (size_t)i * (VM_MAX + LGKM_MAX + 2);
        w->lgkm.item = w->vm.item + VM_MAX + 1;
        w->scratch = m->scratch + (size_t)i * LANES * g->scratch_bytes;
    }
}

static void add_buffer(struct group *g, void *host, size_t bytes, bool writable, const char *name)
{
    g->buffer[g->nbuffer++] =
        (gcn_buffer){host, (u64)(uintptr_t)host, bytes, writable, name};
}

// The buffer a host pointer belongs to: the one that begins there, else the first around it.
static size_t owner(const gcn_launch *l, u64 p)
{
    size_t around = l->nbuffer;
    for (size_t i = 0; i < l->nbuffer; i++) {
        u64 at = (u64)(uintptr_t)l->buffer[i].host;
        if (l->buffer[i].va || p - at >= l->buffer[i].bytes)
            continue;
        if (p == at)
            return i;
        if (around == l->nbuffer)
            around = i;
    }
    return around;
}

// Rewrites arguments that are buffers to the addresses the buffers got.
static void spread_arguments(const struct kernel *k, const gcn_launch *l, u8 *kernarg)
{
    for (u32 a = 0; a < k->npointer; a++) {
        u64 p, at = k->pointer[a];
        if (at + 8 > l->kernarg_bytes)
            continue;
        memcpy(&p, kernarg + at, 8);
        size_t i = owner(l, p);
        if (i >= l->nbuffer || i >= MAX_SPREAD)
            continue;
        p = p - (u64)(uintptr_t)l->buffer[i].host + SPREAD(i);
        memcpy(kernarg + at, &p, 8);
    }
}

static void register_buffers(struct group *g, struct memory *m, const gcn_launch *l)
{
    g->buffer = m->buffer;
    for (size_t i = 0; i < l->nbuffer; i++) {
        gcn_buffer *b = &g->buffer[g->nbuffer++];
        *b = l->buffer[i];
        if (b->va)
            continue;
        if (i < MAX_SPREAD) {
            b->va = SPREAD(i);
            b = &g->buffer[g->nbuffer++];
            *b = l->buffer[i];
        }
        b->va = (u64)(uintptr_t)b->host;
    }
    u32 n = g->k->report.kernarg_bytes;
    // Compilers widen scalar loads to the segment's alignment.
    add_buffer(g, m->kernarg, (n + KERNARG_ALIGN - 1) / KERNARG_ALIGN * KERNARG_ALIGN, false,
               "kernarg");
    add_buffer(g, g->obj->image, g->obj->image_bytes, true, "code object");
    add_buffer(g, m->dispatch, DISPATCH_BYTES, false, "dispatch packet");
    g->kernarg_va = (u64)(uintptr_t)m->kernarg;
    g->dispatch_va = (u64)(uintptr_t)m->dispatch;
}

static gcn_status check_launch(const gcn_launch *l, const struct kernel *k, u32 items, char *msg,
                               size_t room)
{
    if (items > 1024 || items > k->report.max_workgroup)
        return bad(GCN_E_ARGS, msg, room, "%u work-items in a workgroup; kernel %s allows %u",
                   items, l->kernel, k->report.max_workgroup);
    if (k->report.lds_bytes + l->dynamic_lds > LDS_MAX)
        return bad(GCN_E_ARGS, msg, room, "%u + %u bytes of LDS; there are %u",
                   k->report.lds_bytes, l->dynamic_lds, (u32)LDS_MAX);
    if (l->kernarg_bytes > k->report.kernarg_bytes)
        return bad(GCN_E_ARGS, msg, room, "%zu bytes of arguments; kernel %s takes %u",
                   l->kernarg_bytes, l->kernel, k->report.kernarg_bytes);
    if (k->report.wavefront_size != LANES)
        return bad(GCN_E_ARGS, msg, room, "wavefront size %u; only 64 exists here",
                   k->report.wavefront_size);
    return GCN_OK;
}

static void run_grid(struct group *g, const u32 grid[3], const u32 block[3])
{
    u32 seed = g->launch->seed;
    u64 n = (u64)grid[0] * grid[1] * grid[2];
    for (u64 i = 0; i < n && !g->stop && !g->oom; i++) {
        g->id[0] = (u32)(i % grid[0]);
        g->id[1] = (u32)(i / grid[0] % grid[1]);
        g->id[2] = (u32)(i / grid[0] / grid[1]);
        g->budget = g->launch->max_instructions ? g->launch->max_instructions : DEFAULT_BUDGET;
        memset(g->lds, 0xcd, g->lds_bytes);
        memset(g->lds_undef, 255, g->lds_bytes);
        for (int w = 0; w < g->nwaves; w++)
            reset_wave(&g->wave[w], g, w, block);
        if (i == 0)
            for (u32 j = g->k->first; j < g->k->last; j++)
                check_registers(&g->wave[0], &g->obj->inst[j]);
        run_group(g, &seed);
        if (++g->epoch > 0xfffff0) { // tags keep 24 bits of it
            memset(g->tag, 0, sizeof *g->tag);
            g->epoch = 1;
        }
    }
}

gcn_status gcn_run(gcn_object *o, const gcn_launch *l, gcn_result *result, char *msg, size_t room)
{
    memset(result, 0, sizeof *result);
    const struct kernel *k = NULL;
    for (size_t i = 0; i < o->nkernel; i++)
        if (l->kernel && !strcmp(o->kernel[i].report.name, l->kernel))
            k = &o->kernel[i];
    if (!k)
        return bad(GCN_E_KERNEL, msg, room, "no kernel %s in the code object",
                   l->kernel ? l->kernel : "(null)");
    u32 grid[3], block[3];
    for (int i = 0; i < 3; i++)
        grid[i] = one(l->grid[i]), block[i] = one(l->block[i]);
    u64 items = (u64)block[0] * block[1] * block[2];
    gcn_status st = check_launch(l, k, items > 1024 ? 1025 : (u32)items, msg, room);
    if (st)
        return st;
    struct memory m = {0};
    struct group g = {.obj = o, .k = k, .launch = l, .result = result, .epoch = 1};
    g.nwaves = (int)((items + LANES - 1) / LANES);
    g.scratch_bytes = k->report.scratch_bytes;
    g.lds_bytes = k->report.lds_bytes + l->dynamic_lds;
    if (!acquire(&m, k, g.nwaves, l->nbuffer, g.scratch_bytes)) {
        release(&m);
        return bad(GCN_E_NOMEM, msg, room, "out of memory");
    }
    wire(&g, &m);
    if (l->kernarg_bytes)
        memcpy(m.kernarg, l->kernarg, l->kernarg_bytes);
    spread_arguments(k, l, m.kernarg);
    for (u32 i = 0; i < k->nhidden; i++)
        if ((u32)k->hidden[i].offset + 4 <= k->report.kernarg_bytes + KERNARG_ALIGN)
            put_hidden(m.kernarg, &k->hidden[i], grid, block, l->dynamic_lds);
    put_dispatch(m.dispatch, grid, block);
    register_buffers(&g, &m, l);
    if (l->trace && l->trace->begin)
        l->trace->begin(l->trace->user);
    run_grid(&g, grid, block);
    release(&m);
    return g.oom ? bad(GCN_E_NOMEM, msg, room, "out of memory") : GCN_OK;
}
