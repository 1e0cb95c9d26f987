/* Quotas of control groups, of both versions, from trees of files as systems and containers show them. */
#include <ftw.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "cpus.h"

static char root[64];

static void put(const char *path, const char *text)
{
    char full[512];
    assert_true(snprintf(full, sizeof full, "%s/%s", root, path) < (int)sizeof full);
    for (char *p = full + strlen(root) + 1; (p = strchr(p, '/')); p++) {
        *p = '\0';
        (void)mkdir(full, 0777);
        *p = '/';
    }
    FILE *f = fopen(full, "w");
    assert_non_null(f);
    assert_true(fputs(text, f) >= 0);
    assert_int_equal(fclose(f), 0);
}

static int make_root(void **state)
{
    (void)state;
    (void)snprintf(root, sizeof root, "/tmp/test_cpus.XXXXXX");
    return mkdtemp(root) ? 0 : -1;
}

static int remove_one(const char *path, const struct stat *st, int kind, struct FTW *at)
{
    (void)st;
    (void)kind;
    (void)at;
    return remove(path);
}

static int remove_root(void **state)
{
    (void)state;
    return nftw(root, remove_one, 8, FTW_DEPTH | FTW_PHYS);
}

static void unified(void **state)
{
    (void)state;
    assert_int_equal(apr_cpus_quota(root), 0); /* no files at all */
    put("proc/self/cgroup", "0::/slurm/job/step\n");
    assert_int_equal(apr_cpus_quota(root), 0);
    put("sys/fs/cgroup/slurm/job/step/cpu.max", "max 100000\n");
    assert_int_equal(apr_cpus_quota(root), 0);
    put("sys/fs/cgroup/slurm/job/step/cpu.max", "150000 100000\n");
    assert_int_equal(apr_cpus_quota(root), 2);
    put("sys/fs/cgroup/slurm/job/step/cpu.max", "20000 100000\n");
    assert_int_equal(apr_cpus_quota(root), 1);
    put("sys/fs/cgroup/slurm/job/step/cpu.max", "800000 100000\n");
    put("sys/fs/cgroup/slurm/cpu.max", "300000 100000\n"); /* above it, less */
    assert_int_equal(apr_cpus_quota(root), 3);
    put("sys/fs/cgroup/cpu.max", "200000 100000\n"); /* the mount itself */
    assert_int_equal(apr_cpus_quota(root), 2);
}

static void container(void **state)
{
    (void)state;
    put("proc/self/cgroup", "0::/\n");
    put("sys/fs/cgroup/cpu.max", "400000 100000\n");
    assert_int_equal(apr_cpus_quota(root), 4);
    put("proc/self/cgroup", "0::/../../other\n"); /* a path of the host */
    assert_int_equal(apr_cpus_quota(root), 4);
}

static void first_version(void **state)
{
    (void)state;
    put("proc/self/cgroup", "9:memory:/m\n4:cpu,cpuacct:/docker/abc\n2:cpuset:/\n0::/\n");
    put("sys/fs/cgroup/cpu,cpuacct/docker/abc/cpu.cfs_quota_us", "250000\n");
    put("sys/fs/cgroup/cpu,cpuacct/docker/abc/cpu.cfs_period_us", "100000\n");
    assert_int_equal(apr_cpus_quota(root), 3);
    put("sys/fs/cgroup/cpu,cpuacct/docker/abc/cpu.cfs_quota_us", "-1\n");
    assert_int_equal(apr_cpus_quota(root), 0);
    put("proc/self/cgroup", "1:cpu:/\n");
    put("sys/fs/cgroup/cpu/cpu.cfs_quota_us", "600000\n");
    put("sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000\n");
    assert_int_equal(apr_cpus_quota(root), 6);
}

static void nonsense(void **state)
{
    static const char *const lines[] = {"\n", "0\n", "0::\n", "::\n", "x", "0::relative\n", "4:cpu\n", ""};
    static const char *const quotas[] = {"", "\n", "x y\n", "5\n", "100000 0\n", "-5 100000\n"};
    (void)state;
    for (size_t i = 0; i < sizeof lines / sizeof *lines; i++) {
        put("proc/self/cgroup", lines[i]);
        assert_int_equal(apr_cpus_quota(root), 0);
    }
    put("proc/self/cgroup", "0::/\n");
    for (size_t i = 0; i < sizeof quotas / sizeof *quotas; i++) {
        put("sys/fs/cgroup/cpu.max", quotas[i]);
        assert_in_range(apr_cpus_quota(root), 0, APR_MAX_CPUS);
    }
    put("sys/fs/cgroup/cpu.max", "99999999999999999 100000\n");
    assert_int_equal(apr_cpus_quota(root), APR_MAX_CPUS);
}

static void this_machine(void **state)
{
    unsigned cpus[APR_MAX_CPUS], n = apr_cpus_usable();
    size_t n_listed = apr_cpus_list(cpus, APR_MAX_CPUS);
    (void)state;
    assert_in_range(n, 1, n_listed);
    for (size_t i = 0; i < n_listed; i++)
        for (size_t k = 0; k < i; k++) assert_int_not_equal(cpus[i], cpus[k]);
    assert_int_equal(apr_cpus_list(cpus, 1), 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(unified, make_root, remove_root),
        cmocka_unit_test_setup_teardown(container, make_root, remove_root),
        cmocka_unit_test_setup_teardown(first_version, make_root, remove_root),
        cmocka_unit_test_setup_teardown(nonsense, make_root, remove_root),
        cmocka_unit_test(this_machine),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
