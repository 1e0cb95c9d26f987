#include "edit.h"

#include <inttypes.h>
#include <string.h>

#include "hash.h"
#include "io_patch.h"
#include "load.h"

#define COPY_BYTES   ((size_t)4 << 20)
#define FOOTER_BYTES 4u

/* The new beginning before the old data, as a file of zeros between: it must load as the same tensors. */
static enum apr_code check(const struct edit *d, struct apr_arena *a, struct apr_err *e)
{
    struct apr_sparse sparse;
    struct apr_model *m;
    uint64_t n_tail = apr_src_size(d->src) - d->n_old_head;
    size_t n_end =
        n_tail < COPY_BYTES ? (size_t)n_tail : COPY_BYTES; /* holds a trailing section of most files */
    uint8_t *end = apr_arena_get(a, n_end + 1);
    if (d->is_part) return APR_OK;
    TRY(apr_src_pread(d->src, apr_src_size(d->src) - n_end, end, n_end, "the end of the file", e));
    TRY(apr_sparse_open(&sparse, d->head.data, d->head.n_bytes, end, n_end, d->head.n_bytes + n_tail, e));
    enum apr_code code = apr_load_model(sparse.path, APR_LOAD_STREAM | APR_LOAD_LOOK, &m, e);
    if (code == APR_OK) apr_model_close(m);
    if (code != APR_OK)
        apr_err_prefix(e, "%s: with these values the file would not be read any more", d->path);
    apr_sparse_close(&sparse);
    return code;
}

void edit_difference(const uint8_t *a, const uint8_t *b, size_t n, size_t *first, size_t *n_differ)
{
    size_t last = n;
    *first = 0;
    while (*first < n && a[*first] == b[*first]) ++*first;
    while (last > *first && a[last - 1] == b[last - 1]) last--;
    *n_differ = last - *first;
}

static enum apr_code copy(struct edit *d, struct apr_sink *s, uint8_t *piece, struct apr_err *e)
{
    uint64_t end = apr_src_size(d->src) - (d->has_footer ? FOOTER_BYTES : 0);
    if (d->has_footer) apr_sink_crc_begin(s);
    apr_sink_write(s, d->head.data, d->head.n_bytes);
    for (uint64_t off = d->n_old_head; off < end && !apr_sink_failed(s);) {
        size_t n = end - off < COPY_BYTES ? (size_t)(end - off) : COPY_BYTES;
        TRY(apr_src_pread(d->src, off, piece, n, "tensor data", e));
        apr_sink_write(s, piece, n);
        off += n;
    }
    if (d->has_footer) {
        uint32_t crc = apr_sink_crc(s);
        uint8_t foot[FOOTER_BYTES] = {(uint8_t)crc, (uint8_t)(crc >> 8), (uint8_t)(crc >> 16),
                                      (uint8_t)(crc >> 24)};
        apr_sink_write(s, foot, sizeof foot);
    }
    return APR_OK;
}

static enum apr_code rewrite(struct edit *d, struct apr_arena *a, struct apr_err *e)
{
    struct apr_sink *s;
    uint8_t *piece = apr_arena_get(a, COPY_BYTES);
    TRY(apr_sink_open(&s, d->path, true, e));
    enum apr_code code = apr_sink_need(s, d->head.n_bytes + apr_src_size(d->src) - d->n_old_head, e);
    if (code == APR_OK) code = copy(d, s, piece, e);
    if (code != APR_OK) {
        apr_sink_abort(s);
        return code;
    }
    d->n_written_bytes = apr_sink_pos(s);
    d->done = EDIT_REWRITTEN;
    return apr_sink_finish(s, e);
}

static enum apr_code write_new(struct edit *d, struct apr_arena *a, struct apr_err *e)
{
    size_t first, n_differ;
    uint8_t *old;
    TRY(apr_arena_try(a, &old, (size_t)d->n_old_head + 1, 1, "the beginning of the file", e));
    TRY(apr_src_pread(d->src, 0, old, (size_t)d->n_old_head, "the beginning of the file", e));
    if (d->head.n_bytes != d->n_old_head) {
        TRY(check(d, a, e));
        return rewrite(d, a, e);
    }
    edit_difference(old, d->head.data, d->head.n_bytes, &first, &n_differ);
    d->done = EDIT_NOTHING;
    if (n_differ == 0) return APR_OK;
    TRY(check(d, a, e));
    /* A checksum at the end of the file would be a second place to write. */
    if (d->has_footer || !apr_patch_fits(first, n_differ)) return rewrite(d, a, e);
    TRY(apr_patch_block(d->path, first, d->head.data + first, n_differ, e));
    d->done = EDIT_IN_PLACE;
    d->n_written_bytes = n_differ;
    return APR_OK;
}

enum apr_code edit_write(struct edit *d, struct apr_err *e)
{
    struct apr_arena a;
    apr_arena_init(&a);
    enum apr_code code = write_new(d, &a, e);
    apr_arena_free(&a);
    return code;
}
