/* The ten stages. The probe is one token, repeated, then a different one: with equal tokens the first layer's
 * keys differ by their position alone, and its values not at all. */
#include "stages.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "sampler/sampler.h"

#define N_PROBE 13u /* positions 0..11 hold the repeated token, 12 the other one */

_Static_assert(N_PROBE <= APR_PAGE_POS, "the probe fills one page");

struct probe {
    struct apr_session *s;
    const struct apr_config *cfg;
    const struct apr_attn_shape *shape;
    int32_t ids[N_PROBE];
    float *logits;  /* [N_PROBE, n_vocab], the sequence at once */
    float *logits1; /* [n_vocab], the last row, token by token */
    float *row;     /* [the widest row] */
    size_t n_logits_bad;
    bool forward_ok;
};

typedef bool stage_fn(const struct probe *p, char *text, size_t n_text);

static bool finite_row(const float *x, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (!isfinite(x[i])) return false;
    return true;
}

static double norm2(const float *x, size_t n)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++) sum += (double)x[i] * (double)x[i];
    return sqrt(sum);
}

static double dot(const float *x, const float *y, size_t n)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++) sum += (double)x[i] * (double)y[i];
    return sum;
}

/* Row of the cache: position pos of one head, layer i_layer. */
static float *cached(const struct probe *p, enum apr_cache_part part, uint32_t i_layer, uint32_t i_head,
                     size_t pos)
{
    float *page = apr_cache_page(&p->s->cache, part, i_layer, i_head, pos / APR_PAGE_POS);
    bool is_key = part == APR_CACHE_K || p->shape->v_in_k;
    return page + pos % APR_PAGE_POS * (is_key ? p->shape->k_dim : p->shape->v_dim);
}

static bool stage_tokenizer(const struct probe *p, char *text, size_t n_text)
{
    static const char *const samples[] = {"Hello, world!", "2 + 2 = 4", "def f(x):\n    return x * x\n"};
    struct apr_err e = {0};
    const struct apr_tok *tok;
    if (apr_session_tok(p->s, &tok, &e) != APR_OK) return snprintf(text, n_text, "no tokenizer"), false;
    size_t n_toks = 0, n_same = 0, n_samples = sizeof samples / sizeof *samples;
    bool in_range = true;
    for (size_t i = 0; i < n_samples; i++) {
        struct apr_ids ids = {0};
        struct apr_buf back;
        apr_buf_init(&back, 1 << 16);
        if (apr_tok_encode(tok, samples[i], strlen(samples[i]), 0, &ids, &e) == APR_OK &&
            apr_tok_decode(tok, ids.at, ids.n, false, &back, &e) == APR_OK)
            n_same += back.n_bytes == strlen(samples[i]) && !memcmp(back.data, samples[i], back.n_bytes);
        for (size_t k = 0; k < ids.n; k++)
            in_range &= ids.at[k] >= 0 && (uint32_t)ids.at[k] < p->cfg->n_vocab;
        n_toks += ids.n;
        apr_ids_free(&ids);
        apr_buf_free(&back);
    }
    snprintf(text, n_text, "%zu of %zu texts come back from %zu tokens, ids %s the embedding", n_same,
             n_samples, n_toks, in_range ? "inside" : "OUTSIDE");
    return n_same == n_samples && in_range && n_toks > 0;
}

static bool stage_embedding(const struct probe *p, char *text, size_t n_text)
{
    const struct apr_weights *w = &p->s->fwd.w;
    size_t n = p->cfg->n_hidden;
    float *a = p->row, *b = p->row + n;
    apr_rows_get(&w->embed, (size_t)p->ids[0], a);
    apr_rows_get(&w->embed, (size_t)p->ids[N_PROBE - 1], b);
    double na = norm2(a, n), nb = norm2(b, n);
    bool differ = memcmp(a, b, n * sizeof *a) != 0;
    snprintf(text, n_text, "rows %d and %d have norms %.4g and %.4g and %s", p->ids[0], p->ids[N_PROBE - 1],
             na, nb, differ ? "differ" : "are EQUAL");
    return finite_row(a, n) && finite_row(b, n) && na > 0 && nb > 0 && differ;
}

