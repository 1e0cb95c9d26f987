/* Reader of GGUF. See gguf.h. */
#include "gguf.h"

#include <inttypes.h>
#include <string.h>

#include "../ckd.h"
#include "derive.h"
#include "gguf_value.h"
#include "origin.h"
#include "table.h"
#include "writer.h"

#define KEY_MAX_BYTES  65535u
#define KV_MIN_BYTES   14u /* u64 length, one byte of key, u32 type, one byte of value */
#define INFO_MIN_BYTES 25u /* u64 length, one byte of name, u32 dimensions, u32 type, u64 offset */
#define FIRST_OWN_TYPE 128u

struct reader {
    struct apr_model *m;
    struct apr_gguf_in in;
    uint64_t n_tensors, n_kv;
    struct apr_gguf_part *part;
    struct apr_kvs *kvs; /* the part's */
    uint64_t i_first;    /* of the model's tensors, the part's first */
    uint32_t alignment;
};

/* ---- keys --------------------------------------------------------------------------------------------- */

static struct apr_kv *vocab_slot(struct reader *r, const char *key)
{
    if (strcmp(key, "tokenizer.ggml.tokens") == 0) return &r->part->arrays.tokens;
    if (strcmp(key, "tokenizer.ggml.token_type") == 0) return &r->part->arrays.types;
    if (strcmp(key, "tokenizer.ggml.scores") == 0) return &r->part->arrays.scores;
    if (strcmp(key, "tokenizer.ggml.merges") == 0) return &r->part->arrays.merges;
    return NULL;
}

static enum apr_code read_kv(struct reader *r, struct apr_err *e)
{
    struct apr_kv kv = {0}, *slot;
    uint64_t off = apr_rd_off(&r->in.rd);
    uint32_t type;
    char shown[256];
    TRY(apr_gguf_name(&r->in, KEY_MAX_BYTES, "key", &kv.key, e));
    slot = vocab_slot(r, kv.key.p);
    if (apr_kvs_find(r->kvs, kv.key.p) || (slot && slot->type == APR_KV_ARRAY))
        return apr_fail(e, APR_EFORMAT, "%s: byte %" PRIu64 ": key %s occurs twice", r->in.file, off,
                        apr_escape(shown, sizeof shown, kv.key.p, kv.key.n_bytes));
    TRY(apr_rd_u32(&r->in.rd, &type, "value type", e));
    if (type >= APR_KV_N_TYPES)
        return apr_fail(e, APR_EFORMAT,
                        "%s: byte %" PRIu64 ": key %s: value type %" PRIu32 ", expected 0 to 12", r->in.file,
                        apr_rd_off(&r->in.rd) - 4, apr_escape(shown, sizeof shown, kv.key.p, kv.key.n_bytes),
                        type);
    kv.type = (enum apr_kv_type)type;
    if (slot && kv.type != APR_KV_ARRAY)
        return apr_fail(e, APR_EFORMAT, "%s: byte %" PRIu64 ": key %s: expected an array", r->in.file, off,
                        kv.key.p);
    TRY(apr_gguf_value(&r->in, &kv, e));
    if (slot) {
        *slot = kv;
        return APR_OK;
    }
    struct apr_kv added = kv;
    if (kv.type == APR_KV_ARRAY)
        added.v.a.n = 0; /* the elements are in the arena already: hung in, not copied */
    apr_kvs_add(r->kvs, &added);
    if (kv.type == APR_KV_ARRAY) r->kvs->at[r->kvs->n - 1].v = kv.v;
    return APR_OK;
}

static enum apr_code read_alignment(struct reader *r, struct apr_err *e)
{
    const struct apr_kv *kv = apr_kvs_find(r->kvs, "general.alignment");
    r->alignment = APR_GGUF_ALIGNMENT;
    if (!kv) return APR_OK;
    if (kv->type != APR_KV_U32 || kv->v.u == 0 || kv->v.u > APR_MAX_ALIGNMENT || (kv->v.u & (kv->v.u - 1)))
        return apr_fail(e, APR_EFORMAT,
                        "%s: general.alignment: %s %" PRIu64 ", expected a u32, a power of two, at most %u",
                        r->in.file, apr_kv_type_name(kv->type), kv->type == APR_KV_U32 ? kv->v.u : 0,
                        APR_MAX_ALIGNMENT);
    r->alignment = (uint32_t)kv->v.u;
    return APR_OK;
}

