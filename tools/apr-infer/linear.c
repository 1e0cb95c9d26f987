/* Matrix products, split into a stream of rows for each thread, so that memory is read in long ascending
 * streams; their ends are cut into ever shorter runs that others may take, so that threads of unequal speed
 * end together. */
#include "linear.h"

#include <assert.h>
#include <string.h>

#include "ckd.h"
#include "strips.h"

#define UNIT_ROWS   16u          /* runs are of so many rows: kernels work on tiles of 4, 8 or 16 */
#define OUT_BYTES   (256u << 10) /* of outputs between two activations, so that they are still in cache */
#define MOST_DIVIDE 32u          /* a run has this part of a thread's share at least */
#define AHEAD_BYTES (64u << 10)  /* of the next product, for a thread that waits */

/* A thread's share of the units is one ascending stream, cut into runs: a half, a quarter, and so on. Run
 * k * n_threads + t is run k of thread t (pool.h). */
struct runs {
    size_t n_units, n_threads, n_a_thread;
};

static struct runs runs_of(size_t n_units, size_t n_threads)
{
    size_t n = 1, n_share = (n_units + n_threads - 1) / n_threads;
    for (size_t i = 1; i < MOST_DIVIDE && n_share >> n; i *= 2) n++;
    return (struct runs){n_units, n_threads, n};
}

/* Units [begin, end) of run i; there may be none. */
static void run_at(const struct runs *r, size_t i, size_t *begin, size_t *end)
{
    size_t t = i % r->n_threads, k = i / r->n_threads;
    size_t first = r->n_units * t / r->n_threads, last = r->n_units * (t + 1) / r->n_threads;
    *begin = last - ((last - first) >> k);
    *end = k + 1 == r->n_a_thread ? last : last - ((last - first) >> (k + 1));
}

static size_t n_runs_of(const struct runs *r)
{
    return r->n_a_thread * r->n_threads;
}

struct job {
    const struct apr_compute *c;
    const struct apr_map *maps;
    size_t n_maps;
    enum apr_activation activation; /* of act_rows */
    void (*rows)(const struct job *j, const struct apr_map *m, size_t r0, size_t r1, unsigned i_thread);
    struct runs runs;
    struct apr_map next[APR_MAX_PRODUCTS]; /* w and w_strips of the product that follows */
    size_t n_next;
};

static size_t stride_of(const struct apr_acts *x)
{
    return x->n_stride ? x->n_stride : x->n_cols;
}

/* Rows [r0, r1) of one product, all tokens; r0 is a multiple of UNIT_ROWS. Rows beyond the last strip,
 * and all where strips is NULL, come from the file. */
static void product_rows(const struct apr_compute *c, const struct apr_acts *x, const struct apr_mat *w,
                         const uint8_t *strips, float *y, size_t y_stride, size_t r0, size_t r1,
                         unsigned i_thread)
{
    enum apr_act act = c->exact ? APR_ACT_F32 : w->mm->act;
    const struct {
        const void *rows;
        size_t row_bytes;
    } in[] = {
        [APR_ACT_F32] = {x->f32, stride_of(x) * sizeof(float)},
        [APR_ACT_Q8_32] = {x->q32, stride_of(x) / 32 * sizeof(struct apr_act32)},
        [APR_ACT_Q8_256] = {x->q256, stride_of(x) / 256 * sizeof(struct apr_act256)},
        [APR_ACT_SPLIT] = {x->split, stride_of(x) * 2 * sizeof(uint16_t)},
    };
    uint8_t *scratch = c->scratch + i_thread * c->scratch_bytes;
    if (strips) {
        size_t r = r1 - r1 % APR_STRIP_ROWS;
        if (r > r0)
            w->mm->strips(strips + r0 * w->row_bytes, w->row_bytes, r - r0, w->n_cols, in[act].rows,
                          in[act].row_bytes, x->n_toks, y + r0, y_stride, scratch);
        r0 = r;
    }
    apr_matmul_fn *fn = c->exact ? w->mm->exact : w->mm->fast;
    if (r1 > r0)
        fn(w->data + r0 * w->row_bytes, w->row_bytes, r1 - r0, w->n_cols, in[act].rows, in[act].row_bytes,
           x->n_toks, y + r0, y_stride, scratch);
}

