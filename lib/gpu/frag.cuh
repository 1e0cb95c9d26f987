/* Weights of a tile as F16 fragments of mma.m16n8k16: a warp takes 16 rows and 128 columns at once.
 *
 * Lane 4 g + i has rows g and g + 8 and the 16-blocks 2 i and 2 i + 1 of these columns (e = 0, 1), and word w
 * of a block is the values 4 w + {0, 2} and {1, 3}: the same order of columns as frag_at (tiles.cuh), so it
 * does not matter to the sums. Values are multiplied by W16_SCALE on the way, which keeps small scales of
 * blocks out of F16's subnormal range; the products are divided by it.
 */
#ifndef APR_FRAG_CUH
#define APR_FRAG_CUH

#include "tiles.cuh"

static __device__ __forceinline__ uint32_t h2_add(uint32_t a, float b)
{
    __half2 v = __hadd2(*(__half2 *)&a, __float2half2_rn(b));
    return *(uint32_t *)&v;
}
static __device__ __forceinline__ uint32_t h2_mul(uint32_t a, __half2 b)
{
    __half2 v = __hmul2(*(__half2 *)&a, b);
    return *(uint32_t *)&v;
}
static __device__ __forceinline__ uint32_t h2_fma(uint32_t a, __half2 b, __half2 c)
{
    __half2 v = __hfma2(*(__half2 *)&a, b, c);
    return *(uint32_t *)&v;
}
static __device__ __forceinline__ uint32_t h2_pack(float x, float y)
{
    __half2 v = __floats2half2_rn(x, y);
    return *(uint32_t *)&v;
}
static __device__ __forceinline__ uint32_t word_of(const uint4 &v, int w)
{
    return w == 0 ? v.x : w == 1 ? v.y : w == 2 ? v.z : v.w;
}

/* What a lane holds of 16 rows and 128 columns; open: half h of 256 columns at p. a: the registers of word w,
 * block e: rows g, g + 8 with values {0, 2}, then with {1, 3}. */
template <int KIND> struct frag;

template <> struct frag<TILE_Q4_K> {
    uint4 q[2];
    __half2 d[2], m[2];
    __device__ __forceinline__ void open(const uint8_t *p, int g, int i, int h)
    {
        const tile_q4_k *t = (const tile_q4_k *)p;
        int l = g % 4 * 8 + 4 * h + i;
        uint32_t lo = t->lo[l], hi = t->hi[l];
#pragma unroll
        for (int r = 0; r < 2; r++) {
            int plane = g / 4 + 2 * r;
            uint32_t low = lo >> 8 * plane, up = hi >> 4 * plane;
            float2 dm = __half22float2(t->d[g % 4][plane]);
            q[r] = t->q[plane][l];
            d[r] = __float2half2_rn(dm.x * W16_SCALE * (float)(int)((low & 15u) | (up & 3u) << 4));
            m[r] = __float2half2_rn(-dm.y * W16_SCALE * (float)(int)((low >> 4 & 15u) | (up & 12u) << 2));
        }
    }
    __device__ __forceinline__ void get(int w, int e, uint32_t a[4]) const
    {
#pragma unroll
        for (int r = 0; r < 2; r++) {
            uint32_t x = word_of(q[r], w) >> 4 * e;
            a[r] = h2_fma(h2_add((x & 0x000f000fu) | 0x64006400u, -1024.0f), d[r], m[r]);
            a[2 + r] = h2_fma(h2_add((x >> 8 & 0x000f000fu) | 0x64006400u, -1024.0f), d[r], m[r]);
        }
    }
};

template <> struct frag<TILE_Q5_K> {
    frag<TILE_Q4_K> low;
    uint32_t fifth[2];
    __device__ __forceinline__ void open(const uint8_t *p, int g, int i, int h)
    {
        const tile_q5_k *t = (const tile_q5_k *)p;
        low.open(p, g, i, h);
#pragma unroll
        for (int r = 0; r < 2; r++) fifth[r] = t->fifth[g / 4 + 2 * r][g % 4 * 8 + 4 * h + i];
    }
    __device__ __forceinline__ void get(int w, int e, uint32_t a[4]) const
    {
#pragma unroll
        for (int r = 0; r < 2; r++) {
            uint32_t x = word_of(low.q[r], w) >> 4 * e, u = fifth[r] >> (16 * e + 4 * w);
            uint32_t v0 = (x & 0x000f000fu) | (u & 1u) << 4 | (u & 4u) << 18 | 0x64006400u,
                     v1 = (x >> 8 & 0x000f000fu) | (u & 2u) << 3 | (u & 8u) << 17 | 0x64006400u;
            a[r] = h2_fma(h2_add(v0, -1024.0f), low.d[r], low.m[r]);
            a[2 + r] = h2_fma(h2_add(v1, -1024.0f), low.d[r], low.m[r]);
        }
    }
};

