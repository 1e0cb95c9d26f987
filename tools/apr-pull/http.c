/* libcurl behind the rules of http.h. */
#include "http.h"

#include <ctype.h>
#include <curl/curl.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <netinet/in.h>
#include <time.h>
#include <unistd.h>

#include "http_parts.h"
#include "log.h"
#include "version.h"

#define MAX_HOPS         10
#define MAX_HEADER_BYTES ((size_t)256 << 10)
#define MAX_ERROR_BODY   ((uint64_t)1 << 20)
#define LOW_BYTES_PER_S  1000L
#define MAX_WAIT_S       60 /* the longest Retry-After that is obeyed */
#define FIRST_WAIT_MS    500
#define MAX_WAIT_SHIFT   5

struct http {
    struct apr_arena arena; /* owns this struct */
    CURL *curl;
    struct http_limits limits;
    char why[CURL_ERROR_SIZE];
};

/* One hop of one try. */
struct hop {
    struct http *h;
    const struct http_req *q;
    struct http_answer *a;
    char location[HTTP_MAX_URL];
    size_t n_header_bytes;
    uint64_t n_discarded;
    bool begun;
    bool too_long;      /* headers, or the body of an error */
    enum apr_code code; /* of begin or body */
    struct apr_err *e;
};

static const char *env(const char *name)
{
    const char *v = getenv(name);
    return v && *v ? v : NULL;
}

/* A redirect must not reach the services that clouds keep at link-local addresses. */
static bool is_link_local(const struct sockaddr *sa)
{
    if (sa->sa_family == AF_INET) {
        struct sockaddr_in v4;
        memcpy(&v4, sa, sizeof v4);
        return (ntohl(v4.sin_addr.s_addr) >> 16) == 0xa9fe; /* 169.254.0.0/16 */
    }
    if (sa->sa_family == AF_INET6) {
        struct sockaddr_in6 v6;
        memcpy(&v6, sa, sizeof v6);
        return IN6_IS_ADDR_LINKLOCAL(&v6.sin6_addr) ||
               (IN6_IS_ADDR_V4MAPPED(&v6.sin6_addr) && v6.sin6_addr.s6_addr[12] == 169 &&
                v6.sin6_addr.s6_addr[13] == 254);
    }
    return false;
}

static curl_socket_t open_socket(void *p, curlsocktype purpose, struct curl_sockaddr *at)
{
    const struct hop *hop = p;
    (void)purpose;
    if (hop->a->n_hops > 0 && is_link_local(&at->addr)) {
        errno = EACCES;
        return CURL_SOCKET_BAD;
    }
    return socket(at->family, at->socktype | SOCK_CLOEXEC, at->protocol);
}

static bool is_body_status(long status)
{
    return status == 200 || status == 206;
}

static size_t on_header(char *line, size_t n_each, size_t n, void *p)
{
    struct hop *hop = p;
    size_t n_bytes = n_each * n;
    hop->n_header_bytes += n_bytes;
    if (hop->n_header_bytes > MAX_HEADER_BYTES) {
        hop->too_long = true;
        return 0;
    }
    http_parse_header(line, n_bytes, hop->a, hop->location, sizeof hop->location);
    if (n_bytes <= 2 && is_body_status(hop->a->status) && hop->q->begin && !hop->begun) {
        hop->begun = true;
        hop->code = hop->q->begin(hop->q->ctx, hop->a, hop->e);
        if (hop->code != APR_OK) return 0;
    }
    return n_bytes;
}

static size_t on_body(char *data, size_t n_each, size_t n, void *p)
{
    struct hop *hop = p;
    size_t n_bytes = n_each * n;
    if (is_body_status(hop->a->status) && hop->q->body) {
        hop->code = hop->q->body(hop->q->ctx, data, n_bytes, hop->e);
        return hop->code == APR_OK ? n_bytes : 0;
    }
    hop->n_discarded += n_bytes;
    if (hop->n_discarded <= MAX_ERROR_BODY) return n_bytes;
    hop->too_long = true;
    return 0;
}

