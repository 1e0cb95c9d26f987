/* See pre.h. The patterns are those of the models' published tokenizer.json files, in their spelling. */
#include "pre.h"

#include <string.h>

#include "words.h"

#define CONTRACTIONS APR_PATTERN_CONTRACTIONS
#define SPACES       APR_PATTERN_SPACES
#define PUNCTUATION  APR_PATTERN_PUNCTUATION
#define WORD         APR_PATTERN_WORD
#define UPPER        "[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]"
#define LOWER        "[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]"

#define GPT2   APR_PATTERN_GPT2
#define QWEN2  APR_PATTERN_QWEN2
#define LLAMA3 APR_PATTERN_LLAMA3
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

/* Cased letters, as DeepSeek's files list them. */
#define CASED                                                                                                \
    "A-Za-zµÀ-ÖØ-öø-ƺƼ-ƿǄ-ʓʕ-ʯͰ-ͳͶͷͻ-ͽͿΆΈ-ΊΌΎ"                                      \
    "-ΡΣ-ϵϷ-ҁҊ-ԯԱ-ՖႠ-ჅᎠ-Ᏽᏸ-ᏽᲐ-ᲺᲽ-Ჿᴀ-ᴫᵫ-ᵷᵹ-ᶚḀ-"                    \
    "ἕἘ-Ἕἠ-ὅὈ-Ὅὐ-ὗὙὛὝὟ-ώᾀ-ᾴᾶ-ᾼιῂ-ῄῆ-ῌῐ-ΐῖ-Ίῠ-"       \
    "Ῥῲ-ῴῶ-ῼℂℇℊ-ℓℕℙ-ℝℤΩℨK-ℭℯ-ℴℹℼ-ℿⅅ-ⅉⅎↃↄⰀ-ⱻⱾ-"   \
    "ⳤⳫ-ⳮⳲⳳꙀ-ꙭꚀ-ꚛꜢ-ꝯꝱ-ꞇꞋ-ꞎꭰ-ꮿﬀ-ﬆﬓ-ﬗＡ-Ｚａ-ｚ𐐀-𐑏𐒰"    \
    "-𐓓𐓘-𐓻𐲀-𐲲𐳀-𐳲𑢠-𑣟𞤀-𞥃"
#define ASIAN_PUNCT "!-/:-~！-／：-～‘-‟　-。"
/* Scripts that are written without blanks. */
#define UNSPACED                                                                                             \
    "一-鿿㐀-䶿豈-﫿぀-ゟ゠-ヿ･-ﾟ⼀-⿟เ-๿຀-໿ក-៿က-႟ꩠ-ꩿꧠ-꧿가"         \
    "-힯ᄀ-ᇿ"
#define WIDE_HANGUL                                                                                          \
    "[가-힣ㄱ-ㆎ]+|[！…“”‘’—：；，、-〿︰-﹏]+|[ㄅ-ㄯ]+|[一-龥぀-ゟ゠-ヿ]+"
#define BLOOM " ?[^(\\s|.,!?…。，、।۔،)]+"
/* Groups of three counted from the end of the number; run by code (struct apr_pre_step). */
#define THOUSANDS      "\\p{N}{1,3}(?=(?:\\p{N}{3})*(?!\\p{N}))"
#define THOUSANDS_WORD "\\d{1,3}(?=(?:\\d{3})*\\b)"
#define JAIS2                                                                                                \
    CONTRACTIONS                                                                                             \
    "|" WORD "|\\p{N}{1,3}" PUNCTUATION                                                                      \
    "|\\s*[\\r\\n]+|\\s{512}(?!\\S)|\\s{256}(?!\\S)|\\s{128}(?!\\S)|\\s{64}(?!\\S)|\\s{32}(?!\\S)"           \
    "|\\s{16}(?!\\S)|\\s{8}(?!\\S)|\\s{4}(?!\\S)|\\s{1,2}(?!\\S)|\\s{1}"
#define SPARK                                                                                                \
    "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\\r\\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+"      \
    "| ?[\\p{P}\\p{S}]+|[\\r\\n]|\\s+(?!\\S)|\\s+"
#define GPT4O_ONE_DIGIT                                                                                      \
    "[^\\r\\n\\p{L}\\p{N}]?" UPPER "*" LOWER "+" CONTRACTIONS "?|[^\\r\\n\\p{L}\\p{N}]?" UPPER "+" LOWER     \
    "*" CONTRACTIONS "?|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*" SPACES
