/* The table of changes. See reform.h. Sources: gguf-export facts, 5.2 and 5.3. */
#include "reform_job.h"

#include <inttypes.h>
#include <string.h>

#include "family/rope.h"
#include "log.h"

#define CHUNK_ELEMS ((uint64_t)64 << 10) /* of a vector at a time; a multiple of every block */

enum apr_code apr_reform_refuse(const struct apr_reform_job *j, const char *why, struct apr_err *e)
{
    return apr_fail(e, APR_ECONTRACT, "%s: tensor %s: %s", j->m->path, j->t->name, why);
}

/* ---- the list ----------------------------------------------------------------------------------------- */

enum apr_code apr_reform_add(const struct apr_reform_job *j, const struct apr_tensor *t, struct apr_err *e)
{
    struct apr_tensors *list = j->out;
    if (list->n == list->cap) {
        const struct apr_tensor **grown;
        const uint64_t cap = list->cap ? 2 * list->cap : 256;
        TRY(apr_arena_try(j->a, &grown, (size_t)cap, sizeof *grown, "the list of tensors", e));
        if (list->n) memcpy(grown, list->at, (size_t)list->n * sizeof *grown);
        list->at = grown;
        list->cap = cap;
    }
    list->at[list->n++] = t;
    return APR_OK;
}

static enum apr_code same(const struct apr_reform_job *j, struct apr_err *e)
{
    return apr_reform_add(j, j->t, e);
}

static enum apr_code drop(const struct apr_reform_job *j, struct apr_err *e)
{
    (void)j;
    (void)e;
    return APR_OK;
}

static enum apr_code drop_if_tied(const struct apr_reform_job *j, struct apr_err *e)
{
    return j->m->config.tied ? drop(j, e) : same(j, e);
}

/* A copy of the tensor that is a view of it. */
struct apr_tensor *apr_reform_derived(const struct apr_reform_job *j, struct apr_view **view)
{
    struct apr_tensor *t = apr_arena_get(j->a, sizeof *t);
    *view = apr_arena_get(j->a, sizeof **view);
    (*view)->src[0] = j->t;
    (*view)->q = apr_quant_of(j->t->type);
    *t = *j->t;
    t->data = NULL;
    t->parts = NULL;
    t->is_turned = false;
    t->view = *view;
    return t;
}

const char *apr_reform_name(const struct apr_reform_job *j, enum apr_role role)
{
    char name[APR_MAX_NAME_BYTES];
    for (size_t i = 0; i < j->m->family->n_rules; i++)
        if (j->m->family->rules[i].role == role)
            return apr_arena_strdup(j->a,
                                    apr_family_name(j->m->family->rules[i].hf, j->layer, name, sizeof name));
    return NULL;
}

/* Bytes can change places row by row: rows are whole numbers of blocks. */
bool apr_reform_has_rows(const struct apr_tensor *t)
{
    const struct apr_quant *q = apr_quant_of(t->type);
    return q && !q->is_flat && !q->head_bytes && t->packing != APR_FLAT && t->n_bytes &&
           (t->n_dims > 1 || q->block_elems == 1);
}

bool apr_reform_is_plain(const struct apr_tensor *t)
{
    const struct apr_quant *q = apr_quant_of(t->type);
    return q && q->block_elems == 1 && !q->head_bytes && t->packing == APR_ROWS && t->n_bytes;
}

/* ---- rows of q and k ---------------------------------------------------------------------------------- */

/* One head, [n_rows, row]: row s * n/2 + j becomes row 2j + s. */
static void pair_rows(const struct apr_view *v, const uint8_t *const in[2], uint8_t *out)
{
    const uint64_t half = v->n_rows / 2;
    for (uint64_t s = 0; s < 2; s++)
        for (uint64_t j = 0; j < half; j++)
            memcpy(out + (2 * j + s) * v->row_bytes, in[0] + (s * half + j) * v->row_bytes, v->row_bytes);
}

static void unpair_rows(const struct apr_view *v, const uint8_t *const in[2], uint8_t *out)
{
    const uint64_t half = v->n_rows / 2;
    for (uint64_t s = 0; s < 2; s++)
        for (uint64_t j = 0; j < half; j++)
            memcpy(out + (s * half + j) * v->row_bytes, in[0] + (2 * j + s) * v->row_bytes, v->row_bytes);
}

