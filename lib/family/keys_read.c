/* The reader of hyper-parameters from GGUF keys. See decoder.h and keys.h. */
#include "keys.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "rope.h"

#define MAX_HIDDEN   (1u << 17)
#define MAX_HEADS    1024u
#define MAX_HEAD_DIM 1024u
#define MAX_INTER    (1u << 20)
#define MAX_VOCAB    (1u << 22)
#define MAX_CTX      (1u << 28)
#define MAX_EXPERTS  4096u
#define MAX_RANK     65536u

/* Everything that one reading needs. */
struct reader {
    const struct apr_decoder *d;
    const struct apr_kvs *kvs;
    struct apr_config *c;
    const char *file;
};

/* 32-bit floats, told in the decimal that was meant. */
static double shortest(double v)
{
    char text[32];
    for (int n_digits = 1; n_digits <= 9; n_digits++) {
        (void)snprintf(text, sizeof text, "%.*g", n_digits, v);
        if ((double)strtof(text, NULL) == v) return strtod(text, NULL);
    }
    return v;
}

enum apr_code apr_real_from_gguf(const struct apr_decoder *d, const struct apr_kvs *kvs, const char *key,
                                 double *v, const char *file, struct apr_err *e)
{
    char name[128];
    apr_key_name(d->gguf_arch, key, name, sizeof name);
    if (!apr_kvs_find(kvs, name)) return APR_OK;
    TRY(apr_kv_get_f64(kvs, name, v, file, e));
    if (!isfinite(*v)) return apr_fail(e, APR_EFORMAT, "%s: %s: expected a finite number", file, name);
    *v = shortest(*v);
    return APR_OK;
}

enum apr_code apr_uint_from_gguf(const struct apr_decoder *d, const struct apr_kvs *kvs, const char *key,
                                 uint64_t min, uint64_t max, uint32_t *v, const char *file, struct apr_err *e)
{
    char name[128];
    uint64_t wide = *v;
    TRY(apr_kv_get_u64(kvs, apr_key_name(d->gguf_arch, key, name, sizeof name), min, max, &wide, file, e));
    *v = (uint32_t)wide;
    return APR_OK;
}

static enum apr_code real(const struct reader *r, const char *key, double *v, struct apr_err *e)
{
    return apr_real_from_gguf(r->d, r->kvs, key, v, r->file, e);
}

static enum apr_code get(const struct reader *r, const char *key, uint64_t max, uint32_t *v,
                         struct apr_err *e)
{
    return apr_uint_from_gguf(r->d, r->kvs, key, 0, max, v, r->file, e);
}

static enum apr_code need(const struct reader *r, const char *key, uint64_t max, uint32_t *v,
                          struct apr_err *e)
{
    *v = 0;
    TRY(apr_uint_from_gguf(r->d, r->kvs, key, 1, max, v, r->file, e));
    if (*v == 0)
        return apr_fail(e, APR_EFORMAT, "%s: %s.%s: missing; expected an integer from 1 to %" PRIu64, r->file,
                        r->d->gguf_arch, key, max);
    return APR_OK;
}

static enum apr_code read_dims(const struct reader *r, struct apr_err *e)
{
    struct apr_config *c = r->c;
    TRY(need(r, "block_count", APR_MAX_LAYERS, &c->n_layers, e));
    TRY(need(r, "context_length", MAX_CTX, &c->n_ctx_train, e));
    TRY(need(r, "embedding_length", MAX_HIDDEN, &c->n_hidden, e));
    TRY(need(r, "feed_forward_length", MAX_INTER, &c->n_inter, e));
    TRY(need(r, "attention.head_count", MAX_HEADS, &c->n_heads, e));
    TRY(apr_uint_from_gguf(r->d, r->kvs, "attention.head_count_kv", 1, MAX_HEADS, &c->n_heads_kv, r->file,
                           e));
    if (c->n_vocab == 0) TRY(get(r, "vocab_size", MAX_VOCAB, &c->n_vocab, e));
    return APR_OK;
}

static enum apr_code read_eps(const struct reader *r, struct apr_err *e)
{
    const char *key =
        r->d->norm == APR_NORM_LAYER ? "attention.layer_norm_epsilon" : "attention.layer_norm_rms_epsilon";
    char name[128];
    if (!apr_kvs_find(r->kvs, apr_key_name(r->d->gguf_arch, key, name, sizeof name)))
        return apr_fail(e, APR_EFORMAT, "%s: %s: missing", r->file, name);
    return real(r, key, &r->c->norm_eps, e);
}

