/* Names of cache types to types. */
#include "cache_types.h"

#include <string.h>

const char *apr_cache_opts_given(const struct apr_cache_opts *o)
{
    return o->k ? "--cache-type-k" : o->v ? "--cache-type-v" : o->both ? "--cache-type" : NULL;
}

static enum apr_code unknown(const char *option, const char *name, struct apr_err *e)
{
    char list[128] = "", shown[64];
    for (size_t i = 0; apr_page_type_at(i); i++) {
        size_t n = strlen(list);
        (void)snprintf(list + n, sizeof list - n, "%s%s", i ? ", " : "", apr_page_type_at(i)->name);
    }
    return apr_fail(e, APR_EUSAGE, "%s: found \"%s\", expected one of %s", option,
                    apr_escape(shown, sizeof shown, name, strlen(name)), list);
}

static enum apr_code choose(const char *option, const char *name, bool exact,
                            const struct apr_page_type **type, struct apr_err *e)
{
    if (!name) return APR_OK;
    const struct apr_page_type *t = apr_page_type_named(name);
    if (!t) return unknown(option, name, e);
    if (exact && t->type != APR_F32)
        return apr_fail(e, APR_EUSAGE, "%s %s: --exact keeps the cache in f32", option, t->name);
    *type = t;
    return APR_OK;
}

enum apr_code apr_cache_types_choose(const struct apr_cache_opts *o, bool exact, const struct apr_config *cfg,
                                     struct apr_cache_types *types, struct apr_err *e)
{
    *types = apr_cache_plain(exact);
    if (cfg->mla.kv_rank && o->v)
        return apr_fail(e, APR_EUSAGE,
                        "--cache-type-v: this model's values are columns of its keys; give --cache-type-k");
    for (size_t part = 0; part < APR_CACHE_N_PARTS; part++) {
        TRY(choose("--cache-type", o->both, exact, &types->at[part], e));
        if (part == APR_CACHE_K) TRY(choose("--cache-type-k", o->k, exact, &types->at[part], e));
        if (part == APR_CACHE_V) TRY(choose("--cache-type-v", o->v, exact, &types->at[part], e));
    }
    return APR_OK;
}

void apr_cache_report(const struct apr_cache *c, size_t n_pos, struct apr_out *out)
{
    apr_out_obj(out, "cache");
    apr_out_str(out, "keys", c->blocks->types.at[APR_CACHE_K]->name);
    if (c->blocks->v_dim) apr_out_str(out, "values", c->blocks->types.at[APR_CACHE_V]->name);
    apr_out_bytes(out, "bytes", apr_cache_bytes(c, n_pos));
    apr_out_end(out);
}
