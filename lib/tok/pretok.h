/* Pre-tokenization: a text is cut into words, by steps that each split what the one before left.
 *
 * The steps come from tokenizer.json (pre_tokenizer) or from the row of GGUF's tokenizer.ggml.pre.
 *
 *     TRY(apr_pretok_open(&pt, steps, n_steps, arena, file, e));
 *     TRY(apr_pretok_run(&pt, &work, text, n, e));   then work.text and work.spans[work.cur]
 */
#ifndef APR_TOK_PRETOK_H
#define APR_TOK_PRETOK_H

#include "../arena.h"
#include "regex.h"
#include "words.h"

enum apr_split_how { /* what becomes of a match: tokenizers' SplitDelimiterBehavior */
                     APR_SPLIT_ISOLATED,
                     APR_SPLIT_REMOVED,
                     APR_SPLIT_WITH_PREVIOUS,
                     APR_SPLIT_WITH_NEXT,
                     APR_SPLIT_CONTIGUOUS
};

#define APR_BAR       "\xe2\x96\x81" /* U+2581, how SentencePiece writes a blank */
#define APR_BAR_BYTES 3

enum apr_metaspace { /* blanks become U+2581; is one put in front of a part that begins with none? */
                     APR_META_NONE = 0, /* no such step */
                     APR_META_NEVER,
                     APR_META_FIRST, /* of the part that begins the text */
                     APR_META_ALWAYS
};

struct apr_pre_step {
    const char *pattern; /* NULL: only prefix_space or metaspace */
    enum apr_split_how how;
    bool invert;       /* matches are what lies between, and the reverse */
    bool literal;      /* the pattern is a plain string */
    bool trusted;      /* known by the table: no step budget */
    bool prefix_space; /* a space goes in front of every part that does not begin with one, first */
    bool thousands;    /* cuts numbers into threes from their end; the pattern is what tokenizer.json says */
    enum apr_metaspace metaspace;
};

#define APR_PRE_MAX_STEPS 16

struct apr_pretok {
    struct apr_pre_step steps[APR_PRE_MAX_STEPS];
    struct apr_regex *regex[APR_PRE_MAX_STEPS]; /* owned */
    apr_words_fn *words[APR_PRE_MAX_STEPS];     /* the pattern written out, or NULL */
    size_t n_steps;
};

struct apr_span {
    uint32_t off, n_bytes;
};

/* Scratch of one apr_tok_encode. */
struct apr_pretok_work {
    struct apr_regex_run run;
    struct apr_buf spans[2]; /* struct apr_span */
    struct apr_buf texts[2]; /* text with spaces put in */
    struct apr_buf marks;    /* one byte a part: is it a match */
    bool at_start;           /* the caller's: the text begins what is tokenized */
    const uint8_t *text;     /* result: spans index into it */
    const struct apr_span *at;
    size_t n;
};

APR_MUST_USE enum apr_code apr_pretok_open(struct apr_pretok *pt, const struct apr_pre_step *steps,
                                           size_t n_steps, const char *file, struct apr_err *e);
void apr_pretok_close(struct apr_pretok *pt);
APR_MUST_USE enum apr_code apr_pretok_work_init(struct apr_pretok_work *w, size_t n_text_bytes,
                                                struct apr_err *e);
void apr_pretok_work_free(struct apr_pretok_work *w);
/* text is well-formed UTF-8 of less than 4 GiB; valid until the next run on w. */
APR_MUST_USE enum apr_code apr_pretok_run(const struct apr_pretok *pt, struct apr_pretok_work *w,
                                          const uint8_t *text, size_t n, struct apr_err *e);

#endif
