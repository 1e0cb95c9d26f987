/* The body of the fits, included once by a file for each instruction set, which defines v8, m8 and the
 * functions v8_select, v8_max, v8_min, v8_sqrt, v8_fma, v8_round (to the nearest integer, ties to even, for
 * |a| < 2^22), v8_any (is a lane of a mask set?), v8_lookup (entries by the low three bits of an index) and
 * v8_transpose, FIT_NAME and FIT_TEXT. Only additions, multiplications, fused multiply-adds, divisions and
 * square roots of single precision are used, each rounded on its own: every instruction set computes the same
 * bits.
 *
 * Weighted least squares for given levels l: with sums S = w, L = w l, LL = w l^2, X = w x, XL = w x l the
 * model x = a l + b has a = (S XL - X L) / D, b = (LL X - L XL) / D, D = S LL - L^2, and the squared error is
 * w x^2 less a gain of a (2 XL - a LL - 2 b L) + b (2 X - b S).
 *
 * Sums of several candidates run side by side, so that their additions do not wait for each other. Where all
 * weights are 1, multiplications by them are left out (is_plain), which changes no bit.
 */

#define FIT_INLINE static inline __attribute__((always_inline))
#define FIT_UNROLL _Pragma("GCC unroll 8") /* wholly: what the loop runs over is to stay in registers */

enum {
    MAX_SIDE = 3, /* errors that are summed side by side */
    MAX_REACH = 2,
    MAX_TRIES = 2 * MAX_REACH + 1
};

FIT_INLINE v8 v8_of(float f)
{
    return (v8){f, f, f, f, f, f, f, f};
}

FIT_INLINE v8 v8_at(const float *p)
{
    return *(const v8 *)p;
}

FIT_INLINE v8 v8_abs(v8 a)
{
    return (v8)((m8)a & 0x7fffffff);
}

FIT_INLINE v8 v8_clamp(v8 a, v8 low, v8 high)
{
    return v8_min(v8_max(a, low), high);
}

/* 1 / a, and 0 where a is 0 or so small that the quotient would overflow. */
FIT_INLINE v8 inverse(v8 a)
{
    return v8_select(v8_abs(a) > 0x1p-126F, 1.0F / a, v8_of(0));
}

/* ---- in and out --------------------------------------------------------------------------------------- */

/* Values i .. i + 7 of each of the eight sub-blocks, turned into lanes. */
FIT_INLINE void load8(const float *p, uint32_t n_elems, v8 *rows)
{
    typedef v8 anywhere __attribute__((aligned(4)));
    FIT_UNROLL
    for (uint32_t j = 0; j < APR_FIT_LANES; j++) rows[j] = *(const anywhere *)(p + j * n_elems);
    v8_transpose(rows);
}

static void weigh(struct apr_group *g, const float *weights, enum apr_fit_weight kind)
{
    v8 sum = v8_of(0);
    for (uint32_t i = 0; kind == APR_FIT_LARGER && i < g->n_elems; i++) {
        sum = v8_fma(v8_at(g->x[i]), v8_at(g->x[i]), sum);
    }
    v8 mean = sum / (float)g->n_elems, root = v8_sqrt(mean);
    for (uint32_t i = 0; i < g->n_elems; i += APR_FIT_LANES) {
        v8 w[APR_FIT_LANES];
        if (weights) load8(weights + i, g->n_elems, w);
        FIT_UNROLL
        for (uint32_t k = 0; k < APR_FIT_LANES; k++) {
            v8 v = v8_at(g->x[i + k]);
            if (!weights)
                w[k] = kind == APR_FIT_LARGER ? root + v8_abs(v) : v8_of(1);
            else if (kind == APR_FIT_LARGER)
                w[k] = w[k] * v8_sqrt(2.0F * mean + v * v);
            *(v8 *)g->w[i + k] = w[k];
        }
    }
}

static bool load(struct apr_group *g, const float *x, const float *weights, uint32_t n_elems,
                 enum apr_fit_weight kind)
{
    g->n_elems = n_elems;
    g->is_plain = !weights && kind == APR_FIT_PLAIN;
    v8 max_abs = v8_of(0);
    for (uint32_t i = 0; i < n_elems; i += APR_FIT_LANES) {
        v8 rows[APR_FIT_LANES];
        load8(x + i, n_elems, rows);
        FIT_UNROLL
        for (uint32_t k = 0; k < APR_FIT_LANES; k++) {
            *(v8 *)g->x[i + k] = rows[k];
            max_abs = v8_max(v8_abs(rows[k]), max_abs);
        }
    }
    if (v8_any(max_abs >= APR_FIT_MAX)) return false;
    if (!g->is_plain) weigh(g, weights, kind);
    return true;
}

