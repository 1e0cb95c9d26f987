/* Requests in, results out: lines of a file or pipe answered by a crew.
 *
 * Nothing is read far ahead: a line when there is a place for it. Results leave in the order of the requests,
 * or as they are ready. A line that is wrong is answered by an error and stops nothing.
 *
 *     struct apr_batch b = {.opts = ..., .in = lines, .out = journal, .session = &s};
 *     TRY(apr_batch_known(&b, path, e));    // to resume: what is answered already
 *     TRY(apr_batch_run(&b, e)); b.n_answered, b.n_failed ... apr_batch_free(&b);
 */
#ifndef APR_INFER_BATCH_H
#define APR_INFER_BATCH_H

#include "batch_result.h"
#include "crew_engine.h"
#include "io_lines.h"
#include "log.h"
#include "prompter.h"

#define APR_MAX_REQUEST_BYTES (64u << 20) /* of a line */
#define APR_BATCH_WINDOW      1024u       /* results that wait for an older one */
#define APR_BATCH_HELD_BYTES  (64u << 20) /* and their text */

struct apr_batch_opts {
    size_t n_seats;
    bool unordered, fail_fast, with_tokens, with_times;
    uint64_t i_shard, n_shards; /* lines i with i % n_shards == i_shard are ours */
    struct apr_request_defaults defaults;
    const struct apr_generation *model_sampling; /* NULL: not taken */
};

struct apr_job;
struct apr_batch {
    struct apr_batch_opts opts;
    struct apr_session *session;    /* borrowed, as the files */
    struct apr_prompt_cache *saved; /* opened for the session; NULL: none */
    struct apr_lines *in;
    struct apr_journal *out;
    struct apr_buf known; /* owned: struct apr_result_key of lines answered before, by line */
    uint64_t n_known_left;
    /* So far. Those answered before count, too. */
    uint64_t n_answered, n_failed, n_before, n_prompt_toks, n_reply_toks;
    uint64_t n_steps, n_shared_toks;
    size_t n_seats; /* of the crew */
    uint64_t i_first_failed;
    struct apr_err first_failed; /* of this run */

    struct apr_crew crew;
    struct apr_crew_engine engine;
    struct apr_prompter prompter;
    struct apr_trie *trie;       /* owned; made for the first grammar */
    struct apr_job *head, *tail; /* owned: lines that are not answered, the oldest first */
    struct apr_job *waiting;     /* the youngest of them: there was no room for it yet */
    size_t n_jobs, n_held_bytes;
    bool at_end, is_stopped;
    struct apr_progress progress;
    char label[64];
};

/* Reads the results at path and says how many of their bytes are whole lines. Anything else in it:
 * APR_EFORMAT. */
APR_MUST_USE enum apr_code apr_batch_known(struct apr_batch *b, const char *path, uint64_t *n_whole_bytes,
                                           struct apr_err *e);
/* Failed lines are no error. One that ends the batch: input or output, the model as a whole. */
APR_MUST_USE enum apr_code apr_batch_run(struct apr_batch *b, struct apr_err *e);
void apr_batch_free(struct apr_batch *b);

#endif