/* Learned rows: finite, and no two of the first ones equal. */
static bool learned_positions(const struct probe *p, char *text, size_t n_text)
{
    const struct apr_rows *rows = &p->s->fwd.w.positions;
    size_t n = p->cfg->n_hidden, n_same = 0;
    float *a = p->row, *b = p->row + n;
    bool finite = true;
    for (size_t i = 0; i + 1 < N_PROBE; i++) {
        apr_rows_get(rows, i, a);
        apr_rows_get(rows, i + 1, b);
        finite &= finite_row(a, n) && finite_row(b, n);
        n_same += !memcmp(a, b, n * sizeof *a);
    }
    snprintf(text, n_text, "learned rows of %zu positions, the first %u %s, %zu equal their neighbour",
             rows->n_rows, N_PROBE, finite ? "finite" : "NOT finite", n_same);
    return finite && n_same == 0;
}

/* Rotation keeps lengths, makes equal keys differ, and leaves products of equal distance equal. Yarn and
 * longrope multiply what turns by a constant besides, the same at every position. */
static bool stage_position(const struct probe *p, char *text, size_t n_text)
{
    if (p->s->fwd.w.positions.data) return learned_positions(p, text, n_text);
    size_t d = p->shape->k_dim;
    double worst = 0, moved = 0;
    for (uint32_t h = 0; h < p->shape->n_heads_kv; h++) {
        const float *k0 = cached(p, APR_CACHE_K, 0, h, 0), *k1 = cached(p, APR_CACHE_K, 0, h, 1);
        const float *k4 = cached(p, APR_CACHE_K, 0, h, 4), *k7 = cached(p, APR_CACHE_K, 0, h, 7);
        const float *k10 = cached(p, APR_CACHE_K, 0, h, 10);
        double n0 = norm2(k0, d), scale = n0 * n0 > 0 ? n0 * n0 : 1;
        worst = fmax(worst, fabs(norm2(k7, d) - n0) / (n0 > 0 ? n0 : 1));
        worst = fmax(worst, fabs(dot(k1, k4, d) - dot(k7, k10, d)) / scale);
        moved = fmax(moved, fabs(dot(k0, k0, d) - dot(k0, k7, d)) / scale);
    }
    snprintf(text, n_text,
             "distance alone decides to %.1e (at most 1e-3); 7 positions change a product by %.2g", worst,
             moved);
    return worst <= 1e-3 && moved > 1e-6;
}

/* With learned positions equal tokens do not have equal values. */
static bool stage_qkv(const struct probe *p, char *text, size_t n_text)
{
    size_t k_dim = p->shape->k_dim, d = p->shape->v_dim;
    double least = INFINITY;
    bool finite = true, constant = true, distinct = true;
    for (uint32_t h = 0; h < p->shape->n_heads_kv; h++) {
        const float *v0 = cached(p, APR_CACHE_V, 0, h, 0), *v5 = cached(p, APR_CACHE_V, 0, h, 5);
        const float *other = cached(p, APR_CACHE_V, 0, h, N_PROBE - 1), *k = cached(p, APR_CACHE_K, 0, h, 0);
        finite &= finite_row(v0, d) && finite_row(k, k_dim) && finite_row(other, d);
        constant &= !memcmp(v0, v5, d * sizeof *v0);
        distinct &= memcmp(v0, other, d * sizeof *v0) != 0;
        least = fmin(least, fmin(norm2(v0, d), norm2(k, k_dim)));
    }
    bool by_place = p->s->fwd.w.positions.data != NULL;
    finite &= finite_row(p->s->fwd.q, (size_t)p->cfg->n_heads * p->cfg->head_dim);
    snprintf(text, n_text, "%s, smallest norm %.3g, equal tokens give %s values, others %s",
             finite ? "finite" : "NOT finite", least,
             by_place   ? "position-bound"
             : constant ? "equal"
                        : "DIFFERENT",
             distinct ? "do not" : "the SAME");
    return finite && (constant || by_place) && distinct && least > 0;
}

