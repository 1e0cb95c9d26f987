/* BERT and what is shaped like it (RoBERTa, XLM-RoBERTa): a bidirectional encoder with LayerNorm after each
 * part, learned positions, token types and biases everywhere. */
#include "table.h"

#include <stdio.h>
#include <string.h>

#include "../json.h"
#include "decoder.h"

static const char *const hf_architectures[] = {
    "BertModel",          "BertForMaskedLM",       "BertForSequenceClassification",
    "BertForPreTraining", "RobertaModel",          "RobertaForMaskedLM",
    "XLMRobertaModel",    "XLMRobertaForMaskedLM", NULL};
static const char *const hf_model_types[] = {"bert", "roberta", "xlm-roberta", NULL};

#define E "bert.embeddings."
#define L "bert.encoder.layer.{n}."
#define B "blk.{n}."
#define H "cls.predictions."
/* GGUF: llama.cpp's tensor name map; it has no place for the heads. */
/* clang-format off */
static const struct apr_tensor_rule rules[] = {
    {APR_ROLE_EMBED, E "word_embeddings.weight", "token_embd.weight", {APR_DIM_VOCAB, APR_DIM_HIDDEN}, APR_REQUIRED},
    {APR_ROLE_POSITIONS, E "position_embeddings.weight", "position_embd.weight", {APR_DIM_POSITIONS, APR_DIM_HIDDEN}, APR_REQUIRED},
    {APR_ROLE_TYPES, E "token_type_embeddings.weight", "token_types.weight", {APR_DIM_TYPES, APR_DIM_HIDDEN}, APR_REQUIRED},
    {APR_ROLE_EMBED_NORM, E "LayerNorm.weight", "token_embd_norm.weight", {APR_DIM_HIDDEN}, APR_REQUIRED},
    {APR_ROLE_EMBED_NORM_BIAS, E "LayerNorm.bias", "token_embd_norm.bias", {APR_DIM_HIDDEN}, APR_REQUIRED},
    {APR_ROLE_Q, L "attention.self.query.weight", B "attn_q.weight", {APR_DIM_Q, APR_DIM_HIDDEN}, APR_REQUIRED},
    {APR_ROLE_Q_BIAS, L "attention.self.query.bias", B "attn_q.bias", {APR_DIM_Q}, APR_REQUIRED},
    {APR_ROLE_K, L "attention.self.key.weight", B "attn_k.weight", {APR_DIM_Q, APR_DIM_HIDDEN}, APR_REQUIRED},
    {APR_ROLE_K_BIAS, L "attention.self.key.bias", B "attn_k.bias", {APR_DIM_Q}, APR_REQUIRED},
    {APR_ROLE_V, L "attention.self.value.weight", B "attn_v.weight", {APR_DIM_Q, APR_DIM_HIDDEN}, APR_REQUIRED},
    {APR_ROLE_V_BIAS, L "attention.self.value.bias", B "attn_v.bias", {APR_DIM_Q}, APR_REQUIRED},
    {APR_ROLE_O, L "attention.output.dense.weight", B "attn_output.weight", {APR_DIM_HIDDEN, APR_DIM_Q}, APR_REQUIRED},
    {APR_ROLE_O_BIAS, L "attention.output.dense.bias", B "attn_output.bias", {APR_DIM_HIDDEN}, APR_REQUIRED},
    {APR_ROLE_POST_ATTN_NORM, L "attention.output.LayerNorm.weight", B "attn_output_norm.weight", {APR_DIM_HIDDEN}, APR_REQUIRED},
    {APR_ROLE_POST_ATTN_NORM_BIAS, L "attention.output.LayerNorm.bias", B "attn_output_norm.bias", {APR_DIM_HIDDEN}, APR_REQUIRED},
    {APR_ROLE_UP, L "intermediate.dense.weight", B "ffn_up.weight", {APR_DIM_INTER, APR_DIM_HIDDEN}, APR_REQUIRED},
    {APR_ROLE_UP_BIAS, L "intermediate.dense.bias", B "ffn_up.bias", {APR_DIM_INTER}, APR_REQUIRED},
    {APR_ROLE_DOWN, L "output.dense.weight", B "ffn_down.weight", {APR_DIM_HIDDEN, APR_DIM_INTER}, APR_REQUIRED},
    {APR_ROLE_DOWN_BIAS, L "output.dense.bias", B "ffn_down.bias", {APR_DIM_HIDDEN}, APR_REQUIRED},
    {APR_ROLE_POST_FFN_NORM, L "output.LayerNorm.weight", B "layer_output_norm.weight", {APR_DIM_HIDDEN}, APR_REQUIRED},
    {APR_ROLE_POST_FFN_NORM_BIAS, L "output.LayerNorm.bias", B "layer_output_norm.bias", {APR_DIM_HIDDEN}, APR_REQUIRED},
    {APR_ROLE_NONE, "bert.pooler.dense.weight", NULL, {APR_DIM_HIDDEN, APR_DIM_HIDDEN}, APR_OPTIONAL},
    {APR_ROLE_NONE, "bert.pooler.dense.bias", NULL, {APR_DIM_HIDDEN}, APR_OPTIONAL},
    {APR_ROLE_NONE, H "transform.dense.weight", NULL, {APR_DIM_HIDDEN, APR_DIM_HIDDEN}, APR_IF_MLM_HEAD},
    {APR_ROLE_NONE, H "transform.dense.bias", NULL, {APR_DIM_HIDDEN}, APR_IF_MLM_HEAD},
    {APR_ROLE_NONE, H "transform.LayerNorm.weight", NULL, {APR_DIM_HIDDEN}, APR_IF_MLM_HEAD},
    {APR_ROLE_NONE, H "transform.LayerNorm.bias", NULL, {APR_DIM_HIDDEN}, APR_IF_MLM_HEAD},
    {APR_ROLE_NONE, H "bias", NULL, {APR_DIM_VOCAB}, APR_IF_MLM_HEAD},
    {APR_ROLE_NONE, H "decoder.weight", NULL, {APR_DIM_VOCAB, APR_DIM_HIDDEN}, APR_OPTIONAL},
    {APR_ROLE_NONE, H "decoder.bias", NULL, {APR_DIM_VOCAB}, APR_OPTIONAL},
    {APR_ROLE_NONE, "cls.seq_relationship.weight", NULL, {APR_DIM_TYPES, APR_DIM_HIDDEN}, APR_OPTIONAL},
    {APR_ROLE_NONE, "cls.seq_relationship.bias", NULL, {APR_DIM_TYPES}, APR_OPTIONAL},
    {APR_ROLE_NONE, "lm_head.dense.weight", NULL, {APR_DIM_HIDDEN, APR_DIM_HIDDEN}, APR_OPTIONAL},
    {APR_ROLE_NONE, "lm_head.dense.bias", NULL, {APR_DIM_HIDDEN}, APR_OPTIONAL},
    {APR_ROLE_NONE, "lm_head.layer_norm.weight", NULL, {APR_DIM_HIDDEN}, APR_OPTIONAL},
    {APR_ROLE_NONE, "lm_head.layer_norm.bias", NULL, {APR_DIM_HIDDEN}, APR_OPTIONAL},
    {APR_ROLE_NONE, "lm_head.bias", NULL, {APR_DIM_VOCAB}, APR_OPTIONAL},
    {APR_ROLE_NONE, "classifier.weight", NULL, {APR_DIM_LABELS, APR_DIM_HIDDEN}, APR_OPTIONAL},
    {APR_ROLE_NONE, "classifier.bias", NULL, {APR_DIM_LABELS}, APR_OPTIONAL},
};
/* clang-format on */
static const struct apr_tensor_form forms[] = {{.role = APR_ROLE_POSITIONS, .change = APR_CHANGE_CUT_ROWS}};
static const char *const prefixes[][2] = {{"", "bert."}, {"roberta.", "bert."}, {NULL, NULL}};
/* As the first TensorFlow checkpoints named them. */
static const char *const suffixes[][2] = {{".gamma", ".weight"}, {".beta", ".bias"}, {NULL, NULL}};
static const char *const dropped[] = {E "position_ids", NULL};

