/* A mapped file that is cut while it is read ends the tool with status 7 and one line, not with SIGBUS. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "io.h"
#include "tool.h"

static char path[] = "/tmp/apr-test-tool.XXXXXX";

static enum apr_code read_the_cut(void *args, struct apr_ctx *ctx, struct apr_err *e)
{
    (void)args;
    struct apr_src *s;
    const uint8_t *p;
    TRY(apr_src_open(&s, ctx->operands->at[0], e));
    TRY(apr_src_map(s, &p, e));
    if (truncate(path, 0)) return APR_ENO;
    volatile uint8_t last = p[apr_src_size(s) - 1];
    (void)last;
    return APR_OK;
}

static enum apr_code answer_no(void *args, struct apr_ctx *ctx, struct apr_err *e)
{
    (void)args;
    (void)ctx;
    (void)e;
    return APR_ENO;
}

static enum apr_code fail_silently(void *args, struct apr_ctx *ctx, struct apr_err *e)
{
    (void)args;
    (void)ctx;
    (void)e;
    return APR_EINFER;
}

static const struct apr_verb cut = {
    .name = "cut", .operands = "FILE", .n_operands_min = 1, .n_operands_max = 1, .run = read_the_cut};
static const struct apr_verb no = {.name = "no", .operands = "", .run = answer_no};
static const struct apr_verb quiet = {.name = "quiet", .operands = "", .run = fail_silently};
static const struct apr_verb *const verbs[] = {&cut, &no, &quiet};
static const struct apr_tool tool = {"apr-test", verbs, 3};

/* Runs the tool in a child; its stderr lands in text. */
static int status_of(const char *verb, const char *operand, char *text, size_t n_text)
{
    int ends[2], status;
    assert_int_equal(pipe(ends), 0);
    fflush(NULL);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        char name[] = "apr-test", word[32], file[64];
        snprintf(word, sizeof word, "%s", verb);
        snprintf(file, sizeof file, "%s", operand ? operand : "");
        char *argv[] = {name, word, operand ? file : NULL, NULL};
        dup2(ends[1], STDERR_FILENO);
        close(ends[0]);
        _exit(apr_tool_main(&tool, operand ? 3 : 2, argv));
    }
    close(ends[1]);
    size_t n = 0;
    for (ssize_t got = 1; got > 0 && n + 1 < n_text; n += (size_t)got) {
        got = read(ends[0], text + n, n_text - 1 - n);
        if (got < 0) break;
    }
    text[n] = '\0';
    close(ends[0]);
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status));
    return WEXITSTATUS(status);
}

static void cut_map_is_status_7(void **state)
{
    (void)state;
    char text[512];
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    assert_int_equal(ftruncate(fd, 1 << 20), 0);
    assert_int_equal(status_of("cut", path, text, sizeof text), APR_EIO);
    assert_non_null(strstr(text, "a mapped file became shorter while it was read\n"));
    close(fd);
    unlink(path);
}

static void errors_are_one_line(void **state)
{
    (void)state;
    char text[512];
    assert_int_equal(status_of("no", NULL, text, sizeof text), APR_ENO);
    assert_string_equal(text, "");
    assert_int_equal(status_of("quiet", NULL, text, sizeof text), APR_EINFER);
    assert_string_equal(text, "apr-test: inference failed: NaN logits, back-end error\n");
    assert_int_equal(status_of("cut", "/nonexistent", text, sizeof text), APR_ENOTFOUND);
    assert_string_equal(text, "apr-test: /nonexistent: No such file or directory\n");
    assert_int_equal(status_of("no", "extra", text, sizeof text), APR_EUSAGE);
    assert_int_equal(status_of("cut", NULL, text, sizeof text), APR_EUSAGE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(cut_map_is_status_7),
        cmocka_unit_test(errors_are_one_line),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
