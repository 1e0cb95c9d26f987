/* The one door. See load.h. */
#include "load.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "fmt/fmt.h"
#include "hash.h"
#include "sibling.h"

#define PROBE_BYTES 512u

static bool has_suffix(const char *s, const char *suffix)
{
    size_t n = strlen(s), k = strlen(suffix);
    return n >= k && strcmp(s + n - k, suffix) == 0;
}

/* Content that no probe knows. The name may say what was meant, which makes a better message. */
static enum apr_code refuse(struct apr_src *src, const char *path, const uint8_t *head, size_t n,
                            struct apr_err *e)
{
    enum apr_code code;
    const char *foreign = apr_fmt_foreign(head, n, &code);
    if (foreign) return apr_fail(e, code, "%s: this is %s", apr_src_name(src), foreign);
    if (n < 4)
        return apr_fail(e, APR_EFORMAT, "%s: byte 0: %zu bytes, expected SafeTensors, .apr or GGUF",
                        apr_src_name(src), n);
    return apr_fail(e, APR_EFORMAT,
                    "%s: byte 0: unknown format: begins with %02x %02x %02x %02x, expected %s",
                    apr_src_name(src), head[0], head[1], head[2], head[3],
                    has_suffix(path, ".safetensors") ? "the length of a SafeTensors header"
                                                     : "SafeTensors, .apr or GGUF");
}

static enum apr_code load_file(struct apr_model *m, const char *path, enum apr_load_how how,
                               struct apr_err *e)
{
    struct apr_src *src;
    const uint8_t *head;
    size_t n;
    enum apr_code code;
    TRY(apr_src_open(&src, path, e));
    code = (how & APR_LOAD_RANDOM) ? apr_src_spool(src, e) : APR_OK;
    if (code == APR_OK) code = apr_src_peek(src, PROBE_BYTES, &head, &n, e);
    if (code == APR_OK) {
        m->fmt = apr_fmt_probe(head, n);
        if (m->fmt) return m->fmt->open(src, path, m, e);
        code = refuse(src, path, head, n, e);
    }
    apr_src_close(src);
    return code;
}

static bool is_folder(const char *path)
{
    struct stat st;
    return strcmp(path, "-") != 0 && stat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

static enum apr_code load_path(struct apr_model *m, const char *path, enum apr_load_how how,
                               struct apr_err *e)
{
    struct stat st;
    const char *slash = strrchr(path, '/');
    if (is_folder(path)) return apr_hf_folder_open(path, m, e);
    if (has_suffix(path, ".safetensors.index.json")) {
        if (stat(path, &st) != 0) return apr_fail(e, APR_ENOTFOUND, "%s: %s", path, strerror(errno));
        return apr_hf_folder_open(
            slash ? apr_arena_strndup(&m->arena, path, (size_t)(slash - path + 1)) : ".", m, e);
    }
    return load_file(m, path, how, e);
}

/* A model of a hub becomes the path in the cache: only apr-pull speaks to the network. */
static enum apr_code localize(const char **path, char *local, size_t n_local, struct apr_err *e)
{
    if (!apr_sibling_is_remote(*path)) return APR_OK;
    TRY(apr_sibling_pull(*path, local, n_local, e));
    *path = local;
    return APR_OK;
}

enum apr_code apr_load_model(const char *path, enum apr_load_how how, struct apr_model **out,
                             struct apr_err *e)
{
    char local[PATH_MAX];
    *out = NULL;
    TRY(localize(&path, local, sizeof local, e));
    struct apr_model *m = apr_model_new(path);
    m->is_look = (how & APR_LOAD_LOOK) != 0;
    m->is_hashed = (how & APR_LOAD_HASH) != 0;
    enum apr_code code = load_path(m, path, how, e);
    if (code == APR_OK && (how & APR_LOAD_RANDOM)) code = apr_model_map(m, e);
    if (code != APR_OK) {
        apr_model_close(m);
        return code;
    }
    *out = m;
    return APR_OK;
}

enum apr_code apr_load_vocab(const char *path, struct apr_model **out, struct apr_err *e)
{
    char local[PATH_MAX];
    *out = NULL;
    TRY(localize(&path, local, sizeof local, e));
    struct apr_model *m = apr_model_new(path);
    enum apr_code code =
        is_folder(path) ? apr_hf_vocab_open(path, m, e) : load_path(m, path, APR_LOAD_STREAM, e);
    if (code == APR_OK && m->vocab.kind == APR_VOCAB_NONE)
        code = apr_fail(e, APR_ELOAD, "%s: holds no tokenizer", path);
    if (code != APR_OK) {
        apr_model_close(m);
        return code;
    }
    *out = m;
    return APR_OK;
}
