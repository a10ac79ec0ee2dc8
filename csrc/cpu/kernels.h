// The inner loops of the CPU backend, compiled once for each instruction set (isa/) and chosen
// here.
//
// They work on a block of rows with plain pointers and row strides in elements. Outputs come first.
// Null means "not there". Inputs and outputs may be the same array.
#pragma once

#include <cstdint>

#include "core/activation.h"
#include "core/program.h"
#include "core/random.h"
#include "core/update.h"

namespace fastmlp::cpu {

template <class T>
struct Rows {
  T* data = nullptr;
  std::int64_t stride = 0;

  explicit operator bool() const { return data != nullptr; }
  T* operator[](std::int64_t row) const { return data + row * stride; }
};

// Targets are labels or, where those are null, rows of values.
template <class T>
struct Targets {
  const std::int32_t* labels = nullptr;
  Rows<const T> values;
};

struct DropoutMask {
  std::uint64_t seed = 0, forward = 0, layer = 0;
  double rate = 0;
};

// A matrix product and its epilogue: c (m, n) = op(a) (m, k) op(b) (k, n) + bias (n), then
// forward, before = c and c = activation(c), or
// backward, c = c activation'(kept).
// `scratch` holds matmul_scratch<T> elements.
template <class T>
struct Product {
  T* c;
  std::int64_t c_stride;
  const T* a;
  std::int64_t a_stride;
  bool transpose_a;
  const T* b;
  std::int64_t b_stride;
  bool transpose_b;
  std::int64_t m, n, k;
  const T* bias;
  Rows<T> before;
  Rows<const T> kept;
  const Activation* activation;
  bool packing;  // may copy operands into scratch where that pays
  T* scratch;
};

// How a product is blocked: columns of b that are packed together, and how many packed ones are
// kept; rows of c; and at most this many rows of b at a time.
template <class T>
constexpr std::int64_t matmul_chunk = 256 / sizeof(T);
template <class T>
constexpr std::int64_t matmul_columns = 4096 / sizeof(T);
template <class T>
constexpr std::int64_t matmul_rows = 1024 / sizeof(T);
constexpr std::int64_t matmul_depth = 512;
constexpr std::int64_t matmul_slack = 64;  // that packing may write behind the last element
template <class T>
constexpr std::int64_t matmul_packed =
    matmul_depth * (matmul_columns<T> + matmul_rows<T>)+matmul_slack;
// Elements of a transposed c, behind what is packed.
constexpr std::int64_t matmul_turned = 65536;
template <class T>
constexpr std::int64_t matmul_scratch = matmul_packed<T> + matmul_turned;

template <class T>
struct Kernels {
  // Null where the BLAS is the better choice: without fused multiply-adds.
  void (*matmul)(const Product<T>& product);
  // The same with operands rounded to bfloat16; null where the instruction set has none of it. A
  // CPU with the set may lack it: see has_bfloat16 in features.h.
  void (*matmul_bfloat16)(const Product<T>& product);
  // The same by AMX, whose sums have another order: see has_tiles there.
  void (*matmul_tiles)(const Product<T>& product);
  // before = x + bias; y = activation(x + bias). A bias for all rows is rows that lie 0 apart.
  void (*activation_forward)(Rows<T> y, Rows<T> before, Rows<const T> x, Rows<const T> bias,
                             std::int64_t rows, std::int64_t cols, const Activation& activation);
  // dx = dy activation'(kept)
  void (*activation_backward)(Rows<T> dx, Rows<const T> dy, Rows<const T> kept, std::int64_t rows,
                              std::int64_t cols, const Activation& activation);
  void (*softmax)(Rows<T> y, Rows<const T> x, std::int64_t rows, std::int64_t cols, bool logarithm);
  void (*softmax_backward)(Rows<T> dx, Rows<const T> dy, Rows<const T> y, std::int64_t rows,
                           std::int64_t cols, bool logarithm);
  // One slope for all columns where `shared` is set.
  void (*prelu)(Rows<T> y, Rows<const T> x, const T* slope, bool shared, std::int64_t rows,
                std::int64_t cols);
  void (*prelu_backward)(Rows<T> dx, Rows<const T> dy, Rows<const T> x, const T* slope, bool shared,
                         std::int64_t rows, std::int64_t cols);
  // out[j] = the sum over rows of dy min(x, 0)
  void (*prelu_slope)(T* out, Rows<const T> dy, Rows<const T> x, std::int64_t rows,
                      std::int64_t cols);
  // cols are those of y, of which x has several side by side
  void (*maxout)(Rows<T> y, Rows<const T> x, std::int64_t rows, std::int64_t cols,
                 std::int64_t pieces);
  void (*maxout_backward)(Rows<T> dx, Rows<const T> dy, Rows<const T> x, Rows<const T> y,
                          std::int64_t rows, std::int64_t cols, std::int64_t pieces);
  // Normalisation as the records of that name say it; what is of rows or of columns is one array.
  void (*statistics)(T* mean, T* variance, Rows<const T> x, std::int64_t rows, std::int64_t cols,
                     bool by_row);
  void (*normalise)(Rows<T> y, Rows<const T> x, const T* mean, const T* variance, const T* gamma,
                    const T* beta, double epsilon, std::int64_t rows, std::int64_t cols,
                    bool by_row);
  void (*normalise_sums)(T* gamma_sum, T* beta_sum, Rows<const T> dy, Rows<const T> x,
                         const T* mean, const T* variance, double epsilon, std::int64_t rows,
                         std::int64_t cols, bool by_row);
  // `batch`: how many rows the statistics are of, 0 where they are given
  void (*normalise_backward)(Rows<T> dx, Rows<const T> dy, Rows<const T> x, const T* mean,
                             const T* variance, const T* gamma, const T* gamma_sum,
                             const T* beta_sum, double epsilon, std::int64_t rows,
                             std::int64_t cols, std::int64_t batch, bool by_row);
  // The gradient, where wanted, is of row_loss / divisor.
  void (*loss)(T* row_loss, Rows<T> gradient, Rows<const T> prediction, Targets<T> target,
               const T* weight, std::int64_t rows, std::int64_t cols, const LossFunction& function,
               double divisor);
  void (*metric)(T* row_value, Rows<const T> prediction, Targets<T> target, std::int64_t rows,
                 std::int64_t cols, const Metric& metric);
  // out[j] = sum of x[i][j] over i, in ascending order
  void (*column_sum)(T* out, Rows<const T> x, std::int64_t rows, std::int64_t cols);
  double (*sum_of_squares)(const T* x, std::int64_t size);
  // sums = of |w| and of w^2, where wanted; gradient, where wanted, += the penalty's derivative
  void (*penalize)(T* gradient, double* sums, const T* weights, std::int64_t size,
                   const Penalty& penalty);
  // The element at (row, col) of the whole array has the number (first_row + row) * cols + col.
  void (*dropout)(Rows<T> y, Rows<const T> x, std::int64_t first_row, std::int64_t rows,
                  std::int64_t cols, const DropoutMask& mask);
  // Rows lie equally far apart in all arrays. Meanwhile parameters so many elements ahead are
  // fetched for writing, where that is not 0.
  void (*update)(T* p, const T* g, T* const moments[3], std::int64_t rows, std::int64_t cols,
                 std::int64_t stride, const Update& update, const StepState& state,
                 std::int64_t fetch_ahead);
  // rows[i] = permutation(first + i), i < n
  void (*permute)(std::int64_t* rows, std::int64_t first, std::int64_t n,
                  const Permutation& permutation);
  // Multiply-adds in registers; returns how many floating-point operations.
  double (*multiply_add)(std::int64_t steps, T* result);
};

// What one instruction set offers.
struct KernelSet {
  Kernels<float> single;
  Kernels<double> twofold;
};

// Of the instruction set in use.
template <class T>
const Kernels<T>& kernels();

}  // namespace fastmlp::cpu
