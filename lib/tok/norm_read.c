/* $.normalizer of tokenizer.json -> steps. See apr_norm_read in norm.h. */
#include <string.h>

#include "norm.h"

struct reader {
    struct apr_arena *arena;
    struct apr_norm *out;
    const char *file;
    struct apr_err *e;
};

static enum apr_code add(struct reader *r, struct apr_norm_step step)
{
    if (r->out->n_steps == APR_NORM_MAX_STEPS) {
        apr_regex_close(step.regex);
        return apr_fail(r->e, APR_ELOAD, "%s: $.normalizer: more than %d steps", r->file, APR_NORM_MAX_STEPS);
    }
    r->out->steps[r->out->n_steps++] = step;
    return APR_OK;
}

static bool flag(const json_t *j, const char *key, bool absent)
{
    const json_t *v = json_object_get(j, key);
    return json_is_boolean(v) ? json_is_true(v) : absent;
}

static struct apr_str text_of(struct reader *r, const char *s)
{
    return (struct apr_str){apr_arena_strdup(r->arena, s), strlen(s)};
}

static enum apr_code read_plain(struct reader *r, const json_t *j, enum apr_norm_op op)
{
    (void)j;
    return add(r, (struct apr_norm_step){.op = op});
}

static enum apr_code read_prepend(struct reader *r, const json_t *j, enum apr_norm_op op)
{
    const char *a = json_string_value(json_object_get(j, "prepend"));
    if (!a) return apr_fail(r->e, APR_EFORMAT, "%s: $.normalizer: Prepend without its text", r->file);
    return add(r, (struct apr_norm_step){.op = op, .a = text_of(r, a)});
}

static enum apr_code read_replace(struct reader *r, const json_t *j, enum apr_norm_op op)
{
    const json_t *pattern = json_object_get(j, "pattern");
    const char *plain = json_string_value(json_object_get(pattern, "String"));
    const char *regex = json_string_value(json_object_get(pattern, "Regex"));
    const char *b = json_string_value(json_object_get(j, "content"));
    if ((!plain || !*plain) && !regex)
        return apr_fail(r->e, APR_EFORMAT, "%s: $.normalizer: Replace needs a String or Regex pattern",
                        r->file);
    if (!b) return apr_fail(r->e, APR_EFORMAT, "%s: $.normalizer: Replace without content", r->file);
    struct apr_norm_step step = {.op = op, .b = text_of(r, b)};
    if (plain) step.a = text_of(r, plain);
    if (plain) return add(r, step);
    step.op = APR_NORM_REPLACE_RUNS;
    if (strcmp(regex, " {2,}") == 0) return add(r, step);
    step.op = APR_NORM_REPLACE_REGEX;
    TRY(apr_regex_open(&step.regex, regex, false, false, r->file, r->e));
    return add(r, step);
}

static enum apr_code read_strip(struct reader *r, const json_t *j, enum apr_norm_op op)
{
    return add(r, (struct apr_norm_step){
                      .op = op, .left = flag(j, "strip_left", true), .right = flag(j, "strip_right", true)});
}

static enum apr_code read_bert(struct reader *r, const json_t *j, enum apr_norm_op op)
{
    bool lower = flag(j, "lowercase", true);
    bool accents = flag(j, "strip_accents", lower); /* null: as lowercase says */
    if (flag(j, "clean_text", true)) TRY(add(r, (struct apr_norm_step){.op = APR_NORM_CLEAN}));
    if (flag(j, "handle_chinese_chars", true)) TRY(add(r, (struct apr_norm_step){.op = APR_NORM_SPACE_CJK}));
    if (accents) TRY(add(r, (struct apr_norm_step){.op = APR_NORM_NFD}));
    if (accents) TRY(add(r, (struct apr_norm_step){.op = APR_NORM_DROP_ACCENTS}));
    return lower ? add(r, (struct apr_norm_step){.op = op}) : APR_OK;
}

static enum apr_code read_charsmap(struct reader *r, const json_t *j, enum apr_norm_op op)
{
    const json_t *text = json_object_get(j, "precompiled_charsmap");
    struct apr_charsmap *map = apr_arena_get(r->arena, sizeof *map);
    if (json_is_null(text)) return APR_OK; /* an empty map is written so */
    if (!json_is_string(text))
        return apr_fail(r->e, APR_EFORMAT, "%s: $.normalizer: Precompiled without its map", r->file);
    TRY(apr_charsmap_open_base64(map, json_string_value(text), json_string_length(text), r->arena, r->file,
                                 r->e));
    return map->n_units > 0 ? add(r, (struct apr_norm_step){.op = op, .map = map}) : APR_OK;
}

static const struct {
    const char *type;
    enum apr_norm_op op;
    enum apr_code (*read)(struct reader *r, const json_t *j, enum apr_norm_op op);
} kinds[] = {
    {"NFC", APR_NORM_NFC, read_plain},
    {"NFD", APR_NORM_NFD, read_plain},
    {"NFKC", APR_NORM_NFKC, read_plain},
    {"NFKD", APR_NORM_NFKD, read_plain},
    {"Lowercase", APR_NORM_LOWER, read_plain},
    {"StripAccents", APR_NORM_DROP_MARKS, read_plain},
    {"Nmt", APR_NORM_NMT, read_plain},
    {"Prepend", APR_NORM_PREPEND, read_prepend},
    {"Replace", APR_NORM_REPLACE, read_replace},
    {"Strip", APR_NORM_STRIP, read_strip},
    {"BertNormalizer", APR_NORM_LOWER, read_bert},
    {"Precompiled", APR_NORM_CHARSMAP, read_charsmap},
};

static enum apr_code read_any(struct reader *r, const json_t *j, int depth)
{
    const char *type = json_string_value(json_object_get(j, "type"));
    if (!type) return apr_fail(r->e, APR_EFORMAT, "%s: $.normalizer: no type", r->file);
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
        if (strcmp(kinds[i].type, type) == 0) return kinds[i].read(r, j, kinds[i].op);
    char shown[80];
    if (strcmp(type, "Sequence") != 0 || depth > 4)
        return apr_fail(r->e, APR_ELOAD, "%s: $.normalizer: \"%s\" is not supported", r->file,
                        apr_escape(shown, sizeof shown, type, strlen(type)));
    size_t i;
    const json_t *item;
    json_array_foreach(json_object_get(j, "normalizers"), i, item) TRY(read_any(r, item, depth + 1));
    return APR_OK;
}

enum apr_code apr_norm_read(const json_t *normalizer, struct apr_arena *arena, struct apr_norm *out,
                            const char *file, struct apr_err *e)
{
    *out = (struct apr_norm){0};
    if (!normalizer || json_is_null(normalizer)) return APR_OK;
    struct reader r = {arena, out, file, e};
    enum apr_code code = read_any(&r, normalizer, 0);
    if (code != APR_OK) apr_norm_close(out);
    return code;
}
