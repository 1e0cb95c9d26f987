/* Matrices times rows of the general pass.
 *
 * One row goes through gemv.cu, up to 64 through few.cu, more through F16 copies and cuBLASLt; rows that
 * become F16 are scaled by a power of two each, so that spikes do not overflow. Types of raw.cuh and stacks
 * of matrices have a kernel of their own: a block takes 16 rows of one matrix, eight warps share the columns,
 * sums are F32 in one order. Bytes moved are the matrix once for GROUP rows.
 */
#include "general.cuh"
#include "model.cuh"

#define N_WARPS 8

template <int KIND> static __device__ __host__ constexpr int values_of()
{
    return KIND == TILE_Q8_0 ? 16 : KIND == TILE_F32 ? 4 : KIND == TILE_F16 || KIND == TILE_BF16 ? 8 : 32;
}

/* x[0 .. N - 1] of a row of n_cols from col on; zeros behind the last. Columns come in fours. */
template <int N>
static __device__ __forceinline__ void take(const float *x, uint32_t col, uint32_t n_cols, float v[N])
{
#pragma unroll
    for (int k = 0; k < N; k += 4) {
        float4 q = col + k < n_cols ? *(const float4 *)(x + col + k) : make_float4(0, 0, 0, 0);
        v[k] = q.x, v[k + 1] = q.y, v[k + 2] = q.z, v[k + 3] = q.w;
    }
}

template <int KIND, int T>
static __global__ void __launch_bounds__(32 * N_WARPS)
    stack_kernel(struct mat m, uint64_t mat_bytes, uint32_t n_mats, struct items it)
{
    constexpr int N = values_of<KIND>();
    __shared__ float part[N_WARPS][T][TILE_ROWS];
    const int lane = (int)threadIdx.x % 32, w = (int)threadIdx.x / 32;
    int32_t item[T]; /* -1: none; the first of a group is there if any is */
#pragma unroll
    for (int t = 0; t < T; t++) {
        uint32_t slot = blockIdx.x * T + (uint32_t)t;
        if (T > 1 && n_mats > 1 && !it.which) /* rows of one matrix are n_mats items apart */
            slot = (blockIdx.x / n_mats * T + (uint32_t)t) * n_mats + blockIdx.x % n_mats;
        item[t] = it.order ? it.order[slot] : slot < it.n ? (int32_t)slot : -1;
    }
    if (item[0] < 0) return;
    const uint32_t i_mat = it.which ? it.which[item[0]] : (uint32_t)item[0] % n_mats;
    const uint8_t *tiles = m.tiles + i_mat * mat_bytes + (uint64_t)blockIdx.y * m.n_chunks * tile_bytes(KIND);
    float acc[T][4] = {};
    for (uint32_t c = (uint32_t)w; c < m.n_chunks; c += N_WARPS) {
        const uint8_t *tile = tiles + (uint64_t)c * tile_bytes(KIND);
        const uint32_t col = c * tile_cols(KIND) + (uint32_t)(lane % 8 * N);
        float x[N];
        if (T == 1) take<N>(it.x + (uint64_t)((uint32_t)item[0] / it.n_each) * it.x_stride, col, m.n_cols, x);
#pragma unroll 1
        for (int p = 0; p < 4; p++) {
            float v[32];
            tile_values(KIND, tile, p, lane, v);
#pragma unroll
            for (int t = 0; t < T; t++) {
                if (T > 1 && item[t] < 0) continue;
                if (T > 1)
                    take<N>(it.x + (uint64_t)((uint32_t)item[t] / it.n_each) * it.x_stride, col, m.n_cols, x);
                float sum = acc[t][0];
#pragma unroll
                for (int k = 0; k < N; k++) sum = fmaf(v[k], x[k], sum);
                /* planes take turns, so that indices stay constants */
                acc[t][0] = acc[t][1], acc[t][1] = acc[t][2], acc[t][2] = acc[t][3], acc[t][3] = sum;
            }
        }
    }
#pragma unroll
    for (int t = 0; t < T; t++)
#pragma unroll
        for (int p = 0; p < 4; p++) {
            float v = acc[t][p];
            v += __shfl_xor_sync(~0u, v, 4);
            v += __shfl_xor_sync(~0u, v, 2);
            v += __shfl_xor_sync(~0u, v, 1);
            if (lane % 8 == 0) part[w][t][4 * p + lane / 8] = v;
        }
    __syncthreads();
    const uint32_t row = blockIdx.y * TILE_ROWS + threadIdx.x % TILE_ROWS;
#pragma unroll
    for (int t = 0; t < T; t++) { /* 16 threads each; the same item for a whole half-warp */
        if ((int)threadIdx.x / TILE_ROWS != t || item[t] < 0 || row >= m.n_rows) continue;
        float sum = 0;
        for (int i = 0; i < N_WARPS; i++) sum += part[i][t][threadIdx.x % TILE_ROWS];
        it.y[(uint64_t)item[t] * it.y_stride + row] = sum + (m.bias ? m.bias[row] : 0.0f);
    }
}

