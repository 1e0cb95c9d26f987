/* A SentencePiece model of fuzzed bytes, alone in a folder: read, opened, used, and its merges written out.
 */
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "../unit/tok_json.h"
#include "tok/sp_merges.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static char dir[] = "/tmp/fuzz-sp-XXXXXX";

static void remove_dir(void)
{
    char path[64];
    snprintf(path, sizeof path, "%s/tokenizer.model", dir);
    unlink(path);
    rmdir(dir);
}

static void use(const struct tok_json *j, const char *text, size_t n_bytes)
{
    struct apr_err e;
    struct apr_ids ids = {0};
    struct apr_buf out;
    apr_buf_init(&out, 1 << 24);
    if (apr_tok_encode(j->t, text, n_bytes, APR_TOK_PARSE_SPECIAL | APR_TOK_ADD_SPECIAL, &ids, &e) ==
        APR_OK) {
        for (size_t i = 0; i < ids.n; i++)
            if (ids.at[i] < 0 || (uint32_t)ids.at[i] >= apr_tok_n(j->t)) abort();
        if (apr_tok_decode(j->t, ids.at, ids.n, true, &out, &e) != APR_OK) abort();
    }
    apr_buf_free(&out);
    apr_ids_free(&ids);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static bool ready;
    static const char text[] =
        "ab  12 <s>x</s> \xc3\xa9\xcc\x81\xef\xac\x81\xff\n\t \xe6\x97\xa5\xf0\x9f\x99\x82 ";
    struct apr_err e = {0};
    struct tok_json j;
    if (!ready) {
        if (!mkdtemp(dir) || atexit(remove_dir) != 0) abort();
        ready = true;
    }
    if (tok_file_write(dir, "tokenizer.model", (const char *)data, size) != 0) abort();
    enum apr_code code = tok_json_open_in(&j, dir, 0, &e);
    if (code != APR_OK && (!e.text[0] || strpbrk(e.text, "\n\x1b"))) abort();
    if (code == APR_OK) {
        struct apr_str *merges;
        uint64_t n;
        use(&j, text, sizeof text - 1);
        use(&j, (const char *)data, size < 256 ? size : 256);
        if (j.v.scores && apr_sp_merges(&j.v, &j.arena, &merges, &n, &e) != APR_OK) abort();
    }
    tok_json_close(&j);
    return 0;
}
