// What goes element by element: activations, dropout, copies, the gather of a batch, updates.
#pragma once

#include <cstring>

#include "core/activation.h"
#include "core/random.h"
#include "core/update.h"
#include "cuda/execution.cuh"

namespace fastmlp::cuda {

// What a thread does with one element of a matrix.
template <class T>
FASTMLP_DEVICE T activated(T x, const Activation& activation) {
  T y = x;
  Functions::visit(activation.index,
                   [&](auto kind) { y = decltype(kind)::forward(x, T(activation.parameter)); });
  return y;
}
template <class T>
FASTMLP_DEVICE T slope(T kept, const Activation& activation) {
  T y = kept;
  Activations::visit(activation.index, [&](auto kind) {
    y = decltype(kind)::derivative(kept, T(activation.parameter));
  });
  return y;
}

template <class T>
FASTMLP_DEVICE void execute(const Copy& record, const Block& block) {
  const auto out = block.matrix<T>(record.out);
  const auto in = block.matrix<const T>(record.in);
  block.each_cell(block.rows(record.out), record.out.cols,
                  [&](std::int64_t i, std::int64_t j) { out[i][j] = in[i][j]; });
}

template <class T>
FASTMLP_DEVICE void execute(const BiasAdd& record, const Block& block) {
  const auto out = block.matrix<T>(record.out);
  const auto in = block.matrix<const T>(record.in);
  const T* bias = block.data<const T>(record.bias);
  block.each_cell(block.rows(record.in), record.in.cols,
                  [&](std::int64_t i, std::int64_t j) { out[i][j] = in[i][j] + bias[j]; });
}

template <class T>
FASTMLP_DEVICE void execute(const ActivationForward& record, const Block& block) {
  const auto out = block.matrix<T>(record.out);
  const auto in = block.matrix<const T>(record.in);
  block.each_cell(block.rows(record.in), record.in.cols, [&](std::int64_t i, std::int64_t j) {
    out[i][j] = activated(in[i][j], record.activation);
  });
}

template <class T>
FASTMLP_DEVICE void execute(const ActivationBackward& record, const Block& block) {
  const auto out = block.matrix<T>(record.out);
  const auto gradient = block.matrix<const T>(record.gradient),
             kept = block.matrix<const T>(record.kept);
  block.each_cell(block.rows(record.gradient), record.gradient.cols,
                  [&](std::int64_t i, std::int64_t j) {
                    out[i][j] = gradient[i][j] * slope(kept[i][j], record.activation);
                  });
}

template <class T>
FASTMLP_DEVICE void execute(const Prelu& record, const Block& block) {
  const auto y = block.matrix<T>(record.out);
  const auto x = block.matrix<const T>(record.in);
  const T* const slope = block.data<const T>(record.slope);
  const bool shared = record.slope.cols < record.in.cols;
  block.each_cell(block.rows(record.in), record.in.cols, [&](std::int64_t i, std::int64_t j) {
    y[i][j] = ParametricRelu::forward(x[i][j], slope[shared ? 0 : j]);
  });
}

template <class T>
FASTMLP_DEVICE void execute(const PreluBackward& record, const Block& block) {
  const auto dx = block.matrix<T>(record.out);
  const auto dy = block.matrix<const T>(record.gradient), x = block.matrix<const T>(record.in);
  const T* const slope = block.data<const T>(record.slope);
  const bool shared = record.slope.cols < record.in.cols;
  block.each_cell(block.rows(record.in), record.in.cols, [&](std::int64_t i, std::int64_t j) {
    dx[i][j] = dy[i][j] * ParametricRelu::derivative(x[i][j], slope[shared ? 0 : j]);
  });
}

// As on the CPU: NaN stays, and is taken.
template <class T>
FASTMLP_DEVICE void execute(const Maxout& record, const Block& block) {
  const auto y = block.matrix<T>(record.out);
  const auto x = block.matrix<const T>(record.in);
  const std::int64_t cols = record.out.cols;
  block.each_cell(block.rows(record.in), cols, [&](std::int64_t i, std::int64_t j) {
    T top = x[i][j];
    for (std::int64_t at = j + cols; at < record.in.cols; at += cols)
      if (top == top && !(top >= x[i][at])) top = x[i][at];
    y[i][j] = top;
  });
}

template <class T>
FASTMLP_DEVICE void execute(const MaxoutBackward& record, const Block& block) {
  const auto dx = block.matrix<T>(record.out);
  const auto dy = block.matrix<const T>(record.gradient), x = block.matrix<const T>(record.in),
             y = block.matrix<const T>(record.y);
  const std::int64_t cols = record.y.cols;
  block.each_cell(block.rows(record.in), cols, [&](std::int64_t i, std::int64_t j) {
    const T top = y[i][j];
    T left = top == top ? dy[i][j] : top;
    for (std::int64_t at = j; at < record.in.cols; at += cols) {
      const bool largest = x[i][at] >= top;
      dx[i][at] = largest ? left : left * T(0);
      if (largest) left *= T(0);
    }
  });
}

// A lane takes four numbers of the mask at a time, a block of Philox; that of a row's end may also
// hold the next row's first.
template <class T>
FASTMLP_DEVICE void execute(const Dropout& record, const Block& block) {
  const StepState& state = block.state();
  const std::int64_t cols = record.in.cols;
  const auto out = block.matrix<T>(record.out);
  const auto in = block.matrix<const T>(record.in);
  const std::uint32_t threshold = keep_threshold(record.rate);
  const T scale = T(1 / (1 - record.rate));
  const std::uint64_t stream =
      random_stream(Purpose::dropout, record.layer << 44 | std::uint64_t(state.forward));
  block.each_row(block.rows(record.in), [&](std::int64_t row) {
    const std::int64_t first = row * cols, end = first + cols;  // of the row's numbers
    for (std::int64_t four = first / 4 + block.lane(); 4 * four < end; four += warp) {
      const Philox random(state.seed, std::uint64_t(four), stream);
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const std::int64_t col = 4 * four + i - first;
        if (col < 0 || col >= cols) continue;
        const T value = in[row][col];
        out[row][col] = random.word[i] < threshold ? value * scale : value * T(0);
      }
    }
  });
}

