/* Reference forward pass of Qwen2-shaped decoders. */
#include "ref_forward.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

struct mat {
    float *w; /* [n_rows, n_cols], owned */
    size_t n_rows, n_cols;
};

static void *room(size_t n, size_t n_each)
{
    void *p = calloc(n, n_each);
    if (!p) abort();
    return p;
}

static struct mat widen(const struct apr_tensor *t)
{
    if (!t) return (struct mat){0};
    struct mat m = {.n_rows = apr_tensor_rows(t), .n_cols = apr_tensor_cols(t)};
    m.w = room(m.n_rows * m.n_cols, sizeof *m.w);
    apr_quant_of(t->type)->to_f32(t->data, m.w, m.n_rows * m.n_cols);
    return m;
}

static struct mat role(const struct apr_model *m, enum apr_role r, uint32_t i_layer)
{
    return widen(apr_model_role(m, r, i_layer));
}

/* y[t, :] = W x[t, :] + b, for n tokens. */
static void linear(const struct mat *w, const struct mat *b, const double *x, double *y, size_t n)
{
    for (size_t t = 0; t < n; t++)
        for (size_t r = 0; r < w->n_rows; r++) {
            const float *row = w->w + r * w->n_cols;
            const double *in = x + t * w->n_cols;
            double sum = 0;
            for (size_t k = 0; k < w->n_cols; k++) sum += (double)row[k] * in[k];
            y[t * w->n_rows + r] = sum + (b && b->w ? (double)b->w[r] : 0);
        }
}

static void rmsnorm(const double *x, const struct mat *w, double eps, double *y, size_t n_toks)
{
    size_t n = w->n_rows * w->n_cols;
    for (size_t t = 0; t < n_toks; t++) {
        double sum = 0;
        for (size_t i = 0; i < n; i++) sum += x[t * n + i] * x[t * n + i];
        double scale = 1 / sqrt(sum / (double)n + eps);
        for (size_t i = 0; i < n; i++) y[t * n + i] = x[t * n + i] * scale * (double)w->w[i];
    }
}

/* Half-split rotation of every head of every token. */
static void rope(double *x, const struct apr_config *c, size_t n_heads, size_t n_toks)
{
    size_t d = c->head_dim;
    for (size_t t = 0; t < n_toks; t++)
        for (size_t h = 0; h < n_heads; h++)
            for (size_t i = 0; i < d / 2; i++) {
                double *at = x + (t * n_heads + h) * d + i, a = at[0], b = at[d / 2];
                double angle = (double)t * pow(c->rope_theta, -2.0 * (double)i / (double)d);
                at[0] = a * cos(angle) - b * sin(angle);
                at[d / 2] = b * cos(angle) + a * sin(angle);
            }
}

/* out[t, h, :] = sum over s <= t of softmax(q.k / sqrt(d)) v */
static void attention(const double *q, const double *k, const double *v, double *out,
                      const struct apr_config *c, size_t n)
{
    size_t d = c->head_dim, n_group = c->n_heads / c->n_heads_kv;
    double *p = room(n, sizeof *p);
    for (size_t t = 0; t < n; t++)
        for (size_t h = 0; h < c->n_heads; h++) {
            const double *qh = q + (t * c->n_heads + h) * d;
            double max = -INFINITY, sum = 0;
            for (size_t s = 0; s <= t; s++) {
                const double *kh = k + (s * c->n_heads_kv + h / n_group) * d;
                p[s] = 0;
                for (size_t i = 0; i < d; i++) p[s] += qh[i] * kh[i];
                p[s] /= sqrt((double)d);
                max = fmax(max, p[s]);
            }
            for (size_t s = 0; s <= t; s++) sum += p[s] = exp(p[s] - max);
            double *o = out + (t * c->n_heads + h) * d;
            memset(o, 0, d * sizeof *o);
            for (size_t s = 0; s <= t; s++)
                for (size_t i = 0; i < d; i++)
                    o[i] += p[s] / sum * v[(s * c->n_heads_kv + h / n_group) * d + i];
        }
    free(p);
}

