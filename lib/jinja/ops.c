/* See ops.h. Integers are 64 bits: an overflow is refused, where Python would grow the number. */
#include "ops.h"

#include <math.h>
#include <string.h>

#include "../ckd.h"
#include "format.h"

enum apr_code apr_jj_truth(struct apr_jj_run *r, struct apr_jj_val v, bool *yes)
{
    switch ((enum apr_jj_kind)v.kind) {
    case APR_JJ_ABSENT:
    case APR_JJ_UNDEF:
    case APR_JJ_NONE:
        *yes = false;
        return APR_OK;
    case APR_JJ_BOOL:
        *yes = v.u.b;
        return APR_OK;
    case APR_JJ_INT:
        *yes = v.u.i != 0;
        return APR_OK;
    case APR_JJ_FLOAT:
        *yes = v.u.f != 0;
        return APR_OK;
    case APR_JJ_STR:
        *yes = v.u.s->n > 0;
        return APR_OK;
    case APR_JJ_LIST:
        *yes = v.seq == APR_JJ_GEN || v.u.l->n > 0;
        return APR_OK;
    case APR_JJ_DICT:
        *yes = v.u.d->n > 0;
        return APR_OK;
    case APR_JJ_NS:
    case APR_JJ_MACRO:
    case APR_JJ_FUNC:
    case APR_JJ_LOOP:
        *yes = true;
        return APR_OK;
    }
    return apr_jj_fail(r, "value of unknown kind");
}

static enum apr_code equal_lists(struct apr_jj_run *r, const struct apr_jj_list *a,
                                 const struct apr_jj_list *b, bool *yes)
{
    *yes = a->n == b->n;
    for (size_t i = 0; *yes && i < a->n; i++) TRY(apr_jj_equal(r, a->at[i], b->at[i], yes));
    return APR_OK;
}

static enum apr_code equal_dicts(struct apr_jj_run *r, const struct apr_jj_dict *a,
                                 const struct apr_jj_dict *b, bool *yes)
{
    *yes = a->n == b->n;
    for (size_t i = 0; *yes && i < a->n; i++) {
        const struct apr_jj_val *v = NULL;
        TRY(apr_jj_dict_get(r, b, a->at[i].key, &v));
        *yes = v != NULL;
        if (v) TRY(apr_jj_equal(r, a->at[i].v, *v, yes));
    }
    return APR_OK;
}

static enum apr_code equal_strings(struct apr_jj_run *r, const struct apr_jj_str *a,
                                   const struct apr_jj_str *b, bool *yes)
{
    if (a->n != b->n) return APR_OK;
    TRY(apr_jj_charge(r, a->n / 64));
    *yes = memcmp(a->p, b->p, a->n) == 0;
    return APR_OK;
}

static bool num_equal(struct apr_jj_val a, struct apr_jj_val b)
{
    if (a.kind == APR_JJ_FLOAT || b.kind == APR_JJ_FLOAT) return apr_jj_as_double(a) == apr_jj_as_double(b);
    return (a.kind == APR_JJ_BOOL ? a.u.b : a.u.i) == (b.kind == APR_JJ_BOOL ? b.u.b : b.u.i);
}

enum apr_code apr_jj_equal(struct apr_jj_run *r, struct apr_jj_val a, struct apr_jj_val b, bool *yes)
{
    TRY(apr_jj_enter(r));
    *yes = false;
    if (apr_jj_is_number(a) && apr_jj_is_number(b))
        *yes = num_equal(a, b);
    else if (a.kind != b.kind)
        *yes = false;
    else if (a.kind == APR_JJ_NONE || a.kind == APR_JJ_UNDEF)
        *yes = true;
    else if (a.kind == APR_JJ_STR)
        TRY(equal_strings(r, a.u.s, b.u.s, yes));
    else if (a.kind == APR_JJ_LIST && a.seq == b.seq && a.seq != APR_JJ_GEN)
        TRY(equal_lists(r, a.u.l, b.u.l, yes));
    else if (a.kind == APR_JJ_DICT)
        TRY(equal_dicts(r, a.u.d, b.u.d, yes));
    else
        *yes = a.u.d == b.u.d; /* the same object */
    r->depth--;
    return APR_OK;
}

static int sign_of(double a, double b)
{
    return (a > b) - (a < b);
}

