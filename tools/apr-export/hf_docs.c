#include "hf_docs.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "family/differ.h"
#include "fmt/sentence.h"
#include "json.h"
#include "log.h"
#include "rope_tables.h"
#include "templates.h"

#define MAX_INDENT (2 * APR_JSON_MAX_DEPTH)

/* ---- text --------------------------------------------------------------------------------------------- */

static enum apr_code new_line(struct apr_buf *out, unsigned depth, struct apr_err *e)
{
    char line[1 + MAX_INDENT];
    size_t n = 2 * (size_t)depth < MAX_INDENT ? 2 * (size_t)depth : MAX_INDENT;
    line[0] = '\n';
    memset(line + 1, ' ', n);
    return apr_buf_append(out, line, 1 + n, e);
}

static size_t string_end(const char *s, size_t n, size_t at)
{
    for (at++; at < n && s[at] != '"'; at++) at += s[at] == '\\';
    return at;
}

enum apr_code hf_docs_pretty(const char *s, size_t n, struct apr_buf *out, struct apr_err *e)
{
    unsigned depth = 0;
    for (size_t i = 0; i < n; i++) {
        if (s[i] == '"') {
            size_t end = string_end(s, n, i);
            TRY(apr_buf_append(out, s + i, end - i + 1, e));
            i = end;
            continue;
        }
        if (s[i] == '}' || s[i] == ']') {
            depth--;
            TRY(new_line(out, depth, e));
        }
        TRY(apr_buf_append(out, s + i, 1, e));
        if (s[i] == ':') TRY(apr_buf_append(out, " ", 1, e));
        if (s[i] == ',') TRY(new_line(out, depth, e));
        if (s[i] != '{' && s[i] != '[') continue;
        if (i + 1 < n && (s[i + 1] == '}' || s[i + 1] == ']')) {
            TRY(apr_buf_append(out, s + ++i, 1, e));
            continue;
        }
        TRY(new_line(out, ++depth, e));
    }
    return apr_buf_append(out, "\n", 1, e);
}

enum apr_code hf_docs_put(const char *dir, const char *name, const struct apr_buf *text, struct apr_err *e)
{
    struct apr_arena a;
    struct apr_sink *s;
    apr_arena_init(&a);
    enum apr_code code = apr_sink_open(&s, apr_arena_printf(&a, "%s/%s", dir, name), false, e);
    apr_arena_free(&a);
    TRY(code);
    apr_sink_write(s, text->data, text->n_bytes);
    return apr_sink_finish(s, e);
}

static enum apr_code put_json(const char *dir, const char *name, const json_t *v, struct apr_err *e)
{
    struct apr_buf compact, text;
    apr_buf_init(&compact, APR_JSON_MAX_BYTES);
    apr_buf_init(&text, SIZE_MAX / 2);
    enum apr_code code = apr_json_dump(v, false, &compact, e);
    if (code == APR_OK) code = hf_docs_pretty((const char *)compact.data, compact.n_bytes, &text, e);
    if (code == APR_OK) code = hf_docs_put(dir, name, &text, e);
    apr_buf_free(&compact);
    apr_buf_free(&text);
    return code;
}

/* ---- config.json -------------------------------------------------------------------------------------- */

/* What most bytes are stored as, in the spelling of "torch_dtype". */
static const char *dtype_of(const struct apr_plan *plan)
{
    static const struct {
        enum apr_type type;
        const char *name;
    } rows[] = {{APR_F32, "float32"}, {APR_F16, "float16"}, {APR_BF16, "bfloat16"}, {APR_F64, "float64"}};
    uint64_t n_most = 0;
    const char *name = NULL;
    for (size_t k = 0; k < sizeof rows / sizeof *rows; k++) {
        uint64_t n = 0;
        for (uint64_t i = 0; i < plan->n_tensors; i++)
            if (plan->tensors[i].type == rows[k].type) n += plan->tensors[i].n_bytes;
        if (n > n_most) name = rows[k].name;
        if (n > n_most) n_most = n;
    }
    return name;
}

static void put_uint(json_t *obj, const char *key, uint64_t v)
{
    json_object_set_new(obj, key, json_integer((json_int_t)v));
}

static void put_id(json_t *obj, const char *key, int64_t id)
{
    if (id != APR_ID_NONE) json_object_set_new(obj, key, json_integer(id));
}

static json_t *config_of_keys(const struct apr_model *m, const struct apr_config *c)
{
    json_t *j = json_object(), *archs = json_array();
    json_array_append_new(archs, json_string(m->family->hf_architectures[0]));
    json_object_set_new(j, "architectures", archs);
    put_id(j, "bos_token_id", m->vocab.bos_id);
    put_id(j, "eos_token_id", m->vocab.eos_id);
    json_object_set_new(j, "model_type", json_string(m->family->hf_model_types[0]));
    m->family->to_hf(m->family, c, j);
    return j;
}

