/* From GGML's rows to tiles and back.
 *
 * Packing moves bits; nothing is rounded (test: unpacked rows equal the type's own dequantization bit for
 * bit). One warp makes one tile; bytes moved are the matrix read once and written once, which the copy
 * over PCIe outweighs by far.
 */
#include "plugin.cuh"

#include "../quant/quant.h"

struct src { /* rows on the device */
    const uint8_t *rows;
    uint64_t row_bytes;
    uint32_t i_row, n_rows; /* rows i_row .. i_row + n_rows of the matrix */
};

static __device__ __forceinline__ uint16_t u16_at(const uint8_t *p)
{
    return (uint16_t)(p[0] | p[1] << 8);
}
static __device__ __forceinline__ __half half_at(const uint8_t *p)
{
    return __ushort_as_half(u16_at(p));
}

/* The row of the matrix that (plane, lane) of a group belongs to, or NULL beyond the last. */
static __device__ __forceinline__ const uint8_t *row_at(const struct src *s, const struct mat *m,
                                                        uint32_t i_group, int p, int lane)
{
    uint32_t r = i_group * TILE_ROWS + 4 * p + lane / 8;
    return r < m->n_rows ? s->rows + (uint64_t)(r - s->i_row) * s->row_bytes : NULL;
}

/* 6-bit scale and min of sub-block j (GGML: 12 bytes for eight pairs). */
static __device__ __forceinline__ void q4_k_scale(const uint8_t *s, int j, uint32_t *scale, uint32_t *min)
{
    if (j < 4) {
        *scale = s[j] & 63u;
        *min = s[j + 4] & 63u;
    } else {
        *scale = (s[j + 4] & 15u) | (uint32_t)(s[j - 4] >> 6) << 4;
        *min = (uint32_t)(s[j + 4] >> 4) | (uint32_t)(s[j] >> 6) << 4;
    }
}

/* Q4_K, or with n_bytes 176 Q5_K: the nibbles stand behind the fifth bits there. */
static __device__ void pack_q4_k(const struct src *s, const struct mat *m, uint32_t g, uint32_t c, int lane,
                                 uint32_t n_bytes, tile_q4_k *t)
{
    const uint32_t off_q = n_bytes - 128;
    uint32_t lo = 0, hi = 0;
    int j = lane % 8;
    for (int p = 0; p < 4; p++) {
        const uint8_t *row = row_at(s, m, g, p, lane), *b = row ? row + (uint64_t)c * n_bytes : NULL;
        uint8_t q[16];
        uint32_t scale = 0, min = 0;
        for (int i = 0; i < 16; i++) {
            const uint8_t *v = b ? b + off_q + 32 * (j / 2) + i : NULL;
            uint32_t low = v ? (j % 2 ? v[0] >> 4 : v[0] & 15) : 0,
                     high = v ? (j % 2 ? v[16] >> 4 : v[16] & 15) : 0;
            q[i] = (uint8_t)(low | high << 4);
        }
        if (b) q4_k_scale(b + 4, j, &scale, &min);
        lo |= ((scale & 15u) | (min & 15u) << 4) << 8 * p;
        hi |= (scale >> 4 | (min >> 4) << 2) << 4 * p;
        memcpy(&t->q[p][lane], q, 16);
        if (j == 0)
            t->d[lane / 8][p] = b ? __halves2half2(half_at(b), half_at(b + 2)) : __floats2half2_rn(0, 0);
    }
    t->lo[lane] = lo;
    t->hi[lane] = (uint16_t)hi;
}

static __device__ void pack_q5_k(const struct src *s, const struct mat *m, uint32_t g, uint32_t c, int lane,
                                 tile_q5_k *t)
{
    pack_q4_k(s, m, g, c, lane, 176, &t->low);
    for (int p = 0; p < 4; p++) {
        const uint8_t *row = row_at(s, m, g, p, lane), *high = row ? row + (uint64_t)c * 176 + 16 : NULL;
        uint32_t bits = 0;
        for (int i = 0; high && i < 32; i++) bits |= (uint32_t)(high[i] >> lane % 8 & 1) << i;
        t->fifth[p][lane] = bits;
    }
}

