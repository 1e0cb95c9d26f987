/* The verbs of apr-import, one const struct each, defined in the file of the same name. */
#ifndef APR_IMPORT_VERBS_H
#define APR_IMPORT_VERBS_H

#include "tool.h"

extern const struct apr_verb verb_import;
extern const struct apr_verb verb_convert;
extern const struct apr_verb verb_quantize;
extern const struct apr_verb verb_merge;
extern const struct apr_verb verb_edit;

#endif
