/* The verbs of apr-hex, one const struct each, defined in the file of the same name. */
#ifndef APR_HEX_VERBS_H
#define APR_HEX_VERBS_H

#include "tool.h"

extern const struct apr_verb verb_inspect, verb_tensors, verb_fingerprint, verb_diff_tensors;

#endif
