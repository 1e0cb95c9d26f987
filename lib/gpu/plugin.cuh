/* Shared by the files of the plugin: status, matrices on the device, launches, and what each file offers. */
#ifndef APR_PLUGIN_CUH
#define APR_PLUGIN_CUH

#include <cublasLt.h>
#include <cuda_runtime.h>

#include "gpu.h"
#include "tiles.cuh"

enum apr_gpu_status gpu_fail(struct apr_gpu_err *e, enum apr_gpu_status s, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
enum apr_gpu_status gpu_cuda(cudaError_t c, const char *what, struct apr_gpu_err *e);
#define GPU_TRY(call)                                                                                        \
    do {                                                                                                     \
        enum apr_gpu_status s_ = (call);                                                                     \
        if (s_ != APR_GPU_OK) return s_;                                                                     \
    } while (0)
#define CU(call, what) GPU_TRY(gpu_cuda((call), (what), e))

/* A matrix in tiles; [n_rows, n_cols] padded to whole tiles: tile (group, chunk) is at
 * (group * n_chunks + chunk) * tile_bytes(kind). */
struct mat {
    uint8_t *tiles;
    float *bias; /* [n_rows] or NULL */
    int kind;
    uint32_t n_rows, n_cols, n_groups, n_chunks;
    __half *wide; /* [n_rows, n_cols] resident copy times mat_scale, or NULL */
};
static inline uint64_t mat_bytes(const struct mat *m)
{
    return (uint64_t)m->n_groups * m->n_chunks * tile_bytes(m->kind);
}
/* F16 copies of weights are multiplied by this, so that small ones keep their bits; F16 itself is left alone.
 * The middle of a SwiGLU block is multiplied by MID_SCALE: F16 ends at 65504, and spikes of 1e5 are real. */
#define W16_SCALE 64.0f
#define MID_SCALE 0.0625f
static inline float mat_scale(int kind)
{
    return kind == TILE_F16 ? 1.0f : W16_SCALE;
}
/* Matrices of one shape and type, one behind the other. */
struct stack {
    struct mat m; /* the first */
    uint32_t n;
    uint64_t n_bytes; /* of the tiles of one */
};
struct rope { /* [n_ctx, n_half] cos, sin */
    const float2 *at;
    const float2 *at_long; /* of long sequences; NULL: they turn as all do */
    uint32_t n_half;
};
struct latent { /* see gpu.h */
    struct mat q_a, kv_a;
    float *q_a_norm, *kv_a_norm;
    struct stack k_b, v_b;
};
struct experts {
    struct mat router;
    float *router_bias;
    struct stack gate, up, down;
    struct mat shared_up, shared_gate, shared_down, shared_weight;
};
/* What a model does not have has no tiles and no vectors. */
struct layer {
    struct mat q, k, v, o, gate, up, down;
    float *attn_norm, *ffn_norm, *q_norm, *k_norm;
    float *attn_norm_b, *ffn_norm_b, *post_attn_norm, *post_ffn_norm;
    uint32_t window;
    struct rope rope;
    bool is_plain; /* attention over all positions, no cap, turned as attn.cuh does */
    struct latent latent;
    struct experts experts;
};

struct apr_gpu_device {
    int i, n_sm, sm, max_smem, sm_smem; /* shared memory of a block, of an SM */
    cudaStream_t stream;
    cublasLtHandle_t lt;
    void *lt_work;
    void *plans;         /* gemm.cu */
    struct marks *marks; /* of a profile; NULL: none */
    double timeout_s;    /* of a step */
    bool is_late;        /* the last one was not done in time: nothing else is asked for until it is */
    struct comm *comm;   /* of one of several (comm.cuh); NULL: alone */
    struct world *world; /* this one is several (world.cuh), and only their table's functions take it */
    enum apr_gpu_fault fault;
    float *racy[2];      /* what APR_GPU_FAULT_RACE reads too early: residuals of the model opened last */
    uint32_t n_racy;     /* floats of each */
    struct hoard *hoard; /* memory taken by APR_GPU_FAULT_MEMORY */
    char name[400];
};
/* Times of a step's launches (profile.cu): an event behind each; before it, what the launch reads and of
 * which layer it is (-1: none). */
void gpu_mark_at(const struct apr_gpu_device *d, const char *what, cudaStream_t s, const char *file,
                 uint32_t line);
#define gpu_mark(d, what, s) gpu_mark_at((d), (what), (s), __FILE__, __LINE__)
void gpu_mark_bytes(const struct apr_gpu_device *d, uint64_t n_bytes);
void gpu_mark_layer(const struct apr_gpu_device *d, int32_t i_layer);
#define LT_WORK_BYTES (64u << 20)
#define GPU_TIMEOUT_S 60.0

/* A token of a step, in the device's memory, so that a captured graph stays valid. */
struct step {
    int32_t pos, id;      /* pos < 0: the row only fills up a batch */
    const int32_t *table; /* pages of its sequence */
    int32_t *out;         /* tokens chosen, one a step; NULL: none */
    uint32_t n_done;      /* steps of this run */
    uint32_t n_bad;       /* logits that are not finite */
    uint32_t is_long;     /* its sequence turns by the rotation of long ones */
};

/* ---- plugin.cu ---- */
/* The kernel may be launched with so much dynamic shared memory. */
enum apr_gpu_status gpu_allow_smem(const void *kernel, uint32_t n_bytes, const char *what,
                                   struct apr_gpu_err *e);
/* The launch may begin before its predecessor has ended (kernels call wait_for_input). */
void gpu_overlap(const struct apr_gpu_device *d, cudaLaunchConfig_t *c, cudaLaunchAttribute at[1]);
enum apr_gpu_status gpu_launch_at(const struct apr_gpu_device *d, const void *kernel, dim3 grid,
                                  uint32_t n_threads, uint32_t n_smem, void **args, cudaStream_t s,
                                  const char *what, struct apr_gpu_err *e, const char *file, uint32_t line);
#define gpu_launch(...) gpu_launch_at(__VA_ARGS__, __FILE__, __LINE__)

/* Dynamic shared memory that a block asks for at least to have an SM alone: half of what there is. The
 * kernels of one token have a block for every SM, and the next kernel's blocks start where they find room:
 * two of them on one SM would take twice as long and all others wait, and their weights, asked for early,
 * would delay the short reads on which the kernels before them wait. */
static inline uint32_t gpu_alone_smem(const struct apr_gpu_device *d)
{
    const int half = d->sm_smem / 2;
    return (uint32_t)(half < d->max_smem ? half : d->max_smem);
}

/* ---- fault.cu ---- */
/* Every call of the table begins with it: the device is the thread's, and is not known to hang. */
enum apr_gpu_status gpu_enter(struct apr_gpu_device *d, struct apr_gpu_err *e);
/* Until the device's stream is done, at most timeout_s. */
enum apr_gpu_status gpu_wait(struct apr_gpu_device *d, const char *what, struct apr_gpu_err *e);
enum apr_gpu_status gpu_fault(struct apr_gpu_device *d, enum apr_gpu_fault what, struct apr_gpu_err *e);
void gpu_unhoard(struct apr_gpu_device *d);
void gpu_skew(const struct apr_gpu_device *d, cudaStream_t s);

/* ---- repack.cu ---- */
bool repack_kind(uint32_t type, int *kind);
uint64_t repack_row_bytes(uint32_t type, uint32_t n_cols); /* in the file; 0: no whole blocks */
uint64_t repack_bytes(int kind, uint32_t n_rows, uint32_t n_cols);
/* rows: raw rows on the device; the first is row i_row (a multiple of 16) of m. */
void repack_rows(const struct mat *m, uint32_t type, const void *rows, uint64_t row_bytes, uint32_t i_row,
                 uint32_t n_rows, cudaStream_t s);
void unpack_f32(const struct mat *m, uint32_t i_row, uint32_t n_rows, float *out, cudaStream_t s);
void unpack_f16(const struct mat *m, __half *out, cudaStream_t s); /* times mat_scale */
void embed_rows(const struct mat *m, const struct step *rows, uint32_t n, float scale, float *x,
                cudaStream_t s);

/* ---- gemv.cu: one token ---- */
struct act {             /* an input of matrices; any form may be NULL */
    struct act_block *q; /* [n_cols / 256] of one token */
    float *f;            /* [n_cols] of one token */
    __half *h;           /* many tokens: rows of n_cols, or with n8 the order of fragments (frag_at) */
    uint32_t n8, n_cols;
};
enum gemv_out { GEMV_ROWS, GEMV_ADD, GEMV_SWIGLU };
struct gemv {
    const struct mat *m[3];
    int n_m;
    const float *norm; /* with it the input is rmsnorm(in.f) * norm */
    float eps;
    struct act in;
    enum gemv_out how;
    float *y;         /* rows of all matrices one behind the other; GEMV_ADD: added to it */
    struct act out;   /* GEMV_SWIGLU */
    const char *what; /* for errors and profiles */
    /* Not NULL: the input was multiplied by a norm's weights when it was made; sums of squares of 16 columns,
     * from which its RMS follows. */
    const float *sq;
    /* GEMV_ADD, where not NULL: y times these weights and those sums, for who reads y next */
    const float *next_norm;
    struct act next;
    float *next_sq;
};
static inline struct gemv gemv_of(const char *what, enum gemv_out how, const struct mat *m, struct act in)
{
    struct gemv g = {};
    g.what = what, g.how = how, g.m[0] = m, g.n_m = 1, g.in = in;
    return g;
}
enum apr_gpu_status gemv_run(const struct apr_gpu_device *d, const struct gemv *g, cudaStream_t s,
                             struct apr_gpu_err *e);

/* ---- attn_step.cu, attn_prompt.cu ---- */
struct kv { /* of one layer: [n_pages, n_heads_kv, 16, dim_pad] F16, or F32 in reference mode */
    void *k, *v;
};
struct heads {
    uint32_t n_heads, n_heads_kv, dim, dim_pad;
    float scale, eps, rope_scale;
    bool pairs, f32;
    const float2 *rope; /* [n_ctx, dim / 2] cos, sin */
    const float *q_norm, *k_norm;
};
struct attn_room {
    float *part;     /* [rows, n_heads, splits, dim_pad + 2] */
    unsigned *count; /* [rows, n_heads], zero between steps */
};
#define ATTN_SPLITS 32u
uint32_t attn_splits(const struct apr_gpu_device *d, const struct heads *h, uint32_t n_rows);
/* One token of each of n_rows sequences: rows[which[i]], or rows[i] where which is NULL. qkv: [., q | k | v]
 * of the rows with biases, rotated here, k and v stored; out: n_heads * dim columns. */
enum apr_gpu_status attn_step(const struct apr_gpu_device *d, const struct heads *h, const struct kv *kv,
                              const struct step *rows, const uint32_t *which, uint32_t n_rows,
                              const float *qkv, const struct attn_room *room, const struct act *out,
                              cudaStream_t s, struct apr_gpu_err *e);
/* n rows; qkv: [n, q | k | v] F32 with biases; q is rotated in place, or goes to q16 where that is not NULL.
 */
void attn_rotate_store(const struct heads *h, const struct kv *kv, const struct step *rows, uint32_t n,
                       float *qkv, __half *q16, cudaStream_t s);
struct attn_part { /* n tokens of one sequence from position pos on, in rows i_row .. */
    const int32_t *table;
    uint32_t pos, n, i_row;
};
enum apr_gpu_status attn_prompt(const struct heads *h, const struct kv *kv, const struct attn_part *part,
                                const __half *q16, const struct act *out, cudaStream_t s,
                                struct apr_gpu_err *e);
enum apr_gpu_status attn_exact(const struct heads *h, const struct kv *kv, const struct step *rows,
                               uint32_t n, const float *qkv, float *out, cudaStream_t s,
                               struct apr_gpu_err *e);

/* ---- elem.cu ---- */
void rmsnorm_rows(const float *x, const float *w, float eps, uint32_t n, uint32_t n_cols, float *y,
                  __half *y16, cudaStream_t s);
/* gate_up and h times MID_SCALE */
void swiglu_rows(const __half *gate_up, uint32_t n, uint32_t n_inter, __half *h, cudaStream_t s);
void swiglu_f32(const float *gate, const float *up, uint64_t n, float *h, cudaStream_t s);
void bias_rows(float *y, const float *bias, uint32_t n, uint32_t n_cols, uint32_t stride, cudaStream_t s);
/* logits: [n_rows, n]; the first index of the largest is each row's next token. */
void argmax_rows(const float *logits, uint32_t n, uint32_t n_rows, uint64_t *best, unsigned *count,
                 struct step *rows, cudaStream_t s);

/* ---- gemm.cu: many tokens ---- */
void *gpu_plans_new(void);
void gpu_plans_clear(const struct apr_gpu_device *d);
/* y[t, r] (+)= alpha x[t, :] . w[r, :]; x: [n, n_cols] F16, w F16 row-major; y F32 or F16 with stride. */
struct gemm {
    const __half *w, *x;
    uint32_t n_rows, n_cols, n, y_stride;
    void *y;
    bool y_f32, add;
    float alpha;
};
enum apr_gpu_status gemm_f16(const struct apr_gpu_device *d, const struct gemm *g, cudaStream_t s,
                             struct apr_gpu_err *e);
/* Reference: F32, one fixed order of sums, straight from tiles. */
void gemm_exact(const struct mat *m, const float *x, uint32_t n, float *y, uint32_t y_stride, bool add,
                cudaStream_t s);

#endif
