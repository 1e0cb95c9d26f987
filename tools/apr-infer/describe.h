/* Bound weights as the description that the GPU plugin takes (gpu/gpu.h): one row of the description for each
 * thing that the forward pass reads, so that a family needs no code of its own on a device.
 *
 * The description borrows from the forward pass; its lists live in the arena.
 *
 *     struct apr_gpu_desc d; TRY(apr_describe(&fwd, model, &arena, &d, e));
 */
#ifndef APR_INFER_DESCRIBE_H
#define APR_INFER_DESCRIBE_H

#include "arena.h"
#include "forward.h"
#include "gpu/gpu.h"

APR_MUST_USE enum apr_code apr_describe(const struct apr_forward *f, const struct apr_model *m,
                                        struct apr_arena *a, struct apr_gpu_desc *d, struct apr_err *e);
/* A sequence of n_seq tokens turns by the rotations of the description (dynamic NTK has one for each length).
 */
bool apr_describe_fits(const struct apr_forward *f, size_t n_seq);

#endif
