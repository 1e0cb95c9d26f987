/* Fuzz target: the input is a tokenizer.json. Whatever opens must encode any text into ids of its vocabulary
 * and decode them again.
 *
 *     make build/fuzz/fuzz_tokenizer_json && build/fuzz/fuzz_tokenizer_json -max_len=4096 CORPUS
 */
#include <stdlib.h>

#include "../unit/tok_json.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static char dir[] = "/tmp/apr-fuzz-XXXXXX";

static void remove_dir(void)
{
    char path[64];
    snprintf(path, sizeof path, "%s/tokenizer.json", dir);
    unlink(path);
    rmdir(dir);
}

static void encode(const struct tok_json *j, const char *text, size_t n_bytes, unsigned flags)
{
    struct apr_err e;
    struct apr_ids ids = {0};
    struct apr_buf out;
    apr_buf_init(&out, 1 << 24);
    if (apr_tok_encode(j->t, text, n_bytes, flags, &ids, &e) == APR_OK) {
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
    static const char text[] = "ab 12 <x> \xc3\xa9\xcc\x81\xff\n\n\t don'T \xe6\x97\xa5 ";
    struct apr_err e;
    struct tok_json j;
    if (!ready) {
        if (!mkdtemp(dir) || atexit(remove_dir) != 0) abort();
        ready = true;
    }
    if (tok_json_write(dir, (const char *)data, size) != 0) abort();
    if (tok_json_open_in(&j, dir, 0, &e) == APR_OK) {
        encode(&j, text, sizeof text - 1, APR_TOK_PARSE_SPECIAL | APR_TOK_ADD_SPECIAL);
        encode(&j, (const char *)data, size < 256 ? size : 256, 0);
    }
    tok_json_close(&j);
    return 0;
}
