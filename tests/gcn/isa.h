// Inside the interpreter: decoded instructions, the state of a wave and of a workgroup.
//
// One numbering for all registers: scalar 0..127 (vcc 106, m0 124, exec 126), vector from REG_V,
// accumulation from REG_A. A vector register is a row of 64 lanes of 32 bits, so that operations
// are loops over 64 array elements, which the compiler turns into vector code.
//
// Definedness: every bit of every register has a shadow, set while nobody has defined it. For a
// vector row `vu` summarises it (one bit per lane, set when any bit of that lane is undefined);
// `vub` holds the bits and is only meaningful where `vu` says so. In the usual case `vu` is 0
// and costs one OR per source.
#ifndef GCN_ISA_H
#define GCN_ISA_H

#include "gcn.h"

typedef uint8_t u8;
typedef uint16_t u16;
typedef uint32_t u32;
typedef uint64_t u64;
typedef int32_t i32;
typedef int64_t i64;

enum { LANES = 64, MAX_WAVES = 16, LDS_MAX = 65536 };
enum {
    REG_FLAT_SCRATCH = 102, REG_VCC = 106, REG_M0 = 124, REG_EXEC = 126,
    REG_V = 256, REG_A = 512, REG_END = 768
};
enum { VM_MAX = 63, LGKM_MAX = 15 };

// Apertures of the flat address space: the high half decides where an address points.
#define SHARED_APERTURE 0x0001000000000000ull
#define PRIVATE_APERTURE 0x0002000000000000ull

enum arch { ARCH_GFX90A, ARCH_GFX942, NARCH };

// Element types of sources and results: width for modifiers, constants and definedness.
enum type { T_B32, T_F32, T_B16, T_F16, T_B64, T_F64 };

// How undefined bits travel through a lane function. U_MOVE + a mask of data operands: the
// function only moves bits of those, so applying it to their shadows gives the result's shadow.
// U_CARRY: sums and products, where a bit depends on the bits at and below its place.
enum undef { U_ANY, U_AND, U_OR, U_BITS, U_AND_OR, U_CARRY, U_MOVE = 8 };

enum op_flag {
    OF_TRANS = 1,     // transcendental unit
    OF_DOT = 2,       // dot product
    OF_VCC_IN = 4,    // reads vcc without naming it
    OF_HALF_DST = 8,  // 16-bit result that keeps the other half of the destination
    OF_VALU = 16,     // vector ALU, MFMA included
    OF_MFMA = 32,
    OF_EXEC_OUT = 64, // writes exec without naming it
    OF_SALU = 128,
    OF_INT_CLAMP = 256, // saturates when `clamp` is given
    OF_INT_LAST = 512 // the last source of a float operation is an integer
};

struct wave;
struct inst;
typedef void exec_fn(struct wave *w, const struct inst *in);
typedef void any_fn(void);
typedef void lane_fn(u32 *restrict d, const u32 *a, const u32 *b, const u32 *c);
typedef void lane64_fn(u64 *restrict d, const u64 *a, const u64 *b, const u64 *c);

// Shape of an MFMA: D[M][N] += A[M][K] B[K][N], `blocks` times, `passes` of 4 cycles per arch.
struct mfma_shape {
    u8 m, n, k, blocks, passes[NARCH];
    bool xdl; // runs on the matrix unit proper: other wait states on gfx942
};

struct op {
    const char *name; // mnemonic without _e32/_e64/_dpp/_sdwa
    // One letter per operand in text order: d result, x result that is also read, s source,
    // i immediate taken from the encoding.
    const char *sig;
    exec_fn *exec;
    any_fn *fn; // lane, compare or scalar function; its real type belongs to `exec`
    u8 type, dtype, undef;
    u16 flags;
    u32 param;
    const struct mfma_shape *mfma;
};

enum operand_kind { O_NONE, O_REG, O_CONST, O_OFF };
struct operand {
    u8 kind, n; // n: dwords
    u16 reg;
    bool neg, abs;
    u64 value;
};

