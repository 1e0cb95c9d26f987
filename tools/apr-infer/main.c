/* apr-infer: everything that computes with a model. */
#include "verbs.h"

static const struct apr_verb *const verbs[] = {
    &verb_run,      &verb_batch,   &verb_logits, &verb_eval,  &verb_check,   &verb_bench,   &verb_tokenize,
    &verb_template, &verb_imatrix, &verb_embed,  &verb_trace, &verb_profile, &verb_ptx_map, &verb_parity};

static const struct apr_tool tool = {
    .name = "apr-infer", .verbs = verbs, .n_verbs = sizeof verbs / sizeof verbs[0]};

int main(int argc, char **argv)
{
    return apr_tool_main(&tool, argc, argv);
}
