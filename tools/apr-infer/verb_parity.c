/* parity: the same prompt on the CPU and on the GPU, layer by layer. */
#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "fmt/fmt.h"
#include "gpu/load.h"
#include "prompt.h"
#include "verbs.h"

#include "session.h"

#define MAX_TOKS 512u

struct parity_args {
    struct apr_engine_opts engine;
    const char *prompt, *input;
    double max_abs, min_cosine, max_kl;
    bool asserts;
};

static const struct apr_opt opts[] = {
    APR_OPT(struct parity_args, prompt, "prompt", 'p', "TEXT", "the prompt (default \"What is 2+2?\")"),
    APR_OPT(struct parity_args, input, "input", 'i', "FILE", "the prompt from a file; - is standard input"),
    APR_OPT(struct parity_args, asserts, "assert", 0, NULL, "answer no (status 1) when a limit is missed"),
    APR_OPT(struct parity_args, max_abs, "max-abs", 0, "X", "largest difference of a logit (default 1)"),
    APR_OPT(struct parity_args, min_cosine, "min-cosine", 0, "X",
            "of logits and of every layer, at every position (default 0.999)"),
    APR_OPT(struct parity_args, max_kl, "max-kl", 0, "X", "of any position's distribution (default 0.01)"),
    APR_ENGINE_OPTS(struct parity_args),
};

static void init(void *args_)
{
    struct parity_args *a = args_;
    apr_engine_defaults(&a->engine);
    a->engine.device = "cuda";
    a->max_abs = 1;
    a->min_cosine = 0.999;
    a->max_kl = 0.01;
}

/* Hidden states and logits of every position, computed one way. */
struct side {
    float *hidden; /* [n_points, n_toks, n_hidden]: the embedding, then behind each layer */
    float *logits; /* [n_toks, n_vocab] */
};
struct parity {
    struct apr_ids ids;
    uint32_t n_points;
    size_t n_hidden, n_vocab;
    struct side cpu, at_once, by_one;
};

static enum apr_code side_alloc(const struct parity *p, struct side *s, struct apr_arena *a,
                                struct apr_err *e)
{
    TRY(apr_arena_try(a, &s->hidden, p->n_points * p->ids.n, p->n_hidden * sizeof *s->hidden, "hidden states",
                      e));
    return apr_arena_try(a, &s->logits, p->ids.n, p->n_vocab * sizeof *s->logits, "logits", e);
}

/* ---- the CPU -------------------------------------------------------------------------------------------
 */

struct looker {
    const struct parity *p;
    const struct apr_forward *f;
};
static void probe(void *ctx, enum apr_op op, uint32_t i_layer)
{
    const struct looker *l = ctx;
    const struct parity *p = l->p;
    if (op != APR_OP_EMBED && op != APR_OP_FFN_ADD) return;
    size_t i = op == APR_OP_EMBED ? 0 : i_layer + 1;
    memcpy(p->cpu.hidden + i * p->ids.n * p->n_hidden, l->f->x, p->ids.n * p->n_hidden * sizeof(float));
}

static enum apr_code on_cpu(struct parity *p, struct apr_session *s, struct apr_err *e)
{
    struct looker l = {p, &s->fwd};
    s->fwd.probe = probe;
    s->fwd.probe_ctx = &l;
    enum apr_code code = apr_forward_chunk(&s->fwd, &s->cache, p->ids.at, p->ids.n, e);
    s->fwd.probe = NULL;
    return code == APR_OK ? apr_forward_logits(&s->fwd, 0, p->ids.n, p->cpu.logits, e) : code;
}

/* ---- the GPU ------------------------------------------------------------------------------------------- */

static enum apr_code part_on_gpu(const struct apr_offload_inside *in, const struct parity *p, size_t i,
                                 size_t n, float *room, struct side *to, struct apr_err *e)
{
    struct apr_gpu_err ge = {{0}};
    const struct apr_gpu_part part = {in->seq, p->ids.at + i, (uint32_t)n};
    TRY(apr_gpu_code(in->gpu->hidden(in->model, &part, room, &ge), &ge, e));
    for (uint32_t k = 0; k < p->n_points; k++)
        memcpy(to->hidden + (k * p->ids.n + i) * p->n_hidden, room + k * n * p->n_hidden,
               n * p->n_hidden * sizeof *room);
    return apr_gpu_code(in->gpu->logits(in->model, 0, (uint32_t)n, to->logits + i * p->n_vocab, &ge), &ge, e);
}

