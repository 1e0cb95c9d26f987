/* See device_profile.h. */
#include "device_profile.h"

#include "bench.h"
#include "fmt/fmt.h"
#include "gpu/load.h"

struct room {
    int32_t *ids, *out; /* [n_prompt + 1], [n_gen] */
    float *logits;
};

static double ms_since(int64_t ns_start)
{
    return (double)(apr_now_ns() - ns_start) * 1e-6;
}

/* A prompt, then tokens that the device chooses alone. */
static enum apr_code pass(struct apr_device_profile *d, const struct apr_profile_size *size,
                          const struct room *r, bool counts, struct apr_err *e)
{
    struct apr_session *s = d->session;
    struct apr_device_phase *prompt = &d->phases[APR_PHASE_PREFILL], *decode = &d->phases[APR_PHASE_DECODE];
    size_t n_made = 0;
    apr_cache_truncate(&s->cache, 0);
    int64_t ns = apr_now_ns();
    TRY(apr_offload_run(s->fwd.offload, &s->cache, r->ids, size->n_prompt, 1, r->logits, e));
    if (counts) prompt->pass_ms[prompt->n_passes++] = ms_since(ns);
    ns = apr_now_ns();
    TRY(apr_offload_ahead(s->fwd.offload, &s->cache, r->ids[size->n_prompt], size->n_gen, NULL, 0, NULL,
                          r->out, &n_made, e));
    if (counts) decode->pass_ms[decode->n_passes++] = ms_since(ns) / (double)n_made;
    return APR_OK;
}

static enum apr_code phase_alloc(struct apr_device_phase *p, size_t n_passes, size_t n_toks,
                                 struct apr_arena *arena, struct apr_err *e)
{
    p->n_toks = n_toks;
    return apr_arena_try(arena, &p->pass_ms, n_passes, sizeof *p->pass_ms, "timings", e);
}

static enum apr_code look(struct apr_device_profile *d, const struct apr_profile_size *size,
                          const int32_t *ids, struct apr_arena *arena, struct apr_err *e)
{
    struct apr_session *s = d->session;
    apr_cache_truncate(&s->cache, 0);
    if (size->n_prompt > 1)
        TRY(apr_launches_of(s, ids, size->n_prompt, &d->phases[APR_PHASE_PREFILL].launches, arena, e));
    TRY(apr_offload_run(s->fwd.offload, &s->cache, ids, size->n_prompt, 0, NULL, e));
    return apr_launches_of(s, ids + size->n_prompt, 1, &d->phases[APR_PHASE_DECODE].launches, arena, e);
}

enum apr_code apr_device_profile_run(struct apr_device_profile *d, struct apr_session *s,
                                     const struct apr_profile_size *size, struct apr_arena *arena,
                                     struct apr_err *e)
{
    struct room r;
    *d = (struct apr_device_profile){.session = s};
    if (!s->fwd.offload) return apr_fail(e, APR_EUNAVAIL, "the session computes on the CPU");
    if (s->fwd.c.exact)
        return apr_fail(e, APR_EUSAGE,
                        "--exact computes token by token on the host's word: nothing to profile");
    TRY(apr_arena_try(arena, &r.ids, size->n_prompt + 1, sizeof *r.ids, "tokens", e));
    TRY(apr_arena_try(arena, &r.out, size->n_gen, sizeof *r.out, "tokens", e));
    TRY(apr_arena_try(arena, &r.logits, s->model->config.n_vocab, sizeof *r.logits, "logits", e));
    TRY(phase_alloc(&d->phases[APR_PHASE_PREFILL], size->n_measure, size->n_prompt, arena, e));
    TRY(phase_alloc(&d->phases[APR_PHASE_DECODE], size->n_measure, 1, arena, e));
    apr_bench_draw(s->model->config.n_vocab, r.ids, size->n_prompt + 1);
    for (size_t i = 0; i < size->n_warmup + size->n_measure; i++)
        TRY(pass(d, size, &r, i >= size->n_warmup, e));
    for (size_t i = 0; i < APR_N_PHASES; i++) {
        struct apr_device_phase *p = &d->phases[i];
        p->latency_ms = apr_summary_of(p->pass_ms, p->n_passes);
        p->toks_per_s = 1e3 * (double)p->n_toks / p->latency_ms.mean;
    }
    return look(d, size, r.ids, arena, e);
}

static double rate_of(const struct apr_device_phase *p)
{
    return (double)p->launches.n_bytes / (p->latency_ms.p50 * 1e-3);
}

double apr_device_profile_bandwidth(const struct apr_device_profile *d)
{
    const struct apr_device_phase *p = &d->phases[APR_PHASE_DECODE];
    return 100 * rate_of(p) / p->launches.bytes_per_s;
}

static void out_phase(struct apr_out *o, const char *name, const struct apr_device_phase *p, bool granular,
                      bool alone)
{
    const struct apr_launches *l = &p->launches;
    double step_s = p->latency_ms.p50 * 1e-3;
    apr_out_obj(o, name);
    apr_out_u64(o, "n_passes", p->n_passes);
    apr_out_u64(o, "n_toks", p->n_toks);
    apr_out_f64(o, "toks_per_s", p->toks_per_s);
    apr_summary_out(o, "latency_ms", &p->latency_ms);
    if (l->n) {
        apr_out_u64(o, "n_launches", l->n);
        apr_out_f64(o, "launches_us", 1e6 * l->s);
        apr_out_f64(o, "empty_launch_us", 1e6 * l->empty_s);
        apr_out_f64(o, "launch_overhead_pct", 100 * l->empty_s * (double)l->n / step_s);
        apr_out_f64(o, "gb_per_s", 1e-9 * rate_of(p));
        apr_out_f64(o, "bandwidth_pct", 100 * rate_of(p) / l->bytes_per_s);
        if (!alone) apr_launches_out_parts(o, "operations", l);
        if (granular) (void)apr_launches_out(o, "launches", l, NULL);
    }
    apr_out_end(o);
}

void apr_device_profile_out(struct apr_out *o, const struct apr_device_profile *d, bool granular, bool alone)
{
    const struct apr_session *s = d->session;
    const struct apr_device_phase *decode = &d->phases[APR_PHASE_DECODE];
    double pct = apr_device_profile_bandwidth(d);
    apr_out_str(o, "model", s->model->name);
    apr_out_str(o, "format", s->model->fmt->name);
    apr_out_str(o, "device", apr_offload_name(s->fwd.offload));
    apr_out_u64(o, "n_layers", s->model->config.n_layers);
    apr_out_bytes(o, "bytes_per_token", decode->launches.n_bytes);
    apr_out_obj(o, "roofline");
    apr_out_f64(o, "memory_gb_per_s", 1e-9 * decode->launches.bytes_per_s);
    apr_out_end(o);
    for (size_t i = 0; i < APR_N_PHASES; i++)
        out_phase(o, apr_phase_name((enum apr_phase)i), &d->phases[i], granular, alone);
    apr_out_f64(o, "efficiency_pct", pct);
    apr_out_str(o, "grade", apr_profile_grade(pct));
}
