/* A GPU plugin without a GPU: logits are made up from token and position, faults and their ends are those of
 * a device. For tests of what becomes of requests when a device fails, and of what a device is told; built
 * beside a copy of apr-infer as apr-cuda.so (with -lm). FAKE_GPUS=N: so many devices; each says on stderr
 * what it has got of a model, when there are several. FAKE_GPU_CALLS=FILE: what was asked for, a line a call.
 * FAKE_GPU_NO_ROWS: greedy_rows is not offered. Sequences share the model's n_ctx positions in pages of 16.
 */
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "gpu/gpu.h"
#include "kern/exp.h"

struct apr_gpu_device {
    enum apr_gpu_fault fault;
    bool is_lost, is_late;
    uint32_t n, i[APR_GPU_DEVICES]; /* of several as one */
    char name[200];
    double late_until_s, timeout_s;
};
struct apr_gpu_model {
    struct apr_gpu_device *dev;
    uint32_t n_vocab, n_layers, n_hidden;
    float *rows; /* [2048] tokens of the last step, as numbers that choose the logits */
    uint32_t n_rows, n_pages;
    struct apr_gpu_seq *seqs;
};
struct apr_gpu_seq {
    struct apr_gpu_model *m;
    uint32_t n_ctx, n_pos;
    bool is_long;
    struct apr_gpu_seq *next; /* of the model's */
};
static bool lost_for_process; /* until a reset, as of a CUDA context */

static double now_s(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}
static enum apr_gpu_status fail(struct apr_gpu_err *e, enum apr_gpu_status s, const char *text)
{
    snprintf(e->text, sizeof e->text, "%s", text);
    return s;
}
static void note(const char *format, ...) __attribute__((format(printf, 1, 2)));
static void note(const char *format, ...)
{
    const char *path = getenv("FAKE_GPU_CALLS");
    FILE *f = path ? fopen(path, "a") : NULL;
    va_list args;
    if (!f) return;
    va_start(args, format);
    vfprintf(f, format, args);
    va_end(args);
    fclose(f);
}
static enum apr_gpu_status enter(struct apr_gpu_device *d, struct apr_gpu_err *e)
{
    if (lost_for_process)
        return fail(e, APR_GPU_LOST, "a step: unspecified launch failure; the device is lost");
    if (d->is_late && now_s() < d->late_until_s)
        return fail(e, APR_GPU_LOST, "the device is still busy with a step that began some time ago");
    d->is_late = false;
    if (d->fault == APR_GPU_FAULT_SPIN && now_s() < d->late_until_s) {
        d->is_late = true;
        return fail(e, APR_GPU_LOST, "a step: no answer in time");
    }
    return APR_GPU_OK;
}

