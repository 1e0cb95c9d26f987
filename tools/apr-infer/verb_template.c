/* template: a chat template, rendered for a context that is read as JSON. */
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "chat.h"
#include "io.h"
#include "json.h"
#include "load.h"
#include "templates.h"
#include "verbs.h"

#define MAX_TEMPLATE_BYTES ((size_t)1 << 20)
#define MAX_CONTEXT_BYTES  ((size_t)64 << 20)
#define MAX_OUT_BYTES      ((size_t)64 << 20)

struct template_args {
    const char *template_file, *template_name, *context, *now;
    bool source;
};

static const struct apr_opt opts[] = {
    APR_OPT(struct template_args, template_file, "template-file", 0, "FILE",
            "render the template in FILE instead of a model's"),
    APR_OPT(struct template_args, template_name, "template-name", 0, "NAME",
            "render the model's template of that name (tool_use, rag)"),
    APR_OPT(struct template_args, context, "context", 'c', "FILE",
            "read the context from FILE instead of standard input"),
    APR_OPT(struct template_args, now, "now", 0, "TIME",
            "what strftime_now answers, in UTC: 2026-02-10T12:00:00"),
    APR_OPT(struct template_args, source, "source", 0, NULL, "print the model's template itself"),
};

static void init(void *args)
{
    ((struct template_args *)args)->context = "-";
}

static enum apr_code parse_now(const char *text, int64_t *now_s, struct apr_err *e)
{
    struct tm tm = {0};
    char shown[60];
    *now_s = INT64_MIN;
    if (!text) return APR_OK;
    const char *end = strptime(text, "%Y-%m-%dT%H:%M:%S", &tm);
    if (!end || (*end && strcmp(end, "Z") != 0))
        return apr_fail(e, APR_EUSAGE, "--now: \"%s\" is no time like 2026-02-10T12:00:00",
                        apr_escape(shown, sizeof shown, text, strlen(text)));
    *now_s = (int64_t)timegm(&tm);
    return APR_OK;
}

/* An object is the context; an array is its messages, to be answered. */
static enum apr_code read_context(const char *path, json_t **out, struct apr_err *e)
{
    const char *name = strcmp(path, "-") == 0 ? "standard input" : path;
    struct apr_buf text;
    json_t *v = NULL;
    apr_buf_init(&text, MAX_CONTEXT_BYTES);
    enum apr_code code = apr_read_file(path, MAX_CONTEXT_BYTES, &text, e);
    if (code == APR_OK)
        code = apr_json_parse(text.n_bytes ? (const char *)text.data : "", text.n_bytes, name, &v, e);
    apr_buf_free(&text);
    if (code != APR_OK) return code;
    if (json_is_array(v)) v = json_pack("{s:o, s:b}", "messages", v, "add_generation_prompt", 1);
    if (!json_is_object(v)) {
        json_decref(v);
        return apr_fail(e, APR_EFORMAT,
                        "%s: expected a JSON object with the template's variables, or an array of messages",
                        name);
    }
    *out = v;
    return APR_OK;
}

struct piece {
    size_t n_bytes;
    bool from_data;
};

static enum apr_code keep_piece(void *ctx, const char *p, size_t n, bool from_data, struct apr_err *e)
{
    struct piece piece = {.n_bytes = n, .from_data = from_data};
    (void)p;
    return apr_buf_append(ctx, &piece, sizeof piece, e);
}

static enum apr_code report(const char *text, size_t n_bytes, const struct piece *pieces, size_t n_pieces,
                            struct apr_err *e)
{
    struct apr_out *o = apr_out_open(stdout, true, "apr.template/1");
    apr_out_strn(o, "text", text, n_bytes);
    apr_out_arr(o, "pieces");
    for (size_t i = 0; i < n_pieces; text += pieces[i++].n_bytes) {
        apr_out_obj(o, NULL);
        apr_out_strn(o, "text", text, pieces[i].n_bytes);
        apr_out_bool(o, "from_data", pieces[i].from_data);
        apr_out_end(o);
    }
    apr_out_end(o);
    return apr_out_close(o, e);
}

static enum apr_code render(const struct template_args *a, const char *tmpl, size_t n_bytes,
                            const json_t *context, const struct apr_ctx *ctx, struct apr_err *e)
{
    struct apr_buf text, pieces;
    struct apr_jinja_opts jinja = {.max_out_bytes = MAX_OUT_BYTES, .piece = keep_piece, .piece_ctx = &pieces};
    struct apr_jinja *t = NULL;
    TRY(parse_now(a->now, &jinja.now_s, e));
    TRY(apr_jinja_parse(&t, tmpl, n_bytes, e));
    apr_buf_init(&text, MAX_OUT_BYTES);
    apr_buf_init(&pieces, MAX_OUT_BYTES * sizeof(struct piece));
    enum apr_code code = apr_jinja_render(t, context, &jinja, &text, e);
    const char *p = text.n_bytes ? (const char *)text.data : "";
    if (code == APR_OK && ctx->g->json)
        code = report(p, text.n_bytes, (const void *)pieces.data, pieces.n_bytes / sizeof(struct piece), e);
    else if (code == APR_OK)
        fwrite(p, 1, text.n_bytes, stdout);
    apr_buf_free(&pieces);
    apr_buf_free(&text);
    apr_jinja_free(t);
    return code;
}

