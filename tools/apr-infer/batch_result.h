/* The line that answers a request: the project's own form, or OpenAI's.
 *
 * The same answer gives the same bytes, unless times are asked for.
 *
 *     struct apr_result a = {.i_line = i, .request = &r, .tok = tok, ...};
 *     TRY(apr_result_put(&a, &buf, e));   // one line with its newline
 */
#ifndef APR_INFER_BATCH_RESULT_H
#define APR_INFER_BATCH_RESULT_H

#include "crew.h"
#include "request.h"

struct apr_result {
    uint64_t i_line; /* of the request, from 0 */
    const struct apr_request *request;
    const struct apr_seat *seat; /* NULL: it failed before it ran */
    const struct apr_tok *tok;   /* NULL: no tokenizer */
    const char *model;
    enum apr_code code; /* other than APR_OK: why is said by err */
    const struct apr_err *err;
    bool with_tokens, with_times;
};

APR_MUST_USE enum apr_code apr_result_put(const struct apr_result *a, struct apr_buf *b, struct apr_err *e);

/* What a line of results says of itself. */
struct apr_result_key {
    uint64_t i_line;
    uint64_t id_hash; /* of the request's id; 0: it has none */
    bool failed;
};
/* false: the text is no line of results. */
bool apr_result_read(const char *text, size_t n_bytes, struct apr_result_key *key);
uint64_t apr_request_id_hash(const json_t *id); /* NULL: 0 */

#endif
