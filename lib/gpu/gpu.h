/* What the GPU plugin offers: one C struct of functions behind dlopen, no CUDA type in sight.
 *
 * The plugin (apr-cuda.so) exports one symbol, apr_gpu_plugin, which returns a const struct apr_gpu. All
 * handles are opaque and owned by the plugin until the matching close. Every function returns a status; on
 * failure the message (one line, no newline) is in the caller's struct apr_gpu_err. Nothing in the plugin
 * prints or exits. Pointers of a description are read during model_open only.
 *
 *     const struct apr_gpu *g; TRY(apr_gpu_load(&g, e));
 *     g->device_open(0, &dev, &ge); g->model_open(dev, &desc, &opts, &model, &ge);
 *     g->seq_open(model, n_ctx, &seq, &ge); g->forward(model, seq, ids, n, logits, &ge);
 */
#ifndef APR_GPU_H
#define APR_GPU_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define APR_GPU_ABI 7u

enum apr_gpu_status {
    APR_GPU_OK = 0,
    APR_GPU_NONE,        /* no device, or none with this number */
    APR_GPU_UNSUPPORTED, /* the model has a part that the plugin cannot compute: named in the message */
    APR_GPU_MEMORY,      /* not enough device memory: needed and free in the message */
    APR_GPU_FAILED,      /* a call was wrong or failed; the device answers */
    APR_GPU_NOT_FINITE,  /* NaN or infinity in logits */
    APR_GPU_FULL,        /* the sequence is at its last position */
    APR_GPU_LOST,        /* the device does not answer, or fails every call since an error */
};

struct apr_gpu_err {
    char text[240];
};

/* Rows of blocks as in the file (GGML's layouts, quant/blocks.h); type is an enum apr_type. */
struct apr_gpu_mat {
    const void *data; /* NULL: absent */
    uint64_t row_bytes;
    uint32_t type, n_rows, n_cols;
    const float *bias;     /* [n_rows] or NULL */
    uint64_t stride_bytes; /* from row to row; 0: row_bytes (columns of a wider matrix: shard.h) */
};

struct apr_gpu_norm { /* RMSNorm, or with b LayerNorm */
    const float *w, *b;
};

/* The first 2 n_half values of a head turn; n_half 0: nothing does. */
struct apr_gpu_rope {
    const double *inv_freq;      /* [n_half] */
    const double *long_inv_freq; /* the same of sequences that are said to be long (seq_turn), or NULL */
    uint32_t n_half;
    float scale; /* multiplies cos and sin */
};

/* Latent attention, keys and values absorbed (DeepSeek-V2, 2.1). Without q_a the layer's q takes the hidden
 * state; the layer's k and v are absent. */
struct apr_gpu_latent {
    struct apr_gpu_mat q_a;              /* [q_rank, n_hidden]; absent: none */
    struct apr_gpu_mat kv_a;             /* [kv_rank + n_rope, n_hidden]; absent: ordinary attention */
    const float *q_a_norm, *kv_a_norm;   /* [q_rank], [kv_rank] */
    const struct apr_gpu_mat *k_b, *v_b; /* [n_heads] of [kv_rank, n_nope] and [n_value, kv_rank] */
};

/* Mixture of experts; without a router the layer is dense. */
struct apr_gpu_experts {
    struct apr_gpu_mat router;                              /* [n_experts, n_hidden], computed in F32 */
    const float *router_bias;                               /* [n_experts] for the choice alone, or NULL */
    const struct apr_gpu_mat *gate, *up, *down;             /* [n_experts]; gate NULL: none */
    struct apr_gpu_mat shared_up, shared_gate, shared_down; /* the shared expert; up absent: none */
    struct apr_gpu_mat shared_weight; /* [1, n_hidden]: its weight is sigmoid of this; absent: 1 */
};

struct apr_gpu_layer {
    struct apr_gpu_mat q, k, v, o;
    struct apr_gpu_mat gate, up, down;           /* gate absent: down(act(up x)) */
    struct apr_gpu_norm attn_norm, ffn_norm;     /* [n_hidden]; ffn_norm absent in parallel blocks */
    const float *post_attn_norm, *post_ffn_norm; /* [n_hidden] of what a block adds, or NULL */
    const float *q_norm, *k_norm;                /* [head_dim] or NULL */
    uint32_t window;                             /* positions seen, its own among them; 0: all */
    uint32_t i_rope;                             /* of the description's rotations */
    struct apr_gpu_latent latent;
    struct apr_gpu_experts experts;
};