void http_close(struct http *h)
{
    if (!h) return;
    curl_easy_cleanup(h->curl);
    struct apr_arena arena = h->arena;
    apr_arena_free(&arena);
    curl_global_cleanup();
}

/* The variables that other programs take a certificate bundle from; libcurl itself reads none. */
static const char *ca_bundle(void)
{
    static const char *const names[] = {"SSL_CERT_FILE", "CURL_CA_BUNDLE", "REQUESTS_CA_BUNDLE"};
    const char *v = NULL;
    for (size_t i = 0; i < sizeof names / sizeof names[0] && !v; i++) v = env(names[i]);
    return v;
}

static bool set_options(struct http *h)
{
    CURL *c = h->curl;
    long stall_s = (long)h->limits.stall_s;
    const char *ca = ca_bundle();
    bool ok = !curl_easy_setopt(c, CURLOPT_ERRORBUFFER, h->why);
    ok = !curl_easy_setopt(c, CURLOPT_NOSIGNAL, 1L) && ok;
    ok = !curl_easy_setopt(c, CURLOPT_PROTOCOLS_STR, "http,https") && ok;
    ok = !curl_easy_setopt(c, CURLOPT_FOLLOWLOCATION, 0L) && ok;
    ok = !curl_easy_setopt(c, CURLOPT_SUPPRESS_CONNECT_HEADERS, 1L) && ok;
    ok = !curl_easy_setopt(c, CURLOPT_USERAGENT, "apr/" APR_VERSION) && ok;
    ok = !curl_easy_setopt(c, CURLOPT_CONNECTTIMEOUT, stall_s) && ok;
    ok = !curl_easy_setopt(c, CURLOPT_SERVER_RESPONSE_TIMEOUT, stall_s) && ok;
    ok = !curl_easy_setopt(c, CURLOPT_LOW_SPEED_LIMIT, LOW_BYTES_PER_S) && ok;
    ok = !curl_easy_setopt(c, CURLOPT_LOW_SPEED_TIME, stall_s) && ok;
    ok = !curl_easy_setopt(c, CURLOPT_HEADERFUNCTION, on_header) && ok;
    ok = !curl_easy_setopt(c, CURLOPT_WRITEFUNCTION, on_body) && ok;
    ok = !curl_easy_setopt(c, CURLOPT_OPENSOCKETFUNCTION, open_socket) && ok;
    ok = !curl_easy_setopt(c, CURLOPT_BUFFERSIZE, 256L << 10) && ok;
    if (ca) ok = !curl_easy_setopt(c, CURLOPT_CAINFO, ca) && ok;
    return ok;
}

enum apr_code http_open(struct http **out, const struct http_limits *limits, struct apr_err *e)
{
    struct apr_arena arena;
    *out = NULL;
    /* libcurl reads the lower-case name only; our users come from clients that read both. Not in a CGI
     * program, where HTTP_PROXY is a header of the visitor. */
    if (!env("http_proxy") && env("HTTP_PROXY") && !env("REQUEST_METHOD"))
        setenv("http_proxy", env("HTTP_PROXY"), 1);
    if (curl_global_init(CURL_GLOBAL_DEFAULT)) return apr_fail(e, APR_EUNAVAIL, "libcurl does not start");
    apr_arena_init(&arena);
    struct http *h = apr_arena_get(&arena, sizeof *h);
    h->arena = arena;
    h->limits = *limits;
    h->curl = curl_easy_init();
    if (!h->curl || !set_options(h)) {
        http_close(h);
        return apr_fail(e, APR_EUNAVAIL, "libcurl does not support what is needed here");
    }
    *out = h;
    return APR_OK;
}

void http_set_retries(struct http *h, uint64_t n_retries)
{
    h->limits.n_retries = n_retries;
}

