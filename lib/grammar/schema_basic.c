/* What every schema uses: white space, characters, free values; and values given as they are. */
#include <string.h>

#include "../json.h"
#include "schema_in.h"

#define MAX_VALUE_BYTES (1u << 20)
#define MAX_INDENT      24u

static const struct apr_expr *one_of(struct apr_sch *s, const char *chars)
{
    struct apr_range at[16];
    size_t n = strnlen(chars, sizeof at / sizeof *at);
    for (size_t i = 0; i < n; i++) at[i] = (struct apr_range){(uint8_t)chars[i], (uint8_t)chars[i]};
    return apr_ex_class(s->r, at, n, false);
}

static const struct apr_expr *between(struct apr_sch *s, uint32_t lo, uint32_t hi)
{
    return apr_ex_class(s->r, &(struct apr_range){lo, hi}, 1, false);
}

static const struct apr_expr *optional(struct apr_sch *s, const struct apr_expr *x)
{
    return apr_ex_repeat(s->r, x, 0, 1);
}

#define SEQ(s, ...)                                                                                          \
    apr_ex_seq((s)->r, (const struct apr_expr *const[]){__VA_ARGS__},                                        \
               sizeof((const struct apr_expr *const[]){__VA_ARGS__}) / sizeof(const struct apr_expr *))
#define ALT(s, ...)                                                                                          \
    apr_ex_alt((s)->r, (const struct apr_expr *const[]){__VA_ARGS__},                                        \
               sizeof((const struct apr_expr *const[]){__VA_ARGS__}) / sizeof(const struct apr_expr *))
#define TEXT(s, t) apr_ex_text((s)->r, t)

/* Nothing, a blank, or a line end with an indent. */
static const struct apr_expr *white_space(struct apr_sch *s)
{
    const struct apr_expr *blanks = apr_ex_repeat(s->r, TEXT(s, " "), 0, MAX_INDENT);
    const struct apr_expr *tabs = apr_ex_repeat(s->r, TEXT(s, "\t"), 1, MAX_INDENT / 2);
    return apr_sch_rule(
        s, ALT(s, apr_ex_empty(s->r), TEXT(s, " "), SEQ(s, TEXT(s, "\n"), ALT(s, blanks, tabs))));
}

/* One character of a string: as it is, or escaped; \u gives no NUL and no half of a pair. */
static const struct apr_expr *character(struct apr_sch *s)
{
    static const struct apr_range not_plain[] = {{0, 0x1f}, {'"', '"'}, {'\\', '\\'}};
    static const struct apr_range hex[] = {{'0', '9'}, {'a', 'f'}, {'A', 'F'}};
    static const struct apr_range not_zero[] = {{'1', '9'}, {'a', 'f'}, {'A', 'F'}};
    static const struct apr_range high[] = {{'1', '9'}, {'a', 'c'}, {'A', 'C'}, {'e', 'f'}, {'E', 'F'}};
    const struct apr_expr *h = apr_ex_class(s->r, hex, 3, false), *z = apr_ex_class(s->r, not_zero, 3, false);
    const struct apr_expr *units =
        ALT(s, SEQ(s, TEXT(s, "000"), z), SEQ(s, TEXT(s, "00"), z, h), SEQ(s, TEXT(s, "0"), z, h, h),
            SEQ(s, apr_ex_class(s->r, high, 5, false), h, h, h),
            SEQ(s, one_of(s, "dD"), between(s, '0', '7'), h, h));
    const struct apr_expr *escaped = ALT(s, one_of(s, "\"\\/bfnrt"), SEQ(s, TEXT(s, "u"), units));
    return apr_sch_rule(s, ALT(s, apr_ex_class(s->r, not_plain, 3, true), SEQ(s, TEXT(s, "\\"), escaped)));
}

