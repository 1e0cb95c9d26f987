#include "subject.h"

#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "json.h"
#include "load.h"

#define MAX_CONFIG_BYTES (16u << 20)
#define MAX_DIM          (1u << 20) /* the product of any three fits 64 bits */
#define MAX_CTX          (1u << 28)

/* Hyper-parameters of config.json in the spellings of decoders, encoders and encoder-decoders. */
static const struct {
    const char *keys[3];
    size_t off;
    uint64_t max;
} keys[] = {
    {{"hidden_size", "d_model", "n_embd"}, offsetof(struct apr_config, n_hidden), MAX_DIM},
    {{"num_hidden_layers", "encoder_layers", "n_layer"}, offsetof(struct apr_config, n_layers), MAX_DIM},
    {{"num_attention_heads", "encoder_attention_heads", "n_head"},
     offsetof(struct apr_config, n_heads),
     MAX_DIM},
    {{"num_key_value_heads"}, offsetof(struct apr_config, n_heads_kv), MAX_DIM},
    {{"intermediate_size", "encoder_ffn_dim", "n_inner"}, offsetof(struct apr_config, n_inter), MAX_DIM},
    {{"vocab_size"}, offsetof(struct apr_config, n_vocab), MAX_DIM},
    {{"max_position_embeddings", "max_target_positions", "n_positions"},
     offsetof(struct apr_config, n_ctx_train),
     MAX_CTX},
    {{"head_dim"}, offsetof(struct apr_config, head_dim), MAX_DIM},
};

/* For families whose file is not in lib/family: numbers only, no statement about what can be computed. */
static enum apr_code read_numbers(struct subject *s, const char *file, struct apr_err *e)
{
    const json_t *rope = json_object_get(s->config, "rope_parameters");
    struct apr_config *c = &s->found;
    for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++) {
        uint64_t v = 0;
        for (size_t k = 0; k < 3 && keys[i].keys[k] && v == 0; k++)
            TRY(apr_json_u64(s->config, keys[i].keys[k], 1, keys[i].max, &v, file, e));
        *(uint32_t *)(void *)((char *)c + keys[i].off) = (uint32_t)v;
    }
    c->head_dim_given = c->head_dim != 0;
    if (c->n_heads_kv == 0) c->n_heads_kv = c->n_heads;
    if (c->head_dim == 0 && c->n_heads) c->head_dim = c->n_hidden / c->n_heads;
    TRY(apr_json_f64(s->config, "rope_theta", &c->rope_theta, file, e));
    if (json_is_object(rope)) TRY(apr_json_f64(rope, "rope_theta", &c->rope_theta, file, e));
    TRY(apr_json_f64(s->config, "layer_norm_eps", &c->norm_eps, file, e));
    TRY(apr_json_f64(s->config, "rms_norm_eps", &c->norm_eps, file, e));
    return apr_json_bool(s->config, "tie_word_embeddings", &c->tied, file, e);
}

static bool has_suffix(const char *s, const char *suffix)
{
    size_t n = strlen(s), k = strlen(suffix);
    return n >= k && strcmp(s + n - k, suffix) == 0;
}

/* A folder with config.json and no weights, or a config.json by itself. */
static bool config_only(const char *path, char *config, size_t n_config)
{
    struct stat st;
    struct dirent *d;
    DIR *dir;
    bool weights = false;
    if (stat(path, &st) != 0) return false;
    if (S_ISREG(st.st_mode) && has_suffix(path, "config.json")) {
        (void)snprintf(config, n_config, "%s", path);
        return strlen(path) < n_config;
    }
    dir = S_ISDIR(st.st_mode) ? opendir(path) : NULL;
    if (!dir) return false;
    while ((d = readdir(dir)))
        weights = weights || has_suffix(d->d_name, ".safetensors") ||
                  has_suffix(d->d_name, ".safetensors.index.json");
    closedir(dir);
    int n = snprintf(config, n_config, "%s/config.json", path);
    return !weights && n > 0 && (size_t)n < n_config && stat(config, &st) == 0;
}

