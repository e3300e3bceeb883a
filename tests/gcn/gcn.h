// An interpreter and checker for AMD CDNA code objects (gfx90a, gfx942): the whole interface.
//
// It runs the compiled binary itself on the CPU, one workgroup at a time, and reports what the
// hardware would not: a missing s_waitcnt, too few wait states after an MFMA, LDS races,
// accesses outside the caller's buffers, use of values nobody wrote, hangs. Results are those of
// the ISA manuals ("CDNA2" and "CDNA3" Instruction Set Architecture, AMD); speed, the order
// of workgroups against each other and cache scopes are not modelled.
//
// Every object is independent of every other: use one per thread. Nothing here prints or exits.
#ifndef GCN_H
#define GCN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef enum gcn_status {
    GCN_OK = 0,
    GCN_E_NOMEM,   // allocation failed
    GCN_E_OBJECT,  // not a code object, truncated, or metadata inconsistent
    GCN_E_ARCH,    // a code object for another machine
    GCN_E_LLVM,    // libLLVM with the AMDGPU disassembler not found
    GCN_E_UNKNOWN, // an instruction the interpreter does not know: listed in the message
    GCN_E_KERNEL,  // no such kernel
    GCN_E_ARGS     // launch parameters make no sense for this kernel
} gcn_status;

// What a finding is about. Every kind is an error in the program under test.
typedef enum gcn_kind {
    GCN_WAIT_VM,       // register touched while a vector memory operation is outstanding
    GCN_WAIT_LGKM,     // register touched while an LDS or scalar memory operation is outstanding
    GCN_WAIT_STATES,   // too few wait states (s_nop) between two dependent instructions
    GCN_LDS_RACE,      // two waves touch the same LDS byte, one writes, no barrier between
    GCN_LDS_BOUNDS,    // LDS access past the allocation
    GCN_GLOBAL_BOUNDS, // access outside every registered buffer
    GCN_READ_ONLY,     // store to a buffer registered as read-only
    GCN_MISALIGNED,    // address not a multiple of the element size (at most 4)
    GCN_UNDEFINED,     // a value nobody wrote reaches an address, a store or a branch
    GCN_HANG,          // instruction budget used up
    GCN_BARRIER,       // barrier reached by part of the workgroup, or by part of a wave's lanes
    GCN_REGISTER,      // register outside the kernel's allocation
    GCN_STATIC,        // level 0: what the code object says differs from what was expected
    GCN_NKINDS
} gcn_kind;

typedef struct gcn_finding {
    gcn_kind kind;
    uint64_t address;  // of the instruction, in the code object; 0 for GCN_STATIC
    uint64_t count;    // how often this (kind, address) was seen
    char text[128];    // the instruction
    char detail[192];  // first occurrence: operands, addresses, the other party
    uint32_t group[3]; // first occurrence: workgroup id
    int wave, lane;    // first occurrence; -1 where it has no meaning
} gcn_finding;

typedef struct gcn_findings {
    gcn_finding *item;
    size_t count, room;
} gcn_findings;

// Level 0: what metadata, kernel descriptor and disassembly say about one kernel.
typedef struct gcn_mnemonic {
    char name[40];
    uint32_t count; // static occurrences
} gcn_mnemonic;

typedef struct gcn_report {
    char name[128];
    char target[32];               // "gfx90a", "gfx942"
    uint32_t vgpr_count;           // architectural + accumulation registers, per lane
    uint32_t agpr_count;           // accumulation registers alone
    uint32_t sgpr_count;
    uint32_t vgpr_spills, sgpr_spills;
    uint32_t scratch_bytes;        // per lane
    uint32_t lds_bytes;            // per workgroup, static part
    uint32_t kernarg_bytes;
    uint32_t max_workgroup;        // work-items
    uint32_t wavefront_size;
    uint32_t instructions;
    uint32_t mfma, mfma_half_rate; // half rate: the bf16 forms that are not _1k, on gfx90a
    uint32_t barriers, waitcnts;
    uint32_t lds_reads_b128, flat_accesses, scratch_accesses, accvgpr_moves;
    uint32_t waves_per_simd;       // occupancy the registers alone allow, 1..8
    // What the descriptor allocates, and what the instructions name: the highest register plus one,
    // and the byte past the furthest that a constant LDS offset reaches.
    uint32_t vgpr_alloc, agpr_alloc, vgpr_named, agpr_named, sgpr_named, lds_named;
    gcn_mnemonic *mnemonic;        // sorted by name
    size_t nmnemonic;
} gcn_report;

