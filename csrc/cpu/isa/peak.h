// A loop of nothing but fused multiply-adds in registers: no matrix product can be faster.
#pragma once

#include "cpu/isa/vec.h"

namespace fastmlp::cpu::FASTMLP_ISA {

// An FMA takes four or five cycles and two can start in each, so ten independent chains are needed;
// twelve still fit into 16 registers. The values tend to 1: nothing overflows or becomes denormal.
constexpr int chains = 12;

// Returns the floating-point operations done.
template <class T>
double multiply_add(std::int64_t steps, T* result) {
  Vec<T> value[chains];
  for (int i = 0; i < chains; ++i) value[i] = Vec<T>(1.0 + i);
  const Vec<T> factor(0.875), term(0.125);
  for (std::int64_t step = 0; step < steps; ++step) {
#pragma GCC unroll 12
    for (int i = 0; i < chains; ++i) value[i] = fma(value[i], factor, term);
  }
  Vec<T> total(0.0);
  for (int i = 0; i < chains; ++i) total = total + value[i];
  *result = total.sum();
  return 2.0 * chains * Vec<T>::lanes * steps;
}

}  // namespace fastmlp::cpu::FASTMLP_ISA
