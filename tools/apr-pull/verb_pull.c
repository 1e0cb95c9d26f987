/* pull: a model from wherever it is to a path on this machine. */
#include "verb_pull.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "digest.h"
#include "hub.h"
#include "load.h"
#include "names.h"
#include "verbs.h"

static const struct apr_opt opts[] = {
    APR_OPT(struct pull_args, revision, "revision", 0, "REV",
            "branch, tag, commit or refs/pr/N of the repository"),
    APR_OPT(struct pull_args, include, "include", 0, "GLOB", "only files that match; may be repeated"),
    APR_OPT(struct pull_args, exclude, "exclude", 0, "GLOB", "no files that match; may be repeated"),
    APR_OPT(struct pull_args, output, "output", 'o', "FILE", "write the file of a URL to FILE"),
    APR_OPT(struct pull_args, sha256, "sha256", 0, "HEX", "refuse a file with another SHA-256"),
    APR_OPT(struct pull_args, force, "force", 'f', NULL, "download again what is there already"),
    APR_OPT(struct pull_args, n_retries, "retries", 0, "N",
            "try again N times after a failure of the network"),
    APR_OPT(struct pull_args, stall_s, "timeout", 0, "SECONDS",
            "give up a connection that stands still so long"),
    APR_OPT(struct pull_args, max_size, "max-size", 0, "SIZE", "refuse a larger file"),
    APR_OPT(struct pull_args, dry_run, "dry-run", 'n', NULL, "show what would be downloaded and stop"),
};

static void init(void *p)
{
    struct pull_args *args = p;
    args->n_retries = 5;
    args->stall_s = 30;
    args->max_size = "1T";
}

static enum apr_code local_sha256(struct pull *p, const char *path, struct apr_err *e)
{
    char hex[APR_SHA256_HEX];
    uint64_t n_bytes;
    if (!p->args->sha256) return APR_OK;
    TRY(digest_sha256(path, hex, &n_bytes, e));
    if (strcmp(hex, p->args->sha256) == 0) return APR_OK;
    return apr_fail(e, APR_EFORMAT, "%s: SHA-256 is %s, expected %s", path, hex, p->args->sha256);
}

/* Loading reads every header, so a missing shard or a cut file is found here. */
static enum apr_code pull_path(struct pull *p, const struct source *s, struct apr_err *e)
{
    struct apr_model *m;
    struct stat st;
    bool is_dir = stat(s->path, &st) == 0 && S_ISDIR(st.st_mode);
    if (is_dir && p->args->sha256)
        return apr_fail(e, APR_EUSAGE, "%s: --sha256 is about one file, this is a folder", s->path);
    TRY(apr_load_model(s->path, APR_LOAD_STREAM, &m, e));
    p->files = apr_arena_get(p->ctx->arena, (m->n_files + 1) * sizeof *p->files);
    for (; p->n_files < m->n_files; p->n_files++)
        p->files[p->n_files] =
            (struct pull_file){.name = apr_arena_strdup(p->ctx->arena, m->files[p->n_files].name),
                               .sha256 = m->files[p->n_files].sha256
                                             ? apr_arena_strdup(p->ctx->arena, m->files[p->n_files].sha256)
                                             : NULL,
                               .n_bytes = m->files[p->n_files].n_bytes,
                               .cached = true};
    apr_model_close(m);
    p->path = s->path;
    return is_dir ? APR_OK : local_sha256(p, s->path, e);
}

