/* What the caches hold, and what may be taken out of them.
 *
 * An entry is a repository of the hub cache, or a file below APR_HOME (a model built here, or a download).
 * Broken links and folders that cannot be read are skipped with a warning, never the rest of the cache.
 *
 *     struct stock s; TRY(stock_read(&s, arena, e)); for (i = 0; i < s.n; i++) use(&s.at[i]);
 */
#ifndef APR_PULL_STOCK_H
#define APR_PULL_STOCK_H

#include <stdbool.h>
#include <stdint.h>

#include "arena.h"
#include "err.h"

struct stock_entry {
    const char *name;     /* "org/name", or the path below APR_HOME */
    const char *kind;     /* "hub", "built", "download" */
    const char *format;   /* of the weights: "safetensors", "gguf", "apr", or "-" */
    const char *revision; /* of hub entries: the refs, else the commits, separated by commas; NULL */
    const char *path;
    uint64_t n_bytes; /* on the disk, unfinished downloads included */
    uint64_t n_files;
    bool complete; /* no unfinished download in it */
};

struct stock {
    const char *hub_root, *apr_root;
    struct stock_entry *at;
    uint64_t n, n_bytes;
};

APR_MUST_USE enum apr_code stock_read(struct stock *s, struct apr_arena *a, struct apr_err *e);

#endif
