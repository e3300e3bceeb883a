/* Devices: the family table, opening by name, and the thin calls that every family shares.
 *
 * A device that met an error from which its driver cannot recover is dead: every later call fails
 * at once with the first cause. Counters live here; all families count through moec_count. */
#include "device.h"

#include <inttypes.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cache.h"

static const moec_device_ops *const families[] = {
    &moec_cpu_device_ops,
    &moec_cuda_device_ops,
    &moec_hip_device_ops,
};
enum { FAMILY_COUNT = sizeof families / sizeof *families };

/* ---- counters ---- */

static atomic_ullong counters[4];

void moec_count(enum moec_count what) { atomic_fetch_add(&counters[what], 1); }

void moec_counters_read(moec_counters *c) {
    c->allocations = atomic_load(&counters[MOEC_COUNT_ALLOC]);
    c->compiles = atomic_load(&counters[MOEC_COUNT_COMPILE]);
    c->files_opened = atomic_load(&counters[MOEC_COUNT_FILE]);
    c->launches = atomic_load(&counters[MOEC_COUNT_LAUNCH]);
}

/* ---- errors that a driver does not recover from ---- */

/* What cuda.h says leaves the process "in an inconsistent state", and memory or links with errors beyond
 * correction. Their neighbours are refusals of one call (701: too many registers or threads asked for). */
bool moec_driver_lost(int code) {
    static const short lost[] = {214, 220, 226, 700, 702, 709, 710, 714, 715, 716, 717, 718, 719, 721, 810, 911};
    for (size_t i = 0; i < sizeof lost / sizeof *lost; i++)
        if (lost[i] == code) return true;
    return false;
}

/* ---- opening ---- */

static const moec_device_ops *family_find(const char *name) {
    for (int i = 0; i < FAMILY_COUNT; i++)
        if (!strcmp(families[i]->family, name)) return families[i];
    return NULL;
}

moec_status moec_unknown_target(const char *text, moec_error *err) {
    char names[512] = "cpu";
    for (int i = 0; moec_target_at(i); i++) {
        size_t used = strlen(names);
        snprintf(names + used, sizeof names - used, " %s", moec_target_at(i)->name);
    }
    char name[64];
    snprintf(name, sizeof name, "%.*s", (int)strcspn(text, ":"), text);
    /* A name of the vendors' is a machine that this build has no kernels for; anything else is a typo, and so is what
     * stands behind a name that is known. */
    bool vendors = (!strncmp(text, "gfx", 3) || !strncmp(text, "sm_", 3)) && !moec_target_find(name);
    moec_status rc = moec_fail(err, vendors ? MOEC_E_DEVICE : MOEC_E_SPEC, "unknown target \"%s\"", text);
    return moec_hint(err, rc, "targets are: %s; NAME:INDEX picks one of several GPUs, from 0; sm_80 serves every NVIDIA GPU "
                              "from Ampere on", names);
}

/* Splits "sm_90a:1" into name[64] and index. */
static bool split_index(const char *text, char name[64], int *index) {
    const char *colon = strchr(text, ':');
    size_t n = colon ? (size_t)(colon - text) : strlen(text);
    *index = 0;
    if (n == 0 || n >= 64) return false;
    memcpy(name, text, n);
    name[n] = 0;
    if (!colon) return true;
    char *end;
    long value = strtol(colon + 1, &end, 10);
    if (end == colon + 1 || *end || value < 0 || value > 1023) return false;
    *index = (int)value;
    return true;
}

moec_status moec_device_open(const char *text, int threads, moec_device **out, moec_error *err) {
    char name[64];
    int index;
    *out = NULL;
    if (!text || !split_index(text, name, &index))
        return moec_unknown_target(text ? text : "", err);
    if (threads < 0 || threads > MOEC_MOST_THREADS)
        return moec_fail(err, MOEC_E_INVAL, "threads=%d is not from 0 to %d", threads, MOEC_MOST_THREADS);
    const moec_target *target = moec_target_find(name);
    const moec_device_ops *ops = family_find(target ? target->family : name);
    if (!ops && !target) return moec_unknown_target(text, err);
    if (!ops)
        return moec_fail(err, MOEC_E_DEVICE, "this build of moec cannot run target %s", name);
    moec_device *device = calloc(1, sizeof *device);
    if (!device) return moec_fail(err, MOEC_E_NOMEM, "out of memory: device");
    *device = (moec_device){.ops = ops, .target = target, .index = index, .threads = threads};
    moec_status rc = ops->open(device, index, err);
    if (!rc) *out = device;
    else free(device);
    return rc ? moec_context(err, rc, "device %s", text) : MOEC_OK;
}