/* Digits so few that every reader has the number exactly. */
static void numbers(struct apr_sch *s)
{
    const struct apr_expr *digit = between(s, '0', '9');
    const struct apr_expr *whole =
        ALT(s, TEXT(s, "0"), SEQ(s, between(s, '1', '9'), apr_ex_repeat(s->r, digit, 0, 14)));
    const struct apr_expr *fraction = SEQ(s, TEXT(s, "."), apr_ex_repeat(s->r, digit, 1, 15));
    const struct apr_expr *power =
        SEQ(s, one_of(s, "eE"), optional(s, one_of(s, "+-")), apr_ex_repeat(s->r, digit, 1, 2));
    s->c.integer = apr_sch_rule(s, SEQ(s, optional(s, TEXT(s, "-")), whole));
    s->c.number = apr_sch_rule(s, SEQ(s, s->c.integer, optional(s, fraction), optional(s, power)));
}

void apr_sch_common(struct apr_sch *s)
{
    struct apr_sch_common *c = &s->c;
    c->ws = white_space(s);
    c->character = character(s);
    c->string = apr_sch_rule(
        s, SEQ(s, TEXT(s, "\""), apr_ex_repeat(s->r, c->character, 0, APR_NO_LIMIT), TEXT(s, "\"")));
    numbers(s);
    c->boolean = apr_sch_rule(s, ALT(s, TEXT(s, "true"), TEXT(s, "false")));
    c->null = TEXT(s, "null");
    uint32_t value = apr_rules_add(s->r, "(any value)", NULL);
    c->value = apr_ex_rule(s->r, value);
    const struct apr_expr *comma = SEQ(s, TEXT(s, ","), c->ws);
    const struct apr_expr *member = SEQ(s, c->string, TEXT(s, ":"), c->ws, c->value);
    const struct apr_expr *members =
        SEQ(s, member, apr_ex_repeat(s->r, SEQ(s, comma, member), 0, APR_NO_LIMIT), c->ws);
    const struct apr_expr *items =
        SEQ(s, c->value, apr_ex_repeat(s->r, SEQ(s, comma, c->value), 0, APR_NO_LIMIT), c->ws);
    c->object = apr_sch_rule(s, SEQ(s, TEXT(s, "{"), c->ws, optional(s, members), TEXT(s, "}")));
    c->array = apr_sch_rule(s, SEQ(s, TEXT(s, "["), c->ws, optional(s, items), TEXT(s, "]")));
    s->r->at[value].body = ALT(s, c->object, c->array, c->string, c->number, c->boolean, c->null);
}

enum apr_code apr_sch_quoted(struct apr_sch *s, const char *text, const struct apr_expr **x,
                             struct apr_err *e)
{
    struct apr_buf b;
    apr_buf_init(&b, MAX_VALUE_BYTES);
    enum apr_code code = apr_json_put_str(&b, text, strlen(text), e);
    if (code == APR_OK) *x = apr_ex_bytes(s->r, b.data, b.n_bytes);
    apr_buf_free(&b);
    return code;
}

enum apr_code apr_sch_values(struct apr_sch *s, const json_t *values, unsigned types,
                             const struct apr_sch_path *at, const struct apr_expr **x, struct apr_err *e)
{
    size_t n = 0;
    struct apr_word *words = apr_arena_get(s->r->arena, json_array_size(values) * sizeof *words);
    for (size_t i = 0; i < json_array_size(values); i++) {
        const json_t *v = json_array_get(values, i);
        struct apr_buf b;
        if (!(apr_sch_type_of(v) & types)) continue;
        apr_buf_init(&b, MAX_VALUE_BYTES);
        enum apr_code code = apr_json_dump(v, false, &b, e);
        if (code == APR_OK) {
            const struct apr_expr *text = apr_ex_bytes(s->r, b.data, b.n_bytes);
            words[n++] = (struct apr_word){text->bytes, text->n};
        }
        apr_buf_free(&b);
        if (code != APR_OK) return code;
    }
    if (!n) return apr_sch_malformed(s, at, e, "none of the values has a type that is allowed");
    *x = apr_ex_words(s->r, words, n);
    return APR_OK;
}
