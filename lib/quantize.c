#include "quantize.h"

#include <stdio.h>
#include <string.h>

#include "log.h"

static enum apr_code find_recipe(const char *name, const struct apr_recipe **recipe, struct apr_err *e)
{
    *recipe = apr_recipe_named(name);
    if (*recipe) return APR_OK;
    char names[512] = "", shown[80];
    const struct apr_recipe *r;
    for (size_t i = 0; (r = apr_recipe_at(i)) != NULL; i++) {
        size_t n = strlen(names);
        snprintf(names + n, sizeof names - n, "%s%s", n ? " " : "", r->name);
    }
    return apr_fail(e, APR_EUSAGE, "--quantize %s: unknown type; expected one of: %s",
                    apr_escape(shown, sizeof shown, name, strlen(name)), names);
}

/* Options that only say how to quantize mean nothing without --quantize. */
static enum apr_code check_alone(const struct apr_quantize_args *args, struct apr_err *e)
{
    const char *said = args->pure                 ? "--pure"
                       : args->tensor_types.n > 0 ? "--tensor-type"
                       : args->output_type        ? "--output-type"
                       : args->embedding_type     ? "--embedding-type"
                       : args->leave_output       ? "--leave-output-tensor"
                       : args->imatrix            ? "--imatrix"
                                                  : NULL;
    if (!said) return APR_OK;
    return apr_fail(e, APR_EUSAGE, "%s says how to quantize; it needs --quantize TYPE", said);
}

enum apr_code apr_quantize_recipe(const struct apr_quantize_args *args, const struct apr_recipe **recipe,
                                  struct apr_err *e)
{
    *recipe = NULL;
    return args->recipe ? find_recipe(args->recipe, recipe, e) : check_alone(args, e);
}

static enum apr_code open_overrides(struct apr_mix_overrides *o, const struct apr_quantize_args *args,
                                    const struct apr_recipe *recipe, struct apr_arena *a, struct apr_err *e)
{
    if (args->tensor_types.n > 0 && (recipe->is_float || recipe->is_native))
        return apr_fail(e, APR_EUSAGE, "--tensor-type has no effect with --quantize %s", recipe->name);
    if (args->leave_output && args->output_type)
        return apr_fail(e, APR_EUSAGE, "--leave-output-tensor and --output-type contradict each other");
    TRY(apr_arena_try(a, &o->picks, args->tensor_types.n, sizeof *o->picks, "--tensor-type", e));
    for (size_t i = 0; i < args->tensor_types.n; i++) {
        TRY(apr_mix_pick_open(&o->picks[o->n_picks], args->tensor_types.at[i], e));
        o->n_picks++;
    }
    o->leave_output = args->leave_output;
    o->has_output_type = args->output_type != NULL;
    o->has_embed_type = args->embedding_type != NULL;
    if (args->output_type) TRY(apr_mix_type_named(args->output_type, "--output-type", &o->output_type, e));
    if (args->embedding_type)
        TRY(apr_mix_type_named(args->embedding_type, "--embedding-type", &o->embed_type, e));
    return APR_OK;
}

enum apr_code apr_quantize_open(struct apr_quantize *q, const struct apr_quantize_args *args,
                                struct apr_arena *a, struct apr_err *e)
{
    *q = (struct apr_quantize){.pure = args->pure, .requantize = args->requantize};
    TRY(apr_quantize_recipe(args, &q->recipe, e));
    if (!q->recipe) return APR_OK;
    TRY(open_overrides(&q->overrides, args, q->recipe, a, e));
    if (!args->imatrix) {
        if (q->recipe->wants_imatrix)
            apr_note("%s without --imatrix loses much; apr imatrix makes one", q->recipe->name);
        return APR_OK;
    }
    if (q->recipe->is_float || q->recipe->is_native)
        return apr_fail(e, APR_EUSAGE, "--imatrix has no effect with --quantize %s", q->recipe->name);
    return apr_imatrix_open(&q->imatrix, args->imatrix, e);
}

void apr_quantize_close(struct apr_quantize *q)
{
    for (size_t i = 0; i < q->overrides.n_picks; i++) apr_mix_pick_close(&q->overrides.picks[i]);
    q->overrides.n_picks = 0;
    apr_imatrix_close(q->imatrix);
    q->imatrix = NULL;
}

void apr_quantize_describe(const struct apr_quantize *q, json_t *o)
{
    const struct apr_mix_overrides *over = &q->overrides;
    json_t *picks = json_array();
    for (size_t i = 0; i < over->n_picks; i++) json_array_append_new(picks, json_string(over->picks[i].text));
    if (over->n_picks > 0) json_object_set(o, "tensor_types", picks);
    json_decref(picks);
    if (over->has_output_type)
        json_object_set_new(o, "output_type", json_string(apr_type_name(over->output_type)));
    if (over->has_embed_type)
        json_object_set_new(o, "embedding_type", json_string(apr_type_name(over->embed_type)));
    if (over->leave_output) json_object_set_new(o, "leave_output_tensor", json_true());
    if (q->imatrix) json_object_set_new(o, "imatrix", apr_imatrix_describe(q->imatrix));
}
