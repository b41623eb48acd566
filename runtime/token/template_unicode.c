#include "token/template_unicode.h"

typedef struct {
    uint32_t first, last;
} range;

typedef struct {
    uint32_t first, last;
    int stride, delta;
} case_row;

#define R(first, last)                {first, last},
#define C(first, last, stride, delta) {first, last, stride, delta},
#define S(cp, a, b, c)                {cp, a, b, c},
static const range alpha[] = {
#define TPL_ALPHA
#include "token/template_unicode.def"
};
static const range decimal[] = {
#define TPL_DECIMAL
#include "token/template_unicode.def"
};
static const range unprintable[] = {
#define TPL_UNPRINTABLE
#include "token/template_unicode.def"
};
static const case_row lower[] = {
#define TPL_LOWER
#include "token/template_unicode.def"
};
static const case_row upper[] = {
#define TPL_UPPER
#include "token/template_unicode.def"
};
static const uint32_t special[][4] = {
#define TPL_SPECIAL
#include "token/template_unicode.def"
};
#undef R
#undef C
#undef S

#define COUNT(a) (sizeof(a) / sizeof *(a))

/* The ranges are in order and apart. */
static bool in_ranges(const range *r, size_t n, uint32_t cp)
{
    size_t lo = 0, hi = n;
    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;
        if (cp > r[mid].last)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo < n && r[lo].first <= cp;
}

static uint32_t map_case(const case_row *r, size_t n, uint32_t cp)
{
    size_t lo = 0, hi = n;
    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;
        if (cp > r[mid].last)
            lo = mid + 1;
        else
            hi = mid;
    }
    if (lo == n || cp < r[lo].first || (cp - r[lo].first) % (uint32_t)r[lo].stride)
        return cp;
    return (uint32_t)((int64_t)cp + r[lo].delta);
}

bool tpl_is_space(uint32_t cp)
{
    if (cp < 0x80)
        return cp == ' ' || (cp >= 9 && cp <= 13) || (cp >= 0x1C && cp <= 0x1F);
    return cp == 0x85 || cp == 0xA0 || cp == 0x1680 || (cp >= 0x2000 && cp <= 0x200A) ||
           cp == 0x2028 || cp == 0x2029 || cp == 0x202F || cp == 0x205F || cp == 0x3000;
}

bool tpl_is_line_end(uint32_t cp)
{
    return (cp >= 10 && cp <= 13) || (cp >= 0x1C && cp <= 0x1E) || cp == 0x85 || cp == 0x2028 ||
           cp == 0x2029;
}

bool tpl_is_alpha(uint32_t cp)
{
    if (cp < 0x80)
        return (cp >= 'a' && cp <= 'z') || (cp >= 'A' && cp <= 'Z');
    return in_ranges(alpha, COUNT(alpha), cp);
}

bool tpl_is_decimal(uint32_t cp)
{
    if (cp < 0x80)
        return cp >= '0' && cp <= '9';
    return in_ranges(decimal, COUNT(decimal), cp);
}

bool tpl_is_printable(uint32_t cp)
{
    if (cp < 0x80)
        return cp >= ' ' && cp < 0x7F;
    return cp <= 0x10FFFF && !in_ranges(unprintable, COUNT(unprintable), cp);
}

uint32_t tpl_to_lower(uint32_t cp)
{
    if (cp < 0x80)
        return cp >= 'A' && cp <= 'Z' ? cp + 32 : cp;
    return map_case(lower, COUNT(lower), cp);
}

uint32_t tpl_to_upper(uint32_t cp)
{
    if (cp < 0x80)
        return cp >= 'a' && cp <= 'z' ? cp - 32 : cp;
    return map_case(upper, COUNT(upper), cp);
}

int tpl_full_upper(uint32_t cp, uint32_t out[3])
{
    for (size_t i = 0; cp >= 0x80 && i < COUNT(special); i++) {
        if (special[i][0] != cp)
            continue;
        for (int k = 0; k < 3; k++)
            out[k] = special[i][k + 1];
        return out[2] ? 3 : 2;
    }
    out[0] = tpl_to_upper(cp);
    return 1;
}

bool tpl_is_lower(uint32_t cp)
{
    uint32_t up[3];
    return tpl_full_upper(cp, up) > 1 || up[0] != cp;
}

bool tpl_is_upper(uint32_t cp)
{
    return tpl_to_lower(cp) != cp;
}

int tpl_decode(fr_str s, size_t at, uint32_t *cp)
{
    return fr_utf8_decode(s.p + at, s.n - at, cp);
}

size_t tpl_char_offset(fr_str s, size_t k)
{
    size_t at = 0;
    uint32_t cp;
    while (k-- > 0 && at < s.n)
        at += (size_t)tpl_decode(s, at, &cp);
    return at;
}

size_t tpl_char_before(fr_str s, size_t end)
{
    uint32_t cp;
    for (size_t back = 2; back <= 4 && back <= end; back++)
        if ((size_t)fr_utf8_decode(s.p + end - back, back, &cp) == back)
            return end - back;
    return end - 1;
}
