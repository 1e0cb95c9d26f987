/* Front matter of a model card: YAML between two lines "---" at the top of README.md, as JSON.
 *
 * Plain scalars become null, booleans, integers or reals where JSON has the same spelling, else strings (so
 * that the language "no" stays "no").
 */
#include "hf_folder.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <yaml.h>

#include "../json.h"
#include "../log.h"

#define CARD_MAX_BYTES  (8u << 20)
#define FRONT_MAX_BYTES (256u << 10)
#define MAX_DEPTH       32
#define MAX_NODES       20000

struct card {
    yaml_parser_t parser;
    const char *path;
    unsigned n_nodes;
    struct {          /* open collections */
        json_t *node; /* borrowed: owned by its parent, the root by the caller */
        char *key;    /* owned by jansson's allocator through json_string; NULL while a key is expected */
        json_t *key_holder;
    } stack[MAX_DEPTH];
    int depth;
    json_t *root;
};

static json_t *scalar_value(const char *s, size_t n, bool is_plain)
{
    char *end;
    if (!is_plain) return json_stringn(s, n);
    if (n == 0 || strcmp(s, "null") == 0 || strcmp(s, "~") == 0) return json_null();
    if (strcmp(s, "true") == 0) return json_true();
    if (strcmp(s, "false") == 0) return json_false();
    if (strspn(s, "-0123456789") == n && n < 19) {
        long long v = strtoll(s, &end, 10);
        if (*end == '\0') return json_integer(v);
    }
    if (strspn(s, "-+.eE0123456789") == n && strpbrk(s, "0123456789") && n < 64) {
        json_t *v = json_loadb(s, n, JSON_DECODE_ANY, NULL); /* JSON's grammar, the C locale's point */
        if (v) return v;
    }
    return json_stringn(s, n);
}

/* Hangs v (a new reference) into the innermost open collection. */
static const char *add(struct card *c, json_t *v)
{
    json_t *at = c->depth ? c->stack[c->depth - 1].node : NULL;
    if (!v) return "text that is not UTF-8";
    if (++c->n_nodes > MAX_NODES) {
        json_decref(v);
        return "too many values";
    }
    if (!at) {
        if (c->root) {
            json_decref(v);
            return "more than one document";
        }
        c->root = v;
    } else if (json_is_array(at)) {
        json_array_append_new(at, v);
    } else if (!c->stack[c->depth - 1].key_holder) {
        if (!json_is_string(v)) { /* numbers and the like as keys: their JSON spelling */
            char *text = json_dumps(v, JSON_ENCODE_ANY | JSON_COMPACT);
            json_t *s = text ? json_string(text) : NULL;
            bool is_scalar = !json_is_object(v) && !json_is_array(v);
            free(text);
            json_decref(v);
            if (!is_scalar || !s) {
                json_decref(s);
                return "a key that is no scalar";
            }
            v = s;
        }
        c->stack[c->depth - 1].key_holder = v;
    } else {
        json_t *key = c->stack[c->depth - 1].key_holder;
        c->stack[c->depth - 1].key_holder = NULL;
        json_object_set_new(at, json_string_value(key), v);
        json_decref(key);
    }
    return NULL;
}

static const char *open_collection(struct card *c, json_t *v)
{
    const char *why;
    if (c->depth == MAX_DEPTH) {
        json_decref(v);
        return "nested too deeply";
    }
    if (c->depth && json_is_object(c->stack[c->depth - 1].node) && !c->stack[c->depth - 1].key_holder) {
        json_decref(v);
        return "a key that is no scalar";
    }
    why = add(c, v);
    if (why) return why;
    c->stack[c->depth].node = v;
    c->stack[c->depth].key_holder = NULL;
    c->depth++;
    return NULL;
}

