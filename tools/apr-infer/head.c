/* The head: logits of rows of the last step. See forward.h. */
#include <string.h>

#include "blocks.h"

#define LOGITS_ROWS 32u /* rows of the head that all_logits holds */

/* Exponent all ones. Integer arithmetic, so that the loop vectorises. */
static bool all_finite(const float *x, size_t n)
{
    uint32_t bad = 0;
    for (size_t i = 0; i < n; i++) {
        uint32_t bits;
        memcpy(&bits, &x[i], sizeof bits);
        bad |= (bits & 0x7f800000u) == 0x7f800000u;
    }
    return !bad;
}

/* Bias, scale and cap of some logits of one token, and whether they are numbers, while they are in the cache
 * of the thread that computed them. */
static void finish_rows(void *ctx, size_t i_tok, size_t row0, float *y, size_t n)
{
    const struct apr_forward *f = ctx;
    const struct apr_config *cfg = f->w.cfg;
    if (f->w.head.bias) f->c.kern->add(y, f->w.head.bias + row0, n);
    if (cfg->logit_scale > 0) f->c.kern->scale(y, (float)cfg->logit_scale, n);
    if (cfg->logit_softcap > 0) f->c.kern->softcap(y, (float)cfg->logit_softcap, n);
    if (!all_finite(y, n)) atomic_store_explicit(&f->is_bad[i_tok], true, memory_order_relaxed);
}

/* Rows i_toks[0 ..], or i_tok .. where i_toks is NULL. */
struct rows {
    const size_t *i_toks;
    size_t i_tok, n;
};

static size_t row_at(const struct rows *r, size_t i)
{
    return r->i_toks ? r->i_toks[i] : r->i_tok + i;
}

static void compute_logits(struct apr_forward *f, const struct rows *r, float *logits)
{
    const struct apr_config *cfg = f->w.cfg;
    struct apr_acts h = f->h; /* these rows only */
    h.n_toks = r->n;
    unsigned wants = apr_mat_wants(&f->w.head, f->c.exact);
    for (size_t i = 0; i < r->n; i++) {
        atomic_store_explicit(&f->is_bad[i], false, memory_order_relaxed);
        apr_norm_row(f, &f->w.final_norm, f->x + row_at(r, i) * cfg->n_hidden, h.f32 + i * cfg->n_hidden);
        apr_acts_pack(&f->c, &h, wants, i);
    }
    apr_forward_mark(f, APR_OP_FINAL_NORM, cfg->n_layers);
    struct apr_map head = {.w = &f->w.head, .x = &h, .y = logits, .then = finish_rows, .then_ctx = f};
    apr_expect_layer(f, 0);
    apr_linear_each(&f->c, &head, 1);
    apr_forward_mark(f, APR_OP_HEAD, cfg->n_layers);
}

enum apr_code apr_forward_check(const struct apr_forward *f, size_t i_tok, size_t i_row, const float *logits,
                                struct apr_err *e)
{
    if (f->offload ? all_finite(logits, f->w.cfg->n_vocab) : !f->is_bad[i_row]) return APR_OK;
    return apr_fail(e, APR_EINFER, "the logits after token %zu contain NaN or Inf", f->rows[i_tok].pos);
}

void apr_forward_hidden(const struct apr_forward *f, size_t i_tok, size_t n_rows, float *hidden)
{
    const size_t n = f->w.cfg->n_hidden;
    for (size_t i = 0; i < n_rows; i++)
        apr_norm_row(f, &f->w.final_norm, f->x + (i_tok + i) * n, hidden + i * n);
}

const float *apr_forward_kept(const struct apr_forward *f, size_t i_tok)
{
    const uint32_t at = f->offload ? f->rows[i_tok].i_logits : APR_NO_LOGITS;
    return at == APR_NO_LOGITS ? NULL : f->device_logits + (size_t)at * f->w.cfg->n_vocab;
}