static bool is_tls_failure(CURLcode rc)
{
    return rc == CURLE_PEER_FAILED_VERIFICATION || rc == CURLE_SSL_CONNECT_ERROR ||
           rc == CURLE_SSL_CERTPROBLEM || rc == CURLE_SSL_CIPHER || rc == CURLE_SSL_CACERT_BADFILE ||
           rc == CURLE_SSL_ISSUER_ERROR || rc == CURLE_SSL_PINNEDPUBKEYNOTMATCH ||
           rc == CURLE_SSL_INVALIDCERTSTATUS || rc == CURLE_SSL_CRL_BADFILE ||
           rc == CURLE_SSL_ENGINE_INITFAILED;
}

static enum apr_code transfer_error(const struct hop *hop, CURLcode rc, const char *shown, struct apr_err *e)
{
    const char *why = hop->h->why[0] ? hop->h->why : curl_easy_strerror(rc);
    if (hop->code != APR_OK) return hop->code; /* e is filled */
    if (hop->too_long) return apr_fail(e, APR_ENET, "%s: the answer is too long to be one", shown);
    if (is_tls_failure(rc))
        return apr_fail(e, APR_ENET, "%s: the secure connection was refused: %s", shown, why);
    hop->a->again = rc != CURLE_URL_MALFORMAT && rc != CURLE_UNSUPPORTED_PROTOCOL;
    if (rc == CURLE_PARTIAL_FILE || rc == CURLE_RECV_ERROR || rc == CURLE_GOT_NOTHING)
        return apr_fail(e, APR_ENET, "%s: the connection ended early: %s", shown, why);
    return apr_fail(e, APR_ENET, "%s: %s", shown, why);
}

static bool append(struct curl_slist **list, const char *name, const char *value)
{
    char line[8192];
    struct curl_slist *longer;
    if (!value || !*value) return true;
    int n = snprintf(line, sizeof line, "%s: %s", name, value);
    if (n < 0 || (size_t)n >= sizeof line) return false;
    longer = curl_slist_append(*list, line);
    if (!longer) return false;
    *list = longer;
    return true;
}

static bool add_headers(struct curl_slist **list, const struct http_req *q, unsigned i_hop, bool with_token)
{
    char range[48], bearer[4096];
    const char *if_range = i_hop ? q->if_range_last : q->if_range_first;
    snprintf(range, sizeof range, "bytes=%" PRIu64 "-", q->off);
    bool ok = append(list, "Accept-Encoding", "identity"); /* sizes and ETags are those of the file itself */
    if (q->off) ok = ok && append(list, "Range", range) && append(list, "If-Range", if_range);
    ok = ok && append(list, "If-None-Match", q->if_none_match);
    ok = ok && append(list, "If-Modified-Since", q->if_modified_since);
    if (!with_token) return ok;
    int n = snprintf(bearer, sizeof bearer, "Bearer %s", q->token);
    return ok && n > 0 && (size_t)n < sizeof bearer && append(list, "Authorization", bearer);
}

static enum apr_code run_hop(struct hop *hop, const char *url, bool with_token, const char *shown,
                             struct apr_err *e)
{
    CURL *c = hop->h->curl;
    struct curl_slist *headers = NULL;
    struct http_answer *a = hop->a;
    unsigned n_hops = a->n_hops;
    http_answer_clear(a);
    a->n_hops = n_hops;
    hop->h->why[0] = '\0';
    bool ok = add_headers(&headers, hop->q, n_hops, with_token);
    ok = !curl_easy_setopt(c, CURLOPT_URL, url) && ok;
    ok = !curl_easy_setopt(c, CURLOPT_NOBODY, hop->q->head ? 1L : 0L) && ok;
    if (!hop->q->head) ok = !curl_easy_setopt(c, CURLOPT_HTTPGET, 1L) && ok;
    ok = !curl_easy_setopt(c, CURLOPT_HTTPHEADER, headers) && ok;
    ok = !curl_easy_setopt(c, CURLOPT_HEADERDATA, hop) && ok;
    ok = !curl_easy_setopt(c, CURLOPT_WRITEDATA, hop) && ok;
    ok = !curl_easy_setopt(c, CURLOPT_OPENSOCKETDATA, hop) && ok;
    CURLcode rc = ok ? curl_easy_perform(c) : CURLE_OUT_OF_MEMORY;
    curl_easy_setopt(c, CURLOPT_HTTPHEADER, NULL);
    curl_slist_free_all(headers);
    /* A status with an endless error page is told by its status. */
    if (rc == CURLE_OK || (hop->too_long && a->status >= 300 && hop->n_discarded)) return APR_OK;
    return transfer_error(hop, rc, shown, e);
}

