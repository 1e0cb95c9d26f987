/* Documents of sentence-transformers. See sentence.h. */
#include "sentence.h"

#include <ctype.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "../json.h"

#define DOC_MAX_BYTES (16u << 20)
#define MODULES       "modules.json"
#define SETTINGS      "sentence_bert_config.json"
#define PROMPTS       "config_sentence_transformers.json"
#define MAX_TOKS      (1u << 28)

/* gguf: llama.cpp's pooling_type; 0 = it has none. key: of the pooling module's config.json, older spelling;
 * the newer one is pooling_mode with the name mode. */
static const struct {
    enum apr_pooling pooling;
    const char *name, *key, *mode;
    uint32_t gguf;
} poolings[] = {
    {APR_POOL_MEAN, "mean", "pooling_mode_mean_tokens", "mean", 1},
    {APR_POOL_CLS, "cls", "pooling_mode_cls_token", "cls", 2},
    {APR_POOL_LAST, "last", "pooling_mode_lasttoken", "lasttoken", 3},
    {APR_POOL_MAX, "max", "pooling_mode_max_tokens", "max", 0},
    {APR_POOL_MEAN_SQRT, "mean-sqrt", "pooling_mode_mean_sqrt_len_tokens", "mean_sqrt_len_tokens", 0},
    {APR_POOL_WEIGHTED, "weighted", "pooling_mode_weightedmean_tokens", "weightedmean", 0},
};
#define N_POOLINGS (sizeof poolings / sizeof poolings[0])

const char *apr_pooling_name(enum apr_pooling p)
{
    for (size_t i = 0; i < N_POOLINGS; i++)
        if (poolings[i].pooling == p) return poolings[i].name;
    return "none";
}

enum apr_pooling apr_pooling_named(const char *name)
{
    for (size_t i = 0; i < N_POOLINGS; i++)
        if (strcmp(poolings[i].name, name) == 0) return poolings[i].pooling;
    return APR_POOL_NONE;
}

/* ---- reading ------------------------------------------------------------------------------------------ */

static bool is_module_folder(const char *name)
{
    size_t n = strlen(name), i = 0;
    while (i < n && isdigit((unsigned char)name[i])) i++;
    if (i == 0 || n > 64 || name[i] != '_') return false;
    for (; i < n; i++)
        if (!isalnum((unsigned char)name[i]) && name[i] != '_') return false;
    return true;
}

static enum apr_code load_one(const char *dir, const char *name, json_t *all, struct apr_err *e)
{
    char path[PATH_MAX];
    struct stat st;
    json_t *doc;
    int n = snprintf(path, sizeof path, "%s/%s", dir, name);
    if (n <= 0 || (size_t)n >= sizeof path || stat(path, &st) != 0) return APR_OK;
    TRY(apr_json_load(path, DOC_MAX_BYTES, &doc, e));
    json_object_set_new(all, name, doc);
    return APR_OK;
}

static enum apr_code load_modules(const char *dir, json_t *all, struct apr_err *e)
{
    TRY(load_one(dir, MODULES, all, e));
    const json_t *modules = json_object_get(all, MODULES);
    if (!modules) return APR_OK;
    if (!json_is_array(modules)) return apr_fail(e, APR_EFORMAT, "%s/" MODULES ": expected a list", dir);
    for (size_t i = 0; i < json_array_size(modules); i++) {
        const char *path = json_string_value(json_object_get(json_array_get(modules, i), "path"));
        char name[128];
        if (!path || !*path) continue; /* the transformer itself, in the folder */
        if (!is_module_folder(path))
            return apr_fail(e, APR_EFORMAT, "%s/" MODULES ": $[%zu].path: expected a folder like 1_Pooling",
                            dir, i);
        (void)snprintf(name, sizeof name, "%s/config.json", path);
        TRY(load_one(dir, name, all, e));
    }
    TRY(load_one(dir, SETTINGS, all, e));
    return load_one(dir, PROMPTS, all, e);
}

enum apr_code apr_sentence_load(struct apr_model *m, const char *dir, struct apr_err *e)
{
    json_t *all = json_object();
    enum apr_code code = load_modules(dir, all, e);
    if (code != APR_OK || !json_object_size(all)) {
        json_decref(all);
        return code;
    }
    json_decref(m->hf_sentence);
    m->hf_sentence = all;
    return APR_OK;
}

/* ---- meaning ------------------------------------------------------------------------------------------ */

/* "sentence_transformers.models.Pooling" is "Pooling". */
static const char *kind_of(const json_t *module)
{
    const char *type = json_string_value(json_object_get(module, "type"));
    const char *dot = type ? strrchr(type, '.') : NULL;
    return dot ? dot + 1 : type ? type : "?";
}

static void read_pooling(struct apr_model *m, const json_t *module)
{
    const char *path = json_string_value(json_object_get(module, "path"));
    char name[128];
    (void)snprintf(name, sizeof name, "%.100s/config.json", path ? path : "");
    const json_t *doc = json_object_get(m->hf_sentence, name);
    const char *mode = json_string_value(json_object_get(doc, "pooling_mode"));
    size_t n = 0;
    for (size_t i = 0; i < N_POOLINGS; i++) {
        bool on =
            json_is_true(json_object_get(doc, poolings[i].key)) || (mode && !strcmp(mode, poolings[i].mode));
        if (on) m->config.pooling = poolings[i].pooling;
        n += on;
    }
    if (n != 1) m->config.pooling = APR_POOL_NONE; /* none, one that is not known here, or a concatenation */
}

