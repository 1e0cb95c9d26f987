/* The life of a context: computed prompts on disk and shifts give the bits of a fresh prompt, and no file,
 * however broken, does more than be refused. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "../../tools/apr-infer/prompt_cache.h"
#include "../../tools/apr-infer/shift.h"

#define N_CTX   256u
#define N_VOCAB 99u
#define N_TOKS  150u

static struct apr_model *model;
static int32_t ids[N_CTX];
static char path[] = "/tmp/test_context.XXXXXX";

static float noise(uint64_t *seed)
{
    *seed = *seed * 6364136223846793005u + 1442695040888963407u;
    return (float)(*seed >> 40) / (float)(1 << 23) - 1.0f;
}

static void add(struct apr_model *m, const struct apr_tensor_rule *rule, uint32_t i_layer, uint64_t *seed)
{
    char name[256];
    struct apr_err e = {0};
    struct apr_tensor *t = &m->tensors[m->n_tensors++];
    t->name = apr_arena_strdup(&m->arena, apr_family_name(rule->hf, i_layer, name, sizeof name));
    while (t->n_dims < 3 && rule->dims[t->n_dims]) {
        t->dims[t->n_dims] = apr_family_dim(&m->config, rule->dims[t->n_dims]);
        t->n_dims++;
    }
    t->type = APR_F32;
    assert_int_equal(apr_tensor_bytes(t->type, t->n_dims, t->dims, &t->n_bytes, &e), APR_OK);
    float *x = apr_arena_get(&m->arena, t->n_bytes), scale = 1.5f / sqrtf((float)apr_tensor_cols(t));
    bool is_norm = strstr(name, "norm") != NULL;
    for (size_t i = 0; i < t->n_bytes / sizeof *x; i++)
        x[i] = is_norm ? 1 + 0.3f * noise(seed) : t->n_dims == 1 ? noise(seed) : scale * noise(seed);
    t->data = (const uint8_t *)x;
}

/* Three layers, the middle one with a window where there is one. */
static struct apr_model *model_make(uint64_t seed, uint32_t window)
{
    struct apr_model *m = apr_model_new("test model");
    struct apr_err e = {0};
    m->family = apr_family_named("qwen2");
    m->config = (struct apr_config){.n_layers = 3,
                                    .n_hidden = 64,
                                    .n_heads = 4,
                                    .n_heads_kv = 2,
                                    .head_dim = 32,
                                    .n_inter = 64,
                                    .n_vocab = N_VOCAB,
                                    .n_ctx_train = N_CTX,
                                    .rope_theta = 10000,
                                    .rope = {.theta = 10000, .n_dims = 32},
                                    .qkv_bias = true,
                                    .is_gated = true,
                                    .norm_eps = 1e-6,
                                    .window = window,
                                    .tied = true};
    if (window) m->config.local[0] = 2;
    m->tensors = apr_arena_get(&m->arena, 64 * sizeof *m->tensors);
    for (size_t i = 0; i < m->family->n_rules; i++) {
        const struct apr_tensor_rule *r = &m->family->rules[i];
        if (r->need == APR_UNLESS_TIED) continue;
        bool in_layer = strstr(r->hf, "{n}") != NULL;
        for (uint32_t l = 0; l < (in_layer ? 3u : 1u); l++) add(m, r, l, &seed);
    }
    if (apr_model_index(m, &e) != APR_OK) fail_msg("%s", e.text);
    return m;
}

/* A model that runs, with one cache. */
struct engine {
    struct apr_forward f;
    struct apr_blocks blocks;
    struct apr_cache cache;
    struct apr_pool *pool;
    struct apr_checked_model checked;
};

