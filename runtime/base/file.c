#include "base/file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

fr_status fr_file_open(const char *path, fr_file *out, fr_err *err)
{
    *out = FR_FILE_CLOSED;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return fr_fail(err, errno == ENOENT ? FR_ENOTFOUND : FR_EIO, "%s: cannot be opened: %s",
                       path, strerror(errno));
    struct stat st;
    if (fstat(fd, &st) != 0 || !S_ISREG(st.st_mode)) {
        close(fd);
        return fr_fail(err, FR_EINVAL, "%s: not a regular file", path);
    }
    out->fd = fd;
    out->size = (uint64_t)st.st_size;
    return FR_OK;
}

/* ---- which files are mapped where ---------------------------------------------------------------
 * Read by signal handlers, so without locks.
 */

enum { MAX_MAPS = 256, MAP_FREE = 0, MAP_CHANGING, MAP_LIVE };

static struct {
    atomic_int state;
    uintptr_t from, to;
    char path[512]; /* cut where it is longer */
} maps[MAX_MAPS];

static void remember_map(const fr_file *f, const char *path)
{
    for (int i = 0; i < MAX_MAPS; i++) {
        int wanted = MAP_FREE;
        if (!atomic_compare_exchange_strong(&maps[i].state, &wanted, MAP_CHANGING))
            continue;
        maps[i].from = (uintptr_t)f->data;
        maps[i].to = maps[i].from + f->size;
        snprintf(maps[i].path, sizeof maps[i].path, "%s", path);
        atomic_store(&maps[i].state, MAP_LIVE);
        return;
    }
}

static void forget_map(const fr_file *f)
{
    for (int i = 0; i < MAX_MAPS; i++)
        if (atomic_load(&maps[i].state) == MAP_LIVE && maps[i].from == (uintptr_t)f->data) {
            atomic_store(&maps[i].state, MAP_FREE);
            return;
        }
}

const char *fr_file_mapped_at(const void *address)
{
    uintptr_t at = (uintptr_t)address;
    for (int i = 0; i < MAX_MAPS; i++)
        if (atomic_load(&maps[i].state) == MAP_LIVE && at >= maps[i].from && at < maps[i].to)
            return maps[i].path;
    return NULL;
}

fr_status fr_file_map(fr_file *f, const char *path, fr_err *err)
{
    static const uint8_t empty[1];
    if (f->size == 0) {
        f->data = empty;
        return FR_OK;
    }
    void *p = mmap(NULL, f->size, PROT_READ, MAP_SHARED, f->fd, 0);
    if (p == MAP_FAILED)
        return fr_fail(err, FR_EIO, "%s: %llu bytes cannot be mapped: %s; try --no-mmap", path,
                       (unsigned long long)f->size, strerror(errno));
    f->data = p;
    remember_map(f, path);
    return FR_OK;
}

fr_status fr_file_read_at(const fr_file *f, uint64_t offset, void *dst, size_t n, const char *path,
                          fr_err *err)
{
    uint8_t *p = dst;
    while (n > 0) {
        ssize_t got = pread(f->fd, p, n, (off_t)offset);
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            return fr_fail(err, FR_EIO, "%s: reading %zu bytes at offset %llu: %s", path, n,
                           (unsigned long long)offset,
                           got < 0 ? strerror(errno) : "the file ends before");
        p += got;
        offset += (uint64_t)got;
        n -= (size_t)got;
    }
    return FR_OK;
}

void fr_file_prefetch(const fr_file *f, uint64_t offset, size_t n)
{
    posix_fadvise(f->fd, (off_t)offset, (off_t)n, POSIX_FADV_WILLNEED);
}

fr_status fr_file_open_direct(const fr_file *f, fr_file *out, fr_err *err)
{
    char name[64]; /* the very file, whatever stands at its path by now */
    snprintf(name, sizeof name, "/proc/self/fd/%d", f->fd);
    *out = FR_FILE_CLOSED;
    int fd = open(name, O_RDONLY | O_DIRECT | O_CLOEXEC);
    if (fd < 0)
        return fr_fail(err, FR_EUNSUPPORTED, "%s: cannot be opened past the page cache: %s", name,
                       strerror(errno));
    out->fd = fd;
    out->size = f->size;
    return FR_OK;
}

