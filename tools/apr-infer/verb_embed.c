/* embed: one vector for each text. */
#include <inttypes.h>
#include <string.h>

#include "embedder.h"
#include "io.h"
#include "prompt.h"
#include "verbs.h"

struct embed_args {
    struct apr_engine_opts engine;
    const char *file, *ids, *output, *pooling, *prompt_name, *prompt;
    bool normalize, no_normalize, jsonl, similarity, force;
};

static const struct apr_opt opts[] = {
    APR_OPT(struct embed_args, file, "file", 'f', "FILE", "one text a line from FILE; - is standard input"),
    APR_OPT(struct embed_args, ids, "ids", 0, "LIST", "token ids, comma-separated, instead of texts"),
    APR_OPT(struct embed_args, output, "output", 'o', "FILE",
            "write the vectors to FILE as little-endian f32; - is standard output"),
    APR_OPT(struct embed_args, pooling, "pooling", 0, "HOW",
            "mean, cls, last, max, mean-sqrt or weighted (default: the model's own)"),
    APR_OPT(struct embed_args, normalize, "normalize", 0, NULL, "bring vectors to length 1"),
    APR_OPT(struct embed_args, no_normalize, "no-normalize", 0, NULL, "leave vectors as they are"),
    APR_OPT(struct embed_args, prompt_name, "prompt-name", 0, "NAME",
            "put the model's prompt of that name before each text, as query or passage"),
    APR_OPT(struct embed_args, prompt, "prompt", 'p', "TEXT", "put TEXT before each text"),
    APR_OPT(struct embed_args, similarity, "similarity", 0, NULL,
            "print the cosine of the first text with each other one instead of vectors"),
    APR_OPT(struct embed_args, jsonl, "jsonl", 0, NULL, "print a JSON line for each text"),
    APR_OPT(struct embed_args, force, "force", 0, NULL, "replace an existing output"),
    APR_ENGINE_OPTS(struct embed_args),
};

static void init(void *args_)
{
    struct embed_args *a = args_;
    apr_engine_defaults(&a->engine);
    a->engine.on_cpu = "hidden states";
    a->engine.runs = APR_RUNS_TEXT | APR_RUNS_ENCODER;
}

/* ---- texts -------------------------------------------------------------------------------------------- */

struct texts {
    const struct apr_strs *operands; /* from the second on; or lines */
    struct apr_buf file;             /* owned */
    size_t off, i;
    bool has_file;
};

static enum apr_code open_texts(const struct embed_args *a, const struct apr_ctx *ctx, struct texts *t,
                                struct apr_err *e)
{
    const bool has_operands = ctx->operands->n > 1;
    *t = (struct texts){.operands = ctx->operands, .i = 1, .has_file = !has_operands};
    apr_buf_init(&t->file, APR_MAX_PROMPT_BYTES);
    if (a->ids && (has_operands || a->file || a->prompt || a->prompt_name))
        return apr_fail(e, APR_EUSAGE, "--ids stands alone: no texts, no prompt");
    if (a->ids) return APR_OK;
    if (has_operands && a->file) return apr_fail(e, APR_EUSAGE, "texts were given as operands and in a file");
    if (has_operands) return APR_OK;
    struct apr_prompt_from from = {.model = ctx->operands->at[0], .file = a->file ? a->file : "-"};
    return apr_prompt_read(&from, &t->file, e);
}

/* The next text; false after the last one. A line ends with a line feed, or a carriage return and one. */
static bool next_text(struct texts *t, const char **p, size_t *n)
{
    if (!t->has_file) {
        if (t->i >= t->operands->n) return false;
        *p = t->operands->at[t->i++];
        *n = strlen(*p);
        return true;
    }
    if (t->off >= t->file.n_bytes) return false;
    const char *begin = (const char *)t->file.data + t->off;
    const size_t n_left = t->file.n_bytes - t->off;
    const char *end = memchr(begin, '\n', n_left);
    *p = begin;
    *n = end ? (size_t)(end - begin) : n_left;
    t->off += *n + 1;
    if (*n && begin[*n - 1] == '\r') (*n)--;
    return true;
}

/* ---- output ------------------------------------------------------------------------------------------- */

struct sinks {
    const struct embed_args *a;
    struct apr_sink *sink; /* of -o */
    struct apr_out *out;   /* of --json */
    float *first;          /* of --similarity */
    size_t n_dims, n_done, n_cut;
};

