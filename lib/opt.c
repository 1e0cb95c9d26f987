/* Rows become getopt_long's table; values are stored by offset. */
#include "opt.h"

#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "buf.h"
#include "ckd.h"

#define BASE_VAL  1024 /* getopt's val of row 0: above every short name */
#define MAX_SHORT 256

static const struct apr_opt globals[] = {
    APR_OPT(struct apr_globals, json, "json", 0, NULL, "print one JSON document instead of text"),
    APR_OPT(struct apr_globals, quiet, "quiet", 'q', NULL, "print no notes and no progress"),
    APR_OPT(struct apr_globals, verbose, "verbose", 'v', NULL, "say more on standard error"),
    APR_OPT(struct apr_globals, offline, "offline", 0, NULL, "never use the network"),
    APR_OPT(struct apr_globals, skip_contract, "skip-contract", 0, NULL,
            "use a model that the contract refuses"),
    APR_OPT(struct apr_globals, help, "help", 'h', NULL, "show this help and exit"),
    APR_OPT(struct apr_globals, version, "version", 'V', NULL, "show version and build and exit"),
};
#define N_GLOBALS (sizeof globals / sizeof *globals)

/* The rows of the verb, then the global ones; a short name of the verb hides the same global one. */
struct parser {
    const struct apr_opt *opts;
    size_t n_opts;
    struct option *longs;
    char shorts[MAX_SHORT];
    short row_of[128]; /* by short name; -1 = none */
    void *args;
    struct apr_globals *g;
    struct apr_arena *arena;
};

const struct apr_opt *apr_opt_globals(size_t *n)
{
    *n = N_GLOBALS;
    return globals;
}

static const struct apr_opt *row(const struct parser *p, size_t i)
{
    return i < p->n_opts ? &p->opts[i] : &globals[i - p->n_opts];
}

char apr_opt_short(const struct apr_opt *opts, size_t n_opts, const struct apr_opt *global)
{
    for (size_t i = 0; i < n_opts; i++)
        if (opts[i].short_name == global->short_name) return 0;
    return global->short_name;
}

static enum apr_code check_row(const struct parser *p, size_t i, struct apr_err *e)
{
    const struct apr_opt *o = row(p, i);
    if (!o->name || !*o->name || !o->help || !*o->help)
        return apr_fail(e, APR_EUSAGE, "option table: row %zu (%s) lacks name or help", i,
                        o->name ? o->name : "?");
    if ((o->kind == APR_OPT_BOOL) != (o->value == NULL))
        return apr_fail(e, APR_EUSAGE,
                        "option table: --%s: a flag has no value name, every other option has one", o->name);
    if (o->short_name < 0)
        return apr_fail(e, APR_EUSAGE, "option table: --%s: short name is not ASCII", o->name);
    for (size_t j = 0; j < i; j++) {
        if (!strcmp(row(p, j)->name, o->name))
            return apr_fail(e, APR_EUSAGE, "option table: --%s stands twice", o->name);
        if (i < p->n_opts && o->short_name && row(p, j)->short_name == o->short_name)
            return apr_fail(e, APR_EUSAGE, "option table: -%c stands twice", o->short_name);
    }
    return APR_OK;
}

static enum apr_code build(struct parser *p, struct apr_err *e)
{
    size_t n = p->n_opts + N_GLOBALS, n_short = 0;
    memset(p->row_of, -1, sizeof p->row_of);
    p->longs = apr_arena_get(p->arena, (n + 1) * sizeof *p->longs);
    p->shorts[n_short++] = ':'; /* tell a missing value from an unknown option */
    for (size_t i = 0; i < n; i++) {
        const struct apr_opt *o = row(p, i);
        TRY(check_row(p, i, e));
        int has_value = o->kind == APR_OPT_BOOL ? no_argument : required_argument;
        p->longs[i] = (struct option){.name = o->name, .has_arg = has_value, .val = BASE_VAL + (int)i};
        int c = i < p->n_opts ? o->short_name : apr_opt_short(p->opts, p->n_opts, o);
        if (!c) continue;
        p->row_of[c] = (short)i;
        p->shorts[n_short++] = (char)c;
        if (has_value == required_argument) p->shorts[n_short++] = ':';
    }
    p->shorts[n_short] = '\0';
    return APR_OK;
}

