/* The report is kept as a tree until it is closed; two printers walk it. */
#include "out.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "arena.h"
#include "json.h"

#define MAX_OUT_BYTES ((size_t)1 << 32)
#define MAX_COLS      64 /* of a table */

enum kind { K_OBJ, K_ARR, K_STR, K_NULL, K_U64, K_I64, K_F64, K_BOOL, K_BYTES, K_TEXT };

struct node {
    enum kind kind;
    const char *key;
    struct node *parent, *first, *last, *next;
    union {
        uint64_t u;
        int64_t i;
        double f;
        bool b;
        struct {
            const char *p;
            size_t n_bytes;
        } s;
    } v;
};

struct apr_out {
    struct apr_arena arena; /* owns this struct and the tree */
    FILE *to;
    bool json;
    struct node *root, *at; /* at: the innermost open object or array */
};

static struct node *add(struct apr_out *o, enum kind kind, const char *key)
{
    struct node *n = apr_arena_get(&o->arena, sizeof *n);
    *n = (struct node){.kind = kind, .parent = o->at};
    if (key) n->key = apr_arena_strdup(&o->arena, key);
    if (!o->at) return n;
    if (o->at->last)
        o->at->last->next = n;
    else
        o->at->first = n;
    o->at->last = n;
    return n;
}

struct apr_out *apr_out_open(FILE *to, bool json, const char *schema)
{
    struct apr_arena arena;
    apr_arena_init(&arena);
    struct apr_out *o = apr_arena_get(&arena, sizeof *o);
    *o = (struct apr_out){.arena = arena, .to = to, .json = json};
    o->root = add(o, K_OBJ, NULL);
    o->at = o->root;
    if (json) apr_out_str(o, "schema", schema);
    return o;
}

void apr_out_obj(struct apr_out *o, const char *key)
{
    o->at = add(o, K_OBJ, key);
}
void apr_out_arr(struct apr_out *o, const char *key)
{
    o->at = add(o, K_ARR, key);
}

void apr_out_end(struct apr_out *o)
{
    if (o->at->parent) o->at = o->at->parent;
}

void apr_out_strn(struct apr_out *o, const char *key, const char *v, size_t n_bytes)
{
    struct node *n = add(o, v ? K_STR : K_NULL, key);
    if (!v) return;
    n->v.s.p = apr_arena_strndup(&o->arena, v, n_bytes);
    n->v.s.n_bytes = n_bytes;
}

void apr_out_str(struct apr_out *o, const char *key, const char *v)
{
    apr_out_strn(o, key, v, v ? strlen(v) : 0);
}
void apr_out_u64(struct apr_out *o, const char *key, uint64_t v)
{
    add(o, K_U64, key)->v.u = v;
}
void apr_out_i64(struct apr_out *o, const char *key, int64_t v)
{
    add(o, K_I64, key)->v.i = v;
}
void apr_out_f64(struct apr_out *o, const char *key, double v)
{
    add(o, K_F64, key)->v.f = v;
}
void apr_out_bool(struct apr_out *o, const char *key, bool v)
{
    add(o, K_BOOL, key)->v.b = v;
}
void apr_out_bytes(struct apr_out *o, const char *key, uint64_t n_bytes)
{
    add(o, K_BYTES, key)->v.u = n_bytes;
}

void apr_out_text(struct apr_out *o, const char *format, ...)
{
    char text[4096];
    va_list args;
    va_start(args, format);
    int n = vsnprintf(text, sizeof text, format, args);
    va_end(args);
    if (n < 0 || o->json) return;
    struct node *line = add(o, K_TEXT, NULL);
    line->v.s.p = apr_arena_strdup(&o->arena, text);
    line->v.s.n_bytes = strlen(text);
}

/* ---- JSON ---- */

static enum apr_code json_node(struct apr_buf *b, const struct node *n, struct apr_err *e)
{
    switch (n->kind) {
    case K_STR:
        return apr_json_put_str(b, n->v.s.p, n->v.s.n_bytes, e);
    case K_NULL:
        return apr_buf_append(b, "null", 4, e);
    case K_U64:
    case K_BYTES:
        return apr_buf_printf(b, e, "%" PRIu64, n->v.u);
    case K_I64:
        return apr_buf_printf(b, e, "%" PRId64, n->v.i);
    case K_F64:
        return apr_json_put_f64(b, n->v.f, e);
    case K_BOOL:
        return apr_buf_printf(b, e, "%s", n->v.b ? "true" : "false");
    case K_TEXT:
        return APR_OK;
    case K_OBJ:
    case K_ARR:
        break;
    }
    TRY(apr_buf_append(b, n->kind == K_OBJ ? "{" : "[", 1, e));
    for (const struct node *c = n->first; c; c = c->next) {
        if (n->kind == K_OBJ) {
            const char *key = c->key ? c->key : "";
            TRY(apr_json_put_str(b, key, strlen(key), e));
            TRY(apr_buf_append(b, ":", 1, e));
        }
        TRY(json_node(b, c, e));
        if (c->next) TRY(apr_buf_append(b, ",", 1, e));
    }
    return apr_buf_append(b, n->kind == K_OBJ ? "}" : "]", 1, e);
}

