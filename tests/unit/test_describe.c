/* What a GPU plugin is told of a model: the description, computed as it stands, gives the logits of the CPU's
 * reference mode for every decoder family; and each of its parts that a model has matters. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "../../tools/apr-infer/describe.h"
#include "family/table.h"
#include "ref_describe.h"
#include "toy.h"

#define N_TOKS 29u

#define SIZES                                                                                                \
    "'hidden_size': 64, 'num_hidden_layers': 3, 'num_attention_heads': 4, 'intermediate_size': 96, "         \
    "'vocab_size': 90, 'max_position_embeddings': 64, "
static const struct {
    const char *family, *config;
} models[] = {
    {"qwen2", "{" SIZES "'num_key_value_heads': 2}"},
    {"qwen3", "{" SIZES "'num_key_value_heads': 2, 'head_dim': 32}"},
    {"llama", "{" SIZES "'num_key_value_heads': 2, 'rope_scaling': {'rope_type': 'llama3', 'factor': 8.0, "
              "'low_freq_factor': 1.0, 'high_freq_factor': 4.0, 'original_max_position_embeddings': 16}}"},
    {"mistral", "{" SIZES "'num_key_value_heads': 2, 'sliding_window': 7}"},
    {"mixtral", "{" SIZES "'num_key_value_heads': 2, 'num_local_experts': 4, 'num_experts_per_tok': 2}"},
    {"qwen2_moe", "{" SIZES "'num_key_value_heads': 4, 'num_experts': 6, 'num_experts_per_tok': 2, "
                  "'moe_intermediate_size': 32, 'shared_expert_intermediate_size': 64, "
                  "'mlp_only_layers': [1]}"},
    {"qwen3_moe", "{" SIZES "'num_key_value_heads': 4, 'num_experts': 6, 'num_experts_per_tok': 2, "
                  "'moe_intermediate_size': 32, 'norm_topk_prob': true}"},
    {"gemma", "{" SIZES "'num_key_value_heads': 1, 'head_dim': 32}"},
    {"gemma2", "{" SIZES "'num_key_value_heads': 2, 'head_dim': 32, 'sliding_window': 7, "
               "'query_pre_attn_scalar': 20, 'attn_logit_softcapping': 2.0, "
               "'final_logit_softcapping': 3.0}"},
    {"gemma3", "{" SIZES "'num_key_value_heads': 2, 'head_dim': 32, 'sliding_window': 7, "
               "'sliding_window_pattern': 2, 'query_pre_attn_scalar': 20}"},
    {"phi", "{" SIZES "'num_key_value_heads': 4, 'partial_rotary_factor': 0.5}"},
    {"phi3", "{" SIZES "'num_key_value_heads': 2, 'sliding_window': 9}"},
    {"phi3", "{" SIZES "'num_key_value_heads': 2, 'original_max_position_embeddings': 16, 'rope_scaling': "
             "{'type': 'longrope', 'short_factor': [1, 1.1, 1.2, 1.3, 1.4, 1.5, 1.6, 1.7], 'long_factor': "
             "[1, 2, 3, 4, 5, 6, 7, 8]}}"},
    {"gpt2", "{'n_embd': 64, 'n_layer': 3, 'n_head': 4, 'vocab_size': 90, 'n_positions': 64}"},
    {"granite", "{" SIZES "'num_key_value_heads': 2, 'embedding_multiplier': 3.0, "
                "'residual_multiplier': 0.5, 'attention_multiplier': 0.2, 'logits_scaling': 1.7}"},
    {"starcoder2", "{" SIZES "'num_key_value_heads': 2, 'sliding_window': 7}"},
    {"stablelm", "{" SIZES "'num_key_value_heads': 2, 'use_qkv_bias': true}"},
    {"deepseek_moe", "{" SIZES "'num_key_value_heads': 4, 'n_routed_experts': 6, 'num_experts_per_tok': 2, "
                     "'moe_intermediate_size': 32, 'n_shared_experts': 2, 'first_k_dense_replace': 1}"},
    {"deepseek2", "{" SIZES "'num_key_value_heads': 4, 'n_routed_experts': 8, 'num_experts_per_tok': 3, "
                  "'moe_intermediate_size': 32, 'n_shared_experts': 1, 'first_k_dense_replace': 1, "
                  "'n_group': 4, 'topk_group': 2, 'topk_method': 'group_limited_greedy', "
                  "'routed_scaling_factor': 2.0, 'q_lora_rank': 32, 'kv_lora_rank': 32, "
                  "'qk_nope_head_dim': 16, 'qk_rope_head_dim': 8, 'v_head_dim': 12}"},
    {"deepseek2", "{" SIZES "'num_key_value_heads': 4, 'kv_lora_rank': 32, 'q_lora_rank': null, "
                  "'qk_nope_head_dim': 16, 'qk_rope_head_dim': 8, 'v_head_dim': 12, "
                  "'n_routed_experts': 4, 'num_experts_per_tok': 2, 'moe_intermediate_size': 32, "
                  "'n_shared_experts': 1, 'first_k_dense_replace': 2, 'topk_method': 'greedy'}"},
};
#define N_MODELS (sizeof models / sizeof *models)

static int32_t ids[N_TOKS];

static enum apr_code take(void *ctx, size_t i_tok, size_t n_rows, const float *rows, struct apr_err *e)
{
    (void)e;
    memcpy((float *)ctx + i_tok * 90, rows, n_rows * 90 * sizeof *rows);
    return APR_OK;
}

/* The reference mode's logits; f stays open. */
static void compute(struct apr_model *m, struct apr_forward *f, struct apr_pool *pool, float *out)
{
    struct apr_blocks blocks;
    struct apr_cache cache;
    struct apr_err e = {0};
    const struct apr_kern *kern;
    struct apr_checked_model checked = {.model = m};
    assert_int_equal(apr_kern_pick(&kern, &e), APR_OK);
    if (apr_forward_open(f, &checked, kern, pool, true, 16, &e) != APR_OK) fail_msg("%s", e.text);
    assert_int_equal(apr_blocks_init(&blocks, &m->config, apr_cache_plain(true), N_TOKS, &e), APR_OK);
    assert_int_equal(apr_cache_init(&cache, &blocks, N_TOKS, &e), APR_OK);
    assert_int_equal(apr_forward_all_logits(f, &cache, ids, N_TOKS, take, out, &e), APR_OK);
    apr_cache_free(&cache);
    apr_blocks_free(&blocks);
}

