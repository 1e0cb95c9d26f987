/* Texts to vectors. See embedder.h. */
#include "embedder.h"

#include <string.h>

#include "prompt.h"

/* ---- opening ------------------------------------------------------------------------------------------ */

static enum apr_code choose_pooling(struct apr_embedder *x, const struct apr_embed_opts *o, struct apr_err *e)
{
    const struct apr_model *m = x->s->model;
    const bool is_encoder = x->s->kind == APR_RUNS_ENCODER;
    const char *unknown = apr_sentence_unknown(m);
    x->pooling = m->config.pooling;
    x->normalize = m->config.normalize;
    if (o->pooling) {
        x->pooling = apr_pooling_named(o->pooling);
        if (x->pooling == APR_POOL_NONE)
            return apr_fail(
                e, APR_EUSAGE,
                "--pooling: found \"%.40s\", expected mean, cls, last, max, mean-sqrt or weighted",
                o->pooling);
    } else if (unknown) {
        return apr_fail(e, APR_ELOAD,
                        "%s: modules.json: a module \"%.64s\" that is not supported; --pooling leaves it out",
                        m->path, unknown);
    } else if (x->pooling == APR_POOL_NONE) {
        x->pooling = is_encoder ? APR_POOL_MEAN : APR_POOL_LAST;
        apr_note("%s says nothing about pooling: taking the %s", m->name, is_encoder ? "mean" : "last token");
    }
    if (o->normalize || o->no_normalize) x->normalize = o->normalize;
    return APR_OK;
}

static enum apr_code choose_prompt(struct apr_embedder *x, const struct apr_embed_opts *o,
                                   const struct apr_tok *tok, struct apr_err *e)
{
    const struct apr_model *m = x->s->model;
    const char *prompt = o->prompt ? o->prompt : apr_sentence_prompt(m, o->prompt_name);
    struct apr_ids ids = {0};
    apr_buf_init(&x->text, APR_MAX_PROMPT_BYTES);
    if (o->prompt_name && !prompt)
        return apr_fail(e, APR_EUSAGE, "--prompt-name: %s has no prompt \"%.64s\"", m->name, o->prompt_name);
    if (prompt) TRY(apr_buf_append(&x->text, prompt, strlen(prompt), e));
    x->n_prompt_bytes = x->text.n_bytes;
    if (!x->n_prompt_bytes || apr_sentence_pools_prompt(m)) return APR_OK;
    enum apr_code code = apr_tok_encode(tok, prompt, x->n_prompt_bytes, APR_TOK_ADD_SPECIAL, &ids, e);
    if (code == APR_OK)
        x->n_skip = ids.n ? ids.n - 1 : 0; /* all but the end token, as the reference has it */
    apr_ids_free(&ids);
    return code;
}

/* Room for one batch of hidden states. A generator of text runs its texts one after the other. */
static enum apr_code open_model(struct apr_embedder *x, const struct apr_embed_opts *o, struct apr_err *e)
{
    const struct apr_session *s = x->s;
    if (s->kind == APR_RUNS_ENCODER) {
        TRY(apr_encoder_open(&x->encoder, &s->checked, s->kern, s->pool, o->exact, x->n_batch, e));
        x->n_max = x->encoder.n_max;
        return APR_OK;
    }
    x->n_max = s->n_ctx;
    return APR_OK;
}

static enum apr_code open_parts(struct apr_embedder *x, const struct apr_embed_opts *o, struct apr_err *e)
{
    const struct apr_session *s = x->s;
    const struct apr_config *c = &s->model->config;
    const struct apr_tok *tok;
    TRY(apr_session_tok(s, &tok, e));
    TRY(choose_pooling(x, o, e));
    TRY(choose_prompt(x, o, tok, e));
    TRY(apr_tok_encode(tok, "", 0, APR_TOK_ADD_SPECIAL, &x->ends, e));
    TRY(open_model(x, o, e));
    if (c->n_max_embed && c->n_max_embed < x->n_max) x->n_max = c->n_max_embed;
    if (x->n_max <= x->ends.n)
        return apr_fail(e, APR_ELOAD, "%s: %zu tokens a text leave no room for a text", s->model->path,
                        x->n_max);
    if (s->kind == APR_RUNS_ENCODER && x->n_batch < x->n_max) x->n_batch = x->n_max;
    TRY(apr_arena_try(&x->arena, &x->seqs, x->n_batch, sizeof *x->seqs, "texts", e));
    TRY(apr_arena_try(&x->arena, &x->rows, x->n_batch, sizeof *x->rows, "texts", e));
    return apr_arena_try(&x->arena, &x->vector, x->n_dims, sizeof *x->vector, "a vector", e);
}

