/* A device of the HIP family without a GPU: every launch runs the compiled code object under the
 * interpreter, with every check on (level 2 of the ladder of proof). A plug-in: device_hip.c opens
 * it at run time, so the product does not depend on its tests.
 *
 * Memory is host memory. A kernel may touch exactly its arguments, by the shapes of the op table,
 * and its scratch: anything else is a finding, and the first finding fails the launch. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../../runtime/device.h"
#include "device_gcn.h"
#include "gcn.h"

enum { MAX_BUFFERS = MOEC_MAX_ARGS + 1, CUS = 4, SHUFFLED = 7 /* any number but 0 */ };

static moec_status gcn_device_open(moec_device *device, int index, moec_error *err) {
    if (index) return moec_fail(err, MOEC_E_DEVICE, "the interpreter is one device: index 0");
    if (!device->target) device->target = moec_target_find("gfx942");
    device->state = calloc(1, sizeof(gcn_machine));
    device->sms = CUS;
    return device->state ? MOEC_OK : moec_fail(err, MOEC_E_NOMEM, "out of memory: device");
}

static void gcn_device_close(moec_device *device) { free(device->state); }

static moec_status gcn_alloc(moec_device *device, size_t bytes, const char *who, void **ptr,
                             moec_error *err) {
    (void)device;
    if (!posix_memalign(ptr, 256, bytes ? bytes : 1)) return MOEC_OK;
    return moec_fail(err, MOEC_E_NOMEM, "out of memory: %zu bytes for %s", bytes, who);
}

static void gcn_free(moec_device *device, void *ptr) {
    (void)device;
    free(ptr);
}

static moec_status gcn_move(moec_device *device, void *dst, const void *src, size_t bytes,
                            moec_error *err) {
    (void)device, (void)err;
    memcpy(dst, src, bytes);
    return MOEC_OK;
}

static moec_status gcn_copy(moec_device *device, void *stream, void *dst, const void *src,
                            size_t bytes, moec_error *err) {
    (void)device, (void)stream, (void)err;
    memmove(dst, src, bytes);
    return MOEC_OK;
}

static moec_status gcn_synchronize(moec_device *device, void *stream, moec_error *err) {
    (void)device, (void)stream, (void)err;
    return MOEC_OK;
}

/* ---- code objects ---- */

static char *read_whole(const char *path, size_t *bytes) {
    FILE *f = fopen(path, "rb");
    if (!f) return NULL;
    fseek(f, 0, SEEK_END);
    *bytes = (size_t)ftell(f);
    rewind(f);
    char *data = malloc(*bytes + 1);
    if (data && fread(data, 1, *bytes, f) != *bytes) free(data), data = NULL;
    fclose(f);
    return data;
}

/* Level 0: no spills, no scratch, no flat accesses; workgroup and arguments as they are launched; LDS, matrix
 * instructions and occupancy as the template promises. */
static gcn_expect expected(const moec_kernel *k, const gcn_report *report, char mfma[64]) {
    const moec_promise *p = &k->promise;
    bool cdna2 = report && !strcmp(report->target, "gfx90a");
    int params = k->op->arg_count + 1 + (k->launch.phases > 1);
    snprintf(mfma, 64, cdna2 ? "v_mfma_f32_%sbf16_1k" : "v_mfma_f32_%s_bf16", p->matrix);
    return (gcn_expect){.workgroup = (uint32_t)k->launch.block, .kernarg_bytes = 8 * (uint32_t)params,
                        .mfma = *p->matrix ? mfma : NULL, .mfma_each = (uint32_t)p->matrix_count,
                        .lds_bytes = (uint32_t)p->lds_bytes, .least_waves = (uint32_t)p->waves,
                        .dynamic_lds = (uint32_t)k->launch.shared_bytes};
}

static moec_status check_report(const moec_module *module, gcn_object *object, moec_error *err) {
    const gcn_report *report = gcn_find_kernel(object, module->kernel.symbol);
    char mfma[64];
    gcn_expect expect = expected(&module->kernel, report, mfma);
    gcn_findings found = {0};
    if (!report)
        return moec_fail(err, MOEC_E_CORRUPT, "the code object has no kernel %s", module->kernel.symbol);
    gcn_check_static(report, &expect, &found);
    moec_status rc = MOEC_OK;
    if (found.count)
        rc = moec_fail(err, MOEC_E_MISMATCH, "level 0: %s: %s", module->kernel.symbol,
                       found.item[0].detail);
    gcn_findings_free(&found);
    return rc;
}

static moec_status gcn_load(moec_device *device, const char *path, moec_module *module,
                            moec_error *err) {
    char message[1024] = "";
    size_t bytes = 0;
    gcn_object *object = NULL;
    (void)device;
    char *data = read_whole(path, &bytes);
    if (!data) return moec_fail(err, MOEC_E_IO, "cannot read %s", path);
    gcn_status status = gcn_open(data, bytes, &object, message, sizeof message);
    free(data);
    if (status) return moec_fail(err, MOEC_E_CORRUPT, "%s: %s", path, message);
    moec_status rc = check_report(module, object, err);
    if (rc) gcn_close(object);
    else module->handle = object;
    return rc;
}

static void gcn_unload(moec_device *device, moec_module *module) {
    (void)device;
    gcn_close(module->handle);
    module->handle = NULL;
}

/* ---- launches ---- */

