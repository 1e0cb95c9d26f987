/* Fingerprints as documents: written, read back, looked up. See fingerprint.h. */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fingerprint.h"

#define MAX_REPORT_BYTES (512u << 20)

static const char *const percentile_keys[APR_N_PERCENTILES] = {"p5", "p25", "p50", "p75", "p95"};

/* ---- writing ------------------------------------------------------------------------------------------ */

static void put_counts(struct apr_out *o, const struct apr_fingerprint *f)
{
    if (f->is_known) {
        apr_out_u64(o, "nan_count", f->n_nan);
        apr_out_u64(o, "inf_count", f->n_inf);
        apr_out_f64(o, "zero_fraction", f->zero_fraction);
    } else {
        apr_out_str(o, "nan_count", NULL);
        apr_out_str(o, "inf_count", NULL);
        apr_out_str(o, "zero_fraction", NULL);
    }
}

void apr_fingerprint_put(struct apr_out *o, const struct apr_fingerprint *f, bool brief)
{
    char hex[17];
    (void)snprintf(hex, sizeof hex, "%016" PRIx64, f->data_xxh3);
    apr_out_obj(o, NULL);
    apr_out_str(o, "name", f->name);
    apr_out_arr(o, "shape");
    for (uint32_t i = 0; i < f->n_dims; i++) apr_out_u64(o, NULL, f->dims[i]);
    apr_out_end(o);
    apr_out_str(o, "dtype", f->dtype);
    apr_out_f64(o, "mean", f->mean);
    apr_out_f64(o, "std", f->std);
    apr_out_f64(o, "min", f->min);
    apr_out_f64(o, "max", f->max);
    for (size_t i = 0; i < APR_N_PERCENTILES && !brief; i++)
        apr_out_f64(o, percentile_keys[i], f->percentile[i]);
    if (!brief) put_counts(o, f);
    if (f->is_known)
        apr_out_u64(o, "checksum", f->checksum);
    else
        apr_out_str(o, "checksum", NULL);
    if (!brief) apr_out_str(o, "data_xxh3", hex);
    apr_out_end(o);
}

/* ---- reading ------------------------------------------------------------------------------------------ */

static enum apr_code read_shape(const json_t *shape, struct apr_fingerprint *f, const char *where,
                                struct apr_err *e)
{
    if (!json_is_array(shape) || json_array_size(shape) > APR_MAX_DIMS)
        return apr_fail(e, APR_EFORMAT, "%s: shape: expected an array of at most %d numbers", where,
                        APR_MAX_DIMS);
    f->n_dims = (uint32_t)json_array_size(shape);
    for (uint32_t i = 0; i < f->n_dims; i++) {
        const json_t *d = json_array_get(shape, i);
        if (!json_is_integer(d) || json_integer_value(d) < 0)
            return apr_fail(e, APR_EFORMAT, "%s: shape[%" PRIu32 "]: expected a number >= 0", where, i);
        f->dims[i] = (uint64_t)json_integer_value(d);
    }
    return APR_OK;
}

/* The statistics that validation compares; null and absent stay NaN. */
static enum apr_code read_one(const json_t *v, struct apr_fingerprint *f, const char *where,
                              struct apr_err *e)
{
    if (!json_is_object(v)) return apr_fail(e, APR_EFORMAT, "%s: expected an object", where);
    TRY(apr_json_str(v, "name", &f->name, where, e));
    if (!f->name) return apr_fail(e, APR_EFORMAT, "%s: no name", where);
    f->mean = f->std = f->min = f->max = f->zero_fraction = NAN;
    for (size_t i = 0; i < APR_N_PERCENTILES; i++) f->percentile[i] = NAN;
    TRY(apr_json_str(v, "dtype", &f->dtype, where, e));
    TRY(read_shape(json_object_get(v, "shape"), f, where, e));
    TRY(apr_json_f64(v, "mean", &f->mean, where, e));
    TRY(apr_json_f64(v, "std", &f->std, where, e));
    TRY(apr_json_f64(v, "min", &f->min, where, e));
    TRY(apr_json_f64(v, "max", &f->max, where, e));
    for (size_t i = 0; i < APR_N_PERCENTILES; i++)
        TRY(apr_json_f64(v, percentile_keys[i], &f->percentile[i], where, e));
    TRY(apr_json_u64(v, "nan_count", 0, UINT64_MAX, &f->n_nan, where, e));
    TRY(apr_json_u64(v, "inf_count", 0, UINT64_MAX, &f->n_inf, where, e));
    f->is_known = json_is_integer(json_object_get(v, "checksum"));
    return APR_OK;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const struct apr_fingerprint *)a)->name, ((const struct apr_fingerprint *)b)->name);
}

enum apr_code apr_fingerprints_of_json(struct apr_fingerprints *f, const char *path, struct apr_err *e)
{
    *f = (struct apr_fingerprints){0};
    apr_arena_init(&f->arena);
    TRY(apr_json_load(path, MAX_REPORT_BYTES, &f->report, e));
    const json_t *list = json_object_get(f->report, "fingerprints");
    if (!json_is_array(list) || json_array_size(list) == 0)
        return apr_fail(e, APR_EFORMAT, "%s: $.fingerprints: expected an array that is not empty", path);
    f->n = json_array_size(list);
    TRY(apr_arena_try(&f->arena, &f->at, f->n, sizeof *f->at, "fingerprints", e));
    for (size_t i = 0; i < f->n; i++) {
        char where[512];
        (void)snprintf(where, sizeof where, "%.400s: $.fingerprints[%zu]", path, i);
        TRY(read_one(json_array_get(list, i), &f->at[i], where, e));
    }
    qsort(f->at, f->n, sizeof *f->at, by_name);
    for (size_t i = 1; i < f->n; i++)
        if (by_name(&f->at[i - 1], &f->at[i]) == 0) {
            char name[128];
            return apr_fail(e, APR_EFORMAT, "%s: %s stands twice", path,
                            apr_escape(name, sizeof name, f->at[i].name, strlen(f->at[i].name)));
        }
    return APR_OK;
}

void apr_fingerprints_free(struct apr_fingerprints *f)
{
    apr_model_close(f->model);
    json_decref(f->report);
    apr_arena_free(&f->arena);
}

/* ---- looking ------------------------------------------------------------------------------------------ */

const struct apr_fingerprint *apr_fingerprints_find(const struct apr_fingerprints *f, const char *name)
{
    const struct apr_fingerprint key = {.name = name};
    return f->n ? bsearch(&key, f->at, f->n, sizeof *f->at, by_name) : NULL;
}

bool apr_fingerprint_same_shape(const struct apr_fingerprint *a, const struct apr_fingerprint *b)
{
    return a->n_dims == b->n_dims && memcmp(a->dims, b->dims, a->n_dims * sizeof a->dims[0]) == 0;
}
