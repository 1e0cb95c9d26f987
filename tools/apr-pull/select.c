/* Which files are wanted. See select.h. */
#include "select.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "json.h"
#include "names.h"

#define MAX_INDEX_BYTES ((size_t)64 << 20)

static const char *const companions[] = {
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "tokenizer.model",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    "added_tokens.json",
    "special_tokens_map.json",
    "chat_template.jinja",
    "chat_template.json",
    "preprocessor_config.json",
    "normalizer.json",
    "README.md",
    "LICENSE",
    "LICENSE.txt",
    "LICENSE.md",
};

/* Chat templates for tools and documents, one a file. */
static const char templates[] = "additional_chat_templates/";

/* Most wanted first. */
static const char *const gguf_types[] = {"q4_k_m", "q4_k_s", "q4_0", "q8_0"};

void select_init(struct select *s, const char *const *names, size_t n_names, struct apr_arena *a)
{
    *s = (struct select){.names = names, .n_names = n_names};
    s->wanted = apr_arena_get(a, n_names * sizeof *s->wanted + 1);
}

static bool find(const struct select *s, const char *name, size_t *i)
{
    for (*i = 0; *i < s->n_names; ++*i)
        if (strcmp(s->names[*i], name) == 0) return true;
    return false;
}

static bool want(struct select *s, const char *name)
{
    size_t i;
    if (!find(s, name, &i)) return false;
    s->wanted[i] = true;
    return true;
}

static bool at_root(const char *name)
{
    return !strchr(name, '/');
}

/* Not a projector of a vision model, and not an importance matrix. */
static bool is_model_gguf(const char *name)
{
    return name_has_suffix(name, ".gguf") && strncasecmp(name_base(name), "mmproj", 6) != 0 &&
           !strcasestr(name_base(name), "imatrix");
}

/* NAME-00001-of-00003.gguf: *n_stem is what all parts share. */
static bool is_split(const char *name, size_t *n_stem)
{
    static const char form[] = "-ddddd-of-ddddd.gguf";
    size_t n = strlen(name), k = sizeof form - 1;
    if (n <= k) return false;
    for (size_t i = 0; i < k; i++)
        if (form[i] == 'd' ? !isdigit((unsigned char)name[n - k + i]) : name[n - k + i] != form[i])
            return false;
    *n_stem = n - k;
    return true;
}

static const char *pick_gguf(const struct select *s)
{
    const char *first = NULL;
    for (size_t t = 0; t < sizeof gguf_types / sizeof gguf_types[0]; t++) {
        const char *found = NULL;
        for (size_t i = 0; i < s->n_names; i++)
            if (is_model_gguf(s->names[i]) && strcasestr(name_base(s->names[i]), gguf_types[t]) &&
                (!found || strcmp(s->names[i], found) < 0))
                found = s->names[i];
        if (found) return found;
    }
    for (size_t i = 0; i < s->n_names; i++)
        if (is_model_gguf(s->names[i]) && (!first || strcmp(s->names[i], first) < 0)) first = s->names[i];
    return first;
}

static void want_gguf(struct select *s, const char *name)
{
    size_t n_stem, n_other;
    s->main = name;
    want(s, name);
    if (!is_split(name, &n_stem)) return;
    for (size_t i = 0; i < s->n_names; i++) {
        if (!is_split(s->names[i], &n_other) || n_other != n_stem || memcmp(s->names[i], name, n_stem) != 0)
            continue;
        s->wanted[i] = true;
        if (strcmp(s->names[i], s->main) < 0) s->main = s->names[i];
    }
}

static enum apr_code no_model(const struct select *s, const char *where, struct apr_err *e)
{
    for (size_t i = 0; i < s->n_names; i++)
        if (name_has_suffix(s->names[i], ".bin") || name_has_suffix(s->names[i], ".pt") ||
            name_has_suffix(s->names[i], ".pth"))
            return apr_fail(e, APR_ENOTFOUND, "%s: only pickled weights (%s); expected SafeTensors or GGUF",
                            where, s->names[i]);
    return apr_fail(e, APR_ENOTFOUND, "%s: no model among its %zu files; expected SafeTensors or GGUF", where,
                    s->n_names);
}

