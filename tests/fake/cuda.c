/* A driver without a GPU: libcuda as far as moec calls it, for tests of what can go wrong.
 *
 * Device memory is host memory, copies copy, kernels do nothing. The environment says how it behaves:
 *   FAKE_CUDA_CC=90         compute capability, major and minor digit
 *   FAKE_CUDA_COUNT=1       GPUs
 *   FAKE_CUDA_SMS=4         its SMs
 *   FAKE_CUDA_VERSION=13000 what cuDriverGetVersion says
 *   FAKE_CUDA_BYTES=N       memory of the GPU, 1 GiB; what does not fit is out of memory
 *   FAKE_CUDA_CONTEXT=1     the calling program has made a context of its own current
 *   FAKE_CUDA_OWNER=0       the GPU that holds what is allocated from here on; FAKE_CUDA_MANAGED=1: managed memory
 *   FAKE_CUDA_PEER=1        the GPUs have access to each other's memory
 *   FAKE_CUDA_FAIL=CALL=CODE[@N]  that call answers CODE, from its N-th time on (1: always)
 * Codes from 700 on but 701, and 214, are sticky: every call after it answers the same. With -DFAKE_OLD the library
 * lacks what came with CUDA 12; with -DFAKE_RUNS its modules are those of tests/sim, and kernels run. */
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../sim/abi.h"

typedef unsigned long long address;

static int sticky;

static long setting(const char *name, long otherwise) {
    const char *text = getenv(name);
    return text && *text ? strtol(text, NULL, 10) : otherwise;
}

/* What `call` answers before it does anything. */
static int verdict(const char *call) {
    static long seen;
    const char *text = getenv("FAKE_CUDA_FAIL");
    size_t n = strlen(call);
    if (sticky) return sticky;
    if (!text || strncmp(text, call, n) || text[n] != '=') return 0;
    char *end;
    int code = (int)strtol(text + n + 1, &end, 10);
    if (++seen < (*end == '@' ? strtol(end + 1, NULL, 10) : 1)) return 0;
    if (code == 214 || (code >= 700 && code != 701)) sticky = code;
    return code;
}

#define CALL(name, ...) \
    int name(__VA_ARGS__); \
    int name(__VA_ARGS__)
#define CHECK(name)                     \
    do {                                \
        int code_ = verdict(name);      \
        if (code_) return code_;        \
    } while (0)
