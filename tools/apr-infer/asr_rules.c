/* Special tokens and rules of decoding: Radford et al. (2022), 2.3 and 4.5. See asr_rules.h. */
#include "asr_rules.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "json.h"

#define DOC "generation_config.json"

/* ---- tokens ------------------------------------------------------------------------------------------- */

static int32_t by_text(const struct apr_model *m, const char *text)
{
    const struct apr_vocab *v = &m->vocab;
    size_t n = strlen(text);
    for (uint32_t i = 0; i < v->n_toks; i++)
        if (v->toks[i].n_bytes == n && memcmp(v->toks[i].p, text, n) == 0) return (int32_t)i;
    return -1;
}

/* A key of generation_config.json, else of config.json. */
static const json_t *setting(const struct apr_model *m, const char *key)
{
    const json_t *v = json_object_get(m->hf_generation, key);
    if (!v || json_is_null(v)) v = json_object_get(m->hf_config, key);
    return v && !json_is_null(v) ? v : NULL;
}

static enum apr_code take_id(const struct apr_asr_tokens *t, const json_t *v, const char *key, int32_t *id,
                             struct apr_err *e)
{
    if (!v) return APR_OK;
    if (!json_is_integer(v) || json_integer_value(v) < 0 || (size_t)json_integer_value(v) >= t->n_vocab)
        return apr_fail(e, APR_EFORMAT, DOC ": $.%s: expected a token id below %zu", key, t->n_vocab);
    *id = (int32_t)json_integer_value(v);
    return APR_OK;
}

static enum apr_code take_ids(const struct apr_asr_tokens *t, const json_t *v, const char *key,
                              struct apr_arena *arena, const int32_t **ids, size_t *n, struct apr_err *e)
{
    int32_t *at;
    *ids = NULL;
    *n = 0;
    if (!v) return APR_OK;
    if (!json_is_array(v)) return apr_fail(e, APR_EFORMAT, DOC ": $.%s: expected a list of token ids", key);
    TRY(apr_arena_try(arena, &at, json_array_size(v) + 1, sizeof *at, key, e));
    for (size_t i = 0; i < json_array_size(v); i++) TRY(take_id(t, json_array_get(v, i), key, &at[i], e));
    *ids = at;
    *n = json_array_size(v);
    return APR_OK;
}

/* "<|de|>": two or three small letters. */
static bool is_lang(const struct apr_str *s)
{
    if (s->n_bytes < 6 || s->n_bytes > 7 || memcmp(s->p, "<|", 2) != 0 ||
        memcmp(s->p + s->n_bytes - 2, "|>", 2) != 0)
        return false;
    for (size_t i = 2; i < s->n_bytes - 2; i++)
        if (s->p[i] < 'a' || s->p[i] > 'z') return false;
    return true;
}

static bool is_control(const struct apr_vocab *v, uint32_t i)
{
    return !v->types || v->types[i] == APR_TOK_CONTROL || v->types[i] == APR_TOK_USER;
}

static enum apr_code langs_of_config(struct apr_asr_tokens *t, const json_t *map, struct apr_arena *arena,
                                     struct apr_err *e)
{
    const char *key;
    json_t *v;
    TRY(apr_arena_try(arena, &t->langs, json_object_size(map) + 1, sizeof *t->langs, "languages", e));
    json_object_foreach((json_t *)(uintptr_t)map, key, v)
    {
        struct apr_str s = {.p = key, .n_bytes = strlen(key)};
        struct apr_asr_lang *lang = &t->langs[t->n_langs++];
        TRY(take_id(t, v, "lang_to_id", &lang->id, e));
        lang->code =
            is_lang(&s) ? apr_arena_strndup(arena, key + 2, s.n_bytes - 4) : apr_arena_strdup(arena, key);
    }
    return APR_OK;
}