static void plain_rows(const struct job *j, const struct apr_map *m, size_t r0, size_t r1, unsigned i_thread)
{
    size_t y_stride = m->y_stride ? m->y_stride : m->w->n_rows;
    product_rows(j->c, m->x, m->w, m->w_strips, m->y, y_stride, r0, r1, i_thread);
    for (size_t t = 0; m->then && t < m->x->n_toks; t++)
        m->then(m->then_ctx, t, r0, m->y + t * y_stride + r0, r1 - r0);
}

void apr_activate(const struct apr_kern *kern, enum apr_activation activation, const float *x, float *y,
                  size_t n)
{
    void (*const fns[])(const float *, float *, size_t) = {[APR_SILU] = kern->silu,
                                                           [APR_GELU] = kern->gelu,
                                                           [APR_GELU_TANH] = kern->gelu_tanh,
                                                           [APR_RELU] = kern->relu};
    fns[activation](x, y, n);
}

/* y = act(gate) * y, n values. */
static void apply_gate(const struct apr_kern *kern, enum apr_activation activation, float *gate, float *y,
                       size_t n)
{
    if (activation == APR_SILU) {
        kern->silu_mul(gate, y, y, n);
        return;
    }
    apr_activate(kern, activation, gate, gate, n);
    kern->mul(y, gate, n);
}

static void gated_rows(const struct job *j, const struct apr_map *m, size_t r0, size_t r1, unsigned i_thread)
{
    const struct apr_kern *kern = j->c->kern;
    size_t n_rows = m->w->n_rows, n = r1 - r0;
    if (m->gate) product_rows(j->c, m->x, m->gate, m->gate_strips, m->gate_y, n_rows, r0, r1, i_thread);
    product_rows(j->c, m->x, m->w, m->w_strips, m->y, n_rows, r0, r1, i_thread);
    for (size_t t = 0; t < m->x->n_toks; t++) {
        float *y = m->y + t * n_rows + r0, *g = m->gate ? m->gate_y + t * n_rows + r0 : NULL;
        if (m->w->bias) kern->add(y, m->w->bias + r0, n);
        if (!g) {
            apr_activate(kern, j->activation, y, y, n);
            continue;
        }
        if (m->gate->bias) kern->add(g, m->gate->bias + r0, n);
        apply_gate(kern, j->activation, g, y, n);
    }
}

/* The outputs of many tokens would leave the cache before they are activated. Those of few are small: gate
 * and up then are two long streams, not pieces of both in turns. */
static void act_rows(const struct job *j, const struct apr_map *m, size_t r0, size_t r1, unsigned i_thread)
{
    size_t n_toks = m->x->n_toks ? m->x->n_toks : 1; /* an expert may have none */
    size_t n = OUT_BYTES / (2 * sizeof(float)) / n_toks / UNIT_ROWS * UNIT_ROWS;
    if (n == 0) n = UNIT_ROWS;
    for (; r0 < r1; r0 += n) gated_rows(j, m, r0, r1 - r0 < n ? r1 : r0 + n, i_thread);
}

static void run_task(void *ctx, size_t i_begin, size_t i_end, unsigned i_thread)
{
    const struct job *j = ctx;
    for (size_t i = i_begin; i < i_end; i++) {
        size_t unit, end, low = 0, high = j->n_maps - 1; /* the map that holds the run's first unit */
        run_at(&j->runs, i, &unit, &end);
        while (low < high) {
            size_t middle = low + (high - low) / 2;
            if (j->maps[middle].i_last_unit > unit)
                high = middle;
            else
                low = middle + 1;
        }
        for (; unit < end; low++) { /* a run may go on in the next maps */
            const struct apr_map *m = &j->maps[low];
            size_t i_first = low ? j->maps[low - 1].i_last_unit : 0;
            size_t last = end < m->i_last_unit ? end : m->i_last_unit;
            size_t r0 = (unit - i_first) * UNIT_ROWS, r1 = (last - i_first) * UNIT_ROWS;
            if (last > unit) j->rows(j, m, r0, r1 < m->w->n_rows ? r1 : m->w->n_rows, i_thread);
            unit = last;
        }
    }
}

