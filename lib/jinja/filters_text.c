/* Filters that make text of text; see fn.h. Their input is first made a string. */
#include <string.h>

#include "case.h"
#include "fn.h"
#include "format.h"
#include "methods.h"
#include "ops.h"
#include "repr.h"

#define FILTER(name_)                                                                                        \
    static enum apr_code name_(struct apr_jj_run *r, struct apr_jj_val self, const struct apr_jj_args *a,    \
                               struct apr_jj_val *out)

#define FILTER_CASE(name_, casing_)                                                                          \
    FILTER(name_)                                                                                            \
    {                                                                                                        \
        (void)a;                                                                                             \
        TRY(apr_jj_to_str(r, self, &self));                                                                  \
        return apr_jj_case(r, self.u.s, casing_, out);                                                       \
    }
FILTER_CASE(f_upper, APR_JJ_UPPER)
FILTER_CASE(f_lower, APR_JJ_LOWER)
FILTER_CASE(f_capitalize, APR_JJ_CAPITAL)
FILTER_CASE(f_title, APR_JJ_WORDS)

FILTER(f_string) /* string, safe: nothing here is escaped */
{
    (void)a;
    return apr_jj_to_str(r, self, out);
}

FILTER(f_trim)
{
    const struct apr_jj_str *chars = NULL;
    TRY(apr_jj_to_str(r, self, &self));
    if (a->at[0].kind != APR_JJ_NONE) TRY(apr_jj_arg_str(r, a->at[0], "trim", &chars));
    return apr_jj_str_strip(r, self.u.s, chars, true, true, out);
}

FILTER(f_replace)
{
    struct apr_jj_val old, new_text;
    int64_t n_max = -1;
    TRY(apr_jj_to_str(r, self, &self));
    TRY(apr_jj_to_str(r, a->at[0], &old));
    TRY(apr_jj_to_str(r, a->at[1], &new_text));
    if (a->at[2].kind != APR_JJ_NONE) TRY(apr_jj_arg_int(r, a->at[2], "replace", &n_max));
    return apr_jj_replace(r, self.u.s, old.u.s, new_text.u.s, n_max, out);
}

/* The text that indents a line: width spaces, or width itself when it is a string. */
static enum apr_code indentation(struct apr_jj_run *r, struct apr_jj_val width, struct apr_jj_val *out)
{
    static const struct apr_jj_str space = {.p = " ", .n = 1};
    struct apr_jj_sb b;
    int64_t n = 4;
    if (width.kind == APR_JJ_STR) {
        *out = width;
        return APR_OK;
    }
    TRY(apr_jj_arg_int(r, width, "indent", &n));
    apr_jj_sb_init(&b, r);
    TRY(apr_jj_sb_fill(&b, &space, n > 0 ? (size_t)n : 0));
    return apr_jj_sb_done(&b, out);
}

FILTER(f_indent)
{
    struct apr_jj_val indent;
    struct apr_jj_list *lines = NULL;
    struct apr_jj_sb b;
    bool first = false, blank = false;
    TRY(apr_jj_to_str(r, self, &self));
    TRY(indentation(r, a->at[0], &indent));
    TRY(apr_jj_truth(r, a->at[1], &first));
    TRY(apr_jj_truth(r, a->at[2], &blank));
    const struct apr_jj_str *s = self.u.s;
    TRY(apr_jj_split_lines(r, s, false, &lines));
    /* The filter counts a line behind a final line end too: it splits s + "\n". */
    size_t n_last = lines->n ? lines->at[lines->n - 1].u.s->n : 0;
    bool open_end = lines->n && n_last && lines->at[lines->n - 1].u.s->p + n_last == s->p + s->n;
    size_t n_lines = lines->n + !open_end;
    apr_jj_sb_init(&b, r);
    for (size_t i = 0; i < n_lines; i++) {
        const struct apr_jj_str *line = i < lines->n ? lines->at[i].u.s : NULL;
        TRY(apr_jj_charge(r, 1));
        if (i) TRY(apr_jj_sb_text(&b, "\n"));
        if (i ? (line && line->n) || blank : first) TRY(apr_jj_sb_str(&b, indent.u.s));
        if (line) TRY(apr_jj_sb_str(&b, line));
    }
    return apr_jj_sb_done(&b, out);
}

FILTER(f_center)
{
    static const struct apr_jj_str space = {.p = " ", .n = 1};
    int64_t width = 80;
    TRY(apr_jj_to_str(r, self, &self));
    TRY(apr_jj_arg_int(r, a->at[0], "center", &width));
    return apr_jj_justify(r, self.u.s, width, 0, &space, out);
}

FILTER(f_format)
{
    struct apr_jj_list values = {.at = a->at, .n = a->n};
    struct apr_jj_dict *d = NULL;
    TRY(apr_jj_to_str(r, self, &self));
    if (!a->n_kw) return apr_jj_percent(r, self.u.s, apr_jj_of_list(&values, APR_JJ_TUPLE), out);
    if (a->n) return apr_jj_fail(r, "format takes positional or keyword arguments, not both");
    TRY(apr_jj_dict_new(r, &d));
    for (size_t i = 0; i < a->n_kw; i++) TRY(apr_jj_dict_set(r, d, apr_jj_of_str(a->kw_names[i]), a->kw[i]));
    return apr_jj_percent(r, self.u.s, apr_jj_of_dict(d), out);
}

