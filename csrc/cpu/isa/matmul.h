// Matrix products in registers: c = a b, with an optional bias as the first value of every sum.
//
// Every element of c is one chain of multiply-adds in ascending k. Blocking only interrupts the
// chain to store and load it, so neither tiles nor threads change a bit.
//
// A micro-kernel holds `rows` x `vectors` of c in registers. It reads b by whole vectors and
// broadcasts single elements of a. Where enough is made of them both operands are packed first, as
// the micro-kernels read them: b in panels of columns, a in groups of rows. Small products are read
// in place, where a may be transposed at no cost and only a transposed b is packed. Where c has few
// columns and a is transposed, c is made as its transpose. The last vector of a row may be partial:
// what lies behind it is never touched.
#pragma once

#include <array>
#include <cstdint>
#include <utility>

#include "cpu/isa/elementwise.h"
#include "cpu/isa/matvec.h"
#include "cpu/isa/transpose.h"
#include "cpu/isa/vec.h"
#include "cpu/kernels.h"

namespace fastmlp::cpu::FASTMLP_ISA {

// The most columns of c that a micro-kernel holds, in vectors, where operands are packed and where
// they are read in place, and the most rows for each number of vectors: accumulators, one row of b
// and one broadcast fill the registers, of which AVX-512 and NEON have 32, AVX2 has 16. At most
// `depth` rows of b at a time: a panel then takes most of the first-level cache (with AVX-512 more,
// but little of the second-level one), and a block of the matrix a takes most of the second-level
// cache.
#if defined(__AVX512F__)
constexpr std::int64_t depth = 512;
constexpr int packed_vectors = 2, in_place_vectors = 4;
constexpr int most_rows[] = {0, 16, 14, 8, 6};
#elif defined(__aarch64__)
constexpr std::int64_t depth = 400;
constexpr int packed_vectors = 4, in_place_vectors = 4;
constexpr int most_rows[] = {0, 16, 12, 8, 6};
#else
constexpr std::int64_t depth = 400;
constexpr int packed_vectors = 2, in_place_vectors = 2;
constexpr int most_rows[] = {0, 12, 6};
#endif
static_assert(depth <= matmul_depth);

// How many rows of a panel of b ahead a micro-kernel fetches, where the first-level cache does not
// hold it: each group of rows of c then reads it anew from the second-level one.
#if defined(__AVX512F__)
constexpr int fetch_ahead = 16;
#else
constexpr int fetch_ahead = 0;
#endif

// Rows of c that are enough to fetch parts of b meanwhile.
constexpr std::int64_t fewest_to_fetch_for = 24;

template <class T>
constexpr std::int64_t panel_columns = packed_vectors * Vec<T>::lanes;

// One block of c as a micro-kernel sees it.
template <class T>
struct Block {
  T* c;
  std::int64_t c_stride;
  const T* a;
  std::int64_t a_stride;
  const T* b;
  std::int64_t b_stride;
  std::int64_t k;
  const T* bias;    // null: start from zero
  bool accumulate;  // start from what c holds
  int vectors;      // of c's columns
  int last_lanes;   // of the last one
  bool relu;        // of the sums, as they are stored
  const T* kept;    // sums times relu'(kept) are stored; null: plain sums
  std::int64_t kept_stride;
  // The rows of b that are needed after these, as wide, of which so many are fetched meanwhile, and
  // c's columns behind these ones; null: none.
  const T* next;
  std::int64_t next_stride, next_rows;
  const T* next_c;
};

// So many vectors of a row, into the second-level cache or, if they are needed at once, the first.
template <int vectors, bool at_once, class T>
FASTMLP_FN void fetch(const T* row) {
#pragma GCC unroll 8
  for (int byte = 0; byte < vectors * vector_bytes; byte += 64)
    __builtin_prefetch(reinterpret_cast<const char*>(row) + byte, 0, at_once ? 3 : 2);
}

// A block's sums as they start: from the bias, what c holds, or zero.
template <class T, int rows, int vectors>
FASTMLP_FN void start_sums(Vec<T> (&sum)[rows][vectors], const Block<T>& block) {
  using V = Vec<T>;
  const auto mask = V::before(block.last_lanes);
  auto load = [&](const T* p, int j) {
    return j == vectors - 1 ? V::load(p + j * V::lanes, mask) : V::load(p + j * V::lanes);
  };
#pragma GCC unroll 4
  for (int j = 0; j < vectors; ++j) {
    const V start = block.bias ? load(block.bias, j) : V(0);
#pragma GCC unroll 16
    for (int i = 0; i < rows; ++i)
      sum[i][j] = block.accumulate ? load(block.c + i * block.c_stride, j) : start;
  }
}

// As they end. ReLU and its derivative cost next to nothing here, where sums are in registers.
template <class T, int rows, int vectors>
FASTMLP_FN void store_sums(Vec<T> (&sum)[rows][vectors], const Block<T>& block) {
  using V = Vec<T>;
  if (block.relu) {
#pragma GCC unroll 16
    for (int i = 0; i < rows; ++i)
#pragma GCC unroll 4
      for (int j = 0; j < vectors; ++j) sum[i][j] = Relu::forward(sum[i][j], V(0));
  } else if (block.kept) {
    const T* kept = block.kept;
    auto times_slope = [&](auto last) __attribute__((always_inline)) {
#pragma GCC unroll 16
      for (int i = 0; i < rows; ++i, kept += block.kept_stride) {
#pragma GCC unroll 4
        for (int j = 0; j < vectors; ++j) {
          const T* const at = kept + j * V::lanes;
          const V x = j == vectors - 1 ? V::load(at, last) : V::load(at);
          sum[i][j] = sum[i][j] * Relu::derivative(x, V(0));
        }
      }
    };
    if (block.last_lanes == V::lanes)
      times_slope(std::integral_constant<int, V::lanes>{});
    else
      times_slope(V::before(block.last_lanes));
  }
  T* c = block.c;
  const std::int64_t c_stride = block.c_stride;  // a copy, which the stores cannot change
  auto store = [&](auto last) {
#pragma GCC unroll 16
    for (int i = 0; i < rows; ++i, c += c_stride) {
#pragma GCC unroll 4
      for (int j = 0; j < vectors - 1; ++j) sum[i][j].store(c + j * V::lanes);
      sum[i][vectors - 1].store(c + (vectors - 1) * V::lanes, last);
    }
  };
  if (block.last_lanes == V::lanes)
    store(std::integral_constant<int, V::lanes>{});
  else
    store(block.last_lanes);
}

// Adds *a times a row of b to sums: *a is broadcast by every multiply-add itself, or once before
// them. With two vectors the former is an instruction less and a load more, so the kernels, to
// balance both, have it for every other row.
template <class T, int vectors>
FASTMLP_FN void add_products(Vec<T> (&sum)[vectors], const T* a, const Vec<T> (&right)[vectors],
                             bool each_broadcasts) {
  const Vec<T> left = Vec<T>::broadcast(*a);
#pragma GCC unroll 4
  for (int j = 0; j < vectors; ++j)
    sum[j] = each_broadcasts ? fma_broadcast(a, right[j], sum[j]) : fma(left, right[j], sum[j]);
}

// Reads both operands in place.
template <class T, int rows, int vectors, bool transposed_a>
void in_place_kernel(const Block<T>& block) {
  using V = Vec<T>;
  const T* next = block.next;
  for (std::int64_t i = 0; i < block.next_rows; ++i, next += block.next_stride)
    fetch<vectors, true>(next);
  V sum[rows][vectors];
  start_sums(sum, block);
  // Pointers to every fourth row: the others are small multiples of the stride away, which an
  // address can hold.
  const std::int64_t stride = block.a_stride;
  const T *a0 = block.a, *a1 = a0 + 4 * stride, *a2 = a0 + 8 * stride, *a3 = a0 + 12 * stride;
  const T* b = block.b;
  const std::int64_t b_stride = block.b_stride;
  auto sum_up = [&](auto last) __attribute__((always_inline)) {
    for (std::int64_t k = block.k; k > 0; --k) {
      V right[vectors];
#pragma GCC unroll 4
      for (int j = 0; j < vectors - 1; ++j) right[j] = V::load(b + j * V::lanes);
      right[vectors - 1] = V::load(b + (vectors - 1) * V::lanes, last);
      if constexpr (fetch_ahead > 0) fetch<vectors, true>(b + fetch_ahead * b_stride);
#pragma GCC unroll 16
      for (int i = 0; i < rows; ++i) {
        const T* row = i < 4 ? a0 : i < 8 ? a1 : i < 12 ? a2 : a3;
        const T* element = transposed_a ? a0 + i : row + (i & 3) * stride;
        add_products(sum[i], element, right, !transposed_a && i % 2 == 1);
      }
      b += b_stride;
      if constexpr (transposed_a) {
        // Of many rows, which the processor cannot foresee, for the next groups.
        __builtin_prefetch(a0 + 64 / sizeof(T));
        a0 += stride;
      } else {
        ++a0;
        if constexpr (rows > 4) ++a1;
        if constexpr (rows > 8) ++a2;
        if constexpr (rows > 12) ++a3;
      }
    }
  };
  // Whole vectors have a loop of their own: a load by mask takes a turn of a multiplier.
  if (block.last_lanes == V::lanes)
    sum_up(std::integral_constant<int, V::lanes>{});
  else
    sum_up(V::before(block.last_lanes));
  store_sums(sum, block);
}

// What is needed after a block, fetched a row at a time while its sums are made: what these read
// comes through the same buffers.
template <class T, int vectors>
class Ahead {
 public:
  static constexpr std::int64_t every = 8;  // packed rows

