/* Lines from files and pipes in pieces of any size, too long, cut and empty ones; journals that are whole. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "io.h"
#include "io_lines.h"

static struct apr_err e;

/* The lines as one text: state letter and content of each. */
static void describe(struct apr_lines *l, bool wait, char *out, size_t n_out)
{
    struct apr_line line;
    static const char letters[] = "wlc-.";
    *out = 0;
    do {
        size_t n = strlen(out);
        assert_int_equal(apr_lines_next(l, wait, &line, &e), APR_OK);
        bool has_text = line.state == APR_LINE_WHOLE || line.state == APR_LINE_CUT;
        snprintf(out + n, n_out - n, "%c%.*s;", letters[line.state], has_text ? (int)line.n_bytes : 0,
                 has_text ? line.p : "");
    } while (line.state != APR_LINE_NONE && line.state != APR_LINE_LATER);
}

static void a_file(void **state)
{
    (void)state;
    static const struct {
        const char *text, *want;
    } rows[] = {
        {"", ".;"},
        {"\n", "w;.;"},
        {"a", "ca;.;"},
        {"a\n", "wa;.;"},
        {"a\n\nbc\nd", "wa;w;wbc;cd;.;"},
        {"12345678\n123456789\nx\n", "w12345678;l;wx;.;"},
        {"123456789abcdef", "l;.;"},
        {"x\n123456789", "wx;l;.;"},
    };
    char path[] = "/tmp/apr-test-lines-XXXXXX", got[256];
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct apr_lines *l;
        assert_int_equal(ftruncate(fd, 0), 0);
        assert_int_equal(pwrite(fd, rows[i].text, strlen(rows[i].text), 0), strlen(rows[i].text));
        assert_int_equal(apr_lines_open(&l, path, 8, &e), APR_OK);
        describe(l, true, got, sizeof got);
        assert_string_equal(got, rows[i].want);
        assert_int_equal(apr_lines_done(l), strlen(rows[i].text));
        apr_lines_close(l);
    }
    close(fd);
    unlink(path);
}

static void a_pipe_in_pieces(void **state)
{
    (void)state;
    int fds[2];
    char path[64], got[256];
    struct apr_lines *l;
    struct apr_line line;
    assert_int_equal(pipe(fds), 0);
    snprintf(path, sizeof path, "/dev/fd/%d", fds[0]);
    assert_int_equal(apr_lines_open(&l, path, 8, &e), APR_OK);
    describe(l, false, got, sizeof got);
    assert_string_equal(got, "-;");
    assert_int_equal(write(fds[1], "ab", 2), 2);
    describe(l, false, got, sizeof got);
    assert_string_equal(got, "-;");
    assert_int_equal(write(fds[1], "c\nd", 3), 3);
    assert_int_equal(apr_lines_next(l, true, &line, &e), APR_OK);
    assert_int_equal(line.n_bytes, 3);
    assert_memory_equal(line.p, "abc", 3);
    assert_int_equal(line.i_line, 0);
    for (size_t i = 0; i < 1000; i++) { /* far more than a line may have: skipped as it comes */
        assert_int_equal(write(fds[1], "0123456789", 10), 10);
        if (i % 10 == 0) describe(l, false, got, sizeof got);
    }
    assert_int_equal(write(fds[1], "\nend", 4), 4);
    close(fds[1]);
    describe(l, true, got, sizeof got);
    assert_string_equal(got, "l;cend;.;");
    apr_lines_close(l);
    close(fds[0]);
}

static void a_journal(void **state)
{
    (void)state;
    char path[] = "/tmp/apr-test-journal-XXXXXX";
    struct apr_journal *j, *other;
    struct apr_buf b;
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    close(fd);
    assert_int_equal(apr_journal_open(&j, path, APR_JOURNAL_NEW, &e), APR_EUSAGE);
    unlink(path);
    assert_int_equal(apr_journal_open(&j, path, APR_JOURNAL_NEW, &e), APR_OK);
    assert_int_equal(apr_journal_put(j, "one\n", 4, &e), APR_OK);
    assert_int_equal(apr_journal_put(j, "two\n", 4, &e), APR_OK);
    assert_int_equal(apr_journal_open(&other, path, APR_JOURNAL_RESUME, &e),
                     APR_EUSAGE); /* is being written */
    assert_int_equal(apr_journal_close(j, &e), APR_OK);
    assert_int_equal(apr_journal_open(&j, path, APR_JOURNAL_RESUME, &e), APR_OK);
    assert_int_equal(apr_journal_cut(j, 4, &e), APR_OK);
    assert_int_equal(apr_journal_put(j, "three\n", 6, &e), APR_OK);
    assert_int_equal(apr_journal_close(j, &e), APR_OK);
    apr_buf_init(&b, 100);
    assert_int_equal(apr_read_file(path, 100, &b, &e), APR_OK);
    assert_string_equal((char *)b.data, "one\nthree\n");
    apr_buf_free(&b);
    assert_int_equal(apr_journal_open(&j, path, APR_JOURNAL_REPLACE, &e), APR_OK);
    assert_int_equal(apr_journal_close(j, &e), APR_OK);
    apr_buf_init(&b, 100);
    assert_int_equal(apr_read_file(path, 100, &b, &e), APR_OK);
    assert_int_equal(b.n_bytes, 0);
    apr_buf_free(&b);
    unlink(path);
    assert_int_equal(apr_journal_open(&j, "/nonexistent/x", APR_JOURNAL_NEW, &e), APR_EIO);
    assert_int_equal(apr_journal_open(&j, "/dev/full", APR_JOURNAL_REPLACE, &e), APR_OK);
    assert_int_equal(apr_journal_put(j, "x\n", 2, &e), APR_EIO);
    assert_int_equal(apr_journal_close(j, &e), APR_OK);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(a_file), cmocka_unit_test(a_pipe_in_pieces),
                                       cmocka_unit_test(a_journal)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
