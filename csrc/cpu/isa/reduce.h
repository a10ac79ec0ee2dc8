// Sums, always in the same order.
#pragma once

#include "cpu/isa/vec.h"
#include "cpu/kernels.h"

namespace fastmlp::cpu::FASTMLP_ISA {

template <class T>
void column_sum(T* out, Rows<const T> x, std::int64_t rows, std::int64_t cols) {
  using V = Vec<T>;
  for_columns<T>(cols, [&](std::int64_t j, auto n) {
    V sum(0);
    for (std::int64_t i = 0; i < rows; ++i) sum = sum + V::load(x[i] + j, n);
    sum.store(out + j, n);
  });
}

template <class T>
void prelu_slope(T* out, Rows<const T> dy, Rows<const T> x, std::int64_t rows, std::int64_t cols) {
  using V = Vec<T>;
  for_columns<T>(cols, [&](std::int64_t j, auto n) {
    V sum(0);
    for (std::int64_t i = 0; i < rows; ++i)
      sum = fma(V::load(dy[i] + j, n), ParametricRelu::slope_derivative(V::load(x[i] + j, n)), sum);
    sum.store(out + j, n);
  });
}

template <class T>
double sum_of_squares(const T* x, std::int64_t size) {
  using V = Vec<T>;
  V sum(0);
  for_columns<T>(size, [&](std::int64_t j, auto n) {
    const V v = V::load(x + j, n);
    sum = fma(v, v, sum);
  });
  return double(sum.sum());
}

}  // namespace fastmlp::cpu::FASTMLP_ISA
