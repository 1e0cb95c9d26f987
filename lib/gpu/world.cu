/* Devices that work as one: their threads, and what happens when one of them fails. See world.cuh. */
#include "world.cuh"

#include "comm.cuh"

#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

/* A device that failed has this long until those that do not end are released: a failure that all have (a
 * full cache, a wrong token) comes to all at once. */
#define PATIENCE_S 3

struct rank {
    struct world *w;
    uint32_t i;
    pthread_t thread;
    bool started;
    enum apr_gpu_status status;
    struct apr_gpu_err err;
};
struct world {
    uint32_t n;
    struct apr_gpu_device *dev[APR_GPU_DEVICES];
    struct comm_net *net;
    struct rank ranks[APR_GPU_DEVICES];
    pthread_mutex_t lock;
    pthread_cond_t ask, done;
    rank_fn *fn;
    void *ctx;
    uint64_t i_call;
    uint32_t n_done;
    int32_t i_bad; /* the first that failed in this call, or -1 */
    struct timespec bad_since;
    bool ends, broken;
    char why[160];
};

uint32_t world_size(const struct world *w)
{
    return w->n;
}
struct apr_gpu_device *world_device(const struct world *w, uint32_t i)
{
    return w->dev[i];
}

/* ---- a device's thread ------------------------------------------------------------------------------------
 */

static void *serve(void *arg)
{
    struct rank *r = (struct rank *)arg;
    struct world *w = r->w;
    uint64_t i_call = 0;
    (void)cudaSetDevice(w->dev[r->i]->i); /* a lost one says so in the call */
    pthread_mutex_lock(&w->lock);
    for (;;) {
        while (w->i_call == i_call && !w->ends) pthread_cond_wait(&w->ask, &w->lock);
        if (w->ends) break;
        i_call = w->i_call;
        pthread_mutex_unlock(&w->lock);
        enum apr_gpu_status s = w->fn(r->i, w->ctx, &r->err);
        pthread_mutex_lock(&w->lock);
        r->status = s;
        if (s != APR_GPU_OK && w->i_bad < 0) {
            w->i_bad = (int32_t)r->i;
            (void)clock_gettime(CLOCK_MONOTONIC, &w->bad_since);
        }
        if (++w->n_done == w->n || s != APR_GPU_OK) pthread_cond_signal(&w->done);
    }
    pthread_mutex_unlock(&w->lock);
    return NULL;
}

/* Until all are done; those that wait for one that failed are released. */
static void wait_for_all(struct world *w)
{
    bool released = false;
    while (w->n_done < w->n) {
        struct timespec until = w->bad_since;
        until.tv_sec += PATIENCE_S;
        if (w->i_bad < 0 || released)
            pthread_cond_wait(&w->done, &w->lock);
        else if (pthread_cond_timedwait(&w->done, &w->lock, &until) != 0 && w->n_done < w->n) {
            released = true;
            pthread_mutex_unlock(&w->lock);
            comm_abort(w->net);
            pthread_mutex_lock(&w->lock);
        }
    }
}

static enum apr_gpu_status answer(struct world *w, bool is_step, struct apr_gpu_err *e)
{
    bool alike = true;
    if (w->i_bad < 0) return APR_GPU_OK;
    const struct rank *bad = &w->ranks[w->i_bad];
    for (uint32_t i = 0; i < w->n; i++) alike &= w->ranks[i].status == bad->status;
    if (alike && bad->status != APR_GPU_LOST) return *e = bad->err, bad->status;
    (void)gpu_fail(e, bad->status, "GPU %d: %.200s", w->dev[w->i_bad]->i, bad->err.text);
    if (is_step) {
        w->broken = true;
        comm_abort(w->net);
        snprintf(w->why, sizeof w->why, "%.159s", e->text);
    }
    return bad->status;
}

enum apr_gpu_status world_ask(struct world *w, rank_fn *fn, void *ctx, bool is_step, struct apr_gpu_err *e)
{
    if (w->broken && is_step)
        return gpu_fail(e, APR_GPU_LOST, "the devices stopped after: %.160s; open the model anew", w->why);
    pthread_mutex_lock(&w->lock);
    w->fn = fn, w->ctx = ctx, w->n_done = 0, w->i_bad = -1;
    w->i_call++;
    pthread_cond_broadcast(&w->ask);
    wait_for_all(w);
    enum apr_gpu_status s = answer(w, is_step, e);
    pthread_mutex_unlock(&w->lock);
    return s;
}

/* ---- opening ----------------------------------------------------------------------------------------------
 */

static enum apr_gpu_status start_threads(struct world *w, struct apr_gpu_err *e)
{
    sigset_t all, had;
    int failed = 0;
    (void)sigfillset(&all); /* signals are the program's: its main thread takes them */
    (void)pthread_sigmask(SIG_SETMASK, &all, &had);
    for (uint32_t i = 0; i < w->n && !failed; i++) {
        w->ranks[i].w = w, w->ranks[i].i = i;
        failed = pthread_create(&w->ranks[i].thread, NULL, serve, &w->ranks[i]);
        w->ranks[i].started = !failed;
    }
    (void)pthread_sigmask(SIG_SETMASK, &had, NULL);
    return failed ? gpu_fail(e, APR_GPU_MEMORY, "no thread for a device") : APR_GPU_OK;
}

