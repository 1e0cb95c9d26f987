/* One tensor that changes its form, and what the changes share. For the reform*.c files alone.
 *
 *     struct apr_tensor *t = apr_reform_derived(j, &view); ... return apr_reform_add(j, t, e);
 */
#ifndef APR_REFORM_JOB_H
#define APR_REFORM_JOB_H

#include "reform.h"
#include "view.h"

struct apr_reform_job {
    const struct apr_model *m;
    const struct apr_tensor *t;
    const struct apr_tensor_form *form;
    uint32_t layer;
    enum apr_target to;
    struct apr_arena *a;
    struct apr_tensors *out;
};
typedef enum apr_code apr_change_fn(const struct apr_reform_job *j, struct apr_err *e);

/* APR_ECONTRACT that names the tensor. */
enum apr_code apr_reform_refuse(const struct apr_reform_job *j, const char *why, struct apr_err *e);
/* Appends to the list of results. */
APR_MUST_USE enum apr_code apr_reform_add(const struct apr_reform_job *j, const struct apr_tensor *t,
                                          struct apr_err *e);
/* A copy of the tensor that is a view of it. */
struct apr_tensor *apr_reform_derived(const struct apr_reform_job *j, struct apr_view **view);
/* The role's name in this layer, in the arena. */
const char *apr_reform_name(const struct apr_reform_job *j, enum apr_role role);
/* Bytes can change places row by row: rows are whole numbers of blocks. */
bool apr_reform_has_rows(const struct apr_tensor *t);
bool apr_reform_is_plain(const struct apr_tensor *t);

apr_change_fn apr_reform_split_kv, apr_reform_join_kv; /* reform_latent.c */

#endif