/* An option that has nothing to act on is a mistake of the caller, not something to ignore. */
static enum apr_code check_options(const struct pull *p, const struct source *s, struct apr_err *e)
{
    const struct pull_args *a = p->args;
    const struct {
        bool given, fits;
        const char *text;
    } rows[] = {
        {a->revision != NULL, s->kind == SOURCE_HUB, "--revision is for repositories of a hub"},
        {a->include.n > 0, s->kind == SOURCE_HUB && !s->file, "--include is for whole repositories of a hub"},
        {a->exclude.n > 0, s->kind == SOURCE_HUB && !s->file, "--exclude is for whole repositories of a hub"},
        {a->output != NULL, s->kind == SOURCE_URL,
         "--output is for a file at a URL; other models stay in the cache"},
        {a->sha256 != NULL, s->kind != SOURCE_HUB || s->file, "--sha256 is about one file; name it"},
        {a->force, s->kind != SOURCE_PATH, "--force has no meaning for a local path"},
        {a->dry_run, s->kind != SOURCE_PATH, "--dry-run has no meaning for a local path"},
        {a->output && strcmp(a->output, "-") == 0, false,
         "--output - is not possible: a download must be checked first"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
        if (rows[i].given && !rows[i].fits) return apr_fail(e, APR_EUSAGE, "%s", rows[i].text);
    if (a->sha256 && !name_is_hex(a->sha256, APR_SHA256_HEX - 1))
        return apr_fail(e, APR_EUSAGE, "--sha256 %s: expected 64 digits 0-9a-f", a->sha256);
    if (a->stall_s == 0 || a->stall_s > 86400)
        return apr_fail(e, APR_EUSAGE, "--timeout %" PRIu64 ": expected 1 to 86400 seconds", a->stall_s);
    if (a->n_retries > 1000)
        return apr_fail(e, APR_EUSAGE, "--retries %" PRIu64 ": expected 0 to 1000", a->n_retries);
    return APR_OK;
}

static enum apr_code report(const struct pull *p, struct apr_err *e)
{
    uint64_t n_new = 0, n_bytes = 0;
    for (size_t i = 0; i < p->n_files; i++)
        if (!p->files[i].cached) {
            n_new++;
            n_bytes += p->files[i].n_bytes;
        }
    if (!p->ctx->g->json) {
        if (p->args->dry_run) {
            for (size_t i = 0; i < p->n_files; i++)
                printf("%s\t%" PRIu64 "\t%s\n", p->files[i].name, p->files[i].n_bytes,
                       p->files[i].cached ? "cached" : "download");
            apr_note("%" PRIu64 " of %zu files, %.1f MB to download", n_new, p->n_files,
                     (double)n_bytes * 1e-6);
            return APR_OK;
        }
        if (n_new)
            apr_note("%" PRIu64 " of %zu files, %.1f MB downloaded", n_new, p->n_files,
                     (double)n_bytes * 1e-6);
        puts(p->path);
        return APR_OK;
    }
    struct apr_out *o = apr_out_open(stdout, true, "apr.pull/1");
    apr_out_str(o, "path", p->path);
    apr_out_str(o, "revision", p->revision);
    apr_out_bool(o, "dry_run", p->args->dry_run);
    apr_out_arr(o, "files");
    for (size_t i = 0; i < p->n_files; i++) {
        apr_out_obj(o, NULL);
        apr_out_str(o, "name", p->files[i].name);
        apr_out_u64(o, "size_bytes", p->files[i].n_bytes);
        apr_out_str(o, "sha256", p->files[i].sha256);
        apr_out_bool(o, "cached", p->files[i].cached);
        apr_out_end(o);
    }
    apr_out_end(o);
    return apr_out_close(o, e);
}

static enum apr_code run(void *args, struct apr_ctx *ctx, struct apr_err *e)
{
    struct pull p = {.args = args, .ctx = ctx, .offline = ctx->g->offline || hub_env_offline()};
    struct source s;
    TRY(source_parse(&s, ctx->operands->at[0], p.args->revision, ctx->arena, e));
    TRY(check_options(&p, &s, e));
    TRY(apr_parse_size(p.args->max_size, &p.max_bytes, e));
    if (s.kind == SOURCE_PATH) TRY(pull_path(&p, &s, e));
    if (s.kind == SOURCE_URL) TRY(pull_url(&p, &s, e));
    if (s.kind == SOURCE_HUB) TRY(pull_hub(&p, &s, e));
    return report(&p, e);
}

const struct apr_verb verb_pull = {
    .name = "pull",
    .operands = "MODEL",
    .n_operands_min = 1,
    .n_operands_max = 1,
    .opts = opts,
    .n_opts = sizeof opts / sizeof opts[0],
    .args_bytes = sizeof(struct pull_args),
    .init = init,
    .run = run,
    .details =
        "Brings a model to this machine, checks it, and prints the path where it is.\n"
        "MODEL is ORG/NAME or hf://ORG/NAME of a hub, with @REVISION and /FILE where wanted; an http:// or\n"
        "https:// URL of one file; or a local path (also file://), which is checked for completeness.\n"
        "\n"
        "From a repository come the SafeTensors weights (else one GGUF: Q4_K_M, Q4_K_S, Q4_0, Q8_0, else "
        "the\n"
        "first), configuration, tokenizer, chat template, card and licence; --include and --exclude choose\n"
        "others. They go to Hugging Face's own cache (HF_HUB_CACHE, HF_HOME), so that its other users find\n"
        "them; the file of a URL goes to APR_HOME/downloads, or to -o FILE. Sizes and hashes are checked; "
        "an\n"
        "interrupted download is continued by the next pull.\n"
        "\n"
        "HF_ENDPOINT names another hub, HF_TOKEN signs in there (only there), HF_HUB_OFFLINE or --offline "
        "uses\n"
        "the cache alone; http_proxy, https_proxy, no_proxy and SSL_CERT_FILE are honoured.\n"
        "Examples:\n"
        "    apr pull Qwen/Qwen2.5-0.5B-Instruct\n"
        "    apr run \"$(apr pull hf://Qwen/Qwen2.5-0.5B-Instruct)\" \"What is 2+2?\"\n"
        "    apr pull https://example.com/model.gguf --sha256 HEX -o model.gguf",
};
