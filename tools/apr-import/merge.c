#include "merge.h"

#include <assert.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

/* A chunk may begin and end inside a block where rows end in padding; no block is longer. */
#define SPARE_ELEMS    ((size_t)256)
#define MAX_ELEM_BYTES sizeof(double)

struct merge_scratch {
    uint8_t *raw;    /* a chunk as stored */
    float *wide;     /* the same widened, with the rest of its first and last block */
    float *x;        /* [n_inputs + 1][MERGE_CHUNK]; the base is the last */
    double *sum;     /* [MERGE_CHUNK] */
    uint64_t i_fail; /* chunk of the failure that err tells; UINT64_MAX: none */
    struct apr_err err;
};

struct pass {
    struct merge *g;
    uint64_t first, n;
    size_t i_only;
    float *out;
    merge_chunk_fn *fn;
    void *ctx;
};

bool merge_is_mixed(const struct apr_kern *k, enum apr_type type)
{
    const struct apr_quant *q = apr_quant_of(type);
    if (!q || !k->to_f32[type]) return false;
    return q->is_quantized || type == APR_F32 || type == APR_F16 || type == APR_BF16 || type == APR_F64;
}

/* ---- reading ------------------------------------------------------------------------------------------ */

/* n values from value at of one span: a run of blocks without padding inside. off: of the span's first block.
 */
static enum apr_code read_span(struct apr_model *m, const struct apr_tensor *t, uint64_t off, uint64_t at,
                               size_t n, const struct merge *g, struct merge_scratch *s, float *x,
                               struct apr_err *e)
{
    const struct apr_quant *q = apr_quant_of(t->type);
    size_t skip = (size_t)(at % q->block_elems);
    size_t n_blocks = (skip + n + q->block_elems - 1) / q->block_elems;
    float *to = skip == 0 && n % q->block_elems == 0 ? x : s->wide;
    TRY(apr_model_read(m, t, off + at / q->block_elems * q->block_bytes, s->raw, n_blocks * q->block_bytes,
                       e));
    if (q->head_bytes) {
        float scale; /* one for the tensor, in front of it */
        TRY(apr_model_read(m, t, 0, &scale, sizeof scale, e));
        apr_native_q8_to_f32(scale, (const int8_t *)s->raw, to, n_blocks * q->block_elems);
    } else {
        g->kern->to_f32[t->type](s->raw, to, n_blocks * q->block_elems);
    }
    if (to != x) memcpy(x, to + skip, n * sizeof *x);
    return APR_OK;
}

static enum apr_code read_values(struct apr_model *m, const struct apr_tensor *t, uint64_t first, size_t n,
                                 const struct merge *g, struct merge_scratch *s, float *x, struct apr_err *e)
{
    const struct apr_quant *q = apr_quant_of(t->type);
    uint64_t n_cols = apr_tensor_cols(t);
    if (t->packing != APR_ROWS_PADDED) return read_span(m, t, q->head_bytes, first, n, g, s, x, e);
    uint64_t row_bytes = (n_cols + q->block_elems - 1) / q->block_elems * q->block_bytes;
    while (n > 0) {
        uint64_t i_row = first / n_cols, i_col = first % n_cols;
        size_t k = n_cols - i_col < n ? (size_t)(n_cols - i_col) : n;
        TRY(read_span(m, t, i_row * row_bytes, i_col, k, g, s, x, e));
        first += k;
        x += k;
        n -= k;
    }
    return APR_OK;
}

/* Trimming and voting would hide a NaN; so it is met here. (F-DATA-QUALITY-002) */
static enum apr_code check_finite(const struct apr_model *m, const struct apr_tensor *t, uint64_t first,
                                  const float *x, size_t n, struct apr_err *e)
{
    for (size_t i = 0; i < n; i++)
        if (!isfinite(x[i]))
            return apr_fail(e, APR_ECONTRACT,
                            "%s: F-DATA-QUALITY-002 %s: value %" PRIu64 " is %s; expected a finite number",
                            m->path, t->name, first + i, isnan(x[i]) ? "NaN" : "infinite");
    return APR_OK;
}

/* ---- passes ------------------------------------------------------------------------------------------- */

static enum apr_code load(const struct pass *p, struct merge_chunk *c, struct merge_scratch *s,
                          struct apr_err *e)
{
    struct merge *g = p->g;
    for (size_t k = 0; k <= g->n_inputs; k++) {
        bool is_base = k == g->n_inputs;
        struct apr_model *m = is_base ? g->base : g->inputs[k];
        const struct apr_tensor *t = is_base ? g->now.base : g->now.in[k];
        float *x = s->x + k * MERGE_CHUNK;
        if (!m || (!is_base && p->i_only != MERGE_ALL && p->i_only != k)) continue;
        TRY(read_values(m, t, c->first, c->n, g, s, x, e));
        TRY(check_finite(m, t, c->first, x, c->n, e));
        if (is_base)
            c->base = x;
        else
            c->x[k] = x;
    }
    return APR_OK;
}

