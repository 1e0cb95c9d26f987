/* See pre.h. The patterns are those of the models' published tokenizer.json files, in their spelling. */
#include "pre.h"

#include <string.h>

#define CONTRACTIONS "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
#define SPACES       "|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
#define PUNCTUATION  "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*"
#define WORD         "[^\\r\\n\\p{L}\\p{N}]?\\p{L}+"
#define UPPER        "[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]"
#define LOWER        "[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]"

/* What ByteLevel with use_regex does. */
#define GPT2   "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+"
#define QWEN2  CONTRACTIONS "|" WORD "|\\p{N}" PUNCTUATION SPACES
#define LLAMA3 CONTRACTIONS "|" WORD "|\\p{N}{1,3}" PUNCTUATION SPACES
#define QWEN35                                                                                               \
    CONTRACTIONS "|[^\\r\\n\\p{L}\\p{N}]?[\\p{L}\\p{M}]+|\\p{N}| ?[^\\s\\p{L}\\p{M}\\p{N}]+[\\r\\n]*" SPACES
#define GPT4O                                                                                                \
    "[^\\r\\n\\p{L}\\p{N}]?" UPPER "*" LOWER "+" CONTRACTIONS "?|[^\\r\\n\\p{L}\\p{N}]?" UPPER "+" LOWER     \
    "*" CONTRACTIONS "?|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*" SPACES
#define TEKKEN                                                                                               \
    "[^\\r\\n\\p{L}\\p{N}]?" UPPER "*" LOWER "+|[^\\r\\n\\p{L}\\p{N}]?" UPPER "+" LOWER                      \
    "*|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*" SPACES
#define BAILING                                                                                              \
    "'(?i:[sdmt]|ll|ve|re)|[^\\r\\n\\p{L}\\p{N}]?+\\p{L}+|\\p{N}| "                                          \
    "?[^\\s\\p{L}\\p{N}]++[\\r\\n]*|\\s*[\\r\\n]"                                                            \
    "|\\s+(?!\\S)|\\s+"
#define SEED_CODER                                                                                           \
    CONTRACTIONS "|" WORD "|\\p{N}{1}| ?[^\\s\\p{L}\\p{N}\\r\\n]+|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
#define DEEPSEEK3                                                                                            \
    "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\\r\\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+"      \
    "| ?[\\p{P}\\p{S}]+[\\r\\n]*" SPACES
#define CJK_KANA   "[\xe4\xb8\x80-\xe9\xbe\xa5\xe3\x81\x80-\xe3\x82\x9f\xe3\x82\xa0-\xe3\x83\xbf]+"
#define CJK_HANGUL "[\xe4\xb8\x80-\xe9\xbe\xa5\xe0\xa0\x80-\xe4\xb8\x80\xea\xb0\x80-\xed\x9f\xbf]+"
#define DIGIT      "\\p{N}"
#define DIGITS     "\\p{N}+"
#define PUNCT      "[\\p{P}!-/:-@\\[-`{-~]" /* what tokenizers' Punctuation splits at */

#define ISOLATED(p)                                                                                          \
    {                                                                                                        \
        .pattern = (p)                                                                                       \
    }

static const struct apr_pre_row rows[] = {
    {.names = "qwen2", .steps = {ISOLATED(QWEN2)}, .nfc = true},
    {.names = "deepseek-r1-qwen kormo f2llmv2 megrez stablelm2 hunyuan solar-open grok-2",
     .steps = {ISOLATED(QWEN2)}},
    {.names = "llama-bpe llama3 llama-v3 falcon3 falcon-h1 pixtral midm-2.0 lfm2 jina-v5-nano",
     .steps = {ISOLATED(LLAMA3)},
     .ignore_merges = true,
     .add_bos = true},
    {.names = "dbrx smaug-bpe chatglm-bpe glm4", .steps = {ISOLATED(LLAMA3)}},
    {.names =
         "gpt-2 phi-2 jina-es jina-de gigachat jina-v2-es jina-v2-de a.x-4.0 mellum modern-bert jina-v1-en "
         "jina-v2-code roberta-bpe exaone4 mpt olmo jais trillion granite-docling",
     .steps = {ISOLATED(GPT2)}},
    {.names = "starcoder refact command-r smollm codeshell exaone minerva-7b mellum2",
     .steps = {ISOLATED(DIGIT), ISOLATED(GPT2)}},
    {.names = "deepseek-coder",
     .steps = {ISOLATED("[\\r\\n]"), ISOLATED("\\s?\\p{L}+"), ISOLATED("\\s?\\p{P}+"), ISOLATED(CJK_HANGUL),
               ISOLATED(DIGIT)}},
    {.names = "deepseek-v3 hunyuan-dense joyai-llm hy_v4",
     .steps = {ISOLATED("\\p{N}{1,3}"), ISOLATED(CJK_KANA), ISOLATED(DEEPSEEK3)}},
    {.names = "falcon",
     .steps = {{.pattern = PUNCT, .how = APR_SPLIT_CONTIGUOUS},
               ISOLATED(GPT2),
               ISOLATED(DIGITS),
               ISOLATED("[0-9][0-9][0-9]")}},
    {.names = "qwen35", .steps = {ISOLATED(QWEN35)}},
    {.names = "gpt-4o llama4 kanana2 talkie minimax-m2", .steps = {ISOLATED(GPT4O)}},
    {.names = "tekken", .steps = {ISOLATED(TEKKEN)}, .ignore_merges = true, .add_bos = true},
    {.names = "bailingmoe bailingmoe2 llada-moe", .steps = {ISOLATED(BAILING)}},
    {.names = "seed-coder", .steps = {ISOLATED(SEED_CODER)}},
    /* What GGUF readers do for files older than the key; the same text as falcon's, digits apart first. */
    {.names = "default",
     .steps = {ISOLATED("[\\p{P}\\$\\+<=>\\^~\\|]+"), ISOLATED(GPT2), ISOLATED(DIGITS),
               ISOLATED("[0-9][0-9][0-9]")}},
};