/* The argument as memory the kernel may touch. Written ones come first in the table: where two
 * arguments are the same memory, writing wins. */
static moec_status add_buffer(const moec_arg_info *info, const moec_arg *arg, const moec_sizes *sizes,
                              gcn_buffer *buffer, size_t *count, moec_error *err) {
    int64_t elements;
    if (info->role == MOEC_SCALAR || !arg->ptr) return MOEC_OK;
    MOEC_TRY(moec_arg_count(info, sizes, &elements, err));
    if (!elements) return MOEC_OK;
    buffer[(*count)++] = (gcn_buffer){
        .host = arg->ptr, .bytes = (size_t)elements * moec_type_bytes(moec_arg_dtype(info, sizes->spec)),
        .writable = info->role != MOEC_IN, .name = info->name};
    return MOEC_OK;
}

static moec_status buffers_of(const moec_module *module, const moec_arg *args, const moec_sizes *sizes,
                              void *scratch, gcn_buffer *buffer, size_t *count, moec_error *err) {
    const moec_op *op = module->kernel.op;
    int64_t bytes = 0;
    MOEC_TRY(moec_expr(module->kernel.launch.scratch, sizes, &bytes, err));
    if (scratch && bytes)
        buffer[(*count)++] = (gcn_buffer){.host = scratch, .bytes = (size_t)bytes, .writable = true,
                                          .name = "scratch"};
    for (int writable = 1; writable >= 0; writable--)
        for (int i = 0; i < op->arg_count; i++)
            if ((op->args[i].role != MOEC_IN) == writable)
                MOEC_TRY(add_buffer(&op->args[i], &args[i], sizes, buffer, count, err));
    return MOEC_OK;
}

static moec_status report_finding(const gcn_finding *f, const moec_module *module, moec_error *err) {
    return moec_fail(err, MOEC_E_MISMATCH,
                     "level 2: %s in %s\n  %s\n  at %#" PRIx64 ", group %u, wave %d, lane %d, seen %"
                     PRIu64 " times\n  %s", gcn_kind_name(f->kind), module->kernel.symbol, f->text,
                     f->address, f->group[0], f->wave, f->lane, f->count, f->detail);
}

static moec_status run_phase(moec_device *device, const moec_module *module, gcn_launch *launch,
                             moec_error *err) {
    gcn_machine *m = device->state;
    gcn_result result;
    char message[1024] = "";
    gcn_status status = gcn_run(module->handle, launch, &result, message, sizeof message);
    if (status) return moec_fail(err, MOEC_E_UNSUPPORTED, "%s: %s", module->kernel.symbol, message);
    m->instructions += result.instructions;
    m->mfma += result.mfma;
    m->lds_clocks += result.lds_clocks;
    m->lds_least += result.lds_least;
    moec_status rc = result.findings.count ? report_finding(&result.findings.item[0], module, err)
                                           : MOEC_OK;
    gcn_result_free(&result);
    return rc;
}

static moec_status gcn_launch_kernel(moec_device *device, void *stream, const moec_module *module,
                                     const moec_arg *args, const moec_sizes *sizes, void *scratch,
                                     moec_error *err) {
    const moec_launch *rule = &module->kernel.launch;
    int count = module->kernel.op->arg_count;
    moec_arg kernarg[MOEC_MAX_ARGS + 2];
    gcn_buffer buffer[MAX_BUFFERS];
    size_t buffers = 0;
    (void)stream;
    memcpy(kernarg, args, (size_t)count * sizeof *args);
    kernarg[count++].ptr = scratch;
    if (rule->phases > 1) count++;
    MOEC_TRY(buffers_of(module, args, sizes, scratch, buffer, &buffers, err));
    gcn_machine *m = device->state;
    uint32_t order = m->launches++ % 2 ? SHUFFLED : 0; /* results must not depend on the order of waves */
    for (int phase = 0; phase < (rule->phases > 1 ? rule->phases : 1); phase++) {
        int64_t groups = 0;
        MOEC_TRY(moec_launch_grid(rule, phase, sizes, &groups, err));
        if (groups <= 0) continue;
        if (rule->phases > 1) kernarg[count - 1].i64 = phase;
        gcn_launch launch = {.kernel = module->kernel.symbol, .grid = {(uint32_t)groups, 1, 1},
                             .block = {(uint32_t)rule->block, 1, 1}, .kernarg = kernarg,
                             .kernarg_bytes = (size_t)count * sizeof *kernarg, .buffer = buffer,
                             .nbuffer = buffers, .dynamic_lds = (uint32_t)rule->shared_bytes,
                             .seed = order, .trace = m->trace};
        MOEC_TRY(run_phase(device, module, &launch, err));
    }
    return MOEC_OK;
}

/* What device_hip.c looks up by this name. */
extern const moec_device_ops moec_hip_emulator;
const moec_device_ops moec_hip_emulator = {
    .family = "hip",
    .substitute = "no AMD GPU is used: the compiled code objects run under the instruction-set "
                  "interpreter, every check on (levels L0 and L2)",
    .open = gcn_device_open, .close = gcn_device_close, .alloc = gcn_alloc, .free = gcn_free,
    .upload = gcn_move, .download = gcn_move, .copy = gcn_copy,
    .synchronize = gcn_synchronize, .load = gcn_load, .unload = gcn_unload,
    .launch = gcn_launch_kernel,
};
