/* Hazards of failure: a device that hangs, is shared, is full or lost. Each is an error of the call, and the
 * process goes on. */
#include <math.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "rig.h"

extern char **environ;

static struct toy ordinary(void)
{
    struct toy t = {.n_layers = 2,
                    .n_hidden = 256,
                    .n_heads = 4,
                    .n_heads_kv = 2,
                    .head_dim = 64,
                    .n_inter = 512,
                    .n_vocab = 700,
                    .type = APR_Q8_0};
    toy_draw(&t);
    toy_seal(&t);
    return t;
}

static enum apr_gpu_status choose(struct rig *r, struct apr_gpu_model *m, struct apr_gpu_seq *q, uint32_t n,
                                  int32_t *out)
{
    uint32_t n_out;
    r->g->seq_truncate(q, 0);
    return r->g->greedy(m, q, 5, n, NULL, 0, out, &n_out, &r->e);
}

/* A step that does not end: an error in time, an error at once while it goes on, and results as before when
 * it has ended. Planted: there is time enough, so that no error comes. */
bool hazard_hang(struct rig *r, bool bad)
{
    struct toy t = ordinary();
    struct apr_gpu_model *m = NULL;
    const struct apr_gpu_opts o = {.n_ctx = 64, .n_chunk = 64, .timeout_s = bad ? 20 : 0.5};
    int32_t before[20], after[20];
    rig_must(r, r->g->model_open(r->dev, &t.desc, &o, NULL, NULL, &m, &r->e), "model");
    struct apr_gpu_seq *q = rig_seq(r, m, 64);
    rig_must(r, choose(r, m, q, 20, before), "before");
    rig_must(r, r->g->fault(r->dev, APR_GPU_FAULT_SPIN, &r->e), "fault");
    double t0 = rig_now();
    enum apr_gpu_status first = choose(r, m, q, 20, after);
    double first_s = rig_now() - t0;
    t0 = rig_now();
    enum apr_gpu_status second = choose(r, m, q, 20, after);
    double second_s = rig_now() - t0;
    for (int i = 0; i < 100 && choose(r, m, q, 20, after) != APR_GPU_OK; i++)
        nanosleep(&(struct timespec){0, 100000000}, NULL);
    enum apr_gpu_status last = choose(r, m, q, 20, after);
    bool same = last == APR_GPU_OK && !memcmp(before, after, sizeof before);
    r->g->seq_close(q);
    r->g->model_close(m);
    toy_free(&t);
    rig_note(r, "lost after %.2f s (limit 0.5), again after %.4f s; when it had ended the answer was %s",
             first_s, second_s, same ? "the same" : "another");
    return first == APR_GPU_LOST && first_s < 2 && second == APR_GPU_LOST && second_s < 0.1 && same;
}

int rig_hold(struct rig *r)
{
    struct toy t = ordinary();
    struct apr_gpu_model *m = rig_model(r, &t, false, 64);
    rig_must(r, r->g->fault(r->dev, APR_GPU_FAULT_SPIN, &r->e), "fault");
    if (write(1, "held\n", 5) != 5) return 7;
    int32_t out[1];
    struct apr_gpu_seq *q = rig_seq(r, m, 64);
    rig_must(r, choose(r, m, q, 1, out), "the end");
    r->g->seq_close(q);
    r->g->model_close(m);
    toy_free(&t);
    return 0;
}

/* The same program beside us, with an argument; fd: what it writes. */
static pid_t spawn(const char *what, int *fd)
{
    char self[4096];
    posix_spawn_file_actions_t actions;
    pid_t pid = -1;
    int ends[2];
    ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);
    if (n <= 0 || pipe(ends) != 0) return -1;
    self[n] = 0;
    char arg[16], *argv[] = {self, arg, NULL};
    snprintf(arg, sizeof arg, "%s", what);
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, ends[1], 1);
    posix_spawn_file_actions_addclose(&actions, ends[0]);
    if (posix_spawn(&pid, self, &actions, NULL, argv, environ) != 0) pid = -1;
    posix_spawn_file_actions_destroy(&actions);
    close(ends[1]);
    *fd = ends[0];
    return pid;
}

/* 11: beside another process's kernel: the same tokens or an error, never a wait without end. Planted: the
 * neighbour is not there. */
