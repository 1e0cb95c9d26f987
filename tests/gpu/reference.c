/* A decoder in double, as its formulas stand: RMSNorm, rotation of (i, i + d / 2) by pos * inv_freq[i] (Su et
 * al. 2021), causal attention of grouped heads, SwiGLU. See toy.h. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "toy.h"

static double *doubles(size_t n)
{
    double *p = calloc(n + 1, sizeof *p);
    if (!p) {
        fprintf(stderr, "hazards: no memory for a reference\n");
        exit(6);
    }
    return p;
}

static void norm(const double *x, const float *w, uint32_t n, double *y)
{
    double sum = 0;
    for (uint32_t i = 0; i < n; i++) sum += x[i] * x[i];
    double f = 1 / sqrt(sum / n + 1e-6);
    for (uint32_t i = 0; i < n; i++) y[i] = x[i] * f * (double)w[i];
}
static void product(const float *w, const float *bias, const double *x, uint32_t n_rows, uint32_t n_cols,
                    uint32_t n_used, double *y)
{
    for (uint32_t r = 0; r < n_rows; r++) {
        double sum = bias ? (double)bias[r] : 0;
        for (uint32_t i = 0; i < n_used; i++) sum += (double)w[(size_t)r * n_cols + i] * x[i];
        y[r] = sum;
    }
}
static void rotate(const struct toy *t, double *x, uint32_t n_heads, uint32_t pos)
{
    uint32_t half = t->head_dim / 2;
    for (uint32_t h = 0; h < n_heads; h++, x += t->head_dim)
        for (uint32_t i = 0; i < half; i++) {
            double c = cos(pos * t->inv_freq[i]), s = sin(pos * t->inv_freq[i]), a = x[i], b = x[i + half];
            x[i] = a * c - b * s;
            x[i + half] = b * c + a * s;
        }
}
static double as_bf16(double x)
{
    float f = (float)x;
    uint32_t u;
    memcpy(&u, &f, 4);
    u = (u + 0x7fff + (u >> 16 & 1)) & 0xffff0000u;
    memcpy(&f, &u, 4);
    return (double)f;
}

/* c tanh(x / c) (Gemma 2, 2.3); 0: none */
static double softcap(double x, double c)
{
    return c > 0 ? c * tanh(x / c) : x;
}

/* Positions before n_seen, the window's last ones of them. */
static void attend(const struct toy *t, const double *q, const double *k, const double *v, uint32_t n_seen,
                   const struct toy_quirks *quirks, double *out)
{
    uint32_t window = t->window ? t->window + (quirks->window_more ? 1 : 0) : n_seen,
             n_out = n_seen > window ? n_seen - window : 0;
    uint32_t d = t->head_dim, n_kv = t->n_heads_kv * d, group = t->n_heads / t->n_heads_kv;
    double *p = doubles(n_seen);
    for (uint32_t h = 0; h < t->n_heads; h++) {
        double top = -INFINITY, sum = 0;
        uint32_t at = h / group * d;
        for (uint32_t j = n_out; j < n_seen; j++) {
            p[j] = 0;
            for (uint32_t i = 0; i < d; i++) p[j] += q[h * d + i] * k[(size_t)j * n_kv + at + i];
            p[j] = softcap(p[j] / sqrt(d), quirks->no_softcap ? 0 : t->attn_softcap);
            top = p[j] > top ? p[j] : top;
        }
        for (uint32_t j = n_out; j < n_seen; j++) sum += p[j] = exp(p[j] - top);
        for (uint32_t i = 0; i < d; i++) {
            double y = 0;
            for (uint32_t j = n_out; j < n_seen; j++) y += p[j] / sum * v[(size_t)j * n_kv + at + i];
            out[h * d + i] = y;
        }
    }
    free(p);
}

struct room {
    double *x, *k, *v; /* [n, n_hidden], [n, n_kv] */
    double *h, *q, *att, *gate, *up, *y;
};

