/* The CUDA family: cubins on NVIDIA GPUs through the driver API, on the caller's context and stream.
 *
 * A context that is current when the device is opened is used as it is; otherwise the primary one
 * is retained and made current. Kernel parameters, in order: the op's arguments (8 bytes each),
 * `void *scratch`, `long phase` when launch.phases > 1, then one tensor map (128 bytes,
 * __grid_constant__) for each row of launch.tmaps. launch.grid holds one expression, or one for
 * each phase separated by ';'. After a sticky error the device is dead: see device.c. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "device.h"
#include "dl_cuda.h"
#include "dl_nvrtc.h"
#include "fs.h"

typedef struct gpu {
    const moec_cuda *cuda;
    CUdevice device;
    int index, count;       /* this GPU's ordinal, of so many that the driver sees */
    CUcontext context;
    int retained;           /* the primary context is ours to release */
    char name[128];
    const void *seen[256];  /* pointers known to be of the GPU, by hash: each is asked about once */
} gpu;

enum { MAX_PARAMS = MOEC_MAX_ARGS + 2 + MOEC_MAX_TMAPS };

/* ---- errors ---- */

static moec_status fail(moec_device *device, CUresult result, const char *call, moec_error *err) {
    gpu *g = device->state;
    moec_error own = {0};
    moec_status rc = moec_cuda_fail(g->cuda, result, call, err ? err : &own);
    if (!moec_driver_lost(result)) return rc;
    device->dead = 1;
    snprintf(device->cause, sizeof device->cause, "%.500s", err ? err->text : own.text);
    return moec_hint(err, rc, "the context is lost: restart the process from the last checkpoint");
}

