/* The checks behind the rubric's points, grouped as the rubric is. Each writes what it found. */
#ifndef APR_QA_POINTS_H
#define APR_QA_POINTS_H

#include "rubric.h"

typedef enum point_status point_fn(const struct facts *f, char *detail, size_t n);

/* points_file.c: A, the container */
point_fn point_magic, point_header, point_version, point_checksum, point_metadata, point_alignment,
    point_sorted, point_compression, point_shards, point_endianness, point_flags, point_footer, point_size,
    point_bounds, point_meta_size, point_names_text, point_names_unique, point_dims, point_scalars,
    point_types, point_padding;
/* points_data.c: B, the weights; D, what an import must have kept */
point_fn point_nan, point_inf, point_norm_mean, point_norm_bias, point_embed_std, point_zero, point_shapes,
    point_vocab, point_quant, point_linear_mean, point_token_ids, point_f16_range, point_sparsity,
    point_large, point_names_family, point_orientation, point_sources, point_license, point_family,
    point_special;

#endif
