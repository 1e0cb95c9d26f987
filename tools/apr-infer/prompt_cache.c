/* Reading and writing computed prompts. The layout is in the header. */
#include "prompt_cache.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <unistd.h>

#include "ckd.h"
#include "log.h"
#include "model_id.h"
#include "rd.h"

#define MAGIC       "APRPROM1"
#define MAGIC_BYTES 8u
#define HEAD_BYTES  64u
#define SUM_BYTES   8u
#define ALIGNMENT   64u

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "rows and ids are written as they are in memory");

enum flag { FLAG_EXACT = 1, FLAG_LONG = 2 };

/* The header behind the magic. */
struct head {
    uint64_t model;
    uint32_t k_type, v_type, n_layers, n_heads_kv, k_dim, v_dim, flags, window;
    uint64_t n_toks, first_local;
};

/* Bytes of one position of one head. */
static size_t pair_bytes(const struct apr_blocks *b)
{
    return b->row_bytes[APR_CACHE_K] + b->row_bytes[APR_CACHE_V];
}

/* Bytes of one position of all layers of a group. */
static size_t position_bytes(const struct apr_blocks *b, unsigned group)
{
    return pair_bytes(b) * b->n_heads_kv * b->groups[group].n_layers;
}

/* The header of a cache without tokens. */
static struct head head_of(const struct apr_prompt_cache *p, const struct apr_blocks *b)
{
    return (struct head){.model = p->model,
                         .k_type = (uint32_t)b->types.at[APR_CACHE_K]->type,
                         .v_type = b->v_dim ? (uint32_t)b->types.at[APR_CACHE_V]->type : 0,
                         .n_layers = b->n_layers,
                         .n_heads_kv = b->n_heads_kv,
                         .k_dim = b->k_dim,
                         .v_dim = b->v_dim,
                         .flags = p->exact ? FLAG_EXACT : 0u,
                         .window = b->window};
}

/* ---- reading */

static enum apr_code read_head(struct apr_rd *rd, struct head *h, struct apr_err *e)
{
    const uint8_t *magic;
    uint32_t *const fields[] = {&h->k_type, &h->v_type, &h->n_layers, &h->n_heads_kv,
                                &h->k_dim,  &h->v_dim,  &h->flags,    &h->window};
    TRY(apr_rd_bytes(rd, MAGIC_BYTES, &magic, "magic", e));
    if (memcmp(magic, MAGIC, MAGIC_BYTES) != 0)
        return apr_fail(e, APR_EFORMAT, "%s: byte 0: not a prompt cache (it would begin with %s)", rd->file,
                        MAGIC);
    TRY(apr_rd_u64(rd, &h->model, "model", e));
    for (size_t i = 0; i < sizeof fields / sizeof *fields; i++) TRY(apr_rd_u32(rd, fields[i], "header", e));
    TRY(apr_rd_u64(rd, &h->n_toks, "tokens", e));
    return apr_rd_u64(rd, &h->first_local, "first block of local layers", e);
}

/* The cache that the file was made from is of the kind that this run has. */
static enum apr_code check_kind(const char *file, const struct head *h, const struct head *want,
                                struct apr_err *e)
{
    const bool exact = h->flags & FLAG_EXACT, want_exact = want->flags & FLAG_EXACT;
    if (h->flags & ~(uint32_t)(FLAG_EXACT | FLAG_LONG))
        return apr_fail(e, APR_EFORMAT, "%s: byte 40: unknown flags 0x%x", file, h->flags);
    if (h->model != want->model)
        return apr_fail(e, APR_ECONTRACT,
                        "%s: made by another model or another version of apr (%016" PRIx64
                        ", expected %016" PRIx64 "); remove it or name another file",
                        file, h->model, want->model);
    if (exact != want_exact)
        return apr_fail(e, APR_ECONTRACT, "%s: made %s --exact, this run is %s it", file,
                        exact ? "with" : "without", want_exact ? "with" : "without");
    if (h->k_type != want->k_type || h->v_type != want->v_type)
        return apr_fail(e, APR_ECONTRACT,
                        "%s: keys are %s and values %s, this run has %s and %s (--cache-type)", file,
                        apr_type_name(h->k_type), apr_type_name(h->v_type), apr_type_name(want->k_type),
                        apr_type_name(want->v_type));
    if (h->n_layers != want->n_layers || h->n_heads_kv != want->n_heads_kv || h->k_dim != want->k_dim ||
        h->v_dim != want->v_dim || h->window != want->window)
        return apr_fail(e, APR_EFORMAT,
                        "%s: byte 24: found %u layers, %u heads of %u and %u values, window %u, expected %u, "
                        "%u, %u, %u, %u",
                        file, h->n_layers, h->n_heads_kv, h->k_dim, h->v_dim, h->window, want->n_layers,
                        want->n_heads_kv, want->k_dim, want->v_dim, want->window);
    return APR_OK;
}

