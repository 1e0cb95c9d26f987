/* check: does every part of the engine work on this model? */
#include "stages.h"
#include "verbs.h"

struct check_args {
    struct apr_engine_opts engine;
    bool no_gpu;
};

static const struct apr_opt opts[] = {
    APR_OPT(struct check_args, no_gpu, "no-gpu", 0, NULL, "compute on the CPU (as check always does)"),
    APR_OPT(struct check_args, engine.n_threads, "threads", 't', "N",
            "threads (default: the CPUs available)"),
    APR_OPT(struct check_args, engine.n_threads, "jobs", 'j', "N", "the same as --threads"),
};

static void init(void *args_)
{
    struct check_args *a = args_;
    apr_engine_defaults(&a->engine);
    a->engine.on_cpu = "the states between the stages";
    a->engine.exact = true;
    a->engine.n_batch = 32;
}

static enum apr_code report(const struct apr_ctx *ctx, const struct apr_session *s,
                            const struct apr_stage_result *r, struct apr_err *e)
{
    struct apr_out *o = apr_out_open(stdout, ctx->g->json, "apr.check/1");
    unsigned n_passed = 0;
    apr_out_str(o, "model", s->model->name);
    apr_out_arr(o, "stages");
    for (size_t i = 0; i < APR_N_STAGES; i++) {
        apr_out_obj(o, NULL);
        apr_out_u64(o, "stage", i + 1);
        apr_out_str(o, "name", r[i].name);
        apr_out_str(o, "result", r[i].passed ? "pass" : "FAIL");
        apr_out_str(o, "measured", r[i].measured);
        apr_out_end(o);
        n_passed += r[i].passed;
    }
    apr_out_end(o);
    apr_out_u64(o, "n_stages", APR_N_STAGES);
    apr_out_u64(o, "n_passed", n_passed);
    apr_out_bool(o, "passed", n_passed == APR_N_STAGES);
    TRY(apr_out_close(o, e));
    if (n_passed == APR_N_STAGES) return APR_OK;
    for (size_t i = 0; i < APR_N_STAGES; i++)
        if (!r[i].passed)
            return apr_fail(e, APR_ECONTRACT, "%s: %u of %u stages failed, first %s: %s", s->model->path,
                            APR_N_STAGES - n_passed, APR_N_STAGES, r[i].name, r[i].measured);
    return APR_OK;
}

static enum apr_code run(void *args_, struct apr_ctx *ctx, struct apr_err *e)
{
    struct check_args *a = args_;
    struct apr_session s;
    struct apr_stage_result r[APR_N_STAGES];
    TRY(apr_session_open(&s, ctx->operands->at[0], &a->engine, ctx, e));
    enum apr_code code = apr_stages_run(&s, ctx->arena, r, e);
    if (code == APR_OK) code = report(ctx, &s, r, e);
    apr_session_close(&s);
    return code;
}

static const char details[] =
    "Runs 13 tokens in reference mode and measures each part: tokenizer, embedding, rotation, projections, "
    "attention,\n"
    "feed-forward, norms, head, logits, sampler. A part that fails gives status 5.\n"
    "\n"
    "  apr check model.apr --json | jq '.stages[] | select(.result != \"pass\")'\n";

const struct apr_verb verb_check = {
    .name = "check",
    .operands = "MODEL",
    .n_operands_min = 1,
    .n_operands_max = 1,
    .opts = opts,
    .n_opts = sizeof opts / sizeof *opts,
    .args_bytes = sizeof(struct check_args),
    .init = init,
    .run = run,
    .details = details,
};
