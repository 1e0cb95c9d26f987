/* trace: what a prompt becomes, layer by layer. */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "fmt/fmt.h"
#include "launches.h"
#include "prompt.h"
#include "trace.h"
#include "verbs.h"

#define N_NEXT 5u

struct trace_args {
    struct apr_engine_opts engine;
    const char *prompt, *input, *reference;
    int64_t layer, inside;
    uint64_t n_values;
    bool payload, launches;
};

static const struct apr_opt opts[] = {
    APR_OPT(struct trace_args, prompt, "prompt", 'p', "TEXT", "the prompt, as it is (default: \"Hello\")"),
    APR_OPT(struct trace_args, input, "input", 'i', "FILE", "the prompt from a file; - is standard input"),
    APR_OPT(struct trace_args, layer, "layer", 0, "N",
            "this line alone: 0 is the embedding, 1 the first layer"),
    APR_OPT(struct trace_args, payload, "payload", 0, NULL,
            "also the tokens, values of the last position, and the most probable next tokens"),
    APR_OPT(struct trace_args, n_values, "values", 0, "N",
            "values of --payload and --inside; 0: all (default 8)"),
    APR_OPT(struct trace_args, inside, "inside", 0, "N",
            "values of the last position in every step of layer N, 0 the first, and in its cache"),
    APR_OPT(struct trace_args, launches, "launches", 0, NULL,
            "with --device cuda: the kernels that the GPU launches for the prompt and the next token"),
    APR_OPT(struct trace_args, reference, "reference", 0, "OTHER",
            "compare the last position with this model's, layer by layer"),
    APR_ENGINE_OPTS(struct trace_args),
};

static void init(void *args_)
{
    struct trace_args *a = args_;
    apr_engine_defaults(&a->engine);
    a->engine.on_cpu = "hidden states";
    a->layer = a->inside = -1;
    a->n_values = 8;
}

/* Everything that the report shows. */
struct view {
    const struct trace_args *a;
    struct apr_session *s;
    struct apr_ids ids;
    struct apr_trace t, ref; /* ref.points NULL without a reference */
    struct apr_inside inside;
    float *logits;  /* [n_vocab]; NULL: not asked for, or not finite */
    uint32_t n_bad; /* lines with NaN or Inf */
};

static double norm_of(const float *x, size_t n)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++) sum += (double)x[i] * (double)x[i];
    return sqrt(sum);
}

static const char *point_name(const struct apr_trace *t, uint32_t i, char out[32])
{
    if (i == 0) return "embedding";
    if (i + 1 == t->n_points) return "final_norm";
    (void)snprintf(out, 32, "layer %" PRIu32, i - 1);
    return out;
}

/* cos and relative distance of the last position to the reference's. */
static void out_reference(struct apr_out *o, const float *x, const float *ref, size_t n)
{
    double dot = 0, diff = 0, norm_ref = norm_of(ref, n), norms = norm_of(x, n) * norm_ref;
    for (size_t i = 0; i < n; i++) {
        double d = (double)x[i] - (double)ref[i];
        dot += (double)x[i] * (double)ref[i];
        diff += d * d;
    }
    apr_out_f64(o, "cosine_last", norms > 0 ? dot / norms : (double)NAN);
    apr_out_f64(o, "rel_diff_last", norm_ref > 0 ? sqrt(diff) / norm_ref : (double)NAN);
}

static void out_values(struct apr_out *o, const struct view *v, const char *key, const float *x, size_t n)
{
    size_t n_shown = v->a->n_values && v->a->n_values < n ? (size_t)v->a->n_values : n;
    apr_out_arr(o, key);
    for (size_t k = 0; k < n_shown; k++) apr_out_f64(o, NULL, (double)x[k]);
    apr_out_end(o);
}

static void out_point(struct apr_out *o, const struct view *v, uint32_t i)
{
    const struct apr_trace_point *p = &v->t.points[i];
    size_t n = v->s->model->config.n_hidden;
    char name[32];
    apr_out_obj(o, NULL);
    apr_out_u64(o, "index", i);
    apr_out_str(o, "name", point_name(&v->t, i, name));
    apr_out_f64(o, "mean", apr_stats_mean(&p->stats));
    apr_out_f64(o, "sd", apr_stats_sd(&p->stats));
    apr_out_f64(o, "l2", sqrt(p->stats.sum_sq));
    apr_out_f64(o, "l2_last", norm_of(p->last, n));
    apr_out_f64(o, "min", (double)p->stats.min);
    apr_out_f64(o, "max", (double)p->stats.max);
    apr_out_u64(o, "n_nan", p->stats.n_nan);
    apr_out_u64(o, "n_inf", p->stats.n_inf);
    apr_out_u64(o, "n_zero", p->stats.n_zero);
    if (v->ref.points) out_reference(o, p->last, v->ref.points[i].last, n);
    if (v->a->payload) out_values(o, v, "last_values", p->last, n);
    apr_out_end(o);
}

