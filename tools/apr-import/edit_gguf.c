/* The beginning of a GGUF anew: keys that do not change keep their bytes and their order. */
#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "edit.h"
#include "fmt/gguf.h"
#include "io_patch.h"
#include "rd.h"

#define PADDING_KEY  "apr.padding" /* spaces that later edits may use */
#define MAX_TEMPLATE (16u << 20)

struct item {
    const char *key; /* NUL-terminated */
    uint32_t type, elem;
    const uint8_t *bytes; /* key, type and value as stored */
    size_t n_bytes;
    bool is_new;
};

struct file {
    struct edit *d;
    struct apr_arena *arena;
    const uint8_t *base;
    struct item *items;
    size_t n_items;
    uint64_t n_tensors, off_infos, off_infos_end, alignment;
    uint32_t version;
};

/* ---- reading ------------------------------------------------------------------------------------------ */

static enum apr_code skip_text(struct apr_rd *rd, struct apr_err *e)
{
    const uint8_t *p;
    uint64_t n;
    TRY(apr_rd_u64(rd, &n, "string", e));
    return apr_rd_bytes(rd, n, &p, "string", e);
}

static enum apr_code skip_value(struct apr_rd *rd, struct item *it, struct apr_err *e)
{
    const uint8_t *p;
    uint64_t n = 1;
    uint32_t type = it->type;
    if (type == APR_KV_ARRAY) {
        TRY(apr_rd_u32(rd, &it->elem, "element type", e));
        TRY(apr_rd_u64(rd, &n, "array", e));
        type = it->elem;
        TRY(apr_rd_room(rd, n, type == APR_KV_STR ? 8 : 1, "array", e));
    }
    if (type == APR_KV_STR) {
        for (uint64_t i = 0; i < n; i++) TRY(skip_text(rd, e));
        return APR_OK;
    }
    uint64_t n_each = type < APR_KV_N_TYPES ? apr_kv_elem_bytes((enum apr_kv_type)type) : 0;
    if (n_each == 0)
        return apr_fail(e, APR_EFORMAT, "%s: key %s: value type %" PRIu32, rd->file, it->key, type);
    TRY(apr_rd_room(rd, n, n_each, "array", e));
    return apr_rd_bytes(rd, n * n_each, &p, "value", e);
}

static enum apr_code read_item(struct file *f, struct apr_rd *rd, struct item *it, struct apr_err *e)
{
    uint64_t begin = apr_rd_off(rd), n;
    const uint8_t *p;
    TRY(apr_rd_u64(rd, &n, "key", e));
    TRY(apr_rd_bytes(rd, n, &p, "key", e));
    it->key = apr_arena_strndup(f->arena, (const char *)p, (size_t)n);
    TRY(apr_rd_u32(rd, &it->type, "value type", e));
    TRY(skip_value(rd, it, e));
    it->bytes = f->base + begin;
    it->n_bytes = (size_t)(apr_rd_off(rd) - begin);
    return APR_OK;
}

static enum apr_code skip_infos(struct file *f, struct apr_rd *rd, struct apr_err *e)
{
    const uint8_t *p;
    f->off_infos = apr_rd_off(rd);
    for (uint64_t i = 0; i < f->n_tensors; i++) {
        uint32_t n_dims;
        TRY(skip_text(rd, e));
        TRY(apr_rd_u32(rd, &n_dims, "n_dims", e));
        TRY(apr_rd_room(rd, n_dims, 8, "n_dims", e));
        TRY(apr_rd_bytes(rd, (uint64_t)n_dims * 8 + 4 + 8, &p, "tensor info", e));
    }
    f->off_infos_end = apr_rd_off(rd);
    return APR_OK;
}

