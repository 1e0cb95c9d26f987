/* The vectors that IQ types index, as packed digits. A grid is a set of vectors that its authors chose for
 * how often they occur, so there is no rule to compute it from. Source: GGML's published block formats. */
#include "grids.h"

#define APR_GRID(name, n) const uint16_t name[n]
#include "grids.inc"
_Static_assert(sizeof apr_grid_iq2_xxs == 256 * sizeof(uint16_t), "grid");
_Static_assert(sizeof apr_grid_iq2_xs == 512 * sizeof(uint16_t), "grid");
_Static_assert(sizeof apr_grid_iq2_s == 1024 * sizeof(uint16_t), "grid");
_Static_assert(sizeof apr_grid_iq1 == 2048 * sizeof(uint16_t), "grid");
_Static_assert(sizeof apr_grid_iq3_xxs == 256 * sizeof(uint16_t), "grid");
_Static_assert(sizeof apr_grid_iq3_s == 512 * sizeof(uint16_t), "grid");