/* Defaults: transformers'. */
static const struct apr_decoder decoder = {
    .gguf_arch = "bert",
    .n_ctx_default = 512,
    .norm_eps = 1e-12,
    .tied = true,
    .eps_key = "layer_norm_eps",
    .act_default = "gelu",
    .norm = APR_NORM_LAYER,
    .qkv_bias = true,
    .o_bias = true,
    .mlp_bias = true,
};

static void encoder(struct apr_config *c)
{
    c->is_encoder = true;
    c->n_positions = c->n_ctx_train;
    c->rope_theta = 0;
    c->rope = (struct apr_rope){0};
}

/* Rows of the positions before the first token's: RoBERTa counts from behind the padding token's id. */
static enum apr_code first_position(const json_t *config, struct apr_config *c, const char *file,
                                    struct apr_err *e)
{
    const char *type = "bert";
    uint64_t pad = 1;
    TRY(apr_json_str(config, "model_type", &type, file, e));
    if (!strstr(type, "roberta")) return APR_OK;
    TRY(apr_json_u64(config, "pad_token_id", 0, c->n_positions, &pad, file, e));
    if (pad + 1 >= c->n_positions)
        return apr_fail(e, APR_EFORMAT, "%s: $.pad_token_id: leaves no positions of %u", file,
                        c->n_positions);
    c->position0 = (uint32_t)pad + 1;
    c->n_ctx_train -= c->position0;
    return APR_OK;
}

