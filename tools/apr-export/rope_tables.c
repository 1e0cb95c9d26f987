#include "rope_tables.h"

#include <inttypes.h>
#include <math.h>

#include "family/rope.h"

/* *found: the tensor is there, and x holds its n values. */
static enum apr_code read_table(struct apr_model *m, enum apr_role role, uint32_t n, float *x, bool *found,
                                struct apr_err *e)
{
    const struct apr_tensor *t = apr_model_role(m, role, 0);
    *found = t != NULL;
    if (!t) return APR_OK;
    if (t->type != APR_F32 || t->n_dims != 1 || t->dims[0] != n || n > APR_MAX_ROPE_HALVES)
        return apr_fail(e, APR_ECONTRACT, "%s: tensor %s: expected %" PRIu32 " values of F32", m->path,
                        t->name, n);
    return apr_model_read(m, t, 0, x, (size_t)t->n_bytes, e);
}

static bool gives(const struct apr_rope *r, const float *x)
{
    for (uint32_t i = 0; i < r->n_dims / 2; i++) {
        const float divisor = (float)apr_rope_divisor(r, i);
        if (!(fabsf(divisor - x[i]) <= 0)) return false; /* NaN too */
    }
    return true;
}

/* Factor is what the longest wave is divided by; the published models have 1 and 4 for the borders. */
static bool find_rule(struct apr_rope *r, const float *x)
{
    struct apr_rope rule = *r;
    rule.scaling = APR_ROPE_LLAMA3;
    rule.factor = (double)x[r->n_dims / 2 - 1];
    rule.low_freq_factor = 1;
    rule.high_freq_factor = 4;
    for (rule.n_ctx_orig = 32; rule.n_ctx_orig <= 1u << 20; rule.n_ctx_orig *= 2) {
        if (!gives(&rule, x)) continue;
        if (rule.n_ctx_orig < 8192) { /* of several that give the same, the published one */
            struct apr_rope published = rule;
            published.n_ctx_orig = 8192;
            if (gives(&published, x)) rule = published;
        }
        *r = rule;
        return true;
    }
    return false;
}

enum apr_code rope_from_tables(struct apr_model *m, struct apr_config *c, struct apr_err *e)
{
    float x[APR_MAX_ROPE_HALVES];
    const uint32_t n = c->rope.n_dims / 2;
    bool found, both;
    TRY(read_table(m, APR_ROLE_ROPE_FREQS, n, x, &found, e));
    if (found && !find_rule(&c->rope, x))
        return apr_fail(e, APR_ELOAD, "%s: config.json: the rule behind tensor %s is not known", m->path,
                        apr_model_role(m, APR_ROLE_ROPE_FREQS, 0)->name);
    TRY(read_table(m, APR_ROLE_ROPE_LONG, n, c->rope.long_factor, &found, e));
    TRY(read_table(m, APR_ROLE_ROPE_SHORT, n, c->rope.short_factor, &both, e));
    if (found != both)
        return apr_fail(e, APR_ECONTRACT, "%s: one of the two tables of longrope is missing", m->path);
    if (found) c->rope.n_factors = n;
    return APR_OK;
}
