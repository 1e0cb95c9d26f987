#include <string.h>

#include "edit.h"
#include "fmt/fmt.h"
#include "load.h"
#include "tool.h"
#include "verbs.h"

struct edit_args {
    struct apr_override over;
    struct apr_strs unset;
    const char *reserve;
};

static const struct apr_opt opts[] = {
    APR_OVERRIDE_OPTIONS(struct edit_args, over),
    APR_OPT(struct edit_args, unset, "unset", 0, "KEY", "take a key out"),
    APR_OPT(struct edit_args, reserve, "reserve", 0, "SIZE",
            "GGUF: leave room, so that later edits need not write the file anew"),
};

static const char *const results[] = {
    [EDIT_NOTHING] = "unchanged", [EDIT_IN_PLACE] = "in place", [EDIT_REWRITTEN] = "rewritten"};

static enum apr_code report(const struct edit *d, const struct apr_model *m, const struct apr_ctx *ctx,
                            struct apr_err *e)
{
    struct apr_out *o = apr_out_open(stdout, ctx->g->json, "apr.edit/1");
    apr_out_str(o, "file", d->path);
    apr_out_str(o, "format", m->fmt->name);
    apr_out_str(o, "result", results[d->done]);
    apr_out_u64(o, "written_bytes", d->n_written_bytes);
    return apr_out_close(o, e);
}

static enum apr_code edit_model(struct edit *d, struct apr_model *m, struct apr_ctx *ctx, struct apr_err *e)
{
    bool is_apr = m->fmt == apr_fmt_named("apr");
    if (!is_apr && !m->fmt->gguf_rules)
        return apr_fail(e, APR_EUSAGE, "%s: is %s; edit changes .apr and GGUF files", d->path, m->fmt->title);
    if (is_apr && d->n_reserve_bytes)
        return apr_fail(e, APR_EUSAGE,
                        "--reserve: an .apr ends in a checksum of all its bytes and is written anew");
    TRY(apr_src_open(&d->src, d->path, e));
    d->alignment = m->header.alignment;
    d->is_part = m->n_files > 1;
    enum apr_code code = is_apr ? edit_apr(d, m, ctx->arena, e) : edit_gguf(d, ctx->arena, e);
    if (code == APR_OK) code = edit_write(d, e);
    if (code == APR_OK) code = report(d, m, ctx, e);
    apr_src_close(d->src);
    return code;
}

static enum apr_code run(void *p, struct apr_ctx *ctx, struct apr_err *e)
{
    struct edit_args *args = p;
    struct edit d = {.path = ctx->operands->at[0], .over = &args->over, .unset = args->unset};
    struct apr_model *m;
    if (strcmp(d.path, "-") == 0) return apr_fail(e, APR_EUSAGE, "edit changes a file, not a stream");
    if (!args->over.set.n && !args->unset.n && !args->over.model_name && !args->over.pre &&
        !args->over.chat_template && !args->reserve)
        return apr_fail(e, APR_EUSAGE, "edit: nothing to change; expected --set, --unset or another option");
    if (args->reserve) TRY(apr_parse_size(args->reserve, &d.n_reserve_bytes, e));
    if (d.n_reserve_bytes > (1u << 20))
        return apr_fail(e, APR_EUSAGE, "--reserve %s: expected at most 1M", args->reserve);
    TRY(apr_load_model(d.path, APR_LOAD_STREAM | APR_LOAD_LOOK, &m, e));
    apr_buf_init(&d.head, APR_MAX_META_BYTES);
    enum apr_code code = edit_model(&d, m, ctx, e);
    apr_buf_free(&d.head);
    apr_model_close(m);
    apr_override_close(&args->over);
    return code;
}

const struct apr_verb verb_edit = {
    .name = "edit",
    .operands = "FILE",
    .n_operands_min = 1,
    .n_operands_max = 1,
    .opts = opts,
    .n_opts = sizeof opts / sizeof *opts,
    .args_bytes = sizeof(struct edit_args),
    .run = run,
    .details = "Changes the metadata of an .apr or a GGUF; tensors keep their bytes. When the change lies "
               "inside one block of "
               "4096 bytes of a GGUF, that block is replaced; otherwise the file is written anew beside the "
               "old one and takes "
               "its place. The file is whole at every moment; the report says which of the two happened.\n"
               "KEY is, for an .apr, one that import --set takes (name, license, description ... or "
               "custom.KEY). For a GGUF it "
               "is the key itself: a key that is there keeps its type, a new one is a string unless "
               "KEY:TYPE=VALUE names a "
               "type (u8 to i64, f32, f64, bool, str, or [str] with commas between the strings).\n"
               "Examples:\n"
               "    apr edit model.gguf --set general.name='My model' --unset general.url\n"
               "    apr edit model.gguf --set qwen2.context_length:u32=8192 --reserve 1k\n"
               "    apr edit model.apr --set license=apache-2.0 --chat-template chat.jinja",
};
