/* Loading: every matrix goes from the mapped file through two pinned buffers to the device and into tiles.
 * The bound is PCIe (or the disk). Sequences take their pages from the model's.
 */
#include "model.cuh"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define ALLOC(p, n, what) GPU_TRY(model_alloc(m, (void **)&(p), (n), (what), e))

/* ---- staging ----------------------------------------------------------------------------------------------
 */

enum apr_gpu_status stage_open(struct stage *s, struct apr_gpu_err *e)
{
    for (int i = 0; i < 2; i++) {
        CU(cudaHostAlloc((void **)&s->host[i], STAGE_BYTES, cudaHostAllocDefault), "pinned memory");
        CU(cudaMalloc((void **)&s->dev[i], STAGE_BYTES), "staging memory");
        CU(cudaEventCreateWithFlags(&s->done[i], cudaEventDisableTiming), "event");
    }
    return APR_GPU_OK;
}
void stage_close(struct stage *s)
{
    for (int i = 0; i < 2; i++) {
        cudaFreeHost(s->host[i]);
        cudaFree(s->dev[i]);
        if (s->done[i]) cudaEventDestroy(s->done[i]);
    }
}

static void copy_rows(uint8_t *to, const struct apr_gpu_mat *from, uint32_t i_row, uint32_t n)
{
    uint64_t stride = from->stride_bytes ? from->stride_bytes : from->row_bytes;
    const uint8_t *rows = (const uint8_t *)from->data + i_row * stride;
    if (stride == from->row_bytes) {
        memcpy(to, rows, n * stride);
        return;
    }
    for (uint32_t r = 0; r < n; r++) memcpy(to + r * from->row_bytes, rows + r * stride, from->row_bytes);
}

enum apr_gpu_status stage_mat(struct stage *s, const struct apr_gpu_mat *from, struct mat *to,
                              cudaStream_t stream, struct apr_gpu_err *e)
{
    uint32_t n_step = (uint32_t)(STAGE_BYTES / from->row_bytes) / TILE_ROWS * TILE_ROWS;
    if (n_step == 0)
        return gpu_fail(e, APR_GPU_UNSUPPORTED, "rows of %llu bytes", (unsigned long long)from->row_bytes);
    for (uint32_t r = 0; r < from->n_rows; r += n_step) {
        uint32_t n = from->n_rows - r < n_step ? from->n_rows - r : n_step, i = s->i++ % 2;
        uint64_t n_bytes = n * from->row_bytes;
        CU(cudaEventSynchronize(s->done[i]), "copy to the device");
        copy_rows(s->host[i], from, r, n);
        CU(cudaMemcpyAsync(s->dev[i], s->host[i], n_bytes, cudaMemcpyHostToDevice, stream),
           "copy to the device");
        repack_rows(to, from->type, s->dev[i], from->row_bytes, r, n, stream);
        CU(cudaGetLastError(), "repacking");
        CU(cudaEventRecord(s->done[i], stream), "event");
        s->n_bytes += n_bytes;
        if (s->progress) s->progress(s->ctx, s->n_bytes);
    }
    return APR_GPU_OK;
}

static enum apr_gpu_status load_vector(struct apr_gpu_model *m, const float *from, uint32_t n, float **to,
                                       struct apr_gpu_err *e)
{
    *to = NULL;
    if (!from) return APR_GPU_OK;
    ALLOC(*to, 4ull * n, "a vector");
    return gpu_cuda(cudaMemcpy(*to, from, 4ull * n, cudaMemcpyHostToDevice), "copy of a vector", e);
}

static enum apr_gpu_status load_mat(struct apr_gpu_model *m, struct stage *s, const struct apr_gpu_mat *from,
                                    bool wide, struct mat *to, struct apr_gpu_err *e)
{
    memset(to, 0, sizeof *to);
    if (!from->data) return APR_GPU_OK;
    mat_shape(from, to);
    ALLOC(to->tiles, repack_bytes(to->kind, to->n_rows, to->n_cols), "a matrix");
    GPU_TRY(stage_mat(s, from, to, m->dev->stream, e));
    GPU_TRY(load_vector(m, from->bias, from->n_rows, &to->bias, e));
    if (!wide) return APR_GPU_OK;
    ALLOC(to->wide, mat_wide_bytes(from), "an F16 copy");
    unpack_f16(to, to->wide, m->dev->stream);
    return gpu_cuda(cudaGetLastError(), "unpacking", e);
}

