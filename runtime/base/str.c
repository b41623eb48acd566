#include "base/str.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

fr_str fr_str_of(const char *s)
{
    return (fr_str){s, strlen(s)};
}

bool fr_str_eq(fr_str a, fr_str b)
{
    return a.n == b.n && (a.n == 0 || memcmp(a.p, b.p, a.n) == 0);
}

bool fr_str_is(fr_str a, const char *s)
{
    return fr_str_eq(a, fr_str_of(s));
}

static bool is_space(char c)
{
    return c == ' ' || (c >= '\t' && c <= '\r');
}

fr_str fr_str_trim(fr_str s)
{
    while (s.n && is_space(s.p[0]))
        s.p++, s.n--;
    while (s.n && is_space(s.p[s.n - 1]))
        s.n--;
    return s;
}

fr_status fr_buf_reserve(fr_buf *b, size_t extra, fr_err *err)
{
    if (extra > PTRDIFF_MAX - b->n - 1)
        return fr_fail(err, FR_ENOMEM, "text buffer: %zu more bytes could not be had", extra);
    void *p = b->p;
    FR_TRY(fr_mem_grow(FR_MEM_TEXT, &p, &b->cap, b->n + extra + 1, 1, err));
    b->p = p;
    b->p[b->n] = 0;
    return FR_OK;
}

fr_status fr_buf_add(fr_buf *b, const char *s, size_t n, fr_err *err)
{
    FR_TRY(fr_buf_reserve(b, n, err));
    if (n)
        memcpy(b->p + b->n, s, n);
    b->n += n;
    b->p[b->n] = 0;
    return FR_OK;
}

fr_status fr_buf_puts(fr_buf *b, const char *s, fr_err *err)
{
    return fr_buf_add(b, s, strlen(s), err);
}

fr_status fr_buf_putc(fr_buf *b, char c, fr_err *err)
{
    return fr_buf_add(b, &c, 1, err);
}

fr_status fr_buf_printf(fr_buf *b, fr_err *err, const char *fmt, ...)
{
    va_list ap, again;
    va_start(ap, fmt);
    va_copy(again, ap);
    int n = vsnprintf(NULL, 0, fmt, ap);
    va_end(ap);
    fr_status st = n < 0 ? fr_fail(err, FR_EINTERNAL, "format '%s' failed", fmt)
                         : fr_buf_reserve(b, (size_t)n, err);
    if (st == FR_OK) {
        vsnprintf(b->p + b->n, (size_t)n + 1, fmt, again);
        b->n += (size_t)n;
    }
    va_end(again);
    return st;
}

void fr_buf_clear(fr_buf *b)
{
    b->n = 0;
    if (b->p)
        b->p[0] = 0;
}

void fr_buf_free(fr_buf *b)
{
    fr_mem_free(b->p);
    *b = (fr_buf){0};
}

/* Length of the sequence that a lead byte announces; 0 when no sequence starts so. */
static int lead_length(unsigned char c)
{
    if (c < 0x80)
        return 1;
    if (c >= 0xC2 && c <= 0xDF)
        return 2;
    if (c >= 0xE0 && c <= 0xEF)
        return 3;
    if (c >= 0xF0 && c <= 0xF4)
        return 4;
    return 0;
}

/* Whether byte i >= 1 may stand after `lead`: Unicode 15, table 3-7. */
static bool valid_follower(unsigned char lead, int i, unsigned char c)
{
    unsigned lo = 0x80, hi = 0xBF;
    if (i == 1) {
        if (lead == 0xE0)
            lo = 0xA0;
        else if (lead == 0xED)
            hi = 0x9F;
        else if (lead == 0xF0)
            lo = 0x90;
        else if (lead == 0xF4)
            hi = 0x8F;
    }
    return c >= lo && c <= hi;
}

int fr_utf8_decode(const char *s, size_t n, uint32_t *cp)
{
    const unsigned char *u = (const unsigned char *)s;
    int len = lead_length(u[0]);
    *cp = UINT32_MAX;
    if (len == 0 || (size_t)len > n)
        return 1;
    uint32_t v = len == 1 ? u[0] : u[0] & (0x7Fu >> len);
    for (int i = 1; i < len; i++) {
        if (!valid_follower(u[0], i, u[i]))
            return 1;
        v = v << 6 | (u[i] & 0x3F);
    }
    *cp = v;
    return len;
}

int fr_utf8_encode(uint32_t cp, char out[4])
{
    if (cp < 0x80) {
        out[0] = (char)cp;
        return 1;
    }
    int len = cp < 0x800 ? 2 : cp < 0x10000 ? 3 : 4;
    for (int i = len - 1; i > 0; i--, cp >>= 6)
        out[i] = (char)(0x80 | (cp & 0x3F));
    out[0] = (char)((0xF00 >> len & 0xFF) | cp);
    return len;
}

size_t fr_utf8_incomplete_tail(const char *s, size_t n)
{
    const unsigned char *u = (const unsigned char *)s;
    for (size_t back = 1; back <= 3 && back <= n; back++) {
        unsigned char lead = u[n - back];
        if ((lead & 0xC0) == 0x80)
            continue;
        if ((size_t)lead_length(lead) <= back)
            return 0;
        for (size_t i = 1; i < back; i++)
            if (!valid_follower(lead, (int)i, u[n - back + i]))
                return 0;
        return back;
    }
    return 0;
}

static int min3(int a, int b, int c)
{
    int m = a < b ? a : b;
    return m < c ? m : c;
}

int fr_edit_distance(fr_str a, fr_str b, int cap)
{
    enum { MAX = 128 };
    if (a.n > MAX || b.n > MAX)
        return cap;
    int row[3][MAX + 1];
    for (size_t j = 0; j <= b.n; j++)
        row[0][j] = (int)j;
    for (size_t i = 1; i <= a.n; i++) {
        int *cur = row[i % 3], *prev = row[(i + 2) % 3], *prev2 = row[(i + 1) % 3];
        cur[0] = (int)i;
        for (size_t j = 1; j <= b.n; j++) {
            cur[j] = min3(prev[j] + 1, cur[j - 1] + 1, prev[j - 1] + (a.p[i - 1] != b.p[j - 1]));
            if (i > 1 && j > 1 && a.p[i - 1] == b.p[j - 2] && a.p[i - 2] == b.p[j - 1] &&
                prev2[j - 2] + 1 < cur[j])
                cur[j] = prev2[j - 2] + 1;
        }
    }
    int d = row[a.n % 3][b.n];
    return d < cap ? d : cap;
}

const char *fr_nearest_name(fr_str word, const char *const *names, size_t n, int max_distance)
{
    const char *best = NULL;
    int best_d = max_distance + 1;
    for (size_t i = 0; i < n; i++) {
        int d = fr_edit_distance(word, fr_str_of(names[i]), best_d);
        if (d < best_d) {
            best_d = d;
            best = names[i];
        }
    }
    return best;
}

char *fr_format_bytes(uint64_t bytes, char out[32])
{
    static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
    double v = (double)bytes;
    int u = 0;
    while (v >= 1024 && u < 6)
        v /= 1024, u++;
    if (u == 0)
        snprintf(out, 32, "%llu B", (unsigned long long)bytes);
    else
        snprintf(out, 32, "%.*f %s", u >= 3 ? 3 : 1, v, units[u]);
    return out;
}
