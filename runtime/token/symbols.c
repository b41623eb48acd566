#include "token/symbols.h"

#include <string.h>

enum { MAX_SYMBOLS = 1 << 30 };

static uint64_t mix(uint64_t h, uint64_t x)
{
    h = (h ^ x) * 0x9E3779B97F4A7C15ull;
    return h ^ (h >> 29);
}

static uint32_t hash_text(const char *p, size_t n)
{
    uint64_t h = n;
    for (; n >= 8; p += 8, n -= 8) {
        uint64_t x;
        memcpy(&x, p, 8);
        h = mix(h, x);
    }
    uint64_t x = 0;
    if (n)
        memcpy(&x, p, n);
    h = mix(h, x);
    return (uint32_t)(h ^ (h >> 32));
}

/* The slot of the text, or the free one where it would go. */
static symbols_slot *slot_of(const symbols *s, uint32_t hash, const char *p, size_t n)
{
    size_t mask = s->n_slots - 1;
    for (size_t i = hash & mask;; i = (i + 1) & mask) {
        symbols_slot *slot = &s->slots[i];
        if (slot->sym == SYMBOL_NONE)
            return slot;
        if (slot->hash == hash && s->texts[slot->sym].n == n &&
            memcmp(s->texts[slot->sym].p, p, n) == 0)
            return slot;
    }
}

static fr_status grow_slots(symbols *s, size_t n_texts, fr_err *err)
{
    size_t n_slots = 64;
    while (n_slots < n_texts * 2)
        n_slots *= 2;
    if (n_slots <= s->n_slots)
        return FR_OK;
    symbols_slot *slots = FR_NEW(symbols_slot, FR_MEM_VOCAB, n_slots, err);
    if (!slots)
        return FR_ENOMEM;
    for (size_t i = 0; i < n_slots; i++)
        slots[i].sym = SYMBOL_NONE;
    for (size_t i = 0; i < s->n_slots; i++) {
        if (s->slots[i].sym == SYMBOL_NONE)
            continue;
        size_t to = s->slots[i].hash & (n_slots - 1);
        while (slots[to].sym != SYMBOL_NONE)
            to = (to + 1) & (n_slots - 1);
        slots[to] = s->slots[i];
    }
    fr_mem_free(s->slots);
    s->slots = slots;
    s->n_slots = n_slots;
    return FR_OK;
}

fr_status symbols_reserve(symbols *s, size_t n, fr_err *err)
{
    if (n > MAX_SYMBOLS)
        return fr_fail(err, FR_ERANGE, "vocabulary: found %zu texts, expected at most %d", n,
                       MAX_SYMBOLS);
    FR_TRY(fr_mem_grow(FR_MEM_VOCAB, (void **)&s->texts, &s->cap, n, sizeof *s->texts, err));
    return grow_slots(s, n, err);
}

fr_status symbols_add(symbols *s, fr_str text, fr_err *err)
{
    if (s->n == s->cap || s->n_slots < (s->n_used + 1) * 2)
        FR_TRY(symbols_reserve(s, s->n + 1, err));
    s->texts[s->n] = text;
    if (text.n > 0) {
        uint32_t hash = hash_text(text.p, text.n);
        symbols_slot *slot = slot_of(s, hash, text.p, text.n);
        s->n_used += slot->sym == SYMBOL_NONE;
        *slot = (symbols_slot){hash, (uint32_t)s->n};
    }
    s->n++;
    return FR_OK;
}

uint32_t symbols_find(const symbols *s, const char *p, size_t n)
{
    if (n == 0 || s->n_slots == 0)
        return SYMBOL_NONE;
    return slot_of(s, hash_text(p, n), p, n)->sym;
}

void symbols_free(symbols *s)
{
    fr_mem_free(s->texts);
    fr_mem_free(s->slots);
    *s = (symbols){0};
}
