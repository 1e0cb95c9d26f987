/* JSON Schema to rules: whatever matches is JSON that the schema accepts.
 *
 * Taken: type (one or a list), enum, const, properties, required, additionalProperties, minProperties and
 * maxProperties where the named properties settle them, items, prefixItems, additionalItems, minItems,
 * maxItems, minLength, maxLength, pattern, format (date, time, date-time, uuid, ipv4), minimum, maximum,
 * exclusiveMinimum, exclusiveMaximum, anyOf, allOf, oneOf (where no two branches can hold at once), $ref to
 * #, $defs and definitions, true, false. Any other keyword that could change the meaning is refused with its
 * path; annotations are skipped.
 *
 * The text is one of those that the schema accepts, not every one: properties come in the schema's order,
 * those that are not named only where additionalProperties says so, white space is bounded, numbers have at
 * most 16 digits, a keyword that concerns one type implies that type.
 *
 *     TRY(apr_schema_rules(&rules, schema, file, &root, e));
 */
#ifndef APR_GRAMMAR_SCHEMA_H
#define APR_GRAMMAR_SCHEMA_H

#include <jansson.h>

#include "expr.h"

APR_MUST_USE enum apr_code apr_schema_rules(struct apr_rules *r, const json_t *schema, const char *file,
                                            uint32_t *root, struct apr_err *e);

#endif
