// Answers what the machine is, and times the loop of isa/peak.h.
#include "cpu/machine.h"

#include <chrono>
#include <cstdint>

#include "cpu/blas.h"
#include "cpu/features.h"
#include "cpu/kernels.h"
#include "cpu/matmul.h"

namespace fastmlp::cpu {

const char* instruction_set() { return name(best_instruction_set()); }
const BlasInfo& blas_info() { return blas(); }
const char* matmul_path() { return uses_blas() ? "blas" : "native"; }
const char* bfloat16_path() {
  if (!multiplies_bfloat16()) return "none";
  return has_tiles() ? "amx" : "avx512_bf16";
}

// Doubles the steps until the time is long enough to be trusted.
template <class T>
double fma_peak() {
  using Clock = std::chrono::steady_clock;
  for (std::int64_t steps = 1 << 16;; steps *= 2) {
    T result;
    const auto start = Clock::now();
    const double operations = kernels<T>().multiply_add(steps, &result);
    const double seconds = std::chrono::duration<double>(Clock::now() - start).count();
    if (seconds > 5e-3) return operations / seconds / 1e9;
  }
}

template double fma_peak<float>();
template double fma_peak<double>();

}  // namespace fastmlp::cpu
