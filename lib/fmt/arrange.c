/* Tensors of checkpoints. See arrange.h. */
#include "arrange.h"

#include <inttypes.h>
#include <string.h>

#include "../ckd.h"
#include "../log.h"

/* Does the family know the name, as a tensor or as a part of one? */
static bool is_known(const struct apr_family *f, const char *name)
{
    uint32_t layer, expert;
    if (apr_family_rule_hf(f, name, &layer)) return true;
    for (size_t i = 0; i < f->n_forms; i++)
        if (f->forms[i].part && apr_family_matches(f->forms[i].part, name, &layer, &expert)) return true;
    return apr_family_drops(f, name);
}

/* A name that ends otherwise than the rules have it. */
static const char *other_end(struct apr_model *m, const char *name)
{
    const char *const(*pairs)[2] = m->family->suffixes;
    size_t n = strlen(name);
    for (size_t k = 0; pairs && pairs[k][1]; k++) {
        size_t n_end = strlen(pairs[k][0]);
        if (n > n_end && strcmp(name + n - n_end, pairs[k][0]) == 0)
            return apr_arena_printf(&m->arena, "%.*s%s", (int)(n - n_end), name, pairs[k][1]);
    }
    return name;
}

static void rename_tensors(struct apr_model *m)
{
    const struct apr_family *f = m->family;
    for (uint64_t i = 0; i < m->n_tensors; i++) m->tensors[i].name = other_end(m, m->tensors[i].name);
    for (uint64_t i = 0; f->prefixes && i < m->n_tensors; i++) {
        struct apr_tensor *t = &m->tensors[i];
        for (size_t k = 0; f->prefixes[k][1] && !is_known(f, t->name); k++) {
            const size_t n = strlen(f->prefixes[k][0]);
            if (strncmp(t->name, f->prefixes[k][0], n) != 0) continue;
            const char *meant = apr_arena_printf(&m->arena, "%s%s", f->prefixes[k][1], t->name + n);
            if (!is_known(f, meant)) continue;
            t->name = meant;
            m->hf_prefix = f->prefixes[k][0];
        }
    }
}

/* A tensor without a name is taken out of the table at the end. */
static void drop_buffers(struct apr_model *m)
{
    uint64_t n = 0;
    for (uint64_t i = 0; i < m->n_tensors; i++) {
        if (!apr_family_drops(m->family, m->tensors[i].name)) continue;
        m->tensors[i].name = NULL;
        n++;
    }
    if (n) apr_note("%s: %" PRIu64 " buffers hold no weights and are left out", m->path, n);
}

static void turn(struct apr_model *m)
{
    uint32_t layer;
    for (uint64_t i = 0; i < m->n_tensors; i++) {
        struct apr_tensor *t = &m->tensors[i];
        const struct apr_tensor_rule *r = t->name ? apr_family_rule_hf(m->family, t->name, &layer) : NULL;
        const struct apr_tensor_form *form = r ? apr_family_form(m->family, r->role) : NULL;
        const struct apr_quant *q = apr_quant_of(t->type);
        if (!form || !form->is_turned || t->n_dims != 2 || !q || q->block_elems != 1) continue;
        const uint64_t n = t->dims[0];
        t->dims[0] = t->dims[1];
        t->dims[1] = n;
        t->is_turned = true;
    }
}

/* ---- stacks ------------------------------------------------------------------------------------------- */

struct stack {
    struct apr_model *m;
    const char *name; /* of the stack: a template */
    const char *part;
    uint32_t n; /* experts */
};

static struct apr_tensor *part_at(const struct stack *s, uint32_t layer, uint32_t expert)
{
    char name[APR_MAX_NAME_BYTES];
    const struct apr_tensor *t =
        apr_model_find(s->m, apr_family_part_name(s->part, layer, expert, name, sizeof name));
    return t ? &s->m->tensors[t - s->m->tensors] : NULL;
}

static bool is_alike(const struct apr_tensor *a, const struct apr_tensor *b)
{
    return a->type == b->type && a->n_dims == b->n_dims && memcmp(a->dims, b->dims, sizeof a->dims) == 0 &&
           a->n_bytes == b->n_bytes;
}

