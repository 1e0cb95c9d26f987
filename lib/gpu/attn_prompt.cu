/* Attention of prompts: rotation and storing of keys and values, flash attention, and the reference.
 *
 * A block takes 64 queries of one head of one sequence, mma.sync m16n8k16 with F16 operands and F32 sums; the
 * bound is the tensor cores'. The cache's layout is in attn_step.cu.
 */
#include "attn.cuh"

/* One warp a (token, head of q, k or v). q is rotated in place (reference mode) or goes to q16. */
static __global__ void rotate_store_kernel(struct heads h, struct kv kv, const struct step *rows, uint32_t n,
                                           float *qkv, __half *q16)
{
    __shared__ float room[4][256];
    uint32_t n_all = h.n_heads + 2 * h.n_heads_kv, i = blockIdx.x * 4 + threadIdx.y, t = i / n_all,
             j = i % n_all;
    int lane = (int)threadIdx.x;
    if (t >= n) return;
    float *x = qkv + ((uint64_t)t * n_all + j) * h.dim, *to = room[threadIdx.y];
    uint32_t pos = (uint32_t)rows[t].pos;
    const int32_t *table = rows[t].table;
    const float2 *turn = h.rope + (uint64_t)pos * (h.dim / 2);
    if (j < h.n_heads) {
        head_prepare(h, x, h.q_norm, turn, h.scale, to, lane);
        __syncwarp();
        for (uint32_t k = lane; k < h.dim_pad; k += 32) {
            if (q16) q16[((uint64_t)t * h.n_heads + j) * h.dim_pad + k] = __float2half_rn(to[k]);
            if (!q16 && k < h.dim) x[k] = to[k];
        }
        return;
    }
    bool is_k = j < h.n_heads + h.n_heads_kv;
    uint32_t i_kv = j - h.n_heads - (is_k ? 0 : h.n_heads_kv);
    if (is_k) {
        head_prepare(h, x, h.k_norm, turn, 1.0f, to, lane);
    } else {
        for (uint32_t k = lane; k < h.dim_pad; k += 32) to[k] = k < h.dim ? x[k] : 0.0f;
    }
    __syncwarp();
    for (uint32_t k = lane; k < h.dim_pad; k += 32) {
        if (h.f32)
            cache_at<float>(is_k ? kv.k : kv.v, table, h, i_kv, pos)[k] = to[k];
        else
            cache_at<__half>(is_k ? kv.k : kv.v, table, h, i_kv, pos)[k] = __float2half_rn(to[k]);
    }
}
void attn_rotate_store(const struct heads *h, const struct kv *kv, const struct step *rows, uint32_t n,
                       float *qkv, __half *q16, cudaStream_t s)
{
    uint32_t n_warps = n * (h->n_heads + 2 * h->n_heads_kv);
    rotate_store_kernel<<<(n_warps + 3) / 4, dim3(32, 4), 0, s>>>(*h, *kv, rows, n, qkv, q16);
}

/* Reference: one warp a (token, head), F32 throughout, positions ascending. */
static __global__ void exact_kernel(struct heads h, struct kv kv, const struct step *rows, uint32_t n,
                                    const float *qkv, float *out)
{
    uint32_t i = blockIdx.x * 4 + threadIdx.y, t = i / h.n_heads, j = i % h.n_heads,
             i_kv = j / (h.n_heads / h.n_heads_kv);
    int lane = (int)threadIdx.x;
    if (t >= n) return;
    const float *q = qkv + ((uint64_t)t * (h.n_heads + 2 * h.n_heads_kv) + j) * h.dim;
    float m = -INFINITY, l = 0, o[8] = {};
    const int32_t *table = rows[t].table;
    for (uint32_t p = 0; p <= (uint32_t)rows[t].pos; p++) {
        const float *k = cache_at<float>(kv.k, table, h, i_kv, p),
                    *v = cache_at<float>(kv.v, table, h, i_kv, p);
        float s = 0;
        for (uint32_t d = lane; d < h.dim; d += 32) s = fmaf(q[d], k[d], s);
        for (int b = 16; b; b >>= 1) s += __shfl_xor_sync(~0u, s, b);
        float top = fmaxf(m, s), shrink = expf(m - top), e = expf(s - top);
        m = top;
        l = l * shrink + e;
        for (int d = 0; d < 8; d++)
            if (lane + 32 * d < (int)h.dim) o[d] = fmaf(e, v[lane + 32 * d], o[d] * shrink);
    }
    for (int d = 0; d < 8; d++)
        if (lane + 32 * d < (int)h.dim) out[((uint64_t)t * h.n_heads + j) * h.dim + lane + 32 * d] = o[d] / l;
}

