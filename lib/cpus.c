/* /proc/self/cgroup names the groups: "0::/a/b" of the unified hierarchy (cgroups(7)), "4:cpu,cpuacct:/a/b"
 * of the first version. Inside a container the path may be that of the host; then the group is mounted as the
 * root. */
#include "cpus.h"

#include <errno.h>
#include <sched.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_PATH_BYTES 4096
#define MAX_LINE_BYTES 4200

/* The first line of a file. */
static bool read_line(const char *path, char *line, int n_line)
{
    FILE *f = fopen(path, "re");
    bool ok = f && fgets(line, n_line, f);
    if (f) (void)fclose(f);
    return ok;
}

/* The unsigned number that *at begins with; *at is left behind it. */
static bool take_u64(const char **at, uint64_t *v)
{
    char *end;
    while (**at == ' ') ++*at;
    if (**at < '0' || **at > '9') return false;
    errno = 0;
    *v = strtoull(*at, &end, 10);
    *at = end;
    return errno == 0;
}

static unsigned at_least_one(uint64_t quota, uint64_t period)
{
    uint64_t n = quota / period + (quota % period != 0);
    return n < 1 ? 1 : n > APR_MAX_CPUS ? APR_MAX_CPUS : (unsigned)n;
}

/* "150000 100000", or "max 100000". */
static unsigned quota_v2(const char *dir)
{
    char path[MAX_PATH_BYTES + 32], line[128];
    uint64_t quota, period;
    (void)snprintf(path, sizeof path, "%s/cpu.max", dir);
    const char *at = line;
    if (!read_line(path, line, sizeof line)) return 0;
    if (!take_u64(&at, &quota) || !take_u64(&at, &period) || !period) return 0;
    return at_least_one(quota, period);
}

/* Two files; a quota of -1 is none. */
static unsigned quota_v1(const char *dir)
{
    char path[MAX_PATH_BYTES + 32], line[128];
    uint64_t quota, period;
    const char *at = line;
    (void)snprintf(path, sizeof path, "%s/cpu.cfs_quota_us", dir);
    if (!read_line(path, line, sizeof line) || !take_u64(&at, &quota) || !quota) return 0;
    (void)snprintf(path, sizeof path, "%s/cpu.cfs_period_us", dir);
    at = line;
    if (!read_line(path, line, sizeof line) || !take_u64(&at, &period) || !period) return 0;
    return at_least_one(quota, period);
}

static unsigned least(unsigned a, unsigned b)
{
    return !a ? b : !b ? a : a < b ? a : b;
}

/* The group and all above it, up to where the hierarchy is mounted. */
static unsigned quota_upwards(const char *mount, const char *group, unsigned (*of)(const char *dir))
{
    char dir[MAX_PATH_BYTES];
    size_t n_mount = strlen(mount);
    unsigned n = 0;
    int n_dir = snprintf(dir, sizeof dir, "%s%s", mount, group);
    if (n_dir < 0 || (size_t)n_dir >= sizeof dir) return of(mount);
    for (;;) {
        n = least(n, of(dir));
        char *slash = strrchr(dir, '/');
        if (!slash || strlen(dir) <= n_mount) return n;
        *slash = '\0';
    }
}

/* Whether the list "cpu,cpuacct" names cpu. */
static bool names_cpu(const char *list)
{
    for (const char *p = list; p;) {
        size_t n = strcspn(p, ",");
        if (n == 3 && !memcmp(p, "cpu", 3)) return true;
        p = p[n] ? p + n + 1 : NULL;
    }
    return false;
}

/* One line of /proc/self/cgroup. */
static unsigned quota_of_line(const char *root, char *line)
{
    char mount[MAX_PATH_BYTES];
    line[strcspn(line, "\n")] = '\0';
    char *list = strchr(line, ':'), *colon = list ? strchr(list + 1, ':') : NULL;
    if (!colon || colon[1] != '/') return 0;
    const char *group = colon + 1;
    *colon = '\0';
    list++;
    if (strstr(group, "/..")) group = ""; /* outside of what this container sees */
    if (!*list) {
        (void)snprintf(mount, sizeof mount, "%s/sys/fs/cgroup", root);
        return quota_upwards(mount, group, quota_v2);
    }
    if (!names_cpu(list)) return 0;
    (void)snprintf(mount, sizeof mount, "%s/sys/fs/cgroup/%s", root, list);
    unsigned n = quota_upwards(mount, group, quota_v1);
    if (n) return n;
    (void)snprintf(mount, sizeof mount, "%s/sys/fs/cgroup/cpu", root);
    return quota_upwards(mount, group, quota_v1);
}

unsigned apr_cpus_quota(const char *root)
{
    char path[MAX_PATH_BYTES], line[MAX_LINE_BYTES];
    unsigned n = 0;
    (void)snprintf(path, sizeof path, "%s/proc/self/cgroup", root);
    FILE *f = fopen(path, "re");
    if (!f) return 0;
    while (fgets(line, sizeof line, f)) n = least(n, quota_of_line(root, line));
    (void)fclose(f);
    return n;
}

struct mask {
    cpu_set_t sets[APR_MAX_CPUS / CPU_SETSIZE];
};
_Static_assert(APR_MAX_CPUS % CPU_SETSIZE == 0, "whole sets");

static bool read_mask(struct mask *m)
{
    memset(m, 0, sizeof *m);
    return !sched_getaffinity(0, sizeof m->sets, m->sets);
}

static bool is_first_of_core(unsigned cpu)
{
    char path[128], line[MAX_LINE_BYTES];
    uint64_t first;
    const char *at = line;
    (void)snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu%u/topology/thread_siblings_list", cpu);
    return !read_line(path, line, sizeof line) || !take_u64(&at, &first) || first == cpu;
}

unsigned apr_cpus_usable(void)
{
    struct mask m;
    int n = read_mask(&m) ? CPU_COUNT_S(sizeof m.sets, m.sets) : 1;
    return least(n < 1 ? 1 : (unsigned)n, apr_cpus_quota(""));
}

size_t apr_cpus_list(unsigned *cpus, size_t n_max)
{
    struct mask m;
    size_t n = 0;
    if (!read_mask(&m)) return 0;
    for (int first = 1; first >= 0; first--)
        for (unsigned c = 0; c < APR_MAX_CPUS && n < n_max; c++)
            if (CPU_ISSET_S(c, sizeof m.sets, m.sets) && is_first_of_core(c) == first) cpus[n++] = c;
    return n;
}
