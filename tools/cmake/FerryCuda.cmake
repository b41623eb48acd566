# The cuda box: C code sees one library, ferry_cuda, which holds the backends that this machine can
# build: the CUDA one (nvcc), the simulator (a C++ compiler), both or none. FERRY_HAVE_CUDA and
# FERRY_HAVE_CUDA_SIM say which.

set(CMAKE_CUDA_ARCHITECTURES "${FERRY_CUDA_ARCHS}") # before any target
ferry_box(cuda cuda DEPS quant)
# Kernels of all types, and the others.
set(cuda_dense dense matvec matmul_plain matmul_il matmul_native)
set(cuda_others backend dl_cublas matmul ops attention attention_chunks kv_cache)
set(FERRY_HAVE_CUDA OFF)
set(FERRY_HAVE_CUDA_SIM OFF)
include(CheckLanguage)

# ---- CUDA ------------------------------------------------------------------------------------
# nvcc is named through the environment: a broken one then is "no CUDA" instead of a fatal error.
if(NOT FERRY_CUDA STREQUAL "OFF")
    if(NOT CMAKE_CUDA_COMPILER AND NOT DEFINED ENV{CUDACXX})
        find_program(FERRY_NVCC nvcc HINTS ENV CUDA_HOME ENV CUDA_PATH PATHS /usr/local/cuda PATH_SUFFIXES bin)
        if(FERRY_NVCC)
            set(ENV{CUDACXX} "${FERRY_NVCC}")
        endif()
    endif()
    check_language(CUDA)
    if(CMAKE_CUDA_COMPILER)
        enable_language(CUDA)
        find_package(CUDAToolkit 12.0)
        set(FERRY_HAVE_CUDA ${CUDAToolkit_FOUND})
    endif()
    if(FERRY_CUDA STREQUAL "ON" AND NOT FERRY_HAVE_CUDA)
        message(FATAL_ERROR "FERRY_CUDA: found ON, but no CUDA toolkit of version 12 or later; set CUDACXX to its nvcc, or use AUTO")
    endif()
endif()

# Contraction is off, as on the CPU: kernels ask for fused operations where they want them. A kernel
# that spills registers does not pass a build with FERRY_WERROR.
function(ferry_cuda_library name)
    add_library(${name} STATIC ${ARGN})
    set_target_properties(${name} PROPERTIES CUDA_STANDARD 17 CUDA_STANDARD_REQUIRED ON CUDA_RUNTIME_LIBRARY Static)
    target_include_directories(${name} PRIVATE ${CMAKE_SOURCE_DIR}/runtime ${CMAKE_SOURCE_DIR})
    target_compile_definitions(${name} PRIVATE _GNU_SOURCE)
    target_compile_options(${name} PRIVATE --fmad=false -Xcompiler=-Wall
        $<$<BOOL:${FERRY_WERROR}>:--Werror=all-warnings -Xptxas=--warn-on-spills,-Werror>)
    target_link_libraries(${name} PUBLIC CUDA::cudart_static ${CMAKE_DL_LIBS})
endfunction()

if(FERRY_HAVE_CUDA)
    # The fallback for all forms is many kernels and gains nothing from newer code: sm_80's runs on
    # 86 and 89 too.
    set(dense_archs "${FERRY_CUDA_ARCHS}")
    if(dense_archs STREQUAL "80-real;86-real;89-real;90")
        set(dense_archs "80-real;90")
    endif()
    list(TRANSFORM cuda_dense REPLACE "(.+)" "${CMAKE_SOURCE_DIR}/cuda/\\1.cu" OUTPUT_VARIABLE dense_sources)
    list(TRANSFORM cuda_others REPLACE "(.+)" "${CMAKE_SOURCE_DIR}/cuda/\\1.cu" OUTPUT_VARIABLE other_sources)
    ferry_cuda_library(ferry_cuda_dense ${dense_sources})
    set_target_properties(ferry_cuda_dense PROPERTIES CUDA_ARCHITECTURES "${dense_archs}")
    ferry_cuda_library(ferry_cuda_gpu ${other_sources})
    target_link_libraries(ferry_cuda_gpu PUBLIC ferry_cuda_dense ferry_quant)
    target_link_libraries(ferry_cuda PUBLIC ferry_cuda_gpu)
    target_compile_definitions(ferry_cuda PUBLIC FERRY_HAVE_CUDA)
endif()

# ---- the simulator ---------------------------------------------------------------------------
if(FERRY_CUDA_SIM)
    check_language(CXX)
    if(CMAKE_CXX_COMPILER)
        enable_language(CXX)
        set(FERRY_HAVE_CUDA_SIM ON)
    endif()
endif()

# Kernels and their host code, built as C++ (also those of tests).
function(ferry_sim_flags name)
    set_target_properties(${name} PROPERTIES CXX_STANDARD 17 CXX_STANDARD_REQUIRED ON)
    target_compile_definitions(${name} PRIVATE FERRY_CUDA_SIM=1)
    if(FERRY_SAN STREQUAL "thread")
        target_compile_definitions(${name} PRIVATE FERRY_SIM_TSAN)
    endif()
endfunction()

if(FERRY_HAVE_CUDA_SIM)
    # The machine itself. In race mode it is the one thing that is not instrumented: it tells
    # ThreadSanitizer by hand what CUDA promises. It then gets no flags of ours but these.
    file(GLOB machine CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/cuda/sim/*.cpp)
    set(sim_sources ${cuda_dense} ${cuda_others} blas)
    list(TRANSFORM sim_sources REPLACE "(.+)" "${CMAKE_SOURCE_DIR}/cuda/sim/\\1_sim.cpp")
    list(REMOVE_ITEM machine ${sim_sources})
    add_library(ferry_sim_machine STATIC ${machine})
    ferry_sim_flags(ferry_sim_machine)
    if(FERRY_SAN STREQUAL "thread")
        target_include_directories(ferry_sim_machine PRIVATE ${CMAKE_SOURCE_DIR}/runtime ${CMAKE_SOURCE_DIR})
        target_compile_definitions(ferry_sim_machine PRIVATE _GNU_SOURCE)
        target_compile_options(ferry_sim_machine PRIVATE -Wall -Wextra -g)
        target_link_libraries(ferry_sim_machine PUBLIC $<LINK_ONLY:ferry_base>)
    else()
        target_link_libraries(ferry_sim_machine PUBLIC ferry_base)
    endif()

    add_library(ferry_cuda_sim STATIC ${sim_sources})
    ferry_sim_flags(ferry_cuda_sim)
    target_link_libraries(ferry_cuda_sim PUBLIC ferry_quant ferry_sim_machine)
    target_link_libraries(ferry_cuda PUBLIC ferry_cuda_sim)
    target_compile_definitions(ferry_cuda PUBLIC FERRY_HAVE_CUDA_SIM)
endif()

message(STATUS "GPU backends: CUDA ${FERRY_HAVE_CUDA}, simulator ${FERRY_HAVE_CUDA_SIM}")
if(FERRY_CUDA_SIM AND NOT FERRY_HAVE_CUDA_SIM)
    message(STATUS "no C++ compiler found: no simulated GPUs, their tests are not built (Debian: g++)")
endif()
