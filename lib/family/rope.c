/* Rotary positions from config.json. See rope.h. */
#include "rope.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "../json.h"

#define MAX_THETA    1e12
#define MAX_FACTOR   1e6
#define MAX_CTX      (1u << 28)
#define MAX_HEAD_DIM 1024u
#define PI           3.14159265358979323846

static const struct {
    const char *name;
    enum apr_rope_scaling scaling;
} scalings[] = {
    {"default", APR_ROPE_PLAIN}, {"linear", APR_ROPE_LINEAR}, {"dynamic", APR_ROPE_DYNAMIC},
    {"yarn", APR_ROPE_YARN},     {"llama3", APR_ROPE_LLAMA3}, {"longrope", APR_ROPE_LONG},
    {"su", APR_ROPE_LONG},
};

/* Everything that one reading needs. */
struct reader {
    const json_t *rope; /* the object with the scaling, or NULL */
    const struct apr_config *c;
    struct apr_rope *r;
    const char *where; /* "config.json: rope_parameters" */
};

static enum apr_code read_type(const struct reader *x, struct apr_err *e)
{
    const char *type = "default";
    TRY(apr_json_str(x->rope, "type", &type, x->where, e)); /* the older spelling */
    TRY(apr_json_str(x->rope, "rope_type", &type, x->where, e));
    for (size_t i = 0; i < sizeof scalings / sizeof scalings[0]; i++) {
        if (strcmp(type, scalings[i].name) != 0) continue;
        x->r->scaling = scalings[i].scaling;
        /* Phi-3 once called longrope "yarn" as well. */
        if (x->r->scaling == APR_ROPE_YARN && json_object_get(x->rope, "long_factor"))
            x->r->scaling = APR_ROPE_LONG;
        return APR_OK;
    }
    return apr_fail(e, APR_ELOAD, "%s: rope scaling \"%.64s\" is not supported", x->where, type);
}

static enum apr_code read_factors(const struct reader *x, const char *key, float *out, struct apr_err *e)
{
    const json_t *list = json_object_get(x->rope, key);
    const uint32_t n = x->r->n_dims / 2;
    if (!json_is_array(list) || json_array_size(list) != n)
        return apr_fail(e, APR_EFORMAT, "%s: $.%s: found %zu numbers, expected one a pair, %" PRIu32,
                        x->where, key, json_array_size(list), n);
    for (uint32_t i = 0; i < n; i++) {
        const json_t *v = json_array_get(list, i);
        const double f = json_number_value(v);
        if (!json_is_number(v) || !(f > 0 && f <= MAX_FACTOR))
            return apr_fail(e, APR_EFORMAT, "%s: $.%s[%" PRIu32 "]: expected a number > 0 and <= %g",
                            x->where, key, i, MAX_FACTOR);
        out[i] = (float)f;
    }
    return APR_OK;
}

static enum apr_code read_numbers(const struct reader *x, struct apr_err *e)
{
    struct apr_rope *r = x->r;
    TRY(apr_json_f64(x->rope, "factor", &r->factor, x->where, e));
    TRY(apr_json_f64(x->rope, "low_freq_factor", &r->low_freq_factor, x->where, e));
    TRY(apr_json_f64(x->rope, "high_freq_factor", &r->high_freq_factor, x->where, e));
    TRY(apr_json_f64(x->rope, "beta_fast", &r->beta_fast, x->where, e));
    TRY(apr_json_f64(x->rope, "beta_slow", &r->beta_slow, x->where, e));
    TRY(apr_json_f64(x->rope, "mscale", &r->mscale, x->where, e));
    TRY(apr_json_f64(x->rope, "mscale_all_dim", &r->mscale_all_dim, x->where, e));
    TRY(apr_json_f64(x->rope, "attn_factor", &r->attn_factor, x->where, e));
    TRY(apr_json_f64(x->rope, "attention_factor", &r->attn_factor, x->where, e));
    return apr_json_bool(x->rope, "truncate", &r->truncate, x->where, e);
}

