/* dl_nvrtc: NVIDIA's run-time compiler, opened at run time. No CUDA headers, no nvcc. */
#ifndef MOEC_DL_NVRTC_H
#define MOEC_DL_NVRTC_H

#include <stddef.h>

#include "../gen/status.h"

typedef void *nvrtcProgram;

#define NVRTC_FUNCTIONS(F)                                                                        \
    F(version, "nvrtcVersion", (int *major, int *minor))                                          \
    F(create, "nvrtcCreateProgram",                                                               \
      (nvrtcProgram *program, const char *source, const char *name, int headers,                  \
       const char *const *texts, const char *const *names))                                       \
    F(destroy, "nvrtcDestroyProgram", (nvrtcProgram *program))                                    \
    F(compile, "nvrtcCompileProgram", (nvrtcProgram program, int count, const char *const *opts)) \
    F(log_size, "nvrtcGetProgramLogSize", (nvrtcProgram program, size_t *bytes))                  \
    F(log, "nvrtcGetProgramLog", (nvrtcProgram program, char *text))                              \
    F(cubin_size, "nvrtcGetCUBINSize", (nvrtcProgram program, size_t *bytes))                     \
    F(cubin, "nvrtcGetCUBIN", (nvrtcProgram program, char *image))                                \
    F(ptx_size, "nvrtcGetPTXSize", (nvrtcProgram program, size_t *bytes))                         \
    F(ptx, "nvrtcGetPTX", (nvrtcProgram program, char *text))

typedef struct moec_nvrtc {
#define FIELD(name, symbol, params) int(*name) params;
    NVRTC_FUNCTIONS(FIELD)
#undef FIELD
    const char *(*error_text)(int result);
    int major, minor;
    char path[512];     /* what was opened */
} moec_nvrtc;

/* Opens NVRTC once per process: $MOEC_NVRTC, the linker's path, /usr/local/cuda*, then the pip
 * packages' folders. E_TOOL with the places searched. */
moec_status moec_nvrtc_open(const moec_nvrtc **nvrtc, moec_error *err);

#endif