bool hazard_neighbour(struct rig *r, bool bad)
{
    struct toy t = ordinary();
    int32_t before[50], after[50];
    int fd = -1, status = 0;
    char said[8] = "";
    struct apr_gpu_model *m = rig_model(r, &t, false, 64);
    struct apr_gpu_seq *q = rig_seq(r, m, 64);
    rig_must(r, choose(r, m, q, 50, before), "before");
    pid_t pid = bad ? -1 : spawn("hold", &fd);
    bool held = pid > 0 && read(fd, said, 5) == 5 && !memcmp(said, "held", 4);
    double t0 = rig_now();
    enum apr_gpu_status s = choose(r, m, q, 50, after);
    double run_s = rig_now() - t0;
    bool same = s == APR_GPU_OK && !memcmp(before, after, sizeof before);
    if (pid > 0) waitpid(pid, &status, 0);
    if (fd >= 0) close(fd);
    r->g->seq_close(q);
    r->g->model_close(m);
    toy_free(&t);
    rig_note(r, "50 tokens beside a kernel on every multiprocessor: %s in %.2f s",
             same              ? "the same"
             : s == APR_GPU_OK ? "OTHERS"
                               : "an error",
             run_s);
    return held && status == 0 && (same || s == APR_GPU_LOST) && run_s < 25;
}

/* Memory runs out: an error that names it, and the models that are open go on. Planted: there is memory. */
bool hazard_memory(struct rig *r, bool bad)
{
    struct toy t = ordinary();
    int32_t before[20], after[20];
    struct apr_gpu_model *m = rig_model(r, &t, false, 64), *other = NULL;
    struct apr_gpu_seq *q = rig_seq(r, m, 64);
    const struct apr_gpu_opts o = {.n_ctx = 65536, .n_chunk = 2048};
    rig_must(r, choose(r, m, q, 20, before), "before");
    rig_must(r, r->g->fault(r->dev, bad ? APR_GPU_FAULT_NONE : APR_GPU_FAULT_MEMORY, &r->e), "fault");
    enum apr_gpu_status full = r->g->model_open(r->dev, &t.desc, &o, NULL, NULL, &other, &r->e);
    char said[200];
    snprintf(said, sizeof said, "%s", r->e.text);
    if (full == APR_GPU_OK) r->g->model_close(other);
    bool same = choose(r, m, q, 20, after) == APR_GPU_OK && !memcmp(before, after, sizeof before);
    rig_must(r, r->g->fault(r->dev, APR_GPU_FAULT_NONE, &r->e), "fault");
    other = NULL;
    enum apr_gpu_status again = r->g->model_open(r->dev, &t.desc, &o, NULL, NULL, &other, &r->e);
    if (again == APR_GPU_OK) r->g->model_close(other);
    r->g->seq_close(q);
    r->g->model_close(m);
    toy_free(&t);
    rig_note(r, "\"%.90s...\"; the open model: %s; then: %s", said, same ? "goes on" : "fails",
             again == APR_GPU_OK ? "opened" : "not opened");
    return full == APR_GPU_MEMORY && strstr(said, "bytes of device memory") && same && again == APR_GPU_OK;
}

/* Pages run out: the step that needs one is refused and nothing has moved; behind another sequence's it goes
 * on, and what was let go is computed again to the same bits. Planted: it is computed from other tokens. */
bool hazard_eviction(struct rig *r, bool bad)
{
    struct toy t = ordinary();
    struct apr_gpu_model *m = rig_model(r, &t, false, 96);
    struct apr_gpu_seq *q[3] = {rig_seq(r, m, 96), rig_seq(r, m, 96), rig_seq(r, m, 96)};
    int32_t *ids = rig_ids(96, t.n_vocab);
    float *x = rig_floats(t.n_vocab), *y = rig_floats(t.n_vocab);
    for (int i = 0; i < 3; i++) rig_feed(r, m, q[i], ids + i, 32, 32, i ? NULL : x);
    enum apr_gpu_status full = rig_try(r, m, q[1], ids, 1, 1, y);
    uint32_t pos = r->g->seq_pos(q[1]);
    const struct apr_gpu_part both[2] = {{q[1], ids, 1}, {q[2], ids, 1}};
    enum apr_gpu_status full_batch = r->g->step(m, both, 2, &r->e);
    r->g->seq_truncate(q[0], 0);
    enum apr_gpu_status then = r->g->step(m, both, 2, &r->e);
    r->g->seq_truncate(q[1], 0), r->g->seq_truncate(q[2], 16);
    rig_feed(r, m, q[0], ids + bad, 32, 32, y);
    bool same = !memcmp(x, y, t.n_vocab * sizeof *x);
    rig_feed(r, m, q[2], ids, 1, 1, y); /* a sequence cut in the middle of its history */
    for (int i = 0; i < 3; i++) r->g->seq_close(q[i]);
    r->g->model_close(m);
    toy_free(&t);
    free(ids), free(x), free(y);
    rig_note(r, "refused at position %u and in a batch; with room %s; computed again: %s", pos,
             then == APR_GPU_OK ? "it goes on" : "it FAILS", same ? "the same bits" : "OTHERS");
    return full == APR_GPU_FULL && pos == 32 && full_batch == APR_GPU_FULL && then == APR_GPU_OK && same;
}

