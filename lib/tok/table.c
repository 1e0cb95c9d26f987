/* The kinds of tokenizer models. */
#include "kind.h"

static const struct {
    enum apr_vocab_kind id;
    const char *name;
    const struct apr_tok_kind *kind; /* NULL: files of this kind are recognised, not run */
} rows[] = {
    {APR_VOCAB_BPE, "byte-level BPE", &apr_tok_bpe},
    {APR_VOCAB_SPM, "SentencePiece BPE", &apr_tok_spm},
    {APR_VOCAB_WPM, "WordPiece", &apr_tok_wpm},
    {APR_VOCAB_UGM, "Unigram", &apr_tok_ugm},
};

const struct apr_tok_kind *apr_tok_kind_of(enum apr_vocab_kind id)
{
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        if (rows[i].id == id) return rows[i].kind;
    return NULL;
}

const char *apr_tok_kind_name(enum apr_vocab_kind id)
{
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        if (rows[i].id == id) return rows[i].name;
    return "no tokenizer";
}
