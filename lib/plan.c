#include "plan.h"

#include <inttypes.h>
#include <string.h>

#include "log.h"
#include "reform.h"

#define MAX_NOTES 3

static void row_of(struct apr_plan_tensor *p, const struct apr_tensor *t, const char *name)
{
    *p = (struct apr_plan_tensor){.src = t, .name = name, .type = t->type, .n_dims = t->n_dims};
    memcpy(p->dims, t->dims, sizeof p->dims);
}

/* lm_head.weight sorts before model.*, so the extra row is the first. */
static enum apr_code rows(const struct apr_model *m, const struct apr_plan_how *how, struct apr_arena *a,
                          struct apr_plan *p, struct apr_err *e)
{
    struct apr_tensors list;
    const struct apr_tensor *embed = how->materialize_head ? apr_model_role(m, APR_ROLE_EMBED, 0) : NULL;
    if (apr_model_role(m, APR_ROLE_LM_HEAD, 0)) embed = NULL;
    if (embed && m->is_stream)
        return apr_fail(e, APR_EUSAGE,
                        "--materialize-head reads the embedding twice; give a file instead of a pipe");
    TRY(apr_reform(m, how->fmt->target, a, &list, e));
    TRY(apr_arena_try(a, &p->tensors, (size_t)list.n + 1, sizeof *p->tensors, "the plan", e));
    if (embed) row_of(&p->tensors[p->n_tensors++], embed, "lm_head.weight");
    for (uint64_t i = 0; i < list.n; i++) row_of(&p->tensors[p->n_tensors++], list.at[i], list.at[i]->name);
    return APR_OK;
}

/* GGUF names of all rows, for the mix and for GGUF itself. Without a family names stay, if nothing needs
 * them. */
static enum apr_code gguf_names(const struct apr_model *m, const struct apr_plan_how *how,
                                const struct apr_plan *p, struct apr_mix_tensor *t, struct apr_arena *a,
                                struct apr_err *e)
{
    uint32_t layer;
    for (uint64_t i = 0; i < p->n_tensors; i++) {
        t[i].gguf_name = m->family ? apr_reform_gguf_name(m, p->tensors[i].name, a) : NULL;
        /* a recipe alone takes a tensor that GGUF has no name for by its own */
        if (!t[i].gguf_name && !how->fmt->gguf_rules && m->family &&
            apr_family_rule_hf(m->family, p->tensors[i].name, &layer))
            t[i].gguf_name = p->tensors[i].name;
        if (!t[i].gguf_name)
            return apr_fail(e, APR_ECONTRACT, "%s: tensor %s has no GGUF name in family %s", m->path,
                            p->tensors[i].name, m->family ? m->family->name : "(unknown)");
        t[i].n_dims = p->tensors[i].n_dims;
        t[i].n_cols = apr_tensor_cols(p->tensors[i].src);
        t[i].src = apr_mix_base_type(t[i].gguf_name, t[i].n_dims, p->tensors[i].src->type);
        t[i].type = t[i].src;
    }
    return APR_OK;
}

static void note_fallbacks(const struct apr_mix_tensor *t, uint64_t n, struct apr_plan_how *how)
{
    for (uint64_t i = 0; i < n; i++) {
        if (!t[i].fallback) continue;
        if (how->n_fallbacks++ < MAX_NOTES)
            apr_note("%s: %" PRIu64 " columns do not divide %s blocks; stored as %s", t[i].gguf_name,
                     t[i].n_cols, apr_type_name(t[i].wanted), apr_type_name(t[i].type));
    }
    if (how->n_fallbacks > MAX_NOTES)
        apr_note("%" PRIu64 " tensors in all fell back to another type", how->n_fallbacks);
}

/* How many matrices a tensor stacks: experts. */
static uint64_t n_matrices(const struct apr_tensor *t)
{
    uint64_t n = 1;
    for (uint32_t i = 0; i + 2 < t->n_dims; i++) n *= t->dims[i];
    return n;
}

/* A matrix of another model would go unnoticed. */
static enum apr_code check_imatrix(const struct apr_model *m, const struct apr_imatrix *im,
                                   const struct apr_mix_tensor *t, uint64_t n, struct apr_err *e)
{
    for (uint64_t i = 0; i < n; i++)
        if (apr_imatrix_find(im, t[i].gguf_name)) return APR_OK;
    return apr_fail(e, APR_ECONTRACT,
                    "%s: importance matrix %s: none of its %zu entries names a tensor of this model", m->path,
                    im->file, im->n_entries);
}

/* Hangs the importance of columns into the plan. The embedding is looked up and not multiplied with: its
 * entry, if there is one, counts only where it fits. */
