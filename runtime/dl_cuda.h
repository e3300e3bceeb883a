/* dl_cuda: the part of the CUDA driver that moec calls, opened at run time.
 *
 * No vendor header is needed to build: the few types below restate the driver's stable binary
 * interface (CUDA Driver API manual, version 12 and later). One binary runs with and without a
 * GPU, and `moec doctor` says what was found. */
#ifndef MOEC_DL_CUDA_H
#define MOEC_DL_CUDA_H

#include <stddef.h>
#include <stdint.h>

#include "../gen/status.h"

typedef int CUresult, CUdevice;
typedef unsigned long long CUdeviceptr;
typedef void *CUcontext, *CUmodule, *CUfunction, *CUstream, *CUevent, *CUgraph, *CUgraphExec;
typedef struct CUtensorMap { _Alignas(64) uint64_t word[16]; } CUtensorMap;

enum { CUDA_SUCCESS = 0, CUDA_ERROR_INVALID_VALUE = 1, CUDA_ERROR_OUT_OF_MEMORY = 2, CUDA_ERROR_NO_DEVICE = 100,
       CUDA_ERROR_NO_BINARY_FOR_GPU = 209, CUDA_ERROR_ILLEGAL_ADDRESS = 700 };
enum { CU_ATTR_SMS = 16, CU_ATTR_MAJOR = 75, CU_ATTR_MINOR = 76, CU_ATTR_SHARED_OPTIN = 97 };
enum { CU_FUNC_LOCAL_BYTES = 3, CU_FUNC_REGISTERS = 4, CU_FUNC_MAX_DYNAMIC_SHARED = 8 };
enum { CU_POINTER_MEMORY_TYPE = 2, CU_POINTER_MANAGED = 8, CU_POINTER_ORDINAL = 9, CU_POINTER_HERE = 3 };
enum { CU_MEMORY_DEVICE = 2 };
enum { CU_LAUNCH_CLUSTER = 4, CU_LAUNCH_PDL = 6 };
enum { CU_TMAP_FLOAT32 = 7, CU_TMAP_BFLOAT16 = 9 };

typedef struct CUlaunchAttribute {
    int id;
    int pad;
    union { unsigned cluster[3]; int pdl; char bytes[64]; } value;
} CUlaunchAttribute;

typedef struct CUlaunchConfig {
    unsigned grid[3], block[3], shared_bytes;
    CUstream stream;
    CUlaunchAttribute *attrs;
    unsigned attr_count;
} CUlaunchConfig;

