/* Fuzz target: the input is a grammar in GBNF or a JSON Schema, by its first byte ('g' or anything else).
 * Whatever compiles must give a text by walking its mask under a budget of tokens, and a schema's text must
 * be JSON.
 *
 *     make fuzz FUZZ_SECONDS=60, or build-fuzz/fuzz/fuzz_grammar -max_len=2048 CORPUS
 */
#include <stdlib.h>

#include "grammar/matcher.h"
#include "json.h"

#define N_TOKS 300u

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct apr_trie *trie;

/* Every byte is a token. */
static void make_trie(void)
{
    uint8_t bytes[256];
    uint32_t off[257];
    struct apr_err e;
    for (uint32_t i = 0; i < 256; i++) bytes[i] = (uint8_t)(off[i] = i);
    off[256] = 256;
    if (apr_trie_build(&trie, bytes, off, 256, &e) != APR_OK) abort();
}

/* The k-th token of the mask, by what the input says. */
static int32_t pick(const uint64_t bits[4], size_t n_set, size_t k)
{
    k %= n_set;
    for (int32_t id = 0; id < 256; id++)
        if (bits[id / 64] >> (id % 64) & 1 && k-- == 0) return id;
    abort();
}

static void walk(struct apr_matcher *m, const uint8_t *data, size_t size, bool is_json, bool in_budget)
{
    char text[N_TOKS];
    size_t n = 0, n_set;
    uint64_t bits[4];
    struct apr_err e;
    json_t *v;
    while (n < N_TOKS && (n_set = apr_matcher_mask(m, N_TOKS - n, bits)) > 0) {
        int32_t id = pick(bits, n_set, size ? data[n % size] : n);
        if (in_budget && !apr_matcher_allows(m, id, N_TOKS - n)) abort();
        if (apr_matcher_take(m, id, &e) != APR_OK) abort();
        text[n++] = (char)id;
    }
    if (in_budget && !apr_matcher_accepts(m)) abort();
    /* Keys that stand twice are the only fault that is left to a schema's text. */
    if (!is_json || !apr_matcher_accepts(m)) return;
    v = json_loadb(text, n, JSON_DECODE_ANY | JSON_DECODE_INT_AS_REAL, NULL);
    if (!v) abort();
    json_decref(v);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct apr_err e;
    struct apr_grammar *g;
    struct apr_matcher *m;
    bool is_json = !size || data[0] != 'g';
    if (!trie) make_trie();
    if (size) {
        data++;
        size--;
    }
    if (apr_grammar_parse(&g, (const char *)data, size, is_json ? APR_GRAMMAR_SCHEMA : APR_GRAMMAR_GBNF, "f",
                          &e) != APR_OK)
        return 0;
    if (apr_matcher_open(&m, g, trie, &e) == APR_OK) {
        walk(m, data, size, is_json, apr_grammar_least_bytes(g) < N_TOKS);
        apr_matcher_close(m);
    }
    apr_grammar_free(g);
    return 0;
}
