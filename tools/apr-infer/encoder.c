/* BERT: Devlin et al. (2018). x = LN(word + position + type); then in each block x = LN(x + attention(x)),
 * x = LN(x + ffn(x)). See encoder.h. */
#include "encoder.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

static enum apr_code bind_block(struct apr_bind *b, const struct apr_config *c, uint32_t i,
                                struct apr_block *out, struct apr_err *e)
{
    size_t n = c->n_hidden;
    TRY(apr_bind_matrix(b, APR_ROLE_Q, APR_ROLE_Q_BIAS, i, n, n, &out->self.q, e));
    TRY(apr_bind_matrix(b, APR_ROLE_K, APR_ROLE_K_BIAS, i, n, n, &out->self.k, e));
    TRY(apr_bind_matrix(b, APR_ROLE_V, APR_ROLE_V_BIAS, i, n, n, &out->self.v, e));
    TRY(apr_bind_matrix(b, APR_ROLE_O, APR_ROLE_O_BIAS, i, n, n, &out->self.o, e));
    TRY(apr_bind_norm(b, APR_ROLE_POST_ATTN_NORM, APR_ROLE_POST_ATTN_NORM_BIAS, i, n, &out->attn_norm, e));
    TRY(apr_bind_matrix(b, APR_ROLE_UP, APR_ROLE_UP_BIAS, i, c->n_inter, n, &out->up, e));
    TRY(apr_bind_matrix(b, APR_ROLE_DOWN, APR_ROLE_DOWN_BIAS, i, n, c->n_inter, &out->down, e));
    return apr_bind_norm(b, APR_ROLE_POST_FFN_NORM, APR_ROLE_POST_FFN_NORM_BIAS, i, n, &out->ffn_norm, e);
}

static enum apr_code bind_ends(struct apr_encoder *x, struct apr_bind *b, struct apr_err *e)
{
    const struct apr_config *c = x->cfg;
    TRY(apr_bind_rows(b, APR_ROLE_EMBED, c->n_vocab, c->n_hidden, &x->embed, e));
    TRY(apr_bind_rows(b, APR_ROLE_POSITIONS, c->n_positions, c->n_hidden, &x->positions, e));
    TRY(apr_bind_norm(b, APR_ROLE_EMBED_NORM, APR_ROLE_EMBED_NORM_BIAS, 0, c->n_hidden, &x->embed_norm, e));
    if (!c->n_types) return APR_OK;
    struct apr_rows types;
    float *row;
    TRY(apr_bind_rows(b, APR_ROLE_TYPES, c->n_types, c->n_hidden, &types, e));
    TRY(apr_arena_try(b->arena, &row, c->n_hidden, sizeof *row, "token types", e));
    apr_rows_get(&types, 0, row);
    x->type0 = row;
    return APR_OK;
}

static enum apr_code open_parts(struct apr_encoder *x, const struct apr_checked_model *m,
                                const struct apr_kern *kern, struct apr_pool *pool, bool exact, size_t n_rows,
                                struct apr_err *e)
{
    const struct apr_config *c = x->cfg;
    struct apr_bind b = {.m = m->model, .kern = kern, .arena = &x->arena};
    if (!c->is_encoder || !c->n_heads || c->n_hidden % c->n_heads || c->n_positions <= c->position0)
        return apr_fail(e, APR_ELOAD, "%s: this is no encoder that can be computed", m->model->path);
    x->n_max = c->n_positions - c->position0;
    if (n_rows < x->n_max) n_rows = x->n_max;
    TRY(bind_ends(x, &b, e));
    TRY(apr_arena_try(&x->arena, &x->blocks, c->n_layers, sizeof *x->blocks, "layers", e));
    TRY(apr_arena_try(&x->arena, &x->spans, n_rows, sizeof *x->spans, "sequences", e));
    for (uint32_t i = 0; i < c->n_layers; i++) TRY(bind_block(&b, c, i, &x->blocks[i], e));
    const struct apr_stack_dims d = {.n_hidden = c->n_hidden,
                                     .n_heads = c->n_heads,
                                     .n_inter = c->n_inter,
                                     .eps = (float)c->norm_eps,
                                     .activation = c->activation};
    return apr_stack_open(&x->stack, &d, kern, pool, exact, n_rows, x->n_max, e);
}

enum apr_code apr_encoder_open(struct apr_encoder *x, const struct apr_checked_model *m,
                               const struct apr_kern *kern, struct apr_pool *pool, bool exact, size_t n_rows,
                               struct apr_err *e)
{
    *x = (struct apr_encoder){.cfg = &m->model->config};
    apr_arena_init(&x->arena);
    apr_arena_init(&x->stack.arena);
    return open_parts(x, m, kern, pool, exact, n_rows, e);
}

void apr_encoder_close(struct apr_encoder *x)
{
    apr_stack_close(&x->stack);
    apr_arena_free(&x->arena);
}

/* x = LN(word + position + type 0) */
static enum apr_code embed(struct apr_encoder *x, const struct apr_seq *seq, struct apr_err *e)
{
    const struct apr_config *c = x->cfg;
    struct apr_stack *s = &x->stack;
    size_t n = c->n_hidden;
    for (size_t i = 0; i < seq->n; i++) {
        float *row = s->x + (seq->row0 + i) * n;
        if (seq->ids[i] < 0 || (uint32_t)seq->ids[i] >= c->n_vocab)
            return apr_fail(e, APR_EUSAGE, "token %zu has id %" PRId32 ", the embedding has %" PRIu32 " rows",
                            i, seq->ids[i], c->n_vocab);
        apr_rows_get(&x->embed, (size_t)seq->ids[i], row);
        apr_rows_add(&x->positions, s->c.kern, c->position0 + i, s->y, row);
        if (x->type0) s->c.kern->add(row, x->type0, n);
    }
    return APR_OK;
}

