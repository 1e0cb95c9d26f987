/* One token by fused kernels in a captured graph.
 *
 * Per layer: norm + QKV | rotation + cache + attention | O + residual | norm + gate/up + SwiGLU | down +
 * residual. Everything that changes from step to step (position, token) is read from device memory, so the
 * graph is captured once a sequence.
 */
#include "model.cuh"

enum apr_gpu_status one_products(const struct apr_gpu_model *m, const struct gemv *g, struct apr_gpu_err *e)
{
    /* one launch takes matrices that read one form of the input, in tiles of one width */
    struct gemv part = *g;
    uint32_t i_row = 0;
    for (int i = 0; i < g->n_m;) {
        int n = 1;
        const int kind = g->m[i]->kind;
        while (i + n < g->n_m && tile_is_quantized(g->m[i + n]->kind) == tile_is_quantized(kind) &&
               tile_cols(g->m[i + n]->kind) == tile_cols(kind))
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

/* The forms of the residual that matrices read, when it is made by the kernel before. */
static struct act next_of(const struct apr_gpu_model *m, const struct mat *const *w, int n)
{
    struct act x = {};
    for (int i = 0; i < n; i++) {
        if (tile_is_quantized(w[i]->kind))
            x.q = m->next_x.q;
        else
            x.f = m->next_x.f;
    }
    return x;
}
/* g reads the residual behind a norm: as the kernel before has made it, or, where that is not the last word,
 * as it is. */
static void read_residual(const struct apr_gpu_model *m, struct gemv *g, const float *norm, bool is_made)
{
    g->eps = m->eps;
    if (is_made) {
        g->in = m->next_x, g->sq = m->next_sq;
    } else {
        g->in.f = m->x, g->norm = norm;
    }
}

static enum apr_gpu_status layer_step(struct apr_gpu_model *m, struct apr_gpu_seq *s, uint32_t i,
                                      struct apr_gpu_err *e)
{
    const struct layer *l = &m->layers[i], *after = i + 1 < m->n_layers ? l + 1 : NULL;
    struct heads h = model_heads(m, i);
    struct kv kv = model_kv(m, i);
    const bool alone = !m->dev->comm; /* else the residual is not known before comm_sum */
    const enum gemv_out add = comm_adds(m->dev) ? GEMV_ADD : GEMV_ROWS;
    bool o_q = tile_is_quantized(l->o.kind), down_q = tile_is_quantized(l->down.kind);
    struct act att = {o_q ? m->att_q : NULL, o_q ? NULL : m->att_f, NULL, 0, 0},
               mid = {down_q ? m->h_q : NULL, down_q ? NULL : m->h_f, NULL, 0, 0};
    const struct mat *mid_reads[] = {&l->gate, &l->up},
                     *end_reads[] = {after ? &after->q : &m->head, after ? &after->k : &m->head,
                                     after ? &after->v : &m->head};
    struct gemv qkv = gemv_of("qkv", GEMV_ROWS, &l->q, {}), o = gemv_of("o", add, &l->o, att),
                gate_up = gemv_of("gate and up", GEMV_SWIGLU, &l->gate, {}),
                down = gemv_of("down", add, &l->down, mid);
    qkv.m[1] = &l->k, qkv.m[2] = &l->v, qkv.n_m = 3, qkv.y = m->qkv;
    gate_up.m[1] = &l->up, gate_up.n_m = 2, gate_up.out = mid;
    o.y = down.y = m->x;
    read_residual(m, &qkv, l->attn_norm, alone && i);
    read_residual(m, &gate_up, l->ffn_norm, alone);
    if (alone) {
        o.next_norm = l->ffn_norm, o.next = next_of(m, mid_reads, 2), o.next_sq = m->next_sq;
        down.next_norm = after ? after->attn_norm : m->final_norm, down.next = next_of(m, end_reads, 3),
        down.next_sq = m->next_sq;
    }
    gpu_mark_layer(m->dev, (int32_t)i);
    GPU_TRY(one_products(m, &qkv, e));
    GPU_TRY(attn_step(m->dev, &h, &kv, s->st, NULL, 1, m->qkv, &m->room, &att, m->dev->stream, e));
    gpu_mark(m->dev, "attention", m->dev->stream);
    GPU_TRY(gemv_run(m->dev, &o, m->dev->stream, e));
    GPU_TRY(comm_sum(m->dev, m->x, m->n_hidden, e));
    GPU_TRY(gemv_run(m->dev, &gate_up, m->dev->stream, e));
    GPU_TRY(gemv_run(m->dev, &down, m->dev->stream, e));
    return comm_sum(m->dev, m->x, m->n_hidden, e);
}

static void issue_choice(struct apr_gpu_seq *s, bool sampled)
{
    const struct apr_gpu_model *m = s->m;
    if (sampled)
        sample_issue(s);
    else
        argmax_rows(m->logits, m->n_vocab, 1, m->best, m->best_count, s->st, m->dev->stream);
}

enum apr_gpu_status one_issue(struct apr_gpu_seq *s, bool sampled, struct apr_gpu_err *e)
{
    struct apr_gpu_model *m = s->m;
    struct gemv head = gemv_of("head", GEMV_ROWS, &m->head, {});
    head.y = head_part(m, m->logits);
    read_residual(m, &head, m->final_norm, !m->dev->comm);
    if (m->is_general) {
        const struct batch b = {NULL, 1, 1, 1, NULL, s->st};
        GPU_TRY(general_step(m, &b, e));
        GPU_TRY(general_head(m, m->xs, 1, m->logits, e));
        issue_choice(s, sampled);
        return gpu_cuda(cudaGetLastError(), "a step", e);
    }
    embed_rows(&m->embed, s->st, 1, m->embed_scale, m->x, m->dev->stream);
    gpu_mark(m->dev, "embedding", m->dev->stream);
    GPU_TRY(model_tap(m, 0, m->x, 1, e));
    for (uint32_t i = 0; i < m->n_layers; i++) {
        GPU_TRY(layer_step(m, s, i, e));
        GPU_TRY(model_tap(m, i + 1, m->x, 1, e));
    }
    gpu_mark_layer(m->dev, -1);
    GPU_TRY(gemv_run(m->dev, &head, m->dev->stream, e));
    GPU_TRY(head_whole(m, 1, m->logits, e));
    issue_choice(s, sampled);
    return gpu_cuda(cudaGetLastError(), "a step", e);
}

static enum apr_gpu_status capture(struct apr_gpu_seq *s, bool sampled, cudaGraphExec_t *made,
                                   struct apr_gpu_err *e)
{
    struct apr_gpu_model *m = s->m;
    cudaGraph_t graph = NULL;
    enum apr_gpu_status st;
    CU(cudaStreamBeginCapture(m->dev->stream, cudaStreamCaptureModeThreadLocal), "capture of a step");
    st = one_issue(s, sampled, e);
    cudaError_t c = cudaStreamEndCapture(m->dev->stream, &graph);
    if (st == APR_GPU_OK) st = gpu_cuda(c, "capture of a step", e);
    if (st == APR_GPU_OK) st = gpu_cuda(cudaGraphInstantiate(made, graph, 0), "graph of a step", e);
    if (graph) cudaGraphDestroy(graph);
    return st == APR_GPU_OK ? comm_meet(m->dev, e) : st;
}

enum apr_gpu_status one_begin(struct apr_gpu_seq *s, int32_t id, struct apr_gpu_err *e)
{
    *s->st_host = {(int32_t)s->n_pos, id, s->table, s->out, 0, 0, s->is_long};
    return gpu_cuda(
        cudaMemcpyAsync(s->st, s->st_host, sizeof *s->st, cudaMemcpyHostToDevice, s->m->dev->stream),
        "state of a sequence", e);
}
static enum apr_gpu_status read_steps(struct apr_gpu_seq *s, uint32_t n, struct apr_gpu_err *e)
{
    cudaStream_t q = s->m->dev->stream;
    CU(cudaMemcpyAsync(s->st_host, s->st, sizeof *s->st, cudaMemcpyDeviceToHost, q), "state of a sequence");
    CU(cudaMemcpyAsync(s->out_host, s->out, 4ull * n, cudaMemcpyDeviceToHost, q), "tokens of a sequence");
    GPU_TRY(gpu_wait(s->m->dev, "a step", e));
    if (s->st_host->n_bad)
        return gpu_fail(e, APR_GPU_NOT_FINITE, "%u logits are not finite near position %d", s->st_host->n_bad,
                        s->st_host->pos - 1);
    return APR_GPU_OK;
}

enum apr_gpu_status one_step(struct apr_gpu_seq *s, int32_t id, struct apr_gpu_err *e)
{
    struct apr_gpu_model *m = s->m;
    if (!s->graph && !m->tap) GPU_TRY(capture(s, false, &s->graph, e));
    GPU_TRY(one_begin(s, id, e));
    if (m->tap)
        GPU_TRY(one_issue(s, false, e));
    else
        GPU_TRY(comm_launch(m->dev, s->graph, e));
    CU(cudaMemcpyAsync(m->logits_host, m->logits, 4ull * m->n_vocab, cudaMemcpyDeviceToHost, m->dev->stream),
       "logits");
    return read_steps(s, 1, e);
}

enum apr_gpu_status one_ahead(struct apr_gpu_seq *s, const uint64_t *bits, int32_t id, uint32_t n,
                              const int32_t *stop, uint32_t n_stop, int32_t *out, uint32_t *n_out,
                              struct apr_gpu_err *e)
{
    struct apr_gpu_model *m = s->m;
    cudaGraphExec_t *graph = bits ? sample_graph(s) : &s->graph;
    if (id < 0 || (uint32_t)id >= m->n_vocab)
        return gpu_fail(e, APR_GPU_FAILED, "token %d of %u", id, m->n_vocab);
    if (m->opts.exact) return gpu_fail(e, APR_GPU_UNSUPPORTED, "reference mode computes token by token");
    if (n > s->n_ctx - s->n_pos)
        return gpu_fail(e, APR_GPU_FULL, "%u tokens at position %u of %u", n, s->n_pos, s->n_ctx);
    if (!*graph) GPU_TRY(capture(s, bits != NULL, graph, e));
    while (*n_out < n) {
        uint32_t k = n - *n_out < STEPS_AHEAD ? n - *n_out : STEPS_AHEAD;
        GPU_TRY(seq_hold(s, s->n_pos + k, e));
        GPU_TRY(one_begin(s, *n_out ? out[*n_out - 1] : id, e));
        if (bits) GPU_TRY(sample_begin(s, bits + *n_out, k, e));
        for (uint32_t i = 0; i < k; i++) GPU_TRY(comm_launch(m->dev, *graph, e));
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

enum apr_gpu_status greedy(struct apr_gpu_model *m, struct apr_gpu_seq *s, int32_t id, uint32_t n,
                           const int32_t *stop, uint32_t n_stop, int32_t *out, uint32_t *n_out,
                           struct apr_gpu_err *e)
{
    *n_out = 0;
    GPU_TRY(gpu_enter(m->dev, e));
    return one_ahead(s, NULL, id, n, stop, n_stop, out, n_out, e);
}
