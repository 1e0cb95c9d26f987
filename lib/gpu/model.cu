/* Loading: what the model needs is computed first (plan), then every matrix goes from the mapped file
 * through two pinned buffers to the device and into tiles. The bound is PCIe (or the disk).
 */
#include "model.cuh"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define STAGE_BYTES (64u << 20)
#define PAGE        16u

static uint32_t round_up(uint32_t n, uint32_t k)
{
    return (n + k - 1) / k * k;
}
static uint32_t pad_dim(uint32_t n)
{
    return n <= 32 ? 32 : n <= 64 ? 64 : n <= 128 ? 128 : 256;
}

/* ---- what can be computed ---------------------------------------------------------------------------------
 */

static enum apr_gpu_status check_mat(const struct apr_gpu_mat *w, const char *what, uint32_t n_rows,
                                     uint32_t n_cols, struct apr_gpu_err *e)
{
    int kind;
    if (!w->data) return gpu_fail(e, APR_GPU_UNSUPPORTED, "the model has no matrix %s", what);
    if (w->n_rows != n_rows || w->n_cols != n_cols)
        return gpu_fail(e, APR_GPU_UNSUPPORTED, "%s is [%u, %u], expected [%u, %u]", what, w->n_rows,
                        w->n_cols, n_rows, n_cols);
    if (!repack_kind(w->type, &kind))
        return gpu_fail(e, APR_GPU_UNSUPPORTED, "%s has type %u, which the GPU cannot compute with", what,
                        w->type);
    if (n_cols % 4)
        return gpu_fail(e, APR_GPU_UNSUPPORTED, "%s has %u columns, expected a multiple of 4", what, n_cols);
    return APR_GPU_OK;
}

static enum apr_gpu_status check_layer(const struct apr_gpu_desc *m, const struct apr_gpu_layer *l,
                                       struct apr_gpu_err *e)
{
    uint32_t n_q = m->n_heads * m->head_dim, n_kv = m->n_heads_kv * m->head_dim;
    GPU_TRY(check_mat(&l->q, "q", n_q, m->n_hidden, e));
    GPU_TRY(check_mat(&l->k, "k", n_kv, m->n_hidden, e));
    GPU_TRY(check_mat(&l->v, "v", n_kv, m->n_hidden, e));
    GPU_TRY(check_mat(&l->o, "o", m->n_hidden, n_q, e));
    GPU_TRY(check_mat(&l->gate, "gate", m->n_inter, m->n_hidden, e));
    GPU_TRY(check_mat(&l->up, "up", m->n_inter, m->n_hidden, e));
    GPU_TRY(check_mat(&l->down, "down", m->n_hidden, m->n_inter, e));
    if (l->gate.type != l->up.type)
        return gpu_fail(e, APR_GPU_UNSUPPORTED, "gate has type %u and up %u, expected one type", l->gate.type,
                        l->up.type);
    return APR_GPU_OK;
}

static enum apr_gpu_status check(const struct apr_gpu_desc *m, const struct apr_gpu_opts *o,
                                 struct apr_gpu_err *e)
{
    if (m->struct_bytes != sizeof *m)
        return gpu_fail(e, APR_GPU_UNSUPPORTED, "the description is of another version");
    if (m->head_dim < 16 || m->head_dim > 256 || m->head_dim % 16)
        return gpu_fail(e, APR_GPU_UNSUPPORTED, "heads of %u values, expected a multiple of 16 up to 256",
                        m->head_dim);
    if (!m->n_heads_kv || m->n_heads % m->n_heads_kv)
        return gpu_fail(e, APR_GPU_UNSUPPORTED, "%u heads over %u KV heads", m->n_heads, m->n_heads_kv);
    if (!o->n_ctx || !o->n_chunk || !m->n_layers || m->n_inter % 2)
        return gpu_fail(e, APR_GPU_UNSUPPORTED, "a context, chunk or model of no size");
    for (uint32_t i = 0; i < m->n_layers; i++) GPU_TRY(check_layer(m, &m->layers[i], e));
    GPU_TRY(check_mat(&m->embed, "the embedding", m->n_vocab, m->n_hidden, e));
    return check_mat(&m->head, "the head", m->n_vocab, m->n_hidden, e);
}

/* ---- memory -----------------------------------------------------------------------------------------------
 */

