/* Nothing: WASI has no jumps, and the tests of cross/cmocka.h need none. */
#ifndef APR_TEST_CROSS_SETJMP_H
#define APR_TEST_CROSS_SETJMP_H

#endif