static enum apr_code by_head(const struct apr_reform_job *j, uint32_t n_heads, apr_view_fn *make,
                             struct apr_err *e)
{
    struct apr_view *v;
    const uint64_t n_rows = j->t->n_dims ? j->t->dims[0] : 0;
    if (!apr_reform_has_rows(j->t) || j->t->n_dims > 2)
        return apr_reform_refuse(
            j, "its rows cannot change places as they are stored; convert it to F16 first", e);
    if (n_heads == 0 || n_rows == 0 || n_rows % (2 * (uint64_t)n_heads))
        return apr_reform_refuse(j, "its rows are no whole number of pairs a head", e);
    struct apr_tensor *t = apr_reform_derived(j, &v);
    v->make = make;
    v->n_rows = n_rows / n_heads;
    v->row_bytes = j->t->n_bytes / n_rows;
    v->in_bytes[0] = v->out_bytes = j->t->n_bytes / n_heads;
    if (v->out_bytes > APR_VIEW_MAX_UNIT) return apr_reform_refuse(j, "one head is larger than 128 MiB", e);
    return apr_reform_add(j, t, e);
}

static enum apr_code pairs_q(const struct apr_reform_job *j, struct apr_err *e)
{
    return by_head(j, j->m->config.n_heads, pair_rows, e);
}

static enum apr_code pairs_k(const struct apr_reform_job *j, struct apr_err *e)
{
    return by_head(j, j->m->config.n_heads_kv, pair_rows, e);
}

static enum apr_code unpair_q(const struct apr_reform_job *j, struct apr_err *e)
{
    return by_head(j, j->m->config.n_heads, unpair_rows, e);
}

static enum apr_code unpair_k(const struct apr_reform_job *j, struct apr_err *e)
{
    return by_head(j, j->m->config.n_heads_kv, unpair_rows, e);
}

/* ---- norms -------------------------------------------------------------------------------------------- */

static void shift(const struct apr_view *v, const uint8_t *in, uint8_t *out, float by)
{
    float *x = (float *)(void *)out; /* the start of a heap block */
    const size_t n = (size_t)(v->out_bytes / sizeof *x);
    v->q->to_f32(in, x, n);
    for (size_t i = 0; i < n; i++) x[i] += by;
}

static void plus(const struct apr_view *v, const uint8_t *const in[2], uint8_t *out)
{
    shift(v, in[0], out, 1.0F);
}

static void minus(const struct apr_view *v, const uint8_t *const in[2], uint8_t *out)
{
    shift(v, in[0], out, -1.0F);
}

static enum apr_code by_value(const struct apr_reform_job *j, apr_view_fn *make, struct apr_err *e)
{
    struct apr_view *v;
    const uint64_t n = apr_tensor_elems(j->t);
    const struct apr_quant *q = apr_quant_of(j->t->type);
    if (!apr_reform_has_rows(j->t) || !q->to_f32 || j->t->packing != APR_ROWS)
        return apr_reform_refuse(j, "its values cannot be changed as they are stored", e);
    struct apr_tensor *t = apr_reform_derived(j, &v);
    const uint64_t n_unit = n < CHUNK_ELEMS ? n : CHUNK_ELEMS;
    v->make = make;
    v->in_bytes[0] = n_unit / q->block_elems * q->block_bytes;
    v->out_bytes = n_unit * sizeof(float);
    t->type = APR_F32;
    TRY(apr_tensor_bytes(t->type, t->n_dims, t->dims, &t->n_bytes, e));
    return apr_reform_add(j, t, e);
}

static enum apr_code plus_one(const struct apr_reform_job *j, struct apr_err *e)
{
    return by_value(j, plus, e);
}

static enum apr_code minus_one(const struct apr_reform_job *j, struct apr_err *e)
{
    return by_value(j, minus, e);
}

/* ---- positions ---------------------------------------------------------------------------------------- */

/* GGUF's first row is the first token's. */
static enum apr_code cut_rows(const struct apr_reform_job *j, struct apr_err *e)
{
    const uint64_t n_cut = j->m->config.position0;
    struct apr_view *v;
    if (n_cut == 0) return apr_reform_add(j, j->t, e);
    if (!apr_reform_has_rows(j->t) || j->t->n_dims != 2 || j->t->dims[0] <= n_cut)
        return apr_reform_refuse(
            j, "its first rows cannot be left out as it is stored; convert it to F16 first", e);
    struct apr_tensor *t = apr_reform_derived(j, &v);
    v->off = j->t->n_bytes / j->t->dims[0] * n_cut;
    t->dims[0] -= n_cut;
    t->n_bytes -= v->off;
    return apr_reform_add(j, t, e);
}