/* What the last layer's attention makes of the last chunk's queries, into out [N_PROBE, n_heads, v_dim]. */
static void attend_again(const struct probe *p, float *out)
{
    struct apr_forward *f = &p->s->fwd;
    uint32_t last = p->cfg->n_layers - 1;
    struct apr_attn_span span = {.cache = &p->s->cache, .n_toks = N_PROBE};
    apr_attention(&f->attn, &f->c, p->shape,
                  &(struct apr_attn_call){.i_layer = last,
                                          .window = f->w.layers[last].is_local ? p->cfg->window : 0,
                                          .spans = &span,
                                          .n_spans = 1,
                                          .q = p->shape->v_in_k ? f->mla.q : f->q,
                                          .out = out});
}

/* With values of 1 everywhere the output of a head is the sum of its attention weights. The last layer's
 * values are overwritten for it: no later stage reads them. (F-PIPE-004) */
static double attention_sum_error(const struct probe *p, float *out)
{
    size_t n = (size_t)p->cfg->n_heads * p->shape->v_dim;
    uint32_t last = p->cfg->n_layers - 1;
    double worst = 0;
    for (uint32_t h = 0; h < p->shape->n_heads_kv; h++)
        for (size_t pos = 0; pos < N_PROBE; pos++) {
            float *v = cached(p, APR_CACHE_V, last, h, pos);
            for (size_t i = 0; i < p->shape->v_dim; i++) v[i] = 1;
        }
    attend_again(p, out);
    for (size_t i = 0; i < N_PROBE * n; i++) worst = fmax(worst, fabs((double)out[i] - 1));
    return worst;
}

/* The first position can attend to itself alone: its output is its own value row, in every layer. */
static bool stage_attention(const struct probe *p, char *text, size_t n_text)
{
    struct apr_forward *f = &p->s->fwd;
    size_t d = p->shape->v_dim;
    uint32_t last = p->cfg->n_layers - 1, n_group = p->shape->n_heads / p->shape->n_heads_kv;
    float *out = p->shape->v_in_k ? f->mla.latent.f32 : f->att.f32;
    double worst = 0;
    for (uint32_t h = 0; h < p->cfg->n_heads; h++) {
        const float *v = cached(p, APR_CACHE_V, last, h / n_group, 0);
        for (size_t i = 0; i < d; i++) worst = fmax(worst, fabs((double)out[h * d + i] - (double)v[i]));
    }
    bool finite = finite_row(out, N_PROBE * p->cfg->n_heads * d);
    double off = attention_sum_error(p, out);
    snprintf(text, n_text,
             "%s; weights sum to 1 within %.1e, first position differs from its own values by %.1e (both at "
             "most 1e-5)",
             finite ? "finite" : "NOT finite", off, worst);
    return finite && worst <= 1e-5 && off <= 1e-5;
}

/* The experts of the last token: their weights, and how the router spread the probe. */
static bool stage_experts(const struct probe *p, char *text, size_t n_text)
{
    const struct apr_moe_room *r = &p->s->fwd.moe;
    const struct apr_moe *moe = &p->cfg->moe;
    size_t n = N_PROBE * (size_t)moe->n_used, n_rows = 0, n_active = 0, n_bad = 0;
    double out = norm2(p->s->fwd.y + (N_PROBE - 1) * p->cfg->n_hidden, p->cfg->n_hidden);
    bool finite = finite_row(r->mid.f32, n * moe->n_inter) && finite_row(r->weight, n) &&
                  finite_row(p->s->fwd.y, N_PROBE * (size_t)p->cfg->n_hidden);
    for (size_t i = 0; i < n; i++) n_bad += !(r->weight[i] >= 0) || r->expert[i] >= moe->n_experts;
    for (uint32_t x = 0; x < moe->n_experts; x++) {
        n_rows += r->first_row[x + 1] - r->first_row[x];
        n_active += r->first_row[x + 1] > r->first_row[x];
    }
    snprintf(text, n_text, "%s, %zu of %u experts take %zu shares of %u tokens, output norm %.4g",
             finite ? "finite" : "NOT finite", n_active, moe->n_experts, n_rows, N_PROBE, out);
    return finite && n_bad == 0 && n_rows == n && n_active >= moe->n_used && out > 0;
}

