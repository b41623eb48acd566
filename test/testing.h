/* What every test includes: cmocka, paths, a seeded generator. */
#ifndef FR_TEST_TESTING_H
#define FR_TEST_TESTING_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/status.h"

/* Files of the test tree and of the source tree, by path below it. */
#define TEST_FILE(path)   (FERRY_TEST_DIR "/" path)
#define SOURCE_FILE(path) (FERRY_SOURCE_DIR "/" path)

/* Fails with the text of the error. */
#define assert_ok(expr)                                                                            \
    do {                                                                                           \
        fr_status st_ = (expr);                                                                    \
        if (st_ != FR_OK)                                                                          \
            fail_msg("%s: %s: %s", #expr, fr_status_name(st_), err.text);                          \
    } while (0)

/* xorshift64*: the same numbers everywhere. Start state must not be 0. */
static inline uint64_t test_rand(uint64_t *state)
{
    *state ^= *state >> 12;
    *state ^= *state << 25;
    *state ^= *state >> 27;
    return *state * 0x2545F4914F6CDD1Dull;
}

/* Uniform in [-1, 1). */
static inline float test_rand_f(uint64_t *state)
{
    return (float)((double)(test_rand(state) >> 11) * 0x1p-52 - 1.0);
}

#endif
