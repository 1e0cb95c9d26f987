/* Hyper-parameters of decoders. See decoder.h. */
#include "decoder.h"

#include <inttypes.h>
#include <math.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include "../json.h"
#include "rope.h"

#define MAX_LAYERS   APR_MAX_LAYERS
#define MAX_HIDDEN   (1u << 17)
#define MAX_HEADS    1024u
#define MAX_HEAD_DIM 1024u
#define MAX_INTER    (1u << 20)
#define MAX_VOCAB    (1u << 22)
#define MAX_CTX      (1u << 28)

/* One integer of config.json. Products of two of these fit 64 bits by far. */
struct field {
    const char *hf, *old_hf; /* key; in the configs of old_names */
    size_t off;              /* of the uint32_t in struct apr_config */
    uint32_t max;            /* min is 1 */
    bool is_required;
};
#define FIELD(member, hf_, old_, max_, required_)                                                            \
    {                                                                                                        \
        .hf = (hf_), .old_hf = (old_), .off = offsetof(struct apr_config, member), .max = (max_),            \
        .is_required = (required_)                                                                           \
    }
static const struct field fields[] = {
    FIELD(n_layers, "num_hidden_layers", "n_layer", MAX_LAYERS, true),
    FIELD(n_ctx_train, "max_position_embeddings", "n_positions", MAX_CTX, false),
    FIELD(n_hidden, "hidden_size", "n_embd", MAX_HIDDEN, true),
    FIELD(n_inter, "intermediate_size", "n_inner", MAX_INTER, true),
    FIELD(n_heads, "num_attention_heads", "n_head", MAX_HEADS, true),
    FIELD(n_heads_kv, "num_key_value_heads", "num_key_value_heads", MAX_HEADS, false),
    FIELD(n_vocab, "vocab_size", "vocab_size", MAX_VOCAB, true),
};
#define N_FIELDS (sizeof fields / sizeof fields[0])

static uint32_t *field_at(struct apr_config *c, const struct field *f)
{
    return (uint32_t *)(void *)((char *)c + f->off);
}

static const struct {
    const char *name;
    enum apr_activation activation;
} activations[] = {
    {"silu", APR_SILU},          {"swish", APR_SILU},          {"gelu", APR_GELU},
    {"gelu_new", APR_GELU_TANH}, {"gelu_fast", APR_GELU_TANH}, {"gelu_pytorch_tanh", APR_GELU_TANH},
    {"relu", APR_RELU},
};

enum apr_code apr_decoder_derive(struct apr_config *c, const char *file, struct apr_err *e)
{
    if (c->n_heads_kv == 0) c->n_heads_kv = c->n_heads;
    if (c->head_dim == 0) {
        if (c->n_hidden % c->n_heads != 0)
            return apr_fail(e, APR_EFORMAT,
                            "%s: the head size is not given and hidden size %" PRIu32
                            " is no multiple of %" PRIu32 " heads",
                            file, c->n_hidden, c->n_heads);
        c->head_dim = c->n_hidden / c->n_heads;
        if (c->head_dim > MAX_HEAD_DIM)
            return apr_fail(e, APR_EFORMAT, "%s: head size: found %" PRIu32 ", expected 1 to %u", file,
                            c->head_dim, MAX_HEAD_DIM);
    }
    if (!(isfinite(c->norm_eps) && c->norm_eps > 0 && c->norm_eps < 1))
        return apr_fail(e, APR_EFORMAT, "%s: norm epsilon: found %g, expected a number > 0 and < 1", file,
                        c->norm_eps);
    return APR_OK;
}

/* Weights that are not what the file says: silence about them would mean wrong tokens. */
static enum apr_code refuse_quantized(const json_t *config, const char *file, struct apr_err *e)
{
    const json_t *quant = json_object_get(config, "quantization_config");
    const char *method;
    if (!quant || json_is_null(quant)) return APR_OK;
    method = json_string_value(json_object_get(quant, "quant_method"));
    return apr_fail(e, APR_ELOAD,
                    "%s: $.quantization_config: weights quantized by \"%.64s\" cannot be read; use the "
                    "unquantized checkpoint",
                    file, method ? method : "?");
}

