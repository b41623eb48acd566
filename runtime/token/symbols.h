/* Texts with numbers: token i of a vocabulary is symbol i, and texts that only merge rules mention
 * come after them. Look-up by text in constant time. */
#ifndef FR_TOKEN_SYMBOLS_H
#define FR_TOKEN_SYMBOLS_H

#include "base/arena.h"
#include "base/str.h"

#define SYMBOL_NONE UINT32_MAX

typedef struct {
    uint32_t hash;
    uint32_t sym; /* SYMBOL_NONE: the slot is free */
} symbols_slot;

/* {0} is empty. Owns all its memory; the bytes of the texts belong to the caller. */
typedef struct {
    fr_str *texts; /* n of them, by symbol */
    size_t n, cap;
    symbols_slot *slots; /* n_slots, a power of two, open addressing */
    size_t n_slots, n_used;
} symbols;

/* Makes room, so that `n` texts can be added without growing. FR_ERANGE beyond 2^30 texts. */
fr_status symbols_reserve(symbols *s, size_t n, fr_err *err);

/* Appends a text as symbol number s->n. When the text was there before, the look-up gives the new
 * symbol from now on. An empty text gets a number but cannot be found. */
fr_status symbols_add(symbols *s, fr_str text, fr_err *err);

/* The symbol of a text, or SYMBOL_NONE. */
uint32_t symbols_find(const symbols *s, const char *p, size_t n);

void symbols_free(symbols *s);

#endif