static void run_chunks(void *ctx, size_t i_begin, size_t i_end, unsigned i_thread)
{
    const struct pass *p = ctx;
    struct merge_scratch *s = &p->g->scratch[i_thread];
    for (size_t i = i_begin; i < i_end && i < s->i_fail;
         i++) { /* chunks come in any order: the first tells */
        uint64_t at = (uint64_t)i * MERGE_CHUNK;
        struct merge_chunk c = {.g = p->g,
                                .first = p->first + at,
                                .n = p->n - at < MERGE_CHUNK ? (size_t)(p->n - at) : MERGE_CHUNK,
                                .i_chunk = i,
                                .i_thread = i_thread,
                                .sum = s->sum,
                                .out = p->out ? p->out + at : NULL,
                                .ctx = p->ctx};
        if (load(p, &c, s, &s->err) == APR_OK)
            p->fn(&c);
        else
            s->i_fail = i;
    }
}

enum apr_code merge_pass(struct merge *g, uint64_t first, uint64_t n, size_t i_only, float *out,
                         merge_chunk_fn *fn, void *ctx, struct apr_err *e)
{
    struct pass p = {.g = g, .first = first, .n = n, .i_only = i_only, .out = out, .fn = fn, .ctx = ctx};
    const struct merge_scratch *failed = NULL;
    unsigned n_threads = apr_pool_threads(g->pool);
    for (unsigned i = 0; i < n_threads; i++) g->scratch[i].i_fail = UINT64_MAX;
    size_t n_chunks = (size_t)((n + MERGE_CHUNK - 1) / MERGE_CHUNK);
    if (g->is_serial)
        run_chunks(&p, 0, n_chunks, 0);
    else
        apr_parallel_for(g->pool, n_chunks, 1, run_chunks, &p);
    for (unsigned i = 0; i < n_threads; i++)
        if (g->scratch[i].i_fail != UINT64_MAX && (!failed || g->scratch[i].i_fail < failed->i_fail))
            failed = &g->scratch[i];
    if (!failed) return APR_OK;
    *e = failed->err;
    return failed->err.code;
}

/* ---- the merge as a model ----------------------------------------------------------------------------- */

static enum apr_code take_up(struct merge *g, const struct apr_tensor *t, struct apr_err *e)
{
    g->now = (struct merge_tensor){.n_elems = apr_tensor_elems(t)};
    for (size_t k = 0; k < g->n_inputs; k++) g->now.in[k] = apr_model_find(g->inputs[k], t->name);
    if (g->base) g->now.base = apr_model_find(g->base, t->name);
    if (g->method->prepare && merge_is_mixed(g->kern, g->now.in[0]->type)) TRY(g->method->prepare(g, e));
    g->now.t = t; /* last: a failed prepare is not taken for a finished one */
    return APR_OK;
}

/* Whole numbers and the like: the same in every model, or there is no merge of them. */
static enum apr_code pass_on(struct merge *g, const struct apr_tensor *t, uint64_t off, void *dst, size_t n,
                             struct apr_err *e)
{
    uint8_t other[4096], *to = dst;
    TRY(apr_model_read(g->inputs[0], g->now.in[0], off, to, n, e));
    for (size_t k = 1; k < g->n_inputs + (g->base != NULL); k++) {
        bool is_base = k == g->n_inputs;
        struct apr_model *m = is_base ? g->base : g->inputs[k];
        for (size_t at = 0; at < n; at += sizeof other) {
            size_t part = n - at < sizeof other ? n - at : sizeof other;
            TRY(apr_model_read(m, is_base ? g->now.base : g->now.in[k], off + at, other, part, e));
            if (memcmp(other, to + at, part) != 0)
                return apr_fail(e, APR_ECONTRACT,
                                "%s: tensor %s: its %s values differ from those of %s and cannot be mixed",
                                m->path, t->name, apr_type_name(t->type), g->inputs[0]->path);
        }
    }
    return APR_OK;
}

static enum apr_code compute(struct apr_model *m, const struct apr_tensor *t, uint64_t off, void *dst,
                             size_t n, struct apr_err *e)
{
    struct merge *g = m->compute_ctx;
    if (g->now.t != t) TRY(take_up(g, t, e));
    if (!merge_is_mixed(g->kern, g->now.in[0]->type)) return pass_on(g, t, off, dst, n, e);
    assert(off % sizeof(float) == 0 && n % sizeof(float) == 0);
    return merge_pass(g, off / sizeof(float), n / sizeof(float), MERGE_ALL, dst, g->method->mix, NULL, e);
}

