// The kernels of `fm.kernels`: views in, a one-record program, run on the backend.
#include <pybind11/stl.h>

#include "bindings/arrays.h"
#include "bindings/bindings.h"
#include "bindings/capsule.h"
#include "nn/primitives.h"

namespace fastmlp::bindings {
namespace {

using Array = py::object;

void execute(const py::capsule& capsule, nn::Call call) {
  if (call.program.records.empty()) return;
  const auto executable = backend_of(capsule).compile(std::move(call.program));
  Launch launch;
  launch.buffers = call.buffers.data();
  launch.stream = current_stream(capsule);
  py::gil_scoped_release release;
  executable->run(launch);
}

const View* optional_view(const Array& array, View& storage) {
  if (array.is_none()) return nullptr;
  storage = view_of(array);
  return &storage;
}

}  // namespace

void add_kernels(py::module_& module) {
  module.def("matmul", [](const py::capsule& backend, Array out, Array a, Array b, bool transpose_a,
                          bool transpose_b) {
    execute(backend,
            nn::matmul(writable_view(out), view_of(a), view_of(b), transpose_a, transpose_b));
  });
  module.def("bias_add", [](const py::capsule& backend, Array out, Array x, Array bias) {
    execute(backend, nn::bias_add(writable_view(out), view_of(x), view_of(bias)));
  });
  module.def("activation_forward", [](const py::capsule& backend, Array out, Array x,
                                      const std::string& name, double parameter) {
    const int function = formula_named<Functions>("function", name);
    execute(backend, nn::activation_forward(writable_view(out), view_of(x), {function, parameter}));
  });
  module.def("activation_backward", [](const py::capsule& backend, Array dx, Array dy, Array kept,
                                       const std::string& name, double parameter) {
    execute(backend, nn::activation_backward(writable_view(dx), view_of(dy), view_of(kept),
                                             activation_named(name, parameter)));
  });
  module.def("dense_forward", [](const py::capsule& backend, Array y, Array x, Array kernel,
                                 Array bias, const std::string& name, double parameter) {
    View storage;
    execute(backend,
            nn::dense_forward(writable_view(y), view_of(x), view_of(kernel),
                              optional_view(bias, storage), activation_named(name, parameter)));
  });
  module.def("dense_backward", [](const py::capsule& backend, Array dx, Array dkernel, Array dbias,
                                  Array dz, Array dy, Array x, Array y, Array kernel,
                                  const std::string& name, double parameter) {
    execute(backend,
            nn::dense_backward(writable_view(dx), writable_view(dkernel), writable_view(dbias),
                               writable_view(dz), view_of(dy), view_of(x), view_of(y),
                               view_of(kernel), activation_named(name, parameter)));
  });
  module.def("softmax", [](const py::capsule& backend, Array y, Array x, bool logarithm) {
    execute(backend, nn::softmax(writable_view(y), view_of(x), logarithm));
  });
  module.def("softmax_backward", [](const py::capsule& backend, Array dx, Array dy, Array y,
                                    bool logarithm) {
    execute(backend, nn::softmax_backward(writable_view(dx), view_of(dy), view_of(y), logarithm));
  });
  module.def("loss", [](const py::capsule& backend, Array row_loss, Array gradient,
                        Array prediction, Array target, Array weight, const std::string& name,
                        double divisor) {
    View storage;
    execute(backend, nn::loss(writable_view(row_loss), writable_view(gradient), view_of(prediction),
                              view_of(target), optional_view(weight, storage),
                              formula_named<Losses>("loss", name), divisor));
  });
  module.def("update", [](const py::capsule& backend, Array parameter, Array gradient,
                          const std::vector<Array>& moments, Array state, Array learning_rate,
                          const Update& rule) {
    std::vector<View> views;
    for (const Array& moment : moments) views.push_back(writable_view(moment));
    View state_view;
    state_view.data = memory_of(state).data;
    execute(backend, nn::update(writable_view(parameter), view_of(gradient), views, state_view,
                                view_of(learning_rate), rule));
  });
}

}  // namespace fastmlp::bindings
