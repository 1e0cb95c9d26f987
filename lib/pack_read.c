/* Reader of compressed streams in sequence. See pack.h. */
#include <inttypes.h>
#include <lz4.h>
#include <lz4frame.h>
#include <string.h>
#include <zstd.h>

#include "arena.h"
#include "buf.h"
#include "hash.h"
#include "pack_form.h"

#define ZSTD_HEADER_BYTES ((size_t)18)
#define IN_BYTES          ((size_t)256 << 10)
#define BLOB_STEP         ((size_t)1 << 20)
#define MIN_LZ4_HEAD      7u
#define HELD_BYTES        ((uint64_t)64 << 20) /* a zstd frame with less content is held until it is checked */

enum form { UNKNOWN, ZSTD, LZ4_FRAME, LZ4_BLOCKS, LZ4_BLOB };

struct apr_unpacker {
    struct apr_arena arena; /* owns this struct and in */
    enum apr_pack kind;
    enum form form;
    const char *file;
    apr_pack_get_fn *get;
    void *ctx;
    uint8_t *in; /* [IN_BYTES] */
    size_t i_in, n_in;
    uint64_t n_taken;         /* compressed bytes before in[i_in] */
    bool in_ended;            /* get has told the end */
    bool between;             /* no frame is open: the stream may end here */
    ZSTD_DCtx *zstd;          /* owned */
    LZ4F_dctx *lz4;           /* owned */
    struct apr_buf raw, blob; /* LZ4_BLOB: the block as stored; the content as far as it was needed */
    uint32_t n_blob;
    size_t i_blob;
    struct apr_buf held; /* content whose checksum was right; handed out up to i_held */
    size_t i_held;
    uint32_t n_block_max; /* LZ4_BLOCKS */
    bool ended;           /* LZ4_BLOCKS: after the end mark */
};

struct apr_unpacker *apr_unpacker_open(enum apr_pack kind, const char *file, apr_pack_get_fn *get, void *ctx)
{
    struct apr_arena arena;
    apr_arena_init(&arena);
    struct apr_unpacker *u = apr_arena_get(&arena, sizeof *u);
    *u = (struct apr_unpacker){.kind = kind, .file = file, .get = get, .ctx = ctx, .between = true};
    u->in = apr_arena_get(&arena, IN_BYTES);
    apr_buf_init(&u->raw, INT32_MAX);
    apr_buf_init(&u->blob, INT32_MAX);
    apr_buf_init(&u->held, INT32_MAX);
    u->arena = arena;
    return u;
}

void apr_unpacker_close(struct apr_unpacker *u)
{
    if (!u) return;
    ZSTD_freeDCtx(u->zstd);
    LZ4F_freeDecompressionContext(u->lz4);
    apr_buf_free(&u->raw);
    apr_buf_free(&u->blob);
    apr_buf_free(&u->held);
    struct apr_arena arena = u->arena;
    apr_arena_free(&arena);
}

/* More input behind what is there. */
static enum apr_code fill(struct apr_unpacker *u, struct apr_err *e)
{
    size_t n_got;
    if (u->in_ended) return APR_OK;
    if (u->i_in) memmove(u->in, u->in + u->i_in, u->n_in - u->i_in);
    u->n_in -= u->i_in;
    u->i_in = 0;
    if (u->n_in == IN_BYTES) return APR_OK;
    TRY(u->get(u->ctx, u->in + u->n_in, IN_BYTES - u->n_in, &n_got, e));
    if (n_got == 0) u->in_ended = true;
    u->n_in += n_got;
    return APR_OK;
}

static enum apr_code damaged(const struct apr_unpacker *u, const char *why, struct apr_err *e)
{
    return apr_fail(e, APR_EFORMAT, "%s: compressed data, byte %" PRIu64 " of it: %s", u->file, u->n_taken,
                    why);
}

