#include "io_temp.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#define MARK_CHARS     6
#define SUFFIX         ".tmp"
#define MAX_BASE_BYTES 200 /* of the target's name inside the temporary's: the sum stays under NAME_MAX */
_Static_assert(1 + MAX_BASE_BYTES + 1 + MARK_CHARS + sizeof SUFFIX <= NAME_MAX, "the name fits");

char *apr_temp_path(struct apr_arena *a, const char *target, const char *base)
{
    static const char digits[] = "abcdefghijklmnopqrstuvwxyz0123456789";
    static unsigned n_made;
    unsigned char noise[MARK_CHARS];
    char mark[MARK_CHARS + 1] = {0};
    if (getrandom(noise, sizeof noise, 0) != sizeof noise) {
        unsigned seed = (unsigned)getpid() + 65537U * n_made++;
        for (size_t i = 0; i < sizeof noise; i++, seed /= 36) noise[i] = (unsigned char)(seed % 36);
    }
    for (size_t i = 0; i < sizeof noise; i++) mark[i] = digits[noise[i] % (sizeof digits - 1)];
    return apr_arena_printf(a, "%.*s.%.*s.%s" SUFFIX, (int)(base - target), target, MAX_BASE_BYTES, base,
                            mark);
}

bool apr_temp_lock(int fd)
{
    struct stat st;
    if (flock(fd, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK) return false; /* being swept right now */
    return fstat(fd, &st) == 0 && st.st_nlink > 0;
}

static bool is_temporary_of(const char *base, const char *name)
{
    size_t n_base = strnlen(base, MAX_BASE_BYTES);
    return name[0] == '.' && strncmp(name + 1, base, n_base) == 0 &&
           strlen(name) == 1 + n_base + 1 + MARK_CHARS + strlen(SUFFIX) && name[1 + n_base] == '.' &&
           strcmp(name + 1 + n_base + 1 + MARK_CHARS, SUFFIX) == 0;
}

void apr_temp_sweep(const char *parent, const char *base, mode_t kind, void (*remove_one)(const char *path))
{
    const struct dirent *entry;
    DIR *dir = opendir(parent);
    while (dir && (entry = readdir(dir)) != NULL) {
        char path[PATH_MAX];
        struct stat st;
        if (!is_temporary_of(base, entry->d_name)) continue;
        int n = snprintf(path, sizeof path, "%s/%s", parent, entry->d_name);
        if (n < 0 || (size_t)n >= sizeof path) continue;
        int fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC | O_NOFOLLOW);
        if (fd < 0) continue;
        if (fstat(fd, &st) == 0 && (st.st_mode & S_IFMT) == kind && st.st_uid == geteuid() &&
            flock(fd, LOCK_EX | LOCK_NB) == 0)
            remove_one(path);
        close(fd);
    }
    if (dir) closedir(dir);
}
