/* Tokens into text, and the ends of an answer. */
#include "reply.h"

#include <string.h>

#include "log.h"

#define MAX_TEXT_BYTES (256u << 20)

void apr_reply_init(struct apr_reply *r, const struct apr_reply_opts *o, const struct apr_reply_site *site)
{
    *r = (struct apr_reply){.opts = *o, .site = *site, .is_over = !o->n_max, .finish = "length"};
    apr_buf_init(&r->text, MAX_TEXT_BYTES);
    apr_buf_init(&r->piece, MAX_TEXT_BYTES);
    apr_buf_init(&r->held, MAX_TEXT_BYTES);
}

void apr_reply_free(struct apr_reply *r)
{
    apr_ids_free(&r->ids);
    apr_buf_free(&r->text);
    apr_buf_free(&r->piece);
    apr_buf_free(&r->held);
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

/* Takes the bytes of one more token (none and last: the end) through the gate and the stop strings. */
static enum apr_code pass_text(struct apr_reply *r, bool last, struct apr_err *e)
{
    TRY(apr_utf8_pass(&r->gate, r->piece.data, r->piece.n_bytes, last, &r->held, e));
    r->piece.n_bytes = 0;
    if (!r->held.n_bytes) return APR_OK;
    const char *held = (const char *)r->held.data;
    size_t n = apr_stop_scan(r->opts.stops, held, r->held.n_bytes, last, &r->is_cut);
    if (n && r->site.to) TRY(r->site.to->write(r->site.to->ctx, held, n, e));
    TRY(apr_buf_append(&r->text, held, n, e));
    apr_buf_drop_front(&r->held, r->is_cut ? r->held.n_bytes : n);
    return APR_OK;
}

static bool is_end(const struct apr_generation *g, int32_t id)
{
    for (uint32_t i = 0; i < g->n_eos; i++)
        if (g->eos_ids[i] == id) return true;
    return false;
}

enum apr_code apr_reply_prompt(struct apr_reply *r, const int32_t *ids, size_t n, struct apr_err *e)
{
    if (!n) return apr_fail(e, APR_EUSAGE, "the prompt has no tokens");
    for (size_t i = 0; i < n; i++) TRY(apr_sampler_accept(r->site.sampler, ids[i], e));
    r->n_prompt = n;
    r->ns_start = apr_now_ns();
    return APR_OK;
}

size_t apr_reply_n_left(const struct apr_reply *r, size_t n_room)
{
    size_t n_max = r->opts.n_max - r->ids.n;
    return n_max <= n_room ? n_max : n_room + 1;
}

enum apr_code apr_reply_choose(struct apr_reply *r, const float *logits, size_t n_room, int32_t *id,
                               struct apr_err *e)
{
    struct apr_sampler *s = r->site.sampler;
    if (s->limit) s->limit->n_left = apr_reply_n_left(r, n_room);
    return apr_sampler_next(s, logits, id, e);
}

enum apr_code apr_reply_take(struct apr_reply *r, int32_t id, struct apr_err *e)
{
    const struct apr_limit *limit = r->site.sampler->limit;
    TRY(apr_sampler_accept(r->site.sampler, id, e));
    TRY(apr_ids_push(&r->ids, id, e));
    int64_t ns_now = apr_now_ns();
    if (!r->ns_first) {
        r->ns_first = ns_now;
        r->prompt_s = (double)(ns_now - r->ns_start) * 1e-9;
    }
    bool ends = !r->opts.ignore_eos && is_end(r->site.ends, id);
    if (!ends && r->site.tok) {
        TRY(apr_tok_piece(r->site.tok, id, false, &r->piece, e));
        TRY(pass_text(r, false, e));
    }
    if (ends || r->is_cut || (limit && apr_matcher_is_over(limit->matcher))) {
        r->finish = "stop";
        r->is_over = true;
    }
    if (r->ids.n >= r->opts.n_max) r->is_over = true;
    return APR_OK;
}

enum apr_code apr_reply_next(struct apr_reply *r, const float *logits, size_t n_room, int32_t *id,
                             struct apr_err *e)
{
    TRY(apr_reply_choose(r, logits, n_room, id, e));
    return apr_reply_take(r, *id, e);
}

enum apr_code apr_reply_end(struct apr_reply *r, struct apr_err *e)
{
    const struct apr_limit *limit = r->site.sampler->limit;
    if (r->ns_first) r->decode_s = (double)(apr_now_ns() - r->ns_first) * 1e-9;
    r->is_over = true;
    if (!r->is_cut) TRY(pass_text(r, true, e));
    if (limit && !strcmp(r->finish, "length") && !apr_matcher_accepts(limit->matcher))
        return apr_fail(e, APR_EINFER, "%zu tokens ended the text before the grammar was satisfied",
                        r->ids.n);
    return APR_OK;
}

double apr_reply_prompt_rate(const struct apr_reply *r)
{
    return r->prompt_s > 0 ? (double)(r->n_prompt - r->n_reused) / r->prompt_s : 0;
}

double apr_reply_decode_rate(const struct apr_reply *r)
{
    return r->decode_s > 0 && r->ids.n > 1 ? (double)(r->ids.n - 1) / r->decode_s : 0;
}
