/* Opens libamdhip64 once ($MOEC_HIP, or where a linker looks), and reads amdkfd's topology for what the GPU is. */
#include "dl_hip.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "device.h"
#include "fs.h"
#include "setting.h"

static moec_hip table;
static moec_status opened;
static moec_error reason;
static pthread_once_t once = PTHREAD_ONCE_INIT;

static const char *const names[] = {"libamdhip64.so.7", "libamdhip64.so.6", "libamdhip64.so.5",
                                    "libamdhip64.so", "/opt/rocm/lib/libamdhip64.so"};

static void *try_open(const char *path) {
    void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (library) snprintf(table.path, sizeof table.path, "%s", path);
    return library;
}

static void *open_library(void) {
    const char *wish = moec_setting("MOEC_HIP");
    void *library = wish ? try_open(wish) : NULL;
    for (size_t i = 0; i < sizeof names / sizeof *names && !library && !wish; i++) library = try_open(names[i]);
    return library;
}

static const char *bind(void *library) {
#define BIND(name, symbol, params)                                      \
    if (!(*(void **)(void *)&table.name = dlsym(library, symbol))) return symbol;
    HIP_FUNCTIONS(BIND)
#undef BIND
    *(void **)(void *)&table.error_name = dlsym(library, "hipGetErrorName");
    *(void **)(void *)&table.error_text = dlsym(library, "hipGetErrorString");
    return table.error_name && table.error_text ? NULL : "hipGetErrorName";
}

static moec_status start(moec_error *err) {
    void *library = open_library();
    const char *wish = moec_setting("MOEC_HIP");
    if (!library && wish) {
        moec_status rc = moec_fail(err, MOEC_E_TOOL, "MOEC_HIP=%s cannot be opened: %s", wish, dlerror());
        return moec_hint(err, rc, "unset it, or name ROCm's libamdhip64.so");
    }
    if (!library) {
        moec_status rc = moec_fail(err, MOEC_E_TOOL, "AMD's HIP runtime (libamdhip64.so.5 to .7) is not "
                                   "here");
        return moec_hint(err, rc, "install ROCm, or use a CPU target; moec gen --compile needs clang only, "
                                  "and moec verify checks the compiled kernels without a GPU");
    }
    const char *missing = bind(library);
    if (missing)
        return moec_fail(err, MOEC_E_TOOL, "%s is no usable HIP runtime: it has no %s", table.path,
                         missing);
    int result = table.init(0);
    if (result) {
        moec_status rc = moec_hip_fail(&table, result, "hipInit", err);
        return moec_hint(err, rc, "is there an AMD GPU, is amdgpu loaded, may this user open /dev/kfd? moec verify "
                         "checks the compiled kernels without one");
    }
    table.runtime_version(&table.version);
    return MOEC_OK;
}

static void open_once(void) { opened = start(&reason); }

moec_status moec_hip_open(const moec_hip **hip, moec_error *err) {
    pthread_once(&once, open_once);
    *hip = &table;
    if (opened && err) *err = reason;
    return opened;
}

moec_status moec_hip_fail(const moec_hip *hip, int result, const char *call, moec_error *err) {
    moec_status rc = result == HIP_OUT_OF_MEMORY ? MOEC_E_NOMEM : MOEC_E_DEVICE;
    return moec_fail(err, rc, "%s: %s (%s)", call, hip->error_name(result), hip->error_text(result));
}

/* ---- topology: NODES/N/properties, one "name value" a line; $MOEC_KFD in place of amdkfd's folder ---- */

static long long property(const char *text, const char *name) {
    char line[64];
    long long value = 0;
    snprintf(line, sizeof line, "%s %%lld", name);
    for (const char *at = text; at && *at; at = strchr(at, '\n') ? strchr(at, '\n') + 1 : NULL)
        if (sscanf(at, line, &value) == 1) return value;
    return 0;
}

static int read_node(int node, char *text, size_t bytes) {
    const char *wish = moec_setting("MOEC_KFD");
    char path[MOEC_PATH_BYTES];
    snprintf(path, sizeof path, "%.4000s/%d/properties", wish ? wish : "/sys/class/kfd/kfd/topology/nodes", node);
    FILE *f = fopen(path, "r");
    if (!f) return 0;
    moec_count(MOEC_COUNT_FILE);
    text[fread(text, 1, bytes - 1, f)] = 0;
    fclose(f);
    return 1;
}

int moec_hip_topology(int index, int *gfx_version, int *compute_units) {
    char text[8192];
    for (int node = 0; read_node(node, text, sizeof text); node++) {
        long long simds = property(text, "simd_count"), per_cu = property(text, "simd_per_cu");
        if (!simds || index-- > 0) continue; /* a CPU, or another GPU */
        *gfx_version = (int)property(text, "gfx_target_version");
        *compute_units = (int)(simds / (per_cu ? per_cu : 4));
        return 1;
    }
    return 0;
}
