/* Logit bias: "ID+V", "ID-V", "TEXT+V", "TEXT-inf" to ids and values.
 *
 * TEXT must be one token of the vocabulary; a text of digits, or one in which the sign would be mistaken, may
 * stand in double quotes: "4"+2.
 *
 *     TRY(apr_bias_parse(&opts.logit_bias, tok, n_vocab, arena, &bias, &n, e));
 */
#ifndef APR_INFER_SAMPLER_BIAS_H
#define APR_INFER_SAMPLER_BIAS_H

#include "sampler.h"

APR_MUST_USE enum apr_code apr_bias_parse(const struct apr_strs *from, const struct apr_tok *tok,
                                          size_t n_vocab, struct apr_arena *arena,
                                          const struct apr_bias **out, size_t *n, struct apr_err *e);

#endif
