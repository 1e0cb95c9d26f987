/* Do two configs mean the same model? For documents that were rebuilt: what is read back from them must be
 * what they were made from.
 *
 *     const char *what = apr_config_differs(&a, &b);
 */
#ifndef APR_DIFFER_H
#define APR_DIFFER_H

#include "../config.h"

/* The name of the first field that differs, or NULL. Reals may differ by what a 32-bit float loses. How the
 * values in the file stand to Hugging Face's (form, and what follows from it) is not compared. */
const char *apr_config_differs(const struct apr_config *a, const struct apr_config *b);

#endif
