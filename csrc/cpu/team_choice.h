// How many threads run a program: whichever number was fastest of late. All give the same bits, so
// the choice may follow the clock: a small network, or a machine whose cores are busy, is left to
// one thread.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>

#include "cpu/team.h"

namespace fastmlp::cpu {

// A model makes the first guess, before anything is measured; then the clock decides among 1, 2, 4,
// ... and the most threads there are, from time to time between the best and a neighbour of it.
//
// Several Python threads may run one program at a time; what they lose to each other's updates is
// only a little of the statistics.
class TeamChoice {
 public:
  struct Plan {
    int level;  // place in the list of candidates
    int members;
    std::int64_t steps;  // how many to run before asking again
    enum { first, warm_up, trial, ordinary } kind;
  };

  // A step has so many operations in matrix products; `repeat` steps follow one another. How many
  // barriers a step has is asked of `barriers` where the model needs it.
  template <class F>
  Plan next(int most, double operations, F&& barriers, std::int64_t repeat) {
    const int levels = count(most);
    if (most_.exchange(most, relaxed) != most) {
      for (auto& seconds : seconds_) seconds.store(0, relaxed);
      until_trial_.store(1, relaxed);
    }
    const int best = fastest(levels);
    if (best < 0) return plan(guess(most, operations, barriers(), repeat), most, 2, Plan::first);
    const double step = seconds_[best].load(relaxed);
    // A trial is two turns: one to wake threads and to move the parameters into their caches, one
    // to measure.
    switch (until_trial_.fetch_sub(1, relaxed)) {
      case 1:
        trial_.store(neighbour(best, levels), relaxed);
        return plan(trial_.load(relaxed), most, steps(trial_seconds, step), Plan::warm_up);
      case 0: return plan(trial_.load(relaxed), most, steps(trial_seconds, step), Plan::trial);
      default: return plan(best, most, steps(segment_seconds, step), Plan::ordinary);
    }
  }

  void took(const Plan& plan, double seconds_per_step) {
    std::atomic<double>& average = seconds_[plan.level];
    const double before = average.load(relaxed);
    // Nothing makes a step faster than it is, so what is faster counts at once; a disturbance only
    // moves the average a little. A trial counts as it is.
    const bool disturbed = plan.kind == Plan::ordinary && before != 0 && seconds_per_step > before;
    average.store(disturbed ? 0.75 * before + 0.25 * seconds_per_step : seconds_per_step, relaxed);
    if (plan.kind == Plan::first) {
      // Caches were cold, so the guess gets a second turn before the first trial. Where steps are
      // so long that they are turns of their own, a trial costs much and the guess is good.
      until_trial_.store(seconds_per_step > long_step ? 32 : 2, relaxed);
    }
    if (plan.kind != Plan::trial) return;
    // The longer trials only confirm what was known, the rarer they get.
    const bool confirmed = fastest(most_levels) != plan.level;
    const int interval = confirmed ? std::min(2 * interval_.load(relaxed), 1024) : 32;
    interval_.store(interval, relaxed);
    until_trial_.store(interval, relaxed);
  }

 private:
  static constexpr auto relaxed = std::memory_order_relaxed;
  static constexpr double segment_seconds = 2e-3, trial_seconds = 4e-3, long_step = 1e-2;
  static constexpr int most_levels = 11;  // 1, 2, 4, ..., 1024

  static int count(int most) {
    int levels = 1;
    while (levels < most_levels && (1 << (levels - 1)) < most) ++levels;
    return levels;
  }
  static Plan plan(int level, int most, std::int64_t steps, decltype(Plan::kind) kind) {
    return {level, std::min(1 << level, most), steps, kind};
  }
  static std::int64_t steps(double seconds, double each) {
    return std::max<std::int64_t>(1, std::int64_t(seconds / each));
  }

  // Work shared evenly, the barriers, and what it takes to start threads or wake them. The rate is
  // a usual core's; where it is far off, either barriers or work hardly matter.
  static int guess(int most, double operations, double barriers, std::int64_t repeat) {
    constexpr double operations_per_second = 1e11, wake_seconds = 3e-4, slow_barrier = 5e-6;
    const double alone = operations / operations_per_second;
    int best = 0;
    double least = alone;
    for (int level = 1; level < count(most); ++level) {
      const int members = std::min(1 << level, most);
      const double shared = alone / members + wake_seconds / double(repeat);
      if (shared >= least) continue;
      // A barrier is only measured where it decides.
      const double slow = shared + barriers * slow_barrier;
      const double seconds = slow < least ? slow : shared + barriers * barrier_seconds(members);
      if (seconds < least) least = seconds, best = level;
    }
    return best;
  }

  // -1 where nothing has been measured.
  int fastest(int levels) const {
    int best = -1;
    double least = 0;
    for (int level = 0; level < levels; ++level) {
      const double seconds = seconds_[level].load(relaxed);
      if (seconds != 0 && (best < 0 || seconds < least)) least = seconds, best = level;
    }
    return best;
  }

  // Half as many and twice as many, by turns.
  int neighbour(int best, int levels) {
    const int other = best + (upwards_.fetch_xor(1, relaxed) ? 1 : -1);
    return other < 0 ? best + 1 : other == levels ? best - 1 : other;
  }

  std::atomic<double> seconds_[most_levels] = {};  // of a step; 0: not tried yet
  std::atomic<int> most_{0}, trial_{0}, upwards_{0};
  std::atomic<int> until_trial_{1}, interval_{16};  // in segments
};

}  // namespace fastmlp::cpu
