/* Roles to pointers. See bind.h. */
#include "bind.h"

#include <string.h>

static enum apr_code find(const struct apr_bind *b, enum apr_role role, uint32_t i_layer,
                          const struct apr_tensor **t, struct apr_err *e)
{
    *t = apr_model_role(b->m, role, i_layer);
    if (!*t) {
        const char *name = "?";
        for (size_t i = 0; i < b->m->family->n_rules; i++)
            if (b->m->family->rules[i].role == role) name = b->m->family->rules[i].hf;
        return apr_fail(e, APR_ELOAD, "%s: tensor %s (layer %u) is missing", b->m->path, name, i_layer);
    }
    return APR_OK;
}

bool apr_bind_has(const struct apr_bind *b, enum apr_role role, uint32_t i_layer)
{
    return apr_model_role(b->m, role, i_layer) != NULL;
}

static enum apr_code check_shape(const struct apr_bind *b, const struct apr_tensor *t, size_t n_rows,
                                 size_t n_cols, struct apr_err *e)
{
    char shape[128];
    uint64_t n_first = t->n_dims > 1 ? t->dims[0] : 1;
    if (!t->data) return apr_fail(e, APR_ELOAD, "%s: tensor %s has no data", b->m->path, t->name);
    if (n_first == n_rows && apr_tensor_elems(t) / (n_first ? n_first : 1) == n_cols) return APR_OK;
    return apr_fail(e, APR_ELOAD, "%s: tensor %s has shape %s, the configuration gives [%zu, %zu]",
                    b->m->path, t->name, apr_tensor_shape(t, shape, sizeof shape), n_rows, n_cols);
}

enum apr_code apr_bind_vector(struct apr_bind *b, enum apr_role role, uint32_t i_layer, size_t n,
                              const float **out, struct apr_err *e)
{
    const struct apr_tensor *t;
    float *x;
    TRY(find(b, role, i_layer, &t, e));
    TRY(check_shape(b, t, 1, n, e));
    const struct apr_quant *q = apr_quant_of(t->type);
    if (!q || !q->to_f32)
        return apr_fail(e, APR_ELOAD, "%s: tensor %s has type %s, which the engine cannot read", b->m->path,
                        t->name, apr_type_name(t->type));
    TRY(apr_arena_try(b->arena, &x, n, sizeof *x, t->name, e));
    q->to_f32(t->data, x, n);
    *out = x;
    return APR_OK;
}

enum apr_code apr_bind_norm(struct apr_bind *b, enum apr_role role, enum apr_role bias_role, uint32_t i_layer,
                            size_t n, struct apr_lnorm *out, struct apr_err *e)
{
    TRY(apr_bind_vector(b, role, i_layer, n, &out->w, e));
    return apr_bind_vector(b, bias_role, i_layer, n, &out->b, e);
}

/* The original's Q8 has one scale for the tensor; the kernel takes rows that begin with theirs. values: the
 * matrix's own, scale: the tensor's first bytes. The copy is as large as the matrix. */
static enum apr_code repack_native_q8(const struct apr_bind *b, const struct apr_tensor *t,
                                      const uint8_t *scale, const uint8_t *values, struct apr_mat *m,
                                      struct apr_err *e)
{
    uint8_t *to;
    m->row_bytes = sizeof(float) + m->n_cols;
    TRY(apr_arena_try(b->arena, &to, m->n_rows, m->row_bytes, t->name, e));
    for (size_t r = 0; r < m->n_rows; r++) {
        memcpy(to + r * m->row_bytes, scale, sizeof(float));
        memcpy(to + r * m->row_bytes + sizeof(float), values + r * m->n_cols, m->n_cols);
    }
    m->data = to;
    return APR_OK;
}

/* Rows of whole blocks of a tensor that is one matrix. A convolution's row is several rows of the tensor one
 * after the other. */
