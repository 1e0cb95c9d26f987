/* Strings: lengths, patterns, formats. */
#include <string.h>

#include "schema_in.h"

#define DATE                                                                                                 \
    "(?:(?:000[1-9]|00[1-9]\\d|0[1-9]\\d\\d|[1-9]\\d{3})-"                                                   \
    "(?:(?:0[13578]|1[02])-(?:0[1-9]|[12]\\d|3[01])|(?:0[469]|11)-(?:0[1-9]|[12]\\d|30)|"                    \
    "02-(?:0[1-9]|1\\d|2[0-8])))"
#define CLOCK "(?:[01]\\d|2[0-3]):[0-5]\\d"
#define TIME  CLOCK ":[0-5]\\d(?:\\.\\d{1,6})?(?:Z|[+-]" CLOCK ")"
#define OCTET "(?:\\d|[1-9]\\d|1\\d\\d|2[0-4]\\d|25[0-5])"
#define HEX4  "[0-9a-fA-F]{4}"

/* RFC 3339 for dates and times (29 February is left out: it needs a leap year), RFC 4122 for uuid. */
static const struct {
    const char *name, *regex;
} formats[] = {
    {"date", "^" DATE "$"},
    {"time", "^" TIME "$"},
    {"date-time", "^" DATE "T" TIME "$"},
    {"uuid", "^" HEX4 HEX4 "-" HEX4 "-" HEX4 "-" HEX4 "-" HEX4 HEX4 HEX4 "$"},
    {"ipv4", "^" OCTET "\\." OCTET "\\." OCTET "\\." OCTET "$"},
};

static enum apr_code by_format(struct apr_sch *s, const char *name, const struct apr_sch_path *at,
                               const struct apr_expr **x, struct apr_err *e)
{
    for (size_t i = 0; i < sizeof formats / sizeof *formats; i++)
        if (!strcmp(formats[i].name, name)) return apr_sch_pattern(s, formats[i].regex, at, x, e);
    return apr_sch_refuse(
        s, at, e, "format \"%.40s\" is not supported; these are: date time date-time uuid ipv4", name);
}

static enum apr_code by_length(struct apr_sch *s, const json_t *schema, const struct apr_sch_path *at,
                               const struct apr_expr **x, struct apr_err *e)
{
    uint32_t min = 0, max = APR_NO_LIMIT;
    TRY(apr_sch_count(s, schema, "minLength", at, &min, e));
    TRY(apr_sch_count(s, schema, "maxLength", at, &max, e));
    if (min > max) return apr_sch_malformed(s, at, e, "minLength %u is more than maxLength %u", min, max);
    if (min > APR_SCH_MAX_COUNT)
        return apr_sch_refuse(s, at, e, "minLength is more than %u", APR_SCH_MAX_COUNT);
    if (max != APR_NO_LIMIT && max > APR_SCH_MAX_COUNT) max = APR_SCH_MAX_COUNT;
    *x = apr_ex_repeat(s->r, s->c.character, min, max);
    return APR_OK;
}

enum apr_code apr_sch_string(struct apr_sch *s, const json_t *schema, const struct apr_sch_path *at,
                             const struct apr_expr **x, struct apr_err *e)
{
    const json_t *pattern = json_object_get(schema, "pattern"), *format = json_object_get(schema, "format");
    bool lengths = json_object_get(schema, "minLength") || json_object_get(schema, "maxLength");
    const struct apr_sch_path in = apr_sch_key(at, pattern ? "pattern" : "format");
    const struct apr_expr *inside, *quote = apr_ex_text(s->r, "\"");
    if ((pattern != NULL) + (format != NULL) + lengths > 1)
        return apr_sch_refuse(s, at, e, "pattern, format and lengths of one string cannot be combined");
    if (pattern)
        TRY(apr_sch_pattern(s, json_string_value(pattern), &in, &inside, e));
    else if (format)
        TRY(by_format(s, json_string_value(format), &in, &inside, e));
    else
        TRY(by_length(s, schema, at, &inside, e));
    *x = apr_sch_rule(s, apr_ex_seq2(s->r, quote, apr_ex_seq2(s->r, inside, quote)));
    return APR_OK;
}
