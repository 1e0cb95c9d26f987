/* A thin face on jansson: limits, duplicate keys refused, errors with file, line and column.
 *
 * Parsed values are jansson's; release with json_decref. Getters below take a JSON path for messages
 * ("config.json: $.num_hidden_layers: expected an integer >= 1, found \"x\"").
 */
#ifndef APR_JSON_H
#define APR_JSON_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "arena.h"
#include "buf.h"
#include "err.h"

#define APR_JSON_MAX_DEPTH 64
#define APR_JSON_MAX_BYTES (1024u << 20)

/* Strict JSON, one value, no NUL in strings or keys, depth <= APR_JSON_MAX_DEPTH. An integer that int64_t
 * cannot hold becomes a real number (published tokenizer_config.json files have model_max_length 10^30). */
APR_MUST_USE enum apr_code apr_json_parse(const char *text, size_t n_bytes, const char *file, json_t **out,
                                          struct apr_err *e);
/* Missing file: APR_ENOTFOUND. */
APR_MUST_USE enum apr_code apr_json_load(const char *path, size_t max_bytes, json_t **out, struct apr_err *e);
/* Compact text without a final newline, the same bytes whatever jansson's version; keys in insertion order,
 * or sorted. */
APR_MUST_USE enum apr_code apr_json_dump(const json_t *v, bool sorted, struct apr_buf *out,
                                         struct apr_err *e);

/* One JSON string with its quotes; one number, the shortest that reads back as the same double (NaN, Inf:
 * null). */
APR_MUST_USE enum apr_code apr_json_put_str(struct apr_buf *b, const char *s, size_t n_bytes,
                                            struct apr_err *e);
APR_MUST_USE enum apr_code apr_json_put_f64(struct apr_buf *b, double v, struct apr_err *e);

/* Absent or null leaves *v untouched and is no error; a wrong type or range is APR_EFORMAT. */
APR_MUST_USE enum apr_code apr_json_u64(const json_t *obj, const char *key, uint64_t min, uint64_t max,
                                        uint64_t *v, const char *file, struct apr_err *e);
APR_MUST_USE enum apr_code apr_json_f64(const json_t *obj, const char *key, double *v, const char *file,
                                        struct apr_err *e);
APR_MUST_USE enum apr_code apr_json_bool(const json_t *obj, const char *key, bool *v, const char *file,
                                         struct apr_err *e);
APR_MUST_USE enum apr_code apr_json_str(const json_t *obj, const char *key, const char **v, const char *file,
                                        struct apr_err *e);

#endif
