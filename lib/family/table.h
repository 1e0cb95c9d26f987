/* The rows of table.c: each family's file defines one. Everybody else includes family.h.
 *
 *     const struct apr_family apr_family_qwen2 = { .name = "qwen2", ... };
 */
#ifndef APR_FAMILY_TABLE_H
#define APR_FAMILY_TABLE_H

#include "family.h"

extern const struct apr_family apr_family_qwen2;
extern const struct apr_family apr_family_qwen3;
extern const struct apr_family apr_family_qwen2_moe;
extern const struct apr_family apr_family_qwen3_moe;
extern const struct apr_family apr_family_llama;
extern const struct apr_family apr_family_mistral;
extern const struct apr_family apr_family_mixtral;
extern const struct apr_family apr_family_gemma;
extern const struct apr_family apr_family_gemma2;
extern const struct apr_family apr_family_gemma3;
extern const struct apr_family apr_family_phi;
extern const struct apr_family apr_family_phi3;
extern const struct apr_family apr_family_deepseek_moe;
extern const struct apr_family apr_family_deepseek2;
extern const struct apr_family apr_family_gpt2;
extern const struct apr_family apr_family_granite;
extern const struct apr_family apr_family_starcoder2;
extern const struct apr_family apr_family_stablelm;
extern const struct apr_family apr_family_bert;
extern const struct apr_family apr_family_whisper;

#endif
