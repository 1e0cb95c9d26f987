/* A computed prompt on disk: tokens and their rows of the cache, so that the next run begins behind what both
 * prompts have in common. Reused rows are the bits that computing them again would give.
 *
 * The file, little endian:
 *
 *     0  "APRPROM1"            8  u64 model (model_id.h)
 *    16  u32 type of keys     20  u32 type of values (GGML's ids; latent attention has no values: 0)
 *    24  u32 layers           28  u32 KV heads
 *    32  u32 key values       36  u32 value values, of one head
 *    40  u32 flags: 1 reference mode, 2 keys turned by the long set of longrope
 *    44  u32 window of local layers; 0: there are none
 *    48  u64 tokens           56  u64 first block of local layers
 *    64  i32 ids [tokens], zeros to a multiple of 64
 *        blocks of 16 positions, the last one shorter, of all layers that see everything; then those of
 *        local layers from the first that they still held. In a block for each layer and KV head the rows
 *        of keys, then those of values (kern/page.h)
 *   end  u64 XXH3 of all before
 *
 * It is written beside its name and renamed. A file that is cut or damaged is APR_EFORMAT; one of another
 * model or of another kind of cache APR_ECONTRACT.
 *
 *     struct apr_prompt_cache p = {.path = "p.cache"};
 *     TRY(apr_prompt_cache_open(&p, model, exact, &blocks, e));
 *     TRY(apr_prompt_cache_restore(&p, &cache, ids, n, e)); ... the rest of the prompt ...;
 *     TRY(apr_prompt_cache_save(&p, &cache, e)); apr_prompt_cache_close(&p);
 */
#ifndef APR_INFER_PROMPT_CACHE_H
#define APR_INFER_PROMPT_CACHE_H

#include "cache.h"
#include "io.h"
#include "model.h"

struct apr_prompt_cache {
    const char *path; /* borrowed */
    bool all;         /* what was generated is saved, too */
    bool read_only;   /* the file must be there and stays as it is */
    /* set by open */
    uint64_t model;
    bool exact;
    struct apr_src *src;                     /* owned; NULL: there is no file yet */
    const uint8_t *ids;                      /* of the map: [n_toks] little-endian */
    const uint8_t *blocks[APR_CACHE_GROUPS]; /* of the map */
    size_t first_block[APR_CACHE_GROUPS];    /* that the file has */
    size_t n_toks;
    bool is_long;
    size_t n_reused; /* tokens that the last restore took over */
};

/* blocks: of the caches that will be restored. No file at path: fine unless read_only. */
APR_MUST_USE enum apr_code apr_prompt_cache_open(struct apr_prompt_cache *p, const struct apr_model *m,
                                                 bool exact, const struct apr_blocks *blocks,
                                                 struct apr_err *e);
void apr_prompt_cache_close(struct apr_prompt_cache *p);
/* Fills an empty cache with what ids [n] and the file have in common, n - 1 tokens at most: p->n_reused. None
 * where local layers would see positions that the file has not. */
APR_MUST_USE enum apr_code apr_prompt_cache_restore(struct apr_prompt_cache *p, struct apr_cache *cache,
                                                    const int32_t *ids, size_t n, struct apr_err *e);
/* All that the file has and the cache takes. Ids that the model has not: APR_EFORMAT. */
APR_MUST_USE enum apr_code apr_prompt_cache_restore_all(struct apr_prompt_cache *p, struct apr_cache *cache,
                                                        uint32_t n_vocab, struct apr_err *e);
/* Replaces the file by what the cache holds, unless it is read_only or the file holds that already. */
APR_MUST_USE enum apr_code apr_prompt_cache_save(const struct apr_prompt_cache *p,
                                                 const struct apr_cache *cache, struct apr_err *e);

#endif
