/* See utf8.h, and struct apr_utf8_gate in tok.h. */
#include "utf8.h"

#include <stdbool.h>
#include <string.h>

#include "tok.h"

/* Bounds of the second byte by lead byte: overlong forms, surrogates and values above U+10FFFF are outside.
 */
static bool second_ok(uint8_t lead, uint8_t b)
{
    uint8_t lo = lead == 0xe0 ? 0xa0 : lead == 0xf0 ? 0x90 : 0x80;
    uint8_t hi = lead == 0xed ? 0x9f : lead == 0xf4 ? 0x8f : 0xbf;
    return b >= lo && b <= hi;
}

static int n_bytes_by_lead(uint8_t lead)
{
    if (lead < 0x80) return 1;
    if (lead < 0xc2 || lead > 0xf4) return 0;
    return lead < 0xe0 ? 2 : lead < 0xf0 ? 3 : 4;
}

/* As apr_utf8_get; *more: the bytes end inside what could still become a character. */
static int get(const uint8_t *p, size_t n, uint32_t *cp, bool *more)
{
    int n_want = n_bytes_by_lead(p[0]);
    *more = false;
    *cp = p[0];
    if (n_want == 0) return -1;
    if (n_want == 1) return 1;
    uint32_t v = p[0] & (0x7fu >> n_want);
    for (int i = 1; i < n_want; i++) {
        if ((size_t)i >= n) {
            *more = true;
            return -i;
        }
        bool ok = i == 1 ? second_ok(p[0], p[1]) : (p[i] & 0xc0) == 0x80;
        if (!ok) return -i;
        v = v << 6 | (p[i] & 0x3fu);
    }
    *cp = v;
    return n_want;
}

int apr_utf8_get(const uint8_t *p, size_t n, uint32_t *cp)
{
    bool more;
    return get(p, n, cp, &more);
}

size_t apr_utf8_put(uint32_t cp, uint8_t *out)
{
    if (cp < 0x80) {
        out[0] = (uint8_t)cp;
        return 1;
    }
    size_t n = cp < 0x800 ? 2 : cp < 0x10000 ? 3 : 4;
    for (size_t i = n - 1; i > 0; i--, cp >>= 6) out[i] = (uint8_t)(0x80 | (cp & 0x3f));
    out[0] = (uint8_t)((0xf00u >> n & 0xff) | cp);
    return n;
}

size_t apr_utf8_valid(const uint8_t *p, size_t n)
{
    size_t i = 0;
    while (i < n) {
        uint64_t eight;
        if (n - i >= sizeof eight) { /* ASCII in strides */
            memcpy(&eight, p + i, sizeof eight);
            if ((eight & 0x8080808080808080u) == 0) {
                i += sizeof eight;
                continue;
            }
        }
        uint32_t cp;
        int k = apr_utf8_get(p + i, n - i, &cp);
        if (k < 0) return i;
        i += (size_t)k;
    }
    return n;
}

size_t apr_utf8_start(const uint8_t *p, size_t i)
{
    do i--;
    while (i > 0 && (p[i] & 0xc0) == 0x80);
    return i;
}

enum apr_code apr_utf8_repair(const uint8_t *p, size_t n, struct apr_buf *out, struct apr_err *e)
{
    while (n > 0) {
        size_t k = apr_utf8_valid(p, n);
        TRY(apr_buf_append(out, p, k, e));
        if (k == n) return APR_OK;
        uint32_t cp;
        int bad = -apr_utf8_get(p + k, n - k, &cp);
        TRY(apr_buf_append(out, APR_UTF8_REPLACEMENT, 3, e));
        p += k + (size_t)bad;
        n -= k + (size_t)bad;
    }
    return APR_OK;
}

/* The held bytes are a proper prefix of a character; takes from p until it is complete or ill-formed. */
static enum apr_code pass_held(struct apr_utf8_gate *g, const uint8_t **p, size_t *n, struct apr_buf *out,
                               struct apr_err *e)
{
    while (g->n_held > 0 && *n > 0) {
        uint8_t at[4];
        memcpy(at, g->held, g->n_held);
        at[g->n_held] = **p;
        uint32_t cp;
        bool more;
        int k = get(at, (size_t)g->n_held + 1, &cp, &more);
        if (k < 0 && !more) { /* the new byte does not belong to it */
            g->n_held = 0;
            return apr_buf_append(out, APR_UTF8_REPLACEMENT, 3, e);
        }
        g->held[g->n_held++] = **p;
        (*p)++;
        (*n)--;
        if (k > 0) {
            g->n_held = 0;
            return apr_buf_append(out, at, (size_t)k, e);
        }
    }
    return APR_OK;
}

enum apr_code apr_utf8_pass(struct apr_utf8_gate *g, const void *p, size_t n, bool last, struct apr_buf *out,
                            struct apr_err *e)
{
    const uint8_t *at = p;
    TRY(pass_held(g, &at, &n, out, e));
    /* An incomplete character is at most the last three bytes. */
    size_t n_tail = 0;
    for (size_t k = 1; k <= 3 && k <= n && g->n_held == 0; k++) {
        uint32_t cp;
        bool more;
        if (get(at + n - k, k, &cp, &more) < 0 && more) n_tail = k;
        if ((at[n - k] & 0xc0) != 0x80) break;
    }
    TRY(apr_utf8_repair(at, n - n_tail, out, e));
    if (n_tail > 0) memcpy(g->held, at + n - n_tail, n_tail);
    if (n_tail > 0) g->n_held = (uint8_t)n_tail;
    if (last && g->n_held > 0) {
        g->n_held = 0;
        return apr_buf_append(out, APR_UTF8_REPLACEMENT, 3, e);
    }
    return APR_OK;
}
