/* A step of the forward pass: which tokens of which sequences are its rows. See forward.h. */
#include <assert.h>
#include <inttypes.h>
#include <string.h>

#include "blocks.h"

static enum apr_code check_part(const struct apr_forward *f, const struct apr_part *p, struct apr_err *e)
{
    const struct apr_config *cfg = f->w.cfg;
    for (size_t i = 0; i < p->n; i++)
        if (p->ids[i] < 0 || (uint32_t)p->ids[i] >= cfg->n_vocab)
            return apr_fail(e, APR_EUSAGE, "token %zu has id %" PRId32 ", the embedding has %" PRIu32 " rows",
                            p->cache->n_pos + i, p->ids[i], cfg->n_vocab);
    if (cfg->n_positions && p->cache->n_pos + p->n > cfg->n_positions)
        return apr_fail(e, APR_EUSAGE, "%zu tokens, the model has rows for %" PRIu32 " positions",
                        p->cache->n_pos + p->n, cfg->n_positions);
    return APR_OK;
}

static size_t n_tokens(const struct apr_part *parts, size_t n_parts)
{
    size_t n = 0;
    for (size_t i = 0; i < n_parts; i++) {
        assert(parts[i].n > 0);
        for (size_t k = 0; k < i; k++) assert(parts[k].cache != parts[i].cache);
        n += parts[i].n;
    }
    return n;
}

/* Rows and spans of the parts, whose tokens are remembered by their caches. */
static void set_rows(struct apr_forward *f, const struct apr_part *parts, size_t n_parts)
{
    struct apr_row *r = f->rows;
    for (size_t i = 0; i < n_parts; i++) {
        const struct apr_part *p = &parts[i];
        f->spans[i] = (struct apr_attn_span){
            .cache = p->cache, .row0 = (size_t)(r - f->rows), .pos0 = p->cache->n_pos, .n_toks = p->n};
        for (size_t t = 0; t < p->n; t++)
            *r++ = (struct apr_row){p->cache, p->cache->n_pos + t, p->ids[t], APR_NO_LOGITS};
        memmove(p->cache->ids + p->cache->n_pos, p->ids, p->n * sizeof *p->ids);
    }
    f->n_spans = n_parts;
    f->n_toks = (size_t)(r - f->rows);
    f->pos0 = f->rows[0].pos;
}

/* ---- on a device ----------------------------------------------------------------------------------------
 */

static enum apr_code reserve_logits(struct apr_forward *f, size_t n_rows, struct apr_err *e)
{
    if (n_rows <= f->n_device_rows) return APR_OK;
    if (n_rows < 2 * f->n_device_rows) n_rows = 2 * f->n_device_rows;
    TRY(apr_arena_try(&f->arena, &f->device_logits, n_rows, f->w.cfg->n_vocab * sizeof *f->device_logits,
                      "logits", e));
    f->n_device_rows = n_rows;
    return APR_OK;
}

static size_t n_kept_rows(const struct apr_part *p)
{
    return p->n <= APR_DEVICE_ROWS ? p->n : 1;
}

/* All parts at once; then the rows that are kept, neighbours together. */
static enum apr_code step_on_device(struct apr_forward *f, const struct apr_part *parts, size_t n_parts,
                                    struct apr_err *e)
{
    size_t n_logits = 0, n_run = 0, end = 0;
    for (size_t i = 0; i < n_parts; i++) n_logits += n_kept_rows(&parts[i]);
    TRY(reserve_logits(f, n_logits, e));
    set_rows(f, parts, n_parts);
    TRY(apr_offload_step(f->offload, parts, n_parts, e));
    n_logits = 0;
    for (size_t i = 0; i < n_parts; i++) {
        size_t n_rows = n_kept_rows(&parts[i]);
        bool is_last = i + 1 == n_parts || n_kept_rows(&parts[i + 1]) < parts[i + 1].n;
        end += parts[i].n;
        n_run += n_rows;
        for (size_t k = n_rows; k > 0; k--) f->rows[end - k].i_logits = (uint32_t)n_logits++;
        if (!is_last) continue;
        TRY(apr_offload_logits(f->offload, end - n_run, n_run,
                               f->device_logits + (n_logits - n_run) * f->w.cfg->n_vocab, e));
        n_run = 0;
    }
    return APR_OK;
}

