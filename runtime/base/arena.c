#include "base/arena.h"

#include <string.h>

struct fr_arena_chunk {
    fr_arena_chunk *next;
    size_t used, size;
    _Alignas(16) unsigned char bytes[];
};

enum { CHUNK_BYTES = 64 * 1024 };

fr_arena fr_arena_make(fr_mem_tag tag)
{
    return (fr_arena){.tag = tag};
}

static fr_arena_chunk *add_chunk(fr_arena *a, size_t bytes, fr_err *err)
{
    size_t size = bytes > CHUNK_BYTES ? bytes : CHUNK_BYTES;
    fr_arena_chunk *c = fr_mem_array(a->tag, 1, sizeof *c + size, err);
    if (!c)
        return NULL;
    c->size = size;
    /* A large block gets a chunk of its own behind the current one, which may still have room. */
    if (bytes > CHUNK_BYTES && a->chunks) {
        c->next = a->chunks->next;
        a->chunks->next = c;
    } else {
        c->next = a->chunks;
        a->chunks = c;
    }
    return c;
}

void *fr_arena_alloc(fr_arena *a, size_t n, size_t size, fr_err *err)
{
    size_t bytes;
    if (__builtin_mul_overflow(n, size, &bytes) || bytes > PTRDIFF_MAX - 4096) {
        fr_fail(err, FR_ENOMEM, "memory for %s: %zu x %zu bytes could not be had",
                fr_mem_tag_name(a->tag), n, size);
        return NULL;
    }
    bytes = (bytes + 15) & ~(size_t)15;
    fr_arena_chunk *c = a->chunks;
    if (!c || c->size - c->used < bytes)
        c = add_chunk(a, bytes, err);
    if (!c)
        return NULL;
    void *p = c->bytes + c->used;
    c->used += bytes;
    return p;
}

char *fr_arena_strndup(fr_arena *a, const char *s, size_t n, fr_err *err)
{
    char *p = fr_arena_alloc(a, n + 1, 1, err);
    if (p && n)
        memcpy(p, s, n);
    return p;
}

void fr_arena_free(fr_arena *a)
{
    for (fr_arena_chunk *c = a->chunks, *next; c; c = next) {
        next = c->next;
        fr_mem_free(c);
    }
    a->chunks = NULL;
}
