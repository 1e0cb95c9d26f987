/* Sources and sinks: pipes behave like files, outputs appear whole or not at all. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "hash.h"
#include "io.h"
#include "rd.h"

#define N_BYTES 200000u /* more than the buffers and than a pipe holds */

static char dir[] = "/tmp/apr-test-io.XXXXXX";
static char path[256], other[256];
static uint8_t data[N_BYTES];

static int make_dir(void **state)
{
    (void)state;
    for (size_t i = 0; i < N_BYTES; i++) data[i] = (uint8_t)(i * 2654435761u >> 13);
    if (!mkdtemp(dir)) return -1;
    snprintf(path, sizeof path, "%s/out.bin", dir);
    snprintf(other, sizeof other, "%s/other", dir);
    return 0;
}

static int remove_dir(void **state)
{
    (void)state;
    return rmdir(dir);
}

static int remove_files(void **state)
{
    (void)state;
    unlink(path);
    unlink(other);
    return 0;
}

static size_t n_entries(void)
{
    size_t n = 0;
    DIR *d = opendir(dir);
    assert_non_null(d);
    for (const struct dirent *e = readdir(d); e; e = readdir(d))
        n += strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0;
    closedir(d);
    return n;
}

static void write_file(const char *name, const void *p, size_t n)
{
    FILE *f = fopen(name, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(p, 1, n, f), n);
    assert_int_equal(fclose(f), 0);
}

/* A pipe on /dev/fd/N that a child fills in crooked pieces. */
static pid_t open_pipe(struct apr_src **s, size_t n, int *fd)
{
    int ends[2];
    char name[32];
    struct apr_err e = {0};
    assert_int_equal(pipe(ends), 0);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        close(ends[0]);
        for (size_t done = 0; done < n;) {
            size_t n_now = done % 977 + 1 < n - done ? done % 977 + 1 : n - done;
            ssize_t got = write(ends[1], data + done, n_now);
            if (got < 0) _exit(1);
            done += (size_t)got;
        }
        _exit(0);
    }
    close(ends[1]);
    snprintf(name, sizeof name, "/dev/fd/%d", ends[0]);
    if (apr_src_open(s, name, &e) != APR_OK) fail_msg("%s", e.text);
    *fd = ends[0];
    return child;
}

static void reads_all_of(struct apr_src *s)
{
    struct apr_err e = {0};
    const uint8_t *p;
    size_t n_got;
    static uint8_t back[N_BYTES];
    apr_src_crc_begin(s);
    assert_int_equal(apr_src_peek(s, 65536, &p, &n_got, &e), APR_OK);
    assert_int_equal(n_got, 65536);
    assert_memory_equal(p, data, n_got);
    assert_int_equal(apr_src_pos(s), 0);
    assert_int_equal(apr_src_read(s, back, 10, "head", &e), APR_OK);
    assert_int_equal(apr_src_skip(s, 90, "gap", &e), APR_OK);
    assert_int_equal(apr_src_read(s, back + 100, N_BYTES - 100, "data", &e), APR_OK);
    assert_memory_equal(back + 100, data + 100, N_BYTES - 100);
    assert_int_equal(apr_src_pos(s), N_BYTES);
    assert_int_equal(apr_src_crc(s), apr_crc32(0, data, N_BYTES));
    assert_int_equal(apr_src_peek(s, 1, &p, &n_got, &e), APR_OK);
    assert_int_equal(n_got, 0);
    assert_int_equal(apr_src_read(s, back, 3, "the tail", &e), APR_EFORMAT);
    assert_non_null(strstr(e.text, "ends at byte 200000 inside the tail; expected 3 more bytes"));
}

static void file_is_read_peeked_and_mapped(void **state)
{
    (void)state;
    struct apr_src *s;
    struct apr_err e = {0};
    const uint8_t *map;
    uint8_t some[16];
    write_file(path, data, N_BYTES);
    assert_int_equal(apr_src_open(&s, path, &e), APR_OK);
    assert_true(apr_src_seekable(s));
    assert_int_equal(apr_src_size(s), N_BYTES);
    assert_int_equal(apr_src_pread(s, N_BYTES - 16, some, 16, "end", &e), APR_OK);
    assert_memory_equal(some, data + N_BYTES - 16, 16);
    assert_int_equal(apr_src_pread(s, N_BYTES - 15, some, 16, "end", &e), APR_EFORMAT);
    assert_int_equal(apr_src_pread(s, UINT64_MAX - 3, some, 16, "end", &e), APR_EFORMAT);
    assert_int_equal(apr_src_map(s, &map, &e), APR_OK);
    assert_memory_equal(map, data, N_BYTES);
    reads_all_of(s);
    apr_src_close(s);
}

