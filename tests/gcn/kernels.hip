// Kernels of the kinds a MoE layer needs, small, for testing the interpreter on compiler output.
// The test prepends definitions: MI (16 or 32: MFMA tile), SWIZZLE, VGPR_ACC, and BUG_... to plant
// a fault.
#define KERNEL(n) extern "C" __attribute__((global, amdgpu_flat_work_group_size(n, n)))
#define LDS __attribute__((shared))
#define DEVICE static __attribute__((device)) inline __attribute__((always_inline))

typedef unsigned short u16;
typedef unsigned u32;
typedef u32 u32x4 __attribute__((ext_vector_type(4)));
typedef short s16x4 __attribute__((ext_vector_type(4)));
typedef short s16x8 __attribute__((ext_vector_type(8)));
typedef float f32x4 __attribute__((ext_vector_type(4)));
typedef float f32x16 __attribute__((ext_vector_type(16)));

#define TID ((int)__builtin_amdgcn_workitem_id_x())
#define GROUP_X ((int)__builtin_amdgcn_workgroup_id_x())
#define GROUP_Y ((int)__builtin_amdgcn_workgroup_id_y())

DEVICE void barrier()
{
    __builtin_amdgcn_fence(__ATOMIC_RELEASE, "workgroup");
    __builtin_amdgcn_s_barrier();
    __builtin_amdgcn_fence(__ATOMIC_ACQUIRE, "workgroup");
}
DEVICE int lane() { return __builtin_amdgcn_mbcnt_hi(~0u, __builtin_amdgcn_mbcnt_lo(~0u, 0)); }
DEVICE u32 bits(float f) { return __builtin_bit_cast(u32, f); }
DEVICE float real(u32 u) { return __builtin_bit_cast(float, u); }
DEVICE u32 from_lane(u32 x, int l) { return __builtin_amdgcn_ds_bpermute(l << 2, x); }
DEVICE float wide(u32 h) { return real(h << 16); }
DEVICE u32 narrow(float f) { return (bits(f) + 0x7fff + (bits(f) >> 16 & 1)) >> 16; }

// ---- C[M][N] = A[M][K] B[N][K]^T, bf16 in, float out; rows past M or N are masked ----
enum { BM = 64, BN = 64, BK = 64, CHUNK = 8, ROW = BK / CHUNK, WM = 32, WN = 32 };
#if MI == 32
typedef f32x16 acc;
enum { REGS = 16, KSTEP = 16 };
#define MFMA __builtin_amdgcn_mfma_f32_32x32x8bf16_1k
#else
typedef f32x4 acc;
enum { REGS = 4, KSTEP = 32 };
#define MFMA __builtin_amdgcn_mfma_f32_16x16x16bf16_1k
#endif
enum { TM = WM / MI, TN = WN / MI };

// LDS tile: [row][chunk of 8 bf16]; the swizzle spreads a column of chunks over all banks.
DEVICE int slot(int row, int chunk)
{
#if SWIZZLE
    return row * ROW + (chunk ^ (row % ROW));
#else
    return row * (ROW + 1) + chunk;
#endif
}
DEVICE int tile_row(int l, int r) { return MI == 32 ? 8 * (r / 4) + 4 * (l / 32) + r % 4 : 4 * (l / 16) + r; }

