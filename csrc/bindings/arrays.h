// Arrays of Python as views: NumPy's by their buffer, all others by __cuda_array_interface__.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include "core/view.h"

namespace fastmlp::bindings {

namespace py = pybind11;

// Memory of any element type.
struct Memory {
  void* data = nullptr;
  char kind = 'f';  // as in NumPy's typestr
  std::int64_t item_size = 0, size = 0;
  bool contiguous = false;
  Device device = Device::cpu;
};

Memory memory_of(py::handle array);
View view_of(py::handle array);  // float32, float64 or int32
View writable_view(py::handle array);

}  // namespace fastmlp::bindings
