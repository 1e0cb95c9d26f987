/* A product of up to 64 tokens (few.cu): how it is cut up, and how its consumers add the parts.
 *
 * The work is items of (tile of tile_rows rows, 256 columns), laid end to end tile by tile and cut into equal
 * runs, one a block. A tile that several blocks have a share of has as many slots; the consumer adds them in
 * the order of the blocks, so the sum is the same whatever block is first.
 */
#ifndef APR_FEW_CUH
#define APR_FEW_CUH

#include "plugin.cuh"

#define FEW_SEGS 3

struct few_sums {
    const float *part; /* [slots, n_toks, n_rows] */
    uint32_t n_toks;   /* a multiple of 8 */
    uint32_t n_rows;   /* of all matrices, each padded to whole tiles */
    uint32_t tile_rows, n_chunks, n_items, n_blocks;
    uint32_t row0[FEW_SEGS]; /* first row of each matrix */
};

/* Which block has an item: block b has items n_items * b / n_blocks up to those of b + 1. */
static __host__ __device__ __forceinline__ uint32_t few_block_of(const few_sums &s, uint32_t i_item)
{
    return (uint32_t)(((uint64_t)(i_item + 1) * s.n_blocks - 1) / s.n_items);
}
/* The parts of N rows, AT_ONCE of each asked for at a time, added in one order. there: rows that are wanted.
 */
template <int N, int AT_ONCE>
static __device__ __forceinline__ void few_add(const few_sums &s, uint32_t t, const uint32_t *row,
                                               const bool *there, float *v)
{
    const float *p[N];
    uint32_t n[N], n_most = 0;
#pragma unroll
    for (int c = 0; c < N; c++) {
        const uint32_t i = row[c] / s.tile_rows * s.n_chunks, b0 = few_block_of(s, i);
        n[c] = there[c] ? few_block_of(s, i + s.n_chunks - 1) - b0 + 1 : 0;
        p[c] = s.part + (uint64_t)t * s.n_rows + row[c];
        n_most = max(n_most, n[c]);
    }
    for (uint32_t k = 0; k < n_most; k += AT_ONCE) {
        float x[N][AT_ONCE];
#pragma unroll
        for (int c = 0; c < N; c++)
#pragma unroll
            for (uint32_t j = 0; j < AT_ONCE; j++)
                x[c][j] = k + j < n[c] ? __ldcg(p[c] + (uint64_t)(k + j) * s.n_toks * s.n_rows) : 0.0f;
#pragma unroll
        for (int c = 0; c < N; c++)
#pragma unroll
            for (uint32_t j = 0; j < AT_ONCE; j++) v[c] += x[c][j];
    }
}
static __device__ __forceinline__ float few_sum(const few_sums &s, uint32_t t, uint32_t row)
{
    const bool there = true;
    float v = 0;
    few_add<1, 16>(s, t, &row, &there, &v);
    return v;
}

struct few {
    const struct mat *m[FEW_SEGS];
    int n_m;
    uint32_t n8;     /* eights of tokens: 1, 2, 4 or 8 */
    const __half *x; /* frag_at */
    float x_scale;   /* what x is to be multiplied with */
    float *part;
    const char *what; /* for errors and profiles */
};
/* False: the types of these matrices have no such kernel. */
bool few_can(const struct mat *const *m, int n_m);
uint64_t few_part_bytes(const struct apr_gpu_device *d, const struct few *f);
enum apr_gpu_status few_run(const struct apr_gpu_device *d, const struct few *f, struct few_sums *sums,
                            cudaStream_t s, struct apr_gpu_err *e);

/* What reads the parts. n: tokens. */
struct few_out {
    const float *bias[FEW_SEGS];
    uint32_t n_rows[FEW_SEGS], n_m;
};
/* y: [n, rows of all matrices], biases added. */
enum apr_gpu_status few_rows(const struct apr_gpu_device *d, const struct few_sums *s,
                             const struct few_out *o, uint32_t n, float *y, cudaStream_t q,
                             struct apr_gpu_err *e);
/* x += the sums (where s is not NULL) + bias; out: rmsnorm(x) * w in the order of fragments. */
enum apr_gpu_status few_norm(const struct apr_gpu_device *d, const struct few_sums *s, const float *bias,
                             float *x, const float *w, float eps, uint32_t n, uint32_t n_cols, uint32_t n8,
                             __half *out, cudaStream_t q, struct apr_gpu_err *e);
/* silu(gate) * up * MID_SCALE in the order of fragments. */
enum apr_gpu_status few_swiglu(const struct apr_gpu_device *d, const struct few_sums *s,
                               const struct few_out *o, uint32_t n, uint32_t n8, __half *out, cudaStream_t q,
                               struct apr_gpu_err *e);

#endif
