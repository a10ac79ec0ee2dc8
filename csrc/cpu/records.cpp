// What each record does: this member's share of it.
#include "cpu/records.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <type_traits>

#include "core/random.h"
#include "cpu/features.h"
#include "cpu/matmul.h"

namespace fastmlp::cpu {
namespace {

// One of the arrays that a Gather takes rows from, in bytes.
struct RowCopy {
  const char* from;
  char* to;
  std::int64_t from_stride, to_stride;
  std::size_t bytes;

  RowCopy(const Run& run, const Operand& out, const Operand& in, std::int64_t replica)
      : from(address(run, in, replica)),
        to(address(run, out, replica)),
        from_stride(in.row_stride * size_of(in.dtype)),
        to_stride(out.row_stride * size_of(out.dtype)),
        bytes(std::size_t(out.cols * size_of(out.dtype))) {}

  static char* address(const Run& run, const Operand& operand, std::int64_t replica) {
    if (!operand) return nullptr;
    return static_cast<char*>(run.launch.buffers[operand.buffer]) +
           (operand.offset + replica * operand.batch_stride) * size_of(operand.dtype);
  }
  // The same for some of the columns.
  RowCopy columns(std::int64_t first, std::int64_t count, const Operand& in) const {
    RowCopy some = *this;
    some.from += first * size_of(in.dtype);
    some.to += first * size_of(in.dtype);
    some.bytes = std::size_t(count * size_of(in.dtype));
    return some;
  }
  void copy(std::int64_t row, std::int64_t source) const {
    if (!to) return;
    char* const out = to + row * to_stride;
    const char* const in = from + source * from_stride;
    if (bytes > 256) {
      std::memcpy(out, in, bytes);
    } else if (bytes >= 16) {  // a call would take longer than the copy
      for (std::size_t i = 0; i < bytes - 16; i += 16) std::memcpy(out + i, in + i, 16);
      std::memcpy(out + bytes - 16, in + bytes - 16, 16);
    } else {
      for (std::size_t i = 0; i < bytes; i += 4) std::memcpy(out + i, in + i, 4);
    }
  }
  // All its cache lines: a row need not start where one does. Always inlined, since GCC finds that
  // such a function does nothing, and leaves out calls of it.
  FASTMLP_FN void fetch(std::int64_t source) const {
    if (!to) return;
    const char* const row = from + source * from_stride;
    const char* line = row - reinterpret_cast<std::uintptr_t>(row) % 64;
    for (; line < row + bytes; line += 64) __builtin_prefetch(line);
  }
};

// Rows `first` to `first` + `count` of a batch, of these arrays.
template <class... Copies>
void gather_rows(const Gather& record, const Run& run, std::int64_t replica, std::int64_t first,
                 std::int64_t count, const Copies&... copies) {
  const StepState& state = run.state(replica);
  if (!record.shuffled) {
    for (std::int64_t i = first; i < first + count; ++i) (copies.copy(i, state.row + i), ...);
    return;
  }
  // Where a member has only some rows of a batch, it has others of the next.
  const bool look_ahead = count == run.launch.rows;
  for (const std::int64_t end = first + count; first < end; first += RowOrder::most) {
    const std::int64_t n = std::min(RowOrder::most, end - first);
    const std::int64_t* const source = run.memory.order(replica).rows(
        state, run.launch.total_rows, state.row + first, n, look_ahead);
    // Shuffled rows are far apart, and the processor cannot guess where: it is told some ahead.
    constexpr std::int64_t ahead = 8;
    for (std::int64_t i = 0; i < std::min(ahead, n); ++i) (copies.fetch(source[i]), ...);
    for (std::int64_t i = 0; i < n; ++i) {
      if (i + ahead < n) (copies.fetch(source[i + ahead]), ...);
      (copies.copy(first + i, source[i]), ...);
    }
  }
}

template <class T>
void execute(const Gather& record, const Run& run) {
  const std::int64_t rows = run.launch.rows;
  if (record.for_halves)
    run.each_lines(record.x.cols, [&](std::int64_t r, std::int64_t first, std::int64_t count) {
      const RowCopy x(run, record.x, record.from_x, r);
      gather_rows(record, run, r, 0, rows, x.columns(first, count, record.x));
    });
  run.each_rows(rows, [&](std::int64_t r, std::int64_t first, std::int64_t count) {
    const RowCopy x(run, record.x, record.from_x, r),
        target(run, record.target, record.from_target, r),
        weight(run, record.weight, record.from_weight, r);
    if (record.for_halves)
      gather_rows(record, run, r, first, count, target, weight);
    else
      gather_rows(record, run, r, first, count, x, target, weight);
  });
}

template <class T>
void execute(const Copy& record, const Run& run) {
  run.each_rows(run.rows(record.out), [&](std::int64_t r, std::int64_t first, std::int64_t n) {
    const auto out = run.matrix<T>(record.out, r, first);
    const auto in = run.matrix<const T>(record.in, r, first);
    for (std::int64_t i = 0; i < n; ++i)
      std::memcpy(out[i], in[i], std::size_t(record.out.cols) * sizeof(T));
  });
}

// Calls f(replica, first, count) for this member's blocks of columns.
template <class F>
void each_columns(const Run& run, std::int64_t cols, F&& f) {
  constexpr std::int64_t block = 64;
  run.each_task((cols + block - 1) / block, [&](std::int64_t r, std::int64_t task) {
    f(r, task * block, std::min(block, cols - task * block));
  });
}

// An operand from one of its columns on.
Operand from_column(Operand operand, std::int64_t first) {
  operand.offset += first;
  return operand;
}

struct BlockSize { std::int64_t rows, cols, stride; };

// Updates a block of that size, from element `first` of a row on.
template <class T>
void apply(const ApplyUpdate& update, const Run& run, std::int64_t replica, std::int64_t row,
           std::int64_t first, const BlockSize& block, const T* gradient) {
  static const std::int64_t fetch_ahead =
      gains_by_fetching_for_writing() && !switched_off("fetching") ? 64 * 64 / sizeof(T) : 0;
  T* moments[3];
  for (int i = 0; i < 3; ++i)
    moments[i] = update.moment[i] ? run.matrix<T>(update.moment[i], replica)[row] + first : nullptr;
  kernels<T>().update(run.matrix<T>(update.parameter, replica)[row] + first, gradient, moments,
                      block.rows, block.cols, block.stride, update.update, run.state(replica),
                      run.members > 1 ? fetch_ahead : 0);
}
template <class T>
void apply(const ApplyUpdate& update, const Run& run, std::int64_t replica, std::int64_t row,
           std::int64_t first, std::int64_t n, const T* gradient) {
  apply(update, run, replica, row, first, BlockSize{1, n, n}, gradient);
}

// Some rows of a kernel without the cache lines of their padding, which is zero and stays zero.
template <class T>
BlockSize whole_lines(std::int64_t rows, std::int64_t cols, std::int64_t stride) {
  constexpr std::int64_t line = 64 / sizeof(T);
  const std::int64_t lines = (cols + line - 1) / line * line;
  return lines == stride ? BlockSize{1, rows * stride, 0} : BlockSize{rows, lines, stride};
}

// Where it is the gradient of a kernel that is to be updated at once: in blocks of rows, so that
// what is multiplied is still in the cache when it is used up. All blocks of a member are written
// to the place of its first, which therefore stays there.
template <class T>
void execute(const MatMul& record, const Updates& updates, const Run& run) {
  if (updates.empty()) return execute<T>(record, run);
  constexpr std::int64_t enough_work = 128, little_work = 16;
  const ProductShape shape(record, run.launch.rows);
  // That much stays in the second-level cache; of what is made quickly, in the first.
  const std::int64_t bytes = shape.k > little_work ? 64 << 10 : 16 << 10;
  const std::int64_t stride = record.out.row_stride;
  // Blocks are small products, which a large batch would feel more than it feels the gradient.
  const std::int64_t most =
      shape.k >= enough_work ? shape.m : std::max<std::int64_t>(24, bytes / (stride * sizeof(T)));
  const ApplyUpdate& update = updates.front();
  run.each_lines(shape.m, [&](std::int64_t r, std::int64_t first, std::int64_t rows) {
    const std::int64_t blocks = (rows + most - 1) / most;
    T* const gradient = run.data<T>(record.out, r) + first * stride;
    for (std::int64_t block = 0, begin = first; block < blocks; ++block) {
      const std::int64_t end = first + rows * (block + 1) / blocks;
      multiply_rows(record, run, r, begin, end - begin, gradient);
      apply<T>(update, run, r, 0, begin * stride,
               whole_lines<T>(end - begin, record.out.cols, stride), gradient);
      begin = end;
    }
  });
}

// The sums of each part of the batch.
template <class T>
void sum_in_parts(const ColumnSum& record, const Run& run) {
  const std::int64_t rows = run.rows(record.in), cols = record.in.cols,
                     parts = record.parts.count(rows);
  run.each_task(parts, [&](std::int64_t r, std::int64_t part) {
    const std::int64_t first = rows * part / parts, end = rows * (part + 1) / parts;
    T* const sums = run.data<T>(record.out, r) + part * record.parts.stride;
    kernels<T>().column_sum(sums, run.matrix<const T>(record.in, r, first), end - first, cols);
    std::fill(sums + cols, sums + record.out.row_stride, T(0));
  });
}

// What they add up to: a flat array.
template <class T>
void add_parts(const ColumnSum& record, const Updates& updates, const Run& run) {
  const std::int64_t parts = record.parts.count(run.launch.rows);
  run.each_lines(record.in.cols, [&](std::int64_t r, std::int64_t first, std::int64_t n) {
    T* const sums = run.data<T>(record.out, r) + first;
    const Rows<const T> in = run.matrix<const T>(from_column(record.in, first), r);
    if (parts == 1)  // not 0 + x, which is another zero where x is -0
      std::copy_n(in.data, n, sums);
    else
      kernels<T>().column_sum(sums, in, parts, n);
    for (const ApplyUpdate& update : updates) apply<T>(update, run, r, 0, first, n, sums);
  });
}

template <class T>
void execute(const ColumnSum& record, const Updates& updates, const Run& run) {
  if (record.parts && record.in.rows == Operand::batch) return sum_in_parts<T>(record, run);
  if (record.parts) return add_parts<T>(record, updates, run);
  each_columns(run, record.in.cols, [&](std::int64_t r, std::int64_t first, std::int64_t n) {
    T* const sums = run.data<T>(record.out, r) + first;
    kernels<T>().column_sum(sums, run.matrix<const T>(from_column(record.in, first), r),
                            run.rows(record.in), n);
    for (const ApplyUpdate& update : updates) apply<T>(update, run, r, 0, first, n, sums);
  });
}

template <class T>
void execute(const BiasAdd& record, const Run& run) {
  run.each_rows(run.rows(record.in), [&](std::int64_t r, std::int64_t first, std::int64_t n) {
    kernels<T>().activation_forward(
        run.matrix<T>(record.out, r, first), {}, run.matrix<const T>(record.in, r, first),
        {run.data<const T>(record.bias, r), 0}, n, record.in.cols, Activation{});
  });
}

template <class T>
void execute(const ActivationForward& record, const Run& run) {
  run.each_rows(run.rows(record.in), [&](std::int64_t r, std::int64_t first, std::int64_t n) {
    kernels<T>().activation_forward(run.matrix<T>(record.out, r, first), {},
                                    run.matrix<const T>(record.in, r, first), {}, n, record.in.cols,
                                    record.activation);
  });
}

template <class T>
void execute(const ActivationBackward& record, const Run& run) {
  run.each_rows(run.rows(record.gradient), [&](std::int64_t r, std::int64_t first, std::int64_t n) {
    kernels<T>().activation_backward(
        run.matrix<T>(record.out, r, first), run.matrix<const T>(record.gradient, r, first),
        run.matrix<const T>(record.kept, r, first), n, record.gradient.cols, record.activation);
  });
}

template <class T>
void execute(const Softmax& record, const Run& run) {
  run.each_rows(run.rows(record.in), [&](std::int64_t r, std::int64_t first, std::int64_t n) {
    kernels<T>().softmax(run.matrix<T>(record.out, r, first),
                         run.matrix<const T>(record.in, r, first), n, record.in.cols,
                         record.logarithm);
  });
}

template <class T>
void execute(const SoftmaxBackward& record, const Run& run) {
  run.each_rows(run.rows(record.gradient), [&](std::int64_t r, std::int64_t first, std::int64_t n) {
    kernels<T>().softmax_backward(
        run.matrix<T>(record.out, r, first), run.matrix<const T>(record.gradient, r, first),
        run.matrix<const T>(record.y, r, first), n, record.gradient.cols, record.logarithm);
  });
}

template <class T>
void execute(const Prelu& record, const Run& run) {
  run.each_rows(run.rows(record.in), [&](std::int64_t r, std::int64_t first, std::int64_t n) {
    kernels<T>().prelu(run.matrix<T>(record.out, r, first),
                       run.matrix<const T>(record.in, r, first), run.data<const T>(record.slope, r),
                       record.slope.cols < record.in.cols, n, record.in.cols);
  });
}

template <class T>
void execute(const PreluBackward& record, const Run& run) {
  run.each_rows(run.rows(record.in), [&](std::int64_t r, std::int64_t first, std::int64_t n) {
    kernels<T>().prelu_backward(
        run.matrix<T>(record.out, r, first), run.matrix<const T>(record.gradient, r, first),
        run.matrix<const T>(record.in, r, first), run.data<const T>(record.slope, r),
        record.slope.cols < record.in.cols, n, record.in.cols);
  });
}

template <class T>
void execute(const PreluSlope& record, const Run& run) {
  const std::int64_t rows = run.rows(record.in), cols = record.in.cols;
  auto sums = [&](T* out, std::int64_t r, std::int64_t first, std::int64_t n) {
    kernels<T>().prelu_slope(out, run.matrix<const T>(from_column(record.gradient, first), r),
                             run.matrix<const T>(from_column(record.in, first), r), rows, n);
  };
  if (record.out.cols == cols)
    return each_columns(run, cols, [&](std::int64_t r, std::int64_t first, std::int64_t n) {
      sums(run.data<T>(record.out, r) + first, r, first, n);
    });
  run.each_replica([&](std::int64_t r) {  // one slope for all columns
    constexpr std::int64_t block = 256;
    T all = 0, part[block];
    for (std::int64_t first = 0; first < cols; first += block) {
      const std::int64_t n = std::min(block, cols - first);
      sums(part, r, first, n);
      for (std::int64_t j = 0; j < n; ++j) all += part[j];
    }
    *run.data<T>(record.out, r) = all;
  });
}

template <class T>
void execute(const Maxout& record, const Run& run) {
  run.each_rows(run.rows(record.in), [&](std::int64_t r, std::int64_t first, std::int64_t n) {
    kernels<T>().maxout(run.matrix<T>(record.out, r, first),
                        run.matrix<const T>(record.in, r, first), n, record.out.cols,
                        record.in.cols / record.out.cols);
  });
}

template <class T>
void execute(const MaxoutBackward& record, const Run& run) {
  run.each_rows(run.rows(record.in), [&](std::int64_t r, std::int64_t first, std::int64_t n) {
    kernels<T>().maxout_backward(
        run.matrix<T>(record.out, r, first), run.matrix<const T>(record.gradient, r, first),
        run.matrix<const T>(record.in, r, first), run.matrix<const T>(record.y, r, first), n,
        record.y.cols, record.in.cols / record.y.cols);
  });
}

// Where the operand's number of row or column `first` lies; null where there is none.
template <class T>
T* element(const Run& run, const Operand& operand, std::int64_t replica, std::int64_t first) {
  return operand ? run.data<T>(operand, replica) + first : nullptr;
}

template <class T>
void execute(const Statistics& record, const Run& run) {
  const std::int64_t rows = run.rows(record.in), cols = record.in.cols;
  auto share = [&](std::int64_t r, std::int64_t first, Rows<const T> x, std::int64_t m,
                   std::int64_t n) {
    kernels<T>().statistics(element<T>(run, record.mean, r, first),
                            element<T>(run, record.variance, r, first), x, m, n, record.by_row);
  };
  if (record.by_row)
    run.each_rows(rows, [&](std::int64_t r, std::int64_t first, std::int64_t n) {
      share(r, first, run.matrix<const T>(record.in, r, first), n, cols);
    });
  else
    each_columns(run, cols, [&](std::int64_t r, std::int64_t first, std::int64_t n) {
      share(r, first, run.matrix<const T>(from_column(record.in, first), r), rows, n);
    });
}

template <class T>
void execute(const Normalise& record, const Run& run) {
  run.each_rows(run.rows(record.in), [&](std::int64_t r, std::int64_t first, std::int64_t n) {
    const std::int64_t at = record.by_row ? first : 0;
    kernels<T>().normalise(
        run.matrix<T>(record.out, r, first), run.matrix<const T>(record.in, r, first),
        element<const T>(run, record.mean, r, at), element<const T>(run, record.variance, r, at),
        element<const T>(run, record.gamma, r, 0), element<const T>(run, record.beta, r, 0),
        record.epsilon, n, record.in.cols, record.by_row);
  });
}

template <class T>
void execute(const NormaliseSums& record, const Run& run) {
  each_columns(run, record.in.cols, [&](std::int64_t r, std::int64_t first, std::int64_t n) {
    const std::int64_t at = record.by_row ? 0 : first;
    kernels<T>().normalise_sums(
        element<T>(run, record.gamma, r, first), element<T>(run, record.beta, r, first),
        run.matrix<const T>(from_column(record.gradient, first), r),
        run.matrix<const T>(from_column(record.in, first), r),
        element<const T>(run, record.mean, r, at), element<const T>(run, record.variance, r, at),
        record.epsilon, run.rows(record.in), n, record.by_row);
  });
}

template <class T>
void execute(const NormaliseBackward& record, const Run& run) {
  const std::int64_t rows = run.rows(record.in);
  run.each_rows(rows, [&](std::int64_t r, std::int64_t first, std::int64_t n) {
    const std::int64_t at = record.by_row ? first : 0;
    kernels<T>().normalise_backward(
        run.matrix<T>(record.out, r, first), run.matrix<const T>(record.gradient, r, first),
        run.matrix<const T>(record.in, r, first), element<const T>(run, record.mean, r, at),
        element<const T>(run, record.variance, r, at), element<const T>(run, record.gamma, r, 0),
        element<const T>(run, record.gamma_sum, r, 0), element<const T>(run, record.beta_sum, r, 0),
        record.epsilon, n, record.in.cols, record.gamma_sum ? rows : 0, record.by_row);
  });
}

template <class T>
void execute(const MoveStatistics& record, const Run& run) {
  const std::int64_t rows = run.launch.rows;
  if (rows < 2) return;
  const T momentum = T(record.momentum), unbiased = T(double(rows) / double(rows - 1));
  run.each_replica([&](std::int64_t r) {
    T* const mean = run.data<T>(record.running_mean, r);
    T* const variance = run.data<T>(record.running_variance, r);
    for (std::int64_t j = 0; j < record.mean.cols; ++j) {
      mean[j] += momentum * (run.data<const T>(record.mean, r)[j] - mean[j]);
      variance[j] += momentum * (unbiased * run.data<const T>(record.variance, r)[j] - variance[j]);
    }
  });
}

template <class T>
void execute(const Dropout& record, const Run& run) {
  run.each_rows(run.rows(record.in), [&](std::int64_t r, std::int64_t first, std::int64_t n) {
    const StepState& state = run.state(r);
    kernels<T>().dropout(run.matrix<T>(record.out, r, first),
                         run.matrix<const T>(record.in, r, first), first, n, record.in.cols,
                         {state.seed, std::uint64_t(state.forward), record.layer, record.rate});
  });
}

template <class T>
Targets<T> targets(const Run& run, const Operand& target, std::int64_t replica,
                   std::int64_t first) {
  Targets<T> result;
  if (target.dtype == DType::int32)
    result.labels = run.matrix<const std::int32_t>(target, replica, first).data;
  else
    result.values = run.matrix<const T>(target, replica, first);
  return result;
}

template <class T>
void execute(const Loss& record, const Run& run) {
  const std::int64_t rows = run.rows(record.prediction);
  const double divisor = record.divisor != 0 ? record.divisor : double(rows);
  run.each_rows(rows, [&](std::int64_t r, std::int64_t first, std::int64_t n) {
    const T* weight = run.matrix<const T>(record.weight, r, first).data;
    kernels<T>().loss(
        run.matrix<T>(record.row_loss, r, first).data, run.matrix<T>(record.gradient, r, first),
        run.matrix<const T>(record.prediction, r, first), targets<T>(run, record.target, r, first),
        weight, n, record.prediction.cols, record.function, divisor);
  });
}

template <class T>
void execute(const Metric& record, const Run& run) {
  run.each_rows(run.rows(record.prediction),
                [&](std::int64_t r, std::int64_t first, std::int64_t n) {
                  kernels<T>().metric(run.matrix<T>(record.row_value, r, first).data,
                                      run.matrix<const T>(record.prediction, r, first),
                                      targets<T>(run, record.target, r, first), n,
                                      record.prediction.cols, record);
                });
}

// Where the sum decides whether the step goes on, every member takes it, so that all decide alike.
template <class T>
bool execute(const Accumulate& record, const Run& run) {
  bool go_on = true;
  if (!record.check && run.member != 0) return go_on;
  for (std::int64_t r = 0; r < run.replicas; ++r) {
    const T* value = run.data<const T>(record.in, r);
    double sum = 0;
    for (std::int64_t i = 0; i < run.rows(record.in); ++i) sum += double(value[i]);
    const bool counts = !record.check || std::isfinite(sum);
    if (run.member == 0) {
      if (counts)
        run.state(r).sums[record.slot] += sum;
      else
        run.state(r).not_finite = 1;
    }
    go_on = go_on && counts;
  }
  return go_on;
}

// As with Accumulate, every member takes the sum that decides.
template <class T>
bool execute(const Penalize& record, const Run& run) {
  const std::int64_t size = record.weights.cols, blocks = (size + norm_block - 1) / norm_block;
  run.each_task(blocks, [&](std::int64_t r, std::int64_t task) {
    const std::int64_t first = task * norm_block;
    kernels<T>().penalize(record.gradient ? run.data<T>(record.gradient, r) + first : nullptr,
                          record.partial ? run.data<double>(record.partial, r) + 2 * task : nullptr,
                          run.data<const T>(record.weights, r) + first,
                          std::min(norm_block, size - first), record.penalty);
  });
  if (!record.partial) return true;
  run.barrier.wait();
  bool go_on = true;
  for (std::int64_t r = 0; r < run.replicas; ++r) {
    const double* const partial = run.data<const double>(record.partial, r);
    double sizes = 0, squares = 0;
    for (std::int64_t i = 0; i < blocks; ++i) {
      sizes += partial[2 * i];
      squares += partial[2 * i + 1];
    }
    const double value = record.penalty(sizes, squares);
    if (run.member == 0) {
      run.state(r).penalty += value * double(run.launch.rows);
      if (!std::isfinite(value)) run.state(r).not_finite = 1;
    }
    go_on = go_on && std::isfinite(value);
  }
  return go_on;
}

template <class T>
void execute(const BeginForward&, const Run& run) {
  run.each_replica([&](std::int64_t r) { ++run.state(r).forward; });
}

template <class T>
void execute(const BeginUpdate& record, const Run& run) {
  const double* rates = static_cast<const double*>(run.launch.buffers[learning_rates]);
  run.each_replica([&](std::int64_t r) {
    StepState& state = run.state(r);
    begin_update(record.update, rates[state.schedule_index], state);
  });
}

template <class T>
void execute(const ClipNorm& record, const Run& run) {
  const std::int64_t size = record.gradient.cols, blocks = record.partial.cols;
  run.each_task(blocks, [&](std::int64_t r, std::int64_t task) {
    const std::int64_t first = task * norm_block;
    run.data<double>(record.partial, r)[task] = kernels<T>().sum_of_squares(
        run.data<const T>(record.gradient, r) + first, std::min(norm_block, size - first));
  });
  run.barrier.wait();
  run.each_replica([&](std::int64_t r) {
    double sum = 0;
    for (std::int64_t i = 0; i < blocks; ++i) sum += run.data<double>(record.partial, r)[i];
    const double scale = record.limit / (std::sqrt(sum) + 1e-6);  // as PyTorch's clip_grad_norm_
    run.state(r).gradient_scale = scale < 1 ? scale : 1;
  });
}

template <class T>
void execute(const ApplyUpdate&, const Updates& updates, const Run& run) {
  // A flat array is shared out by cache lines; a matrix of a user's own goes row by row.
  for (const ApplyUpdate& update : updates) {
    const Operand& all = update.parameter;
    auto apply_to = [&](std::int64_t r, std::int64_t row, std::int64_t first, std::int64_t n) {
      const T* const gradient = run.matrix<const T>(update.gradient, r)[row] + first;
      apply(update, run, r, row, first, n, gradient);
    };
    if (all.rows > 1)
      run.each_task(all.rows,
                    [&](std::int64_t r, std::int64_t row) { apply_to(r, row, 0, all.cols); });
    else
      run.each_lines(all.cols, [&](std::int64_t r, std::int64_t first, std::int64_t n) {
        apply_to(r, 0, first, n);
      });
  }
}

template <class T>
void execute(const EndStep&, const Run& run) {
  run.each_replica([&](std::int64_t r) {
    StepState& state = run.state(r);
    state.row += run.launch.rows;
    ++state.step;
    if (state.schedule_index + 1 < state.schedule_length) ++state.schedule_index;
  });
}

template <class T, class R>
bool execute_as(const Record& record, const Updates& updates, const Run& run) {
  const R& r = *std::get_if<R>(&record);
  if constexpr (std::is_same_v<R, MatMul> || std::is_same_v<R, ColumnSum> ||
                std::is_same_v<R, ApplyUpdate>) {
    execute<T>(r, updates, run);
    return true;
  } else if constexpr (std::is_same_v<decltype(execute<T>(r, run)), bool>) {
    return execute<T>(r, run);
  } else {
    execute<T>(r, run);
    return true;
  }
}

}  // namespace

template <class T>
Execute execute_of(const Record& record) {
  return std::visit(
      [](const auto& r) -> Execute { return execute_as<T, std::decay_t<decltype(r)>>; }, record);
}

template Execute execute_of<float>(const Record&);
template Execute execute_of<double>(const Record&);

}  // namespace fastmlp::cpu
