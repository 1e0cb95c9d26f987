/* A model as a format reader delivers it: metadata in memory, tensors described, data left on disk.
 *
 * Everything below is owned by the model and lives until apr_model_close: strings and tables in its
 * arena, jansson values by reference, files until closed. Tensor names are Hugging Face names, whatever
 * the source; the tensors are sorted by raw name bytes (the .apr index order) except in a stream, where they
 * are in data order.
 */
#ifndef APR_MODEL_H
#define APR_MODEL_H

#include "arena.h"
#include "config.h"
#include "family/family.h"
#include "hash.h"
#include "io.h"
#include "kv.h"
#include "tensor.h"
#include "vocab.h"

#define APR_MAX_TENSORS    (1u << 20)
#define APR_MAX_NAME_BYTES 256u

struct apr_fmt;
struct apr_model;
struct apr_view_cache;
/* What follows the last tensor of a stream: padding, trailing section, footer, end of file. */
typedef enum apr_code apr_end_stream_fn(struct apr_model *m, struct apr_err *e);
/* n bytes of t's data from off on, computed instead of read from a file. */
typedef enum apr_code apr_compute_fn(struct apr_model *m, const struct apr_tensor *t, uint64_t off, void *dst,
                                     size_t n, struct apr_err *e);

struct apr_file {
    struct apr_src *src; /* owned */
    const char *name;    /* base name as provenance records it */
    uint64_t n_bytes;    /* UINT64_MAX for a pipe */
    const char *sha256;  /* hex when known before reading (hub cache blob name, sidecar), else NULL */
};

/* What the header says about the file itself; for inspection and for the end of a stream. */
struct apr_header {
    uint32_t version, version_minor; /* GGUF 3; .apr 2.0; SafeTensors 0 */
    uint32_t flags;                  /* .apr */
    uint32_t checksum;               /* .apr: CRC-32 of the header, verified */
    uint32_t alignment;
    uint64_t n_head_bytes; /* before the data; of all shards together */
    uint64_t off_data;     /* of the first file */
    uint64_t n_data_bytes; /* padding included; of all shards together */
    bool has_footer;       /* .apr: false when not known yet (a stream) */
};

struct apr_model {
    struct apr_arena arena;
    const struct apr_fmt *fmt;
    const char *path; /* as given */
    const char
        *name; /* directory or file stem of the source, or what the .apr or GGUF says; never an output name */
    apr_end_stream_fn *end_stream; /* set by the reader of a stream */
    apr_compute_fn *compute;       /* NULL but for models without files, such as a merge */
    void *compute_ctx;             /* borrowed */
    bool is_stream;                /* data can be read once, in tensor order */
    bool vocab_only;               /* tokenizer files without weights */

    struct apr_file *files;
    uint32_t n_files;
    struct apr_header header;
    struct apr_tensor *tensors;
    uint64_t n_tensors, cap_tensors;
    void *index; /* hash by name: apr_model_find */

    const struct apr_family *family; /* NULL: not recognised */
    bool is_look;                    /* see APR_LOAD_LOOK */
    bool is_hashed;                  /* see APR_LOAD_HASH */
    const char *unsupported;         /* why family is NULL although it is known; or NULL */
    const char *arch;                /* what the source calls it: "Qwen2ForCausalLM", "qwen2" */
    struct apr_config config;
    struct apr_generation generation;
    struct apr_vocab vocab;

    /* The documents, whole, as they travel inside .apr (metadata apr.hf) so that an export from .apr equals
     * an export from the folder. NULL when the source had none. Owned. */
    json_t *hf_config;     /* config.json */
    json_t *hf_generation; /* generation_config.json */
    json_t *hf_tok_config; /* tokenizer_config.json, chat_template taken out into vocab */
    json_t *hf_card;       /* YAML front matter of README.md as JSON */
    const char *hf_prefix; /* how the checkpoint's names begin where the family's begin otherwise; or NULL */
    json_t *hf_sentence;   /* {file name: document} of a sentence-transformers folder */
    json_t *st_metadata;   /* __metadata__ of the first SafeTensors file */
    json_t *apr_meta;      /* .apr: the metadata object as read, without tokenizer.vocabulary and .merges */
    struct apr_kvs kvs;    /* GGUF keys as read (also those carried by an .apr), tokenizer arrays left out */
    bool has_kvs;
    struct apr_view_cache *view_cache; /* of apr_model_read; owned */
    json_t *trailer; /* .apr trailing section, when it could be read before the data (seekable) */
};

struct apr_model *apr_model_new(const char *path);
void apr_model_close(struct apr_model *m); /* NULL is fine */
const struct apr_tensor *apr_model_find(const struct apr_model *m, const char *name);
/* By role; layer is ignored for tensors outside the layers. NULL when absent. */
const struct apr_tensor *apr_model_role(const struct apr_model *m, enum apr_role role, uint32_t layer);
/* For format readers. The file slots of a folder are made at once; src becomes the model's. */
APR_MUST_USE enum apr_code apr_model_add_files(struct apr_model *m, uint32_t n_files, struct apr_err *e);
/* A zeroed tensor at the end of the table; refuses more than APR_MAX_TENSORS. Valid until the next call. */
APR_MUST_USE enum apr_code apr_model_add_tensor(struct apr_model *m, struct apr_tensor **out,
                                                struct apr_err *e);
/* (Again) sorts (unless is_stream), builds the name index; refuses duplicates. Format readers call it last.
 */
APR_MUST_USE enum apr_code apr_model_index(struct apr_model *m, struct apr_err *e);
/* Maps every file and sets tensor.data. Not for streams. */
APR_MUST_USE enum apr_code apr_model_map(struct apr_model *m, struct apr_err *e);
/* The n bytes at p, of a mapped file, are not needed for now: see apr_src_forget. */
void apr_model_forget(const struct apr_model *m, const void *p, size_t n);
/* n bytes of t's data from off. In a stream the calls must follow tensor order and ascend; skipped bytes are
 * read and dropped. Never touches the map, so resident memory stays small. */
APR_MUST_USE enum apr_code apr_model_read(struct apr_model *m, const struct apr_tensor *t, uint64_t off,
                                          void *dst, size_t n, struct apr_err *e);
/* In a stream: reads what follows the last tensor (trailing section, footer) and checks it; else no effect.
 * A cut stream is APR_EFORMAT. Writers call it before they finish their own output. */
APR_MUST_USE enum apr_code apr_model_end(struct apr_model *m, struct apr_err *e);

#endif
