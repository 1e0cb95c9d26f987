/* UTF-8 as the Unicode standard defines it (table 3-7): shortest forms, no surrogates, at most U+10FFFF.
 *
 * What is ill-formed is cut into maximal subparts, each replaced by U+FFFD: what Python's and Rust's
 * lossy decoders do, and with them Hugging Face's tokenizers.
 *
 *     int n = apr_utf8_get(p, n_left, &cp);   n > 0: a character of n bytes; n < 0: -n bytes are one subpart
 */
#ifndef APR_TOK_UTF8_H
#define APR_TOK_UTF8_H

#include "../buf.h"

#define APR_UTF8_REPLACEMENT "\xef\xbf\xbd"

int apr_utf8_get(const uint8_t *p, size_t n, uint32_t *cp); /* n > 0 */
size_t apr_utf8_put(uint32_t cp, uint8_t *out);             /* writes 1..4 bytes */
size_t apr_utf8_valid(const uint8_t *p, size_t n);          /* length of the longest well-formed prefix */
size_t apr_utf8_start(const uint8_t *p,
                      size_t i); /* of the character that ends before i; i > 0, p well-formed */
/* Appends p with every ill-formed subpart replaced. */
APR_MUST_USE enum apr_code apr_utf8_repair(const uint8_t *p, size_t n, struct apr_buf *out,
                                           struct apr_err *e);

#endif