/* The rebuilt document must mean what the keys meant: the family's own reading of it is compared. */
static enum apr_code check_config(const struct apr_model *m, const struct apr_config *want,
                                  const json_t *config, struct apr_err *e)
{
    struct apr_config back;
    TRY(m->family->from_hf(m->family, config, &back, "config.json", e));
    const char *what = apr_config_differs(want, &back);
    if (!what) return APR_OK;
    return apr_fail(e, APR_ELOAD, "%s: config.json: %s of a model of family %s cannot be told in it", m->path,
                    what, m->family->name);
}

static enum apr_code rebuild_config(struct apr_model *m, json_t **out, struct apr_err *e)
{
    struct apr_config c = m->config;
    if (!m->family || !m->family->to_hf)
        return apr_fail(e, APR_ELOAD, "%s: config.json: cannot be made for this model's family", m->path);
    TRY(rope_from_tables(m, &c, e));
    json_t *j = config_of_keys(m, &c);
    enum apr_code code = check_config(m, &c, j, e);
    if (code == APR_OK)
        apr_note(
            "config.json: rebuilt from the model's hyper-parameters; settings for training are not known");
    else
        json_decref(j);
    *out = j;
    return code;
}

static enum apr_code make_config(struct apr_model *m, const struct apr_plan *plan, json_t **out,
                                 struct apr_err *e)
{
    const char *dtype = dtype_of(plan);
    json_t *j = m->hf_config ? json_deep_copy(m->hf_config) : NULL;
    bool untied = false;
    if (!j) TRY(rebuild_config(m, &j, e));
    if (dtype)
        json_object_set_new(j, json_object_get(j, "dtype") ? "dtype" : "torch_dtype", json_string(dtype));
    for (uint64_t i = 0; i < plan->n_tensors; i++)
        untied |= strcmp(plan->tensors[i].name, "lm_head.weight") == 0;
    if (untied && m->config.tied) json_object_set_new(j, "tie_word_embeddings", json_false());
    *out = j;
    return APR_OK;
}

/* ---- the other documents ------------------------------------------------------------------------------ */

static json_t *make_generation(const struct apr_model *m)
{
    const struct apr_generation *g = &m->generation;
    if (m->hf_generation) return json_incref(m->hf_generation);
    if (m->hf_config) return NULL; /* the source had none */
    json_t *j = json_object(), *eos = json_array();
    put_id(j, "bos_token_id", m->vocab.bos_id);
    if (g->has_temperature) json_object_set_new(j, "do_sample", json_boolean(g->do_sample));
    for (uint32_t i = 0; i < g->n_eos; i++) json_array_append_new(eos, json_integer(g->eos_ids[i]));
    json_object_set_new(j, "eos_token_id", eos);
    put_id(j, "pad_token_id", m->vocab.pad_id);
    if (g->has_repetition_penalty)
        json_object_set_new(j, "repetition_penalty", json_real(g->repetition_penalty));
    if (g->has_temperature) json_object_set_new(j, "temperature", json_real(g->temperature));
    if (g->has_top_k) json_object_set_new(j, "top_k", json_integer(g->top_k));
    if (g->has_top_p) json_object_set_new(j, "top_p", json_real(g->top_p));
    if (g->has_min_p) json_object_set_new(j, "min_p", json_real(g->min_p));
    if (!g->has_temperature) apr_note("generation_config.json: the source tells end tokens only");
    return j;
}

static void put_token(const struct apr_vocab *v, json_t *obj, const char *key, int64_t id)
{
    if (id < 0 || id >= v->n_toks) return;
    json_t *text = json_stringn(v->toks[id].p, v->toks[id].n_bytes);
    if (text) json_object_set_new(obj, key, text);
}

static json_t *make_tok_config(const struct apr_model *m)
{
    const struct apr_vocab *v = &m->vocab;
    json_t *j = m->hf_tok_config ? json_deep_copy(m->hf_tok_config) : json_object();
    if (!m->hf_tok_config) {
        if (v->add_bos >= 0) json_object_set_new(j, "add_bos_token", json_boolean(v->add_bos));
        if (v->add_eos >= 0) json_object_set_new(j, "add_eos_token", json_boolean(v->add_eos));
        put_token(v, j, "bos_token", v->bos_id);
        put_token(v, j, "eos_token", v->eos_id);
        put_token(v, j, "pad_token", v->pad_id);
        put_token(v, j, "unk_token", v->unk_id);
        put_token(v, j, "sep_token", v->sep_id);
        put_token(v, j, "cls_token", v->cls_id);
        put_token(v, j, "mask_token", v->mask_id);
        if (m->config.n_ctx_train) put_uint(j, "model_max_length", m->config.n_ctx_train);
        json_object_set_new(j, "clean_up_tokenization_spaces", json_false());
        json_object_set_new(j, "tokenizer_class",
                            json_string(v->hf_class ? v->hf_class : "PreTrainedTokenizerFast"));
    }
    json_t *templates = apr_templates_to_json(v);
    if (templates) json_object_set_new(j, "chat_template", templates);
    return j;
}