struct regs {
    u16 reg;
    u8 n;
};

// Memory instructions: where, what, how wide.
enum space { SP_GLOBAL, SP_FLAT, SP_SCRATCH, SP_BUFFER, SP_LDS };
enum atomic {
    AT_ADD, AT_SUB, AT_RSUB, AT_SMIN, AT_UMIN, AT_SMAX, AT_UMAX, AT_AND, AT_OR, AT_XOR, AT_INC,
    AT_DEC, AT_SWAP, AT_CMPSWAP, AT_FADD, AT_FMIN, AT_FMAX, AT_PK_ADD_F16, AT_PK_ADD_BF16
};
enum action { MEM_LOAD, MEM_STORE, MEM_ATOMIC, MEM_LDS_DMA, MEM_CACHE };
struct mem {
    u8 space, action;
    u8 bytes;          // of one element: 1, 2, 4, 8, 12, 16
    bool sext;         // loads of 1 or 2 bytes
    bool d16, hi;      // 16-bit half of the register
    bool ret;          // atomic that returns the old value
    u16 stride;        // ds_read2/write2: bytes per unit of offset0 and offset1; else 0
    u8 atomic;         // enum atomic
    i32 offset;        // bytes (buffer, flat, ds)
    u8 offset0, offset1;
    bool offen, idxen;
    struct operand data, data2, addr, base, soffset, dst;
};

struct inst {
    u32 address, bytes, word[2];
    const struct op *op;
    struct operand o[6];
    u8 no, nd; // operands, of which the first nd are results
    u8 op_sel, op_sel_hi, neg_lo, neg_hi, omod;
    bool clamp, dpp, sdwa;
    u8 nrd, nwr, ndata;       // the first ndata reads are store data
    struct regs rd[10], wr[5];
    struct mem mem;
    char text[120];
};

// One outstanding memory operation.
struct pending {
    const struct inst *in;
    struct regs wr[2];
    u8 nwr;
    bool smem, flat, lds_read, lds_write;
    // LDS bytes it touches, for accesses that outlive a barrier.
    u64 lanes;
    u8 lds_bytes;
    u8 nspan;
    u32 lds_addr[2][LANES];
};

struct fifo {
    struct pending *item; // room for VM_MAX or LGKM_MAX entries, oldest first
    int count, nsmem, nflat;
};

// Times are in wait states; 0 is "long ago" since the clock starts at 64.
struct times {
    u32 valu[REG_END];  // last write by a vector ALU instruction that is not an MFMA
    u32 trans[REG_END]; // ... by the transcendental unit
    u32 half[REG_END];  // ... of one half of a register
    u32 dot[REG_END];   // ... by a dot product
    u32 mfma[REG_END];  // last write by an MFMA
    u32 mfma_c[REG_END]; // last read by an MFMA as its addend
    u32 wide_store[REG_END]; // last read as data of a store of more than 8 bytes
    const struct inst *mfma_by[REG_END], *mfma_c_by[REG_END], *dot_by[REG_END];
    u32 last_mfma, last_dgemm, last_salu_m0, last_setreg;
};

struct group;
enum wave_state { W_RUN, W_BARRIER, W_END };
struct wave {
    u32 v[512][LANES];
    u32 vub[512][LANES];
    u64 vu[512];
    u32 s[128], su[128];
    u32 scc, scc_u;
    u32 lane[LANES];  // all ones where exec is set
    u64 lane_exec;    // the exec `lane` was made for
    u64 write;        // lanes the current instruction writes: exec less what DPP masks off
    u64 first_exec;
    u32 mode;
    u32 indexed;      // s_set_gpr_idx: bits 0-2 sources, bit 3 result; the offset is in m0
    u32 pc;           // index of the instruction
    u32 next;         // where to go after the current instruction
    int state, id;
    const struct inst *barrier_at;
    struct fifo vm, lgkm;
    u8 busy_vm[REG_END], busy_lgkm[REG_END];
    u32 clock;
    struct times *t;
    u8 *scratch;      // [lane][scratch_bytes]
    struct group *g;
};

