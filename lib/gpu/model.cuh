/* A model on the device and its sequences: model.cu loads, forward.cu computes. */
#ifndef APR_MODEL_CUH
#define APR_MODEL_CUH

#include "plugin.cuh"

struct apr_gpu_model {
    struct apr_gpu_device *dev;
    struct apr_gpu_opts opts;
    struct heads heads;
    uint32_t n_layers, n_hidden, n_inter, n_vocab, n_pages;
    float eps, embed_scale;
    struct layer *layers; /* [n_layers] */
    struct mat embed, head;
    float *final_norm;
    bool tied;
    void **blocks; /* every device allocation, for close */
    uint32_t n_blocks, cap_blocks;

    void **cache_k, **cache_v; /* [n_layers] pools of pages */
    int32_t *free_pages;       /* [n_free] on the host */
    uint32_t n_free;

    /* one token */
    float *x, *qkv, *att_f, *h_f, *logits; /* logits: [n_vocab] */
    struct act_block *att_q, *h_q;
    struct attn_room room;
    uint64_t *best;
    unsigned *best_count;
    /* a chunk of a prompt */
    float *xs, *qkvs, *hs, *ups;
    __nv_bfloat16 *x16, *gu16, *h16, *wide;
    __half *q16;
    int32_t *ids;
    float *rows; /* [LOGIT_ROWS, n_vocab] */
};
#define LOGIT_ROWS 32u

struct apr_gpu_seq {
    struct apr_gpu_model *m;
    uint32_t n_ctx, n_pos, n_pages;
    int32_t *pages;            /* [n_pages] on the host */
    int32_t *table;            /* the same on the device */
    struct step *st, *st_host; /* device, pinned */
    int32_t *out, *out_host;   /* [n_ctx] */
    cudaGraphExec_t graph;     /* one step; NULL until the first */
};

enum apr_gpu_status model_alloc(struct apr_gpu_model *m, void **p, uint64_t n_bytes, const char *what,
                                struct apr_gpu_err *e);
enum apr_gpu_status model_plan(struct apr_gpu_device *d, const struct apr_gpu_desc *m,
                               const struct apr_gpu_opts *o, struct apr_gpu_plan *p, struct apr_gpu_err *e);
enum apr_gpu_status model_open(struct apr_gpu_device *d, const struct apr_gpu_desc *m,
                               const struct apr_gpu_opts *o, void (*progress)(void *ctx, uint64_t n),
                               void *ctx, struct apr_gpu_model **out, struct apr_gpu_err *e);
void model_close(struct apr_gpu_model *m);
enum apr_gpu_status seq_open(struct apr_gpu_model *m, uint32_t n_ctx, struct apr_gpu_seq **s,
                             struct apr_gpu_err *e);
void seq_close(struct apr_gpu_seq *s);
enum apr_gpu_status forward(struct apr_gpu_model *m, struct apr_gpu_seq *s, const int32_t *ids, uint32_t n,
                            uint32_t n_rows, float *logits, struct apr_gpu_err *e);
enum apr_gpu_status greedy(struct apr_gpu_model *m, struct apr_gpu_seq *s, int32_t id, uint32_t n,
                           const int32_t *stop, uint32_t n_stop, int32_t *out, uint32_t *n_out,
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
