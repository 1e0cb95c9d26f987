/* Measuring the two roofs. */
#include "roofline.h"

#include <unistd.h>

#include "room.h"

#define LEAST_MEMORY ((size_t)256 << 20)
#define MOST_MEMORY  ((size_t)2 << 30)
#define CACHE_TIMES  4u /* memory is what no cache holds */
#define FREE_DIVIDE  4u /* of the memory that is available at most */
#define LEAST_BYTES  ((size_t)1 << 20)
#define CHUNK_WORDS  ((size_t)8 << 10) /* 64 KiB */
#define N_READS      4u
#define N_ROWS       64u
#define N_COLS       1024u
#define N_TOKS       64u
#define N_TASKS      8u /* of a thread */
#define TRIAL_NS     10000000
#define N_TRIALS     5u

struct reading {
    const uint64_t *words;
    uint64_t *sums; /* [threads * 8]: a cache line each */
};

/* 16 bytes, which any CPU of 64 bits loads at once. */
struct lanes {
    uint64_t x __attribute__((vector_size(16)));
};

/* Four sums side by side, so that loads are not kept waiting. */
static void read_task(void *ctx, size_t i_begin, size_t i_end, unsigned i_thread)
{
    const struct reading *r = ctx;
    const struct lanes *w = (const struct lanes *)(const void *)(r->words + i_begin);
    struct lanes a = {0}, b = {0}, c = {0}, d = {0};
    for (size_t n = (i_end - i_begin) / 8; n; n--, w += 4) {
        a.x += w[0].x;
        b.x += w[1].x;
        c.x += w[2].x;
        d.x += w[3].x;
    }
    a.x += b.x + c.x + d.x;
    r->sums[(size_t)i_thread * 8] += a.x[0] + a.x[1];
}

static double read_rate(struct reading *r, struct apr_pool *pool, size_t n_bytes)
{
    double best = 0;
    size_t n_words = n_bytes / sizeof(uint64_t), n_times = 1 + LEAST_BYTES * 16 / n_bytes;
    for (unsigned i = 0; i < N_READS; i++) {
        int64_t ns = apr_now_ns();
        for (size_t k = 0; k < n_times; k++) apr_parallel_for(pool, n_words, CHUNK_WORDS, read_task, r);
        double rate = (double)n_bytes * (double)n_times / ((double)(apr_now_ns() - ns) * 1e-9);
        if (i && rate > best) best = rate; /* the first one fills the cache */
    }
    return best;
}

static void fill_task(void *ctx, size_t i_begin, size_t i_end, unsigned i_thread)
{
    uint64_t *words = ctx;
    (void)i_thread;
    for (size_t i = i_begin; i < i_end; i++) words[i] = i;
}

/* So much that the last cache is no help: servers have some of 300 MiB and more. */
static size_t memory_to_read(void)
{
    size_t n = LEAST_MEMORY;
#ifdef _SC_LEVEL3_CACHE_SIZE
    long n_cache = sysconf(_SC_LEVEL3_CACHE_SIZE);
    if (n_cache > 0 && (size_t)n_cache < MOST_MEMORY && CACHE_TIMES * (size_t)n_cache > n)
        n = CACHE_TIMES * (size_t)n_cache;
#endif
    uint64_t n_free = apr_memory_available() / FREE_DIVIDE;
    if (n > n_free && n_free > LEAST_MEMORY) n = (size_t)n_free;
    if (n > MOST_MEMORY) n = MOST_MEMORY;
    return n - n % 64;
}

static enum apr_code measure_reading(struct apr_roof *r, const struct apr_session *s, struct apr_arena *arena,
                                     struct apr_err *e)
{
    struct reading job;
    size_t n_set = s->fwd.w.n_bytes, n_memory = memory_to_read();
    TRY(apr_arena_try(arena, &job.sums, apr_pool_threads(s->pool), 64, "the bandwidth measurement", e));
    uint64_t *words = apr_room_open(n_memory);
    if (!words) return apr_fail(e, APR_ELOAD, "no memory to measure its rate (%zu bytes)", n_memory);
    apr_parallel_for(s->pool, n_memory / sizeof *words, CHUNK_WORDS, fill_task, words);
    job.words = words;
    if (n_set < LEAST_BYTES) n_set = LEAST_BYTES;
    if (n_set > n_memory) n_set = n_memory;
    n_set -= n_set % 64;
    r->memory_bytes_per_s = read_rate(&job, s->pool, n_memory);
    r->read_bytes_per_s = n_set < n_memory ? read_rate(&job, s->pool, n_set) : r->memory_bytes_per_s;
    if (r->read_bytes_per_s < r->memory_bytes_per_s) r->read_bytes_per_s = r->memory_bytes_per_s;
    r->n_memory_bytes = n_memory;
    r->n_set_bytes = n_set;
    apr_room_close(words, n_memory);
    return APR_OK;
}

struct product {
    apr_matmul_fn *fn;
    const uint8_t *w, *x;
    size_t w_row_bytes, x_row_bytes, n_times;
    float *y;         /* [threads, N_TOKS, N_ROWS] */
    uint8_t *scratch; /* [threads] of scratch_bytes */
    size_t scratch_bytes;
};

