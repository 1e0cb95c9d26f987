/* Reader of .apr files. See apr.h. */
#include "apr.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "../ckd.h"
#include "../hash.h"
#include "../json.h"
#include "../log.h"
#include "../rd.h"
#include "apr_meta.h"
#include "apr_text.h"
#include "derive.h"
#include "origin.h"
#include "table.h"
#include "writer.h"

#define READ_STEP         ((uint64_t)1 << 20) /* a claimed size is believed this far ahead of the data */
#define TAIL_BASE_BYTES   ((uint64_t)4 << 20) /* what a trailing section may have: sources and the like, */
#define TAIL_TENSOR_BYTES ((uint64_t)2 << 10) /* and a name, escaped, with a hash for each tensor */

struct reader {
    struct apr_model *m;
    struct apr_src *src;
    const char *file;
    uint32_t n_tensors, n_meta;
    uint64_t off_index, off_data;
    uint32_t i_file;
    uint64_t i_first;  /* of the model's tensors, this file's first */
    uint32_t n_shards; /* 1: the file is no shard */
};

/* ---- dtype -------------------------------------------------------------------------------------------- */

/* What an id can mean; the size decides. Ids 2 to 9 are the original's in its own files and GGML's in others
 * (format document, 5). Ids that are not listed are GGML's. */
static const struct {
    uint8_t id;
    enum apr_type types[2];
    uint8_t n_types;
} meanings[] = {
    {2, {APR_BF16, APR_Q4_0}, 2},
    {3, {APR_F64, APR_Q4_1}, 2},
    {4, {APR_I32}, 1},
    {5, {APR_I64}, 1},
    {6, {APR_I8, APR_Q5_0}, 2},
    {7, {APR_U8, APR_Q5_1}, 2},
    {8, {APR_NATIVE_Q4, APR_Q8_0}, 2},
    {9, {APR_NATIVE_Q8, APR_Q8_1}, 2},
};

/* Tries the ways in which rows can meet blocks. */
static bool fits(struct apr_tensor *t, enum apr_type type, uint64_t n_bytes)
{
    static const enum apr_packing packings[] = {APR_ROWS, APR_ROWS_PADDED, APR_FLAT};
    struct apr_err ignored;
    uint64_t n;
    if (!apr_quant_of(type)) return false;
    for (size_t i = 0; i < sizeof packings / sizeof packings[0]; i++) {
        if (apr_tensor_bytes_packed(type, packings[i], t->n_dims, t->dims, &n, &ignored) != APR_OK ||
            n != n_bytes)
            continue;
        t->type = type;
        t->packing = packings[i];
        return true;
    }
    return false;
}

static bool read_dtype(struct apr_tensor *t, uint8_t id, uint64_t n_bytes)
{
    for (size_t i = 0; i < sizeof meanings / sizeof meanings[0]; i++) {
        if (meanings[i].id != id) continue;
        for (uint8_t k = 0; k < meanings[i].n_types; k++)
            if (fits(t, meanings[i].types[k], n_bytes)) return true;
        return false;
    }
    return id != APR_U8 && fits(t, (enum apr_type)id, n_bytes);
}

uint8_t apr_dtype_id(enum apr_type type)
{
    return type == APR_U8 ? 7 : (uint8_t)type;
}

/* ---- header ------------------------------------------------------------------------------------------- */

static enum apr_code check_magic(const struct reader *r, const uint8_t *head, struct apr_err *e)
{
    if (memcmp(head, "APR", 3) != 0) return apr_fail(e, APR_EFORMAT, "%s: byte 0: expected APR", r->file);
    if (head[3] == 'N' || head[3] == '1')
        return apr_fail(e, APR_ELOAD, "%s: byte 3: a version 1 container, expected version 2", r->file);
    if (head[3] != 0 && head[3] != '2')
        return apr_fail(e, APR_EFORMAT, "%s: byte 3: found 0x%02x, expected 0", r->file, head[3]);
    return APR_OK;
}

