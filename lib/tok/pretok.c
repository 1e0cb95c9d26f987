/* See pretok.h. */
#include "pretok.h"

#include <string.h>

#include "utf8.h"

enum apr_code apr_pretok_open(struct apr_pretok *pt, const struct apr_pre_step *steps, size_t n_steps,
                              const char *file, struct apr_err *e)
{
    *pt = (struct apr_pretok){.n_steps = n_steps};
    if (n_steps > APR_PRE_MAX_STEPS)
        return apr_fail(e, APR_ELOAD, "%s: %zu pre-tokenizer steps; at most %d", file, n_steps,
                        APR_PRE_MAX_STEPS);
    for (size_t i = 0; i < n_steps; i++) {
        pt->steps[i] = steps[i];
        if (!steps[i].pattern) continue;
        enum apr_code code =
            apr_regex_open(&pt->regex[i], steps[i].pattern, steps[i].literal, steps[i].trusted, file, e);
        if (code == APR_OK) continue;
        apr_pretok_close(pt);
        return code;
    }
    return APR_OK;
}

void apr_pretok_close(struct apr_pretok *pt)
{
    for (size_t i = 0; i < pt->n_steps; i++) apr_regex_close(pt->regex[i]);
    *pt = (struct apr_pretok){0};
}

enum apr_code apr_pretok_work_init(struct apr_pretok_work *w, size_t n_text_bytes, struct apr_err *e)
{
    *w = (struct apr_pretok_work){0};
    for (int i = 0; i < 2; i++) {
        apr_buf_init(&w->spans[i], SIZE_MAX);
        apr_buf_init(&w->texts[i], UINT32_MAX);
    }
    apr_buf_init(&w->marks, SIZE_MAX);
    return apr_regex_run_init(&w->run, n_text_bytes, e);
}

void apr_pretok_work_free(struct apr_pretok_work *w)
{
    apr_regex_run_free(&w->run);
    for (int i = 0; i < 2; i++) {
        apr_buf_free(&w->spans[i]);
        apr_buf_free(&w->texts[i]);
    }
    apr_buf_free(&w->marks);
}

static enum apr_code put(struct apr_buf *spans, size_t off, size_t n, struct apr_err *e)
{
    if (n == 0) return APR_OK; /* empty parts vanish, as in tokenizers */
    struct apr_span s = {(uint32_t)off, (uint32_t)n};
    return apr_buf_append(spans, &s, sizeof s, e);
}

/* Parts (matches and what lies between) of one span, with a mark each, appended to parts and marks. */
static enum apr_code cut(const struct apr_regex *re, bool invert, struct apr_pretok_work *w,
                         struct apr_span in, struct apr_buf *parts, struct apr_err *e)
{
    const uint8_t *p = w->text + in.off;
    const uint8_t is_match = !invert, is_gap = invert;
    size_t done = 0;
    for (size_t from = 0; from <= in.n_bytes;) {
        size_t start, end = 0;
        TRY(apr_regex_next(re, &w->run, p, in.n_bytes, from, &start, &end, e));
        if (start == SIZE_MAX) break;
        struct apr_span gap = {in.off + (uint32_t)done, (uint32_t)(start - done)};
        struct apr_span hit = {in.off + (uint32_t)start, (uint32_t)(end - start)};
        if (gap.n_bytes > 0) {
            TRY(apr_buf_append(parts, &gap, sizeof gap, e));
            TRY(apr_buf_append(&w->marks, &is_gap, 1, e));
        }
        TRY(apr_buf_append(parts, &hit, sizeof hit, e));
        TRY(apr_buf_append(&w->marks, &is_match, 1, e));
        done = from = end;
        if (end > start) continue;
        if (from == in.n_bytes) break;
        uint32_t cp; /* after an empty match the search goes on one character later */
        from += (size_t)apr_utf8_get(p + from, in.n_bytes - from, &cp);
    }
    if (done == in.n_bytes) return APR_OK;
    struct apr_span rest = {in.off + (uint32_t)done, in.n_bytes - (uint32_t)done};
    TRY(apr_buf_append(parts, &rest, sizeof rest, e));
    return apr_buf_append(&w->marks, &is_gap, 1, e);
}

