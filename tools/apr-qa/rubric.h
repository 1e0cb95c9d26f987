/* The 100 points of validate, one table row each.
 *
 * A point scores only when its check ran on this file and passed. Points that do not apply to the file or to
 * this verb are skipped with the reason, and are not part of the score's denominator.
 *
 *     struct point_result r[N_POINTS]; rubric_run(&facts, r); rubric_score(r, &score);
 */
#ifndef APR_QA_RUBRIC_H
#define APR_QA_RUBRIC_H

#include "facts.h"

#define N_POINTS 100

enum point_status { POINT_SKIP, POINT_PASS, POINT_WARN, POINT_FAIL };

struct point_result {
    enum point_status status;
    char detail[192]; /* what was found; for a skipped point why */
};

struct point {
    const char *subject;
    enum point_status (*check)(const struct facts *f, char *detail, size_t n); /* NULL: always skipped */
    const char *reason;                                                        /* of a skip without a check */
};

struct score {
    unsigned n_passed, n_applicable, n_warned, n_failed;
    double pct;
    const char *grade;
};

const struct point *rubric_at(unsigned number);      /* 1 to N_POINTS */
const char *rubric_category(unsigned number);        /* "A Structure" */
const char *rubric_status(enum point_status status); /* "pass" */
void rubric_run(const struct facts *f, struct point_result r[N_POINTS]);
/* Over points first to last; rubric_score(r, 1, N_POINTS, &s) is the whole. */
void rubric_score(const struct point_result r[N_POINTS], unsigned first, unsigned last, struct score *s);

#endif
