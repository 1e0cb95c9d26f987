/* SafeTensors: the first two bytes are the length of the data, the rest is the header. */
#include "fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n)
{
    if (n < 2) return 0;
    size_t n_data = (size_t)(p[0] | p[1] << 8) % 1024, n_head = n - 2;
    uint8_t *file = calloc(1, 8 + n_head + n_data);
    if (!file) return 0;
    for (unsigned i = 0; i < 8; i++) file[i] = (uint8_t)((uint64_t)n_head >> 8 * i);
    memcpy(file + 8, p + 2, n_head);
    fuzz_model(file, 8 + n_head + n_data);
    free(file);
    return 0;
}
