// A network's forward, backward and update as data: a list of plain records over buffer offsets.
// `each(f)` of a record calls f for every operand it has, those first that the record writes; its
// `name` is for people.
//
// `nn/` writes programs and a backend executes them as it likes: record by record, on a thread
// team, as a captured graph, or as one kernel. Every record has a leading replica dimension,
// carried by the operands' batch strides. A record that a backend does not know is a compile error
// there.
#pragma once

#include <cstdint>
#include <variant>
#include <vector>

#include "core/activation.h"
#include "core/loss.h"
#include "core/penalty.h"
#include "core/update.h"
#include "core/view.h"

namespace fastmlp {

// The arrays that a network's programs work on. A program of `fm.kernels` numbers its arrays
// freely.
enum Buffer : int {
  parameters,
  gradients,
  moment0,
  moment1,
  moment2,
  state,
  workspace,
  step_state,
  input,
  target,
  weight,
  output,
  output_gradient,
  input_gradient,
  learning_rates,
  buffer_count
};

// A matrix in a buffer, one for each replica. `rows` may be the batch, whose size comes with a run.
struct Operand {
  static constexpr std::int64_t batch = -1;

  int buffer = -1;
  std::int64_t offset = 0;  // all in elements
  std::int64_t rows = 0;
  std::int64_t cols = 0;
  std::int64_t row_stride = 0;
  std::int64_t batch_stride = 0;  // from replica to replica
  DType dtype = DType::float32;

  explicit operator bool() const { return buffer >= 0; }
};

// A sum over the rows of a batch may be taken in parts, over even shares of them, that are added up
// later: where threads share out the rows, each then goes on with those that it has. How many parts
// depends on the rows alone and not on the threads, and so do the bits.
struct BatchParts {
  static constexpr std::int64_t most = 8;

  std::int64_t fewest_rows = 0;  // that are more than one part; 0: there are no parts
  std::int64_t stride = 0;       // from one part's result to the next one's

  explicit operator bool() const { return fewest_rows > 0; }
  std::int64_t count(std::int64_t rows) const {
    if (!*this || rows < fewest_rows) return 1;
    return rows < 512 ? 2 : rows < 1024 ? 4 : most;
  }
};

inline bool same_place(const Operand& a, const Operand& b) {
  return a.buffer == b.buffer && a.offset == b.offset;
}

// x[i] = from_x[order(row + i)], and likewise the target and, where there is one, the weight: the
// rows of the next batch, shuffled or in place. `for_halves`: what takes x takes its sums in
// halves.
struct Gather {
  static constexpr const char* name = "Gather";
  Operand x, target, weight;
  Operand from_x, from_target, from_weight;
  bool shuffled = false, for_halves = false;

  template <class F>
  void each(F f) {
    f(x), f(target), f(weight), f(from_x), f(from_target), f(from_weight);
  }
};

struct Copy {
  static constexpr const char* name = "Copy";
  Operand out, in;

  template <class F>
  void each(F f) {
    f(out), f(in);
  }
};

// out = a b, after the transposes, with one of two epilogues on the tile just computed:
// forward, out = activation(a b + bias), and `before` receives a b + bias where it is kept;
// backward, out = (a b) activation'(kept).
// With `parts`, sums are over the batch, and out is that of the first part.
// Of a forward product, sums may be taken in two halves of what is summed over, which are added up:
// where threads share these out, each then goes on with the rows of b that it has updated. Whether
// they are depends on the batch alone: on whether it fits into `second_half`.
struct MatMul {
  static constexpr const char* name = "MatMul";
  Operand out, a, b;
  bool transpose_a = false, transpose_b = false;
  Operand bias, before;
  Activation activation;
  Operand kept;
  BatchParts parts;
  Operand second_half;

  bool in_halves(std::int64_t batch) const { return second_half && batch <= second_half.rows; }

  template <class F>
  void each(F f) {
    f(out), f(before), f(second_half), f(a), f(b), f(bias), f(kept);
  }
};

// A product's size, where a batch has so many rows: out is (m, n), and k is what is summed over.
struct ProductShape {
  std::int64_t m, n, k;

  ProductShape(const MatMul& product, std::int64_t batch)
      : m(product.transpose_a ? product.a.cols : rows(product.out, batch)),
        n(product.out.cols),
        k(product.transpose_a ? rows(product.a, batch) : product.a.cols) {}

  double operations() const { return 2.0 * double(m) * double(n) * double(k); }

 private:
  static std::int64_t rows(const Operand& operand, std::int64_t batch) {
    return operand.rows == Operand::batch ? batch : operand.rows;
  }
};

// out[0] = the sum of the rows of in, added in ascending order. With `parts`, either in is the
// batch and out that of the first part, or the rows of in are the parts that the batch has.
struct ColumnSum {
  static constexpr const char* name = "ColumnSum";
  Operand out, in;
  BatchParts parts;