typedef void stack_fn(struct mat m, uint64_t mat_bytes, uint32_t n_mats, struct items it);
#define STACK_RAW(name, type, n_block, n_bytes, n_head)                                                      \
    {stack_kernel<TILE_raw_##name, 1>, stack_kernel<TILE_raw_##name, GROUP>},
static stack_fn *const stack_kernels[][2] = {{stack_kernel<TILE_Q4_K, 1>, stack_kernel<TILE_Q4_K, GROUP>},
                                             {stack_kernel<TILE_Q6_K, 1>, stack_kernel<TILE_Q6_K, GROUP>},
                                             {stack_kernel<TILE_Q8_0, 1>, stack_kernel<TILE_Q8_0, GROUP>},
                                             {stack_kernel<TILE_F16, 1>, stack_kernel<TILE_F16, GROUP>},
                                             {stack_kernel<TILE_BF16, 1>, stack_kernel<TILE_BF16, GROUP>},
                                             {stack_kernel<TILE_F32, 1>, stack_kernel<TILE_F32, GROUP>},
                                             {stack_kernel<TILE_Q5_K, 1>, stack_kernel<TILE_Q5_K, GROUP>},
                                             RAW_TYPES(STACK_RAW)};
static_assert(sizeof stack_kernels / sizeof *stack_kernels == N_TILE_KINDS, "two kernels a kind, in order");

enum apr_gpu_status stack_product(struct apr_gpu_model *m, const struct stack *s, const struct items *it,
                                  const char *what, struct apr_gpu_err *e)
{
    const uint32_t n_each = it->which ? 1 : it->n / s->n; /* items of a matrix that are known to be so */
    const bool many = it->order || n_each > 1;
    const uint32_t n_blocks = it->order ? it->n_slots / GROUP
                              : many    ? (n_each + GROUP - 1) / GROUP * s->n
                                        : it->n;
    gpu_mark_bytes(m->dev, mat_bytes(&s->m) * (it->n < s->n ? it->n : s->n));
    stack_kernels[s->m.kind][many]<<<dim3(n_blocks, s->m.n_groups), 32 * N_WARPS, 0, m->dev->stream>>>(
        s->m, s->n_bytes, s->n, *it);
    gpu_mark(m->dev, what, m->dev->stream);
    return gpu_cuda(cudaGetLastError(), what, e);
}

/* ---- rows as F16 ------------------------------------------------------------------------------------------
 */

/* One block a row: scaled so that its largest value is 2^11 .. 2^12. n8: the order of fragments, zeros up to
 * whole 256 columns; 0: rows. */
static __global__ void narrow_kernel(const float *x, uint32_t n_cols, uint32_t n8, __half *out, float *inv)
{
    __shared__ float room[8];
    const uint32_t t = blockIdx.x;
    const float *row = x + (uint64_t)t * n_cols;
    float top = 0;
    for (uint32_t i = threadIdx.x; i < n_cols; i += 256) {
        float v = fabsf(row[i]);
        top = v <= top ? top : v; /* NaN stays */
    }
#pragma unroll
    for (int o = 16; o; o >>= 1) {
        float v = __shfl_xor_sync(~0u, top, o);
        top = v <= top ? top : v;
    }
    if (threadIdx.x % 32 == 0) room[threadIdx.x / 32] = top;
    __syncthreads();
    for (int i = 0; i < 8; i++) top = room[i] <= top ? top : room[i];
    const bool usual = top > 1e-30f && top < 3e38f;
    const int e = usual ? 11 - ilogbf(top) : 0;
    const float scale = ldexpf(1.0f, e);
    if (threadIdx.x == 0) inv[t] = ldexpf(1.0f, -e);
    if (n8 == 0) {
        for (uint32_t i = threadIdx.x; i < n_cols; i += 256)
            out[(uint64_t)t * n_cols + i] = __float2half_rn(row[i] * scale);
        return;
    }
    for (uint32_t i = threadIdx.x; i < (n_cols + 255) / 256 * 256; i += 256)
        out[frag_at(n8, t, i)] = __float2half_rn(i < n_cols ? row[i] * scale : 0.0f);
}

static __global__ void few_finish_kernel(few_sums s, const float *bias, const float *inv, uint32_t n_rows,
                                         float *y, uint32_t y_stride)
{
    const uint32_t i = blockIdx.x * 256 + threadIdx.x, t = blockIdx.y;
    if (i >= n_rows) return;
    y[(uint64_t)t * y_stride + i] = few_sum(s, t, s.row0[0] + i) * inv[t] + (bias ? bias[i] : 0.0f);
}
static __global__ void finish_kernel(const float *bias, const float *inv, uint32_t n_rows, float *y,
                                     uint32_t y_stride)
{
    const uint32_t i = blockIdx.x * 256 + threadIdx.x, t = blockIdx.y;
    if (i >= n_rows) return;
    float *at = y + (uint64_t)t * y_stride + i;
    *at = *at * inv[t] + (bias ? bias[i] : 0.0f);
}

static enum apr_gpu_status few_product(struct apr_gpu_model *m, const struct mat *w, const float *x,
                                       uint32_t n, float *y, uint32_t y_stride, const char *what,
                                       struct apr_gpu_err *e)
{
    struct few f = {};
    struct few_sums sums;
    cudaStream_t q = m->dev->stream;
    f.m[0] = w, f.n_m = 1, f.n8 = batch_eights(n), f.x = m->gen.x16, f.x_scale = 1, f.part = m->part,
    f.what = what;
    narrow_kernel<<<n, 256, 0, q>>>(x, w->n_cols, f.n8, m->gen.x16, m->gen.inv);
    GPU_TRY(few_run(m->dev, &f, &sums, q, e));
    few_finish_kernel<<<dim3((w->n_rows + 255) / 256, n), 256, 0, q>>>(sums, w->bias, m->gen.inv, w->n_rows,
                                                                       y, y_stride);
    return gpu_cuda(cudaGetLastError(), what, e);
}

static enum apr_gpu_status wide_product(struct apr_gpu_model *m, const struct mat *w, const float *x,
                                        uint32_t n, float *y, uint32_t y_stride, const char *what,
                                        struct apr_gpu_err *e)
{
    cudaStream_t q = m->dev->stream;
    struct gemm g = {m->wide,  m->gen.x16, w->n_rows, w->n_cols, n,
                     y_stride, y,          true,      false,     1 / mat_scale(w->kind)};
    narrow_kernel<<<n, 256, 0, q>>>(x, w->n_cols, 0, m->gen.x16, m->gen.inv);
    unpack_f16(w, m->wide, q);
    gpu_mark_bytes(m->dev, mat_bytes(w));
    GPU_TRY(gemm_f16(m->dev, &g, q, e));
    finish_kernel<<<dim3((w->n_rows + 255) / 256, n), 256, 0, q>>>(w->bias, m->gen.inv, w->n_rows, y,
                                                                   y_stride);
    gpu_mark(m->dev, what, q);
    return gpu_cuda(cudaGetLastError(), what, e);
}

bool product_fuses(const struct apr_gpu_model *m, const struct mat *const *w, int n_mats, uint32_t n)
{
    for (int i = 0; i < n_mats; i++)
        if (tile_is_raw(w[i]->kind)) return false;
    return n == 1 && !m->opts.exact;
}
enum apr_gpu_status product_fused(struct apr_gpu_model *m, const struct mat *const *w, int n_mats,
                                  const float *x, float *y, const char *what, struct apr_gpu_err *e)
{
    const struct act in = {NULL, (float *)x, NULL, 0, 0};
    struct gemv g = gemv_of(what, GEMV_ROWS, w[0], in);
    g.n_m = n_mats, g.y = y;
    for (int i = 0; i < n_mats; i++) g.m[i] = w[i];
    return one_products(m, &g, e);
}

enum apr_gpu_status product(struct apr_gpu_model *m, const struct mat *w, const float *x, uint32_t n,
                            float *y, uint32_t y_stride, const char *what, struct apr_gpu_err *e)
{
    if (m->opts.exact) {
        gemm_exact(w, x, n, y, y_stride, false, m->dev->stream);
        return gpu_cuda(cudaGetLastError(), what, e);
    }
    if (n == 1 && !tile_is_raw(w->kind)) {
        const struct act in = {NULL, (float *)x, NULL, 0, 0};
        struct gemv g = gemv_of(what, GEMV_ROWS, w, in);
        g.y = y;
        return gemv_run(m->dev, &g, m->dev->stream, e);
    }
    if (n <= LOGIT_ROWS && few_can(&w, 1)) return few_product(m, w, x, n, y, y_stride, what, e);
    if (n > LOGIT_ROWS) return wide_product(m, w, x, n, y, y_stride, what, e);
    const struct stack s = {*w, 1, 0};
    const struct items it = {NULL, NULL, 0, n, 1, x, w->n_cols, y, y_stride};
    return stack_product(m, &s, &it, what, e);
}
