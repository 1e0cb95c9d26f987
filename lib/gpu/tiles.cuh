/* Weights as the kernels read them: tiles of 16 rows, one tile a contiguous run of bytes.
 *
 * A tile has as many bytes as the blocks it was made of, and holds the same bits in another order (pack),
 * so that a warp reads it in 16-byte pieces without gaps: piece (plane p, lane l) belongs to row
 * 4 p + l / 8, and within the row to the l % 8-th eighth of the tile's columns. Matrices are padded with
 * zeros to whole tiles.
 *
 *   type         rows x columns   bytes   piece of a lane
 *   Q4_K            16 x 256       2304   32 nibbles of sub-block l % 8: low = values 0..15, high = 16..31
 *   Q6_K            16 x 256       3360   as Q4_K, and 8 bytes of upper two bits
 *   Q8_0            16 x 128       2176   16 int8
 *   F16, BF16       16 x  64       2048   8 values
 *   F32             16 x  32       2048   4 values
 *   Q5_K            16 x 256       2816   as Q4_K, and 32 fifth bits
 *   raw.cuh's       16 x 256              32 values; a row's bytes of 256 columns are together, as in the
 * file
 *
 * Q4_0, Q5_0 and IQ4_NL, whose values are int8 times a scale for 32, are held as Q8_0 without loss.
 */
#ifndef APR_TILES_CUH
#define APR_TILES_CUH

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <stdint.h>

#include "raw.cuh"

#define TILE_ROWS 16
#define ACT_COLS  256

/* 256 activations in 16-bit integers, a scale for 16: value i of sub-block j is x[i / 8][j][i % 8]. s[j]:
 * scales of values 0..15 and 16..31 of sub-block j, and those times the sums of the integers. Eight bits cost
 * a mean KL of 4.5e-3 against F32 activations (demonstration model); sixteen cost a second dot product of
 * four. */
struct act_block {
    int16_t x[4][8][8];
    float4 s[8];
};
static_assert(sizeof(act_block) == 640, "act_block");

struct act_scale {
    float d, inv;
};
/* top: the largest magnitude of 16; NaN and infinity must show. */
static __device__ __forceinline__ act_scale act_scale_of(float top)
{
    act_scale s = {top * (1.0f / 32767.0f), top > 1e-30f ? __fdividef(32767.0f, top) : 0};
    if (!(top < 3.0e38f)) s.d = __int_as_float(0x7fc00000), s.inv = 0;
    return s;
}
/* The largest magnitude of four, as an integer of the same order: NaN is above everything, so it shows. */
static __device__ __forceinline__ uint32_t top_of(float x, float y, float z, float w)
{
    const uint32_t a = __float_as_uint(fabsf(x)), b = __float_as_uint(fabsf(y)),
                   c = __float_as_uint(fabsf(z)), d = __float_as_uint(fabsf(w));
    return max(max(a, b), max(c, d));
}
/* ... and of the four lanes that share a scale */
static __device__ __forceinline__ float top16(uint32_t top)
{
    top = max(top, __shfl_xor_sync(~0u, top, 1));
    return __uint_as_float(max(top, __shfl_xor_sync(~0u, top, 2)));
}
static __device__ __forceinline__ void act_put(act_block *b, uint32_t i, int16_t q)
{
    b[i / 256].x[i % 32 / 8][i % 256 / 32][i % 8] = q;
}
/* i: the first of 16 whose integers add up to sum */
static __device__ __forceinline__ void act_put_scale(act_block *b, uint32_t i, float d, int sum)
{
    float *s = (float *)&b[i / 256].s[i % 256 / 32];
    s[i % 32 / 16] = d;
    s[2 + i % 32 / 16] = d * (float)sum;
}

/* Activations of up to 64 tokens for tensor cores, F16, in the order in which the lanes take them:
 * [256 columns][8 tokens][8 pieces][32 lanes] of 8 values. Lane 4 g + i has token g; piece 4 h + w has of the
 * sub-blocks 4 h + i the values 4 w + {0, 2, 1, 3}, then 16 + 4 w + {0, 2, 1, 3}: the order in which a word
 * of nibbles comes apart. */
