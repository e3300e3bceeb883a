// Functions of three 64-bit words, compiled twice: by the host's compiler, and for the GPU, where
// the interpreter runs them on vector registers (inputs differ by lane) and on scalar registers
// (inputs uniform). FN(name, body) is defined by whoever includes this file. Plain C that both
// compilers read the same way; NaN results are made equal by f32() and f64().

// integers, 32 bits
FN(add32, { return (u32)a + (u32)b; })
FN(sub32, { return (u32)a - (u32)b; })
FN(mul32, { return (u32)a * (u32)b; })
FN(mulhi_u32, { return (u64)(u32)a * (u32)b >> 32; })
FN(mulhi_i32, { return (u32)(((i64)(i32)a * (i32)b) >> 32); })
FN(madwide_u32, { return (u64)(u32)a * (u32)b + c; })
FN(madwide_i32, { return (u64)((i64)(i32)a * (i32)b) + c; })
FN(div_u32, { return (u32)a / ((u32)b | 1); })
FN(rem_u32, { return (u32)a % ((u32)b | 1); })
FN(div_i32, { return (u32)((i32)(a >> 1 & 0x7fffffff) / ((i32)b | 1)); })
FN(rem_i32, { return (u32)((i32)(a & 0x3fffffff) % ((i32)b | 1)); })
FN(div_small, { return (u32)((a & 0xffff) / ((b & 0xff) | 1)); })
FN(div_const, { return (u32)a / 7 + (u32)((i32)b / 11) + (u32)a % 60; })
FN(shl32, { return (u32)a << (b & 31); })
FN(shr32, { return (u32)a >> (b & 31); })
FN(sar32, { return (u32)((i32)a >> (b & 31)); })
FN(rot32, { return (u32)a << (b & 31) | (u32)a >> (-b & 31); })
FN(and_or_xor, { return ((u32)a & (u32)b) | ((u32)c ^ 0x5a5a5a5a); })
FN(bic, { return ((u32)a & ~(u32)b) ^ ~((u32)c | (u32)a); })
FN(field_u, { return (u32)a >> 5 & 0x7f; })
FN(field_s, { return (u32)((i32)((u32)a << 7) >> 20); })
FN(field_var, { return (u32)a >> (b & 15) & ((1u << (c & 15)) - 1); })
FN(insert, { return ((u32)a & 0xff00ff00) | ((u32)b & 0x00ff00ff); })
FN(popcount32, { return __builtin_popcount((u32)a) + (u32)b; })
FN(clz32, { return __builtin_clz((u32)a | 1); })
FN(ctz32, { return __builtin_ctz((u32)a | 0x80000000); })
FN(bswap32, { return __builtin_bswap32((u32)a); })
FN(min_max_s, {
    i32 x = (i32)a, y = (i32)b, z = (i32)c, m = x < y ? x : y;
    return (u32)(m > z ? m : z);
})
FN(min_max_u, { u32 x = (u32)a, y = (u32)b, z = (u32)c, m = x > y ? x : y; return m < z ? m : z; })
FN(med3_s, {
    i32 x = (i32)a, lo = -100, hi = 1000;
    x = x < lo ? lo : x;
    return (u32)(x > hi ? hi : x);
})
FN(abs32, { i32 x = (i32)(a & 0x7fffffff) - (i32)(b & 0x7fffffff); return (u32)(x < 0 ? -x : x); })
FN(sign32, { i32 x = (i32)a; return (u32)(x > 0) - (u32)(x < 0); })
FN(compare32, { return (i32)a < (i32)b ? (u32)c : (u32)a <= (u32)b ? (u32)c + 1 : 7; })
FN(three_way, { return (a == b) + 2 * (a < b) + 4 * ((i64)a < (i64)b) + 8 * ((i32)a >= (i32)c); })
// (The 64-bit product of words masked to 24 bits is left out: clang 19 drops the masks on the way to
// v_mad_u64_u32, and this test found it.)
FN(mul24, { return (u32)(a & 0xffffff) * (u32)(b & 0xffffff) + (u32)c; })
FN(shift_add, { return ((u32)a << 3) + (u32)b + (((u32)b + (u32)c) << 2); })
FN(carry, { u32 s = (u32)a + (u32)b; return s + (s < (u32)a); })
FN(bytes, { return (u8)a * (u8)(a >> 8) + (u8)(a >> 16) + (i8)(a >> 24); })
FN(byte_shuffle, {
    return (a & 0xff) << 24 | (b & 0xff00) << 8 | (c & 0xff0000) >> 8 | (a >> 24 & 0xff);
})
FN(align_words, { return (u32)(((u64)(u32)a << 32 | (u32)b) >> 11); })

