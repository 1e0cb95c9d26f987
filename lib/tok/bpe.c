/* Byte-level BPE (GPT-2, Qwen2, Llama 3, ...).
 *
 * A word's bytes are its first symbols; the neighbouring pair of lowest rank merges until none is left, the
 * leftmost first among equals. Short words scan for the minimum; long ones keep a heap over a linked list,
 * so that a word of n bytes costs n log n.
 */
#include <inttypes.h>
#include <string.h>

#include "bytes.h"
#include "kind.h"
#include "pre.h"

struct pair { /* slot of the merge table */
    int32_t left, right;
    uint32_t rank; /* 0: free, else 1 + index of the merge */
    int32_t id;
};

struct bpe {
    struct pair *pairs; /* [mask + 1] */
    uint64_t mask, seed;
    int32_t byte_id[256]; /* -1: the vocabulary lacks the byte */
    int32_t unk_id;       /* -1: such bytes vanish, as in tokenizers */
    bool fuse_unk;
    bool ignore_merges;
    struct apr_lookup by_bytes; /* ignore_merges: raw bytes -> id */
};

enum { SHORT_WORD = 48 };

static struct pair *slot(const struct bpe *b, int32_t left, int32_t right)
{
    uint64_t key = (uint64_t)(uint32_t)left << 32 | (uint32_t)right;
    for (uint64_t i = apr_lookup_mix(key, b->seed);; i++) {
        struct pair *p = &b->pairs[i & b->mask];
        if (p->rank == 0 || (p->left == left && p->right == right)) return p;
    }
}

/* ---- opening ---- */

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

static enum apr_code add_merge(const struct apr_tok *t, struct bpe *b, uint64_t i, struct apr_buf *joined,
                               struct apr_err *e)
{
    const struct apr_str m = t->v->merges[i];
    const char *space = m.n_bytes > 1 ? memchr(m.p + 1, ' ', m.n_bytes - 1) : NULL;
    if (!space) return bad_merge(t, i, "expected two parts", e);
    size_t n_left = (size_t)(space - m.p), n_right = m.n_bytes - n_left - 1;
    int32_t left = find_part(t, m.p, n_left), right = find_part(t, space + 1, n_right);
    if (left < 0 || right < 0) return bad_merge(t, i, "a part is not in the vocabulary", e);
    joined->n_bytes = 0;
    TRY(apr_buf_append(joined, m.p, n_left, e));
    TRY(apr_buf_append(joined, space + 1, n_right, e));
    int32_t id = find_part(t, (const char *)joined->data, joined->n_bytes);
    if (id < 0) return bad_merge(t, i, "its product is not in the vocabulary", e);
    struct pair *p = slot(b, left, right);
    if (p->rank == 0) *p = (struct pair){left, right, (uint32_t)i + 1, id};
    return APR_OK;
}

static enum apr_code open_merges(struct apr_tok *t, struct bpe *b, struct apr_err *e)
{
    uint64_t n = t->v->n_merges, n_slots = 16;
    if (n >= INT32_MAX) return apr_fail(e, APR_EFORMAT, "%s: %" PRIu64 " merges", t->file, n);
    while (n_slots < n + n / 2) n_slots *= 2;
    TRY(apr_arena_try(&t->arena, &b->pairs, n_slots, sizeof *b->pairs, "merge table", e));
    b->mask = n_slots - 1;
    b->seed = apr_lookup_seed();
    struct apr_buf joined;
    apr_buf_init(&joined, SIZE_MAX);
    enum apr_code code = APR_OK;
    for (uint64_t i = 0; i < n && code == APR_OK; i++) code = add_merge(t, b, i, &joined, e);
    apr_buf_free(&joined);
    return code;
}

