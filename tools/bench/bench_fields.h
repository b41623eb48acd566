/* A result as named fields: what CSV, JSON and SQL print. The names are the ecosystem's where it
 * has the field. */
#ifndef FR_TOOLS_BENCH_FIELDS_H
#define FR_TOOLS_BENCH_FIELDS_H

#include "bench/bench.h"

typedef struct {
    const char *name;
    bench_kind kind;
    bool missing; /* no yardsticks were measured */
    fr_buf text;  /* of numbers: decimal, joined by commas; owned */
} bench_field;

enum { BENCH_FIELDS_MAX = 64 };

/* Fills fields[0..*n). Free with bench_fields_free, also after a failure. FR_ENOMEM. */
fr_status bench_fields_of(const bench_result *r, bench_field *fields, int *n, fr_err *err);
void bench_fields_free(bench_field *fields, int n);

#endif
