/* Mixture of experts: every token is computed by the experts that its router scores highest. Tokens are
 * grouped by expert, so that an expert's matrices are read once for a chunk; a token's sum runs over its
 * experts in the order of their scores, whatever the group. */
#include <math.h>
#include <string.h>

#include "blocks.h"
#include "ckd.h"

/* ---- choice ------------------------------------------------------------------------------------------- */

/* Index of the largest value that is not taken, the first of equals; taken values are -inf. */
static uint32_t best_of(const float *x, uint32_t n)
{
    uint32_t best = 0;
    for (uint32_t i = 1; i < n; i++)
        if (x[i] > x[best]) best = i;
    return best;
}

/* What a group of experts is worth: its best expert, or the sum of its best two where a bias steers the
 * choice (DeepSeek-V2, 2.2.2; DeepSeek-V3, 2.1.2). */
static float group_score(const float *x, uint32_t n, bool two)
{
    float first = -INFINITY, second = -INFINITY;
    for (uint32_t i = 0; i < n; i++) {
        if (x[i] > first) {
            second = first;
            first = x[i];
        } else if (x[i] > second) {
            second = x[i];
        }
    }
    return two && n > 1 ? first + second : first;
}

/* Experts outside the best groups become -inf. */
static void limit_groups(const struct apr_moe *moe, float *x, bool two)
{
    uint32_t n_each = moe->n_experts / moe->n_groups;
    for (uint32_t n_drop = moe->n_groups - moe->n_groups_used; n_drop; n_drop--) {
        uint32_t worst = moe->n_groups;
        float worst_score = 0;
        for (uint32_t g = 0; g < moe->n_groups; g++) {
            float s = group_score(x + g * n_each, n_each, two);
            if (s > -INFINITY && (worst == moe->n_groups || s <= worst_score)) {
                worst = g;
                worst_score = s;
            }
        }
        if (worst == moe->n_groups) return;
        for (uint32_t i = 0; i < n_each; i++) x[worst * n_each + i] = -INFINITY;
    }
}

/* Scores, the n_used best of them and their weights. room: [n_experts] */
static void choose(const struct apr_forward *f, const struct apr_moe_mats *m, float *scores, uint32_t *expert,
                   float *weight, float *room)
{
    const struct apr_moe *moe = &f->w.cfg->moe;
    double sum = 0;
    if (moe->sigmoid)
        for (uint32_t i = 0; i < moe->n_experts; i++) scores[i] = (float)(1 / (1 + exp(-(double)scores[i])));
    else
        f->c.kern->softmax(scores, moe->n_experts);
    memcpy(room, scores, moe->n_experts * sizeof *room);
    if (m->router_bias) f->c.kern->add(room, m->router_bias, moe->n_experts);
    if (moe->n_groups > 1) limit_groups(moe, room, m->router_bias != NULL);
    for (uint32_t j = 0; j < moe->n_used; j++) {
        expert[j] = best_of(room, moe->n_experts);
        room[expert[j]] = -INFINITY;
        weight[j] = scores[expert[j]];
        sum += (double)weight[j];
    }
    double scale = moe->scale > 0 ? moe->scale : 1;
    if (moe->norm_topk) scale /= sum + 1e-20;
    for (uint32_t j = 0; j < moe->n_used; j++) weight[j] = (float)((double)weight[j] * scale);
}

static void choose_token(const struct apr_token_job *j, size_t i_tok)
{
    const struct apr_forward *f = j->f;
    const struct apr_moe_room *r = &f->moe;
    size_t n = f->w.cfg->moe.n_experts, n_used = f->w.cfg->moe.n_used;
    choose(f, &j->layer->moe, r->scores + i_tok * n, r->expert + i_tok * n_used, r->weight + i_tok * n_used,
           r->room + i_tok * n);
    if (j->layer->moe.shared_gate.data)
        r->shared_gate[i_tok] = (float)(1 / (1 + exp(-(double)r->shared_gate[i_tok])));
}

/* Rows of an expert side by side, tokens ascending in them. */
static void group(struct apr_forward *f)
{
    struct apr_moe_room *r = &f->moe;
    uint32_t n_experts = f->w.cfg->moe.n_experts;
    size_t n = f->n_toks * f->w.cfg->moe.n_used;
    memset(r->first_row, 0, ((size_t)n_experts + 1) * sizeof *r->first_row);
    for (size_t i = 0; i < n; i++) r->first_row[r->expert[i] + 1]++;
    for (uint32_t x = 0; x < n_experts; x++) r->first_row[x + 1] += r->first_row[x];
    for (size_t i = 0; i < n; i++) r->row[i] = r->first_row[r->expert[i]]++;
    for (uint32_t x = n_experts; x > 0; x--) r->first_row[x] = r->first_row[x - 1];
    r->first_row[0] = 0;
}

