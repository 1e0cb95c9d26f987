/* The calls of several devices: what each of them does, with its own handles. See world.cuh. */
#include "world.cuh"

#include <stdlib.h>
#include <string.h>

/* ---- models -----------------------------------------------------------------------------------------------
 */

struct open_call {
    struct world *w;
    const struct apr_gpu_desc *descs;
    const struct apr_gpu_opts *opts;
    void (*progress)(void *ctx, uint64_t n);
    void *ctx;
    struct apr_gpu_model **models;
    struct apr_gpu_plan plans[APR_GPU_DEVICES];
};
static enum apr_gpu_status rank_plan(uint32_t i, void *ctx, struct apr_gpu_err *e)
{
    struct open_call *c = (struct open_call *)ctx;
    return model_plan(world_device(c->w, i), &c->descs[i], c->opts, &c->plans[i], e);
}
static enum apr_gpu_status rank_open(uint32_t i, void *ctx, struct apr_gpu_err *e)
{
    struct open_call *c = (struct open_call *)ctx;
    return model_open(world_device(c->w, i), &c->descs[i], c->opts, i == 0 ? c->progress : NULL, c->ctx,
                      &c->models[i], e);
}
static enum apr_gpu_status rank_close(uint32_t i, void *ctx, struct apr_gpu_err *e)
{
    struct apr_gpu_model *m = (struct apr_gpu_model *)ctx;
    (void)e;
    model_close(m->ranks[i]);
    return APR_GPU_OK;
}

enum apr_gpu_status world_model_plan(struct apr_gpu_device *d, const struct apr_gpu_desc *m,
                                     const struct apr_gpu_opts *o, struct apr_gpu_plan *p,
                                     struct apr_gpu_err *e)
{
    if (!d->world) return model_plan(d, m, o, p, e);
    struct open_call c = {d->world, m, o, NULL, NULL, NULL, {}};
    uint32_t most = 0;
    GPU_TRY(world_ask(d->world, rank_plan, &c, false, e));
    for (uint32_t i = 1; i < world_size(d->world); i++)
        if (c.plans[i].total > c.plans[most].total) most = i;
    *p = c.plans[most];
    return APR_GPU_OK;
}

enum apr_gpu_status world_model_open(struct apr_gpu_device *d, const struct apr_gpu_desc *m,
                                     const struct apr_gpu_opts *o, void (*progress)(void *ctx, uint64_t n),
                                     void *ctx, struct apr_gpu_model **out, struct apr_gpu_err *e)
{
    if (!d->world) return model_open(d, m, o, progress, ctx, out, e);
    struct apr_gpu_model *all = (struct apr_gpu_model *)calloc(1, sizeof *all);
    if (all) all->ranks = (struct apr_gpu_model **)calloc(world_size(d->world), sizeof *all->ranks);
    if (!all || !all->ranks) {
        free(all);
        return gpu_fail(e, APR_GPU_MEMORY, "no memory for the model");
    }
    all->dev = d, all->n_vocab = m->n_vocab, all->n_hidden = m->n_hidden, all->n_layers = m->n_layers;
    struct open_call c = {d->world, m, o, progress, ctx, all->ranks, {}};
    enum apr_gpu_status s = world_ask(d->world, rank_open, &c, false, e);
    if (s != APR_GPU_OK) return world_model_close(all), s;
    *out = all;
    return APR_GPU_OK;
}

void world_model_close(struct apr_gpu_model *m)
{
    struct apr_gpu_err e;
    if (!m || !m->ranks) return model_close(m);
    (void)world_ask(m->dev->world, rank_close, m, false, &e); /* has no error */
    free(m->ranks);
    free(m);
}

/* ---- sequences --------------------------------------------------------------------------------------------
 */

struct seq_call {
    struct apr_gpu_model *m;
    struct apr_gpu_seq *all;
    uint32_t n;
};
static enum apr_gpu_status rank_seq_open(uint32_t i, void *ctx, struct apr_gpu_err *e)
{
    struct seq_call *c = (struct seq_call *)ctx;
    return seq_open(c->m->ranks[i], c->n, &c->all->ranks[i], e);
}
static enum apr_gpu_status rank_seq_close(uint32_t i, void *ctx, struct apr_gpu_err *e)
{
    struct seq_call *c = (struct seq_call *)ctx;
    (void)e;
    seq_close(c->all->ranks[i]);
    return APR_GPU_OK;
}

