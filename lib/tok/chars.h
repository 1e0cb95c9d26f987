/* Classes of characters that tokenizers tell apart, by utf8proc's tables of Unicode.
 *
 *     if (apr_char_is_space(cp)) ...
 */
#ifndef APR_TOK_CHARS_H
#define APR_TOK_CHARS_H

#include <stdbool.h>
#include <stdint.h>

bool apr_char_is_space(uint32_t cp); /* White_Space, which is also what Rust calls white space */
bool apr_char_is_word(
    uint32_t cp); /* \w of Hugging Face's pattern engine: letters, marks, digits, connectors */
bool apr_char_is_mark(uint32_t cp);       /* M */
bool apr_char_is_nonspacing(uint32_t cp); /* Mn */
bool apr_char_is_control(uint32_t cp); /* Cc, Cf, Co, without tab and line ends: BERT's control characters */
bool apr_char_is_cjk(uint32_t cp);     /* an ideograph by BERT's list of blocks */

#endif