enum apr_code apr_embedder_open(struct apr_embedder *x, struct apr_session *s, const struct apr_embed_opts *o,
                                struct apr_err *e)
{
    *x = (struct apr_embedder){.s = s, .n_dims = s->model->config.n_hidden, .n_batch = o->n_batch};
    apr_arena_init(&x->arena);
    apr_arena_init(&x->encoder.arena);
    apr_arena_init(&x->encoder.stack.arena);
    return open_parts(x, o, e);
}

void apr_embedder_close(struct apr_embedder *x)
{
    apr_encoder_close(&x->encoder);
    apr_ids_free(&x->ends);
    apr_ids_free(&x->ids);
    apr_buf_free(&x->text);
    apr_arena_free(&x->arena);
}

/* ---- texts -------------------------------------------------------------------------------------------- */

/* How many of the last ids are the tokenizer's own end: those that an empty text ends with as well. */
static size_t n_end(const struct apr_embedder *x, const int32_t *ids, size_t n)
{
    size_t k = 0;
    while (k < x->ends.n && k < n && x->ends.at[x->ends.n - 1 - k] == ids[n - 1 - k]) k++;
    /* "<s></s>": the beginning is no end, even if the two are one token */
    return k == x->ends.n && k > 1 ? k / 2 : k;
}

/* The text's tokens at the end of x->ids; too many are cut before the end tokens. */
static enum apr_code encode(struct apr_embedder *x, const char *text, size_t n_bytes,
                            struct apr_embed_seq *seq, struct apr_err *e)
{
    seq->i_first = x->ids.n;
    x->text.n_bytes = x->n_prompt_bytes;
    TRY(apr_buf_append(&x->text, text, n_bytes, e));
    TRY(apr_tok_encode(x->s->tok, (const char *)x->text.data, x->text.n_bytes, APR_TOK_ADD_SPECIAL, &x->ids,
                       e));
    seq->n = x->ids.n - seq->i_first;
    seq->is_cut = seq->n > x->n_max;
    if (seq->is_cut) {
        int32_t *ids = x->ids.at + seq->i_first;
        size_t n_tail = n_end(x, ids, seq->n);
        memmove(ids + x->n_max - n_tail, ids + seq->n - n_tail, n_tail * sizeof *ids);
        seq->n = x->n_max;
        x->ids.n = seq->i_first + seq->n;
    }
    if (seq->n) return APR_OK;
    return apr_fail(e, APR_EUSAGE, "text %zu has no tokens", x->n_texts);
}

/* rows: hidden states of text seq, [seq->n, n_dims] */
static enum apr_code hand_out(struct apr_embedder *x, const struct apr_embed_seq *seq, const float *rows,
                              size_t i_text, struct apr_err *e)
{
    size_t n_skip = x->n_skip < seq->n ? x->n_skip : seq->n - 1;
    apr_pool_rows(x->pooling, rows + n_skip * x->n_dims, seq->n - n_skip, x->n_dims, x->vector);
    if (x->normalize) apr_normalize(x->vector, x->n_dims);
    const struct apr_embedding v = {.i = i_text, .v = x->vector, .n_toks = seq->n, .is_cut = seq->is_cut};
    return x->take(x->ctx, &v, e);
}

