/* The body of the fits, included once by a file for each instruction set, which defines v8, m8, v8_select,
 * v8_max, v8_min, v8_sqrt, FIT_NAME and FIT_TEXT. Only additions, multiplications, divisions and square roots
 * of single precision are used, each rounded on its own: every instruction set computes the same bits.
 *
 * Weighted least squares for given levels l: with sums S = w, L = w l, LL = w l^2, X = w x, XL = w x l the
 * model x = a l + b has a = (S XL - X L) / D, b = (LL X - L XL) / D, D = S LL - L^2, and the squared error is
 * w x^2 less a gain of a (2 XL - a LL - 2 b L) + b (2 X - b S).
 */

static inline v8 v8_of(float f)
{
    return (v8){f, f, f, f, f, f, f, f};
}

static inline v8 v8_at(const float *p)
{
    return *(const v8 *)p;
}

/* To the nearest integer, ties to even; |a| < 2^22. */
static inline v8 v8_round(v8 a)
{
    return (a + 12582912.0F) - 12582912.0F;
}

static inline v8 v8_abs(v8 a)
{
    return (v8)((m8)a & 0x7fffffff);
}

static inline v8 level(v8 x, v8 inv, v8 low, v8 high)
{
    return v8_round(v8_min(v8_max(x * inv, low), high));
}

/* 1 / a, and 0 where a is 0 or so small that the quotient would overflow. */
static inline v8 inverse(v8 a)
{
    return v8_select(v8_abs(a) > 0x1p-126F, 1.0F / a, v8_of(0));
}

static void load(struct apr_group *g, const float *x, const float *weights, uint32_t n_elems,
                 enum apr_fit_weight kind)
{
    g->n_elems = n_elems;
    v8 sum = v8_of(0);
    for (uint32_t i = 0; i < n_elems; i++) {
        const float *p = x + i;
        uint32_t n = n_elems;
        v8 v = {p[0], p[n], p[2 * n], p[3 * n], p[4 * n], p[5 * n], p[6 * n], p[7 * n]};
        *(v8 *)g->x[i] = v;
        sum += v * v;
    }
    v8 mean = sum / (float)n_elems, root = v8_sqrt(mean);
    for (uint32_t i = 0; i < n_elems; i++) {
        v8 v = v8_at(g->x[i]), w = v8_of(1);
        if (weights) {
            const float *p = weights + i;
            uint32_t n = n_elems;
            w = (v8){p[0], p[n], p[2 * n], p[3 * n], p[4 * n], p[5 * n], p[6 * n], p[7 * n]};
            if (kind == APR_FIT_LARGER) w = w * v8_sqrt(2.0F * mean + v * v);
        } else if (kind == APR_FIT_LARGER) {
            w = root + v8_abs(v);
        }
        *(v8 *)g->w[i] = w;
    }
}

static void affine(const struct apr_group *g, const struct apr_fit_spec *spec, float *scale, float *min)
{
    uint32_t n = g->n_elems;
    v8 low = v8_at(g->x[0]), high = low;
    for (uint32_t i = 1; i < n; i++) {
        low = v8_min(low, v8_at(g->x[i]));
        high = v8_max(high, v8_at(g->x[i]));
    }
    if (!spec->any_min) low = v8_min(low, v8_of(0));

    /* Sums are taken over y = x - low, which keeps them well conditioned when all of x is far from 0. */
    v8 y[APR_FIT_ELEMS], wy[APR_FIT_ELEMS], s = v8_of(0), sy = v8_of(0);
    for (uint32_t i = 0; i < n; i++) {
        v8 w = v8_at(g->w[i]);
        y[i] = v8_at(g->x[i]) - low;
        wy[i] = w * y[i];
        s += w;
        sy += wy[i];
    }
    float top = (float)(spec->n_levels - 1);
    v8 inv_range = inverse(high - low), best_a = (high - low) / top, best_b = v8_of(0), best = v8_of(-1);
    for (int c = 0; c < spec->n_candidates + spec->n_refits; c++) {
        v8 inv = c < spec->n_candidates ? (top + spec->first + (float)c * spec->step) * inv_range
                                        : inverse(best_a);
        v8 offset = best_b * inv;
        v8 sl = v8_of(0), sll = v8_of(0), syl = v8_of(0);
        for (uint32_t i = 0; i < n; i++) {
            v8 l = v8_round(v8_min(v8_max(y[i] * inv - offset, v8_of(0)), v8_of(top)));
            v8 wl = v8_at(g->w[i]) * l;
            sl += wl;
            sll += wl * l;
            syl += wy[i] * l;
        }
        v8 det = s * sll - sl * sl;
        v8 a = (s * syl - sy * sl) / det, b = (sll * sy - sl * syl) / det;
        if (!spec->any_min) { /* b + low <= 0 */
            m8 over = b > -low;
            b = v8_select(over, -low, b);
            a = v8_select(over, (syl + low * sl) / sll, a);
        }
        v8 gain = a * (2.0F * syl - a * sll - 2.0F * b * sl) + b * (2.0F * sy - b * s);
        m8 better = (gain > best) & (det > 0.0F) & (a > 0.0F);
        best = v8_select(better, gain, best);
        best_a = v8_select(better, a, best_a);
        best_b = v8_select(better, b, best_b);
    }
    *(v8 *)scale = best_a;
    *(v8 *)min = -(best_b + low);
}

