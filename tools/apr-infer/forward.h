/* The forward pass of a decoder, a step at a time: some tokens of one sequence or of several. What it
 * computes is said by struct apr_config.
 *
 * A token's results are the same bits for any step that it is part of, thread count, page layout and kernel
 * table. The reference mode (exact) keeps activations and cache in f32.
 *
 *     struct apr_forward f; TRY(apr_forward_open(&f, &checked, kern, pool, exact, n_batch, e));
 *     TRY(apr_forward_prompt(&f, &cache, ids, n, e));          // any n; the last step's rows remain
 *     TRY(apr_forward_logits(&f, f.n_toks - 1, 1, logits, e));
 *     const struct apr_part parts[] = {{.cache = &a, .ids = &x, .n = 1}, {.cache = &b, .ids = ids, .n = n}};
 *     TRY(apr_forward_step(&f, parts, 2, e));                  // row 0 is x, rows 1 .. n are ids
 *     TRY(apr_forward_logits_of(&f, (size_t[]){0, n}, 2, logits, e)); apr_forward_close(&f);
 */
#ifndef APR_INFER_FORWARD_H
#define APR_INFER_FORWARD_H

#include <stdatomic.h>

#include "attention.h"
#include "cache.h"
#include "offload.h"
#include "probe.h"
#include "rope.h"
#include "strips.h"
#include "weights.h"

/* Latent attention's own buffers; k_dim = kv_rank + n_rope. */
struct apr_mla_room {
    struct apr_acts q_a;    /* [n_batch, q_rank] */
    struct apr_acts q_nope; /* [n_batch, n_heads * n_nope] */
    struct apr_acts latent; /* [n_batch, n_heads * kv_rank] output of attention, before v_b */
    float *q;               /* [n_batch, n_heads * k_dim] queries against the cache */
    struct apr_map *maps;   /* [n_heads] */
    struct apr_acts *views; /* [n_heads] */
};

/* Room of the experts. A row is one expert's share of one token; rows of an expert are side by side. */
struct apr_moe_room {
    float *scores, *room;                  /* [n_batch, n_experts] */
    float *shared_gate;                    /* [n_batch] weight of the shared expert */
    float *shared;                         /* [n_batch, n_hidden] what it adds */
    struct apr_acts shared_mid;            /* [n_batch, n_inter_shared] */
    float *shared_room;                    /* the same shape */
    uint32_t *expert;                      /* [n_batch, n_used] chosen, the best first */
    float *weight;                         /* [n_batch, n_used] */
    uint32_t *row;                         /* [n_batch, n_used] where the share is computed */
    uint32_t *first_row;                   /* [n_experts + 1] */
    struct apr_acts in;                    /* [n_batch * n_used, n_hidden] */
    struct apr_acts mid;                   /* [n_batch * n_used, n_inter] */
    float *gate, *out;                     /* rows of mid and of in */
    struct apr_map *maps;                  /* [n_experts + 1]: the shared expert is the last */
    struct apr_acts *in_views, *mid_views; /* [n_experts] */
};

/* n >= 1 tokens to be appended to one sequence; use designated initializers. */
struct apr_part {
    struct apr_cache *cache;
    const int32_t *ids;
    size_t n;
    size_t n_later; /* tokens of the same prompt that later steps bring: some rotations depend on the whole */
};

/* One token of a step. */
struct apr_row {
    struct apr_cache *cache;
    size_t pos;
    int32_t id;
    uint32_t i_logits; /* with offload: its row of device_logits, or APR_NO_LOGITS */
};
#define APR_NO_LOGITS UINT32_MAX

typedef enum apr_code apr_take_rows_fn(void *ctx, size_t i_tok, size_t n_rows, const float *logits,
                                       struct apr_err *e);

struct apr_forward {
    struct apr_arena arena; /* owns all below */
    struct apr_weights w;
    struct apr_compute c;
    struct apr_attn_room attn;
    struct apr_strips strips;
    size_t n_batch;              /* most tokens of a step */
    size_t n_toks;               /* of the step last run */
    size_t pos0;                 /* position of its first token */
    struct apr_row *rows;        /* [n_batch]; [n_toks] are set */
    struct apr_attn_span *spans; /* [n_batch]; [n_spans] are set: one for each part of the step */
    size_t n_spans;

    float *x;            /* [n_batch, n_hidden] residual stream */
    struct apr_acts h;   /* [n_batch, n_hidden] normed input of a block */
    struct apr_acts att; /* [n_batch, n_heads * v_dim] output of attention */
    struct apr_acts ffn; /* [n_batch, n_inter] act(gate) * up */
    float *q, *k, *v;    /* of the step, before the cache */
    float *gate;         /* [n_batch, n_inter] */
    float *y;            /* [n_batch, n_hidden] what a block adds to x */
    struct apr_attn_shape shape;
    struct apr_rope_table rope, rope_local; /* rope_local: n_half 0 where local layers turn as the others */
    struct apr_mla_room mla;
    struct apr_moe_room moe;

