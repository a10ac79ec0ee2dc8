// Matrix products of operands rounded to bfloat16 by AMX, whose instructions multiply tiles: 16
// rows of a, 32 k wide, by 16 columns of b, to add to 16 x 16 of c in float32.
//
// Both operands are packed, rounded, as tiles: a's rows hold 16 pairs along k, and b's rows, of
// which each is a pair along k, 16 columns. k ends in zeros. An instruction sums its 32 products by
// itself and adds the sum to c, so every element is one chain over k's chunks of 32: neither blocks
// nor threads nor the number of rows change a bit. What stands for rows and columns behind the last
// is of no matter, since it is never stored.
//
// Arithmetic is nearly free: packing and memory are what takes time. So a is packed once, and b as
// seldom as a's rows allow.
#pragma once

#include "cpu/isa/bfloat16.h"

namespace fastmlp::cpu::FASTMLP_ISA {

// On the functions that use tiles alone, as FASTMLP_BFLOAT16.
#if defined(FASTMLP_EMULATE_AVX512)
#define FASTMLP_AMX
#else
#define FASTMLP_AMX __attribute__((target("amx-tile,amx-bf16")))
#endif

// A tile in words of 32 bits, each a pair; how many k its rows or columns hold; and how many rows
// and columns of c four of them hold side by side, which is what a kernel computes.
constexpr std::int64_t tile_side = 16, tile_words = 256, tile_depth = 32, block_side = 32;

// Steps of 32 k: of a, as many as are packed together, and of b, whose panels of 32 columns then
// stay in the first-level cache. Columns of b that are packed together: their share of c, b and a
// stays in the second-level one.
constexpr std::int64_t slab_steps = 64, panel_steps = 16, packed_columns = 256;
constexpr std::int64_t packed_b_words = packed_columns / tile_side * panel_steps * tile_words,
                       packed_a_words = matmul_packed<float> - packed_b_words - matmul_slack;
static_assert(packed_a_words >= 512 / tile_side * slab_steps * tile_words);

// The nth tile along rows of a or columns of b, at a step: two lie side by side, as a kernel wants
// them.
FASTMLP_FN float* tile_at(float* packed, std::int64_t steps, std::int64_t tile, std::int64_t step) {
  return packed + ((tile / 2 * steps + step) * 2 + tile % 2) * tile_words;
}

// The first n numbers, which may be none or more than there are lanes.
FASTMLP_FN Vec<float> first_of(const float* x, std::int64_t n) {
  using V = Vec<float>;
  return n >= V::lanes ? V::load(x) : n > 0 ? V::load(x, int(n)) : V(0);
}

FASTMLP_BFLOAT16 inline Words rounded_pair(Vec<float> low, Vec<float> high) {
  return (Words)_mm512_cvtne2ps_pbh(high.v, low.v);
}

// Pairs of the first k of 32 numbers.
FASTMLP_BFLOAT16 inline Words pairs_along(const float* x, std::int64_t k) {
  return rounded_pair(first_of(x, k), first_of(x + 16, k - 16));
}

// Pairs of the first n of 16 numbers with those below them, if there are any.
FASTMLP_BFLOAT16 inline Words pairs_across(const float* x, std::int64_t stride, bool both,
                                           std::int64_t n) {
  typedef std::uint16_t Halves __attribute__((vector_size(vector_bytes)));
  constexpr Halves by_turns = {0, 16, 1, 17, 2,  18, 3,  19, 4,  20, 5,  21, 6,  22, 7,  23,
                               8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31};
  const Words pair = rounded_pair(first_of(x, n), both ? first_of(x + stride, n) : Vec<float>(0));
  return (Words)_mm512_permutexvar_epi16((__m512i)by_turns, (__m512i)pair);
}

// Of two squares of `side`, each of a row, the upper right one and the lower left one change
// places.
template <int side>
FASTMLP_FN void exchange(Words& upper, Words& lower) {
  const Words lane = (Words)Vec<float>::index(), right = (lane & side) != 0;
  const Words above = right ? lane + 16 - side : lane, below = right ? lane + 16 : lane + side;
  const Words whole = upper;
  upper = (Words)_mm512_permutex2var_epi32((__m512i)whole, (__m512i)above, (__m512i)lower);
  lower = (Words)_mm512_permutex2var_epi32((__m512i)whole, (__m512i)below, (__m512i)lower);
}
template <int side>
FASTMLP_FN void exchange_all(Words (&row)[tile_side]) {
#pragma GCC unroll 16
  for (int i = 0; i < tile_side; ++i)
    if (!(i & side)) exchange<side>(row[i], row[i + side]);
}
FASTMLP_FN void turn_tile(Words (&row)[tile_side]) {
  exchange_all<8>(row);
  exchange_all<4>(row);
  exchange_all<2>(row);
  exchange_all<1>(row);
}

FASTMLP_FN void store_row(float* tile, std::int64_t row, Words pairs) {
  Vec<float>(Vec<float>::Native(pairs)).store(tile + row * tile_side);
}
FASTMLP_FN void store_turned(float* tile, Words (&row)[tile_side]) {
  turn_tile(row);
#pragma GCC unroll 16
  for (int i = 0; i < tile_side; ++i) store_row(tile, i, row[i]);
}

// Part of an operand: n rows of a, or columns of b, and k of each. Where `along`, numbers along k
// are neighbours in memory.
struct Part {
  const float* x;
  std::int64_t stride, k, n;
};

// A row at a time, from one end to the other: the processor foresees that.
FASTMLP_BFLOAT16 inline void pack_along(float* packed, std::int64_t steps, const Part& part) {
  for (std::int64_t i = 0; i < part.n; ++i)
    for (std::int64_t s = 0; s < steps; ++s)
      store_row(tile_at(packed, steps, i / tile_side, s), i % tile_side,
                pairs_along(part.x + i * part.stride + s * tile_depth, part.k - s * tile_depth));
}
FASTMLP_BFLOAT16 inline void pack_across(float* packed, std::int64_t steps, const Part& part) {
  const Words none{};
  for (std::int64_t pair = 0; pair < steps * tile_side; ++pair)
    for (std::int64_t j = 0; j < part.n; j += tile_side)
      store_row(tile_at(packed, steps, j / tile_side, pair / tile_side), pair % tile_side,
                2 * pair < part.k ? pairs_across(part.x + 2 * pair * part.stride + j, part.stride,
                                                 2 * pair + 1 < part.k, part.n - j)
                                  : none);
}

// A tile at a time.
FASTMLP_BFLOAT16 inline void pack_along_turned(float* packed, std::int64_t steps,
                                               const Part& part) {
  for (std::int64_t j = 0; j < part.n; j += tile_side)
    for (std::int64_t s = 0; s < steps; ++s) {
      const std::int64_t k = part.k - s * tile_depth;
      const float* const x = part.x + j * part.stride + s * tile_depth;
      Words row[tile_side];
#pragma GCC unroll 16
      for (int i = 0; i < tile_side; ++i)
        row[i] = j + i < part.n ? pairs_along(x + i * part.stride, k) : Words{};
      store_turned(tile_at(packed, steps, j / tile_side, s), row);
    }
}
FASTMLP_BFLOAT16 inline void pack_across_turned(float* packed, std::int64_t steps,
                                                const Part& part) {
  for (std::int64_t s = 0; s < steps; ++s)
    for (std::int64_t j = 0; j < part.n; j += tile_side) {
      const std::int64_t k = part.k - s * tile_depth;
      const float* const x = part.x + s * tile_depth * part.stride + j;
      Words row[tile_side];
#pragma GCC unroll 16
      for (int i = 0; i < tile_side; ++i)
        row[i] = 2 * i < k
                     ? pairs_across(x + 2 * i * part.stride, part.stride, 2 * i + 1 < k, part.n - j)
                     : Words{};
      store_turned(tile_at(packed, steps, j / tile_side, s), row);
    }
}

// As LDTILECFG reads it: all eight tiles are of the one size.
struct TileShapes {
  std::uint8_t palette = 1, start_row = 0, reserved[14] = {};
  std::uint16_t bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
  std::uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
};

// A block of c: 16 or 32 rows and columns.
struct TileBlock {
  float* c;
  std::int64_t c_stride;
  const float* start;  // of its sums, in rows as far apart: a stride of 0 gives all rows the same
  std::int64_t start_stride;
  const float *a, *b;  // packed
  std::int64_t steps;
  // What is packed next, of which a step fetches `fetched` numbers of a row; null: nothing.
  const float* next;
  std::int64_t next_stride;
};
constexpr std::int64_t fetched = 128;

// The compiler does not know that the intrinsics of tiles read and write memory.
FASTMLP_FN void memory_is_used() { __asm__ volatile("" ::: "memory"); }

// Two of 32 rows of the block of c that follows: its first touch would wait for them.
FASTMLP_FN void fetch_sums(const float*& c, std::int64_t stride) {
#pragma GCC unroll 2
  for (int i = 0; i < 2; ++i, c += stride) {
    __builtin_prefetch(c, 1);
    __builtin_prefetch(c + tile_side, 1);
  }
}

// Of a, which passes by, loads say that it need not stay in the first-level cache, where b does.
template <bool two_rows, bool two_columns>
FASTMLP_AMX void tile_kernel(const TileBlock& block) {
  constexpr std::int64_t row = tile_side * std::int64_t(sizeof(float));
  memory_is_used();
  const float* const start = block.start;
  const std::int64_t start_row = block.start_stride * std::int64_t(sizeof(float));
  _tile_loadd(0, start, start_row);
  if constexpr (two_columns) _tile_loadd(1, start + tile_side, start_row);
  if constexpr (two_rows) _tile_loadd(2, start + tile_side * block.start_stride, start_row);
  if constexpr (two_rows && two_columns)
    _tile_loadd(3, start + tile_side * block.start_stride + tile_side, start_row);
  const float *a = block.a, *b = block.b, *next = block.next;
  const float* sums = block.c + block_side * block.c_stride;
  for (std::int64_t s = block.steps; s > 0; --s, a += 2 * tile_words, b += 2 * tile_words) {
    fetch_sums(sums, block.c_stride);
    if (next) fetch<fetched / Vec<float>::lanes, false>(next);
    next += next ? block.next_stride : 0;
    _tile_loadd(6, b, row);
    _tile_stream_loadd(4, a, row);
    if constexpr (two_columns) _tile_loadd(7, b + tile_words, row);
    _tile_dpbf16ps(0, 4, 6);
    if constexpr (two_columns) _tile_dpbf16ps(1, 4, 7);
    if constexpr (two_rows) {
      _tile_stream_loadd(5, a + tile_words, row);
      _tile_dpbf16ps(2, 5, 6);
    }
    if constexpr (two_rows && two_columns) _tile_dpbf16ps(3, 5, 7);
  }
  float* const c = block.c;
  const std::int64_t c_row = block.c_stride * std::int64_t(sizeof(float));
  _tile_stored(0, c, c_row);
  if constexpr (two_columns) _tile_stored(1, c + tile_side, c_row);
  if constexpr (two_rows) _tile_stored(2, c + tile_side * block.c_stride, c_row);
  if constexpr (two_rows && two_columns)
    _tile_stored(3, c + tile_side * block.c_stride + tile_side, c_row);
  memory_is_used();
}

FASTMLP_FN void compute(const TileBlock& block, std::int64_t rows, std::int64_t cols) {
  if (rows > tile_side)
    cols > tile_side ? tile_kernel<true, true>(block) : tile_kernel<true, false>(block);
  else
    cols > tile_side ? tile_kernel<false, true>(block) : tile_kernel<false, false>(block);
}

FASTMLP_FN void copy_block(float* to, std::int64_t to_stride, const float* from,
                           std::int64_t from_stride, std::int64_t rows, std::int64_t cols) {
  for_block<float>(rows, cols, [&](std::int64_t i, std::int64_t j, auto lanes) {
    Vec<float>::load(from + i * from_stride + j, lanes).store(to + i * to_stride + j, lanes);
  });
}

// Any block of c: where it is not of whole tiles, by way of one that is.
inline void tile_block(TileBlock block, std::int64_t rows, std::int64_t cols) {
  if (rows % tile_side == 0 && cols % tile_side == 0) return compute(block, rows, cols);
  alignas(64) float whole[block_side * block_side], start[block_side * block_side];
  float* const c = block.c;
  const std::int64_t c_stride = block.c_stride;
  copy_block(start, block_side, block.start, block.start_stride, block.start_stride ? rows : 1,
             cols);
  block.start = start;
  if (block.start_stride) block.start_stride = block_side;
  block.c = whole;
  block.c_stride = block_side;
  compute(block, rows, cols);
  copy_block(c, c_stride, whole, block_side, rows, cols);
}

constexpr float no_sums[block_side] = {};

// A part of an operand as it lies in memory, to be fetched a piece at a time: `steps` rows of it,
// `fetched` numbers wide.
struct Fetching {
  const float* x;
  std::int64_t stride, rows, cols, steps, row, col;