static __host__ __device__ __forceinline__ uint64_t frag_at(uint32_t n8, uint32_t t, uint32_t i)
{
    uint32_t b = i % 256 / 16, v = i % 16, piece = b / 8 * 4 + v / 4, lane = t % 8 * 4 + b / 2 % 4,
             at = b % 2 * 4 + (v & 1) * 2 + (v >> 1 & 1);
    return ((((uint64_t)(i / 256) * n8 + t / 8) * 8 + piece) * 32 + lane) * 8 + at;
}
#define FRAG_CHUNK_BYTES 4096u /* of 8 tokens */

#define TILE_OF(name, type, n_block, n_bytes, n_head) TILE_raw_##name,
enum tile_kind {
    TILE_Q4_K,
    TILE_Q6_K,
    TILE_Q8_0,
    TILE_F16,
    TILE_BF16,
    TILE_F32,
    TILE_Q5_K,
    RAW_TYPES(TILE_OF) N_TILE_KINDS
};
#define TILE_RAW_FIRST (TILE_Q5_K + 1)

struct tile_q4_k {
    uint4 q[4][32];
    uint32_t lo[32]; /* byte p: low four bits of scale and of min of plane p */
    uint16_t hi[32]; /* nibble p: upper two bits of scale and of min */
    __half2 d[4][4]; /* [quarter][plane]: d, dmin */
};
static_assert(sizeof(tile_q4_k) == 16 * 144, "tile_q4_k");

struct tile_q5_k {
    tile_q4_k low;
    uint32_t fifth[4][32]; /* bit i: of value i */
};
static_assert(sizeof(tile_q5_k) == 16 * 176, "tile_q5_k");

struct tile_q6_k {
    uint4 lo[4][32];
    uint2 hi[4][32]; /* bits 8 b + 2 i of x: value 4 i + b; of y: value 16 + 4 i + b */
    char2 scale[4][32];
    __half d[4][4]; /* [quarter][plane] */
};
static_assert(sizeof(tile_q6_k) == 16 * 210, "tile_q6_k");

struct tile_q8_0 {
    uint4 q[4][32];
    __half d[4][16]; /* [plane][4 quarter + block] */
};
static_assert(sizeof(tile_q8_0) == 16 * 4 * 34, "tile_q8_0");

struct tile_16 { /* F16, BF16 */
    uint4 x[4][32];
};
struct tile_f32 {
    float4 x[4][32];
};
static_assert(sizeof(tile_16) == 2048 && sizeof(tile_f32) == 2048, "tile_16");

