/* The .apr container, version 2: layout, reader, writer.
 *
 * 64-byte header; metadata JSON; tensor index, sorted by raw name bytes; data, each tensor padded to 64; a
 * trailing section of ours (optional); footer CRC-32. Everything before the data is final when it is written.
 * Files of the original, which differ in small ways (dtype ids 2 to 9, null and repeated keys, data out of
 * index order, footer cut off), are read; what is written here satisfies its readers. Source: the v2 format
 * document.
 */
#ifndef APR_FMT_APR_H
#define APR_FMT_APR_H

#include "fmt.h"

#define APR_ALIGNMENT    64u
#define APR_HEADER_BYTES 64u
#define APR_FOOTER_BYTES 4u
/* Header: offsets of the fields. */
enum {
    APR_OFF_MAGIC = 0,       /* "APR" and NUL */
    APR_OFF_MAJOR = 4,       /* u8 */
    APR_OFF_MINOR = 5,       /* u8 */
    APR_OFF_FLAGS = 6,       /* u16 */
    APR_OFF_N_TENSORS = 8,   /* u32 */
    APR_OFF_META_AT = 12,    /* u64 */
    APR_OFF_META_BYTES = 20, /* u32 */
    APR_OFF_INDEX_AT = 24,   /* u64 */
    APR_OFF_DATA_AT = 32,    /* u64 */
    APR_OFF_CRC = 40,        /* u32, of bytes 0-39 and 44-63 */
    APR_OFF_RESERVED = 44,   /* 20 zeros */
};
_Static_assert(APR_OFF_RESERVED + 20 == APR_HEADER_BYTES, "the header is 64 bytes");

enum { /* flags */
       APR_FLAG_LZ4 = 0x0001,
       APR_FLAG_ZSTD = 0x0002,
       APR_FLAG_ENCRYPTED = 0x0004,
       APR_FLAG_SIGNED = 0x0008,
       APR_FLAG_SHARDED = 0x0010,
       APR_FLAG_QUANTIZED = 0x0020,
       APR_FLAG_FILTERBANK = 0x0040,
       APR_FLAG_CARD = 0x0080,
       APR_FLAG_STREAMING = 0x0100,
       APR_FLAG_VOCAB = 0x0200,
       APR_FLAG_ROW_MAJOR = 0x0400,
       APR_FLAG_COL_MAJOR = 0x0800,
};

#define APR_MAJOR         2u
#define APR_INDEX_MIN     20u /* bytes of an index entry without name and dims */
#define APR_TAIL_MAGIC    "APRT"
#define APR_TAIL_VERSION  1u
#define APR_TAIL_HEAD     16u /* magic, u32 version, u64 length; then JSON, zeros to 64 */
#define APR_TAIL_FOOT     12u /* u64 length, magic */
#define APR_TAIL_MAX_JSON (256u << 20)

static inline uint64_t apr_align64(uint64_t n)
{
    return (n + APR_ALIGNMENT - 1) / APR_ALIGNMENT * APR_ALIGNMENT;
}

/* The id under which a type is written (GGML's; U8 = 7). */
uint8_t apr_dtype_id(enum apr_type type);

/* apr_set.c: fills m->files with the file, or with every shard of the set that it belongs to, in order. src
 * becomes the model's, also on failure. */
APR_MUST_USE enum apr_code apr_set_open(struct apr_model *m, struct apr_src *src, const char *path,
                                        uint32_t *n_files, struct apr_err *e);

/* apr_tail.c: what follows the data. m->header.off_data and n_data_bytes are set. */
APR_MUST_USE enum apr_code apr_tail_read(struct apr_model *m, struct apr_err *e); /* seekable */
enum apr_code apr_tail_stream(struct apr_model *m, struct apr_err *e);
enum apr_code apr_tail_verify(struct apr_model *m, struct apr_err *e);

/* The writer's half of the vtable, in apr_write.c. */
enum apr_code apr_apr_begin(const struct apr_plan *p, struct apr_sink *s, struct apr_writer **w,
                            struct apr_err *e);
enum apr_code apr_apr_end(struct apr_writer *w, const json_t *trailer, struct apr_err *e);
enum apr_code apr_apr_measure(const struct apr_plan *p, uint64_t *n_head, uint64_t *n_total,
                              struct apr_err *e);
bool apr_apr_holds(enum apr_type type);

#endif
