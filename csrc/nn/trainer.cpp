#include "nn/trainer.h"

#include <algorithm>
#include <chrono>

namespace fastmlp::nn {

std::int64_t train(Executable& step, Backend& backend, const TrainingCall& call) {
  using Clock = std::chrono::steady_clock;
  const Clock::time_point start = Clock::now();
  Launch launch = call.launch;
  auto read_state = [&] {
    StepState state;
    backend.read(&state, launch.buffers[step_state], sizeof state, launch.stream);
    return state;
  };

  StepState state = read_state();
  const std::int64_t first_step = state.step;
  std::int64_t chunk = 1;
  for (;;) {
    const std::int64_t done = state.step - first_step, left = launch.total_rows - state.row;
    if (left <= 0 || done >= call.max_steps || state.not_finite) return done;
    const std::chrono::duration<double> elapsed = Clock::now() - start;
    if (done > 0) {
      // The deadline is looked at between chunks, each a quarter of what should be left.
      const double each = elapsed.count() / double(done);
      if (elapsed.count() >= call.seconds) return done;
      chunk = std::max<std::int64_t>(1, std::int64_t((call.seconds - elapsed.count()) / each / 4));
    }
    const std::int64_t whole = left / call.batch_size;
    launch.rows = whole > 0 ? call.batch_size : left;
    launch.repeat = whole > 0 ? std::min({whole, chunk, call.max_steps - done}) : 1;
    step.run(launch);
    state = read_state();
  }
}

}  // namespace fastmlp::nn
