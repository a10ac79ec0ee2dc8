#include "bindings/arrays.h"

#include <string>

namespace fastmlp::bindings {
namespace {

struct Description {
  void* data;
  std::string type;                          // such as "<f4"
  std::vector<std::int64_t> shape, strides;  // strides in bytes
  bool writable;
  Device device;
};

Description describe(py::handle object) {
  Description d;
  if (py::isinstance<py::array>(object)) {
    const auto array = py::reinterpret_borrow<py::array>(object);
    d.data = const_cast<void*>(array.data());
    d.type = std::string(1, array.dtype().kind()) + std::to_string(array.itemsize());
    d.shape.assign(array.shape(), array.shape() + array.ndim());
    d.strides.assign(array.strides(), array.strides() + array.ndim());
    d.writable = array.writeable();
    d.device = Device::cpu;
    return d;
  }
  if (!py::hasattr(object, "__cuda_array_interface__"))
    throw py::type_error("needs a NumPy or CuPy array, got " +
                         py::cast<std::string>(py::str(py::type::of(object).attr("__name__"))));
  const py::dict interface = object.attr("__cuda_array_interface__");
  const py::tuple data = interface["data"];
  d.data = reinterpret_cast<void*>(py::cast<std::uintptr_t>(data[0]));
  d.writable = !py::cast<bool>(data[1]);
  d.type = py::cast<std::string>(interface["typestr"]).substr(1);
  d.device = Device::cuda;
  for (py::handle n : py::tuple(interface["shape"])) d.shape.push_back(py::cast<std::int64_t>(n));
  if (interface.contains("strides") && !interface["strides"].is_none()) {
    for (py::handle n : py::tuple(interface["strides"]))
      d.strides.push_back(py::cast<std::int64_t>(n));
  } else {
    std::int64_t stride = std::stoll(d.type.substr(1));
    d.strides.resize(d.shape.size());
    for (std::size_t i = d.shape.size(); i-- > 0; stride *= d.shape[i]) d.strides[i] = stride;
  }
  return d;
}

View to_view(const Description& d) {
  View view;
  view.data = d.data;
  view.device = d.device;
  if (d.type == "f4")
    view.dtype = DType::float32;
  else if (d.type == "f8")
    view.dtype = DType::float64;
  else if (d.type == "i4")
    view.dtype = DType::int32;
  else
    throw py::type_error("needs float32, float64 or int32, got an array of type " + d.type);
  if (d.shape.size() > View::max_rank)
    throw py::value_error("needs at most " + std::to_string(View::max_rank) + " dimensions, got " +
                          std::to_string(d.shape.size()));
  view.rank = int(d.shape.size());
  for (int i = 0; i < view.rank; ++i) {
    view.shape[i] = d.shape[i];
    view.strides[i] = d.strides[i] / size_of(view.dtype);
    if (d.strides[i] % size_of(view.dtype))
      throw py::value_error("needs strides of whole elements");
  }
  return view;
}

}  // namespace

Memory memory_of(py::handle array) {
  const Description d = describe(array);
  Memory memory{d.data, d.type[0], std::stoll(d.type.substr(1)), 1, true, d.device};
  for (std::size_t i = d.shape.size(); i-- > 0;) {
    memory.contiguous &= d.shape[i] <= 1 || d.strides[i] == memory.size * memory.item_size;
    memory.size *= d.shape[i];
  }
  memory.contiguous |= memory.size == 0;
  return memory;
}

View view_of(py::handle array) { return to_view(describe(array)); }

View writable_view(py::handle array) {
  const Description d = describe(array);
  if (!d.writable) throw py::value_error("needs an array that can be written, got a read-only one");
  return to_view(d);
}

}  // namespace fastmlp::bindings
