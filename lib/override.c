#include "override.h"

#include <ctype.h>
#include <inttypes.h>
#include <string.h>

#include "fmt/derive.h"
#include "load.h"
#include "log.h"
#include "tok/pre.h"

#define MAX_TEMPLATE_BYTES (16u << 20)

/* Where a key of --set goes: the model card (from which a GGUF's keys are made), the flat metadata of .apr,
 * and, for a model that carries a GGUF's keys, the key itself. "" in gguf: only a card can say it. */
static const struct row {
    const char *key, *gguf;
    bool is_flat, is_list;
} rows[] = {
    {"name", "general.name", false, false}, /* the model's own name, see set_name */
    {"license", "general.license", false, false},
    {"description", "general.description", true, false},
    {"author", "general.author", true, false},
    {"version", "general.version", true, false},
    {"organization", "general.organization", false, false},
    {"finetune", "general.finetune", false, false},
    {"basename", "general.basename", false, false},
    {"size_label", "general.size_label", false, false},
    {"license_name", "general.license.name", false, false},
    {"license_link", "general.license.link", false, false},
    {"url", "general.source.url", false, false},
    {"doi", "general.source.doi", false, false},
    {"uuid", "general.source.uuid", false, false},
    {"repo_url", "general.source.repo_url", false, false},
    {"tags", "general.tags", false, true},
    {"language", "general.languages", false, true},
    {"base_model", "", false, true},
    {"datasets", "", false, true},
};

const char *apr_override_key_at(size_t i)
{
    return i < sizeof rows / sizeof *rows ? rows[i].key : NULL;
}

static bool carries_keys(const struct apr_model *m)
{
    return m->has_kvs && !m->hf_config; /* else a GGUF's keys are made from the documents */
}

static json_t *object_at(json_t **slot)
{
    if (!*slot) *slot = json_object();
    return *slot;
}

/* "a, b" as ["a", "b"]; NULL when it is not UTF-8 or has an empty part. */
static json_t *list_of(const char *v)
{
    json_t *list = json_array();
    for (;;) {
        v += strspn(v, " ");
        size_t n = strcspn(v, ","), n_text = n;
        while (n_text > 0 && v[n_text - 1] == ' ') n_text--;
        json_t *item = n_text > 0 ? json_stringn(v, n_text) : NULL;
        if (!item) {
            json_decref(list);
            return NULL;
        }
        json_array_append_new(list, item);
        if (!v[n]) return list;
        v += n + 1;
    }
}

static void put_kv(struct apr_model *m, const char *key, const json_t *v)
{
    struct apr_str *items;
    if (json_is_string(v)) {
        apr_kvs_str(&m->kvs, key, json_string_value(v));
        return;
    }
    items = apr_arena_get(&m->arena, json_array_size(v) * sizeof *items);
    for (size_t i = 0; i < json_array_size(v); i++) {
        const json_t *s = json_array_get(v, i);
        items[i] = (struct apr_str){json_string_value(s), json_string_length(s)};
    }
    apr_kvs_array(&m->kvs, key, APR_KV_STR, json_array_size(v), items);
}

static enum apr_code set_row(struct apr_model *m, const struct row *r, const char *value, struct apr_err *e)
{
    json_t *v = r->is_list ? list_of(value) : json_string(value);
    if (!v || !*value) {
        json_decref(v);
        return apr_fail(e, APR_EUSAGE, "--set %s: expected %s in UTF-8", r->key,
                        r->is_list ? "words with commas" : "a text");
    }
    if (carries_keys(m)) {
        if (!*r->gguf) {
            json_decref(v);
            return apr_fail(e, APR_EUSAGE,
                            "--set %s: this model's keys come from a GGUF, which spreads it over "
                            "several keys; set those by apr edit",
                            r->key);
        }
        put_kv(m, r->gguf, v);
    }
    if (r->is_flat) json_object_set(object_at(&m->apr_meta), r->key, v);
    json_object_set_new(object_at(&m->hf_card), r->key, v);
    return APR_OK;
}

static enum apr_code set_name(struct apr_model *m, const char *value, struct apr_err *e)
{
    TRY(set_row(m, &rows[0], value, e));
    m->name = apr_arena_strdup(&m->arena, value);
    return APR_OK;
}

static bool is_plain(const char *key)
{
    for (const char *p = key; *p; p++)
        if (!isalnum((unsigned char)*p) && *p != '_' && *p != '-') return false;
    return *key != '\0';
}

