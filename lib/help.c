/* Help, manual and completion from the option tables and from bin/verbs. */
#include "help.h"

#include <string.h>

#include "verbs.h"

#ifndef APR_CFLAGS
#define APR_CFLAGS "unknown"
#endif
#define FILL_COLS 96
#define HELP_COL  30 /* where the help text of an option starts */

/* The exit statuses that are not an apr_code. */
static const struct {
    int status;
    const char *meaning;
} signals[] = {{130, "interrupted (SIGINT)"},
               {141, "the reader of the output went away (SIGPIPE)"},
               {143, "terminated (SIGTERM)"}};

/* A visitor of all options of a verb, its own first. */
typedef void opt_fn(FILE *to, const struct apr_opt *o, char short_name);

static void each_option(FILE *to, const struct apr_verb *v, opt_fn *fn)
{
    size_t n_globals;
    const struct apr_opt *globals = apr_opt_globals(&n_globals);
    for (size_t i = 0; i < v->n_opts; i++) fn(to, &v->opts[i], v->opts[i].short_name);
    for (size_t i = 0; i < n_globals; i++)
        fn(to, &globals[i], apr_opt_short(v->opts, v->n_opts, &globals[i]));
}

const struct apr_verb_row *apr_verb_row_of(const char *verb)
{
    for (const struct apr_verb_row *r = apr_verb_rows; r->verb; r++)
        if (!strcmp(r->verb, verb)) return r;
    return NULL;
}

static const char *summary(const struct apr_verb *v)
{
    const struct apr_verb_row *r = apr_verb_row_of(v->name);
    return r ? r->summary : v->name;
}

static void print_option(FILE *to, const struct apr_opt *o, char short_name)
{
    int n = short_name ? fprintf(to, "  -%c, ", short_name) : fprintf(to, "      ");
    n += fprintf(to, "--%s", o->name);
    if (o->value) n += fprintf(to, " %s", o->value);
    if (n + 2 > HELP_COL) n = fprintf(to, "\n") - 1;
    fprintf(to, "%*s%s\n", HELP_COL - n, "", o->help);
}

static void print_statuses(FILE *to, const char *format)
{
    for (int code = APR_OK; code <= APR_ENET; code++)
        fprintf(to, format, code, apr_code_meaning((enum apr_code)code));
    for (size_t i = 0; i < sizeof signals / sizeof *signals; i++)
        fprintf(to, format, signals[i].status, signals[i].meaning);
}

/* Lines that begin with a blank stand as they are; the lines of a paragraph are joined and filled. A
 * paragraph ends at an empty or indented line, or after a line that ends with a colon. */
static void fill(FILE *to, const char *text, void (*put)(FILE *to, const char *s, size_t n))
{
    size_t col = 0;
    for (const char *line = text; *line;) {
        size_t n_line = strcspn(line, "\n");
        bool verbatim = n_line == 0 || line[0] == ' ';
        if (verbatim) {
            if (col > 0) put(to, "\n", 1);
            put(to, line, n_line);
            put(to, "\n", 1);
            col = 0;
        }
        for (const char *w = line; !verbatim && w < line + n_line;) {
            size_t n = strcspn(w, " \n");
            if (col > 0 && col + 1 + n > FILL_COLS) {
                put(to, "\n", 1);
                col = 0;
            }
            if (col > 0) put(to, " ", 1);
            put(to, w, n);
            col += n + (col > 0);
            w += n + strspn(w + n, " ");
        }
        if (col > 0 && n_line > 0 && line[n_line - 1] == ':') {
            put(to, "\n", 1);
            col = 0;
        }
        line += n_line + (line[n_line] == '\n');
    }
    if (col > 0) put(to, "\n", 1);
}

static void put_plain(FILE *to, const char *s, size_t n)
{
    fwrite(s, 1, n, to);
}

