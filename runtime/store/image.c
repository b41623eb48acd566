/* The image: repacked weights kept in a file, so that a later start need not repack.
 *
 * It holds every weight whose layout in memory (the model's, whatever a plan says) is not that of
 * the GGUF file: a head that tells exactly what it is an image of, then the weights, each on a page
 * of its own. The head follows from the model, its files and this build alone, so that nothing is
 * ever read from an image but weights: one that does not begin with the very bytes that are
 * expected, or has another size, is made again. It is written beside its place and renamed. */
#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "base/log.h"
#include "store/store_internal.h"

enum {
    IMAGE_VERSION = 3,
    IMAGE_ALIGN = 4096,
    N_SAMPLES = 256, /* of each file of the model */
    SAMPLE_BYTES = 4096,
    PROBE_COLS = 1024,
    NAME_CHARS = 100
};

static const char magic[8] = "ferryimg";

/* The head: this, then an id for each file, then an entry for each weight of the image. */
typedef struct {
    char magic[8];
    uint32_t version, n_files;
    uint64_t n_entries, bytes; /* of the whole image */
} image_head;

typedef struct {
    uint64_t bytes, mtime_s, mtime_ns;
    uint64_t header, samples; /* hashes: before the first tensor's data; of some of the data */
} file_id;

typedef struct {
    uint64_t name, layouts; /* hashes: the tensor's name; what this build makes of a fixed matrix */
    uint32_t type, from, to, unused;
    uint64_t cols, rows, n_mat, at, bytes;
} image_entry;

/* ---- hashes -------------------------------------------------------------------------------------
 * Against accidents, not against attackers: who can write the image can write the model.
 */

static uint64_t hash_word(uint64_t h, uint64_t word)
{
    h = (h ^ word) * 0x9E3779B97F4A7C15ull;
    return h ^ h >> 29;
}

static uint64_t hash_bytes(uint64_t h, const void *bytes, size_t n)
{
    const uint8_t *p = bytes;
    uint64_t word;
    h = hash_word(h, n);
    for (; n >= sizeof word; p += sizeof word, n -= sizeof word) {
        memcpy(&word, p, sizeof word);
        h = hash_word(h, word);
    }
    word = 0;
    memcpy(&word, p, n);
    return hash_word(h, word);
}

/* ---- what it is an image of ---------------------------------------------------------------------
 */

static uint64_t data_start(const fr_gguf *g, int i_file, uint64_t size)
{
    uint64_t start = size;
    for (size_t i = 0; i < fr_gguf_n_tensors(g); i++) {
        const fr_gguf_tensor *t = fr_gguf_tensor_at(g, i);
        if (t->i_file == i_file && t->offset < start)
            start = t->offset;
    }
    return start;
}

static fr_status hash_file(const fr_file *f, const char *path, uint64_t start, file_id *id,
                           fr_err *err)
{
    uint8_t buffer[SAMPLE_BYTES];
    for (uint64_t at = 0; at < start; at += sizeof buffer) {
        size_t n = start - at < sizeof buffer ? (size_t)(start - at) : sizeof buffer;
        FR_TRY(fr_file_read_at(f, at, buffer, n, path, err));
        id->header = hash_bytes(id->header, buffer, n);
    }
    for (uint64_t i = 0; i < N_SAMPLES; i++) {
        uint64_t at = start + (f->size - start) / N_SAMPLES * i;
        size_t n = f->size - at < sizeof buffer ? (size_t)(f->size - at) : sizeof buffer;
        FR_TRY(fr_file_read_at(f, at, buffer, n, path, err));
        id->samples = hash_bytes(id->samples, buffer, n);
    }
    return FR_OK;
}

