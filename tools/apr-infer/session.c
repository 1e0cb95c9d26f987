/* Opening a model for computing, in the order that finds faults early: file, contract, tokenizer, weights. */
#include "session.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "load.h"
#include "override.h"

#define MAX_THREADS 1024u
#define MAX_BATCH   65536u
#define MAX_CTX     (16u << 20)

void apr_engine_defaults(struct apr_engine_opts *o)
{
    *o = (struct apr_engine_opts){.n_batch = APR_DEFAULT_BATCH};
}

static enum apr_code check_range(const char *name, uint64_t v, uint64_t min, uint64_t max, struct apr_err *e)
{
    if (v >= min && v <= max) return APR_OK;
    return apr_fail(e, APR_EUSAGE, "%s: found %" PRIu64 ", expected %" PRIu64 " to %" PRIu64, name, v, min,
                    max);
}

static enum apr_runs kind_of(const struct apr_config *c)
{
    return c->n_mels ? APR_RUNS_SPEECH : c->is_encoder ? APR_RUNS_ENCODER : APR_RUNS_TEXT;
}

static enum apr_code check_kind(const struct apr_session *s, unsigned runs, struct apr_err *e)
{
    static const struct {
        enum apr_runs kind;
        const char *what;
    } kinds[] = {
        {APR_RUNS_TEXT, "a generator of text; apr run, chat, eval and logits compute with it"},
        {APR_RUNS_ENCODER, "an encoder without a next token; apr embed and apr logits compute with it"},
        {APR_RUNS_SPEECH, "a speech recognizer; apr run MODEL SOUND.wav and apr logits compute with it"},
    };
    if (s->kind & (runs ? runs : (unsigned)APR_RUNS_TEXT)) return APR_OK;
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
        if (kinds[i].kind == s->kind)
            return apr_fail(e, APR_ELOAD, "%s: this is %s", s->model->path, kinds[i].what);
    return APR_OK;
}

static bool is_plain(const struct apr_cache_types *types, bool exact)
{
    const struct apr_cache_types plain = apr_cache_plain(exact);
    return types->at[APR_CACHE_K] == plain.at[APR_CACHE_K] && types->at[APR_CACHE_V] == plain.at[APR_CACHE_V];
}

/* Where this model and verb compute; what only the CPU can do is refused elsewhere, not moved silently. */
static enum apr_code device_of(const struct apr_session *s, const struct apr_engine_opts *o,
                               const struct apr_cache_types *types, const char **device, struct apr_err *e)
{
    const char *what = s->kind == APR_RUNS_ENCODER  ? "an encoder"
                       : s->kind == APR_RUNS_SPEECH ? "a speech recognizer"
                       : o->on_cpu                  ? o->on_cpu
                       : is_plain(types, o->exact)  ? NULL
                                                    : apr_cache_opts_given(&o->cache);
    *device = what ? "cpu" : o->device;
    if (!what || !o->device || !strcmp(o->device, "auto") || !strcmp(o->device, "cpu")) return APR_OK;
    return apr_fail(e, APR_EUNAVAIL, "--device %.40s: %s: only the CPU computes this", o->device, what);
}

static enum apr_code types_of(const struct apr_session *s, const struct apr_engine_opts *o,
                              struct apr_cache_types *types, struct apr_err *e)
{
    const char *given = apr_cache_opts_given(&o->cache);
    *types = apr_cache_plain(o->exact);
    if (s->kind == APR_RUNS_TEXT)
        return apr_cache_types_choose(&o->cache, o->exact, &s->model->config, types, e);
    return given ? apr_fail(e, APR_EUSAGE, "%s: %s has no cache to choose types for", given, s->model->path)
                 : APR_OK;
}

static enum apr_code open_text(struct apr_session *s, const struct apr_engine_opts *o,
                               const struct apr_cache_types *types, const char *device, struct apr_err *e)
{
    const struct apr_model *m = s->model;
    s->n_ctx = o->n_ctx ? (size_t)o->n_ctx : m->config.n_ctx_train;
    if (m->config.n_ctx_train && s->n_ctx > m->config.n_ctx_train)
        apr_warn("%s was trained for %" PRIu32 " positions, --ctx-size asks for %zu", m->name,
                 m->config.n_ctx_train, s->n_ctx);
    size_t n_batch = o->n_batch < s->n_ctx ? (size_t)o->n_batch : s->n_ctx;
    TRY(apr_forward_open(&s->fwd, &s->checked, s->kern, s->pool, o->exact, n_batch, e));
    s->fwd.shows_plan = o->memory_plan;
    TRY(apr_forward_offload(&s->fwd, device, m, s->n_ctx, e));
    TRY(apr_blocks_init(&s->blocks, &m->config, *types, s->n_ctx, e));
    TRY(apr_cache_init(&s->cache, &s->blocks, s->n_ctx, e));
    if (o->memory_plan && !s->fwd.offload)
        apr_note("memory plan: weights %.1f MiB, mapped; cache of %zu positions %.1f MiB, as it fills",
                 (double)s->fwd.w.n_bytes / 1048576, s->n_ctx,
                 (double)apr_cache_bytes(&s->cache, s->n_ctx) / 1048576);
    return APR_OK;
}

