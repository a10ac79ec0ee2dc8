#include "nn/trainer.h"

#include <algorithm>
#include <chrono>
#include <vector>

namespace fastmlp::nn {

std::int64_t train(Executable& step, Backend& backend, const TrainingCall& call) {
  using Clock = std::chrono::steady_clock;
  const Clock::time_point start = Clock::now();
  Launch launch = call.launch;
  std::vector<StepState> states(std::size_t(step.program().replicas));
  auto read_states = [&] {
    backend.read(states.data(), launch.buffers[step_state], states.size() * sizeof(StepState),
                 launch.stream);
  };
  auto stopped = [&] {  // all networks stop where the loss of one is not finite
    return std::any_of(states.begin(), states.end(),
                       [](const StepState& state) { return state.not_finite != 0; });
  };

  read_states();
  const StepState& state = states.front();  // all of them are at the same row and step
  const std::int64_t first_step = state.step;
  std::int64_t chunk = 1;
  for (;;) {
    const std::int64_t done = state.step - first_step, left = launch.total_rows - state.row;
    if (left <= 0 || done >= call.max_steps || stopped()) return done;
    const std::chrono::duration<double> elapsed = Clock::now() - start;
    if (done > 0) {
      // The deadline is looked at between chunks, each half of what should be left, and met
      // roughly: a backend does better with few long chunks than with many that get shorter and
      // shorter.
      constexpr double nearly = 0.85;
      const double each = elapsed.count() / double(done);
      if (elapsed.count() >= nearly * call.seconds) return done;
      chunk = std::max<std::int64_t>(1, std::int64_t((call.seconds - elapsed.count()) / each / 2));
    }
    const std::int64_t whole = left / call.batch_size;
    launch.rows = whole > 0 ? call.batch_size : left;
    launch.repeat = whole > 0 ? std::min({whole, chunk, call.max_steps - done}) : 1;
    step.run(launch);
    read_states();
  }
}

}  // namespace fastmlp::nn
