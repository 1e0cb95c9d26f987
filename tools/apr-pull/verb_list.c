/* list: what the caches hold. */
#include <string.h>

#include "names.h"
#include "stock.h"
#include "verbs.h"

static enum apr_code run(void *args, struct apr_ctx *ctx, struct apr_err *e)
{
    struct stock s;
    (void)args;
    TRY(stock_read(&s, ctx->arena, e));
    struct apr_out *o = apr_out_open(stdout, ctx->g->json, "apr.list/1");
    apr_out_arr(o, "models");
    for (uint64_t i = 0; i < s.n; i++) {
        const struct stock_entry *m = &s.at[i];
        apr_out_obj(o, NULL);
        apr_out_str(o, "name", m->name);
        apr_out_str(o, "kind", m->kind);
        apr_out_str(o, "format", m->format);
        apr_out_str(o, "revision", m->revision);
        apr_out_bool(o, "complete", m->complete);
        apr_out_u64(o, "n_files", m->n_files);
        apr_out_bytes(o, "size_bytes", m->n_bytes);
        apr_out_str(o, "path", m->path);
        apr_out_end(o);
    }
    apr_out_end(o);
    apr_out_u64(o, "n_models", s.n);
    apr_out_bytes(o, "total_size_bytes", s.n_bytes);
    apr_out_str(o, "hub_cache", s.hub_root);
    apr_out_str(o, "apr_home", s.apr_root);
    return apr_out_close(o, e);
}

#define LIST_DETAILS                                                                                         \
    "Lists the repositories in Hugging Face's cache (HF_HUB_CACHE, HF_HOME) and the models below "           \
    "APR_HOME:\n"                                                                                            \
    "those built here and those downloaded from URLs. Sizes are bytes on the disk; a model with an\n"        \
    "unfinished download or a missing file is not complete.\n"                                               \
    "Examples:\n"                                                                                            \
    "    apr list --json | jq -r '.models[] | select(.size_bytes > 1e9) | .name'"

const struct apr_verb verb_list = {.name = "list", .operands = "", .run = run, .details = LIST_DETAILS};
const struct apr_verb verb_ls = {.name = "ls", .operands = "", .run = run, .details = LIST_DETAILS};
