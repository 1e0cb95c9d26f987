/* See rig.h. */
#include "rig.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

void rig_must(const struct rig *r, enum apr_gpu_status s, const char *what)
{
    if (s == APR_GPU_OK) return;
    fprintf(stderr, "hazards: %s: %s\n", what, r->e.text);
    exit(8);
}
void rig_note(struct rig *r, const char *format, ...)
{
    va_list ap;
    va_start(ap, format);
    vsnprintf(r->note, sizeof r->note, format, ap);
    va_end(ap);
}
double rig_now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

struct apr_gpu_model *rig_model(struct rig *r, const struct toy *t, bool exact, uint32_t n_ctx)
{
    const struct apr_gpu_opts o = {
        .exact = exact, .n_ctx = n_ctx, .n_chunk = n_ctx < 2048 ? n_ctx : 2048, .timeout_s = 20};
    struct apr_gpu_model *m = NULL;
    rig_must(r, r->g->model_open(r->dev, &t->desc, &o, NULL, NULL, &m, &r->e), "model");
    return m;
}
struct apr_gpu_seq *rig_seq(struct rig *r, struct apr_gpu_model *m, uint32_t n_ctx)
{
    struct apr_gpu_seq *q = NULL;
    rig_must(r, r->g->seq_open(m, n_ctx, &q, &r->e), "sequence");
    return q;
}

enum apr_gpu_status rig_try(struct rig *r, struct apr_gpu_model *m, struct apr_gpu_seq *q, const int32_t *ids,
                            uint32_t n, uint32_t n_step, float *logits)
{
    for (uint32_t i = 0; i < n; i += n_step) {
        uint32_t k = n - i < n_step ? n - i : n_step;
        bool last = i + k == n && logits;
        enum apr_gpu_status s = r->g->forward(m, q, ids + i, k, last, logits, &r->e);
        if (s != APR_GPU_OK) return s;
    }
    return APR_GPU_OK;
}
void rig_feed(struct rig *r, struct apr_gpu_model *m, struct apr_gpu_seq *q, const int32_t *ids, uint32_t n,
              uint32_t n_step, float *logits)
{
    rig_must(r, rig_try(r, m, q, ids, n, n_step, logits), "step");
}

static void *room(size_t n_bytes)
{
    void *p = calloc(1, n_bytes + 16);
    if (p) return p;
    fprintf(stderr, "hazards: no memory\n");
    exit(6);
}
float *rig_floats(size_t n)
{
    return room(n * sizeof(float));
}
double *rig_doubles(size_t n)
{
    return room(n * sizeof(double));
}
int32_t *rig_ids(uint32_t n, uint32_t n_vocab)
{
    int32_t *ids = room(n * sizeof *ids);
    for (uint32_t i = 0; i < n; i++) ids[i] = (int32_t)(toy_random() % n_vocab);
    return ids;
}

double rig_far(const float *x, const double *reference, size_t n)
{
    double sum = 0, off = 0;
    for (size_t i = 0; i < n; i++) {
        double d = (double)x[i] - reference[i];
        if (!isfinite(x[i])) return INFINITY;
        sum += reference[i] * reference[i], off += d * d;
    }
    return sqrt(off / sum);
}