struct kernel {
    gcn_report report;
    u64 descriptor, entry; // addresses in the object
    u32 first, last;       // instructions of the function
    u32 rsrc1, rsrc2, rsrc3, properties;
    u32 accum_offset, vgprs, agprs, sgprs; // allocation
    struct hidden {
        u16 offset, size, kind;
    } hidden[24];
    u32 nhidden;
    u16 pointer[32]; // offsets of arguments that are buffers
    u32 npointer;
};

struct gcn_object {
    enum arch arch;
    u8 *image; // loadable segments, by address
    u64 image_bytes;
    u8 *elf;
    size_t elf_bytes;
    struct kernel *kernel;
    size_t nkernel;
    struct inst *inst;
    size_t ninst;
    u32 *inst_at; // address / 4 -> index + 1
    u64 text_lo, text_hi;
    size_t text_offset; // file offset of text_lo
};

struct lds_tag { // epoch << 8 | wave, or 0xff for several waves
    u32 wr[LDS_MAX], rd[LDS_MAX], at[LDS_MAX];
};

struct group {
    gcn_object *obj;
    const struct kernel *k;
    const gcn_launch *launch;
    gcn_result *result;
    u32 id[3];
    int nwaves;
    struct wave *wave;
    u8 *lds, *lds_undef;
    u32 lds_bytes;
    struct lds_tag *tag;
    u32 epoch;
    gcn_buffer *buffer; // the caller's, kernarg, the image, the dispatch packet
    size_t nbuffer;
    const gcn_buffer *last_buffer;
    u64 kernarg_va, dispatch_va;
    u32 scratch_bytes;
    u64 budget;
    const struct inst *at;
    struct wave *running;
    bool stop, oom;
};

// object.c
gcn_status object_load(gcn_object *o, const void *elf, size_t bytes, char *msg, size_t room);
// note.c: fills one kernel per entry of amdhsa.kernels.
gcn_status note_read(gcn_object *o, const u8 *note, size_t bytes, char *msg, size_t room);
// decode.c
gcn_status decode_text(gcn_object *o, char *msg, size_t room);
// mem_decode.c: fills in->mem and the register lists; false when the form is not known.
bool mem_decode(struct inst *in, const char *mods);
const struct op *mem_op(const char *name);
// ops.c
const struct op *op_find(const char *name);

// report.c
gcn_status report_kernels(gcn_object *o);

// check.c
void report(struct wave *w, gcn_kind kind, int lane, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));
gcn_status findings_add(gcn_findings *f, const gcn_finding *x);
void check_registers(struct wave *w, const struct inst *in);
void check_pending(struct wave *w, const struct inst *in);
struct pending *pend_vm(struct wave *w, const struct inst *in);
struct pending *pend_lgkm(struct wave *w, const struct inst *in);
void pend_writes(struct wave *w, struct pending *p, struct operand dst, bool vm);
void wait_vm(struct wave *w, int count);
void wait_lgkm(struct wave *w, int count);
void lds_touch(struct wave *w, u32 at, u32 bytes, int how, int lane);
void global_touch(struct wave *w, u64 va, u32 bytes, int how, int lane);
void lds_carry_over(struct group *g);
void bank_clocks(const u32 *addr, u64 lanes, u32 bytes, bool load, u64 *clocks, u64 *least);
u64 need_defined(struct wave *w, const struct operand *o, u64 lanes, const char *what);
enum { LDS_READ = GCN_READ, LDS_WRITE = GCN_WRITE, LDS_ATOMIC = GCN_ATOMIC };
// hazard.c
void check_wait_states(struct wave *w, const struct inst *in);
void note_wait_states(struct wave *w, const struct inst *in);