/* Does the boundary between two neighbours fall away? */
static bool joined(enum apr_split_how how, bool left, bool right)
{
    switch (how) {
    case APR_SPLIT_CONTIGUOUS:
        return left == right;
    case APR_SPLIT_WITH_PREVIOUS:
        return right && !left;
    case APR_SPLIT_WITH_NEXT:
        return left && !right;
    case APR_SPLIT_ISOLATED:
    case APR_SPLIT_REMOVED:
        return false;
    }
    return false;
}

/* Neighbours are adjacent in the text, so a group of joined parts is one span. */
static enum apr_code join(enum apr_split_how how, const struct apr_span *parts, const uint8_t *marks,
                          size_t n, struct apr_buf *out, struct apr_err *e)
{
    for (size_t i = 0; i < n;) {
        size_t end = i + 1;
        size_t n_bytes = parts[i].n_bytes;
        while (end < n && joined(how, marks[end - 1], marks[end])) n_bytes += parts[end++].n_bytes;
        bool dropped = how == APR_SPLIT_REMOVED && marks[i];
        if (!dropped) TRY(put(out, parts[i].off, n_bytes, e));
        i = end;
    }
    return APR_OK;
}

static enum apr_code split(const struct apr_pre_step *step, const struct apr_regex *re,
                           struct apr_pretok_work *w, const struct apr_buf *in, struct apr_buf *out,
                           struct apr_buf *parts, struct apr_err *e)
{
    const struct apr_span *spans = (const struct apr_span *)(const void *)in->data;
    out->n_bytes = 0;
    for (size_t i = 0; i < in->n_bytes / sizeof *spans; i++) {
        parts->n_bytes = w->marks.n_bytes = 0;
        TRY(cut(re, step->invert, w, spans[i], parts, e));
        if (w->marks.n_bytes == 0) continue;
        TRY(join(step->how, (const struct apr_span *)(const void *)parts->data, w->marks.data,
                 w->marks.n_bytes, out, e));
    }
    return APR_OK;
}

/* Rewrites the text with a space in front of each part that has none. */
static enum apr_code put_spaces(struct apr_pretok_work *w, struct apr_buf *text, const struct apr_buf *in,
                                struct apr_buf *out, struct apr_err *e)
{
    const struct apr_span *spans = (const struct apr_span *)(const void *)in->data;
    text->n_bytes = out->n_bytes = 0;
    for (size_t i = 0; i < in->n_bytes / sizeof *spans; i++) {
        const uint8_t *p = w->text + spans[i].off;
        size_t off = text->n_bytes;
        if (*p != ' ') TRY(apr_buf_append(text, " ", 1, e));
        TRY(apr_buf_append(text, p, spans[i].n_bytes, e));
        TRY(put(out, off, text->n_bytes - off, e));
    }
    w->text = text->data;
    return APR_OK;
}

enum apr_code apr_pretok_run(const struct apr_pretok *pt, struct apr_pretok_work *w, const uint8_t *text,
                             size_t n, struct apr_err *e)
{
    struct apr_buf parts;
    apr_buf_init(&parts, SIZE_MAX);
    struct apr_buf *in = &w->spans[0], *out = &w->spans[1];
    w->text = text;
    in->n_bytes = 0;
    enum apr_code code = put(in, 0, n, e);
    size_t i_text = 0;
    for (size_t i = 0; i < pt->n_steps && code == APR_OK; i++) {
        const struct apr_pre_step *step = &pt->steps[i];
        if (step->prefix_space) {
            code = put_spaces(w, &w->texts[i_text], in, out, e);
            i_text = !i_text;
            struct apr_buf *t = in;
            in = out;
            out = t;
        }
        if (code != APR_OK || !step->pattern) continue;
        code = split(step, pt->regex[i], w, in, out, &parts, e);
        struct apr_buf *t = in;
        in = out;
        out = t;
    }
    apr_buf_free(&parts);
    w->at = (const struct apr_span *)(const void *)in->data;
    w->n = in->n_bytes / sizeof(struct apr_span);
    return code;
}
