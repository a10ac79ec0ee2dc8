// Matmuls on BLAS: tiles that depend on shapes alone, each finished by its epilogue while it is
// hot.
#include <algorithm>
#include <cmath>

#include "cpu/blas.h"
#include "cpu/execution.h"

namespace fastmlp::cpu {
namespace {

struct Shape { std::int64_t m, n, k; };

Shape shape(const MatMul& record, std::int64_t batch) {
  auto rows = [&](const Operand& o) { return o.rows == Operand::batch ? batch : o.rows; };
  return {rows(record.out), record.out.cols, record.transpose_a ? rows(record.a) : record.a.cols};
}

// A BLAS call packs its operands anew, so tiles are few and about square.
struct Tiling {
  std::int64_t rows, cols;

  explicit Tiling(const Shape& s) : rows(s.m), cols(s.n) {
    constexpr double worth_splitting = 2e6;  // operations in a tile, some 20 microseconds
    constexpr double most = 16;
    const double m = double(s.m), n = double(s.n);
    const double tiles = std::min(most, std::floor(2 * m * n * double(s.k) / worth_splitting));
    if (tiles < 2) return;
    const double side = std::sqrt(m * n / tiles);
    rows = std::min(s.m, round_up(std::max(side, m / tiles), 16));
    cols = std::min(s.n, round_up(m * n / tiles / double(rows), 64));
  }

 private:
  static std::int64_t round_up(double x, std::int64_t multiple) {
    return (std::int64_t(std::ceil(x)) + multiple - 1) / multiple * multiple;
  }
};

template <class T>
Operand part(Operand operand, std::int64_t first_row, std::int64_t first_col) {
  operand.offset += first_row * operand.row_stride + first_col;
  return operand;
}

}  // namespace

double operations(const MatMul& record, std::int64_t rows) {
  const Shape s = shape(record, rows);
  return 2.0 * double(s.m) * double(s.n) * double(s.k);
}

template <class T>
void execute(const MatMul& record, const Run& run) {
  const Shape s = shape(record, run.launch.rows);
  if (s.m == 0 || s.n == 0) return;
  const Tiling tile(s);
  const std::int64_t down = (s.m + tile.rows - 1) / tile.rows,
                     across = (s.n + tile.cols - 1) / tile.cols;
  const Kernels<T>& kernel = kernels<T>();
  run.each_task(down * across, [&](std::int64_t replica, std::int64_t task) {
    const std::int64_t i = task / across * tile.rows, j = task % across * tile.cols;
    const std::int64_t m = std::min(tile.rows, s.m - i), n = std::min(tile.cols, s.n - j);
    const Rows<T> out = run.matrix<T>(part<T>(record.out, i, j), replica);
    const Operand a = record.transpose_a ? part<T>(record.a, 0, i) : part<T>(record.a, i, 0);
    const Operand b = record.transpose_b ? part<T>(record.b, j, 0) : part<T>(record.b, 0, j);
    gemm<T>(out.data, out.stride, run.data<const T>(a, replica), a.row_stride, record.transpose_a,
            run.data<const T>(b, replica), b.row_stride, record.transpose_b, m, n, s.k);
    auto tile_of = [&](const Operand& operand) {
      return operand ? run.matrix<T>(part<T>(operand, i, j), replica) : Rows<T>{};
    };
    const Rows<const T> result{out.data, out.stride};
    if (record.kept) {
      const Rows<T> kept = tile_of(record.kept);
      kernel.activation_backward(out, result, {kept.data, kept.stride}, m, n, record.activation);
    } else if (record.bias || record.before || !record.activation.is_identity()) {
      const T* bias = record.bias ? run.data<const T>(record.bias, replica) + j : nullptr;
      kernel.activation_forward(out, tile_of(record.before), result, bias, m, n, record.activation);
    }
  });
}

template void execute<float>(const MatMul&, const Run&);
template void execute<double>(const MatMul&, const Run&);

}  // namespace fastmlp::cpu