static __device__ void pack_q6_k(const struct src *s, const struct mat *m, uint32_t g, uint32_t c, int lane,
                                 tile_q6_k *t)
{
    int j = lane % 8, h = j / 4, k = j % 4;
    for (int p = 0; p < 4; p++) {
        const uint8_t *row = row_at(s, m, g, p, lane), *b = row ? row + (uint64_t)c * 210 : NULL;
        uint8_t q[16];
        uint2 up = make_uint2(0, 0);
        for (int i = 0; i < 16; i++) {
            uint32_t l[2] = {0, 0}, u[2] = {0, 0};
            for (int n = 0; b && n < 2; n++) {
                l[n] = b[64 * h + 32 * (k & 1) + i + 16 * n] >> 4 * (k / 2) & 15u;
                u[n] = b[128 + 32 * h + i + 16 * n] >> 2 * k & 3u;
            }
            q[i] = (uint8_t)(l[0] | l[1] << 4);
            up.x |= u[0] << (8 * (i % 4) + 2 * (i / 4));
            up.y |= u[1] << (8 * (i % 4) + 2 * (i / 4));
        }
        memcpy(&t->lo[p][lane], q, 16);
        t->hi[p][lane] = up;
        t->scale[p][lane] =
            b ? make_char2((signed char)b[192 + 8 * h + 2 * k], (signed char)b[193 + 8 * h + 2 * k])
              : make_char2(0, 0);
        if (j == 0) t->d[lane / 8][p] = b ? half_at(b + 208) : __float2half(0);
    }
}

/* Value i of a block of 32 as an int8; the scale is the block's first half-word in all of these. */
static __device__ __forceinline__ int small_value(uint32_t type, const uint8_t *b, int i)
{
    static const int8_t iq4[16] = {-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113};
    if (type == APR_Q8_0) return (int8_t)b[2 + i];
    if (type == APR_Q4_0) return (i < 16 ? b[2 + i] & 15 : b[2 + i - 16] >> 4) - 8;
    if (type == APR_IQ4_NL) return iq4[i < 16 ? b[2 + i] & 15 : b[2 + i - 16] >> 4];
    uint32_t high = b[2 + i / 8] >> i % 8 & 1u; /* Q5_0 */
    return (int)((i < 16 ? b[6 + i] & 15u : b[6 + i - 16] >> 4) | high << 4) - 16;
}
static __host__ __device__ int small_bytes(uint32_t type)
{
    return type == APR_Q8_0 ? 34 : type == APR_Q5_0 ? 22 : 18;
}
static __device__ void pack_q8_0(const struct src *s, const struct mat *m, uint32_t type, uint32_t g,
                                 uint32_t c, int lane, tile_q8_0 *t)
{
    int j = lane % 8;
    uint32_t i_block = c * 4 + (uint32_t)j / 2;
    for (int p = 0; p < 4; p++) {
        const uint8_t *row = row_at(s, m, g, p, lane);
        const uint8_t *b =
            row && i_block * 32 < m->n_cols ? row + (uint64_t)i_block * small_bytes(type) : NULL;
        int8_t q[16];
        for (int i = 0; i < 16; i++) q[i] = b ? (int8_t)small_value(type, b, 16 * (j % 2) + i) : 0;
        memcpy(&t->q[p][lane], q, 16);
        if (j % 2 == 0) t->d[p][lane / 8 * 4 + j / 2] = b ? half_at(b) : __float2half(0);
    }
}

