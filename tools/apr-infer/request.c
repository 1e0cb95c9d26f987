/* Requests: the envelope, and what must hold of a request as a whole. */
#include "request.h"

#include <string.h>

void apr_request_init(struct apr_request *r)
{
    *r = (struct apr_request){.form = APR_FORM_OWN};
    apr_arena_init(&r->arena);
}

void apr_request_free(struct apr_request *r)
{
    json_decref(r->messages);
    json_decref(r->root);
    apr_ids_free(&r->ids);
    apr_grammar_free(r->own_grammar);
    apr_arena_free(&r->arena);
}

static enum apr_code take_id(struct apr_request *r, const char *key, struct apr_err *e)
{
    const json_t *id = json_object_get(r->root, key);
    if (!id || json_is_null(id)) return APR_OK;
    if (!json_is_string(id) && !json_is_integer(id))
        return apr_fail(e, APR_EUSAGE, "%s: expected a string or an integer", key);
    r->id = id;
    return APR_OK;
}

/* ---- OpenAI's envelope -------------------------------------------------------------------------------- */

static const struct url {
    const char *url;
    enum apr_request_form form;
} urls[] = {{"/v1/chat/completions", APR_FORM_CHAT}, {"/v1/completions", APR_FORM_COMPLETION}};

static bool is_envelope(const json_t *root)
{
    return json_object_get(root, "custom_id") || json_object_get(root, "url") ||
           json_object_get(root, "body");
}

static enum apr_code check_envelope(const json_t *root, struct apr_err *e)
{
    static const char *const keys[] = {"custom_id", "method", "url", "body"};
    const char *key;
    json_t *v;
    json_object_foreach((json_t *)(uintptr_t)root, key, v)
    {
        bool known = false;
        for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) known |= !strcmp(key, keys[i]);
        if (!known)
            return apr_fail(e, APR_EUSAGE, "%.64s: unknown field beside custom_id, method, url and body",
                            key);
    }
    const char *method = json_string_value(json_object_get(root, "method"));
    if (!method || strcmp(method, "POST") != 0) return apr_fail(e, APR_EUSAGE, "method: expected \"POST\"");
    return APR_OK;
}

static enum apr_code parse_envelope(struct apr_request *r, struct apr_err *e)
{
    r->form = APR_FORM_CHAT; /* of the answer to a line that is wrong */
    const char *url = json_string_value(json_object_get(r->root, "url"));
    const struct url *found = NULL;
    for (size_t i = 0; url && i < sizeof urls / sizeof *urls; i++)
        if (!strcmp(url, urls[i].url)) found = &urls[i];
    if (found) r->form = found->form;
    TRY(take_id(r, "custom_id", e));
    TRY(check_envelope(r->root, e));
    if (!found)
        return apr_fail(e, APR_EUSAGE, "url: expected \"/v1/chat/completions\" or \"/v1/completions\"");
    const json_t *body = json_object_get(r->root, "body");
    if (!json_is_object(body)) return apr_fail(e, APR_EUSAGE, "body: expected an object");
    return apr_request_fields(r, body, "body.", e);
}

/* ---- the whole ---------------------------------------------------------------------------------------- */

static void take_defaults(struct apr_request *r, const struct apr_request_defaults *d)
{
    r->sample = d->sample;
    r->n_max = d->n_max;
    r->ignore_eos = d->ignore_eos;
    r->stops = d->stops;
    r->grammar = d->grammar;
}

/* Defaults that concern some kinds of prompt only. */
static void take_prompt_defaults(struct apr_request *r, const struct apr_request_defaults *d)
{
    bool own_prompt = r->form == APR_FORM_OWN && r->prompt;
    if (own_prompt && d->raw && !r->system && !r->template_name) r->raw = true;
    bool is_chat = r->messages || (own_prompt && !r->raw);
    if (is_chat && !r->messages && !r->system) r->system = d->system;
    if (is_chat && !r->template_name) r->template_name = d->template_name;
    if (r->form == APR_FORM_COMPLETION) r->raw = true;
}

static enum apr_code check_whole(const struct apr_request *r, struct apr_err *e)
{
    int n = (r->prompt != NULL) + (r->messages != NULL) + (r->ids.at != NULL);
    const char *want = r->form == APR_FORM_CHAT         ? "body.messages"
                       : r->form == APR_FORM_COMPLETION ? "body.prompt"
                                                        : "prompt, messages or ids";
    if (!n) return apr_fail(e, APR_EUSAGE, "nothing to do: give %s", want);
    if (n > 1) return apr_fail(e, APR_EUSAGE, "more than one of prompt, messages and ids");
    if (r->form != APR_FORM_OWN) return APR_OK;
    if (r->raw && (r->system || r->template_name))
        return apr_fail(e, APR_EUSAGE, "%s: needs a chat template; raw uses none",
                        r->system ? "system" : "template_name");
    if (r->prompt) return APR_OK;
    if (r->raw) return apr_fail(e, APR_EUSAGE, "raw: concerns prompt alone");
    if (r->system)
        return apr_fail(e, APR_EUSAGE, "system: concerns prompt alone; messages have a role for it");
    if (r->template_name && !r->messages)
        return apr_fail(e, APR_EUSAGE, "template_name: concerns prompt and messages alone");
    return APR_OK;
}

/* Without max_tokens: as apr run; as the API says. */
static void settle_n_max(struct apr_request *r)
{
    if (r->n_max != APR_N_MAX_UNSET) return;
    r->n_max = r->grammar || r->form == APR_FORM_CHAT ? -1 : r->form == APR_FORM_COMPLETION ? 16 : 32;
}

enum apr_code apr_request_parse(struct apr_request *r, const char *text, size_t n_bytes,
                                const struct apr_request_defaults *d, struct apr_err *e)
{
    take_defaults(r, d);
    TRY(apr_json_parse(text, n_bytes, "request", &r->root, e));
    if (!json_is_object(r->root)) return apr_fail(e, APR_EFORMAT, "request: expected a JSON object");
    if (is_envelope(r->root)) {
        TRY(parse_envelope(r, e));
    } else {
        TRY(take_id(r, "id", e));
        TRY(apr_request_fields(r, r->root, "", e));
    }
    take_prompt_defaults(r, d);
    TRY(check_whole(r, e));
    settle_n_max(r);
    return APR_OK;
}
