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
#define MAX_THETA    1e12

/* One integer of a config in both worlds. Products of two of these fit 64 bits by far. */
struct field {
    const char *hf, *old_hf; /* key; in the configs of old_names */
    const char *gguf;        /* without the architecture's prefix */
    size_t off;              /* of the uint32_t in struct apr_config */
    uint32_t max;            /* min is 1 */
    bool hf_required, gguf_required;
};
#define FIELD(member, hf_, old_, gguf_, max_, hf_req, gguf_req)                                              \
    {                                                                                                        \
        .hf = (hf_), .old_hf = (old_), .gguf = (gguf_), .off = offsetof(struct apr_config, member),          \
        .max = (max_), .hf_required = (hf_req), .gguf_required = (gguf_req)                                  \
    }
/* In the order in which llama.cpp's converter writes the GGUF keys; NULL: not written there. */
static const struct field fields[] = {
    FIELD(n_layers, "num_hidden_layers", "n_layer", "block_count", MAX_LAYERS, true, true),
    FIELD(n_ctx_train, "max_position_embeddings", "n_positions", "context_length", MAX_CTX, false, true),
    FIELD(n_hidden, "hidden_size", "n_embd", "embedding_length", MAX_HIDDEN, true, true),
    FIELD(n_inter, "intermediate_size", "n_inter", "feed_forward_length", MAX_INTER, true, true),
    FIELD(n_heads, "num_attention_heads", "n_head", "attention.head_count", MAX_HEADS, true, true),
    FIELD(n_heads_kv, "num_key_value_heads", "num_key_value_heads", "attention.head_count_kv", MAX_HEADS,
          false, false),
    FIELD(n_vocab, "vocab_size", "vocab_size", NULL, MAX_VOCAB, true, false),
};
#define N_FIELDS (sizeof fields / sizeof fields[0])

static uint32_t *field_at(struct apr_config *c, const struct field *f)
{
    return (uint32_t *)(void *)((char *)c + f->off);
}

static const char *gguf_key(const struct apr_decoder *d, const char *key, char *out, size_t n_out)
{
    snprintf(out, n_out, "%s.%s", d->gguf_arch, key);
    return out;
}

static const struct {
    const char *name;
    enum apr_activation activation;
} activations[] = {
    {"silu", APR_SILU},          {"swish", APR_SILU},          {"gelu", APR_GELU},
    {"gelu_new", APR_GELU_TANH}, {"gelu_fast", APR_GELU_TANH}, {"gelu_pytorch_tanh", APR_GELU_TANH},
    {"relu", APR_RELU},
};

/* What follows from the integers: the default of n_heads_kv, and head_dim. */
static enum apr_code derive(struct apr_config *c, const char *file, struct apr_err *e)
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
        TRY(apr_json_u64(config, key, 1, fields[i].max, &v, file, e));
        if (v == 0 && d->old_names && at == &c->n_inter) v = 4 * (uint64_t)c->n_hidden; /* gpt2's default */
        if (v == 0 && fields[i].hf_required)
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
    TRY(derive(c, file, e));
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

/* ---- GGUF --------------------------------------------------------------------------------------------- */

static enum apr_code gguf_heads(const struct apr_decoder *d, const struct apr_kvs *kvs, struct apr_config *c,
                                const char *file, struct apr_err *e)
{
    char key[128];
    uint64_t n_key = 0, n_value = 0, n_rope = 0;
    TRY(apr_kv_get_u64(kvs, gguf_key(d, "attention.key_length", key, sizeof key), 1, MAX_HEAD_DIM, &n_key,
                       file, e));
    TRY(apr_kv_get_u64(kvs, gguf_key(d, "attention.value_length", key, sizeof key), 1, MAX_HEAD_DIM, &n_value,
                       file, e));
    TRY(apr_kv_get_u64(kvs, gguf_key(d, "rope.dimension_count", key, sizeof key), 1, MAX_HEAD_DIM, &n_rope,
                       file, e));
    c->head_dim = (uint32_t)n_key;
    c->head_dim_given = n_key != 0;
    TRY(derive(c, file, e));
    if (n_value != 0 && n_value != c->head_dim)
        return apr_fail(e, APR_ELOAD,
                        "%s: %s.attention.value_length: found %" PRIu64 ", expected the key length %" PRIu32,
                        file, d->gguf_arch, n_value, c->head_dim);
    if (n_rope != 0 && n_rope != c->head_dim)
        return apr_fail(e, APR_ELOAD,
                        "%s: %s.rope.dimension_count: found %" PRIu64 ", expected the head size %" PRIu32,
                        file, d->gguf_arch, n_rope, c->head_dim);
    return APR_OK;
}

