/* Steps of the forward pass as an observer sees them: after each step it is told which one is done.
 *
 * A probe runs on the caller's thread while no worker computes; the buffers of struct apr_forward hold what
 * the step left. Without a probe a step costs one branch.
 *
 *     f.probe = my_probe; f.probe_ctx = &mine; ... apr_forward_chunk(&f, ...) ...; f.probe = NULL;
 */
#ifndef APR_INFER_PROBE_H
#define APR_INFER_PROBE_H

#include <stdint.h>

enum apr_op {
    APR_OP_EMBED = 0,  /* x = embedding; layer 0 */
    APR_OP_ATTN_NORM,  /* h = norm(x), packed */
    APR_OP_QKV,        /* q, k, v = W h; latent attention: and the query against the cache */
    APR_OP_ROPE,       /* biases, head norms, rotation, keys and values into the cache */
    APR_OP_ATTENTION,  /* scores, softmax, values */
    APR_OP_ATTN_OUT,   /* y = Wo att; latent attention: and Wv */
    APR_OP_ATTN_ADD,   /* x += y */
    APR_OP_FFN_NORM,   /* h = norm(x), packed */
    APR_OP_FFN_UP,     /* act(Wgate h) * Wup h */
    APR_OP_FFN_DOWN,   /* y = Wdown ffn */
    APR_OP_EXPERTS,    /* a mixture of experts: router and experts in one */
    APR_OP_FFN_ADD,    /* x += y: the layer is done */
    APR_OP_FINAL_NORM, /* of the rows whose logits are wanted; layer n_layers, as the head */
    APR_OP_HEAD,       /* logits */
    APR_N_OPS
};

typedef void apr_probe_fn(void *ctx, enum apr_op op, uint32_t i_layer);

#endif
