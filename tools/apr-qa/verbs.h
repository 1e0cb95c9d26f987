/* The verbs of apr-qa, one const struct each, defined in the file of the same name. */
#ifndef APR_QA_VERBS_H
#define APR_QA_VERBS_H

#include "tool.h"

extern const struct apr_verb verb_validate, verb_oracle, verb_validate_stats, verb_compare_inference;

#endif
