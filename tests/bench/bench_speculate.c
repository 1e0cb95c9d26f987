/* What prompt lookup gains where a model really answers an edited copy of its prompt.
 *
 * A teacher takes the place of the model's choice: for every NAME.prompt of a folder the tokens of
 * NAME.answer are taken one after the other, whatever the logits say. All else is what apr run does: real
 * forward passes of MODEL over prompt and answer, real lookups in the text so far, real verification steps
 * with the logits of every row, a search of the largest logit for each token, rollback of what was wrong. So
 * the rates are those of a model of this shape and speed that gives these answers, which the weights need not
 * know. The logits at every position must be the same bits with lookup and without: then so is any text,
 * greedy or sampled. The model's own greedy text behind each prompt is made both ways too, and compared.
 *
 *     bench_speculate MODEL DIR [THREADS [ROUNDS [DRAFT_MAX]]]     rates, plain and with lookup in turn
 *     bench_speculate MODEL widths [THREADS]                       the time of a step of 1 .. 17 tokens
 */
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "../../tools/apr-infer/generate.h"
#include "../../tools/apr-infer/prompt.h"
#include "hash.h"

#define MAX_CASES 64
#define N_OWN     32 /* tokens of the model's own text */
#define N_DEPTH   128
#define N_WIDTHS  17

#define MUST(call) must((call), #call)
static struct apr_err err;
static void must(enum apr_code code, const char *call)
{
    if (code == APR_OK) return;
    (void)fprintf(stderr, "bench_speculate: %s: %s\n", call, err.text);
    exit((int)code);
}

