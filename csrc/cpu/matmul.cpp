#include "cpu/matmul.h"

#include <algorithm>
#include <cstdlib>
#include <memory>
#include <numeric>
#include <stdexcept>
#include <string>

#include "cpu/blas.h"
#include "cpu/kernels.h"

namespace fastmlp::cpu {
namespace {

struct Shape {
  std::int64_t m, n, k;

  double operations() const { return 2.0 * double(m) * double(n) * double(k); }
};

Shape shape(const MatMul& record, std::int64_t batch) {
  auto rows = [&](const Operand& o) { return o.rows == Operand::batch ? batch : o.rows; };
  return {rows(record.out), record.out.cols, record.transpose_a ? rows(record.a) : record.a.cols};
}

struct Tiling { std::int64_t rows, cols; };

// A BLAS call packs its operands anew, so tiles are few and large; and since its sums depend on the
// tile, tiles depend on the shape alone.
Tiling blas_tiling(const Shape& s) {
  constexpr std::int64_t rows = 256, narrowest = 128, most = 4;
  const std::int64_t down = (s.m + rows - 1) / rows;
  const std::int64_t across = std::min(most / std::min(down, most), s.n / narrowest);
  const double worth_splitting = 4e6;  // operations, some 40 microseconds
  if (across < 2 || s.operations() < worth_splitting) return {std::min(s.m, rows), s.n};
  return {std::min(s.m, rows), (s.n / across + 63) / 64 * 64};
}

// Our own kernels give the same sums in any tile, so tiles may suit the team: whole panels of
// columns, shared out evenly, and no more rows than the second-level cache holds of a.
template <class T>
Tiling native_tiling(const Shape& s, const Run& run) {
  constexpr std::int64_t most_rows = 256, fewest_rows = 16;
  std::int64_t panel = matmul_panel * 4 / std::int64_t(sizeof(T));
  // Few rows are bound by reading b: each member reads long stretches of its rows.
  if (s.m <= 4) panel = std::max(panel, (s.n / run.members + panel - 1) / panel * panel);
  if (s.n <= panel && s.m <= most_rows && run.members == 1) return {s.m, s.n};
  const std::int64_t panels = (s.n + panel - 1) / panel;
  std::int64_t blocks = (s.m + most_rows - 1) / most_rows;
  const std::int64_t all = panels * run.replicas;
  if (all * blocks < 4 * run.members) {
    const std::int64_t even = run.members / std::gcd(all, std::int64_t(run.members));
    blocks = (blocks + even - 1) / even * even;
  }
  blocks = std::max<std::int64_t>(1, std::min(blocks, s.m / fewest_rows));
  return {(s.m + blocks - 1) / blocks, panel};
}

// Where a panel of b is packed; one for each thread, allocated once.
template <class T>
T* scratch() {
  static thread_local std::unique_ptr<T, decltype(&std::free)> memory{
      static_cast<T*>(std::aligned_alloc(64, matmul_depth * matmul_panel * sizeof(T))), std::free};
  if (!memory) throw std::bad_alloc();
  return memory.get();
}

// The epilogue, on a tile just computed.
template <class T>
void finish(const MatMul& record, Rows<T> out, Rows<T> before, Rows<T> kept, const T* bias,
            std::int64_t m, std::int64_t n) {
  const Rows<const T> result{out.data, out.stride};
  if (kept)
    kernels<T>().activation_backward(out, result, {kept.data, kept.stride}, m, n,
                                     record.activation);
  else if (bias || before || !record.activation.is_identity())
    kernels<T>().activation_forward(out, before, result, bias, m, n, record.activation);
}

template <class T>
Operand part(Operand operand, std::int64_t first_row, std::int64_t first_col) {
  operand.offset += first_row * operand.row_stride + first_col;
  return operand;
}

}  // namespace

double operations(const MatMul& record, std::int64_t rows) {
  return shape(record, rows).operations();
}

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

template <class T>
void execute(const MatMul& record, const Run& run) {
  const Shape s = shape(record, run.launch.rows);
  if (s.m == 0 || s.n == 0) return;
  const bool by_blas = uses_blas();
  const Tiling tile = by_blas ? blas_tiling(s) : native_tiling<T>(s, run);
  const std::int64_t down = (s.m + tile.rows - 1) / tile.rows,
                     across = (s.n + tile.cols - 1) / tile.cols;
  run.each_task(down * across, [&](std::int64_t replica, std::int64_t task) {
    const std::int64_t i = task / across * tile.rows, j = task % across * tile.cols;
    const std::int64_t m = std::min(tile.rows, s.m - i), n = std::min(tile.cols, s.n - j);
    auto tile_of = [&](const Operand& operand) {
      return operand ? run.matrix<T>(part<T>(operand, i, j), replica) : Rows<T>{};
    };
    const Rows<T> out = tile_of(record.out);
    const Operand a = record.transpose_a ? part<T>(record.a, 0, i) : part<T>(record.a, i, 0);
    const Operand b = record.transpose_b ? part<T>(record.b, j, 0) : part<T>(record.b, 0, j);
    const T* left = run.data<const T>(a, replica);
    const T* right = run.data<const T>(b, replica);
    const T* bias = record.bias ? run.data<const T>(record.bias, replica) + j : nullptr;
    if (by_blas) {
      gemm<T>(out.data, out.stride, left, a.row_stride, record.transpose_a, right, b.row_stride,
              record.transpose_b, m, n, s.k);
    } else {
      kernels<T>().matmul({out.data, out.stride, left, a.row_stride, record.transpose_a, right,
                           b.row_stride, record.transpose_b, m, n, s.k, bias, scratch<T>()});
      bias = nullptr;  // it is in
    }
    finish<T>(record, out, tile_of(record.before), tile_of(record.kept), bias, m, n);
  });
}

template void execute<float>(const MatMul&, const Run&);
template void execute<double>(const MatMul&, const Run&);

}  // namespace fastmlp::cpu
