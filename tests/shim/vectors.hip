// One wave that uses every builtin the shim knows; t_shim.c compares each row with its definition and with
// what the interpreter makes of the compiled code. Row n of out belongs to the n-th line here.
#define DEVICE static inline __attribute__((device, always_inline))
#define KERNEL(threads) extern "C" __attribute__((global, amdgpu_flat_work_group_size(threads, threads))) void
#define __shared__ __attribute__((shared))
typedef unsigned u32;
typedef unsigned long long u64;
typedef short short4 __attribute__((ext_vector_type(4)));
typedef _Float16 half4 __attribute__((ext_vector_type(4)));
typedef float float4 __attribute__((ext_vector_type(4)));
typedef float float16 __attribute__((ext_vector_type(16)));
typedef float float32 __attribute__((ext_vector_type(32)));
typedef u32 uint2 __attribute__((ext_vector_type(2)));
typedef u32 uint4 __attribute__((ext_vector_type(4)));

KERNEL(64) lanes(const int *in, int *out, int *atomics) {
    __shared__ int room[64];
    int lane = (int)__builtin_amdgcn_workitem_id_x(), v = in[lane];
    int row = 0;
#define PUT(value) out[row++ * 64 + lane] = (int)(value)
    PUT(__builtin_amdgcn_ds_bpermute((lane ^ 5) << 2, v));
    PUT(__builtin_amdgcn_ds_permute((lane ^ 9) << 2, v));
    PUT(__builtin_amdgcn_readlane(v, 37));
    PUT(__builtin_amdgcn_readfirstlane(v));
    PUT((u32)__builtin_amdgcn_ballot_w64(v & 1));
    PUT((u32)(__builtin_amdgcn_ballot_w64(v & 1) >> 32));
    PUT(__builtin_amdgcn_ds_swizzle(v, 0x041f));           // xor 1
    PUT(__builtin_amdgcn_ds_swizzle(v, 0x801b));           // quads turned round
    PUT(__builtin_amdgcn_ds_swizzle(v, 0x0018));           // and 24: the first of 8
    PUT(__builtin_amdgcn_update_dpp(-1, v, 0xb1, 15, 15, false));    // quad_perm 1 0 3 2
    PUT(__builtin_amdgcn_update_dpp(-1, v, 0x101, 15, 15, false));   // row_shl:1
    PUT(__builtin_amdgcn_update_dpp(-1, v, 0x113, 15, 15, true));    // row_shr:3, zeros come in
    PUT(__builtin_amdgcn_update_dpp(-1, v, 0x124, 15, 15, false));   // row_ror:4
    PUT(__builtin_amdgcn_update_dpp(-1, v, 0x140, 15, 15, false));   // row_mirror
    PUT(__builtin_amdgcn_update_dpp(-1, v, 0x141, 15, 15, false));   // row_half_mirror
    PUT(__builtin_amdgcn_update_dpp(-1, v, 0x142, 15, 15, false));   // row_bcast:15
    PUT(__builtin_amdgcn_update_dpp(-1, v, 0x143, 15, 15, false));   // row_bcast:31
    PUT(__builtin_amdgcn_update_dpp(-1, v, 0x140, 5, 9, false));     // ... of some rows and banks
    PUT(__builtin_amdgcn_mbcnt_hi(~0u, __builtin_amdgcn_mbcnt_lo(~0u, 0)));
    PUT(__builtin_amdgcn_mbcnt_lo((u32)v, 0));
    PUT(__builtin_amdgcn_perm((u32)v, (u32)lane * 0x01020304u, 0x03050600u));
    int inside = -7; // an operation that half of the lanes reach, while the others wait
    if (lane & 1) inside = __builtin_amdgcn_readfirstlane(v);
    __builtin_amdgcn_fence(__ATOMIC_RELEASE, "workgroup");
    __builtin_amdgcn_s_barrier();
    __builtin_amdgcn_fence(__ATOMIC_ACQUIRE, "workgroup");
    PUT(inside);
    room[lane] = v;
    __builtin_amdgcn_fence(__ATOMIC_ACQ_REL, "wavefront");
    PUT(room[63 - lane]);
    PUT(__hip_atomic_fetch_add(&atomics[lane], v, __ATOMIC_RELAXED, __HIP_MEMORY_SCOPE_AGENT));
    PUT(__hip_atomic_fetch_max(&atomics[lane], v, __ATOMIC_RELAXED, __HIP_MEMORY_SCOPE_AGENT));
    __hip_atomic_fetch_add(&atomics[64], v, __ATOMIC_RELAXED, __HIP_MEMORY_SCOPE_AGENT);
    __asm__ volatile("s_nop 3\n\ts_nop 15");
}

// Buffers: 16-byte and 4-byte accesses that run past the end.
KERNEL(64) buffers(const u32 *in, u32 *out, int bytes) {
    int lane = (int)__builtin_amdgcn_workitem_id_x();
    __amdgpu_buffer_rsrc_t from = __builtin_amdgcn_make_buffer_rsrc((void *)in, 0, bytes, 0x00027000);
    __amdgpu_buffer_rsrc_t to = __builtin_amdgcn_make_buffer_rsrc(out, 0, bytes, 0x00027000);
    uint4 v = __builtin_amdgcn_raw_buffer_load_b128(from, lane * 16, 0, 0);
    u32 w = __builtin_amdgcn_raw_buffer_load_b32(from, lane * 4 + 128, 0, 0);
    v.x += w;
    __builtin_amdgcn_raw_buffer_store_b128(v, to, lane * 16, 0, 0);
}

#define MATRIX(name, in, result)                                                                          \
    KERNEL(64) name(const in *a, const in *b, const result *c, result *d) {                             \
        int lane = (int)__builtin_amdgcn_workitem_id_x();                                                 \
        d[lane] = __builtin_amdgcn_mfma_##name(a[lane], b[lane], c[lane], 0, 0, 0);                       \
    }
MATRIX(f32_32x32x8bf16_1k, short4, float16)
MATRIX(f32_16x16x16bf16_1k, short4, float4)
MATRIX(f32_32x32x4bf16_1k, short4, float32)
MATRIX(f32_16x16x4bf16_1k, short4, float16)
MATRIX(f32_4x4x4bf16_1k, short4, float4)
MATRIX(f32_32x32x8f16, half4, float16)
MATRIX(f32_16x16x16f16, half4, float4)
MATRIX(f32_32x32x2f32, float, float16)
MATRIX(f32_16x16x4f32, float, float4)
