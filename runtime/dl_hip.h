/* dl_hip: the part of AMD's HIP runtime that moec calls, opened at run time. No ROCm headers.
 *
 * Only functions whose binary interface has not changed since ROCm 5 are used; what needs structs
 * that grew (the device's properties) is read from the kernel driver instead. */
#ifndef MOEC_DL_HIP_H
#define MOEC_DL_HIP_H

#include <stddef.h>

#include "../gen/status.h"

enum { HIP_OUT_OF_MEMORY = 2, HIP_TO_DEVICE = 1, HIP_TO_HOST = 2, HIP_ON_DEVICE = 3 };

#define HIP_FUNCTIONS(F)                                                                          \
    F(init, "hipInit", (unsigned flags))                                                          \
    F(device_count, "hipGetDeviceCount", (int *count))                                            \
    F(device_set, "hipSetDevice", (int device))                                                   \
    F(device_name, "hipDeviceGetName", (char *name, int bytes, int device))                       \
    F(runtime_version, "hipRuntimeGetVersion", (int *version))                                    \
    F(memory_info, "hipMemGetInfo", (size_t *free_bytes, size_t *total_bytes))                    \
    F(mem_alloc, "hipMalloc", (void **ptr, size_t bytes))                                         \
    F(mem_free, "hipFree", (void *ptr))                                                           \
    F(copy, "hipMemcpy", (void *dst, const void *src, size_t bytes, int kind))                    \
    F(copy_async, "hipMemcpyAsync",                                                               \
      (void *dst, const void *src, size_t bytes, int kind, void *stream))                         \
    F(stream_synchronize, "hipStreamSynchronize", (void *stream))                                 \
    F(module_load, "hipModuleLoadData", (void **module, const void *image))                       \
    F(module_unload, "hipModuleUnload", (void *module))                                           \
    F(module_function, "hipModuleGetFunction", (void **function, void *module, const char *name)) \
    F(launch, "hipModuleLaunchKernel",                                                            \
      (void *function, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by,           \
       unsigned bz, unsigned shared_bytes, void *stream, void **params, void **extra))

typedef struct moec_hip {
#define FIELD(name, symbol, params) int(*name) params;
    HIP_FUNCTIONS(FIELD)
#undef FIELD
    const char *(*error_name)(int result);
    const char *(*error_text)(int result);
    int version;        /* as hipRuntimeGetVersion gives it */
    char path[256];     /* what was opened */
} moec_hip;

/* Opens and initialises HIP once per process. E_TOOL without a runtime, E_DEVICE without a GPU. */
moec_status moec_hip_open(const moec_hip **hip, moec_error *err);
moec_status moec_hip_fail(const moec_hip *hip, int result, const char *call, moec_error *err);

/* What the kernel driver (amdkfd) says of GPU `index`: gfx version as 90402 for gfx942, compute
 * units. False when there is no such GPU. */
int moec_hip_topology(int index, int *gfx_version, int *compute_units);

#endif