// valu.c, valu_special.c, lane.c, mfma.c, salu.c, smem.c, vmem.c, lds.c
exec_fn x_v, x_w, x_cmp, x_pk16, x_pk32, x_pk_mov, x_cndmask, x_carry, x_div_scale, x_div_fmas,
    x_mad64, x_mix, x_swap, x_readlane, x_readfirstlane, x_writelane, x_mfma, x_acc, x_salu,
    x_saveexec, x_sopc, x_sopk, x_branch, x_sopp, x_getpc, x_setpc, x_getreg, x_setreg, x_smem,
    x_sbuffer, x_vmem, x_ds, x_ds_lane, x_cselect, x_mbcnt, x_nop, x_dot2, x_memtime,
    x_gpr_index;
struct value {
    const u32 *x, *ub;
    u64 un;
};
struct value src32(struct wave *w, const struct inst *in, int i, int part, u32 *tmp, u32 *utmp);
void flush_words(u32 *r);
enum { MODE_F32_DENORM = 0x30 }; // subnormal single precision is kept

// memory.c
u64 atomic_result(u8 kind, u8 bytes, u64 old, u64 x, u64 compare);
u8 *global_at(struct wave *w, u64 va, u32 bytes, bool write, int lane);
void load_lane(struct wave *w, const struct mem *m, u32 row, int lane, const u8 *from,
               const u8 *undef);
u32 store_lane(const struct wave *w, const struct mem *m, u32 row, int lane, u8 *to, u8 *undef);
void put32(struct wave *w, const struct inst *in, u32 row, const u32 *r, u64 un, const u32 *ub);

static inline u64 s64(const struct wave *w, int r)
{
    return w->s[r] | (u64)w->s[r + 1] << 32;
}
static inline void set_s64(struct wave *w, int r, u64 x)
{
    w->s[r] = (u32)x;
    w->s[r + 1] = (u32)(x >> 32);
}
static inline u64 exec_of(const struct wave *w)
{
    return s64(w, REG_EXEC);
}
static inline float as_f32(u32 u)
{
    union { u32 u; float f; } x = {u};
    return x.f;
}
static inline u32 as_u32(float f)
{
    union { float f; u32 u; } x = {f};
    return x.u;
}
static inline double as_f64(u64 u)
{
    union { u64 u; double f; } x = {u};
    return x.f;
}
static inline u64 as_u64(double f)
{
    union { double f; u64 u; } x = {f};
    return x.u;
}
static inline bool is_vector(const struct operand *o)
{
    return o->kind == O_REG && o->reg >= REG_V;
}

// The lowest set bit and all above it.
static inline u64 from_lowest(u64 x)
{
    return x | (0 - x);
}

// Half precision by integer steps: exact on the way up, round to nearest even on the way down.
static inline float half_up(u32 h)
{
    u32 sign = (h & 0x8000u) << 16, e = h >> 10 & 31, m = h & 0x3ff;
    if (e == 31)
        return as_f32(sign | 0x7f800000u | m << 13);
    if (e)
        return as_f32(sign | (e + 112) << 23 | m << 13);
    float f = (float)m * 0x1p-24f;
    return as_f32(as_u32(f) | sign);
}
static inline u32 half_down(float f)
{
    u32 u = as_u32(f), sign = u >> 16 & 0x8000u, a = u & 0x7fffffffu;
    if (a > 0x7f800000u)
        return sign | 0x7e00u | (a >> 13 & 0x3ff);
    if (a >= 0x477ff000u) // 65520 and up round to infinity
        return sign | 0x7c00u;
    if (a < 0x38800000u) { // below 2^-14: adding 0.5 leaves the subnormal in the low bits
        float t = as_f32(a) + 0.5f;
        return sign | (as_u32(t) - 0x3f000000u);
    }
    return sign | ((a - 0x38000000u + 0xfffu + (a >> 13 & 1)) >> 13);
}
#endif
