/* Provenance that the file system knows. See origin.h. */
#include "origin.h"

#include "../log.h"

#include <ctype.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define SIDECAR_MAX_BYTES 4096u

static bool is_sha256(const char *s, size_t n)
{
    if (n != APR_SHA256_HEX - 1) return false;
    for (size_t i = 0; i < n; i++)
        if (!isdigit((unsigned char)s[i]) && !(s[i] >= 'a' && s[i] <= 'f')) return false;
    return true;
}

static const char *base_of(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

/* Cuts the last component off; the base that was cut is returned. path has no slash at its end. */
static const char *cut(char *path)
{
    char *slash = strrchr(path, '/');
    if (!slash) return "";
    *slash = '\0';
    return slash + 1;
}

static const char *from_hub_cache(struct apr_model *m, const char *path)
{
    char real[PATH_MAX];
    const char *blob;
    if (!realpath(path, real)) return NULL;
    blob = cut(real);
    if (!is_sha256(blob, strlen(blob)) || strcmp(base_of(real), "blobs") != 0) return NULL;
    return apr_arena_strdup(&m->arena, blob);
}

/* Lines of the record: commit, etag (the SHA-256 of a large file), time of the download in seconds. */
static bool parse_record(char *text, char **etag, double *time_s)
{
    char *end, *time_text;
    *etag = strchr(text, '\n');
    if (!*etag) return false;
    time_text = strchr(++*etag, '\n');
    if (!time_text) return false;
    *time_text++ = '\0';
    *time_s = strtod(time_text, &end);
    return end != time_text;
}

static const char *from_record(struct apr_model *m, const char *path)
{
    char file[PATH_MAX], *etag;
    struct apr_buf b;
    struct apr_err ignored;
    struct stat st;
    double time_s = 0;
    const char *sha256 = NULL;
    int n = snprintf(file, sizeof file, "%.*s.cache/huggingface/download/%s.metadata",
                     (int)(base_of(path) - path), path, base_of(path));
    if (n < 0 || (size_t)n >= sizeof file || stat(path, &st) != 0) return NULL;
    apr_buf_init(&b, SIDECAR_MAX_BYTES);
    if (apr_read_file(file, SIDECAR_MAX_BYTES, &b, &ignored) == APR_OK && b.data &&
        parse_record((char *)b.data, &etag, &time_s) && is_sha256(etag, strlen(etag)) &&
        (double)st.st_mtim.tv_sec - 1 <= time_s)
        sha256 = apr_arena_strdup(&m->arena, etag);
    apr_buf_free(&b);
    return sha256;
}

void apr_origin_file(struct apr_model *m, uint32_t i_file, struct apr_src *src, const char *path)
{
    struct apr_file *f = &m->files[i_file];
    *f = (struct apr_file){.src = src, .n_bytes = apr_src_size(src)};
    f->name = apr_arena_strdup(&m->arena, base_of(path));
    if (strcmp(path, "-") != 0) f->sha256 = from_hub_cache(m, path);
    if (strcmp(path, "-") != 0 && !f->sha256) f->sha256 = from_record(m, path);
    struct apr_err ignored;
    if (m->is_hashed && !f->sha256 && apr_src_sha_begin(src, &ignored) != APR_OK)
        apr_verbose("%s: not hashed: %s", f->name, ignored.text);
}

/* "model", "model-00001-of-00004", "pytorch_model", "consolidated": names of parts, not of models. */
static bool is_part_name(const char *stem, size_t n)
{
    static const char *const parts[] = {"model", "consolidated", "pytorch_model", "diffusion_pytorch_model"};
    for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++) {
        size_t k = strlen(parts[i]);
        if (n >= k && memcmp(stem, parts[i], k) == 0 && (n == k || strncmp(stem + k, "-0", 2) == 0))
            return true;
    }
    return false;
}

static void name_folder(struct apr_model *m, const char *path)
{
    char real[PATH_MAX];
    const char *base, *parent, *repo, *dash;
    if (!realpath(path, real)) return;
    base = apr_arena_strdup(&m->arena, cut(real));
    parent = cut(real);
    if (strcmp(parent, "snapshots") == 0) { /* models--ORG--NAME/snapshots/REVISION */
        repo = cut(real);
        dash = strncmp(repo, "models--", 8) == 0 ? strstr(repo + 8, "--") : NULL;
        if (dash && dash[2]) base = apr_arena_strdup(&m->arena, dash + 2);
    }
    if (*base) m->name = base;
}

void apr_origin_name(struct apr_model *m, const char *path)
{
    struct stat st;
    const char *base = base_of(path), *dot = strrchr(base, '.');
    size_t n_stem = dot && dot != base ? (size_t)(dot - base) : strlen(base);
    if (strcmp(path, "-") == 0) return;
    if (stat(path, &st) == 0 && S_ISDIR(st.st_mode)) {
        name_folder(m, path);
    } else if (is_part_name(base, n_stem)) {
        char *dir = apr_arena_printf(&m->arena, "%.*s.", (int)(base - path), path);
        name_folder(m, dir);
    } else {
        m->name = apr_arena_strndup(&m->arena, base, n_stem);
    }
}
