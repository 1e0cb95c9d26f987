/* .apr: magic and checksums are put right, so that mutations reach what lies behind them. */
#include "fuzz.h"

#include "hash.h"

static void set_u32(uint8_t *at, uint32_t v)
{
    for (unsigned i = 0; i < 4; i++) at[i] = (uint8_t)(v >> 8 * i);
}

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n)
{
    if (n < 68) return 0;
    uint8_t *file = malloc(n);
    if (!file) return 0;
    static const uint8_t magic[] = {'A', 'P', 'R', 0, 2};
    memcpy(file, p, n);
    memcpy(file, magic, sizeof magic);
    set_u32(file + 40, apr_crc32(apr_crc32(0, file, 40), file + 44, 20));
    set_u32(file + n - 4, apr_crc32(0, file, n - 4));
    fuzz_model(file, n);
    free(file);
    return 0;
}
