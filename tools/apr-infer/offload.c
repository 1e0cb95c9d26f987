/* From weights bound for the CPU to the plugin's description. See offload.h. */
#include "offload.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "describe.h"
#include "devices.h"
#include "forward.h"
#include "gpu/load.h"
#include "gpu/shard.h"
#include "gpu_fault.h"
#include "guard.h"
#include "log.h"

#define MAX_SEQS 256u
#define N_CHUNK  2048u /* tokens of a prompt computed at once */

struct seq {
    const struct apr_cache *cache;
    struct apr_gpu_seq *seq;
    uint64_t i_used; /* the call that used it last */
};

struct apr_offload {
    struct apr_arena arena;
    const struct apr_forward *f; /* borrowed: whose weights these are */
    const struct apr_gpu *gpu;
    struct apr_gpu_device *device; /* or several as one */
    struct apr_gpu_model *model;
    struct seq seqs[MAX_SEQS];
    size_t n_seqs;
    uint64_t i_call;
    struct apr_gpu_part *parts; /* [n_parts_most] */
    size_t n_parts_most;

    struct apr_devices devices; /* what it takes to open all this once more */
    struct apr_gpu_desc *descs; /* [devices.n] */
    struct apr_gpu_opts opts;
    char name[200];
    struct apr_bulkhead places; /* of seqs */
    struct apr_breaker breaker;
    char last_failure[200];
    uint64_t random;
    struct apr_gpu_fault_plan fault; /* for tests */
};

/* ---- opening ----------------------------------------------------------------------------------------- */

struct shown {
    struct apr_progress bar;
    uint64_t n_bytes;
};

static void progress(void *ctx, uint64_t n_bytes)
{
    struct shown *s = ctx;
    apr_progress_add(&s->bar, n_bytes - s->n_bytes);
    s->n_bytes = n_bytes;
}

static double mib(uint64_t n_bytes)
{
    return (double)n_bytes / 1048576;
}

static enum apr_gpu_status load(struct apr_offload *o, struct apr_gpu_plan *plan, struct apr_gpu_err *ge)
{
    struct shown shown = {.n_bytes = 0};
    apr_progress_begin(&shown.bar, "to the GPU", plan->weights, "bytes");
    enum apr_gpu_status s =
        o->gpu->model_open(o->device, o->descs, &o->opts, progress, &shown, &o->model, ge);
    apr_progress_end(&shown.bar);
    return s;
}

static enum apr_code open_model(struct apr_offload *o, const struct apr_forward *f, const struct apr_model *m,
                                size_t n_ctx, struct apr_err *e)
{
    struct apr_gpu_desc d;
    struct apr_gpu_err ge = {{0}};
    struct apr_gpu_plan plan;
    o->opts = (struct apr_gpu_opts){.exact = f->c.exact, .n_ctx = (uint32_t)n_ctx};
    o->opts.n_chunk = f->c.exact ? 256 : (uint32_t)(n_ctx < N_CHUNK ? n_ctx : N_CHUNK);
    if (o->opts.n_chunk < f->n_batch) o->opts.n_chunk = (uint32_t)f->n_batch;
    TRY(apr_gpu_timeout(&o->opts.timeout_s, e));
    TRY(apr_describe(f, m, &o->arena, &d, e));
    TRY(apr_gpu_shard(&d, o->devices.n, &o->arena, &o->descs, e));
    TRY(apr_gpu_code(o->gpu->model_plan(o->device, o->descs, &o->opts, &plan, &ge), &ge, e));
    if (f->shows_plan)
        apr_note(
            "memory plan of %s%s: weights %.1f MiB, cache of %zu positions %.1f MiB, work %.1f MiB: %.1f MiB "
            "of %.1f free",
            o->name, o->devices.n > 1 ? ", the one that needs most" : "", mib(plan.weights + plan.resident),
            n_ctx, mib(plan.cache), mib(plan.work), mib(plan.total), mib(plan.free));
    return apr_gpu_code(load(o, &plan, &ge), &ge, e);
}

