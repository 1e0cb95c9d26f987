/* Device memory of the general pass: what a step of up to n_chunk rows needs besides weights and cache. */
#include "general.cuh"
#include "model.cuh"

#define ALLOC(p, n, what) GPU_TRY(model_alloc(m, (void **)&(p), (n), (what), e))
#define ZEROED(p, n, what)                                                                                   \
    do {                                                                                                     \
        ALLOC(p, n, what);                                                                                   \
        if (!m->counts_only) CU(cudaMemset((p), 0, (n)), (what));                                            \
    } while (0)
#define PINNED(p, n)                                                                                         \
    do {                                                                                                     \
        if (!m->counts_only) CU(cudaHostAlloc((void **)&(p), (n), cudaHostAllocDefault), "pinned memory");   \
    } while (0)

static uint32_t larger(uint32_t a, uint32_t b)
{
    return a > b ? a : b;
}

/* Of all matrices that product() takes: columns, bytes as F16 (but the head's, which has at most LOGIT_ROWS
 * rows to do), and bytes of the parts of few.cu. */
struct widest {
    uint32_t n_cols;
    uint64_t wide_bytes, part_bytes;
};
static void look_at(const struct apr_gpu_device *d, const struct apr_gpu_mat *w, bool is_head,
                    struct widest *y)
{
    struct mat shape;
    const struct mat *list[] = {&shape};
    struct few f = {};
    if (!w->data) return;
    mat_shape(w, &shape);
    y->n_cols = larger(y->n_cols, w->n_cols);
    if (!is_head && mat_wide_bytes(w) > y->wide_bytes) y->wide_bytes = mat_wide_bytes(w);
    if (!few_can(list, 1)) return;
    f.m[0] = &shape, f.n_m = 1;
    for (f.n8 = 1; f.n8 <= LOGIT_ROWS / 8; f.n8 *= 2) {
        const uint64_t n = few_part_bytes(d, &f);
        if (n > y->part_bytes) y->part_bytes = n;
    }
}
static struct widest widest_of(const struct apr_gpu_device *d, const struct apr_gpu_desc *desc)
{
    struct widest y = {};
    for (uint32_t i = 0; i < desc->n_layers; i++) {
        const struct apr_gpu_mat *mats[LAYER_MATS];
        struct desc_stack stacks[LAYER_STACKS];
        layer_mats(desc, &desc->layers[i], mats, stacks);
        for (uint32_t k = 0; k < LAYER_MATS; k++) look_at(d, mats[k], false, &y);
    }
    look_at(d, &desc->head, true, &y);
    return y;
}

static enum apr_gpu_status room_of_attention(struct apr_gpu_model *m, const struct apr_gpu_desc *d,
                                             uint64_t n_rows, struct apr_gpu_err *e)
{
    const struct heads *h = &m->heads;
    struct general *g = &m->gen;
    const uint64_t n_q = h->n_heads * h->dim, n_all = n_q + 2 * h->n_heads_kv * h->dim;
    uint64_t n_part = 0;
    ALLOC(m->qkvs, 4 * n_rows * (g->kv_rank ? n_q : n_all), "q, k and v");
    ALLOC(g->att, 4 * n_rows * h->n_heads * (g->kv_rank ? g->n_value : h->dim), "attention");
    if (g->kv_rank) {
        uint32_t q_rank = 0;
        for (uint32_t i = 0; i < d->n_layers; i++) q_rank = larger(q_rank, d->layers[i].latent.q_a.n_rows);
        ALLOC(g->q_a, 4 * n_rows * q_rank, "latent attention");
        ALLOC(g->kv_a, 4 * n_rows * g->k_dim, "latent attention");
        ALLOC(g->q_cache, 4 * n_rows * h->n_heads * g->k_dim, "latent attention");
        ALLOC(g->latent, 4 * n_rows * h->n_heads * g->kv_rank, "latent attention");
        return APR_GPU_OK;
    }
    if (m->opts.exact) return APR_GPU_OK;
    for (uint32_t n = 1; n <= LOGIT_ROWS; n++) {
        const uint64_t k = (uint64_t)n * attn_splits(m->dev, h, n);
        if (k > n_part) n_part = k;
    }
    ALLOC(m->q16, 2 * n_rows * h->n_heads * h->dim_pad, "attention");
    ALLOC(m->room.part, n_part * h->n_heads * (h->dim_pad + 2) * 4, "splits of attention");
    ZEROED(m->room.count, 4ull * LOGIT_ROWS * h->n_heads, "counters");
    return APR_GPU_OK;
}