/* Levels as numbers, four of a lane to a word. */
FIT_INLINE m8 word_of(const v8 *l)
{
    m8 word = __builtin_convertvector(l[0], m8);
    for (int k = 1; k < 4; k++) word |= __builtin_convertvector(l[k], m8) << 8 * k;
    return word;
}

/* l: [n_elems], levels of lane j to levels + j * n_elems. */
FIT_INLINE void put_levels(const v8 *l, uint32_t n_elems, uint8_t *levels)
{
    v8 words[APR_FIT_LANES];
    FIT_UNROLL
    for (uint32_t i = 0; i < APR_FIT_LANES; i++) {
        words[i] = 4 * i < n_elems ? (v8)word_of(l + 4 * i) : v8_of(0);
    }
    v8_transpose(words);
    FIT_UNROLL
    for (uint32_t j = 0; j < APR_FIT_LANES; j++) {
        uint8_t *to = levels + j * n_elems;
        if (n_elems == APR_FIT_ELEMS)
            memcpy(to, &words[j], APR_FIT_ELEMS);
        else
            memcpy(to, &words[j], APR_FIT_ELEMS / 2);
    }
}

/* ---- x = scale * l - min ------------------------------------------------------------------------------ */

struct sums {
    v8 l, ll, yl; /* of w l, w l^2, w y l */
};

/* Of two candidates, l = y * inv - offset, rounded; or of one (is_split): of its even and its odd elements.
 */
FIT_INLINE void affine_sums(const struct apr_group *g, const v8 *y, v8 top, const v8 *inv, const v8 *offset,
                            bool is_split, bool is_plain, struct sums *sums)
{
    sums[0] = sums[1] = (struct sums){v8_of(0), v8_of(0), v8_of(0)};
    for (uint32_t i = 0; i < g->n_elems; i += is_split ? 2 : 1) {
        FIT_UNROLL
        for (uint32_t c = 0; c < 2; c++) {
            uint32_t at = is_split ? i + c : i;
            v8 l = v8_round(v8_clamp(v8_fma(y[at], inv[c], -offset[c]), v8_of(0), top));
            v8 wl = is_plain ? l : v8_at(g->w[at]) * l;
            sums[c].l += wl;
            sums[c].ll = v8_fma(wl, l, sums[c].ll);
            sums[c].yl = v8_fma(y[at], wl, sums[c].yl);
        }
    }
}

struct best {
    v8 gain, a, b;
};

/* s, sy: sums of w and w y, where y = x - low. */
FIT_INLINE void affine_judge(const struct sums *k, v8 s, v8 sy, v8 low, bool any_min, struct best *best)
{
    v8 det = s * k->ll - k->l * k->l, inv_det = 1.0F / det;
    v8 a = (s * k->yl - sy * k->l) * inv_det, b = (k->ll * sy - k->l * k->yl) * inv_det;
    m8 over = b > -low;
    if (!any_min && v8_any(over)) { /* b + low <= 0 */
        b = v8_select(over, -low, b);
        a = v8_select(over, (k->yl + low * k->l) / k->ll, a);
    }
    v8 gain = a * (2.0F * k->yl - a * k->ll - 2.0F * b * k->l) + b * (2.0F * sy - b * s);
    m8 better = (gain > best->gain) & (det > 0.0F) & (a > 0.0F);
    best->gain = v8_select(better, gain, best->gain);
    best->a = v8_select(better, a, best->a);
    best->b = v8_select(better, b, best->b);
}