static void engine_open(struct engine *g, struct apr_model *m, enum apr_type type)
{
    struct apr_err e = {0};
    const struct apr_page_type *t = apr_page_type_of(type);
    const struct apr_kern *kern;
    g->pool = apr_pool_open(2);
    g->checked = (struct apr_checked_model){.model = m};
    assert_int_equal(apr_kern_pick(&kern, &e), APR_OK);
    if (apr_forward_open(&g->f, &g->checked, kern, g->pool, false, 32, &e) != APR_OK) fail_msg("%s", e.text);
    assert_int_equal(apr_blocks_init(&g->blocks, &m->config, (struct apr_cache_types){{t, t}}, N_CTX, &e),
                     APR_OK);
    assert_int_equal(apr_cache_init(&g->cache, &g->blocks, N_CTX, &e), APR_OK);
}

static void engine_close(struct engine *g)
{
    apr_cache_free(&g->cache);
    apr_blocks_free(&g->blocks);
    apr_forward_close(&g->f);
    apr_pool_close(g->pool);
}

/* Appends tokens; logits after the last. */
static void run(struct engine *g, const int32_t *at, size_t n, float *logits)
{
    struct apr_err e = {0};
    if (apr_forward_prompt(&g->f, &g->cache, at, n, &e) != APR_OK) fail_msg("%s", e.text);
    if (apr_forward_logits(&g->f, g->f.n_toks - 1, 1, logits, &e) != APR_OK) fail_msg("%s", e.text);
}

static void fresh(struct engine *g, const int32_t *at, size_t n, float *logits)
{
    apr_cache_truncate(&g->cache, 0);
    run(g, at, n, logits);
}

static struct apr_prompt_cache opened(struct engine *g, enum apr_code want, const char *text)
{
    struct apr_prompt_cache p = {.path = path};
    struct apr_err e = {0};
    enum apr_code code = apr_prompt_cache_open(&p, g->checked.model, false, &g->blocks, &e);
    if (code != want || (text && !strstr(e.text, text))) fail_msg("status %d: %s", code, e.text);
    return p;
}

static void save(struct engine *g, size_t n)
{
    static float logits[N_VOCAB];
    struct apr_err e = {0};
    unlink(path);
    struct apr_prompt_cache p = opened(g, APR_OK, NULL);
    fresh(g, ids, n, logits);
    if (apr_prompt_cache_save(&p, &g->cache, &e) != APR_OK) fail_msg("%s", e.text);
    apr_prompt_cache_close(&p);
}

/* A prompt that goes another way after n_common tokens. */
static void check_restored(struct engine *g, size_t n_common, size_t n_want)
{
    static float want[N_VOCAB], got[N_VOCAB];
    struct apr_err e = {0};
    int32_t prompt[N_TOKS + 20];
    size_t n = n_common + 20;
    memcpy(prompt, ids, sizeof prompt);
    for (size_t i = n_common; i < n; i++) prompt[i] = (ids[i] + 1) % (int32_t)N_VOCAB;
    fresh(g, prompt, n, want);
    apr_cache_truncate(&g->cache, 0);
    struct apr_prompt_cache p = opened(g, APR_OK, NULL);
    if (apr_prompt_cache_restore(&p, &g->cache, prompt, n, &e) != APR_OK) fail_msg("%s", e.text);
    assert_int_equal(p.n_reused, n_want);
    assert_int_equal(g->cache.n_pos, n_want);
    apr_prompt_cache_close(&p); /* nothing of the file is used any more */
    run(g, prompt + n_want, n - n_want, got);
    assert_memory_equal(want, got, sizeof want);
}

static void restored_rows_give_the_bits_of_a_fresh_prompt(void **state)
{
    (void)state;
    static const enum apr_type types[] = {APR_F16, APR_F32, APR_Q8_0, APR_Q4_0};
    static const size_t commons[] = {0, 1, 15, 16, 17, 32, 100, N_TOKS};
    for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
        struct engine g;
        engine_open(&g, model, types[i]);
        save(&g, N_TOKS);
        for (size_t k = 0; k < sizeof commons / sizeof *commons; k++)
            check_restored(&g, commons[k], commons[k]);
        engine_close(&g);
    }
}

