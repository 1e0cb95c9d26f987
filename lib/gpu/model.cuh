/* A model on the device and its sequences: model.cu loads, step.cu computes what is asked for by one.cu (one
 * token), batch.cu (up to 64 tokens) and chunk.cu (prompts, reference mode). */
#ifndef APR_MODEL_CUH
#define APR_MODEL_CUH

#include "comm.cuh"
#include "few.cuh"
#include "general.cuh"

#define LOGIT_ROWS  APR_GPU_ROWS
#define STEPS_AHEAD 32u /* of greedy decoding, between two looks at the tokens */
#define STAGED_ROWS 4u
#define N_GRAPHS    6
enum last_rows { LAST_ONE, LAST_FEW, LAST_READY, LAST_MANY }; /* logits; xf normed; row_logits; xs */

struct apr_gpu_model {
    struct apr_gpu_device *dev;
    struct apr_gpu_model **ranks; /* of several devices: each one's, and nothing else here counts */
    struct apr_gpu_opts opts;
    struct heads heads;
    uint32_t n_layers, n_hidden, n_inter, n_vocab, n_pages;
    float eps, embed_scale;
    struct layer *layers; /* [n_layers] */
    struct mat embed, head;
    float *final_norm, *final_norm_b;
    struct mat positions; /* learned; no tiles: none */
    bool is_general;      /* computed by general.cu */
    struct general gen;
    bool tied;
    bool counts_only; /* a plan: nothing is asked for */
    uint64_t n_bytes; /* asked for so far */
    void **blocks;    /* every device allocation, for close */
    uint32_t n_blocks, cap_blocks;

    void **cache_k, **cache_v; /* [n_layers] pools of pages */
    int32_t *free_pages;       /* [n_free] on the host */
    uint32_t n_free;

    /* one token */
    float *x, *qkv, *att_f, *h_f, *logits; /* logits: [n_vocab] */
    struct act_block *att_q, *h_q;
    struct act next_x; /* the residual times the next norm's weights, in all forms */
    float *next_sq;    /* [n_hidden / 16] sums of its squares */
    struct attn_room room;
    uint64_t *best;
    unsigned *best_count;
    /* a step of many tokens */
    float *xs, *qkvs, *hs, *ups;
    __half *x16, *gu16, *h16, *wide, *q16;
    struct step *rows, *rows_host; /* [n_chunk]; the latter pinned */
    uint32_t *which, *which_host;  /* [n_chunk] rows that are their sequence's only one */
    float *row_logits;             /* [LOGIT_ROWS, n_vocab] */
    float *logits_host;            /* [STAGED_ROWS, n_vocab] pinned; see step_fetch */
    /* up to LOGIT_ROWS tokens */
    bool can_few;
    float *part;
    __half *xf, *af, *hf; /* inputs of qkv, gate and up; of o; of down: in the order of fragments */
    struct step *batch, *batch_host;     /* [LOGIT_ROWS] of a graph */
    int32_t *batch_out, *batch_out_host; /* [LOGIT_ROWS, STEPS_AHEAD] */
    cudaGraphExec_t graphs[N_GRAPHS];    /* 2, 4, ... 64 rows; NULL until the first */
    /* the same where chains choose the tokens (sample.cu); NULL until they do */
    cudaGraphExec_t graphs_sampled[N_GRAPHS];
    struct sampler *samplers;   /* [LOGIT_ROWS] on the device */
    struct orders *orders_host; /* [LOGIT_ROWS] pinned */

    /* one of several devices */
    float *summed;      /* [LOGIT_ROWS, n_hidden] */
    float *part_logits; /* [LOGIT_ROWS, rows of this device's head] */
    float *all_logits;  /* [devices, LOGIT_ROWS, rows] before they are in order */

    uint32_t n_last;     /* rows of the last step */
    float *tap;          /* [n_layers + 1, rows, n_hidden] on the host: hidden; NULL: nobody looks */
    enum last_rows last; /* where its logits are */
};

/* Where a head's product goes that is to be the logits y: there, or where one of several devices has its
 * part. */
static inline float *head_part(const struct apr_gpu_model *m, float *y)
{
    return m->dev->comm ? m->part_logits : y;
}
/* What head_part took becomes [n, n_vocab] at y. */
static inline enum apr_gpu_status head_whole(struct apr_gpu_model *m, uint32_t n, float *y,
                                             struct apr_gpu_err *e)
{
    return comm_rows(m->dev, m->part_logits, n, m->n_vocab, m->all_logits, y, e);
}

