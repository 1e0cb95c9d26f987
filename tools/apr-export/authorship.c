#include "authorship.h"

#include <inttypes.h>
#include <string.h>

#include "model_id.h"

/* Text keys of general.* in the order they are written, with the model card's spellings, first hit wins. */
enum {
    NAME,
    AUTHOR,
    VERSION,
    ORGANIZATION,
    FINETUNE,
    BASENAME,
    DESCRIPTION,
    SIZE_LABEL,
    LICENSE,
    LICENSE_NAME,
    LICENSE_LINK,
    SOURCE_URL,
    SOURCE_DOI,
    SOURCE_UUID,
    SOURCE_REPO,
    N_TEXTS
};
static const struct {
    const char *key;
    const char *card[4];
} texts[N_TEXTS] = {
    [NAME] = {"general.name", {"name", "model_name"}},
    [AUTHOR] = {"general.author", {"author", "model_author", "model_creator"}},
    [VERSION] = {"general.version", {"version", "model_version"}},
    [ORGANIZATION] = {"general.organization", {"organization", "model_organization"}},
    [FINETUNE] = {"general.finetune", {"finetune", "model_finetune"}},
    [BASENAME] = {"general.basename", {"basename", "model_basename", "model_type"}},
    [DESCRIPTION] = {"general.description", {"description", "model_description"}},
    [SIZE_LABEL] = {"general.size_label", {"size_label", "model_size_label"}},
    [LICENSE] = {"general.license", {"license"}},
    [LICENSE_NAME] = {"general.license.name", {"license_name"}},
    [LICENSE_LINK] = {"general.license.link", {"license_link"}},
    [SOURCE_URL] = {"general.source.url", {"url", "model_url"}},
    [SOURCE_DOI] = {"general.source.doi", {"doi", "model_doi"}},
    [SOURCE_UUID] = {"general.source.uuid", {"uuid", "model_uuid"}},
    [SOURCE_REPO] = {"general.source.repo_url", {"repo_url", "model_repo_url"}},
};

static const struct {
    const char *json[2], *key;
    bool is_int;
} sampling[] = {
    {{"top_k"}, "general.sampling.top_k", true},
    {{"top_p"}, "general.sampling.top_p", false},
    {{"min_p"}, "general.sampling.min_p", false},
    {{"xtc_probability"}, "general.sampling.xtc_probability", false},
    {{"xtc_threshold"}, "general.sampling.xtc_threshold", false},
    {{"temperature"}, "general.sampling.temp", false},
    {{"penalty_last_n"}, "general.sampling.penalty_last_n", true},
    {{"penalty_repeat", "repetition_penalty"}, "general.sampling.penalty_repeat", false},
    {{"mirostat"}, "general.sampling.mirostat", true},
    {{"mirostat_tau"}, "general.sampling.mirostat_tau", false},
    {{"mirostat_eta"}, "general.sampling.mirostat_eta", false},
};

static void sampling_keys(const json_t *gen, struct apr_kvs *kvs)
{
    apr_kvs_str(kvs, "general.sampling.sequence", json_string_value(json_object_get(gen, "sequence")));
    for (size_t i = 0; i < sizeof sampling / sizeof *sampling; i++) {
        const json_t *v = json_object_get(gen, sampling[i].json[0]);
        if (!json_is_number(v) && sampling[i].json[1]) v = json_object_get(gen, sampling[i].json[1]);
        if (!json_is_number(v)) continue;
        if (sampling[i].is_int)
            apr_kvs_i32(kvs, sampling[i].key, (int32_t)json_number_value(v));
        else
            apr_kvs_f32(kvs, sampling[i].key, (float)json_number_value(v));
    }
}

/* A string, or a list of strings joined with commas (licences). */
static const char *card_text(struct apr_arena *a, const json_t *v)
{
    if (json_is_string(v)) return json_string_value(v);
    const char *s = NULL;
    size_t i;
    json_t *item;
    json_array_foreach(v, i, item) if (json_is_string(item)) s =
        s ? apr_arena_printf(a, "%s,%s", s, json_string_value(item)) : json_string_value(item);
    return s;
}

static void from_card(struct apr_arena *a, const json_t *card, const char **v)
{
    for (size_t i = 0; i < N_TEXTS; i++)
        for (size_t k = 0; k < 4 && texts[i].card[k] && !v[i]; k++)
            v[i] = card_text(a, json_object_get(card, texts[i].card[k]));
}

static void from_id(struct apr_arena *a, const char *id, uint64_t n_params, const char **v)
{
    struct model_id m = model_id_parse(a, id, n_params);
    if (!v[NAME] && m.full) v[NAME] = model_id_title(a, m.full);
    if (!v[ORGANIZATION] && m.organization) v[ORGANIZATION] = model_id_title(a, m.organization);
    if (!v[BASENAME]) v[BASENAME] = m.basename;
    if (!v[FINETUNE]) v[FINETUNE] = m.finetune;
    if (!v[VERSION]) v[VERSION] = m.version;
    if (!v[SIZE_LABEL]) v[SIZE_LABEL] = m.size_label;
}

static const json_t *first_of(const json_t *card, const char *const *names)
{
    for (; *names; names++)
        if (json_object_get(card, *names)) return json_object_get(card, *names);
    return NULL;
}

