/* device: what a target family must do to run kernels. One vtable per family (like QBE's Target).
 *
 * The CPU family runs a kernel's threads under OpenMP; CUDA and HIP launch on the caller's stream.
 * Everything above this line (layer, trainer, verify, bench) is written once for all of them.
 * Who compiles for a family is toolchain.h's question: gen --compile needs no device. */
#ifndef MOEC_DEVICE_H
#define MOEC_DEVICE_H

#include "../gen/gen.h"
#include "moec.h"

/* One argument of a kernel. An emitted CPU kernel has the entry
 *     void SYMBOL(const struct args *a, long thread, long threads)
 * (with launch.phases > 1 a fourth argument `long phase`: called for each phase, a barrier between)
 * whose struct args has one 8-byte field per argument of the op in op order, then `void *scratch`:
 * an array of moec_arg is exactly that struct. GPU kernels take the same list by value. */
typedef union moec_arg {
    void *ptr;
    const void *cptr;
    int64_t i64;
    double f64;
} moec_arg;

typedef struct moec_module moec_module; /* a loaded kernel; belongs to its device */

typedef struct moec_device_ops {
    const char *family;
    const char *substitute; /* in words, what runs in place of the machine; NULL: the machine */
    const struct moec_toolchain *toolchain; /* who compiles for it; NULL: the family's toolchain */
    /* Opens machine number `index` of the family for device->target (NULL: sets the best one that
     * the machine can run). Fills state, threads or sms. */
    moec_status (*open)(moec_device *device, int index, moec_error *err);
    void (*close)(moec_device *device);
    moec_status (*alloc)(moec_device *device, size_t bytes, const char *who, void **ptr,
                         moec_error *err);
    void (*free)(moec_device *device, void *ptr);
    moec_status (*upload)(moec_device *device, void *dst, const void *src, size_t bytes,
                          moec_error *err);
    moec_status (*download)(moec_device *device, void *dst, const void *src, size_t bytes,
                            moec_error *err);
    /* Between two places in device memory, in stream order. */
    moec_status (*copy)(moec_device *device, void *stream, void *dst, const void *src, size_t bytes,
                        moec_error *err);
    moec_status (*synchronize)(moec_device *device, void *stream, moec_error *err);
    /* Loads the binary that the family's toolchain made into module->handle, module->entry. */
    moec_status (*load)(moec_device *device, const char *path, moec_module *module,
                        moec_error *err);
    void (*unload)(moec_device *device, moec_module *module);
    /* Runs it. args: op->arg_count of them. sizes: T, R, N of this call (spec, threads, sms are the
     * device's). scratch: at least module's scratch bytes, NULL when it needs none. */
    moec_status (*launch)(moec_device *device, void *stream, const moec_module *module,
                          const moec_arg *args, const moec_sizes *sizes, void *scratch,
                          moec_error *err);
} moec_device_ops;

struct moec_device {
    const moec_device_ops *ops;
    const moec_target *target;
    moec_gen *gen;          /* used while creating kernels only; made on first use */
    struct moec_cache *cache; /* made on first use: see cache.h */
    moec_module *modules;   /* registry of what is loaded: the same kernel is loaded once */
    int index;
    int threads;            /* CPU workers */
    int sms;                /* GPU multiprocessors */
    int dead;               /* a sticky error happened: every later call fails at once with it */
    char cause[512];        /* ... the first cause */
    void *state;            /* the family's own */
};

struct moec_module {
    moec_kernel kernel;     /* owned copy: source freed after load, the rest kept */
    void *handle, *entry;   /* the family's own */
    int references;
    moec_module *next;      /* in device->modules */
};

extern const moec_device_ops moec_cpu_device_ops; /* device_cpu.c */
extern const moec_device_ops moec_cuda_device_ops; /* device_cuda.c */
extern const moec_device_ops moec_hip_device_ops; /* device_hip.c */

/* E_SPEC that lists the targets there are (device.c). */
/* Does this error of a CUDA or HIP driver (they number alike) leave the process unable to use the GPU? */
bool moec_driver_lost(int code);
moec_status moec_unknown_target(const char *text, moec_error *err);

/* Best target of the CPU this runs on, and whether it can run a given one (cpu_features.c). */
const moec_target *moec_cpu_best(void);
bool moec_cpu_can(const moec_target *target);
/* MOEC_EMULATE_TILES=1: cpu-amx runs anywhere, its tile instructions as plain C. To check the
 * kernels on a machine without AMX; slow, and never chosen unless the target is named. */
bool moec_cpu_emulates(const moec_target *target);
/* Compiler flags for kernels of `target` on this machine: the target's own unless it is emulated.
 * Static text. */
const char *moec_cpu_flags(const moec_target *target);
/* What the CPU offers, in words: "AVX2 FMA AVX-512 ..."; static. */
const char *moec_cpu_features(void);
/* Worker threads of a CPU device: 0 takes moec_cpu_count(). */
enum { MOEC_MOST_THREADS = 4096 };
/* CPUs this process may use: affinity, control group quota, OMP_NUM_THREADS; at most MOEC_MOST_THREADS. */
int moec_cpu_count(void);

/* Emits, compiles (or finds in the cache) and loads one kernel (jit.c). config NULL: default. */
moec_status moec_module_create(moec_device *device, const moec_op *op, const moec_spec *spec,
                               const moec_config *config, int64_t tokens_hint, moec_module **module,
                               moec_error *err);
/* Parses a config text for a request on this device's serving target (jit.c). */
moec_status moec_device_config(moec_device *device, const moec_request *request, const char *text,
                               moec_config *config, moec_error *err);
/* Several at once: compiles run in parallel (jit.c). modules[i] for requests[i]; target ignored. */
moec_status moec_module_create_all(moec_device *device, const moec_request *requests, int count,
                                   moec_module **modules, moec_error *err);
void moec_module_free(moec_device *device, moec_module *module); /* drops one reference */
/* The target whose template serves the request's op and dtype: its target or the nearest of that
 * one's fallbacks. NULL when there is none. */
const moec_target *moec_serving_target(moec_gen *gen, const moec_request *request);
/* Opens the kernel cache and the generator, which the first module would do: the note is known
 * then. */
moec_status moec_device_ready(moec_device *device, moec_error *err);
/* What the user should know about this device, or "": e.g. that the cache cannot be written. */
const char *moec_device_note(const moec_device *device);
moec_status moec_device_copy(moec_device *device, void *stream, void *dst, const void *src,
                             size_t bytes, moec_error *err);

/* Scratch bytes of a module for sizes T, R, N (0 when it needs none). */
moec_status moec_module_scratch(const moec_device *device, const moec_module *module, int64_t T,
                                int64_t R, int64_t N, size_t *bytes, moec_error *err);
moec_status moec_module_launch(moec_device *device, void *stream, const moec_module *module,
                               const moec_arg *args, int64_t T, int64_t R, int64_t N, void *scratch,
                               moec_error *err);

/* Counters behind moec_counters_read: every allocation, compile, file and launch goes through
 * these. */
enum moec_count { MOEC_COUNT_ALLOC, MOEC_COUNT_COMPILE, MOEC_COUNT_FILE, MOEC_COUNT_LAUNCH };
void moec_count(enum moec_count what);

#endif
