/* The tests behind "is"; see fn.h. */
#include "case.h"
#include "fn.h"
#include "ops.h"

#define TEST(name_)                                                                                          \
    static enum apr_code name_(struct apr_jj_run *r, struct apr_jj_val self, const struct apr_jj_args *a,    \
                               struct apr_jj_val *out)

#define TEST_KIND(name_, condition_)                                                                         \
    TEST(name_)                                                                                              \
    {                                                                                                        \
        (void)self;                                                                                          \
        (void)r;                                                                                             \
        (void)a;                                                                                             \
        *out = apr_jj_bool(condition_);                                                                      \
        return APR_OK;                                                                                       \
    }
TEST_KIND(t_defined, self.kind != APR_JJ_UNDEF)
TEST_KIND(t_undefined, self.kind == APR_JJ_UNDEF)
TEST_KIND(t_none, self.kind == APR_JJ_NONE)
TEST_KIND(t_boolean, self.kind == APR_JJ_BOOL)
TEST_KIND(t_true, self.kind == APR_JJ_BOOL && self.u.b)
TEST_KIND(t_false, self.kind == APR_JJ_BOOL && !self.u.b)
TEST_KIND(t_integer, self.kind == APR_JJ_INT)
TEST_KIND(t_float, self.kind == APR_JJ_FLOAT)
TEST_KIND(t_number, apr_jj_is_number(self))
TEST_KIND(t_string, self.kind == APR_JJ_STR)
TEST_KIND(t_mapping, self.kind == APR_JJ_DICT)
TEST_KIND(t_callable, self.kind == APR_JJ_FUNC || self.kind == APR_JJ_MACRO || self.kind == APR_JJ_LOOP ||
                          self.kind == APR_JJ_UNDEF)
TEST_KIND(t_iterable, self.kind == APR_JJ_STR || self.kind == APR_JJ_LIST || self.kind == APR_JJ_DICT ||
                          self.kind == APR_JJ_UNDEF || self.kind == APR_JJ_LOOP)
TEST_KIND(t_sequence, self.kind == APR_JJ_STR || self.kind == APR_JJ_DICT || self.kind == APR_JJ_UNDEF ||
                          (self.kind == APR_JJ_LIST && self.seq <= APR_JJ_RANGE))
TEST_KIND(t_escaped, false)

static enum apr_code parity(struct apr_jj_run *r, struct apr_jj_val self, int64_t want,
                            struct apr_jj_val *out)
{
    struct apr_jj_val rest;
    bool yes = false;
    TRY(apr_jj_binary(r, APR_JJ_OP_MOD, self, apr_jj_int(2), &rest));
    TRY(apr_jj_equal(r, rest, apr_jj_int(want), &yes));
    *out = apr_jj_bool(yes);
    return APR_OK;
}

TEST(t_odd)
{
    (void)a;
    return parity(r, self, 1, out);
}

TEST(t_even)
{
    (void)a;
    return parity(r, self, 0, out);
}

TEST(t_divisibleby)
{
    struct apr_jj_val rest;
    bool yes = false;
    TRY(apr_jj_binary(r, APR_JJ_OP_MOD, self, a->at[0], &rest));
    TRY(apr_jj_equal(r, rest, apr_jj_int(0), &yes));
    *out = apr_jj_bool(yes);
    return APR_OK;
}

#define TEST_COMPARE(name_, op_)                                                                             \
    TEST(name_)                                                                                              \
    {                                                                                                        \
        bool yes = false;                                                                                    \
        TRY(apr_jj_compare(r, op_, self, a->at[0], &yes));                                                   \
        *out = apr_jj_bool(yes);                                                                             \
        return APR_OK;                                                                                       \
    }
TEST_COMPARE(t_eq, APR_JJ_OP_EQ)
TEST_COMPARE(t_ne, APR_JJ_OP_NE)
TEST_COMPARE(t_lt, APR_JJ_OP_LT)
TEST_COMPARE(t_le, APR_JJ_OP_LE)
TEST_COMPARE(t_gt, APR_JJ_OP_GT)
TEST_COMPARE(t_ge, APR_JJ_OP_GE)
TEST_COMPARE(t_in, APR_JJ_OP_IN)

TEST(t_sameas)
{
    struct apr_jj_val b = a->at[0];
    bool yes = self.kind == b.kind && self.u.d == b.u.d;
    if (self.kind == b.kind && self.kind <= APR_JJ_FLOAT) TRY(apr_jj_equal(r, self, b, &yes));
    *out = apr_jj_bool(yes);
    return APR_OK;
}

/* str(v).islower() and isupper(), through the methods. */
static enum apr_code ask(struct apr_jj_run *r, struct apr_jj_val self, const char *method,
                         struct apr_jj_val *out)
{
    struct apr_jj_val name;
    struct apr_jj_args none = {0};
    *out = apr_jj_bool(false);
    if (self.kind != APR_JJ_STR) return APR_OK;
    TRY(apr_jj_text(r, method, &name));
    return apr_jj_call_fn(r, apr_jj_find_method(self, name.u.s), self, &none, out);
}

TEST(t_lower)
{
    (void)a;
    return ask(r, self, "islower", out);
}

TEST(t_upper)
{
    (void)a;
    return ask(r, self, "isupper", out);
}

TEST(t_filter)
{
    const struct apr_jj_str *name = NULL;
    (void)a;
    TRY(apr_jj_arg_str(r, self, "filter", &name));
    *out = apr_jj_bool(apr_jj_find_filter(name) != NULL);
    return APR_OK;
}

TEST(t_test)
{
    const struct apr_jj_str *name = NULL;
    (void)a;
    TRY(apr_jj_arg_str(r, self, "test", &name));
    *out = apr_jj_bool(apr_jj_find_test(name) != NULL);
    return APR_OK;
}

const struct apr_jj_fn apr_jj_tests[] = {
    {"defined", "", 0, t_defined},    {"undefined", "", 0, t_undefined},
    {"none", "", 0, t_none},          {"boolean", "", 0, t_boolean},
    {"true", "", 0, t_true},          {"false", "", 0, t_false},
    {"integer", "", 0, t_integer},    {"float", "", 0, t_float},
    {"number", "", 0, t_number},      {"string", "", 0, t_string},
    {"mapping", "", 0, t_mapping},    {"callable", "", 0, t_callable},
    {"iterable", "", 0, t_iterable},  {"sequence", "", 0, t_sequence},
    {"escaped", "", 0, t_escaped},    {"odd", "", 0, t_odd},
    {"even", "", 0, t_even},          {"divisibleby", "num", 1, t_divisibleby},
    {"eq", "other", 1, t_eq},         {"equalto", "other", 1, t_eq},
    {"==", "other", 1, t_eq},         {"ne", "other", 1, t_ne},
    {"!=", "other", 1, t_ne},         {"lt", "other", 1, t_lt},
    {"lessthan", "other", 1, t_lt},   {"<", "other", 1, t_lt},
    {"le", "other", 1, t_le},         {"<=", "other", 1, t_le},
    {"gt", "other", 1, t_gt},         {"greaterthan", "other", 1, t_gt},
    {">", "other", 1, t_gt},          {"ge", "other", 1, t_ge},
    {">=", "other", 1, t_ge},         {"in", "seq", 1, t_in},
    {"sameas", "other", 1, t_sameas}, {"lower", "", 0, t_lower},
    {"upper", "", 0, t_upper},        {"filter", "", 0, t_filter},
    {"test", "", 0, t_test},          {NULL, NULL, 0, NULL},
};
