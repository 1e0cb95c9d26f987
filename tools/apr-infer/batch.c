/* The way of a line: read, parsed, given a place, answered, written. */
#include "batch.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "ckd.h"

/* A line on its way. */
struct apr_job {
    struct apr_job *next;
    uint64_t i_line;
    struct apr_request request;
    struct apr_seat *seat; /* NULL: not in the crew */
    struct apr_ids ids;    /* owned: the prompt, until it has a seat */
    size_t n_need;
    bool is_done, has_failed;
    struct apr_err err;  /* why */
    struct apr_buf line; /* owned: the result */
};

static void job_free(struct apr_batch *b, struct apr_job *j)
{
    if (j->seat) apr_crew_leave(&b->crew, j->seat);
    apr_request_free(&j->request);
    apr_ids_free(&j->ids);
    apr_buf_free(&j->line);
    apr_heap_free(j);
}

/* ---- done --------------------------------------------------------------------------------------------- */

/* The result of a job is made; its place is free. */
static enum apr_code settle(struct apr_batch *b, struct apr_job *j, enum apr_code code, struct apr_err *e)
{
    const struct apr_result a = {.i_line = j->i_line,
                                 .request = &j->request,
                                 .seat = j->seat,
                                 .tok = b->session->tok,
                                 .model = b->session->model->name,
                                 .code = code,
                                 .err = &j->err,
                                 .with_tokens = b->opts.with_tokens,
                                 .with_times = b->opts.with_times};
    TRY(apr_result_put(&a, &j->line, e));
    j->is_done = true;
    j->has_failed = code != APR_OK;
    b->n_held_bytes += j->line.n_bytes;
    if (j->seat) {
        b->n_prompt_toks += j->seat->ids.n;
        b->n_reply_toks += j->seat->reply.ids.n;
        apr_crew_leave(&b->crew, j->seat);
        j->seat = NULL;
    }
    return APR_OK;
}

static enum apr_code write_job(struct apr_batch *b, struct apr_job *j, struct apr_err *e)
{
    TRY(apr_journal_put(b->out, (const char *)j->line.data, j->line.n_bytes, e));
    b->n_held_bytes -= j->line.n_bytes;
    b->n_answered++;
    if (!j->has_failed) return APR_OK;
    if (!b->first_failed.text[0]) {
        b->first_failed = j->err;
        b->i_first_failed = j->i_line;
    }
    b->n_failed++;
    if (b->opts.fail_fast) b->is_stopped = true;
    return APR_OK;
}

/* Writes what may leave: the oldest results, or all. */
static enum apr_code flush(struct apr_batch *b, struct apr_err *e)
{
    struct apr_job **at = &b->head, *last = NULL;
    while (*at && !b->is_stopped) {
        struct apr_job *j = *at;
        if (!j->is_done) {
            if (!b->opts.unordered) return APR_OK;
            last = j;
            at = &j->next;
            continue;
        }
        TRY(write_job(b, j, e));
        *at = j->next;
        if (b->tail == j) b->tail = last;
        b->n_jobs--;
        job_free(b, j);
    }
    return APR_OK;
}

static enum apr_code collect(struct apr_batch *b, struct apr_err *e)
{
    struct apr_seat *seat;
    while ((seat = apr_crew_finished(&b->crew))) {
        struct apr_job *j = seat->tag;
        j->err = seat->err;
        TRY(settle(b, j, seat->code, e));
    }
    return APR_OK;
}

/* ---- begun -------------------------------------------------------------------------------------------- */

static enum apr_code fill_sampler(struct apr_batch *b, struct apr_job *j, struct apr_seat *seat,
                                  struct apr_err *e)
{
    const struct apr_session *s = b->session;
    const struct apr_sampler_site site = {s->model->config.n_vocab, s->n_ctx, s->kern, s->tok};
    const struct apr_request *r = &j->request;
    struct apr_sample_opts o;
    TRY(apr_sample_resolve(&r->sample, b->opts.model_sampling, &o, e));
    TRY(apr_sampler_init(&seat->sampler, &o, &site, &seat->arena, e));
    if (!r->grammar) return APR_OK;
    const struct apr_tok *tok;
    TRY(apr_session_tok(s, &tok, e));
    if (!b->trie) TRY(apr_trie_of_vocab(&b->trie, tok, &s->model->vocab, site.n_vocab, e));
    TRY(apr_limit_open_shared(&seat->limit, r->grammar, b->trie, site.n_vocab, &s->model->generation,
                              &seat->arena, e));
    seat->sampler.limit = &seat->limit;
    return APR_OK;
}