size_t fr_file_direct_room(size_t n)
{
    return (n + 2 * FR_FILE_BLOCK - 2) / FR_FILE_BLOCK * FR_FILE_BLOCK;
}

fr_status fr_file_read_direct(const fr_file *f, uint64_t offset, size_t n, uint8_t *room,
                              const uint8_t **out, const char *path, fr_err *err)
{
    uint64_t at = offset / FR_FILE_BLOCK * FR_FILE_BLOCK;
    size_t before = (size_t)(offset - at), need = before + n, had = 0;
    size_t all = (need + FR_FILE_BLOCK - 1) / FR_FILE_BLOCK * FR_FILE_BLOCK;
    *out = room + before;
    while (had < need) {
        ssize_t got = had % FR_FILE_BLOCK == 0
                          ? pread(f->fd, room + had, all - had, (off_t)(at + had))
                          : 0; /* a part of a block was the end of the file */
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            return fr_fail(err, got < 0 && errno == EINVAL ? FR_EUNSUPPORTED : FR_EIO,
                           "%s: reading %zu bytes at offset %llu: %s", path, n,
                           (unsigned long long)offset,
                           got < 0 ? strerror(errno) : "the file ends before");
        had += (size_t)got;
    }
    return FR_OK;
}

static bool ask_mincore(const fr_file *f, uint64_t offset, size_t n)
{
    enum { PIECE = 512 }; /* pages asked for at once */
    unsigned char in_memory[PIECE];
    uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE), from = offset / page * page;
    size_t bytes = (size_t)(offset + n - from);
    uint8_t *p = mmap(NULL, bytes, PROT_READ, MAP_SHARED, f->fd, (off_t)from);
    if (p == MAP_FAILED)
        return true;
    bool cached = true;
    for (size_t at = 0; cached && at < bytes; at += PIECE * page) {
        size_t step = bytes - at < PIECE * page ? bytes - at : PIECE * page;
        size_t n_pages = (step + page - 1) / page;
        if (mincore(p + at, step, in_memory) == 0)
            for (size_t i = 0; i < n_pages; i++)
                cached &= in_memory[i] & 1;
    }
    munmap(p, bytes);
    return cached;
}

/* By the call of Linux 6.5, which takes no lock that faulting of memory needs; false: it cannot
 * tell. */
static bool ask_cachestat(const fr_file *f, uint64_t offset, size_t n, bool *cached)
{
    enum { CACHESTAT = 451 };
    uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE), range[2] = {offset, n};
    uint64_t pages[5] = {0}; /* cached, dirty, being written, evicted, evicted recently */
    if (syscall(CACHESTAT, f->fd, range, pages, 0) != 0)
        return false;
    *cached = pages[0] >= (offset + n - 1) / page - offset / page + 1;
    return true;
}

bool fr_file_is_cached(const fr_file *f, uint64_t offset, size_t n)
{
    bool cached;
    return ask_cachestat(f, offset, n, &cached) ? cached : ask_mincore(f, offset, n);
}

void fr_file_forget(const fr_file *f)
{
    posix_fadvise(f->fd, 0, 0, POSIX_FADV_DONTNEED);
}

void fr_file_close(fr_file *f)
{
    if (f->data && f->size) {
        forget_map(f);
        munmap((void *)(uintptr_t)f->data, f->size);
    }
    if (f->fd >= 0)
        close(f->fd);
    *f = FR_FILE_CLOSED;
}