static inline v8 affine_error(const struct apr_group *g, v8 a, v8 m, v8 top)
{
    v8 inv = inverse(a), offset = m * inv, error = v8_of(0);
    for (uint32_t i = 0; i < g->n_elems; i++) {
        v8 x = v8_at(g->x[i]);
        v8 l = v8_round(v8_min(v8_max(x * inv + offset, v8_of(0)), top));
        v8 off = (a * l - m) - x;
        error += v8_at(g->w[i]) * (off * off);
    }
    return error;
}

static void affine_refine(const struct apr_group *g, const struct apr_fit_spec *spec, float d, float dmin,
                          int32_t *scale, int32_t *min)
{
    v8 top = v8_of((float)(spec->n_levels - 1)), limit = v8_of((float)spec->max_scale);
    v8 scale_0 = __builtin_convertvector(*(m8 *)scale, v8), min_0 = __builtin_convertvector(*(m8 *)min, v8);
    v8 best_s = scale_0, best_m = min_0, best = affine_error(g, d * scale_0, dmin * min_0, top);
    for (int i = -spec->reach; i <= spec->reach; i++) {
        for (int k = -spec->reach; k <= spec->reach; k++) {
            if (i == 0 && k == 0) continue;
            v8 s = v8_min(v8_max(scale_0 + (float)i, v8_of(0)), limit);
            v8 m = v8_min(v8_max(min_0 + (float)k, v8_of(0)), limit);
            v8 error = affine_error(g, d * s, dmin * m, top);
            m8 better = error < best;
            best = v8_select(better, error, best);
            best_s = v8_select(better, s, best_s);
            best_m = v8_select(better, m, best_m);
        }
    }
    *(m8 *)scale = __builtin_convertvector(best_s, m8);
    *(m8 *)min = __builtin_convertvector(best_m, m8);
}

static inline void put_levels(v8 l, uint32_t i, uint32_t n_elems, uint8_t *levels)
{
    m8 v = __builtin_convertvector(l, m8);
    for (uint32_t j = 0; j < APR_FIT_LANES; j++) levels[j * n_elems + i] = (uint8_t)v[j];
}

static void affine_levels(const struct apr_group *g, const struct apr_fit_spec *spec, const float *scale,
                          const float *min, uint8_t *levels)
{
    v8 inv = inverse(v8_at(scale)), offset = v8_at(min) * inv, top = v8_of((float)(spec->n_levels - 1));
    for (uint32_t i = 0; i < g->n_elems; i++) {
        v8 l = v8_round(v8_min(v8_max(v8_at(g->x[i]) * inv + offset, v8_of(0)), top));
        put_levels(l, i, g->n_elems, levels);
    }
}

/* How many of the 15 middles between apr_iq4_values lie below y (its index), and the value there. */
static inline v8 uneven_level(v8 y, v8 *value)
{
    v8 index = v8_of(0);
    *value = v8_of(apr_iq4_values[0]);
    for (int k = 0; k < 15; k++) {
        float low = apr_iq4_values[k], high = apr_iq4_values[k + 1];
        m8 above = y > v8_of(0.5F * (low + high));
        index += v8_select(above, v8_of(1), v8_of(0));
        *value += v8_select(above, v8_of(high - low), v8_of(0));
    }
    return index;
}

/* What l is when x / scale is rounded. */
struct levels {
    bool is_uneven;
    float half;
};

static inline struct levels levels_of(const struct apr_fit_spec *spec, bool is_uneven)
{
    return (struct levels){is_uneven, is_uneven ? 127 : 0.5F * (float)spec->n_levels};
}

static inline v8 rounded(struct levels k, v8 x, v8 inv)
{
    v8 value;
    if (!k.is_uneven) return level(x, inv, v8_of(-k.half), v8_of(k.half - 1));
    (void)uneven_level(x * inv, &value);
    return value;
}

