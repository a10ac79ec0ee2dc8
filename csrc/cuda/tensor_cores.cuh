// Matrix products on tensor cores: operands rounded to tf32 or bfloat16 on their way into shared
// memory, sums in float32, the epilogues of matmul.cuh.
//
// A tensor core multiplies words of 32 bits along k: one tf32 number each, or two bfloat16. In
// words the fragments of both instructions (PTX: mma.m16n8k8 of tf32, mma.m16n8k16 of bf16) have
// the same places, so one loop serves both. Sums start from the bias and go up in k, eight words at
// a time whatever the tile, so neither the tile nor the grid changes a bit.
#pragma once

#include <cstdint>

#include "cuda/matmul.cuh"
#include "cuda/runtime.h"

namespace fastmlp::cuda {

struct Tf32 {
  static constexpr int per_word = 1;

  static FASTMLP_DEVICE std::uint32_t word(const float* x) { return to_tf32(*x); }
  static FASTMLP_DEVICE void multiply_add(float (&sum)[4], const std::uint32_t (&a)[4],
                                          const std::uint32_t (&b)[2]) {
    mma_tf32(sum, a, b);
  }
};

struct Bfloat16 {
  static constexpr int per_word = 2;

  static FASTMLP_DEVICE std::uint32_t word(const float* x) { return to_bfloat16(x[0], x[1]); }
  static FASTMLP_DEVICE void multiply_add(float (&sum)[4], const std::uint32_t (&a)[4],
                                          const std::uint32_t (&b)[2]) {
    mma_bfloat16(sum, a, b);
  }
};

// A block computes a square tile of the result, its warps in two rows of four; a warp covers its
// part with `each` x `each` results of the instruction, `depth` words of k at a time.
template <int size>
struct WarpTile {
  static constexpr int across = 4, down = 2;
  static constexpr int each = size / 32;
  static constexpr int depth = 16;
  static constexpr int padded = depth + 4;              // a fragment's words lie in different banks
  static constexpr int elements = size * padded;        // of a factor's tile
  static constexpr int words = size * depth / threads;  // that a thread loads of it
  static_assert(across * down * warp == threads);
};

// The tiles of both factors in shared memory, row by row along k. A kernel that has products of
// several precisions has them once.
template <int size>
FASTMLP_DEVICE std::uint32_t* shared_tiles() {
  FASTMLP_SHARED(std::uint32_t, tiles, 2 * WarpTile<size>::elements);
  return tiles;
}

// Which words of a tile of a factor are this thread's: neighbours in memory are neighbouring
// threads', and from one to the next it is always as far.
template <class Kind, int size>
struct Share {
  using Shape = WarpTile<size>;

  const Factor<float>& from;
  const int row, word, next_row, next_word;

  FASTMLP_DEVICE explicit Share(const Factor<float>& from)
      : from(from),
        row(along_k() ? int(threadIdx.x) / Shape::depth : int(threadIdx.x) % size),
        word(along_k() ? int(threadIdx.x) % Shape::depth : int(threadIdx.x) / size),
        next_row(along_k() ? threads / Shape::depth : 0),
        next_word(along_k() ? 0 : threads / size) {}

  FASTMLP_DEVICE bool along_k() const { return from.down == 1; }