static double now_cpu_s(void)
{
    struct timespec t;
    (void)clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

struct bench {
    struct apr_arena arena;
    struct apr_session s;
    struct apr_sampler sampler;
    struct apr_spec_opts opts;
    float *first, *logits; /* [n_vocab]: after the prompt; of a plain step */
};

struct text {
    char name[128];
    struct apr_ids prompt, answer;
};

/* One way through an answer. */
struct pass {
    double seconds, cpu_s;
    uint64_t *hashes; /* [tokens] of the logits that each was chosen from */
    struct apr_ids made;
    struct apr_spec_stats stats;
};

static void open_bench(struct bench *b, const char *model, unsigned n_threads, int64_t draft_max)
{
    static const struct apr_globals globals = {.quiet = true};
    struct apr_engine_opts o;
    struct apr_sample_opts sample;
    struct apr_spec_opts spec;
    *b = (struct bench){.first = NULL};
    apr_arena_init(&b->arena);
    const struct apr_ctx ctx = {.g = &globals, .arena = &b->arena, .gated = true};
    apr_engine_defaults(&o);
    o.n_threads = n_threads;
    o.device = "cpu";
    MUST(apr_session_open(&b->s, model, &o, &ctx, &err));
    size_t n_vocab = b->s.model->config.n_vocab;
    const struct apr_sampler_site site = {n_vocab, b->s.n_ctx, b->s.kern, b->s.tok};
    apr_sample_defaults(&sample);
    MUST(apr_sampler_init(&b->sampler, &sample, &site, &b->arena, &err));
    apr_spec_defaults(&spec);
    spec.lookup = true;
    if (draft_max) spec.n_max = draft_max;
    MUST(apr_spec_resolve(&spec, &b->opts, &err));
    MUST(apr_arena_try(&b->arena, &b->first, n_vocab, sizeof *b->first, "logits", &err));
    MUST(apr_arena_try(&b->arena, &b->logits, n_vocab, sizeof *b->logits, "logits", &err));
}

static enum apr_code run_rows(void *ctx, const int32_t *ids, size_t n, float *logits, struct apr_err *e)
{
    struct bench *b = ctx;
    return apr_forward_rows(&b->s.fwd, &b->s.cache, ids, n, logits, e);
}

static void take_back(void *ctx, size_t n)
{
    struct bench *b = ctx;
    apr_cache_truncate(&b->s.cache, b->s.cache.n_pos - n);
}

/* What comes after a prompt that has run. teacher NULL: the model's own greedy choice, n tokens. */
static void run_pass(struct bench *b, const struct apr_ids *prompt, const struct apr_ids *teacher, size_t n,
                     bool with_lookup, struct pass *p)
{
    size_t n_bytes = b->s.model->config.n_vocab * sizeof(float);
    const struct apr_spec_model m = {run_rows, take_back, b};
    const float *at = b->first;
    struct apr_arena arena; /* of spec */
    struct apr_spec spec;
    apr_arena_init(&arena);
    p->made.n = 0;
    apr_cache_truncate(&b->s.cache, prompt->n);
    if (with_lookup) {
        MUST(apr_spec_open(&spec, &b->opts, NULL, b->s.model->config.n_vocab, &arena, &err));
        MUST(apr_spec_begin(&spec, prompt->at, prompt->n, &err));
    }
    p->seconds = p->cpu_s = 0;
    for (size_t i = 0; i < n; i++) {
        int32_t id;
        p->hashes[i] = apr_xxh3_64(at, n_bytes);
        int64_t ns = apr_now_ns();
        double cpu_s = now_cpu_s();
        MUST(apr_sampler_next(&b->sampler, at, &id, &err));
        if (teacher) id = teacher->at[i];
        MUST(apr_ids_push(&p->made, id, &err));
        if (i + 1 == n) break;
        if (with_lookup) {
            MUST(apr_spec_next(&spec, id, n - i - 1, &m, &at, &err));
        } else {
            MUST(apr_forward_rows(&b->s.fwd, &b->s.cache, &id, 1, b->logits, &err));
            at = b->logits;
        }
        p->seconds += (double)(apr_now_ns() - ns) * 1e-9;
        p->cpu_s += now_cpu_s() - cpu_s;
    }
    if (with_lookup) {
        take_back(b, apr_spec_end(&spec));
        p->stats = spec.stats;
        apr_spec_close(&spec);
    }
    apr_arena_free(&arena);
}

static void prefill(struct bench *b, const struct apr_ids *prompt)
{
    apr_cache_truncate(&b->s.cache, 0);
    MUST(apr_forward_prompt(&b->s.fwd, &b->s.cache, prompt->at, prompt->n, &err));
    MUST(apr_forward_logits(&b->s.fwd, b->s.fwd.n_toks - 1, 1, b->first, &err));
}

static size_t n_different(const struct pass *a, const struct pass *b)
{
    size_t n = a->made.n != b->made.n;
    for (size_t i = 0; i < a->made.n && !n; i++)
        n += a->hashes[i] != b->hashes[i] || a->made.at[i] != b->made.at[i];
    return n;
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(double *at, size_t n)
{
    qsort(at, n, sizeof *at, by_value);
    return n % 2 ? at[n / 2] : (at[n / 2 - 1] + at[n / 2]) / 2;
}

struct total {
    double plain_s, lookup_s;
    size_t n_toks, n_bad;
};

static void run_case(struct bench *b, const struct text *t, size_t n_rounds, struct total *sum)
{
    enum { MAX_ROUNDS = 32 };
    struct pass plain = {0}, lookup = {0};
    double plain_s[MAX_ROUNDS] = {0}, lookup_s[MAX_ROUNDS] = {0}, cpu[MAX_ROUNDS] = {0};
    size_t n = t->answer.n;
    if (n_rounds > MAX_ROUNDS) n_rounds = MAX_ROUNDS;
    MUST(apr_session_fits(&b->s, t->prompt.n, n > N_OWN ? n : N_OWN, &err));
    plain.hashes = apr_arena_get(&b->arena, (n + N_OWN) * sizeof *plain.hashes);
    lookup.hashes = apr_arena_get(&b->arena, (n + N_OWN) * sizeof *lookup.hashes);
    prefill(b, &t->prompt);
    run_pass(b, &t->prompt, NULL, N_OWN, false, &plain);
    run_pass(b, &t->prompt, NULL, N_OWN, true, &lookup);
    size_t n_bad = n_different(&plain, &lookup);
    for (size_t i = 0; i < n_rounds; i++) {
        run_pass(b, &t->prompt, &t->answer, n, false, &plain);
        run_pass(b, &t->prompt, &t->answer, n, true, &lookup);
        plain_s[i] = plain.seconds;
        lookup_s[i] = lookup.seconds;
        cpu[i] = plain.cpu_s / lookup.cpu_s;
        n_bad += n_different(&plain, &lookup);
    }
    double p = median(plain_s, n_rounds), l = median(lookup_s, n_rounds), n_steps = (double)(n - 1);
    const struct apr_spec_stats *s = &lookup.stats;
    printf("%s\t%zu\t%zu\t%.2f\t%.2f\t%.2f\t%.2f\t%.3f\t%.2f\t%s\n", t->name, t->prompt.n, n, n_steps / p,
           n_steps / l, p / l, median(cpu, n_rounds),
           s->n_proposed ? (double)s->n_accepted / (double)s->n_proposed : 0, n_steps / (double)s->n_steps,
           n_bad ? "NO" : "yes");
    (void)fflush(stdout);
    sum->plain_s += p;
    sum->lookup_s += l;
    sum->n_toks += n - 1;
    sum->n_bad += n_bad;
    apr_ids_free(&plain.made);
    apr_ids_free(&lookup.made);
}

static void read_ids(struct bench *b, const char *dir, const char *name, const char *end, struct apr_ids *ids)
{
    char path[1024];
    struct apr_buf buf;
    const struct apr_tok *tok;
    (void)snprintf(path, sizeof path, "%s/%s.%s", dir, name, end);
    apr_buf_init(&buf, APR_MAX_PROMPT_BYTES);
    MUST(apr_session_tok(&b->s, &tok, &err));
    MUST(apr_prompt_read(&(struct apr_prompt_from){.model = "", .file = path}, &buf, &err));
    MUST(apr_prompt_encode(tok, &b->s.model->vocab, (const char *)buf.data, buf.n_bytes, ids, &err));
    apr_buf_free(&buf);
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const struct text *)a)->name, ((const struct text *)b)->name);
}

