// What lets one source serve the host, an instruction set of its own, and a GPU.
//
// Every function in core/ that files compiled for one instruction set may reach is FASTMLP_FN: it
// is always inlined, so that the linker never finds an AVX-512 copy of it to hand to everybody.
#pragma once

#if defined(__CUDACC__)
#define FASTMLP_FN __host__ __device__ __forceinline__
#else
#define FASTMLP_FN inline __attribute__((always_inline))
#endif
