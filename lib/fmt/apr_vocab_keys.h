/* Names of the parts of struct apr_vocab in .apr metadata: one table for building and reading.
 *
 *     for (size_t i = 0; apr_vocab_id_at(i); i++) *apr_vocab_id(v, i) = ...;
 */
#ifndef APR_FMT_APR_VOCAB_KEYS_H
#define APR_FMT_APR_VOCAB_KEYS_H

#include <stddef.h>

#include "../vocab.h"

/* "bos", "eos" ...; NULL past the end. */
const char *apr_vocab_id_at(size_t i);
int64_t *apr_vocab_id(const struct apr_vocab *v, size_t i);
/* "add_bos", "add_eos" ...; NULL past the end. */
const char *apr_vocab_flag_at(size_t i);
int8_t *apr_vocab_flag(const struct apr_vocab *v, size_t i);

/* "bpe"; GGUF's "gpt2"; tokenizer.json's "BPE". NULL for NONE. */
const char *apr_vocab_kind_name(enum apr_vocab_kind kind);
const char *apr_vocab_kind_gguf(enum apr_vocab_kind kind);
const char *apr_vocab_kind_hf(enum apr_vocab_kind kind);
/* By any of the three, case-insensitive; NONE when unknown. */
enum apr_vocab_kind apr_vocab_kind_named(const char *name);

#endif
