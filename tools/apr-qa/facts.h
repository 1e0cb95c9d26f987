/* Everything that validate found out about a model, before it is judged point by point.
 *
 * Built by facts_gather; the model and the arrays live until facts_free.
 *
 *     struct facts f; TRY(facts_gather(&f, path, n_threads, strict, e)); ... facts_free(&f);
 */
#ifndef APR_QA_FACTS_H
#define APR_QA_FACTS_H

#include "contract.h"
#include "fmt/fmt.h"

enum integrity { INTEGRITY_NONE, INTEGRITY_OK, INTEGRITY_BAD }; /* NONE: the format carries no checksums */

struct facts {
    struct apr_arena arena;
    struct apr_model *model; /* owned */
    struct apr_verdict verdict;
    struct apr_stats *stats; /* [n_tensors]; n = 0 where a tensor could not be judged */
    enum integrity integrity;
    struct apr_err integrity_error;
    bool no_contract; /* the family has none: names and shapes could not be judged */
    double elapsed_s;
};

/* Loads, checks the structure, the checksums, the data. Faults of the model are no error: they are in f. */
APR_MUST_USE enum apr_code facts_gather(struct facts *f, const char *path, unsigned n_threads, bool strict,
                                        struct apr_err *e);
void facts_free(struct facts *f);

/* The first violation whose rule begins with prefix, or NULL. */
const struct apr_violation *facts_violation(const struct facts *f, const char *prefix);
double facts_mean(const struct apr_stats *s); /* over finite values; NaN without any */
double facts_std(const struct apr_stats *s);  /* of the sample, n - 1 */

#endif
