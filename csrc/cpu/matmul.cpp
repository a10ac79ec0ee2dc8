#include "cpu/matmul.h"

#include <algorithm>
#include <cstdlib>
#include <numeric>
#include <stdexcept>
#include <string>

#include "cpu/blas.h"
#include "cpu/features.h"
#include "cpu/kernels.h"

namespace fastmlp::cpu {
namespace {

struct Tiling { std::int64_t rows, cols; };

// A BLAS call packs its operands anew, so tiles are few and large; and since its sums depend on the
// tile, tiles depend on the shape alone.
Tiling blas_tiling(const ProductShape& s) {
  constexpr std::int64_t rows = 256, narrowest = 128, most = 4;
  const std::int64_t down = (s.m + rows - 1) / rows;
  const std::int64_t across = std::min(most / std::min(down, most), s.n / narrowest);
  const double worth_splitting = 4e6;  // operations, some 40 microseconds
  if (across < 2 || s.operations() < worth_splitting) return {std::min(s.m, rows), s.n};
  return {std::min(s.m, rows), (s.n / across + 63) / 64 * 64};
}

// Whether members should take columns, each its own part of b: by rows every one of them reads, and
// may pack, all of it, which a few rows feel where no second-level cache holds it.
bool better_by_columns(const ProductShape& s, std::int64_t element_size) {
  constexpr std::int64_t cached = 2 << 20, few = 8;
  return s.n >= few * s.m && s.k * s.n * element_size > cached;
}

// Our own kernels give the same sums in any tile, so tiles may suit the team: equally many for each
// member, of whole rows unless those are few or b is large.
template <class T>
Tiling native_tiling(const ProductShape& s, const Run& run) {
  if (run.members == 1) return {s.m, s.n};
  constexpr std::int64_t panel = matmul_chunk<T>, most = matmul_rows<T>, fewest = 24;
  const std::int64_t members = run.members, even = members / std::gcd(run.replicas, members);
  const std::int64_t blocks = ((s.m + most - 1) / most + even - 1) / even * even;
  if (s.m >= fewest * blocks && !better_by_columns(s, sizeof(T)))
    return {(s.m + blocks - 1) / blocks, s.n};
  const std::int64_t panels = (s.n + panel - 1) / panel, across = std::min(panels, even);
  return {s.m, (panels + across - 1) / across * panel};
}

// The epilogue of a product that did not have it.
template <class T>
void finish(const MatMul& record, Rows<T> out, Rows<T> before, Rows<const T> kept, const T* bias,
            std::int64_t m, std::int64_t n) {
  const Rows<const T> result{out.data, out.stride};
  if (kept)
    kernels<T>().activation_backward(out, result, kept, m, n, record.activation);
  else if (bias || before || !record.activation.is_identity())
    kernels<T>().activation_forward(out, before, result, {bias, 0}, m, n, record.activation);
}

template <class T>
Operand part(Operand operand, std::int64_t first_row, std::int64_t first_col) {
  operand.offset += first_row * operand.row_stride + first_col;
  return operand;
}

}  // namespace

bool uses_blas() {
  static const bool blas = [] {
    const char* variable = std::getenv("FASTMLP_GEMM");
    const std::string wanted = variable ? variable : "";
    if (!wanted.empty() && wanted != "blas" && wanted != "native")
      throw std::runtime_error("FASTMLP_GEMM: needs blas or native, got '" + wanted + "'");
    return wanted == "blas" || !kernels<float>().matmul;
  }();
  return blas;
}

bool multiplies_bfloat16() {
  return !uses_blas() && kernels<float>().matmul_bfloat16 && has_bfloat16();
}

bool shared_by_rows(const MatMul& record, std::int64_t rows, std::int64_t replicas, int members) {
  if (record.parts) return follow_rows(record.parts, rows, replicas, members);
  if (record.in_halves(rows)) return true;
  // The BLAS's sums depend on the tile, so its tiles must not depend on the team. And every member
  // reads all of b, which has to be worth it: for a small one a few rows are enough.
  constexpr std::int64_t few = 4, many = 32, little = 16 << 10;
  const std::int64_t bytes = record.b.rows * record.b.row_stride * size_of(record.b.dtype),
                     fewest = bytes <= little ? few : many;
  return record.out.rows == Operand::batch && !record.transpose_a && !uses_blas() &&
         !better_by_columns(ProductShape(record, rows), size_of(record.b.dtype)) &&
         rows * replicas >= fewest * members;
}

namespace {

// Rows i to i + m and columns j to j + n of a product.
struct Tile { std::int64_t i, j, m, n, k; };

template <class T>
Product<T> product_of(const MatMul& record, const Run& run, std::int64_t replica, const Tile& t) {
  static const bool packing = !switched_off("packing");
  auto tile_of = [&](const Operand& operand) {
    return operand ? run.matrix<T>(part<T>(operand, t.i, t.j), replica) : Rows<T>{};
  };
  const Rows<T> out = tile_of(record.out), before = tile_of(record.before),
                kept = tile_of(record.kept);
  const Operand a = record.transpose_a ? part<T>(record.a, 0, t.i) : part<T>(record.a, t.i, 0);
  const Operand b = record.transpose_b ? part<T>(record.b, t.j, 0) : part<T>(record.b, 0, t.j);
  return {out.data,
          out.stride,
          run.data<const T>(a, replica),
          a.row_stride,
          record.transpose_a,
          run.data<const T>(b, replica),
          b.row_stride,
          record.transpose_b,
          t.m,
          t.n,
          t.k,
          record.bias ? run.data<const T>(record.bias, replica) + t.j : nullptr,
          before,
          {kept.data, kept.stride},
          &record.activation,
          packing,
          static_cast<T*>(run.memory.scratch)};
}

bool fuses() {
  static const bool fused = !switched_off("fusion");
  return fused;
}

template <class T>
void compute(const MatMul& record, const Run& run, std::int64_t replica, const Tile& tile) {
  static constexpr Activation none{};
  Product<T> p = product_of<T>(record, run, replica, tile);
  if (!uses_blas() && fuses()) return kernel<T>(run)(p);
  const Rows<T> out{p.c, p.c_stride}, before = p.before;
  const Rows<const T> kept = p.kept;
  const T* bias = p.bias;
  if (uses_blas()) {
    gemm<T>(p.c, p.c_stride, p.a, p.a_stride, p.transpose_a, p.b, p.b_stride, p.transpose_b, p.m,
            p.n, p.k);
  } else {
    p.before = {};
    p.kept = {};
    p.activation = &none;
    kernel<T>(run)(p);
    bias = nullptr;
  }
  finish<T>(record, out, before, kept, bias, p.m, p.n);
}

}  // namespace

namespace {

// Each part of the batch by itself; members that are more than there are parts share its rows of
// out. Padding is zero, as that of what the parts will be added up to.
template <class T>
void multiply_parts(const MatMul& record, const Run& run, const ProductShape& s) {
  const std::int64_t parts = record.parts.count(s.k), all = parts * run.replicas,
                     down = (run.members + all - 1) / all;
  run.each_task(parts * down, [&](std::int64_t replica, std::int64_t task) {
    const std::int64_t part = task / down, block = task % down, k = s.k * part / parts,
                       i = s.m * block / down;
    const Tile tile{i, 0, s.m * (block + 1) / down - i, s.n, s.k * (part + 1) / parts - k};
    Product<T> p = product_of<T>(record, run, replica, tile);
    p.a += k * p.a_stride;
    p.b += k * p.b_stride;
    p.c += part * record.parts.stride;
    kernel<T>(run)(p);
    for (std::int64_t row = 0; row < p.m; ++row)
      std::fill(p.c + row * p.c_stride + p.n, p.c + (row + 1) * p.c_stride, T(0));
  });
}

// Each half of the sums by itself; members that are more than there are halves share its rows. Then
// they are added up, row by row as what follows takes them.
template <class T>
void multiply_halves(const MatMul& record, const Run& run, const ProductShape& s) {
  static constexpr Activation none{};
  const std::int64_t halves = 2 * run.replicas, half = first_half(s.k),
                     down = run.members / std::gcd(run.members, halves);
  run.each_task(2 * down, [&](std::int64_t replica, std::int64_t task) {
    const std::int64_t block = task % down, i = s.m * block / down;
    const bool second = task >= down;
    Product<T> p =
        product_of<T>(record, run, replica,
                      {i, 0, s.m * (block + 1) / down - i, s.n, second ? s.k - half : half});
    p.before = {};
    p.activation = &none;
    if (second) {
      p.a += half;
      p.b += half * p.b_stride;
      p.c = run.matrix<T>(record.second_half, replica)[i];
      p.c_stride = record.second_half.row_stride;
      p.bias = nullptr;
    }
    kernel<T>(run)(p);
  });
  run.barrier.wait();
  run.each_rows(s.m, [&](std::int64_t replica, std::int64_t first, std::int64_t rows) {
    const Rows<T> out = run.matrix<T>(record.out, replica, first);
    kernels<T>().activation_forward(
        out, run.matrix<T>(record.before, replica, first), {out.data, out.stride},
        run.matrix<const T>(record.second_half, replica, first), rows, s.n, record.activation);
  });
}

}  // namespace

template <class T>
void execute(const MatMul& record, const Run& run) {
  const ProductShape s(record, run.launch.rows);
  if (s.m == 0 || s.n == 0) return;
  if (record.in_halves(run.launch.rows)) return multiply_halves<T>(record, run, s);
  if (record.parts) return multiply_parts<T>(record, run, s);
  if (shared_by_rows(record, run.launch.rows, run.replicas, run.members))
    return run.each_rows(s.m, [&](std::int64_t replica, std::int64_t first, std::int64_t rows) {
      compute<T>(record, run, replica, {first, 0, rows, s.n, s.k});
    });
  const Tiling size = uses_blas() ? blas_tiling(s) : native_tiling<T>(s, run);
  const std::int64_t down = (s.m + size.rows - 1) / size.rows,
                     across = (s.n + size.cols - 1) / size.cols;
  run.each_task(down * across, [&](std::int64_t replica, std::int64_t task) {
    const std::int64_t i = task / across * size.rows, j = task % across * size.cols;
    compute<T>(record, run, replica,
               {i, j, std::min(size.rows, s.m - i), std::min(size.cols, s.n - j), s.k});
  });
}

template <class T>
void multiply_rows(const MatMul& record, const Run& run, std::int64_t replica, std::int64_t first,
                   std::int64_t rows, T* out) {
  const ProductShape s(record, run.launch.rows);
  Product<T> p = product_of<T>(record, run, replica, {first, 0, rows, s.n, s.k});
  p.c = out;
  kernel<T>(run)(p);
}

template <class T>
bool bind(std::vector<Product<T>>& products, const MatMul& record, const Run& run) {
  const ProductShape s(record, run.launch.rows);
  if (uses_blas() || !fuses() || s.m == 0 || s.n == 0) return false;
  for (std::int64_t r = 0; r < run.replicas; ++r)
    products.push_back(product_of<T>(record, run, r, {0, 0, s.m, s.n, s.k}));
  return true;
}

template void execute<float>(const MatMul&, const Run&);
template void execute<double>(const MatMul&, const Run&);
template void multiply_rows(const MatMul&, const Run&, std::int64_t, std::int64_t, std::int64_t,
                            float*);
template void multiply_rows(const MatMul&, const Run&, std::int64_t, std::int64_t, std::int64_t,
                            double*);
template bool bind(std::vector<Product<float>>&, const MatMul&, const Run&);
template bool bind(std::vector<Product<double>>&, const MatMul&, const Run&);

}  // namespace fastmlp::cpu
