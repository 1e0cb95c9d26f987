/* Hyper-parameters of Llama-shaped decoders. See decoder.h. */
#include "decoder.h"

#include <inttypes.h>
#include <math.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include "../json.h"

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
    const char *hf, *gguf; /* key; gguf without the architecture's prefix */
    size_t off;            /* of the uint32_t in struct apr_config */
    uint32_t max;          /* min is 1 */
    bool hf_required, gguf_required;
};
#define FIELD(member, hf_, gguf_, max_, hf_req, gguf_req)                                                    \
    {                                                                                                        \
        .hf = (hf_), .gguf = (gguf_), .off = offsetof(struct apr_config, member), .max = (max_),             \
        .hf_required = (hf_req), .gguf_required = (gguf_req)                                                 \
    }
/* In the order in which llama.cpp's converter writes the GGUF keys; NULL: not written there. */
static const struct field fields[] = {
    FIELD(n_layers, "num_hidden_layers", "block_count", MAX_LAYERS, true, true),
    FIELD(n_ctx_train, "max_position_embeddings", "context_length", MAX_CTX, false, true),
    FIELD(n_hidden, "hidden_size", "embedding_length", MAX_HIDDEN, true, true),
    FIELD(n_inter, "intermediate_size", "feed_forward_length", MAX_INTER, true, true),
    FIELD(n_heads, "num_attention_heads", "attention.head_count", MAX_HEADS, true, true),
    FIELD(n_heads_kv, "num_key_value_heads", "attention.head_count_kv", MAX_HEADS, false, false),
    FIELD(n_vocab, "vocab_size", NULL, MAX_VOCAB, true, false),
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

/* What follows from the integers: the default of n_heads_kv, head_dim, and the bounds of the two reals. */
static enum apr_code derive(struct apr_config *c, const char *file, struct apr_err *e)
{
    if (c->n_heads_kv == 0) c->n_heads_kv = c->n_heads;
    if (!c->head_dim_given) {
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
    if (!(isfinite(c->rope_theta) && c->rope_theta > 0 && c->rope_theta <= MAX_THETA))
        return apr_fail(e, APR_EFORMAT, "%s: rope theta: found %g, expected a number > 0 and <= %g", file,
                        c->rope_theta, MAX_THETA);
    if (!(isfinite(c->norm_eps) && c->norm_eps > 0 && c->norm_eps < 1))
        return apr_fail(e, APR_EFORMAT, "%s: norm epsilon: found %g, expected a number > 0 and < 1", file,
                        c->norm_eps);
    return APR_OK;
}

/* rope_parameters (transformers 5), rope_scaling and rope_theta (before). */
static enum apr_code hf_rope(const json_t *config, struct apr_config *c, const char *file, struct apr_err *e)
{
    static const char *const objects[] = {"rope_scaling", "rope_parameters"};
    TRY(apr_json_f64(config, "rope_theta", &c->rope_theta, file, e));
    for (size_t i = 0; i < 2; i++) {
        const json_t *rope = json_object_get(config, objects[i]);
        char where[512];
        const char *type = NULL;
        if (!rope || json_is_null(rope)) continue;
        if (!json_is_object(rope))
            return apr_fail(e, APR_EFORMAT, "%s: $.%s: expected an object", file, objects[i]);
        snprintf(where, sizeof where, "%s: %s", file, objects[i]);
        TRY(apr_json_str(rope, "type", &type, where, e)); /* the older spelling */
        TRY(apr_json_str(rope, "rope_type", &type, where, e));
        TRY(apr_json_f64(rope, "rope_theta", &c->rope_theta, where, e));
        if (type && strcmp(type, "default") != 0)
            return apr_fail(e, APR_ELOAD, "%s: $.%s: rope scaling \"%.64s\" is not supported for this family",
                            file, objects[i], type);
    }
    return APR_OK;
}

/* Things that would change the mathematics: silence about them would mean wrong tokens. */
static enum apr_code hf_refuse(const struct apr_decoder *d, const json_t *config, const char *file,
                               struct apr_err *e)
{
    const char *act = d->hidden_act;
    bool sliding = false;
    const json_t *quant = json_object_get(config, "quantization_config");
    TRY(apr_json_str(config, "hidden_act", &act, file, e));
    if (strcmp(act, d->hidden_act) != 0)
        return apr_fail(e, APR_ELOAD, "%s: $.hidden_act: found \"%.64s\", expected \"%s\"", file, act,
                        d->hidden_act);
    TRY(apr_json_bool(config, "use_sliding_window", &sliding, file, e));
    if (sliding)
        return apr_fail(e, APR_ELOAD,
                        "%s: $.use_sliding_window: a sliding window is not supported for this family", file);
    if (quant && !json_is_null(quant)) {
        const char *method = json_string_value(json_object_get(quant, "quant_method"));
        return apr_fail(e, APR_ELOAD,
                        "%s: $.quantization_config: weights quantized by \"%.64s\" cannot be read; use the "
                        "unquantized checkpoint",
                        file, method ? method : "?");
    }
    return APR_OK;
}

enum apr_code apr_decoder_from_hf(const struct apr_decoder *d, const json_t *config, struct apr_config *c,
                                  const char *file, struct apr_err *e)
{
    uint64_t v;
    *c = (struct apr_config){.n_ctx_train = d->n_ctx_default,
                             .rope_theta = d->rope_theta_default,
                             .norm_eps = d->norm_eps_default};
    for (size_t i = 0; i < N_FIELDS; i++) {
        uint32_t *at = field_at(c, &fields[i]);
        v = *at;
        TRY(apr_json_u64(config, fields[i].hf, 1, fields[i].max, &v, file, e));
        if (v == 0 && fields[i].hf_required)
            return apr_fail(e, APR_EFORMAT, "%s: $.%s: missing; expected an integer from 1 to %" PRIu32, file,
                            fields[i].hf, fields[i].max);
        *at = (uint32_t)v;
    }
    if (c->n_ctx_train == 0) return apr_fail(e, APR_EFORMAT, "%s: $.max_position_embeddings: missing", file);
    v = 0;
    TRY(apr_json_u64(config, "head_dim", 1, MAX_HEAD_DIM, &v, file, e));
    c->head_dim = (uint32_t)v;
    c->head_dim_given = v != 0;
    TRY(apr_json_f64(config, "rms_norm_eps", &c->norm_eps, file, e));
    TRY(apr_json_bool(config, "tie_word_embeddings", &c->tied, file, e));
    TRY(hf_rope(config, c, file, e));
    TRY(hf_refuse(d, config, file, e));
    return derive(c, file, e);
}

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
    *c = (struct apr_config){.n_vocab = c->n_vocab, .tied = c->tied, .rope_theta = 10000.0};
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
    return gguf_heads(d, kvs, c, file, e);
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
