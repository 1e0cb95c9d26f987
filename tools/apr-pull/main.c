/* apr-pull: models from a hub, a URL or a folder into the cache. The only tool that speaks to the network. */
#include "verbs.h"

static const struct apr_verb *const verbs[] = {&verb_pull, &verb_list, &verb_ls, &verb_rm, &verb_remove};

static const struct apr_tool tool = {
    .name = "apr-pull", .verbs = verbs, .n_verbs = sizeof verbs / sizeof verbs[0]};

int main(int argc, char **argv)
{
    return apr_tool_main(&tool, argc, argv);
}
