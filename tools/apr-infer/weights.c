/* Roles to pointers. Shapes were checked by the contract; they are checked again here, because every later
 * index is computed from the config and not from the tensor. */
#include "weights.h"

#include <inttypes.h>
#include <string.h>

struct binder {
    const struct apr_model *m;
    const struct apr_kern *kern;
    struct apr_arena *arena;
    size_t n_bytes;
};

static enum apr_code find(const struct binder *b, enum apr_role role, uint32_t i_layer,
                          const struct apr_tensor **t, struct apr_err *e)
{
    *t = apr_model_role(b->m, role, i_layer);
    if (!*t) {
        const char *name = "?";
        for (size_t i = 0; i < b->m->family->n_rules; i++)
            if (b->m->family->rules[i].role == role) name = b->m->family->rules[i].hf;
        return apr_fail(e, APR_ELOAD, "%s: tensor %s (layer %u) is missing", b->m->path, name, i_layer);
    }
    if (!(*t)->data) return apr_fail(e, APR_ELOAD, "%s: tensor %s has no data", b->m->path, (*t)->name);
    return APR_OK;
}

static enum apr_code check_shape(const struct binder *b, const struct apr_tensor *t, uint64_t n_rows,
                                 uint64_t n_cols, struct apr_err *e)
{
    if (apr_tensor_rows(t) == n_rows && apr_tensor_cols(t) == n_cols) return APR_OK;
    char shape[128];
    return apr_fail(e, APR_ELOAD,
                    "%s: tensor %s has shape %s, the configuration gives [%" PRIu64 ", %" PRIu64 "]",
                    b->m->path, t->name, apr_tensor_shape(t, shape, sizeof shape), n_rows, n_cols);
}

/* A norm or bias as f32. */
static enum apr_code bind_vector(const struct binder *b, enum apr_role role, uint32_t i_layer, uint64_t n,
                                 const float **out, struct apr_err *e)
{
    const struct apr_tensor *t;
    TRY(find(b, role, i_layer, &t, e));
    TRY(check_shape(b, t, 1, n, e));
    const struct apr_quant *q = apr_quant_of(t->type);
    if (!q || !q->to_f32)
        return apr_fail(e, APR_ELOAD, "%s: tensor %s has type %s, which the engine cannot read", b->m->path,
                        t->name, apr_type_name(t->type));
    float *x;
    TRY(apr_arena_try(b->arena, &x, n, sizeof *x, t->name, e));
    q->to_f32(t->data, x, n);
    *out = x;
    return APR_OK;
}

/* The original's Q8 has one scale for the tensor; the kernel takes rows that begin with theirs. The copy is
 * as large as the tensor. */
static enum apr_code repack_native_q8(const struct binder *b, const struct apr_tensor *t, struct apr_mat *m,
                                      struct apr_err *e)
{
    uint8_t *to;
    m->row_bytes = sizeof(float) + m->n_cols;
    TRY(apr_arena_try(b->arena, &to, m->n_rows, m->row_bytes, t->name, e));
    const uint8_t *values = t->data + sizeof(float);
    for (size_t r = 0; r < m->n_rows; r++) {
        memcpy(to + r * m->row_bytes, t->data, sizeof(float));
        memcpy(to + r * m->row_bytes + sizeof(float), values + r * m->n_cols, m->n_cols);
    }
    m->data = to;
    return APR_OK;
}

/* Bytes from one row to the next, and data where rows have to be laid out for the kernels. */
static enum apr_code bind_rows(const struct binder *b, const struct apr_tensor *t, struct apr_mat *m,
                               struct apr_err *e)
{
    if (t->type == APR_NATIVE_Q8) return repack_native_q8(b, t, m, e);
    const struct apr_quant *q = apr_quant_of(t->type);
    if (m->n_cols % q->block_elems)
        return apr_fail(e, APR_ELOAD,
                        "%s: tensor %s: rows of %zu are no whole number of %s blocks; convert it", b->m->path,
                        t->name, m->n_cols, q->name);
    m->row_bytes = m->n_cols / q->block_elems * q->block_bytes;
    m->data = t->data;
    return APR_OK;
}

static enum apr_code bind_tensor(struct binder *b, const struct apr_tensor *t, uint64_t n_rows,
                                 uint64_t n_cols, struct apr_mat *out, struct apr_err *e)
{
    TRY(check_shape(b, t, n_rows, n_cols, e));
    const struct apr_matmul *mm = t->type < APR_N_TYPES ? &b->kern->matmul[t->type] : NULL;
    if (!mm || !mm->fast || !mm->exact)
        return apr_fail(e, APR_ELOAD,
                        "%s: tensor %s has type %s, which the engine cannot compute with; convert it",
                        b->m->path, t->name, apr_type_name(t->type));
    *out = (struct apr_mat){.mm = mm, .type = t->type, .n_rows = n_rows, .n_cols = n_cols};
    TRY(bind_rows(b, t, out, e));
    b->n_bytes += n_rows * out->row_bytes;
    return APR_OK;
}

/* bias_role APR_ROLE_NONE: the matrix has none. An absent bias is none as well (the family's rules said so).
 */