static enum apr_code check_flags(const struct reader *r, struct apr_err *e)
{
    uint32_t flags = r->m->header.flags;
    const uint8_t *p;
    size_t n;
    if (flags & APR_FLAG_COL_MAJOR)
        return apr_fail(e, APR_EFORMAT, "%s: byte 6: F-LAYOUT-001: column-major data, expected row-major",
                        r->file);
    if (flags & APR_FLAG_ENCRYPTED)
        return apr_fail(e, APR_EUNAVAIL,
                        "%s: byte 6: the file is encrypted (AES-256-GCM), which is not built in", r->file);
    if (flags & APR_FLAG_SIGNED) apr_note("%s: signed; the signature is not checked", r->file);
    if (!(flags & (APR_FLAG_LZ4 | APR_FLAG_ZSTD))) return APR_OK;
    /* The original's writer sets the bit and compresses nothing. (format document, 9) */
    TRY(apr_src_peek(r->src, 1, &p, &n, e));
    if (n && *p == '{') return APR_OK;
    if ((flags & APR_FLAG_LZ4) && (flags & APR_FLAG_ZSTD))
        return apr_fail(e, APR_EFORMAT, "%s: byte 6: flags of LZ4 and of ZSTD, expected one of them",
                        r->file);
    return apr_src_unpack(r->src, flags & APR_FLAG_LZ4 ? APR_PACK_LZ4 : APR_PACK_ZSTD, e);
}

static enum apr_code check_crc(const struct reader *r, const uint8_t *head, struct apr_err *e)
{
    uint32_t crc = apr_crc32(0, head, APR_OFF_CRC);
    crc = apr_crc32(crc, head + APR_OFF_RESERVED, APR_HEADER_BYTES - APR_OFF_RESERVED);
    if (crc == r->m->header.checksum) return APR_OK;
    return apr_fail(e, APR_EFORMAT, "%s: byte %d: header checksum %08" PRIx32 ", expected %08" PRIx32,
                    r->file, APR_OFF_CRC, r->m->header.checksum, crc);
}

/* The sections follow each other, each padded to 64. */
static enum apr_code check_places(const struct reader *r, uint64_t off_meta, struct apr_err *e)
{
    if (off_meta != APR_HEADER_BYTES)
        return apr_fail(e, APR_EFORMAT, "%s: byte %d: metadata at %" PRIu64 ", expected %u", r->file,
                        APR_OFF_META_AT, off_meta, APR_HEADER_BYTES);
    if (r->n_meta > APR_MAX_META_BYTES)
        return apr_fail(e, APR_ELOAD, "%s: byte %d: %" PRIu32 " bytes of metadata, expected at most %u",
                        r->file, APR_OFF_META_BYTES, r->n_meta, APR_MAX_META_BYTES);
    if (r->off_index != APR_HEADER_BYTES + apr_align64(r->n_meta))
        return apr_fail(e, APR_EFORMAT, "%s: byte %d: index at %" PRIu64 ", expected %" PRIu64, r->file,
                        APR_OFF_INDEX_AT, r->off_index, APR_HEADER_BYTES + apr_align64(r->n_meta));
    if (r->n_tensors > APR_MAX_TENSORS)
        return apr_fail(e, APR_EFORMAT, "%s: byte %d: %" PRIu32 " tensors, expected at most %u", r->file,
                        APR_OFF_N_TENSORS, r->n_tensors, APR_MAX_TENSORS);
    if (r->off_data < r->off_index || r->off_data % APR_ALIGNMENT ||
        (r->off_data - r->off_index) / APR_INDEX_MIN < r->n_tensors ||
        r->off_data - r->off_index > (uint64_t)APR_MAX_TENSORS * 512)
        return apr_fail(e, APR_EFORMAT,
                        "%s: byte %d: data at %" PRIu64 ", which does not suit an index of %" PRIu32
                        " tensors at %" PRIu64,
                        r->file, APR_OFF_DATA_AT, r->off_data, r->n_tensors, r->off_index);
    if (apr_src_seekable(r->src) && r->off_data > apr_src_size(r->src))
        return apr_fail(e, APR_EFORMAT,
                        "%s: the file ends at byte %" PRIu64 ", its data should begin at %" PRIu64, r->file,
                        apr_src_size(r->src), r->off_data);
    return APR_OK;
}