/* Every expert of the layer is there, and all are of one kind. */
static bool is_complete(const struct stack *s, uint32_t layer)
{
    const struct apr_tensor *first = part_at(s, layer, 0);
    if (!first || first->n_dims != 2 || first->n_bytes == 0) return false;
    for (uint32_t i = 1; i < s->n; i++) {
        const struct apr_tensor *t = part_at(s, layer, i);
        if (!t || !is_alike(first, t)) return false;
    }
    return true;
}

/* The stack's tensor into *out; its parts lose their names. */
static enum apr_code stack_layer(const struct stack *s, uint32_t layer, struct apr_tensor *out,
                                 struct apr_err *e)
{
    char name[APR_MAX_NAME_BYTES];
    struct apr_tensor_part *parts;
    bool is_whole = true;
    TRY(apr_arena_try(&s->m->arena, &parts, s->n, sizeof *parts, "the parts of a stack", e));
    *out = *part_at(s, layer, 0);
    out->name = apr_arena_strdup(&s->m->arena, apr_family_name(s->name, layer, name, sizeof name));
    out->n_dims = 3;
    out->dims[2] = out->dims[1];
    out->dims[1] = out->dims[0];
    out->dims[0] = s->n;
    if (ckd_mul(&out->n_bytes, out->n_bytes, (uint64_t)s->n))
        return apr_fail(e, APR_EFORMAT, "%s: %s: sizes overflow", s->m->path, out->name);
    for (uint32_t i = 0; i < s->n; i++) {
        struct apr_tensor *t = part_at(s, layer, i);
        parts[i] = (struct apr_tensor_part){.i_file = t->i_file, .off_file = t->off_file};
        is_whole = is_whole && t->i_file == out->i_file && t->off_file == out->off_file + i * t->n_bytes;
    }
    for (uint32_t i = 0; i < s->n; i++)
        part_at(s, layer, i)->n_dims = UINT32_MAX; /* names are still needed */
    if (!is_whole) out->parts = parts;
    return APR_OK;
}

static enum apr_code stack_role(const struct stack *s, struct apr_err *e)
{
    struct apr_tensor *stacks;
    uint32_t n = 0;
    TRY(apr_arena_try(&s->m->arena, &stacks, s->m->config.n_layers, sizeof *stacks, "stacks", e));
    for (uint32_t layer = 0; layer < s->m->config.n_layers; layer++)
        if (is_complete(s, layer)) TRY(stack_layer(s, layer, &stacks[n++], e));
    for (uint64_t i = 0; i < s->m->n_tensors; i++)
        if (s->m->tensors[i].n_dims == UINT32_MAX) s->m->tensors[i].name = NULL;
    for (uint32_t i = 0; i < n; i++) {
        struct apr_tensor *t;
        TRY(apr_model_add_tensor(s->m, &t, e));
        *t = stacks[i];
    }
    return APR_OK;
}

static void compact(struct apr_model *m)
{
    uint64_t n = 0;
    for (uint64_t i = 0; i < m->n_tensors; i++)
        if (m->tensors[i].name) m->tensors[n++] = m->tensors[i];
    m->n_tensors = n;
}

static enum apr_code stack_experts(struct apr_model *m, struct apr_err *e)
{
    for (size_t i = 0; m->config.moe.n_experts && i < m->family->n_forms; i++) {
        const struct apr_tensor_form *form = &m->family->forms[i];
        struct stack s = {.m = m, .part = form->part, .n = m->config.moe.n_experts};
        for (size_t k = 0; form->part && k < m->family->n_rules; k++)
            if (m->family->rules[k].role == form->role) s.name = m->family->rules[k].hf;
        if (!s.name) continue;
        TRY(stack_role(&s, e));
        compact(m);
        TRY(apr_model_index(m, e));
    }
    return APR_OK;
}

/* Read to and fro, all of it for its hash too. */
static void read_across(struct apr_model *m)
{
    bool any = false;
    for (uint64_t i = 0; i < m->n_tensors; i++) any = any || m->tensors[i].parts || m->tensors[i].is_turned;
    for (uint32_t i = 0; any && i < m->n_files; i++) apr_src_sha_patient(m->files[i].src);
}

enum apr_code apr_arrange(struct apr_model *m, struct apr_err *e)
{
    if (!m->family || m->is_stream || m->config.n_layers == 0) return APR_OK;
    rename_tensors(m);
    drop_buffers(m);
    compact(m);
    TRY(apr_model_index(m, e));
    TRY(stack_experts(m, e));
    turn(m);
    read_across(m);
    return APR_OK;
}