/* "all" becomes their numbers. */
static enum apr_code count_devices(const struct apr_gpu *gpu, struct apr_devices *d, struct apr_err *e)
{
    struct apr_gpu_err ge = {{0}};
    if (d->kind != APR_DEVICES_CUDA_ALL) return APR_OK;
    TRY(apr_gpu_code(gpu->device_count(&d->n, &ge), &ge, e));
    if (d->n > APR_GPU_DEVICES) d->n = APR_GPU_DEVICES;
    for (uint32_t i = 0; i < d->n; i++) d->i[i] = i;
    return APR_OK;
}
static enum apr_gpu_status open_devices(struct apr_offload *o, struct apr_gpu_err *ge)
{
    const struct apr_devices *d = &o->devices;
    if (d->n == 1) return o->gpu->device_open(d->i[0], &o->device, ge);
    return o->gpu->devices_open(d->i, d->n, APR_GPU_LINK_ANY, &o->device, ge);
}

static enum apr_code open_parts(struct apr_offload *o, const struct apr_forward *f, const struct apr_model *m,
                                size_t n_ctx, struct apr_err *e)
{
    struct apr_gpu_err ge = {{0}};
    TRY(apr_gpu_fault_parse(&o->fault, e));
    TRY(apr_gpu_load(&o->gpu, e));
    TRY(count_devices(o->gpu, &o->devices, e));
    TRY(apr_gpu_code(open_devices(o, &ge), &ge, e));
    snprintf(o->name, sizeof o->name, "%s", o->gpu->device_name(o->device));
    return open_model(o, f, m, n_ctx, e);
}

enum apr_code apr_offload_open(struct apr_offload **out, const char *device, const struct apr_forward *f,
                               const struct apr_model *m, size_t n_ctx, struct apr_err *e)
{
    struct apr_devices d;
    struct apr_arena arena;
    *out = NULL;
    TRY(apr_devices_parse(device, &d, e));
    const bool is_auto = d.kind == APR_DEVICES_AUTO;
    if (d.kind == APR_DEVICES_CPU) return APR_OK;
    if (is_auto && !apr_gpu_driver_found()) return APR_OK;
    apr_arena_init(&arena);
    struct apr_offload *o = apr_arena_get(&arena, sizeof *o);
    *o = (struct apr_offload){.arena = arena,
                              .f = f,
                              .devices = d,
                              .places = {.n_places = MAX_SEQS},
                              .random = (uint64_t)apr_now_ns() | 1};
    enum apr_code code = open_parts(o, f, m, n_ctx, e);
    if (code == APR_OK) {
        if (is_auto) apr_note("device: %s", o->gpu->device_name(o->device));
        return *out = o, APR_OK;
    }
    apr_offload_close(o);
    if (!is_auto) return code;
    apr_note("device: cpu (%s)", e->text);
    return APR_OK;
}

static void close_parts(struct apr_offload *o)
{
    for (size_t i = 0; i < o->n_seqs; i++) {
        o->gpu->seq_close(o->seqs[i].seq);
        apr_bulkhead_give(&o->places);
    }
    if (o->model) o->gpu->model_close(o->model);
    if (o->device) o->gpu->device_close(o->device);
    o->n_seqs = 0;
    o->model = NULL;
    o->device = NULL;
}

void apr_offload_close(struct apr_offload *o)
{
    if (!o) return;
    close_parts(o);
    struct apr_arena arena = o->arena;
    apr_arena_free(&arena);
}

const char *apr_offload_name(const struct apr_offload *o)
{
    return o->name;
}

/* ---- failures ---------------------------------------------------------------------------------------- */

/* A call of the plugin, with everything that leads to it: it may be made again on a device opened anew. */
typedef enum apr_gpu_status try_fn(struct apr_offload *o, void *call, struct apr_gpu_err *ge);

/* Device, model and no sequences: those are computed again when they are needed. */
static enum apr_gpu_status reopen(struct apr_offload *o, struct apr_gpu_err *ge)
{
    struct apr_gpu_plan plan;
    close_parts(o);
    enum apr_gpu_status s = APR_GPU_OK;
    for (uint32_t i = 0; i < o->devices.n && s == APR_GPU_OK; i++)
        s = o->gpu->device_reset(o->devices.i[i], ge);
    if (s == APR_GPU_OK) s = open_devices(o, ge);
    if (s == APR_GPU_OK) s = o->gpu->model_plan(o->device, o->descs, &o->opts, &plan, ge);
    if (s == APR_GPU_OK) s = load(o, &plan, ge);
    if (s != APR_GPU_OK) return s;
    apr_note("device: opened again after: %s", o->last_failure);
    return s;
}