enum apr_gpu_status world_seq_open(struct apr_gpu_model *m, uint32_t n_ctx, struct apr_gpu_seq **s,
                                   struct apr_gpu_err *e)
{
    if (!m->ranks) return seq_open(m, n_ctx, s, e);
    struct apr_gpu_seq *all = (struct apr_gpu_seq *)calloc(1, sizeof *all);
    if (all) all->ranks = (struct apr_gpu_seq **)calloc(world_size(m->dev->world), sizeof *all->ranks);
    if (!all || !all->ranks) {
        free(all);
        return gpu_fail(e, APR_GPU_MEMORY, "no memory for a sequence");
    }
    all->m = m;
    struct seq_call c = {m, all, n_ctx};
    enum apr_gpu_status st = world_ask(m->dev->world, rank_seq_open, &c, false, e);
    if (st != APR_GPU_OK) return world_seq_close(all), st;
    *s = all;
    return APR_GPU_OK;
}
void world_seq_close(struct apr_gpu_seq *s)
{
    struct apr_gpu_err e;
    if (!s || !s->ranks) return seq_close(s);
    struct seq_call c = {s->m, s, 0};
    (void)world_ask(s->m->dev->world, rank_seq_close, &c, false, &e); /* has no error */
    free(s->ranks);
    free(s);
}
uint32_t world_seq_pos(const struct apr_gpu_seq *s)
{
    return s->ranks ? s->ranks[0]->n_pos : s->n_pos;
}
/* Between calls nothing runs: the lists of pages are on the host. */
void world_seq_truncate(struct apr_gpu_seq *s, uint32_t n_pos)
{
    if (!s->ranks) return seq_truncate(s, n_pos);
    for (uint32_t i = 0; i < world_size(s->m->dev->world); i++) seq_truncate(s->ranks[i], n_pos);
}
void world_seq_turn(struct apr_gpu_seq *s, bool is_long)
{
    if (!s->ranks) return seq_turn(s, is_long);
    for (uint32_t i = 0; i < world_size(s->m->dev->world); i++) seq_turn(s->ranks[i], is_long);
}

/* ---- steps ------------------------------------------------------------------------------------------------
 */

struct step_call {
    struct apr_gpu_model *m;
    struct apr_gpu_seq *s;
    const struct apr_gpu_part *parts;
    const int32_t *ids;
    uint32_t n, n_rows, i_row, n_parts;
    float *floats; /* the first device's */
};

static enum apr_gpu_status rank_forward(uint32_t i, void *ctx, struct apr_gpu_err *e)
{
    struct step_call *c = (struct step_call *)ctx;
    return forward(c->m->ranks[i], c->s->ranks[i], c->ids, c->n, c->n_rows, i == 0 ? c->floats : NULL, e);
}
enum apr_gpu_status world_forward(struct apr_gpu_model *m, struct apr_gpu_seq *s, const int32_t *ids,
                                  uint32_t n, uint32_t n_rows, float *logits, struct apr_gpu_err *e)
{
    if (!m->ranks) return forward(m, s, ids, n, n_rows, logits, e);
    struct step_call c = {m, s, NULL, ids, n, n_rows, 0, 0, logits};
    return world_ask(m->dev->world, rank_forward, &c, true, e);
}

static enum apr_gpu_status rank_logits(uint32_t i, void *ctx, struct apr_gpu_err *e)
{
    struct step_call *c = (struct step_call *)ctx;
    return step_logits(c->m->ranks[i], c->i_row, c->n_rows, i == 0 ? c->floats : NULL, e);
}
enum apr_gpu_status world_logits(struct apr_gpu_model *m, uint32_t i_row, uint32_t n_rows, float *logits,
                                 struct apr_gpu_err *e)
{
    if (!m->ranks) return step_logits(m, i_row, n_rows, logits, e);
    struct step_call c = {m, NULL, NULL, NULL, 0, n_rows, i_row, 0, logits};
    return world_ask(m->dev->world, rank_logits, &c, true, e);
}