static bool is_redirect(long status)
{
    return status == 301 || status == 302 || status == 303 || status == 307 || status == 308;
}

enum apr_code http_run(struct http *h, const struct http_req *q, struct http_answer *a, struct apr_err *e)
{
    struct apr_arena arena;
    char shown[512], next[HTTP_MAX_URL];
    bool with_token = q->token != NULL;
    enum apr_code code;
    http_url_shown(q->url, q->shown, shown, sizeof shown);
    *a = (struct http_answer){0};
    apr_arena_init(&arena);
    struct hop *hop = apr_arena_get(&arena, sizeof *hop);
    const char *url = q->url;
    for (;;) {
        *hop = (struct hop){.h = h, .q = q, .a = a, .e = e};
        code = run_hop(hop, url, with_token, shown, e);
        if (code != APR_OK || !is_redirect(a->status)) break;
        bool same = false;
        code = http_url_follow(url, hop->location, next, sizeof next, &same, shown, e);
        if (code != APR_OK || (q->head && !same)) break;
        if (a->n_hops == MAX_HOPS) {
            code = apr_fail(e, APR_ENET, "%s: more than %d redirects", shown, MAX_HOPS);
            break;
        }
        with_token = with_token && same;
        a->n_hops++;
        url = apr_arena_strdup(&arena, next);
    }
    apr_arena_free(&arena);
    return code;
}

bool http_wait(const struct http *h, uint64_t i_try, const struct http_answer *a, const struct apr_err *e)
{
    if (!a->again || i_try > h->limits.n_retries) return false;
    uint64_t shift = i_try - 1 < MAX_WAIT_SHIFT ? i_try - 1 : MAX_WAIT_SHIFT,
             ms = (uint64_t)FIRST_WAIT_MS << shift;
    if (a->retry_after_s != HTTP_UNKNOWN) {
        if (a->retry_after_s > MAX_WAIT_S) return false;
        if (a->retry_after_s * 1000 > ms) ms = a->retry_after_s * 1000;
    }
    apr_note("%s; try %" PRIu64 " of %" PRIu64 " in %.1f s", e->text, i_try + 1, h->limits.n_retries + 1,
             (double)ms / 1000);
    struct timespec left = {.tv_sec = (time_t)(ms / 1000), .tv_nsec = (long)(ms % 1000) * 1000000};
    while (nanosleep(&left, &left) && errno == EINTR) continue;
    return true;
}

static enum apr_code keep_begin(void *ctx, const struct http_answer *a, struct apr_err *e)
{
    struct apr_buf *b = ctx;
    (void)e;
    if (a->status == 200) apr_buf_drop_front(b, b->n_bytes);
    return APR_OK;
}

static enum apr_code keep_body(void *ctx, const void *p, size_t n, struct apr_err *e)
{
    if (apr_buf_append(ctx, p, n, e) == APR_OK) return APR_OK;
    return apr_fail(e, APR_ENET, "the answer is longer than %zu bytes", ((struct apr_buf *)ctx)->max_bytes);
}

enum apr_code http_get(struct http *h, struct http_req *q, struct http_answer *a, struct apr_buf *b,
                       struct apr_err *e)
{
    if (b) {
        q->begin = keep_begin;
        q->body = keep_body;
        q->ctx = b;
    }
    for (uint64_t i = 1;; i++) {
        enum apr_code code = http_run(h, q, a, e);
        if (code == APR_OK && a->status < 400) return APR_OK;
        if (code == APR_OK) code = http_status_error(q, a, e);
        if (!http_wait(h, i, a, e)) return code;
    }
}