/* F16, BF16 (n = 8 values of 2 bytes) and F32 (n = 4 of 4 bytes): 16 bytes either way */
static __device__ void pack_plain(const struct src *s, const struct mat *m, uint32_t g, uint32_t c, int lane,
                                  int n_value_bytes, uint8_t *t)
{
    uint32_t n = 16 / n_value_bytes, i_col = c * 8 * n + (uint32_t)(lane % 8) * n;
    for (int p = 0; p < 4; p++) {
        const uint8_t *row = row_at(s, m, g, p, lane);
        uint8_t v[16];
        for (uint32_t i = 0; i < 16; i++) {
            uint32_t col = i_col + i / n_value_bytes;
            v[i] = row && col < m->n_cols ? row[(uint64_t)i_col * n_value_bytes + i] : 0;
        }
        memcpy(t + (p * 32 + lane) * 16, v, 16);
    }
}

/* A row's bytes of 256 columns behind what stands before the row; zeros behind its last column. */
static __device__ void pack_raw(const struct src *s, const struct mat *m, uint32_t g, uint32_t c, int lane,
                                uint32_t n_head, uint8_t *t)
{
    const uint32_t n = tile_row_bytes(m->kind), n_body = n - n_head;
    for (uint32_t i = (uint32_t)lane; i < TILE_ROWS * n; i += 32) {
        uint32_t r = g * TILE_ROWS + i / n, k = i % n;
        uint64_t at = k < n_head ? k : n_head + (uint64_t)c * n_body + (k - n_head);
        bool there = r < m->n_rows && at < s->row_bytes;
        t[i] = there ? s->rows[(uint64_t)(r - s->i_row) * s->row_bytes + at] : 0;
    }
}

static __global__ void pack_kernel(struct mat m, struct src s, uint32_t type, uint32_t n_head,
                                   uint32_t n_groups)
{
    uint32_t i = blockIdx.x * blockDim.y + threadIdx.y, i_group = s.i_row / TILE_ROWS + i / m.n_chunks;
    uint32_t c = i % m.n_chunks;
    int lane = (int)threadIdx.x;
    if (i >= n_groups * m.n_chunks) return;
    uint8_t *t = m.tiles + ((uint64_t)i_group * m.n_chunks + c) * tile_bytes(m.kind);
    if (tile_is_raw(m.kind)) {
        pack_raw(&s, &m, i_group, c, lane, n_head, t);
        return;
    }
    switch (m.kind) {
    case TILE_Q4_K:
        pack_q4_k(&s, &m, i_group, c, lane, 144, (tile_q4_k *)t);
        break;
    case TILE_Q5_K:
        pack_q5_k(&s, &m, i_group, c, lane, (tile_q5_k *)t);
        break;
    case TILE_Q6_K:
        pack_q6_k(&s, &m, i_group, c, lane, (tile_q6_k *)t);
        break;
    case TILE_Q8_0:
        pack_q8_0(&s, &m, type, i_group, c, lane, (tile_q8_0 *)t);
        break;
    case TILE_F32:
        pack_plain(&s, &m, i_group, c, lane, 4, t);
        break;
    case TILE_F16:
    case TILE_BF16:
        pack_plain(&s, &m, i_group, c, lane, 2, t);
        break;
    }
}

struct known {
    uint32_t type;
    int kind;
    uint32_t n_block, n_bytes; /* values and bytes of a block */
    uint32_t n_head;           /* bytes before a row */
};
#define KNOWN_RAW(name, type, n_block, n_bytes, n_head) {type, TILE_raw_##name, n_block, n_bytes, n_head},
static const struct known *known_of(uint32_t type)
{
    static const struct known all[] = {{APR_Q4_K, TILE_Q4_K, 256, 144, 0},
                                       {APR_Q5_K, TILE_Q5_K, 256, 176, 0},
                                       {APR_Q6_K, TILE_Q6_K, 256, 210, 0},
                                       {APR_Q8_0, TILE_Q8_0, 32, 34, 0},
                                       {APR_Q4_0, TILE_Q8_0, 32, 18, 0},
                                       {APR_Q5_0, TILE_Q8_0, 32, 22, 0},
                                       {APR_IQ4_NL, TILE_Q8_0, 32, 18, 0},
                                       {APR_F16, TILE_F16, 1, 2, 0},
                                       {APR_BF16, TILE_BF16, 1, 2, 0},
                                       {APR_F32, TILE_F32, 1, 4, 0},
                                       RAW_TYPES(KNOWN_RAW)};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        if (all[i].type == type) return &all[i];
    return NULL;
}

