/* Steps of many sequences: a token's logits are the same bits alone and beside any others, in prefill and
 * decode, over blocks that are shared, kept or given up, behind truncations and with windows; blocks are
 * neither lost nor leaked. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "../../tools/apr-infer/prefixes.h"
#include "toy.h"

#define N_SEQS  18u
#define MAX_POS 150u
#define N_VOCAB 64u
#define N_ALIKE 70u /* tokens that every third sequence begins with */

#define SHAPE                                                                                                \
    "'vocab_size':64,'hidden_size':64,'num_attention_heads':4,'num_hidden_layers':3,'hidden_act':'silu',"    \
    "'max_position_embeddings':256,'intermediate_size':96,'rms_norm_eps':1e-6,'tie_word_embeddings':false,"
#define MOE "'num_experts_per_tok':2,"

static const struct kind {
    const char *family, *config;
} kinds[] = {
    {"qwen2", "{" SHAPE "'num_key_value_heads':2,'rope_theta':10000.0}"},
    {"mistral", "{" SHAPE "'num_key_value_heads':2,'rope_theta':10000.0,'sliding_window':20}"},
    {
        "gemma3",
        "{" SHAPE "'num_key_value_heads':1,'head_dim':32,'sliding_window':9,'query_pre_attn_scalar':32,"
        "'rope_theta':1000000.0,'rope_local_base_freq':10000.0,'hidden_activation':'gelu_pytorch_tanh',"
        "'layer_types':['sliding_attention','full_attention','sliding_attention']}",
    },
    {"mixtral", "{" SHAPE MOE "'num_key_value_heads':4,'rope_theta':10000.0,'num_local_experts':5}"},
    {
        "deepseek2",
        "{" SHAPE MOE "'num_key_value_heads':4,'rope_theta':10000.0,'kv_lora_rank':32,'q_lora_rank':32,"
        "'qk_nope_head_dim':32,'qk_rope_head_dim':16,'v_head_dim':32,'n_routed_experts':6,"
        "'n_shared_experts':1,'moe_intermediate_size':32,'first_k_dense_replace':1,'norm_topk_prob':false,"
        "'routed_scaling_factor':1.0,'topk_method':'greedy','n_group':1,'topk_group':1}",
    },
    {
        "phi3",
        "{" SHAPE "'num_key_value_heads':2,'rope_theta':10000.0,'original_max_position_embeddings':40,"
        "'rope_scaling':{'type':'longrope','short_factor':[1,1,1,1,1.5,1.5,1.5,1.5],"
        "'long_factor':[1,1.1,1.3,2,3,4,4,4]}}",
    },
};
#define N_KINDS (sizeof kinds / sizeof kinds[0])

struct text {
    int32_t ids[MAX_POS];
    size_t n;
    float logits[MAX_POS][N_VOCAB]; /* alone */
};
static struct text texts[N_SEQS];

struct engine {
    struct apr_model *m;
    struct apr_pool *pool;
    struct apr_forward f;
    struct apr_blocks blocks;
    struct apr_prefixes prefixes;
    struct apr_cache caches[N_SEQS];
    size_t n_seqs; /* of them take part */
};

static void engine_open(struct engine *x, struct apr_model *m, const struct apr_kern *kern,
                        unsigned n_threads, size_t n_batch, size_t n_pos)
{
    struct apr_err e = {0};
    const struct apr_checked_model checked = {.model = m};
    *x = (struct engine){.m = m, .pool = apr_pool_open(n_threads), .n_seqs = N_SEQS};
    if (apr_forward_open(&x->f, &checked, kern, x->pool, false, n_batch, &e) != APR_OK)
        fail_msg("%s", e.text);
    assert_int_equal(apr_blocks_init(&x->blocks, &m->config, apr_cache_plain(false), n_pos, &e), APR_OK);
    apr_prefixes_init(&x->prefixes, &x->f, &x->blocks);
    for (size_t i = 0; i < N_SEQS; i++)
        assert_int_equal(apr_cache_init(&x->caches[i], &x->blocks, MAX_POS, &e), APR_OK);
}

static void engine_close(struct engine *x)
{
    for (size_t i = 0; i < N_SEQS; i++) apr_cache_free(&x->caches[i]);
    apr_prefixes_free(&x->prefixes);
    for (size_t g = 0; g < APR_CACHE_GROUPS; g++) {
        const struct apr_block_group *group = &x->blocks.groups[g];
        size_t n_free = 0;
        for (const struct apr_cache_block *k = group->free; k; k = k->next) n_free++;
        assert_int_equal(group->n_used, 0);
        assert_int_equal(group->n_shared, 0);
        assert_int_equal(n_free, group->n_made);
    }
    apr_blocks_free(&x->blocks);
    apr_forward_close(&x->f);
    apr_pool_close(x->pool);
}

static uint64_t draws;

static size_t draw(size_t n)
{
    draws = draws * 6364136223846793005u + 1442695040888963407u;
    return (size_t)(draws >> 33) % n;
}