  // The next piece, or null.
  FASTMLP_FN const float* piece() {
    if (row >= rows) return nullptr;
    const float* const result = x + row * stride + col;
    col += fetched;
    if (col >= cols) {
      col = 0;
      row += steps;
    }
    return result;
  }
};

// a's rows, `m` from i on, by b's columns, `n` from j on, over `steps` from `first` on.
struct TileProduct {
  const Product<float>& p;
  float *packed_a, *packed_b;
  std::int64_t i, m, a_first, a_steps;  // what is packed of a

  FASTMLP_FN void pack_a() const {
    const std::int64_t k = a_first * tile_depth, rest = p.k - k, most = a_steps * tile_depth,
                       length = rest < most ? rest : most;
    if (p.transpose_a)
      pack_across_turned(packed_a, a_steps, {p.a + k * p.a_stride + i, p.a_stride, length, m});
    else
      pack_along(packed_a, a_steps, {p.a + i * p.a_stride + k, p.a_stride, length, m});
  }
  FASTMLP_FN Part part_of_b(std::int64_t first, std::int64_t steps, std::int64_t j) const {
    const std::int64_t k = first * tile_depth, rest = p.k - k, most = steps * tile_depth;
    return {p.b + (p.transpose_b ? j * p.b_stride + k : k * p.b_stride + j), p.b_stride,
            rest < most ? rest : most, p.n - j < packed_columns ? p.n - j : packed_columns};
  }
  FASTMLP_FN void pack_b(std::int64_t steps, const Part& part) const {
    if (p.transpose_b)
      pack_along_turned(packed_b, steps, part);
    else
      pack_across(packed_b, steps, part);
  }
  // As many rows of these steps, or of those columns, as are packed next, while `steps` are made.
  FASTMLP_FN Fetching fetching(const Part& part, std::int64_t steps) const {
    if (p.transpose_b) return {part.x, part.stride, part.n, part.k, steps, 0, 0};
    return {part.x, part.stride, part.k, part.n, steps, 0, 0};
  }
  // One panel of b's packed columns, by all rows.
  FASTMLP_FN void multiply(std::int64_t first, std::int64_t steps, std::int64_t j, std::int64_t n,
                           const float* b, Fetching& next) const {
    TileBlock block;
    block.c = p.c + i * p.c_stride + j;
    block.c_stride = p.c_stride;
    block.start = first > 0 ? block.c : p.bias ? p.bias + j : no_sums;
    block.start_stride = first > 0 ? p.c_stride : 0;
    block.a = packed_a + (first - a_first) * 2 * tile_words;
    block.b = b;
    block.steps = steps;
    block.next_stride = p.b_stride;
    for (std::int64_t row = 0; row < m; row += block_side) {
      block.next = next.piece();
      tile_block(block, m - row < block_side ? m - row : block_side, n);
      block.c += block_side * p.c_stride;
      block.start += block_side * block.start_stride;
      block.a += a_steps * 2 * tile_words;
    }
  }
  // Some columns of b, packed a part at a time; meanwhile the part that follows is fetched.
  FASTMLP_FN void multiply_columns(std::int64_t j) const {
    const Parts parts(a_steps, panel_steps);
    parts.each_part([&](std::int64_t start, std::int64_t steps) {
      const std::int64_t first = a_first + start;
      const Part part = part_of_b(first, steps, j);
      const bool last = start + steps == a_steps;
      Fetching next{};
      if (!last)
        next = fetching(part_of_b(first + steps, steps, j), steps);
      else if (j + packed_columns < p.n)
        next = fetching(part_of_b(a_first, parts.length(0), j + packed_columns), steps);
      pack_b(steps, part);
      for (std::int64_t at = 0; at < part.n; at += block_side) {
        const std::int64_t cols = part.n - at < block_side ? part.n - at : block_side;
        multiply(first, steps, j + at, cols, packed_b + at / tile_side * steps * tile_words, next);
        if (last && (first + steps) * tile_depth >= p.k) finish(p, i, j + at, m, cols);
      }
    });
  }
};

inline void multiply_tiles(const Product<float>& p) {
  TileProduct part{p, p.scratch + packed_b_words, p.scratch, 0, 0, 0, 0};
  const Parts slabs((p.k + tile_depth - 1) / tile_depth, slab_steps);
  slabs.each_part([&](std::int64_t first, std::int64_t steps) {
    part.a_first = first;
    part.a_steps = steps;
    const std::int64_t most = packed_a_words / (2 * tile_words * (steps > 0 ? steps : 1));
    Parts((p.m + block_side - 1) / block_side, most)
        .each_part([&](std::int64_t group, std::int64_t groups) {
          const std::int64_t rows = groups * block_side;
          part.i = group * block_side;
          part.m = p.m - part.i < rows ? p.m - part.i : rows;
          part.pack_a();
          for (std::int64_t j = 0; j < p.n; j += packed_columns) part.multiply_columns(j);
        });
  });
}

// As `matmul_bfloat16`, but for the order of a sum.
FASTMLP_AMX inline void matmul_tiles(const Product<float>& p) {
  const TileShapes shapes;
  memory_is_used();
  _tile_loadconfig(&shapes);
  multiply_tiles(p);
  _tile_release();
}

}  // namespace fastmlp::cpu::FASTMLP_ISA