/* The languages lie between the start token and the tasks. */
static enum apr_code langs_of_vocab(struct apr_asr_tokens *t, const struct apr_vocab *v,
                                    struct apr_arena *arena, struct apr_err *e)
{
    if (t->transcribe < 0) return APR_OK;
    TRY(apr_arena_try(arena, &t->langs, v->n_toks, sizeof *t->langs, "languages", e));
    for (uint32_t i = 0; i < v->n_toks; i++) {
        if (!is_control(v, i) || !is_lang(&v->toks[i])) continue;
        t->langs[t->n_langs++] = (struct apr_asr_lang){
            .code = apr_arena_strndup(arena, v->toks[i].p + 2, v->toks[i].n_bytes - 4), .id = (int32_t)i};
    }
    return APR_OK;
}

static enum apr_code read_langs(struct apr_asr_tokens *t, const struct apr_model *m, struct apr_arena *arena,
                                struct apr_err *e)
{
    const json_t *map = setting(m, "lang_to_id"), *multi = setting(m, "is_multilingual");
    if (json_is_false(multi)) {
        t->transcribe = t->translate = -1; /* there by name, but the model was not taught them */
        return APR_OK;
    }
    if (json_object_size(map)) return langs_of_config(t, map, arena, e);
    return langs_of_vocab(t, &m->vocab, arena, e);
}

static enum apr_code read_tasks(struct apr_asr_tokens *t, const struct apr_model *m, struct apr_err *e)
{
    const json_t *tasks = setting(m, "task_to_id");
    TRY(take_id(t, json_object_get(tasks, "transcribe"), "task_to_id.transcribe", &t->transcribe, e));
    TRY(take_id(t, json_object_get(tasks, "translate"), "task_to_id.translate", &t->translate, e));
    TRY(take_id(t, setting(m, "no_timestamps_token_id"), "no_timestamps_token_id", &t->no_timestamps, e));
    TRY(take_id(t, setting(m, "prev_sot_token_id"), "prev_sot_token_id", &t->previous, e));
    return take_id(t, setting(m, "max_initial_timestamp_index"), "max_initial_timestamp_index", &t->max_first,
                   e);
}

/* forced_decoder_ids: [[1, language or null], [2, task], ...], what a fine-tuned model is meant for. */
static enum apr_code read_forced(struct apr_asr_tokens *t, const struct apr_model *m, struct apr_err *e)
{
    const json_t *list = setting(m, "forced_decoder_ids");
    if (!list) return APR_OK;
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *id = json_array_get(json_array_get(list, i), 1);
        int32_t forced = -1;
        if (json_array_size(json_array_get(list, i)) != 2)
            return apr_fail(e, APR_EFORMAT, DOC ": $.forced_decoder_ids[%zu]: expected [position, token id]",
                            i);
        TRY(take_id(t, json_is_null(id) ? NULL : id, "forced_decoder_ids", &forced, e));
        for (size_t k = 0; k < t->n_langs; k++)
            if (t->langs[k].id == forced) t->lang = &t->langs[k];
        if (forced >= 0 && forced == t->translate) t->is_translator = true;
    }
    return APR_OK;
}

enum apr_code apr_asr_tokens_read(struct apr_asr_tokens *t, const struct apr_model *m,
                                  struct apr_arena *arena, struct apr_err *e)
{
    const json_t *end = setting(m, "eos_token_id");
    *t = (struct apr_asr_tokens){.n_vocab = m->config.n_vocab,
                                 .start = by_text(m, "<|startoftranscript|>"),
                                 .end = by_text(m, "<|endoftext|>"),
                                 .transcribe = by_text(m, "<|transcribe|>"),
                                 .translate = by_text(m, "<|translate|>"),
                                 .no_timestamps = by_text(m, "<|notimestamps|>"),
                                 .no_speech = by_text(m, "<|nospeech|>"),
                                 .previous = by_text(m, "<|startofprev|>"),
                                 .solo = by_text(m, "<|startoflm|>"),
                                 .max_first = 50};
    if (t->no_speech < 0) t->no_speech = by_text(m, "<|nocaptions|>");
    TRY(take_id(t, setting(m, "decoder_start_token_id"), "decoder_start_token_id", &t->start, e));
    TRY(take_id(t, json_is_array(end) ? json_array_get(end, 0) : end, "eos_token_id", &t->end, e));
    TRY(read_tasks(t, m, e));
    TRY(read_langs(t, m, arena, e));
    TRY(read_forced(t, m, e));
    TRY(take_ids(t, setting(m, "suppress_tokens"), "suppress_tokens", arena, &t->never, &t->n_never, e));
    TRY(take_ids(t, setting(m, "begin_suppress_tokens"), "begin_suppress_tokens", arena, &t->not_first,
                 &t->n_not_first, e));
    t->time0 = t->no_timestamps >= 0 && (size_t)t->no_timestamps + 1 < t->n_vocab ? t->no_timestamps + 1 : -1;
    if (t->start < 0 || t->end < 0)
        return apr_fail(e, APR_ELOAD, "%s: no token is named that begins or ends a transcript", m->path);
    return APR_OK;
}

