#include "provenance.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "json.h"
#include "log.h"
#include "version.h"

#define READ_BYTES ((size_t)1 << 20)

/* .../models--ORG--NAME/snapshots/REVISION/...: the hub cache's layout names repository and revision. */
static void from_hub_cache(const char *path, json_t *p)
{
    char real[PATH_MAX];
    const char *at = NULL;
    /* The folder is resolved, not a link to a blob, so that snapshots/ stays visible. */
    if (!realpath(path, real)) return;
    const char *const candidates[] = {real, path};
    for (size_t i = 0; i < 2 && !at; i++) at = strstr(candidates[i], "/models--");
    if (!at) return;
    at += strlen("/models--");
    const char *org_end = strstr(at, "--"), *end = strchr(at, '/');
    const char *revision = end && strncmp(end, "/snapshots/", 11) == 0 ? end + 11 : NULL;
    if (!org_end || !end || org_end > end || !revision) return;
    json_object_set_new(
        p, "repository",
        json_sprintf("%.*s/%.*s", (int)(org_end - at), at, (int)(end - org_end - 2), org_end + 2));
    json_object_set_new(p, "revision", json_stringn(revision, strcspn(revision, "/")));
}

/* What an .apr carries in its metadata, and a GGUF of ours in a key. A new reference, or NULL. */
static json_t *carried(const struct apr_model *m)
{
    json_t *own = json_object_get(json_object_get(m->apr_meta, "apr"), "provenance");
    const struct apr_kv *kv = m->has_kvs ? apr_kvs_find(&m->kvs, "apr.provenance") : NULL;
    struct apr_err ignored;
    if (json_is_object(own)) return json_deep_copy(own);
    if (m->apr_meta || !kv || kv->type != APR_KV_STR) return NULL;
    if (apr_json_parse(kv->v.s.p, kv->v.s.n_bytes, "apr.provenance", &own, &ignored) != APR_OK) return NULL;
    if (json_is_object(own)) return own;
    json_decref(own);
    return NULL;
}

static bool own_provenance(const struct apr_model *m)
{
    json_t *own = carried(m);
    bool has = own != NULL;
    json_decref(own);
    return has;
}

json_t *apr_provenance_of(const struct apr_model *m)
{
    json_t *own = carried(m);
    if (own) return own;
    json_t *p = json_object(), *sources = json_array();
    from_hub_cache(m->path, p);
    for (uint32_t i = 0; i < m->n_files; i++) {
        const struct apr_file *f = &m->files[i];
        json_t *s = json_object();
        json_object_set_new(s, "name", json_string(f->name));
        if (f->n_bytes != UINT64_MAX)
            json_object_set_new(s, "size_bytes", json_integer((json_int_t)f->n_bytes));
        if (f->sha256) json_object_set_new(s, "sha256", json_string(f->sha256));
        json_array_append_new(sources, s);
    }
    json_object_set_new(p, "sources", sources);
    json_object_set_new(p, "steps", json_array());
    return p;
}

enum apr_code apr_provenance_trail(const struct apr_model *m, json_t *trailer, struct apr_err *e)
{
    enum apr_code code = APR_OK;
    json_t *sources = json_object_get(m->trailer, "sources");
    if (own_provenance(m)) {
        if (json_object_size(sources)) json_object_set(trailer, "sources", sources);
        return APR_OK;
    }
    sources = json_object();
    for (uint32_t i = 0; code == APR_OK && i < m->n_files; i++) {
        char hex[APR_SHA256_HEX];
        bool whole = false;
        if (!m->files[i].sha256 && m->files[i].src) code = apr_src_sha_end(m->files[i].src, hex, &whole, e);
        if (whole) json_object_set_new(sources, m->files[i].name, json_string(hex));
    }
    if (json_object_size(sources)) json_object_set(trailer, "sources", sources);
    json_decref(sources);
    return code;
}

void apr_provenance_step(json_t *provenance, const char *step, const struct apr_recipe *recipe, bool pure)
{
    json_t *s = json_object();
    json_object_set_new(s, "step", json_string(step));
    json_object_set_new(s, "tool", json_string("apr " APR_VERSION));
    if (recipe) json_object_set_new(s, "recipe", json_string(recipe->name));
    if (pure) json_object_set_new(s, "pure", json_true());
    json_t *steps = json_object_get(provenance, "steps");
    if (!json_is_array(steps)) {
        steps = json_array();
        json_object_set_new(provenance, "steps", steps);
    }
    json_array_append_new(steps, s);
}

static enum apr_code hash_file(struct apr_model *m, struct apr_file *f, uint8_t *buf, struct apr_err *e)
{
    struct apr_sha256 *h;
    struct apr_progress p;
    char hex[APR_SHA256_HEX];
    enum apr_code code = APR_OK;
    TRY(apr_sha256_begin(&h, e));
    apr_progress_begin(&p, f->name, f->n_bytes, "B");
    for (uint64_t off = 0; off < f->n_bytes && code == APR_OK; off += READ_BYTES) {
        size_t n = f->n_bytes - off < READ_BYTES ? (size_t)(f->n_bytes - off) : READ_BYTES;
        code = apr_src_pread_stored(f->src, off, buf, n, "the file", e);
        if (code == APR_OK) apr_sha256_add(h, buf, n);
        apr_progress_add(&p, n);
    }
    apr_progress_end(&p);
    apr_sha256_end(h, hex);
    f->sha256 = apr_arena_strdup(&m->arena, hex);
    return code;
}

enum apr_code apr_provenance_hash(struct apr_model *m, struct apr_err *e)
{
    struct apr_arena a;
    enum apr_code code = APR_OK;
    if (m->is_stream)
        return apr_fail(e, APR_EUSAGE, "--hash-sources reads the files twice; give a file instead of a pipe");
    apr_arena_init(&a);
    uint8_t *buf = apr_arena_get(&a, READ_BYTES);
    for (uint32_t i = 0; i < m->n_files && code == APR_OK; i++) code = hash_file(m, &m->files[i], buf, e);
    apr_arena_free(&a);
    return code;
}