// integers, 64 bits
FN(add64, { return a + b + c; })
FN(sub64, { return a - b; })
FN(mul64, { return a * b; })
FN(mulhi_u64, { return (u64)((unsigned __int128)a * b >> 64); })
FN(div_u64, { return a / (b | 1); })
FN(rem_u64, { return a % ((b >> 20) | 1); })
FN(div_i64, { return (u64)((i64)(a >> 1) / ((i64)b | 1)); })
FN(shl64, { return a << (b & 63); })
FN(shr64, { return a >> (b & 63); })
FN(sar64, { return (u64)((i64)a >> (b & 63)); })
FN(rot64, { return a << (b & 63) | a >> (-b & 63); })
FN(logic64, { return (a & b) | (c ^ ~a); })
FN(popcount64, { return (u64)__builtin_popcountll(a); })
FN(clz64, { return (u64)__builtin_clzll(a | 1); })
FN(ctz64, { return (u64)__builtin_ctzll(a | (u64)1 << 63); })
FN(bswap64, { return __builtin_bswap64(a); })
FN(min64, { return (i64)a < (i64)b ? a : b; })
FN(umax64, { return a > b ? a : b; })
FN(select64, { return (c & 1) ? a : b; })
FN(index64, { return (u64)((i64)(i32)a * 4096 + (i64)(i32)b * 8 + 16); })

// 16 and 8 bits
FN(add16, { return (u16)((u16)a + (u16)b); })
FN(mul16, { return (u16)((u16)a * (u16)b + (u16)c); })
FN(shift16, { return (u16)((u16)a << (b & 15)) | (u32)((u16)c >> (b & 15)) << 16; })
FN(sar16, { return (u16)((i16)a >> (b & 15)); })
FN(min16, { return (u16)((i16)a < (i16)b ? (i16)a : (i16)b); })
FN(max16, { return (u16)((u16)a > (u16)b ? (u16)a : (u16)b); })
FN(cmp16, { return ((i16)a < (i16)b) + 2 * ((u16)a < (u16)b) + 4 * ((u16)a == (u16)c); })
FN(packed16, { return (u16)((u16)a + (u16)b) | (u32)(u16)((u16)(a >> 16) + (u16)(b >> 16)) << 16; })
FN(sext8, { return (u32)((i8)a + (i8)b * (i8)c); })

// single precision
FN(fadd, { return f32(real(a) + real(b)); })
FN(fsub, { return f32(real(a) - real(b)); })
FN(fmul, { return f32(real(a) * real(b)); })
FN(ffma, { return f32(__builtin_fmaf(real(a), real(b), real(c))); })
FN(fneg_abs, { return f32(-__builtin_fabsf(real(a)) * real(b) - __builtin_fabsf(real(c))); })
FN(fdiv, { return f32(real(a) / real(b)); })
FN(fsqrt, { return f32(__builtin_sqrtf(__builtin_fabsf(real(a)))); })
FN(frounding, {

        return f32(__builtin_floorf(real(a)) + __builtin_ceilf(real(b)) * 2 + __builtin_truncf(real(c)));
})
FN(frint, { return f32(__builtin_rintf(real(a))); })
FN(fmin_max, {
    float x = real(a), y = real(b), z = real(c), m = x < y ? x : y;
    return f32(m > z ? m : z);
})
FN(fminnum, {
    return f32(__builtin_fminf(small(a), small(b)) + __builtin_fmaxf(small(b), small(c)));
})
FN(fcompare, {
    float x = real(a), y = real(b);
    return (x < y) | (x <= y) << 1 | (x == y) << 2 | (x != y) << 3 | (x > y) << 4 | (x >= y) << 5;
})
FN(funordered, {

        return (u64)(__builtin_isnan(real(a)) != 0) | (u64)(__builtin_isinf(real(b)) != 0) << 1 | (u64)!(real(a) < real(b)) << 2;
})
FN(fselect, { return f32(real(a) > 0 ? real(b) : -real(c)); })
FN(fcopysign, { return f32(__builtin_copysignf(real(a), real(b))); })
FN(fldexp, { return f32(__builtin_ldexpf(real(a), (i32)(b & 63) - 32)); })
FN(ffrexp, {
    int e;
    float m = __builtin_frexpf(small(a), &e);
    return f32(m) + ((u64)(u32)e << 32);
})
FN(from_u32, { return f32((float)(u32)a); })
FN(from_i32, { return f32((float)(i32)a); })
FN(from_u64, { return f32((float)a); })
FN(from_i64, { return f32((float)(i64)a); })
FN(from_byte, { return f32((float)(u8)a + (float)(u8)(a >> 8) * (float)(u8)(a >> 24)); })
FN(to_u32, { return (u32)__builtin_fabsf(small(a)); })
FN(to_i32, { return (u32)(i32)small(a); })
FN(to_u64, { return (u64)__builtin_fabsf(small(a)); })
FN(bf16_round, { u32 u = (u32)f32(real(a)); return (u + 0x7fff + (u >> 16 & 1)) >> 16; })