static enum apr_code lay_out(const struct apr_bind *b, const struct apr_tensor *t, struct apr_mat *m,
                             struct apr_err *e)
{
    const struct apr_quant *q = apr_quant_of(t->type);
    if (t->type == APR_NATIVE_Q8) return repack_native_q8(b, t, t->data, t->data + sizeof(float), m, e);
    if (!q || t->packing != APR_ROWS || apr_tensor_cols(t) % q->block_elems)
        return apr_fail(e, APR_ELOAD,
                        "%s: tensor %s: rows of %zu are no whole number of %s blocks; convert it", b->m->path,
                        t->name, m->n_cols, apr_type_name(t->type));
    m->row_bytes = m->n_cols / q->block_elems * q->block_bytes;
    m->data = t->data;
    return APR_OK;
}

static enum apr_code kernels_of(const struct apr_bind *b, const struct apr_tensor *t,
                                const struct apr_matmul **mm, struct apr_err *e)
{
    *mm = t->type < APR_N_TYPES ? &b->kern->matmul[t->type] : NULL;
    if (*mm && (*mm)->fast && (*mm)->exact) return APR_OK;
    return apr_fail(e, APR_ELOAD,
                    "%s: tensor %s has type %s, which the engine cannot compute with; convert it", b->m->path,
                    t->name, apr_type_name(t->type));
}

enum apr_code apr_bind_matrix(struct apr_bind *b, enum apr_role role, enum apr_role bias_role,
                              uint32_t i_layer, size_t n_rows, size_t n_cols, struct apr_mat *out,
                              struct apr_err *e)
{
    const struct apr_tensor *t;
    const struct apr_matmul *mm;
    TRY(find(b, role, i_layer, &t, e));
    TRY(check_shape(b, t, n_rows, n_cols, e));
    TRY(kernels_of(b, t, &mm, e));
    *out = (struct apr_mat){.data = t->data, .mm = mm, .type = t->type, .n_rows = n_rows, .n_cols = n_cols};
    TRY(lay_out(b, t, out, e));
    b->n_bytes += n_rows * out->row_bytes;
    if (bias_role == APR_ROLE_NONE || !apr_bind_has(b, bias_role, i_layer)) return APR_OK;
    return apr_bind_vector(b, bias_role, i_layer, n_rows, &out->bias, e);
}

/* Matrix i of a stack. Of a tensor in one piece every matrix follows the one before, after the type's head.
 */
static enum apr_code lay_out_part(const struct apr_bind *b, const struct apr_tensor *t, uint64_t i,
                                  struct apr_mat *m, struct apr_err *e)
{
    const struct apr_quant *q = apr_quant_of(t->type);
    if (t->type == APR_NATIVE_Q8)
        return repack_native_q8(b, t, t->data, t->data + sizeof(float) + i * m->n_rows * m->n_cols, m, e);
    m->row_bytes = m->n_cols / q->block_elems * q->block_bytes;
    m->data = apr_tensor_part(t, i);
    return APR_OK;
}

enum apr_code apr_bind_stack(struct apr_bind *b, enum apr_role role, uint32_t i_layer, size_t n_mats,
                             size_t n_used, size_t n_rows, size_t n_cols, struct apr_mat **out,
                             struct apr_err *e)
{
    const struct apr_tensor *t;
    const struct apr_matmul *mm;
    char shape[128];
    TRY(find(b, role, i_layer, &t, e));
    if (t->n_dims != 3 || t->dims[0] != n_mats || t->dims[1] != n_rows || t->dims[2] != n_cols)
        return apr_fail(e, APR_ELOAD, "%s: tensor %s has shape %s, the configuration gives [%zu, %zu, %zu]",
                        b->m->path, t->name, apr_tensor_shape(t, shape, sizeof shape), n_mats, n_rows,
                        n_cols);
    TRY(kernels_of(b, t, &mm, e));
    if (t->type == APR_NATIVE_Q8 ? !t->data : !apr_tensor_part(t, 0))
        return apr_fail(e, APR_ELOAD, "%s: tensor %s has no data", b->m->path, t->name);
    if (t->packing != APR_ROWS || n_cols % apr_quant_of(t->type)->block_elems)
        return apr_fail(e, APR_ELOAD,
                        "%s: tensor %s: rows of %zu are no whole number of %s blocks; convert it", b->m->path,
                        t->name, n_cols, apr_type_name(t->type));
    TRY(apr_arena_try(b->arena, out, n_mats, sizeof **out, t->name, e));
    for (size_t i = 0; i < n_mats; i++) {
        struct apr_mat *m = &(*out)[i];
        *m = (struct apr_mat){.mm = mm, .type = t->type, .n_rows = n_rows, .n_cols = n_cols};
        TRY(lay_out_part(b, t, i, m, e));
    }
    b->n_bytes += n_used * n_rows * (*out)[0].row_bytes;
    return APR_OK;
}