/* The bytes of every token, for output and for ignore_merges. */
static enum apr_code open_raw(struct apr_tok *t, struct apr_err *e)
{
    const struct apr_vocab *v = t->v;
    size_t n_total = 0;
    for (uint32_t i = 0; i < v->n_toks; i++) n_total += v->toks[i].n_bytes;
    uint8_t *at;
    TRY(apr_arena_try(&t->arena, &at, n_total, 1, "token bytes", e));
    TRY(apr_arena_try(&t->arena, &t->raw, v->n_toks, sizeof *t->raw, "token bytes", e));
    for (uint32_t i = 0; i < v->n_toks; i++) {
        bool model = !v->types || v->types[i] == APR_TOK_NORMAL || v->types[i] == APR_TOK_BYTE;
        size_t n = model ? apr_bytes_of_text(v->toks[i].p, v->toks[i].n_bytes, at) : 0;
        t->raw[i] = n > 0 ? (struct apr_str){(const char *)at, n} : v->toks[i];
        at += n;
    }
    return APR_OK;
}

static enum apr_code open_by_bytes(struct apr_tok *t, struct bpe *b, struct apr_err *e)
{
    const struct apr_vocab *v = t->v;
    if (!b->ignore_merges) return APR_OK;
    TRY(apr_lookup_init(&b->by_bytes, t->raw, v->n_toks, &t->arena, e));
    for (uint32_t i = 0; i < v->n_toks; i++) {
        bool model = !v->types || v->types[i] == APR_TOK_NORMAL || v->types[i] == APR_TOK_BYTE;
        if (model && t->raw[i].n_bytes > 0) apr_lookup_put(&b->by_bytes, (int32_t)i);
    }
    return APR_OK;
}

static void open_bytes(const struct apr_tok *t, struct bpe *b)
{
    for (int i = 0; i < 256; i++) {
        char text[4];
        uint8_t byte = (uint8_t)i;
        size_t n = apr_text_of_bytes(&byte, 1, text);
        b->byte_id[i] = apr_lookup_get(&t->by_text, text, n);
    }
}

/* The model object of tokenizer.json. */
static enum apr_code open_options(const struct apr_tok *t, struct bpe *b, struct apr_err *e)
{
    static const char *const unsupported[] = {"dropout", "continuing_subword_prefix", "end_of_word_suffix"};
    const json_t *model = json_object_get(t->v->hf, "model");
    for (size_t i = 0; i < sizeof unsupported / sizeof *unsupported; i++) {
        const json_t *v = json_object_get(model, unsupported[i]);
        bool off = !v || json_is_null(v) || (json_is_string(v) && json_string_length(v) == 0) ||
                   (json_is_number(v) && json_number_value(v) == 0);
        if (!off) return apr_fail(e, APR_ELOAD, "%s: $.model.%s is not supported", t->file, unsupported[i]);
    }
    b->ignore_merges = json_is_true(json_object_get(model, "ignore_merges"));
    b->fuse_unk = json_is_true(json_object_get(model, "fuse_unk"));
    const char *unk = json_string_value(json_object_get(model, "unk_token"));
    if (unk) b->unk_id = (int32_t)apr_tok_find(t, unk, strlen(unk));
    return APR_OK;
}

static enum apr_code no_pre(const struct apr_tok *t, struct apr_err *e)
{
    char shown[80];
    const char *pre = t->v->pre;
    if (!pre)
        return apr_fail(e, APR_ELOAD, "%s: no pre-tokenizer is named (tokenizer.ggml.pre); name one by --pre",
                        t->file);
    return apr_fail(e, APR_ELOAD, "%s: unknown pre-tokenizer \"%s\"; name one by --pre", t->file,
                    apr_escape(shown, sizeof shown, pre, strlen(pre)));
}

static enum apr_code open_row(struct apr_tok *t, struct bpe *b, bool *add_bos, struct apr_err *e)
{
    const struct apr_pre_row *row = t->v->pre ? apr_pre_named(t->v->pre) : NULL;
    if (!row) return no_pre(t, e);
    struct apr_pre_step steps[APR_PRE_MAX_STEPS];
    memcpy(steps, row->steps, sizeof steps);
    for (size_t i = 0; i < APR_PRE_MAX_STEPS; i++) steps[i].trusted = true;
    if (row->nfc) t->norm = (struct apr_norm){.steps = {{.op = APR_NORM_NFC}}, .n_steps = 1};
    b->ignore_merges = row->ignore_merges;
    *add_bos = row->add_bos;
    return apr_pretok_open(&t->pre, steps, apr_pre_n_steps(row), t->file, e);
}

