/* Values of the template interpreter, and the run that they live in.
 *
 * A value is 16 bytes and is passed by copy; what it points to lives in the arena of the run (or,
 * for constants, of the template) and is freed with it, so nothing here is freed one by one.
 * Strings are immutable UTF-8; lists, dictionaries and namespaces are mutable and shared, as in
 * Python.
 *
 * Every function that can fail reports through the run: fr_status as result, text with line and
 * column in the run's fr_err. All of this belongs to one thread at a time. */
#ifndef FR_TOKEN_TEMPLATE_VALUE_H
#define FR_TOKEN_TEMPLATE_VALUE_H

#include "base/arena.h"
#include "token/template.h"

/* What a render may use before it is stopped. */
#define TPL_MAX_STEPS      50000000u           /* nodes, iterations, 16-byte pieces of text */
#define TPL_MAX_OUTPUT     ((size_t)64 << 20)  /* bytes of text under construction */
#define TPL_MAX_MEMORY     ((size_t)256 << 20) /* bytes of values */
#define TPL_MAX_DEPTH      600                 /* nested evaluations */
#define TPL_MAX_DATA_DEPTH 200                 /* nested lists and dictionaries */
#define TPL_MAX_RANGE      100000 /* items of range(), as the sandbox of the ecosystem */

typedef enum {
    TPL_MISSING, /* no value at all: an unset slot or an argument that was not passed */
    TPL_UNDEFINED,
    TPL_NONE,
    TPL_BOOL,
    TPL_INT,
    TPL_FLOAT,
    TPL_STR,
    TPL_LIST,
    TPL_TUPLE,
    TPL_SEQ, /* generators, ranges and dictionary views: tpl_list with a flavour */
    TPL_DICT,
    TPL_NAMESPACE,
    TPL_MACRO,
    TPL_FUNCTION, /* a row of the function table */
    TPL_METHOD,   /* a row of a method table with its object */
    TPL_LOOP,
    TPL_JOINER,
    TPL_CYCLER
} tpl_kind;

typedef struct tpl_value tpl_value;
typedef struct tpl_run tpl_run;
typedef struct tpl_node tpl_node;   /* template_ast.h */
typedef struct tpl_frame tpl_frame; /* template_eval.h */
typedef struct tpl_loop tpl_loop;   /* template_eval.h */
typedef struct tpl_row tpl_row;     /* template_call.h */

#define TPL_UNCOUNTED SIZE_MAX

typedef struct {
    const char *p;
    size_t n;       /* bytes */
    size_t n_chars; /* code points, or TPL_UNCOUNTED until somebody asks */
} tpl_str;

/* How an undefined value came to be: for the error text when it is used. */
typedef enum { TPL_UNDEF_PLAIN, TPL_UNDEF_NAME, TPL_UNDEF_ATTR, TPL_UNDEF_INDEX } tpl_undef_origin;

typedef enum { TPL_GENERATOR, TPL_RANGE, TPL_KEYS, TPL_VALUES, TPL_ITEMS } tpl_flavour;

typedef struct {
    tpl_value *v;
    size_t n, cap;
    size_t used; /* generators: items already consumed */
    tpl_flavour flavour;
    int64_t start, stop, step; /* TPL_RANGE, for printing */
    bool grouped;              /* a tuple of the groupby filter, with .grouper and .list */
} tpl_list;

typedef struct tpl_pair tpl_pair;

/* Keys in order of insertion, found through an open-addressing index once there are many. */
typedef struct {
    tpl_pair *v;
    size_t n, cap;
    uint32_t *index; /* positions + 1 in v, 0 = empty; NULL while small */
    size_t index_cap;
} tpl_dict;

typedef struct {
    const tpl_node *node; /* TPL_N_MACRO or TPL_N_CALL_BLOCK */
    tpl_frame *env;
} tpl_macro;

typedef struct tpl_method tpl_method;
typedef struct tpl_stepper tpl_stepper;

struct tpl_value {
    uint8_t kind;  /* tpl_kind */
    uint8_t sub;   /* TPL_UNDEFINED: tpl_undef_origin */
    uint8_t owner; /* TPL_UNDEF_ATTR, TPL_UNDEF_INDEX: tpl_kind of the object */
    union {
        bool b;
        int64_t i;
        double f;
        tpl_str *s; /* also the name of an undefined */
        tpl_list *l;
        tpl_dict *d; /* also namespaces */
        tpl_macro *macro;
        const tpl_row *row;
        tpl_method *method;
        tpl_loop *loop;
        tpl_stepper *stepper;
        void *ptr;
    } u;
};

struct tpl_pair {
    tpl_value key, value;
    uint64_t hash;
};

struct tpl_method {
    tpl_value self;
    const tpl_row *row;
};

/* joiner(sep) and cycler(a, b, ...) */
struct tpl_stepper {
    tpl_list items; /* the separator, or what to cycle through */
    size_t at;
};

struct tpl_run {
    fr_arena arena;
    size_t bytes; /* taken from the arena so far */
    uint64_t steps;
    int depth;
    fr_buf out;               /* the text; captures are its tail */
    char *grow_at, *grow_end; /* free room behind the string that grew last */
    uint32_t line, col;       /* of the node being evaluated */
    int flow;                 /* tpl_flow of the statement that ended a block early */
    const fr_template *t;
    tpl_value *globals; /* by symbol */
    int64_t now;
    fr_err *err;
};

/* ---- the run ----------------------------------------------------------------------------------
 */