#define Q_ROWS 64 /* queries of a block */
#define K_ROWS 64 /* keys of a round */

/* q16: [n, n_heads, DIM] scaled (log2 e is put on here). Rows of shared memory are padded by 8 halves: no
 * bank conflicts. */
template <int DIM>
static __global__ void __launch_bounds__(128)
    flash_kernel(struct heads h, struct kv kv, struct attn_part part, const __half *q16, struct act out)
{
    constexpr int ROW = DIM + 8, STAGE = K_ROWS * ROW;
    extern __shared__ __align__(128) __half room16[];
    __half *qs = room16, *ks = qs + Q_ROWS * ROW, *vs = ks + 2 * STAGE;
    const int lane = (int)threadIdx.x % 32, w = (int)threadIdx.x / 32;
    const uint32_t n = part.n, pos0 = part.pos, i_head = blockIdx.y,
                   i_kv = i_head / (h.n_heads / h.n_heads_kv), t0 = (gridDim.x - 1 - blockIdx.x) * Q_ROWS;
    const uint32_t n_keys = pos0 + (t0 + Q_ROWS < n ? t0 + Q_ROWS : n);

    for (int i = (int)threadIdx.x; i < Q_ROWS * DIM / 8; i += 128) {
        uint32_t r = i / (DIM / 8), c = i % (DIM / 8) * 8;
        copy16(qs + r * ROW + c,
               q16 + ((uint64_t)(part.i_row + (t0 + r < n ? t0 + r : 0)) * h.n_heads + i_head) * DIM + c,
               t0 + r < n);
    }
    auto load_keys = [&](uint32_t k0, int stage) {
        for (int i = (int)threadIdx.x; i < K_ROWS * DIM / 8; i += 128) {
            uint32_t r = i / (DIM / 8), c = i % (DIM / 8) * 8, p = k0 + r;
            bool there = p < n_keys;
            copy16(ks + stage * STAGE + r * ROW + c,
                   cache_at<__half>(kv.k, part.table, h, i_kv, there ? p : 0) + c, there);
            copy16(vs + stage * STAGE + r * ROW + c,
                   cache_at<__half>(kv.v, part.table, h, i_kv, there ? p : 0) + c, there);
        }
        copies_commit();
    };
    load_keys(0, 0);

    float o[DIM / 8][4] = {}, m[2] = {-INFINITY, -INFINITY}, l[2] = {0, 0};
    uint32_t q[DIM / 16][4];
    const float log2e = 1.44269504f;
    const uint32_t n_rounds = (n_keys + K_ROWS - 1) / K_ROWS;
    for (uint32_t it = 0; it < n_rounds; it++) {
        if (it + 1 < n_rounds) {
            load_keys((it + 1) * K_ROWS, (int)(it + 1) % 2);
            copies_wait<1>();
        } else {
            copies_wait<0>();
        }
        __syncthreads();
        if (it == 0) {
#pragma unroll
            for (int c = 0; c < DIM / 16; c++)
                ldmatrix4<false>(q[c], qs + (16 * w + lane % 16) * ROW + 16 * c + lane / 16 * 8);
        }
        const __half *k = ks + it % 2 * STAGE, *v = vs + it % 2 * STAGE;
        float s[K_ROWS / 8][4] = {};
#pragma unroll
        for (int c = 0; c < DIM / 16; c++) {
#pragma unroll
            for (int j = 0; j < K_ROWS / 16; j++) {
                uint32_t b[4]; /* keys 16 j .. + 7 then + 8 .. + 15, each two halves of 16 columns */
                ldmatrix4<false>(b,
                                 k + (16 * j + lane % 8 + lane / 16 * 8) * ROW + 16 * c + lane / 8 % 2 * 8);
                mma16816(s[2 * j], q[c], b[0], b[1]);
                mma16816(s[2 * j + 1], q[c], b[2], b[3]);
            }
        }
        const uint32_t row0 = t0 + 16 * w + lane / 4;
        if ((it + 1) * K_ROWS > pos0 + t0 + 1) { /* the diagonal, or beyond the last key */
#pragma unroll
            for (int j = 0; j < K_ROWS / 8; j++)
#pragma unroll
                for (int i = 0; i < 4; i++) {
                    uint32_t key = it * K_ROWS + 8 * j + lane % 4 * 2 + i % 2, row = row0 + i / 2 * 8;
                    if (key > pos0 + row) s[j][i] = -INFINITY;
                }
        }
#pragma unroll
        for (int r = 0; r < 2; r++) {
            float top = m[r];
#pragma unroll
            for (int j = 0; j < K_ROWS / 8; j++) top = fmaxf(top, fmaxf(s[j][2 * r], s[j][2 * r + 1]));
            top = fmaxf(top, __shfl_xor_sync(~0u, top, 1));
            top = fmaxf(top, __shfl_xor_sync(~0u, top, 2));
            float safe = top == -INFINITY ? 0 : top, shrink = exp2f((m[r] - safe) * log2e), sum = 0;
            m[r] = top;
#pragma unroll
            for (int j = 0; j < K_ROWS / 8; j++) {
                s[j][2 * r] = exp2f((s[j][2 * r] - safe) * log2e);
                s[j][2 * r + 1] = exp2f((s[j][2 * r + 1] - safe) * log2e);
                sum += s[j][2 * r] + s[j][2 * r + 1];
            }
            l[r] = l[r] * shrink + sum;
#pragma unroll
            for (int d = 0; d < DIM / 8; d++) o[d][2 * r] *= shrink, o[d][2 * r + 1] *= shrink;
        }
#pragma unroll
        for (int j = 0; j < K_ROWS / 16; j++) {
            uint32_t p[4] = {pack2(s[2 * j][0], s[2 * j][1]), pack2(s[2 * j][2], s[2 * j][3]),
                             pack2(s[2 * j + 1][0], s[2 * j + 1][1]),
                             pack2(s[2 * j + 1][2], s[2 * j + 1][3])};
#pragma unroll
            for (int d = 0; d < DIM / 16; d++) {
                uint32_t b[4];
                ldmatrix4<true>(b, v + (16 * j + lane % 16) * ROW + 16 * d + lane / 16 * 8);
                mma16816(o[2 * d], p, b[0], b[1]);
                mma16816(o[2 * d + 1], p, b[2], b[3]);
            }
        }
        __syncthreads();
    }
#pragma unroll
    for (int r = 0; r < 2; r++) {
        l[r] += __shfl_xor_sync(~0u, l[r], 1);
        l[r] += __shfl_xor_sync(~0u, l[r], 2);
        uint32_t t = t0 + 16 * w + lane / 4 + 8 * r;
        if (t >= n) continue;
        float inv = 1.0f / l[r];
#pragma unroll
        for (int d = 0; d < DIM / 8; d++) {
            uint32_t c = 8 * d + lane % 4 * 2;
            if (c >= h.dim) continue;
            float v0 = o[d][2 * r] * inv, v1 = o[d][2 * r + 1] * inv;
            uint32_t row = part.i_row + t, col = i_head * h.dim + c;
            if (out.n8)
                put_half(out, row, col, v0), put_half(out, row, col + 1, v1);
            else
                *(__half2 *)(out.h + (uint64_t)row * out.n_cols + col) = __floats2half2_rn(v0, v1);
        }
    }
}

