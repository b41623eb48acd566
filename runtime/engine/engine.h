/* ferry's public API: an engine holds a loaded model, a session one sequence of tokens with its KV
 * cache.
 *
 * One thread at a time may use an engine and its sessions (the engine thread); fr_session_cancel
 * may be called from anywhere, a signal handler included. */
#ifndef FR_ENGINE_ENGINE_H
#define FR_ENGINE_ENGINE_H

#include "cpu/cpu.h"
#include "planner/plan.h"
#include "sample/sampler.h"
#include "store/store.h"
#include "token/vocab.h"

typedef struct fr_engine fr_engine;
typedef struct fr_session fr_session;

/* Makes the placement rules for a model. Called in fr_engine_open; *out is the engine's then. */
typedef fr_status (*fr_rules_fn)(void *user, const fr_model *m, fr_rules **out, fr_err *err);

/* Where weights and caches shall live. All pointers are used during fr_engine_open only. */
typedef struct {
    const fr_hardware *hardware; /* NULL: fr_engine_hardware */
    fr_rules_fn rules;           /* NULL: none */
    void *rules_user;
    fr_plan_options options; /* its members from n_gpu_layers on, without n_threads; the others come
                                from the engine's configuration */
    const char *sim;         /* "3x256MiB": so many simulated GPUs of that size instead of this
                                machine's; "": as they are set up already; NULL: this machine's */
    bool sync_debug; /* wait for every operation on a GPU, so that errors name their cause */
} fr_placement_config;

typedef struct {
    const char *model_path;
    int64_t n_ctx;       /* longest sequence; 0 = what the model was trained for, if it fits */
    int64_t n_ubatch;    /* tokens computed together */
    int n_threads;       /* for single tokens; <= 0 = one per core */
    int n_threads_batch; /* for batches; <= 0 = as n_threads */
    const char *cpu_mask, *cpu_range; /* the CPUs to use; see fr_cpu_config, as for the next two */
    bool cpu_strict;                  /* bind_cores */
    fr_numa numa;
    bool autotune_threads;    /* measures the numbers of threads that are not given, some seconds */
    const char *thread_cache; /* file that keeps what was measured; NULL: none */
    fr_isa max_isa;
    fr_mla_mode mla;
    fr_type type_k, type_v; /* of the KV cache */
    int64_t kv_window;      /* last positions that are kept exact besides (kv.h); 0 = none */
    uint64_t
        expand_bytes; /* bound of the buffers in which prefill expands K and V (-amb); 0 = none */
    bool all_logits;  /* sessions can deliver the logits of every token */
    int64_t n_seq;    /* sessions that fr_engine_step computes together; 0 = 1 */
    bool mmap, check_tensors;
    fr_store_reading reading; /* of weights that are not in the page cache */
    fr_store_pages pages;     /* of weights; but for SMALL, work space asks for huge ones too */
    bool mlock;               /* them */
    bool repack; /* weights get the layout that kernels read fastest; else the file's */
    const char *repack_cache; /* folder that keeps repacked weights (store.h); NULL: none */
    fr_placement_config place;
    fr_progress_fn progress; /* while loading; may be NULL */
    void *progress_user;
} fr_engine_config;

/* Every field but model_path as the command line's defaults have it: all GPUs of this machine. */
fr_engine_config fr_engine_defaults(void);

/* This machine with its GPUs, or with simulated ones (sim as in fr_placement_config): what an
 * engine plans for that is told no hardware. No GPU is no error. The simulated GPUs are one set for
 * the whole process: FR_EINVAL when engines are open on others, FR_EUNSUPPORTED in a build without.
 */
fr_status fr_engine_hardware(const char *sim, fr_hardware *out, fr_err *err);

/* Plans, and loads a model as planned. The planner's warnings and notes go to the log. FR_ENOMEM
 * with the planner's advice when it does not fit, FR_ENOTFOUND when the plan uses a GPU that is not
 * there. *out is owned by the caller until fr_engine_close. */
fr_status fr_engine_open(const fr_engine_config *cfg, fr_engine **out, fr_err *err);
void fr_engine_close(fr_engine *e); /* after its sessions; NULL is allowed */

/* What the planner foresaw for the engine and one session in RAM; never less than what is taken. */
typedef struct {
    uint64_t weights, derived, kv, workspace; /* workspace: with the logits */
} fr_planned_bytes;

typedef struct {
    const char *name, *arch; /* general.name or "", general.architecture */
    int64_t n_params, n_layer, n_vocab, n_ctx_train, n_ctx;
    uint64_t file_bytes, derived_bytes, workspace_bytes;
    uint64_t kv_bytes, logits_bytes; /* of one session */
    fr_planned_bytes planned;
    fr_store_loading loading;
    int n_threads, n_threads_batch;
    fr_isa isa;
} fr_engine_info;

