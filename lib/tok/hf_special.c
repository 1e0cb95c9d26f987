/* Special ids of a Hugging Face folder.
 *
 * The rules, and the order in which ids become known, are those of llama.cpp's converter: the
 * post-processor's template may name BOS and EOS, tokenizer_config.json's texts come first, config.json's ids
 * fill the rest.
 */
#include <string.h>

#include "hf.h"

enum { BOS, EOS, UNK, SEP, PAD, CLS, MASK, EOT, N_TYPES };

static const char *const type_names[N_TYPES] = {"bos", "eos", "unk", "sep", "pad", "cls", "mask", "eot"};

struct special {
    struct apr_hf_job *j;
    const char *text[N_TYPES]; /* NULL: not named */
    int8_t add[N_TYPES];       /* -1: not said */
};

static bool same(const char *a, const char *b)
{
    return a && b && strcmp(a, b) == 0;
}

/* tokenizer_config.json: "bos_token": "<s>" or {"content": "<s>"}. */
static const char *config_text(const json_t *config, const char *type)
{
    char key[32];
    snprintf(key, sizeof key, "%s_token", type);
    const json_t *v = json_object_get(config, key);
    const char *s = json_string_value(json_is_object(v) ? json_object_get(v, "content") : v);
    return s && *s ? s : NULL;
}

static const char *special_of(const json_t *item)
{
    return json_string_value(json_object_get(json_object_get(item, "SpecialToken"), "id"));
}

static void read_single(struct special *s, const json_t *single, const char **first, const char **last)
{
    size_t n = json_array_size(single);
    bool config = s->j->config != NULL;
    if (n < 2) return;
    *first = special_of(json_array_get(single, 0));
    *last = special_of(json_array_get(single, n - 1));
    if (*first) {
        bool known = same(*first, s->text[BOS]) || same(*first, s->text[CLS]);
        if (!config || (!known && !s->text[BOS])) s->text[BOS] = *first;
        if (config && !known && !s->text[CLS]) s->text[CLS] = *first;
        s->add[BOS] = same(*first, s->text[BOS]) || same(*first, s->text[CLS]);
    }
    if (*last) {
        /* A template that ends in another token than EOS: the old one ends a turn. */
        if (config && !same(*last, s->text[EOS]) && !s->text[EOT]) s->text[EOT] = s->text[EOS];
        s->text[EOS] = *last;
        s->add[EOS] = 1;
    }
}

/* "pair" between A and B, without the outer tokens of "single": one or two separators. */
static void read_pair(struct special *s, const json_t *pair, const char *first, const char *last)
{
    size_t start = 0, end = json_array_size(pair);
    if (end == 0) return;
    if (first && same(special_of(json_array_get(pair, 0)), first)) start = 1;
    if (last && same(special_of(json_array_get(pair, end - 1)), last)) end--;
    if (end < start + 3) return;
    const json_t *a = json_object_get(json_array_get(pair, start), "Sequence");
    const json_t *b = json_object_get(json_array_get(pair, end - 1), "Sequence");
    if (!same(json_string_value(json_object_get(a, "id")), "A") ||
        !same(json_string_value(json_object_get(b, "id")), "B"))
        return;
    const char *one = special_of(json_array_get(pair, start + 1));
    const char *two = end - start == 4 ? special_of(json_array_get(pair, start + 2)) : NULL;
    bool one_is = one && (same(one, s->text[SEP]) || same(one, s->text[EOS]));
    bool two_is = two && (same(two, s->text[SEP]) || same(two, s->text[EOS]));
    s->add[SEP] = (one_is && !last) || two_is;
    if (s->add[SEP] == 1 && !s->text[SEP] && s->j->config) s->text[SEP] = s->text[EOS];
}

static void read_processor(struct special *s, const json_t *p)
{
    const char *type = json_string_value(json_object_get(p, "type"));
    if (same(type, "RobertaProcessing")) {
        s->add[BOS] = s->add[EOS] = s->add[SEP] = 1;
        const char *cls = json_string_value(json_array_get(json_object_get(p, "cls"), 0));
        const char *sep = json_string_value(json_array_get(json_object_get(p, "sep"), 0));
        if (!s->text[CLS]) s->text[CLS] = cls ? cls : s->text[BOS];
        if (!s->text[SEP]) s->text[SEP] = sep ? sep : s->text[EOS];
    }
    if (!same(type, "TemplateProcessing")) return;
    const char *first = NULL, *last = NULL;
    read_single(s, json_object_get(p, "single"), &first, &last);
    read_pair(s, json_object_get(p, "pair"), first, last);
}

static int64_t id_of(const struct special *s, const char *text)
{
    size_t i;
    const json_t *tok;
    json_array_foreach(json_object_get(s->j->v->hf, "added_tokens"), i,
                       tok) if (same(json_string_value(json_object_get(tok, "content")),
                                     text)) return json_integer_value(json_object_get(tok, "id"));
    return APR_ID_NONE;
}

/* The first that is given counts. An id outside the vocabulary names nothing and is left out. */
static void set_id(struct special *s, int type, int64_t id)
{
    struct apr_vocab *v = s->j->v;
    int64_t *const ids[N_TYPES] = {&v->bos_id, &v->eos_id, &v->unk_id,  &v->sep_id,
                                   &v->pad_id, &v->cls_id, &v->mask_id, &v->eot_id};
    if (id < 0 || id >= (int64_t)v->n_toks || *ids[type] != APR_ID_NONE) return;
    *ids[type] = id;
    v->special_order[v->n_special_order++] = type_names[type];
}

static void read_tokenizer_config(struct special *s)
{
    for (int type = 0; type < N_TYPES && s->j->config; type++) {
        char key[32];
        snprintf(key, sizeof key, "add_%s_token", type_names[type]);
        const json_t *add = json_object_get(s->j->config, key);
        if (json_is_boolean(add)) s->add[type] = json_is_true(add);
        if (s->text[type]) set_id(s, type, id_of(s, s->text[type]));
    }
}

static void read_config(struct special *s)
{
    for (int type = 0; type < EOT; type++) {
        char key[32];
        snprintf(key, sizeof key, "%s_token_id", type_names[type]);
        const json_t *id = json_object_get(s->j->hf_config, key);
        if (!id || json_is_null(id))
            id = json_object_get(json_object_get(s->j->hf_config, "text_config"), key);
        if (json_is_integer(id)) set_id(s, type, json_integer_value(id)); /* Llama 3.1 has a list: no id */
    }
}

enum apr_code apr_hf_special(struct apr_hf_job *j)
{
    struct special s = {.j = j};
    for (int type = 0; type < N_TYPES; type++) {
        s.add[type] = -1;
        if (type != EOT) s.text[type] = config_text(j->config, type_names[type]);
    }
    if (!s.text[BOS] && j->config) s.text[BOS] = s.text[CLS];
    if (!s.text[EOS] && j->config) s.text[EOS] = s.text[SEP];
    const json_t *post = json_object_get(j->v->hf, "post_processor"), *item;
    const json_t *list = json_object_get(post, "processors");
    size_t i;
    if (!json_is_array(list)) read_processor(&s, post);
    json_array_foreach(list, i, item)
    {
        read_processor(&s, item);
    }
    read_tokenizer_config(&s);
    read_config(&s);
    j->v->add_bos = s.add[BOS];
    j->v->add_eos = s.add[EOS];
    j->v->add_sep = s.add[SEP];
    return APR_OK;
}