static fr_status identify(const fr_gguf *g, int i_file, file_id *id, fr_err *err)
{
    const char *path = fr_gguf_path(g, i_file);
    fr_file f;
    struct stat st;
    *id = (file_id){0};
    FR_TRY(fr_file_open(path, &f, err));
    fr_status status = FR_OK;
    if (fstat(f.fd, &st) != 0)
        status = fr_fail(err, FR_EIO, "%s: %s", path, strerror(errno));
    if (status == FR_OK) {
        id->bytes = f.size;
        id->mtime_s = (uint64_t)st.st_mtim.tv_sec;
        id->mtime_ns = (uint64_t)st.st_mtim.tv_nsec;
        status = hash_file(&f, path, data_start(g, i_file, f.size), id, err);
    }
    fr_file_close(&f);
    return status;
}

/* Layouts in memory are ferry's own and may change: what this build makes of fixed bytes tells. */
static fr_status hash_layouts(const fr_model_weight *w, uint64_t *out, fr_err *err)
{
    fr_layout from = w->src->layout, to = w->shape.layout;
    int a = fr_layout_rows(w->shape.type, from), b = fr_layout_rows(w->shape.type, to);
    int64_t rows = a > b ? a : b;
    size_t n_src = (size_t)rows * fr_row_bytes(w->shape.type, from, PROBE_COLS);
    size_t n_dst = (size_t)rows * fr_row_bytes(w->shape.type, to, PROBE_COLS);
    uint8_t *room = fr_mem_array(FR_MEM_MISC, n_src + n_dst, 1, err);
    if (!room)
        return FR_ENOMEM;
    uint64_t x = 1;
    for (size_t i = 0; i < n_src; i++)
        room[i] = (uint8_t)(x = hash_word(x, i));
    fr_status st = fr_repack(w->shape.type, from, to, rows, PROBE_COLS, room, room + n_src, err);
    *out = hash_bytes(0, room + n_src, n_dst);
    fr_mem_free(room);
    return st;
}

/* ---- the head -----------------------------------------------------------------------------------
 */

static bool is_repacked(const fr_model_weight *w)
{
    return w->src && w->derive == FR_DERIVE_NONE && w->src->layout != w->shape.layout;
}

static uint64_t aligned(uint64_t bytes)
{
    return (bytes + IMAGE_ALIGN - 1) / IMAGE_ALIGN * IMAGE_ALIGN;
}

static uint64_t head_bytes(const image_head *h)
{
    return sizeof *h + h->n_files * sizeof(file_id) + h->n_entries * sizeof(image_entry);
}

static fr_status add_entry(fr_store *s, int i, image_head *h, fr_buf *out, fr_err *err)
{
    const fr_model_weight *w = &s->model->weights[i];
    image_entry e = {.name = hash_bytes(0, w->name, strlen(w->name)),
                     .type = (uint32_t)w->src->type,
                     .from = (uint32_t)w->src->layout,
                     .to = (uint32_t)w->shape.layout,
                     .cols = (uint64_t)w->shape.cols,
                     .rows = (uint64_t)w->shape.rows,
                     .n_mat = (uint64_t)w->shape.n_mat,
                     .at = h->bytes,
                     .bytes = w->bytes};
    FR_TRY(hash_layouts(w, &e.layouts, err));
    s->image.at[i] = e.at;
    h->bytes = e.at + aligned(w->bytes);
    return fr_buf_add(out, (const char *)&e, sizeof e, err);
}

/* Writes the head to *out, and where each weight stands to s->image.at. */
static fr_status make_head(fr_store *s, image_head *h, fr_buf *out, fr_err *err)
{
    const fr_model *m = s->model;
    *h = (image_head){.version = IMAGE_VERSION, .n_files = (uint32_t)fr_gguf_n_files(m->gguf)};
    memcpy(h->magic, magic, sizeof magic);
    for (int i = 0; i < m->n_weights; i++)
        h->n_entries += is_repacked(&m->weights[i]);
    h->bytes = aligned(head_bytes(h));
    FR_TRY(fr_buf_add(out, (const char *)h, sizeof *h, err));
    for (int i = 0; i < (int)h->n_files; i++) {
        file_id id;
        FR_TRY(identify(m->gguf, i, &id, err));
        FR_TRY(fr_buf_add(out, (const char *)&id, sizeof id, err));
    }
    for (int i = 0; i < m->n_weights; i++)
        if (is_repacked(&m->weights[i]))
            FR_TRY(add_entry(s, i, h, out, err));
    memcpy(out->p, h, sizeof *h); /* with the bytes */
    return FR_OK;
}

