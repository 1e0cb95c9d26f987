/* The kernel's view of memory: /proc/meminfo and the limits of control groups, versions 1 and 2. */
#include "room.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "io.h"

#define MAX_FILE_BYTES 65536

/* Text of a small file, NUL-terminated; false: not to be read. */
static bool text_of(const char *path, struct apr_buf *b)
{
    struct apr_err why = {0};
    apr_buf_init(b, MAX_FILE_BYTES + 1);
    if (apr_read_file(path, MAX_FILE_BYTES, b, &why) == APR_OK && apr_buf_append(b, "", 1, &why) == APR_OK)
        return true;
    apr_buf_free(b);
    return false;
}

/* The decimal behind key in a text, spaces before it skipped; UINT64_MAX where there is none. */
static uint64_t number_after(const char *text, const char *key)
{
    const char *at = strstr(text, key);
    if (!at) return UINT64_MAX;
    at += strlen(key);
    at += strspn(at, " ");
    return *at >= '0' && *at <= '9' ? strtoull(at, NULL, 10) : UINT64_MAX;
}

/* The number after key in a file; UINT64_MAX when the file or the key is absent, or it says "max". */
static uint64_t number_in(const char *folder, const char *name, const char *key)
{
    char path[4200];
    struct apr_buf b;
    if (snprintf(path, sizeof path, "%s/%s", folder, name) >= (int)sizeof path || !text_of(path, &b))
        return UINT64_MAX;
    uint64_t v = number_after((const char *)b.data, key);
    apr_buf_free(&b);
    return v;
}

/* Where one version of control groups keeps its numbers. */
struct version {
    const char *line; /* of /proc/self/cgroup, before the group's path */
    const char *root, *most, *now;
    const char *file_keys[2]; /* of memory.stat: cached files, which make way */
};
static const struct version versions[] = {
    {"0::", "/sys/fs/cgroup", "memory.max", "memory.current", {"\nactive_file ", "\ninactive_file "}},
    {":memory:",
     "/sys/fs/cgroup/memory",
     "memory.limit_in_bytes",
     "memory.usage_in_bytes",
     {"\ntotal_active_file ", "\ntotal_inactive_file "}},
};

static uint64_t left_in_group(const struct version *v, const char *folder)
{
    uint64_t n_max = number_in(folder, v->most, ""), n_now = number_in(folder, v->now, "");
    if (n_max == UINT64_MAX || n_now == UINT64_MAX) return UINT64_MAX;
    for (int i = 0; i < 2; i++) {
        uint64_t n_cached = number_in(folder, "memory.stat", v->file_keys[i]);
        if (n_cached <= n_now) n_now -= n_cached;
    }
    return n_max > n_now ? n_max - n_now : 0;
}

/* The least of what this process's group and all groups around it leave. */
static uint64_t left_in_groups(const struct version *v, const char *groups)
{
    char folder[4096];
    uint64_t n_left = UINT64_MAX;
    const char *line = strstr(groups, v->line);
    if (!line) return n_left;
    line += strlen(v->line);
    if (snprintf(folder, sizeof folder, "%s%.*s", v->root, (int)strcspn(line, "\n"), line) >=
        (int)sizeof folder)
        return n_left;
    for (char *end = folder + strlen(folder); end >= folder + strlen(v->root);) {
        *end = '\0';
        uint64_t n = left_in_group(v, folder);
        if (n < n_left) n_left = n;
        end = strrchr(folder, '/');
    }
    return n_left;
}

uint64_t apr_memory_available(void)
{
    struct apr_buf b;
    if (!text_of("/proc/meminfo", &b)) return 0;
    uint64_t n_kib = number_after((const char *)b.data, "MemAvailable:");
    apr_buf_free(&b);
    uint64_t n_left = n_kib == UINT64_MAX ? 0 : n_kib > UINT64_MAX / 1024 ? UINT64_MAX : n_kib * 1024;
    if (!text_of("/proc/self/cgroup", &b)) return n_left;
    for (size_t i = 0; i < sizeof versions / sizeof *versions; i++) {
        uint64_t n = left_in_groups(&versions[i], (const char *)b.data);
        if (n < n_left) n_left = n;
    }
    apr_buf_free(&b);
    return n_left;
}

void *apr_room_open(size_t n_bytes)
{
    void *p = mmap(NULL, n_bytes ? n_bytes : 1, PROT_READ | PROT_WRITE,
                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED) return NULL;
    /* a wish: without huge pages the room serves as well */
    madvise(p, n_bytes, MADV_HUGEPAGE);
    return p;
}

void apr_room_close(void *p, size_t n_bytes)
{
    if (p) munmap(p, n_bytes ? n_bytes : 1);
}