/* The first bytes of an LZ4 stream: a frame, or a length and one raw block. */
static enum apr_code open_lz4(struct apr_unpacker *u, struct apr_err *e)
{
    LZ4F_frameInfo_t info;
    size_t n = u->n_in - u->i_in;
    if (LZ4F_isError(LZ4F_createDecompressionContext(&u->lz4, LZ4F_VERSION)))
        return apr_fail(e, APR_ELOAD, "%s: no memory to decompress", u->file);
    if (n >= MIN_LZ4_HEAD && !LZ4F_isError(LZ4F_getFrameInfo(u->lz4, &info, u->in + u->i_in, &n))) {
        bool own = info.frameType == LZ4F_frame && info.blockMode == LZ4F_blockIndependent &&
                   info.blockChecksumFlag == LZ4F_blockChecksumEnabled && !info.contentChecksumFlag &&
                   !info.contentSize && !info.dictID && info.blockSizeID == LZ4F_max4MB;
        u->form = own ? LZ4_BLOCKS : LZ4_FRAME;
        u->n_block_max = APR_PACK_BLOCK_BYTES;
        u->i_in += n; /* the head is consumed */
        u->n_taken += n;
        u->between = false;
        return APR_OK;
    }
    if (u->n_in - u->i_in < sizeof u->n_blob) return damaged(u, "it ends inside its length", e);
    for (unsigned i = 0; i < sizeof u->n_blob; i++) u->n_blob |= (uint32_t)u->in[u->i_in + i] << 8 * i;
    u->i_in += sizeof u->n_blob;
    u->n_taken += sizeof u->n_blob;
    u->form = LZ4_BLOB;
    if (u->n_blob > LZ4_MAX_INPUT_SIZE)
        return apr_fail(e, APR_ELOAD, "%s: an LZ4 block of %" PRIu32 " bytes, expected at most %d", u->file,
                        u->n_blob, LZ4_MAX_INPUT_SIZE);
    return APR_OK;
}

static enum apr_code begin(struct apr_unpacker *u, struct apr_err *e)
{
    while (u->n_in - u->i_in < LZ4F_HEADER_SIZE_MAX && !u->in_ended) TRY(fill(u, e));
    if (u->kind == APR_PACK_LZ4) return open_lz4(u, e);
    u->form = ZSTD;
    u->zstd = ZSTD_createDCtx();
    if (!u->zstd || ZSTD_isError(ZSTD_DCtx_setParameter(u->zstd, ZSTD_d_windowLogMax, APR_ZSTD_WINDOW)))
        return apr_fail(e, APR_ELOAD, "%s: no memory to decompress", u->file);
    return APR_OK;
}

/* One step of either library. *n_got may stay 0 with input left: frames without content. */
static enum apr_code step(struct apr_unpacker *u, void *dst, size_t n, size_t *n_got, struct apr_err *e)
{
    size_t n_in = u->n_in - u->i_in, left;
    if (u->form == ZSTD) {
        ZSTD_inBuffer in = {u->in + u->i_in, n_in, 0};
        ZSTD_outBuffer out = {dst, n, 0};
        left = ZSTD_decompressStream(u->zstd, &out, &in);
        if (ZSTD_isError(left)) return damaged(u, ZSTD_getErrorName(left), e);
        n_in = in.pos;
        *n_got = out.pos;
    } else {
        size_t n_out = n;
        left = LZ4F_decompress(u->lz4, dst, &n_out, u->in + u->i_in, &n_in, NULL);
        if (LZ4F_isError(left)) return damaged(u, LZ4F_getErrorName(left), e);
        *n_got = n_out;
    }
    if (n_in || *n_got) u->between = left == 0;
    u->i_in += n_in;
    u->n_taken += n_in;
    return APR_OK;
}

static enum apr_code read_frames(struct apr_unpacker *u, void *dst, size_t n, size_t *n_got,
                                 struct apr_err *e)
{
    for (;;) {
        size_t n_taken = u->i_in;
        if (u->i_in == u->n_in) {
            TRY(fill(u, e));
            n_taken = u->i_in;
        }
        if (u->i_in == u->n_in && u->in_ended && u->between) return APR_OK;
        TRY(step(u, dst, n, n_got, e));
        if (*n_got) return APR_OK;
        if (u->i_in != n_taken) continue;
        if (u->in_ended) return damaged(u, "it ends inside a frame", e);
        TRY(fill(u, e)); /* a header may need more than was there */
    }
}