// half precision
FN(hadd, { return f16(half(a) + half(b)); })
FN(hmul, { return f16(half(a) * half(b)); })
FN(h_to_f, { return f32((float)half(a)); })
FN(f_to_h, { return f16((_Float16)small(a)); })
FN(hcompare, { return (half(a) < half(b)) + 2 * (half(a) == half(c)); })

// double precision
FN(dadd, { return f64(wide(a) + wide(b)); })
FN(dmul, { return f64(wide(a) * wide(b)); })
FN(dfma, { return f64(__builtin_fma(wide(a), wide(b), wide(c))); })
FN(ddiv, { return f64(wide(a) / wide(b)); })
FN(dsqrt, { return f64(__builtin_sqrt(__builtin_fabs(wide(a)))); })
FN(dround, {
    return f64(__builtin_floor(wide(a)) + __builtin_ceil(wide(b)) + __builtin_trunc(wide(c)));
})
FN(dcompare, { return (wide(a) < wide(b)) + 2 * (wide(a) >= wide(c)); })
FN(f_to_d, { return f64((double)real(a) * (double)real(b)); })
FN(d_to_f, { return f32((float)wide(a)); })
FN(i_to_d, { return f64((double)(i32)a + (double)(u32)b); })
FN(i64_to_d, { return f64((double)(i64)a); })
FN(d_to_i, { return (u32)(i32)((double)small(a) * 0.5); })

// control flow and memory of the lane's own
FN(loop, { u64 s = 0; for (u32 i = 0; i < (a & 31); i++) s = s * 31 + b + i; return s; })
FN(collatz, {
    u32 n = (u32)(a & 63) + 1, steps = 0;
    while (n != 1) { n = n & 1 ? 3 * n + 1 : n / 2; steps++; }
    return steps;
})
FN(switches, {
    switch (a & 7) { case 0: return b; case 1: return b + c; case 2: return b * c; case 3:
        return b ^ c; case 4: return ~b; case 5: return c - b; case 6: return b >> 3; default:
        return 42; }
})
FN(gcd, {
    u32 x = (u32)(a & 0xffff) | 1, y = (u32)(b & 0xffff) | 1;
    while (y) { u32 t = x % y; x = y; y = t; }
    return x;
})
FN(array, {
    u32 t[16];
    for (int i = 0; i < 16; i++) t[i] = (u32)(a >> i) * 3 + (u32)b;
    return t[a & 15] ^ t[b & 15] ^ t[c & 15];
})
FN(bytes_in_array, {
    u8 t[32];
    for (int i = 0; i < 32; i++) t[i] = (u8)(a >> (i & 7));
    return t[b & 31] + ((u64)t[c & 31] << 8);
})
FN(nested, {
    u64 r = 0;
    for (u32 i = 0; i < (a & 7); i++) for (u32 j = i; j < (b & 7); j++) {
        if ((i ^ j) & 1) continue; r += i * 10 + j; if (r > 100) break; }
    return r;
})
