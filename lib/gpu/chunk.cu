/* A step of many tokens: on tensor cores with F16 copies of the weights, or all of it in F32 (reference
 * mode).
 */
#include "model.cuh"

/* F16 rows of a matrix: the resident copy, or made now. */
static const __half *widened(struct apr_gpu_model *m, const struct mat *w)
{
    if (w->wide) return w->wide;
    gpu_mark_bytes(m->dev, mat_bytes(w));
    unpack_f16(w, m->wide, m->dev->stream);
    gpu_mark(m->dev, "unpack", m->dev->stream);
    return m->wide;
}

/* y (+)= scale (w x + bias) */
static enum apr_gpu_status wide_product(struct apr_gpu_model *m, const char *what, const struct mat *w,
                                        const __half *x, uint32_t n, struct gemm y, struct apr_gpu_err *e)
{
    y.w = widened(m, w), y.x = x, y.n_rows = w->n_rows, y.n_cols = w->n_cols, y.n = n;
    y.alpha /= mat_scale(w->kind);
    gpu_mark_bytes(m->dev, 2ull * w->n_rows * w->n_cols);
    GPU_TRY(gemm_f16(m->dev, &y, m->dev->stream, e));
    if (w->bias && y.y_f32) bias_rows((float *)y.y, w->bias, n, w->n_rows, y.y_stride, m->dev->stream);
    gpu_mark(m->dev, what, m->dev->stream);
    return APR_GPU_OK;
}
static struct gemm to_f32(float *y, uint32_t stride, bool add, float alpha)
{
    return {NULL, NULL, 0, 0, 0, stride, y, true, add, alpha};
}
static struct gemm to_f16(__half *y, uint32_t stride, float alpha)
{
    return {NULL, NULL, 0, 0, 0, stride, y, false, false, alpha};
}

static enum apr_gpu_status layer_chunk(struct apr_gpu_model *m, const struct batch *b, uint32_t i,
                                       struct apr_gpu_err *e)
{
    const struct layer *l = &m->layers[i];
    const struct heads *h = &m->heads;
    cudaStream_t q = m->dev->stream;
    uint32_t n = b->n_rows, n_q = h->n_heads * h->dim, n_kv = h->n_heads_kv * h->dim, n_all = n_q + 2 * n_kv;
    const bool add = comm_adds(m->dev);
    struct act att = {NULL, NULL, m->x16, 0, n_q};
    rmsnorm_rows(m->xs, l->attn_norm, m->eps, n, m->n_hidden, NULL, m->x16, q);
    gpu_mark(m->dev, "norm", q);
    GPU_TRY(wide_product(m, "q", &l->q, m->x16, n, to_f32(m->qkvs, n_all, false, 1), e));
    GPU_TRY(wide_product(m, "k", &l->k, m->x16, n, to_f32(m->qkvs + n_q, n_all, false, 1), e));
    GPU_TRY(wide_product(m, "v", &l->v, m->x16, n, to_f32(m->qkvs + n_q + n_kv, n_all, false, 1), e));
    GPU_TRY(attend(m, b, i, &att, e));
    GPU_TRY(wide_product(m, "o", &l->o, m->x16, n, to_f32(m->xs, m->n_hidden, add, 1), e));
    GPU_TRY(comm_sum(m->dev, m->xs, (uint64_t)n * m->n_hidden, e));
    rmsnorm_rows(m->xs, l->ffn_norm, m->eps, n, m->n_hidden, NULL, m->x16, q);
    gpu_mark(m->dev, "norm", q);
    GPU_TRY(wide_product(m, "gate", &l->gate, m->x16, n, to_f16(m->gu16, 2 * m->n_inter, MID_SCALE), e));
    GPU_TRY(
        wide_product(m, "up", &l->up, m->x16, n, to_f16(m->gu16 + m->n_inter, 2 * m->n_inter, MID_SCALE), e));
    swiglu_rows(m->gu16, n, m->n_inter, m->h16, q);
    gpu_mark(m->dev, "SwiGLU", q);
    GPU_TRY(wide_product(m, "down", &l->down, m->h16, n, to_f32(m->xs, m->n_hidden, add, 1 / MID_SCALE), e));
    return comm_sum(m->dev, m->xs, (uint64_t)n * m->n_hidden, e);
}

