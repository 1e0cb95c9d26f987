/* Transcripts as text, SubRip, WebVTT or JSON; segments leave as they come, but for JSON.
 *
 *     struct apr_asr_writer w = {.format = f, .to = stdout}; TRY(apr_asr_write_begin(&w, e));
 *     ... apr_asr_write_segment is the take function, with &w ...
 *     TRY(apr_asr_write_end(&w, &asr, seconds, e)); apr_asr_write_free(&w);
 */
#ifndef APR_INFER_ASR_TEXT_H
#define APR_INFER_ASR_TEXT_H

#include <stdio.h>

#include "asr.h"
#include "out.h"

struct apr_asr_format;
struct apr_asr_kept;

struct apr_asr_writer {
    const struct apr_asr_format *format;
    FILE *to;
    bool with_times; /* of plain text: "[00:01.000 --> 00:02.500]  " before each line */
    const char *model;
    /* JSON: what came so far */
    struct apr_arena arena; /* owns the copies */
    struct apr_asr_kept *first, *last;
    size_t n_text; /* of all segments, with blanks between */
};

/* "text", "srt", "vtt", "json"; NULL when unknown. */
const struct apr_asr_format *apr_asr_format_named(const char *name);
bool apr_asr_format_is_json(const struct apr_asr_format *f);
bool apr_asr_format_needs_times(const struct apr_asr_format *f);
APR_MUST_USE enum apr_code apr_asr_write_begin(struct apr_asr_writer *w, struct apr_err *e);
apr_asr_take_fn apr_asr_write_segment; /* ctx: struct apr_asr_writer */
/* Ends the document; after a failure: apr_asr_write_free. */
APR_MUST_USE enum apr_code apr_asr_write_end(struct apr_asr_writer *w, const struct apr_asr *a,
                                             double sound_s, struct apr_err *e);
void apr_asr_write_free(struct apr_asr_writer *w);

#endif
