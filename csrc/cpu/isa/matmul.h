// Matrix products in registers: c = a b, with an optional bias as the first value of every sum.
//
// Every element of c is one chain of multiply-adds in ascending k. Blocking only interrupts the
// chain to store and load it, so neither tiles nor threads change a bit.
//
// A micro-kernel holds `rows` x `vectors` of c in registers. It reads b by whole vectors and
// broadcasts single elements of a, so a may be transposed at no cost; a transposed b is first
// packed into a panel, and so is one whose rows would fight for a cache's sets. The last vector of
// a row may be partial: what lies behind it is never touched.
#pragma once

#include <cstdint>
#include <utility>

#include "cpu/isa/elementwise.h"
#include "cpu/isa/matvec.h"
#include "cpu/isa/vec.h"
#include "cpu/kernels.h"

namespace fastmlp::cpu::FASTMLP_ISA {

// The most columns of c that a micro-kernel holds, in vectors, and the most rows for each number of
// vectors: accumulators, one row of b and one broadcast fill the registers, of which AVX-512 and
// NEON have 32, AVX2 has 16. At most `depth` rows of b at a time: a panel then takes half of the
// first-level cache (with AVX-512 an eighth of the second-level one), a block of a half of the
// second-level cache.
#if defined(__AVX512F__)
constexpr std::int64_t depth = 512;
#else
constexpr std::int64_t depth = 256;
#endif
#if defined(__AVX512F__) || defined(__aarch64__)
constexpr int panel_vectors = 4;
constexpr int most_rows[panel_vectors + 1] = {0, 16, 12, 8, 6};
#else
constexpr int panel_vectors = 2;
constexpr int most_rows[panel_vectors + 1] = {0, 12, 6};
#endif
static_assert(depth <= matmul_depth);

// Rows of c that are enough to fetch parts of b meanwhile.
constexpr std::int64_t fewest_to_fetch_for = 24;

template <class T>
constexpr std::int64_t panel_columns = panel_vectors * Vec<T>::lanes;

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
  int last_lanes;   // of c's last vector
  // The rows of b that are needed after these, as wide, to be fetched meanwhile; null: none.
  const T* next;
  std::int64_t next_stride;
};

// A block's sums as they start: from the bias, what c holds, or zero. `load` gives vector j of a
// row.
template <class T, int rows, int vectors, class Load>
FASTMLP_FN void start_sums(Vec<T> (&sum)[rows][vectors], const Block<T>& block, Load&& load) {
#pragma GCC unroll 4
  for (int j = 0; j < vectors; ++j) {
    const Vec<T> start = block.bias ? load(block.bias, j) : Vec<T>(0);
#pragma GCC unroll 16
    for (int i = 0; i < rows; ++i)
      sum[i][j] = block.accumulate ? load(block.c + i * block.c_stride, j) : start;
  }
}