static enum apr_gpu_status device_count(uint32_t *n, struct apr_gpu_err *e)
{
    const char *text = getenv("FAKE_GPUS");
    (void)e;
    return *n = text ? (uint32_t)strtoul(text, NULL, 10) : 1, APR_GPU_OK;
}
static enum apr_gpu_status device_open(uint32_t i, struct apr_gpu_device **d, struct apr_gpu_err *e)
{
    if (lost_for_process) return fail(e, APR_GPU_LOST, "device: the device is lost");
    uint32_t n;
    (void)device_count(&n, e);
    if (i >= n) return fail(e, APR_GPU_NONE, "no such device");
    *d = calloc(1, sizeof **d);
    if (!*d) return fail(e, APR_GPU_MEMORY, "no memory");
    (*d)->n = 1, (*d)->i[0] = i;
    snprintf((*d)->name, sizeof(*d)->name, "made-up device %u", i);
    return APR_GPU_OK;
}
static enum apr_gpu_status devices_open(const uint32_t *i, uint32_t n, enum apr_gpu_link link,
                                        struct apr_gpu_device **d, struct apr_gpu_err *e)
{
    (void)link;
    uint32_t n_found;
    (void)device_count(&n_found, e);
    for (uint32_t k = 0; k < n; k++)
        if (i[k] >= n_found) return fail(e, APR_GPU_NONE, "no such device");
    enum apr_gpu_status s = device_open(i[0], d, e);
    if (s != APR_GPU_OK) return s;
    (*d)->n = n;
    memcpy((*d)->i, i, n * sizeof *i);
    snprintf((*d)->name, sizeof(*d)->name, "%u made-up devices", n);
    return APR_GPU_OK;
}
static void device_close(struct apr_gpu_device *d)
{
    free(d);
}
static const char *device_name(const struct apr_gpu_device *d)
{
    return d->name;
}
static bool device_is_late(const struct apr_gpu_device *d)
{
    return d->is_late;
}
static enum apr_gpu_status model_plan(struct apr_gpu_device *d, const struct apr_gpu_desc *m,
                                      const struct apr_gpu_opts *o, struct apr_gpu_plan *p,
                                      struct apr_gpu_err *e)
{
    (void)o;
    for (uint32_t i = 0; i < d->n && d->n > 1; i++)
        fprintf(stderr, "made-up device %u: %u heads, %u KV heads, middle %u, rows %u\n", d->i[i],
                m[i].n_heads, m[i].n_heads_kv, m[i].n_inter, m[i].head.n_rows);
    *p = (struct apr_gpu_plan){1 << 20, 0, 2 << 20, 3 << 20, 6 << 20, 80ull << 30};
    return enter(d, e);
}
static uint32_t pages(uint32_t n_pos)
{
    return (n_pos + 15) / 16;
}
static enum apr_gpu_status model_open(struct apr_gpu_device *d, const struct apr_gpu_desc *desc,
                                      const struct apr_gpu_opts *o, void (*progress)(void *, uint64_t),
                                      void *ctx, struct apr_gpu_model **out, struct apr_gpu_err *e)
{
    if (enter(d, e) != APR_GPU_OK) return APR_GPU_LOST;
    struct apr_gpu_model *m = calloc(1, sizeof *m);
    if (!m || !(m->rows = calloc(1u << 16, sizeof *m->rows))) {
        free(m);
        return fail(e, APR_GPU_MEMORY, "no memory");
    }
    m->dev = d, m->n_vocab = desc->n_vocab, m->n_layers = desc->n_layers, m->n_hidden = desc->n_hidden;
    m->n_pages = pages(o->n_ctx);
    d->timeout_s = o->timeout_s;
    if (progress) progress(ctx, 1 << 20);
    return *out = m, APR_GPU_OK;
}
static void model_close(struct apr_gpu_model *m)
{
    if (m) free(m->rows);
    free(m);
}
static enum apr_gpu_status seq_open(struct apr_gpu_model *m, uint32_t n_ctx, struct apr_gpu_seq **s,
                                    struct apr_gpu_err *e)
{
    enum apr_gpu_status st = enter(m->dev, e);
    if (st != APR_GPU_OK) return st;
    if (m->dev->fault == APR_GPU_FAULT_MEMORY)
        return fail(e, APR_GPU_MEMORY, "table of pages: out of memory");
    *s = calloc(1, sizeof **s);
    if (!*s) return fail(e, APR_GPU_MEMORY, "no memory");
    **s = (struct apr_gpu_seq){m, n_ctx, 0, false, m->seqs};
    m->seqs = *s;
    return APR_GPU_OK;
}
static void seq_close(struct apr_gpu_seq *s)
{
    struct apr_gpu_seq **at = &s->m->seqs;
    while (*at != s) at = &(*at)->next;
    *at = s->next;
    free(s);
}
/* n more positions of s, and of those before it in the same call, whose pages are n_taken. */
static enum apr_gpu_status hold(const struct apr_gpu_seq *s, uint32_t n, uint32_t *n_taken,
                                struct apr_gpu_err *e)
{
    uint32_t n_held = 0;
    for (const struct apr_gpu_seq *i = s->m->seqs; i; i = i->next) n_held += pages(i->n_pos);
    *n_taken += pages(s->n_pos + n) - pages(s->n_pos);
    return n_held + *n_taken > s->m->n_pages ? fail(e, APR_GPU_FULL, "no page is left") : APR_GPU_OK;
}
static uint32_t seq_pos(const struct apr_gpu_seq *s)
{
    return s->n_pos;
}
static void seq_truncate(struct apr_gpu_seq *s, uint32_t n_pos)
{
    if (n_pos < s->n_pos) s->n_pos = n_pos;
}
static void seq_turn(struct apr_gpu_seq *s, bool is_long)
{
    if (s->is_long != is_long) seq_truncate(s, 0);
    s->is_long = is_long;
}