static bool wants_pins(const struct apr_engine_opts *o)
{
    const char *pin = getenv("APR_PIN");
    return o->pin || (pin && *pin && strcmp(pin, "0") != 0);
}

static enum apr_code open_parts(struct apr_session *s, const char *path, const struct apr_engine_opts *o,
                                const struct apr_ctx *ctx, struct apr_err *e)
{
    struct apr_cache_types types;
    const char *device;
    TRY(apr_kern_pick(&s->kern, e));
    TRY(apr_load_model(path, APR_LOAD_RANDOM, &s->model, e));
    const struct apr_model *m = s->model;
    if (m->vocab_only) return apr_fail(e, APR_ELOAD, "%s: has a tokenizer but no weights", m->path);
    s->kind = kind_of(&m->config);
    if (m->family) TRY(check_kind(s, o->runs, e));
    TRY(types_of(s, o, &types, e));
    s->has_lent_pool = o->pool != NULL;
    s->pool = o->pool ? o->pool : apr_pool_open((unsigned)o->n_threads);
    if (!s->has_lent_pool && wants_pins(o)) TRY(apr_pool_pin(s->pool, e));
    TRY(apr_override_apply(&(struct apr_override){.pre = o->pre, .runs = true}, s->model, e));
    TRY(apr_contract_check(s->model, s->kern, s->pool, !ctx->gated, &s->checked, e));
    if (m->vocab.kind != APR_VOCAB_NONE) TRY(apr_tok_open(&s->tok, &m->vocab, m->path, e));
    TRY(device_of(s, o, &types, &device, e));
    if (s->kind == APR_RUNS_TEXT) return open_text(s, o, &types, device, e);
    if (o->n_ctx)
        return apr_fail(e, APR_EUSAGE, "--ctx-size: %s has %" PRIu32 " positions, no more and no fewer",
                        m->path, m->config.n_ctx_train);
    s->n_ctx = m->config.n_ctx_train;
    return APR_OK;
}

enum apr_code apr_session_open(struct apr_session *s, const char *path, const struct apr_engine_opts *o,
                               const struct apr_ctx *ctx, struct apr_err *e)
{
    int64_t ns_start = apr_now_ns();
    *s = (struct apr_session){0};
    apr_arena_init(&s->fwd.arena);
    TRY(check_range("--threads", o->n_threads, 0, MAX_THREADS, e));
    TRY(check_range("--prefill-chunk", o->n_batch, 1, MAX_BATCH, e));
    TRY(check_range("--ctx-size", o->n_ctx, 0, MAX_CTX, e));
    enum apr_code code = open_parts(s, path, o, ctx, e);
    if (code != APR_OK) apr_session_close(s);
    s->load_s = (double)(apr_now_ns() - ns_start) * 1e-9;
    return code;
}

void apr_session_close(struct apr_session *s)
{
    apr_cache_free(&s->cache);
    apr_blocks_free(&s->blocks);
    apr_forward_close(&s->fwd);
    apr_tok_close(s->tok);
    if (s->pool && !s->has_lent_pool) apr_pool_close(s->pool);
    apr_model_close(s->model);
    *s = (struct apr_session){0};
}

enum apr_code apr_session_tok(const struct apr_session *s, const struct apr_tok **tok, struct apr_err *e)
{
    *tok = s->tok;
    if (s->tok) return APR_OK;
    return apr_fail(e, APR_ELOAD, "%s: the model has no tokenizer; give token ids", s->model->path);
}

enum apr_code apr_session_fits(const struct apr_session *s, size_t n_toks, size_t n_spare, struct apr_err *e)
{
    if (n_toks <= s->n_ctx && n_spare <= s->n_ctx - n_toks) return APR_OK;
    if (n_toks > s->n_ctx || !n_spare)
        return apr_fail(e, APR_EUSAGE, "%zu tokens do not fit the context of %zu positions", n_toks,
                        s->n_ctx);
    return apr_fail(e, APR_EUSAGE, "%zu tokens leave no room for %zu more in the context of %zu positions",
                    n_toks, n_spare, s->n_ctx);
}
