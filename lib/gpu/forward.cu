/* The forward pass: one token by fused kernels in a captured graph, a prompt chunk by chunk on tensor cores,
 * or all of it in F32 (reference mode).
 *
 * One token, per layer: norm + QKV | rotation + cache + attention | O + residual | norm + gate/up + SwiGLU |
 * down + residual. Everything that changes from step to step (position, token) is read from device memory, so
 * the graph is captured once a sequence.
 */
#include "model.cuh"

static struct kv kv_of(const struct apr_gpu_seq *s, uint32_t i)
{
    return {s->m->cache_k[i], s->m->cache_v[i], s->table};
}
static struct heads heads_of(const struct apr_gpu_model *m, uint32_t i)
{
    struct heads h = m->heads;
    h.q_norm = m->layers[i].q_norm, h.k_norm = m->layers[i].k_norm;
    return h;
}

/* ---- one token --------------------------------------------------------------------------------------------
 */

static enum apr_gpu_status products(const struct apr_gpu_model *m, const struct gemv *g,
                                    struct apr_gpu_err *e)
{
    /* one launch takes matrices that read one form of the input */
    struct gemv part = *g;
    uint32_t i_row = 0;
    for (int i = 0; i < g->n_m;) {
        int n = 1;
        while (i + n < g->n_m && tile_is_quantized(g->m[i + n]->kind) == tile_is_quantized(g->m[i]->kind))
            n++;
        part.n_m = n;
        for (int k = 0; k < n; k++) part.m[k] = g->m[i + k];
        part.y = g->y + i_row;
        GPU_TRY(gemv_run(m->dev, &part, m->dev->stream, e));
        for (int k = 0; k < n; k++) i_row += g->m[i + k]->n_rows;
        i += n;
    }
    return APR_GPU_OK;
}

static enum apr_gpu_status layer_step(struct apr_gpu_model *m, struct apr_gpu_seq *s, uint32_t i,
                                      struct apr_gpu_err *e)
{
    const struct layer *l = &m->layers[i];
    struct heads h = heads_of(m, i);
    struct kv kv = kv_of(s, i);
    bool o_q = tile_is_quantized(l->o.kind), down_q = tile_is_quantized(l->down.kind);
    struct act att = {o_q ? m->att_q : NULL, o_q ? NULL : m->att_f},
               mid = {down_q ? m->h_q : NULL, down_q ? NULL : m->h_f};
    struct gemv qkv = {{&l->q, &l->k, &l->v}, 3, l->attn_norm, m->eps, {NULL, m->x}, GEMV_ROWS, m->qkv, {}};
    struct gemv o = {{&l->o}, 1, NULL, 0, att, GEMV_ADD, m->x, {}};
    struct gemv gate_up = {{&l->gate, &l->up}, 2, l->ffn_norm, m->eps, {NULL, m->x}, GEMV_SWIGLU, NULL, mid};
    struct gemv down = {{&l->down}, 1, NULL, 0, mid, GEMV_ADD, m->x, {}};
    GPU_TRY(products(m, &qkv, e));
    GPU_TRY(attn_step(m->dev, &h, &kv, s->st, m->qkv, &m->room, &att, m->dev->stream, e));
    GPU_TRY(gemv_run(m->dev, &o, m->dev->stream, e));
    GPU_TRY(gemv_run(m->dev, &gate_up, m->dev->stream, e));
    return gemv_run(m->dev, &down, m->dev->stream, e);
}

static enum apr_gpu_status issue_step(struct apr_gpu_model *m, struct apr_gpu_seq *s, struct apr_gpu_err *e)
{
    struct gemv head = {{&m->head}, 1, m->final_norm, m->eps, {NULL, m->x}, GEMV_ROWS, m->logits, {}};
    embed_step(&m->embed, s->st, m->embed_scale, m->x, m->dev->stream);
    for (uint32_t i = 0; i < m->n_layers; i++) GPU_TRY(layer_step(m, s, i, e));
    GPU_TRY(gemv_run(m->dev, &head, m->dev->stream, e));
    argmax_step(m->logits, m->n_vocab, m->best, m->best_count, s->st, s->out, m->dev->stream);
    return gpu_cuda(cudaGetLastError(), "a step", e);
}

