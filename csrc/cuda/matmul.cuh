// Matrix products in shared memory and registers, with their epilogues.
//
// Every element of the result is one chain of multiply-adds in ascending k, starting from its bias:
// the CPU's chain, so also its bits.
#pragma once

#include "core/activation.h"
#include "cuda/elementwise.cuh"
#include "cuda/execution.cuh"

namespace fastmlp::cuda {

// A block computes a square tile of the result, each thread per_thread x per_thread elements of it,
// `depth` steps of k at a time.
template <int size>
struct Tile {
  static constexpr int side = 16;  // of the square of threads
  static constexpr int per_thread = size / side;
  static constexpr int depth = 16;
  static constexpr int padded = size + 1;  // so that a column's elements lie in different banks
  static_assert(side * side == threads);
};

// A matrix as a product reads it, element (i, k), be it transposed in memory or not.
template <class T>
struct Factor {
  const T* data;
  std::int64_t across, down;  // strides of i and k
  std::int64_t length;        // of i

  FASTMLP_DEVICE T at(std::int64_t i, std::int64_t k) const { return data[i * across + k * down]; }
};

// Elements (first .. first + size, k .. k + depth) into shared memory, neighbours in memory by
// neighbouring threads; what is outside is not read.
template <class T, int size>
FASTMLP_DEVICE void load_tile(T* to, const Factor<T>& from, std::int64_t first, std::int64_t k,
                              int deep) {
  constexpr int depth = Tile<size>::depth;
  const bool along_k = from.down == 1;
  for (int e = int(threadIdx.x); e < size * depth; e += threads) {
    const int kk = along_k ? e % depth : e / size, i = along_k ? e / depth : e % size;
    const bool inside = first + i < from.length && kk < deep;
    to[kk * Tile<size>::padded + i] = inside ? from.at(first + i, k + kk) : T(0);
  }
}

template <class T, int size>
FASTMLP_DEVICE void multiply(const MatMul& record, const Block& block) {
  using Shape = Tile<size>;
  constexpr int per_thread = Shape::per_thread, side = Shape::side, depth = Shape::depth;
  FASTMLP_SHARED(T, tile_a, depth * Shape::padded);
  FASTMLP_SHARED(T, tile_b, depth * Shape::padded);

  const std::int64_t m = block.rows(record.out), n = record.out.cols;
  const std::int64_t k = record.transpose_a ? block.rows(record.a) : record.a.cols;
  const std::int64_t a_stride = record.a.row_stride, b_stride = record.b.row_stride;
  const Factor<T> a{block.data<const T>(record.a), record.transpose_a ? 1 : a_stride,
                    record.transpose_a ? a_stride : 1, m};
  const Factor<T> b{block.data<const T>(record.b), record.transpose_b ? b_stride : 1,
                    record.transpose_b ? 1 : b_stride, n};
  const auto out = block.matrix<T>(record.out), before = block.matrix<T>(record.before);
  const auto kept = block.matrix<const T>(record.kept);
  const T* const bias = block.data<const T>(record.bias);
  const bool is_identity = record.activation.index == 0 && !kept;
  const int x = block.thread() % side, y = block.thread() / side;

  const unsigned across = unsigned((n + size - 1) / size);  // so many tiles fit no memory
  block.each_task((m + size - 1) / size * across, [&](std::int64_t task) {
    const std::int64_t top = unsigned(task) / across * size, left = unsigned(task) % across * size;
    T sum[per_thread][per_thread];
#pragma unroll
    for (int j = 0; j < per_thread; ++j) {
      const std::int64_t col = left + x + j * side;
      const T start = bias && col < n ? bias[col] : T(0);
#pragma unroll
      for (int i = 0; i < per_thread; ++i) sum[i][j] = start;
    }
    for (std::int64_t first = 0; first < k; first += depth) {
      const int deep = int(k - first < depth ? k - first : depth);
      __syncthreads();
      load_tile<T, size>(tile_a, a, top, first, deep);
      load_tile<T, size>(tile_b, b, left, first, deep);
      __syncthreads();
      auto step = [&](int kk) {
        T row[per_thread], column[per_thread];
#pragma unroll
        for (int i = 0; i < per_thread; ++i) {
          column[i] = tile_a[kk * Shape::padded + y + i * side];
          row[i] = tile_b[kk * Shape::padded + x + i * side];
        }
#pragma unroll
        for (int i = 0; i < per_thread; ++i)
#pragma unroll
          for (int j = 0; j < per_thread; ++j) sum[i][j] = fma(column[i], row[j], sum[i][j]);
      };
      if (deep == depth) {
#pragma unroll
        for (int kk = 0; kk < depth; ++kk) step(kk);
      } else {
        for (int kk = 0; kk < deep; ++kk) step(kk);
      }
    }
    T* const target = (before ? before.data : out.data);
    const std::int64_t stride = before ? before.stride : out.stride;
#pragma unroll
    for (int i = 0; i < per_thread; ++i) {
      const std::int64_t row = top + y + i * side;
#pragma unroll
      for (int j = 0; j < per_thread; ++j) {
        const std::int64_t col = left + x + j * side;
        if (row < m && col < n) target[row * stride + col] = sum[i][j];
      }
    }
    if (is_identity && !before) return;
    // The epilogue goes over what this thread has just written, in a loop that is not unrolled:
    // with every formula in every place the kernel would be a hundred times as long.
#pragma unroll 1
    for (int e = 0; e < per_thread * per_thread; ++e) {
      const std::int64_t row = top + y + e / per_thread * side,
                         col = left + x + e % per_thread * side;
      if (row >= m || col >= n) continue;
      const T value = target[row * stride + col];
      out[row][col] = kept ? value * slope(kept[row][col], record.activation)
                           : activated(value, record.activation);
    }
  });
}

}  // namespace fastmlp::cuda
