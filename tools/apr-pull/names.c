/* Checks of names from servers and operands. See names.h. */
#include "names.h"

#include <ctype.h>
#include <fnmatch.h>
#include <stdint.h>
#include <string.h>

#define MAX_COMPONENT 255
#define MAX_REPO      200
#define MAX_ETAG      128

static bool is_component(const char *s, size_t n)
{
    if (n == 0 || n > MAX_COMPONENT) return false;
    if (s[0] == '.' && (n == 1 || (n == 2 && s[1] == '.'))) return false;
    for (size_t i = 0; i < n; i++) {
        unsigned char c = (unsigned char)s[i];
        if (c < 0x20 || c == 0x7f || c == '\\' || c == '/') return false;
        if (c == 0xc2 && i + 1 < n && (unsigned char)s[i + 1] < 0xa0) return false; /* C1 controls */
    }
    return true;
}

bool name_is_path(const char *s)
{
    if (strlen(s) > NAME_MAX_PATH) return false;
    for (;;) {
        size_t n = strcspn(s, "/");
        if (!is_component(s, n)) return false;
        if (s[n] == '\0') return true;
        s += n + 1;
    }
}

enum apr_code name_check_path(const char *s, const char *what, struct apr_err *e)
{
    if (name_is_path(s)) return APR_OK;
    return apr_fail(
        e, APR_EFORMAT,
        "%s \"%.300s\": expected a relative path without \"..\", backslashes or control characters", what, s);
}

bool name_is_repo(const char *s)
{
    size_t n = strlen(s), n_slashes = 0;
    if (n == 0 || n > MAX_REPO || strstr(s, "..") || strstr(s, "--") || !name_is_path(s)) return false;
    for (size_t i = 0; i < n; i++) {
        bool first = i == 0 || s[i - 1] == '/';
        if (s[i] == '/')
            n_slashes++;
        else if (!isalnum((unsigned char)s[i]) && (first ? s[i] != '_' : !strchr("._-", s[i])))
            return false;
    }
    return n_slashes <= 1;
}

bool name_is_hex(const char *s, size_t n)
{
    return strlen(s) == n && strspn(s, "0123456789abcdef") == n;
}

bool name_is_commit(const char *s)
{
    return name_is_hex(s, NAME_COMMIT_HEX);
}

const char *name_of_etag(struct apr_arena *a, const char *etag)
{
    size_t n;
    if (strncmp(etag, "W/", 2) == 0) etag += 2;
    n = strlen(etag);
    if (n >= 2 && etag[0] == '"' && etag[n - 1] == '"') {
        etag++;
        n -= 2;
    }
    if (n == 0 || n > MAX_ETAG || etag[0] == '.') return NULL;
    for (size_t i = 0; i < n; i++)
        if (!isalnum((unsigned char)etag[i]) && !strchr("._-", etag[i])) return NULL;
    return apr_arena_strndup(a, etag, n);
}

char *name_encode(struct apr_arena *a, const char *s, bool keep_slash)
{
    static const char digits[] = "0123456789ABCDEF";
    char *out = apr_arena_get(a, 3 * strlen(s) + 1), *p = out;
    for (; *s; s++) {
        unsigned char c = (unsigned char)*s;
        if (isalnum(c) || strchr("-._~", c) || (keep_slash && c == '/')) {
            *p++ = *s;
        } else {
            *p++ = '%';
            *p++ = digits[c >> 4];
            *p++ = digits[c & 15];
        }
    }
    *p = '\0';
    return out;
}

bool name_matches(const char *name, const char *const *patterns, size_t n_patterns)
{
    for (size_t i = 0; i < n_patterns; i++) {
        size_t n = strlen(patterns[i]);
        if (fnmatch(patterns[i], name, 0) == 0) return true;
        /* "onnx/" stands for all below it */
        if (n && patterns[i][n - 1] == '/' && strncmp(name, patterns[i], n) == 0) return true;
    }
    return false;
}

bool name_has_suffix(const char *s, const char *suffix)
{
    size_t n = strlen(s), k = strlen(suffix);
    return n >= k && strcmp(s + n - k, suffix) == 0;
}

const char *name_base(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}