static uint64_t mat_bytes(const struct apr_gpu_mat *w)
{
    int kind = 0;
    return repack_kind(w->type, &kind)
               ? repack_bytes(kind, w->n_rows, w->n_cols) + (w->bias ? w->n_rows * 4ull : 0)
               : 0;
}
static uint64_t wide_bytes(const struct apr_gpu_mat *w)
{
    return 2ull * w->n_rows * w->n_cols;
}
static uint64_t max_wide(const struct apr_gpu_desc *m)
{
    uint64_t n = 0;
    const struct apr_gpu_layer *l = m->layers;
    const struct apr_gpu_mat *all[] = {&l->q, &l->o, &l->gate, &l->down};
    for (size_t i = 0; i < 4; i++)
        if (wide_bytes(all[i]) > n) n = wide_bytes(all[i]);
    return n;
}

enum apr_gpu_status model_plan(struct apr_gpu_device *d, const struct apr_gpu_desc *m,
                               const struct apr_gpu_opts *o, struct apr_gpu_plan *p, struct apr_gpu_err *e)
{
    size_t n_free = 0, n_total = 0;
    GPU_TRY(check(m, o, e));
    memset(p, 0, sizeof *p);
    for (uint32_t i = 0; i < m->n_layers; i++) {
        const struct apr_gpu_layer *l = &m->layers[i];
        const struct apr_gpu_mat *all[] = {&l->q, &l->k, &l->v, &l->o, &l->gate, &l->up, &l->down};
        for (size_t k = 0; k < 7; k++) {
            p->weights += mat_bytes(all[k]);
            if (o->resident && !o->exact) p->resident += wide_bytes(all[k]);
        }
        p->weights += 8ull * m->n_hidden;
    }
    p->weights += mat_bytes(&m->embed) + (m->embed.data == m->head.data ? 0 : mat_bytes(&m->head));
    uint32_t n_q = m->n_heads * m->head_dim, n_all = n_q + 2 * m->n_heads_kv * m->head_dim,
             dim = pad_dim(m->head_dim);
    uint64_t n_pages = (o->n_ctx + PAGE - 1) / PAGE;
    p->cache = 2ull * m->n_layers * n_pages * m->n_heads_kv * PAGE * dim * (o->exact ? 4 : 2);
    uint64_t tok = 4ull * (m->n_hidden + n_all); /* xs, qkvs */
    if (o->exact)
        tok += 4ull * (n_q > m->n_hidden ? n_q : m->n_hidden) + 12ull * m->n_inter;
    else
        tok += 2ull * (n_q > m->n_hidden ? n_q : m->n_hidden) + 6ull * m->n_inter + 2ull * m->n_heads * dim;
    p->work = tok * o->n_chunk + (o->exact || o->resident ? 0 : max_wide(m)) +
              4ull * (LOGIT_ROWS + 1) * m->n_vocab + 8ull * o->n_ctx * (m->head_dim / 2) + LT_WORK_BYTES +
              2ull * STAGE_BYTES;
    p->total = p->weights + p->resident + p->cache + p->work;
    CU(cudaMemGetInfo(&n_free, &n_total), "free memory");
    p->free = n_free;
    (void)d;
    return APR_GPU_OK;
}

enum apr_gpu_status model_alloc(struct apr_gpu_model *m, void **p, uint64_t n_bytes, const char *what,
                                struct apr_gpu_err *e)
{
    if (m->n_blocks == m->cap_blocks) {
        uint32_t cap = m->cap_blocks ? 2 * m->cap_blocks : 256;
        void **more = (void **)realloc(m->blocks, cap * sizeof *more);
        if (!more) return gpu_fail(e, APR_GPU_MEMORY, "no memory for the list of allocations");
        m->blocks = more, m->cap_blocks = cap;
    }
    cudaError_t c = cudaMalloc(p, n_bytes ? n_bytes : 16);
    if (c == cudaErrorMemoryAllocation) {
        size_t n_free = 0, n_total = 0;
        (void)cudaGetLastError();
        (void)cudaMemGetInfo(&n_free, &n_total);
        return gpu_fail(e, APR_GPU_MEMORY, "%s needs %llu bytes of device memory, %zu are free", what,
                        (unsigned long long)n_bytes, n_free);
    }
    GPU_TRY(gpu_cuda(c, what, e));
    m->blocks[m->n_blocks++] = *p;
    return APR_GPU_OK;
}
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
        memcpy(s->host[i], (const uint8_t *)from->data + r * from->row_bytes, n_bytes);
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
    repack_kind(from->type, &to->kind);
    to->n_rows = from->n_rows, to->n_cols = from->n_cols;
    to->n_groups = round_up(to->n_rows, TILE_ROWS) / TILE_ROWS;
    to->n_chunks = round_up(to->n_cols, tile_cols(to->kind)) / tile_cols(to->kind);
    ALLOC(to->tiles, repack_bytes(to->kind, to->n_rows, to->n_cols), "a matrix");
    GPU_TRY(stage_mat(s, from, to, m->dev->stream, e));
    GPU_TRY(load_vector(m, from->bias, from->n_rows, &to->bias, e));
    if (!wide) return APR_GPU_OK;
    ALLOC(to->wide, wide_bytes(from), "a BF16 copy");
    unpack_bf16(to, to->wide, m->dev->stream);
    return gpu_cuda(cudaGetLastError(), "unpacking", e);
}

