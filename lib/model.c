/* Tables, lookup and data access of a model. See model.h. */
#include "model.h"

#include <assert.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "buf.h"
#include "ckd.h"
#include "view.h"

#define TURN_BYTES ((uint64_t)8 << 20) /* of a transposed matrix at a time */

/* Open addressing over n_slots (a power of two); a slot holds a tensor's number + 1. */
struct name_index {
    uint64_t n_slots;
    uint32_t *slots;
};

struct apr_model *apr_model_new(const char *path)
{
    struct apr_arena arena;
    struct apr_model *m;
    apr_arena_init(&arena);
    m = apr_arena_get(&arena, sizeof *m); /* the model lives in its own arena */
    m->arena = arena;
    m->path = apr_arena_strdup(&m->arena, path);
    m->name = "";
    apr_kvs_init(&m->kvs, &m->arena);
    m->vocab.bos_id = m->vocab.eos_id = m->vocab.unk_id = m->vocab.sep_id = APR_ID_NONE;
    m->vocab.pad_id = m->vocab.cls_id = m->vocab.mask_id = m->vocab.eot_id = APR_ID_NONE;
    m->vocab.add_bos = m->vocab.add_eos = m->vocab.add_sep = m->vocab.add_space_prefix = -1;
    m->vocab.remove_extra_spaces = m->vocab.lowercase = m->vocab.strip_accents = -1;
    return m;
}

void apr_model_close(struct apr_model *m)
{
    struct apr_arena arena;
    if (!m) return;
    for (uint32_t i = 0; i < m->n_files; i++) apr_src_close(m->files[i].src);
    json_decref(m->hf_config);
    json_decref(m->hf_generation);
    json_decref(m->hf_tok_config);
    json_decref(m->hf_card);
    json_decref(m->hf_sentence);
    json_decref(m->st_metadata);
    json_decref(m->apr_meta);
    json_decref(m->trailer);
    json_decref(m->vocab.hf);
    apr_view_close(m->view_cache);
    arena = m->arena;
    apr_arena_free(&arena);
}

enum apr_code apr_model_add_files(struct apr_model *m, uint32_t n_files, struct apr_err *e)
{
    assert(m->n_files == 0);
    TRY(apr_arena_try(&m->arena, &m->files, n_files, sizeof *m->files, "the table of files", e));
    m->n_files = n_files;
    return APR_OK;
}

enum apr_code apr_model_add_tensor(struct apr_model *m, struct apr_tensor **out, struct apr_err *e)
{
    if (m->n_tensors == APR_MAX_TENSORS)
        return apr_fail(e, APR_ELOAD, "more than %u tensors", APR_MAX_TENSORS);
    if (m->n_tensors == m->cap_tensors) {
        struct apr_tensor *grown;
        uint64_t cap = m->cap_tensors ? 2 * m->cap_tensors : 64;
        TRY(apr_arena_try(&m->arena, &grown, cap, sizeof *grown, "the table of tensors", e));
        if (m->n_tensors) memcpy(grown, m->tensors, m->n_tensors * sizeof *grown);
        m->tensors = grown;
        m->cap_tensors = cap;
    }
    *out = &m->tensors[m->n_tensors++];
    **out = (struct apr_tensor){.name = ""};
    return APR_OK;
}

static uint64_t slot_of(const struct name_index *x, const struct apr_tensor *tensors, const char *name)
{
    uint64_t i = apr_xxh3_64(name, strlen(name)) & (x->n_slots - 1);
    while (x->slots[i] && strcmp(tensors[x->slots[i] - 1].name, name) != 0) i = (i + 1) & (x->n_slots - 1);
    return i;
}

const struct apr_tensor *apr_model_find(const struct apr_model *m, const char *name)
{
    const struct name_index *x = m->index;
    uint32_t i;
    if (!x) return NULL;
    i = x->slots[slot_of(x, m->tensors, name)];
    return i ? &m->tensors[i - 1] : NULL;
}