/* The same prompt again: one token is left to compute. Nothing is written then, nor where it is longer. */
static void the_same_prompt_again(void **state)
{
    (void)state;
    static float want[N_VOCAB], got[N_VOCAB];
    struct apr_err e = {0};
    struct engine g;
    engine_open(&g, model, APR_F16);
    save(&g, N_TOKS);
    fresh(&g, ids, N_TOKS, want);
    apr_cache_truncate(&g.cache, 0);
    struct apr_prompt_cache p = opened(&g, APR_OK, NULL);
    assert_int_equal(apr_prompt_cache_restore(&p, &g.cache, ids, N_TOKS, &e), APR_OK);
    assert_int_equal(p.n_reused, N_TOKS - 1);
    run(&g, ids + p.n_reused, 1, got);
    assert_memory_equal(want, got, sizeof want);
    assert_int_equal(chmod(path, 0400), 0);
    assert_int_equal(apr_prompt_cache_save(&p, &g.cache, &e), APR_OK);
    apr_cache_truncate(&g.cache, 40);
    assert_int_equal(apr_prompt_cache_save(&p, &g.cache, &e), APR_OK);
    apr_prompt_cache_close(&p);
    p = opened(&g, APR_OK, NULL);
    assert_int_equal(p.n_toks, N_TOKS);
    apr_prompt_cache_close(&p);
    engine_close(&g);
}

/* All of a file, whatever the prompt; its tokens must be the model's. */
static void everything_at_once(void **state)
{
    (void)state;
    static float want[N_VOCAB], got[N_VOCAB];
    struct apr_err e = {0};
    struct engine g;
    engine_open(&g, model, APR_F16);
    save(&g, N_TOKS);
    fresh(&g, ids, N_TOKS + 1, want);
    apr_cache_truncate(&g.cache, 0);
    struct apr_prompt_cache p = opened(&g, APR_OK, NULL);
    assert_int_equal(apr_prompt_cache_restore_all(&p, &g.cache, N_VOCAB, &e), APR_OK);
    assert_int_equal(p.n_reused, N_TOKS);
    assert_memory_equal(g.cache.ids, ids, N_TOKS * sizeof *ids);
    run(&g, ids + N_TOKS, 1, got);
    assert_memory_equal(want, got, sizeof want);
    apr_cache_truncate(&g.cache, 0);
    assert_int_equal(apr_prompt_cache_restore_all(&p, &g.cache, 10, &e), APR_EFORMAT);
    assert_int_equal(g.cache.n_pos, 0);
    apr_prompt_cache_close(&p);
    engine_close(&g);
}

/* With a window the file lacks what local layers had forgotten: then nothing is reused, or all. */
static void windows(void **state)
{
    (void)state;
    struct apr_model *m = model_make(1, 20);
    struct engine g;
    engine_open(&g, m, APR_F16);
    save(&g, N_TOKS);
    struct apr_prompt_cache p = opened(&g, APR_OK, NULL);
    assert_true(p.first_block[APR_CACHE_LOCAL] > 0);
    apr_prompt_cache_close(&p);
    check_restored(&g, N_TOKS, N_TOKS);
    check_restored(&g, N_TOKS - 5, N_TOKS - 5);
    check_restored(&g, 30, 0);
    engine_close(&g);
    engine_open(&g, model, APR_F16); /* the same weights without a window */
    opened(&g, APR_ECONTRACT, "another model");
    engine_close(&g);
    apr_model_close(m);
}

static void other_kinds_are_refused(void **state)
{
    (void)state;
    struct engine g;
    struct apr_err e = {0};
    engine_open(&g, model, APR_F16);
    save(&g, 40);
    struct apr_prompt_cache p = {.path = path};
    assert_int_equal(apr_prompt_cache_open(&p, model, true, &g.blocks, &e), APR_ECONTRACT);
    assert_non_null(strstr(e.text, "made without --exact, this run is with it"));
    engine_close(&g);

    engine_open(&g, model, APR_Q8_0);
    opened(&g, APR_ECONTRACT, "keys are F16 and values F16, this run has Q8_0 and Q8_0 (--cache-type)");
    engine_close(&g);

    struct apr_model *other = model_make(2, 0);
    engine_open(&g, other, APR_F16);
    opened(&g, APR_ECONTRACT, "made by another model");
    unlink(path);
    p = (struct apr_prompt_cache){.path = path, .read_only = true};
    assert_int_equal(apr_prompt_cache_open(&p, other, false, &g.blocks, &e), APR_ENOTFOUND);
    engine_close(&g);
    apr_model_close(other);
}

