/* Numbers within bounds, digit by digit.
 *
 * A number with k digits behind the point is a whole number of units of 10^-k; its bounds in these units are
 * taken from the decimal text of the schema's bounds, rounded inwards. Whole numbers of as many digits as
 * their bounds follow the bound's digits until they leave it. */
#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#include "../ckd.h"
#include "../json.h"
#include "schema_in.h"

#define MAX_DIGITS     18
#define MAX_FRACTION   6               /* digits behind the point */
#define LEAST_FRACTION 3               /* of a bounded number that is not an integer */
#define WIDE_INTEGER   999999999999999 /* where an integer has no bound: exact in a double */
#define WIDE_NUMBER    999999999999    /* where another number has none, in ones */

/* m * 10^e, exactly. */
struct decimal {
    int64_t m;
    int e;
};

static bool parse_decimal(const char *s, struct decimal *d)
{
    bool minus = *s == '-';
    int shift = 0;
    bool point = false;
    *d = (struct decimal){0};
    for (s += minus; isdigit((unsigned char)*s) || *s == '.'; s++) {
        if (*s == '.') {
            point = true;
            continue;
        }
        if (ckd_mul(&d->m, d->m, 10) || ckd_add(&d->m, d->m, *s - '0')) return false;
        shift -= point;
    }
    d->e = shift;
    if (*s == 'e' || *s == 'E') d->e += (int)strtol(s + 1, NULL, 10);
    if (minus) d->m = -d->m;
    while (d->m && d->m % 10 == 0 && d->e < 0) {
        d->m /= 10;
        d->e++;
    }
    return d->e > -400 && d->e < 400;
}

/* In units of 10^-k, rounded up or down, one more inwards where the bound itself is excluded. */
static bool in_units(struct decimal d, int k, bool lower, bool exclusive, int64_t *out)
{
    int64_t v = d.m;
    int shift = d.e + k;
    for (; shift > 0 && v; shift--)
        if (ckd_mul(&v, v, 10)) return false;
    bool exact = true;
    for (; shift < 0; shift++) {
        int64_t rest = v % 10;
        exact &= rest == 0;
        v = v / 10 - (rest < 0); /* downwards */
        if (v == 0 || v == -1) {
            if (shift < -20) shift = -20; /* nothing changes any more */
        }
    }
    if (lower && (!exact || exclusive)) v++;
    if (!lower && exact && exclusive) v--;
    *out = v;
    return llabs(v) <= 999999999999999999;
}

struct digits {
    struct apr_sch *s;
    const char *lo, *hi; /* [n] */
    int n, point;        /* the point stands before digit `point`; n: there is none */
};

static const struct apr_expr *seq(struct apr_sch *s, const struct apr_expr *a, const struct apr_expr *b)
{
    return apr_ex_seq2(s->r, a, b);
}

/* One digit at place i, from a to b, the point before it where it belongs. */
static const struct apr_expr *digit(const struct digits *d, int i, char a, char b)
{
    const struct apr_range range = {(uint8_t)a, (uint8_t)b};
    const struct apr_expr *x = apr_ex_class(d->s->r, &range, 1, false);
    return i == d->point && i ? seq(d->s, apr_ex_text(d->s->r, "."), x) : x;
}

static const struct apr_expr *free_digits(const struct digits *d, int i)
{
    const struct apr_expr *x = apr_ex_empty(d->s->r);
    for (int k = d->n; k-- > i;) x = seq(d->s, digit(d, k, '0', '9'), x);
    return x;
}

/* Digits from place i on: not below lo where tied to it, not above hi where tied to that. */
static const struct apr_expr *tied(const struct digits *d, int i, bool to_lo, bool to_hi)
{
    struct apr_ex_list list = {0};
    if (!to_lo && !to_hi) return free_digits(d, i);
    if (i == d->n) return apr_ex_empty(d->s->r);
    char a = to_lo ? d->lo[i] : '0', b = to_hi ? d->hi[i] : '9';
    if (a == b) return seq(d->s, digit(d, i, a, a), tied(d, i + 1, to_lo, to_hi));
    if (to_lo) apr_ex_push(d->s->r, &list, seq(d->s, digit(d, i, a, a), tied(d, i + 1, true, false)));
    if (to_hi) apr_ex_push(d->s->r, &list, seq(d->s, digit(d, i, b, b), tied(d, i + 1, false, true)));
    char from = to_lo ? (char)(a + 1) : a, to = to_hi ? (char)(b - 1) : b;
    if (from <= to) apr_ex_push(d->s->r, &list, seq(d->s, digit(d, i, from, to), free_digits(d, i + 1)));
    return apr_ex_alt(d->s->r, list.at, list.n);
}

/* n digits, zeros first. */
static void put_digits(char *out, int64_t v, int n)
{
    for (; n > 0; v /= 10) out[--n] = (char)('0' + v % 10);
}

/* Numbers lo .. hi >= 0 of units of 10^-k, by their number of digits; at least one stands before the point.
 */
