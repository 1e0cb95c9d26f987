/* Running another tool of this build. See sibling.h. */
#include "sibling.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <spawn.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <sys/wait.h>
#include <unistd.h>

#include "log.h"

#define MAX_ARGS    16
#define PIECE_BYTES 4096u

extern char **environ;

/* Tools stand together: in bin/ of a build, in libexec/apr after an installation. */
enum apr_code apr_sibling_path(const char *name, char *out, size_t n_out, struct apr_err *e)
{
    char self[PATH_MAX];
    ssize_t n_self = readlink("/proc/self/exe", self, sizeof self - 1);
    if (n_self <= 0) return apr_fail(e, APR_EIO, "/proc/self/exe: %s", strerror(errno));
    self[n_self] = '\0';
    char *slash = strrchr(self, '/');
    if (slash) slash[1] = '\0';
    int n = snprintf(out, n_out, "%s%s", self, name);
    if (n < 0 || (size_t)n >= n_out) return apr_fail(e, APR_EIO, "%s: path too long", name);
    if (access(out, X_OK)) return apr_fail(e, APR_EUNAVAIL, "%s: not built: %s", out, strerror(errno));
    return APR_OK;
}

/* argv as posix_spawn wants it; the strings are not written to. */
static enum apr_code spawn(const char *path, const char *const *argv, int fd_out, pid_t *pid,
                           struct apr_err *e)
{
    char *args[MAX_ARGS + 1] = {NULL};
    posix_spawn_file_actions_t actions;
    for (size_t i = 0; argv[i]; i++) {
        if (i == MAX_ARGS) return apr_fail(e, APR_EUSAGE, "%s: more than %d arguments", argv[0], MAX_ARGS);
        memcpy(&args[i], &argv[i], sizeof args[i]);
    }
    int why = posix_spawn_file_actions_init(&actions);
    if (why) return apr_fail(e, APR_EIO, "%s: %s", path, strerror(why));
    why = posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
    if (!why) why = posix_spawn_file_actions_adddup2(&actions, fd_out, STDOUT_FILENO);
    if (!why) why = posix_spawn(pid, path, &actions, NULL, args, environ);
    posix_spawn_file_actions_destroy(&actions);
    return why ? apr_fail(e, APR_EIO, "%s: cannot run: %s", path, strerror(why)) : APR_OK;
}

static enum apr_code read_all(int fd, struct apr_buf *out, const char *name, struct apr_err *e)
{
    for (;;) {
        uint8_t *at;
        TRY(apr_buf_reserve(out, PIECE_BYTES, &at, e));
        ssize_t n = read(fd, at, PIECE_BYTES);
        if (n == 0) return APR_OK;
        if (n < 0 && errno != EINTR)
            return apr_fail(e, APR_EIO, "%s: cannot read: %s", name, strerror(errno));
        if (n > 0) apr_buf_commit(out, (size_t)n);
    }
}

/* The table of exit statuses is the same for all tools. */
static enum apr_code code_of(int status, const char *name, struct apr_err *e)
{
    static const enum apr_code codes[] = {APR_ENO,   APR_EUSAGE, APR_ENOTFOUND, APR_EFORMAT,  APR_ECONTRACT,
                                          APR_ELOAD, APR_EIO,    APR_EINFER,    APR_EUNAVAIL, APR_ENET};
    int found = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
    if (found == 0) return APR_OK;
    for (size_t i = 0; i < sizeof codes / sizeof codes[0]; i++)
        if (found == (int)codes[i]) return apr_fail(e, codes[i], "%s ended with status %d", name, found);
    if (WIFSIGNALED(status)) return apr_fail(e, APR_EIO, "%s was ended by signal %d", name, WTERMSIG(status));
    return apr_fail(e, APR_EIO, "%s ended with status %d", name, found);
}

enum apr_code apr_sibling_read(const char *const *argv, struct apr_buf *out, struct apr_err *e)
{
    char path[PATH_MAX];
    int fds[2], status = 0;
    pid_t pid = -1;
    TRY(apr_sibling_path(argv[0], path, sizeof path, e));
    if (pipe2(fds, O_CLOEXEC)) return apr_fail(e, APR_EIO, "%s: %s", path, strerror(errno));
    enum apr_code code = spawn(path, argv, fds[1], &pid, e);
    close(fds[1]);
    if (code == APR_OK) code = read_all(fds[0], out, argv[0], e);
    close(fds[0]); /* a child that still writes gets SIGPIPE, so waiting for it ends */
    if (pid < 0) return code;
    while (waitpid(pid, &status, 0) < 0)
        if (errno != EINTR) return apr_fail(e, APR_EIO, "%s: %s", argv[0], strerror(errno));
    return code != APR_OK ? code : code_of(status, argv[0], e);
}

bool apr_sibling_is_remote(const char *path)
{
    return strncasecmp(path, "hf://", 5) == 0;
}

enum apr_code apr_sibling_pull(const char *name, char *path, size_t n_path, struct apr_err *e)
{
    struct apr_buf out;
    const char *argv[6] = {"apr-pull", "pull"};
    size_t n = 2;
    if (apr_log_get() == APR_LOG_QUIET) argv[n++] = "--quiet";
    if (apr_log_get() == APR_LOG_VERBOSE) argv[n++] = "--verbose";
    argv[n++] = "--";
    argv[n] = name;
    apr_buf_init(&out, 2 * PIECE_BYTES + PATH_MAX);
    enum apr_code code = apr_sibling_read(argv, &out, e);
    if (code == APR_OK) {
        size_t n_text = out.n_bytes;
        while (n_text && out.data[n_text - 1] == '\n') n_text--;
        if (n_text == 0 || n_text >= n_path)
            code = apr_fail(e, APR_EIO, "apr-pull printed no usable path");
        else
            snprintf(path, n_path, "%.*s", (int)n_text, (const char *)out.data);
    }
    apr_buf_free(&out);
    if (code != APR_OK) apr_err_prefix(e, "%s", name);
    return code;
}