static void put_vector(struct apr_out *o, const struct apr_embedding *v, size_t n_dims)
{
    apr_out_u64(o, "index", v->i);
    apr_out_u64(o, "n_tokens", v->n_toks);
    apr_out_bool(o, "truncated", v->is_cut);
    apr_out_arr(o, "embedding");
    for (size_t i = 0; i < n_dims; i++) apr_out_f64(o, NULL, (double)v->v[i]);
    apr_out_end(o);
}

static enum apr_code print_line(const struct apr_embedding *v, size_t n_dims, struct apr_err *e)
{
    for (size_t i = 0; i < n_dims; i++)
        if (printf(i ? " %.9g" : "%.9g", (double)v->v[i]) < 0)
            return apr_fail(e, APR_EIO, "standard output: %m");
    putchar('\n');
    return APR_OK;
}

static enum apr_code print_similarity(struct sinks *s, const struct apr_embedding *v, struct apr_err *e)
{
    if (v->i == 0) {
        memcpy(s->first, v->v, s->n_dims * sizeof *s->first);
        return APR_OK;
    }
    const double cosine = apr_cosine(s->first, v->v, s->n_dims);
    if (s->out) {
        apr_out_obj(s->out, NULL);
        apr_out_u64(s->out, "index", v->i);
        apr_out_f64(s->out, "cosine", cosine);
        apr_out_end(s->out);
        return APR_OK;
    }
    return printf("%.6f\n", cosine) < 0 ? apr_fail(e, APR_EIO, "standard output: %m") : APR_OK;
}

static enum apr_code take(void *ctx, const struct apr_embedding *v, struct apr_err *e)
{
    struct sinks *s = ctx;
    s->n_done++;
    s->n_cut += v->is_cut;
    if (s->sink) {
        apr_sink_write(s->sink, v->v, s->n_dims * sizeof *v->v);
        return apr_sink_failed(s->sink) ? apr_fail(e, APR_EIO, "the output cannot be written") : APR_OK;
    }
    if (s->a->similarity) return print_similarity(s, v, e);
    if (s->a->jsonl) {
        struct apr_out *o = apr_out_open(stdout, true, "apr.embedding/1");
        put_vector(o, v, s->n_dims);
        return apr_out_close(o, e);
    }
    if (!s->out) return print_line(v, s->n_dims, e);
    apr_out_obj(s->out, NULL);
    put_vector(s->out, v, s->n_dims);
    apr_out_end(s->out);
    return APR_OK;
}

static void head(struct apr_out *o, const struct apr_embedder *x)
{
    apr_out_str(o, "model", x->s->model->name);
    apr_out_str(o, "pooling", apr_pooling_name(x->pooling));
    apr_out_bool(o, "normalized", x->normalize);
    apr_out_u64(o, "n_dims", x->n_dims);
    apr_out_u64(o, "n_tokens_max", x->n_max);
}

/* Where the vectors went to a file the document tells about them alone. */
static enum apr_code tail(struct apr_out *o, const struct sinks *s, struct apr_err *e)
{
    if (!s->sink) apr_out_end(o);
    apr_out_u64(o, "n_texts", s->n_done);
    apr_out_u64(o, "n_truncated", s->n_cut);
    return apr_out_close(o, e);
}

/* ---- the verb ----------------------------------------------------------------------------------------- */

static enum apr_code all_ids(struct apr_embedder *x, const char *list, struct apr_err *e)
{
    int64_t *ids;
    size_t n;
    TRY(apr_parse_ints(list, 0, INT32_MAX, &ids, &n, e));
    enum apr_code code = apr_embedder_add_ids(x, ids, n, e);
    apr_ints_free(ids);
    return code == APR_OK ? apr_embedder_flush(x, e) : code;
}

static enum apr_code all_texts(const struct embed_args *a, struct apr_embedder *x, struct texts *t,
                               struct apr_err *e)
{
    const char *p;
    size_t n, n_texts = 0;
    if (a->ids) return all_ids(x, a->ids, e);
    while (next_text(t, &p, &n)) {
        TRY(apr_embedder_add(x, p, n, e));
        n_texts++;
    }
    if (!n_texts) return apr_fail(e, APR_EUSAGE, "no texts: give TEXT, -f FILE, or lines on standard input");
    return apr_embedder_flush(x, e);
}