static enum apr_gpu_status load_stack(struct apr_gpu_model *m, struct stage *s,
                                      const struct apr_gpu_mat *from, uint32_t n, struct stack *to,
                                      struct apr_gpu_err *e)
{
    memset(to, 0, sizeof *to);
    if (!from || !n) return APR_GPU_OK;
    mat_shape(from, &to->m);
    to->n = n, to->n_bytes = repack_bytes(to->m.kind, to->m.n_rows, to->m.n_cols);
    ALLOC(to->m.tiles, n * to->n_bytes, "a stack of matrices");
    for (uint32_t i = 0; i < n; i++) {
        struct mat one = to->m;
        one.tiles += i * to->n_bytes;
        GPU_TRY(stage_mat(s, &from[i], &one, m->dev->stream, e));
    }
    return APR_GPU_OK;
}

static enum apr_gpu_status load_norms(struct apr_gpu_model *m, const struct apr_gpu_layer *from,
                                      struct layer *to, struct apr_gpu_err *e)
{
    const struct apr_gpu_latent *a = &from->latent;
    const struct {
        const float *from;
        uint32_t n;
        float **to;
    } all[] = {{from->attn_norm.w, m->n_hidden, &to->attn_norm},
               {from->attn_norm.b, m->n_hidden, &to->attn_norm_b},
               {from->ffn_norm.w, m->n_hidden, &to->ffn_norm},
               {from->ffn_norm.b, m->n_hidden, &to->ffn_norm_b},
               {from->post_attn_norm, m->n_hidden, &to->post_attn_norm},
               {from->post_ffn_norm, m->n_hidden, &to->post_ffn_norm},
               {from->q_norm, m->heads.dim, &to->q_norm},
               {from->k_norm, m->heads.dim, &to->k_norm},
               {a->q_a_norm, a->q_a.n_rows, &to->latent.q_a_norm},
               {a->kv_a_norm, m->gen.kv_rank, &to->latent.kv_a_norm},
               {from->experts.router_bias, m->gen.n_experts, &to->experts.router_bias}};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        GPU_TRY(load_vector(m, all[i].from, all[i].n, all[i].to, e));
    return APR_GPU_OK;
}

static enum apr_gpu_status load_layer(struct apr_gpu_model *m, struct stage *s, const struct apr_gpu_desc *d,
                                      const struct apr_gpu_layer *from, const struct rope ropes[2],
                                      struct layer *to, struct apr_gpu_err *e)
{
    const bool wide = m->opts.resident && !m->opts.exact && !m->is_general;
    const struct apr_gpu_mat *in[LAYER_MATS];
    struct desc_stack stacks_in[LAYER_STACKS];
    struct experts *x = &to->experts;
    struct mat *out[LAYER_MATS] = {&to->q,           &to->k,           &to->v,        &to->o,
                                   &to->gate,        &to->up,          &to->down,     &to->latent.q_a,
                                   &to->latent.kv_a, &x->router,       &x->shared_up, &x->shared_gate,
                                   &x->shared_down,  &x->shared_weight};
    struct stack *stacks_out[LAYER_STACKS] = {&to->latent.k_b, &to->latent.v_b, &x->gate, &x->up, &x->down};
    layer_mats(d, from, in, stacks_in);
    for (uint32_t i = 0; i < LAYER_MATS; i++) GPU_TRY(load_mat(m, s, in[i], wide, out[i], e));
    for (uint32_t i = 0; i < LAYER_STACKS; i++)
        GPU_TRY(load_stack(m, s, stacks_in[i].mats, stacks_in[i].n, stacks_out[i], e));
    to->window = from->window;
    to->rope = ropes[from->i_rope];
    to->is_plain = layer_is_plain(d, from);
    return load_norms(m, from, to, e);
}

/* Angles in double, as the CPU's tables; pairs behind the last that turns stay as they are. */
static enum apr_gpu_status load_angles(struct apr_gpu_model *m, const struct apr_gpu_rope *r,
                                       const double *inv_freq, uint32_t n_half, const float2 **to,
                                       struct apr_gpu_err *e)
{
    const uint64_t n = (uint64_t)m->opts.n_ctx * n_half;
    float2 *host = (float2 *)malloc(n * sizeof *host + 1), *dev = NULL;
    if (!host) return gpu_fail(e, APR_GPU_MEMORY, "no memory for the rotary table");
    for (uint64_t i = 0; i < n; i++) {
        const bool turns = i % n_half < r->n_half;
        const double angle = turns ? (double)(i / n_half) * inv_freq[i % n_half] : 0,
                     scale = turns ? r->scale : 1;
        host[i] = make_float2((float)(cos(angle) * scale), (float)(sin(angle) * scale));
    }
    enum apr_gpu_status s = model_alloc(m, (void **)&dev, n * sizeof *host, "the rotary table", e);
    if (s == APR_GPU_OK)
        s = gpu_cuda(cudaMemcpy(dev, host, n * sizeof *host, cudaMemcpyHostToDevice), "rotary table", e);
    *to = dev;
    free(host);
    return s;
}
static enum apr_gpu_status load_rope(struct apr_gpu_model *m, const struct apr_gpu_desc *d, uint32_t i_rope,
                                     struct rope *to, struct apr_gpu_err *e)
{
    const struct apr_gpu_rope *r = &d->ropes[i_rope];
    to->n_half = rope_pairs_of(d, i_rope), to->at_long = NULL;
    GPU_TRY(load_angles(m, r, r->inv_freq, to->n_half, &to->at, e));
    if (!r->long_inv_freq) return APR_GPU_OK;
    return load_angles(m, r, r->long_inv_freq, to->n_half, &to->at_long, e);
}