/* The parts with the sequences of device i. */
static struct apr_gpu_part *parts_of(const struct apr_gpu_part *parts, uint32_t n, uint32_t i)
{
    struct apr_gpu_part *mine = (struct apr_gpu_part *)malloc((n + 1) * sizeof *mine);
    for (uint32_t k = 0; mine && k < n; k++) {
        mine[k] = parts[k];
        mine[k].seq = parts[k].seq->ranks[i];
    }
    return mine;
}
static enum apr_gpu_status rank_step(uint32_t i, void *ctx, struct apr_gpu_err *e)
{
    struct step_call *c = (struct step_call *)ctx;
    struct apr_gpu_part *mine = parts_of(c->parts, c->n_parts, i);
    if (!mine) return gpu_fail(e, APR_GPU_MEMORY, "no memory for a step");
    enum apr_gpu_status s = step_parts(c->m->ranks[i], mine, c->n_parts, e);
    free(mine);
    return s;
}
enum apr_gpu_status world_step(struct apr_gpu_model *m, const struct apr_gpu_part *parts, uint32_t n_parts,
                               struct apr_gpu_err *e)
{
    if (!m->ranks) return step_parts(m, parts, n_parts, e);
    struct step_call c = {m, NULL, parts, NULL, 0, 0, 0, n_parts, NULL};
    return world_ask(m->dev->world, rank_step, &c, true, e);
}

static enum apr_gpu_status rank_hidden(uint32_t i, void *ctx, struct apr_gpu_err *e)
{
    struct step_call *c = (struct step_call *)ctx;
    struct apr_gpu_part mine = *c->parts;
    uint64_t n = ((uint64_t)c->m->n_layers + 1) * mine.n * c->m->n_hidden;
    float *unused = i == 0 ? NULL : (float *)malloc(n * sizeof *unused); /* the same there */
    if (i != 0 && !unused) return gpu_fail(e, APR_GPU_MEMORY, "no memory for hidden states");
    mine.seq = mine.seq->ranks[i];
    enum apr_gpu_status s = hidden(c->m->ranks[i], &mine, i == 0 ? c->floats : unused, e);
    free(unused);
    return s;
}
enum apr_gpu_status world_hidden(struct apr_gpu_model *m, const struct apr_gpu_part *part, float *out,
                                 struct apr_gpu_err *e)
{
    if (!m->ranks) return hidden(m, part, out, e);
    struct step_call c = {m, NULL, part, NULL, 0, 0, 0, 1, out};
    return world_ask(m->dev->world, rank_hidden, &c, true, e);
}

/* ---- tokens chosen on the devices -------------------------------------------------------------------------
 */

struct greedy_call {
    struct apr_gpu_model *m;
    struct apr_gpu_seq *s, *const *seqs;
    const int32_t *ids, *stop;
    int32_t id;
    uint32_t n, n_stop, n_seqs;
    int32_t *out[APR_GPU_DEVICES]; /* the first device's are the caller's */
    uint32_t n_out[APR_GPU_DEVICES];
    const struct apr_gpu_chain *chain; /* or one a sequence; NULL: greedy */
    const uint64_t *bits;
};

static enum apr_gpu_status rank_greedy(uint32_t i, void *ctx, struct apr_gpu_err *e)
{
    struct greedy_call *c = (struct greedy_call *)ctx;
    if (c->chain)
        return sample(c->m->ranks[i], c->s->ranks[i], c->chain, c->bits, c->id, c->n, c->stop, c->n_stop,
                      c->out[i], &c->n_out[i], e);
    return greedy(c->m->ranks[i], c->s->ranks[i], c->id, c->n, c->stop, c->n_stop, c->out[i], &c->n_out[i],
                  e);
}
static enum apr_gpu_status rank_greedy_rows(uint32_t i, void *ctx, struct apr_gpu_err *e)
{
    struct greedy_call *c = (struct greedy_call *)ctx;
    struct apr_gpu_seq *mine[APR_GPU_ROWS];
    for (uint32_t k = 0; k < c->n_seqs && k < APR_GPU_ROWS; k++) mine[k] = c->seqs[k]->ranks[i];
    c->n_out[i] = c->n_seqs * c->n;
    return greedy_rows(c->m->ranks[i], mine, c->ids, c->n_seqs, c->n, c->out[i], e);
}

