/* The pipeline: while a piece is converted, the one before it is written and the one after it is read, all as
 * tasks of one parallel loop, so that neither disk nor pipe leaves a core idle.
 *
 *   round k:  write piece k - 1 | read piece k + 1 | SHA-256 of piece k | chunks of piece k
 *
 * Between rounds the caller's thread judges piece k; it is written in the next round, or never. What a thread
 * of the pool must not do - a compressed output and a merge use the pool themselves - the caller does before
 * the round.
 */
#include "convert.h"

#include <inttypes.h>

#include "convert_loop.h"
#include "convert_odd.h"
#include "fmt/apr.h"
#include "provenance.h"

enum { N_PLACES = 3, TASK_WRITE = 0, TASK_READ, TASK_SHA, TASK_CHUNKS };

struct place {
    struct apr_piece piece;
    bool full; /* there is a piece to be converted or written */
};

struct pipeline {
    struct apr_loop *l;
    struct place places[N_PLACES];
    struct place *next, *now, *done;     /* read, converted, written in this round; they rotate */
    size_t i_out;                        /* of l->out, for the next piece */
    bool reads_outside, writes_outside;  /* on the caller's thread, before the round */
    enum apr_code read_code, write_code; /* of this round */
    struct apr_err read_err, write_err;
    struct apr_stats stats; /* of the tensor that is converted */
};

static void write_done(struct pipeline *p)
{
    struct apr_piece *j = &p->done->piece;
    if (!p->done->full) return;
    p->done->full = false;
    if (j->i_first == 0) apr_loop_hash_begin(p->l);
    p->write_code =
        apr_loop_emit(p->l, j->narrows ? j->out : j->in, apr_piece_bytes(j->to, j->n_elems), &p->write_err);
    if (apr_piece_is_last(j)) apr_loop_hash_end(p->l, j->plan->name);
}

static void read_next(struct pipeline *p)
{
    struct apr_piece *j = &p->next->piece;
    if (!p->next->full) return;
    p->read_code = apr_model_read(p->l->c->model, j->src, apr_piece_off(j), j->in,
                                  apr_piece_bytes(j->from, j->n_elems), &p->read_err);
}

static void hash_now(struct pipeline *p)
{
    const struct apr_piece *j = &p->now->piece;
    struct apr_src *src = p->now->full ? apr_loop_source(p->l, j->src) : NULL;
    if (src)
        apr_src_sha_add(src, j->src->off_file + apr_piece_off(j), j->in,
                        apr_piece_bytes(j->from, j->n_elems));
}

static bool is_looked_at(const struct apr_piece *j)
{
    return j->narrows || j->c->gate;
}

static void task(void *ctx, size_t i_begin, size_t i_end, unsigned i_thread)
{
    struct pipeline *p = ctx;
    for (size_t i = i_begin; i < i_end; i++) {
        if (i >= TASK_CHUNKS)
            apr_piece_convert(&p->now->piece, i - TASK_CHUNKS, i_thread);
        else if (i == TASK_WRITE && !p->writes_outside)
            write_done(p);
        else if (i == TASK_READ && !p->reads_outside)
            read_next(p);
        else if (i == TASK_SHA)
            hash_now(p);
    }
}

static enum apr_code judge_now(struct pipeline *p, struct apr_err *e)
{
    const struct apr_piece *j = &p->now->piece;
    if (!p->now->full) return APR_OK;
    apr_progress_add(&p->l->progress, apr_piece_bytes(j->from, j->n_elems));
    if (!is_looked_at(j)) return APR_OK;
    if (j->i_first == 0) apr_stats_init(&p->stats);
    return apr_loop_judge(p->l, j, &p->stats, e);
}

/* One round; what it read is now, what it converted is done. Of several errors the first piece's counts. */
static enum apr_code turn(struct pipeline *p, struct apr_err *e)
{
    bool converts = p->now->full && is_looked_at(&p->now->piece);
    p->read_code = p->write_code = APR_OK;
    if (p->writes_outside) write_done(p);
    if (p->reads_outside) read_next(p);
    apr_parallel_for(p->l->c->pool, TASK_CHUNKS + (converts ? apr_piece_chunks(&p->now->piece) : 0), 1, task,
                     p);
    if (p->write_code != APR_OK) {
        *e = p->write_err;
        return p->write_code;
    }
    TRY(judge_now(p, e));
    if (p->read_code != APR_OK) {
        *e = p->read_err;
        return p->read_code;
    }
    struct place *done = p->done;
    p->done = p->now;
    p->now = p->next;
    p->next = done;
    return APR_OK;
}

/* Converts and writes all that was read. */
static enum apr_code drain(struct pipeline *p, struct apr_err *e)
{
    while (p->now->full || p->done->full) TRY(turn(p, e));
    return APR_OK;
}