struct apr_mat apr_mat_rows(const struct apr_mat *m, size_t row0, size_t n_rows)
{
    struct apr_mat view = *m;
    view.data += row0 * m->row_bytes;
    view.n_rows = n_rows;
    if (view.bias) view.bias += row0;
    return view;
}

enum apr_code apr_bind_turned(struct apr_bind *b, const struct apr_mat *m, struct apr_mat *out,
                              struct apr_err *e)
{
    bool is_half = m->type == APR_F16 || m->type == APR_BF16;
    enum apr_type type = is_half ? m->type : APR_F32;
    size_t n_bytes = is_half ? 2 : 4, n = m->n_rows;
    float *row = NULL;
    uint8_t *to;
    TRY(apr_arena_try(b->arena, &to, n * n_bytes, m->n_cols, "a transposed matrix", e));
    if (!is_half) TRY(apr_arena_try(b->arena, &row, m->n_cols, sizeof *row, "a row", e));
    for (size_t r = 0; r < n; r++) {
        const uint8_t *from = m->data + r * m->row_bytes;
        if (!is_half) b->kern->to_f32[m->type](from, row, m->n_cols);
        if (!is_half) from = (const uint8_t *)row;
        for (size_t i = 0; i < m->n_cols; i++)
            memcpy(to + (i * n + r) * n_bytes, from + i * n_bytes, n_bytes);
    }
    *out = (struct apr_mat){.data = to, .mm = &b->kern->matmul[type], .type = type, .n_rows = m->n_cols};
    out->n_cols = n;
    out->row_bytes = n * n_bytes;
    return APR_OK;
}

enum apr_code apr_bind_rows(struct apr_bind *b, enum apr_role role, size_t n_rows, size_t n_cols,
                            struct apr_rows *out, struct apr_err *e)
{
    const struct apr_tensor *t;
    TRY(find(b, role, 0, &t, e));
    TRY(check_shape(b, t, n_rows, n_cols, e));
    *out = (struct apr_rows){.data = t->data, .n_rows = n_rows, .n_cols = n_cols};
    out->to_f32 = t->type < APR_N_TYPES ? b->kern->to_f32[t->type] : NULL;
    if (!out->to_f32)
        return apr_fail(e, APR_ELOAD, "%s: tensor %s has type %s, which the engine cannot read", b->m->path,
                        t->name, apr_type_name(t->type));
    struct apr_mat m = {.n_rows = n_rows, .n_cols = n_cols};
    TRY(lay_out(b, t, &m, e));
    out->data = m.data;
    out->row_bytes = m.row_bytes;
    return APR_OK;
}

void apr_rows_get(const struct apr_rows *r, size_t i, float *x)
{
    r->to_f32(r->data + i * r->row_bytes, x, r->n_cols);
}

void apr_rows_add(const struct apr_rows *r, const struct apr_kern *kern, size_t i, float *room, float *x)
{
    apr_rows_get(r, i, room);
    kern->add(x, room, r->n_cols);
}
