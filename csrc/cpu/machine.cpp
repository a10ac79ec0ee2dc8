// Answers what the machine is, and times the loops of isa/peak.cpp.
#include "cpu/machine.h"

#include <chrono>
#include <cstdint>

#include "cpu/blas.h"
#include "cpu/features.h"

namespace fastmlp::cpu {

const char* instruction_set() { return name(best_instruction_set()); }
const BlasInfo& blas_info() { return blas(); }

#define FASTMLP_DECLARE_PEAK(set)                  \
  namespace set {                                  \
  double peak_float(std::int64_t steps, float*);   \
  double peak_double(std::int64_t steps, double*); \
  }

FASTMLP_DECLARE_PEAK(baseline)
#if FASTMLP_X86
FASTMLP_DECLARE_PEAK(avx2)
FASTMLP_DECLARE_PEAK(avx512)
#endif

#undef FASTMLP_DECLARE_PEAK

namespace {

// Doubles the steps until the time is long enough to be trusted.
template <class T>
double gigaflops(double (*multiply_add)(std::int64_t, T*)) {
  using Clock = std::chrono::steady_clock;
  for (std::int64_t steps = 1 << 16;; steps *= 2) {
    T result;
    const auto start = Clock::now();
    const double operations = multiply_add(steps, &result);
    const double seconds = std::chrono::duration<double>(Clock::now() - start).count();
    if (seconds > 5e-3) return operations / seconds / 1e9;
  }
}

}  // namespace

template <>
double fma_peak<float>() {
  switch (best_instruction_set()) {
#if FASTMLP_X86
    case InstructionSet::avx512: return gigaflops(avx512::peak_float);
    case InstructionSet::avx2: return gigaflops(avx2::peak_float);
#endif
    default: return gigaflops(baseline::peak_float);
  }
}

template <>
double fma_peak<double>() {
  switch (best_instruction_set()) {
#if FASTMLP_X86
    case InstructionSet::avx512: return gigaflops(avx512::peak_double);
    case InstructionSet::avx2: return gigaflops(avx2::peak_double);
#endif
    default: return gigaflops(baseline::peak_double);
  }
}

}  // namespace fastmlp::cpu
