/* Finds and opens cuBLAS, in the same places as NVRTC. It needs libcublasLt of the same folder, which
 * is opened first where only that folder has it. */
#include "dl_cublas.h"

#include <dlfcn.h>
#include <glob.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static moec_cublas table;
static moec_status opened;
static moec_error reason;
static pthread_once_t once = PTHREAD_ONCE_INIT;

static const char *const sonames[] = {"libcublas.so.13", "libcublas.so.12", "libcublas.so"};

static const char *const patterns[] = {
    "/usr/local/cuda*/lib64/libcublas.so.1*",
    "/usr/local/cuda*/targets/*/lib/libcublas.so.1*",
    "/opt/*/lib/python3*/site-packages/nvidia/*/lib/libcublas.so.1*",
    "/opt/*/.venv/lib/python3*/site-packages/nvidia/*/lib/libcublas.so.1*",
    "/usr/local/lib/python3*/*-packages/nvidia/*/lib/libcublas.so.1*",
    "/usr/lib/python3*/*-packages/nvidia/*/lib/libcublas.so.1*",
};

/* FOLDER/libcublas.so.N after FOLDER/libcublasLt.so.N. */
static void *try_open(const char *path) {
    char light[1024];
    const char *name = strrchr(path, '/');
    const char *version = strstr(path, ".so");
    if (name && version) {
        snprintf(light, sizeof light, "%.*s/libcublasLt%s", (int)(name - path), path, version);
        (void)dlopen(light, RTLD_NOW | RTLD_GLOBAL);
    }
    return dlopen(path, RTLD_NOW | RTLD_LOCAL);
}

static void *try_pattern(const char *pattern) {
    glob_t found;
    void *library = NULL;
    if (glob(pattern, 0, NULL, &found)) return NULL;
    for (size_t i = found.gl_pathc; i-- > 0 && !library;) library = try_open(found.gl_pathv[i]);
    globfree(&found);
    return library;
}

static void *open_library(void) {
    const char *wish = getenv("MOEC_CUBLAS");
    void *library = wish ? try_open(wish) : NULL;
    if (wish) return library;
    for (size_t i = 0; i < sizeof sonames / sizeof *sonames && !library; i++) library = try_open(sonames[i]);
    for (size_t i = 0; i < sizeof patterns / sizeof *patterns && !library; i++)
        library = try_pattern(patterns[i]);
    return library;
}

static void open_once(void) {
    void *library = open_library();
    if (!library) {
        opened = moec_fail(&reason, MOEC_E_TOOL, "cuBLAS (libcublas.so.13 or .12) is not here");
        moec_hint(&reason, opened, "pip install nvidia-cublas, or MOEC_CUBLAS=/path/to/libcublas.so");
        return;
    }
#define BIND(name, symbol, params)                                                          \
    *(void **)(void *)&table.name = dlsym(library, symbol);                                 \
    if (!table.name) {                                                                      \
        opened = moec_fail(&reason, MOEC_E_TOOL, "this cuBLAS has no %s", symbol);          \
        return;                                                                             \
    }
    CUBLAS_FUNCTIONS(BIND)
#undef BIND
    Dl_info where;
    if (dladdr(*(void **)(void *)&table.create, &where) && where.dli_fname)
        snprintf(table.path, sizeof table.path, "%s", where.dli_fname);
}

moec_status moec_cublas_open(const moec_cublas **cublas, moec_error *err) {
    pthread_once(&once, open_once);
    *cublas = &table;
    if (opened && err) *err = reason;
    return opened;
}