static void pipe_is_read_like_a_file(void **state)
{
    (void)state;
    struct apr_src *s;
    struct apr_err e = {0};
    const uint8_t *map;
    int fd, status;
    pid_t child = open_pipe(&s, N_BYTES, &fd);
    assert_false(apr_src_seekable(s));
    assert_true(apr_src_size(s) == UINT64_MAX);
    assert_int_equal(apr_src_map(s, &map, &e), APR_EIO);
    reads_all_of(s);
    apr_src_close(s);
    close(fd);
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
}

static void pipe_can_be_spooled_after_a_peek(void **state)
{
    (void)state;
    struct apr_src *s;
    struct apr_err e = {0};
    const uint8_t *p;
    size_t n_got;
    int fd, status;
    pid_t child = open_pipe(&s, N_BYTES, &fd);
    assert_int_equal(apr_src_peek(s, 100, &p, &n_got, &e), APR_OK);
    assert_int_equal(n_got, 100);
    if (apr_src_spool(s, &e) != APR_OK) fail_msg("%s", e.text);
    assert_true(apr_src_seekable(s));
    assert_int_equal(apr_src_size(s), N_BYTES);
    assert_int_equal(apr_src_map(s, &p, &e), APR_OK);
    assert_memory_equal(p, data, N_BYTES);
    reads_all_of(s);
    apr_src_close(s);
    close(fd);
    waitpid(child, &status, 0);
}

static void cursor_over_a_pipe_takes_what_it_needs(void **state)
{
    (void)state;
    struct apr_src *s;
    struct apr_rd rd;
    struct apr_err e = {0};
    const uint8_t *p;
    uint64_t v;
    int fd, status;
    pid_t child = open_pipe(&s, 5000, &fd);
    apr_rd_src(&rd, s, 4000);
    assert_int_equal(apr_rd_u64(&rd, &v, "v", &e), APR_OK);
    assert_int_equal(apr_rd_bytes(&rd, 3000, &p, "body", &e), APR_OK);
    assert_memory_equal(p, data + 8, 3000);
    assert_int_equal(apr_rd_off(&rd), 3008);
    assert_int_equal(apr_src_pos(s), 3008); /* nothing was taken ahead */
    assert_true(apr_rd_left(&rd) == UINT64_MAX);
    assert_int_equal(apr_rd_bytes(&rd, 993, &p, "body", &e), APR_EFORMAT); /* above the limit of 4000 */
    assert_int_equal(apr_rd_bytes(&rd, 992, &p, "body", &e), APR_OK);
    apr_rd_close(&rd);
    apr_rd_src(&rd, s, UINT64_MAX); /* a claim of 2^60 bytes reserves nothing */
    assert_int_equal(apr_rd_bytes(&rd, 1ULL << 60, &p, "body", &e), APR_EFORMAT);
    apr_rd_close(&rd);
    apr_src_close(s);
    close(fd);
    waitpid(child, &status, 0);
}

static void odd_paths_have_their_status(void **state)
{
    (void)state;
    struct apr_src *s;
    struct apr_err e;
    struct apr_buf b;
    assert_int_equal(apr_src_open(&s, other, &e), APR_ENOTFOUND);
    assert_int_equal(apr_src_open(&s, "", &e), APR_ENOTFOUND);
    assert_int_equal(apr_src_open(&s, dir, &e), APR_EFORMAT);
    assert_null(s);
    assert_int_equal(mkfifo(other, 0600), 0);
    assert_int_equal(apr_src_open(&s, other, &e), APR_EFORMAT); /* and does not wait for a writer */
    assert_non_null(strstr(e.text, "not a regular file"));
    apr_buf_init(&b, 100);
    write_file(path, data, 101);
    assert_int_equal(apr_read_file(path, 100, &b, &e), APR_EFORMAT);
    write_file(path, data, 100);
    assert_int_equal(apr_read_file(path, 100, &b, &e), APR_OK);
    assert_int_equal(b.n_bytes, 100);
    apr_buf_free(&b);
    write_file(path, "", 0);
    assert_int_equal(apr_src_open(&s, path, &e), APR_OK);
    const uint8_t *map;
    assert_int_equal(apr_src_map(s, &map, &e), APR_OK);
    apr_src_close(s);
}

static void sink_appears_only_when_complete(void **state)
{
    (void)state;
    struct apr_sink *s;
    struct apr_err e = {0};
    struct apr_buf b;
    assert_int_equal(apr_sink_open(&s, path, false, &e), APR_OK);
    apr_sink_write(s, data, 10);
    apr_sink_write(s, data + 10, N_BYTES - 10);
    apr_sink_zeros(s, 5000);
    assert_int_equal(apr_sink_pos(s), N_BYTES + 5000);
    assert_int_equal(access(path, F_OK), -1);
    assert_int_equal(apr_sink_finish(s, &e), APR_OK);
    assert_int_equal(n_entries(), 1);
    apr_buf_init(&b, 1 << 20);
    assert_int_equal(apr_read_file(path, 1 << 20, &b, &e), APR_OK);
    assert_int_equal(b.n_bytes, N_BYTES + 5000);
    assert_memory_equal(b.data, data, N_BYTES);
    for (size_t i = N_BYTES; i < b.n_bytes; i++) assert_int_equal(b.data[i], 0);
    apr_buf_free(&b);
}

