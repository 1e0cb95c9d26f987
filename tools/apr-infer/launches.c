/* See launches.h. */
#include "launches.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "gpu/load.h"

#define MAX_LAUNCHES 4096u

enum apr_code apr_launches_of(struct apr_session *s, const int32_t *ids, size_t n, struct apr_launches *l,
                              struct apr_arena *arena, struct apr_err *e)
{
    struct apr_offload_inside in;
    struct apr_gpu_err ge = {{0}};
    struct apr_gpu_time *at;
    uint32_t n_at = MAX_LAUNCHES;
    *l = (struct apr_launches){.n_toks = n};
    if (!s->fwd.offload) return apr_fail(e, APR_EUNAVAIL, "launches are those of a GPU: --device cuda");
    TRY(apr_arena_try(arena, &at, MAX_LAUNCHES, sizeof *at, "launches", e));
    TRY(apr_offload_inside(s->fwd.offload, &s->cache, &in, e));
    const struct apr_gpu_part part = {in.seq, ids, (uint32_t)n};
    TRY(apr_gpu_code(in.gpu->profile(in.model, &part, 1, at, &n_at, &ge), &ge, e));
    TRY(apr_gpu_code(in.gpu->bandwidth(in.device, &l->bytes_per_s, &ge), &ge, e));
    TRY(apr_gpu_code(in.gpu->launch_cost(in.device, n_at, &l->empty_s, &ge), &ge, e));
    l->at = at;
    l->n = n_at;
    for (size_t i = 0; i < l->n; i++) {
        l->s += at[i].s;
        l->n_bytes += at[i].n_bytes;
    }
    return APR_OK;
}

const char *apr_launch_dispatch(const struct apr_launches *l, const struct apr_gpu_time *t)
{
    static const char *const names[] = {"grid_x", "grid_y", "grid_z"};
    if (l->n_toks < 2) return "single";
    for (size_t i = 3; i-- > 0;)
        if (t->grid[i] == l->n_toks) return names[i];
    return "register_unroll";
}

static double per(double x, double y)
{
    return y > 0 ? x / y : 0;
}

static bool is_wanted(const struct apr_gpu_time *t, const char *text)
{
    return !text || strcasestr(t->kernel, text) || strcasestr(t->what, text);
}

static void out_dims(struct apr_out *o, const char *key, const uint32_t d[3])
{
    char text[40];
    snprintf(text, sizeof text, "%" PRIu32 "x%" PRIu32 "x%" PRIu32, d[0], d[1], d[2]);
    apr_out_str(o, key, text);
}

static void out_how(struct apr_out *o, const struct apr_launches *l, const struct apr_gpu_time *t)
{
    char source[120];
    snprintf(source, sizeof source, "%s:%" PRIu32, t->file, t->line);
    apr_out_str(o, "kernel", t->kernel);
    out_dims(o, "grid", t->grid);
    out_dims(o, "block", t->block);
    apr_out_u64(o, "shared_bytes", t->smem_bytes);
    apr_out_u64(o, "registers", t->n_regs);
    apr_out_u64(o, "local_bytes", t->local_bytes);
    apr_out_f64(o, "occupancy_pct", 100 * t->occupancy);
    apr_out_str(o, "dispatch", apr_launch_dispatch(l, t));
    apr_out_str(o, "source", source);
}

size_t apr_launches_out(struct apr_out *o, const char *key, const struct apr_launches *l, const char *text)
{
    size_t n = 0;
    apr_out_arr(o, key);
    for (size_t i = 0; i < l->n; i++) {
        const struct apr_gpu_time *t = &l->at[i];
        if (!is_wanted(t, text)) continue;
        apr_out_obj(o, NULL);
        apr_out_u64(o, "index", i);
        apr_out_i64(o, "layer", t->layer);
        apr_out_str(o, "step", t->what);
        apr_out_f64(o, "us", 1e6 * t->s);
        apr_out_u64(o, "bytes", t->n_bytes);
        apr_out_f64(o, "gb_per_s", 1e-9 * per((double)t->n_bytes, t->s));
        out_how(o, l, t);
        apr_out_end(o);
        n++;
    }
    apr_out_end(o);
    return n;
}