void moec_device_close(moec_device *device) {
    if (!device) return;
    while (device->modules) {
        device->modules->references = 1;
        moec_module_free(device, device->modules);
    }
    device->ops->close(device);
    moec_cache_close(device->cache);
    moec_gen_free(device->gen);
    free(device);
}

const char *moec_device_target(const moec_device *device) { return device->target->name; }

const char *moec_device_note(const moec_device *device) {
    return device->cache ? moec_cache_note(device->cache) : "";
}

/* ---- memory ---- */

static moec_status alive(const moec_device *device, moec_error *err) {
    if (!device->dead) return MOEC_OK;
    moec_status rc = moec_fail(err, MOEC_E_DEVICE, "the device failed earlier: %s", device->cause);
    return moec_hint(err, rc, "its state is lost; restart the process from the last checkpoint");
}

moec_status moec_alloc(moec_device *device, size_t bytes, const char *who, void **ptr,
                       moec_error *err) {
    *ptr = NULL;
    MOEC_TRY(alive(device, err));
    moec_count(MOEC_COUNT_ALLOC);
    return device->ops->alloc(device, bytes, who, ptr, err);
}

void moec_free(moec_device *device, void *ptr) {
    if (ptr) device->ops->free(device, ptr);
}

moec_status moec_upload(moec_device *device, void *dst, const void *src, size_t bytes,
                        moec_error *err) {
    MOEC_TRY(alive(device, err));
    return bytes ? device->ops->upload(device, dst, src, bytes, err) : MOEC_OK;
}

moec_status moec_download(moec_device *device, void *dst, const void *src, size_t bytes,
                          moec_error *err) {
    MOEC_TRY(alive(device, err));
    return bytes ? device->ops->download(device, dst, src, bytes, err) : MOEC_OK;
}

moec_status moec_device_copy(moec_device *device, void *stream, void *dst, const void *src,
                             size_t bytes, moec_error *err) {
    MOEC_TRY(alive(device, err));
    return bytes ? device->ops->copy(device, stream, dst, src, bytes, err) : MOEC_OK;
}

moec_status moec_synchronize(moec_device *device, void *stream, moec_error *err) {
    MOEC_TRY(alive(device, err));
    return device->ops->synchronize(device, stream, err);
}

/* ---- launches ---- */

static moec_sizes sizes_of(const moec_device *device, const moec_module *module, int64_t T,
                           int64_t R, int64_t N) {
    return (moec_sizes){.spec = &module->kernel.spec, .T = T, .R = R, .N = N,
                        .threads = device->threads, .sms = device->sms};
}

moec_status moec_module_scratch(const moec_device *device, const moec_module *module, int64_t T,
                                int64_t R, int64_t N, size_t *bytes, moec_error *err) {
    moec_sizes sizes = sizes_of(device, module, T, R, N);
    int64_t value = 0;
    const char *text = module->kernel.launch.scratch;
    *bytes = 0;
    if (!*text) return MOEC_OK;
    moec_status rc = moec_expr(text, &sizes, &value, err);
    if (rc) return moec_context(err, rc, "scratch bytes of %s", module->kernel.symbol);
    *bytes = (size_t)value;
    return MOEC_OK;
}

/* A missing pointer would be a crash inside the kernel: name it instead. */
static moec_status check_args(const moec_module *module, const moec_arg *args, moec_error *err) {
    const moec_op *op = module->kernel.op;
    for (int i = 0; i < op->arg_count; i++) {
        const moec_arg_info *info = &op->args[i];
        if (info->role != MOEC_SCALAR && !info->optional && !args[i].ptr)
            return moec_fail(err, MOEC_E_INVAL, "op %s: argument %s is NULL", op->name, info->name);
    }
    return MOEC_OK;
}

moec_status moec_module_launch(moec_device *device, void *stream, const moec_module *module,
                               const moec_arg *args, int64_t T, int64_t R, int64_t N, void *scratch,
                               moec_error *err) {
    MOEC_TRY(alive(device, err));
    if (T < 0 || R < 0 || N < 0)
        return moec_fail(err, MOEC_E_INVAL, "op %s: negative size T=%" PRId64 " R=%" PRId64 " N=%"
                         PRId64, module->kernel.op->name, T, R, N);
    if (T > 0 || N > 0) MOEC_TRY(check_args(module, args, err));
    moec_sizes sizes = sizes_of(device, module, T, R, N);
    moec_count(MOEC_COUNT_LAUNCH);
    return device->ops->launch(device, stream, module, args, &sizes, scratch, err);
}
