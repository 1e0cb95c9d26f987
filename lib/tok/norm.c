/* See norm.h: the steps. */
#include "norm.h"

#include <string.h>
#include <utf8proc.h>

#include "chars.h"
#include "norm_forms.h"
#include "utf8.h"

void apr_norm_work_init(struct apr_norm_work *w)
{
    *w = (struct apr_norm_work){0};
    apr_buf_init(&w->cps, SIZE_MAX);
    apr_buf_init(&w->order, SIZE_MAX);
    for (int i = 0; i < 2; i++) apr_buf_init(&w->texts[i], UINT32_MAX);
}

void apr_norm_work_free(struct apr_norm_work *w)
{
    apr_buf_free(&w->cps);
    apr_buf_free(&w->order);
    for (int i = 0; i < 2; i++) apr_buf_free(&w->texts[i]);
}

void apr_norm_close(struct apr_norm *norm)
{
    for (size_t i = 0; i < norm->n_steps; i++) apr_regex_close(norm->steps[i].regex);
    norm->n_steps = 0;
}

/* ---- character by character ---- */

/* Writes what becomes of a character, at most MAX_CHAR_BYTES. */
typedef size_t change_fn(uint32_t cp, uint8_t *out);

enum { MAX_CHAR_BYTES = 8 };

static size_t lower(uint32_t cp, uint8_t *out)
{
    if (cp != 0x130) return apr_utf8_put((uint32_t)utf8proc_tolower((int32_t)cp), out);
    out[0] = 'i'; /* the one character whose lower case is two (SpecialCasing.txt) */
    return 1 + apr_utf8_put(0x307, out + 1);
}

static size_t drop_marks(uint32_t cp, uint8_t *out)
{
    return apr_char_is_mark(cp) ? 0 : apr_utf8_put(cp, out);
}

static size_t drop_accents(uint32_t cp, uint8_t *out)
{
    return apr_char_is_nonspacing(cp) ? 0 : apr_utf8_put(cp, out);
}

static size_t clean(uint32_t cp, uint8_t *out)
{
    if (cp == 0 || cp == 0xfffd || apr_char_is_control(cp)) return 0;
    return apr_utf8_put(apr_char_is_space(cp) ? ' ' : cp, out);
}

static size_t space_cjk(uint32_t cp, uint8_t *out)
{
    if (!apr_char_is_cjk(cp)) return apr_utf8_put(cp, out);
    size_t n = 1;
    out[0] = ' ';
    n += apr_utf8_put(cp, out + 1);
    out[n++] = ' ';
    return n;
}

static size_t nmt(uint32_t cp, uint8_t *out)
{
    bool gone = (cp >= 1 && cp <= 8) || cp == 0xb || (cp >= 0xe && cp <= 0x1f) || cp == 0x7f || cp == 0x8f ||
                cp == 0x9f;
    bool blank = cp == 9 || cp == 0xa || cp == 0xc || cp == 0xd || cp == 0x1680 ||
                 (cp >= 0x200b && cp <= 0x200f) || cp == 0x2028 || cp == 0x2029 || cp == 0x2581 ||
                 cp == 0xfeff || cp == 0xfffd;
    return gone ? 0 : apr_utf8_put(blank ? ' ' : cp, out);
}

static enum apr_code change_all(struct apr_norm_work *w, change_fn *change, struct apr_buf *out,
                                struct apr_err *e)
{
    for (size_t i = 0; i < w->n;) {
        uint8_t *room;
        size_t n_out = 0, end = w->n - i < 4096 ? w->n : i + 4096;
        TRY(apr_buf_reserve(out, (end - i) * MAX_CHAR_BYTES, &room, e));
        while (i < end) {
            uint32_t cp;
            i += (size_t)apr_utf8_get(w->p + i, w->n - i, &cp);
            n_out += change(cp, room + n_out);
        }
        apr_buf_commit(out, n_out);
    }
    return APR_OK;
}

/* ---- pieces ---- */