/* The level where the extreme value goes; uneven levels are not alike on both sides, so it tries both ends.
 */
static inline float candidate(const struct apr_fit_spec *spec, struct levels k, int c)
{
    if (!k.is_uneven) return -(k.half + spec->first + (float)c * spec->step);
    int i_step = c / 2;
    float beyond = spec->first + (float)i_step * spec->step;
    return c % 2 == 0 ? (float)apr_iq4_values[0] - beyond : (float)apr_iq4_values[15] + beyond;
}

static inline __attribute__((always_inline)) void symmetric_of(const struct apr_group *g,
                                                               const struct apr_fit_spec *spec,
                                                               struct levels k, float *scale)
{
    uint32_t n = g->n_elems;
    v8 extreme = v8_at(g->x[0]);
    for (uint32_t i = 1; i < n; i++) {
        v8 x = v8_at(g->x[i]);
        extreme = v8_select(v8_abs(x) > v8_abs(extreme), x, extreme);
    }
    v8 wx[APR_FIT_ELEMS];
    for (uint32_t i = 0; i < n; i++) wx[i] = v8_at(g->w[i]) * v8_at(g->x[i]);
    v8 inv_extreme = inverse(extreme), best_a = extreme / -k.half, best = v8_of(0);
    for (int c = 0; c < spec->n_candidates + spec->n_refits; c++) {
        v8 inv = c < spec->n_candidates ? candidate(spec, k, c) * inv_extreme : inverse(best_a);
        v8 sll = v8_of(0), sxl = v8_of(0);
        for (uint32_t i = 0; i < n; i++) {
            v8 l = rounded(k, v8_at(g->x[i]), inv);
            sll += v8_at(g->w[i]) * l * l;
            sxl += wx[i] * l;
        }
        v8 a = sxl / sll, gain = a * sxl;
        m8 better = (gain > best) & (sll > 0.0F);
        best = v8_select(better, gain, best);
        best_a = v8_select(better, a, best_a);
    }
    *(v8 *)scale = best_a;
}

static void symmetric(const struct apr_group *g, const struct apr_fit_spec *spec, float *scale)
{
    if (spec->is_uneven)
        symmetric_of(g, spec, levels_of(spec, true), scale);
    else
        symmetric_of(g, spec, levels_of(spec, false), scale);
}

static inline v8 symmetric_error(const struct apr_group *g, v8 a, struct levels k)
{
    v8 inv = inverse(a), error = v8_of(0);
    for (uint32_t i = 0; i < g->n_elems; i++) {
        v8 x = v8_at(g->x[i]), off = a * rounded(k, x, inv) - x;
        error += v8_at(g->w[i]) * (off * off);
    }
    return error;
}

static inline __attribute__((always_inline)) void symmetric_refine_of(const struct apr_group *g,
                                                                      const struct apr_fit_spec *spec,
                                                                      struct levels k, float d,
                                                                      int32_t *scale)
{
    float limit = (float)spec->max_scale;
    v8 scale_0 = __builtin_convertvector(*(m8 *)scale, v8), best_s = scale_0;
    v8 best = symmetric_error(g, d * scale_0, k);
    for (int i = -spec->reach; i <= spec->reach; i++) {
        if (i == 0) continue;
        v8 s = v8_min(v8_max(scale_0 + (float)i, v8_of(-limit - 1)), v8_of(limit));
        v8 error = symmetric_error(g, d * s, k);
        m8 better = error < best;
        best = v8_select(better, error, best);
        best_s = v8_select(better, s, best_s);
    }
    *(m8 *)scale = __builtin_convertvector(best_s, m8);
}

static void symmetric_refine(const struct apr_group *g, const struct apr_fit_spec *spec, float d,
                             int32_t *scale)
{
    if (spec->is_uneven)
        symmetric_refine_of(g, spec, levels_of(spec, true), d, scale);
    else
        symmetric_refine_of(g, spec, levels_of(spec, false), d, scale);
}

static void symmetric_levels(const struct apr_group *g, const struct apr_fit_spec *spec, const float *scale,
                             uint8_t *levels)
{
    struct levels k = levels_of(spec, spec->is_uneven);
    v8 inv = inverse(v8_at(scale)), value;
    for (uint32_t i = 0; i < g->n_elems; i++) {
        v8 x = v8_at(g->x[i]);
        v8 l = k.is_uneven ? uneven_level(x * inv, &value) : rounded(k, x, inv) + k.half;
        put_levels(l, i, g->n_elems, levels);
    }
}

const struct apr_fit FIT_NAME = {FIT_TEXT,      load,      affine,           affine_refine,
                                 affine_levels, symmetric, symmetric_refine, symmetric_levels};