/* Where the parts of a file of h begin. */
struct parts {
    uint64_t off_group[APR_CACHE_GROUPS];
    uint64_t n_bytes;
};

/* False where that does not fit 64 bits. */
static bool place_parts(const struct head *h, const struct apr_blocks *b, struct parts *p)
{
    const uint64_t first[APR_CACHE_GROUPS] = {[APR_CACHE_LOCAL] = h->first_local * APR_PAGE_POS};
    uint64_t off, n_group_bytes;
    bool ok = !ckd_mul(&off, h->n_toks, (uint64_t)sizeof(int32_t)) &&
              !ckd_add(&off, off, (uint64_t)(HEAD_BYTES + ALIGNMENT - 1));
    if (ok) off -= off % ALIGNMENT;
    for (unsigned g = 0; ok && g < APR_CACHE_GROUPS; g++) {
        p->off_group[g] = off;
        ok = !ckd_mul(&n_group_bytes, h->n_toks - first[g], (uint64_t)position_bytes(b, g)) &&
             !ckd_add(&off, off, n_group_bytes);
    }
    return ok && !ckd_add(&p->n_bytes, off, (uint64_t)SUM_BYTES);
}

static enum apr_code check_sizes(const char *file, const struct head *h, const struct apr_blocks *b,
                                 uint64_t n_bytes, struct parts *p, struct apr_err *e)
{
    if (h->first_local > h->n_toks / APR_PAGE_POS || (h->first_local && !h->window))
        return apr_fail(e, APR_EFORMAT,
                        "%s: byte 56: local layers begin at block %" PRIu64 " of %" PRIu64 " tokens", file,
                        h->first_local, h->n_toks);
    if (!place_parts(h, b, p))
        return apr_fail(e, APR_EFORMAT, "%s: byte 48: %" PRIu64 " tokens are more than a file can hold", file,
                        h->n_toks);
    if (n_bytes == p->n_bytes) return APR_OK;
    return apr_fail(e, APR_EFORMAT,
                    "%s: byte %" PRIu64 ": the file ends here, with %" PRIu64
                    " tokens it should have %" PRIu64 " bytes",
                    file, n_bytes, h->n_toks, p->n_bytes);
}

static enum apr_code check_sum(const char *file, const uint8_t *at, uint64_t n_bytes, struct apr_err *e)
{
    struct apr_rd rd;
    uint64_t found, sum = apr_xxh3_64(at, (size_t)(n_bytes - SUM_BYTES));
    apr_rd_mem(&rd, at + n_bytes - SUM_BYTES, SUM_BYTES, n_bytes - SUM_BYTES, file);
    TRY(apr_rd_u64(&rd, &found, "checksum", e));
    if (found == sum) return APR_OK;
    return apr_fail(e, APR_EFORMAT,
                    "%s: byte %" PRIu64 ": checksum %016" PRIx64 ", expected %016" PRIx64
                    ": the file is damaged",
                    file, n_bytes - SUM_BYTES, found, sum);
}

static enum apr_code read_file(struct apr_prompt_cache *p, const struct apr_blocks *b, struct apr_err *e)
{
    const char *file = apr_src_name(p->src);
    const struct head want = head_of(p, b);
    const uint8_t *at;
    struct head h = {0};
    struct parts parts = {0};
    struct apr_rd rd;
    if (!apr_src_seekable(p->src)) return apr_fail(e, APR_EUSAGE, "%s: not a regular file", file);
    uint64_t n_bytes = apr_src_size(p->src);
    TRY(apr_src_map(p->src, &at, e));
    apr_rd_mem(&rd, at, n_bytes, 0, file);
    TRY(read_head(&rd, &h, e));
    TRY(check_kind(file, &h, &want, e));
    TRY(check_sizes(file, &h, b, n_bytes, &parts, e));
    TRY(check_sum(file, at, n_bytes, e));
    p->ids = at + HEAD_BYTES;
    for (unsigned g = 0; g < APR_CACHE_GROUPS; g++) p->blocks[g] = at + parts.off_group[g];
    p->first_block[APR_CACHE_LOCAL] = (size_t)h.first_local;
    p->n_toks = (size_t)h.n_toks;
    p->is_long = h.flags & FLAG_LONG;
    return APR_OK;
}

enum apr_code apr_prompt_cache_open(struct apr_prompt_cache *p, const struct apr_model *m, bool exact,
                                    const struct apr_blocks *blocks, struct apr_err *e)
{
    *p = (struct apr_prompt_cache){
        .path = p->path, .all = p->all, .read_only = p->read_only, .model = apr_model_id(m), .exact = exact};
    if (!p->read_only && access(p->path, F_OK) != 0 && errno == ENOENT) return APR_OK;
    TRY(apr_src_open(&p->src, p->path, e));
    enum apr_code code = read_file(p, blocks, e);
    if (code != APR_OK) apr_prompt_cache_close(p);
    return code;
}

