#include "folder.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "hf_docs.h"
#include "json.h"
#include "parts.h"

#define SUFFIX ".safetensors"

bool folder_is_meant(const char *output)
{
    size_t n = strlen(output), k = strlen(SUFFIX);
    struct stat st;
    if (strcmp(output, "-") == 0) return false;
    if (stat(output, &st) == 0 && !S_ISDIR(st.st_mode)) return false; /* also /dev/null, /dev/full */
    return stat(output, &st) == 0 || n <= k || strcmp(output + n - k, SUFFIX) != 0;
}

/* The order of the dtypes in the format's reference implementation. */
static int rank_of(enum apr_type type)
{
    static const enum apr_type order[] = {APR_U8,  APR_I8,  APR_I16, APR_F16, APR_BF16,
                                          APR_I32, APR_F32, APR_F64, APR_I64};
    for (int i = 0; i < (int)(sizeof order / sizeof *order); i++)
        if (order[i] == type) return i;
    return -1;
}

static int by_reference(const void *a, const void *b)
{
    const struct apr_plan_tensor *x = a, *y = b;
    int rx = rank_of(x->type), ry = rank_of(y->type);
    return rx != ry ? ry - rx : strcmp(x->name, y->name);
}

enum apr_code folder_order(const struct apr_model *m, struct apr_plan *p, struct apr_err *e)
{
    if (m->is_stream || p->n_tensors == 0) return APR_OK;
    qsort(p->tensors, p->n_tensors, sizeof *p->tensors, by_reference);
    return apr_plan_layout(p, p->alignment, e);
}

static const char *shard_name(struct apr_arena *a, uint32_t i, uint32_t n)
{
    if (n == 1) return "model" SUFFIX;
    return apr_arena_printf(a, "model-%05" PRIu32 "-of-%05" PRIu32 SUFFIX, i + 1, n);
}

static int by_name(const void *a, const void *b)
{
    const struct apr_plan_tensor *const *x = a, *const *y = b;
    return strcmp((*x)->name, (*y)->name);
}

/* {"metadata": {"total_size": N}, "weight_map": {tensor: shard}}, sorted by tensor. */
static enum apr_code write_index(const struct apr_plan *parts, uint32_t n, const char *dir,
                                 struct apr_arena *a, struct apr_err *e)
{
    uint64_t n_tensors = 0, n_bytes = 0;
    json_t *root, *map = json_object();
    struct apr_buf compact, text;
    for (uint32_t i = 0; i < n; i++) {
        const char *shard = shard_name(a, i, n);
        n_tensors += parts[i].n_tensors;
        for (uint64_t k = 0; k < parts[i].n_tensors; k++) {
            n_bytes += parts[i].tensors[k].n_bytes;
            json_object_set_new(map, parts[i].tensors[k].name, json_string(shard));
        }
    }
    const struct apr_plan_tensor **sorted = apr_arena_get(a, (size_t)(n_tensors + 1) * sizeof *sorted);
    uint64_t at = 0;
    for (uint32_t i = 0; i < n; i++)
        for (uint64_t k = 0; k < parts[i].n_tensors; k++) sorted[at++] = &parts[i].tensors[k];
    qsort(sorted, n_tensors, sizeof *sorted, by_name);
    json_t *in_order = json_object();
    for (uint64_t i = 0; i < n_tensors; i++)
        json_object_set(in_order, sorted[i]->name, json_object_get(map, sorted[i]->name));
    json_decref(map);
    root = json_pack("{s:{s:I}, s:o}", "metadata", "total_size", (json_int_t)n_bytes, "weight_map", in_order);
    apr_buf_init(&compact, SIZE_MAX / 2);
    apr_buf_init(&text, SIZE_MAX / 2);
    enum apr_code code = apr_json_dump(root, false, &compact, e);
    if (code == APR_OK) code = hf_docs_pretty((const char *)compact.data, compact.n_bytes, &text, e);
    if (code == APR_OK) code = hf_docs_put(dir, "model" SUFFIX ".index.json", &text, e);
    apr_buf_free(&compact);
    apr_buf_free(&text);
    json_decref(root);
    return code;
}

static enum apr_code write_shard(const struct apr_convert *c, const char *path, uint64_t *n_out,
                                 struct apr_err *e)
{
    struct apr_sink *s;
    TRY(apr_sink_open(&s, path, false, e));
    enum apr_code code = apr_convert_run(c, s, NULL, e);
    if (code != APR_OK && !apr_sink_failed(s)) {
        apr_sink_abort(s);
        return code;
    }
    *n_out += apr_sink_pos(s);
    return apr_sink_finish(s, e);
}

static enum apr_code check_space(const struct apr_convert *c, const struct apr_plan *parts, uint32_t n,
                                 const char *dir, struct apr_arena *a, struct apr_err *e)
{
    uint64_t n_all = 0, n_head, n_total;
    struct apr_sink *s;
    for (uint32_t i = 0; i < n; i++) {
        TRY(c->fmt->measure(&parts[i], &n_head, &n_total, e));
        n_all += n_total;
    }
    TRY(apr_sink_open(&s, apr_arena_printf(a, "%s/%s", dir, shard_name(a, 0, n)), false, e));
    enum apr_code code = apr_sink_need(s, n_all, e);
    apr_sink_abort(s);
    return code;
}

static enum apr_code fill(const struct apr_convert *c, const char *dir, const struct apr_plan *parts,
                          uint32_t n, struct apr_arena *a, uint64_t *n_out, struct apr_err *e)
{
    TRY(check_space(c, parts, n, dir, a, e));
    TRY(hf_docs_write(c->model, c->plan, dir, e));
    for (uint32_t i = 0; i < n; i++) {
        struct apr_convert one = *c;
        one.plan = &parts[i];
        one.more = i + 1 < n;
        TRY(write_shard(&one, apr_arena_printf(a, "%s/%s", dir, shard_name(a, i, n)), n_out, e));
    }
    return n > 1 ? write_index(parts, n, dir, a, e) : APR_OK;
}

enum apr_code folder_write(const struct apr_convert *c, const char *output, uint64_t max_shard_bytes,
                           bool force, struct apr_arena *a, uint32_t *n_parts, uint64_t *n_out,
                           struct apr_err *e)
{
    struct apr_plan *parts;
    struct apr_dir *d;
    *n_out = 0;
    TRY(parts_make(c->plan, (struct parts_limit){.n_bytes = max_shard_bytes}, a, &parts, n_parts, e));
    TRY(apr_dir_open(&d, output, force, e));
    enum apr_code code = fill(c, apr_dir_path(d), parts, *n_parts, a, n_out, e);
    if (code == APR_OK) return apr_dir_finish(d, e);
    apr_dir_abort(d);
    return code;
}
