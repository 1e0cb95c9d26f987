/* Matrices times many tokens.
 *
 * F16 by cuBLASLt on tensor cores with F32 sums: the bound is the tensor cores'. The reference mode has
 * its own kernel: F32 straight from the tiles, a warp a row, one fixed order of sums, no TF32.
 */
#include "plugin.cuh"

#include <string.h>

struct plan_key {
    uint32_t n_rows, n_cols, n, y_stride;
    bool y_f32, add;
};
struct plan {
    struct plan_key key;
    cublasLtMatmulDesc_t op;
    cublasLtMatrixLayout_t a, b, c;
    cublasLtMatmulAlgo_t algo;
};
#define N_PLANS 128

struct plans {
    struct plan at[N_PLANS];
    uint32_t n;
};

static enum apr_gpu_status lt(cublasStatus_t s, struct apr_gpu_err *e)
{
    return s == CUBLAS_STATUS_SUCCESS
               ? APR_GPU_OK
               : gpu_fail(e, APR_GPU_FAILED, "cuBLASLt: %s", cublasLtGetStatusString(s));
}
#define LT(call) GPU_TRY(lt((call), e))

static enum apr_gpu_status make_plan(const struct apr_gpu_device *d, const struct plan_key *k, struct plan *p,
                                     struct apr_gpu_err *e)
{
    cublasOperation_t t = CUBLAS_OP_T;
    cudaDataType y = k->y_f32 ? CUDA_R_32F : CUDA_R_16F;
    cublasLtMatmulPreference_t pref;
    cublasLtMatmulHeuristicResult_t found;
    size_t n_work = LT_WORK_BYTES;
    int n = 0;
    p->key = *k;
    LT(cublasLtMatmulDescCreate(&p->op, CUBLAS_COMPUTE_32F, CUDA_R_32F));
    LT(cublasLtMatmulDescSetAttribute(p->op, CUBLASLT_MATMUL_DESC_TRANSA, &t, sizeof t));
    LT(cublasLtMatrixLayoutCreate(&p->a, CUDA_R_16F, k->n_cols, k->n_rows, k->n_cols));
    LT(cublasLtMatrixLayoutCreate(&p->b, CUDA_R_16F, k->n_cols, k->n, k->n_cols));
    LT(cublasLtMatrixLayoutCreate(&p->c, y, k->n_rows, k->n, k->y_stride));
    LT(cublasLtMatmulPreferenceCreate(&pref));
    LT(cublasLtMatmulPreferenceSetAttribute(pref, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &n_work,
                                            sizeof n_work));
    LT(cublasLtMatmulAlgoGetHeuristic(d->lt, p->op, p->a, p->b, p->c, p->c, pref, 1, &found, &n));
    cublasLtMatmulPreferenceDestroy(pref);
    if (n == 0)
        return gpu_fail(e, APR_GPU_FAILED, "cuBLASLt knows no way for [%u, %u] times %u tokens", k->n_rows,
                        k->n_cols, k->n);
    p->algo = found.algo;
    return APR_GPU_OK;
}

/* Plans are kept: asking cuBLASLt costs more than a small product. */
static enum apr_gpu_status plan_of(const struct apr_gpu_device *d, const struct plan_key *k,
                                   const struct plan **out, struct apr_gpu_err *e)
{
    struct plans *all = (struct plans *)d->plans;
    for (uint32_t i = 0; i < all->n; i++)
        if (memcmp(&all->at[i].key, k, sizeof *k) == 0) return *out = &all->at[i], APR_GPU_OK;
    if (all->n == N_PLANS) gpu_plans_clear(d);
    GPU_TRY(make_plan(d, k, &all->at[all->n], e));
    *out = &all->at[all->n++];
    return APR_GPU_OK;
}

void *gpu_plans_new(void)
{
    return calloc(1, sizeof(struct plans));
}
void gpu_plans_clear(const struct apr_gpu_device *d)
{
    struct plans *all = (struct plans *)d->plans;
    for (uint32_t i = 0; i < all->n; i++) {
        cublasLtMatmulDescDestroy(all->at[i].op);
        cublasLtMatrixLayoutDestroy(all->at[i].a);
        cublasLtMatrixLayoutDestroy(all->at[i].b);
        cublasLtMatrixLayoutDestroy(all->at[i].c);
    }
    all->n = 0;
}

enum apr_gpu_status gemm_f16(const struct apr_gpu_device *d, const struct gemm *g, cudaStream_t s,
                             struct apr_gpu_err *e)
{
    struct plan_key k;
    const struct plan *p;
    float beta = g->add ? 1 : 0;
    memset(&k, 0, sizeof k);
    k.n_rows = g->n_rows, k.n_cols = g->n_cols, k.n = g->n, k.y_stride = g->y_stride, k.y_f32 = g->y_f32,
    k.add = g->add;
    GPU_TRY(plan_of(d, &k, &p, e));
    return lt(cublasLtMatmul(d->lt, p->op, &g->alpha, g->w, p->a, g->x, p->b, &beta, g->y, p->c, g->y, p->c,
                             &p->algo, d->lt_work, LT_WORK_BYTES, s),
              e);
}

/* A warp a row and up to 8 tokens; lane l has pieces l % 8 of chunks l / 8, l / 8 + 4, ... */
#define TOKS 8
static __global__ void exact_kernel(struct mat m, const float *x, uint32_t n, float *y, uint32_t y_stride,
                                    bool add)
{
    uint32_t row = blockIdx.x * 4 + threadIdx.y, t0 = blockIdx.y * TOKS, lane = threadIdx.x;
    if (row >= m.n_rows) return;
    float acc[TOKS] = {};
    for (uint32_t c = lane / 8; c < m.n_chunks; c += 4) {
        float w[32];
        const uint8_t *tile = m.tiles + ((uint64_t)(row / TILE_ROWS) * m.n_chunks + c) * tile_bytes(m.kind);
        uint32_t k =
            (uint32_t)tile_values(m.kind, tile, (int)(row % TILE_ROWS / 4), (int)(row % 4 * 8 + lane % 8), w);
        uint32_t col = c * tile_cols(m.kind) + lane % 8 * k;
        for (uint32_t t = 0; t < TOKS && t0 + t < n; t++)
            for (uint32_t i = 0; i < k && col + i < m.n_cols; i++)
                acc[t] = fmaf(w[i], x[(uint64_t)(t0 + t) * m.n_cols + col + i], acc[t]);
    }
    for (uint32_t t = 0; t < TOKS && t0 + t < n; t++) {
        float v = acc[t];
#pragma unroll
        for (int o = 16; o; o >>= 1) v += __shfl_xor_sync(~0u, v, o);
        if (lane) continue;
        float *to = y + (uint64_t)(t0 + t) * y_stride + row;
        if (m.bias) v += m.bias[row];
        *to = add ? *to + v : v;
    }
}
void gemm_exact(const struct mat *m, const float *x, uint32_t n, float *y, uint32_t y_stride, bool add,
                cudaStream_t s)
{
    exact_kernel<<<dim3((m->n_rows + 3) / 4, (n + TOKS - 1) / TOKS), dim3(32, 4), 0, s>>>(*m, x, n, y,
                                                                                          y_stride, add);
}
