/* See norm.h. */
#include "norm.h"

#include <string.h>
#include <utf8proc.h>

#include "utf8.h"

void apr_norm_work_init(struct apr_norm_work *w)
{
    *w = (struct apr_norm_work){0};
    apr_buf_init(&w->cps, SIZE_MAX);
    apr_buf_init(&w->order, SIZE_MAX);
    for (int i = 0; i < 2; i++) apr_buf_init(&w->texts[i], UINT32_MAX);
}

void apr_norm_work_free(struct apr_norm_work *w)
{
    apr_buf_free(&w->cps);
    apr_buf_free(&w->order);
    for (int i = 0; i < 2; i++) apr_buf_free(&w->texts[i]);
}

/* Below U+0300 (lead byte 0xcc) every character is its own NFC, and there are no marks. */
static bool is_plain(const uint8_t *p, size_t n, uint8_t lead)
{
    for (size_t i = 0; i < n; i++)
        if (p[i] >= lead) return false;
    return true;
}

/* The longest canonical or compatibility decomposition is 18 code points (U+FDFA). */
enum { MAX_DECOMPOSED = 32 };

static enum apr_code decompose(struct apr_buf *cps, const uint8_t *p, size_t n, utf8proc_option_t options,
                               struct apr_err *e)
{
    cps->n_bytes = 0;
    for (size_t i = 0; i < n;) {
        uint32_t cp;
        i += (size_t)apr_utf8_get(p + i, n - i, &cp);
        utf8proc_int32_t out[MAX_DECOMPOSED];
        int boundary = 0;
        utf8proc_ssize_t k =
            utf8proc_decompose_char((utf8proc_int32_t)cp, out, MAX_DECOMPOSED, options, &boundary);
        if (k < 0 || k > MAX_DECOMPOSED) {
            out[0] = (utf8proc_int32_t)cp;
            k = 1;
        }
        TRY(apr_buf_append(cps, out, (size_t)k * sizeof *out, e));
    }
    return APR_OK;
}

static uint8_t ccc(int32_t cp)
{
    return (uint8_t)utf8proc_get_property(cp)->combining_class;
}

/* Canonical ordering: a stable sort of each run of marks by combining class. */
static enum apr_code sort_run(int32_t *at, size_t n, struct apr_buf *scratch, struct apr_err *e)
{
    if (n <= 16) {
        for (size_t i = 1; i < n; i++) {
            int32_t cp = at[i];
            size_t k = i;
            for (; k > 0 && ccc(at[k - 1]) > ccc(cp); k--) at[k] = at[k - 1];
            at[k] = cp;
        }
        return APR_OK;
    }
    size_t starts[257] = {0};
    for (size_t i = 0; i < n; i++) starts[ccc(at[i]) + 1]++;
    for (size_t c = 1; c < 257; c++) starts[c] += starts[c - 1];
    uint8_t *room;
    scratch->n_bytes = 0;
    TRY(apr_buf_reserve(scratch, n * sizeof *at, &room, e));
    int32_t *sorted = (int32_t *)(void *)room;
    for (size_t i = 0; i < n; i++) sorted[starts[ccc(at[i])]++] = at[i];
    memcpy(at, sorted, n * sizeof *at);
    return APR_OK;
}

static enum apr_code reorder(struct apr_buf *cps, struct apr_buf *scratch, struct apr_err *e)
{
    int32_t *at = (int32_t *)(void *)cps->data;
    size_t n = cps->n_bytes / sizeof *at;
    for (size_t i = 0; i < n;) {
        if (ccc(at[i]) == 0) {
            i++;
            continue;
        }
        size_t end = i + 1;
        while (end < n && ccc(at[end]) != 0) end++;
        TRY(sort_run(at + i, end - i, scratch, e));
        i = end;
    }
    return APR_OK;
}

