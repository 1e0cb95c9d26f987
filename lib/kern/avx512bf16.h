/* What the table for CPUs with AVX512-BF16 has of its own: products of BF16.
 *
 * Shared by the avx512bf16*.c files only. Nothing here is owned; see kern.h for every contract.
 *
 *     [APR_BF16] = {apr_avx512bf16_rounded_bf16, APR_ACT_SPLIT, apr_avx512_bf16, NULL, NULL},
 */
#ifndef APR_KERN_AVX512BF16_H
#define APR_KERN_AVX512BF16_H

#include "kern.h"

/* avx512bf16_pairs.c */
apr_matmul_fn apr_avx512bf16_rounded_bf16;

#endif