static enum apr_code labels(const json_t *config, struct apr_config *c, const char *file, struct apr_err *e)
{
    uint64_t n = json_object_size(json_object_get(config, "id2label"));
    TRY(apr_json_u64(config, "num_labels", 1, 1u << 20, &n, file, e));
    c->n_labels = n && n <= 1u << 20 ? (uint32_t)n : 2; /* transformers writes no list of two dummies */
    return APR_OK;
}

static enum apr_code from_hf(const struct apr_family *f, const json_t *config, struct apr_config *c,
                             const char *file, struct apr_err *e)
{
    (void)f;
    const char *arch = json_string_value(json_array_get(json_object_get(config, "architectures"), 0));
    const char *position = "absolute";
    uint64_t n_types = 2;
    TRY(apr_decoder_from_hf(&decoder, config, c, file, e));
    encoder(c);
    TRY(apr_json_u64(config, "type_vocab_size", 1, 4096, &n_types, file, e));
    c->n_types = (uint32_t)n_types;
    TRY(apr_json_str(config, "position_embedding_type", &position, file, e));
    if (strcmp(position, "absolute") != 0)
        return apr_fail(e, APR_ELOAD, "%s: $.position_embedding_type: \"%.32s\" is not supported", file,
                        position);
    TRY(apr_refuse_true(config, "is_decoder", file, e));
    TRY(apr_refuse_true(config, "add_cross_attention", file, e));
    c->has_mlm_head = arch && strcmp(arch, "BertForMaskedLM") == 0;
    TRY(labels(config, c, file, e));
    return first_position(config, c, file, e);
}

#define KEY(name) "bert." name

