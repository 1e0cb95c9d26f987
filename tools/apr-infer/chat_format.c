/* The table of formats. See chat_format.h. */
#include "chat_format.h"

#include <ctype.h>
#include <string.h>

/* bos_token and eos_token are joined with ~: a model may have none of them. The order is that of the names'
 * rules: the first row that matches wins. */
static const struct apr_chat_format formats[] = {
    {"ChatML",
     {"qwen", "openhermes", "yi-"},
     "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}{% endfor %}"
     "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"},
    {"Zephyr",
     {"tinyllama", "zephyr", "stablelm"},
     "{% for m in messages %}{% if m.role == 'system' %}{{ '<|system|>\n' }}{% elif m.role == 'user' %}"
     "{{ '<|user|>\n' }}{% else %}{{ '<|assistant|>\n' }}{% endif %}{{ m.content ~ eos_token ~ '\n' }}{% "
     "endfor %}"
     "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}"},
    {"Mistral",
     {"mistral", "mixtral"},
     "{{ bos_token }}{% for m in messages %}{% if m.role == 'assistant' %}{{ ' ' + m.content ~ eos_token }}"
     "{% elif m.role == 'user' %}{{ '[INST] ' + m.content + ' [/INST]' }}"
     "{% else %}{{ raise_exception('the Mistral format has no system message') }}{% endif %}{% endfor %}"},
    {"Llama2",
     {"llama", "vicuna"},
     "{% set sys = '' %}{% set rest = messages %}{% if messages[0].role == 'system' %}"
     "{% set sys = '<<SYS>>\n' + messages[0].content + '\n<</SYS>>\n\n' %}{% set rest = messages[1:] %}{% "
     "endif %}"
     "{% for m in rest %}{% if m.role == 'assistant' %}{{ ' ' + m.content + ' ' ~ eos_token }}{% else %}"
     "{{ bos_token ~ '[INST] ' }}{% if loop.first %}{{ sys }}{% endif %}{{ m.content + ' [/INST]' }}{% endif "
     "%}"
     "{% endfor %}"},
    {"Phi",
     {"phi-", "phi2", "phi3"},
     "{% for m in messages %}{% if m.role == 'system' %}{{ m.content + '\n' }}{% elif m.role == 'user' %}"
     "{{ 'Instruct: ' + m.content + '\n' }}{% else %}{{ 'Output: ' + m.content + '\n' }}{% endif %}{% endfor "
     "%}"
     "{% if add_generation_prompt %}{{ 'Output:' }}{% endif %}"},
    {"Alpaca",
     {"alpaca"},
     "{% for m in messages %}{% if m.role == 'system' %}{{ m.content + '\n\n' }}{% elif m.role == 'user' %}"
     "{{ '### Instruction:\n' + m.content + '\n\n' }}{% else %}{{ '### Response:\n' + m.content + '\n\n' }}"
     "{% endif %}{% endfor %}{% if add_generation_prompt %}{{ '### Response:\n' }}{% endif %}"},
    {"Raw", {NULL}, NULL},
};
#define N_FORMATS (sizeof formats / sizeof *formats)

const struct apr_chat_format *apr_chat_format_at(size_t i)
{
    return i < N_FORMATS ? &formats[i] : NULL;
}

const struct apr_chat_format *apr_chat_format_named(const char *name)
{
    for (size_t i = 0; i < N_FORMATS; i++)
        if (strcmp(formats[i].name, name) == 0) return &formats[i];
    return NULL;
}

static const char *by_name(const char *model_name)
{
    char lower[256];
    size_t n = 0;
    for (; model_name[n] && n + 1 < sizeof lower; n++) lower[n] = (char)tolower((unsigned char)model_name[n]);
    lower[n] = '\0';
    for (size_t i = 0; i < N_FORMATS; i++)
        for (size_t k = 0; k < sizeof formats[i].names / sizeof *formats[i].names && formats[i].names[k]; k++)
            if (strstr(lower, formats[i].names[k])) return formats[i].name;
    return NULL;
}

const char *apr_chat_detect(const struct apr_chat_hints *h)
{
    const char *name = NULL;
    if (h->has_im || (h->tmpl && strstr(h->tmpl, "<|im_start|>"))) return "ChatML";
    if (h->tmpl) {
        if (strstr(h->tmpl, "[INST]")) return "Llama2";
        return strstr(h->tmpl, "### Instruction:") ? "Alpaca" : "Custom";
    }
    if (h->model_name) name = by_name(h->model_name);
    if (!name && h->has_inst)
        name = "Llama2"; /* Mistral's vocabulary has the markers too: its name decides */
    return name ? name : "Raw";
}
