#include "imatrix.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "fmt/fmt.h"
#include "rd.h"

enum { MAX_ENTRIES = 1 << 20, MAX_NAME_BYTES = 1024, MAX_DATASET_BYTES = 4096, DATASET_KEY_BYTES = 127 };
enum { DAT_ENTRY_MIN_BYTES = 4 + 1 + 4 + 4 + 4 };

static const char sum_suffix[] = ".in_sum2", count_suffix[] = ".counts";

static int by_name(const void *a, const void *b)
{
    const struct apr_imatrix_entry *ea = a, *eb = b;
    return strcmp(ea->name, eb->name);
}

static enum apr_code check_values(const struct apr_imatrix_entry *entry, const char *file, struct apr_err *e)
{
    for (uint64_t i = 0; i < entry->n_values; i++) {
        if (isfinite(entry->values[i]) && entry->values[i] >= 0) continue;
        return apr_fail(e, APR_EFORMAT, "%s: %s: value %" PRIu64 " is %g; expected a finite number >= 0",
                        file, entry->name, i, (double)entry->values[i]);
    }
    return APR_OK;
}

/* ---- GGUF --------------------------------------------------------------------------------------------- */

static bool has_suffix(const char *s, const char *suffix)
{
    size_t n = strlen(s), k = strlen(suffix);
    return n > k && strcmp(s + n - k, suffix) == 0;
}

static enum apr_code read_f32(struct apr_model *m, const struct apr_tensor *t, const char *file, float **out,
                              struct apr_err *e)
{
    uint64_t n = apr_tensor_elems(t);
    if (t->type != APR_F32 || n == 0)
        return apr_fail(e, APR_EFORMAT, "%s: tensor %s: %" PRIu64 " values of %s; expected F32", file,
                        t->name, n, apr_type_name(t->type));
    TRY(apr_arena_try(&m->arena, out, (size_t)n, sizeof **out, t->name, e));
    return apr_model_read(m, t, 0, *out, (size_t)t->n_bytes, e);
}

/* One pair of sums and counts. */
static enum apr_code gguf_entry(struct apr_imatrix *im, struct apr_model *m, const struct apr_tensor *sums,
                                const char *file, struct apr_err *e)
{
    size_t n_stem = strlen(sums->name) - strlen(sum_suffix);
    struct apr_imatrix_entry *entry = &im->entries[im->n_entries];
    entry->name = apr_arena_strndup(&im->arena, sums->name, n_stem);
    const struct apr_tensor *counts =
        apr_model_find(m, apr_arena_printf(&m->arena, "%s%s", entry->name, count_suffix));
    float *sum, *count, *values;
    if (!counts)
        return apr_fail(e, APR_EFORMAT, "%s: tensor %s has no %s beside it", file, sums->name, count_suffix);
    TRY(read_f32(m, sums, file, &sum, e));
    TRY(read_f32(m, counts, file, &count, e));
    uint64_t n_counts = apr_tensor_elems(counts);
    entry->n_values = apr_tensor_elems(sums);
    if (entry->n_values % n_counts != 0)
        return apr_fail(e, APR_EFORMAT, "%s: tensor %s: %" PRIu64 " sums for %" PRIu64 " counts", file,
                        sums->name, entry->n_values, n_counts);
    TRY(apr_arena_try(&im->arena, &values, (size_t)entry->n_values, sizeof *values, entry->name, e));
    for (uint64_t i = 0; i < entry->n_values; i++) {
        float n = roundf(count[i / (entry->n_values / n_counts)]);
        values[i] = n > 0 ? sum[i] / n : 1;
    }
    entry->values = values;
    im->n_entries++;
    return check_values(entry, file, e);
}

static enum apr_code gguf_keys(struct apr_imatrix *im, const struct apr_model *m, const char *file,
                               struct apr_err *e)
{
    const struct apr_kv *datasets = apr_kvs_find(&m->kvs, "imatrix.datasets");
    const struct apr_kv *chunks = apr_kvs_find(&m->kvs, "imatrix.chunk_count");
    uint64_t n_chunks = 0;
    if (!datasets || !chunks || !apr_kvs_find(&m->kvs, "imatrix.chunk_size"))
        return apr_fail(e, APR_EFORMAT,
                        "%s: not an importance matrix: expected the keys imatrix.datasets, "
                        "imatrix.chunk_count and imatrix.chunk_size",
                        file);
    TRY(apr_kv_get_u64(&m->kvs, "imatrix.chunk_count", 0, UINT32_MAX, &n_chunks, file, e));
    im->n_chunks = (uint32_t)n_chunks;
    if (datasets->type != APR_KV_ARRAY || datasets->elem_type != APR_KV_STR || datasets->v.a.n == 0)
        return APR_OK;
    const struct apr_str *first = datasets->v.a.items;
    im->dataset = apr_arena_strndup(&im->arena, first->p,
                                    first->n_bytes < MAX_DATASET_BYTES ? first->n_bytes : MAX_DATASET_BYTES);
    return APR_OK;
}

