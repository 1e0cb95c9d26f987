/* The results of bench as a table, as one document, as lines, or as comma-separated values. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "bench.h"
#include "buf.h"

static const char *const format_names[APR_BENCH_N_FORMATS] = {
    [APR_BENCH_MD] = "md", [APR_BENCH_JSON] = "json", [APR_BENCH_JSONL] = "jsonl", [APR_BENCH_CSV] = "csv"};

enum apr_code apr_bench_format_named(const char *name, enum apr_bench_format *f, struct apr_err *e)
{
    for (size_t i = 0; i < APR_BENCH_N_FORMATS; i++)
        if (strcmp(format_names[i], name) == 0) {
            *f = (enum apr_bench_format)i;
            return APR_OK;
        }
    return apr_fail(e, APR_EUSAGE, "--output: found \"%.40s\", expected md, json, jsonl or csv", name);
}

/* 1234567 -> "1.23 M" */
static const char *count_text(uint64_t n, char out[32])
{
    static const char unit[] = {' ', 'K', 'M', 'B', 'T'};
    double v = (double)n;
    size_t i = 0;
    for (; v >= 1000 && i + 1 < sizeof unit; i++) v /= 1000;
    (void)snprintf(out, 32, i ? "%.2f %c" : "%.0f", v, unit[i]);
    return out;
}

/* Those of means of several tokens do not look like those of tokens: "2.01 of 8". */
static const char *latency_text(const struct apr_bench_row *r, double ms, char out[48])
{
    if (r->n_latency_toks > 1)
        (void)snprintf(out, 48, "%.2f of %zu", ms, r->n_latency_toks);
    else
        (void)snprintf(out, 48, "%.2f", ms);
    return out;
}

static enum apr_code put_md(struct apr_buf *b, const struct apr_bench_row *rows, size_t n, struct apr_err *e)
{
    char name[128], params[32];
    TRY(apr_buf_printf(b, e,
                       "| model | type | size | params | kernels | threads | chunk | test | t/s | p50 ms | "
                       "p95 ms | p99 ms | CV %% |\n"
                       "|---|---|---:|---:|---|---:|---:|---|---:|---:|---:|---:|---:|\n"));
    for (size_t i = 0; i < n; i++) {
        const struct apr_bench_row *r = &rows[i];
        char model[256], p50[48], p95[48], p99[48];
        apr_escape(model, sizeof model, r->model, strlen(r->model));
        TRY(apr_buf_printf(b, e,
                           "| %s | %s | %.2f MiB | %s | %s | %" PRIu64 " | %" PRIu64
                           " | %s | %.2f ± %.2f | %s | %s | %s | %.2f |\n",
                           model, r->type, (double)r->n_model_bytes / 1048576,
                           count_text(r->n_params, params), r->kernels, r->n_threads, r->n_chunk,
                           apr_bench_name(&r->test, name, sizeof name), r->rate.mean, r->rate.sd,
                           latency_text(r, r->latency_ms.p50, p50), latency_text(r, r->latency_ms.p95, p95),
                           latency_text(r, r->latency_ms.p99, p99), r->rate.cv_pct));
    }
    return APR_OK;
}

/* A field: quoted, quotes doubled (RFC 4180). */
static enum apr_code csv_text(struct apr_buf *b, const char *s, struct apr_err *e)
{
    TRY(apr_buf_append(b, "\"", 1, e));
    for (; *s; s++) TRY(apr_buf_append(b, *s == '"' ? "\"\"" : s, *s == '"' ? 2 : 1, e));
    return apr_buf_append(b, "\"", 1, e);
}

static enum apr_code put_csv(struct apr_buf *b, const struct apr_bench_row *rows, size_t n, struct apr_err *e)
{
    char name[128];
    TRY(apr_buf_printf(
        b, e,
        "model,type,size_bytes,n_params,kernels,n_threads,n_chunk,test,n_prompt,n_gen,n_depth,n_repetitions,"
        "toks_per_s_mean,toks_per_s_sd,toks_per_s_cv_pct,latency_p50_ms,latency_p95_ms,latency_p99_ms,"
        "cache_type_k,cache_type_v,cache_bytes,n_sequences,n_latency_toks\n"));
    for (size_t i = 0; i < n; i++) {
        const struct apr_bench_row *r = &rows[i];
        TRY(csv_text(b, r->model, e));
        TRY(apr_buf_printf(b, e, ",%s,%" PRIu64 ",%" PRIu64 ",", r->type, r->n_model_bytes, r->n_params));
        TRY(csv_text(b, r->kernels, e));
        TRY(apr_buf_printf(b, e,
                           ",%" PRIu64 ",%" PRIu64 ",%s,%zu,%zu,%zu,%zu,"
                           "%.6g,%.6g,%.6g,%.6g,%.6g,%.6g,%s,%s,%" PRIu64 ",%zu,%zu\n",
                           r->n_threads, r->n_chunk, apr_bench_name(&r->test, name, sizeof name),
                           r->test.n_prompt, r->test.n_gen, r->test.n_depth, r->n, r->rate.mean, r->rate.sd,
                           r->rate.cv_pct, r->latency_ms.p50, r->latency_ms.p95, r->latency_ms.p99, r->k_type,
                           r->v_type, r->n_cache_bytes, r->test.n_seqs ? r->test.n_seqs : 1,
                           r->n_latency_toks));
    }
    return APR_OK;
}

