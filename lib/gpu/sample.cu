/* Sampling after the logits, without the host: one launch finds the top_k largest of a row, runs the chain
 * over them and draws (chain.cuh). Chains without top_k: draw_all.cu.
 *
 * Row: [n_vocab] F32, read once by 32 blocks of 1024 threads (600 KB of a 152k vocabulary, from the L2
 * cache). Each of their 1024 warps keeps the largest logit of its share. What at least k of these 1024 reach
 * is a bound of the k-th largest of all from below, and only shares that reach it, about k, can hold more. So
 * the block that ends last reads about k / 1024 of the row again, sorts what reaches the bound (little more
 * than k), and its first warp goes through the chain. Bound: launch and latency, not the memory.
 *
 * Keys are 64 bits, the order of the logit above the complement of the id: no two are equal, and the choice
 * does not depend on who came first.
 */
#include "chain.cuh"

#include <stdlib.h>
#include <string.h>

static_assert(PICK_SHARES == PICK_THREADS, "the last block sorts one key a thread");
static_assert(APR_GPU_TOP_K <= PICK_THREADS, "candidates");

struct room {
    key_t64 keys[PICK_THREADS];
    struct cands c;
    key_t64 most;                 /* of all tops */
    uint16_t shares[PICK_SHARES]; /* [n_shares] that can have candidates */
    uint32_t n_shares, n_keys;
};

/* Less than the largest number, whose successor bounds the searches below: division makes NaN 0x7fffffff. */
static __device__ __forceinline__ key_t64 key_of(float x, float t, uint32_t id)
{
    return (key_t64)min(key_order(__fdiv_rn(x, t)), 0xfffffffeu) << 32 | (0xffffffffu - id);
}
static __device__ __forceinline__ uint32_t key_id(key_t64 key)
{
    return 0xffffffffu - (uint32_t)key;
}

static __device__ __forceinline__ key_t64 warp_most(key_t64 key)
{
#pragma unroll
    for (int o = 16; o; o >>= 1) {
        const key_t64 other = __shfl_xor_sync(~0u, key, o);
        key = other > key ? other : key;
    }
    return key;
}

/* Descending: key i of m (a power of two, 32 or more) from thread i to keys[i]. Bitonic. */
static __device__ void sort_keys(key_t64 key, uint32_t m, key_t64 *keys)
{
    const uint32_t i = threadIdx.x;
    for (uint32_t n = 2; n <= m; n *= 2)
        for (uint32_t j = n / 2; j; j /= 2) {
            key_t64 other = 0;
            if (j >= 32) {
                if (i < m) keys[i] = key;
                __syncthreads();
                if (i < m) other = keys[i ^ j];
                __syncthreads();
            } else if (i < m) { /* whole warps */
                other = __shfl_xor_sync(~0u, key, (int)j);
            }
            const bool keeps_larger = !(i & n) == !(i & j);
            if (keeps_larger == (other > key)) key = other;
        }
    if (i < m) keys[i] = key;
    __syncthreads();
}

/* A key that at least k tops reach, and not many more; 0 where fewer than k shares have a token. Halving,
 * each time one barrier. */
static __device__ key_t64 bound_of(key_t64 top, key_t64 most, uint32_t k)
{
    const int n_enough = (int)(k + k / 4 + 8);
    key_t64 least = 0, above = most + 1;
    for (int n = PICK_SHARES; n > n_enough && above - least > 1;) {
        const key_t64 middle = least + (above - least) / 2;
        const int n_middle = __syncthreads_count(top >= middle);
        if (n_middle >= (int)k)
            least = middle, n = n_middle;
        else
            above = middle;
    }
    return least;
}

/* Keys >= least in r's shares, counted; with keeps the first PICK_THREADS of them go to r->keys. */
static __device__ uint32_t gather(const float *x, float t, uint32_t n, key_t64 least, bool keeps,
                                  struct room *r)
{
    __syncthreads();
    if (threadIdx.x == 0) r->n_keys = 0;
    __syncthreads();
    for (uint32_t s = threadIdx.x / 32; s < r->n_shares; s += PICK_THREADS / 32)
        for (uint32_t i = r->shares[s] * 32u + threadIdx.x % 32; i < n; i += 32 * PICK_SHARES) {
            const key_t64 key = key_of(x[i], t, i);
            if (key < least) continue;
            const uint32_t place = atomicAdd(&r->n_keys, 1u);
            if (keeps && place < PICK_THREADS) r->keys[place] = key;
        }
    __syncthreads();
    return r->n_keys;
}