#define NOTHING(name, ...)              \
    CALL(name, __VA_ARGS__) { CHECK(#name); return 0; }

/* ---- the machine ---- */

NOTHING(cuInit, unsigned flags __attribute__((unused)))

CALL(cuDriverGetVersion, int *version) { *version = (int)setting("FAKE_CUDA_VERSION", 13000); return 0; }
CALL(cuDeviceGetCount, int *count) {
    CHECK("cuDeviceGetCount");
    *count = (int)setting("FAKE_CUDA_COUNT", 1);
    return 0;
}
CALL(cuDeviceGet, int *device, int index) { *device = index; return 0; }
CALL(cuDeviceGetName, char *name, int bytes, int device) {
    (void)device;
    snprintf(name, (size_t)bytes, "Paper GPU");
    return 0;
}
CALL(cuDeviceGetAttribute, int *value, int attribute, int device) {
    long cc = setting("FAKE_CUDA_CC", 90);
    (void)device;
    *value = attribute == 75 ? (int)(cc / 10) : attribute == 76 ? (int)(cc % 10) : (int)setting("FAKE_CUDA_SMS", 4);
    return 0;
}
static size_t total(void) { return (size_t)setting("FAKE_CUDA_BYTES", 1 << 30); }
static size_t used;
CALL(cuDeviceTotalMem_v2, size_t *bytes, int device) { (void)device; *bytes = total(); return 0; }
CALL(cuMemGetInfo_v2, size_t *free_bytes, size_t *total_bytes) {
    CHECK("cuMemGetInfo_v2");
    *free_bytes = total() - used;
    *total_bytes = total();
    return 0;
}

/* ---- contexts ---- */

/* Each life of the primary context has its own handle; one that has ended answers 709. */
static char lives[64], own_context, *primary = lives, *current;
static int users;
static int ended(void) { return current != &own_context && (!users || current != primary); }
CALL(cuDevicePrimaryCtxRetain, void **out, int device) {
    CHECK("cuDevicePrimaryCtxRetain");
    (void)device;
    if (!users++) primary++;
    *out = primary;
    return 0;
}
CALL(cuDevicePrimaryCtxRelease_v2, int device) { (void)device; users--; return 0; }
CALL(cuDevicePrimaryCtxGetState, int device, unsigned *flags, int *active) {
    (void)device;
    *flags = 0;
    *active = users > 0;
    return 0;
}
CALL(cuCtxGetCurrent, void **out) {
    if (!current && getenv("FAKE_CUDA_CONTEXT")) current = &own_context; /* the caller brought one */
    *out = current;
    return 0;
}
CALL(cuCtxSetCurrent, void *which) { current = which; return 0; }
CALL(cuCtxGetDevice, int *device) { *device = 0; return 0; }

/* ---- memory: each block begins with its size and whose it is, 256 bytes before the address ---- */

enum { HEAD = 256 };
struct head { size_t bytes; int owner; unsigned managed; };
static char *blocks[4096];

CALL(cuMemAlloc_v2, address *ptr, size_t bytes) {
    CHECK("cuMemAlloc_v2");
    if (ended()) return 709;
    if (bytes > total() - used) return 2;
    char *block = aligned_alloc(HEAD, (bytes + 2 * HEAD - 1) / HEAD * HEAD);
    if (!block) return 2;
    memset(block, 0, bytes + HEAD);
    *(struct head *)(void *)block = (struct head){bytes, (int)setting("FAKE_CUDA_OWNER", 0),
                                                  (unsigned)setting("FAKE_CUDA_MANAGED", 0)};
    for (int i = 0; i < 4096; i++)
        if (!blocks[i]) {
            blocks[i] = block;
            break;
        }
    used += bytes;
    *ptr = (address)(uintptr_t)(block + HEAD);
    return 0;
}
CALL(cuMemFree_v2, address ptr) {
    char *block = (char *)(uintptr_t)ptr - HEAD;
    for (int i = 0; i < 4096; i++)
        if (blocks[i] == block) blocks[i] = NULL;
    used -= *(size_t *)(void *)block;
    free(block);
    return 0;
}
/* Only what lies in a block is a GPU's. */
static const struct head *head_of(address ptr) {
    for (int i = 0; i < 4096; i++) {
        uintptr_t start = (uintptr_t)blocks[i] + HEAD;
        const struct head *h = (const void *)blocks[i];
        if (h && ptr >= start && ptr < start + h->bytes) return h;
    }
    return NULL;
}
/* The current context is GPU 0's. */
static unsigned attribute_of(const struct head *h, int attribute) {
    switch (attribute) {
    case 2: return 2;                       /* memory type: device */
    case 8: return h->managed;
    case 9: return (unsigned)h->owner;
    default: abort();
    }
}
CALL(cuPointerGetAttribute, void *data, int attribute, address ptr) {
    CHECK("cuPointerGetAttribute");
    const struct head *h = head_of(ptr);
    if (attribute == 3) { /* the address at which the current context reaches it */
        bool here = h && (!h->owner || setting("FAKE_CUDA_PEER", 0));
        *(address *)data = here ? ptr : 0;
        return here ? 0 : 1;
    }
    if (h) *(unsigned *)data = attribute_of(h, attribute);
    return h ? 0 : 1;
}
/* Zeros where the other call refuses. */
CALL(cuPointerGetAttributes, unsigned count, const int *attributes, void **data, address ptr) {
    CHECK("cuPointerGetAttributes");
    const struct head *h = head_of(ptr);
    for (unsigned i = 0; i < count; i++) *(unsigned *)data[i] = h ? attribute_of(h, attributes[i]) : 0;
    return 0;
}
#ifdef FAKE_RUNS
bool fake_holds(const void *p, size_t bytes);
bool fake_holds(const void *p, size_t bytes) {
    for (int i = 0; i < 4096; i++) {
        const char *start = blocks[i] ? blocks[i] + HEAD : NULL, *at = p;
        if (start && at >= start && at + bytes <= start + *(size_t *)(void *)blocks[i]) return true;
    }
    return false;
}
#endif
CALL(cuMemcpyHtoD_v2, address dst, const void *src, size_t bytes) {
    CHECK("cuMemcpyHtoD_v2");
    memcpy((void *)(uintptr_t)dst, src, bytes);
    return 0;
}
CALL(cuMemcpyDtoH_v2, void *dst, address src, size_t bytes) {
    CHECK("cuMemcpyDtoH_v2");
    memcpy(dst, (void *)(uintptr_t)src, bytes);
    return 0;
}
CALL(cuMemcpyDtoDAsync_v2, address dst, address src, size_t bytes, void *stream) {
    CHECK("cuMemcpyDtoDAsync_v2");
    (void)stream;
    memmove((void *)(uintptr_t)dst, (void *)(uintptr_t)src, bytes);
    return 0;
}
CALL(cuMemsetD8Async, address dst, unsigned char value, size_t bytes, void *stream) {
    (void)stream;
    memset((void *)(uintptr_t)dst, value, bytes);
    return 0;
}

/* ---- streams, events, graphs ---- */

static int thing;
CALL(cuStreamCreate, void **stream, unsigned flags) { (void)flags; *stream = &thing; return 0; }
NOTHING(cuStreamDestroy_v2, void *stream __attribute__((unused)))
NOTHING(cuStreamSynchronize, void *stream __attribute__((unused)))
NOTHING(cuStreamBeginCapture_v2, void *stream __attribute__((unused)), int mode __attribute__((unused)))
CALL(cuStreamEndCapture, void *stream, void **graph) { (void)stream; *graph = &thing; return 0; }
CALL(cuGraphInstantiateWithFlags, void **exec, void *graph, unsigned long long flags) {
    (void)graph, (void)flags;
    *exec = &thing;
    return 0;
}
NOTHING(cuGraphLaunch, void *exec __attribute__((unused)), void *stream __attribute__((unused)))
NOTHING(cuGraphExecDestroy, void *exec __attribute__((unused)))
NOTHING(cuGraphDestroy, void *graph __attribute__((unused)))
CALL(cuEventCreate, void **event, unsigned flags) { (void)flags; *event = &thing; return 0; }
NOTHING(cuEventRecord, void *event __attribute__((unused)), void *stream __attribute__((unused)))
NOTHING(cuEventSynchronize, void *event __attribute__((unused)))
CALL(cuEventElapsedTime, float *ms, void *start, void *end) { (void)start, (void)end; *ms = 1; return 0; }
NOTHING(cuEventDestroy_v2, void *event __attribute__((unused)))

/* ---- modules ---- */

#ifndef FAKE_RUNS
CALL(cuModuleLoadData, void **module, const void *image) {
    CHECK("cuModuleLoadData");
    if (ended()) return 709;
    (void)image;
    *module = &thing;
    return 0;
}
NOTHING(cuModuleUnload, void *module __attribute__((unused)))
CALL(cuModuleGetFunction, void **function, void *module, const char *name) {
    CHECK("cuModuleGetFunction");
    (void)module, (void)name;
    *function = &thing;
    return 0;
}
NOTHING(cuLaunchKernelEx, const void *config __attribute__((unused)), void *function __attribute__((unused)),
        void **params __attribute__((unused)), void **extra __attribute__((unused)))
#endif
NOTHING(cuFuncSetAttribute, void *function __attribute__((unused)), int attribute __attribute__((unused)),
        int value __attribute__((unused)))
CALL(cuFuncGetAttribute, int *value, int attribute, void *function) {
    (void)attribute, (void)function;
    *value = 0;
    return 0;
}
#ifndef FAKE_OLD
CALL(cuTensorMapEncodeTiled, void *map, int type, uint32_t rank, void *base, const uint64_t *dim,
     const uint64_t *stride, const uint32_t *box, const uint32_t *step, int interleave, int swizzle,
     int promotion, int fill) {
    CHECK("cuTensorMapEncodeTiled");
    (void)type, (void)step, (void)interleave, (void)swizzle, (void)promotion, (void)fill;
    struct sim_map m = {.base = base};
    for (uint32_t i = 0; i < rank; i++) m.dim[i] = dim[i], m.box[i] = box[i];
    for (uint32_t i = 0; i + 1 < rank; i++) m.stride[i] = stride[i];
    memset(map, 0, 128);
    memcpy(map, &m, sizeof m);
    return 0;
}
#endif

/* ---- words ---- */

static const struct { int code; const char *name, *text; } words[] = {
    {0, "CUDA_SUCCESS", "no error"},
    {2, "CUDA_ERROR_OUT_OF_MEMORY", "out of memory"},
    {100, "CUDA_ERROR_NO_DEVICE", "no CUDA-capable device is detected"},
    {200, "CUDA_ERROR_INVALID_IMAGE", "device kernel image is invalid"},
    {222, "CUDA_ERROR_UNSUPPORTED_PTX_VERSION", "the provided PTX was compiled with an unsupported toolchain."},
    {700, "CUDA_ERROR_ILLEGAL_ADDRESS", "an illegal memory access was encountered"},
    {803, "CUDA_ERROR_SYSTEM_DRIVER_MISMATCH", "system has unsupported display driver / cuda driver combination"},
};
static const char *word(int code, int text) {
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        if (words[i].code == code) return text ? words[i].text : words[i].name;
    return "some error";
}
CALL(cuGetErrorName, int code, const char **name) { *name = word(code, 0); return 0; }
CALL(cuGetErrorString, int code, const char **text) { *text = word(code, 1); return 0; }
