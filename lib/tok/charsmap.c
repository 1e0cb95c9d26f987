/* See charsmap.h. */
#include "charsmap.h"

#include <inttypes.h>
#include <string.h>

#include "../rd.h"
#include "utf8.h"

enum { MAX_REPLACEMENT_BYTES = 256, MAX_PREFIX_BYTES = 64 };

#define UNIT_LABEL    0x800000ffu
#define UNIT_HAS_LEAF 0x100u
#define UNIT_VALUE    0x7fffffffu

static enum apr_code check_text(const struct apr_charsmap *map, const char *file, struct apr_err *e)
{
    if (map->n_text == 0 || map->text[map->n_text - 1] != '\0')
        return apr_fail(e, APR_EFORMAT, "%s: character map: the last replacement has no end", file);
    if (apr_utf8_valid((const uint8_t *)map->text, map->n_text) != map->n_text)
        return apr_fail(e, APR_EFORMAT, "%s: character map: a replacement is not UTF-8", file);
    for (size_t i = 0; i < map->n_text;) {
        size_t n = strlen(map->text + i);
        if (n > MAX_REPLACEMENT_BYTES)
            return apr_fail(e, APR_EFORMAT, "%s: character map: a replacement of %zu bytes, at most %d", file,
                            n, MAX_REPLACEMENT_BYTES);
        i += n + 1;
    }
    return APR_OK;
}

enum apr_code apr_charsmap_open(struct apr_charsmap *map, const uint8_t *p, size_t n, struct apr_arena *arena,
                                const char *file, struct apr_err *e)
{
    *map = (struct apr_charsmap){0};
    if (n == 0) return APR_OK;
    if (n > APR_CHARSMAP_MAX_BYTES)
        return apr_fail(e, APR_EFORMAT, "%s: character map of %zu bytes, at most %zu", file, n,
                        APR_CHARSMAP_MAX_BYTES);
    struct apr_rd rd;
    uint32_t n_bytes;
    apr_rd_mem(&rd, p, n, 0, file);
    TRY(apr_rd_u32(&rd, &n_bytes, "character map: bytes of its array", e));
    if (n_bytes == 0 || n_bytes % sizeof(uint32_t) != 0)
        return apr_fail(e, APR_EFORMAT, "%s: character map: an array of %" PRIu32 " bytes", file, n_bytes);
    TRY(apr_rd_room(&rd, n_bytes, 1, "character map: its array", e));
    uint32_t *units;
    map->n_units = n_bytes / (uint32_t)sizeof *units;
    TRY(apr_arena_try(arena, &units, map->n_units, sizeof *units, "character map", e));
    for (uint32_t i = 0; i < map->n_units; i++) TRY(apr_rd_u32(&rd, &units[i], "character map: a unit", e));
    map->units = units;
    map->n_text = (size_t)apr_rd_left(&rd);
    const uint8_t *text;
    char *copy;
    TRY(apr_rd_bytes(&rd, map->n_text, &text, "character map: replacements", e));
    TRY(apr_arena_try(arena, &copy, map->n_text + 1, 1, "character map", e));
    if (map->n_text > 0) memcpy(copy, text, map->n_text);
    map->text = copy;
    return check_text(map, file, e);
}

static int base64_digit(char c)
{
    return c >= 'A' && c <= 'Z'   ? c - 'A'
           : c >= 'a' && c <= 'z' ? c - 'a' + 26
           : c >= '0' && c <= '9' ? c - '0' + 52
           : c == '+'             ? 62
           : c == '/'             ? 63
                                  : -1;
}

enum apr_code apr_base64_get(const char *s, size_t n, struct apr_arena *arena, uint8_t **out, size_t *n_out,
                             struct apr_err *e)
{
    uint8_t *bytes;
    uint32_t bits = 0;
    int n_bits = 0;
    *n_out = 0;
    TRY(apr_arena_try(arena, &bytes, n / 4 + 1, 3, "character map", e));
    while (n > 0 && s[n - 1] == '=') n--;
    for (size_t i = 0; i < n; i++) {
        int digit = base64_digit(s[i]);
        if (digit < 0) return apr_fail(e, APR_EFORMAT, "precompiled_charsmap is no base64 (at %zu)", i);
        bits = (bits << 6 | (uint32_t)digit) & 0xffffff;
        n_bits += 6;
        if (n_bits < 8) continue;
        n_bits -= 8;
        bytes[(*n_out)++] = (uint8_t)(bits >> n_bits);
    }
    *out = bytes;
    return APR_OK;
}

enum apr_code apr_charsmap_open_base64(struct apr_charsmap *map, const char *s, size_t n,
                                       struct apr_arena *arena, const char *file, struct apr_err *e)
{
    uint8_t *bytes;
    size_t n_bytes;
    enum apr_code code = apr_base64_get(s, n, arena, &bytes, &n_bytes, e);
    if (code != APR_OK) {
        apr_err_prefix(e, "%s: $.normalizer", file);
        return code;
    }
    return apr_charsmap_open(map, bytes, n_bytes, arena, file, e);
}

char *apr_base64_put(const uint8_t *p, size_t n, struct apr_arena *arena)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    char *out = apr_arena_get(arena, (n + 2) / 3 * 4 + 1), *at = out;
    for (size_t i = 0; i < n; i += 3) {
        size_t k = n - i < 3 ? n - i : 3;
        uint32_t v = (uint32_t)p[i] << 16 | (k > 1 ? (uint32_t)p[i + 1] << 8 : 0) | (k > 2 ? p[i + 2] : 0);
        for (size_t d = 0; d < 4; d++) *at++ = d <= k ? digits[v >> (18 - 6 * d) & 63] : '=';
    }
    *at = '\0';
    return out;
}

static uint32_t offset(uint32_t unit)
{
    return unit >> 10 << ((unit & 0x200) >> 6);
}

size_t apr_charsmap_find(const struct apr_charsmap *map, const uint8_t *p, size_t n, bool longest,
                         struct apr_str *text)
{
    size_t found = 0;
    if (map->n_units == 0) return 0;
    uint32_t at = offset(map->units[0]);
    for (size_t i = 0; i < n && i < MAX_PREFIX_BYTES && p[i] != 0; i++) {
        at ^= p[i];
        if (at >= map->n_units) break;
        uint32_t unit = map->units[at];
        if ((unit & UNIT_LABEL) != p[i]) break;
        at ^= offset(unit);
        if (at >= map->n_units) break;
        bool ends = i + 1 == n || (p[i + 1] & 0xc0) != 0x80;
        if (!(unit & UNIT_HAS_LEAF) || !ends) continue;
        uint32_t value = map->units[at] & UNIT_VALUE;
        if (value >= map->n_text || (map->text[value] & 0xc0) == 0x80) continue;
        *text = (struct apr_str){map->text + value, strlen(map->text + value)};
        found = i + 1;
        if (!longest) break;
    }
    return found;
}