static enum apr_code guide(const struct apr_model *m, const struct apr_mix_tensor *t,
                           struct apr_plan_how *how, struct apr_plan *p, struct apr_err *e)
{
    TRY(check_imatrix(m, how->imatrix, t, p->n_tensors, e));
    for (uint64_t i = 0; i < p->n_tensors; i++) {
        struct apr_plan_tensor *out = &p->tensors[i];
        const struct apr_imatrix_entry *entry = apr_imatrix_find(how->imatrix, t[i].gguf_name);
        uint64_t n_want = t[i].n_cols * n_matrices(out->src);
        const struct apr_quant *to = apr_quant_of(t[i].type);
        bool is_embed = strcmp(t[i].gguf_name, "token_embd.weight") == 0;
        if (!to || !to->is_quantized || t[i].type == out->src->type) continue;
        if (entry && entry->n_values == n_want) {
            out->importance = entry->values;
            out->n_importance = entry->n_values;
        } else if (entry && !is_embed) {
            return apr_fail(e, APR_ECONTRACT,
                            "%s: importance matrix %s: %s has %" PRIu64 " values, expected %" PRIu64, m->path,
                            how->imatrix->file, t[i].gguf_name, entry->n_values, n_want);
        } else if (how->n_unguided++ < MAX_NOTES) {
            apr_note("%s: no importance data; quantized without", t[i].gguf_name);
        }
    }
    if (how->n_unguided > MAX_NOTES)
        apr_note("%" PRIu64 " tensors in all are quantized without importance data", how->n_unguided);
    return APR_OK;
}

static enum apr_code types(const struct apr_model *m, struct apr_plan_how *how, struct apr_arena *a,
                           struct apr_plan *p, struct apr_err *e)
{
    if (!how->recipe && !how->fmt->gguf_rules) return APR_OK;
    struct apr_mix_tensor *t;
    TRY(apr_arena_try(a, &t, (size_t)p->n_tensors, sizeof *t, "the type plan", e));
    TRY(gguf_names(m, how, p, t, a, e));
    if (how->recipe) {
        struct apr_mix_model mm = {.gguf_arch = m->family->gguf_arch,
                                   .n_layers = m->config.n_layers,
                                   .n_heads = m->config.n_heads,
                                   .n_heads_kv = m->config.n_heads_kv,
                                   .n_experts = m->config.moe.n_experts,
                                   .pure = how->pure,
                                   .has_imatrix = how->imatrix != NULL,
                                   .overrides = how->overrides};
        TRY(apr_mix_apply(how->recipe, &mm, t, (size_t)p->n_tensors, e));
        note_fallbacks(t, p->n_tensors, how);
        if (how->imatrix) TRY(guide(m, t, how, p, e));
    }
    for (uint64_t i = 0; i < p->n_tensors; i++) {
        p->tensors[i].type = t[i].type;
        if (how->fmt->gguf_rules) p->tensors[i].name = t[i].gguf_name;
    }
    return APR_OK;
}

/* Rows that are no whole blocks, as the original packed them: .apr keeps them unless repacking was allowed,
 * GGUF has no place for them. Stored as rows they need a type whose block divides the columns. */
static enum apr_code repack(const struct apr_model *m, const struct apr_plan_how *how, struct apr_plan *p,
                            struct apr_err *e)
{
    static const char *const packings[] = {
        [APR_ROWS] = "", [APR_ROWS_PADDED] = "every row is padded", [APR_FLAT] = "blocks run across rows"};
    for (uint64_t i = 0; i < p->n_tensors; i++) {
        struct apr_plan_tensor *t = &p->tensors[i];
        if (t->src->packing == APR_ROWS || t->type != t->src->type) continue;
        enum apr_type as_rows = apr_mix_fallback(t->type, apr_tensor_cols(t->src));
        if (how->requantize)
            t->type = as_rows;
        else if (how->fmt->gguf_rules)
            return apr_fail(e, APR_ECONTRACT,
                            "%s: tensor %s: %s of %" PRIu64 " columns where %s, which %s cannot hold; "
                            "--requantize stores it as %s",
                            m->path, t->src->name, apr_type_name(t->type), apr_tensor_cols(t->src),
                            packings[t->src->packing], how->fmt->title, apr_type_name(as_rows));
    }
    return APR_OK;
}

static enum apr_code check_types(const struct apr_model *m, const struct apr_plan_how *how,
                                 const struct apr_plan *p, struct apr_err *e)
{
    for (uint64_t i = 0; i < p->n_tensors; i++) {
        const struct apr_plan_tensor *t = &p->tensors[i];
        const struct apr_quant *from = apr_quant_of(t->src->type), *to = apr_quant_of(t->type);
        if (!how->fmt->holds(t->type))
            return apr_fail(e, APR_ECONTRACT,
                            "%s: tensor %s: %s cannot be stored in %s as it is; name a type with --quantize",
                            m->path, t->name, apr_type_name(t->type), how->fmt->name);
        if (t->type != t->src->type && from && to && from->is_quantized && to->is_quantized &&
            !how->requantize)
            return apr_fail(e, APR_ECONTRACT,
                            "%s: tensor %s is %s already; making it %s loses twice: --requantize allows it",
                            m->path, t->name, from->name, to->name);
    }
    return APR_OK;
}