static enum apr_code put_cps(const struct apr_buf *cps, size_t n, struct apr_buf *out, struct apr_err *e)
{
    const int32_t *at = (const int32_t *)(const void *)cps->data;
    uint8_t *room;
    TRY(apr_buf_reserve(out, 4 * n, &room, e));
    size_t n_out = 0;
    for (size_t i = 0; i < n; i++) n_out += apr_utf8_put((uint32_t)at[i], room + n_out);
    apr_buf_commit(out, n_out);
    return APR_OK;
}

static enum apr_code normal_form(struct apr_norm_work *w, bool compat, bool compose, struct apr_buf *out,
                                 struct apr_err *e)
{
    uint8_t safe = compat || !compose ? 0x80 : 0xcc;
    if (is_plain(w->p, w->n, safe)) return apr_buf_append(out, w->p, w->n, e);
    utf8proc_option_t options = UTF8PROC_STABLE | UTF8PROC_DECOMPOSE;
    if (compat) options |= UTF8PROC_COMPAT;
    TRY(decompose(&w->cps, w->p, w->n, options, e));
    TRY(reorder(&w->cps, &w->order, e));
    size_t n = w->cps.n_bytes / sizeof(int32_t);
    if (compose) {
        options = UTF8PROC_STABLE | UTF8PROC_COMPOSE;
        utf8proc_ssize_t k =
            utf8proc_normalize_utf32((int32_t *)(void *)w->cps.data, (utf8proc_ssize_t)n, options);
        if (k < 0) return apr_fail(e, APR_EFORMAT, "text cannot be normalized: %s", utf8proc_errmsg(k));
        n = (size_t)k;
    }
    return put_cps(&w->cps, n, out, e);
}

static enum apr_code lower(struct apr_norm_work *w, struct apr_buf *out, struct apr_err *e)
{
    w->cps.n_bytes = 0;
    for (size_t i = 0; i < w->n;) {
        uint32_t cp;
        i += (size_t)apr_utf8_get(w->p + i, w->n - i, &cp);
        /* U+0130 is the one character whose lower case is two (SpecialCasing.txt). */
        int32_t two[2] = {cp == 0x130 ? 'i' : utf8proc_tolower((int32_t)cp), 0x307};
        TRY(apr_buf_append(&w->cps, two, cp == 0x130 ? sizeof two : sizeof *two, e));
    }
    return put_cps(&w->cps, w->cps.n_bytes / sizeof(int32_t), out, e);
}

static enum apr_code replace(const struct apr_norm_step *step, struct apr_norm_work *w, struct apr_buf *out,
                             struct apr_err *e)
{
    size_t done = 0;
    while (done < w->n) {
        const uint8_t *hit = memmem(w->p + done, w->n - done, step->a.p, step->a.n_bytes);
        size_t end = hit ? (size_t)(hit - w->p) : w->n;
        TRY(apr_buf_append(out, w->p + done, end - done, e));
        if (!hit) break;
        TRY(apr_buf_append(out, step->b.p, step->b.n_bytes, e));
        done = end + step->a.n_bytes;
    }
    return APR_OK;
}

static enum apr_code step_run(const struct apr_norm_step *step, struct apr_norm_work *w, struct apr_buf *out,
                              struct apr_err *e)
{
    switch (step->op) {
    case APR_NORM_NFC:
        return normal_form(w, false, true, out, e);
    case APR_NORM_NFD:
        return normal_form(w, false, false, out, e);
    case APR_NORM_NFKC:
        return normal_form(w, true, true, out, e);
    case APR_NORM_NFKD:
        return normal_form(w, true, false, out, e);
    case APR_NORM_LOWER:
        return lower(w, out, e);
    case APR_NORM_REPLACE:
        return replace(step, w, out, e);
    case APR_NORM_PREPEND:
        if (w->n > 0) TRY(apr_buf_append(out, step->a.p, step->a.n_bytes, e));
        return apr_buf_append(out, w->p, w->n, e);
    }
    return apr_fail(e, APR_ELOAD, "normalizer step %d is not known", (int)step->op);
}