enum apr_code apr_jj_order(struct apr_jj_run *r, struct apr_jj_val a, struct apr_jj_val b, int *sign)
{
    TRY(apr_jj_charge(r, 1));
    if (a.kind == APR_JJ_INT && b.kind == APR_JJ_INT) {
        *sign = (a.u.i > b.u.i) - (a.u.i < b.u.i);
        return APR_OK;
    }
    if (apr_jj_is_number(a) && apr_jj_is_number(b)) {
        *sign = sign_of(apr_jj_as_double(a), apr_jj_as_double(b));
        return APR_OK;
    }
    if (a.kind == APR_JJ_STR && b.kind == APR_JJ_STR) {
        TRY(apr_jj_charge(r, (a.u.s->n < b.u.s->n ? a.u.s->n : b.u.s->n) / 64));
        *sign = apr_jj_str_cmp(a.u.s, b.u.s);
        return APR_OK;
    }
    if (a.kind == APR_JJ_LIST && b.kind == APR_JJ_LIST && a.seq == b.seq && a.seq <= APR_JJ_TUPLE) {
        TRY(apr_jj_enter(r));
        for (size_t i = 0; i < a.u.l->n && i < b.u.l->n; i++) {
            bool same = false;
            TRY(apr_jj_equal(r, a.u.l->at[i], b.u.l->at[i], &same));
            if (same) continue;
            TRY(apr_jj_order(r, a.u.l->at[i], b.u.l->at[i], sign));
            r->depth--;
            return APR_OK;
        }
        r->depth--;
        *sign = (a.u.l->n > b.u.l->n) - (a.u.l->n < b.u.l->n);
        return APR_OK;
    }
    if (a.kind == APR_JJ_UNDEF) return apr_jj_undef_error(r, a);
    if (b.kind == APR_JJ_UNDEF) return apr_jj_undef_error(r, b);
    return apr_jj_fail(r, "'<' not supported between '%s' and '%s'", apr_jj_type_name(a),
                       apr_jj_type_name(b));
}

enum apr_code apr_jj_compare(struct apr_jj_run *r, enum apr_jj_op op, struct apr_jj_val a,
                             struct apr_jj_val b, bool *yes)
{
    int sign = 0;
    bool nan = (a.kind == APR_JJ_FLOAT && isnan(a.u.f)) || (b.kind == APR_JJ_FLOAT && isnan(b.u.f));
    if (op == APR_JJ_OP_IN || op == APR_JJ_OP_NOT_IN) {
        TRY(apr_jj_contains(r, b, a, yes));
        if (op == APR_JJ_OP_NOT_IN) *yes = !*yes;
        return APR_OK;
    }
    if (op == APR_JJ_OP_EQ || op == APR_JJ_OP_NE) {
        TRY(apr_jj_equal(r, a, b, yes));
        if (op == APR_JJ_OP_NE) *yes = !*yes;
        return APR_OK;
    }
    TRY(apr_jj_order(r, a, b, &sign));
    *yes = !nan && ((op == APR_JJ_OP_LT && sign < 0) || (op == APR_JJ_OP_LE && sign <= 0) ||
                    (op == APR_JJ_OP_GT && sign > 0) || (op == APR_JJ_OP_GE && sign >= 0));
    return APR_OK;
}

enum apr_code apr_jj_contains(struct apr_jj_run *r, struct apr_jj_val box, struct apr_jj_val item, bool *yes)
{
    const struct apr_jj_val *v = NULL;
    if (box.kind == APR_JJ_STR) {
        if (item.kind != APR_JJ_STR)
            return apr_jj_fail(r, "'in <string>' requires string as left operand, not %s",
                               apr_jj_type_name(item));
        TRY(apr_jj_charge(r, 1 + box.u.s->n / 32));
        *yes = apr_jj_str_find(box.u.s, item.u.s, 0) >= 0;
        return APR_OK;
    }
    if (box.kind == APR_JJ_DICT) {
        TRY(apr_jj_dict_get(r, box.u.d, item, &v));
        *yes = v != NULL;
        return APR_OK;
    }
    if (box.kind == APR_JJ_UNDEF) {
        *yes = false;
        return APR_OK;
    }
    if (box.kind != APR_JJ_LIST)
        return apr_jj_fail(r, "argument of type '%s' is not iterable", apr_jj_type_name(box));
    *yes = false;
    for (size_t i = box.u.l->i_next; !*yes && i < box.u.l->n; i++)
        TRY(apr_jj_equal(r, box.u.l->at[i], item, yes));
    return APR_OK;
}