FIT_INLINE void affine_of(const struct apr_group *g, const struct apr_fit_spec *spec, bool is_plain,
                          float *scale, float *min)
{
    uint32_t n = g->n_elems;
    v8 low = v8_at(g->x[0]), high = low;
    for (uint32_t i = 1; i < n; i++) {
        low = v8_min(low, v8_at(g->x[i]));
        high = v8_max(high, v8_at(g->x[i]));
    }
    if (!spec->any_min) low = v8_min(low, v8_of(0));

    /* Sums are taken over y = x - low, which keeps them well conditioned when all of x is far from 0. */
    v8 y[APR_FIT_ELEMS], s = is_plain ? v8_of((float)n) : v8_of(0), sy = v8_of(0);
    for (uint32_t i = 0; i < n; i++) {
        y[i] = v8_at(g->x[i]) - low;
        if (!is_plain) s += v8_at(g->w[i]);
        sy = is_plain ? sy + y[i] : v8_fma(v8_at(g->w[i]), y[i], sy);
    }
    float top = (float)(spec->n_levels - 1);
    v8 inv_range = inverse(high - low);
    struct best best = {v8_of(-1), (high - low) / top, v8_of(0)};
    struct sums sums[2];
    for (int c = 0; c < spec->n_candidates; c += 2) { /* a pair starts from the same minimum */
        v8 inv[2], offset[2];
        FIT_UNROLL
        for (int k = 0; k < 2; k++) {
            inv[k] = (top + spec->first + (float)(c + k) * spec->step) * inv_range;
            offset[k] = best.b * inv[k];
        }
        affine_sums(g, y, v8_of(top), inv, offset, false, is_plain, sums);
        FIT_UNROLL
        for (int k = 0; k < 2; k++) affine_judge(&sums[k], s, sy, low, spec->any_min, &best);
    }
    for (int c = 0; c < spec->n_refits; c++) {
        v8 inv = inverse(best.a), offset = best.b * inv;
        affine_sums(g, y, v8_of(top), (v8[]){inv, inv}, (v8[]){offset, offset}, true, is_plain, sums);
        sums[0].l += sums[1].l;
        sums[0].ll += sums[1].ll;
        sums[0].yl += sums[1].yl;
        affine_judge(sums, s, sy, low, spec->any_min, &best);
    }
    *(v8 *)scale = best.a;
    *(v8 *)min = -(best.b + low);
}

static void affine(const struct apr_group *g, const struct apr_fit_spec *spec, float *scale, float *min)
{
    if (g->is_plain)
        affine_of(g, spec, true, scale, min);
    else
        affine_of(g, spec, false, scale, min);
}

/* The squared errors of n_side scales a = 1 / inv for z = x + min. */
FIT_INLINE void affine_errors(const struct apr_group *g, const v8 *z, v8 top, const v8 *a, const v8 *inv,
                              int n_side, bool is_plain, v8 *error)
{
    v8 sum[MAX_SIDE];
    FIT_UNROLL
    for (int c = 0; c < n_side; c++) sum[c] = v8_of(0);
    for (uint32_t i = 0; i < g->n_elems; i++) {
        FIT_UNROLL
        for (int c = 0; c < n_side; c++) {
            v8 l = v8_round(v8_clamp(z[i] * inv[c], v8_of(0), top)), off = v8_fma(a[c], l, -z[i]);
            sum[c] = v8_fma(is_plain ? off : v8_at(g->w[i]) * off, off, sum[c]);
        }
    }
    FIT_UNROLL
    for (int c = 0; c < n_side; c++) error[c] = sum[c];
}

FIT_INLINE void affine_refine_of(const struct apr_group *g, const struct apr_fit_spec *spec, float d,
                                 float dmin, bool is_plain, int32_t *scale, int32_t *min)
{
    v8 top = v8_of((float)(spec->n_levels - 1)), limit = v8_of((float)spec->max_scale), none = v8_of(0);
    v8 scale_0 = __builtin_convertvector(*(m8 *)scale, v8), min_0 = __builtin_convertvector(*(m8 *)min, v8);
    v8 best_s = scale_0, best_m = min_0, best = v8_of(INFINITY);
    v8 s[MAX_TRIES], a[MAX_TRIES], inv[MAX_TRIES], error[MAX_TRIES], z[APR_FIT_ELEMS];
    int n = 2 * spec->reach + 1;
    for (int c = 0; c < n; c++) {
        s[c] = v8_clamp(scale_0 + (float)(c - spec->reach), none, limit);
        a[c] = d * s[c];
        inv[c] = inverse(a[c]);
    }
    for (int k = -spec->reach; k <= spec->reach; k++) {
        v8 m = v8_clamp(min_0 + (float)k, none, limit);
        for (uint32_t i = 0; i < g->n_elems; i++) z[i] = v8_at(g->x[i]) + dmin * m;
        affine_errors(g, z, top, a, inv, 3, is_plain, error);
        if (n > 3) affine_errors(g, z, top, a + 3, inv + 3, 2, is_plain, error + 3);
        for (int c = 0; c < n; c++) {
            m8 better = error[c] < best;
            best = v8_select(better, error[c], best);
            best_s = v8_select(better, s[c], best_s);
            best_m = v8_select(better, m, best_m);
        }
    }
    *(m8 *)scale = __builtin_convertvector(best_s, m8);
    *(m8 *)min = __builtin_convertvector(best_m, m8);
}

static void affine_refine(const struct apr_group *g, const struct apr_fit_spec *spec, float d, float dmin,
                          int32_t *scale, int32_t *min)
{
    if (g->is_plain)
        affine_refine_of(g, spec, d, dmin, true, scale, min);
    else
        affine_refine_of(g, spec, d, dmin, false, scale, min);
}

