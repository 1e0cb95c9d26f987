/* Collecting times, bytes and operations. */
#include "profile.h"

#include "bench.h"
#include "ckd.h"

const char *apr_op_name(enum apr_op op)
{
    static const char *const names[APR_N_OPS] = {
        [APR_OP_EMBED] = "embed",       [APR_OP_ATTN_NORM] = "attn_norm", [APR_OP_QKV] = "qkv",
        [APR_OP_ROPE] = "rope_store",   [APR_OP_ATTENTION] = "attention", [APR_OP_ATTN_OUT] = "attn_out",
        [APR_OP_ATTN_ADD] = "attn_add", [APR_OP_FFN_NORM] = "ffn_norm",   [APR_OP_FFN_UP] = "ffn_gate_up",
        [APR_OP_FFN_DOWN] = "ffn_down", [APR_OP_EXPERTS] = "experts",     [APR_OP_FFN_ADD] = "ffn_add",
        [APR_OP_FINAL_NORM] = "norm",   [APR_OP_HEAD] = "head",
    };
    return names[op];
}

const char *apr_phase_name(enum apr_phase phase)
{
    static const char *const names[APR_N_PHASES] = {"prefill", "decode"};
    return names[phase];
}

static void need(struct apr_profile *p, enum apr_type type, double n_bytes, double flops)
{
    struct apr_profile_op *op = &p->pending;
    op->n_bytes += n_bytes;
    op->flops += flops;
    op->read_s += n_bytes / p->roof->memory_bytes_per_s;
    op->compute_s += flops / apr_roof_flops(p->roof, type);
    op->roof_s += apr_roof_s(p->roof, type, n_bytes, flops);
}

/* A matrix is about to be multiplied. Latent attention shows its whole kv_b, which is not computed: its parts
 * are. */
static void tap(void *ctx, const struct apr_mat *w, const struct apr_acts *x)
{
    struct apr_profile *p = ctx;
    const struct apr_weights *ws = &p->session->fwd.w;
    if (!p->is_on) return;
    for (uint32_t i = 0; ws->cfg->mla.kv_rank && i < ws->cfg->n_layers; i++)
        if (w == &ws->layers[i].mla.kv_b) return;
    need(p, w->type, (double)w->n_rows * (double)w->row_bytes,
         2.0 * (double)w->n_rows * (double)w->n_cols * (double)x->n_toks);
}

/* Each token's scores and values over the positions that it sees; the cache is read once for all of them. */
static void need_attention(struct apr_profile *p, uint32_t i_layer)
{
    const struct apr_forward *f = &p->session->fwd;
    const struct apr_attn_shape *a = &f->shape;
    size_t window = f->w.layers[i_layer].is_local ? f->w.cfg->window : 0, n_end = f->pos0 + f->n_toks;
    double n_seen = 0, n_dims = (double)a->k_dim + (double)a->v_dim;
    for (size_t i = f->pos0 + 1; i <= n_end; i++) n_seen += (double)(window && i > window ? window : i);
    size_t n_first = window && f->pos0 + 1 > window ? f->pos0 + 1 - window : 0;
    const size_t *row_bytes = p->session->blocks.row_bytes;
    double n_row_bytes = (double)(row_bytes[APR_CACHE_K] + row_bytes[APR_CACHE_V]);
    need(p, APR_F32, (double)(n_end - n_first) * (double)a->n_heads_kv * n_row_bytes,
         2 * n_dims * n_seen * (double)a->n_heads);
}

/* Floats that a step without weights reads and writes for a token, at least. */
static double floats_of(const struct apr_forward *f, enum apr_op op)
{
    double n = (double)f->w.cfg->n_hidden;
    double n_qkv = (double)f->shape.n_heads * f->shape.k_dim +
                   (double)f->shape.n_heads_kv * (f->shape.k_dim + f->shape.v_dim);
    const double floats[APR_N_OPS] = {
        [APR_OP_EMBED] = 2 * n,    [APR_OP_ATTN_NORM] = 2 * n, [APR_OP_ROPE] = 2 * n_qkv,
        [APR_OP_ATTN_ADD] = 3 * n, [APR_OP_FFN_NORM] = 2 * n,  [APR_OP_FFN_ADD] = 3 * n,
    };
    return floats[op];
}

static void probe(void *ctx, enum apr_op op, uint32_t i_layer)
{
    struct apr_profile *p = ctx;
    int64_t ns = apr_now_ns();
    if (p->is_on) {
        struct apr_profile_phase *phase = &p->phases[p->phase];
        struct apr_profile_op *to = &phase->ops[op];
        double s = (double)(ns - p->ns_last) * 1e-9;
        if (op == APR_OP_ATTENTION) need_attention(p, i_layer);
        need(p, APR_F32, floats_of(&p->session->fwd, op) * 4 * (double)p->session->fwd.n_toks, 0);
        to->s += s;
        to->pass_s += s;
        to->n_bytes += p->pending.n_bytes;
        to->flops += p->pending.flops;
        to->read_s += p->pending.read_s;
        to->compute_s += p->pending.compute_s;
        to->roof_s += p->pending.roof_s;
        p->pending = (struct apr_profile_op){0};
        phase->layer_s[(size_t)i_layer * APR_N_OPS + op] += s;
    }
    p->ns_last = apr_now_ns();
}

