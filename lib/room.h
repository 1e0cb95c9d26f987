/* Large memory: how much there is, and address space that becomes memory as it is written.
 *
 * A room is owned by who opened it. Unlike an arena it may be larger than what will be used.
 *
 *     if (apr_memory_available() > n) p = apr_room_open(n); ... apr_room_close(p, n);
 */
#ifndef APR_ROOM_H
#define APR_ROOM_H

#include <stddef.h>
#include <stdint.h>

/* Bytes that may still be used without swapping: MemAvailable, or what the control group leaves when that is
 * less. 0: cannot be told. */
uint64_t apr_memory_available(void);
/* Zeroed, aligned to a page, on huge pages where the system has them. NULL: not to be had. */
void *apr_room_open(size_t n_bytes);
void apr_room_close(void *p, size_t n_bytes); /* NULL is fine */

#endif
