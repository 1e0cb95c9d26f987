#include "convert.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "ckd.h"
#include "fmt/apr.h"
#include "log.h"
#include "provenance.h"

/* Both are multiples of every block length, so that no block straddles a border. */
#define CHUNK_ELEMS ((size_t)64 << 10) /* one task: 256 KiB of floats, within a core's L2 */
#define PIECE_ELEMS ((size_t)2 << 20)  /* one read: at most 16 MiB even of F64 */
_Static_assert(PIECE_ELEMS * sizeof(double) <= APR_PIECE_BYTES, "a piece exceeds its ceiling");
_Static_assert(PIECE_ELEMS % CHUNK_ELEMS == 0, "chunks do not tile a piece");

#define MAX_BLOCK_ELEMS 256
#define N_CHUNKS        (PIECE_ELEMS / CHUNK_ELEMS)
#define F16_TOO_BIG     65520.0F /* rounds to infinity */
#define N_SPOTS         3

/* Everything that one tensor's tasks share. */
struct job {
    const struct apr_convert *c;
    const struct apr_tensor *src;
    const struct apr_quant *from, *to;
    uint8_t *in;                /* the piece as stored: n_elems of type from */
    uint8_t *out;               /* the same values of type to */
    size_t n_elems;             /* of this piece */
    float *scratch;             /* [n_threads][2][CHUNK_ELEMS]: values, importance */
    const float *importance;    /* [n_matrices, n_cols] of the tensor, or NULL */
    uint64_t i_first;           /* of the piece, in the tensor */
    float from_scale, to_scale; /* of types whose scale stands once, in the tensor's head */
    bool narrows;               /* out is wanted; else only the statistics */
    struct apr_stats stats[N_CHUNKS];
};

struct loop {
    const struct apr_convert *c;
    struct apr_writer *w;
    struct apr_arena arena;
    uint8_t *in, *out;
    float *scratch;
    uint8_t *raw; /* [APR_PIECE_BYTES], for tensors of the original's packings; made when first needed */
    struct apr_verdict verdict;
    struct apr_progress progress;
};

/* Bytes of n_elems values without the head; only the end of a flat tensor is no whole block. */
static size_t bytes_of(const struct apr_quant *q, size_t n_elems)
{
    return (n_elems + q->block_elems - 1) / q->block_elems * q->block_bytes;
}

static bool is_finite(const struct apr_stats *s)
{
    return s->n_nan == 0 && s->n_inf == 0;
}

static void widen(const struct job *j, size_t at, float *x, size_t n)
{
    const uint8_t *in = j->in + bytes_of(j->from, at);
    if (j->from->head_bytes)
        apr_native_q8_to_f32(j->from_scale, (const int8_t *)in, x, n);
    else
        j->c->kern->to_f32[j->from->type](in, x, n);
}

/* The importance of n values from the piece's value at on: every row of a matrix has the same. */
static void spread_importance(const struct job *j, size_t at, float *weights, size_t n)
{
    uint64_t n_cols = apr_tensor_cols(j->src), n_rows = j->src->dims[j->src->n_dims - 2];
    uint64_t i = j->i_first + at, i_row = i / n_cols, i_col = i % n_cols;
    for (size_t k = 0; k < n; i_row++, i_col = 0) {
        size_t n_row = n_cols - i_col < n - k ? (size_t)(n_cols - i_col) : n - k;
        memcpy(weights + k, j->importance + i_row / n_rows * n_cols + i_col, n_row * sizeof *weights);
        k += n_row;
    }
}

/* weights: room for n. */
static void narrow(const struct job *j, size_t at, const float *x, float *weights, size_t n)
{
    uint8_t *out = j->out + bytes_of(j->to, at);
    if (j->importance) spread_importance(j, at, weights, n);
    if (j->to->head_bytes)
        apr_native_q8_from_f32(j->to_scale, x, (int8_t *)out, n);
    else
        j->to->from_f32(x, out, n, j->importance ? weights : NULL);
}