#define CALL(function, ...)                                                       \
    do {                                                                          \
        CUresult result_ = g->cuda->function(__VA_ARGS__);                        \
        if (result_) return fail(device, result_, "cuda " #function, err);        \
    } while (0)

/* ---- opening ---- */

static const moec_target *best_target(int major, int minor) {
    if (major == 9 && minor == 0) return moec_target_find("sm_90a");
    return major >= 8 ? moec_target_find("sm_80") : NULL;
}

static moec_status pick_target(moec_device *device, moec_error *err) {
    gpu *g = device->state;
    int major = 0, minor = 0;
    g->cuda->device_name(g->name, sizeof g->name, g->device);
    CALL(device_attribute, &major, CU_ATTR_MAJOR, g->device);
    CALL(device_attribute, &minor, CU_ATTR_MINOR, g->device);
    CALL(device_attribute, &device->sms, CU_ATTR_SMS, g->device);
    const moec_target *best = best_target(major, minor);
    if (!best) {
        moec_status rc = moec_fail(err, MOEC_E_DEVICE, "%s has compute capability %d.%d", g->name,
                                   major, minor);
        return moec_hint(err, rc, "moec's CUDA kernels need 8.0 or newer");
    }
    if (!device->target) device->target = best;
    if (device->target == best || !strcmp(device->target->name, "sm_80")) return MOEC_OK;
    moec_status rc = moec_fail(err, MOEC_E_DEVICE, "%s (compute capability %d.%d) cannot run %s",
                               g->name, major, minor, device->target->name);
    return moec_hint(err, rc, "the best target here is %s", best->name);
}

/* The caller's context when one of its own is current and on this GPU; else the primary one, which is
 * counted by the driver: each device that uses it keeps it alive. */
static moec_status enter_context(moec_device *device, moec_error *err) {
    gpu *g = device->state;
    CUcontext current = NULL;
    CUdevice where = -1;
    CALL(context_get, &current);
    bool here = current && !g->cuda->context_device(&where) && where == g->device;
    CALL(primary_retain, &g->context, g->device);
    g->retained = 1;
    if (here && current != g->context) { /* not the primary one: the caller's */
        g->cuda->primary_release(g->device);
        g->retained = 0;
        g->context = current;
        return MOEC_OK;
    }
    CALL(context_set, g->context);
    return MOEC_OK;
}

/* The last user of the primary context ends it: then it must not stay current. */
static void leave_context(const gpu *g) {
    CUcontext current = NULL;
    unsigned flags;
    int active = 1;
    if (!g->retained) return;
    g->cuda->primary_release(g->device);
    if (g->cuda->primary_state(g->device, &flags, &active) || active) return;
    if (!g->cuda->context_get(&current) && current == g->context) g->cuda->context_set(NULL);
}

static moec_status find_device(moec_device *device, int index, moec_error *err) {
    gpu *g = device->state;
    g->index = index;
    CALL(device_count, &g->count);
    if (index >= g->count) {
        moec_status rc = g->count ? moec_fail(err, MOEC_E_DEVICE, "there is no GPU %d: the driver sees %d", index,
                                              g->count)
                               : moec_fail(err, MOEC_E_DEVICE, "the driver sees no GPU");
        return moec_hint(err, rc, "CUDA_VISIBLE_DEVICES says which GPUs a process sees; TARGET:0 is the first");
    }
    CALL(device_get, &g->device, index);
    MOEC_TRY(pick_target(device, err));
    moec_status rc = enter_context(device, err);
    if (!rc) return MOEC_OK;
    moec_context(err, rc, "%s cannot be entered", g->name);
    return moec_hint(err, rc, "another process may hold the GPU or its memory: nvidia-smi lists them; TARGET:INDEX "
                              "picks another GPU");
}

static void cuda_close(moec_device *device) {
    gpu *g = device->state;
    if (!g) return;
    leave_context(g);
    free(g);
    device->state = NULL;
}

static moec_status cuda_open(moec_device *device, int index, moec_error *err) {
    const moec_cuda *cuda;
    MOEC_TRY(moec_cuda_open(&cuda, err));
    gpu *g = calloc(1, sizeof *g);
    if (!g) return moec_fail(err, MOEC_E_NOMEM, "out of memory: device");
    g->cuda = cuda;
    device->state = g;
    moec_status rc = find_device(device, index, err);
    if (rc) cuda_close(device);
    return rc;
}

/* ---- memory ---- */

static CUdeviceptr address(const void *ptr) { return (CUdeviceptr)(uintptr_t)ptr; }

static moec_status cuda_alloc(moec_device *device, size_t bytes, const char *who, void **ptr,
                              moec_error *err) {
    gpu *g = device->state;
    CUdeviceptr at = 0;
    CUresult result = g->cuda->mem_alloc(&at, bytes ? bytes : 1);
    *ptr = (void *)(uintptr_t)at;
    if (!result) return MOEC_OK;
    size_t free_bytes = 0, total = 0;
    g->cuda->memory_info(&free_bytes, &total);
    moec_status rc = fail(device, result, "cuMemAlloc", err);
    moec_context(err, rc, "%zu bytes for %s on %s: %zu of %zu bytes are free", bytes, who, g->name,
                 free_bytes, total);
    return moec_hint(err, rc, "fewer tokens a step, recompute, or a smaller model");
}

static void cuda_free(moec_device *device, void *ptr) {
    gpu *g = device->state;
    g->cuda->mem_free(address(ptr));
}

static moec_status cuda_upload(moec_device *device, void *dst, const void *src, size_t bytes,
                               moec_error *err) {
    gpu *g = device->state;
    CALL(to_device, address(dst), src, bytes);
    return MOEC_OK;
}

static moec_status cuda_download(moec_device *device, void *dst, const void *src, size_t bytes,
                                 moec_error *err) {
    gpu *g = device->state;
    CALL(to_host, dst, address(src), bytes);
    return MOEC_OK;
}

static moec_status cuda_copy(moec_device *device, void *stream, void *dst, const void *src,
                             size_t bytes, moec_error *err) {
    gpu *g = device->state;
    CALL(copy_async, address(dst), address(src), bytes, stream);
    return MOEC_OK;
}

static moec_status cuda_synchronize(moec_device *device, void *stream, moec_error *err) {
    gpu *g = device->state;
    CALL(stream_synchronize, stream);
    return MOEC_OK;
}

/* ---- modules ---- */

static moec_status enter_function(moec_device *device, moec_module *module, moec_error *err) {
    gpu *g = device->state;
    const moec_launch *launch = &module->kernel.launch;
    CALL(module_function, &module->entry, module->handle, module->kernel.symbol);
    if (launch->shared_bytes > 0)
        CALL(function_set, module->entry, CU_FUNC_MAX_DYNAMIC_SHARED, launch->shared_bytes);
    return MOEC_OK;
}

/* A driver takes binaries of its own CUDA version and older ones. */
static moec_status load_hint(const gpu *g, moec_status rc, moec_error *err) {
    const moec_nvrtc *nvrtc;
    int major = g->cuda->version / 1000, minor = g->cuda->version / 10 % 100;
    if (moec_nvrtc_open(&nvrtc, NULL) || nvrtc->major * 100 + nvrtc->minor <= major * 100 + minor) return rc;
    return moec_hint(err, rc, "NVRTC is of CUDA %d.%d, the driver of %d.%d: update the driver, or point "
                     "MOEC_NVRTC at an NVRTC %d", nvrtc->major, nvrtc->minor, major, minor, major);
}

static moec_status cuda_load(moec_device *device, const char *path, moec_module *module,
                             moec_error *err) {
    gpu *g = device->state;
    char *image = NULL;
    size_t bytes;
    MOEC_TRY(moec_file_read(path, &image, &bytes, err));
    CUresult result = g->cuda->module_load(&module->handle, image);
    free(image);
    moec_status rc = result ? load_hint(g, fail(device, result, "cuModuleLoadData", err), err)
                            : enter_function(device, module, err);
    return rc ? moec_context(err, rc, "loading %s", path) : MOEC_OK;
}

static void cuda_unload(moec_device *device, moec_module *module) {
    gpu *g = device->state;
    if (module->handle) g->cuda->module_unload(module->handle);
    module->handle = module->entry = NULL;
}

/* ---- arguments ---- */

/* The kind of memory, and the ordinal of the GPU that holds it. Where there is one GPU the kind will do.
 * Managed and pinned memory is in reach of every GPU: *owner stays this one. */
static CUresult ask(const gpu *g, const void *ptr, unsigned *kind, int *owner) {
    unsigned managed = 0;
    int holder = g->index;
    *owner = g->index;
    if (g->count < 2) return g->cuda->pointer_attribute(kind, CU_POINTER_MEMORY_TYPE, address(ptr));
    int attributes[] = {CU_POINTER_MEMORY_TYPE, CU_POINTER_MANAGED, CU_POINTER_ORDINAL};
    void *answers[] = {kind, &managed, &holder};
    CUresult result = g->cuda->pointer_attributes(3, attributes, answers, address(ptr));
    if (!result && !*kind) return CUDA_ERROR_INVALID_VALUE; /* this call answers zeros for a host pointer */
    if (!result && !managed && *kind == CU_MEMORY_DEVICE) *owner = holder;
    return result;
}

/* Peer access makes another GPU's memory usable: the driver then has an address at which kernels of this
 * context reach it. Only a clear no counts, not trouble with the question. */
static moec_status check_peer(const gpu *g, const char *argument, const moec_op *op, const void *ptr, int owner,
                              moec_error *err) {
    CUdeviceptr here = 0;
    CUresult result = g->cuda->pointer_attribute(&here, CU_POINTER_HERE, address(ptr));
    if (result != CUDA_ERROR_INVALID_VALUE && (result || here)) return MOEC_OK;
    moec_status rc = moec_fail(err, MOEC_E_INVAL, "argument %s of op %s (%p) is memory of GPU %d; the kernel runs on "
                               "GPU %d, which has no access to it", argument, op->name, ptr, owner, g->index);
    return moec_hint(err, rc, "allocate it on GPU %d (cudaSetDevice(%d) before cudaMalloc), or enable peer access to "
                     "GPU %d", g->index, g->index, owner);
}

/* A host pointer inside a kernel would poison the context, and so would another GPU's: both are
 * refused before the launch. */
static moec_status check_pointer(moec_device *device, const moec_op *op, int index, const void *ptr,
                                 moec_error *err) {
    gpu *g = device->state;
    const void **slot = &g->seen[((uintptr_t)ptr >> 8) % 256];
    unsigned kind = 0;
    int owner;
    if (!ptr || *slot == ptr) return MOEC_OK;
    CUresult result = ask(g, ptr, &kind, &owner);
    if (result && result != CUDA_ERROR_INVALID_VALUE) /* the driver's trouble, not the pointer's */
        return fail(device, result, "cuPointerGetAttribute", err);
    if (result) {
        moec_status rc = moec_fail(err, MOEC_E_INVAL, "argument %s of op %s (%p) is not memory that "
                                   "the GPU can reach", op->args[index].name, op->name, ptr);
        return moec_hint(err, rc, "allocate it with moec_alloc, cudaMalloc or cuMemAlloc");
    }
    if (owner != g->index) MOEC_TRY(check_peer(g, op->args[index].name, op, ptr, owner, err));
    *slot = ptr;
    return MOEC_OK;
}

static moec_status check_pointers(moec_device *device, const moec_op *op, const moec_arg *args,
                                  moec_error *err) {
    for (int i = 0; i < op->arg_count; i++)
        if (op->args[i].role != MOEC_SCALAR)
            MOEC_TRY(check_pointer(device, op, i, args[i].cptr, err));
    return MOEC_OK;
}

/* ---- tensor maps ---- */

static int swizzle_code(int bytes) { return bytes == 128 ? 3 : bytes == 64 ? 2 : bytes == 32 ? 1 : 0; }
static int l2_code(int bytes) { return bytes == 256 ? 3 : bytes == 128 ? 2 : bytes == 64 ? 1 : 0; }

static moec_status tmap_sizes(const moec_tmap *row, const moec_sizes *sizes, uint64_t dim[5],
                              uint64_t stride[5], int64_t *offset, moec_error *err) {
    int64_t value = 0;
    for (int i = 0; i < row->rank; i++) {
        MOEC_TRY(moec_expr(row->dim[i], sizes, &value, err));
        dim[i] = (uint64_t)(value > 0 ? value : 1); /* T = 0: no tile is loaded */
        if (!i) continue;
        MOEC_TRY(moec_expr(row->stride[i], sizes, &value, err));
        stride[i - 1] = (uint64_t)value;
    }
    *offset = 0;
    return *row->offset ? moec_expr(row->offset, sizes, offset, err) : MOEC_OK;
}

/* A map over an argument that is NULL stays zero: the kernel does not touch it. */
static moec_status make_tmap(moec_device *device, const moec_module *module, const moec_tmap *row,
                             const moec_arg *args, void *scratch, const moec_sizes *sizes,
                             CUtensorMap *map, moec_error *err) {
    gpu *g = device->state;
    const moec_op *op = module->kernel.op;
    uint64_t dim[5], stride[5];
    uint32_t box[5], step[5] = {1, 1, 1, 1, 1};
    int64_t offset;
    int index = moec_op_arg(op, row->arg);
    char *base = index >= 0 ? args[index].ptr : scratch;
    memset(map, 0, sizeof *map);
    if (!base) return MOEC_OK;
    bool f32 = index >= 0 && moec_arg_dtype(&op->args[index], &module->kernel.spec) == MOEC_T_F32;
    MOEC_TRY(tmap_sizes(row, sizes, dim, stride, &offset, err));
    for (int i = 0; i < row->rank; i++) box[i] = (uint32_t)row->box[i];
    CUresult result = g->cuda->tensor_map(map, f32 ? CU_TMAP_FLOAT32 : CU_TMAP_BFLOAT16,
                                          (uint32_t)row->rank, base + offset, dim, stride, box, step, 0,
                                          swizzle_code(row->swizzle), l2_code(row->l2), 0);
    if (!result) return MOEC_OK;
    moec_status rc = fail(device, result, "cuTensorMapEncodeTiled", err);
    return moec_hint(err, rc, "argument %s of %s must be 16-byte aligned device memory", row->arg,
                     op->name);
}

/* ---- launches ---- */

static moec_status start(moec_device *device, CUstream stream, const moec_module *module, int64_t blocks,
                         void **params, moec_error *err) {
    gpu *g = device->state;
    const moec_launch *launch = &module->kernel.launch;
    CUlaunchAttribute attrs[2];
    unsigned count = 0;
    memset(attrs, 0, sizeof attrs);
    if (launch->cluster > 1) {
        attrs[count].id = CU_LAUNCH_CLUSTER;
        attrs[count].value.cluster[0] = (unsigned)launch->cluster;
        attrs[count].value.cluster[1] = attrs[count].value.cluster[2] = 1;
        count++;
    }
    if (launch->pdl) {
        attrs[count].id = CU_LAUNCH_PDL;
        attrs[count++].value.pdl = 1;
    }
    CUlaunchConfig config = {.grid = {(unsigned)blocks, 1, 1}, .block = {(unsigned)launch->block, 1, 1},
                             .shared_bytes = (unsigned)launch->shared_bytes, .stream = stream,
                             .attrs = attrs, .attr_count = count};
    CUresult result = g->cuda->launch(&config, module->entry, params, NULL);
    if (!result) return MOEC_OK;
    moec_status rc = fail(device, result, "cuLaunchKernelEx", err);
    if (!device->dead)
        moec_hint(err, rc, "this GPU does not take the kernel's config: name another, or a plan of moec tune");
    return moec_context(err, rc, "%s: grid %" PRId64 ", block %d, cluster %d, shared %d bytes",
                        module->kernel.symbol, blocks, launch->block, launch->cluster,
                        launch->shared_bytes);
}

static moec_status cuda_launch(moec_device *device, void *stream, const moec_module *module,
                               const moec_arg *args, const moec_sizes *sizes, void *scratch,
                               moec_error *err) {
    const moec_launch *launch = &module->kernel.launch;
    CUtensorMap maps[MOEC_MAX_TMAPS];
    void *params[MAX_PARAMS];
    int64_t phase = 0, blocks = 0;
    int count = 0;
    MOEC_TRY(check_pointers(device, module->kernel.op, args, err));
    for (; count < module->kernel.op->arg_count; count++) params[count] = (void *)(uintptr_t)&args[count];
    params[count++] = &scratch;
    if (launch->phases > 1) params[count++] = &phase;
    for (int i = 0; i < launch->tmap_count; i++) {
        MOEC_TRY(make_tmap(device, module, &launch->tmap[i], args, scratch, sizes, &maps[i], err));
        params[count++] = &maps[i];
    }
    for (phase = 0; phase < (launch->phases > 1 ? launch->phases : 1); phase++) {
        MOEC_TRY(moec_launch_grid(launch, (int)phase, sizes, &blocks, err));
        if (blocks > 0) MOEC_TRY(start(device, stream, module, blocks, params, err));
    }
    return MOEC_OK;
}

const moec_device_ops moec_cuda_device_ops = {
    .family = "cuda", .open = cuda_open, .close = cuda_close, .alloc = cuda_alloc, .free = cuda_free,
    .upload = cuda_upload, .download = cuda_download, .copy = cuda_copy,
    .synchronize = cuda_synchronize, .load = cuda_load, .unload = cuda_unload, .launch = cuda_launch,
};