static enum apr_gpu_status open_lists(struct apr_gpu_model *m, struct apr_gpu_err *e)
{
    m->cache_k = (void **)calloc(m->n_layers, sizeof *m->cache_k);
    m->cache_v = (void **)calloc(m->n_layers, sizeof *m->cache_v);
    m->free_pages = (int32_t *)malloc(m->n_pages * sizeof *m->free_pages);
    m->layers = (struct layer *)calloc(m->n_layers, sizeof *m->layers);
    if (!m->cache_k || !m->cache_v || !m->free_pages || !m->layers)
        return gpu_fail(e, APR_GPU_MEMORY, "no memory for the lists of a model");
    for (uint32_t i = 0; i < m->n_pages; i++) m->free_pages[i] = (int32_t)(m->n_pages - 1 - i);
    m->n_free = m->n_pages;
    return APR_GPU_OK;
}

static enum apr_gpu_status fill(struct apr_gpu_model *m, const struct apr_gpu_desc *d, struct stage *s,
                                struct apr_gpu_err *e)
{
    struct rope ropes[2];
    GPU_TRY(open_lists(m, e));
    GPU_TRY(model_room(m, d, e));
    for (uint32_t i = 0; i < 2; i++) GPU_TRY(load_rope(m, d, i, &ropes[i], e));
    GPU_TRY(stage_open(s, e));
    for (uint32_t i = 0; i < m->n_layers; i++)
        GPU_TRY(load_layer(m, s, d, &d->layers[i], ropes, &m->layers[i], e));
    GPU_TRY(load_mat(m, s, &d->embed, false, &m->embed, e));
    GPU_TRY(load_mat(m, s, &d->positions, false, &m->positions, e));
    m->tied = desc_is_tied(d);
    if (m->tied) {
        m->head = m->embed;
        GPU_TRY(load_vector(m, d->head.bias, m->n_vocab, &m->head.bias, e));
    } else {
        GPU_TRY(load_mat(m, s, &d->head, false, &m->head, e));
    }
    GPU_TRY(load_vector(m, d->final_norm.w, m->n_hidden, &m->final_norm, e));
    GPU_TRY(load_vector(m, d->final_norm.b, m->n_hidden, &m->final_norm_b, e));
    return gpu_wait(m->dev, "loading", e);
}

enum apr_gpu_status model_open(struct apr_gpu_device *d, const struct apr_gpu_desc *desc,
                               const struct apr_gpu_opts *o, void (*progress)(void *ctx, uint64_t n),
                               void *ctx, struct apr_gpu_model **out, struct apr_gpu_err *e)
{
    struct apr_gpu_plan p;
    struct stage s = {};
    GPU_TRY(gpu_enter(d, e));
    d->timeout_s = o->timeout_s > 0 ? o->timeout_s : GPU_TIMEOUT_S;
    GPU_TRY(model_plan(d, desc, o, &p, e));
    if (p.total > p.free)
        return gpu_fail(e, APR_GPU_MEMORY,
                        "the model needs %llu bytes of device memory (weights %llu, cache %llu, work %llu), "
                        "%llu are free",
                        (unsigned long long)p.total, (unsigned long long)(p.weights + p.resident),
                        (unsigned long long)p.cache, (unsigned long long)p.work, (unsigned long long)p.free);
    struct apr_gpu_model *m = (struct apr_gpu_model *)calloc(1, sizeof *m);
    if (!m) return gpu_fail(e, APR_GPU_MEMORY, "no memory for the model");
    model_shape(m, d, desc, o);
    s.progress = progress, s.ctx = ctx;
    enum apr_gpu_status st = fill(m, desc, &s, e);
    stage_close(&s);
    if (st != APR_GPU_OK) return model_close(m), st;
    d->racy[0] = m->x, d->racy[1] = m->xs, d->n_racy = m->n_hidden;
    *out = m;
    return APR_GPU_OK;
}

