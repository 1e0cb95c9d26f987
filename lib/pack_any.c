/* Reader of compressed streams at any place. See pack.h.
 *
 * Where a table of independent blocks can be had without decoding (the seekable format's, the sizes between
 * the blocks of an LZ4 frame), blocks are decoded as they are needed. Otherwise the content is decoded in
 * sequence into memory, as far as somebody asked.
 */
#include <inttypes.h>
#include <lz4.h>
#include <lz4frame.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <zstd.h>

#include "arena.h"
#include "ckd.h"
#include "hash.h"
#include "pack_form.h"

#define MAX_BLOCK_BYTES ((uint32_t)64 << 20) /* content of one block that is decoded as a whole */
#define MAX_BLOCKS      (1u << 24)
#define IMAGE_STEP      ((size_t)4 << 20)

struct block {
    uint64_t off, off_content; /* in the file; in the content */
    uint32_t n_packed, n_content;
    bool plain; /* LZ4: stored as it is */
};

struct apr_packed {
    struct apr_arena arena; /* owns this struct, the table, the buffers */
    struct apr_pack_in in;
    uint64_t n_content; /* UINT64_MAX: not known */
    bool has_sums;      /* LZ4: a checksum behind each block */
    struct block *blocks;
    size_t n_blocks;
    uint32_t n_packed_max, n_content_max;
    struct apr_pool *pool;  /* owned; made when several blocks are wanted at once */
    uint8_t *scratch;       /* [threads][n_packed_max + word] */
    uint8_t *cached;        /* content of block i_cached */
    size_t i_cached;        /* SIZE_MAX: none */
    struct apr_unpacker *u; /* owned; no table: decodes into image */
    uint64_t off_u;         /* of the next compressed byte that u takes */
    uint8_t *image;         /* mapped */
    size_t n_image, cap_image;
};