/* Replaces single bytes by text; row i of texts stands for from[i]. */
static enum apr_code put_escaped(struct apr_jj_sb *b, const struct apr_jj_str *s, const char *from,
                                 const char *const *texts)
{
    for (size_t off = 0; off < s->n; off++) {
        const char *hit = s->p[off] ? strchr(from, s->p[off]) : NULL;
        const char *text = hit ? texts[hit - from] : NULL;
        if (text)
            TRY(apr_jj_sb_bytes(b, text, strlen(text), apr_jj_str_is_data(s, off)));
        else
            TRY(apr_jj_sb_part(b, s, off, 1));
    }
    return APR_OK;
}

FILTER(f_escape)
{
    static const char *const texts[] = {"&amp;", "&lt;", "&gt;", "&#39;", "&#34;"};
    struct apr_jj_sb b;
    (void)a;
    TRY(apr_jj_to_str(r, self, &self));
    TRY(apr_jj_charge(r, self.u.s->n / 16));
    apr_jj_sb_init(&b, r);
    TRY(put_escaped(&b, self.u.s, "&<>'\"", texts));
    return apr_jj_sb_done(&b, out);
}

FILTER(f_urlencode)
{
    static const char hex[] = "0123456789ABCDEF";
    struct apr_jj_sb b;
    (void)a;
    TRY(apr_jj_to_str(r, self, &self));
    TRY(apr_jj_charge(r, self.u.s->n / 16));
    apr_jj_sb_init(&b, r);
    for (size_t i = 0; i < self.u.s->n; i++) {
        uint8_t c = (uint8_t)self.u.s->p[i];
        char esc[3] = {'%', hex[c >> 4], hex[c & 15]};
        bool plain =
            (c >= '0' && c <= '9') || ((c | 0x20) >= 'a' && (c | 0x20) <= 'z') || (c && strchr("-._~/", c));
        TRY(apr_jj_sb_bytes(&b, plain ? (const char *)&c : esc, plain ? 1 : 3,
                            apr_jj_str_is_data(self.u.s, i)));
    }
    return apr_jj_sb_done(&b, out);
}

FILTER(f_wordcount)
{
    bool word = false;
    int64_t n_words = 0;
    (void)a;
    TRY(apr_jj_to_str(r, self, &self));
    TRY(apr_jj_charge(r, self.u.s->n / 16));
    for (size_t off = 0, n; off < self.u.s->n; off += n) {
        int32_t cp = apr_jj_cp_at(self.u.s->p + off, self.u.s->p + self.u.s->n, &n);
        bool now = !apr_jj_is_space(cp) && (cp >= 0x80 || cp == '_' || (cp >= '0' && cp <= '9') ||
                                            ((cp | 0x20) >= 'a' && (cp | 0x20) <= 'z'));
        n_words += now && !word;
        word = now;
    }
    *out = apr_jj_int(n_words);
    return APR_OK;
}

/* Longer than length + leeway: cut to length, with end inside it, at a space unless killwords. */
FILTER(f_truncate)
{
    static const struct apr_jj_str dots = {.p = "...", .n = 3}, space = {.p = " ", .n = 1};
    const struct apr_jj_str *end = &dots;
    int64_t length = 255, leeway = 5;
    struct apr_jj_sb b;
    bool kill = false;
    TRY(apr_jj_to_str(r, self, &self));
    TRY(apr_jj_arg_int(r, a->at[0], "truncate", &length));
    TRY(apr_jj_truth(r, a->at[1], &kill));
    TRY(apr_jj_arg_str(r, a->at[2], "truncate", &end));
    if (a->at[3].kind != APR_JJ_NONE) TRY(apr_jj_arg_int(r, a->at[3], "truncate", &leeway));
    const struct apr_jj_str *s = self.u.s;
    TRY(apr_jj_charge(r, s->n / 32));
    int64_t n = (int64_t)apr_jj_str_len(s), n_end = (int64_t)apr_jj_str_len(end);
    if (length < n_end || leeway < 0)
        return apr_jj_fail(r, "truncate: expected length >= %lld", (long long)n_end);
    *out = self;
    if (n <= length || n - length <= leeway) return APR_OK;
    size_t n_keep = apr_jj_cp_off(s, (size_t)(length - n_end));
    ssize_t at = -1;
    if (!kill) TRY(apr_jj_str_rfind(r, s, &space, n_keep, &at));
    apr_jj_sb_init(&b, r);
    TRY(apr_jj_sb_part(&b, s, 0, at < 0 ? n_keep : (size_t)at));
    TRY(apr_jj_sb_str(&b, end));
    return apr_jj_sb_done(&b, out);
}

const struct apr_jj_fn apr_jj_filters_text[] = {
    {"upper", "", 0, f_upper},
    {"lower", "", 0, f_lower},
    {"capitalize", "", 0, f_capitalize},
    {"title", "", 0, f_title},
    {"string", "", 0, f_string},
    {"safe", "", 0, f_string},
    {"trim", "chars", 0, f_trim},
    {"replace", "old,new,count", 2, f_replace},
    {"indent", "width,first,blank", 0, f_indent},
    {"center", "width", 0, f_center},
    {"format", "*", 0, f_format},
    {"escape", "", 0, f_escape},
    {"e", "", 0, f_escape},
    {"forceescape", "", 0, f_escape},
    {"urlencode", "", 0, f_urlencode},
    {"wordcount", "", 0, f_wordcount},
    {"truncate", "length,killwords,end,leeway", 0, f_truncate},
    {NULL, NULL, 0, NULL},
};