static enum apr_code read_header(struct reader *r, struct apr_err *e)
{
    uint8_t head[APR_HEADER_BYTES], major, minor;
    uint16_t flags;
    uint64_t off_meta;
    struct apr_header *h = &r->m->header;
    struct apr_rd rd;
    TRY(apr_src_read(r->src, head, sizeof head, "header", e));
    TRY(check_magic(r, head, e));
    apr_rd_mem(&rd, head + APR_OFF_MAJOR, sizeof head - APR_OFF_MAJOR, APR_OFF_MAJOR, r->file);
    TRY(apr_rd_u8(&rd, &major, "version", e));
    TRY(apr_rd_u8(&rd, &minor, "version", e));
    TRY(apr_rd_u16(&rd, &flags, "flags", e));
    TRY(apr_rd_u32(&rd, &r->n_tensors, "tensor count", e));
    TRY(apr_rd_u64(&rd, &off_meta, "metadata offset", e));
    TRY(apr_rd_u32(&rd, &r->n_meta, "metadata size", e));
    TRY(apr_rd_u64(&rd, &r->off_index, "index offset", e));
    TRY(apr_rd_u64(&rd, &r->off_data, "data offset", e));
    TRY(apr_rd_u32(&rd, &h->checksum, "header checksum", e));
    TRY(check_crc(r, head, e));
    TRY(apr_rd_zeros(&rd, APR_HEADER_BYTES - APR_OFF_RESERVED, "reserved bytes", e));
    if (major != APR_MAJOR)
        return apr_fail(e, APR_ELOAD, "%s: byte %d: version %u.%u, expected %u", r->file, APR_OFF_MAJOR,
                        major, minor, APR_MAJOR);
    *h = (struct apr_header){.version = major,
                             .version_minor = minor,
                             .flags = flags,
                             .checksum = h->checksum,
                             .alignment = APR_ALIGNMENT,
                             .off_data = r->off_data,
                             .n_head_bytes = r->off_data};
    TRY(check_flags(r, e));
    return check_places(r, off_meta, e);
}

/* ---- blocks of bytes ---------------------------------------------------------------------------------- */

/* n bytes into the arena, with a NUL behind. The memory grows with the bytes that really come. */
static enum apr_code read_block(struct reader *r, uint64_t n, const char *what, char **out, struct apr_err *e)
{
    struct apr_buf b;
    enum apr_code code = APR_OK;
    uint8_t *at;
    if (apr_src_seekable(r->src) && !apr_src_packed(r->src)) {
        TRY(apr_arena_try(&r->m->arena, out, (size_t)n + 1, 1, what, e));
        return apr_src_read(r->src, *out, (size_t)n, what, e);
    }
    apr_buf_init(&b, SIZE_MAX / 2);
    while (code == APR_OK && b.n_bytes < n) {
        uint64_t n_now = n - b.n_bytes < READ_STEP ? n - b.n_bytes : READ_STEP;
        code = apr_buf_reserve(&b, (size_t)n_now, &at, e);
        if (code == APR_OK) code = apr_src_read(r->src, at, (size_t)n_now, what, e);
        if (code == APR_OK) apr_buf_commit(&b, (size_t)n_now);
    }
    if (code == APR_OK) code = apr_arena_try(&r->m->arena, out, (size_t)n + 1, 1, what, e);
    if (code == APR_OK && n) memcpy(*out, b.data, (size_t)n);
    apr_buf_free(&b);
    return code;
}

static enum apr_code check_zeros(const struct reader *r, const char *p, uint64_t n, uint64_t off,
                                 const char *what, struct apr_err *e)
{
    struct apr_rd rd;
    apr_rd_mem(&rd, p, n, off, r->file);
    return apr_rd_zeros(&rd, n, what, e);
}

/* ---- metadata ----------------------------------------------------------------------------------------- */