/* CUDA_FUNCTION(result, name, exported symbol, parameters) */
#define CUDA_FUNCTIONS(F)                                                                          \
    F(init, "cuInit", (unsigned flags))                                                            \
    F(driver_version, "cuDriverGetVersion", (int *version))                                        \
    F(device_count, "cuDeviceGetCount", (int *count))                                              \
    F(device_get, "cuDeviceGet", (CUdevice *device, int index))                                    \
    F(device_name, "cuDeviceGetName", (char *name, int bytes, CUdevice device))                    \
    F(device_attribute, "cuDeviceGetAttribute", (int *value, int attribute, CUdevice device))      \
    F(device_memory, "cuDeviceTotalMem_v2", (size_t *bytes, CUdevice device))                      \
    F(memory_info, "cuMemGetInfo_v2", (size_t *free_bytes, size_t *total_bytes))                   \
    F(primary_retain, "cuDevicePrimaryCtxRetain", (CUcontext *context, CUdevice device))           \
    F(primary_release, "cuDevicePrimaryCtxRelease_v2", (CUdevice device))                          \
    F(primary_state, "cuDevicePrimaryCtxGetState", (CUdevice device, unsigned *flags, int *active)) \
    F(context_get, "cuCtxGetCurrent", (CUcontext *context))                                        \
    F(context_set, "cuCtxSetCurrent", (CUcontext context))                                         \
    F(context_device, "cuCtxGetDevice", (CUdevice *device))                                        \
    F(mem_alloc, "cuMemAlloc_v2", (CUdeviceptr *ptr, size_t bytes))                                \
    F(mem_free, "cuMemFree_v2", (CUdeviceptr ptr))                                                 \
    F(to_device, "cuMemcpyHtoD_v2", (CUdeviceptr dst, const void *src, size_t bytes))              \
    F(to_host, "cuMemcpyDtoH_v2", (void *dst, CUdeviceptr src, size_t bytes))                      \
    F(copy_async, "cuMemcpyDtoDAsync_v2",                                                          \
      (CUdeviceptr dst, CUdeviceptr src, size_t bytes, CUstream stream))                           \
    F(fill_async, "cuMemsetD8Async",                                                               \
      (CUdeviceptr dst, unsigned char value, size_t bytes, CUstream stream))                       \
    F(pointer_attribute, "cuPointerGetAttribute", (void *data, int attribute, CUdeviceptr ptr))    \
    F(pointer_attributes, "cuPointerGetAttributes",                                                \
      (unsigned count, const int *attributes, void **data, CUdeviceptr ptr))                       \
    F(stream_create, "cuStreamCreate", (CUstream *stream, unsigned flags))                         \
    F(stream_destroy, "cuStreamDestroy_v2", (CUstream stream))                                     \
    F(stream_synchronize, "cuStreamSynchronize", (CUstream stream))                                \
    F(capture_begin, "cuStreamBeginCapture_v2", (CUstream stream, int mode))                       \
    F(capture_end, "cuStreamEndCapture", (CUstream stream, CUgraph *graph))                        \
    F(graph_instantiate, "cuGraphInstantiateWithFlags",                                            \
      (CUgraphExec *exec, CUgraph graph, unsigned long long flags))                                \
    F(graph_launch, "cuGraphLaunch", (CUgraphExec exec, CUstream stream))                          \
    F(graph_exec_destroy, "cuGraphExecDestroy", (CUgraphExec exec))                                \
    F(graph_destroy, "cuGraphDestroy", (CUgraph graph))                                            \
    F(event_create, "cuEventCreate", (CUevent *event, unsigned flags))                             \
    F(event_record, "cuEventRecord", (CUevent event, CUstream stream))                             \
    F(event_synchronize, "cuEventSynchronize", (CUevent event))                                    \
    F(event_elapsed, "cuEventElapsedTime", (float *ms, CUevent start, CUevent end))                \
    F(event_destroy, "cuEventDestroy_v2", (CUevent event))                                         \
    F(module_load, "cuModuleLoadData", (CUmodule *module, const void *image))                      \
    F(module_unload, "cuModuleUnload", (CUmodule module))                                          \
    F(module_function, "cuModuleGetFunction",                                                      \
      (CUfunction *function, CUmodule module, const char *name))                                   \
    F(function_set, "cuFuncSetAttribute", (CUfunction function, int attribute, int value))         \
    F(function_get, "cuFuncGetAttribute", (int *value, int attribute, CUfunction function))        \
    F(launch, "cuLaunchKernelEx",                                                                  \
      (const CUlaunchConfig *config, CUfunction function, void **params, void **extra))            \
    F(tensor_map, "cuTensorMapEncodeTiled",                                                        \
      (CUtensorMap *map, int type, uint32_t rank, void *base, const uint64_t *dim,                 \
       const uint64_t *stride, const uint32_t *box, const uint32_t *step, int interleave,          \
       int swizzle, int promotion, int fill))                                                      \
    F(error_name, "cuGetErrorName", (CUresult result, const char **name))                          \
    F(error_text, "cuGetErrorString", (CUresult result, const char **text))

typedef struct moec_cuda {
#define FIELD(name, symbol, params) CUresult(*name) params;
    CUDA_FUNCTIONS(FIELD)
#undef FIELD
    int version;            /* 13000 for CUDA 13.0 */
    char path[256];         /* what was opened */
} moec_cuda;

/* Opens and initialises the driver once per process. E_DEVICE without a GPU, E_TOOL without a
 * driver or with one too old. The table lives for the process. */
moec_status moec_cuda_open(const moec_cuda **cuda, moec_error *err);

/* E_DEVICE (E_NOMEM when out of memory) with the driver's own name and text for a failed call. */
moec_status moec_cuda_fail(const moec_cuda *cuda, CUresult result, const char *call,
                           moec_error *err);

#endif