static enum apr_code int_pow(struct apr_jj_run *r, int64_t a, int64_t b, struct apr_jj_val *out)
{
    int64_t v = 1;
    if (b < 0) {
        if (!a) return apr_jj_fail(r, "0 cannot be raised to a negative power");
        *out = apr_jj_float(pow((double)a, (double)b));
        return APR_OK;
    }
    while (b) {
        if ((b & 1) && ckd_mul(&v, v, a)) return apr_jj_fail(r, "integer outside 64 bits");
        b >>= 1;
        if (b && ckd_mul(&a, a, a)) return apr_jj_fail(r, "integer outside 64 bits");
    }
    *out = apr_jj_int(v);
    return APR_OK;
}

/* Python's division rounds down, and the remainder has the sign of b. */
static enum apr_code int_divide(struct apr_jj_run *r, int64_t a, int64_t b, bool quotient,
                                struct apr_jj_val *out)
{
    if (!b) return apr_jj_fail(r, "integer division or modulo by zero");
    if (b == -1) {
        int64_t neg;
        if (ckd_sub(&neg, 0, a)) return apr_jj_fail(r, "integer outside 64 bits");
        *out = apr_jj_int(quotient ? neg : 0);
        return APR_OK;
    }
    int64_t q = a / b, m = a % b;
    if (m && (m < 0) != (b < 0)) {
        q--;
        m += b;
    }
    *out = apr_jj_int(quotient ? q : m);
    return APR_OK;
}

static enum apr_code int_binary(struct apr_jj_run *r, enum apr_jj_op op, int64_t a, int64_t b,
                                struct apr_jj_val *out)
{
    int64_t v = 0;
    bool over = false;
    if (op == APR_JJ_OP_POW) return int_pow(r, a, b, out);
    if (op == APR_JJ_OP_FLOORDIV || op == APR_JJ_OP_MOD)
        return int_divide(r, a, b, op == APR_JJ_OP_FLOORDIV, out);
    if (op == APR_JJ_OP_DIV) {
        if (!b) return apr_jj_fail(r, "division by zero");
        *out = apr_jj_float((double)a / (double)b);
        return APR_OK;
    }
    if (op == APR_JJ_OP_ADD) over = ckd_add(&v, a, b);
    if (op == APR_JJ_OP_SUB) over = ckd_sub(&v, a, b);
    if (op == APR_JJ_OP_MUL) over = ckd_mul(&v, a, b);
    if (over) return apr_jj_fail(r, "integer outside 64 bits");
    *out = apr_jj_int(v);
    return APR_OK;
}

static enum apr_code float_binary(struct apr_jj_run *r, enum apr_jj_op op, double a, double b,
                                  struct apr_jj_val *out)
{
    double v = 0;
    if ((op == APR_JJ_OP_DIV || op == APR_JJ_OP_FLOORDIV || op == APR_JJ_OP_MOD) && b == 0)
        return apr_jj_fail(r, "float division by zero");
    if (op == APR_JJ_OP_POW && a == 0 && b < 0)
        return apr_jj_fail(r, "0.0 cannot be raised to a negative power");
    if (op == APR_JJ_OP_POW && a < 0 && b != floor(b))
        return apr_jj_fail(r, "the power is not a real number");
    if (op == APR_JJ_OP_ADD) v = a + b;
    if (op == APR_JJ_OP_SUB) v = a - b;
    if (op == APR_JJ_OP_MUL) v = a * b;
    if (op == APR_JJ_OP_DIV) v = a / b;
    if (op == APR_JJ_OP_POW) v = pow(a, b);
    if (op == APR_JJ_OP_FLOORDIV || op == APR_JJ_OP_MOD) {
        double m = fmod(a, b);
        double q = (a - m) / b;
        if (m != 0 && (m < 0) != (b < 0)) {
            m += b;
            q -= 1;
        }
        v = op == APR_JJ_OP_MOD ? m : floor(q + 0.5);
    }
    *out = apr_jj_float(v);
    return APR_OK;
}