struct state {
    double *x, *h, *q, *k, *v, *att, *gate, *up, *y;
};

static void project(const struct apr_model *m, enum apr_role r, enum apr_role r_bias, uint32_t i_layer,
                    const double *x, double *y, size_t n)
{
    struct mat w = role(m, r, i_layer), b = r_bias ? role(m, r_bias, i_layer) : (struct mat){0};
    linear(&w, &b, x, y, n);
    free(w.w);
    free(b.w);
}

static void layer(const struct apr_model *m, uint32_t i, const struct state *s, size_t n)
{
    const struct apr_config *c = &m->config;
    struct mat attn_norm = role(m, APR_ROLE_ATTN_NORM, i), ffn_norm = role(m, APR_ROLE_FFN_NORM, i);
    rmsnorm(s->x, &attn_norm, c->norm_eps, s->h, n);
    project(m, APR_ROLE_Q, APR_ROLE_Q_BIAS, i, s->h, s->q, n);
    project(m, APR_ROLE_K, APR_ROLE_K_BIAS, i, s->h, s->k, n);
    project(m, APR_ROLE_V, APR_ROLE_V_BIAS, i, s->h, s->v, n);
    rope(s->q, c, c->n_heads, n);
    rope(s->k, c, c->n_heads_kv, n);
    attention(s->q, s->k, s->v, s->att, c, n);
    project(m, APR_ROLE_O, APR_ROLE_NONE, i, s->att, s->y, n);
    for (size_t k = 0; k < n * c->n_hidden; k++) s->x[k] += s->y[k];
    rmsnorm(s->x, &ffn_norm, c->norm_eps, s->h, n);
    project(m, APR_ROLE_GATE, APR_ROLE_NONE, i, s->h, s->gate, n);
    project(m, APR_ROLE_UP, APR_ROLE_NONE, i, s->h, s->up, n);
    for (size_t k = 0; k < n * c->n_inter; k++) s->up[k] *= s->gate[k] / (1 + exp(-s->gate[k]));
    project(m, APR_ROLE_DOWN, APR_ROLE_NONE, i, s->up, s->y, n);
    for (size_t k = 0; k < n * c->n_hidden; k++) s->x[k] += s->y[k];
    free(attn_norm.w);
    free(ffn_norm.w);
}

double *ref_forward(const struct apr_model *m, const int32_t *ids, size_t n)
{
    const struct apr_config *c = &m->config;
    size_t n_q = (size_t)c->n_heads * c->head_dim, n_kv = (size_t)c->n_heads_kv * c->head_dim;
    struct state s = {
        .x = room(n * c->n_hidden, sizeof(double)),
        .h = room(n * c->n_hidden, sizeof(double)),
        .q = room(n * n_q, sizeof(double)),
        .k = room(n * n_kv, sizeof(double)),
        .v = room(n * n_kv, sizeof(double)),
        .att = room(n * n_q, sizeof(double)),
        .gate = room(n * c->n_inter, sizeof(double)),
        .up = room(n * c->n_inter, sizeof(double)),
        .y = room(n * c->n_hidden, sizeof(double)),
    };
    struct mat embed = role(m, APR_ROLE_EMBED, 0), norm = role(m, APR_ROLE_FINAL_NORM, 0);
    for (size_t t = 0; t < n; t++)
        for (size_t i = 0; i < c->n_hidden; i++)
            s.x[t * c->n_hidden + i] = (double)embed.w[(size_t)ids[t] * c->n_hidden + i];
    for (uint32_t i = 0; i < c->n_layers; i++) layer(m, i, &s, n);
    rmsnorm(s.x, &norm, c->norm_eps, s.h, n);
    struct mat head = role(m, APR_ROLE_LM_HEAD, 0);
    double *logits = room(n * c->n_vocab, sizeof *logits);
    linear(head.w ? &head : &embed, NULL, s.h, logits, n);
    double *const all[] = {s.x, s.h, s.q, s.k, s.v, s.att, s.gate, s.up, s.y};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) free(all[i]);
    free(embed.w);
    free(norm.w);
    free(head.w);
    return logits;
}