struct apr_gpu_seq {
    struct apr_gpu_model *m;
    struct apr_gpu_seq **ranks; /* of several devices */
    uint32_t n_ctx, n_pos;
    bool is_long;              /* turns by the rotation of long sequences */
    uint32_t n_pages;          /* held: enough for n_pos, more while a step is prepared */
    int32_t *pages;            /* [n_ctx / 16] on the host */
    int32_t *table;            /* the same on the device */
    struct step *st, *st_host; /* device, pinned */
    int32_t *out, *out_host;   /* [STEPS_AHEAD] */
    cudaGraphExec_t graph;     /* one step; NULL until the first */
    /* the same where a chain chooses the token (sample.cu); NULL until it does */
    cudaGraphExec_t graph_sampled[2]; /* from few candidates, from all */
    struct sampler *sampler;          /* on the device */
    struct orders *orders_host;       /* pinned */
};

struct batch;
#define MODEL_PAGE      16u /* positions */
#define STAGE_BYTES     (64u << 20)
#define STAGE_ALL_BYTES (2ull * STAGE_BYTES) /* on the device */

/* ---- plan.cu ---- */
void mat_shape(const struct apr_gpu_mat *from, struct mat *to);
uint64_t mat_wide_bytes(const struct apr_gpu_mat *w);
bool desc_is_tied(const struct apr_gpu_desc *d); /* the head is the embedding, all of it */
void model_shape(struct apr_gpu_model *m, struct apr_gpu_device *d, const struct apr_gpu_desc *desc,
                 const struct apr_gpu_opts *o);
/* The rotary table of rotation i: pairs of a row of it. */
uint32_t rope_pairs_of(const struct apr_gpu_desc *d, uint32_t i);
/* Everything but the weights. */
enum apr_gpu_status model_room(struct apr_gpu_model *m, const struct apr_gpu_desc *d, struct apr_gpu_err *e);
enum apr_gpu_status model_alloc(struct apr_gpu_model *m, void **p, uint64_t n_bytes, const char *what,
                                struct apr_gpu_err *e);
enum apr_gpu_status model_plan(struct apr_gpu_device *d, const struct apr_gpu_desc *m,
                               const struct apr_gpu_opts *o, struct apr_gpu_plan *p, struct apr_gpu_err *e);
/* ---- check.cu ---- */
/* Refuses by name what the plugin cannot compute. */
enum apr_gpu_status model_check(const struct apr_gpu_device *d, const struct apr_gpu_desc *m,
                                const struct apr_gpu_opts *o, struct apr_gpu_err *e);
bool model_is_general(const struct apr_gpu_desc *m);
bool layer_is_plain(const struct apr_gpu_desc *m, const struct apr_gpu_layer *l);
/* A layer's matrices one by one, absent ones among them, and its stacks. */
#define LAYER_MATS   14u
#define LAYER_STACKS 5u
struct desc_stack {
    const struct apr_gpu_mat *mats; /* NULL: absent */
    uint32_t n;
};
void layer_mats(const struct apr_gpu_desc *m, const struct apr_gpu_layer *l,
                const struct apr_gpu_mat *mats[LAYER_MATS], struct desc_stack stacks[LAYER_STACKS]);

/* ---- general_room.cu ---- */
/* Everything but the weights and the cache. */
enum apr_gpu_status general_room(struct apr_gpu_model *m, const struct apr_gpu_desc *d,
                                 struct apr_gpu_err *e);
/* ---- general.cu ---- */
/* All layers; xs remains. No host in between: a graph may be made of it for up to LOGIT_ROWS rows. */
enum apr_gpu_status general_step(struct apr_gpu_model *m, const struct batch *b, struct apr_gpu_err *e);
enum apr_gpu_status general_head(struct apr_gpu_model *m, const float *x, uint32_t n, float *logits,
                                 struct apr_gpu_err *e);

/* ---- model.cu ---- */
enum apr_gpu_status model_open(struct apr_gpu_device *d, const struct apr_gpu_desc *m,
                               const struct apr_gpu_opts *o, void (*progress)(void *ctx, uint64_t n),
                               void *ctx, struct apr_gpu_model **out, struct apr_gpu_err *e);
void model_close(struct apr_gpu_model *m);
enum apr_gpu_status seq_open(struct apr_gpu_model *m, uint32_t n_ctx, struct apr_gpu_seq **s,
                             struct apr_gpu_err *e);
