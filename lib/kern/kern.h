/* Compute kernels: one const struct per instruction set, scalar.c is the truth.
 *
 * Order of summation is part of the interface, so that results do not depend on the table, the batch
 * width, the split among threads or the page layout of the cache:
 *   plain weights (F32 F16 BF16 F64) and everything in exact mode: f32 products, 8 lanes, lane = k mod 8,
 *     k ascending, acc = fmaf(w, x, acc); lanes are then summed as a tree:
 *     ((0+4)+(2+6)) + ((1+5)+(3+7)). A tail shorter than 8 goes into lanes 0.. as usual.
 *   block weights x int8 activations: integers are exact inside a block; per (row, token) one f32 chain,
 *     blocks ascending: first acc = fmaf(-(dmin * dy), (float)sum_mins, acc) where the type has mins, then
 *     acc = fmaf(d * dy, (float)isum, acc). d * dy is rounded before use. "Block" is 256 for the
 *     K-types and 32 for Q4_0 .. Q8_0.
 *   cache: scores as the first rule over the head dimension; values as one fmaf chain per output
 *     element, positions ascending.
 * Every chain starts at +0. Bits are equal between tables, but for the payload and sign of a NaN, and but for
 * BF16 weights (exact mode aside) in tables named after what multiplies pairs of BF16:
 *   avx512bf16 (by name only, since it is less exact): activations rounded to BF16; 8 lanes, lane = k / 2 mod
 * 8, of a pair of columns the odd one first: acc = fmaf(w1, x1, acc); acc = fmaf(w0, x0, acc). Columns are
 * padded with zeros to a multiple of 16; one tree. Values and sums below 2^-126 count as zero. All files in
 * this folder are compiled with -ffp-contract=off; fused operations are written out.
 *
 * exp is one polynomial in all tables (exp.h: relative error below 1.5e-7); it is 0 below -87 and +inf
 * above 88.72, NaN stays NaN.
 *
 * Ownership: tables are static and const; every buffer is the caller's; outputs do not overlap inputs
 * unless the slot says "in place". Usage:
 *
 *     const struct apr_kern *k;
 *     TRY(apr_kern_pick(&k, e));
 *     k->to_act256(x, act, n_cols);
 *     k->matmul[APR_Q4_K].fast(w, row_bytes, n_rows, n_cols, act, act_bytes, 1, y, n_rows, scratch);
 */
#ifndef APR_KERN_H
#define APR_KERN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "../quant/quant.h"

/* Activations, quantized once per token and matrix input. |q| <= 127 always (never -128):
 * d = max|x| / 127, q = x * (127 / max|x|) rounded to nearest even. A group whose max|x| is below 2^-100
 * becomes zero; one with a NaN or an infinity gets d = NaN and q = 0, so that results show it. */
struct apr_act32 { /* for Q4_0 Q4_1 Q5_0 Q5_1 Q8_0: per 32 values */
    float d;
    int32_t sum; /* of q */
    int8_t q[32];
};
_Static_assert(sizeof(struct apr_act32) == 40, "apr_act32");
struct apr_act256 { /* for Q2_K .. Q6_K: per 256 values; keep arrays of it aligned to 64 for speed */
    int8_t q[256];
    int16_t sums[16]; /* of q, per 16 */
    float d;
    int16_t sums32[8];  /* of q, per 32 */
    uint32_t unused[3]; /* zero; makes the size a multiple of 64 */
};
_Static_assert(sizeof(struct apr_act256) == 320, "apr_act256");

/* What a product reads: floats; structs of the above; or x as two BF16 numbers, x rounded to nearest even and
 * what is missing, rounded too: a row is all the former and then, behind half its bytes, all the latter. */
enum apr_act { APR_ACT_F32, APR_ACT_Q8_32, APR_ACT_Q8_256, APR_ACT_SPLIT };

/* y[t * y_stride + r] = sum over k of w[r, k] * x[t, k] for r < n_rows, t < n_toks.
 * w: n_rows rows of w_row_bytes; x: n_toks rows of x_row_bytes in the layout that the type's act names.
 * n_cols is a multiple of the type's block. w may have any alignment; x is aligned as its type asks.
 * APR_NATIVE_Q8, which in a file has one scale for the tensor, is taken here as rows of one f32 scale and
 * n_cols int8 (w_row_bytes = 4 + n_cols). APR_NATIVE_Q4 needs n_cols to be a multiple of 32.
 * scratch: apr_kern_scratch_bytes(n_cols) bytes, aligned to 64, private to the thread. */
typedef void apr_matmul_fn(const void *w, size_t w_row_bytes, size_t n_rows, size_t n_cols, const void *x,
                           size_t x_row_bytes, size_t n_toks, float *y, size_t y_stride, void *scratch);

/* Rows to strips (strips.h): n_rows, a multiple of APR_STRIP_ROWS, rows of w_row_bytes become as many bytes
 * at out, aligned to 64; strip i starts at out + i * APR_STRIP_ROWS * w_row_bytes. */
#define APR_STRIP_ROWS 16
typedef void apr_to_strips_fn(const void *w, size_t w_row_bytes, size_t n_rows, size_t n_cols, void *out);

struct apr_matmul {
    apr_matmul_fn *fast; /* x in layout act; rare types have only the exact one, here too */
    enum apr_act act;
    apr_matmul_fn *exact;        /* x is f32; block weights are widened row by row, in scratch */
    apr_to_strips_fn *to_strips; /* NULL: the type has none */
    apr_matmul_fn *strips;       /* the bits of fast, from strips; n_rows is a multiple of APR_STRIP_ROWS */
};