/* A GGUF holds neither heads nor the positions before the first token's. */
static enum apr_code from_gguf(const struct apr_family *f, const struct apr_kvs *kvs, struct apr_config *c,
                               const char *file, struct apr_err *e)
{
    (void)f;
    const struct {
        const char *key;
        uint64_t max;
        uint32_t *at;
    } fields[] = {
        {KEY("block_count"), APR_MAX_LAYERS, &c->n_layers},
        {KEY("context_length"), 1u << 28, &c->n_ctx_train},
        {KEY("embedding_length"), 1u << 17, &c->n_hidden},
        {KEY("feed_forward_length"), 1u << 20, &c->n_inter},
        {KEY("attention.head_count"), 1024, &c->n_heads},
    };
    const uint32_t n_vocab = c->n_vocab;
    uint64_t n_types = 1, pooling = 0;
    bool causal = false;
    *c = (struct apr_config){.n_vocab = n_vocab, .tied = true, .form = APR_FORM_GGUF};
    for (size_t i = 0; i < sizeof fields / sizeof *fields; i++) {
        uint64_t v = 0;
        TRY(apr_kv_get_u64(kvs, fields[i].key, 1, fields[i].max, &v, file, e));
        if (!v) return apr_fail(e, APR_EFORMAT, "%s: %s: missing", file, fields[i].key);
        *fields[i].at = (uint32_t)v;
    }
    TRY(apr_kv_get_f64(kvs, KEY("attention.layer_norm_epsilon"), &c->norm_eps, file, e));
    TRY(apr_kv_get_bool(kvs, KEY("attention.causal"), &causal, file, e));
    TRY(apr_kv_get_u64(kvs, "tokenizer.ggml.token_type_count", 1, 4096, &n_types, file, e));
    TRY(apr_kv_get_u64(kvs, KEY("pooling_type"), 0, 4, &pooling, file, e));
    if (!(c->norm_eps > 0 && c->norm_eps < 1) || c->n_hidden % c->n_heads || causal)
        return apr_fail(e, APR_EFORMAT,
                        "%s: bert: expected an epsilon above 0, heads that divide %u, attention.causal false",
                        file, c->n_hidden);
    c->n_heads_kv = c->n_heads;
    c->head_dim = c->n_hidden / c->n_heads;
    c->n_types = (uint32_t)n_types;
    c->norm = APR_NORM_LAYER;
    c->activation = APR_GELU;
    c->qkv_bias = c->o_bias = c->mlp_bias = true;
    c->n_labels = 2;
    encoder(c);
    return APR_OK;
}

static void to_gguf(const struct apr_family *f, const struct apr_config *c, const json_t *hf_config,
                    uint32_t file_type, struct apr_kvs *kvs)
{
    (void)f;
    (void)hf_config;
    apr_kvs_u32(kvs, KEY("block_count"), c->n_layers);
    apr_kvs_u32(kvs, KEY("context_length"), c->n_ctx_train);
    apr_kvs_u32(kvs, KEY("embedding_length"), c->n_hidden);
    apr_kvs_u32(kvs, KEY("feed_forward_length"), c->n_inter);
    apr_kvs_u32(kvs, KEY("attention.head_count"), c->n_heads);
    apr_kvs_f32(kvs, KEY("attention.layer_norm_epsilon"), (float)c->norm_eps);
    apr_kvs_u32(kvs, "general.file_type", file_type);
    apr_kvs_bool(kvs, KEY("attention.causal"), false);
}

static const struct apr_gguf_tok gguf_tok = {.type_count = true};

const struct apr_family apr_family_bert = {
    .name = "bert",
    .gguf_arch = "bert",
    .model_type_apr = "Bert",
    .hf_architectures = hf_architectures,
    .hf_model_types = hf_model_types,
    .rules = rules,
    .n_rules = sizeof rules / sizeof rules[0],
    .forms = forms,
    .n_forms = sizeof forms / sizeof forms[0],
    .prefixes = prefixes,
    .suffixes = suffixes,
    .dropped = dropped,
    .from_hf = from_hf,
    .from_gguf = from_gguf,
    .to_gguf = to_gguf,
    .gguf_tok = &gguf_tok,
    .rope_type = 0,
};
