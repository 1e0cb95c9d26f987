/* Quantization levels. See level.h. */
#include "level.h"

#include <inttypes.h>

#include "log.h"

const char *apr_level_main(const struct apr_model *m)
{
    uint64_t n_bytes[APR_N_TYPES] = {0};
    unsigned most = 0;
    if (!m->n_tensors) return NULL;
    for (uint64_t i = 0; i < m->n_tensors; i++)
        if (m->tensors[i].n_dims > 1) n_bytes[m->tensors[i].type] += m->tensors[i].n_bytes;
    for (unsigned t = 1; t < APR_N_TYPES; t++)
        if (n_bytes[t] > n_bytes[most]) most = t;
    return apr_type_name(most);
}

static bool is_quantized(enum apr_type type)
{
    const struct apr_quant *q = apr_quant_of(type);
    return q && q->is_quantized;
}

uint64_t apr_level_mixed(const struct apr_model *a, const struct apr_model *b)
{
    uint64_t n = 0;
    for (uint64_t i = 0; i < a->n_tensors; i++) {
        const struct apr_tensor *t = &a->tensors[i], *u = t->n_dims > 1 ? apr_model_find(b, t->name) : NULL;
        n += u && t->type != u->type && (is_quantized(t->type) || is_quantized(u->type));
    }
    return n;
}

uint64_t apr_level_warn(const struct apr_model *a, const struct apr_model *b)
{
    const uint64_t n = apr_level_mixed(a, b);
    if (n)
        apr_warn("mixed quant levels: %s is %s, %s is %s, %" PRIu64
                 " matrices differ in type; differences of values are expected (rule R3, F-GT-002)",
                 a->path, apr_level_main(a), b->path, apr_level_main(b), n);
    return n;
}
