/* Can two models be merged? Names, shapes, architecture and tokenizer must agree. */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "log.h"
#include "merge.h"

#define MAX_SHOWN 3

/* Differences found so far, as one text. */
struct report {
    char text[640];
    uint64_t n;
};

static void APR_PRINTF(2, 3) differ(struct report *r, const char *format, ...)
{
    size_t at = strlen(r->text);
    va_list args;
    if (r->n++ >= MAX_SHOWN) return;
    if (at > 0) at += (size_t)snprintf(r->text + at, sizeof r->text - at, "; ");
    if (at >= sizeof r->text) return;
    va_start(args, format);
    (void)vsnprintf(r->text + at, sizeof r->text - at, format, args);
    va_end(args);
}

static void compare_tensors(const struct apr_model *a, const struct apr_model *b, struct report *r)
{
    char x[APR_MAX_DIMS * 24], y[APR_MAX_DIMS * 24];
    for (uint64_t i = 0; i < a->n_tensors; i++) {
        const struct apr_tensor *t = &a->tensors[i], *u = apr_model_find(b, t->name);
        if (!u)
            differ(r, "tensor %s is missing", t->name);
        else if (t->n_dims != u->n_dims || memcmp(t->dims, u->dims, t->n_dims * sizeof *t->dims) != 0)
            differ(r, "tensor %s: shape %s, expected %s", t->name, apr_tensor_shape(u, x, sizeof x),
                   apr_tensor_shape(t, y, sizeof y));
    }
    for (uint64_t i = 0; i < b->n_tensors; i++)
        if (!apr_model_find(a, b->tensors[i].name))
            differ(r, "tensor %s is not expected", b->tensors[i].name);
}

static void compare_count(struct report *r, const char *what, uint64_t a, uint64_t b)
{
    if (a != b) differ(r, "%s is %" PRIu64 ", expected %" PRIu64, what, b, a);
}

static const char *form_name(enum apr_form form)
{
    return form == APR_FORM_GGUF ? "GGUF's" : "Hugging Face's";
}

static void compare_config(const struct apr_model *a, const struct apr_model *b, struct report *r)
{
    const struct apr_config *x = &a->config, *y = &b->config;
    if (!a->family || !b->family) return; /* weights alone say nothing but names and shapes */
    if (a->family != b->family) differ(r, "family %s, expected %s", b->family->name, a->family->name);
    if (x->form != y->form && a->family->n_forms)
        differ(r, "values in %s form, expected %s form", form_name(y->form), form_name(x->form));
    compare_count(r, "number of heads", x->n_heads, y->n_heads);
    compare_count(r, "number of KV heads", x->n_heads_kv, y->n_heads_kv);
    compare_count(r, "head dimension", x->head_dim, y->head_dim);
    if (fabs(x->rope_theta - y->rope_theta) > 0 || fabs(x->norm_eps - y->norm_eps) > 0)
        apr_warn("%s: rope_theta %g and norm epsilon %g; the merge has those of %s: %g and %g", b->path,
                 y->rope_theta, y->norm_eps, a->path, x->rope_theta, x->norm_eps);
}

static bool same(const struct apr_str *a, const struct apr_str *b)
{
    return a->n_bytes == b->n_bytes && memcmp(a->p, b->p, a->n_bytes) == 0;
}

static void compare_vocab(const struct apr_model *a, const struct apr_model *b, struct report *r)
{
    const struct apr_vocab *x = &a->vocab, *y = &b->vocab;
    if (x->kind == APR_VOCAB_NONE || y->kind == APR_VOCAB_NONE) {
        if (x->kind != y->kind)
            apr_warn("%s holds no tokenizer; it is not compared",
                     x->kind == APR_VOCAB_NONE ? a->path : b->path);
        return;
    }
    if (x->kind != y->kind) differ(r, "another kind of tokenizer");
    compare_count(r, "number of tokens", x->n_toks, y->n_toks);
    compare_count(r, "number of merges", x->n_merges, y->n_merges);
    for (uint32_t i = 0; i < x->n_toks && i < y->n_toks; i++) {
        char p[64], q[64];
        if (same(&x->toks[i], &y->toks[i])) continue;
        differ(r, "token %" PRIu32 " is \"%s\", expected \"%s\"", i,
               apr_escape(p, sizeof p, y->toks[i].p, y->toks[i].n_bytes),
               apr_escape(q, sizeof q, x->toks[i].p, x->toks[i].n_bytes));
        break; /* the rest is shifted, as a rule */
    }
    for (uint64_t i = 0; i < x->n_merges && x->n_merges == y->n_merges; i++) {
        if (same(&x->merges[i], &y->merges[i])) continue;
        differ(r, "merge %" PRIu64 " of the tokenizer differs", i);
        break;
    }
}

enum apr_code merge_compatible(const struct apr_model *a, const struct apr_model *b, struct apr_err *e)
{
    struct report r = {.n = 0};
    compare_tensors(a, b, &r);
    compare_config(a, b, &r);
    compare_vocab(a, b, &r);
    if (r.n == 0) return APR_OK;
    return apr_fail(e, APR_ECONTRACT, "%s: cannot be merged with %s: %" PRIu64 " difference%s: %s%s", b->path,
                    a->path, r.n, r.n == 1 ? "" : "s", r.text, r.n > MAX_SHOWN ? "; ..." : "");
}