/* ---- checkpoints -------------------------------------------------------------------------------------- */

static void transpose(const struct apr_view *v, const uint8_t *const in[2], uint8_t *out)
{
    const uint64_t n_cols = v->row_bytes / v->n_elem_bytes;
    for (uint64_t r = 0; r < v->n_rows; r++)
        for (uint64_t c = 0; c < n_cols; c++)
            memcpy(out + (c * v->n_rows + r) * v->n_elem_bytes,
                   in[0] + r * v->row_bytes + c * v->n_elem_bytes, (size_t)v->n_elem_bytes);
}

/* [out, in] back to [in, out]. What lies in a file is read across; what comes once is held whole. */
static enum apr_code turn_back(const struct apr_reform_job *j, struct apr_err *e)
{
    struct apr_view *v;
    if (!apr_reform_is_plain(j->t) || j->t->n_dims != 2)
        return apr_reform_refuse(j, "it cannot be transposed as it is stored; convert it to F16 first", e);
    struct apr_tensor *t = apr_reform_derived(j, &v);
    t->dims[0] = j->t->dims[1];
    t->dims[1] = j->t->dims[0];
    if (!j->m->is_stream && !j->m->compute && !j->t->view) {
        t->is_turned = !j->t->is_turned;
        t->view = NULL;
        return apr_reform_add(j, t, e);
    }
    if (t->n_bytes > APR_VIEW_MAX_UNIT)
        return apr_fail(e, APR_EUSAGE,
                        "%s: %s of %" PRIu64 " bytes must be transposed; give a file instead of a pipe",
                        j->m->path, t->name, t->n_bytes);
    v->make = transpose;
    v->n_rows = j->t->dims[0];
    v->n_elem_bytes = v->q->block_bytes;
    v->row_bytes = v->n_elem_bytes * j->t->dims[1];
    v->in_bytes[0] = v->out_bytes = t->n_bytes;
    return apr_reform_add(j, t, e);
}

/* One tensor for each expert. */
static enum apr_code unstack(const struct apr_reform_job *j, struct apr_err *e)
{
    char name[APR_MAX_NAME_BYTES];
    const struct apr_quant *q = apr_quant_of(j->t->type);
    if (j->t->n_dims != 3 || j->t->dims[0] == 0 || j->t->dims[0] > UINT32_MAX || !q || q->is_flat ||
        q->head_bytes || j->t->packing == APR_FLAT)
        return apr_reform_refuse(j, "its experts cannot be told apart as they are stored", e);
    for (uint32_t i = 0; i < j->t->dims[0]; i++) {
        struct apr_view *v;
        struct apr_tensor *t = apr_reform_derived(j, &v);
        t->name = apr_arena_strdup(j->a, apr_family_part_name(j->form->part, j->layer, i, name, sizeof name));
        t->n_dims = 2;
        t->dims[0] = j->t->dims[1];
        t->dims[1] = j->t->dims[2];
        t->dims[2] = 0;
        t->n_bytes = j->t->n_bytes / j->t->dims[0];
        v->off = i * t->n_bytes;
        TRY(apr_reform_add(j, t, e));
    }
    return APR_OK;
}

/* ---- generated tables --------------------------------------------------------------------------------- */

static enum apr_code add_table(const struct apr_reform_job *j, enum apr_role role, const float *x, uint32_t n,
                               struct apr_err *e)
{
    struct apr_tensor *t = apr_arena_get(j->a, sizeof *t);
    struct apr_view *v = apr_arena_get(j->a, sizeof *v);
    float *copy = apr_arena_get(j->a, n * sizeof *copy);
    memcpy(copy, x, n * sizeof *copy);
    v->bytes = copy;
    t->name = apr_reform_name(j, role);
    if (!t->name)
        return apr_fail(e, APR_ECONTRACT, "%s: GGUF of family %s has no place for this rope scaling",
                        j->m->path, j->m->family->name);
    t->type = APR_F32;
    t->n_dims = 1;
    t->dims[0] = n;
    t->n_bytes = n * sizeof *copy;
    t->i_file = UINT32_MAX;
    t->view = v;
    return apr_reform_add(j, t, e);
}

