// Opens libLLVM and its AMDGPU disassembler. The library stays open: unloading LLVM is not safe.
#include "llvm.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

static const char *const libraries[] = {
    "libLLVM-19.so", "libLLVM-19.so.1", "libLLVM.so.19.1", "libLLVM-20.so", "libLLVM.so.20.1",
};

// Data pointers from dlsym become function pointers by copying, as POSIX asks.
static bool symbol(void *lib, const char *name, void *out)
{
    void *p = dlsym(lib, name);
    memcpy(out, &p, sizeof p);
    return p != NULL;
}

// Found once for the whole process: registering a target is not safe from several threads.
static pthread_once_t once = PTHREAD_ONCE_INIT;
static struct {
    const char *why; // not NULL: what is missing
    void *(*create)(const char *, const char *, const char *, void *, int, void *, void *);
    struct disassembler d;
} llvm;

static void find(void)
{
    void *lib = NULL;
    void (*target)(void), (*info)(void), (*mc)(void), (*dis)(void);
    for (size_t i = 0; i < sizeof libraries / sizeof *libraries && !lib; i++)
        lib = dlopen(libraries[i], RTLD_NOW | RTLD_LOCAL);
    if (!lib) {
        llvm.why = "libLLVM 19 not found: install llvm-19 (libLLVM-19.so)";
        return;
    }
    if (!symbol(lib, "LLVMInitializeAMDGPUTargetInfo", &info) ||
        !symbol(lib, "LLVMInitializeAMDGPUTarget", &target) ||
        !symbol(lib, "LLVMInitializeAMDGPUTargetMC", &mc) ||
        !symbol(lib, "LLVMInitializeAMDGPUDisassembler", &dis) ||
        !symbol(lib, "LLVMCreateDisasmCPUFeatures", &llvm.create) ||
        !symbol(lib, "LLVMDisasmInstruction", &llvm.d.instruction) ||
        !symbol(lib, "LLVMDisasmDispose", &llvm.d.dispose)) {
        llvm.why = "this libLLVM has no AMDGPU disassembler";
        return;
    }
    info();
    target();
    mc();
    dis();
}

bool llvm_open(struct disassembler *d, const char *cpu, char *msg, size_t room)
{
    pthread_once(&once, find);
    *d = llvm.d;
    if (llvm.why) {
        if (msg)
            snprintf(msg, room, "%s", llvm.why);
        return false;
    }
    d->context = llvm.create("amdgcn-amd-amdhsa", cpu, "", NULL, 0, NULL, NULL);
    if (!d->context && msg)
        snprintf(msg, room, "libLLVM does not know %s", cpu);
    return d->context != NULL;
}

void llvm_close(struct disassembler *d)
{
    if (d->context)
        d->dispose(d->context);
    d->context = NULL;
}
