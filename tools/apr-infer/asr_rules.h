/* Special tokens of a speech recognizer, and what its decoder may say next.
 *
 * The tokens come from generation_config.json where it names them, else from their text in the vocabulary.
 * The rules are those of the published decoding procedure: timestamps come in pairs and never go back, text
 * that is less likely than all timestamps together gives way to one, listed tokens are never said.
 *
 *     struct apr_asr_tokens t; TRY(apr_asr_tokens_read(&t, model, arena, e));
 *     apr_asr_filter(&t, kern, said, n_said, with_timestamps, logits);
 */
#ifndef APR_INFER_ASR_RULES_H
#define APR_INFER_ASR_RULES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "model.h"

#define APR_ASR_TICK_S 0.02 /* from one timestamp token to the next */

struct apr_asr_lang {
    const char *code; /* "de" */
    int32_t id;
};

struct apr_asr_tokens {
    size_t n_vocab;
    int32_t start, end;            /* of a transcript; end: the first id that is no text */
    int32_t transcribe, translate; /* -1 where the model has none, as all below */
    int32_t no_timestamps, no_speech, previous, solo;
    int32_t time0;                   /* "<|0.00|>"; the ids from here to the end are times */
    int32_t max_first;               /* the first timestamp is at most time0 + max_first */
    bool is_translator;              /* forced_decoder_ids says so: the task where none is asked for */
    const struct apr_asr_lang *lang; /* and the language, where it names one; else NULL */
    struct apr_asr_lang *langs;
    size_t n_langs;       /* 0: one language only */
    const int32_t *never; /* ids that are never said */
    size_t n_never;
    const int32_t *not_first; /* nor as the first */
    size_t n_not_first;
};

/* A generation_config.json that contradicts the vocabulary: APR_EFORMAT. A model without a start token:
 * APR_ELOAD. */
APR_MUST_USE enum apr_code apr_asr_tokens_read(struct apr_asr_tokens *t, const struct apr_model *m,
                                               struct apr_arena *arena, struct apr_err *e);
/* NULL where the model does not know the language. */
const struct apr_asr_lang *apr_asr_lang(const struct apr_asr_tokens *t, const char *code);
/* Sets what must not follow said[0 .. n_said) to -inf. logits: [n_vocab]. */
void apr_asr_filter(const struct apr_asr_tokens *t, const int32_t *said, size_t n_said, bool with_timestamps,
                    float *logits);
/* log(sum(exp(x))) over n values, in double; -inf for none. */
double apr_asr_logsumexp(const float *x, size_t n);

#endif