static enum apr_gpu_status capture(struct apr_gpu_model *m, struct apr_gpu_seq *s, struct apr_gpu_err *e)
{
    cudaGraph_t graph = NULL;
    enum apr_gpu_status st;
    CU(cudaStreamBeginCapture(m->dev->stream, cudaStreamCaptureModeThreadLocal), "capture of a step");
    st = issue_step(m, s, e);
    cudaError_t c = cudaStreamEndCapture(m->dev->stream, &graph);
    if (st == APR_GPU_OK) st = gpu_cuda(c, "capture of a step", e);
    if (st == APR_GPU_OK) st = gpu_cuda(cudaGraphInstantiate(&s->graph, graph, 0), "graph of a step", e);
    if (graph) cudaGraphDestroy(graph);
    return st;
}

static enum apr_gpu_status begin_steps(struct apr_gpu_seq *s, int32_t id, struct apr_gpu_err *e)
{
    *s->st_host = {(int32_t)s->n_pos, id, 0, 0};
    return gpu_cuda(
        cudaMemcpyAsync(s->st, s->st_host, sizeof *s->st, cudaMemcpyHostToDevice, s->m->dev->stream),
        "state of a sequence", e);
}
static enum apr_gpu_status read_steps(struct apr_gpu_seq *s, uint32_t n, struct apr_gpu_err *e)
{
    cudaStream_t q = s->m->dev->stream;
    CU(cudaMemcpyAsync(s->st_host, s->st, sizeof *s->st, cudaMemcpyDeviceToHost, q), "state of a sequence");
    CU(cudaMemcpyAsync(s->out_host, s->out, 4ull * n, cudaMemcpyDeviceToHost, q), "tokens of a sequence");
    CU(cudaStreamSynchronize(q), "a step");
    if (s->st_host->n_bad)
        return gpu_fail(e, APR_GPU_NOT_FINITE, "%u logits are not finite near position %d", s->st_host->n_bad,
                        s->st_host->pos - 1);
    return APR_GPU_OK;
}

static enum apr_gpu_status step(struct apr_gpu_model *m, struct apr_gpu_seq *s, int32_t id, float *logits,
                                struct apr_gpu_err *e)
{
    if (!s->graph) GPU_TRY(capture(m, s, e));
    GPU_TRY(begin_steps(s, id, e));
    CU(cudaGraphLaunch(s->graph, m->dev->stream), "a step");
    if (logits)
        CU(cudaMemcpyAsync(logits, m->logits, 4ull * m->n_vocab, cudaMemcpyDeviceToHost, m->dev->stream),
           "logits");
    GPU_TRY(read_steps(s, 1, e));
    s->n_pos++;
    return APR_GPU_OK;
}

#define STEPS_AHEAD 32u /* between two looks at the stop tokens */

enum apr_gpu_status greedy(struct apr_gpu_model *m, struct apr_gpu_seq *s, int32_t id, uint32_t n,
                           const int32_t *stop, uint32_t n_stop, int32_t *out, uint32_t *n_out,
                           struct apr_gpu_err *e)
{
    *n_out = 0;
    CU(cudaSetDevice(m->dev->i), "device");
    if (id < 0 || (uint32_t)id >= m->n_vocab)
        return gpu_fail(e, APR_GPU_FAILED, "token %d of %u", id, m->n_vocab);
    if (m->opts.exact) return gpu_fail(e, APR_GPU_UNSUPPORTED, "reference mode computes token by token");
    if (n > s->n_ctx - s->n_pos)
        return gpu_fail(e, APR_GPU_FULL, "%u tokens at position %u of %u", n, s->n_pos, s->n_ctx);
    if (!s->graph) GPU_TRY(capture(m, s, e));
    while (*n_out < n) {
        uint32_t k = n - *n_out < STEPS_AHEAD ? n - *n_out : STEPS_AHEAD;
        GPU_TRY(begin_steps(s, *n_out ? out[*n_out - 1] : id, e));
        for (uint32_t i = 0; i < k; i++) CU(cudaGraphLaunch(s->graph, m->dev->stream), "a step");
        GPU_TRY(read_steps(s, k, e));
        for (uint32_t i = 0; i < k; i++) {
            out[(*n_out)++] = s->out_host[i];
            s->n_pos++;
            for (uint32_t j = 0; j < n_stop; j++)
                if (s->out_host[i] == stop[j]) return APR_GPU_OK;
        }
    }
    return APR_GPU_OK;
}

/* ---- a chunk of a prompt ----------------------------------------------------------------------------------
 */