  FASTMLP_FN Ahead(const Block<T>& block, int rows)
      : b_(block.next),
        b_stride_(block.next_stride),
        b_rows_(block.next_rows),
        c_(block.next_c),
        c_stride_(block.c_stride),
        c_rows_(c_ ? rows : 0) {}
  FASTMLP_FN void fetch_some() {
    if (b_rows_-- > 0) {
      fetch<vectors, false>(b_);
      b_ += b_stride_;
    }
    if (c_rows_-- > 0) {
      fetch<vectors, false>(c_);
      c_ += c_stride_;
    }
  }

 private:
  const T* b_;
  std::int64_t b_stride_, b_rows_;
  const T* c_;
  std::int64_t c_stride_, c_rows_;
};

// Reads a group of a and a panel of b, packed: addresses are constants but for two pointers.
template <class T, int rows, int vectors>
void packed_kernel(const Block<T>& block) {
  using V = Vec<T>;
  V sum[rows][vectors];
  start_sums(sum, block);
  Ahead<T, vectors> ahead(block, rows);
  const T *a = block.a, *b = block.b;
  for (std::int64_t rest = block.k; rest > 0; rest -= ahead.every) {
    ahead.fetch_some();
    for (std::int64_t k = rest < ahead.every ? rest : ahead.every; k > 0; --k) {
      V right[vectors];
#pragma GCC unroll 4
      for (int j = 0; j < vectors; ++j) right[j] = V::load(b + j * V::lanes);
      if constexpr (fetch_ahead > 0) {
        fetch<vectors, true>(b + fetch_ahead * panel_columns<T>);
        __builtin_prefetch(a + 4 * fetch_ahead * rows);
      }
#pragma GCC unroll 16
      for (int i = 0; i < rows; ++i) add_products(sum[i], a + i, right, i % 2 == 1);
      a += rows;
      b += panel_columns<T>;
    }
  }
  store_sums(sum, block);
}

template <class T>
using MicroKernel = void (*)(const Block<T>&);

// Micro-kernels for 1 to most_rows[vectors] rows, by their number.
template <class T, int vectors>
using Table = std::array<MicroKernel<T>, most_rows[vectors] + 1>;

template <class T, int vectors, bool transposed_a, int... i>
constexpr Table<T, vectors> in_place(std::integer_sequence<int, i...>) {
  return {nullptr, in_place_kernel<T, i + 1, vectors, transposed_a>...};
}
template <class T, int vectors, bool transposed_a>
constexpr Table<T, vectors> in_place_kernels =
    in_place<T, vectors, transposed_a>(std::make_integer_sequence<int, most_rows[vectors]>{});

template <class T, int vectors, int... i>
constexpr Table<T, vectors> packed(std::integer_sequence<int, i...>) {
  return {nullptr, packed_kernel<T, i + 1, vectors>...};
}
template <class T, int vectors>
constexpr Table<T, vectors> packed_kernels =
    packed<T, vectors>(std::make_integer_sequence<int, most_rows[vectors]>{});

template <int n, class T>
FASTMLP_FN void copy_rows(T* packed, const T* x, std::int64_t stride, std::int64_t k) {
  for (std::int64_t i = 0; i < k; ++i)
    __builtin_memcpy(packed + i * n, x + i * stride, n * sizeof(T));
}

// packed[i][j] = x[i][j] for i < k, j < n, in rows of `width`: a panel of b, or a group of a
// transposed a.
template <class T>
FASTMLP_FN void pack_rows(T* packed, std::int64_t width, const T* x, std::int64_t stride,
                          std::int64_t k, std::int64_t n) {
  constexpr int group = most_rows[packed_vectors], columns = int(panel_columns<T>);
  if (n == width && n == columns) return copy_rows<columns>(packed, x, stride, k);
  if (n == width && n == group) return copy_rows<group>(packed, x, stride, k);
  for (std::int64_t i = 0; i < k; ++i)
    for_columns<T>(n, [&](std::int64_t j, auto lanes) {
      Vec<T>::load(x + i * stride + j, lanes).store(packed + i * width + j, lanes);
    });
}
// packed[i][j] = x[j][i]: a panel of a transposed b, or a group of a. A cache line of some rows at
// a time, while their next lines are fetched: as many streams as there are rows are too many for
// the processor to foresee. A strip that n ends in reads its last row again and, unless it is to be
// exact, writes that behind n: in a panel nothing is there, in a group what the strips that follow
// write anew, and at the end what `matmul_slack` keeps free.
template <bool exact = false, class T>
FASTMLP_FN void pack_transposed(T* packed, std::int64_t width, const T* x, std::int64_t stride,
                                std::int64_t k, std::int64_t n) {
  constexpr std::int64_t line = 64 / sizeof(T);
  constexpr int deep = strip_depth<T>, wide = strip_rows<T>;
  const std::int64_t whole_k = k / deep * deep;
  for (std::int64_t first = 0; first < whole_k; first += line) {
    const std::int64_t end = first + line < whole_k ? first + line : whole_k;
    for (std::int64_t j = (n - 1) / wide * wide; j >= 0; j -= wide) {
      const T* rows[wide];
      for (int r = 0; r < wide; ++r) {
        rows[r] = x + (j + r < n ? j + r : n - 1) * stride;
        __builtin_prefetch(rows[r] + first + line);
      }
      auto turn = [&](auto columns) __attribute__((always_inline)) {
        for (std::int64_t i = first; i < end; i += deep)
          transpose_strip(packed + i * width + j, width, rows, i, columns);
      };
      if (exact && n - j < wide)
        turn(int(n - j));
      else
        turn(AllColumns<T>{});
    }
  }
  for (std::int64_t i = whole_k; i < k; ++i)
    for (std::int64_t j = 0; j < n; ++j) packed[i * width + j] = x[j * stride + i];
}

// How a length is shared out: evenly among the fewest parts, so that none is left a thin remainder.
struct Parts {
  std::int64_t count, each, longer;