static enum apr_code take_arrays(struct apr_model *m, const struct apr_text *t, const char *file,
                                 struct apr_err *e)
{
    struct apr_vocab *v = &m->vocab;
    if (t->n_toks > INT32_MAX) return apr_fail(e, APR_ELOAD, "%s: %" PRIu64 " tokens", file, t->n_toks);
    if ((t->types && t->n_types != t->n_toks) || (t->scores && t->n_scores != t->n_toks))
        return apr_fail(e, APR_EFORMAT,
                        "%s: metadata: %" PRIu64 " tokens, %" PRIu64 " types, %" PRIu64
                        " scores, expected as many of each",
                        file, t->n_toks, t->n_types, t->n_scores);
    v->toks = t->toks;
    v->n_toks = (uint32_t)t->n_toks;
    v->types = t->types;
    v->scores = t->scores;
    v->merges = t->merges;
    v->n_merges = t->n_merges;
    return APR_OK;
}

/* What a shard says about its place: {"shard_count", "shard_index"}, the index from 0. */
static enum apr_code check_sharding(const struct reader *r, const json_t *meta, struct apr_err *e)
{
    const json_t *sharding = json_object_get(meta, "sharding");
    uint64_t n = 1, i = r->i_file;
    TRY(apr_json_u64(sharding, "shard_count", 1, APR_MAX_SHARDS, &n, r->file, e));
    TRY(apr_json_u64(sharding, "shard_index", 0, APR_MAX_SHARDS, &i, r->file, e));
    if (n == r->n_shards && i == r->i_file) return APR_OK;
    return apr_fail(e, APR_EFORMAT,
                    "%s: says that it is shard %" PRIu64 " of %" PRIu64 " (from 0), expected %" PRIu32
                    " of %" PRIu32 "; shards are named PREFIX-00001-of-0000N.apr",
                    r->file, i, n, r->i_file, r->n_shards);
}

static enum apr_code read_metadata(struct reader *r, struct apr_err *e)
{
    uint64_t n_padded = apr_align64(r->n_meta);
    struct apr_text cut;
    char *text;
    TRY(read_block(r, n_padded, "metadata", &text, e));
    TRY(check_zeros(r, text + r->n_meta, n_padded - r->n_meta, APR_HEADER_BYTES + r->n_meta,
                    "padding of the metadata", e));
    text[r->n_meta] = '\0';
    TRY(apr_text_cut(text, r->n_meta, APR_HEADER_BYTES, r->file, &r->m->arena, &cut, e));
    if (r->i_file) {
        enum apr_code code = check_sharding(r, cut.root, e); /* the first shard's documents count */
        json_decref(cut.root);
        return code;
    }
    r->m->apr_meta = cut.root;
    TRY(check_sharding(r, cut.root, e));
    if (cut.has_duplicates && json_object_get(cut.root, "apr"))
        return apr_fail(e, APR_EFORMAT, "%s: byte %u: metadata: a key occurs twice", r->file,
                        APR_HEADER_BYTES);
    return take_arrays(r->m, &cut, r->file, e);
}

/* ---- index -------------------------------------------------------------------------------------------- */

