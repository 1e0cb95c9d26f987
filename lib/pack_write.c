/* Writer of compressed streams. See pack.h. */
#include <lz4.h>
#include <string.h>
#include <strings.h>
#include <zstd.h>

#include "arena.h"
#include "buf.h"
#include "hash.h"
#include "pack_form.h"

#define MAX_BATCH     8u /* blocks at a time; bounds the memory */
#define MAX_BATCH_MAX 2u /* of level 19, whose state is large */
#define LEVEL         3
#define LEVEL_MAX     19

struct block {
    uint8_t *out;
    size_t n_out; /* 0: failed */
};

struct apr_packer {
    struct apr_arena arena; /* owns this struct and the buffers */
    enum apr_pack kind;
    struct apr_pool *pool;
    apr_pack_put_fn *put;
    void *ctx;
    uint8_t *in; /* [n_batch][APR_PACK_BLOCK_BYTES] */
    size_t n_in, n_batch, cap_out;
    struct block *blocks; /* [n_batch] */
    ZSTD_CCtx **zstd;     /* [n_threads], made when first needed */
    bool begun;
    struct apr_buf table; /* zstd: u32 compressed, u32 content of each frame */
};

static const struct {
    const char *name;
    enum apr_pack kind;
} names[] = {
    {"none", APR_PACK_NONE}, {"lz4", APR_PACK_LZ4}, {"zstd", APR_PACK_ZSTD}, {"zstd-max", APR_PACK_ZSTD_MAX}};

bool apr_pack_named(const char *name, enum apr_pack *kind)
{
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        if (strcasecmp(names[i].name, name) != 0) continue;
        *kind = names[i].kind;
        return true;
    }
    return false;
}

static void set_u32(uint8_t *at, uint32_t v)
{
    for (unsigned i = 0; i < 4; i++) at[i] = (uint8_t)(v >> 8 * i);
}

static size_t block_bound(enum apr_pack kind, size_t n)
{
    return kind == APR_PACK_LZ4 ? n + 2 * APR_LZ4_WORD : ZSTD_compressBound(n) + APR_SEEK_ENTRY;
}

uint64_t apr_pack_bound(enum apr_pack kind, uint64_t n)
{
    size_t n_last = (size_t)(n % APR_PACK_BLOCK_BYTES), n_ends = APR_LZ4_HEAD + 8 + APR_SEEK_FOOT;
    if (kind == APR_PACK_NONE) return n;
    return n / APR_PACK_BLOCK_BYTES * block_bound(kind, APR_PACK_BLOCK_BYTES) +
           (n_last ? block_bound(kind, n_last) : 0) + n_ends;
}

struct apr_packer *apr_packer_open(enum apr_pack kind, struct apr_pool *pool, apr_pack_put_fn *put, void *ctx)
{
    struct apr_arena arena;
    unsigned n_threads = apr_pool_threads(pool), max = kind == APR_PACK_ZSTD_MAX ? MAX_BATCH_MAX : MAX_BATCH;
    apr_arena_init(&arena);
    struct apr_packer *p = apr_arena_get(&arena, sizeof *p);
    *p = (struct apr_packer){.kind = kind, .pool = pool, .put = put, .ctx = ctx};
    p->n_batch = n_threads < max ? n_threads : max;
    p->cap_out = kind == APR_PACK_LZ4
                     ? (size_t)LZ4_compressBound((int)APR_PACK_BLOCK_BYTES) + 2 * APR_LZ4_WORD
                     : ZSTD_compressBound(APR_PACK_BLOCK_BYTES);
    p->in = apr_arena_get(&arena, p->n_batch * APR_PACK_BLOCK_BYTES);
    p->blocks = apr_arena_get(&arena, p->n_batch * sizeof *p->blocks);
    for (size_t i = 0; i < p->n_batch; i++) p->blocks[i].out = apr_arena_get(&arena, p->cap_out);
    p->zstd = apr_arena_get(&arena, n_threads * sizeof(void *));
    apr_buf_init(&p->table, UINT32_MAX);
    p->arena = arena;
    return p;
}

void apr_packer_close(struct apr_packer *p)
{
    if (!p) return;
    for (unsigned i = 0; i < apr_pool_threads(p->pool); i++) ZSTD_freeCCtx(p->zstd[i]);
    apr_buf_free(&p->table);
    struct apr_arena arena = p->arena;
    apr_arena_free(&arena);
}

/* Word with the size, data, checksum of the data as stored. Data that does not shrink is stored plain. */
static size_t pack_lz4(const uint8_t *in, size_t n, uint8_t *out, size_t cap)
{
    int n_packed = LZ4_compress_default((const char *)in, (char *)out + APR_LZ4_WORD, (int)n,
                                        (int)(cap - 2 * APR_LZ4_WORD));
    size_t n_data = n_packed > 0 && (size_t)n_packed < n ? (size_t)n_packed : n;
    if (n_data == n) memcpy(out + APR_LZ4_WORD, in, n);
    set_u32(out, (uint32_t)n_data | (n_data == n ? APR_LZ4_PLAIN : 0));
    set_u32(out + APR_LZ4_WORD + n_data, apr_xxh32(out + APR_LZ4_WORD, n_data));
    return n_data + 2 * APR_LZ4_WORD;
}

