/* The CPU family: kernels are shared objects, run by OpenMP threads over the caller's memory.
 *
 * The OpenMP runtime is entered by its C ABI (GOMP_parallel, which libgomp and libomp both have),
 * so that any C compiler builds this file and the thread count is a plain argument. Kernels split
 * their work by (thread, threads) and give the same bits for any count, so a runtime that grants
 * fewer threads than asked changes time only. */
#include "device.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

void GOMP_parallel(void (*body)(void *), void *data, unsigned threads, unsigned flags);
void GOMP_barrier(void);
int omp_get_thread_num(void);
int omp_get_num_threads(void);
/* How long a waiting thread of libgomp spins before it sleeps. Weak: absent in other runtimes, and
 * not exported by a shared libgomp, where it then stays as it is. */
extern unsigned long long gomp_spin_count_var __attribute__((weak));

enum { LINE = 64, HUGE_PAGE = 2 << 20 };

typedef void cpu_entry(const moec_arg *args, long thread, long threads);
typedef void cpu_phase_entry(const moec_arg *args, long thread, long threads, long phase);

/* libgomp's default is to spin for tens of milliseconds, longer than a whole launch. As soon as
 * another program wants a core, each barrier then waits out a time slice: measured at load 5 on 2
 * cores, a training step became 4 to 7 times slower. 3000 rounds, a fraction of a millisecond,
 * bridge the gap between two launches. What the user sets in the environment stays. */
static void spin_briefly(void) {
    enum { ROUNDS = 3000 };
    if (!&gomp_spin_count_var || getenv("GOMP_SPINCOUNT") || getenv("OMP_WAIT_POLICY")) return;
    if (gomp_spin_count_var > ROUNDS) gomp_spin_count_var = ROUNDS;
}

static pthread_once_t spin_once = PTHREAD_ONCE_INIT;

static moec_status cpu_open(moec_device *device, int index, moec_error *err) {
    if (index != 0) return moec_hint(err, moec_fail(err, MOEC_E_DEVICE, "there is one CPU device: index 0"), "leave the index out");
    const moec_target *best = moec_cpu_best();
    if (!device->target) device->target = best;
    if (!moec_cpu_can(device->target)) {
        moec_status rc = moec_fail(err, MOEC_E_DEVICE, "this machine cannot run %s, which needs %s "
                                   "(it has %s)", device->target->name, device->target->needs,
                                   moec_cpu_features());
        return moec_hint(err, rc, "the best target here is %s%s", best->name,
                         device->target->amx ? "; MOEC_EMULATE_TILES=1 runs cpu-amx with its tile "
                         "instructions emulated, to check kernels" : "");
    }
    if (!device->threads) device->threads = moec_cpu_count();
    pthread_once(&spin_once, spin_briefly);
    device->sms = 0;
    return MOEC_OK;
}

static void cpu_close(moec_device *device) { (void)device; }

/* Large blocks ask for huge pages: weights are streamed, and 4 KiB pages would miss the TLB. */
static moec_status cpu_alloc(moec_device *device, size_t bytes, const char *who, void **ptr,
                             moec_error *err) {
    (void)device;
    size_t align = bytes >= 2 * (size_t)HUGE_PAGE ? HUGE_PAGE : 4 * LINE;
    if (posix_memalign(ptr, align, bytes ? bytes : 1)) {
        *ptr = NULL;
        moec_status rc =
            moec_fail(err, MOEC_E_NOMEM, "out of memory: %zu bytes for %s", bytes, who);
        return moec_hint(err, rc, "fewer tokens a step, a smaller model, or more memory");
    }
    if (align == HUGE_PAGE) (void)madvise(*ptr, bytes, MADV_HUGEPAGE);
    return MOEC_OK;
}

static void cpu_free(moec_device *device, void *ptr) {
    (void)device;
    free(ptr);
}

static moec_status cpu_move(moec_device *device, void *dst, const void *src, size_t bytes,
                            moec_error *err) {
    (void)device, (void)err;
    if (dst != src) memmove(dst, src, bytes);
    return MOEC_OK;
}

static moec_status cpu_copy(moec_device *device, void *stream, void *dst, const void *src,
                            size_t bytes, moec_error *err) {
    (void)stream;
    return cpu_move(device, dst, src, bytes, err);
}

static moec_status cpu_synchronize(moec_device *device, void *stream, moec_error *err) {
    (void)device, (void)stream, (void)err;
    return MOEC_OK; /* launches return when the work is done */
}

static moec_status cpu_load(moec_device *device, const char *path, moec_module *module,
                            moec_error *err) {
    (void)device;
    moec_count(MOEC_COUNT_FILE);
    module->handle = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (!module->handle) {
        moec_status rc = moec_fail(err, MOEC_E_IO, "cannot load %s: %s", path, dlerror());
        return moec_hint(err, rc,
                         "if that disk forbids execution (noexec), set MOEC_CACHE elsewhere");
    }
    module->entry = dlsym(module->handle, module->kernel.symbol);
    if (module->entry) return MOEC_OK;
    dlclose(module->handle);
    module->handle = NULL;
    return moec_fail(err, MOEC_E_CORRUPT, "%s has no symbol %s", path, module->kernel.symbol);
}

static void cpu_unload(moec_device *device, moec_module *module) {
    (void)device;
    if (module->handle) dlclose(module->handle);
}

typedef struct job {
    cpu_entry *entry;
    cpu_phase_entry *phase_entry;
    long phases;
    moec_arg args[MOEC_MAX_ARGS + 1];
} job;

static void work(void *data) {
    job *j = data;
    j->entry(j->args, omp_get_thread_num(), omp_get_num_threads());
}

static void work_in_phases(void *data) {
    job *j = data;
    long thread = omp_get_thread_num(), threads = omp_get_num_threads();
    for (long phase = 0; phase < j->phases; phase++) {
        if (phase) GOMP_barrier();
        j->phase_entry(j->args, thread, threads, phase);
    }
}

static moec_status cpu_launch(moec_device *device, void *stream, const moec_module *module,
                              const moec_arg *args, const moec_sizes *sizes, void *scratch,
                              moec_error *err) {
    (void)stream, (void)sizes, (void)err;
    size_t count = (size_t)module->kernel.op->arg_count;
    job j = {.phases = module->kernel.launch.phases};
    memcpy(&j.entry, &module->entry, sizeof j.entry);
    memcpy(&j.phase_entry, &module->entry, sizeof j.phase_entry);
    memcpy(j.args, args, count * sizeof *args);
    j.args[count].ptr = scratch;
    GOMP_parallel(j.phases > 1 ? work_in_phases : work, &j, (unsigned)device->threads, 0);
    return MOEC_OK;
}

const moec_device_ops moec_cpu_device_ops = {
    .family = "cpu", .open = cpu_open, .close = cpu_close, .alloc = cpu_alloc, .free = cpu_free,
    .upload = cpu_move, .download = cpu_move, .copy = cpu_copy, .synchronize = cpu_synchronize,
    .load = cpu_load, .unload = cpu_unload, .launch = cpu_launch,
};
