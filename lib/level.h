/* Quantization levels of models, and the warning when two levels are compared (rule R3, F-GT-002).
 *
 * Plain numbers (F32, F16, BF16) are one level, every block type is its own.
 *
 *     apr_level_warn(a, b); apr_out_str(o, "quantization", apr_level_main(a));
 */
#ifndef APR_LEVEL_H
#define APR_LEVEL_H

#include "model.h"

/* The type that holds most bytes of the matrices; NULL without tensors. */
const char *apr_level_main(const struct apr_model *m);
/* Matrices that both models have, stored at different levels. */
uint64_t apr_level_mixed(const struct apr_model *a, const struct apr_model *b);
/* The same as a number, and a warning unless it is 0. */
uint64_t apr_level_warn(const struct apr_model *a, const struct apr_model *b);

#endif
