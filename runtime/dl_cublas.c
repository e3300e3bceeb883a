/* Opens cuBLAS, which needs libcublasLt of the same folder. */
#include "dl_cublas.h"

#include <dlfcn.h>
#include <pthread.h>

#include "dl_toolkit.h"

static moec_cublas table;
static moec_status opened;
static moec_error reason;
static pthread_once_t once = PTHREAD_ONCE_INIT;

static void open_once(void) {
    void *library = moec_toolkit_open("cublas", "MOEC_CUBLAS", "cublasLt");
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
    moec_toolkit_file(*(void **)(void *)&table.create, table.path, sizeof table.path);
}

moec_status moec_cublas_open(const moec_cublas **cublas, moec_error *err) {
    pthread_once(&once, open_once);
    *cublas = &table;
    if (opened && err) *err = reason;
    return opened;
}
