/* Finds the plug-in and the table of functions it exports. */
#include "dl_gcn.h"

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "fs.h"
#include "setting.h"

static void plugin_path(const char *wish, char *path, size_t bytes) {
    char program[MOEC_PATH_BYTES] = "";
    if (strchr(wish, '/')) {
        snprintf(path, bytes, "%s", wish);
        return;
    }
    ssize_t n = readlink("/proc/self/exe", program, sizeof program - 1);
    char *slash = n > 0 ? strrchr(program, '/') : NULL;
    if (slash) *slash = 0;
    const char *which = strcmp(wish, "shim") ? "gcn" : "shim";
    snprintf(path, bytes, "%.4000s/libmoec-%s.so", slash ? program : ".", which);
}

moec_status moec_gcn_open(const moec_device_ops **ops, moec_error *err) {
    const char *wish = moec_setting("MOEC_GCN");
    char path[MOEC_PATH_BYTES];
    plugin_path(wish ? wish : "", path, sizeof path);
    void *plugin = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    *ops = plugin ? dlsym(plugin, "moec_hip_emulator") : NULL;
    if (*ops) return MOEC_OK;
    moec_status rc = moec_fail(err, MOEC_E_TOOL, "what stands in for an AMD GPU cannot be opened: %s",
                               dlerror());
    return moec_hint(err, rc, "ninja builds build/libmoec-gcn.so (MOEC_GCN=1) and build/libmoec-shim.so "
                     "(MOEC_GCN=shim); unset MOEC_GCN to use a GPU");
}
