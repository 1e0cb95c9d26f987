/* Reading of views. See view.h. */
#include "view.h"

#include <inttypes.h>
#include <string.h>

/* The unit made last, and a shared source that a stream delivered. */
struct apr_view_cache {
    const struct apr_view *view;
    uint64_t i_unit;
    struct apr_buf in[2], out; /* owned by apr_view_close */
    const struct apr_tensor *kept;
    struct apr_buf whole;
};

static struct apr_view_cache *cache_of(struct apr_model *m)
{
    if (!m->view_cache) {
        struct apr_view_cache *c = apr_arena_get(&m->arena, sizeof *c);
        apr_buf_init(&c->in[0], SIZE_MAX / 2);
        apr_buf_init(&c->in[1], SIZE_MAX / 2);
        apr_buf_init(&c->out, SIZE_MAX / 2);
        apr_buf_init(&c->whole, SIZE_MAX / 2);
        m->view_cache = c;
    }
    return m->view_cache;
}

void apr_view_close(struct apr_view_cache *c)
{
    if (!c) return;
    apr_buf_free(&c->in[0]);
    apr_buf_free(&c->in[1]);
    apr_buf_free(&c->out);
    apr_buf_free(&c->whole);
}

/* Room for n bytes from the buffer's start on; what was there is lost. */
static enum apr_code room(struct apr_buf *b, uint64_t n, uint8_t **at, struct apr_err *e)
{
    apr_buf_drop_front(b, b->n_bytes);
    TRY(apr_buf_reserve(b, (size_t)n, at, e));
    apr_buf_commit(b, (size_t)n);
    return APR_OK;
}

/* In a stream a tensor comes once. */
static enum apr_code keep(struct apr_model *m, struct apr_view_cache *c, const struct apr_tensor *t,
                          struct apr_err *e)
{
    uint8_t *at;
    if (c->kept == t) return APR_OK;
    if (t->n_bytes > APR_VIEW_MAX_UNIT)
        return apr_fail(e, APR_EUSAGE,
                        "%s: %s of %" PRIu64 " bytes is needed twice; give a file instead of a pipe", m->path,
                        t->name, t->n_bytes);
    c->kept = NULL;
    TRY(room(&c->whole, t->n_bytes, &at, e));
    TRY(apr_model_read(m, t, 0, at, (size_t)t->n_bytes, e));
    c->kept = t;
    return APR_OK;
}

static enum apr_code read_source(struct apr_model *m, const struct apr_view *v, size_t i, uint64_t off,
                                 uint8_t *dst, uint64_t n, struct apr_err *e)
{
    struct apr_view_cache *c = cache_of(m);
    if (!v->is_shared || !m->is_stream || i > 0) return apr_model_read(m, v->src[i], off, dst, (size_t)n, e);
    TRY(keep(m, c, v->src[i], e));
    memcpy(dst, c->whole.data + off, (size_t)n);
    return APR_OK;
}

static enum apr_code make_unit(struct apr_model *m, const struct apr_view *v, uint64_t i_unit,
                               struct apr_err *e)
{
    struct apr_view_cache *c = cache_of(m);
    const uint8_t *in[2] = {NULL, NULL};
    uint8_t *at;
    if (c->view == v && c->i_unit == i_unit) return APR_OK;
    c->view = NULL;
    for (size_t i = 0; i < 2 && v->src[i]; i++) {
        const uint64_t off = (i == 0 ? v->off : 0) + i_unit * v->in_bytes[i];
        const uint64_t n_left = v->src[i]->n_bytes - off;
        TRY(room(&c->in[i], v->in_bytes[i], &at, e));
        TRY(read_source(m, v, i, off, at, n_left < v->in_bytes[i] ? n_left : v->in_bytes[i], e));
        if (n_left < v->in_bytes[i]) memset(at + n_left, 0, (size_t)(v->in_bytes[i] - n_left));
        in[i] = at;
    }
    TRY(room(&c->out, v->out_bytes, &at, e));
    v->make(v, in, at);
    c->view = v;
    c->i_unit = i_unit;
    return APR_OK;
}

enum apr_code apr_view_read(struct apr_model *m, const struct apr_tensor *t, uint64_t off, uint8_t *dst,
                            size_t n, struct apr_err *e)
{
    const struct apr_view *v = t->view;
    if (v->bytes) {
        memcpy(dst, (const uint8_t *)v->bytes + off, n);
        return APR_OK;
    }
    if (!v->make) return read_source(m, v, 0, v->off + off, dst, n, e);
    while (n) {
        const uint64_t i_unit = off / v->out_bytes, in = off % v->out_bytes;
        const size_t n_now = v->out_bytes - in < n ? (size_t)(v->out_bytes - in) : n;
        TRY(make_unit(m, v, i_unit, e));
        memcpy(dst, cache_of(m)->out.data + in, n_now);
        off += n_now;
        dst += n_now;
        n -= n_now;
    }
    return APR_OK;
}
