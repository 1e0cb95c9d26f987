/* See bytes.h. */
#include "bytes.h"

#include "utf8.h"

/* Bytes without a printable Latin-1 character: 0..32, 127..160 and 173. */
enum { N_LOW = 33, N_MID = 34, MID = 127, SOFT_HYPHEN = 173, BASE = 256 };

uint32_t apr_byte_cp(uint8_t byte)
{
    if (byte < N_LOW) return (uint32_t)BASE + byte;
    if (byte >= MID && byte < MID + N_MID) return (uint32_t)BASE + N_LOW + byte - MID;
    if (byte == SOFT_HYPHEN) return BASE + N_LOW + N_MID;
    return byte;
}

int apr_cp_byte(uint32_t cp)
{
    if (cp < BASE) return apr_byte_cp((uint8_t)cp) == cp ? (int)cp : -1;
    uint32_t k = cp - BASE;
    if (k < N_LOW) return (int)k;
    if (k < N_LOW + N_MID) return (int)(k - N_LOW + MID);
    return k == N_LOW + N_MID ? SOFT_HYPHEN : -1;
}

size_t apr_bytes_of_text(const char *text, size_t n, uint8_t *out)
{
    size_t n_out = 0;
    for (size_t i = 0; i < n;) {
        uint32_t cp;
        int n_cp = apr_utf8_get((const uint8_t *)text + i, n - i, &cp);
        int byte = n_cp > 0 ? apr_cp_byte(cp) : -1;
        if (byte < 0) return 0;
        out[n_out++] = (uint8_t)byte;
        i += (size_t)n_cp;
    }
    return n_out;
}

size_t apr_text_of_bytes(const uint8_t *p, size_t n, char *out)
{
    size_t n_out = 0;
    for (size_t i = 0; i < n; i++) n_out += apr_utf8_put(apr_byte_cp(p[i]), (uint8_t *)out + n_out);
    return n_out;
}