/* The model was loaded before; this walk only finds where things lie. */
static enum apr_code walk(struct file *f, size_t n_more, struct apr_err *e)
{
    struct apr_rd rd;
    const uint8_t *magic;
    uint64_t n_kv;
    apr_rd_mem(&rd, f->base, apr_src_size(f->d->src), 0, apr_src_name(f->d->src));
    TRY(apr_rd_bytes(&rd, 4, &magic, "magic", e));
    TRY(apr_rd_u32(&rd, &f->version, "version", e));
    TRY(apr_rd_u64(&rd, &f->n_tensors, "tensor count", e));
    TRY(apr_rd_u64(&rd, &n_kv, "key count", e));
    TRY(apr_rd_room(&rd, n_kv, 14, "key count", e));
    TRY(apr_arena_try(f->arena, &f->items, (size_t)n_kv + n_more, sizeof *f->items, "keys", e));
    for (; f->n_items < n_kv; f->n_items++) TRY(read_item(f, &rd, &f->items[f->n_items], e));
    return skip_infos(f, &rd, e);
}

/* ---- values ------------------------------------------------------------------------------------------- */

static enum apr_code bad_value(const char *key, const char *type, const char *value, struct apr_err *e)
{
    return apr_fail(e, APR_EUSAGE, "--set %s: \"%.60s\" is no %s", key, value, type);
}

static bool is_signed(enum apr_kv_type t)
{
    return t == APR_KV_I8 || t == APR_KV_I16 || t == APR_KV_I32 || t == APR_KV_I64;
}

static enum apr_code parse_whole(struct apr_kv *kv, const char *value, struct apr_err *e)
{
    unsigned n_bits = 8 * (unsigned)apr_kv_elem_bytes(kv->type);
    const char *digits = is_signed(kv->type) && *value == '-' ? value + 1 : value;
    char *end;
    bool good;
    errno = 0;
    if (is_signed(kv->type)) {
        kv->v.i = strtoll(value, &end, 10);
        int64_t top = (int64_t)(UINT64_MAX >> (65 - n_bits));
        good = kv->v.i <= top && kv->v.i >= -top - 1;
    } else {
        kv->v.u = strtoull(value, &end, 10);
        good = kv->v.u <= UINT64_MAX >> (64 - n_bits);
    }
    if (good && *digits >= '0' && *digits <= '9' && !*end && errno == 0) return APR_OK;
    return bad_value(kv->key.p, apr_kv_type_name(kv->type), value, e);
}

static enum apr_code parse_float(struct apr_kv *kv, const char *value, struct apr_err *e)
{
    char *end;
    kv->v.f = strtod(value, &end);
    if (kv->type == APR_KV_F32) kv->v.f = (double)(float)kv->v.f;
    if (*value && strchr("0123456789.-+", *value) && !*end && isfinite(kv->v.f)) return APR_OK;
    return bad_value(kv->key.p, apr_kv_type_name(kv->type), value, e);
}

static bool is_text(const char *p, size_t n)
{
    json_t *v = json_stringn(p, n); /* NULL: not UTF-8 */
    json_decref(v);
    return v != NULL;
}

static enum apr_code parse_list(struct apr_kv *kv, const char *value, struct apr_arena *a, struct apr_err *e)
{
    size_t n = 1;
    if (kv->elem_type != APR_KV_STR)
        return apr_fail(e, APR_EUSAGE, "--set %s: an array of %s; only arrays of strings can be set",
                        kv->key.p, apr_kv_type_name(kv->elem_type));
    for (const char *p = value; *p; p++) n += *p == ',';
    struct apr_str *items = apr_arena_get(a, n * sizeof *items);
    for (size_t i = 0; i < n; i++) {
        items[i] = (struct apr_str){value, strcspn(value, ",")};
        value += items[i].n_bytes + (value[items[i].n_bytes] == ',');
    }
    kv->v.a.n = n;
    kv->v.a.items = items;
    return APR_OK;
}

