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
    bool probe;          // looking whether the slower way still is the slower one
  };

  Plan next() {
    const double alone = seconds_[0].load(relaxed), team = seconds_[1].load(relaxed);
    if (alone == 0) return {false, 2, true};
    if (team == 0) return {true, 2, true};
    const bool better = team < alone;
    const bool probe = segments_.fetch_add(1, relaxed) % segments_between_probes == 0;
    const double length = probe ? probe_seconds : segment_seconds;
    const bool chosen = probe ? !better : better;
    return {chosen, std::max<std::int64_t>(1, std::int64_t(length / (chosen ? team : alone))),
            probe};
  }

  // The average moves slowly, so that one disturbance decides nothing; a probe counts as it is.
  void took(const Plan& plan, double seconds_per_step) {
    std::atomic<double>& average = seconds_[plan.team];
    const double before = average.load(relaxed);
    average.store(plan.probe ? seconds_per_step : 0.75 * before + 0.25 * seconds_per_step, relaxed);
  }

 private:
  static constexpr auto relaxed = std::memory_order_relaxed;
  static constexpr double segment_seconds = 2e-3, probe_seconds = 5e-4;
  static constexpr unsigned segments_between_probes = 32;

  std::atomic<double> seconds_[2] = {};  // of a step: alone, with the team; 0: not tried yet
  std::atomic<unsigned> segments_{1};
};

}  // namespace fastmlp::cpu
