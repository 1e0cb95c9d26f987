/* Where a prompt comes from: an operand, an option, a file or standard input; as bytes.
 *
 *     struct apr_prompt_from from = {.operand = ..., .text = args->prompt, .file = args->input};
 *     TRY(apr_prompt_read(&from, &buf, e));
 */
#ifndef APR_INFER_PROMPT_H
#define APR_INFER_PROMPT_H

#include "buf.h"
#include "tok/tok.h"

struct apr_prompt_from {
    const char *model;   /* the model operand: "-" takes standard input away */
    const char *operand; /* a prompt, or "-" for standard input; NULL = not given */
    const char *text;    /* --prompt; NULL = not given */
    const char *file;    /* --input, "-" for standard input; NULL = not given */
};

/* Exactly one of the three must be given, else APR_EUSAGE. b was initialised by the caller. Every byte is
 * kept. */
APR_MUST_USE enum apr_code apr_prompt_read(const struct apr_prompt_from *from, struct apr_buf *b,
                                           struct apr_err *e);
/* Plain text to ids: special tokens parsed, and the tokenizer's own BOS in front unless the text begins with
 * it. */
APR_MUST_USE enum apr_code apr_prompt_encode(const struct apr_tok *tok, const struct apr_vocab *v,
                                             const char *text, size_t n_bytes, struct apr_ids *ids,
                                             struct apr_err *e);

#define APR_MAX_PROMPT_BYTES (256u << 20)

#endif