static size_t find_cases(const char *dir, struct text *texts)
{
    size_t n = 0;
    DIR *d = opendir(dir);
    for (struct dirent *f; d && (f = readdir(d)) && n < MAX_CASES;) {
        size_t n_name = strlen(f->d_name), n_end = strlen(".prompt");
        if (n_name <= n_end || n_name >= sizeof texts->name ||
            strcmp(f->d_name + n_name - n_end, ".prompt") != 0)
            continue;
        memcpy(texts[n].name, f->d_name, n_name - n_end);
        n++;
    }
    if (d) closedir(d);
    if (!n) {
        (void)fprintf(stderr, "bench_speculate: %s: no NAME.prompt\n", dir);
        exit(3);
    }
    qsort(texts, n, sizeof *texts, by_name);
    return n;
}

static bool run_cases(struct bench *b, const char *dir, size_t n_rounds)
{
    static struct text texts[MAX_CASES];
    struct total sum = {0};
    size_t n = find_cases(dir, texts);
    printf("case\tprompt\tanswer\tplain tok/s\tlookup tok/s\tratio\tcpu "
           "ratio\taccepted\ttoks/step\tidentical\n");
    for (size_t i = 0; i < n; i++) {
        read_ids(b, dir, texts[i].name, "prompt", &texts[i].prompt);
        read_ids(b, dir, texts[i].name, "answer", &texts[i].answer);
        run_case(b, &texts[i], n_rounds, &sum);
        apr_ids_free(&texts[i].prompt);
        apr_ids_free(&texts[i].answer);
    }
    printf("all\t\t%zu\t%.2f\t%.2f\t%.2f\t\t\t\t%s\n", sum.n_toks, (double)sum.n_toks / sum.plain_s,
           (double)sum.n_toks / sum.lookup_s, sum.plain_s / sum.lookup_s, sum.n_bad ? "NO" : "yes");
    return !sum.n_bad;
}

/* Medians of interleaved steps of every width, at one depth. */
static void run_widths(struct bench *b)
{
    enum { ROUNDS = 3 };
    size_t n_vocab = b->s.model->config.n_vocab,
           n_depth = b->s.n_ctx > 2 * N_DEPTH ? N_DEPTH : b->s.n_ctx / 2;
    double seconds[N_WIDTHS + 1][ROUNDS], cpu[N_WIDTHS + 1][ROUNDS];
    float *logits = apr_arena_get(&b->arena, N_WIDTHS * n_vocab * sizeof *logits);
    int32_t *ids = apr_arena_get(&b->arena, n_depth * sizeof *ids);
    for (size_t i = 0; i < n_depth; i++) ids[i] = (int32_t)((i * 7919) % n_vocab);
    MUST(apr_forward_prompt(&b->s.fwd, &b->s.cache, ids, n_depth, &err));
    for (size_t i = 0; i < ROUNDS; i++)
        for (size_t w = 1; w <= N_WIDTHS; w++) {
            int64_t ns = apr_now_ns();
            double cpu_s = now_cpu_s();
            MUST(apr_forward_rows(&b->s.fwd, &b->s.cache, ids, w, logits, &err));
            seconds[w][i] = (double)(apr_now_ns() - ns) * 1e-9;
            cpu[w][i] = now_cpu_s() - cpu_s;
            take_back(b, w);
        }
    printf("tokens\tms\tof one\ttok/s\tcpu ms\tof one\n");
    double one = median(seconds[1], ROUNDS), cpu_one = median(cpu[1], ROUNDS);
    for (size_t w = 1; w <= N_WIDTHS; w++) {
        double s = median(seconds[w], ROUNDS);
        double c = median(cpu[w], ROUNDS);
        printf("%zu\t%.2f\t%.2f\t%.1f\t%.2f\t%.2f\n", w, s * 1e3, s / one, (double)w / s, c * 1e3,
               c / cpu_one);
    }
}

int main(int argc, char **argv)
{
    struct bench b;
    bool ok = true;
    if (argc < 3) {
        (void)fprintf(stderr, "usage: bench_speculate MODEL DIR|widths [THREADS [ROUNDS [DRAFT_MAX]]]\n");
        return 2;
    }
    unsigned n_threads = argc > 3 ? (unsigned)strtoul(argv[3], NULL, 10) : 0;
    size_t n_rounds = argc > 4 ? strtoul(argv[4], NULL, 10) : 1;
    open_bench(&b, argv[1], n_threads, argc > 5 ? strtol(argv[5], NULL, 10) : 0);
    if (!strcmp(argv[2], "widths"))
        run_widths(&b);
    else
        ok = run_cases(&b, argv[2], n_rounds ? n_rounds : 1);
    apr_session_close(&b.s);
    apr_arena_free(&b.arena);
    return !ok;
}