static enum apr_code read_activation(const struct apr_decoder *d, const json_t *config, struct apr_config *c,
                                     const char *file, struct apr_err *e)
{
    const char *key = d->act_key ? d->act_key : "hidden_act", *name = d->act_default;
    TRY(apr_json_str(config, key, &name, file, e));
    for (size_t i = 0; i < sizeof activations / sizeof activations[0]; i++) {
        if (strcmp(name, activations[i].name) != 0) continue;
        c->activation = activations[i].activation;
        return APR_OK;
    }
    return apr_fail(e, APR_ELOAD, "%s: $.%s: activation \"%.64s\" is not supported", file, key, name);
}

static enum apr_code read_fields(const struct apr_decoder *d, const json_t *config, struct apr_config *c,
                                 const char *file, struct apr_err *e)
{
    for (size_t i = 0; i < N_FIELDS; i++) {
        const char *key = d->old_names ? fields[i].old_hf : fields[i].hf;
        uint32_t *at = field_at(c, &fields[i]);
        uint64_t v = *at;
        if (d->old_names)
            TRY(apr_json_u64(config, fields[i].hf, 1, fields[i].max, &v, file, e)); /* also known */
        TRY(apr_json_u64(config, key, 1, fields[i].max, &v, file, e));
        if (v == 0 && d->old_names && at == &c->n_inter) v = 4 * (uint64_t)c->n_hidden; /* gpt2's default */
        if (v == 0 && fields[i].is_required)
            return apr_fail(e, APR_EFORMAT, "%s: $.%s: missing; expected an integer from 1 to %" PRIu32, file,
                            key, fields[i].max);
        *at = (uint32_t)v;
    }
    if (c->n_ctx_train == 0) return apr_fail(e, APR_EFORMAT, "%s: $.max_position_embeddings: missing", file);
    return APR_OK;
}

static enum apr_code read_head_dim(const struct apr_decoder *d, const json_t *config, struct apr_config *c,
                                   const char *file, struct apr_err *e)
{
    uint64_t v = d->head_dim;
    TRY(apr_json_u64(config, "head_dim", 1, MAX_HEAD_DIM, &v, file, e));
    c->head_dim = (uint32_t)v;
    c->head_dim_given = v != 0 || d->head_dim_always;
    return APR_OK;
}

static enum apr_code read_flag(const json_t *config, const char *key, bool fixed, bool *out, const char *file,
                               struct apr_err *e)
{
    *out = fixed;
    return key ? apr_json_bool(config, key, out, file, e) : APR_OK;
}

static enum apr_code read_flags(const struct apr_decoder *d, const json_t *config, struct apr_config *c,
                                const char *file, struct apr_err *e)
{
    TRY(read_flag(config, d->qkv_bias_key, d->qkv_bias, &c->qkv_bias, file, e));
    TRY(read_flag(config, d->o_bias_key, d->o_bias, &c->o_bias, file, e));
    TRY(read_flag(config, d->mlp_bias_key, d->mlp_bias, &c->mlp_bias, file, e));
    return read_flag(config, "tie_word_embeddings", d->tied, &c->tied, file, e);
}

enum apr_code apr_decoder_from_hf(const struct apr_decoder *d, const json_t *config, struct apr_config *c,
                                  const char *file, struct apr_err *e)
{
    const struct apr_rope_defaults rope = {.theta = d->rope_theta, .partial = d->rope_partial};
    memset(c, 0, sizeof *c);
    c->n_ctx_train = d->n_ctx_default;
    c->norm_eps = d->norm_eps;
    c->norm = d->norm;
    c->is_gated = d->is_gated;
    c->is_parallel = d->is_parallel;
    c->head_bias = d->head_bias;
    TRY(read_fields(d, config, c, file, e));
    TRY(read_head_dim(d, config, c, file, e));
    TRY(apr_json_f64(config, d->eps_key ? d->eps_key : "rms_norm_eps", &c->norm_eps, file, e));
    TRY(read_flags(d, config, c, file, e));
    TRY(read_activation(d, config, c, file, e));
    TRY(refuse_quantized(config, file, e));
    TRY(apr_decoder_derive(c, file, e));
    if (d->rope_theta > 0) TRY(apr_rope_from_hf(config, "full_attention", &rope, c, &c->rope, file, e));
    c->rope_theta = c->rope.theta;
    return APR_OK;
}

/* ---- what some families have -------------------------------------------------------------------------- */

static void set_local(struct apr_config *c, uint32_t layer)
{
    c->local[layer / 64] |= (uint64_t)1 << (layer % 64);
}

static enum apr_code read_window(const json_t *config, struct apr_config *c, const char *file,
                                 struct apr_err *e)
{
    uint64_t v = 0;
    TRY(apr_json_u64(config, "sliding_window", 1, MAX_CTX, &v, file, e));
    c->window = (uint32_t)v;
    return APR_OK;
}