int rig_alive(struct rig *r)
{
    struct toy t = ordinary();
    int32_t out[20];
    struct apr_gpu_model *m = rig_model(r, &t, false, 64);
    struct apr_gpu_seq *q = rig_seq(r, m, 64);
    rig_must(r, choose(r, m, q, 20, out), "tokens");
    ssize_t n = write(1, out, sizeof out);
    r->g->seq_close(q);
    r->g->model_close(m);
    toy_free(&t);
    return n == (ssize_t)sizeof out ? 0 : 7;
}

/* What another process chooses with the same model: the device itself is sound. */
static bool another_process(int32_t out[20])
{
    int fd = -1, status = -1;
    size_t n = 0;
    pid_t pid = spawn("alive", &fd);
    for (ssize_t k = 1; pid > 0 && k > 0 && n<20 * sizeof *out; n += k> 0 ? (size_t)k : 0)
        k = read(fd, (char *)out + n, 20 * sizeof *out - n);
    if (pid > 0) waitpid(pid, &status, 0);
    if (fd >= 0) close(fd);
    return status == 0 && n == 20 * sizeof *out;
}

/* In this process, where the driver gives it a new context; else in another. */
static bool after_loss(struct rig *r, const struct toy *t, int32_t out[20], const char **where)
{
    r->g->device_close(r->dev);
    r->dev = NULL;
    enum apr_gpu_status s = r->g->device_reset(0, &r->e);
    if (s == APR_GPU_OK) s = r->g->device_open(0, &r->dev, &r->e);
    *where = s == APR_GPU_OK ? "opened anew" : "this driver opens it in a new process only";
    if (s != APR_GPU_OK) return another_process(out);
    struct apr_gpu_model *m = rig_model(r, t, false, 64);
    struct apr_gpu_seq *q = rig_seq(r, m, 64);
    s = choose(r, m, q, 20, out);
    r->g->seq_close(q);
    r->g->model_close(m);
    return s == APR_GPU_OK;
}

/* A kernel traps: every call is an error that says so, and the process goes on; the device is sound again in
 * a new context. Planted: no trap. */
bool hazard_lost(struct rig *r, bool bad)
{
    struct toy t = ordinary();
    int32_t before[20], after[20] = {0};
    struct apr_gpu_model *m = rig_model(r, &t, false, 64);
    struct apr_gpu_seq *q = rig_seq(r, m, 64), *q2 = NULL;
    rig_must(r, choose(r, m, q, 20, before), "before");
    rig_must(r, r->g->fault(r->dev, bad ? APR_GPU_FAULT_NONE : APR_GPU_FAULT_TRAP, &r->e), "fault");
    enum apr_gpu_status lost = choose(r, m, q, 20, after);
    enum apr_gpu_status lost_open = r->g->seq_open(m, 64, &q2, &r->e);
    char said[200];
    snprintf(said, sizeof said, "%s", r->e.text);
    if (lost_open == APR_GPU_OK) r->g->seq_close(q2);
    r->g->seq_close(q);
    r->g->model_close(m);
    const char *where;
    bool same = after_loss(r, &t, after, &where) && !memcmp(before, after, sizeof before);
    toy_free(&t);
    rig_note(r, "\"%.80s\"; %s: %s", said, where, same ? "the same tokens" : "OTHER tokens");
    return lost == APR_GPU_LOST && lost_open == APR_GPU_LOST && same;
}