template <int DIM>
static enum apr_gpu_status flash(const struct heads *h, const struct kv *kv, const struct attn_part *part,
                                 const __half *q16, const struct act *out, cudaStream_t s,
                                 struct apr_gpu_err *e)
{
    int n_smem = (Q_ROWS + 4 * K_ROWS) * (DIM + 8) * 2;
    CU(cudaFuncSetAttribute(flash_kernel<DIM>, cudaFuncAttributeMaxDynamicSharedMemorySize, n_smem),
       "shared memory of attention");
    flash_kernel<DIM>
        <<<dim3((part->n + Q_ROWS - 1) / Q_ROWS, h->n_heads), 128, n_smem, s>>>(*h, *kv, *part, q16, *out);
    return gpu_cuda(cudaGetLastError(), "attention of a prompt", e);
}

enum apr_gpu_status attn_exact(const struct heads *h, const struct kv *kv, const struct step *rows,
                               uint32_t n, const float *qkv, float *out, cudaStream_t s,
                               struct apr_gpu_err *e)
{
    exact_kernel<<<(n * h->n_heads + 3) / 4, dim3(32, 4), 0, s>>>(*h, *kv, rows, n, qkv, out);
    return gpu_cuda(cudaGetLastError(), "attention of a prompt", e);
}

enum apr_gpu_status attn_prompt(const struct heads *h, const struct kv *kv, const struct attn_part *part,
                                const __half *q16, const struct act *out, cudaStream_t s,
                                struct apr_gpu_err *e)
{
    switch (h->dim_pad) {
    case 32:
        return flash<32>(h, kv, part, q16, out, s, e);
    case 64:
        return flash<64>(h, kv, part, q16, out, s, e);
    case 128:
        return flash<128>(h, kv, part, q16, out, s, e);
    case 256:
        return flash<256>(h, kv, part, q16, out, s, e);
    }
    return gpu_fail(e, APR_GPU_UNSUPPORTED, "a head of %u values", h->dim);
}
