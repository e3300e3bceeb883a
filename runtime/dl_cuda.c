/* Opens libcuda once: $MOEC_CUDA, or where a linker looks. A missing symbol means a driver older than
 * CUDA 12. */
#include "dl_cuda.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "setting.h"

static moec_cuda table;
static moec_status opened;
static moec_error reason;
static pthread_once_t once = PTHREAD_ONCE_INIT;

static const char *const names[] = {"libcuda.so.1", "libcuda.so", "/usr/lib/wsl/lib/libcuda.so.1"};

static void *try_open(const char *path) {
    void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (library) snprintf(table.path, sizeof table.path, "%s", path);
    return library;
}

static void *open_library(void) {
    const char *wish = moec_setting("MOEC_CUDA");
    void *library = wish ? try_open(wish) : NULL;
    for (size_t i = 0; i < sizeof names / sizeof *names && !library && !wish; i++)
        library = try_open(names[i]);
    return library;
}

static const char *bind(void *library) {
#define BIND(name, symbol, params)                                      \
    if (!(*(void **)(void *)&table.name = dlsym(library, symbol))) return symbol;
    CUDA_FUNCTIONS(BIND)
#undef BIND
    return NULL;
}

/* cuInit fails where there is a driver but no GPU that it may use. */
static moec_status init(moec_error *err) {
    CUresult result = table.init(0);
    if (!result) {
        table.driver_version(&table.version);
        return MOEC_OK;
    }
    moec_status rc = moec_cuda_fail(&table, result, "cuInit", err);
    return moec_hint(err, rc, "nvidia-smi must list the GPU as this user; a container needs to be started "
                              "with it (--gpus all), and CUDA_VISIBLE_DEVICES must not hide it");
}

static moec_status start(moec_error *err) {
    void *library = open_library();
    const char *wish = moec_setting("MOEC_CUDA");
    if (!library && wish) {
        moec_status rc = moec_fail(err, MOEC_E_TOOL, "MOEC_CUDA=%s cannot be opened: %s", wish, dlerror());
        return moec_hint(err, rc, "unset it, or name the driver's libcuda.so.1");
    }
    if (!library) {
        moec_status rc = moec_fail(err, MOEC_E_TOOL, "the NVIDIA driver (libcuda.so.1) is not here: "
                                   "looked on the linker's path and in /usr/lib/wsl/lib");
        return moec_hint(err, rc, "install the driver, or use a CPU target; moec gen --compile needs "
                                  "NVRTC only");
    }
    const char *missing = bind(library);
    if (missing) {
        moec_status rc = moec_fail(err, MOEC_E_TOOL, "the driver in %s is too old: it has no %s",
                                   table.path, missing);
        return moec_hint(err, rc, "moec needs a driver for CUDA 12 or newer (525 or later)");
    }
    return init(err);
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
