/* See templates.h. Keys and their order: llama.cpp's converter (gguf-export facts, 4). */
#include "templates.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>

#define KEY       "tokenizer.chat_template"
#define PREFIX    KEY "."
#define KEY_NAMES "tokenizer.chat_templates"

/* As a part of a GGUF key. */
static const char *key_part(const char *name, char out[APR_MAX_TEMPLATE_NAME + 1])
{
    size_t i;
    for (i = 0; i < APR_MAX_TEMPLATE_NAME && name[i]; i++)
        out[i] = isalnum((unsigned char)name[i]) ? name[i] : '_'; /* of ASCII: check_name */
    out[i] = '\0';
    return out;
}

static enum apr_code check_name(const char *name, const char *file, struct apr_err *e)
{
    size_t n = strlen(name);
    for (size_t i = 0; i < n; i++)
        if ((unsigned char)name[i] < 0x20 || (unsigned char)name[i] > 0x7E) n = 0;
    if (n == 0 || n > APR_MAX_TEMPLATE_NAME)
        return apr_fail(e, APR_EFORMAT, "%s: a chat template's name: expected 1 to %u printable characters",
                        file, APR_MAX_TEMPLATE_NAME);
    return APR_OK;
}

/* The template of that name, or of one that GGUF cannot tell from it. */
static struct apr_template *find(const struct apr_vocab *v, const char *name)
{
    char a[APR_MAX_TEMPLATE_NAME + 1], b[APR_MAX_TEMPLATE_NAME + 1];
    for (uint32_t i = 0; i < v->n_templates; i++)
        if (strcmp(key_part(v->templates[i].name, a), key_part(name, b)) == 0) return &v->templates[i];
    return NULL;
}

enum apr_code apr_templates_add(struct apr_vocab *v, struct apr_arena *arena, const char *name,
                                const char *text, size_t n_bytes, const char *file, struct apr_err *e)
{
    TRY(check_name(name, file, e));
    if (n_bytes > APR_MAX_TEMPLATE_BYTES || (n_bytes > 0 && memchr(text, '\0', n_bytes)))
        return apr_fail(e, APR_EFORMAT,
                        "%s: chat template \"%s\": expected at most %zu bytes, none of them NUL", file, name,
                        APR_MAX_TEMPLATE_BYTES);
    const char *copy = apr_arena_strndup(arena, text, n_bytes);
    if (strcmp(name, "default") == 0) {
        v->chat_template = copy;
        return APR_OK;
    }
    struct apr_template *t = find(v, name);
    if (t && strcmp(t->name, name) != 0)
        return apr_fail(e, APR_EFORMAT, "%s: chat templates \"%s\" and \"%s\" would share one GGUF key", file,
                        t->name, name);
    if (!t && v->n_templates == APR_MAX_TEMPLATES)
        return apr_fail(e, APR_EFORMAT, "%s: more than %u named chat templates", file, APR_MAX_TEMPLATES);
    if (!v->templates) v->templates = apr_arena_get(arena, APR_MAX_TEMPLATES * sizeof *v->templates);
    if (!t) t = &v->templates[v->n_templates++];
    *t = (struct apr_template){.name = apr_arena_strdup(arena, name), .text = copy};
    return APR_OK;
}

static enum apr_code add_json(struct apr_vocab *v, struct apr_arena *arena, const char *name,
                              const json_t *text, const char *file, struct apr_err *e)
{
    if (!name || !json_is_string(text))
        return apr_fail(e, APR_EFORMAT, "%s: $.chat_template: expected a text, or texts with names", file);
    return apr_templates_add(v, arena, name, json_string_value(text), json_string_length(text), file, e);
}

enum apr_code apr_templates_from_json(struct apr_vocab *v, struct apr_arena *arena, const json_t *t,
                                      const char *file, struct apr_err *e)
{
    const char *key;
    json_t *text, *object = (json_t *)(uintptr_t)t; /* iteration only reads */
    if (json_is_string(t)) return add_json(v, arena, "default", t, file, e);
    for (size_t i = 0; i < json_array_size(t); i++) {
        const json_t *item = json_array_get(t, i);
        TRY(add_json(v, arena, json_string_value(json_object_get(item, "name")),
                     json_object_get(item, "template"), file, e));
    }
    if (!json_is_object(t)) return APR_OK;
    json_object_foreach(object, key, text)
    {
        TRY(add_json(v, arena, key, text, file, e));
    }
    return APR_OK;
}

json_t *apr_templates_to_json(const struct apr_vocab *v)
{
    if (v->n_templates == 0) return v->chat_template ? json_string(v->chat_template) : NULL;
    json_t *list = json_array();
    if (v->chat_template)
        json_array_append_new(list, json_pack("{s:s, s:s}", "name", "default", "template", v->chat_template));
    for (uint32_t i = 0; i < v->n_templates; i++)
        json_array_append_new(
            list, json_pack("{s:s, s:s}", "name", v->templates[i].name, "template", v->templates[i].text));
    return list;
}

/* The keys tell the names; the list repeats them. */
enum apr_code apr_templates_from_kvs(struct apr_vocab *v, struct apr_arena *arena, const struct apr_kvs *kvs,
                                     const char *file, struct apr_err *e)
{
    TRY(apr_kv_get_str(kvs, KEY, &v->chat_template, file, e));
    for (size_t i = 0; i < kvs->n; i++) {
        const struct apr_kv *kv = &kvs->at[i];
        if (kv->type != APR_KV_STR || strncmp(kv->key.p, PREFIX, sizeof PREFIX - 1) != 0) continue;
        const char *name = kv->key.p + sizeof PREFIX - 1;
        if (strcmp(name, "default") == 0 && v->chat_template) continue;
        TRY(apr_templates_add(v, arena, name, kv->v.s.p, kv->v.s.n_bytes, file, e));
    }
    return APR_OK;
}

void apr_templates_to_kvs(const struct apr_vocab *v, struct apr_kvs *kvs)
{
    char keys[APR_MAX_TEMPLATES][sizeof PREFIX + APR_MAX_TEMPLATE_NAME];
    struct apr_str names[APR_MAX_TEMPLATES];
    for (uint32_t i = 0; i < v->n_templates; i++) {
        memcpy(keys[i], PREFIX, sizeof PREFIX);
        const char *name = key_part(v->templates[i].name, keys[i] + sizeof PREFIX - 1);
        names[i] = (struct apr_str){.p = name, .n_bytes = strlen(name)};
        apr_kvs_str(kvs, keys[i], v->templates[i].text);
    }
    if (v->n_templates > 0) apr_kvs_array(kvs, KEY_NAMES, APR_KV_STR, v->n_templates, names);
    apr_kvs_str(kvs, KEY, v->chat_template);
}

const char *apr_templates_find(const struct apr_vocab *v, const char *name)
{
    if (strcmp(name, "default") == 0) return v->chat_template;
    for (uint32_t i = 0; i < v->n_templates; i++)
        if (strcmp(v->templates[i].name, name) == 0) return v->templates[i].text;
    return NULL;
}

const char *apr_templates_names(const struct apr_vocab *v, char *out, size_t n_out)
{
    size_t n = 0;
    (void)snprintf(out, n_out, "%s", v->chat_template ? "default" : "");
    for (uint32_t i = 0; i < v->n_templates; i++) {
        n = strlen(out);
        (void)snprintf(out + n, n_out - n, "%s%s", n ? ", " : "", v->templates[i].name);
    }
    return out;
}
