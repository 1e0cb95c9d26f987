/* The gate on a real model, and the stamps that spare its scan. Run from the project root. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <dirent.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "load.h"

#define MODEL "tests/data/apr-demo-8M-Instruct"
#define SHARD "model-00002-of-00004.safetensors"

static char home[] = "/tmp/apr-stamp.XXXXXX";
static char folder[64], stamps[64], shard[128];
static struct apr_pool *pool;

static void copy(const char *from, const char *to)
{
    static char buf[1 << 16];
    FILE *in = fopen(from, "rb"), *out = fopen(to, "wb");
    size_t n;
    assert_non_null(in);
    assert_non_null(out);
    while ((n = fread(buf, 1, sizeof buf, in)) > 0) assert_int_equal(fwrite(buf, 1, n, out), n);
    fclose(in);
    assert_int_equal(fclose(out), 0);
}

/* The model's folder as links, one shard as a copy of our own. */
static int setup(void **state)
{
    char from[PATH_MAX], to[PATH_MAX], cwd[PATH_MAX / 2];
    struct dirent *d;
    (void)state;
    assert_non_null(mkdtemp(home));
    assert_non_null(getcwd(cwd, sizeof cwd));
    snprintf(folder, sizeof folder, "%s/model", home);
    snprintf(stamps, sizeof stamps, "%s/stamps", home);
    snprintf(shard, sizeof shard, "%s/" SHARD, folder);
    assert_int_equal(mkdir(folder, 0777), 0);
    DIR *dir = opendir(MODEL);
    assert_non_null(dir);
    while ((d = readdir(dir))) {
        if (d->d_name[0] == '.') continue;
        snprintf(from, sizeof from, "%s/" MODEL "/%s", cwd, d->d_name);
        snprintf(to, sizeof to, "%s/%s", folder, d->d_name);
        if (strcmp(d->d_name, SHARD) == 0)
            copy(from, to);
        else
            assert_int_equal(symlink(from, to), 0);
    }
    closedir(dir);
    setenv("APR_HOME", home, 1);
    pool = apr_pool_open(2);
    return 0;
}

static void empty(const char *path)
{
    char name[PATH_MAX];
    struct dirent *d;
    DIR *dir = opendir(path);
    while (dir && (d = readdir(dir))) {
        if (strcmp(d->d_name, ".") == 0 || strcmp(d->d_name, "..") == 0) continue;
        snprintf(name, sizeof name, "%s/%s", path, d->d_name);
        unlink(name);
    }
    if (dir) closedir(dir);
    rmdir(path);
}

static int teardown(void **state)
{
    (void)state;
    apr_pool_close(pool);
    empty(folder);
    empty(stamps);
    return rmdir(home);
}

static enum apr_code check(bool skip, bool *stamped, struct apr_err *e)
{
    struct apr_model *m;
    struct apr_checked_model checked;
    if (apr_load_model(folder, APR_LOAD_RANDOM, &m, e) != APR_OK) fail_msg("%s", e->text);
    enum apr_code code = apr_contract_check(m, &apr_kern_scalar, pool, skip, &checked, e);
    *stamped = checked.stamped;
    if (code == APR_OK) {
        assert_ptr_equal(checked.model, m);
        assert_int_equal(checked.skipped, skip);
    } else {
        assert_null(checked.model);
    }
    apr_model_close(m);
    return code;
}

static void expect(bool skip, enum apr_code want, bool want_stamped)
{
    struct apr_err e = {.text = ""};
    bool stamped;
    enum apr_code code = check(skip, &stamped, &e);
    if (code != want) fail_msg("status %d: %s", (int)code, e.text);
    assert_int_equal(stamped, want_stamped);
}

/* The only file in the folder of stamps. */
static void stamp_path(char *out, size_t n_out)
{
    struct dirent *d;
    DIR *dir = opendir(stamps);
    int n = 0;
    assert_non_null(dir);
    while ((d = readdir(dir))) {
        if (d->d_name[0] == '.') continue;
        snprintf(out, n_out, "%s/%s", stamps, d->d_name);
        n++;
    }
    closedir(dir);
    assert_int_equal(n, 1);
}

static void put_byte(const char *path, long off, int byte)
{
    FILE *f = fopen(path, "r+b");
    assert_non_null(f);
    assert_int_equal(fseek(f, off, off < 0 ? SEEK_END : SEEK_SET), 0);
    assert_int_equal(fputc(byte, f), byte);
    assert_int_equal(fclose(f), 0);
}

static void test_second_time(void **state)
{
    (void)state;
    expect(false, APR_OK, false);
    expect(false, APR_OK, true);
    expect(true, APR_OK, false); /* --skip-contract neither needs nor makes one */
    expect(false, APR_OK, true);
}

/* Cut, changed by a bit, empty, a folder in its place: ignored, and replaced where that is possible. */
static void test_corrupt_stamp(void **state)
{
    (void)state;
    char path[PATH_MAX];
    expect(false, APR_OK, true);
    stamp_path(path, sizeof path);
    put_byte(path, 12, 'x');
    expect(false, APR_OK, false);
    expect(false, APR_OK, true);
    assert_int_equal(truncate(path, 30), 0);
    expect(false, APR_OK, false);
    expect(false, APR_OK, true);
    assert_int_equal(truncate(path, 0), 0);
    expect(false, APR_OK, false);
    assert_int_equal(unlink(path), 0);
    assert_int_equal(mkdir(path, 0777), 0);
    expect(false, APR_OK, false);
    expect(false, APR_OK, false);
    assert_int_equal(rmdir(path), 0);
    expect(false, APR_OK, false);
    expect(false, APR_OK, true);
}

/* A touched file is scanned again; a changed one is refused although the old stamp is still there. */
static void test_changed_file(void **state)
{
    (void)state;
    struct apr_err e;
    bool stamped;
    struct timespec times[2] = {{.tv_sec = 1000000000}, {.tv_sec = 1000000000, .tv_nsec = 5}};
    expect(false, APR_OK, true);
    assert_int_equal(utimensat(AT_FDCWD, shard, times, 0), 0);
    expect(false, APR_OK, false);
    expect(false, APR_OK, true);
    put_byte(shard, -1, 0x7f); /* the upper byte of a BF16: NaN with what is below, or infinite, or huge */
    put_byte(shard, -2, 0xc0);
    assert_int_equal(check(false, &stamped, &e), APR_ECONTRACT);
    assert_non_null(strstr(e.text, "F-DATA-QUALITY-002"));
    expect(true, APR_OK, false);
    assert_int_equal(check(false, &stamped, &e), APR_ECONTRACT); /* nothing vouches for it since */
    assert_false(stamped);
}

/* No place for stamps: the scan is done each time, and that is all. */
static void test_no_home(void **state)
{
    (void)state;
    copy(MODEL "/" SHARD, shard);
    setenv("APR_HOME", "/proc/no/such", 1);
    expect(false, APR_OK, false);
    expect(false, APR_OK, false);
    unsetenv("APR_HOME");
    char *old_home = getenv("HOME") ? strdup(getenv("HOME")) : NULL;
    unsetenv("XDG_CACHE_HOME");
    unsetenv("HOME");
    expect(false, APR_OK, false);
    if (old_home) setenv("HOME", old_home, 1);
    free(old_home);
    setenv("APR_HOME", home, 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_second_time),
        cmocka_unit_test(test_corrupt_stamp),
        cmocka_unit_test(test_changed_file),
        cmocka_unit_test(test_no_home),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
