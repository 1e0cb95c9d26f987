/* See pieces.h. */
#include "pieces.h"

#include <string.h>

static int hex(char c)
{
    return c >= '0' && c <= '9'   ? c - '0'
           : c >= 'A' && c <= 'F' ? c - 'A' + 10
           : c >= 'a' && c <= 'f' ? c - 'a' + 10
                                  : -1;
}

int apr_piece_byte(struct apr_str s)
{
    if (s.n_bytes != 6 || memcmp(s.p, "<0x", 3) != 0 || s.p[5] != '>') return -1;
    int hi = hex(s.p[3]), lo = hex(s.p[4]);
    return hi < 0 || lo < 0 ? -1 : 16 * hi + lo;
}

static int byte_of(const struct apr_vocab *v, uint32_t id)
{
    return v->types && v->types[id] == APR_TOK_BYTE ? apr_piece_byte(v->toks[id]) : -1;
}

void apr_pieces_bytes(const struct apr_tok *t, int32_t *byte_id)
{
    for (int i = 0; i < 256; i++) byte_id[i] = -1;
    for (uint32_t i = 0; i < t->v->n_toks; i++)
        if (byte_of(t->v, i) >= 0) byte_id[byte_of(t->v, i)] = (int32_t)i;
}

/* ---- rules ---- */

struct rules {
    const char *file;
    struct apr_err *e;
    bool bars;          /* U+2581 is a blank */
    bool first_none;    /* and nothing in the first token */
    bool bytes;         /* byte tokens are bytes */
    bool joined;        /* a blank stands between tokens: no decoder at all */
    bool words;         /* WordPiece: a blank in front of what is no continuation */
    bool cleanup;       /* and none before punctuation */
    bool phantom;       /* WordPiece as GGUF has it: words begin with U+2581, continuations with nothing */
    const char *prefix; /* of continuations */
    size_t n_drops;
};

static enum apr_code unsupported(const struct rules *r, const char *what)
{
    char shown[80];
    return apr_fail(r->e, APR_ELOAD, "%s: $.decoder: %s is not supported", r->file,
                    apr_escape(shown, sizeof shown, what, strlen(what)));
}

static bool is(const json_t *j, const char *key, const char *want)
{
    const char *s = json_string_value(json_object_get(j, key));
    return s && strcmp(s, want) == 0;
}

static enum apr_code read_metaspace(struct rules *r, const json_t *j)
{
    if (json_object_get(j, "replacement") && !is(j, "replacement", APR_BAR))
        return unsupported(r, "Metaspace with another mark than U+2581");
    r->bars = true;
    r->first_none = !is(j, "prepend_scheme", "never");
    if (!json_object_get(j, "prepend_scheme"))
        r->first_none = !json_is_false(json_object_get(j, "add_prefix_space"));
    return APR_OK;
}

static enum apr_code read_replace(struct rules *r, const json_t *j)
{
    if (!is(json_object_get(j, "pattern"), "String", APR_BAR) || !is(j, "content", " "))
        return unsupported(r, "Replace of anything but U+2581 by a blank");
    r->bars = true;
    return APR_OK;
}

static enum apr_code read_bytes(struct rules *r, const json_t *j)
{
    (void)j;
    r->bytes = true;
    return APR_OK;
}

static enum apr_code read_fuse(struct rules *r, const json_t *j)
{
    (void)r;
    (void)j;
    return APR_OK; /* tokens are joined without anything between */
}

static enum apr_code read_strip(struct rules *r, const json_t *j)
{
    json_int_t start = json_integer_value(json_object_get(j, "start"));
    if (!is(j, "content", " ") || json_integer_value(json_object_get(j, "stop")) != 0 || start < 0 ||
        start > 64)
        return unsupported(r, "Strip of anything but blanks at the front");
    r->n_drops = (size_t)start;
    return APR_OK;
}

static enum apr_code read_words(struct rules *r, const json_t *j)
{
    const char *prefix = json_string_value(json_object_get(j, "prefix"));
    r->words = true;
    r->prefix = prefix ? prefix : "##";
    r->cleanup = !json_is_false(json_object_get(j, "cleanup"));
    return APR_OK;
}

static const struct {
    const char *type;
    enum apr_code (*read)(struct rules *r, const json_t *j);
} kinds[] = {
    {"Metaspace", read_metaspace}, {"Replace", read_replace}, {"ByteFallback", read_bytes},
    {"Fuse", read_fuse},           {"Strip", read_strip},     {"WordPiece", read_words},
};

static enum apr_code read_any(struct rules *r, const json_t *j, int depth)
{
    const char *type = json_string_value(json_object_get(j, "type"));
    if (!type) return apr_fail(r->e, APR_EFORMAT, "%s: $.decoder: no type", r->file);
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
        if (strcmp(kinds[i].type, type) == 0) return kinds[i].read(r, j);
    if (strcmp(type, "Sequence") != 0 || depth > 4) return unsupported(r, type);
    size_t i;
    const json_t *item;
    json_array_foreach(json_object_get(j, "decoders"), i, item) TRY(read_any(r, item, depth + 1));
    return APR_OK;
}

/* ---- texts ---- */

