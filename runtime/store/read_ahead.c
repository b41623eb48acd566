/* Reading ahead of the threads that repack: a few threads that mostly sleep in the kernel fill a
 * ring of buffers, piece after piece, past the page cache, with several requests in flight.
 *
 * Pieces that are in the page cache are left to who wants them: copying from there is work, and the
 * bytes are then in the right core's cache. So are pieces of files that cannot be read this way;
 * the system is told to fetch those. */
#include "store/store_internal.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>

enum {
    N_READERS = 4,    /* requests in flight */
    N_SPARE = 4,      /* buffers that are filled while every thread works on one */
    MOST_THREADS = 32 /* that work at a time; more would only take memory */
};

typedef enum {
    SLOT_FREE,
    SLOT_READING,
    SLOT_FULL,
    SLOT_LEFT, /* to who wants it */
    SLOT_FAILED
} slot_state;

typedef struct {
    int64_t piece; /* that it holds, or is for next */
    slot_state state;
    uint8_t *room;
    const uint8_t *bytes; /* FULL: in room */
    fr_err err;           /* FAILED */
} slot;

struct store_ahead {
    const store_span_source *source;
    int64_t n_pieces;
    fr_file *direct;         /* one a file of the source; closed: not read past the page cache */
    atomic_bool *has_direct; /* one a file of the source */
    uint8_t *rooms;          /* of all slots; owned */
    slot *slots;
    int64_t n_slots;
    pthread_t readers[N_READERS];
    int n_readers;
    pthread_mutex_t mutex; /* of all below, and of the slots but what their reader writes */
    pthread_cond_t filled, freed;
    int64_t next; /* to be read */
    bool stop;
};

/* ---- reading ------------------------------------------------------------------------------------
 */

static slot_state read_piece(store_ahead *a, int64_t piece, slot *s)
{
    store_span span = a->source->span(a->source->user, piece);
    const fr_file *f = a->source->files[span.i_file];
    atomic_bool *has_direct = &a->has_direct[span.i_file];
    if (fr_file_is_cached(f, span.from, span.n))
        return SLOT_LEFT;
    if (atomic_load(has_direct)) {
        s->err = (fr_err){0};
        fr_status st = fr_file_read_direct(&a->direct[span.i_file], span.from, span.n, s->room,
                                           &s->bytes, a->source->paths[span.i_file], &s->err);
        if (st != FR_EUNSUPPORTED)
            return st == FR_OK ? SLOT_FULL : SLOT_FAILED;
        atomic_store(has_direct, false);
    }
    fr_file_prefetch(f, span.from, span.n);
    return SLOT_LEFT;
}

/* The slot of the next piece, when it is free; NULL: nothing is left to do. With the mutex. */
static slot *claim(store_ahead *a)
{
    while (!a->stop && a->next < a->n_pieces) {
        slot *s = &a->slots[a->next % a->n_slots];
        if (s->state == SLOT_FREE) {
            s->state = SLOT_READING;
            a->next++;
            return s;
        }
        pthread_cond_wait(&a->freed, &a->mutex);
    }
    return NULL;
}

static void *reader_main(void *arg)
{
    store_ahead *a = arg;
    slot *s;
    pthread_mutex_lock(&a->mutex);
    while ((s = claim(a))) {
        int64_t piece = s->piece;
        pthread_mutex_unlock(&a->mutex);
        slot_state now = read_piece(a, piece, s);
        pthread_mutex_lock(&a->mutex);
        s->state = now;
        pthread_cond_broadcast(&a->filled);
    }
    pthread_mutex_unlock(&a->mutex);
    return NULL;
}

/* ---- for the threads that repack ----------------------------------------------------------------
 */

fr_status store_ahead_take(store_ahead *a, int64_t piece, const uint8_t **out, fr_err *err)
{
    *out = NULL;
    if (a->n_readers == 0)
        return FR_OK;
    slot *s = &a->slots[piece % a->n_slots];
    pthread_mutex_lock(&a->mutex);
    while (s->piece != piece || s->state < SLOT_FULL)
        pthread_cond_wait(&a->filled, &a->mutex);
    slot_state state = s->state;
    pthread_mutex_unlock(&a->mutex);
    if (state == SLOT_FULL)
        *out = s->bytes;
    return state == SLOT_FAILED ? fr_fail(err, s->err.code, "%s", s->err.text) : FR_OK;
}