void seq_close(struct apr_gpu_seq *s);
/* Pages for positions < n_pos are there afterwards; from the model's, whose end is APR_GPU_FULL. */
enum apr_gpu_status seq_hold(struct apr_gpu_seq *s, uint32_t n_pos, struct apr_gpu_err *e);
void seq_truncate(struct apr_gpu_seq *s, uint32_t n_pos);
void seq_turn(struct apr_gpu_seq *s, bool is_long);

/* ---- step.cu ---- */
/* A step's rows on the device. */
struct batch {
    const struct apr_gpu_part *parts;
    uint32_t n_parts, n_rows;
    uint32_t n_single;     /* parts of one token: rows which[0 .. n_single - 1] */
    const uint32_t *which; /* NULL: all rows are such, in order */
    const struct step *rows;
};
struct kv model_kv(const struct apr_gpu_model *m, uint32_t i_layer);
struct heads model_heads(const struct apr_gpu_model *m, uint32_t i_layer);
/* Attention of all rows of qkvs. */
enum apr_gpu_status attend(struct apr_gpu_model *m, const struct batch *b, uint32_t i_layer,
                           const struct act *out, struct apr_gpu_err *e);
enum apr_gpu_status forward(struct apr_gpu_model *m, struct apr_gpu_seq *s, const int32_t *ids, uint32_t n,
                            uint32_t n_rows, float *logits, struct apr_gpu_err *e);
enum apr_gpu_status step_parts(struct apr_gpu_model *m, const struct apr_gpu_part *parts, uint32_t n_parts,
                               struct apr_gpu_err *e);
/* x: rows of the residual stream in front of layer i_point, or behind the last one. */
enum apr_gpu_status model_tap(const struct apr_gpu_model *m, uint32_t i_point, const float *x,
                              uint32_t n_rows, struct apr_gpu_err *e);
enum apr_gpu_status hidden(struct apr_gpu_model *m, const struct apr_gpu_part *part, float *out,
                           struct apr_gpu_err *e);
/* Rows of a part that is no batch of single tokens, to the device. */
enum apr_gpu_status step_lay(struct apr_gpu_model *m, struct batch *b, struct apr_gpu_err *e);
enum apr_gpu_status step_logits(struct apr_gpu_model *m, uint32_t i_row, uint32_t n_rows, float *logits,
                                struct apr_gpu_err *e);

/* Rows of logits to the caller's memory. Few of them go by way of pinned memory, which the device writes
 * itself; many would cost as much to copy from there as the driver takes by its own way. */
enum apr_gpu_status step_fetch(struct apr_gpu_model *m, const float *from, uint32_t n_rows, float *to,
                               struct apr_gpu_err *e);

/* ---- one.cu ---- */
/* Products of one row, as few launches as their types allow. */
enum apr_gpu_status one_products(const struct apr_gpu_model *m, const struct gemv *g, struct apr_gpu_err *e);
/* Its logits are at logits_host, too: the host waits once. */
enum apr_gpu_status one_step(struct apr_gpu_seq *s, int32_t id, struct apr_gpu_err *e);
enum apr_gpu_status greedy(struct apr_gpu_model *m, struct apr_gpu_seq *s, int32_t id, uint32_t n,
                           const int32_t *stop, uint32_t n_stop, int32_t *out, uint32_t *n_out,
                           struct apr_gpu_err *e);
/* id, then its n - 1 successors; with bits ([n]) chosen by the sequence's chain, else greedily. */
enum apr_gpu_status one_ahead(struct apr_gpu_seq *s, const uint64_t *bits, int32_t id, uint32_t n,
                              const int32_t *stop, uint32_t n_stop, int32_t *out, uint32_t *n_out,
                              struct apr_gpu_err *e);

/* ---- sample.cu ---- */
enum apr_gpu_status sample(struct apr_gpu_model *m, struct apr_gpu_seq *s, const struct apr_gpu_chain *chain,
                           const uint64_t *bits, int32_t id, uint32_t n, const int32_t *stop, uint32_t n_stop,
                           int32_t *out, uint32_t *n_out, struct apr_gpu_err *e);
enum apr_gpu_status choose(struct apr_gpu_device *d, const struct apr_gpu_chain *chains, const uint64_t *bits,
                           const float *logits, uint32_t n_rows, uint32_t n_vocab, int32_t *out, double *s,
                           struct apr_gpu_err *e);
enum apr_gpu_status sample_rows(struct apr_gpu_model *m, struct apr_gpu_seq *const *seqs,
                                const struct apr_gpu_chain *chains, const uint64_t *bits, const int32_t *ids,
                                uint32_t n_seqs, uint32_t n, int32_t *out, struct apr_gpu_err *e);