static enum apr_code move_tensor(struct pipeline *p, const struct apr_plan_tensor *t, struct apr_err *e)
{
    struct apr_loop *l = p->l;
    if (apr_odd_is(l->c, t)) {
        TRY(drain(p, e));
        apr_loop_hash_begin(l);
        TRY(apr_odd_move(l, t, e));
        apr_loop_hash_end(l, t->name);
        return APR_OK;
    }
    uint64_t n_all = apr_tensor_elems(t->src), n = 0;
    for (uint64_t at = 0; at < n_all && !apr_sink_failed(l->sink); at += n) {
        struct apr_piece *j = &p->next->piece;
        *j = apr_piece_of(l->c, t, l->scratch);
        j->in = l->in[p->next - p->places];
        j->out = l->out[p->i_out];
        p->i_out = 1 - p->i_out;
        apr_piece_set(j, at);
        n = j->n_elems;
        p->next->full = true;
        TRY(turn(p, e));
    }
    return APR_OK;
}

static enum apr_code run(struct apr_loop *l, struct apr_err *e)
{
    const struct apr_convert *c = l->c;
    struct pipeline p = {
        .l = l, .reads_outside = c->model->compute != NULL, .writes_outside = c->plan->pack != APR_PACK_NONE};
    p.next = &p.places[0];
    p.now = &p.places[1];
    p.done = &p.places[2];
    for (uint64_t i = 0; i < c->plan->n_tensors && !apr_sink_failed(l->sink); i++)
        TRY(move_tensor(&p, &c->plan->tensors[i], e));
    if (apr_sink_failed(l->sink)) return APR_OK; /* the text comes from apr_sink_finish */
    TRY(drain(&p, e));
    return c->more || apr_sink_failed(l->sink) ? APR_OK : apr_model_end(c->model, e);
}

static enum apr_code check_plan(const struct apr_convert *c, struct apr_err *e)
{
    for (uint64_t i = 0; i < c->plan->n_tensors; i++) {
        const struct apr_plan_tensor *p = &c->plan->tensors[i];
        const struct apr_quant *from = apr_quant_of(p->src->type), *to = apr_quant_of(p->type);
        if (p->src->type == p->type) continue;
        if (!from || !from->to_f32 || !c->kern->to_f32[p->src->type])
            return apr_fail(e, APR_ELOAD, "%s: tensor %s: %s cannot be converted to %s", c->model->path,
                            p->src->name, apr_type_name(p->src->type), apr_type_name(p->type));
        if (!to || !to->from_f32)
            return apr_fail(e, APR_EUNAVAIL, "tensor %s: %s cannot be written", p->name,
                            apr_type_name(p->type));
    }
    return APR_OK;
}

static enum apr_code check_output(const struct apr_convert *c, struct apr_sink *s, struct apr_err *e)
{
    uint64_t n_head, n_total;
    for (size_t i = 0; i < c->model->n_files; i++)
        if (apr_sink_is(s, c->model->files[i].src))
            return apr_fail(e, APR_EUSAGE, "%s: is input and output at once",
                            apr_src_name(c->model->files[i].src));
    TRY(c->fmt->measure(c->plan, &n_head, &n_total, e));
    return apr_sink_need(s, n_total, e);
}

/* In the pipeline another task hashes what is read. */
static void defer_hashes(const struct apr_model *m, bool on)
{
    for (uint32_t i = 0; i < m->n_files; i++)
        if (m->files[i].src) apr_src_sha_defer(m->files[i].src, on);
}

static enum apr_code write_all(struct apr_loop *l, json_t *trailer, struct apr_err *e)
{
    const struct apr_convert *c = l->c;
    uint64_t n_in = 0;
    for (uint64_t i = 0; i < c->plan->n_tensors; i++) n_in += c->plan->tensors[i].src->n_bytes;
    TRY(c->fmt->begin(c->plan, l->sink, &l->w, e));
    apr_progress_begin(&l->progress, c->fmt->name, n_in, "B");
    defer_hashes(c->model, true);
    enum apr_code code = run(l, e);
    defer_hashes(c->model, false);
    apr_progress_end(&l->progress);
    if (trailer) json_object_set(trailer, "tensors", l->hashes);
    if (trailer && code == APR_OK) code = apr_provenance_trail(c->model, trailer, e);
    if (code == APR_OK)
        code = c->fmt->end(l->w, trailer, e);
    else
        c->fmt->abort(l->w);
    return code;
}

enum apr_code apr_convert_run(const struct apr_convert *c, struct apr_sink *s, json_t *trailer,
                              struct apr_err *e)
{
    TRY(check_plan(c, e));
    apr_sink_pack(s, c->plan->pack, APR_HEADER_BYTES, c->pool);
    TRY(check_output(c, s, e));
    struct apr_loop l;
    json_t *hashes = trailer ? json_object() : NULL;
    apr_loop_init(&l, c, s, hashes);
    enum apr_code code = write_all(&l, trailer, e);
    apr_loop_free(&l);
    json_decref(hashes);
    return code;
}

uint64_t apr_convert_peak_bytes(const struct apr_pool *pool)
{
    return APR_LOOP_BUFFERS * (uint64_t)APR_PIECE_ROOM + apr_piece_scratch_bytes(apr_pool_threads(pool));
}
