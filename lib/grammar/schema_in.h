/* Inside the schema compiler: its state and its parts.
 *
 * A part turns one schema into an expression, TRY(apr_sch_node(s, schema, &path, &x, e)); schemas that it
 * makes on the way (merged ones) belong to s->keep.
 */
#ifndef APR_GRAMMAR_SCHEMA_IN_H
#define APR_GRAMMAR_SCHEMA_IN_H

#include "expr.h"
#include "schema.h"

#define APR_SCH_MAX_NODES 200000u /* schemas compiled, merged ones counted each time */
#define APR_SCH_MAX_DEPTH 128
#define APR_SCH_MAX_COUNT                                                                                    \
    4096u /* larger maxItems, maxLength ... are taken as this: fewer texts, none wrong */

/* Where a schema stands, for messages. */
struct apr_sch_path {
    const struct apr_sch_path *up;
    const char *key; /* NULL: index */
    size_t index;
    int depth;
};
struct apr_sch_path apr_sch_key(const struct apr_sch_path *up, const char *key);
struct apr_sch_path apr_sch_index(const struct apr_sch_path *up, size_t i);

/* Rules that every schema may use. */
struct apr_sch_common {
    const struct apr_expr *ws, *character, *string, *integer, *number, *boolean, *null, *value, *object,
        *array;
};

/* Types as bits; a number is an integer or not. */
enum {
    APR_SCH_NULL = 1,
    APR_SCH_BOOL = 2,
    APR_SCH_INT = 4,
    APR_SCH_FRACTION = 8,
    APR_SCH_NUMBER = 12,
    APR_SCH_STRING = 16,
    APR_SCH_ARRAY = 32,
    APR_SCH_OBJECT = 64,
    APR_SCH_ANY = 127
};

struct apr_sch {
    struct apr_rules *r;
    const json_t *root;
    const char *file;
    json_t *keep; /* owned: array of schemas made here */
    struct apr_sch_common c;
    uint32_t n_nodes;
    /* References whose rules have no body yet, in the order met. */
    struct apr_sch_pending {
        uint32_t rule;
        const json_t *schema;
    } * pending;
    uint32_t n_pending, cap_pending;
};

/* Messages: the file, the path, then the text. Malformed: APR_EFORMAT; more than we can promise: APR_EUSAGE.
 */
APR_MUST_USE enum apr_code apr_sch_malformed(const struct apr_sch *s, const struct apr_sch_path *at,
                                             struct apr_err *e, const char *format, ...) APR_PRINTF(4, 5);
APR_MUST_USE enum apr_code apr_sch_refuse(const struct apr_sch *s, const struct apr_sch_path *at,
                                          struct apr_err *e, const char *format, ...) APR_PRINTF(4, 5);

/* schema.c */
APR_MUST_USE enum apr_code apr_sch_node(struct apr_sch *s, const json_t *schema,
                                        const struct apr_sch_path *at, const struct apr_expr **x,
                                        struct apr_err *e);
/* x as a rule, so that it can be repeated at little cost. */
const struct apr_expr *apr_sch_rule(struct apr_sch *s, const struct apr_expr *x);

/* schema_keys.c: every keyword is known and has the type it must have. */
APR_MUST_USE enum apr_code apr_sch_check(const struct apr_sch *s, const json_t *schema,
                                         const struct apr_sch_path *at, struct apr_err *e);
bool apr_sch_is_note(const char *key); /* does not change what is valid */
/* A whole number >= 0 at key, or what is there already. */
APR_MUST_USE enum apr_code apr_sch_count(const struct apr_sch *s, const json_t *schema, const char *key,
                                         const struct apr_sch_path *at, uint32_t *n, struct apr_err *e);
/* The types that a schema leaves open, by "type", by its values, or by the keywords it uses. */
APR_MUST_USE enum apr_code apr_sch_types(const struct apr_sch *s, const json_t *schema,
                                         const struct apr_sch_path *at, unsigned *types, struct apr_err *e);
/* Refuses what an enum stands beside and what could reject some of its values. */
APR_MUST_USE enum apr_code apr_sch_only_values(const struct apr_sch *s, const json_t *schema, unsigned types,
                                               const struct apr_sch_path *at, struct apr_err *e);
unsigned apr_sch_type_of(const json_t *value);

/* schema_merge.c */
/* A reference's target. */
APR_MUST_USE enum apr_code apr_sch_target(const struct apr_sch *s, const char *ref,
                                          const struct apr_sch_path *at, const json_t **schema,
                                          struct apr_err *e);
/* The same schema without $ref and allOf at its top; kept by s. */
APR_MUST_USE enum apr_code apr_sch_flat(struct apr_sch *s, const json_t *schema,
                                        const struct apr_sch_path *at, json_t **out, struct apr_err *e);
/* Both hold; flat ones. */
APR_MUST_USE enum apr_code apr_sch_both(struct apr_sch *s, const json_t *a, const json_t *b,
                                        const struct apr_sch_path *at, json_t **out, struct apr_err *e);
/* No value can hold under both, as far as can be seen. */
bool apr_sch_disjoint(struct apr_sch *s, const json_t *a, const json_t *b, const struct apr_sch_path *at,
                      int depth);

/* schema_basic.c: the common rules; values as they are. */
void apr_sch_common(struct apr_sch *s);
APR_MUST_USE enum apr_code apr_sch_values(struct apr_sch *s, const json_t *values, unsigned types,
                                          const struct apr_sch_path *at, const struct apr_expr **x,
                                          struct apr_err *e);
/* A JSON string, quotes and all. */
APR_MUST_USE enum apr_code apr_sch_quoted(struct apr_sch *s, const char *text, const struct apr_expr **x,
                                          struct apr_err *e);
/* schema_object.c, schema_array.c, schema_string.c, schema_number.c */
typedef enum apr_code apr_sch_fn(struct apr_sch *s, const json_t *schema, const struct apr_sch_path *at,
                                 const struct apr_expr **x, struct apr_err *e);
apr_sch_fn apr_sch_object, apr_sch_array, apr_sch_string, apr_sch_integer, apr_sch_number;
/* pattern.c: the inside of a JSON string whose value the regular expression matches. */
APR_MUST_USE enum apr_code apr_sch_pattern(struct apr_sch *s, const char *regex,
                                           const struct apr_sch_path *at, const struct apr_expr **x,
                                           struct apr_err *e);

#endif