template <class T, int rows, int vectors, bool transposed_a>
void micro_kernel(const Block<T>& block) {
  using V = Vec<T>;
  V sum[rows][vectors];
  const auto mask = V::before(block.last_lanes);
  auto load = [&](const T* p, int j) {
    return j == vectors - 1 ? V::load(p + j * V::lanes, mask) : V::load(p + j * V::lanes);
  };
  start_sums(sum, block, load);
  // Pointers to every fourth row: the others are small multiples of the stride away, which an
  // address can hold.
  const std::int64_t stride = block.a_stride;
  const T *a0 = block.a, *a1 = a0 + 4 * stride, *a2 = a0 + 8 * stride, *a3 = a0 + 12 * stride;
  const T* b = block.b;
  const std::int64_t b_stride = block.b_stride;
  for (std::int64_t k = block.k; k > 0; --k) {
    V right[vectors];
#pragma GCC unroll 4
    for (int j = 0; j < vectors; ++j) right[j] = load(b, j);
#pragma GCC unroll 16
    for (int i = 0; i < rows; ++i) {
      const T* row = i < 4 ? a0 : i < 8 ? a1 : i < 12 ? a2 : a3;
      const V left = V::broadcast(transposed_a ? a0[i] : row[(i & 3) * stride]);
#pragma GCC unroll 4
      for (int j = 0; j < vectors; ++j) sum[i][j] = fma(left, right[j], sum[i][j]);
    }
    b += b_stride;
    if constexpr (transposed_a) {
      a0 += stride;
    } else {
      ++a0;
      if constexpr (rows > 4) ++a1;
      if constexpr (rows > 8) ++a2;
      if constexpr (rows > 12) ++a3;
    }
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

template <class T>
using MicroKernel = void (*)(const Block<T>&);

// Micro-kernels for 1 to most_rows[vectors] rows.
template <class T, int vectors, bool transposed_a>
struct RowKernels {
  MicroKernel<T> of[most_rows[vectors] + 1];

  template <int... i>
  constexpr explicit RowKernels(std::integer_sequence<int, i...>)
      : of{nullptr, micro_kernel<T, i + 1, vectors, transposed_a>...} {}
};

// to[i][j] = from[j][i] for 16 bytes of each of `count` rows. A vector gathers 16 bytes from each
// of several rows, which costs no shuffles; what remains is to transpose squares, all at once.
#if defined(__AVX2__)
template <int count>
FASTMLP_FN void transpose_strip(float* to, std::int64_t to_stride, const float* from,
                                std::int64_t stride) {
  if constexpr (count == 4) {
    __m128 r0 = _mm_loadu_ps(from), r1 = _mm_loadu_ps(from + stride),
           r2 = _mm_loadu_ps(from + 2 * stride), r3 = _mm_loadu_ps(from + 3 * stride);
    _MM_TRANSPOSE4_PS(r0, r1, r2, r3);
    _mm_storeu_ps(to, r0);
    _mm_storeu_ps(to + to_stride, r1);
    _mm_storeu_ps(to + 2 * to_stride, r2);
    _mm_storeu_ps(to + 3 * to_stride, r3);
  } else {
    __m256 row[4];
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i, from += stride)
      row[i] = _mm256_insertf128_ps(_mm256_castps128_ps256(_mm_loadu_ps(from)),
                                    _mm_loadu_ps(from + 4 * stride), 1);
    const __m256 low01 = _mm256_unpacklo_ps(row[0], row[1]),
                 high01 = _mm256_unpackhi_ps(row[0], row[1]),
                 low23 = _mm256_unpacklo_ps(row[2], row[3]),
                 high23 = _mm256_unpackhi_ps(row[2], row[3]);
    _mm256_storeu_ps(to, _mm256_shuffle_ps(low01, low23, 0x44));
    _mm256_storeu_ps(to + to_stride, _mm256_shuffle_ps(low01, low23, 0xEE));
    _mm256_storeu_ps(to + 2 * to_stride, _mm256_shuffle_ps(high01, high23, 0x44));
    _mm256_storeu_ps(to + 3 * to_stride, _mm256_shuffle_ps(high01, high23, 0xEE));
  }
}
template <int count>
FASTMLP_FN void transpose_strip(double* to, std::int64_t to_stride, const double* from,
                                std::int64_t stride) {
  if constexpr (count == 2) {
    const __m128d r0 = _mm_loadu_pd(from), r1 = _mm_loadu_pd(from + stride);
    _mm_storeu_pd(to, _mm_unpacklo_pd(r0, r1));
    _mm_storeu_pd(to + to_stride, _mm_unpackhi_pd(r0, r1));
  } else {
    __m256d row[2];
#pragma GCC unroll 2
    for (int i = 0; i < 2; ++i, from += stride)
      row[i] = _mm256_insertf128_pd(_mm256_castpd128_pd256(_mm_loadu_pd(from)),
                                    _mm_loadu_pd(from + 2 * stride), 1);
    _mm256_storeu_pd(to, _mm256_unpacklo_pd(row[0], row[1]));
    _mm256_storeu_pd(to + to_stride, _mm256_unpackhi_pd(row[0], row[1]));
  }
}
#else
template <int count, class T>
FASTMLP_FN void transpose_strip(T* to, std::int64_t to_stride, const T* from, std::int64_t stride) {
  for (int i = 0; i < int(16 / sizeof(T)); ++i)
    for (int j = 0; j < count; ++j) to[i * to_stride + j] = from[j * stride + i];
}
#endif

// A panel of b, or of a transposed b, with its rows one after the other: packed[i][j] = b[i][j] or
// b[j][i] for i < k, j < n <= panel_columns.
template <class T>
FASTMLP_FN void pack(T* packed, const T* b, std::int64_t stride, std::int64_t k, std::int64_t n) {
  constexpr std::int64_t width = panel_columns<T>;
  for (std::int64_t i = 0; i < k; ++i)
    for_columns<T>(n, [&](std::int64_t j, auto lanes) {
      Vec<T>::load(b + i * stride + j, lanes).store(packed + i * width + j, lanes);
    });
}
// A cache line of some rows at a time, while their next lines are fetched: as many streams as there
// are rows are too many for the processor to foresee.
template <class T>
FASTMLP_FN void pack_transposed(T* packed, const T* b, std::int64_t stride, std::int64_t k,
                                std::int64_t n) {
  constexpr std::int64_t width = panel_columns<T>, line = 64 / sizeof(T);
  constexpr int deep = 16 / sizeof(T), wide = 2 * deep;
  const std::int64_t whole_k = k / deep * deep;
  for (std::int64_t first = 0; first < whole_k; first += line) {
    const std::int64_t end = first + line < whole_k ? first + line : whole_k;
    std::int64_t j = 0;
    for (; j + wide <= n; j += wide) {
      const T* const rows = b + j * stride;
      for (int r = 0; r < wide; ++r) __builtin_prefetch(rows + r * stride + first + line);
      for (std::int64_t i = first; i < end; i += deep)
        transpose_strip<wide>(packed + i * width + j, width, rows + i, stride);
    }
    for (std::int64_t i = first; i < end; i += deep) {
      T* const to = packed + i * width;
      std::int64_t rest = j;
      if (rest + deep <= n) {
        transpose_strip<deep>(to + rest, width, b + rest * stride + i, stride);
        rest += deep;
      }
      for (; rest < n; ++rest)
        for (int r = 0; r < deep; ++r) to[r * width + rest] = b[rest * stride + i + r];
    }
  }
  for (std::int64_t i = whole_k; i < k; ++i)
    for (std::int64_t j = 0; j < n; ++j) packed[i * width + j] = b[j * stride + i];
}

// Packed, a block of a lies as its micro-kernels read it: for each group of rows, all k in turn.
template <class T>
FASTMLP_FN void pack_columns(T* packed, std::int64_t rows, const T* a, std::int64_t stride,
                             std::int64_t k) {
  for (std::int64_t i = 0; i < k; ++i)
    for (std::int64_t j = 0; j < rows; ++j) packed[i * rows + j] = a[i * stride + j];
}

// How rows of c are shared out to micro-kernels: evenly among the fewest, so that none is left with
// a thin remainder.
struct Groups {
  std::int64_t count, each, longer;

  FASTMLP_FN Groups(std::int64_t rows, int most) : count(1), each(rows), longer(0) {
    if (rows <= most) return;  // no divisions, which small networks would feel
    count = (rows + most - 1) / most;
    each = rows / count;
    longer = rows % count;
  }
  FASTMLP_FN std::int64_t rows(std::int64_t group) const { return each + (group < longer); }
};

// A block of rows of a, at a distance of an odd number of cache lines.
template <class T>
constexpr std::int64_t packed_row = depth + 64 / sizeof(T);
static_assert((depth * sizeof(double) / 64) % 2 == 0);

template <class T>
FASTMLP_FN void pack_rows(T* packed, std::int64_t rows, const T* a, std::int64_t stride,
                          std::int64_t k) {
  for (std::int64_t i = 0; i < rows; ++i)
    for_columns<T>(k, [&](std::int64_t j, auto n) {
      Vec<T>::load(a + i * stride + j, n).store(packed + i * packed_row<T> + j, n);
    });
}

// All groups of a block of a transposed a.
template <class T>
FASTMLP_FN void pack_groups(T* packed, std::int64_t rows, const T* a, std::int64_t stride,
                            std::int64_t k) {
  const Groups groups(rows, most_rows[panel_vectors]);
  for (std::int64_t group = 0; group < groups.count; ++group) {
    const std::int64_t n = groups.rows(group);
    pack_columns(packed, n, a, stride, k);
    packed += n * k;
    a += n;
  }
}

// Some panels of b from row i and column `first` on, at a time: more than a cache line of each row.
template <class T>
FASTMLP_FN void pack_panels(T* packed, const Product<T>& p, std::int64_t first, std::int64_t i,
                            std::int64_t k) {
  constexpr std::int64_t columns = panel_columns<T>;
  for (std::int64_t j = first; j < p.n && j < first + matmul_panel<T>; j += columns) {
    const std::int64_t n = p.n - j < columns ? p.n - j : columns;
    if (p.transpose_b)
      pack_transposed(packed, p.b + j * p.b_stride + i, p.b_stride, k, n);
    else
      pack(packed, p.b + i * p.b_stride + j, p.b_stride, k, n);
    packed += columns * depth;
  }
}

// c's columns of one panel, for all rows of the block.
template <class T, int vectors, bool transposed_a>
FASTMLP_FN void all_rows(Block<T> block, std::int64_t rows, bool packed) {
  static constexpr RowKernels<T, vectors, transposed_a> kernels{
      std::make_integer_sequence<int, most_rows[vectors]>{}};
  const Groups groups(rows, most_rows[vectors]);
  const T* next = block.next;
  const std::int64_t at_a_time = next ? block.k / groups.count + 1 : 0;
  for (std::int64_t group = 0; group < groups.count; ++group) {
    const std::int64_t n = groups.rows(group);
    if (packed) block.a_stride = n;
    for (std::int64_t i = 0; i < at_a_time; ++i, next += block.next_stride)
      for (int byte = 0; byte < vectors * vector_bytes; byte += 64)
        __builtin_prefetch(reinterpret_cast<const char*>(next) + byte);
    kernels.of[n](block);
    block.a += packed ? n * block.k : transposed_a ? n : n * block.a_stride;
    block.c += n * block.c_stride;
  }
}

template <class T, bool transposed_a>
FASTMLP_FN void panel(const Block<T>& block, std::int64_t rows, std::int64_t vectors, bool packed) {
  if (vectors == 1) return all_rows<T, 1, transposed_a>(block, rows, packed);
  if (vectors == 2) return all_rows<T, 2, transposed_a>(block, rows, packed);
  if constexpr (panel_vectors == 4) {
    if (vectors == 3) return all_rows<T, 3, transposed_a>(block, rows, packed);
    return all_rows<T, 4, transposed_a>(block, rows, packed);
  }
}

// Which operands are copied before the micro-kernels read them.
template <class T>
struct Packing {
  bool a, b;

  // Copying costs less than reading from many pages, or from rows that fight for the same few sets
  // of a cache, where enough of c is made of it: less for a transposed a, of which neighbours in
  // memory are used together. A transposed b has no choice.
  FASTMLP_FN explicit Packing(const Product<T>& p)
      : a(p.packing && p.n > (p.transpose_a ? 6 : 32) * panel_columns<T> && p.k > 64 &&
          far_apart(p.a_stride)),
        b(p.transpose_b || (p.packing && p.m >= 48 && far_apart(p.b_stride))) {}

  static FASTMLP_FN bool far_apart(std::int64_t stride) {
    const std::int64_t bytes = stride * std::int64_t(sizeof(T));
    return bytes % 512 == 0 || bytes > 2048;
  }
};

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
    activation_forward<T>(out, part(p.before), result, nullptr, rows, cols, *p.activation);
}