static uint32_t get_u32(const uint8_t *p)
{
    return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

static void add_block(struct apr_packed *z, size_t i, uint64_t *at, uint32_t n_packed, uint32_t n_content)
{
    struct block *b = &z->blocks[i];
    *b =
        (struct block){.off = *at, .off_content = z->n_content, .n_packed = n_packed, .n_content = n_content};
    *at += n_packed;
    z->n_content += n_content;
    if (n_packed > z->n_packed_max) z->n_packed_max = n_packed;
    if (n_content > z->n_content_max) z->n_content_max = n_content;
}

static void no_table(struct apr_packed *z)
{
    z->blocks = NULL;
    z->n_blocks = 0;
    z->n_content = UINT64_MAX;
    z->n_packed_max = z->n_content_max = 0;
}

/* ---- zstd --------------------------------------------------------------------------------------------- */

static enum apr_code read_entries(struct apr_packed *z, const uint8_t *rows, uint32_t n, size_t n_row,
                                  uint64_t n_frames, struct apr_err *e)
{
    uint64_t at = z->in.off, end = z->in.off + n_frames;
    z->n_content = 0;
    for (uint32_t i = 0; i < n; i++) {
        uint32_t n_packed = get_u32(rows + i * n_row), n_content = get_u32(rows + i * n_row + 4);
        if (n_packed == 0 || n_packed > end - at || n_content == 0 || n_content > MAX_BLOCK_BYTES)
            return apr_fail(e, APR_EFORMAT,
                            "%s: seek table, entry %" PRIu32 ": a frame of %" PRIu32 " bytes for %" PRIu32
                            ", expected 1 to %u within the file",
                            z->in.file, i, n_packed, n_content, MAX_BLOCK_BYTES);
        add_block(z, i, &at, n_packed, n_content);
    }
    if (at == end) return APR_OK;
    return apr_fail(e, APR_EFORMAT, "%s: byte %" PRIu64 ": %" PRIu64 " bytes that the seek table leaves out",
                    z->in.file, at, end - at);
}

/* The skippable frame at the end, when there is one. */
static enum apr_code find_seek_table(struct apr_packed *z, struct apr_err *e)
{
    uint8_t foot[APR_SEEK_FOOT], head[8], *rows;
    uint64_t end = z->in.off + z->in.n_bytes, n_table;
    if (z->in.n_bytes < APR_SEEK_FOOT + sizeof head) return APR_OK;
    TRY(z->in.at(z->in.ctx, end - sizeof foot, foot, sizeof foot, e));
    if (get_u32(foot + 5) != APR_SEEK_MAGIC || (foot[4] & 0x7c)) return APR_OK;
    uint32_t n = get_u32(foot);
    size_t n_row = foot[4] & 0x80 ? 12 : APR_SEEK_ENTRY;
    n_table = (uint64_t)n * n_row + APR_SEEK_FOOT;
    if (n > MAX_BLOCKS || n_table + sizeof head > z->in.n_bytes)
        return apr_fail(e, APR_EFORMAT, "%s: byte %" PRIu64 ": a seek table of %" PRIu32 " frames",
                        z->in.file, end - sizeof foot, n);
    TRY(z->in.at(z->in.ctx, end - n_table - sizeof head, head, sizeof head, e));
    if (get_u32(head) != APR_SEEK_SKIPPABLE || get_u32(head + 4) != n_table)
        return apr_fail(e, APR_EFORMAT, "%s: byte %" PRIu64 ": the seek table does not begin as it ends",
                        z->in.file, end - n_table - sizeof head);
    TRY(apr_arena_try(&z->arena, &rows, (size_t)n_table, 1, "the seek table", e));
    TRY(z->in.at(z->in.ctx, end - n_table, rows, (size_t)n_table, e));
    TRY(apr_arena_try(&z->arena, &z->blocks, (size_t)n + 1, sizeof *z->blocks, "the seek table", e));
    z->n_blocks = n;
    return read_entries(z, rows, n, n_row, z->in.n_bytes - n_table - sizeof head, e);
}

/* ---- LZ4 ---------------------------------------------------------------------------------------------- */

static enum apr_code decode(const struct apr_packed *z, const struct block *b, uint8_t *packed, uint8_t *dst,
                            size_t *n_dst, struct apr_err *e);

/* Sizes of the blocks, from word to word. In the first pass they are counted, in the second stored. */
static enum apr_code walk_lz4(struct apr_packed *z, uint64_t off, uint32_t n_max, bool *whole,
                              struct apr_err *e)
{
    uint64_t at = off, end = z->in.off + z->in.n_bytes;
    size_t n = 0;
    *whole = false;
    z->n_content = 0;
    for (;;) {
        uint8_t word[APR_LZ4_WORD];
        if (end - at < sizeof word)
            return apr_fail(e, APR_EFORMAT, "%s: ends at byte %" PRIu64 " inside the LZ4 frame", z->in.file,
                            end);
        TRY(z->in.at(z->in.ctx, at, word, sizeof word, e));
        at += sizeof word;
        uint32_t w = get_u32(word), n_packed = w & ~APR_LZ4_PLAIN;
        uint64_t n_sum = z->has_sums ? APR_LZ4_WORD : 0;
        if (w == 0) break;
        if (n_packed > n_max || n_packed + n_sum > end - at || n >= MAX_BLOCKS)
            return apr_fail(e, APR_EFORMAT,
                            "%s: byte %" PRIu64 ": an LZ4 block of %" PRIu32
                            " bytes, expected at most %" PRIu32 " within the file",
                            z->in.file, at - sizeof word, n_packed, n_max);
        if (z->blocks) {
            uint64_t begin = at;
            add_block(z, n, &begin, n_packed, n_max);
            z->blocks[n].plain = (w & APR_LZ4_PLAIN) != 0;
        }
        at += n_packed + n_sum;
        n++;
    }
    z->n_blocks = n;
    *whole = at == end; /* else another frame or a checksum of the content follows: in sequence */
    return APR_OK;
}

/* Only the last block may be short; how short, decoding tells. */
static enum apr_code size_last(struct apr_packed *z, uint32_t n_max, struct apr_err *e)
{
    struct apr_arena a;
    uint8_t *packed, *dst;
    size_t n = n_max;
    if (z->n_blocks == 0) return APR_OK;
    struct block *last = &z->blocks[z->n_blocks - 1];
    apr_arena_init(&a);
    enum apr_code code = apr_arena_try(&a, &packed, (size_t)n_max + APR_LZ4_WORD, 1, "an LZ4 block", e);
    if (code == APR_OK) code = apr_arena_try(&a, &dst, n_max, 1, "an LZ4 block", e);
    if (code == APR_OK) code = decode(z, last, packed, dst, &n, e);
    apr_arena_free(&a);
    TRY(code);
    z->n_content -= last->n_content - n;
    last->n_content = (uint32_t)n;
    return APR_OK;
}

static enum apr_code find_lz4_blocks(struct apr_packed *z, struct apr_err *e)
{
    static const uint32_t sizes[] = {0, 0, 0, 0, 64u << 10, 256u << 10, 1u << 20, 4u << 20};
    uint8_t head[LZ4F_HEADER_SIZE_MAX];
    size_t n = z->in.n_bytes < sizeof head ? (size_t)z->in.n_bytes : sizeof head;
    LZ4F_frameInfo_t info = {0};
    LZ4F_dctx *d;
    bool whole;
    if (n < APR_LZ4_HEAD) return APR_OK;
    TRY(z->in.at(z->in.ctx, z->in.off, head, n, e));
    if (LZ4F_isError(LZ4F_createDecompressionContext(&d, LZ4F_VERSION)))
        return apr_fail(e, APR_ELOAD, "%s: no memory to decompress", z->in.file);
    bool ok = !LZ4F_isError(LZ4F_getFrameInfo(d, &info, head, &n));
    LZ4F_freeDecompressionContext(d);
    if (!ok || info.frameType != LZ4F_frame || info.blockMode != LZ4F_blockIndependent || info.dictID ||
        info.contentChecksumFlag || (unsigned)info.blockSizeID > 7)
        return APR_OK;
    uint32_t n_max = sizes[info.blockSizeID];
    z->has_sums = info.blockChecksumFlag == LZ4F_blockChecksumEnabled;
    TRY(walk_lz4(z, z->in.off + n, n_max, &whole, e));
    if (!whole || n_max == 0) {
        no_table(z);
        return APR_OK;
    }
    TRY(apr_arena_try(&z->arena, &z->blocks, z->n_blocks + 1, sizeof *z->blocks, "the table of blocks", e));
    TRY(walk_lz4(z, z->in.off + n, n_max, &whole, e));
    return size_last(z, n_max, e);
}

/* ---- blocks ------------------------------------------------------------------------------------------- */

static enum apr_code broken(const struct apr_packed *z, const struct block *b, const char *why,
                            struct apr_err *e)
{
    return apr_fail(e, APR_EFORMAT, "%s: byte %" PRIu64 ": a compressed block: %s: the file is damaged",
                    z->in.file, b->off, why);
}

/* *n_dst: room; then what came. */
static enum apr_code decode(const struct apr_packed *z, const struct block *b, uint8_t *packed, uint8_t *dst,
                            size_t *n_dst, struct apr_err *e)
{
    size_t n_sum = z->has_sums ? APR_LZ4_WORD : 0;
    TRY(z->in.at(z->in.ctx, b->off, packed, b->n_packed + n_sum, e));
    if (z->in.kind != APR_PACK_LZ4) {
        size_t n = ZSTD_decompress(dst, *n_dst, packed, b->n_packed);
        if (ZSTD_isError(n)) return broken(z, b, ZSTD_getErrorName(n), e);
        *n_dst = n;
        return APR_OK;
    }
    if (n_sum && get_u32(packed + b->n_packed) != apr_xxh32(packed, b->n_packed))
        return broken(z, b, "its checksum is wrong", e);
    if (b->plain) {
        if (b->n_packed > *n_dst) return broken(z, b, "it is too long", e);
        memcpy(dst, packed, b->n_packed);
        *n_dst = b->n_packed;
        return APR_OK;
    }
    int n = LZ4_decompress_safe((const char *)packed, (char *)dst, (int)b->n_packed, (int)*n_dst);
    if (n < 0) return broken(z, b, "it is no LZ4 data", e);
    *n_dst = (size_t)n;
    return APR_OK;
}

static enum apr_code decode_whole(const struct apr_packed *z, const struct block *b, uint8_t *packed,
                                  uint8_t *dst, struct apr_err *e)
{
    size_t n = b->n_content;
    TRY(decode(z, b, packed, dst, &n, e));
    return n == b->n_content ? APR_OK : broken(z, b, "it holds another number of bytes than expected", e);
}

struct range {
    struct apr_packed *z;
    size_t i_first;
    uint8_t *dst;         /* of the first block */
    struct apr_err *errs; /* [threads] */
    size_t *i_failed;     /* [threads]: the first that failed, SIZE_MAX: none */
};

static uint8_t *packed_of(const struct apr_packed *z, unsigned i_thread)
{
    return z->scratch + (size_t)i_thread * ((size_t)z->n_packed_max + APR_LZ4_WORD);
}

static void decode_task(void *ctx, size_t i_begin, size_t i_end, unsigned i_thread)
{
    struct range *r = ctx;
    for (size_t i = i_begin; i < i_end; i++) {
        const struct block *b = &r->z->blocks[r->i_first + i];
        struct apr_err e;
        uint8_t *dst = r->dst + (b->off_content - r->z->blocks[r->i_first].off_content);
        enum apr_code code = decode_whole(r->z, b, packed_of(r->z, i_thread), dst, &e);
        if (code == APR_OK || r->i_failed[i_thread] < i) continue;
        r->i_failed[i_thread] = i;
        r->errs[i_thread] = e;
    }
}

static enum apr_code make_scratch(struct apr_packed *z, struct apr_err *e)
{
    if (z->scratch) return APR_OK;
    z->pool = apr_pool_open(z->n_blocks > 1 ? 0 : 1);
    TRY(apr_arena_try(&z->arena, &z->cached, (size_t)z->n_content_max + 1, 1, "a compressed block", e));
    return apr_arena_try(&z->arena, &z->scratch, apr_pool_threads(z->pool),
                         (size_t)z->n_packed_max + APR_LZ4_WORD, "compressed blocks", e);
}

/* n whole blocks; the error of the first one that is broken, whichever thread met it. */
static enum apr_code decode_range(struct apr_packed *z, size_t i_first, size_t n, uint8_t *dst,
                                  struct apr_err *e)
{
    struct apr_arena a;
    struct range r = {.z = z, .i_first = i_first, .dst = dst};
    unsigned n_threads = apr_pool_threads(z->pool);
    size_t i_worst = SIZE_MAX;
    apr_arena_init(&a);
    r.errs = apr_arena_get(&a, n_threads * sizeof *r.errs);
    r.i_failed = apr_arena_get(&a, n_threads * sizeof *r.i_failed);
    memset(r.i_failed, 0xff, n_threads * sizeof *r.i_failed);
    apr_parallel_for(z->pool, n, 1, decode_task, &r);
    for (unsigned t = 0; t < n_threads; t++)
        if (r.i_failed[t] < i_worst) {
            i_worst = r.i_failed[t];
            *e = r.errs[t];
        }
    apr_arena_free(&a);
    return i_worst == SIZE_MAX ? APR_OK : e->code;
}

static size_t block_of(const struct apr_packed *z, uint64_t off)
{
    size_t lo = 0, hi = z->n_blocks;
    while (hi - lo > 1) {
        size_t mid = lo + (hi - lo) / 2;
        if (z->blocks[mid].off_content <= off)
            lo = mid;
        else
            hi = mid;
    }
    return lo;
}

static enum apr_code read_blocks(struct apr_packed *z, uint64_t off, uint8_t *dst, size_t n,
                                 struct apr_err *e)
{
    TRY(make_scratch(z, e));
    while (n) {
        size_t i = block_of(z, off), n_whole = 0;
        uint64_t within = off - z->blocks[i].off_content, n_bytes = 0;
        while (within == 0 && i + n_whole < z->n_blocks && z->blocks[i + n_whole].n_content <= n - n_bytes)
            n_bytes += z->blocks[i + n_whole++].n_content;
        if (n_whole) {
            TRY(decode_range(z, i, n_whole, dst, e));
        } else {
            if (z->i_cached != i) {
                z->i_cached = SIZE_MAX;
                TRY(decode_whole(z, &z->blocks[i], packed_of(z, 0), z->cached, e));
                z->i_cached = i;
            }
            n_bytes = z->blocks[i].n_content - within;
            if (n_bytes > n) n_bytes = n;
            memcpy(dst, z->cached + within, (size_t)n_bytes);
        }
        dst += n_bytes;
        off += n_bytes;
        n -= (size_t)n_bytes;
    }
    return APR_OK;
}

/* ---- in sequence -------------------------------------------------------------------------------------- */

static enum apr_code next_packed(void *ctx, void *dst, size_t n, size_t *n_got, struct apr_err *e)
{
    struct apr_packed *z = ctx;
    uint64_t left = z->in.off + z->in.n_bytes - z->off_u;
    *n_got = left < n ? (size_t)left : n;
    if (*n_got == 0) return APR_OK;
    TRY(z->in.at(z->in.ctx, z->off_u, dst, *n_got, e));
    z->off_u += *n_got;
    return APR_OK;
}

static enum apr_code grow_image(struct apr_packed *z, size_t n, struct apr_err *e)
{
    if (n <= z->cap_image) return APR_OK;
    size_t cap = 2 * z->cap_image > n ? 2 * z->cap_image : n;
    void *p = z->image ? mremap(z->image, z->cap_image, cap, MREMAP_MAYMOVE)
                       : mmap(NULL, cap, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
                              -1, 0);
    if (p == MAP_FAILED)
        return apr_fail(e, APR_ELOAD, "%s: no memory for %zu bytes of content", z->in.file, cap);
    z->image = p;
    z->cap_image = cap;
    return APR_OK;
}

/* The content up to n, or to its end. */
static enum apr_code decode_to(struct apr_packed *z, uint64_t n, struct apr_err *e)
{
    while (z->n_image < n) {
        size_t n_step = n - z->n_image < IMAGE_STEP ? (size_t)(n - z->n_image) : IMAGE_STEP, n_got;
        TRY(grow_image(z, z->n_image + n_step, e));
        TRY(apr_unpacker_read(z->u, z->image + z->n_image, n_step, &n_got, e));
        if (n_got == 0) break;
        z->n_image += n_got;
    }
    return APR_OK;
}

/* ---- externals ---------------------------------------------------------------------------------------- */

enum apr_code apr_packed_open(struct apr_packed **out, const struct apr_pack_in *in, struct apr_err *e)
{
    struct apr_arena arena;
    apr_arena_init(&arena);
    struct apr_packed *z = apr_arena_get(&arena, sizeof *z);
    *z = (struct apr_packed){.in = *in, .n_content = UINT64_MAX, .i_cached = SIZE_MAX, .off_u = in->off};
    z->arena = arena;
    *out = z;
    enum apr_code code = in->kind == APR_PACK_LZ4 ? find_lz4_blocks(z, e) : find_seek_table(z, e);
    if (code == APR_OK && !z->blocks) z->u = apr_unpacker_open(in->kind, in->file, next_packed, z);
    if (code == APR_OK) return APR_OK;
    apr_packed_close(z);
    *out = NULL;
    return code;
}

void apr_packed_close(struct apr_packed *z)
{
    if (!z) return;
    if (z->pool) apr_pool_close(z->pool);
    apr_unpacker_close(z->u);
    if (z->image) munmap(z->image, z->cap_image);
    struct apr_arena arena = z->arena;
    apr_arena_free(&arena);
}

uint64_t apr_packed_size(const struct apr_packed *z)
{
    return z->n_content;
}

enum apr_code apr_packed_bound(struct apr_packed *z, uint64_t n_max, struct apr_err *e)
{
    if (z->u) {
        TRY(decode_to(z, n_max + 1, e));
        z->n_content = z->n_image;
    }
    if (z->n_content <= n_max) return APR_OK;
    return apr_fail(e, APR_EFORMAT,
                    "%s: the compressed data holds more than the %" PRIu64 " bytes that its index justifies",
                    z->in.file, n_max);
}

enum apr_code apr_packed_read(struct apr_packed *z, uint64_t off, void *dst, size_t n, const char *what,
                              struct apr_err *e)
{
    uint64_t end, size = z->n_content;
    if (ckd_add(&end, off, (uint64_t)n) || (size != UINT64_MAX && end > size))
        return apr_fail(e, APR_EFORMAT, "%s: %s needs content up to byte %" PRIu64 ", it ends at %" PRIu64,
                        z->in.file, what, off + n, size);
    if (n == 0) return APR_OK;
    if (z->blocks) return read_blocks(z, off, dst, n, e);
    TRY(decode_to(z, end, e));
    if (z->n_image < end)
        return apr_fail(e, APR_EFORMAT, "%s: %s needs content up to byte %" PRIu64 ", it ends at %zu",
                        z->in.file, what, end, z->n_image);
    memcpy(dst, z->image + off, n);
    return APR_OK;
}
