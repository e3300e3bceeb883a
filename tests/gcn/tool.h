// For the tests: turns assembly or HIP text into a code object with clang 19, and wraps snippets of
// assembly into kernels.
#ifndef GCN_TOOL_H
#define GCN_TOOL_H

#include "gcn.h"

// Compiles `text` for "gfx90a" or "gfx942"; `hip` chooses the language. The bytes are the
// caller's to free. NULL when clang is missing or fails: *why says which.
void *tool_compile(const char *text, bool hip, const char *arch, size_t *bytes, char *why,
                   size_t room);
bool tool_missing(void); // no clang 19 on this machine

// A growing string.
struct text {
    char *s;
    size_t n, room;
};
void text_add(struct text *t, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void text_free(struct text *t);

// One kernel of an assembly file: begin, add instructions, end; then tool_asm_finish once.
// Kernel argument pointer is in s[0:1], workgroup id in s2; 128 + 128 vector registers and
// `lds` bytes of LDS are allocated; 24 bytes of arguments.
void asm_begin(struct text *t, const char *arch);
void asm_kernel(struct text *t, const char *name);
void asm_kernel_end(struct text *t, const char *name);
void asm_finish(struct text *t, const char *const *names, size_t n, unsigned lds);
#endif
