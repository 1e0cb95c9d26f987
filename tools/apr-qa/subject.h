/* What oracle talks about: a model, a config.json alone, or a line of the contracts.
 *
 *     struct subject s; TRY(subject_open(&s, "DIR", "qwen2", "7b", e)); ... subject_close(&s);
 */
#ifndef APR_QA_SUBJECT_H
#define APR_QA_SUBJECT_H

#include "contract.h"

struct subject {
    const char *source;      /* NULL: the contracts alone */
    struct apr_model *model; /* owned; NULL without weights */
    json_t *config;          /* owned; config.json, or NULL */
    bool has_numbers;        /* found below was read from the source */
    struct apr_config found; /* the source's hyper-parameters */
    const char *found_family, *found_arch;
    const struct apr_contract_family *family; /* the contract's; NULL: none fits */
    const struct apr_contract_size *size;     /* listed; NULL: no size has these numbers */
    struct apr_contract_size custom;          /* the found numbers in a size's form, where size is NULL */
};

/* family and size may be NULL: then the source tells. */
APR_MUST_USE enum apr_code subject_open(struct subject *s, const char *source, const char *family,
                                        const char *size, struct apr_err *e);
void subject_close(struct subject *s);
/* Is the contract's family one that the source may stand under? Several share an architecture's name. */
bool subject_fits(const struct subject *s);
/* The listed size, else the found numbers; NULL when there are none. */
const struct apr_contract_size *subject_numbers(const struct subject *s);
/* Tensors of a complete model with these numbers; 0 = not known. */
uint64_t subject_n_tensors(const struct subject *s);

#endif