static bool stage_ffn(const struct probe *p, char *text, size_t n_text)
{
    if (p->s->fwd.w.layers[p->cfg->n_layers - 1].is_moe) return stage_experts(p, text, n_text);
    size_t n = p->cfg->n_inter, n_nonzero = 0;
    const float *x = p->s->fwd.ffn.f32 + (N_PROBE - 1) * n;
    bool finite =
        finite_row(p->s->fwd.ffn.f32, N_PROBE * n) && finite_row(p->s->fwd.y, N_PROBE * p->cfg->n_hidden);
    for (size_t i = 0; i < n; i++) n_nonzero += x[i] != 0;
    double out = norm2(p->s->fwd.y + (N_PROBE - 1) * p->cfg->n_hidden, p->cfg->n_hidden);
    snprintf(text, n_text, "%s, %zu of %zu values after the gate not zero, output norm %.4g",
             finite ? "finite" : "NOT finite", n_nonzero, n, out);
    return finite && n_nonzero > 0 && out > 0;
}

static bool finite_norm(const struct apr_lnorm *w, size_t n)
{
    return !w->w || (finite_row(w->w, n) && (!w->b || finite_row(w->b, n)));
}

/* norm(x), without its weights, has mean square 1 (but for eps); LayerNorm takes out the mean before. */
static bool stage_norms(const struct probe *p, char *text, size_t n_text)
{
    const struct apr_forward *f = &p->s->fwd;
    size_t n = p->cfg->n_hidden, n_rows = 1;
    float *ones = p->row, *y = p->row + n, *zeros = p->row + 2 * n;
    const float *x = f->x + (N_PROBE - 1) * n;
    double mean = 0;
    for (size_t i = 0; i < n; i++) {
        ones[i] = 1;
        zeros[i] = 0;
        if (p->cfg->norm == APR_NORM_LAYER) mean += (double)x[i] / (double)n;
    }
    if (p->cfg->norm == APR_NORM_LAYER)
        f->c.kern->layernorm(x, ones, zeros, (float)p->cfg->norm_eps, y, n);
    else
        f->c.kern->rmsnorm(x, ones, (float)p->cfg->norm_eps, y, n);
    double mean_x = norm2(x, n) * norm2(x, n) / (double)n - mean * mean;
    double mean_y = norm2(y, n) * norm2(y, n) / (double)n;
    double off = fabs(mean_y - mean_x / (mean_x + p->cfg->norm_eps));
    bool finite = finite_norm(&f->w.final_norm, n);
    for (uint32_t i = 0; i < p->cfg->n_layers; i++) {
        const struct apr_layer *l = &f->w.layers[i];
        finite &= finite_norm(&l->attn_norm, n) && finite_norm(&l->ffn_norm, n);
        n_rows += l->ffn_norm.w ? 2u : 1u;
    }
    snprintf(text, n_text, "%zu weight rows %s, mean square off by %.1e (at most 1e-4)", n_rows,
             finite ? "finite" : "NOT finite", off);
    return finite && off <= 1e-4;
}

/* What the head makes of a product: bias, scale, cap. */
static double finished_logit(const struct probe *p, double x, uint32_t i_row)
{
    const struct apr_mat *head = &p->s->fwd.w.head;
    if (head->bias) x += (double)head->bias[i_row];
    if (p->cfg->logit_scale > 0) x *= p->cfg->logit_scale;
    return p->cfg->logit_softcap > 0 ? p->cfg->logit_softcap * tanh(x / p->cfg->logit_softcap) : x;
}

