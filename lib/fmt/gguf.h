/* GGUF: v2 and v3 are read, v3 is written.
 *
 * Layout: "GGUF", u32 version, u64 n_tensors, u64 n_kv, key-values, tensor infos, padding to the alignment,
 * data; each tensor padded to the alignment, in the order of the infos, without gaps. Source: the GGUF
 * specification of the ggml project. Dimensions are reversed here and nowhere else. A split GGUF is a set of
 * such files, PREFIX-00001-of-0000N.gguf ..., whose first one has the keys.
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

/* One file of a model: m->files[i_file] is set. Its keys go to kvs (those of the first file: m->kvs), its
 * tensors behind those of m, with GGUF names. */
struct apr_gguf_part {
    uint32_t i_file;
    struct apr_kvs *kvs;
    bool keys_only;                /* stop before the tensors; nothing is consumed or added to m's tensors */
    struct apr_gguf_arrays arrays; /* out */
    uint64_t no, n_parts, n_total; /* out: split.no, split.count (0: no such key), split.tensors.count */
};
APR_MUST_USE enum apr_code apr_gguf_read_part(struct apr_model *m, struct apr_gguf_part *part,
                                              struct apr_err *e);
/* In gguf_split.c. Every part of the set that path belongs to, which is the name of src (both m's), into m.
 * *is_set: false when path is not named like a part or its file says that it is none: nothing was done. */
APR_MUST_USE enum apr_code apr_gguf_read_set(struct apr_model *m, struct apr_src *src, const char *path,
                                             struct apr_gguf_arrays *arrays, bool *is_set, struct apr_err *e);

/* The vocabulary's character map from m->kvs, where there is one; in gguf_vocab.c. */
APR_MUST_USE enum apr_code apr_gguf_charsmap(struct apr_model *m, const char *file, struct apr_err *e);
/* model->vocab from the arrays and from the tokenizer keys of model->kvs; in gguf_vocab.c. */
APR_MUST_USE enum apr_code apr_gguf_vocab(struct apr_model *m, const struct apr_gguf_arrays *a,
                                          const char *file, struct apr_err *e);

/* Key, type and value as they stand in a file. */
APR_MUST_USE enum apr_code apr_gguf_put_kv(struct apr_buf *b, const struct apr_kv *kv, struct apr_err *e);
/* The writer's half of the vtable, in gguf_write.c. */
enum apr_code apr_gguf_begin(const struct apr_plan *p, struct apr_sink *s, struct apr_writer **w,
                             struct apr_err *e);
enum apr_code apr_gguf_end(struct apr_writer *w, const json_t *trailer, struct apr_err *e);
enum apr_code apr_gguf_measure(const struct apr_plan *p, uint64_t *n_head, uint64_t *n_total,
                               struct apr_err *e);
bool apr_gguf_holds(enum apr_type type);

#endif
