/* Frequencies and angles. See rope.h. */
#include "rope.h"

#include <math.h>
#include <string.h>

#define PI 3.14159265358979323846

/* theta^(-2i/d) */
static double plain_freq(const struct apr_rope *rope, double n_ctx, size_t i)
{
    (void)n_ctx;
    return pow(rope->theta, -2.0 * (double)i / (double)rope->n_dims);
}

static double linear_freq(const struct apr_rope *rope, double n_ctx, size_t i)
{
    return plain_freq(rope, n_ctx, i) / rope->factor;
}

/* Slow pairs are stretched, fast ones kept, those between are mixed (Llama 3.1's reference code). */
static double llama3_freq(const struct apr_rope *rope, double n_ctx, size_t i)
{
    double freq = plain_freq(rope, n_ctx, i);
    double turns = n_ctx * freq / (2 * PI); /* in the original context */
    double low = rope->low_freq_factor, high = rope->high_freq_factor;
    if (turns < low) return freq / rope->factor;
    if (turns > high) return freq;
    double mix = (turns - low) / (high - low);
    return (1 - mix) * freq / rope->factor + mix * freq;
}

/* The pair that makes n_turns in the original context (YaRN, section 3.2). */
static double yarn_pair(const struct apr_rope *rope, double n_ctx, double n_turns)
{
    return (double)rope->n_dims * log(n_ctx / (n_turns * 2 * PI)) / (2 * log(rope->theta));
}

static double yarn_freq(const struct apr_rope *rope, double n_ctx, size_t i)
{
    double freq = plain_freq(rope, n_ctx, i);
    double low = yarn_pair(rope, n_ctx, rope->beta_fast), high = yarn_pair(rope, n_ctx, rope->beta_slow);
    if (rope->truncate) {
        low = floor(low);
        high = ceil(high);
    }
    low = fmax(low, 0);
    high = fmin(high, (double)rope->n_dims - 1);
    if (low == high) high += 0.001;
    double ramp = fmin(fmax(((double)i - low) / (high - low), 0), 1);
    return freq / rope->factor * ramp + freq * (1 - ramp);
}

/* YaRN, equation 22 with deepseek's multiplier. */
static double yarn_mscale(double factor, double multiplier)
{
    return factor <= 1 ? 1 : 0.1 * multiplier * log(factor) + 1;
}

static double attention_factor(const struct apr_rope *rope, double n_ctx_orig, double n_ctx_train)
{
    if (rope->attn_factor > 0) return rope->attn_factor;
    if (rope->scaling == APR_ROPE_YARN) {
        if (rope->mscale > 0 && rope->mscale_all_dim > 0)
            return yarn_mscale(rope->factor, rope->mscale) / yarn_mscale(rope->factor, rope->mscale_all_dim);
        return yarn_mscale(rope->factor, 1);
    }
    if (rope->scaling == APR_ROPE_LONG) { /* longrope, section 3.3 */
        double factor = rope->factor > 0 ? rope->factor : n_ctx_train / n_ctx_orig;
        return factor <= 1 ? 1 : sqrt(1 + log(factor) / log(n_ctx_orig));
    }
    return 1;
}

/* Frequency of pair i, n_ctx the original context. */
typedef double freq_fn(const struct apr_rope *rope, double n_ctx, size_t i);
static freq_fn *const freq_fns[] = {
    [APR_ROPE_PLAIN] = plain_freq,   [APR_ROPE_LINEAR] = linear_freq,
    [APR_ROPE_DYNAMIC] = plain_freq, /* stretched by apr_rope_at */
    [APR_ROPE_YARN] = yarn_freq,     [APR_ROPE_LLAMA3] = llama3_freq,
    [APR_ROPE_LONG] = plain_freq, /* divided by open_sets */
};

static void divide(double *freq, const float *divisors, size_t n)
{
    for (size_t i = 0; divisors && i < n; i++) freq[i] /= (double)divisors[i];
}

/* longrope: from the configuration or, in a GGUF, from two tensors. */
static enum apr_code open_sets(struct apr_rope_table *r, struct apr_arena *arena, struct apr_err *e)
{
    const struct apr_rope *rope = r->from.rope;
    bool in_config = rope->n_factors == r->n_half;
    const float *long_set = r->from.long_freqs ? r->from.long_freqs : in_config ? rope->long_factor : NULL;
    const float *short_set = r->from.short_freqs ? r->from.short_freqs
                             : in_config         ? rope->short_factor
                                                 : NULL;
    if (!long_set || !short_set)
        return apr_fail(e, APR_ELOAD, "longrope: the factors of %zu pairs are missing", r->n_half);
    TRY(apr_arena_try(arena, &r->long_inv_freq, r->n_half, sizeof *r->long_inv_freq, "rotation table", e));
    memcpy(r->long_inv_freq, r->inv_freq, r->n_half * sizeof *r->inv_freq);
    divide(r->inv_freq, short_set, r->n_half);
    divide(r->long_inv_freq, long_set, r->n_half);
    return APR_OK;
}

