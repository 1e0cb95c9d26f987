/* Which files of a repository are wanted.
 *
 * By default the weights as SafeTensors (one file, or the index with its shards; the first other file where
 * neither is there), else one GGUF (Q4_K_M, Q4_K_S, Q4_0, Q8_0, else the first; all parts of a split one),
 * and what belongs to them: configuration, tokenizer, chat template, card, licence.
 *
 *     struct select s; select_init(&s, names, n_names, arena); TRY(select_default(&s, "org/name", e));
 */
#ifndef APR_PULL_SELECT_H
#define APR_PULL_SELECT_H

#include <stdbool.h>
#include <stddef.h>

#include "arena.h"
#include "err.h"
#include "opt.h"

#define SELECT_INDEX "model.safetensors.index.json"

struct select {
    const char *const *names; /* all files of the repository, borrowed */
    size_t n_names;
    bool *wanted;     /* [n_names] */
    const char *main; /* the GGUF that stands for the repository; NULL: its folder does */
    bool has_index;   /* SELECT_INDEX is wanted: its shards are added by select_shards */
};

void select_init(struct select *s, const char *const *names, size_t n_names, struct apr_arena *a);
/* where: the repository, for messages. APR_ENOTFOUND: nothing there that holds a model. */
APR_MUST_USE enum apr_code select_default(struct select *s, const char *where, struct apr_err *e);
/* Files that match include, or with none the default ones; less those that match exclude. */
APR_MUST_USE enum apr_code select_globs(struct select *s, const struct apr_strs *include,
                                        const struct apr_strs *exclude, const char *where, struct apr_err *e);
APR_MUST_USE enum apr_code select_file(struct select *s, const char *name, const char *where,
                                       struct apr_err *e);
/* The shards that the index at path names. missing: the code when the repository lacks one. */
APR_MUST_USE enum apr_code select_shards(struct select *s, const char *path, const struct apr_strs *exclude,
                                         enum apr_code missing, const char *where, struct apr_err *e);
size_t select_count(const struct select *s);

#endif