#if VGPR_ACC
__attribute__((amdgpu_waves_per_eu(2, 2)))
#endif
KERNEL(256) void gemm(const u16 *__restrict__ a, const u16 *__restrict__ b, float *__restrict__ c,
                      int m, int n, int k)
{
    LDS u32x4 sa[BM * (ROW + 1)], sb[BN * (ROW + 1)];
    int t = TID, l = t & 63, w = t >> 6, wm = (w >> 1) * WM, wn = (w & 1) * WN;
    int m0 = GROUP_X * BM, n0 = GROUP_Y * BN;
    acc d[TM][TN];
    u32x4 ra[2], rb[2];
    for (int i = 0; i < TM; i++)
        for (int j = 0; j < TN; j++)
            for (int r = 0; r < REGS; r++)
                d[i][j][r] = 0;
#define FETCH(k0)                                                                              \
    for (int q = 0; q < 2; q++) {                                                              \
        int e = q * 256 + t, row = e / ROW, ch = e % ROW;                                      \
        ra[q] = m0 + row < m ? *(const u32x4 *)(a + (long)(m0 + row) * k + (k0) + ch * CHUNK)  \
                             : u32x4{0, 0, 0, 0};                                              \
        rb[q] = n0 + row < n ? *(const u32x4 *)(b + (long)(n0 + row) * k + (k0) + ch * CHUNK)  \
                             : u32x4{0, 0, 0, 0};                                              \
    }
    FETCH(0)
    for (int k0 = 0; k0 < k; k0 += BK) {
        for (int q = 0; q < 2; q++) {
            int e = q * 256 + t, row = e / ROW, ch = e % ROW;
            sa[slot(row, ch)] = ra[q];
            sb[slot(row, ch)] = rb[q];
        }
        barrier();
        if (k0 + BK < k)
            FETCH(k0 + BK)
#pragma unroll
        for (int kk = 0; kk < BK / CHUNK; kk += KSTEP / CHUNK) {
            s16x8 fa[TM], fb[TN];
#if BUG_LANE
            int ch = kk + (l / MI ^ 1); // reads the other half's k for A alone
#else
            int ch = kk + l / MI;
#endif
            for (int i = 0; i < TM; i++)
                fa[i] = __builtin_bit_cast(s16x8, sa[slot(wm + i * MI + l % MI, ch)]);
            for (int j = 0; j < TN; j++)
                fb[j] = __builtin_bit_cast(s16x8, sb[slot(wn + j * MI + l % MI, kk + l / MI)]);
            for (int i = 0; i < TM; i++)
                for (int j = 0; j < TN; j++) {
#if BUG_SWAP
                    d[i][j] = MFMA(fb[j].lo, fa[i].lo, d[i][j], 0, 0, 0);
                    d[i][j] = MFMA(fb[j].hi, fa[i].hi, d[i][j], 0, 0, 0);
#else
                    d[i][j] = MFMA(fa[i].lo, fb[j].lo, d[i][j], 0, 0, 0);
                    d[i][j] = MFMA(fa[i].hi, fb[j].hi, d[i][j], 0, 0, 0);
#endif
                }
        }
        barrier();
    }
    for (int i = 0; i < TM; i++)
        for (int j = 0; j < TN; j++)
            for (int r = 0; r < REGS; r++) {
                int row = m0 + wm + i * MI + tile_row(l, r), col = n0 + wn + j * MI + l % MI;
#if BUG_TAIL
                if (row <= m && col < n)
#else
                if (row < m && col < n)
#endif
                    c[(long)row * n + col] = d[i][j][r];
            }
}

// ---- routing ----
KERNEL(256) void histogram(const int *expert, int rows, int experts, int *count)
{
    LDS int h[256];
    for (int i = TID; i < experts; i += 256)
        h[i] = 0;
    barrier();
    for (int i = GROUP_X * 256 + TID; i < rows; i += 1024)
        __hip_atomic_fetch_add(&h[expert[i]], 1, __ATOMIC_RELAXED, __HIP_MEMORY_SCOPE_WORKGROUP);
    barrier();
    for (int i = TID; i < experts; i += 256)
        if (h[i])
            __hip_atomic_fetch_add(count + i, h[i], __ATOMIC_RELAXED, __HIP_MEMORY_SCOPE_AGENT);
}

// Exclusive prefix sum of up to 1024 counts: within waves by lane exchange, across by LDS.
KERNEL(1024) void scan(const int *count, int experts, int *offset)
{
    LDS int total[16];
    int v = TID < experts ? count[TID] : 0, x = v, l = lane(), w = TID >> 6, base = 0;
    for (int d = 1; d < 64; d <<= 1) {
        int y = from_lane(x, l - d);
        x += l >= d ? y : 0;
    }
    if (l == 63)
        total[w] = x;
    barrier();
    for (int i = 0; i < w; i++)
        base += total[i];
    if (TID < experts)
        offset[TID] = base + x - v;
}

// Gathers rows through a buffer resource: source -1 gives zeros, the tail is not stored.
KERNEL(64) void permute(const u16 *x, const int *source, u16 *y, int tokens, int rows, int width)
{
    int row = GROUP_X, bytes = width * 2;
    auto in = __builtin_amdgcn_make_buffer_rsrc((void *)x, 0, tokens * bytes, 0x00027000);
    auto out = __builtin_amdgcn_make_buffer_rsrc(y, 0, rows * bytes, 0x00027000);
    int from = source[row] < 0 ? 0x7fff0000 : source[row] * bytes;
    for (int i = TID * 16; i < bytes; i += 1024)
        __builtin_amdgcn_raw_buffer_store_b128(
            __builtin_amdgcn_raw_buffer_load_b128(in, from + i, 0, 0), out, row * bytes + i, 0, 0);
}

