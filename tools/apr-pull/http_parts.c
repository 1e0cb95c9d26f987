/* Headers, URLs and statuses. See http_parts.h. */
#include "http_parts.h"

#include <ctype.h>
#include <curl/curl.h>
#include <inttypes.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>

void http_answer_clear(struct http_answer *a)
{
    *a = (struct http_answer){.n_length = HTTP_UNKNOWN,
                              .n_linked = HTTP_UNKNOWN,
                              .off_range = HTTP_UNKNOWN,
                              .n_range_total = HTTP_UNKNOWN,
                              .retry_after_s = HTTP_UNKNOWN};
}

/* Decimal digits and nothing else; false leaves *v alone. */
static bool parse_u64(const char *s, size_t n, uint64_t *v)
{
    uint64_t x = 0;
    if (n == 0) return false;
    for (size_t i = 0; i < n; i++) {
        if (!isdigit((unsigned char)s[i])) return false;
        if (x > (UINT64_MAX - 9) / 10) return false;
        x = x * 10 + (uint64_t)(s[i] - '0');
    }
    *v = x;
    return true;
}

/* "bytes 5-9/10" */
static void parse_range(const char *s, struct http_answer *a)
{
    if (strncasecmp(s, "bytes ", 6) != 0) return;
    s += 6;
    size_t n_from = strspn(s, "0123456789");
    const char *slash = strchr(s, '/');
    uint64_t off;
    if (s[n_from] != '-' || !slash || !parse_u64(s, n_from, &off)) return;
    a->off_range = off;
    if (!parse_u64(slash + 1, strlen(slash + 1), &a->n_range_total)) a->n_range_total = HTTP_UNKNOWN;
}

static void parse_retry_after(const char *s, struct http_answer *a)
{
    if (parse_u64(s, strlen(s), &a->retry_after_s)) return;
    time_t at = curl_getdate(s, NULL), now = time(NULL);
    if (at != (time_t)-1) a->retry_after_s = at > now ? (uint64_t)(at - now) : 0;
}

#define TEXT(name_, field_)                                                                                  \
    {                                                                                                        \
        name_, offsetof(struct http_answer, field_), sizeof((struct http_answer *)0)->field_                 \
    }
static const struct {
    const char *name;
    size_t off, n_bytes;
} text_headers[] = {
    TEXT("etag", etag),
    TEXT("x-linked-etag", linked_etag),
    TEXT("last-modified", last_modified),
    TEXT("x-repo-commit", commit),
    TEXT("content-type", content_type),
    TEXT("x-error-code", error_code),
    TEXT("x-error-message", error_text),
};

static void keep(const char *name, const char *value, struct http_answer *a, char *location,
                 size_t n_location)
{
    size_t n = strlen(value);
    for (size_t i = 0; i < sizeof text_headers / sizeof text_headers[0]; i++)
        if (strcasecmp(name, text_headers[i].name) == 0 && n < text_headers[i].n_bytes)
            memcpy((char *)a + text_headers[i].off, value, n + 1);
    if (strcasecmp(name, "location") == 0 && n < n_location) memcpy(location, value, n + 1);
    if (strcasecmp(name, "content-length") == 0) (void)parse_u64(value, n, &a->n_length);
    if (strcasecmp(name, "x-linked-size") == 0) (void)parse_u64(value, n, &a->n_linked);
    if (strcasecmp(name, "content-range") == 0) parse_range(value, a);
    if (strcasecmp(name, "retry-after") == 0) parse_retry_after(value, a);
}

void http_parse_header(const char *line, size_t n_bytes, struct http_answer *a, char *location,
                       size_t n_location)
{
    char text[HTTP_MAX_URL + 64];
    while (n_bytes && isspace((unsigned char)line[n_bytes - 1])) n_bytes--;
    if (n_bytes == 0 || n_bytes >= sizeof text) return;
    memcpy(text, line, n_bytes);
    text[n_bytes] = '\0';
    for (size_t i = 0; i < n_bytes; i++)
        if ((unsigned char)text[i] < 0x20 || text[i] == 0x7f) return;
    if (strncmp(text, "HTTP/", 5) == 0) { /* a new head: of a 100 before the answer, for one */
        unsigned n_hops = a->n_hops;
        const char *space = strchr(text, ' ');
        http_answer_clear(a);
        a->n_hops = n_hops;
        a->status = space ? strtol(space, NULL, 10) : 0;
        location[0] = '\0';
        return;
    }
    char *colon = strchr(text, ':');
    if (!colon) return;
    *colon++ = '\0';
    while (*colon == ' ') colon++;
    keep(text, colon, a, location, n_location);
}

void http_url_shown(const char *url, const char *shown, char *out, size_t n_out)
{
    char *text = NULL;
    CURLU *u = curl_url();
    if (!shown && u && !curl_url_set(u, CURLUPART_URL, url, 0) && !curl_url_set(u, CURLUPART_USER, NULL, 0) &&
        !curl_url_set(u, CURLUPART_PASSWORD, NULL, 0) && !curl_url_set(u, CURLUPART_QUERY, NULL, 0) &&
        !curl_url_set(u, CURLUPART_FRAGMENT, NULL, 0) && !curl_url_get(u, CURLUPART_URL, &text, 0))
        shown = text;
    snprintf(out, n_out, "%s", shown ? shown : "the URL");
    curl_free(text);
    curl_url_cleanup(u);
}