// Blocks of rows, then of depth, then panels of columns: a block of a stays in the second-level
// cache while the panels of b pass by.
template <class T>
void matmul(const Product<T>& p) {
  constexpr std::int64_t lanes = Vec<T>::lanes, columns = panel_columns<T>;
  constexpr std::int64_t chunk = matmul_panel<T>, most = matmul_rows<T>;
  if (p.m <= few_rows_most && !p.transpose_b) {
    few_rows(p);
    finish(p, 0, 0, p.m, p.n);
    return;
  }
  const Packing<T> packing(p);
  T* const packed_b = p.scratch;
  T* const packed_a = p.scratch + depth * chunk;
  const Groups blocks(p.m, int(most));
  std::int64_t i = 0;
  for (std::int64_t number = 0; number < blocks.count; ++number) {
    const std::int64_t m = blocks.rows(number);
    for (std::int64_t k = 0; k == 0 || k < p.k; k += depth) {
      Block<T> block;
      block.k = p.k - k < depth ? p.k - k : depth;
      block.c_stride = p.c_stride;
      block.accumulate = k > 0;
      const T* const a = p.a + (p.transpose_a ? k * p.a_stride + i : i * p.a_stride + k);
      if (packing.a && p.transpose_a)
        pack_groups(packed_a, m, a, p.a_stride, block.k);
      else if (packing.a)
        pack_rows(packed_a, m, a, p.a_stride, block.k);
      for (std::int64_t j = 0; j < p.n; j += columns) {
        const std::int64_t n = p.n - j < columns ? p.n - j : columns;
        const std::int64_t vectors = n <= lanes ? 1 : (n + lanes - 1) / lanes;
        if (packing.b) {
          if (j % chunk == 0) pack_panels(packed_b, p, j, k, block.k);
          block.b = packed_b + j % chunk * depth;
          block.b_stride = columns;
        } else {
          block.b = p.b + k * p.b_stride + j;
          block.b_stride = p.b_stride;
        }
        const std::int64_t next = j + (packing.b ? chunk : columns);
        const bool fetch = m >= fewest_to_fetch_for && !p.transpose_b && next < p.n;
        block.next = fetch ? p.b + k * p.b_stride + next : nullptr;
        block.next_stride = p.b_stride;
        block.bias = p.bias ? p.bias + j : nullptr;
        block.last_lanes = int(n - (vectors - 1) * lanes);
        block.c = p.c + i * p.c_stride + j;
        // Packed groups are those of the widest panels; a narrower last one reads a itself.
        const bool packed = packing.a && (vectors == panel_vectors || !p.transpose_a);
        block.a = packed ? packed_a : a;
        block.a_stride = packed ? packed_row<T> : p.a_stride;
        if (p.transpose_a)
          panel<T, true>(block, m, vectors, packed);
        else
          panel<T, false>(block, m, vectors, false);
        if (k + block.k >= p.k) finish(p, i, j, m, n);
      }
    }
    i += m;
  }
}

}  // namespace fastmlp::cpu::FASTMLP_ISA
