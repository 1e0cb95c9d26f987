/* Random models from a family's own rules. See toy.h. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <math.h>
#include <string.h>

#include "json.h"
#include "quant/quant.h"
#include "toy.h"

#define MAX_TENSORS 512u

float toy_noise(uint64_t *seed)
{
    *seed = *seed * 6364136223846793005u + 1442695040888963407u;
    return (float)(*seed >> 40) / (float)(1 << 23) - 1.0f;
}

static void add(struct apr_model *m, const struct apr_tensor_rule *rule, uint32_t i_layer, enum apr_type type,
                uint64_t *seed)
{
    char name[256];
    struct apr_err e = {0};
    assert_true(m->n_tensors < MAX_TENSORS);
    struct apr_tensor *t = &m->tensors[m->n_tensors++];
    t->name = apr_arena_strdup(&m->arena, apr_family_name(rule->hf, i_layer, name, sizeof name));
    while (t->n_dims < 3 && rule->dims[t->n_dims]) {
        t->dims[t->n_dims] = apr_family_dim(&m->config, rule->dims[t->n_dims]);
        t->n_dims++;
    }
    t->type = t->n_dims == 1 ? APR_F32 : type;
    assert_int_equal(apr_tensor_bytes(t->type, t->n_dims, t->dims, &t->n_bytes, &e), APR_OK);
    size_t n = apr_tensor_elems(t);
    float *x = apr_arena_get(&m->arena, n * sizeof *x), scale = 1.5f / sqrtf((float)apr_tensor_cols(t));
    bool is_norm = strstr(name, "norm") != NULL;
    for (size_t i = 0; i < n; i++)
        x[i] = is_norm          ? 1 + 0.3f * toy_noise(seed)
               : t->n_dims == 1 ? toy_noise(seed)
                                : scale * toy_noise(seed);
    uint8_t *data = apr_arena_get(&m->arena, t->n_bytes);
    apr_quant_of(t->type)->from_f32(x, data, n, NULL);
    t->data = data;
}

struct apr_model *toy_model_of(const char *family, const struct apr_config *config, enum apr_type type)
{
    struct apr_model *m = apr_model_new("test model");
    struct apr_err e = {0};
    uint64_t seed = 1;
    m->family = apr_family_named(family);
    assert_non_null(m->family);
    m->config = *config;
    m->tensors = apr_arena_get(&m->arena, MAX_TENSORS * sizeof *m->tensors);
    for (size_t i = 0; i < m->family->n_rules; i++) {
        const struct apr_tensor_rule *r = &m->family->rules[i];
        for (uint32_t l = 0; l < apr_family_n_layers(r, config); l++)
            if (apr_family_requires(r, config, l)) add(m, r, l, type, &seed);
    }
    if (apr_model_index(m, &e) != APR_OK) fail_msg("%s", e.text);
    return m;
}

struct apr_model *toy_model(const char *family, const char *config, enum apr_type type)
{
    struct apr_config c = {0};
    struct apr_err e = {0};
    char text[2048];
    size_t n = strlen(config);
    json_t *v = NULL;
    assert_true(n < sizeof text);
    for (size_t i = 0; i <= n; i++) text[i] = (char)(config[i] == '\'' ? '"' : config[i]);
    if (apr_json_parse(text, n, family, &v, &e) != APR_OK) fail_msg("%s", e.text);
    const struct apr_family *f = apr_family_named(family);
    assert_non_null(f);
    if (f->from_hf(f, v, &c, family, &e) != APR_OK) fail_msg("%s", e.text);
    struct apr_model *m = toy_model_of(family, &c, type);
    json_decref(v);
    return m;
}
