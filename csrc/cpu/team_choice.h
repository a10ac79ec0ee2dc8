// Alone or with the team: whichever was faster of late. Both give the same bits, so the choice may
// follow the clock: a small network, or a machine whose cores are busy, is left to one thread.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>

namespace fastmlp::cpu {

// Several Python threads may run one program at a time; what they lose to each other's updates is
// only a little of the statistics.
class TeamChoice {
 public:
  struct Plan {
    bool team;
    std::int64_t steps;  // how many to run before asking again
    enum { warm_up, trial, ordinary } kind;
  };

  Plan next() {
    const double alone = seconds_[0].load(relaxed), team = seconds_[1].load(relaxed);
    if (alone == 0) return {false, 2, Plan::warm_up};
    const bool better = team != 0 && team < alone;
    const double best = better ? team : alone;
    // Now and then the other way, and at first: once to wake threads and to move the parameters
    // into their caches, once to measure.
    switch (until_trial_.fetch_sub(1, relaxed)) {
      case 1: return {!better, steps(trial_seconds, best), Plan::warm_up};
      case 0: return {!better, steps(trial_seconds, best), Plan::trial};
      default: return {better, steps(segment_seconds, best), Plan::ordinary};
    }
  }

  void took(const Plan& plan, double seconds_per_step) {
    std::atomic<double>& average = seconds_[plan.team];
    const double before = average.load(relaxed);
    // The average moves slowly, so that one disturbance decides nothing; a trial counts as it is.
    const bool moves = plan.kind == Plan::ordinary && before != 0;
    average.store(moves ? 0.75 * before + 0.25 * seconds_per_step : seconds_per_step, relaxed);
    if (plan.kind != Plan::trial) return;
    // The longer a trial only confirms what was known, the rarer the next.
    const bool confirmed = seconds_per_step > seconds_[!plan.team].load(relaxed);
    const int interval = confirmed ? std::min(2 * interval_.load(relaxed), 1024) : 32;
    interval_.store(interval, relaxed);
    until_trial_.store(interval, relaxed);
  }

 private:
  static constexpr auto relaxed = std::memory_order_relaxed;
  static constexpr double segment_seconds = 2e-3, trial_seconds = 4e-3;

  static std::int64_t steps(double seconds, double each) {
    return std::max<std::int64_t>(1, std::int64_t(seconds / each));
  }

  std::atomic<double> seconds_[2] = {};  // of a step: alone, with the team; 0: not tried yet
  std::atomic<int> until_trial_{1}, interval_{16};  // in segments
};

}  // namespace fastmlp::cpu
