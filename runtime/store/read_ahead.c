/* Reading ahead of the threads that repack: a few threads that mostly sleep in the kernel fill
 * buffers, piece after piece, with several requests in flight, past the page cache or by way of it.
 *
 * Pieces that are in the page cache are left to who takes them: copying from there is work, and the
 * bytes are then in the right core's cache. */
#include "store/store_internal.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>

enum {
    N_READERS = 8,     /* requests in flight */
    N_SPARE = 16,      /* buffers that wait while all threads are busy with something else */
    MOST_THREADS = 32, /* that work at a time; more would only take memory */
    AHEAD_BYTES = 1 << 20
};

typedef enum { SLOT_FREE, SLOT_READING, SLOT_READY, SLOT_TAKEN } slot_state;

typedef struct {
    slot_state state;
    int64_t piece;
    uint8_t *room;
    const uint8_t *bytes; /* in room; NULL: left to who takes it */
    fr_err err;           /* code FR_OK: none */
} slot;

struct store_ahead {
    const store_span_source *source;
    int64_t n_pieces;
    fr_file *direct;         /* one a file of the source; closed: not read past the page cache */
    atomic_bool *has_direct; /* one a file of the source */
    uint8_t *rooms;          /* of all slots; owned */
    slot *slots;
    int n_slots;
    pthread_t readers[N_READERS];
    int n_readers;
    pthread_mutex_t mutex; /* of all below, and of the slots but what their reader writes */
    pthread_cond_t filled, freed;
    int64_t next; /* to be read */
    bool stop;
    store_ahead_account account;
};

/* ---- reading ------------------------------------------------------------------------------------
 */

/* Past the page cache; FR_EUNSUPPORTED: cannot be done for this file. */
static fr_status read_direct(store_ahead *a, store_span span, slot *s)
{
    atomic_bool *has_direct = &a->has_direct[span.i_file];
    if (!atomic_load(has_direct))
        return FR_EUNSUPPORTED;
    fr_status st = fr_file_read_direct(&a->direct[span.i_file], span.from, span.n, s->room,
                                       &s->bytes, a->source->paths[span.i_file], &s->err);
    if (st == FR_EUNSUPPORTED)
        atomic_store(has_direct, false);
    return st;
}

/* Fills a slot; returns where its bytes are counted. */
static uint64_t *read_piece(store_ahead *a, store_span span, slot *s)
{
    const fr_file *f = a->source->files[span.i_file];
    s->bytes = NULL;
    s->err.code = FR_OK;
    if (fr_file_is_cached(f, span.from, span.n))
        return &a->account.cached_bytes;
    fr_status st = read_direct(a, span, s);
    if (st != FR_EUNSUPPORTED) {
        s->err.code = st;
        return &a->account.direct_bytes;
    }
    /* Small pieces mostly stand one behind the other: those that follow come with the first. */
    fr_file_prefetch(f, span.from, span.n > AHEAD_BYTES ? span.n : AHEAD_BYTES);
    s->bytes = s->room;
    s->err.code =
        fr_file_read_at(f, span.from, s->room, span.n, a->source->paths[span.i_file], &s->err);
    return &a->account.through_bytes;
}

static slot *find_slot(store_ahead *a, slot_state state)
{
    slot *found = NULL;
    for (int i = 0; i < a->n_slots; i++) {
        slot *s = &a->slots[i];
        if (s->state == state && (!found || s->piece < found->piece))
            found = s;
    }
    return found;
}

/* A free slot for the next piece; NULL: nothing is left to do. With the mutex. */
static slot *claim(store_ahead *a)
{
    slot *s = NULL;
    while (!a->stop && a->next < a->n_pieces && !(s = find_slot(a, SLOT_FREE))) {
        double start = store_seconds();
        pthread_cond_wait(&a->freed, &a->mutex);
        a->account.full_s += (store_seconds() - start) / a->n_readers;
    }
    if (a->stop || a->next >= a->n_pieces)
        return NULL;
    s->state = SLOT_READING;
    s->piece = a->next++;
    return s;
}

static void *reader_main(void *arg)
{
    store_ahead *a = arg;
    slot *s;
    pthread_mutex_lock(&a->mutex);
    while ((s = claim(a))) {
        pthread_mutex_unlock(&a->mutex);
        store_span span = a->source->span(a->source->user, s->piece);
        uint64_t *counter = read_piece(a, span, s);
        pthread_mutex_lock(&a->mutex);
        *counter += span.n;
        s->state = SLOT_READY;
        pthread_cond_signal(&a->filled);
    }
    pthread_cond_broadcast(&a->freed); /* nobody has to wait for a slot any more */
    pthread_mutex_unlock(&a->mutex);
    return NULL;
}

/* ---- for the threads that repack ----------------------------------------------------------------
 */

fr_status store_ahead_take(store_ahead *a, bool wait, store_ahead_piece *out, fr_err *err)
{
    slot *s = NULL;
    *out = (store_ahead_piece){.number = -1, .slot = -1};
    pthread_mutex_lock(&a->mutex);
    if (a->n_readers == 0)
        out->number = a->next++;
    else
        while (!(s = find_slot(a, SLOT_READY)) && wait)
            pthread_cond_wait(&a->filled, &a->mutex);
    if (s) {
        s->state = SLOT_TAKEN;
        *out = (store_ahead_piece){s->piece, s->bytes, (int)(s - a->slots)};
    }
    pthread_mutex_unlock(&a->mutex);
    return s && s->err.code != FR_OK ? fr_fail(err, s->err.code, "%s", s->err.text) : FR_OK;
}

void store_ahead_give_back(store_ahead *a, const store_ahead_piece *piece)
{
    if (piece->slot < 0)
        return;
    pthread_mutex_lock(&a->mutex);
    a->slots[piece->slot].state = SLOT_FREE;
    pthread_cond_signal(&a->freed);
    pthread_mutex_unlock(&a->mutex);
}

store_ahead_account store_ahead_accounted(store_ahead *a)
{
    pthread_mutex_lock(&a->mutex);
    store_ahead_account account = a->account;
    pthread_mutex_unlock(&a->mutex);
    return account;
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
    fr_mem_want_huge_pages(a->rooms); /* storage writes to them with fewer pieces of a request */
    uint8_t *at = a->rooms + (FR_FILE_BLOCK - (uintptr_t)a->rooms % FR_FILE_BLOCK);
    for (int i = 0; i < a->n_slots; i++)
        a->slots[i].room = at + (size_t)i * room;
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
    int n = 0;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    pthread_mutex_lock(&a->mutex); /* they see n_readers as it stays */
    while (n < N_READERS && n < a->n_pieces &&
           pthread_create(&a->readers[n], NULL, reader_main, a) == 0)
        n++;
    a->n_readers = n;
    pthread_mutex_unlock(&a->mutex);
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
    FR_TRY(make_slots(a, most_bytes, n_threads, err));
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
