/* The types of a cache as a user names them: --cache-type, --cache-type-k, --cache-type-v.
 *
 *     TRY(apr_cache_types_choose(&o->cache, o->exact, &model->config, &types, e));
 */
#ifndef APR_INFER_CACHE_TYPES_H
#define APR_INFER_CACHE_TYPES_H

#include "cache.h"
#include "out.h"

/* A verb has these in its struct apr_engine_opts engine. */
struct apr_cache_opts {
    const char *both, *k, *v; /* NULL: not given */
};
#define APR_CACHE_OPTS(type_)                                                                                \
    APR_OPT(type_, engine.cache.both, "cache-type", 0, "TYPE",                                               \
            "keys and values of the cache: f16, q8_0, q4_0 or f32 (default f16)"),                           \
        APR_OPT(type_, engine.cache.k, "cache-type-k", 0, "TYPE", "keys alone"),                             \
        APR_OPT(type_, engine.cache.v, "cache-type-v", 0, "TYPE", "values alone")

/* The option that was given, "--cache-type-k"; NULL: none. */
const char *apr_cache_opts_given(const struct apr_cache_opts *o);
/* An unknown name, another type than f32 in reference mode, values of a model that has none apart from its
 * keys: APR_EUSAGE. */
APR_MUST_USE enum apr_code apr_cache_types_choose(const struct apr_cache_opts *o, bool exact,
                                                  const struct apr_config *cfg, struct apr_cache_types *types,
                                                  struct apr_err *e);
/* "cache": types and the bytes of n_pos positions. */
void apr_cache_report(const struct apr_cache *c, size_t n_pos, struct apr_out *out);

#endif