static enum apr_code with_embedder(const struct embed_args *a, const struct apr_ctx *ctx,
                                   struct apr_embedder *x, struct texts *t, struct apr_err *e)
{
    struct sinks *s = apr_arena_get(ctx->arena, sizeof *s);
    s->a = a;
    s->n_dims = x->n_dims;
    x->take = take;
    x->ctx = s;
    TRY(apr_arena_try(ctx->arena, &s->first, x->n_dims, sizeof *s->first, "a vector", e));
    if (a->output) TRY(apr_sink_open(&s->sink, a->output, a->force, e));
    if (ctx->g->json) {
        s->out = apr_out_open(stdout, true, "apr.embed/1");
        head(s->out, x);
        if (!s->sink) apr_out_arr(s->out, a->similarity ? "similarities" : "data");
    }
    enum apr_code code = all_texts(a, x, t, e);
    if (s->sink && code != APR_OK && !apr_sink_failed(s->sink))
        apr_sink_abort(s->sink);
    else if (s->sink)
        code = apr_sink_finish(s->sink, e);
    if (s->out && code == APR_OK)
        code = tail(s->out, s, e);
    else
        apr_out_discard(s->out);
    if (code == APR_OK && s->n_cut)
        apr_note("%zu of %zu texts were longer than %zu tokens and were cut", s->n_cut, s->n_done, x->n_max);
    return code;
}

static enum apr_code with_model(const struct embed_args *a, const struct apr_ctx *ctx, struct texts *t,
                                struct apr_err *e)
{
    struct apr_session s;
    struct apr_embedder x;
    const struct apr_embed_opts how = {.pooling = a->pooling,
                                       .normalize = a->normalize,
                                       .no_normalize = a->no_normalize,
                                       .prompt_name = a->prompt_name,
                                       .prompt = a->prompt,
                                       .n_batch = (size_t)a->engine.n_batch,
                                       .exact = a->engine.exact};
    TRY(apr_session_open(&s, ctx->operands->at[0], &a->engine, ctx, e));
    enum apr_code code = apr_embedder_open(&x, &s, &how, e);
    if (code == APR_OK) code = with_embedder(a, ctx, &x, t, e);
    apr_embedder_close(&x);
    apr_session_close(&s);
    return code;
}

static enum apr_code run(void *args_, struct apr_ctx *ctx, struct apr_err *e)
{
    const struct embed_args *a = args_;
    struct texts t;
    if (a->normalize && a->no_normalize)
        return apr_fail(e, APR_EUSAGE, "--normalize and --no-normalize exclude each other");
    if (a->prompt && a->prompt_name)
        return apr_fail(e, APR_EUSAGE, "--prompt and --prompt-name exclude each other");
    if ((a->jsonl || a->similarity) && a->output)
        return apr_fail(e, APR_EUSAGE, "-o writes vectors; it does not go with --%s",
                        a->jsonl ? "jsonl" : "similarity");
    if (a->jsonl && (a->similarity || ctx->g->json))
        return apr_fail(e, APR_EUSAGE, "--jsonl does not go with --%s",
                        a->similarity ? "similarity" : "json");
    if (ctx->g->json && a->output && !strcmp(a->output, "-"))
        return apr_fail(e, APR_EUSAGE, "--json and the vectors cannot both go to standard output");
    enum apr_code code = open_texts(a, ctx, &t, e);
    if (code == APR_OK) code = with_model(a, ctx, &t, e);
    apr_buf_free(&t.file);
    return code;
}

static const char details[] =
    "Prints a line of numbers for each text: operands, or the lines of -f FILE or standard input. Pooling, "
    "normalization,\n"
    "prompts and the longest text come from the model's sentence-transformers files (which .apr carries, and "
    "GGUF as "
    "far\n"
    "as it has keys); without any an encoder takes the mean, a generator of text its last token. Longer "
    "texts are "
    "cut,\n"
    "which is said. A vector does not depend on the texts beside it, the threads or --prefill-chunk.\n"
    "\n"
    "  apr embed bge-small.apr 'a cat' 'a dog' --json\n"
    "  apr embed e5.apr -f passages.txt --prompt-name passage -o passages.f32\n"
    "  apr embed bge-small.apr --similarity 'a cat' 'a kitten' 'a stone'\n";

const struct apr_verb verb_embed = {
    .name = "embed",
    .operands = "MODEL [TEXT...]",
    .n_operands_min = 1,
    .n_operands_max = 1 << 20,
    .opts = opts,
    .n_opts = sizeof opts / sizeof *opts,
    .args_bytes = sizeof(struct embed_args),
    .init = init,
    .run = run,
    .details = details,
};