static enum apr_code open_json(struct apr_tok *t, struct bpe *b, struct apr_err *e)
{
    const json_t *hf = t->v->hf;
    TRY(apr_norm_read(json_object_get(hf, "normalizer"), &t->arena, &t->norm, t->file, e));
    struct apr_pre_step steps[APR_PRE_MAX_STEPS];
    size_t n_steps;
    TRY(apr_pre_read(json_object_get(hf, "pre_tokenizer"), &t->arena, steps, &n_steps, t->file, e));
    TRY(apr_pretok_open(&t->pre, steps, n_steps, t->file, e));
    return open_options(t, b, e);
}

static enum apr_code bpe_open(struct apr_tok *t, struct apr_err *e)
{
    struct bpe *b;
    TRY(apr_arena_try(&t->arena, &b, 1, sizeof *b, "tokenizer", e));
    b->unk_id = -1;
    t->model = b;
    bool add_bos = false;
    if (t->v->hf)
        TRY(open_json(t, b, e));
    else
        TRY(open_row(t, b, &add_bos, e));
    TRY(open_merges(t, b, e));
    open_bytes(t, b);
    TRY(open_raw(t, e));
    TRY(open_by_bytes(t, b, e));
    return apr_tok_read_around(t, add_bos, e);
}

/* ---- encoding ---- */

/* First symbols of a word. Unknown bytes become unk_id, one for a run with fuse_unk, or vanish. */
static size_t first_symbols(const struct bpe *b, const uint8_t *p, size_t n, int32_t *syms)
{
    size_t n_syms = 0;
    bool in_unk = false;
    for (size_t i = 0; i < n; i++) {
        int32_t id = b->byte_id[p[i]];
        bool unk = id < 0;
        if (unk) id = b->unk_id;
        if (id >= 0 && !(unk && in_unk && b->fuse_unk)) syms[n_syms++] = id;
        in_unk = unk;
    }
    return n_syms;
}

static const struct pair *merge_of(const struct bpe *b, int32_t left, int32_t right)
{
    const struct pair *p = slot(b, left, right);
    return p->rank ? p : NULL;
}

static enum apr_code encode_short(const struct bpe *b, const uint8_t *p, size_t n, struct apr_ids *ids,
                                  struct apr_err *e)
{
    int32_t syms[SHORT_WORD];
    const struct pair *merges[SHORT_WORD]; /* [i]: of syms[i] with syms[i + 1] */
    size_t n_syms = first_symbols(b, p, n, syms);
    for (size_t i = 0; i + 1 < n_syms; i++) merges[i] = merge_of(b, syms[i], syms[i + 1]);
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
        if (best > 0) merges[best - 1] = merge_of(b, syms[best - 1], syms[best]);
        if (best + 1 < n_syms) merges[best] = merge_of(b, syms[best], syms[best + 1]);
    }
    for (size_t i = 0; i < n_syms; i++) TRY(apr_ids_push(ids, syms[i], e));
    return APR_OK;
}

struct link {
    int32_t id; /* -1: merged away */
    uint32_t prev, next;
};

struct candidate {
    uint64_t key; /* rank in the upper half, place of the left symbol in the lower: a total order */
    const struct pair *merge;
};

#define NO_LINK UINT32_MAX

static enum apr_code heap_push(struct apr_buf *heap, struct candidate c, struct apr_err *e)
{
    TRY(apr_buf_append(heap, &c, sizeof c, e));
    struct candidate *at = (struct candidate *)(void *)heap->data;
    size_t i = heap->n_bytes / sizeof c - 1;
    for (; i > 0 && at[(i - 1) / 2].key > c.key; i = (i - 1) / 2) at[i] = at[(i - 1) / 2];
    at[i] = c;
    return APR_OK;
}