/* ---- computation -------------------------------------------------------------------------------------- */

static void gather_token(const struct apr_token_job *j, size_t i_tok)
{
    const struct apr_moe_room *r = &j->f->moe;
    size_t n_used = j->f->w.cfg->moe.n_used;
    for (size_t k = 0; k < n_used; k++)
        apr_acts_copy(&r->in, r->row[i_tok * n_used + k], &j->f->h, i_tok, j->wants);
}

static void pack_token(const struct apr_token_job *j, size_t i_tok)
{
    const struct apr_forward *f = j->f;
    size_t n_used = f->w.cfg->moe.n_used;
    const struct apr_mat *shared = &j->layer->moe.shared.down;
    for (size_t k = 0; k < n_used; k++)
        apr_acts_pack(&f->c, &f->moe.mid, j->wants, f->moe.row[i_tok * n_used + k]);
    if (shared->data) apr_acts_pack(&f->c, &f->moe.shared_mid, apr_mat_wants(shared, f->c.exact), i_tok);
}

/* y = sum of weight * share, then the shared expert's. */
static void combine_token(const struct apr_token_job *j, size_t i_tok)
{
    const struct apr_forward *f = j->f;
    const struct apr_moe_room *r = &f->moe;
    size_t n = f->w.cfg->n_hidden, n_used = f->w.cfg->moe.n_used;
    float *y = f->y + i_tok * n;
    memset(y, 0, n * sizeof *y);
    for (size_t k = i_tok * n_used; k < (i_tok + 1) * n_used; k++)
        f->c.kern->add_scaled(y, r->out + r->row[k] * n, r->weight[k], n);
    if (!j->layer->moe.shared.down.data) return;
    f->c.kern->add_scaled(y, r->shared + i_tok * n,
                          j->layer->moe.shared_gate.data ? r->shared_gate[i_tok] : 1.0f, n);
}

/* act(gate x) * (up x) of every expert that has tokens, and of the shared one. */
static void compute_up(struct apr_forward *f, const struct apr_moe_mats *m)
{
    struct apr_moe_room *r = &f->moe;
    size_t n_maps = 0, n_inter = f->w.cfg->moe.n_inter;
    for (uint32_t x = 0; x < f->w.cfg->moe.n_experts; x++) {
        size_t row0 = r->first_row[x], n = r->first_row[x + 1] - row0;
        if (!n) continue;
        r->in_views[x] = apr_acts_rows(&r->in, row0, n);
        r->maps[n_maps] =
            (struct apr_map){.w = &m->up[x], .x = &r->in_views[x], .y = r->mid.f32 + row0 * n_inter};
        if (m->gate) {
            r->maps[n_maps].gate = &m->gate[x];
            r->maps[n_maps].gate_y = r->gate + row0 * n_inter;
        }
        n_maps++;
    }
    if (m->shared.up.data) {
        r->maps[n_maps] = (struct apr_map){.w = &m->shared.up, .x = &f->h, .y = r->shared_mid.f32};
        if (m->shared.gate.data) {
            r->maps[n_maps].gate = &m->shared.gate;
            r->maps[n_maps].gate_y = r->shared_room;
        }
        n_maps++;
    }
    apr_linear_act(&f->c, r->maps, n_maps, f->w.cfg->activation);
}

static void compute_down(struct apr_forward *f, const struct apr_moe_mats *m)
{
    struct apr_moe_room *r = &f->moe;
    size_t n_maps = 0, n_hidden = f->w.cfg->n_hidden;
    for (uint32_t x = 0; x < f->w.cfg->moe.n_experts; x++) {
        size_t row0 = r->first_row[x], n = r->first_row[x + 1] - row0;
        if (!n) continue;
        r->mid_views[x] = apr_acts_rows(&r->mid, row0, n);
        r->maps[n_maps++] =
            (struct apr_map){.w = &m->down[x], .x = &r->mid_views[x], .y = r->out + row0 * n_hidden};
    }
    if (m->shared.down.data)
        r->maps[n_maps++] = (struct apr_map){.w = &m->shared.down, .x = &r->shared_mid, .y = r->shared};
    apr_linear_each(&f->c, r->maps, n_maps);
}