/* What thread i_thread reads first in the next product. */
static struct apr_ahead ahead_of(void *ctx, unsigned i_thread)
{
    const struct job *j = ctx;
    size_t n_units = 0;
    for (size_t i = 0; i < j->n_next; i++) n_units += (j->next[i].w->n_rows + UNIT_ROWS - 1) / UNIT_ROWS;
    size_t unit = n_units * i_thread / j->runs.n_threads;
    for (size_t i = 0; i < j->n_next; i++) {
        const struct apr_mat *w = j->next[i].w;
        size_t n = (w->n_rows + UNIT_ROWS - 1) / UNIT_ROWS;
        if (unit < n) {
            const uint8_t *at = j->next[i].w_strips ? j->next[i].w_strips : w->data;
            size_t n_bytes = (w->n_rows - unit * UNIT_ROWS) * w->row_bytes;
            return (struct apr_ahead){at + unit * UNIT_ROWS * w->row_bytes,
                                      n_bytes < AHEAD_BYTES ? n_bytes : AHEAD_BYTES};
        }
        unit -= n;
    }
    return (struct apr_ahead){0};
}

static void run(struct job *j, struct apr_map *maps)
{
    size_t n_units = 0;
    for (size_t i = 0; i < j->n_maps; i++) {
        struct apr_map *m = &maps[i];
        assert(m->w->n_cols == m->x->n_cols && (!m->gate || m->gate->n_rows == m->w->n_rows));
        n_units += (m->w->n_rows + UNIT_ROWS - 1) / UNIT_ROWS;
        m->i_last_unit = n_units;
        m->w_strips = j->c->exact ? NULL : apr_strips_of(j->c->strips, j->c->pool, m->w, m->x->n_toks);
        m->gate_strips = NULL;
        if (m->gate && !j->c->exact)
            m->gate_strips = apr_strips_of(j->c->strips, j->c->pool, m->gate, m->x->n_toks);
        if (j->c->tap && m->gate) j->c->tap(j->c->tap_ctx, m->gate, m->x);
        if (j->c->tap) j->c->tap(j->c->tap_ctx, m->w, m->x);
    }
    j->maps = maps;
    j->runs = runs_of(n_units, apr_pool_threads(j->c->pool));
    j->n_next = j->c->next.n;
    for (size_t i = 0; i < j->n_next; i++) {
        const struct apr_mat *w = j->c->next.mats[i];
        j->next[i] = (struct apr_map){.w = w, .w_strips = apr_strips_made(j->c->strips, w)};
    }
    apr_parallel_for_ahead(j->c->pool, n_runs_of(&j->runs), 1, run_task, j->n_next ? ahead_of : NULL, j);
}

void apr_linear_each(const struct apr_compute *c, struct apr_map *maps, size_t n_maps)
{
    struct job j = {.c = c, .n_maps = n_maps, .rows = plain_rows};
    run(&j, maps);
}

void apr_linear_act(const struct apr_compute *c, struct apr_map *maps, size_t n_maps,
                    enum apr_activation activation)
{
    struct job j = {.c = c, .n_maps = n_maps, .rows = act_rows, .activation = activation};
    run(&j, maps);
}