static void end(struct world *w)
{
    pthread_mutex_lock(&w->lock);
    w->ends = true;
    pthread_cond_broadcast(&w->ask);
    pthread_mutex_unlock(&w->lock);
    for (uint32_t i = 0; i < w->n; i++)
        if (w->ranks[i].started) pthread_join(w->ranks[i].thread, NULL);
    comm_close(w->net);
    for (uint32_t i = 0; i < w->n; i++) device_close(w->dev[i]);
    pthread_cond_destroy(&w->ask);
    pthread_cond_destroy(&w->done);
    pthread_mutex_destroy(&w->lock);
    free(w);
}

/* Every device adds its number: a link that moves nothing, or to the wrong place, is found before a model is.
 */
static enum apr_gpu_status probe(uint32_t i, void *ctx, struct apr_gpu_err *e)
{
    struct world *w = (struct world *)ctx;
    struct apr_gpu_device *d = w->dev[i];
    enum { N = 1 << 18 };
    static const uint32_t sizes[] = {1024, 40000, N}; /* lines, slots, NCCL: comm.cu */
    float *x = NULL, *host = (float *)malloc(N * sizeof *host);
    if (!host) return gpu_fail(e, APR_GPU_MEMORY, "no memory for a test of the link");
    enum apr_gpu_status s = gpu_cuda(cudaMalloc((void **)&x, N * sizeof *x), "test of the link", e);
    for (size_t k = 0; k < sizeof sizes / sizeof *sizes && s == APR_GPU_OK; k++) {
        const uint32_t n = sizes[k];
        for (uint32_t j = 0; j < n; j++) host[j] = (float)((i + 1) * (j % 1000));
        s = gpu_cuda(cudaMemcpyAsync(x, host, n * sizeof *x, cudaMemcpyHostToDevice, d->stream),
                     "test of the link", e);
        if (s == APR_GPU_OK) s = comm_sum(d, x, n, e);
        if (s == APR_GPU_OK)
            s = gpu_cuda(cudaMemcpyAsync(host, x, n * sizeof *x, cudaMemcpyDeviceToHost, d->stream),
                         "test of the link", e);
        if (s == APR_GPU_OK) s = gpu_wait(d, "test of the link", e);
        for (uint32_t j = 0; j < n && s == APR_GPU_OK; j++)
            if (host[j] != (float)(w->n * (w->n + 1) / 2 * (j % 1000)))
                s = gpu_fail(e, APR_GPU_FAILED, "the link to the other devices gives wrong sums");
    }
    cudaFree(x);
    free(host);
    return s;
}

static enum apr_gpu_status check_devices(const uint32_t *i, uint32_t n, enum apr_gpu_link link,
                                         struct apr_gpu_err *e)
{
    uint32_t n_found;
    if (n == 0 || n > APR_GPU_DEVICES)
        return gpu_fail(e, APR_GPU_UNSUPPORTED, "%u devices, expected 1 to %u", n, APR_GPU_DEVICES);
    GPU_TRY(device_count(&n_found, e));
    for (uint32_t k = 0; k < n; k++) {
        if (i[k] >= n_found) return gpu_fail(e, APR_GPU_NONE, "no CUDA device %u; %u found", i[k], n_found);
        for (uint32_t j = 0; j < k && link != APR_GPU_LINK_SAME; j++)
            if (i[j] == i[k]) return gpu_fail(e, APR_GPU_UNSUPPORTED, "device %u is named twice", i[k]);
    }
    return APR_GPU_OK;
}

static enum apr_gpu_status fill(struct world *w, const uint32_t *i, uint32_t n, enum apr_gpu_link link,
                                struct apr_gpu_err *e)
{
    for (; w->n < n; w->n++) GPU_TRY(device_open(i[w->n], &w->dev[w->n], e));
    GPU_TRY(comm_open(w->dev, n, link, &w->net, e));
    GPU_TRY(start_threads(w, e));
    return world_ask(w, probe, w, true, e);
}

enum apr_gpu_status world_open(const uint32_t *i, uint32_t n, enum apr_gpu_link link,
                               struct apr_gpu_device **out, struct apr_gpu_err *e)
{
    pthread_condattr_t clock;
    GPU_TRY(check_devices(i, n, link, e));
    struct world *w = (struct world *)calloc(1, sizeof *w);
    struct apr_gpu_device *d = (struct apr_gpu_device *)calloc(1, sizeof *d);
    if (!w || !d) {
        free(w), free(d);
        return gpu_fail(e, APR_GPU_MEMORY, "no memory for %u devices", n);
    }
    pthread_condattr_init(&clock);
    pthread_condattr_setclock(&clock, CLOCK_MONOTONIC);
    pthread_mutex_init(&w->lock, NULL);
    pthread_cond_init(&w->ask, NULL);
    pthread_cond_init(&w->done, &clock);
    pthread_condattr_destroy(&clock);
    enum apr_gpu_status s = fill(w, i, n, link, e);
    if (s != APR_GPU_OK) {
        end(w);
        free(d);
        return s;
    }
    d->i = w->dev[0]->i, d->n_sm = w->dev[0]->n_sm, d->sm = w->dev[0]->sm;
    d->world = w;
    snprintf(d->name, sizeof d->name, "%u devices: %.300s%s", n, w->dev[0]->name, n > 1 ? ", ..." : "");
    *out = d;
    return APR_GPU_OK;
}

void world_close(struct apr_gpu_device *d)
{
    if (!d || !d->world) return device_close(d);
    end(d->world);
    free(d);
}
bool world_is_late(const struct apr_gpu_device *d)
{
    bool late = d->is_late;
    for (uint32_t i = 0; d->world && i < d->world->n; i++) late |= d->world->dev[i]->is_late;
    return late;
}