fr_status fr_file_slurp(const char *path, size_t max_bytes, fr_buf *out, fr_err *err)
{
    int is_stdin = strcmp(path, "-") == 0;
    int fd = is_stdin ? STDIN_FILENO : open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return fr_fail(err, errno == ENOENT ? FR_ENOTFOUND : FR_EIO, "%s: cannot be opened: %s",
                       path, strerror(errno));
    size_t start = out->n;
    fr_status st = FR_OK;
    for (;;) {
        FR_TRY_OUT(st, fr_buf_reserve(out, 65536, err));
        ssize_t got = read(fd, out->p + out->n, 65536);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            FR_TRY_OUT(st, fr_fail(err, FR_EIO, "%s: cannot be read: %s", path, strerror(errno)));
        if (got == 0)
            break;
        out->n += (size_t)got;
        out->p[out->n] = 0;
        if (out->n - start > max_bytes)
            FR_TRY_OUT(st, fr_fail(err, FR_ERANGE, "%s: larger than %zu bytes", path, max_bytes));
    }
out:
    if (!is_stdin)
        close(fd);
    return st;
}

fr_status fr_file_create(const char *path, fr_out_file *out, fr_err *err)
{
    *out = (fr_out_file){.fd = -1};
    size_t n = strlen(path);
    out->path = fr_mem_strndup(FR_MEM_TEXT, path, n, err);
    out->tmp_path = fr_mem_array(FR_MEM_TEXT, n + 32, 1, err);
    if (!out->path || !out->tmp_path) {
        fr_file_abort(out);
        return FR_ENOMEM;
    }
    snprintf(out->tmp_path, n + 32, "%s.tmp-%ld", path, (long)getpid());
    out->fd = open(out->tmp_path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    if (out->fd < 0) {
        fr_status st =
            fr_fail(err, FR_EIO, "%s: cannot be created: %s", out->tmp_path, strerror(errno));
        fr_file_abort(out);
        return st;
    }
    return FR_OK;
}

fr_status fr_file_write(fr_out_file *f, const void *bytes, size_t n, fr_err *err)
{
    const uint8_t *p = bytes;
    while (n > 0) {
        ssize_t put = write(f->fd, p, n);
        if (put < 0 && errno == EINTR)
            continue;
        if (put <= 0)
            return fr_fail(err, FR_EIO, "%s: writing at offset %llu: %s", f->tmp_path,
                           (unsigned long long)f->written, strerror(errno));
        p += put;
        n -= (size_t)put;
        f->written += (uint64_t)put;
    }
    return FR_OK;
}

fr_status fr_file_reserve(fr_out_file *f, uint64_t bytes, fr_err *err)
{
    if (fallocate(f->fd, 0, 0, (off_t)bytes) == 0 || errno == EOPNOTSUPP)
        return FR_OK;
    return fr_fail(err, FR_EIO, "%s: no room for %llu bytes: %s", f->tmp_path,
                   (unsigned long long)bytes, strerror(errno));
}

fr_status fr_file_write_at(const fr_out_file *f, uint64_t offset, const void *bytes, size_t n,
                           fr_err *err)
{
    const uint8_t *p = bytes;
    while (n > 0) {
        ssize_t put = pwrite(f->fd, p, n, (off_t)offset);
        if (put < 0 && errno == EINTR)
            continue;
        if (put <= 0)
            return fr_fail(err, FR_EIO, "%s: writing at offset %llu: %s", f->tmp_path,
                           (unsigned long long)offset, strerror(errno));
        p += put;
        offset += (uint64_t)put;
        n -= (size_t)put;
    }
    return FR_OK;
}

fr_status fr_file_commit(fr_out_file *f, fr_err *err)
{
    fr_status st = FR_OK;
    if (fsync(f->fd) != 0 || rename(f->tmp_path, f->path) != 0)
        st = fr_fail(err, FR_EIO, "%s: cannot be completed: %s", f->path, strerror(errno));
    else
        f->tmp_path[0] = 0; /* nothing left to remove */
    fr_file_abort(f);
    return st;
}

void fr_file_abort(fr_out_file *f)
{
    if (f->fd >= 0) {
        close(f->fd);
        if (f->tmp_path[0])
            unlink(f->tmp_path);
    }
    fr_mem_free(f->path);
    fr_mem_free(f->tmp_path);
    *f = (fr_out_file){.fd = -1};
}
