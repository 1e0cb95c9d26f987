#include "collect.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "fmt/fmt.h"

static int by_data(const void *a, const void *b)
{
    const struct apr_collect_place *pa = a, *pb = b;
    return (pa->data > pb->data) - (pa->data < pb->data);
}

static int by_name(const void *a, const void *b)
{
    const struct apr_collect_entry *ea = a, *eb = b;
    return strcmp(ea->name, eb->name);
}

static const char *gguf_name(struct apr_collect *k, const struct apr_tensor *t)
{
    uint32_t layer;
    char name[APR_MAX_NAME_BYTES + 1];
    const struct apr_tensor_rule *r = apr_family_rule_hf(k->model->family, t->name, &layer);
    return r ? apr_arena_strdup(&k->arena, apr_family_name(r->gguf, layer, name, sizeof name)) : t->name;
}

static bool is_wanted(const struct apr_collect *k, const char *name)
{
    return strncmp(name, "blk.", 4) == 0 || (k->with_output && strcmp(name, "output.weight") == 0);
}

static enum apr_code add(struct apr_collect *k, const struct apr_tensor *t, struct apr_err *e)
{
    struct apr_collect_entry *entry = &k->entries[k->n];
    *entry = (struct apr_collect_entry){
        .tensor = t, .name = gguf_name(k, t), .n_matrices = 1, .n_cols = apr_tensor_cols(t)};
    if (t->n_dims < 2 || !apr_tensor_part(t, 0) || !is_wanted(k, entry->name)) return APR_OK;
    for (uint32_t i = 0; i + 2 < t->n_dims; i++) entry->n_matrices *= t->dims[i];
    uint64_t n_sums = apr_tensor_elems(t) / t->dims[t->n_dims - 2];
    TRY(apr_arena_try(&k->arena, &entry->sums, (size_t)n_sums, sizeof *entry->sums, t->name, e));
    TRY(apr_arena_try(&k->arena, &entry->n_toks, (size_t)entry->n_matrices, sizeof *entry->n_toks, t->name,
                      e));
    k->n++;
    return APR_OK;
}

/* Matrices of a stack may lie apart. */
static enum apr_code find_places(struct apr_collect *k, struct apr_err *e)
{
    uint64_t n = 0;
    for (size_t i = 0; i < k->n; i++) n += k->entries[i].n_matrices;
    TRY(apr_arena_try(&k->arena, &k->places, (size_t)n + 1, sizeof *k->places, k->model->path, e));
    for (size_t i = 0; i < k->n; i++) {
        const struct apr_collect_entry *entry = &k->entries[i];
        for (uint64_t j = 0; j < entry->n_matrices; j++)
            k->places[k->n_places++] = (struct apr_collect_place){
                .data = entry->n_matrices > 1 ? apr_tensor_part(entry->tensor, j) : entry->tensor->data,
                .i_entry = i,
                .i_matrix = j};
    }
    qsort(k->places, k->n_places, sizeof *k->places, by_data);
    return APR_OK;
}

enum apr_code apr_collect_open(struct apr_collect *k, struct apr_err *e)
{
    const struct apr_model *m = k->model;
    apr_arena_init(&k->arena);
    TRY(apr_arena_try(&k->arena, &k->entries, (size_t)m->n_tensors + 1, sizeof *k->entries, m->path, e));
    for (uint64_t i = 0; i < m->n_tensors; i++) TRY(add(k, &m->tensors[i], e));
    return find_places(k, e);
}

void apr_collect_close(struct apr_collect *k)
{
    apr_arena_free(&k->arena);
}

void apr_collect_tap(void *ctx, const struct apr_mat *w, const struct apr_acts *x)
{
    struct apr_collect *k = ctx;
    const struct apr_collect_place key = {.data = w->data};
    const struct apr_collect_place *at = bsearch(&key, k->places, k->n_places, sizeof *at, by_data);
    if (!at) return;
    struct apr_collect_entry *entry = &k->entries[at->i_entry];
    if (entry->n_cols != x->n_cols) return;
    size_t n_stride = x->n_stride ? x->n_stride : x->n_cols;
    double *sums = entry->sums + at->i_matrix * entry->n_cols;
    for (size_t t = 0; t < x->n_toks; t++) {
        const float *row = x->f32 + t * n_stride;
        for (size_t i = 0; i < x->n_cols; i++) sums[i] += (double)row[i] * (double)row[i];
    }
    entry->n_toks[at->i_matrix] += x->n_toks;
}