/* Ordinary heads; those of latent attention are read by read_mla. */
static enum apr_code read_heads(const struct reader *r, struct apr_err *e)
{
    struct apr_config *c = r->c;
    uint32_t n_value = 0;
    TRY(apr_uint_from_gguf(r->d, r->kvs, "attention.key_length", 1, MAX_HEAD_DIM, &c->head_dim, r->file, e));
    TRY(apr_uint_from_gguf(r->d, r->kvs, "attention.value_length", 1, MAX_HEAD_DIM, &n_value, r->file, e));
    c->head_dim_given = c->head_dim != 0;
    TRY(apr_decoder_derive(c, r->file, e));
    if (n_value != 0 && n_value != c->head_dim)
        return apr_fail(e, APR_ELOAD,
                        "%s: %s.attention.value_length: found %" PRIu32 ", expected the key length %" PRIu32,
                        r->file, r->d->gguf_arch, n_value, c->head_dim);
    return APR_OK;
}

/* Where key_length_mla is there, k_b and v_b are apart; older files have heads as checkpoints have them. */
static enum apr_code read_mla(const struct reader *r, struct apr_err *e)
{
    struct apr_config *c = r->c;
    struct apr_mla *mla = &c->mla;
    uint32_t n_key = 0;
    TRY(get(r, "attention.kv_lora_rank", MAX_RANK, &mla->kv_rank, e));
    if (mla->kv_rank == 0) return read_heads(r, e);
    TRY(get(r, "attention.q_lora_rank", MAX_RANK, &mla->q_rank, e));
    TRY(get(r, "attention.key_length_mla", MAX_HEAD_DIM, &n_key, e));
    mla->is_split = n_key != 0;
    if (mla->is_split) {
        TRY(need(r, "attention.value_length_mla", MAX_HEAD_DIM, &mla->n_value, e));
    } else {
        TRY(need(r, "attention.key_length", MAX_HEAD_DIM, &n_key, e));
        TRY(need(r, "attention.value_length", MAX_HEAD_DIM, &mla->n_value, e));
    }
    TRY(need(r, "rope.dimension_count", MAX_HEAD_DIM, &mla->n_rope, e));
    if (mla->n_rope >= n_key)
        return apr_fail(e, APR_EFORMAT,
                        "%s: %s.rope.dimension_count: found %" PRIu32 ", expected below %" PRIu32, r->file,
                        r->d->gguf_arch, mla->n_rope, n_key);
    mla->n_nope = n_key - mla->n_rope;
    c->head_dim = n_key;
    c->head_dim_given = true;
    c->n_heads_kv = c->n_heads;
    return apr_decoder_derive(c, r->file, e);
}

/* ---- rotary positions --------------------------------------------------------------------------------- */

static enum apr_code read_scaling(const struct reader *r, struct apr_err *e)
{
    struct apr_rope *rope = &r->c->rope;
    const char *type = "none";
    double relative = 0;
    char name[128];
    TRY(apr_kv_get_str(r->kvs, apr_key_name(r->d->gguf_arch, "rope.scaling.type", name, sizeof name), &type,
                       r->file, e));
    TRY(get(r, "rope.scaling.original_context_length", MAX_CTX, &rope->n_ctx_orig, e));
    if (rope->n_ctx_orig == 0 && (rope->scaling == APR_ROPE_LONG || strcmp(type, "none") != 0))
        rope->n_ctx_orig = r->c->n_ctx_train;
    TRY(real(r, "rope.scaling.factor", &rope->factor, e));
    TRY(real(r, "rope.scaling.attn_factor", &relative, e)); /* yarn: of what its formula gives */
    if (rope->scaling == APR_ROPE_LONG) {                   /* told by the tensors with its factors */
        rope->factor = (double)r->c->n_ctx_train / rope->n_ctx_orig;
        rope->attn_factor = relative;
    }
    if (strcmp(type, "none") == 0 || strcmp(type, "longrope") == 0) return APR_OK;
    if (strcmp(type, "linear") == 0) {
        rope->scaling = APR_ROPE_LINEAR;
        return APR_OK;
    }
    if (strcmp(type, "yarn") != 0)
        return apr_fail(e, APR_ELOAD, "%s: %s: rope scaling \"%.64s\" is not supported", r->file, name, type);
    rope->scaling = APR_ROPE_YARN;
    rope->truncate = true;
    rope->beta_fast = 32;
    rope->beta_slow = 1;
    TRY(real(r, "rope.scaling.yarn_attn_factor", &rope->attn_factor, e));
    if (relative > 0 && !(rope->attn_factor > 0) && rope->factor > 1)
        rope->attn_factor = relative * (0.1 * log(rope->factor) + 1);
    TRY(real(r, "rope.scaling.yarn_beta_fast", &rope->beta_fast, e));
    return real(r, "rope.scaling.yarn_beta_slow", &rope->beta_slow, e);
}