struct apr_gpu_desc {
    uint32_t struct_bytes;
    uint32_t n_layers, n_hidden, n_heads, n_heads_kv, head_dim, n_inter, n_vocab;
    double norm_eps;
    uint32_t activation;               /* an enum apr_activation */
    bool is_parallel;                  /* attention and feed-forward read the same norm */
    float embed_scale;                 /* 1: none */
    float residual_scale;              /* of what a block adds; 1: none */
    float attn_scale;                  /* of q k */
    float attn_softcap, logit_softcap; /* c tanh(x / c); 0: none */
    float logit_scale;                 /* 1: none */
    bool rope_pairs;                   /* rotate (2i, 2i + 1) and not (i, i + n_half) */
    struct apr_gpu_rope ropes[2];
    struct apr_gpu_mat embed, head; /* the same data when tied */
    struct apr_gpu_mat positions;   /* [., n_hidden] learned, added to the embedding; or absent */
    struct apr_gpu_norm final_norm;
    const struct apr_gpu_layer *layers;

    uint32_t kv_rank, n_nope, n_rope, n_value; /* latent attention: head_dim = n_nope + n_rope */
    uint32_t n_experts, n_used;                /* most of any layer; 0: none */
    uint32_t n_inter_expert, n_inter_shared;
    uint32_t n_groups, n_groups_used; /* group-limited choice; 0 or 1: none */
    bool router_sigmoid, norm_topk;   /* scores by sigmoid, not softmax; weights made to sum to 1 */
    float expert_scale;               /* of the weights */
};

struct apr_gpu_opts {
    bool exact;       /* reference mode: F32 activations and cache, no tensor cores */
    bool resident;    /* keep an F16 copy of the weights for prompts */
    uint32_t n_ctx;   /* positions of all sequences together */
    uint32_t n_chunk; /* most tokens of a prompt computed at once */
    double timeout_s; /* a step that takes longer is APR_GPU_LOST; 0: 60 */
};

struct apr_gpu_plan { /* bytes */
    uint64_t weights, resident, cache, work, total, free;
};

struct apr_gpu_device;
struct apr_gpu_model;
struct apr_gpu_seq;

struct apr_gpu_part { /* tokens appended to one sequence */
    struct apr_gpu_seq *seq;
    const int32_t *ids;
    uint32_t n;
};
/* A launch of a step, or several between two marks, of which the first is described. */
struct apr_gpu_time {
    const char *what; /* static: its part of the step */
    double s;         /* by itself: launches do not overlap */
    const char *file; /* static: where it is launched */
    uint32_t line, n_kernels;
    int32_t layer;   /* -1: none */
    char kernel[96]; /* the function; "" where the driver does not say */
    uint32_t grid[3], block[3], smem_bytes, n_regs, local_bytes;
    double occupancy; /* warps resident at once, of those that a multiprocessor holds */
    uint64_t n_bytes; /* weights and cache that it must read */
};
#define APR_GPU_ROWS    64u /* most sequences of greedy_rows */
#define APR_GPU_DEVICES 16u /* most devices of one model */

/* Sampling as tools/apr-infer/sampler defines it: the top_k largest logits, equal ones by id, then steps over
 * what the step before has left, then a draw in double. The same logits and bits give the same token. */
#define APR_GPU_TOP_K 512u /* most of top_k */
#define APR_GPU_PICKS 12u  /* most steps */
enum apr_gpu_pick_kind {
    APR_GPU_PICK_TOP_P = 0,   /* P */
    APR_GPU_PICK_MIN_P,       /* ln P */
    APR_GPU_PICK_TYPICAL,     /* P */
    APR_GPU_PICK_TAIL_FREE,   /* Z */
    APR_GPU_PICK_TOP_N_SIGMA, /* N */
    APR_GPU_PICK_ETA,         /* E */
    APR_GPU_PICK_EPSILON,     /* E */
    APR_GPU_PICK_XTC,         /* P, threshold; not behind TYPICAL unless one that sorts stands between */
    APR_GPU_PICK_TEMPERATURE, /* T */
    APR_GPU_PICK_DYNATEMP,    /* T, range, exponent */
    APR_GPU_N_PICKS
};
struct apr_gpu_pick {
    uint32_t kind; /* an enum apr_gpu_pick_kind */
    double v[3];
};
struct apr_gpu_chain {
    uint32_t top_k; /* 1 .. APR_GPU_TOP_K; 0: all, and no steps: sampler/cands.h says how many is all */
    float t_before; /* divides all logits first; 1: a temperature comes later, or never */
    uint32_t n_picks;
    struct apr_gpu_pick picks[APR_GPU_PICKS];
};