static enum apr_code read_split(struct reader *r, struct apr_err *e)
{
    struct apr_gguf_part *p = r->part;
    TRY(apr_kv_get_u64(r->kvs, "split.no", 0, UINT16_MAX, &p->no, r->in.file, e));
    TRY(apr_kv_get_u64(r->kvs, "split.count", 0, UINT16_MAX, &p->n_parts, r->in.file, e));
    return apr_kv_get_u64(r->kvs, "split.tensors.count", 0, APR_MAX_TENSORS, &p->n_total, r->in.file, e);
}

/* ---- tensors ------------------------------------------------------------------------------------------ */

static enum apr_code read_dims(struct reader *r, struct apr_tensor *t, struct apr_err *e)
{
    uint32_t n_dims;
    uint64_t off = apr_rd_off(&r->in.rd);
    TRY(apr_rd_u32(&r->in.rd, &n_dims, "n_dims", e));
    if (n_dims > APR_GGUF_MAX_DIMS)
        return apr_fail(e, APR_EFORMAT, "%s: byte %" PRIu64 ": %" PRIu32 " dimensions, expected at most %u",
                        r->in.file, off, n_dims, APR_GGUF_MAX_DIMS);
    t->n_dims = n_dims;
    for (uint32_t i = 0; i < n_dims; i++)
        TRY(apr_rd_u64(&r->in.rd, &t->dims[n_dims - 1 - i], "dimension", e));
    return APR_OK;
}

/* *off_next: where the tensor must begin, relative to the data; moved past it and its padding. */
static enum apr_code read_info(struct reader *r, uint64_t *off_next, struct apr_err *e)
{
    struct apr_tensor *t;
    struct apr_str name;
    uint32_t type, alignment = r->alignment;
    uint64_t off_info = apr_rd_off(&r->in.rd), off, end, over;
    char shown[256];
    enum apr_code code;
    TRY(apr_model_add_tensor(r->m, &t, e));
    TRY(apr_gguf_name(&r->in, APR_GGUF_NAME_BYTES, "tensor name", &name, e));
    t->name = name.p;
    t->i_file = r->part->i_file;
    apr_escape(shown, sizeof shown, name.p, name.n_bytes);
    TRY(read_dims(r, t, e));
    TRY(apr_rd_u32(&r->in.rd, &type, "tensor type", e));
    TRY(apr_rd_u64(&r->in.rd, &off, "tensor offset", e));
    if (type >= FIRST_OWN_TYPE || !apr_quant_of(type))
        return apr_fail(e, APR_EFORMAT,
                        "%s: byte %" PRIu64 ": tensor \"%s\": type %" PRIu32 " is not one of GGML's",
                        r->in.file, off_info, shown, type);
    t->type = (enum apr_type)type;
    code = apr_tensor_bytes(t->type, t->n_dims, t->dims, &t->n_bytes, e);
    if (code != APR_OK) {
        apr_err_prefix(e, "%s: byte %" PRIu64 ": tensor \"%s\"", r->in.file, off_info, shown);
        return code;
    }
    if (off != *off_next)
        return apr_fail(e, APR_EFORMAT,
                        "%s: byte %" PRIu64 ": tensor \"%s\": data offset %" PRIu64 ", expected %" PRIu64,
                        r->in.file, off_info, shown, off, *off_next);
    t->off_file = off;
    over = ckd_add(&end, off, t->n_bytes) || end > UINT64_MAX - APR_MAX_ALIGNMENT;
    if (over)
        return apr_fail(e, APR_EFORMAT, "%s: byte %" PRIu64 ": tensor \"%s\": offset and size overflow",
                        r->in.file, off_info, shown);
    *off_next = (end + alignment - 1) / alignment * alignment;
    return APR_OK;
}

static const char *hf_name(const struct apr_model *m, const char *gguf_name, char *out, size_t n_out)
{
    uint32_t layer;
    const struct apr_tensor_rule *rule =
        m->family ? apr_family_rule_gguf(m->family, gguf_name, &layer) : NULL;
    return rule ? apr_family_name(rule->hf, layer, out, n_out) : NULL;
}

static void rename_tensors(struct apr_model *m)
{
    char out[APR_MAX_NAME_BYTES];
    m->family = apr_family_of_kvs(&m->kvs);
    for (uint64_t i = 0; i < m->n_tensors; i++) {
        const char *name = hf_name(m, m->tensors[i].name, out, sizeof out);
        if (name) m->tensors[i].name = apr_arena_strdup(&m->arena, name);
    }
}

