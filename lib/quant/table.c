/* The table of types, and sizes computed from it. */
#include "quant.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "../ckd.h"
#include "blocks.h"
#include "types.h"

#define BLOCK(struct_) sizeof(struct struct_)

/* Types of other engines' files: their sizes are known, their values are not computed. */
#define CARRIED(id, name_, elems, bytes)                                                                     \
    {                                                                                                        \
        .type = (enum apr_type)(id), .name = (name_), .block_elems = (elems), .block_bytes = (bytes),        \
        .is_quantized = true                                                                                 \
    }
#define PLAIN(id, name_, bytes, to, from)                                                                    \
    {                                                                                                        \
        .type = (id), .name = (name_), .block_elems = 1, .block_bytes = (bytes), .to_f32 = (to),             \
        .from_f32 = (from)                                                                                   \
    }
#define COMPUTED(id, name_, elems, struct_, to, from)                                                        \
    {                                                                                                        \
        .type = (id), .name = (name_), .block_elems = (elems), .block_bytes = BLOCK(struct_),                \
        .is_quantized = true, .to_f32 = (to), .from_f32 = (from)                                             \
    }

static const struct apr_quant table[] = {
    PLAIN(APR_F32, "F32", 4, apr_f32_to_f32, apr_f32_from_f32),
    PLAIN(APR_F16, "F16", 2, apr_f16_row_to_f32, apr_f16_from_f32),
    PLAIN(APR_BF16, "BF16", 2, apr_bf16_row_to_f32, apr_bf16_from_f32),
    PLAIN(APR_F64, "F64", 8, apr_f64_to_f32, NULL),
    PLAIN(APR_I8, "I8", 1, apr_i8_to_f32, NULL),
    PLAIN(APR_I16, "I16", 2, NULL, NULL),
    PLAIN(APR_I32, "I32", 4, NULL, NULL),
    PLAIN(APR_I64, "I64", 8, NULL, NULL),
    PLAIN(APR_U8, "U8", 1, NULL, NULL),
    COMPUTED(APR_Q4_0, "Q4_0", APR_QK, apr_block_q4_0, apr_q4_0_to_f32, apr_q4_0_from_f32),
    COMPUTED(APR_Q4_1, "Q4_1", APR_QK, apr_block_q4_1, apr_q4_1_to_f32, apr_q4_1_from_f32),
    COMPUTED(APR_Q5_0, "Q5_0", APR_QK, apr_block_q5_0, apr_q5_0_to_f32, apr_q5_0_from_f32),
    COMPUTED(APR_Q5_1, "Q5_1", APR_QK, apr_block_q5_1, apr_q5_1_to_f32, apr_q5_1_from_f32),
    COMPUTED(APR_Q8_0, "Q8_0", APR_QK, apr_block_q8_0, apr_q8_0_to_f32, apr_q8_0_from_f32),
    COMPUTED(APR_Q2_K, "Q2_K", APR_QKK, apr_block_q2_k, apr_q2_k_to_f32, apr_q2_k_from_f32),
    COMPUTED(APR_Q3_K, "Q3_K", APR_QKK, apr_block_q3_k, apr_q3_k_to_f32, apr_q3_k_from_f32),
    COMPUTED(APR_Q4_K, "Q4_K", APR_QKK, apr_block_q4_k, apr_q4_k_to_f32, apr_q4_k_from_f32),
    COMPUTED(APR_Q5_K, "Q5_K", APR_QKK, apr_block_q5_k, apr_q5_k_to_f32, apr_q5_k_from_f32),
    COMPUTED(APR_Q6_K, "Q6_K", APR_QKK, apr_block_q6_k, apr_q6_k_to_f32, apr_q6_k_from_f32),
    {.type = APR_NATIVE_Q4,
     .name = "APR_Q4",
     .block_elems = APR_QK,
     .block_bytes = BLOCK(apr_block_native_q4),
     .is_quantized = true,
     .is_flat = true,
     .to_f32 = apr_native_q4_to_f32,
     .from_f32 = apr_native_q4_from_f32},
    {.type = APR_NATIVE_Q8,
     .name = "APR_Q8",
     .block_elems = 1,
     .block_bytes = 1,
     .head_bytes = BLOCK(apr_head_native_q8),
     .is_quantized = true,
     .is_flat = true,
     .to_f32 = apr_native_q8_row_to_f32,
     .from_f32 = apr_native_q8_row_from_f32},
    CARRIED(APR_Q8_1, "Q8_1", 32, 36),
    CARRIED(APR_Q8_K, "Q8_K", 256, 292),
    COMPUTED(APR_IQ2_XXS, "IQ2_XXS", APR_QKK, apr_block_iq2_xxs, apr_iq2_xxs_to_f32, NULL),
    COMPUTED(APR_IQ2_XS, "IQ2_XS", APR_QKK, apr_block_iq2_xs, apr_iq2_xs_to_f32, NULL),
    COMPUTED(APR_IQ3_XXS, "IQ3_XXS", APR_QKK, apr_block_iq3_xxs, apr_iq3_xxs_to_f32, NULL),
    COMPUTED(APR_IQ1_S, "IQ1_S", APR_QKK, apr_block_iq1_s, apr_iq1_s_to_f32, NULL),
    COMPUTED(APR_IQ4_NL, "IQ4_NL", APR_QK, apr_block_iq4_nl, apr_iq4_nl_to_f32, apr_iq4_nl_from_f32),
    COMPUTED(APR_IQ3_S, "IQ3_S", APR_QKK, apr_block_iq3_s, apr_iq3_s_to_f32, NULL),
    COMPUTED(APR_IQ2_S, "IQ2_S", APR_QKK, apr_block_iq2_s, apr_iq2_s_to_f32, NULL),
    COMPUTED(APR_IQ4_XS, "IQ4_XS", APR_QKK, apr_block_iq4_xs, apr_iq4_xs_to_f32, apr_iq4_xs_from_f32),
    COMPUTED(APR_IQ1_M, "IQ1_M", APR_QKK, apr_block_iq1_m, apr_iq1_m_to_f32, NULL),
    COMPUTED(APR_TQ1_0, "TQ1_0", APR_QKK, apr_block_tq1_0, apr_tq1_0_to_f32, NULL),
    COMPUTED(APR_TQ2_0, "TQ2_0", APR_QKK, apr_block_tq2_0, apr_tq2_0_to_f32, NULL),
    COMPUTED(APR_MXFP4, "MXFP4", APR_QK, apr_block_mxfp4, apr_mxfp4_to_f32, NULL),
    CARRIED(40, "NVFP4", 64, 36),
    CARRIED(41, "Q1_0", 128, 18),
    CARRIED(42, "Q2_0", 64, 18),
};

