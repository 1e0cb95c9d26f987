/* Rows of blocks times int8 activations by WebAssembly SIMD. */
#include "simd128_vec.h"

#include "v128_rows.h"
