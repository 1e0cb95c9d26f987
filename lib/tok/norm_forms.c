/* See norm_forms.h. */
#include "norm_forms.h"

#include <string.h>
#include <utf8proc.h>

#include "chars.h"
#include "utf8.h"

/* Below U+0300 (lead byte 0xcc) every character is its own NFC, and there are no marks. */
bool apr_norm_is_plain(const uint8_t *p, size_t n, bool compat, bool compose)
{
    uint8_t lead = compat || !compose ? 0x80 : 0xcc, most = 0;
    for (size_t i = 0; i < n;) {
        size_t end = n - i < 4096 ? n : i + 4096;
        for (; i < end; i++) most = p[i] > most ? p[i] : most;
        if (most >= lead) return false;
    }
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

struct form {
    bool compat, compose;
    utf8proc_option_t options;
};

static enum apr_code form_part(struct apr_norm_work *w, const struct form *f, const uint8_t *p, size_t n,
                               struct apr_buf *out, struct apr_err *e)
{
    TRY(decompose(&w->cps, p, n, f->options, e));
    TRY(reorder(&w->cps, &w->order, e));
    size_t n_cps = w->cps.n_bytes / sizeof(int32_t);
    if (f->compose) {
        utf8proc_option_t options = UTF8PROC_STABLE | UTF8PROC_COMPOSE;
        utf8proc_ssize_t k =
            utf8proc_normalize_utf32((int32_t *)(void *)w->cps.data, (utf8proc_ssize_t)n_cps, options);
        if (k < 0) return apr_fail(e, APR_EFORMAT, "text cannot be normalized: %s", utf8proc_errmsg(k));
        n_cps = (size_t)k;
    }
    return put_cps(&w->cps, n_cps, out, e);
}

/* Must this character be looked at together with its neighbours? All that may are among these: marks, what
 * decomposes, and the vowels and finals of Hangul, which join the letter before. A composed form keeps
 * letters that are in NFC by themselves: Latin (U+1E00), and Hangul's syllables. */
static bool is_hot(uint32_t cp, const struct form *f)
{
    if (cp < 0x80 || (f->compose && !f->compat && cp < 0x300)) return false;
    if (cp >= 0xac00 && cp <= 0xd7a3) return !f->compose;
    if (f->compose && !f->compat && cp >= 0x1e00 && cp <= 0x1eff) return false;
    if (cp >= 0x1100 && cp <= 0x11ff) return true;
    const utf8proc_property_t *p = utf8proc_get_property((utf8proc_int32_t)cp);
    if (p->combining_class != 0) return true;
    if (p->category >= UTF8PROC_CATEGORY_MN && p->category <= UTF8PROC_CATEGORY_ME) return true;
    return p->decomp_seqindex != UINT16_MAX && (p->decomp_type == 0 || f->compat);
}

enum apr_code apr_norm_form(struct apr_norm_work *w, bool compat, bool compose, struct apr_buf *out,
                            struct apr_err *e)
{
    struct form f = {compat, compose, UTF8PROC_STABLE | UTF8PROC_DECOMPOSE};
    if (compat) f.options |= UTF8PROC_COMPAT;
    size_t done = 0, last = 0; /* copied so far; where the last character began that stays */
    for (size_t i = 0; i < w->n;) {
        uint32_t cp = w->p[i];
        size_t k = cp < 0x80 ? 1 : (size_t)apr_utf8_get(w->p + i, w->n - i, &cp);
        if (!is_hot(cp, &f)) {
            last = i;
            i += k;
            continue;
        }
        TRY(apr_buf_append(out, w->p + done, last - done, e));
        size_t end = i;
        do {
            end += k;
            if (end == w->n) break;
            k = (size_t)apr_utf8_get(w->p + end, w->n - end, &cp);
        } while (is_hot(cp, &f));
        TRY(form_part(w, &f, w->p + last, end - last, out, e));
        done = last = i = end;
    }
    return apr_buf_append(out, w->p + done, w->n - done, e);
}
