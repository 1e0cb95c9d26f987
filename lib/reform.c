/* The table of changes. See reform.h. Sources: gguf-export facts, 5.2 and 5.3. */
#include "reform.h"

#include <inttypes.h>
#include <string.h>

#include "family/rope.h"
#include "log.h"
#include "view.h"

#define CHUNK_ELEMS ((uint64_t)64 << 10) /* of a vector at a time; a multiple of every block */

struct job {
    const struct apr_model *m;
    const struct apr_tensor *t;
    const struct apr_tensor_form *form;
    uint32_t layer;
    enum apr_target to;
    struct apr_arena *a;
    struct apr_tensors *out;
};
typedef enum apr_code change_fn(const struct job *j, struct apr_err *e);

static enum apr_code refuse(const struct job *j, const char *why, struct apr_err *e)
{
    return apr_fail(e, APR_ECONTRACT, "%s: tensor %s: %s", j->m->path, j->t->name, why);
}

/* ---- the list ----------------------------------------------------------------------------------------- */

static enum apr_code add(const struct job *j, const struct apr_tensor *t, struct apr_err *e)
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

static enum apr_code same(const struct job *j, struct apr_err *e)
{
    return add(j, j->t, e);
}

static enum apr_code drop(const struct job *j, struct apr_err *e)
{
    (void)j;
    (void)e;
    return APR_OK;
}

static enum apr_code drop_if_tied(const struct job *j, struct apr_err *e)
{
    return j->m->config.tied ? drop(j, e) : same(j, e);
}

/* A copy of the tensor that is a view of it. */
static struct apr_tensor *derived(const struct job *j, struct apr_view **view)
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

static const char *name_of_role(const struct job *j, enum apr_role role)
{
    char name[APR_MAX_NAME_BYTES];
    for (size_t i = 0; i < j->m->family->n_rules; i++)
        if (j->m->family->rules[i].role == role)
            return apr_arena_strdup(j->a,
                                    apr_family_name(j->m->family->rules[i].hf, j->layer, name, sizeof name));
    return NULL;
}

/* Bytes can change places row by row: rows are whole numbers of blocks. */
static bool has_rows(const struct apr_tensor *t)
{
    const struct apr_quant *q = apr_quant_of(t->type);
    return q && !q->is_flat && !q->head_bytes && t->packing != APR_FLAT && t->n_bytes &&
           (t->n_dims > 1 || q->block_elems == 1);
}

static bool is_plain(const struct apr_tensor *t)
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

static enum apr_code by_head(const struct job *j, uint32_t n_heads, apr_view_fn *make, struct apr_err *e)
{
    struct apr_view *v;
    const uint64_t n_rows = j->t->n_dims ? j->t->dims[0] : 0;
    if (!has_rows(j->t) || j->t->n_dims > 2)
        return refuse(j, "its rows cannot change places as they are stored; convert it to F16 first", e);
    if (n_heads == 0 || n_rows == 0 || n_rows % (2 * (uint64_t)n_heads))
        return refuse(j, "its rows are no whole number of pairs a head", e);
    struct apr_tensor *t = derived(j, &v);
    v->make = make;
    v->n_rows = n_rows / n_heads;
    v->row_bytes = j->t->n_bytes / n_rows;
    v->in_bytes[0] = v->out_bytes = j->t->n_bytes / n_heads;
    if (v->out_bytes > APR_VIEW_MAX_UNIT) return refuse(j, "one head is larger than 128 MiB", e);
    return add(j, t, e);
}

static enum apr_code pairs_q(const struct job *j, struct apr_err *e)
{
    return by_head(j, j->m->config.n_heads, pair_rows, e);
}

static enum apr_code pairs_k(const struct job *j, struct apr_err *e)
{
    return by_head(j, j->m->config.n_heads_kv, pair_rows, e);
}

static enum apr_code unpair_q(const struct job *j, struct apr_err *e)
{
    return by_head(j, j->m->config.n_heads, unpair_rows, e);
}

static enum apr_code unpair_k(const struct job *j, struct apr_err *e)
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

