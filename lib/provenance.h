/* Where a model comes from: the object under apr.provenance in .apr metadata, and "apr.provenance" in a GGUF.
 *
 *   {"repository": "org/name", "revision": "<commit>",           when the source lies in a hub cache
 *    "sources": [{"name": "model.safetensors", "size_bytes": N, "sha256": "<hex>"}],   sha256 when known
 * before the data "steps": [{"step": "import", "tool": "apr 0.1.0", "recipe": "q4_k_m", "pure": true}]}
 *
 * Steps hold no thread counts, paths or times, so the same input gives the same bytes. A model that carries
 * provenance keeps it; each tool that changes data appends its step.
 */
#ifndef APR_PROVENANCE_H
#define APR_PROVENANCE_H

#include "mix.h"
#include "model.h"

/* A new reference: the model's own provenance, or one that names its files. */
json_t *apr_provenance_of(const struct apr_model *m);
void apr_provenance_step(json_t *provenance, const char *step, const struct apr_recipe *recipe, bool pure);
/* The SHA-256 of sources that were read front to back, into the trailing section: {"sources": {name: hex}}.
 * What an .apr source carries there goes on. After the last byte of the model was read. */
APR_MUST_USE enum apr_code apr_provenance_trail(const struct apr_model *m, json_t *trailer,
                                                struct apr_err *e);
/* Reads every source file once and records its SHA-256 in m->files. Not for streams (2). */
APR_MUST_USE enum apr_code apr_provenance_hash(struct apr_model *m, struct apr_err *e);

#endif