/* Every JSON value is a YAML value; lists stand one item a line, as model cards have them. */
static enum apr_code card_text(const json_t *card, struct apr_buf *b, struct apr_err *e)
{
    const char *key;
    json_t *v;
    TRY(apr_buf_append(b, "---\n", 4, e));
    json_object_foreach((json_t *)(uintptr_t)card, key, v)
    {
        size_t n = json_is_array(v) ? json_array_size(v) : 0;
        if (*key && strspn(key, "abcdefghijklmnopqrstuvwxyz_") == strlen(key))
            TRY(apr_buf_append(b, key, strlen(key), e));
        else
            TRY(apr_json_put_str(b, key, strlen(key), e));
        TRY(apr_buf_append(b, n ? ":\n" : ": ", 2, e));
        for (size_t i = 0; i < n; i++) {
            TRY(apr_buf_append(b, "- ", 2, e));
            TRY(apr_json_dump(json_array_get(v, i), false, b, e));
            TRY(apr_buf_append(b, "\n", 1, e));
        }
        if (n) continue;
        TRY(apr_json_dump(v, false, b, e));
        TRY(apr_buf_append(b, "\n", 1, e));
    }
    return apr_buf_append(b, "---\n", 4, e);
}

static enum apr_code write_card(const struct apr_model *m, const char *dir, struct apr_err *e)
{
    struct apr_buf b;
    if (!json_object_size(m->hf_card)) return APR_OK;
    apr_buf_init(&b, SIZE_MAX / 2);
    enum apr_code code = card_text(m->hf_card, &b, e);
    if (code == APR_OK) code = hf_docs_put(dir, "README.md", &b, e);
    apr_buf_free(&b);
    return code;
}

static enum apr_code write_tokenizer(const struct apr_model *m, const char *dir, struct apr_err *e)
{
    struct apr_buf b;
    bool known = false;
    if (m->vocab.kind == APR_VOCAB_NONE) {
        apr_warn("%s: no tokenizer found; the folder has none", m->path);
        return APR_OK;
    }
    apr_buf_init(&b, SIZE_MAX / 2);
    enum apr_code code = hf_tokenizer_text(m, &b, &known, e);
    if (code == APR_OK && known) code = hf_docs_put(dir, "tokenizer.json", &b, e);
    apr_buf_free(&b);
    TRY(code);
    json_t *config = make_tok_config(m);
    code = put_json(dir, "tokenizer_config.json", config, e);
    json_decref(config);
    return code;
}

/* Documents of sentence-transformers, some in folders of their own. */
static enum apr_code write_sentence(const struct apr_model *m, const char *dir, struct apr_err *e)
{
    const char *name;
    json_t *doc;
    json_object_foreach(m->hf_sentence, name, doc)
    {
        const char *slash = strchr(name, '/');
        char path[PATH_MAX];
        if (!apr_sentence_is_document(name))
            return apr_fail(e, APR_EFORMAT, "%s: metadata: apr.hf.sentence_transformers: unknown file name",
                            m->path);
        int n = slash ? snprintf(path, sizeof path, "%s/%.*s", dir, (int)(slash - name), name) : 0;
        if (slash && (n <= 0 || (size_t)n >= sizeof path || (mkdir(path, 0777) != 0 && errno != EEXIST)))
            return apr_fail(e, APR_EIO, "%s/%s: cannot create its folder: %m", dir, name);
        TRY(put_json(dir, name, doc, e));
    }
    return APR_OK;
}

enum apr_code hf_docs_write(struct apr_model *m, const struct apr_plan *plan, const char *dir,
                            struct apr_err *e)
{
    json_t *config, *generation;
    TRY(make_config(m, plan, &config, e));
    enum apr_code code = put_json(dir, "config.json", config, e);
    json_decref(config);
    generation = make_generation(m);
    if (code == APR_OK && generation) code = put_json(dir, "generation_config.json", generation, e);
    json_decref(generation);
    if (code == APR_OK) code = write_tokenizer(m, dir, e);
    if (code == APR_OK) code = write_sentence(m, dir, e);
    return code == APR_OK ? write_card(m, dir, e) : code;
}
