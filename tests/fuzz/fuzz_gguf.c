/* GGUF: any bytes behind the magic. */
#include "fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n)
{
    uint8_t *file = malloc(n + 4);
    if (!file) return 0;
    static const uint8_t magic[] = {'G', 'G', 'U', 'F'};
    memcpy(file, magic, sizeof magic);
    if (n) memcpy(file + 4, p, n);
    fuzz_model(file, n + 4);
    free(file);
    return 0;
}