static void out_row(struct apr_out *o, const struct apr_bench_row *r)
{
    char name[128];
    apr_out_str(o, "model", r->model);
    apr_out_str(o, "type", r->type);
    apr_out_bytes(o, "size_bytes", r->n_model_bytes);
    apr_out_u64(o, "n_params", r->n_params);
    apr_out_str(o, "kernels", r->kernels);
    apr_out_str(o, "cache_type_k", r->k_type);
    apr_out_str(o, "cache_type_v", r->v_type);
    apr_out_bytes(o, "cache_bytes", r->n_cache_bytes);
    apr_out_u64(o, "n_threads", r->n_threads);
    apr_out_u64(o, "n_chunk", r->n_chunk);
    apr_out_str(o, "test", apr_bench_name(&r->test, name, sizeof name));
    apr_out_u64(o, "n_prompt", r->test.n_prompt);
    apr_out_u64(o, "n_gen", r->test.n_gen);
    apr_out_u64(o, "n_depth", r->test.n_depth);
    apr_out_u64(o, "n_sequences", r->test.n_seqs ? r->test.n_seqs : 1);
    apr_out_u64(o, "n_repetitions", r->n);
    apr_summary_out(o, "toks_per_s", &r->rate);
    apr_summary_out(o, "latency_ms", &r->latency_ms);
    apr_out_u64(o, "n_latency_toks", r->n_latency_toks);
    apr_out_arr(o, "samples_toks_per_s");
    for (size_t i = 0; i < r->n; i++) apr_out_f64(o, NULL, r->samples[i]);
    apr_out_end(o);
}

/* The first row that only reads, or only makes tokens. */
static const struct apr_bench_row *first_of(const struct apr_bench_row *rows, size_t n, bool is_prompt)
{
    for (size_t i = 0; i < n; i++)
        if (is_prompt ? rows[i].test.n_prompt && !rows[i].test.n_gen
                      : rows[i].test.n_gen && !rows[i].test.n_prompt)
            return &rows[i];
    return NULL;
}

static enum apr_code put_document(const struct apr_bench_row *rows, size_t n, struct apr_err *e)
{
    const struct apr_bench_row *prompt = first_of(rows, n, true), *decode = first_of(rows, n, false);
    struct apr_out *o = apr_out_open(stdout, true, "apr.bench/1");
    apr_out_str(o, "model", rows->model);
    apr_out_str(o, "kernels", rows->kernels);
    apr_out_u64(o, "n_threads", rows->n_threads);
    apr_out_bytes(o, "bytes_per_token", rows->n_token_bytes);
    apr_out_u64(o, "n_prompt_toks", prompt ? prompt->test.n_prompt : 0);
    apr_out_u64(o, "n_generated", decode ? decode->test.n_gen : 0);
    apr_out_u64(o, "n_iterations", rows->n);
    apr_out_f64(o, "load_s", rows->load_s);
    if (prompt) apr_summary_out(o, "prompt_toks_per_s", &prompt->rate);
    if (decode) apr_summary_out(o, "decode_toks_per_s", &decode->rate);
    if (prompt) apr_summary_out(o, "first_token_s", &prompt->run_s);
    apr_out_arr(o, "tests");
    for (size_t i = 0; i < n; i++) {
        apr_out_obj(o, NULL);
        out_row(o, &rows[i]);
        apr_out_end(o);
    }
    apr_out_end(o);
    return apr_out_close(o, e);
}

static enum apr_code put_lines(const struct apr_bench_row *rows, size_t n, struct apr_err *e)
{
    for (size_t i = 0; i < n; i++) {
        struct apr_out *o = apr_out_open(stdout, true, "apr.bench.row/1");
        out_row(o, &rows[i]);
        TRY(apr_out_close(o, e));
    }
    return APR_OK;
}

static enum apr_code put_text(const struct apr_bench_row *rows, size_t n,
                              enum apr_code (*put)(struct apr_buf *b, const struct apr_bench_row *rows,
                                                   size_t n, struct apr_err *e),
                              struct apr_err *e)
{
    struct apr_buf b;
    apr_buf_init(&b, 64u << 20);
    enum apr_code code = put(&b, rows, n, e);
    if (code == APR_OK && fwrite(b.data, 1, b.n_bytes, stdout) != b.n_bytes)
        code = apr_fail(e, APR_EIO, "standard output: the results were not written");
    apr_buf_free(&b);
    return code;
}

enum apr_code apr_bench_report(const struct apr_bench_row *rows, size_t n, enum apr_bench_format f,
                               struct apr_err *e)
{
    if (f == APR_BENCH_JSON) return put_document(rows, n, e);
    if (f == APR_BENCH_JSONL) return put_lines(rows, n, e);
    return put_text(rows, n, f == APR_BENCH_CSV ? put_csv : put_md, e);
}
