/* words: the CUDA that emitted kernels use, for the host's C++ compiler. */
#include <math.h>
#include <string.h>

#include "abi.h"

extern "C" { struct sim_host *sim; }

#define __device__
#define __forceinline__ inline
#define __global__
#define __launch_bounds__(...)
#define __cluster_dims__(...)
#define __shared__ static
#define __grid_constant__
#define __align__(n) alignas(n)
#define asm this_instruction_has_no_meaning_here

struct alignas(8) uint2 { unsigned x, y; };
struct alignas(16) uint4 { unsigned x, y, z, w; };
struct alignas(16) float4 { float x, y, z, w; };
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
struct alignas(8) float2 { float x, y; };
struct sim_index { unsigned x; };
#define threadIdx (sim_index{(unsigned)sim->thread})
#define blockIdx (sim_index{(unsigned)sim->block})
#define gridDim (sim_index{(unsigned)sim->blocks})

static inline float __uint_as_float(unsigned bits) { float v; memcpy(&v, &bits, 4); return v; }
static inline unsigned __float_as_uint(float v) { unsigned bits; memcpy(&bits, &v, 4); return bits; }
static inline float __int_as_float(int bits) { return __uint_as_float((unsigned)bits); }
static inline long __double_as_longlong(double v) { long bits; memcpy(&bits, &v, 8); return bits; }
static inline double __longlong_as_double(long bits) { double v; memcpy(&v, &bits, 8); return v; }
static inline int __popcll(unsigned long long v) { return __builtin_popcountll(v); }
static inline int __ffs(int v) { return __builtin_ffs(v); }
static inline void __syncthreads() { sim->barrier(); }
/* Threads take turns only where they meet: nothing can come in between. */
static inline int atomicAdd(int *p, int v) { int old = *p; *p += v; return old; }
static inline unsigned atomicOr(unsigned *p, unsigned v) { unsigned old = *p; *p |= v; return old; }

/* ---- operations of a warp ---- */

static inline void __syncwarp() { unsigned nothing = 0; sim->meet(&nothing, 1); }
static inline int __shfl_sync(unsigned, int v, int lane) { return (int)sim->meet((unsigned *)&v, 1)[lane & 31][0]; }
static inline int __shfl_up_sync(unsigned, int v, int distance) {
    const int lane = sim->thread % SIM_WARP;
    return (int)sim->meet((unsigned *)&v, 1)[lane < distance ? lane : lane - distance][0];
}
template <class value> static inline value __shfl_xor_sync(unsigned, value v, int distance) {
    unsigned mine[sizeof(value) / 4];
    memcpy(mine, &v, sizeof v);
    memcpy(&v, sim->meet(mine, sizeof v / 4)[sim->thread % SIM_WARP ^ distance], sizeof v);
    return v;
}
static inline unsigned __ballot_sync(unsigned, bool p) {
    unsigned mine = p, mask = 0;
    const sim_words *all = sim->meet(&mine, 1);
    for (int l = 0; l < SIM_WARP; l++) mask |= all[l][0] << l;
    return mask;
}
static inline unsigned __activemask() { return ~0u; }
static inline unsigned __match_any_sync(unsigned, int v) {
    unsigned mask = 0;
    const sim_words *all = sim->meet((unsigned *)&v, 1);
    for (int l = 0; l < SIM_WARP; l++) mask |= (unsigned)((int)all[l][0] == v) << l;
    return mask;
}
static inline unsigned __reduce_max_sync(unsigned, unsigned v) {
    const sim_words *all = sim->meet(&v, 1);
    for (int l = 0; l < SIM_WARP; l++) v = all[l][0] > v ? all[l][0] : v;
    return v;
}
static inline int __syncthreads_or(int p) { /* through shared memory of the library: two barriers */
    static int any;
    sim->barrier();
    any = 0;
    sim->barrier();
    any |= p;
    sim->barrier();
    return any;
}

static inline size_t __cvta_generic_to_shared(const void *p) { return sim->address(p); }

/* ---- what stands for instructions: nvrtc.c puts these into the bodies of the functions that hold them ---- */

static inline unsigned sim_bf16(float v) { /* round to nearest even */
    unsigned bits = __float_as_uint(v);
    return v != v ? 0x7fffu : (bits + 0x7fffu + (bits >> 16 & 1u)) >> 16;
}
static inline unsigned sim_pair(float low, float high) { return sim_bf16(low) | sim_bf16(high) << 16; }
#define sim_wide(lower) ((unsigned long)DESCRIPTOR_UPPER << 32 | (lower)) /* a descriptor's words, see sm90_ptx */
static inline unsigned sim_load(unsigned address) {
    unsigned v;
    memcpy(&v, sim->at(address, 4), 4);
    return v;
}
