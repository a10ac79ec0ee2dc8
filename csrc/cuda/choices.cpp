// The file of choices: read line by line, written by one process at a time.
#include "cuda/choices.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <utility>
#include <vector>

#include "cuda/backend.h"
#include "cuda/blas.h"

namespace fastmlp::cuda {
namespace {

// A line is the way, a blank and the product. Of two for one product the first one counts.
std::optional<int> find_in(const std::string& file, const std::string& product) {
  std::ifstream lines(file);
  for (std::string line; std::getline(lines, line);) {
    const std::size_t blank = line.find(' ');
    if (blank != std::string::npos && line.compare(blank + 1, std::string::npos, product) == 0)
      return std::atoi(line.c_str());
  }
  return std::nullopt;
}

// The file, opened for writing and this process's alone.
class Locked {
 public:
  explicit Locked(const std::string& file)
      : file_(open(file.c_str(), O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0666)),
        locked_(file_ >= 0 && flock(file_, LOCK_EX) == 0) {}
  ~Locked() {
    if (file_ >= 0) close(file_);
  }
  Locked(const Locked&) = delete;
  Locked& operator=(const Locked&) = delete;
  explicit operator bool() const { return locked_; }
  void append(const std::string& line) const {
    // In one piece, so that whoever reads at the same time finds a whole line or none.
    [[maybe_unused]] const auto written = write(file_, line.data(), line.size());
  }

 private:
  const int file_;
  const bool locked_;
};

}  // namespace

void Choices::keep_in(const std::string& file) {
  const std::lock_guard<std::mutex> lock(mutex_);
  file_ = file;
  settled_.clear();
}

bool Choices::can_be_kept() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  if (file_.empty()) return false;
  std::error_code ignored;
  std::filesystem::create_directories(std::filesystem::path(file_).parent_path(), ignored);
  return bool(Locked(file_));
}

std::optional<int> Choices::find(const std::string& product) const {
  const std::lock_guard<std::mutex> lock(mutex_);
  return find_in(file_, product);
}

int Choices::keep(const std::string& product, int way) const {
  const std::lock_guard<std::mutex> lock(mutex_);
  const Locked file(file_);
  if (const auto earlier = find_in(file_, product)) return *earlier;
  if (file) file.append(std::to_string(way) + " " + product + "\n");
  return way;
}

std::optional<int> Choices::settled(const std::string& product) const {
  const std::lock_guard<std::mutex> lock(mutex_);
  const auto found = settled_.find(product);
  return found == settled_.end() ? std::nullopt : std::optional<int>(found->second);
}

void Choices::settle(const std::string& product, int way) {
  const std::lock_guard<std::mutex> lock(mutex_);
  settled_[product] = way;
}

std::map<std::string, int> Choices::all() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  return settled_;
}

Choices& choices() {
  static Choices instance;
  return instance;
}

void use_blas(std::vector<std::string> libraries, const std::string& choices_file) {
  look_for_blas(std::move(libraries));
  choices().keep_in(choices_file);
}

std::map<std::string, std::string> large_products() {
  std::map<std::string, std::string> ways;
  for (const auto& [product, way] : choices().all())
    ways[product] = way == own_kernels ? "own kernels" : "algorithm " + std::to_string(way);
  return ways;
}

}  // namespace fastmlp::cuda
