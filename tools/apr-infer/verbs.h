/* The verbs of apr-infer, one const struct each, defined in the file of the same name. */
#ifndef APR_INFER_VERBS_H
#define APR_INFER_VERBS_H

#include "tool.h"

extern const struct apr_verb verb_run;
extern const struct apr_verb verb_batch;
extern const struct apr_verb verb_logits;
extern const struct apr_verb verb_eval;
extern const struct apr_verb verb_check;
extern const struct apr_verb verb_bench;
extern const struct apr_verb verb_tokenize;
extern const struct apr_verb verb_template;
extern const struct apr_verb verb_imatrix;
extern const struct apr_verb verb_embed;
extern const struct apr_verb verb_trace;
extern const struct apr_verb verb_profile;
extern const struct apr_verb verb_ptx_map;
extern const struct apr_verb verb_parity;

#endif