/* A few logits again, in double, from the normed state and the dequantized rows of the head. */
static bool stage_head(const struct probe *p, char *text, size_t n_text)
{
    const struct apr_forward *f = &p->s->fwd;
    size_t n = p->cfg->n_hidden;
    float *h = p->row, *w = p->row + n;
    apr_to_f32_fn *to_f32 = f->c.kern->to_f32[f->w.head.type];
    const uint32_t rows[] = {0, p->cfg->n_vocab / 2, p->cfg->n_vocab - 1};
    double worst = 0;
    if (f->w.final_norm.b)
        f->c.kern->layernorm(f->x + (N_PROBE - 1) * n, f->w.final_norm.w, f->w.final_norm.b,
                             (float)p->cfg->norm_eps, h, n);
    else
        f->c.kern->rmsnorm(f->x + (N_PROBE - 1) * n, f->w.final_norm.w, (float)p->cfg->norm_eps, h, n);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        to_f32(f->w.head.data + rows[i] * f->w.head.row_bytes, w, n);
        double got = (double)p->logits[(size_t)(N_PROBE - 1) * p->cfg->n_vocab + rows[i]];
        double scale = norm2(h, n) * norm2(w, n);
        double want = finished_logit(p, dot(h, w, n), rows[i]);
        if (p->cfg->logit_scale > 1) scale *= p->cfg->logit_scale;
        worst = fmax(worst, fabs(got - want) / (scale > 0 ? scale : 1));
    }
    snprintf(text, n_text, "%u rows; 3 logits agree with double to %.1e of |h||w| (at most 1e-5)",
             p->cfg->n_vocab, worst);
    return worst <= 1e-5;
}

static bool stage_logits(const struct probe *p, char *text, size_t n_text)
{
    size_t n = p->cfg->n_vocab;
    const float *row = p->logits + (N_PROBE - 1) * n;
    bool finite = finite_row(p->logits, N_PROBE * n), same = !memcmp(row, p->logits1, n * sizeof *row);
    float min = row[0], max = row[0];
    for (size_t i = 1; i < n; i++) {
        min = fminf(min, row[i]);
        max = fmaxf(max, row[i]);
    }
    snprintf(text, n_text, "%s from %.4g to %.4g, one by one %s bits", finite ? "finite" : "NOT finite",
             (double)min, (double)max, same ? "the same" : "OTHER");
    return finite && same && max > min;
}

static bool stage_sampler(const struct probe *p, char *text, size_t n_text)
{
    size_t n = p->cfg->n_vocab, i_max;
    struct apr_sampler_site site = {.n_vocab = n, .kern = p->s->kern, .tok = p->s->tok};
    struct apr_sample_opts o;
    struct apr_sampler greedy, sampler;
    struct apr_arena arena;
    struct apr_err e = {0};
    double sum = 0;
    int32_t id = -1;
    bool ok = false;
    apr_arena_init(&arena);
    apr_sample_defaults(&o);
    if (apr_sampler_init(&greedy, &o, &site, &arena, &e) != APR_OK) goto out;
    o.temperature = 1;
    if (apr_sampler_init(&sampler, &o, &site, &arena, &e) != APR_OK) goto out;
    p->s->kern->max(p->logits1, n, &i_max);
    if (apr_sampler_next(&greedy, p->logits1, &id, &e) != APR_OK) goto out;
    if (apr_sampler_chain(&sampler, p->logits1, &e) != APR_OK) goto out;
    for (size_t i = 0; i < sampler.c.n; i++) sum += sampler.c.at[i].p;
    /* From 4096 candidates on the probabilities are f32. */
    ok = fabs(sum - 1) <= 1e-5 && (size_t)id == i_max;
    snprintf(text, n_text, "%zu probabilities sum to 1%+.1e, greedy takes the largest logit: %s", sampler.c.n,
             sum - 1, (size_t)id == i_max ? "yes" : "NO");
out:
    if (e.code != APR_OK) snprintf(text, n_text, "%.150s", e.text);
    apr_arena_free(&arena);
    return ok;
}

