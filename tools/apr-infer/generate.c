/* The generation loop. */
#include "generate.h"

#include <string.h>

#define MAX_TEXT_BYTES (256u << 20)

void apr_gen_init(struct apr_gen *g, const struct apr_gen_opts *o)
{
    *g = (struct apr_gen){.opts = *o, .finish = "length"};
    apr_buf_init(&g->text, MAX_TEXT_BYTES);
}

void apr_gen_free(struct apr_gen *g)
{
    apr_ids_free(&g->ids);
    apr_buf_free(&g->text);
}

size_t apr_stop_scan(const struct apr_strs *stops, const char *held, size_t n_held, bool last, bool *stopped)
{
    size_t n_free = n_held, at_stop = n_held + 1;
    *stopped = false;
    for (size_t i = 0; stops && i < stops->n; i++) {
        size_t n_stop = strlen(stops->at[i]);
        if (!n_stop) continue;
        const char *found = memmem(held, n_held, stops->at[i], n_stop);
        if (found && (size_t)(found - held) < at_stop) at_stop = (size_t)(found - held);
        size_t n_most = n_stop - 1 < n_held ? n_stop - 1 : n_held;
        for (size_t n = n_most; n && !last; n--) /* an end of the text that could become the stop string */
            if (!memcmp(held + n_held - n, stops->at[i], n)) {
                if (n_held - n < n_free) n_free = n_held - n;
                break;
            }
    }
    if (at_stop > n_held) return n_free;
    *stopped = true;
    return at_stop;
}

#define N_AHEAD                                                                                              \
    8u /* tokens that a device chooses in one go: text still flows, and no token waits for the host */

/* What one run of the loop carries along. */
struct loop {
    struct apr_session *s;
    struct apr_gen *g;
    const struct apr_text_sink *to; /* or NULL */
    struct apr_utf8_gate gate;
    struct apr_buf piece, held;
    struct apr_cache other_cache; /* of the guide's sequence */
    float *logits, *other;        /* [n_vocab] */
    int32_t ahead[N_AHEAD];       /* chosen by the device; [i_ahead, n_ahead) are not yet taken */
    size_t i_ahead, n_ahead;
};

/* Takes the bytes of one more token (n 0 and last: the end) through the gate and the stop strings. */
static enum apr_code pass_text(struct loop *l, bool last, bool *stopped, struct apr_err *e)
{
    TRY(apr_utf8_pass(&l->gate, l->piece.data, l->piece.n_bytes, last, &l->held, e));
    l->piece.n_bytes = 0;
    if (!l->held.n_bytes) return APR_OK;
    const char *held = (const char *)l->held.data;
    size_t n = apr_stop_scan(l->g->opts.stops, held, l->held.n_bytes, last, stopped);
    if (n && l->to) TRY(l->to->write(l->to->ctx, held, n, e));
    TRY(apr_buf_append(&l->g->text, held, n, e));
    apr_buf_drop_front(&l->held, *stopped ? l->held.n_bytes : n);
    return APR_OK;
}

static bool is_end(const struct apr_session *s, int32_t id)
{
    const struct apr_generation *g = &s->model->generation;
    for (uint32_t i = 0; i < g->n_eos; i++)
        if (g->eos_ids[i] == id) return true;
    return false;
}

/* The logits of the last token into l->logits; with a guide both sequences have run. */
static enum apr_code next_logits(struct loop *l, const int32_t *ids, size_t n_ids, const int32_t *other,
                                 size_t n_other, struct apr_err *e)
{
    struct apr_session *s = l->s;
    TRY(apr_forward_prompt(&s->fwd, &s->cache, ids, n_ids, e));
    TRY(apr_forward_logits(&s->fwd, s->fwd.n_toks - 1, 1, l->logits, e));
    if (!l->g->opts.guide) return APR_OK;
    TRY(apr_forward_prompt(&s->fwd, &l->other_cache, other, n_other, e));
    TRY(apr_forward_logits(&s->fwd, s->fwd.n_toks - 1, 1, l->other, e));
    apr_sampler_guide(l->logits, l->other, l->g->opts.guide_scale, s->model->config.n_vocab);
    return APR_OK;
}

static bool is_full(const struct loop *l)
{
    size_t n_ctx = l->s->n_ctx;
    return l->s->cache.n_pos == n_ctx || (l->g->opts.guide && l->other_cache.n_pos == n_ctx);
}

/* Tokens that may still be chosen: the last one needs no position. */
static size_t n_left(const struct loop *l)
{
    size_t n_pos = l->s->cache.n_pos, n_max = l->g->opts.n_max - l->g->ids.n;
    if (l->g->opts.guide && l->other_cache.n_pos > n_pos) n_pos = l->other_cache.n_pos;
    return n_max < l->s->n_ctx - n_pos + 1 ? n_max : l->s->n_ctx - n_pos + 1;
}

/* A device can go on alone where the largest logit is the choice. */
static bool goes_alone(const struct loop *l, const struct apr_sampler *sampler)
{
    return l->s->fwd.offload && !l->s->fwd.c.exact && !l->g->opts.guide &&
           apr_sampler_is_plain_greedy(sampler);
}

