// Activations, forward and backward, and dropout.
#pragma once

#include "core/random.h"
#include "cpu/isa/vec.h"
#include "cpu/kernels.h"

namespace fastmlp::cpu::FASTMLP_ISA {

// Arguments by value: what a lambda refers to would be read anew after every store. `plain` where
// there is neither a bias nor a place for what comes before the activation, as behind a product.
template <class Kind, bool plain, class T>
FASTMLP_FN void forward_rows(Rows<T> y, Rows<T> before, Rows<const T> x, Rows<const T> bias,
                             std::int64_t rows, std::int64_t cols, double parameter) {
  using V = Vec<T>;
  const V a(parameter);
  for_block<T>(rows, cols, [=](std::int64_t i, std::int64_t j, auto n) {
    V z = V::load(x[i] + j, n);
    if (!plain && bias) z = z + V::load(bias[i] + j, n);
    if (!plain && before) z.store(before[i] + j, n);
    Kind::forward(z, a).store(y[i] + j, n);
  });
}

template <class T>
void activation_forward(Rows<T> y, Rows<T> before, Rows<const T> x, Rows<const T> bias,
                        std::int64_t rows, std::int64_t cols, const Activation& activation) {
  Functions::visit(activation.index, [&](auto kind) {
    if (bias || before)
      forward_rows<decltype(kind), false>(y, before, x, bias, rows, cols, activation.parameter);
    else
      forward_rows<decltype(kind), true>(y, before, x, bias, rows, cols, activation.parameter);
  });
}

template <class Kind, class T>
FASTMLP_FN void backward_rows(Rows<T> dx, Rows<const T> dy, Rows<const T> kept, std::int64_t rows,
                              std::int64_t cols, double parameter) {
  using V = Vec<T>;
  const V a(parameter);
  for_block<T>(rows, cols, [&](std::int64_t i, std::int64_t j, auto n) {
    const V slope = Kind::derivative(V::load(kept[i] + j, n), a);
    (V::load(dy[i] + j, n) * slope).store(dx[i] + j, n);
  });
}

template <class T>
void activation_backward(Rows<T> dx, Rows<const T> dy, Rows<const T> kept, std::int64_t rows,
                         std::int64_t cols, const Activation& activation) {
  Activations::visit(activation.index, [&](auto kind) {
    backward_rows<decltype(kind)>(dx, dy, kept, rows, cols, activation.parameter);
  });
}

template <class T>
void prelu(Rows<T> y, Rows<const T> x, const T* slope, bool shared, std::int64_t rows,
           std::int64_t cols) {
  using V = Vec<T>;
  for_block<T>(rows, cols, [=](std::int64_t i, std::int64_t j, auto n) {
    const V a = shared ? V::broadcast(*slope) : V::load(slope + j, n);
    ParametricRelu::forward(V::load(x[i] + j, n), a).store(y[i] + j, n);
  });
}

template <class T>
void prelu_backward(Rows<T> dx, Rows<const T> dy, Rows<const T> x, const T* slope, bool shared,
                    std::int64_t rows, std::int64_t cols) {
  using V = Vec<T>;
  for_block<T>(rows, cols, [=](std::int64_t i, std::int64_t j, auto n) {
    const V a = shared ? V::broadcast(*slope) : V::load(slope + j, n);
    const V derivative = ParametricRelu::derivative(V::load(x[i] + j, n), a);
    (V::load(dy[i] + j, n) * derivative).store(dx[i] + j, n);
  });
}

template <class T>
void maxout(Rows<T> y, Rows<const T> x, std::int64_t rows, std::int64_t cols, std::int64_t pieces) {
  using V = Vec<T>;
  for_block<T>(rows, cols, [=](std::int64_t i, std::int64_t j, auto n) {
    V top = V::load(x[i] + j, n);
    for (std::int64_t p = 1; p < pieces; ++p) {
      const V next = V::load(x[i] + p * cols + j, n);
      top = select(top >= next, top, select(top == top, next, top));  // NaN stays, and is taken
    }
    top.store(y[i] + j, n);
  });
}

template <class T>
void maxout_backward(Rows<T> dx, Rows<const T> dy, Rows<const T> x, Rows<const T> y,
                     std::int64_t rows, std::int64_t cols, std::int64_t pieces) {
  using V = Vec<T>;
  for_block<T>(rows, cols, [=](std::int64_t i, std::int64_t j, auto n) {
    const V top = V::load(y[i] + j, n);
    V left = select(top == top, V::load(dy[i] + j, n), top);  // what no piece has got yet
    for (std::int64_t p = 0; p < pieces; ++p) {
      const auto largest = V::load(x[i] + p * cols + j, n) >= top;
      select(largest, left, left * V(0)).store(dx[i] + p * cols + j, n);
      left = select(largest, left * V(0), left);
    }
  });
}

// The words of `lanes` successive blocks of Philox (core/random.h), a block to a lane.
struct PhiloxBlocks {
  static constexpr int lanes = vector_bytes / 8, words = 4 * lanes;
  typedef std::uint64_t Lanes __attribute__((vector_size(vector_bytes)));

