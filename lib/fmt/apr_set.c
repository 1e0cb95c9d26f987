/* Sets of .apr files as the original cut them: PREFIX-00001-of-0000N.apr, also counted from 00000; each a
 * whole file with header, metadata and index. Source: the format document, 10. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "apr.h"
#include "origin.h"

#define N_DIGITS    5
#define TAIL_LENGTH 19 /* "-00001-of-00004.apr" */

static bool digits(const char *s, uint32_t *v)
{
    *v = 0;
    for (int i = 0; i < N_DIGITS; i++) {
        if (s[i] < '0' || s[i] > '9') return false;
        *v = *v * 10 + (uint32_t)(s[i] - '0');
    }
    return true;
}

static const char *shard_path(struct apr_model *m, const char *path, uint32_t no, uint32_t n)
{
    return apr_arena_printf(&m->arena, "%.*s-%05" PRIu32 "-of-%05" PRIu32 ".apr",
                            (int)(strlen(path) - TAIL_LENGTH), path, no, n);
}

/* *no: as the name counts. */
static bool parse_name(const char *path, uint32_t *no, uint32_t *n)
{
    size_t n_path = strlen(path);
    if (n_path <= TAIL_LENGTH) return false;
    const char *tail = path + n_path - TAIL_LENGTH;
    return tail[0] == '-' && digits(tail + 1, no) && strncmp(tail + 6, "-of-", 4) == 0 &&
           digits(tail + 10, n) && strcmp(tail + 15, ".apr") == 0 && *n > 1 && *n <= APR_MAX_SHARDS &&
           *no <= *n;
}

static enum apr_code is_flagged(struct apr_src *src, bool *flagged, struct apr_err *e)
{
    const uint8_t *head;
    size_t n;
    TRY(apr_src_peek(src, APR_HEADER_BYTES, &head, &n, e));
    *flagged = n == APR_HEADER_BYTES && (head[APR_OFF_FLAGS] & APR_FLAG_SHARDED);
    return APR_OK;
}

static enum apr_code open_one(struct apr_model *m, struct apr_src *src, const char *path, struct apr_err *e)
{
    enum apr_code code = apr_model_add_files(m, 1, e);
    if (code == APR_OK)
        apr_origin_file(m, 0, src, path);
    else
        apr_src_close(src);
    return code;
}

enum apr_code apr_set_open(struct apr_model *m, struct apr_src *src, const char *path, uint32_t *n_files,
                           struct apr_err *e)
{
    uint32_t no, n, base = 1;
    struct stat st;
    bool flagged = false;
    enum apr_code code = apr_src_seekable(src) ? is_flagged(src, &flagged, e) : APR_OK;
    *n_files = 1;
    if (code != APR_OK || !flagged || !parse_name(path, &no, &n)) {
        TRY(open_one(m, src, path, e));
        return code;
    }
    if (no == 0 || stat(shard_path(m, path, 0, n), &st) == 0) base = 0;
    code = apr_model_add_files(m, n, e);
    if (code == APR_OK && no - base >= n)
        code = apr_fail(e, APR_EFORMAT, "%s: shard %" PRIu32 " of %" PRIu32 ", counted from 0", path, no, n);
    if (code != APR_OK) {
        apr_src_close(src);
        return code;
    }
    apr_origin_file(m, no - base, src, path);
    for (uint32_t i = 0; i < n; i++) {
        struct apr_src *other;
        const char *name = shard_path(m, path, i + base, n);
        if (i == no - base) continue;
        code = apr_src_open(&other, name, e);
        if (code != APR_OK) {
            apr_err_prefix(e, "shard %" PRIu32 " of %" PRIu32 " of a set", i + 1, n);
            return code;
        }
        apr_origin_file(m, i, other, name);
        if (!apr_src_seekable(other)) return apr_fail(e, APR_EFORMAT, "%s: expected a regular file", name);
    }
    *n_files = n;
    return APR_OK;
}
