/* String methods about letters and character classes; see case.h and fn.h. */
#include "case.h"

#include <string.h>

#include <utf8proc.h>

#include "fn.h"

static bool is_letter(int32_t cp)
{
    utf8proc_category_t c = utf8proc_category(cp);
    return c >= UTF8PROC_CATEGORY_LU && c <= UTF8PROC_CATEGORY_LO;
}

static bool is_cased(int32_t cp)
{
    utf8proc_category_t c = utf8proc_category(cp);
    return c >= UTF8PROC_CATEGORY_LU && c <= UTF8PROC_CATEGORY_LT;
}

/* Letters that have no upper case of one letter (SpecialCasing.txt, Latin and Armenian). */
static const struct {
    int32_t cp;
    const char *upper, *title;
} long_uppers[] = {
    {0x00DF, "SS", "Ss"},
    {0x0149, "\xCA\xBCN", "\xCA\xBCN"},
    {0x01F0, "J\xCC\x8C", "J\xCC\x8C"},
    {0x0587, "\xD4\xB5\xD5\x92", "\xD4\xB5\xD6\x82"},
    {0xFB00, "FF", "Ff"},
    {0xFB01, "FI", "Fi"},
    {0xFB02, "FL", "Fl"},
    {0xFB03, "FFI", "Ffi"},
    {0xFB04, "FFL", "Ffl"},
    {0xFB05, "ST", "St"},
    {0xFB06, "ST", "St"},
};

static enum apr_code put_cased(struct apr_jj_sb *b, int32_t cp, bool upper, bool title, bool data)
{
    for (size_t i = 0; upper && i < sizeof long_uppers / sizeof long_uppers[0]; i++)
        if (long_uppers[i].cp == cp) {
            const char *text = title ? long_uppers[i].title : long_uppers[i].upper;
            return apr_jj_sb_bytes(b, text, strlen(text), data);
        }
    if (!upper && cp == 0x130) return apr_jj_sb_bytes(b, "i\xCC\x87", 3, data); /* dotted capital I */
    if (!upper) return apr_jj_sb_cp(b, utf8proc_tolower(cp), data);
    return apr_jj_sb_cp(b, title ? utf8proc_totitle(cp) : utf8proc_toupper(cp), data);
}

/* Capital sigma at the end of a word becomes the final form. */
static bool final_sigma(const struct apr_jj_str *s, size_t off, size_t n, bool after_letter)
{
    size_t k;
    return after_letter && (off + n == s->n || !is_letter(apr_jj_cp_at(s->p + off + n, s->p + s->n, &k)));
}

static bool starts_word(int32_t cp)
{
    return apr_jj_is_space(cp) || cp == '-' || cp == '(' || cp == '{' || cp == '[' || cp == '<';
}

enum apr_code apr_jj_case(struct apr_jj_run *r, const struct apr_jj_str *s, enum apr_jj_casing casing,
                          struct apr_jj_val *out)
{
    struct apr_jj_sb b;
    int32_t before = 0;
    TRY(apr_jj_charge(r, s->n / 8));
    apr_jj_sb_init(&b, r);
    for (size_t off = 0, n; off < s->n; off += n) {
        int32_t cp = apr_jj_cp_at(s->p + off, s->p + s->n, &n);
        bool data = apr_jj_str_is_data(s, off), begins = off == 0;
        if (casing == APR_JJ_TITLE) begins = off == 0 || !is_cased(before);
        if (casing == APR_JJ_WORDS) begins = off == 0 || starts_word(before);
        bool upper = casing == APR_JJ_UPPER || (casing >= APR_JJ_CAPITAL && begins) ||
                     (casing == APR_JJ_SWAP && utf8proc_category(cp) == UTF8PROC_CATEGORY_LL);
        if (!upper && cp == 0x3A3 && final_sigma(s, off, n, is_letter(before)))
            TRY(apr_jj_sb_cp(&b, 0x3C2, data));
        else
            TRY(put_cased(&b, cp, upper, casing == APR_JJ_CAPITAL || casing == APR_JJ_TITLE, data));
        before = cp;
    }
    return apr_jj_sb_done(&b, out);
}

static bool ends_line(int32_t cp)
{
    return (cp >= 10 && cp <= 13) || (cp >= 0x1C && cp <= 0x1E) || cp == 0x85 || cp == 0x2028 || cp == 0x2029;
}

enum apr_code apr_jj_split_lines(struct apr_jj_run *r, const struct apr_jj_str *s, bool keep_ends,
                                 struct apr_jj_list **out)
{
    struct apr_jj_val line;
    size_t begin = 0;
    TRY(apr_jj_list_new(r, 0, out));
    TRY(apr_jj_charge(r, s->n / 64));
    for (size_t off = 0, n; off < s->n; off += n) {
        int32_t cp = apr_jj_cp_at(s->p + off, s->p + s->n, &n);
        if (!ends_line(cp)) continue;
        if (cp == '\r' && off + 1 < s->n && s->p[off + 1] == '\n') n = 2;
        TRY(apr_jj_str_part(r, s, begin, off - begin + (keep_ends ? n : 0), &line));
        TRY(apr_jj_list_push(r, *out, line));
        begin = off + n;
    }
    if (begin == s->n) return APR_OK;
    TRY(apr_jj_str_part(r, s, begin, s->n - begin, &line));
    return apr_jj_list_push(r, *out, line);
}

