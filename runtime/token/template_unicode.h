/* What templates need to know about characters: white space, letters, case, what repr() escapes.
 * The tables in template_unicode.def follow Unicode 14, as Python 3.11 does. */
#ifndef FR_TOKEN_TEMPLATE_UNICODE_H
#define FR_TOKEN_TEMPLATE_UNICODE_H

#include "base/str.h"

bool tpl_is_space(uint32_t cp); /* str.isspace, and \s in patterns */
bool tpl_is_alpha(uint32_t cp);
bool tpl_is_decimal(uint32_t cp);
bool tpl_is_printable(uint32_t cp);
bool tpl_is_line_end(uint32_t cp); /* str.splitlines */

/* Simple mappings; the character itself when it has no case. */
uint32_t tpl_to_lower(uint32_t cp);
uint32_t tpl_to_upper(uint32_t cp);

/* Letters that are lower case: those that have another, full upper case. */
bool tpl_is_lower(uint32_t cp);
bool tpl_is_upper(uint32_t cp);

/* The full upper-case mapping: 1 to 3 characters ("ß" gives "SS"). */
int tpl_full_upper(uint32_t cp, uint32_t out[3]);

/* Byte offset of the k-th character of s (s.n when it has fewer). */
size_t tpl_char_offset(fr_str s, size_t k);

/* The first byte of the character that ends before s.p[end], end > 0. */
size_t tpl_char_before(fr_str s, size_t end);

/* Decodes the character at s.p[at), at < s.n; as fr_utf8_decode. */
int tpl_decode(fr_str s, size_t at, uint32_t *cp);

#endif
