/* The table of formats, and what all of them share. See fmt.h. */
#include "table.h"

#include <inttypes.h>
#include <string.h>
#include <strings.h>

#include "../ckd.h"

static const struct apr_fmt *const table[] = {&apr_fmt_safetensors, &apr_fmt_apr, &apr_fmt_gguf};

const struct apr_fmt *apr_fmt_at(size_t i)
{
    return i < sizeof table / sizeof table[0] ? table[i] : NULL;
}

/* words: space-separated */
static bool has_word(const char *words, const char *word)
{
    size_t n = strlen(word);
    while (words && *words) {
        size_t k = strcspn(words, " ");
        if (k == n && strncasecmp(words, word, n) == 0) return true;
        words += k + (words[k] == ' ');
    }
    return false;
}

const struct apr_fmt *apr_fmt_named(const char *name)
{
    for (size_t i = 0; apr_fmt_at(i); i++)
        if (strcasecmp(table[i]->name, name) == 0 || has_word(table[i]->aliases, name)) return table[i];
    return NULL;
}

const struct apr_fmt *apr_fmt_probe(const uint8_t *head, size_t n)
{
    for (size_t i = 0; apr_fmt_at(i); i++)
        if (table[i]->probe(head, n)) return table[i];
    return NULL;
}

const char *apr_fmt_foreign(const uint8_t *head, size_t n, enum apr_code *code)
{
    static const struct {
        const char *magic;
        size_t n;
        const char *what;
        enum apr_code code;
    } rows[] = {
        {"version https://git-lfs", 23, "a git-lfs pointer, not the file itself (git lfs pull fetches it)",
         APR_EFORMAT},
        {"<!doctype", 9, "an HTML page, not a model", APR_EFORMAT},
        {"<html", 5, "an HTML page, not a model", APR_EFORMAT},
        {"PK\3\4", 4, "a ZIP archive (a PyTorch checkpoint?), expected SafeTensors, .apr or GGUF", APR_ELOAD},
        {"\x80\x02", 2, "a Python pickle, expected SafeTensors, .apr or GGUF", APR_ELOAD},
        {"\x89HDF\r\n", 6, "an HDF5 file, expected SafeTensors, .apr or GGUF", APR_ELOAD},
        {"ggml", 4, "a GGML file, which came before GGUF", APR_ELOAD},
        {"lmgg", 4, "a GGML file, which came before GGUF", APR_ELOAD},
        {"fmgg", 4, "a GGML file, which came before GGUF", APR_ELOAD},
        {"tjgg", 4, "a GGJT file, which came before GGUF", APR_ELOAD},
        {"\x1f\x8b", 2, "gzip data; decompress it first", APR_ELOAD},
    };
    if (n >= 10 && head[8] == '{') return NULL; /* SafeTensors, whatever its length begins with */
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        if (n >= rows[i].n && strncasecmp((const char *)head, rows[i].magic, rows[i].n) == 0) {
            *code = rows[i].code;
            return rows[i].what;
        }
    }
    return NULL;
}

enum apr_code apr_plan_layout(struct apr_plan *p, uint32_t alignment, struct apr_err *e)
{
    uint64_t at = 0;
    p->alignment = alignment;
    for (uint64_t i = 0; i < p->n_tensors; i++) {
        struct apr_plan_tensor *t = &p->tensors[i];
        uint64_t over;
        t->off_data = at;
        if (ckd_add(&at, at, t->n_bytes))
            return apr_fail(e, APR_EFORMAT, "tensor \"%s\": the sizes overflow", t->name);
        over = at % alignment;
        if (over && ckd_add(&at, at, alignment - over))
            return apr_fail(e, APR_EFORMAT, "tensor \"%s\": the sizes overflow", t->name);
    }
    p->n_data_bytes = at;
    return APR_OK;
}
