/* The operand of pull. See source.h. */
#include "source.h"

#include <ctype.h>
#include <errno.h>
#include <stdbool.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#include "http_parts.h"
#include "names.h"

static bool begins(const char *s, const char *prefix)
{
    return strncasecmp(s, prefix, strlen(prefix)) == 0;
}

/* Components of a revision: refs/pr/N and refs/convert/NAME have three. */
static size_t revision_bytes(const char *s)
{
    size_t n = strcspn(s, "/");
    if (strncmp(s, "refs/pr/", 8) != 0 && strncmp(s, "refs/convert/", 13) != 0) return n;
    for (int i = 0; i < 2; i++) n += 1 + strcspn(s + n + 1, "/");
    return n;
}

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9') return c - '0';
    c = (char)tolower((unsigned char)c);
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* %2F in a revision is its slash. */
static const char *decode(const char *s, size_t n, struct apr_arena *a)
{
    char *out = apr_arena_get(a, n + 1), *p = out;
    for (size_t i = 0; i < n; i++) {
        int hi = s[i] == '%' && i + 2 < n ? hex_digit(s[i + 1]) : -1, lo = hi >= 0 ? hex_digit(s[i + 2]) : -1;
        if (lo >= 0) i += 2;
        *p++ = lo >= 0 ? (char)(hi * 16 + lo) : s[i];
    }
    *p = '\0';
    return out;
}

enum apr_code source_parse_repo(struct source *s, const char *operand, struct apr_arena *a, struct apr_err *e)
{
    const char *p = begins(operand, "hf://") ? operand + 5 : operand, *slash = strchr(p, '/'),
               *at = strchr(p, '@');
    *s = (struct source){.kind = SOURCE_HUB};
    /* The name ends at @, or at its second slash; a name without organisation may be followed by @REV only.
     */
    size_t n = strlen(p);
    if (slash && (!at || at > slash)) n = (size_t)(slash - p) + 1 + strcspn(slash + 1, "@/");
    if (at && (size_t)(at - p) < n) n = (size_t)(at - p);
    s->repo = apr_arena_strndup(a, p, n);
    if (!name_is_repo(s->repo))
        return apr_fail(e, APR_EUSAGE,
                        "%s: \"%s\" is no name of a repository; expected ORG/NAME[@REVISION][/FILE]", operand,
                        s->repo);
    p += n;
    if (*p == '@') {
        n = revision_bytes(p + 1);
        s->revision = decode(p + 1, n, a);
        if (!name_is_path(s->revision))
            return apr_fail(e, APR_EUSAGE, "%s: \"%s\" is no revision", operand, s->revision);
        p += 1 + n;
    }
    if (*p == '/' && p[1]) {
        s->file = apr_arena_strdup(a, p + 1);
        if (!name_is_path(s->file))
            return apr_fail(e, APR_EUSAGE, "%s: \"%s\" is no name of a file in a repository", operand,
                            s->file);
    }
    return APR_OK;
}

/* A page of the hub in a browser: *repo is the operand that means the same, NULL when it is another URL. */
static enum apr_code from_page(const char *url, const char **operand, struct apr_arena *a, struct apr_err *e)
{
    const char *host, *path, *rest;
    *operand = NULL;
    TRY(http_url_split(a, url, &host, &path, e));
    if (strcasecmp(host, "huggingface.co:443") != 0 && strcasecmp(host, "hf.co:443") != 0) return APR_OK;
    const char *slash = *path ? strchr(path + 1, '/') : NULL;
    if (!slash || !slash[1]) return APR_OK;
    size_t n = (size_t)(slash - path) + strcspn(slash + 1, "/");
    const char *repo = apr_arena_strndup(a, path + 1, n);
    rest = path + 1 + n;
    if (!name_is_repo(repo)) return APR_OK;
    static const char *const kinds[] = {"/tree/", "/blob/", "/resolve/"};
    if (!*rest || strcmp(rest, "/") == 0) *operand = apr_arena_printf(a, "hf://%s", repo);
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++)
        if (begins(rest, kinds[i]) && rest[strlen(kinds[i])])
            *operand = apr_arena_printf(a, "hf://%s@%s", repo, rest + strlen(kinds[i]));
    return APR_OK;
}

static enum apr_code parse_hub(struct source *s, const char *operand, const char *revision,
                               struct apr_arena *a, struct apr_err *e)
{
    TRY(source_parse_repo(s, operand, a, e));
    if (revision && s->revision && strcmp(revision, s->revision) != 0)
        return apr_fail(e, APR_EUSAGE, "the revision is given twice: %s and --revision %s", s->revision,
                        revision);
    if (revision) s->revision = revision;
    if (!s->revision) s->revision = "main";
    if (name_is_path(s->revision)) return APR_OK;
    return apr_fail(e, APR_EUSAGE, "--revision %s: is no revision", s->revision);
}

static enum apr_code parse_path(struct source *s, const char *path, const char *operand, struct apr_err *e)
{
    *s = (struct source){.kind = SOURCE_PATH, .path = path};
    if (access(path, F_OK) == 0) return APR_OK;
    if (errno != ENOENT && errno != ENOTDIR) return apr_fail(e, APR_EIO, "%s: %s", operand, strerror(errno));
    return apr_fail(e, APR_ENOTFOUND, "%s: not found", operand);
}

enum apr_code source_parse(struct source *s, const char *operand, const char *revision, struct apr_arena *a,
                           struct apr_err *e)
{
    const char *page = NULL;
    if (begins(operand, "http://") || begins(operand, "https://")) {
        TRY(from_page(operand, &page, a, e));
        if (page) return parse_hub(s, page, revision, a, e);
        *s = (struct source){.kind = SOURCE_URL, .url = operand};
        return APR_OK;
    }
    if (begins(operand, "hf://")) return parse_hub(s, operand, revision, a, e);
    if (begins(operand, "file://")) {
        const char *path = operand + 7;
        if (begins(path, "localhost/")) path += 9;
        if (*path != '/') return apr_fail(e, APR_EUSAGE, "%s: expected file:///PATH", operand);
        return parse_path(s, decode(path, strlen(path), a), operand, e);
    }
    if (strstr(operand, "://"))
        return apr_fail(e, APR_EUSAGE, "%s: unknown scheme; expected hf://, https://, http:// or file://",
                        operand);
    if (*operand == '\0') return apr_fail(e, APR_EUSAGE, "expected a model, found an empty name");
    if (access(operand, F_OK) == 0 || *operand == '/' || *operand == '.' || !strchr(operand, '/'))
        return parse_path(s, operand, operand, e);
    return parse_hub(s, operand, revision, a, e);
}
