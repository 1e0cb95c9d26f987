/* The parts of HTTP that need no connection: headers, URLs, the meaning of a status.
 *
 *     http_parse_header(line, n, &answer, location, sizeof location);
 *     TRY(http_url_follow(url, location, next, sizeof next, &same_host, shown, e));
 */
#ifndef APR_PULL_HTTP_PARTS_H
#define APR_PULL_HTTP_PARTS_H

#include "arena.h"
#include "http.h"

#define HTTP_MAX_URL 8192

void http_answer_clear(struct http_answer *a);
/* One line of an answer's head, as libcurl hands it over. Values with control bytes are dropped. */
void http_parse_header(const char *line, size_t n_bytes, struct http_answer *a, char *location,
                       size_t n_location);
/* shown, or the URL without user, query and fragment: what may be printed. */
void http_url_shown(const char *url, const char *shown, char *out, size_t n_out);
/* Where a redirect leads; *same: scheme, host and port stay. https -> http, other schemes: an error. */
APR_MUST_USE enum apr_code http_url_follow(const char *url, const char *location, char *next, size_t n_next,
                                           bool *same, const char *shown, struct apr_err *e);
/* http or https with a host; *host gets "name:port" in the arena, *path the decoded path. */
APR_MUST_USE enum apr_code http_url_split(struct apr_arena *a, const char *url, const char **host,
                                          const char **path, struct apr_err *e);

#endif
