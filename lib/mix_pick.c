/* --tensor-type: patterns on GGUF names, run by PCRE2. */
#include <inttypes.h>
#include <string.h>

#include "mix.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

enum { MAX_PATTERN_BYTES = 1024, MAX_STEPS = 1000000 };

enum apr_code apr_mix_type_named(const char *name, const char *option, enum apr_type *type, struct apr_err *e)
{
    char shown[80];
    const struct apr_quant *q = apr_quant_named(name);
    if (!q)
        return apr_fail(e, APR_EUSAGE, "%s: unknown type \"%s\"", option,
                        apr_escape(shown, sizeof shown, name, strlen(name)));
    if (!q->from_f32) return apr_fail(e, APR_EUSAGE, "%s: %s can be read, not written", option, q->name);
    *type = q->type;
    return APR_OK;
}

enum apr_code apr_mix_pick_open(struct apr_mix_pick *pick, const char *text, struct apr_err *e)
{
    const char *end = strrchr(text, '='); /* a type holds no "=", a pattern may */
    char shown[160];
    *pick = (struct apr_mix_pick){.text = text};
    if (!end || end == text || end[1] == '\0' || end - text > MAX_PATTERN_BYTES)
        return apr_fail(e, APR_EUSAGE, "--tensor-type %s: expected REGEX=TYPE",
                        apr_escape(shown, sizeof shown, text, strlen(text)));
    TRY(apr_mix_type_named(end + 1, "--tensor-type", &pick->type, e));
    int status;
    PCRE2_SIZE off;
    pick->re = pcre2_compile((PCRE2_SPTR)text, (PCRE2_SIZE)(end - text), PCRE2_CASELESS, &status, &off, NULL);
    if (pick->re) return APR_OK;
    PCRE2_UCHAR why[120];
    pcre2_get_error_message(status, why, sizeof why);
    return apr_fail(e, APR_EUSAGE, "--tensor-type %s: byte %zu: %s",
                    apr_escape(shown, sizeof shown, text, strlen(text)), (size_t)off, (const char *)why);
}

void apr_mix_pick_close(struct apr_mix_pick *pick)
{
    pcre2_code_free(pick->re);
    pick->re = NULL;
}

/* 1 match, 0 none, < 0 a code of PCRE2. */
static int matches(const struct apr_mix_pick *pick, const char *name)
{
    pcre2_match_data *data = pcre2_match_data_create(1, NULL);
    pcre2_match_context *context = pcre2_match_context_create(NULL);
    int n = PCRE2_ERROR_NOMEMORY;
    if (data && context) {
        pcre2_set_match_limit(context, MAX_STEPS);
        n = pcre2_match(pick->re, (PCRE2_SPTR)name, strlen(name), 0, 0, data, context);
    }
    pcre2_match_data_free(data);
    pcre2_match_context_free(context);
    return n == PCRE2_ERROR_NOMATCH ? 0 : n < 0 ? n : 1;
}

enum apr_code apr_mix_pick_find(const struct apr_mix_overrides *o, const char *gguf_name,
                                const struct apr_mix_pick **found, struct apr_err *e)
{
    *found = NULL;
    for (size_t i = 0; i < o->n_picks; i++) {
        int matched = matches(&o->picks[i], gguf_name);
        if (matched < 0)
            return apr_fail(e, APR_EUSAGE, "--tensor-type %s: too costly for the name %s (PCRE2 error %d)",
                            o->picks[i].text, gguf_name, matched);
        if (matched == 0) continue;
        *found = &o->picks[i];
        return APR_OK;
    }
    return APR_OK;
}