enum apr_gpu_link {                   /* how several devices add up what each has computed */
                    APR_GPU_LINK_ANY, /* short sums through each other's memory where they reach it, others by
                                         NCCL */
                    APR_GPU_LINK_NCCL,
                    APR_GPU_LINK_SAME, /* for tests: without NCCL, and a device may be named twice */
};

/* Faults for tests, until the next call; those of launches hold for graphs that are captured afterwards. */
enum apr_gpu_fault {
    APR_GPU_FAULT_NONE = 0,
    APR_GPU_FAULT_MEMORY, /* all of the device's free memory is taken */
    APR_GPU_FAULT_TRAP,   /* a kernel traps: the device is lost for this process */
    APR_GPU_FAULT_SPIN,   /* a kernel keeps the queue busy for three seconds */
    APR_GPU_FAULT_SERIAL, /* launches do not overlap */
    APR_GPU_FAULT_SKEW,   /* a kernel that only waits 50 us before every launch that overlaps */
    APR_GPU_FAULT_RACE,   /* the same, and it reads before its predecessor has written: results are wrong */
};

struct apr_gpu {
    uint32_t abi, struct_bytes;
    const char *name; /* "cuda" */

    enum apr_gpu_status (*device_count)(uint32_t *n, struct apr_gpu_err *e);
    enum apr_gpu_status (*device_open)(uint32_t i, struct apr_gpu_device **d, struct apr_gpu_err *e);
    /* Several devices as one: what is opened on it is shared by all (tensor parallel), and every function
     * below takes it. A call's error names the device; when devices disagree, later calls fail. */
    enum apr_gpu_status (*devices_open)(const uint32_t *i, uint32_t n, enum apr_gpu_link link,
                                        struct apr_gpu_device **d, struct apr_gpu_err *e);
    void (*device_close)(struct apr_gpu_device *d);
    /* "NVIDIA H100 80GB HBM3, sm_90, 132 SM, 79.2 GiB free" */
    const char *(*device_name)(const struct apr_gpu_device *d);
    /* A step has not ended in time: every call is APR_GPU_LOST until it ends, and closing frees nothing. */
    bool (*device_is_late)(const struct apr_gpu_device *d);

    /* m: of several devices a description each (shard.h), and the plan is of the one that needs most. */
    enum apr_gpu_status (*model_plan)(struct apr_gpu_device *d, const struct apr_gpu_desc *m,
                                      const struct apr_gpu_opts *o, struct apr_gpu_plan *p,
                                      struct apr_gpu_err *e);
    /* progress: bytes copied so far; may be NULL */
    enum apr_gpu_status (*model_open)(struct apr_gpu_device *d, const struct apr_gpu_desc *m,
                                      const struct apr_gpu_opts *o, void (*progress)(void *ctx, uint64_t n),
                                      void *ctx, struct apr_gpu_model **out, struct apr_gpu_err *e);
    void (*model_close)(struct apr_gpu_model *m);

    enum apr_gpu_status (*seq_open)(struct apr_gpu_model *m, uint32_t n_ctx, struct apr_gpu_seq **s,
                                    struct apr_gpu_err *e);
    void (*seq_close)(struct apr_gpu_seq *s);
    uint32_t (*seq_pos)(const struct apr_gpu_seq *s);
    void (*seq_truncate)(struct apr_gpu_seq *s, uint32_t n_pos);
    /* From now on the sequence turns by the rotation of long ones, or not; where that is new it is empty. */
    void (*seq_turn)(struct apr_gpu_seq *s, bool is_long);

    /* Appends n tokens. logits: [n_rows, n_vocab] of the last n_rows of them, on the host; n_rows 0: none. */
    enum apr_gpu_status (*forward)(struct apr_gpu_model *m, struct apr_gpu_seq *s, const int32_t *ids,
                                   uint32_t n, uint32_t n_rows, float *logits, struct apr_gpu_err *e);
    /* Greedy: appends id, then its n - 1 successors, each the first index of the largest logit, without
     * the host in between; out: [n] tokens chosen. Stops early (n_out) after one of the stop ids. */
    enum apr_gpu_status (*greedy)(struct apr_gpu_model *m, struct apr_gpu_seq *s, int32_t id, uint32_t n,
                                  const int32_t *stop, uint32_t n_stop, int32_t *out, uint32_t *n_out,
                                  struct apr_gpu_err *e);
    /* As greedy, each token by the chain with the next of bits: [n], of the sampler's generator. */
    enum apr_gpu_status (*sample)(struct apr_gpu_model *m, struct apr_gpu_seq *s,
                                  const struct apr_gpu_chain *chain, const uint64_t *bits, int32_t id,
                                  uint32_t n, const int32_t *stop, uint32_t n_stop, int32_t *out,
                                  uint32_t *n_out, struct apr_gpu_err *e);

