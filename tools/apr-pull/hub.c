/* Questions to the hub. See hub.h. */
#include "hub.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "cache.h"
#include "io.h"
#include "http_parts.h"
#include "json.h"
#include "log.h"
#include "names.h"

#define DEFAULT_ENDPOINT "https://huggingface.co"
#define MAX_LIST_BYTES   ((size_t)64 << 20)
#define MAX_FILES        100000u
#define MAX_TOKEN_BYTES  4000u

static const char *env(const char *name)
{
    const char *v = getenv(name);
    return v && *v ? v : NULL;
}

static bool is_true(const char *v)
{
    return v && (!strcmp(v, "1") || !strcasecmp(v, "on") || !strcasecmp(v, "yes") || !strcasecmp(v, "true"));
}

bool hub_env_offline(void)
{
    return is_true(env("HF_HUB_OFFLINE")) || is_true(env("APR_OFFLINE"));
}

/* A token goes into a header, so it is printable and has no spaces. Its text appears in no message. */
static enum apr_code check_token(const char *text, size_t n, const char *where, struct apr_err *e)
{
    for (size_t i = 0; i < n; i++)
        if (text[i] <= 0x20 || text[i] >= 0x7f)
            return apr_fail(e, APR_EUSAGE, "%s: a token has printable characters only, no spaces", where);
    return n < MAX_TOKEN_BYTES ? APR_OK : apr_fail(e, APR_EUSAGE, "%s: too long for a token", where);
}

static enum apr_code token_from_file(struct hub *h, const char *path, struct apr_err *e)
{
    struct apr_buf b;
    apr_buf_init(&b, MAX_TOKEN_BYTES);
    enum apr_code code = apr_read_file(path, MAX_TOKEN_BYTES, &b, e);
    if (code == APR_OK && b.n_bytes) {
        const char *text = (const char *)b.data;
        size_t from = strspn(text, " \t\r\n"), n = strcspn(text + from, " \t\r\n");
        code = check_token(text + from, n, path, e);
        if (code == APR_OK && n) h->token = apr_arena_strndup(h->arena, text + from, n);
    }
    apr_buf_free(&b);
    return code;
}

static enum apr_code find_token(struct hub *h, struct apr_err *e)
{
    struct apr_err none;
    const char *v = env("HF_TOKEN"), *home = cache_hf_home(h->arena);
    if (!v) v = env("HUGGING_FACE_HUB_TOKEN");
    if (v) {
        size_t from = strspn(v, " \t\r\n"), n = strcspn(v + from, " \t\r\n");
        h->token = n ? apr_arena_strndup(h->arena, v + from, n) : NULL;
        return check_token(v + from,
                           strlen(v + from) == n + strspn(v + from + n, " \t\r\n") ? n : strlen(v + from),
                           "HF_TOKEN", e);
    }
    if (is_true(env("HF_HUB_DISABLE_IMPLICIT_TOKEN"))) return APR_OK;
    if (env("HF_TOKEN_PATH")) return token_from_file(h, env("HF_TOKEN_PATH"), e);
    if (!home) return APR_OK;
    const char *path = apr_arena_printf(h->arena, "%s/token", home);
    enum apr_code code = token_from_file(h, path, &none);
    if (code != APR_OK && code != APR_ENOTFOUND) apr_warn("%s; going on without a token", none.text);
    return APR_OK;
}

enum apr_code hub_init(struct hub *h, struct http *http, struct apr_arena *arena, struct apr_err *e)
{
    const char *v = env("HF_ENDPOINT"), *host, *path;
    *h = (struct hub){.http = http, .arena = arena};
    if (!v) v = DEFAULT_ENDPOINT;
    size_t n = strlen(v);
    while (n && v[n - 1] == '/') n--;
    h->endpoint = apr_arena_strndup(arena, v, n);
    if (http_url_split(arena, h->endpoint, &host, &path, e) != APR_OK) {
        apr_err_prefix(e, "HF_ENDPOINT");
        return APR_EUSAGE;
    }
    return find_token(h, e);
}