static enum apr_code read_rope(const struct reader *r, struct apr_err *e)
{
    struct apr_config *c = r->c;
    if (!(r->d->rope_theta > 0) && !c->mla.kv_rank) return APR_OK;
    c->rope.theta = 10000; /* llama.cpp's default */
    c->rope.n_dims = c->head_dim;
    TRY(real(r, "rope.freq_base", &c->rope.theta, e));
    TRY(apr_uint_from_gguf(r->d, r->kvs, "rope.dimension_count", 2, MAX_HEAD_DIM, &c->rope.n_dims, r->file,
                           e));
    if (c->rope.n_dims > c->head_dim)
        return apr_fail(e, APR_ELOAD,
                        "%s: %s.rope.dimension_count: found %" PRIu32
                        ", expected at most the head size %" PRIu32,
                        r->file, r->d->gguf_arch, c->rope.n_dims, c->head_dim);
    TRY(read_scaling(r, e));
    c->rope_theta = c->rope.theta;
    return apr_rope_check(&c->rope, r->file, e);
}

/* ---- experts ------------------------------------------------------------------------------------------ */

static enum apr_code read_moe_sizes(const struct reader *r, struct apr_err *e)
{
    struct apr_moe *m = &r->c->moe;
    uint32_t n_shared = 0;
    m->n_inter = r->c->n_inter;
    TRY(get(r, "expert_feed_forward_length", MAX_INTER, &m->n_inter, e));
    TRY(get(r, "expert_shared_feed_forward_length", MAX_INTER, &m->n_inter_shared, e));
    TRY(get(r, "expert_shared_count", MAX_EXPERTS, &n_shared, e));
    if (m->n_inter == 0 || n_shared > MAX_INTER / m->n_inter)
        return apr_fail(e, APR_EFORMAT, "%s: %s.expert_shared_count: found %" PRIu32 " of %" PRIu32, r->file,
                        r->d->gguf_arch, n_shared, m->n_inter);
    if (n_shared) m->n_inter_shared = n_shared * m->n_inter;
    return APR_OK;
}

static enum apr_code read_moe(const struct reader *r, struct apr_err *e)
{
    struct apr_moe *m = &r->c->moe;
    uint32_t n_dense = 0, gating = 1;
    char name[128];
    TRY(get(r, "expert_count", MAX_EXPERTS, &m->n_experts, e));
    if (m->n_experts == 0) {
        memset(m->dense, 0, sizeof m->dense);
        return APR_OK;
    }
    TRY(need(r, "expert_used_count", m->n_experts, &m->n_used, e));
    TRY(read_moe_sizes(r, e));
    m->scale = 1;
    TRY(real(r, "expert_weights_scale", &m->scale, e));
    if (m->scale == 0) m->scale = 1; /* llama.cpp: not scaled */
    if (!(m->scale > 0))
        return apr_fail(e, APR_EFORMAT, "%s: expert_weights_scale: found %g", r->file, m->scale);
    m->norm_topk = r->d->norm_topk;
    TRY(apr_kv_get_bool(r->kvs, apr_key_name(r->d->gguf_arch, "expert_weights_norm", name, sizeof name),
                        &m->norm_topk, r->file, e));
    TRY(get(r, "expert_gating_func", 2, &gating, e));
    m->sigmoid = gating == 2;
    TRY(get(r, "expert_group_count", m->n_experts, &m->n_groups, e));
    TRY(get(r, "expert_group_used_count", m->n_experts, &m->n_groups_used, e));
    if (m->n_groups <= 1) m->n_groups = m->n_groups_used = 0;
    if (m->n_groups &&
        (m->n_experts % m->n_groups || m->n_groups_used == 0 || m->n_groups_used > m->n_groups))
        return apr_fail(e, APR_EFORMAT, "%s: %s.expert_group_count: found %" PRIu32 " of %" PRIu32 " experts",
                        r->file, r->d->gguf_arch, m->n_groups, m->n_experts);
    m->shared_gate = r->d->shared_gate;
    TRY(get(r, "leading_dense_block_count", APR_MAX_LAYERS, &n_dense, e));
    for (uint32_t i = 0; i < n_dense && i < r->c->n_layers; i++) m->dense[i / 64] |= (uint64_t)1 << (i % 64);
    return APR_OK;
}

