/* Stamps of models that passed. See contract_stamp.h. */
#include "contract_stamp.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "log.h"

#define MAX_STAMP_BYTES (1u << 20)
#define MAX_PATH_BYTES  4096
/* Raised when the data rules or what is hashed change: older stamps then vouch for nothing. */
#define RULES_VERSION 1

/* APR_HOME, else XDG_CACHE_HOME/apr/models, else HOME/.cache/apr/models. */
static bool home(char *out, size_t n_out)
{
    const char *apr = getenv("APR_HOME"), *xdg = getenv("XDG_CACHE_HOME"), *user = getenv("HOME");
    int n = -1;
    if (apr && *apr)
        n = snprintf(out, n_out, "%s", apr);
    else if (xdg && *xdg == '/')
        n = snprintf(out, n_out, "%s/apr/models", xdg);
    else if (user && *user == '/')
        n = snprintf(out, n_out, "%s/.cache/apr/models", user);
    return n > 0 && (size_t)n < n_out;
}

static bool make_dirs(const char *path)
{
    char part[MAX_PATH_BYTES];
    size_t n = strlen(path);
    if (n >= sizeof part) return false;
    memcpy(part, path, n + 1);
    for (size_t i = 1; i <= n; i++) {
        if (part[i] != '/' && part[i] != '\0') continue;
        char kept = part[i];
        part[i] = '\0';
        if (mkdir(part, 0777) != 0 && errno != EEXIST) return false;
        part[i] = kept;
    }
    return true;
}

/* What is read without looking at the data: names, types, shapes, places, hyper-parameters. */
static uint64_t table_hash(const struct apr_model *m)
{
    struct apr_xxh3 *h = apr_xxh3_begin();
    const struct apr_config *c = &m->config;
    const uint64_t config[] = {c->n_layers, c->n_hidden, c->n_heads, c->n_heads_kv,
                               c->head_dim, c->n_inter,  c->n_vocab, c->tied};
    apr_xxh3_add(h, config, sizeof config);
    for (uint64_t i = 0; i < m->n_tensors; i++) {
        const struct apr_tensor *t = &m->tensors[i];
        const uint64_t place[] = {(uint64_t)t->type, (uint64_t)t->packing, t->n_dims, t->n_bytes,
                                  t->i_file,         t->off_file};
        apr_xxh3_add(h, t->name, strlen(t->name) + 1);
        apr_xxh3_add(h, place, sizeof place);
        apr_xxh3_add(h, t->dims, sizeof t->dims);
    }
    return apr_xxh3_end(h);
}

/* The text of the stamp, and the path whose name says which files it is about. */
static bool compose(const struct apr_model *m, struct apr_buf *text, char *path, size_t n_path)
{
    struct apr_err e;
    struct apr_xxh3 *h = apr_xxh3_begin();
    char dir[MAX_PATH_BYTES];
    bool ok = apr_buf_printf(text, &e, "apr-stamp rules %d\nfamily %s\n", RULES_VERSION,
                             m->family ? m->family->name : "-") == APR_OK;
    for (uint32_t i = 0; ok && i < m->n_files; i++) {
        struct apr_src_id id;
        ok = m->files[i].src && apr_src_identify(m->files[i].src, &id) &&
             apr_buf_printf(text, &e, "file %" PRIu64 " %" PRIu64 " %" PRIu64 " %" PRId64 "\n", id.device,
                            id.inode, id.n_bytes, id.mtime_ns) == APR_OK;
        if (!ok) break;
        apr_xxh3_add(h, &id.device, sizeof id.device);
        apr_xxh3_add(h, &id.inode, sizeof id.inode);
    }
    uint64_t key = apr_xxh3_end(h);
    ok = ok && m->n_files > 0 && apr_buf_printf(text, &e, "header %016" PRIx64 "\n", table_hash(m)) == APR_OK;
    ok = ok &&
         apr_buf_printf(text, &e, "end %016" PRIx64 "\n", apr_xxh3_64(text->data, text->n_bytes)) == APR_OK;
    if (!ok || !home(dir, sizeof dir)) return false;
    int n = snprintf(path, n_path, "%s/stamps/%016" PRIx64, dir, key);
    return n > 0 && (size_t)n < n_path;
}

bool apr_stamp_holds(const struct apr_model *m)
{
    struct apr_buf want, found;
    struct apr_err e;
    char path[MAX_PATH_BYTES];
    bool same;
    apr_buf_init(&want, MAX_STAMP_BYTES);
    apr_buf_init(&found, MAX_STAMP_BYTES);
    same = compose(m, &want, path, sizeof path) &&
           apr_read_file(path, MAX_STAMP_BYTES, &found, &e) == APR_OK && found.n_bytes == want.n_bytes &&
           memcmp(found.data, want.data, want.n_bytes) == 0;
    apr_buf_free(&found);
    apr_buf_free(&want);
    return same;
}

void apr_stamp_write(const struct apr_model *m)
{
    struct apr_buf text;
    struct apr_err e = {.text = "not a file that can be named again"};
    struct apr_sink *sink;
    char path[MAX_PATH_BYTES];
    bool ok = false;
    apr_buf_init(&text, MAX_STAMP_BYTES);
    if (compose(m, &text, path, sizeof path)) {
        char *slash = strrchr(path, '/');
        *slash = '\0';
        ok = make_dirs(path);
        if (!ok) apr_err_set(&e, APR_EIO, "%s: %s", path, strerror(errno));
        *slash = '/';
        ok = ok && apr_sink_open(&sink, path, true, &e) == APR_OK;
        if (ok) {
            apr_sink_write(sink, text.data, text.n_bytes);
            ok = apr_sink_finish(sink, &e) == APR_OK;
        }
    }
    if (!ok) apr_verbose("the data will be scanned again next time: %s", e.text);
    apr_buf_free(&text);
}
