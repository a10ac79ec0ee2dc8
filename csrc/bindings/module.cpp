// The module fastmlp._core: a table of contents. Its Python face is described in _core.pyi.
#include <pybind11/pybind11.h>

#include "bindings/bindings.h"

PYBIND11_MODULE(_core, module) {
  module.attr("version") = FASTMLP_VERSION;
  fastmlp::bindings::add_machine(module);
  fastmlp::bindings::add_kernels(module);
  fastmlp::bindings::add_network(module);
  fastmlp::bindings::add_inference(module);
}