/* Sets the error with "template line L, column C: " before the text; returns `code`. */
fr_status tpl_fail(tpl_run *r, fr_status code, const char *fmt, ...) FR_PRINTF(3, 4);

/* Counts work; FR_ERANGE once the render has done too much of it. */
fr_status tpl_spend(tpl_run *r, uint64_t steps);
fr_status tpl_spend_bytes(tpl_run *r, size_t bytes);

/* Guards recursion over data or calls; every successful enter is paired with a leave. */
fr_status tpl_enter(tpl_run *r);
void tpl_leave(tpl_run *r);

/* Zero memory for n things, or NULL with the error set. */
void *tpl_alloc(tpl_run *r, size_t n, size_t size);
#define TPL_NEW(T, r, n) ((T *)tpl_alloc((r), (n), sizeof(T)))

/* Text under construction: emit to the end of r->out, then cut what came since `mark` off as a
 * string. */
fr_status tpl_emit(tpl_run *r, const char *p, size_t n);
fr_status tpl_emit_str(tpl_run *r, fr_str s);
fr_status tpl_emit_repeat(tpl_run *r, fr_str s, int64_t times);
fr_status tpl_capture(tpl_run *r, size_t mark, tpl_value *out);

/* ---- making values -----------------------------------------------------------------------------
 */

static inline tpl_value tpl_none(void)
{
    return (tpl_value){.kind = TPL_NONE};
}

static inline tpl_value tpl_missing(void)
{
    return (tpl_value){.kind = TPL_MISSING};
}

static inline tpl_value tpl_undefined(void)
{
    return (tpl_value){.kind = TPL_UNDEFINED};
}

static inline tpl_value tpl_bool(bool b)
{
    return (tpl_value){.kind = TPL_BOOL, .u.b = b};
}

static inline tpl_value tpl_int(int64_t i)
{
    return (tpl_value){.kind = TPL_INT, .u.i = i};
}

static inline tpl_value tpl_float(double f)
{
    return (tpl_value){.kind = TPL_FLOAT, .u.f = f};
}

static inline fr_str tpl_text(tpl_value v)
{
    return (fr_str){v.u.s->p, v.u.s->n};
}

/* A string over bytes that outlive the run, or a copy of bytes that may not. */
fr_status tpl_str_view(tpl_run *r, fr_str s, tpl_value *out);
fr_status tpl_str_copy(tpl_run *r, fr_str s, tpl_value *out);

/* a + b; cheap when a is the string that grew last, so that building a text piece by piece is
 * linear. */
fr_status tpl_str_concat(tpl_run *r, tpl_value a, tpl_value b, tpl_value *out);

size_t tpl_str_chars(tpl_str *s); /* code points */
size_t tpl_count_chars(fr_str s);

/* An empty TPL_LIST, TPL_TUPLE or TPL_SEQ with room for `cap` items. */
fr_status tpl_list_new(tpl_run *r, tpl_kind kind, size_t cap, tpl_value *out);
fr_status tpl_list_push(tpl_run *r, tpl_list *l, tpl_value v);
fr_status tpl_list_copy(tpl_run *r, tpl_kind kind, const tpl_value *v, size_t n, tpl_value *out);

/* An empty TPL_DICT or TPL_NAMESPACE. */
fr_status tpl_dict_new(tpl_run *r, tpl_kind kind, tpl_value *out);
fr_status tpl_dict_set(tpl_run *r, tpl_dict *d, tpl_value key, tpl_value value);
/* *out is TPL_MISSING when there is no such key. A list or dictionary as key is an error. */
fr_status tpl_dict_get(tpl_run *r, const tpl_dict *d, tpl_value key, tpl_value *out);
fr_status tpl_dict_get_str(tpl_run *r, const tpl_dict *d, tpl_str *key, tpl_value *out);
/* Removes the key; *out as for tpl_dict_get. */
fr_status tpl_dict_remove(tpl_run *r, tpl_dict *d, tpl_value key, tpl_value *out);

/* The value of a JSON value. Strings are views of it when `lives_on`, else copies. */
fr_status tpl_from_json(tpl_run *r, const json_t *json, bool lives_on, tpl_value *out);

/* ---- asking values -----------------------------------------------------------------------------
 */

/* "str", "int", "dict" and so on, as Python names the type. */
const char *tpl_type_name(tpl_value v);

bool tpl_truthy(tpl_value v);
bool tpl_is_number(tpl_value v); /* int, float or bool */
double tpl_as_double(tpl_value number);

/* The value as an integer when it is an int or a bool. */
bool tpl_as_int(tpl_value v, int64_t *out);

/* Python's ==. */
fr_status tpl_equal(tpl_run *r, tpl_value a, tpl_value b, bool *out);

/* Python's ordering: -1, 0, 1; FR_EINVAL for values that have none. `op` is for the text. */
fr_status tpl_compare(tpl_run *r, tpl_value a, tpl_value b, const char *op, int *out);

/* len(); *has is false when the value has no length. */
bool tpl_length(tpl_value v, size_t *n);

/* The items of an iteration over v; a generator is used up by it. Error when v cannot be iterated.
 * The array is not to be changed; it stays valid when the value grows later. */
fr_status tpl_items(tpl_run *r, tpl_value v, const tpl_value **items, size_t *n);
bool tpl_is_iterable(tpl_value v);

/* The error of using an undefined value; FR_EINVAL always. */
fr_status tpl_fail_undefined(tpl_run *r, tpl_value v);

#endif