const struct apr_pre_row *apr_pre_at(size_t i)
{
    return i < sizeof rows / sizeof *rows ? &rows[i] : NULL;
}

static bool lists(const char *names, const char *name)
{
    size_t n = strlen(name);
    for (const char *at = names; n > 0 && (at = strstr(at, name)); at += n) {
        bool starts = at == names || at[-1] == ' ';
        if (starts && (at[n] == ' ' || at[n] == '\0') && !strchr(name, ' ')) return true;
    }
    return false;
}

const struct apr_pre_row *apr_pre_named(const char *name)
{
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        if (lists(rows[i].names, name)) return &rows[i];
    return NULL;
}

size_t apr_pre_n_steps(const struct apr_pre_row *row)
{
    size_t n = 0;
    while (n < APR_PRE_MAX_STEPS && row->steps[n].pattern) n++;
    return n;
}

static bool same_step(const struct apr_pre_step *a, const struct apr_pre_step *b)
{
    return a->pattern && strcmp(a->pattern, b->pattern) == 0 && a->how == b->how && a->invert == b->invert &&
           a->literal == b->literal && a->prefix_space == b->prefix_space;
}

static bool same_steps(const struct apr_pre_row *row, const struct apr_pre_step *steps, size_t n_steps)
{
    if (apr_pre_n_steps(row) != n_steps || n_steps == 0) return false;
    for (size_t i = 0; i < n_steps; i++)
        if (!same_step(&steps[i], &row->steps[i])) return false;
    return true;
}

const struct apr_pre_row *apr_pre_find(const struct apr_pre_step *steps, size_t n_steps, bool ignore_merges,
                                       bool add_bos)
{
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        /* llama-bpe implies both; the same pattern without either is another name. */
        bool fits = !rows[i].ignore_merges || ignore_merges || add_bos;
        if (fits && same_steps(&rows[i], steps, n_steps)) return &rows[i];
    }
    return NULL;
}

static bool known_pattern(const char *pattern)
{
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        for (size_t k = 0; k < apr_pre_n_steps(&rows[i]); k++)
            if (strcmp(rows[i].steps[k].pattern, pattern) == 0) return true;
    return false;
}

/* Files spell line ends in a class as characters or as escapes; the table has escapes. */
static const char *canonical(const char *pattern, struct apr_arena *arena)
{
    size_t n = strlen(pattern);
    char *out = apr_arena_get(arena, 2 * n + 1), *at = out;
    for (const char *p = pattern; *p; p++) {
        const char *escape = *p == '\r' ? "\\r" : *p == '\n' ? "\\n" : *p == '\t' ? "\\t" : NULL;
        if (escape) {
            memcpy(at, escape, 2);
            at += 2;
        } else {
            *at++ = *p;
        }
    }
    *at = '\0';
    return out;
}

struct reader {
    struct apr_arena *arena;
    struct apr_pre_step *steps;
    size_t *n_steps;
    const char *file;
    struct apr_err *e;
};

static enum apr_code add(struct reader *r, struct apr_pre_step step)
{
    if (*r->n_steps == APR_PRE_MAX_STEPS)
        return apr_fail(r->e, APR_ELOAD, "%s: $.pre_tokenizer: more than %d steps", r->file,
                        APR_PRE_MAX_STEPS);
    if (step.pattern && !step.literal) step.trusted = known_pattern(step.pattern);
    r->steps[(*r->n_steps)++] = step;
    return APR_OK;
}

