/* Error text: formatted once, made safe for a terminal, kept on one line. */
#include "err.h"

#include <stdio.h>
#include <string.h>

#include <utf8proc.h>

#define MAX_RAW_BYTES 4096 /* longer messages are cut before they are escaped */

const char *apr_code_meaning(enum apr_code code)
{
    static const char *const meaning[] = {
        [APR_OK] = "success, or the answer is yes",
        [APR_ENO] = "the answer is no: a difference, a threshold, a failed gate",
        [APR_EUSAGE] = "usage",
        [APR_ENOTFOUND] = "input not found",
        [APR_EFORMAT] = "malformed or truncated input",
        [APR_ECONTRACT] = "contract or validation refused the model",
        [APR_ELOAD] = "model cannot be loaded: unsupported, or too large for memory",
        [APR_EIO] = "I/O error: read, write, disk full",
        [APR_EINFER] = "inference failed: NaN logits, back-end error",
        [APR_EUNAVAIL] = "feature not built in, or hardware absent",
        [APR_ENET] = "network",
    };
    size_t i = (size_t)code;
    return i < sizeof meaning / sizeof *meaning ? meaning[i] : "unknown status";
}

/* Code points that move the cursor or the reading direction, or that break the line. */
static int is_unsafe(utf8proc_int32_t cp)
{
    return cp < 0x20 || (cp >= 0x7f && cp < 0xa0) || cp == 0x61c || cp == 0x200e || cp == 0x200f ||
           (cp >= 0x2028 && cp <= 0x202e) || (cp >= 0x2066 && cp <= 0x2069) || cp == 0xfeff;
}

const char *apr_escape(char *out, unsigned long n_out, const char *s, unsigned long n_s)
{
    unsigned long pos = 0, keep = 0; /* keep: the last border that leaves room for "..." */
    if (n_out == 0) return out;
    for (unsigned long i = 0; i < n_s;) {
        char piece[16];
        size_t n_piece;
        utf8proc_int32_t cp;
        utf8proc_ssize_t n =
            utf8proc_iterate((const utf8proc_uint8_t *)s + i, (utf8proc_ssize_t)(n_s - i), &cp);
        if (n <= 0) {
            n = 1;
            n_piece = (size_t)snprintf(piece, sizeof piece, "\\x%02x", (unsigned char)s[i]);
        } else if (is_unsafe(cp)) {
            n_piece =
                (size_t)snprintf(piece, sizeof piece, cp < 0x80 ? "\\x%02x" : "\\u{%04x}", (unsigned)cp);
        } else {
            n_piece = (size_t)n;
            memcpy(piece, s + i, n_piece);
        }
        if (n_piece > n_out - 1 - pos) {
            unsigned long n_dots = n_out - 1 - keep < 3 ? n_out - 1 - keep : 3;
            memcpy(out + keep, "...", n_dots);
            pos = keep + n_dots;
            break;
        }
        memcpy(out + pos, piece, n_piece);
        pos += n_piece;
        if (n_out - 1 - pos >= 3) keep = pos;
        i += (unsigned long)n;
    }
    out[pos] = '\0';
    return out;
}

void apr_err_set(struct apr_err *e, enum apr_code code, const char *format, ...)
{
    char raw[MAX_RAW_BYTES];
    va_list args;
    va_start(args, format);
    int n = vsnprintf(raw, sizeof raw, format, args);
    va_end(args);
    if (n < 0) n = 0;
    if ((size_t)n >= sizeof raw) n = (int)sizeof raw - 1;
    e->code = code;
    apr_escape(e->text, sizeof e->text, raw, (unsigned long)n);
}

void apr_err_prefix(struct apr_err *e, const char *format, ...)
{
    char raw[MAX_RAW_BYTES], old[sizeof e->text];
    va_list args;
    memcpy(old, e->text, sizeof old);
    va_start(args, format);
    int n = vsnprintf(raw, sizeof raw - sizeof old, format, args);
    va_end(args);
    if (n < 0) n = 0;
    apr_err_set(e, e->code, "%s: %s", raw, old);
}
