/* prelude: a host meaning for every word of emitted HIP text. Included in front of it by the compiler;
 * the text itself stays as it is.
 *
 * Attributes become their host twins or nothing; builtins become calls of the machine (abi.h); loads
 * and stores arrive through the callbacks that clang's address sanitizer inserts, so that each is
 * checked before it happens. A builtin that is not here does not compile: nothing is silently other
 * than on the GPU. */

/* ---- attributes ---- */

/* __attribute__((shared)): one static variable for all lanes, in a section of its own. */
#define shared )) static __attribute__((section("shim_lds")
#define amdgpu_flat_work_group_size(low, high) used
#define amdgpu_waves_per_eu(low, high) used

/* Instructions in asm that only take time. Any other one is an error of the assembler. */
__asm__(".macro s_nop count\n.endm\n"
        ".macro s_sleep count\n.endm\n"
        ".macro s_setprio level\n.endm\n"
        ".macro s_waitcnt counters:vararg\n.endm\n");

#define SHIM_PLAIN __attribute__((no_sanitize("kernel-address", "undefined"), noinline))

extern "C" {

static const shim_host *shim_now; /* the machine */

extern char __start_shim_lds[] __attribute__((weak, visibility("hidden")));
extern char __stop_shim_lds[] __attribute__((weak, visibility("hidden")));
extern char __ehdr_start[] __attribute__((visibility("hidden")));
extern char _end[] __attribute__((visibility("hidden")));

__attribute__((visibility("default"), used)) shim_image shim_image_of_kernel = {
    SHIM_ABI, __start_shim_lds, __stop_shim_lds, __ehdr_start, _end, &shim_now,
};

/* ---- every load and store ---- */

/* Registers of a lane that live on its stack are its own: not the machine's business. */
#define SHIM_WATCH(address, bytes, kind)                                                           \
    if (address - shim_now->private_low >= shim_now->private_bytes)                                \
        shim_now->access(address, bytes, kind, __builtin_return_address(0))

#define SHIM_SIZE(n)                                                                                     \
    SHIM_PLAIN void __asan_load##n##_noabort(unsigned long p) { SHIM_WATCH(p, n, SHIM_READ); }           \
    SHIM_PLAIN void __asan_store##n##_noabort(unsigned long p) { SHIM_WATCH(p, n, SHIM_WRITE); }
SHIM_SIZE(1)
SHIM_SIZE(2)
SHIM_SIZE(4)
SHIM_SIZE(8)
SHIM_SIZE(16)
#undef SHIM_SIZE

SHIM_PLAIN void __asan_loadN_noabort(unsigned long p, unsigned long n) { SHIM_WATCH(p, n, SHIM_READ); }
SHIM_PLAIN void __asan_storeN_noabort(unsigned long p, unsigned long n) { SHIM_WATCH(p, n, SHIM_WRITE); }

SHIM_PLAIN void *__asan_memset(void *to, int value, unsigned long n) {
    SHIM_WATCH((unsigned long)to, n, SHIM_WRITE);
    return __builtin_memset(to, value, n);
}
SHIM_PLAIN void *__asan_memcpy(void *to, const void *from, unsigned long n) {
    SHIM_WATCH((unsigned long)from, n, SHIM_READ);
    SHIM_WATCH((unsigned long)to, n, SHIM_WRITE);
    return __builtin_memcpy(to, from, n);
}
SHIM_PLAIN void *__asan_memmove(void *to, const void *from, unsigned long n) {
    SHIM_WATCH((unsigned long)from, n, SHIM_READ);
    SHIM_WATCH((unsigned long)to, n, SHIM_WRITE);
    return __builtin_memmove(to, from, n);
}
void __asan_handle_no_return(void) {}

/* ---- what C++ leaves undefined ---- */

#define SHIM_UNDEFINED(name, what, ...) \
    __attribute__((noreturn)) SHIM_PLAIN void __ubsan_handle_##name##_abort(__VA_ARGS__) {         \
        shim_now->fault(what, __builtin_return_address(0));                                        \
        __builtin_unreachable();                                                                   \
    }
SHIM_UNDEFINED(out_of_bounds, "an index past the end of an array", void *, unsigned long)
SHIM_UNDEFINED(type_mismatch_v1, "an address that is not a multiple of what its type needs", void *, unsigned long)
SHIM_UNDEFINED(shift_out_of_bounds, "a shift by more bits than there are", void *, unsigned long, unsigned long)
SHIM_UNDEFINED(divrem_overflow, "a division by zero", void *, unsigned long, unsigned long)
SHIM_UNDEFINED(add_overflow, "a sum of integers overflows", void *, unsigned long, unsigned long)
SHIM_UNDEFINED(sub_overflow, "a difference of integers overflows", void *, unsigned long, unsigned long)
SHIM_UNDEFINED(mul_overflow, "a product of integers overflows", void *, unsigned long, unsigned long)
SHIM_UNDEFINED(negate_overflow, "a negated integer overflows", void *, unsigned long)
#undef SHIM_UNDEFINED

