/* The verbs of apr-pull, one const struct each, defined in the file of the same name. */
#ifndef APR_PULL_VERBS_H
#define APR_PULL_VERBS_H

#include "tool.h"

extern const struct apr_verb verb_pull;
extern const struct apr_verb verb_list;
extern const struct apr_verb verb_ls; /* list by its short name */
extern const struct apr_verb verb_rm;
extern const struct apr_verb verb_remove; /* rm by its long name */

#endif