static enum apr_code make_tensors(struct merge *g, struct apr_err *e)
{
    const struct apr_model *a = g->inputs[0];
    for (uint64_t i = 0; i < a->n_tensors; i++) {
        struct apr_tensor *t;
        TRY(apr_model_add_tensor(g->model, &t, e));
        *t = a->tensors[i];
        t->i_file = 0;
        t->off_file = 0;
        t->data = NULL;
        t->parts = NULL;
        t->is_turned = false;
        if (!merge_is_mixed(g->kern, t->type)) continue;
        t->type = APR_F32;
        t->packing = APR_ROWS;
        TRY(apr_tensor_bytes(t->type, t->n_dims, t->dims, &t->n_bytes, e));
    }
    return apr_model_index(g->model, e);
}

static void make_scratch(struct merge *g)
{
    struct apr_arena *a = &g->model->arena;
    unsigned n_threads = apr_pool_threads(g->pool);
    g->scratch = apr_arena_get(a, n_threads * sizeof *g->scratch);
    for (unsigned i = 0; i < n_threads; i++) {
        struct merge_scratch *s = &g->scratch[i];
        s->raw = apr_arena_get(a, (MERGE_CHUNK + 2 * SPARE_ELEMS) * MAX_ELEM_BYTES);
        s->wide = apr_arena_get(a, (MERGE_CHUNK + 2 * SPARE_ELEMS) * sizeof *s->wide);
        s->x = apr_arena_get(a, (g->n_inputs + 1) * MERGE_CHUNK * sizeof *s->x);
        s->sum = apr_arena_get(a, MERGE_CHUNK * sizeof *s->sum);
    }
}

enum apr_code merge_open(struct merge *g, struct apr_model *const *inputs, size_t n_inputs,
                         struct apr_model *base, struct apr_err *e)
{
    const struct apr_model *a = inputs[0];
    assert(n_inputs >= 1 && n_inputs <= MERGE_MAX_INPUTS);
    g->n_inputs = n_inputs;
    g->base = base;
    g->now = (struct merge_tensor){.t = NULL};
    for (size_t k = 0; k < n_inputs; k++) g->inputs[k] = inputs[k];
    for (size_t k = 1; k < n_inputs; k++) TRY(merge_compatible(a, inputs[k], e));
    if (base) TRY(merge_compatible(a, base, e));
    for (size_t k = 0; k < n_inputs + (base != NULL); k++) {
        const struct apr_model *m = k < n_inputs ? inputs[k] : base;
        for (uint32_t i = 0; i < m->n_files; i++) g->is_serial |= apr_src_packed(m->files[i].src);
        for (uint64_t i = 0; i < a->n_tensors; i++) {
            const struct apr_tensor *t = apr_model_find(m, a->tensors[i].name);
            bool mixed = merge_is_mixed(g->kern, a->tensors[i].type);
            if (mixed ? !merge_is_mixed(g->kern, t->type) : t->type != a->tensors[i].type)
                return apr_fail(e, APR_ELOAD, "%s: tensor %s: %s values cannot be mixed with %s", m->path,
                                t->name, apr_type_name(t->type), apr_type_name(a->tensors[i].type));
        }
    }
    g->model = apr_model_new("the merge");
    g->model->fmt = a->fmt;
    g->model->name = a->name;
    g->model->family = a->family;
    g->model->arch = a->arch;
    g->model->config = a->config;
    g->model->compute = compute;
    g->model->compute_ctx = g;
    make_scratch(g);
    return make_tensors(g, e);
}

uint64_t merge_held_bytes(const struct merge *g)
{
    uint64_t n_most_elems = 0;
    for (uint64_t i = 0; i < g->model->n_tensors; i++) {
        uint64_t n = apr_tensor_elems(&g->model->tensors[i]);
        if (n > n_most_elems) n_most_elems = n;
    }
    uint64_t per_thread = (MERGE_CHUNK + 2 * SPARE_ELEMS) * (MAX_ELEM_BYTES + sizeof(float)) +
                          MERGE_CHUNK * ((g->n_inputs + 1) * sizeof(float) + sizeof(double));
    uint64_t n_prepare =
        g->method->prepare_bytes ? g->method->prepare_bytes(n_most_elems, apr_pool_threads(g->pool)) : 0;
    return apr_pool_threads(g->pool) * per_thread + n_prepare;
}

void merge_close(struct merge *g)
{
    apr_model_close(g->model);
    g->model = NULL;
}