static enum apr_gpu_status room_of_ffn(struct apr_gpu_model *m, uint64_t n_rows, struct apr_gpu_err *e)
{
    struct general *g = &m->gen;
    const uint64_t n_inter = larger(m->n_inter, g->n_inter_shared), n_items = n_rows * g->n_used;
    ALLOC(g->mid, 4 * n_rows * n_inter, "the feed-forward block");
    ALLOC(g->gate, 4 * n_rows * n_inter, "the feed-forward block");
    if (!g->n_experts) return APR_GPU_OK;
    ALLOC(g->scores, 4 * n_rows * g->n_experts, "experts");
    ALLOC(g->expert, 4 * n_items, "experts");
    ALLOC(g->weight, 4 * n_items, "experts");
    ALLOC(g->order, 4ull * group_slots(g, (uint32_t)n_items), "experts");
    ALLOC(g->shared_w, 4 * n_rows, "experts");
    ALLOC(g->e_up, 4 * n_items * g->n_inter_expert, "experts");
    ALLOC(g->e_gate, 4 * n_items * g->n_inter_expert, "experts");
    ALLOC(g->e_out, 4 * n_items * m->n_hidden, "experts");
    return APR_GPU_OK;
}

/* Rows of a step, and of a graph of up to LOGIT_ROWS. */
static enum apr_gpu_status room_of_rows(struct apr_gpu_model *m, struct apr_gpu_err *e)
{
    const uint32_t n_chunk = m->opts.n_chunk;
    ALLOC(m->rows, n_chunk * sizeof *m->rows, "tokens");
    ALLOC(m->which, n_chunk * sizeof *m->which, "tokens");
    PINNED(m->rows_host, n_chunk * sizeof *m->rows);
    PINNED(m->which_host, n_chunk * sizeof *m->which);
    ALLOC(m->logits, 4ull * m->n_vocab, "logits");
    PINNED(m->logits_host, 4ull * STAGED_ROWS * m->n_vocab);
    ALLOC(m->row_logits, 4ull * LOGIT_ROWS * m->n_vocab, "logits");
    ZEROED(m->best, 8ull * LOGIT_ROWS, "counters");
    ZEROED(m->best_count, 4ull * LOGIT_ROWS, "counters");
    if (m->opts.exact) return APR_GPU_OK;
    ALLOC(m->batch, LOGIT_ROWS * sizeof *m->batch, "tokens");
    ALLOC(m->batch_out, 4ull * LOGIT_ROWS * STEPS_AHEAD, "tokens");
    PINNED(m->batch_host, LOGIT_ROWS * sizeof *m->batch);
    PINNED(m->batch_out_host, 4ull * LOGIT_ROWS * STEPS_AHEAD);
    m->can_few = true;
    return APR_GPU_OK;
}

enum apr_gpu_status general_room(struct apr_gpu_model *m, const struct apr_gpu_desc *d, struct apr_gpu_err *e)
{
    struct general *g = &m->gen;
    const uint64_t n_rows = larger(m->opts.n_chunk, LOGIT_ROWS);
    /* zeroed: rows without a sequence are computed, too */
    ZEROED(m->xs, 4 * n_rows * m->n_hidden, "activations");
    ALLOC(g->h, 4 * n_rows * m->n_hidden, "activations");
    ALLOC(g->y, 4 * n_rows * m->n_hidden, "activations");
    GPU_TRY(room_of_rows(m, e));
    GPU_TRY(room_of_attention(m, d, n_rows, e));
    GPU_TRY(room_of_ffn(m, n_rows, e));
    if (m->opts.exact) return APR_GPU_OK;
    const struct widest w = widest_of(m->dev, d);
    const uint64_t n_cols = larger(w.n_cols, m->heads.n_heads * m->heads.dim);
    ZEROED(g->x16, 2 * n_rows * ((n_cols + 255) / 256 * 256), "activations");
    ALLOC(g->inv, 4 * n_rows, "activations");
    ALLOC(m->wide, w.wide_bytes, "F16 weights of one matrix");
    ALLOC(m->part, w.part_bytes, "parts of sums");
    return APR_GPU_OK;
}
