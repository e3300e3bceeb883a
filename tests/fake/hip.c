/* AMD's HIP runtime without a GPU, as far as moec calls it: memory is the host's, and a launch runs the code object
 * under the interpreter, where any finding is a launch failure. What device_hip.c does is thereby run.
 *   FAKE_HIP_INIT=0       what hipInit answers; 100 is "no device"
 *   FAKE_HIP_COUNT=0      how many GPUs there are
 *   FAKE_HIP_GFX=gfx942   what they are: other code objects are refused
 *   FAKE_HIP_BYTES=N      memory of the GPU; default: as much as is asked for
 *   FAKE_HIP_LAUNCH=0     what every launch answers; 719 is a fault that loses the device */
#include <elf.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../gcn/gcn.h"

enum { OUT_OF_MEMORY = 2, INVALID = 1, NO_BINARY = 209, NOT_FOUND = 500, FAULT = 719, MOST = 4096, PARAMS = 64 };

static struct { void *ptr; size_t bytes; } blocks[MOST];
static int block_count;
static size_t used;

static long setting(const char *name, long otherwise) {
    const char *text = getenv(name);
    return text ? atol(text) : otherwise;
}

#define CALL(type, name, ...) \
    type name(__VA_ARGS__);   \
    type name(__VA_ARGS__)

/* ---- the runtime ---- */

static const struct { int result; const char *name, *text; } errors[] = {
    {OUT_OF_MEMORY, "hipErrorOutOfMemory", "out of memory"},
    {100, "hipErrorNoDevice", "no ROCm-capable device is detected"},
    {NO_BINARY, "hipErrorNoBinaryForGpu", "no kernel image is available for execution on the device"},
    {NOT_FOUND, "hipErrorNotFound", "named symbol not found"},
    {FAULT, "hipErrorLaunchFailure", "unspecified launch failure"},
};

CALL(const char *, hipGetErrorName, int result) {
    for (size_t i = 0; i < sizeof errors / sizeof *errors; i++)
        if (errors[i].result == result) return errors[i].name;
    return "hipErrorInvalidValue";
}
CALL(const char *, hipGetErrorString, int result) {
    for (size_t i = 0; i < sizeof errors / sizeof *errors; i++)
        if (errors[i].result == result) return errors[i].text;
    return "invalid argument";
}
CALL(int, hipInit, unsigned flags) { (void)flags; return (int)setting("FAKE_HIP_INIT", 0); }
CALL(int, hipRuntimeGetVersion, int *version) { *version = 60000000; return 0; }
CALL(int, hipGetDeviceCount, int *count) { *count = (int)setting("FAKE_HIP_COUNT", 0); return 0; }
CALL(int, hipSetDevice, int index) { return index < setting("FAKE_HIP_COUNT", 0) ? 0 : INVALID; }
CALL(int, hipDeviceGetName, char *name, int bytes, int index) {
    (void)index;
    snprintf(name, (size_t)bytes, "a GPU of the tests");
    return 0;
}

/* ---- memory ---- */

CALL(int, hipMemGetInfo, size_t *free_bytes, size_t *total) {
    *total = (size_t)setting("FAKE_HIP_BYTES", 1l << 40);
    *free_bytes = *total - used;
    return 0;
}
CALL(int, hipMalloc, void **ptr, size_t bytes) {
    if (block_count == MOST || used + bytes > (size_t)setting("FAKE_HIP_BYTES", 1l << 40)) return OUT_OF_MEMORY;
    if (posix_memalign(ptr, 256, bytes)) return OUT_OF_MEMORY;
    blocks[block_count].ptr = *ptr;
    blocks[block_count++].bytes = bytes;
    used += bytes;
    return 0;
}
CALL(int, hipFree, void *ptr) {
    for (int i = 0; i < block_count; i++) {
        if (blocks[i].ptr != ptr) continue;
        used -= blocks[i].bytes;
        blocks[i] = blocks[--block_count];
        free(ptr);
        return 0;
    }
    return ptr ? INVALID : 0;
}
static int ours(const void *ptr, size_t bytes) {
    for (int i = 0; i < block_count; i++) {
        size_t at = (size_t)((const char *)ptr - (const char *)blocks[i].ptr);
        if (at <= blocks[i].bytes && bytes <= blocks[i].bytes - at) return 1;
    }
    return 0;
}
CALL(int, hipMemcpy, void *dst, const void *src, size_t bytes, int kind) {
    if ((kind != 2 && !ours(dst, bytes)) || (kind != 1 && !ours(src, bytes))) return INVALID;
    memmove(dst, src, bytes);
    return 0;
}
CALL(int, hipMemcpyAsync, void *dst, const void *src, size_t bytes, int kind, void *stream) {
    (void)stream;
    return hipMemcpy(dst, src, bytes, kind);
}
CALL(int, hipStreamSynchronize, void *stream) { (void)stream; return 0; }

/* ---- modules and launches ---- */

typedef struct function { gcn_object *object; char name[256]; } function;

static size_t elf_bytes(const void *image) {
    Elf64_Ehdr head;
    memcpy(&head, image, sizeof head);
    return head.e_shoff + (size_t)head.e_shnum * head.e_shentsize;
}

CALL(int, hipModuleLoadData, void **module, const void *image) {
    const char *gfx = getenv("FAKE_HIP_GFX");
    gcn_object *object;
    if (gcn_open(image, elf_bytes(image), &object, NULL, 0)) return NO_BINARY;
    *module = object;
    return strcmp(gcn_kernel_report(object, 0)->target, gfx ? gfx : "gfx942") ? NO_BINARY : 0;
}
CALL(int, hipModuleUnload, void *module) {
    gcn_close(module);
    return 0;
}
CALL(int, hipModuleGetFunction, void **out, void *module, const char *name) {
    function *f = calloc(1, sizeof *f); /* lives as long as the process, as small as it is */
    if (!f || !gcn_find_kernel(module, name)) return NOT_FOUND;
    f->object = module;
    snprintf(f->name, sizeof f->name, "%s", name);
    *out = f;
    return 0;
}
CALL(int, hipModuleLaunchKernel, void *entry, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by,
     unsigned bz, unsigned shared_bytes, void *stream, void **params, void **extra) {
    const function *f = entry;
    const gcn_report *report = gcn_find_kernel(f->object, f->name);
    uint64_t kernarg[PARAMS];
    static gcn_buffer buffers[MOST];
    gcn_result result;
    if (stream || extra || report->kernarg_bytes > sizeof kernarg) return INVALID;
    if (setting("FAKE_HIP_LAUNCH", 0)) return (int)setting("FAKE_HIP_LAUNCH", 0);
    for (uint32_t i = 0; i < report->kernarg_bytes / 8; i++) memcpy(&kernarg[i], params[i], 8);
    for (int i = 0; i < block_count; i++)
        buffers[i] = (gcn_buffer){.host = blocks[i].ptr, .bytes = blocks[i].bytes, .writable = true,
                                  .va = (uint64_t)(uintptr_t)blocks[i].ptr};
    gcn_launch launch = {.kernel = f->name, .grid = {gx, gy, gz}, .block = {bx, by, bz}, .kernarg = kernarg,
                         .kernarg_bytes = report->kernarg_bytes, .buffer = buffers, .nbuffer = (size_t)block_count,
                         .dynamic_lds = shared_bytes};
    if (gcn_run(f->object, &launch, &result, NULL, 0)) return INVALID;
    size_t findings = result.findings.count;
    gcn_result_free(&result);
    return findings ? FAULT : 0;
}
