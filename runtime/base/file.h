/* Files: whole reads, checked positional reads, read-only maps, and writing that never leaves half
 * a file behind. */
#ifndef FR_BASE_FILE_H
#define FR_BASE_FILE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/str.h"

/* An open file, read only. `data` is NULL until fr_file_map. Owned by the caller. */
typedef struct {
    int fd;        /* -1 when closed */
    uint64_t size; /* bytes */
    const uint8_t *data;
} fr_file;

#define FR_FILE_CLOSED ((fr_file){.fd = -1})

/* FR_ENOTFOUND when it does not exist, FR_EINVAL for a folder, FR_EIO otherwise; texts name the
 * path. */
fr_status fr_file_open(const char *path, fr_file *out, fr_err *err);

/* Maps the whole file (an empty one maps to a valid pointer of size 0). */
fr_status fr_file_map(fr_file *f, const char *path, fr_err *err);

/* The path of the mapped file that holds an address; NULL when there is none. For a handler of
 * SIGBUS, the signal of a mapped file that was cut short or whose storage fails: may be called
 * there. Of many files only the first 256 that are mapped at a time are known. */
const char *fr_file_mapped_at(const void *address);

/* Reads exactly n bytes at offset; a shorter file is FR_EIO. Any thread. */
fr_status fr_file_read_at(const fr_file *f, uint64_t offset, void *dst, size_t n, const char *path,
                          fr_err *err);

/* Says that n bytes at offset will be read soon, so that the system can fetch them meanwhile. */
void fr_file_prefetch(const fr_file *f, uint64_t offset, size_t n);

/* ---- past the page cache ----------------------------------------------------------------------
 * What is read once need not be kept twice: the storage writes into the reader's memory. */

/* The open file once more, to be read with fr_file_read_direct. FR_EUNSUPPORTED where the file
 * system has no such way. */
fr_status fr_file_open_direct(const fr_file *f, fr_file *out, fr_err *err);

#define FR_FILE_BLOCK 4096 /* of storage */

/* What it takes to read n bytes; a multiple of FR_FILE_BLOCK. */
size_t fr_file_direct_room(size_t n);

/* Reads the blocks that hold n > 0 bytes at offset into room (fr_file_direct_room(n) bytes, on a
 * multiple of FR_FILE_BLOCK); *out is where the first of the bytes is. Statuses as fr_file_read_at,
 * and FR_EUNSUPPORTED when the storage wants it otherwise. Any thread. */
fr_status fr_file_read_direct(const fr_file *f, uint64_t offset, size_t n, uint8_t *room,
                              const uint8_t **out, const char *path, fr_err *err);

/* Whether n > 0 bytes at offset are in the page cache; also true where the system does not say
 * (files of others). */
bool fr_file_is_cached(const fr_file *f, uint64_t offset, size_t n);

/* Asks the system to forget what it keeps of the file; pages in use, or not yet written, stay. */
void fr_file_forget(const fr_file *f);

void fr_file_close(fr_file *f);

/* Appends the whole of a file ("-" = standard input) to *out, at most max_bytes. */
fr_status fr_file_slurp(const char *path, size_t max_bytes, fr_buf *out, fr_err *err);

/* Writing: bytes go to PATH.tmp-PID; fr_file_commit syncs it and renames it to PATH, fr_file_abort
 * removes it. One of the two must be called after a successful fr_file_create. */
typedef struct {
    int fd;
    char *path, *tmp_path; /* owned */
    uint64_t written;
} fr_out_file;

fr_status fr_file_create(const char *path, fr_out_file *out, fr_err *err);
fr_status fr_file_write(fr_out_file *f, const void *bytes, size_t n, fr_err *err);

/* In any order instead: room first, where the file system can promise it, then bytes at an offset,
 * by any thread. */
fr_status fr_file_reserve(fr_out_file *f, uint64_t bytes, fr_err *err);
fr_status fr_file_write_at(const fr_out_file *f, uint64_t offset, const void *bytes, size_t n,
                           fr_err *err);

fr_status fr_file_commit(fr_out_file *f, fr_err *err);
void fr_file_abort(fr_out_file *f);

#endif
