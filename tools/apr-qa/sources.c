#include "sources.h"

#include <inttypes.h>
#include <string.h>

#include "hash.h"
#include "log.h"
#include "provenance.h"

#define READ_BYTES ((size_t)1 << 20)

static const char proven[] = "proven", differs[] = "differs", missing[] = "missing",
                  unknown[] = "no hash recorded";

static enum apr_code hash_file(const char *path, struct apr_arena *a, struct source *s, struct apr_err *e)
{
    struct apr_src *src;
    struct apr_sha256 *h;
    struct apr_progress progress;
    uint8_t *buf = apr_arena_get(a, READ_BYTES);
    char hex[APR_SHA256_HEX];
    size_t n_got = 1;
    TRY(apr_src_open(&src, path, e));
    s->n_found = apr_src_size(src);
    enum apr_code code = apr_sha256_begin(&h, e);
    apr_progress_begin(&progress, s->name, s->n_found, "B");
    while (code == APR_OK && n_got) {
        code = apr_src_read_some(src, buf, READ_BYTES, &n_got, e);
        if (code == APR_OK) apr_sha256_add(h, buf, n_got);
        apr_progress_add(&progress, n_got);
    }
    apr_progress_end(&progress);
    if (code == APR_OK) apr_sha256_end(h, hex);
    if (code == APR_OK) s->found = apr_arena_strdup(a, hex);
    apr_src_close(src);
    return code;
}

/* Names come from the file: one path component, nothing that leaves the folder. */
static bool is_component(const char *s)
{
    return *s && strcmp(s, ".") != 0 && strcmp(s, "..") != 0 && strcmp(s, "-") != 0 && !strchr(s, '/');
}

static enum apr_code check(const char *dir, struct apr_arena *a, struct source *s, struct apr_err *e)
{
    s->n_found = UINT64_MAX;
    s->status = missing;
    if (!is_component(s->name)) return APR_OK;
    struct apr_err why;
    enum apr_code code = hash_file(apr_arena_printf(a, "%s/%s", dir, s->name), a, s, &why);
    if (code == APR_ENOTFOUND) return APR_OK;
    if (code != APR_OK) {
        *e = why;
        return code;
    }
    bool same_size = s->n_recorded == UINT64_MAX || s->n_recorded == s->n_found;
    if (!same_size || (s->recorded && strcmp(s->recorded, s->found) != 0))
        s->status = differs;
    else
        s->status = s->recorded ? proven : unknown;
    return APR_OK;
}

enum apr_code sources_check(const struct apr_model *m, const char *dir, struct apr_arena *a,
                            struct sources *s, struct apr_err *e)
{
    json_t *provenance = apr_provenance_of(m);
    const json_t *list = json_object_get(provenance, "sources");
    const json_t *trail = json_object_get(m->trailer, "sources");
    bool own = m->apr_meta || apr_kvs_find(&m->kvs, "apr.provenance");
    enum apr_code code = APR_OK;
    *s = (struct sources){.dir = dir, .n = json_array_size(list)};
    if (!own || s->n == 0)
        code = apr_fail(e, APR_ECONTRACT, "%s: --sources: the model does not record what it was made from",
                        m->path);
    if (code == APR_OK) code = apr_arena_try(a, &s->at, s->n, sizeof *s->at, "the sources", e);
    for (size_t i = 0; i < s->n && code == APR_OK; i++) {
        const json_t *row = json_array_get(list, i), *size = json_object_get(row, "size_bytes");
        const char *name = json_string_value(json_object_get(row, "name"));
        const char *sha256 = json_string_value(json_object_get(row, "sha256"));
        if (!sha256 && name) sha256 = json_string_value(json_object_get(trail, name));
        s->at[i] = (struct source){.name = apr_arena_strdup(a, name ? name : ""),
                                   .recorded = sha256 ? apr_arena_strdup(a, sha256) : NULL,
                                   .n_recorded = UINT64_MAX};
        if (json_is_integer(size) && json_integer_value(size) >= 0)
            s->at[i].n_recorded = (uint64_t)json_integer_value(size);
        code = check(dir, a, &s->at[i], e);
    }
    json_decref(provenance);
    return code;
}

void sources_show(const struct sources *s, struct apr_out *o)
{
    apr_out_arr(o, "sources");
    for (size_t i = 0; i < s->n; i++) {
        apr_out_obj(o, NULL);
        apr_out_str(o, "name", s->at[i].name);
        apr_out_str(o, "status", s->at[i].status);
        apr_out_str(o, "sha256_recorded", s->at[i].recorded);
        apr_out_str(o, "sha256_found", s->at[i].found);
        apr_out_end(o);
    }
    apr_out_end(o);
}

enum apr_code sources_judge(const struct sources *s, const char *path, struct apr_err *e)
{
    char shown[256];
    for (size_t i = 0; i < s->n; i++) {
        const struct source *x = &s->at[i];
        if (x->status == proven) continue;
        apr_escape(shown, sizeof shown, x->name, strlen(x->name));
        if (x->status == missing)
            return apr_fail(e, APR_ENOTFOUND, "%s: source %s: not in %s", path, shown, s->dir);
        if (x->status == unknown)
            return apr_fail(e, APR_ECONTRACT,
                            "%s: source %s: no SHA-256 is recorded (import --hash-sources records it); "
                            "expected %s",
                            path, shown, x->found);
        return apr_fail(e, APR_ECONTRACT, "%s: source %s: SHA-256 %s, expected %s", path, shown, x->found,
                        x->recorded ? x->recorded : "another size");
    }
    return APR_OK;
}
