/* File formats: one file and one row in table.c each.
 *
 * Reading: probe looks at the first bytes (never at the name); open fills a struct apr_model. Writing:
 * every size is known before the first byte (struct apr_plan), so any output may be a pipe:
 * begin, then for each tensor in plan order data in pieces, then end. Nothing is patched.
 *
 * Limits on what a header may claim stand here, once.
 */
#ifndef APR_FMT_H
#define APR_FMT_H

#include "../model.h"
#include "../reform.h"

#define APR_MAX_META_BYTES (1024u << 20) /* metadata JSON, GGUF keys */
#define APR_MAX_ST_HEADER  (100u << 20)
#define APR_MAX_KVS        (1u << 20)
#define APR_MAX_ALIGNMENT  65536u
#define APR_MAX_SHARDS     4096u
#define APR_PIECE_BYTES    (16u << 20) /* conversion works in pieces of at most this */

/* One tensor of an output, in data order. */
struct apr_plan_tensor {
    const struct apr_tensor *src; /* NULL: generated */
    const char *name;             /* in the target's naming */
    enum apr_type type;
    uint32_t n_dims;
    uint64_t dims[APR_MAX_DIMS]; /* outermost first */
    uint64_t n_bytes;
    uint64_t off_data;       /* from the start of the data section; set by apr_plan_layout */
    const float *importance; /* weights of the columns, [n_importance]: a whole number of rows; NULL: none */
    uint64_t n_importance;
};

struct apr_plan {
    struct apr_plan_tensor *tensors;
    uint64_t n_tensors;
    uint64_t n_data_bytes;
    uint32_t alignment;        /* 64 for .apr, 32 for GGUF, 1 for SafeTensors */
    const struct apr_kvs *kvs; /* GGUF: every key, in order */
    const json_t *meta; /* .apr: the metadata object without the vocabulary; SafeTensors: __metadata__ */
    const struct apr_vocab *vocab; /* .apr: written as tokenizer.vocabulary, tokenizer.merges ... */
    enum apr_pack pack;            /* .apr: how all but the header is compressed */
};

struct apr_writer; /* private to lib/fmt */

struct apr_fmt {
    const char *name;    /* "safetensors", "apr", "gguf" */
    const char *aliases; /* "st", space-separated */
    const char *title;   /* for people: "SafeTensors", "APR", "GGUF" */
    /* head: the first n bytes of the file (n may be short at its end). */
    bool (*probe)(const uint8_t *head, size_t n);
    /* src is at position 0 and becomes the model's (also on failure). */
    enum apr_code (*open)(struct apr_src *src, const char *path, struct apr_model *m, struct apr_err *e);
    /* What open leaves out because it reads every byte (footer CRC, padding inside the data, hashes of the
     * trailing section): for validate. NULL: nothing more to check. Not for streams. */
    enum apr_code (*verify)(struct apr_model *m, struct apr_err *e);
    uint32_t alignment;
    enum apr_target target;            /* whose names, shapes and values the tensors have */
    bool gguf_rules;                   /* GGUF names; vectors, norms and routers are stored as F32 */
    bool (*holds)(enum apr_type type); /* can store the type as it is */
    /* NULL: cannot be written. begin emits everything before the data. */
    enum apr_code (*begin)(const struct apr_plan *p, struct apr_sink *s, struct apr_writer **w,
                           struct apr_err *e);
    enum apr_code (*data)(struct apr_writer *w, const void *p, size_t n,
                          struct apr_err *e); /* pads between tensors itself */
    /* trailer: .apr only, may be NULL. Frees w. abort: the same after an error, writing nothing. */
    enum apr_code (*end)(struct apr_writer *w, const json_t *trailer, struct apr_err *e);
    void (*abort)(struct apr_writer *w);
    /* Size of the output up to the data and in all, without writing: for --dry-run and the disk check. */
    enum apr_code (*measure)(const struct apr_plan *p, uint64_t *n_head, uint64_t *n_total,
                             struct apr_err *e);
};

const struct apr_fmt *apr_fmt_at(size_t i);
const struct apr_fmt *apr_fmt_named(const char *name); /* also by alias */
const struct apr_fmt *apr_fmt_probe(const uint8_t *head, size_t n);
/* Names content that is no model but often stands in a model's place: "a git-lfs pointer ...", "an HTML
 * page", "a PyTorch archive ..."; NULL when nothing is known about it. *code: 4, or 6 for formats that are
 * not read. */
const char *apr_fmt_foreign(const uint8_t *head, size_t n, enum apr_code *code);
/* Offsets from sizes; checked. */
APR_MUST_USE enum apr_code apr_plan_layout(struct apr_plan *p, uint32_t alignment, struct apr_err *e);
/* A Hugging Face folder: config.json, tokenizer files, index and shards (symlinks into a blob store are
 * fine). In fmt/hf_folder.c; a folder with tokenizer files alone gives vocab_only. */
APR_MUST_USE enum apr_code apr_hf_folder_open(const char *dir, struct apr_model *m, struct apr_err *e);
/* Its documents and tokenizer alone, whatever weights there are: gives vocab_only. */
APR_MUST_USE enum apr_code apr_hf_vocab_open(const char *dir, struct apr_model *m, struct apr_err *e);

#endif