void apr_prompt_cache_close(struct apr_prompt_cache *p)
{
    apr_src_close(p->src);
    p->src = NULL;
    p->ids = NULL;
    p->n_toks = 0;
}

static int32_t id_at(const struct apr_prompt_cache *p, size_t i)
{
    int32_t id;
    memcpy(&id, p->ids + i * sizeof id, sizeof id);
    return id;
}

/* Where the rows of one head begin in the file, and how many of them block i_block has there. */
static const uint8_t *rows_at(const struct apr_prompt_cache *p, const struct apr_blocks *b, size_t i_block,
                              uint32_t i_layer, uint32_t i_head, size_t *n)
{
    const struct apr_layer_place *l = &b->layers[i_layer];
    size_t n_left = p->n_toks - i_block * APR_PAGE_POS, i_stored = i_block - p->first_block[l->group];
    *n = n_left < APR_PAGE_POS ? n_left : APR_PAGE_POS;
    return p->blocks[l->group] + i_stored * APR_PAGE_POS * position_bytes(b, l->group) +
           ((size_t)l->i_in_group * b->n_heads_kv + i_head) * *n * pair_bytes(b);
}

/* The first n positions of a block of the file into the cache's, as far as the file has it. */
static void restore_block(const struct apr_prompt_cache *p, struct apr_cache *c, size_t i_block, size_t n)
{
    const struct apr_blocks *b = c->blocks;
    const size_t k_bytes = b->row_bytes[APR_CACHE_K], v_bytes = b->row_bytes[APR_CACHE_V];
    for (uint32_t l = 0; l < b->n_layers; l++)
        for (uint32_t h = 0; h < b->n_heads_kv && i_block >= p->first_block[b->layers[l].group]; h++) {
            size_t n_stored;
            const uint8_t *rows = rows_at(p, b, i_block, l, h, &n_stored);
            memcpy(apr_cache_page(c, APR_CACHE_K, l, h, i_block), rows, n * k_bytes);
            if (v_bytes)
                memcpy(apr_cache_page(c, APR_CACHE_V, l, h, i_block), rows + n_stored * k_bytes, n * v_bytes);
        }
}

/* Local layers keep what a token at n_pos sees and APR_CACHE_SLACK positions before it. */
static bool has_all(const struct apr_prompt_cache *p, const struct apr_blocks *b, size_t n_pos)
{
    size_t first = apr_cache_first_seen(b, APR_CACHE_LOCAL, n_pos);
    return p->first_block[APR_CACHE_LOCAL] * APR_PAGE_POS <=
           (first > APR_CACHE_SLACK ? first - APR_CACHE_SLACK : 0);
}

/* The first n positions of the file. */
static enum apr_code restore(struct apr_prompt_cache *p, struct apr_cache *cache, size_t n, struct apr_err *e)
{
    p->n_reused = 0;
    if (!n || !has_all(p, cache->blocks, n)) return APR_OK;
    TRY(apr_cache_reserve(cache, n, e));
    for (size_t i = 0; i < n; i++) cache->ids[i] = id_at(p, i);
    for (size_t at = 0; at < n; at += APR_PAGE_POS)
        restore_block(p, cache, at / APR_PAGE_POS, n - at < APR_PAGE_POS ? n - at : APR_PAGE_POS);
    cache->n_pos = p->n_reused = n;
    cache->is_long = p->is_long;
    return apr_cache_reserve(cache, n, e); /* blocks that local layers do not see any more go */
}

enum apr_code apr_prompt_cache_restore(struct apr_prompt_cache *p, struct apr_cache *cache,
                                       const int32_t *ids, size_t n, struct apr_err *e)
{
    size_t n_common = 0;
    while (n_common < p->n_toks && n_common + 1 < n && id_at(p, n_common) == ids[n_common]) n_common++;
    return restore(p, cache, n_common, e);
}

enum apr_code apr_prompt_cache_restore_all(struct apr_prompt_cache *p, struct apr_cache *cache,
                                           uint32_t n_vocab, struct apr_err *e)
{
    for (size_t i = 0; i < p->n_toks; i++)
        if (id_at(p, i) < 0 || (uint32_t)id_at(p, i) >= n_vocab)
            return apr_fail(e, APR_EFORMAT,
                            "%s: byte %zu: token %zu has id %" PRId32 ", the model has %" PRIu32, p->path,
                            HEAD_BYTES + i * sizeof(int32_t), i, id_at(p, i), n_vocab);
    return restore(p, cache, p->n_toks < cache->n_max ? p->n_toks : cache->n_max, e);
}

