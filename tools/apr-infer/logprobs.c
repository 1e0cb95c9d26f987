/* log softmax of single tokens. */
#include "logprobs.h"

#include <assert.h>
#include <math.h>
#include <string.h>

#define MAX_BYTES ((size_t)1 << 30)

void apr_logprobs_init(struct apr_logprobs *l, size_t n_top)
{
    *l = (struct apr_logprobs){.n_top = n_top};
    apr_buf_init(&l->rows, MAX_BYTES);
}

void apr_logprobs_free(struct apr_logprobs *l)
{
    apr_buf_free(&l->rows);
}

/* The n_top largest, the first of equals before the others, into top; by insertion, for n_top is small. */
static size_t find_top(const float *logits, size_t n_vocab, size_t n_top, int32_t *top)
{
    size_t n = 0;
    for (size_t i = 0; i < n_vocab; i++) {
        if (n == n_top && !(n && logits[i] > logits[top[n - 1]])) continue;
        size_t at = n < n_top ? n++ : n - 1;
        while (at && logits[i] > logits[top[at - 1]]) {
            top[at] = top[at - 1];
            at--;
        }
        top[at] = (int32_t)i;
    }
    return n;
}

enum apr_code apr_logprobs_add(struct apr_logprobs *l, const float *logits, size_t n_vocab, int32_t id,
                               struct apr_err *e)
{
    int32_t top[APR_MAX_LOGPROBS];
    struct apr_logprob row[1 + APR_MAX_LOGPROBS];
    float max = -INFINITY;
    double sum = 0;
    assert(n_vocab > 0);
    for (size_t i = 0; i < n_vocab; i++)
        if (logits[i] > max) max = logits[i];
    for (size_t i = 0; i < n_vocab; i++) sum += exp((double)logits[i] - (double)max);
    double log_sum = (double)max + log(sum);
    size_t n = find_top(logits, n_vocab, l->n_top, top);
    row[0] = (struct apr_logprob){id, (double)logits[id] - log_sum};
    for (size_t i = 0; i < l->n_top; i++)
        row[1 + i] = i < n ? (struct apr_logprob){top[i], (double)logits[top[i]] - log_sum}
                           : (struct apr_logprob){-1, -INFINITY};
    l->n_toks++;
    return apr_buf_append(&l->rows, row, (1 + l->n_top) * sizeof *row, e);
}

const struct apr_logprob *apr_logprobs_at(const struct apr_logprobs *l, size_t i_tok)
{
    return (const struct apr_logprob *)(const void *)l->rows.data + i_tok * (1 + l->n_top);
}