  FASTMLP_FN Parts(std::int64_t length, std::int64_t most) : count(1), each(length), longer(0) {
    if (length <= most) return;  // no divisions, which small networks would feel
    count = (length + most - 1) / most;
    each = length / count;
    longer = length % count;
  }
  FASTMLP_FN std::int64_t length(std::int64_t part) const { return each + (part < longer); }
  // Calls f(start, length) for each.
  template <class F>
  FASTMLP_FN void each_part(F&& f) const {
    std::int64_t start = 0;
    for (std::int64_t part = 0; part < count; start += length(part++)) f(start, length(part));
  }
};

// How operands are packed and multiplied, in full precision.
template <class T>
struct Whole {
  static constexpr int depth_of_row = 1;  // how many k a packed row holds

  // packed[i][j] = x[i][j], or x[j][i], for i < k, j < n, in rows of `width`.
  static FASTMLP_FN void pack(T* packed, std::int64_t width, const T* x, std::int64_t stride,
                              bool transposed, std::int64_t k, std::int64_t n) {
    if (transposed)
      pack_transposed(packed, width, x, stride, k, n);
    else
      pack_rows(packed, width, x, stride, k, n);
  }
  template <int vectors>
  static constexpr const Table<T, vectors>& kernels() {
    return packed_kernels<T, vectors>;
  }
};

// Some panels of b, from column j on and row k: more than a cache line of each row, and rows as
// they lie in memory.
template <class Format, int vectors, class T>
FASTMLP_FN void pack_panels(T* packed, const Product<T>& p, std::int64_t j, std::int64_t k,
                            std::int64_t length) {
  constexpr std::int64_t columns = vectors * Vec<T>::lanes, unit = Format::depth_of_row;
  const std::int64_t end = p.n - j < matmul_chunk<T> ? p.n : j + matmul_chunk<T>,
                     at_a_time = p.transpose_b ? length : 16;
  for (std::int64_t i = 0; i < length; i += at_a_time, packed += at_a_time / unit * columns) {
    const std::int64_t rows = length - i < at_a_time ? length - i : at_a_time;
    T* to = packed;
    for (std::int64_t first = j; first < end; first += columns, to += columns * depth) {
      const T* const b =
          p.b + (p.transpose_b ? first * p.b_stride + k + i : (k + i) * p.b_stride + first);
      Format::pack(to, columns, b, p.b_stride, p.transpose_b, rows,
                   p.n - first < columns ? p.n - first : columns);
    }
  }
}

// The number as a constant: calls f(integral_constant), for 1 to `most`, which is 2 or 4.
template <int most, class F>
FASTMLP_FN void with_vectors(std::int64_t vectors, F&& f) {
  if (vectors == 1) return f(std::integral_constant<int, 1>{});
  if (vectors == 2) return f(std::integral_constant<int, 2>{});
  if constexpr (most == 4) {
    if (vectors == 3) return f(std::integral_constant<int, 3>{});
    f(std::integral_constant<int, 4>{});
  }
}

// Whether micro-kernels have the epilogue.
template <class T>
FASTMLP_FN bool rectifies(const Product<T>& p) {
  return !p.before && p.activation->index == Activations::index_of<Relu>();
}

// The epilogue, on columns of c that are complete and still in the first-level cache.
template <class T>
FASTMLP_FN void finish(const Product<T>& p, std::int64_t i, std::int64_t j, std::int64_t rows,
                       std::int64_t cols) {
  const Rows<T> out{p.c + i * p.c_stride + j, p.c_stride};
  const Rows<const T> result{out.data, out.stride};
  auto part = [&](auto operand) {
    return operand ? decltype(operand){operand[i] + j, operand.stride} : operand;
  };
  if (p.kept)
    activation_backward<T>(out, result, part(p.kept), rows, cols, *p.activation);
  else if (p.before || !p.activation->is_identity())
    activation_forward<T>(out, part(p.before), result, {}, rows, cols, *p.activation);
}

// c's columns from j on that so many vectors hold, of its rows from i on, of `length` products from
// k on. Operands are for the caller to fill in.
template <int vectors, class T>
FASTMLP_FN Block<T> block_of(const Product<T>& p, std::int64_t i, std::int64_t j, std::int64_t k,
                             std::int64_t length) {
  constexpr std::int64_t lanes = Vec<T>::lanes, columns = vectors * lanes;
  const std::int64_t n = p.n - j < columns ? p.n - j : columns;
  Block<T> block{};
  block.c = p.c + i * p.c_stride + j;
  block.c_stride = p.c_stride;
  block.k = length;
  block.bias = p.bias ? p.bias + j : nullptr;
  block.accumulate = k > 0;
  block.vectors = n <= lanes ? 1 : int((n + lanes - 1) / lanes);
  block.last_lanes = int(n - (block.vectors - 1) * lanes);
  if (k + length == p.k && rectifies(p)) {
    block.relu = !p.kept;
    block.kept = p.kept ? p.kept[i] + j : nullptr;
    block.kept_stride = p.kept.stride;
  }
  return block;
}

// c's columns of one panel, for all groups of rows; a row of a is `a_step` elements. Each fetches
// its share of the rows of b that are needed next.
template <class T, std::size_t count>
FASTMLP_FN void all_groups(const std::array<MicroKernel<T>, count>& kernels, Block<T> block,
                           const Parts& groups, std::int64_t a_step) {
  block.next_rows = block.next ? block.k / groups.count + 1 : 0;
  for (std::int64_t group = 0; group < groups.count; ++group) {
    const std::int64_t rows = groups.length(group);
    kernels[std::size_t(rows)](block);
    block.a += rows * a_step;
    block.c += rows * block.c_stride;
    if (block.kept) block.kept += rows * block.kept_stride;
    if (block.next) block.next += block.next_rows * block.next_stride;
    if (block.next_c) block.next_c += rows * block.c_stride;
  }
}

// Small products: a is read in place, and so is b unless it is transposed.
template <int most, class T>
FASTMLP_FN void multiply_in_place(const Product<T>& p) {
  constexpr std::int64_t columns = most * Vec<T>::lanes, chunk = matmul_chunk<T>;
  const Parts blocks(p.m, matmul_rows<T>), slabs(p.k, depth);
  blocks.each_part([&](std::int64_t i, std::int64_t m) {
    slabs.each_part([&](std::int64_t k, std::int64_t length) {
      for (std::int64_t j = 0; j < p.n; j += columns) {
        Block<T> block = block_of<most>(p, i, j, k, length);
        block.a = p.a + (p.transpose_a ? k * p.a_stride + i : i * p.a_stride + k);
        block.a_stride = p.a_stride;
        if (p.transpose_b) {
          if (j % chunk == 0) pack_panels<Whole<T>, most>(p.scratch, p, j, k, length);
          block.b = p.scratch + j % chunk * depth;
          block.b_stride = columns;
        } else {
          block.b = p.b + k * p.b_stride + j;
          block.b_stride = p.b_stride;
          if (m >= fewest_to_fetch_for && j + columns < p.n) block.next = block.b + columns;
          block.next_stride = p.b_stride;
        }
        const std::int64_t a_step = p.transpose_a ? 1 : p.a_stride;
        with_vectors<most>(block.vectors, [&](auto vectors) {
          const auto& kernels = p.transpose_a ? in_place_kernels<T, vectors, true>
                                              : in_place_kernels<T, vectors, false>;
          all_groups(kernels, block, Parts(m, most_rows[vectors]), a_step);
        });
        if (k + length == p.k && !rectifies(p))
          finish(p, i, j, m, p.n - j < columns ? p.n - j : columns);
      }
    });
  });
}

// Large products. Columns of b that fit into the third-level cache, of these a slab of rows, whose
// panels are packed when the first block of rows of c needs them and serve all of them; a block of
// a stays in the second-level cache while the panels pass by.
template <class Format, class T>
FASTMLP_FN void multiply_packed(const Product<T>& p) {
  constexpr std::int64_t columns = panel_columns<T>, chunk = matmul_chunk<T>,
                         most = matmul_columns<T>, unit = Format::depth_of_row;
  T* const packed_b = p.scratch;
  T* const packed_a = p.scratch + depth * most;
  const Parts blocks(p.m, matmul_rows<T>), slabs((p.k + unit - 1) / unit, depth / unit);
  for (std::int64_t first = 0; first < p.n; first += most) {
    const std::int64_t end = p.n - first < most ? p.n : first + most;
    slabs.each_part([&](std::int64_t start, std::int64_t packed_rows) {
      const std::int64_t k = start * unit,
                         length = p.k - k < packed_rows * unit ? p.k - k : packed_rows * unit;
      blocks.each_part([&](std::int64_t i, std::int64_t m) {
        // The first panel is the widest, and groups that suit it suit the last.
        const int widest = block_of<packed_vectors>(p, i, first, k, length).vectors;
        const Parts groups(m, most_rows[widest]);
        T* to = packed_a;
        groups.each_part([&](std::int64_t row, std::int64_t rows) {
          const T* const a =
              p.a + (p.transpose_a ? k * p.a_stride + i + row : (i + row) * p.a_stride + k);
          Format::pack(to, rows, a, p.a_stride, !p.transpose_a, length, rows);
          to += rows * packed_rows;
        });
        for (std::int64_t j = first; j < end; j += columns) {
          Block<T> block = block_of<packed_vectors>(p, i, j, k, length);
          // Of a single block the panels come and go.
          const std::int64_t place = blocks.count > 1 ? j - first : (j - first) % chunk;
          if (i == 0 && (j - first) % chunk == 0)
            pack_panels<Format, packed_vectors>(packed_b + place * depth, p, j, k, length);
          if (i == 0 && m >= fewest_to_fetch_for && !p.transpose_b && j + chunk < end)
            block.next = p.b + k * p.b_stride + j + chunk;
          block.next_stride = p.b_stride;
          if (j + columns < end) block.next_c = block.c + columns;
          block.a = packed_a;
          block.b = packed_b + place * depth;
          with_vectors<packed_vectors>(block.vectors, [&](auto vectors) {
            all_groups(Format::template kernels<vectors>(), block, groups, packed_rows);
          });
          if (k + length == p.k && !rectifies(p))
            finish(p, i, j, m, p.n - j < columns ? p.n - j : columns);
        }
      });
    });
  }
}

// Whether packing both operands pays. It costs as much as they have rows and columns and saves as
// much as c has elements; more where rows of b lie on many pages or fight for the same few sets of
// a cache, and where a group of a is spread over as many rows as there are products. With AVX-512 a
// micro-kernel uses a cache line of b whole, and for so many rows of c, that it pays late.
template <class T>
FASTMLP_FN bool worth_packing(const Product<T>& p) {
  if (!p.packing || p.k < 32 || p.m < 48) return false;
  const std::int64_t bytes = p.b_stride * std::int64_t(sizeof(T));
  bool far_apart = bytes % 512 == 0;
#if defined(__AVX512F__)
  const bool large = p.transpose_a ? p.m * p.n * p.k >= 20'000'000 : p.m * p.n >= 1 << 20;
  far_apart = far_apart || bytes > 3072;
#else
  const bool large = p.m * p.n >= (p.transpose_a ? 100 : 160) * (p.m + p.n);
  far_apart = far_apart || bytes > 2048;
#endif
  return large || (far_apart && !p.transpose_b && p.n >= 6 * panel_columns<T>);
}

// For few rows and a transposed b, of which a part at a time is turned round that stays in the
// first-level cache.
template <class T>
FASTMLP_FN void few_rows_of_transposed(const Product<T>& p) {
  constexpr std::int64_t columns = matmul_chunk<T>, most = 64;
  Product<T> part = p;
  part.b = p.scratch;
  part.b_stride = columns;
  for (std::int64_t j = 0; j < p.n; j += columns) {
    part.n = p.n - j < columns ? p.n - j : columns;
    part.c = p.c + j;
    part.bias = p.bias ? p.bias + j : nullptr;
    for (std::int64_t k = 0; k == 0 || k < p.k; k += most) {
      part.k = p.k - k < most ? p.k - k : most;
      part.a = p.a + k * (p.transpose_a ? p.a_stride : 1);
      pack_transposed(p.scratch, columns, p.b + j * p.b_stride + k, p.b_stride, part.k, part.n);
      few_rows(part, k > 0);
    }
  }
}

// Whether micro-kernels that read in place should read as many columns of b as they can, with fewer
// rows of a: where the first-level cache holds so many columns, or where those rows are columns, of
// which each product needs another line.
template <class T>
FASTMLP_FN bool reads_widely(const Product<T>& p) {
  constexpr std::int64_t few = 128;
  return p.transpose_a || p.k <= few;
}

template <class T>
FASTMLP_FN void multiply(const Product<T>& p) {
  if (worth_packing(p)) return multiply_packed<Whole<T>>(p);
  if (p.m <= few_rows_most)
    p.transpose_b ? few_rows_of_transposed(p) : few_rows(p);
  else if (p.transpose_a && p.k <= few_rows_most && p.k > 0 && !p.transpose_b && !p.bias)
    few_products(p);
  else
    return reads_widely(p) ? multiply_in_place<in_place_vectors>(p)
                           : multiply_in_place<packed_vectors>(p);
  finish(p, 0, 0, p.m, p.n);
}

// Whether to make the product of a transposed a by its transpose, c' = b' a, whose vectors are full
// where c has few columns and many rows. It costs turning c round, as long as some multiply-adds
// for each element.
template <class T>
FASTMLP_FN bool worth_turning(const Product<T>& p) {
  constexpr std::int64_t lanes = Vec<T>::lanes, turning = 20, widest = 8 * lanes;
  if (!p.transpose_a || p.transpose_b || p.bias || p.k <= few_rows_most || p.n > widest)
    return false;
  auto whole = [](std::int64_t n) { return (n + lanes - 1) / lanes * lanes; };
  return p.k * p.m * whole(p.n) > p.k * p.n * whole(p.m) + turning * p.m * p.n;
}

template <class T>
FASTMLP_FN void multiply_turned(const Product<T>& p) {
  constexpr std::int64_t line = 64 / sizeof(T), most = 2048;
  const std::int64_t fitting = matmul_turned / p.n / line * line - line,
                     width = fitting < most ? fitting : most;
  static constexpr Activation none{};
  Product<T> part = p;
  part.c = p.scratch + matmul_packed<T>;
  part.a = p.b;
  part.a_stride = p.b_stride;
  part.b_stride = p.a_stride;
  part.m = p.n;
  part.before = {};
  part.kept = {};
  part.activation = &none;
  for (std::int64_t i = 0; i < p.m; i += width) {
    part.n = p.m - i < width ? p.m - i : width;
    part.b = p.a + i;
    part.c_stride = (part.n / line + 1) * line;
    multiply(part);
    pack_transposed<true>(p.c + i * p.c_stride, p.c_stride, part.c, part.c_stride, part.n, p.n);
  }
  finish(p, 0, 0, p.m, p.n);
}

template <class T>
void matmul(const Product<T>& p) {
  worth_turning(p) ? multiply_turned(p) : multiply(p);
}

}  // namespace fastmlp::cpu::FASTMLP_ISA
