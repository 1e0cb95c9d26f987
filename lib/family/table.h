/* The rows of table.c: each family's file defines one. Everybody else includes family.h.
 *
 *     const struct apr_family apr_family_qwen2 = { .name = "qwen2", ... };
 */
#ifndef APR_FAMILY_TABLE_H
#define APR_FAMILY_TABLE_H

#include "family.h"

extern const struct apr_family apr_family_qwen2;

#endif
