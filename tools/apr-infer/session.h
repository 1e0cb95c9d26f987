/* A model ready to compute: loaded, judged by the contract, bound to kernels and threads, with its tokenizer.
 *
 * The one place where apr-infer opens a model; every verb begins here. The session owns what it opened.
 *
 *     struct apr_session s; TRY(apr_session_open(&s, &opts, ctx, e)); ... apr_session_close(&s);
 */
#ifndef APR_INFER_SESSION_H
#define APR_INFER_SESSION_H

#include "cache_types.h"
#include "devices.h"
#include "forward.h"
#include "tok/tok.h"
#include "tool.h"

enum apr_runs {                       /* what a model does */
                APR_RUNS_TEXT = 1,    /* predicts the next token: fwd and cache are open */
                APR_RUNS_ENCODER = 2, /* hidden states of a text: the verb opens a struct apr_encoder */
                APR_RUNS_SPEECH = 4   /* sound to text: the verb opens a struct apr_speech */
};

#define APR_DEFAULT_BATCH 512u /* tokens of a prefill chunk */

/* Options that every engine verb shares; put this into the verb's args and APR_ENGINE_OPTS into its rows. */
struct apr_engine_opts {
    uint64_t n_threads; /* 0 = the CPUs this process may use */
    uint64_t n_batch;   /* tokens of a prefill chunk */
    uint64_t n_ctx;     /* 0 = what the model was trained for */
    bool exact, pin, memory_plan;
    struct apr_cache_opts cache;
    const char *device;    /* NULL = auto: offload.h */
    const char *on_cpu;    /* what the verb reads that stays on a device ("hidden states"): it computes on the
                              CPU; NULL: anywhere */
    const char *pre;       /* of the tokenizer; NULL = the model says */
    struct apr_pool *pool; /* borrowed threads, instead of n_threads own ones; NULL: own */
    unsigned runs; /* enum apr_runs, or-ed: the kinds of model that the verb computes; 0 = APR_RUNS_TEXT */
};
#define APR_ENGINE_OPTS(type_)                                                                               \
    APR_OPT(type_, engine.n_threads, "threads", 't', "N", "threads (default: the CPUs available)"),          \
        APR_OPT(type_, engine.n_threads, "jobs", 'j', "N", "the same as --threads"),                         \
        APR_OPT(type_, engine.n_batch, "prefill-chunk", 'b', "N", "tokens computed at once (default 512)"),  \
        APR_ENGINE_OPTS_BUT_NUMBERS(type_)
/* For a verb that takes lists of threads and chunks. */
#define APR_ENGINE_OPTS_BUT_NUMBERS(type_)                                                                   \
    APR_OPT(type_, engine.pin, "pin", 0, NULL, "keep each thread on a CPU of its own (or APR_PIN=1)"),       \
        APR_OPT(type_, engine.n_ctx, "ctx-size", 'c', "N", "positions (default: the model's own)"),          \
        APR_CACHE_OPTS(type_), APR_OPT(type_, engine.device, "device", 0, "NAME", APR_DEVICES_HELP),         \
        APR_OPT(type_, engine.memory_plan, "memory-plan", 0, NULL,                                           \
                "say what memory weights, cache and work take, before loading"),                             \
        APR_OPT(type_, engine.pre, "pre", 0, "NAME", "pre-tokenizer of a GGUF that names none"),             \
        APR_OPT(type_, engine.exact, "exact", 0, NULL, "reference mode: F32 activations and cache")
void apr_engine_defaults(struct apr_engine_opts *o);

struct apr_session {
    enum apr_runs kind;
    struct apr_model *model; /* owned */
    struct apr_checked_model checked;
    const struct apr_kern *kern;
    struct apr_pool *pool; /* owned, unless has_lent_pool */
    bool has_lent_pool;
    struct apr_tok *tok; /* owned; NULL when the model has no tokenizer */
    struct apr_forward fwd;
    struct apr_blocks blocks; /* of n_ctx positions: apr_blocks_allow for more sequences */
    struct apr_cache cache;
    size_t n_ctx;
    double load_s; /* opening in all */
};

/* A model of a kind that the verb does not compute: APR_ELOAD naming the verb that does. */
APR_MUST_USE enum apr_code apr_session_open(struct apr_session *s, const char *path,
                                            const struct apr_engine_opts *o, const struct apr_ctx *ctx,
                                            struct apr_err *e);
void apr_session_close(struct apr_session *s);
/* The tokenizer, or APR_ELOAD that the model has none. */
APR_MUST_USE enum apr_code apr_session_tok(const struct apr_session *s, const struct apr_tok **tok,
                                           struct apr_err *e);
/* n_toks and n_spare more positions fit the context, else APR_EUSAGE naming the numbers. */
APR_MUST_USE enum apr_code apr_session_fits(const struct apr_session *s, size_t n_toks, size_t n_spare,
                                            struct apr_err *e);

#endif