/* What the device left of the step; rows that were not fetched with it are asked for. */
static enum apr_code copy_logits(const struct apr_forward *f, const struct rows *r, float *logits,
                                 struct apr_err *e)
{
    size_t n = f->w.cfg->n_vocab;
    if (!r->i_toks && f->rows[r->i_tok].i_logits == APR_NO_LOGITS)
        return apr_offload_logits(f->offload, r->i_tok, r->n, logits, e);
    for (size_t i = 0; i < r->n; i++) {
        size_t i_tok = row_at(r, i);
        uint32_t at = f->rows[i_tok].i_logits;
        if (at == APR_NO_LOGITS) {
            TRY(apr_offload_logits(f->offload, i_tok, 1, logits + i * n, e));
            continue;
        }
        memcpy(logits + i * n, f->device_logits + at * n, n * sizeof *logits);
    }
    return APR_OK;
}

static enum apr_code take_logits(struct apr_forward *f, const struct rows *r, float *logits,
                                 struct apr_err *e)
{
    if (f->offload) return copy_logits(f, r, logits, e);
    compute_logits(f, r, logits);
    return APR_OK;
}

enum apr_code apr_forward_logits(struct apr_forward *f, size_t i_tok, size_t n_rows, float *logits,
                                 struct apr_err *e)
{
    TRY(take_logits(f, &(struct rows){.i_tok = i_tok, .n = n_rows}, logits, e));
    for (size_t i = 0; i < n_rows; i++)
        TRY(apr_forward_check(f, i_tok + i, i, logits + i * f->w.cfg->n_vocab, e));
    return APR_OK;
}

enum apr_code apr_forward_logits_of(struct apr_forward *f, const size_t *i_toks, size_t n_rows, float *logits,
                                    struct apr_err *e)
{
    return take_logits(f, &(struct rows){.i_toks = i_toks, .n = n_rows}, logits, e);
}

enum apr_code apr_forward_rows(struct apr_forward *f, struct apr_cache *cache, const int32_t *ids, size_t n,
                               float *logits, struct apr_err *e)
{
    size_t n_most = f->offload ? APR_DEVICE_ROWS : n;
    for (size_t i = 0; i < n; i += n_most) {
        size_t n_step = n - i < n_most ? n - i : n_most;
        TRY(apr_forward_chunk(f, cache, ids + i, n_step, e));
        TRY(apr_forward_logits(f, 0, n_step, logits + i * f->w.cfg->n_vocab, e));
    }
    return APR_OK;
}

/* Runs n tokens, n_most at a time, and hands out all rows. */
static enum apr_code steps(struct apr_forward *f, struct apr_cache *cache, const int32_t *ids, size_t n,
                           size_t n_rows_most, float *logits, apr_take_rows_fn *take, void *ctx,
                           struct apr_err *e)
{
    size_t n_most = f->offload && n_rows_most > APR_DEVICE_ROWS ? APR_DEVICE_ROWS : f->n_batch;
    for (size_t i = 0; i < n; i += f->n_toks) {
        size_t n_step = n - i < n_most ? n - i : n_most;
        const struct apr_part part = {.cache = cache, .ids = ids + i, .n = n_step, .n_later = n - i - n_step};
        TRY(apr_forward_step(f, &part, 1, e));
        for (size_t r = 0; r < f->n_toks; r += n_rows_most) {
            size_t n_rows = f->n_toks - r < n_rows_most ? f->n_toks - r : n_rows_most;
            TRY(apr_forward_logits(f, r, n_rows, logits, e));
            TRY(take(ctx, i + r, n_rows, logits, e));
        }
    }
    return APR_OK;
}

enum apr_code apr_forward_all_logits(struct apr_forward *f, struct apr_cache *cache, const int32_t *ids,
                                     size_t n, apr_take_rows_fn *take, void *ctx, struct apr_err *e)
{
    float *logits = NULL;
    size_t n_rows_most = f->n_batch < LOGITS_ROWS ? f->n_batch : LOGITS_ROWS;
    struct apr_arena arena;
    apr_arena_init(&arena);
    enum apr_code code =
        apr_arena_try(&arena, &logits, n_rows_most, f->w.cfg->n_vocab * sizeof *logits, "logits", e);
    if (code == APR_OK) code = steps(f, cache, ids, n, n_rows_most, logits, take, ctx, e);
    apr_arena_free(&arena);
    return code;
}