static enum apr_code by_value(const struct job *j, apr_view_fn *make, struct apr_err *e)
{
    struct apr_view *v;
    const uint64_t n = apr_tensor_elems(j->t);
    const struct apr_quant *q = apr_quant_of(j->t->type);
    if (!has_rows(j->t) || !q->to_f32 || j->t->packing != APR_ROWS)
        return refuse(j, "its values cannot be changed as they are stored", e);
    struct apr_tensor *t = derived(j, &v);
    const uint64_t n_unit = n < CHUNK_ELEMS ? n : CHUNK_ELEMS;
    v->make = make;
    v->in_bytes[0] = n_unit / q->block_elems * q->block_bytes;
    v->out_bytes = n_unit * sizeof(float);
    t->type = APR_F32;
    TRY(apr_tensor_bytes(t->type, t->n_dims, t->dims, &t->n_bytes, e));
    return add(j, t, e);
}

static enum apr_code plus_one(const struct job *j, struct apr_err *e)
{
    return by_value(j, plus, e);
}

static enum apr_code minus_one(const struct job *j, struct apr_err *e)
{
    return by_value(j, minus, e);
}

/* ---- positions ---------------------------------------------------------------------------------------- */

/* GGUF's first row is the first token's. */
static enum apr_code cut_rows(const struct job *j, struct apr_err *e)
{
    const uint64_t n_cut = j->m->config.position0;
    struct apr_view *v;
    if (n_cut == 0) return add(j, j->t, e);
    if (!has_rows(j->t) || j->t->n_dims != 2 || j->t->dims[0] <= n_cut)
        return refuse(j, "its first rows cannot be left out as it is stored; convert it to F16 first", e);
    struct apr_tensor *t = derived(j, &v);
    v->off = j->t->n_bytes / j->t->dims[0] * n_cut;
    t->dims[0] -= n_cut;
    t->n_bytes -= v->off;
    return add(j, t, e);
}

/* ---- latent attention --------------------------------------------------------------------------------- */

#define MAX_BLOCK 256

/* Row r of a matrix becomes column r of out [n_cols, n_rows], block by block as f32. */
static void spread_row(const struct apr_view *v, const uint8_t *row, uint64_t r, uint64_t n_cols, float *out)
{
    float x[MAX_BLOCK];
    for (uint64_t c = 0; c < n_cols; c += v->q->block_elems) {
        v->q->to_f32(row + c / v->q->block_elems * v->q->block_bytes, x, v->q->block_elems);
        for (uint32_t i = 0; i < v->q->block_elems; i++) out[(c + i) * v->n_rows + r] = x[i];
    }
}

/* One head of kv_b, [n_nope + n_value, kv_rank]: the first n_nope rows, transposed: [kv_rank, n_nope]. */
static void take_k(const struct apr_view *v, const uint8_t *const in[2], uint8_t *out)
{
    const uint64_t n_cols = v->out_bytes / v->n_rows / v->n_elem_bytes;
    for (uint64_t r = 0; r < v->n_rows; r++) {
        const uint8_t *row = in[0] + r * v->row_bytes;
        if (v->q->block_elems > 1)
            spread_row(v, row, r, n_cols, (float *)(void *)out); /* the start of a heap block */
        else
            for (uint64_t c = 0; c < n_cols; c++)
                memcpy(out + (c * v->n_rows + r) * v->n_elem_bytes, row + c * v->n_elem_bytes,
                       (size_t)v->n_elem_bytes);
    }
}

/* The other rows of the head, as they are: [n_value, kv_rank]. */
static void take_v(const struct apr_view *v, const uint8_t *const in[2], uint8_t *out)
{
    memcpy(out, in[0] + v->n_skip * v->row_bytes, (size_t)v->out_bytes);
}

static enum apr_code check_latent(const struct job *j, struct apr_err *e)
{
    const struct apr_mla *mla = &j->m->config.mla;
    const uint64_t n_rows = j->m->config.n_heads * ((uint64_t)mla->n_nope + mla->n_value);
    if (!has_rows(j->t) || j->t->packing != APR_ROWS)
        return refuse(j, "it cannot be split as it is stored; convert it to F16 first", e);
    if (j->t->n_dims != 2 || j->t->dims[0] != n_rows || j->t->dims[1] != mla->kv_rank)
        return refuse(j, "its shape does not suit the heads", e);
    if (j->t->n_bytes / j->m->config.n_heads > APR_VIEW_MAX_UNIT)
        return refuse(j, "one head is larger than 128 MiB", e);
    return APR_OK;
}