static enum apr_code on_gpu(struct parity *p, struct apr_session *s, struct apr_arena *arena,
                            struct apr_err *e)
{
    struct apr_offload_inside in;
    float *room;
    TRY(apr_arena_try(arena, &room, p->n_points * p->ids.n, p->n_hidden * sizeof *room, "hidden states", e));
    TRY(apr_offload_inside(s->fwd.offload, &s->cache, &in, e));
    TRY(part_on_gpu(&in, p, 0, p->ids.n, room, &p->at_once, e));
    in.gpu->seq_truncate(in.seq, 0);
    for (size_t i = 0; i < p->ids.n; i++) TRY(part_on_gpu(&in, p, i, 1, room, &p->by_one, e));
    return APR_OK;
}

/* ---- how far apart ------------------------------------------------------------------------------------- */

struct apart {
    double rel, max_abs, cosine, kl; /* rel over all, the others of the worst position */
    double top_pct;                  /* positions with the same largest value */
};

static double kl_of(const float *x, const float *y, size_t n)
{
    double tx = -INFINITY, ty = -INFINITY, zx = 0, zy = 0, d = 0;
    for (size_t i = 0; i < n; i++) {
        tx = fmax(tx, (double)x[i]);
        ty = fmax(ty, (double)y[i]);
    }
    for (size_t i = 0; i < n; i++) {
        zx += exp((double)x[i] - tx);
        zy += exp((double)y[i] - ty);
    }
    for (size_t i = 0; i < n; i++) {
        double lx = (double)x[i] - tx - log(zx), ly = (double)y[i] - ty - log(zy);
        d += exp(lx) * (lx - ly);
    }
    return d;
}
static size_t top_of(const float *x, size_t n)
{
    size_t top = 0;
    for (size_t i = 1; i < n; i++) top = x[i] > x[top] ? i : top;
    return top;
}

/* NaN is as far as can be. */
static struct apart compare(const float *x, const float *y, size_t n_rows, size_t n, bool are_logits)
{
    struct apart a = {.cosine = 1};
    double sum = 0, off = 0;
    for (size_t r = 0; r < n_rows; r++, x += n, y += n) {
        double dot = 0, xx = 0, yy = 0;
        for (size_t i = 0; i < n; i++) {
            double d = fabs((double)x[i] - (double)y[i]);
            if (!(d <= a.max_abs)) a.max_abs = isnan(d) ? INFINITY : d;
            off += d * d;
            dot += (double)x[i] * (double)y[i];
            xx += (double)x[i] * (double)x[i];
            yy += (double)y[i] * (double)y[i];
        }
        double cosine = xx > 0 && yy > 0 ? dot / sqrt(xx * yy) : 0;
        if (!(cosine >= a.cosine)) a.cosine = isnan(cosine) ? -1 : cosine;
        sum += xx;
        if (!are_logits) continue;
        double kl = kl_of(x, y, n);
        if (!(kl <= a.kl)) a.kl = isnan(kl) ? INFINITY : kl;
        a.top_pct += (top_of(x, n) == top_of(y, n) ? 100.0 : 0.0) / (double)n_rows;
    }
    a.rel = sum > 0 ? sqrt(off / sum) : 0;
    return a;
}

static void out_apart(struct apr_out *o, const struct apart *a)
{
    apr_out_f64(o, "rel_distance", a->rel);
    apr_out_f64(o, "max_abs", a->max_abs);
    apr_out_f64(o, "min_cosine", a->cosine);
}

static bool out_way(struct apr_out *o, const struct parity_args *a, const struct parity *p, const char *way,
                    const struct side *s)
{
    struct apart l = compare(p->cpu.logits, s->logits, p->ids.n, p->n_vocab, true);
    bool ok = l.max_abs <= a->max_abs && l.cosine >= a->min_cosine && l.kl <= a->max_kl;
    apr_out_obj(o, way);
    apr_out_arr(o, "layers");
    for (uint32_t i = 0; i < p->n_points; i++) {
        size_t at = i * p->ids.n * p->n_hidden;
        struct apart h = compare(p->cpu.hidden + at, s->hidden + at, p->ids.n, p->n_hidden, false);
        ok &= h.cosine >= a->min_cosine;
        apr_out_obj(o, NULL);
        apr_out_i64(o, "layer", (int64_t)i - 1); /* -1: the embedding */
        out_apart(o, &h);
        apr_out_end(o);
    }
    apr_out_end(o);
    apr_out_obj(o, "logits");
    out_apart(o, &l);
    apr_out_f64(o, "max_kl", l.kl);
    apr_out_f64(o, "same_top_pct", l.top_pct);
    apr_out_end(o);
    apr_out_bool(o, "passed", ok);
    apr_out_end(o);
    return ok;
}

