/* The only inline PTX of ferry, each with its emulation. Source of operands and fragment layouts:
 * the PTX ISA manual, sections on cp.async, ldmatrix and mma. From sm_80 on. */
#ifndef FR_CUDA_PTX_CUH
#define FR_CUDA_PTX_CUH

#include "cuda/ferry_cuda.h"

/* The emulated collectives want to know who calls them. */
#ifdef FERRY_CUDA_SIM
#define FERRY_SITE_PARAM , FSIM_SITE
#else
#define FERRY_SITE_PARAM
#endif

namespace FERRY_GPU_NS
{

/* 16 bytes from global to shared memory, both aligned to 16; there after cp_async_wait_for. */
__device__ __forceinline__ void copy_async_16(void *shared, const void *global)
{
#ifdef FERRY_CUDA_SIM
    ::fsim::cp_async(shared, global, 16);
#else
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;\n" ::"r"(
                     (uint32_t)__cvta_generic_to_shared(shared)),
                 "l"(global)
                 : "memory");
#endif
}

/* Ends a group of copies. */
__device__ __forceinline__ void copy_async_commit()
{
#ifdef FERRY_CUDA_SIM
    ::fsim::cp_async_commit();
#else
    asm volatile("cp.async.commit_group;\n" ::: "memory");
#endif
}

/* Waits until at most N of this thread's groups are under way. Other threads' copies: a barrier. */
template <int N> __device__ __forceinline__ void copy_async_wait()
{
#ifdef FERRY_CUDA_SIM
    ::fsim::cp_async_wait(N);
#else
    asm volatile("cp.async.wait_group %0;\n" ::"n"(N) : "memory");
#endif
}

/* Four 8 x 8 matrices of 16 bits; lane 8 j + r names row r of matrix j (16 bytes, shared). */
__device__ __forceinline__ void load_matrix_4(uint32_t (&r)[4], const void *row FERRY_SITE_PARAM)
{
#ifdef FERRY_CUDA_SIM
    ::fsim::touch_range(row, 16, false);
    ::fsim::LdmatrixLane mine = {row, r, 4};
    ::fsim::warp_collective(0xFFFFFFFFu, ::fsim::WARP_LDMATRIX, &mine, ::fsim::ldmatrix_compute,
                            site);
#else
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];\n"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"((uint32_t)__cvta_generic_to_shared(row))
                 : "memory");
#endif
}

/* D (16 x 8, f32) = A (16 x 16, f16, by rows) B (16 x 8, f16, by columns) + C. */
__device__ __forceinline__ void mma_16x8x16_f16(float (&d)[4], const uint32_t (&a)[4],
                                                const uint32_t (&b)[2],
                                                const float (&c)[4] FERRY_SITE_PARAM)
{
#ifdef FERRY_CUDA_SIM
    ::fsim::MmaLane mine = {a, b, c, d};
    ::fsim::warp_collective(0xFFFFFFFFu, ::fsim::WARP_MMA_F16, &mine, ::fsim::mma_f16_compute,
                            site);
#else
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 "
                 "{%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%10,%11,%12,%13};\n"
                 : "=f"(d[0]), "=f"(d[1]), "=f"(d[2]), "=f"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]), "f"(c[0]),
                   "f"(c[1]), "f"(c[2]), "f"(c[3]));
#endif
}

/* D (16 x 8, int32) = A (16 x 32, int8, by rows) B (32 x 8, int8, by columns) + C. */
__device__ __forceinline__ void mma_16x8x32_s8(int (&d)[4], const uint32_t (&a)[4],
                                               const uint32_t (&b)[2],
                                               const int (&c)[4] FERRY_SITE_PARAM)
{
#ifdef FERRY_CUDA_SIM
    ::fsim::MmaLane mine = {a, b, c, d};
    ::fsim::warp_collective(0xFFFFFFFFu, ::fsim::WARP_MMA_S8, &mine, ::fsim::mma_s8_compute, site);
#else
    asm volatile("mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 "
                 "{%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%10,%11,%12,%13};\n"
                 : "=r"(d[0]), "=r"(d[1]), "=r"(d[2]), "=r"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]), "r"(c[0]),
                   "r"(c[1]), "r"(c[2]), "r"(c[3]));
#endif
}

} // namespace FERRY_GPU_NS
#endif
