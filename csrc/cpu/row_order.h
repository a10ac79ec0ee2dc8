// The order of an epoch's rows, worked out some places ahead: in a small network a step needs only
// a few, and working out many at a time keeps the processor's pipelines full.
#pragma once

#include <algorithm>
#include <cstdint>

#include "core/random.h"
#include "core/step_state.h"
#include "cpu/kernels.h"

namespace fastmlp::cpu {

// What one member of a team knows of one replica's order.
class RowOrder {
 public:
  static constexpr std::int64_t most = 256;

  // The rows at `n` <= most places from `first` on, of `total`. They hold until the next call.
  const std::int64_t* rows(const StepState& state, std::int64_t total, std::int64_t first,
                           std::int64_t n, bool ahead) {
    if (state.seed != seed_ || state.epoch != epoch_ || total != total_) {
      permutation_ = Permutation(std::uint64_t(total), state.seed, std::uint64_t(state.epoch));
      seed_ = state.seed;
      epoch_ = state.epoch;
      total_ = total;
      begin_ = end_ = 0;
    }
    if (first < begin_ || first + n > end_) {
      begin_ = first;
      end_ = std::min(total, first + (ahead ? most : n));
      kernels<float>().permute(rows_, begin_, end_ - begin_, permutation_);
    }
    return rows_ + (first - begin_);
  }

 private:
  Permutation permutation_{1, 0, 0};
  std::uint64_t seed_ = 0;
  std::int64_t epoch_ = 0, total_ = 0, begin_ = 0, end_ = 0;
  std::int64_t rows_[most];
};

}  // namespace fastmlp::cpu