bool repack_kind(uint32_t type, int *kind)
{
    const struct known *k = known_of(type);
    if (k) *kind = k->kind;
    return k != NULL;
}
uint64_t repack_row_bytes(uint32_t type, uint32_t n_cols)
{
    const struct known *k = known_of(type);
    return k && n_cols % k->n_block == 0 ? k->n_head + (uint64_t)n_cols / k->n_block * k->n_bytes : 0;
}

uint64_t repack_bytes(int kind, uint32_t n_rows, uint32_t n_cols)
{
    uint64_t n_groups = (n_rows + TILE_ROWS - 1) / TILE_ROWS,
             n_chunks = (n_cols + tile_cols(kind) - 1) / tile_cols(kind);
    return n_groups * n_chunks * tile_bytes(kind);
}

void repack_rows(const struct mat *m, uint32_t type, const void *rows, uint64_t row_bytes, uint32_t i_row,
                 uint32_t n_rows, cudaStream_t s)
{
    uint32_t n_groups = (n_rows + TILE_ROWS - 1) / TILE_ROWS, n = n_groups * m->n_chunks;
    struct src src = {(const uint8_t *)rows, row_bytes, i_row, n_rows};
    pack_kernel<<<(n + 3) / 4, dim3(32, 4), 0, s>>>(*m, src, type, known_of(type)->n_head, n_groups);
}

/* ---- back ------------------------------------------------------------------------------------------------
 */

template <class OUT>
static __device__ __forceinline__ void unpack_lane(const struct mat &m, uint32_t i_tile, int lane,
                                                   uint32_t i_row0, OUT put)
{
    uint32_t g = i_tile / m.n_chunks, c = i_tile % m.n_chunks;
    const uint8_t *t = m.tiles + (uint64_t)i_tile * tile_bytes(m.kind);
    for (int p = 0; p < 4; p++) {
        float x[32];
        uint32_t row = g * TILE_ROWS + 4 * p + lane / 8;
        uint32_t n = (uint32_t)tile_values(m.kind, t, p, lane, x);
        uint32_t col = c * tile_cols(m.kind) + (uint32_t)(lane % 8) * n;
        put(row - i_row0, col, n, x);
    }
}

static __global__ void unpack_f32_kernel(struct mat m, uint32_t i_tile0, uint32_t n_tiles, uint32_t i_row,
                                         uint32_t n_rows, float *out)
{
    uint32_t i = blockIdx.x * blockDim.y + threadIdx.y;
    if (i >= n_tiles) return;
    unpack_lane(m, i_tile0 + i, (int)threadIdx.x, i_row,
                [&](uint32_t r, uint32_t col, uint32_t n, const float *x) {
                    if (r >= n_rows) return;
                    for (uint32_t k = 0; k < n; k++)
                        if (col + k < m.n_cols) out[(uint64_t)r * m.n_cols + col + k] = x[k];
                });
}
void unpack_f32(const struct mat *m, uint32_t i_row, uint32_t n_rows, float *out, cudaStream_t s)
{
    uint32_t n_tiles = (n_rows + TILE_ROWS - 1) / TILE_ROWS * m->n_chunks;
    unpack_f32_kernel<<<(n_tiles + 3) / 4, dim3(32, 4), 0, s>>>(*m, i_row / TILE_ROWS * m->n_chunks, n_tiles,
                                                                i_row, n_rows, out);
}