/* As transformers chooses: where no name is given and the context has tools, the template for tools. */
static const char *chosen(const struct template_args *a, const struct apr_model *m, const json_t *context)
{
    if (a->template_name || !json_array_size(json_object_get(context, "tools"))) return a->template_name;
    return apr_templates_find(&m->vocab, "tool_use") ? "tool_use" : NULL;
}

static enum apr_code with_model(const struct template_args *a, const char *path, const struct apr_ctx *ctx,
                                struct apr_err *e)
{
    struct apr_model *m = NULL;
    json_t *context = NULL;
    const char *tmpl = NULL;
    TRY(apr_load_vocab(path, &m, e));
    bool any = m->vocab.chat_template || m->vocab.n_templates;
    enum apr_code code = APR_OK; /* what can be refused without the context is */
    if (a->source || a->template_name || !any) code = apr_chat_template(m, a->template_name, &tmpl, e);
    if (code == APR_OK && a->source) {
        fputs(tmpl, stdout);
    } else if (code == APR_OK) {
        code = read_context(a->context, &context, e);
        if (code == APR_OK) code = apr_chat_template(m, chosen(a, m, context), &tmpl, e);
        if (code == APR_OK) apr_chat_add_tokens(context, m);
        if (code == APR_OK) code = render(a, tmpl, strlen(tmpl), context, ctx, e);
    }
    json_decref(context);
    apr_model_close(m);
    return code;
}

static enum apr_code with_file(const struct template_args *a, const struct apr_ctx *ctx, struct apr_err *e)
{
    struct apr_buf tmpl;
    json_t *context = NULL;
    apr_buf_init(&tmpl, MAX_TEMPLATE_BYTES);
    enum apr_code code = apr_read_file(a->template_file, MAX_TEMPLATE_BYTES, &tmpl, e);
    if (code == APR_OK) code = read_context(a->context, &context, e);
    if (code == APR_OK)
        code = render(a, tmpl.n_bytes ? (const char *)tmpl.data : "", tmpl.n_bytes, context, ctx, e);
    json_decref(context);
    apr_buf_free(&tmpl);
    return code;
}

static enum apr_code run(void *args, struct apr_ctx *ctx, struct apr_err *e)
{
    const struct template_args *a = args;
    const struct apr_strs *in = ctx->operands;
    if ((in->n > 0) + (a->template_file != NULL) != 1)
        return apr_fail(e, APR_EUSAGE, "expected one of: MODEL, --template-file FILE");
    if (a->source && (a->template_file || a->now || ctx->g->json))
        return apr_fail(
            e, APR_EUSAGE,
            "--source prints the template of MODEL and takes no other option but --template-name");
    if (a->template_file && a->template_name)
        return apr_fail(e, APR_EUSAGE, "--template-name names a template of MODEL, not of a file");
    const char *first = in->n ? in->at[0] : a->template_file;
    if (!a->source && strcmp(first, "-") == 0 && strcmp(a->context, "-") == 0)
        return apr_fail(e, APR_EUSAGE, "standard input cannot be the context too; give --context FILE");
    return in->n ? with_model(a, in->at[0], ctx, e) : with_file(a, ctx, e);
}

const struct apr_verb verb_template = {
    .name = "template",
    .operands = "[MODEL]",
    .n_operands_min = 0,
    .n_operands_max = 1,
    .opts = opts,
    .n_opts = sizeof opts / sizeof *opts,
    .args_bytes = sizeof(struct template_args),
    .init = init,
    .run = run,
    .details =
        "The context is a JSON object with the template's variables: messages, tools, documents,\n"
        "add_generation_prompt and whatever else the template reads; bos_token, eos_token, unk_token and\n"
        "pad_token are the model's unless given. A JSON array is taken as the messages, to be answered.\n"
        "The text goes to standard output as it is; with --json its pieces too, each with from_data, which\n"
        "tells what came from the context: there no text becomes a control token. A template that refuses\n"
        "the conversation (raise_exception) ends with its own message and status 5.\n"
        "A model may have several templates: --template-name takes one by its name; without it, a context\n"
        "with tools gets tool_use where the model has that, as in transformers, else the default one.\n"
        "\n"
        "  echo '[{\"role\":\"user\",\"content\":\"Hi\"}]' | apr template model.apr\n"
        "  apr template --template-file chat.jinja --context chat.json --now 2026-02-10T12:00:00\n"
        "  apr template model.gguf --source > chat_template.jinja",
};