static enum apr_code repeat(struct apr_jj_run *r, struct apr_jj_val seq, int64_t n, struct apr_jj_val *out)
{
    struct apr_jj_sb b;
    struct apr_jj_list *l = NULL;
    size_t n_times = n < 0 ? 0 : (size_t)n;
    if (seq.kind == APR_JJ_STR) {
        apr_jj_sb_init(&b, r);
        TRY(apr_jj_sb_fill(&b, seq.u.s, n_times));
        return apr_jj_sb_done(&b, out);
    }
    if (!seq.u.l->n) n_times = 0;
    if (n_times && n_times > r->n_steps_left / seq.u.l->n) return apr_jj_fail(r, "a list is too long");
    TRY(apr_jj_list_new(r, n_times * seq.u.l->n, &l));
    for (size_t k = 0; k < n_times; k++)
        for (size_t i = 0; i < seq.u.l->n; i++) TRY(apr_jj_list_push(r, l, seq.u.l->at[i]));
    *out = apr_jj_of_list(l, (enum apr_jj_seq)seq.seq);
    return APR_OK;
}

static enum apr_code join_lists(struct apr_jj_run *r, struct apr_jj_val a, struct apr_jj_val b,
                                struct apr_jj_val *out)
{
    struct apr_jj_list *l = NULL;
    TRY(apr_jj_list_new(r, a.u.l->n + b.u.l->n, &l));
    for (size_t i = 0; i < a.u.l->n; i++) TRY(apr_jj_list_push(r, l, a.u.l->at[i]));
    for (size_t i = 0; i < b.u.l->n; i++) TRY(apr_jj_list_push(r, l, b.u.l->at[i]));
    *out = apr_jj_of_list(l, (enum apr_jj_seq)a.seq);
    return APR_OK;
}

static enum apr_code no_operator(struct apr_jj_run *r, enum apr_jj_op op, struct apr_jj_val a,
                                 struct apr_jj_val b)
{
    static const char *const names[] = {
        [APR_JJ_OP_ADD] = "+",  [APR_JJ_OP_SUB] = "-",       [APR_JJ_OP_MUL] = "*",
        [APR_JJ_OP_DIV] = "/",  [APR_JJ_OP_FLOORDIV] = "//", [APR_JJ_OP_MOD] = "%",
        [APR_JJ_OP_POW] = "**", [APR_JJ_OP_EQ] = "==",       [APR_JJ_OP_NE] = "!=",
        [APR_JJ_OP_LT] = "<",   [APR_JJ_OP_LE] = "<=",       [APR_JJ_OP_GT] = ">",
        [APR_JJ_OP_GE] = ">=",  [APR_JJ_OP_IN] = "in",       [APR_JJ_OP_NOT_IN] = "not in",
    };
    if (a.kind == APR_JJ_UNDEF) return apr_jj_undef_error(r, a);
    if (b.kind == APR_JJ_UNDEF) return apr_jj_undef_error(r, b);
    if (op == APR_JJ_OP_ADD && a.kind == APR_JJ_STR)
        return apr_jj_fail(r, "can only concatenate str (not \"%s\") to str", apr_jj_type_name(b));
    return apr_jj_fail(r, "unsupported operand types for %s: '%s' and '%s'", names[op], apr_jj_type_name(a),
                       apr_jj_type_name(b));
}

static bool is_plain_seq(struct apr_jj_val v)
{
    return v.kind == APR_JJ_LIST && v.seq <= APR_JJ_TUPLE;
}

static int64_t as_int(struct apr_jj_val v)
{
    return v.kind == APR_JJ_BOOL ? v.u.b : v.u.i;
}

