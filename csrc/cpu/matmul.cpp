// Matmuls on BLAS: tiles that depend on shapes alone, each finished by its epilogue while it is hot.
#include <algorithm>

#include "cpu/blas.h"
#include "cpu/execution.h"

namespace fastmlp::cpu {
namespace {

struct Shape {
  std::int64_t m, n, k;
};

Shape shape(const MatMul& record, std::int64_t batch) {
  auto rows = [&](const Operand& o) { return o.rows == Operand::batch ? batch : o.rows; };
  return {rows(record.out), record.out.cols, record.transpose_a ? rows(record.a) : record.a.cols};
}

// A BLAS call packs its operands anew, so tiles are no smaller than what that is worth.
struct Tiling {
  std::int64_t rows, cols;

  explicit Tiling(const Shape& s) : rows(s.m), cols(s.n) {
    constexpr double worth_splitting = 2e6;  // operations in a tile, about 10 microseconds
    const double operations = 2.0 * double(s.m) * double(s.n) * double(s.k);
    std::int64_t tiles = std::min<std::int64_t>(16, std::int64_t(operations / worth_splitting));
    if (tiles < 2) return;
    rows = std::min(s.m, std::max<std::int64_t>(64, (s.m / tiles + 15) / 16 * 16));
    tiles = tiles * rows / std::max<std::int64_t>(s.m, 1);
    if (tiles >= 2) cols = std::min(s.n, std::max<std::int64_t>(256, (s.n / tiles + 63) / 64 * 64));
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
      kernel.activation_forward(out, tile_of(record.before), result, bias, m, n,
                                record.activation);
    }
  });
}

template void execute<float>(const MatMul&, const Run&);
template void execute<double>(const MatMul&, const Run&);

}  // namespace fastmlp::cpu
