/* Fingerprints of tensors, computed. See fingerprint.h. */
#include "fingerprint.h"

#include <math.h>
#include <string.h>

#include "hash.h"
#include "load.h"
#include "log.h"
#include "values.h"

#define N_KEYS      65536u         /* of 16 bits */
#define CHUNK_ELEMS (64u << 10)    /* one task at least; a multiple of every piece */
#define MAX_CHUNKS  4096u          /* per tensor: bounds the partial results */
#define SHOW_BYTES  (512ull << 20) /* models above show progress */

const unsigned apr_percentiles[APR_N_PERCENTILES] = {5, 25, 50, 75, 95};

struct part {
    struct apr_stats stats;
    uint32_t checksum;
    double sum_dev_sq;
};

struct job {
    struct apr_values v;
    uint64_t chunk_elems;
    size_t n_chunks;
    unsigned n_threads;
    struct part *parts;   /* [n_chunks] */
    uint64_t *high;       /* [n_threads, N_KEYS]: finite values by the upper half of the key */
    uint64_t *low;        /* [n_threads, APR_N_PERCENTILES, N_KEYS]: those of one bucket by the lower half */
    uint8_t slot[N_KEYS]; /* upper half -> 1 + row of low; 0: not looked for */
    double mean;
};

/* ---- keys --------------------------------------------------------------------------------------------- */

static inline uint32_t bits_of(float x)
{
    uint32_t u;
    memcpy(&u, &x, sizeof u);
    return u;
}

static inline bool is_finite(uint32_t bits)
{
    return (bits & 0x7f800000u) != 0x7f800000u;
}

/* Unsigned numbers in the order of the floats: negative ones reversed, below the positive ones. */
static inline uint32_t key_of(uint32_t bits)
{
    return bits >> 31 ? ~bits : bits | 0x80000000u;
}