fr_engine_info fr_engine_describe(const fr_engine *e);
const fr_plan *fr_engine_plan(const fr_engine *e); /* what was planned, and is carried out */

/* What engine and sessions took of a GPU; device as in the plan, from 1. Never more than planned
 * with one session. kv: of the sessions that are open. */
typedef struct {
    uint64_t weights, workspace, staging, kv, kv_peak; /* workspace: with the logits */
} fr_gpu_bytes;
fr_gpu_bytes fr_engine_gpu_bytes(const fr_engine *e, int device);

const fr_vocab *fr_engine_vocab(const fr_engine *e);
fr_str fr_engine_chat_template(const fr_engine *e); /* the model's own; empty when it has none */

/* What a matrix product is about to read: row r of x meets the matrices mats[r * per_row ..] of the
 * weight; with mats == NULL the matrix r % n_mat. Valid during the call. */
typedef struct {
    const char *weight; /* its name */
    int64_t n_mat;      /* matrices (experts, heads) of it that the rows are dealt out to; 1: every
                           row meets the whole weight, also where the file has several matrices */
    const float *x;
    int64_t ldx, n_rows, cols;
    const int32_t *mats;
    int64_t per_row;
} fr_observation;

/* Calls fn for every product of a weight of the file, from now on (importance matrices); NULL ends
 * it. Costs copies; FR_ENOMEM. Weights that only other attention modes use are not seen: open the
 * engine with -mla 0 to see attn_kv_b. What follows the last layer's attention is computed, and
 * seen, only for tokens whose logits are asked for: fr_session_append_all sees everything. */
typedef void (*fr_observe_fn)(void *user, const fr_observation *o);
fr_status fr_engine_observe(fr_engine *e, fr_observe_fn fn, void *user, fr_err *err);

/* ---- where the time goes
 * ------------------------------------------------------------------------------------ */

/* Kinds of work. CACHE: writing K and V; CORE: attention itself; EXPERTS_REST: grouping and
 * preparing the inputs of routed experts; SHARED, DENSE: products of the shared expert and of dense
 * layers; SMALL: additions, SwiGLU outside routed experts, copies; SAMPLING: in fr_generate. */
#define FR_PROFILE_CLASSES(X)                                                                      \
    X(EMBEDDING, "embedding")                                                                      \
    X(NORM, "norms")                                                                               \
    X(PROJECTIONS, "attention projections")                                                        \
    X(ROPE, "rope")                                                                                \
    X(CACHE, "cache write")                                                                        \
    X(CORE, "attention core")                                                                      \
    X(ROUTER, "router")                                                                            \
    X(EXPERTS_UP, "experts gate/up")                                                               \
    X(EXPERTS_DOWN, "experts down")                                                                \
    X(EXPERTS_REST, "experts grouping")                                                            \
    X(SHARED, "shared expert")                                                                     \
    X(DENSE, "dense ffn")                                                                          \
    X(SMALL, "adds, swiglu")                                                                       \
    X(OUTPUT, "output")                                                                            \
    X(SAMPLING, "sampling")

typedef enum {
#define X(ID, name) FR_PROFILE_##ID,
    FR_PROFILE_CLASSES(X)
#undef X
        FR_PROFILE_COUNT
} fr_profile_class;

const char *fr_profile_class_name(fr_profile_class c);

/* wall: seconds that passed; busy: seconds of work in them, of all threads together, so that
 * n_threads * wall - busy is what threads waited (for one another, or because the work was left to
 * one of them). Within an expert node, busy is shared out by wall. */
typedef struct {
    int64_t n; /* operations */
    double wall, busy;
} fr_profile_cell;

typedef struct {
    int64_t n_steps, n_tokens;
    int n_threads;
    double seconds; /* of the steps; less the cells' but sampling: what the executor itself costs */
    int64_t n_jobs,
        n_barriers;         /* of all threads of the CPU, in the steps; a job ends in a wait too */
    fr_profile_cell *cells; /* [n_layer + 1][FR_PROFILE_COUNT]; last row: outside layers */
} fr_profile_phase;

enum { FR_PROFILE_BATCH, FR_PROFILE_SINGLE }; /* steps of several tokens, of one */

typedef struct {
    int64_t n_layer;
    fr_profile_phase phases[2];
} fr_profile;

/* How the CPU deals out the work of routed experts, as found out so far (fr_cpu_moe_choices), of
 * the threads for single tokens and, where these are others, for batches. */
int fr_engine_moe_choices(const fr_engine *e, fr_cpu_moe_choice *out, int most);

/* From now on measures every operation, starting from zero; or ends it. Results are not affected.
 * FR_ENOMEM. */
fr_status fr_engine_profile(fr_engine *e, bool on, fr_err *err);

/* What was measured so far; NULL when it is off. Valid until fr_engine_profile or
 * fr_engine_close. */