static void write_texts(void)
{
    for (size_t s = 0; s < N_SEQS; s++) {
        texts[s].n = s % 4 == 3 ? 1 + draw(30) : MAX_POS - draw(40);
        for (size_t i = 0; i < texts[s].n; i++)
            texts[s].ids[i] = s % 3 == 0 && s && i < N_ALIKE ? texts[0].ids[i] : (int32_t)draw(N_VOCAB);
    }
}

static enum apr_code take(void *ctx, size_t i_tok, size_t n_rows, const float *rows, struct apr_err *e)
{
    struct text *t = ctx;
    (void)e;
    memcpy(t->logits[i_tok], rows, n_rows * sizeof t->logits[0]);
    return APR_OK;
}

/* What each sequence says by itself. */
static void compute_alone(struct apr_model *m)
{
    struct engine x;
    struct apr_err e = {0};
    engine_open(&x, m, &apr_kern_scalar, 1, MAX_POS, MAX_POS + APR_PAGE_POS);
    for (size_t s = 0; s < N_SEQS; s++) {
        assert_int_equal(
            apr_forward_all_logits(&x.f, &x.caches[s], texts[s].ids, texts[s].n, take, &texts[s], &e),
            APR_OK);
        apr_cache_truncate(&x.caches[s], 0);
    }
    engine_close(&x);
}

/* Some sequences, each with some of its next tokens; the number of parts. */
static size_t choose_parts(struct engine *x, struct apr_part *parts, size_t *seqs, size_t n_together)
{
    size_t n_parts = 0, n_free = x->f.n_batch, first = draw(x->n_seqs);
    for (size_t i = 0; i < x->n_seqs && n_parts < n_together && n_free; i++) {
        size_t s = (first + i) % x->n_seqs, n_pos = x->caches[s].n_pos, n_left = texts[s].n - n_pos;
        if (!n_left || draw(4) == 0) continue;
        size_t n = n_pos && draw(2) ? 1 : 1 + draw(n_left);
        if (n > n_free) n = n_free;
        seqs[n_parts] = s;
        parts[n_parts++] = (struct apr_part){
            .cache = &x->caches[s], .ids = texts[s].ids + n_pos, .n = n, .n_later = n_left - n};
        n_free -= n;
    }
    return n_parts;
}

static bool same_bits(const void *a, const void *b, size_t n_bytes)
{
    return memcmp(a, b, n_bytes) == 0;
}

static void compare_row(const struct engine *x, size_t s, size_t i_tok, const float *got, const char *what)
{
    size_t pos = x->f.rows[i_tok].pos;
    assert_ptr_equal(x->f.rows[i_tok].cache, &x->caches[s]);
    if (!same_bits(got, texts[s].logits[pos], sizeof texts[s].logits[pos]))
        fail_msg("%s: other bits of sequence %zu at position %zu", what, s, pos);
}

/* All rows of the step in order, and some of them in another. */
static void compare(struct engine *x, const struct apr_part *parts, const size_t *seqs, size_t n_parts,
                    const char *what)
{
    static float rows[MAX_POS][N_VOCAB];
    size_t i_toks[N_SEQS], seq_of[MAX_POS], n = 0;
    struct apr_err e = {0};
    for (size_t i = 0; i < n_parts; i++)
        for (size_t t = 0; t < parts[i].n; t++) seq_of[n++] = seqs[i];
    assert_int_equal(x->f.n_toks, n);
    assert_int_equal(apr_forward_logits(&x->f, 0, n, rows[0], &e), APR_OK);
    for (size_t i = 0; i < n; i++) compare_row(x, seq_of[i], i, rows[i], what);
    for (size_t i = 0; i < n_parts; i++) i_toks[i] = draw(n);
    assert_int_equal(apr_forward_logits_of(&x->f, i_toks, n_parts, rows[0], &e), APR_OK);
    for (size_t i = 0; i < n_parts; i++) compare_row(x, seq_of[i_toks[i]], i_toks[i], rows[i], what);
}

/* A new sequence in the place of an old one, which is remembered. */
static void begin(struct engine *x, size_t s)
{
    struct apr_err e = {0};
    struct apr_cache *c = &x->caches[s];
    assert_int_equal(apr_prefixes_add(&x->prefixes, c, &e), APR_OK);
    apr_cache_truncate(c, 0);
    if (draw(2)) return;
    assert_int_equal(apr_prefixes_begin(&x->prefixes, c, texts[s].ids, texts[s].n, &e), APR_OK);
    assert_true(c->n_pos < texts[s].n);
}

