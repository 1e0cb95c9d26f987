/* Pages for the tests in a WebAssembly module, where no page can be protected: a kernel that reads past the
 * end is found on the other architectures.
 *
 *     void *p = mmap(NULL, 2 * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
 */
#ifndef APR_TEST_CROSS_MMAN_H
#define APR_TEST_CROSS_MMAN_H

#include <stddef.h>
#include <stdlib.h>
#include <string.h>

enum { PROT_NONE = 0, PROT_READ = 1, PROT_WRITE = 2, MAP_PRIVATE = 1, MAP_ANONYMOUS = 2 };
#define MAP_FAILED ((void *)-1)

static inline void *mmap(void *at, size_t n_bytes, int protection, int flags, int file, long off)
{
    void *p = at || file != -1 || off != 0 ? NULL : aligned_alloc(4096, n_bytes);
    (void)protection, (void)flags;
    return p ? memset(p, 0, n_bytes) : MAP_FAILED;
}

static inline int mprotect(void *p, size_t n_bytes, int protection)
{
    (void)p, (void)n_bytes, (void)protection;
    return 0;
}

#endif