  // Of the low halves of the lanes; what the high halves hold does not matter.
  static FASTMLP_FN Lanes product(Lanes a, Lanes b) {
#if defined(__AVX512F__)
    return (Lanes)_mm512_maskz_mul_epu32(__mmask8(-1), (__m512i)a, (__m512i)b);
#elif defined(__AVX2__)
    return (Lanes)_mm256_mul_epu32((__m256i)a, (__m256i)b);
#elif defined(__x86_64__)
    return (Lanes)_mm_mul_epu32((__m128i)a, (__m128i)b);
#else
    return (a & 0xFFFFFFFFu) * (b & 0xFFFFFFFFu);
#endif
  }

  // out[4 i + j] = word j of the block `first` + i
  static FASTMLP_FN void generate(std::uint32_t* out, std::uint64_t seed, std::uint64_t first,
                                  std::uint64_t stream) {
    Lanes word0{};
    for (int i = 0; i < lanes; ++i) word0[i] = first + std::uint64_t(i);
    Lanes word1 = word0 >> 32, word2 = stream - Lanes{}, word3 = word2 >> 32;
    Lanes k0 = seed - Lanes{}, k1 = k0 >> 32;
    for (int round = 0; round < 10; ++round) {
      const Lanes a = product(word0, 0xD2511F53u - Lanes{}),
                  b = product(word2, 0xCD9E8D57u - Lanes{});
      word0 = (b >> 32) ^ word1 ^ k0;
      word1 = b;
      word2 = (a >> 32) ^ word3 ^ k1;
      word3 = a;
      k0 = k0 + 0x9E3779B9u;
      k1 = k1 + 0xBB67AE85u;
    }
    const Lanes low = (word0 & 0xFFFFFFFFu) | word1 << 32,
                high = (word2 & 0xFFFFFFFFu) | word3 << 32;
    for (int i = 0; i < lanes; ++i) {
      const std::uint64_t block[2] = {low[i], high[i]};
      __builtin_memcpy(out + 4 * i, block, sizeof block);
    }
  }
};

// Which of a vector's worth of words are below the threshold.
template <class T>
FASTMLP_FN typename Vec<T>::NativeInt below(const std::uint32_t* word, std::uint32_t threshold) {
  using Int = typename Vec<T>::NativeInt;
  typedef std::uint32_t Words __attribute__((vector_size(4 * Vec<T>::lanes)));
  Words w;
  __builtin_memcpy(&w, word, sizeof w);
  if constexpr (sizeof(T) == 4)
    return (Int)(w < threshold);
  else
    return __builtin_convertvector(w, Int) < Int{} + std::int64_t(threshold);
}

template <class T>
void dropout(Rows<T> y, Rows<const T> x, std::int64_t first_row, std::int64_t rows,
             std::int64_t cols, const DropoutMask& mask) {
  using V = Vec<T>;
  constexpr int words = PhiloxBlocks::words;
  const std::uint32_t threshold = keep_threshold(mask.rate);
  const V scale(1 / (1 - mask.rate));
  const std::uint64_t stream = random_stream(Purpose::dropout, mask.layer << 44 | mask.forward);
  std::uint32_t word[words + V::lanes] = {};  // a vector may be read from any of them
  std::uint64_t number = std::uint64_t(first_row * cols), end = number;  // of those in `word`
  for (std::int64_t i = 0; i < rows; ++i) {
    for (std::int64_t j = 0; j < cols;) {
      if (number == end) {
        PhiloxBlocks::generate(word, mask.seed, number / 4, stream);
        end = number / 4 * 4 + words;
      }
      const std::int64_t left = std::int64_t(end - number),
                         count = left < cols - j ? left : cols - j;
      for_columns<T>(count, [&](std::int64_t k, auto n) {
        const V value = V::load(x[i] + j + k, n);
        const auto keep = below<T>(word + words - left + k, threshold);
        select(keep, value * scale, value * V(0)).store(y[i] + j + k, n);
      });
      j += count;
      number += std::uint64_t(count);
    }
  }
}

}  // namespace fastmlp::cpu::FASTMLP_ISA
