/* Added tokens: texts that are found before the model runs, leftmost first and longest there, as Hugging
 * Face's AddedVocabulary finds them.
 *
 *     TRY(apr_added_open(&a, tokens, n, arena, file, e));
 *     while (apr_added_next(&a, text, n, &at, with_special, &hit)) ...
 */
#ifndef APR_TOK_ADDED_H
#define APR_TOK_ADDED_H

#include <stdbool.h>

#include "../arena.h"
#include "../kv.h"
#include "trie.h"

struct apr_added_tok {
    struct apr_str text;
    int32_t id;
    bool special;        /* found only when special tokens are to be parsed */
    bool lstrip, rstrip; /* takes the white space before, after */
    bool single_word;    /* not beside a word character */
};

struct apr_added {
    struct apr_added_tok *toks;
    uint32_t n_toks;
    struct apr_trie trie; /* values: index into toks */
};

struct apr_added_hit {
    size_t start, end; /* with the stripped white space */
    const struct apr_added_tok *tok;
};

/* toks is borrowed. Refuses empty and overlong texts. */
APR_MUST_USE enum apr_code apr_added_open(struct apr_added *a, struct apr_added_tok *toks, uint32_t n_toks,
                                          struct apr_arena *arena, const char *file, struct apr_err *e);
/* The next token at or after *at, which moves past it; done is where the text is not yet spoken for. */
bool apr_added_next(const struct apr_added *a, const uint8_t *p, size_t n, size_t done, size_t *at,
                    bool with_special, struct apr_added_hit *hit);

#endif