static bool same_part(CURLU *a, CURLU *b, CURLUPart part)
{
    char *x = NULL, *y = NULL;
    bool same = !curl_url_get(a, part, &x, CURLU_DEFAULT_PORT) &&
                !curl_url_get(b, part, &y, CURLU_DEFAULT_PORT) && strcasecmp(x, y) == 0;
    curl_free(x);
    curl_free(y);
    return same;
}

static bool has_scheme(CURLU *u, const char *scheme)
{
    char *s = NULL;
    bool is = !curl_url_get(u, CURLUPART_SCHEME, &s, 0) && strcasecmp(s, scheme) == 0;
    curl_free(s);
    return is;
}

enum apr_code http_url_follow(const char *url, const char *location, char *next, size_t n_next, bool *same,
                              const char *shown, struct apr_err *e)
{
    CURLU *from = curl_url(), *to = curl_url();
    char *text = NULL;
    enum apr_code code = APR_OK;
    bool ok = from && to && *location && !curl_url_set(from, CURLUPART_URL, url, 0) &&
              !curl_url_set(to, CURLUPART_URL, url, 0) &&
              !curl_url_set(to, CURLUPART_URL, location, CURLU_URLENCODE | CURLU_NON_SUPPORT_SCHEME);
    if (!ok)
        code = apr_fail(e, APR_ENET, "%s: redirected to \"%.200s\", which is no URL", shown, location);
    else if (!has_scheme(to, "http") && !has_scheme(to, "https"))
        code = apr_fail(e, APR_ENET, "%s: redirected to \"%.200s\"; expected http or https", shown, location);
    else if (has_scheme(from, "https") && !has_scheme(to, "https"))
        code = apr_fail(e, APR_ENET, "%s: redirected from https to http; refused", shown);
    else if (curl_url_get(to, CURLUPART_URL, &text, 0) || strlen(text) >= n_next)
        code = apr_fail(e, APR_ENET, "%s: redirected to a URL that is too long", shown);
    if (code == APR_OK) {
        memcpy(next, text, strlen(text) + 1);
        *same = same_part(from, to, CURLUPART_SCHEME) && same_part(from, to, CURLUPART_HOST) &&
                same_part(from, to, CURLUPART_PORT);
    }
    curl_free(text);
    curl_url_cleanup(from);
    curl_url_cleanup(to);
    return code;
}

enum apr_code http_url_split(struct apr_arena *a, const char *url, const char **host, const char **path,
                             struct apr_err *e)
{
    CURLU *u = curl_url();
    char *h = NULL, *p = NULL, *port = NULL, shown[512];
    http_url_shown(url, NULL, shown, sizeof shown);
    bool ok = u && strlen(url) < HTTP_MAX_URL && !curl_url_set(u, CURLUPART_URL, url, 0) &&
              (has_scheme(u, "http") || has_scheme(u, "https")) && !curl_url_get(u, CURLUPART_HOST, &h, 0) &&
              !curl_url_get(u, CURLUPART_PORT, &port, CURLU_DEFAULT_PORT) &&
              !curl_url_get(u, CURLUPART_PATH, &p, CURLU_URLDECODE);
    if (ok) {
        *host = apr_arena_printf(a, "%s:%s", h, port);
        *path = apr_arena_strdup(a, p);
    }
    curl_free(h);
    curl_free(p);
    curl_free(port);
    curl_url_cleanup(u);
    return ok ? APR_OK : apr_fail(e, APR_EUSAGE, "%s: expected http://HOST/... or https://HOST/...", shown);
}

/* Hugging Face answers 401 for what does not exist, too, as long as nobody is signed in. */
enum apr_code http_status_error(const struct http_req *q, struct http_answer *a, struct apr_err *e)
{
    char shown[512];
    const char *code = a->error_code,
               *hint = q->token ? "the token in use has no access" : "set HF_TOKEN if it is private";
    http_url_shown(q->url, q->shown, shown, sizeof shown);
    a->again = a->status == 408 || a->status == 429 || a->status >= 500;
    if (strcmp(code, "GatedRepo") == 0)
        return apr_fail(e, APR_ENET, "%s: HTTP %ld: gated repository: accept its terms on the hub%s", shown,
                        a->status, q->token ? "; the token in use has no access" : " and set HF_TOKEN");
    if (strcmp(code, "RepoNotFound") == 0)
        return apr_fail(e, APR_ENOTFOUND, "%s: HTTP %ld: no such repository; %s", shown, a->status, hint);
    if (strcmp(code, "RevisionNotFound") == 0)
        return apr_fail(e, APR_ENOTFOUND, "%s: HTTP %ld: no such revision", shown, a->status);
    if (strcmp(code, "EntryNotFound") == 0)
        return apr_fail(e, APR_ENOTFOUND, "%s: HTTP %ld: no such file in the repository", shown, a->status);
    if (a->status == 401 || a->status == 403)
        return apr_fail(e, APR_ENET, "%s: HTTP %ld: access refused: a private or gated repository; %s", shown,
                        a->status, q->token ? "the token in use has no access" : "set HF_TOKEN");
    if (a->status == 404 || a->status == 410)
        return apr_fail(e, APR_ENOTFOUND, "%s: HTTP %ld: not found", shown, a->status);
    if (a->status == 429) return apr_fail(e, APR_ENET, "%s: HTTP 429: too many requests", shown);
    if (a->status >= 500) return apr_fail(e, APR_ENET, "%s: HTTP %ld: the server failed", shown, a->status);
    return apr_fail(e, APR_ENET, "%s: HTTP %ld%s%s; expected 200", shown, a->status,
                    a->error_text[0] ? ": " : "", a->error_text);
}
