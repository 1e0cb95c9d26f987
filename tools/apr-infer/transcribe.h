/* run with a speech recognizer: a sound file in, a transcript out.
 *
 * Its options stand beside those of text generation; the other kind's are refused where they were given.
 *
 *     struct run_args { struct apr_speech_opts speech; ... };  APR_SPEECH_OPTS(struct run_args),
 *     TRY(apr_transcribe(&session, &a->speech, &from, e));
 */
#ifndef APR_INFER_TRANSCRIBE_H
#define APR_INFER_TRANSCRIBE_H

#include "session.h"
#include "sound.h"

struct apr_speech_opts {
    const char *language, *task;
    bool timestamps, no_timestamps, no_context, no_fallback;
    uint64_t n_best; /* 0 = not given */
};
#define APR_SPEECH_OPTS(type_)                                                                               \
    APR_OPT(type_, speech.language, "language", 'l', "CODE",                                                 \
            "sound: its language, as en or de (default: detected)"),                                         \
        APR_OPT(type_, speech.task, "task", 0, "TASK",                                                       \
                "sound: transcribe, or translate into English (default transcribe)"),                        \
        APR_OPT(type_, speech.timestamps, "timestamps", 0, NULL, "sound: times before each line of text"),   \
        APR_OPT(type_, speech.no_timestamps, "no-timestamps", 0, NULL,                                       \
                "sound: let the model say no times; a segment is a window of 30 s"),                         \
        APR_OPT(type_, speech.no_context, "no-context", 0, NULL,                                             \
                "sound: decode each window without what was said before"),                                   \
        APR_OPT(type_, speech.no_fallback, "no-fallback", 0, NULL,                                           \
                "sound: never decode a window again at a higher temperature"),                               \
        APR_OPT(type_, speech.n_best, "best-of", 0, "N",                                                     \
                "sound: samples of a window at temperatures above 0 (default 5)")

/* The option that was given, or NULL. */
const char *apr_speech_given(const struct apr_speech_opts *o);

/* How and what, beside the options above. */
struct apr_transcribe {
    struct apr_sound sound;
    const char *format; /* "text", "srt", "vtt", "json" */
    const char *prompt; /* words said before the sound, or NULL */
    double temperature; /* of the first attempt */
    uint64_t seed;
    size_t n_max; /* tokens of a window; 0 = as many as fit */
    bool exact;
};
APR_MUST_USE enum apr_code apr_transcribe(struct apr_session *s, const struct apr_speech_opts *o,
                                          struct apr_transcribe *t, struct apr_err *e);

#endif
