/* Finds libraries of the CUDA toolkit. PyPI's packages put them into site-packages, where no linker
 * looks: those folders are searched by pattern. */
#include "dl_toolkit.h"

#include <dlfcn.h>
#include <glob.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "setting.h"

typedef struct wanted { const char *name, *needs; } wanted;

static const char *const versions[] = {".13", ".12", ""};

static const char *const folders[] = {
    "/usr/local/cuda*/lib64",
    "/usr/local/cuda*/targets/*/lib",
    "/opt/*/lib/python3*/site-packages/nvidia/*/lib",
    "/opt/*/.venv/lib/python3*/site-packages/nvidia/*/lib",
    "/usr/local/lib/python3*/*-packages/nvidia/*/lib",
    "/usr/lib/python3*/*-packages/nvidia/*/lib",
};

/* Prefixes of Python environments: a variable's value and what follows it. */
static const struct { const char *variable, *below; } prefixes[] = {
    {"VIRTUAL_ENV", ""}, {"CONDA_PREFIX", ""}, {"HOME", "/.local"},
};

/* FOLDER/libNAME.so.N after FOLDER/libNEEDS.so.N. */
static void *try_open(const wanted *w, const char *path) {
    char other[1024];
    const char *slash = strrchr(path, '/'), *version = strstr(path, ".so");
    if (w->needs && slash && version) {
        snprintf(other, sizeof other, "%.*s/lib%s%s", (int)(slash - path), path, w->needs, version);
        (void)dlopen(other, RTLD_NOW | RTLD_GLOBAL);
    }
    return dlopen(path, RTLD_NOW | RTLD_LOCAL);
}

/* The newest version that opens of the folders of a pattern. */
static void *try_folders(const wanted *w, const char *pattern) {
    char files[1200];
    glob_t found;
    void *library = NULL;
    snprintf(files, sizeof files, "%s/lib%s.so.1*", pattern, w->name);
    if (glob(files, 0, NULL, &found)) return NULL;
    for (size_t i = found.gl_pathc; i-- > 0 && !library;) library = try_open(w, found.gl_pathv[i]);
    globfree(&found);
    return library;
}

static void *try_prefix(const wanted *w, const char *variable, const char *below) {
    const char *prefix = moec_setting(variable);
    char pattern[1024];
    if (!prefix) return NULL;
    snprintf(pattern, sizeof pattern, "%s%s/lib/python3*/site-packages/nvidia/*/lib", prefix, below);
    return try_folders(w, pattern);
}

void *moec_toolkit_open(const char *name, const char *variable, const char *needs) {
    const wanted w = {name, needs};
    const char *wish = moec_setting(variable);
    char soname[64];
    void *library = NULL;
    if (wish) return try_open(&w, wish);
    for (size_t i = 0; i < sizeof versions / sizeof *versions && !library; i++) {
        snprintf(soname, sizeof soname, "lib%s.so%s", name, versions[i]);
        library = try_open(&w, soname);
    }
    for (size_t i = 0; i < sizeof folders / sizeof *folders && !library; i++)
        library = try_folders(&w, folders[i]);
    for (size_t i = 0; i < sizeof prefixes / sizeof *prefixes && !library; i++)
        library = try_prefix(&w, prefixes[i].variable, prefixes[i].below);
    return library;
}

void moec_toolkit_file(void *function, char *path, size_t bytes) {
    Dl_info where;
    bool known = dladdr(function, &where) && where.dli_fname;
    snprintf(path, bytes, "%s", known ? where.dli_fname : "");
}
