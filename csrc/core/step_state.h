// What varies from step to step, as one record in the device's memory for each replica.
//
// It is never an argument of a kernel, so a captured graph can be replayed, and it is what a file
// saves, so a resumed run goes on with the same numbers. Python reads and writes it by field name.
#pragma once

#include <cstdint>

namespace fastmlp {

struct StepState {
  static constexpr int max_sums = 8;  // the loss, then the metrics

  // Of the model.
  std::uint64_t seed;
  std::int64_t epoch;    // epochs trained in the model's lifetime: keys the order of rows
  std::int64_t forward;  // training forward passes so far: keys dropout

  // Of the optimizer.
  std::int64_t step;  // updates so far

  // Of the current epoch.
  std::int64_t row;             // where the next batch starts
  std::int64_t schedule_index;  // which of the given learning rates comes next
  std::int64_t schedule_length;
  double sums[max_sums];    // over the rows seen
  double penalty;           // of the weights at each step, times its rows
  std::int64_t not_finite;  // the last loss was NaN or infinite; its update was not made

  // Of the current step: what the update needs, derived from the fields above.
  double learning_rate;
  double step_size;       // Adam: the learning rate with both bias corrections
  double epsilon;         // Adam: epsilon times the second moment's correction
  double gradient_scale;  // from clipping by norm
};

}  // namespace fastmlp