/* BF16 rows of a matrix: the resident copy, or made now. */
static const __nv_bfloat16 *widened(struct apr_gpu_model *m, const struct mat *w)
{
    if (w->wide) return w->wide;
    unpack_bf16(w, m->wide, m->dev->stream);
    return m->wide;
}

static enum apr_gpu_status product(struct apr_gpu_model *m, const struct mat *w, const __nv_bfloat16 *x,
                                   uint32_t n, void *y, bool y_f32, uint32_t stride, bool add,
                                   struct apr_gpu_err *e)
{
    GPU_TRY(gemm_bf16(m->dev, widened(m, w), w->n_rows, w->n_cols, x, n, y, y_f32, stride, add,
                      m->dev->stream, e));
    if (w->bias && y_f32) bias_rows((float *)y, w->bias, n, w->n_rows, stride, m->dev->stream);
    return APR_GPU_OK;
}

static enum apr_gpu_status layer_chunk(struct apr_gpu_model *m, struct apr_gpu_seq *s, uint32_t i, uint32_t n,
                                       struct apr_gpu_err *e)
{
    const struct layer *l = &m->layers[i];
    struct heads h = heads_of(m, i);
    struct kv kv = kv_of(s, i);
    cudaStream_t q = m->dev->stream;
    uint32_t n_q = h.n_heads * h.dim, n_kv = h.n_heads_kv * h.dim, n_all = n_q + 2 * n_kv;
    rmsnorm_rows(m->xs, l->attn_norm, m->eps, n, m->n_hidden, NULL, m->x16, q);
    GPU_TRY(product(m, &l->q, m->x16, n, m->qkvs, true, n_all, false, e));
    GPU_TRY(product(m, &l->k, m->x16, n, m->qkvs + n_q, true, n_all, false, e));
    GPU_TRY(product(m, &l->v, m->x16, n, m->qkvs + n_q + n_kv, true, n_all, false, e));
    attn_rotate_store(&h, &kv, s->n_pos, n, m->qkvs, m->q16, q);
    GPU_TRY(attn_prompt(&h, &kv, s->n_pos, n, m->q16, NULL, m->x16, NULL, q, e));
    GPU_TRY(product(m, &l->o, m->x16, n, m->xs, true, m->n_hidden, true, e));
    rmsnorm_rows(m->xs, l->ffn_norm, m->eps, n, m->n_hidden, NULL, m->x16, q);
    GPU_TRY(product(m, &l->gate, m->x16, n, m->gu16, false, 2 * m->n_inter, false, e));
    GPU_TRY(product(m, &l->up, m->x16, n, m->gu16 + m->n_inter, false, 2 * m->n_inter, false, e));
    swiglu_rows(m->gu16, n, m->n_inter, m->h16, q);
    return product(m, &l->down, m->h16, n, m->xs, true, m->n_hidden, true, e);
}

static enum apr_gpu_status layer_exact(struct apr_gpu_model *m, struct apr_gpu_seq *s, uint32_t i, uint32_t n,
                                       struct apr_gpu_err *e)
{
    const struct layer *l = &m->layers[i];
    struct heads h = heads_of(m, i);
    struct kv kv = kv_of(s, i);
    cudaStream_t q = m->dev->stream;
    uint32_t n_q = h.n_heads * h.dim, n_kv = h.n_heads_kv * h.dim, n_all = n_q + 2 * n_kv;
    rmsnorm_rows(m->xs, l->attn_norm, m->eps, n, m->n_hidden, m->hs, NULL, q);
    gemm_exact(&l->q, m->hs, n, m->qkvs, n_all, false, q);
    gemm_exact(&l->k, m->hs, n, m->qkvs + n_q, n_all, false, q);
    gemm_exact(&l->v, m->hs, n, m->qkvs + n_q + n_kv, n_all, false, q);
    attn_rotate_store(&h, &kv, s->n_pos, n, m->qkvs, NULL, q);
    GPU_TRY(attn_prompt(&h, &kv, s->n_pos, n, NULL, m->qkvs, NULL, m->hs, q, e));
    gemm_exact(&l->o, m->hs, n, m->xs, m->n_hidden, true, q);
    rmsnorm_rows(m->xs, l->ffn_norm, m->eps, n, m->n_hidden, m->hs, NULL, q);
    gemm_exact(&l->up, m->hs, n, m->ups, m->n_inter, false, q);
    float *gate = m->ups + (uint64_t)m->opts.n_chunk * m->n_inter;
    gemm_exact(&l->gate, m->hs, n, gate, m->n_inter, false, q);
    swiglu_f32(gate, m->ups, (uint64_t)n * m->n_inter, m->hs, q);
    gemm_exact(&l->down, m->hs, n, m->xs, m->n_hidden, true, q);
    return gpu_cuda(cudaGetLastError(), "a layer", e);
}

