/* The merges of a BPE vocabulary, and their application to the symbols of a word.
 *
 * The neighbouring pair of lowest rank merges until none is left, the leftmost first among equals. Short
 * words scan for the minimum; long ones keep a heap over a linked list, so that a word of n symbols costs n
 * log n.
 *
 *     TRY(apr_merges_open(&m, t, e)); TRY(apr_merges_run(&m, work, syms, n_syms, ids, e));
 */
#ifndef APR_TOK_MERGES_H
#define APR_TOK_MERGES_H

#include "kind.h"

struct apr_pair { /* slot of the merge table */
    int32_t left, right;
    uint32_t rank; /* 0: free, else 1 + index of the merge */
    int32_t id;
};

struct apr_merges {
    struct apr_pair *pairs; /* [mask + 1], in the tokenizer's arena */
    uint64_t mask, seed;
};

/* Refuses what changes the merging and is not built: $.model's dropout, prefix and suffix. */
APR_MUST_USE enum apr_code apr_bpe_options(const struct apr_tok *t, const json_t *model, struct apr_err *e);
/* t->by_text is filled. Refuses a merge whose parts or product are no tokens. */
APR_MUST_USE enum apr_code apr_merges_open(struct apr_merges *m, struct apr_tok *t, struct apr_err *e);
/* Appends what becomes of syms, which are overwritten. */
APR_MUST_USE enum apr_code apr_merges_run(const struct apr_merges *m, struct apr_tok_work *w, int32_t *syms,
                                          size_t n_syms, struct apr_ids *ids, struct apr_err *e);

#endif