static enum apr_code open_config(struct subject *s, const char *path, struct apr_err *e)
{
    TRY(apr_json_load(path, MAX_CONFIG_BYTES, &s->config, e));
    const struct apr_family *f = apr_family_of_hf(s->config);
    const char *arch = json_string_value(json_array_get(json_object_get(s->config, "architectures"), 0));
    s->found_arch = arch ? arch : json_string_value(json_object_get(s->config, "model_type"));
    s->found_family = f ? f->name : NULL;
    s->has_numbers = true;
    return f ? f->from_hf(f, s->config, &s->found, path, e) : read_numbers(s, path, e);
}

static enum apr_code open_model(struct subject *s, const char *path, struct apr_err *e)
{
    TRY(apr_load_model(path, APR_LOAD_RANDOM, &s->model, e));
    const struct apr_model *m = s->model;
    s->config = m->hf_config ? json_incref(m->hf_config) : NULL;
    s->found_arch = m->arch;
    s->found_family = m->family ? m->family->name : NULL;
    s->found = m->config;
    s->has_numbers = m->family != NULL;
    if (!s->has_numbers && s->config) {
        TRY(read_numbers(s, path, e));
        s->has_numbers = true;
    }
    return APR_OK;
}

/* ---- family and size ---------------------------------------------------------------------------------- */

static bool listed(const char *list, const char *item)
{
    size_t n = strlen(item);
    while (*list) {
        size_t k = strcspn(list, ",");
        if (k == n && strncmp(list, item, n) == 0) return true;
        list += k + (list[k] == ',');
    }
    return false;
}

/* Do two comma-separated lists have an item in common? */
static bool overlap(const char *a, const char *b)
{
    while (*a) {
        char item[128];
        size_t k = strcspn(a, ",");
        (void)snprintf(item, sizeof item, "%.*s", (int)k, a);
        if (k < sizeof item && listed(b, item)) return true;
        a += k + (a[k] == ',');
    }
    return false;
}

/* Is the contract one that this source may stand under? By the family that reads it, or by what it says. */
static bool may_be(const struct subject *s, const struct apr_contract_family *own,
                   const struct apr_contract_family *f)
{
    if (f == own) return true;
    if (own) return overlap(own->architectures, f->architectures);
    return s->found_arch && (listed(f->architectures, s->found_arch) || strcmp(f->name, s->found_arch) == 0);
}

/* Several contracts share LlamaForCausalLM: the one that lists these numbers wins, then the family's own,
 * then the one of that model_type. */
static void name_family(struct subject *s)
{
    const char *type = json_string_value(json_object_get(s->config, "model_type"));
    const struct apr_contract_family *f,
        *own = s->found_family ? apr_contract_family_named(s->found_family) : NULL;
    s->family = own;
    if (own && apr_contract_size_of(own->name, &s->found)) return;
    for (size_t i = 0; (f = apr_contract_family_at(i)); i++) {
        if (!may_be(s, own, f)) continue;
        if (apr_contract_size_of(f->name, &s->found)) {
            s->family = f;
            return;
        }
        if (!s->family || (!own && type && strcmp(f->name, type) == 0)) s->family = f;
    }
}

bool subject_fits(const struct subject *s)
{
    const struct apr_contract_family *own =
        s->found_family ? apr_contract_family_named(s->found_family) : NULL;
    return s->family && may_be(s, own, s->family);
}

static enum apr_code unknown_size(const struct apr_contract_family *f, const char *size, struct apr_err *e)
{
    char known[512] = "";
    size_t n = 0;
    for (size_t i = 0; i < f->n_sizes && n < sizeof known; i++) {
        int k = snprintf(known + n, sizeof known - n, "%s%s", i ? ", " : "", f->sizes[i].size);
        if (k > 0) n += (size_t)k;
    }
    return apr_fail(e, APR_EUSAGE, "--size %s: unknown; family %s has: %s", size, f->name, known);
}