static enum apr_gpu_status try_once(struct apr_offload *o, try_fn *f, void *call, struct apr_gpu_err *ge)
{
    if (!o->model) {
        enum apr_gpu_status s = reopen(o, ge);
        if (s != APR_GPU_OK) return s;
    }
    enum apr_gpu_status s = apr_gpu_fault_due(&o->fault, o->gpu, o->device, ge);
    return s == APR_GPU_OK ? f(o, call, ge) : s;
}

/* What says nothing about the device: the caller's mistakes, and the model's numbers. */
static bool is_device_failure(enum apr_gpu_status s)
{
    return s == APR_GPU_MEMORY || s == APR_GPU_LOST || s == APR_GPU_NONE;
}

static void sleep_ns(int64_t ns)
{
    struct timespec t = {(time_t)(ns / 1000000000), (long)(ns % 1000000000)};
    while (nanosleep(&t, &t) != 0) continue;
}

/* Tries, opens a lost device again, waits and tries again; what does not help is an error of this request. A
 * device that is still busy is not waited for. */
static enum apr_code guarded(struct apr_offload *o, try_fn *f, void *call, struct apr_err *e)
{
    struct apr_gpu_err ge = {{0}};
    enum apr_gpu_status s = APR_GPU_OK;
    for (unsigned i = 0; i <= APR_RETRIES; i++) {
        if (!apr_breaker_allows(&o->breaker, apr_now_ns()))
            return apr_fail(
                e, APR_EINFER,
                "cuda: the device has failed %u times in a row and is not asked for %.0f s; the last "
                "time: %s",
                o->breaker.n_failures, 1e-9 * (double)apr_breaker_wait_ns(&o->breaker, apr_now_ns()),
                o->last_failure);
        s = try_once(o, f, call, &ge);
        bool failed = is_device_failure(s);
        apr_breaker_note(&o->breaker, !failed, apr_now_ns());
        if (!failed) break;
        snprintf(o->last_failure, sizeof o->last_failure, "%s", ge.text);
        apr_verbose("device: %s", ge.text);
        if (s != APR_GPU_MEMORY && o->device && o->gpu->device_is_late(o->device)) break;
        if (s != APR_GPU_MEMORY) close_parts(o);
        if (i < APR_RETRIES) sleep_ns(apr_backoff_ns(i, &o->random));
    }
    return apr_gpu_code(s, &ge, e);
}

/* ---- running ----------------------------------------------------------------------------------------- */

/* Some rotations change with the length of the sequence, and some models have a row for each position. */
static enum apr_code check_length(const struct apr_offload *o, size_t n_seq, struct apr_err *e)
{
    const struct apr_config *c = o->f->w.cfg;
    if (c->n_positions && n_seq > c->n_positions)
        return apr_fail(e, APR_EUSAGE, "%zu tokens, the model has rows for %" PRIu32 " positions", n_seq,
                        c->n_positions);
    if (apr_describe_fits(o->f, n_seq)) return APR_OK;
    return apr_fail(e, APR_EUNAVAIL,
                    "cuda: beyond %zu tokens the model stretches its rotation with the sequence (here %zu: "
                    "dynamic), which the plugin cannot compute; use --device cpu",
                    o->f->rope.n_ctx_orig, n_seq);
}

/* Room for another sequence: the one not used for longest is forgotten, and computed again when it comes
 * back. Those of this call stay. */
static bool let_one_go(struct apr_offload *o)
{
    struct seq *oldest = NULL;
    for (size_t i = 0; i < o->n_seqs; i++) {
        struct seq *s = &o->seqs[i];
        if (s->i_used == o->i_call || o->gpu->seq_pos(s->seq) == 0) continue;
        if (!oldest || s->i_used < oldest->i_used) oldest = s;
    }
    if (oldest) o->gpu->seq_truncate(oldest->seq, 0);
    return oldest != NULL;
}

