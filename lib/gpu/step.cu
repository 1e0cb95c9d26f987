/* A step: tokens of one or more sequences. Which kernels compute it depends on how many there are: one token,
 * up to 64, or more.
 */
#include "model.cuh"

#include <string.h>

struct kv model_kv(const struct apr_gpu_model *m, uint32_t i_layer)
{
    return {m->cache_k[i_layer], m->cache_v[i_layer]};
}
struct heads model_heads(const struct apr_gpu_model *m, uint32_t i_layer)
{
    struct heads h = m->heads;
    h.q_norm = m->layers[i_layer].q_norm, h.k_norm = m->layers[i_layer].k_norm;
    h.rope = m->layers[i_layer].rope.at;
    return h;
}

enum apr_gpu_status attend(struct apr_gpu_model *m, const struct batch *b, uint32_t i_layer,
                           const struct act *out, struct apr_gpu_err *e)
{
    const struct heads h = model_heads(m, i_layer);
    const struct kv kv = model_kv(m, i_layer);
    cudaStream_t q = m->dev->stream;
    if (b->n_single < b->n_parts) attn_rotate_store(&h, &kv, b->rows, b->n_rows, m->qkvs, m->q16, q);
    for (uint32_t i = 0, i_row = 0; b->n_single < b->n_parts && i < b->n_parts; i_row += b->parts[i++].n) {
        const struct apr_gpu_seq *s = b->parts[i].seq;
        const struct attn_part part = {s->table, s->n_pos, b->parts[i].n, i_row};
        if (part.n > 1) GPU_TRY(attn_prompt(&h, &kv, &part, m->q16, out, q, e));
    }
    if (b->n_single < b->n_parts) gpu_mark(m->dev, "attention of a prompt", q);
    for (uint32_t i = 0; i < b->n_single; i += LOGIT_ROWS) {
        uint32_t n = b->n_single - i < LOGIT_ROWS ? b->n_single - i : LOGIT_ROWS;
        GPU_TRY(attn_step(m->dev, &h, &kv, b->rows, b->which ? b->which + i : NULL, n, m->qkvs, &m->room, out,
                          q, e));
        gpu_mark(m->dev, "attention", q);
    }
    return APR_GPU_OK;
}

/* ---- rows -------------------------------------------------------------------------------------------------
 */

static enum apr_gpu_status check_part(const struct apr_gpu_model *m, const struct apr_gpu_part *p,
                                      struct apr_gpu_err *e)
{
    if (p->n == 0) return gpu_fail(e, APR_GPU_FAILED, "a part of no tokens");
    if (p->n > p->seq->n_ctx - p->seq->n_pos)
        return gpu_fail(e, APR_GPU_FULL, "%u tokens at position %u of %u", p->n, p->seq->n_pos,
                        p->seq->n_ctx);
    for (uint32_t i = 0; i < p->n; i++)
        if (p->ids[i] < 0 || (uint32_t)p->ids[i] >= m->n_vocab)
            return gpu_fail(e, APR_GPU_FAILED, "token %d of %u", p->ids[i], m->n_vocab);
    return seq_hold(p->seq, p->seq->n_pos + p->n, e);
}

/* Rows of all parts to the device. The copies are done before the step ends, which waits for the device. */
enum apr_gpu_status step_lay(struct apr_gpu_model *m, struct batch *b, struct apr_gpu_err *e)
{
    uint32_t n = 0;
    b->n_single = 0;
    for (uint32_t i = 0; i < b->n_parts; i++) {
        const struct apr_gpu_part *p = &b->parts[i];
        if (p->n == 1) m->which_host[b->n_single++] = n;
        for (uint32_t k = 0; k < p->n; k++)
            m->rows_host[n++] = {
                (int32_t)(p->seq->n_pos + k), p->ids[k], p->seq->table, NULL, 0, 0, p->seq->is_long};
    }
    b->rows = m->rows, b->which = m->which;
    CU(cudaMemcpyAsync(m->rows, m->rows_host, n * sizeof *m->rows, cudaMemcpyHostToDevice, m->dev->stream),
       "tokens");
    if (b->n_single == 0) return APR_GPU_OK;
    return gpu_cuda(cudaMemcpyAsync(m->which, m->which_host, b->n_single * sizeof *m->which,
                                    cudaMemcpyHostToDevice, m->dev->stream),
                    "tokens", e);
}

static enum apr_gpu_status many(struct apr_gpu_model *m, struct batch *b, struct apr_gpu_err *e)
{
    bool few = m->can_few && !m->is_general && b->n_rows <= LOGIT_ROWS;
    GPU_TRY(step_lay(m, b, e));
    GPU_TRY(few ? batch_step(m, b, e) : chunk_step(m, b, e));
    m->last = few ? LAST_FEW : LAST_MANY;
    return gpu_wait(m->dev, "a step", e);
}

