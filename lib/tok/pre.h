/* Known pre-tokenizers: GGUF's tokenizer.ggml.pre names, each with the steps that its models' tokenizer.json
 * define, and the reading of that JSON.
 *
 *     row = apr_pre_named("qwen2");
 *     TRY(apr_pre_read(hf, arena, steps, &n_steps, file, e)); name = apr_pre_name(steps, n_steps, ...)
 */
#ifndef APR_TOK_PRE_H
#define APR_TOK_PRE_H

#include <jansson.h>

#include "pretok.h"

struct apr_pre_row {
    const char *names;                            /* space-separated; the first is the one to write */
    struct apr_pre_step steps[APR_PRE_MAX_STEPS]; /* ends at a row without pattern */
    bool nfc;                                     /* the models normalize to NFC first */
    bool ignore_merges;                           /* a word that is a token is not merged */
    bool add_bos;                                 /* where the file does not say */
};

const struct apr_pre_row *apr_pre_at(size_t i); /* NULL past the end */
const struct apr_pre_row *apr_pre_named(const char *name);
size_t apr_pre_n_steps(const struct apr_pre_row *row);

/* The table's step of this pattern, or NULL. */
const struct apr_pre_step *apr_pre_known(const char *pattern);
const char *apr_pre_gpt2(void); /* what ByteLevel with use_regex splits by */

/* The steps of tokenizer.json's pre_tokenizer (NULL or null: none). Marks known patterns as trusted. In
 * pre_read.c. */
APR_MUST_USE enum apr_code apr_pre_read(const json_t *pre_tokenizer, struct apr_arena *arena,
                                        struct apr_pre_step *steps, size_t *n_steps, const char *file,
                                        struct apr_err *e);
/* The first row with these steps that agrees on ignore_merges or add_bos where rows differ in them; NULL when
 * the table has none. */
const struct apr_pre_row *apr_pre_find(const struct apr_pre_step *steps, size_t n_steps, bool ignore_merges,
                                       bool add_bos);

#endif
