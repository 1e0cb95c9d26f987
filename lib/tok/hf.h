/* Inside tok/: the steps of apr_tok_read_hf (tok.h), which hf.c walks through.
 *
 * struct apr_hf_job carries what the files said until the vocabulary is complete.
 */
#ifndef APR_TOK_HF_H
#define APR_TOK_HF_H

#include "hf_scan.h"
#include "tok.h"

struct apr_hf_job {
    const char *dir;
    const char *file; /* for messages: DIR/tokenizer.json */
    struct apr_arena *arena;
    struct apr_vocab *v;
    struct apr_hf_parts parts;
    json_t *config;          /* owned: tokenizer_config.json, NULL when absent */
    const json_t *hf_config; /* config.json or NULL */
    uint32_t n_vocab;
    struct apr_err *e;
};

#define APR_HF_NO_SCORE                                                                                      \
    (-10000.0f) /* of rows that no tokenizer file names, as llama.cpp's converter writes */
#define APR_HF_ADDED_SCORE (-1000.0f) /* of tokens that are added to a model's own */

/* Special ids, add_*, from post-processor, tokenizer_config.json and config.json. In hf_special.c. */
APR_MUST_USE enum apr_code apr_hf_special(struct apr_hf_job *j);
/* Chat templates from tokenizer_config.json or the files beside it. In hf_template.c. */
APR_MUST_USE enum apr_code apr_hf_template(struct apr_hf_job *j);
/* v->hf of a folder that has vocab.json and merges.txt only, from the class in tokenizer_config.json; stays
 * NULL for a class that the table does not know. In hf_old.c. */
APR_MUST_USE enum apr_code apr_hf_old(struct apr_hf_job *j);
/* A folder with a SentencePiece model and no tokenizer.json: v->hf says what it means, and parts has the
 * pieces. In hf_sp.c. */
APR_MUST_USE enum apr_code apr_hf_sp_alone(struct apr_hf_job *j);
/* Scores and types of the rows of a SentencePiece-like vocabulary: from the model file where the folder has
 * one, else from the order of the merges. In hf_sp.c. */
APR_MUST_USE enum apr_code apr_hf_sp_rows(struct apr_hf_job *j);
/* A folder with vocab.txt and no tokenizer.json: WordPiece. In hf_old.c. */
APR_MUST_USE enum apr_code apr_hf_words(struct apr_hf_job *j);
/* A decimal key of added_tokens_decoder; -1: none. In hf.c. */
int64_t apr_hf_id_of_key(const char *key);
/* Is this text a control token's, whatever the files say? In hf.c. */
bool apr_hf_looks_special(const char *s, size_t n);
/* The document DIR/name, or NULL when there is no such file. In hf.c. */
APR_MUST_USE enum apr_code apr_hf_json(struct apr_hf_job *j, const char *name, json_t **out);
APR_MUST_USE enum apr_code apr_hf_text(struct apr_hf_job *j, const char *name, struct apr_buf *out,
                                       bool *found);

#endif
