/* See ref_describe.h. Rows are kept for all positions: [n, ...]. */
#include "ref_describe.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "config.h"
#include "quant/quant.h"

static void *room(size_t n)
{
    void *p = calloc(n + 1, sizeof(double));
    if (!p) abort();
    return p;
}

static void row_of(const struct apr_gpu_mat *w, size_t r, float *x)
{
    apr_quant_of(w->type)->to_f32((const uint8_t *)w->data + r * w->row_bytes, x, w->n_cols);
}
static void times(const struct apr_gpu_mat *w, const double *x, double *y)
{
    float *row = room(w->n_cols);
    for (size_t r = 0; r < w->n_rows; r++) {
        double sum = w->bias ? (double)w->bias[r] : 0;
        row_of(w, r, row);
        for (size_t i = 0; i < w->n_cols; i++) sum += (double)row[i] * x[i];
        y[r] = sum;
    }
    free(row);
}

static void norm(const struct apr_gpu_norm *w, double eps, const double *x, size_t n, double *y)
{
    double mean = 0, sum = 0;
    for (size_t i = 0; i < n && w->b; i++) mean += x[i] / (double)n;
    for (size_t i = 0; i < n; i++) sum += (x[i] - mean) * (x[i] - mean);
    for (size_t i = 0; i < n; i++)
        y[i] = (x[i] - mean) / sqrt(sum / (double)n + eps) * (double)w->w[i] + (w->b ? (double)w->b[i] : 0);
}
static void rms(const float *w, double eps, double *x, size_t n)
{
    if (w) norm(&(struct apr_gpu_norm){.w = w}, eps, x, n, x);
}

static double act(uint32_t activation, double x)
{
    const double of[] = {[APR_SILU] = x / (1 + exp(-x)),
                         [APR_GELU] = 0.5 * x * (1 + erf(x / sqrt(2))),
                         [APR_GELU_TANH] = 0.5 * x * (1 + tanh(sqrt(2 / M_PI) * (x + 0.044715 * x * x * x))),
                         [APR_RELU] = x > 0 ? x : 0};
    return of[activation];
}

static bool turns_long; /* of the sequence that is computed */

static void turn(const struct apr_gpu_desc *d, const struct apr_gpu_layer *l, size_t pos, double *x)
{
    const struct apr_gpu_rope *r = &d->ropes[l->i_rope];
    const double *freq = turns_long && r->long_inv_freq ? r->long_inv_freq : r->inv_freq;
    for (size_t i = 0; i < r->n_half; i++) {
        size_t a = d->rope_pairs ? 2 * i : i, b = d->rope_pairs ? 2 * i + 1 : i + r->n_half;
        double angle = (double)pos * freq[i], c = cos(angle) * (double)r->scale,
               s = sin(angle) * (double)r->scale, u = x[a], v = x[b];
        x[a] = u * c - v * s;
        x[b] = u * s + v * c;
    }
}

/* Keys and values of all positions of one layer. */
struct seen {
    double *k, *v; /* [n, n_heads_kv * dims] */
    size_t k_dim, v_dim;
};

/* out: [n_heads, v_dim] */
static void attend(const struct apr_gpu_desc *d, const struct apr_gpu_layer *l, const struct seen *s,
                   size_t pos, const double *q, double *out)
{
    size_t group = d->n_heads / d->n_heads_kv, n_k = d->n_heads_kv * s->k_dim, n_v = d->n_heads_kv * s->v_dim;
    size_t first = l->window && pos + 1 > l->window ? pos + 1 - l->window : 0;
    double *p = room(pos + 1);
    for (size_t h = 0; h < d->n_heads; h++) {
        double top = -INFINITY, sum = 0;
        for (size_t t = first; t <= pos; t++) {
            p[t] = 0;
            for (size_t i = 0; i < s->k_dim; i++)
                p[t] += q[h * s->k_dim + i] * s->k[t * n_k + h / group * s->k_dim + i];
            p[t] *= (double)d->attn_scale;
            if (d->attn_softcap > 0) p[t] = (double)d->attn_softcap * tanh(p[t] / (double)d->attn_softcap);
            top = fmax(top, p[t]);
        }
        for (size_t t = first; t <= pos; t++) sum += p[t] = exp(p[t] - top);
        for (size_t i = 0; i < s->v_dim; i++) {
            double v = 0;
            for (size_t t = first; t <= pos; t++) v += p[t] * s->v[t * n_v + h / group * s->v_dim + i];
            out[h * s->v_dim + i] = v / sum;
        }
    }
    free(p);
}

