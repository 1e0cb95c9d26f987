/* The parts of oracle's report. Each writes its own object into the report. */
#ifndef APR_QA_ORACLE_H
#define APR_QA_ORACLE_H

#include "out.h"
#include "subject.h"

/* oracle_stats.c: what follows from the numbers. z has every number that is used. */
void oracle_stats(const struct subject *s, const struct apr_contract_size *z, struct apr_out *o);
void oracle_explain(const struct subject *s, const struct apr_contract_size *z, struct apr_out *o);
void oracle_kernels(const struct subject *s, const struct apr_contract_size *z, struct apr_out *o);
uint64_t oracle_n_params(const struct subject *s, const struct apr_contract_size *z);

/* oracle_cross.c: the contract against the source. */
/* Field by field; returns the number of mismatches. */
unsigned oracle_cross(const struct subject *s, bool json, struct apr_out *o);
/* Names and shapes of the source's tensors; adds to v what is wrong. */
void oracle_compliance(const struct subject *s, struct apr_verdict *v, struct apr_out *o);
void oracle_tensors(const struct subject *s, struct apr_out *o);

#endif
