/* A request for text, as JSON: the project's own form, or a line of an OpenAI batch file.
 *
 * Own form: prompt, messages or ids; everything else as the options of apr run, with _ for -. OpenAI's:
 * {"custom_id", "method", "url", "body"}, where url says which body it is. A field that is not known is an
 * error, and so is one that would do nothing: what was asked for is done or refused by name.
 *
 *     struct apr_request r; apr_request_init(&r);
 *     TRY(apr_request_parse(&r, text, n_bytes, &defaults, e)); ... apr_request_free(&r);
 */
#ifndef APR_INFER_REQUEST_H
#define APR_INFER_REQUEST_H

#include "grammar/grammar.h"
#include "json.h"
#include "sampler/opts.h"
#include "tok/tok.h"

#define APR_N_MAX_UNSET INT64_MIN
#define APR_MAX_STOPS   64u

/* Which fields there are, and which form the answer takes. */
enum apr_request_form {
    APR_FORM_OWN = 1,
    APR_FORM_CHAT = 2,      /* OpenAI, /v1/chat/completions */
    APR_FORM_COMPLETION = 4 /* OpenAI, /v1/completions */
};

/* What a request without a field of its own gets; all borrowed. */
struct apr_request_defaults {
    struct apr_sample_opts sample; /* as given: unset where nothing was */
    int64_t n_max;                 /* APR_N_MAX_UNSET; -1: to the context's end */
    const char *system;            /* of a prompt that is a user's message; NULL */
    const char *template_name;
    bool raw, ignore_eos;
    struct apr_strs stops;
    const struct apr_grammar *grammar; /* NULL: free text */
};

struct apr_request {
    enum apr_request_form form;
    struct apr_arena arena; /* owns what is no JSON below */
    json_t *root;           /* owned; NULL: the line was no JSON object */
    const json_t *id; /* string or integer; NULL: none. As all below borrowed from root or the defaults */
    const char *model;
    const char *prompt; /* one of prompt, messages, ids */
    size_t n_prompt_bytes;
    json_t *messages;   /* owned: contents are plain strings */
    struct apr_ids ids; /* owned */
    const char *system, *template_name;
    bool raw, ignore_eos;
    int64_t n_max; /* -1: to the context's end */
    struct apr_sample_opts sample;
    struct apr_strs stops;
    struct apr_grammar *own_grammar; /* owned */
    const struct apr_grammar *grammar;
    bool has_logprobs;
    size_t n_top_logprobs;
};

void apr_request_init(struct apr_request *r);
void apr_request_free(struct apr_request *r);
/* One JSON object. On failure form and id are set as far as they could be read, for the answer. Errors:
 * APR_EFORMAT for what is no JSON, APR_EUSAGE for the rest, naming the field. */
APR_MUST_USE enum apr_code apr_request_parse(struct apr_request *r, const char *text, size_t n_bytes,
                                             const struct apr_request_defaults *d, struct apr_err *e);

/* ---- for request_fields.c ----------------------------------------------------------------------------- */

/* Walks the fields of obj: each must be known in this form and right. path: "" or "body." */
APR_MUST_USE enum apr_code apr_request_fields(struct apr_request *r, const json_t *obj, const char *path,
                                              struct apr_err *e);

#endif