static size_t read_all(uint8_t *at, size_t n_most)
{
    FILE *f = fopen(path, "rb");
    assert_non_null(f);
    size_t n = fread(at, 1, n_most, f);
    assert_int_equal(fclose(f), 0);
    return n;
}

static void write_all(const uint8_t *at, size_t n)
{
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(at, 1, n, f), n);
    assert_int_equal(fclose(f), 0);
}

static void broken_files_are_refused(void **state)
{
    (void)state;
    static uint8_t bytes[1 << 20];
    struct engine g;
    engine_open(&g, model, APR_Q4_0);
    save(&g, 20);
    size_t n = read_all(bytes, sizeof bytes);
    assert_in_range(n, 200, sizeof bytes - 1);
    for (size_t cut = 0; cut < n; cut += cut < 200 ? 1 : 97) {
        write_all(bytes, cut);
        opened(&g, APR_EFORMAT, path);
    }
    bytes[n] = 0;
    write_all(bytes, n + 1);
    opened(&g, APR_EFORMAT, "should have");
    for (size_t i = 0; i < n; i += i < 200 ? 1 : 61) {
        struct apr_prompt_cache p = {.path = path};
        struct apr_err e = {0};
        bytes[i] ^= 0x10;
        write_all(bytes, n);
        enum apr_code code = apr_prompt_cache_open(&p, model, false, &g.blocks, &e);
        if (code != APR_EFORMAT && code != APR_ECONTRACT) fail_msg("byte %zu: status %d", i, code);
        if (strchr(e.text, '\n')) fail_msg("%s", e.text);
        bytes[i] ^= 0x10;
    }
    engine_close(&g);
}

/* Numbers that a checksum does not help against. */
static void hostile_numbers(void **state)
{
    (void)state;
    static uint8_t bytes[1 << 20];
    static const struct {
        size_t off;
        uint64_t v;
    } rows[] = {{48, 0},          {48, 1},          {48, 19},
                {48, 21},         {48, 1ull << 32}, {48, 1ull << 62},
                {48, UINT64_MAX}, {48, 1ull << 61}, {48, (1ull << 63) + 20},
                {56, 1},          {56, UINT64_MAX}, {56, 1ull << 60},
                {40, UINT64_MAX}, {24, UINT64_MAX}, {32, 1ull << 32}};
    struct engine g;
    engine_open(&g, model, APR_F16);
    save(&g, 20);
    size_t n = read_all(bytes, sizeof bytes);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        uint8_t kept[8];
        memcpy(kept, bytes + rows[i].off, 8);
        for (size_t b = 0; b < 8; b++) bytes[rows[i].off + b] = (uint8_t)(rows[i].v >> 8 * b);
        uint64_t sum = apr_xxh3_64(bytes, n - 8);
        memcpy(bytes + n - 8, &sum, 8);
        write_all(bytes, n);
        struct apr_prompt_cache p = {.path = path};
        struct apr_err e = {0};
        if (apr_prompt_cache_open(&p, model, false, &g.blocks, &e) != APR_EFORMAT)
            fail_msg("row %zu: %s", i, e.text);
        memcpy(bytes + rows[i].off, kept, 8);
    }
    /* Rows that are no numbers: the logits say so. */
    memset(bytes + n - 8 - 4096, 0x7e, 4096);
    uint64_t sum = apr_xxh3_64(bytes, n - 8);
    memcpy(bytes + n - 8, &sum, 8);
    write_all(bytes, n);
    struct apr_prompt_cache p = opened(&g, APR_OK, NULL);
    struct apr_err e = {0};
    static float logits[N_VOCAB];
    apr_cache_truncate(&g.cache, 0);
    assert_int_equal(apr_prompt_cache_restore(&p, &g.cache, ids, 20, &e), APR_OK);
    assert_int_equal(apr_forward_prompt(&g.f, &g.cache, ids + p.n_reused, 1, &e), APR_OK);
    assert_int_equal(apr_forward_logits(&g.f, 0, 1, logits, &e), APR_EINFER);
    apr_prompt_cache_close(&p);
    engine_close(&g);
}