static void product_task(void *ctx, size_t i_begin, size_t i_end, unsigned i_thread)
{
    const struct product *p = ctx;
    for (size_t i = i_begin; i < i_end; i++)
        for (size_t k = 0; k < p->n_times; k++)
            p->fn(p->w, p->w_row_bytes, N_ROWS, N_COLS, p->x, p->x_row_bytes, N_TOKS,
                  p->y + (size_t)i_thread * N_TOKS * N_ROWS, N_ROWS,
                  p->scratch + i_thread * p->scratch_bytes);
}

/* Operations a second of one kernel: the best of some trials that are long enough. */
static double product_rate(struct product *p, struct apr_pool *pool)
{
    double best = 0, flops = 2.0 * N_ROWS * N_COLS * N_TOKS;
    size_t n_tasks = (size_t)N_TASKS * apr_pool_threads(pool);
    p->n_times = 1;
    for (unsigned i = 0; i < N_TRIALS;) {
        int64_t ns = apr_now_ns();
        apr_parallel_for(pool, n_tasks, 1, product_task, p);
        ns = apr_now_ns() - ns;
        if (ns < TRIAL_NS && p->n_times < 1u << 20) {
            p->n_times *= 2;
            continue;
        }
        double rate = flops * (double)n_tasks * (double)p->n_times / ((double)ns * 1e-9);
        if (rate > best) best = rate;
        i++;
    }
    return best;
}

const struct apr_kern *apr_kern_best(void)
{
    const struct apr_kern *best = NULL;
    for (size_t i = 0; apr_kern_at(i); i++) best = apr_kern_at(i);
    return best;
}

static enum apr_code measure_type(struct apr_roof *r, const struct apr_kern *kern, enum apr_type type,
                                  struct product *p, struct apr_pool *pool, struct apr_err *e)
{
    const struct apr_matmul *mm = &kern->matmul[type];
    const size_t x_row_bytes[] = {[APR_ACT_F32] = N_COLS * sizeof(float),
                                  [APR_ACT_Q8_32] = N_COLS / 32 * sizeof(struct apr_act32),
                                  [APR_ACT_Q8_256] = N_COLS / 256 * sizeof(struct apr_act256),
                                  [APR_ACT_SPLIT] = N_COLS * 2 * sizeof(uint16_t)};
    uint64_t row_bytes;
    if (!mm->fast || !apr_quant_of(type) || r->flops_per_s[type] > 0) return APR_OK;
    TRY(apr_row_bytes(type, N_COLS, &row_bytes, e));
    p->w_row_bytes = (size_t)row_bytes;
    p->x_row_bytes = x_row_bytes[mm->act];
    p->fn = mm->fast;
    r->flops_per_s[type] = product_rate(p, pool);
    if (!mm->strips) return APR_OK;
    p->fn = mm->strips;
    double rate = product_rate(p, pool);
    if (rate > r->flops_per_s[type]) r->flops_per_s[type] = rate;
    return APR_OK;
}

static enum apr_code measure_products(struct apr_roof *r, const struct apr_session *s,
                                      struct apr_arena *arena, struct apr_err *e)
{
    const struct apr_kern *kern = apr_kern_best();
    const struct apr_model *m = s->model;
    unsigned n_threads = apr_pool_threads(s->pool);
    struct product p = {.scratch_bytes = (apr_kern_scratch_bytes(N_COLS) + 63) / 64 * 64};
    uint8_t *w, *x; /* zeros; a row of the widest type has 8 bytes a value */
    TRY(apr_arena_try(arena, &w, (size_t)N_ROWS * N_COLS, 8, "the product measurement", e));
    TRY(apr_arena_try(arena, &x, (size_t)N_TOKS * N_COLS, 8, "the product measurement", e));
    TRY(apr_arena_try(arena, &p.y, (size_t)n_threads * N_TOKS * N_ROWS, sizeof(float), "results", e));
    TRY(apr_arena_try(arena, &p.scratch, n_threads, p.scratch_bytes, "kernel scratch", e));
    p.w = w;
    p.x = x;
    r->kernels = kern->name;
    TRY(measure_type(r, kern, APR_F32, &p, s->pool, e));
    for (uint64_t i = 0; i < m->n_tensors; i++)
        if (m->tensors[i].n_dims >= 2 && (size_t)m->tensors[i].type < APR_N_TYPES)
            TRY(measure_type(r, kern, m->tensors[i].type, &p, s->pool, e));
    return APR_OK;
}

enum apr_code apr_roof_measure(struct apr_roof *r, struct apr_session *s, struct apr_err *e)
{
    struct apr_arena arena;
    *r = (struct apr_roof){0};
    apr_arena_init(&arena);
    enum apr_code code = measure_reading(r, s, &arena, e);
    if (code == APR_OK) code = measure_products(r, s, &arena, e);
    apr_arena_free(&arena);
    return code;
}

double apr_roof_flops(const struct apr_roof *r, enum apr_type type)
{
    return r->flops_per_s[type] > 0 ? r->flops_per_s[type] : r->flops_per_s[APR_F32];
}

double apr_roof_s(const struct apr_roof *r, enum apr_type type, double n_bytes, double flops)
{
    double read_s = n_bytes / r->read_bytes_per_s, compute_s = flops / apr_roof_flops(r, type);
    return read_s > compute_s ? read_s : compute_s;
}
