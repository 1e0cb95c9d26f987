#include "sources.h"

#include <inttypes.h>
#include <string.h>

#include "ckd.h"
#include "hash.h"
#include "log.h"
#include "provenance.h"

#define READ_BYTES ((size_t)1 << 20)

static const char proven[] = "proven", differs[] = "differs", missing[] = "missing",
                  unknown[] = "no hash recorded";

struct hashed {
    const char *path, *hex;
    uint64_t n_bytes;
};

static enum apr_code hash_file(struct hashed *file, const char *name, struct apr_arena *a, struct apr_err *e)
{
    struct apr_src *src;
    struct apr_sha256 *h;
    struct apr_progress progress;
    uint8_t *buf = apr_arena_get(a, READ_BYTES);
    char hex[APR_SHA256_HEX];
    size_t n_got = 1;
    TRY(apr_src_open(&src, file->path, e));
    file->n_bytes = apr_src_size(src);
    enum apr_code code = apr_sha256_begin(&h, e);
    apr_progress_begin(&progress, name, file->n_bytes, "B");
    while (code == APR_OK && n_got) {
        code = apr_src_read_some(src, buf, READ_BYTES, &n_got, e);
        if (code == APR_OK) apr_sha256_add(h, buf, n_got);
        apr_progress_add(&progress, n_got);
    }
    apr_progress_end(&progress);
    apr_sha256_end(h, hex);
    if (code == APR_OK) file->hex = apr_arena_strdup(a, hex);
    apr_src_close(src);
    return code;
}

/* *out: NULL when there is no such file. */
static enum apr_code look_up(struct sources *s, const char *dir, const char *name, struct apr_arena *a,
                             const struct hashed **out, struct apr_err *e)
{
    struct hashed *file = &s->hashed[s->n_hashed];
    struct apr_err why;
    *out = NULL;
    *file = (struct hashed){.path = apr_arena_printf(a, "%s/%s", dir, name)};
    for (size_t i = 0; i < s->n_hashed && !*out; i++)
        if (strcmp(s->hashed[i].path, file->path) == 0) *out = &s->hashed[i];
    if (*out) return APR_OK;
    enum apr_code code = hash_file(file, name, a, &why);
    if (code == APR_ENOTFOUND) return APR_OK;
    if (code != APR_OK) {
        *e = why;
        return code;
    }
    *out = file;
    s->n_hashed++;
    return APR_OK;
}

/* Names come from the file: one path component, nothing that leaves the folder. */
static bool is_component(const char *s)
{
    return *s && strcmp(s, ".") != 0 && strcmp(s, "..") != 0 && strcmp(s, "-") != 0 && !strchr(s, '/');
}

static enum apr_code check(struct sources *s, struct source *x, struct apr_arena *a, struct apr_err *e)
{
    x->status = missing;
    if (!is_component(x->name)) return APR_OK;
    for (size_t i = 0; i < s->dirs->n && x->status != proven; i++) {
        const struct hashed *file;
        TRY(look_up(s, s->dirs->at[i], x->name, a, &file, e));
        if (!file) continue;
        bool same_size = x->n_recorded == UINT64_MAX || x->n_recorded == file->n_bytes;
        x->found = file->hex;
        if (!same_size || (x->recorded && strcmp(x->recorded, file->hex) != 0))
            x->status = differs;
        else
            x->status = x->recorded ? proven : unknown;
    }
    return APR_OK;
}

enum apr_code sources_check(const struct apr_model *m, const struct apr_strs *dirs, struct apr_arena *a,
                            struct sources *s, struct apr_err *e)
{
    json_t *provenance = apr_provenance_of(m);
    const json_t *list = json_object_get(provenance, "sources");
    const json_t *trail = json_object_get(m->trailer, "sources");
    bool own = m->apr_meta || apr_kvs_find(&m->kvs, "apr.provenance");
    enum apr_code code = APR_OK;
    size_t n_files;
    *s = (struct sources){.dirs = dirs, .n = json_array_size(list)};
    if (!own || s->n == 0)
        code = apr_fail(e, APR_ECONTRACT, "%s: --sources: the model does not record what it was made from",
                        m->path);
    if (code == APR_OK) code = apr_arena_try(a, &s->at, s->n, sizeof *s->at, "the sources", e);
    if (code == APR_OK && (ckd_mul(&n_files, s->n, dirs->n) || ckd_add(&n_files, n_files, (size_t)1)))
        n_files = SIZE_MAX;
    if (code == APR_OK) code = apr_arena_try(a, &s->hashed, n_files, sizeof *s->hashed, "the sources", e);
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
        code = check(s, &s->at[i], a, e);
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
            return apr_fail(e, APR_ENOTFOUND, "%s: source %s: not in %s%s", path, shown, s->dirs->at[0],
                            s->dirs->n > 1 ? ", nor in the other folders" : "");
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
