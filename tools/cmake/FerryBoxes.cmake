# One static library per box of the tree, and the flags that all of ferry shares.

add_library(ferry_flags INTERFACE)
target_compile_options(ferry_flags INTERFACE
    $<$<COMPILE_LANGUAGE:C>:-Wall -Wextra -Wshadow -Wvla -Wstrict-prototypes -Wmissing-prototypes>
    $<$<COMPILE_LANGUAGE:CXX>:-Wall -Wextra -Wshadow>
    $<$<COMPILE_LANGUAGE:C,CXX>:-march=x86-64-v2 -fno-math-errno -ffp-contract=off -fvisibility=hidden>
    $<$<AND:$<COMPILE_LANGUAGE:C,CXX>,$<BOOL:${FERRY_WERROR}>>:-Werror>)
target_compile_definitions(ferry_flags INTERFACE _GNU_SOURCE FERRY_VERSION="${PROJECT_VERSION}")
target_include_directories(ferry_flags INTERFACE ${CMAKE_SOURCE_DIR}/runtime ${CMAKE_SOURCE_DIR})

string(REPLACE "," ";" ferry_san "${FERRY_SAN}")
foreach(san IN LISTS ferry_san)
    if(NOT san MATCHES "^(address|thread|undefined)$")
        message(FATAL_ERROR "FERRY_SAN: found '${san}', expected address, thread or undefined")
    endif()
    target_compile_options(ferry_flags INTERFACE
        $<$<COMPILE_LANGUAGE:C,CXX>:-fsanitize=${san} -fno-omit-frame-pointer -g>)
    target_link_options(ferry_flags INTERFACE -fsanitize=${san})
    if(san STREQUAL "undefined")
        target_compile_options(ferry_flags INTERFACE
            $<$<COMPILE_LANGUAGE:C,CXX>:-fno-sanitize-recover=undefined>)
    endif()
endforeach()

# Instruction sets belong to single files, by suffix: foo_avx2.c is built for AVX2, and is only
# called after CPUID said so. Everything else is x86-64-v2. Contraction is off everywhere: a fused
# multiply-add appears only where a source file asks for one, so results do not depend on the tier's
# compiler flags.
function(ferry_isa_flags)
    foreach(src IN LISTS ARGN)
        if(src MATCHES "_avx2\\.c$")
            set_source_files_properties(${src} PROPERTIES COMPILE_OPTIONS "-mavx2;-mfma;-mf16c;-mbmi2")
        elseif(src MATCHES "_avx512\\.c$")
            # No vectorizing: GCC 12 turns loops over int8 products wrong with VNNI.
            set_source_files_properties(${src} PROPERTIES COMPILE_OPTIONS
                "-mavx512f;-mavx512bw;-mavx512dq;-mavx512vl;-mavx512vnni;-mavx512vbmi;-mgfni;-mavx2;-mfma;-mf16c;-mbmi2;-fno-tree-vectorize")
        endif()
        # Instrumented, these inlined kernels take the compiler many minutes. Their test puts guard
        # pages round every operand instead.
        if(FERRY_SAN AND src MATCHES "/(rows|plain|native|gemm)_avx(2|512)\\.c$")
            set_property(SOURCE ${src} APPEND PROPERTY COMPILE_OPTIONS "-fno-sanitize=all")
        endif()
    endforeach()
endfunction()

# ferry_box(NAME DIR [DEPS box...] [LIBS target...]): libferry_NAME.a from DIR/*.c and its folders.
function(ferry_box name dir)
    cmake_parse_arguments(BOX "" "" "DEPS;LIBS" ${ARGN})
    file(GLOB_RECURSE srcs CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/${dir}/*.c)
    ferry_isa_flags(${srcs})
    add_library(ferry_${name} STATIC ${srcs})
    target_link_libraries(ferry_${name} PUBLIC ferry_flags)
    foreach(dep IN LISTS BOX_DEPS)
        target_link_libraries(ferry_${name} PUBLIC ferry_${dep})
    endforeach()
    target_link_libraries(ferry_${name} PUBLIC ${BOX_LIBS})
endfunction()