/* A frame of known size is decoded as a whole, so that its checksum is verified before its content is used.
 * *held: false for frames that must be passed on as they come. */
static enum apr_code hold_zstd(struct apr_unpacker *u, bool *held, struct apr_err *e)
{
    uint8_t *at;
    *held = false;
    if (!u->between) return APR_OK; /* inside a frame that is passed on */
    while (u->n_in - u->i_in < ZSTD_HEADER_BYTES && !u->in_ended) TRY(fill(u, e));
    unsigned long long n = ZSTD_getFrameContentSize(u->in + u->i_in, u->n_in - u->i_in);
    if (n == 0 || n > HELD_BYTES) return APR_OK; /* also the values that mean unknown and error */
    u->held.n_bytes = u->i_held = 0;
    TRY(apr_buf_reserve(&u->held, (size_t)n, &at, e));
    u->between = false;
    for (size_t done = 0; !u->between;) {
        size_t n_got = 0, i_in = u->i_in;
        if (u->i_in == u->n_in) TRY(fill(u, e));
        if (u->i_in == u->n_in && u->in_ended) return damaged(u, "it ends inside a frame", e);
        i_in = u->i_in;
        TRY(step(u, at + done, (size_t)n - done, &n_got, e));
        done += n_got;
        if (u->between && done != n) return damaged(u, "a frame with less than it says", e);
        if (n_got == 0 && u->i_in == i_in && !u->between) {
            if (u->in_ended) return damaged(u, "it ends inside a frame", e);
            TRY(fill(u, e));
        }
    }
    apr_buf_commit(&u->held, (size_t)n);
    *held = true;
    return APR_OK;
}

/* n bytes of input into u->raw. */
static enum apr_code take(struct apr_unpacker *u, size_t n, struct apr_err *e)
{
    u->raw.n_bytes = 0;
    while (u->raw.n_bytes < n) {
        size_t n_now = u->n_in - u->i_in, n_left = n - u->raw.n_bytes;
        if (n_now == 0) {
            TRY(fill(u, e));
            if (u->i_in == u->n_in) return damaged(u, "it ends inside a block", e);
            continue;
        }
        if (n_now > n_left) n_now = n_left;
        TRY(apr_buf_append(&u->raw, u->in + u->i_in, n_now, e));
        u->i_in += n_now;
        u->n_taken += n_now;
    }
    return APR_OK;
}