/* The file that the tensor lies in; NULL for tensors that are computed. */
static struct apr_src *source_of(const struct job *j)
{
    const struct apr_model *m = j->c->model;
    return j->src->i_file < m->n_files ? m->files[j->src->i_file].src : NULL;
}

static void convert_chunk(void *ctx, size_t i_begin, size_t i_end, unsigned i_thread)
{
    struct job *j = ctx;
    for (size_t i_task = i_begin; i_task < i_end; i_task++) {
        if (i_task == 0) { /* the longest task first: the source's SHA-256, where it is taken */
            if (source_of(j)) apr_src_sha_flush(source_of(j));
            continue;
        }
        size_t i = i_task - 1;
        size_t at = i * CHUNK_ELEMS;
        size_t n = j->n_elems - at < CHUNK_ELEMS ? j->n_elems - at : CHUNK_ELEMS;
        float *x = j->scratch + (size_t)i_thread * 2 * CHUNK_ELEMS;
        apr_stats_init(&j->stats[i]);
        widen(j, at, x, n);
        j->c->kern->stats(x, n, &j->stats[i]);
        if (j->narrows && is_finite(&j->stats[i])) narrow(j, at, x, x + CHUNK_ELEMS, n);
    }
}

static void merge(struct apr_stats *all, const struct apr_stats *s)
{
    all->n += s->n;
    all->n_nan += s->n_nan;
    all->n_inf += s->n_inf;
    all->n_zero += s->n_zero;
    all->sum += s->sum;
    all->sum_sq += s->sum_sq;
    all->min = fminf(all->min, s->min);
    all->max = fmaxf(all->max, s->max);
}

/* Faults that make the narrowing itself meaningless; they stop the piece before it is written. */
static enum apr_code judge_piece(const struct job *j, const struct apr_stats *s, struct apr_err *e)
{
    if (j->to == j->from && !j->c->gate) return APR_OK;
    if (!is_finite(s))
        return apr_fail(e, APR_ECONTRACT,
                        "%s: F-DATA-QUALITY-002 %s: %" PRIu64 " NaN and %" PRIu64
                        " infinite values found; expected none",
                        j->c->model->path, j->src->name, s->n_nan, s->n_inf);
    if (j->to->type == APR_F16 && (s->max >= F16_TOO_BIG || s->min <= -F16_TOO_BIG))
        return apr_fail(
            e, APR_ECONTRACT,
            "%s: F-DATA-QUALITY-002 %s: value %g does not fit F16; expected at most 65504 in magnitude",
            j->c->model->path, j->src->name, (double)(s->max >= F16_TOO_BIG ? s->max : s->min));
    return APR_OK;
}

/* Rows at 10, 50 and 90 % of the embedding that lie in this piece. (F-DATA-QUALITY-004) */
static void judge_spots(struct loop *l, const struct job *j, uint64_t at)
{
    static const unsigned pct[N_SPOTS] = {10, 50, 90};
    const struct apr_tensor *embed = apr_model_role(l->c->model, APR_ROLE_EMBED, 0);
    uint64_t n_cols = apr_tensor_cols(j->src);
    if (!l->c->gate || embed != j->src || n_cols > CHUNK_ELEMS) return;
    for (size_t i = 0; i < N_SPOTS; i++) {
        uint64_t i_row = apr_tensor_rows(j->src) * pct[i] / 100, first = i_row * n_cols;
        if (first < at || first + n_cols > at + j->n_elems || first % j->from->block_elems != 0) continue;
        widen(j, first - at, l->scratch, n_cols);
        apr_contract_embed_row(j->src, i_row, l->scratch, n_cols, &l->verdict);
    }
}

static enum apr_code judge_tensor(struct loop *l, const struct job *j, const struct apr_stats *s,
                                  struct apr_err *e)
{
    if (!l->c->gate) return APR_OK;
    apr_contract_tensor(l->c->model, j->src, s, &l->verdict);
    return apr_verdict_error(&l->verdict, l->c->model->path, e);
}

