// The machine as the CPU backend uses it: all that the bindings see besides the backend itself.
#pragma once

#include <string>

#include "cpu/quota.h"

namespace fastmlp::cpu {

// The name of the instruction set in use (features.h).
const char* instruction_set();

// Whose matrix products are in use, "native" or "blas" (matmul.h).
const char* matmul_path();

// What multiplies numbers rounded to bfloat16: "amx", "avx512_bf16" or, where nothing does, "none".
const char* bfloat16_path();

struct BlasInfo {
  std::string library;
  std::string version;
  std::string core;     // whose kernels it runs, as it names them itself; may be empty
  std::string origin;   // where the choice of the core came from
  std::string warning;  // why it is slower than this CPU allows; empty where it is not
};

// Opens the library if that has not been done (blas.h).
const BlasInfo& blas_info();

// How many threads a large job gets: at first, the CPUs that this process may keep busy, by its
// affinity and its quota.
int num_threads();
void set_num_threads(int n);

// GFLOP/s of fused multiply-adds in registers, with the instruction set in use, measured on this
// thread for about 10 ms: no matrix product can be faster. T is float or double.
template <class T>
double fma_peak();

}  // namespace fastmlp::cpu