static enum apr_code read_entry(struct reader *r, struct apr_rd *rd, const char *previous,
                                const char **name_out, struct apr_err *e)
{
    struct apr_tensor *t;
    const uint8_t *name;
    uint64_t off_entry = apr_rd_off(rd), off;
    uint16_t n_name;
    uint8_t id, n_dims;
    char shown[256];
    TRY(apr_model_add_tensor(r->m, &t, e));
    t->i_file = r->i_file;
    TRY(apr_rd_u16(rd, &n_name, "name length", e));
    TRY(apr_rd_bytes(rd, n_name, &name, "tensor name", e));
    if (n_name == 0 || n_name > APR_MAX_NAME_BYTES || memchr(name, 0, n_name))
        return apr_fail(e, APR_EFORMAT,
                        "%s: byte %" PRIu64 ": a tensor name of %u bytes, expected 1 to %u without NUL",
                        r->file, off_entry, n_name, APR_MAX_NAME_BYTES);
    *name_out = t->name = apr_arena_strndup(&r->m->arena, (const char *)name, n_name);
    apr_escape(shown, sizeof shown, t->name, n_name);
    if (previous && strcmp(previous, t->name) > 0)
        return apr_fail(e, APR_EFORMAT, "%s: byte %" PRIu64 ": tensor \"%s\": the index is not sorted",
                        r->file, off_entry, shown);
    TRY(apr_rd_u8(rd, &id, "dtype", e));
    TRY(apr_rd_u8(rd, &n_dims, "n_dims", e));
    if (n_dims > APR_MAX_DIMS)
        return apr_fail(e, APR_EFORMAT,
                        "%s: byte %" PRIu64 ": tensor \"%s\": %u dimensions, expected at most %d", r->file,
                        off_entry, shown, n_dims, APR_MAX_DIMS);
    t->n_dims = n_dims;
    for (uint32_t i = 0; i < n_dims; i++) TRY(apr_rd_u64(rd, &t->dims[i], "dimension", e));
    TRY(apr_rd_u64(rd, &off, "tensor offset", e));
    TRY(apr_rd_u64(rd, &t->n_bytes, "tensor size", e));
    if (!read_dtype(t, id, t->n_bytes))
        return apr_fail(e, APR_EFORMAT,
                        "%s: byte %" PRIu64 ": tensor \"%s\": dtype %u, shape %s and %" PRIu64
                        " bytes do not go together",
                        r->file, off_entry, shown, id, apr_tensor_shape(t, (char[256]){0}, 256), t->n_bytes);
    if (off % APR_ALIGNMENT || ckd_add(&t->off_file, off, r->off_data))
        return apr_fail(e, APR_EFORMAT,
                        "%s: byte %" PRIu64 ": tensor \"%s\": offset %" PRIu64 ", expected a multiple of %u",
                        r->file, off_entry, shown, off, APR_ALIGNMENT);
    return APR_OK;
}

static enum apr_code read_index(struct reader *r, struct apr_err *e)
{
    uint64_t n = r->off_data - r->off_index;
    const char *previous = NULL;
    struct apr_rd rd;
    char *bytes;
    TRY(read_block(r, n, "tensor index", &bytes, e));
    apr_rd_mem(&rd, bytes, n, r->off_index, r->file);
    for (uint32_t i = 0; i < r->n_tensors; i++) TRY(read_entry(r, &rd, previous, &previous, e));
    if (apr_rd_left(&rd) >= APR_ALIGNMENT)
        return apr_fail(e, APR_EFORMAT, "%s: byte %" PRIu64 ": %" PRIu64 " bytes between index and data",
                        r->file, apr_rd_off(&rd), apr_rd_left(&rd));
    return apr_rd_zeros(&rd, apr_rd_left(&rd), "padding of the index", e);
}

/* A tensor's place, to be sorted. */
struct place {
    uint64_t off, n_bytes;
    const char *name;
};

static int by_place(const void *a, const void *b)
{
    const struct place *x = a, *y = b;
    if (x->off != y->off) return x->off < y->off ? -1 : 1;
    return (x->n_bytes > y->n_bytes) - (x->n_bytes < y->n_bytes);
}

/* Sorted by offset, the tensors follow each other, each padded to 64: no overlap, no gap. The index order
 * need not be the data order (the original's streaming writer). */
static enum apr_code check_tiling(struct reader *r, struct apr_err *e)
{
    struct apr_model *m = r->m;
    struct place *places;
    uint64_t at = r->off_data, least = r->off_data;
    char shown[256];
    uint64_t n = m->n_tensors - r->i_first;
    TRY(apr_arena_try(&m->arena, &places, (size_t)n + 1, sizeof *places, "tensors by offset", e));
    for (uint64_t i = 0; i < n; i++) {
        const struct apr_tensor *t = &m->tensors[r->i_first + i];
        places[i] = (struct place){t->off_file, t->n_bytes, t->name};
    }
    qsort(places, n, sizeof *places, by_place);
    for (uint64_t i = 0; i < n; i++) {
        apr_escape(shown, sizeof shown, places[i].name, strlen(places[i].name));
        if (places[i].off != at)
            return apr_fail(e, APR_EFORMAT, "%s: tensor \"%s\": data at byte %" PRIu64 ", expected %" PRIu64,
                            r->file, shown, places[i].off, at);
        if (ckd_add(&at, at, places[i].n_bytes) || at > INT64_MAX)
            return apr_fail(e, APR_EFORMAT, "%s: tensor \"%s\": offset and size overflow", r->file, shown);
        least = at;
        at = apr_align64(at);
    }
    m->header.n_data_bytes = at - r->off_data;
    /* A set has no trailing section that would be looked for: its shards end where their data ends. */
    if (r->n_shards > 1 && apr_src_size(r->src) < least)
        return apr_fail(e, APR_EFORMAT, "%s: ends at byte %" PRIu64 ", its tensors at %" PRIu64, r->file,
                        apr_src_size(r->src), least);
    return APR_OK;
}

