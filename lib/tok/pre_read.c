/* $.pre_tokenizer of tokenizer.json -> steps. See apr_pre_read in pre.h. */
#include <string.h>

#include "pre.h"

#define DIGIT  "\\p{N}"
#define DIGITS "\\p{N}+"
#define PUNCT  "[\\p{P}!-/:-@\\[-`{-~]" /* what tokenizers' Punctuation splits at */

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
    bool is_bytes; /* ByteLevel came before */
};

static enum apr_code add(struct reader *r, struct apr_pre_step step)
{
    if (*r->n_steps == APR_PRE_MAX_STEPS)
        return apr_fail(r->e, APR_ELOAD, "%s: $.pre_tokenizer: more than %d steps", r->file,
                        APR_PRE_MAX_STEPS);
    const struct apr_pre_step *known = step.pattern && !step.literal ? apr_pre_known(step.pattern) : NULL;
    step.trusted |= known != NULL;
    step.thousands = known && known->thousands;
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
    if (flag(j, "use_regex", true)) step.pattern = apr_pre_gpt2();
    r->is_bytes = true;
    return step.pattern || step.prefix_space ? add(r, step) : APR_OK;
}

static enum apr_code read_digits(struct reader *r, const json_t *j)
{
    bool one = flag(j, "individual_digits", false);
    /* Behind ByteLevel a step sees the alphabet of bytes, where the digits of other scripts are none. */
    if (r->is_bytes) return add(r, (struct apr_pre_step){.pattern = one ? "[0-9]" : "[0-9]+"});
    return add(r, (struct apr_pre_step){.pattern = one ? DIGIT : DIGITS});
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
               (struct apr_pre_step){
                   .pattern = "\\w+|[^\\w\\s]+", .how = APR_SPLIT_REMOVED, .invert = true, .trusted = true});
}

static enum apr_code read_whitespace_split(struct reader *r, const json_t *j)
{
    (void)j;
    return add(r, (struct apr_pre_step){.pattern = "\\s", .how = APR_SPLIT_REMOVED, .trusted = true});
}

static enum apr_code read_bert(struct reader *r, const json_t *j)
{
    TRY(read_whitespace_split(r, j));
    return add(r, (struct apr_pre_step){.pattern = PUNCT});
}

static enum apr_code read_metaspace(struct reader *r, const json_t *j)
{
    static const char *const schemes[] = {
        [APR_META_NEVER] = "never", [APR_META_FIRST] = "first", [APR_META_ALWAYS] = "always"};
    const char *bar = json_string_value(json_object_get(j, "replacement"));
    const char *scheme = json_string_value(json_object_get(j, "prepend_scheme"));
    struct apr_pre_step step = {.metaspace =
                                    flag(j, "add_prefix_space", true) ? APR_META_ALWAYS : APR_META_NEVER};
    if (bar && strcmp(bar, APR_BAR) != 0)
        return apr_fail(r->e, APR_ELOAD, "%s: $.pre_tokenizer: Metaspace with another mark than U+2581",
                        r->file);
    if (scheme) step.metaspace = APR_META_NONE;
    for (int i = APR_META_NEVER; scheme && i <= APR_META_ALWAYS; i++)
        if (strcmp(scheme, schemes[i]) == 0) step.metaspace = (enum apr_metaspace)i;
    if (step.metaspace == APR_META_NONE)
        return apr_fail(r->e, APR_ELOAD, "%s: $.pre_tokenizer: Metaspace with an unknown prepend_scheme",
                        r->file);
    if (flag(j, "split", true)) {
        step.pattern = APR_BAR;
        step.literal = true;
        step.how = APR_SPLIT_WITH_NEXT;
    }
    return add(r, step);
}

static enum apr_code read_any(struct reader *r, const json_t *j, int depth);

static const struct {
    const char *type;
    enum apr_code (*read)(struct reader *r, const json_t *j);
} kinds[] = {
    {"Split", read_split},           {"ByteLevel", read_byte_level},
    {"Digits", read_digits},         {"Punctuation", read_punctuation},
    {"Whitespace", read_whitespace}, {"WhitespaceSplit", read_whitespace_split},
    {"Metaspace", read_metaspace},   {"BertPreTokenizer", read_bert},
};

static enum apr_code read_any(struct reader *r, const json_t *j, int depth)
{
    const char *type = json_string_value(json_object_get(j, "type"));
    if (!type) return apr_fail(r->e, APR_EFORMAT, "%s: $.pre_tokenizer: no type", r->file);
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
        if (strcmp(kinds[i].type, type) == 0) return kinds[i].read(r, j);
    char shown[80];
    if (strcmp(type, "Sequence") != 0 || depth > 4)
        return apr_fail(r->e, APR_ELOAD, "%s: $.pre_tokenizer: \"%s\" is not supported", r->file,
                        apr_escape(shown, sizeof shown, type, strlen(type)));
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
    struct reader r = {arena, steps, n_steps, file, e, false};
    return read_any(&r, pre_tokenizer, 0);
}
