/* From requests to token ids: the model's chat templates, each parsed once.
 *
 *     struct apr_prompter p; apr_prompter_init(&p, &session);
 *     TRY(apr_prompter_encode(&p, &request, &ids, e)); ... apr_prompter_close(&p);
 */
#ifndef APR_INFER_PROMPTER_H
#define APR_INFER_PROMPTER_H

#include "chat.h"
#include "request.h"
#include "session.h"

#define APR_MAX_TEMPLATES 16u

struct apr_prompter {
    const struct apr_session *s; /* borrowed */
    struct apr_chat chats[APR_MAX_TEMPLATES];
    char *names[APR_MAX_TEMPLATES]; /* owned; NULL is the default template */
    size_t n;
};

void apr_prompter_init(struct apr_prompter *p, const struct apr_session *s);
void apr_prompter_close(struct apr_prompter *p);
/* Appends to ids what apr run feeds for the same prompt. */
APR_MUST_USE enum apr_code apr_prompter_encode(struct apr_prompter *p, const struct apr_request *r,
                                               struct apr_ids *ids, struct apr_err *e);

#endif