    atomic_bool *is_bad; /* [n_batch] a row of the logits computed last has NaN or Inf */

    bool shows_plan;             /* offloading says what memory it takes, before it loads */
    struct apr_offload *offload; /* owned; NULL: computed here. Then x and the cache's pages stay empty */
    float *device_logits;        /* [n_device_rows, n_vocab] of the step last run, with offload */
    size_t n_device_rows;

    apr_probe_fn *probe; /* NULL: none */
    void *probe_ctx;
};

static inline void apr_forward_mark(const struct apr_forward *f, enum apr_op op, uint32_t i_layer)
{
    if (f->probe) f->probe(f->probe_ctx, op, i_layer);
}

APR_MUST_USE enum apr_code apr_forward_open(struct apr_forward *f, const struct apr_checked_model *m,
                                            const struct apr_kern *kern, struct apr_pool *pool, bool exact,
                                            size_t n_batch, struct apr_err *e);
void apr_forward_close(struct apr_forward *f);
/* Moves the forward pass to a device: as devices.h reads it. n_ctx: positions of all
 * caches. */
APR_MUST_USE enum apr_code apr_forward_offload(struct apr_forward *f, const char *device,
                                               const struct apr_model *m, size_t n_ctx, struct apr_err *e);
/* Appends each part's tokens to its sequence, at most n_batch in all, and advances the caches, of which no
 * two are the same. The tokens become rows 0 .. in the order of the parts. After an error no cache has
 * advanced. A cache that is lost, or turned to the other rotation, is computed again first. */
APR_MUST_USE enum apr_code apr_forward_step(struct apr_forward *f, const struct apr_part *parts,
                                            size_t n_parts, struct apr_err *e);
/* One part: n <= n_batch tokens at positions cache->n_pos ... */
APR_MUST_USE enum apr_code apr_forward_chunk(struct apr_forward *f, struct apr_cache *cache,
                                             const int32_t *ids, size_t n, struct apr_err *e);
/* Any n >= 1 tokens, step by step; afterwards f holds the last step. */
APR_MUST_USE enum apr_code apr_forward_prompt(struct apr_forward *f, struct apr_cache *cache,
                                              const int32_t *ids, size_t n, struct apr_err *e);
/* logits: [n_rows, n_vocab] of tokens i_tok .. of the last step. NaN or Inf: APR_EINFER naming the position.
 * A device keeps them for the last token of each part, and for all tokens of a part of at most
 * APR_DEVICE_ROWS; others: APR_EUNAVAIL. */
APR_MUST_USE enum apr_code apr_forward_logits(struct apr_forward *f, size_t i_tok, size_t n_rows,
                                              float *logits, struct apr_err *e);
#define APR_DEVICE_ROWS 32u
/* The same of any n_rows <= n_batch tokens of the last step, in any order: the head is read once for all. One
 * sequence's NaN is not the others' error: the caller checks each row. */
APR_MUST_USE enum apr_code apr_forward_logits_of(struct apr_forward *f, const size_t *i_toks, size_t n_rows,
                                                 float *logits, struct apr_err *e);
/* On a device: the logits of a token of the last step that is its part's last, where they already are, until
 * the next step. Else NULL. */
const float *apr_forward_kept(const struct apr_forward *f, size_t i_tok);
/* Row i_row of what logits_of gave last, that of token i_tok: NaN or Inf is APR_EINFER naming the position.
 */
APR_MUST_USE enum apr_code apr_forward_check(const struct apr_forward *f, size_t i_tok, size_t i_row,
                                             const float *logits, struct apr_err *e);
/* Runs n <= n_batch tokens and gives the logits after each, also on a device: [n, n_vocab]. */
APR_MUST_USE enum apr_code apr_forward_rows(struct apr_forward *f, struct apr_cache *cache,
                                            const int32_t *ids, size_t n, float *logits, struct apr_err *e);
/* hidden: [n_rows, n_hidden] of tokens i_tok .. of the last step, after the final norm. */
void apr_forward_hidden(const struct apr_forward *f, size_t i_tok, size_t n_rows, float *hidden);
/* Runs n tokens and hands out all their logits in order, at most 32 rows at a time: rows of tokens i_tok ..
 */
APR_MUST_USE enum apr_code apr_forward_all_logits(struct apr_forward *f, struct apr_cache *cache,
                                                  const int32_t *ids, size_t n, apr_take_rows_fn *take,
                                                  void *ctx, struct apr_err *e);

#endif
