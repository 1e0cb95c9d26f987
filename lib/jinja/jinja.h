/* Jinja as chat templates use it, after the behaviour of Jinja2 set up as transformers does:
 * trim_blocks, lstrip_blocks, loop controls, tojson without HTML escaping, raise_exception, strftime_now.
 *
 * Hostile input: limits on steps, depth and output; no file access, no attributes beyond the data.
 *
 *     struct apr_jinja *t; TRY(apr_jinja_parse(&t, text, n, e));
 *     TRY(apr_jinja_render(t, context, &limits, &out, e)); apr_jinja_free(t);
 */
#ifndef APR_JINJA_H
#define APR_JINJA_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "../buf.h"
#include "../err.h"

struct apr_jinja;

struct apr_jinja_opts {
    uint64_t max_steps;   /* 0 = 4 million */
    uint32_t max_depth;   /* of macro calls; 0 = 64. Nested evaluation of any kind: 16 times as deep */
    size_t max_out_bytes; /* 0 = 16 MiB */
    int64_t now_s;        /* UTC seconds for strftime_now; INT64_MIN = the clock */
    /* Literal template text and data text are told apart: when set, called for each piece of output in order;
     * from_data is true for bytes that came (even partly) out of the context, its top-level variables whose
     * names end in "_token" (bos_token ...) excepted: those the program sets. NULL: only out is filled.
     * Nothing is called, and out stays as it was, when rendering fails. */
    enum apr_code (*piece)(void *ctx, const char *p, size_t n, bool from_data, struct apr_err *e);
    void *piece_ctx;
};

/* A syntax error is APR_ECONTRACT "template: line N: ..." */
APR_MUST_USE enum apr_code apr_jinja_parse(struct apr_jinja **out, const char *text, size_t n_bytes,
                                           struct apr_err *e);
void apr_jinja_free(struct apr_jinja *t);
/* context: an object, borrowed for the call; its members are the template's variables (messages, tools,
 * add_generation_prompt, bos_token ...). raise_exception gives APR_ECONTRACT with exactly its message in
 * e->text. */
APR_MUST_USE enum apr_code apr_jinja_render(const struct apr_jinja *t, const json_t *context,
                                            const struct apr_jinja_opts *opts, struct apr_buf *out,
                                            struct apr_err *e);

#endif