/* A type that is carried but not computed with: bytes in, bytes out. */
static enum apr_code carry(struct loop *l, const struct apr_tensor *t, struct apr_xxh3 *hash,
                           struct apr_err *e)
{
    for (uint64_t off = 0; off < t->n_bytes; off += APR_PIECE_BYTES) {
        size_t n = t->n_bytes - off < APR_PIECE_BYTES ? (size_t)(t->n_bytes - off) : APR_PIECE_BYTES;
        TRY(apr_model_read(l->c->model, t, off, l->in, n, e));
        apr_xxh3_add(hash, l->in, n);
        TRY(l->c->fmt->data(l->w, l->in, n, e));
        apr_progress_add(&l->progress, n);
    }
    return APR_OK;
}

/* The piece in j->in, from the tensor's value at on; *stats grows. */
static enum apr_code convert_loaded(struct job *j, uint64_t at, struct apr_stats *stats, struct apr_err *e)
{
    size_t n_chunks = (j->n_elems + CHUNK_ELEMS - 1) / CHUNK_ELEMS;
    j->i_first = at;
    apr_parallel_for(j->c->pool, n_chunks + 1, 1, convert_chunk, j);
    for (size_t i = 0; i < n_chunks; i++) merge(stats, &j->stats[i]);
    return judge_piece(j, stats, e);
}

/* Reads and converts the values from at on. */
static enum apr_code convert_piece(struct job *j, uint64_t at, struct apr_stats *stats, struct apr_err *e)
{
    uint64_t n_left = apr_tensor_elems(j->src) - at;
    uint64_t off = j->from->head_bytes + at / j->from->block_elems * j->from->block_bytes;
    j->n_elems = n_left < PIECE_ELEMS ? (size_t)n_left : PIECE_ELEMS;
    struct apr_src *file = source_of(j);
    if (file) apr_src_sha_defer(file, true); /* the first task of convert_loaded takes it up */
    enum apr_code code = apr_model_read(j->c->model, j->src, off, j->in, bytes_of(j->from, j->n_elems), e);
    if (file) apr_src_sha_defer(file, false);
    TRY(code);
    return convert_loaded(j, at, stats, e);
}

static enum apr_code emit(struct loop *l, struct apr_xxh3 *hash, const void *p, size_t n, struct apr_err *e)
{
    apr_xxh3_add(hash, p, n);
    return l->c->fmt->data(l->w, p, n, e);
}

/* A scale that stands in front of the tensor: read it, or find it in a first pass over the data. */
static enum apr_code head(struct loop *l, struct job *j, struct apr_xxh3 *hash, struct apr_err *e)
{
    struct apr_stats stats;
    apr_stats_init(&stats);
    if (j->from->head_bytes)
        TRY(apr_model_read(l->c->model, j->src, 0, &j->from_scale, sizeof j->from_scale, e));
    if (j->to->head_bytes == 0) return APR_OK;
    if (j->to != j->from) {
        if (l->c->model->is_stream)
            return apr_fail(e, APR_EUSAGE, "%s reads every tensor twice; give a file instead of a pipe",
                            j->to->name);
        for (uint64_t at = 0; at < apr_tensor_elems(j->src); at += j->n_elems)
            TRY(convert_piece(j, at, &stats, e));
        j->to_scale = apr_native_q8_scale(fmaxf(fabsf(stats.min), fabsf(stats.max)));
    }
    return emit(l, hash, j->to == j->from ? &j->from_scale : &j->to_scale, sizeof j->to_scale, e);
}

/* ---- packings of the original ------------------------------------------------------------------------- */

/* n values of type q from blocks whose last one may be filled up with zeros. */
static void unpack_row(const struct apr_kern *kern, const struct apr_quant *q, const uint8_t *blocks,
                       float *x, size_t n)
{
    float last[MAX_BLOCK_ELEMS];
    size_t n_whole = n / q->block_elems * q->block_elems;
    if (n_whole) kern->to_f32[q->type](blocks, x, n_whole);
    if (n == n_whole) return;
    kern->to_f32[q->type](blocks + bytes_of(q, n_whole), last, q->block_elems);
    memcpy(x + n_whole, last, (n - n_whole) * sizeof *x);
}

