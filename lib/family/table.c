/* The table of families, and what can be asked of any row. */
#include "table.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

static const struct apr_family *const families[] = {
    &apr_family_qwen2,
};
#define N_FAMILIES (sizeof families / sizeof families[0])

#define LAYER     "{n}"
#define N_LAYER   (sizeof LAYER - 1)
#define MAX_LAYER 99999u

const struct apr_family *apr_family_at(size_t i)
{
    return i < N_FAMILIES ? families[i] : NULL;
}

const struct apr_family *apr_family_named(const char *name)
{
    for (size_t i = 0; i < N_FAMILIES; i++)
        if (strcmp(families[i]->name, name) == 0) return families[i];
    return NULL;
}

const struct apr_family *apr_family_of_gguf(const char *arch)
{
    for (size_t i = 0; i < N_FAMILIES; i++)
        if (strcmp(families[i]->gguf_arch, arch) == 0) return families[i];
    return NULL;
}

static bool listed(const char *const *list, const char *s)
{
    for (; *list; list++)
        if (strcmp(*list, s) == 0) return true;
    return false;
}

/* model_type counts only where architectures is absent: Qwen2ForSequenceClassification is also "qwen2". */
const struct apr_family *apr_family_of_hf(const json_t *config)
{
    const json_t *list = json_object_get(config, "architectures");
    const char *arch = json_string_value(json_array_get(list, 0));
    const char *type = json_string_value(json_object_get(config, "model_type"));
    for (size_t i = 0; i < N_FAMILIES; i++) {
        if (arch ? listed(families[i]->hf_architectures, arch)
                 : type && listed(families[i]->hf_model_types, type))
            return families[i];
    }
    return NULL;
}

/* Decimal without leading zeros, up to MAX_LAYER. NULL when there is none. */
static const char *scan_layer(const char *s, uint32_t *layer)
{
    const char *begin = s;
    uint32_t v = 0;
    for (; *s >= '0' && *s <= '9'; s++) {
        v = v * 10 + (uint32_t)(*s - '0');
        if (v > MAX_LAYER) return NULL;
    }
    if (s == begin || (*begin == '0' && s != begin + 1)) return NULL;
    *layer = v;
    return s;
}

static bool matches(const char *tmpl, const char *name, uint32_t *layer)
{
    const char *at = strstr(tmpl, LAYER);
    size_t n_prefix;
    if (!at) {
        *layer = UINT32_MAX;
        return strcmp(tmpl, name) == 0;
    }
    n_prefix = (size_t)(at - tmpl);
    if (strncmp(tmpl, name, n_prefix) != 0) return false;
    name = scan_layer(name + n_prefix, layer);
    return name && strcmp(name, at + N_LAYER) == 0;
}

const struct apr_tensor_rule *apr_family_rule_hf(const struct apr_family *f, const char *name,
                                                 uint32_t *layer)
{
    for (size_t i = 0; i < f->n_rules; i++)
        if (matches(f->rules[i].hf, name, layer)) return &f->rules[i];
    return NULL;
}

const struct apr_tensor_rule *apr_family_rule_gguf(const struct apr_family *f, const char *name,
                                                   uint32_t *layer)
{
    for (size_t i = 0; i < f->n_rules; i++)
        if (f->rules[i].gguf && matches(f->rules[i].gguf, name, layer)) return &f->rules[i];
    return NULL;
}

const char *apr_family_name(const char *tmpl, uint32_t layer, char *out, size_t n_out)
{
    const char *at = strstr(tmpl, LAYER);
    if (at)
        snprintf(out, n_out, "%.*s%" PRIu32 "%s", (int)(at - tmpl), tmpl, layer, at + N_LAYER);
    else
        snprintf(out, n_out, "%s", tmpl);
    return out;
}

uint64_t apr_family_dim(const struct apr_config *c, enum apr_dim d)
{
    switch (d) {
    case APR_DIM_NONE:
        return 0;
    case APR_DIM_VOCAB:
        return c->n_vocab;
    case APR_DIM_HIDDEN:
        return c->n_hidden;
    case APR_DIM_Q:
        return (uint64_t)c->n_heads * c->head_dim;
    case APR_DIM_KV:
        return (uint64_t)c->n_heads_kv * c->head_dim;
    case APR_DIM_INTER:
        return c->n_inter;
    }
    return 0;
}

uint64_t apr_family_n_tensors(const struct apr_family *f, const struct apr_config *c)
{
    uint64_t n = 0;
    for (size_t i = 0; i < f->n_rules; i++) {
        const struct apr_tensor_rule *r = &f->rules[i];
        if (r->need == APR_OPTIONAL || (r->need == APR_UNLESS_TIED && c->tied)) continue;
        n += strstr(r->hf, LAYER) ? c->n_layers : 1;
    }
    return n;
}