/* ---- file --------------------------------------------------------------------------------------------- */

/* Compressed content ends where the index says, and what may follow. */
static enum apr_code bound_content(struct reader *r, struct apr_err *e)
{
    const struct apr_model *m = r->m;
    uint64_t n_tail = TAIL_BASE_BYTES + m->n_tensors * TAIL_TENSOR_BYTES;
    if (!apr_src_packed(r->src)) return APR_OK;
    return apr_src_bound(r->src, r->off_data + m->header.n_data_bytes + n_tail, e);
}

/* One file: its header and index, and the metadata of the first. */
static enum apr_code read_file(struct reader *r, struct apr_err *e)
{
    r->src = r->m->files[r->i_file].src;
    r->file = apr_src_name(r->src);
    r->i_first = r->m->n_tensors;
    TRY(read_header(r, e));
    TRY(read_metadata(r, e));
    TRY(read_index(r, e));
    TRY(check_tiling(r, e));
    return bound_content(r, e);
}

/* The other shards; sizes add up, the header stays the first's. */
static enum apr_code read_shards(struct reader *r, struct apr_err *e)
{
    struct apr_header first = r->m->header, *h = &r->m->header;
    for (uint32_t i = 1; i < r->n_shards; i++) {
        struct reader shard = {.m = r->m, .i_file = i, .n_shards = r->n_shards};
        TRY(read_file(&shard, e));
        first.n_head_bytes += h->n_head_bytes;
        first.n_data_bytes += h->n_data_bytes;
    }
    *h = first;
    return APR_OK;
}

static enum apr_code read_all(struct reader *r, const char *path, struct apr_err *e)
{
    struct apr_model *m = r->m;
    const char *name = NULL;
    TRY(read_file(r, e));
    TRY(read_shards(r, e));
    m->vocab_only = m->n_tensors == 0;
    if (!m->is_stream && r->n_shards == 1) TRY(apr_tail_read(m, e));
    TRY(apr_json_str(m->apr_meta, "name", &name, r->file, e));
    if (name && *name)
        m->name = apr_arena_strdup(&m->arena, name);
    else
        apr_origin_name(m, path);
    TRY(apr_model_index(m, e));
    TRY(apr_meta_read(m, r->file, e));
    TRY(apr_derive_config(m, e));
    return apr_derive_generation(m, e);
}

static enum apr_code open_file(struct apr_src *src, const char *path, struct apr_model *m, struct apr_err *e)
{
    struct reader r = {.m = m, .n_shards = 1};
    TRY(apr_set_open(m, src, path, &r.n_shards, e));
    m->is_stream = !apr_src_seekable(src);
    m->end_stream = apr_tail_stream;
    if (m->is_stream) apr_src_crc_begin(src);
    return read_all(&r, path, e);
}

static bool probe(const uint8_t *head, size_t n)
{
    return n >= 4 && memcmp(head, "APR", 3) == 0 &&
           (head[3] == 0 || head[3] == '1' || head[3] == '2' || head[3] == 'N');
}

const struct apr_fmt apr_fmt_apr = {
    .name = "apr",
    .aliases = "",
    .title = "APR",
    .probe = probe,
    .open = open_file,
    .verify = apr_tail_verify,
    .alignment = APR_ALIGNMENT,
    .holds = apr_apr_holds,
    .begin = apr_apr_begin,
    .data = apr_writer_data,
    .end = apr_apr_end,
    .abort = apr_writer_free,
    .measure = apr_apr_measure,
};
