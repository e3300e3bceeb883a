/* Finds and opens NVRTC. PyPI's nvidia-cuda-nvrtc packages put it into site-packages, where no
 * linker looks: those folders are searched by pattern. */
#include "dl_nvrtc.h"

#include <dlfcn.h>
#include <glob.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { OLDEST_MAJOR = 12 };

static moec_nvrtc table;
static moec_status opened;
static moec_error reason;
static pthread_once_t once = PTHREAD_ONCE_INIT;

static const char *const sonames[] = {"libnvrtc.so.13", "libnvrtc.so.12", "libnvrtc.so"};

static const char *const patterns[] = {
    "/usr/local/cuda*/lib64/libnvrtc.so.1*",
    "/usr/local/cuda*/targets/*/lib/libnvrtc.so.1*",
    "/opt/*/lib/python3*/site-packages/nvidia/*/lib/libnvrtc.so.1*",
    "/opt/*/.venv/lib/python3*/site-packages/nvidia/*/lib/libnvrtc.so.1*",
    "/usr/local/lib/python3*/*-packages/nvidia/*/lib/libnvrtc.so.1*",
    "/usr/lib/python3*/*-packages/nvidia/*/lib/libnvrtc.so.1*",
};

static void *try_open(const char *path) {
    void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (library) snprintf(table.path, sizeof table.path, "%s", path);
    return library;
}

static void *try_pattern(const char *pattern) {
    glob_t found;
    void *library = NULL;
    if (glob(pattern, 0, NULL, &found)) return NULL;
    for (size_t i = found.gl_pathc; i-- > 0 && !library;) library = try_open(found.gl_pathv[i]);
    globfree(&found);
    return library;
}

/* PREFIX/lib/python3*... below an environment variable that names a prefix. */
static void *try_prefix(const char *variable, const char *below) {
    const char *prefix = getenv(variable);
    char pattern[1024];
    if (!prefix) return NULL;
    snprintf(pattern, sizeof pattern,
             "%s%s/lib/python3*/site-packages/nvidia/*/lib/libnvrtc.so.1*", prefix, below);
    return try_pattern(pattern);
}

static void *open_library(void) {
    const char *wish = getenv("MOEC_NVRTC");
    void *library = wish ? try_open(wish) : NULL;
    if (wish) return library;
    for (size_t i = 0; i < sizeof sonames / sizeof *sonames && !library; i++)
        library = try_open(sonames[i]);
    for (size_t i = 0; i < sizeof patterns / sizeof *patterns && !library; i++)
        library = try_pattern(patterns[i]);
    if (!library) library = try_prefix("VIRTUAL_ENV", "");
    if (!library) library = try_prefix("CONDA_PREFIX", "");
    if (!library) library = try_prefix("HOME", "/.local");
    return library;
}

static const char *bind(void *library) {
#define BIND(name, symbol, params)                                      \
    if (!(*(void **)(void *)&table.name = dlsym(library, symbol))) return symbol;
    NVRTC_FUNCTIONS(BIND)
#undef BIND
    *(void **)(void *)&table.error_text = dlsym(library, "nvrtcGetErrorString");
    return table.error_text ? NULL : "nvrtcGetErrorString";
}

static moec_status start(moec_error *err) {
    void *library = open_library();
    const char *wish = getenv("MOEC_NVRTC");
    if (!library && wish) {
        moec_status rc = moec_fail(err, MOEC_E_TOOL, "MOEC_NVRTC=%s cannot be opened: %s", wish, dlerror());
        return moec_hint(err, rc, "unset it, or name a libnvrtc.so.13 or .12 (pip install nvidia-cuda-nvrtc)");
    }
    if (!library) {
        moec_status rc = moec_fail(err, MOEC_E_TOOL, "NVRTC (libnvrtc.so.13 or .12) is not here: "
                                   "looked on the linker's path, under /usr/local/cuda* and in "
                                   "Python's nvidia packages");
        return moec_hint(err, rc, "pip install nvidia-cuda-nvrtc, or MOEC_NVRTC=/path/to/libnvrtc.so");
    }
    const char *missing = bind(library);
    if (missing) {
        moec_status rc = moec_fail(err, MOEC_E_TOOL, "%s is no usable NVRTC: it has no %s", table.path, missing);
        return moec_hint(err, rc, "moec needs NVRTC 12 or newer: pip install nvidia-cuda-nvrtc");
    }
    Dl_info where; /* the file behind a name that the linker found */
    if (dladdr(*(void **)(void *)&table.version, &where) && where.dli_fname)
        snprintf(table.path, sizeof table.path, "%s", where.dli_fname);
    table.version(&table.major, &table.minor);
    if (table.major >= OLDEST_MAJOR) return MOEC_OK;
    moec_status rc = moec_fail(err, MOEC_E_TOOL, "NVRTC %d.%d in %s is too old", table.major,
                               table.minor, table.path);
    return moec_hint(err, rc, "moec needs NVRTC 12 or newer: pip install nvidia-cuda-nvrtc");
}

static void open_once(void) { opened = start(&reason); }

moec_status moec_nvrtc_open(const moec_nvrtc **nvrtc, moec_error *err) {
    pthread_once(&once, open_once);
    *nvrtc = &table;
    if (opened && err) *err = reason;
    return opened;
}
