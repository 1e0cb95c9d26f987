/* One test of bench on an open session: a prompt is read (pp), tokens are made (tg), or both, at a depth; or
 * several sequences make tokens together.
 *
 * Each repetition begins with the cache filled up to the depth, which is not timed. A prompt ends with the
 * logits of its last token; every made token computes its logits; nothing is sampled. Tokens are drawn
 * evenly from the vocabulary by a fixed generator, or come from a given text, repeated. On a device
 * sequences go on greedily behind the first of them, APR_N_AHEAD tokens in one go, as apr run and apr batch
 * have it; no end token ends them.
 *
 *     struct apr_bench b = {.session = &s, .n_warmup = 1, .n_repetitions = 5};
 *     struct apr_bench_row row; TRY(apr_bench_run(&b, &test, &row, &arena, e));
 */
#ifndef APR_INFER_BENCH_H
#define APR_INFER_BENCH_H

#include "series.h"
#include "session.h"

struct apr_bench_test {
    size_t n_prompt, n_gen, n_depth; /* of each sequence */
    size_t n_seqs;                   /* that make tokens together, with n_prompt 0; 0: the session's own */
};

struct apr_bench_row {
    const char *model, *type, *kernels; /* type: of most bytes */
    const char *k_type, *v_type;        /* of the cache */
    uint64_t n_model_bytes, n_params, n_token_bytes;
    uint64_t n_cache_bytes; /* of the test's positions */
    uint64_t n_threads, n_chunk;
    double load_s;
    struct apr_bench_test test;
    const double *samples; /* [n] tokens a second, in order of time */
    size_t n;
    struct apr_summary rate;       /* tokens a second, of all sequences */
    struct apr_summary latency_ms; /* of a step (tg), of the whole run (others) */
    size_t n_latency_toks; /* tokens in a row of which one latency is the mean, at most; 0: it is a run's */
    struct apr_summary run_s;
};

struct apr_bench {
    struct apr_session *session;
    const struct apr_ids *text; /* NULL: drawn */
    uint64_t n_warmup, n_repetitions;
    struct apr_cache *seqs; /* [n_seqs] of tests with several; apr_bench_seqs */
    size_t n_seqs;
};

/* Caches for tests of up to n sequences of n_pos positions each; the arena outlives the tests. */
APR_MUST_USE enum apr_code apr_bench_seqs(struct apr_bench *b, size_t n, size_t n_pos,
                                          struct apr_arena *arena, struct apr_err *e);
void apr_bench_seqs_free(struct apr_bench *b);

/* Strings and samples of the row live in arena, so that it outlives the session. */
APR_MUST_USE enum apr_code apr_bench_run(struct apr_bench *b, const struct apr_bench_test *t,
                                         struct apr_bench_row *row, struct apr_arena *arena,
                                         struct apr_err *e);
/* Tokens drawn evenly from the vocabulary, the same in every run. */
void apr_bench_draw(uint32_t n_vocab, int32_t *ids, size_t n);
/* "pp512+tg128 @ d1024", "tg128 x 4" */
const char *apr_bench_name(const struct apr_bench_test *t, char *out, size_t n_out);

enum apr_bench_format { APR_BENCH_MD, APR_BENCH_JSON, APR_BENCH_JSONL, APR_BENCH_CSV, APR_BENCH_N_FORMATS };
APR_MUST_USE enum apr_code apr_bench_format_named(const char *name, enum apr_bench_format *f,
                                                  struct apr_err *e);
/* Everything at once, n >= 1, to stdout. */
APR_MUST_USE enum apr_code apr_bench_report(const struct apr_bench_row *rows, size_t n,
                                            enum apr_bench_format f, struct apr_err *e);

#endif
