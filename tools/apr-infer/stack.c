/* Steps of encoder blocks. See stack.h. */
#include "stack.h"

#include <assert.h>
#include <math.h>
#include <string.h>

#include "ckd.h"

#define ROWS_ALONE 4u /* up to so many rows are not worth a parallel region */
#define ROWS_CHUNK 4u
#define TILE_ROWS  32u /* queries that share a pass over the keys */
#define FLOATS_ACT 4096u

/* ---- rows --------------------------------------------------------------------------------------------- */

struct row_job {
    const struct apr_stack *s;
    void (*fn)(const struct row_job *j, size_t i_row);
    const struct apr_lnorm *norm;
    const float *in;
    float *out;
    const float *add;
    size_t n;
    const struct apr_acts *acts;
    unsigned wants;
};

static void row_task(void *ctx, size_t i_begin, size_t i_end, unsigned i_thread)
{
    const struct row_job *j = ctx;
    (void)i_thread;
    for (size_t i = i_begin; i < i_end; i++) j->fn(j, i);
}

static void for_rows(struct row_job *j, size_t n_rows)
{
    if (n_rows <= ROWS_ALONE)
        row_task(j, 0, n_rows, 0);
    else
        apr_parallel_for(j->s->c.pool, n_rows, ROWS_CHUNK, row_task, j);
}

static void norm_row(const struct row_job *j, size_t i_row)
{
    j->s->c.kern->layernorm(j->in + i_row * j->n, j->norm->w, j->norm->b, j->s->d.eps, j->out + i_row * j->n,
                            j->n);
}

static void pack_row(const struct row_job *j, size_t i_row)
{
    apr_acts_pack(&j->s->c, j->acts, j->wants, i_row);
}

static void bias_row(const struct row_job *j, size_t i_row)
{
    j->s->c.kern->add(j->out + i_row * j->n, j->add, j->n);
}

static void residual_row(const struct row_job *j, size_t i_row)
{
    j->s->c.kern->add(j->out + i_row * j->n, j->in + i_row * j->n, j->n);
}

void apr_stack_layernorm(const struct apr_stack *s, const struct apr_lnorm *w, const float *x, float *y,
                         size_t n_rows)
{
    struct row_job j = {.s = s, .fn = norm_row, .norm = w, .in = x, .out = y, .n = s->d.n_hidden};
    for_rows(&j, n_rows);
}

void apr_stack_norm(struct apr_stack *s, const struct apr_lnorm *w, size_t n_rows)
{
    apr_stack_layernorm(s, w, s->x, s->h.f32, n_rows);
}

void apr_stack_keep(struct apr_stack *s, size_t n_rows)
{
    memcpy(s->x, s->h.f32, n_rows * s->d.n_hidden * sizeof *s->x);
}

/* ---- matrices ----------------------------------------------------------------------------------------- */

static void products(struct apr_stack *s, struct apr_acts *acts, const struct apr_product *p, size_t n,
                     size_t n_rows)
{
    struct row_job j = {.s = s, .fn = pack_row, .acts = acts};
    for (size_t i = 0; i < n; i++) j.wants |= apr_mat_wants(p[i].w, s->c.exact);
    acts->n_toks = n_rows;
    if (j.wants & ~(1u << APR_ACT_F32)) for_rows(&j, n_rows);
    apr_linear(&s->c, acts, p, n);
    for (size_t i = 0; i < n; i++) {
        if (!p[i].w->bias) continue;
        struct row_job b = {.s = s, .fn = bias_row, .out = p[i].y, .add = p[i].w->bias, .n = p[i].w->n_rows};
        for_rows(&b, n_rows);
    }
}

void apr_stack_linear(struct apr_stack *s, const struct apr_mat *w, struct apr_acts *acts, float *y,
                      size_t n_rows)
{
    products(s, acts, &(struct apr_product){w, y}, 1, n_rows);
}

void apr_stack_qkv(struct apr_stack *s, const struct apr_attn_mats *w, size_t n_rows)
{
    const struct apr_product p[] = {{&w->q, s->q}, {&w->k, s->k}, {&w->v, s->v}};
    products(s, &s->h, p, 3, n_rows);
}

void apr_stack_add(struct apr_stack *s, const struct apr_mat *w, struct apr_acts *acts, size_t n_rows)
{
    struct row_job j = {.s = s, .fn = residual_row, .in = s->y, .out = s->x, .n = s->d.n_hidden};
    apr_stack_linear(s, w, acts, s->y, n_rows);
    for_rows(&j, n_rows);
}