static enum apr_gpu_status load_layer(struct apr_gpu_model *m, struct stage *s,
                                      const struct apr_gpu_layer *from, struct layer *to,
                                      struct apr_gpu_err *e)
{
    bool wide = m->opts.resident && !m->opts.exact;
    const struct apr_gpu_mat *in[] = {&from->q,    &from->k,  &from->v,   &from->o,
                                      &from->gate, &from->up, &from->down};
    struct mat *out[] = {&to->q, &to->k, &to->v, &to->o, &to->gate, &to->up, &to->down};
    for (size_t i = 0; i < 7; i++) GPU_TRY(load_mat(m, s, in[i], wide, out[i], e));
    GPU_TRY(load_vector(m, from->attn_norm, m->n_hidden, &to->attn_norm, e));
    GPU_TRY(load_vector(m, from->ffn_norm, m->n_hidden, &to->ffn_norm, e));
    GPU_TRY(load_vector(m, from->q_norm, m->heads.dim, &to->q_norm, e));
    return load_vector(m, from->k_norm, m->heads.dim, &to->k_norm, e);
}

/* Angles in double, as the CPU's tables. */
static enum apr_gpu_status load_rope(struct apr_gpu_model *m, const struct apr_gpu_desc *d,
                                     struct apr_gpu_err *e)
{
    uint32_t n_half = d->head_dim / 2;
    uint64_t n = (uint64_t)m->opts.n_ctx * n_half;
    float2 *host = (float2 *)malloc(n * sizeof *host), *dev = NULL;
    if (!host) return gpu_fail(e, APR_GPU_MEMORY, "no memory for the rotary table");
    for (uint64_t i = 0; i < n; i++) {
        double angle = (double)(i / n_half) * d->inv_freq[i % n_half];
        host[i] = make_float2((float)(cos(angle) * d->rope_scale), (float)(sin(angle) * d->rope_scale));
    }
    enum apr_gpu_status s = model_alloc(m, (void **)&dev, n * sizeof *host, "the rotary table", e);
    if (s == APR_GPU_OK)
        s = gpu_cuda(cudaMemcpy(dev, host, n * sizeof *host, cudaMemcpyHostToDevice), "rotary table", e);
    m->heads.rope = dev;
    free(host);
    return s;
}

static enum apr_gpu_status alloc_cache(struct apr_gpu_model *m, struct apr_gpu_err *e)
{
    const struct heads *h = &m->heads;
    uint64_t n_bytes = (uint64_t)m->n_pages * h->n_heads_kv * PAGE * h->dim_pad * (h->f32 ? 4 : 2);
    m->cache_k = (void **)calloc(m->n_layers, sizeof *m->cache_k);
    m->cache_v = (void **)calloc(m->n_layers, sizeof *m->cache_v);
    m->free_pages = (int32_t *)malloc(m->n_pages * sizeof *m->free_pages);
    if (!m->cache_k || !m->cache_v || !m->free_pages)
        return gpu_fail(e, APR_GPU_MEMORY, "no memory for the table of pages");
    for (uint32_t i = 0; i < m->n_layers; i++) {
        ALLOC(m->cache_k[i], n_bytes, "the cache of keys");
        ALLOC(m->cache_v[i], n_bytes, "the cache of values");
    }
    for (uint32_t i = 0; i < m->n_pages; i++) m->free_pages[i] = (int32_t)(m->n_pages - 1 - i);
    m->n_free = m->n_pages;
    return APR_GPU_OK;
}

