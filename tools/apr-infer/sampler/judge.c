/* The rule of acceptance and the residual. */
#include "judge.h"

/* q(id), 0 where it is not among the candidates. */
static double q_of(const struct apr_proposal *x, int32_t id)
{
    size_t lo = 0, hi = x->n_q;
    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;
        if (x->q[mid].id < id)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo < x->n_q && x->q[lo].id == id ? x->q[lo].p : 0;
}

/* What remains of p(i) after q has been taken away. */
static double residual(const struct apr_cand *p, double sum, const struct apr_proposal *x)
{
    double left = p->p / sum - q_of(x, p->id);
    return left > 0 ? left : 0;
}

size_t apr_judge(const struct apr_cand *p, size_t n, const struct apr_proposal *x, double u_accept,
                 double u_draw)
{
    double sum = 0, total = 0, run = 0;
    size_t at = n, last = n;
    for (size_t i = 0; i < n; i++) {
        sum += p[i].p;
        if (p[i].id == x->id) at = i;
    }
    if (at < n && u_accept * q_of(x, x->id) < p[at].p / sum) return at;
    for (size_t i = 0; i < n; i++) total += residual(&p[i], sum, x);
    bool is_empty = total <= 0; /* p = q up to rounding, where a rejection has no probability: p itself */
    double goal = u_draw * (is_empty ? sum : total);
    for (size_t i = 0; i < n; i++) {
        double w = is_empty ? p[i].p : residual(&p[i], sum, x);
        if (w <= 0) continue;
        last = i;
        run += w;
        if (goal < run) break;
    }
    return last;
}