/* "FOLDER/NAME-HASH.ferry": the same for a model that was only touched, so that its old image gives
 * way to the new one. */
static fr_status make_path(fr_store *s, const char *folder, const image_head *h, const fr_buf *head,
                           fr_err *err)
{
    const char *path = fr_gguf_path(s->model->gguf, 0), *slash = strrchr(path, '/');
    const char *name = slash ? slash + 1 : path, *dot = strstr(name, ".gguf");
    const file_id *ids = (const file_id *)(const void *)(head->p + sizeof *h);
    const image_entry *e = (const image_entry *)(const void *)(ids + h->n_files);
    uint64_t hash = 0;
    size_t n = dot ? (size_t)(dot - name) : strlen(name);
    fr_buf b = {0};
    for (uint32_t i = 0; i < h->n_files; i++)
        hash = hash_word(hash, ids[i].header);
    for (uint64_t i = 0; i < h->n_entries; i++)
        hash = hash_word(hash_word(hash, e[i].name), e[i].to);
    fr_status st = fr_buf_printf(&b, err, "%s/%.*s-%016" PRIx64 ".ferry", folder,
                                 (int)(n < NAME_CHARS ? n : NAME_CHARS), name, hash);
    s->image.path = b.p;
    return st;
}

/* ---- reading ------------------------------------------------------------------------------------
 */

/* Whether the image is there and is the one wanted; if not, says why it is not used. */
static fr_status find(fr_store *s, const image_head *h, const fr_buf *head, bool *found,
                      fr_err *err)
{
    store_image *im = &s->image;
    const char *why = NULL;
    fr_err no = {0};
    *found = false;
    if (fr_file_open(im->path, &im->file, &no) != FR_OK) {
        if (no.code != FR_ENOTFOUND)
            fr_log_warn("repack cache: %s; it is made again", no.text);
        return FR_OK;
    }
    char *bytes = fr_mem_array(FR_MEM_MISC, head->n, 1, err);
    if (!bytes)
        return FR_ENOMEM;
    size_t n = im->file.size < head->n ? (size_t)im->file.size : head->n;
    if (fr_file_read_at(&im->file, 0, bytes, n, im->path, &no) != FR_OK)
        n = 0;
    bool is_image = n >= sizeof magic && memcmp(bytes, magic, sizeof magic) == 0;
    if (no.code != FR_OK)
        why = "it cannot be read";
    else if (!is_image)
        why = "it is no image";
    else if (n < head->n || memcmp(bytes, head->p, n) != 0)
        why = "it is damaged, or of another version of the model or of ferry";
    else if (im->file.size != h->bytes)
        why = "it is not complete";
    fr_mem_free(bytes);
    *found = !why;
    if (!why)
        return FR_OK;
    fr_log_warn("repack cache: %s: %s; it is made again", im->path, why);
    fr_file_close(&im->file);
    if (is_image) /* its room is needed for the new one */
        unlink(im->path);
    return FR_OK;
}

/* ---- making -------------------------------------------------------------------------------------
 */

/* What a start that was killed left behind. */
static void report_leftovers(const fr_store *s, const char *folder)
{
    DIR *d = opendir(folder);
    const char *name = strrchr(s->image.path, '/') + 1;
    size_t n = strlen(name);
    for (struct dirent *e; d && (e = readdir(d));)
        if (strncmp(e->d_name, name, n) == 0 && e->d_name[n] != 0)
            fr_log_warn("repack cache: %s/%s: left by a start that is going on, or was killed; "
                        "remove it then",
                        folder, e->d_name);
    if (d)
        closedir(d);
}