static enum apr_code run_encoder(struct apr_embedder *x, size_t i_text, struct apr_err *e)
{
    for (size_t i = 0; i < x->n_seqs; i++)
        x->rows[i] = (struct apr_seq){.ids = x->ids.at + x->seqs[i].i_first, .n = x->seqs[i].n};
    TRY(apr_encoder_run(&x->encoder, x->rows, x->n_seqs, e));
    for (size_t i = 0; i < x->n_seqs; i++)
        TRY(hand_out(x, &x->seqs[i], x->encoder.hidden + x->rows[i].row0 * x->n_dims, i_text + i, e));
    return APR_OK;
}

/* One text through the decoder, chunk by chunk; hidden: [seq->n, n_dims]. */
static enum apr_code run_decoder(struct apr_embedder *x, const struct apr_embed_seq *seq, float *hidden,
                                 struct apr_err *e)
{
    struct apr_forward *f = &x->s->fwd;
    apr_cache_truncate(&x->s->cache, 0);
    for (size_t i = 0; i < seq->n; i += f->n_toks) {
        const size_t n = seq->n - i < f->n_batch ? seq->n - i : f->n_batch;
        TRY(apr_forward_chunk(f, &x->s->cache, x->ids.at + seq->i_first + i, n, e));
        apr_forward_hidden(f, 0, n, hidden + i * x->n_dims);
    }
    size_t bad = apr_stack_bad_row(hidden, seq->n, x->n_dims);
    if (bad < seq->n)
        return apr_fail(e, APR_EINFER, "the hidden state of token %zu contains NaN or Inf", bad);
    return APR_OK;
}

static enum apr_code run_decoders(struct apr_embedder *x, size_t i_text, struct apr_err *e)
{
    for (size_t i = 0; i < x->n_seqs; i++) {
        struct apr_arena own;
        float *hidden;
        apr_arena_init(&own);
        enum apr_code code =
            apr_arena_try(&own, &hidden, x->seqs[i].n, x->n_dims * sizeof *hidden, "hidden states", e);
        if (code == APR_OK) code = run_decoder(x, &x->seqs[i], hidden, e);
        if (code == APR_OK) code = hand_out(x, &x->seqs[i], hidden, i_text + i, e);
        apr_arena_free(&own);
        TRY(code);
    }
    return APR_OK;
}

enum apr_code apr_embedder_flush(struct apr_embedder *x, struct apr_err *e)
{
    const size_t i_text = x->n_texts - x->n_seqs;
    if (!x->n_seqs) return APR_OK;
    TRY(x->s->kind == APR_RUNS_ENCODER ? run_encoder(x, i_text, e) : run_decoders(x, i_text, e));
    x->n_seqs = 0;
    x->ids.n = 0;
    return APR_OK;
}

static enum apr_code collect(struct apr_embedder *x, struct apr_embed_seq seq, struct apr_err *e)
{
    if (x->n_seqs && (x->n_seqs == x->n_batch || seq.i_first + seq.n > x->n_batch)) {
        /* the batch is full without this text, which then begins the next one */
        x->ids.n = seq.i_first;
        TRY(apr_embedder_flush(x, e));
        memmove(x->ids.at, x->ids.at + seq.i_first, seq.n * sizeof *x->ids.at);
        x->ids.n = seq.n;
        seq.i_first = 0;
    }
    x->seqs[x->n_seqs++] = seq;
    x->n_texts++;
    return APR_OK;
}

enum apr_code apr_embedder_add(struct apr_embedder *x, const char *text, size_t n_bytes, struct apr_err *e)
{
    struct apr_embed_seq seq;
    TRY(encode(x, text, n_bytes, &seq, e));
    return collect(x, seq, e);
}

enum apr_code apr_embedder_add_ids(struct apr_embedder *x, const int64_t *ids, size_t n, struct apr_err *e)
{
    const struct apr_embed_seq seq = {.i_first = x->ids.n, .n = n};
    if (n == 0 || n > x->n_max) return apr_fail(e, APR_EUSAGE, "%zu tokens, expected 1 to %zu", n, x->n_max);
    for (size_t i = 0; i < n; i++) TRY(apr_ids_push(&x->ids, (int32_t)ids[i], e));
    return collect(x, seq, e);
}