const fr_profile *fr_engine_profiled(const fr_engine *e);

/* ---- sessions
 * --------------------------------------------------------------------------------------------- */

fr_status fr_session_open(fr_engine *e, fr_session **out, fr_err *err);
void fr_session_close(fr_session *s);

/* The tokens whose K and V are cached. */
const int32_t *fr_session_tokens(const fr_session *s, int64_t *n);

/* Makes the session hold exactly tokens[0..n), n > 0: keeps the longest common prefix (*n_reused
 * tokens) and computes the rest. Afterwards fr_session_logits are those of the last token.
 * FR_ERANGE when n is beyond the context, FR_EINVAL for an id outside the vocabulary,
 * FR_ECANCELLED: in all cases the session stays usable and holds a prefix of what was asked. */
fr_status fr_session_sync(fr_session *s, const int32_t *tokens, int64_t n, int64_t *n_reused,
                          fr_err *err);

/* Appends n > 0 tokens; as fr_session_sync otherwise. */
fr_status fr_session_append(fr_session *s, const int32_t *tokens, int64_t n, fr_err *err);

/* Appends, and hands over the logits of every one of the tokens: n_rows rows of n_vocab, for
 * positions pos, pos + 1, ... Needs all_logits. A failing status from fn ends the call with it. */
typedef fr_status (*fr_logits_fn)(void *user, int64_t pos, int64_t n_rows, const float *logits,
                                  fr_err *err);
fr_status fr_session_append_all(fr_session *s, const int32_t *tokens, int64_t n, fr_logits_fn fn,
                                void *user, fr_err *err);

/* Forgets everything from position n on. */
void fr_session_truncate(fr_session *s, int64_t n);

/* Makes the session hold n tokens by writing those that it holds, with their K and V, again and
 * again behind themselves: a depth to measure speeds at that takes no prompt, and nothing to get
 * text from. FR_EINVAL when it holds none, or more; FR_ERANGE beyond the context; FR_EUNSUPPORTED
 * when a part of the cache is on a GPU. */
fr_status fr_session_repeat(fr_session *s, int64_t n, fr_err *err);

/* Logits (n_vocab) of the last token, or NULL after a truncation or failure. Valid until the next
 * call. */
const float *fr_session_logits(const fr_session *s);

/* Stops a running computation soon; the next one starts unharmed. Async-signal-safe. */
void fr_session_cancel(fr_session *s);

/* Tokens computed and seconds spent, by batches and by single tokens, since the session was opened.
 */
typedef struct {
    int64_t n_batch_tokens, n_single_tokens;
    double batch_seconds, single_seconds;
} fr_session_times;
fr_session_times fr_session_timing(const fr_session *s);

/* Appends tokens[i] to sessions[i], n > 0 different sessions of e: in one step, as far as n_seq and
 * n_ubatch allow, else in several. The weights are then read once for all of them. On GPUs, and
 * with FR_MLA_EXPAND, one after the other. Bits do not depend on how many go together, but where a
 * model computes single tokens in another way than batches. A failure leaves a prefix of the
 * sessions with their token; fr_session_cancel of sessions[0] stops it. As fr_session_append
 * otherwise. */
fr_status fr_engine_step(fr_engine *e, fr_session *const *sessions, const int32_t *tokens,
                         int64_t n, fr_err *err);

/* Makes `to` hold what `from` holds, a session of the same engine; it has no logits.
 * FR_EUNSUPPORTED when a part of the cache is on a GPU. */
fr_status fr_session_copy(fr_session *to, const fr_session *from, fr_err *err);

/* ---- generating text
 * ------------------------------------------------------------------------------------------ */

typedef struct {
    int64_t
        n_predict; /* at most so many tokens; < 0 = until the model ends or the context is full */
    const char *const *stops; /* text that ends the generation and is not given out */
    size_t n_stops;
    bool special; /* give out control tokens too */
} fr_generate_params;

typedef enum {
    FR_STOP_LIMIT,
    FR_STOP_EOG,
    FR_STOP_WORD,
    FR_STOP_CONTEXT,
    FR_STOP_CALLER
} fr_stop_reason;

typedef struct {
    fr_stop_reason reason;
    const char *stop_word; /* of params->stops, for FR_STOP_WORD */
    int64_t n_generated;   /* tokens picked, an end token included */
} fr_generate_result;

/* Whole UTF-8 characters as they become certain; returning false stops. */
typedef bool (*fr_text_fn)(void *user, const char *text, size_t n);

/* Picks tokens after what the session holds (it must have logits) and appends each. The sampler
 * must have accepted the history that its penalties shall see. The last token picked is not
 * appended: nobody needs what would follow it. */
fr_status fr_generate(fr_session *s, fr_sampler *sampler, const fr_generate_params *params,
                      fr_text_fn fn, void *user, fr_generate_result *result, fr_err *err);

#endif