/* The numbers of the scaling that was named; those of others are left at 0. */
static enum apr_code read_scaling(const struct reader *x, const json_t *config, const char *file,
                                  struct apr_err *e)
{
    struct apr_rope *r = x->r;
    uint64_t n_orig = 0;
    TRY(read_type(x, e));
    if (r->scaling == APR_ROPE_PLAIN) return APR_OK;
    r->low_freq_factor = 1;
    r->high_freq_factor = 4;
    r->beta_fast = 32;
    r->beta_slow = 1;
    r->truncate = true;
    TRY(read_numbers(x, e));
    TRY(apr_json_u64(config, "original_max_position_embeddings", 1, MAX_CTX, &n_orig, file, e));
    TRY(apr_json_u64(x->rope, "original_max_position_embeddings", 1, MAX_CTX, &n_orig, x->where, e));
    r->n_ctx_orig = n_orig && r->scaling != APR_ROPE_DYNAMIC ? (uint32_t)n_orig : x->c->n_ctx_train;
    if (r->scaling == APR_ROPE_LONG) {
        r->n_factors = r->n_dims / 2;
        if (r->n_factors > APR_MAX_ROPE_HALVES)
            return apr_fail(e, APR_ELOAD, "%s: %" PRIu32 " pairs, expected at most %u", x->where,
                            r->n_factors, APR_MAX_ROPE_HALVES);
        TRY(read_factors(x, "short_factor", r->short_factor, e));
        TRY(read_factors(x, "long_factor", r->long_factor, e));
        r->factor = (double)x->c->n_ctx_train / r->n_ctx_orig;
    }
    if (r->factor == 0 && r->scaling == APR_ROPE_YARN) r->factor = (double)x->c->n_ctx_train / r->n_ctx_orig;
    if (r->factor == 0) return apr_fail(e, APR_EFORMAT, "%s: $.factor: missing", x->where);
    return APR_OK;
}

/* rope_parameters holds one object, or one for each kind of layer. */
static enum apr_code find_object(const json_t *config, const char *key, const char *kind, const json_t **rope,
                                 const char *file, struct apr_err *e)
{
    const json_t *v = json_object_get(config, key);
    *rope = NULL;
    if (!v || json_is_null(v)) return APR_OK;
    if (!json_is_object(v)) return apr_fail(e, APR_EFORMAT, "%s: $.%s: expected an object", file, key);
    if (kind && json_is_object(json_object_get(v, kind))) v = json_object_get(v, kind);
    *rope = v;
    return APR_OK;
}

/* How much of a head turns; rope_parameters wins over config.json's own key. */
static enum apr_code read_dims(const json_t *config, const json_t *rope, const struct apr_rope_defaults *d,
                               const struct apr_config *c, struct apr_rope *r, const char *file,
                               struct apr_err *e)
{
    double partial = d->partial > 0 ? d->partial : 1;
    TRY(apr_json_f64(config, "partial_rotary_factor", &partial, file, e));
    TRY(apr_json_f64(rope, "partial_rotary_factor", &partial, file, e));
    if (!(partial > 0 && partial <= 1))
        return apr_fail(e, APR_EFORMAT, "%s: $.partial_rotary_factor: found %g, expected > 0 and <= 1", file,
                        partial);
    r->n_dims = d->n_dims ? d->n_dims : (uint32_t)(partial * c->head_dim);
    return APR_OK;
}

enum apr_code apr_rope_from_hf(const json_t *config, const char *kind, const struct apr_rope_defaults *d,
                               const struct apr_config *c, struct apr_rope *r, const char *file,
                               struct apr_err *e)
{
    static const char *const objects[] = {"rope_scaling", "rope_parameters"};
    const char *theta_key = d->theta_key ? d->theta_key : "rope_theta";
    *r = (struct apr_rope){.theta = d->theta};
    TRY(apr_json_f64(config, theta_key, &r->theta, file, e));
    for (size_t i = 0; i < 2; i++) {
        struct reader x = {.c = c, .r = r};
        char where[512];
        const json_t *own;
        TRY(find_object(config, objects[i], kind, &x.rope, file, e));
        snprintf(where, sizeof where, "%s: $.%s", file, objects[i]);
        x.where = where;
        if (i == 0 || x.rope) TRY(read_dims(config, x.rope, d, c, r, where, e));
        if (!x.rope) continue;
        TRY(apr_json_f64(x.rope, "rope_theta", &r->theta, where, e));
        own = json_object_get(config, objects[i]);
        if (d->ignores_scaling && x.rope == own) continue; /* not told apart by kind of layer */
        TRY(read_scaling(&x, config, file, e));
    }
    return apr_rope_check(r, file, e);
}

