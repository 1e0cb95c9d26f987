/* Folders that appear only when they are complete. See io.h; temporaries are named and held by io_temp.h. */
#include "io.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "arena.h"
#include "io_temp.h"

#define N_TRIES 100

struct apr_dir {
    struct apr_arena arena; /* owns this struct and its strings */
    const char *name;       /* escaped, for messages */
    const char *target, *parent, *base;
    char *temp;
    int fd_lock; /* of temp */
    bool force;
};

/* The one unfinished folder of this program, for the handlers of signals. */
static _Atomic(char *) unfinished;
static atomic_int unfinished_owner;

/* What getdents64 delivers. Source: getdents(2). */
struct entry {
    uint64_t inode;
    int64_t off_next;
    uint16_t n_bytes;
    uint8_t type;
    char name[];
};

static bool remove_entry(int fd, const char *name, int depth);

/* Removes what a folder holds; closes fd. Only async-signal-safe calls. */
static void remove_content(int fd, int depth)
{
    _Alignas(struct entry) char buf[4096];
    for (int pass = 0; fd >= 0 && pass < 64; pass++) { /* entries may be skipped while others vanish */
        long n, n_removed = 0;
        if (lseek(fd, 0, SEEK_SET) != 0) break;
        while ((n = syscall(SYS_getdents64, fd, buf, sizeof buf)) > 0) {
            for (long at = 0; at < n;) {
                const struct entry *d = (const void *)(buf + at);
                at += d->n_bytes;
                if (strcmp(d->name, ".") != 0 && strcmp(d->name, "..") != 0)
                    n_removed += remove_entry(fd, d->name, depth);
            }
        }
        if (n_removed == 0) break;
    }
    if (fd >= 0) close(fd);
}

/* A file, or a folder of files. */
static bool remove_entry(int fd, const char *name, int depth)
{
    if (unlinkat(fd, name, 0) == 0) return true;
    if (depth == 0) return false;
    remove_content(openat(fd, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW), depth - 1);
    return unlinkat(fd, name, AT_REMOVEDIR) == 0;
}

/* Removes a folder of files and of folders of files. */
static void remove_folder(const char *path)
{
    remove_content(open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW), 1);
    rmdir(path);
}

void apr_dir_cleanup(void)
{
    if (atomic_load(&unfinished_owner) != (int)getpid()) return;
    char *path = atomic_exchange(&unfinished, NULL);
    if (path) remove_folder(path);
}

/* Files that a model folder holds; a folder with anything else is not replaced. */
static bool is_model_file(const char *name)
{
    static const char *const suffixes[] = {".json", ".safetensors", ".md", ".txt", ".model", ".jinja"};
    size_t n = strlen(name);
    for (size_t i = 0; i < sizeof suffixes / sizeof *suffixes; i++) {
        size_t k = strlen(suffixes[i]);
        if (n > k && name[0] != '.' && strcmp(name + n - k, suffixes[i]) == 0) return true;
    }
    return false;
}

/* "1_Pooling": a folder of a module, with files of a model and nothing else. */
static bool is_module_folder(const char *dir, const char *name)
{
    const struct dirent *entry;
    char path[PATH_MAX];
    bool good = true;
    int n = snprintf(path, sizeof path, "%s/%s", dir, name);
    size_t n_digits = strspn(name, "0123456789");
    if (!n_digits || name[n_digits] != '_' || n <= 0 || (size_t)n >= sizeof path) return false;
    DIR *d = opendir(path);
    if (!d) return false;
    while (good && (entry = readdir(d)) != NULL)
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
            good = is_model_file(entry->d_name) && entry->d_type != DT_DIR;
    closedir(d);
    return good;
}

static enum apr_code check_target(const struct apr_dir *d, struct apr_err *e)
{
    struct stat st;
    const struct dirent *entry;
    enum apr_code code = APR_OK;
    DIR *dir;
    if (stat(d->target, &st) != 0) return APR_OK;
    if (!S_ISDIR(st.st_mode))
        return apr_fail(e, APR_EUSAGE, "%s: is a file, expected a folder to write", d->name);
    dir = opendir(d->target);
    if (!dir) return apr_fail(e, APR_EIO, "%s: %s", d->name, strerror(errno));
    while (code == APR_OK && (entry = readdir(dir)) != NULL) {
        char shown[256];
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0) continue;
        if (!d->force)
            code = apr_fail(e, APR_EUSAGE, "%s: exists already; --force replaces it", d->name);
        else if (entry->d_type == DT_DIR ? !is_module_folder(d->target, entry->d_name)
                                         : !is_model_file(entry->d_name))
            code = apr_fail(e, APR_EUSAGE, "%s: holds %s, which is no file of a model; it is not replaced",
                            d->name, apr_escape(shown, sizeof shown, entry->d_name, strlen(entry->d_name)));
    }
    closedir(dir);
    return code;
}

