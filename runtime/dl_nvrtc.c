/* Opens NVRTC, of a version that knows the targets. */
#include "dl_nvrtc.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stdlib.h>

#include "dl_toolkit.h"
#include "setting.h"

enum { OLDEST_MAJOR = 12 };

static moec_nvrtc table;
static moec_status opened;
static moec_error reason;
static pthread_once_t once = PTHREAD_ONCE_INIT;

static const char *bind(void *library) {
#define BIND(name, symbol, params)                                      \
    if (!(*(void **)(void *)&table.name = dlsym(library, symbol))) return symbol;
    NVRTC_FUNCTIONS(BIND)
#undef BIND
    *(void **)(void *)&table.error_text = dlsym(library, "nvrtcGetErrorString");
    return table.error_text ? NULL : "nvrtcGetErrorString";
}

static moec_status start(moec_error *err) {
    void *library = moec_toolkit_open("nvrtc", "MOEC_NVRTC", NULL);
    const char *wish = moec_setting("MOEC_NVRTC");
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
    moec_toolkit_file(dlsym(library, "nvrtcVersion"), table.path, sizeof table.path);
    if (missing) {
        moec_status rc = moec_fail(err, MOEC_E_TOOL, "%s is no usable NVRTC: it has no %s",
                                   *table.path ? table.path : wish ? wish : "libnvrtc", missing);
        return moec_hint(err, rc, "moec needs NVRTC 12 or newer: pip install nvidia-cuda-nvrtc");
    }
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
