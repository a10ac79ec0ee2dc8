// The module fastmlp._cuda: hands the GPU's backend to fastmlp._core, and answers questions about
// the GPU. It can be imported on a machine that has none. Its Python face is described in
// _cuda.pyi.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include "bindings/capsule.h"
#include "cuda/backend.h"
#include "cuda/machine.h"

namespace py = pybind11;

PYBIND11_MODULE(_cuda, module) {
  namespace cuda = fastmlp::cuda;
  module.def("backend", [](const py::function& current_stream) {
    const auto self = py::module_::import("fastmlp._cuda");
    return fastmlp::bindings::to_capsule(cuda::backend(), self, current_stream);
  });
  module.def("unavailable", cuda::unavailable);
  module.def("use_blas", cuda::use_blas);
  module.def("describe", [] {
    py::dict result;
    result["device"] = cuda::device_name();
    result["compute_capability"] = cuda::compute_capability();
    result["runtime"] = cuda::runtime_version();
    result["driver"] = cuda::driver_version();
    result["blas"] = cuda::blas_version();
    result["large_products"] = cuda::large_products();
    return result;
  });
}