static enum apr_code bind_matrix(struct binder *b, enum apr_role role, enum apr_role bias_role,
                                 uint32_t i_layer, uint64_t n_rows, uint64_t n_cols, struct apr_mat *out,
                                 struct apr_err *e)
{
    const struct apr_tensor *t;
    TRY(find(b, role, i_layer, &t, e));
    TRY(bind_tensor(b, t, n_rows, n_cols, out, e));
    if (bias_role != APR_ROLE_NONE && apr_model_role(b->m, bias_role, i_layer))
        TRY(bind_vector(b, bias_role, i_layer, n_rows, &out->bias, e));
    return APR_OK;
}

static enum apr_code bind_layer(struct binder *b, struct apr_layer *l, uint32_t i, struct apr_err *e)
{
    const struct apr_config *c = &b->m->config;
    uint64_t n_q = (uint64_t)c->n_heads * c->head_dim, n_kv = (uint64_t)c->n_heads_kv * c->head_dim;
    TRY(bind_vector(b, APR_ROLE_ATTN_NORM, i, c->n_hidden, &l->attn_norm, e));
    TRY(bind_matrix(b, APR_ROLE_Q, APR_ROLE_Q_BIAS, i, n_q, c->n_hidden, &l->q, e));
    TRY(bind_matrix(b, APR_ROLE_K, APR_ROLE_K_BIAS, i, n_kv, c->n_hidden, &l->k, e));
    TRY(bind_matrix(b, APR_ROLE_V, APR_ROLE_V_BIAS, i, n_kv, c->n_hidden, &l->v, e));
    TRY(bind_matrix(b, APR_ROLE_O, APR_ROLE_NONE, i, c->n_hidden, n_q, &l->o, e));
    TRY(bind_vector(b, APR_ROLE_FFN_NORM, i, c->n_hidden, &l->ffn_norm, e));
    TRY(bind_matrix(b, APR_ROLE_GATE, APR_ROLE_NONE, i, c->n_inter, c->n_hidden, &l->gate, e));
    TRY(bind_matrix(b, APR_ROLE_UP, APR_ROLE_NONE, i, c->n_inter, c->n_hidden, &l->up, e));
    return bind_matrix(b, APR_ROLE_DOWN, APR_ROLE_NONE, i, c->n_hidden, c->n_inter, &l->down, e);
}

static enum apr_code bind_ends(struct binder *b, struct apr_weights *w, struct apr_err *e)
{
    const struct apr_config *c = &b->m->config;
    const struct apr_tensor *embed, *head;
    TRY(find(b, APR_ROLE_EMBED, 0, &embed, e));
    TRY(check_shape(b, embed, c->n_vocab, c->n_hidden, e));
    w->embed_to_f32 = embed->type < APR_N_TYPES ? b->kern->to_f32[embed->type] : NULL;
    if (!w->embed_to_f32)
        return apr_fail(e, APR_ELOAD, "%s: tensor %s has type %s, which the engine cannot read", b->m->path,
                        embed->name, apr_type_name(embed->type));
    struct apr_mat rows = {.n_rows = c->n_vocab, .n_cols = c->n_hidden};
    TRY(bind_rows(b, embed, &rows, e));
    w->embed = rows.data;
    w->embed_row_bytes = rows.row_bytes;
    TRY(bind_vector(b, APR_ROLE_FINAL_NORM, 0, c->n_hidden, &w->final_norm, e));
    head = apr_model_role(b->m, APR_ROLE_LM_HEAD, 0);
    if (!head && c->tied) head = embed;
    if (!head) /* names the missing tensor */
        TRY(find(b, APR_ROLE_LM_HEAD, 0, &head, e));
    return bind_tensor(b, head, c->n_vocab, c->n_hidden, &w->head, e);
}

enum apr_code apr_weights_bind(struct apr_weights *w, const struct apr_checked_model *m,
                               const struct apr_kern *kern, struct apr_arena *arena, struct apr_err *e)
{
    struct binder b = {.m = m->model, .kern = kern, .arena = arena};
    const struct apr_config *c = &m->model->config;
    *w = (struct apr_weights){.cfg = c};
    if (!m->model->family)
        return apr_fail(e, APR_ELOAD, "%s: architecture \"%s\" is not supported", m->model->path,
                        m->model->arch ? m->model->arch : "?");
    if (!c->n_layers || !c->n_heads || !c->n_heads_kv || c->n_heads % c->n_heads_kv || !c->head_dim ||
        c->head_dim % 2)
        return apr_fail(e, APR_ELOAD, "%s: %u layers, %u heads, %u KV heads of %u cannot be computed",
                        m->model->path, c->n_layers, c->n_heads, c->n_heads_kv, c->head_dim);
    TRY(bind_ends(&b, w, e));
    TRY(apr_arena_try(arena, &w->layers, c->n_layers, sizeof *w->layers, "layers", e));
    for (uint32_t i = 0; i < c->n_layers; i++) TRY(bind_layer(&b, &w->layers[i], i, e));
    w->n_bytes = b.n_bytes;
    return APR_OK;
}
