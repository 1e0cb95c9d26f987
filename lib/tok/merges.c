/* See merges.h. */
#include "merges.h"

#include <inttypes.h>
#include <string.h>

#include "heap.h"

enum { SHORT_WORD = 48 };

static struct apr_pair *slot(const struct apr_merges *m, int32_t left, int32_t right)
{
    uint64_t key = (uint64_t)(uint32_t)left << 32 | (uint32_t)right;
    for (uint64_t i = apr_lookup_mix(key, m->seed);; i++) {
        struct apr_pair *p = &m->pairs[i & m->mask];
        if (p->rank == 0 || (p->left == left && p->right == right)) return p;
    }
}

/* ---- opening ---- */

enum apr_code apr_bpe_options(const struct apr_tok *t, const json_t *model, struct apr_err *e)
{
    static const char *const unsupported[] = {"dropout", "continuing_subword_prefix", "end_of_word_suffix"};
    for (size_t i = 0; i < sizeof unsupported / sizeof *unsupported; i++) {
        const json_t *v = json_object_get(model, unsupported[i]);
        bool off = !v || json_is_null(v) || (json_is_string(v) && json_string_length(v) == 0) ||
                   (json_is_number(v) && json_number_value(v) == 0);
        if (!off) return apr_fail(e, APR_ELOAD, "%s: $.model.%s is not supported", t->file, unsupported[i]);
    }
    return APR_OK;
}

static int32_t find_part(const struct apr_tok *t, const char *p, size_t n)
{
    return n > 0 ? apr_lookup_get(&t->by_text, p, n) : -1;
}

static enum apr_code bad_merge(const struct apr_tok *t, uint64_t i, const char *why, struct apr_err *e)
{
    char shown[120];
    const struct apr_str *m = &t->v->merges[i];
    return apr_fail(e, APR_EFORMAT, "%s: merge %" PRIu64 " \"%s\": %s", t->file, i,
                    apr_escape(shown, sizeof shown, m->p, m->n_bytes), why);
}

static enum apr_code add_merge(const struct apr_tok *t, struct apr_merges *m, uint64_t i,
                               struct apr_buf *joined, struct apr_err *e)
{
    const struct apr_str text = t->v->merges[i];
    const char *space = text.n_bytes > 1 ? memchr(text.p + 1, ' ', text.n_bytes - 1) : NULL;
    if (!space) return bad_merge(t, i, "expected two parts", e);
    size_t n_left = (size_t)(space - text.p), n_right = text.n_bytes - n_left - 1;
    int32_t left = find_part(t, text.p, n_left), right = find_part(t, space + 1, n_right);
    if (left < 0 || right < 0) return bad_merge(t, i, "a part is not in the vocabulary", e);
    joined->n_bytes = 0;
    TRY(apr_buf_append(joined, text.p, n_left, e));
    TRY(apr_buf_append(joined, space + 1, n_right, e));
    int32_t id = find_part(t, (const char *)joined->data, joined->n_bytes);
    if (id < 0) return bad_merge(t, i, "its product is not in the vocabulary", e);
    struct apr_pair *p = slot(m, left, right);
    if (p->rank == 0) *p = (struct apr_pair){left, right, (uint32_t)i + 1, id};
    return APR_OK;
}

enum apr_code apr_merges_open(struct apr_merges *m, struct apr_tok *t, struct apr_err *e)
{
    uint64_t n = t->v->n_merges, n_slots = 16;
    if (n >= INT32_MAX) return apr_fail(e, APR_EFORMAT, "%s: %" PRIu64 " merges", t->file, n);
    while (n_slots < n + n / 2) n_slots *= 2;
    TRY(apr_arena_try(&t->arena, &m->pairs, n_slots, sizeof *m->pairs, "merge table", e));
    m->mask = n_slots - 1;
    m->seed = apr_lookup_seed();
    struct apr_buf joined;
    apr_buf_init(&joined, SIZE_MAX);
    enum apr_code code = APR_OK;
    for (uint64_t i = 0; i < n && code == APR_OK; i++) code = add_merge(t, m, i, &joined, e);
    apr_buf_free(&joined);
    return code;
}

/* ---- running ---- */

static const struct apr_pair *merge_of(const struct apr_merges *m, int32_t left, int32_t right)
{
    const struct apr_pair *p = slot(m, left, right);
    return p->rank ? p : NULL;
}