static void out_inside(struct apr_out *o, const struct view *v)
{
    apr_out_obj(o, "inside");
    apr_out_u64(o, "layer", v->inside.i_layer);
    apr_out_arr(o, "steps");
    for (size_t i = 0; i < v->inside.n_steps; i++) {
        const struct apr_inside_step *s = &v->inside.steps[i];
        apr_out_obj(o, NULL);
        apr_out_str(o, "name", s->name);
        apr_out_u64(o, "n_values", s->n);
        apr_out_f64(o, "l2", norm_of(s->values, s->n));
        out_values(o, v, "values", s->values, s->n);
        apr_out_end(o);
    }
    apr_out_end(o);
    apr_out_end(o);
}

static enum apr_code out_token(struct apr_out *o, const struct view *v, int32_t id, struct apr_err *e)
{
    struct apr_buf piece;
    apr_out_u64(o, "id", (uint64_t)id);
    apr_buf_init(&piece, 1u << 20);
    enum apr_code code = apr_tok_piece(v->s->tok, id, true, &piece, e);
    if (code == APR_OK) {
        char text[256];
        apr_out_str(o, "text",
                    apr_escape(text, sizeof text, piece.data ? (char *)piece.data : "", piece.n_bytes));
    }
    apr_buf_free(&piece);
    return code;
}

/* The N_NEXT largest logits, the largest first; takes them out of v->logits. */
static enum apr_code out_next(struct apr_out *o, const struct view *v, struct apr_err *e)
{
    size_t n = v->s->model->config.n_vocab, i_max;
    double max = (double)v->s->kern->max(v->logits, n, &i_max), sum = 0;
    for (size_t i = 0; i < n; i++) sum += exp((double)v->logits[i] - max);
    apr_out_arr(o, "next_tokens");
    for (size_t k = 0; k < N_NEXT && k < n; k++) {
        double logit = (double)v->s->kern->max(v->logits, n, &i_max);
        apr_out_obj(o, NULL);
        TRY(out_token(o, v, (int32_t)i_max, e));
        apr_out_f64(o, "logit", logit);
        apr_out_f64(o, "p", exp(logit - max) / sum);
        apr_out_end(o);
        v->logits[i_max] = -INFINITY;
    }
    apr_out_end(o);
    return APR_OK;
}

static enum apr_code out_all(struct apr_out *o, const struct view *v, struct apr_err *e)
{
    apr_out_str(o, "model", v->s->model->name);
    apr_out_str(o, "format", v->s->model->fmt->name);
    apr_out_str(o, "mode", v->a->engine.exact ? "exact" : "default");
    apr_out_u64(o, "n_toks", v->ids.n);
    apr_out_u64(o, "n_layers", v->s->model->config.n_layers);
    apr_out_u64(o, "n_hidden", v->s->model->config.n_hidden);
    if (v->ref.points) apr_out_str(o, "reference", v->ref.session->model->name);
    if (v->a->payload) {
        apr_out_arr(o, "tokens");
        for (size_t i = 0; i < v->ids.n; i++) {
            apr_out_obj(o, NULL);
            TRY(out_token(o, v, v->ids.at[i], e));
            apr_out_end(o);
        }
        apr_out_end(o);
    }
    apr_out_arr(o, "layers");
    for (uint32_t i = 0; i < v->t.n_points; i++)
        if (v->a->layer < 0 || i == (uint64_t)v->a->layer) out_point(o, v, i);
    apr_out_end(o);
    if (v->inside.n_steps) out_inside(o, v);
    if (v->logits) TRY(out_next(o, v, e));
    apr_out_u64(o, "anomaly_count", v->n_bad);
    return APR_OK;
}