/* Positions that the cache has and the device does not (a fork, a sequence let go, a device opened again) are
 * computed again. */
static enum apr_gpu_status catch_up(struct apr_offload *o, const struct apr_cache *cache,
                                    struct apr_gpu_seq *s, struct apr_gpu_err *ge)
{
    enum apr_gpu_status status = APR_GPU_OK;
    const uint32_t n_want = (uint32_t)cache->n_pos;
    if (o->gpu->seq_pos(s) > n_want) o->gpu->seq_truncate(s, n_want);
    do {
        uint32_t n = o->gpu->seq_pos(s);
        if (n == n_want) return APR_GPU_OK;
        status = o->gpu->forward(o->model, s, cache->ids + n, n_want - n, 0, NULL, ge);
    } while (status == APR_GPU_FULL && let_one_go(o));
    return status;
}

/* n_more: tokens that are to be appended, and those of the same prompt that come later: some rotations depend
 * on the whole. Where the sequence changes sides what it has is computed again. */
static enum apr_gpu_status seq_of(struct apr_offload *o, const struct apr_cache *cache, size_t n_more,
                                  struct apr_gpu_seq **s, struct apr_gpu_err *ge)
{
    size_t i = 0;
    while (i < o->n_seqs && o->seqs[i].cache != cache) i++;
    if (i == o->n_seqs) {
        if (!apr_bulkhead_take(&o->places)) {
            snprintf(ge->text, sizeof ge->text, "more than %zu sequences", o->places.n_places);
            return APR_GPU_UNSUPPORTED;
        }
        enum apr_gpu_status status = o->gpu->seq_open(o->model, (uint32_t)cache->n_max, &o->seqs[i].seq, ge);
        if (status != APR_GPU_OK) return apr_bulkhead_give(&o->places), status;
        o->seqs[i].cache = cache;
        o->n_seqs++;
    }
    o->seqs[i].i_used = o->i_call;
    *s = o->seqs[i].seq;
    o->gpu->seq_turn(*s, apr_rope_is_long(&o->f->rope, cache->n_pos + n_more));
    return catch_up(o, cache, *s, ge);
}

static enum apr_code reserve_parts(struct apr_offload *o, size_t n, struct apr_err *e)
{
    if (n <= o->n_parts_most) return APR_OK;
    TRY(apr_arena_try(&o->arena, &o->parts, 2 * n, sizeof *o->parts, "parts of a step", e));
    o->n_parts_most = 2 * n;
    return APR_OK;
}

struct step_call {
    const struct apr_part *parts;
    size_t n;
};
static enum apr_gpu_status try_step(struct apr_offload *o, void *call_, struct apr_gpu_err *ge)
{
    const struct step_call *call = call_;
    enum apr_gpu_status status = APR_GPU_OK;
    o->i_call++;
    for (size_t i = 0; i < call->n && status == APR_GPU_OK; i++) {
        const struct apr_part *p = &call->parts[i];
        o->parts[i] = (struct apr_gpu_part){.ids = p->ids, .n = (uint32_t)p->n};
        status = seq_of(o, p->cache, p->n + p->n_later, &o->parts[i].seq, ge);
    }
    if (status != APR_GPU_OK) return status;
    do status = o->gpu->step(o->model, o->parts, (uint32_t)call->n, ge);
    while (status == APR_GPU_FULL && let_one_go(o));
    return status;
}

enum apr_code apr_offload_step(struct apr_offload *o, const struct apr_part *parts, size_t n_parts,
                               struct apr_err *e)
{
    TRY(reserve_parts(o, n_parts, e));
    for (size_t i = 0; i < n_parts; i++) TRY(check_length(o, parts[i].cache->n_pos + parts[i].n, e));
    TRY(guarded(o, try_step, &(struct step_call){parts, n_parts}, e));
    for (size_t i = 0; i < n_parts; i++) parts[i].cache->n_pos += parts[i].n;
    return APR_OK;
}

