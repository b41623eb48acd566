/* Inside of fr_encode_row: one function a type, registered in encode.def.
 *
 * Each writes one row of cols floats (a multiple of the type's weights per block, all finite) to
 * dst in the plain form, all fr_row_bytes of it. `importance` has cols floats >= 0 or is NULL.
 * fr_NAME_pack_plain (types.h) puts a block's fields into zeroed bytes.
 *
 * What all encoders promise: they keep sum of importance * (x - decoded)^2 small and nothing else;
 * a row's bytes depend on its weights and importance alone, from any thread; decoded weights are
 * finite, scales beyond f16 saturate; importance that is 0 everywhere counts as none.
 *
 *   encode_simple.c    floats
 *   encode_flat.c      q4_0 q5_0 q6_0 q8_0 q8_KV iq4_nl mxfp4
 *   encode_minima.c    q4_1 q5_1 q2_K q4_K q5_K
 *   encode_scales.c    q3_K q6_K iq4_xs iq2_k iq3_k iq4_k iq5_k iq6_k iq4_ks iq5_ks
 *   encode_grid.c      iq2_xxs iq2_xs iq2_s iq3_xxs iq3_s
 *   encode_iq1.c       iq1_s iq1_m
 *   encode_fit.h, encode_super.h, encode_lattice.h    what they share
 *
 * Measured by test_encode on 16 x 512 weights: weighted RMSE over that of a foreign producer with
 * the same importance; and millions of weights per second on one core of a 2.3 GHz server.
 *
 *   q4_0    0.98  12    q2_K    0.94 5.1    iq2_k  0.96 2.5    iq2_xxs 0.91 2.1
 *   q4_1    0.98 8.3    q3_K    0.99 7.3    iq3_k  0.97 2.9    iq2_xs  0.93 2.1
 *   q5_0    0.99  12    q4_K    0.97 6.2    iq4_k  0.97 2.9    iq2_s   0.93 2.4
 *   q5_1    0.99 8.2    q5_K    0.97 6.0    iq5_k  0.93 2.8    iq3_xxs 0.95 1.5
 *   q6_0    0.99  12    q6_K    0.97 6.8    iq6_k  0.92 3.7    iq3_s   0.93 1.7
 *   q8_0    0.93  15    iq4_nl  0.99 8.7    iq4_ks 0.99 3.6    iq1_s   0.87 1.2
 *   q8_KV   0.99  21    iq4_xs  0.98 7.3    iq5_ks 0.98 3.8    iq1_m   0.91 1.2
 *   mxfp4   0.97  37 */
#ifndef FR_QUANT_ENCODE_H
#define FR_QUANT_ENCODE_H

#include "quant/qtype.h"

typedef void quant_encode_fn(const float *x, int64_t cols, const float *importance, void *dst);

#define ENCODE(ID, fn) quant_encode_fn fn;
#include "quant/encode.def"
#undef ENCODE

#endif