static enum apr_code report(const struct view *v, const struct apr_ctx *ctx, struct apr_err *e)
{
    struct apr_out *o = apr_out_open(stdout, ctx->g->json, "apr.trace/1");
    enum apr_code code = out_all(o, v, e);
    if (code != APR_OK) {
        apr_out_discard(o);
        return code;
    }
    TRY(apr_out_close(o, e));
    if (!v->n_bad) return APR_OK;
    for (uint32_t i = 0;; i++) {
        const struct apr_stats *s = &v->t.points[i].stats;
        char name[32];
        if (s->n_nan + s->n_inf)
            return apr_fail(e, APR_ENO, "%s: the hidden states have NaN or Inf, first in %s",
                            v->s->model->path, point_name(&v->t, i, name));
    }
}

static enum apr_code run_reference(struct view *v, struct apr_session *ref, const struct apr_ctx *ctx,
                                   struct apr_err *e)
{
    const struct apr_config *c = &v->s->model->config, *r = &ref->model->config;
    if (c->n_layers != r->n_layers || c->n_hidden != r->n_hidden)
        return apr_fail(
            e, APR_ELOAD, "%s has %" PRIu32 " layers of %" PRIu32 ", %s has %" PRIu32 " of %" PRIu32,
            v->s->model->path, c->n_layers, c->n_hidden, ref->model->path, r->n_layers, r->n_hidden);
    return apr_trace_run(&v->ref, ref, v->ids.at, v->ids.n, NULL, ctx->arena, e);
}

static enum apr_code run_model(struct view *v, const struct apr_ctx *ctx, const struct apr_buf *text,
                               struct apr_err *e)
{
    const struct apr_tok *tok;
    const struct apr_config *c = &v->s->model->config;
    struct apr_session ref;
    TRY(apr_session_tok(v->s, &tok, e));
    if (v->a->layer > (int64_t)c->n_layers + 1)
        return apr_fail(e, APR_EUSAGE, "--layer: found %" PRId64 ", expected 0 to %" PRIu32, v->a->layer,
                        c->n_layers + 1);
    TRY(apr_prompt_encode(tok, &v->s->model->vocab, (const char *)text->data, text->n_bytes, &v->ids, e));
    if (v->a->inside >= (int64_t)c->n_layers)
        return apr_fail(e, APR_EUSAGE, "--inside: found %" PRId64 ", expected 0 to %" PRIu32, v->a->inside,
                        c->n_layers - 1);
    bool inside = v->a->inside >= 0;
    if (inside) TRY(apr_inside_init(&v->inside, &v->s->fwd, (uint32_t)v->a->inside, ctx->arena, e));
    TRY(apr_trace_run(&v->t, v->s, v->ids.at, v->ids.n, inside ? &v->inside : NULL, ctx->arena, e));
    for (uint32_t i = 0; i < v->t.n_points; i++)
        v->n_bad += v->t.points[i].stats.n_nan + v->t.points[i].stats.n_inf > 0;
    if (v->a->payload && !v->n_bad) {
        TRY(apr_arena_try(ctx->arena, &v->logits, c->n_vocab, sizeof *v->logits, "logits", e));
        TRY(apr_forward_logits(&v->s->fwd, v->s->fwd.n_toks - 1, 1, v->logits, e));
    }
    if (!v->a->reference) return report(v, ctx, e);
    TRY(apr_session_open(&ref, v->a->reference, &v->a->engine, ctx, e));
    enum apr_code code = run_reference(v, &ref, ctx, e);
    if (code == APR_OK) code = report(v, ctx, e);
    apr_session_close(&ref);
    return code;
}

/* ---- on a device --------------------------------------------------------------------------------------- */

/* One event a launch, as the original's KernelLaunch step. */
static void out_launches(struct apr_out *o, const char *key, const struct apr_launches *l)
{
    apr_out_obj(o, key);
    apr_out_u64(o, "n_toks", l->n_toks);
    apr_out_u64(o, "n_launches", l->n);
    apr_out_f64(o, "us", 1e6 * l->s);
    (void)apr_launches_out(o, "kernel_launches", l, NULL);
    apr_out_end(o);
}

