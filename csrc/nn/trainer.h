// Many training steps in one native call: as many as fit before the epoch's end or a deadline.
#pragma once

#include <cstdint>

#include "core/backend.h"

namespace fastmlp::nn {

struct TrainingCall {
  Launch launch;  // buffers, total_rows and stream
  std::int64_t batch_size = 1;
  std::int64_t max_steps = 0;
  double seconds = 0;
};

// Runs steps from StepState.row on and returns how many were completed. It stops at the end of the
// rows, after max_steps, when the time is up, or after a loss that is not finite; the last batch of
// an epoch may be short. Always ends at a step boundary.
std::int64_t train(Executable& step, Backend& backend, const TrainingCall& call);

}  // namespace fastmlp::nn
