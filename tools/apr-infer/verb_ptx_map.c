/* ptx-map: from a model's steps to the kernels that a GPU runs for them. */
#include <inttypes.h>
#include <string.h>

#include "bench.h"
#include "fmt/fmt.h"
#include "launches.h"
#include "verbs.h"

#define MAX_TOKS 65536u

struct map_args {
    struct apr_engine_opts engine;
    const char *kernel, *reverse;
    uint64_t n_toks;
    bool prefill;
};

static const struct apr_opt opts[] = {
    APR_OPT(struct map_args, kernel, "kernel", 0, "TEXT", "only steps whose name or kernel contains TEXT"),
    APR_OPT(struct map_args, reverse, "reverse", 0, "TEXT",
            "every launch, layer by layer, whose kernel or step contains TEXT"),
    APR_OPT(struct map_args, prefill, "prefill", 0, NULL, "the launches of a prompt, not of one token"),
    APR_OPT(struct map_args, n_toks, "tokens", 'n', "N", "tokens of the prompt (default 512)"),
    APR_ENGINE_OPTS(struct map_args),
};

static void init(void *args_)
{
    struct map_args *a = args_;
    apr_engine_defaults(&a->engine);
    a->engine.device = "cuda";
    a->n_toks = 512;
}

static enum apr_code report(const struct map_args *a, const struct apr_ctx *ctx, const struct apr_session *s,
                            const struct apr_launches *l, struct apr_err *e)
{
    struct apr_out *o = apr_out_open(stdout, ctx->g->json, "apr.ptx-map/1");
    const struct apr_model *m = s->model;
    uint64_t n_layer = 0;
    for (size_t i = 0; i < l->n; i++) n_layer += l->at[i].layer == 0;
    apr_out_str(o, "model", m->name);
    apr_out_str(o, "quantization", apr_type_name((uint32_t)s->fwd.w.layers[0].q.type));
    apr_out_str(o, "device", apr_offload_name(s->fwd.offload));
    apr_out_u64(o, "num_layers", m->config.n_layers);
    apr_out_u64(o, "n_toks", l->n_toks);
    apr_out_u64(o, "n_launches", l->n);
    apr_out_u64(o, "launches_per_layer", n_layer);
    size_t n = a->reverse ? apr_launches_out(o, "launches", l, a->reverse)
                          : apr_launches_out_map(o, "steps", l, a->kernel);
    TRY(apr_out_close(o, e));
    const char *text = a->reverse ? a->reverse : a->kernel;
    return n ? APR_OK : apr_fail(e, APR_ENO, "no step or kernel contains \"%.60s\"", text ? text : "");
}

static enum apr_code map(const struct map_args *a, const struct apr_ctx *ctx, struct apr_session *s,
                         struct apr_err *e)
{
    struct apr_launches l;
    int32_t *ids;
    size_t n = a->prefill ? (size_t)a->n_toks : 1;
    TRY(apr_session_fits(s, n, 1, e));
    TRY(apr_arena_try(ctx->arena, &ids, n + 1, sizeof *ids, "tokens", e));
    apr_bench_draw(s->model->config.n_vocab, ids, n + 1);
    TRY(apr_launches_of(s, ids, n, &l, ctx->arena, e));
    return report(a, ctx, s, &l, e);
}

static enum apr_code run(void *args_, struct apr_ctx *ctx, struct apr_err *e)
{
    const struct map_args *a = args_;
    struct apr_session s;
    if (a->kernel && a->reverse) return apr_fail(e, APR_EUSAGE, "--kernel and --reverse exclude each other");
    if (a->n_toks < 2 || a->n_toks > MAX_TOKS)
        return apr_fail(e, APR_EUSAGE, "--tokens: found %" PRIu64 ", expected 2 to %u", a->n_toks, MAX_TOKS);
    TRY(apr_session_open(&s, ctx->operands->at[0], &a->engine, ctx, e));
    enum apr_code code = map(a, ctx, &s, e);
    apr_session_close(&s);
    return code;
}

static const char details[] =
    "The model is loaded on the GPU and a step is captured; what is shown is read from the graph of its\n"
    "launches: the kernel's name, grid and block, registers, shared and local memory, the share of a\n"
    "multiprocessor's warps that fit at once (occupancy), and the line of the source that launches it.\n"
    "dispatch says how the tokens of a step are spread: over a dimension of the grid, or in registers.\n"
    "Launches that are alike are one line, with their layers. Status 9 without a GPU.\n"
    "\n"
    "  apr ptx-map model.gguf\n"
    "  apr ptx-map model.gguf --prefill --tokens 2048 --json\n"
    "  apr ptx-map model.gguf --reverse attention\n";

const struct apr_verb verb_ptx_map = {
    .name = "ptx-map",
    .operands = "MODEL",
    .n_operands_min = 1,
    .n_operands_max = 1,
    .opts = opts,
    .n_opts = sizeof opts / sizeof *opts,
    .args_bytes = sizeof(struct map_args),
    .init = init,
    .run = run,
    .details = details,
};
