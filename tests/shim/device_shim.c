/* A device of the HIP family without a GPU and without its compiler's back end: every launch runs the
 * emitted text itself, compiled for this CPU (level 1 of the ladder of proof). A plug-in like the
 * interpreter's: device_hip.c opens it at run time, so the product does not depend on its tests.
 *
 * Memory is host memory. A kernel may touch exactly its arguments, by the shapes of the op table, and
 * its scratch. The order of waves and lanes changes from launch to launch: runs that must give the same
 * bits are run in different orders. */
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../../runtime/device.h"
#include "../../runtime/fs.h"
#include "compile.h"
#include "shim.h"

enum { CUS = 4 };

typedef struct state {
    shim_machine *machine;
    unsigned launches;
} state;

typedef struct library {
    void *handle;
    void (*entry)(void);
    shim_image *image;
    char path[MOEC_PATH_BYTES];
} library;

/* ---- the device ---- */

static void dev_close(moec_device *device) {
    state *s = device->state;
    if (s) shim_free(s->machine);
    free(s);
    device->state = NULL;
}

static moec_status dev_open(moec_device *device, int index, moec_error *err) {
    if (index) return moec_fail(err, MOEC_E_DEVICE, "the host shim is one device: index 0");
    if (!device->target) device->target = moec_target_find("gfx942");
    state *s = calloc(1, sizeof *s);
    if (s) s->machine = shim_new();
    device->state = s;
    device->sms = CUS;
    if (s && s->machine) return MOEC_OK;
    dev_close(device);
    return moec_fail(err, MOEC_E_NOMEM, "out of memory: device");
}

static moec_status dev_alloc(moec_device *device, size_t bytes, const char *who, void **ptr, moec_error *err) {
    (void)device;
    if (!posix_memalign(ptr, 256, bytes ? bytes : 1)) return MOEC_OK;
    return moec_fail(err, MOEC_E_NOMEM, "out of memory: %zu bytes for %s", bytes, who);
}

static void dev_free(moec_device *device, void *ptr) {
    (void)device;
    free(ptr);
}

static moec_status dev_move(moec_device *device, void *dst, const void *src, size_t bytes, moec_error *err) {
    (void)device, (void)err;
    memcpy(dst, src, bytes);
    return MOEC_OK;
}

static moec_status dev_copy(moec_device *device, void *stream, void *dst, const void *src, size_t bytes,
                            moec_error *err) {
    (void)device, (void)stream, (void)err;
    memmove(dst, src, bytes);
    return MOEC_OK;
}

static moec_status dev_synchronize(moec_device *device, void *stream, moec_error *err) {
    (void)device, (void)stream, (void)err;
    return MOEC_OK;
}

/* ---- libraries ---- */

static void dev_unload(moec_device *device, moec_module *module) {
    library *l = module->handle;
    (void)device;
    if (l && l->handle) dlclose(l->handle);
    free(l);
    module->handle = module->entry = NULL;
}

static moec_status dev_load(moec_device *device, const char *path, moec_module *module, moec_error *err) {
    library *l = calloc(1, sizeof *l);
    if (!l) return moec_fail(err, MOEC_E_NOMEM, "out of memory: %s", path);
    module->handle = l;
    snprintf(l->path, sizeof l->path, "%s", path);
    l->handle = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    void *entry = l->handle ? dlsym(l->handle, module->kernel.symbol) : NULL;
    l->image = entry ? dlsym(l->handle, "shim_image_of_kernel") : NULL;
    memcpy(&l->entry, &entry, sizeof entry);
    module->entry = entry;
    if (l->image && l->image->abi == SHIM_ABI) return MOEC_OK;
    const char *why = dlerror();
    moec_status rc = moec_fail(err, MOEC_E_CORRUPT, "%s: %s", path, why ? why : "made for another shim");
    dev_unload(device, module);
    return rc;
}

/* ---- launches ---- */

