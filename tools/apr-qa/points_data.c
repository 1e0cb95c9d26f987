/* Rubric B, the weights, and D, what must be left of the source after an import. */
#include "points.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#define PASS(...) return (void)snprintf(detail, n, __VA_ARGS__), POINT_PASS
#define FAIL(...) return (void)snprintf(detail, n, __VA_ARGS__), POINT_FAIL
#define WARN(...) return (void)snprintf(detail, n, __VA_ARGS__), POINT_WARN
#define SKIP(...) return (void)snprintf(detail, n, __VA_ARGS__), POINT_SKIP

/* A point that a rule of the contract decides. */
static enum point_status by_rule(const struct facts *f, const char *rule, const char *good, char *detail,
                                 size_t n)
{
    const struct apr_violation *x = facts_violation(f, rule);
    if (!x) PASS("%s", good);
    FAIL("%s: %.60s%s%.100s", x->rule, x->tensor ? x->tensor : "", x->tensor ? ": " : "", x->text);
}

static bool ends(const char *s, const char *suffix)
{
    size_t n = strlen(s), k = strlen(suffix);
    return n >= k && strcmp(s + n - k, suffix) == 0;
}

enum point_status point_nan(const struct facts *f, char *detail, size_t n)
{
    uint64_t k = 0;
    for (uint64_t i = 0; i < f->model->n_tensors; i++) k += f->stats[i].n_nan;
    if (k) FAIL("%" PRIu64 " NaN", k);
    PASS("none in %" PRIu64 " tensors", f->verdict.n_tensors_checked);
}

enum point_status point_inf(const struct facts *f, char *detail, size_t n)
{
    uint64_t k = 0;
    for (uint64_t i = 0; i < f->model->n_tensors; i++) k += f->stats[i].n_inf;
    if (k) FAIL("%" PRIu64 " infinities", k);
    PASS("none in %" PRIu64 " tensors", f->verdict.n_tensors_checked);
}

/* The mean of every tensor whose name has part and ends in suffix lies in [low, high]. */
static enum point_status means(const struct facts *f, const char *part, const char *suffix, double low,
                               double high, char *detail, size_t n)
{
    uint64_t k = 0;
    for (uint64_t i = 0; i < f->model->n_tensors; i++) {
        const char *name = f->model->tensors[i].name;
        double mean = f->stats[i].n ? facts_mean(&f->stats[i]) : NAN;
        if (!strstr(name, part) || !ends(name, suffix) || isnan(mean)) continue;
        if (mean < low || mean > high) WARN("%.100s: mean %.4g, expected %g to %g", name, mean, low, high);
        k++;
    }
    if (k == 0) SKIP("no such tensor");
    PASS("%" PRIu64 " tensors, every mean in %g to %g", k, low, high);
}

enum point_status point_norm_mean(const struct facts *f, char *detail, size_t n)
{
    return means(f, "norm", ".weight", 0.5, 3.0, detail, n);
}

enum point_status point_norm_bias(const struct facts *f, char *detail, size_t n)
{
    return means(f, "norm", ".bias", -0.5, 0.5, detail, n);
}

/* Matrices: linear layers alone, |mean| < 0.1. */
enum point_status point_linear_mean(const struct facts *f, char *detail, size_t n)
{
    uint64_t k = 0;
    for (uint64_t i = 0; i < f->model->n_tensors; i++) {
        const struct apr_tensor *t = &f->model->tensors[i];
        double mean = f->stats[i].n ? facts_mean(&f->stats[i]) : NAN;
        if (t->n_dims != 2 || isnan(mean)) continue;
        if (fabs(mean) >= 0.1) WARN("%.100s: mean %.4g, expected below 0.1 in magnitude", t->name, mean);
        k++;
    }
    if (k == 0) SKIP("no matrix");
    PASS("%" PRIu64 " matrices, every mean below 0.1 in magnitude", k);
}

enum point_status point_embed_std(const struct facts *f, char *detail, size_t n)
{
    const struct apr_tensor *t = f->model->family ? apr_model_role(f->model, APR_ROLE_EMBED, 0) : NULL;
    if (!t) SKIP("no embedding that the contract knows");
    double std = facts_std(&f->stats[t - f->model->tensors]);
    if (!(std < 0.2)) WARN("%.4g, expected below 0.2", std);
    PASS("%.4g", std);
}

enum point_status point_zero(const struct facts *f, char *detail, size_t n)
{
    uint64_t k = 0;
    for (uint64_t i = 0; i < f->model->n_tensors; i++) {
        const struct apr_stats *s = &f->stats[i];
        if (s->n == 0 || s->n_zero != s->n || ends(f->model->tensors[i].name, ".bias")) continue;
        if (k++ == 0) (void)snprintf(detail, n, "%.150s is all zeros", f->model->tensors[i].name);
    }
    if (k) return POINT_FAIL;
    PASS("no tensor is all zeros (biases may be)");
}

enum point_status point_shapes(const struct facts *f, char *detail, size_t n)
{
    if (f->no_contract) SKIP("the family has no contract");
    const struct apr_violation *missing = facts_violation(f, "F-TENSOR-001");
    if (missing) FAIL("%.100s is missing", missing->tensor);
    return by_rule(f, "F-LAYOUT-CONTRACT", "every tensor has the shape and size that the config asks for",
                   detail, n);
}

enum point_status point_vocab(const struct facts *f, char *detail, size_t n)
{
    if (f->no_contract || f->model->vocab.kind == APR_VOCAB_NONE) SKIP("no contract, or no tokenizer");
    return by_rule(f, "F-VOCAB-001", "one token per row of the embedding", detail, n);
}