static enum apr_code refuse(const char *what, double found, const char *file, struct apr_err *e)
{
    return apr_fail(e, APR_EFORMAT, "%s: rope %s: found %g, which is out of range", file, what, found);
}

static bool is_factor(double v)
{
    return v >= 1 && v <= MAX_FACTOR;
}

enum apr_code apr_rope_check(const struct apr_rope *r, const char *file, struct apr_err *e)
{
    if (!(isfinite(r->theta) && r->theta > 0 && r->theta <= MAX_THETA))
        return apr_fail(e, APR_EFORMAT, "%s: rope theta: found %g, expected a number > 0 and <= %g", file,
                        r->theta, MAX_THETA);
    if (r->n_dims == 0 || r->n_dims % 2 || r->n_dims > MAX_HEAD_DIM)
        return apr_fail(e, APR_EFORMAT,
                        "%s: rope dimensions: found %" PRIu32 ", expected an even number to %u", file,
                        r->n_dims, MAX_HEAD_DIM);
    if (r->scaling == APR_ROPE_PLAIN) return APR_OK;
    if (!is_factor(r->factor) && !(r->scaling == APR_ROPE_LONG && r->factor > 0))
        return refuse("factor", r->factor, file, e);
    if (r->n_ctx_orig == 0) return refuse("original context", r->n_ctx_orig, file, e);
    if (r->scaling == APR_ROPE_LLAMA3 &&
        !(r->low_freq_factor > 0 && r->high_freq_factor > r->low_freq_factor &&
          r->high_freq_factor <= MAX_FACTOR))
        return refuse("high_freq_factor", r->high_freq_factor, file, e);
    if (r->scaling == APR_ROPE_YARN &&
        !(r->beta_slow > 0 && r->beta_fast >= r->beta_slow && r->beta_fast <= MAX_FACTOR))
        return refuse("beta_fast", r->beta_fast, file, e);
    if (!(r->attn_factor >= 0 && r->attn_factor <= MAX_FACTOR))
        return refuse("attention_factor", r->attn_factor, file, e);
    if (!(fabs(r->mscale) <= MAX_FACTOR && fabs(r->mscale_all_dim) <= MAX_FACTOR))
        return refuse("mscale", r->mscale, file, e);
    return APR_OK;
}

/* Long waves are stretched by factor, short ones stay, those between are blended. In 32-bit floats
 * throughout, as the reference computes it: the table in GGUF files is the same to the bit. */
static float llama3_divisor(const struct apr_rope *r, uint32_t i_pair)
{
    const float factor = (float)r->factor, low = (float)r->low_freq_factor, high = (float)r->high_freq_factor;
    const float n_orig = (float)r->n_ctx_orig;
    const float freq = 1.0F / powf((float)r->theta, 2.0F * (float)i_pair / (float)r->n_dims);
    const float wave = (float)(2 * PI) / freq;
    if (wave < n_orig / high) return 1;
    if (wave > n_orig / low) return factor;
    const float smooth = (n_orig / wave - low) / (high - low);
    return 1.0F / ((1.0F - smooth) / factor + smooth);
}

double apr_rope_divisor(const struct apr_rope *r, uint32_t i_pair)
{
    if (r->scaling == APR_ROPE_LINEAR) return r->factor;
    return r->scaling == APR_ROPE_LLAMA3 ? (double)llama3_divisor(r, i_pair) : 1;
}