static uint32_t get_u32(const uint8_t *p)
{
    return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

/* The next block of our own LZ4 frames, its checksum first. */
static enum apr_code hold_lz4(struct apr_unpacker *u, struct apr_err *e)
{
    uint8_t *at;
    u->held.n_bytes = u->i_held = 0;
    TRY(take(u, APR_LZ4_WORD, e));
    uint32_t w = get_u32(u->raw.data), n_packed = w & ~APR_LZ4_PLAIN;
    if (w == 0) {
        u->ended = true;
        if (u->i_in == u->n_in) TRY(fill(u, e));
        return u->i_in == u->n_in ? APR_OK : damaged(u, "bytes after the LZ4 frame", e);
    }
    if (n_packed > u->n_block_max) return damaged(u, "a block over its largest size", e);
    TRY(take(u, (size_t)n_packed + APR_LZ4_WORD, e));
    if (get_u32(u->raw.data + n_packed) != apr_xxh32(u->raw.data, n_packed))
        return damaged(u, "a block's checksum is wrong", e);
    if (w & APR_LZ4_PLAIN) return apr_buf_append(&u->held, u->raw.data, n_packed, e);
    TRY(apr_buf_reserve(&u->held, u->n_block_max, &at, e));
    int n = LZ4_decompress_safe((const char *)u->raw.data, (char *)at, (int)n_packed, (int)u->n_block_max);
    if (n < 0) return damaged(u, "a block that is no LZ4 data", e);
    apr_buf_commit(&u->held, (size_t)n);
    return APR_OK;
}

static enum apr_code read_held(struct apr_unpacker *u, void *dst, size_t n, size_t *n_got, struct apr_err *e)
{
    bool held = true;
    while (u->i_held == u->held.n_bytes && !u->ended && held)
        TRY(u->form == ZSTD ? hold_zstd(u, &held, e) : hold_lz4(u, e));
    if (!held) return read_frames(u, dst, n, n_got, e);
    *n_got = u->held.n_bytes - u->i_held < n ? u->held.n_bytes - u->i_held : n;
    if (*n_got) memcpy(dst, u->held.data + u->i_held, *n_got);
    u->i_held += *n_got;
    return APR_OK;
}

static enum apr_code load_blob(struct apr_unpacker *u, struct apr_err *e)
{
    size_t n_max = (size_t)LZ4_compressBound((int)u->n_blob);
    while (!u->in_ended || u->i_in < u->n_in) {
        TRY(apr_buf_append(&u->raw, u->in + u->i_in, u->n_in - u->i_in, e));
        u->n_taken += u->n_in - u->i_in;
        u->i_in = u->n_in;
        if (u->raw.n_bytes > n_max) return damaged(u, "bytes after the LZ4 block", e);
        TRY(fill(u, e));
    }
    if (u->n_blob / 255 > u->raw.n_bytes + 1) return damaged(u, "a length that LZ4 cannot reach", e);
    return APR_OK;
}

/* The content up to n_want; decoded again from the start, each time at least twice as far. */
static enum apr_code decode_blob(struct apr_unpacker *u, size_t n_want, struct apr_err *e)
{
    uint8_t *at;
    size_t n_aim = 2 * u->blob.n_bytes > n_want ? 2 * u->blob.n_bytes : n_want;
    if (n_aim < BLOB_STEP) n_aim = BLOB_STEP;
    bool all = n_aim >= u->n_blob;
    if (all) n_aim = u->n_blob;
    u->blob.n_bytes = 0;
    TRY(apr_buf_reserve(&u->blob, n_aim, &at, e));
    const char *raw = u->raw.data ? (const char *)u->raw.data : "";
    int n = all ? LZ4_decompress_safe(raw, (char *)at, (int)u->raw.n_bytes, (int)n_aim)
                : LZ4_decompress_safe_partial(raw, (char *)at, (int)u->raw.n_bytes, (int)n_aim, (int)n_aim);
    if (n < 0 || (size_t)n != n_aim) return damaged(u, "the LZ4 block is broken", e);
    apr_buf_commit(&u->blob, n_aim);
    return APR_OK;
}

static enum apr_code read_blob(struct apr_unpacker *u, void *dst, size_t n, size_t *n_got, struct apr_err *e)
{
    size_t left = u->n_blob - u->i_blob, n_now = n < left ? n : left;
    if (u->raw.n_bytes == 0) TRY(load_blob(u, e));
    if (u->i_blob + n_now > u->blob.n_bytes) TRY(decode_blob(u, u->i_blob + n_now, e));
    if (n_now) memcpy(dst, u->blob.data + u->i_blob, n_now);
    u->i_blob += n_now;
    *n_got = n_now;
    return APR_OK;
}

enum apr_code apr_unpacker_read(struct apr_unpacker *u, void *dst, size_t n, size_t *n_got, struct apr_err *e)
{
    *n_got = 0;
    if (n == 0) return APR_OK;
    if (u->form == UNKNOWN) TRY(begin(u, e));
    if (u->form == LZ4_BLOB) return read_blob(u, dst, n, n_got, e);
    return u->form == LZ4_FRAME ? read_frames(u, dst, n, n_got, e) : read_held(u, dst, n, n_got, e);
}