/* The end of the file: at the end of the last tensor or of its padding. n_data: padded. */
static enum apr_code check_size(const struct reader *r, uint64_t off_data, uint64_t n_data, struct apr_err *e)
{
    const struct apr_model *m = r->m;
    uint64_t size = apr_src_size(m->files[r->part->i_file].src), end, least;
    const struct apr_tensor *last = r->n_tensors ? &m->tensors[m->n_tensors - 1] : NULL;
    if (ckd_add(&end, off_data, n_data))
        return apr_fail(e, APR_EFORMAT, "%s: %" PRIu64 " bytes of data overflow", r->in.file, n_data);
    least = last ? last->off_file + last->n_bytes : apr_rd_off(&r->in.rd);
    if (m->is_stream) return APR_OK;
    if (size < least)
        return apr_fail(e, APR_EFORMAT, "%s: the file ends at byte %" PRIu64 ", its tensors at %" PRIu64,
                        r->in.file, size, least);
    if (size > end)
        return apr_fail(e, APR_EFORMAT, "%s: byte %" PRIu64 ": %" PRIu64 " bytes after the last tensor",
                        r->in.file, end, size - end);
    return APR_OK;
}

static enum apr_code read_tensors(struct reader *r, struct apr_err *e)
{
    struct apr_model *m = r->m;
    uint64_t off_next = 0, off, n_pad;
    r->i_first = m->n_tensors;
    for (uint64_t i = 0; i < r->n_tensors; i++) TRY(read_info(r, &off_next, e));
    off = apr_rd_off(&r->in.rd);
    n_pad = (r->alignment - off % r->alignment) % r->alignment;
    if (r->n_tensors) TRY(apr_rd_zeros(&r->in.rd, n_pad, "padding before the data", e));
    if (r->part->i_file == 0) m->header.off_data = off + n_pad;
    if (r->part->i_file == 0) m->header.alignment = r->alignment;
    m->header.n_head_bytes += off + n_pad;
    m->header.n_data_bytes += off_next;
    for (uint64_t i = r->i_first; i < m->n_tensors; i++)
        if (ckd_add(&m->tensors[i].off_file, m->tensors[i].off_file, off + n_pad))
            return apr_fail(e, APR_EFORMAT, "%s: tensor offsets overflow", r->in.file);
    return check_size(r, off + n_pad, off_next, e);
}

/* ---- file --------------------------------------------------------------------------------------------- */

static enum apr_code read_head(struct reader *r, struct apr_err *e)
{
    const uint8_t *magic;
    uint32_t version;
    TRY(apr_rd_bytes(&r->in.rd, 4, &magic, "magic", e));
    if (memcmp(magic, "GGUF", 4) != 0)
        return apr_fail(e, APR_EFORMAT, "%s: byte 0: expected GGUF", r->in.file);
    TRY(apr_rd_u32(&r->in.rd, &version, "version", e));
    if (version && (version & 0xffff) == 0)
        return apr_fail(e, APR_ELOAD,
                        "%s: byte 4: version %" PRIu32 ": a big-endian GGUF, expected little-endian",
                        r->in.file, version);
    if (version < 2 || version > 3)
        return apr_fail(e, APR_ELOAD, "%s: byte 4: GGUF version %" PRIu32 ", expected 2 or 3", r->in.file,
                        version);
    r->m->header.version = version;
    TRY(apr_rd_u64(&r->in.rd, &r->n_tensors, "tensor count", e));
    TRY(apr_rd_u64(&r->in.rd, &r->n_kv, "key count", e));
    if (r->n_tensors > APR_MAX_TENSORS)
        return apr_fail(e, APR_EFORMAT, "%s: byte 8: %" PRIu64 " tensors, expected at most %u", r->in.file,
                        r->n_tensors, APR_MAX_TENSORS);
    if (r->n_kv > APR_MAX_KVS)
        return apr_fail(e, APR_EFORMAT, "%s: byte 16: %" PRIu64 " keys, expected at most %u", r->in.file,
                        r->n_kv, APR_MAX_KVS);
    TRY(apr_rd_room(&r->in.rd, r->n_kv, KV_MIN_BYTES, "key count", e));
    return apr_rd_room(&r->in.rd, r->n_tensors, INFO_MIN_BYTES, "tensor count", e);
}

static enum apr_code read_part(struct reader *r, struct apr_err *e)
{
    TRY(read_head(r, e));
    for (uint64_t i = 0; i < r->n_kv; i++) TRY(read_kv(r, e));
    TRY(read_alignment(r, e));
    TRY(read_split(r, e));
    return r->part->keys_only ? APR_OK : read_tensors(r, e);
}

