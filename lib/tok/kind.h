/* Inside tok/: the open tokenizer and the vtable of a model kind (BPE, ...). One file and one row in table.c
 * each.
 *
 * tok.c finds added tokens, normalizes, and hands each text between them to kind->encode.
 */
#ifndef APR_TOK_KIND_H
#define APR_TOK_KIND_H

#include "added.h"
#include "memo.h"
#include "lookup.h"
#include "norm.h"
#include "pretok.h"
#include "tok.h"

struct apr_tok_work { /* scratch of one apr_tok_encode */
    struct apr_buf repaired;
    struct apr_norm_work norm;
    struct apr_pretok_work pre;
    struct apr_memo memo;
    struct apr_buf syms;        /* int32_t: the symbols of a word */
    struct apr_buf links, heap; /* of long words */
};

struct apr_tok_kind {
    enum apr_vocab_kind id;
    const char *name;
    /* Fills norm, pre, raw, model. */
    enum apr_code (*open)(struct apr_tok *t, struct apr_err *e);
    /* One normalized text without added tokens, well-formed UTF-8, not empty. */
    enum apr_code (*encode)(const struct apr_tok *t, struct apr_tok_work *w, const uint8_t *p, size_t n,
                            struct apr_ids *ids, struct apr_err *e);
};

struct apr_tok {
    struct apr_arena arena; /* owns everything below, and this struct */
    const struct apr_vocab *v;
    const char *file;
    const struct apr_tok_kind *kind;
    struct apr_lookup by_text;   /* stored text -> id; ids without a token are not in it */
    struct apr_str *raw;         /* [n_toks] the bytes that a token stands for */
    struct apr_str *raw_first;   /* [n_toks] the same at the front of a text; NULL: no difference */
    struct apr_added added;      /* matched in the text as it is */
    struct apr_added added_norm; /* matched in the normalized text */
    struct apr_norm norm;        /* holds compiled patterns */
    struct apr_pretok pre;       /* holds compiled patterns */
    int32_t *first, *last;       /* ids of --add-special before and after the text */
    uint32_t n_first, n_last;
    const void *model;    /* the kind's own */
    size_t n_drops_blank; /* blanks that decoding takes off the front, which encoding put there */
    bool whole_bytes;     /* byte tokens that make no UTF-8 together are one U+FFFD each */
};

const struct apr_tok_kind *apr_tok_kind_of(enum apr_vocab_kind id); /* NULL: not built */
const char *apr_tok_kind_name(enum apr_vocab_kind id);              /* also of kinds that are not built */

extern const struct apr_tok_kind apr_tok_bpe; /* bpe.c */
extern const struct apr_tok_kind apr_tok_spm; /* spm.c */
extern const struct apr_tok_kind apr_tok_ugm; /* ugm.c */
extern const struct apr_tok_kind apr_tok_wpm; /* wpm.c */

/* May the model give this id? Control tokens, byte tokens and rows without a token come from elsewhere. */
static inline bool apr_tok_is_word(const struct apr_vocab *v, uint32_t id)
{
    return !v->types || v->types[id] == APR_TOK_NORMAL || v->types[id] == APR_TOK_USER;
}

/* unk_id, or the first token of that type; -1: none. In special.c. */
int32_t apr_tok_unk_id(const struct apr_vocab *v);
/* Ids that --add-special puts around a text. In special.c. */
APR_MUST_USE enum apr_code apr_tok_read_around(struct apr_tok *t, bool add_bos, bool add_eos,
                                               struct apr_err *e);
/* The same of a WordPiece vocabulary without tokenizer.json: CLS before, SEP after. */
APR_MUST_USE enum apr_code apr_tok_read_cls_sep(struct apr_tok *t, struct apr_err *e);
/* Added tokens of the vocabulary or of tokenizer.json. In special.c. */
APR_MUST_USE enum apr_code apr_tok_read_added(struct apr_tok *t, struct apr_err *e);

#endif
