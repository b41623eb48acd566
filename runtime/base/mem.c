#include "base/mem.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/str.h"

/* Blocks of at least this size come from mmap: zero pages that cost nothing until they are touched
 * (a KV cache for the whole context of a model is mostly never filled). */
enum { MAP_BYTES = 4 << 20 };

/* Stands before every block; its size keeps the block aligned. */
typedef struct {
    size_t bytes, mapped_bytes; /* 0: not mapped */
    fr_mem_tag tag;
    char pad[FR_MEM_ALIGN - 2 * sizeof(size_t) - sizeof(fr_mem_tag)];
} header;

_Static_assert(sizeof(header) == FR_MEM_ALIGN, "block alignment");

typedef struct {
    atomic_size_t now, peak;
    atomic_uint_fast64_t n_allocs;
} counter;

static counter counters[FR_MEM_TAG_COUNT];
static counter total;
static atomic_int_fast64_t fail_countdown; /* 0 = off, 1 = the next allocation fails */
static atomic_int fail_sticky;

static void count(counter *c, ptrdiff_t bytes)
{
    size_t now = atomic_fetch_add(&c->now, (size_t)bytes) + (size_t)bytes;
    size_t peak = atomic_load(&c->peak);
    while (bytes > 0 && now > peak && !atomic_compare_exchange_weak(&c->peak, &peak, now))
        ;
}

static int injected_failure(void)
{
    if (atomic_load_explicit(&fail_countdown, memory_order_relaxed) == 0)
        return 0;
    int_fast64_t left = atomic_fetch_sub(&fail_countdown, 1);
    if (left > 1)
        return 0;
    atomic_store(&fail_countdown, atomic_load(&fail_sticky) ? 1 : 0);
    return 1;
}

void fr_mem_fail_at(uint64_t n, int sticky)
{
    atomic_store(&fail_sticky, sticky);
    atomic_store(&fail_countdown, (int_fast64_t)n);
}

static header *map_pages(size_t whole, int flags)
{
    flags |= MAP_PRIVATE | MAP_ANONYMOUS;
    header *h = mmap(NULL, whole, PROT_READ | PROT_WRITE, flags, -1, 0);
    if (h == MAP_FAILED)
        return NULL;
    h->mapped_bytes = whole;
    return h;
}

static header *get_pages(size_t whole, int clear)
{
    if (whole >= MAP_BYTES)
        return map_pages(whole, 0);
    header *h = aligned_alloc(FR_MEM_ALIGN, whole);
    if (h && clear)
        memset(h, 0, whole);
    if (h)
        h->mapped_bytes = 0;
    return h;
}

static size_t whole_bytes(size_t bytes)
{
    return (sizeof(header) + bytes + FR_MEM_ALIGN - 1) / FR_MEM_ALIGN * FR_MEM_ALIGN;
}

static void *enter_block(header *h, fr_mem_tag tag, size_t bytes)
{
    h->bytes = bytes;
    h->tag = tag;
    fr_mem_account(tag, (ptrdiff_t)bytes);
    atomic_fetch_add(&counters[tag].n_allocs, 1);
    atomic_fetch_add(&total.n_allocs, 1);
    return h + 1;
}

static void *new_block(fr_mem_tag tag, size_t bytes, int clear)
{
    if (bytes == 0)
        bytes = 1;
    if (bytes > PTRDIFF_MAX - 2 * FR_MEM_ALIGN || injected_failure())
        return NULL;
    header *h = get_pages(whole_bytes(bytes), clear);
    return h ? enter_block(h, tag, bytes) : NULL;
}

void *fr_mem_alloc(fr_mem_tag tag, size_t bytes)
{
    return new_block(tag, bytes, 1);
}

void fr_mem_free(void *p)
{
    if (!p)
        return;
    header *h = (header *)p - 1;
    fr_mem_account(h->tag, -(ptrdiff_t)h->bytes);
    if (h->mapped_bytes > 0)
        munmap(h, h->mapped_bytes);
    else
        free(h);
}

void *fr_mem_realloc(fr_mem_tag tag, void *p, size_t bytes)
{
    if (!p)
        return new_block(tag, bytes, 0);
    header *h = (header *)p - 1;
    void *q = new_block(h->tag, bytes, 0);
    if (!q)
        return NULL;
    memcpy(q, p, h->bytes < bytes ? h->bytes : bytes);
    fr_mem_free(p);
    return q;
}

void *fr_mem_array(fr_mem_tag tag, size_t n, size_t size, fr_err *err)
{
    size_t bytes;
    void *p = NULL;
    if (!__builtin_mul_overflow(n, size, &bytes))
        p = fr_mem_alloc(tag, bytes);
    if (!p)
        fr_fail(err, FR_ENOMEM, "memory for %s: %zu x %zu bytes could not be had",
                fr_mem_tag_name(tag), n, size);
    return p;
}

