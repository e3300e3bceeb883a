/* Opens libcuda once. A missing symbol means a driver older than CUDA 12. */
#include "dl_cuda.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

static moec_cuda table;
static moec_status opened;
static moec_error reason;
static pthread_once_t once = PTHREAD_ONCE_INIT;

static const char *const names[] = {"libcuda.so.1", "libcuda.so", "/usr/lib/wsl/lib/libcuda.so.1"};

static void *open_library(void) {
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        void *library = dlopen(names[i], RTLD_NOW | RTLD_LOCAL);
        if (!library) continue;
        snprintf(table.path, sizeof table.path, "%s", names[i]);
        return library;
    }
    return NULL;
}

static const char *bind(void *library) {
#define BIND(name, symbol, params)                                      \
    if (!(*(void **)(void *)&table.name = dlsym(library, symbol))) return symbol;
    CUDA_FUNCTIONS(BIND)
#undef BIND
    return NULL;
}

static moec_status start(moec_error *err) {
    void *library = open_library();
    if (!library) {
        moec_status rc = moec_fail(err, MOEC_E_TOOL, "the NVIDIA driver (libcuda.so.1) is not here");
        return moec_hint(err, rc, "install the driver, or use a CPU target; moec gen --compile needs "
                                  "NVRTC only");
    }
    const char *missing = bind(library);
    if (missing) {
        moec_status rc = moec_fail(err, MOEC_E_TOOL, "the driver in %s is too old: it has no %s",
                                   table.path, missing);
        return moec_hint(err, rc, "moec needs a driver for CUDA 12 or newer (525 or later)");
    }
    CUresult result = table.init(0);
    if (result) return moec_cuda_fail(&table, result, "cuInit", err);
    table.driver_version(&table.version);
    return MOEC_OK;
}

static void open_once(void) { opened = start(&reason); }

moec_status moec_cuda_open(const moec_cuda **cuda, moec_error *err) {
    pthread_once(&once, open_once);
    *cuda = &table;
    if (opened && err) *err = reason;
    return opened;
}

moec_status moec_cuda_fail(const moec_cuda *cuda, CUresult result, const char *call,
                           moec_error *err) {
    const char *name = "unknown error", *text = "";
    cuda->error_name(result, &name);
    cuda->error_text(result, &text);
    moec_status rc = result == CUDA_ERROR_OUT_OF_MEMORY ? MOEC_E_NOMEM : MOEC_E_DEVICE;
    return moec_fail(err, rc, "%s: %s (%s)", call, name, text);
}
