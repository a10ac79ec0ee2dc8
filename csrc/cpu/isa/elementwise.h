// Activations, forward and backward, and dropout.
#pragma once

#include "core/random.h"
#include "cpu/isa/vec.h"
#include "cpu/kernels.h"

namespace fastmlp::cpu::FASTMLP_ISA {

template <class T>
void activation_forward(Rows<T> y, Rows<T> before, Rows<const T> x, const T* bias,
                        std::int64_t rows, std::int64_t cols, const Activation& activation) {
  using V = Vec<T>;
  Functions::visit(activation.index, [&](auto kind) {
    const V a(activation.parameter);
    for (std::int64_t i = 0; i < rows; ++i) {
      for_columns<T>(cols, [&](std::int64_t j, auto n) {
        V z = V::load(x[i] + j, n);
        if (bias) z = z + V::load(bias + j, n);
        if (before) z.store(before[i] + j, n);
        decltype(kind)::forward(z, a).store(y[i] + j, n);
      });
    }
  });
}

template <class T>
void activation_backward(Rows<T> dx, Rows<const T> dy, Rows<const T> kept, std::int64_t rows,
                         std::int64_t cols, const Activation& activation) {
  using V = Vec<T>;
  Activations::visit(activation.index, [&](auto kind) {
    const V a(activation.parameter);
    for (std::int64_t i = 0; i < rows; ++i) {
      for_columns<T>(cols, [&](std::int64_t j, auto n) {
        const V slope = decltype(kind)::derivative(V::load(kept[i] + j, n), a);
        (V::load(dy[i] + j, n) * slope).store(dx[i] + j, n);
      });
    }
  });
}

template <class T>
void dropout(Rows<T> y, Rows<const T> x, std::int64_t first_row, std::int64_t rows,
             std::int64_t cols, const DropoutMask& mask) {
  const std::uint32_t threshold = keep_threshold(mask.rate);
  const T scale = T(1 / (1 - mask.rate));
  const std::uint64_t stream = random_stream(Purpose::dropout, mask.layer << 44 | mask.forward);
  for (std::int64_t i = 0; i < rows; ++i) {
    const std::uint64_t first = std::uint64_t((first_row + i) * cols);
    std::int64_t j = 0;
    while (j < cols) {  // four numbers from each block of the generator
      const std::uint64_t number = first + std::uint64_t(j);
      const Philox random(mask.seed, number / 4, stream);
      for (int word = int(number % 4); word < 4 && j < cols; ++word, ++j)
        y[i][j] = random.word[word] < threshold ? x[i][j] * scale : x[i][j] * T(0);
    }
  }
}

}  // namespace fastmlp::cpu::FASTMLP_ISA