static enum apr_code read_how(struct reader *r, const json_t *j, enum apr_split_how *how)
{
    static const char *const names[] = {"Isolated", "Removed", "MergedWithPrevious", "MergedWithNext",
                                        "Contiguous"};
    const char *s = json_string_value(json_object_get(j, "behavior"));
    for (size_t i = 0; s && i < sizeof names / sizeof *names; i++) {
        if (strcmp(s, names[i]) != 0) continue;
        *how = (enum apr_split_how)i;
        return APR_OK;
    }
    return apr_fail(r->e, APR_ELOAD, "%s: $.pre_tokenizer: unknown behavior \"%s\"", r->file, s ? s : "");
}

static bool flag(const json_t *j, const char *key, bool absent)
{
    const json_t *v = json_object_get(j, key);
    return json_is_boolean(v) ? json_is_true(v) : absent;
}

static enum apr_code read_split(struct reader *r, const json_t *j)
{
    struct apr_pre_step step = {.invert = flag(j, "invert", false)};
    const json_t *pattern = json_object_get(j, "pattern");
    const char *regex = json_string_value(json_object_get(pattern, "Regex"));
    const char *plain = json_string_value(json_object_get(pattern, "String"));
    if (!regex && !plain)
        return apr_fail(r->e, APR_EFORMAT, "%s: $.pre_tokenizer: Split without a Regex or String", r->file);
    step.literal = !regex;
    step.pattern = regex ? canonical(regex, r->arena) : apr_arena_strdup(r->arena, plain);
    TRY(read_how(r, j, &step.how));
    return add(r, step);
}

static enum apr_code read_byte_level(struct reader *r, const json_t *j)
{
    struct apr_pre_step step = {.prefix_space = flag(j, "add_prefix_space", true)};
    if (flag(j, "use_regex", true)) step.pattern = GPT2;
    return step.pattern || step.prefix_space ? add(r, step) : APR_OK;
}

static enum apr_code read_digits(struct reader *r, const json_t *j)
{
    return add(r, (struct apr_pre_step){.pattern = flag(j, "individual_digits", false) ? DIGIT : DIGITS});
}

static enum apr_code read_punctuation(struct reader *r, const json_t *j)
{
    struct apr_pre_step step = {.pattern = PUNCT};
    if (json_object_get(j, "behavior")) TRY(read_how(r, j, &step.how));
    return add(r, step);
}

static enum apr_code read_whitespace(struct reader *r, const json_t *j)
{
    (void)j;
    return add(r,
               (struct apr_pre_step){.pattern = "\\w+|[^\\w\\s]+", .how = APR_SPLIT_REMOVED, .invert = true});
}

static enum apr_code read_whitespace_split(struct reader *r, const json_t *j)
{
    (void)j;
    return add(r, (struct apr_pre_step){.pattern = "\\s", .how = APR_SPLIT_REMOVED});
}

static enum apr_code read_any(struct reader *r, const json_t *j, int depth);

static const struct {
    const char *type;
    enum apr_code (*read)(struct reader *r, const json_t *j);
} kinds[] = {
    {"Split", read_split},           {"ByteLevel", read_byte_level},
    {"Digits", read_digits},         {"Punctuation", read_punctuation},
    {"Whitespace", read_whitespace}, {"WhitespaceSplit", read_whitespace_split},
};

static enum apr_code read_any(struct reader *r, const json_t *j, int depth)
{
    const char *type = json_string_value(json_object_get(j, "type"));
    if (!type) return apr_fail(r->e, APR_EFORMAT, "%s: $.pre_tokenizer: no type", r->file);
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
        if (strcmp(kinds[i].type, type) == 0) return kinds[i].read(r, j);
    if (strcmp(type, "Sequence") != 0 || depth > 4)
        return apr_fail(r->e, APR_ELOAD, "%s: $.pre_tokenizer: \"%s\" is not supported for byte-level BPE",
                        r->file, type);
    size_t i;
    const json_t *item;
    json_array_foreach(json_object_get(j, "pretokenizers"), i, item) TRY(read_any(r, item, depth + 1));
    return APR_OK;
}

enum apr_code apr_pre_read(const json_t *pre_tokenizer, struct apr_arena *arena, struct apr_pre_step *steps,
                           size_t *n_steps, const char *file, struct apr_err *e)
{
    *n_steps = 0;
    if (!pre_tokenizer || json_is_null(pre_tokenizer)) return APR_OK;
    struct reader r = {arena, steps, n_steps, file, e};
    return read_any(&r, pre_tokenizer, 0);
}
