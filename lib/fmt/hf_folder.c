/* Hugging Face folders. See hf_folder.h. */
#include "hf_folder.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "../json.h"
#include "../log.h"
#include "../tok/tok.h"
#include "arrange.h"
#include "derive.h"
#include "origin.h"
#include "safetensors.h"
#include "sentence.h"
#include "table.h"

#define CONFIG_MAX_BYTES (16u << 20)
#define INDEX_MAX_BYTES  (256u << 20)
#define ONE_FILE         "model.safetensors"
#define INDEX            "model.safetensors.index.json"

static bool exists(const char *dir, const char *name)
{
    char path[PATH_MAX];
    struct stat st;
    int n = snprintf(path, sizeof path, "%s/%s", dir, name);
    return n > 0 && (size_t)n < sizeof path && stat(path, &st) == 0;
}

/* Also a link whose target is missing: weights that did not arrive are an error, not a folder without
 * weights. */
static bool is_listed(const char *dir, const char *name)
{
    char path[PATH_MAX];
    struct stat st;
    int n = snprintf(path, sizeof path, "%s/%s", dir, name);
    return n > 0 && (size_t)n < sizeof path && lstat(path, &st) == 0;
}

static const char *join(struct apr_model *m, const char *dir, const char *name)
{
    return apr_arena_printf(&m->arena, "%s/%s", dir, name);
}

/* ---- documents ---------------------------------------------------------------------------------------- */

/* *out stays NULL when there is no such file. */
static enum apr_code load_document(struct apr_model *m, const char *dir, const char *name, json_t **out,
                                   struct apr_err *e)
{
    const char *path = join(m, dir, name);
    if (!exists(dir, name)) return APR_OK;
    TRY(apr_json_load(path, CONFIG_MAX_BYTES, out, e));
    if (!json_is_object(*out)) return apr_fail(e, APR_EFORMAT, "%s: expected a JSON object", path);
    return APR_OK;
}

static enum apr_code load_documents(struct apr_model *m, const char *dir, struct apr_err *e)
{
    TRY(load_document(m, dir, "config.json", &m->hf_config, e));
    TRY(load_document(m, dir, "generation_config.json", &m->hf_generation, e));
    TRY(apr_sentence_load(m, dir, e));
    if (exists(dir, "README.md")) m->hf_card = apr_hf_card_read(join(m, dir, "README.md"));
    return APR_OK;
}