/* The k-th largest of all, which is least or more, where the shares are so uneven that too many reach it. */
static __device__ key_t64 kth_key(const float *x, float t, uint32_t n, uint32_t k, key_t64 least,
                                  key_t64 most, struct room *r)
{
    key_t64 above = most + 1;
    while (above - least > 1) {
        const key_t64 middle = least + (above - least) / 2;
        if (gather(x, t, n, middle, false, r) >= k)
            least = middle;
        else
            above = middle;
    }
    return least;
}

/* The k largest keys of the row, in order, in r->keys[0 .. k); n >= k. By the block that ended last. */
static __device__ void first_keys(const float *x, float t, uint32_t n, uint32_t k, const key_t64 *tops,
                                  struct room *r)
{
    const key_t64 top = __ldcg(&tops[threadIdx.x]); /* other blocks' */
    if (threadIdx.x == 0) r->most = 0, r->n_shares = 0;
    __syncthreads();
    const key_t64 of_warp = warp_most(top);
    if (threadIdx.x % 32 == 0) atomicMax(&r->most, of_warp);
    __syncthreads();
    const key_t64 most = r->most;
    key_t64 least = bound_of(top, most, k);
    if (top && top >= least) r->shares[atomicAdd(&r->n_shares, 1u)] = (uint16_t)threadIdx.x;
    uint32_t n_found = gather(x, t, n, least, true, r);
    if (n_found > PICK_THREADS) {
        least = kth_key(x, t, n, k, least, most, r);
        n_found = gather(x, t, n, least, true, r);
    }
    uint32_t m = 32;
    while (m < n_found && m < PICK_THREADS) m *= 2;
    const key_t64 mine = threadIdx.x < n_found ? r->keys[threadIdx.x] : 0;
    __syncthreads();
    sort_keys(mine, m, r->keys);
}

/* Each warp's largest key to tops, and what is not finite to n_bad. */
static __device__ void read_row(const float *x, float t, uint32_t n, key_t64 *tops, uint32_t *n_bad)
{
    const uint32_t share = blockIdx.x * (PICK_THREADS / 32) + threadIdx.x / 32;
    key_t64 top = 0;
    uint32_t bad = 0;
#pragma unroll 4
    for (uint32_t i = share * 32 + threadIdx.x % 32; i < n; i += 32 * PICK_SHARES) {
        const float v = x[i];
        const key_t64 key = key_of(v, t, i);
        bad += !isfinite(v);
        top = key > top ? key : top;
    }
    if (bad) atomicAdd(n_bad, bad);
    top = warp_most(top);
    if (threadIdx.x % 32 == 0) tops[share] = top;
}

static __device__ int32_t run_chain(struct cands *c, const struct apr_gpu_chain *chain, uint32_t n,
                                    uint64_t bits)
{
    struct chain k = {c, threadIdx.x, n, true, false, bits};
    for (uint32_t i = 0; i < chain->n_picks; i++) chain_step(&k, &chain->picks[i]);
    return c->id[chain_draw(&k)];
}