enum apr_code apr_offload_logits(struct apr_offload *o, size_t i_row, size_t n_rows, float *logits,
                                 struct apr_err *e)
{
    struct apr_gpu_err ge = {{0}};
    if (!o->model) return apr_fail(e, APR_EINFER, "cuda: the step's logits are lost: %s", o->last_failure);
    return apr_gpu_code(o->gpu->logits(o->model, (uint32_t)i_row, (uint32_t)n_rows, logits, &ge), &ge, e);
}

struct run_call {
    const struct apr_cache *cache;
    const int32_t *ids;
    size_t n, n_rows;
    float *logits;
};
static enum apr_gpu_status try_run(struct apr_offload *o, void *call_, struct apr_gpu_err *ge)
{
    const struct run_call *call = call_;
    struct apr_gpu_seq *s;
    o->i_call++;
    enum apr_gpu_status status = seq_of(o, call->cache, call->n, &s, ge);
    if (status != APR_GPU_OK) return status;
    do
        status = o->gpu->forward(o->model, s, call->ids, (uint32_t)call->n, (uint32_t)call->n_rows,
                                 call->logits, ge);
    while (status == APR_GPU_FULL && o->gpu->seq_pos(s) == call->cache->n_pos && let_one_go(o));
    return status;
}

enum apr_code apr_offload_run(struct apr_offload *o, struct apr_cache *cache, const int32_t *ids, size_t n,
                              size_t n_rows, float *logits, struct apr_err *e)
{
    TRY(check_length(o, cache->n_pos + n, e));
    TRY(guarded(o, try_run, &(struct run_call){cache, ids, n, n_rows, logits}, e));
    cache->n_pos += n;
    return APR_OK;
}

/* The device has appended id and all but the last of what it chose. */
static void remember(struct apr_cache *cache, int32_t id, const int32_t *chosen, size_t n)
{
    if (n) cache->ids[cache->n_pos] = id;
    for (size_t i = 0; i + 1 < n; i++) cache->ids[cache->n_pos + 1 + i] = chosen[i];
    cache->n_pos += n;
}

struct ahead_call {
    const struct apr_cache *cache;
    const struct apr_offload_draws *draws;
    int32_t id;
    uint32_t n, n_stop, n_made;
    const int32_t *stop;
    int32_t *out;
};
static enum apr_gpu_status try_ahead(struct apr_offload *o, void *call_, struct apr_gpu_err *ge)
{
    struct ahead_call *call = call_;
    struct apr_gpu_seq *s;
    o->i_call++;
    enum apr_gpu_status status = seq_of(o, call->cache, call->n, &s, ge);
    if (status != APR_GPU_OK) return status;
    do
        status = call->draws ? o->gpu->sample(o->model, s, call->draws->chain, call->draws->bits, call->id,
                                              call->n, call->stop, call->n_stop, call->out, &call->n_made, ge)
                             : o->gpu->greedy(o->model, s, call->id, call->n, call->stop, call->n_stop,
                                              call->out, &call->n_made, ge);
    while (status == APR_GPU_FULL && o->gpu->seq_pos(s) == call->cache->n_pos && let_one_go(o));
    return status;
}

enum apr_code apr_offload_ahead(struct apr_offload *o, struct apr_cache *cache, int32_t id, size_t n,
                                const int32_t *stop, size_t n_stop, const struct apr_offload_draws *draws,
                                int32_t *out, size_t *n_out, struct apr_err *e)
{
    n = apr_rope_n_alike(&o->f->rope, cache->n_pos, n);
    struct ahead_call call = {cache, draws, id, (uint32_t)n, (uint32_t)n_stop, 0, stop, out};
    TRY(check_length(o, cache->n_pos + n, e));
    TRY(guarded(o, try_ahead, &call, e));
    remember(cache, id, out, call.n_made);
    *n_out = call.n_made;
    return APR_OK;
}