enum apr_code apr_gguf_read_part(struct apr_model *m, struct apr_gguf_part *part, struct apr_err *e)
{
    struct apr_src *src = m->files[part->i_file].src;
    struct reader r = {
        .m = m, .in = {.arena = &m->arena, .file = apr_src_name(src)}, .part = part, .kvs = part->kvs};
    const uint8_t *base;
    if (m->is_stream) {
        apr_rd_src(&r.in.rd, src, APR_MAX_META_BYTES);
    } else {
        TRY(apr_src_map(src, &base, e));
        apr_rd_mem(&r.in.rd, base, apr_src_size(src), 0, r.in.file);
    }
    enum apr_code code = read_part(&r, e);
    apr_rd_close(&r.in.rd);
    return code;
}

static enum apr_code end_stream(struct apr_model *m, struct apr_err *e)
{
    struct apr_src *src = m->files[0].src;
    uint64_t end = m->header.off_data + m->header.n_data_bytes, last = m->header.off_data;
    const uint8_t *p;
    size_t n_got;
    if (m->vocab_only) last = apr_src_pos(src);
    if (m->n_tensors) last = m->tensors[m->n_tensors - 1].off_file + m->tensors[m->n_tensors - 1].n_bytes;
    if (last > apr_src_pos(src)) TRY(apr_src_skip(src, last - apr_src_pos(src), "tensor data", e));
    TRY(apr_src_peek(src, APR_MAX_ALIGNMENT, &p, &n_got, e)); /* the padding may be missing at the very end */
    if (n_got > end - last)
        return apr_fail(e, APR_EFORMAT, "%s: byte %" PRIu64 ": bytes after the last tensor",
                        apr_src_name(src), end);
    return APR_OK;
}

static enum apr_code open_one(struct apr_src *src, const char *path, struct apr_model *m,
                              struct apr_gguf_arrays *arrays, struct apr_err *e)
{
    struct apr_gguf_part part = {.kvs = &m->kvs};
    TRY(apr_model_add_files(m, 1, e));
    apr_origin_file(m, 0, src, path);
    TRY(apr_gguf_read_part(m, &part, e));
    *arrays = part.arrays;
    if (part.n_parts <= 1) return APR_OK;
    if (m->is_stream)
        return apr_fail(e, APR_EFORMAT,
                        "%s: part %" PRIu64 " of a split GGUF of %" PRIu64 "; name a file instead of a pipe",
                        apr_src_name(src), part.no + 1, part.n_parts);
    return apr_fail(e, APR_EFORMAT,
                    "%s: part %" PRIu64 " of %" PRIu64 " of a split GGUF; its name, expected to end in "
                    "-%05" PRIu64 "-of-%05" PRIu64 ".gguf, does not tell where the others are",
                    apr_src_name(src), part.no + 1, part.n_parts, part.no + 1, part.n_parts);
}

static enum apr_code open_file(struct apr_src *src, const char *path, struct apr_model *m, struct apr_err *e)
{
    const char *name = NULL;
    struct apr_gguf_arrays arrays = {0};
    bool is_set = false;
    m->is_stream = !apr_src_seekable(src);
    m->end_stream = end_stream;
    if (!m->is_stream) TRY(apr_gguf_read_set(m, src, path, &arrays, &is_set, e));
    if (!is_set) TRY(open_one(src, path, m, &arrays, e));
    m->has_kvs = true;
    m->vocab_only = m->n_tensors == 0;
    rename_tensors(m);
    TRY(apr_model_index(m, e));
    TRY(apr_gguf_vocab(m, &arrays, apr_src_name(src), e));
    TRY(apr_derive_config(m, e));
    TRY(apr_derive_generation(m, e));
    TRY(apr_kv_get_str(&m->kvs, "general.name", &name, apr_src_name(src), e));
    if (name && *name)
        m->name = name;
    else
        apr_origin_name(m, path);
    return APR_OK;
}

static bool probe(const uint8_t *head, size_t n)
{
    return n >= 4 && memcmp(head, "GGUF", 4) == 0;
}

const struct apr_fmt apr_fmt_gguf = {
    .name = "gguf",
    .aliases = "",
    .title = "GGUF",
    .probe = probe,
    .open = open_file,
    .alignment = APR_GGUF_ALIGNMENT,
    .target = APR_TO_GGUF,
    .gguf_rules = true,
    .holds = apr_gguf_holds,
    .begin = apr_gguf_begin,
    .data = apr_writer_data,
    .end = apr_gguf_end,
    .abort = apr_writer_free,
    .measure = apr_gguf_measure,
};