static enum apr_code unknown_family(const char *family, struct apr_err *e)
{
    char known[512] = "";
    size_t n = 0;
    for (size_t i = 0; apr_contract_family_at(i) && n < sizeof known; i++) {
        int k = snprintf(known + n, sizeof known - n, "%s%s", i ? ", " : "", apr_contract_family_at(i)->name);
        if (k > 0) n += (size_t)k;
    }
    return apr_fail(e, APR_EUSAGE, "--family %s: unknown; there are: %s", family, known);
}

static void make_custom(struct subject *s)
{
    const struct apr_config *c = &s->found;
    uint64_t n_dense = 0;
    for (uint32_t i = 0; c->moe.n_experts && i < c->n_layers && i < APR_MAX_LAYERS; i++)
        n_dense += apr_layer_bit(c->moe.dense, i);
    s->custom = (struct apr_contract_size){
        .family = s->family->name,
        .size = NULL,
        .hidden_dim = c->n_hidden,
        .num_layers = c->n_layers,
        .num_heads = c->n_heads,
        .num_kv_heads = c->n_heads_kv,
        .intermediate_dim = c->n_inter,
        .vocab_size = c->n_vocab,
        .head_dim = c->head_dim,
        .max_position_embeddings = c->n_ctx_train,
        .rope_theta = c->rope_theta,
        .norm_eps = c->norm_eps,
        .attention = s->family->attention,
        .activation = s->family->activation,
        .norm = s->family->norm,
        .mlp = s->family->mlp,
        .has_bias = s->family->has_bias,
        .tied_embeddings = c->tied,
        .n_experts = c->moe.n_experts,
        .n_experts_used = c->moe.n_used,
        .expert_dim = c->moe.n_inter,
        .shared_expert_dim = c->moe.n_inter_shared,
        .n_dense_layers = n_dense,
        .kv_lora_rank = c->mla.kv_rank,
        .q_lora_rank = c->mla.q_rank,
        .qk_nope_dim = c->mla.n_nope,
        .qk_rope_dim = c->mla.n_rope,
        .v_head_dim = c->mla.n_value,
        .sliding_window = c->window,
    };
}

static enum apr_code choose(struct subject *s, const char *family, const char *size, struct apr_err *e)
{
    name_family(s);
    if (family) s->family = apr_contract_family_named(family);
    if (family && !s->family) return unknown_family(family, e);
    if (size && !s->family)
        return apr_fail(e, APR_EUSAGE, "--size %s: needs --family, the source does not tell it", size);
    if (size) s->size = apr_contract_size_named(s->family, size);
    if (size && !s->size) return unknown_size(s->family, size, e);
    if (!s->size && s->family && s->has_numbers) s->size = apr_contract_size_of(s->family->name, &s->found);
    if (!s->size && s->family && s->has_numbers) make_custom(s);
    return APR_OK;
}

enum apr_code subject_open(struct subject *s, const char *source, const char *family, const char *size,
                           struct apr_err *e)
{
    char config[4096];
    *s = (struct subject){.source = source};
    if (source && config_only(source, config, sizeof config))
        TRY(open_config(s, config, e));
    else if (source)
        TRY(open_model(s, source, e));
    return choose(s, family, size, e);
}

void subject_close(struct subject *s)
{
    json_decref(s->config);
    apr_model_close(s->model);
}

const struct apr_contract_size *subject_numbers(const struct subject *s)
{
    if (s->size) return s->size;
    return s->family && s->has_numbers ? &s->custom : NULL;
}

/* A listed size counts by its own template. A custom one by the family's file: rows of some sizes only do not
 * count. */
uint64_t subject_n_tensors(const struct subject *s)
{
    const struct apr_family *f = s->found_family ? apr_family_named(s->found_family) : NULL;
    if (s->size) return apr_contract_n_tensors(s->family, s->size);
    return f && s->has_numbers ? apr_family_n_tensors(f, &s->found) : 0;
}