static void add_range(struct apr_sch *s, struct apr_ex_list *list, const char *sign, int64_t lo, int64_t hi,
                      int k)
{
    int64_t first = 0, last = 9;
    int n = 1;
    for (; n < k + 1; n++) last = 10 * last + 9; /* below 1 zeros lead, so that all have k + 1 digits */
    for (; n <= MAX_DIGITS && first <= hi; n++) {
        int64_t a = lo > first ? lo : first, b = hi < last ? hi : last;
        char low[MAX_DIGITS], high[MAX_DIGITS];
        const struct digits d = {s, low, high, n, n - k};
        if (a <= b) {
            put_digits(low, a, n);
            put_digits(high, b, n);
            apr_ex_push(s->r, list, seq(s, apr_ex_text(s->r, sign), tied(&d, 0, true, true)));
        }
        first = last + 1;
        if (n < MAX_DIGITS) last = 10 * last + 9;
    }
}

struct bound {
    bool given, exclusive;
    struct decimal d;
};

/* The tighter one of the two keywords. */
static enum apr_code get_bound(struct apr_sch *s, const json_t *schema, bool lower,
                               const struct apr_sch_path *at, struct bound *b, struct apr_err *e)
{
    const json_t *v = json_object_get(schema, lower ? "minimum" : "maximum");
    const json_t *x = json_object_get(schema, lower ? "exclusiveMinimum" : "exclusiveMaximum");
    struct apr_buf text;
    *b = (struct bound){.given = v || x};
    if (!b->given) return APR_OK;
    double dv = json_number_value(v), dx = json_number_value(x);
    b->exclusive = x && (!v || (lower ? dx >= dv : dx <= dv));
    const json_t *use = b->exclusive ? x : v;
    if (json_is_integer(use)) {
        b->d.m = json_integer_value(use);
        return APR_OK;
    }
    apr_buf_init(&text, 64);
    enum apr_code code = apr_json_put_f64(&text, json_real_value(use), e);
    if (code == APR_OK && !parse_decimal((const char *)text.data, &b->d))
        code = apr_sch_refuse(s, at, e, "a bound has too many digits");
    apr_buf_free(&text);
    return code;
}

static enum apr_code bounded(struct apr_sch *s, const struct bound *lo, const struct bound *hi, int k_max,
                             int64_t wide, const struct apr_sch_path *at, const struct apr_expr **x,
                             struct apr_err *e)
{
    struct apr_ex_list list = {0};
    for (int k = 0; k <= k_max; k++) {
        if (k) wide *= 10;
        int64_t a = -wide, b = wide;
        if ((lo->given && !in_units(lo->d, k, true, lo->exclusive, &a)) ||
            (hi->given && !in_units(hi->d, k, false, hi->exclusive, &b)))
            return apr_sch_refuse(s, at, e, "a bound is too large");
        /* The other side follows a bound beyond the usual width. */
        if (!hi->given && a > b) b = a;
        if (!lo->given && b < a) a = b;
        if (b >= 0 && a <= b) add_range(s, &list, "", a > 0 ? a : 0, b, k);
        if (a < 0 && a <= b) add_range(s, &list, "-", b < -1 ? -b : 1, -a, k);
    }
    if (!list.n) return apr_sch_malformed(s, at, e, "no number is between the bounds");
    *x = apr_sch_rule(s, apr_ex_alt(s->r, list.at, list.n));
    return APR_OK;
}

static enum apr_code make(struct apr_sch *s, const json_t *schema, bool is_integer,
                          const struct apr_sch_path *at, const struct apr_expr **x, struct apr_err *e)
{
    struct bound lo, hi;
    const json_t *step = json_object_get(schema, "multipleOf");
    if (step && !(is_integer && json_number_value(step) == 1))
        return apr_sch_refuse(s, at, e, "multipleOf is not supported");
    TRY(get_bound(s, schema, true, at, &lo, e));
    TRY(get_bound(s, schema, false, at, &hi, e));
    *x = is_integer ? s->c.integer : s->c.number;
    if (!lo.given && !hi.given) return APR_OK;
    if (is_integer) return bounded(s, &lo, &hi, 0, WIDE_INTEGER, at, x, e);
    int k = LEAST_FRACTION;
    if (-lo.d.e > k) k = -lo.d.e;
    if (-hi.d.e > k) k = -hi.d.e;
    return bounded(s, &lo, &hi, k < MAX_FRACTION ? k : MAX_FRACTION, WIDE_NUMBER, at, x, e);
}

enum apr_code apr_sch_integer(struct apr_sch *s, const json_t *schema, const struct apr_sch_path *at,
                              const struct apr_expr **x, struct apr_err *e)
{
    return make(s, schema, true, at, x, e);
}

enum apr_code apr_sch_number(struct apr_sch *s, const json_t *schema, const struct apr_sch_path *at,
                             const struct apr_expr **x, struct apr_err *e)
{
    return make(s, schema, false, at, x, e);
}