struct act_job {
    const struct apr_stack *s;
    float *x;
};

static void activation_task(void *ctx, size_t i_begin, size_t i_end, unsigned i_thread)
{
    const struct act_job *j = ctx;
    const struct apr_kern *k = j->s->c.kern;
    void (*const fns[])(const float *x, float *y, size_t n) = {
        [APR_SILU] = k->silu, [APR_GELU] = k->gelu, [APR_GELU_TANH] = k->gelu_tanh, [APR_RELU] = k->relu};
    (void)i_thread;
    fns[j->s->d.activation](j->x + i_begin, j->x + i_begin, i_end - i_begin);
}

void apr_stack_activate(const struct apr_stack *s, float *x, size_t n)
{
    struct act_job j = {.s = s, .x = x};
    apr_parallel_for(s->c.pool, n, FLOATS_ACT, activation_task, &j);
}

void apr_stack_ffn(struct apr_stack *s, const struct apr_block *b, size_t n_rows)
{
    apr_stack_linear(s, &b->up, &s->h, s->ffn.f32, n_rows);
    apr_stack_activate(s, s->ffn.f32, n_rows * s->d.n_inter);
    apr_stack_add(s, &b->down, &s->ffn, n_rows);
}

/* ---- attention ---------------------------------------------------------------------------------------- */

struct attn_job {
    struct apr_stack *s;
    const struct apr_span *spans;
    size_t n_spans;
};

static size_t tile_rows(const struct apr_span *sp)
{
    return sp->is_causal ? 1 : TILE_ROWS;
}

static size_t n_tiles(const struct apr_span *sp)
{
    return (sp->n_rows + tile_rows(sp) - 1) / tile_rows(sp);
}

/* n query rows from row on, one head, the first n_pos positions. q: [n, d] gathered. */
static void tile(const struct attn_job *j, const struct apr_span *sp, size_t row, size_t n, size_t i_head,
                 size_t n_pos, float *room)
{
    const struct apr_stack *s = j->s;
    const struct apr_kern *kern = s->c.kern;
    size_t n_hidden = s->d.n_hidden, d = n_hidden / s->d.n_heads, off = i_head * d;
    size_t stride = (n_pos + 15) / 16 * 16;
    float *q = room, *out = q + TILE_ROWS * d, *scores = out + TILE_ROWS * d;
    float scale = 1.0f / sqrtf((float)d);
    for (size_t i = 0; i < n; i++) memcpy(q + i * d, s->q + (row + i) * n_hidden + off, d * sizeof *q);
    memset(out, 0, n * d * sizeof *out);
    if (sp->is_f32) {
        kern->attn_scores_f32(q, n, (const float *)sp->k + off, n_hidden, n_pos, d, scale, scores, stride);
        for (size_t i = 0; i < n; i++) kern->softmax(scores + i * stride, n_pos);
        kern->attn_values_f32(scores, stride, n, (const float *)sp->v + off, n_hidden, n_pos, d, out);
    } else {
        kern->attn_scores_f16(q, n, (const uint16_t *)sp->k + off, n_hidden, n_pos, d, scale, scores, stride);
        for (size_t i = 0; i < n; i++) kern->softmax(scores + i * stride, n_pos);
        kern->attn_values_f16(scores, stride, n, (const uint16_t *)sp->v + off, n_hidden, n_pos, d, out);
    }
    for (size_t i = 0; i < n; i++)
        memcpy(s->att.f32 + (row + i) * n_hidden + off, out + i * d, d * sizeof *out);
}

static void attend_task(void *ctx, size_t i_begin, size_t i_end, unsigned i_thread)
{
    const struct attn_job *j = ctx;
    const struct apr_stack *s = j->s;
    float *room = s->room + i_thread * s->n_room;
    size_t i_span = 0;
    for (size_t i = i_begin; i < i_end; i++) {
        size_t i_tile = i / s->d.n_heads;
        while (i_span + 1 < j->n_spans && i_tile >= j->spans[i_span + 1].i_first) i_span++;
        const struct apr_span *sp = &j->spans[i_span];
        size_t first = (i_tile - sp->i_first) * tile_rows(sp), n = sp->n_rows - first;
        if (n > tile_rows(sp)) n = tile_rows(sp);
        size_t n_pos = sp->is_causal ? sp->n_pos - sp->n_rows + first + 1 : sp->n_pos;
        tile(j, sp, sp->row0 + first, n, i % s->d.n_heads, n_pos, room);
    }
}

