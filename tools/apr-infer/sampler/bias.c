/* Parsing --logit-bias. */
#include "bias.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "tok/tok.h"

/* The last sign behind which only a number, or "inf", stands. A number has at most one sign of its own: that
 * of an exponent, which is no place to split. */
static const char *find_sign(const char *s)
{
    const char *found = NULL;
    for (const char *p = s; *p; p++) {
        char *end;
        if ((*p != '+' && *p != '-') || p == s) continue;
        if (!strchr("0123456789.i", p[1]) || !p[1]) continue;
        double v = strtod(p, &end);
        if (*end || isnan(v)) continue;
        found = p;
        break;
    }
    return found;
}

static enum apr_code by_text(const char *arg, const char *text, size_t n_bytes, const struct apr_tok *tok,
                             int32_t *id, struct apr_err *e)
{
    struct apr_ids ids = {0};
    if (!tok) return apr_fail(e, APR_EUSAGE, "--logit-bias %s: no tokenizer; give an id", arg);
    enum apr_code code = apr_tok_encode(tok, text, n_bytes, APR_TOK_PARSE_SPECIAL, &ids, e);
    if (code == APR_OK && ids.n != 1)
        code = apr_fail(e, APR_EUSAGE, "--logit-bias %s: the text is %zu tokens, expected one", arg, ids.n);
    if (code == APR_OK) *id = ids.at[0];
    apr_ids_free(&ids);
    return code;
}

static enum apr_code parse_one(const char *arg, const struct apr_tok *tok, size_t n_vocab,
                               struct apr_bias *out, struct apr_err *e)
{
    const char *sign = find_sign(arg);
    if (!sign)
        return apr_fail(e, APR_EUSAGE, "--logit-bias %s: expected ID or TEXT, then + or - and a number", arg);
    size_t n_text = (size_t)(sign - arg);
    out->v = (float)strtod(sign, NULL);
    if (out->v > FLT_MAX)
        return apr_fail(e, APR_EUSAGE, "--logit-bias %s: +inf is not a bias; a grammar can force a text",
                        arg);
    if (strspn(arg, "0123456789") == n_text) {
        errno = 0;
        unsigned long long v = strtoull(arg, NULL, 10);
        if (errno || v >= n_vocab)
            return apr_fail(e, APR_EUSAGE, "--logit-bias %s: the vocabulary has ids 0 to %zu", arg,
                            n_vocab - 1);
        out->id = (int32_t)v;
        return APR_OK;
    }
    bool quoted = n_text > 2 && arg[0] == '"' && sign[-1] == '"';
    return by_text(arg, arg + quoted, n_text - 2 * quoted, tok, &out->id, e);
}

enum apr_code apr_bias_parse(const struct apr_strs *from, const struct apr_tok *tok, size_t n_vocab,
                             struct apr_arena *arena, const struct apr_bias **out, size_t *n,
                             struct apr_err *e)
{
    struct apr_bias *bias;
    TRY(apr_arena_try(arena, &bias, from->n + 1, sizeof *bias, "biases", e));
    for (size_t i = 0; i < from->n; i++) TRY(parse_one(from->at[i], tok, n_vocab, &bias[i], e));
    *out = bias;
    *n = from->n;
    return APR_OK;
}
