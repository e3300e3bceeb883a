/* device: what a target family must do to run kernels. One vtable per family (like QBE's Target).
 *
 * The CPU family runs a kernel's threads under OpenMP; CUDA and HIP launch on the caller's stream.
 * Everything above this line (layer, trainer, verify, bench) is written once for all of them. */
#ifndef MOEC_DEVICE_H
#define MOEC_DEVICE_H

#include "../gen/gen.h"
#include "moec.h"

/* One argument of a kernel. An emitted CPU kernel has the entry
 *     void SYMBOL(const struct args *a, long thread, long threads)
 * (with launch.phases > 1: a fourth argument `long phase`, called for each phase, a barrier between)
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
    /* Opens machine number `index` of the family for `target`; fills device->state. */
    moec_status (*open)(moec_device *device, int index, moec_error *err);
    void (*close)(moec_device *device);
    moec_status (*alloc)(moec_device *device, size_t bytes, const char *who, void **ptr,
                         moec_error *err);
    void (*free)(moec_device *device, void *ptr);
    moec_status (*upload)(moec_device *device, void *dst, const void *src, size_t bytes,
                          moec_error *err);
    moec_status (*download)(moec_device *device, void *dst, const void *src, size_t bytes,
                            moec_error *err);
    moec_status (*synchronize)(moec_device *device, void *stream, moec_error *err);
    /* Compiles `kernel` to a binary image in `path` (a new file). Called without the cache's lock. */
    moec_status (*compile)(moec_device *device, const moec_kernel *kernel, const char *path,
                           moec_error *err);
    /* Who compiles: name, version and flags; part of the cache key. Static or device-owned. */
    const char *(*compiler)(moec_device *device);
    moec_status (*load)(moec_device *device, const moec_kernel *kernel, const char *path,
                        moec_module *module, moec_error *err);
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
    moec_gen *gen;          /* used while creating kernels only */
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
};

extern const moec_device_ops moec_cpu_device_ops; /* device_cpu.c */

/* Emits, compiles (or finds in the cache) and loads one kernel (jit.c). config NULL: default. */
moec_status moec_module_create(moec_device *device, const moec_op *op, const moec_spec *spec,
                               const moec_config *config, int64_t tokens_hint, moec_module **module,
                               moec_error *err);
/* Several at once: compiles run in parallel (jit.c). modules[i] for requests[i]; target ignored. */
moec_status moec_module_create_all(moec_device *device, const moec_request *requests, int count,
                                   moec_module **modules, moec_error *err);
void moec_module_free(moec_device *device, moec_module *module);

/* Scratch bytes of a module for sizes T, R, N (0 when it needs none). */
moec_status moec_module_scratch(const moec_device *device, const moec_module *module, int64_t T,
                                int64_t R, int64_t N, size_t *bytes, moec_error *err);
moec_status moec_module_launch(moec_device *device, void *stream, const moec_module *module,
                               const moec_arg *args, int64_t T, int64_t R, int64_t N, void *scratch,
                               moec_error *err);

/* Counters behind moec_counters_read: every allocation, compile, file and launch goes through these. */
enum moec_count { MOEC_COUNT_ALLOC, MOEC_COUNT_COMPILE, MOEC_COUNT_FILE, MOEC_COUNT_LAUNCH };
void moec_count(enum moec_count what);

#endif