/* A prompt of any length; the row of its last token remains. */
static enum apr_code prompt_on_device(struct apr_forward *f, const struct apr_part *p, struct apr_err *e)
{
    TRY(check_part(f, p, e));
    TRY(reserve_logits(f, 1, e));
    f->pos0 = p->cache->n_pos + p->n - 1;
    f->rows[0] = (struct apr_row){p->cache, f->pos0, p->ids[p->n - 1], 0};
    f->n_toks = 1;
    memmove(p->cache->ids + p->cache->n_pos, p->ids, p->n * sizeof *p->ids);
    return apr_offload_run(f->offload, p->cache, p->ids, p->n, 1, f->device_logits, e);
}

/* ---- here -----------------------------------------------------------------------------------------------
 */

/* Caches hold their rotation, and nothing that has to be computed first. */
static enum apr_code run_parts(struct apr_forward *f, const struct apr_part *parts, size_t n_parts,
                               struct apr_err *e)
{
    size_t n_pos_most = 0, i_tok = 0;
    for (size_t i = 0; i < n_parts; i++) {
        size_t n_pos = parts[i].cache->n_pos + parts[i].n;
        TRY(apr_cache_reserve(parts[i].cache, n_pos, e));
        if (n_pos > n_pos_most) n_pos_most = n_pos;
    }
    TRY(apr_attention_room(&f->attn, &f->c, &f->shape, n_pos_most, e));
    set_rows(f, parts, n_parts);
    f->h.n_toks = f->att.n_toks = f->ffn.n_toks = f->n_toks;
    for (size_t i = 0; i < n_parts; i_tok += parts[i++].n) {
        size_t n_pos = parts[i].cache->n_pos, n_seq = n_pos + parts[i].n + parts[i].n_later;
        if (n_seq > parts[i].cache->n_seq) parts[i].cache->n_seq = n_seq;
        apr_rope_at(&f->rope, i_tok, n_pos, parts[i].n, n_seq);
        apr_rope_at(&f->rope_local, i_tok, n_pos, parts[i].n, n_seq);
    }
    apr_forward_layers(f);
    for (size_t i = 0; i < n_parts; i++) parts[i].cache->n_pos += parts[i].n;
    return APR_OK;
}

/* Computes what the cache has lost. Longrope has one rotation for short sequences and one for long ones:
 * where the sequence changes sides, what is in the cache is computed again, as transformers does. */
static enum apr_code restore(struct apr_forward *f, const struct apr_part *part, struct apr_err *e)
{
    struct apr_cache *c = part->cache;
    size_t n_again = c->n_pos, n_seq = n_again + part->n + part->n_later;
    bool is_long = apr_rope_is_long(&f->rope, n_seq);
    enum apr_code code = APR_OK;
    if (is_long == c->is_long && !c->is_lost) return APR_OK;
    apr_cache_lose(c);
    c->is_long = is_long;
    c->is_lost = false;
    for (c->n_pos = 0; c->n_pos < n_again && code == APR_OK;) {
        size_t n = n_again - c->n_pos;
        if (n > f->n_batch) n = f->n_batch;
        const struct apr_part again = {
            .cache = c, .ids = c->ids + c->n_pos, .n = n, .n_later = n_seq - c->n_pos - n};
        code = run_parts(f, &again, 1, e);
    }
    if (code == APR_OK) return APR_OK;
    c->n_pos = n_again;
    apr_cache_lose(c);
    return code;
}

enum apr_code apr_forward_step(struct apr_forward *f, const struct apr_part *parts, size_t n_parts,
                               struct apr_err *e)
{
    size_t n = n_tokens(parts, n_parts);
    assert(n > 0 && n <= f->n_batch);
    for (size_t i = 0; i < n_parts; i++) TRY(check_part(f, &parts[i], e));
    if (f->offload) return step_on_device(f, parts, n_parts, e);
    for (size_t i = 0; i < n_parts; i++) TRY(restore(f, &parts[i], e));
    return run_parts(f, parts, n_parts, e);
}

enum apr_code apr_forward_chunk(struct apr_forward *f, struct apr_cache *cache, const int32_t *ids, size_t n,
                                struct apr_err *e)
{
    return apr_forward_step(f, &(struct apr_part){.cache = cache, .ids = ids, .n = n}, 1, e);
}

enum apr_code apr_forward_prompt(struct apr_forward *f, struct apr_cache *cache, const int32_t *ids, size_t n,
                                 struct apr_err *e)
{
    struct apr_part p = {.cache = cache, .ids = ids, .n = n};
    if (f->offload) return prompt_on_device(f, &p, e);
    for (size_t i = 0; i < n; i += p.n) {
        p.ids = ids + i;
        p.n = n - i < f->n_batch ? n - i : f->n_batch;
        p.n_later = n - i - p.n;
        TRY(apr_forward_step(f, &p, 1, e));
    }
    return APR_OK;
}