enum apr_code apr_rope_open(struct apr_rope_table *r, const struct apr_rope_from *from, size_t n_batch,
                            struct apr_arena *arena, struct apr_err *e)
{
    const struct apr_rope *rope = from->rope;
    *r = (struct apr_rope_table){.from = *from, .scale = 1};
    if (!(rope->theta > 0)) return APR_OK;
    r->n_half = rope->n_dims / 2;
    r->n_ctx_orig = rope->n_ctx_orig ? rope->n_ctx_orig : from->n_ctx_train;
    TRY(apr_arena_try(arena, &r->inv_freq, r->n_half, sizeof *r->inv_freq, "rotation table", e));
    for (size_t i = 0; i < r->n_half; i++)
        r->inv_freq[i] = freq_fns[rope->scaling](rope, (double)r->n_ctx_orig, i);
    divide(r->inv_freq, from->freqs, r->n_half);
    r->scale = attention_factor(rope, (double)r->n_ctx_orig, (double)from->n_ctx_train);
    if (rope->scaling == APR_ROPE_LONG || from->long_freqs) TRY(open_sets(r, arena, e));
    TRY(apr_arena_try(arena, &r->cos, r->n_half * n_batch, sizeof *r->cos, "rotation table", e));
    return apr_arena_try(arena, &r->sin, r->n_half * n_batch, sizeof *r->sin, "rotation table", e);
}

bool apr_rope_is_long(const struct apr_rope_table *r, size_t n_seq)
{
    return r->long_inv_freq && n_seq > r->n_ctx_orig;
}

size_t apr_rope_n_alike(const struct apr_rope_table *r, size_t n_pos, size_t n)
{
    if (apr_rope_is_long(r, n_pos + 1) || !apr_rope_is_long(r, n_pos + n)) return n;
    return r->n_ctx_orig - n_pos;
}

/* theta of dynamic NTK over theta: (factor n / n_ctx - (factor - 1))^(d / (d - 2)), n the longer of the
 * sequence and the context. */
static double dynamic_stretch(const struct apr_rope_table *r, size_t n_seq)
{
    const struct apr_rope *rope = r->from.rope;
    double d = (double)rope->n_dims, n_ctx = (double)r->n_ctx_orig;
    if (rope->scaling != APR_ROPE_DYNAMIC || n_seq <= r->n_ctx_orig || rope->n_dims <= 2) return 1;
    return pow(rope->factor * (double)n_seq / n_ctx - (rope->factor - 1), d / (d - 2));
}

bool apr_rope_is_stable(const struct apr_rope_table *r, size_t n_seq)
{
    return !r->n_half || dynamic_stretch(r, n_seq) == 1;
}

void apr_rope_at(struct apr_rope_table *r, size_t i_tok, size_t pos0, size_t n_toks, size_t n_seq)
{
    if (!r->n_half) return;
    const double *freq = apr_rope_is_long(r, n_seq) ? r->long_inv_freq : r->inv_freq;
    const double stretch = dynamic_stretch(r, n_seq);
    for (size_t i = 0; i < r->n_half; i++) {
        double f = freq[i];
        if (stretch != 1) f *= pow(stretch, -(double)i / (double)r->n_half);
        for (size_t t = 0; t < n_toks; t++) {
            double angle = (double)(pos0 + t) * f;
            r->cos[(i_tok + t) * r->n_half + i] = (float)(cos(angle) * r->scale);
            r->sin[(i_tok + t) * r->n_half + i] = (float)(sin(angle) * r->scale);
        }
    }
}

void apr_rope_head(const struct apr_rope_table *r, const struct apr_kern *kern, size_t i_tok, float *x)
{
    const float *cos = r->cos + i_tok * r->n_half, *sin = r->sin + i_tok * r->n_half;
    if (!r->n_half) return;
    if (r->from.pairs)
        kern->rope_pairs(x, cos, sin, 2 * r->n_half);
    else
        kern->rope_half(x, cos, sin, 2 * r->n_half);
}
