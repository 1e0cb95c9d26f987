/* Opens fuzzed bytes as a model, as a file and as a pipe, reads all of it, closes it.
 *
 *     int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n) { fuzz_model(p, n); return 0; }
 */
#ifndef APR_FUZZ_H
#define APR_FUZZ_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "fmt/apr_meta.h"
#include "fmt/fmt.h"
#include "load.h"
#include "log.h"

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n);

#define FUZZ_PIPE_BYTES 65536u /* what a pipe takes without a reader */

/* Status 0, 4, 5, 6 or 9, and a message of one line. */
static inline void fuzz_check(enum apr_code code, const struct apr_err *e)
{
    if (code != APR_OK && code != APR_EFORMAT && code != APR_ECONTRACT && code != APR_ELOAD &&
        code != APR_EUNAVAIL)
        abort();
    if (code != APR_OK && (!e->text[0] || strpbrk(e->text, "\n\x1b"))) abort();
}

static inline void fuzz_use(struct apr_model *m)
{
    struct apr_err e;
    uint8_t buf[4096];
    json_t *meta = NULL;
    enum apr_code code = apr_meta_build(m, &meta, &e);
    json_decref(meta);
    for (uint64_t i = 0; i < m->n_tensors && code == APR_OK; i++) {
        const struct apr_tensor *t = &m->tensors[i];
        size_t n = t->n_bytes < sizeof buf ? (size_t)t->n_bytes : sizeof buf;
        if (apr_model_find(m, t->name) != t) abort();
        code = apr_model_read(m, t, t->n_bytes - n, buf, n, &e);
    }
    if (code == APR_OK) code = m->is_stream || !m->fmt->verify ? apr_model_end(m, &e) : m->fmt->verify(m, &e);
    fuzz_check(code, &e);
}

static inline void fuzz_open(const uint8_t *p, size_t n, int as_pipe)
{
    int fd[2];
    char path[32];
    struct apr_model *m;
    struct apr_err e = {0};
    if (as_pipe ? pipe(fd) != 0 : (fd[0] = fd[1] = memfd_create("fuzz", 0)) < 0) abort();
    if (write(fd[1], p, n) != (ssize_t)n) abort();
    if (as_pipe) close(fd[1]);
    (void)snprintf(path, sizeof path, "/dev/fd/%d", fd[0]);
    enum apr_code code = apr_load_model(path, as_pipe ? APR_LOAD_STREAM : APR_LOAD_RANDOM, &m, &e);
    close(fd[0]);
    fuzz_check(code, &e);
    if (code != APR_OK) return;
    fuzz_use(m);
    apr_model_close(m);
}

static inline void fuzz_model(const uint8_t *p, size_t n)
{
    apr_log_set(APR_LOG_QUIET, "fuzz");
    fuzz_open(p, n, 0);
    if (n <= FUZZ_PIPE_BYTES) fuzz_open(p, n, 1);
}

#endif
