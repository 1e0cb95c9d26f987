/* For tests of tok/: a tokenizer.json given as text, opened through a temporary folder. Used by tests alone.
 *
 *     struct tok_json j; code = tok_json_open(&j, text, n_bytes, &e); ... tok_json_close(&j);
 */
#ifndef APR_TEST_TOK_JSON_H
#define APR_TEST_TOK_JSON_H

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tok/tok.h"

struct tok_json {
    struct apr_arena arena;
    struct apr_vocab v;
    json_t *config;
    struct apr_tok *t;
};

static inline void tok_json_close(struct tok_json *j)
{
    apr_tok_close(j->t);
    json_decref(j->v.hf);
    json_decref(j->config);
    apr_arena_free(&j->arena);
}

/* 0 when the file could be written. */
static inline int tok_file_write(const char *dir, const char *name, const char *text, size_t n_bytes)
{
    char path[128];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    if (fd < 0) return -1;
    ssize_t n = write(fd, text, n_bytes);
    return close(fd) == 0 && n == (ssize_t)n_bytes ? 0 : -1;
}

static inline int tok_json_write(const char *dir, const char *text, size_t n_bytes)
{
    return tok_file_write(dir, "tokenizer.json", text, n_bytes);
}

static inline enum apr_code tok_json_open_in(struct tok_json *j, const char *dir, uint32_t n_vocab,
                                             struct apr_err *e)
{
    memset(j, 0, sizeof *j);
    apr_arena_init(&j->arena);
    enum apr_code code = apr_tok_read_hf(dir, n_vocab, NULL, &j->arena, &j->v, &j->config, e);
    return code == APR_OK ? apr_tok_open(&j->t, &j->v, "tokenizer.json", e) : code;
}

static inline enum apr_code tok_json_open(struct tok_json *j, const char *text, size_t n_bytes,
                                          struct apr_err *e)
{
    char dir[] = "/tmp/apr-tok-XXXXXX", path[64];
    if (!mkdtemp(dir) || tok_json_write(dir, text, n_bytes) != 0) abort();
    enum apr_code code = tok_json_open_in(j, dir, 0, e);
    snprintf(path, sizeof path, "%s/tokenizer.json", dir);
    unlink(path);
    rmdir(dir);
    return code;
}

#endif
