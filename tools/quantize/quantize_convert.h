/* Turns one tensor's data into another type or layout, some rows at a time, on all threads. */
#ifndef FR_TOOLS_QUANTIZE_CONVERT_H
#define FR_TOOLS_QUANTIZE_CONVERT_H

#include "cpu/cpu.h"
#include "gguf/gguf_writer.h"
#include "quantize_plan.h"

typedef struct quantize_converter quantize_converter;

/* n_threads <= 0: one for each core. */
fr_status quantize_converter_open(int n_threads, quantize_converter **out, fr_err *err);
void quantize_converter_close(quantize_converter *c);
int quantize_converter_n_threads(const quantize_converter *c);

typedef struct {
    double error; /* of an encoded tensor: root of the mean square, relative to its weights */
    uint64_t n_replaced; /* NaN and infinite weights that were taken as 0 */
} quantize_result;

/* Converts tensor `s` of g, whose data must be mapped, and appends the result to w. Floats are
 * checked: FR_EFORMAT counts NaN and infinite weights unless allow_nan. Results that would not be
 * finite are FR_ERANGE. Same bytes for any number of threads. */
fr_status quantize_convert(quantize_converter *c, const fr_gguf *g, const quantize_step *s,
                           const importance *im, bool allow_nan, fr_gguf_writer *w,
                           quantize_result *result, fr_err *err);

#endif