static enum apr_code parse_value(struct apr_kv *kv, const char *value, struct apr_arena *a, struct apr_err *e)
{
    if (!is_text(value, strlen(value))) return bad_value(kv->key.p, "UTF-8", value, e);
    if (kv->type == APR_KV_ARRAY) return parse_list(kv, value, a, e);
    if (kv->type == APR_KV_F32 || kv->type == APR_KV_F64) return parse_float(kv, value, e);
    if (kv->type == APR_KV_STR) {
        kv->v.s = (struct apr_str){value, strlen(value)};
        return APR_OK;
    }
    if (kv->type != APR_KV_BOOL) return parse_whole(kv, value, e);
    kv->v.b = strcmp(value, "true") == 0;
    return kv->v.b || strcmp(value, "false") == 0 ? APR_OK
                                                  : bad_value(kv->key.p, "bool (true, false)", value, e);
}

/* "u32", "str", "[str]" at the end of the key; false: the colon belongs to the key. */
static bool type_suffix(const char *name, struct apr_kv *kv)
{
    if (strcmp(name, "[str]") == 0) {
        kv->type = APR_KV_ARRAY;
        kv->elem_type = APR_KV_STR;
        return true;
    }
    for (unsigned t = 0; t < APR_KV_N_TYPES; t++) {
        if (t == APR_KV_ARRAY) continue;
        if (strcmp(apr_kv_type_name((enum apr_kv_type)t), name) != 0 &&
            !(t == APR_KV_STR && !strcmp(name, "str")))
            continue;
        kv->type = (enum apr_kv_type)t;
        return true;
    }
    return false;
}

/* ---- changes ------------------------------------------------------------------------------------------ */

/* What the data or other keys would contradict. */
static enum apr_code check_key(const char *key, const char *option, struct apr_err *e)
{
    static const char *const fixed[] = {"general.alignment",         "tokenizer.ggml.tokens",
                                        "tokenizer.ggml.token_type", "tokenizer.ggml.scores",
                                        "tokenizer.ggml.merges",     PADDING_KEY};
    for (size_t i = 0; i < sizeof fixed / sizeof *fixed; i++)
        if (strcmp(key, fixed[i]) == 0)
            return apr_fail(e, APR_EUSAGE, "%s %s: follows from the data and cannot be changed alone", option,
                            key);
    if (strncmp(key, "split.", 6) == 0)
        return apr_fail(e, APR_EUSAGE, "%s %s: says which part of a set this is", option, key);
    if (!*key || strlen(key) > 1024 || !is_text(key, strlen(key)))
        return apr_fail(e, APR_EUSAGE, "%s: expected a key of 1 to 1024 bytes in UTF-8", option);
    return APR_OK;
}

static struct item *find(const struct file *f, const char *key)
{
    for (size_t i = 0; i < f->n_items; i++)
        if (strcmp(f->items[i].key, key) == 0) return &f->items[i];
    return NULL;
}

static void take_out(struct file *f, const struct item *it)
{
    size_t i = (size_t)(it - f->items);
    memmove(&f->items[i], &f->items[i + 1], (f->n_items - i - 1) * sizeof *f->items);
    f->n_items--;
}

/* New keys of general.* and the padding follow the last general key, near the beginning; others are the last.
 */
static struct item *make_room(struct file *f, const char *key)
{
    size_t at = f->n_items;
    bool is_general = strncmp(key, "general.", 8) == 0 || strcmp(key, PADDING_KEY) == 0;
    while (is_general && at > 0 && strncmp(f->items[at - 1].key, "general.", 8) != 0) at--;
    memmove(&f->items[at + 1], &f->items[at], (f->n_items - at) * sizeof *f->items);
    f->n_items++;
    f->items[at] = (struct item){.key = key};
    return &f->items[at];
}