__host__ __device__ constexpr bool tile_is_raw(int kind)
{
    return kind >= TILE_RAW_FIRST;
}
/* Of a row of a raw tile: 256 columns, and what stands before a row. */
__host__ __device__ constexpr uint32_t tile_row_bytes(int kind)
{
#define ROW_BYTES(name, type, n_block, n_bytes, n_head)                                                      \
    if (kind == TILE_raw_##name) return 256 / (n_block) * (n_bytes) + (n_head);
    RAW_TYPES(ROW_BYTES)
    return 0;
}
__host__ __device__ constexpr uint32_t tile_cols(int kind)
{
    return kind == TILE_Q8_0 ? 128 : kind == TILE_F32 ? 32 : kind == TILE_F16 || kind == TILE_BF16 ? 64 : 256;
}
__host__ __device__ constexpr uint32_t tile_bytes(int kind)
{
    return kind == TILE_Q4_K   ? sizeof(tile_q4_k)
           : kind == TILE_Q6_K ? sizeof(tile_q6_k)
           : kind == TILE_Q8_0 ? sizeof(tile_q8_0)
           : kind == TILE_Q5_K ? sizeof(tile_q5_k)
           : tile_is_raw(kind) ? TILE_ROWS * tile_row_bytes(kind)
                               : sizeof(tile_16);
}
/* Computed with activations in integers. */
__host__ __device__ constexpr bool tile_is_quantized(int kind)
{
    return kind == TILE_Q4_K || kind == TILE_Q6_K || kind == TILE_Q8_0 || kind == TILE_Q5_K;
}

/* four bytes of w times the four 16-bit integers of x0 and x1, added to c */
static __device__ __forceinline__ int dot4_u(uint32_t w, int x0, int x1, int c)
{
    int d;
    asm("dp2a.lo.s32.u32 %0, %1, %2, %3;" : "=r"(d) : "r"(x0), "r"(w), "r"(c));
    asm("dp2a.hi.s32.u32 %0, %1, %2, %3;" : "=r"(c) : "r"(x1), "r"(w), "r"(d));
    return c;
}
static __device__ __forceinline__ int dot4_s(uint32_t w, int x0, int x1, int c)
{
    int d;
    asm("dp2a.lo.s32.s32 %0, %1, %2, %3;" : "=r"(d) : "r"(x0), "r"(w), "r"(c));
    asm("dp2a.hi.s32.s32 %0, %1, %2, %3;" : "=r"(c) : "r"(x1), "r"(w), "r"(d));
    return c;
}

/* acc[p] += row 4 p + lane / 8 of the tile times the activations; sums over the lanes of a quarter remain. */
static __device__ __forceinline__ void tile_mac_q4_k(const tile_q4_k *t, const act_block *act, int lane,
                                                     float acc[4])
{
    const int4 *x = (const int4 *)act->x[0][lane % 8];
    const int4 x0 = x[0], x1 = x[8], x2 = x[16], x3 = x[24];
    const float4 s = act->s[lane % 8];
    float sum = s.z + s.w;
    uint32_t lo = t->lo[lane], hi = t->hi[lane];
    uint4 dw = *(const uint4 *)t->d[lane / 8];
    const uint32_t d4[4] = {dw.x, dw.y, dw.z, dw.w};
#pragma unroll
    for (int p = 0; p < 4; p++) {
        uint4 q = t->q[p][lane];
        int l = dot4_u(q.x & 0x0f0f0f0fu, x0.x, x0.y, 0), h = dot4_u(q.x & 0xf0f0f0f0u, x2.x, x2.y, 0);
        l = dot4_u(q.y & 0x0f0f0f0fu, x0.z, x0.w, l), h = dot4_u(q.y & 0xf0f0f0f0u, x2.z, x2.w, h);
        l = dot4_u(q.z & 0x0f0f0f0fu, x1.x, x1.y, l), h = dot4_u(q.z & 0xf0f0f0f0u, x3.x, x3.y, h);
        l = dot4_u(q.w & 0x0f0f0f0fu, x1.z, x1.w, l), h = dot4_u(q.w & 0xf0f0f0f0u, x3.z, x3.w, h);
        uint32_t up = hi >> 4 * p;
        float scale = (float)(int)((lo >> 8 * p & 15u) | (up & 3u) << 4);
        float min = (float)(int)((lo >> (8 * p + 4) & 15u) | (up & 12u) << 2);
        float2 d = __half22float2(*(const __half2 *)&d4[p]);
        float dot = s.x * (float)l + s.y * (float)(h >> 4);
        acc[p] = fmaf(d.x * scale, dot, acc[p]);
        acc[p] = fmaf(-d.y * min, sum, acc[p]);
    }
}

/* Four fifth bits to bit 4 of four bytes. */
static __device__ __forceinline__ uint32_t fifths(uint32_t bits, int i)
{
    uint32_t b = bits >> 4 * i & 15u;
    return (b | b << 7 | b << 14 | b << 21) << 4 & 0x10101010u;
}
static __device__ __forceinline__ void tile_mac_q5_k(const tile_q5_k *t, const act_block *act, int lane,
                                                     float acc[4])
{
    const int4 *xs = (const int4 *)act->x[0][lane % 8];
    const int4 x0 = xs[0], x1 = xs[8], x2 = xs[16], x3 = xs[24];
    const float4 s = act->s[lane % 8];
    const int a[8] = {x0.x, x0.y, x0.z, x0.w, x1.x, x1.y, x1.z, x1.w},
              b[8] = {x2.x, x2.y, x2.z, x2.w, x3.x, x3.y, x3.z, x3.w};
    float sum = s.z + s.w;
    uint32_t lo = t->low.lo[lane], hi = t->low.hi[lane];
#pragma unroll
    for (int p = 0; p < 4; p++) {
        uint4 q = t->low.q[p][lane];
        const uint32_t w[4] = {q.x, q.y, q.z, q.w}, up = hi >> 4 * p, fifth = t->fifth[p][lane];
        int l = 0, h = 0;
#pragma unroll
        for (int i = 0; i < 4; i++) {
            l = dot4_u((w[i] & 0x0f0f0f0fu) | fifths(fifth, i), a[2 * i], a[2 * i + 1], l);
            h = dot4_u((w[i] >> 4 & 0x0f0f0f0fu) | fifths(fifth, 4 + i), b[2 * i], b[2 * i + 1], h);
        }
        float scale = (float)(int)((lo >> 8 * p & 15u) | (up & 3u) << 4);
        float min = (float)(int)((lo >> (8 * p + 4) & 15u) | (up & 12u) << 2);
        float2 d = __half22float2(t->low.d[lane / 8][p]);
        acc[p] = fmaf(d.x * scale, s.x * (float)l + s.y * (float)h, acc[p]);
        acc[p] = fmaf(-d.y * min, sum, acc[p]);
    }
}

static __device__ __forceinline__ void tile_mac_q6_k(const tile_q6_k *t, const act_block *act, int lane,
                                                     float acc[4])
{
    const int4 *xs = (const int4 *)act->x[0][lane % 8];
    const int4 x0 = xs[0], x1 = xs[8], x2 = xs[16], x3 = xs[24];
    const float4 s = act->s[lane % 8];
    const int a[8] = {x0.x, x0.y, x0.z, x0.w, x1.x, x1.y, x1.z, x1.w},
              b[8] = {x2.x, x2.y, x2.z, x2.w, x3.x, x3.y, x3.z, x3.w};
    uint2 dw = *(const uint2 *)t->d[lane / 8];
    const __half2 d2[2] = {*(const __half2 *)&dw.x, *(const __half2 *)&dw.y};
#pragma unroll
    for (int p = 0; p < 4; p++) {
        uint4 q = t->lo[p][lane];
        uint2 up = t->hi[p][lane];
        const uint32_t w[4] = {q.x, q.y, q.z, q.w};
        int l = 0, h = 0;
#pragma unroll
        for (int i = 0; i < 4; i++) {
            uint32_t ul = up.x >> 2 * i & 0x03030303u, uh = up.y >> 2 * i & 0x03030303u;
            l = dot4_u((w[i] & 0x0f0f0f0fu) | ul << 4, a[2 * i], a[2 * i + 1], l);
            h = dot4_u((w[i] >> 4 & 0x0f0f0f0fu) | uh << 4, b[2 * i], b[2 * i + 1], h);
        }
        char2 sc = t->scale[p][lane];
        float d = p % 2 ? __high2float(d2[p / 2]) : __low2float(d2[p / 2]);
        float lo = fmaf(s.x, (float)l, -32.0f * s.z), up16 = fmaf(s.y, (float)h, -32.0f * s.w);
        acc[p] = fmaf(d, fmaf((float)sc.x, lo, (float)sc.y * up16), acc[p]);
    }
}

/* i_half: which 128 of the 256 activations */
static __device__ __forceinline__ void tile_mac_q8_0(const tile_q8_0 *t, const act_block *act, int i_half,
                                                     int lane, float acc[4])
{
    int i_sub = 4 * i_half + lane % 8 / 2;
    bool upper = lane & 1;
    const int4 *x = (const int4 *)act->x[upper ? 2 : 0][i_sub];
    const int4 x0 = x[0], x1 = x[8];
    float s = upper ? act->s[i_sub].y : act->s[i_sub].x;
#pragma unroll
    for (int p = 0; p < 4; p++) {
        uint4 q = t->q[p][lane];
        int v = dot4_s(q.x, x0.x, x0.y, 0);
        v = dot4_s(q.y, x0.z, x0.w, v);
        v = dot4_s(q.z, x1.x, x1.y, v);
        v = dot4_s(q.w, x1.z, x1.w, v);
        float d = __half2float(t->d[p][lane / 8 * 4 + lane % 8 / 2]);
        acc[p] = fmaf(d * s, (float)v, acc[p]);
    }
}

template <bool BF16> static __device__ __forceinline__ float2 pair_of(uint32_t w)
{
    if (BF16) return make_float2(__uint_as_float(w << 16), __uint_as_float(w & 0xffff0000u));
    return __half22float2(*(const __half2 *)&w);
}
/* x: the tile's 64 activations */
template <bool BF16>
static __device__ __forceinline__ void tile_mac_16(const tile_16 *t, const float *x, int lane, float acc[4])
{
    float4 x0 = *(const float4 *)(x + lane % 8 * 8), x1 = *(const float4 *)(x + lane % 8 * 8 + 4);
#pragma unroll
    for (int p = 0; p < 4; p++) {
        uint4 w = t->x[p][lane];
        float2 a = pair_of<BF16>(w.x), b = pair_of<BF16>(w.y), c = pair_of<BF16>(w.z), d = pair_of<BF16>(w.w);
        float v = acc[p];
        v = fmaf(a.x, x0.x, v), v = fmaf(a.y, x0.y, v), v = fmaf(b.x, x0.z, v), v = fmaf(b.y, x0.w, v);
        v = fmaf(c.x, x1.x, v), v = fmaf(c.y, x1.y, v), v = fmaf(d.x, x1.z, v), v = fmaf(d.y, x1.w, v);
        acc[p] = v;
    }
}
static __device__ __forceinline__ void tile_mac_f32(const tile_f32 *t, const float *x, int lane, float acc[4])
{
    float4 x0 = *(const float4 *)(x + lane % 8 * 4);
#pragma unroll
    for (int p = 0; p < 4; p++) {
        float4 w = t->x[p][lane];
        acc[p] = fmaf(w.x, x0.x, fmaf(w.y, x0.y, fmaf(w.z, x0.z, fmaf(w.w, x0.w, acc[p]))));
    }
}

/* The values of a lane's piece in plane p, as the type defines them: 32, 16, 8 or 4 of them. */
static __device__ __forceinline__ int tile_values(int kind, const void *tile, int p, int lane, float *x)
{
    if (tile_is_raw(kind)) {
        const uint8_t *row = (const uint8_t *)tile + (4 * p + lane / 8) * tile_row_bytes(kind);
#define RAW_VALUES(name, type, n_block, n_bytes, n_head)                                                     \
    if (kind == TILE_raw_##name) raw_##name(row, lane % 8, x);
        RAW_TYPES(RAW_VALUES)
        return 32;
    }
    if (kind == TILE_Q4_K || kind == TILE_Q5_K) { /* the latter begins as the former */
        const tile_q4_k *t = (const tile_q4_k *)tile;
        const uint8_t *q = (const uint8_t *)&t->q[p][lane];
        const uint32_t fifth = kind == TILE_Q5_K ? ((const tile_q5_k *)tile)->fifth[p][lane] : 0;
        uint32_t up = t->hi[lane] >> 4 * p;
        float2 d = __half22float2(t->d[lane / 8][p]);
        float dl = d.x * (float)(int)((t->lo[lane] >> 8 * p & 15u) | (up & 3u) << 4);
        float ml = d.y * (float)(int)((t->lo[lane] >> (8 * p + 4) & 15u) | (up & 12u) << 2);
#pragma unroll
        for (int i = 0; i < 16; i++) {
            x[i] = __fsub_rn(__fmul_rn(dl, (float)((q[i] & 15u) | (fifth >> i & 1u) << 4)), ml);
            x[16 + i] = __fsub_rn(__fmul_rn(dl, (float)((q[i] >> 4) | (fifth >> (16 + i) & 1u) << 4)), ml);
        }
        return 32;
    }
    if (kind == TILE_Q6_K) {
        const tile_q6_k *t = (const tile_q6_k *)tile;
        const uint8_t *q = (const uint8_t *)&t->lo[p][lane];
        uint2 up = t->hi[p][lane];
        char2 s = t->scale[p][lane];
        float d = __half2float(t->d[lane / 8][p]);
        float d0 = d * (float)s.x, d1 = d * (float)s.y;
#pragma unroll
        for (int i = 0; i < 16; i++) {
            int bit = 8 * (i % 4) + 2 * (i / 4);
            x[i] = d0 * (float)((int)((q[i] & 15) | (up.x >> bit & 3u) << 4) - 32);
            x[16 + i] = d1 * (float)((int)((q[i] >> 4) | (up.y >> bit & 3u) << 4) - 32);
        }
        return 32;
    }
    if (kind == TILE_Q8_0) {
        const tile_q8_0 *t = (const tile_q8_0 *)tile;
        const int8_t *q = (const int8_t *)&t->q[p][lane];
        float d = __half2float(t->d[p][lane / 8 * 4 + lane % 8 / 2]);
#pragma unroll
        for (int i = 0; i < 16; i++) x[i] = d * (float)q[i];
        return 16;
    }
    if (kind == TILE_F32) {
        const float *v = (const float *)&((const tile_f32 *)tile)->x[p][lane];
#pragma unroll
        for (int i = 0; i < 4; i++) x[i] = v[i];
        return 4;
    }
    const uint32_t *w = (const uint32_t *)&((const tile_16 *)tile)->x[p][lane];
#pragma unroll
    for (int i = 0; i < 4; i++) {
        float2 v = kind == TILE_BF16 ? pair_of<true>(w[i]) : pair_of<false>(w[i]);
        x[2 * i] = v.x, x[2 * i + 1] = v.y;
    }
    return 8;
}

#endif