static void sink_keeps_an_existing_file(void **state)
{
    (void)state;
    struct apr_sink *s;
    struct apr_err e = {0};
    struct stat st;
    write_file(path, "old", 3);
    chmod(path, 0640);
    assert_int_equal(apr_sink_open(&s, path, false, &e), APR_EUSAGE);
    assert_null(s);
    assert_int_equal(apr_sink_open(&s, path, true, &e), APR_OK);
    apr_sink_write(s, "new!", 4);
    apr_sink_abort(s);
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_size, 3);
    assert_int_equal(symlink(path, other), 0); /* a link is followed, not replaced */
    assert_int_equal(apr_sink_open(&s, other, true, &e), APR_OK);
    apr_sink_write(s, "new!", 4);
    assert_int_equal(apr_sink_finish(s, &e), APR_OK);
    assert_int_equal(lstat(other, &st), 0);
    assert_true(S_ISLNK(st.st_mode));
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_size, 4);
    assert_int_equal(st.st_mode & 0777, 0640);
    assert_int_equal(n_entries(), 2);
}

static void sink_errors_stick(void **state)
{
    (void)state;
    struct apr_sink *s;
    struct apr_err e = {0};
    assert_int_equal(apr_sink_open(&s, "/dev/full", false, &e), APR_OK);
    apr_sink_write(s, data, N_BYTES);
    assert_true(apr_sink_failed(s));
    apr_sink_write(s, data, 1);
    assert_int_equal(apr_sink_finish(s, &e), APR_EIO);
    assert_non_null(strstr(e.text, "/dev/full: byte 0: cannot write: No space left"));
    assert_int_equal(apr_sink_open(&s, path, false, &e), APR_OK);
    assert_int_equal(apr_sink_need(s, 1, &e), APR_OK);
    assert_int_equal(apr_sink_need(s, UINT64_MAX, &e), APR_EIO);
    apr_sink_abort(s);
    assert_int_equal(n_entries(), 0);
    assert_int_equal(apr_sink_open(&s, dir, true, &e), APR_EUSAGE);
    assert_int_equal(apr_sink_open(&s, "/nonexistent/x", false, &e), APR_EIO);
}

static void memory_sink_obeys_the_ceiling(void **state)
{
    (void)state;
    struct apr_sink *s;
    struct apr_buf b;
    struct apr_err e = {0};
    apr_buf_init(&b, 100);
    apr_sink_mem(&s, &b);
    apr_sink_crc_begin(s);
    apr_sink_write(s, data, 100);
    assert_int_equal(apr_sink_crc(s), apr_crc32(0, data, 100));
    assert_int_equal(apr_sink_finish(s, &e), APR_OK);
    assert_memory_equal(b.data, data, 100);
    apr_sink_mem(&s, &b);
    apr_sink_write(s, data, 1);
    assert_int_equal(apr_sink_finish(s, &e), APR_EFORMAT);
    apr_buf_free(&b);
}

/* Killed while it writes: by a signal that cannot be caught, and at exit without abort. */
static void nothing_remains_of_a_killed_writer(void **state)
{
    (void)state;
    struct apr_err e = {0};
    for (int how = 0; how < 2; how++) {
        pid_t child = fork();
        assert_true(child >= 0);
        if (child == 0) {
            struct apr_sink *s;
            if (apr_sink_open(&s, path, false, &e) != APR_OK) _exit(9);
            apr_sink_write(s, data, N_BYTES);
            if (how == 0) kill(getpid(), SIGKILL);
            apr_sink_cleanup();
            _exit(3);
        }
        int status;
        waitpid(child, &status, 0);
        assert_true(how == 0 ? WIFSIGNALED(status) : WEXITSTATUS(status) == 3);
        assert_int_equal(n_entries(), 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(file_is_read_peeked_and_mapped, remove_files),
        cmocka_unit_test(pipe_is_read_like_a_file),
        cmocka_unit_test(pipe_can_be_spooled_after_a_peek),
        cmocka_unit_test(cursor_over_a_pipe_takes_what_it_needs),
        cmocka_unit_test_teardown(odd_paths_have_their_status, remove_files),
        cmocka_unit_test_teardown(sink_appears_only_when_complete, remove_files),
        cmocka_unit_test_teardown(sink_keeps_an_existing_file, remove_files),
        cmocka_unit_test_teardown(sink_errors_stick, remove_files),
        cmocka_unit_test(memory_sink_obeys_the_ceiling),
        cmocka_unit_test_teardown(nothing_remains_of_a_killed_writer, remove_files),
    };
    return cmocka_run_group_tests(tests, make_dir, remove_dir);
}