static bool has_tokenizer(const char *dir)
{
    static const char *const names[] = {"tokenizer.json", "vocab.json", "tokenizer.model", "spiece.model",
                                        "vocab.txt"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (exists(dir, names[i])) return true;
    return false;
}

/* A tokenizer that this version cannot read stops a known family; a model of an unknown one still opens
 * (for inspection), without its vocabulary. */
static enum apr_code load_tokenizer(struct apr_model *m, const char *dir, struct apr_err *e)
{
    enum apr_code code;
    if (!has_tokenizer(dir)) return APR_OK;
    code = apr_tok_read_hf(dir, apr_derive_n_vocab(m->hf_config), m->hf_config, &m->arena, &m->vocab,
                           &m->hf_tok_config, e);
    if (code == APR_OK || m->family || m->vocab_only) return code;
    apr_warn("%s; going on without the tokenizer", e->text);
    json_decref(m->vocab.hf);
    m->vocab.hf = NULL;
    m->vocab.kind = APR_VOCAB_NONE;
    m->vocab.n_toks = 0;
    m->vocab.n_merges = 0;
    return APR_OK;
}

/* ---- shards ------------------------------------------------------------------------------------------- */

/* One path component of printable ASCII: nothing that leaves the folder. Links are the file system's business
 * (the Hugging Face cache is made of them). */
static bool is_component(const char *s)
{
    size_t n = strlen(s);
    if (n == 0 || n > NAME_MAX || strcmp(s, ".") == 0 || strcmp(s, "..") == 0) return false;
    for (size_t i = 0; i < n; i++)
        if (s[i] == '/' || s[i] == '\\' || !isprint((unsigned char)s[i])) return false;
    return true;
}

static int by_text(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* The distinct shard names of weight_map, sorted. */
static enum apr_code shard_names(struct apr_model *m, const json_t *map, const char *index,
                                 const char ***names, uint32_t *n_names, struct apr_err *e)
{
    size_t n = 0, n_all = json_object_size(map);
    const char **all, *tensor;
    json_t *v;
    if (n_all > APR_MAX_TENSORS)
        return apr_fail(e, APR_ELOAD, "%s: %zu tensors, expected at most %u", index, n_all, APR_MAX_TENSORS);
    TRY(apr_arena_try(&m->arena, &all, n_all + 1, sizeof *all, "shard names", e));
    json_object_foreach((json_t *)(uintptr_t)map, tensor, v)
    {
        char shown[256];
        const char *name = json_string_value(v);
        if (!name || !is_component(name))
            return apr_fail(e, APR_EFORMAT,
                            "%s: $.weight_map: shard \"%s\": expected the name of a file in the same folder",
                            index,
                            apr_escape(shown, sizeof shown, name ? name : "?", name ? strlen(name) : 1));
        all[n++] = name;
    }
    qsort(all, n, sizeof *all, by_text);
    *names = all;
    *n_names = 0;
    for (size_t i = 0; i < n; i++) {
        if (i && strcmp(all[i], all[i - 1]) == 0) continue;
        if (*n_names == APR_MAX_SHARDS)
            return apr_fail(e, APR_ELOAD, "%s: more than %u shards", index, APR_MAX_SHARDS);
        all[(*n_names)++] = all[i];
    }
    return APR_OK;
}

static enum apr_code open_shards(struct apr_model *m, const char *dir, const char *const *names, uint32_t n,
                                 struct apr_err *e)
{
    TRY(apr_model_add_files(m, n, e));
    for (uint32_t i = 0; i < n; i++) {
        const char *path = join(m, dir, names[i]);
        struct apr_src *src;
        json_t *metadata;
        enum apr_code code = apr_src_open(&src, path, e);
        if (code != APR_OK) return code;
        apr_origin_file(m, i, src, path);
        if (!apr_src_seekable(src)) return apr_fail(e, APR_EFORMAT, "%s: expected a regular file", path);
        code = apr_st_read_shard(m, i, &metadata, e);
        if (i == 0)
            m->st_metadata = metadata;
        else
            json_decref(metadata);
        TRY(code);
    }
    return apr_model_index(m, e);
}

/* Every tensor of the index in the shard that it names, and no other tensors. */
static enum apr_code check_index(const struct apr_model *m, const json_t *map, const char *index,
                                 struct apr_err *e)
{
    char shown[256];
    for (uint64_t i = 0; i < m->n_tensors; i++) {
        const struct apr_tensor *t = &m->tensors[i];
        const char *in = m->files[t->i_file].name;
        const char *want = json_string_value(json_object_get(map, t->name));
        if (!want || strcmp(want, in) != 0)
            return apr_fail(e, APR_EFORMAT, "%s: tensor \"%s\" is in %s, the index names %s", index,
                            apr_escape(shown, sizeof shown, t->name, strlen(t->name)), in,
                            want ? want : "no file");
    }
    if (m->n_tensors != json_object_size(map)) {
        const char *name;
        json_t *v;
        json_object_foreach((json_t *)(uintptr_t)map, name, v)
        {
            if (!apr_model_find(m, name))
                return apr_fail(e, APR_EFORMAT, "%s: tensor \"%s\" is missing from %s", index,
                                apr_escape(shown, sizeof shown, name, strlen(name)), json_string_value(v));
        }
    }
    return APR_OK;
}

static enum apr_code open_indexed(struct apr_model *m, const char *dir, struct apr_err *e)
{
    const char *index = join(m, dir, INDEX), **names;
    uint32_t n;
    json_t *root = NULL, *map;
    enum apr_code code = apr_json_load(index, INDEX_MAX_BYTES, &root, e);
    if (code != APR_OK) return code;
    map = json_object_get(root, "weight_map");
    if (!json_is_object(map) || json_object_size(map) == 0)
        code = apr_fail(e, APR_EFORMAT, "%s: $.weight_map: expected an object with tensors", index);
    if (code == APR_OK) code = shard_names(m, map, index, &names, &n, e);
    if (code == APR_OK) code = open_shards(m, dir, names, n, e);
    if (code == APR_OK) code = check_index(m, map, index, e);
    json_decref(root);
    return code;
}

static bool has_suffix(const char *s, const char *suffix)
{
    size_t n = strlen(s), k = strlen(suffix);
    return n > k && strcmp(s + n - k, suffix) == 0;
}

/* The one *.safetensors of the folder, or NULL; *n tells how many there are. *other: weights of another kind.
 */
static const char *only_file(struct apr_model *m, const char *dir, uint32_t *n, const char **other,
                             struct apr_err *e)
{
    const char *found = NULL;
    const struct dirent *entry;
    DIR *d = opendir(dir);
    *n = 0;
    *other = NULL;
    if (!d) {
        (void)apr_fail(e, APR_EIO, "%s: %s", dir, strerror(errno));
        return NULL;
    }
    while ((entry = readdir(d))) {
        const char *name = entry->d_name;
        if (has_suffix(name, ".safetensors")) {
            (*n)++;
            found = apr_arena_strdup(&m->arena, name);
        } else if (has_suffix(name, ".bin") || has_suffix(name, ".gguf") || has_suffix(name, ".apr") ||
                   has_suffix(name, ".pth")) {
            *other = apr_arena_strdup(&m->arena, name);
        }
    }
    closedir(d);
    return found;
}

static enum apr_code open_weights(struct apr_model *m, const char *dir, struct apr_err *e)
{
    const char *name = ONE_FILE, *other;
    uint32_t n;
    if (!is_listed(dir, ONE_FILE)) {
        if (is_listed(dir, INDEX)) return open_indexed(m, dir, e);
        e->code = APR_OK;
        name = only_file(m, dir, &n, &other, e);
        if (!name && e->code != APR_OK) return e->code;
        if (n > 1)
            return apr_fail(e, APR_EFORMAT, "%s: %" PRIu32 " .safetensors files and no " INDEX, dir, n);
        if (!name && other) {
            char shown[256];
            return apr_fail(e, APR_ELOAD,
                            "%s: holds %s, expected SafeTensors; name the file if it is a model", dir,
                            apr_escape(shown, sizeof shown, other, strlen(other)));
        }
        if (!name) {
            if (!has_tokenizer(dir))
                return apr_fail(e, APR_ENOTFOUND, "%s: no SafeTensors and no tokenizer files in this folder",
                                dir);
            m->vocab_only = true;
            return apr_model_index(m, e);
        }
    }
    return open_shards(m, dir, &name, 1, e);
}

/* ---- externals ---------------------------------------------------------------------------------------- */

static enum apr_code open_folder(const char *dir, struct apr_model *m, struct apr_err *e)
{
    TRY(load_documents(m, dir, e));
    if (m->vocab_only) {
        m->family = m->hf_config ? apr_family_of_hf(m->hf_config) : NULL;
    } else {
        TRY(apr_derive_config(m, e));
        TRY(apr_arrange(m, e));
    }
    TRY(load_tokenizer(m, dir, e));
    return apr_derive_generation(m, e);
}

enum apr_code apr_hf_folder_open(const char *dir, struct apr_model *m, struct apr_err *e)
{
    m->fmt = &apr_fmt_safetensors;
    apr_origin_name(m, dir);
    TRY(open_weights(m, dir, e));
    return open_folder(dir, m, e);
}

enum apr_code apr_hf_vocab_open(const char *dir, struct apr_model *m, struct apr_err *e)
{
    m->fmt = &apr_fmt_safetensors;
    m->vocab_only = true;
    apr_origin_name(m, dir);
    if (!has_tokenizer(dir)) return apr_fail(e, APR_ENOTFOUND, "%s: no tokenizer files in this folder", dir);
    TRY(apr_model_index(m, e));
    return open_folder(dir, m, e);
}

enum apr_code apr_hf_companions(struct apr_model *m, const char *path, struct apr_err *e)
{
    const char *slash = strrchr(path, '/');
    const char *dir =
        slash ? apr_arena_strndup(&m->arena, path, (size_t)(slash - path) + (slash == path)) : ".";
    if (strcmp(path, "-") == 0) return APR_OK;
    apr_origin_name(m, path);
    TRY(load_documents(m, dir, e));
    TRY(apr_derive_config(m, e));
    TRY(apr_arrange(m, e));
    TRY(load_tokenizer(m, dir, e));
    return apr_derive_generation(m, e);
}
