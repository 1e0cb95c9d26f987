/* Recipes: which storage type every tensor of a model gets when it is quantized.
 *
 * The rule is llama-quantize's, so that a file of ours has the same type per tensor. It needs names as GGUF
 * has them, shapes and a few numbers of the model; the order of the list does not matter. A recipe never
 * looks at data. Rules of the falcon architecture, which no family here has, are left out.
 *
 *     const struct apr_recipe *r = apr_recipe_named("q4_k_m");
 *     TRY(apr_mix_apply(r, &(struct apr_mix_model){.gguf_arch = "qwen2", .n_layers = 24, ...}, ts, n, e));
 */
#ifndef APR_MIX_H
#define APR_MIX_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "err.h"
#include "quant/quant.h"

#define APR_NO_FILE_TYPE UINT32_MAX

/* When a rule puts its own type in the place of the recipe's. i: running number of the tensor within its
 * class, in the order of llama-quantize (apr_mix_order); n: how many there are. */
enum apr_mix_when {
    APR_MIX_NEVER = 0,
    APR_MIX_ALWAYS,
    APR_MIX_GQA4,      /* at least 4 query heads share a key head */
    APR_MIX_FIRST2,    /* i < 2 */
    APR_MIX_FIRST4,    /* i < 4 */
    APR_MIX_EIGHTH,    /* i < n / 8 */
    APR_MIX_SIXTEENTH, /* i < n / 16 */
    APR_MIX_MORE_BITS, /* first eighth, last eighth, every third between */
    APR_MIX_GUARD,     /* i < n / 8, with importance weights only */
    APR_MIX_UNGUIDED,  /* i < n / 8, without importance weights only */
};

struct apr_mix_rule {
    enum apr_mix_when when;
    enum apr_type then, otherwise; /* otherwise is for when != NEVER */
};

struct apr_recipe {
    const char *name;           /* "q4_k_m" */
    const char *aliases;        /* space-separated, or "" */
    enum apr_type type;         /* of every matrix that no rule names */
    uint32_t file_type;         /* general.file_type of GGUF, or APR_NO_FILE_TYPE: GGUF has no such type */
    bool is_float;              /* F32, F16, BF16: no rules, no fallback */
    bool is_native;             /* APR-native: no rules, no fallback, .apr only */
    struct apr_mix_rule attn_v; /* also fused qkv, and kv_b of MLA */
    struct apr_mix_rule ffn_down;
    struct apr_mix_rule attn_out;
    bool wants_imatrix;    /* poor without importance weights: llama-quantize refuses that */
    bool attn_out_q5_of_8; /* models of 8 experts: attention output Q5_K instead of attn_out */
};

/* Case and underscores do not matter: "Q4_K_M", "q4k", "fp16", "int8". NULL when unknown. */
const struct apr_recipe *apr_recipe_named(const char *name);
/* NULL past the end; for help texts and tests. */
const struct apr_recipe *apr_recipe_at(size_t i);

/* --tensor-type REGEX=TYPE: tensors whose GGUF name holds a match get TYPE. */
struct apr_mix_pick {
    void *re;         /* owned: pcre2_code */
    const char *text; /* the whole option */
    enum apr_type type;
};
/* What overrules a recipe. The types of embedding and output win over picks, and no fallback softens them. */
struct apr_mix_overrides {
    struct apr_mix_pick *picks; /* the first that matches counts; for recipes of quantized types only */
    size_t n_picks;
    bool has_output_type, has_embed_type;
    bool leave_output; /* output.weight keeps its type */
    enum apr_type output_type, embed_type;
};

struct apr_mix_model {
    const char *gguf_arch; /* "qwen2" */
    uint32_t n_layers, n_heads, n_heads_kv;
    uint32_t n_experts; /* 0: dense */
    bool pure;          /* the recipe's own type for every matrix; the fallback still applies */
    bool has_imatrix;
    const struct apr_mix_overrides *overrides; /* NULL: none */
};

struct apr_mix_tensor {
    const char *gguf_name;
    uint32_t n_dims;
    uint64_t n_cols;      /* innermost dimension */
    enum apr_type src;    /* kept where quantization does not apply; see apr_mix_base_type */
    enum apr_type type;   /* out */
    enum apr_type wanted; /* out: what the recipe asked for; differs from type on fallback */
    bool fallback;        /* out: n_cols is not a multiple of the block of wanted */
    bool overruled;       /* out: an override named the type */
};

/* Sets the fields marked "out" of all n tensors. Fails with APR_EFORMAT when a name of a model with experts
 * has no layer below n_layers, with APR_EUSAGE when an output or embedding type does not fit, with APR_ELOAD
 * when memory is short. */
APR_MUST_USE enum apr_code apr_mix_apply(const struct apr_recipe *r, const struct apr_mix_model *m,
                                         struct apr_mix_tensor *t, size_t n, struct apr_err *e);

/* Reads "REGEX=TYPE" (PCRE2, letters of either case); close with apr_mix_pick_close. TYPE is a type that can
 * be written, by its GGML name. text is borrowed. */
APR_MUST_USE enum apr_code apr_mix_pick_open(struct apr_mix_pick *pick, const char *text, struct apr_err *e);
void apr_mix_pick_close(struct apr_mix_pick *pick);
/* The first pick that matches, or NULL. */
APR_MUST_USE enum apr_code apr_mix_pick_find(const struct apr_mix_overrides *o, const char *gguf_name,
                                             const struct apr_mix_pick **found, struct apr_err *e);
/* A type by name for option --OPTION: APR_EUSAGE when it is unknown or cannot be written. */
APR_MUST_USE enum apr_code apr_mix_type_named(const char *name, const char *option, enum apr_type *type,
                                              struct apr_err *e);

/* What takes the place of a type whose block does not divide n_cols: llama-quantize's table, else F16. */
enum apr_type apr_mix_fallback(enum apr_type type, uint64_t n_cols);
/* The type that llama.cpp's converter stores: F32 for vectors, norms, routers and positions, else src. */
enum apr_type apr_mix_base_type(const char *gguf_name, uint32_t n_dims, enum apr_type src);
/* May a recipe change this tensor at all? */
bool apr_mix_eligible(const char *gguf_name, uint32_t n_dims);
/* The order of llama-quantize's output: tensors outside the layers, then by layer, then by bytes of the name.
 * For qsort-like use: negative, 0, positive. */
int apr_mix_order(const char *a, const char *b);

#endif
