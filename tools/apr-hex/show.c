/* Pieces of reports. See show.h. */
#include "show.h"

#include <inttypes.h>
#include <stdio.h>

#include "fmt/fmt.h"

const char *show_format(const struct apr_model *m, char *out, size_t n_out)
{
    if (m->header.version)
        (void)snprintf(out, n_out, "%s v%" PRIu32, m->fmt->title, m->header.version);
    else
        (void)snprintf(out, n_out, "%s", m->fmt->title);
    return out;
}

uint64_t show_file_bytes(const struct apr_model *m)
{
    uint64_t n = 0;
    for (uint32_t i = 0; i < m->n_files; i++)
        n += m->files[i].n_bytes == UINT64_MAX ? apr_src_pos(m->files[i].src) : m->files[i].n_bytes;
    return n;
}

void show_json(struct apr_out *o, const char *key, const json_t *v)
{
    const char *name;
    json_t *member;
    if (json_is_object(v)) {
        apr_out_obj(o, key);
        json_object_foreach((json_t *)(uintptr_t)v, name, member)
        {
            show_json(o, name, member);
        }
        apr_out_end(o);
    } else if (json_is_array(v)) {
        apr_out_arr(o, key);
        for (size_t i = 0; i < json_array_size(v); i++) show_json(o, NULL, json_array_get(v, i));
        apr_out_end(o);
    } else if (json_is_string(v)) {
        apr_out_strn(o, key, json_string_value(v), json_string_length(v));
    } else if (json_is_integer(v)) {
        apr_out_i64(o, key, json_integer_value(v));
    } else if (json_is_real(v)) {
        apr_out_f64(o, key, json_real_value(v));
    } else if (json_is_boolean(v)) {
        apr_out_bool(o, key, json_is_true(v));
    } else {
        apr_out_str(o, key, NULL);
    }
}

void show_shape(struct apr_out *o, const char *key, const struct apr_tensor *t)
{
    apr_out_arr(o, key);
    for (uint32_t i = 0; i < t->n_dims; i++) apr_out_u64(o, NULL, t->dims[i]);
    apr_out_end(o);
}