static enum apr_gpu_status alloc_room(struct apr_gpu_model *m, const struct apr_gpu_desc *d,
                                      struct apr_gpu_err *e)
{
    const struct heads *h = &m->heads;
    uint32_t n_q = h->n_heads * h->dim, n_all = n_q + 2 * h->n_heads_kv * h->dim, n_chunk = m->opts.n_chunk;
    uint32_t n_wide = n_q > m->n_hidden ? n_q : m->n_hidden;
    uint64_t n_room = (uint64_t)h->n_heads * ATTN_SPLITS * (h->dim_pad + 2) * 4,
             n_count = h->n_heads * sizeof(unsigned);
    ALLOC(m->x, 4ull * m->n_hidden, "the residual");
    ALLOC(m->qkv, 4ull * n_all, "q, k and v");
    ALLOC(m->att_f, 4ull * n_q, "attention");
    ALLOC(m->h_f, 4ull * m->n_inter, "the feed-forward block");
    ALLOC(m->att_q, (n_q + 255) / 256 * sizeof(act_block), "attention");
    ALLOC(m->h_q, (m->n_inter + 255) / 256 * sizeof(act_block), "the feed-forward block");
    CU(cudaMemset(m->att_q, 0, (n_q + 255) / 256 * sizeof(act_block)), "memset");
    CU(cudaMemset(m->h_q, 0, (m->n_inter + 255) / 256 * sizeof(act_block)), "memset");
    ALLOC(m->logits, 4ull * m->n_vocab, "logits");
    ALLOC(m->room.part, n_room, "splits of attention");
    ALLOC(m->room.count, n_count, "counters");
    ALLOC(m->best, 16, "counters");
    m->best_count = (unsigned *)(m->best + 1);
    CU(cudaMemset(m->room.count, 0, n_count), "memset");
    CU(cudaMemset(m->best, 0, 16), "memset");
    ALLOC(m->xs, 4ull * n_chunk * m->n_hidden, "activations");
    ALLOC(m->qkvs, 4ull * n_chunk * n_all, "activations");
    ALLOC(m->ids, 4ull * n_chunk, "tokens");
    ALLOC(m->rows, 4ull * LOGIT_ROWS * m->n_vocab, "logits");
    if (m->opts.exact) {
        ALLOC(m->hs, 4ull * n_chunk * (n_wide > m->n_inter ? n_wide : m->n_inter), "activations");
        ALLOC(m->ups, 8ull * n_chunk * m->n_inter, "activations"); /* up, then gate */
        return APR_GPU_OK;
    }
    ALLOC(m->x16, 2ull * n_chunk * n_wide, "activations");
    ALLOC(m->q16, 2ull * n_chunk * h->n_heads * h->dim_pad, "activations");
    ALLOC(m->gu16, 4ull * n_chunk * m->n_inter, "activations");
    ALLOC(m->h16, 2ull * n_chunk * m->n_inter, "activations");
    if (!m->opts.resident) ALLOC(m->wide, max_wide(d), "BF16 weights of one matrix");
    return APR_GPU_OK;
}

static enum apr_gpu_status fill(struct apr_gpu_model *m, const struct apr_gpu_desc *d, struct stage *s,
                                struct apr_gpu_err *e)
{
    GPU_TRY(alloc_cache(m, e));
    GPU_TRY(alloc_room(m, d, e));
    GPU_TRY(load_rope(m, d, e));
    GPU_TRY(stage_open(s, e));
    m->layers = (struct layer *)calloc(m->n_layers, sizeof *m->layers);
    if (!m->layers) return gpu_fail(e, APR_GPU_MEMORY, "no memory for the layers");
    for (uint32_t i = 0; i < m->n_layers; i++) GPU_TRY(load_layer(m, s, &d->layers[i], &m->layers[i], e));
    GPU_TRY(load_mat(m, s, &d->embed, false, &m->embed, e));
    m->tied = d->head.data == d->embed.data;
    if (m->tied)
        m->head = m->embed;
    else
        GPU_TRY(load_mat(m, s, &d->head, false, &m->head, e));
    GPU_TRY(load_vector(m, d->final_norm, m->n_hidden, &m->final_norm, e));
    return gpu_cuda(cudaStreamSynchronize(m->dev->stream), "loading", e);
}

