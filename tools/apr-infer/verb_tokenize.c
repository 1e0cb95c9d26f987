/* tokenize: a text as token ids, and back. */
#include <inttypes.h>
#include <stdio.h>

#include "io.h"
#include "load.h"
#include "override.h"
#include "prompt.h"
#include "tok/tok.h"
#include "verbs.h"

struct tokenize_args {
    const char *file, *decode, *pre;
    bool no_special, add_special;
};

static const struct apr_opt opts[] = {
    APR_OPT(struct tokenize_args, file, "file", 'f', "FILE",
            "tokenize every byte of FILE; - is standard input"),
    APR_OPT(struct tokenize_args, no_special, "no-special", 0, NULL,
            "special tokens in the text are plain text; --decode leaves them out"),
    APR_OPT(struct tokenize_args, add_special, "add-special", 0, NULL,
            "add what the tokenizer puts around a text: BOS, EOS, CLS, SEP"),
    APR_OPT(struct tokenize_args, decode, "decode", 'd', "IDS",
            "print the text of IDS (1,2,3); - reads them from standard input"),
    APR_OPT(struct tokenize_args, pre, "pre", 0, "NAME",
            "split words as pre-tokenizer NAME does, for a GGUF that names none or another"),
};

/* Numbers between blanks and commas. */
static enum apr_code parse_ids(const char *s, size_t n, struct apr_ids *ids, struct apr_err *e)
{
    for (size_t i = 0; i < n;) {
        int64_t v = 0;
        size_t start = i;
        for (; i < n && s[i] >= '0' && s[i] <= '9' && v <= INT32_MAX; i++) v = v * 10 + (s[i] - '0');
        bool ends = i == n || s[i] == ',' || s[i] == ' ' || s[i] == '\n' || s[i] == '\t' || s[i] == '\r';
        if (!ends || v > INT32_MAX) {
            char shown[40];
            size_t n_left = n - start;
            return apr_fail(e, APR_EUSAGE, "--decode: \"%s\" is no token id; expected numbers like 1,2,3",
                            apr_escape(shown, sizeof shown, s + start, n_left < 24 ? n_left : 24));
        }
        if (i > start) TRY(apr_ids_push(ids, (int32_t)v, e));
        i++;
    }
    return APR_OK;
}

static enum apr_code print_text(const struct apr_buf *text, const struct apr_ctx *ctx, struct apr_err *e)
{
    if (!ctx->g->json) {
        fwrite(text->data, 1, text->n_bytes, stdout);
        return APR_OK;
    }
    struct apr_out *o = apr_out_open(stdout, true, "apr.tokenize/1");
    apr_out_strn(o, "text", text->n_bytes ? (const char *)text->data : "", text->n_bytes);
    return apr_out_close(o, e);
}

/* Millions of ids come from one file: printf takes longer over them than the tokenizer. */
static void put_id(int32_t id, bool blank)
{
    char text[12], *at = text + sizeof text;
    do *--at = (char)('0' + id % 10);
    while ((id /= 10) > 0);
    if (blank) *--at = ' ';
    fwrite_unlocked(at, 1, (size_t)(text + sizeof text - at), stdout);
}

static enum apr_code print_ids(const struct apr_ids *ids, const struct apr_ctx *ctx, struct apr_err *e)
{
    if (!ctx->g->json) {
        for (size_t i = 0; i < ids->n; i++) put_id(ids->at[i], i > 0);
        putchar('\n');
        return APR_OK;
    }
    struct apr_out *o = apr_out_open(stdout, true, "apr.tokenize/1");
    apr_out_arr(o, "ids");
    for (size_t i = 0; i < ids->n; i++) apr_out_i64(o, NULL, ids->at[i]);
    apr_out_end(o);
    return apr_out_close(o, e);
}