/* After a shift: the bits of a fresh prompt of what was kept. */
static void check_shift(struct apr_model *m, enum apr_type type, size_t n, size_t n_keep)
{
    static float want[N_VOCAB], got[N_VOCAB];
    struct apr_err e = {0};
    struct engine g;
    int32_t left[N_CTX];
    size_t n_new = (n - n_keep) / 2, n_left = n_keep + n_new;
    engine_open(&g, m, type);
    fresh(&g, ids, n, want);
    if (apr_shift_cache(&g.f, &g.cache, n_keep, &e) != APR_OK) fail_msg("%s", e.text);
    assert_int_equal(g.cache.n_pos, n_left);
    assert_int_equal(apr_shift_n_left(n, n_keep), n_left);
    run(&g, &ids[n], 1, got);
    memcpy(left, ids, n_keep * sizeof *ids);
    memcpy(left + n_keep, ids + n - n_new, (n_new + 1) * sizeof *ids);
    assert_memory_equal(g.cache.ids, left, (n_left + 1) * sizeof *ids);
    fresh(&g, left, n_left + 1, want);
    assert_memory_equal(want, got, sizeof want);
    engine_close(&g);
}

static void shifted_is_fresh(void **state)
{
    (void)state;
    static const size_t keeps[] = {0, 1, 16, 17, 60, 98, 99};
    struct apr_model *local = model_make(1, 20);
    for (size_t i = 0; i < sizeof keeps / sizeof *keeps; i++) {
        check_shift(model, APR_F16, 100, keeps[i]);
        check_shift(model, APR_Q8_0, 100, keeps[i]);
        check_shift(local, APR_F16, 100, keeps[i]);
    }
    check_shift(model, APR_F16, 2, 0);
    check_shift(model, APR_F16, 1, 0);
    apr_model_close(local);
}

static void what_can_be_kept(void **state)
{
    (void)state;
    struct apr_err e = {0};
    assert_int_equal(apr_shift_check(0, 2, &e), APR_OK);
    assert_int_equal(apr_shift_check(62, 64, &e), APR_OK);
    assert_int_equal(apr_shift_check(63, 64, &e), APR_EUSAGE);
    assert_int_equal(apr_shift_check(0, 1, &e), APR_EUSAGE);
    assert_int_equal(apr_shift_check(SIZE_MAX, 64, &e), APR_EUSAGE);
    assert_int_equal(apr_shift_n_left(10, 10), 10);
    assert_int_equal(apr_shift_n_left(11, 10), 10);
    assert_int_equal(apr_shift_n_left(13, 10), 11);
}

static int setup(void **state)
{
    (void)state;
    uint64_t seed = 7;
    int fd = mkstemp(path);
    for (size_t i = 0; i < N_CTX; i++) ids[i] = (int32_t)((noise(&seed) + 1) / 2 * 98);
    model = model_make(1, 0);
    return fd < 0 || close(fd) != 0;
}

static int teardown(void **state)
{
    (void)state;
    apr_model_close(model);
    unlink(path);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(restored_rows_give_the_bits_of_a_fresh_prompt),
        cmocka_unit_test(the_same_prompt_again),
        cmocka_unit_test(everything_at_once),
        cmocka_unit_test(windows),
        cmocka_unit_test(other_kinds_are_refused),
        cmocka_unit_test(broken_files_are_refused),
        cmocka_unit_test(hostile_numbers),
        cmocka_unit_test(shifted_is_fresh),
        cmocka_unit_test(what_can_be_kept),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