const struct apr_tensor *apr_model_role(const struct apr_model *m, enum apr_role role, uint32_t layer)
{
    char name[APR_MAX_NAME_BYTES];
    if (!m->family) return NULL;
    for (size_t i = 0; i < m->family->n_rules; i++)
        if (m->family->rules[i].role == role)
            return apr_model_find(m, apr_family_name(m->family->rules[i].hf, layer, name, sizeof name));
    return NULL;
}

/* strcmp compares as unsigned bytes, which is the order of the .apr index. */
static int by_name(const void *a, const void *b)
{
    const struct apr_tensor *x = a, *y = b;
    return strcmp(x->name, y->name);
}

static int by_place(const void *a, const void *b)
{
    const struct apr_tensor *x = a, *y = b;
    if (x->off_file != y->off_file) return x->off_file < y->off_file ? -1 : 1;
    return (x->n_bytes > y->n_bytes) - (x->n_bytes < y->n_bytes);
}

enum apr_code apr_model_index(struct apr_model *m, struct apr_err *e)
{
    struct name_index *x = apr_arena_get(&m->arena, sizeof *x);
    if (m->n_tensors) qsort(m->tensors, m->n_tensors, sizeof *m->tensors, m->is_stream ? by_place : by_name);
    x->n_slots = 16;
    while (x->n_slots < 2 * m->n_tensors) x->n_slots *= 2;
    TRY(apr_arena_try(&m->arena, &x->slots, x->n_slots, sizeof *x->slots, "the index of names", e));
    for (uint64_t i = 0; i < m->n_tensors; i++) {
        uint64_t slot = slot_of(x, m->tensors, m->tensors[i].name);
        if (x->slots[slot]) {
            char shown[256];
            return apr_fail(e, APR_EFORMAT, "%s: two tensors are named \"%s\"",
                            apr_src_name(m->files[m->tensors[i].i_file].src),
                            apr_escape(shown, sizeof shown, m->tensors[i].name, strlen(m->tensors[i].name)));
        }
        x->slots[slot] = (uint32_t)i + 1;
    }
    m->index = x;
    return APR_OK;
}

/* ---- data --------------------------------------------------------------------------------------------- */

/* Rows [i_row, i_row + n_rows) of a matrix [n_rows, n_cols] that the file holds as [n_cols, n_rows]. */
static enum apr_code read_turned_rows(struct apr_model *m, const struct apr_tensor *t, uint64_t i_row,
                                      uint64_t n_rows, uint8_t *dst, uint8_t *column, struct apr_err *e)
{
    const uint64_t n_all = t->dims[0], n_cols = t->dims[1];
    const size_t n_each = (size_t)(t->n_bytes / (n_all * n_cols));
    for (uint64_t c = 0; c < n_cols; c++) {
        uint64_t at = t->off_file + (c * n_all + i_row) * n_each;
        TRY(apr_src_pread(m->files[t->i_file].src, at, column, (size_t)n_rows * n_each, t->name, e));
        for (uint64_t r = 0; r < n_rows; r++)
            memcpy(dst + (r * n_cols + c) * n_each, column + r * n_each, n_each);
    }
    return APR_OK;
}

/* Bands of rows, each as large as the buffer lets it be; a band may begin and end within a row. */
static enum apr_code read_turned(struct apr_model *m, const struct apr_tensor *t, uint64_t off, uint8_t *dst,
                                 size_t n, struct apr_err *e)
{
    const uint64_t row_bytes = t->n_bytes / t->dims[0];
    uint64_t band = TURN_BYTES / row_bytes ? TURN_BYTES / row_bytes : 1;
    struct apr_buf b;
    uint8_t *room;
    enum apr_code code;
    apr_buf_init(&b, SIZE_MAX / 2);
    code = apr_buf_reserve(&b, (size_t)(band * row_bytes + band * sizeof(double)), &room, e);
    while (code == APR_OK && n) {
        const uint64_t i_row = off / row_bytes, in = off % row_bytes;
        uint64_t n_rows = (in + n + row_bytes - 1) / row_bytes;
        if (n_rows > band) n_rows = band;
        size_t n_now = (size_t)(n_rows * row_bytes - in);
        if (n_now > n) n_now = n;
        code = read_turned_rows(m, t, i_row, n_rows, room, room + band * row_bytes, e);
        if (code == APR_OK) memcpy(dst, room + in, n_now);
        off += n_now;
        dst += n_now;
        n -= n_now;
    }
    apr_buf_free(&b);
    return code;
}

