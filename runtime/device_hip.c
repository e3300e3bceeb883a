/* The HIP family: code objects on AMD GPUs through the HIP module API, on the caller's stream.
 *
 * Kernel parameters, in order: the op's arguments (8 bytes each), `void *scratch`, `long phase` when
 * launch.phases > 1. With MOEC_GCN set, no GPU is used: a plug-in takes its place, with every check
 * on. MOEC_GCN=1: libmoec-gcn.so beside the program runs the same code objects under an interpreter of
 * the instruction set. MOEC_GCN=shim: libmoec-shim.so compiles the same sources for this CPU. A value
 * with a '/' is a plug-in's path. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "code_object.h"
#include "device.h"
#include "dl_gcn.h"
#include "dl_hip.h"
#include "fs.h"
#include "setting.h"

typedef struct gpu {
    const moec_hip *hip;
    int index;
    char name[128];
} gpu;

enum { MAX_PARAMS = MOEC_MAX_ARGS + 2 };

/* ---- errors ---- */

static moec_status fail(moec_device *device, int result, const char *call, moec_error *err) {
    gpu *g = device->state;
    moec_error own = {0};
    moec_status rc = moec_hip_fail(g->hip, result, call, err ? err : &own);
    if (!moec_driver_lost(result)) return rc;
    device->dead = 1;
    snprintf(device->cause, sizeof device->cause, "%.500s", err ? err->text : own.text);
    return moec_hint(err, rc, "the device's state is lost: restart the process from the last checkpoint");
}

/* Which GPU is the thread's own setting: the caller may come from any thread. */
static int select_gpu(const moec_device *device) {
    const gpu *g = device->state;
    return g->hip->device_set(g->index);
}

