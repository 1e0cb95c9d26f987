/* Tables over struct apr_vocab. See apr_vocab_keys.h. */
#include "apr_vocab_keys.h"

#include <strings.h>

static const struct {
    const char *name;
    size_t off;
} ids[] = {
    {"bos", offsetof(struct apr_vocab, bos_id)},   {"eos", offsetof(struct apr_vocab, eos_id)},
    {"unk", offsetof(struct apr_vocab, unk_id)},   {"sep", offsetof(struct apr_vocab, sep_id)},
    {"pad", offsetof(struct apr_vocab, pad_id)},   {"cls", offsetof(struct apr_vocab, cls_id)},
    {"mask", offsetof(struct apr_vocab, mask_id)}, {"eot", offsetof(struct apr_vocab, eot_id)},
};
static const struct {
    const char *name;
    size_t off;
} flags[] = {
    {"add_bos", offsetof(struct apr_vocab, add_bos)},
    {"add_eos", offsetof(struct apr_vocab, add_eos)},
    {"add_sep", offsetof(struct apr_vocab, add_sep)},
    {"add_space_prefix", offsetof(struct apr_vocab, add_space_prefix)},
    {"remove_extra_spaces", offsetof(struct apr_vocab, remove_extra_spaces)},
    {"lowercase", offsetof(struct apr_vocab, lowercase)},
    {"strip_accents", offsetof(struct apr_vocab, strip_accents)},
};
static const struct {
    enum apr_vocab_kind kind;
    const char *name, *gguf, *hf;
} kinds[] = {
    {APR_VOCAB_BPE, "bpe", "gpt2", "BPE"},
    {APR_VOCAB_SPM, "spm", "llama", "SPM"},
    {APR_VOCAB_WPM, "wpm", "bert", "WordPiece"},
    {APR_VOCAB_UGM, "ugm", "t5", "Unigram"},
};
#define N_OF(a) (sizeof(a) / sizeof((a)[0]))

const char *apr_vocab_id_at(size_t i)
{
    return i < N_OF(ids) ? ids[i].name : NULL;
}

int64_t *apr_vocab_id(const struct apr_vocab *v, size_t i)
{
    return (int64_t *)((uintptr_t)v + ids[i].off);
}

const char *apr_vocab_flag_at(size_t i)
{
    return i < N_OF(flags) ? flags[i].name : NULL;
}

int8_t *apr_vocab_flag(const struct apr_vocab *v, size_t i)
{
    return (int8_t *)((uintptr_t)v + flags[i].off);
}

const char *apr_vocab_kind_name(enum apr_vocab_kind kind)
{
    for (size_t i = 0; i < N_OF(kinds); i++)
        if (kinds[i].kind == kind) return kinds[i].name;
    return NULL;
}

const char *apr_vocab_kind_gguf(enum apr_vocab_kind kind)
{
    for (size_t i = 0; i < N_OF(kinds); i++)
        if (kinds[i].kind == kind) return kinds[i].gguf;
    return NULL;
}

const char *apr_vocab_kind_hf(enum apr_vocab_kind kind)
{
    for (size_t i = 0; i < N_OF(kinds); i++)
        if (kinds[i].kind == kind) return kinds[i].hf;
    return NULL;
}

enum apr_vocab_kind apr_vocab_kind_named(const char *name)
{
    for (size_t i = 0; name && i < N_OF(kinds); i++)
        if (strcasecmp(name, kinds[i].name) == 0 || strcasecmp(name, kinds[i].gguf) == 0 ||
            strcasecmp(name, kinds[i].hf) == 0)
            return kinds[i].kind;
    return APR_VOCAB_NONE;
}
