/* What a model needs: whether it can be computed here, and the memory, all of which is asked for in this
 * file. The plan runs the same requests and only counts.
 */
#include "model.cuh"

#include <stdlib.h>
#include <string.h>

void mat_shape(const struct apr_gpu_mat *from, struct mat *to)
{
    memset(to, 0, sizeof *to);
    repack_kind(from->type, &to->kind);
    to->n_rows = from->n_rows, to->n_cols = from->n_cols;
    to->n_groups = (to->n_rows + TILE_ROWS - 1) / TILE_ROWS;
    to->n_chunks = (to->n_cols + tile_cols(to->kind) - 1) / tile_cols(to->kind);
}
bool desc_is_tied(const struct apr_gpu_desc *d)
{
    return d->head.data == d->embed.data && d->head.n_rows == d->embed.n_rows;
}
uint64_t mat_wide_bytes(const struct apr_gpu_mat *w)
{
    return 2ull * w->n_rows * w->n_cols;
}

/* ---- memory -----------------------------------------------------------------------------------------------
 */

static uint64_t bytes_of(const struct apr_gpu_mat *w)
{
    int kind = 0;
    return w->data && repack_kind(w->type, &kind)
               ? repack_bytes(kind, w->n_rows, w->n_cols) + (w->bias ? w->n_rows * 4ull : 0)
               : 0;
}
static uint64_t max_wide(const struct apr_gpu_desc *m)
{
    uint64_t n = 0;
    const struct apr_gpu_layer *l = m->layers;
    const struct apr_gpu_mat *all[] = {&l->q, &l->o, &l->gate, &l->down};
    for (size_t i = 0; i < 4; i++)
        if (mat_wide_bytes(all[i]) > n) n = mat_wide_bytes(all[i]);
    return n;
}