static void ordinary(const struct apr_gpu_desc *d, const struct apr_gpu_layer *l, struct seen *s, size_t pos,
                     const double *h, double *att)
{
    size_t dim = d->head_dim;
    double *q = room(d->n_heads * dim), *k = s->k + pos * d->n_heads_kv * dim;
    times(&l->q, h, q);
    times(&l->k, h, k);
    times(&l->v, h, s->v + pos * d->n_heads_kv * dim);
    for (size_t i = 0; i < d->n_heads; i++)
        rms(l->q_norm, d->norm_eps, q + i * dim, dim), turn(d, l, pos, q + i * dim);
    for (size_t i = 0; i < d->n_heads_kv; i++)
        rms(l->k_norm, d->norm_eps, k + i * dim, dim), turn(d, l, pos, k + i * dim);
    attend(d, l, s, pos, q, att);
    free(q);
}

static void latent(const struct apr_gpu_desc *d, const struct apr_gpu_layer *l, struct seen *s, size_t pos,
                   const double *h, double *att)
{
    const struct apr_gpu_latent *a = &l->latent;
    size_t rank = d->kv_rank, k_dim = s->k_dim;
    double *q = room(d->n_heads * d->head_dim), *qc = room(d->n_heads * k_dim), *k = s->k + pos * k_dim,
           *c = room(d->n_heads * rank), *q_a = room(a->q_a.n_rows);
    if (a->q_a.data) {
        times(&a->q_a, h, q_a);
        rms(a->q_a_norm, d->norm_eps, q_a, a->q_a.n_rows);
    }
    times(&l->q, a->q_a.data ? q_a : h, q);
    times(&a->kv_a, h, k);
    rms(a->kv_a_norm, d->norm_eps, k, rank);
    turn(d, l, pos, k + rank);
    memcpy(s->v + pos * rank, k, rank * sizeof *k);
    for (size_t i = 0; i < d->n_heads; i++) {
        times(&a->k_b[i], q + i * d->head_dim, qc + i * k_dim);
        memcpy(qc + i * k_dim + rank, q + i * d->head_dim + d->n_nope, d->n_rope * sizeof *q);
        turn(d, l, pos, qc + i * k_dim + rank);
    }
    attend(d, l, s, pos, qc, c);
    for (size_t i = 0; i < d->n_heads; i++) times(&a->v_b[i], c + i * rank, att + i * d->n_value);
    free(q), free(qc), free(c), free(q_a);
}

/* y += weight * down(act(gate x) * up x) */
static void feed(const struct apr_gpu_desc *d, const struct apr_gpu_mat *gate, const struct apr_gpu_mat *up,
                 const struct apr_gpu_mat *down, const double *h, double weight, double *y)
{
    double *g = room(up->n_rows), *u = room(up->n_rows), *out = room(down->n_rows);
    bool gated = gate && gate->data;
    times(up, h, u);
    if (gated) times(gate, h, g);
    for (size_t i = 0; i < up->n_rows; i++)
        u[i] = gated ? act(d->activation, g[i]) * u[i] : act(d->activation, u[i]);
    times(down, u, out);
    for (size_t i = 0; i < down->n_rows; i++) y[i] += weight * out[i];
    free(g), free(u), free(out);
}

static void limit_groups(const struct apr_gpu_desc *d, bool two, double *x)
{
    size_t n_each = d->n_experts / d->n_groups;
    for (size_t drop = d->n_groups - d->n_groups_used; drop; drop--) {
        size_t worst = d->n_groups;
        double worst_score = 0;
        for (size_t g = 0; g < d->n_groups; g++) {
            double a = -INFINITY, b = -INFINITY;
            for (size_t i = g * n_each; i < (g + 1) * n_each; i++) {
                if (x[i] > a)
                    b = a, a = x[i];
                else if (x[i] > b)
                    b = x[i];
            }
            double s = two ? a + b : a;
            if (s > -INFINITY && (worst == d->n_groups || s <= worst_score)) worst = g, worst_score = s;
        }
        for (size_t i = 0; i < n_each && worst < d->n_groups; i++) x[worst * n_each + i] = -INFINITY;
    }
}