static enum apr_code split_kv(const struct job *j, struct apr_err *e)
{
    const struct apr_config *c = &j->m->config;
    const struct apr_quant *q = apr_quant_of(j->t->type);
    struct apr_view *vk, *vv;
    TRY(check_latent(j, e));
    struct apr_tensor *k = derived(j, &vk), *v = derived(j, &vv);
    const uint64_t row_bytes = j->t->n_bytes / j->t->dims[0];
    vk->in_bytes[0] = vv->in_bytes[0] = j->t->n_bytes / c->n_heads;
    vk->row_bytes = vv->row_bytes = row_bytes;
    vk->is_shared = vv->is_shared = true;
    vk->make = take_k;
    vv->make = take_v;
    if (q->block_elems > 1) {
        if (q->block_elems > MAX_BLOCK || !q->to_f32) return refuse(j, "its values are not known", e);
        apr_note("%s: %s: %s cannot be transposed; its key half is stored as F32", j->m->path, j->t->name,
                 q->name);
        k->type = APR_F32;
    }
    vk->n_rows = c->mla.n_nope;
    vk->n_elem_bytes = q->block_elems > 1 ? sizeof(float) : q->block_bytes;
    vk->out_bytes = vk->n_elem_bytes * c->mla.n_nope * c->mla.kv_rank;
    vv->n_skip = c->mla.n_nope;
    vv->out_bytes = row_bytes * c->mla.n_value;
    k->name = name_of_role(j, APR_ROLE_K_B);
    v->name = name_of_role(j, APR_ROLE_V_B);
    k->n_dims = v->n_dims = 3;
    k->dims[0] = v->dims[0] = c->n_heads;
    k->dims[1] = v->dims[2] = c->mla.kv_rank;
    k->dims[2] = c->mla.n_nope;
    v->dims[1] = c->mla.n_value;
    TRY(apr_tensor_bytes(k->type, 3, k->dims, &k->n_bytes, e));
    TRY(apr_tensor_bytes(v->type, 3, v->dims, &v->n_bytes, e));
    TRY(add(j, k, e));
    return add(j, v, e);
}

/* One head: k [kv_rank, n_nope] transposed, then v [n_value, kv_rank]. */
static void join(const struct apr_view *v, const uint8_t *const in[2], uint8_t *out)
{
    const uint64_t n_cols = v->row_bytes / v->n_elem_bytes;
    for (uint64_t r = 0; r < v->n_rows; r++)
        for (uint64_t c = 0; c < n_cols; c++)
            memcpy(out + r * v->row_bytes + c * v->n_elem_bytes,
                   in[0] + (c * v->n_rows + r) * v->n_elem_bytes, (size_t)v->n_elem_bytes);
    memcpy(out + v->n_rows * v->row_bytes, in[1], (size_t)v->in_bytes[1]);
}

