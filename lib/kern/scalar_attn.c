/* Attention over one page of the cache. */
#include "scalar.h"

#include <math.h>

void apr_scalar_scores_f16(const float *q, size_t n_q, const uint16_t *k, size_t k_stride, size_t n_pos,
                           size_t n_dim, float scale, float *scores, size_t s_stride)
{
    for (size_t j = 0; j < n_q; j++) {
        for (size_t p = 0; p < n_pos; p++) {
            float lane[8] = {0};
            for (size_t i = 0; i < n_dim; i++) {
                lane[i % 8] = fmaf(q[j * n_dim + i], apr_f16_to_f32(k[p * k_stride + i]), lane[i % 8]);
            }
            scores[j * s_stride + p] = scale * apr_scalar_tree(lane);
        }
    }
}

void apr_scalar_values_f16(const float *weights, size_t w_stride, size_t n_q, const uint16_t *v,
                           size_t v_stride, size_t n_pos, size_t n_dim, float *out)
{
    for (size_t j = 0; j < n_q; j++) {
        for (size_t p = 0; p < n_pos; p++) {
            float w = weights[j * w_stride + p];
            for (size_t i = 0; i < n_dim; i++) {
                out[j * n_dim + i] = fmaf(w, apr_f16_to_f32(v[p * v_stride + i]), out[j * n_dim + i]);
            }
        }
    }
}

void apr_scalar_scores_f32(const float *q, size_t n_q, const float *k, size_t k_stride, size_t n_pos,
                           size_t n_dim, float scale, float *scores, size_t s_stride)
{
    for (size_t j = 0; j < n_q; j++) {
        for (size_t p = 0; p < n_pos; p++) {
            scores[j * s_stride + p] = scale * apr_scalar_dot(q + j * n_dim, k + p * k_stride, n_dim);
        }
    }
}

void apr_scalar_values_f32(const float *weights, size_t w_stride, size_t n_q, const float *v, size_t v_stride,
                           size_t n_pos, size_t n_dim, float *out)
{
    for (size_t j = 0; j < n_q; j++) {
        for (size_t p = 0; p < n_pos; p++) {
            float w = weights[j * w_stride + p];
            for (size_t i = 0; i < n_dim; i++) {
                out[j * n_dim + i] = fmaf(w, v[p * v_stride + i], out[j * n_dim + i]);
            }
        }
    }
}
