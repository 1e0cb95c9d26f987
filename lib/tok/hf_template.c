/* Chat templates of a Hugging Face folder.
 *
 * In the order of llama.cpp's converter: tokenizer_config.json, else chat_template.jinja, else
 * chat_template.json. additional_chat_templates/NAME.jinja add names that are not known yet.
 */
#include <dirent.h>
#include <string.h>

#include "../templates.h"
#include "hf.h"

#define ADDITIONAL "additional_chat_templates"
#define SUFFIX     ".jinja"
#define N_SUFFIX   (sizeof SUFFIX - 1)

/* DIR/file as the template of that name, if the file is there. */
static enum apr_code from_file(struct apr_hf_job *j, const char *file, const char *name)
{
    struct apr_buf b;
    bool found = false;
    apr_buf_init(&b, APR_MAX_TEMPLATE_BYTES);
    enum apr_code code = apr_hf_text(j, file, &b, &found);
    if (code == APR_OK && found)
        code = apr_templates_add(j->v, j->arena, name, b.n_bytes > 0 ? (const char *)b.data : "", b.n_bytes,
                                 apr_arena_printf(j->arena, "%s/%s", j->dir, file), j->e);
    apr_buf_free(&b);
    return code;
}

/* Into the sorted list: folders are read in any order. */
static void insert(const char **names, size_t n, const char *name)
{
    size_t at = n;
    for (; at > 0 && strcmp(names[at - 1], name) > 0; at--) names[at] = names[at - 1];
    names[at] = name;
}

static enum apr_code additional(struct apr_hf_job *j)
{
    const char *names[APR_MAX_TEMPLATES], *path = apr_arena_printf(j->arena, "%s/" ADDITIONAL, j->dir);
    struct dirent *d;
    size_t n = 0;
    DIR *dir = opendir(path);
    if (!dir) return APR_OK;
    while ((d = readdir(dir)) && n <= APR_MAX_TEMPLATES) {
        size_t n_name = strlen(d->d_name);
        if (n_name <= N_SUFFIX || strcmp(d->d_name + n_name - N_SUFFIX, SUFFIX) != 0) continue;
        if (n < APR_MAX_TEMPLATES)
            insert(names, n, apr_arena_strndup(j->arena, d->d_name, n_name - N_SUFFIX));
        n++;
    }
    closedir(dir);
    if (n > APR_MAX_TEMPLATES)
        return apr_fail(j->e, APR_EFORMAT, "%s: more than %u chat templates", path, APR_MAX_TEMPLATES);
    for (size_t i = 0; i < n; i++)
        if (!apr_templates_find(j->v, names[i]))
            TRY(from_file(j, apr_arena_printf(j->arena, ADDITIONAL "/%s" SUFFIX, names[i]), names[i]));
    return APR_OK;
}

enum apr_code apr_hf_template(struct apr_hf_job *j)
{
    const char *config = apr_arena_printf(j->arena, "%s/tokenizer_config.json", j->dir);
    const char *file = apr_arena_printf(j->arena, "%s/chat_template.json", j->dir);
    json_t *doc;
    TRY(apr_templates_from_json(j->v, j->arena, json_object_get(j->config, "chat_template"), config, j->e));
    if (json_object_get(j->config, "chat_template") && json_object_del(j->config, "chat_template") != 0)
        return apr_fail(j->e, APR_ELOAD, "%s: out of memory", config);
    if (!j->v->chat_template) TRY(from_file(j, "chat_template.jinja", "default"));
    TRY(additional(j));
    if (j->v->chat_template) return APR_OK;
    TRY(apr_hf_json(j, "chat_template.json", &doc));
    enum apr_code code =
        apr_templates_from_json(j->v, j->arena, json_object_get(doc, "chat_template"), file, j->e);
    json_decref(doc);
    return code;
}