static enum apr_code decode(const struct tokenize_args *a, const struct apr_tok *t,
                            const struct apr_buf *list, const struct apr_ctx *ctx, struct apr_err *e)
{
    struct apr_ids ids = {0};
    struct apr_buf text;
    apr_buf_init(&text, SIZE_MAX);
    enum apr_code code = parse_ids((const char *)list->data, list->n_bytes, &ids, e);
    if (code == APR_OK) code = apr_tok_decode(t, ids.at, ids.n, !a->no_special, &text, e);
    if (code == APR_OK) code = print_text(&text, ctx, e);
    apr_buf_free(&text);
    apr_ids_free(&ids);
    return code;
}

static enum apr_code encode(const struct tokenize_args *a, const struct apr_tok *t,
                            const struct apr_buf *text, const struct apr_ctx *ctx, struct apr_err *e)
{
    struct apr_ids ids = {0};
    unsigned flags =
        (a->no_special ? 0u : APR_TOK_PARSE_SPECIAL) | (a->add_special ? APR_TOK_ADD_SPECIAL : 0u);
    enum apr_code code = apr_tok_encode(t, (const char *)text->data, text->n_bytes, flags, &ids, e);
    if (code == APR_OK) code = print_ids(&ids, ctx, e);
    apr_ids_free(&ids);
    return code;
}

static enum apr_code with_model(const struct tokenize_args *a, const struct apr_buf *input,
                                const struct apr_ctx *ctx, struct apr_err *e)
{
    const char *path = ctx->operands->at[0];
    struct apr_model *m;
    struct apr_tok *t = NULL;
    TRY(apr_load_vocab(path, &m, e));
    enum apr_code code = apr_override_apply(&(struct apr_override){.pre = a->pre, .runs = true}, m, e);
    if (code == APR_OK) code = apr_tok_open(&t, &m->vocab, path, e);
    if (code == APR_OK) code = a->decode ? decode(a, t, input, ctx, e) : encode(a, t, input, ctx, e);
    apr_tok_close(t);
    apr_model_close(m);
    return code;
}

static enum apr_code run(void *args, struct apr_ctx *ctx, struct apr_err *e)
{
    const struct tokenize_args *a = args;
    const struct apr_strs *in = ctx->operands;
    const char *operand = in->n > 1 ? in->at[1] : NULL;
    if ((operand != NULL) + (a->file != NULL) + (a->decode != NULL) != 1)
        return apr_fail(e, APR_EUSAGE, "expected one of: TEXT, --file FILE, --decode IDS");
    if (a->decode && a->add_special)
        return apr_fail(e, APR_EUSAGE, "--add-special adds nothing to what --decode prints");
    /* The model comes first, so that standard input may hold the text only. */
    struct apr_prompt_from from = {.model = in->at[0], .operand = operand, .file = a->file};
    bool piped = a->decode && a->decode[0] == '-' && a->decode[1] == '\0';
    if (piped) from.file = a->decode;
    if (a->decode && !piped) from.text = a->decode;
    struct apr_buf input;
    apr_buf_init(&input, APR_MAX_PROMPT_BYTES);
    enum apr_code code = apr_prompt_read(&from, &input, e);
    if (code == APR_OK) code = with_model(a, &input, ctx, e);
    apr_buf_free(&input);
    return code;
}

const struct apr_verb verb_tokenize = {
    .name = "tokenize",
    .operands = "MODEL [TEXT]",
    .n_operands_min = 1,
    .n_operands_max = 2,
    .opts = opts,
    .n_opts = sizeof opts / sizeof *opts,
    .args_bytes = sizeof(struct tokenize_args),
    .run = run,
    .details =
        "MODEL is any model, a vocabulary-only GGUF, or a folder that holds just tokenizer files. The ids "
        "go\n"
        "to standard output on one line, or with --json as {\"schema\":\"apr.tokenize/1\",\"ids\":[...]}. "
        "Special\n"
        "tokens in the text are parsed and none is added, unless --no-special and --add-special say so.\n"
        "Bytes that are not UTF-8 count as U+FFFD. --decode prints the text as it is, no line end added.\n"
        "\n"
        "  apr tokenize model.apr 'Hello, world!'\n"
        "  apr tokenize model.gguf -f README.md --json | jq '.ids | length'\n"
        "  apr tokenize model.apr -f text | apr tokenize model.apr --decode - | cmp - text",
};
