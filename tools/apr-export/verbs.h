/* The verbs of apr-export, one const struct each, defined in the file of the same name. */
#ifndef APR_EXPORT_VERBS_H
#define APR_EXPORT_VERBS_H

#include "tool.h"

extern const struct apr_verb verb_export;

#endif