static void experts(const struct apr_gpu_desc *d, const struct apr_gpu_experts *x, const double *h, double *y)
{
    size_t n = d->n_experts, best[64];
    double *p = room(n), *steer = room(n), top = -INFINITY, sum = 0, chosen = 0, w = 1;
    times(&x->router, h, p);
    for (size_t i = 0; i < n; i++) top = fmax(top, p[i]);
    for (size_t i = 0; i < n; i++) sum += p[i] = d->router_sigmoid ? 1 / (1 + exp(-p[i])) : exp(p[i] - top);
    for (size_t i = 0; i < n; i++) {
        if (!d->router_sigmoid) p[i] /= sum;
        steer[i] = p[i] + (x->router_bias ? (double)x->router_bias[i] : 0);
    }
    if (d->n_groups > 1) limit_groups(d, x->router_bias != NULL, steer);
    for (size_t k = 0; k < d->n_used; k++) {
        best[k] = 0;
        for (size_t i = 1; i < n; i++)
            if (steer[i] > steer[best[k]]) best[k] = i;
        steer[best[k]] = -INFINITY;
        chosen += p[best[k]];
    }
    for (size_t k = 0; k < d->n_used; k++)
        feed(d, x->gate ? &x->gate[best[k]] : NULL, &x->up[best[k]], &x->down[best[k]], h,
             p[best[k]] * (double)d->expert_scale / (d->norm_topk ? chosen : 1), y);
    if (x->shared_weight.data) times(&x->shared_weight, h, &w), w = 1 / (1 + exp(-w));
    if (x->shared_up.data) feed(d, &x->shared_gate, &x->shared_up, &x->shared_down, h, w, y);
    free(p), free(steer);
}

static void residual(const struct apr_gpu_desc *d, const float *post, double *y, double *x)
{
    rms(post, d->norm_eps, y, d->n_hidden);
    for (size_t i = 0; i < d->n_hidden; i++) x[i] += (double)d->residual_scale * y[i];
}

static void layer(const struct apr_gpu_desc *d, const struct apr_gpu_layer *l, struct seen *s, size_t pos,
                  double *x)
{
    double *h = room(d->n_hidden), *y = room(d->n_hidden),
           *att = room(d->n_heads * (d->kv_rank ? d->n_value : d->head_dim));
    norm(&l->attn_norm, d->norm_eps, x, d->n_hidden, h);
    (d->kv_rank ? latent : ordinary)(d, l, s, pos, h, att);
    times(&l->o, att, y);
    residual(d, l->post_attn_norm, y, x);
    if (!d->is_parallel) norm(&l->ffn_norm, d->norm_eps, x, d->n_hidden, h);
    memset(y, 0, d->n_hidden * sizeof *y);
    if (l->experts.router.data)
        experts(d, &l->experts, h, y);
    else
        feed(d, &l->gate, &l->up, &l->down, h, 1, y);
    residual(d, l->post_ffn_norm, y, x);
    free(h), free(y), free(att);
}

static void embed(const struct apr_gpu_desc *d, int32_t id, size_t pos, double *x)
{
    float *row = room(d->n_hidden);
    row_of(&d->embed, (size_t)id, row);
    for (size_t i = 0; i < d->n_hidden; i++) x[i] = (double)row[i] * (double)d->embed_scale;
    if (d->positions.data) {
        row_of(&d->positions, pos, row);
        for (size_t i = 0; i < d->n_hidden; i++) x[i] += (double)row[i];
    }
    free(row);
}

double *ref_describe(const struct apr_gpu_desc *d, const int32_t *ids, uint32_t n, bool is_long)
{
    size_t n_hidden = d->n_hidden, n_vocab = d->n_vocab;
    double *x = room(n * n_hidden), *logits = room(n * n_vocab), *h = room(n_hidden);
    struct seen s = {.k_dim = d->kv_rank ? d->kv_rank + d->n_rope : d->head_dim,
                     .v_dim = d->kv_rank ? d->kv_rank : d->head_dim};
    s.k = room(n * d->n_heads_kv * s.k_dim), s.v = room(n * d->n_heads_kv * s.v_dim);
    turns_long = is_long;
    for (size_t t = 0; t < n; t++) embed(d, ids[t], t, x + t * n_hidden);
    for (uint32_t i = 0; i < d->n_layers; i++)
        for (size_t t = 0; t < n; t++) layer(d, &d->layers[i], &s, t, x + t * n_hidden);
    for (size_t t = 0; t < n; t++) {
        norm(&d->final_norm, d->norm_eps, x + t * n_hidden, n_hidden, h);
        times(&d->head, h, logits + t * n_vocab);
        for (size_t i = 0; i < n_vocab; i++) {
            double *v = &logits[t * n_vocab + i], cap = (double)d->logit_softcap;
            *v *= (double)d->logit_scale;
            if (cap > 0) *v = cap * tanh(*v / cap);
        }
    }
    free(x), free(h), free(s.k), free(s.v);
    return logits;
}