/* h = x = LN(x) */
static void norm(struct apr_encoder *x, const struct apr_lnorm *w, size_t n_rows)
{
    apr_stack_norm(&x->stack, w, n_rows);
    apr_stack_keep(&x->stack, n_rows);
}

static void block(struct apr_encoder *x, const struct apr_block *b, size_t n_seqs, size_t n_rows)
{
    struct apr_stack *s = &x->stack;
    apr_stack_qkv(s, &b->self, n_rows);
    apr_stack_attend(s, x->spans, n_seqs);
    apr_stack_add(s, &b->self.o, &s->att, n_rows);
    norm(x, &b->attn_norm, n_rows);
    apr_stack_ffn(s, b, n_rows);
    norm(x, &b->ffn_norm, n_rows);
}

enum apr_code apr_encoder_run(struct apr_encoder *x, struct apr_seq *seqs, size_t n_seqs, struct apr_err *e)
{
    struct apr_stack *s = &x->stack;
    size_t n_rows = 0, n = x->cfg->n_hidden, bad;
    for (size_t i = 0; i < n_seqs; i++) {
        if (!seqs[i].n || seqs[i].n > x->n_max || seqs[i].n > s->n_rows_most - n_rows)
            return apr_fail(e, APR_EUSAGE, "a text of %zu tokens, expected 1 to %zu", seqs[i].n, x->n_max);
        seqs[i].row0 = n_rows;
        x->spans[i] = (struct apr_span){.row0 = n_rows,
                                        .n_rows = seqs[i].n,
                                        .k = s->k + n_rows * n,
                                        .v = s->v + n_rows * n,
                                        .n_pos = seqs[i].n,
                                        .is_f32 = true};
        TRY(embed(x, &seqs[i], e));
        n_rows += seqs[i].n;
    }
    norm(x, &x->embed_norm, n_rows);
    for (uint32_t i = 0; i < x->cfg->n_layers; i++) block(x, &x->blocks[i], n_seqs, n_rows);
    x->hidden = s->x;
    bad = apr_stack_bad_row(s->x, n_rows, n);
    if (bad < n_rows) return apr_fail(e, APR_EINFER, "the hidden state of row %zu contains NaN or Inf", bad);
    return APR_OK;
}

/* ---- pooling ------------------------------------------------------------------------------------------ */

static void weighted(const float *rows, size_t n_rows, size_t n_cols, bool by_position, double divisor,
                     float *v)
{
    for (size_t k = 0; k < n_cols; k++) {
        double sum = 0;
        for (size_t r = 0; r < n_rows; r++)
            sum += (double)rows[r * n_cols + k] * (by_position ? (double)(r + 1) : 1);
        v[k] = (float)(sum / divisor);
    }
}

static void pool_mean(const float *rows, size_t n_rows, size_t n_cols, float *v)
{
    weighted(rows, n_rows, n_cols, false, (double)n_rows, v);
}

static void pool_mean_sqrt(const float *rows, size_t n_rows, size_t n_cols, float *v)
{
    weighted(rows, n_rows, n_cols, false, sqrt((double)n_rows), v);
}

static void pool_weighted(const float *rows, size_t n_rows, size_t n_cols, float *v)
{
    weighted(rows, n_rows, n_cols, true, (double)n_rows * (double)(n_rows + 1) / 2, v);
}

static void pool_first(const float *rows, size_t n_rows, size_t n_cols, float *v)
{
    (void)n_rows;
    memcpy(v, rows, n_cols * sizeof *v);
}

static void pool_last(const float *rows, size_t n_rows, size_t n_cols, float *v)
{
    memcpy(v, rows + (n_rows - 1) * n_cols, n_cols * sizeof *v);
}

static void pool_max(const float *rows, size_t n_rows, size_t n_cols, float *v)
{
    memcpy(v, rows, n_cols * sizeof *v);
    for (size_t r = 1; r < n_rows; r++)
        for (size_t k = 0; k < n_cols; k++)
            if (rows[r * n_cols + k] > v[k]) v[k] = rows[r * n_cols + k];
}

void apr_pool_rows(enum apr_pooling how, const float *rows, size_t n_rows, size_t n_cols, float *v)
{
    static void (*const fns[])(const float *rows, size_t n_rows, size_t n_cols, float *v) = {
        [APR_POOL_NONE] = pool_mean,         [APR_POOL_MEAN] = pool_mean,
        [APR_POOL_CLS] = pool_first,         [APR_POOL_LAST] = pool_last,
        [APR_POOL_MAX] = pool_max,           [APR_POOL_MEAN_SQRT] = pool_mean_sqrt,
        [APR_POOL_WEIGHTED] = pool_weighted,
    };
    fns[how](rows, n_rows, n_cols, v);
}

void apr_normalize(float *v, size_t n)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++) sum += (double)v[i] * (double)v[i];
    if (sum <= 0) return;
    for (size_t i = 0; i < n; i++) v[i] = (float)((double)v[i] / sqrt(sum));
}

double apr_cosine(const float *a, const float *b, size_t n)
{
    double ab = 0, aa = 0, bb = 0;
    for (size_t i = 0; i < n; i++) {
        ab += (double)a[i] * (double)b[i];
        aa += (double)a[i] * (double)a[i];
        bb += (double)b[i] * (double)b[i];
    }
    return aa > 0 && bb > 0 ? ab / sqrt(aa * bb) : 0;
}
