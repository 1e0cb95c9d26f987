/* Up to 64 tokens of several sequences: the matrices' kernel of few.cu, eight launches a layer.
 *
 * Per layer: sums + norm | QKV | sums + biases | rotation + cache + attention | O | sums + residual + norm |
 * gate and up | sums + SwiGLU | down. One token of each sequence is a graph for 2, 4, ... 64 rows; rows
 * without a sequence have no position and are left out.
 */
#include "model.cuh"

#include <string.h>

uint32_t batch_eights(uint32_t n_rows)
{
    return n_rows <= 8 ? 1 : n_rows <= 16 ? 2 : n_rows <= 32 ? 4 : 8;
}

static struct few few_of(const struct apr_gpu_model *m, const char *what, uint32_t n8, const __half *x,
                         float x_scale)
{
    struct few f = {};
    f.n8 = n8, f.x = x, f.x_scale = x_scale, f.part = m->part, f.what = what;
    return f;
}
static void few_add(struct few *f, struct few_out *o, const struct mat *w)
{
    o->bias[o->n_m] = w->bias, o->n_rows[o->n_m++] = w->n_rows;
    f->m[f->n_m++] = w;
}

/* Parts of a product that every device has a share of: added up here and over devices, as parts of one share
 * with the bias in them. */
static enum apr_gpu_status few_over_devices(struct apr_gpu_model *m, const float *bias, uint32_t n,
                                            struct few_sums *sums, struct apr_gpu_err *e)
{
    if (!m->dev->comm) return APR_GPU_OK;
    const uint32_t n_cols = m->n_hidden;
    struct few_out y = {{bias}, {n_cols}, 1};
    GPU_TRY(few_rows(m->dev, sums, &y, n, m->summed, m->dev->stream, e));
    GPU_TRY(comm_sum(m->dev, m->summed, (uint64_t)n * n_cols, e));
    *sums = {m->summed, sums->n_toks, n_cols, n_cols, 1, 1, 1, {0}};
    return APR_GPU_OK;
}
/* A bias that is not in the sums. */
static const float *bias_alone(const struct apr_gpu_model *m, const struct mat *w)
{
    return m->dev->comm ? NULL : w->bias;
}

/* *sums: what the layer before has left to be added to the residual, then what this one leaves. */
static enum apr_gpu_status layer(struct apr_gpu_model *m, const struct batch *b, uint32_t i, uint32_t n8,
                                 struct few_sums *sums, struct apr_gpu_err *e)
{
    const struct layer *l = &m->layers[i];
    const struct apr_gpu_device *d = m->dev;
    struct few qkv = few_of(m, "qkv", n8, m->xf, 1), o = few_of(m, "o", n8, m->af, 1),
               gate_up = few_of(m, "gate and up", n8, m->xf, 1),
               down = few_of(m, "down", n8, m->hf, 1 / MID_SCALE);
    struct few_out y_qkv = {}, y_gate_up = {}, unused = {};
    struct act att = {NULL, NULL, m->af, n8, m->heads.n_heads * m->heads.dim};
    const float *bias = i ? bias_alone(m, &m->layers[i - 1].down) : NULL;
    few_add(&qkv, &y_qkv, &l->q), few_add(&qkv, &y_qkv, &l->k), few_add(&qkv, &y_qkv, &l->v);
    few_add(&o, &unused, &l->o), few_add(&down, &unused, &l->down);
    few_add(&gate_up, &y_gate_up, &l->gate), few_add(&gate_up, &y_gate_up, &l->up);
    gpu_mark_layer(d, (int32_t)i);
    GPU_TRY(few_norm(d, i ? sums : NULL, bias, m->xs, l->attn_norm, m->eps, b->n_rows, m->n_hidden, n8, m->xf,
                     d->stream, e));
    GPU_TRY(model_tap(m, i, m->xs, b->n_rows, e));
    GPU_TRY(few_run(d, &qkv, sums, d->stream, e));
    GPU_TRY(few_rows(d, sums, &y_qkv, b->n_rows, m->qkvs, d->stream, e));
    GPU_TRY(attend(m, b, i, &att, e));
    GPU_TRY(few_run(d, &o, sums, d->stream, e));
    GPU_TRY(few_over_devices(m, l->o.bias, b->n_rows, sums, e));
    GPU_TRY(few_norm(d, sums, bias_alone(m, &l->o), m->xs, l->ffn_norm, m->eps, b->n_rows, m->n_hidden, n8,
                     m->xf, d->stream, e));
    GPU_TRY(few_run(d, &gate_up, sums, d->stream, e));
    GPU_TRY(few_swiglu(d, sums, &y_gate_up, b->n_rows, n8, m->hf, d->stream, e));
    GPU_TRY(few_run(d, &down, sums, d->stream, e));
    return few_over_devices(m, l->down.bias, b->n_rows, sums, e);
}