/* One prompt or one token, with the logits of its last position. */
static enum apr_code one_pass(struct apr_profile *p, enum apr_phase phase, const int32_t *ids, size_t n,
                              float *logits, struct apr_err *e)
{
    struct apr_session *s = p->session;
    struct apr_profile_phase *to = &p->phases[phase];
    int64_t ns_start = apr_now_ns();
    p->phase = phase;
    p->ns_last = ns_start;
    TRY(apr_forward_prompt(&s->fwd, &s->cache, ids, n, e));
    TRY(apr_forward_logits(&s->fwd, s->fwd.n_toks - 1, 1, logits, e));
    if (!p->is_on) return APR_OK;
    to->pass_ms[to->n_passes++] = (double)(apr_now_ns() - ns_start) * 1e-6;
    to->n_toks = n;
    for (size_t i = 0; i < APR_N_OPS; i++) {
        struct apr_profile_op *op = &to->ops[i];
        if (op->best_s <= 0 || op->pass_s < op->best_s) op->best_s = op->pass_s;
        op->pass_s = 0;
    }
    return APR_OK;
}

static enum apr_code phase_alloc(struct apr_profile *p, enum apr_phase phase, size_t n_passes,
                                 struct apr_arena *arena, struct apr_err *e)
{
    struct apr_profile_phase *to = &p->phases[phase];
    size_t n_cells = ((size_t)p->session->model->config.n_layers + 1) * APR_N_OPS;
    TRY(apr_arena_try(arena, &to->layer_s, n_cells, sizeof *to->layer_s, "timings", e));
    return apr_arena_try(arena, &to->pass_ms, n_passes, sizeof *to->pass_ms, "timings", e);
}

static enum apr_code all_passes(struct apr_profile *p, const struct apr_profile_size *size,
                                const int32_t *ids, float *logits, struct apr_err *e)
{
    for (size_t i = 0; i < size->n_warmup + size->n_measure; i++) {
        p->is_on = i >= size->n_warmup;
        apr_cache_truncate(&p->session->cache, 0);
        TRY(one_pass(p, APR_PHASE_PREFILL, ids, size->n_prompt, logits, e));
        for (size_t k = 0; k < size->n_gen; k++)
            TRY(one_pass(p, APR_PHASE_DECODE, ids + size->n_prompt + k, 1, logits, e));
    }
    return APR_OK;
}

enum apr_code apr_profile_run(struct apr_profile *p, struct apr_session *s, const struct apr_roof *roof,
                              const struct apr_profile_size *size, struct apr_arena *arena, struct apr_err *e)
{
    size_t n_ids = size->n_prompt + size->n_gen, n_decode;
    int32_t *ids;
    float *logits;
    *p = (struct apr_profile){.session = s, .roof = roof};
    TRY(apr_session_fits(s, n_ids, 0, e));
    if (ckd_mul(&n_decode, size->n_gen, size->n_measure))
        return apr_fail(e, APR_EUSAGE, "the profile has too many tokens");
    TRY(apr_arena_try(arena, &ids, n_ids, sizeof *ids, "tokens", e));
    TRY(apr_arena_try(arena, &logits, s->model->config.n_vocab, sizeof *logits, "logits", e));
    TRY(phase_alloc(p, APR_PHASE_PREFILL, size->n_measure, arena, e));
    TRY(phase_alloc(p, APR_PHASE_DECODE, n_decode, arena, e));
    apr_bench_draw(s->model->config.n_vocab, ids, n_ids);
    s->fwd.probe = probe;
    s->fwd.probe_ctx = p;
    s->fwd.c.tap = tap;
    s->fwd.c.tap_ctx = p;
    enum apr_code code = all_passes(p, size, ids, logits, e);
    s->fwd.probe = NULL;
    s->fwd.c.tap = NULL;
    for (size_t i = 0; i < APR_N_PHASES; i++) {
        struct apr_profile_phase *to = &p->phases[i];
        to->latency_ms = apr_summary_of(to->pass_ms, to->n_passes);
        to->toks_per_s = to->n_passes ? 1e3 * (double)to->n_toks / to->latency_ms.mean : 0;
    }
    return code;
}

double apr_profile_efficiency(const struct apr_profile_phase *p)
{
    double roof_s = 0;
    for (size_t i = 0; i < APR_N_OPS; i++) roof_s += p->ops[i].roof_s;
    return p->n_passes ? 100 * roof_s / (double)p->n_passes / (p->latency_ms.p50 * 1e-3) : 0;
}

struct grade_from {
    double from;
    const char *grade;
};
#define N_GRADES 5u

static const char *grade_of(const struct grade_from rows[N_GRADES], double x)
{
    for (size_t i = 0; i < N_GRADES; i++)
        if (x >= rows[i].from) return rows[i].grade;
    return "F";
}

const char *apr_profile_grade(double efficiency_pct)
{
    static const struct grade_from rows[N_GRADES] = {{80, "A+"}, {50, "A"}, {30, "B"}, {15, "C"}, {5, "D"}};
    return grade_of(rows, efficiency_pct);
}

const char *apr_profile_peer_grade(double ratio)
{
    static const struct grade_from rows[N_GRADES] = {
        {2, "A+"}, {1.5, "A"}, {1, "B"}, {0.75, "C"}, {0.5, "D"}};
    return grade_of(rows, ratio);
}
