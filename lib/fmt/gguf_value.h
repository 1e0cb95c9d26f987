/* Names and values of GGUF's keys, as they stand in the file (gguf facts, 2). What they allocate is the
 * arena's and never more than the bytes that really come.
 *
 *     TRY(apr_gguf_name(&in, 65535, "key", &kv.key, e)); kv.type = ...; TRY(apr_gguf_value(&in, &kv, e));
 */
#ifndef APR_GGUF_VALUE_H
#define APR_GGUF_VALUE_H

#include "../arena.h"
#include "../kv.h"
#include "../rd.h"

struct apr_gguf_in {
    struct apr_rd rd;
    struct apr_arena *arena; /* borrowed */
    const char *file;        /* for messages */
};

/* A key or a tensor name: not empty, at most max_bytes, no NUL inside. */
APR_MUST_USE enum apr_code apr_gguf_name(struct apr_gguf_in *in, uint64_t max_bytes, const char *what,
                                         struct apr_str *s, struct apr_err *e);
/* The value of kv->type, a known one; kv->key names it in messages. */
APR_MUST_USE enum apr_code apr_gguf_value(struct apr_gguf_in *in, struct apr_kv *kv, struct apr_err *e);

#endif
