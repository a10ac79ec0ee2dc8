# The GPU's backend, fastmlp._cuda: an extension module of its own, so that fastmlp._core is the same
# with and without it, and importing fastmlp never loads it.
set(FASTMLP_CUDA AUTO CACHE STRING
    "Whether to build the CUDA backend: ON, OFF, or AUTO for where nvcc is found and works")
set_property(CACHE FASTMLP_CUDA PROPERTY STRINGS AUTO ON OFF)

# Sets `reason` to why CUDA cannot be built here, to nothing where it can.
macro(fastmlp_enable_cuda)
  set(reason "")
  if(NOT CMAKE_CUDA_COMPILER)
    unset(CMAKE_CUDA_COMPILER CACHE) # an editable install's build folder: one may be there by now
  endif()
  include(CheckLanguage)
  check_language(CUDA)
  if(NOT CMAKE_CUDA_COMPILER)
    set(reason "no nvcc is found, or it does not work with this C++ compiler")
  else()
    # A cubin for each of these generations (8.0 serves 8.6 and 8.9 too), and PTX for later ones.
    if(NOT DEFINED CMAKE_CUDA_ARCHITECTURES AND NOT DEFINED ENV{CUDAARCHS})
      set(CMAKE_CUDA_ARCHITECTURES "80-real;90-real;90-virtual")
    endif()
    set(CMAKE_CUDA_RUNTIME_LIBRARY Static)
    enable_language(CUDA)
    # A compiler without headers, or without the runtime to link, is common.
    try_compile(FASTMLP_CUDA_WORKS "${CMAKE_CURRENT_BINARY_DIR}/cuda_check"
                "${CMAKE_CURRENT_SOURCE_DIR}/cmake/cuda_check.cu" OUTPUT_VARIABLE output)
    if(NOT FASTMLP_CUDA_WORKS)
      set(reason "${CMAKE_CUDA_COMPILER} cannot build a small program:\n${output}")
    endif()
  endif()
endmacro()

if(FASTMLP_CUDA)
  fastmlp_enable_cuda()
  if(reason AND NOT FASTMLP_CUDA STREQUAL "AUTO")
    message(FATAL_ERROR "FASTMLP_CUDA=${FASTMLP_CUDA}: ${reason}")
  elseif(reason)
    message(STATUS "Without the CUDA backend: ${reason}")
  else()
    set(CMAKE_CUDA_STANDARD 17)
    set(CMAKE_CUDA_STANDARD_REQUIRED ON)
    set(CMAKE_CUDA_EXTENSIONS OFF)
    set(CMAKE_CUDA_FLAGS_RELEASE "-O2 -DNDEBUG")
    set(CMAKE_CUDA_VISIBILITY_PRESET hidden)
    file(STRINGS cmake/nvcc_options.txt nvcc_options REGEX "^[^#]")
    separate_arguments(nvcc_options UNIX_COMMAND "${nvcc_options}")
    set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS cmake/nvcc_options.txt)

    file(GLOB cuda_sources CONFIGURE_DEPENDS csrc/cuda/*.cu csrc/cuda/*.cpp
         csrc/bindings/cuda/*.cpp)
    pybind11_add_module(_cuda MODULE NO_EXTRAS ${cuda_sources})
    target_include_directories(_cuda PRIVATE csrc)
    target_link_libraries(_cuda PRIVATE ${CMAKE_DL_LIBS})
    target_compile_options(_cuda PRIVATE "$<$<COMPILE_LANGUAGE:CUDA>:${nvcc_options}>")
    # Standard exceptions cross to fastmlp._core, CUDA's symbols do not.
    target_link_options(_cuda PRIVATE -Wl,--exclude-libs,ALL)
    install(TARGETS _cuda DESTINATION fastmlp)
  endif()
endif()