enum apr_code apr_window_from_hf(const json_t *config, uint32_t first, struct apr_config *c, const char *file,
                                 struct apr_err *e)
{
    TRY(read_window(config, c, file, e));
    for (uint32_t i = first; c->window && i < c->n_layers; i++) set_local(c, i);
    if (first >= c->n_layers) c->window = 0;
    return APR_OK;
}

enum apr_code apr_layer_types_from_hf(const json_t *config, struct apr_config *c, bool *found,
                                      const char *file, struct apr_err *e)
{
    const json_t *list = json_object_get(config, "layer_types");
    bool any = false;
    *found = list && !json_is_null(list);
    if (!*found) return APR_OK;
    if (!json_is_array(list) || json_array_size(list) != c->n_layers)
        return apr_fail(e, APR_EFORMAT, "%s: $.layer_types: expected a list of %" PRIu32 " layers", file,
                        c->n_layers);
    TRY(read_window(config, c, file, e));
    memset(c->local, 0, sizeof c->local);
    for (uint32_t i = 0; i < c->n_layers; i++) {
        const char *type = json_string_value(json_array_get(list, i));
        const bool is_local = type && strcmp(type, "sliding_attention") == 0;
        if (!is_local && !(type && strcmp(type, "full_attention") == 0))
            return apr_fail(e, APR_ELOAD, "%s: $.layer_types[%" PRIu32 "]: \"%.64s\" is not supported", file,
                            i, type ? type : "?");
        if (is_local) set_local(c, i);
        any |= is_local;
    }
    if (any && c->window == 0) return apr_fail(e, APR_EFORMAT, "%s: $.sliding_window: missing", file);
    if (!any) c->window = 0;
    return APR_OK;
}

enum apr_code apr_qwen_window_from_hf(const json_t *config, struct apr_config *c, const char *file,
                                      struct apr_err *e)
{
    bool on = false, found;
    uint64_t first = 28; /* transformers' default */
    TRY(apr_json_bool(config, "use_sliding_window", &on, file, e));
    TRY(apr_json_u64(config, "max_window_layers", 0, UINT32_MAX, &first, file, e));
    if (!on) return APR_OK;
    TRY(apr_layer_types_from_hf(config, c, &found, file, e));
    return found ? APR_OK : apr_window_from_hf(config, (uint32_t)first, c, file, e);
}

enum apr_code apr_positive_from_hf(const json_t *config, const char *key, double *v, const char *file,
                                   struct apr_err *e)
{
    const json_t *at = json_object_get(config, key);
    TRY(apr_json_f64(config, key, v, file, e));
    if (at && !json_is_null(at) && !(isfinite(*v) && *v > 0))
        return apr_fail(e, APR_EFORMAT, "%s: $.%s: found %g, expected a number > 0", file, key, *v);
    return APR_OK;
}

enum apr_code apr_softcap_from_hf(const json_t *config, const char *key, double *v, const char *file,
                                  struct apr_err *e)
{
    if (json_is_null(json_object_get(config, key))) {
        *v = 0;
        return APR_OK;
    }
    return apr_positive_from_hf(config, key, v, file, e);
}

enum apr_code apr_pattern_from_hf(const json_t *config, uint32_t pattern_default, uint32_t window_default,
                                  struct apr_config *c, const char *file, struct apr_err *e)
{
    uint64_t pattern = pattern_default;
    bool found;
    TRY(apr_layer_types_from_hf(config, c, &found, file, e));
    if (found) return APR_OK;
    TRY(apr_json_u64(config, "_sliding_window_pattern", 1, MAX_LAYERS, &pattern, file, e));
    TRY(apr_json_u64(config, "sliding_window_pattern", 1, MAX_LAYERS, &pattern, file, e));
    TRY(read_window(config, c, file, e));
    if (c->window == 0 && !json_object_get(config, "sliding_window")) c->window = window_default;
    for (uint32_t i = 0; c->window && i < c->n_layers; i++)
        if ((i + 1) % pattern != 0) set_local(c, i);
    return APR_OK;
}

enum apr_code apr_refuse_true(const json_t *config, const char *key, const char *file, struct apr_err *e)
{
    bool on = false;
    TRY(apr_json_bool(config, key, &on, file, e));
    return on ? apr_fail(e, APR_ELOAD, "%s: $.%s: not supported", file, key) : APR_OK;
}