template <> struct frag<TILE_Q6_K> {
    uint4 q[2];
    uint2 up[2];
    __half2 d[2][2]; /* [row][block] */
    __device__ __forceinline__ void open(const uint8_t *p, int g, int i, int h)
    {
        const tile_q6_k *t = (const tile_q6_k *)p;
        int l = g % 4 * 8 + 4 * h + i;
#pragma unroll
        for (int r = 0; r < 2; r++) {
            int plane = g / 4 + 2 * r;
            float scale = __half2float(t->d[g % 4][plane]) * W16_SCALE;
            char2 s = t->scale[plane][l];
            q[r] = t->lo[plane][l];
            up[r] = t->hi[plane][l];
            d[r][0] = __float2half2_rn(scale * (float)s.x);
            d[r][1] = __float2half2_rn(scale * (float)s.y);
        }
    }
    __device__ __forceinline__ void get(int w, int e, uint32_t a[4]) const
    {
#pragma unroll
        for (int r = 0; r < 2; r++) {
            uint32_t x = word_of(q[r], w) >> 4 * e, u = (e ? up[r].y : up[r].x) >> 2 * w;
            uint32_t v0 = (x & 0x000f000fu) | (u & 0x00030003u) << 4 | 0x64006400u,
                     v1 = (x >> 8 & 0x000f000fu) | (u >> 8 & 0x00030003u) << 4 | 0x64006400u;
            a[r] = h2_mul(h2_add(v0, -1056.0f), d[r][e]);
            a[2 + r] = h2_mul(h2_add(v1, -1056.0f), d[r][e]);
        }
    }
};

template <> struct frag<TILE_Q8_0> {
    uint4 q[2][2]; /* [row][block] */
    __half2 d[2];
    __device__ __forceinline__ void open(const uint8_t *p, int g, int i, int h)
    {
        const tile_q8_0 *t = (const tile_q8_0 *)p + h;
#pragma unroll
        for (int r = 0; r < 2; r++) {
            int plane = g / 4 + 2 * r;
            q[r][0] = t->q[plane][g % 4 * 8 + 2 * i];
            q[r][1] = t->q[plane][g % 4 * 8 + 2 * i + 1];
            d[r] = __float2half2_rn(__half2float(t->d[plane][g % 4 * 4 + i]) * W16_SCALE);
        }
    }
    __device__ __forceinline__ void get(int w, int e, uint32_t a[4]) const
    {
#pragma unroll
        for (int r = 0; r < 2; r++) {
            uint32_t x = word_of(q[r][e], w) ^ 0x80808080u;
            a[r] = h2_mul(h2_add(__byte_perm(x, 0x64646464u, 0x4240), -1152.0f), d[r]);
            a[2 + r] = h2_mul(h2_add(__byte_perm(x, 0x64646464u, 0x4341), -1152.0f), d[r]);
        }
    }
};

template <bool BF16> struct frag_16 {
    const uint4 *t[2]; /* of the two rows: pieces of 8 values */
    __device__ __forceinline__ void open(const uint8_t *p, int g, int i, int h)
    {
        const tile_16 *tile = (const tile_16 *)p + 2 * h + i / 2;
        for (int r = 0; r < 2; r++) t[r] = &tile->x[g / 4 + 2 * r][g % 4 * 8 + i % 2 * 4];
    }
    __device__ __forceinline__ void get(int w, int e, uint32_t a[4]) const
    {
#pragma unroll
        for (int r = 0; r < 2; r++) {
            uint2 x = ((const uint2 *)(t[r] + 2 * e))[w];
            if (BF16) {
                float2 u = pair_of<true>(x.x), v = pair_of<true>(x.y);
                a[r] = h2_pack(u.x * W16_SCALE, v.x * W16_SCALE);
                a[2 + r] = h2_pack(u.y * W16_SCALE, v.y * W16_SCALE);
            } else {
                a[r] = __byte_perm(x.x, x.y, 0x5410);
                a[2 + r] = __byte_perm(x.x, x.y, 0x7632);
            }
        }
    }
};
template <> struct frag<TILE_F16> : frag_16<false> {
};
template <> struct frag<TILE_BF16> : frag_16<true> {
};

#endif