static enum apr_code fill_seat(struct apr_batch *b, struct apr_job *j, struct apr_seat *seat,
                               struct apr_err *e)
{
    const struct apr_session *s = b->session;
    const struct apr_request *r = &j->request;
    const struct apr_reply_site site = {&seat->sampler, s->tok, &s->model->generation, NULL};
    const struct apr_reply_opts opts = {r->n_max < 0 ? SIZE_MAX : (size_t)r->n_max, &r->stops, r->ignore_eos};
    seat->tag = j;
    seat->ids = j->ids;
    j->ids = (struct apr_ids){0};
    seat->has_logprobs = r->has_logprobs;
    apr_reply_init(&seat->reply, &opts, &site);
    apr_logprobs_init(&seat->logprobs, r->n_top_logprobs);
    TRY(fill_sampler(b, j, seat, e));
    return apr_crew_admit(&b->crew, seat, j->n_need, e);
}

static enum apr_code seat_job(struct apr_batch *b, struct apr_job *j, struct apr_err *e)
{
    j->seat = apr_crew_take(&b->crew);
    enum apr_code code = fill_seat(b, j, j->seat, &j->err);
    return code == APR_OK ? APR_OK : settle(b, j, code, e);
}

/* What can be said before there is a place. */
static enum apr_code prepare(struct apr_batch *b, struct apr_job *j, const struct apr_line *line)
{
    struct apr_err *e = &j->err;
    if (line->state == APR_LINE_TOO_LONG)
        return apr_fail(e, APR_EFORMAT, "request: a line of more than %u MiB", APR_MAX_REQUEST_BYTES >> 20);
    TRY(apr_request_parse(&j->request, line->p, line->n_bytes, &b->opts.defaults, e));
    TRY(apr_prompter_encode(&b->prompter, &j->request, &j->ids, e));
    TRY(apr_session_fits(b->session, j->ids.n, 1, e));
    size_t n_max = j->request.n_max < 0 ? SIZE_MAX : (size_t)j->request.n_max;
    if (ckd_add(&j->n_need, j->ids.n, n_max) || j->n_need > b->session->n_ctx) j->n_need = b->session->n_ctx;
    return APR_OK;
}

static enum apr_code begin_job(struct apr_batch *b, const struct apr_line *line, struct apr_err *e)
{
    struct apr_job *j = apr_heap_get(sizeof *j);
    *j = (struct apr_job){.i_line = line->i_line};
    apr_request_init(&j->request);
    apr_buf_init(&j->line, SIZE_MAX / 2);
    if (b->tail)
        b->tail->next = j;
    else
        b->head = j;
    b->tail = j;
    b->n_jobs++;
    enum apr_code code = prepare(b, j, line);
    if (code != APR_OK) return settle(b, j, code, e);
    b->waiting = j;
    return APR_OK;
}

/* ---- lines that are not ours -------------------------------------------------------------------------- */

static bool is_blank(const struct apr_line *line)
{
    for (size_t i = 0; i < line->n_bytes; i++)
        if (!strchr(" \t\r", line->p[i]) || !line->p[i]) return false;
    return line->state != APR_LINE_TOO_LONG;
}

static int find_line(const void *i_line, const void *key)
{
    uint64_t i = *(const uint64_t *)i_line, k = ((const struct apr_result_key *)key)->i_line;
    return (i > k) - (i < k);
}

static uint64_t id_hash_of(const struct apr_line *line)
{
    struct apr_err ignored;
    json_t *root;
    if (line->state == APR_LINE_TOO_LONG ||
        apr_json_parse(line->p, line->n_bytes, "", &root, &ignored) != APR_OK)
        return 0;
    const json_t *id = json_object_get(root, "custom_id");
    if (!id) id = json_object_get(root, "id");
    uint64_t hash = json_is_string(id) || json_is_integer(id) ? apr_request_id_hash(id) : 0;
    json_decref(root);
    return hash;
}

/* *known: the results answer this line already. An answer with another id is one to other requests. */
static enum apr_code look_up(struct apr_batch *b, const struct apr_line *line, bool *known, struct apr_err *e)
{
    const struct apr_result_key *keys = (const void *)b->known.data, *key = NULL;
    size_t n = b->known.n_bytes / sizeof *keys;
    if (n) key = bsearch(&line->i_line, keys, n, sizeof *keys, find_line);
    *known = key != NULL;
    if (!key) return APR_OK;
    if (key->id_hash != id_hash_of(line))
        return apr_fail(e, APR_EUSAGE, "%s: line %" PRIu64 ": the results answer a request with another id",
                        apr_lines_name(b->in), line->i_line + 1);
    b->n_known_left--;
    return APR_OK;
}