static enum apr_code put(struct file *f, const struct apr_kv *kv, struct apr_err *e)
{
    struct item *it = find(f, kv->key.p);
    struct apr_buf b;
    uint8_t *bytes = NULL;
    if (!it) it = make_room(f, kv->key.p);
    apr_buf_init(&b, APR_MAX_META_BYTES);
    enum apr_code code = apr_gguf_put_kv(&b, kv, e);
    if (code == APR_OK) code = apr_arena_try(f->arena, &bytes, b.n_bytes, 1, "a value", e);
    if (code == APR_OK) {
        memcpy(bytes, b.data, b.n_bytes);
        it->bytes = bytes;
        it->n_bytes = b.n_bytes;
        it->type = kv->type;
        it->elem = kv->elem_type;
    }
    apr_buf_free(&b);
    return code;
}

static enum apr_code set_text(struct file *f, const char *key, const char *p, size_t n, struct apr_err *e)
{
    struct apr_kv kv = {.key = {key, strlen(key)}, .type = APR_KV_STR};
    kv.v.s = (struct apr_str){p, n};
    return put(f, &kv, e);
}

static enum apr_code set(struct file *f, const char *word, struct apr_err *e)
{
    const char *equals = strchr(word, '=');
    struct apr_kv kv = {.type = APR_KV_STR};
    if (!equals) return apr_fail(e, APR_EUSAGE, "--set %s: expected KEY=VALUE or KEY:TYPE=VALUE", word);
    char *key = apr_arena_strndup(f->arena, word, (size_t)(equals - word)), *colon = strrchr(key, ':');
    bool is_typed = colon && type_suffix(colon + 1, &kv);
    if (is_typed) *colon = '\0';
    TRY(check_key(key, "--set", e));
    const struct item *old = find(f, key);
    if (old && !is_typed) {
        kv.type = (enum apr_kv_type)old->type;
        kv.elem_type = (enum apr_kv_type)old->elem;
    }
    kv.key = (struct apr_str){key, strlen(key)};
    TRY(parse_value(&kv, equals + 1, f->arena, e));
    return put(f, &kv, e);
}

static enum apr_code unset(struct file *f, const char *key, struct apr_err *e)
{
    TRY(check_key(key, "--unset", e));
    const struct item *it = find(f, key);
    if (!it) return apr_fail(e, APR_ENOTFOUND, "--unset %s: %s has no such key", key, f->d->path);
    take_out(f, it);
    return APR_OK;
}

static enum apr_code set_template(struct file *f, const char *path, struct apr_err *e)
{
    struct apr_buf b;
    apr_buf_init(&b, MAX_TEMPLATE);
    enum apr_code code = apr_read_file(path, MAX_TEMPLATE, &b, e);
    if (code == APR_OK && (b.n_bytes == 0 || !is_text((const char *)b.data, b.n_bytes)))
        code = apr_fail(e, APR_EFORMAT, "%s: expected a chat template in UTF-8", path);
    if (code == APR_OK) code = set_text(f, "tokenizer.chat_template", (const char *)b.data, b.n_bytes, e);
    apr_buf_free(&b);
    return code;
}

static enum apr_code change(struct file *f, struct apr_err *e)
{
    const struct apr_override *o = f->d->over;
    if (o->model_name) TRY(set_text(f, "general.name", o->model_name, strlen(o->model_name), e));
    if (o->pre) TRY(set_text(f, "tokenizer.ggml.pre", o->pre, strlen(o->pre), e));
    if (o->chat_template) TRY(set_template(f, o->chat_template, e));
    for (size_t i = 0; i < o->set.n; i++) TRY(set(f, o->set.at[i], e));
    for (size_t i = 0; i < f->d->unset.n; i++) TRY(unset(f, f->d->unset.at[i], e));
    return APR_OK;
}

/* ---- writing ------------------------------------------------------------------------------------------ */

static uint64_t aligned(const struct file *f, uint64_t n)
{
    return (n + f->alignment - 1) / f->alignment * f->alignment;
}

static uint64_t size_of(const struct file *f)
{
    uint64_t n = 24 + f->off_infos_end - f->off_infos;
    for (size_t i = 0; i < f->n_items; i++) n += f->items[i].n_bytes;
    return n;
}