static enum apr_code set_custom(struct apr_model *m, const char *key, const char *value, struct apr_err *e)
{
    json_t *meta = object_at(&m->apr_meta), *custom = json_object_get(meta, "custom"),
           *v = json_string(value);
    if (!is_plain(key) || !v) {
        json_decref(v);
        return apr_fail(e, APR_EUSAGE,
                        "--set custom.%s: expected letters, digits, _ and - in the key, and UTF-8", key);
    }
    if (!json_is_object(custom)) {
        custom = json_object();
        json_object_set_new(meta, "custom", custom);
    }
    json_object_set_new(custom, key, v);
    return APR_OK;
}

static enum apr_code unknown_key(const char *key, struct apr_err *e)
{
    char names[384] = "";
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        size_t n = strlen(names);
        snprintf(names + n, sizeof names - n, "%s%s", n ? " " : "", rows[i].key);
    }
    return apr_fail(e, APR_EUSAGE, "--set %s: unknown key; expected one of: %s; or custom.KEY", key, names);
}

static enum apr_code set(struct apr_model *m, const char *word, struct apr_err *e)
{
    const char *equals = strchr(word, '=');
    if (!equals || equals == word) return apr_fail(e, APR_EUSAGE, "--set %s: expected KEY=VALUE", word);
    const char *key = apr_arena_strndup(&m->arena, word, (size_t)(equals - word)), *value = equals + 1;
    if (strncmp(key, "custom.", 7) == 0) return set_custom(m, key + 7, value, e);
    if (strcmp(key, rows[0].key) == 0) return set_name(m, value, e);
    for (size_t i = 1; i < sizeof rows / sizeof *rows; i++)
        if (strcmp(rows[i].key, key) == 0) return set_row(m, &rows[i], value, e);
    return unknown_key(key, e);
}

static enum apr_code set_pre(const struct apr_override *o, struct apr_model *m, struct apr_err *e)
{
    bool known = apr_pre_named(o->pre) != NULL;
    if (o->runs && m->vocab.hf)
        return apr_fail(e, APR_EUSAGE, "--pre: tokenizer.json says how this model splits words");
    if (!known && o->runs)
        return apr_fail(e, APR_EUSAGE, "--pre %s: no pre-tokenizer of this name is known", o->pre);
    if (!is_plain(o->pre) && !known)
        return apr_fail(e, APR_EUSAGE, "--pre %s: no name of a pre-tokenizer", o->pre);
    if (!known) apr_warn("--pre %s: not known here; written as it is", o->pre);
    m->vocab.pre = apr_arena_strdup(&m->arena, o->pre);
    if (carries_keys(m)) apr_kvs_str(&m->kvs, "tokenizer.ggml.pre", o->pre);
    return APR_OK;
}

static enum apr_code set_template(const char *path, struct apr_model *m, struct apr_err *e)
{
    struct apr_buf b;
    apr_buf_init(&b, MAX_TEMPLATE_BYTES);
    enum apr_code code = apr_read_file(path, MAX_TEMPLATE_BYTES, &b, e);
    json_t *text = code == APR_OK ? json_stringn((const char *)b.data, b.n_bytes) : NULL;
    if (code == APR_OK && (!text || b.n_bytes == 0 || memchr(b.data, 0, b.n_bytes)))
        code = apr_fail(e, APR_EFORMAT, "%s: expected a chat template in UTF-8", path);
    if (code == APR_OK) {
        m->vocab.chat_template = apr_arena_strndup(&m->arena, (const char *)b.data, b.n_bytes);
        if (carries_keys(m)) apr_kvs_str(&m->kvs, "tokenizer.chat_template", m->vocab.chat_template);
    }
    json_decref(text);
    apr_buf_free(&b);
    return code;
}

/* ---- another tokenizer -------------------------------------------------------------------------------- */

/* A tokenizer.json stands for its folder. */
static const char *tokenizer_path(const char *path, struct apr_arena *a)
{
    const char *slash = strrchr(path, '/'), *base = slash ? slash + 1 : path;
    if (strcmp(base, "tokenizer.json") != 0) return path;
    return slash ? apr_arena_strndup(a, path, (size_t)(slash - path) + (slash == path)) : ".";
}

