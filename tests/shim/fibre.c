/* Fibres: a stack for each lane, and the switch between them. x86-64 under the System V ABI. */
#include <string.h>
#include <sys/mman.h>

#include "machine.h"

/* A lane's registers of the GPU lie here: kernels hold up to a few KiB of sums. Pages without access
 * between stacks turn an overflow into a fault. */
enum { STACK_BYTES = 256 * 1024, GUARD_BYTES = 4096, SLOT_BYTES = STACK_BYTES + GUARD_BYTES };
enum { STAGGER_BYTES = 320 }; /* so that the tops of a wave's stacks meet different sets of the cache */

/* Saves what a called function must keep, leaves through `leave`, and goes on at `enter`. */
__asm__(".text\n"
        ".globl fibre_switch\n"
        ".hidden fibre_switch\n"
        ".type fibre_switch, @function\n"
        "fibre_switch:\n"
        "    pushq %rbp\n    pushq %rbx\n    pushq %r12\n    pushq %r13\n    pushq %r14\n    pushq %r15\n"
        "    movq %rsp, (%rdi)\n"
        "    movq %rsi, %rsp\n"
        "    popq %r15\n    popq %r14\n    popq %r13\n    popq %r12\n    popq %rbx\n    popq %rbp\n"
        "    ret\n"
        ".size fibre_switch, . - fibre_switch\n");
enum { SAVED = 6 };

bool fibre_stacks_make(shim_machine *m) {
    size_t bytes = (size_t)SHIM_MOST_THREADS * SLOT_BYTES;
    char *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED) return false;
    for (int t = 0; t < SHIM_MOST_THREADS; t++) mprotect(p + (size_t)t * SLOT_BYTES, GUARD_BYTES, PROT_NONE);
    m->stacks = p;
    m->host.private_low = (unsigned long)p;
    m->host.private_bytes = bytes;
    return true;
}

void fibre_stacks_free(shim_machine *m) {
    if (m->stacks) munmap(m->stacks, (size_t)SHIM_MOST_THREADS * SLOT_BYTES);
}

/* The first switch pops six zeros and returns into shim_lane_begin, whose stack must then be 8 bytes
 * off a multiple of 16, as after a call. */
void fibre_prepare(shim_machine *m, int thread) {
    size_t stagger = (size_t)(thread % SHIM_LANES) * STAGGER_BYTES;
    void **top = (void **)(m->stacks + (size_t)(thread + 1) * SLOT_BYTES - stagger) - 1;
    void (*begin)(void) = shim_lane_begin;
    memcpy(--top, &begin, sizeof begin);
    for (int i = 0; i < SAVED; i++) *--top = NULL;
    m->lanes[thread].stack = top;
}

/* Six words in registers, eight doubles in registers, the other words on the stack in order: where the
 * ABI looks for them, whatever the order of types in the kernel's list. */
typedef void any_kernel(uint64_t, uint64_t, uint64_t, uint64_t, uint64_t, uint64_t, double, double, double, double,
                        double, double, double, double, uint64_t, uint64_t, uint64_t, uint64_t, uint64_t, uint64_t,
                        uint64_t, uint64_t, uint64_t, uint64_t, uint64_t, uint64_t, uint64_t, uint64_t, uint64_t,
                        uint64_t, uint64_t, uint64_t, uint64_t, uint64_t);

void fibre_call(void (*entry)(void), const shim_arg *args, int count) {
    uint64_t w[26] = {0};
    double d[8] = {0};
    int words = 0, doubles = 0;
    for (int i = 0; i < count; i++) {
        if (!args[i].is_double) w[words++] = args[i].as.word;
        else if (doubles < 8) d[doubles++] = args[i].as.real;
    }
    ((any_kernel *)entry)(w[0], w[1], w[2], w[3], w[4], w[5], d[0], d[1], d[2], d[3], d[4], d[5], d[6], d[7], w[6],
                          w[7], w[8], w[9], w[10], w[11], w[12], w[13], w[14], w[15], w[16], w[17], w[18], w[19],
                          w[20], w[21], w[22], w[23], w[24], w[25]);
}