void apr_help_verb(FILE *to, const struct apr_tool *tool, const struct apr_verb *v)
{
    fprintf(to, "Usage: apr %s [OPTION]... %s\n       %s %s [OPTION]... %s\n\n%s\n\nOptions:\n", v->name,
            v->operands, tool->name, v->name, v->operands, summary(v));
    each_option(to, v, print_option);
    if (v->details) {
        fputc('\n', to);
        fill(to, v->details, put_plain);
    }
    fprintf(to, "\nExit status:\n");
    print_statuses(to, "  %3d  %s\n");
}

void apr_help_tool(FILE *to, const struct apr_tool *tool)
{
    fprintf(to, "Usage: %s VERB [OPTION]... [OPERAND]...\n\nVerbs (%s is meant when none is named):\n",
            tool->name, tool->verbs[0]->name);
    for (size_t i = 0; i < tool->n_verbs; i++)
        fprintf(to, "  %-20s %s\n", tool->verbs[i]->name, summary(tool->verbs[i]));
    fprintf(to, "\n%s VERB --help shows the options of a verb. %s --version, --list-verbs.\n", tool->name,
            tool->name);
}

void apr_help_version(FILE *to, const struct apr_tool *tool)
{
#if defined(__clang__)
    const char *compiler = "clang " __clang_version__;
#else
    const char *compiler = "gcc " __VERSION__;
#endif
    fprintf(to, "%s %s\ncompiler: %s\nflags: %s\nkernels:", tool->name, APR_VERSION, compiler, APR_CFLAGS);
    for (size_t i = 0; apr_kern_at(i); i++) fprintf(to, " %s", apr_kern_at(i)->name);
    fprintf(to, "\n");
}

static void print_word(FILE *to, const struct apr_opt *o, char short_name)
{
    if (short_name) fprintf(to, "-%c\n", short_name);
    fprintf(to, "--%s%s\n", o->name, o->value ? "=" : "");
}

void apr_help_options(FILE *to, const struct apr_verb *v)
{
    each_option(to, v, print_word);
}

/* ---- roff ---- */

static void put_roff(FILE *to, const char *s, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (i == 0 && (*s == '.' || *s == '\'')) fputs("\\&", to);
        if (s[i] == '\\')
            fputs("\\e", to);
        else if (s[i] == '-')
            fputs("\\-", to);
        else
            fputc(s[i], to);
    }
}

static void roff(FILE *to, const char *s)
{
    put_roff(to, s, strlen(s));
}

static void man_option(FILE *to, const struct apr_opt *o, char short_name)
{
    fputs(".TP\n\\fB", to);
    if (short_name) fprintf(to, "\\-%c\\fR, \\fB", short_name);
    roff(to, "--");
    roff(to, o->name);
    fputs("\\fR", to);
    if (o->value) {
        fputs(" \\fI", to);
        roff(to, o->value);
        fputs("\\fR", to);
    }
    fputc('\n', to);
    roff(to, o->help);
    fputc('\n', to);
}

void apr_help_man(FILE *to, const struct apr_verb *v)
{
    fprintf(to, ".TH \"APR\\-%s\" 1 \"\" \"apr %s\" \"User Commands\"\n.SH NAME\napr\\-%s \\- ", v->name,
            APR_VERSION, v->name);
    roff(to, summary(v));
    fprintf(to, "\n.SH SYNOPSIS\n\\fBapr %s\\fR [\\fIOPTION\\fR]... ", v->name);
    roff(to, v->operands);
    if (v->details) {
        fputs("\n.SH DESCRIPTION\n.nf\n", to);
        fill(to, v->details, put_roff);
        fputs(".fi", to);
    }
    fputs("\n.SH OPTIONS\n", to);
    each_option(to, v, man_option);
    fputs(".SH EXIT STATUS\n", to);
    print_statuses(to, ".TP\n%d\n%s\n");
    fputs(".SH SEE ALSO\n\\fBapr\\fR(1)\n", to);
}