static size_t put_bars(struct apr_str s, bool bars, const char *blank, char *out)
{
    size_t n = 0, n_blank = strlen(blank);
    for (size_t i = 0; i < s.n_bytes;) {
        bool bar = bars && s.n_bytes - i >= APR_BAR_BYTES && memcmp(s.p + i, APR_BAR, APR_BAR_BYTES) == 0;
        memcpy(out + n, bar ? blank : s.p + i, bar ? n_blank : 1);
        n += bar ? n_blank : 1;
        i += bar ? APR_BAR_BYTES : 1;
    }
    return n;
}

/* What WordPiece's decoder does within one token, in this order. */
static size_t clean(char *s, size_t n)
{
    static const char *const changes[][2] = {
        {" .", "."},   {" ?", "?"},     {" !", "!"},     {" ,", ","},
        {" ' ", "'"},  {" n't", "n't"}, {" 'm", "'m"},   {" do not", " don't"},
        {" 's", "'s"}, {" 've", "'ve"}, {" 're", "'re"},
    };
    for (size_t c = 0; c < sizeof changes / sizeof *changes; c++) {
        size_t n_from = strlen(changes[c][0]), n_to = strlen(changes[c][1]), done = 0;
        char *hit;
        while ((hit = memmem(s + done, n - done, changes[c][0], n_from)) != NULL) {
            size_t at = (size_t)(hit - s);
            memcpy(hit, changes[c][1], n_to);
            memmove(hit + n_to, hit + n_from, n - at - n_from);
            n -= n_from - n_to;
            done = at + n_to;
        }
    }
    return n;
}

static bool begins(struct apr_str s, const char *prefix)
{
    size_t n = strlen(prefix);
    return n > 0 && s.n_bytes >= n && memcmp(s.p, prefix, n) == 0;
}

/* A token's text within a sentence, or at its front; out has room for the token and a blank. */
static size_t word_text(const struct rules *r, struct apr_str s, bool word, bool control, bool first,
                        char *out)
{
    size_t n = 0, n_cut = 0;
    bool inner = r->phantom ? !word && !control : begins(s, r->prefix);
    if (r->phantom && word) n_cut = APR_BAR_BYTES;
    if (!r->phantom && inner && !first) n_cut = strlen(r->prefix);
    if (!inner && !first) out[n++] = ' ';
    memcpy(out + n, s.p + n_cut, s.n_bytes - n_cut);
    n += s.n_bytes - n_cut;
    return r->cleanup ? clean(out, n) : n;
}

static size_t piece_text(const struct rules *r, const struct apr_tok *t, uint32_t id, bool first, char *out)
{
    struct apr_str s = t->v->toks[id];
    int byte = r->bytes ? byte_of(t->v, id) : -1;
    if (byte >= 0) {
        *out = (char)byte;
        return 1;
    }
    bool control = t->v->types && (t->v->types[id] == APR_TOK_CONTROL || t->v->types[id] == APR_TOK_UNKNOWN);
    if (r->words) return word_text(r, s, begins(s, APR_BAR), control, first, out);
    size_t n = 0;
    if (r->joined && !first) out[n++] = ' ';
    return n + put_bars(s, r->bars, first && r->first_none ? "" : " ", out + n);
}

static enum apr_code fill(struct apr_tok *t, const struct rules *r, bool first, struct apr_str **out,
                          struct apr_err *e)
{
    const struct apr_vocab *v = t->v;
    size_t n_total = v->n_toks;
    for (uint32_t i = 0; i < v->n_toks; i++) n_total += v->toks[i].n_bytes;
    char *at;
    TRY(apr_arena_try(&t->arena, &at, n_total, 1, "token texts", e));
    TRY(apr_arena_try(&t->arena, out, v->n_toks, sizeof **out, "token texts", e));
    for (uint32_t i = 0; i < v->n_toks; i++) {
        size_t n = piece_text(r, t, i, first, at);
        (*out)[i] = (struct apr_str){at, n};
        at += n;
    }
    return APR_OK;
}

static enum apr_code open_rules(struct apr_tok *t, const struct rules *r, struct apr_err *e)
{
    t->n_drops_blank = r->n_drops;
    t->whole_bytes = r->bytes;
    TRY(fill(t, r, false, &t->raw, e));
    return r->first_none || r->joined || r->words ? fill(t, r, true, &t->raw_first, e) : APR_OK;
}

enum apr_code apr_pieces_open(struct apr_tok *t, const json_t *decoder, struct apr_err *e)
{
    struct rules r = {.file = t->file, .e = e};
    if (!decoder || json_is_null(decoder))
        r.joined = true;
    else
        TRY(read_any(&r, decoder, 0));
    return open_rules(t, &r, e);
}

enum apr_code apr_pieces_open_gguf(struct apr_tok *t, struct apr_err *e)
{
    struct rules r = {.file = t->file, .e = e, .bars = true, .bytes = true};
    if (t->v->kind == APR_VOCAB_WPM)
        r = (struct rules){.words = true, .phantom = true, .cleanup = true, .prefix = ""};
    else
        r.n_drops = t->v->add_space_prefix != 0;
    return open_rules(t, &r, e);
}
