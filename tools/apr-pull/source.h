/* What the operand of pull means.
 *
 *     DIR, FILE, file://PATH         what is there already
 *     http://..., https://...        one file
 *     hf://ORG/NAME[@REV][/FILE], ORG/NAME[@REV][/FILE],
 * https://huggingface.co/ORG/NAME[/tree|blob|resolve/REV[/FILE]] A local path wins over a repository of the
 * same name. Strings live in the arena.
 *
 *     struct source s; TRY(source_parse(&s, operand, revision, arena, e));
 */
#ifndef APR_PULL_SOURCE_H
#define APR_PULL_SOURCE_H

#include "arena.h"
#include "err.h"

enum source_kind { SOURCE_PATH, SOURCE_URL, SOURCE_HUB };

struct source {
    enum source_kind kind;
    const char *path;     /* SOURCE_PATH */
    const char *url;      /* SOURCE_URL */
    const char *repo;     /* SOURCE_HUB: "org/name" */
    const char *revision; /* "main" unless named */
    const char *file;     /* NULL: the repository */
};

/* revision: --revision, or NULL. */
APR_MUST_USE enum apr_code source_parse(struct source *s, const char *operand, const char *revision,
                                        struct apr_arena *a, struct apr_err *e);
/* "ORG/NAME[@REV][/FILE]" with or without hf://; revision is NULL when not named. */
APR_MUST_USE enum apr_code source_parse_repo(struct source *s, const char *operand, struct apr_arena *a,
                                             struct apr_err *e);

#endif
