/* One file from a URL to the disk: resumed, measured, hashed, and in place only when all of it is right.
 *
 * The bytes go to PATH.incomplete, which stays after an interruption (also SIGKILL) and is continued with
 * Range and If-Range; 200 in answer to Range starts over. The file is locked while it is written, so that of
 * two programs one waits. Then: size, digest, fsync, rename, fsync of the folder. Wrong content is removed
 * (4).
 *
 *     struct fetch f = {.http = h, .url = url, .shown = "org/name/file", .path = blob, .n_expected = n};
 *     TRY(fetch_file(&f, e));  f.sha256 is what arrived
 */
#ifndef APR_PULL_FETCH_H
#define APR_PULL_FETCH_H

#include "digest.h"
#include "http.h"

struct fetch {
    struct http *http;
    struct apr_arena *arena;
    const char *url, *token, *shown;
    const char *path;          /* where it ends */
    const char *temp;          /* PATH.incomplete */
    uint64_t n_expected;       /* HTTP_UNKNOWN: the server says, or the end of the body */
    uint64_t max_bytes;        /* never more than this */
    const char *want_sha256;   /* NULL: not known */
    const char *want_git_sha1; /* NULL: not known */
    const char *validator;     /* strong ETag or date under which an earlier .incomplete came; NULL: none */
    bool fresh;                /* start over whatever is there */
    const char *if_none_match; /* a 304 is then success, and nothing is written */
    const char *if_modified_since;
    /* called when the body begins anew, with what a later run needs to continue it; may be NULL */
    enum apr_code (*on_validator)(const struct fetch *f, const struct http_answer *a, struct apr_err *e);
    /* results */
    uint64_t n_bytes, n_resumed;
    bool not_modified;
    char sha256[APR_SHA256_HEX];
    struct http_answer answer;
};

APR_MUST_USE enum apr_code fetch_file(struct fetch *f, struct apr_err *e);
/* Fails with 7 unless the file system of dir has n bytes free. */
APR_MUST_USE enum apr_code fetch_need_space(const char *dir, uint64_t n_bytes, struct apr_err *e);

#endif
