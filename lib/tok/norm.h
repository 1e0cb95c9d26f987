/* Normalizers of tokenizer.json: what happens to a text between added tokens before it is cut into words.
 *
 * Normal forms by utf8proc's tables, with the reordering of combining marks done here so that a long run of
 * them takes linear time.
 *
 *     TRY(apr_norm_read(json, arena, &norm, file, e)); TRY(apr_norm_run(&norm, &work, p, n, e)); work.p,
 * work.n
 */
#ifndef APR_TOK_NORM_H
#define APR_TOK_NORM_H

#include <jansson.h>
#include <stdbool.h>

#include "../arena.h"
#include "../buf.h"
#include "../kv.h"
#include "charsmap.h"
#include "regex.h"

enum apr_norm_op {
    APR_NORM_NFC,
    APR_NORM_NFD,
    APR_NORM_NFKC,
    APR_NORM_NFKD,
    APR_NORM_LOWER,
    APR_NORM_PREPEND,       /* a in front of a text that is not empty */
    APR_NORM_REPLACE,       /* a -> b */
    APR_NORM_REPLACE_RUNS,  /* two blanks and more -> b */
    APR_NORM_REPLACE_REGEX, /* what regex matches -> b */
    APR_NORM_STRIP,         /* white space at the front (left), at the end (right) */
    APR_NORM_DROP_MARKS,    /* every combining mark */
    APR_NORM_DROP_ACCENTS,  /* the nonspacing ones */
    APR_NORM_CLEAN,         /* BERT: control characters vanish, white space becomes a blank */
    APR_NORM_SPACE_CJK,     /* BERT: blanks around ideographs */
    APR_NORM_NMT,           /* SentencePiece's nmt: the same for its own lists */
    APR_NORM_CHARSMAP       /* a precompiled character map */
};

#define APR_NORM_MAX_STEPS 16

struct apr_norm_step {
    enum apr_norm_op op;
    bool left, right;
    bool longest;            /* of a character map: SentencePiece's search; else tokenizers' by clusters */
    struct apr_str a;        /* what to prepend, what to replace */
    struct apr_str b;        /* the replacement */
    struct apr_regex *regex; /* owned */
    const struct apr_charsmap *map;
};

struct apr_norm {
    struct apr_norm_step steps[APR_NORM_MAX_STEPS];
    size_t n_steps;
};

struct apr_norm_work {
    struct apr_buf cps;   /* int32_t code points */
    struct apr_buf order; /* scratch of the reordering */
    struct apr_buf texts[2];
    const uint8_t *p; /* result; may be the input */
    size_t n;
};

/* $.normalizer of tokenizer.json. In norm_read.c. */
APR_MUST_USE enum apr_code apr_norm_read(const json_t *normalizer, struct apr_arena *arena,
                                         struct apr_norm *out, const char *file, struct apr_err *e);
void apr_norm_close(struct apr_norm *norm);
void apr_norm_work_init(struct apr_norm_work *w);
void apr_norm_work_free(struct apr_norm_work *w);
APR_MUST_USE enum apr_code apr_norm_run(const struct apr_norm *norm, struct apr_norm_work *w,
                                        const uint8_t *p, size_t n, struct apr_err *e);

#endif
