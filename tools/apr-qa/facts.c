#include "facts.h"

#include <math.h>
#include <string.h>

#include "load.h"
#include "log.h"

/* A file whose family has no contract is no bad file: names and shapes are not judged, the rest is. */
static void structure(struct facts *f, bool strict)
{
    struct apr_verdict *v = &f->verdict;
    apr_contract_structure(f->model, v);
    f->no_contract = !f->model->family;
    if (!f->no_contract || strict) return;
    for (size_t i = 0; i < v->n; i++) {
        if (strcmp(v->at[i].rule, "F-FAMILY-001") != 0) continue;
        memmove(&v->at[i], &v->at[i + 1], (v->n - i - 1) * sizeof *v->at);
        v->n--;
        v->n_unsafe--;
        return;
    }
}

static void integrity(struct facts *f)
{
    if (!f->model->fmt->verify) return;
    f->integrity =
        f->model->fmt->verify(f->model, &f->integrity_error) == APR_OK ? INTEGRITY_OK : INTEGRITY_BAD;
}

static enum apr_code scan(struct facts *f, struct apr_pool *pool, struct apr_err *e)
{
    struct apr_model *m = f->model;
    const struct apr_kern *kern;
    struct apr_progress progress;
    TRY(apr_kern_pick(&kern, e));
    TRY(apr_arena_try(&f->arena, &f->stats, (size_t)m->n_tensors, sizeof *f->stats, "statistics", e));
    apr_progress_begin(&progress, "validate", m->header.n_data_bytes, "B");
    for (uint64_t i = 0; i < m->n_tensors; i++) {
        enum apr_code code =
            apr_contract_scan_tensor(m, &m->tensors[i], kern, pool, &f->stats[i], &f->verdict, e);
        if (code != APR_OK) return code;
        apr_progress_add(&progress, m->tensors[i].n_bytes);
    }
    apr_progress_end(&progress);
    return APR_OK;
}

enum apr_code facts_gather(struct facts *f, const char *path, unsigned n_threads, bool strict,
                           struct apr_err *e)
{
    int64_t ns_start = apr_now_ns();
    *f = (struct facts){.integrity = INTEGRITY_NONE};
    apr_arena_init(&f->arena);
    apr_verdict_init(&f->verdict, &f->arena);
    TRY(apr_load_model(path, APR_LOAD_RANDOM, &f->model, e));
    if (f->model->n_tensors == 0) return apr_fail(e, APR_EFORMAT, "%s: no tensors found", path);
    structure(f, strict);
    integrity(f);
    struct apr_pool *pool = apr_pool_open(n_threads);
    enum apr_code code = scan(f, pool, e);
    apr_pool_close(pool);
    f->elapsed_s = (double)(apr_now_ns() - ns_start) * 1e-9;
    return code;
}

void facts_free(struct facts *f)
{
    apr_model_close(f->model);
    apr_arena_free(&f->arena);
}

const struct apr_violation *facts_violation(const struct facts *f, const char *prefix)
{
    for (size_t i = 0; i < f->verdict.n; i++)
        if (strncmp(f->verdict.at[i].rule, prefix, strlen(prefix)) == 0) return &f->verdict.at[i];
    return NULL;
}

double facts_mean(const struct apr_stats *s)
{
    uint64_t n = s->n - s->n_nan - s->n_inf;
    return n ? s->sum / (double)n : NAN;
}

double facts_std(const struct apr_stats *s)
{
    uint64_t n = s->n - s->n_nan - s->n_inf;
    if (n < 2) return NAN;
    double var = (s->sum_sq - s->sum * s->sum / (double)n) / (double)(n - 1);
    return var > 0 ? sqrt(var) : 0;
}