/* NULL, or why the card is refused. */
static const char *take(struct card *c, const yaml_event_t *ev)
{
    if (ev->type == YAML_ALIAS_EVENT) return "aliases are not accepted";
    if (ev->type == YAML_SCALAR_EVENT) {
        const char *s = (const char *)ev->data.scalar.value;
        bool is_plain = ev->data.scalar.style == YAML_PLAIN_SCALAR_STYLE;
        if (ev->data.scalar.anchor || ev->data.scalar.tag) return "anchors and tags are not accepted";
        return add(c, scalar_value(s, ev->data.scalar.length, is_plain));
    }
    if (ev->type == YAML_SEQUENCE_START_EVENT) {
        if (ev->data.sequence_start.anchor || ev->data.sequence_start.tag)
            return "anchors and tags are not accepted";
        return open_collection(c, json_array());
    }
    if (ev->type == YAML_MAPPING_START_EVENT) {
        if (ev->data.mapping_start.anchor || ev->data.mapping_start.tag)
            return "anchors and tags are not accepted";
        return open_collection(c, json_object());
    }
    if (ev->type == YAML_SEQUENCE_END_EVENT || ev->type == YAML_MAPPING_END_EVENT) c->depth--;
    return NULL;
}

static json_t *parse(const char *text, size_t n_bytes, const char *path)
{
    struct card c = {.path = path};
    const char *why = NULL;
    bool at_end = false;
    if (!yaml_parser_initialize(&c.parser)) return NULL;
    yaml_parser_set_input_string(&c.parser, (const unsigned char *)text, n_bytes);
    while (!at_end && !why) {
        yaml_event_t ev;
        if (!yaml_parser_parse(&c.parser, &ev)) {
            why = c.parser.problem ? c.parser.problem : "not YAML";
            break;
        }
        at_end = ev.type == YAML_STREAM_END_EVENT;
        why = take(&c, &ev);
        yaml_event_delete(&ev);
    }
    if (!why && c.root && !json_is_object(c.root)) why = "the front matter is no mapping";
    while (c.depth > 0) json_decref(c.stack[--c.depth].key_holder);
    if (why) {
        apr_warn("%s: model card ignored: %s", path, why);
        json_decref(c.root);
        c.root = NULL;
    }
    yaml_parser_delete(&c.parser);
    return c.root;
}

/* The bytes between the first line "---" and the next one; NULL where the card has no front matter. */
static const char *front_matter(const char *text, size_t n_text, size_t *n_bytes)
{
    const char *p = text, *end = text + n_text, *begin;
    if (n_text < 4 || memcmp(p, "---", 3) != 0) return NULL;
    p += 3;
    if (*p == '\r') p++;
    if (p == end || *p != '\n') return NULL;
    begin = ++p;
    while (p < end) {
        const char *nl = memchr(p, '\n', (size_t)(end - p));
        size_t n = (size_t)((nl ? nl : end) - p);
        if (n && p[n - 1] == '\r') n--;
        if (n == 3 && memcmp(p, "---", 3) == 0) {
            *n_bytes = (size_t)(p - begin);
            return begin;
        }
        if (!nl) return NULL;
        p = nl + 1;
    }
    return NULL;
}

json_t *apr_hf_card_read(const char *path)
{
    struct apr_buf b;
    struct apr_err e;
    const char *front = NULL;
    size_t n_front = 0;
    json_t *card = NULL;
    apr_buf_init(&b, CARD_MAX_BYTES);
    if (apr_read_file(path, CARD_MAX_BYTES, &b, &e) != APR_OK)
        apr_warn("%s: model card ignored", e.text);
    else if (b.data)
        front = front_matter((const char *)b.data, b.n_bytes, &n_front);
    if (front && n_front > FRONT_MAX_BYTES)
        apr_warn("%s: model card ignored: front matter of %zu bytes, expected at most %u", path, n_front,
                 FRONT_MAX_BYTES);
    else if (front)
        card = parse(front, n_front, path);
    apr_buf_free(&b);
    return card;
}
