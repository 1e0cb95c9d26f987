/* What exists on one architecture only: a table of such things is written once, with rows for all of them.
 *
 * APR_IF_X86_64(p), APR_IF_AARCH64(p), APR_IF_WASM32(p) are p in a build for that architecture, else NULL.
 * Files that are for one architecture or one instruction set are chosen by their names (Makefile). Usage:
 *
 *     {"avx2", APR_IF_X86_64(&apr_kern_avx2), APR_IF_X86_64(apr_cpu_has_avx2)},
 */
#ifndef APR_ARCH_H
#define APR_ARCH_H

#include <stddef.h>

#if defined(__x86_64__)
#define APR_IF_X86_64(p)  p
#define APR_IF_AARCH64(p) NULL
#define APR_IF_WASM32(p)  NULL
#elif defined(__aarch64__)
#define APR_IF_X86_64(p)  NULL
#define APR_IF_AARCH64(p) p
#define APR_IF_WASM32(p)  NULL
#elif defined(__wasm32__)
#define APR_IF_X86_64(p)  NULL
#define APR_IF_AARCH64(p) NULL
#define APR_IF_WASM32(p)  p
#else
#define APR_IF_X86_64(p)  NULL
#define APR_IF_AARCH64(p) NULL
#define APR_IF_WASM32(p)  NULL
#endif

#endif
