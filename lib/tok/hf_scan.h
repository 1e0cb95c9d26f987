/* The two large parts of tokenizer.json, vocabulary and merges, read by a light scanner; what remains goes to
 * the JSON library. (A vocabulary of 150 000 tokens as a tree of objects costs more time than the model.)
 *
 * Both parts are read strictly: strings, integers, separators. Everything else is checked by the JSON parser
 * that gets the remainder.
 *
 *     TRY(apr_hf_scan(text, n, file, arena, &parts, e)); ... apr_buf_free(&parts.rest);
 */
#ifndef APR_TOK_HF_SCAN_H
#define APR_TOK_HF_SCAN_H

#include "../arena.h"
#include "../buf.h"
#include "../kv.h"

struct apr_hf_tok {
    struct apr_str text; /* NUL-terminated, in the arena */
    int64_t id;
    double score;
};

struct apr_hf_parts {
    struct apr_hf_tok *toks;
    uint64_t n_toks;
    struct apr_str *merges; /* "left right" */
    uint64_t n_merges;
    struct apr_buf rest; /* owned: the document with {} and [] in their places */
};

/* parts is zero, its rest initialised. */
APR_MUST_USE enum apr_code apr_hf_scan(const char *text, size_t n, const char *file, struct apr_arena *arena,
                                       struct apr_hf_parts *parts, struct apr_err *e);
/* A vocab.json: {"token": id, ...} */
APR_MUST_USE enum apr_code apr_hf_scan_vocab(const char *text, size_t n, const char *file,
                                             struct apr_arena *arena, struct apr_hf_parts *parts,
                                             struct apr_err *e);
/* A merges.txt: "left right" a line; a first line that begins with # is a comment. */
APR_MUST_USE enum apr_code apr_hf_scan_merges_txt(const char *text, size_t n, const char *file,
                                                  struct apr_arena *arena, struct apr_hf_parts *parts,
                                                  struct apr_err *e);

#endif