static enum apr_gpu_status layer_exact(struct apr_gpu_model *m, const struct batch *b, uint32_t i,
                                       struct apr_gpu_err *e)
{
    const struct layer *l = &m->layers[i];
    const uint32_t n = b->n_rows;
    struct heads h = model_heads(m, i);
    struct kv kv = model_kv(m, i);
    cudaStream_t q = m->dev->stream;
    uint32_t n_q = h.n_heads * h.dim, n_kv = h.n_heads_kv * h.dim, n_all = n_q + 2 * n_kv;
    rmsnorm_rows(m->xs, l->attn_norm, m->eps, n, m->n_hidden, m->hs, NULL, q);
    gemm_exact(&l->q, m->hs, n, m->qkvs, n_all, false, q);
    gemm_exact(&l->k, m->hs, n, m->qkvs + n_q, n_all, false, q);
    gemm_exact(&l->v, m->hs, n, m->qkvs + n_q + n_kv, n_all, false, q);
    attn_rotate_store(&h, &kv, b->rows, n, m->qkvs, NULL, q);
    GPU_TRY(attn_exact(&h, &kv, b->rows, n, m->qkvs, m->hs, q, e));
    gemm_exact(&l->o, m->hs, n, m->xs, m->n_hidden, comm_adds(m->dev), q);
    GPU_TRY(comm_sum(m->dev, m->xs, (uint64_t)n * m->n_hidden, e));
    rmsnorm_rows(m->xs, l->ffn_norm, m->eps, n, m->n_hidden, m->hs, NULL, q);
    gemm_exact(&l->up, m->hs, n, m->ups, m->n_inter, false, q);
    float *gate = m->ups + (uint64_t)m->opts.n_chunk * m->n_inter;
    gemm_exact(&l->gate, m->hs, n, gate, m->n_inter, false, q);
    swiglu_f32(gate, m->ups, (uint64_t)n * m->n_inter, m->hs, q);
    gemm_exact(&l->down, m->hs, n, m->xs, m->n_hidden, comm_adds(m->dev), q);
    GPU_TRY(comm_sum(m->dev, m->xs, (uint64_t)n * m->n_hidden, e));
    return gpu_cuda(cudaGetLastError(), "a layer", e);
}

enum apr_gpu_status chunk_step(struct apr_gpu_model *m, const struct batch *b, struct apr_gpu_err *e)
{
    if (m->is_general) return general_step(m, b, e);
    embed_rows(&m->embed, b->rows, b->n_rows, m->embed_scale, m->xs, m->dev->stream);
    gpu_mark(m->dev, "embedding", m->dev->stream);
    GPU_TRY(model_tap(m, 0, m->xs, b->n_rows, e));
    for (uint32_t i = 0; i < m->n_layers; i++) {
        gpu_mark_layer(m->dev, (int32_t)i);
        GPU_TRY(m->opts.exact ? layer_exact(m, b, i, e) : layer_chunk(m, b, i, e));
        GPU_TRY(model_tap(m, i + 1, m->xs, b->n_rows, e));
    }
    gpu_mark_layer(m->dev, -1);
    return gpu_cuda(cudaGetLastError(), "a chunk", e);
}

/* Rows by the head as it is: one by one where a batch has no kernel for it. */
static enum apr_gpu_status head_rows(struct apr_gpu_model *m, const float *x, uint32_t n,
                                     struct apr_gpu_err *e)
{
    cudaStream_t q = m->dev->stream;
    if (m->is_general) return general_head(m, x, n, m->row_logits, e);
    float *y = head_part(m, m->row_logits);
    if (m->opts.exact) {
        rmsnorm_rows(x, m->final_norm, m->eps, n, m->n_hidden, m->hs, NULL, q);
        gemm_exact(&m->head, m->hs, n, y, m->head.n_rows, false, q);
        CU(cudaGetLastError(), "the head");
        return head_whole(m, n, m->row_logits, e);
    }
    if (m->can_few && n > 1) {
        GPU_TRY(few_norm(m->dev, NULL, NULL, (float *)x, m->final_norm, m->eps, n, m->n_hidden,
                         batch_eights(n), m->xf, q, e));
        return batch_head(m, n, e);
    }
    for (uint32_t r = 0; r < n; r++) {
        struct act in = {NULL, (float *)x + (uint64_t)r * m->n_hidden, NULL, 0, 0};
        struct gemv head = gemv_of("head", GEMV_ROWS, &m->head, in);
        head.norm = m->final_norm, head.eps = m->eps, head.y = y + (uint64_t)r * m->head.n_rows;
        GPU_TRY(gemv_run(m->dev, &head, q, e));
    }
    return head_whole(m, n, m->row_logits, e);
}

enum apr_gpu_status chunk_logits(struct apr_gpu_model *m, uint32_t i_row, uint32_t n, float *out,
                                 struct apr_gpu_err *e)
{
    for (uint32_t i = 0; i < n; i += LOGIT_ROWS) {
        uint32_t k = n - i < LOGIT_ROWS ? n - i : LOGIT_ROWS;
        GPU_TRY(head_rows(m, m->xs + (uint64_t)(i_row + i) * m->n_hidden, k, e));
        GPU_TRY(step_fetch(m, m->row_logits, k, out ? out + (uint64_t)i * m->n_vocab : NULL, e));
    }
    return APR_GPU_OK;
}