/* Rows of the embedding beyond the tokens get names of their own, as they do where config.json is beside. */
static enum apr_code pad_vocab(struct apr_model *m, const struct apr_model *from, struct apr_err *e)
{
    struct apr_vocab *v = &m->vocab;
    uint32_t n = m->config.n_vocab;
    struct apr_str *toks;
    int32_t *types;
    if (v->n_toks > n && n > 0)
        return apr_fail(e, APR_ECONTRACT, "%s: %" PRIu32 " tokens; %s has %" PRIu32 " rows in its embedding",
                        from->path, v->n_toks, m->path, n);
    if (v->n_toks >= n || !v->types) return APR_OK;
    if (v->scores)
        return apr_fail(e, APR_ECONTRACT,
                        "%s: %" PRIu32 " tokens with scores; %s has %" PRIu32 " rows in its embedding",
                        from->path, v->n_toks, m->path, n);
    TRY(apr_arena_try(&m->arena, &toks, n, sizeof *toks, "tokens", e));
    TRY(apr_arena_try(&m->arena, &types, n, sizeof *types, "token types", e));
    memcpy(toks, v->toks, v->n_toks * sizeof *toks);
    memcpy(types, v->types, v->n_toks * sizeof *types);
    for (uint32_t i = v->n_toks; i < n; i++) {
        toks[i].p = apr_arena_printf(&m->arena, "[PAD%" PRIu32 "]", i);
        toks[i].n_bytes = strlen(toks[i].p);
        types[i] = APR_TOK_UNUSED;
    }
    v->toks = toks;
    v->types = types;
    v->n_toks = n;
    return APR_OK;
}

static enum apr_code take_tokenizer(struct apr_override *o, struct apr_model *m, struct apr_err *e)
{
    if (carries_keys(m))
        return apr_fail(e, APR_EUSAGE,
                        "--tokenizer: %s carries a GGUF's keys, which belong to its own tokenizer", m->path);
    TRY(apr_load_vocab(tokenizer_path(o->tokenizer, &m->arena), &o->donor, e));
    struct apr_model *d = o->donor;
    const struct apr_vocab own = m->vocab;
    json_decref(m->vocab.hf);
    m->vocab = d->vocab; /* its strings live as long as the donor */
    json_incref(m->vocab.hf);
    if (!m->vocab.chat_template && m->vocab.n_templates == 0) {
        m->vocab.chat_template = own.chat_template;
        m->vocab.templates = own.templates;
        m->vocab.n_templates = own.n_templates;
    }
    if (d->hf_tok_config) {
        json_decref(m->hf_tok_config);
        m->hf_tok_config = json_incref(d->hf_tok_config);
    }
    TRY(pad_vocab(m, d, e));
    return apr_derive_generation(m, e);
}

enum apr_code apr_override_apply(struct apr_override *o, struct apr_model *m, struct apr_err *e)
{
    if (o->tokenizer) TRY(take_tokenizer(o, m, e));
    if (o->pre) TRY(set_pre(o, m, e));
    if (o->chat_template) TRY(set_template(o->chat_template, m, e));
    if (o->model_name) TRY(set_name(m, o->model_name, e));
    for (size_t i = 0; i < o->set.n; i++) TRY(set(m, o->set.at[i], e));
    return APR_OK;
}

/* ---- taking out --------------------------------------------------------------------------------------- */

static bool take_kv_out(struct apr_model *m, const char *key)
{
    struct apr_kvs rest;
    bool found = false;
    if (!*key || !apr_kvs_find(&m->kvs, key)) return false;
    apr_kvs_init(&rest, &m->arena);
    for (size_t i = 0; i < m->kvs.n; i++)
        if (strcmp(m->kvs.at[i].key.p, key) != 0)
            apr_kvs_add(&rest, &m->kvs.at[i]);
        else
            found = true;
    m->kvs = rest;
    return found;
}

enum apr_code apr_override_unset(const char *key, struct apr_model *m, struct apr_err *e)
{
    bool found = false;
    if (strncmp(key, "custom.", 7) == 0) {
        json_t *custom = json_object_get(m->apr_meta, "custom");
        found = json_object_del(custom, key + 7) == 0;
        if (found && json_object_size(custom) == 0) json_object_del(m->apr_meta, "custom");
    }
    for (size_t i = 1; i < sizeof rows / sizeof *rows; i++) { /* a model has a name */
        if (strcmp(rows[i].key, key) != 0) continue;
        found |= json_object_del(m->hf_card, key) == 0;
        found |= json_object_del(m->apr_meta, key) == 0;
        if (carries_keys(m)) found |= take_kv_out(m, rows[i].gguf);
    }
    return found ? APR_OK
                 : apr_fail(e, APR_ENOTFOUND, "--unset %s: %s has no such key to take out", key, m->path);
}

void apr_override_close(struct apr_override *o)
{
    apr_model_close(o->donor);
    o->donor = NULL;
}