void store_ahead_give_back(store_ahead *a, int64_t piece)
{
    if (a->n_readers == 0)
        return;
    slot *s = &a->slots[piece % a->n_slots];
    pthread_mutex_lock(&a->mutex);
    s->piece += a->n_slots;
    s->state = SLOT_FREE;
    pthread_cond_broadcast(&a->freed);
    pthread_cond_broadcast(&a->filled); /* who waits for the next piece of the slot looks again */
    pthread_mutex_unlock(&a->mutex);
}

/* ---- opening ------------------------------------------------------------------------------------
 */

static fr_status make_slots(store_ahead *a, size_t most_bytes, int n_threads, fr_err *err)
{
    size_t room = fr_file_direct_room(most_bytes);
    a->n_slots = (n_threads < MOST_THREADS ? n_threads : MOST_THREADS) + N_READERS + N_SPARE;
    a->slots = FR_NEW(slot, FR_MEM_MISC, (size_t)a->n_slots, err);
    a->rooms = fr_mem_array(FR_MEM_MISC, (size_t)a->n_slots * room + FR_FILE_BLOCK, 1, err);
    if (!a->slots || !a->rooms)
        return FR_ENOMEM;
    uint8_t *at = a->rooms + (FR_FILE_BLOCK - (uintptr_t)a->rooms % FR_FILE_BLOCK);
    for (int64_t i = 0; i < a->n_slots; i++)
        a->slots[i] = (slot){.piece = i, .room = at + (size_t)i * room};
    return FR_OK;
}

static fr_status open_files(store_ahead *a, bool direct, fr_err *err)
{
    size_t n = (size_t)a->source->n_files;
    a->direct = FR_NEW(fr_file, FR_MEM_MISC, n, err);
    a->has_direct = FR_NEW(atomic_bool, FR_MEM_MISC, n, err);
    for (size_t i = 0; a->direct && i < n; i++)
        a->direct[i] = FR_FILE_CLOSED;
    if (!a->direct || !a->has_direct)
        return FR_ENOMEM;
    for (size_t i = 0; direct && i < n; i++)
        atomic_init(&a->has_direct[i],
                    fr_file_open_direct(a->source->files[i], &a->direct[i], NULL) == FR_OK);
    return FR_OK;
}

/* Fewer readers, even none, are no failure. Signals belong to the program's own threads. */
static void start_readers(store_ahead *a)
{
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    while (a->n_readers < N_READERS && a->n_readers < a->n_pieces &&
           pthread_create(&a->readers[a->n_readers], NULL, reader_main, a) == 0)
        a->n_readers++;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
}

fr_status store_ahead_open(const store_span_source *source, int64_t n_pieces, size_t most_bytes,
                           int n_threads, bool direct, store_ahead **out, fr_err *err)
{
    store_ahead *a = *out = FR_NEW(store_ahead, FR_MEM_MISC, 1, err);
    if (!a)
        return FR_ENOMEM;
    a->source = source;
    a->n_pieces = n_pieces;
    pthread_mutex_init(&a->mutex, NULL);
    pthread_cond_init(&a->filled, NULL);
    pthread_cond_init(&a->freed, NULL);
    FR_TRY(make_slots(a, direct ? most_bytes : 0, n_threads, err));
    FR_TRY(open_files(a, direct, err));
    start_readers(a);
    return FR_OK;
}

void store_ahead_close(store_ahead *a)
{
    if (!a)
        return;
    pthread_mutex_lock(&a->mutex);
    a->stop = true;
    pthread_cond_broadcast(&a->freed);
    pthread_mutex_unlock(&a->mutex);
    for (int i = 0; i < a->n_readers; i++)
        pthread_join(a->readers[i], NULL);
    pthread_cond_destroy(&a->freed);
    pthread_cond_destroy(&a->filled);
    pthread_mutex_destroy(&a->mutex);
    for (int i = 0; a->direct && i < a->source->n_files; i++)
        fr_file_close(&a->direct[i]);
    fr_mem_free(a->has_direct);
    fr_mem_free(a->direct);
    fr_mem_free(a->rooms);
    fr_mem_free(a->slots);
    fr_mem_free(a);
}