static enum apr_code replace(const struct apr_norm_step *step, struct apr_norm_work *w, struct apr_buf *out,
                             struct apr_err *e)
{
    size_t done = 0;
    while (done < w->n) {
        const uint8_t *hit = memmem(w->p + done, w->n - done, step->a.p, step->a.n_bytes);
        size_t end = hit ? (size_t)(hit - w->p) : w->n;
        TRY(apr_buf_append(out, w->p + done, end - done, e));
        if (!hit) break;
        TRY(apr_buf_append(out, step->b.p, step->b.n_bytes, e));
        done = end + step->a.n_bytes;
    }
    return APR_OK;
}

static enum apr_code replace_runs(const struct apr_norm_step *step, struct apr_norm_work *w,
                                  struct apr_buf *out, struct apr_err *e)
{
    size_t done = 0;
    for (size_t i = 0; i + 1 < w->n;) {
        if (w->p[i] != ' ' || w->p[i + 1] != ' ') {
            i++;
            continue;
        }
        TRY(apr_buf_append(out, w->p + done, i - done, e));
        TRY(apr_buf_append(out, step->b.p, step->b.n_bytes, e));
        while (i < w->n && w->p[i] == ' ') i++;
        done = i;
    }
    return apr_buf_append(out, w->p + done, w->n - done, e);
}

static enum apr_code replace_matches(const struct apr_norm_step *step, struct apr_norm_work *w,
                                     struct apr_regex_run *run, struct apr_buf *out, struct apr_err *e)
{
    size_t done = 0;
    for (size_t from = 0; from <= w->n;) {
        size_t start, end = 0;
        TRY(apr_regex_next(step->regex, run, w->p, w->n, from, &start, &end, e));
        if (start == SIZE_MAX) break;
        TRY(apr_buf_append(out, w->p + done, start - done, e));
        TRY(apr_buf_append(out, step->b.p, step->b.n_bytes, e));
        done = from = end;
        if (end > start) continue;
        if (from == w->n) break;
        uint32_t cp; /* after an empty match the search goes on one character later */
        from += (size_t)apr_utf8_get(w->p + from, w->n - from, &cp);
    }
    return apr_buf_append(out, w->p + done, w->n - done, e);
}

static enum apr_code replace_regex(const struct apr_norm_step *step, struct apr_norm_work *w,
                                   struct apr_buf *out, struct apr_err *e)
{
    struct apr_regex_run run;
    TRY(apr_regex_run_init(&run, w->n, e));
    enum apr_code code = replace_matches(step, w, &run, out, e);
    apr_regex_run_free(&run);
    return code;
}

static enum apr_code strip(const struct apr_norm_step *step, struct apr_norm_work *w, struct apr_buf *out,
                           struct apr_err *e)
{
    size_t start = 0, end = w->n;
    uint32_t cp;
    while (step->left && start < end) {
        size_t k = (size_t)apr_utf8_get(w->p + start, end - start, &cp);
        if (!apr_char_is_space(cp)) break;
        start += k;
    }
    while (step->right && end > start) {
        size_t before = apr_utf8_start(w->p, end);
        if (apr_utf8_get(w->p + before, end - before, &cp) < 0 || !apr_char_is_space(cp)) break;
        end = before;
    }
    return apr_buf_append(out, w->p + start, end - start, e);
}

/* ---- character maps ---- */

static enum apr_code map_longest(const struct apr_norm_step *step, struct apr_norm_work *w,
                                 struct apr_buf *out, struct apr_err *e)
{
    for (size_t i = 0; i < w->n;) {
        struct apr_str text;
        uint32_t cp;
        size_t k = apr_charsmap_find(step->map, w->p + i, w->n - i, true, &text);
        if (k > 0)
            TRY(apr_buf_append(out, text.p, text.n_bytes, e));
        else
            TRY(apr_buf_append(out, w->p + i, k = (size_t)apr_utf8_get(w->p + i, w->n - i, &cp), e));
        i += k;
    }
    return APR_OK;
}

/* The end of the cluster (UAX 29) that begins at i. */
static size_t cluster_end(const uint8_t *p, size_t n, size_t i, int32_t *state)
{
    uint32_t cp, next;
    i += (size_t)apr_utf8_get(p + i, n - i, &cp);
    *state = 0;
    while (i < n) {
        size_t k = (size_t)apr_utf8_get(p + i, n - i, &next);
        if (utf8proc_grapheme_break_stateful((int32_t)cp, (int32_t)next, state)) break;
        cp = next;
        i += k;
    }
    return i;
}

