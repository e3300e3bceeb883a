// Opens libLLVM and its AMDGPU disassembler. The library stays open: unloading LLVM is not safe.
#include "llvm.h"

#include <dlfcn.h>
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

bool llvm_open(struct disassembler *d, const char *cpu, char *msg, size_t room)
{
    memset(d, 0, sizeof *d);
    void *lib = NULL;
    for (size_t i = 0; i < sizeof libraries / sizeof *libraries && !lib; i++)
        lib = dlopen(libraries[i], RTLD_NOW | RTLD_LOCAL);
    if (!lib) {
        if (msg)
            snprintf(msg, room, "libLLVM 19 not found (looked for %s): install llvm-19",
                     libraries[0]);
        return false;
    }
    void (*target)(void), (*info)(void), (*mc)(void), (*dis)(void);
    void *(*create)(const char *, const char *, const char *, void *, int, void *, void *);
    if (!symbol(lib, "LLVMInitializeAMDGPUTargetInfo", &info) ||
        !symbol(lib, "LLVMInitializeAMDGPUTarget", &target) ||
        !symbol(lib, "LLVMInitializeAMDGPUTargetMC", &mc) ||
        !symbol(lib, "LLVMInitializeAMDGPUDisassembler", &dis) ||
        !symbol(lib, "LLVMCreateDisasmCPUFeatures", &create) ||
        !symbol(lib, "LLVMDisasmInstruction", &d->instruction) ||
        !symbol(lib, "LLVMDisasmDispose", &d->dispose)) {
        if (msg)
            snprintf(msg, room, "this libLLVM has no AMDGPU disassembler");
        return false;
    }
    info();
    target();
    mc();
    dis();
    d->context = create("amdgcn-amd-amdhsa", cpu, "", NULL, 0, NULL, NULL);
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