    /* Appends tokens to several sequences at once, none named twice: at most n_chunk of all parts together.
     * Afterwards rows 0 .. are the parts' tokens in order. */
    enum apr_gpu_status (*step)(struct apr_gpu_model *m, const struct apr_gpu_part *parts, uint32_t n_parts,
                                struct apr_gpu_err *e);
    /* Of rows i_row .. of the last step: [n_rows, n_vocab] on the host. */
    enum apr_gpu_status (*logits)(struct apr_gpu_model *m, uint32_t i_row, uint32_t n_rows, float *logits,
                                  struct apr_gpu_err *e);
    /* Greedy, n steps of n_seqs <= APR_GPU_ROWS sequences side by side without the host in between; ids: what
     * is appended first; out: [n_seqs, n] tokens chosen. */
    enum apr_gpu_status (*greedy_rows)(struct apr_gpu_model *m, struct apr_gpu_seq *const *seqs,
                                       const int32_t *ids, uint32_t n_seqs, uint32_t n, int32_t *out,
                                       struct apr_gpu_err *e);
    /* As greedy_rows, each sequence by its own chain and bits: [n_seqs] and [n_seqs, n]. */
    enum apr_gpu_status (*sample_rows)(struct apr_gpu_model *m, struct apr_gpu_seq *const *seqs,
                                       const struct apr_gpu_chain *chains, const uint64_t *bits,
                                       const int32_t *ids, uint32_t n_seqs, uint32_t n, int32_t *out,
                                       struct apr_gpu_err *e);

    /* For tests and profiles. */
    /* One token of each sequence, or one part of more, as a graph with an event behind every launch: so
     * launches do not overlap. Positions do not move. n: room in out, then launches. */
    enum apr_gpu_status (*profile)(struct apr_gpu_model *m, const struct apr_gpu_part *parts,
                                   uint32_t n_parts, struct apr_gpu_time *out, uint32_t *n,
                                   struct apr_gpu_err *e);
    enum apr_gpu_status (*unpack)(struct apr_gpu_device *d, const struct apr_gpu_mat *w, float *rows,
                                  struct apr_gpu_err *e); /* repacked and back: [n_rows, n_cols] */
    enum apr_gpu_status (*bandwidth)(struct apr_gpu_device *d, double *bytes_per_s, struct apr_gpu_err *e);
    /* Seconds that a launch of an empty kernel takes in a graph of n of them. */
    enum apr_gpu_status (*launch_cost)(struct apr_gpu_device *d, uint32_t n, double *s,
                                       struct apr_gpu_err *e);
    /* step of one part, launch by launch without a graph; out: [n_layers + 1, n, n_hidden], the embedding and
     * the residual stream behind every layer. */
    enum apr_gpu_status (*hidden)(struct apr_gpu_model *m, const struct apr_gpu_part *part, float *out,
                                  struct apr_gpu_err *e);
    /* What sample chooses where the logits are given: [n_rows, n_vocab], n_rows <= APR_GPU_ROWS; chains, bits
     * and out: [n_rows]. A row with a logit that is not finite: NOT_FINITE. s: seconds of the choice. */
    enum apr_gpu_status (*choose)(struct apr_gpu_device *d, const struct apr_gpu_chain *chains,
                                  const uint64_t *bits, const float *logits, uint32_t n_rows,
                                  uint32_t n_vocab, int32_t *out, double *s, struct apr_gpu_err *e);
    enum apr_gpu_status (*fault)(struct apr_gpu_device *d, enum apr_gpu_fault what, struct apr_gpu_err *e);
    /* Device i as at the start of the process; everything opened on it must be closed. */
    enum apr_gpu_status (*device_reset)(uint32_t i, struct apr_gpu_err *e);
};

typedef const struct apr_gpu *apr_gpu_plugin_fn(void);

#endif