enum point_status point_token_ids(const struct facts *f, char *detail, size_t n)
{
    if (f->no_contract || f->model->vocab.kind == APR_VOCAB_NONE) SKIP("no contract, or no tokenizer");
    return by_rule(f, "F-VOCAB-002", "begin and end tokens lie inside the vocabulary", detail, n);
}

/* Block scales that are NaN or infinite make every value of their block so. */
enum point_status point_quant(const struct facts *f, char *detail, size_t n)
{
    uint64_t n_quant = 0;
    for (uint64_t i = 0; i < f->model->n_tensors; i++) {
        const struct apr_quant *q = apr_quant_of(f->model->tensors[i].type);
        if (!q || !q->is_quantized || f->stats[i].n == 0) continue;
        n_quant++;
        if (f->stats[i].n_nan || f->stats[i].n_inf)
            FAIL("%.150s has scales that are no numbers", f->model->tensors[i].name);
    }
    if (n_quant == 0) SKIP("nothing is quantized");
    PASS("%" PRIu64 " quantized tensors, every scale finite", n_quant);
}

static double largest(const struct facts *f, const char **name)
{
    double most = 0;
    for (uint64_t i = 0; i < f->model->n_tensors; i++) {
        const struct apr_stats *s = &f->stats[i];
        double m = s->n > s->n_nan + s->n_inf ? fmax(fabs((double)s->min), fabs((double)s->max)) : 0;
        if (m <= most) continue;
        most = m;
        *name = f->model->tensors[i].name;
    }
    return most;
}

enum point_status point_f16_range(const struct facts *f, char *detail, size_t n)
{
    const char *name = "";
    double most = largest(f, &name);
    if (most > 65504) WARN("%.120s reaches %.6g: too large for F16", name, most);
    PASS("at most %.6g in magnitude", most);
}

enum point_status point_large(const struct facts *f, char *detail, size_t n)
{
    const char *name = "";
    double most = largest(f, &name);
    if (most > 1e6) FAIL("%.120s reaches %.6g, expected at most 1e6", name, most);
    PASS("at most %.6g in magnitude", most);
}

enum point_status point_sparsity(const struct facts *f, char *detail, size_t n)
{
    return by_rule(f, "F-DATA-QUALITY-001", "zeros within 50 % in embeddings, 80 % in matrices", detail, n);
}

/* ---- D ------------------------------------------------------------------------------------------------ */

enum point_status point_names_family(const struct facts *f, char *detail, size_t n)
{
    if (f->no_contract) SKIP("the family has no contract");
    return by_rule(f, "F-TENSOR-002", "every name belongs to the family", detail, n);
}

enum point_status point_special(const struct facts *f, char *detail, size_t n)
{
    uint64_t k = 0;
    if (f->model->vocab.kind == APR_VOCAB_NONE) SKIP("no tokenizer");
    for (uint32_t i = 0; f->model->vocab.types && i < f->model->vocab.n_toks; i++)
        k += f->model->vocab.types[i] == APR_TOK_CONTROL;
    if (k == 0 || f->model->generation.n_eos == 0)
        WARN("%" PRIu64 " control tokens, %" PRIu32 " end tokens", k, f->model->generation.n_eos);
    PASS("%" PRIu64 " control tokens, %" PRIu32 " end tokens", k, f->model->generation.n_eos);
}

enum point_status point_orientation(const struct facts *f, char *detail, size_t n)
{
    if (f->no_contract) SKIP("the family has no contract");
    for (size_t i = 0; i < f->verdict.n; i++)
        if (strstr(f->verdict.at[i].text, "transposed"))
            FAIL("%.150s is transposed", f->verdict.at[i].tensor);
    PASS("no matrix has swapped dimensions");
}

static const json_t *provenance(const struct facts *f)
{
    return json_object_get(json_object_get(f->model->apr_meta, "apr"), "provenance");
}

/* Does any object below v have a sha256? */
static bool has_sha256(const json_t *v)
{
    const char *key;
    json_t *member;
    size_t i;
    if (json_is_string(json_object_get(v, "sha256"))) return true;
    json_object_foreach((json_t *)v, key, member) if (has_sha256(member)) return true;
    json_array_foreach(v, i, member) if (has_sha256(member)) return true;
    return false;
}

enum point_status point_sources(const struct facts *f, char *detail, size_t n)
{
    for (uint32_t i = 0; i < f->model->n_files; i++)
        if (f->model->files[i].sha256) PASS("known from where the files lie");
    if (!f->model->apr_meta) SKIP("only an .apr records its sources");
    if (!has_sha256(provenance(f)) && !has_sha256(f->model->trailer))
        WARN("no SHA-256 of the sources is recorded");
    PASS("recorded");
}

enum point_status point_license(const struct facts *f, char *detail, size_t n)
{
    const char *license = json_string_value(json_object_get(f->model->hf_card, "license"));
    const struct apr_kv *kv = apr_kvs_find(&f->model->kvs, "general.license");
    if (!license && kv && kv->type == APR_KV_STR) license = kv->v.s.p;
    if (!license) WARN("none is named");
    PASS("%.100s", license);
}

enum point_status point_family(const struct facts *f, char *detail, size_t n)
{
    if (!f->model->arch && f->no_contract) SKIP("the file does not name its architecture");
    if (f->no_contract) WARN("%.100s has no contract", f->model->arch);
    PASS("%s", f->model->family->name);
}
