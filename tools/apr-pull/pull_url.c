/* One file from a URL, to APR_HOME/downloads/KEY/NAME or to -o FILE.
 *
 * KEY is the beginning of the SHA-256 of the URL. Beside NAME stands NAME.pull.json: {"url", "sha256",
 * "size_bytes", "etag", "last_modified"}, which lets the next pull ask the server only whether the file has
 * changed; while the download runs, NAME.incomplete.json holds the validator under which it can be continued.
 */
#include <inttypes.h>
#include <errno.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cache.h"
#include "digest.h"
#include "fetch.h"
#include "http_parts.h"
#include "io.h"
#include "json.h"
#include "log.h"
#include "names.h"
#include "tree.h"
#include "verb_pull.h"

#define KEY_DIGITS       16
#define MAX_RECORD_BYTES 65536u

struct job {
    struct pull *p;
    struct apr_arena *arena;
    const char *url, *shown;
    const char *path;    /* where the file ends */
    const char *record;  /* NULL with -o */
    const char *partial; /* the validator of the .incomplete */
    struct fetch get;
};

static enum apr_code default_path(struct job *j, const char *url_path, struct apr_err *e)
{
    struct apr_sha256 *h;
    char key[APR_SHA256_HEX];
    const char *root, *name = name_base(url_path);
    if (!name_is_path(name))
        return apr_fail(e, APR_EUSAGE, "%s: the URL names no file; choose a name with -o FILE", j->shown);
    TRY(cache_apr_root(&root, j->arena, e));
    TRY(apr_sha256_begin(&h, e));
    apr_sha256_add(h, j->url, strlen(j->url));
    apr_sha256_end(h, key);
    const char *dir = apr_arena_printf(j->arena, "%s/downloads/%.*s", root, KEY_DIGITS, key);
    j->path = apr_arena_printf(j->arena, "%s/%s", dir, name);
    j->record = apr_arena_printf(j->arena, "%s.pull.json", j->path);
    return j->p->offline || j->p->args->dry_run ? APR_OK : tree_make(dir, e);
}

/* Absent or unusable records are no error: the file is then downloaded. NULL, or for the caller to release.
 */
static json_t *read_record(const char *path)
{
    struct apr_err ignored;
    json_t *v = NULL;
    if (!path || apr_json_load(path, MAX_RECORD_BYTES, &v, &ignored) != APR_OK) return NULL;
    return v;
}

static const char *text_of(const json_t *record, const char *key, struct apr_arena *a)
{
    const char *v = json_string_value(json_object_get(record, key));
    return v && *v ? apr_arena_strdup(a, v) : NULL;
}

static enum apr_code write_record(const char *path, json_t *v, struct apr_err *e)
{
    struct apr_buf b;
    struct apr_sink *s = NULL;
    apr_buf_init(&b, MAX_RECORD_BYTES);
    enum apr_code code = apr_json_dump(v, false, &b, e);
    if (code == APR_OK) code = apr_sink_open(&s, path, true, e);
    if (code == APR_OK) {
        apr_sink_write(s, b.data, b.n_bytes);
        apr_sink_write(s, "\n", 1);
        code = apr_sink_finish(s, e);
    }
    apr_buf_free(&b);
    json_decref(v);
    return code;
}

static enum apr_code on_validator(const struct fetch *f, const struct http_answer *a, struct apr_err *e)
{
    const struct job *j = (const struct job *)((const char *)f - offsetof(struct job, get));
    bool strong = a->etag[0] && strncmp(a->etag, "W/", 2) != 0;
    const char *validator = strong ? a->etag : "";
    return write_record(j->partial, json_pack("{ssss}", "url", j->url, "validator", validator), e);
}

static enum apr_code done(struct job *j, const char *sha256, uint64_t n_bytes, bool cached, struct apr_err *e)
{
    struct pull *p = j->p;
    const char *want = p->args->sha256;
    if (want && sha256 && strcmp(want, sha256) != 0)
        return apr_fail(e, APR_EFORMAT, "%s: SHA-256 is %s, expected %s", j->path, sha256, want);
    p->files = apr_arena_get(j->arena, sizeof *p->files);
    p->files[0] = (struct pull_file){.name = name_base(j->path),
                                     .sha256 = sha256 ? apr_arena_strdup(j->arena, sha256) : NULL,
                                     .n_bytes = n_bytes,
                                     .cached = cached};
    p->n_files = 1;
    p->path = j->path;
    return APR_OK;
}

/* What is there already, as it is. */
static enum apr_code use_present(struct job *j, struct apr_err *e)
{
    char hex[APR_SHA256_HEX];
    uint64_t n_bytes;
    TRY(digest_sha256(j->path, hex, &n_bytes, e));
    return done(j, hex, n_bytes, true, e);
}