void apr_linear(const struct apr_compute *c, const struct apr_acts *x, const struct apr_product *products,
                size_t n_products)
{
    struct apr_map maps[APR_MAX_PRODUCTS] = {0};
    assert(n_products <= APR_MAX_PRODUCTS);
    for (size_t i = 0; i < n_products; i++)
        maps[i] = (struct apr_map){.w = products[i].w, .x = x, .y = products[i].y};
    apr_linear_each(c, maps, n_products);
}

unsigned apr_mat_wants(const struct apr_mat *w, bool exact)
{
    return 1u << (exact ? APR_ACT_F32 : w->mm->act);
}

void apr_acts_pack(const struct apr_compute *c, const struct apr_acts *x, unsigned wants, size_t i_tok)
{
    const float *row = x->f32 + i_tok * x->n_cols;
    if (wants & 1u << APR_ACT_Q8_32) c->kern->to_act32(row, x->q32 + i_tok * (x->n_cols / 32), x->n_cols);
    if (wants & 1u << APR_ACT_Q8_256) c->kern->to_act256(row, x->q256 + i_tok * (x->n_cols / 256), x->n_cols);
    if (wants & 1u << APR_ACT_SPLIT) {
        uint16_t *high = x->split + i_tok * 2 * x->n_cols;
        c->kern->split_bf16(row, high, high + x->n_cols, x->n_cols);
    }
}

struct apr_acts apr_acts_cols(const struct apr_acts *x, size_t i_col, size_t n_cols)
{
    struct apr_acts view = *x;
    view.n_cols = n_cols;
    view.n_stride = stride_of(x);
    view.f32 += i_col;
    if (view.q32) view.q32 += i_col / 32;
    if (view.q256) view.q256 += i_col / 256;
    if (view.split) view.split += i_col;
    return view;
}

struct apr_acts apr_acts_rows(const struct apr_acts *x, size_t i_row, size_t n_rows)
{
    struct apr_acts view = *x;
    size_t n = stride_of(x);
    view.n_toks = n_rows;
    view.f32 += i_row * n;
    if (view.q32) view.q32 += i_row * (n / 32);
    if (view.q256) view.q256 += i_row * (n / 256);
    if (view.split) view.split += i_row * 2 * n;
    return view;
}

enum apr_code apr_acts_alloc(struct apr_acts *a, size_t n_rows, size_t n_cols, bool f32_alone,
                             struct apr_arena *arena, struct apr_err *e)
{
    size_t n = 0;
    *a = (struct apr_acts){.n_cols = n_cols};
    if (ckd_mul(&n, n_cols, n_rows)) return apr_fail(e, APR_ELOAD, "%zu rows are too many", n_rows);
    TRY(apr_arena_try(arena, &a->f32, n, sizeof *a->f32, "activations", e));
    if (f32_alone) return APR_OK;
    TRY(apr_arena_try(arena, &a->split, n, 2 * sizeof *a->split, "activations", e));
    TRY(apr_arena_try(arena, &a->q32, n_cols / 32 * n_rows, sizeof *a->q32, "activations", e));
    return apr_arena_try(arena, &a->q256, n_cols / 256 * n_rows, sizeof *a->q256, "activations", e);
}

void apr_acts_copy(const struct apr_acts *a, size_t i_to, const struct apr_acts *b, size_t i_from,
                   unsigned wants)
{
    size_t n = a->n_cols, n32 = n / 32, n256 = n / 256;
    assert(n == b->n_cols);
    if (wants & 1u << APR_ACT_F32) memcpy(a->f32 + i_to * n, b->f32 + i_from * n, n * sizeof *a->f32);
    if (wants & 1u << APR_ACT_Q8_32) memcpy(a->q32 + i_to * n32, b->q32 + i_from * n32, n32 * sizeof *a->q32);
    if (wants & 1u << APR_ACT_Q8_256)
        memcpy(a->q256 + i_to * n256, b->q256 + i_from * n256, n256 * sizeof *a->q256);
    if (wants & 1u << APR_ACT_SPLIT)
        memcpy(a->split + i_to * 2 * n, b->split + i_from * 2 * n, 2 * n * sizeof *a->split);
}
