#include "model_id.h"

#include <ctype.h>
#include <math.h>
#include <regex.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#define MAX_PARTS 64

enum { IS_VERSION = 1, IS_TYPE = 2, IS_SIZE = 4, IS_FINETUNE = 8, IS_BASENAME = 16 };

struct part {
    char *text;
    unsigned is;
};

static const char *const patterns[] = {
    "^(v|iter)?[0-9]+([.][0-9]+)*$",
    "^(i?q[0-9](_[[:alnum:]_])*|b?fp?(16|32))$",
    "^((a|[0-9]+x)?[0-9]+([._][0-9]+)?[kmbt][0-9]?|small|mini|medium|large|x?xl)$",
    "^(chat|instruct|vision|lora)$",
};
enum { RE_VERSION, RE_TYPE, RE_SIZE, RE_FINETUNE, N_RES };

static bool matches(const regex_t *re, const char *s)
{
    return regexec(re, s, 0, NULL, 0) == 0;
}

static bool has_digit(const char *s)
{
    for (; *s; s++)
        if (isdigit((unsigned char)*s)) return true;
    return false;
}

static bool is_alpha_word(const char *s)
{
    for (; *s; s++)
        if (!isalpha((unsigned char)*s)) return false;
    return true;
}

/* "7b" -> "7B"; "7b1" (an old spelling of 7.1b) -> "7.1B"; "_" is a decimal point. */
static char *normal_size(struct apr_arena *a, const char *part)
{
    char *s = apr_arena_strdup(a, part);
    for (char *p = s; *p; p++)
        if (*p == '_') *p = '.';
    size_t n = strlen(s);
    if (n >= 3 && isdigit((unsigned char)s[n - 1]))
        s = apr_arena_printf(a, "%.*s.%c%c", (int)(n - 2), s, s[n - 1], s[n - 2]);
    n = strlen(s);
    if (n > 1 && isdigit((unsigned char)s[n - 2])) s[n - 1] = (char)toupper((unsigned char)s[n - 1]);
    return s;
}

/* A size that is off by more than 7/8 of the real one is something else: a context length, say. */
static bool size_disagrees(const char *s, uint64_t n_params)
{
    size_t n = strlen(s);
    char *end;
    double v = strtod(s, &end);
    if (n_params == 0 || end == s || end != s + n - 1) return false;
    const char *scale = strchr("KMBT", s[n - 1]);
    if (!scale) return false;
    double label = v * pow(1000, (double)(scale - "KMBT" + 1));
    return fabs(label - (double)n_params) > 7.0 * (double)n_params / 8.0;
}

static void annotate(struct apr_arena *a, const regex_t *re, struct part *p, size_t n, uint64_t n_params)
{
    for (size_t i = 0; i < n; i++) {
        if (matches(&re[RE_VERSION], p[i].text)) {
            p[i].is = IS_VERSION;
        } else if (matches(&re[RE_TYPE], p[i].text)) {
            p[i].is = IS_TYPE;
        } else if (i > 0 && matches(&re[RE_SIZE], p[i].text)) {
            p[i].text = normal_size(a, p[i].text);
            size_t last = strlen(p[i].text) - 1;
            p[i].is = IS_SIZE;
            if (!size_disagrees(p[i].text, n_params)) continue;
            p[i].is = IS_FINETUNE;
            p[i].text[last] = (char)tolower((unsigned char)p[i].text[last]);
        } else if (i > 0 && matches(&re[RE_FINETUNE], p[i].text)) {
            p[i].is = IS_FINETUNE;
        }
    }
    bool numbered = false;
    for (size_t i = 0; i < n; i++) numbered |= (p[i].is & IS_SIZE) && has_digit(p[i].text);
    for (size_t i = 0; i < n && numbered; i++)
        if ((p[i].is & IS_SIZE) && is_alpha_word(p[i].text)) p[i].is &= ~(unsigned)IS_SIZE;
}

/* Leading words and versions are the basename; a word later that nothing explains is a finetune. */
static void find_basename(struct part *p, size_t n)
{
    bool at_start = true;
    for (size_t i = 0; i < n; i++) {
        bool word = p[i].is == 0 && isalpha((unsigned char)p[i].text[0]);
        if (at_start && (word || (p[i].is & IS_VERSION))) {
            p[i].is |= IS_BASENAME;
            continue;
        }
        at_start = false;
        if (p[i].is == 0) p[i].is = IS_FINETUNE;
    }
    for (size_t i = n; i-- > 0;) {
        if (!(p[i].is & IS_BASENAME) || p[i].is == IS_BASENAME) break;
        p[i].is &= ~(unsigned)IS_BASENAME;
    }
}