/* From k_b; v_b is taken along. */
static enum apr_code join_kv(const struct job *j, struct apr_err *e)
{
    const struct apr_config *c = &j->m->config;
    const struct apr_tensor *v_b = apr_model_role(j->m, APR_ROLE_V_B, j->layer);
    struct apr_view *v;
    if (!v_b || !is_plain(j->t) || !is_plain(v_b) || j->t->type != v_b->type || j->t->n_dims != 3 ||
        v_b->n_dims != 3)
        return refuse(j,
                      "it cannot be joined with its value half as they are stored; both must be F32, F16 "
                      "or BF16",
                      e);
    if (j->t->dims[0] != c->n_heads || v_b->dims[0] != c->n_heads || j->t->dims[1] != v_b->dims[2])
        return refuse(j, "its shape does not suit its value half", e);
    struct apr_tensor *t = derived(j, &v);
    v->src[1] = v_b;
    v->is_shared = true; /* the first is over before the second begins */
    v->make = join;
    v->n_rows = j->t->dims[2];
    v->n_elem_bytes = v->q->block_bytes;
    v->row_bytes = v->n_elem_bytes * j->t->dims[1];
    v->in_bytes[0] = j->t->n_bytes / c->n_heads;
    v->in_bytes[1] = v_b->n_bytes / c->n_heads;
    v->out_bytes = v->in_bytes[0] + v->in_bytes[1];
    if (v->out_bytes > APR_VIEW_MAX_UNIT) return refuse(j, "one head is larger than 128 MiB", e);
    t->name = name_of_role(j, APR_ROLE_KV_B);
    t->n_dims = 2;
    t->dims[0] = c->n_heads * (j->t->dims[2] + v_b->dims[1]);
    t->dims[1] = j->t->dims[1];
    t->dims[2] = 0;
    TRY(apr_tensor_bytes(t->type, 2, t->dims, &t->n_bytes, e));
    return add(j, t, e);
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
static enum apr_code turn_back(const struct job *j, struct apr_err *e)
{
    struct apr_view *v;
    if (!is_plain(j->t) || j->t->n_dims != 2)
        return refuse(j, "it cannot be transposed as it is stored; convert it to F16 first", e);
    struct apr_tensor *t = derived(j, &v);
    t->dims[0] = j->t->dims[1];
    t->dims[1] = j->t->dims[0];
    if (!j->m->is_stream && !j->m->compute && !j->t->view) {
        t->is_turned = !j->t->is_turned;
        t->view = NULL;
        return add(j, t, e);
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
    return add(j, t, e);
}

/* One tensor for each expert. */
static enum apr_code unstack(const struct job *j, struct apr_err *e)
{
    char name[APR_MAX_NAME_BYTES];
    const struct apr_quant *q = apr_quant_of(j->t->type);
    if (j->t->n_dims != 3 || j->t->dims[0] == 0 || j->t->dims[0] > UINT32_MAX || !q || q->is_flat ||
        q->head_bytes || j->t->packing == APR_FLAT)
        return refuse(j, "its experts cannot be told apart as they are stored", e);
    for (uint32_t i = 0; i < j->t->dims[0]; i++) {
        struct apr_view *v;
        struct apr_tensor *t = derived(j, &v);
        t->name = apr_arena_strdup(j->a, apr_family_part_name(j->form->part, j->layer, i, name, sizeof name));
        t->n_dims = 2;
        t->dims[0] = j->t->dims[1];
        t->dims[1] = j->t->dims[2];
        t->dims[2] = 0;
        t->n_bytes = j->t->n_bytes / j->t->dims[0];
        v->off = i * t->n_bytes;
        TRY(add(j, t, e));
    }
    return APR_OK;
}

/* ---- generated tables --------------------------------------------------------------------------------- */

static enum apr_code add_table(const struct job *j, enum apr_role role, const float *x, uint32_t n,
                               struct apr_err *e)
{
    struct apr_tensor *t = apr_arena_get(j->a, sizeof *t);
    struct apr_view *v = apr_arena_get(j->a, sizeof *v);
    float *copy = apr_arena_get(j->a, n * sizeof *copy);
    memcpy(copy, x, n * sizeof *copy);
    v->bytes = copy;
    t->name = name_of_role(j, role);
    if (!t->name)
        return apr_fail(e, APR_ECONTRACT, "%s: GGUF of family %s has no place for this rope scaling",
                        j->m->path, j->m->family->name);
    t->type = APR_F32;
    t->n_dims = 1;
    t->dims[0] = n;
    t->n_bytes = n * sizeof *copy;
    t->i_file = UINT32_MAX;
    t->view = v;
    return add(j, t, e);
}

static enum apr_code add_tables(const struct job *j, struct apr_err *e)
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
    change_fn *to_gguf, *from_gguf;
} changes[APR_N_CHANGES] = {
    [APR_CHANGE_NONE] = {same, same},           [APR_CHANGE_PAIRS_Q] = {pairs_q, unpair_q},
    [APR_CHANGE_PAIRS_K] = {pairs_k, unpair_k}, [APR_CHANGE_PLUS_ONE] = {plus_one, minus_one},
    [APR_CHANGE_SPLIT_KV] = {split_kv, same},   [APR_CHANGE_JOIN_KV] = {same, join_kv},
    [APR_CHANGE_DROP] = {same, drop},           [APR_CHANGE_TIED] = {drop_if_tied, same},
    [APR_CHANGE_CUT_ROWS] = {cut_rows, same},
};

static change_fn *change_of(const struct job *j)
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
    struct job j = {.m = m, .to = m->family ? to : APR_TO_APR, .a = a, .out = out};
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