static enum apr_code read_gguf(struct apr_imatrix *im, struct apr_model *m, const char *file,
                               struct apr_err *e)
{
    TRY(gguf_keys(im, m, file, e));
    TRY(apr_arena_try(&im->arena, &im->entries, (size_t)m->n_tensors, sizeof *im->entries, file, e));
    for (uint64_t i = 0; i < m->n_tensors; i++) {
        const struct apr_tensor *t = &m->tensors[i];
        if (has_suffix(t->name, sum_suffix))
            TRY(gguf_entry(im, m, t, file, e));
        else if (!has_suffix(t->name, count_suffix))
            return apr_fail(e, APR_EFORMAT, "%s: tensor %s: expected names that end in %s or %s", file,
                            t->name, sum_suffix, count_suffix);
    }
    return APR_OK;
}

/* src becomes the model's. */
static enum apr_code open_gguf(struct apr_imatrix *im, struct apr_src *src, const char *path,
                               const struct apr_fmt *fmt, struct apr_err *e)
{
    struct apr_model *m = apr_model_new(path);
    m->fmt = fmt;
    m->is_look = true;
    enum apr_code code = fmt->open(src, path, m, e);
    if (code == APR_OK) code = read_gguf(im, m, apr_src_name(src), e);
    apr_model_close(m);
    return code;
}

/* ---- .dat --------------------------------------------------------------------------------------------- */

static enum apr_code dat_count(struct apr_rd *rd, uint32_t min, uint32_t max, const char *what, uint32_t *v,
                               struct apr_err *e)
{
    uint64_t off = apr_rd_off(rd);
    TRY(apr_rd_u32(rd, v, what, e));
    if (*v >= min && *v <= max) return APR_OK;
    return apr_fail(e, APR_EFORMAT, "%s: byte %" PRIu64 ": %s %" PRId32 ", expected %" PRIu32 " to %" PRIu32,
                    rd->file, off, what, (int32_t)*v, min, max);
}

static enum apr_code dat_text(struct apr_imatrix *im, struct apr_rd *rd, uint32_t max, const char *what,
                              const char **text, struct apr_err *e)
{
    const uint8_t *p;
    uint32_t n;
    uint64_t off = apr_rd_off(rd);
    TRY(dat_count(rd, 1, max, what, &n, e));
    TRY(apr_rd_bytes(rd, n, &p, what, e));
    if (memchr(p, 0, n))
        return apr_fail(e, APR_EFORMAT, "%s: byte %" PRIu64 ": a NUL in a %s", rd->file, off, what);
    *text = apr_arena_strndup(&im->arena, (const char *)p, n);
    return APR_OK;
}

static enum apr_code dat_entry(struct apr_imatrix *im, struct apr_rd *rd, struct apr_err *e)
{
    struct apr_imatrix_entry *entry = &im->entries[im->n_entries];
    uint32_t n_calls, n_values;
    const uint8_t *p;
    float *values;
    TRY(dat_text(im, rd, MAX_NAME_BYTES, "name", &entry->name, e));
    TRY(dat_count(rd, 0, INT32_MAX, "number of calls", &n_calls, e));
    TRY(dat_count(rd, 1, INT32_MAX, "number of values", &n_values, e));
    TRY(apr_rd_room(rd, n_values, sizeof(float), "number of values", e));
    TRY(apr_rd_bytes(rd, (uint64_t)n_values * sizeof(float), &p, entry->name, e));
    TRY(apr_arena_try(&im->arena, &values, n_values, sizeof *values, entry->name, e));
    memcpy(values, p, n_values * sizeof *values);
    for (uint32_t i = 0; i < n_values && n_calls > 0; i++) values[i] /= (float)n_calls;
    entry->values = values;
    entry->n_values = n_values;
    im->n_entries++;
    return check_values(entry, rd->file, e);
}

static enum apr_code read_dat(struct apr_imatrix *im, struct apr_rd *rd, struct apr_err *e)
{
    uint32_t n_entries;
    TRY(dat_count(rd, 1, MAX_ENTRIES, "number of entries (no importance matrix?)", &n_entries, e));
    TRY(apr_rd_room(rd, n_entries, DAT_ENTRY_MIN_BYTES, "number of entries (no importance matrix?)", e));
    TRY(apr_arena_try(&im->arena, &im->entries, n_entries, sizeof *im->entries, rd->file, e));
    for (uint32_t i = 0; i < n_entries; i++) TRY(dat_entry(im, rd, e));
    if (apr_rd_left(rd) == 0) return APR_OK;
    TRY(dat_count(rd, 0, INT32_MAX, "number of chunks", &im->n_chunks, e));
    TRY(dat_text(im, rd, MAX_DATASET_BYTES, "name of the text", &im->dataset, e));
    if (apr_rd_left(rd) == 0) return APR_OK;
    return apr_fail(e, APR_EFORMAT, "%s: byte %" PRIu64 ": %" PRIu64 " bytes after the end", rd->file,
                    apr_rd_off(rd), apr_rd_left(rd));
}

