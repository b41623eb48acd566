/* Byte strings: views, a growable buffer, UTF-8, and "did you mean". */
#ifndef FR_BASE_STR_H
#define FR_BASE_STR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/mem.h"

/* A view of n bytes, not terminated, not owned. */
typedef struct {
    const char *p;
    size_t n;
} fr_str;

#define FR_STR(literal) ((fr_str){(literal), sizeof(literal) - 1})
#define FR_STR_ARG(s)   (int)(s).n, (s).p /* for "%.*s" */

fr_str fr_str_of(const char *terminated);
bool fr_str_eq(fr_str a, fr_str b);
bool fr_str_is(fr_str a, const char *terminated);
fr_str fr_str_trim(fr_str s); /* ASCII white space off both ends */

/* A growable buffer; {0} is empty. Always terminated by a 0 that does not count. Owns `p`. */
typedef struct {
    char *p;
    size_t n, cap;
} fr_buf;

fr_status fr_buf_add(fr_buf *b, const char *s, size_t n, fr_err *err);
fr_status fr_buf_puts(fr_buf *b, const char *s, fr_err *err);
fr_status fr_buf_putc(fr_buf *b, char c, fr_err *err);
fr_status fr_buf_printf(fr_buf *b, fr_err *err, const char *fmt, ...) FR_PRINTF(3, 4);
fr_status fr_buf_reserve(fr_buf *b, size_t extra, fr_err *err);
void fr_buf_clear(fr_buf *b); /* keeps the memory */
void fr_buf_free(fr_buf *b);

/* Decodes the character at s[0..n): its length (1..4) and *cp. An invalid or cut sequence has
 * length 1 and *cp = UINT32_MAX. n must be > 0. Over-long forms and surrogates are invalid. */
int fr_utf8_decode(const char *s, size_t n, uint32_t *cp);

/* Writes the 1..4 bytes of a code point to out and returns their number. */
int fr_utf8_encode(uint32_t cp, char out[4]);

/* How many of the last bytes of s[0..n) begin a character that more bytes could complete: 0..3. */
size_t fr_utf8_incomplete_tail(const char *s, size_t n);

/* Edit distance (insert, delete, replace, swap of neighbours = 1 each), capped at `cap`. */
int fr_edit_distance(fr_str a, fr_str b, int cap);

/* The nearest of n names within max_distance, or NULL. names[i] are terminated. */
const char *fr_nearest_name(fr_str word, const char *const *names, size_t n, int max_distance);

/* "13.2 MiB", "376.650 GiB": three significant decimals at most; into out, which it returns. */
char *fr_format_bytes(uint64_t bytes, char out[32]);

#endif