/* Logits of rows i_tok .. of the chunk, by the head as it is. */
static enum apr_gpu_status chunk_logits(struct apr_gpu_model *m, uint32_t i_tok, uint32_t n, float *out,
                                        struct apr_gpu_err *e)
{
    cudaStream_t q = m->dev->stream;
    for (uint32_t i = 0; i < n; i += LOGIT_ROWS) {
        uint32_t k = n - i < LOGIT_ROWS ? n - i : LOGIT_ROWS;
        const float *x = m->xs + (uint64_t)(i_tok + i) * m->n_hidden;
        if (m->opts.exact) {
            rmsnorm_rows(x, m->final_norm, m->eps, k, m->n_hidden, m->hs, NULL, q);
            gemm_exact(&m->head, m->hs, k, m->rows, m->n_vocab, false, q);
        } else {
            for (uint32_t r = 0; r < k; r++) {
                struct gemv head = {{&m->head},
                                    1,
                                    m->final_norm,
                                    m->eps,
                                    {NULL, (float *)x + (uint64_t)r * m->n_hidden},
                                    GEMV_ROWS,
                                    m->rows + (uint64_t)r * m->n_vocab,
                                    {}};
                GPU_TRY(gemv_run(m->dev, &head, q, e));
            }
        }
        CU(cudaMemcpyAsync(out + (uint64_t)i * m->n_vocab, m->rows, 4ull * k * m->n_vocab,
                           cudaMemcpyDeviceToHost, q),
           "logits");
        CU(cudaStreamSynchronize(q), "logits");
    }
    return APR_GPU_OK;
}

static enum apr_gpu_status chunk(struct apr_gpu_model *m, struct apr_gpu_seq *s, const int32_t *ids,
                                 uint32_t n, struct apr_gpu_err *e)
{
    CU(cudaMemcpyAsync(m->ids, ids, 4ull * n, cudaMemcpyHostToDevice, m->dev->stream), "tokens");
    embed_rows(&m->embed, m->ids, n, m->embed_scale, m->xs, m->dev->stream);
    for (uint32_t i = 0; i < m->n_layers; i++)
        GPU_TRY(m->opts.exact ? layer_exact(m, s, i, n, e) : layer_chunk(m, s, i, n, e));
    return gpu_cuda(cudaGetLastError(), "a chunk", e);
}

enum apr_gpu_status forward(struct apr_gpu_model *m, struct apr_gpu_seq *s, const int32_t *ids, uint32_t n,
                            uint32_t n_rows, float *logits, struct apr_gpu_err *e)
{
    CU(cudaSetDevice(m->dev->i), "device");
    if (n > s->n_ctx - s->n_pos)
        return gpu_fail(e, APR_GPU_FULL, "%u tokens at position %u of %u", n, s->n_pos, s->n_ctx);
    if (n_rows > n) return gpu_fail(e, APR_GPU_FAILED, "%u rows of %u tokens", n_rows, n);
    for (uint32_t i = 0; i < n; i++)
        if (ids[i] < 0 || (uint32_t)ids[i] >= m->n_vocab)
            return gpu_fail(e, APR_GPU_FAILED, "token %d of %u", ids[i], m->n_vocab);
    if (n == 1 && !m->opts.exact) return step(m, s, ids[0], n_rows ? logits : NULL, e);
    for (uint32_t i = 0; i < n; i += m->opts.n_chunk) {
        uint32_t k = n - i < m->opts.n_chunk ? n - i : m->opts.n_chunk,
                 first = n - n_rows; /* rows from here on are wanted */
        GPU_TRY(chunk(m, s, ids + i, k, e));
        if (i + k > first) {
            uint32_t r = first > i ? first - i : 0;
            GPU_TRY(chunk_logits(m, r, k - r, logits + (uint64_t)(i + r - first) * m->n_vocab, e));
        }
        s->n_pos += k;
    }
    return gpu_cuda(cudaStreamSynchronize(m->dev->stream), "a prompt", e);
}
