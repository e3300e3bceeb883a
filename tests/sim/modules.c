/* Modules of the stand-in driver that run: an image is a library for this CPU (nvrtc.c), with its length. */
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "machine.h"

enum { LAUNCH_CLUSTER = 4 };
typedef struct launch_attribute { int id, pad; unsigned value[16]; } launch_attribute;
typedef struct launch_config {
    unsigned grid[3], block[3], shared_bytes;
    void *stream;
    const launch_attribute *attributes;
    unsigned attribute_count;
} launch_config;

int cuModuleLoadData(void **module, const void *image);
int cuModuleUnload(void *module);
int cuModuleGetFunction(void **function, void *module, const char *name);
int cuLaunchKernelEx(const launch_config *config, void *function, void **params, void **extra);

int cuModuleLoadData(void **module, const void *image) {
    char path[] = "/tmp/moec-sim.XXXXXX";
    size_t bytes;
    memcpy(&bytes, image, sizeof bytes);
    int file = mkstemp(path);
    bool written = file >= 0 && write(file, (const char *)image + sizeof bytes, bytes) == (ssize_t)bytes;
    if (file >= 0) close(file);
    *module = written ? dlopen(path, RTLD_NOW | RTLD_LOCAL) : NULL;
    unlink(path);
    struct sim_host **host = *module ? dlsym(*module, "sim") : NULL;
    if (!host) return 200; /* CUDA_ERROR_INVALID_IMAGE */
    *host = &sim_machine;
    return 0;
}

int cuModuleUnload(void *module) { return dlclose(module) ? 1 : 0; }

int cuModuleGetFunction(void **function, void *module, const char *name) {
    char entry[300];
    snprintf(entry, sizeof entry, "%s_run", name);
    *function = dlsym(module, entry);
    return *function ? 0 : 500; /* CUDA_ERROR_NOT_FOUND */
}

int cuLaunchKernelEx(const launch_config *config, void *function, void **params, void **extra) {
    void (*entry)(void **);
    memcpy(&entry, &function, sizeof entry);
    (void)extra;
    int cluster = 1;
    for (unsigned i = 0; i < config->attribute_count; i++)
        if (config->attributes[i].id == LAUNCH_CLUSTER) cluster = (int)config->attributes[i].value[0];
    return sim_run(entry, params, config->grid[0], cluster, (int)config->block[0], config->shared_bytes) ? 0 : 700;
}