static enum apr_gpu_status rank_sample_rows(uint32_t i, void *ctx, struct apr_gpu_err *e)
{
    struct greedy_call *c = (struct greedy_call *)ctx;
    struct apr_gpu_seq *mine[APR_GPU_ROWS];
    for (uint32_t k = 0; k < c->n_seqs && k < APR_GPU_ROWS; k++) mine[k] = c->seqs[k]->ranks[i];
    c->n_out[i] = c->n_seqs * c->n;
    return sample_rows(c->m->ranks[i], mine, c->chain, c->bits, c->ids, c->n_seqs, c->n, c->out[i], e);
}

/* All devices have chosen the same, or they have not computed the same. */
static enum apr_gpu_status chosen(struct greedy_call *c, rank_fn *fn, uint32_t n_room, int32_t *out,
                                  struct apr_gpu_err *e)
{
    const uint32_t n = world_size(c->m->dev->world);
    int32_t *others = (int32_t *)malloc(((uint64_t)(n - 1) * n_room + 1) * sizeof *others);
    if (!others) return gpu_fail(e, APR_GPU_MEMORY, "no memory for tokens");
    for (uint32_t i = 0; i < n; i++) c->out[i] = i == 0 ? out : others + (uint64_t)(i - 1) * n_room;
    enum apr_gpu_status s = world_ask(c->m->dev->world, fn, c, true, e);
    for (uint32_t i = 1; i < n && s == APR_GPU_OK; i++)
        if (c->n_out[i] != c->n_out[0] || memcmp(c->out[i], out, 4ull * c->n_out[0]) != 0)
            s = gpu_fail(e, APR_GPU_FAILED, "devices %d and %d have chosen different tokens",
                         world_device(c->m->dev->world, 0)->i, world_device(c->m->dev->world, i)->i);
    free(others);
    return s;
}

enum apr_gpu_status world_greedy(struct apr_gpu_model *m, struct apr_gpu_seq *s, int32_t id, uint32_t n,
                                 const int32_t *stop, uint32_t n_stop, int32_t *out, uint32_t *n_out,
                                 struct apr_gpu_err *e)
{
    if (!m->ranks) return greedy(m, s, id, n, stop, n_stop, out, n_out, e);
    struct greedy_call c = {m, s, NULL, NULL, stop, id, n, n_stop, 0, {}, {}, NULL, NULL};
    enum apr_gpu_status st = chosen(&c, rank_greedy, n, out, e);
    *n_out = c.n_out[0];
    return st;
}
enum apr_gpu_status world_sample(struct apr_gpu_model *m, struct apr_gpu_seq *s,
                                 const struct apr_gpu_chain *chain, const uint64_t *bits, int32_t id,
                                 uint32_t n, const int32_t *stop, uint32_t n_stop, int32_t *out,
                                 uint32_t *n_out, struct apr_gpu_err *e)
{
    if (!m->ranks) return sample(m, s, chain, bits, id, n, stop, n_stop, out, n_out, e);
    struct greedy_call c = {m, s, NULL, NULL, stop, id, n, n_stop, 0, {}, {}, chain, bits};
    enum apr_gpu_status st = chosen(&c, rank_greedy, n, out, e);
    *n_out = c.n_out[0];
    return st;
}
enum apr_gpu_status world_greedy_rows(struct apr_gpu_model *m, struct apr_gpu_seq *const *seqs,
                                      const int32_t *ids, uint32_t n_seqs, uint32_t n, int32_t *out,
                                      struct apr_gpu_err *e)
{
    if (!m->ranks) return greedy_rows(m, seqs, ids, n_seqs, n, out, e);
    struct greedy_call c = {m, NULL, seqs, ids, NULL, 0, n, 0, n_seqs, {}, {}, NULL, NULL};
    return chosen(&c, rank_greedy_rows, n_seqs * n, out, e);
}

enum apr_gpu_status world_sample_rows(struct apr_gpu_model *m, struct apr_gpu_seq *const *seqs,
                                      const struct apr_gpu_chain *chains, const uint64_t *bits,
                                      const int32_t *ids, uint32_t n_seqs, uint32_t n, int32_t *out,
                                      struct apr_gpu_err *e)
{
    if (!m->ranks) return sample_rows(m, seqs, chains, bits, ids, n_seqs, n, out, e);
    struct greedy_call c = {m, NULL, seqs, ids, NULL, 0, n, 0, n_seqs, {}, {}, chains, bits};
    return chosen(&c, rank_sample_rows, n_seqs * n, out, e);
}

/* ---- tests and profiles -----------------------------------------------------------------------------------
 */

