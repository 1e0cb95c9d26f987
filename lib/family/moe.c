/* Experts from config.json. See moe.h. */
#include "moe.h"

#include <inttypes.h>

#include "../json.h"

#define MAX_EXPERTS 4096u
#define MAX_INTER   (1u << 20)

static enum apr_code get(const json_t *config, const char *key, uint64_t max, uint32_t *out, const char *file,
                         struct apr_err *e)
{
    uint64_t v = *out;
    if (key) TRY(apr_json_u64(config, key, 0, max, &v, file, e));
    *out = (uint32_t)v;
    return APR_OK;
}

static void set_dense(struct apr_config *c, uint32_t layer)
{
    c->moe.dense[layer / 64] |= (uint64_t)1 << (layer % 64);
}

static enum apr_code read_dense(const struct apr_moe_keys *k, const json_t *config, struct apr_config *c,
                                const char *file, struct apr_err *e)
{
    const json_t *list = k->dense_list ? json_object_get(config, k->dense_list) : NULL;
    uint32_t n_first = 0, step = 1;
    TRY(get(config, k->first_dense, APR_MAX_LAYERS, &n_first, file, e));
    TRY(get(config, k->step, APR_MAX_LAYERS, &step, file, e));
    if (step == 0) return apr_fail(e, APR_EFORMAT, "%s: $.%s: found 0, expected at least 1", file, k->step);
    for (uint32_t i = 0; i < c->n_layers; i++)
        if (i < n_first || (i + k->step_from_one) % step != 0) set_dense(c, i);
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *v = json_array_get(list, i);
        if (!json_is_integer(v) || json_integer_value(v) < 0 || json_integer_value(v) >= c->n_layers)
            return apr_fail(e, APR_EFORMAT, "%s: $.%s[%zu]: expected a layer below %" PRIu32, file,
                            k->dense_list, i, c->n_layers);
        set_dense(c, (uint32_t)json_integer_value(v));
    }
    return APR_OK;
}

static enum apr_code read_groups(const json_t *config, struct apr_moe *m, const char *file, struct apr_err *e)
{
    TRY(get(config, "n_group", MAX_EXPERTS, &m->n_groups, file, e));
    TRY(get(config, "topk_group", MAX_EXPERTS, &m->n_groups_used, file, e));
    if (m->n_groups > 1 &&
        (m->n_experts % m->n_groups || m->n_groups_used == 0 || m->n_groups_used > m->n_groups ||
         m->n_used > m->n_groups_used * (m->n_experts / m->n_groups)))
        return apr_fail(e, APR_EFORMAT,
                        "%s: $.n_group: %" PRIu32 " groups, %" PRIu32 " of them used, do not suit %" PRIu32
                        " of %" PRIu32 " experts",
                        file, m->n_groups, m->n_groups_used, m->n_used, m->n_experts);
    return APR_OK;
}

enum apr_code apr_moe_from_hf(const struct apr_moe_keys *k, const json_t *config, struct apr_config *c,
                              const char *file, struct apr_err *e)
{
    struct apr_moe *m = &c->moe;
    uint32_t n_shared = 0;
    TRY(get(config, k->n_experts, MAX_EXPERTS, &m->n_experts, file, e));
    if (m->n_experts == 0) return APR_OK;
    m->scale = 1;
    m->norm_topk = k->norm_topk == NULL;
    m->shared_gate = k->shared_gate;
    TRY(get(config, "num_experts_per_tok", MAX_EXPERTS, &m->n_used, file, e));
    if (m->n_used == 0 || m->n_used > m->n_experts)
        return apr_fail(e, APR_EFORMAT,
                        "%s: $.num_experts_per_tok: found %" PRIu32 ", expected 1 to %" PRIu32, file,
                        m->n_used, m->n_experts);
    TRY(get(config, k->n_inter, MAX_INTER, &m->n_inter, file, e));
    if (m->n_inter == 0) return apr_fail(e, APR_EFORMAT, "%s: $.%s: missing", file, k->n_inter);
    TRY(get(config, k->n_inter_shared, MAX_INTER, &m->n_inter_shared, file, e));
    TRY(get(config, k->n_shared, MAX_EXPERTS, &n_shared, file, e));
    if (n_shared > MAX_INTER / m->n_inter)
        return apr_fail(e, APR_EFORMAT, "%s: $.%s: found %" PRIu32 ", too many", file, k->n_shared, n_shared);
    if (n_shared) m->n_inter_shared = n_shared * m->n_inter;
    if (k->norm_topk) TRY(apr_json_bool(config, k->norm_topk, &m->norm_topk, file, e));
    TRY(apr_json_f64(config, "routed_scaling_factor", &m->scale, file, e));
    if (!(m->scale > 0 && m->scale <= 1e6))
        return apr_fail(e, APR_EFORMAT, "%s: $.routed_scaling_factor: found %g, expected > 0", file,
                        m->scale);
    TRY(read_groups(config, m, file, e));
    return read_dense(k, config, c, file, e);
}