/* ---- writing */

static void put(struct apr_sink *s, struct apr_xxh3 *sum, const void *at, size_t n_bytes)
{
    apr_sink_write(s, at, n_bytes);
    apr_xxh3_add(sum, at, n_bytes);
}

static void put_uint(struct apr_sink *s, struct apr_xxh3 *sum, uint64_t v, size_t n_bytes)
{
    uint8_t bytes[sizeof v];
    for (size_t i = 0; i < n_bytes; i++) bytes[i] = (uint8_t)(v >> 8 * i);
    put(s, sum, bytes, n_bytes);
}

static void put_head(struct apr_sink *s, struct apr_xxh3 *sum, const struct head *h)
{
    const uint32_t fields[] = {h->k_type, h->v_type, h->n_layers, h->n_heads_kv,
                               h->k_dim,  h->v_dim,  h->flags,    h->window};
    put(s, sum, MAGIC, MAGIC_BYTES);
    put_uint(s, sum, h->model, 8);
    for (size_t i = 0; i < sizeof fields / sizeof *fields; i++) put_uint(s, sum, fields[i], 4);
    put_uint(s, sum, h->n_toks, 8);
    put_uint(s, sum, h->first_local, 8);
}

static void put_group(struct apr_sink *s, struct apr_xxh3 *sum, const struct apr_cache *c, unsigned group)
{
    const struct apr_blocks *b = c->blocks;
    if (!b->groups[group].n_layers) return;
    for (size_t at = c->first_block[group] * APR_PAGE_POS; at < c->n_pos; at += APR_PAGE_POS) {
        size_t n = c->n_pos - at < APR_PAGE_POS ? c->n_pos - at : APR_PAGE_POS, i = at / APR_PAGE_POS;
        for (uint32_t l = 0; l < b->n_layers; l++)
            for (uint32_t h = 0; h < b->n_heads_kv && b->layers[l].group == group; h++) {
                put(s, sum, apr_cache_page(c, APR_CACHE_K, l, h, i), n * b->row_bytes[APR_CACHE_K]);
                if (b->v_dim)
                    put(s, sum, apr_cache_page(c, APR_CACHE_V, l, h, i), n * b->row_bytes[APR_CACHE_V]);
            }
    }
}

/* The file begins with all that the cache holds. */
static bool is_saved(const struct apr_prompt_cache *p, const struct apr_cache *c)
{
    if (!p->src || c->n_pos > p->n_toks || p->is_long != c->is_long) return false;
    for (size_t i = 0; i < c->n_pos; i++)
        if (id_at(p, i) != c->ids[i]) return false;
    return has_all(p, c->blocks, c->n_pos);
}

static enum apr_code write_file(struct apr_sink *s, const struct head *h, const struct parts *parts,
                                const struct apr_cache *c, struct apr_err *e)
{
    static const uint8_t zeros[ALIGNMENT];
    size_t n_ids_bytes = c->n_pos * sizeof *c->ids;
    TRY(apr_sink_need(s, parts->n_bytes, e));
    struct apr_xxh3 *sum = apr_xxh3_begin();
    put_head(s, sum, h);
    put(s, sum, c->ids, n_ids_bytes);
    put(s, sum, zeros, (size_t)parts->off_group[0] - HEAD_BYTES - n_ids_bytes);
    for (unsigned g = 0; g < APR_CACHE_GROUPS; g++) put_group(s, sum, c, g);
    uint64_t v = apr_xxh3_end(sum);
    apr_sink_write(s, &v, sizeof v);
    return APR_OK;
}

enum apr_code apr_prompt_cache_save(const struct apr_prompt_cache *p, const struct apr_cache *c,
                                    struct apr_err *e)
{
    struct head h = head_of(p, c->blocks);
    struct parts parts;
    struct apr_sink *s;
    if (p->read_only || c->is_lost || is_saved(p, c)) return APR_OK;
    if (c->is_long) h.flags |= FLAG_LONG;
    h.n_toks = c->n_pos;
    h.first_local = c->first_block[APR_CACHE_LOCAL];
    if (!place_parts(&h, c->blocks, &parts))
        return apr_fail(e, APR_EIO, "%s: %zu tokens are more than a file can hold", p->path, c->n_pos);
    TRY(apr_sink_open(&s, p->path, true, e));
    enum apr_code code = write_file(s, &h, &parts, c, e);
    if (code != APR_OK) {
        apr_sink_abort(s);
        return code;
    }
    TRY(apr_sink_finish(s, e));
    apr_verbose("%s: %zu tokens saved", p->path, c->n_pos);
    return APR_OK;
}