struct rows_call {
    const struct apr_part *parts;
    const struct apr_offload_draws *draws; /* NULL: all greedily */
    uint32_t n_seqs, n;
    int32_t *out; /* [n_seqs, n] */
};
static enum apr_gpu_status sample_rows(struct apr_offload *o, const struct rows_call *call,
                                       struct apr_gpu_seq *const *seqs, const int32_t *ids,
                                       struct apr_gpu_err *ge)
{
    struct apr_gpu_chain chains[APR_GPU_ROWS];
    uint64_t bits[APR_GPU_ROWS * APR_N_AHEAD] = {0};
    for (uint32_t i = 0; i < call->n_seqs; i++) {
        const struct apr_offload_draws *d = &call->draws[i];
        chains[i] =
            d->chain ? *d->chain : (struct apr_gpu_chain){.top_k = 1, .t_before = 1}; /* the largest */
        if (d->chain) memcpy(bits + i * call->n, d->bits, call->n * sizeof *bits);
    }
    return o->gpu->sample_rows(o->model, seqs, chains, bits, ids, call->n_seqs, call->n, call->out, ge);
}
static enum apr_gpu_status try_rows(struct apr_offload *o, void *call_, struct apr_gpu_err *ge)
{
    const struct rows_call *call = call_;
    struct apr_gpu_seq *seqs[APR_GPU_ROWS];
    int32_t ids[APR_GPU_ROWS];
    enum apr_gpu_status status = APR_GPU_OK;
    o->i_call++;
    for (uint32_t i = 0; i < call->n_seqs && status == APR_GPU_OK; i++) {
        ids[i] = call->parts[i].ids[0];
        status = seq_of(o, call->parts[i].cache, call->n, &seqs[i], ge);
    }
    if (status != APR_GPU_OK) return status;
    do
        status = call->draws ? sample_rows(o, call, seqs, ids, ge)
                             : o->gpu->greedy_rows(o->model, seqs, ids, call->n_seqs, call->n, call->out, ge);
    while (status == APR_GPU_FULL && let_one_go(o));
    return status;
}

enum apr_code apr_offload_ahead_rows(struct apr_offload *o, const struct apr_part *parts,
                                     const struct apr_offload_draws *draws, size_t n_parts, size_t n,
                                     int32_t *out, size_t *n_out, struct apr_err *e)
{
    int32_t chosen[APR_GPU_ROWS * APR_N_AHEAD] = {0};
    bool any = false;
    for (size_t i = 0; i < n_parts && draws; i++) any |= draws[i].chain != NULL;
    if (!any) draws = NULL;
    if (n > APR_N_AHEAD) n = APR_N_AHEAD;
    for (size_t i = 0; i < n_parts; i++) n = apr_rope_n_alike(&o->f->rope, parts[i].cache->n_pos, n);
    for (size_t i = 0; i < n_parts; i++) TRY(check_length(o, parts[i].cache->n_pos + n, e));
    *n_out = n;
    if (n_parts == 1)
        return apr_offload_ahead(o, parts->cache, *parts->ids, n, NULL, 0, draws, out, n_out, e);
    for (size_t i = 0; i < n_parts; i += APR_GPU_ROWS) {
        size_t n_seqs = n_parts - i < APR_GPU_ROWS ? n_parts - i : APR_GPU_ROWS;
        struct rows_call call = {parts + i, draws ? draws + i : NULL, (uint32_t)n_seqs, (uint32_t)n, chosen};
        TRY(guarded(o, try_rows, &call, e));
        for (size_t k = 0; k < n_seqs; k++) {
            const struct apr_part *p = &parts[i + k];
            memcpy(out + (i + k) * APR_N_AHEAD, chosen + k * n, n * sizeof *out);
            remember(p->cache, *p->ids, chosen + k * n, n);
        }
    }
    return APR_OK;
}

struct inside_call {
    const struct apr_cache *cache;
    struct apr_gpu_seq *seq;
};
static enum apr_gpu_status try_inside(struct apr_offload *o, void *call_, struct apr_gpu_err *ge)
{
    struct inside_call *call = call_;
    o->i_call++;
    return seq_of(o, call->cache, 1, &call->seq, ge);
}

enum apr_code apr_offload_inside(struct apr_offload *o, const struct apr_cache *cache,
                                 struct apr_offload_inside *in, struct apr_err *e)
{
    struct inside_call call = {.cache = cache};
    TRY(guarded(o, try_inside, &call, e));
    *in = (struct apr_offload_inside){o->gpu, o->device, o->model, call.seq};
    return APR_OK;
}