static enum apr_code add_name(struct hub_listing *out, const json_t *sibling, const char *shown,
                              struct apr_arena *a, struct apr_err *e)
{
    const char *name = NULL;
    TRY(apr_json_str(sibling, "rfilename", &name, shown, e));
    if (!name) return apr_fail(e, APR_EFORMAT, "%s: $.siblings[]: expected rfilename", shown);
    if (name_check_path(name, "file name", e) != APR_OK) {
        apr_err_prefix(e, "%s", shown);
        return APR_EFORMAT;
    }
    out->names[out->n_names++] = apr_arena_strdup(a, name);
    return APR_OK;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static void drop_doubles(struct hub_listing *out)
{
    size_t n = 0;
    qsort(out->names, out->n_names, sizeof *out->names, by_name);
    for (size_t i = 0; i < out->n_names; i++)
        if (n == 0 || strcmp(out->names[n - 1], out->names[i]) != 0) out->names[n++] = out->names[i];
    out->n_names = n;
}

static enum apr_code parse_listing(const struct hub *h, const struct apr_buf *b, const char *shown,
                                   struct hub_listing *out, struct apr_err *e)
{
    json_t *root;
    const char *commit = NULL;
    TRY(apr_json_parse(b->data ? (const char *)b->data : "", b->n_bytes, shown, &root, e));
    const json_t *siblings = json_object_get(root, "siblings");
    size_t n = json_array_size(siblings);
    enum apr_code code = apr_json_str(root, "sha", &commit, shown, e);
    if (code == APR_OK && (!commit || !name_is_commit(commit)))
        code = apr_fail(e, APR_EFORMAT, "%s: $.sha: expected a commit of %d digits", shown, NAME_COMMIT_HEX);
    if (code == APR_OK && (!json_is_array(siblings) || n > MAX_FILES))
        code = apr_fail(e, APR_EFORMAT, "%s: $.siblings: expected at most %u files", shown, MAX_FILES);
    if (code == APR_OK)
        code = apr_arena_try(h->arena, &out->names, n + 1, sizeof *out->names, "the list of files", e);
    for (size_t i = 0; code == APR_OK && i < n; i++)
        code = add_name(out, json_array_get(siblings, i), shown, h->arena, e);
    if (code == APR_OK) {
        out->commit = apr_arena_strdup(h->arena, commit);
        drop_doubles(out);
    }
    json_decref(root);
    return code;
}

enum apr_code hub_list(const struct hub *h, const char *repo, const char *revision, struct hub_listing *out,
                       bool *again, struct apr_err *e)
{
    struct apr_buf b;
    struct http_answer a;
    const char *shown = apr_arena_printf(h->arena, "%s@%s", repo, revision);
    *out = (struct hub_listing){0};
    struct http_req q = {.url = apr_arena_printf(h->arena, "%s/api/models/%s/revision/%s", h->endpoint, repo,
                                                 name_encode(h->arena, revision, false)),
                         .shown = shown,
                         .token = h->token};
    apr_buf_init(&b, MAX_LIST_BYTES);
    enum apr_code code = http_get(h->http, &q, &a, &b, e);
    *again = code != APR_OK && a.again;
    if (code == APR_OK && a.status != 200)
        code = apr_fail(e, APR_ENET, "%s: HTTP %ld; expected 200", shown, a.status);
    if (code == APR_OK) code = parse_listing(h, &b, shown, out, e);
    apr_buf_free(&b);
    return code;
}

enum apr_code hub_file(const struct hub *h, const char *repo, const char *commit, const char *name,
                       struct hub_file *out, struct apr_err *e)
{
    struct http_answer a;
    *out = (struct hub_file){.name = name};
    out->url = apr_arena_printf(h->arena, "%s/%s/resolve/%s/%s", h->endpoint, repo, commit,
                                name_encode(h->arena, name, true));
    out->shown = apr_arena_printf(h->arena, "%s/%s", repo, name);
    struct http_req q = {.url = out->url, .shown = out->shown, .token = h->token, .head = true};
    TRY(http_get(h->http, &q, &a, NULL, e));
    bool elsewhere = a.status >= 300; /* at a content server: only the X-Linked headers speak of the file */
    const char *etag = a.linked_etag[0] ? a.linked_etag : a.etag;
    out->etag = name_of_etag(h->arena, etag);
    if (!out->etag)
        return apr_fail(e, APR_ENET, "%s: the hub names no usable ETag (found \"%.100s\")", out->shown, etag);
    out->n_bytes = a.n_linked != HTTP_UNKNOWN ? a.n_linked : elsewhere ? HTTP_UNKNOWN : a.n_length;
    if (out->n_bytes == HTTP_UNKNOWN)
        return apr_fail(e, APR_ENET, "%s: the hub names no size; expected X-Linked-Size or Content-Length",
                        out->shown);
    if (name_is_hex(out->etag, APR_SHA256_HEX - 1)) out->sha256 = out->etag;
    if (name_is_hex(out->etag, NAME_COMMIT_HEX)) out->git = out->etag;
    return APR_OK;
}