static bool is_same_part(const struct apr_gpu_time *a, const struct apr_gpu_time *b)
{
    return !strcmp(a->what, b->what);
}
static bool is_alike(const struct apr_gpu_time *a, const struct apr_gpu_time *b)
{
    return is_same_part(a, b) && !strcmp(a->kernel, b->kernel) && !memcmp(a->grid, b->grid, sizeof a->grid) &&
           !memcmp(a->block, b->block, sizeof a->block);
}
typedef bool same_fn(const struct apr_gpu_time *a, const struct apr_gpu_time *b);

static bool is_first(const struct apr_launches *l, size_t i, same_fn *same)
{
    for (size_t k = 0; k < i; k++)
        if (same(&l->at[k], &l->at[i])) return false;
    return true;
}

void apr_launches_out_parts(struct apr_out *o, const char *key, const struct apr_launches *l)
{
    apr_out_arr(o, key);
    for (size_t i = 0; i < l->n; i++) {
        const struct apr_gpu_time *t = &l->at[i];
        double s = 0, n_bytes = 0;
        uint64_t n = 0;
        if (!is_first(l, i, is_same_part)) continue;
        for (size_t k = i; k < l->n; k++) {
            if (!is_same_part(t, &l->at[k])) continue;
            s += l->at[k].s;
            n_bytes += (double)l->at[k].n_bytes;
            n++;
        }
        apr_out_obj(o, NULL);
        apr_out_str(o, "operation", t->what);
        apr_out_u64(o, "n_launches", n);
        apr_out_f64(o, "share_pct", 100 * per(s, l->s));
        apr_out_f64(o, "pass_us", 1e6 * s);
        apr_out_f64(o, "launch_us", 1e6 * s / (double)n);
        apr_out_f64(o, "pass_bytes", n_bytes);
        apr_out_f64(o, "gb_per_s", 1e-9 * per(n_bytes, s));
        apr_out_f64(o, "bandwidth_pct", 100 * per(per(n_bytes, s), l->bytes_per_s));
        apr_out_f64(o, "occupancy_pct", 100 * t->occupancy);
        apr_out_str(o, "kernel", t->kernel);
        apr_out_end(o);
    }
    apr_out_end(o);
}

/* "0-27", "-", "0-4,6" */
static void layers_of(const struct apr_launches *l, size_t i, char out[64])
{
    int32_t last = -2, first = -2;
    size_t n = 0;
    out[0] = 0;
    for (size_t k = i; k <= l->n && n + 24 < 64; k++) {
        bool end = k == l->n;
        if (!end && (!is_alike(&l->at[i], &l->at[k]) || l->at[k].layer == last)) continue;
        int32_t layer = end ? -3 : l->at[k].layer;
        if (layer == last + 1 && last >= 0) {
            last = layer;
            continue;
        }
        if (last >= 0)
            n += (size_t)snprintf(out + n, 64 - n, last > first ? "%s%" PRId32 "-%" PRId32 : "%s%" PRId32,
                                  n ? "," : "", first, last);
        first = last = layer;
    }
    if (!n) snprintf(out, 64, "-");
}

size_t apr_launches_out_map(struct apr_out *o, const char *key, const struct apr_launches *l,
                            const char *text)
{
    size_t n = 0;
    apr_out_arr(o, key);
    for (size_t i = 0; i < l->n; i++) {
        uint64_t n_alike = 0;
        char layers[64];
        if (!is_first(l, i, is_alike) || !is_wanted(&l->at[i], text)) continue;
        for (size_t k = i; k < l->n; k++) n_alike += is_alike(&l->at[i], &l->at[k]);
        layers_of(l, i, layers);
        apr_out_obj(o, NULL);
        apr_out_u64(o, "index", ++n);
        apr_out_str(o, "step", l->at[i].what);
        apr_out_str(o, "layers", layers);
        apr_out_u64(o, "n_launches", n_alike);
        out_how(o, l, &l->at[i]);
        apr_out_end(o);
    }
    apr_out_end(o);
    return n;
}
