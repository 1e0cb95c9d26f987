/* Small random models of any family, in memory: values of the size that a trained layer has.
 *
 *     struct apr_model *m = toy_model("gemma3", "{...}", APR_Q8_0); ... apr_model_close(m);
 * The configuration is read as the family reads config.json; single quotes serve as double ones.
 */
#ifndef APR_TEST_TOY_H
#define APR_TEST_TOY_H

#include "model.h"

/* Matrices have the type, vectors are F32. Ends the test where the configuration is refused. */
struct apr_model *toy_model(const char *family, const char *config, enum apr_type type);
/* The same of a configuration at hand. */
struct apr_model *toy_model_of(const char *family, const struct apr_config *config, enum apr_type type);
float toy_noise(uint64_t *seed); /* -1 .. 1 */

#endif
