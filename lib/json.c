/* Limits first, by one scan without recursion; then jansson. */
#include "json.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include <utf8proc.h>

#include "io.h"

#define MAX_INT_DIGITS 18 /* any number of so many digits fits int64_t */

/* What the scan before the parser learns. */
struct scan {
    const char *text;
    size_t n_bytes;
    const char *file;
    struct apr_buf
        wide; /* the text with ".0" after integers that int64_t cannot hold; empty when there are none */
    size_t n_copied;
};

static void position(const char *text, size_t pos, size_t *line, size_t *column)
{
    *line = 1;
    *column = 1;
    for (size_t i = 0; i < pos; i++) {
        if (text[i] == '\n') {
            *line += 1;
            *column = 1;
        } else {
            *column += 1;
        }
    }
}

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

static bool fits_int64(const char *s, size_t n_digits, bool negative)
{
    uint64_t v = 0;
    for (size_t i = 0; i < n_digits; i++)
        if (__builtin_mul_overflow(v, (uint64_t)10, &v) ||
            __builtin_add_overflow(v, (uint64_t)(s[i] - '0'), &v))
            return false;
    return v <= (uint64_t)INT64_MAX + negative;
}

/* At the first digit of a number; returns the first position behind its digits. Python writes "no limit" as
 * the integer 10^30, which jansson refuses; it is handed over as a real. */
static size_t scan_digits(struct scan *s, size_t i, enum apr_code *rc, struct apr_err *e)
{
    size_t begin = i;
    while (i < s->n_bytes && is_digit(s->text[i])) i++;
    bool whole = i == s->n_bytes || !strchr(".eE", s->text[i]);
    bool negative = begin && s->text[begin - 1] == '-';
    char before = begin > (size_t)negative ? s->text[begin - 1 - negative] : ' ';
    if (i - begin <= MAX_INT_DIGITS || !whole || strchr(".eE+", before)) return i;
    if (fits_int64(s->text + begin, i - begin, negative)) return i;
    *rc = apr_buf_append(&s->wide, s->text + s->n_copied, i - s->n_copied, e);
    if (*rc == APR_OK) *rc = apr_buf_append(&s->wide, ".0", 2, e);
    s->n_copied = i;
    return i;
}

static enum apr_code scan_limits(struct scan *s, struct apr_err *e)
{
    size_t depth = 0, line, column;
    bool in_string = false;
    enum apr_code rc = APR_OK;
    for (size_t i = 0; i < s->n_bytes; i++) {
        char c = s->text[i];
        if (in_string) {
            if (c == '\\')
                i++;
            else if (c == '"')
                in_string = false;
            continue;
        }
        if (c == '"') in_string = true;
        if ((c == '}' || c == ']') && depth) depth--;
        if (is_digit(c)) {
            i = scan_digits(s, i, &rc, e) - 1;
            if (rc != APR_OK) return rc;
        }
        if ((c == '{' || c == '[') && ++depth > APR_JSON_MAX_DEPTH) {
            position(s->text, i, &line, &column);
            return apr_fail(e, APR_EFORMAT, "%s: line %zu column %zu: JSON nested deeper than %d", s->file,
                            line, column, APR_JSON_MAX_DEPTH);
        }
    }
    if (s->n_copied) return apr_buf_append(&s->wide, s->text + s->n_copied, s->n_bytes - s->n_copied, e);
    return APR_OK;
}

enum apr_code apr_json_parse(const char *text, size_t n_bytes, const char *file, json_t **out,
                             struct apr_err *e)
{
    struct scan s = {.text = text, .n_bytes = n_bytes, .file = file};
    json_error_t why;
    *out = NULL;
    if (n_bytes > APR_JSON_MAX_BYTES)
        return apr_fail(e, APR_EFORMAT, "%s: JSON of %zu bytes; the limit is %u", file, n_bytes,
                        APR_JSON_MAX_BYTES);
    apr_buf_init(&s.wide, SIZE_MAX / 2);
    enum apr_code rc = scan_limits(&s, e);
    if (rc == APR_OK) {
        const char *from = s.n_copied ? (const char *)s.wide.data : text;
        *out = json_loadb(from, s.n_copied ? s.wide.n_bytes : n_bytes,
                          JSON_REJECT_DUPLICATES | JSON_DECODE_ANY, &why);
        if (!*out)
            rc = apr_fail(e, APR_EFORMAT, "%s: line %d column %d: %s", file, why.line, why.column, why.text);
    }
    apr_buf_free(&s.wide);
    return rc;
}

