/* A tokenizer as it is stored: what formats read and write, before tok/ makes it run.
 *
 * Token text is in the form that tokenizer.json and GGUF use: GPT-2 byte-to-unicode for byte-level BPE,
 * U+2581 for spaces in SentencePiece. WordPiece has two: with hf, continuations are marked ("##ing"); else
 * U+2581 marks beginnings, as in GGUF.
 */
#ifndef APR_VOCAB_H
#define APR_VOCAB_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "kv.h"

enum apr_vocab_kind {
    APR_VOCAB_NONE = 0,
    APR_VOCAB_BPE = 1,
    APR_VOCAB_SPM = 2,
    APR_VOCAB_WPM = 3,
    APR_VOCAB_UGM = 4
};

enum apr_tok_type { /* GGUF's tokenizer.ggml.token_type */
                    APR_TOK_NORMAL = 1,
                    APR_TOK_UNKNOWN = 2,
                    APR_TOK_CONTROL = 3,
                    APR_TOK_USER = 4,
                    APR_TOK_UNUSED = 5,
                    APR_TOK_BYTE = 6
};

#define APR_ID_NONE (-1)

struct apr_template {
    const char *name, *text; /* "tool_use"; Jinja */
};

struct apr_vocab {
    enum apr_vocab_kind kind;
    uint32_t n_toks;      /* rows of the embedding when known; ids without a token are "[PAD<id>]", UNUSED */
    struct apr_str *toks; /* [n_toks] */
    int32_t *types;       /* [n_toks] enum apr_tok_type */
    float *scores;        /* [n_toks] or NULL */
    uint64_t n_merges;
    struct apr_str *merges; /* [n_merges] "left right", split at the first space, as GGUF has them */
    const char *pre;        /* GGUF's name of the pre-tokenizer: "qwen2"; NULL when none is known */
    const char *hf_class;   /* tokenizer_class of tokenizer_config.json, or NULL */
    json_t *hf;             /* owned; tokenizer.json without model.vocab and model.merges; NULL from a GGUF */
    int64_t bos_id, eos_id, unk_id, sep_id, pad_id, cls_id, mask_id, eot_id; /* APR_ID_NONE = not given */
    int8_t add_bos, add_eos, add_sep, add_space_prefix;                      /* -1 = not given, 0, 1 */
    int8_t remove_extra_spaces;      /* Unigram: runs of blanks become one, none at the ends; -1, 0, 1 */
    int8_t lowercase, strip_accents; /* WordPiece's normalizer, where there is no hf; -1, 0, 1 */
    const uint8_t *charsmap;         /* Unigram: SentencePiece's character map, where there is no hf */
    size_t n_charsmap_bytes;
    const char *chat_template;      /* Jinja text or NULL */
    struct apr_template *templates; /* those with other names: templates.h */
    uint32_t n_templates;
    /* Order in which the special ids became known ("eos", "pad", "bos"): GGUF keys follow it. */
    const char *special_order[8];
    uint32_t n_special_order;
};

#endif
