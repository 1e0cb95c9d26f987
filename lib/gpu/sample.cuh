/* What the kernels that choose a token share: sample.cu (few candidates and a chain), draw_all.cu (all
 * tokens).
 */
#ifndef APR_SAMPLE_CUH
#define APR_SAMPLE_CUH

#include "model.cuh"

typedef unsigned long long key_t64;

#define PICK_THREADS 1024u
#define PICK_BLOCKS  32u
#define PICK_SHARES  (PICK_BLOCKS * PICK_THREADS / 32) /* of the row, one a warp */

/* What the host says of a run. */
struct orders {
    struct apr_gpu_chain chain;
    uint64_t bits[STEPS_AHEAD]; /* of its steps */
};
/* On the device, one a row. What is not an order is zero between steps, or written before it is read. */
struct sampler {
    struct orders orders;
    key_t64 tops[PICK_SHARES];    /* the largest of each share */
    key_t64 weights[PICK_BLOCKS]; /* of all tokens of a block */
    unsigned top;                 /* the largest logit, in order */
    unsigned n_done;              /* blocks */
};

/* A float as an integer of the same order, -0 as 0. */
static __device__ __forceinline__ uint32_t key_order(float v)
{
    const uint32_t u = __float_as_uint(v + 0.0f);
    return u & 0x80000000u ? ~u : u | 0x80000000u;
}
static __device__ __forceinline__ float key_logit(uint32_t order)
{
    return __uint_as_float(order & 0x80000000u ? order & 0x7fffffffu : ~order);
}
/* id follows; one thread does it. */
static __device__ __forceinline__ void step_on(struct step *st, int32_t id)
{
    if (st->out) st->out[st->n_done] = id;
    st->id = id;
    st->pos++;
    st->n_done++;
}
/* Whether this block is the last of its row to come here; what the others have written is seen then. */
static __device__ __forceinline__ bool ends_row(unsigned *n_done)
{
    __shared__ bool is_last;
    __threadfence();
    __syncthreads();
    if (threadIdx.x == 0) is_last = atomicAdd(n_done, 1u) == gridDim.x - 1;
    __syncthreads();
    if (is_last) __threadfence();
    return is_last;
}

/* Two launches for rows whose chain has no top_k. */
void draw_all(const float *logits, uint32_t n, uint32_t n_rows, struct sampler *samplers, struct step *rows,
              cudaStream_t s);

#endif