fr_status fr_mem_grow(fr_mem_tag tag, void **items, size_t *cap, size_t need, size_t size,
                      fr_err *err)
{
    if (need <= *cap)
        return FR_OK;
    size_t want = *cap ? *cap : 8, bytes;
    while (want < need && want <= SIZE_MAX / 2)
        want *= 2;
    void *p = NULL;
    if (want >= need && !__builtin_mul_overflow(want, size, &bytes))
        p = fr_mem_realloc(tag, *items, bytes);
    if (!p)
        return fr_fail(err, FR_ENOMEM, "memory for %s: growing to %zu x %zu bytes failed",
                       fr_mem_tag_name(tag), need, size);
    *items = p;
    *cap = want;
    return FR_OK;
}

char *fr_mem_strndup(fr_mem_tag tag, const char *s, size_t n, fr_err *err)
{
    char *p = fr_mem_array(tag, n + 1, 1, err);
    if (p && n)
        memcpy(p, s, n);
    return p;
}

void fr_mem_account(fr_mem_tag tag, ptrdiff_t bytes)
{
    count(&counters[tag], bytes);
    count(&total, bytes);
}

void fr_mem_want_huge_pages(void *p)
{
    header *h = (header *)p - 1;
    if (h->mapped_bytes > 0) /* begins with a page then */
        madvise(h, h->mapped_bytes, MADV_HUGEPAGE);
}

bool fr_mem_populate(void *p, size_t bytes)
{
    enum { POPULATE_WRITE = 23 }; /* since Linux 5.14 */
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE), from = (uintptr_t)p / page * page;
    uintptr_t to = ((uintptr_t)p + bytes + page - 1) / page * page;
    return madvise((void *)from, to - from, POPULATE_WRITE) == 0 || errno != EINVAL;
}

/* A number (kB or pages) of /proc/meminfo; 0 when it is not there. */
static size_t meminfo(const char *name)
{
    char line[256];
    size_t value = 0;
    FILE *f = fopen("/proc/meminfo", "re");
    while (f && fgets(line, sizeof line, f))
        if (strncmp(line, name, strlen(name)) == 0)
            value = strtoull(line + strlen(name), NULL, 10);
    if (f)
        fclose(f);
    return value;
}

uint64_t fr_mem_available(void)
{
    uint64_t kib = meminfo("MemAvailable:");
    return kib > 0 ? kib << 10 : UINT64_MAX;
}

void *fr_mem_alloc_huge(fr_mem_tag tag, size_t bytes, fr_err *err)
{
    size_t page = meminfo("Hugepagesize:") << 10, free_pages = meminfo("HugePages_Free:");
    header *h = NULL;
    char size[32];
    if (page > 0 && bytes > 0 && bytes <= PTRDIFF_MAX - 2 * page && !injected_failure())
        h = map_pages((sizeof(header) + bytes + page - 1) / page * page, MAP_HUGETLB);
    if (h)
        return enter_block(h, tag, bytes);
    size_t need = page > 0 ? (bytes + sizeof(header) + page - 1) / page : 0;
    fr_fail(err, FR_ENOMEM,
            "huge pages for %s: found %zu free, expected %zu of %s; set vm.nr_hugepages",
            fr_mem_tag_name(tag), free_pages, need, fr_format_bytes(page, size));
    return NULL;
}

fr_status fr_mem_lock(const void *p, size_t bytes, fr_err *err)
{
    struct rlimit limit = {0};
    char wanted[32], allowed[32] = "no limit";
    if (mlock(p, bytes) == 0)
        return FR_OK;
    int why = errno;
    if (getrlimit(RLIMIT_MEMLOCK, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY)
        fr_format_bytes(limit.rlim_cur, allowed);
    return fr_fail(err, FR_ENOMEM,
                   "locking %s: %s; the process may lock %s (ulimit -l, LimitMEMLOCK=, or "
                   "memlock in /etc/security/limits.conf)",
                   fr_format_bytes(bytes, wanted), strerror(why), allowed);
}

const char *fr_mem_tag_name(fr_mem_tag tag)
{
    static const char *const names[] = {
#define X(tag, name) name,
        FR_MEM_TAGS(X)
#undef X
    };
    return (unsigned)tag < FR_MEM_TAG_COUNT ? names[tag] : "unknown";
}

static fr_mem_stats read_counter(const counter *c)
{
    return (fr_mem_stats){atomic_load(&c->now), atomic_load(&c->peak), atomic_load(&c->n_allocs)};
}

fr_mem_stats fr_mem_tag_stats(fr_mem_tag tag)
{
    return read_counter(&counters[tag]);
}

fr_mem_stats fr_mem_total(void)
{
    return read_counter(&total);
}

void fr_mem_reset_peaks(void)
{
    for (int i = 0; i < FR_MEM_TAG_COUNT; i++)
        atomic_store(&counters[i].peak, atomic_load(&counters[i].now));
    atomic_store(&total.peak, atomic_load(&total.now));
}
