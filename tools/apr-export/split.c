#include "split.h"

#include <inttypes.h>
#include <string.h>
#include <sys/resource.h>

#define MAX_SPLIT  65535u /* split.count is a u16 */
#define FDS_A_SINK 2u
#define FDS_SPARE  64u

struct set {
    const struct apr_convert *c;
    struct apr_arena *a;
    struct apr_plan *parts;
    struct apr_sink **sinks; /* NULL once finished */
    struct apr_kvs *kvs;     /* [n] */
    uint32_t n;
};

static const char *part_name(const struct set *s, const char *output, uint32_t i)
{
    size_t n = strlen(output);
    if (n > 5 && strcmp(output + n - 5, ".gguf") == 0) n -= 5;
    return apr_arena_printf(s->a, "%.*s-%05" PRIu32 "-of-%05" PRIu32 ".gguf", (int)n, output, i + 1, s->n);
}

static void put_u16(struct apr_kvs *kvs, const char *key, uint16_t v)
{
    struct apr_kv kv = {.key = {.p = key, .n_bytes = strlen(key)}, .type = APR_KV_U16, .v.u = v};
    apr_kvs_add(kvs, &kv);
}

static void put_keys(struct set *s)
{
    const struct apr_plan *whole = s->c->plan;
    for (uint32_t i = 0; i < s->n; i++) {
        struct apr_kvs *kvs = &s->kvs[i];
        apr_kvs_init(kvs, s->a);
        for (size_t k = 0; i == 0 && whole->kvs && k < whole->kvs->n; k++)
            apr_kvs_add(kvs, &whole->kvs->at[k]);
        put_u16(kvs, "split.no", (uint16_t)i);
        put_u16(kvs, "split.count", (uint16_t)s->n);
        apr_kvs_i32(kvs, "split.tensors.count", (int32_t)whole->n_tensors);
        s->parts[i].kvs = kvs;
    }
}

/* All parts stay open until the last byte of the last one is written. */
static enum apr_code allow_files(uint32_t n, struct apr_err *e)
{
    struct rlimit r;
    rlim_t want = (rlim_t)n * FDS_A_SINK + FDS_SPARE;
    if (getrlimit(RLIMIT_NOFILE, &r) != 0 || r.rlim_cur >= want) return APR_OK;
    r.rlim_cur = want < r.rlim_max ? want : r.rlim_max;
    if (setrlimit(RLIMIT_NOFILE, &r) == 0 && r.rlim_cur >= want) return APR_OK;
    return apr_fail(e, APR_EUSAGE, "%" PRIu32 " parts need %" PRIu64 " open files; choose larger parts", n,
                    (uint64_t)want);
}

static enum apr_code open_all(struct set *s, const char *output, bool force, struct apr_err *e)
{
    uint64_t n_all = 0, n_head, n_total;
    TRY(allow_files(s->n, e));
    for (uint32_t i = 0; i < s->n; i++) {
        TRY(apr_sink_open(&s->sinks[i], part_name(s, output, i), force, e));
        TRY(s->c->fmt->measure(&s->parts[i], &n_head, &n_total, e));
        n_all += n_total;
    }
    return apr_sink_need(s->sinks[0], n_all, e);
}

static enum apr_code write_all(struct set *s, uint64_t *n_out, struct apr_err *e)
{
    for (uint32_t i = 0; i < s->n; i++) {
        struct apr_convert c = *s->c;
        c.plan = &s->parts[i];
        c.more = i + 1 < s->n;
        enum apr_code code = apr_convert_run(&c, s->sinks[i], NULL, e);
        if (code == APR_OK) apr_sink_sync(s->sinks[i]);
        if (apr_sink_failed(s->sinks[i])) {
            struct apr_sink *failed = s->sinks[i];
            s->sinks[i] = NULL;
            TRY(apr_sink_finish(failed, e)); /* tells why */
        }
        TRY(code);
        *n_out += apr_sink_pos(s->sinks[i]);
    }
    for (uint32_t i = s->n; i-- > 0;) {
        struct apr_sink *sink = s->sinks[i];
        s->sinks[i] = NULL;
        TRY(apr_sink_finish(sink, e));
    }
    return APR_OK;
}

static enum apr_code write_one(const struct apr_convert *c, const char *output, bool force, uint64_t *n_out,
                               struct apr_err *e)
{
    struct apr_sink *s;
    TRY(apr_sink_open(&s, output, force, e));
    enum apr_code code = apr_convert_run(c, s, NULL, e);
    if (code != APR_OK && !apr_sink_failed(s)) {
        apr_sink_abort(s);
        return code;
    }
    *n_out = apr_sink_pos(s);
    return apr_sink_finish(s, e);
}

enum apr_code split_write(const struct apr_convert *c, const char *output, struct parts_limit limit,
                          bool force, struct apr_arena *a, uint32_t *n_parts, uint64_t *n_out,
                          struct apr_err *e)
{
    struct set s = {.c = c, .a = a};
    *n_out = 0;
    TRY(parts_make(c->plan, limit, a, &s.parts, &s.n, e));
    *n_parts = s.n;
    if (s.n == 1) return write_one(c, output, force, n_out, e);
    if (s.n > MAX_SPLIT || c->plan->n_tensors > INT32_MAX)
        return apr_fail(e, APR_EUSAGE, "%" PRIu32 " parts, GGUF has at most %u; choose larger parts", s.n,
                        MAX_SPLIT);
    s.sinks = apr_arena_get(a, s.n * sizeof *s.sinks);
    s.kvs = apr_arena_get(a, s.n * sizeof *s.kvs);
    put_keys(&s);
    enum apr_code code = open_all(&s, output, force, e);
    if (code == APR_OK) code = write_all(&s, n_out, e);
    for (uint32_t i = 0; i < s.n; i++) apr_sink_abort(s.sinks[i]);
    return code;
}