enum apr_code apr_jj_binary(struct apr_jj_run *r, enum apr_jj_op op, struct apr_jj_val a, struct apr_jj_val b,
                            struct apr_jj_val *out)
{
    if (op == APR_JJ_OP_ADD && a.kind == APR_JJ_STR && b.kind == APR_JJ_STR)
        return apr_jj_str_concat(r, a.u.s, b.u.s, out);
    if (op == APR_JJ_OP_MOD && a.kind == APR_JJ_STR) return apr_jj_percent(r, a.u.s, b, out);
    if (apr_jj_is_number(a) && apr_jj_is_number(b)) {
        if (a.kind == APR_JJ_FLOAT || b.kind == APR_JJ_FLOAT)
            TRY(float_binary(r, op, apr_jj_as_double(a), apr_jj_as_double(b), out));
        else
            TRY(int_binary(r, op, as_int(a), as_int(b), out));
        out->data = a.data || b.data;
        return APR_OK;
    }
    if (op == APR_JJ_OP_ADD && is_plain_seq(a) && is_plain_seq(b) && a.seq == b.seq)
        return join_lists(r, a, b, out);
    if (op == APR_JJ_OP_MUL) {
        bool a_seq = a.kind == APR_JJ_STR || is_plain_seq(a), b_seq = b.kind == APR_JJ_STR || is_plain_seq(b);
        if (a_seq && (b.kind == APR_JJ_INT || b.kind == APR_JJ_BOOL)) return repeat(r, a, as_int(b), out);
        if (b_seq && (a.kind == APR_JJ_INT || a.kind == APR_JJ_BOOL)) return repeat(r, b, as_int(a), out);
    }
    return no_operator(r, op, a, b);
}

enum apr_code apr_jj_negate(struct apr_jj_run *r, struct apr_jj_val a, bool minus, struct apr_jj_val *out)
{
    int64_t i = 0;
    if (a.kind == APR_JJ_UNDEF) return apr_jj_undef_error(r, a);
    if (!apr_jj_is_number(a)) return apr_jj_fail(r, "bad operand type for a sign: '%s'", apr_jj_type_name(a));
    if (a.kind == APR_JJ_FLOAT) {
        *out = apr_jj_float(minus ? -a.u.f : a.u.f);
    } else {
        if (ckd_sub(&i, 0, as_int(a))) return apr_jj_fail(r, "integer outside 64 bits");
        *out = apr_jj_int(minus ? i : as_int(a));
    }
    out->data = a.data;
    return APR_OK;
}

static enum apr_code chars_of(struct apr_jj_run *r, const struct apr_jj_str *s, struct apr_jj_list *l)
{
    for (size_t off = 0; off < s->n;) {
        size_t n;
        struct apr_jj_val one;
        apr_jj_cp_at(s->p + off, s->p + s->n, &n);
        TRY(apr_jj_str_part(r, s, off, n, &one));
        TRY(apr_jj_list_push(r, l, one));
        off += n;
    }
    return APR_OK;
}

enum apr_code apr_jj_items(struct apr_jj_run *r, struct apr_jj_val v, const struct apr_jj_list **out)
{
    struct apr_jj_list *l = NULL;
    if (v.kind == APR_JJ_LIST && v.seq != APR_JJ_GEN) {
        *out = v.u.l;
        return APR_OK;
    }
    TRY(apr_jj_list_new(r, 0, &l));
    *out = l;
    if (v.kind == APR_JJ_LIST) {
        if (v.u.l->i_next == v.u.l->n) return APR_OK;
        l->at = v.u.l->at + v.u.l->i_next;
        l->n = l->n_cap = v.u.l->n - v.u.l->i_next;
        v.u.l->i_next = v.u.l->n;
        return APR_OK;
    }
    if (v.kind == APR_JJ_STR) return chars_of(r, v.u.s, l);
    if (v.kind == APR_JJ_DICT) {
        for (size_t i = 0; i < v.u.d->n; i++) TRY(apr_jj_list_push(r, l, v.u.d->at[i].key));
        return APR_OK;
    }
    if (v.kind == APR_JJ_UNDEF) return APR_OK;
    return apr_jj_fail(r, "'%s' object is not iterable", apr_jj_type_name(v));
}

enum apr_code apr_jj_length(struct apr_jj_run *r, struct apr_jj_val v, int64_t *n)
{
    if (v.kind == APR_JJ_STR) {
        TRY(apr_jj_charge(r, v.u.s->n / 256));
        *n = (int64_t)apr_jj_str_len(v.u.s);
    } else if (v.kind == APR_JJ_LIST && v.seq != APR_JJ_GEN) {
        *n = (int64_t)v.u.l->n;
    } else if (v.kind == APR_JJ_DICT) {
        *n = (int64_t)v.u.d->n;
    } else if (v.kind == APR_JJ_UNDEF) {
        *n = 0;
    } else {
        return apr_jj_fail(r, "object of type '%s' has no len()", apr_jj_type_name(v));
    }
    return APR_OK;
}