/* Takes back, begins again, or goes on from another sequence's beginning. */
static void disturb(struct engine *x)
{
    struct apr_err e = {0};
    size_t s = draw(x->n_seqs);
    struct apr_cache *c = &x->caches[s];
    if (draw(3) == 0) {
        apr_cache_truncate(c, c->n_pos - draw(c->n_pos + 1));
    } else if (draw(2)) {
        begin(x, s);
    } else if (s % 3 == 0) {
        size_t from = 3 * draw(x->n_seqs / 3), n = draw(N_ALIKE + 1);
        if (from == s) return;
        if (n > x->caches[from].n_pos) n = x->caches[from].n_pos;
        if (n > texts[s].n) n = texts[s].n;
        apr_cache_truncate(c, 0);
        assert_int_equal(apr_cache_fork(c, &x->caches[from], n, &e), APR_OK);
    }
}

struct how {
    const struct apr_kern *kern;
    unsigned n_threads;
    size_t n_batch, n_together;
    bool is_disturbed;
    size_t n_seqs; /* in as small a pool as they can be sure to fit; 0 = all, in a large one */
};

static struct apr_prefixes counts; /* of all runs */

static void add_counts(const struct apr_prefixes *p)
{
    counts.n_hits += p->n_hits;
    counts.n_misses += p->n_misses;
    counts.n_toks_saved += p->n_toks_saved;
    counts.n_evicted += p->n_evicted;
    counts.n_merged += p->n_merged;
}

static void run(struct apr_model *m, const struct kind *kind, const struct how *how, unsigned n_steps)
{
    struct engine x;
    struct apr_err e = {0};
    struct apr_part parts[N_SEQS];
    size_t seqs[N_SEQS];
    char what[128];
    size_t n_seqs = how->n_seqs ? how->n_seqs : 3 * N_SEQS;
    engine_open(&x, m, how->kern, how->n_threads, how->n_batch, n_seqs * (MAX_POS + APR_PAGE_POS));
    if (how->n_seqs) x.n_seqs = how->n_seqs;
    for (unsigned i = 0; i < n_steps; i++) {
        if (how->is_disturbed && draw(3) == 0) disturb(&x);
        size_t n_parts = choose_parts(&x, parts, seqs, how->n_together);
        if (!n_parts) continue;
        (void)snprintf(what, sizeof what, "%s, %s, %u threads, %zu tokens a step, step %u with %zu sequences",
                       kind->family, how->kern->name, how->n_threads, how->n_batch, i, n_parts);
        if (apr_forward_step(&x.f, parts, n_parts, &e) != APR_OK) fail_msg("%s: %s", what, e.text);
        compare(&x, parts, seqs, n_parts, what);
    }
    add_counts(&x.prefixes);
    engine_close(&x);
}

static void bits_do_not_depend_on_the_company(void **state)
{
    (void)state;
    static const size_t batches[] = {1, 5, 16, 64, 150};
    for (size_t k = 0; k < N_KINDS; k++) {
        struct apr_model *m = toy_model(kinds[k].family, kinds[k].config, APR_Q8_0);
        const struct apr_kern *kern;
        compute_alone(m);
        for (size_t i = 0; (kern = apr_kern_at(i)) != NULL; i++)
            for (size_t b = 0; b < sizeof batches / sizeof *batches; b++)
                for (unsigned t = 1; t <= 2; t++) {
                    run(m, &kinds[k], &(struct how){kern, t, batches[b], N_SEQS, false, 0}, 10);
                    run(m, &kinds[k], &(struct how){kern, t, batches[b], 1 + b, true, 0}, 10);
                }
        apr_model_close(m);
    }
}

/* Forks, truncations and long runs, where windows have passed and blocks are shared by many. */
static void bits_do_not_depend_on_the_pages(void **state)
{
    (void)state;
    for (size_t k = 0; k < N_KINDS; k++) {
        struct apr_model *m = toy_model(kinds[k].family, kinds[k].config, APR_Q8_0);
        const struct apr_kern *kern;
        struct apr_err e = {0};
        assert_int_equal(apr_kern_pick(&kern, &e), APR_OK);
        compute_alone(m);
        memset(&counts, 0, sizeof counts);
        run(m, &kinds[k], &(struct how){kern, 2, 64, N_SEQS, true, 0}, 300);
        run(m, &kinds[k], &(struct how){kern, 1, 17, 4, true, 7}, 300);
        run(m, &kinds[k], &(struct how){kern, 2, 33, 3, true, 3}, 300);
        print_message("%s: %zu hits, %zu misses, %zu tokens saved, %zu evicted, %zu merged\n",
                      kinds[k].family, (size_t)counts.n_hits, (size_t)counts.n_misses,
                      (size_t)counts.n_toks_saved, (size_t)counts.n_evicted, (size_t)counts.n_merged);
        assert_true(counts.n_hits && counts.n_misses && counts.n_evicted && counts.n_merged);
        assert_true(counts.n_toks_saved >= APR_PAGE_POS * counts.n_hits);
        apr_model_close(m);
    }
}

int main(void)
{
    draws = 7;
    write_texts();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bits_do_not_depend_on_the_company),
        cmocka_unit_test(bits_do_not_depend_on_the_pages),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