static enum apr_code report(const struct parity_args *a, const struct apr_ctx *ctx, const struct parity *p,
                            const struct apr_session *gpu, struct apr_err *e)
{
    struct apr_out *o = apr_out_open(stdout, ctx->g->json, "apr.parity/1");
    apr_out_str(o, "model", gpu->model->name);
    apr_out_str(o, "device", apr_offload_name(gpu->fwd.offload));
    apr_out_str(o, "mode", a->engine.exact ? "exact" : "default");
    apr_out_u64(o, "n_toks", p->ids.n);
    bool ok = out_way(o, a, p, "prompt", &p->at_once);
    ok &= out_way(o, a, p, "token_by_token", &p->by_one);
    apr_out_bool(o, "passed", ok);
    TRY(apr_out_close(o, e));
    if (ok || !a->asserts) return APR_OK;
    return apr_fail(e, APR_ENO, "CPU and GPU are further apart than max-abs %g, min-cosine %g, max-kl %g",
                    a->max_abs, a->min_cosine, a->max_kl);
}

static enum apr_code with_gpu(const struct parity_args *a, const struct apr_ctx *ctx, struct parity *p,
                              struct apr_err *e)
{
    struct apr_session gpu;
    struct apr_engine_opts opts_gpu = a->engine;
    if (!opts_gpu.n_ctx) opts_gpu.n_ctx = p->ids.n + 1;
    TRY(apr_session_open(&gpu, ctx->operands->at[0], &opts_gpu, ctx, e));
    enum apr_code code =
        gpu.fwd.offload
            ? APR_OK
            : apr_fail(e, APR_EUNAVAIL, "--device %s: both sides would be the CPU", a->engine.device);
    if (code == APR_OK) code = on_gpu(p, &gpu, ctx->arena, e);
    if (code == APR_OK) code = report(a, ctx, p, &gpu, e);
    apr_session_close(&gpu);
    return code;
}

static enum apr_code with_cpu(struct parity *p, struct apr_session *cpu, const struct apr_buf *text,
                              struct apr_arena *arena, struct apr_err *e)
{
    const struct apr_tok *tok;
    const struct apr_config *c = &cpu->model->config;
    TRY(apr_session_tok(cpu, &tok, e));
    TRY(apr_prompt_encode(tok, &cpu->model->vocab, (const char *)text->data, text->n_bytes, &p->ids, e));
    if (p->ids.n < 2 || p->ids.n > cpu->fwd.n_batch)
        return apr_fail(e, APR_EUSAGE, "the prompt has %zu tokens, expected 2 to %zu", p->ids.n,
                        cpu->fwd.n_batch);
    p->n_points = c->n_layers + 1;
    p->n_hidden = c->n_hidden;
    p->n_vocab = c->n_vocab;
    TRY(side_alloc(p, &p->cpu, arena, e));
    TRY(side_alloc(p, &p->at_once, arena, e));
    TRY(side_alloc(p, &p->by_one, arena, e));
    return on_cpu(p, cpu, e);
}

static enum apr_code run(void *args_, struct apr_ctx *ctx, struct apr_err *e)
{
    const struct parity_args *a = args_;
    struct parity p = {.n_points = 0};
    struct apr_session cpu;
    struct apr_engine_opts opts_cpu = a->engine;
    struct apr_prompt_from from = {.model = ctx->operands->at[0], .text = a->prompt, .file = a->input};
    struct apr_buf text;
    if (!from.text && !from.file) from.text = "What is 2+2?";
    opts_cpu.device = "cpu";
    opts_cpu.exact = true;
    opts_cpu.n_batch = MAX_TOKS;
    opts_cpu.memory_plan = false;
    apr_buf_init(&text, APR_MAX_PROMPT_BYTES);
    enum apr_code code = apr_prompt_read(&from, &text, e);
    if (code == APR_OK) code = apr_session_open(&cpu, ctx->operands->at[0], &opts_cpu, ctx, e);
    if (code == APR_OK) {
        code = with_cpu(&p, &cpu, &text, ctx->arena, e);
        apr_session_close(&cpu);
    }
    if (code == APR_OK) code = with_gpu(a, ctx, &p, e);
    apr_ids_free(&p.ids);
    apr_buf_free(&text);
    return code;
}

static const char details[] =
    "The prompt is computed on the CPU in the reference mode (F32), and on the GPU twice: at once, with the\n"
    "kernels of prompts, and token by token. For the embedding (layer -1) and the residual stream behind\n"
    "every layer: |x - y| / |y| over all positions, the largest difference, and the least cosine of a\n"
    "position; for logits also the largest Kullback-Leibler divergence. With --exact the GPU computes in "
    "its\n"
    "reference mode, too. --assert makes limits that are missed status 1. Status 9 without a GPU.\n"
    "\n"
    "  apr parity model.gguf --assert\n"
    "  apr parity model.apr --exact --max-abs 0.01 -p \"The capital of France is\" --json\n";

const struct apr_verb verb_parity = {
    .name = "parity",
    .operands = "MODEL",
    .n_operands_min = 1,
    .n_operands_max = 1,
    .opts = opts,
    .n_opts = sizeof opts / sizeof *opts,
    .args_bytes = sizeof(struct parity_args),
    .init = init,
    .run = run,
    .details = details,
};