  template <class F>
  void each(F f) {
    f(out), f(in);
  }
};

struct BiasAdd {
  static constexpr const char* name = "BiasAdd";
  Operand out, in, bias;

  template <class F>
  void each(F f) {
    f(out), f(in), f(bias);
  }
};

// Any of `Functions`; a network's are activations.
struct ActivationForward {
  static constexpr const char* name = "ActivationForward";
  Operand out, in;
  Activation activation;

  template <class F>
  void each(F f) {
    f(out), f(in);
  }
};

// out = gradient * activation'(kept)
struct ActivationBackward {
  static constexpr const char* name = "ActivationBackward";
  Operand out, gradient, kept;
  Activation activation;

  template <class F>
  void each(F f) {
    f(out), f(gradient), f(kept);
  }
};

// Of each row; `logarithm`: its logarithm, from the input and never from the probabilities.
struct Softmax {
  static constexpr const char* name = "Softmax";
  Operand out, in;
  bool logarithm = false;

  template <class F>
  void each(F f) {
    f(out), f(in);
  }
};

// out = y (gradient - sum_j gradient_j y_j), of the logarithm gradient - exp(y) sum_j gradient_j
struct SoftmaxBackward {
  static constexpr const char* name = "SoftmaxBackward";
  Operand out, gradient, y;
  bool logarithm = false;

  template <class F>
  void each(F f) {
    f(out), f(gradient), f(y);
  }
};

// A ReLU whose slope below 0 is learned, one for each column or, where `slope` has one element, for
// all.
struct Prelu {
  static constexpr const char* name = "Prelu";
  Operand out, in, slope;

  template <class F>
  void each(F f) {
    f(out), f(in), f(slope);
  }
};

struct PreluBackward {
  static constexpr const char* name = "PreluBackward";
  Operand out, gradient, in, slope;

  template <class F>
  void each(F f) {
    f(out), f(gradient), f(in), f(slope);
  }
};

// out = the derivative by the slope, as many as there are of those.
struct PreluSlope {
  static constexpr const char* name = "PreluSlope";
  Operand out, gradient, in;

  template <class F>
  void each(F f) {
    f(out), f(gradient), f(in);
  }
};

// out[i][j] = the largest of in[i][j], in[i][j + cols], in[i][j + 2 cols], ... with cols those of
// out.
struct Maxout {
  static constexpr const char* name = "Maxout";
  Operand out, in;

  template <class F>
  void each(F f) {
    f(out), f(in);
  }
};

// The gradient goes to the first of the largest, the others get 0.
struct MaxoutBackward {
  static constexpr const char* name = "MaxoutBackward";
  Operand out, gradient, in, y;

  template <class F>
  void each(F f) {
    f(out), f(gradient), f(in), f(y);
  }
};

// The mean and the (biased) variance of each column of `in` over the rows, for batch normalisation,
// or, with `by_row`, of each row over the columns, for layer normalisation.
struct Statistics {
  static constexpr const char* name = "Statistics";
  Operand mean, variance, in;
  bool by_row = false;

  template <class F>
  void each(F f) {
    f(mean), f(variance), f(in);
  }
};

// out = (in - mean) / sqrt(variance + epsilon) gamma + beta, with gamma and beta of columns, where
// there are any.
struct Normalise {
  static constexpr const char* name = "Normalise";
  Operand out, in, mean, variance, gamma, beta;
  double epsilon = 0;
  bool by_row = false;

  template <class F>
  void each(F f) {
    f(out), f(in), f(mean), f(variance), f(gamma), f(beta);
  }
};

// With x = (in - mean) / sqrt(variance + epsilon): gamma = the sum over rows of gradient x, beta =
// that of gradient.
struct NormaliseSums {
  static constexpr const char* name = "NormaliseSums";
  Operand gamma, beta, gradient, in, mean, variance;
  double epsilon = 0;
  bool by_row = false;

  template <class F>
  void each(F f) {
    f(gamma), f(beta), f(gradient), f(in), f(mean), f(variance);
  }
};

// The derivative by `in`. Where the statistics are those of the batch, it takes the sums that
// NormaliseSums made; where they are given, none.
struct NormaliseBackward {
  static constexpr const char* name = "NormaliseBackward";
  Operand out, gradient, in, mean, variance, gamma, gamma_sum, beta_sum;
  double epsilon = 0;
  bool by_row = false;

  template <class F>
  void each(F f) {
    f(out), f(gradient), f(in), f(mean), f(variance), f(gamma), f(gamma_sum), f(beta_sum);
  }
};

// running += momentum (batch - running), with the batch's variance unbiased, as PyTorch has it. One
// row says nothing of a variance: then nothing moves.
struct MoveStatistics {
  static constexpr const char* name = "MoveStatistics";
  Operand running_mean, running_variance, mean, variance;
  double momentum = 0;

