#include "gguf_keys.h"

#include <string.h>

#include "authorship.h"
#include "family/differ.h"
#include "buf.h"
#include "fmt/sentence.h"
#include "json.h"
#include "metadata.h"
#include "tok_keys.h"

#define QUANTIZATION_VERSION 2 /* of GGML's block formats */

/* Of a mixture, one expert is told apart: "8x7B" counts what is shared and one expert. */
static struct authorship_size count_params(const struct apr_plan *plan)
{
    struct authorship_size size = {.n_params = 0};
    for (uint64_t i = 0; i < plan->n_tensors; i++) {
        const struct apr_plan_tensor *t = &plan->tensors[i];
        const uint64_t n = apr_tensor_elems(t->src);
        const bool is_stack = strstr(t->name, "_exps.") && t->n_dims == 3 && t->dims[0];
        size.n_params += n;
        size.n_params_one += is_stack ? n / t->dims[0] : n;
        if (is_stack) size.n_experts = t->dims[0];
    }
    return size;
}

/* The keys must mean what the config means: the family's own reading of them is compared. What tensors tell,
 * and the scalings that are tensors there, is taken as it is. */
static enum apr_code check_keys(const struct apr_model *m, const struct apr_kvs *kvs, struct apr_err *e)
{
    struct apr_config want = m->config, got = m->config;
    const char *what;
    if (m->config.is_encoder || !m->family->from_gguf) return APR_OK;
    if (want.rope.scaling == APR_ROPE_LLAMA3 || want.rope.scaling == APR_ROPE_DYNAMIC) {
        got.rope.scaling = want.rope.scaling = APR_ROPE_PLAIN;
    }
    TRY(m->family->from_gguf(m->family, kvs, &got, m->path, e));
    what = apr_config_differs(&want, &got);
    if (!what) return APR_OK;
    return apr_fail(e, APR_ECONTRACT, "%s: GGUF of family %s cannot tell this model's %s", m->path,
                    m->family->name, what);
}

static enum apr_code from_documents(const struct apr_model *m, const struct apr_plan *plan,
                                    uint32_t file_type, struct apr_kvs *kvs, struct apr_err *e)
{
    if (!m->family->to_gguf)
        return apr_fail(e, APR_ELOAD, "%s: family %s cannot be written as GGUF", m->path, m->family->name);
    apr_kvs_str(kvs, "general.architecture", m->family->gguf_arch);
    if (m->family->to_gguf_first) m->family->to_gguf_first(&m->config, kvs);
    apr_kvs_str(kvs, "general.type", "model");
    const struct authorship_size size = count_params(plan);
    authorship_keys(m, &size, kvs);
    m->family->to_gguf(m->family, &m->config, m->hf_config, file_type, kvs);
    apr_sentence_to_gguf(m, kvs);
    TRY(check_keys(m, kvs, e));
    apr_kvs_u32(kvs, "general.quantization_version", QUANTIZATION_VERSION);
    return tok_keys(m, kvs, e);
}

static bool has_prefix(const struct apr_kv *kv, const char *prefix)
{
    return strncmp(kv->key.p, prefix, strlen(prefix)) == 0;
}

/* The arrays of the tokenizer follow its name and pre-tokenizer, wherever those stand. */
static void copy_keys(const struct apr_model *m, struct apr_kvs *kvs)
{
    const char *after =
        apr_kvs_find(&m->kvs, "tokenizer.ggml.pre") ? "tokenizer.ggml.pre" : "tokenizer.ggml.model";
    for (size_t i = 0; i < m->kvs.n; i++) {
        const struct apr_kv *kv = &m->kvs.at[i];
        if (has_prefix(kv, "apr.") || has_prefix(kv, "split.")) continue;
        apr_kvs_add(kvs, kv);
        if (strcmp(kv->key.p, after) == 0) tok_arrays(&m->vocab, kvs);
    }
}

enum apr_code gguf_keys(const struct apr_model *m, const struct apr_plan *plan, uint32_t file_type,
                        const json_t *own, const char *own_path, const json_t *provenance,
                        struct apr_kvs *kvs, struct apr_err *e)
{
    if (m->has_kvs && !m->hf_config) {
        copy_keys(m, kvs);
        apr_sentence_to_gguf(m, kvs);
        apr_kvs_u32(kvs, "general.file_type", file_type);
        apr_kvs_u32(kvs, "general.quantization_version", QUANTIZATION_VERSION);
    } else {
        TRY(from_documents(m, plan, file_type, kvs, e));
    }
    if (own) TRY(metadata_apply(own, own_path, kvs, e));
    if (!provenance) return APR_OK;
    struct apr_buf b;
    apr_buf_init(&b, APR_MAX_META_BYTES);
    enum apr_code code = apr_json_dump(provenance, true, &b, e);
    if (code == APR_OK) apr_kvs_str(kvs, "apr.provenance", (const char *)b.data);
    apr_buf_free(&b);
    return code;
}
