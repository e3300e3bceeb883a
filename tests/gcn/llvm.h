// The one place that touches LLVM: its C API disassembler, opened at run time.
#ifndef GCN_LLVM_H
#define GCN_LLVM_H
#include "isa.h"

struct disassembler {
    void *context;
    size_t (*instruction)(void *context, u8 *bytes, u64 size, u64 pc, char *out, size_t room);
    void (*dispose)(void *context);
};
// Returns false, with a message, when no libLLVM with the AMDGPU target can be opened.
bool llvm_open(struct disassembler *d, const char *cpu, char *msg, size_t room);
void llvm_close(struct disassembler *d);
#endif
