// Batch and layer normalisation: a thread to a column, which lies beside the next one's, or a warp
// to a row. Sums over rows are taken in blocks of rows, as on the CPU.
#pragma once

#include "cuda/execution.cuh"

namespace fastmlp::cuda {

// The sum of f(i) over the rows i.
template <class T, class F>
FASTMLP_DEVICE T sum_over_rows(std::int64_t rows, F&& f) {
  constexpr std::int64_t block = 64;
  T sum = T(0);
  for (std::int64_t first = 0; first < rows; first += block) {
    const std::int64_t end = rows - first < block ? rows : first + block;
    T part = T(0);
    for (std::int64_t i = first; i < end; ++i) part += f(i);
    sum += part;
  }
  return sum;
}

// The mean of f(j) over the columns j of a row; every lane of the warp gets it.
template <class T, class F>
FASTMLP_DEVICE T mean_over_columns(const Block& block, std::int64_t cols, F&& f) {
  T sum = T(0);
  block.each_column(cols, [&](std::int64_t j) { sum += f(j); });
  return warp_sum(sum) / T(cols);
}

template <class T>
FASTMLP_DEVICE void execute(const Statistics& record, const Block& block) {
  const auto x = block.matrix<const T>(record.in);
  T* const mean = block.data<T>(record.mean);
  T* const variance = block.data<T>(record.variance);
  const std::int64_t rows = block.rows(record.in), cols = record.in.cols;
  auto square = [](T d) { return d * d; };
  if (record.by_row) {
    block.each_row(rows, [&](std::int64_t i) {
      const T m = mean_over_columns<T>(block, cols, [&](std::int64_t j) { return x[i][j]; });
      const T v =
          mean_over_columns<T>(block, cols, [&](std::int64_t j) { return square(x[i][j] - m); });
      if (block.lane() == 0) mean[i] = m, variance[i] = v;
    });
  } else {
    block.each_element(cols, [&](std::int64_t j) {
      const T m = sum_over_rows<T>(rows, [&](std::int64_t i) { return x[i][j]; }) / T(rows);
      mean[j] = m;
      variance[j] =
          sum_over_rows<T>(rows, [&](std::int64_t i) { return square(x[i][j] - m); }) / T(rows);
    });
  }
}

// Elements of one matrix, normalised by the statistics of rows or of columns.
template <class T>
struct Normal {
  Rows<const T> x;
  const T *mean, *variance;
  T epsilon;
  bool by_row;

  template <class R>
  FASTMLP_DEVICE Normal(const R& record, const Block& block)
      : x(block.matrix<const T>(record.in)),
        mean(block.data<const T>(record.mean)),
        variance(block.data<const T>(record.variance)),
        epsilon(record.epsilon),
        by_row(record.by_row) {}

  FASTMLP_DEVICE T inverse(std::int64_t i, std::int64_t j) const {
    return T(1) / sqrt(variance[by_row ? i : j] + epsilon);
  }
  FASTMLP_DEVICE T operator()(std::int64_t i, std::int64_t j) const {
    return (x[i][j] - mean[by_row ? i : j]) * inverse(i, j);
  }
};

template <class T>
FASTMLP_DEVICE void execute(const Normalise& record, const Block& block) {
  const Normal<T> normal(record, block);
  const auto y = block.matrix<T>(record.out);
  const T *gamma = block.data<const T>(record.gamma), *beta = block.data<const T>(record.beta);
  block.each_cell(block.rows(record.in), record.in.cols, [&](std::int64_t i, std::int64_t j) {
    const T value = normal(i, j);
    y[i][j] = gamma ? fma(value, gamma[j], beta[j]) : value;
  });
}

template <class T>
FASTMLP_DEVICE void execute(const NormaliseSums& record, const Block& block) {
  const Normal<T> normal(record, block);
  const auto dy = block.matrix<const T>(record.gradient);
  T *gamma = block.data<T>(record.gamma), *beta = block.data<T>(record.beta);
  const std::int64_t rows = block.rows(record.in);
  block.each_element(record.in.cols, [&](std::int64_t j) {
    gamma[j] = sum_over_rows<T>(rows, [&](std::int64_t i) { return dy[i][j] * normal(i, j); });
    beta[j] = sum_over_rows<T>(rows, [&](std::int64_t i) { return dy[i][j]; });
  });
}

template <class T>
FASTMLP_DEVICE void execute(const NormaliseBackward& record, const Block& block) {
  const Normal<T> normal(record, block);
  const auto dx = block.matrix<T>(record.out);
  const auto dy = block.matrix<const T>(record.gradient);
  const T* const gamma = block.data<const T>(record.gamma);
  const std::int64_t rows = block.rows(record.in), cols = record.in.cols;
  auto h = [&](std::int64_t i, std::int64_t j) { return gamma ? dy[i][j] * gamma[j] : dy[i][j]; };
  if (record.by_row) {
    block.each_row(rows, [&](std::int64_t i) {
      const T mean = mean_over_columns<T>(block, cols, [&](std::int64_t j) { return h(i, j); });
      const T product =
          mean_over_columns<T>(block, cols, [&](std::int64_t j) { return h(i, j) * normal(i, j); });
      block.each_column(cols, [&](std::int64_t j) {
        dx[i][j] = (h(i, j) - mean - normal(i, j) * product) * normal.inverse(i, j);
      });
    });
    return;
  }
  const T* const gamma_sum = block.data<const T>(record.gamma_sum);
  const T* const beta_sum = block.data<const T>(record.beta_sum);
  block.each_cell(rows, cols, [&](std::int64_t i, std::int64_t j) {
    const T inverse = normal.inverse(i, j);
    T value = h(i, j) * inverse;
    if (gamma_sum) {
      const T factor = gamma ? gamma[j] * inverse : inverse;
      value -= factor * (beta_sum[j] + normal(i, j) * gamma_sum[j]) / T(rows);
    }
    dx[i][j] = value;
  });
}

template <class T>
FASTMLP_DEVICE void execute(const MoveStatistics& record, const Block& block) {
  const std::int64_t rows = block.context.rows;
  if (rows < 2) return;
  T* const mean = block.data<T>(record.running_mean);
  T* const variance = block.data<T>(record.running_variance);
  const T *batch_mean = block.data<const T>(record.mean),
          *batch_variance = block.data<const T>(record.variance);
  const T momentum = T(record.momentum), unbiased = T(double(rows) / double(rows - 1));
  block.each_element(record.mean.cols, [&](std::int64_t j) {
    mean[j] += momentum * (batch_mean[j] - mean[j]);
    variance[j] += momentum * (unbiased * batch_variance[j] - variance[j]);
  });
}

}  // namespace fastmlp::cuda
