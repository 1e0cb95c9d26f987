/* What the user says about a model against what its files say: the one place for --set, --model-name, --pre,
 * --chat-template and --tokenizer, applied between loading and use.
 *
 *     struct apr_override over = {.set = args->set, .pre = args->pre};
 *     TRY(apr_override_apply(&over, m, e)); ... apr_model_close(m); apr_override_close(&over);
 */
#ifndef APR_OVERRIDE_H
#define APR_OVERRIDE_H

#include "model.h"
#include "opt.h"

struct apr_override {
    struct apr_strs set;       /* "KEY=VALUE", in order; keys of apr_override_key_at, and custom.KEY */
    const char *model_name;    /* general.name */
    const char *pre;           /* GGUF's name of the pre-tokenizer */
    const char *chat_template; /* a file of Jinja text */
    const char *tokenizer;     /* a folder, a tokenizer.json, or a model whose tokenizer takes the place */
    bool runs;                 /* the tokenizer is going to run: --pre must be known and needed */
    struct apr_model
        *donor; /* out, owned: holds the strings of another tokenizer; outlives the model's use */
};

#define APR_OVERRIDE_OPTIONS(type_, field_)                                                                  \
    APR_OPT(type_, field_.set, "set", 0, "KEY=VALUE",                                                        \
            "metadata: name, license, description, author, version, tags ... or custom.KEY"),                \
        APR_OPT(type_, field_.model_name, "model-name", 0, "NAME", "name of the model in its metadata"),     \
        APR_OPT(type_, field_.pre, "pre", 0, "NAME", "name of the pre-tokenizer: qwen2, llama-bpe ..."),     \
        APR_OPT(type_, field_.chat_template, "chat-template", 0, "FILE", "take the chat template from FILE")

APR_MUST_USE enum apr_code apr_override_apply(struct apr_override *o, struct apr_model *m, struct apr_err *e);
/* Takes a key of set out again; one that the model does not have is APR_ENOTFOUND. */
APR_MUST_USE enum apr_code apr_override_unset(const char *key, struct apr_model *m, struct apr_err *e);
void apr_override_close(struct apr_override *o);
/* Keys that set takes, NULL past the end. */
const char *apr_override_key_at(size_t i);

#endif
