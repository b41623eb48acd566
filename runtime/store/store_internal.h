/* Shared by the files of the store box. */
#ifndef FR_STORE_INTERNAL_H
#define FR_STORE_INTERNAL_H

#include "store/store.h"

/* Where the bytes of a part come from. */
typedef enum {
    STORE_MADE,   /* derived from other weights, or a view of one (derive.c) */
    STORE_MAPPED, /* the file's pages, in place */
    STORE_READ,   /* read as the file has them */
    STORE_REPACK  /* read and repacked */
} store_source;

/* What the store knows of a part besides. */
typedef struct {
    int weight;
    store_source source;
    uint64_t bytes;  /* in the device's memory; 0 for views */
    bool from_image; /* mapped or read from it instead of the file */
    uint64_t at;     /* in `block`, of those that are read into RAM */
    uint8_t *made;   /* memory of a derived one in RAM; owned */
} store_item;

typedef struct {
    char id[16];
    int gpu;          /* ordinal of the physical GPU */
    uint64_t planned; /* UINT64_MAX without a plan */
    uint64_t needed;
    fr_gpu_arena *arena; /* NULL on the CPU, and where nothing is placed */
} store_device;

typedef struct {
    uint8_t *p;
    size_t bytes;
} store_range;

/* The file that keeps repacked weights (image.c); file.fd < 0: none. */
typedef struct {
    fr_file file;
    char *path;   /* owned */
    uint64_t *at; /* [n_weights] where each weight is; 0: not in it; owned */
} store_image;

struct fr_store {
    const fr_model *model;
    fr_cpu *cpu;
    const fr_gpu *gpu;
    fr_store_part *parts; /* by weight, then expert */
    store_item *items;    /* one a part */
    int n_parts;
    int *first;         /* [n_weights + 1] each weight's first part */
    fr_weight *weights; /* one a weight: what fr_store_weight gives */
    store_device devices[FR_PLAN_MAX_DEVICES];
    int n_devices;
    uint8_t *block; /* memory of what is read into RAM, routed experts first; owned */
    uint64_t block_bytes;
    uint64_t mapped_bytes; /* accounted for the mapped ones */
    fr_store_loading loading;
    store_image image;
    store_range *pinned; /* registered with the backend; owned */
    int n_pinned;
};

/* ---- store_parts.c: what is where --------------------------------------------------------------
 */

/* Makes the list of parts, without memory. */
fr_status store_parts_list(fr_store *s, const fr_plan *plan, fr_err *err);

/* Settles where each comes from, and takes the memory of all but the derived ones in RAM. */
fr_status store_parts_place(fr_store *s, const fr_store_config *cfg, fr_err *err);
void store_parts_close(fr_store *s);

/* ---- work.c: work in pieces --------------------------------------------------------------------
 */

typedef struct {
    void *user;
    int64_t n;      /* pieces */
    uint64_t bytes; /* of all of them, for the progress */
    /* Does some piece that no other call has done; *bytes: of it. */
    fr_status (*piece)(void *user, int i_thread, uint64_t *bytes, fr_err *err);
    fr_status (*end)(void *user, int i_thread, fr_err *err); /* of a thread; may be NULL */
    const fr_store_config *cfg;
} store_work;

/* Does all pieces; the first failure ends it. */
fr_status store_work_run(fr_cpu *cpu, const store_work *w, fr_err *err);

/* Of a clock that only goes forward. */
double store_seconds(void);

/* ---- read_ahead.c: several requests at a time ---------------------------------------------------
 */

typedef struct store_ahead store_ahead;

/* Where the bytes of a piece are. */
typedef struct {
    int i_file;
    uint64_t from;
    size_t n; /* > 0 */
} store_span;

/* Open files with their names, and what is read of them. Outlives the store_ahead. */
typedef struct {
    const fr_file **files;
    const char **paths;
    int n_files;
    void *user;
    store_span (*span)(const void *user, int64_t piece);
} store_span_source;

/* Starts to read n_pieces, each of most_bytes at most, in their order: past the page cache when
 * `direct`, or by way of it. *out is the caller's, on failure too. */
fr_status store_ahead_open(const store_span_source *source, int64_t n_pieces, size_t most_bytes,
                           int n_threads, bool direct, store_ahead **out, fr_err *err);
void store_ahead_close(store_ahead *a); /* NULL is fine */

typedef struct {
    int64_t number;       /* -1: none */
    const uint8_t *bytes; /* NULL: the caller reads them itself, from the page cache */
    int slot;
} store_ahead_piece;

