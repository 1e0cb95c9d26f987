/* The contract: rules by id, and the only type that the engine accepts.
 *
 * apr_contract_structure checks family, names, shapes and sizes without reading data
 * (F-LAYOUT-CONTRACT-001..004, ALG-001..009). apr_contract_tensor judges one tensor's statistics
 * (F-DATA-QUALITY-001..004). A violation carries rule id, tensor, found and expected.
 */
#ifndef APR_CONTRACT_H
#define APR_CONTRACT_H

#include "kern/kern.h"
#include "model.h"
#include "pool.h"

struct apr_violation {
    const char *rule;   /* "F-DATA-QUALITY-002" */
    const char *tensor; /* or NULL */
    const char *text;   /* "3 NaN of 1048576 values; expected none" */
    bool unsafe; /* computing with it would read or write out of bounds: refused even with --skip-contract */
};

struct apr_verdict {
    struct apr_arena *arena; /* borrowed */
    struct apr_violation *at;
    size_t n, cap;
    uint64_t n_dropped; /* found beyond the number that is kept */
    uint64_t n_unsafe;
    uint64_t n_tensors_checked; /* whose data was judged */
    uint64_t n_tensors_failed;
};

/* Every rule id that a verdict may carry, for explain and for summaries. */
struct apr_rule {
    const char *id;      /* "F-DATA-QUALITY-002" */
    const char *meaning; /* "no NaN and no infinite value" */
};
const struct apr_rule *apr_contract_rule_at(size_t i); /* NULL past the end */
void apr_verdict_init(struct apr_verdict *v, struct apr_arena *arena);
void apr_verdict_add(struct apr_verdict *v, const char *rule, const char *tensor, bool unsafe,
                     const char *format, ...) APR_PRINTF(5, 6);
/* APR_ECONTRACT with "N violations in M tensors: RULE tensor: text; ..." (the first three), else APR_OK. */
APR_MUST_USE enum apr_code apr_verdict_error(const struct apr_verdict *v, const char *file,
                                             struct apr_err *e);

void apr_contract_structure(const struct apr_model *m, struct apr_verdict *v);
void apr_contract_tensor(const struct apr_model *m, const struct apr_tensor *t, const struct apr_stats *s,
                         struct apr_verdict *v);
/* What is known of a tensor's values without widening them (contract_bounds.h). */
struct apr_bounds {
    uint64_t n, n_zero_most;      /* values; at most so many of them are below 1e-10 */
    double abs_most;              /* no magnitude is larger; infinity: some value may not be finite */
    double l2_least, range_least; /* of all values: no less */
};
/* true: every rule of apr_contract_tensor surely holds. */
bool apr_contract_surely(const struct apr_tensor *t, const struct apr_bounds *b);
/* Rows at 10, 50 and 90 % of the embedding: row is one row as f32. (F-DATA-QUALITY-004) */
void apr_contract_embed_row(const struct apr_tensor *t, uint64_t i_row, const float *row, size_t n,
                            struct apr_verdict *v);
/* Statistics of a mapped tensor, on the pool; the same numbers for any thread count. */
APR_MUST_USE enum apr_code apr_contract_stats(const struct apr_model *m, const struct apr_tensor *t,
                                              const struct apr_kern *k, struct apr_pool *pool,
                                              struct apr_stats *s, struct apr_err *e);
/* Statistics of one mapped tensor, and its verdict; a tensor whose structure is unsafe is left out (s->n =
 * 0). */
APR_MUST_USE enum apr_code apr_contract_scan_tensor(const struct apr_model *m, const struct apr_tensor *t,
                                                    const struct apr_kern *k, struct apr_pool *pool,
                                                    struct apr_stats *s, struct apr_verdict *v,
                                                    struct apr_err *e);
/* Every tensor, the structure having been judged into v. */
APR_MUST_USE enum apr_code apr_contract_scan_data(const struct apr_model *m, const struct apr_kern *k,
                                                  struct apr_pool *pool, struct apr_verdict *v,
                                                  struct apr_err *e);
/* Structure, then every tensor of a mapped model. */
APR_MUST_USE enum apr_code apr_contract_scan(const struct apr_model *m, const struct apr_kern *k,
                                             struct apr_pool *pool, struct apr_verdict *v, struct apr_err *e);