enum apr_gpu_status model_open(struct apr_gpu_device *d, const struct apr_gpu_desc *desc,
                               const struct apr_gpu_opts *o, void (*progress)(void *ctx, uint64_t n),
                               void *ctx, struct apr_gpu_model **out, struct apr_gpu_err *e)
{
    struct apr_gpu_plan p;
    struct stage s = {};
    CU(cudaSetDevice(d->i), "device");
    GPU_TRY(model_plan(d, desc, o, &p, e));
    if (p.total > p.free)
        return gpu_fail(e, APR_GPU_MEMORY,
                        "the model needs %llu bytes of device memory (weights %llu, cache %llu, work %llu), "
                        "%llu are free",
                        (unsigned long long)p.total, (unsigned long long)(p.weights + p.resident),
                        (unsigned long long)p.cache, (unsigned long long)p.work, (unsigned long long)p.free);
    struct apr_gpu_model *m = (struct apr_gpu_model *)calloc(1, sizeof *m);
    if (!m) return gpu_fail(e, APR_GPU_MEMORY, "no memory for the model");
    m->dev = d, m->opts = *o;
    m->n_layers = desc->n_layers, m->n_hidden = desc->n_hidden, m->n_inter = desc->n_inter,
    m->n_vocab = desc->n_vocab;
    m->eps = (float)desc->norm_eps, m->embed_scale = desc->embed_scale;
    m->n_pages = round_up(o->n_ctx, PAGE) / PAGE;
    m->opts.n_ctx = m->n_pages * PAGE;
    m->heads = {desc->n_heads,
                desc->n_heads_kv,
                desc->head_dim,
                pad_dim(desc->head_dim),
                desc->attn_scale,
                m->eps,
                1.0f,
                desc->rope_pairs,
                o->exact,
                NULL,
                NULL,
                NULL};
    s.progress = progress, s.ctx = ctx;
    enum apr_gpu_status st = fill(m, desc, &s, e);
    stage_close(&s);
    if (st != APR_GPU_OK) return model_close(m), st;
    *out = m;
    return APR_GPU_OK;
}

void model_close(struct apr_gpu_model *m)
{
    if (!m) return;
    for (uint32_t i = 0; i < m->n_blocks; i++) cudaFree(m->blocks[i]);
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
    CU(cudaMalloc((void **)&s->table, 4ull * s->n_pages), "table of pages");
    CU(cudaMemcpy(s->table, s->pages, 4ull * s->n_pages, cudaMemcpyHostToDevice), "table of pages");
    CU(cudaMalloc((void **)&s->st, sizeof *s->st), "state of a sequence");
    CU(cudaMalloc((void **)&s->out, 4ull * s->n_ctx), "tokens of a sequence");
    CU(cudaHostAlloc((void **)&s->st_host, sizeof *s->st_host, cudaHostAllocDefault), "pinned memory");
    return gpu_cuda(cudaHostAlloc((void **)&s->out_host, 4ull * s->n_ctx, cudaHostAllocDefault),
                    "pinned memory", e);
}

enum apr_gpu_status seq_open(struct apr_gpu_model *m, uint32_t n_ctx, struct apr_gpu_seq **out,
                             struct apr_gpu_err *e)
{
    uint32_t n_pages = round_up(n_ctx, PAGE) / PAGE;
    if (n_ctx == 0 || n_pages > m->n_free)
        return gpu_fail(e, APR_GPU_MEMORY, "a sequence of %u positions, %u are free", n_ctx,
                        m->n_free * PAGE);
    struct apr_gpu_seq *s = (struct apr_gpu_seq *)calloc(1, sizeof *s);
    if (!s || !(s->pages = (int32_t *)malloc(n_pages * sizeof *s->pages))) {
        free(s);
        return gpu_fail(e, APR_GPU_MEMORY, "no memory for a sequence");
    }
    s->m = m, s->n_ctx = n_pages * PAGE, s->n_pages = n_pages;
    for (uint32_t i = 0; i < n_pages; i++) s->pages[i] = m->free_pages[--m->n_free];
    enum apr_gpu_status st = seq_fill(s, e);
    if (st != APR_GPU_OK) return seq_close(s), st;
    *out = s;
    return APR_GPU_OK;
}

void seq_close(struct apr_gpu_seq *s)
{
    if (!s) return;
    for (uint32_t i = s->n_pages; i--;) s->m->free_pages[s->m->n_free++] = s->pages[i];
    if (s->graph) cudaGraphExecDestroy(s->graph);
    cudaFree(s->table);
    cudaFree(s->st);
    cudaFree(s->out);
    cudaFreeHost(s->st_host);
    cudaFreeHost(s->out_host);
    free(s->pages);
    free(s);
}
