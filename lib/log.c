/* Lines on stderr; a drawn progress bar is wiped before a note and drawn again by its next step. */
#include "log.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define NS_PER_S     1000000000
#define NS_PER_FRAME 100000000 /* redraw ten times a second at most */

static struct {
    enum apr_log_level level;
    const char *program; /* borrowed */
    size_t n_drawn;      /* columns of the bar that is on the terminal */
} state = {.level = APR_LOG_NORMAL, .program = "apr"};

void apr_log_set(enum apr_log_level level, const char *program)
{
    state.level = level;
    if (program) state.program = program;
}

enum apr_log_level apr_log_get(void)
{
    return state.level;
}

int64_t apr_now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * NS_PER_S + t.tv_nsec;
}

static void wipe(void)
{
    if (state.n_drawn) fprintf(stderr, "\r%*s\r", (int)state.n_drawn, "");
    state.n_drawn = 0;
}

static void line(const char *mark, const char *format, va_list args)
{
    char raw[2048], safe[2048];
    int n = vsnprintf(raw, sizeof raw, format, args);
    if (n < 0) return;
    if ((size_t)n >= sizeof raw) n = (int)sizeof raw - 1;
    apr_escape(safe, sizeof safe, raw, (unsigned long)n);
    wipe();
    fprintf(stderr, "%s: %s%s\n", state.program, mark, safe);
}

void apr_note(const char *format, ...)
{
    va_list args;
    if (state.level < APR_LOG_NORMAL) return;
    va_start(args, format);
    line("", format, args);
    va_end(args);
}

void apr_verbose(const char *format, ...)
{
    va_list args;
    if (state.level < APR_LOG_VERBOSE) return;
    va_start(args, format);
    line("", format, args);
    va_end(args);
}

void apr_warn(const char *format, ...)
{
    va_list args;
    if (state.level < APR_LOG_NORMAL) return;
    va_start(args, format);
    line("warning: ", format, args);
    va_end(args);
}

static void draw(struct apr_progress *p, int64_t ns_now)
{
    char text[128], rate[48];
    double s = (double)(ns_now - p->ns_start) / NS_PER_S;
    double per_s = s > 0 ? (double)p->n_done / s : 0;
    if (!strcmp(p->unit, "B"))
        snprintf(rate, sizeof rate, "%.1f MB/s", per_s / 1e6);
    else
        snprintf(rate, sizeof rate, "%.1f %s/s", per_s, p->unit);
    int n;
    if (p->n_total)
        n = snprintf(text, sizeof text, "%s %3.0f%% %s", p->label,
                     100.0 * (double)p->n_done / (double)p->n_total, rate);
    else
        n = snprintf(text, sizeof text, "%s %" PRIu64 " %s %s", p->label, p->n_done, p->unit, rate);
    if (n < 0) return;
    wipe();
    fputs(text, stderr);
    state.n_drawn = strlen(text);
    p->ns_drawn = ns_now;
    p->drawn = 1;
}

void apr_progress_begin(struct apr_progress *p, const char *label, uint64_t n_total, const char *unit)
{
    *p = (struct apr_progress){.label = label, .n_total = n_total, .unit = unit, .ns_start = apr_now_ns()};
    p->ns_drawn = p->ns_start;
}

void apr_progress_add(struct apr_progress *p, uint64_t n)
{
    p->n_done += n;
    int64_t ns_now = apr_now_ns();
    if (ns_now - p->ns_drawn < NS_PER_FRAME) return;
    p->ns_drawn = ns_now;
    if (state.level >= APR_LOG_NORMAL && isatty(STDERR_FILENO)) draw(p, ns_now);
}

void apr_progress_end(struct apr_progress *p)
{
    if (p->drawn) wipe();
    p->drawn = 0;
}