/* Ordinary text from the vocabulary's middle, the same for the same token at the same position. */
static uint32_t choice(const struct apr_gpu_model *m, int32_t id, uint32_t pos)
{
    return 300 + ((uint32_t)id * 31 + pos * 17) % (m->n_vocab - 400);
}
/* And some others, less likely by and by. */
#define N_LIKELY 16u
static uint32_t likely(const struct apr_gpu_model *m, uint32_t choice_, uint32_t i)
{
    return 300 + (choice_ - 300 + 37 * i) % (m->n_vocab - 400);
}
static float likely_logit(uint32_t i)
{
    return 20 - 0.5f * (float)i;
}
static enum apr_gpu_status append(struct apr_gpu_model *m, const struct apr_gpu_part *parts, uint32_t n_parts,
                                  struct apr_gpu_err *e)
{
    enum apr_gpu_status st = enter(m->dev, e);
    uint32_t n_taken = 0;
    for (uint32_t i = 0; i < n_parts && st == APR_GPU_OK; i++)
        st = hold(parts[i].seq, parts[i].n, &n_taken, e);
    if (st != APR_GPU_OK) return st;
    m->n_rows = 0;
    for (uint32_t i = 0; i < n_parts; i++)
        for (uint32_t k = 0; k < parts[i].n; k++)
            m->rows[m->n_rows++] = (float)choice(m, parts[i].ids[k], parts[i].seq->n_pos++);
    return APR_GPU_OK;
}
static enum apr_gpu_status step(struct apr_gpu_model *m, const struct apr_gpu_part *parts, uint32_t n_parts,
                                struct apr_gpu_err *e)
{
    note("step of %u at %u\n", n_parts, parts[0].seq->n_pos);
    return append(m, parts, n_parts, e);
}
static enum apr_gpu_status logits(struct apr_gpu_model *m, uint32_t i_row, uint32_t n_rows, float *out,
                                  struct apr_gpu_err *e)
{
    enum apr_gpu_status st = enter(m->dev, e);
    for (uint32_t r = 0; r < n_rows && st == APR_GPU_OK; r++, out += m->n_vocab) {
        memset(out, 0, m->n_vocab * sizeof *out);
        for (uint32_t i = 0; i < N_LIKELY; i++)
            out[likely(m, (uint32_t)m->rows[i_row + r], i)] = likely_logit(i);
    }
    return st;
}
static enum apr_gpu_status forward(struct apr_gpu_model *m, struct apr_gpu_seq *s, const int32_t *ids,
                                   uint32_t n, uint32_t n_rows, float *out, struct apr_gpu_err *e)
{
    note("forward of %u at %u\n", n, s->n_pos);
    enum apr_gpu_status st = append(m, &(struct apr_gpu_part){s, ids, n}, 1, e);
    return st == APR_GPU_OK && n_rows ? logits(m, n - n_rows, n_rows, out, e) : st;
}
static enum apr_gpu_status choose(struct apr_gpu_model *m, struct apr_gpu_seq *s, int32_t id, uint32_t n,
                                  const int32_t *stop, uint32_t n_stop, int32_t *out, uint32_t *n_out,
                                  struct apr_gpu_err *e)
{
    enum apr_gpu_status st = enter(m->dev, e);
    uint32_t n_taken = 0;
    (void)stop, (void)n_stop;
    if (st == APR_GPU_OK) st = hold(s, n, &n_taken, e);
    for (*n_out = 0; st == APR_GPU_OK && *n_out < n; id = out[(*n_out)++])
        out[*n_out] = (int32_t)choice(m, id, s->n_pos++);
    return st;
}
static enum apr_gpu_status greedy(struct apr_gpu_model *m, struct apr_gpu_seq *s, int32_t id, uint32_t n,
                                  const int32_t *stop, uint32_t n_stop, int32_t *out, uint32_t *n_out,
                                  struct apr_gpu_err *e)
{
    note("greedy of %u at %u, %u stop tokens\n", n, s->n_pos, n_stop);
    return choose(m, s, id, n, stop, n_stop, out, n_out, e);
}