  // Into registers: elements (first .., k ..), 0 from the end of the factor and of `all` on.
  FASTMLP_DEVICE void fetch(float (&values)[Shape::words][Kind::per_word], std::int64_t first,
                            std::int64_t k, std::int64_t all) const {
    const float* place =
        from.data + (first + row) * from.across + (k + word * Kind::per_word) * from.down;
    const std::int64_t step = next_row * from.across + next_word * Kind::per_word * from.down;
    constexpr int deepest = Shape::depth * Kind::per_word;
    int rows = int((from.length - first < size ? from.length - first : size)) - row;
    int deep = int((all - k < deepest ? all - k : deepest)) - word * Kind::per_word;
#pragma unroll
    for (int e = 0; e < Shape::words; ++e) {
#pragma unroll
      for (int part = 0; part < Kind::per_word; ++part)
        values[e][part] = rows > 0 && part < deep ? place[part * from.down] : 0.0f;
      place += step;
      rows -= next_row;
      deep -= next_word * Kind::per_word;
    }
  }
  // From there into shared memory.
  FASTMLP_DEVICE void put(std::uint32_t* tile,
                          const float (&values)[Shape::words][Kind::per_word]) const {
    std::uint32_t* place = tile + row * Shape::padded + word;
#pragma unroll
    for (int e = 0; e < Shape::words; ++e)
      place[e * (next_row * Shape::padded + next_word)] = Kind::word(values[e]);
  }
};

template <class Kind, int size>
FASTMLP_DEVICE void multiply_on_tensor_cores(const MatMul& record, const Block& block) {
  using Shape = WarpTile<size>;
  constexpr int each = Shape::each, padded = Shape::padded;
  constexpr int step = Shape::depth * Kind::per_word;
  std::uint32_t* const tile_a = shared_tiles<size>();
  std::uint32_t* const tile_b = tile_a + Shape::elements;

  const Product<float> product(record, block);
  const Share<Kind, size> of_a(product.a), of_b(product.b);
  // The place of the warp's first element in the tile, and the lane's in a fragment: of a its row
  // and word, of b its column and word, of the result its row and pair of columns.
  const int place = block.thread() / warp;
  const int rows = place / Shape::across * 16 * each, cols = place % Shape::across * 8 * each;
  const int group = block.lane() / 4, within = block.lane() % 4;

  product.each_tile(size, [&](std::int64_t top, std::int64_t left) {
    float sum[each][each][4];
#pragma unroll
    for (int j = 0; j < each; ++j)
#pragma unroll
      for (int c = 0; c < 2; ++c) {
        const float start = product.start(left + cols + 8 * j + 2 * within + c);
#pragma unroll
        for (int i = 0; i < each; ++i) sum[i][j][c] = sum[i][j][c + 2] = start;
      }
    // The next part of either factor is on its way through registers while one is multiplied.
    float next_a[Shape::words][Kind::per_word], next_b[Shape::words][Kind::per_word];
    of_a.fetch(next_a, top, 0, product.k);
    of_b.fetch(next_b, left, 0, product.k);
    for (std::int64_t first = 0; first < product.k; first += step) {
      __syncthreads();
      of_a.put(tile_a, next_a);
      of_b.put(tile_b, next_b);
      __syncthreads();
      if (first + step < product.k) {
        of_a.fetch(next_a, top, first + step, product.k);
        of_b.fetch(next_b, left, first + step, product.k);
      }
#pragma unroll
      for (int w = 0; w < Shape::depth; w += 8) {
        std::uint32_t b[each][2];
#pragma unroll
        for (int j = 0; j < each; ++j) {
          const std::uint32_t* const from = tile_b + (cols + 8 * j + group) * padded + w + within;
          b[j][0] = from[0];
          b[j][1] = from[4];
        }
#pragma unroll
        for (int i = 0; i < each; ++i) {
          const std::uint32_t* const from = tile_a + (rows + 16 * i + group) * padded + w + within;
          const std::uint32_t a[4] = {from[0], from[8 * padded], from[4], from[8 * padded + 4]};
#pragma unroll
          for (int j = 0; j < each; ++j) Kind::multiply_add(sum[i][j], a, b[j]);
        }
      }
    }
    // Element c of the lane's four in result (i, j).
    auto row_of = [&](int i, int c) { return top + rows + 16 * i + group + c / 2 * 8; };
    auto col_of = [&](int j, int c) { return left + cols + 8 * j + 2 * within + c % 2; };
    const auto target = product.target();
#pragma unroll
    for (int i = 0; i < each; ++i)
#pragma unroll
      for (int j = 0; j < each; ++j)
#pragma unroll
        for (int c = 0; c < 4; ++c) product.store(target, row_of(i, c), col_of(j, c), sum[i][j][c]);
    product.finish(target, each * each * 4, [&](int e, std::int64_t& row, std::int64_t& col) {
      row = row_of(e / 4 / each, e % 4);
      col = col_of(e / 4 % each, e % 4);
    });
  });
}

}  // namespace fastmlp::cuda