enum apr_gpu_status batch_step(struct apr_gpu_model *m, const struct batch *b, struct apr_gpu_err *e)
{
    struct few_sums sums;
    uint32_t n8 = batch_eights(b->n_rows);
    uint64_t n_q = m->heads.n_heads * m->heads.dim;
    if (n_q % ACT_COLS) /* attention writes no column behind its last; a batch of another size may have */
        CU(cudaMemsetAsync(m->af, 0, (n_q + 255) / 256 * 4096 * n8, m->dev->stream), "activations");
    embed_rows(&m->embed, b->rows, b->n_rows, m->embed_scale, m->xs, m->dev->stream);
    gpu_mark(m->dev, "embedding", m->dev->stream);
    for (uint32_t i = 0; i < m->n_layers; i++) GPU_TRY(layer(m, b, i, n8, &sums, e));
    gpu_mark_layer(m->dev, -1);
    GPU_TRY(few_norm(m->dev, &sums, bias_alone(m, &m->layers[m->n_layers - 1].down), m->xs, m->final_norm,
                     m->eps, b->n_rows, m->n_hidden, n8, m->xf, m->dev->stream, e));
    return model_tap(m, m->n_layers, m->xs, b->n_rows, e);
}

enum apr_gpu_status batch_head(struct apr_gpu_model *m, uint32_t n, struct apr_gpu_err *e)
{
    struct few_sums sums;
    struct few head = few_of(m, "head", batch_eights(n), m->xf, 1);
    struct few_out y = {};
    few_add(&head, &y, &m->head);
    GPU_TRY(few_run(m->dev, &head, &sums, m->dev->stream, e));
    GPU_TRY(few_rows(m->dev, &sums, &y, n, head_part(m, m->row_logits), m->dev->stream, e));
    return head_whole(m, n, m->row_logits, e);
}

/* ---- graphs -----------------------------------------------------------------------------------------------
 */

static uint32_t graph_of(uint32_t n_rows)
{
    uint32_t i = 0;
    while (2u << i < n_rows) i++;
    return i;
}

enum apr_gpu_status batch_issue(struct apr_gpu_model *m, uint32_t n, bool sampled, struct apr_gpu_err *e)
{
    const struct batch b = {NULL, n, n, n, NULL, m->batch};
    GPU_TRY(m->is_general ? general_step(m, &b, e) : batch_step(m, &b, e));
    GPU_TRY(m->is_general ? general_head(m, m->xs, n, m->row_logits, e) : batch_head(m, n, e));
    if (sampled)
        sample_issue_rows(m, n);
    else
        argmax_rows(m->row_logits, m->n_vocab, n, m->best, m->best_count, m->batch, m->dev->stream);
    return gpu_cuda(cudaGetLastError(), "a step", e);
}

static enum apr_gpu_status capture(struct apr_gpu_model *m, uint32_t i_graph, bool sampled,
                                   cudaGraphExec_t *made, struct apr_gpu_err *e)
{
    cudaGraph_t graph = NULL;
    CU(cudaStreamBeginCapture(m->dev->stream, cudaStreamCaptureModeThreadLocal), "capture of a step");
    enum apr_gpu_status s = batch_issue(m, 2u << i_graph, sampled, e);
    cudaError_t c = cudaStreamEndCapture(m->dev->stream, &graph);
    if (s == APR_GPU_OK) s = gpu_cuda(c, "capture of a step", e);
    if (s == APR_GPU_OK) s = gpu_cuda(cudaGraphInstantiate(made, graph, 0), "graph of a step", e);
    if (graph) cudaGraphDestroy(graph);
    return s == APR_GPU_OK ? comm_meet(m->dev, e) : s;
}