static const struct {
    const char *name;
    enum apr_type type;
} aliases[] = {{"fp32", APR_F32},
               {"fp16", APR_F16},
               {"half", APR_F16},
               {"int4", APR_NATIVE_Q4},
               {"int8", APR_NATIVE_Q8}};

const struct apr_quant *apr_quant_of(uint32_t type)
{
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        if (table[i].type == type) return &table[i];
    }
    return NULL;
}

const struct apr_quant *apr_quant_at(size_t i)
{
    return i < sizeof table / sizeof table[0] ? &table[i] : NULL;
}

/* Equal but for case and underscores, so that "q4k", "Q4_K" and "q4_k" are one name. */
static bool same_name(const char *a, const char *b)
{
    for (;; a++, b++) {
        while (*a == '_') a++;
        while (*b == '_') b++;
        if (strncasecmp(a, b, 1) != 0) return false;
        if (*a == '\0') return true;
    }
}

const struct apr_quant *apr_quant_named(const char *name)
{
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        if (same_name(table[i].name, name)) return &table[i];
    }
    for (size_t i = 0; i < sizeof aliases / sizeof aliases[0]; i++) {
        if (same_name(aliases[i].name, name)) return apr_quant_of(aliases[i].type);
    }
    return NULL;
}

const char *apr_type_name(uint32_t type)
{
    static _Thread_local char unknown[24];
    const struct apr_quant *q = apr_quant_of(type);
    if (q) return q->name;
    (void)snprintf(unknown, sizeof unknown, "type %" PRIu32, type);
    return unknown;
}

enum apr_code apr_row_bytes(enum apr_type type, uint64_t n_cols, uint64_t *n_bytes, struct apr_err *e)
{
    const struct apr_quant *q = apr_quant_of(type);
    if (!q) return apr_fail(e, APR_EFORMAT, "%s is not a known tensor type", apr_type_name(type));
    if (q->head_bytes)
        return apr_fail(e, APR_EFORMAT, "%s has no rows: one scale serves the tensor", q->name);
    if (n_cols % q->block_elems != 0) {
        return apr_fail(e, APR_EFORMAT,
                        "%" PRIu64 " columns are not a multiple of %" PRIu32 ", the block of %s", n_cols,
                        q->block_elems, q->name);
    }
    if (ckd_mul(n_bytes, n_cols / q->block_elems, (uint64_t)q->block_bytes)) {
        return apr_fail(e, APR_EFORMAT, "a row of %" PRIu64 " columns of %s overflows", n_cols, q->name);
    }
    return APR_OK;
}

enum apr_code apr_data_bytes(enum apr_type type, uint64_t n_rows, uint64_t n_cols, uint64_t *n_bytes,
                             struct apr_err *e)
{
    const struct apr_quant *q = apr_quant_of(type);
    uint64_t n_elems = 0, row_bytes = 0;
    bool over;
    if (q && q->is_flat) {
        over = ckd_mul(&n_elems, n_rows, n_cols);
        uint64_t n_blocks = n_elems / q->block_elems + (n_elems % q->block_elems != 0);
        over = over || ckd_mul(n_bytes, n_blocks, (uint64_t)q->block_bytes);
        over = over || ckd_add(n_bytes, *n_bytes, (uint64_t)q->head_bytes);
    } else {
        TRY(apr_row_bytes(type, n_cols, &row_bytes, e));
        over = ckd_mul(n_bytes, row_bytes, n_rows);
    }
    if (over) {
        return apr_fail(e, APR_EFORMAT, "%" PRIu64 " rows of %" PRIu64 " columns of %s overflow", n_rows,
                        n_cols, apr_type_name(type));
    }
    return APR_OK;
}
