/* Changing what a file says about its model, the tensors left alone.
 *
 * A format's half makes the new beginning of the file (everything before the data); this half decides how it
 * gets into the file. Where old and new beginning are equally long and differ inside one block of 4096 bytes,
 * that block is replaced by one write. Otherwise the file is written anew beside the old one and takes its
 * place by a rename. So the file is whole at every moment.
 *
 *     struct edit d = {.path = "m.gguf", .over = &over}; TRY(edit_gguf(&d, m, e)); TRY(edit_write(&d, e));
 */
#ifndef APR_IMPORT_EDIT_H
#define APR_IMPORT_EDIT_H

#include "override.h"

struct edit {
    const char *path;
    struct apr_override *over; /* .apr: applied; GGUF: set and chat_template are read */
    struct apr_strs unset;
    uint64_t n_reserve_bytes; /* GGUF: room for later edits */
    struct apr_src *src;      /* the file, open */
    struct apr_buf head;      /* the new beginning; owned by the caller */
    uint64_t n_old_head;      /* bytes that it replaces */
    uint32_t alignment;       /* of the data */
    bool is_part;             /* of a split set, whose other parts are not at hand for a check */
    bool has_footer;          /* the last four bytes are a CRC-32 of all others */
    enum { EDIT_NOTHING, EDIT_IN_PLACE, EDIT_REWRITTEN } done; /* out */
    uint64_t n_written_bytes;                                  /* out */
};

APR_MUST_USE enum apr_code edit_gguf(struct edit *d, struct apr_arena *a, struct apr_err *e);
APR_MUST_USE enum apr_code edit_apr(struct edit *d, struct apr_model *m, struct apr_arena *a,
                                    struct apr_err *e);
/* Of n bytes: the first that differs, and the number of bytes from there to the last. */
void edit_difference(const uint8_t *a, const uint8_t *b, size_t n, size_t *first, size_t *n_differ);
APR_MUST_USE enum apr_code edit_write(struct edit *d, struct apr_err *e);

#endif
