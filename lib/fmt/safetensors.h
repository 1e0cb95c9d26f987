/* SafeTensors: one shard at a time, for the single file and for the folder.
 *
 * Layout: u64 N, N bytes of JSON {"name": {"dtype", "shape", "data_offsets"}, "__metadata__": {...}}, data.
 * Source: the format description in huggingface/safetensors. The ranges must tile the data exactly, so that
 * no byte of the file is unaccounted for.
 *
 *     m->files[i].src = src; TRY(apr_st_read_shard(m, i, &metadata, e)); ... json_decref(metadata);
 */
#ifndef APR_FMT_SAFETENSORS_H
#define APR_FMT_SAFETENSORS_H

#include "fmt.h"

/* Reads the header of m->files[i_file], whose source is at position 0, and adds its tensors, unsorted.
 * *metadata: __metadata__ or NULL; a new reference. */
APR_MUST_USE enum apr_code apr_st_read_shard(struct apr_model *m, uint32_t i_file, json_t **metadata,
                                             struct apr_err *e);
/* Name of a storage type in SafeTensors, or NULL where it has none. */
const char *apr_st_dtype_name(enum apr_type type);

/* The writer's half of the vtable, in st_write.c. */
enum apr_code apr_st_begin(const struct apr_plan *p, struct apr_sink *s, struct apr_writer **w,
                           struct apr_err *e);
enum apr_code apr_st_end(struct apr_writer *w, const json_t *trailer, struct apr_err *e);
enum apr_code apr_st_measure(const struct apr_plan *p, uint64_t *n_head, uint64_t *n_total,
                             struct apr_err *e);

#endif