static const struct {
    const char *name;
    stage_fn *fn;
    bool needs_forward;
} stages[APR_N_STAGES] = {
    {"tokenizer", stage_tokenizer, false},
    {"embedding", stage_embedding, false},
    {"positional_encoding", stage_position, true},
    {"qkv_projection", stage_qkv, true},
    {"attention_output", stage_attention, true},
    {"ffn", stage_ffn, true},
    {"layer_norm", stage_norms, true},
    {"lm_head", stage_head, true},
    {"logits", stage_logits, true},
    {"sampler", stage_sampler, true},
};

/* Two ordinary tokens that differ; models without a tokenizer get rows 1 and 2. */
static void pick_ids(struct probe *p)
{
    int32_t a = 1, b = 2;
    struct apr_ids ids = {0};
    struct apr_err e = {0};
    static const char text[] = "the answer is 42";
    if (p->s->tok && apr_tok_encode(p->s->tok, text, sizeof text - 1, 0, &ids, &e) == APR_OK && ids.n >= 2 &&
        ids.at[0] != ids.at[1]) {
        a = ids.at[0];
        b = ids.at[1];
    }
    apr_ids_free(&ids);
    for (size_t i = 0; i < N_PROBE; i++) p->ids[i] = i + 1 < N_PROBE ? a : b;
}

/* Token by token first, then at once: what the buffers hold at the end is the second run. */
static enum apr_code run_probe(struct probe *p, struct apr_err *e)
{
    struct apr_session *s = p->s;
    apr_cache_truncate(&s->cache, 0);
    for (size_t i = 0; i < N_PROBE; i++) TRY(apr_forward_chunk(&s->fwd, &s->cache, &p->ids[i], 1, e));
    TRY(apr_forward_logits(&s->fwd, 0, 1, p->logits1, e));
    apr_cache_truncate(&s->cache, 0);
    TRY(apr_forward_chunk(&s->fwd, &s->cache, p->ids, N_PROBE, e));
    return apr_forward_logits(&s->fwd, 0, N_PROBE, p->logits, e);
}

enum apr_code apr_stages_run(struct apr_session *s, struct apr_arena *arena,
                             struct apr_stage_result out[APR_N_STAGES], struct apr_err *e)
{
    struct probe p = {.s = s, .cfg = &s->model->config, .shape = &s->fwd.shape};
    struct apr_err why = {0};
    TRY(apr_session_fits(s, N_PROBE, 0, e));
    if (s->fwd.n_batch < N_PROBE)
        return apr_fail(e, APR_EUSAGE, "--prefill-chunk: found %zu, expected %u or more here", s->fwd.n_batch,
                        N_PROBE);
    TRY(apr_arena_try(arena, &p.logits, (size_t)N_PROBE * p.cfg->n_vocab, sizeof *p.logits, "logits", e));
    TRY(apr_arena_try(arena, &p.logits1, p.cfg->n_vocab, sizeof *p.logits1, "logits", e));
    TRY(apr_arena_try(arena, &p.row, 3 * (size_t)p.cfg->n_hidden, sizeof *p.row, "rows", e));
    pick_ids(&p);
    enum apr_code code = run_probe(&p, &why);
    if (code != APR_OK && code != APR_EINFER) return *e = why, code;
    p.forward_ok = code == APR_OK;
    for (size_t i = 0; i < APR_N_STAGES; i++) {
        out[i] = (struct apr_stage_result){.name = stages[i].name};
        if (stages[i].needs_forward && !p.forward_ok)
            snprintf(out[i].measured, sizeof out[i].measured, "not reached: %.150s", why.text);
        else
            out[i].passed = stages[i].fn(&p, out[i].measured, sizeof out[i].measured);
    }
    return APR_OK;
}