static enum apr_code set_padding(struct file *f, uint64_t n, struct apr_err *e)
{
    char *spaces;
    TRY(apr_arena_try(f->arena, &spaces, (size_t)n + 1, 1, PADDING_KEY, e));
    memset(spaces, ' ', (size_t)n);
    return set_text(f, PADDING_KEY, spaces, (size_t)n, e);
}

/* Bytes of the padding's text that leave the beginning as long as it was; UINT64_MAX: there is no such
 * number. */
static uint64_t balance(const struct file *f)
{
    const struct item *pad = find(f, PADDING_KEY);
    uint64_t overhead = 8 + strlen(PADDING_KEY) + 4 + 8;
    uint64_t n_others = size_of(f) - (pad ? pad->n_bytes : 0);
    if (f->off_infos_end < n_others || f->off_infos_end - n_others < overhead) return UINT64_MAX;
    return f->off_infos_end - n_others - overhead;
}

static enum apr_code make_head(struct file *f, struct apr_err *e)
{
    static const uint8_t zeros[APR_MAX_ALIGNMENT];
    struct apr_buf *b = &f->d->head;
    uint64_t n_kv = f->n_items;
    uint8_t count[8];
    for (size_t i = 0; i < sizeof count; i++) count[i] = (uint8_t)(n_kv >> 8 * i);
    TRY(apr_buf_append(b, f->base, 16, e)); /* magic, version, number of tensors */
    TRY(apr_buf_append(b, count, sizeof count, e));
    for (size_t i = 0; i < f->n_items; i++) TRY(apr_buf_append(b, f->items[i].bytes, f->items[i].n_bytes, e));
    TRY(apr_buf_append(b, f->base + f->off_infos, (size_t)(f->off_infos_end - f->off_infos), e));
    return apr_buf_append(b, zeros, (size_t)(aligned(f, b->n_bytes) - b->n_bytes), e);
}

/* Is this beginning as long as the old one, and different in one block only? */
static bool fits_in_place(const struct file *f)
{
    size_t first, n_differ, n = f->d->head.n_bytes;
    if (n != f->d->n_old_head) return false;
    edit_difference(f->base, f->d->head.data, n, &first, &n_differ);
    return n_differ == 0 || apr_patch_fits(first, n_differ);
}

/* With padding that balances the change, if that keeps the change in one block; otherwise the padding stays
 * as it was, or becomes what --reserve asks for. */
static enum apr_code lay_out(struct file *f, struct apr_err *e)
{
    const struct item *pad = find(f, PADDING_KEY);
    uint64_t n_pad = f->off_infos_end == size_of(f) ? UINT64_MAX : balance(f);
    if (n_pad != UINT64_MAX) {
        struct item kept = pad ? *pad : (struct item){.key = NULL};
        TRY(set_padding(f, n_pad, e));
        TRY(make_head(f, e));
        if (fits_in_place(f)) return APR_OK;
        f->d->head.n_bytes = 0;
        if (kept.key)
            *find(f, PADDING_KEY) = kept;
        else
            take_out(f, find(f, PADDING_KEY));
    }
    if (f->d->n_reserve_bytes) TRY(set_padding(f, f->d->n_reserve_bytes, e));
    return make_head(f, e);
}

enum apr_code edit_gguf(struct edit *d, struct apr_arena *a, struct apr_err *e)
{
    struct file f = {.d = d, .arena = a, .alignment = d->alignment};
    TRY(apr_src_map(d->src, &f.base, e));
    TRY(walk(&f, d->over->set.n + 5, e)); /* name, pre, template, padding */
    d->n_old_head = aligned(&f, f.off_infos_end);
    if (d->n_old_head > apr_src_size(d->src))
        d->n_old_head = apr_src_size(d->src); /* no tensors, no padding */
    d->has_footer = false;
    TRY(change(&f, e));
    return lay_out(&f, e);
}