/* The most usual steps, written down once more: p, logits and places of the n likeliest, in order. */
struct draw {
    double p[N_LIKELY], logit[N_LIKELY];
    uint32_t n;
};
static void draw_probs(struct draw *d)
{
    double sum = 0;
    for (uint32_t i = 0; i < d->n; i++) sum += d->p[i] = exp(d->logit[i] - d->logit[0]);
    for (uint32_t i = 0; i < d->n; i++) d->p[i] /= sum;
}
static bool draw_pick(struct draw *d, const struct apr_gpu_pick *s)
{
    double sum = 0;
    uint32_t n = 0;
    draw_probs(d);
    if (s->kind == APR_GPU_PICK_TOP_P)
        while (n < d->n && sum < s->v[0]) sum += d->p[n++];
    if (s->kind == APR_GPU_PICK_MIN_P)
        while (n < d->n && d->logit[n] >= d->logit[0] + s->v[0]) n++;
    if (n) d->n = n;
    if (s->kind != APR_GPU_PICK_TEMPERATURE) return n > 0;
    for (uint32_t i = 0; i < d->n; i++) d->logit[i] = (double)((float)d->logit[i] / (float)s->v[0]);
    return true;
}
/* exp of sampler/cands.h, x <= 0, and its weight. */
static uint64_t weight(float x)
{
    float t = fmaf(x, APR_EXP_LOG2E, APR_EXP_MAGIC), r = fmaf(t - APR_EXP_MAGIC, -APR_EXP_LN2_HI, x), p;
    uint32_t bits, n;
    r = fmaf(t - APR_EXP_MAGIC, -APR_EXP_LN2_LO, r);
    p = fmaf(r, fmaf(r, fmaf(r, fmaf(r, APR_EXP_P4, APR_EXP_P3), APR_EXP_P2), APR_EXP_P1), APR_EXP_P0);
    p = 1 + fmaf(r * r, p, r);
    memcpy(&bits, &p, 4), memcpy(&n, &t, 4);
    bits += n << 23;
    memcpy(&p, &bits, 4);
    return x < APR_EXP_MIN ? 0 : (uint64_t)rintf(p * 0x1p43f);
}
/* From all tokens at one temperature. */
static int32_t draw_all(const struct apr_gpu_model *m, uint32_t choice_, float t, uint64_t bits)
{
    const float most = likely_logit(0) / t;
    uint64_t *w = malloc(m->n_vocab * sizeof *w), all = 0;
    uint32_t i;
    if (!w) return 0;
    for (i = 0; i < m->n_vocab; i++) w[i] = weight(0 / t - most);
    for (i = 0; i < N_LIKELY; i++) w[likely(m, choice_, i)] = weight(likely_logit(i) / t - most);
    for (i = 0; i < m->n_vocab; i++) all += w[i];
    uint64_t left = (uint64_t)((unsigned __int128)(bits >> 11) * all >> 53);
    for (i = 0; left >= w[i]; i++) left -= w[i];
    free(w);
    return (int32_t)i;
}
/* The place of the token among the likely ones; N_LIKELY: this device cannot. */
static uint32_t draw(const struct apr_gpu_chain *c, uint64_t bits)
{
    struct draw d = {.n = c->top_k};
    if (d.n > N_LIKELY) return N_LIKELY;
    for (uint32_t i = 0; i < d.n; i++) d.logit[i] = (double)(likely_logit(i) / c->t_before);
    for (uint32_t i = 0; i < c->n_picks; i++)
        if (!draw_pick(&d, &c->picks[i])) return N_LIKELY;
    draw_probs(&d);
    double run = 0, u = (double)(bits >> 11) * 0x1p-53;
    uint32_t i = 0;
    while (i + 1 < d.n && (run += d.p[i]) <= u) i++;
    return i;
}
static enum apr_gpu_status draw_some(struct apr_gpu_model *m, struct apr_gpu_seq *s,
                                     const struct apr_gpu_chain *chain, const uint64_t *bits, int32_t id,
                                     uint32_t n, int32_t *out, struct apr_gpu_err *e)
{
    enum apr_gpu_status st = enter(m->dev, e);
    uint32_t n_taken = 0;
    if (st == APR_GPU_OK) st = hold(s, n, &n_taken, e);
    for (uint32_t k = 0; st == APR_GPU_OK && k < n; id = out[k++]) {
        const uint32_t choice_ = choice(m, id, s->n_pos++), i = chain->top_k ? draw(chain, bits[k]) : 0;
        if (i == N_LIKELY) return fail(e, APR_GPU_UNSUPPORTED, "a made-up device has few steps");
        out[k] =
            chain->top_k ? (int32_t)likely(m, choice_, i) : draw_all(m, choice_, chain->t_before, bits[k]);
    }
    return st;
}
static enum apr_gpu_status sample(struct apr_gpu_model *m, struct apr_gpu_seq *s,
                                  const struct apr_gpu_chain *chain, const uint64_t *bits, int32_t id,
                                  uint32_t n, const int32_t *stop, uint32_t n_stop, int32_t *out,
                                  uint32_t *n_out, struct apr_gpu_err *e)
{
    (void)stop, (void)n_stop;
    note("sample of %u at %u\n", n, s->n_pos);
    const enum apr_gpu_status st = draw_some(m, s, chain, bits, id, n, out, e);
    return *n_out = st == APR_GPU_OK ? n : 0, st;
}
static enum apr_gpu_status sample_rows(struct apr_gpu_model *m, struct apr_gpu_seq *const *seqs,
                                       const struct apr_gpu_chain *chains, const uint64_t *bits,
                                       const int32_t *ids, uint32_t n_seqs, uint32_t n, int32_t *out,
                                       struct apr_gpu_err *e)
{
    uint32_t n_taken = 0;
    if (getenv("FAKE_GPU_NO_ROWS")) return fail(e, APR_GPU_UNSUPPORTED, "no kernel for batches");
    note("sample of %u, %u rows\n", n, n_seqs);
    for (uint32_t i = 0; i < n_seqs; i++)
        if (hold(seqs[i], n, &n_taken, e) != APR_GPU_OK) return APR_GPU_FULL;
    for (uint32_t i = 0; i < n_seqs; i++) {
        enum apr_gpu_status st =
            draw_some(m, seqs[i], &chains[i], bits + (size_t)i * n, ids[i], n, out + (size_t)i * n, e);
        if (st != APR_GPU_OK) return st;
    }
    return APR_GPU_OK;
}
static enum apr_gpu_status greedy_rows(struct apr_gpu_model *m, struct apr_gpu_seq *const *seqs,
                                       const int32_t *ids, uint32_t n_seqs, uint32_t n, int32_t *out,
                                       struct apr_gpu_err *e)
{
    uint32_t n_out, n_taken = 0;
    if (getenv("FAKE_GPU_NO_ROWS")) return fail(e, APR_GPU_UNSUPPORTED, "no kernel for batches");
    note("greedy of %u, %u rows\n", n, n_seqs);
    for (uint32_t i = 0; i < n_seqs; i++)
        if (hold(seqs[i], n, &n_taken, e) != APR_GPU_OK) return APR_GPU_FULL;
    for (uint32_t i = 0; i < n_seqs; i++) {
        enum apr_gpu_status st = choose(m, seqs[i], ids[i], n, NULL, 0, out + (size_t)i * n, &n_out, e);
        if (st != APR_GPU_OK) return st;
    }
    return APR_GPU_OK;
}