/* n_vocab and tied are told by the tensors: the caller sets them; a vocab_size key only fills a gap. */
enum apr_code apr_decoder_from_gguf(const struct apr_decoder *d, const struct apr_kvs *kvs,
                                    struct apr_config *c, const char *file, struct apr_err *e)
{
    char key[128];
    const char *scaling = NULL;
    uint64_t v = c->n_vocab;
    /* llama.cpp's defaults where a key is absent: freq_base 10000; the epsilon has none. */
    *c = (struct apr_config){.n_vocab = c->n_vocab,
                             .tied = c->tied,
                             .form = APR_FORM_GGUF,
                             .rope_theta = 10000.0,
                             .qkv_bias = d->qkv_bias,
                             .o_bias = d->o_bias,
                             .mlp_bias = d->mlp_bias,
                             .head_bias = d->head_bias,
                             .norm = d->norm,
                             .is_gated = d->is_gated,
                             .is_parallel = d->is_parallel};
    if (v == 0)
        TRY(apr_kv_get_u64(kvs, gguf_key(d, "vocab_size", key, sizeof key), 1, MAX_VOCAB, &v, file, e));
    c->n_vocab = (uint32_t)v;
    for (size_t i = 0; i < N_FIELDS; i++) {
        if (!fields[i].gguf) continue;
        v = 0;
        gguf_key(d, fields[i].gguf, key, sizeof key);
        TRY(apr_kv_get_u64(kvs, key, 1, fields[i].max, &v, file, e));
        if (v == 0 && fields[i].gguf_required)
            return apr_fail(e, APR_EFORMAT, "%s: %s: missing; expected an integer from 1 to %" PRIu32, file,
                            key, fields[i].max);
        *field_at(c, &fields[i]) = (uint32_t)v;
    }
    TRY(apr_kv_get_f64(kvs, gguf_key(d, "rope.freq_base", key, sizeof key), &c->rope_theta, file, e));
    gguf_key(d, "attention.layer_norm_rms_epsilon", key, sizeof key);
    if (!apr_kvs_find(kvs, key)) return apr_fail(e, APR_EFORMAT, "%s: %s: missing", file, key);
    TRY(apr_kv_get_f64(kvs, key, &c->norm_eps, file, e));
    TRY(apr_kv_get_str(kvs, gguf_key(d, "rope.scaling.type", key, sizeof key), &scaling, file, e));
    if (scaling && strcmp(scaling, "none") != 0)
        return apr_fail(e, APR_ELOAD, "%s: %s: rope scaling \"%.64s\" is not supported for this family", file,
                        key, scaling);
    TRY(gguf_heads(d, kvs, c, file, e));
    c->rope = (struct apr_rope){.theta = c->rope_theta, .n_dims = c->head_dim};
    return apr_rope_check(&c->rope, file, e);
}

/* The converter writes rope.freq_base only where config.json gives a theta. */
static bool theta_given(const json_t *hf_config)
{
    return !hf_config || json_object_get(hf_config, "rope_theta") ||
           json_object_get(json_object_get(hf_config, "rope_parameters"), "rope_theta");
}

void apr_decoder_to_gguf(const struct apr_decoder *d, const struct apr_config *c, const json_t *hf_config,
                         struct apr_kvs *kvs)
{
    char key[128];
    struct apr_config copy = *c;
    for (size_t i = 0; i < N_FIELDS; i++)
        if (fields[i].gguf)
            apr_kvs_u32(kvs, gguf_key(d, fields[i].gguf, key, sizeof key), *field_at(&copy, &fields[i]));
    if (theta_given(hf_config))
        apr_kvs_f32(kvs, gguf_key(d, "rope.freq_base", key, sizeof key), (float)c->rope_theta);
    apr_kvs_f32(kvs, gguf_key(d, "attention.layer_norm_rms_epsilon", key, sizeof key), (float)c->norm_eps);
    if (c->head_dim_given) {
        apr_kvs_u32(kvs, gguf_key(d, "attention.key_length", key, sizeof key), c->head_dim);
        apr_kvs_u32(kvs, gguf_key(d, "attention.value_length", key, sizeof key), c->head_dim);
    }
}