static enum apr_code run_ahead(struct loop *l, int32_t id, struct apr_err *e)
{
    struct apr_session *s = l->s;
    size_t n = l->g->opts.n_max - l->g->ids.n, n_room = s->n_ctx - s->cache.n_pos, n_stop = 0;
    int32_t stop[APR_MAX_EOS];
    if (n > n_room) n = n_room;
    if (n > N_AHEAD) n = N_AHEAD;
    for (uint32_t i = 0; i < s->model->generation.n_eos && !l->g->opts.ignore_eos; i++)
        stop[n_stop++] = (int32_t)s->model->generation.eos_ids[i];
    l->i_ahead = 0;
    return apr_offload_greedy(s->fwd.offload, &s->cache, id, n, stop, n_stop, l->ahead, &l->n_ahead, e);
}

/* The next token: chosen ahead, or from the logits. */
static enum apr_code choose(struct loop *l, struct apr_sampler *sampler, int32_t *id, struct apr_err *e)
{
    if (l->i_ahead < l->n_ahead) return *id = l->ahead[l->i_ahead++], APR_OK;
    if (sampler->limit) sampler->limit->n_left = n_left(l);
    return apr_sampler_next(sampler, l->logits, id, e);
}

static enum apr_code decode_loop(struct loop *l, struct apr_sampler *sampler, int64_t ns_start,
                                 struct apr_err *e)
{
    struct apr_session *s = l->s;
    struct apr_gen *g = l->g;
    int64_t ns_first = 0;
    bool stopped = false; /* by a stop string */
    while (g->ids.n < g->opts.n_max) {
        int32_t id;
        TRY(choose(l, sampler, &id, e));
        TRY(apr_sampler_accept(sampler, id, e));
        TRY(apr_ids_push(&g->ids, id, e));
        if (!ns_first) ns_first = apr_now_ns();
        if (!g->opts.ignore_eos && is_end(s, id)) {
            g->finish = "stop";
            break;
        }
        if (s->tok) TRY(apr_tok_piece(s->tok, id, false, &l->piece, e));
        TRY(pass_text(l, false, &stopped, e));
        if (stopped || (sampler->limit && apr_matcher_is_over(sampler->limit->matcher))) {
            g->finish = "stop";
            break;
        }
        if (g->ids.n == g->opts.n_max) break;
        if (l->i_ahead < l->n_ahead) continue;
        if (is_full(l)) {
            apr_note("the context of %zu positions is full", s->n_ctx);
            break;
        }
        TRY(goes_alone(l, sampler) ? run_ahead(l, id, e) : next_logits(l, &id, 1, &id, 1, e));
    }
    apr_cache_truncate(&s->cache, s->cache.n_pos - (l->n_ahead - l->i_ahead));
    int64_t ns_end = apr_now_ns();
    if (ns_first) g->decode_s = (double)(ns_end - ns_first) * 1e-9;
    g->prompt_s = (double)((ns_first ? ns_first : ns_end) - ns_start) * 1e-9;
    if (!stopped) TRY(pass_text(l, true, &stopped, e));
    if (sampler->limit && !strcmp(g->finish, "length") && !apr_matcher_accepts(sampler->limit->matcher))
        return apr_fail(e, APR_EINFER, "%zu tokens ended the text before the grammar was satisfied",
                        g->ids.n);
    return APR_OK;
}

static enum apr_code run_loop(struct loop *l, struct apr_sampler *sampler, const int32_t *ids, size_t n_ids,
                              struct apr_arena *arena, struct apr_err *e)
{
    struct apr_session *s = l->s;
    const struct apr_ids *guide = l->g->opts.guide;
    TRY(apr_session_fits(s, n_ids, 1, e));
    TRY(apr_arena_try(arena, &l->logits, s->model->config.n_vocab, sizeof *l->logits, "logits", e));
    if (guide) {
        TRY(apr_session_fits(s, guide->n, 1, e));
        TRY(apr_arena_try(arena, &l->other, s->model->config.n_vocab, sizeof *l->other, "logits", e));
        TRY(apr_cache_init(&l->other_cache, &s->model->config, s->cache.is_f32, s->n_ctx, e));
    }
    for (size_t i = 0; i < n_ids; i++) TRY(apr_sampler_accept(sampler, ids[i], e));
    int64_t ns_start = apr_now_ns();
    apr_cache_truncate(&s->cache, 0);
    TRY(next_logits(l, ids, n_ids, guide ? guide->at : NULL, guide ? guide->n : 0, e));
    return decode_loop(l, sampler, ns_start, e);
}

enum apr_code apr_generate(struct apr_session *s, struct apr_sampler *sampler, const int32_t *ids,
                           size_t n_ids, struct apr_gen *g, const struct apr_text_sink *to, struct apr_err *e)
{
    if (!n_ids) return apr_fail(e, APR_EUSAGE, "the prompt has no tokens");
    struct loop l = {.s = s, .g = g, .to = to};
    struct apr_arena arena;
    apr_arena_init(&arena);
    apr_arena_init(&l.other_cache.arena);
    apr_buf_init(&l.piece, MAX_TEXT_BYTES);
    apr_buf_init(&l.held, MAX_TEXT_BYTES);
    g->n_prompt = n_ids;
    enum apr_code code = run_loop(&l, sampler, ids, n_ids, &arena, e);
    apr_buf_free(&l.held);
    apr_buf_free(&l.piece);
    apr_cache_free(&l.other_cache);
    apr_arena_free(&arena);
    return code;
}

double apr_gen_prompt_rate(const struct apr_gen *g)
{
    return g->prompt_s > 0 ? (double)g->n_prompt / g->prompt_s : 0;
}

double apr_gen_decode_rate(const struct apr_gen *g)
{
    return g->decode_s > 0 && g->ids.n > 1 ? (double)(g->ids.n - 1) / g->decode_s : 0;
}
