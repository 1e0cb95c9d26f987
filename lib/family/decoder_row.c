/* The four functions of an ordinary decoder's row, all told by its struct apr_decoder. */
#include <math.h>

#include "decoder.h"
#include "hf_write.h"
#include "keys.h"
#include "moe.h"

static enum apr_code window_from_hf(const struct apr_decoder *d, const json_t *config, struct apr_config *c,
                                    const char *file, struct apr_err *e)
{
    bool found;
    switch (d->window) {
    case APR_WINDOW_NONE:
        return APR_OK;
    case APR_WINDOW_ALL:
        return apr_window_from_hf(config, 0, c, file, e);
    case APR_WINDOW_LISTED:
        TRY(apr_layer_types_from_hf(config, c, &found, file, e));
        return found ? APR_OK : apr_window_from_hf(config, 0, c, file, e);
    case APR_WINDOW_QWEN:
        return apr_qwen_window_from_hf(config, c, file, e);
    case APR_WINDOW_PATTERN:
        return apr_pattern_from_hf(config, d->window_pattern, d->window_default, c, file, e);
    }
    return APR_OK;
}

/* What neither document says. */
static void set_fixed(const struct apr_decoder *d, struct apr_config *c)
{
    if (d->embed_sqrt) c->embed_scale = sqrt(c->n_hidden);
    if (d->learned_positions) c->n_positions = c->n_ctx_train;
}

enum apr_code apr_decoder_row_from_hf(const struct apr_family *f, const json_t *config, struct apr_config *c,
                                      const char *file, struct apr_err *e)
{
    const struct apr_decoder *d = f->decoder;
    TRY(apr_decoder_from_hf(d, config, c, file, e));
    c->norm_plus_one = d->norm_plus_one;
    for (size_t i = 0; d->refused && d->refused[i]; i++) TRY(apr_refuse_true(config, d->refused[i], file, e));
    set_fixed(d, c);
    if (d->moe) TRY(apr_moe_from_hf(d->moe, config, c, file, e));
    TRY(window_from_hf(d, config, c, file, e));
    return d->more_from_hf ? d->more_from_hf(config, c, file, e) : APR_OK;
}

enum apr_code apr_decoder_row_from_gguf(const struct apr_family *f, const struct apr_kvs *kvs,
                                        struct apr_config *c, const char *file, struct apr_err *e)
{
    const struct apr_decoder *d = f->decoder;
    TRY(apr_decoder_from_gguf(d, kvs, c, file, e));
    set_fixed(d, c);
    if (d->window != APR_WINDOW_NONE) TRY(apr_window_from_gguf(d, kvs, d->window_pattern, c, file, e));
    return d->more_from_gguf ? d->more_from_gguf(d, kvs, c, file, e) : APR_OK;
}

void apr_decoder_row_to_gguf(const struct apr_family *f, const struct apr_config *c, const json_t *hf_config,
                             uint32_t file_type, struct apr_kvs *kvs)
{
    const struct apr_decoder *d = f->decoder;
    apr_keys_write(d->keys,
                   &(struct apr_keys){
                       .arch = d->gguf_arch, .c = c, .hf = hf_config, .file_type = file_type, .kvs = kvs});
}

void apr_decoder_row_to_hf(const struct apr_family *f, const struct apr_config *c, json_t *config)
{
    const struct apr_decoder *d = f->decoder;
    apr_decoder_to_hf(d, c, config);
    for (size_t i = 0; d->refused && d->refused[i]; i++)
        json_object_set_new(config, d->refused[i], json_false());
    if (d->more_to_hf) d->more_to_hf(c, config);
}