enum apr_code apr_json_load(const char *path, size_t max_bytes, json_t **out, struct apr_err *e)
{
    struct apr_buf b;
    char name[1024];
    *out = NULL;
    apr_buf_init(&b, max_bytes);
    enum apr_code rc = apr_read_file(path, max_bytes, &b, e);
    apr_escape(name, sizeof name, path, strlen(path));
    if (rc == APR_OK) rc = apr_json_parse(b.data ? (const char *)b.data : "", b.n_bytes, name, out, e);
    apr_buf_free(&b);
    return rc;
}

/* One character that cannot stand as it is. */
static enum apr_code put_escape(struct apr_buf *b, unsigned char c, struct apr_err *e)
{
    static const char names[] = "btn\0fr"; /* of 8 to 13; 11 has none */
    if (c == '"' || c == '\\') return apr_buf_printf(b, e, "\\%c", c);
    if (c >= 8 && c <= 13 && names[c - 8]) return apr_buf_printf(b, e, "\\%c", names[c - 8]);
    return apr_buf_printf(b, e, "\\u%04x", c);
}

enum apr_code apr_json_put_str(struct apr_buf *b, const char *s, size_t n_bytes, struct apr_err *e)
{
    static const char replacement[] = "\xef\xbf\xbd"; /* U+FFFD for what is no UTF-8 */
    const utf8proc_uint8_t *u = (const utf8proc_uint8_t *)s;
    size_t done = 0;
    TRY(apr_buf_append(b, "\"", 1, e));
    for (size_t i = 0; i < n_bytes;) {
        utf8proc_int32_t cp;
        utf8proc_ssize_t n = u[i] < 0x80 ? 1 : utf8proc_iterate(u + i, (utf8proc_ssize_t)(n_bytes - i), &cp);
        if (n > 1 || (n == 1 && u[i] >= 0x20 && u[i] != '"' && u[i] != '\\' && u[i] != 0x7f)) {
            i += (size_t)n;
            continue;
        }
        TRY(apr_buf_append(b, s + done, i - done, e));
        TRY(n == 1 ? put_escape(b, u[i], e) : apr_buf_append(b, replacement, 3, e));
        done = ++i;
    }
    TRY(apr_buf_append(b, s + done, n_bytes - done, e));
    return apr_buf_append(b, "\"", 1, e);
}

enum apr_code apr_json_put_f64(struct apr_buf *b, double v, struct apr_err *e)
{
    char text[40];
    if (!isfinite(v)) return apr_buf_append(b, "null", 4, e);
    for (int n_digits = 15; n_digits <= 17; n_digits++) {
        snprintf(text, sizeof text, "%.*g", n_digits, v);
        double back = strtod(text, NULL);
        if (back == v) break;
    }
    TRY(apr_buf_append(b, text, strlen(text), e));
    return strpbrk(text, ".e") ? APR_OK : apr_buf_append(b, ".0", 2, e);
}

static int by_key(const void *a, const void *b)
{
    const char *const *x = a, *const *y = b;
    return strcmp(*x, *y);
}

static enum apr_code dump(const json_t *v, bool sorted, unsigned depth, struct apr_buf *out,
                          struct apr_err *e);

static enum apr_code dump_object(const json_t *v, bool sorted, unsigned depth, struct apr_buf *out,
                                 struct apr_err *e)
{
    struct apr_arena names;
    size_t n = json_object_size(v), i = 0;
    apr_arena_init(&names);
    const char **keys = apr_arena_get(&names, n * sizeof *keys);
    json_t *obj = (json_t *)(uintptr_t)v; /* jansson's iterators are not const */
    for (void *it = json_object_iter(obj); it; it = json_object_iter_next(obj, it))
        keys[i++] = json_object_iter_key(it);
    if (sorted && n) qsort(keys, n, sizeof *keys, by_key);
    enum apr_code rc = apr_buf_append(out, "{", 1, e);
    for (i = 0; rc == APR_OK && i < n; i++) {
        if (i) rc = apr_buf_append(out, ",", 1, e);
        if (rc == APR_OK) rc = apr_json_put_str(out, keys[i], strlen(keys[i]), e);
        if (rc == APR_OK) rc = apr_buf_append(out, ":", 1, e);
        if (rc == APR_OK) rc = dump(json_object_get(v, keys[i]), sorted, depth + 1, out, e);
    }
    apr_arena_free(&names);
    return rc == APR_OK ? apr_buf_append(out, "}", 1, e) : rc;
}