/* The rows' chains and the bits of their steps i_step .. i_step + n - 1 of n_steps to the device. */
enum apr_gpu_status sample_begin_rows(struct apr_gpu_model *m, const uint64_t *bits, uint32_t n_seqs,
                                      uint32_t n_steps, uint32_t i_step, uint32_t n, struct apr_gpu_err *e);
void sample_issue_rows(struct apr_gpu_model *m, uint32_t n_rows);
void sample_close_rows(struct apr_gpu_model *m);
/* The chain and the next n <= STEPS_AHEAD bits to the device. */
enum apr_gpu_status sample_begin(struct apr_gpu_seq *s, const uint64_t *bits, uint32_t n,
                                 struct apr_gpu_err *e);
/* The choice of the next token from the model's logits, as argmax_rows. */
void sample_issue(struct apr_gpu_seq *s);
cudaGraphExec_t *sample_graph(struct apr_gpu_seq *s); /* of steps that end with that */
void sample_close(struct apr_gpu_seq *s);

/* ---- batch.cu ---- */
uint32_t batch_eights(uint32_t n_rows); /* eights of tokens that a kernel takes */
/* All layers and the last norm, eagerly. */
enum apr_gpu_status batch_step(struct apr_gpu_model *m, const struct batch *b, struct apr_gpu_err *e);
enum apr_gpu_status batch_head(struct apr_gpu_model *m, uint32_t n, struct apr_gpu_err *e); /* row_logits */
/* One token of each part, by a graph: logits too. */
enum apr_gpu_status batch_decode(struct apr_gpu_model *m, const struct apr_gpu_part *parts, uint32_t n_parts,
                                 struct apr_gpu_err *e);
enum apr_gpu_status greedy_rows(struct apr_gpu_model *m, struct apr_gpu_seq *const *seqs, const int32_t *ids,
                                uint32_t n_seqs, uint32_t n, int32_t *out, struct apr_gpu_err *e);
/* With bits ([n_seqs, n]) chosen by the model's chains, else greedily. */
enum apr_gpu_status rows_ahead(struct apr_gpu_model *m, struct apr_gpu_seq *const *seqs, const uint64_t *bits,
                               const int32_t *ids, uint32_t n_seqs, uint32_t n, int32_t *out,
                               struct apr_gpu_err *e);

/* What a graph of n rows does: all layers, the head and the choice of the next tokens. */
enum apr_gpu_status batch_issue(struct apr_gpu_model *m, uint32_t n, bool sampled, struct apr_gpu_err *e);
/* State of the rows to the device. */
enum apr_gpu_status batch_begin(struct apr_gpu_model *m, struct apr_gpu_seq *const *seqs, const int32_t *ids,
                                uint32_t n, struct apr_gpu_err *e);
enum apr_gpu_status one_issue(struct apr_gpu_seq *s, bool sampled, struct apr_gpu_err *e);
enum apr_gpu_status one_begin(struct apr_gpu_seq *s, int32_t id, struct apr_gpu_err *e);

/* ---- profile.cu ---- */
enum apr_gpu_status profile(struct apr_gpu_model *m, const struct apr_gpu_part *parts, uint32_t n_parts,
                            struct apr_gpu_time *out, uint32_t *n, struct apr_gpu_err *e);
enum apr_gpu_status launch_cost(struct apr_gpu_device *d, uint32_t n, double *s, struct apr_gpu_err *e);

/* ---- chunk.cu ---- */
enum apr_gpu_status chunk_step(struct apr_gpu_model *m, const struct batch *b, struct apr_gpu_err *e);
enum apr_gpu_status chunk_logits(struct apr_gpu_model *m, uint32_t i_row, uint32_t n, float *out,
                                 struct apr_gpu_err *e);

/* A matrix from the host into tiles, through pinned staging. */
struct stage {
    uint8_t *host[2], *dev[2];
    cudaEvent_t done[2];
    uint32_t i;
    uint64_t n_bytes;
    void (*progress)(void *ctx, uint64_t n);
    void *ctx;
};
enum apr_gpu_status stage_open(struct stage *s, struct apr_gpu_err *e);
void stage_close(struct stage *s);
enum apr_gpu_status stage_mat(struct stage *s, const struct apr_gpu_mat *from, struct mat *to,
                              cudaStream_t stream, struct apr_gpu_err *e);

#endif