static enum apr_code from_documents(struct apr_model *m, struct apr_err *e)
{
    const json_t *modules = json_object_get(m->hf_sentence, MODULES);
    uint64_t n_max = 0;
    for (size_t i = 0; i < json_array_size(modules); i++) {
        const json_t *module = json_array_get(modules, i);
        if (strcmp(kind_of(module), "Pooling") == 0) read_pooling(m, module);
        if (strcmp(kind_of(module), "Normalize") == 0) m->config.normalize = true;
    }
    TRY(apr_json_u64(json_object_get(m->hf_sentence, SETTINGS), "max_seq_length", 1, MAX_TOKS, &n_max,
                     SETTINGS, e));
    m->config.n_max_embed = (uint32_t)n_max;
    return APR_OK;
}

#define KEY_NORMALIZE "apr.embedding.normalize"
#define KEY_MAX       "apr.embedding.max_tokens"
#define KEY_POOLING   "apr.embedding.pooling"

static const char *pooling_key(const struct apr_model *m, char *out, size_t n_out)
{
    (void)snprintf(out, n_out, "%s.pooling_type", m->family->gguf_arch);
    return out;
}

/* A GGUF that only names a pooling was made for embedding, and its users expect vectors of length 1. */
static enum apr_code from_keys(struct apr_model *m, struct apr_err *e)
{
    char key[96];
    uint64_t type = 0, n_max = 0;
    const char *name = NULL;
    TRY(apr_kv_get_u64(&m->kvs, pooling_key(m, key, sizeof key), 0, 4, &type, m->path, e));
    TRY(apr_kv_get_str(&m->kvs, KEY_POOLING, &name, m->path, e));
    TRY(apr_kv_get_u64(&m->kvs, KEY_MAX, 1, MAX_TOKS, &n_max, m->path, e));
    for (size_t i = 0; type && i < N_POOLINGS; i++)
        if (poolings[i].gguf == type) m->config.pooling = poolings[i].pooling;
    if (name) m->config.pooling = apr_pooling_named(name);
    m->config.normalize = m->config.pooling != APR_POOL_NONE;
    m->config.n_max_embed = (uint32_t)n_max;
    return apr_kv_get_bool(&m->kvs, KEY_NORMALIZE, &m->config.normalize, m->path, e);
}

enum apr_code apr_sentence_derive(struct apr_model *m, struct apr_err *e)
{
    if (!m->family) return APR_OK;
    if (m->hf_sentence) return from_documents(m, e);
    return m->has_kvs && !m->hf_config ? from_keys(m, e) : APR_OK;
}

void apr_sentence_to_gguf(const struct apr_model *m, struct apr_kvs *kvs)
{
    char key[96];
    if (m->config.pooling == APR_POOL_NONE) return;
    for (size_t i = 0; i < N_POOLINGS; i++) {
        if (poolings[i].pooling != m->config.pooling) continue;
        if (poolings[i].gguf)
            apr_kvs_u32(kvs, pooling_key(m, key, sizeof key), poolings[i].gguf);
        else
            apr_kvs_str(kvs, KEY_POOLING, poolings[i].name);
    }
    if (!m->hf_sentence && !apr_kvs_find(&m->kvs, KEY_NORMALIZE)) return;
    apr_kvs_bool(kvs, KEY_NORMALIZE, m->config.normalize);
    if (m->config.n_max_embed) apr_kvs_u32(kvs, KEY_MAX, m->config.n_max_embed);
}

const char *apr_sentence_unknown(const struct apr_model *m)
{
    const json_t *modules = json_object_get(m->hf_sentence, MODULES);
    for (size_t i = 0; i < json_array_size(modules); i++) {
        const char *kind = kind_of(json_array_get(modules, i));
        if (strcmp(kind, "Transformer") != 0 && strcmp(kind, "Pooling") != 0 &&
            strcmp(kind, "Normalize") != 0)
            return kind;
        if (strcmp(kind, "Pooling") == 0 && m->config.pooling == APR_POOL_NONE) return kind;
    }
    return NULL;
}

/* ---- prompts ------------------------------------------------------------------------------------------ */

const char *apr_sentence_prompt(const struct apr_model *m, const char *name)
{
    const json_t *doc = json_object_get(m->hf_sentence, PROMPTS);
    if (!name) name = json_string_value(json_object_get(doc, "default_prompt_name"));
    return name ? json_string_value(json_object_get(json_object_get(doc, "prompts"), name)) : NULL;
}

bool apr_sentence_pools_prompt(const struct apr_model *m)
{
    const char *name;
    json_t *doc;
    json_object_foreach(m->hf_sentence, name, doc)
    {
        if (json_is_false(json_object_get(doc, "include_prompt"))) return false;
    }
    return true;
}

bool apr_sentence_is_document(const char *name)
{
    const char *slash = strchr(name, '/');
    char folder[128];
    if (!slash) return !strcmp(name, MODULES) || !strcmp(name, SETTINGS) || !strcmp(name, PROMPTS);
    if ((size_t)(slash - name) >= sizeof folder || strcmp(slash, "/config.json") != 0) return false;
    (void)snprintf(folder, sizeof folder, "%.*s", (int)(slash - name), name);
    return is_module_folder(folder);
}
