#include "cpu/quota.h"

#include <algorithm>
#include <fstream>
#include <sstream>

namespace fastmlp::cpu {
namespace {

double number_in(const std::string& path) {
  double value = 0;
  std::ifstream(path) >> value;
  return value;
}

// CPUs that one group allows: quota / period of version 2 or 1; 0 without a limit. "max" is no
// number and -1 no limit.
double limit_of(const std::string& group) {
  double quota = 0, period = 0;
  std::ifstream(group + "/cpu.max") >> quota >> period;
  if (quota <= 0 || period <= 0) {
    quota = number_in(group + "/cpu.cfs_quota_us");
    period = number_in(group + "/cpu.cfs_period_us");
  }
  return quota > 0 && period > 0 ? quota / period : 0;
}

bool has_cpu(const std::string& controllers) {
  return ("," + controllers + ",").find(",cpu,") != std::string::npos;
}

}  // namespace

int quota_cpus(const std::string& root) {
  double least = 0;
  std::ifstream groups(root + "/proc/self/cgroup");
  for (std::string line; std::getline(groups, line);) {  // "number:controllers:path"
    std::istringstream parts(line);
    std::string number, controllers, path;
    if (!std::getline(parts, number, ':') || !std::getline(parts, controllers, ':') ||
        !std::getline(parts, path))
      continue;
    const bool version2 = controllers.empty();
    if (!version2 && !has_cpu(controllers)) continue;
    const std::string mounted = root + "/sys/fs/cgroup" + (version2 ? "" : "/" + controllers);
    // Each group up to the first is a limit. Inside a container the path may be the host's: then
    // only the last, the container's own, is there.
    for (;; path.erase(path.rfind('/'))) {
      const double limit = limit_of(mounted + path);
      if (limit > 0 && (least == 0 || limit < least)) least = limit;
      if (path.rfind('/') == std::string::npos) break;
    }
  }
  return least > 0 ? std::max(1, int(std::min(least, 1024.0))) : 0;
}

}  // namespace fastmlp::cpu