/* ---- ids ---- */

#define SHIM_ID(name, value) \
    __attribute__((const)) SHIM_PLAIN static unsigned __builtin_amdgcn_##name() { return shim_now->value; }
SHIM_ID(workitem_id_x, thread[0])
SHIM_ID(workitem_id_y, thread[1])
SHIM_ID(workitem_id_z, thread[2])
SHIM_ID(workgroup_id_x, group[0])
SHIM_ID(workgroup_id_y, group[1])
SHIM_ID(workgroup_id_z, group[2])
#undef SHIM_ID

} /* extern "C" */

SHIM_PLAIN static unsigned __builtin_amdgcn_mbcnt_lo(unsigned mask, unsigned base) {
    unsigned lane = shim_now->thread[0] % SHIM_LANES;
    return base + (unsigned)__builtin_popcount(lane < 32 ? mask & ((1u << lane) - 1) : mask);
}
SHIM_PLAIN static unsigned __builtin_amdgcn_mbcnt_hi(unsigned mask, unsigned base) {
    unsigned lane = shim_now->thread[0] % SHIM_LANES;
    return base + (unsigned)(lane < 32 ? 0 : __builtin_popcount(mask & ((1u << (lane - 32)) - 1)));
}

/* Each byte of the choice names one of eight: 0 to 3 of the low word, 4 to 7 of the high one. */
SHIM_PLAIN static unsigned __builtin_amdgcn_perm(unsigned high, unsigned low, unsigned choice) {
    unsigned long both = (unsigned long)high << 32 | low;
    unsigned v = 0;
    for (int i = 0; i < 4; i++) {
        unsigned byte = choice >> 8 * i & 0xff;
        if (byte > 7) shim_now->fault("a byte of a sign or a constant is not modelled", __builtin_return_address(0));
        v |= (unsigned)(both >> 8 * byte & 0xff) << 8 * i;
    }
    return v;
}

/* ---- order ---- */

SHIM_PLAIN static void __builtin_amdgcn_fence(int order, const char *scope) {
    shim_now->fence(order, scope, __builtin_return_address(0));
}
SHIM_PLAIN static void __builtin_amdgcn_s_barrier() { shim_now->barrier(__builtin_return_address(0)); }

/* Hints for the scheduler of instructions, and waits, which the compiler sees to. */
#define SHIM_HINT(name) template <typename... P> static inline void __builtin_amdgcn_##name(P...) {}
SHIM_HINT(sched_barrier)
SHIM_HINT(sched_group_barrier)
SHIM_HINT(iglp_opt)
SHIM_HINT(s_setprio)
SHIM_HINT(s_sleep)
SHIM_HINT(s_waitcnt)
#undef SHIM_HINT

/* ---- between lanes ---- */

#define SHIM_MEET(...)                                                                             \
    shim_operands o = {__VA_ARGS__};                                                               \
    o.where = __builtin_return_address(0);                                                         \
    shim_now->meet(&o)

SHIM_PLAIN static void __builtin_amdgcn_wave_barrier() { SHIM_MEET(.op = SHIM_SYNC); }
SHIM_PLAIN static unsigned long long __builtin_amdgcn_ballot_w64(bool p) {
    SHIM_MEET(.op = SHIM_BALLOT, .a = p);
    return o.result;
}
SHIM_PLAIN static int __builtin_amdgcn_readlane(int v, int lane) {
    SHIM_MEET(.op = SHIM_READLANE, .a = (unsigned)v, .b = (unsigned)lane);
    return (int)o.result;
}
SHIM_PLAIN static int __builtin_amdgcn_readfirstlane(int v) {
    SHIM_MEET(.op = SHIM_READFIRSTLANE, .a = (unsigned)v);
    return (int)o.result;
}
SHIM_PLAIN static int __builtin_amdgcn_ds_bpermute(int address, int v) {
    SHIM_MEET(.op = SHIM_BPERMUTE, .a = (unsigned)v, .b = (unsigned)address);
    return (int)o.result;
}
SHIM_PLAIN static int __builtin_amdgcn_ds_permute(int address, int v) {
    SHIM_MEET(.op = SHIM_PERMUTE, .a = (unsigned)v, .b = (unsigned)address);
    return (int)o.result;
}
SHIM_PLAIN static int __builtin_amdgcn_ds_swizzle(int v, int pattern) {
    SHIM_MEET(.op = SHIM_SWIZZLE, .a = (unsigned)v, .b = (unsigned)pattern);
    return (int)o.result;
}
SHIM_PLAIN static int __builtin_amdgcn_update_dpp(int old, int v, int control, int rows, int banks, bool bound) {
    SHIM_MEET(.op = SHIM_DPP, .a = (unsigned)v, .b = (unsigned)control, .c = (unsigned)old,
              .row_mask = (unsigned)rows, .bank_mask = (unsigned)banks, .bound_ctrl = bound);
    return (int)o.result;
}
SHIM_PLAIN static int __builtin_amdgcn_mov_dpp(int v, int control, int rows, int banks, bool bound) {
    SHIM_MEET(.op = SHIM_DPP, .a = (unsigned)v, .b = (unsigned)control, .row_mask = (unsigned)rows,
              .bank_mask = (unsigned)banks, .bound_ctrl = bound);
    return (int)o.result;
}

