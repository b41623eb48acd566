/* A bump allocator: many small blocks with one owner and one lifetime (a model's tables, a parsed
 * template). Not thread safe. */
#ifndef FR_BASE_ARENA_H
#define FR_BASE_ARENA_H

#include "base/mem.h"

typedef struct fr_arena_chunk fr_arena_chunk;

typedef struct {
    fr_mem_tag tag;
    fr_arena_chunk *chunks; /* newest first, owned */
} fr_arena;

fr_arena fr_arena_make(fr_mem_tag tag);

/* n * size zero bytes aligned to 16, living until fr_arena_free; NULL with *err set on failure. */
void *fr_arena_alloc(fr_arena *a, size_t n, size_t size, fr_err *err);
#define FR_ARENA_NEW(T, a, n, err) ((T *)fr_arena_alloc((a), (n), sizeof(T), (err)))

/* A terminated copy of n bytes. */
char *fr_arena_strndup(fr_arena *a, const char *s, size_t n, fr_err *err);

void fr_arena_free(fr_arena *a);

#endif
