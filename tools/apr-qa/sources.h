/* The sources that a model was made from, proven by hashing: every file that its provenance names is looked
 * up in folders and its size and SHA-256 compared with what the model records (header, or trailing section
 * for what was hashed while it was read). The models of a merge may have files of the same name in several
 * folders: one of them has to be the recorded file. No file is hashed twice.
 *
 *     TRY(sources_check(m, &dirs, arena, &s, e)); ... sources_show(&s, o); TRY(sources_judge(&s, path, e));
 */
#ifndef APR_QA_SOURCES_H
#define APR_QA_SOURCES_H

#include "model.h"
#include "opt.h"
#include "out.h"

struct source {
    const char *name, *recorded, *found; /* SHA-256 in hex, or NULL */
    uint64_t n_recorded;                 /* bytes; UINT64_MAX: not known */
    const char *status;                  /* "proven", "differs", "missing", "no hash recorded" */
};

struct sources {
    const struct apr_strs *dirs;
    struct source *at;
    size_t n;
    struct hashed *hashed; /* [n * dirs->n] at most: files that were read */
    size_t n_hashed;
};

/* dirs outlives s. */
APR_MUST_USE enum apr_code sources_check(const struct apr_model *m, const struct apr_strs *dirs,
                                         struct apr_arena *a, struct sources *s, struct apr_err *e);
void sources_show(const struct sources *s, struct apr_out *o);
/* 3 when a file is missing, 5 when one is another file or cannot be proven. */
APR_MUST_USE enum apr_code sources_judge(const struct sources *s, const char *path, struct apr_err *e);

#endif
