/* The general forward pass: any decoder that the description (gpu.h) can tell, in the order of the CPU's
 * (tools/apr-infer/forward.c). Activations are F32 between the matrices; what is dense RMSNorm and SwiGLU
 * takes the fused ways of one.cu, batch.cu and chunk.cu instead, this one takes all else, and its reference
 * mode too.
 *
 *   general.cu          the pass: what is computed in which order
 *   general_product.cu  matrices times rows: chooses the kernel; stacks of matrices (experts, latent heads)
 *   general_attn.cu     rotation, the cache, attention with windows and caps, latent attention
 *   general_elem.cu     norms, activations, residuals, routers
 */
#ifndef APR_GENERAL_CUH
#define APR_GENERAL_CUH

#include "few.cuh"

/* What the description says besides struct heads; buffers for as many rows as a step has. */
struct general {
    uint32_t activation;
    bool is_parallel;
    float residual_scale, attn_softcap, logit_softcap, logit_scale;
    uint32_t k_dim, v_dim;                     /* of a head in the cache */
    uint32_t kv_rank, n_nope, n_rope, n_value; /* latent attention */
    uint32_t n_experts, n_used, n_inter_expert, n_inter_shared, n_groups, n_groups_used;
    bool router_sigmoid, norm_topk;
    float expert_scale;

    float *h, *y;                 /* [rows, n_hidden] normed input of a block; what it adds */
    float *att;                   /* [rows, n_heads * v] */
    float *mid, *gate;            /* [rows, n_inter] */
    float *q_a, *kv_a;            /* latent: [rows, q_rank], [rows, kv_rank + n_rope] */
    float *q_cache;               /* [rows, n_heads, k_dim] queries against the cache */
    float *latent;                /* [rows, n_heads, kv_rank] */
    float *scores;                /* [rows, n_experts] */
    uint32_t *expert;             /* [rows, n_used] */
    float *weight;                /* the same shape */
    int32_t *order;               /* items by expert: see struct items */
    float *shared_w;              /* [rows] */
    float *e_up, *e_gate, *e_out; /* [rows, n_used, ...] */
    __half *x16;                  /* [rows, widest input] or the order of fragments */
    float *inv;                   /* [rows] what rows of x16 are to be multiplied with */
};

/* ---- general_product.cu ---- */
struct items { /* products of a stack: item i is its matrix which[i], or i % n where that is NULL */
    const uint32_t *which;
    const int32_t *order; /* [n_slots] items, those of GROUP slots of one matrix, -1: none; or NULL */
    uint32_t n_slots;
    uint32_t n, n_each; /* n_each items in a row share an input */
    const float *x;
    uint32_t x_stride;
    float *y;
    uint32_t y_stride;
};
struct apr_gpu_model;
/* One row through several matrices in few launches: y has their rows one behind the other. False: their types
 * have no such kernel, or it is not the mode for it. */
bool product_fuses(const struct apr_gpu_model *m, const struct mat *const *w, int n_mats, uint32_t n);
enum apr_gpu_status product_fused(struct apr_gpu_model *m, const struct mat *const *w, int n_mats,
                                  const float *x, float *y, const char *what, struct apr_gpu_err *e);
/* y = w x + bias for n rows; rows of x are w->n_cols apart, those of y y_stride. */
enum apr_gpu_status product(struct apr_gpu_model *m, const struct mat *w, const float *x, uint32_t n,
                            float *y, uint32_t y_stride, const char *what, struct apr_gpu_err *e);
enum apr_gpu_status stack_product(struct apr_gpu_model *m, const struct stack *s, const struct items *it,
                                  const char *what, struct apr_gpu_err *e);

/* ---- general_attn.cu ---- */
#define ANY_DIM_MOST 640u /* values of a head in the cache */
struct any_heads {
    uint32_t n_heads, n_heads_kv, k_dim, v_dim, pad; /* pad: of a row of the cache */
    float scale, softcap, eps;
    bool pairs, f32, v_in_k;
    uint32_t window, n_half;        /* n_half: pairs that turn */
    const float2 *rope, *rope_long; /* [n_ctx, n_half]; of long sequences, or NULL */
    const float *q_norm, *k_norm;
};
/* qkv: [n, q | k | v]; q is normed and turned in place, k and v go to the cache. */
void any_store(const struct any_heads *h, const struct kv *kv, const struct step *rows, uint32_t n,
               float *qkv, cudaStream_t s);
struct latent_store {
    const float *kv_a_norm;
    const float *q; /* [n, n_heads, n_nope + n_rope] */
    float *kv_a;    /* [n, kv_rank + n_rope] */
    float *q_cache; /* [n, n_heads, kv_rank + n_rope]: the turned tail is put there */
    uint32_t kv_rank, n_nope, n_rope;
};
void latent_store_rows(const struct any_heads *h, const struct kv *kv, const struct step *rows, uint32_t n,
                       const struct latent_store *l, cudaStream_t s);
/* q: rows of q_stride, n_heads * k_dim used; out: [n, n_heads * v_dim]. */
enum apr_gpu_status any_attend(const struct any_heads *h, const struct kv *kv, const struct step *rows,
                               uint32_t n, const float *q, uint32_t q_stride, float *out, cudaStream_t s,
                               struct apr_gpu_err *e);

/* ---- general_elem.cu ---- */
enum apr_gpu_status norm_rows(const struct apr_gpu_device *d, const float *x, const float *w, const float *b,
                              float eps, uint32_t n, uint32_t n_cols, float *y, cudaStream_t s,
                              struct apr_gpu_err *e); /* b: LayerNorm */
/* x += scale * (y, or with post rmsnorm(y) * post); then, with w, h = norm(x). */
struct residual {
    float *x;
    const float *y, *post;
    float scale, eps;
    const float *w, *b; /* of the norm that follows; b: LayerNorm */
    float *h;
};
enum apr_gpu_status residual_rows(const struct apr_gpu_device *d, const struct residual *r, uint32_t n,
                                  uint32_t n_cols, cudaStream_t s, struct apr_gpu_err *e);
/* up = act(gate) * up, or act(up) where gate is NULL; activation: an enum apr_activation */
enum apr_gpu_status activate(const struct apr_gpu_device *d, uint32_t activation, float *up,
                             const float *gate, uint64_t n, cudaStream_t s, struct apr_gpu_err *e);
void add_positions(const struct mat *positions, const struct step *rows, uint32_t n, float *x,
                   cudaStream_t s);
void finish_logits(float *logits, uint64_t n, float scale, float softcap, cudaStream_t s);
void widen_rows(const __half *x, uint64_t n, float *y, cudaStream_t s);
/* Scores become the chosen experts and their weights. */
void choose_experts(const struct general *g, const float *bias, uint32_t n, cudaStream_t s);
/* Items of one expert side by side, from n * n_used >= GROUP_FROM items on. */
#define GROUP      8u
#define GROUP_FROM 64u
uint32_t group_slots(const struct general *g, uint32_t n_items); /* at most */
void group_experts(const struct general *g, uint32_t n_items, cudaStream_t s);
/* y = sum of weight * e_out */
void combine_experts(const struct general *g, uint32_t n, uint32_t n_cols, float *y, cudaStream_t s);
/* y += sigmoid(w) * x, or x where w is NULL */
void add_shared(float *y, const float *x, const float *w, uint32_t n, uint32_t n_cols, cudaStream_t s);

#endif