static fr_status check_room(const char *folder, uint64_t bytes, fr_err *err)
{
    struct statvfs fs;
    char has[32], needs[32];
    if (mkdir(folder, 0777) != 0 && errno != EEXIST)
        return fr_fail(err, FR_EIO, "repack cache %s: cannot be made: %s", folder, strerror(errno));
    if (statvfs(folder, &fs) != 0)
        return fr_fail(err, FR_EIO, "repack cache %s: %s", folder, strerror(errno));
    uint64_t room = (uint64_t)fs.f_bavail * fs.f_frsize;
    if (room >= bytes)
        return FR_OK;
    return fr_fail(err, FR_EIO,
                   "repack cache %s: found %s free, expected %s for the repacked weights; free "
                   "some, name another folder, or leave the option out",
                   folder, fr_format_bytes(room, has), fr_format_bytes(bytes, needs));
}

/* A store of everything in RAM's layouts, whose parts are written instead of kept. */
static fr_status write_weights(const fr_store *s, const fr_store_config *cfg, fr_out_file *out,
                               fr_err *err)
{
    fr_store all = {.model = s->model, .cpu = s->cpu, .image.file = FR_FILE_CLOSED};
    fr_status st = store_parts_list(&all, NULL, err);
    for (int k = 0; st == FR_OK && k < all.n_parts; k++) {
        all.items[k].at = s->image.at[k];
        all.items[k].source = s->image.at[k] > 0 ? STORE_REPACK : STORE_MADE;
    }
    if (st == FR_OK)
        st = store_load(&all, cfg, out, err);
    store_parts_close(&all);
    return st;
}

static fr_status make(const fr_store *s, const fr_store_config *cfg, const image_head *h,
                      const fr_buf *head, fr_err *err)
{
    fr_out_file out;
    char bytes[32];
    report_leftovers(s, cfg->repack_cache);
    FR_TRY(check_room(cfg->repack_cache, h->bytes, err));
    fr_log_info("repack cache: writing %s, %s", s->image.path, fr_format_bytes(h->bytes, bytes));
    FR_TRY(fr_file_create(s->image.path, &out, err));
    fr_status st = fr_file_reserve(&out, h->bytes, err);
    if (st == FR_OK)
        st = fr_file_write_at(&out, 0, head->p, head->n, err);
    if (st == FR_OK) /* the last byte, so that the size is right */
        st = fr_file_write_at(&out, h->bytes - 1, "", 1, err);
    if (st == FR_OK)
        st = write_weights(s, cfg, &out, err);
    if (st == FR_OK)
        return fr_file_commit(&out, err);
    fr_file_abort(&out);
    return st;
}

/* ---- all of it ---------------------------------------------------------------------------------
 */

fr_status store_image_open(fr_store *s, const fr_store_config *cfg, fr_err *err)
{
    store_image *im = &s->image;
    fr_buf head = {0};
    image_head h;
    bool found = false;
    fr_status st = FR_ENOMEM;
    im->at = FR_NEW(uint64_t, FR_MEM_MODEL, (size_t)s->model->n_weights, err);
    if (!im->at)
        return FR_ENOMEM;
    FR_TRY_OUT(st, make_head(s, &h, &head, err));
    if (h.n_entries == 0)
        goto out; /* nothing is repacked */
    FR_TRY_OUT(st, make_path(s, cfg->repack_cache, &h, &head, err));
    FR_TRY_OUT(st, find(s, &h, &head, &found, err));
    if (!found) {
        FR_TRY_OUT(st, make(s, cfg, &h, &head, err));
        FR_TRY_OUT(st, fr_file_open(im->path, &im->file, err));
    }
    if (im->file.size != h.bytes)
        FR_TRY_OUT(st, fr_fail(err, FR_EIO,
                               "%s: found %" PRIu64 " bytes, expected %" PRIu64
                               "; somebody else changed it",
                               im->path, im->file.size, h.bytes));
    if (cfg->mmap)
        st = fr_file_map(&im->file, im->path, err);
out:
    fr_buf_free(&head);
    return st;
}

void store_image_close(fr_store *s)
{
    fr_file_close(&s->image.file);
    fr_mem_free(s->image.path);
    fr_mem_free(s->image.at);
}
