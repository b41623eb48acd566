#include "gguf/gguf_internal.h"

#include <string.h>

enum { MIN_SLOTS = 64 };

/* FNV-1a with a final mix, since the low bits choose the slot. */
static uint64_t hash(fr_str s)
{
    uint64_t h = 0xCBF29CE484222325ull;
    for (size_t i = 0; i < s.n; i++)
        h = (h ^ (uint8_t)s.p[i]) * 0x100000001B3ull;
    return h ^ h >> 32;
}

/* The slot that holds the name, or the free slot where it belongs. */
static uint32_t *slot_of(const gguf_index *x, const void *items, gguf_name_fn name, fr_str wanted)
{
    size_t mask = x->n_slots - 1;
    for (size_t at = hash(wanted) & mask;; at = (at + 1) & mask) {
        uint32_t *slot = &x->slots[at];
        if (*slot == 0 || fr_str_eq(name(items, *slot - 1), wanted))
            return slot;
    }
}

static fr_status grow(gguf_index *x, const void *items, gguf_name_fn name, fr_err *err)
{
    gguf_index bigger = {.n_slots = x->n_slots ? 2 * x->n_slots : MIN_SLOTS, .n = x->n};
    bigger.slots = FR_NEW(uint32_t, FR_MEM_GGUF, bigger.n_slots, err);
    if (!bigger.slots)
        return FR_ENOMEM;
    for (size_t i = 0; i < x->n_slots; i++)
        if (x->slots[i])
            *slot_of(&bigger, items, name, name(items, x->slots[i] - 1)) = x->slots[i];
    gguf_index_free(x);
    *x = bigger;
    return FR_OK;
}

fr_status gguf_index_add(gguf_index *x, const void *items, gguf_name_fn name, size_t i,
                         size_t *other, fr_err *err)
{
    if (2 * (x->n + 1) > x->n_slots)
        FR_TRY(grow(x, items, name, err));
    uint32_t *slot = slot_of(x, items, name, name(items, i));
    if (*slot == 0) {
        *slot = (uint32_t)i + 1;
        x->n++;
    }
    *other = *slot - 1;
    return FR_OK;
}

bool gguf_index_find(const gguf_index *x, const void *items, gguf_name_fn name, fr_str wanted,
                     size_t *i)
{
    if (x->n == 0)
        return false;
    uint32_t slot = *slot_of(x, items, name, wanted);
    *i = (size_t)slot - 1;
    return slot != 0;
}

void gguf_index_free(gguf_index *x)
{
    fr_mem_free(x->slots);
    *x = (gguf_index){0};
}

fr_str gguf_kv_name(const void *kvs, size_t i)
{
    return ((const fr_gguf_kv *)kvs)[i].key;
}

fr_str gguf_tensor_name(const void *tensors, size_t i)
{
    return fr_str_of(((const fr_gguf_tensor *)tensors)[i].name);
}