/* ---- matrix units ---- */

typedef short shim_short4 __attribute__((ext_vector_type(4)));
typedef _Float16 shim_half4 __attribute__((ext_vector_type(4)));
typedef float shim_float4 __attribute__((ext_vector_type(4)));
typedef float shim_float16 __attribute__((ext_vector_type(16)));
typedef float shim_float32 __attribute__((ext_vector_type(32)));

#define SHIM_MATRIX(name, M, N, K, BLOCKS, kind, in, out)                                           \
    SHIM_PLAIN static out __builtin_amdgcn_mfma_##name(in a, in b, out c, int cbsz, int abid, int blgp) { \
        out d;                                                                                     \
        if (cbsz | abid | blgp) shim_now->fault("broadcast of matrix operands is not modelled", __builtin_return_address(0)); \
        SHIM_MEET(.op = SHIM_MFMA, .m = M, .n = N, .k = K, .blocks = BLOCKS, .element = kind, .A = &a, .B = &b,   \
                  .C = &c, .D = &d);                                                               \
        return d;                                                                                  \
    }
SHIM_MATRIX(f32_32x32x8bf16_1k, 32, 32, 8, 1, SHIM_BF16, shim_short4, shim_float16)
SHIM_MATRIX(f32_16x16x16bf16_1k, 16, 16, 16, 1, SHIM_BF16, shim_short4, shim_float4)
SHIM_MATRIX(f32_32x32x4bf16_1k, 32, 32, 4, 2, SHIM_BF16, shim_short4, shim_float32)
SHIM_MATRIX(f32_16x16x4bf16_1k, 16, 16, 4, 4, SHIM_BF16, shim_short4, shim_float16)
SHIM_MATRIX(f32_4x4x4bf16_1k, 4, 4, 4, 16, SHIM_BF16, shim_short4, shim_float4)
SHIM_MATRIX(f32_32x32x8f16, 32, 32, 8, 1, SHIM_F16, shim_half4, shim_float16)
SHIM_MATRIX(f32_16x16x16f16, 16, 16, 16, 1, SHIM_F16, shim_half4, shim_float4)
SHIM_MATRIX(f32_32x32x2f32, 32, 32, 2, 1, SHIM_F32, float, shim_float16)
SHIM_MATRIX(f32_16x16x4f32, 16, 16, 4, 1, SHIM_F32, float, shim_float4)
#undef SHIM_MATRIX

/* ---- atomics: one lane runs at a time, so the operation itself is plain ---- */

#define __HIP_MEMORY_SCOPE_SINGLETHREAD 1
#define __HIP_MEMORY_SCOPE_WAVEFRONT 2
#define __HIP_MEMORY_SCOPE_WORKGROUP 3
#define __HIP_MEMORY_SCOPE_AGENT 4
#define __HIP_MEMORY_SCOPE_SYSTEM 5

template <typename T> struct shim_same { typedef T type; };
#define SHIM_UPDATE(name, value)                                                                          \
    template <typename T> SHIM_PLAIN static T shim_##name(T *p, typename shim_same<T>::type v, int scope) {   \
        shim_now->access((unsigned long)p, sizeof *p, scope > 3 ? SHIM_ATOMIC_ALL : SHIM_ATOMIC,              \
                         __builtin_return_address(0));                                                    \
        T old = *p;                                                                                       \
        *p = value;                                                                                       \
        return old;                                                                                       \
    }
