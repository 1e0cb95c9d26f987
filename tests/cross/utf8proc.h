/* What lib/err.c uses of utf8proc, for ASCII text only: tests of other architectures print nothing else.
 *
 *     aarch64-linux-gnu-gcc -Itests/cross ...
 */
#ifndef APR_TEST_CROSS_UTF8PROC_H
#define APR_TEST_CROSS_UTF8PROC_H

#include <stddef.h>
#include <stdint.h>

#define utf8proc_int32_t int32_t
#define utf8proc_ssize_t ptrdiff_t
#define utf8proc_uint8_t uint8_t

static inline ptrdiff_t utf8proc_iterate(const uint8_t *s, ptrdiff_t n, int32_t *cp)
{
    *cp = n > 0 && *s < 128 ? *s : -1;
    return *cp < 0 ? -1 : 1;
}

#endif
