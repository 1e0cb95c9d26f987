/* Spherical linear interpolation of two models, each tensor taken as one vector.
 *
 * Shoemake 1985, "Animating rotation with quaternion curves", section 3.3:
 *     out = sin((1 - t) w) / sin(w) * a + sin(t w) / sin(w) * b,    cos(w) = a b / (|a| |b|).
 * The angle is that of the directions; the coefficients apply to the vectors as they are, so that lengths
 * move from one to the other. Where there is no arc (a zero vector, vectors that point the same or the
 * opposite way) the interpolation is linear.
 */
#include <math.h>

#include "merge.h"

#define LEAST_NORM  1e-12
#define LEAST_ANGLE 1e-6
#define COEF_STEP                                                                                            \
    0x1p-40 /* coefficients are rounded to it, so that the last bits of a libm do not reach a file */

struct sums {
    double ab, aa, bb;
};

static void measure(struct merge_chunk *c)
{
    struct sums s = {0, 0, 0};
    for (size_t i = 0; i < c->n; i++) {
        double a = (double)c->x[0][i], b = (double)c->x[1][i];
        s.ab += a * b;
        s.aa += a * a;
        s.bb += b * b;
    }
    ((struct sums *)c->ctx)[c->i_chunk] = s;
}

static double rounded(double v)
{
    return nearbyint(v / COEF_STEP) * COEF_STEP;
}

static void coefficients(const struct sums *s, double t, double coef[2])
{
    double norm_a = sqrt(s->aa), norm_b = sqrt(s->bb), angle = 0;
    coef[0] = 1 - t;
    coef[1] = t;
    if (norm_a < LEAST_NORM || norm_b < LEAST_NORM) return;
    angle = acos(fmax(-1, fmin(1, s->ab / (norm_a * norm_b))));
    if (sin(angle) < LEAST_ANGLE) return;
    coef[0] = rounded(sin((1 - t) * angle) / sin(angle));
    coef[1] = rounded(sin(t * angle) / sin(angle));
}

enum apr_code merge_slerp_prepare(struct merge *g, struct apr_err *e)
{
    struct apr_arena arena;
    struct sums *parts, all = {0, 0, 0};
    size_t n_chunks = (size_t)((g->now.n_elems + MERGE_CHUNK - 1) / MERGE_CHUNK);
    apr_arena_init(&arena);
    enum apr_code code = apr_arena_try(&arena, &parts, n_chunks + 1, sizeof *parts, "sums of a tensor", e);
    if (code == APR_OK) code = merge_pass(g, 0, g->now.n_elems, MERGE_ALL, NULL, measure, parts, e);
    for (size_t i = 0; code == APR_OK && i < n_chunks; i++) {
        all.ab += parts[i].ab;
        all.aa += parts[i].aa;
        all.bb += parts[i].bb;
    }
    apr_arena_free(&arena);
    coefficients(&all, g->params.t, g->now.coef);
    return code;
}

uint64_t merge_slerp_bytes(uint64_t n_elems, unsigned n_threads)
{
    (void)n_threads;
    return (n_elems / MERGE_CHUNK + 2) * sizeof(struct sums);
}

void merge_slerp_mix(struct merge_chunk *c)
{
    const double *w = c->g->now.coef;
    for (size_t i = 0; i < c->n; i++)
        c->out[i] = (float)(w[0] * (double)c->x[0][i] + w[1] * (double)c->x[1][i]);
}