/* What every character, and the string as a whole, must be. */
static enum apr_code all_are(struct apr_jj_run *r, struct apr_jj_val self, bool (*is)(int32_t cp),
                             struct apr_jj_val *out)
{
    const struct apr_jj_str *s = self.u.s;
    bool yes = s->n > 0;
    TRY(apr_jj_charge(r, s->n / 16));
    for (size_t off = 0, n; yes && off < s->n; off += n) yes = is(apr_jj_cp_at(s->p + off, s->p + s->n, &n));
    *out = apr_jj_bool(yes);
    return APR_OK;
}

static bool is_digit(int32_t cp)
{
    return utf8proc_category(cp) == UTF8PROC_CATEGORY_ND;
}

static bool is_numeric(int32_t cp)
{
    utf8proc_category_t c = utf8proc_category(cp);
    return c >= UTF8PROC_CATEGORY_ND && c <= UTF8PROC_CATEGORY_NO;
}

static bool is_alnum(int32_t cp)
{
    return is_letter(cp) || is_numeric(cp);
}

static bool is_ascii(int32_t cp)
{
    return cp < 0x80;
}

#define METHOD_ALL(name_, is_)                                                                               \
    static enum apr_code name_(struct apr_jj_run *r, struct apr_jj_val self, const struct apr_jj_args *a,    \
                               struct apr_jj_val *out)                                                       \
    {                                                                                                        \
        (void)a;                                                                                             \
        return all_are(r, self, is_, out);                                                                   \
    }
METHOD_ALL(m_isalpha, is_letter)
METHOD_ALL(m_isdigit, is_digit)
METHOD_ALL(m_isnumeric, is_numeric)
METHOD_ALL(m_isalnum, is_alnum)
METHOD_ALL(m_isspace, apr_jj_is_space)

static enum apr_code m_isascii(struct apr_jj_run *r, struct apr_jj_val self, const struct apr_jj_args *a,
                               struct apr_jj_val *out)
{
    (void)a;
    TRY(all_are(r, self, is_ascii, out));
    if (!self.u.s->n) *out = apr_jj_bool(true);
    return APR_OK;
}

/* isupper, islower: some letter has case and none has the other one. */
static void one_case(const struct apr_jj_str *s, utf8proc_category_t want, utf8proc_category_t other,
                     struct apr_jj_val *out)
{
    bool some = false, none = true;
    for (size_t off = 0, n; off < s->n; off += n) {
        utf8proc_category_t c = utf8proc_category(apr_jj_cp_at(s->p + off, s->p + s->n, &n));
        some = some || c == want;
        none = none && c != other && c != UTF8PROC_CATEGORY_LT;
    }
    *out = apr_jj_bool(some && none);
}

static enum apr_code m_isupper(struct apr_jj_run *r, struct apr_jj_val self, const struct apr_jj_args *a,
                               struct apr_jj_val *out)
{
    (void)a;
    TRY(apr_jj_charge(r, self.u.s->n / 16));
    one_case(self.u.s, UTF8PROC_CATEGORY_LU, UTF8PROC_CATEGORY_LL, out);
    return APR_OK;
}

static enum apr_code m_islower(struct apr_jj_run *r, struct apr_jj_val self, const struct apr_jj_args *a,
                               struct apr_jj_val *out)
{
    (void)a;
    TRY(apr_jj_charge(r, self.u.s->n / 16));
    one_case(self.u.s, UTF8PROC_CATEGORY_LL, UTF8PROC_CATEGORY_LU, out);
    return APR_OK;
}

#define METHOD_CASE(name_, casing_)                                                                          \
    static enum apr_code name_(struct apr_jj_run *r, struct apr_jj_val self, const struct apr_jj_args *a,    \
                               struct apr_jj_val *out)                                                       \
    {                                                                                                        \
        (void)a;                                                                                             \
        return apr_jj_case(r, self.u.s, casing_, out);                                                       \
    }
METHOD_CASE(m_upper, APR_JJ_UPPER)
METHOD_CASE(m_lower, APR_JJ_LOWER)
METHOD_CASE(m_swapcase, APR_JJ_SWAP)
METHOD_CASE(m_capitalize, APR_JJ_CAPITAL)
METHOD_CASE(m_title, APR_JJ_TITLE)

const struct apr_jj_fn apr_jj_str_asks[] = {
    {"upper", "", 0, m_upper},           {"lower", "", 0, m_lower},
    {"casefold", "", 0, m_lower},        {"swapcase", "", 0, m_swapcase},
    {"capitalize", "", 0, m_capitalize}, {"title", "", 0, m_title},
    {"isalpha", "", 0, m_isalpha},       {"isdigit", "", 0, m_isdigit},
    {"isdecimal", "", 0, m_isdigit},     {"isnumeric", "", 0, m_isnumeric},
    {"isalnum", "", 0, m_isalnum},       {"isspace", "", 0, m_isspace},
    {"isascii", "", 0, m_isascii},       {"isupper", "", 0, m_isupper},
    {"islower", "", 0, m_islower},       {NULL, NULL, 0, NULL},
};