/* The next values, as many as make a piece, as floats into j->in. Padded rows are read whole, flat blocks run
 * on. *n_raw: bytes of them, which stay in l->raw. */
static enum apr_code load_packed(struct loop *l, struct job *j, const struct apr_quant *q, uint64_t at,
                                 uint64_t off, size_t *n_raw, struct apr_err *e)
{
    uint64_t n_left = apr_tensor_elems(j->src) - at;
    uint64_t n_cols = j->src->packing == APR_FLAT ? PIECE_ELEMS : apr_tensor_cols(j->src);
    uint64_t n_padded = (n_cols + q->block_elems - 1) / q->block_elems * q->block_elems;
    float *x = (float *)(void *)j->in; /* from the arena: aligned */
    if (n_padded > PIECE_ELEMS)
        return apr_fail(e, APR_ELOAD,
                        "%s: tensor %s: padded rows of %" PRIu64 " columns, expected at most %zu",
                        l->c->model->path, j->src->name, n_cols, PIECE_ELEMS);
    uint64_t n = PIECE_ELEMS / n_padded * n_cols;
    j->n_elems = (size_t)(n_left < n ? n_left : n);
    *n_raw = 0;
    for (size_t i = 0; i < j->n_elems; i += (size_t)n_cols)
        *n_raw += bytes_of(q, j->n_elems - i < n_cols ? j->n_elems - i : (size_t)n_cols);
    TRY(apr_model_read(l->c->model, j->src, off, l->raw, *n_raw, e));
    const uint8_t *row = l->raw;
    for (size_t i = 0; i < j->n_elems; i += (size_t)n_cols) {
        size_t n_row = j->n_elems - i < n_cols ? j->n_elems - i : (size_t)n_cols;
        unpack_row(l->c->kern, q, row, x + i, n_row);
        row += bytes_of(q, n_row);
    }
    return APR_OK;
}

/* Kept as it is, or stored as rows of another type. */
static enum apr_code move_packed(struct loop *l, const struct apr_plan_tensor *p, struct apr_xxh3 *hash,
                                 struct apr_err *e)
{
    const struct apr_quant *q = apr_quant_of(p->src->type);
    bool keep = p->type == p->src->type;
    struct job j = {.c = l->c,
                    .src = p->src,
                    .from = apr_quant_of(APR_F32),
                    .to = apr_quant_of(keep ? APR_F32 : p->type),
                    .in = l->in,
                    .out = l->out,
                    .importance = p->importance,
                    .narrows = !keep,
                    .scratch = l->scratch};
    uint64_t n_all = apr_tensor_elems(p->src), off = 0;
    struct apr_stats stats;
    size_t n_raw;
    apr_stats_init(&stats);
    if (j.to->head_bytes || q->head_bytes || q->block_elems > MAX_BLOCK_ELEMS)
        return apr_fail(e, APR_EUNAVAIL,
                        "tensor %s: padded or flat %s cannot become %s; convert to F16 first", p->name,
                        q->name, j.to->name);
    if (!l->raw) l->raw = apr_arena_get(&l->arena, APR_PIECE_BYTES);
    for (uint64_t at = 0; at < n_all; at += j.n_elems) {
        TRY(load_packed(l, &j, q, at, off, &n_raw, e));
        TRY(convert_loaded(&j, at, &stats, e));
        judge_spots(l, &j, at);
        if (at + j.n_elems == n_all) TRY(judge_tensor(l, &j, &stats, e));
        TRY(emit(l, hash, keep ? l->raw : l->out, keep ? n_raw : bytes_of(j.to, j.n_elems), e));
        apr_progress_add(&l->progress, n_raw);
        off += n_raw;
    }
    return APR_OK;
}

