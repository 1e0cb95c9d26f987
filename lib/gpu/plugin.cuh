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
    __nv_bfloat16 *wide; /* [n_rows, n_cols] resident copy, or NULL */
};
struct layer {
    struct mat q, k, v, o, gate, up, down;
    float *attn_norm, *ffn_norm, *q_norm, *k_norm;
};

struct apr_gpu_device {
    int i, n_sm, sm, max_smem;
    cudaStream_t stream;
    cublasLtHandle_t lt;
    void *lt_work;
    void *plans; /* gemm.cu */
    char name[400];
};
#define LT_WORK_BYTES (64u << 20)

/* What every step reads from the device's memory, so that a captured graph stays valid. */
struct step {
    int32_t pos;     /* of the token being computed */
    int32_t id;      /* the token */
    uint32_t n_done; /* steps of this run */
    uint32_t n_bad;  /* logits that are not finite */
};

/* ---- repack.cu ---- */
bool repack_kind(uint32_t type, int *kind);
uint64_t repack_bytes(int kind, uint32_t n_rows, uint32_t n_cols);
/* rows: raw rows on the device; the first is row i_row (a multiple of 16) of m. */
void repack_rows(const struct mat *m, uint32_t type, const void *rows, uint64_t row_bytes, uint32_t i_row,
                 uint32_t n_rows, cudaStream_t s);
void unpack_f32(const struct mat *m, uint32_t i_row, uint32_t n_rows, float *out, cudaStream_t s);
void unpack_bf16(const struct mat *m, __nv_bfloat16 *out, cudaStream_t s);
void embed_rows(const struct mat *m, const int32_t *ids, uint32_t n, float scale, float *x, cudaStream_t s);
void embed_step(const struct mat *m, const struct step *st, float scale, float *x, cudaStream_t s);

/* ---- gemv.cu: one token ---- */
struct act {             /* an input of matrices; either form may be NULL */
    struct act_block *q; /* [n_cols / 256] */
    float *f;            /* [n_cols] */
};
enum gemv_out { GEMV_ROWS, GEMV_ADD, GEMV_SWIGLU };
struct gemv {
    const struct mat *m[3];
    int n_m;
    const float *norm; /* with it the input is rmsnorm(in.f) * norm */
    float eps;
    struct act in;
    enum gemv_out how;
    float *y;       /* rows of all matrices one behind the other; GEMV_ADD: added to it */
    struct act out; /* GEMV_SWIGLU */
};
enum apr_gpu_status gemv_run(const struct apr_gpu_device *d, const struct gemv *g, cudaStream_t s,
                             struct apr_gpu_err *e);

/* ---- attn.cu ---- */
struct kv {               /* of one layer */
    void *k, *v;          /* [n_pages, n_heads_kv, 16, dim_pad] F16, or F32 in reference mode */
    const int32_t *table; /* [n_ctx / 16] page numbers */
};
struct heads {
    uint32_t n_heads, n_heads_kv, dim, dim_pad;
    float scale, eps, rope_scale;
    bool pairs, f32;
    const float2 *rope; /* [n_ctx, dim / 2] cos, sin */
    const float *q_norm, *k_norm;
};
/* One token: qkv [q | k | v] of this step, rotated here, k and v stored; out: [n_heads * dim]. */
struct attn_room {
    float *part;     /* [n_heads, splits, dim_pad + 2] */
    unsigned *count; /* [n_heads_kv], zero between steps */
};
enum apr_gpu_status attn_step(const struct apr_gpu_device *d, const struct heads *h, const struct kv *kv,
                              const struct step *st, const float *qkv, const struct attn_room *room,
                              const struct act *out, cudaStream_t s, struct apr_gpu_err *e);
#define ATTN_SPLITS 32u
/* n tokens at positions pos0 ..; qkv: [n, q | k | v] f32 with biases. */
void attn_rotate_store(const struct heads *h, const struct kv *kv, uint32_t pos0, uint32_t n, float *qkv,
                       __half *q16, cudaStream_t s);
enum apr_gpu_status attn_prompt(const struct heads *h, const struct kv *kv, uint32_t pos0, uint32_t n,
                                const __half *q16, const float *qkv, __nv_bfloat16 *out16, float *out,
                                cudaStream_t s, struct apr_gpu_err *e);

/* ---- elem.cu ---- */
void rmsnorm_rows(const float *x, const float *w, float eps, uint32_t n, uint32_t n_cols, float *y,
                  __nv_bfloat16 *y16, cudaStream_t s);
void swiglu_rows(const __nv_bfloat16 *gate_up, uint32_t n, uint32_t n_inter, __nv_bfloat16 *h,
                 cudaStream_t s);
void swiglu_f32(const float *gate, const float *up, uint64_t n, float *h, cudaStream_t s);
void bias_rows(float *y, const float *bias, uint32_t n, uint32_t n_cols, uint32_t stride, cudaStream_t s);
void argmax_step(const float *logits, uint32_t n, uint64_t *best, unsigned *count, struct step *st,
                 int32_t *out, cudaStream_t s);

/* ---- gemm.cu: many tokens ---- */
void *gpu_plans_new(void);
void gpu_plans_clear(const struct apr_gpu_device *d);
/* y[t, r] (+)= x[t, :] . w[r, :]; x: [n, n_cols] BF16, w BF16 row-major; y F32 or BF16 with stride. */
enum apr_gpu_status gemm_bf16(const struct apr_gpu_device *d, const __nv_bfloat16 *w, uint32_t n_rows,
                              uint32_t n_cols, const __nv_bfloat16 *x, uint32_t n, void *y, bool y_f32,
                              uint32_t y_stride, bool add, cudaStream_t s, struct apr_gpu_err *e);
/* Reference: F32, one fixed order of sums, straight from tiles. */
void gemm_exact(const struct mat *m, const float *x, uint32_t n, float *y, uint32_t y_stride, bool add,
                cudaStream_t s);

#endif
