// The share of the CPUs that the system's administrator, or a container, leaves to this process.
#pragma once

#include <string>

namespace fastmlp::cpu {

// How many CPUs the control groups of this process allow it to keep busy; 0 where they do not limit
// it. Rounded down, but for 1 at least: threads that wait for one another at barriers all lose when
// the system stops one of them. Files are looked up under `root`.
int quota_cpus(const std::string& root = "");

}  // namespace fastmlp::cpu
