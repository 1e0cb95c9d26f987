/* Strips of blocks times int8 activations by SSE4.1 and SSSE3. */
#include "sse4_vec.h"

#include "v128_strips.h"
