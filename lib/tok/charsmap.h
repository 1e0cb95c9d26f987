/* SentencePiece's precompiled character map: which sequences of bytes a text has others for.
 *
 * Layout (SentencePiece, normalizer.cc; Darts-clone's array): u32 bytes of the array, the array of u32 units,
 * then the replacements, each ended by a NUL. A unit: bits 0-7 and 31 the label, bit 8 has a leaf, bits 10-30
 * the offset, shifted by 8 more where bit 9 is set. A leaf's unit is the place of its replacement.
 *
 *     TRY(apr_charsmap_open(&map, bytes, n, arena, file, e));
 *     size_t k = apr_charsmap_find(&map, p, n, true, &text);   k bytes become text; 0: they stay
 */
#ifndef APR_TOK_CHARSMAP_H
#define APR_TOK_CHARSMAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "../arena.h"
#include "../kv.h"

#define APR_CHARSMAP_MAX_BYTES ((size_t)16 << 20)

struct apr_charsmap {
    const uint32_t *units;
    uint32_t n_units; /* 0: an empty map */
    const char *text;
    size_t n_text; /* its last byte is a NUL */
};

/* Copies into the arena. No replacement is longer than 256 bytes, all are well-formed UTF-8. */
APR_MUST_USE enum apr_code apr_charsmap_open(struct apr_charsmap *map, const uint8_t *p, size_t n,
                                             struct apr_arena *arena, const char *file, struct apr_err *e);
/* The same of base64, as tokenizer.json holds it. */
APR_MUST_USE enum apr_code apr_charsmap_open_base64(struct apr_charsmap *map, const char *s, size_t n,
                                                    struct apr_arena *arena, const char *file,
                                                    struct apr_err *e);
/* Bytes of the longest (or else the shortest) prefix of p that the map replaces. p is well-formed UTF-8; the
 * prefix ends between characters. */
size_t apr_charsmap_find(const struct apr_charsmap *map, const uint8_t *p, size_t n, bool longest,
                         struct apr_str *text);

/* Base64 of bytes, as tokenizer.json has it; and the reverse. */
char *apr_base64_put(const uint8_t *p, size_t n, struct apr_arena *arena);
APR_MUST_USE enum apr_code apr_base64_get(const char *s, size_t n, struct apr_arena *arena, uint8_t **out,
                                          size_t *n_out, struct apr_err *e);

#endif