/* Largest difference over the rms of x. */
static double far(const float *x, const double *y)
{
    double sum = 0, off = 0;
    for (size_t i = 0; i < N_TOKS * 90; i++) {
        sum += (double)x[i] * (double)x[i];
        off = fmax(off, fabs((double)x[i] - y[i]));
    }
    return off / sqrt(sum / (N_TOKS * 90));
}

static double far_of(const struct apr_gpu_desc *d, const float *x)
{
    double *y = ref_describe(d, ids, N_TOKS, d->ropes[0].long_inv_freq != NULL), off = far(x, y);
    free(y);
    return off;
}

/* Everything that a plugin could forget: what a model has, and its description then has not. */
static size_t forget_each(const struct apr_gpu_desc *d, const float *x, const char *family)
{
    struct apr_gpu_layer layers[3];
    struct apr_gpu_desc less = *d;
    struct apr_gpu_layer *l = &layers[2];
    static const float ones[256] = {[0 ... 255] = 1};
    size_t n = 0;
    less.layers = layers;
    memcpy(layers, d->layers, sizeof layers);
#define FORGET(has, member, value)                                                                           \
    if (has) {                                                                                               \
        const double off = (less.member = (value), far_of(&less, x));                                        \
        if (!(off > 1e-3)) fail_msg("%s: without " #member " the same logits (%.1e)", family, off);          \
        less.member = d->member, n++;                                                                        \
    }
#define FORGET_IN_LAYER(has, member, value)                                                                  \
    if (has) {                                                                                               \
        const double off = (l->member = (value), far_of(&less, x));                                          \
        if (!(off > 1e-3)) fail_msg("%s: without " #member " the same logits (%.1e)", family, off);          \
        l->member = d->layers[2].member, n++;                                                                \
    }
    FORGET(d->attn_softcap > 0, attn_softcap, 0)
    FORGET(d->logit_softcap > 0, logit_softcap, 0)
    FORGET(d->logit_scale != 1, logit_scale, 1)
    FORGET(d->residual_scale != 1, residual_scale, 1)
    FORGET(d->embed_scale != 1, embed_scale, 1)
    FORGET(d->positions.data, positions.data, NULL)
    FORGET(d->ropes[0].n_half, ropes[0].n_half, 0)
    FORGET(d->ropes[1].n_half, ropes[1].n_half, 0)
    FORGET(d->ropes[0].long_inv_freq, ropes[0].long_inv_freq, NULL)
    FORGET(d->activation != APR_SILU, activation, APR_SILU)
    FORGET(d->expert_scale != 1, expert_scale, 1)
    FORGET(d->norm_topk, norm_topk, false)
    FORGET(d->n_groups > 1, n_groups, 1)
    FORGET(d->final_norm.b, final_norm.b, NULL)
    FORGET_IN_LAYER(l->window, window, 0)
    FORGET_IN_LAYER(l->q.bias, q.bias, NULL)
    FORGET_IN_LAYER(l->v.bias, v.bias, NULL)
    FORGET_IN_LAYER(l->o.bias, o.bias, NULL)
    FORGET_IN_LAYER(l->up.bias, up.bias, NULL)
    FORGET_IN_LAYER(l->gate.bias, gate.bias, NULL)
    FORGET_IN_LAYER(l->down.bias, down.bias, NULL)
    FORGET_IN_LAYER(l->attn_norm.b, attn_norm.b, NULL)
    FORGET_IN_LAYER(l->q_norm, q_norm, ones)
    FORGET_IN_LAYER(l->post_attn_norm, post_attn_norm, NULL)
    FORGET_IN_LAYER(l->post_ffn_norm, post_ffn_norm, NULL)
    FORGET_IN_LAYER(l->experts.shared_up.data, experts.shared_up.data, NULL)
    FORGET_IN_LAYER(l->experts.shared_weight.data, experts.shared_weight.data, NULL)
    return n;
}

static void one_model(const char *family, const char *config)
{
    struct apr_model *m = toy_model(family, config, APR_F32);
    struct apr_pool *pool = apr_pool_open(2);
    struct apr_forward f;
    struct apr_arena arena;
    struct apr_gpu_desc d;
    struct apr_err e = {0};
    float *x = malloc(N_TOKS * 90 * sizeof *x);
    assert_non_null(x);
    apr_arena_init(&arena);
    compute(m, &f, pool, x);
    assert_int_equal(apr_describe(&f, m, &arena, &d, &e), APR_OK);
    double off = far_of(&d, x);
    size_t n_parts = forget_each(&d, x, family);
    print_message("  %-12s %.1e of rms, %zu parts matter\n", family, off, n_parts);
    if (!(off <= 1e-4)) fail_msg("%s: %.2e of the logits' rms", family, off);
    free(x);
    apr_arena_free(&arena);
    apr_forward_close(&f);
    apr_pool_close(pool);
    apr_model_close(m);
}

static void the_description_is_the_model(void **state)
{
    (void)state;
    for (uint32_t i = 0; i < N_TOKS; i++) ids[i] = (int32_t)(i * 37 % 90);
    for (size_t i = 0; i < N_MODELS; i++) one_model(models[i].family, models[i].config);
}

/* A family added to the table is added here, too. */
static void every_decoder_is_here(void **state)
{
    (void)state;
    for (size_t i = 0; apr_family_at(i); i++) {
        const struct apr_family *f = apr_family_at(i);
        bool found = !f->decoder;
        for (size_t k = 0; k < N_MODELS; k++) found |= !strcmp(models[k].family, f->name);
        if (!found) fail_msg("no model of family %s", f->name);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_decoder_is_here),
        cmocka_unit_test(the_description_is_the_model),
    };
    return cmocka_run_group_tests_name("describe", tests, NULL, NULL);
}