/* ---- text ---- */

static bool is_scalar(const struct node *n)
{
    return n->kind != K_OBJ && n->kind != K_ARR && n->kind != K_TEXT;
}

static bool all_scalar(const struct node *n)
{
    for (const struct node *c = n->first; c; c = c->next)
        if (!is_scalar(c)) return false;
    return true;
}

/* A scalar, or an array of scalars as "[1, 2]". */
static bool is_cell(const struct node *n)
{
    return is_scalar(n) || (n->kind == K_ARR && all_scalar(n));
}

static enum apr_code put_bytes(struct apr_buf *b, uint64_t n_bytes, struct apr_err *e)
{
    static const char *const unit[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
    double v = (double)n_bytes;
    size_t i = 0;
    for (; v >= 1024 && i + 1 < sizeof unit / sizeof *unit; i++) v /= 1024;
    return apr_buf_printf(b, e, i ? "%.1f %s" : "%.0f %s", v, unit[i]);
}

static enum apr_code put_safe(struct apr_buf *b, const char *p, size_t n_bytes, struct apr_err *e)
{
    uint8_t *at; /* the longest escape is \u{NNNN} for 2 bytes, \xNN for 1 */
    size_t n_room = 4 * n_bytes + 1;
    TRY(apr_buf_reserve(b, n_room, &at, e));
    apr_escape((char *)at, n_room, p, n_bytes);
    apr_buf_commit(b, strlen((char *)at));
    return APR_OK;
}

static enum apr_code text_cell(struct apr_buf *b, const struct node *n, struct apr_err *e)
{
    switch (n->kind) {
    case K_STR:
    case K_TEXT:
        return put_safe(b, n->v.s.p, n->v.s.n_bytes, e);
    case K_NULL:
        return APR_OK;
    case K_U64:
        return apr_buf_printf(b, e, "%" PRIu64, n->v.u);
    case K_BYTES:
        return put_bytes(b, n->v.u, e);
    case K_I64:
        return apr_buf_printf(b, e, "%" PRId64, n->v.i);
    case K_F64:
        return apr_buf_printf(b, e, "%.6g", n->v.f);
    case K_BOOL:
        return apr_buf_printf(b, e, "%s", n->v.b ? "yes" : "no");
    case K_OBJ:
    case K_ARR:
        break;
    }
    TRY(apr_buf_append(b, "[", 1, e));
    for (const struct node *c = n->first; c; c = c->next) {
        TRY(text_cell(b, c, e));
        if (c->next) TRY(apr_buf_append(b, ", ", 2, e));
    }
    return apr_buf_append(b, "]", 1, e);
}

static enum apr_code indent(struct apr_buf *b, int depth, struct apr_err *e)
{
    return apr_buf_printf(b, e, "%*s", 2 * depth, "");
}

/* Objects of cells whose first has every column. */
static bool is_table(const struct node *arr)
{
    if (!arr->first) return false;
    for (const struct node *row = arr->first; row; row = row->next) {
        if (row->kind != K_OBJ || !row->first) return false;
        size_t n_cols = 0;
        const struct node *head = arr->first->first;
        for (const struct node *c = row->first; c; c = c->next, head = head->next, n_cols++)
            if (!is_cell(c) || !head || !head->key || !c->key || strcmp(c->key, head->key) != 0 ||
                n_cols == MAX_COLS)
                return false;
        if (head) return false;
    }
    return true;
}

/* Columns that a terminal shows for UTF-8 text: its code points. */
static size_t n_columns(const uint8_t *p, size_t n_bytes)
{
    size_t n = 0;
    for (size_t i = 0; i < n_bytes; i++) n += (p[i] & 0xc0) != 0x80;
    return n;
}

static bool is_number(const struct node *n)
{
    return n->kind == K_U64 || n->kind == K_I64 || n->kind == K_F64 || n->kind == K_BYTES;
}

struct table {
    size_t width[MAX_COLS];
    bool right[MAX_COLS];
};

static enum apr_code measure(const struct node *arr, struct table *t, struct apr_buf *cell, struct apr_err *e)
{
    size_t i = 0;
    for (const struct node *c = arr->first->first; c; c = c->next) {
        t->width[i] = n_columns((const uint8_t *)c->key, strlen(c->key));
        t->right[i++] = true;
    }
    for (const struct node *row = arr->first; row; row = row->next) {
        i = 0;
        for (const struct node *c = row->first; c; c = c->next, i++) {
            cell->n_bytes = 0;
            TRY(text_cell(cell, c, e));
            size_t n = n_columns(cell->data, cell->n_bytes);
            if (n > t->width[i]) t->width[i] = n;
            if (!is_number(c) && c->kind != K_NULL) t->right[i] = false;
        }
    }
    return APR_OK;
}

static enum apr_code pad(struct apr_buf *b, const uint8_t *p, size_t n_bytes, size_t width, bool right,
                         bool is_last, struct apr_err *e)
{
    size_t n_cols = n_columns(p, n_bytes), n_pad = width > n_cols ? width - n_cols : 0;
    if (right) TRY(apr_buf_printf(b, e, "%*s", (int)n_pad, ""));
    TRY(apr_buf_append(b, p, n_bytes, e));
    if (!right && !is_last) TRY(apr_buf_printf(b, e, "%*s", (int)n_pad, ""));
    return is_last ? apr_buf_append(b, "\n", 1, e) : apr_buf_append(b, "  ", 2, e);
}

static enum apr_code table_rows(struct apr_buf *b, const struct node *arr, int depth, struct apr_buf *cell,
                                struct apr_err *e)
{
    struct table t = {0};
    size_t i = 0;
    TRY(measure(arr, &t, cell, e));
    TRY(indent(b, depth, e));
    for (const struct node *c = arr->first->first; c; c = c->next, i++)
        TRY(pad(b, (const uint8_t *)c->key, strlen(c->key), t.width[i], t.right[i], !c->next, e));
    for (const struct node *row = arr->first; row; row = row->next) {
        i = 0;
        TRY(indent(b, depth, e));
        for (const struct node *c = row->first; c; c = c->next, i++) {
            cell->n_bytes = 0;
            TRY(text_cell(cell, c, e));
            TRY(pad(b, cell->data, cell->n_bytes, t.width[i], t.right[i], !c->next, e));
        }
    }
    return APR_OK;
}

static enum apr_code text_table(struct apr_buf *b, const struct node *arr, int depth, struct apr_err *e)
{
    struct apr_buf cell;
    apr_buf_init(&cell, MAX_OUT_BYTES);
    enum apr_code rc = table_rows(b, arr, depth, &cell, e);
    apr_buf_free(&cell);
    return rc;
}

static enum apr_code text_members(struct apr_buf *b, const struct node *n, int depth, struct apr_err *e);

static enum apr_code text_member(struct apr_buf *b, const struct node *c, int depth, struct apr_err *e)
{
    TRY(indent(b, depth, e));
    if (c->kind == K_TEXT) {
        TRY(text_cell(b, c, e));
        return apr_buf_append(b, "\n", 1, e);
    }
    if (is_cell(c)) {
        TRY(apr_buf_printf(b, e, "%s%s", c->key ? c->key : "-", c->key ? ": " : " "));
        TRY(text_cell(b, c, e));
        return apr_buf_append(b, "\n", 1, e);
    }
    TRY(apr_buf_printf(b, e, "%s%s\n", c->key ? c->key : "-", c->key ? ":" : ""));
    if (c->kind == K_ARR && is_table(c)) return text_table(b, c, depth + 1, e);
    return text_members(b, c, depth + 1, e);
}

static enum apr_code text_members(struct apr_buf *b, const struct node *n, int depth, struct apr_err *e)
{
    for (const struct node *c = n->first; c; c = c->next) {
        if (c->kind == K_NULL) continue;
        TRY(text_member(b, c, depth, e));
    }
    return APR_OK;
}

enum apr_code apr_out_close(struct apr_out *o, struct apr_err *e)
{
    struct apr_buf b;
    apr_buf_init(&b, MAX_OUT_BYTES);
    enum apr_code rc = o->json ? json_node(&b, o->root, e) : text_members(&b, o->root, 0, e);
    if (rc == APR_OK && o->json) rc = apr_buf_append(&b, "\n", 1, e);
    if (rc == APR_OK && b.n_bytes && (fwrite(b.data, 1, b.n_bytes, o->to) != b.n_bytes || fflush(o->to)))
        rc = apr_fail(e, APR_EIO, "standard output: cannot write: %s", strerror(errno));
    apr_buf_free(&b);
    struct apr_arena arena = o->arena;
    apr_arena_free(&arena);
    return rc;
}

void apr_out_discard(struct apr_out *o)
{
    if (!o) return;
    struct apr_arena arena = o->arena;
    apr_arena_free(&arena);
}
