/* cuBLAS without its headers: the few calls that are needed, by their documented types (cuBLAS
 * manual, sections on cublasCreate, cublasSetStream and cublas<t>gemm; enumerations are int). */
#include <climits>
#include <mutex>

#include "cuda/dl_cublas.cuh"
extern "C" {
#include "base/log.h"
}

#ifdef FERRY_CUDA_SIM
#include "cuda/sim/sim_blas.hpp"
#else
#include <dlfcn.h>
#endif

namespace FERRY_GPU_NS
{

enum { CUBLAS_DONE = 0, CUBLAS_AS_IS = 0, CUBLAS_TRANSPOSED = 1, MOST_DEVICES = 64 };

typedef struct cublasContext *blas_handle;

struct Cublas {
    int (*create)(blas_handle *);
    int (*destroy)(blas_handle);
    int (*set_stream)(blas_handle, cudaStream_t);
    int (*sgemm)(blas_handle, int op_a, int op_b, int m, int n, int k, const float *alpha,
                 const float *a, int lda, const float *b, int ldb, const float *beta, float *c,
                 int ldc);
};

/* One caller at a time: a handle has one stream. */
static std::mutex in_use;
static bool was_sought;
static Cublas lib; /* create == NULL: not there */
static blas_handle handles[MOST_DEVICES];
static bool has_failed[MOST_DEVICES];

#ifdef FERRY_CUDA_SIM
static bool find_library(Cublas *out)
{
    *out = Cublas{cublasCreate_v2, cublasDestroy_v2, cublasSetStream_v2, cublasSgemm_v2};
    return has_blas();
}
#else
template <class F> static bool find(void *library, const char *name, F *out)
{
    *out = (F)dlsym(library, name);
    return *out != nullptr;
}

/* Stays open until the program ends. */
static bool find_library(Cublas *out)
{
    static const char *const names[] = {"libcublas.so.13", "libcublas.so.12"};
    for (const char *name : names) {
        void *library = dlopen(name, RTLD_NOW | RTLD_LOCAL);
        if (!library)
            continue;
        if (find(library, "cublasCreate_v2", &out->create) &&
            find(library, "cublasDestroy_v2", &out->destroy) &&
            find(library, "cublasSetStream_v2", &out->set_stream) &&
            find(library, "cublasSgemm_v2", &out->sgemm))
            return true;
        dlclose(library);
    }
    return false;
}
#endif

static void seek()
{
    if (was_sought)
        return;
    was_sought = true;
    if (find_library(&lib))
        return;
    lib = Cublas{};
    fr_log_info("cuBLAS: found no libcublas.so.13 or libcublas.so.12, expected one for products of "
                "floats with many tokens; ferry's own kernels do them");
}

static void give_up(int device, const char *call, int status)
{
    has_failed[device] = true;
    fr_log_warn("GPU %d: %s found error %d, expected none; ferry's own kernels do its products",
                device, call, status);
}

/* The current device's handle, or NULL. */
static blas_handle handle_of(int device)
{
    seek();
    if (!lib.create || has_failed[device])
        return nullptr;
    if (!handles[device]) {
        int status = lib.create(&handles[device]);
        if (status != CUBLAS_DONE) {
            handles[device] = nullptr;
            cudaGetLastError();
            give_up(device, "cublasCreate", status);
        }
    }
    return handles[device];
}

/* Handles are made and work memory may be taken at the first use, which a capture forbids. */
static bool is_captured(cudaStream_t stream)
{
    cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
    return cudaStreamIsCapturing(stream, &status) != cudaSuccess ||
           status != cudaStreamCaptureStatusNone;
}

/* A row of ours is a column of cuBLAS: y (rows x tokens) = transposed w (cols x rows) times x. */
bool cublas_multiply(const CublasProduct &p, cudaStream_t stream)
{
    const float one = 1, zero = 0;
    int device = 0;
    if (p.rows > INT_MAX || p.cols > INT_MAX || p.n_tokens > INT_MAX || p.ldx > INT_MAX ||
        p.ldy > INT_MAX || is_captured(stream) || cudaGetDevice(&device) != cudaSuccess ||
        device >= MOST_DEVICES)
        return false;
    std::lock_guard<std::mutex> lock(in_use);
    blas_handle h = handle_of(device);
    if (!h)
        return false;
    int status = lib.set_stream(h, stream);
    if (status == CUBLAS_DONE)
        status =
            lib.sgemm(h, CUBLAS_TRANSPOSED, CUBLAS_AS_IS, (int)p.rows, (int)p.n_tokens, (int)p.cols,
                      &one, p.w, (int)p.cols, p.x, (int)p.ldx, &zero, p.y, (int)p.ldy);
    if (status != CUBLAS_DONE)
        give_up(device, "cublasSgemm", status);
    return status == CUBLAS_DONE;
}

void cublas_forget(int device)
{
    std::lock_guard<std::mutex> lock(in_use);
    if (device < 0 || device >= MOST_DEVICES)
        return;
    if (handles[device])
        lib.destroy(handles[device]);
    handles[device] = nullptr;
    has_failed[device] = false;
    cudaGetLastError();
}

} // namespace FERRY_GPU_NS