/* ---- output ------------------------------------------------------------------------------------------- */

static enum apr_code check(const struct apr_collect *k, struct apr_err *e)
{
    uint64_t n_seen = 0;
    for (size_t i = 0; i < k->n; i++) {
        const struct apr_collect_entry *entry = &k->entries[i];
        for (uint64_t j = 0; j < entry->n_matrices; j++) n_seen += entry->n_toks[j] > 0;
        for (uint64_t j = 0; j < entry->n_matrices * entry->n_cols; j++)
            if (!isfinite((float)entry->sums[j]))
                return apr_fail(e, APR_EINFER, "%s: the input of %s is not finite", k->model->path,
                                entry->name);
    }
    if (n_seen > 0) return APR_OK;
    return apr_fail(e, APR_EINFER, "%s: no matrix of the file was multiplied with", k->model->path);
}

static void keys(struct apr_kvs *kvs, const char *dataset, uint32_t n_chunks, uint32_t chunk_toks)
{
    struct apr_str text = {dataset, strlen(dataset)};
    apr_kvs_str(kvs, "general.type", "imatrix");
    apr_kvs_array(kvs, "imatrix.datasets", APR_KV_STR, 1, &text);
    apr_kvs_u32(kvs, "imatrix.chunk_count", n_chunks);
    apr_kvs_u32(kvs, "imatrix.chunk_size", chunk_toks);
}

/* Two rows for an entry: sums [n_matrices, n_cols] and counts [n_matrices, 1], without a leading 1. */
static enum apr_code plan_rows(struct apr_collect *k, struct apr_plan *p, struct apr_err *e)
{
    TRY(apr_arena_try(&k->arena, &p->tensors, 2 * k->n, sizeof *p->tensors, "the plan", e));
    for (size_t i = 0; i < k->n; i++) {
        const struct apr_collect_entry *entry = &k->entries[i];
        const char *const names[2] = {apr_arena_printf(&k->arena, "%s.in_sum2", entry->name),
                                      apr_arena_printf(&k->arena, "%s.counts", entry->name)};
        for (size_t j = 0; j < 2; j++) {
            struct apr_plan_tensor *t = &p->tensors[p->n_tensors++];
            *t = (struct apr_plan_tensor){.name = names[j], .type = APR_F32};
            if (entry->n_matrices > 1) t->dims[t->n_dims++] = entry->n_matrices;
            t->dims[t->n_dims++] = j == 0 ? entry->n_cols : 1;
            TRY(apr_tensor_bytes(t->type, t->n_dims, t->dims, &t->n_bytes, e));
        }
    }
    return APR_OK;
}

static enum apr_code put(const struct apr_collect *k, const struct apr_fmt *fmt, struct apr_writer *w,
                         struct apr_err *e)
{
    for (size_t i = 0; i < k->n; i++) {
        const struct apr_collect_entry *entry = &k->entries[i];
        for (uint64_t j = 0; j < entry->n_matrices * entry->n_cols; j++) {
            float v = (float)entry->sums[j];
            TRY(fmt->data(w, &v, sizeof v, e));
        }
        for (uint64_t j = 0; j < entry->n_matrices; j++) {
            float v = (float)entry->n_toks[j];
            TRY(fmt->data(w, &v, sizeof v, e));
        }
    }
    return APR_OK;
}

enum apr_code apr_collect_write(struct apr_collect *k, struct apr_sink *s, const char *dataset,
                                uint32_t n_chunks, uint32_t chunk_toks, struct apr_err *e)
{
    const struct apr_fmt *fmt = apr_fmt_named("gguf");
    struct apr_kvs kvs;
    struct apr_plan plan = {.kvs = &kvs};
    struct apr_writer *w;
    TRY(check(k, e));
    qsort(k->entries, k->n, sizeof *k->entries, by_name);
    apr_kvs_init(&kvs, &k->arena);
    keys(&kvs, dataset, n_chunks, chunk_toks);
    TRY(plan_rows(k, &plan, e));
    TRY(apr_plan_layout(&plan, fmt->alignment, e));
    TRY(fmt->begin(&plan, s, &w, e));
    enum apr_code code = put(k, fmt, w, e);
    if (code == APR_OK) return fmt->end(w, NULL, e);
    fmt->abort(w);
    return code;
}