/* ---- both --------------------------------------------------------------------------------------------- */

static enum apr_code open_any(struct apr_imatrix *im, const char *path, struct apr_err *e)
{
    struct apr_src *src;
    struct apr_rd rd;
    const uint8_t *p;
    size_t n = 0;
    TRY(apr_src_open(&src, path, e));
    enum apr_code code = apr_src_spool(src, e);
    if (code == APR_OK) code = apr_src_peek(src, 4, &p, &n, e);
    const struct apr_fmt *gguf = apr_fmt_named("gguf");
    if (code == APR_OK && gguf->probe(p, n)) return open_gguf(im, src, path, gguf, e);
    if (code == APR_OK) code = apr_src_map(src, &p, e);
    if (code == APR_OK) {
        apr_rd_mem(&rd, p, apr_src_size(src), 0, apr_src_name(src));
        code = read_dat(im, &rd, e);
        apr_rd_close(&rd);
    }
    apr_src_close(src);
    return code;
}

static enum apr_code finish(struct apr_imatrix *im, struct apr_err *e)
{
    if (im->n_entries == 0)
        return apr_fail(e, APR_EFORMAT, "%s: an importance matrix without entries", im->file);
    qsort(im->entries, im->n_entries, sizeof *im->entries, by_name);
    for (size_t i = 1; i < im->n_entries; i++)
        if (strcmp(im->entries[i - 1].name, im->entries[i].name) == 0)
            return apr_fail(e, APR_EFORMAT, "%s: %s occurs twice", im->file, im->entries[i].name);
    return APR_OK;
}

enum apr_code apr_imatrix_open(struct apr_imatrix **out, const char *path, struct apr_err *e)
{
    struct apr_arena arena;
    const char *slash = strrchr(path, '/');
    *out = NULL;
    apr_arena_init(&arena);
    struct apr_imatrix *im = apr_arena_get(&arena, sizeof *im);
    *im = (struct apr_imatrix){.arena = arena};
    im->file = apr_arena_strdup(&im->arena, slash ? slash + 1 : path);
    enum apr_code code = open_any(im, path, e);
    if (code == APR_OK) code = finish(im, e);
    if (code == APR_OK)
        *out = im;
    else
        apr_imatrix_close(im);
    return code;
}

void apr_imatrix_close(struct apr_imatrix *im)
{
    if (!im) return;
    struct apr_arena arena = im->arena; /* it holds im itself */
    apr_arena_free(&arena);
}

const struct apr_imatrix_entry *apr_imatrix_find(const struct apr_imatrix *im, const char *gguf_name)
{
    struct apr_imatrix_entry key = {.name = gguf_name};
    return bsearch(&key, im->entries, im->n_entries, sizeof *im->entries, by_name);
}

json_t *apr_imatrix_describe(const struct apr_imatrix *im)
{
    json_t *o = json_object(), *dataset = im->dataset ? json_string(im->dataset) : NULL;
    json_object_set_new(o, "file", json_string(im->file));
    if (dataset) json_object_set_new(o, "dataset", dataset); /* NULL also where it is not UTF-8 */
    json_object_set_new(o, "entries_count", json_integer((json_int_t)im->n_entries));
    if (im->n_chunks > 0) json_object_set_new(o, "chunks_count", json_integer(im->n_chunks));
    return o;
}

void apr_imatrix_keys(const json_t *description, struct apr_kvs *kvs)
{
    static const struct {
        const char *name, *key;
    } texts[] = {{"file", "quantize.imatrix.file"}, {"dataset", "quantize.imatrix.dataset"}},
      counts[] = {{"entries_count", "quantize.imatrix.entries_count"},
                  {"chunks_count", "quantize.imatrix.chunks_count"}};
    for (size_t i = 0; i < 2; i++) {
        const char *s = json_string_value(json_object_get(description, texts[i].name));
        char cut[DATASET_KEY_BYTES + 1];
        if (!s) continue;
        snprintf(cut, sizeof cut, "%s", s); /* as llama.cpp cuts them */
        apr_kvs_str(kvs, texts[i].key, cut);
    }
    for (size_t i = 0; i < 2; i++) {
        const json_t *n = json_object_get(description, counts[i].name);
        if (json_is_integer(n)) apr_kvs_u32(kvs, counts[i].key, (uint32_t)json_integer_value(n));
    }
}