static enum apr_code read_parts(struct apr_model *m, const struct apr_tensor *t, uint64_t off, uint8_t *dst,
                                size_t n, struct apr_err *e)
{
    const uint64_t part_bytes = t->n_bytes / t->dims[0];
    while (n) {
        const struct apr_tensor_part *p = &t->parts[off / part_bytes];
        const uint64_t in = off % part_bytes;
        const size_t n_now = part_bytes - in < n ? (size_t)(part_bytes - in) : n;
        TRY(apr_src_pread(m->files[p->i_file].src, p->off_file + in, dst, n_now, t->name, e));
        off += n_now;
        dst += n_now;
        n -= n_now;
    }
    return APR_OK;
}

/* The engine wants it in memory as it is used: as large as the tensor. */
static enum apr_code map_turned(struct apr_model *m, struct apr_tensor *t, struct apr_err *e)
{
    uint8_t *data;
    if (t->data) return APR_OK;
    TRY(apr_arena_try(&m->arena, &data, (size_t)t->n_bytes, 1, t->name, e));
    TRY(read_turned(m, t, 0, data, (size_t)t->n_bytes, e));
    t->data = data;
    return APR_OK;
}

static enum apr_code map_parts(struct apr_model *m, struct apr_tensor *t, const uint8_t *const *base,
                               struct apr_err *e)
{
    struct apr_tensor_part *parts;
    if (t->parts[0].data) return APR_OK;
    TRY(apr_arena_try(&m->arena, &parts, (size_t)t->dims[0], sizeof *parts, t->name, e));
    memcpy(parts, t->parts, (size_t)t->dims[0] * sizeof *parts);
    for (uint64_t i = 0; i < t->dims[0]; i++) parts[i].data = base[parts[i].i_file] + parts[i].off_file;
    t->parts = parts;
    return APR_OK;
}

enum apr_code apr_model_map(struct apr_model *m, struct apr_err *e)
{
    const uint8_t **base = apr_arena_get(&m->arena, (m->n_files + 1) * sizeof *base);
    for (uint32_t i = 0; i < m->n_files; i++) TRY(apr_src_map(m->files[i].src, &base[i], e));
    for (uint64_t i = 0; i < m->n_tensors; i++) {
        struct apr_tensor *t = &m->tensors[i];
        if (t->parts)
            TRY(map_parts(m, t, base, e));
        else if (t->is_turned && t->n_bytes)
            TRY(map_turned(m, t, e));
        else
            t->data = base[t->i_file] + t->off_file;
    }
    return APR_OK;
}

void apr_model_forget(const struct apr_model *m, const void *p, size_t n)
{
    for (uint32_t i = 0; i < m->n_files; i++)
        if (m->files[i].src) apr_src_forget(m->files[i].src, p, n);
}

enum apr_code apr_model_read(struct apr_model *m, const struct apr_tensor *t, uint64_t off, void *dst,
                             size_t n, struct apr_err *e)
{
    assert(off <= t->n_bytes && n <= t->n_bytes - off);
    if (t->view) return n ? apr_view_read(m, t, off, dst, n, e) : APR_OK;
    if (m->compute) return m->compute(m, t, off, dst, n, e);
    if (n && t->parts) return read_parts(m, t, off, dst, n, e);
    if (n && t->is_turned) return read_turned(m, t, off, dst, n, e);
    struct apr_src *src = m->files[t->i_file].src;
    uint64_t at = t->off_file + off;
    if (!m->is_stream) return apr_src_pread(src, at, dst, n, t->name, e);
    assert(at >= apr_src_pos(src)); /* a stream is read once, front to back */
    TRY(apr_src_skip(src, at - apr_src_pos(src), t->name, e));
    return apr_src_read(src, dst, n, t->name, e);
}

enum apr_code apr_model_end(struct apr_model *m, struct apr_err *e)
{
    return m->is_stream && m->end_stream ? m->end_stream(m, e) : APR_OK;
}