enum apr_gpu_status step_parts(struct apr_gpu_model *m, const struct apr_gpu_part *parts, uint32_t n_parts,
                               struct apr_gpu_err *e)
{
    struct batch b = {parts, n_parts, 0, 0, NULL, NULL};
    GPU_TRY(gpu_enter(m->dev, e));
    for (uint32_t i = 0; i < n_parts; i++) {
        GPU_TRY(check_part(m, &parts[i], e));
        b.n_rows += parts[i].n;
    }
    if (b.n_rows == 0 || b.n_rows > m->opts.n_chunk)
        return gpu_fail(e, APR_GPU_FAILED, "a step of %u tokens, expected 1 to %u", b.n_rows,
                        m->opts.n_chunk);
    m->n_last = 0;
    if (b.n_rows == 1 && !m->opts.exact) {
        GPU_TRY(one_step(parts[0].seq, parts[0].ids[0], e));
        m->last = LAST_ONE;
    } else if (b.n_rows == n_parts && m->can_few && n_parts <= LOGIT_ROWS && !m->tap) {
        GPU_TRY(batch_decode(m, parts, n_parts, e));
        m->last = LAST_READY;
    } else {
        GPU_TRY(many(m, &b, e));
    }
    m->n_last = b.n_rows;
    for (uint32_t i = 0; i < n_parts; i++) parts[i].seq->n_pos += parts[i].n;
    return APR_GPU_OK;
}

enum apr_gpu_status step_fetch(struct apr_gpu_model *m, const float *from, uint32_t n_rows, float *to,
                               struct apr_gpu_err *e)
{
    const uint64_t n_bytes = 4ull * n_rows * m->n_vocab;
    const bool staged = n_rows <= STAGED_ROWS;
    if (to)
        CU(cudaMemcpyAsync(staged ? m->logits_host : to, from, n_bytes, cudaMemcpyDeviceToHost,
                           m->dev->stream),
           "logits");
    GPU_TRY(gpu_wait(m->dev, "logits", e));
    if (to && staged) memcpy(to, m->logits_host, n_bytes);
    return APR_GPU_OK;
}

enum apr_gpu_status step_logits(struct apr_gpu_model *m, uint32_t i_row, uint32_t n_rows, float *logits,
                                struct apr_gpu_err *e)
{
    GPU_TRY(gpu_enter(m->dev, e));
    if (n_rows > m->n_last || i_row > m->n_last - n_rows)
        return gpu_fail(e, APR_GPU_FAILED, "rows %u .. %u of %u", i_row, i_row + n_rows, m->n_last);
    if (m->last == LAST_MANY) return chunk_logits(m, i_row, n_rows, logits, e);
    if (m->last == LAST_FEW) GPU_TRY(batch_head(m, m->n_last, e));
    if (m->last == LAST_FEW) m->last = LAST_READY;
    if (m->last != LAST_ONE)
        return step_fetch(m, m->row_logits + (uint64_t)i_row * m->n_vocab, n_rows, logits, e);
    if (logits) memcpy(logits, m->logits_host, 4ull * n_rows * m->n_vocab);
    return APR_GPU_OK;
}

enum apr_gpu_status model_tap(const struct apr_gpu_model *m, uint32_t i_point, const float *x,
                              uint32_t n_rows, struct apr_gpu_err *e)
{
    uint64_t n = (uint64_t)n_rows * m->n_hidden;
    if (!m->tap) return APR_GPU_OK;
    return gpu_cuda(cudaMemcpyAsync(m->tap + i_point * n, x, 4 * n, cudaMemcpyDeviceToHost, m->dev->stream),
                    "hidden states", e);
}
enum apr_gpu_status hidden(struct apr_gpu_model *m, const struct apr_gpu_part *part, float *out,
                           struct apr_gpu_err *e)
{
    m->tap = out;
    enum apr_gpu_status s = step_parts(m, part, 1, e);
    m->tap = NULL;
    return s;
}

/* The last n_rows of n tokens of one sequence, chunk by chunk. */
enum apr_gpu_status forward(struct apr_gpu_model *m, struct apr_gpu_seq *s, const int32_t *ids, uint32_t n,
                            uint32_t n_rows, float *logits, struct apr_gpu_err *e)
{
    if (n > s->n_ctx - s->n_pos)
        return gpu_fail(e, APR_GPU_FULL, "%u tokens at position %u of %u", n, s->n_pos, s->n_ctx);
    if (n_rows > n) return gpu_fail(e, APR_GPU_FAILED, "%u rows of %u tokens", n_rows, n);
    for (uint32_t i = 0; i < n; i += m->opts.n_chunk) {
        uint32_t k = n - i < m->opts.n_chunk ? n - i : m->opts.n_chunk,
                 first = n - n_rows; /* rows from here on are wanted */
        const struct apr_gpu_part part = {s, ids + i, k};
        GPU_TRY(step_parts(m, &part, 1, e));
        if (i + k <= first) continue;
        uint32_t r = first > i ? first - i : 0;
        float *to = logits ? logits + (uint64_t)(i + r - first) * m->n_vocab : NULL;
        GPU_TRY(step_logits(m, r, k - r, to, e));
    }
    return APR_GPU_OK;
}