// A row's elements of 4 or 8 bytes, by the lanes of a warp.
FASTMLP_DEVICE void copy_row(const Block& block, const Operand& to, const Operand& from,
                             std::int64_t row, std::int64_t source) {
  if (to.buffer < 0) return;
  if (to.dtype == DType::float64) {
    const double* const in = block.matrix<const double>(from)[source];
    double* const out = block.matrix<double>(to)[row];
    block.each_column(to.cols, [&](std::int64_t j) { out[j] = in[j]; });
  } else {
    const std::uint32_t* const in = block.matrix<const std::uint32_t>(from)[source];
    std::uint32_t* const out = block.matrix<std::uint32_t>(to)[row];
    block.each_column(to.cols, [&](std::int64_t j) { out[j] = in[j]; });
  }
}

template <class T>
FASTMLP_DEVICE void execute(const Gather& record, const Block& block) {
  const StepState& state = block.state();
  const Permutation order(std::uint64_t(block.context.total_rows), state.seed,
                          std::uint64_t(state.epoch));
  block.each_row(block.context.rows, [&](std::int64_t row) {
    std::int64_t source = state.row + row;
    if (record.shuffled) source = std::int64_t(order(std::uint64_t(source)));
    copy_row(block, record.x, record.from_x, row, source);
    copy_row(block, record.target, record.from_target, row, source);
    copy_row(block, record.weight, record.from_weight, row, source);
  });
}

template <class T>
FASTMLP_DEVICE void execute(const ApplyUpdate& record, const Block& block) {
  const StepState& state = block.state();
  const auto p = block.matrix<T>(record.parameter);
  const auto g = block.matrix<const T>(record.gradient);
  const auto m = block.matrix<T>(record.moment[0]), v = block.matrix<T>(record.moment[1]),
             v_max = block.matrix<T>(record.moment[2]);
  const std::int64_t rows = record.parameter.rows, cols = record.parameter.cols;
  if (record.update.rule == UpdateRule::sgd) {
    const SgdStep<T> step(record.update, state);
    block.each_cell(rows, cols, [&](std::int64_t i, std::int64_t j) {
      p[i][j] = m ? step(p[i][j], g[i][j], m[i][j]) : step(p[i][j], g[i][j]);
    });
  } else {
    const AdamStep<T> step(record.update, state);
    block.each_cell(rows, cols, [&](std::int64_t i, std::int64_t j) {
      T parameter = p[i][j];
      parameter = v_max ? step(parameter, g[i][j], m[i][j], v[i][j], v_max[i][j])
                        : step(parameter, g[i][j], m[i][j], v[i][j]);
      p[i][j] = parameter;
    });
  }
}

}  // namespace fastmlp::cuda