static enum apr_code run_short(const struct apr_merges *m, int32_t *syms, size_t n_syms, struct apr_ids *ids,
                               struct apr_err *e)
{
    const struct apr_pair *merges[SHORT_WORD]; /* [i]: of syms[i] with syms[i + 1] */
    for (size_t i = 0; i + 1 < n_syms; i++) merges[i] = merge_of(m, syms[i], syms[i + 1]);
    while (n_syms > 1) {
        size_t best = 0;
        uint32_t rank = UINT32_MAX;
        for (size_t i = 0; i + 1 < n_syms; i++) {
            if (!merges[i] || merges[i]->rank >= rank) continue;
            rank = merges[i]->rank;
            best = i;
        }
        if (rank == UINT32_MAX) break;
        syms[best] = merges[best]->id;
        n_syms--;
        for (size_t i = best + 1; i < n_syms; i++) {
            syms[i] = syms[i + 1];
            merges[i - 1] = merges[i];
        }
        if (best > 0) merges[best - 1] = merge_of(m, syms[best - 1], syms[best]);
        if (best + 1 < n_syms) merges[best] = merge_of(m, syms[best], syms[best + 1]);
    }
    for (size_t i = 0; i < n_syms; i++) TRY(apr_ids_push(ids, syms[i], e));
    return APR_OK;
}

struct link {
    int32_t id; /* -1: merged away */
    uint32_t prev, next;
};

#define NO_LINK UINT32_MAX

static enum apr_code consider(const struct apr_merges *m, const struct link *links, uint32_t i,
                              struct apr_buf *heap, struct apr_err *e)
{
    uint32_t next = i == NO_LINK ? NO_LINK : links[i].next;
    if (next == NO_LINK) return APR_OK;
    const struct apr_pair *p = merge_of(m, links[i].id, links[next].id);
    if (!p) return APR_OK;
    return apr_heap_push(heap, (struct apr_candidate){(uint64_t)p->rank << 32 | i, (uint64_t)(p - m->pairs)},
                         e);
}

static enum apr_code merge_all(const struct apr_merges *m, struct link *links, struct apr_buf *heap,
                               struct apr_err *e)
{
    while (heap->n_bytes > 0) {
        struct apr_candidate c = apr_heap_pop(heap);
        const struct apr_pair *p = &m->pairs[c.what];
        uint32_t i = (uint32_t)c.key, next = links[i].next;
        /* Stale when either side has merged since. */
        if (links[i].id != p->left || next == NO_LINK || links[next].id != p->right) continue;
        links[i].id = p->id;
        links[i].next = links[next].next;
        links[next].id = -1;
        if (links[i].next != NO_LINK) links[links[i].next].prev = i;
        TRY(consider(m, links, links[i].prev, heap, e));
        TRY(consider(m, links, i, heap, e));
    }
    return APR_OK;
}

static enum apr_code run_long(const struct apr_merges *m, struct apr_tok_work *w, const int32_t *syms,
                              size_t n_syms, struct apr_ids *ids, struct apr_err *e)
{
    uint8_t *room;
    w->links.n_bytes = w->heap.n_bytes = 0;
    TRY(apr_buf_reserve(&w->links, n_syms * sizeof(struct link), &room, e));
    struct link *links = (struct link *)(void *)room;
    for (size_t i = 0; i < n_syms; i++)
        links[i] =
            (struct link){syms[i], i ? (uint32_t)i - 1 : NO_LINK, i + 1 < n_syms ? (uint32_t)i + 1 : NO_LINK};
    for (size_t i = 0; i < n_syms; i++) TRY(consider(m, links, (uint32_t)i, &w->heap, e));
    TRY(merge_all(m, links, &w->heap, e));
    for (size_t i = 0; i < n_syms; i++)
        if (links[i].id >= 0) TRY(apr_ids_push(ids, links[i].id, e));
    return APR_OK;
}

enum apr_code apr_merges_run(const struct apr_merges *m, struct apr_tok_work *w, int32_t *syms, size_t n_syms,
                             struct apr_ids *ids, struct apr_err *e)
{
    return n_syms <= SHORT_WORD ? run_short(m, syms, n_syms, ids, e) : run_long(m, w, syms, n_syms, ids, e);
}
