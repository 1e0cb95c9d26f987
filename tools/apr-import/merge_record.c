#include "merge_record.h"

#include "provenance.h"

static void add_model(json_t *models, json_t *sources, const struct apr_model *m, const char *role)
{
    json_t *own = apr_provenance_of(m), *row = json_object();
    json_object_set_new(row, "name", json_string(m->name));
    json_object_set_new(row, "role", json_string(role));
    json_object_update_missing(row, own);
    json_array_append_new(models, row);
    json_array_extend(sources, json_object_get(own, "sources"));
    json_decref(own);
}

/* What the method took. */
static void add_params(json_t *step, const struct merge *g)
{
    const struct merge_params *p = &g->params;
    const unsigned takes = g->method->takes;
    json_object_set_new(step, "method", json_string(g->method->name));
    if (takes & MERGE_WEIGHTS) {
        json_t *weights = json_array();
        for (size_t k = 0; k < g->n_inputs; k++) json_array_append_new(weights, json_real(p->weights[k]));
        json_object_set_new(step, "weights", weights);
    }
    if (takes & MERGE_T) json_object_set_new(step, "t", json_real(p->t));
    if (takes & MERGE_LAMBDA) json_object_set_new(step, "lambda", json_real(p->lambda));
    if (takes & MERGE_DENSITY) json_object_set_new(step, "density", json_real(p->density));
    if (!(takes & MERGE_DROP)) return;
    json_object_set_new(step, "drop_rate", json_real(p->drop_rate));
    json_object_set_new(step, "seed", json_integer((json_int_t)p->seed));
}

json_t *merge_record(const struct merge *g, const struct apr_recipe *recipe, bool pure)
{
    json_t *p = json_object(), *sources = json_array(), *models = json_array(), *steps = json_array();
    for (size_t k = 0; k < g->n_inputs; k++) add_model(models, sources, g->inputs[k], "merged");
    if (g->base) add_model(models, sources, g->base, "base");
    json_object_set_new(p, "sources", sources);
    json_object_set_new(p, "models", models);
    json_object_set_new(p, "steps", steps);
    apr_provenance_step(p, "merge", recipe, pure);
    add_params(json_array_get(steps, 0), g);
    return p;
}