/* Made only by apr_contract_check (contract.c). */
struct apr_checked_model {
    struct apr_model *model; /* mapped; owned by the caller of apr_load_model */
    bool skipped;            /* --skip-contract: structure was still checked as far as memory safety needs */
    bool stamped;            /* the data scan was vouched for by a stamp in APR_HOME */
    double scan_s;           /* seconds spent on the data scan */
};
/* Full gate. Shapes that would make the engine read out of bounds are refused even with skip. */
APR_MUST_USE enum apr_code apr_contract_check(struct apr_model *m, const struct apr_kern *k,
                                              struct apr_pool *pool, bool skip, struct apr_checked_model *out,
                                              struct apr_err *e);

/* The YAMLs as tables (contract_tables.c), for oracle and for naming a size. */
struct apr_contract_tensor {
    const char *role; /* "q_proj" */
    const char
        *hf; /* "model.layers.{n}.self_attn.q_proj.weight"; {n} = layer, {e} = expert: one tensor, stacked */
    const char *gguf;   /* "blk.{n}.attn_q.weight", or "" */
    const char *shape;  /* "q_dim,hidden_dim", outermost first */
    const char *sizes;  /* "2.7b": only these sizes have it; "" = all */
    const char *layers; /* "dense", "moe": only layers of that kind; "" = all */
    bool critical, unless_tied;
};
struct apr_contract_size {
    const char *family, *size, *parameters; /* "qwen2", "7b", "7B" */
    uint64_t hidden_dim, num_layers, num_heads, num_kv_heads, intermediate_dim, vocab_size, head_dim,
        max_position_embeddings;
    double rope_theta, norm_eps;                                 /* rope_theta 0: no rotary positions */
    uint64_t n_mels, max_source_positions, max_target_positions; /* 0 outside whisper */
    /* Mixture of experts: 0 without. shared_expert_dim: all shared ones together; the first n_dense_layers
     * have no experts. */
    uint64_t n_experts, n_experts_used, expert_dim, shared_expert_dim, n_dense_layers;
    /* Latent attention: 0 without. head_dim = qk_nope_dim + qk_rope_dim. */
    uint64_t kv_lora_rank, q_lora_rank, qk_nope_dim, qk_rope_dim, v_head_dim;
    uint64_t sliding_window; /* 0 = none */
    const char *category;    /* tiny small medium large xlarge */
    const char *attention, *activation, *norm, *mlp;
    bool has_bias, tied_embeddings;
};
struct apr_contract_family {
    const char *name, *display_name, *vendor, *hf_pattern;
    const char *architectures;                                  /* comma-separated */
    const char *attention, *activation, *norm, *mlp, *position; /* constraints */
    bool has_bias, tied_embeddings;
    const char *chat_format, *bos_token, *eos_token;
    const char *special_tokens; /* "im_start=<|im_start|> im_end=..." */
    const char *quantizations;  /* comma-separated */
    const struct apr_contract_size *sizes;
    size_t n_sizes;
    const struct apr_contract_tensor *tensors;
    size_t n_tensors;
    bool extension; /* not among the eight families that the specification counts */
};
const struct apr_contract_family *apr_contract_family_at(size_t i);
const struct apr_contract_family *apr_contract_family_named(const char *name);
const struct apr_contract_size *apr_contract_size_named(const struct apr_contract_family *f,
                                                        const char *size);
/* Does this size have the tensor, and how many dimensions of what size (shape evaluated)? */
bool apr_contract_has(const struct apr_contract_size *z, const struct apr_contract_tensor *t);
size_t apr_contract_shape(const struct apr_contract_size *z, const struct apr_contract_tensor *t,
                          uint64_t dims[4]);
/* How many tensors of this row a model of this size has: one, or one for each of its layers. */
uint64_t apr_contract_n_of(const struct apr_contract_size *z, const struct apr_contract_tensor *t);
/* Tensors of a complete model, a tied head not counted: 339 for qwen2/7b. */
uint64_t apr_contract_n_tensors(const struct apr_contract_family *f, const struct apr_contract_size *z);
/* The size whose numbers equal the config, or NULL. */
const struct apr_contract_size *apr_contract_size_of(const char *family, const struct apr_config *c);
/* Of the eight families that the specification counts (297 for 24 sizes), and of all. */
unsigned apr_contract_n_proofs_first(void);
unsigned apr_contract_n_proofs(void);

#endif