static void affine_levels(const struct apr_group *g, const struct apr_fit_spec *spec, const float *scale,
                          const float *min, uint8_t *levels)
{
    v8 inv = inverse(v8_at(scale)), m = v8_at(min), top = v8_of((float)(spec->n_levels - 1));
    v8 l[APR_FIT_ELEMS];
    for (uint32_t i = 0; i < g->n_elems; i++) {
        l[i] = v8_round(v8_clamp((v8_at(g->x[i]) + m) * inv, v8_of(0), top));
    }
    put_levels(l, g->n_elems, levels);
}

/* ---- x = scale * l ------------------------------------------------------------------------------------ */

/* What l is when x / scale is rounded. */
struct levels {
    bool is_uneven;
    float half;
};

FIT_INLINE struct levels levels_of(const struct apr_fit_spec *spec, bool is_uneven)
{
    return (struct levels){is_uneven, is_uneven ? 127 : 0.5F * (float)spec->n_levels};
}

/* The middle between level k of apr_iq4_values and the next. */
static inline float middle(int k)
{
    return 0.5F * ((float)apr_iq4_values[k] + (float)apr_iq4_values[k + 1]);
}

/* How many of the 15 middles lie below y (its index), and the value there: a search by halves, whose answers
 * are bits 3 to 0 of the index, and minus 1 as masks. */
FIT_INLINE v8 uneven_level(v8 y, v8 *value)
{
    v8 odd = {middle(1), middle(5), middle(9), middle(13), 0, 0, 0, 0};
    v8 even = {middle(0), middle(2), middle(4), middle(6), middle(8), middle(10), middle(12), middle(14)};
    v8 low = {0}, high = {0};
    FIT_UNROLL
    for (int k = 0; k < APR_FIT_LANES; k++) {
        low[k] = apr_iq4_values[k];
        high[k] = apr_iq4_values[k + APR_FIT_LANES];
    }
    m8 in_high = y > middle(7), bit_2 = y > v8_select(in_high, v8_of(middle(11)), v8_of(middle(3)));
    m8 index = (in_high & 2) - bit_2;
    index = index + index - (y > v8_lookup(odd, index));
    index = index + index - (y > v8_lookup(even, index));
    *value = v8_select(in_high, v8_lookup(high, index), v8_lookup(low, index));
    return __builtin_convertvector(index, v8);
}