static enum apr_code make_temp(struct apr_dir *d, struct apr_err *e)
{
    for (int i = 0; i < N_TRIES; i++) {
        char *path = apr_temp_path(&d->arena, d->target, d->base);
        if (mkdir(path, 0777) != 0) {
            if (errno == EEXIST) continue;
            break;
        }
        if (atomic_exchange(&unfinished_owner, (int)getpid()) == 0) atexit(apr_dir_cleanup);
        atomic_store(&unfinished, path);
        d->temp = path;
        d->fd_lock = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (d->fd_lock >= 0 && apr_temp_lock(d->fd_lock)) return APR_OK;
        if (d->fd_lock < 0 && errno != ENOENT) break;
        /* Swept between its making and its lock. */
        if (d->fd_lock >= 0) close(d->fd_lock);
        d->fd_lock = -1;
        atomic_store(&unfinished, NULL);
        d->temp = NULL;
    }
    return apr_fail(e, APR_EIO, "%s: cannot create: %s", d->name, strerror(errno));
}

/* A link stands for what it points to; slashes at the end do not count. */
static void split_path(struct apr_dir *d, const char *path)
{
    char *real = realpath(path, NULL);
    char *target = apr_arena_strdup(&d->arena, real ? real : path);
    free(real);
    for (size_t n = strlen(target); n > 1 && target[n - 1] == '/'; n--) target[n - 1] = '\0';
    char *slash = strrchr(target, '/');
    d->target = target;
    d->base = slash ? slash + 1 : target;
    d->parent =
        slash ? apr_arena_strndup(&d->arena, target, (size_t)(slash - target) + (slash == target)) : ".";
}

enum apr_code apr_dir_open(struct apr_dir **out, const char *path, bool force, struct apr_err *e)
{
    struct apr_arena arena;
    char name[512];
    apr_arena_init(&arena);
    struct apr_dir *d = apr_arena_get(&arena, sizeof *d);
    apr_escape(name, sizeof name, path, strlen(path));
    d->name = apr_arena_strdup(&arena, name);
    d->arena = arena;
    d->force = force;
    d->fd_lock = -1;
    split_path(d, path);
    *out = NULL;
    enum apr_code code = APR_OK;
    if (*d->base == '\0' || strcmp(d->base, ".") == 0 || strcmp(d->base, "..") == 0)
        code = apr_fail(e, APR_EUSAGE, "%s: expected the name of a folder", d->name);
    if (code == APR_OK) code = check_target(d, e);
    if (code == APR_OK) apr_temp_sweep(d->parent, d->base, S_IFDIR, remove_folder);
    if (code == APR_OK) code = make_temp(d, e);
    if (code != APR_OK) {
        apr_dir_abort(d);
        return code;
    }
    *out = d;
    return APR_OK;
}

const char *apr_dir_path(const struct apr_dir *d)
{
    return d->temp;
}

/* An old folder changes places with the new one, and goes. */
static enum apr_code publish(struct apr_dir *d, struct apr_err *e)
{
    if (fsync(d->fd_lock) && errno != EINVAL)
        return apr_fail(e, APR_EIO, "%s: cannot write: %s", d->name, strerror(errno));
    TRY(check_target(d, e)); /* somebody may have been here meanwhile */
    if (rename(d->temp, d->target) == 0) {
        d->temp = NULL;
        atomic_store(&unfinished, NULL);
    } else if (!d->force || renameat2(AT_FDCWD, d->temp, AT_FDCWD, d->target, RENAME_EXCHANGE) != 0) {
        return apr_fail(e, APR_EIO, "%s: cannot rename its temporary: %s", d->name, strerror(errno));
    }
    int fd = open(d->parent, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd >= 0 && fsync(fd) && errno != EINVAL && errno != EROFS) {
        close(fd);
        return apr_fail(e, APR_EIO, "%s: cannot sync its directory: %s", d->name, strerror(errno));
    }
    if (fd >= 0) close(fd);
    return APR_OK;
}

enum apr_code apr_dir_finish(struct apr_dir *d, struct apr_err *e)
{
    enum apr_code code = publish(d, e);
    apr_dir_abort(d); /* after an exchange the temporary is the old folder */
    return code;
}

void apr_dir_abort(struct apr_dir *d)
{
    if (!d) return;
    if (d->temp) remove_folder(d->temp);
    if (d->temp) atomic_store(&unfinished, NULL);
    if (d->fd_lock >= 0) close(d->fd_lock);
    struct apr_arena arena = d->arena;
    apr_arena_free(&arena);
}