// o[t] = sum over j of w[t][j] * y[pos[t][j]], bf16 rows, float sums
KERNEL(64) void combine(const u16 *y, const int *pos, const float *w, u16 *o, int width, int k)
{
    int t = GROUP_X;
    for (int i = TID; i < width / 8; i += 64) {
        float sum[8] = {0};
        for (int j = 0; j < k; j++) {
            u32x4 v = *(const u32x4 *)(y + (long)pos[t * k + j] * width + i * 8);
            float f = w[t * k + j];
            for (int q = 0; q < 4; q++) {
                sum[2 * q] += f * wide(v[q] & 0xffff);
                sum[2 * q + 1] += f * real(v[q] & 0xffff0000u);
            }
        }
        u32x4 r;
        for (int q = 0; q < 4; q++)
            r[q] = narrow(sum[2 * q]) | narrow(sum[2 * q + 1]) << 16;
        *(u32x4 *)(o + (long)t * width + i * 8) = r;
    }
}

// Softmax over up to 64 experts, then the k largest; ties go to the lower index.
KERNEL(256) void topk(const float *logits, int experts, int k, int tokens, float *weight, int *id)
{
    int t = GROUP_X * 4 + (TID >> 6), l = lane();
    if (t >= tokens)
        return;
    float v = l < experts ? logits[t * experts + l] : -1e30f, top = v, sum;
    for (int d = 32; d; d >>= 1) {
        float o = real(from_lane(bits(top), l ^ d));
        top = o > top ? o : top;
    }
    float e = __builtin_expf(v - top);
    sum = e;
    for (int d = 32; d; d >>= 1)
        sum += real(from_lane(bits(sum), l ^ d));
    float p = l < experts ? e / sum : -1.0f;
    for (int j = 0; j < k; j++) {
        float best = p;
        int at = l;
        for (int d = 32; d; d >>= 1) {
            float o = real(from_lane(bits(best), l ^ d));
            int oi = from_lane(at, l ^ d);
            if (o > best || (o == best && oi < at))
                best = o, at = oi;
        }
        if (l == 0)
            weight[t * k + j] = best, id[t * k + j] = at;
        if (l == at)
            p = -2.0f;
    }
}

// Gradient of silu(g) * u, bf16.
KERNEL(256) void silu_bwd(const u16 *g, const u16 *u, const u16 *d, u16 *dg, u16 *du, int n)
{
    int i = GROUP_X * 256 + TID;
    if (i >= n)
        return;
    float a = wide(g[i]), b = wide(u[i]), x = wide(d[i]), s = 1.0f / (1.0f + __builtin_expf(-a));
    du[i] = narrow(x * a * s);
    dg[i] = narrow(x * b * (s + a * s * (1.0f - s)));
}

// Column sums of a [rows][64] float matrix: waves add in LDS by atomics, then to memory.
KERNEL(256) void column_sum(const float *x, int rows, float *sum)
{
    LDS float s[64];
    if (TID < 64)
        s[TID] = 0;
    barrier();
    float a = 0;
    for (int r = TID >> 6; r < rows; r += 4)
        a += x[r * 64 + (TID & 63)];
    __hip_atomic_fetch_add(&s[TID & 63], a, __ATOMIC_RELAXED, __HIP_MEMORY_SCOPE_WORKGROUP);
    barrier();
    if (TID < 64)
        sum[TID] = s[TID];
}

// Transposes 64 x 64 words through LDS with two buffers: the next tile is written while the last
// one is read.
KERNEL(256) void transpose(const u32 *x, u32 *y, int tiles)
{
    LDS u32 s[2][64 * 65];
    int c = TID & 63, r0 = TID >> 6;
    for (int i = 0; i < tiles; i++) {
        u32 *p = s[i & 1];
        for (int r = r0; r < 64; r += 4)
            p[r * 65 + c] = x[(i * 64 + r) * 64 + c];
        barrier();
        for (int r = r0; r < 64; r += 4)
            y[(i * 64 + r) * 64 + c] = p[c * 65 + r];
    }
}
