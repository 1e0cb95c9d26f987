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
        if (steps[i].how == APR_SPLIT_ISOLATED && !steps[i].invert && !steps[i].literal)
            pt->words[i] = apr_words_of(steps[i].pattern);
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

static enum apr_code put_blanks_as_bars(struct apr_buf *text, const uint8_t *p, size_t n, struct apr_err *e)
{
    for (size_t done = 0; done < n;) {
        const uint8_t *blank = memchr(p + done, ' ', n - done);
        size_t end = blank ? (size_t)(blank - p) : n;
        TRY(apr_buf_append(text, p + done, end - done, e));
        if (blank) TRY(apr_buf_append(text, APR_BAR, APR_BAR_BYTES, e));
        done = end + 1;
    }
    return APR_OK;
}

static bool has_bar(const uint8_t *p, size_t n)
{
    return *p == ' ' || (n >= APR_BAR_BYTES && memcmp(p, APR_BAR, APR_BAR_BYTES) == 0);
}

/* One part with what the step puts in front of it. */
static enum apr_code put_part(const struct apr_pre_step *step, struct apr_pretok_work *w, struct apr_span in,
                              struct apr_buf *text, struct apr_err *e)
{
    const uint8_t *p = w->text + in.off;
    if (step->prefix_space && *p != ' ') TRY(apr_buf_append(text, " ", 1, e));
    if (step->metaspace == APR_META_NONE) return apr_buf_append(text, p, in.n_bytes, e);
    bool first = w->at_start && in.off == 0;
    bool wanted = step->metaspace == APR_META_ALWAYS || (step->metaspace == APR_META_FIRST && first);
    if (wanted && !has_bar(p, in.n_bytes)) TRY(apr_buf_append(text, APR_BAR, APR_BAR_BYTES, e));
    return put_blanks_as_bars(text, p, in.n_bytes, e);
}

static enum apr_code rewrite(const struct apr_pre_step *step, struct apr_pretok_work *w, struct apr_buf *text,
                             const struct apr_buf *in, struct apr_buf *out, struct apr_err *e)
{
    const struct apr_span *spans = (const struct apr_span *)(const void *)in->data;
    text->n_bytes = out->n_bytes = 0;
    for (size_t i = 0; i < in->n_bytes / sizeof *spans; i++) {
        size_t off = text->n_bytes;
        TRY(put_part(step, w, spans[i], text, e));
        TRY(put(out, off, text->n_bytes - off, e));
    }
    w->text = text->data;
    return APR_OK;
}

/* Runs of digits in threes from the end; what is no such number goes on whole. */
static enum apr_code cut_thousands(struct apr_pretok_work *w, const struct apr_buf *in, struct apr_buf *out,
                                   struct apr_err *e)
{
    const struct apr_span *spans = (const struct apr_span *)(const void *)in->data;
    out->n_bytes = 0;
    for (size_t i = 0; i < in->n_bytes / sizeof *spans; i++) {
        const uint8_t *p = w->text + spans[i].off;
        size_t n = spans[i].n_bytes, done = 0;
        for (size_t at = 0; at < n;) {
            size_t end = at;
            while (end < n && p[end] >= '0' && p[end] <= '9') end++;
            if (end == at) {
                at++;
                continue;
            }
            if (at > done) TRY(put(out, spans[i].off + done, at - done, e));
            for (size_t k = (end - at) % 3 ? (end - at) % 3 : 3; at < end; at += k, k = 3)
                TRY(put(out, spans[i].off + at, k, e));
            done = end;
        }
        TRY(put(out, spans[i].off + done, n - done, e));
    }
    return APR_OK;
}

/* Words that follow one another without gaps. */
static enum apr_code cut_words(apr_words_fn *end_of, struct apr_pretok_work *w, const struct apr_buf *in,
                               struct apr_buf *out, struct apr_err *e)
{
    enum { N_AT_ONCE = 1024 };
    const struct apr_span *spans = (const struct apr_span *)(const void *)in->data;
    out->n_bytes = 0;
    for (size_t i = 0; i < in->n_bytes / sizeof *spans; i++) {
        const uint8_t *p = w->text + spans[i].off;
        for (size_t at = 0; at < spans[i].n_bytes;) {
            uint8_t *room;
            size_t k = 0;
            TRY(apr_buf_reserve(out, N_AT_ONCE * sizeof(struct apr_span), &room, e));
            struct apr_span *put_at = (struct apr_span *)(void *)room;
            for (; k < N_AT_ONCE && at < spans[i].n_bytes; k++) {
                size_t end = end_of(p, spans[i].n_bytes, at);
                put_at[k] = (struct apr_span){spans[i].off + (uint32_t)at, (uint32_t)(end - at)};
                at = end;
            }
            apr_buf_commit(out, k * sizeof(struct apr_span));
        }
    }
    return APR_OK;
}

static void swap(struct apr_buf **a, struct apr_buf **b)
{
    struct apr_buf *t = *a;
    *a = *b;
    *b = t;
}

static enum apr_code run_steps(const struct apr_pretok *pt, struct apr_pretok_work *w, struct apr_buf **in,
                               struct apr_buf *parts, struct apr_err *e)
{
    struct apr_buf *out = &w->spans[1], *text = &w->texts[0], *other = &w->texts[1];
    for (size_t i = 0; i < pt->n_steps; i++) {
        const struct apr_pre_step *step = &pt->steps[i];
        if (step->prefix_space || step->metaspace != APR_META_NONE) {
            TRY(rewrite(step, w, text, *in, out, e));
            swap(&text, &other);
            swap(in, &out);
        }
        if (!step->pattern) continue;
        if (pt->words[i])
            TRY(cut_words(pt->words[i], w, *in, out, e));
        else if (step->thousands)
            TRY(cut_thousands(w, *in, out, e));
        else
            TRY(split(step, pt->regex[i], w, *in, out, parts, e));
        swap(in, &out);
    }
    return APR_OK;
}

enum apr_code apr_pretok_run(const struct apr_pretok *pt, struct apr_pretok_work *w, const uint8_t *text,
                             size_t n, struct apr_err *e)
{
    struct apr_buf parts, *in = &w->spans[0];
    apr_buf_init(&parts, SIZE_MAX);
    w->text = text;
    in->n_bytes = 0;
    enum apr_code code = put(in, 0, n, e);
    if (code == APR_OK) code = run_steps(pt, w, &in, &parts, e);
    apr_buf_free(&parts);
    w->at = (const struct apr_span *)(const void *)in->data;
    w->n = in->n_bytes / sizeof(struct apr_span);
    return code;
}
