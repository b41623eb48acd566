/* Tokens to bytes. */
#include <string.h>

#include "token/vocab_internal.h"

static bool is_hidden(fr_token_kind kind)
{
    return kind == FR_TOKEN_CONTROL || kind == FR_TOKEN_UNKNOWN;
}

static fr_status add_token(const fr_vocab *v, int32_t id, bool special, fr_buf *out, fr_err *err)
{
    fr_token_kind kind = v->kinds[id];
    fr_str text = v->sy.texts[id];
    if (is_hidden(kind))
        return special ? fr_buf_add(out, text.p, text.n, err) : FR_OK;
    int byte = kind == FR_TOKEN_BYTE ? spm_byte_of(text) : -1;
    if (byte >= 0)
        return fr_buf_putc(out, (char)byte, err);
    if (kind == FR_TOKEN_USER_DEFINED)
        return fr_buf_add(out, text.p, text.n, err);
    return v->is_spm ? spm_decode_text(text, out, err) : bpe_decode_text(text, out, err);
}

static void cut(fr_buf *b, size_t n)
{
    if (b->p) {
        b->n = n;
        b->p[n] = 0;
    }
}

fr_status fr_token_bytes(const fr_vocab *v, int32_t id, bool special, fr_buf *out, fr_err *err)
{
    if (id < 0 || (uint32_t)id >= v->n)
        return fr_fail(err, FR_ERANGE, "token: found id %d, expected one below %u", id, v->n);
    size_t before = out->n;
    fr_status st = add_token(v, id, special, out, err);
    if (st != FR_OK)
        cut(out, before);
    return st;
}

/* Takes the blank off the front of what begins at `at`. */
static void drop_blank(fr_buf *b, size_t at)
{
    if (b->p[at] != ' ')
        return;
    memmove(b->p + at, b->p + at + 1, b->n - at); /* the terminating 0 moves too */
    b->n--;
}

fr_status fr_detok_push(const fr_vocab *v, fr_detok *d, int32_t id, bool special, fr_buf *out,
                        fr_err *err)
{
    size_t before = out->n;
    fr_status st = fr_buf_add(out, d->held, d->n_held, err);
    size_t own = out->n;
    if (st == FR_OK)
        st = fr_token_bytes(v, id, special, out, err);
    if (st != FR_OK) {
        cut(out, before);
        return st;
    }
    if (out->n > own && !d->past_first) {
        d->past_first = true;
        if (v->adds_blank)
            drop_blank(out, own);
    }
    size_t n = fr_utf8_incomplete_tail(out->p + before, out->n - before);
    memcpy(d->held, out->p + out->n - n, n & 3); /* n is at most 3 */
    d->n_held = n;
    cut(out, out->n - n);
    return FR_OK;
}

fr_status fr_detok_flush(fr_detok *d, fr_buf *out, fr_err *err)
{
    FR_TRY(fr_buf_add(out, d->held, d->n_held, err));
    d->n_held = 0;
    return FR_OK;
}