/* Our own printer, because jansson's real numbers differ between its versions and files must not. */
static enum apr_code dump(const json_t *v, bool sorted, unsigned depth, struct apr_buf *out,
                          struct apr_err *e)
{
    if (depth > 2 * APR_JSON_MAX_DEPTH) return apr_fail(e, APR_EFORMAT, "JSON nested too deep to be written");
    if (json_is_object(v)) return dump_object(v, sorted, depth, out, e);
    if (json_is_string(v)) return apr_json_put_str(out, json_string_value(v), json_string_length(v), e);
    if (json_is_integer(v)) return apr_buf_printf(out, e, "%" JSON_INTEGER_FORMAT, json_integer_value(v));
    if (json_is_real(v)) return apr_json_put_f64(out, json_real_value(v), e);
    if (json_is_boolean(v)) return apr_buf_printf(out, e, "%s", json_is_true(v) ? "true" : "false");
    if (!json_is_array(v)) return apr_buf_append(out, "null", 4, e);
    TRY(apr_buf_append(out, "[", 1, e));
    for (size_t i = 0; i < json_array_size(v); i++) {
        if (i) TRY(apr_buf_append(out, ",", 1, e));
        TRY(dump(json_array_get(v, i), sorted, depth + 1, out, e));
    }
    return apr_buf_append(out, "]", 1, e);
}

enum apr_code apr_json_dump(const json_t *v, bool sorted, struct apr_buf *out, struct apr_err *e)
{
    return dump(v, sorted, 0, out, e);
}

/* "$.key" with what was found instead. */
static enum apr_code wrong(const char *file, const char *key, const json_t *found, const char *expected,
                           struct apr_err *e)
{
    struct apr_buf b;
    struct apr_err inner;
    apr_buf_init(&b, 1 << 20);
    const char *text = "a long value";
    if (apr_json_dump(found, false, &b, &inner) == APR_OK && b.n_bytes <= 80) text = (const char *)b.data;
    enum apr_code rc = apr_fail(e, APR_EFORMAT, "%s: $.%s: expected %s, found %s", file, key, expected, text);
    apr_buf_free(&b);
    return rc;
}

static const json_t *member(const json_t *obj, const char *key)
{
    const json_t *v = json_object_get(obj, key);
    return json_is_null(v) ? NULL : v;
}

enum apr_code apr_json_u64(const json_t *obj, const char *key, uint64_t min, uint64_t max, uint64_t *v,
                           const char *file, struct apr_err *e)
{
    const json_t *j = member(obj, key);
    if (!j) return APR_OK;
    json_int_t i = json_integer_value(j);
    if (json_is_integer(j) && i >= 0 && (uint64_t)i >= min && (uint64_t)i <= max) {
        *v = (uint64_t)i;
        return APR_OK;
    }
    char expected[96];
    if (max >= INT64_MAX)
        snprintf(expected, sizeof expected, "an integer >= %" PRIu64, min);
    else
        snprintf(expected, sizeof expected, "an integer from %" PRIu64 " to %" PRIu64, min, max);
    return wrong(file, key, j, expected, e);
}

enum apr_code apr_json_f64(const json_t *obj, const char *key, double *v, const char *file, struct apr_err *e)
{
    const json_t *j = member(obj, key);
    if (!j) return APR_OK;
    if (!json_is_number(j)) return wrong(file, key, j, "a number", e);
    *v = json_number_value(j);
    return APR_OK;
}

enum apr_code apr_json_bool(const json_t *obj, const char *key, bool *v, const char *file, struct apr_err *e)
{
    const json_t *j = member(obj, key);
    if (!j) return APR_OK;
    if (!json_is_boolean(j)) return wrong(file, key, j, "true or false", e);
    *v = json_is_true(j);
    return APR_OK;
}

enum apr_code apr_json_str(const json_t *obj, const char *key, const char **v, const char *file,
                           struct apr_err *e)
{
    const json_t *j = member(obj, key);
    if (!j) return APR_OK;
    if (!json_is_string(j)) return wrong(file, key, j, "a string", e);
    *v = json_string_value(j);
    return APR_OK;
}