enum apr_code apr_norm_run(const struct apr_norm *norm, struct apr_norm_work *w, const uint8_t *p, size_t n,
                           struct apr_err *e)
{
    w->p = p;
    w->n = n;
    for (size_t i = 0; i < norm->n_steps; i++) {
        /* The usual case costs no copy. */
        if (norm->steps[i].op == APR_NORM_NFC && is_plain(w->p, w->n, 0xcc)) continue;
        struct apr_buf *out = &w->texts[i % 2];
        if (out->data == w->p) out = &w->texts[(i + 1) % 2];
        out->n_bytes = 0;
        TRY(step_run(&norm->steps[i], w, out, e));
        w->p = out->data;
        w->n = out->n_bytes;
    }
    return APR_OK;
}

static enum apr_code read_one(const json_t *j, const char *type, struct apr_arena *arena,
                              struct apr_norm *out, const char *file, struct apr_err *e)
{
    static const struct {
        const char *type;
        enum apr_norm_op op;
    } kinds[] = {
        {"NFC", APR_NORM_NFC},         {"NFD", APR_NORM_NFD},         {"NFKC", APR_NORM_NFKC},
        {"NFKD", APR_NORM_NFKD},       {"Lowercase", APR_NORM_LOWER}, {"Prepend", APR_NORM_PREPEND},
        {"Replace", APR_NORM_REPLACE},
    };
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        if (strcmp(kinds[i].type, type) != 0) continue;
        if (out->n_steps == APR_NORM_MAX_STEPS)
            return apr_fail(e, APR_ELOAD, "%s: $.normalizer: more than %d steps", file, APR_NORM_MAX_STEPS);
        struct apr_norm_step *step = &out->steps[out->n_steps++];
        step->op = kinds[i].op;
        const char *a = json_string_value(step->op == APR_NORM_PREPEND
                                              ? json_object_get(j, "prepend")
                                              : json_object_get(json_object_get(j, "pattern"), "String"));
        const char *b = json_string_value(json_object_get(j, "content"));
        if (step->op == APR_NORM_REPLACE && (!a || !*a || !b))
            return apr_fail(e, APR_ELOAD, "%s: $.normalizer: Replace needs a String pattern and a content",
                            file);
        if (step->op == APR_NORM_PREPEND && !a)
            return apr_fail(e, APR_EFORMAT, "%s: $.normalizer: Prepend without its text", file);
        if (a) step->a = (struct apr_str){apr_arena_strdup(arena, a), strlen(a)};
        if (b) step->b = (struct apr_str){apr_arena_strdup(arena, b), strlen(b)};
        return APR_OK;
    }
    char shown[80];
    return apr_fail(e, APR_ELOAD, "%s: $.normalizer: \"%s\" is not supported", file,
                    apr_escape(shown, sizeof shown, type, strlen(type)));
}

static enum apr_code read_any(const json_t *j, struct apr_arena *arena, struct apr_norm *out, int depth,
                              const char *file, struct apr_err *e)
{
    const char *type = json_string_value(json_object_get(j, "type"));
    if (!type) return apr_fail(e, APR_EFORMAT, "%s: $.normalizer: no type", file);
    if (strcmp(type, "Sequence") != 0 || depth > 4) return read_one(j, type, arena, out, file, e);
    size_t i;
    const json_t *item;
    json_array_foreach(json_object_get(j, "normalizers"), i, item)
        TRY(read_any(item, arena, out, depth + 1, file, e));
    return APR_OK;
}

enum apr_code apr_norm_read(const json_t *normalizer, struct apr_arena *arena, struct apr_norm *out,
                            const char *file, struct apr_err *e)
{
    *out = (struct apr_norm){0};
    if (!normalizer || json_is_null(normalizer)) return APR_OK;
    return read_any(normalizer, arena, out, 0, file, e);
}
