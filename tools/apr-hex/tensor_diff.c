/* Values of two tensors against each other. See tensor_diff.h. */
#include "tensor_diff.h"

#include <math.h>
#include <string.h>

#include "values.h"

#define CHUNK_ELEMS (64u << 10)
#define MAX_CHUNKS  4096u

struct part {
    uint64_t n_different;
    double max_diff, sum_diff;
};

struct job {
    struct apr_values a, b;
    uint64_t chunk_elems;
    double tolerance;
    struct part *parts;
};

static const char *const names[N_DIFF] = {
    [DIFF_IDENTICAL] = "identical",    [DIFF_WITHIN] = "within_tolerance",
    [DIFF_DIFFERENT] = "different",    [DIFF_TRANSPOSED] = "transposed",
    [DIFF_SHAPE] = "shape_mismatch",   [DIFF_MISSING_A] = "missing_in_a",
    [DIFF_MISSING_B] = "missing_in_b", [DIFF_NOT_COMPUTABLE] = "not_computable",
};

const char *tensor_diff_name(enum diff_status s)
{
    return names[s];
}

/* Two NaN are the same value, whatever their bits: formats differ in what they can say about a NaN. */
static double distance(float a, float b)
{
    const double d = fabs((double)a - (double)b);
    if (a == b || (isnan(a) && isnan(b))) return 0;
    return isnan(d) ? INFINITY : d;
}

static void compare_chunks(void *ctx, size_t i_begin, size_t i_end, unsigned i_thread)
{
    const struct job *j = ctx;
    float x[APR_VALUES_PIECE], y[APR_VALUES_PIECE];
    (void)i_thread;
    for (size_t c = i_begin; c < i_end; c++) {
        struct part *p = &j->parts[c];
        uint64_t at = c * j->chunk_elems;
        const uint64_t end = j->a.n - at < j->chunk_elems ? j->a.n : at + j->chunk_elems;
        for (; at < end; at += APR_VALUES_PIECE) {
            const size_t n = end - at < APR_VALUES_PIECE ? (size_t)(end - at) : APR_VALUES_PIECE;
            apr_values_get(&j->a, at, n, x);
            apr_values_get(&j->b, at, n, y);
            for (size_t i = 0; i < n; i++) {
                const double d = distance(x[i], y[i]);
                p->sum_diff += d;
                p->max_diff = d > p->max_diff ? d : p->max_diff;
                p->n_different += d > j->tolerance;
            }
        }
    }
}

/* The first values beyond the tolerance, from the chunks that have any. */
static enum apr_code collect(struct tensor_diff *d, const struct job *j, size_t n_chunks,
                             struct apr_arena *arena, struct apr_err *e)
{
    const size_t n_max = (size_t)(d->n_show < d->n_different ? d->n_show : d->n_different);
    TRY(apr_arena_try(arena, &d->shown, n_max, sizeof *d->shown, "values to show", e));
    for (size_t c = 0; c < n_chunks && d->n_shown < n_max; c++) {
        const uint64_t begin = c * j->chunk_elems;
        if (j->parts[c].n_different == 0) continue;
        for (uint64_t i = begin; i < j->a.n && i < begin + j->chunk_elems && d->n_shown < n_max; i++) {
            float x, y;
            apr_values_get(&j->a, i, 1, &x);
            apr_values_get(&j->b, i, 1, &y);
            if (distance(x, y) > j->tolerance) d->shown[d->n_shown++] = (struct shown_value){i, x, y};
        }
    }
    return APR_OK;
}

static enum apr_code compare_values(struct tensor_diff *d, struct job *j, struct apr_pool *pool,
                                    struct apr_arena *arena, struct apr_err *e)
{
    struct apr_arena scratch;
    j->tolerance = d->tolerance;
    j->chunk_elems = (j->a.n / MAX_CHUNKS / CHUNK_ELEMS + 1) * CHUNK_ELEMS;
    const size_t n_chunks = (size_t)((j->a.n + j->chunk_elems - 1) / j->chunk_elems);
    apr_arena_init(&scratch);
    enum apr_code code = apr_arena_try(&scratch, &j->parts, n_chunks, sizeof *j->parts, "differences", e);
    if (code == APR_OK) {
        if (n_chunks) apr_parallel_for(pool, n_chunks, 1, compare_chunks, j);
        for (size_t c = 0; c < n_chunks; c++) { /* in order: the same sum for any number of threads */
            d->n_different += j->parts[c].n_different;
            d->sum_diff += j->parts[c].sum_diff;
            d->max_diff = fmax(d->max_diff, j->parts[c].max_diff);
        }
        d->n = j->a.n;
        d->is_known = true;
        if (d->n_show) code = collect(d, j, n_chunks, arena, e);
    }
    apr_arena_free(&scratch);
    return code;
}

static bool same_shape(const struct apr_tensor *t, const struct apr_tensor *u)
{
    return t->n_dims == u->n_dims && memcmp(t->dims, u->dims, t->n_dims * sizeof t->dims[0]) == 0;
}

/* The same dimensions in another order. (F-LAYOUT-006) */
static bool is_permuted(const struct apr_tensor *t, const struct apr_tensor *u)
{
    bool taken[APR_MAX_DIMS] = {false};
    if (t->n_dims != u->n_dims) return false;
    for (uint32_t i = 0; i < t->n_dims; i++) {
        uint32_t k = 0;
        while (k < u->n_dims && (taken[k] || u->dims[k] != t->dims[i])) k++;
        if (k == u->n_dims) return false;
        taken[k] = true;
    }
    return true;
}

static enum diff_status judge(const struct tensor_diff *d, bool same)
{
    if (!same) return DIFF_TRANSPOSED;
    if (d->n_different) return DIFF_DIFFERENT;
    return d->max_diff > 0 ? DIFF_WITHIN : DIFF_IDENTICAL;
}

enum apr_code tensor_diff_run(struct tensor_diff *d, const struct apr_model *a, const struct apr_tensor *t,
                              const struct apr_model *b, const struct apr_tensor *u,
                              const struct apr_kern *kern, struct apr_pool *pool, struct apr_arena *arena,
                              struct apr_err *e)
{
    struct job j;
    d->status = !t ? DIFF_MISSING_A : !u ? DIFF_MISSING_B : DIFF_SHAPE;
    if (!t || !u) return APR_OK;
    const bool same = same_shape(t, u);
    if (!same && !is_permuted(t, u)) return APR_OK;
    if (!apr_values_known(t, kern) || !apr_values_known(u, kern)) {
        const bool equal = t->type == u->type && t->n_bytes == u->n_bytes && t->packing == u->packing &&
                           t->data && u->data && memcmp(t->data, u->data, (size_t)t->n_bytes) == 0;
        d->status = !same ? DIFF_TRANSPOSED : equal ? DIFF_IDENTICAL : DIFF_NOT_COMPUTABLE;
        return APR_OK;
    }
    TRY(apr_values_open(&j.a, a, t, kern, e));
    TRY(apr_values_open(&j.b, b, u, kern, e));
    TRY(compare_values(d, &j, pool, arena, e));
    d->status = judge(d, same);
    return APR_OK;
}