static enum apr_code add_tables(const struct apr_reform_job *j, struct apr_err *e)
{
    const struct apr_rope *r = &j->m->config.rope;
    float x[APR_MAX_ROPE_HALVES];
    if (r->scaling == APR_ROPE_DYNAMIC)
        apr_warn("%s: GGUF has no place for dynamic rope scaling: positions beyond %" PRIu32 " will differ",
                 j->m->path, r->n_ctx_orig);
    if (r->scaling == APR_ROPE_LLAMA3) {
        const uint32_t n = r->n_dims / 2;
        if (n > APR_MAX_ROPE_HALVES) return apr_fail(e, APR_ELOAD, "%s: too many rope pairs", j->m->path);
        for (uint32_t i = 0; i < n; i++) x[i] = (float)apr_rope_divisor(r, i);
        return add_table(j, APR_ROLE_ROPE_FREQS, x, n, e);
    }
    if (r->scaling != APR_ROPE_LONG || r->n_factors == 0) return APR_OK;
    TRY(add_table(j, APR_ROLE_ROPE_LONG, r->long_factor, r->n_factors, e));
    return add_table(j, APR_ROLE_ROPE_SHORT, r->short_factor, r->n_factors, e);
}

/* ---- externals ---------------------------------------------------------------------------------------- */

static const struct {
    apr_change_fn *to_gguf, *from_gguf;
} changes[APR_N_CHANGES] = {
    [APR_CHANGE_NONE] = {same, same},
    [APR_CHANGE_PAIRS_Q] = {pairs_q, unpair_q},
    [APR_CHANGE_PAIRS_K] = {pairs_k, unpair_k},
    [APR_CHANGE_PLUS_ONE] = {plus_one, minus_one},
    [APR_CHANGE_SPLIT_KV] = {apr_reform_split_kv, same},
    [APR_CHANGE_JOIN_KV] = {same, apr_reform_join_kv},
    [APR_CHANGE_DROP] = {same, drop},
    [APR_CHANGE_TIED] = {drop_if_tied, same},
    [APR_CHANGE_CUT_ROWS] = {cut_rows, same},
};

static apr_change_fn *change_of(const struct apr_reform_job *j)
{
    const bool is_gguf = j->m->config.form == APR_FORM_GGUF;
    if (!j->form) return same;
    if (j->to == APR_TO_GGUF) return is_gguf ? same : changes[j->form->change].to_gguf;
    if (j->form->part) return unstack;
    if (j->form->is_turned) return turn_back;
    return is_gguf ? changes[j->form->change].from_gguf : same;
}

enum apr_code apr_reform(const struct apr_model *m, enum apr_target to, struct apr_arena *a,
                         struct apr_tensors *out, struct apr_err *e)
{
    struct apr_reform_job j = {.m = m, .to = m->family ? to : APR_TO_APR, .a = a, .out = out};
    uint64_t n_left = 0;
    const char *left = NULL;
    *out = (struct apr_tensors){.n = 0};
    if (j.to == APR_TO_GGUF && m->config.form == APR_FORM_HF) TRY(add_tables(&j, e));
    for (uint64_t i = 0; i < m->n_tensors; i++) {
        const struct apr_tensor_rule *r;
        j.t = &m->tensors[i];
        j.form = NULL;
        r = j.to == APR_TO_APR ? NULL : apr_family_rule_hf(m->family, j.t->name, &j.layer);
        if (r && !r->gguf && j.to == APR_TO_GGUF) { /* a head that GGUF has no place for */
            left = j.t->name;
            n_left++;
            continue;
        }
        if (r) j.form = apr_family_form(m->family, r->role);
        TRY(change_of(&j)(&j, e));
    }
    if (n_left)
        apr_note("%s: GGUF has no place for %" PRIu64 " tensors of heads, such as %s; left out", m->path,
                 n_left, left);
    return APR_OK;
}

const char *apr_reform_gguf_name(const struct apr_model *m, const char *name, struct apr_arena *a)
{
    char text[APR_MAX_NAME_BYTES];
    uint32_t layer, expert;
    const struct apr_tensor_rule *r = apr_family_rule_hf(m->family, name, &layer);
    for (size_t i = 0; !r && i < m->family->n_rules; i++) {
        const struct apr_tensor_form *form = apr_family_form(m->family, m->family->rules[i].role);
        if (form && form->part && apr_family_matches(form->part, name, &layer, &expert))
            r = &m->family->rules[i];
    }
    return r && r->gguf ? apr_arena_strdup(a, apr_family_name(r->gguf, layer, text, sizeof text)) : NULL;
}
