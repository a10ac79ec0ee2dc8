// A tensor that somebody else owns: the one way in which arrays reach the core.
#pragma once

#include <cstdint>
#include <string>

namespace fastmlp {

enum class DType : std::uint8_t { float32, float64, int32 };
enum class Device : std::uint8_t { cpu, cuda };

constexpr std::int64_t size_of(DType dtype) { return dtype == DType::float64 ? 8 : 4; }

inline const char* name(DType dtype) {
  return dtype == DType::float32 ? "float32" : dtype == DType::float64 ? "float64" : "int32";
}

struct View {
  static constexpr int max_rank = 8;

  void* data = nullptr;
  DType dtype = DType::float32;
  Device device = Device::cpu;
  int rank = 0;
  std::int64_t shape[max_rank] = {};
  std::int64_t strides[max_rank] = {};  // in elements

  std::int64_t size() const {
    std::int64_t n = 1;
    for (int i = 0; i < rank; ++i) n *= shape[i];
    return n;
  }
  // Counted from the end: dim(0) is the last dimension.
  std::int64_t dim(int from_end) const { return shape[rank - 1 - from_end]; }
  std::int64_t stride(int from_end) const { return strides[rank - 1 - from_end]; }
};

inline std::string shape_text(const View& view) {
  std::string text = "(";
  for (int i = 0; i < view.rank; ++i) {
    text += std::to_string(view.shape[i]);
    text += i + 1 < view.rank ? ", " : view.rank == 1 ? "," : "";
  }
  return text + ")";
}

}  // namespace fastmlp