#define NOT_HAN "(?:(?!\\p{Han})"
#define KIMI                                                                                                 \
    "[\\p{Han}]+|[^\\r\\n\\p{L}\\p{N}]?" NOT_HAN UPPER ")*" NOT_HAN LOWER ")+" CONTRACTIONS                  \
    "?|[^\\r\\n\\p{L}\\p{N}]?" NOT_HAN UPPER ")+" NOT_HAN LOWER ")*" CONTRACTIONS                            \
    "?|\\p{N}{1,3}" PUNCTUATION SPACES
#define EXAONE_MOE                                                                                           \
    CONTRACTIONS "|[^\\r\\n\\p{L}\\p{N}]?(?:\\p{L}\\p{M}*(?: \\p{L}\\p{M}*)*)+|\\p{N}| ?[^\\s\\p{L}\\p{N}]+" \
                 "[\\r\\n/]?|\\s*[\\r\\n]|\\s+(?!\\S)|\\s+"

#define ISOLATED(p)                                                                                          \
    {                                                                                                        \
        .pattern = (p)                                                                                       \
    }

#define GROUPED(p)                                                                                           \
    {                                                                                                        \
        .pattern = (p), .thousands = true                                                                    \
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
               ISOLATED("[0-9]+"),
               ISOLATED("[0-9][0-9][0-9]")}},
    {.names = "qwen35", .steps = {ISOLATED(QWEN35)}},
    {.names = "gpt-4o llama4 kanana2 talkie minimax-m2", .steps = {ISOLATED(GPT4O)}},
    {.names = "tekken", .steps = {ISOLATED(TEKKEN)}, .ignore_merges = true, .add_bos = true},
    {.names = "bailingmoe bailingmoe2 llada-moe", .steps = {ISOLATED(BAILING)}},
    {.names = "seed-coder", .steps = {ISOLATED(SEED_CODER)}},
    {.names = "deepseek-llm",
     .steps = {ISOLATED("[\\r\\n]"), ISOLATED("\\s?[" CASED "]+"), ISOLATED("\\s?[" ASIAN_PUNCT "]+"),
               ISOLATED("\\s+$"), ISOLATED(CJK_HANGUL), ISOLATED(DIGIT)}},
    {.names = "poro-chat bloom gpt3-finnish", .steps = {ISOLATED(BLOOM)}},
    {.names = "viking", .steps = {ISOLATED(BLOOM), ISOLATED(DIGIT)}},
    {.names = "jais-2", .steps = {ISOLATED(JAIS2)}},
    {.names = "kimi-k2", .steps = {ISOLATED(KIMI)}},
    {.names = "chameleon",
     .steps = {ISOLATED("<sentinel:[0-9]+>"), ISOLATED("(IMGIMG)((A|B|C|D|E|F|G|H|I){1,4})Z"),
               ISOLATED("([\\t\\n]|    |  )"), ISOLATED(DIGIT), ISOLATED(PUNCT), ISOLATED(GPT2)},
     .add_bos = true},
    {.names = "superbpe", .steps = {GROUPED(THOUSANDS)}},
    {.names = "afmoe", .steps = {GROUPED(THOUSANDS), ISOLATED("[" UNSPACED "]+"), ISOLATED(DEEPSEEK3)}},
    {.names = "tiny_aya cohere2moe", .steps = {GROUPED(THOUSANDS_WORD), ISOLATED(GPT4O)}},
    {.names = "granite-embed-multi-97m", .steps = {ISOLATED(GPT4O)}, .ignore_merges = true},
    {.names = "youtu", .steps = {ISOLATED(WIDE_HANGUL), ISOLATED(GPT4O_ONE_DIGIT)}, .ignore_merges = true},
    {.names = "exaone-moe", .steps = {ISOLATED(EXAONE_MOE)}},
    {.names = "spark2_5",
     .steps = {ISOLATED("\\p{N}{1,3}"), ISOLATED(CJK_KANA), ISOLATED(SPARK), ISOLATED(DIGIT)}},
    {.names = "minicpm5",
     .steps = {ISOLATED("\\p{N}{1,3}"), ISOLATED(CONTRACTIONS "|" WORD "|\\p{N}+" PUNCTUATION SPACES)},
     .ignore_merges = true},
    {.names = "ufakzeka", .steps = {ISOLATED(WORD "|\\p{N}" PUNCTUATION SPACES)}},
    {.names = "laguna", .steps = {ISOLATED("[^\\n]+|[\\n]+"), ISOLATED(QWEN2)}},
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
           a->literal == b->literal && a->prefix_space == b->prefix_space && a->metaspace == b->metaspace;
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

const struct apr_pre_step *apr_pre_known(const char *pattern)
{
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        for (size_t k = 0; k < apr_pre_n_steps(&rows[i]); k++)
            if (strcmp(rows[i].steps[k].pattern, pattern) == 0) return &rows[i].steps[k];
    return NULL;
}

const char *apr_pre_gpt2(void)
{
    return GPT2;
}