static size_t pack_zstd(struct apr_packer *p, unsigned i_thread, const uint8_t *in, size_t n, uint8_t *out)
{
    if (!p->zstd[i_thread]) {
        ZSTD_CCtx *c = p->zstd[i_thread] = ZSTD_createCCtx();
        int level = p->kind == APR_PACK_ZSTD_MAX ? LEVEL_MAX : LEVEL;
        if (!c || ZSTD_isError(ZSTD_CCtx_setParameter(c, ZSTD_c_compressionLevel, level)) ||
            ZSTD_isError(ZSTD_CCtx_setParameter(c, ZSTD_c_checksumFlag, 1)))
            return 0;
    }
    size_t n_out = ZSTD_compress2(p->zstd[i_thread], out, p->cap_out, in, n);
    return ZSTD_isError(n_out) ? 0 : n_out;
}

static size_t block_bytes(const struct apr_packer *p, size_t i)
{
    size_t at = i * APR_PACK_BLOCK_BYTES, left = p->n_in - at;
    return left < APR_PACK_BLOCK_BYTES ? left : APR_PACK_BLOCK_BYTES;
}

static void pack_task(void *ctx, size_t i_begin, size_t i_end, unsigned i_thread)
{
    struct apr_packer *p = ctx;
    for (size_t i = i_begin; i < i_end; i++) {
        const uint8_t *in = p->in + i * APR_PACK_BLOCK_BYTES;
        struct block *b = &p->blocks[i];
        b->n_out = p->kind == APR_PACK_LZ4 ? pack_lz4(in, block_bytes(p, i), b->out, p->cap_out)
                                           : pack_zstd(p, i_thread, in, block_bytes(p, i), b->out);
    }
}

/* Magic, flags (version 1, independent blocks, checksum of each), largest block, checksum of both bytes. */
static void begin(struct apr_packer *p)
{
    uint8_t head[APR_LZ4_HEAD] = {0, 0, 0, 0, APR_LZ4_FLAGS, APR_LZ4_BLOCK_4MIB, 0};
    if (p->begun || p->kind != APR_PACK_LZ4) return;
    p->begun = true;
    set_u32(head, APR_LZ4_MAGIC);
    head[6] = (uint8_t)(apr_xxh32(head + 4, 2) >> 8);
    p->put(p->ctx, head, sizeof head);
}

static enum apr_code flush(struct apr_packer *p, struct apr_err *e)
{
    size_t n = (p->n_in + APR_PACK_BLOCK_BYTES - 1) / APR_PACK_BLOCK_BYTES;
    begin(p);
    if (n == 0) return APR_OK;
    apr_parallel_for(p->pool, n, 1, pack_task, p);
    for (size_t i = 0; i < n; i++) {
        uint8_t row[APR_SEEK_ENTRY];
        if (p->blocks[i].n_out == 0) return apr_fail(e, APR_ELOAD, "compression: no memory");
        p->put(p->ctx, p->blocks[i].out, p->blocks[i].n_out);
        set_u32(row, (uint32_t)p->blocks[i].n_out);
        set_u32(row + 4, (uint32_t)block_bytes(p, i));
        if (p->kind != APR_PACK_LZ4) TRY(apr_buf_append(&p->table, row, sizeof row, e));
    }
    p->n_in = 0;
    return APR_OK;
}

enum apr_code apr_packer_add(struct apr_packer *p, const void *data, size_t n, struct apr_err *e)
{
    const uint8_t *at = data;
    while (n) {
        size_t room = p->n_batch * APR_PACK_BLOCK_BYTES - p->n_in, n_now = n < room ? n : room;
        memcpy(p->in + p->n_in, at, n_now);
        p->n_in += n_now;
        at += n_now;
        n -= n_now;
        if (n_now == room) TRY(flush(p, e));
    }
    return APR_OK;
}

enum apr_code apr_packer_end(struct apr_packer *p, struct apr_err *e)
{
    uint8_t word[8 + APR_SEEK_FOOT] = {0};
    TRY(flush(p, e));
    if (p->kind == APR_PACK_LZ4) {
        p->put(p->ctx, word, APR_LZ4_WORD); /* end mark */
        return APR_OK;
    }
    set_u32(word, APR_SEEK_SKIPPABLE);
    set_u32(word + 4, (uint32_t)(p->table.n_bytes + APR_SEEK_FOOT));
    p->put(p->ctx, word, 8);
    p->put(p->ctx, p->table.data, p->table.n_bytes);
    set_u32(word, (uint32_t)(p->table.n_bytes / APR_SEEK_ENTRY));
    word[4] = 0; /* entries without checksums: the frames have their own */
    set_u32(word + 5, APR_SEEK_MAGIC);
    p->put(p->ctx, word, APR_SEEK_FOOT);
    return APR_OK;
}