/* A piece that is ready, about in their order; waits for one, or gives none. To be called until all
 * pieces were given out, by any thread. A piece is to be given back, also after a failure. */
fr_status store_ahead_take(store_ahead *a, bool wait, store_ahead_piece *out, fr_err *err);
void store_ahead_give_back(store_ahead *a, const store_ahead_piece *piece);

typedef struct {
    uint64_t direct_bytes;  /* read past the page cache */
    uint64_t through_bytes; /* read from storage by way of it */
    uint64_t cached_bytes;  /* that were there */
    double full_s;          /* all buffers were taken, so nothing was asked for */
} store_ahead_account;
store_ahead_account store_ahead_accounted(store_ahead *a);

/* ---- fresh_pages.c: memory made ready before it is written -------------------------------------
 */

typedef struct store_fresh store_fresh;

/* For memory that nobody has touched. *out is the caller's, on failure too. */
fr_status store_fresh_open(uint8_t *p, size_t bytes, store_fresh **out, fr_err *err);
void store_fresh_close(store_fresh *f); /* NULL is fine */

typedef enum {
    STORE_FRESH_READY, /* all is */
    STORE_FRESH_BUSY,  /* another thread is about to make it so */
    STORE_FRESH_WORKED /* some was made ready now: ask again */
} store_fresh_result;

/* Any thread; p[0..n) within the memory. */
store_fresh_result store_fresh_ask(store_fresh *f, const uint8_t *p, size_t n);

/* ---- load.c: bringing in what is in the file ---------------------------------------------------
 */

/* Fills the parts that are read, or writes them into an image, at their `at`. */
fr_status store_load(fr_store *s, const fr_store_config *cfg, fr_out_file *image, fr_err *err);

/* ---- image.c: repacked weights kept in a file --------------------------------------------------
 */

/* Opens the image of the model's weights in the folder cfg->repack_cache, which is made when it is
 * not there or is of something else. */
fr_status store_image_open(fr_store *s, const fr_store_config *cfg, fr_err *err);
void store_image_close(fr_store *s);

/* ---- upload.c: pinned buffers on their way to GPUs ---------------------------------------------
 */

/* One thread's way: two buffers, of which one is filled while the other is copied. */
typedef struct store_lane store_lane;

/* n_lanes lanes whose buffers hold slot_bytes. *out is the caller's, on failure too. */
fr_status store_lanes_open(const fr_store *s, int n_lanes, size_t slot_bytes, store_lane **out,
                           fr_err *err);
void store_lanes_close(const fr_store *s, store_lane *lanes); /* waits; NULL is fine */

store_lane *store_lane_at(store_lane *lanes, int i);

/* The buffer to fill next, when its last copy is done. */
fr_status store_lane_take(const fr_store *s, store_lane *l, uint8_t **out_h, fr_err *err);

/* Sends the first bytes of the buffer that was taken last to dst_d on a device of the plan. */
fr_status store_lane_send(const fr_store *s, store_lane *l, int device, void *dst_d, size_t bytes,
                          fr_err *err);

/* Waits for all copies of a lane. */
fr_status store_lane_wait(const fr_store *s, store_lane *l, fr_err *err);

/* Copies any host memory to a device of the plan, and waits. */
fr_status store_copy_wait(const fr_store *s, int device, void *dst_d, const void *src, size_t bytes,
                          fr_err *err);

/* ---- derive.c ----------------------------------------------------------------------------------
 */

/* Makes derived weight i; what it comes from must be there. */
fr_status store_derive(fr_store *s, int i, bool check, fr_err *err);

/* ---- pin.c -------------------------------------------------------------------------------------
 */

/* Registers the routed experts in RAM with the backend; a refusal is a warning. */
fr_status store_pin(fr_store *s, fr_err *err);
void store_unpin(fr_store *s);

/* ---- weight_check.c ----------------------------------------------------------------------------
 */

/* Decodes what is in RAM once: FR_EFORMAT names the tensor and row of a NaN or infinity. */
fr_status store_check(fr_store *s, fr_err *err);

/* The same of one weight in host memory, whose first matrix is `first` of weight i. */
fr_status store_check_weight(fr_store *s, int i, int64_t first, const fr_weight *w, fr_err *err);

/* The first of n rows (whole groups at `rows`) that is not finite, or -1; scratch: cols floats. */
int64_t store_find_bad_row(const fr_weight *w, const uint8_t *rows, int64_t n, float *scratch);
fr_status store_bad_row(const fr_store *s, int i, int64_t row, fr_err *err);

#endif
