/* Strips of blocks times int8 activations by NEON. */
#include "neon_vec.h"

#include "v128_strips.h"
