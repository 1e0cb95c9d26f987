/* Reader of split GGUFs: whichever part is named, all of them are opened, and checked as one model. See
 * gguf.h. Keys: split.no (from 0), split.count, split.tensors.count (of the set). Source: facts on GGUF
 * export, 9. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "gguf.h"
#include "origin.h"

#define N_DIGITS    5
#define TAIL_LENGTH 20 /* "-00001-of-00004.gguf" */

/* Names of a set differ in the number of the part. */
struct set {
    const char *path;
    size_t n_prefix;
    uint32_t no, n; /* the named part, from 1 */
};

static bool digits(const char *s, uint32_t *v)
{
    *v = 0;
    for (int i = 0; i < N_DIGITS; i++) {
        if (s[i] < '0' || s[i] > '9') return false;
        *v = *v * 10 + (uint32_t)(s[i] - '0');
    }
    return true;
}

static bool parse_name(const char *path, struct set *s)
{
    size_t n = strlen(path);
    if (n <= TAIL_LENGTH) return false;
    const char *tail = path + n - TAIL_LENGTH;
    *s = (struct set){.path = path, .n_prefix = n - TAIL_LENGTH};
    return tail[0] == '-' && digits(tail + 1, &s->no) && strncmp(tail + 6, "-of-", 4) == 0 &&
           digits(tail + 10, &s->n) && strcmp(tail + 15, ".gguf") == 0 && s->n > 1 && s->no >= 1;
}

static const char *part_path(struct apr_model *m, const struct set *s, uint32_t i)
{
    return apr_arena_printf(&m->arena, "%.*s-%05" PRIu32 "-of-%05" PRIu32 ".gguf", (int)s->n_prefix, s->path,
                            i + 1, s->n);
}

/* What the named file says, read aside: it need not be the part that has the keys. */
static enum apr_code peek(struct apr_src *src, const char *path, struct apr_gguf_part *part,
                          struct apr_err *e)
{
    struct apr_model *aside = apr_model_new(path);
    enum apr_code code = apr_model_add_files(aside, 1, e);
    part->kvs = &aside->kvs;
    part->keys_only = true;
    if (code == APR_OK) {
        aside->files[0].src = src;
        code = apr_gguf_read_part(aside, part, e);
        aside->files[0].src = NULL; /* the caller's */
    }
    apr_model_close(aside);
    return code;
}

static enum apr_code check_part(const struct set *s, const struct apr_gguf_part *p, uint64_t n_total,
                                const char *file, struct apr_err *e)
{
    if (p->n_parts != s->n || p->no != p->i_file)
        return apr_fail(e, APR_EFORMAT,
                        "%s: says that it is part %" PRIu64 " of %" PRIu64 ", expected part %" PRIu32
                        " of %" PRIu32,
                        file, p->no + 1, p->n_parts, p->i_file + 1, s->n);
    if (p->n_total != n_total)
        return apr_fail(e, APR_EFORMAT, "%s: split.tensors.count: %" PRIu64 ", the first part says %" PRIu64,
                        file, p->n_total, n_total);
    return APR_OK;
}

/* src: the open source of the part that was named, NULL for the others. */
static enum apr_code open_part(struct apr_model *m, const struct set *s, uint32_t i, struct apr_src *src,
                               struct apr_err *e)
{
    const char *path = part_path(m, s, i);
    if (!src) {
        enum apr_code code = apr_src_open(&src, path, e);
        if (code != APR_OK) {
            apr_err_prefix(e, "part %" PRIu32 " of %" PRIu32 " of a split GGUF", i + 1, s->n);
            return code;
        }
    }
    apr_origin_file(m, i, src, path);
    return apr_src_seekable(src) ? APR_OK : apr_fail(e, APR_EFORMAT, "%s: expected a regular file", path);
}

enum apr_code apr_gguf_read_set(struct apr_model *m, struct apr_src *src, const char *path,
                                struct apr_gguf_arrays *arrays, bool *is_set, struct apr_err *e)
{
    struct set s;
    struct apr_gguf_part named = {0};
    uint64_t n_total = 0;
    *is_set = false;
    if (!parse_name(path, &s)) return APR_OK;
    enum apr_code code = s.n > APR_MAX_SHARDS || s.no > s.n ? APR_OK : peek(src, path, &named, e);
    *is_set = code != APR_OK || named.n_parts > 1;
    if (!*is_set) return APR_OK;
    if (code == APR_OK) code = apr_model_add_files(m, s.n, e);
    if (code == APR_OK) m->files[s.no - 1].src = src; /* the model's from here on */
    if (code != APR_OK) apr_src_close(src);
    TRY(code);
    for (uint32_t i = 0; i < s.n; i++) TRY(open_part(m, &s, i, i + 1 == s.no ? src : NULL, e));
    for (uint32_t i = 0; i < s.n; i++) {
        struct apr_kvs *aside = apr_arena_get(&m->arena, sizeof *aside);
        struct apr_gguf_part part = {.i_file = i, .kvs = i == 0 ? &m->kvs : aside};
        apr_kvs_init(aside, &m->arena);
        TRY(apr_gguf_read_part(m, &part, e));
        if (i == 0) n_total = part.n_total;
        if (i == 0) *arrays = part.arrays;
        TRY(check_part(&s, &part, n_total, apr_src_name(m->files[i].src), e));
    }
    if (m->n_tensors == n_total) return APR_OK;
    return apr_fail(e, APR_EFORMAT, "%s: %" PRIu32 " parts with %" PRIu64 " tensors, expected %" PRIu64, path,
                    s.n, m->n_tensors, n_total);
}
