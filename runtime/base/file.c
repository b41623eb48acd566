#include "base/file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
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

void fr_file_close(fr_file *f)
{
    if (f->data && f->size)
        munmap((void *)(uintptr_t)f->data, f->size);
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
