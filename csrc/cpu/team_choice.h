// How many threads run a program: whichever number the clock favours. All give the same bits, so
// the choice may follow it: a small network, or a machine whose cores are busy, is left to one
// thread.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <limits>

#include "cpu/team.h"

namespace fastmlp::cpu {

// A model makes the first guess, before anything is measured; then the clock decides among 1, 2, 4,
// ... and the most threads there are: from time to time a neighbour of the number in use is tried,
// and takes its place if it is faster than that was just before. What was measured long ago counts
// for nothing, for a shared machine has quiet and busy minutes.
//
// Several Python threads may run one program at a time; what they lose to each other's updates is
// only a little of the statistics.
class TeamChoice {
 public:
  struct Plan {
    int level;  // place in the list of candidates
    int members;
    std::int64_t steps;  // how many to run before asking again
    enum { first, warm_up, trial, decision, ordinary } kind;
  };

  // A step has so many operations in matrix products; `repeat` steps follow one another. How many
  // barriers a step has is asked of `barriers` where the model needs it.
  template <class F>
  Plan next(int most, double operations, F&& barriers, std::int64_t repeat) {
    if (most_.exchange(most, relaxed) != most) seconds_.store(0, relaxed);
    const double step = seconds_.load(relaxed);
    if (step == 0) return plan(guess(most, operations, barriers(), repeat), most, 2, Plan::first);
    const int level = level_.load(relaxed);
    // A trial begins with a turn to wake threads and to move the parameters into their caches,
    // which long steps do not feel. Then one is enough to measure, unless the caller has only a
    // step or a few at a time.
    const int turn = until_trial_.fetch_sub(1, relaxed);
    if (turn > 1) return plan(level, most, steps(segment_seconds, step), Plan::ordinary);
    const std::int64_t wanted = steps(trial_seconds, step);
    if (turn == 1) {
      trial_.store(neighbour(level, count(most)), relaxed);
      least_.store(infinity, relaxed);
      return plan(trial_.load(relaxed), most, wanted,
                  step > long_step ? Plan::decision : Plan::warm_up);
    }
    const bool enough = repeat >= wanted || turn <= 1 - most_turns;
    return plan(trial_.load(relaxed), most, wanted, enough ? Plan::decision : Plan::trial);
  }

  void took(const Plan& plan, double seconds_per_step) {
    const double before = seconds_.load(relaxed);
    switch (plan.kind) {
      case Plan::first:
        // Caches were cold, so the guess gets a second turn before the first trial. Where steps are
        // so long that they are turns of their own, a trial costs much and the guess is good.
        settle(plan.level, seconds_per_step, soon(seconds_per_step) / 2);
        if (seconds_per_step <= long_step) until_trial_.store(2, relaxed);
        break;
      case Plan::warm_up: break;
      case Plan::trial:
      case Plan::decision: {
        // The least, since what it is compared with is near the least as well.
        const double least = std::min(seconds_per_step, least_.load(relaxed));
        least_.store(least, relaxed);
        if (plan.kind == Plan::trial) break;
        // The longer trials only confirm what was known, the rarer they get.
        if (least < 0.97 * before)
          settle(plan.level, least, soon(least));
        else
          settle(level_.load(relaxed), before, std::min(2 * interval_.load(relaxed), 1024));
        break;
      }
      case Plan::ordinary: {
        // Nothing makes a step faster than it is, so what is faster counts at once; a disturbance,
        // however long, only moves the average a little. Where it stays, the machine has changed.
        const double counts = std::min(seconds_per_step, 2 * before),
                     average = std::min(0.75 * before + 0.25 * counts, counts);
        seconds_.store(average, relaxed);
        const int interval = soon(average);
        if (average > 1.3 * settled_.load(relaxed) && until_trial_.load(relaxed) > interval)
          settle(plan.level, average, interval);
      }
    }
  }

 private:
  static constexpr auto relaxed = std::memory_order_relaxed;
  static constexpr double segment_seconds = 2e-3, trial_seconds = 4e-3, long_step = 1e-2;
  static constexpr int most_levels = 11;  // 1, 2, 4, ..., 1024
  static constexpr int most_turns = 8;    // of a trial
  static constexpr double infinity = std::numeric_limits<double>::infinity();

  // After how many segments a number that is new, or slower than it was, is doubted. Long steps are
  // segments of their own, and one by half of the threads costs as much as two.
  static int soon(double step) { return step > long_step ? 256 : 32; }

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

  void settle(int level, double seconds, int interval) {
    level_.store(level, relaxed);
    seconds_.store(seconds, relaxed);
    settled_.store(seconds, relaxed);
    interval_.store(interval, relaxed);
    until_trial_.store(interval, relaxed);
  }

  // Half as many and twice as many, by turns.
  int neighbour(int level, int levels) {
    const int other = level + (upwards_.fetch_xor(1, relaxed) ? 1 : -1);
    return other < 0 ? level + 1 : other == levels ? level - 1 : other;
  }

  std::atomic<int> level_{0};  // in use
  // Of a step on so many threads, of late and when that was settled; 0: nothing was measured yet.
  std::atomic<double> seconds_{0}, settled_{0};
  std::atomic<double> least_{infinity};  // of the trial that is under way
  std::atomic<int> most_{0}, trial_{0}, upwards_{0};
  std::atomic<int> until_trial_{0}, interval_{0};  // in segments
};

}  // namespace fastmlp::cpu