SHIM_UPDATE(add, old + v)
SHIM_UPDATE(and, old & v)
SHIM_UPDATE(or, old | v)
SHIM_UPDATE(xor, old ^ v)
SHIM_UPDATE(min, v < old ? v : old)
SHIM_UPDATE(max, v > old ? v : old)
SHIM_UPDATE(exchange, v)
SHIM_UPDATE(keep, old)
#undef SHIM_UPDATE
#define __hip_atomic_fetch_add(p, v, order, scope) shim_add(p, v, scope)
#define __hip_atomic_fetch_and(p, v, order, scope) shim_and(p, v, scope)
#define __hip_atomic_fetch_or(p, v, order, scope) shim_or(p, v, scope)
#define __hip_atomic_fetch_xor(p, v, order, scope) shim_xor(p, v, scope)
#define __hip_atomic_fetch_min(p, v, order, scope) shim_min(p, v, scope)
#define __hip_atomic_fetch_max(p, v, order, scope) shim_max(p, v, scope)
#define __hip_atomic_exchange(p, v, order, scope) shim_exchange(p, v, scope)
#define __hip_atomic_load(p, order, scope) shim_keep(p, *(p), scope)
#define __hip_atomic_store(p, v, order, scope) ((void)shim_exchange(p, v, scope))

/* ---- buffer resources: a load past the end gives 0, a store there is dropped ---- */

struct shim_buffer { char *base; unsigned bytes; };
#define __amdgpu_buffer_rsrc_t shim_buffer
typedef unsigned shim_word2 __attribute__((ext_vector_type(2)));
typedef unsigned shim_word4 __attribute__((ext_vector_type(4)));

SHIM_PLAIN static shim_buffer __builtin_amdgcn_make_buffer_rsrc(const void *p, short stride, int bytes, int) {
    if (stride) shim_now->fault("a buffer with a stride is not modelled", __builtin_return_address(0));
    shim_now->resource((unsigned long)p, (unsigned)bytes, __builtin_return_address(0));
    return {(char *)p, (unsigned)bytes};
}

/* Is an access inside? The end counts from the scalar offset. One that is in part has no meaning that all
 * machines agree on. */
SHIM_PLAIN static bool shim_inside(shim_buffer b, unsigned offset, unsigned scalar, unsigned bytes, const void *where) {
    if (scalar > b.bytes) shim_now->fault("a scalar offset past the end of a buffer", where);
    unsigned left = b.bytes - scalar;
    if (offset < left && left - offset < bytes) shim_now->fault("a buffer ends within an access", where);
    return offset < left;
}
template <typename T> SHIM_PLAIN static T shim_buffer_load(shim_buffer from, int offset, int scalar, int) {
    T v = {};
    const void *where = __builtin_return_address(0);
    if (!shim_inside(from, (unsigned)offset, (unsigned)scalar, sizeof v, where)) return v;
    const char *at = from.base + (unsigned)offset + (unsigned)scalar;
    shim_now->access((unsigned long)at, sizeof v, SHIM_READ, where);
    __builtin_memcpy(&v, at, sizeof v);
    return v;
}
template <typename T> SHIM_PLAIN static void shim_buffer_store(T v, shim_buffer to, int offset, int scalar, int) {
    const void *where = __builtin_return_address(0);
    if (!shim_inside(to, (unsigned)offset, (unsigned)scalar, sizeof v, where)) return;
    char *at = to.base + (unsigned)offset + (unsigned)scalar;
    shim_now->access((unsigned long)at, sizeof v, SHIM_WRITE, where);
    __builtin_memcpy(at, &v, sizeof v);
}
#define __builtin_amdgcn_raw_buffer_load_b8 shim_buffer_load<unsigned char>
#define __builtin_amdgcn_raw_buffer_load_b16 shim_buffer_load<unsigned short>
#define __builtin_amdgcn_raw_buffer_load_b32 shim_buffer_load<unsigned>
#define __builtin_amdgcn_raw_buffer_load_b64 shim_buffer_load<shim_word2>
#define __builtin_amdgcn_raw_buffer_load_b128 shim_buffer_load<shim_word4>
#define __builtin_amdgcn_raw_buffer_store_b8 shim_buffer_store<unsigned char>
#define __builtin_amdgcn_raw_buffer_store_b16 shim_buffer_store<unsigned short>
#define __builtin_amdgcn_raw_buffer_store_b32 shim_buffer_store<unsigned>
#define __builtin_amdgcn_raw_buffer_store_b64 shim_buffer_store<shim_word2>
#define __builtin_amdgcn_raw_buffer_store_b128 shim_buffer_store<shim_word4>

/* ---- numbers ---- */

SHIM_PLAIN static float shim_exp(float v) { return shim_now->exp(v); }
SHIM_PLAIN static float shim_log(float v) { return shim_now->log(v); }
SHIM_PLAIN static float __builtin_amdgcn_exp2f(float v) { return shim_now->exp2(v); }
SHIM_PLAIN static float __builtin_amdgcn_logf(float v) { return shim_now->log2(v); }
SHIM_PLAIN static float __builtin_amdgcn_rcpf(float v) { return 1.0f / v; } // as in the interpreter: rounded right
#define __builtin_expf shim_exp
#define __builtin_logf shim_log