FIT_INLINE v8 rounded(struct levels k, v8 x, v8 inv)
{
    v8 value;
    if (!k.is_uneven) return v8_round(v8_clamp(x * inv, v8_of(-k.half), v8_of(k.half - 1)));
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

/* The scale that suits the levels best, where it beats *best. */
FIT_INLINE void symmetric_judge(v8 sll, v8 sxl, struct best *best)
{
    v8 a = sxl / sll, gain = a * sxl;
    m8 better = (gain > best->gain) & (sll > 0.0F);
    best->gain = v8_select(better, gain, best->gain);
    best->a = v8_select(better, a, best->a);
}

/* For the levels of two scales 1 / inv; or of one (is_split): of its even and its odd elements. */
FIT_INLINE void symmetric_try(const struct apr_group *g, struct levels k, const v8 *inv, bool is_split,
                              bool is_plain, struct best *best)
{
    v8 sll[2] = {v8_of(0), v8_of(0)}, sxl[2] = {v8_of(0), v8_of(0)};
    for (uint32_t i = 0; i < g->n_elems; i += is_split ? 2 : 1) {
        FIT_UNROLL
        for (uint32_t c = 0; c < 2; c++) {
            uint32_t at = is_split ? i + c : i;
            v8 x = v8_at(g->x[at]), l = rounded(k, x, inv[c]), wl = is_plain ? l : v8_at(g->w[at]) * l;
            sll[c] = v8_fma(wl, l, sll[c]);
            sxl[c] = v8_fma(x, wl, sxl[c]);
        }
    }
    symmetric_judge(is_split ? sll[0] + sll[1] : sll[0], is_split ? sxl[0] + sxl[1] : sxl[0], best);
    if (!is_split) symmetric_judge(sll[1], sxl[1], best);
}

FIT_INLINE void symmetric_of(const struct apr_group *g, const struct apr_fit_spec *spec, struct levels k,
                             bool is_plain, float *scale)
{
    v8 extreme = v8_at(g->x[0]);
    for (uint32_t i = 1; i < g->n_elems; i++) {
        v8 x = v8_at(g->x[i]);
        extreme = v8_select(v8_abs(x) > v8_abs(extreme), x, extreme);
    }
    v8 inv_extreme = inverse(extreme);
    struct best best = {v8_of(0), extreme / -k.half, v8_of(0)};
    for (int c = 0; c < spec->n_candidates; c += 2) {
        v8 inv[2];
        FIT_UNROLL
        for (int i = 0; i < 2; i++) inv[i] = candidate(spec, k, c + i) * inv_extreme;
        symmetric_try(g, k, inv, false, is_plain, &best);
    }
    for (int c = 0; c < spec->n_refits; c++) {
        v8 inv = inverse(best.a);
        symmetric_try(g, k, (v8[]){inv, inv}, true, is_plain, &best);
    }
    *(v8 *)scale = best.a;
}

static void symmetric(const struct apr_group *g, const struct apr_fit_spec *spec, float *scale)
{
    if (spec->is_uneven)
        symmetric_of(g, spec, levels_of(spec, true), g->is_plain, scale);
    else if (g->is_plain)
        symmetric_of(g, spec, levels_of(spec, false), true, scale);
    else
        symmetric_of(g, spec, levels_of(spec, false), false, scale);
}

/* The squared errors of n_side scales a = 1 / inv. */
FIT_INLINE void symmetric_errors(const struct apr_group *g, struct levels k, const v8 *a, const v8 *inv,
                                 int n_side, bool is_plain, v8 *error)
{
    v8 sum[MAX_SIDE];
    FIT_UNROLL
    for (int c = 0; c < n_side; c++) sum[c] = v8_of(0);
    for (uint32_t i = 0; i < g->n_elems; i++) {
        v8 x = v8_at(g->x[i]);
        FIT_UNROLL
        for (int c = 0; c < n_side; c++) {
            v8 off = v8_fma(a[c], rounded(k, x, inv[c]), -x);
            sum[c] = v8_fma(is_plain ? off : v8_at(g->w[i]) * off, off, sum[c]);
        }
    }
    FIT_UNROLL
    for (int c = 0; c < n_side; c++) error[c] = sum[c];
}

FIT_INLINE void symmetric_refine_of(const struct apr_group *g, const struct apr_fit_spec *spec,
                                    struct levels k, float d, bool is_plain, int32_t *scale)
{
    v8 limit = v8_of((float)spec->max_scale), scale_0 = __builtin_convertvector(*(m8 *)scale, v8);
    v8 best_s = scale_0, best = v8_of(INFINITY);
    v8 s[MAX_TRIES], a[MAX_TRIES], inv[MAX_TRIES], error[MAX_TRIES];
    int n = 2 * spec->reach + 1;
    for (int c = 0; c < n; c++) {
        s[c] = v8_clamp(scale_0 + (float)(c - spec->reach), -limit - 1.0F, limit);
        a[c] = d * s[c];
        inv[c] = inverse(a[c]);
    }
    symmetric_errors(g, k, a, inv, 3, is_plain, error);
    if (n > 3) symmetric_errors(g, k, a + 3, inv + 3, 2, is_plain, error + 3);
    for (int c = 0; c < n; c++) {
        m8 better = error[c] < best;
        best = v8_select(better, error[c], best);
        best_s = v8_select(better, s[c], best_s);
    }
    *(m8 *)scale = __builtin_convertvector(best_s, m8);
}

static void symmetric_refine(const struct apr_group *g, const struct apr_fit_spec *spec, float d,
                             int32_t *scale)
{
    if (spec->is_uneven)
        symmetric_refine_of(g, spec, levels_of(spec, true), d, g->is_plain, scale);
    else if (g->is_plain)
        symmetric_refine_of(g, spec, levels_of(spec, false), d, true, scale);
    else
        symmetric_refine_of(g, spec, levels_of(spec, false), d, false, scale);
}

static void symmetric_levels(const struct apr_group *g, const struct apr_fit_spec *spec, const float *scale,
                             uint8_t *levels)
{
    struct levels k = levels_of(spec, spec->is_uneven);
    v8 inv = inverse(v8_at(scale)), value, l[APR_FIT_ELEMS];
    for (uint32_t i = 0; i < g->n_elems; i++) {
        v8 x = v8_at(g->x[i]);
        l[i] = k.is_uneven ? uneven_level(x * inv, &value) : rounded(k, x, inv) + k.half;
    }
    put_levels(l, g->n_elems, levels);
}

const struct apr_fit FIT_NAME = {FIT_TEXT,      load,      affine,           affine_refine,
                                 affine_levels, symmetric, symmetric_refine, symmetric_levels};