static __global__ void __launch_bounds__(PICK_THREADS)
    sample_kernel(const float *logits, uint32_t n, struct sampler *samplers, struct step *rows)
{
    __shared__ struct room r;
    struct step *st = &rows[blockIdx.y];
    struct sampler *s = &samplers[blockIdx.y];
    if (st->pos < 0 || s->orders.chain.top_k == 0) return;
    const float *x = logits + (uint64_t)blockIdx.y * n, t = s->orders.chain.t_before;
    read_row(x, t, n, s->tops, &st->n_bad);
    if (!ends_row(&s->n_done)) return;
    const uint32_t k = s->orders.chain.top_k < n ? s->orders.chain.top_k : n;
    first_keys(x, t, n, k, s->tops, &r);
    if (threadIdx.x < k) {
        r.c.logit[threadIdx.x] = key_logit((uint32_t)(r.keys[threadIdx.x] >> 32));
        r.c.id[threadIdx.x] = (int32_t)key_id(r.keys[threadIdx.x]);
    }
    __syncthreads();
    if (threadIdx.x >= 32) return;
    /* a chain is for numbers: where some logits are none the host gets n_bad, and any token will do */
    const int32_t id = __ldcg(&st->n_bad)
                           ? r.c.id[0]
                           : run_chain(&r.c, &s->orders.chain, k, s->orders.bits[st->n_done % STEPS_AHEAD]);
    if (threadIdx.x) return;
    step_on(st, id);
    s->n_done = 0;
}

/* Rows of either kind, or of both: then each kernel leaves the other's alone. */
static void issue_rows(const float *logits, uint32_t n_vocab, uint32_t n_rows, bool few, bool all,
                       struct sampler *samplers, struct step *rows, cudaStream_t q)
{
    const dim3 grid(PICK_BLOCKS, n_rows);
    if (few) sample_kernel<<<grid, PICK_THREADS, 0, q>>>(logits, n_vocab, samplers, rows);
    if (all) draw_all(logits, n_vocab, n_rows, samplers, rows, q);
}

/* ---- sequences --------------------------------------------------------------------------------------------
 */

static enum apr_gpu_status check_chain(const struct apr_gpu_chain *c, struct apr_gpu_err *e)
{
    const uint32_t n_picks = c->top_k ? APR_GPU_PICKS : 0;
    if (c->top_k > APR_GPU_TOP_K || !(c->t_before > 0) || c->n_picks > n_picks)
        return gpu_fail(e, APR_GPU_UNSUPPORTED,
                        "a chain of top_k %u, temperature %g, %u steps; expected top_k 1 to %u, or 0 alone",
                        c->top_k, (double)c->t_before, c->n_picks, APR_GPU_TOP_K);
    for (uint32_t i = 0; i < c->n_picks; i++)
        if (c->picks[i].kind >= APR_GPU_N_PICKS)
            return gpu_fail(e, APR_GPU_UNSUPPORTED, "step %u of a chain", c->picks[i].kind);
    return APR_GPU_OK;
}

static bool is_of_all(const struct apr_gpu_chain *c)
{
    return c->top_k == 0;
}

static enum apr_gpu_status open_sampler(struct apr_gpu_seq *s, struct apr_gpu_err *e)
{
    if (!s->sampler) CU(cudaMalloc((void **)&s->sampler, sizeof *s->sampler), "a sampler");
    CU(cudaMemsetAsync(s->sampler, 0, sizeof *s->sampler, s->m->dev->stream), "a sampler");
    if (s->orders_host) return APR_GPU_OK;
    return gpu_cuda(cudaHostAlloc((void **)&s->orders_host, sizeof *s->orders_host, cudaHostAllocDefault),
                    "pinned memory", e);
}
void sample_close(struct apr_gpu_seq *s)
{
    cudaFree(s->sampler);
    cudaFreeHost(s->orders_host);
}

enum apr_gpu_status sample_begin(struct apr_gpu_seq *s, const uint64_t *bits, uint32_t n,
                                 struct apr_gpu_err *e)
{
    memcpy(s->orders_host->bits, bits, n * sizeof *bits);
    return gpu_cuda(cudaMemcpyAsync(&s->sampler->orders, s->orders_host, sizeof *s->orders_host,
                                    cudaMemcpyHostToDevice, s->m->dev->stream),
                    "a chain", e);
}
void sample_issue(struct apr_gpu_seq *s)
{
    const struct apr_gpu_model *m = s->m;
    const bool all = is_of_all(&s->orders_host->chain);
    issue_rows(m->logits, m->n_vocab, 1, !all, all, s->sampler, s->st, m->dev->stream);
}
cudaGraphExec_t *sample_graph(struct apr_gpu_seq *s)
{
    return &s->graph_sampled[is_of_all(&s->orders_host->chain)];
}