/* ---- the loop ----------------------------------------------------------------------------------------- */

static bool window_is_full(const struct apr_batch *b)
{
    return b->n_jobs >= APR_BATCH_WINDOW || b->n_held_bytes >= APR_BATCH_HELD_BYTES;
}

/* The next line, if one is there and ours. */
static enum apr_code take_line(struct apr_batch *b, bool wait, bool *more, struct apr_err *e)
{
    struct apr_line line;
    bool known;
    TRY(apr_lines_next(b->in, wait, &line, e));
    b->at_end = line.state == APR_LINE_NONE;
    *more = !b->at_end && line.state != APR_LINE_LATER;
    if (!*more) return APR_OK;
    static const char bom[] = "\xef\xbb\xbf";
    if (!line.i_line && line.n_bytes >= 3 && !memcmp(line.p, bom, 3)) {
        line.p += 3;
        line.n_bytes -= 3;
    }
    if (line.i_line % b->opts.n_shards != b->opts.i_shard || is_blank(&line)) return APR_OK;
    TRY(look_up(b, &line, &known, e));
    return known ? APR_OK : begin_job(b, &line, e);
}

/* Gives places to lines, as far as there are both. */
static enum apr_code feed(struct apr_batch *b, struct apr_err *e)
{
    for (;;) {
        struct apr_job *j = b->waiting;
        if (j && !apr_crew_has_room(&b->crew, j->n_need)) return APR_OK;
        b->waiting = NULL;
        if (j) TRY(seat_job(b, j, e));
        if (b->crew.n_taken == b->crew.n_seats || window_is_full(b) || b->at_end) return APR_OK;
        bool more, wait = !b->n_jobs;
        TRY(take_line(b, wait, &more, e));
        if (!more) return APR_OK;
        if (b->head && b->head->is_done) return APR_OK; /* it leaves before more is waited for */
    }
}

static void show(struct apr_batch *b)
{
    snprintf(b->label, sizeof b->label, "%" PRIu64 " answered, %zu running:", b->n_answered,
             b->crew.n_running);
    apr_progress_add(&b->progress, b->crew.n_prompt_toks + b->crew.n_reply_toks - b->progress.n_done);
}

static enum apr_code loop(struct apr_batch *b, struct apr_err *e)
{
    while (!b->is_stopped && (b->head || !b->at_end)) {
        TRY(feed(b, e));
        TRY(apr_crew_step(&b->crew, e));
        TRY(collect(b, e));
        TRY(flush(b, e));
        show(b);
    }
    if (!b->is_stopped && b->n_known_left)
        return apr_fail(e, APR_EUSAGE, "the results answer %" PRIu64 " lines that %s does not have",
                        b->n_known_left, apr_lines_name(b->in));
    return APR_OK;
}

enum apr_code apr_batch_run(struct apr_batch *b, struct apr_err *e)
{
    size_t n_seats = b->opts.n_seats < b->session->fwd.n_batch ? b->opts.n_seats : b->session->fwd.n_batch;
    apr_prompter_init(&b->prompter, b->session);
    apr_progress_begin(&b->progress, b->label, 0, "tok");
    enum apr_code code = apr_crew_engine_open(&b->engine, b->session, n_seats, e);
    if (code == APR_OK && b->saved) code = apr_crew_engine_recall(&b->engine, b->saved, e);
    if (code == APR_OK) code = apr_crew_open(&b->crew, &b->engine.engine, n_seats, e);
    if (code == APR_OK) code = loop(b, e);
    b->n_steps = b->crew.n_steps;
    b->n_shared_toks = b->crew.n_shared_toks;
    b->n_seats = n_seats;
    apr_progress_end(&b->progress);
    while (b->head) {
        struct apr_job *next = b->head->next;
        job_free(b, b->head);
        b->head = next;
    }
    apr_crew_close(&b->crew);
    apr_crew_engine_close(&b->engine);
    apr_prompter_close(&b->prompter);
    return code;
}

void apr_batch_free(struct apr_batch *b)
{
    apr_trie_free(b->trie);
    apr_buf_free(&b->known);
}
