/* A model as its GGUF headers describe it: hyper-parameters, and the list of weights that the graph
 * will need with their checked shapes. No tensor data is touched, so the planner can work on
 * headers alone. */
#ifndef FR_MODEL_MODEL_H
#define FR_MODEL_MODEL_H

#include "base/arena.h"
#include "model/hparams.h"

typedef enum {
#define X(ID, name, per_layer) FR_ROLE_##ID,
#include "model/roles.def"
#undef X
    FR_ROLE_COUNT
} fr_role;

typedef enum {
    FR_ARCH_NONE,
#define X(ID, name, ops) FR_ARCH_##ID,
#include "model/arch.def"
#undef X
} fr_arch;

/* How multi-head latent attention caches and computes (-mla):
 *   PLAIN     K and V of every head are cached; no latent cache
 *   ABSORB    latent cache; attention always runs on latents
 *   EXPAND    latent cache; batches of more than one token expand K and V, single tokens absorb
 *   AUTO      latent cache; expands when that is fewer operations, else absorbs */
typedef enum {
    FR_MLA_PLAIN = 0,
    FR_MLA_ABSORB = 1,
    FR_MLA_EXPAND = 2,
    FR_MLA_AUTO = 3
} fr_mla_mode;

typedef enum {
    FR_DERIVE_NONE,     /* straight from the file */
    FR_DERIVE_VIEW,     /* some rows of another weight, in place */
    FR_DERIVE_DECODE,   /* some rows of another weight (from >= 0), or a vector of the file, decoded
                         */
    FR_DERIVE_TRANSPOSE /* some rows of another weight, decoded and transposed */
} fr_derive;

/* One weight of the graph. Derived ones: matrix m of this weight takes rows
 * [m * src_step + src_row, ...) of weight `from`; TRANSPOSE makes column c of them column-to-row:
 * w[m][r][c] = from[m * src_step + src_row + c][r]. */
typedef struct {
    const char *name; /* for people; derived ones say what they come from */
    fr_role role;
    int layer;                 /* -1 outside layers */
    const fr_gguf_tensor *src; /* NULL when derived from another weight */
    fr_derive derive;
    int from;
    int64_t src_row, src_step;
    fr_weight shape; /* in memory: type, layout, sizes; data is NULL. In the file: src */
    uint64_t bytes;  /* memory of its own: 0 for views */
} fr_model_weight;

typedef struct {
    fr_arch arch;
    const char *arch_name;
    fr_mla_mode mla;
    fr_hparams hp;
    const fr_gguf *gguf; /* not owned; must outlive the model */
    fr_arena arena;      /* owns what follows */
    fr_model_weight *weights;
    int n_weights;
    int *index;       /* [(n_layer + 1) * FR_ROLE_COUNT]: weight or -1; last row = outside layers */
    int64_t n_params; /* of all tensors in the files */
    uint64_t file_bytes, derived_bytes;
} fr_model;

/* Checks g against the shapes of its architecture: every mismatch, missing tensor or unknown
 * architecture is an error with expected and found; tensors that nobody will read are named in the
 * log. Layouts are the fastest ones. *out is owned by the caller until fr_model_close. */
fr_status fr_model_open(const fr_gguf *g, fr_mla_mode mla, fr_model **out, fr_err *err);
void fr_model_close(fr_model *m);

/* Chooses the layout in memory of every weight, before any is loaded: that which the kernels read
 * fastest (fr_layout_in_memory), or the file's. token_embd, vectors and what is derived stay as
 * they are in any case, and so does a weight whose views (v_b in kv_b) would begin within a group
 * of rows. */
void fr_model_set_layouts(fr_model *m, bool fastest);

/* Whether a weight can have this layout in memory. */
bool fr_model_layout_possible(const fr_model *m, int weight, fr_layout layout);

/* Index into weights, or -1 when the model has none of this role (layer -1: outside layers). */
int fr_model_weight_of(const fr_model *m, int layer, fr_role role);

/* "blk.12.ffn_down_exps.weight" -> 12 and the role; false for names of no known role. */
bool fr_tensor_name_parse(const char *name, int *layer, fr_role *role);

/* ---- for the family files (model/deepseek2.c and its siblings to come)
 * ------------------------------- */

struct fr_graph;
struct fr_graph_config;

typedef struct {
    /* Declares the weights (model_expect, model_derive). hp is filled. */
    fr_status (*declare)(fr_model *m, fr_err *err);
    /* Appends the nodes of one forward pass. */
    fr_status (*build)(const fr_model *m, const struct fr_graph_config *cfg, struct fr_graph *g,
                       fr_err *err);
} fr_arch_ops;

const fr_arch_ops *fr_model_arch_ops(const fr_model *m);

/* Takes the tensor of a role from the file. Its dimensions must be cols, rows, mats (trailing ones
 * may be missing; rows * mats in one dimension is accepted). Absent: FR_ENOTFOUND when required,
 * else FR_OK. */
fr_status model_expect(fr_model *m, int layer, fr_role role, int64_t cols, int64_t rows,
                       int64_t mats, bool required, fr_err *err);

/* Adds a derived weight of mats matrices of rows x cols. */
fr_status model_derive(fr_model *m, int layer, fr_role role, fr_derive how, int from,
                       int64_t src_row, int64_t src_step, int64_t cols, int64_t rows, int64_t mats,
                       fr_err *err);

#endif