static enum apr_code parse_u64(const char *name, const char *s, uint64_t *v, struct apr_err *e)
{
    char *end;
    errno = 0;
    unsigned long long n = strtoull(s, &end, 10);
    if (*s < '0' || *s > '9' || *end || errno)
        return apr_fail(e, APR_EUSAGE, "--%s: expected a whole number >= 0, found \"%s\"", name, s);
    *v = n;
    return APR_OK;
}

static enum apr_code parse_i64(const char *name, const char *s, int64_t *v, struct apr_err *e)
{
    char *end;
    const char *digits = *s == '-' ? s + 1 : s;
    errno = 0;
    long long n = strtoll(s, &end, 10);
    if (*digits < '0' || *digits > '9' || *end || errno)
        return apr_fail(e, APR_EUSAGE, "--%s: expected a whole number, found \"%s\"", name, s);
    *v = n;
    return APR_OK;
}

static enum apr_code parse_f64(const char *name, const char *s, double *v, struct apr_err *e)
{
    char *end;
    double f = strtod(s, &end);
    if (!*s || !strchr("0123456789.-+", *s) || *end || !isfinite(f))
        return apr_fail(e, APR_EUSAGE, "--%s: expected a number, found \"%s\"", name, s);
    *v = f;
    return APR_OK;
}

static void push(struct apr_arena *a, struct apr_strs *list, const char *s)
{
    if ((list->n & (list->n - 1)) == 0) { /* full at 0 and at powers of two */
        const char **at = apr_arena_get(a, (list->n ? 2 * list->n : 1) * sizeof *at);
        if (list->n) memcpy(at, list->at, list->n * sizeof *at);
        list->at = at;
    }
    list->at[list->n++] = s;
}

static enum apr_code store(struct parser *p, size_t i, const char *value, struct apr_err *e)
{
    const struct apr_opt *o = row(p, i);
    void *field = (char *)(i < p->n_opts ? p->args : (void *)p->g) + o->off;
    switch (o->kind) {
    case APR_OPT_BOOL:
        *(bool *)field = true;
        return APR_OK;
    case APR_OPT_STR:
        *(const char **)field = value;
        return APR_OK;
    case APR_OPT_U64:
        return parse_u64(o->name, value, field, e);
    case APR_OPT_I64:
        return parse_i64(o->name, value, field, e);
    case APR_OPT_F64:
        return parse_f64(o->name, value, field, e);
    case APR_OPT_LIST:
        push(p->arena, field, value);
        return APR_OK;
    }
    return apr_fail(e, APR_EUSAGE, "option table: --%s: unknown kind", o->name);
}

/* getopt says '?' or ':' and leaves the rest to us. word: the argument that it was looking at. */
static enum apr_code complain(const struct parser *p, int c, const char *word, struct apr_err *e)
{
    if (c == ':') {
        size_t i = optopt >= BASE_VAL ? (size_t)(optopt - BASE_VAL) : (size_t)p->row_of[optopt & 127];
        return apr_fail(e, APR_EUSAGE, "option --%s needs a value: %s", row(p, i)->name, row(p, i)->value);
    }
    if (optopt >= BASE_VAL)
        return apr_fail(e, APR_EUSAGE, "option --%s takes no value",
                        row(p, (size_t)(optopt - BASE_VAL))->name);
    if (optopt) return apr_fail(e, APR_EUSAGE, "unrecognized option \"-%c\"; see --help", optopt);
    size_t n = strcspn(word, "="), n_hits = 0;
    for (size_t i = 0; p->longs[i].name; i++) n_hits += n > 2 && !strncmp(p->longs[i].name, word + 2, n - 2);
    return apr_fail(e, APR_EUSAGE, "%s option \"%.*s\"; see --help",
                    n_hits > 1 ? "ambiguous" : "unrecognized", (int)n, word);
}

