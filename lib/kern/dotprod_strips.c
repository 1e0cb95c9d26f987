/* Strips of blocks times int8 activations by SDOT. */
#include "dotprod_vec.h"

#include "v128_strips.h"
