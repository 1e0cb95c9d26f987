/* Proposing, and keeping count of what came of it. */
#include "spec.h"

#include "draft.h"

enum apr_code apr_spec_open(struct apr_spec *s, const struct apr_spec_opts *opts, struct apr_draft *draft,
                            size_t n_vocab, struct apr_arena *arena, struct apr_err *e)
{
    *s = (struct apr_spec){.opts = *opts, .draft = draft, .arena = arena, .n_vocab = n_vocab, .n_toks = 1};
    apr_pace_init(&s->pace, (size_t)opts->n_min, (size_t)opts->n_max);
    if (draft && !draft->is_greedy) apr_pace_fix(&s->pace, draft->cost);
    return apr_arena_try(arena, &s->logits, ((size_t)opts->n_max + 1) * n_vocab, sizeof *s->logits,
                         "logits of proposals", e);
}

void apr_spec_close(struct apr_spec *s)
{
    apr_ids_free(&s->past);
}

/* One more token of the text. */
static enum apr_code add(struct apr_spec *s, int32_t id, struct apr_err *e)
{
    TRY(apr_ids_push(&s->past, id, e));
    return s->opts.lookup ? apr_ngrams_add(&s->lookup, s->past.at, s->past.n, e) : APR_OK;
}

enum apr_code apr_spec_begin(struct apr_spec *s, const int32_t *ids, size_t n, struct apr_err *e)
{
    s->past.n = 0;
    s->n_toks = 1;
    s->i_row = 0;
    if (s->opts.lookup) apr_ngrams_init(&s->lookup, s->opts.n_gram_min, s->opts.n_gram_max, s->arena);
    for (size_t i = 0; i < n; i++) TRY(add(s, ids[i], e));
    if (!s->draft) return APR_OK;
    int64_t ns_start = apr_now_ns();
    TRY(apr_draft_begin(s->draft, ids, n, e));
    s->stats.draft_s += (double)(apr_now_ns() - ns_start) * 1e-9;
    return APR_OK;
}

enum apr_code apr_spec_take(struct apr_spec *s, int32_t id, bool *is_there, struct apr_err *e)
{
    *is_there = s->i_row + 1 < s->n_toks && s->ids[s->i_row + 1] == id;
    if (*is_there) {
        s->stats.n_accepted++;
        s->i_row++;
    }
    return add(s, id, e);
}

/* What became of the step's proposals; rejected: the text went another way. */
static void settle(struct apr_spec *s, bool rejected)
{
    if (s->n_toks > 1) apr_pace_judged(&s->pace, s->kind, s->i_row, rejected && s->i_row + 1 < s->n_toks);
}

/* What stood after the same words, as much of it as pays. */
static size_t look_up(struct apr_spec *s, size_t n_most)
{
    size_t n_match;
    size_t n = apr_ngrams_find(&s->lookup, s->past.at, s->past.n, n_most, s->ids + 1, &n_match);
    if (!n) return 0;
    s->kind = apr_pace_lookup_kind(n_match);
    n = apr_pace_length(&s->pace, s->kind, n);
    for (size_t i = 0; i < n; i++) s->proposals[i] = (struct apr_proposal){.id = s->ids[1 + i]};
    s->stats.n_lookups += n > 0;
    return n;
}

static enum apr_code ask_draft(struct apr_spec *s, size_t n_most, size_t *n, struct apr_err *e)
{
    int64_t ns_start = apr_now_ns();
    s->kind = APR_PACE_DRAFT;
    *n = 0;
    n_most = apr_pace_length(&s->pace, s->kind, n_most);
    if (!n_most) return APR_OK;
    TRY(apr_draft_guess(s->draft, s->past.at, s->past.n, n_most, s->opts.p_min, s->ids + 1, s->proposals, n,
                        e));
    double seconds = (double)(apr_now_ns() - ns_start) * 1e-9;
    s->stats.draft_s += seconds;
    s->stats.n_drafts += *n > 0;
    apr_pace_drafted(&s->pace, *n, seconds);
    return APR_OK;
}

enum apr_code apr_spec_plan(struct apr_spec *s, size_t n_most, size_t *n_back, struct apr_err *e)
{
    size_t n = 0;
    settle(s, true);
    *n_back = apr_spec_n_open(s);
    n_most = n_most ? n_most - 1 : 0;
    if (n_most > s->pace.n_max) n_most = s->pace.n_max;
    s->ids[0] = s->past.at[s->past.n - 1];
    if (s->opts.lookup) n = look_up(s, n_most);
    if (!n && s->draft && n_most) TRY(ask_draft(s, n_most, &n, e));
    s->n_toks = 1 + n;
    s->i_row = 0;
    return APR_OK;
}

void apr_spec_ran(struct apr_spec *s, double seconds)
{
    apr_pace_stepped(&s->pace, s->n_toks, seconds);
    s->stats.n_steps++;
    s->stats.n_plain += s->n_toks == 1;
    s->stats.n_proposed += s->n_toks - 1;
    s->stats.verify_s += seconds;
}

const float *apr_spec_logits(const struct apr_spec *s)
{
    return s->logits + s->i_row * s->n_vocab;
}

const struct apr_proposal *apr_spec_proposal(const struct apr_spec *s)
{
    if (s->i_row + 1 >= s->n_toks) return NULL;
    const struct apr_proposal *x = &s->proposals[s->i_row];
    return x->q ? x : NULL;
}

enum apr_code apr_spec_next(struct apr_spec *s, int32_t id, size_t n_most, const struct apr_spec_model *m,
                            const float **logits, struct apr_err *e)
{
    bool is_there;
    size_t n_back;
    TRY(apr_spec_take(s, id, &is_there, e));
    if (!is_there) {
        TRY(apr_spec_plan(s, n_most, &n_back, e));
        if (n_back) m->take_back(m->ctx, n_back);
        int64_t ns_start = apr_now_ns();
        TRY(m->run(m->ctx, s->ids, s->n_toks, s->logits, e));
        apr_spec_ran(s, (double)(apr_now_ns() - ns_start) * 1e-9);
    }
    *logits = apr_spec_logits(s);
    return APR_OK;
}

size_t apr_spec_n_open(const struct apr_spec *s)
{
    return s->n_toks - 1 - s->i_row;
}

size_t apr_spec_end(struct apr_spec *s)
{
    size_t n_back = apr_spec_n_open(s);
    settle(s, false);
    s->n_toks = 1;
    s->i_row = 0;
    return n_back;
}

void apr_spec_report(const struct apr_spec *s, struct apr_out *o)
{
    const struct apr_spec_stats *t = &s->stats;
    apr_out_obj(o, "speculation");
    apr_out_u64(o, "n_steps", t->n_steps);
    apr_out_u64(o, "n_plain_steps", t->n_plain);
    apr_out_u64(o, "n_lookups", t->n_lookups);
    apr_out_u64(o, "n_drafts", t->n_drafts);
    apr_out_u64(o, "n_proposed", t->n_proposed);
    apr_out_u64(o, "n_accepted", t->n_accepted);
    apr_out_f64(o, "acceptance_rate", t->n_proposed ? (double)t->n_accepted / (double)t->n_proposed : 0);
    apr_out_f64(o, "toks_per_step",
                t->n_steps ? (double)(t->n_steps + t->n_accepted) / (double)t->n_steps : 0);
    apr_out_f64(o, "draft_s", t->draft_s);
    apr_out_f64(o, "verify_s", t->verify_s);
    apr_out_end(o);
}
