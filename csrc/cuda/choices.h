// Which way each large product goes, by measurement, and the same on every run: a time is never
// quite the same again, so what it decided is written down and read by all later processes.
#pragma once

#include <map>
#include <mutex>
#include <optional>
#include <string>

namespace fastmlp::cuda {

// A way is the number of one of the library's algorithms, or this: our own kernels.
constexpr int own_kernels = -1;

class Choices {
 public:
  // The file may be there or not; "" for none.
  void keep_in(const std::string& file);

  // Whether there is a file to write in. What cannot be kept must not be measured.
  bool can_be_kept() const;

  // The way that is written for a product, if any.
  std::optional<int> find(const std::string& product) const;

  // Writes a way down and returns it, or the one that another process has written meanwhile.
  int keep(const std::string& product, int way) const;

  // What this process has settled on, whatever for.
  std::optional<int> settled(const std::string& product) const;
  void settle(const std::string& product, int way);
  std::map<std::string, int> all() const;

 private:
  mutable std::mutex mutex_;
  std::string file_;
  std::map<std::string, int> settled_;
};

Choices& choices();

}  // namespace fastmlp::cuda
