/* One number for a model as it computes: the same for the same file wherever it lies and whenever it was
 * written.
 *
 * Hyper-parameters, the table of tensors (names, types, shapes) and samples of each tensor's data: its first,
 * middle and last 4 KiB, so that two trainings of one shape differ. The maker's version is part of it:
 * another version may sum in another order.
 *
 *     uint64_t id = apr_model_id(m);
 */
#ifndef APR_INFER_MODEL_ID_H
#define APR_INFER_MODEL_ID_H

#include "model.h"

/* m is mapped. */
uint64_t apr_model_id(const struct apr_model *m);

#endif
