// Sums, always in the same order.
#pragma once

#include "cpu/isa/vec.h"
#include "cpu/kernels.h"

namespace fastmlp::cpu::FASTMLP_ISA {

// Of four vectors at a time: each sum waits for the one before.
template <class T>
void column_sum(T* out, Rows<const T> x, std::int64_t rows, std::int64_t cols) {
  using V = Vec<T>;
  constexpr int vectors = 4;
  std::int64_t j = 0;
  for (; j + vectors * V::lanes <= cols; j += vectors * V::lanes) {
    V sum[vectors] = {V(0), V(0), V(0), V(0)};
    for (std::int64_t i = 0; i < rows; ++i)
#pragma GCC unroll 4
      for (int v = 0; v < vectors; ++v) sum[v] = sum[v] + V::load(x[i] + j + v * V::lanes);
#pragma GCC unroll 4
    for (int v = 0; v < vectors; ++v) sum[v].store(out + j + v * V::lanes);
  }
  for_columns<T>(cols - j, [=](std::int64_t first, auto n) {
    V sum(0);
    for (std::int64_t i = 0; i < rows; ++i) sum = sum + V::load(x[i] + j + first, n);
    sum.store(out + j + first, n);
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

template <class T>
void penalize(T* gradient, double* sums, const T* weights, std::int64_t size,
              const Penalty& penalty) {
  using V = Vec<T>;
  const PenaltyGradient<V> derivative(penalty);
  V sizes(0), squares(0);
  for_columns<T>(size, [&](std::int64_t j, auto n) {
    const V w = V::load(weights + j, n);
    sizes = sizes + absolute(w);
    squares = fma(w, w, squares);
    if (gradient) (V::load(gradient + j, n) + derivative(w)).store(gradient + j, n);
  });
  if (!sums) return;
  sums[0] = double(sizes.sum());
  sums[1] = double(squares.sum());
}

}  // namespace fastmlp::cpu::FASTMLP_ISA