enum apr_gpu_status sample(struct apr_gpu_model *m, struct apr_gpu_seq *s, const struct apr_gpu_chain *chain,
                           const uint64_t *bits, int32_t id, uint32_t n, const int32_t *stop, uint32_t n_stop,
                           int32_t *out, uint32_t *n_out, struct apr_gpu_err *e)
{
    *n_out = 0;
    GPU_TRY(gpu_enter(m->dev, e));
    GPU_TRY(check_chain(chain, e));
    GPU_TRY(open_sampler(s, e));
    s->orders_host->chain = *chain;
    return one_ahead(s, bits, id, n, stop, n_stop, out, n_out, e);
}

/* ---- batches ----------------------------------------------------------------------------------------------
 */

static enum apr_gpu_status open_samplers(struct apr_gpu_model *m, struct apr_gpu_err *e)
{
    const uint64_t n_bytes = LOGIT_ROWS * sizeof *m->samplers;
    if (!m->samplers) CU(cudaMalloc((void **)&m->samplers, n_bytes), "samplers");
    CU(cudaMemsetAsync(m->samplers, 0, n_bytes, m->dev->stream), "samplers");
    if (m->orders_host) return APR_GPU_OK;
    return gpu_cuda(
        cudaHostAlloc((void **)&m->orders_host, LOGIT_ROWS * sizeof *m->orders_host, cudaHostAllocDefault),
        "pinned memory", e);
}
void sample_close_rows(struct apr_gpu_model *m)
{
    for (uint32_t i = 0; i < N_GRAPHS; i++)
        if (m->graphs_sampled[i]) cudaGraphExecDestroy(m->graphs_sampled[i]);
    cudaFree(m->samplers);
    cudaFreeHost(m->orders_host);
}

/* To rows of a struct that begins with orders. */
static enum apr_gpu_status send_orders(struct sampler *to, const struct orders *from, uint32_t n,
                                       cudaStream_t q, struct apr_gpu_err *e)
{
    return gpu_cuda(
        cudaMemcpy2DAsync(to, sizeof *to, from, sizeof *from, sizeof *from, n, cudaMemcpyHostToDevice, q),
        "chains", e);
}
enum apr_gpu_status sample_begin_rows(struct apr_gpu_model *m, const uint64_t *bits, uint32_t n_seqs,
                                      uint32_t n_steps, uint32_t i_step, uint32_t n, struct apr_gpu_err *e)
{
    for (uint32_t i = 0; i < n_seqs; i++)
        memcpy(m->orders_host[i].bits, bits + (uint64_t)i * n_steps + i_step, n * sizeof *bits);
    return send_orders(m->samplers, m->orders_host, n_seqs, m->dev->stream, e);
}
void sample_issue_rows(struct apr_gpu_model *m, uint32_t n_rows)
{
    issue_rows(m->row_logits, m->n_vocab, n_rows, true, true, m->samplers, m->batch, m->dev->stream);
}

enum apr_gpu_status sample_rows(struct apr_gpu_model *m, struct apr_gpu_seq *const *seqs,
                                const struct apr_gpu_chain *chains, const uint64_t *bits, const int32_t *ids,
                                uint32_t n_seqs, uint32_t n, int32_t *out, struct apr_gpu_err *e)
{
    GPU_TRY(gpu_enter(m->dev, e));
    for (uint32_t i = 0; i < n_seqs; i++) GPU_TRY(check_chain(&chains[i], e));
    if (n_seqs > LOGIT_ROWS)
        return gpu_fail(e, APR_GPU_UNSUPPORTED, "%u sequences, expected 1 to %u", n_seqs, LOGIT_ROWS);
    GPU_TRY(open_samplers(m, e));
    for (uint32_t i = 0; i < n_seqs; i++) m->orders_host[i].chain = chains[i];
    return rows_ahead(m, seqs, bits, ids, n_seqs, n, out, e);
}

/* ---- for tests --------------------------------------------------------------------------------------------
 */

struct choices { /* on the device */
    float *logits;
    struct sampler *samplers;
    struct step *rows;
    struct step *rows_host;
    struct orders *orders;
    cudaEvent_t begin, end;
};