/* "org/name" out of "https://huggingface.co/org/name", or NULL. */
static const char *hub_id(const char *url)
{
    static const char *const roots[] = {"https://huggingface.co/", "http://huggingface.co/"};
    for (size_t i = 0; i < 2; i++) {
        size_t n = strlen(roots[i]);
        if (strncmp(url, roots[i], n) != 0) continue;
        const char *id = url + n, *slash = strchr(id, '/');
        if (slash && slash > id && slash[1] && !strchr(slash + 1, '/')) return id;
    }
    return NULL;
}

static void parent_text(struct apr_kvs *kvs, const char *what, size_t i, const char *key, const char *value)
{
    if (value) apr_kvs_str(kvs, apr_arena_printf(kvs->arena, "general.%s.%zu.%s", what, i, key), value);
}

static void parent_keys(struct apr_kvs *kvs, const char *what, size_t i, const char *id, uint64_t n_params)
{
    struct apr_arena *a = kvs->arena;
    bool is_url =
        strncmp(id, "http://", 7) == 0 || strncmp(id, "https://", 8) == 0 || strncmp(id, "ssh://", 6) == 0;
    const char *known = is_url ? hub_id(id) : id;
    struct model_id m = {NULL, NULL, NULL, NULL, NULL, NULL};
    if (known) m = model_id_parse(a, known, n_params);
    parent_text(kvs, what, i, "name", m.full ? model_id_title(a, m.full) : NULL);
    parent_text(kvs, what, i, "version", m.version);
    parent_text(kvs, what, i, "organization", m.organization ? model_id_title(a, m.organization) : NULL);
    if (is_url)
        parent_text(kvs, what, i, "repo_url", id);
    else if (m.organization && m.full)
        parent_text(kvs, what, i, "repo_url",
                    apr_arena_printf(a, "https://huggingface.co/%s/%s", m.organization, m.full));
}

/* An entry that is written out, field by field. */
static void parent_fields(struct apr_kvs *kvs, const char *what, size_t i, const json_t *entry)
{
    static const char *const fields[] = {"name", "author", "version", "organization", "description",
                                         "url",  "doi",    "uuid",    "repo_url"};
    for (size_t k = 0; k < sizeof fields / sizeof *fields; k++)
        parent_text(kvs, what, i, fields[k], json_string_value(json_object_get(entry, fields[k])));
}

/* Base models or data sets: one or a list of ids, URLs and objects. */
static void parents(struct apr_kvs *kvs, const char *what, const json_t *v, uint64_t n_params)
{
    if (!v || json_is_null(v)) return;
    size_t n = json_is_array(v) ? json_array_size(v) : 1;
    apr_kvs_u32(kvs, apr_arena_printf(kvs->arena, "general.%s.count", what), (uint32_t)n);
    for (size_t i = 0; i < n; i++) {
        const json_t *entry = json_is_array(v) ? json_array_get(v, i) : v;
        if (json_is_string(entry)) parent_keys(kvs, what, i, json_string_value(entry), n_params);
        if (json_is_object(entry)) parent_fields(kvs, what, i, entry);
    }
}

static void append_strings(const json_t *v, struct apr_str *at, size_t *n, size_t max)
{
    size_t n_in = json_is_array(v) ? json_array_size(v) : v ? 1 : 0;
    for (size_t i = 0; i < n_in && *n < max; i++) {
        const json_t *s = json_is_array(v) ? json_array_get(v, i) : v;
        if (json_is_string(s)) at[(*n)++] = (struct apr_str){json_string_value(s), json_string_length(s)};
    }
}

/* Two card fields joined into one array of strings. */
static void list_key(struct apr_kvs *kvs, const char *key, const json_t *card, const char *first,
                     const char *second)
{
    struct apr_str items[256];
    size_t n = 0;
    append_strings(json_object_get(card, first), items, &n, 256);
    append_strings(json_object_get(card, second), items, &n, 256);
    if (n > 0) apr_kvs_array(kvs, key, APR_KV_STR, n, items);
}

/* "7.6B", or of a mixture "8x7B": what is shared and one expert. */
static const char *size_label(struct apr_arena *a, const struct authorship_size *size)
{
    if (size->n_params == 0) return NULL;
    if (size->n_experts == 0) return model_id_size(a, size->n_params);
    return apr_arena_printf(a, "%" PRIu64 "x%s", size->n_experts, model_id_size(a, size->n_params_one));
}

void authorship_keys(const struct apr_model *m, const struct authorship_size *size, struct apr_kvs *kvs)
{
    const uint64_t n_params = size->n_params;
    static const char *const bases[] = {"base_model", "base_models", "base_model_sources", NULL};
    static const char *const datasets[] = {"datasets", "dataset", "dataset_sources", NULL};
    const char *v[N_TEXTS] = {NULL};
    sampling_keys(m->hf_generation, kvs);
    from_card(kvs->arena, m->hf_card, v);
    const char *origin = json_string_value(json_object_get(m->hf_config, "_name_or_path"));
    const char *slash = origin ? strchr(origin, '/') : NULL;
    if (origin && (!slash || !strchr(slash + 1, '/'))) from_id(kvs->arena, origin, n_params, v);
    if (m->name) from_id(kvs->arena, m->name, n_params, v);
    if (!v[SIZE_LABEL]) v[SIZE_LABEL] = size_label(kvs->arena, size);
    for (size_t i = 0; i < N_TEXTS; i++) apr_kvs_str(kvs, texts[i].key, v[i]);
    parents(kvs, "base_model", first_of(m->hf_card, bases), n_params);
    parents(kvs, "dataset", first_of(m->hf_card, datasets), n_params);
    list_key(kvs, "general.tags", m->hf_card, "tags", "pipeline_tag");
    list_key(kvs, "general.languages", m->hf_card, "languages", "language");
}