#define CALL(function, ...)                                                      \
    do {                                                                         \
        int result_ = select_gpu(device);                                        \
        if (!result_) result_ = g->hip->function(__VA_ARGS__);                   \
        if (result_) return fail(device, result_, "hip " #function, err);        \
    } while (0)

/* ---- the interpreter instead of a GPU ---- */

static moec_status open_interpreter(moec_device *device, int index, moec_error *err) {
    MOEC_TRY(moec_gcn_open(&device->ops, err));
    return device->ops->open(device, index, err);
}

/* ---- opening ---- */

static const moec_target *target_of(int gfx_version) {
    switch (gfx_version) {
    case 90010: return moec_target_find("gfx90a");
    case 90402: return moec_target_find("gfx942");
    default:    return NULL;
    }
}

static moec_status pick_target(moec_device *device, int index, moec_error *err) {
    gpu *g = device->state;
    int version = 0;
    moec_hip_topology(index, &version, &device->sms);
    const moec_target *found = target_of(version);
    g->hip->device_name(g->name, sizeof g->name, index);
    if (!found) {
        moec_status rc = moec_fail(err, MOEC_E_DEVICE, "%s (gfx version %d) is no GPU that moec has "
                                   "kernels for", g->name, version);
        return moec_hint(err, rc, "known: gfx90a (MI250X), gfx942 (MI300X)");
    }
    if (!device->target) device->target = found;
    if (device->target == found) return MOEC_OK;
    moec_status rc = moec_fail(err, MOEC_E_DEVICE, "%s is %s and cannot run %s", g->name, found->name,
                               device->target->name);
    return moec_hint(err, rc, "use -t %s", found->name);
}

static moec_status start(moec_device *device, int index, moec_error *err) {
    gpu *g = device->state;
    int count = 0;
    int result = g->hip->device_count(&count);
    if (result) return fail(device, result, "hip device_count", err);
    if (index >= count) {
        moec_status rc = moec_fail(err, MOEC_E_DEVICE, "there is no GPU %d: HIP sees %d", index, count);
        return moec_hint(err, rc, "indices begin at 0; HIP_VISIBLE_DEVICES may hide some");
    }
    g->index = index;
    result = select_gpu(device);
    if (result) return fail(device, result, "hip device_set", err);
    return pick_target(device, index, err);
}

static void hip_close(moec_device *device) {
    free(device->state);
    device->state = NULL;
}

static moec_status hip_open(moec_device *device, int index, moec_error *err) {
    const char *wish = moec_setting("MOEC_GCN");
    const moec_hip *hip;
    if (wish) return open_interpreter(device, index, err);
    MOEC_TRY(moec_hip_open(&hip, err));
    gpu *g = calloc(1, sizeof *g);
    if (!g) return moec_fail(err, MOEC_E_NOMEM, "out of memory: device");
    g->hip = hip;
    device->state = g;
    moec_status rc = start(device, index, err);
    if (rc) hip_close(device);
    return rc;
}

/* ---- memory ---- */

static moec_status hip_alloc(moec_device *device, size_t bytes, const char *who, void **ptr,
                             moec_error *err) {
    gpu *g = device->state;
    size_t free_bytes = 0, total = 0;
    int result = select_gpu(device);
    if (!result) result = g->hip->mem_alloc(ptr, bytes ? bytes : 1);
    if (!result) return MOEC_OK;
    *ptr = NULL;
    g->hip->memory_info(&free_bytes, &total);
    moec_status rc = fail(device, result, "hipMalloc", err);
    moec_context(err, rc, "%zu bytes for %s on %s: %zu of %zu bytes are free", bytes, who, g->name,
                 free_bytes, total);
    return moec_hint(err, rc, "fewer tokens a step, recompute, or a smaller model");
}

static void hip_free(moec_device *device, void *ptr) {
    gpu *g = device->state;
    g->hip->mem_free(ptr);
}

static moec_status hip_upload(moec_device *device, void *dst, const void *src, size_t bytes,
                              moec_error *err) {
    gpu *g = device->state;
    CALL(copy, dst, src, bytes, HIP_TO_DEVICE);
    return MOEC_OK;
}

static moec_status hip_download(moec_device *device, void *dst, const void *src, size_t bytes,
                                moec_error *err) {
    gpu *g = device->state;
    CALL(copy, dst, src, bytes, HIP_TO_HOST);
    return MOEC_OK;
}

static moec_status hip_copy(moec_device *device, void *stream, void *dst, const void *src,
                            size_t bytes, moec_error *err) {
    gpu *g = device->state;
    CALL(copy_async, dst, src, bytes, HIP_ON_DEVICE, stream);
    return MOEC_OK;
}

static moec_status hip_synchronize(moec_device *device, void *stream, moec_error *err) {
    gpu *g = device->state;
    CALL(stream_synchronize, stream);
    return MOEC_OK;
}

/* ---- modules and launches ---- */

static moec_status hip_load(moec_device *device, const char *path, moec_module *module,
                            moec_error *err) {
    gpu *g = device->state;
    char *image = NULL;
    size_t bytes;
    MOEC_TRY(moec_file_read(path, &image, &bytes, err));
    moec_code_object what;
    moec_status other = moec_code_object_read(image, bytes, module->kernel.target, &what, err);
    if (!other) other = moec_code_object_keeps(&what, &module->kernel.promise, err);
    if (other) {
        free(image);
        return moec_context(err, other, "loading %s", path);
    }
    int result = select_gpu(device);
    if (!result) result = g->hip->module_load(&module->handle, image);
    free(image);
    if (!result) result = g->hip->module_function(&module->entry, module->handle, module->kernel.symbol);
    if (!result) return MOEC_OK;
    moec_status rc = fail(device, result, "hipModuleLoadData", err);
    rc = moec_context(err, rc, "loading %s, a code object for %s", path, module->kernel.target->name);
    return moec_hint(err, rc, "is this GPU in a mode (xnack, sramecc) that the code object is not for? Another "
                     "compiler: MOEC_HIPCC");
}

static void hip_unload(moec_device *device, moec_module *module) {
    gpu *g = device->state;
    if (module->handle) g->hip->module_unload(module->handle);
    module->handle = module->entry = NULL;
}

static moec_status hip_launch(moec_device *device, void *stream, const moec_module *module,
                              const moec_arg *args, const moec_sizes *sizes, void *scratch,
                              moec_error *err) {
    gpu *g = device->state;
    const moec_launch *rule = &module->kernel.launch;
    void *params[MAX_PARAMS];
    int64_t phase = 0, blocks = 0;
    int count = 0;
    for (; count < module->kernel.op->arg_count; count++) params[count] = (void *)(uintptr_t)&args[count];
    params[count++] = &scratch;
    if (rule->phases > 1) params[count++] = &phase;
    for (phase = 0; phase < (rule->phases > 1 ? rule->phases : 1); phase++) {
        MOEC_TRY(moec_launch_grid(rule, (int)phase, sizes, &blocks, err));
        if (blocks <= 0) continue;
        int result = select_gpu(device);
        if (!result)
            result = g->hip->launch(module->entry, (unsigned)blocks, 1, 1, (unsigned)rule->block, 1, 1,
                                    (unsigned)rule->shared_bytes, stream, params, NULL);
        if (result) {
            moec_status rc = fail(device, result, "hipModuleLaunchKernel", err);
            return moec_context(err, rc, "%s: grid %" PRId64 ", block %d", module->kernel.symbol, blocks,
                                rule->block);
        }
    }
    return MOEC_OK;
}

const moec_device_ops moec_hip_device_ops = {
    .family = "hip", .open = hip_open, .close = hip_close, .alloc = hip_alloc, .free = hip_free,
    .upload = hip_upload, .download = hip_download, .copy = hip_copy,
    .synchronize = hip_synchronize, .load = hip_load, .unload = hip_unload, .launch = hip_launch,
};