/* For prompts: a warp writes rows of 16-byte pieces. */
template <int KIND> static __global__ void unpack_f16_kernel(struct mat m, uint32_t n_tiles, __half *out)
{
    const float scale = KIND == TILE_F16 ? 1.0f : W16_SCALE;
    uint32_t i = blockIdx.x * blockDim.y + threadIdx.y;
    int lane = (int)threadIdx.x;
    if (i >= n_tiles) return;
    uint32_t g = i / m.n_chunks, c = i % m.n_chunks;
    const uint8_t *t = m.tiles + (uint64_t)i * tile_bytes(KIND);
#pragma unroll
    for (int p = 0; p < 4; p++) {
        float x[32];
        uint32_t row = g * TILE_ROWS + 4 * p + lane / 8;
        const int n = tile_values(KIND, t, p, lane, x);
        uint32_t col = c * tile_cols(KIND) + (uint32_t)(lane % 8) * n;
        if (row >= m.n_rows) continue;
        __half *to = out + (uint64_t)row * m.n_cols + col;
        if (col + n <= m.n_cols && m.n_cols % 8 == 0 && n % 8 == 0) {
#pragma unroll
            for (int k = 0; k < n; k += 8) {
                __half2 v[4];
#pragma unroll
                for (int q = 0; q < 4; q++)
                    v[q] = __floats2half2_rn(x[k + 2 * q] * scale, x[k + 2 * q + 1] * scale);
                *(uint4 *)(to + k) = *(const uint4 *)v;
            }
        } else {
            for (int k = 0; k < n; k++)
                if (col + k < m.n_cols) to[k] = __float2half_rn(x[k] * scale);
        }
    }
}
typedef void unpack_f16_fn(struct mat m, uint32_t n_tiles, __half *out);
#define UNPACK_RAW(name, type, n_block, n_bytes, n_head) unpack_f16_kernel<TILE_raw_##name>,
void unpack_f16(const struct mat *m, __half *out, cudaStream_t s)
{
    static unpack_f16_fn *const kernels[] = {unpack_f16_kernel<TILE_Q4_K>, unpack_f16_kernel<TILE_Q6_K>,
                                             unpack_f16_kernel<TILE_Q8_0>, unpack_f16_kernel<TILE_F16>,
                                             unpack_f16_kernel<TILE_BF16>, unpack_f16_kernel<TILE_F32>,
                                             unpack_f16_kernel<TILE_Q5_K>, RAW_TYPES(UNPACK_RAW)};
    static_assert(sizeof kernels / sizeof *kernels == N_TILE_KINDS, "a kernel a kind, in order");
    uint32_t n = m->n_groups * m->n_chunks;
    kernels[m->kind]<<<(n + 3) / 4, dim3(32, 4), 0, s>>>(*m, n, out);
}

/* ---- embedding: one row of tiles a token ------------------------------------------------------------------
 */

static __global__ void embed_kernel(struct mat m, const struct step *rows, float scale, float *out)
{
    const uint32_t id = (uint32_t)rows[blockIdx.x].id;
    float *x = out + (uint64_t)blockIdx.x * m.n_cols;
    int p = (int)(id % TILE_ROWS / 4), quarter = (int)(id % 4);
    if (rows[blockIdx.x].pos < 0) return;
    for (uint32_t i = threadIdx.x; i < m.n_chunks * 8; i += blockDim.x) {
        float v[32];
        uint32_t c = i / 8, lane = quarter * 8 + i % 8;
        const uint8_t *t = m.tiles + ((uint64_t)(id / TILE_ROWS) * m.n_chunks + c) * tile_bytes(m.kind);
        uint32_t n = (uint32_t)tile_values(m.kind, t, p, (int)lane, v),
                 col = c * tile_cols(m.kind) + i % 8 * n;
        for (uint32_t k = 0; k < n; k++)
            if (col + k < m.n_cols) x[col + k] = v[k] * scale;
    }
}
void embed_rows(const struct mat *m, const struct step *rows, uint32_t n, float scale, float *x,
                cudaStream_t s)
{
    embed_kernel<<<n, n == 1 ? 512 : 128, 0, s>>>(*m, rows, scale, x);
}
