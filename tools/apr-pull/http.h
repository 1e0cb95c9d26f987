/* HTTP for pulling: one request at a time over libcurl, redirects followed here so that the rules hold.
 *
 * At most 10 redirects, http and https only, never from https to http, never to a link-local address. The
 * token goes to the host (scheme, name, port) of the first URL only, and is gone after the first hop to
 * another one. Certificates are checked, and a failed check is final. Connection, low speed and header size
 * are bounded; proxies come from the environment.
 *
 *     struct http *h; TRY(http_open(&h, &limits, e));
 *     TRY(http_run(h, &(struct http_req){.url = url, .token = token}, &answer, e)); ... http_close(h);
 */
#ifndef APR_PULL_HTTP_H
#define APR_PULL_HTTP_H

#include <stdbool.h>
#include <stdint.h>

#include "buf.h"
#include "err.h"

#define HTTP_UNKNOWN UINT64_MAX

struct http;

struct http_limits {
    uint64_t n_retries; /* after the first try */
    uint64_t stall_s;   /* to connect, and with less than 1000 bytes a second */
};

struct http_answer {
    long status;
    uint64_t n_length;  /* Content-Length */
    uint64_t n_linked;  /* X-Linked-Size: of the file behind a redirect */
    uint64_t off_range; /* Content-Range: bytes off-.../total */
    uint64_t n_range_total;
    uint64_t retry_after_s; /* Retry-After; HTTP_UNKNOWN when absent */
    unsigned n_hops;        /* redirects before this answer */
    bool again;             /* the failure may not meet a later try */
    char etag[256], linked_etag[256], last_modified[64], commit[64], content_type[64];
    char error_code[64], error_text[256]; /* X-Error-Code, X-Error-Message */
};

/* Called once with the headers of a 200 or 206, then with the body in pieces. An error ends the transfer. */
typedef enum apr_code http_begin_fn(void *ctx, const struct http_answer *a, struct apr_err *e);
typedef enum apr_code http_body_fn(void *ctx, const void *p, size_t n, struct apr_err *e);

struct http_req {
    const char *url;
    const char *shown;          /* what messages call it; NULL: the URL without user and query */
    const char *token;          /* NULL: none */
    bool head;                  /* HEAD; a redirect to another host is then the answer */
    uint64_t off;               /* Range: bytes=off- when not 0 */
    const char *if_range_first; /* If-Range for the first URL, NULL or "": none */
    const char *if_range_last;  /* If-Range after a redirect */
    const char *if_none_match;
    const char *if_modified_since;
    http_begin_fn *begin;
    http_body_fn *body;
    void *ctx;
};

APR_MUST_USE enum apr_code http_open(struct http **out, const struct http_limits *limits, struct apr_err *e);
void http_close(struct http *h); /* NULL is fine */
/* One try. APR_OK: the transfer is complete, whatever the status. A failed transfer: APR_ENET (or what body
 * returned) with a->again set where another try makes sense. */
APR_MUST_USE enum apr_code http_run(struct http *h, const struct http_req *q, struct http_answer *a,
                                    struct apr_err *e);
/* The error of a status that is not a success; sets a->again for 408, 429 and 5xx. */
APR_MUST_USE enum apr_code http_status_error(const struct http_req *q, struct http_answer *a,
                                             struct apr_err *e);
/* Sleeps before try number i_try (1 is the first repetition); false: no try is left, or the server wants a
 * longer wait than we grant. e is what went wrong. */
bool http_wait(const struct http *h, uint64_t i_try, const struct http_answer *a, const struct apr_err *e);
void http_set_retries(struct http *h, uint64_t n_retries);
/* With retries: statuses below 400 are success; the body, if any, goes to b (which may be NULL). */
APR_MUST_USE enum apr_code http_get(struct http *h, struct http_req *q, struct http_answer *a,
                                    struct apr_buf *b, struct apr_err *e);

#endif