enum apr_gpu_status model_alloc(struct apr_gpu_model *m, void **p, uint64_t n_bytes, const char *what,
                                struct apr_gpu_err *e)
{
    *p = NULL;
    m->n_bytes += n_bytes;
    if (m->counts_only) return APR_GPU_OK;
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
/* Zeroed: what stands beside the values that a step writes must be finite. */
#define ZEROED(p, n, what)                                                                                   \
    do {                                                                                                     \
        ALLOC(p, n, what);                                                                                   \
        if (!m->counts_only) CU(cudaMemset((p), 0, (n)), (what));                                            \
    } while (0)
#define PINNED(p, n)                                                                                         \
    do {                                                                                                     \
        if (!m->counts_only) CU(cudaHostAlloc((void **)&(p), (n), cudaHostAllocDefault), "pinned memory");   \
    } while (0)

static enum apr_gpu_status room_of_cache(struct apr_gpu_model *m, struct apr_gpu_err *e)
{
    const struct heads *h = &m->heads;
    uint64_t n_bytes = (uint64_t)m->n_pages * h->n_heads_kv * MODEL_PAGE * h->dim_pad * (h->f32 ? 4 : 2);
    for (uint32_t i = 0; i < m->n_layers; i++) {
        ALLOC(m->cache_k[i], n_bytes, "the cache of keys");
        if (m->gen.kv_rank) continue; /* the keys are the values */
        ALLOC(m->cache_v[i], n_bytes, "the cache of values");
    }
    return APR_GPU_OK;
}

static enum apr_gpu_status room_of_one(struct apr_gpu_model *m, struct apr_gpu_err *e)
{
    const struct heads *h = &m->heads;
    uint32_t n_q = h->n_heads * h->dim, n_all = n_q + 2 * h->n_heads_kv * h->dim;
    uint64_t n_part = 0;
    for (uint32_t n = 1; n <= LOGIT_ROWS; n++) {
        uint64_t k = (uint64_t)n * attn_splits(m->dev, h, n);
        if (k > n_part) n_part = k;
    }
    ALLOC(m->x, 4ull * m->n_hidden, "the residual");
    ALLOC(m->qkv, 4ull * n_all, "q, k and v");
    ALLOC(m->att_f, 4ull * n_q, "attention");
    ALLOC(m->h_f, 4ull * m->n_inter, "the feed-forward block");
    ZEROED(m->att_q, (n_q + 255) / 256 * sizeof(act_block), "attention");
    ZEROED(m->h_q, (m->n_inter + 255) / 256 * sizeof(act_block), "the feed-forward block");
    ZEROED(m->next_x.q, (m->n_hidden + 255ull) / 256 * sizeof(act_block), "the residual");
    ALLOC(m->next_x.f, 4ull * m->n_hidden, "the residual");
    ALLOC(m->next_sq, (m->n_hidden + TILE_ROWS - 1ull) / TILE_ROWS * 4, "the residual");
    ALLOC(m->logits, 4ull * m->n_vocab, "logits");
    PINNED(m->logits_host, 4ull * STAGED_ROWS * m->n_vocab);
    ALLOC(m->room.part, n_part * h->n_heads * (h->dim_pad + 2) * 4, "splits of attention");
    ZEROED(m->room.count, 4ull * LOGIT_ROWS * h->n_heads, "counters");
    ZEROED(m->best, 8ull * LOGIT_ROWS, "counters");
    ZEROED(m->best_count, 4ull * LOGIT_ROWS, "counters");
    return APR_GPU_OK;
}

static enum apr_gpu_status room_of_chunk(struct apr_gpu_model *m, const struct apr_gpu_desc *d,
                                         struct apr_gpu_err *e)
{
    const struct heads *h = &m->heads;
    uint32_t n_q = h->n_heads * h->dim, n_all = n_q + 2 * h->n_heads_kv * h->dim, n_chunk = m->opts.n_chunk;
    uint32_t n_wide = n_q > m->n_hidden ? n_q : m->n_hidden;
    uint32_t n_rows = n_chunk > LOGIT_ROWS ? n_chunk : LOGIT_ROWS; /* of a chunk or a batch */
    ALLOC(m->xs, 4ull * n_rows * m->n_hidden, "activations");
    ALLOC(m->qkvs, 4ull * n_rows * n_all, "activations");
    ALLOC(m->rows, n_chunk * sizeof *m->rows, "tokens");
    ALLOC(m->which, n_chunk * sizeof *m->which, "tokens");
    PINNED(m->rows_host, n_chunk * sizeof *m->rows);
    PINNED(m->which_host, n_chunk * sizeof *m->which);
    ALLOC(m->row_logits, 4ull * LOGIT_ROWS * m->n_vocab, "logits");
    if (m->opts.exact) {
        ALLOC(m->hs, 4ull * n_chunk * (n_wide > m->n_inter ? n_wide : m->n_inter), "activations");
        ALLOC(m->ups, 8ull * n_chunk * m->n_inter, "activations"); /* up, then gate */
        return APR_GPU_OK;
    }
    ALLOC(m->x16, 2ull * n_chunk * n_wide, "activations");
    ALLOC(m->q16, 2ull * n_chunk * h->n_heads * h->dim_pad, "activations");
    ALLOC(m->gu16, 4ull * n_chunk * m->n_inter, "activations");
    ALLOC(m->h16, 2ull * n_chunk * m->n_inter, "activations");
    if (!m->opts.resident) ALLOC(m->wide, max_wide(d), "F16 weights of one matrix");
    return APR_GPU_OK;
}

/* The most that the parts of any product of a step need; 0 where a matrix has no such kernel. */
static uint64_t part_bytes(const struct apr_gpu_device *d, const struct apr_gpu_desc *desc)
{
    uint64_t most = 0;
    for (uint32_t i = 0; i <= desc->n_layers; i++) {
        const struct apr_gpu_layer *l = i < desc->n_layers ? &desc->layers[i] : NULL;
        const struct apr_gpu_mat *sets[4][FEW_SEGS] = {
            {l ? &l->q : &desc->head, l ? &l->k : NULL, l ? &l->v : NULL}};
        if (l) sets[1][0] = &l->o, sets[2][0] = &l->gate, sets[2][1] = &l->up, sets[3][0] = &l->down;
        for (int k = 0; k < 4 && sets[k][0]; k++) {
            struct mat shapes[FEW_SEGS];
            struct few f = {};
            for (int j = 0; j < FEW_SEGS && sets[k][j]; j++) {
                mat_shape(sets[k][j], &shapes[j]);
                f.m[f.n_m++] = &shapes[j];
            }
            if (!few_can(f.m, f.n_m)) return 0;
            for (f.n8 = 1; f.n8 <= LOGIT_ROWS / 8; f.n8 *= 2) {
                uint64_t n = few_part_bytes(d, &f);
                if (n == 0) return 0;
                if (n > most) most = n;
            }
        }
    }
    return most;
}

static enum apr_gpu_status room_of_batch(struct apr_gpu_model *m, const struct apr_gpu_desc *d,
                                         struct apr_gpu_err *e)
{
    uint64_t n_part = part_bytes(m->dev, d), n_q = m->heads.n_heads * m->heads.dim;
    if (m->opts.exact || n_part == 0) return APR_GPU_OK;
    ALLOC(m->part, n_part, "parts of sums");
    ZEROED(m->xf, (m->n_hidden + 255ull) / 256 * 512 * LOGIT_ROWS, "activations");
    ZEROED(m->af, (n_q + 255) / 256 * 512 * LOGIT_ROWS, "activations");
    ZEROED(m->hf, (m->n_inter + 255ull) / 256 * 512 * LOGIT_ROWS, "activations");
    ALLOC(m->batch, LOGIT_ROWS * sizeof *m->batch, "tokens");
    ALLOC(m->batch_out, 4ull * LOGIT_ROWS * STEPS_AHEAD, "tokens");
    PINNED(m->batch_host, LOGIT_ROWS * sizeof *m->batch);
    PINNED(m->batch_out_host, 4ull * LOGIT_ROWS * STEPS_AHEAD);
    m->can_few = true;
    return APR_GPU_OK;
}

static enum apr_gpu_status room_of_links(struct apr_gpu_model *m, struct apr_gpu_err *e)
{
    const struct comm *c = m->dev->comm;
    if (!c) return APR_GPU_OK;
    const uint64_t n_each = comm_each(m->n_vocab, c->n);
    ALLOC(m->summed, 4ull * LOGIT_ROWS * m->n_hidden, "sums over devices");
    ZEROED(m->part_logits, 4 * (LOGIT_ROWS * n_each + 4), "logits of this device");
    ALLOC(m->all_logits, 4ull * LOGIT_ROWS * n_each * c->n, "logits of all devices");
    return APR_GPU_OK;
}

enum apr_gpu_status model_room(struct apr_gpu_model *m, const struct apr_gpu_desc *d, struct apr_gpu_err *e)
{
    GPU_TRY(room_of_cache(m, e));
    GPU_TRY(room_of_links(m, e));
    if (m->is_general) return general_room(m, d, e);
    GPU_TRY(room_of_one(m, e));
    GPU_TRY(room_of_chunk(m, d, e));
    return room_of_batch(m, d, e);
}

static uint32_t pad_dim(uint32_t n)
{
    return n <= 32 ? 32 : n <= 64 ? 64 : n <= 128 ? 128 : n <= 256 ? 256 : (n + 31) / 32 * 32;
}
uint32_t rope_pairs_of(const struct apr_gpu_desc *d, uint32_t i)
{
    const uint32_t n_half = d->ropes[i].n_half;
    return d->kv_rank || (n_half && !d->rope_pairs) ? n_half : d->head_dim / 2;
}

static void general_shape(struct apr_gpu_model *m, const struct apr_gpu_desc *d)
{
    struct general *g = &m->gen;
    g->activation = d->activation, g->is_parallel = d->is_parallel;
    g->residual_scale = d->residual_scale, g->attn_softcap = d->attn_softcap;
    g->logit_scale = d->logit_scale, g->logit_softcap = d->logit_softcap;
    g->k_dim = d->kv_rank ? d->kv_rank + d->n_rope : d->head_dim;
    g->v_dim = d->kv_rank ? d->kv_rank : d->head_dim;
    g->kv_rank = d->kv_rank, g->n_nope = d->n_nope, g->n_rope = d->n_rope, g->n_value = d->n_value;
    g->n_experts = d->n_experts, g->n_used = d->n_used, g->n_inter_expert = d->n_inter_expert;
    g->n_inter_shared = d->n_inter_shared;
    g->n_groups = d->n_groups, g->n_groups_used = d->n_groups_used;
    g->router_sigmoid = d->router_sigmoid, g->norm_topk = d->norm_topk, g->expert_scale = d->expert_scale;
}

void model_shape(struct apr_gpu_model *m, struct apr_gpu_device *d, const struct apr_gpu_desc *desc,
                 const struct apr_gpu_opts *o)
{
    m->dev = d, m->opts = *o;
    m->n_layers = desc->n_layers, m->n_hidden = desc->n_hidden, m->n_inter = desc->n_inter,
    m->n_vocab = desc->n_vocab;
    m->eps = (float)desc->norm_eps, m->embed_scale = desc->embed_scale;
    m->n_pages = (o->n_ctx + MODEL_PAGE - 1) / MODEL_PAGE;
    m->opts.n_ctx = m->n_pages * MODEL_PAGE;
    m->is_general = model_is_general(desc);
    general_shape(m, desc);
    m->heads = {desc->n_heads,
                desc->n_heads_kv,
                desc->head_dim,
                pad_dim(m->gen.k_dim),
                desc->attn_scale,
                m->eps,
                1.0f,
                desc->rope_pairs,
                o->exact,
                NULL,
                NULL,
                NULL};
}

enum apr_gpu_status model_plan(struct apr_gpu_device *d, const struct apr_gpu_desc *desc,
                               const struct apr_gpu_opts *o, struct apr_gpu_plan *p, struct apr_gpu_err *e)
{
    size_t n_free = 0, n_total = 0;
    struct apr_gpu_model count = {}, *m = &count;
    memset(p, 0, sizeof *p);
    GPU_TRY(model_check(d, desc, o, e));
    model_shape(m, d, desc, o);
    m->counts_only = true;
    m->cache_k = m->cache_v = (void **)calloc(m->n_layers, sizeof *m->cache_k); /* set to NULL, never read */
    if (!m->cache_k) return gpu_fail(e, APR_GPU_MEMORY, "no memory for a plan");
    enum apr_gpu_status s = room_of_cache(m, e);
    p->cache = m->n_bytes;
    if (s == APR_GPU_OK) s = model_room(m, desc, e);
    free(m->cache_k);
    GPU_TRY(s);
    p->work = m->n_bytes - 2 * p->cache + LT_WORK_BYTES + STAGE_ALL_BYTES;
    for (uint32_t i = 0; i < 2; i++)
        p->work += 8ull * m->opts.n_ctx * rope_pairs_of(desc, i) * (desc->ropes[i].long_inv_freq ? 2 : 1);
    for (uint32_t i = 0; i < desc->n_layers; i++) {
        const struct apr_gpu_mat *mats[LAYER_MATS];
        struct desc_stack stacks[LAYER_STACKS];
        layer_mats(desc, &desc->layers[i], mats, stacks);
        for (uint32_t k = 0; k < LAYER_MATS; k++) {
            p->weights += bytes_of(mats[k]);
            if (o->resident && !o->exact && !m->is_general) p->resident += mat_wide_bytes(mats[k]);
        }
        for (uint32_t k = 0; k < LAYER_STACKS; k++)
            if (stacks[k].mats) p->weights += stacks[k].n * bytes_of(&stacks[k].mats[0]);
        p->weights += 8ull * desc->n_hidden;
    }
    p->weights += bytes_of(&desc->positions);
    p->weights += bytes_of(&desc->embed) + (desc_is_tied(desc) ? 0 : bytes_of(&desc->head));
    p->total = p->weights + p->resident + p->cache + p->work;
    CU(cudaMemGetInfo(&n_free, &n_total), "free memory");
    p->free = n_free;
    return APR_GPU_OK;
}