static enum apr_code move_tensor(struct loop *l, const struct apr_plan_tensor *p, struct apr_xxh3 *hash,
                                 struct apr_err *e)
{
    const struct apr_convert *c = l->c;
    struct job j = {.c = c,
                    .src = p->src,
                    .from = apr_quant_of(p->src->type),
                    .to = apr_quant_of(p->type),
                    .in = l->in,
                    .out = l->out,
                    .importance = p->importance,
                    .scratch = l->scratch};
    if (!j.from || !c->kern->to_f32[p->src->type]) return carry(l, p->src, hash, e);
    if (p->src->packing != APR_ROWS) return move_packed(l, p, hash, e);
    struct apr_stats stats;
    apr_stats_init(&stats);
    TRY(head(l, &j, hash, e));
    j.narrows = j.to != j.from;
    uint64_t n_all = apr_tensor_elems(p->src);
    for (uint64_t at = 0; at < n_all; at += j.n_elems) {
        TRY(convert_piece(&j, at, &stats, e));
        judge_spots(l, &j, at);
        if (at + j.n_elems == n_all) TRY(judge_tensor(l, &j, &stats, e));
        TRY(emit(l, hash, j.narrows ? l->out : l->in, bytes_of(j.to, j.n_elems), e));
        apr_progress_add(&l->progress, bytes_of(j.from, j.n_elems));
    }
    return APR_OK;
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

static enum apr_code run(struct loop *l, struct apr_sink *s, json_t *hashes, struct apr_err *e)
{
    const struct apr_convert *c = l->c;
    for (uint64_t i = 0; i < c->plan->n_tensors; i++) {
        const struct apr_plan_tensor *p = &c->plan->tensors[i];
        struct apr_xxh3 *hash = apr_xxh3_begin();
        enum apr_code code = move_tensor(l, p, hash, e);
        char hex[17];
        snprintf(hex, sizeof hex, "%016" PRIx64, apr_xxh3_end(hash));
        if (code != APR_OK) return code;
        if (hashes) json_object_set_new(hashes, p->name, json_string(hex));
        if (apr_sink_failed(s)) break; /* the text comes from apr_sink_finish */
    }
    return c->more ? APR_OK : apr_model_end(c->model, e);
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

enum apr_code apr_convert_run(const struct apr_convert *c, struct apr_sink *s, json_t *trailer,
                              struct apr_err *e)
{
    TRY(check_plan(c, e));
    apr_sink_pack(s, c->plan->pack, APR_HEADER_BYTES, c->pool);
    TRY(check_output(c, s, e));
    struct loop l = {.c = c};
    apr_arena_init(&l.arena);
    apr_verdict_init(&l.verdict, &l.arena);
    l.in = apr_arena_get(&l.arena, APR_PIECE_BYTES);
    l.out = apr_arena_get(&l.arena, APR_PIECE_BYTES);
    l.scratch = apr_arena_get(&l.arena, apr_pool_threads(c->pool) * 2 * CHUNK_ELEMS * sizeof(float));
    uint64_t n_in = 0;
    for (uint64_t i = 0; i < c->plan->n_tensors; i++) n_in += c->plan->tensors[i].src->n_bytes;
    json_t *hashes = trailer ? json_object() : NULL;
    enum apr_code code = c->fmt->begin(c->plan, s, &l.w, e);
    if (code == APR_OK) {
        apr_progress_begin(&l.progress, c->fmt->name, n_in, "B");
        code = run(&l, s, hashes, e);
        apr_progress_end(&l.progress);
        if (trailer) json_object_set(trailer, "tensors", hashes);
        if (trailer && code == APR_OK) code = apr_provenance_trail(c->model, trailer, e);
        if (code == APR_OK)
            code = c->fmt->end(l.w, trailer, e);
        else
            c->fmt->abort(l.w);
    }
    json_decref(hashes);
    apr_arena_free(&l.arena);
    return code;
}

uint64_t apr_convert_peak_bytes(const struct apr_pool *pool)
{
    return 2 * (uint64_t)APR_PIECE_BYTES + (uint64_t)apr_pool_threads(pool) * 2 * CHUNK_ELEMS * sizeof(float);
}
