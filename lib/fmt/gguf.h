/* GGUF: v2 and v3 are read, v3 is written.
 *
 * Layout: "GGUF", u32 version, u64 n_tensors, u64 n_kv, key-values, tensor infos, padding to the alignment,
 * data; each tensor padded to the alignment, in the order of the infos, without gaps. Source: the GGUF
 * specification of the ggml project. Dimensions are reversed here and nowhere else.
 */
#ifndef APR_FMT_GGUF_H
#define APR_FMT_GGUF_H

#include "fmt.h"

#define APR_GGUF_ALIGNMENT  32u /* where general.alignment is absent */
#define APR_GGUF_MAX_DIMS   4u
#define APR_GGUF_NAME_BYTES 64u

/* The long arrays of the tokenizer, which go into the vocabulary and not into model->kvs. */
struct apr_gguf_arrays {
    struct apr_kv tokens, types, scores, merges; /* type is APR_KV_ARRAY where the file has it */
};

/* model->vocab from the arrays and from the tokenizer keys of model->kvs; in gguf_vocab.c. */
APR_MUST_USE enum apr_code apr_gguf_vocab(struct apr_model *m, const struct apr_gguf_arrays *a,
                                          const char *file, struct apr_err *e);

/* The writer's half of the vtable, in gguf_write.c. */
enum apr_code apr_gguf_begin(const struct apr_plan *p, struct apr_sink *s, struct apr_writer **w,
                             struct apr_err *e);
enum apr_code apr_gguf_end(struct apr_writer *w, const json_t *trailer, struct apr_err *e);
enum apr_code apr_gguf_measure(const struct apr_plan *p, uint64_t *n_head, uint64_t *n_total,
                               struct apr_err *e);
bool apr_gguf_holds(enum apr_type type);

#endif
