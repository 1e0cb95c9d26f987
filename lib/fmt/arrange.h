/* A checkpoint's tensors as its family has them: names in one spelling, experts stacked, Conv1D matrices
 * turned, buffers that hold no weights left out.
 *
 *     TRY(apr_derive_config(m, e)); TRY(apr_arrange(m, e));
 */
#ifndef APR_FMT_ARRANGE_H
#define APR_FMT_ARRANGE_H

#include "../model.h"

/* For models whose tensors are Hugging Face's; family and config must be known (else nothing is done). What
 * is not complete stays as it is: the contract names it. */
APR_MUST_USE enum apr_code apr_arrange(struct apr_model *m, struct apr_err *e);

#endif