// Declared numbers to hold a kernel to. Zero or NULL fields are not checked. Always checked is that
// metadata, descriptor and instructions agree: no register is named that was not allocated, none is
// allocated that the metadata does not count, no LDS offset lies past the allocation.
typedef struct gcn_expect {
    const char *mfma;           // the only MFMA mnemonic allowed
    uint32_t mfma_count;        // static occurrences
    uint32_t mfma_each;         // ... are a multiple of it: those of one turn of the main loop
    uint32_t max_vgprs, max_agprs, lds_bytes, kernarg_bytes, workgroup;
    uint32_t waves_per_simd;    // occupancy by registers, exactly
    uint32_t least_waves;       // of a SIMD that registers and LDS must leave room for
    uint32_t dynamic_lds;       // bytes on top of the static allocation
    bool allow_scratch, allow_flat;
} gcn_expect;

// A range of memory the kernel may touch. `va` is its device address. With 0, kernel arguments hold
// host pointers: those the metadata calls buffers are given addresses far apart, so that running
// off one buffer cannot land in the next; host addresses found elsewhere (in memory, in structs)
// work as they are.
typedef struct gcn_buffer {
    void *host;
    uint64_t va;
    size_t bytes;
    bool writable;
    const char *name; // for messages; may be NULL
} gcn_buffer;

// What a run does, step by step, for those who judge it on their own. Any of them may be NULL.
typedef enum gcn_access { GCN_READ, GCN_WRITE, GCN_ATOMIC } gcn_access;
typedef struct gcn_trace {
    void *user;
    void (*begin)(void *user); // a launch begins
    // Called before each instruction. `wave` counts within the workgroup.
    void (*step)(void *user, const uint32_t group[3], int wave, uint64_t address);
    // Called for each access of a lane that the instruction makes: to LDS, where `at` counts bytes of
    // the workgroup's part, or to the buffers.
    void (*touch)(void *user, bool lds, uint64_t at, uint32_t bytes, gcn_access how);
} gcn_trace;

typedef struct gcn_launch {
    const char *kernel;
    uint32_t grid[3];          // workgroups; 0 counts as 1
    uint32_t block[3];         // work-items of a workgroup; 0 counts as 1
    const void *kernarg;       // explicit arguments; hidden ones are filled in here
    size_t kernarg_bytes;
    const gcn_buffer *buffer;
    size_t nbuffer;
    uint32_t dynamic_lds;      // bytes on top of the static allocation
    uint64_t max_instructions; // per workgroup, all waves; 0 means 100 million
    uint32_t seed;             // order of waves; 0 means ascending
    const gcn_trace *trace;    // may be NULL
} gcn_launch;

typedef struct gcn_result {
    gcn_findings findings;
    uint64_t instructions; // wave-instructions executed
    uint64_t mfma;         // of these, MFMA
    uint64_t flushed;      // subnormal MFMA inputs and results flushed to zero (gfx90a)
    uint64_t lds_clocks;   // of LDS for accesses of 8 and 16 bytes a lane, by the model in banks.c
    uint64_t lds_least;    // ... the same without bank conflicts
} gcn_result;

typedef struct gcn_object gcn_object;

// Loads and decodes a raw code object (ELF). The bytes are copied. On failure *out is NULL and
// `message`, where given, explains: for GCN_E_UNKNOWN it lists every unknown mnemonic.
gcn_status gcn_open(const void *elf, size_t bytes, gcn_object **out, char *message, size_t room);
void gcn_close(gcn_object *object);

size_t gcn_kernel_count(const gcn_object *object);
// The static report of kernel `i`, or of the one called `name`; NULL when there is none. Owned
// by the object.
const gcn_report *gcn_kernel_report(const gcn_object *object, size_t i);
const gcn_report *gcn_find_kernel(const gcn_object *object, const char *name);

// Workgroups of `work_items` that fit on a compute unit at once, from registers, LDS and slots.
uint32_t gcn_groups_per_cu(const gcn_report *report, uint32_t work_items, uint32_t dynamic_lds);

// Appends one GCN_STATIC finding per difference. Returns GCN_OK also when there are findings.
gcn_status gcn_check_static(const gcn_report *report, const gcn_expect *expect,
                            gcn_findings *findings);

// Runs a kernel to its end, or to the first finding after which running on has no meaning (hang,
// register outside the allocation). `result` is overwritten; free it with gcn_result_free.
// `message` explains a status other than GCN_OK.
gcn_status gcn_run(gcn_object *object, const gcn_launch *launch, gcn_result *result,
                   char *message, size_t room);
void gcn_result_free(gcn_result *result);
void gcn_findings_free(gcn_findings *findings);
const char *gcn_kind_name(gcn_kind kind);

// The text of instruction `i` in ascending address order, for tests that mutate code; NULL past
// the end. `file_offset` locates it in the bytes given to gcn_open.
const char *gcn_instruction(const gcn_object *object, size_t i, uint64_t *address,
                            size_t *file_offset, size_t *bytes);

#endif