  template <class F>
  void each(F f) {
    f(running_mean), f(running_variance), f(mean), f(variance);
  }
};

// Inverted dropout: out = in / (1 - rate) where an element is kept, else 0. The mask is a function
// of the place, so the backward pass is this record again, on the gradient.
struct Dropout {
  static constexpr const char* name = "Dropout";
  Operand out, in;
  double rate = 0;
  std::uint64_t layer = 0;

  template <class F>
  void each(F f) {
    f(out), f(in);
  }
};

// row_loss[i] = w_i loss_i; gradient (where wanted) = w_i d loss_i / d prediction / divisor.
struct Loss {
  static constexpr const char* name = "Loss";
  Operand row_loss, gradient, prediction, target, weight;
  LossFunction function;
  double divisor = 0;  // 0: the batch size

  template <class F>
  void each(F f) {
    f(row_loss), f(gradient), f(prediction), f(target), f(weight);
  }
};

enum class MetricKind : std::uint8_t { accuracy, mse, mae };

// row_value[i] = the metric of row i. Accuracy is argmax against argmax or label; for one output,
// or outputs that are decided one by one, which side of `threshold` they are on.
struct Metric {
  static constexpr const char* name = "Metric";
  Operand row_value, prediction, target;
  MetricKind kind = MetricKind::accuracy;
  bool elementwise = false;
  double threshold = 0.5;

  template <class F>
  void each(F f) {
    f(row_value), f(prediction), f(target);
  }
};

// StepState.sums[slot] += sum of in; where `check` is set and the sum is not finite, the state says
// so and the rest of the step is not made.
struct Accumulate {
  static constexpr const char* name = "Accumulate";
  Operand in;
  int slot = 0;
  bool check = false;

  template <class F>
  void each(F f) {
    f(in);
  }
};

// StepState.penalty += the penalty of the weights, times the batch's rows; where it is not finite,
// the state says so and the rest of the step is not made. And gradient += its derivative. Either
// may be left out.
struct Penalize {
  static constexpr const char* name = "Penalize";
  Operand gradient, partial;  // a pair of partial sums, of |w| and w^2, for each block of weights
  Operand weights;            // as one row
  Penalty penalty;

  template <class F>
  void each(F f) {
    f(gradient), f(partial), f(weights);
  }
};

// Counts a training forward pass (StepState.forward).
struct BeginForward {
  static constexpr const char* name = "BeginForward";
  template <class F>
  void each(F) {}
};

// Takes the step's learning rate and derives from it what the update needs.
struct BeginUpdate {
  static constexpr const char* name = "BeginUpdate";
  Update update;

  template <class F>
  void each(F) {}
};

// StepState.gradient_scale = min(1, limit / norm of the gradient).
struct ClipNorm {
  static constexpr const char* name = "ClipNorm";
  Operand gradient, partial;  // one partial sum of squares for each block of the gradient
  double limit = 0;

  template <class F>
  void each(F f) {
    f(partial), f(gradient);
  }
};

struct ApplyUpdate {
  static constexpr const char* name = "ApplyUpdate";
  Operand parameter, gradient, moment[3];
  Update update;

  template <class F>
  void each(F f) {
    f(parameter), f(moment[0]), f(moment[1]), f(moment[2]), f(gradient);
  }
};

// Moves the row cursor, counts the update, and goes on to the next learning rate.
struct EndStep {
  static constexpr const char* name = "EndStep";
  template <class F>
  void each(F) {}
};

using Record =
    std::variant<Gather, Copy, MatMul, ColumnSum, BiasAdd, ActivationForward, ActivationBackward,
                 Softmax, SoftmaxBackward, Prelu, PreluBackward, PreluSlope, Maxout, MaxoutBackward,
                 Statistics, Normalise, NormaliseSums, NormaliseBackward, MoveStatistics, Dropout,
                 Loss, Metric, Accumulate, BeginForward, BeginUpdate, ClipNorm, ApplyUpdate,
                 EndStep, Penalize>;

// What the numbers of a matrix product are rounded to before they are multiplied; sums, and all
// that is no product, stay in the program's own dtype. Other than `full` it needs a device that has
// it, and float32.
enum class Precision : std::uint8_t { full, tf32, bfloat16 };

inline const char* name(Precision precision) {
  return precision == Precision::full ? "full" : precision == Precision::tf32 ? "tf32" : "bfloat16";
}

struct Program {
  DType dtype = DType::float32;
  Precision precision = Precision::full;
  std::int64_t replicas = 1;  // or the batched matrices of a kernel
  std::vector<Record> records;
};

// ClipNorm and Penalize add up blocks of this many elements, whatever the number of threads.
constexpr std::int64_t norm_block = 4096;

}  // namespace fastmlp