enum apr_code apr_opt_parse(const struct apr_opt *opts, size_t n_opts, void *args, struct apr_globals *g,
                            struct apr_strs *operands, struct apr_arena *arena, int argc, char **argv,
                            struct apr_err *e)
{
    struct parser p = {.opts = opts, .n_opts = n_opts, .args = args, .g = g, .arena = arena};
    TRY(build(&p, e));
    /* getopt permutes: it must not be the caller's array. */
    char **words = apr_arena_get(arena, ((size_t)argc + 1) * sizeof *words);
    for (int i = 0; i < argc; i++) words[i] = argv[i];
    optind = 0;
    opterr = 0;
    for (;;) {
        int c = getopt_long(argc, words, p.shorts, p.longs, NULL);
        if (c == -1) break;
        if (c == '?' || c == ':') return complain(&p, c, words[optind > 0 ? optind - 1 : 0], e);
        TRY(store(&p, c >= BASE_VAL ? (size_t)(c - BASE_VAL) : (size_t)p.row_of[c & 127], optarg, e));
    }
    for (int i = optind; i < argc; i++) push(arena, operands, words[i]);
    return APR_OK;
}

enum apr_code apr_parse_size(const char *s, uint64_t *n_bytes, struct apr_err *e)
{
    static const char units[] = "KMGT";
    char *end;
    double v = strtod(s, &end), factor = 1;
    if (*s < '0' || *s > '9') end = (char *)(uintptr_t)s;
    bool ok = end != s && strcspn(s, "xXnNpP") >= (size_t)(end - s);
    if (ok && *end) {
        const char *u = strchr(units, *end >= 'a' ? *end - 'a' + 'A' : *end);
        for (long i = 0; u && i <= u - units; i++) factor *= 1024;
        end++;
        if (u && !strcmp(end, "iB")) end += 2;
        if (u && !strcmp(end, "B")) end++;
        ok = u && !*end;
    }
    if (!ok || v * factor >= 0x1p63)
        return apr_fail(e, APR_EUSAGE, "expected a size such as 4096, 8k, 1.5M or 2G, found \"%s\"", s);
    *n_bytes = (uint64_t)(v * factor);
    return APR_OK;
}

enum apr_code apr_parse_ints(const char *s, int64_t min, int64_t max, int64_t **at, size_t *n,
                             struct apr_err *e)
{
    struct apr_buf b;
    enum apr_code rc = APR_OK;
    apr_buf_init(&b, (size_t)1 << 32);
    *at = NULL;
    *n = 0;
    for (const char *p = s; rc == APR_OK; p++) {
        char *end;
        errno = 0;
        long long v = strtoll(p, &end, 10);
        const char *digits = *p == '-' ? p + 1 : p;
        if (*digits < '0' || *digits > '9' || (*end && *end != ',') || errno || v < min || v > max) {
            rc = apr_fail(e, APR_EUSAGE,
                          "expected whole numbers from %" PRId64 " to %" PRId64
                          " with commas, found \"%.40s\"",
                          min, max, p);
            break;
        }
        int64_t item = v;
        rc = apr_buf_append(&b, &item, sizeof item, e);
        p = end;
        if (!*p) break;
    }
    if (rc != APR_OK) {
        apr_buf_free(&b);
        return rc;
    }
    *at = (int64_t *)(void *)b.data;
    *n = b.n_bytes / sizeof **at;
    return APR_OK;
}

void apr_ints_free(int64_t *at)
{
    struct apr_buf b = {.data = (uint8_t *)at};
    apr_buf_free(&b);
}