static enum apr_gpu_status profile(struct apr_gpu_model *m, const struct apr_gpu_part *parts,
                                   uint32_t n_parts, struct apr_gpu_time *out, uint32_t *n,
                                   struct apr_gpu_err *e)
{
    (void)m, (void)parts, (void)n_parts, (void)out, (void)n;
    return fail(e, APR_GPU_UNSUPPORTED, "a made-up device has no launches");
}
static enum apr_gpu_status unpack(struct apr_gpu_device *d, const struct apr_gpu_mat *w, float *rows,
                                  struct apr_gpu_err *e)
{
    (void)d, (void)w, (void)rows;
    return fail(e, APR_GPU_UNSUPPORTED, "a made-up device has no weights");
}
static enum apr_gpu_status bandwidth(struct apr_gpu_device *d, double *bytes_per_s, struct apr_gpu_err *e)
{
    (void)d, (void)bytes_per_s;
    return fail(e, APR_GPU_UNSUPPORTED, "a made-up device has no memory");
}
static enum apr_gpu_status launch_cost(struct apr_gpu_device *d, uint32_t n, double *s, struct apr_gpu_err *e)
{
    (void)n;
    return bandwidth(d, s, e);
}
static enum apr_gpu_status hidden(struct apr_gpu_model *m, const struct apr_gpu_part *part, float *out,
                                  struct apr_gpu_err *e)
{
    (void)m, (void)part, (void)out;
    return fail(e, APR_GPU_UNSUPPORTED, "a made-up device has no layers");
}
static enum apr_gpu_status choose_given(struct apr_gpu_device *d, const struct apr_gpu_chain *chains,
                                        const uint64_t *bits, const float *logits_, uint32_t n_rows,
                                        uint32_t n_vocab, int32_t *out, double *s, struct apr_gpu_err *e)
{
    (void)d, (void)chains, (void)bits, (void)logits_, (void)n_rows, (void)n_vocab, (void)out, (void)s;
    return fail(e, APR_GPU_UNSUPPORTED, "a made-up device has no logits but its own");
}
static enum apr_gpu_status fault(struct apr_gpu_device *d, enum apr_gpu_fault what, struct apr_gpu_err *e)
{
    (void)e;
    d->fault = what;
    if (what == APR_GPU_FAULT_TRAP) lost_for_process = true;
    if (what == APR_GPU_FAULT_SPIN) d->late_until_s = now_s() + 3;
    return APR_GPU_OK;
}
static enum apr_gpu_status device_reset(uint32_t i, struct apr_gpu_err *e)
{
    (void)i, (void)e;
    return lost_for_process = false, APR_GPU_OK;
}

const struct apr_gpu *apr_gpu_plugin(void);
const struct apr_gpu *apr_gpu_plugin(void)
{
    static const struct apr_gpu table = {
        .abi = APR_GPU_ABI,
        .struct_bytes = sizeof table,
        .name = "made up",
        .device_count = device_count,
        .device_open = device_open,
        .devices_open = devices_open,
        .device_close = device_close,
        .device_name = device_name,
        .device_is_late = device_is_late,
        .model_plan = model_plan,
        .model_open = model_open,
        .model_close = model_close,
        .seq_open = seq_open,
        .seq_close = seq_close,
        .seq_pos = seq_pos,
        .seq_truncate = seq_truncate,
        .seq_turn = seq_turn,
        .forward = forward,
        .greedy = greedy,
        .sample = sample,
        .step = step,
        .logits = logits,
        .greedy_rows = greedy_rows,
        .sample_rows = sample_rows,
        .profile = profile,
        .unpack = unpack,
        .bandwidth = bandwidth,
        .launch_cost = launch_cost,
        .hidden = hidden,
        .choose = choose_given,
        .fault = fault,
        .device_reset = device_reset,
    };
    return &table;
}