/* As tokenizers does it: a cluster of at most five bytes is looked up whole, by its shortest prefix in the
 * map, and replaced whole; characters of longer ones are looked up one by one. */
static enum apr_code map_clusters(const struct apr_norm_step *step, struct apr_norm_work *w,
                                  struct apr_buf *out, struct apr_err *e)
{
    struct apr_str text;
    for (size_t i = 0; i < w->n;) {
        int32_t state;
        size_t end = cluster_end(w->p, w->n, i, &state);
        if (end - i < 6 && apr_charsmap_find(step->map, w->p + i, end - i, false, &text) > 0) {
            TRY(apr_buf_append(out, text.p, text.n_bytes, e));
            i = end;
            continue;
        }
        while (i < end) {
            uint32_t cp;
            size_t k = (size_t)apr_utf8_get(w->p + i, end - i, &cp);
            bool hit = apr_charsmap_find(step->map, w->p + i, k, false, &text) > 0;
            TRY(apr_buf_append(out, hit ? text.p : (const char *)w->p + i, hit ? text.n_bytes : k, e));
            i += k;
        }
    }
    return APR_OK;
}

/* ---- all ---- */

static change_fn *const changes[] = {
    [APR_NORM_LOWER] = lower,   [APR_NORM_DROP_MARKS] = drop_marks, [APR_NORM_DROP_ACCENTS] = drop_accents,
    [APR_NORM_CLEAN] = clean,   [APR_NORM_SPACE_CJK] = space_cjk,   [APR_NORM_NMT] = nmt,
    [APR_NORM_CHARSMAP] = NULL,
};

static enum apr_code step_run(const struct apr_norm_step *step, struct apr_norm_work *w, struct apr_buf *out,
                              struct apr_err *e)
{
    switch (step->op) {
    case APR_NORM_NFC:
        return apr_norm_form(w, false, true, out, e);
    case APR_NORM_NFD:
        return apr_norm_form(w, false, false, out, e);
    case APR_NORM_NFKC:
        return apr_norm_form(w, true, true, out, e);
    case APR_NORM_NFKD:
        return apr_norm_form(w, true, false, out, e);
    case APR_NORM_REPLACE:
        return replace(step, w, out, e);
    case APR_NORM_REPLACE_RUNS:
        return replace_runs(step, w, out, e);
    case APR_NORM_REPLACE_REGEX:
        return replace_regex(step, w, out, e);
    case APR_NORM_STRIP:
        return strip(step, w, out, e);
    case APR_NORM_CHARSMAP:
        return step->longest ? map_longest(step, w, out, e) : map_clusters(step, w, out, e);
    case APR_NORM_PREPEND:
        if (w->n > 0) TRY(apr_buf_append(out, step->a.p, step->a.n_bytes, e));
        return apr_buf_append(out, w->p, w->n, e);
    case APR_NORM_LOWER:
    case APR_NORM_DROP_MARKS:
    case APR_NORM_DROP_ACCENTS:
    case APR_NORM_CLEAN:
    case APR_NORM_SPACE_CJK:
    case APR_NORM_NMT:
        return change_all(w, changes[step->op], out, e);
    }
    return apr_fail(e, APR_ELOAD, "normalizer step %d is not known", (int)step->op);
}

/* The usual case costs no copy. */
static bool changes_nothing(const struct apr_norm_step *step, const struct apr_norm_work *w)
{
    return step->op == APR_NORM_NFC && apr_norm_is_plain(w->p, w->n, false, true);
}

enum apr_code apr_norm_run(const struct apr_norm *norm, struct apr_norm_work *w, const uint8_t *p, size_t n,
                           struct apr_err *e)
{
    w->p = p;
    w->n = n;
    for (size_t i = 0; i < norm->n_steps; i++) {
        if (changes_nothing(&norm->steps[i], w)) continue;
        struct apr_buf *out = &w->texts[i % 2];
        if (out->data == w->p) out = &w->texts[(i + 1) % 2];
        out->n_bytes = 0;
        TRY(step_run(&norm->steps[i], w, out, e));
        w->p = out->data;
        w->n = out->n_bytes;
    }
    return APR_OK;
}