/* ---- windows ------------------------------------------------------------------------------------------ */

enum apr_code apr_window_from_gguf(const struct apr_decoder *d, const struct apr_kvs *kvs, uint32_t pattern,
                                   struct apr_config *c, const char *file, struct apr_err *e)
{
    char name[128];
    const struct apr_kv *list;
    if (!c->window) return APR_OK;
    list =
        apr_kvs_find(kvs, apr_key_name(d->gguf_arch, "attention.sliding_window_pattern", name, sizeof name));
    if (list && list->type != APR_KV_ARRAY)
        TRY(apr_uint_from_gguf(d, kvs, "attention.sliding_window_pattern", 0, APR_MAX_LAYERS, &pattern, file,
                               e));
    else if (list && (list->elem_type != APR_KV_BOOL || list->v.a.n != c->n_layers))
        return apr_fail(e, APR_EFORMAT, "%s: %s: expected a truth value for each of %" PRIu32 " layers", file,
                        name, c->n_layers);
    for (uint32_t i = 0; i < c->n_layers; i++) {
        const bool is_local = list && list->type == APR_KV_ARRAY ? ((const uint8_t *)list->v.a.items)[i] != 0
                                                                 : pattern == 0 || i % pattern < pattern - 1;
        if (is_local) c->local[i / 64] |= (uint64_t)1 << (i % 64);
    }
    return APR_OK;
}

static enum apr_code read_attention(const struct reader *r, struct apr_err *e)
{
    struct apr_config *c = r->c;
    TRY(get(r, "attention.sliding_window", MAX_CTX, &c->window, e));
    TRY(real(r, "attn_logit_softcapping", &c->attn_softcap, e));
    TRY(real(r, "final_logit_softcapping", &c->logit_softcap, e));
    TRY(real(r, "attention.scale", &c->attn_scale, e));
    if (!(c->attn_softcap >= 0 && c->logit_softcap >= 0 && c->attn_scale >= 0))
        return apr_fail(e, APR_EFORMAT, "%s: %s: a negative scale or soft cap", r->file, r->d->gguf_arch);
    return APR_OK;
}

/* ---- externals ---------------------------------------------------------------------------------------- */

/* What the tensors tell is kept: the number of tokens, a tied head, biases, the tables of longrope, dense
 * layers. */
static void start(const struct apr_decoder *d, struct apr_config *c)
{
    struct apr_config told = *c;
    memset(c, 0, sizeof *c);
    c->n_vocab = told.n_vocab;
    c->tied = told.tied;
    c->form = APR_FORM_GGUF;
    c->qkv_bias = d->qkv_bias_key ? told.qkv_bias : d->qkv_bias;
    c->o_bias = d->o_bias_key ? told.o_bias : d->o_bias;
    c->mlp_bias = d->mlp_bias_key ? told.mlp_bias : d->mlp_bias;
    c->head_bias = d->head_bias;
    c->rope.scaling = told.rope.scaling;
    memcpy(c->moe.dense, told.moe.dense, sizeof c->moe.dense);
    c->norm = d->norm;
    c->activation = d->activation;
    c->is_gated = d->is_gated;
    c->is_parallel = d->is_parallel;
    c->rope_pairs = d->gguf_pairs;
}

enum apr_code apr_decoder_from_gguf(const struct apr_decoder *d, const struct apr_kvs *kvs,
                                    struct apr_config *c, const char *file, struct apr_err *e)
{
    const struct reader r = {.d = d, .kvs = kvs, .c = c, .file = file};
    start(d, c);
    TRY(read_dims(&r, e));
    TRY(read_eps(&r, e));
    TRY(read_mla(&r, e));
    TRY(read_rope(&r, e));
    TRY(read_moe(&r, e));
    return read_attention(&r, e);
}
