/* The alphabet of byte-level BPE: each byte is one printable code point, so that vocabularies are plain text.
 *
 * The definition is GPT-2's: the printable bytes of Latin-1 stand for themselves, the other 68 follow from
 * U+0100 on in the order of their values. (A space is U+0120.)
 *
 *     cp = apr_byte_cp(0x20);  b = apr_cp_byte(0x120);
 */
#ifndef APR_TOK_BYTES_H
#define APR_TOK_BYTES_H

#include <stddef.h>
#include <stdint.h>

uint32_t apr_byte_cp(uint8_t byte);
int apr_cp_byte(uint32_t cp); /* -1: not in the alphabet */
/* The bytes that a token's text stands for, or 0 when a code point outside the alphabet occurs in it (the
 * text is then its own bytes). out has room for n bytes. An empty text gives 0. */
size_t apr_bytes_of_text(const char *text, size_t n, uint8_t *out);
/* The text of raw bytes; out has room for 2 n bytes. */
size_t apr_text_of_bytes(const uint8_t *p, size_t n, char *out);

#endif