enum apr_gpu_status batch_begin(struct apr_gpu_model *m, struct apr_gpu_seq *const *seqs, const int32_t *ids,
                                uint32_t n, struct apr_gpu_err *e)
{
    for (uint32_t i = 0; i < LOGIT_ROWS; i++) {
        struct step *s = &m->batch_host[i];
        *s = {-1, 0, NULL, NULL, 0, 0, 0};
        if (i < n)
            *s = {(int32_t)seqs[i]->n_pos, ids[i], seqs[i]->table, m->batch_out + i * STEPS_AHEAD, 0, 0,
                  seqs[i]->is_long};
    }
    return gpu_cuda(cudaMemcpyAsync(m->batch, m->batch_host, LOGIT_ROWS * sizeof *m->batch,
                                    cudaMemcpyHostToDevice, m->dev->stream),
                    "state of a batch", e);
}
static enum apr_gpu_status begin(struct apr_gpu_model *m, struct apr_gpu_seq *const *seqs, const int32_t *ids,
                                 uint32_t n, bool sampled, cudaGraphExec_t *graph, struct apr_gpu_err *e)
{
    const uint32_t i = graph_of(n);
    cudaGraphExec_t *at = sampled ? &m->graphs_sampled[i] : &m->graphs[i];
    if (!*at) GPU_TRY(capture(m, i, sampled, at, e));
    *graph = *at;
    return batch_begin(m, seqs, ids, n, e);
}
static enum apr_gpu_status finish(struct apr_gpu_model *m, uint32_t n, struct apr_gpu_err *e)
{
    cudaStream_t q = m->dev->stream;
    CU(cudaMemcpyAsync(m->batch_host, m->batch, LOGIT_ROWS * sizeof *m->batch, cudaMemcpyDeviceToHost, q),
       "state of a batch");
    CU(cudaMemcpyAsync(m->batch_out_host, m->batch_out, 4ull * LOGIT_ROWS * STEPS_AHEAD,
                       cudaMemcpyDeviceToHost, q),
       "tokens of a batch");
    GPU_TRY(gpu_wait(m->dev, "a step", e));
    for (uint32_t i = 0; i < n; i++)
        if (m->batch_host[i].n_bad)
            return gpu_fail(e, APR_GPU_NOT_FINITE, "%u logits of sequence %u are not finite near position %d",
                            m->batch_host[i].n_bad, i, m->batch_host[i].pos - 1);
    return APR_GPU_OK;
}

enum apr_gpu_status batch_decode(struct apr_gpu_model *m, const struct apr_gpu_part *parts, uint32_t n_parts,
                                 struct apr_gpu_err *e)
{
    struct apr_gpu_seq *seqs[LOGIT_ROWS];
    int32_t ids[LOGIT_ROWS];
    cudaGraphExec_t graph;
    for (uint32_t i = 0; i < n_parts; i++) seqs[i] = parts[i].seq, ids[i] = parts[i].ids[0];
    GPU_TRY(begin(m, seqs, ids, n_parts, false, &graph, e));
    GPU_TRY(comm_launch(m->dev, graph, e));
    return finish(m, n_parts, e);
}

enum apr_gpu_status rows_ahead(struct apr_gpu_model *m, struct apr_gpu_seq *const *seqs, const uint64_t *bits,
                               const int32_t *ids, uint32_t n_seqs, uint32_t n, int32_t *out,
                               struct apr_gpu_err *e)
{
    int32_t next[LOGIT_ROWS];
    if (!m->can_few) return gpu_fail(e, APR_GPU_UNSUPPORTED, "the model's types have no kernel for batches");
    if (n_seqs == 0 || n_seqs > LOGIT_ROWS)
        return gpu_fail(e, APR_GPU_UNSUPPORTED, "%u sequences, expected 1 to %u", n_seqs, LOGIT_ROWS);
    for (uint32_t i = 0; i < n_seqs; i++) {
        if (ids[i] < 0 || (uint32_t)ids[i] >= m->n_vocab)
            return gpu_fail(e, APR_GPU_FAILED, "token %d of %u", ids[i], m->n_vocab);
        if (n > seqs[i]->n_ctx - seqs[i]->n_pos)
            return gpu_fail(e, APR_GPU_FULL, "%u tokens at position %u of %u", n, seqs[i]->n_pos,
                            seqs[i]->n_ctx);
        next[i] = ids[i];
    }
    for (uint32_t done = 0, k; done < n; done += k) {
        cudaGraphExec_t graph;
        k = n - done < STEPS_AHEAD ? n - done : STEPS_AHEAD;
        for (uint32_t i = 0; i < n_seqs; i++) GPU_TRY(seq_hold(seqs[i], seqs[i]->n_pos + k, e));
        GPU_TRY(begin(m, seqs, next, n_seqs, bits != NULL, &graph, e));
        if (bits) GPU_TRY(sample_begin_rows(m, bits, n_seqs, n, done, k, e));
        for (uint32_t i = 0; i < k; i++) GPU_TRY(comm_launch(m->dev, graph, e));
        GPU_TRY(finish(m, n_seqs, e));
        for (uint32_t i = 0; i < n_seqs; i++) {
            memcpy(out + (uint64_t)i * n + done, m->batch_out_host + i * STEPS_AHEAD, 4ull * k);
            next[i] = m->batch_out_host[i * STEPS_AHEAD + k - 1];
            seqs[i]->n_pos += k;
        }
    }
    return APR_GPU_OK;
}

enum apr_gpu_status greedy_rows(struct apr_gpu_model *m, struct apr_gpu_seq *const *seqs, const int32_t *ids,
                                uint32_t n_seqs, uint32_t n, int32_t *out, struct apr_gpu_err *e)
{
    GPU_TRY(gpu_enter(m->dev, e));
    return rows_ahead(m, seqs, NULL, ids, n_seqs, n, out, e);
}