struct look_call {
    struct world *w;
    struct apr_gpu_model *m;
    const struct apr_gpu_part *parts;
    uint32_t n_parts, n_times;
    struct apr_gpu_time *out;
    uint32_t *n;
    double per_s[APR_GPU_DEVICES];
    enum apr_gpu_fault fault;
};

static enum apr_gpu_status rank_profile(uint32_t i, void *ctx, struct apr_gpu_err *e)
{
    struct look_call *c = (struct look_call *)ctx;
    uint32_t n = c->n_times;
    struct apr_gpu_part *mine = parts_of(c->parts, c->n_parts, i);
    struct apr_gpu_time *out =
        i == 0 ? c->out : (struct apr_gpu_time *)malloc(((uint64_t)n + 1) * sizeof *out);
    enum apr_gpu_status s = APR_GPU_MEMORY;
    if (!mine || !out)
        (void)gpu_fail(e, s, "no memory for a profile");
    else
        s = profile(c->m->ranks[i], mine, c->n_parts, out, &n, e);
    if (i == 0) *c->n = n;
    if (i != 0) free(out);
    free(mine);
    return s;
}
/* Times of the first device, waiting for the others included. */
enum apr_gpu_status world_profile(struct apr_gpu_model *m, const struct apr_gpu_part *parts, uint32_t n_parts,
                                  struct apr_gpu_time *out, uint32_t *n, struct apr_gpu_err *e)
{
    if (!m->ranks) return profile(m, parts, n_parts, out, n, e);
    struct look_call c = {m->dev->world, m, parts, n_parts, *n, out, n, {}, APR_GPU_FAULT_NONE};
    return world_ask(m->dev->world, rank_profile, &c, true, e);
}

static enum apr_gpu_status rank_bandwidth(uint32_t i, void *ctx, struct apr_gpu_err *e)
{
    struct look_call *c = (struct look_call *)ctx;
    return bandwidth(world_device(c->w, i), &c->per_s[i], e);
}
/* Of all together, at the same time. */
enum apr_gpu_status world_bandwidth(struct apr_gpu_device *d, double *bytes_per_s, struct apr_gpu_err *e)
{
    if (!d->world) return bandwidth(d, bytes_per_s, e);
    struct look_call c = {d->world, NULL, NULL, 0, 0, NULL, NULL, {}, APR_GPU_FAULT_NONE};
    GPU_TRY(world_ask(d->world, rank_bandwidth, &c, false, e));
    *bytes_per_s = 0;
    for (uint32_t i = 0; i < world_size(d->world); i++) *bytes_per_s += c.per_s[i];
    return APR_GPU_OK;
}

/* The last device: where a fault of one is to be seen by the others. */
static enum apr_gpu_status rank_fault(uint32_t i, void *ctx, struct apr_gpu_err *e)
{
    struct look_call *c = (struct look_call *)ctx;
    if (i + 1 != world_size(c->w)) return APR_GPU_OK;
    return gpu_fault(world_device(c->w, i), c->fault, e);
}
enum apr_gpu_status world_fault(struct apr_gpu_device *d, enum apr_gpu_fault what, struct apr_gpu_err *e)
{
    if (!d->world) return gpu_fault(d, what, e);
    struct look_call c = {d->world, NULL, NULL, 0, 0, NULL, NULL, {}, what};
    return world_ask(d->world, rank_fault, &c, false, e);
}
enum apr_gpu_status world_unpack(struct apr_gpu_device *d, const struct apr_gpu_mat *w, float *rows,
                                 struct apr_gpu_err *e)
{
    return unpack(d->world ? world_device(d->world, 0) : d, w, rows, e);
}
enum apr_gpu_status world_launch_cost(struct apr_gpu_device *d, uint32_t n, double *s, struct apr_gpu_err *e)
{
    return launch_cost(d->world ? world_device(d->world, 0) : d, n, s, e);
}
enum apr_gpu_status world_choose(struct apr_gpu_device *d, const struct apr_gpu_chain *chains,
                                 const uint64_t *bits, const float *logits, uint32_t n_rows, uint32_t n_vocab,
                                 int32_t *out, double *s, struct apr_gpu_err *e)
{
    return choose(d->world ? world_device(d->world, 0) : d, chains, bits, logits, n_rows, n_vocab, out, s, e);
}