enum apr_code select_default(struct select *s, const char *where, struct apr_err *e)
{
    const char *other = NULL, *gguf = pick_gguf(s);
    for (size_t i = 0; i < s->n_names; i++)
        if (at_root(s->names[i]) && name_has_suffix(s->names[i], ".safetensors") &&
            strncmp(s->names[i], "adapter_", 8) != 0 && (!other || strcmp(s->names[i], other) < 0))
            other = s->names[i];
    s->has_index = want(s, SELECT_INDEX);
    if (!s->has_index && !want(s, "model.safetensors")) {
        if (other)
            want(s, other);
        else if (gguf)
            want_gguf(s, gguf);
        else
            return no_model(s, where, e);
    }
    for (size_t i = 0; i < sizeof companions / sizeof companions[0]; i++) want(s, companions[i]);
    for (size_t i = 0; i < s->n_names; i++)
        if (strncmp(s->names[i], templates, sizeof templates - 1) == 0 &&
            name_has_suffix(s->names[i], ".jinja"))
            s->wanted[i] = true;
    return APR_OK;
}

enum apr_code select_globs(struct select *s, const struct apr_strs *include, const struct apr_strs *exclude,
                           const char *where, struct apr_err *e)
{
    if (include->n == 0) TRY(select_default(s, where, e));
    for (size_t i = 0; i < s->n_names; i++) {
        if (include->n) s->wanted[i] = name_matches(s->names[i], include->at, include->n);
        if (name_matches(s->names[i], exclude->at, exclude->n)) s->wanted[i] = false;
    }
    size_t i_index;
    if (s->has_index && find(s, SELECT_INDEX, &i_index)) s->has_index = s->wanted[i_index];
    size_t i_main;
    if (s->main && (!find(s, s->main, &i_main) || !s->wanted[i_main])) s->main = NULL;
    if (select_count(s)) return APR_OK;
    return apr_fail(e, APR_ENOTFOUND, "%s: none of its %zu files is selected by --include and --exclude",
                    where, s->n_names);
}

enum apr_code select_file(struct select *s, const char *name, const char *where, struct apr_err *e)
{
    if (!want(s, name)) return apr_fail(e, APR_ENOTFOUND, "%s: no file \"%s\"", where, name);
    s->main = name;
    return APR_OK;
}

static enum apr_code want_shard(struct select *s, const json_t *shard, const struct apr_strs *exclude,
                                enum apr_code missing, const char *where, struct apr_err *e)
{
    const char *name = json_string_value(shard);
    if (!name || !at_root(name) || !name_is_path(name))
        return apr_fail(e, APR_EFORMAT, "%s: " SELECT_INDEX ": \"%.200s\" is no name of a shard", where,
                        name ? name : "");
    if (name_matches(name, exclude->at, exclude->n) || want(s, name)) return APR_OK;
    return apr_fail(e, missing, "%s: " SELECT_INDEX " names %s, which is missing", where, name);
}

enum apr_code select_shards(struct select *s, const char *path, const struct apr_strs *exclude,
                            enum apr_code missing, const char *where, struct apr_err *e)
{
    json_t *root, *shard;
    const char *tensor, *last = "";
    enum apr_code code = APR_OK;
    TRY(apr_json_load(path, MAX_INDEX_BYTES, &root, e));
    json_t *map = json_object_get(root, "weight_map");
    if (!json_is_object(map) || json_object_size(map) == 0)
        code = apr_fail(e, APR_EFORMAT, "%s: $.weight_map: expected an object that names the shards", path);
    else
        json_object_foreach(map, tensor, shard)
        {
            const char *name = json_string_value(shard);
            if (code == APR_OK && (!name || strcmp(name, last) != 0))
                code = want_shard(s, shard, exclude, missing, where, e);
            if (name) last = name; /* neighbours mostly share a shard */
        }
    json_decref(root);
    return code;
}

size_t select_count(const struct select *s)
{
    size_t n = 0;
    for (size_t i = 0; i < s->n_names; i++) n += s->wanted[i];
    return n;
}