/* A checkpoint gets back the spelling of the names that it had. */
static void checkpoint_names(const struct apr_model *m, const struct apr_plan_how *how, struct apr_arena *a,
                             struct apr_plan *p)
{
    const char *const(*row)[2] = m->family && m->hf_prefix ? m->family->prefixes : NULL;
    while (row && (*row)[1] && strcmp((*row)[0], m->hf_prefix) != 0) row++;
    if (how->fmt->target != APR_TO_CHECKPOINT || !row || !(*row)[1]) return;
    const size_t n = strlen((*row)[1]);
    for (uint64_t i = 0; i < p->n_tensors; i++)
        if (strncmp(p->tensors[i].name, (*row)[1], n) == 0)
            p->tensors[i].name = apr_arena_printf(a, "%s%s", (*row)[0], p->tensors[i].name + n);
}

enum apr_code apr_plan_make(const struct apr_model *m, struct apr_plan_how *how, struct apr_arena *a,
                            struct apr_plan *p, struct apr_err *e)
{
    TRY(rows(m, how, a, p, e));
    TRY(types(m, how, a, p, e));
    checkpoint_names(m, how, a, p);
    TRY(repack(m, how, p, e));
    TRY(check_types(m, how, p, e));
    for (uint64_t i = 0; i < p->n_tensors; i++) {
        struct apr_plan_tensor *t = &p->tensors[i];
        bool kept = t->src->packing != APR_ROWS && t->type == t->src->type;
        if (kept)
            t->n_bytes = t->src->n_bytes;
        else
            TRY(apr_tensor_bytes(t->type, t->n_dims, t->dims, &t->n_bytes, e));
    }
    return apr_plan_layout(p, how->fmt->alignment, e);
}

/* The recipe whose type holds most bytes; of several, the first in the table that GGUF knows. */
static uint32_t guess_file_type(const struct apr_plan *p)
{
    uint64_t n_bytes[APR_N_TYPES] = {0};
    unsigned most = APR_F32;
    for (uint64_t i = 0; i < p->n_tensors; i++)
        if (p->tensors[i].n_dims > 1 && p->tensors[i].type < APR_N_TYPES)
            n_bytes[p->tensors[i].type] += p->tensors[i].n_bytes;
    for (unsigned t = 0; t < APR_N_TYPES; t++)
        if (n_bytes[t] > n_bytes[most]) most = t;
    const struct apr_recipe *r;
    for (size_t i = 0; (r = apr_recipe_at(i)) != NULL; i++)
        if ((unsigned)r->type == most && r->file_type != APR_NO_FILE_TYPE) return r->file_type;
    return 0;
}

uint32_t apr_plan_file_type(const struct apr_model *m, const struct apr_plan *p,
                            const struct apr_recipe *recipe)
{
    if (recipe && recipe->file_type != APR_NO_FILE_TYPE) return recipe->file_type;
    const json_t *v =
        json_object_get(json_object_get(json_object_get(m->apr_meta, "apr"), "quantization"), "file_type");
    if (json_is_integer(v)) return (uint32_t)json_integer_value(v);
    const struct apr_kv *kv = m->has_kvs ? apr_kvs_find(&m->kvs, "general.file_type") : NULL;
    return kv && kv->type == APR_KV_U32 ? (uint32_t)kv->v.u : guess_file_type(p);
}

enum apr_code apr_plan_report(const struct apr_plan *p, const struct apr_fmt *fmt, uint64_t n_peak_bytes,
                              struct apr_out *o, struct apr_err *e)
{
    uint64_t n_head, n_total, n_in = 0;
    TRY(fmt->measure(p, &n_head, &n_total, e));
    apr_out_arr(o, "tensors");
    for (uint64_t i = 0; i < p->n_tensors; i++) {
        const struct apr_plan_tensor *t = &p->tensors[i];
        struct apr_tensor shape = {.n_dims = t->n_dims};
        char text[APR_MAX_DIMS * 24];
        memcpy(shape.dims, t->dims, sizeof shape.dims);
        n_in += t->src->n_bytes;
        apr_out_obj(o, NULL);
        apr_out_str(o, "name", t->name);
        apr_out_str(o, "shape", apr_tensor_shape(&shape, text, sizeof text));
        apr_out_str(o, "from", apr_type_name(t->src->type));
        apr_out_str(o, "type", apr_type_name(t->type));
        apr_out_u64(o, "size_bytes", t->n_bytes);
        apr_out_u64(o, "offset_bytes", n_head + t->off_data);
        apr_out_end(o);
    }
    apr_out_end(o);
    apr_out_str(o, "format", fmt->name);
    apr_out_u64(o, "n_tensors", p->n_tensors);
    apr_out_bytes(o, "source_bytes", n_in);
    apr_out_bytes(o, "output_bytes", n_total);
    if (p->pack != APR_PACK_NONE) apr_out_bytes(o, "stored_bytes_at_most", apr_pack_bound(p->pack, n_total));
    apr_out_bytes(o, "peak_memory_bytes", n_peak_bytes);
    return APR_OK;
}
