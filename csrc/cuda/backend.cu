// Stands in for the backend until there is one: everything around it can be built and tested.
#include "cuda/backend.h"

#include <stdexcept>

namespace fastmlp::cuda {
namespace {

class Stub final : public Backend {
 public:
  Device device() const override { return Device::cuda; }
  std::int64_t leading_dimension(std::int64_t cols, DType) const override { return cols; }
  std::unique_ptr<Executable> compile(Program) override {
    throw std::runtime_error("cuda: this build has no kernels yet");
  }
  void read(void*, const void*, std::size_t, void*) override {
    throw std::runtime_error("cuda: this build has no kernels yet");
  }
};

}  // namespace

Backend& backend() {
  static Stub stub;
  return stub;
}

}  // namespace fastmlp::cuda