static void token(const struct toy *t, const struct toy_layer *l, uint32_t pos,
                  const struct toy_quirks *quirks, const struct room *r)
{
    uint32_t n_q = t->n_heads * t->head_dim;
    double *x = r->x + (size_t)pos * t->n_hidden;
    norm(x, l->attn_norm, t->n_hidden, r->h);
    product(l->w[TOY_Q], l->q_bias, r->h, n_q, t->n_hidden, t->n_hidden, r->q);
    rotate(t, r->q, t->n_heads, pos);
    attend(t, r->q, r->k, r->v, pos + (quirks->last_unseen && pos ? 0 : 1), quirks, r->att);
    product(l->w[TOY_O], NULL, r->att, t->n_hidden, n_q, n_q, r->y);
    for (uint32_t i = 0; i < t->n_hidden; i++) x[i] += r->y[i];
    norm(x, l->ffn_norm, t->n_hidden, r->h);
    product(l->w[TOY_GATE], NULL, r->h, t->n_inter, t->n_hidden, t->n_hidden, r->gate);
    product(l->w[TOY_UP], NULL, r->h, t->n_inter, t->n_hidden, t->n_hidden, r->up);
    for (uint32_t i = 0; i < t->n_inter; i++) r->up[i] *= r->gate[i] / (1 + exp(-r->gate[i]));
    product(l->w[TOY_DOWN], NULL, r->up, t->n_hidden, t->n_inter, t->n_inter - quirks->n_dropped, r->y);
    for (uint32_t i = 0; i < t->n_hidden; i++) x[i] += r->y[i];
}

/* Keys and values of all tokens first, then the tokens from i_first on. */
static void layer(const struct toy *t, const struct toy_layer *l, uint32_t n, uint32_t i_first,
                  const struct toy_quirks *quirks, const struct room *r)
{
    uint32_t n_kv = t->n_heads_kv * t->head_dim;
    for (uint32_t p = 0; p < n; p++) {
        double *k = r->k + (size_t)p * n_kv;
        norm(r->x + (size_t)p * t->n_hidden, l->attn_norm, t->n_hidden, r->h);
        product(l->w[TOY_K], quirks->no_k_bias ? NULL : l->k_bias, r->h, n_kv, t->n_hidden, t->n_hidden, k);
        product(l->w[TOY_V], l->v_bias, r->h, n_kv, t->n_hidden, t->n_hidden, r->v + (size_t)p * n_kv);
        rotate(t, k, t->n_heads_kv, p);
        for (uint32_t i = 0; quirks->k_bf16 && i < n_kv; i++) k[i] = as_bf16(k[i]);
    }
    for (uint32_t p = i_first; p < n; p++) token(t, l, p, quirks, r);
}

void toy_reference(const struct toy *t, const int32_t *ids, uint32_t n, uint32_t n_rows,
                   const struct toy_quirks *quirks, double *logits)
{
    uint32_t n_q = t->n_heads * t->head_dim, n_kv = t->n_heads_kv * t->head_dim;
    struct room r = {doubles((size_t)n * t->n_hidden),
                     doubles((size_t)n * n_kv),
                     doubles((size_t)n * n_kv),
                     doubles(t->n_hidden),
                     doubles(n_q),
                     doubles(n_q),
                     doubles(t->n_inter),
                     doubles(t->n_inter),
                     doubles(t->n_hidden)};
    for (uint32_t p = 0; p < n; p++)
        for (uint32_t i = 0; i < t->n_hidden; i++)
            r.x[(size_t)p * t->n_hidden + i] = (double)t->embed[(size_t)ids[p] * t->n_hidden + i];
    for (uint32_t i = 0; i < t->n_layers; i++)
        layer(t, &t->layers[i], n, i + 1 < t->n_layers ? 0 : n - n_rows, quirks, &r);
    for (uint32_t p = n - n_rows; p < n; p++) {
        norm(r.x + (size_t)p * t->n_hidden, t->final_norm, t->n_hidden, r.h);
        product(t->head, NULL, r.h, t->n_vocab, t->n_hidden, t->n_hidden,
                logits + (size_t)(p + n_rows - n) * t->n_vocab);
    }
    for (size_t i = 0; i < (size_t)n_rows * t->n_vocab; i++) logits[i] = softcap(logits[i], t->logit_softcap);
    double *all[] = {r.x, r.k, r.v, r.h, r.q, r.att, r.gate, r.up, r.y};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) free(all[i]);
}