static enum apr_code trace_launches(struct view *v, const struct apr_ctx *ctx, const struct apr_buf *text,
                                    struct apr_err *e)
{
    const struct apr_tok *tok;
    struct apr_launches prompt, token;
    TRY(apr_session_tok(v->s, &tok, e));
    TRY(apr_prompt_encode(tok, &v->s->model->vocab, (const char *)text->data, text->n_bytes, &v->ids, e));
    if (!v->ids.n) return apr_fail(e, APR_EUSAGE, "the prompt has no tokens");
    TRY(apr_session_fits(v->s, v->ids.n, 1, e));
    TRY(apr_launches_of(v->s, v->ids.at, v->ids.n, &prompt, ctx->arena, e));
    TRY(apr_offload_run(v->s->fwd.offload, &v->s->cache, v->ids.at, v->ids.n, 0, NULL, e));
    TRY(apr_launches_of(v->s, v->ids.at + v->ids.n - 1, 1, &token, ctx->arena, e));
    struct apr_out *o = apr_out_open(stdout, ctx->g->json, "apr.trace/1");
    apr_out_str(o, "model", v->s->model->name);
    apr_out_str(o, "device", apr_offload_name(v->s->fwd.offload));
    out_launches(o, "prompt", &prompt);
    out_launches(o, "token", &token);
    return apr_out_close(o, e);
}

static enum apr_code check_launches(const struct trace_args *a, struct apr_err *e)
{
    if (a->payload || a->reference || a->layer >= 0 || a->inside >= 0)
        return apr_fail(e, APR_EUSAGE, "--launches shows the GPU, the other options what the CPU computes");
    if (!a->engine.device || !strcmp(a->engine.device, "cpu"))
        return apr_fail(e, APR_EUSAGE, "--launches: the CPU launches no kernels; expected --device cuda");
    return APR_OK;
}

static enum apr_code run(void *args_, struct apr_ctx *ctx, struct apr_err *e)
{
    struct trace_args *a = args_;
    struct apr_session s;
    struct view v = {.a = a, .s = &s};
    struct apr_prompt_from from = {.model = ctx->operands->at[0], .text = a->prompt, .file = a->input};
    struct apr_buf text;
    if (ctx->operands->n > 1) from.operand = ctx->operands->at[1];
    if (!from.operand && !from.text && !from.file) from.text = "Hello";
    if (a->layer < -1)
        return apr_fail(e, APR_EUSAGE, "--layer: found %" PRId64 ", expected 0 or more", a->layer);
    if (a->inside < -1)
        return apr_fail(e, APR_EUSAGE, "--inside: found %" PRId64 ", expected 0 or more", a->inside);
    if (a->launches) TRY(check_launches(a, e));
    if (a->launches) a->engine.on_cpu = NULL;
    apr_buf_init(&text, APR_MAX_PROMPT_BYTES);
    enum apr_code code = apr_prompt_read(&from, &text, e);
    if (code == APR_OK && !text.n_bytes) code = apr_fail(e, APR_EUSAGE, "the prompt is empty");
    if (code == APR_OK) code = apr_session_open(&s, ctx->operands->at[0], &a->engine, ctx, e);
    if (code == APR_OK) {
        code = a->launches ? trace_launches(&v, ctx, &text, e) : run_model(&v, ctx, &text, e);
        apr_session_close(&s);
    }
    apr_ids_free(&v.ids);
    apr_buf_free(&text);
    return code;
}

static const char details[] =
    "One line for the embedding, for the residual stream after each layer, and after the final norm.\n"
    "mean, sd, l2, min, max and the counts are over all positions of the prompt; l2_last and the values\n"
    "of --payload are of the last one. The prompt is taken as it is: special tokens in it are parsed, no\n"
    "chat template is applied. NaN or Inf anywhere: the report is printed and the status is 1.\n"
    "--inside shows what each step of one layer made of the last position, in the order of the computation: "
    "the\n"
    "normed inputs, q, k and v before biases and rotation, the rotated query, attention, the gated product "
    "of the\n"
    "feed-forward block, what is added to the stream; and key and value as the cache holds them, head by "
    "head.\n"
    "--reference runs OTHER, of the same shape, on the same tokens: cosine and relative distance\n"
    "|x - y| / |y| show where two files part.\n"
    "--launches shows the GPU instead: every kernel that the prompt and the next token launch, with grid, "
    "block,\n"
    "registers, shared memory, how tokens are spread, time by itself and the source that launches it.\n"
    "\n"
    "  apr trace model.gguf --launches --device cuda --json\n"
    "  apr trace model.gguf \"What is 2+2?\" --payload --json\n"
    "  apr trace q4.apr --reference bf16.apr\n";

const struct apr_verb verb_trace = {
    .name = "trace",
    .operands = "MODEL [PROMPT]",
    .n_operands_min = 1,
    .n_operands_max = 2,
    .opts = opts,
    .n_opts = sizeof opts / sizeof *opts,
    .args_bytes = sizeof(struct trace_args),
    .init = init,
    .run = run,
    .details = details,
};