const struct apr_asr_lang *apr_asr_lang(const struct apr_asr_tokens *t, const char *code)
{
    for (size_t i = 0; i < t->n_langs; i++)
        if (strcmp(t->langs[i].code, code) == 0) return &t->langs[i];
    return NULL;
}

/* ---- rules -------------------------------------------------------------------------------------------- */

static void ban(float *logits, size_t begin, size_t end)
{
    for (size_t i = begin; i < end; i++) logits[i] = -INFINITY;
}

static void ban_list(const struct apr_asr_tokens *t, const int32_t *ids, size_t n, float *logits)
{
    for (size_t i = 0; i < n; i++)
        if (ids[i] >= 0 && (size_t)ids[i] < t->n_vocab) logits[ids[i]] = -INFINITY;
}

double apr_asr_logsumexp(const float *x, size_t n)
{
    double most = -INFINITY, sum = 0;
    for (size_t i = 0; i < n; i++)
        if ((double)x[i] > most) most = (double)x[i];
    if (!(most > -INFINITY)) return most;
    for (size_t i = 0; i < n; i++) sum += exp((double)x[i] - most);
    return most + log(sum);
}

/* What may follow the times said so far. */
static void order_of_times(const struct apr_asr_tokens *t, const int32_t *said, size_t n_said, float *logits)
{
    const size_t time0 = (size_t)t->time0;
    bool after_time = n_said >= 1 && said[n_said - 1] >= t->time0;
    bool after_text = n_said >= 2 && said[n_said - 2] < t->time0; /* before that time came text */
    if (after_time && after_text)
        ban(logits, 0, (size_t)t->end); /* a segment was closed: the next one opens, or all ends */
    else if (after_time)
        ban(logits, time0, t->n_vocab); /* a segment was opened: text */
    for (size_t i = n_said; i-- > 0;) {
        if (said[i] < t->time0) continue;
        /* times never go back, and a segment is never empty: only an opening time may repeat the closing one
         */
        size_t first = (size_t)said[i] + (after_time && after_text ? 0 : 1);
        ban(logits, time0, first < t->n_vocab ? first : t->n_vocab);
        break;
    }
}

static void times(const struct apr_asr_tokens *t, const int32_t *said, size_t n_said, float *logits)
{
    const size_t time0 = (size_t)t->time0, last_first = time0 + (size_t)t->max_first + 1;
    float most = -INFINITY;
    logits[t->no_timestamps] = -INFINITY;
    order_of_times(t, said, n_said, logits);
    if (n_said == 0) {
        ban(logits, 0, time0);
        if (last_first < t->n_vocab) ban(logits, last_first, t->n_vocab);
    }
    for (size_t i = 0; i < time0; i++)
        if (logits[i] > most) most = logits[i];
    if (apr_asr_logsumexp(logits + time0, t->n_vocab - time0) > (double)most) ban(logits, 0, time0);
}

void apr_asr_filter(const struct apr_asr_tokens *t, const int32_t *said, size_t n_said, bool with_timestamps,
                    float *logits)
{
    const int32_t marks[] = {t->transcribe, t->translate, t->previous, t->solo, t->no_speech};
    if (n_said == 0) ban_list(t, t->not_first, t->n_not_first, logits);
    ban_list(t, t->never, t->n_never, logits);
    ban_list(t, marks, sizeof marks / sizeof *marks, logits);
    if (t->start != t->end) logits[t->start] = -INFINITY;
    if (with_timestamps && t->time0 >= 0) times(t, said, n_said, logits);
}