static const char *join(struct apr_arena *a, const struct part *p, size_t n, unsigned with, unsigned without,
                        bool once)
{
    const char *s = NULL;
    for (size_t i = 0; i < n; i++) {
        if (!(p[i].is & with) || (p[i].is & without)) continue;
        bool seen = false;
        for (size_t k = 0; k < i && once; k++) seen |= (p[k].is & with) && strcmp(p[k].text, p[i].text) == 0;
        if (!seen) s = s ? apr_arena_printf(a, "%s-%s", s, p[i].text) : p[i].text;
    }
    return s;
}

static size_t split(struct apr_arena *a, const char *id, struct part *p)
{
    size_t n = 0;
    for (const char *s = id; *s && n < MAX_PARTS;) {
        size_t n_bytes = strcspn(s, "-");
        if (n_bytes > 0) p[n++] = (struct part){.text = apr_arena_strndup(a, s, n_bytes)};
        s += n_bytes + (s[n_bytes] == '-');
    }
    return n;
}

struct model_id model_id_parse(struct apr_arena *a, const char *id, uint64_t n_params)
{
    struct model_id out = {.full = id};
    if (!id || strchr(id, ' ')) return out; /* a sentence, not an id */
    const char *slash = strchr(id, '/');
    if (slash) {
        out.full = slash + 1;
        if (slash > id && id[0] != '.') out.organization = apr_arena_strndup(a, id, (size_t)(slash - id));
    }
    regex_t re[N_RES];
    for (size_t i = 0; i < N_RES; i++)
        if (regcomp(&re[i], patterns[i], REG_EXTENDED | REG_ICASE | REG_NOSUB) != 0) {
            while (i-- > 0) regfree(&re[i]);
            return out;
        }
    struct part parts[MAX_PARTS];
    size_t n = split(a, out.full, parts);
    annotate(a, re, parts, n, n_params);
    for (size_t i = 0; i < N_RES; i++) regfree(&re[i]);
    find_basename(parts, n);
    out.basename = join(a, parts, n, IS_BASENAME, 0, false);
    out.size_label = join(a, parts, n, IS_SIZE, 0, true);
    out.finetune = join(a, parts, n, IS_FINETUNE, 0, false);
    out.version = join(a, parts, n, IS_VERSION, IS_BASENAME, false);
    if (!out.size_label && !out.finetune && !out.version) out.basename = NULL; /* too ambiguous */
    return out;
}

/* A word with capitals keeps them; one that starts as a number or a version ("v0.2") stays as it is. */
static bool keeps_case(const char *w, size_t n)
{
    bool lower = false;
    for (size_t i = 0; i < n; i++) {
        if (isupper((unsigned char)w[i])) return true;
        lower |= islower((unsigned char)w[i]) != 0;
    }
    if (!lower || isdigit((unsigned char)w[0])) return true;
    if (w[0] != 'v' || n < 2 || !isdigit((unsigned char)w[1])) return false;
    for (size_t i = 1; i < n; i++)
        if (!isdigit((unsigned char)w[i]) && w[i] != '.') return false;
    return true;
}

const char *model_id_title(struct apr_arena *a, const char *id)
{
    char *s = apr_arena_strdup(a, id), *to = s;
    for (const char *w = id; *w;) {
        w += strspn(w, "- \t\n\r");
        size_t n = strcspn(w, "- \t\n\r");
        if (n == 0) break;
        if (to != s) *to++ = ' ';
        bool keep = keeps_case(w, n), in_word = false;
        for (size_t i = 0; i < n; i++) {
            *to++ = keep || in_word ? w[i] : (char)toupper((unsigned char)w[i]);
            in_word = isalpha((unsigned char)w[i]) != 0;
        }
        w += n;
    }
    *to = '\0';
    return s;
}

const char *model_id_size(struct apr_arena *a, uint64_t n_params)
{
    static const struct {
        double above;
        char suffix;
    } scales[] = {{1e12, 'T'}, {1e9, 'B'}, {1e6, 'M'}};
    double v = (double)n_params;
    for (size_t i = 0; i < sizeof scales / sizeof *scales; i++)
        if (v > scales[i].above) {
            v /= scales[i].above;
            return apr_arena_printf(a, nearbyint(v) < 10 ? "%.1f%c" : "%.0f%c", v, scales[i].suffix);
        }
    return apr_arena_printf(a, nearbyint(v / 1e3) < 10 ? "%.1fK" : "%.0fK", v / 1e3);
}