static moec_status add_region(const moec_arg_info *info, const moec_arg *arg, const moec_sizes *sizes,
                              shim_launch *launch, shim_region *regions, moec_error *err) {
    int64_t elements;
    if (info->role == MOEC_SCALAR || !arg->ptr) return MOEC_OK;
    MOEC_TRY(moec_arg_count(info, sizes, &elements, err));
    size_t bytes = (size_t)elements * moec_type_bytes(moec_arg_dtype(info, sizes->spec));
    if (bytes)
        regions[launch->region_count++] = (shim_region){.name = info->name, .base = arg->ptr, .bytes = bytes,
                                                        .writable = info->role != MOEC_IN};
    return MOEC_OK;
}

/* The arguments as memory that the kernel may touch, those it writes first. */
static moec_status regions_of(const moec_module *module, const moec_arg *args, const moec_sizes *sizes, void *scratch,
                              shim_launch *launch, shim_region *regions, moec_error *err) {
    const moec_op *op = module->kernel.op;
    int64_t bytes = 0;
    MOEC_TRY(moec_expr(module->kernel.launch.scratch, sizes, &bytes, err));
    if (scratch && bytes)
        regions[launch->region_count++] = (shim_region){.name = "scratch", .base = scratch, .bytes = (size_t)bytes,
                                                        .writable = true};
    for (int writable = 1; writable >= 0; writable--)
        for (int i = 0; i < op->arg_count; i++)
            if ((op->args[i].role != MOEC_IN) == writable)
                MOEC_TRY(add_region(&op->args[i], &args[i], sizes, launch, regions, err));
    launch->regions = regions;
    return MOEC_OK;
}

static void args_of(const moec_module *module, const moec_arg *args, void *scratch, shim_launch *launch, shim_arg *to) {
    const moec_op *op = module->kernel.op;
    int n = op->arg_count;
    for (int i = 0; i < n; i++) {
        to[i].is_double = op->args[i].role == MOEC_SCALAR && op->args[i].type == MOEC_T_F64;
        memcpy(&to[i].as, &args[i], sizeof to[i].as);
    }
    to[n++].as.word = (uintptr_t)scratch;
    if (module->kernel.launch.phases > 1) to[n++].as.word = 0;
    launch->args = to;
    launch->arg_count = n;
}

static moec_status dev_launch(moec_device *device, void *stream, const moec_module *module, const moec_arg *args,
                              const moec_sizes *sizes, void *scratch, moec_error *err) {
    const moec_launch *rule = &module->kernel.launch;
    state *s = device->state;
    library *l = module->handle;
    shim_arg words[SHIM_MOST_ARGS] = {0};
    shim_region regions[SHIM_MOST_REGIONS];
    shim_launch launch = {.entry = l->entry, .image = l->image, .library = l->path, .threads = (uint32_t)rule->block,
                          .flush_subnormals = !strcmp(device->target->name, "gfx90a"), .seed = s->launches++};
    (void)stream;
    if (rule->shared_bytes)
        return moec_fail(err, MOEC_E_UNSUPPORTED, "%s: the host shim has no dynamic LDS", module->kernel.symbol);
    args_of(module, args, scratch, &launch, words);
    MOEC_TRY(regions_of(module, args, sizes, scratch, &launch, regions, err));
    for (int phase = 0; phase < (rule->phases > 1 ? rule->phases : 1); phase++) {
        int64_t groups = 0;
        MOEC_TRY(moec_launch_grid(rule, phase, sizes, &groups, err));
        if (groups <= 0) continue;
        launch.groups = (uint32_t)groups;
        if (rule->phases > 1) words[launch.arg_count - 1].as.word = (uint64_t)phase;
        if (!shim_run(s->machine, &launch))
            return moec_fail(err, MOEC_E_MISMATCH, "level 1: %s: %s", module->kernel.symbol, shim_finding(s->machine));
    }
    return MOEC_OK;
}

/* What device_hip.c looks up by this name. */
extern const moec_device_ops moec_hip_emulator;
const moec_device_ops moec_hip_emulator = {
    .family = "hip",
    .substitute = "no AMD GPU is used: the emitted sources run on this CPU, a fibre for each lane, every "
                  "check on (level L1)",
    .toolchain = &shim_toolchain,
    .open = dev_open, .close = dev_close, .alloc = dev_alloc, .free = dev_free,
    .upload = dev_move, .download = dev_move, .copy = dev_copy,
    .synchronize = dev_synchronize, .load = dev_load, .unload = dev_unload, .launch = dev_launch,
};