static struct candidate heap_pop(struct apr_buf *heap)
{
    struct candidate *at = (struct candidate *)(void *)heap->data;
    struct candidate top = at[0];
    heap->n_bytes -= sizeof top;
    size_t n = heap->n_bytes / sizeof top;
    struct candidate last = at[n];
    size_t i = 0;
    for (size_t kid = 1; kid < n; kid = 2 * i + 1) {
        if (kid + 1 < n && at[kid + 1].key < at[kid].key) kid++;
        if (at[kid].key >= last.key) break;
        at[i] = at[kid];
        i = kid;
    }
    at[i] = last;
    return top;
}

static enum apr_code consider(const struct bpe *b, const struct link *links, uint32_t i, struct apr_buf *heap,
                              struct apr_err *e)
{
    uint32_t next = i == NO_LINK ? NO_LINK : links[i].next;
    if (next == NO_LINK) return APR_OK;
    const struct pair *m = merge_of(b, links[i].id, links[next].id);
    if (!m) return APR_OK;
    return heap_push(heap, (struct candidate){(uint64_t)m->rank << 32 | i, m}, e);
}

static enum apr_code merge_all(const struct bpe *b, struct link *links, struct apr_buf *heap,
                               struct apr_err *e)
{
    while (heap->n_bytes > 0) {
        struct candidate c = heap_pop(heap);
        uint32_t i = (uint32_t)c.key, next = links[i].next;
        /* Stale when either side has merged since. */
        if (links[i].id != c.merge->left || next == NO_LINK || links[next].id != c.merge->right) continue;
        links[i].id = c.merge->id;
        links[i].next = links[next].next;
        links[next].id = -1;
        if (links[i].next != NO_LINK) links[links[i].next].prev = i;
        TRY(consider(b, links, links[i].prev, heap, e));
        TRY(consider(b, links, i, heap, e));
    }
    return APR_OK;
}

static enum apr_code encode_long(const struct bpe *b, struct apr_tok_work *w, const uint8_t *p, size_t n,
                                 struct apr_ids *ids, struct apr_err *e)
{
    uint8_t *room;
    w->syms.n_bytes = w->heap.n_bytes = 0;
    TRY(apr_buf_reserve(&w->syms, n * (sizeof(struct link) + sizeof(int32_t)), &room, e));
    struct link *links = (struct link *)(void *)room;
    int32_t *syms = (int32_t *)(void *)(room + n * sizeof *links);
    size_t n_syms = first_symbols(b, p, n, syms);
    for (size_t i = 0; i < n_syms; i++)
        links[i] =
            (struct link){syms[i], i ? (uint32_t)i - 1 : NO_LINK, i + 1 < n_syms ? (uint32_t)i + 1 : NO_LINK};
    for (size_t i = 0; i < n_syms; i++) TRY(consider(b, links, (uint32_t)i, &w->heap, e));
    TRY(merge_all(b, links, &w->heap, e));
    for (size_t i = 0; i < n_syms; i++)
        if (links[i].id >= 0) TRY(apr_ids_push(ids, links[i].id, e));
    return APR_OK;
}

static enum apr_code bpe_encode(const struct apr_tok *t, struct apr_tok_work *w, const uint8_t *p, size_t n,
                                struct apr_ids *ids, struct apr_err *e)
{
    const struct bpe *b = t->model;
    TRY(apr_pretok_run(&t->pre, &w->pre, p, n, e));
    for (size_t i = 0; i < w->pre.n; i++) {
        const uint8_t *word = w->pre.text + w->pre.at[i].off;
        size_t n_word = w->pre.at[i].n_bytes;
        int32_t whole = b->ignore_merges ? apr_lookup_get(&b->by_bytes, (const char *)word, n_word) : -1;
        if (whole >= 0)
            TRY(apr_ids_push(ids, whole, e));
        else if (n_word <= SHORT_WORD)
            TRY(encode_short(b, word, n_word, ids, e));
        else
            TRY(encode_long(b, w, word, n_word, ids, e));
    }
    return APR_OK;
}

const struct apr_tok_kind apr_tok_bpe = {
    .id = APR_VOCAB_BPE, .name = "byte-level BPE", .open = bpe_open, .encode = bpe_encode};