struct apr_stats {
    uint64_t n, n_nan, n_inf, n_zero; /* n_zero: |x| < 1e-10 */
    double sum, sum_sq;               /* over finite values */
    float min, max;                   /* over finite values; +inf, -inf while there are none */
};
void apr_stats_init(struct apr_stats *s);

struct apr_kern {
    const char *name;                /* as APR_KERN names it: "scalar", "avx2" .. */
    const struct apr_matmul *matmul; /* [APR_N_TYPES]; a row without functions: type not computable */

    void (*to_act32)(const float *x, struct apr_act32 *a, size_t n);   /* n multiple of 32 */
    void (*to_act256)(const float *x, struct apr_act256 *a, size_t n); /* n multiple of 256 */
    apr_to_f32_fn *const *to_f32; /* [APR_N_TYPES] rows of blocks to float, the same bits as quant's */

    /* y = x * s * w with s = (float)(1 / sqrt(mean(x^2) + eps)); the sum of squares in 8 double lanes
     * (lane = k mod 8), then the tree above. */
    void (*rmsnorm)(const float *x, const float *w, float eps, float *y, size_t n);
    /* y = fmaf((float)((x - mean) / sqrt(var + eps)), w, b): mean and variance in 8 double lanes and the
     * tree, the variance from differences to the mean. */
    void (*layernorm)(const float *x, const float *w, const float *b, float eps, float *y, size_t n);
    void (*add)(float *y, const float *x, size_t n);                 /* y += x */
    void (*mul)(float *y, const float *x, size_t n);                 /* y *= x */
    void (*scale)(float *y, float s, size_t n);                      /* y *= s */
    void (*add_scaled)(float *y, const float *x, float s, size_t n); /* y = fmaf(s, x, y) */
    void (*silu_mul)(const float *gate, const float *up, float *y,
                     size_t n); /* y = gate / (1 + exp(-gate)) * up */
    /* y = f(x), in place too; formulas and errors are in act.h. */
    void (*silu)(const float *x, float *y, size_t n);
    void (*gelu)(const float *x, float *y, size_t n); /* x * Phi(x), by erf */
    void (*gelu_tanh)(const float *x, float *y, size_t n);
    void (*relu)(const float *x, float *y, size_t n); /* NaN stays */
    void (*softcap)(float *x, float cap, size_t n);   /* x = cap * tanh(x / cap) */
    /* Rotates pairs (i, i + n/2) of one head (half-split order): cos, sin: [n/2]. */
    void (*rope_half)(float *x, const float *cos, const float *sin, size_t n);
    /* Rotates pairs (2 i, 2 i + 1); cos, sin: [n/2]. */
    void (*rope_pairs)(float *x, const float *cos, const float *sin, size_t n);
    /* In place over n scores: exp(x - max) / sum; the sum of exps in 8 lanes, then the tree. A row of only
     * -inf becomes zeros; a NaN or +inf makes the whole row NaN. */
    void (*softmax)(float *x, size_t n);
    /* In place: exp(x - most), what softmax adds up; the one exp of exp.h. */
    void (*exps)(float *x, float most, size_t n);
    /* First index of the maximum. A NaN anywhere: NaN and i_max = n. n = 0: -inf and i_max = 0. */
    float (*max)(const float *x, size_t n, size_t *i_max);

    /* One page of the cache: n_pos positions of one KV head, each n_dim values, k_stride values apart.
     * q: [n_q, n_dim] f32. scores[j * s_stride + p] = scale * dot(q_j, k_p).
     * out[j * n_dim + i] += weights[j * w_stride + p] * v[p, i], p ascending. Any n_q and n_dim; K and V
     * are converted once for every 8 query heads. */
    void (*attn_scores_f16)(const float *q, size_t n_q, const uint16_t *k, size_t k_stride, size_t n_pos,
                            size_t n_dim, float scale, float *scores, size_t s_stride);
    void (*attn_values_f16)(const float *weights, size_t w_stride, size_t n_q, const uint16_t *v,
                            size_t v_stride, size_t n_pos, size_t n_dim, float *out);
    void (*attn_scores_f32)(const float *q, size_t n_q, const float *k, size_t k_stride, size_t n_pos,
                            size_t n_dim, float scale, float *scores, size_t s_stride);
    void (*attn_values_f32)(const float *weights, size_t w_stride, size_t n_q, const float *v,
                            size_t v_stride, size_t n_pos, size_t n_dim, float *out);
    void (*f32_to_f16)(const float *x, uint16_t *y, size_t n);
    /* APR_ACT_SPLIT; NULL: no product of this table reads it. low is 0 where high is no number or infinite.
     */
    void (*split_bf16)(const float *x, uint16_t *high, uint16_t *low, size_t n);

    /* Data-quality statistics of n values, added to *s. Sums in 8 double lanes (lane = k mod 8) and the
     * tree, once per call: the sums' last bits depend on where the caller cuts, never on the table. */
    void (*stats)(const float *x, size_t n, struct apr_stats *s);
};

size_t apr_kern_scratch_bytes(size_t n_cols);
/* The best table for this CPU, or the one that APR_KERN names (unknown: APR_EUSAGE; this CPU cannot run
 * it: APR_EUNAVAIL). */
APR_MUST_USE enum apr_code apr_kern_pick(const struct apr_kern **k, struct apr_err *e);
/* i-th table that this CPU can run, NULL past the end; 0 is scalar. For tests. */
const struct apr_kern *apr_kern_at(size_t i);

extern const struct apr_kern apr_kern_scalar;
/* of one architecture each: pick.c knows which are here */
extern const struct apr_kern apr_kern_sse4, apr_kern_avx2, apr_kern_avx512, apr_kern_avx512bf16;
extern const struct apr_kern apr_kern_neon, apr_kern_dotprod;
extern const struct apr_kern apr_kern_simd128;

#endif
