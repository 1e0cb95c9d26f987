/* The frame of every tool: streams, signals, the verb, one error line, the exit status. */
#include "tool.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "help.h"
#include "io.h"

#define EXIT_SIGNAL 128 /* + signal number, as shells report it */

/* Signals end us with a status, not by killing: unfinished outputs go first. Only async-signal-safe calls. */
static void on_signal(int sig)
{
    apr_sink_cleanup();
    _exit(EXIT_SIGNAL + sig);
}

static void on_bus(int sig)
{
    static const char line[] = ": a mapped file became shorter while it was read\n";
    const char *name = program_invocation_short_name;
    apr_sink_cleanup();
    if (write(STDERR_FILENO, name, strlen(name)) < 0 || write(STDERR_FILENO, line, sizeof line - 1) < 0)
        _exit(EXIT_SIGNAL + sig);
    _exit(APR_EIO);
}

static void handle(int sig, void (*fn)(int), bool even_if_ignored)
{
    struct sigaction old, now = {.sa_handler = fn};
    sigemptyset(&now.sa_mask);
    if (!even_if_ignored && !sigaction(sig, NULL, &old) && old.sa_handler == SIG_IGN) return; /* nohup, "&" */
    sigaction(sig, &now, NULL);
}

/* A closed standard stream must not become an output file's descriptor; writing to it must still fail. */
static void guard_streams(void)
{
    for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++)
        if (fcntl(fd, F_GETFD) < 0 && open("/dev/null", fd == STDIN_FILENO ? O_WRONLY : O_RDONLY) != fd)
            return;
}

static enum apr_code check_stdout(struct apr_err *e)
{
    bool failed = ferror(stdout) != 0;
    errno = 0;
    if (fflush(stdout)) failed = true;
    int why = errno;
    if (close(STDOUT_FILENO) && errno != EBADF) {
        failed = true;
        why = errno;
    }
    if (!failed) return APR_OK;
    return apr_fail(e, APR_EIO, "standard output: cannot write: %s",
                    why ? strerror(why) : "an earlier write failed");
}

static void print_error(const char *tool, enum apr_code code, const struct apr_err *e)
{
    if (code == APR_OK || (code == APR_ENO && !e->text[0])) return;
    fprintf(stderr, "%s: %s\n", tool, e->text[0] ? e->text : apr_code_meaning(code));
}

static const struct apr_verb *find_verb(const struct apr_tool *tool, const char *name)
{
    for (size_t i = 0; name && i < tool->n_verbs; i++)
        if (!strcmp(tool->verbs[i]->name, name)) return tool->verbs[i];
    return NULL;
}

static enum apr_code check_operands(const struct apr_verb *v, const struct apr_strs *operands,
                                    struct apr_err *e)
{
    char word[256];
    if (operands->n < v->n_operands_min)
        return apr_fail(e, APR_EUSAGE, "%s: missing operand; usage: apr %s %s", v->name, v->name,
                        v->operands);
    if (operands->n <= v->n_operands_max) return APR_OK;
    const char *extra = operands->at[v->n_operands_max];
    return apr_fail(e, APR_EUSAGE, "%s: unexpected operand \"%s\"; usage: apr %s %s", v->name,
                    apr_escape(word, sizeof word, extra, strlen(extra)), v->name, v->operands);
}

static enum apr_code run_verb(const struct apr_tool *tool, const struct apr_verb *v, struct apr_arena *arena,
                              int argc, char **argv, struct apr_err *e)
{
    struct apr_globals g = {0};
    struct apr_strs operands = {0};
    const struct apr_verb_row *row = apr_verb_row_of(v->name);
    void *args = apr_arena_get(arena, v->args_bytes);
    if (v->init) v->init(args);
    TRY(apr_opt_parse(v->opts, v->n_opts, args, &g, &operands, arena, argc, argv, e));
    if (g.help) return apr_help_verb(stdout, tool, v), APR_OK;
    if (g.version) return apr_help_version(stdout, tool), APR_OK;
    enum apr_log_level level = g.quiet ? APR_LOG_QUIET : g.verbose ? APR_LOG_VERBOSE : APR_LOG_NORMAL;
    apr_log_set(level, tool->name);
    if (g.offline) setenv("HF_HUB_OFFLINE", "1", 1); /* also for the tools that this one runs */
    TRY(check_operands(v, &operands, e));
    struct apr_ctx ctx = {
        .g = &g,
        .operands = &operands,
        .arena = arena,
        .verb = v->name,
        .tool = tool->name,
        .gated = row && !strcmp(row->gate, "gated") && !g.skip_contract,
    };
    return v->run(args, &ctx, e);
}

/* What the tool says about itself, before any verb. false: not asked. */
static bool about(const struct apr_tool *tool, int argc, char **argv, enum apr_code *rc, struct apr_err *e)
{
    const char *word = argc > 1 ? argv[1] : "";
    const struct apr_verb *v = find_verb(tool, argc > 2 ? argv[2] : NULL);
    *rc = APR_OK;
    if (!strcmp(word, "--list-verbs"))
        for (size_t i = 0; i < tool->n_verbs; i++) puts(tool->verbs[i]->name);
    else if (!strcmp(word, "--help") || !strcmp(word, "-h"))
        apr_help_tool(stdout, tool);
    else if (!strcmp(word, "--version") || !strcmp(word, "-V"))
        apr_help_version(stdout, tool);
    else if (strcmp(word, "--list-options") != 0 && strcmp(word, "--man") != 0)
        return false;
    else if (!v)
        *rc = apr_fail(e, APR_EUSAGE, "%s needs a verb of this tool; --list-verbs shows them", word);
    else if (!strcmp(word, "--man"))
        apr_help_man(stdout, v);
    else
        apr_help_options(stdout, v);
    return true;
}

int apr_tool_main(const struct apr_tool *tool, int argc, char **argv)
{
    struct apr_err e = {0}, late = {0};
    struct apr_arena arena;
    enum apr_code rc;
    guard_streams();
    handle(SIGINT, on_signal, false);
    handle(SIGTERM, on_signal, false);
    handle(SIGHUP, on_signal, false);
    handle(SIGPIPE, on_signal, true);
    handle(SIGBUS, on_bus, true);
    json_set_alloc_funcs(apr_heap_get, apr_heap_free); /* a document that lost a key must not be written */
    apr_log_set(APR_LOG_NORMAL, tool->name);
    apr_arena_init(&arena);
    if (!about(tool, argc, argv, &rc, &e)) {
        const struct apr_verb *v = find_verb(tool, argc > 1 ? argv[1] : NULL);
        bool named = v != NULL;
        if (!named) v = tool->verbs[0];
        /* getopt takes argv[0] as the program: the verb, or our own name when no verb was given. */
        rc = run_verb(tool, v, &arena, named ? argc - 1 : argc, named ? argv + 1 : argv, &e);
    }
    if (check_stdout(&late) != APR_OK && rc == APR_OK) {
        rc = APR_EIO;
        e = late;
    }
    print_error(tool->name, rc, &e);
    apr_arena_free(&arena);
    return (int)rc;
}