static enum apr_gpu_status choose_into(struct apr_gpu_device *d, struct choices *c,
                                       const struct apr_gpu_chain *chains, const uint64_t *bits,
                                       const float *logits, uint32_t n_rows, uint32_t n_vocab, int32_t *out,
                                       double *seconds, struct apr_gpu_err *e)
{
    const uint64_t n_bytes = 4ull * n_rows * n_vocab;
    bool few = false, all = false;
    float ms = 0;
    CU(cudaMalloc((void **)&c->logits, n_bytes), "logits");
    CU(cudaMalloc((void **)&c->samplers, n_rows * sizeof *c->samplers), "samplers");
    CU(cudaMalloc((void **)&c->rows, n_rows * sizeof *c->rows), "rows");
    CU(cudaEventCreate(&c->begin), "event");
    CU(cudaEventCreate(&c->end), "event");
    CU(cudaMemsetAsync(c->samplers, 0, n_rows * sizeof *c->samplers, d->stream), "samplers");
    CU(cudaMemcpyAsync(c->logits, logits, n_bytes, cudaMemcpyHostToDevice, d->stream), "logits");
    for (uint32_t i = 0; i < n_rows; i++) {
        c->orders[i].chain = chains[i], c->orders[i].bits[0] = bits[i];
        (is_of_all(&chains[i]) ? all : few) = true;
    }
    GPU_TRY(send_orders(c->samplers, c->orders, n_rows, d->stream, e));
    CU(cudaMemsetAsync(c->rows, 0, n_rows * sizeof *c->rows, d->stream), "rows");
    CU(cudaEventRecord(c->begin, d->stream), "event");
    issue_rows(c->logits, n_vocab, n_rows, few, all, c->samplers, c->rows, d->stream);
    CU(cudaGetLastError(), "a choice");
    CU(cudaEventRecord(c->end, d->stream), "event");
    CU(cudaMemcpyAsync(c->rows_host, c->rows, n_rows * sizeof *c->rows, cudaMemcpyDeviceToHost, d->stream),
       "rows");
    GPU_TRY(gpu_wait(d, "a choice", e));
    CU(cudaEventElapsedTime(&ms, c->begin, c->end), "event");
    *seconds = 1e-3 * (double)ms;
    for (uint32_t i = 0; i < n_rows; i++) {
        out[i] = c->rows_host[i].id;
        if (c->rows_host[i].n_bad)
            return gpu_fail(e, APR_GPU_NOT_FINITE, "%u logits of row %u are not finite",
                            c->rows_host[i].n_bad, i);
    }
    return APR_GPU_OK;
}

enum apr_gpu_status choose(struct apr_gpu_device *d, const struct apr_gpu_chain *chains, const uint64_t *bits,
                           const float *logits, uint32_t n_rows, uint32_t n_vocab, int32_t *out, double *s,
                           struct apr_gpu_err *e)
{
    struct choices c = {};
    GPU_TRY(gpu_enter(d, e));
    if (n_rows == 0 || n_rows > APR_GPU_ROWS || n_vocab == 0)
        return gpu_fail(e, APR_GPU_FAILED, "%u rows of %u logits", n_rows, n_vocab);
    for (uint32_t i = 0; i < n_rows; i++) GPU_TRY(check_chain(&chains[i], e));
    c.orders = (struct orders *)calloc(n_rows, sizeof *c.orders);
    c.rows_host = (struct step *)calloc(n_rows, sizeof *c.rows_host);
    enum apr_gpu_status st = APR_GPU_MEMORY;
    if (c.orders && c.rows_host)
        st = choose_into(d, &c, chains, bits, logits, n_rows, n_vocab, out, s, e);
    else
        (void)gpu_fail(e, st, "no memory for chains");
    cudaFree(c.logits);
    cudaFree(c.samplers);
    cudaFree(c.rows);
    if (c.begin) cudaEventDestroy(c.begin);
    if (c.end) cudaEventDestroy(c.end);
    free(c.orders);
    free(c.rows_host);
    return st;
}