static float float_of_key(uint32_t key)
{
    uint32_t bits = key >> 31 ? key & 0x7fffffffu : ~key;
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

/* ---- two passes --------------------------------------------------------------------------------------- */

typedef void piece_fn(const struct job *j, const float *x, size_t n, struct part *p, unsigned i_thread);

static void each_piece(const struct job *j, size_t i_begin, size_t i_end, unsigned i_thread, piece_fn *fn)
{
    float x[APR_VALUES_PIECE];
    for (size_t c = i_begin; c < i_end; c++) {
        uint64_t at = c * j->chunk_elems;
        const uint64_t end = j->v.n - at < j->chunk_elems ? j->v.n : at + j->chunk_elems;
        for (; at < end; at += APR_VALUES_PIECE) {
            const size_t n = end - at < APR_VALUES_PIECE ? (size_t)(end - at) : APR_VALUES_PIECE;
            apr_values_get(&j->v, at, n, x);
            fn(j, x, n, &j->parts[c], i_thread);
        }
    }
}

static void count_high(const struct job *j, const float *x, size_t n, struct part *p, unsigned i_thread)
{
    uint64_t *high = j->high + (size_t)i_thread * N_KEYS;
    uint32_t sum = 0;
    j->v.kern->stats(x, n, &p->stats);
    for (size_t i = 0; i < n; i++) {
        const uint32_t bits = bits_of(x[i]);
        sum += bits;
        if (is_finite(bits)) high[key_of(bits) >> 16]++;
    }
    p->checksum += sum;
}

static void count_low(const struct job *j, const float *x, size_t n, struct part *p, unsigned i_thread)
{
    uint64_t *low = j->low + (size_t)i_thread * APR_N_PERCENTILES * N_KEYS;
    double sum = 0;
    for (size_t i = 0; i < n; i++) {
        const uint32_t bits = bits_of(x[i]), key = key_of(bits);
        const double dev = (double)x[i] - j->mean;
        if (!is_finite(bits)) continue;
        sum += dev * dev;
        if (j->slot[key >> 16]) low[(j->slot[key >> 16] - 1u) * N_KEYS + (key & 0xffffu)]++;
    }
    p->sum_dev_sq += sum;
}

static void first_pass(void *ctx, size_t i_begin, size_t i_end, unsigned i_thread)
{
    each_piece(ctx, i_begin, i_end, i_thread, count_high);
}

static void second_pass(void *ctx, size_t i_begin, size_t i_end, unsigned i_thread)
{
    each_piece(ctx, i_begin, i_end, i_thread, count_low);
}

/* ---- results ------------------------------------------------------------------------------------------ */

/* Counts of all threads into the first one's; integers, so their order is free. */
static void add_up(uint64_t *counts, unsigned n_threads, size_t n)
{
    for (unsigned t = 1; t < n_threads; t++)
        for (size_t k = 0; k < n; k++) counts[k] += counts[t * n + k];
}

/* The key in which the value of this rank lies; *rank becomes its rank there. */
static uint32_t find_rank(const uint64_t *counts, uint64_t *rank)
{
    uint32_t k = 0;
    while (k + 1 < N_KEYS && *rank >= counts[k]) *rank -= counts[k++];
    return k;
}

static void take_moments(const struct job *j, struct apr_fingerprint *f, uint64_t *n_finite)
{
    struct apr_stats s;
    apr_stats_init(&s);
    for (size_t c = 0; c < j->n_chunks; c++) {
        const struct part *p = &j->parts[c];
        s.n_nan += p->stats.n_nan;
        s.n_inf += p->stats.n_inf;
        s.n_zero += p->stats.n_zero;
        s.sum += p->stats.sum;
        s.min = fminf(s.min, p->stats.min);
        s.max = fmaxf(s.max, p->stats.max);
        f->checksum += p->checksum;
    }
    *n_finite = j->v.n - s.n_nan - s.n_inf;
    f->n_nan = s.n_nan;
    f->n_inf = s.n_inf;
    f->zero_fraction = j->v.n ? (double)s.n_zero / (double)j->v.n : NAN;
    if (*n_finite == 0) return;
    f->mean = s.sum / (double)*n_finite;
    f->min = (double)s.min;
    f->max = (double)s.max;
}

/* Which upper halves the percentiles need; rank[i] becomes the rank within, row[i] its row of low. */
static void look_for(struct job *j, uint64_t n_finite, uint64_t *rank, uint32_t *high)
{
    unsigned n_rows = 0;
    for (unsigned i = 0; i < APR_N_PERCENTILES; i++) {
        const uint64_t last = n_finite - 1;
        rank[i] = last / 100 * apr_percentiles[i] + last % 100 * apr_percentiles[i] / 100;
        high[i] = find_rank(j->high, &rank[i]);
        if (j->slot[high[i]] == 0) j->slot[high[i]] = (uint8_t)++n_rows;
    }
}

/* A small tensor is one chunk: done here, with one row of counts. */
static void run_pass(struct job *j, struct apr_pool *pool, apr_task_fn *pass)
{
    if (j->n_threads == 1)
        pass(j, 0, j->n_chunks, 0);
    else
        apr_parallel_for(pool, j->n_chunks, 1, pass, j);
}

static void take_percentiles(struct job *j, struct apr_pool *pool, uint64_t n_finite,
                             struct apr_fingerprint *f)
{
    uint64_t rank[APR_N_PERCENTILES];
    uint32_t high[APR_N_PERCENTILES];
    double sum = 0;
    add_up(j->high, j->n_threads, N_KEYS);
    look_for(j, n_finite, rank, high);
    j->mean = f->mean;
    run_pass(j, pool, second_pass);
    for (size_t c = 0; c < j->n_chunks; c++) sum += j->parts[c].sum_dev_sq;
    f->std = sqrt(sum / (double)n_finite);
    add_up(j->low, j->n_threads, (size_t)APR_N_PERCENTILES * N_KEYS);
    for (unsigned i = 0; i < APR_N_PERCENTILES; i++) {
        const uint64_t *low = j->low + (size_t)(j->slot[high[i]] - 1u) * N_KEYS;
        const uint32_t key = high[i] << 16 | find_rank(low, &rank[i]);
        f->percentile[i] = (double)float_of_key(key) + 0.0; /* no minus zero */
    }
}

static enum apr_code compute(struct job *j, struct apr_pool *pool, struct apr_arena *arena,
                             struct apr_fingerprint *f, struct apr_err *e)
{
    uint64_t n_finite;
    j->chunk_elems = (j->v.n / MAX_CHUNKS / CHUNK_ELEMS + 1) * CHUNK_ELEMS;
    j->n_chunks = (size_t)((j->v.n + j->chunk_elems - 1) / j->chunk_elems);
    j->n_threads = j->n_chunks > 1 ? apr_pool_threads(pool) : 1;
    const size_t n_counts = (size_t)j->n_threads * N_KEYS;
    TRY(apr_arena_try(arena, &j->parts, j->n_chunks, sizeof *j->parts, "fingerprints", e));
    TRY(apr_arena_try(arena, &j->high, n_counts, sizeof *j->high, "counts", e));
    TRY(apr_arena_try(arena, &j->low, n_counts, APR_N_PERCENTILES * sizeof *j->low, "counts", e));
    for (size_t c = 0; c < j->n_chunks; c++) apr_stats_init(&j->parts[c].stats);
    run_pass(j, pool, first_pass);
    take_moments(j, f, &n_finite);
    if (n_finite) take_percentiles(j, pool, n_finite, f);
    return APR_OK;
}

static uint64_t hash_data(const struct apr_tensor *t)
{
    if (!t->parts) return apr_xxh3_64(t->data, (size_t)t->n_bytes);
    struct apr_xxh3 *h = apr_xxh3_begin();
    for (uint64_t i = 0; i < t->dims[0]; i++)
        apr_xxh3_add(h, apr_tensor_part(t, i), (size_t)(t->n_bytes / t->dims[0]));
    return apr_xxh3_end(h);
}

enum apr_code apr_fingerprint_tensor(const struct apr_model *m, const struct apr_tensor *t,
                                     const struct apr_kern *kern, struct apr_pool *pool,
                                     struct apr_fingerprint *f, struct apr_err *e)
{
    struct apr_arena arena;
    *f = (struct apr_fingerprint){.name = t->name, .dtype = apr_type_name(t->type), .n_dims = t->n_dims};
    memcpy(f->dims, t->dims, sizeof f->dims);
    f->n_elems = apr_tensor_elems(t);
    f->mean = f->std = f->min = f->max = f->zero_fraction = NAN;
    for (size_t i = 0; i < APR_N_PERCENTILES; i++) f->percentile[i] = NAN;
    f->data_xxh3 = hash_data(t);
    f->is_known = apr_values_known(t, kern);
    if (!f->is_known) return APR_OK;
    apr_arena_init(&arena);
    struct job *j = apr_arena_get(&arena, sizeof *j);
    enum apr_code code = apr_values_open(&j->v, m, t, kern, e);
    if (code == APR_OK) code = compute(j, pool, &arena, f, e);
    apr_arena_free(&arena);
    return code;
}

enum apr_code apr_fingerprints_of_model(struct apr_fingerprints *f, const char *path, const char *filter,
                                        const struct apr_kern *kern, struct apr_pool *pool, struct apr_err *e)
{
    struct apr_progress progress;
    uint64_t n_bytes = 0;
    *f = (struct apr_fingerprints){0};
    apr_arena_init(&f->arena);
    TRY(apr_load_model(path, APR_LOAD_RANDOM | APR_LOAD_LOOK, &f->model, e));
    const struct apr_model *m = f->model;
    TRY(apr_arena_try(&f->arena, &f->at, (size_t)m->n_tensors, sizeof *f->at, "fingerprints", e));
    for (uint64_t i = 0; i < m->n_tensors; i++) n_bytes += m->tensors[i].n_bytes;
    if (n_bytes > SHOW_BYTES) apr_progress_begin(&progress, "fingerprint", n_bytes, "B");
    enum apr_code code = APR_OK;
    for (uint64_t i = 0; i < m->n_tensors && code == APR_OK; i++) {
        const struct apr_tensor *t = &m->tensors[i];
        if (!filter || strstr(t->name, filter))
            code = apr_fingerprint_tensor(m, t, kern, pool, &f->at[f->n++], e);
        if (n_bytes > SHOW_BYTES) apr_progress_add(&progress, t->n_bytes);
    }
    if (n_bytes > SHOW_BYTES) apr_progress_end(&progress);
    return code;
}

double apr_fingerprint_sigma(double expected, double actual, double std, double flat_factor)
{
    if (isnan(expected) && isnan(actual)) return 0;
    if (isnan(expected) || isnan(actual)) return INFINITY;
    const double delta = fabs(actual - expected);
    return std > 1e-10 ? delta / std : delta * flat_factor;
}
