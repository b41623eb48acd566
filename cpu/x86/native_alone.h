/* X(NAME, TYPE, activations) for types that have kernels of the native form only: rows in another
 * layout are repacked for these (repacked.h). Of all tiers. */
#ifndef FR_CPU_X86_NATIVE_ALONE_H
#define FR_CPU_X86_NATIVE_ALONE_H

#define NATIVE_ALONE(X)                                                                            \
    X(iq1_s, IQ1_S, FR_ACT_Q8_256)                                                                 \
    X(iq1_m, IQ1_M, FR_ACT_Q8_256)                                                                 \
    X(iq2_ks, IQ2_KS, FR_ACT_Q8_256)                                                               \
    X(iq3_ks, IQ3_KS, FR_ACT_Q8_256)                                                               \
    X(iq4_kss, IQ4_KSS, FR_ACT_Q8_256)                                                             \
    X(iq2_kl, IQ2_KL, FR_ACT_Q8_256)                                                               \
    X(iq1_kt, IQ1_KT, FR_ACT_Q8_256)                                                               \
    X(iq2_kt, IQ2_KT, FR_ACT_Q8_256)                                                               \
    X(iq3_kt, IQ3_KT, FR_ACT_Q8_256)                                                               \
    X(iq4_kt, IQ4_KT, FR_ACT_Q8_256)                                                               \
    X(iq1_s_r4, IQ1_S_R4, FR_ACT_Q8_32)                                                            \
    X(iq1_m_r4, IQ1_M_R4, FR_ACT_Q8_32)

#endif
