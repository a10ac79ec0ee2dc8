// Matrix products in shared memory and registers, with their epilogues.
//
// Every element of the result is one chain of multiply-adds in ascending k, starting from its bias:
// the CPU's chain, so also its bits.
#pragma once

#include "core/activation.h"
#include "cuda/elementwise.cuh"
#include "cuda/execution.cuh"

namespace fastmlp::cuda {

// A matrix as a product reads it, element (i, k), be it transposed in memory or not.
template <class T>
struct Factor {
  const T* data;
  std::int64_t across, down;  // strides of i and k
  std::int64_t length;        // of i

  FASTMLP_DEVICE T at(std::int64_t i, std::int64_t k) const { return data[i * across + k * down]; }
};

// What a record says of a product, for one replica: out (m, n), with k to be summed over. What only
// the ends of a tile need is taken from the record there, and not held in registers all the time.
template <class T>
struct Product {
  const MatMul& record;
  const Block& block;
  const std::int64_t m, n, k;
  const Factor<T> a, b;

  FASTMLP_DEVICE Product(const MatMul& record, const Block& block)
      : record(record),
        block(block),
        m(block.rows(record.out)),
        n(record.out.cols),
        k(record.transpose_a ? block.rows(record.a) : record.a.cols),
        a(factor(record.a, record.transpose_a, m)),
        b(factor(record.b, !record.transpose_b, n)) {}

  // Calls f(top, left) for the tiles of so many rows and columns that are this block's.
  template <class F>
  FASTMLP_DEVICE void each_tile(int size, F&& f) const {
    const unsigned across = unsigned((n + size - 1) / size);  // so many tiles fit no memory
    block.each_task((m + size - 1) / size * across, [&](std::int64_t task) {
      f(std::int64_t(unsigned(task) / across) * size, std::int64_t(unsigned(task) % across) * size);
    });
  }
  // What the sums of a column start from.
  FASTMLP_DEVICE T start(std::int64_t col) const {
    const T* const bias = block.data<const T>(record.bias);
    return bias && col < n ? bias[col] : T(0);
  }
  // Where sums go, before the epilogue.
  FASTMLP_DEVICE Rows<T> target() const {
    const auto before = block.matrix<T>(record.before);
    return before ? before : block.matrix<T>(record.out);
  }
  FASTMLP_DEVICE void store(const Rows<T>& target, std::int64_t row, std::int64_t col,
                            T sum) const {
    if (row < m && col < n) target[row][col] = sum;
  }
  // The epilogue, where there is one, over the elements that this thread has just stored: place(e)
  // gives the row and the column of each. It is a loop that is not unrolled: with every formula in
  // every place the kernel would be a hundred times as long.
  template <class F>
  FASTMLP_DEVICE void finish(const Rows<T>& target, int elements, F&& place) const {
    const auto out = block.matrix<T>(record.out), before = block.matrix<T>(record.before);
    const auto kept = block.matrix<const T>(record.kept);
    if (record.activation.index == 0 && !kept && !before) return;
#pragma unroll 1
    for (int e = 0; e < elements; ++e) {
      std::int64_t row, col;
      place(e, row, col);
      if (row >= m || col >= n) continue;
      const T value = target[row][col];
      out[row][col] = kept ? value * slope(kept[row][col], record.activation)
                           : activated(value, record.activation);
    }
  }

 private:
  FASTMLP_DEVICE Factor<T> factor(const Operand& operand, bool along_columns,
                                  std::int64_t length) const {
    const std::int64_t stride = operand.row_stride;
    return {block.data<const T>(operand), along_columns ? 1 : stride, along_columns ? stride : 1,
            length};
  }
};

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

  const Product<T> product(record, block);
  const int x = block.thread() % side, y = block.thread() / side;
  product.each_tile(size, [&](std::int64_t top, std::int64_t left) {
    T sum[per_thread][per_thread];
#pragma unroll
    for (int j = 0; j < per_thread; ++j) {
      const T start = product.start(left + x + j * side);
#pragma unroll
      for (int i = 0; i < per_thread; ++i) sum[i][j] = start;
    }
    for (std::int64_t first = 0; first < product.k; first += depth) {
      const int deep = int(product.k - first < depth ? product.k - first : depth);
      __syncthreads();
      load_tile<T, size>(tile_a, product.a, top, first, deep);
      load_tile<T, size>(tile_b, product.b, left, first, deep);
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
    const auto target = product.target();
#pragma unroll
    for (int i = 0; i < per_thread; ++i)
#pragma unroll
      for (int j = 0; j < per_thread; ++j)
        product.store(target, top + y + i * side, left + x + j * side, sum[i][j]);
    product.finish(target, per_thread * per_thread,
                   [&](int e, std::int64_t& row, std::int64_t& col) {
                     row = top + y + e / per_thread * side;
                     col = left + x + e % per_thread * side;
                   });
  });
}

}  // namespace fastmlp::cuda