static bool is_present(const struct job *j, const json_t *record)
{
    struct stat st;
    if (stat(j->path, &st) || !S_ISREG(st.st_mode)) return false;
    const json_t *size = json_object_get(record, "size_bytes");
    return json_is_integer(size) && json_integer_value(size) == (json_int_t)st.st_size;
}

static void set_conditions(struct job *j, const json_t *record, bool present)
{
    struct fetch *f = &j->get;
    json_t *partial = read_record(j->partial);
    const char *url = json_string_value(json_object_get(partial, "url"));
    if (url && strcmp(url, j->url) == 0) f->validator = text_of(partial, "validator", j->arena);
    json_decref(partial);
    if (!present || f->fresh) return;
    f->if_none_match = text_of(record, "etag", j->arena);
    if (!f->if_none_match) f->if_modified_since = text_of(record, "last_modified", j->arena);
}

static enum apr_code download(struct job *j, const json_t *record, bool present, struct http *http,
                              struct apr_err *e)
{
    struct fetch *f = &j->get;
    const struct http_answer *a = &f->answer;
    *f = (struct fetch){.http = http,
                        .arena = j->arena,
                        .url = j->url,
                        .shown = j->shown,
                        .path = j->path,
                        .n_expected = HTTP_UNKNOWN,
                        .max_bytes = j->p->max_bytes,
                        .want_sha256 = j->p->args->sha256,
                        .fresh = j->p->args->force,
                        .on_validator = on_validator};
    set_conditions(j, record, present);
    enum apr_code code = fetch_file(f, e);
    bool gone = access(f->temp, F_OK) != 0;
    if (gone && unlink(j->partial) && errno != ENOENT) apr_verbose("%s: %s", j->partial, strerror(errno));
    TRY(code);
    if (f->not_modified) return use_present(j, e);
    if (j->record)
        TRY(write_record(j->record,
                         json_pack("{sssssIssss}", "url", j->url, "sha256", f->sha256, "size_bytes",
                                   (json_int_t)f->n_bytes, "etag", a->etag, "last_modified",
                                   a->last_modified),
                         e));
    return done(j, f->sha256, f->n_bytes, false, e);
}

static enum apr_code dry_run(struct job *j, struct http *http, struct apr_err *e)
{
    struct http_answer a;
    struct http_req q = {.url = j->url, .shown = j->shown, .head = true};
    TRY(http_get(http, &q, &a, NULL, e));
    return done(j, NULL, a.n_length == HTTP_UNKNOWN ? 0 : a.n_length, false, e);
}

static enum apr_code from_network(struct job *j, const json_t *record, bool present, struct apr_err *e)
{
    struct http *http;
    struct http_limits limits = {.n_retries = j->p->args->n_retries, .stall_s = j->p->args->stall_s};
    TRY(http_open(&http, &limits, e));
    enum apr_code code = j->p->args->dry_run ? dry_run(j, http, e) : download(j, record, present, http, e);
    http_close(http);
    return code;
}

/* --sha256 says what the file must be: when it is, nobody needs to be asked. */
static bool is_wanted_one(const struct job *j)
{
    char hex[APR_SHA256_HEX];
    uint64_t n_bytes;
    struct apr_err ignored;
    return j->p->args->sha256 && digest_sha256(j->path, hex, &n_bytes, &ignored) == APR_OK &&
           strcmp(hex, j->p->args->sha256) == 0;
}

static enum apr_code pull_file_of(struct job *j, struct apr_err *e)
{
    const struct pull_args *args = j->p->args;
    json_t *record = read_record(j->record);
    bool present = is_present(j, record);
    bool in_the_way = args->output && access(args->output, F_OK) == 0 && !args->force && !args->dry_run;
    bool use = !args->force && (is_wanted_one(j) || (j->p->offline && present && !in_the_way));
    enum apr_code code;
    if (use)
        code = use_present(j, e);
    else if (in_the_way)
        code = apr_fail(e, APR_EUSAGE, "%s: exists already; --force replaces it", args->output);
    else if (!j->p->offline)
        code = from_network(j, record, present, e);
    else
        code = apr_fail(e, APR_ENOTFOUND, "%s: not downloaded yet, and offline", j->shown);
    json_decref(record);
    return code;
}

enum apr_code pull_url(struct pull *p, const struct source *s, struct apr_err *e)
{
    struct job j = {.p = p, .arena = p->ctx->arena, .url = s->url, .path = p->args->output};
    char shown[512];
    const char *host, *url_path;
    TRY(http_url_split(j.arena, s->url, &host, &url_path, e));
    http_url_shown(s->url, NULL, shown, sizeof shown);
    j.shown = apr_arena_strdup(j.arena, shown);
    if (!j.path) TRY(default_path(&j, url_path, e));
    j.partial = apr_arena_printf(j.arena, "%s.incomplete.json", j.path);
    return pull_file_of(&j, e);
}