void apr_stack_attend(struct apr_stack *s, struct apr_span *spans, size_t n_spans)
{
    struct attn_job j = {.s = s, .spans = spans, .n_spans = n_spans};
    size_t n = 0;
    for (size_t i = 0; i < n_spans; i++) {
        assert(spans[i].n_pos <= s->n_pos_most && spans[i].row0 + spans[i].n_rows <= s->n_rows_most);
        spans[i].i_first = n;
        n += n_tiles(&spans[i]);
    }
    apr_parallel_for(s->c.pool, n * s->d.n_heads, 1, attend_task, &j);
}

/* ---- room --------------------------------------------------------------------------------------------- */

static enum apr_code floats(struct apr_stack *s, float **p, size_t n_cols, struct apr_err *e)
{
    return apr_arena_try(&s->arena, p, s->n_rows_most, n_cols * sizeof **p, "activations", e);
}

static enum apr_code acts(struct apr_stack *s, struct apr_acts *a, size_t n_cols, struct apr_err *e)
{
    a->n_cols = n_cols;
    TRY(floats(s, &a->f32, n_cols, e));
    if (s->c.exact) return APR_OK;
    TRY(apr_arena_try(&s->arena, &a->split, s->n_rows_most, 2 * n_cols * sizeof *a->split, "activations", e));
    TRY(apr_arena_try(&s->arena, &a->q32, s->n_rows_most, n_cols / 32 * sizeof *a->q32, "activations", e));
    return apr_arena_try(&s->arena, &a->q256, s->n_rows_most, n_cols / 256 * sizeof *a->q256, "activations",
                         e);
}

static enum apr_code scratch(struct apr_stack *s, struct apr_err *e)
{
    const struct apr_stack_dims *d = &s->d;
    unsigned n_threads = apr_pool_threads(s->c.pool);
    size_t n_cols = d->n_hidden > d->n_inter ? d->n_hidden : d->n_inter, n_scores;
    if (d->n_in_most > n_cols) n_cols = d->n_in_most;
    s->c.scratch_bytes = (apr_kern_scratch_bytes(n_cols) + 63) / 64 * 64;
    TRY(apr_arena_try(&s->arena, &s->c.scratch, s->c.scratch_bytes, n_threads, "kernel scratch", e));
    if (ckd_mul(&n_scores, (s->n_pos_most + 15) / 16 * 16, (size_t)TILE_ROWS) ||
        ckd_add(&s->n_room, n_scores, 2 * TILE_ROWS * (d->n_hidden / d->n_heads) + 15))
        return apr_fail(e, APR_ELOAD, "attention over %zu positions is too large", s->n_pos_most);
    s->n_room -= s->n_room % 16;
    return apr_arena_try(&s->arena, &s->room, n_threads, s->n_room * sizeof *s->room, "attention scores", e);
}

enum apr_code apr_stack_open(struct apr_stack *s, const struct apr_stack_dims *d, const struct apr_kern *kern,
                             struct apr_pool *pool, bool exact, size_t n_rows_most, size_t n_pos_most,
                             struct apr_err *e)
{
    *s = (struct apr_stack){.d = *d,
                            .c = {.kern = kern, .pool = pool, .exact = exact},
                            .n_rows_most = n_rows_most,
                            .n_pos_most = n_pos_most};
    apr_arena_init(&s->arena);
    TRY(floats(s, &s->x, d->n_hidden, e));
    TRY(floats(s, &s->y, d->n_hidden, e));
    TRY(floats(s, &s->q, d->n_hidden, e));
    TRY(floats(s, &s->k, d->n_hidden, e));
    TRY(floats(s, &s->v, d->n_hidden, e));
    TRY(acts(s, &s->h, d->n_hidden, e));
    TRY(acts(s, &s->att, d->n_hidden, e));
    TRY(acts(s, &s->ffn, d->n_inter, e));
    return scratch(s, e);
}

void apr_stack_close(struct apr_stack *s)
{
    apr_arena_free(&s->arena);
}

size_t apr_stack_bad_row(const float *x, size_t n_rows, size_t n_cols)
{
    for (size_t r = 0; r < n_rows; r++)
        for (size_t i = 0; i < n_cols; i++)
            if (!isfinite(x[r * n_cols + i])) return r;
    return n_rows;
}