/* y = sum over chosen experts of weight * Wdown (act(Wgate h) * Wup h), and the shared expert */
void apr_moe_block(struct apr_forward *f, uint32_t i_layer)
{
    const struct apr_layer *l = &f->w.layers[i_layer];
    const struct apr_moe_mats *m = &l->moe;
    bool exact = f->c.exact;
    const struct apr_product decide[] = {{&m->router, f->moe.scores}, {&m->shared_gate, f->moe.shared_gate}};
    struct apr_token_job j = {.f = f, .layer = l, .i_layer = i_layer};

    apr_expect(f, NULL, NULL, NULL);
    apr_linear(&f->c, &f->h, decide, m->shared_gate.data ? 2 : 1);
    j.fn = choose_token;
    apr_for_tokens(&j);
    group(f);

    j.fn = gather_token;
    j.wants = apr_mat_wants(&m->up[0], exact) | (m->gate ? apr_mat_wants(&m->gate[0], exact) : 0);
    if (f->c.tap) j.wants |= 1u << APR_ACT_F32;
    apr_for_tokens(&j);
    f->moe.shared_mid.n_toks = f->n_toks;
    compute_up(f, m);

    j.fn = pack_token;
    j.wants = apr_mat_wants(&m->down[0], exact);
    apr_for_tokens(&j);
    apr_expect_layer(f, i_layer + 1);
    compute_down(f, m);

    j.fn = combine_token;
    apr_for_tokens(&j);
    apr_forward_mark(f, APR_OP_EXPERTS, i_layer);
}

enum apr_code apr_moe_open(struct apr_forward *f, struct apr_err *e)
{
    const struct apr_config *c = f->w.cfg;
    const struct apr_moe *moe = &c->moe;
    struct apr_moe_room *r = &f->moe;
    struct apr_arena *a = &f->arena;
    size_t n_experts = moe->n_experts, n_batch = f->n_batch, n_rows, n_scores, n_out, n_shared;
    if (!n_experts) return APR_OK;
    if (ckd_mul(&n_rows, n_batch, (size_t)moe->n_used) || ckd_mul(&n_scores, n_batch, n_experts) ||
        ckd_mul(&n_out, n_rows, (size_t)c->n_hidden) || n_rows > UINT32_MAX)
        return apr_fail(e, APR_ELOAD, "a chunk of %zu tokens is too large", n_batch);
    n_shared = moe->n_inter_shared ? n_batch * c->n_hidden : 0;
    TRY(apr_arena_try(a, &r->scores, n_scores, sizeof *r->scores, "expert scores", e));
    TRY(apr_arena_try(a, &r->room, n_scores, sizeof *r->room, "expert scores", e));
    TRY(apr_arena_try(a, &r->shared_gate, n_batch, sizeof *r->shared_gate, "expert scores", e));
    TRY(apr_arena_try(a, &r->expert, n_rows, sizeof *r->expert, "experts", e));
    TRY(apr_arena_try(a, &r->weight, n_rows, sizeof *r->weight, "experts", e));
    TRY(apr_arena_try(a, &r->row, n_rows, sizeof *r->row, "experts", e));
    TRY(apr_arena_try(a, &r->first_row, n_experts + 1, sizeof *r->first_row, "experts", e));
    TRY(apr_acts_alloc(&r->in, n_rows, c->n_hidden, f->c.exact, a, e));
    TRY(apr_acts_alloc(&r->mid, n_rows, moe->n_inter, f->c.exact, a, e));
    TRY(apr_arena_try(a, &r->gate, n_rows * moe->n_inter, sizeof *r->gate, "activations", e));
    TRY(apr_arena_try(a, &r->out, n_out, sizeof *r->out, "activations", e));
    TRY(apr_arena_try(a, &r->shared, n_shared, sizeof *r->shared, "activations", e));
    TRY(apr_acts_alloc(&r->shared_mid, n_batch, moe->n_inter_shared, f->c.exact, a, e));
    TRY(apr_arena_try(a, &r->shared_room, n_batch, moe->n_inter_shared * sizeof *r->shared_room,
                      "activations", e));
    TRY(apr_arena_try(a, &r->maps, n_experts + 1, sizeof *r->maps, "experts", e));
    TRY(apr_arena_try(a, &r->in_views, n_experts, sizeof *r->in_views, "experts", e));
    return apr_arena_try(a, &r->mid_views, n_experts, sizeof *r->mid_views, "experts", e);
}