void model_close(struct apr_gpu_model *m)
{
    if (!m) return;
    if (m->dev->is_late) return; /* every call would wait for what never ends: the process keeps it */
    m->dev->n_racy = 0;
    for (uint32_t i = 0; i < m->n_blocks; i++) cudaFree(m->blocks[i]);
    for (uint32_t i = 0; i < N_GRAPHS; i++)
        if (m->graphs[i]) cudaGraphExecDestroy(m->graphs[i]);
    sample_close_rows(m);
    cudaFreeHost(m->logits_host);
    cudaFreeHost(m->rows_host);
    cudaFreeHost(m->which_host);
    cudaFreeHost(m->batch_host);
    cudaFreeHost(m->batch_out_host);
    free(m->blocks);
    free(m->layers);
    free(m->cache_k);
    free(m->cache_v);
    free(m->free_pages);
    free(m);
}

/* ---- sequences --------------------------------------------------------------------------------------------
 */

static enum apr_gpu_status seq_fill(struct apr_gpu_seq *s, struct apr_gpu_err *e)
{
    CU(cudaMalloc((void **)&s->table, s->n_ctx / MODEL_PAGE * 4ull), "table of pages");
    CU(cudaMalloc((void **)&s->st, sizeof *s->st), "state of a sequence");
    CU(cudaMalloc((void **)&s->out, 4ull * STEPS_AHEAD), "tokens of a sequence");
    CU(cudaHostAlloc((void **)&s->st_host, sizeof *s->st_host, cudaHostAllocDefault), "pinned memory");
    return gpu_cuda(cudaHostAlloc((void **)&s->out_host, 4ull * STEPS_AHEAD, cudaHostAllocDefault),
                    "pinned memory", e);
}

enum apr_gpu_status seq_open(struct apr_gpu_model *m, uint32_t n_ctx, struct apr_gpu_seq **out,
                             struct apr_gpu_err *e)
{
    uint32_t n_pages = (n_ctx + MODEL_PAGE - 1) / MODEL_PAGE;
    GPU_TRY(gpu_enter(m->dev, e));
    if (n_ctx == 0 || n_pages > m->n_pages)
        return gpu_fail(e, APR_GPU_MEMORY, "a sequence of %u positions, the model has %u for all", n_ctx,
                        m->n_pages * MODEL_PAGE);
    struct apr_gpu_seq *s = (struct apr_gpu_seq *)calloc(1, sizeof *s);
    if (!s || !(s->pages = (int32_t *)malloc(n_pages * sizeof *s->pages))) {
        free(s);
        return gpu_fail(e, APR_GPU_MEMORY, "no memory for a sequence");
    }
    s->m = m, s->n_ctx = n_pages * MODEL_PAGE;
    enum apr_gpu_status st = seq_fill(s, e);
    if (st != APR_GPU_OK) return seq_close(s), st;
    *out = s;
    return APR_GPU_OK;
}

enum apr_gpu_status seq_hold(struct apr_gpu_seq *s, uint32_t n_pos, struct apr_gpu_err *e)
{
    struct apr_gpu_model *m = s->m;
    uint32_t had = s->n_pages, n = (n_pos + MODEL_PAGE - 1) / MODEL_PAGE;
    if (n <= had) return APR_GPU_OK;
    if (n - had > m->n_free)
        return gpu_fail(e, APR_GPU_FULL, "%u positions more, %u of %u for all sequences are free",
                        (n - had) * MODEL_PAGE, m->n_free * MODEL_PAGE, m->n_pages * MODEL_PAGE);
    while (s->n_pages < n) s->pages[s->n_pages++] = m->free_pages[--m->n_free];
    return gpu_cuda(cudaMemcpyAsync(s->table + had, s->pages + had, 4ull * (n - had), cudaMemcpyHostToDevice,
                                    m->dev->stream),
                    "table of pages", e);
}

void seq_truncate(struct apr_gpu_seq *s, uint32_t n_pos)
{
    if (n_pos < s->n_pos) s->n_pos = n_pos;
    uint32_t n = (s->n_pos + MODEL_PAGE - 1) / MODEL_PAGE;
    while (s->n_pages > n) s->m->free_pages[s->m->n_free++] = s->pages[--s->n_pages];
}

void seq_turn(struct apr_gpu_seq *s, bool is_long)
{
    if (s->is_long == is_long) return;
    s->is_long = is_long;
    seq_truncate(s, 0);
}

void seq_close(struct apr_gpu_seq *s)
{
    if (!s) return;
    for (uint32_t i = s->n_pages; i--;) s->m->free_pages[s->m->n_free++] = s->pages[i];
    if (s->m->dev->is_late) return;
    if (s->graph) cudaGraphExecDestroy(s->graph);
    for (int i = 0; i < 2; i++)
        if (s->graph_sampled[i]) cudaGraphExecDestroy(s->graph_sampled[i]);
    sample_close(s);
    cudaFree(s->table);
    cudaFree(s->st);
    cudaFree(s->out);
    cudaFreeHost(s->st_host);
    cudaFreeHost(s->out_host);
    free(s->pages);
    free(s);
}
