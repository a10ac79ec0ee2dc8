// Sums, always in the same order, and what a step keeps count of.
#pragma once

#include <cmath>

#include "core/activation.h"
#include "core/penalty.h"
#include "core/update.h"
#include "cuda/execution.cuh"

namespace fastmlp::cuda {

template <class T>
FASTMLP_DEVICE void execute(const ColumnSum& record, const Block& block) {
  T* const out = block.data<T>(record.out);
  const auto in = block.matrix<const T>(record.in);
  const std::int64_t rows = block.rows(record.in);
  block.each_element(record.in.cols, [&](std::int64_t j) {
    T sum = T(0);
    for (std::int64_t i = 0; i < rows; ++i) sum += in[i][j];
    out[j] = sum;
  });
}

// out = the sum of so many matrices in the scratch memory, in their order: parts of a longer sum.
struct FoldParts {
  Operand out;
  std::int64_t count;
};

template <class T>
FASTMLP_DEVICE void execute(const FoldParts& record, const Block& block) {
  const auto out = block.matrix<T>(record.out);
  const std::int64_t rows = record.out.rows, cols = record.out.cols;
  const T* const parts = static_cast<const T*>(block.context.buffers[Context::scratch]);
  block.each_cell(rows, cols, [&](std::int64_t i, std::int64_t j) {
    T sum = T(0);
    for (std::int64_t part = 0; part < record.count; ++part)
      sum += parts[(part * rows + i) * cols + j];
    out[i][j] = sum;
  });
}

template <class T>
FASTMLP_DEVICE void execute(const PreluSlope& record, const Block& block) {
  T* const out = block.data<T>(record.out);
  const auto dy = block.matrix<const T>(record.gradient), x = block.matrix<const T>(record.in);
  const std::int64_t rows = block.rows(record.in), cols = record.in.cols;
  auto of_column = [&](std::int64_t j) {
    T sum = T(0);
    for (std::int64_t i = 0; i < rows; ++i)
      sum = fma(dy[i][j], ParametricRelu::slope_derivative(x[i][j]), sum);
    return sum;
  };
  if (record.out.cols == cols)
    return block.each_element(cols, [&](std::int64_t j) { out[j] = of_column(j); });
  if (block.index != 0) return;  // one slope for all columns
  double sum = 0;
  for (std::int64_t j = block.thread(); j < cols; j += threads) sum += double(of_column(j));
  sum = block_sum(sum);
  block.once([&] { *out = T(sum); });
}

// One block takes the sum, so that the record is one kernel.
template <class T>
FASTMLP_DEVICE void execute(const Accumulate& record, const Block& block) {
  if (block.index != 0) return;
  const T* const value = block.data<const T>(record.in);
  double sum = 0;
  for (std::int64_t i = block.thread(); i < block.rows(record.in); i += threads)
    sum += double(value[i]);
  sum = block_sum(sum);
  block.once([&] {
    if (!record.check || std::isfinite(sum))
      block.state().sums[record.slot] += sum;
    else
      block.state().not_finite = 1;
  });
}

template <class T>
FASTMLP_DEVICE void execute(const ClipNorm& record, const Block& block) {
  const T* const gradient = block.data<const T>(record.gradient);
  const std::int64_t size = record.gradient.cols;
  block.each_task(record.partial.cols, [&](std::int64_t task) {
    const std::int64_t first = task * norm_block;
    const std::int64_t end = first + norm_block < size ? first + norm_block : size;
    T sum = T(0);
    for (std::int64_t i = first + block.thread(); i < end; i += threads)
      sum = fma(gradient[i], gradient[i], sum);
    const double all = block_sum(double(sum));
    if (block.thread() == 0) block.data<double>(record.partial)[task] = all;
  });
}

// The rest of ClipNorm, which needs all its partial sums.
struct FinishClipNorm { ClipNorm clip; };

template <class T>
FASTMLP_DEVICE void execute(const FinishClipNorm& record, const Block& block) {
  block.once([&] {
    double sum = 0;
    for (std::int64_t i = 0; i < record.clip.partial.cols; ++i)
      sum += block.data<const double>(record.clip.partial)[i];
    const double scale = record.clip.limit / (std::sqrt(sum) + 1e-6);
    block.state().gradient_scale = scale < 1 ? scale : 1;
  });
}

template <class T>
FASTMLP_DEVICE void execute(const Penalize& record, const Block& block) {
  const T* const weights = block.data<const T>(record.weights);
  T* const gradient = block.data<T>(record.gradient);
  double* const partial = block.data<double>(record.partial);
  const std::int64_t size = record.weights.cols;
  const PenaltyGradient<T> derivative(record.penalty);
  block.each_task((size + norm_block - 1) / norm_block, [&](std::int64_t task) {
    const std::int64_t first = task * norm_block;
    const std::int64_t end = first + norm_block < size ? first + norm_block : size;
    T sizes = T(0), squares = T(0);
    for (std::int64_t i = first + block.thread(); i < end; i += threads) {
      const T w = weights[i];
      sizes += absolute(w);
      squares = fma(w, w, squares);
      if (gradient) gradient[i] += derivative(w);
    }
    if (!partial) return;
    const double all_sizes = block_sum(double(sizes)), all_squares = block_sum(double(squares));
    if (block.thread() == 0) {
      partial[2 * task] = all_sizes;
      partial[2 * task + 1] = all_squares;
    }
  });
}

// The rest of Penalize, which needs all its partial sums.
struct FinishPenalize { Penalize penalize; };

template <class T>
FASTMLP_DEVICE void execute(const FinishPenalize& record, const Block& block) {
  const Operand& of = record.penalize.partial;
  block.once([&] {
    const double* const partial = block.data<const double>(of);
    double sizes = 0, squares = 0;
    for (std::int64_t i = 0; i < of.cols; i += 2) {
      sizes += partial[i];
      squares += partial[i + 1];
    }
    const double value = record.penalize.penalty(sizes, squares);
    block.state().penalty += value * double(block.context.rows);
    if (!std::isfinite(value)) block.state().not_finite = 1;
  });
}

template <class T>
FASTMLP_DEVICE void execute(const BeginForward&, const Block& block) {
  block.once([&] { ++block.state().forward; });
}

template <class T>
FASTMLP_DEVICE void execute(const BeginUpdate& record, const Block& block) {
  block.once([&] {
    const double* const rates = static_cast<const double*>(block.context.buffers[learning_rates]);
    StepState& state = block.state();
    begin_update(record.update, rates[state.schedule_index], state);
  });
}

template <class T>
FASTMLP_DEVICE void execute(const EndStep&, const Block& block) {
  block.once([&] {
    StepState& state = block.state();
    state.row += block.context.rows;
    ++state.step;
    if (state.schedule_index + 1 < state.schedule_length) ++state.schedule_index;
  });
}

}  // namespace fastmlp::cuda
